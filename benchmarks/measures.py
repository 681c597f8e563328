"""The measures: small pure functions from landmarks, pixels, phones and curves to numbers.

Lengths are in face widths (fw): the distance between landmarks 234 and 454.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.lite.phones import BILABIALS, PHONE_INDEX, PHONE_TO_VISEME, PHONES, SILENCE, VISEME_NAMES
from ditto.media.images import LUMA
from ditto.portrait.face_mesh import (
    FACE_OVAL,
    LOWER_INNER_LIP,
    LOWER_OUTER_LIP,
    UPPER_INNER_LIP,
    UPPER_OUTER_LIP,
    fit_head,
)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Image = npt.NDArray[np.uint8]
Segment = tuple[float, float, str]  # start and end in seconds, phone

LIPS = UPPER_INNER_LIP + LOWER_INNER_LIP + UPPER_OUTER_LIP + LOWER_OUTER_LIP
LIP_PAIRS = ((82, 87), (13, 14), (312, 317))  # upper and lower inner lip, around the middle
LID_PAIRS = ((159, 145), (386, 374))  # upper and lower lid, right and left
MOUTH_CORNERS = (61, 291)  # right and left
IDENTITY = [33, 133, 362, 263, 168, 6, 197, 195, 4, 98, 327, 10, 151, 9, 127, 356, 234, 454]  # moved by no expression
CLOSED = 0.15  # of the clip's opening range
# Face widths: a smaller gap is closed. Real lips in fluent talk are closed in 7 to 12 % of the frames
# (../shared/voice/natural_talk.md).
CLOSED_GAP = 0.01
PAUSE_SECONDS = 0.4
HEARD = 0.5  # probability above which a phone counts as heard (../shared/voice/natural_talk.json, "about")


# Landmarks


def face_width(landmarks: npt.ArrayLike) -> Floats:
    """(..., 478, 3) -> (...,) in the landmarks' unit."""
    points = np.asarray(landmarks, np.float64)
    return np.asarray(np.linalg.norm(points[..., 454, :] - points[..., 234, :], axis=-1))


def _apart(landmarks: npt.ArrayLike, pairs: Sequence[tuple[int, int]]) -> Floats:
    """Mean signed distance of pairs down the face's own vertical in the picture, (...,) pixels."""
    points = np.asarray(landmarks, np.float64)[..., :2]
    down = points[..., 152, :] - points[..., 10, :]
    down = down / np.linalg.norm(down, axis=-1, keepdims=True)
    gaps = [((points[..., b, :] - points[..., a, :]) * down).sum(-1) for a, b in pairs]
    return np.asarray(np.mean(gaps, axis=0))


def lip_opening(landmarks: npt.ArrayLike) -> Floats:
    """Gap between the inner lips, (..., 478, 3) -> (...,) fw."""
    return _apart(landmarks, LIP_PAIRS) / face_width(landmarks)


def mouth_width(landmarks: npt.ArrayLike) -> Floats:
    """Distance of the mouth corners, (..., 478, 3) -> (...,) fw. With depth, as the face width, so that a turned head
    does not narrow the mouth."""
    points = np.asarray(landmarks, np.float64)
    right, left = MOUTH_CORNERS
    return np.asarray(np.linalg.norm(points[..., left, :] - points[..., right, :], axis=-1) / face_width(points))


def lid_opening(landmarks: npt.ArrayLike) -> Floats:
    """Gap between the lids, mean of both eyes, (..., 478, 3) -> (...,) fw."""
    return _apart(landmarks, LID_PAIRS) / face_width(landmarks)


class LandmarkErrors(NamedTuple):
    """Differences of two sets of landmarks in fw: mean distance in the picture, and of the two openings."""

    everything: float
    lips: float
    gap: float
    lid: float


def landmark_errors(found: npt.ArrayLike, expected: npt.ArrayLike, width: float) -> LandmarkErrors:
    """How far landmarks (478, 3) found on a rendered frame are from those expected, in face widths of `width` pixels."""
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    distance = np.linalg.norm((a - b)[:468, :2], axis=-1) / width
    return LandmarkErrors(
        float(distance.mean()),
        float(distance[LIPS].mean()),
        float(abs(_apart(a, LIP_PAIRS[1:2]) - _apart(b, LIP_PAIRS[1:2])) / width),
        float(abs(_apart(a, LID_PAIRS) - _apart(b, LID_PAIRS)) / width),
    )


def identity_drift(found: npt.ArrayLike, source: npt.ArrayLike) -> float:
    """Mean shift of the landmarks no expression moves, after the pose is taken out, fw. Shape only, no recognition."""
    a, b = (fit_head(points)[3] for points in (found, source))
    return float(np.linalg.norm((a - b)[IDENTITY, :2], axis=-1).mean())


