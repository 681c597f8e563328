"""Low-rank changes of the motion network: an adapter, its file, and the bundle it makes of another.

    python -m ditto.training.adapter adapter.safetensors OUT [--bundle lite]

A linear layer with weights W becomes W + U V of a small rank; W stays as it is (LoRA: Hu et al. 2021, arXiv:2106.09685,
section 4.1; their alpha is the rank here). An adapter fits one set of base weights, and no other.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ditto.bundle import Bundle
from ditto.commands import Arguments, run
from ditto.errors import DittoError, InputError
from ditto.lite.networks.motion_diffusion import MotionCondition, MotionDiffusion
from ditto.lite.performer import postprocess_config
from ditto.lite.postprocess import PostprocessConfig
from ditto.training.dataset import write_bytes
from ditto.training.motion import units_of_bundle
from ditto.training.motion_export import make_bundle, motion_config, read_condition, read_weights
from ditto.values import is_same

FORMAT = 1
KEY = "ditto_adapter"  # of the metadata: one JSON text, because safetensors writes several keys in no fixed order
SHORT = "short."  # before the names of layers of the half for short look-ahead
LEAVING = ("denoiser.leave", "denoiser.short")
TEXTS, GAPS = ("base_sha256", "licence", "origin"), ("usual_gap", "target_gap")

Layers = dict[str, tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]]
Network = TypeVar("Network", bound=nn.Module)


class LowRank(nn.Module):
    """The change of one layer, as a parametrization of its weights: zero at the start.

    Args:
        weight: (out, in) of the layer.
        rank: columns of `up` (out, rank), rows of `down` (rank, in).
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        out, given = weight.shape
        self.up = nn.Parameter(torch.zeros(out, rank))
        self.down = nn.Parameter(torch.randn(rank, given) / given**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def adapted_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """The layers that an adapter changes in a `MotionDiffusion` or a `MotionCondition`, by name.

    All of the condition half, and those of the denoiser that the motion comes out of.
    """
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and (not name.startswith("denoiser.") or name in LEAVING)
    }


def with_adapter(module: Network, rank: int) -> Network:
    """A copy of a network in which only a new adapter can be trained, all zero; its numbers come from torch's generator.

    Raises:
        InputError: a rank below 1, or above that of a layer.
    """
    copied = copy.deepcopy(module).requires_grad_(False)
    layers = adapted_layers(copied)
    most = min(min(layer.weight.shape) for layer in layers.values())
    if not 1 <= rank <= most:
        raise InputError(f"expected a rank from 1 to {most}, got {rank}; give another")
    for layer in layers.values():
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))
    return copied


def low_ranks(module: nn.Module) -> dict[str, LowRank]:
    """The changes of a network of `with_adapter`, by the names of their layers."""
    found = {name: part for name, part in module.named_modules() if isinstance(part, LowRank)}
    return {name.removesuffix(".parametrizations.weight.0"): part for name, part in found.items()}


def layers_of(module: nn.Module) -> Layers:
    """What a network of `with_adapter` has learnt."""

    def half(tensor: Tensor) -> npt.NDArray[np.float16]:
        return np.array(tensor.detach().cpu().float().numpy(), np.float16)

    return {name: (half(part.up), half(part.down)) for name, part in low_ranks(module).items()}


