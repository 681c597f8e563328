"""The appearance feature extractor: a face image to the feature volume that the warping network deforms.

B: batch, C: channels, D x H x W: depth, height, width of the volume.

Source: LivePortrait (arXiv:2407.03168), section 3.1 (F of face vid2vid, arXiv:2011.15126). Parameter names are those of
the published file.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class AppearanceConfig:
    """Sizes of the network.

    Attributes:
        image_channels: channels of the image.
        base: channels behind the first convolution, doubled by each halving.
        halvings: times the image is halved.
        channels: C of the volume.
        depth: D of the volume.
        residual_blocks: 3-D residual blocks.
    """

    image_channels: int = 3
    base: int = 64
    halvings: int = 2
    channels: int = 32
    depth: int = 16
    residual_blocks: int = 6


class ConvNorm(nn.Module):
    """3 x 3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, H, W) -> (B, outputs, H, W)."""
        return F.relu(self.norm(self.conv(x)))


class ResidualBlock(nn.Module):
    """Two 3-D convolutions, norm and ReLU before each, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm3d(channels)
        self.norm2 = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, D, H, W) -> the same shape."""
        y = self.conv1(F.relu(self.norm1(x)))
        out: Tensor = x + self.conv2(F.relu(self.norm2(y)))
        return out


class AppearanceExtractor(nn.Module):
    """A face image to its feature volume."""

    def __init__(self, config: AppearanceConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or AppearanceConfig()
        widths = [c.base << i for i in range(c.halvings + 1)]
        self.first = ConvNorm(c.image_channels, c.base)
        self.down_blocks = nn.ModuleList([ConvNorm(a, b) for a, b in pairwise(widths)])
        self.second = nn.Conv2d(widths[-1], c.channels * c.depth, 1)
        self.resblocks_3d = nn.Sequential(
            OrderedDict((f"3dr{i}", ResidualBlock(c.channels)) for i in range(c.residual_blocks))
        )

    def forward(self, image: Tensor) -> Tensor:
        """image (B, 3, 256, 256), RGB in 0..1 -> feature volume (B, 32, 16, 64, 64)."""
        x = self.first(image)
        for block in self.down_blocks:
            x = F.avg_pool2d(block(x), 2)
        x = self.second(x).unflatten(1, (self.config.channels, self.config.depth))
        volume: Tensor = self.resblocks_3d(x)
        return volume
