"""Real speech for tests of what depends on voice: noise that swells and fades is not taken for it."""

from functools import cache
from pathlib import Path

import numpy as np

from ditto.media.audio import Resampler, read_audio
from ditto.media.rates import SAMPLE_RATE

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "speech.flac"


@cache
def phrase():
    """1.6 s of speech without a pause, 16 kHz, RMS 1: "the best of times, it was the worst of"."""
    sound = read_audio(EXAMPLE)[int(0.3 * SAMPLE_RATE) : int(1.9 * SAMPLE_RATE)]
    sound = sound / np.sqrt((sound**2).mean())
    sound.setflags(write=False)
    return sound


def speech(seconds, rate=SAMPLE_RATE):
    """(N,) samples of speech without pauses, RMS 1."""
    sound = np.resize(phrase(), int(seconds * SAMPLE_RATE) + SAMPLE_RATE)
    return Resampler(SAMPLE_RATE, rate).push(sound)[: int(seconds * rate)]
