"""Multi-head attention, three-dimensional rotary positions and the cache of keys and values, for every transformer here.

Queries and keys are RMS-normalised over the model dimension before the heads are split, then rotated, as in Wan
(arXiv:2503.20314, code: Wan-Video/Wan2.1 9737cba, `wan/modules/model.py`). V cites the DiT and RAP builds on Wan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditto.errors import InputError
from ditto.latent.layers import RMSNorm

THETA = 10_000.0  # base of the rotary frequencies; Wan


class Rotation(NamedTuple):
    """Angles of rotary positions.

    Attributes:
        cos, sin: (L, c / 2) float32 for L tokens and heads of c numbers.
    """

    cos: Tensor
    sin: Tensor

    def at(self, tokens: slice | Tensor) -> Rotation:
        """Those of some of the tokens."""
        return Rotation(self.cos[tokens], self.sin[tokens])


def rotary_axes(width: int) -> tuple[int, int, int]:
    """How many numbers of a head of `width` turn with time, row and column; (44, 42, 42) for 128, as Wan."""
    space = 2 * (width // 6)
    return width - 2 * space, space, space


def rotation_of(positions: Tensor, width: int, theta: float | Sequence[float] = THETA) -> Rotation:
    """The rotary angles of tokens.

    Args:
        positions: (L, 3) time, row and column of each token; any numbers.
        width: numbers of a head, even.
        theta: base of the frequencies, one for all axes or three.

    Source: Su et al., arXiv:2104.09864, eq. 15, on each axis with its own ladder of frequencies (Wan).
    """
    if width % 2:
        raise InputError(f"expected heads of an even width, got {width}; choose another number of heads")
    bases = (theta,) * 3 if isinstance(theta, (int, float)) else tuple(theta)
    angles = []
    for axis, (size, base) in enumerate(zip(rotary_axes(width), bases, strict=True)):
        steps = torch.arange(0, size, 2, dtype=torch.float64, device=positions.device)
        angles.append(positions[:, axis : axis + 1].double() * base ** (-steps / size))
    angle = torch.cat(angles, -1)
    return Rotation(angle.cos().float(), angle.sin().float())


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the pairs (2 i, 2 i + 1) of (B, heads, L, c) by the angles of each token."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = rotation
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def _rotated(x: Tensor, rotation: Rotation | None) -> Tensor:
    return x if rotation is None else rotate(x, rotation).to(x.dtype)


class KeysValues(NamedTuple):
    """Keys, normalised and rotated, and values, of one attention.

    Attributes:
        keys, values: (B, heads, L, c).
    """

    keys: Tensor
    values: Tensor

    def then(self, later: KeysValues) -> KeysValues:
        """These tokens, and after them those of `later`."""
        return KeysValues(torch.cat([self.keys, later.keys], 2), torch.cat([self.values, later.values], 2))


class Cache(NamedTuple):
    """Keys and values of past tokens in buffers of a shape that never changes. An immutable value.

    Attributes:
        buffers: (B, heads, capacity, c) keys and values; zeros from `length` on.
        length: tokens that they hold.
    """

    buffers: KeysValues
    length: int

    @classmethod
    def of(cls, first: KeysValues, capacity: int) -> Cache:
        """A cache that holds `first` and has room for `capacity` tokens in all."""
        keys, values = first
        empty = keys.new_zeros(*keys.shape[:2], capacity, keys.shape[3])
        return cls(KeysValues(empty, empty.to(values.dtype)), 0).append(first)

    @property
    def capacity(self) -> int:
        return self.buffers.keys.shape[2]

    def append(self, new: KeysValues) -> Cache:
        """This cache with more tokens; this one stays as it is.

        Raises:
            InputError: it has no room for them.
        """
        end = self.length + new.keys.shape[2]
        if end > self.capacity:
            raise InputError(
                f"expected at most {self.capacity} tokens in a cache, got {end}; reset the window before it is full"
            )
        keys, values = self.buffers.keys.clone(), self.buffers.values.clone()
        keys[:, :, self.length : end] = new.keys
        values[:, :, self.length : end] = new.values
        return Cache(KeysValues(keys, values), end)

    def filled(self) -> KeysValues:
        """The tokens that it holds: a shape that grows. Needs no mask."""
        return KeysValues(self.buffers.keys[:, :, : self.length], self.buffers.values[:, :, : self.length])

    def mask(self, new: int) -> Tensor:
        """(1, 1, 1, capacity + new) bool: which of `buffers` and of `new` tokens after them may be looked at.

        With it `buffers` can be attended to whole, so that shapes stay the same (CUDA graphs).
        """
        place = torch.arange(self.capacity + new, device=self.buffers.keys.device)
        return ((place < self.length) | (place >= self.capacity))[None, None, None]


class Attention(nn.Module):
    """Attention of `dim` numbers in `heads` heads over tokens of its own or of a context.

    Its parts are methods, for callers that keep keys and values (`keys_values`) or blend attentions before the output
    layer (`attend`, then `output`).

    Args:
        dim: model dimension.
        heads: they divide it.
        context_dim: numbers of a token of the context; `dim` if it is not given.

    Raises:
        InputError: the heads do not divide the dimension.
    """

    def __init__(self, dim: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise InputError(f"expected heads that divide {dim}, got {heads}; choose another number of heads")
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(context_dim or dim, dim)
        self.value = nn.Linear(context_dim or dim, dim)
        self.output = nn.Linear(dim, dim)
        self.query_norm, self.key_norm = RMSNorm(dim), RMSNorm(dim)
        for linear in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads

    def queries(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """(B, L, dim) -> (B, heads, L, c), normalised and rotated."""
        query = self._split(self.query_norm(self.query(x)))
        return _rotated(query, rotation)

    def keys_values(self, context: Tensor, rotation: Rotation | None = None) -> KeysValues:
        """(B, L, context_dim) -> keys and values."""
        key = self._split(self.key_norm(self.key(context)))
        return KeysValues(_rotated(key, rotation), self._split(self.value(context)))

    def attend(self, queries: Tensor, context: KeysValues, mask: Tensor | None = None) -> Tensor:
        """What the queries find, before the output layer: (B, L, dim).

        Args:
            queries: (B, heads, L, c).
            context: of S tokens.
            mask: broadcasts to (B, heads, L, S): bool, True where a query may look; or numbers added to the scores.
        """
        if mask is not None and mask.is_floating_point():
            mask = mask.to(queries.dtype)
        found = F.scaled_dot_product_attention(queries, *context, attn_mask=mask)
        return found.transpose(1, 2).flatten(2)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None = None,
        mask: Tensor | None = None,
        past: KeysValues | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """Attention of tokens to those of `past`, if any, and to each other.

        Args:
            x: (B, L, dim).
            rotation: positions of the L tokens.
            mask: as in `attend`, over `past` and then the L tokens.
            past: keys and values of other tokens.

        Returns:
            (B, L, dim), and keys and values of the L tokens, for a cache.
        """
        new = self.keys_values(x, rotation)
        context = new if past is None else past.then(new)
        return self.output(self.attend(self.queries(x, rotation), context, mask)), new
