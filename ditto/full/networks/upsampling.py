"""A convolution behind an enlargement that repeats pixels: the same numbers from one transposed convolution of the small
image, for 2.2 (twice as large) to 4 times (four times as large) fewer multiplications.

Repeating each pixel s times is a transposed convolution with s ones; with a convolution of three taps behind it, it is
one of s + 2 taps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RepeatedConv2d(nn.Module):
    """A 3 x 3 convolution over an image whose pixels are repeated; it takes the image as it was before that.

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