@dataclass(frozen=True)
class Adapter:
    """What a person adds to a motion network.

    Attributes:
        layers: (up (out, rank), down (rank, in)) float16 by the name of the layer in the motion network; `short.` and the
            name of a layer in the condition half for short look-ahead.
        base_sha256: of the base bundle's motion weights.
        licence, origin: of the footage and of the base; text for people.
        usual_gap, target_gap: of the person, as `ditto.lite.postprocess.PostprocessConfig` has them.
    """

    layers: Layers
    base_sha256: str
    licence: str
    origin: str
    usual_gap: float
    target_gap: float

    def write(self, path: Path) -> None:
        """As one safetensors file, which appears whole. Raises OutputError."""
        from safetensors.numpy import save

        tensors = {}
        for name, (up, down) in self.layers.items():
            tensors[f"{name}.up"], tensors[f"{name}.down"] = up, down
        about = {"format": FORMAT, **{name: getattr(self, name) for name in (*TEXTS, *GAPS)}}
        write_bytes(path, save(tensors, {KEY: json.dumps(about)}))

    @classmethod
    def read(cls, path: Path) -> Adapter:
        """Raises InputError: no adapter, or a damaged one."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                said, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError) as error:
            raise InputError(f"expected an adapter at {path}, got: {error}; train it again") from error
        names = {name.rpartition(".")[0] for name in tensors}
        try:
            about = json.loads(said[KEY])
            if not is_same(about["format"], FORMAT):
                raise ValueError(f"format {about['format']!r}, not {FORMAT}")
            layers = {name: (tensors[f"{name}.up"], tensors[f"{name}.down"]) for name in sorted(names)}
            sha256, licence, origin = (str(about[name]) for name in TEXTS)
            gaps = PostprocessConfig(about["usual_gap"], about["target_gap"], slow_smoothing_frames=1.0)  # checks them
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"expected an adapter at {path}, got a file without one ({error}); train it again"
            ) from error
        for name, (up, down) in layers.items():
            fits = up.ndim == down.ndim == 2 and up.shape[1] == down.shape[0] and up.dtype == down.dtype == np.float16
            if not fits or not (np.isfinite(up).all() and np.isfinite(down).all()):
                raise InputError(f"expected finite float16 pairs in {path}, got others for {name}; train it again")
        return cls(layers, sha256, licence, origin, gaps.usual_gap, gaps.target_gap)


def check_base(adapter: Adapter, base: Bundle) -> None:
    """Raises InputError for an adapter of other weights than the bundle's."""
    own = base.part("motion").sha256["weights"]
    if adapter.base_sha256 != own:
        raise InputError(
            f"expected an adapter of the motion network of bundle {base.name!r} ({own[:12]}...), got one of other weights "
            f"({adapter.base_sha256[:12]}...); give the bundle it was trained on, or train it again"
        )


class Halves(NamedTuple):
    """The network, and its condition half for short look-ahead."""

    network: MotionDiffusion
    short: MotionCondition


def base_halves(base: Bundle) -> Halves:
    """The motion network of a bundle. Raises BundleError: a file is missing or damaged."""
    part = base.part("motion")
    config = motion_config(part)
    return Halves(read_weights(part.file("weights"), config), read_condition(part.file("short_condition"), config))


def merged(adapter: Adapter, halves: Halves) -> Halves:
    """Copies with the adapter added.

    Raises:
        InputError: an adapter of a network of another size.
    """
    copied = Halves(copy.deepcopy(halves.network), copy.deepcopy(halves.short))
    own = adapted_layers(copied.network) | {SHORT + name: part for name, part in adapted_layers(copied.short).items()}
    sizes = {name: tuple(layer.weight.shape) for name, layer in own.items()}
    given = {name: (len(up), down.shape[1]) for name, (up, down) in adapter.layers.items()}
    if sizes != given:
        raise InputError("expected an adapter of a network of this size, got one of another; train it again")
    for prefix, module in (("", copied.network), (SHORT, copied.short)):
        add_layers(module, adapter.layers, prefix)
    return copied


def add_layers(module: nn.Module, layers: Layers, prefix: str = "") -> None:
    """Add the changes to the weights of a network, in place."""
    with torch.no_grad():
        for name, layer in adapted_layers(module).items():
            up, down = (torch.from_numpy(part).float() for part in layers[prefix + name])
            layer.weight += up @ down


def adapted_bundle(adapter: Adapter, base: Bundle, folder: Path) -> Bundle:
    """A complete bundle: the base with the adapter merged. It appears whole; a folder of that name is replaced.

    Raises:
        InputError: an adapter of another base.
        BundleError: the base is damaged.
        OutputError: it cannot be written.
    """
    check_base(adapter, base)
    halves, units = merged(adapter, base_halves(base)), units_of_bundle(base)
    smoothing = postprocess_config(base).slow_smoothing_frames
    return make_bundle(
        base,
        folder,
        halves.network,
        units.scale,
        units.silence,
        halves.short,
        adapter.origin,
        PostprocessConfig(adapter.usual_gap, adapter.target_gap, smoothing),
    )


def main(arguments: list[str] | None = None) -> int:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("out", type=Path, help="folder of the new bundle")
    parser.add_argument("--bundle", default="lite", help="the bundle that the adapter was trained on")
    options = parser.parse_args(arguments)
    try:
        print(adapted_bundle(Adapter.read(options.adapter), Bundle.open(options.bundle), options.out).path)
    except DittoError as error:
        print(f"ditto: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    run(main)
