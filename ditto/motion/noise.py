"""The noise of generated motion: one generator for each window of a stream."""

from __future__ import annotations

import numpy as np


def window_noise(seed: int, window: int) -> np.random.Generator:
    """The generator of all noise of one window of a stream."""
    key = np.array([seed & 0xFFFFFFFFFFFFFFFF, 0x0D17], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, window], np.uint64)))
