"""Lips of natural talk: measured kernels from phone probabilities to the opening and the width of the mouth.

`natural_talk_kernels.json` holds a linear kernel per phone over five frames, a ridge regression on 107 s of fluent talk by
nine people. Its result is in standard deviations of a speaker (z); `GAP` and `WIDTH` say how large these are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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
RIDGE, FITTED_FRAMES = 10.0, 2675  # of that regression: lambda, and how much talk it was fitted on


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
        raise ValueError(f"expected the phones {PHONES} in {KERNELS_FILE.name}, got {read['phones']}; measure them again")
    return Kernels(
        tuple(read["lags_frames"]), *(np.array(read[name]) for name in ("mean_posterior", "opening", "width"))
    )


class Talk(NamedTuple):
    """Tracked talk: phones (T, 40) at 25 Hz; opening and width (T,) in standard deviations of the clip."""

    phones: Floats
    opening: Floats
    width: Floats

    @classmethod
    def of(cls, phones: npt.ArrayLike, faces: npt.ArrayLike) -> Talk:
        """Of phones (T, 40) and keypoint changes (T, 21, 3) of tracked frames; the shorter says how long it is."""
        p, lips = np.asarray(phones, np.float64), measure_lips(faces)
        n = min(len(p), len(lips.gap))
        return cls(p[:n], *((curve[:n] - curve[:n].mean()) / curve[:n].std() for curve in lips))


def kernels_without(held: Sequence[Talk], others: Sequence[Talk], known: Kernels | None = None) -> Kernels:
    """The kernels as the ridge regression gives them without clips that it was fitted on, to score these clips fairly.

    With design X and lips y of the clips that go, and second moment M of those that stay, the weights W become
    W - (M + lambda I)^-1 X'(y - X W). This is exact. Of `known`, most of the talk is not at hand: M is that of `others`,
    scaled to all that stay.

    Args:
        held: clips that go.
        others: clips that stay.
        known: kernels fitted with lambda `RIDGE` on `FITTED_FRAMES` of talk, `held` among them; the measured ones by default.
    """
    k = kernels() if known is None else known
    x, rest = (np.concatenate([_design(k, clip.phones) for clip in clips]) for clips in (held, others))
    moment = rest.T @ rest * ((FITTED_FRAMES - len(x)) / len(rest)) + RIDGE * np.eye(x.shape[1])

    def less(weights: Floats, lips: Sequence[Floats]) -> Floats:
        missed = np.concatenate(lips) - x @ weights.ravel()
        return np.asarray(weights - np.linalg.solve(moment, x.T @ missed).reshape(weights.shape))

    return k._replace(
        opening=less(k.opening, [clip.opening for clip in held]), width=less(k.width, [clip.width for clip in held])
    )


def _design(k: Kernels, phones: npt.ArrayLike) -> Floats:
    """(T, lags x 40): the phones that each frame of phones (T, 40) is a linear function of."""
    p = np.asarray(phones, np.float64) - k.mean
    n, reach = len(p), -k.lags[0]
    padded = np.pad(p, ((reach, k.lags[-1]), (0, 0)), mode="edge")
    return np.concatenate([padded[reach + lag : reach + lag + n] for lag in k.lags], 1)


class Curves(NamedTuple):
    """(T,) gap between the inner lips and change of the mouth's width, fu."""

    gap: Floats
    width: Floats


def lip_curves(phones: npt.ArrayLike, spread: float = 1.0, known: Kernels | None = None) -> Curves:
    """Opening and width that natural talk has with these phones.

    Args:
        phones: (T, 40) phone probabilities at 25 Hz (mean of a frame's two tokens).
        spread: of this speaker's lips against the usual.
        known: kernels; the measured ones by default.
    """
    opening, width = lip_scores(phones, known)
    gain = KERNEL_GAIN * spread
    return Curves(
        np.maximum(GAP.mean + gain * GAP.deviation * opening, 0.0), WIDTH.mean + gain * WIDTH.deviation * width
    )


def lip_scores(phones: npt.ArrayLike, known: Kernels | None = None) -> tuple[Floats, Floats]:
    """Opening and width (T,) each that the kernels give for phones (T, 40), in standard deviations of a speaker."""
    k = kernels() if known is None else known
    x = _design(k, phones)
    return np.asarray(x @ k.opening.ravel()), np.asarray(x @ k.width.ravel())


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
