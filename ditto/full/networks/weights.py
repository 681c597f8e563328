"""Tensors of a file into a network: the one place where a misfit is found and told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from ditto.errors import BundleError

NAMED = 3  # entries that a message names before it only counts


class Entry(NamedTuple):
    """What a tensor is, without its numbers.

    Attributes:
        shape: of the tensor.
        dtype: "float32", "int64", ...
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """How many bytes its numbers take."""
        return math.prod(self.shape) * int(np.dtype(self.dtype).itemsize)

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def entry(tensor: Tensor) -> Entry:
    """What a tensor is."""
    return Entry(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def entries(network: nn.Module) -> dict[str, Entry]:
    """Names, shapes and types of a network's weights."""
    return {name: entry(tensor) for name, tensor in network.state_dict().items()}


def check_entries(found: Mapping[str, Entry], wanted: Mapping[str, Entry], where: str | Path) -> None:
    """Compare what a file holds with what a network takes.

    Raises:
        BundleError: an entry is missing, left over, of another shape or type; the message names file, entries, what was
            wanted and what came.
    """
    missing = [f"{name} ({wanted[name]})" for name in wanted if name not in found]
    extra = [f"{name} ({found[name]})" for name in found if name not in wanted]
    other = [
        f"{name} (wanted {wanted[name]}, got {found[name]})"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    kinds = (("it lacks ", missing), ("the network has no ", extra), ("it differs in ", other))
    problems = [told + some(names) for told, names in kinds if names]
    if problems:
        raise BundleError(
            f"{where} does not fit its network: {'; '.join(problems)}. It is of another version, another network, or "
            "damaged; get it again"
        )


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def load_state(network: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Put a file's tensors into a network, strictly. A network on the meta device takes them over without a copy.

    Raises:
        BundleError: as `check_entries`.
    """
    wanted = entries(network)
    check_entries({name: entry(tensor) for name, tensor in tensors.items()}, wanted, where)
    network.load_state_dict(tensors, assign=any(tensor.is_meta for tensor in network.state_dict().values()))
