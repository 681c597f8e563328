"""Emotions: their names, weights, and what they do to a face."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto.motion.motion import KEYPOINTS, TEMPLATE_APERTURE, UPPER_LIDS, Keypoint

Floats = npt.NDArray[np.float64]

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise", "contempt")
SMILE = 0.035  # fu a mouth corner travels in a usual smile: tuned by eye on three faces (../shared/renderer/end_to_end.md)


def shown_offset(weights: npt.ArrayLike, talk: float = 0.0) -> Floats:
    """(..., 8) emotion weights -> (..., 21, 3) keypoint changes, head frame, face units; neutral is nothing.

    Linear in the weights, so what several emotions show together lies between what each shows. The table is
    `ditto/motion/emotions.json`; `ditto.training.emotion_table` made it.

    Args:
        talk: 0 for a silent face, 1 for one that talks, whose lips are free.
    """
    silent, talking = _tables()
    shown: Floats = np.asarray(weights, np.float64) @ ((1.0 - talk) * silent + talk * talking)
    return shown.reshape(*shown.shape[:-1], KEYPOINTS, 3)


def add_emotion(points: npt.ArrayLike, weights: npt.ArrayLike, talk: float = 0.0) -> Floats:
    """Keypoint changes (..., 21, 3), head frame, face units, that show emotions (..., 8) on top; `talk` as of `shown_offset`.

    Lids that are closing close as far as without: what an emotion changes of them fades as they shut.
    """
    shown = shown_offset(weights, talk)
    points = np.asarray(points, np.float64)
    lids = [*UPPER_LIDS, Keypoint.LOWER_LIDS]
    closed = np.clip(points[..., list(UPPER_LIDS), 1] / TEMPLATE_APERTURE, 0.0, 1.0)
    opening = 1.0 - np.concatenate([closed, closed.max(-1, keepdims=True)], -1)
    shown = np.broadcast_to(shown, np.broadcast_shapes(shown.shape, points.shape)).copy()
    shown[..., lids, :] *= opening[..., None]
    return points + shown


@cache
def _tables() -> tuple[Floats, Floats]:
    """(8, 63) of the emotions at weight 1, on a silent face and on one that talks."""
    stored = json.loads(Path(__file__).with_name("emotions.json").read_text("utf-8"))
    tables = np.zeros((2, len(EMOTIONS), KEYPOINTS, 3))
    for table, shapes in zip(tables, (stored["silent"], stored["silent"] | stored["talking"]), strict=True):
        for name, keypoints in shapes.items():
            for keypoint, change in keypoints.items():
                table[EMOTIONS.index(name), Keypoint[keypoint.upper()]] = change
    tables.flags.writeable = False
    silent, talking = tables.reshape(2, len(EMOTIONS), -1)
    return silent, talking


def emotion_vector(emotion: Mapping[str, float] | None) -> npt.NDArray[np.float32]:
    """(8,) weights in the order of `EMOTIONS`, summing to one; the rest is neutral.

    Raises:
        ValueError: unknown name, weight outside [0, 1], or weights that sum to more than one.
        TypeError: other than a mapping of names to numbers.
    """
    if emotion is not None and not isinstance(emotion, Mapping):
        raise TypeError(
            f"expected emotion to be weights by name, as {{'happy': 0.6}}, got {type(emotion).__name__}; "
            "write it so"
        )
    weights = np.zeros(len(EMOTIONS), np.float32)
    for name, weight in (emotion or {}).items():
        if name not in EMOTIONS:
            raise ValueError(f"expected an emotion of {', '.join(EMOTIONS)}, got {name!r}; choose one of them")
        if not 0.0 <= float(weight) <= 1.0:
            raise ValueError(f"expected the weight of an emotion in [0, 1], got {name}={weight}; give a weight in it")
        weights[EMOTIONS.index(name)] = weight
    total = float(weights.sum())
    if total > 1.0 + 1e-6:
        raise ValueError(f"expected weights of emotions that sum to at most 1, got {total:g}; scale them down")
    weights[EMOTIONS.index("neutral")] += max(0.0, 1.0 - total)
    return weights
