"""Voice activity detection: finds the utterances in the sound of an open microphone."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from ditto.media.voice import VoiceDetector

Array = npt.NDArray[np.float32]

BLOCKS_PER_SECOND = 50
OPENING_BLOCKS = 2  # blocks of voice in a row that begin an utterance
LEAD_BLOCKS = 5  # blocks before them that belong to it: a soft consonant
CLOSING_BLOCKS = 35  # 0.7 s without voice end it


class VoiceGate:
    """Passes voice and drops the rest. Any chunking of the samples gives the same utterances."""

    def __init__(self, rate: int) -> None:
        self._block = round(rate / BLOCKS_PER_SECOND)
        self._waiting = np.zeros(0, np.float32)
        self._lead: deque[Array] = deque(maxlen=OPENING_BLOCKS + LEAD_BLOCKS)
        self._detector = VoiceDetector(BLOCKS_PER_SECOND)
        self._voiced = 0  # blocks of voice in a row
        self._quiet = 0  # blocks without, within an utterance
        self._open = False

    def push(self, samples: Array) -> list[Array | None]:
        """Take (n,) samples in [-1, 1]; pieces of utterances in order, None after the last piece of one."""
        self._waiting = np.concatenate([self._waiting, samples])
        given: list[Array | None] = []
        while self._waiting.size >= self._block:
            block, self._waiting = self._waiting[: self._block], self._waiting[self._block :]
            voice = self._is_voice(block)
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

    def _is_voice(self, block: Array) -> bool:
        return self._detector.is_voice(10.0 * float(np.log10(np.mean(np.square(block, dtype=np.float64)) + 1e-12)))
