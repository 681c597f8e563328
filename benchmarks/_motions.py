"""A performer whose pictures are empty: for what asks only for motion, at no cost of rendering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.errors import InputError
from ditto.motion.motion import Motion
from ditto.performer import Performer
from ditto.portrait.portrait import Portrait
from ditto.row_performer import RowPerformer

EMPTY = np.zeros((1, 1, 3), np.uint8)


class NoPictures:
    """A renderer of empty pictures."""

    def prepare(self, portrait: Portrait) -> None:
        return None

    def paste_back(self, portrait: Portrait) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]:
        return lambda crop: crop

    def retarget(self, portrait: Portrait, motion: Motion) -> None:
        return None

    def render(self, appearance: None, pose: None) -> npt.NDArray[np.uint8]:
        return EMPTY


def rows_of(performer: Performer) -> RowPerformer[Any, Any, Any, Any, Any]:
    """The performer, if its motion is explicit.

    Raises:
        InputError: it is not.
    """
    if not isinstance(performer, RowPerformer):
        raise InputError(f"expected a bundle with explicit motion, got a {type(performer).__name__}; use another bundle")
    return performer


def motion_only(performer: Performer) -> RowPerformer[Any, Any, Any, Any, Any]:
    """The same motions with empty pictures.

    Raises:
        InputError: the performer has no explicit motion.
    """
    own = rows_of(performer)
    return RowPerformer(own.encoder, own.sampler, NoPictures(), own.motion_space, own.change_emotion)
