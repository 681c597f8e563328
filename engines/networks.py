"""Example inputs of the published networks: the names, types and shapes an engine is opened with, and names of outputs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ditto.full.networks.appearance import AppearanceExtractor
from ditto.full.networks.decoder import SpadeDecoder
from ditto.full.networks.hubert import Hubert
from ditto.full.networks.lmdm import LMDM
from ditto.full.networks.lmdm_fast import FastLMDM
from ditto.full.networks.motion_extractor import MotionExtractor
from ditto.full.networks.neural_renderer import NeuralRenderer
from ditto.full.networks.stitching import RetargetingNetwork, StitchingNetwork
from ditto.full.networks.streaming_hubert import StreamingHubert
from ditto.full.networks.warping import WarpingNetwork
from ditto.full.sizes import KEYPOINTS, LEVELS, WINDOW_SAMPLES


class Example(NamedTuple):
    """What `open_engine` needs to know about a network besides its weights.

    Attributes:
        inputs: name -> tensor, fields of a state as "state.keys".
        outputs: names of what `forward` returns; "" for a NamedTuple whose fields give the names.
    """

    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


def example_of(network: nn.Module, batch: int = 1, size: int = 64) -> Example:
    """Seeded noise in the shapes of a network's inputs.

    Args:
        network: one of `ditto.full.networks`.
        batch: B.
        size: edge of the feature map; images have four times as many pixels. The published networks take 64.

    Raises:
        TypeError: the network is none of them; make an `Example` for it.
    """
    make = torch.Generator().manual_seed(0)

    def noise(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=make)

    def image() -> Tensor:
        return torch.rand(batch, 3, 4 * size, 4 * size, generator=make)

    if isinstance(network, AppearanceExtractor):
        return Example({"image": image()}, ("volume",))
    if isinstance(network, MotionExtractor):
        return Example({"image": image()}, ("",))
    if isinstance(network, (WarpingNetwork, NeuralRenderer)):
        c = network.config if isinstance(network, WarpingNetwork) else network.warping.config
        source = noise(batch, c.keypoints, 3, scale=0.3)
        inputs = {
            "feature_3d": noise(batch, c.channels, c.depth, size, size, scale=0.7),
            "kp_source": source,
            "kp_driving": source + noise(batch, c.keypoints, 3, scale=0.08),
        }
        return Example(inputs, ("",) if isinstance(network, WarpingNetwork) else ("image",))
    if isinstance(network, SpadeDecoder):
        return Example({"feature": noise(batch, network.config.inputs, size, size, scale=0.7)}, ("image",))
    if isinstance(network, StitchingNetwork):
        kp_source, kp_driving = noise(batch, KEYPOINTS, 3), noise(batch, KEYPOINTS, 3)
        return Example({"kp_source": kp_source, "kp_driving": kp_driving}, ("kp_stitched",))
    if isinstance(network, RetargetingNetwork):
        return Example({"x": noise(batch, network.config.inputs)}, ("offsets",))
    if isinstance(network, Hubert):
        return Example({"samples": noise(batch, WINDOW_SAMPLES, scale=0.1)}, ("rows",))
    if isinstance(network, StreamingHubert):
        inputs = {"samples": noise(batch, network.samples, scale=0.1)}
        for field, empty in network.empty_state(batch)._asdict().items():
            inputs[f"state.{field}"] = torch.ones_like(empty) if field == "valid" else noise(*empty.shape, scale=0.1)
        return Example(inputs, ("rows", "next_state"))
    if isinstance(network, (LMDM, FastLMDM)):
        m = network.config
        cond_frame, cond = noise(batch, m.motion, scale=0.5), noise(batch, m.frames, m.condition, scale=0.5)
        start = noise(batch, m.frames, m.motion)
        if isinstance(network, FastLMDM):
            fresh = noise(len(network.schedule) - 1, batch, m.frames, m.motion)
            return Example({"cond_frame": cond_frame, "cond": cond, "start": start, "noise": fresh}, ("motion",))
        time = torch.full((batch,), LEVELS // 2 - 1)
        return Example({"x": start, "cond_frame": cond_frame, "cond": cond, "time": time}, ("clean",))
    raise TypeError(f"expected a network of ditto.full.networks, got {type(network).__name__}; give an Example")
