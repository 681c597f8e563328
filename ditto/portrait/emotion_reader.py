"""Which emotion a face shows, read from pictures: by HSEmotion where it is installed, else from the landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import InputError
from ditto.motion.emotion import EMOTIONS
from ditto.motion.motion import BROWS, CHEEKS, MOUTH_CORNERS, UPPER_LIDS, Keypoint
from ditto.portrait.face_mesh import LANDMARKS, fit_head, keypoints

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

READERS = MappingProxyType({"hsemotion": "HSEmotion", "landmarks": "the landmarks of the face"})  # and what they are called
HSEMOTION_MODEL = "enet_b0_8_best_vgaf"
HSEMOTION_ORDER = ("angry", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise")  # of its scores

# The measures of `measures_of`, fu: their median over 29 portraits, the larger of two spreads over them (standard deviation,
# 1.48 median deviations), and how far each emotion of ditto moves them at weight 1, measured on the portraits as drawn.
USUAL = np.array([-0.191, -0.190, 0.390, -0.146, 0.005, 0.005, 0.351, 0.149, -0.061, 0.018, 0.206])
SPREAD = np.array([0.014, 0.012, 0.016, 0.010, 0.014, 0.016, 0.047, 0.017, 0.011, 0.014, 0.015])
MOVED = MappingProxyType(
    {
        "angry": (0.043, 0.042, -0.006, 0.027, 0.015, 0.014, -0.011, -0.003, 0.008, 0.012, 0.007),
        "disgust": (0.038, 0.039, -0.001, 0.030, 0.047, 0.045, 0.027, -0.048, 0.014, -0.007, -0.028),
        "fear": (-0.040, -0.040, -0.005, -0.023, 0.004, 0.004, 0.032, -0.020, -0.010, -0.012, -0.006),
        "happy": (0.003, 0.004, -0.003, 0.004, -0.034, -0.034, 0.084, 0.000, 0.013, -0.032, -0.005),
        "sad": (-0.027, -0.027, -0.005, -0.014, 0.037, 0.036, -0.002, -0.007, -0.004, 0.007, 0.008),
        "surprise": (-0.048, -0.046, 0.000, -0.026, -0.008, -0.006, 0.004, -0.009, -0.011, -0.010, -0.004),
        "contempt": (0.000, -0.001, 0.001, 0.001, -0.039, 0.017, 0.048, -0.011, 0.006, -0.014, -0.007),
    }
)
# Cost of a weight, in squared spreads: what one person's face differs from another's is taken for no emotion. With it 28 of
# 29 portraits drawn neutral are read as neutral, and 144 of 203 drawn with an emotion as that emotion.
COST = 6.0
STEPS = 400  # of projected gradient descent; twice as many change no weight by .001


class EmotionReading(NamedTuple):
    """What was read.

    Attributes:
        weights: by name, summing to 1, "neutral" among them.
        by: of `READERS`.
    """

    weights: dict[str, float]
    by: str


def read_emotion(
    pictures: Sequence[Image], landmarks: npt.ArrayLike, by: str = "auto", download: bool = False
) -> EmotionReading:
    """The emotion of one face in a picture or in frames of a video, the mean over them.

    `read_emotion([portrait.crop], [portrait.landmarks])` reads a registered portrait.

    Args:
        pictures: N pictures (H, W, 3) uint8 RGB; may be empty if `by` is "landmarks".
        landmarks: (N, 478, 3) of the face, pixels.
        by: "hsemotion", "landmarks", or "auto": HSEmotion if it can be used, else the landmarks. Landmarks see a smile, a
            frown and where the brows are, against what is usual, and know nothing of the person; a network sees more.
        download: let HSEmotion get its weights over the network, if they are not on this machine.

    Raises:
        InputError: HSEmotion was asked for and cannot be used.
        ValueError: no picture, another number of landmarks than pictures, or another shape.
    """
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 3 or points.shape[1:] != (LANDMARKS, 3) or not len(points):
        raise ValueError(f"expected landmarks (N, {LANDMARKS}, 3) of 1 picture or more, got shape {points.shape}; stack them")
    if by not in ("auto", *READERS):
        raise ValueError(f"expected a reader of auto, {', '.join(READERS)}, got {by!r}; choose one of them")
    if by == "auto":
        by = "hsemotion" if download or hsemotion_weights().is_file() else "landmarks"
    if by == "landmarks":
        weights = weights_of_landmarks(points)
    else:
        if len(pictures) != len(points):
            raise ValueError(f"expected one picture for each of {len(points)} faces, got {len(pictures)}; give as many")
        scores = np.mean([hsemotion_scores(*face, download) for face in zip(pictures, points, strict=True)], axis=0)
        weights = scores / scores.sum()
    return EmotionReading({name: float(weight) for name, weight in zip(EMOTIONS, weights, strict=True)}, by)


def weights_of_landmarks(landmarks: Floats) -> Floats:
    """(8,) weights that explain best how landmarks (N, 478, 3) differ from a usual face; least squares, a sum of 1."""
    faces = np.array([keypoints(fit_head(face)[3]) for face in landmarks])
    differs = (measures_of(faces).mean(0) - USUAL) / SPREAD
    moved = np.array([MOVED.get(name, np.zeros(len(USUAL))) for name in EMOTIONS]) / SPREAD
    gram, pull = moved @ moved.T, moved @ differs - COST
    step = 1.0 / float(np.linalg.eigvalsh(gram).max())
    weights = np.zeros(len(EMOTIONS))
    for _ in range(STEPS):
        weights = within_one(weights - step * (gram @ weights - pull))
    neutral = EMOTIONS.index("neutral")
    weights[neutral] = 0.0
    weights[neutral] = max(0.0, 1.0 - weights.sum())
    return weights


def measures_of(faces: Floats) -> Floats:
    """(N, 11) fu of keypoints (N, 21, 3), head frame: brows and glabella against the lower lids, distance of the brows; mouth
    corners against the lip between them, width of the mouth; upper lip against the nose; opening of the eyes; cheeks."""
    x, y = faces[..., 0], faces[..., 1]
    (right_brow, left_brow), (right, left) = BROWS, MOUTH_CORNERS
    lids, nose, lips = y[..., Keypoint.LOWER_LIDS], y[..., Keypoint.NOSE_TIP], y[..., Keypoint.UPPER_INNER_LIP]
    return np.stack(
        [
            y[..., right_brow] - lids,
            y[..., left_brow] - lids,
            x[..., left_brow] - x[..., right_brow],
            y[..., Keypoint.GLABELLA] - lids,
            y[..., right] - lips,
            y[..., left] - lips,
            x[..., left] - x[..., right],
            y[..., Keypoint.UPPER_OUTER_LIP] - nose,
            y[..., list(UPPER_LIDS)].mean(-1) - lids,
            y[..., list(CHEEKS)].sum(-1) - 2.0 * nose,
            lips - nose,
        ],
        -1,
    )


def within_one(weights: Floats) -> Floats:
    """The nearest weights that are not negative and sum to at most 1 (Duchi et al. 2008, figure 1)."""
    positive = np.maximum(weights, 0.0)
    if positive.sum() <= 1.0:
        return positive
    falling = np.sort(weights)[::-1]
    excess = (np.cumsum(falling) - 1.0) / np.arange(1, len(falling) + 1)
    nearest: Floats = np.maximum(weights - excess[np.flatnonzero(falling > excess)[-1]], 0.0)
    return nearest


def hsemotion_weights() -> Path:
    """Where HSEmotion keeps the weights of its network."""
    return Path.home() / ".hsemotion" / f"{HSEMOTION_MODEL}.pt"


@cache
def hsemotion_network(download: bool = False) -> Any:
    """HSEmotion's network, on the CPU. Nothing is downloaded unless asked for.

    Raises:
        InputError: the package or its weights are missing, or it cannot read them.
    """
    weights = hsemotion_weights()
    if not download and not weights.is_file():
        raise InputError(f"expected HSEmotion's weights at {weights}, got no such file; see docs/controls.md, Emotion")
    try:
        from hsemotion.facial_emotions import HSEmotionRecognizer

        return HSEmotionRecognizer(model_name=HSEMOTION_MODEL, device="cpu")
    except Exception as error:  # its file is a pickle of another package's classes: anything may be raised
        raise InputError(
            f"expected HSEmotion to read {weights}, got: {error}; pip install 'ditto-talking-head[emotion]'"
        ) from error


def hsemotion_scores(picture: Image, landmarks: Floats, download: bool = False) -> Floats:
    """(8,) scores of a face (478, 3) in a picture (H, W, 3), in the order of `EMOTIONS`.

    Raises:
        InputError: as of `hsemotion_network`.
    """
    (left, top), (right, bottom) = np.maximum(landmarks[:, :2].min(0), 0).astype(int), landmarks[:, :2].max(0).astype(int) + 1
    scores = hsemotion_network(download).predict_emotions(picture[top:bottom, left:right], logits=False)[1]
    found = np.asarray(scores, np.float64)[: len(HSEMOTION_ORDER)]  # some of its models give valence and arousal too
    return found[[HSEMOTION_ORDER.index(name) for name in EMOTIONS]]
