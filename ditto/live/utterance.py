"""One utterance of a session on its way from samples to shots, and its sound on its way to the frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ditto.live.intake import Piece
from ditto.performer import Advance, State

Array = npt.NDArray[np.float32]


class Utterance:
    """The utterance that is being heard, and its sound as far as no frame has it.

    `job` and `accept` are for one worker at a time, without the session's lock; what they brought is seen by others
    after `publish`.

    Args:
        epoch: its number.
        begin: where the stream stands -> the performer's state before the first sample.
        hop_samples: of the performer.

    Attributes:
        ended: whether its end was heard.
        done: whether all its shots are known.
        shots: known so far.
    """

    def __init__(self, epoch: int, begin: Callable[[State | None], State], hop_samples: int) -> None:
        self.epoch = epoch
        self.ended = self.done = False
        self.shots = 0
        self._begin = begin
        self._state: State | None = None
        self._hop = hop_samples
        self._samples = np.zeros(0, np.float32)
        self._last = False  # whether no more samples come
        self._sound = np.zeros(0, np.float32)
        self._fresh: list[Array] = []

    def job(self, piece: Piece | None, emotion: Array, stands: State | None) -> Advance | None:
        """Take a piece; what the performer is to do next, if there is a whole hop or the end.

        Args:
            piece: at most a hop; None where a hop is whole without one.
            emotion: (8,) to make shots with.
            stands: the performer's state after the last shot of the stream; None: there was none.
        """
        if piece is not None:
            heard, sound = piece.convert()
            self._fresh.append(sound)
            self._samples = np.concatenate([self._samples, heard])
            self._last = piece.samples is None
        if not self.has_hop:
            return None
        if self._state is None:
            self._state = self._begin(stands)  # takes time, so it is for the worker
        final = self._last and self._samples.size <= self._hop
        return Advance(self._state, self._samples[: self._hop], emotion, final)

    def accept(self, job: Advance, shots: int, state: State) -> None:
        """The performer has done it."""
        self._samples = self._samples[job.samples.size :]
        self._state = state
        self.shots += shots
        self.done = job.final

    def publish(self) -> None:
        """What was heard is heard."""
        self._sound = np.concatenate([self._sound, *self._fresh])
        self._fresh.clear()
        self.ended = self._last

    @property
    def begun(self) -> bool:
        """Whether the performer has begun with it."""
        return self._state is not None

    @property
    def has_hop(self) -> bool:
        """Whether the performer can go on without a further piece."""
        return not self.done and (self._last or self._samples.size >= self._hop)

    def can_cut(self, size: int) -> bool:
        """Whether the next `size` samples of sound are there."""
        return self._sound.size >= size or self.ended

    def cut(self, size: int) -> Array:
        """The next `size` samples of sound, filled up with silence after the end."""
        cut, self._sound = self._sound[:size], self._sound[size:]
        return np.pad(cut, (0, size - cut.size))
