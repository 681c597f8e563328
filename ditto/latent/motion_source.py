"""Motion for latent video: lite's motion of the same speech, edited as lite edits it, as the condition of a block's frames.

    features of speech -> lite's motion network -> rows -> style, emotion, performance, controls -> (frames, 70) of a block

Latent video is generated block by block and cannot be drawn again, so the edits of a block's frames must be there before it
is made: they come with the jobs (`ditto.performer.Advance.edits`). A block whose frames have no edits has no motion: the
generator's condition is hidden, and the block has the bits of a generator without one. The first block with edits begins
with a face at rest, and lite's motion goes on from there until a block without edits. Frames without speech get lite's idle
motion. The head can be held still, where the generator has seen still heads alone. All of it is `RowPerformer`'s: this module
holds its values for a stream and says when to call it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.bundle import Bundle
from ditto.controls import HEAD_STILL
from ditto.errors import BundleError
from ditto.lite.performer import open_performer
from ditto.motion.emotion import emotion_vector
from ditto.motion.motion import MOTION_SIZE
from ditto.performer import Appearance, Capability, Draw, Edits, Face
from ditto.portrait.portrait import Portrait
from ditto.row_performer import IdleShot, RowPerformer, RowShot

Floats = npt.NDArray[np.float32]

NEUTRAL = emotion_vector(None)
# Its rows are there as soon as the features of their frames are, so a block waits for nothing more (`ditto.lite.latency`).
LATENCY = "low"


@dataclass(frozen=True)
class MotionConfig:
    """The motion network of the lite bundle that this version ships.

    Attributes:
        network: SHA-256 of its denoiser; the generator was trained on the motion of this one.
        still: whether the head stands still, as in the clips that the generator was trained on.
    """

    network: str
    still: bool = True

    def open(self) -> MotionSource:
        """The source of motion.

        Raises:
            BundleError: the shipped motion network is another one.
        """
        shipped = shipped_motion()
        if shipped != self.network:
            raise BundleError(
                f"expected the motion network {self.network[:12]}..., which the bundle was trained with, got "
                f"{shipped[:12]}... in this version of ditto; use the version of the bundle, or train it again"
            )
        performer = open_performer(Bundle.open("lite"), "cpu", "float32")
        assert isinstance(performer, RowPerformer)
        return MotionSource(performer.motion_only(), self.still)


def shipped_motion() -> str:
    """SHA-256 of the motion network that this version ships."""
    return Bundle.open("lite").part("motion").sha256["denoiser"]


@dataclass(frozen=True, eq=False)
class MotionState:
    """What is remembered of a stream's motion, of constant size.

    Attributes:
        face: lite's, after the last frame.
        sampler: of lite's motion network; None in frames without speech.
        rows: (n, 70) sampled for frames to come, a few.
        heard: how many of the features that wait for the next block the sampler has taken.
    """

    face: Face
    sampler: Any = None
    rows: Floats = field(default_factory=lambda: np.zeros((0, MOTION_SIZE), np.float32))
    heard: int = 0


class MotionJob(NamedTuple):
    """A block of one stream.

    Attributes:
        state: after the block before; None if that had no motion.
        appearance: of its portrait, from `MotionSource.prepare`.
        portrait: the same.
        seed: of its utterance.
        features: (n, 368) of the block's frames and of those after them that are there; None: frames without speech.
        edits: of the block's frames.
    """

    state: MotionState | None
    appearance: Appearance
    portrait: Portrait
    seed: int
    features: Floats | None
    edits: Sequence[Edits]


class MotionBlock(NamedTuple):
    """The motion (frames, 70) of a block, and the state after it."""

    motion: Floats
    state: MotionState


class MotionSource:
    """Lite's motion for the blocks of many streams.

    Args:
        performer: of lite, without pictures.
        still: whether the head stands still, whatever the edits.

    Attributes:
        supports: what the edits can be.
    """

    def __init__(self, performer: RowPerformer[Any, Any, Any, Any, Any], still: bool) -> None:
        self._performer, self._sampler = performer, performer.sampler_for(LATENCY)
        self._held = (HEAD_STILL,) if still else ()
        edits = {Capability.CONTROLS, Capability.EMOTION, Capability.STYLE}
        self.supports = frozenset(edits if still else edits | {Capability.HEAD})

    def prepare(self, portrait: Portrait) -> Appearance:
        """What stays the same from frame to frame."""
        return self._performer.prepare(portrait)

    def follow(self, jobs: Sequence[MotionJob]) -> list[MotionBlock]:
        """The motion of the next block of each stream; the motion network takes all that speak as one batch."""
        states = [job.state or MotionState(self._performer.face(job.appearance, job.seed)) for job in jobs]
        speaking = [place for place, job in enumerate(jobs) if job.features is not None]
        samplers = [
            self._sampler.begin(jobs[place].portrait, jobs[place].seed)
            if states[place].sampler is None
            else states[place].sampler
            for place in speaking
        ]
        features = [jobs[place].features for place in speaking]
        fresh = [rows[states[place].heard :] for place, rows in zip(speaking, features, strict=True) if rows is not None]
        sampled = self._sampler.step_batch(fresh, [NEUTRAL] * len(fresh), samplers, [False] * len(fresh))
        for place, rows, (motion, sampler) in zip(speaking, features, sampled, strict=True):
            assert rows is not None
            state = states[place]
            states[place] = replace(
                state, sampler=sampler, rows=np.concatenate([state.rows, motion]), heard=len(rows)
            )
        return [self._edited(job, state) for job, state in zip(jobs, states, strict=True)]

    def _edited(self, job: MotionJob, state: MotionState) -> MotionBlock:
        """The motion of a block's frames with their edits, and the state without those frames."""
        frames, face, made = len(job.edits), state.face, []
        for number, edits in enumerate(job.edits):
            shot = IdleShot() if job.features is None else RowShot(state.rows[number], NEUTRAL, job.seed)
            held = replace(edits, controls=(*edits.controls, *self._held))
            moved = self._performer.move([Draw(face, shot, held)])[0]
            face = moved.face
            made.append(np.asarray(moved.motion, np.float32))
        if job.features is None:
            return MotionBlock(np.stack(made), MotionState(face))
        after = replace(state, face=face, rows=state.rows[frames:].copy(), heard=state.heard - frames)
        return MotionBlock(np.stack(made), after)
