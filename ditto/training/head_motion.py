"""Generated life around the mouth: head motion that goes with the speech, brows on stresses, emotions as offsets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto.motion import KEYPOINTS, TEMPLATE_APERTURE
from ditto.stream import EMOTIONS
from ditto.training.motion_data import FPS, gaussian

Floats = npt.NDArray[np.float64]

YAW_DEGREES, PITCH_DEGREES, ROLL_DEGREES = 2.4, 1.7, 1.2  # standard deviation of the slow part
NOD_DEGREES = (0.8, 2.6)
SETTLED = 0.35  # how much of the slow part is left in a long pause
SMILE, BROW, FROWN = 0.035, 0.028, 0.012  # fu of travel at one
EMOTION_PRIOR = (0.09, 0.06, 0.07, 0.18, 0.38, 0.10, 0.07, 0.05)
# smile (negative: corners down), brow raise (negative: lower), inner-brow frown, lid opening, gap, upper-lip raise
_EMOTIONS = {
    "angry": (-0.15, -0.45, 0.90, 0.08, 0.00, 0.10),
    "disgust": (-0.25, -0.25, 0.55, -0.10, 0.00, 0.55),
    "fear": (-0.10, 0.60, 0.35, 0.16, 0.03, 0.00),
    "happy": (0.85, 0.15, 0.00, -0.14, 0.00, 0.10),
    "neutral": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "sad": (-0.50, 0.10, 0.30, -0.14, 0.00, 0.00),
    "surprise": (0.00, 0.95, 0.00, 0.18, 0.05, 0.00),
    "contempt": (0.30, -0.05, 0.10, -0.08, 0.00, 0.10),
}
_INNER_BROWS_UP = {"sad": 0.25, "fear": 0.2}  # glabella lift, the oblique brow of grief


def emotion_offset(weights: npt.ArrayLike) -> Floats:
    """(..., 8) emotion weights -> (..., 21, 3) keypoint changes, head frame, face units; neutral is nothing."""
    w = np.asarray(weights, np.float64)
    smile, brow, frown, lids, gap, upper = np.moveaxis(w @ np.array([_EMOTIONS[e] for e in EMOTIONS]), -1, 0)
    inner = w @ np.array([_INNER_BROWS_UP.get(e, 0.0) for e in EMOTIONS])
    d = np.zeros((*w.shape[:-1], KEYPOINTS, 3))
    for corner, side in ((6, -1.0), (12, 1.0)):
        d[..., corner, 0] = side * 0.35 * SMILE * np.maximum(smile, 0.3 * smile)
        d[..., corner, 1] = -0.60 * SMILE * smile
    d[..., 6, 1] -= 0.45 * SMILE * w[..., EMOTIONS.index("contempt")]  # one-sided
    for cheek in (3, 7):
        d[..., cheek, 1] = -0.25 * SMILE * np.maximum(smile, 0.0)
    for side, k in ((1.0, 1), (-1.0, 2)):
        d[..., k, 0] = side * FROWN * frown
        d[..., k, 1] = -BROW * brow + 0.3 * FROWN * frown
    d[..., 10, 1] = -0.3 * BROW * brow - BROW * inner
    for lid in (13, 16):
        d[..., lid, 1] = -TEMPLATE_APERTURE * lids
    d[..., 17, 1] = 0.1 * gap
    d[..., 19, 1] = 0.05 * gap
    for lip in (14, 20):
        d[..., lip, 1] = -0.012 * upper
    return d


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
