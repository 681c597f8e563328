"""Layers of the latent systems. Video inside a network is (B, T, H, W, C): channels last is the fast layout of a CPU.

Measured on one core, convolution of 64 to 64 channels on 16 x 16 positions, forward and backward: 15 GFLOP/s with channels
first, 105 with channels last, 196 in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
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


class StreamState(NamedTuple):
    """What a causal network remembers of a stream: an immutable value. `StreamState()` is the start of a stream.

    Attributes:
        first: whether the next chunk holds the stream's first frame.
        caches: the last input frames of each convolution that sees more than one, in the order in which they run; empty
            before the first chunk (zeros). Their shapes never change.
    """

    first: bool = True
    caches: tuple[Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds."""
        return sum(cache.numel() * cache.element_size() for cache in self.caches)


class Pass:
    """One chunk on its way through a causal network: gives the convolutions their past and collects what they keep.

    Without a state the chunk is a whole video, and nothing is kept.
    """

    def __init__(self, state: StreamState | None = None) -> None:
        self.first = state is None or state.first
        self._keeps = state is not None
        self._past = iter(() if state is None else state.caches)
        self._kept: list[Tensor] = []

    def with_past(self, x: Tensor, frames: int) -> Tensor:
        """(B, T, H, W, C) with the frames before it: (B, frames + T, H, W, C)."""
        past = next(self._past, None)
        if past is None:
            past = x.new_zeros(x.shape[0], frames, *x.shape[2:])
        longer = torch.cat([past.to(x.dtype), x], 1)
        if self._keeps:
            self._kept.append(longer[:, -frames:].clone())
        return longer

    def state(self) -> StreamState:
        """What the stream remembers after this chunk."""
        return StreamState(False, tuple(self._kept))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The stream's first frame, which has no partner in time, and the frames after it; either may be empty."""
        return x.tensor_split([1 if self.first else 0], 1)  # type: ignore[return-value]


