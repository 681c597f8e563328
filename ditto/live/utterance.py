"""One utterance of a session: its samples go to the performer hop by hop, its sound to the frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ditto.live.intake import Piece
from ditto.media.rates import SAMPLE_RATE
from ditto.performer import Advance, EditsAt, State

Array = npt.NDArray[np.float32]


class Utterance:
    """The utterance that the performer is taking in, and its sound that no frame carries yet.

    One worker at a time calls `next_job` and `accept_shots`, without the session's lock. `publish`, called under the
    lock, makes their results visible to the other methods.

    Args:
        epoch: its number.
        begin: performer's state after the last shot of the stream -> its state before the first sample of this utterance.
        hop_samples: of the performer.
        audio_rate: of the sound, for a performer of which no idle frame may come between two shots of a block: a hop waits
            for the sound of its frames, of which the resampler holds some back. None: it does not wait.

    Attributes:
        ended: whether no more sound comes.
        done: whether the performer has given all shots.
        shots: how many the performer has given.
    """

    def __init__(
        self, epoch: int, begin: Callable[[State | None], State], hop_samples: int, audio_rate: int | None = None
    ) -> None:
        self.epoch = epoch
        self.ended = self.done = False
        self.shots = 0
        self._begin = begin
        self._state: State | None = None
        self._hop, self._audio_rate = hop_samples, audio_rate
        self._samples = np.zeros(0, np.float32)
        self._last = False  # no more samples come
        self._sound = np.zeros(0, np.float32)
        self._unpublished: list[Array] = []
        self._advanced = self._sounded = 0  # samples that were in a job; samples of sound that came

    def next_job(
        self, piece: Piece | None, emotion: Array, performer_state: State | None, edits: EditsAt | None = None
    ) -> Advance | None:
        """Take a piece; the next job for the performer, or None until there is a whole hop or the end.

        Args:
            piece: at most a hop; None if `has_hop`, or if the speech pauses.
            emotion: (8,) weights for the shots.
            performer_state: after the last shot of the stream; None before the first.
            edits: of the shots.
        """
        if piece is not None:
            speech, sound = piece.convert()
            self._unpublished.append(sound)
            self._sounded += sound.size
            self._samples = np.concatenate([self._samples, speech])
            self._last = piece.samples is None
        elif not self.has_hop and self._state is not None:
            return Advance(self._state, self._samples[:0], emotion, edits=edits, pause=True)
        if not self.has_hop:
            return None
        if self._state is None:
            self._state = self._begin(performer_state)  # here and not earlier: it takes time
        final = self._last and self._samples.size <= self._hop
        return Advance(self._state, self._samples[: self._hop], emotion, final, edits)

    def accept_shots(self, job: Advance, shots: int, state: State) -> None:
        """Record that the performer has done a job."""
        self._samples = self._samples[job.samples.size :]
        self._advanced += job.samples.size
        self._state = state
        self.shots += shots
        self.done = job.final

    def accept_idle(self, state: State) -> None:
        """Record the performer's state after the idle frames of a pause; under the lock, while no job is being done."""
        self._state = state

    def publish(self) -> None:
        """Make what `next_job` took visible; call it under the lock."""
        self._sound = np.concatenate([self._sound, *self._unpublished])
        self._unpublished.clear()
        self.ended = self._last

    @property
    def buffered(self) -> int:
        """Samples that it has taken and that are in no job yet."""
        return self._samples.size

    @property
    def started(self) -> bool:
        """Whether the performer has begun this utterance."""
        return self._state is not None

    @property
    def has_hop(self) -> bool:
        """Whether there is a job without a further piece."""
        return not self.done and (self._last or (self._samples.size >= self._hop and self._hop_sounds))

    @property
    def _hop_sounds(self) -> bool:
        """Whether the sound of the next hop is there, if the performer needs it."""
        needed = (self._advanced + self._hop) * (self._audio_rate or 0)
        return self._sounded * SAMPLE_RATE >= needed

    def has_sound(self, size: int) -> bool:
        """Whether `next_sound(size)` can be called."""
        return self._sound.size >= size or self.ended

    def next_sound(self, size: int) -> Array:
        """Remove the next `size` samples of sound; silence after the end."""
        sound, self._sound = self._sound[:size], self._sound[size:]
        return sound.copy() if sound.size == size else np.pad(sound, (0, size - sound.size))
