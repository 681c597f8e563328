"""The processes of a training run: this one alone, or those that `accelerate launch` or `torchrun` started."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ditto.engines.torch_engine import torch_device
from ditto.errors import InputError


class Workers(Protocol):
    """The processes that train together. Each takes its own windows of an update; gradients are averaged.

    `mean` is over the processes; `from_first` gives the first one's values to all. Those that go on from a checkpoint read
    it themselves, so the folder of the run lies where all of them find it.
    """

    rank: int
    count: int
    device: torch.device

    def wrap(self, objective: nn.Module) -> nn.Module: ...

    def unsynchronised(self, module: nn.Module) -> AbstractContextManager[Any]: ...

    def mean(self, values: Tensor) -> Tensor: ...

    def from_first(self, values: Tensor) -> Tensor: ...


class OneProcess:
    """This process alone."""

    rank, count = 0, 1

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)

    def wrap(self, objective: nn.Module) -> nn.Module:
        return objective

    def unsynchronised(self, module: nn.Module) -> AbstractContextManager[Any]:
        return nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        return values

    def from_first(self, values: Tensor) -> Tensor:
        return values


class ManyProcesses:
    """The processes that `accelerate launch` or `torchrun` started, on one machine or several.

    Raises:
        InputError: the package accelerate is not installed.
    """

    def __init__(self, cpu: bool = False) -> None:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise InputError(
                f"training in several processes needs accelerate ({error}); pip install 'ditto-talking-head[train]'"
            ) from error
        self._accelerator = Accelerator(cpu=cpu)
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device

    def wrap(self, objective: nn.Module) -> nn.Module:
        wrapped: nn.Module = self._accelerator.prepare_model(objective)
        return wrapped

    def unsynchronised(self, module: nn.Module) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self._accelerator.no_sync(module)
        return context

    def mean(self, values: Tensor) -> Tensor:
        reduced: Tensor = self._accelerator.reduce(values, "mean")
        return reduced

    def from_first(self, values: Tensor) -> Tensor:
        from accelerate.utils import broadcast

        sent: Tensor = broadcast(values.clone(), from_process=0)
        return sent


def open_workers(device: str = "cpu") -> Workers:
    """This process, or its part of those that `accelerate launch` or `torchrun` started.

    Raises:
        InputError: the name is none of cpu, cuda and cuda:N, or the package accelerate is not installed.
        EngineError: the GPU does not exist, or torch is built without CUDA.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return ManyProcesses(cpu=device == "cpu")
    try:
        return OneProcess(torch_device(device))
    except ValueError as error:
        raise InputError(str(error)) from None
