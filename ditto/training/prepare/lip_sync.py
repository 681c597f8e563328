"""The step `sync`: by how many frames the sound is late, and whether it belongs to these lips at all.

A scorer is anything with the method of `SyncScorer`. The one used here is the network of `ditto.training.sync`. `KernelScorer`
needs no training of its own: it compares the lips that were tracked with those that the phones ask for, by the linear kernels
of natural talk (`ditto/training/natural_talk.py`). `python -m benchmarks.sync` measures both. In whole clips they
find the same offsets, but the network tells another clip's sound better: .99 (area under the curve) against .92 in GRID, and
.99 against .80 from a single second.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ditto.errors import InputError
from ditto.lite.phones import PHONES
from ditto.lite.speech_encoder import HIDDEN_SIZE
from ditto.media.rates import FPS, SAMPLES_PER_FRAME
from ditto.portrait.face_mesh import fit_head
from ditto.training.motion_data import fill_gaps
from ditto.training.natural_talk import lip_scores
from ditto.training.prepare.clips import encoder_of, features_of
from ditto.training.prepare.faces import landmarks_of
from ditto.training.prepare.video import sound_of
from ditto.training.prepare.work import Dropped, Outcome, Piece, Work
from ditto.training.smoothing import gaussian

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.float32]

MOST_OFFSET = 15  # frames either way, as SyncNet's
WARM_UP = FPS  # frames of sound before those, so that the encoder knows level and context
# What each comparison weighs: opening and width without their slow part, and the opening's speed. On 40 clips of GRID's
# speaker 1 (3 s each), 97 % of the offsets come out within one frame of 0 and all within two; from the opening alone 90 %.
WEIGHTS = (1.0, 0.5, 0.7)
SLOW_FRAMES, SMOOTH_FRAMES = 8.0, 0.7
MOUTH_CORNERS = (61, 291)
# Moving the sound must gain this much confidence: 4 of those 40 clips are moved all the same (by 1 or 2 frames), and all
# of the nine clips whose sound is late.
LEAST_GAIN = 0.2


class Heard(NamedTuple):
    """What a scorer is given of a clip of T frames.

    Attributes:
        landmarks: (T, 478, 3) pixels, no NaN.
        features: (T + 2 M, 368) of the speech encoder, from M frames before the clip to M after it.
        sound: (640 (T + 2 M),) int16 of the same frames.
        margin: M.
    """

    landmarks: Floats
    features: Array
    sound: npt.NDArray[np.int16]
    margin: int


class SyncScorer(Protocol):
    """Says how sound and lips of a clip belong together."""

    def offset_and_confidence(self, clip: Heard) -> tuple[int, float]:
        """By how many frames the sound is late, at most `clip.margin` either way, and how sure that is.

        The confidence is higher for sound that belongs to the lips; its scale is the scorer's own.
        """


class KernelScorer:
    """Correlates the lips with those that the phones ask for; the confidence is the weighted correlation, at most 1.

    It separates clips from the same lips with another clip's sound at .97 (area under the curve, 3 s clips).
    """

    def offset_and_confidence(self, clip: Heard) -> tuple[int, float]:
        """See `SyncScorer`. The offset is 0 where another gains less than `LEAST_GAIN`."""
        scores = self.scores(clip)
        best = int(scores.argmax())
        if scores[best] - scores[clip.margin] < LEAST_GAIN:
            best = clip.margin
        return best - clip.margin, float(scores[best])

    def scores(self, clip: Heard) -> Floats:
        """(2 M + 1,) the weighted correlation with the sound moved earlier by -M to M frames."""
        seen = lips(clip.landmarks)
        frames = len(seen)
        asked = lips_of_phones(clip.features)
        found = np.zeros(2 * clip.margin + 1)
        for weight, a, b in zip(WEIGHTS, aspects(seen), aspects(asked), strict=True):
            for place in range(2 * clip.margin + 1):
                found[place] += weight * correlation(a, b[place : place + frames])
        return found / sum(WEIGHTS)


def aspects(mouth: Floats) -> tuple[Floats, Floats, Floats]:
    """What is compared of opening and width (T, 2): each without its slow part, and the opening's speed; (T,) each."""
    smooth = gaussian(mouth[:, 0], SMOOTH_FRAMES)
    fast = smooth - gaussian(smooth, SLOW_FRAMES)
    return fast, mouth[:, 1] - gaussian(mouth[:, 1], SLOW_FRAMES), np.gradient(smooth)


def correlation(a: Floats, b: Floats) -> float:
    """Pearson's r of (T,) and (T,); 0 if one is constant."""
    x, y = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / norm if norm > 1e-12 else 0.0


def lips(landmarks: Floats) -> Floats:
    """(T, 478, 3) -> (T, 2) gap between the inner lips and width of the mouth, fu, head posed out."""
    faces = np.stack([fit_head(frame)[3] for frame in landmarks])
    gap = faces[:, 14, 1] - faces[:, 13, 1]
    right, left = MOUTH_CORNERS
    return np.stack([gap, np.linalg.norm(faces[:, left, :2] - faces[:, right, :2], axis=1)], 1)


def lips_of_phones(features: npt.ArrayLike) -> Floats:
    """(T, 368) features -> (T, 2) opening and width that the phones ask for, z scores."""
    rows = np.asarray(features, np.float64)[:, HIDDEN_SIZE:]
    return np.stack(lip_scores(rows.reshape(len(rows), 2, len(PHONES)).mean(1)), -1)


def hear(work: Work, clip: Piece) -> Heard:
    """What a scorer is given of a clip.

    Raises:
        InputError: the face is lost in a fifth of the frames or more.
    """
    try:
        landmarks = fill_gaps(landmarks_of(work, clip))
    except ValueError as error:
        raise InputError(str(error)) from None
    start, end = clip.start - MOST_OFFSET, clip.end + MOST_OFFSET
    sound = sound_of(work, clip.media, start - WARM_UP, end)
    features = features_of(encoder_of(work.options.bundle), sound)[WARM_UP:]
    return Heard(landmarks, features, sound[WARM_UP * SAMPLES_PER_FRAME :], MOST_OFFSET)


@functools.cache
def network() -> SyncScorer:
    """The scorer that is used."""
    from ditto.training.sync import NetworkScorer  # which imports this module

    return NetworkScorer()


def align(work: Work, clip: Piece, scorer: SyncScorer | None = None) -> Outcome:
    """The step `sync`: the offset found; a clip whose sound does not belong to its lips is dropped."""
    offset, confidence = (scorer or network()).offset_and_confidence(hear(work, clip))
    confidence = round(confidence, 4)
    if confidence < work.options.min_sync_confidence:
        detail = f"confidence {confidence:.2f}, less than {work.options.min_sync_confidence} (at {offset:+d} frames)"
        return Outcome((), (Dropped(clip.id, "out of sync", detail, clip.frames / FPS),))
    return Outcome((replace(clip, sync_offset=offset, sync_confidence=confidence),))
