"""HuBERT over sliding windows, as released: every 3200 samples, 6480 samples in, features of the middle five frames out.

B: batch, D: width of a feature.

Source: the released Ditto at e9191cf (tests/fixtures/reference, wiring_wav2feat).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.full.sizes import FRAMES_AFTER, FRAMES_BEFORE, FRAMES_KEPT, ROWS_PER_FRAME, WINDOW_SAMPLES
from ditto.media.rates import SAMPLES_PER_FRAME

Array = npt.NDArray[np.float32]
Network = Callable[[Array], Array]  # samples (B, 6480) -> rows (B, 20, D)

ROWS_KEPT = slice(ROWS_PER_FRAME * FRAMES_BEFORE, ROWS_PER_FRAME * (FRAMES_BEFORE + FRAMES_KEPT))


def window_features(network: Network, window: Array) -> Array:
    """Features (B, 5, D) of the middle frames of windows (B, 6480): the mean of each frame's two rows."""
    rows = np.asarray(network(window))[:, ROWS_KEPT]
    return (rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.5)


class WindowState(NamedTuple):
    """The state of the window encoder.

    Attributes:
        recent: (B, 6480) the last samples, zeros before the stream.
        frames: frames received.
    """

    recent: Array
    frames: int


class WindowEncoder:
    """Speech in hops of a frame -> features, five at a time.

    `features, state = encoder(samples, state)`: the call that completes a window gives (B, 5, D), the others (B, 0, 0).
    Features of frames 5 k to 5 k + 4 come with frame 5 k + 6: two frames of lookahead.

    Args:
        network: samples (B, 6480) -> rows (B, 20, D).
    """

    hop_samples = SAMPLES_PER_FRAME
    lead_features = 0  # features before the start of the stream, at the head of the first outputs
    hop_features = FRAMES_KEPT  # features of a window
    lookahead = FRAMES_AFTER  # frames

    def __init__(self, network: Network) -> None:
        self.network = network

    def initial_state(self, batch: int = 1) -> WindowState:
        """The state before the first sample."""
        return WindowState(np.zeros((batch, WINDOW_SAMPLES), np.float32), 0)

    def __call__(self, samples: npt.ArrayLike, state: WindowState) -> tuple[Array, WindowState]:
        """Features that one more frame of samples (B, 640) completes.

        Raises:
            ValueError: samples are not exactly one frame a row.
        """
        hop = np.asarray(samples, np.float32)
        if hop.shape != (len(state.recent), SAMPLES_PER_FRAME):
            raise ValueError(
                f"expected samples ({len(state.recent)}, {SAMPLES_PER_FRAME}), got {hop.shape}; "
                "let Stream buffer, or pad with zeros"
            )
        state = WindowState(np.concatenate([state.recent[:, SAMPLES_PER_FRAME:], hop], 1), state.frames + 1)
        complete = state.frames - FRAMES_AFTER
        if complete <= 0 or complete % FRAMES_KEPT:
            return np.zeros((len(hop), 0, 0), np.float32), state
        return window_features(self.network, state.recent), state

    def step_batch(
        self, hops: Sequence[npt.ArrayLike], states: Sequence[WindowState]
    ) -> list[tuple[Array, WindowState]]:
        """A frame (640,) of each of several streams -> features (n, D) and next state of each, as from a call for it alone."""
        answers = [self(np.asarray(hop)[None], state) for hop, state in zip(hops, states, strict=True)]
        return [(features[0], state) for features, state in answers]
