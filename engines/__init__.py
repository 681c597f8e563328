"""Engines run networks. A component calls `engine(**arrays)`; it does not know which backend runs the network.

`open_engine` chooses the backend, once. A backend is imported when it is first opened.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ditto.errors import EngineError

if TYPE_CHECKING:  # the base install has no torch
    import torch
    from torch import nn

    from .networks import Example

__all__ = ["BACKENDS", "DeviceEngine", "Engine", "Tensor", "open_engine"]

log = logging.getLogger(__name__)
BACKENDS = ("onnxruntime", "onnxruntime-tensorrt", "torch", "tensorrt")


class Tensor(NamedTuple):
    """One input or output of a network.

    Attributes:
        name: argument name of the model's `forward` (state fields: `state.key`, returned as `next_state.key`).
        dtype: NumPy type.
        shape: fixed sizes as ints, free ones as their names.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]


@runtime_checkable
class Engine(Protocol):
    """A network that is ready to run: arrays in by name, arrays out by name. It keeps no state between calls."""

    @property
    def inputs(self) -> tuple[Tensor, ...]: ...

    @property
    def outputs(self) -> tuple[Tensor, ...]: ...

    def __call__(self, **arrays: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]: ...


class DeviceEngine(Engine, Protocol):
    """An engine that also takes tensors and leaves its results on its device. Every engine that ditto opens is one."""

    @property
    def device(self) -> torch.device: ...

    def run(self, **tensors: torch.Tensor) -> dict[str, torch.Tensor]: ...


def open_engine(
    network: str | PathLike[str] | nn.Module,
    backend: str | Sequence[str] = "onnxruntime",
    threads: int = 1,
    *,
    device: str = "cpu",
    precision: str = "float32",
    example: Example | None = None,
    cache: str | PathLike[str] | None = None,
    compiled: bool = False,
    shape: tuple[int, ...] | None = None,
) -> DeviceEngine:
    """The engine that runs a network.

    Args:
        network: an ONNX (or ORT format) file, or a torch module. "torch" modifies the module: it moves it and packs its
            weights. The other backends first export it to `cache` and compare the export with torch.
        backend: one of `BACKENDS`; "onnxruntime-tensorrt" is ONNX Runtime's TensorRT provider. Of several,
            the first that can run the network here; the log says why the ones before it cannot.
        threads: threads of one call on the CPU. On one machine the same number gives the same bits. torch has one number
            for the whole process.
        device: "cpu", "cuda" or "cuda:1".
        precision: of a module: "float32", "float16", "bfloat16" (torch), "int8" (torch on the CPU: linear layers).
        example: inputs whose types and shapes the engine is made for; `ditto.engines.networks.example_of` has those of the
            published networks.
        cache: folder for exported networks and plans; the platform's by default, or $DITTO_CACHE.
        compiled: run through `torch.compile` ("torch" only); opening then takes a minute or more.
        shape: the only shape that the one input of a file with free axes will have ("onnxruntime"); CUDA needs it where the
            file computes with sizes.

    Raises:
        ValueError: an unknown backend, device or precision, a combination that is not supported (a file has a precision
            of its own), or fewer than one thread.
        EngineError: the file is missing or damaged, the backend is not installed, the device does not exist or has too
            little memory, or the exported network differs from torch.
    """
    if not isinstance(backend, str):
        if not backend:
            raise ValueError(f"expected at least one backend of {', '.join(BACKENDS)}, got none; name one")
        for first in backend[:-1]:
            try:
                return open_engine(
                    network, first, threads, device=device, precision=precision, example=example, cache=cache,
                    compiled=compiled, shape=shape,
                )  # fmt: skip
            except EngineError as error:
                log.warning("%s cannot run the network: %s", first, error)
        backend = backend[-1]
    if backend not in BACKENDS:
        raise ValueError(f"expected backend to be one of {', '.join(BACKENDS)}, got {backend!r}; name one of them")
    if threads < 1:
        raise ValueError(f"expected threads to be 1 or more, got {threads}; give another number")
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()) or device == "cpu:":
        raise ValueError(f"expected device to be cpu, cuda or cuda:N, got {device!r}; name one of them")
    if kind == "cpu" and backend in ("tensorrt", "onnxruntime-tensorrt"):
        raise ValueError(f"expected a CUDA device for backend {backend!r}, got device='cpu'; set device='cuda'")
    if compiled and backend != "torch":
        raise ValueError(f"expected backend='torch' with compiled=True, got {backend!r}; leave compiled out")
    folder = None if cache is None else Path(cache)
    if isinstance(network, (str, PathLike)):
        if backend == "torch":
            raise ValueError(
                f"expected a torch module for backend='torch', got the file {network}; load it into a network of "
                "ditto.full.networks, or set backend='onnxruntime'"
            )
        if precision != "float32":
            raise ValueError(
                f"expected no precision for the file {network}, which keeps the one it was exported in, got {precision!r}; "
                "leave it out"
            )
    elif backend == "torch":
        from .networks import example_of
        from .torch_engine import TorchEngine

        example = example or example_of(network)
        return TorchEngine(network, example.inputs, example.outputs, device, precision, threads, compiled)
    if backend == "tensorrt":
        from .tensorrt_engine import TensorRTEngine, import_tensorrt
        from .torch_engine import torch_device

        torch_device(device)  # fails here, before an export, which takes minutes
        import_tensorrt()
        return TensorRTEngine(network_file(network, example, precision, folder), device, folder)
    from .onnx_engine import OnnxEngine, free_axes, require_provider

    provider = "tensorrt" if backend == "onnxruntime-tensorrt" else kind
    require_provider(provider, Path(network).name if isinstance(network, (str, PathLike)) else type(network).__name__)
    file = network_file(network, example, precision, folder)
    sizes = None if shape is None else free_axes(file, shape)
    return OnnxEngine(file, threads, provider, int(number or 0), folder, sizes)


def network_file(
    network: str | PathLike[str] | nn.Module, example: Example | None, precision: str, folder: Path | None
) -> Path:
    """A network as an ONNX file; a module is exported to the cache.

    Raises:
        EngineError: the file is missing, or the module cannot be exported.
    """
    if not isinstance(network, (str, PathLike)):
        from .export import exported
        from .networks import example_of

        return exported(network, example or example_of(network), precision, folder)
    file = Path(network)
    if not file.is_file():
        raise EngineError(
            f"expected a network file, got {file}, which does not exist; run `ditto bundle verify` to see what is missing"
        )
    return file
