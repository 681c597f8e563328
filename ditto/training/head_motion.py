"""Generated motion of head and brows that goes with speech: postures, sway, nods and raised brows on stresses, smiles.

Amplitudes follow ../shared/voice/natural_talk.json: the mean of its three sources of natural talk for each axis and band.
`python -m ditto.training.head_motion` prints the spectrum of the generator beside them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.motion.motion import FPS
from ditto.training.smoothing import gaussian

Floats = npt.NDArray[np.float64]

BANDS = ((0.15, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0))  # Hz
# RMS in degrees of pitch, yaw, roll in each band: means of three sources of natural talk.
NATURAL_RMS: Floats = np.array(
    [[2.31, 1.97, 1.63], [1.85, 1.34, 1.13], [0.78, 0.72, 0.45], [0.44, 0.39, 0.25], [0.20, 0.12, 0.09]]
)
# RMS that the noise of each band gets: what `NATURAL_RMS` leaves beside postures and nods, set with `main`.
NOISE_RMS: Floats = np.array(
    [[1.8, 1.2, 1.0], [1.9, 1.3, 1.1], [0.75, 0.75, 0.46], [0.48, 0.42, 0.28], [0.2, 0.11, 0.08]]
)
POSTURE_DEGREES = (3.0, 3.2, 2.5)  # standard deviation of the postures' pitch, yaw, roll
POSTURE_SECONDS = (1.2, 2.0)  # from one posture to the next: at least, and the mean of the exponential part on top
MOVE_SECONDS = (0.45, 0.95)  # the way to a new posture
IN_PAUSES = 0.65  # share of sway left in pauses: heads of talkers move 1.45 times as fast while they speak
NOD_DEGREES = (0.8, 2.6)
NOD_SHARE, TURN_SHARE, BROW_SHARE = 0.55, 0.25, 0.30  # of stresses that come with a nod, a turn, raised brows
# Brow raises begin some 60 ms before the accent (Flecha-Garcia 2010, Speech Communication 52).
BROW_LEAD = 1.5  # frames
PHRASE_BROW_SHARE = 0.5  # of phrases that begin with brows raised for longer
EMOTION_PRIOR = (0.09, 0.06, 0.07, 0.18, 0.38, 0.10, 0.07, 0.05)


class HeadMotion(NamedTuple):
    """Of T frames: pose (T, 7) scale - 1, pitch, yaw, roll in degrees, translation in fu; `brow` (T,) raise, 1 is strong
    (negative: lowered); `smile` (T,) share of a smile; `press` (T,) share of pressed lips."""

    pose: Floats
    brow: Floats
    smile: Floats
    press: Floats


def band_noise(random: np.random.Generator, frames: int, low: float, high: float) -> Floats:
    """(frames,) Gaussian noise between `low` and `high` Hz, of unit standard deviation."""
    n = frames + 400
    frequency = np.fft.rfftfreq(n, 1.0 / FPS)
    inside = (frequency >= low) & (frequency < high)
    x = np.fft.irfft(np.fft.rfft(random.normal(size=n)) * inside, n)
    return np.asarray(x[200 : 200 + frames] / np.sqrt(2.0 * inside.sum() / n))


def pulse(frames: int, centre: float, rise: float, fall: float) -> Floats:
    """(frames,) a bump of height one, Gaussian sides of `rise` and `fall` frames."""
    t = np.arange(frames) - centre
    return np.exp(-0.5 * (t / np.where(t < 0, rise, fall)) ** 2)


def ease(frames: int, start: float, duration: float) -> Floats:
    """(frames,) from 0 to 1 along a minimum-jerk path."""
    u = np.clip((np.arange(frames) - start) / duration, 0.0, 1.0)
    return np.asarray(u * u * u * (10.0 - 15.0 * u + 6.0 * u * u))


def stresses(level: Floats) -> list[int]:
    """Frames where the loudness (dB, 25 Hz) peaks at least 3 dB over its neighbourhood."""
    lift = level - gaussian(level, 0.6 * FPS)
    return [i for i in range(2, len(lift) - 2) if lift[i] > 3.0 and lift[i] == lift[i - 2 : i + 3].max()]


def phrases(silent: Floats, shortest: int = 4) -> list[tuple[int, int]]:
    """First frame and end of each stretch of speech between pauses of at least `shortest` frames."""
    found: list[tuple[int, int]] = []
    for i in np.flatnonzero(np.asarray(silent) < 0.5).tolist():
        if found and i - found[-1][1] < shortest:
            found[-1] = (found[-1][0], i + 1)
        else:
            found.append((i, i + 1))
    return found


def _postures(random: np.random.Generator, frames: int, starts: list[int]) -> Floats:
    """(frames, 3) degrees: the head takes another posture now and then, and at most beginnings of phrases."""
    out = np.tile(random.normal(size=3) * POSTURE_DEGREES, (frames, 1))
    here = out[0].copy()
    at, first = 0.0, set(starts)
    next_free = FPS * (POSTURE_SECONDS[0] + random.exponential(POSTURE_SECONDS[1]))
    for i in range(frames):
        if (i >= next_free) or (i in first and i - at > FPS * 0.6 and random.random() < 0.7):
            there = random.normal(size=3) * POSTURE_DEGREES
            out += ease(frames, i - 4, FPS * random.uniform(*MOVE_SECONDS))[:, None] * (there - here)
            here, at = there, float(i)
            next_free = i + FPS * (POSTURE_SECONDS[0] + random.exponential(POSTURE_SECONDS[1]))
    return out


def head_and_brows(random: np.random.Generator, level: Floats, silent: Floats) -> HeadMotion:
    """Head pose, brow raises, smiles and pressed lips for an utterance.

    Args:
        level: (T,) dB.
        silent: (T,) probability of silence.
    """
    n = len(level)
    said = phrases(silent)
    speaking = np.clip(1.6 * gaussian(1.0 - np.asarray(silent), 8.0), 0.0, 1.0)
    calm = IN_PAUSES + (1.0 - IN_PAUSES) * speaking
    angles = _postures(random, n, [first for first, _ in said])
    for rms, (low, high) in zip(NOISE_RMS, BANDS, strict=True):
        angles += calm[:, None] * np.stack([r * band_noise(random, n, low, high) for r in rms], 1)
    brow = 0.15 * band_noise(random, n, 0.05, 0.4)
    for peak in stresses(level):
        nod, turn, lift = random.random(3)
        if nod < NOD_SHARE:
            way = 1.0 if random.random() < 0.85 else -1.0
            angles[:, 0] += way * random.uniform(*NOD_DEGREES) * pulse(n, peak + 1, 2.5, 4.5)
        if turn < TURN_SHARE:
            angles[:, 1] += random.uniform(-2.4, 2.4) * pulse(n, peak, 3.0, 6.0)
            angles[:, 2] += random.uniform(-1.4, 1.4) * pulse(n, peak, 3.0, 6.0)
        if lift < BROW_SHARE:
            brow += random.uniform(0.3, 1.1) * pulse(n, peak - BROW_LEAD + 2.5, 2.5, 7.0)
    smile, press = np.zeros(n), np.zeros(n)
    for first, end in said:
        if random.random() < PHRASE_BROW_SHARE:
            held = random.uniform(0.4, 1.2) * FPS
            height = random.uniform(0.4, 1.4)
            brow += height * (ease(n, first - 4, 6.0) - ease(n, first - 4 + held, random.uniform(8.0, 16.0)))
        elif random.random() < 0.25:
            brow -= random.uniform(0.15, 0.4) * pulse(n, (first + end) / 2, 10.0, 14.0)
        if random.random() < 0.35:
            smile += random.uniform(0.15, 0.5) * pulse(n, random.uniform(first, end), 12.0, 18.0)
        if random.random() < 0.3:  # lips press before a phrase
            press += random.uniform(0.5, 1.0) * pulse(n, first - random.uniform(6.0, 9.0), 2.0, 2.5)
    press *= np.asarray(silent) > 0.5
    pitch, yaw, roll = angles.T
    x = band_noise(random, n, 0.05, 0.5) * 0.006 + 0.22 * np.radians(roll) + 0.0006 * yaw
    y = band_noise(random, n, 0.05, 0.5) * 0.006 - 0.0006 * pitch
    size = band_noise(random, n, 0.03, 0.3) * 0.005
    return HeadMotion(
        np.stack([size, pitch, yaw, roll, x, y, np.zeros(n)], -1),
        np.clip(brow, -0.6, 1.7),
        np.clip(smile, 0.0, 0.6),
        gaussian(np.clip(press, 0.0, 1.0), 0.8),
    )


def band_rms(angles: npt.ArrayLike) -> Floats:
    """(5, 3) RMS of (T, 3) in each band, from the discrete Fourier transform of the whole."""
    x = np.asarray(angles, np.float64)
    x = x - x.mean(0)
    power = np.abs(np.fft.rfft(x, axis=0)) ** 2 * 2.0 / len(x) ** 2
    frequency = np.fft.rfftfreq(len(x), 1.0 / FPS)
    return np.sqrt([power[(frequency >= low) & (frequency < high)].sum(0) for low, high in BANDS])
