"""The warping network: deforms the source's feature volume to the driving keypoints and flattens it to a feature map.

Every keypoint proposes a motion, and the still background one more. The dense motion network weighs them at every voxel
and predicts what is hidden.

B: batch, K: keypoints, C: channels, D x H x W: depth, height, width of the volume. Coordinates are x, y, z in -1..1.

Source: LivePortrait (arXiv:2407.03168), section 3.1 (W of face vid2vid, arXiv:2011.15126, section 3). Parameter names are
those of the published file.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditto.motion.motion import KEYPOINTS
from ditto.ops import neural

VARIANCE = 0.01  # of a keypoint's heatmap, as published


@dataclass(frozen=True)
class WarpingConfig:
    """Sizes of the network.

    Attributes:
        keypoints: K.
        channels: C of the volume.
        depth: D of the volume.
        compressed: channels of the volume that the dense motion network takes.
        base: channels before the hourglass's first halving; each halving doubles them.
        widest: most channels of a layer of the hourglass.
        levels: halvings of the hourglass.
        outputs: channels of the feature map.
    """

    keypoints: int = KEYPOINTS
    channels: int = 32
    depth: int = 16
    compressed: int = 4
    base: int = 32
    widest: int = 1024
    levels: int = 5
    outputs: int = 256


class DenseMotion(NamedTuple):
    """The source position of every voxel.

    Attributes:
        mask: (B, K + 1, D, H, W) weight of each motion, background first; sums to one.
        deformation: (B, D, H, W, 3) coordinates in the source volume.
        occlusion_map: (B, 1, H, W) in 0..1, 0 where the source does not show the voxel.
    """

    mask: Tensor
    deformation: Tensor
    occlusion_map: Tensor


class Warped(NamedTuple):
    """The output of the network.

    Attributes:
        feature: (B, 256, H, W), for the decoder.
        motion: the dense motion that made it.
    """

    feature: Tensor
    motion: DenseMotion


class ConvNorm3d(nn.Module):
    """3 x 3 x 3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, D, H, W) -> (B, outputs, D, H, W)."""
        return F.relu(self.norm(self.conv(x)))


class HourglassEncoder(nn.Module):
    """Halves height and width level by level."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList([ConvNorm3d(a, b) for a, b in pairwise(widths)])

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (B, C, D, H, W) -> x and every level's output."""
        levels = [x]
        for block in self.down_blocks:
            levels.append(F.avg_pool3d(block(levels[-1]), (1, 2, 2)))
        return levels


class HourglassDecoder(nn.Module):
    """Doubles height and width level by level; each level is concatenated with the encoder's output of that size."""

    def __init__(self, widths: list[int], base: int) -> None:
        super().__init__()
        outputs = [*widths[-2:0:-1], base]
        inputs = [widths[-1], *(2 * width for width in outputs[:-1])]
        self.up_blocks = nn.ModuleList([ConvNorm3d(a, b) for a, b in zip(inputs, outputs, strict=True)])
        last = base + widths[0]
        self.conv = nn.Conv3d(last, last, 3, padding=1)
        self.norm = nn.BatchNorm3d(last)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """The encoder's levels -> (B, C, D, H, W)."""
        x = levels[-1]
        for block, skip in zip(self.up_blocks, levels[-2::-1], strict=True):
            x = torch.cat((block(F.interpolate(x, scale_factor=(1, 2, 2))), skip), 1)
        return F.relu(self.norm(self.conv(x)))


class Hourglass(nn.Module):
    """An encoder and a decoder with skip connections at every level."""

    def __init__(self, inputs: int, config: WarpingConfig) -> None:
        super().__init__()
        widths = [inputs, *(min(config.widest, config.base << (i + 1)) for i in range(config.levels))]
        self.encoder = HourglassEncoder(widths)
        self.decoder = HourglassDecoder(widths, config.base)
        self.outputs = config.base + inputs

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, D, H, W) -> (B, outputs, D, H, W)."""
        out: Tensor = self.decoder(self.encoder(x))
        return out


def axes_of(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x (W,), y (H,), z (D,) of the voxels, the outermost ones at -1 and 1; `like` (..., D, H, W)."""
    z, y, x = (torch.linspace(-1, 1, n, dtype=like.dtype, device=like.device) for n in like.shape[-3:])
    return x, y, z


def coordinate_grid(like: Tensor) -> Tensor:
    """x, y, z of every voxel, (D, H, W, 3); `like` (..., D, H, W)."""
    return torch.stack(torch.meshgrid(*axes_of(like)[::-1], indexing="ij")[::-1], -1)


