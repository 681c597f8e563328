"""What the samplers of V and RAP have in common: a generated block, and the check of what they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from ditto.errors import InputError

S = TypeVar("S")  # what a stream remembers


@dataclass(frozen=True)
class Block(Generic[S]):
    """What a block, or a clip, adds to a stream: the codec's latents (C, T, h, w), normalised, and the state after it."""

    latents: Tensor
    state: S


def check_streams(states: Sequence[object], audio: Sequence[Tensor], motion: Sequence[Tensor | None] | None) -> None:
    """Raises InputError unless there is speech, and motion if any, for each of one or more streams."""
    if not states or len(states) != len(audio) or (motion is not None and len(states) != len(motion)):
        raise InputError(
            f"expected speech, and motion if any, for each of one or more streams, got {len(states)} streams and "
            f"{len(audio)} of speech; give one each"
        )
