"""Run a network once on small inputs, to find weights that give NaN or infinity."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ditto.bundle import Part
from ditto.engines.networks import example_of
from ditto.errors import BundleError
from ditto.full.networks.loading import load_part
from ditto.full.networks.warping import WarpingNetwork

SMALLEST = 8  # edge of the feature map; the edge of an image is four times as long


def try_part(part: Part, where: str | Path) -> None:
    """Load a bundle's network, run it once, and release it.

    Raises:
        BundleError: as `load_part` and `try_out`.
    """
    try:
        try_out(load_part(part), where)
    finally:
        gc.collect()  # weight norm makes a reference cycle, which would keep the file mapped while the next is loaded


def try_out(network: nn.Module, where: str | Path) -> None:
    """Run a network of `ditto.full.networks` once, on seeded noise over a small feature map.

    Args:
        network: with its weights, in evaluation mode.
        where: the file they come from, for messages.

    Raises:
        BundleError: it cannot run, or gives NaN or infinity; the message names the first layer that gives it.
    """
    size = 2**network.config.levels if isinstance(network, WarpingNetwork) else SMALLEST  # every level halves it
    inputs = example_of(network, size=size).inputs
    wrong: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, object, object], None]:
        def check(module: nn.Module, inputs: object, output: object) -> None:
            if not wrong and not finite(output):
                own = tensors_of(network, name) or tensors_of(network, name.rpartition(".")[0])
                tensors = f" (its tensors: {', '.join(own)})" if own else ""
                wrong.append(f"layer {name or type(module).__name__}{tensors}")

        return check

    hooks = [module.register_forward_hook(watch(name)) for name, module in network.named_modules()]
    try:
        with torch.no_grad():
            found = network(**inputs)
    except (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(f"{where}: expected a network that runs, got: {reason}; get the file again") from error
    finally:
        for hook in hooks:
            hook.remove()
    if wrong or not finite(found):
        raise BundleError(
            f"{where}: expected finite numbers from one small forward, got NaN or infinity, first from "
            f"{wrong[0] if wrong else 'the output'}; the file is damaged, or its training failed: get another"
        )


def tensors_of(network: nn.Module, name: str) -> list[str]:
    """Names of a layer's own tensors."""
    layer = network.get_submodule(name)
    own = (*layer.named_parameters(name, recurse=False), *layer.named_buffers(name, recurse=False))
    return [key for key, _ in own]


def finite(found: object) -> bool:
    """Whether all tensors in a layer's output are finite."""
    if isinstance(found, Tensor):
        return bool(torch.isfinite(found).all())
    if isinstance(found, Mapping):
        return finite(tuple(found.values()))
    return all(finite(part) for part in found) if isinstance(found, Iterable) and not isinstance(found, str) else True
