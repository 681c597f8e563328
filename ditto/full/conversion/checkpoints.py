"""Reads tensors in published files, one at a time: torch and safetensors.

A file is first opened for the names, shapes and types of its tensors; a tensor's numbers are read later, one tensor at a
time. torch files are read with `weights_only` and mapped into memory: no code in them runs, and memory use stays small.
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
from ditto.full.networks.weights import TensorSpec, first_names, spec_of

WRAPPERS = ("model_state_dict", "state_dict", "model")  # keys under which training programs save the weights
PREFIXES = ("module.", "_orig_mod.")  # of parallel training, of torch.compile
HALF = ("float16", "bfloat16")
FLOATS = ("float32", "float64", *HALF)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        spec: shape and type in the file.
        read: returns its numbers.
    """

    spec: TensorSpec
    read: Callable[[], npt.NDArray[Any]]


Tensors = dict[str, StoredTensor]


def stored(tensor: Tensor) -> StoredTensor:
    """A torch tensor whose numbers are read later; bfloat16, which NumPy does not have, as float32."""
    return StoredTensor(spec_of(tensor), partial(numbers, tensor))


def numbers(tensor: Tensor) -> npt.NDArray[Any]:
    """The numbers of a tensor."""
    plain = tensor.detach().resolve_neg()
    found: npt.NDArray[Any] = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    return found


def read_torch(file: Path) -> Tensors:
    """The state dict in a torch file (.pth, .pt, .bin) of one network.

    Raises:
        BundleError: the file is unreadable, truncated, not torch's, would run code, or holds no tensors. For code, the
            message names the function that the pickle calls.
    """
    return strip(find_state(load_torch(file), "", file), file)


def load_torch(file: Path) -> Any:
    """What `torch.save` wrote, without running anything in it.

    Raises:
        BundleError: as `read_torch`.
    """
    try:
        packed = zipfile.is_zipfile(file)
        damaged = check_sums(file) if packed else None
        if damaged:
            raise BundleError(f"{file}: expected right checksums, got a wrong one for {damaged}; get the file again")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice for the author of the file
            return torch.load(file, map_location="cpu", weights_only=True, mmap=packed)
    except BundleError:
        raise
    except PermissionError as error:
        raise BundleError(f"expected to read {file}, got: {error.strerror}; check its permissions") from error
    except Exception as error:  # the errors that torch raises for a damaged pickle share no other base
        call = re.search(r"GLOBAL ([\w.]+)", str(error))
        if call:
            raise BundleError(
                f"{file}: expected tensors in plain dicts, got a pickle that calls {call[1]}; the file was not loaded: get it "
                "from its publisher"
            ) from error
        reason = (
            "" if isinstance(error, pickle.UnpicklingError) else f": {error}".splitlines()[0][:200]
        )  # torch advises
        raise BundleError(f"expected a complete torch file, got {file} ({size(file)}){reason}; get it again") from error


def check_sums(file: Path) -> str | None:
    """Name of the first member of a zip file with a wrong checksum; None: all are right."""
    with zipfile.ZipFile(file) as archive:
        return archive.testzip()


def size(file: Path) -> str:
    """The size of a file, for messages."""
    try:
        return f"{file.stat().st_size:,} bytes"
    except OSError:
        return "unknown size"


def find_state(loaded: Any, module: str, file: Path) -> dict[str, Tensor]:
    """The dict of tensors in the contents of a torch file, under the module's name or one of `WRAPPERS`.

    Raises:
        BundleError: there is no such dict.
    """
    found, seen = loaded, set()
    while isinstance(found, Mapping) and id(found) not in seen:
        seen.add(id(found))
        inner = [found[key] for key in (module, *WRAPPERS) if key and isinstance(found.get(key), Mapping)]
        if not inner:
            break
        found = inner[0]
    if not isinstance(found, Mapping):
        raise BundleError(f"{file}: expected a dict of tensors, got {type(found).__name__}; give the published file")
    wrong = [f"{key} ({kind})" for key, value in found.items() if (kind := not_a_tensor(value))]
    if wrong or not found:
        raise BundleError(
            f"{file}: expected {module or 'a dict'} of tensors, got {first_names(wrong) or 'an empty dict'}; give the "
            "published file"
        )
    return {str(key): value for key, value in found.items()}


def not_a_tensor(value: Any) -> str:
    """The kind of a value that is not a dense tensor with numbers; "" for a value that is."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    if value.layout != torch.strided:
        return "a sparse Tensor"
    return "a Tensor without numbers" if value.is_meta else ""


def strip(state: Mapping[str, Tensor], file: Path) -> Tensors:
    """Tensors without the prefixes that parallel training and compilation add to their names.

    Raises:
        BundleError: two names become one.
    """
    out: Tensors = {}
    for key, tensor in state.items():
        name = key
        while name.startswith(PREFIXES):
            name = name.split(".", 1)[1]
        if name in out:
            raise BundleError(
                f"{file}: expected {name} once, got it with and without a prefix; give the published file"
            )
        out[name] = stored(tensor)
    return out


def read_safetensors(file: Path) -> Tensors:
    """The tensors of a safetensors file.

    Raises:
        BundleError: the file is not a safetensors file, or is truncated.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: stored(tensor) for name, tensor in load_file(file).items()}
    except PermissionError as error:
        raise BundleError(f"expected to read {file}, got: {error.strerror}; check its permissions") from error
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"expected a complete safetensors file, got {file} ({size(file)}): {error}; get the file again"
        ) from error
