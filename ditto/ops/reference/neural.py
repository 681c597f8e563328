"""What the GPU kernels of the published networks give, in torch; these run wherever the kernels are not built. Needs torch.

B: batch, C: channels, K: keypoints, D x H x W: depth, height, width, N: pixels of the picture that a crop covers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-5  # of instance norm, torch's default


def blend_crop(image: Tensor, indices: Tensor, weights: Tensor, rest: Tensor) -> Tensor:
    """A rendered crop blended into its part of the picture, truncated as released.

    Args:
        image: (3, S, S), 0..1; NaN counts as 0.
        indices: (4, N) int32 of the crop's pixels, 0 to S * S - 1, which a GPU does not check.
        weights: (4, N) of these: bilinear, times the crop's mask.
        rest: (3, N) what the picture adds, 0..255.

    Returns:
        (N, 3) uint8.
    """
    levels = image.float().nan_to_num(0.0).clamp(0, 1).mul(255.0).flatten(1)
    blend = torch.zeros_like(rest)
    for index, weight in zip(indices, weights, strict=True):
        blend = blend + levels[:, index.long()] * weight
    return (blend + rest).clamp(0, 255).to(torch.uint8).T.contiguous()


def spade(x: Tensor, gamma: Tensor, beta: Tensor, slope: float) -> Tensor:
    """Instance norm, scaled by 1 + gamma and shifted by beta, then leaky ReLU of a slope (1: none); all (B, C, H, W).

    Source: SPADE (arXiv:1903.07291), eq. 1.
    """
    y = F.instance_norm(x, eps=EPSILON) * (1 + gamma) + beta
    return y if slope == 1.0 else F.leaky_relu(y, slope)


def dense_motion(
    volume: Tensor, source: Tensor, driving: Tensor, x: Tensor, y: Tensor, z: Tensor, variance: float
) -> Tensor:
    """The volume under every keypoint's motion, each beside the difference of the keypoint's heatmaps.

    Args:
        volume: (B, C, D, H, W).
        source, driving: keypoints (B, K, 3), x, y, z in -1..1.
        x, y, z: coordinates (W,), (H,), (D,) of the voxels.
        variance: of a heatmap.

    Returns:
        (B, K + 1, 1 + C, D, H, W): difference, then volume; the still background is first, its difference zero.

    Source: LivePortrait (arXiv:2407.03168), section 3.1.
    """
    batch = len(volume)
    grid = torch.stack(torch.meshgrid(z, y, x, indexing="ij")[::-1], -1)
    moves = (source - driving)[:, :, None, None, None]
    motions = torch.cat((grid.expand(batch, 1, -1, -1, -1, -1), grid + moves), 1)
    count = motions.shape[1]
    expanded = volume[:, None].expand(-1, count, -1, -1, -1, -1).flatten(0, 1)
    moved = F.grid_sample(expanded, motions.flatten(0, 1), align_corners=False).unflatten(0, (batch, count))

    def heat(keypoints: Tensor) -> Tensor:
        return torch.exp(-0.5 / variance * (grid - keypoints[:, :, None, None, None]).square().sum(-1))

    blobs = heat(driving) - heat(source)
    blobs = torch.cat((torch.zeros_like(blobs[:, :1]), blobs), 1)[:, :, None]
    return torch.cat((blobs, moved), 2)
