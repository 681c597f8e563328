"""The face of a session from frame to frame: speech as it comes, life between, and no jump from one to the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.live.idle import IdleState, idle, initial_idle, resume
from ditto.live.listening import Reaction
from ditto.live.ramp import emotion_change
from ditto.live.seam import Seam

Array = npt.NDArray[np.float32]

IDLE = -1  # where there is no utterance


class Face(NamedTuple):
    """What one frame leaves to the next.

    Attributes:
        frames: given so far.
        speaking: epoch of the utterance the last frame was of, or `IDLE`.
        idle: where the idle process stands.
        row, before: (70,) the last two motions shown, before controls; None at the beginning.
        seam: on its way from what was shown when the source of motion changed, or None.
        age: frames shown since the seam began.
        said: the last row of speech as it came, of which utterance; to go on after a stop.
    """

    frames: int
    speaking: int
    idle: IdleState
    row: Array | None
    before: Array | None
    seam: Seam | None
    age: int
    said: tuple[int, Array] | None = None


def at_rest() -> Face:
    """A face that has not been shown yet."""
    return Face(0, IDLE, initial_idle(), None, None, None, 0)


def speak(face: Face, row: Array, made_with: Array, wanted: Array, epoch: int, joined: bool) -> Face:
    """The face with a row of an utterance; its `row` is what to show.

    Args:
        row: (70,) as the sampler gave it.
        made_with: (8,) the emotion it was sampled with.
        wanted: (8,) the emotion it should show.
        epoch: number of the utterance.
        joined: whether it grows out of what was shown before, or stands as it is.
    """
    row = emotion_change(row, made_with, wanted)
    previous = face.said[1] if face.said is not None and face.said[0] == epoch else None
    return _shown(face, row, epoch, joined, previous)._replace(said=(epoch, row))


def live(
    face: Face, seed: int, emotion: Array, reaction: Reaction, translate: Callable[[Array], Array] | None = None
) -> Face:
    """The face with a frame of idle motion; `translate` makes a row of another motion space of it."""
    before = face.idle if face.speaking == IDLE or face.row is None else resume(face.idle, face.row)
    row, state = idle(before, seed, emotion, reaction)
    row = row if translate is None else translate(row)
    return _shown(face._replace(idle=state), row, IDLE, True)


def _shown(face: Face, row: Array, speaking: int, joined: bool, previous: Array | None = None) -> Face:
    seam, age = face.seam, face.age
    if speaking != face.speaking or face.row is None:
        seam, age = None, 0
        if joined and face.row is not None and face.before is not None:
            seam = Seam.between(face.row, face.before, row, previous=previous)
    if seam is not None and seam.done(age):
        seam = None
    if seam is not None:
        row = seam.at(age, row)
    before = row if face.row is None else face.row
    return face._replace(frames=face.frames + 1, speaking=speaking, row=row, before=before, seam=seam, age=age + 1)
