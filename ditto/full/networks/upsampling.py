"""Nearest-neighbour enlargement and the convolution after it as one transposed convolution of the small image.

The numbers are the same, for 2.2 times fewer multiplications at scale 2 and 4 times fewer at scale 4. Repeating each
pixel s times is a transposed convolution with s ones; a convolution of three taps after it makes one of s + 2 taps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RepeatedConv2d(nn.Module):
    """A 3 x 3 convolution over an image with repeated pixels; takes the image before the repetition.

    Args:
        conv: stride 1, padded by one on every side; its weights are copied.
        scale: repetitions along each axis.
    """

    @torch.no_grad()
    def __init__(self, conv: nn.Conv2d, scale: int) -> None:
        super().__init__()
        taps = conv.weight.transpose(0, 1).flip(2, 3)  # (inputs, outputs, 3, 3)
        inputs, outputs, k, _ = taps.shape
        weight = taps.new_zeros(inputs, outputs, k + scale - 1, k + scale - 1)
        for down in range(scale):
            for right in range(scale):
                weight[..., down : down + k, right : right + k] += taps
        self.scale = scale
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, H, W) -> (B, outputs, scale H, scale W)."""
        return F.conv_transpose2d(x, self.weight, self.bias, stride=self.scale, padding=1)
