"""Natural talk: the real cuts, how a mouth moves in them, and the statistics of talk to hold it against.

The statistics and the rules by which they were taken: ../shared/voice/natural_talk.md. No frame of a cut is shown or kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import measures
from benchmarks.faces import SHARED, track
from benchmarks.speech import Samples, phone_posteriors
from ditto.lite.phones import BILABIALS
from ditto.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.motion.motion import EXPRESSION, INNER_LIPS, KEYPOINTS, MOTION_SIZE, MOUTH_CORNERS, Motion
from ditto.motion.space import MotionSpace
from ditto.portrait.portrait import Portrait
from ditto.training.motion_data import fill_gaps
from ditto.training.tracks import read_clip

Floats = npt.NDArray[np.float64]

STATISTICS = SHARED.parent / "voice" / "natural_talk.json"
SOUND_LATE_FRAMES = 2  # of the video, in every cut (data/MANIFEST.md)
FEWEST_FRAMES = 12  # of a phone, for its mean to count: the fewest of any phone in natural_talk.json
PAUSES = ((4, 9), (10, 19), (4, 19))  # lengths in frames, least and most: in these real lips stay parted


class Mouth(NamedTuple):
    """Curves of one clip, (T,) each, face widths: the gap between the inner lips, and the distance of the corners.

    Before rendering the width is a change against rest. Frames without a face are NaN.
    """

    opening: Floats
    width: Floats

    @classmethod
    def seen(cls, landmarks: npt.ArrayLike) -> Mouth:
        """Of landmarks (T, 478, 3) found on frames."""
        return cls(measures.lip_opening(landmarks), measures.mouth_width(landmarks))

    @classmethod
    def before_rendering(cls, space: MotionSpace, portrait: Portrait, motions: Sequence[Motion]) -> Mouth:
        """Of T motions, against lips that touch; a face unit is a face width."""
        rows = np.array([motion.values for motion in motions]).reshape(-1, MOTION_SIZE)
        points = space.to_head(rows, portrait)[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)
        right, left = MOUTH_CORNERS
        upper, lower = INNER_LIPS
        return cls(points[:, lower, 1] - points[:, upper, 1], points[:, left, 0] - points[:, right, 0])

    def __getitem__(self, part: Any) -> Mouth:
        return Mouth(self.opening[part], self.width[part])


class Cut(NamedTuple):
    """A real clip at 25 frames a second: landmarks (T, 478, 3) px, samples (640 T,) in time with them."""

    name: str
    landmarks: Floats
    samples: Samples


def in_time(landmarks: Floats, samples: Samples, fps: float, sound_late_frames: float) -> tuple[Floats, Samples]:
    """Landmarks at 25 frames a second, and samples moved earlier by frames of the video; both as long as the shorter."""
    at_25 = landmarks if fps == FPS else measures.resampled(fill_gaps(landmarks), fps)
    sound = samples[round(sound_late_frames / fps * SAMPLE_RATE) :]
    frames = min(len(at_25), len(sound) // SAMPLES_PER_FRAME)
    return at_25[:frames], sound[: frames * SAMPLES_PER_FRAME]


def natural_cuts(folder: Path) -> list[Cut]:
    """The cuts of a folder, tracked now: nothing of them is written."""
    cuts = []
    for path in sorted(folder.glob("*.mp4")):
        frames, samples, fps = read_clip(path)
        landmarks, sound = in_time(track(frames), samples, fps, SOUND_LATE_FRAMES)
        cuts.append(Cut(path.stem, landmarks, sound))
    return cuts


def phones_of(encoder: Any, samples: Samples) -> Floats:
    """(T, 40) probabilities of the phones heard in each frame."""
    at_50 = phone_posteriors(encoder, samples)
    return np.asarray(at_50[: len(at_50) // 2 * 2].reshape(-1, 2, at_50.shape[-1]).mean(1))


class Statistics(NamedTuple):
    """Of natural talk: mean opening by phone in z scores, and the frames of each phone."""

    gap_z: dict[str, float]
    frames: dict[str, float]


def statistics(path: Path = STATISTICS) -> Statistics:
    phones = json.loads(path.read_text())["phones"]
    return Statistics({p: v["gap_z"] for p, v in phones.items()}, {p: float(v["frames"]) for p, v in phones.items()})


class TalkFigures(NamedTuple):
    """How one mouth moves, over clips.

    Attributes:
        opening, width: mean correlation with the real speaker at the best lag within 5 frames.
        zero_lag: of the opening.
        lag: median of its absolute lag, frames.
        phones, phones_weighted: correlation over phones of the mean openings with those of natural talk; the second
            weighs each phone by its frames there.
        pauses: mean opening in pauses inside an utterance, z, for each group of `PAUSES`.
        closed: share of all frames with a gap under `measures.CLOSED_GAP`.
        closed_of_range: share under .15 of the clip's own range.
        bilabials: share of the frames heard as P, B or M that are under .15 of the range.
    """

    opening: float
    width: float
    zero_lag: float
    lag: float
    phones: float
    phones_weighted: float
    pauses: tuple[float, ...]
    closed: float
    closed_of_range: float
    bilabials: float


def talk_figures(
    mouths: Sequence[Mouth], phones: Sequence[Floats], expected: Statistics, real: Sequence[Mouth] | None = None
) -> TalkFigures:
    """Of clips with the phones heard in them; correlations are NaN where no real speaker is given."""
    z = [measures.z_scores(mouth.opening) for mouth in mouths]
    sums = measures.PhoneMeans.of([], np.zeros((0, phones[0].shape[1])))
    for curve, heard in zip(z, phones, strict=True):
        sums += measures.PhoneMeans.of(curve, heard)
    means = sums.means(FEWEST_FRAMES)
    in_pauses = []
    for low, high in PAUSES:
        parts = [
            curve[pause]
            for curve, heard in zip(z, phones, strict=True)
            for pause in measures.pauses_inside(heard[: len(curve)])
            if low <= pause.stop - pause.start <= high
        ]
        in_pauses.append(float(np.mean([np.nanmean(part) for part in parts])) if parts else float("nan"))
    closed = [measures.in_range(mouth.opening) < measures.CLOSED for mouth in mouths]
    bilabial = [heard[: len(c), BILABIALS].sum(1) > measures.HEARD for c, heard in zip(closed, phones, strict=True)]
    pairs = [] if real is None else list(zip(mouths, real, strict=True))
    opening = [measures.correlate(mouth.opening, own.opening) for mouth, own in pairs]
    width = [measures.correlate(mouth.width, own.width) for mouth, own in pairs]

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values)) if len(values) else float("nan")

    return TalkFigures(
        opening=mean([m.best for m in opening]),
        width=mean([m.best for m in width]),
        zero_lag=mean([m.zero_lag for m in opening]),
        lag=float(np.median([abs(m.lag) for m in opening])) if opening else float("nan"),
        phones=measures.agreement_of_means(means, expected.gap_z),
        phones_weighted=measures.agreement_of_means(means, expected.gap_z, expected.frames),
        pauses=tuple(in_pauses),
        closed=measures.share(np.concatenate([mouth.opening < measures.CLOSED_GAP for mouth in mouths])),
        closed_of_range=measures.share(np.concatenate(closed)),
        bilabials=measures.share(np.concatenate([c[: len(b)][b] for c, b in zip(closed, bilabial, strict=True)])),
    )


def pause_counts(phones: Sequence[Floats]) -> list[int]:
    """How many pauses each group of `PAUSES` has."""
    lengths = [pause.stop - pause.start for heard in phones for pause in measures.pauses_inside(heard)]
    return [sum(low <= length <= high for length in lengths) for low, high in PAUSES]