def oval_mask(landmarks: npt.ArrayLike, size: int) -> Floats:
    """(size, size) of 0 and 1: inside the face oval, pixel centres at whole numbers (even-odd rule)."""
    ring = np.asarray(landmarks, np.float64)[FACE_OVAL, :2]
    y, x = np.mgrid[:size, :size].astype(np.float64)
    inside = np.zeros((size, size), bool)
    for (ax, ay), (bx, by) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if ay == by:
            continue
        crosses = (ay > y) != (by > y)
        inside ^= crosses & (x < ax + (y - ay) * (bx - ax) / (by - ay))
    return inside.astype(np.float64)


# Pixels


def psnr(a: Image, b: Image, mask: Floats | None = None) -> float:
    """Peak signal to noise ratio in dB of two pictures (H, W, 3) under a mask (H, W); 100 where they are equal."""
    square = (a.astype(np.float64) - b.astype(np.float64)) ** 2
    error = square.mean() if mask is None else (square * mask[..., None]).sum() / (3.0 * mask.sum())
    return float(10.0 * np.log10(255.0**2 / error)) if error > 255.0**2 * 1e-10 else 100.0


def luma(image: Image) -> Floats:
    """(..., H, W, 3) RGB -> (..., H, W), Rec. 601."""
    return np.asarray(image.astype(np.float64) @ LUMA)


def detail(image: Image, mask: Floats) -> float:
    """Root mean square of the luma's Laplacian under a mask."""
    y = np.pad(luma(image), 1, mode="edge")
    laplacian = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4.0 * y[1:-1, 1:-1]
    return float(np.sqrt((laplacian**2 * mask).sum() / mask.sum()))


def sharpness_ratio(rendered: Image, real: Image, mask: Floats) -> float:
    """Detail of the rendered frame over that of the real one: 1 is as sharp, above is sharper (or noisier)."""
    return detail(rendered, mask) / detail(real, mask)


def flicker(frames: Sequence[Image], mask: Floats) -> float:
    """Mean absolute second difference over time of consecutive frames' luma under a mask, levels.

    Smooth motion gives little, trembling gives much; compare with the same of the real clip.
    """
    if len(frames) < 3:
        raise ValueError(f"flicker takes at least 3 consecutive frames, got {len(frames)}")
    y = np.stack([luma(f) for f in frames])
    second = np.abs(y[2:] - 2.0 * y[1:-1] + y[:-2]).mean(0)
    return float((second * mask).sum() / mask.sum())


def smoothed(values: npt.ArrayLike, sigma: float) -> Floats:
    """(T, ...) smoothed over time by a Gaussian, normalised at the ends."""
    x = np.asarray(values, np.float64)
    step = np.arange(len(x))
    weights = np.exp(-0.5 * ((step[:, None] - step) / sigma) ** 2)
    return np.asarray(np.tensordot(weights / weights.sum(1, keepdims=True), x, 1))


def largest_difference(a: Image, b: Image) -> int:
    return int(np.abs(a.astype(np.int16) - b.astype(np.int16)).max())


# Phones


