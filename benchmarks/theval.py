"""The four measures of THEval that take no network but a face mesh, from landmarks and sound.

Source: THEval (arXiv:2511.04520), as its code computes them (Newbyl/THEval at 3603338a: `lip_dynamics.py`,
`eyebrow_dynamics.py`, `silent_lip_stability.py`, `lip_sync.py`), written anew. Landmarks are taken as shares of the picture,
because its frames are scaled to 256 x 256 whatever their shape. Departures: one face mesh for all four (its silent lips are
looked for in every frame on its own), and clips at 25 frames a second. The code was read, not run beside this: none of its
own videos is at hand.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.measures import runs
from ditto.media.rates import FPS, SAMPLE_RATE
from ditto.media.voice import WINDOW_SAMPLES, VoiceDetector

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SIZE = 256.0  # pixels, of both sides of a frame
UPPER_LIP = [191, 80, 81, 82, 13, 312, 311, 310]
LOWER_LIP = [95, 88, 178, 87, 14, 317, 402, 318]
LIPS = sorted(
    {0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181, 185, 191}
    | {267, 269, 270, 291, 308, 310, 311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415}
)  # fmt: skip
BROWS = ([46, 52, 53, 55, 63, 65, 66, 70, 105, 107], [276, 282, 283, 285, 293, 295, 296, 300, 334, 336])
EYES = (
    [7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246],
    [249, 263, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466],
)
EYE_CORNERS = ((33, 133), (362, 263))
OUTER_CORNERS = (33, 263)
SILENCE_SECONDS = 0.3  # a silence is at least as long
LEAST_SPEECH = 0.1  # share of the frames, for lip sync
SHORTEST_SILENCE, SHORTEST_SPEECH, PADDING = 0.1, 0.25, 0.03  # seconds, of the speech that Silero VAD finds
BLOCK = SAMPLE_RATE // 20  # samples of a level: 50 ms


class Scores(NamedTuple):
    """Of one clip; NaN where it has too little silence or speech.

    Attributes:
        lip_dynamics: pixels of 256, mean over all pairs of lip landmarks of their distance's standard deviation.
        eyebrows: mean absolute change from frame to frame of the distance from brow to eye, in distances of the eyes.
        silent_lips: median absolute deviation of the lip opening from its mean in silence, in distances of the eyes.
        lip_sync: mean absolute difference of lip opening and level of the sound in speech, each scaled to 0..1. Lower is
            closer.
    """

    lip_dynamics: float
    eyebrows: float
    silent_lips: float
    lip_sync: float


def scores(landmarks: npt.ArrayLike, size: tuple[int, int], samples: npt.ArrayLike, speaking: npt.ArrayLike) -> Scores:
    """The four measures.

    Args:
        landmarks: (T, 478, 3) pixels, no NaN.
        size: width and height of the frames.
        samples: (640 T,) at 16 kHz.
        speaking: (T,) whether somebody speaks.
    """
    points = np.asarray(landmarks, np.float64)[..., :2] / np.asarray(size, np.float64)
    speech = np.asarray(speaking, bool)
    return Scores(
        lip_dynamics(SIZE * points),
        eyebrows(SIZE * points),
        silent_lips(points, speech),
        lip_sync(points, samples, speech),
    )


def lip_dynamics(points: Floats) -> float:
    """Landmarks (T, 478, 2)."""
    lips = points[:, LIPS]
    i, j = np.triu_indices(len(LIPS), 1)
    return float(np.linalg.norm(lips[:, i] - lips[:, j], axis=-1).std(0).mean())


def eyebrows(points: Floats) -> float:
    """Landmarks (T, 478, 2)."""
    eyes = np.stack([points[:, eye].mean(1) for eye in EYES])
    brows = np.stack([points[:, brow].mean(1) for brow in BROWS])
    between = np.linalg.norm(eyes[1] - eyes[0], axis=-1)
    return float(np.abs(np.diff(np.linalg.norm(brows - eyes, axis=-1) / between, axis=1)).mean())


def silences(speaking: npt.ArrayLike) -> Bools:
    """(T,) true in frames without speech that are part of a silence of `SILENCE_SECONDS`."""
    quiet = ~np.asarray(speaking, bool)
    inside = np.zeros(len(quiet), bool)
    for run in runs(quiet):
        inside[run] = run.stop - run.start >= SILENCE_SECONDS * FPS
    return inside


def silent_lips(points: Floats, speaking: Bools) -> float:
    """Landmarks (T, 478, 2) as shares of the picture."""
    a, b = OUTER_CORNERS
    quiet = points[silences(speaking)]
    if len(quiet) < 2:
        return float("nan")
    gaps = np.abs(quiet[:, UPPER_LIP, 1] - quiet[:, LOWER_LIP, 1]).mean(1)
    opening = gaps / np.linalg.norm(quiet[:, a] - quiet[:, b], axis=-1)
    return float(np.median(np.abs(opening - opening.mean())))


def levels(samples: npt.ArrayLike, frames: int) -> Floats:
    """(T,) root mean square of the sound at the beginning of each frame: of blocks of 50 ms, centred, linear between."""
    x = np.pad(np.asarray(samples, np.float64), BLOCK // 2)
    count = 1 + (len(x) - BLOCK) // BLOCK
    rms = np.sqrt((x[: count * BLOCK].reshape(count, BLOCK) ** 2).mean(1))
    return np.asarray(np.interp(np.arange(frames) / FPS, np.arange(count) * BLOCK / SAMPLE_RATE, rms))


def lip_sync(points: Floats, samples: npt.ArrayLike, speaking: Bools) -> float:
    """Landmarks (T, 478, 2) as shares of the picture, samples (640 T,), speech (T,)."""
    if len(speaking) == 0 or speaking.mean() < LEAST_SPEECH or speaking.sum() < 2:
        return float("nan")
    right, left = (points[:, corners, 0].mean(1) for corners in EYE_CORNERS)
    gap = np.abs(points[:, UPPER_LIP, 1].mean(1) - points[:, LOWER_LIP, 1].mean(1))
    opening = (gap / np.abs(left - right))[speaking]
    level = levels(samples, len(points))[speaking]
    return float(np.abs(_to_unit(opening) - _to_unit(level)).mean())


def _to_unit(x: Floats) -> Floats:
    return np.asarray((x - x.min()) / (x.max() - x.min() + 1e-8))


def score(value: npt.ArrayLike, real: npt.ArrayLike) -> Floats:
    """1 - |value - real| / |real|: 1 is as in real video (eq. 12). NaN where the real value is 0."""
    v, r = np.asarray(value, np.float64), np.asarray(real, np.float64)
    return np.asarray(1.0 - np.abs(v - r) / np.where(r == 0.0, np.nan, np.abs(r)))


def speech(samples: npt.ArrayLike, frames: int) -> Bools:
    """(T,) whether somebody speaks, by Silero VAD.

    Source: silero-vad 6.2.3, `get_speech_timestamps` with its defaults: silences under 100 ms do not end speech, less than
    250 ms of it is none, and it is 30 ms longer at both ends. THEval counts the frame in which it ends as speech.
    """
    windows = VoiceDetector().push(np.asarray(samples, np.float32))
    parts: list[list[float]] = []
    for run in runs(np.array(windows, bool)):
        start, end = (at * WINDOW_SAMPLES / SAMPLE_RATE for at in (run.start, run.stop))
        if parts and start - parts[-1][1] < SHORTEST_SILENCE:
            parts[-1][1] = end
        else:
            parts.append([start, end])
    speaking = np.zeros(frames, bool)
    for start, end in parts:
        if end - start >= SHORTEST_SPEECH:
            speaking[max(0, int((start - PADDING) * FPS)) : int((end + PADDING) * FPS) + 1] = True
    return speaking
