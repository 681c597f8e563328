"""HuBERT over sliding windows, as released: 6480 samples in, the middle five video frames out, every 3200 samples.

B: batch, D: width of a feature.

Source: the released Ditto at e9191cf (tests/fixtures/reference, wiring_wav2feat).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.media.rates import SAMPLES_PER_FRAME

Array = npt.NDArray[np.float32]
Network = Callable[[Array], Array]  # samples (B, 6480) -> rows (B, 20, D)

SETTLED, FRESH, AHEAD = 3, 5, 2  # frames of a window: known before, given out, looked ahead
REACH = 80  # samples of the first convolution beyond a row's own
WINDOW_SAMPLES = (SETTLED + FRESH + AHEAD) * SAMPLES_PER_FRAME + REACH  # 6480
HOP_SAMPLES = FRESH * SAMPLES_PER_FRAME  # 3200
LEAD_SAMPLES = SETTLED * SAMPLES_PER_FRAME + REACH  # 2000 before the first frame given out
ROWS = slice(2 * SETTLED, 2 * (SETTLED + FRESH))  # of 20: two a frame


def window_features(network: Network, window: Array) -> Array:
    """Features (B, 5, D) of the middle frames of windows (B, 6480): the mean of each frame's two rows."""
    rows = np.asarray(network(window))[:, ROWS]
    return (rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.5)


def speech_features(network: Network, samples: npt.ArrayLike, lead: int = LEAD_SAMPLES) -> Array:
    """Features (ceil(N / 640), D) of a whole recording (N,) at 16 kHz.

    `lead` zeros go before it. With 2000 the feature of frame k sees its own 640 samples and 80 before them; the released
    online driver puts 1920 there, so that its features lie 5 ms later.
    """
    x = np.asarray(samples, np.float32)
    frames = -(-len(x) // SAMPLES_PER_FRAME)
    padded = np.concatenate([np.zeros(lead, np.float32), x, np.zeros(WINDOW_SAMPLES, np.float32)])
    starts = range(0, frames * SAMPLES_PER_FRAME, HOP_SAMPLES)
    found = [window_features(network, padded[None, start : start + WINDOW_SAMPLES])[0] for start in starts]
    return np.concatenate(found)[:frames]


class WindowState(NamedTuple):
    """What the window encoder remembers.

    Attributes:
        recent: (B, 6480) the last samples heard, zeros before the stream.
        frames: frames heard.
    """

    recent: Array
    frames: int


class WindowEncoder:
    """Speech in hops of a frame -> features, five at a time.

    `features, state = encoder(samples, state)`: the call that completes a window gives (B, 5, D), the others none (B, 0, 0).
    Features of frames 5 k to 5 k + 4 come with frame 5 k + 6: two frames of look-ahead.

    Args:
        network: samples (B, 6480) -> rows (B, 20, D).
    """

    hop_samples = SAMPLES_PER_FRAME
    lead_features = 0  # rows of the first answers that lie before the stream
    hop_features = FRESH  # that come together
    look_ahead = AHEAD  # frames

    def __init__(self, network: Network) -> None:
        self.network = network

    def initial_state(self, batch: int = 1) -> WindowState:
        """Nothing heard."""
        return WindowState(np.zeros((batch, WINDOW_SAMPLES), np.float32), 0)

    def __call__(self, samples: npt.ArrayLike, state: WindowState) -> tuple[Array, WindowState]:
        """Features that became known with one more frame of samples (B, 640).

        Raises:
            ValueError: samples are not one frame a row.
        """
        hop = np.asarray(samples, np.float32)
        if hop.shape != (len(state.recent), SAMPLES_PER_FRAME):
            raise ValueError(
                f"the encoder takes ({len(state.recent)}, {SAMPLES_PER_FRAME}) samples, got {hop.shape}; "
                "let Stream buffer, or pad with zeros"
            )
        state = WindowState(np.concatenate([state.recent[:, SAMPLES_PER_FRAME:], hop], 1), state.frames + 1)
        fresh = state.frames - AHEAD
        if fresh <= 0 or fresh % FRESH:
            return np.zeros((len(hop), 0, 0), np.float32), state
        return window_features(self.network, state.recent), state

    def step_batch(self, hops: Sequence[npt.ArrayLike], states: Sequence[WindowState]) -> list[tuple[Array, WindowState]]:
        """A frame (640,) of each of several streams; each gets what a call of its own gives: features (n, D), state."""
        answers = [self(np.asarray(hop)[None], state) for hop, state in zip(hops, states, strict=True)]
        return [(features[0], state) for features, state in answers]
