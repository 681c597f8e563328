"""Generated life around the mouth: head motion that goes with the speech, brows on stresses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto.motion.motion import FPS
from ditto.training.motion_data import gaussian

Floats = npt.NDArray[np.float64]

YAW_DEGREES, PITCH_DEGREES, ROLL_DEGREES = 2.4, 1.7, 1.2  # standard deviation of the slow part
NOD_DEGREES = (0.8, 2.6)
SETTLED = 0.35  # how much of the slow part is left in a long pause
EMOTION_PRIOR = (0.09, 0.06, 0.07, 0.18, 0.38, 0.10, 0.07, 0.05)


def slow_noise(random: np.random.Generator, frames: int, corner_hertz: float, cut_hertz: float) -> Floats:
    """(frames,) band-limited noise of unit standard deviation."""
    n = frames + 200
    frequency = np.fft.rfftfreq(n, 1.0 / FPS)
    shape = (frequency < cut_hertz) / (1.0 + (frequency / corner_hertz) ** 2)
    x = np.fft.irfft(np.fft.rfft(random.normal(size=n)) * shape, n)
    return np.asarray(x[100 : 100 + frames] / (x.std() + 1e-9))


def pulse(frames: int, centre: float, rise: float, fall: float) -> Floats:
    """(frames,) a bump of height one, Gaussian sides of `rise` and `fall` frames."""
    t = np.arange(frames) - centre
    return np.exp(-0.5 * (t / np.where(t < 0, rise, fall)) ** 2)


def stresses(level: Floats) -> list[int]:
    """Frames where the loudness (dB, 25 Hz) peaks at least 3 dB over its neighbourhood."""
    lift = level - gaussian(level, 0.6 * FPS)
    return [i for i in range(2, len(lift) - 2) if lift[i] > 3.0 and lift[i] == lift[i - 2 : i + 3].max()]


def head_and_brows(random: np.random.Generator, level: Floats, silent: Floats) -> tuple[Floats, Floats]:
    """Head pose and brow raises for an utterance.

    Args:
        level: (T,) dB.
        silent: (T,) probability of silence.

    Returns:
        (T, 7) scale - 1, pitch, yaw, roll in degrees, translation in fu; and (T,) brow raise, 1 is strong.
    """
    n = len(level)
    speaking = gaussian(1.0 - silent, 12.0)
    calm = SETTLED + (1.0 - SETTLED) * np.clip(1.6 * speaking, 0.0, 1.0)
    pitch = calm * slow_noise(random, n, 0.25, 1.1) * PITCH_DEGREES
    yaw = calm * slow_noise(random, n, 0.2, 0.9) * YAW_DEGREES
    roll = calm * slow_noise(random, n, 0.2, 0.9) * ROLL_DEGREES
    brow = np.zeros(n)
    for peak in stresses(level):
        nod, lift, turn = random.random(3)
        if nod < 0.55:
            way = 1.0 if random.random() < 0.85 else -1.0
            pitch += way * random.uniform(*NOD_DEGREES) * pulse(n, peak + 1, 3.0, 5.0)
        if lift < 0.25:
            brow += random.uniform(0.12, 0.45) * pulse(n, peak, 3.0, 8.0)
        if turn < 0.25:
            yaw += random.uniform(-2.0, 2.0) * pulse(n, peak, 4.0, 8.0)
    x = slow_noise(random, n, 0.15, 0.8) * 0.005 + 0.45 * np.radians(roll) * 0.5 + yaw * 0.0006
    y = slow_noise(random, n, 0.15, 0.8) * 0.005 - pitch * 0.0006
    size = slow_noise(random, n, 0.1, 0.5) * 0.004
    return np.stack([size, pitch, yaw, roll, x, y, np.zeros(n)], -1), brow