def labels_at(segments: Iterable[Segment], seconds: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Index of the phone said at each time, (N,); -1 where no segment lies."""
    times = np.asarray(seconds, np.float64)
    labels = np.full(times.shape, -1, np.int64)
    for start, end, phone in segments:
        labels[(times >= start) & (times < end)] = PHONE_INDEX[phone]
    return labels


class VisemeScores(NamedTuple):
    """Counts over frames, to be added up: hits and frames of each of the 14 viseme classes."""

    hits: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]

    def __add__(self, other: object) -> VisemeScores:
        if not isinstance(other, VisemeScores):
            return NotImplemented
        return VisemeScores(self.hits + other.hits, self.frames + other.frames)

    @property
    def accuracy(self) -> float:
        return float(self.hits.sum() / max(1, self.frames.sum()))

    @property
    def accuracy_without_silence(self) -> float:
        spoken = np.array([name != "SIL" for name in VISEME_NAMES])
        return float(self.hits[spoken].sum() / max(1, self.frames[spoken].sum()))

    def recall(self, viseme: str) -> float:
        i = VISEME_NAMES.index(viseme)
        return float(self.hits[i] / self.frames[i]) if self.frames[i] else float("nan")


def viseme_of(posteriors: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """(T, 40) phone probabilities -> (T,) the viseme class whose phones together are the most probable."""
    p = np.asarray(posteriors, np.float64)
    together = np.zeros((len(p), len(VISEME_NAMES)))
    np.add.at(together.T, np.asarray(PHONE_TO_VISEME), p.T)
    return together.argmax(1)


def viseme_scores(posteriors: npt.ArrayLike, phones: npt.ArrayLike) -> VisemeScores:
    """Strict scores, frame by frame: no tolerance in time. `phones` (T,), -1 is left out."""
    said = np.asarray(phones, np.int64)
    heard = viseme_of(posteriors)
    n = min(len(said), len(heard))
    said, heard = said[:n], heard[:n]
    heard, said = heard[said >= 0], np.asarray(PHONE_TO_VISEME)[said[said >= 0]]
    size = len(VISEME_NAMES)
    return VisemeScores(np.bincount(said[said == heard], minlength=size), np.bincount(said, minlength=size))


# Natural talk: curves (T,) of a clip, probabilities (T, 40) of its phones


def z_scores(curve: npt.ArrayLike) -> Floats:
    """(T,) in standard deviations from the clip's mean; frames that are NaN stay NaN."""
    x = np.asarray(curve, np.float64)
    return np.asarray((x - np.nanmean(x)) / max(float(np.nanstd(x)), 1e-9))


class PhoneMeans(NamedTuple):
    """Sums over frames by phone, to be added up: of probabilities, of values times probabilities, and frames; (40,) each.

    Only frames count in which the phone is heard with more than `HEARD`, each by that probability: the rule of
    ../shared/voice/natural_talk.json.
    """

    weight: Floats
    total: Floats
    frames: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: npt.ArrayLike, posteriors: npt.ArrayLike) -> PhoneMeans:
        """Of values (T,), NaN left out, and probabilities (T, 40)."""
        x, p = np.asarray(values, np.float64), np.asarray(posteriors, np.float64)
        n = min(len(x), len(p))
        x, p = x[:n], p[:n]
        weight = np.where((p > HEARD) & np.isfinite(x)[:, None], p, 0.0)
        return cls(weight.sum(0), np.nan_to_num(x) @ weight, (weight > 0).sum(0))

    def __add__(self, other: object) -> PhoneMeans:
        if not isinstance(other, PhoneMeans):
            return NotImplemented
        return PhoneMeans(self.weight + other.weight, self.total + other.total, self.frames + other.frames)

    def means(self, at_least: int = 1) -> dict[str, float]:
        """Phone -> mean, of the phones with that many frames."""
        enough = np.flatnonzero(self.frames >= at_least)
        return {PHONES[i]: float(self.total[i] / self.weight[i]) for i in enough}


def agreement_of_means(
    found: dict[str, float], expected: dict[str, float], weights: dict[str, float] | None = None
) -> float:
    """Pearson correlation over the phones that both have, weighted if weights are given; NaN of fewer than 3 phones."""
    common = [phone for phone in expected if phone in found]
    if len(common) < 3:
        return float("nan")
    w = np.array([1.0 if weights is None else weights[phone] for phone in common])
    a, b = (np.array([means[phone] for phone in common]) for means in (found, expected))
    a, b = a - (w @ a) / w.sum(), b - (w @ b) / w.sum()
    return float((w @ (a * b)) / max(np.sqrt((w @ (a * a)) * (w @ (b * b))), 1e-12))


def runs(flags: npt.ArrayLike) -> list[slice]:
    """The stretches of (T,) flags that are true."""
    edges = np.diff(np.r_[0, np.asarray(flags, np.int8), 0])
    return [slice(int(a), int(b)) for a, b in zip(np.flatnonzero(edges > 0), np.flatnonzero(edges < 0), strict=True)]


def pauses_inside(posteriors: npt.ArrayLike) -> list[slice]:
    """The pauses inside an utterance: frames heard as silence, with speech before and after; from probabilities (T, 40)."""
    silent = np.asarray(posteriors, np.float64)[:, SILENCE] > HEARD
    return [run for run in runs(silent) if run.start > 0 and run.stop < len(silent)]


# Curves, 25 a second


def resampled(values: npt.ArrayLike, fps: float, to: float = 25.0) -> Floats:
    """(T, ...) at another frame rate, linear between the middles of the frames; as many whole frames as there are."""
    x = np.asarray(values, np.float64)
    frames = int(len(x) / fps * to + 1e-6)
    at = np.clip((np.arange(frames) + 0.5) * fps / to - 0.5, 0, len(x) - 1)
    below = np.minimum(at.astype(np.int64), len(x) - 2)
    share = (at - below).reshape(-1, *[1] * (x.ndim - 1))
    return np.asarray((1.0 - share) * x[below] + share * x[below + 1])


class Match(NamedTuple):
    """Pearson correlation of two curves. `lag` > 0: the first comes later than the second, frames."""

    zero_lag: float
    best: float
    lag: int


