"""The motion extractor: a face image to its canonical keypoints, expression, pose, shift and scale.

A ConvNeXt V2 (tiny) with one linear head per quantity. Angles are logits over 66 bins of 3 degrees.

B: batch, C: channels.

Source: LivePortrait (arXiv:2407.03168), section 3.1; ConvNeXt V2 (arXiv:2301.00808), section 4. Parameter names are those
of the published file.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditto.motion.motion import BINS, KEYPOINTS

EPS = 1e-6  # of every norm in this network, as published


@dataclass(frozen=True)
class MotionExtractorConfig:
    """Sizes of the network.

    Attributes:
        depths: blocks of each stage.
        widths: channels of each stage.
        keypoints: implicit keypoints.
        bins: bins of an angle.
    """

    depths: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    keypoints: int = KEYPOINTS
    bins: int = BINS


class ExtractedMotion(NamedTuple):
    """The motion of a face.

    Attributes:
        pitch: (B, 66) logits.
        yaw: (B, 66) logits.
        roll: (B, 66) logits.
        t: (B, 3) translation, model units.
        exp: (B, 63) expression offsets of the keypoints, model units.
        scale: (B, 1).
        kp: (B, 63) canonical keypoints, model units.
    """

    pitch: Tensor
    yaw: Tensor
    roll: Tensor
    t: Tensor
    exp: Tensor
    scale: Tensor
    kp: Tensor


class ResponseNorm(nn.Module):
    """Global response normalisation: channels compete by their energy over the image (arXiv:2301.00808, eq. 1 to 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, H, W, C) -> the same shape."""
        energy = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        share = energy / (energy.mean(-1, keepdim=True) + EPS)
        out: Tensor = self.gamma * (x * share) + self.beta + x
        return out


class Block(nn.Module):
    """7 x 7 depthwise convolution and a two-layer perceptron over channels, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.grn = ResponseNorm(4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> the same shape."""
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(self.grn(F.gelu(self.pwconv1(y))))
        out: Tensor = x + y.permute(0, 3, 1, 2)
        return out


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of an image."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """ConvNeXt V2 with the seven heads."""

    def __init__(self, config: MotionExtractorConfig) -> None:
        super().__init__()
        widths = config.widths
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=4), ChannelNorm(widths[0]))
        self.downsample_layers = nn.ModuleList([stem])
        for a, b in pairwise(widths):
            self.downsample_layers.append(nn.Sequential(ChannelNorm(a), nn.Conv2d(a, b, 2, stride=2)))
        self.stages = nn.ModuleList(
            [
                nn.Sequential(*(Block(width) for _ in range(depth)))
                for depth, width in zip(config.depths, widths, strict=True)
            ]
        )
        self.norm = nn.LayerNorm(widths[-1], eps=EPS)
        self.fc_kp = nn.Linear(widths[-1], 3 * config.keypoints)
        self.fc_scale = nn.Linear(widths[-1], 1)
        self.fc_pitch = nn.Linear(widths[-1], config.bins)
        self.fc_yaw = nn.Linear(widths[-1], config.bins)
        self.fc_roll = nn.Linear(widths[-1], config.bins)
        self.fc_t = nn.Linear(widths[-1], 3)
        self.fc_exp = nn.Linear(widths[-1], 3 * config.keypoints)

    def forward(self, image: Tensor) -> ExtractedMotion:
        """image (B, 3, H, W) -> motion."""
        x = image
        for shrink, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(shrink(x))
        x = self.norm(x.mean((2, 3)))
        return ExtractedMotion(
            self.fc_pitch(x), self.fc_yaw(x), self.fc_roll(x), self.fc_t(x), self.fc_exp(x), self.fc_scale(x),
            self.fc_kp(x),
        )  # fmt: skip


class MotionExtractor(nn.Module):
    """A face image to its motion."""

    def __init__(self, config: MotionExtractorConfig | None = None) -> None:
        super().__init__()
        self.config = config or MotionExtractorConfig()
        self.detector = ConvNeXt(self.config)

    def forward(self, image: Tensor) -> ExtractedMotion:
        """image (B, 3, 256, 256), RGB in 0..1 -> motion."""
        motion: ExtractedMotion = self.detector(image)
        return motion
