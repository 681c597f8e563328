"""The networks of a bundle: `load_part(Bundle.open("full").part("motion"))`.

A network is built on the meta device, without memory, and takes the tensors of the file themselves: no tensor is held
twice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ditto.bundle import Part, check_sizes, read_config, weight_shapes
from ditto.errors import BundleError
from ditto.full.networks.appearance import AppearanceConfig, AppearanceExtractor
from ditto.full.networks.decoder import DecoderConfig, SpadeDecoder, fold_spectral_norm
from ditto.full.networks.hubert import Hubert, HubertConfig
from ditto.full.networks.lmdm import LMDM, LMDMConfig
from ditto.full.networks.motion_extractor import MotionExtractor, MotionExtractorConfig
from ditto.full.networks.stitching import PerceptronConfig, RetargetingNetwork, StitchingNetwork
from ditto.full.networks.warping import WarpingConfig, WarpingNetwork
from ditto.full.networks.weights import load_state


class Model(NamedTuple):
    """A kind of network.

    Attributes:
        config: its dataclass of sizes.
        build: config -> network.
    """

    config: type[Any]
    build: Callable[[Any], nn.Module]


MODELS = {
    "hubert": Model(HubertConfig, Hubert),
    "lmdm": Model(LMDMConfig, LMDM),
    "appearance_extractor": Model(AppearanceConfig, AppearanceExtractor),
    "motion_extractor": Model(MotionExtractorConfig, MotionExtractor),
    "warping_network": Model(WarpingConfig, WarpingNetwork),
    "spade_decoder": Model(DecoderConfig, SpadeDecoder),
    "stitching_network": Model(PerceptronConfig, StitchingNetwork),
    "retargeting_network": Model(PerceptronConfig, RetargetingNetwork),
}


def build(model: str, config: Any) -> nn.Module:
    """A network without weights, on the meta device; `model` is one of `MODELS`."""
    with torch.device("meta"):
        return MODELS[model].build(config)


def build_part(part: Part) -> nn.Module:
    """The network of a bundle's part, without weights.

    Raises:
        BundleError: an unknown model, unknown or missing keys in its config, or sizes that no network of its weights has.
    """
    where = f"bundle.json, part {part.name!r}"
    if part.model not in MODELS:
        raise BundleError(f"{where}: expected a model of {', '.join(MODELS)}, got {part.model!r}; correct it")
    config = read_config(MODELS[part.model].config, part.config, where)
    if "weights" in part.files:
        check_sizes(config, weight_shapes(part.file("weights")), where)
    return build_checked(part.model, config, where)


def build_checked(model: str, config: Any, where: str | Path) -> nn.Module:
    """As `build`, with sizes from a file.

    Raises:
        BundleError: no network can have these sizes.
    """
    try:
        return build(model, config)
    except (TypeError, ValueError, RuntimeError, IndexError, ArithmeticError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(
            f"{where}: expected sizes of a network ({model}), got {config}: {reason}; get it again"
        ) from error


def load_part(part: Part) -> nn.Module:
    """The network of a bundle's part with its weights, in evaluation mode; spectral normalisation is folded.

    Raises:
        BundleError: unknown model or config; the file of weights is missing, unreadable, or does not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    network = build_part(part)
    file = part.file("weights")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{file}: expected a readable safetensors file, got: {error}; get the bundle again"
        ) from error
    load_state(network, tensors, file)
    fold_spectral_norm(network)
    return network.eval().requires_grad_(False)
