"""The released settings: pickled dicts of plain values and arrays, read without running anything.

Where a pickle is not wanted, a JSON file of the same name (`v0.4_hubert_cfg_pytorch.json`) takes its place: the same keys,
arrays as lists of lists.
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

from ditto.bundle import Part
from ditto.errors import BundleError
from ditto.full.conversion.checkpoints import Stored, size
from ditto.full.networks.weights import Entry

SETTINGS = "default_kwargs"  # the one group of the released settings that is not paths or sizes
ARRAY = "array"  # {"array": name} in JSON stands for an array in the file beside it


def latin1(text: str, encoding: str) -> bytes:
    """What old pickles make bytes with.

    Raises:
        UnpicklingError: another encoding.
    """
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes by way of {encoding!r} are not read")
    return text.encode("latin1")


class Numbers:
    """The type of an array in a pickle. NumPy's own believes what a pickle says of it, and takes bytes for addresses."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[fiu][1248]|b1", code):
            raise pickle.UnpicklingError(f"arrays of {code!r} are not read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class Values:
    """An array in a pickle, filled in when its state comes."""

    array: npt.NDArray[Any]

    def __init__(self, *_: Any) -> None:
        self.array = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, data = state
        self.array = from_buffer(data, kind, shape, "F" if by_columns else "C")


def from_buffer(buffer: Any, kind: Numbers, shape: Any, order: Any) -> npt.NDArray[Any]:
    """What new pickles make arrays with."""
    values = np.frombuffer(buffer, kind.dtype) if len(buffer) else np.zeros(0, kind.dtype)
    return values.reshape(shape, order=order)


def scalar(kind: Numbers, data: bytes) -> Any:
    """A single number."""
    return from_buffer(data, kind, (), "C")[()]


ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): latin1,
    ("numpy", "ndarray"): "ndarray",  # named before its state, never called
    ("numpy", "dtype"): Numbers,
}
for core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    ALLOWED[core + ".multiarray", "_reconstruct"] = Values
    ALLOWED[core + ".multiarray", "scalar"] = scalar
    ALLOWED[core + ".numeric", "_frombuffer"] = from_buffer


class PlainUnpickler(pickle.Unpickler):
    """Reads plain values and NumPy arrays, refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may call. Raises UnpicklingError for what is not in `ALLOWED`."""
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}") from None


def read_settings(file: Path) -> dict[str, Any]:
    """The released settings of a pickle, or of a JSON file in its place.

    Raises:
        BundleError: unreadable, wants to run code (the message names what), or without settings.
    """
    try:
        if file.suffix == ".json":
            found = with_arrays(json.loads(file.read_text(encoding="utf-8")))
        else:
            with file.open("rb") as stream:
                found = plain(PlainUnpickler(stream).load())
    except Exception as error:  # a damaged pickle raises whatever its bytes ask for
        raise BundleError(
            f"{file} ({size(file)}) is not read: {error or type(error).__name__}; only plain values and arrays are, get the "
            "file from its publisher"
        ) from error
    if not isinstance(found, Mapping) or not isinstance(found.get(SETTINGS), Mapping):
        got = f"keys {', '.join(map(str, found))}" if isinstance(found, Mapping) else type(found).__name__
        raise BundleError(f"{file}: a dict with {SETTINGS!r} is wanted, got {got}; give the published settings")
    return dict(found[SETTINGS])


def plain(value: Any) -> Any:
    """What a pickle held, arrays in their places."""
    if isinstance(value, Values):
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


def take_apart(value: Any, path: str, arrays: dict[str, Stored], file: Path) -> Any:
    """Settings as JSON; arrays go into `arrays` under their place ("online.ch_info.kp").

    Raises:
        BundleError: a value that is neither plain nor an array of numbers.
    """
    if isinstance(value, Mapping):
        return {str(key): take_apart(inner, f"{path}.{key}", arrays, file) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [take_apart(inner, f"{path}.{i}", arrays, file) for i, inner in enumerate(value)]
    if isinstance(value, np.generic):
        return take_apart(value.item(), path, arrays, file)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        kind = "float32" if value.dtype.kind == "f" else "int64"
        arrays[path] = Stored(Entry(value.shape, kind), partial(np.asarray, value, kind))
        return {ARRAY: path}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise BundleError(
        f"{file}: {path} is {type(value).__name__}; plain values and arrays of numbers are read, get the published file"
    )


def released_settings(part: Part, kind: str) -> dict[str, Any]:
    """The settings that a bundle carries, arrays in their places.

    Args:
        part: the bundle's part "settings".
        kind: "offline" or "online".

    Raises:
        BundleError: the bundle has none of this kind, or their arrays are missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if kind not in part.config:
        raise BundleError(f"part {part.name!r} has settings {', '.join(part.config) or '(none)'}; {kind!r} is wanted")
    file = part.file("arrays")
    try:
        arrays = load_file(file)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{file} is no readable safetensors file: {error}; get the bundle again") from error

    def put_together(value: Any) -> Any:
        if isinstance(value, Mapping):
            if set(value) == {ARRAY} and value[ARRAY] in arrays:
                return arrays[value[ARRAY]]
            return {key: put_together(inner) for key, inner in value.items()}
        return [put_together(inner) for inner in value] if isinstance(value, list) else value

    return dict(put_together(part.config[kind]))
