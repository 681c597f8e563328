"""What a reader of a session was given, and the numbers made of it: misses, delays, lags, slopes. No clock is read here."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.live import Frame
from ditto.motion.motion import Motion, rotation_matrix
from ditto.stream import FPS

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

FRAME_SECONDS = 1 / FPS
BUFFER_FRAMES = 1  # of the playout that deadlines are for
KINDS = ("speech", "idle", "transition")
SPEECH = KINDS.index("speech")
REST_GAP = 0.004  # face units between the lips, over rest, at which they are at rest
OPEN_GAP = 0.02  # at which they are plainly open
UPPER_LIP, LOWER_LIP = 14, 17  # keypoints
QUIETEST = -70.0  # dB of a frame's sound; digital silence has no logarithm
LOUDNESS_RANGE = 30.0  # dB below the loudest frame


def lip_gap(motion: Motion) -> float:
    """Gap between the lips of one motion (70,) over rest, face units, head frame, before rendering."""
    pitch, yaw, roll = motion.pitch_degrees, motion.yaw_degrees, motion.roll_degrees
    apart = motion.expression[LOWER_LIP].astype(np.float64) - motion.expression[UPPER_LIP]
    return float((apart * rotation_matrix(float(pitch), float(yaw), float(roll))[1]).sum())


def decibels(sound: npt.NDArray[np.float32]) -> float:
    """Level of one frame's sound (N,) in dB of full scale, QUIETEST at least."""
    power = float(np.square(sound, dtype=np.float64).mean())
    return max(QUIETEST, 10.0 * np.log10(max(power, 1e-12)))


Seen = npt.NDArray[np.void]  # (T,) of ROW
ROW = np.dtype(
    [
        ("arrived", "f8"),  # seconds of the monotonic clock when the reader held the frame
        ("kind", "i4"),  # index into KINDS
        ("epoch", "i4"),  # number of the utterance
        ("index", "i4"),  # frames of the session before this one
        ("spoken", "i4"),  # frames of the utterance before this one; -1 unless speech
        ("gap", "f8"),  # between the lips over rest, face units, before rendering
        ("level", "f8"),  # of the sound the frame carries, dB
    ]
)


STEP = np.dtype([("step", "i4"), ("seconds", "f8"), ("rows", "i4")])  # a call of the stage: code, time, sessions served


class Tape:
    """Rows that are noted one after another, in memory that is written to at once: one that grew would look like a leak.

    Args:
        kind: of a row.
        capacity: in rows.
    """

    def __init__(self, kind: npt.DTypeLike, capacity: int) -> None:
        self._rows = np.ones(capacity, kind)
        self._lock = threading.Lock()  # the stage's threads note at the same time
        self._count = 0

    def add(self, row: Any) -> None:
        """Note a row.

        Raises:
            ValueError: there are more than the tape was made for.
        """
        with self._lock:
            if self._count == len(self._rows):
                raise ValueError(f"the tape was made for {self._count} rows and another came; make it longer")
            self._rows[self._count] = row
            self._count += 1

    def __len__(self) -> int:
        return self._count

    def seen(self, since: int = 0) -> npt.NDArray[Any]:
        """A view (T,) of what was noted so far, from row `since` on."""
        return self._rows[since : self._count]


def row_of(arrived: float, frame: Frame) -> tuple[float, int, int, int, int, float, float]:
    """A frame that the reader held at `arrived`, as a ROW."""
    spoken = -1 if frame.speech_index is None else frame.speech_index
    kind = KINDS.index(frame.kind)
    return arrived, kind, frame.epoch, frame.index, spoken, lip_gap(frame.motion), decibels(frame.audio)


def speech_of(seen: Seen, epoch: int | None = None) -> Seen:
    """The speech frames, of one utterance or of all."""
    spoken = seen["kind"] == SPEECH
    return seen[spoken if epoch is None else spoken & (seen["epoch"] == epoch)]


