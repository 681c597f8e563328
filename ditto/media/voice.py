"""Voice activity detection: which parts of a stream of sound are voice.

The network is Silero VAD 6.2.3 (MIT; `voice.onnx` beside this file, see NOTICE). `python -m benchmarks.voice` measures it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ditto.media.rates import SAMPLE_RATE
from ditto.once import OncePerProcess

if TYPE_CHECKING:
    from ditto.engines import Engine

Array = npt.NDArray[np.float32]

NETWORK = Path(__file__).with_name("voice.onnx")
STATE = (2, 1, 128)  # shape of the network's state
# Source: silero-vad 6.2.3, silero_vad/utils_vad.py: windows and context of `OnnxWrapper`, thresholds of `VADIterator`.
WINDOW_SAMPLES = 512  # at 16 kHz, 32 ms
CONTEXT_SAMPLES = 64  # of the window before, which the network takes with each window
BEGINS, ENDS = 0.5, 0.35  # probabilities: at least the first begins voice, less than the second ends it


def open_network() -> Engine:
    """Silero VAD: input (1, 576), state, sr () -> output (1, 1), stateN.

    Raises:
        EngineError: the file is missing, or ONNX Runtime is not installed or refuses it.
    """
    from ditto.engines import open_engine

    return open_engine(NETWORK)


network = OncePerProcess(open_network)


class VoiceDetector:
    """Says of each window of one stream whether it is voice. Any chunking of the samples gives the same answers.

    Raises:
        EngineError: the network cannot be opened.
    """

    def __init__(self) -> None:
        self._network = network()
        self._state = np.zeros(STATE, np.float32)
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._waiting = np.zeros(0, np.float32)
        self._voice = False

    def push(self, samples: Array) -> list[bool]:
        """Take samples (N,) in [-1, 1] at 16 kHz; the answers for the windows that they complete, in order."""
        waiting = np.concatenate([self._waiting, samples])
        whole = len(waiting) // WINDOW_SAMPLES * WINDOW_SAMPLES
        self._waiting = waiting[whole:]
        return [self._step(window) for window in waiting[:whole].reshape(-1, WINDOW_SAMPLES)]

    def _step(self, window: Array) -> bool:
        given = np.concatenate([self._context, window])
        self._context = given[-CONTEXT_SAMPLES:]
        found = self._network(input=given[None], state=self._state, sr=np.array(SAMPLE_RATE))
        self._state = found["stateN"]
        self._voice = float(found["output"].item()) >= (ENDS if self._voice else BEGINS)
        return self._voice
