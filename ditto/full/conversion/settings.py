"""Reads the released settings, pickled dicts of plain values and arrays, without running any code in them.

A JSON file of the same name (`v0.4_hubert_cfg_pytorch.json`) can replace the pickle: the same keys, arrays as lists of
lists.
"""

from __future__ import annotations

import json
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.bundle import Part, read_tensors
from ditto.errors import BundleError
from ditto.full.conversion.checkpoints import StoredTensor, size
from ditto.full.networks.weights import TensorSpec

SETTINGS = "default_kwargs"  # the group of the released settings without paths and sizes
ARRAY = "array"  # {"array": name} in JSON names an array in the safetensors file


def encode_latin1(text: str, encoding: str) -> bytes:
    """Bytes of an old pickle (protocol 2 and below).

    Raises:
        UnpicklingError: another encoding.
    """
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"expected bytes in latin1, got {encoding!r}")
    return text.encode("latin1")


class PickledDtype:
    """The type of an array in a pickle. NumPy's own type is unsafe here: a pickle can make it read bytes as addresses."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[fiu][1248]|b1", code):
            raise pickle.UnpicklingError(f"expected arrays of numbers, got {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class PickledArray:
    """An array in a pickle; `__setstate__` fills it."""

    array: npt.NDArray[Any]

    def __init__(self, *_: Any) -> None:
        self.array = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, data = state
        self.array = from_buffer(data, kind, shape, "F" if by_columns else "C")


def from_buffer(buffer: Any, dtype: PickledDtype, shape: Any, order: Any) -> npt.NDArray[Any]:
    """An array of a new pickle (protocol 5)."""
    values = np.frombuffer(buffer, dtype.dtype) if len(buffer) else np.zeros(0, dtype.dtype)
    return values.reshape(shape, order=order)


def scalar(dtype: PickledDtype, data: bytes) -> Any:
    """A single number of a pickle."""
    return from_buffer(data, dtype, (), "C")[()]


ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): encode_latin1,
    ("numpy", "ndarray"): "ndarray",  # the pickle names it as an argument, and never calls it
    ("numpy", "dtype"): PickledDtype,
}
for core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    ALLOWED[core + ".multiarray", "_reconstruct"] = PickledArray
    ALLOWED[core + ".multiarray", "scalar"] = scalar
    ALLOWED[core + ".numeric", "_frombuffer"] = from_buffer


class PlainUnpickler(pickle.Unpickler):
    """Reads plain values and NumPy arrays, refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """A function or class that a pickle names. Raises UnpicklingError for one that is not in `ALLOWED`."""
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it calls {module}.{name}") from None


def read_settings(file: Path) -> dict[str, Any]:
    """The released settings of a pickle, or of a JSON file in its place.

    Raises:
        BundleError: the file is unreadable, would run code (the message names the function), or has no settings.
    """
    try:
        if file.suffix == ".json":
            found = with_arrays(json.loads(file.read_text(encoding="utf-8")))
        else:
            with file.open("rb") as stream:
                found = plain(PlainUnpickler(stream).load())
    except Exception as error:  # a damaged pickle can raise any error
        raise BundleError(
            f"{file} ({size(file)}): expected plain values and arrays, got: {error or type(error).__name__}; get the file "
            "from its publisher"
        ) from error
    if not isinstance(found, Mapping) or not isinstance(found.get(SETTINGS), Mapping):
        got = f"keys {', '.join(map(str, found))}" if isinstance(found, Mapping) else type(found).__name__
        raise BundleError(f"{file}: expected a dict with {SETTINGS!r}, got {got}; give the published settings")
    return dict(found[SETTINGS])


def plain(value: Any) -> Any:
    """The contents of a pickle with NumPy arrays in place of `PickledArray`."""
    if isinstance(value, PickledArray):
        return value.array
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def with_arrays(value: Any) -> Any:
    """JSON with lists of lists of numbers as float32 arrays."""
    if isinstance(value, dict):
        return {key: with_arrays(inner) for key, inner in value.items()}
    if isinstance(value, list) and value and all(isinstance(inner, list) for inner in value):
        try:
            return np.asarray(value, np.float32)
        except (ValueError, TypeError):  # not numbers, or rows of different lengths
            return [with_arrays(inner) for inner in value]
    return value


def separate_arrays(value: Any, path: str, arrays: dict[str, StoredTensor], file: Path) -> Any:
    """Settings as JSON; arrays go into `arrays` under their path ("online.ch_info.kp").

    Raises:
        BundleError: a value is neither plain nor an array of numbers.
    """
    if isinstance(value, Mapping):
        return {str(key): separate_arrays(inner, f"{path}.{key}", arrays, file) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [separate_arrays(inner, f"{path}.{i}", arrays, file) for i, inner in enumerate(value)]
    if isinstance(value, np.generic):
        return separate_arrays(value.item(), path, arrays, file)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        kind = "float32" if value.dtype.kind == "f" else "int64"
        arrays[path] = StoredTensor(TensorSpec(value.shape, kind), partial(np.asarray, value, kind))
        return {ARRAY: path}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise BundleError(
        f"{file}: expected {path} to be a plain value or an array of numbers, got {type(value).__name__}; get the "
        "published file"
    )


def released_settings(part: Part, kind: str) -> dict[str, Any]:
    """The settings in a bundle, with their arrays.

    Args:
        part: the bundle's part "settings".
        kind: "offline" or "online".

    Raises:
        BundleError: the bundle has no settings of this kind, or their arrays are missing or damaged.
    """
    if kind not in part.config:
        got = ", ".join(part.config) or "none"
        raise BundleError(
            f"expected settings {kind!r} in part {part.name!r}, got {got}; open the bundle without settings"
        )
    file = part.file("arrays")
    arrays = dict(read_tensors(file))

    def insert_arrays(value: Any) -> Any:
        if isinstance(value, Mapping):
            if set(value) == {ARRAY} and value[ARRAY] in arrays:
                return arrays[value[ARRAY]]
            return {key: insert_arrays(inner) for key, inner in value.items()}
        return [insert_arrays(inner) for inner in value] if isinstance(value, list) else value

    return dict(insert_arrays(part.config[kind]))
