"""The lite motion diffusion transformer: speech, emotion, eyes and identity to 80 frames of motion.

Two modules, because most of the work need not be repeated for every diffusion step: `MotionCondition` reads everything
that is known once per window, `MotionDenoiser` predicts the clean motion from a noisy one (x0 prediction) and is called
once per step. Motion already emitted is not noised: it stands in the window clean, with a mask bit.

B: batch, T: frames, 80 at most, D: width, H: heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditto.lite.latency import WINDOW as WINDOW
from ditto.lite.speech_encoder import FEATURE_SIZE as FEATURE_SIZE
from ditto.lite.speech_encoder import HIDDEN_SIZE as HIDDEN_SIZE
from ditto.motion.emotion import EMOTIONS
from ditto.motion.eyes import EYE_SIZE as EYE_SIZE
from ditto.motion.motion import KEYPOINTS
from ditto.motion.motion import MOTION_SIZE as MOTION_SIZE

EMOTION_SIZE, CANONICAL_SIZE = len(EMOTIONS), 3 * KEYPOINTS


@dataclass(frozen=True)
class MotionDiffusionConfig:
    """Sizes of the network.

    Attributes:
        width: D.
        heads: attention heads.
        condition_layers: blocks that run once per window.
        layers: blocks that run once per diffusion step.
        kernel: frames under the depthwise convolution.
        expansion: inner width of the feed-forward part over D.
        time_size: numbers that describe the noise level.
    """

    width: int = 160
    heads: int = 4
    condition_layers: int = 3
    layers: int = 4
    kernel: int = 7
    expansion: int = 3
    time_size: int = 64


def rotary(width: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables (80, width / 2) of the rotary position embedding (Su et al. 2021, arXiv:2104.09864)."""
    frequency = 1.0 / 10000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(WINDOW, dtype=torch.float64)[:, None] * frequency
    return angle.cos().float(), angle.sin().float()


class Block(nn.Module):
    """Attention, a depthwise convolution and a feed-forward part; scaled, shifted and gated by the noise level."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: MotionDiffusionConfig, timed: bool) -> None:
        super().__init__()
        d = config.width
        self.heads = config.heads
        self.norm_1, self.norm_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.conv = nn.Conv1d(d, d, config.kernel, padding=config.kernel // 2, groups=d)
        self.up, self.down = nn.Linear(d, config.expansion * d), nn.Linear(config.expansion * d, d)
        self.film = nn.Linear(d, 6 * d) if timed else None
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)
        cos, sin = rotary(d // config.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def _rotate(self, x: Tensor) -> Tensor:
        cos, sin = self.cos[: x.shape[2]], self.sin[: x.shape[2]]
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x (B, T, D), time (B, D) -> (B, T, D)."""
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = (
            self.film(time)[:, None].chunk(6, -1)
            if self.film is not None and time is not None
            else [torch.zeros((), dtype=x.dtype)] * 6
        )
        y = self.norm_1(x) * (1 + scale_1) + shift_1
        q, k, v = (
            part.reshape(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in self.qkv(y).chunk(3, -1)
        )  # (B, H, T, D / H)
        y = F.scaled_dot_product_attention(self._rotate(q), self._rotate(k), v)
        x = x + (1 + gate_1) * self.proj(y.transpose(1, 2).flatten(2))
        y = self.norm_2(x) * (1 + scale_2) + shift_2
        y = y + self.conv(y.transpose(1, 2)).transpose(1, 2)
        change: Tensor = self.down(F.gelu(self.up(y), approximate="tanh"))
        return x + (1 + gate_2) * change


class MotionCondition(nn.Module):
    """Everything a window knows besides its motion, one vector per frame."""

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: MotionDiffusionConfig) -> None:
        super().__init__()
        d = config.width
        self.register_buffer("feature_mean", torch.zeros(FEATURE_SIZE))
        self.register_buffer("feature_scale", torch.ones(FEATURE_SIZE))
        self.audio = nn.Linear(FEATURE_SIZE, d)
        self.silence = nn.Parameter(torch.zeros(d))
        self.face = nn.Linear(EMOTION_SIZE + EYE_SIZE + CANONICAL_SIZE, d)
        self.blocks = nn.ModuleList([Block(config, timed=False) for _ in range(config.condition_layers)])
        self.norm = nn.LayerNorm(d)

    def forward(self, features: Tensor, emotion: Tensor, eyes: Tensor, canonical: Tensor, speech_mask: Tensor) -> Tensor:
        """features (B, T, 368), emotion (B, 8), eyes (B, T, 8), canonical (B, 63), speech_mask (B, 1) -> (B, T, D).

        `speech_mask` 1 gives the speech, 0 hides it (for classifier-free guidance).
        """
        x = self.audio((features - self.feature_mean) * self.feature_scale)
        x = speech_mask[:, None] * x + (1 - speech_mask[:, None]) * self.silence
        gaze = torch.cat([1 - eyes[..., :2], 25 * eyes[..., 2:]], -1)  # both of the order of one
        still = torch.cat([emotion, canonical], -1)[:, None].expand(-1, features.shape[1], -1)
        x = x + self.face(torch.cat([still, gaze], -1))
        for block in self.blocks:
            x = block(x)
        condition: Tensor = self.norm(x)
        return condition


class MotionDenoiser(nn.Module):
    """Clean motion from a noisy one, in normalised units."""

    def __init__(self, config: MotionDiffusionConfig) -> None:
        super().__init__()
        d = config.width
        self.enter = nn.Linear(MOTION_SIZE + 1, d)
        self.time = nn.Sequential(nn.Linear(config.time_size, d), nn.SiLU(), nn.Linear(d, d))
        self.blocks = nn.ModuleList([Block(config, timed=True) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(d)
        self.leave = nn.Linear(d, MOTION_SIZE)
        self.short = nn.Linear(d, MOTION_SIZE)  # straight from the condition: lips and lids hardly need the noise
        for layer in (self.leave, self.short):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        half = config.time_size // 2
        frequency = torch.exp(-math.log(10000.0) * torch.arange(half) / half)
        self.register_buffer("frequency", 1000.0 * frequency, persistent=False)

    frequency: Tensor

    def forward(self, motion: Tensor, known: Tensor, condition: Tensor, level: Tensor) -> Tensor:
        """motion (B, T, 70), known (B, T, 1), condition (B, T, D), level (B, 1) in [0, 1] -> (B, T, 70).

        `motion` holds the clean frames where `known` is 1 and noisy ones elsewhere; the output for known frames has no
        meaning.
        """
        angle = level * self.frequency
        time = F.silu(self.time(torch.cat([angle.cos(), angle.sin()], -1)))
        x = self.enter(torch.cat([motion, known], -1)) + condition
        for block in self.blocks:
            x = block(x, time)
        clean: Tensor = self.leave(self.norm(x)) + self.short(condition)
        return clean


class MotionDiffusion(nn.Module):
    """Both halves: what is trained and kept as one file of weights."""

    def __init__(self, config: MotionDiffusionConfig | None = None) -> None:
        super().__init__()
        self.config = config or MotionDiffusionConfig()
        self.condition = MotionCondition(self.config)
        self.denoiser = MotionDenoiser(self.config)


def signal_level(level: Tensor) -> Tensor:
    """Share of the signal's power left at a noise level in [0, 1]: the cosine schedule of arXiv:2102.09672, eq. 17."""
    return torch.cos((level + 0.008) / 1.008 * (math.pi / 2)) ** 2