class CausalConv(nn.Module):
    """A convolution of `taps` x 3 x 3 that sees its own frame and those before, with zeros around the picture and before time.

    The taps in time are stacked into channels of one two-dimensional convolution: equal to a `Conv3d`, and 3 to 10 times
    as fast on a CPU.
    """

    def __init__(self, given: int, made: int, taps: int = 3, gain: float = 1.0) -> None:
        super().__init__()
        self.taps = taps
        self.conv = nn.Conv2d(given * taps, made, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        nn.init.normal_(self.conv.weight, 0, gain / math.sqrt(9 * given * taps))
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, chunk: Pass) -> Tensor:
        batch, frames = x.shape[:2]
        if self.taps > 1:
            longer = chunk.with_past(x, self.taps - 1)
            x = torch.cat([longer[:, tap : tap + frames] for tap in range(self.taps)], -1)
        found = self.conv(x.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        made: Tensor = found.unflatten(0, (batch, frames))
        return made


def space_to_channels(x: Tensor, side: int) -> Tensor:
    """(B, T, H, W, C) -> (B, T, H / side, W / side, C side²): channel c side² + row side + column."""
    if side == 1:
        return x
    b, t, h, w, c = x.shape
    cells = x.reshape(b, t, h // side, side, w // side, side, c)
    return cells.permute(0, 1, 2, 4, 6, 3, 5).reshape(b, t, h // side, w // side, c * side**2)


def channels_to_space(x: Tensor, side: int) -> Tensor:
    """The inverse of `space_to_channels`."""
    if side == 1:
        return x
    b, t, h, w, c = x.shape
    cells = x.reshape(b, t, h, w, c // side**2, side, side)
    return cells.permute(0, 1, 2, 5, 3, 6, 4).reshape(b, t, h * side, w * side, c // side**2)


def time_to_channels(x: Tensor, frames: int) -> Tensor:
    """(B, T, H, W, C) -> (B, T / frames, H, W, C frames): channel c frames + frame."""
    b, t, h, w, c = x.shape
    return x.reshape(b, t // frames, frames, h, w, c).permute(0, 1, 3, 4, 5, 2).reshape(b, t // frames, h, w, c * frames)


def channels_to_time(x: Tensor, frames: int) -> Tensor:
    """The inverse of `time_to_channels`."""
    b, t, h, w, c = x.shape
    return x.reshape(b, t, h, w, c // frames, frames).permute(0, 1, 5, 2, 3, 4).reshape(b, t * frames, h, w, c // frames)


class Residual(nn.Module):
    """Two causal convolutions beside an identity (V, section 3.1; norms before them as in Wan)."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = RMSNorm(channels), RMSNorm(channels)
        self.first, self.second = CausalConv(channels, channels, taps), CausalConv(channels, channels, taps, gain=0.1)

    def forward(self, x: Tensor, chunk: Pass) -> Tensor:
        inner = self.first(F.silu(self.first_norm(x)), chunk)
        made: Tensor = x + self.second(F.silu(self.second_norm(inner)), chunk)
        return made


class Down(nn.Module):
    """A causal residual block that shrinks time by `time`, then space by `space` (CR-VA of V, section 3.1).

    Pixels move into channels; the shortcut averages those that are too many, and has no parameters. The stream's first frame
    skips the change in time, so that T + 1 frames become T / time + 1.
    """

    def __init__(self, given: int, made: int, time: int, space: int, taps: int) -> None:
        super().__init__()
        self.made, self.time, self.space = made, time, space
        self.in_time = CausalConv(given, given // time, 1, gain=0.5) if time > 1 else None
        self.in_space = CausalConv(given, made // space**2, taps, gain=0.5)

    def shortcut(self, x: Tensor, chunk: Pass) -> Tensor:
        if self.time > 1:
            head, rest = chunk.split(x)
            x = torch.cat([head, rest.unflatten(1, (-1, self.time)).mean(2)], 1) if rest.shape[1] else head
        averaged: Tensor = space_to_channels(x, self.space).unflatten(-1, (self.made, -1)).mean(-1)
        return averaged

    def forward(self, x: Tensor, chunk: Pass) -> Tensor:
        inner = x
        if self.in_time is not None:
            head, rest = chunk.split(x)
            if rest.shape[1]:
                inner = torch.cat([head, time_to_channels(self.in_time(rest, chunk), self.time)], 1)
        main = space_to_channels(self.in_space(inner, chunk), self.space)
        made: Tensor = main + self.shortcut(x, chunk)
        return made


class Up(nn.Module):
    """A causal residual block that widens space by `space`, then time by `time`: `Down` backwards."""

    def __init__(self, given: int, made: int, time: int, space: int, taps: int) -> None:
        super().__init__()
        self.repeats, self.time, self.space = made * space**2 // given, time, space
        self.in_space = CausalConv(given, made * space**2, taps, gain=0.5)
        self.in_time = CausalConv(made, made * time, 1, gain=0.5) if time > 1 else None

    def shortcut(self, x: Tensor, chunk: Pass) -> Tensor:
        x = channels_to_space(x.repeat_interleave(self.repeats, -1) if self.repeats > 1 else x, self.space)
        if self.time > 1:
            head, rest = chunk.split(x)
            x = torch.cat([head, rest.repeat_interleave(self.time, 1)], 1)
        return x

    def forward(self, x: Tensor, chunk: Pass) -> Tensor:
        inner = channels_to_space(self.in_space(x, chunk), self.space)
        if self.in_time is not None:
            head, rest = chunk.split(inner)
            if rest.shape[1]:
                inner = torch.cat([head, channels_to_time(self.in_time(rest, chunk), self.time)], 1)
        made: Tensor = inner + self.shortcut(x, chunk)
        return made


def grid_positions(rows: int, columns: int, size: int, like: Tensor) -> Tensor:
    """A fixed position of each cell of a grid: (rows columns, size), sines and cosines of row and column.

    Source: Vaswani et al., arXiv:1706.03762, section 3.5, on both axes; base and scale are ours, for grids of 8 to 32.
    """
    rates = 100 ** (-torch.arange(size // 4, device=like.device) / (size // 4))

    def waves(count: int) -> Tensor:
        angle = torch.arange(count, device=like.device)[:, None] * rates
        return torch.cat([angle.sin(), angle.cos()], -1)

    by_row = waves(rows)[:, None].expand(rows, columns, -1)
    by_column = waves(columns)[None].expand(rows, columns, -1)
    return (0.5 * torch.cat([by_row, by_column], -1)).reshape(rows * columns, -1).to(like.dtype)


def distance_bias(rows: int, columns: int, strengths: Sequence[float], like: Tensor) -> Tensor:
    """Scores that fall with the square of the distance on a grid: (heads, rows columns, rows columns)."""
    cells = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(like)
    squares = (cells[:, None] - cells[None]).square().sum(-1)
    return -torch.tensor(strengths).to(like)[:, None, None] * squares
