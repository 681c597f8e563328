"""Tensors in the files that others publish, one at a time: torch, safetensors, ONNX initialisers.

A source says what tensors it has before any is read; a tensor's numbers come when they are asked for. torch files are
read with `weights_only` and mapped into memory, so nothing in them runs and nothing large is held.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from ditto.errors import BundleError
from ditto.full.networks.weights import Entry, entry, some

WRAPPERS = ("model_state_dict", "state_dict", "model")  # under which training programs keep the weights
PREFIXES = ("module.", "_orig_mod.")  # of parallel training, of torch.compile
HALF = ("float16", "bfloat16")
FLOATS = ("float32", "float64", *HALF)


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes:
        entry: shape and type as they are in the file.
        read: gives its numbers.
    """

    entry: Entry
    read: Callable[[], npt.NDArray[Any]]


Tensors = dict[str, Stored]


def stored(tensor: Tensor) -> Stored:
    """A torch tensor, read when it is wanted; bfloat16, which NumPy has not, as float32."""
    return Stored(entry(tensor), partial(numbers, tensor))


def numbers(tensor: Tensor) -> npt.NDArray[Any]:
    """The numbers of a tensor."""
    plain = tensor.detach().resolve_neg()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()


def read_torch(file: Path, module: str = "") -> Tensors:
    """The state dict in a torch file.

    Args:
        file: a .pth, .pt or .bin.
        module: the network's name, where a file holds several; "" where it holds one.

    Raises:
        BundleError: unreadable, truncated, not torch, wants to run code, or holds no tensors; the message names what a
            pickle wanted to call.
    """
    return strip(find_state(load_torch(file), module, file), file)


def load_torch(file: Path) -> Any:
    """What `torch.save` wrote, without running anything in it.

    Raises:
        BundleError: as `read_torch`.
    """
    try:
        packed = zipfile.is_zipfile(file)
        damaged = check_sums(file) if packed else None
        if damaged:
            raise BundleError(f"{file} is damaged: the checksum of {damaged} in it is wrong; get the file again")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to those who wrote the file
            return torch.load(file, map_location="cpu", weights_only=True, mmap=packed)
    except BundleError:
        raise
    except PermissionError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}; check its permissions") from error
    except Exception as error:  # what a damaged pickle makes torch raise has no common base
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked:
            raise BundleError(
                f"{file} is not loaded: its pickle wants to call {asked[1]}, and only tensors in plain dicts are read; get "
                "the file from its publisher"
            ) from error
        reason = (
            "" if isinstance(error, pickle.UnpicklingError) else f": {error}".splitlines()[0][:200]
        )  # torch advises
        raise BundleError(
            f"{file} ({size(file)}) is no torch file, or only a part of one{reason}; get it again"
        ) from error


def check_sums(file: Path) -> str | None:
    """Name of the first member of a zip file with a wrong checksum; None: all are right."""
    with zipfile.ZipFile(file) as archive:
        return archive.testzip()


def size(file: Path) -> str:
    """How large a file is."""
    try:
        return f"{file.stat().st_size:,} bytes"
    except OSError:
        return "unknown size"


def find_state(loaded: Any, module: str, file: Path) -> dict[str, Tensor]:
    """The dict of tensors in what a torch file held: under the module's name, or what training programs wrap it in.

    Raises:
        BundleError: there is none.
    """
    found, seen = loaded, set()
    while isinstance(found, Mapping) and id(found) not in seen:
        seen.add(id(found))
        inner = [found[key] for key in (module, *WRAPPERS) if key and isinstance(found.get(key), Mapping)]
        if not inner:
            break
        found = inner[0]
    if not isinstance(found, Mapping):
        raise BundleError(f"{file}: a dict of tensors is wanted, got {type(found).__name__}; give the published file")
    wrong = [f"{key} ({kind})" for key, value in found.items() if (kind := what_else(value))]
    if wrong or not found:
        raise BundleError(
            f"{file}: {module or 'a dict'} of tensors is wanted, got {some(wrong) or 'an empty dict'}; give the published file"
        )
    return {str(key): value for key, value in found.items()}


def what_else(value: Any) -> str:
    """What a value is that is no tensor with all its numbers; "" for one that is."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    if value.layout != torch.strided:
        return "a sparse Tensor"
    return "a Tensor without numbers" if value.is_meta else ""


def strip(state: Mapping[str, Tensor], file: Path) -> Tensors:
    """The same without the prefixes that parallel training and compilation leave.

    Raises:
        BundleError: two names become one.
    """
    out: Tensors = {}
    for key, tensor in state.items():
        name = key
        while name.startswith(PREFIXES):
            name = name.split(".", 1)[1]
        if name in out:
            raise BundleError(f"{file} has {name} twice, with and without a prefix; give the published file")
        out[name] = stored(tensor)
    return out


def read_safetensors(file: Path) -> Tensors:
    """The tensors of a safetensors file.

    Raises:
        BundleError: it is none, or truncated.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: stored(tensor) for name, tensor in load_file(file).items()}
    except PermissionError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}; check its permissions") from error
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{file} ({size(file)}) is no safetensors file, or only a part of one: {error}; get the file again"
        ) from error
