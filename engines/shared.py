"""Calls of several threads as one batch of a fixed size: streams share a forward, and the memory traffic of its weights."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ditto.errors import EngineError

from . import Tensor
from .networks import Example
from .torch_engine import TorchEngine, as_tensor, describe


class Job:
    """One call: its inputs, then its results or the error of the batch that it was in."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors
        self.results: dict[str, torch.Tensor] | None = None
        self.error: EngineError | None = None


class SharedEngine:
    """An engine for one row whose calls, from several threads, run together.

    Whoever calls while a batch runs is in the next one. Every batch has the same size, filled up with copies of its last row:
    a row has the same bits whoever else is there, and a lone caller pays for a whole batch.

    Args:
        engine: opened for several rows.
        example: of one row, whose shapes tell which axis of an input is the batch; that of results is the first.
    """

    def __init__(self, engine: TorchEngine, example: Example) -> None:
        self.engine, self.device = engine, engine.device
        self.inputs = tuple(describe(name, value) for name, value in example.inputs.items())
        self._axes = {
            full.name: next(i for i, (a, b) in enumerate(zip(full.shape, one.shape, strict=True)) if a != b)
            for full, one in zip(engine.inputs, self.inputs, strict=True)
        }
        first = engine.inputs[0]
        self.rows = int(first.shape[self._axes[first.name]])
        self.outputs = tuple(Tensor(t.name, t.dtype, (1, *t.shape[1:])) for t in engine.outputs)
        self._waiting: list[Job] = []
        self._lock, self._turn = threading.Lock(), threading.Lock()

    def __call__(self, **arrays: Any) -> dict[str, npt.NDArray[Any]]:
        """Arrays or tensors of one row in, arrays out. Errors as of `run`."""
        results = self.run(**{name: as_tensor(name, value) for name, value in arrays.items()})
        return {name: np.asarray(value.cpu()) for name, value in results.items()}

    def run(self, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        """The same with tensors, which stay on the engine's device.

        Raises:
            EngineError: names, types or shapes are not those of `inputs`, or the batch could not run.
        """
        came = {describe(name, value) for name, value in tensors.items()}
        if came != set(self.inputs):
            raise EngineError(f"expected {self.inputs}, got {tuple(sorted(came, key=str))}; give one row of each by name")
        job = Job(tensors)
        self._settle()
        with self._lock:
            self._waiting.append(job)
        with self._turn:  # one thread runs a batch; who waited here may find that it was in it
            while job.results is None and job.error is None:
                with self._lock:
                    jobs = self._waiting[: self.rows]
                    del self._waiting[: self.rows]
                self._run(jobs)
        if job.results is None:
            raise EngineError(str(job.error)) from job.error
        return job.results

    def _settle(self) -> None:
        """Wait for what this thread has queued on a GPU: another one, maybe on another stream, goes on with it."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def _run(self, jobs: Sequence[Job]) -> None:
        given = [job.tensors for job in jobs]
        given += [given[-1]] * (self.rows - len(given))
        try:
            results = self.engine.run(**{
                name: torch.cat([row[name].to(self.device) for row in given], axis) for name, axis in self._axes.items()
            })  # fmt: skip
            self._settle()
        except EngineError as error:
            for job in jobs:
                job.error = error
            return
        except BaseException as error:  # an interrupt belongs to this thread; the others must not wait for ever
            for job in jobs:
                job.error = EngineError(f"the batch of this call did not run: {error}; call again")
            raise
        for row, job in enumerate(jobs):
            job.results = {name: value[row : row + 1] for name, value in results.items()}
