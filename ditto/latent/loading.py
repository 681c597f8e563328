"""A network of V or RAP with the weights of a file. Sizes that the file does not have take no memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ditto.bundle import check_sizes, weight_shapes
from ditto.errors import BundleError

C = TypeVar("C")
N = TypeVar("N", bound=nn.Module)


def load_network(make: Callable[[C], N], config: C, path: Path) -> N:
    """The network that `make` makes of a config, with the weights of a file, in evaluation mode.

    Raises:
        BundleError: the weights are missing, unreadable, of other names or shapes, or not finite; no network has these sizes.
    """
    found = weight_shapes(path)
    check_sizes(config, found, path)
    try:
        with torch.device("meta"):  # takes no memory
            expected = {key: tuple(value.shape) for key, value in make(config).state_dict().items()}
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise BundleError(f"{path}: expected sizes of a network, got {config}: {_first(error)}; get it again") from error
    if wrong := sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)):
        key = wrong[0]
        raise BundleError(
            f"{path}: expected {key} as {expected.get(key, 'not there')}, got {found.get(key, 'none')} ({len(wrong)} tensors "
            "differ); get it again"
        )
    try:
        tensors: dict[str, Any] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"expected a readable safetensors file at {path}, got: {error}; get it again") from error
    if bad := [key for key, value in tensors.items() if not torch.isfinite(value).all()]:
        raise BundleError(f"{path}: expected finite weights, got NaN or infinity in {bad[0]}; get it again")
    network = make(config)
    network.load_state_dict(tensors)
    return network.eval()


def _first(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
