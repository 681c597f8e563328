"""Lips of natural talk: measured kernels from phone probabilities to the opening and the width of the mouth.

`natural_talk_kernels.json` holds a linear kernel per phone over five frames, a ridge regression on 107 s of fluent talk by
nine people. Its result is in standard deviations of a speaker (z); `GAP` and `WIDTH` say how large these are.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.lite.phones import PHONES
from ditto.motion.motion import INNER_LIPS, KEYPOINTS, MOUTH_CORNERS
from ditto.training.articulation import MOUTH_KEYPOINTS, mirror

Floats = npt.NDArray[np.float64]

KERNELS_FILE = Path(__file__).with_name("natural_talk_kernels.json")
UPPER, LOWER = INNER_LIPS
RIGHT, LEFT = MOUTH_CORNERS


class Spread(NamedTuple):
    """Mean and standard deviation within a clip, fu."""

    mean: float
    deviation: float


# Of the gap between the inner lips and the change of the mouth's width, in the motion of tracked clips. The nine cuts of a
# public address have .050 and .026 of gap and .045 of width within a cut; eight people in fluent talk have 1.15 times their
# mean and 1.57 times their spread of opening (../shared/voice/natural_talk.json). Between the two.
GAP = Spread(0.060, 0.031)
WIDTH = Spread(-0.015, 0.040)
# A ridge regression explains part of the lips' variance (r .65 on people it was not fitted to), and its spread is smaller by
# as much: .55 z on the cuts. This brings the spread back to that of talk.
KERNEL_GAIN = 1.6


class Kernels(NamedTuple):
    """`opening`, `width`: (lags, 40) z per phone probability above `mean` (40,), from `lags[0]` frames before on."""

    lags: tuple[int, ...]
    mean: Floats
    opening: Floats
    width: Floats


@lru_cache
def kernels() -> Kernels:
    """The kernels that were measured.

    Raises:
        ValueError: the file lists other phones than the encoder.
    """
    read = json.loads(KERNELS_FILE.read_text(encoding="utf-8"))
    if tuple(read["phones"]) != tuple(PHONES):
        raise ValueError(f"expected the phones {PHONES} in {KERNELS_FILE.name}, got {read['phones']}")
    return Kernels(
        tuple(read["lags_frames"]), *(np.array(read[name]) for name in ("mean_posterior", "opening", "width"))
    )


class Curves(NamedTuple):
    """(T,) gap between the inner lips and change of the mouth's width, fu."""

    gap: Floats
    width: Floats


def lip_curves(phones: npt.ArrayLike, spread: float = 1.0) -> Curves:
    """Opening and width that natural talk has with these phones.

    Args:
        phones: (T, 40) phone probabilities at 25 Hz (mean of a frame's two tokens).
        spread: of this speaker's lips against the usual.
    """
    opening, width = lip_scores(phones)
    gain = KERNEL_GAIN * spread
    return Curves(
        np.maximum(GAP.mean + gain * GAP.deviation * opening, 0.0), WIDTH.mean + gain * WIDTH.deviation * width
    )


def lip_scores(phones: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Opening and width (T,) each that the kernels give for phones (T, 40), in standard deviations of a speaker."""
    k = kernels()
    p = np.asarray(phones, np.float64) - k.mean
    n, reach = len(p), -k.lags[0]
    padded = np.pad(p, ((reach, k.lags[-1]), (0, 0)), mode="edge")
    opening, width = (
        np.asarray(sum(padded[reach + lag : reach + lag + n] @ rows for lag, rows in zip(k.lags, kernel, strict=True)))
        for kernel in (k.opening, k.width)
    )
    return opening, width


def measure_lips(faces: npt.ArrayLike) -> Curves:
    """Gap and change of width of keypoint changes (T, 21, 3)."""
    f = np.asarray(faces, np.float64)
    return Curves(f[:, LOWER, 1] - f[:, UPPER, 1], f[:, LEFT, 0] - f[:, RIGHT, 0])


class MouthShape(NamedTuple):
    """How the keypoints of the mouth follow its opening and its width: (21, 3) fu per fu of each."""

    gap: Floats
    width: Floats


def fit_shape(faces: npt.ArrayLike) -> MouthShape:
    """Least squares on real keypoint changes (T, 21, 3), head frame: one fu of gap parts the inner lips by one fu."""
    f = np.asarray(faces, np.float64)
    curves = measure_lips(f)
    x = np.stack([curves.gap, curves.width, np.ones(len(f))], 1)
    slopes = np.linalg.lstsq(x, f.reshape(len(f), -1), rcond=None)[0][:2].reshape(2, KEYPOINTS, 3)
    for slope in slopes:
        slope[[k for k in range(KEYPOINTS) if k not in MOUTH_KEYPOINTS]] = 0.0
    return MouthShape(*(0.5 * (slopes + mirror(slopes))))


def follow(faces: npt.ArrayLike, curves: Curves, shape: MouthShape) -> Floats:
    """(T, 21, 3) keypoint changes brought to the gap and the width of `curves`; other keypoints of the mouth go along."""
    f = np.array(faces, np.float64)
    now = measure_lips(f)
    f += (curves.gap - now.gap)[:, None, None] * shape.gap + (curves.width - now.width)[:, None, None] * shape.width
    return f
