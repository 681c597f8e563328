"""The utterances in the sound of an open microphone, found with `ditto.media.voice`."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from ditto.media.audio import Resampler
from ditto.media.rates import SAMPLE_RATE
from ditto.media.voice import WINDOW_SAMPLES, VoiceDetector

Array = npt.NDArray[np.float32]

# Blocks are the detector's windows, 32 ms. The shortest run of voice in four utterances of LibriSpeech has eight; none of 28
# clicks of 5 to 40 ms gives one. Lead and closing time are chosen.
OPENING_BLOCKS = 2  # blocks of voice in a row that begin an utterance
LEAD_BLOCKS = 3  # blocks before them that belong to it: a soft consonant
CLOSING_BLOCKS = 22  # 0.7 s without voice end it


class VoiceGate:
    """Passes voice and drops the rest. Any chunking of the samples gives the same utterances.

    Args:
        rate: samples a second.

    Raises:
        AudioError: a rate that cannot be resampled.
        EngineError: the voice detector's network cannot be opened.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._resampler = Resampler(rate)
        self._detector = VoiceDetector()
        self._waiting = np.zeros(0, np.float32)  # samples from `_block` on
        self._block = 0  # number of the next block
        self._lead: deque[Array] = deque(maxlen=OPENING_BLOCKS + LEAD_BLOCKS)
        self._voiced = 0  # blocks of voice in a row
        self._quiet = 0  # blocks without, within an utterance
        self._open = False

    def push(self, samples: Array) -> list[Array | None]:
        """Take (n,) samples in [-1, 1]; pieces of utterances in order, None after the last piece of one."""
        self._waiting = np.concatenate([self._waiting, samples])
        given: list[Array | None] = []
        for voice in self._detector.push(self._resampler.push(samples)):
            block = self._next_block()
            self._voiced = self._voiced + 1 if voice else 0
            if self._open:
                given.append(block)
                self._quiet = 0 if voice else self._quiet + 1
                if self._quiet >= CLOSING_BLOCKS:
                    self._open = False
                    given.append(None)
                continue
            self._lead.append(block)
            if self._voiced >= OPENING_BLOCKS:
                self._open, self._quiet = True, 0
                given.append(np.concatenate(self._lead))
                self._lead.clear()
        return given

    def close(self) -> list[Array | None]:
        """The microphone is off: [None] if an utterance was under way, else []."""
        was_open, self._open = self._open, False
        self._lead.clear()
        return [None] if was_open else []

    def _next_block(self) -> Array:
        """Remove the samples that one window of the detector covers. They are there: the resampler gives no sample early."""
        edges = [number * WINDOW_SAMPLES * self._rate // SAMPLE_RATE for number in (self._block, self._block + 1)]
        size = edges[1] - edges[0]
        block, self._waiting = self._waiting[:size], self._waiting[size:]
        self._block += 1
        return block
