"""Layers of the latent systems. Video inside a network is (B, T, H, W, C): channels last is the fast layout of a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPSILON = 1e-6  # of every norm; Wan


class RMSNorm(nn.Module):
    """Divides the last axis by its root mean square, in float32, and multiplies it by learned gains.

    Source: Zhang and Sennrich, arXiv:1910.07467, eq. 4.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPSILON)
        return (wide * scale * self.gain).to(x.dtype)
