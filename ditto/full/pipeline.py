"""The parts of a full bundle behind the objects that `TalkingHead` is made of. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ditto.bundle import Bundle, Part
from ditto.engines import open_engine
from ditto.full.renderer import NeuralFaceRenderer
from ditto.full.sampler import FullSampler, Sampling
from ditto.full.source import SourceReader
from ditto.full.speech_window import WINDOW_SAMPLES, WindowEncoder, window_features
from ditto.models.lmdm import LMDM, ddim_sample, ddim_schedule
from ditto.models.loading import load_part

Array = npt.NDArray[np.float32]

PARTS = ("encoder", "motion", "appearance", "motion_extractor", "warping", "decoder", "stitching")


class FullParts(NamedTuple):
    """What a `TalkingHead` is made of."""

    encoder: WindowEncoder
    sampler: FullSampler
    renderer: NeuralFaceRenderer


def open_parts(bundle: Bundle, sampling: Sampling | None = None, *, device: str = "cpu") -> FullParts:
    """Encoder, sampler and renderer of a full bundle.

    HuBERT is the released ONNX file where the bundle has it, since its context of other speech is in no other; else the
    network of the same sizes.

    Args:
        bundle: with `PARTS`.
        sampling: the choices there are; None: the defaults.
        device: where torch runs the networks.

    Raises:
        BundleError: a part is missing, damaged, or does not fit its network.
        EngineError: a network cannot be run here.
    """
    parts = {name: bundle.part(name) for name in PARTS}
    speech = hear(parts["encoder"], device)
    silence = window_features(speech, np.zeros((1, WINDOW_SAMPLES), np.float32))[0]
    source_of = SourceReader(
        TorchCall(load_part(parts["appearance"]), ["volume"], device),
        TorchCall(load_part(parts["motion_extractor"]), [], device),
    )
    motion = load_part(parts["motion"])
    assert isinstance(motion, LMDM)
    sampler = FullSampler(partial(ddim_call, motion, device), source_of, silence, sampling)
    renderer = NeuralFaceRenderer(
        source_of,
        TorchCall(WarpAndDecode(load_part(parts["warping"]), load_part(parts["decoder"])), ["image"], device),
        TorchCall(load_part(parts["stitching"]), ["kp_stitched"], device),
    )
    return FullParts(WindowEncoder(speech, silence.shape[1]), sampler, renderer)


def hear(part: Part, device: str) -> Callable[[Array], Array]:
    """The speech network: samples (B, 6480) -> rows (B, 20, D)."""
    if "onnx" in part.files:
        engine = open_engine(part.file("onnx"))
        name = engine.inputs[0].name

        def released(samples: Array) -> Array:
            rows = [next(iter(engine(**{name: window[None]}).values())) for window in samples]
            return np.stack([row.reshape(-1, row.shape[-1]) for row in rows])

        return released
    network = TorchCall(load_part(part), ["rows"], device)
    return lambda samples: network(samples=samples)["rows"]


class TorchCall:
    """A torch network that takes and gives arrays by name.

    Args:
        network: in evaluation mode.
        names: of its outputs; none: it gives a NamedTuple, whose fields are the names.
        device: where it runs.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], device: str) -> None:
        self._network = network.to(device)
        self._names = tuple(names)
        self._device = device

    @torch.no_grad()
    def __call__(self, **arrays: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Run it once."""
        given = {name: torch.as_tensor(np.ascontiguousarray(a), device=self._device) for name, a in arrays.items()}
        found = self._network(**given)
        named = dict(zip(self._names, (found,), strict=True)) if self._names else found._asdict()
        return {name: value.cpu().numpy() for name, value in named.items()}


class WarpAndDecode(nn.Module):
    """A feature volume bent to the driving keypoints and drawn."""

    def __init__(self, warping: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.warping, self.decoder = warping, decoder

    def forward(self, feature_3d: torch.Tensor, kp_source: torch.Tensor, kp_driving: torch.Tensor) -> torch.Tensor:
        """feature_3d (B, 32, 16, 64, 64), keypoints (B, 21, 3) -> image (B, 3, 512, 512) in 0..1."""
        image: torch.Tensor = self.decoder(self.warping(feature_3d, kp_source, kp_driving).feature)
        return image


class Sampler(nn.Module):
    """All DDIM steps of a window."""

    def __init__(self, network: LMDM, steps: int) -> None:
        super().__init__()
        self.network, self.schedule = network, ddim_schedule(steps)

    def forward(
        self, cond_frame: torch.Tensor, cond: torch.Tensor, start: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """cond_frame (B, 265), cond (B, 80, 1103), start (B, 80, 265), noise (steps - 1, B, 80, 265) -> (B, 80, 265)."""
        return ddim_sample(self.network, cond_frame, cond, start, list(noise), self.schedule)


def ddim_call(network: LMDM, device: str, steps: int) -> TorchCall:
    """The motion network as a sampler takes it, for so many steps. Its schedule is float64's."""
    return TorchCall(Sampler(network, steps), ["motion"], device)
