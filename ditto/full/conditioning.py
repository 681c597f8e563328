"""The condition of a frame of motion: speech 1024 | emotion 8 | lids 2 | gaze 6 | canonical keypoints 63.

T: frames, N: frames of the source (1 for a picture).

Source: the released Ditto at e9191cf (tests/fixtures/reference, wiring_condition). Lids and gaze are those of
`ditto.portrait.face_state.eye_state`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ditto.full.motion_math import mirror_index
from ditto.motion.emotion import EMOTIONS

Array = npt.NDArray[np.float32]

LABEL_LOGIT = 8.0  # of a label that is set, against 0 of the others; as released


def emotion_of_labels(labels: int | Sequence[int]) -> Array:
    """One emotion (index in `EMOTIONS`), or several at once, in the network's coding: (8,), summing to one.

    Raises:
        ValueError: an index outside `EMOTIONS`.
    """
    chosen = np.atleast_1d(np.asarray(labels, int))
    if chosen.size == 0 or chosen.min() < 0 or chosen.max() >= len(EMOTIONS):
        raise ValueError(f"expected labels of emotions, 0 to {len(EMOTIONS) - 1}, got {labels}; give others")
    weights = np.ones(len(EMOTIONS))
    weights[chosen] = np.exp(LABEL_LOGIT)
    return np.asarray(weights / weights.sum(), np.float32)


def emotion_of_weights(weights: npt.ArrayLike) -> Array:
    """Weights (..., 8) that sum to one (`ditto.motion.emotion.emotion_vector`) -> (..., 8) in the network's coding."""
    single = np.stack([emotion_of_labels(i) for i in range(len(EMOTIONS))])
    w = np.asarray(weights, np.float32)
    return np.asarray((w[..., :, None] * single).sum(-2), np.float32)


class Conditions(Protocol):
    """The conditions that come from the source.

    Attributes:
        canonical: (63,) keypoints.
    """

    @property
    def canonical(self) -> Array: ...

    def eyes(self, frames: Sequence[int]) -> tuple[Array, Array]:
        """Opening of each eye (T, 2) and gaze (T, 6) of the frames that are made, numbers from 0 on."""


class SourceCondition(NamedTuple):
    """The conditions of a picture, or of frames that are shown forwards, then backwards, and so on (`mirror_index`).

    Attributes:
        eye_open: (N, 2) opening of each eye.
        eye_ball: (N, 6) gaze.
        canonical: (63,) keypoints.
    """

    eye_open: Array
    eye_ball: Array
    canonical: Array

    def eyes(self, frames: Sequence[int]) -> tuple[Array, Array]:
        shown = [mirror_index(k, len(self.eye_open)) for k in frames]
        return self.eye_open[shown], self.eye_ball[shown]


def condition_rows(speech: Array, first: int, emotions: Array, source: Conditions) -> Array:
    """Conditions (T, 1103) of frames first, first + 1, ...

    Args:
        speech: (T, 1024) features.
        first: index of the first frame; frames before 0 are as frame 0.
        emotions: (M, 8); frame k takes row k modulo M.
        source: the source's.
    """
    frames = [max(0, first + k) for k in range(len(speech))]
    columns = (
        speech,
        emotions[[k % len(emotions) for k in frames]],
        *source.eyes(frames),
        np.broadcast_to(source.canonical, (len(speech), source.canonical.size)),
    )
    return np.concatenate(columns, 1).astype(np.float32, copy=False)
