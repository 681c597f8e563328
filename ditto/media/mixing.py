"""Mixes channels to mono: their mean, without channels that cancel each other or have been silent so far."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

WINDOWS_PER_SECOND = 50  # decisions a second; new weights are faded in over one window
WINDOWS_BEFORE, WINDOWS_AFTER = 5, 10  # that a decision takes into account: 0.1 s before its window, 0.2 s after it
# Energy of the mean, divided by what it would be for uncorrelated channels. Of two channels: 1 if they are uncorrelated, 2 if
# they are equal, 0 if they are opposite. Measured: speech at two microphones 0.25 to 10 ms apart stays over 0.19
# (examples/speech.flac, any 0.3 s); an inverted channel at 0.6 of the level is at 0.12, one of equal level with noise 10 dB
# under it at 0.09.
CANCELLED, RESTORED = 0.18, 1.2
AUDIBLE = 1e-4  # -40 dB of the loudest channel: a channel that was never louder counts as silent

Array = npt.NDArray[np.float32]


class Mixer:
    """Mixes samples (C, n) to mono (n,). Any chunking gives the same result.

    The mix is the mean of the channels, with two exceptions:

    * A channel counts from its first sound on, so a recording on one side of stereo keeps its level.
    * While channels cancel each other in the mean (one of two is inverted), those opposed to the loudest are inverted.

    Args:
        rate: samples a second.
        channels: C.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self._window = max(1, rate // WINDOWS_PER_SECOND)
        self._waiting: deque[npt.NDArray[Any]] = deque()  # whole windows (C, window), not mixed yet
        self._rest: npt.NDArray[Any] | None = None  # samples after them
        self._products: deque[npt.NDArray[np.float64]] = deque(maxlen=WINDOWS_BEFORE + 1 + WINDOWS_AFTER)
        self._heard = np.zeros(channels, bool)
        self._signs = np.ones(channels)
        self._weights: npt.NDArray[np.float64] | None = None  # of the window before

    def push(self, samples: npt.NDArray[Any]) -> Array:
        """Take samples (C, n); the mono samples that became final."""
        if len(self._heard) == 1:
            return np.asarray(samples[0], np.float32)
        if self._rest is not None:
            samples = np.concatenate([self._rest, samples], axis=1)
        whole = samples.shape[1] // self._window * self._window
        self._rest = samples[:, whole:]
        mixed: list[Array] = []
        for start in range(0, whole, self._window):
            window = samples[:, start : start + self._window]
            self._waiting.append(window)
            self._products.append(_products(window))
            if len(self._waiting) > WINDOWS_AFTER:
                mixed.append(self._mix(self._waiting.popleft()))
        return np.concatenate(mixed) if mixed else np.zeros(0, np.float32)

    def flush(self) -> Array:
        """The remaining samples. The mixer cannot be used afterwards."""
        if self._rest is not None and self._rest.shape[1]:
            self._waiting.append(self._rest)
            self._products.append(_products(self._rest))
        mixed = []
        while self._waiting:
            mixed.append(self._mix(self._waiting.popleft()))
            if len(self._products) > len(self._waiting) + WINDOWS_BEFORE:
                self._products.popleft()
        return np.concatenate(mixed) if mixed else np.zeros(0, np.float32)

    def _mix(self, window: npt.NDArray[Any]) -> Array:
        before = self._weights
        self._decide(sum(self._products, np.zeros((len(self._heard),) * 2)))
        weights = self._weights
        assert weights is not None
        if before is not None and (before != weights).any():
            fade = (np.arange(window.shape[1]) + 1.0) / self._window
            return np.asarray((before @ window) * (1.0 - fade) + (weights @ window) * fade, np.float32)
        if (self._signs > 0.0).all():
            return np.asarray(window[weights > 0.0].mean(axis=0), np.float32)
        return np.asarray(weights @ window, np.float32)

    def _decide(self, products: npt.NDArray[np.float64]) -> None:
        """Choose the weights by the products (C, C) of the channels, summed over the windows around this one."""
        energies = np.diag(products)
        if energies.max() > 0.0:
            self._heard |= energies >= AUDIBLE * energies.max()
        heard = self._heard if self._heard.any() else np.ones_like(self._heard)
        count = int(heard.sum())
        unrelated = energies[heard].mean() / count

        def energy(signs: npt.NDArray[np.float64]) -> float:
            weights = signs * heard / count
            return float(weights @ products @ weights)

        plain = np.ones_like(self._signs)
        if energy(plain) > RESTORED * unrelated or count == 1:
            self._signs = plain
        elif energy(self._signs) < CANCELLED * unrelated:
            signs = np.where(products[int(np.argmax(energies * heard))] < 0.0, -1.0, 1.0)
            self._signs = signs * signs[int(np.argmax(heard))]  # the first channel with sound keeps its sign
        self._weights = self._signs * heard / count


def _products(window: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    samples = window.astype(np.float64, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        return samples @ samples.T
