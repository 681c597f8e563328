"""Smoothing of what varies in time, 25 frames a second."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto.media.rates import FPS

Floats = npt.NDArray[np.float64]


def gaussian(values: npt.ArrayLike, sigma: float) -> Floats:
    """(T, ...) smoothed along time by a Gaussian of `sigma` frames, ends repeated."""
    x = np.asarray(values, np.float64)
    reach = max(1, int(np.ceil(3.0 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(x, [(reach, reach)] + [(0, 0)] * (x.ndim - 1), mode="edge")
    shifted = np.stack([padded[i : i + len(x)] for i in range(len(kernel))])
    return np.asarray(np.tensordot(kernel / kernel.sum(), shifted, 1))


def low_pass(values: npt.ArrayLike, hertz: float) -> Floats:
    """Gaussian low-pass with its -3 dB point at `hertz`, for 25 frames a second."""
    return gaussian(values, FPS * np.sqrt(np.log(2.0)) / (2.0 * np.pi * hertz))