class Spread(NamedTuple):
    """Of some repeats: how many, percentiles, least and most, and how well the figure repeats.

    Attributes:
        halves: difference of the medians of the first and the second half of the repeats, % of the median of all.
    """

    repeats: int
    p50: float
    p95: float
    p99: float
    least: float
    most: float
    halves: float

    @classmethod
    def of(cls, values: Sequence[float] | Floats, factor: float = 1.0) -> Spread:
        """NaN where there are no values; `factor` changes the unit, 1000 for milliseconds. Values that are NaN do not count.

        Halves of one value say nothing: 4 repeats are the least for them.
        """
        x = np.asarray(values, np.float64)
        x = x[np.isfinite(x)] * factor
        if x.size == 0:
            return cls(0, *np.full(6, np.nan).tolist())
        p50, p95, p99, least, most = (float(p) for p in np.percentile(x, [50, 95, 99, 0, 100]))
        first, second = x[: len(x) // 2], x[len(x) // 2 :]
        apart = abs(float(np.median(first)) - float(np.median(second))) if len(x) > 3 else float("nan")
        return cls(len(x), p50, p95, p99, least, most, 100.0 * apart / p50)


def lateness(arrived: npt.ArrayLike, number: npt.ArrayLike, buffer_frames: float = BUFFER_FRAMES) -> Floats:
    """Seconds (T,) by which frames came after their deadlines; negative: early.

    A player takes up an utterance when its first frame comes, waits `buffer_frames`, then shows one frame every 40 ms.

    Args:
        arrived: (T,) seconds.
        number: (T,) of the frame within its utterance; the first row is the one that starts the clock.
    """
    at, k = np.asarray(arrived, np.float64), np.asarray(number, np.float64)
    if at.size == 0:
        return at
    return np.asarray(at - (at[0] + (k - k[0] + buffer_frames) * FRAME_SECONDS))


def missed(seen: Seen, buffer_frames: float = BUFFER_FRAMES) -> tuple[int, int]:
    """Speech frames that came after their deadlines, and all speech frames, over every utterance."""
    speech = speech_of(seen)
    late = 0
    for epoch in np.unique(speech["epoch"]):
        own = speech[speech["epoch"] == epoch]
        late += int((lateness(own["arrived"], own["spoken"], buffer_frames) > 1e-9).sum())
    return late, len(speech)


def rest_after(interrupted: float, arrived: npt.ArrayLike, gap: npt.ArrayLike) -> float:
    """Seconds from an interrupt to a frame whose lips are at rest, NaN if there is none.

    The frames (T,) are those that came after it. They are shown at playout pace: the first as it comes, each other one as
    it comes but 40 ms after the one before at the earliest.
    """
    shown = -np.inf
    for at, apart in zip(np.asarray(arrived, np.float64), np.asarray(gap, np.float64), strict=True):
        shown = max(float(at), shown + FRAME_SECONDS)
        if apart <= REST_GAP:
            return shown - interrupted
    return float("nan")


def loudness(level: npt.ArrayLike) -> Floats:
    """Levels (T,) in dB as a share: 0 at LOUDNESS_RANGE below the loudest frame and under it, 1 at the loudest."""
    x = np.asarray(level, np.float64)
    return np.asarray(np.clip((x - x.max(initial=QUIETEST) + LOUDNESS_RANGE) / LOUDNESS_RANGE, 0.0, 1.0))


class Lag(NamedTuple):
    """By how many frames one curve follows another where they are most alike, and the correlation there."""

    frames: float
    r: float


def lag(lips: Sequence[Floats], sound: Sequence[Floats], most: int = 8) -> Lag:
    """By how many frames the lips come after the sound; negative: before it.

    Every utterance is a pair of curves of equal length; frames that are NaN are left out. All utterances together give one
    correlation for each whole lag within +- `most`; a parabola through the highest and its neighbours gives the part of a
    frame. (Curves shifted by part of a frame are smoother ones, and correlate higher for that alone.) NaN where less than
    a second is in common.
    """
    found = [_correlation(lips, sound, shift) for shift in range(-most, most + 1)]
    if np.isnan(found).any():
        return Lag(float("nan"), float("nan"))
    best = max(range(len(found)), key=lambda i: (found[i], -abs(i - most)))
    part = 0.0
    if 0 < best < len(found) - 1:
        before, at, after = found[best - 1 : best + 2]
        bend = before - 2.0 * at + after
        part = 0.5 * (before - after) / bend if bend < -1e-12 else 0.0
    return Lag(best - most + part, found[best])


def _correlation(lips: Sequence[Floats], sound: Sequence[Floats], shift: int) -> float:
    """Of the lips with the sound `shift` frames before; NaN of less than a second."""
    pairs = []
    for shown, heard in zip(lips, sound, strict=True):
        first = max(0, shift)
        last = max(first, min(len(shown), len(heard)) + min(0, shift))
        pairs.append(np.stack([shown[first:last], heard[first - shift : last - shift]]))
    both = np.concatenate(pairs, axis=1)
    both = both[:, np.isfinite(both).all(0)]
    if both.shape[1] < FPS:
        return float("nan")
    a, b = both - both.mean(1, keepdims=True)
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 1e-12 else 0.0


def slope_per_minute(seconds: npt.ArrayLike, values: npt.ArrayLike, part: float = 0.8) -> float:
    """Least-squares slope of values (T,) over the last `part` of the time, in their unit per minute; NaN of under 3."""
    t, y = np.asarray(seconds, np.float64), np.asarray(values, np.float64)
    chosen = t >= t[-1] - part * (t[-1] - t[0]) if t.size else np.zeros(0, bool)
    t, y = t[chosen], y[chosen]
    if t.size < 3:
        return float("nan")
    t = t - t.mean()
    return 60.0 * float((t * (y - y.mean())).sum() / (t * t).sum())


def clock_drift(arrived: npt.ArrayLike, index: npt.ArrayLike) -> float:
    """Seconds by which the wall clock went ahead of the session's (index / 25) from the first frame (T,) to the last.

    Of the least-squares line, so that a single late frame does not count. Negative: the session runs fast.
    """
    at, behind = np.asarray(arrived, np.float64), np.asarray(index, np.float64) * FRAME_SECONDS
    return slope_per_minute(at, at - behind, part=1.0) * float(at[-1] - at[0]) / 60.0
