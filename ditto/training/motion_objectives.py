"""What is trained and how its loss comes about: the lite motion network, and the LMDM of the full size.

Each objective is a module whose parameters are the network's, and whose forward pass is the loss of a batch, so that it
can be wrapped for several processes.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ditto.full.networks.lmdm import LMDM, Condition, LMDMConfig, signal_power
from ditto.lite.networks.motion_diffusion import MotionDiffusion, MotionDiffusionConfig, signal_level
from ditto.motion.emotion import EMOTIONS
from ditto.motion.eyes import EYE_SIZE
from ditto.motion.motion import KEYPOINTS
from ditto.training.motion_batches import WINDOW, Batch, Corpus, Noise, Units
from ditto.training.motion_losses import Terms, denoising_terms
from ditto.training.recipe import Recipe

FACE_CONDITIONS = len(EMOTIONS) + EYE_SIZE + 3 * KEYPOINTS  # numbers of a frame's condition beside the speech


class Objective(nn.Module):
    """A network and its loss.

    Attributes:
        network: what is trained and averaged.
        motion_size: D, numbers of a frame.
    """

    network: nn.Module
    motion_size: int

    def __init__(self, network: nn.Module, recipe: Recipe, motion_size: int) -> None:
        super().__init__()
        self.network, self.recipe, self.motion_size = network, recipe, motion_size

    @property
    def config(self) -> dict[str, Any]:
        """Sizes of the network, as a checkpoint keeps them."""
        raise NotImplementedError

    def forward(self, batch: Batch, noise: Noise, weights: Tensor, factors: Tensor) -> Terms:
        """The loss; `weights` (D,) of the numbers, `factors` (G,) of their groups."""
        raise NotImplementedError


class LiteDenoising(Objective):
    """The lite network predicts the clean motion from a noisy one; known frames stand in the window clean."""

    network: MotionDiffusion

    @property
    def config(self) -> dict[str, Any]:
        return asdict(self.network.config)

    def forward(self, batch: Batch, noise: Noise, weights: Tensor, factors: Tensor) -> Terms:
        level = 0.999 * (1 - noise.level[:, :1] ** 1.3)  # a little more often noisy than not
        signal = signal_level(level)[:, None]
        noisy = signal.sqrt() * batch.motion + (1 - signal).sqrt() * noise.noise
        condition = self.network.condition(
            batch.features, batch.emotion, batch.eyes, batch.canonical, noise.speech_mask
        )
        shown = batch.known * batch.motion + (1 - batch.known) * noisy
        guess = self.network.denoiser(shown, batch.known, condition, level)
        return denoising_terms(guess, batch.motion, batch.known, batch.counts, weights, factors, self.recipe)


class FullDenoising(Objective):
    """The LMDM predicts the 80 clean frames from noisy ones and the frame before them.

    Conditions are as `ditto.full.conditioning` lays them out: speech, emotion, lids and gaze, canonical keypoints. The
    speech features keep their own units, as the LMDM has no normaliser.
    """

    network: LMDM
    power: Tensor

    def __init__(self, network: LMDM, recipe: Recipe) -> None:
        super().__init__(network, recipe, network.config.motion)
        self.register_buffer("power", signal_power().float(), persistent=False)

    @property
    def config(self) -> dict[str, Any]:
        return asdict(self.network.config)

    def forward(self, batch: Batch, noise: Noise, weights: Tensor, factors: Tensor) -> Terms:
        time = (noise.level[:, 0] * len(self.power)).long().clamp(max=len(self.power) - 1)
        signal = self.power[time][:, None, None]
        before, motion = batch.motion[:, 0], batch.motion[:, 1:]
        noisy = signal.sqrt() * motion + (1 - signal).sqrt() * noise.noise[:, 1:]
        given, null = self.network.encode(condition_of(batch)), self.network.null(len(motion))
        mask = noise.speech_mask
        condition = Condition(
            mask[:, None] * given.tokens + (1 - mask[:, None]) * null.tokens,
            mask * given.summary + (1 - mask) * null.summary,
        )
        guess = self.network.denoise(noisy, before, condition, time)
        with_before = torch.cat([batch.motion[:, :1], guess], 1)
        return denoising_terms(with_before, batch.motion, batch.known, batch.counts, weights, factors, self.recipe)


def condition_of(batch: Batch) -> Tensor:
    """(B, 80, F + 79): conditions of the frames after the first."""
    frames = batch.motion.shape[1] - 1

    def still(rows: Tensor) -> Tensor:
        return rows[:, None].expand(-1, frames, -1)

    columns = (batch.features[:, 1:], still(batch.emotion), batch.eyes[:, 1:], still(batch.canonical))
    return torch.cat(columns, -1)


def lite_network(units: Units, config: MotionDiffusionConfig | None = None) -> MotionDiffusion:
    """A new lite network with the normaliser of these units."""
    network = MotionDiffusion(config)
    network.condition.feature_mean.copy_(torch.from_numpy(units.feature_mean))
    network.condition.feature_scale.copy_(torch.from_numpy(1.0 / units.feature_spread))
    return network


def full_config(corpus: Corpus) -> LMDMConfig:
    """The LMDM of the paper for this corpus: its motion of 265 or 70 numbers, its features of any size."""
    return LMDMConfig(
        motion=corpus.motion.shape[1], condition=corpus.features.shape[1] + FACE_CONDITIONS, frames=WINDOW
    )
