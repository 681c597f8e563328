"""Load the tensors of a file into a network, and report every mismatch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from ditto.errors import BundleError

NAMED = 3  # names in a message; it counts the others


class TensorSpec(NamedTuple):
    """Shape and type of a tensor.

    Attributes:
        shape: of the tensor.
        dtype: "float32", "int64", ...
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Size of its numbers in bytes."""
        return math.prod(self.shape) * int(np.dtype(self.dtype).itemsize)

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def spec_of(tensor: Tensor) -> TensorSpec:
    """Shape and type of a tensor."""
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def specs_of(network: nn.Module) -> dict[str, TensorSpec]:
    """Names, shapes and types of a network's weights."""
    return {name: spec_of(tensor) for name, tensor in network.state_dict().items()}


def check_specs(found: Mapping[str, TensorSpec], expected: Mapping[str, TensorSpec], where: str | Path) -> None:
    """Compare what a file holds with what a network takes.

    Raises:
        BundleError: an entry is missing, left over, of another shape or type; the message names the file, the entries, what
            the network expects and what the file has.
    """
    missing = [f"{name} ({expected[name]})" for name in expected if name not in found]
    extra = [f"{name} ({found[name]})" for name in found if name not in expected]
    other = [
        f"{name} (expected {expected[name]}, got {found[name]})"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    kinds = (("it lacks ", missing), ("the network has no ", extra), ("it differs in ", other))
    problems = [problem + first_names(names) for problem, names in kinds if names]
    if problems:
        raise BundleError(
            f"{where} does not fit its network: {', '.join(problems)}; the file is of another version, of another network, or "
            "damaged: get it again"
        )


def first_names(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def load_state(network: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Load a file's tensors into a network; names, shapes and types must match. A network on the meta device takes the
    tensors themselves, without a copy.

    Raises:
        BundleError: as `check_specs`.
    """
    expected = specs_of(network)
    check_specs({name: spec_of(tensor) for name, tensor in tensors.items()}, expected, where)
    network.load_state_dict(tensors, assign=any(tensor.is_meta for tensor in network.state_dict().values()))