def _pearson(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 1e-12 else 0.0


def correlate(a: npt.ArrayLike, b: npt.ArrayLike, lags: int = 5) -> Match:
    """How alike two curves (T,) are at zero lag and at the best lag within +- `lags`; frames that are NaN are left out.

    Raises:
        ValueError: fewer than 10 frames in common.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    n = min(len(x), len(y))
    x, y = x[:n], y[:n]
    found: dict[int, float] = {}
    for lag in range(-lags, lags + 1):
        u, v = (x[lag:], y[: n - lag]) if lag >= 0 else (x[:lag], y[-lag:])
        both = np.isfinite(u) & np.isfinite(v)
        if both.sum() < 10:
            raise ValueError(f"correlation takes at least 10 frames in common, got {int(both.sum())} at lag {lag}")
        found[lag] = _pearson(u[both], v[both])
    best = max(found, key=lambda lag: (found[lag], -abs(lag)))
    return Match(found[0], found[best], best)


def in_range(opening: npt.ArrayLike) -> Floats:
    """Opening (T,) as a share of the clip's own range: 0 at its 2nd, 1 at its 98th percentile."""
    curve = np.asarray(opening, np.float64)
    low, high = np.nanpercentile(curve, [2.0, 98.0])
    return np.asarray((curve - low) / max(high - low, 1e-9))


def frame_times(frames: int, fps: float = 25.0) -> Floats:
    """Seconds at the middle of each frame."""
    return (np.arange(frames) + 0.5) / fps


def bilabial_frames(segments: Iterable[Segment], frames: int) -> Bools:
    """(T,) true where the middle of the frame lies in a P, B or M."""
    inside = labels_at(segments, frame_times(frames))
    return np.isin(inside, BILABIALS)


def bilabial_events(segments: Iterable[Segment], frames: int) -> list[slice]:
    """The frames that touch each P, B or M."""
    spans = [(int(start * 25), int(np.ceil(end * 25))) for start, end, phone in segments if phone in ("P", "B", "M")]
    return [slice(a, min(b, frames)) for a, b in spans if a < min(b, frames)]


def pauses(segments: Iterable[Segment], longer_than: float = PAUSE_SECONDS) -> list[tuple[float, float]]:
    """Start and end in seconds of silences longer than `longer_than`; silences that touch are one."""
    merged: list[list[float]] = []
    for start, end, phone in segments:
        if phone != "SIL":
            continue
        if merged and start - merged[-1][1] < 1e-6:
            merged[-1][1] = end
        else:
            merged.append([start, end])
    return [(a, b) for a, b in merged if b - a > longer_than]


def pause_frames(
    segments: Iterable[Segment], frames: int, settle_seconds: float = 0.2, anticipate_seconds: float = 0.12
) -> Bools:
    """(T,) true inside pauses over 0.4 s, without the time lips take to settle and to open for the next word."""
    middle = frame_times(frames)
    inside = np.zeros(frames, bool)
    for start, end in pauses(segments):
        inside |= (middle >= start + settle_seconds) & (middle < end - anticipate_seconds)
    return inside


def share(flags: npt.ArrayLike) -> float:
    """Part of the flags that is true; NaN of none."""
    values = np.asarray(flags, np.float64)
    return float(values.mean()) if values.size else float("nan")


# Movement, 25 frames a second


def band_rms(values: npt.ArrayLike, low: float, high: float, fps: float = 25.0) -> Floats:
    """Root mean square of (T, ...) between two frequencies in Hz, (...,).

    By Fourier transform of the curve followed by its mirror image, so that a drift does not jump at the ends.
    """
    x = np.asarray(values, np.float64)
    x = x - x.mean(0)
    spectrum = np.abs(np.fft.rfft(np.concatenate([x, x[::-1]]), axis=0)) / (2 * len(x))
    at = np.fft.rfftfreq(2 * len(x), 1.0 / fps)
    inside = (at >= low) & (at < high)
    return np.asarray(np.sqrt(2.0 * (spectrum[inside] ** 2).sum(0)))


def speed(values: npt.ArrayLike, fps: float = 25.0) -> Floats:
    """(T, ...) -> (T - 1, ...) absolute change a second."""
    return np.abs(np.diff(np.asarray(values, np.float64), axis=0)) * fps


def accelerations(points: npt.ArrayLike) -> Floats:
    """(T, N, 3) -> (T - 2,) the largest second difference of any of N points in each frame, a frame squared."""
    return np.asarray(np.linalg.norm(np.diff(np.asarray(points, np.float64), 2, axis=0), axis=-1).max(-1))
