"""Engines: what runs a network. A component calls `engine(**arrays)` and never asks which backend it is.

`open_engine` makes the choice once. Backends are imported only when they are asked for.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ditto.errors import EngineError

__all__ = ["BACKENDS", "Engine", "Tensor", "open_engine"]

BACKENDS = ("onnxruntime",)


class Tensor(NamedTuple):
    """One input or output of a network.

    Attributes:
        name: argument name of the model's `forward` (state fields: `state.key`, returned as `next_state.key`).
        dtype: NumPy type.
        shape: fixed sizes as ints, free ones as their name.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]


@runtime_checkable
class Engine(Protocol):
    """A network that is ready to run: arrays in by name, arrays out by name. Holds no state between calls."""

    @property
    def inputs(self) -> tuple[Tensor, ...]: ...

    @property
    def outputs(self) -> tuple[Tensor, ...]: ...

    def __call__(self, **arrays: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]: ...


def open_engine(path: str | PathLike[str], backend: str = "onnxruntime", threads: int = 1) -> Engine:
    """The engine that runs the network in a file.

    Args:
        path: an ONNX (or ORT format) file.
        backend: one of `BACKENDS`.
        threads: threads inside one call; with a fixed number the result is the same bit for bit on the same machine.

    Raises:
        ValueError: an unknown backend, or fewer than one thread.
        EngineError: the file is missing or damaged, or the backend is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is one of {', '.join(BACKENDS)}, got {backend!r}")
    if threads < 1:
        raise ValueError(f"threads is at least 1, got {threads}")
    file = Path(path)
    if not file.is_file():
        raise EngineError(
            f"a network file is wanted at {file}, there is none; `ditto bundle verify` says what is missing"
        )
    from .onnx_engine import OnnxEngine

    return OnnxEngine(file, threads)
