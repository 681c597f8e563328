"""Latents as tokens of a transformer, their positions, and the embedding of time. V's generator and RAP share these.

B: batch; T: latents; n: tokens of a latent; c: numbers of a token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditto.errors import InputError
from ditto.latent.attention import Rotation, rotation_of
from ditto.latent.config import GeneratorConfig

EPSILON = 1e-6  # of layer norms; Wan


def to_tokens(latents: Tensor, patch: int) -> Tensor:
    """(B, C, T, h, w) -> (B, T, n, c): a token is a patch of positions, the channels of a position together."""
    batch, channels, time, rows, columns = latents.shape
    split = latents.reshape(batch, channels, time, rows // patch, patch, columns // patch, patch)
    return split.permute(0, 2, 3, 5, 4, 6, 1).reshape(batch, time, -1, patch * patch * channels)


def from_tokens(tokens: Tensor, patch: int, rows: int, columns: int) -> Tensor:
    """The inverse of `to_tokens`."""
    batch, time = tokens.shape[:2]
    split = tokens.reshape(batch, time, rows // patch, columns // patch, patch, patch, -1)
    return split.permute(0, 6, 1, 2, 4, 3, 5).reshape(batch, -1, time, rows, columns)


def grid_rotation(config: GeneratorConfig, times: Sequence[int]) -> Rotation:
    """The rotary angles of the tokens of latents at these times, by time, row and column: (len(times) * n, c / 2)."""
    rows, columns = (torch.arange(count // config.patch) for count in (config.rows, config.columns))
    places = torch.meshgrid(torch.tensor(times), rows, columns, indexing="ij")
    positions = torch.stack([place.flatten() for place in places], -1)
    return rotation_of(positions, config.width // config.heads, config.theta)


def check_latents(latents: Tensor, channels: int, rows: int, columns: int, what: str) -> None:
    """Raises InputError for latents that are not (B, channels, T, rows, columns) with T of 1 or more."""
    expected = (channels, rows, columns)
    if latents.ndim != 5 or latents.shape[2] < 1 or (latents.shape[1], *latents.shape[3:]) != expected:
        raise InputError(
            f"expected {what} (B, {channels}, T, {rows}, {columns}) with T of 1 or more, got {tuple(latents.shape)}; encode "
            "pictures of this size with the codec of this bundle"
        )


def norm(x: Tensor) -> Tensor:
    """Layer norm over the last axis, without parameters."""
    return F.layer_norm(x, x.shape[-1:], eps=EPSILON)


def feed_forward(width: int, inner: int) -> nn.Sequential:
    """Linear, GELU (its tanh form, as Wan), Linear."""
    return nn.Sequential(begin_linear(nn.Linear(width, inner)), nn.GELU("tanh"), begin_linear(nn.Linear(inner, width)))


def begin_linear(layer: nn.Linear) -> nn.Linear:
    """Xavier weights and no bias, as Wan begins."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that gives 0 until it is trained (adaLN-zero, DiT, arXiv:2212.09748)."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class TimeEmbedding(nn.Module):
    """Noise levels as vectors: cosines and sines of 1000 t, then Linear, SiLU, Linear (Wan).

    Args:
        frequencies: numbers of the sinusoids, even.
        width: of the vectors.
    """

    def __init__(self, frequencies: int, width: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        before, after = nn.Linear(frequencies, width), nn.Linear(width, width)
        for layer in (before, after):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.layers = nn.Sequential(before, nn.SiLU(), after)

    def forward(self, t: Tensor) -> Tensor:
        """(...) in [0, 1] -> (..., width)."""
        half = self.frequencies // 2
        ladder = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
        angle = 1000 * t.float()[..., None] * ladder
        embedded: Tensor = self.layers(torch.cat([angle.cos(), angle.sin()], -1))
        return embedded


class LatentUnits(nn.Module):
    """From the codec's latents to those that a generator makes: as they are, or relative to that of the reference.

    Relative ones are ours, for small generators: 90 % of the variance of a talking face's latents is who it is, which the
    reference gives already (small_recipe: r .83 after 4.5 CPU minutes, against .75 after 3.6 with latents as they are).

    Args:
        channels: C.
        residual: whether they are relative.

    Attributes:
        spread: (C,) by which they are divided; 1 until set.
    """

    spread: Tensor

    def __init__(self, channels: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.register_buffer("spread", torch.ones(channels))

    def encode(self, latents: Tensor, reference: Tensor) -> Tensor:
        """The generator's latents of the codec's (B, C, T, h, w); reference (B, C, 1 or T, h, w)."""
        return (latents - reference if self.residual else latents) / self.spread[:, None, None, None]

    def decode(self, latents: Tensor, reference: Tensor) -> Tensor:
        """The inverse of `encode`."""
        latents = latents * self.spread[:, None, None, None]
        return latents + reference if self.residual else latents
