"""The input of a session: speech to speak, and speech of the other party. Every call is short and made under the lock.

Nothing is resampled here, because that takes time: workers do it, a hop at a time.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import AudioError
from ditto.media.audio import SAMPLE_RATE, Resampler
from ditto.motion.listening import MOST_WAITING
from ditto.motion.motion import FPS

Array = npt.NDArray[np.float32]

MAX_QUEUED_SAMPLES = 30 * SAMPLE_RATE  # samples (at 16 kHz) in the queue from which on `push` waits
MAX_LISTEN_SECONDS = MOST_WAITING / FPS  # seconds of the other party's speech in the queue; older ones are dropped


class Conversion:
    """Resamples one utterance: to 16 kHz for the performer, and to `audio_rate` for the frames."""

    def __init__(self, rate: int, audio_rate: int) -> None:
        self.rate = rate
        self._speech = Resampler(rate)
        self._sound = None if audio_rate == SAMPLE_RATE else Resampler(rate, audio_rate)

    def push(self, samples: Array) -> tuple[Array, Array]:
        """The samples of both that became final."""
        speech = self._speech.push(samples)
        return speech, speech if self._sound is None else self._sound.push(samples)

    def flush(self) -> tuple[Array, Array]:
        """The rest of both."""
        speech = self._speech.flush()
        return speech, speech if self._sound is None else self._sound.flush()


class Piece(NamedTuple):
    """Samples of an utterance at the rate of the push (at most a hop of them from `Intake.take`), or None: its end."""

    epoch: int
    samples: Array | None
    conversion: Conversion

    @property
    def size_16khz(self) -> float:
        """Its length in samples at 16 kHz."""
        return 0.0 if self.samples is None else self.samples.size * SAMPLE_RATE / self.conversion.rate

    def convert(self) -> tuple[Array, Array]:
        """The next samples for the performer, and those for the frames. Takes time."""
        return self.conversion.flush() if self.samples is None else self.conversion.push(self.samples)


class Intake:
    """The queue of speech that the performer has not taken yet.

    Args:
        audio_rate: of the sound that frames carry.
        hop_samples: of the performer.

    Attributes:
        epoch: number of the utterance that the next push belongs to.
    """

    def __init__(self, audio_rate: int, hop_samples: int) -> None:
        self.epoch = 0
        self._audio_rate, self._hop = audio_rate, hop_samples
        self._conversion: Conversion | None = None  # of the utterance that is being pushed
        self._pieces: deque[Piece] = deque()
        self._ends = 0  # among them
        self._waiting = 0.0  # samples, at 16 kHz

    def __len__(self) -> int:
        """Pieces in the queue."""
        return len(self._pieces)

    def completes_hop(self, buffered: int) -> bool:
        """Whether the queue holds what `buffered` samples lack to a hop, or the end of an utterance.

        Resampling holds a few samples back: what was taken may still be less than a hop.
        """
        return len(self._pieces) > 0 and (self._ends > 0 or buffered + self._waiting > self._hop - 1)

    @property
    def seconds(self) -> float:
        """Seconds of speech in the queue."""
        return self._waiting / SAMPLE_RATE

    @property
    def full(self) -> bool:
        """Whether `push` has to wait."""
        return self._waiting >= MAX_QUEUED_SAMPLES

    def push(self, samples: Array, rate: int, epoch: int) -> bool:
        """Append speech (N,) of an utterance; False if the queue is full.

        Args:
            epoch: the current one when the caller began to wait. If `end_utterance` or `interrupt` ended it since, the
                samples are dropped.

        Raises:
            AudioError: not the rate of the utterance's first samples.
        """
        if epoch != self.epoch or (self._conversion is None and samples.size == 0):
            return True
        if self._conversion is not None and self._conversion.rate != rate:
            raise AudioError(
                f"expected {self._conversion.rate} Hz to the end of the utterance, got {rate} Hz; flush() before another rate"
            )
        if self.full:
            return False
        if self._conversion is None:
            self._conversion = Conversion(rate, self._audio_rate)
        if samples.size:
            self._put(Piece(epoch, samples, self._conversion))
        return True

    def end_utterance(self) -> bool:
        """End the utterance; the next push begins another. False if the utterance has no samples."""
        if self._conversion is None:
            return False
        self._put(Piece(self.epoch, None, self._conversion))
        self._ends += 1
        self._conversion = None
        self.epoch += 1
        return True

    def take(self) -> Piece:
        """Remove the next piece, at most a hop of samples."""
        piece = self._pieces.popleft()
        max_samples = self._max_samples(piece)
        if piece.samples is not None and piece.samples.size > max_samples:
            self._pieces.appendleft(piece._replace(samples=piece.samples[max_samples:]))
            piece = piece._replace(samples=piece.samples[:max_samples])
        self._waiting = self._waiting - piece.size_16khz if self._pieces else 0.0
        self._ends -= piece.samples is None
        return piece

    def interrupt(self) -> None:
        """Drop the queue; the next push begins another utterance."""
        self.clear()
        self._conversion = None
        self.epoch += 1

    def clear(self) -> None:
        """Drop the queue."""
        self._pieces.clear()
        self._waiting, self._ends = 0.0, 0

    def _put(self, piece: Piece) -> None:
        """Append a piece; fill the last one up to a hop first."""
        self._waiting += piece.size_16khz
        last = self._pieces[-1] if self._pieces else None
        if last is not None and last.epoch == piece.epoch and last.samples is not None and piece.samples is not None:
            room = self._max_samples(piece) - last.samples.size
            if room > 0:
                self._pieces[-1] = last._replace(samples=np.concatenate([last.samples, piece.samples[:room]]))
                piece = piece._replace(samples=piece.samples[room:])
        if piece.samples is None or piece.samples.size:
            self._pieces.append(piece)

    def _max_samples(self, piece: Piece) -> int:
        return int(piece.conversion.rate * self._hop / SAMPLE_RATE)


class ListenPiece(NamedTuple):
    """Samples of the other party, their length in seconds, and the resampler that takes them to 16 kHz."""

    samples: Array
    seconds: float
    resampler: Resampler


class ListenQueue:
    """The queue of the other party's speech, until a worker takes it."""

    def __init__(self) -> None:
        self._pieces: deque[ListenPiece] = deque()
        self._resampler: tuple[int, Resampler] | None = None

    def push(self, samples: Array, rate: int) -> None:
        """Append samples (N,); drop the oldest beyond `MAX_LISTEN_SECONDS`."""
        if self._resampler is None or self._resampler[0] != rate:
            self._resampler = rate, Resampler(rate)
        max_samples = round(MAX_LISTEN_SECONDS * rate)
        samples = samples if samples.size <= max_samples else samples[-max_samples:].copy()
        self._pieces.append(ListenPiece(samples, samples.size / rate, self._resampler[1]))
        while sum(piece.seconds for piece in self._pieces) - self._pieces[0].seconds >= MAX_LISTEN_SECONDS:
            self._pieces.popleft()

    def take(self) -> list[ListenPiece]:
        """Remove and return every piece."""
        pieces = list(self._pieces)
        self._pieces.clear()
        return pieces
