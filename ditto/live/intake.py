"""What comes into a session: speech to be spoken, and what the other party says. Under the session's lock, and short.

Nothing is resampled here: that takes time, and is for the workers, in pieces of a hop.
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

LARGEST_INBOX = 30 * SAMPLE_RATE  # samples (at 16 kHz) that wait to be spoken before `push` waits
LONGEST_LISTENING = MOST_WAITING / FPS  # seconds of the other party that wait to be heard; older ones are forgotten


class Conversion:
    """One utterance's samples, at 16 kHz to be heard and at the frames' rate to be played."""

    def __init__(self, rate: int, audio_rate: int) -> None:
        self.rate = rate
        self._speech = Resampler(rate)
        self._sound = None if audio_rate == SAMPLE_RATE else Resampler(rate, audio_rate)

    def push(self, samples: Array) -> tuple[Array, Array]:
        """What became final of both."""
        heard = self._speech.push(samples)
        return heard, heard if self._sound is None else self._sound.push(samples)

    def flush(self) -> tuple[Array, Array]:
        """The rest of both."""
        heard = self._speech.flush()
        return heard, heard if self._sound is None else self._sound.flush()


class Piece(NamedTuple):
    """Samples of an utterance as they were pushed, at most a hop when it is taken; None for its end."""

    epoch: int
    samples: Array | None
    conversion: Conversion

    @property
    def waits(self) -> float:
        """What it adds to the samples that wait to be spoken, at 16 kHz."""
        return 0.0 if self.samples is None else self.samples.size * SAMPLE_RATE / self.conversion.rate

    def convert(self) -> tuple[Array, Array]:
        """What it adds to the samples to be heard, and to those to be played. Takes time."""
        return self.conversion.flush() if self.samples is None else self.conversion.push(self.samples)


class Intake:
    """Speech that waits to be heard.

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
        self._waiting = 0.0  # samples, at 16 kHz

    def __len__(self) -> int:
        """Pieces that wait."""
        return len(self._pieces)

    @property
    def seconds(self) -> float:
        """Speech that waits."""
        return self._waiting / SAMPLE_RATE

    @property
    def full(self) -> bool:
        """Whether a push has to wait."""
        return self._waiting >= LARGEST_INBOX

    def push(self, samples: Array, rate: int, epoch: int) -> bool:
        """Take speech (N,) of an utterance; False while there is no room for it.

        Args:
            epoch: the one that was current when the caller began to wait: what another call has ended is dropped.

        Raises:
            AudioError: another rate than the utterance began with.
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

    def end(self) -> bool:
        """The utterance is over, and the next push begins another; False where nothing was pushed."""
        if self._conversion is None:
            return False
        self._put(Piece(self.epoch, None, self._conversion))
        self._conversion = None
        self.epoch += 1
        return True

    def take(self) -> Piece:
        """The next piece, of at most a hop of samples."""
        piece = self._pieces.popleft()
        most = self._most(piece)
        if piece.samples is not None and piece.samples.size > most:
            self._pieces.appendleft(piece._replace(samples=piece.samples[most:]))
            piece = piece._replace(samples=piece.samples[:most])
        self._waiting = self._waiting - piece.waits if self._pieces else 0.0
        return piece

    def interrupt(self) -> None:
        """Forget what waits; the next push begins another utterance."""
        self.clear()
        self._conversion = None
        self.epoch += 1

    def clear(self) -> None:
        """Forget what waits."""
        self._pieces.clear()
        self._waiting = 0.0

    def _put(self, piece: Piece) -> None:
        """Behind the others; small pieces are joined."""
        self._waiting += piece.waits
        last = self._pieces[-1] if self._pieces else None
        if last is not None and last.epoch == piece.epoch and last.samples is not None and piece.samples is not None:
            if last.samples.size + piece.samples.size <= self._most(piece):
                self._pieces[-1] = piece._replace(samples=np.concatenate([last.samples, piece.samples]))
                return
        self._pieces.append(piece)

    def _most(self, piece: Piece) -> int:
        return int(piece.conversion.rate * self._hop / SAMPLE_RATE)


class Overheard(NamedTuple):
    """Samples of the other party, how long they last, and what makes 16 kHz of them."""

    samples: Array
    seconds: float
    resampler: Resampler


class Ear:
    """What the other party says, until a worker takes it."""

    def __init__(self) -> None:
        self._pieces: deque[Overheard] = deque()
        self._resampler: tuple[int, Resampler] | None = None

    def push(self, samples: Array, rate: int) -> None:
        """Take samples (N,); the oldest are forgotten where too many wait."""
        if self._resampler is None or self._resampler[0] != rate:
            self._resampler = rate, Resampler(rate)
        most = round(LONGEST_LISTENING * rate)
        samples = samples if samples.size <= most else samples[-most:].copy()
        self._pieces.append(Overheard(samples, samples.size / rate, self._resampler[1]))
        while sum(piece.seconds for piece in self._pieces) - self._pieces[0].seconds >= LONGEST_LISTENING:
            self._pieces.popleft()

    def take(self) -> list[Overheard]:
        """All that waits."""
        pieces = list(self._pieces)
        self._pieces.clear()
        return pieces