def heatmap(grid: Tensor, keypoints: Tensor) -> Tensor:
    """A Gaussian around each keypoint (B, K, 3) on the grid (D, H, W, 3) -> (B, K, D, H, W)."""
    distance = (grid - keypoints[:, :, None, None, None]).square().sum(-1)
    return torch.exp(-0.5 / VARIANCE * distance)


class DenseMotionNetwork(nn.Module):
    """Weighs the keypoints' motions at every voxel."""

    def __init__(self, config: WarpingConfig) -> None:
        super().__init__()
        motions = config.keypoints + 1
        self.hourglass = Hourglass(motions * (config.compressed + 1), config)
        channels = self.hourglass.outputs
        self.mask = nn.Conv3d(channels, motions, 7, padding=3)
        self.compress = nn.Conv3d(config.channels, config.compressed, 1)
        self.norm = nn.BatchNorm3d(config.compressed)
        self.occlusion = nn.Conv2d(channels * config.depth, 1, 7, padding=3)

    def forward(self, volume: Tensor, kp_source: Tensor, kp_driving: Tensor) -> DenseMotion:
        """volume (B, C, D, H, W), keypoints (B, K, 3) -> the source position of every voxel."""
        batch = len(volume)
        height, width = volume.shape[-2:]
        compressed = F.relu(self.norm(self.compress(volume)))  # (B, 4, D, H, W)
        grid = coordinate_grid(volume)

        by_keypoint = grid + (kp_source - kp_driving)[:, :, None, None, None]
        still = grid.expand(batch, 1, -1, -1, -1, -1)
        motions = torch.cat((still, by_keypoint), 1)  # (B, K + 1, D, H, W, 3)
        x = self.hourglass(self.seen(compressed, motions, kp_source, kp_driving).flatten(1, 2))

        mask = self.mask(x).softmax(1)
        deformation = (motions * mask[..., None]).sum(1)
        occlusion = self.occlusion(x.reshape(batch, -1, height, width)).sigmoid()
        return DenseMotion(mask, deformation, occlusion)

    def seen(self, compressed: Tensor, motions: Tensor, kp_source: Tensor, kp_driving: Tensor) -> Tensor:
        """What the hourglass takes, (B, K + 1, 5, D, H, W): heatmap difference and moved volume of every motion."""
        if neural.ready(compressed):
            axes = axes_of(compressed.float())
            return cast(Tensor, neural.dense_motion(compressed.float(), kp_source, kp_driving, *axes, VARIANCE))
        batch, count = motions.shape[:2]
        # align_corners=False: -1 and 1 are the outer faces of the voxels, not their centres. The weights were trained so.
        moved = F.grid_sample(
            compressed[:, None].expand(-1, count, -1, -1, -1, -1).flatten(0, 1),
            motions.flatten(0, 1),
            align_corners=False,
        ).unflatten(0, (batch, count))  # (B, K + 1, 4, D, H, W)

        grid = motions[0, 0]
        blobs = heatmap(grid, kp_driving) - heatmap(grid, kp_source)
        blobs = torch.cat((torch.zeros_like(blobs[:, :1]), blobs), 1)[:, :, None]  # zero for the background
        return torch.cat((blobs, moved), 2)


class ConvNorm2d(nn.Module):
    """3 x 3 convolution, batch norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, H, W) -> (B, outputs, H, W)."""
        return F.leaky_relu(self.norm(self.conv(x)), 0.01)


class WarpingNetwork(nn.Module):
    """Deforms a feature volume and flattens it."""

    def __init__(self, config: WarpingConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or WarpingConfig()
        self.dense_motion_network = DenseMotionNetwork(c)
        self.third = ConvNorm2d(c.channels * c.depth, c.outputs)
        self.fourth = nn.Conv2d(c.outputs, c.outputs, 1)

    def forward(self, feature_3d: Tensor, kp_source: Tensor, kp_driving: Tensor) -> Warped:
        """feature_3d (B, 32, 16, 64, 64), kp_source and kp_driving (B, 21, 3) -> feature map (B, 256, 64, 64)."""
        motion: DenseMotion = self.dense_motion_network(feature_3d, kp_source, kp_driving)
        deformed = F.grid_sample(feature_3d, motion.deformation, align_corners=False)
        flat = self.fourth(self.third(deformed.flatten(1, 2)))
        return Warped(flat * motion.occlusion_map, motion)
