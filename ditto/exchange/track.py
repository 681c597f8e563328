"""A face over time as ARKit's blendshapes: what every format of this room is read into and written from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ditto.controls.blendshapes import ARKIT_NAMES, SHAPES, to_offsets, to_weights
from ditto.errors import ExchangeError
from ditto.motion.motion import DEGREES, EXPRESSION, FPS, MOTION_SIZE, rest_motion
from ditto.motion.space import MotionSpace

Floats = npt.NDArray[np.float64]

logger = logging.getLogger(__name__)

# Frames of one file: an hour and a half at 60 a second. A track of that length takes 170 MB.
MOST_FRAMES = 330_000
# Degrees of an eye at a look weight of 1. Live Link Face recordings have .61 to .64 rad (2,400 rows of two recordings).
LOOK_DEGREES = 35.5
MOST_NAMED = 6  # shapes in one message
# Beyond these a file is damaged, or has other units (per cent): apps write weights to about 1.05. Chosen by hand.
MOST_WEIGHT, MOST_DEGREES, MOST_SECONDS = 10.0, 360.0, 86400.0


@dataclass(frozen=True, eq=False)
class BlendshapeTrack:
    """Weights of ARKit's blendshapes, and rotations of head and eyes, over time. Read-only.

    Attributes:
        times: (N,) seconds, each later than the one before.
        weights: (N, 52) in the order of `ditto.controls.blendshapes.ARKIT_NAMES`, 0 to about 1.
        head_degrees: (N, 3) pitch, yaw and roll. Positive: the nose down, to the person's right, the head tilted clockwise in
            the picture, as everywhere in ditto. None: not known.
        eyes_degrees: (N, 2, 2) right and down in the picture, of the left eye and the right eye, against the head. None: not
            known.
        fps: frames a second, as a file says or as its times have it.

    Raises:
        ValueError: no frame, another shape, a number that is not finite, times that do not rise.
    """

    times: Floats
    weights: Floats
    head_degrees: Floats | None = None
    eyes_degrees: Floats | None = None
    fps: float = float(FPS)

    def __post_init__(self) -> None:
        count = len(np.atleast_1d(np.asarray(self.times)))
        shapes = {"times": (count,), "weights": (count, SHAPES), "head_degrees": (count, 3), "eyes_degrees": (count, 2, 2)}
        for name, shape in shapes.items():
            if getattr(self, name) is None and name.endswith("degrees"):
                continue
            array = np.array(getattr(self, name), np.float64)
            if array.shape != shape or count == 0:
                raise ValueError(f"expected {name} {shape} of at least one frame, got {array.shape}; give one row a frame")
            if not np.isfinite(array).all():
                frame = int(np.flatnonzero(~np.isfinite(array.reshape(count, -1)).all(1))[0])
                raise ValueError(f"expected finite {name}, got NaN or infinity in frame {frame}; leave that frame out")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if (np.diff(self.times) <= 0.0).any():
            frame = int(np.flatnonzero(np.diff(self.times) <= 0.0)[0]) + 1
            raise ValueError(f"expected times that rise, got {self.times[frame]:g} s in frame {frame}; sort the frames")
        if not (np.isfinite(self.fps) and 0.0 < self.fps <= 1000.0):
            raise ValueError(f"expected fps in (0, 1000], got {self.fps!r}; give frames a second")

    def __len__(self) -> int:
        return len(self.times)

    @property
    def duration_seconds(self) -> float:
        """From the first frame to the end of the last."""
        return float(self.times[-1] - self.times[0] + 1.0 / self.fps)

    def resampled(self, fps: float) -> BlendshapeTrack:
        """The same at `fps` frames a second from the first frame on, by linear interpolation over time.

        Raises:
            ValueError: fps that is not in (0, 1000].
            ExchangeError: more than `MOST_FRAMES` frames.
        """
        if not 0.0 < fps <= 1000.0:
            raise ValueError(f"expected fps in (0, 1000], got {fps!r}; give frames a second")
        span = float(self.times[-1] - self.times[0])
        if span * fps >= MOST_FRAMES:
            raise ExchangeError(f"expected at most {MOST_FRAMES} frames, got {span:g} s at {fps:g} a second; cut it")
        times = self.times[0] + np.arange(int(span * fps + 1e-6) + 1) / fps
        return replace(
            self,
            times=times - self.times[0],
            weights=_between(times, self.times, self.weights),
            head_degrees=None if self.head_degrees is None else _between(times, self.times, self.head_degrees),
            eyes_degrees=None if self.eyes_degrees is None else _between(times, self.times, self.eyes_degrees),
            fps=fps,
        )

    def to_head_values(self, space: MotionSpace | None = None) -> Floats:
        """(M, 70) head values, 25 a second, weights limited to [0, 1]. The head turns against its median pose in the track:
        a phone or camera is seldom held straight.

        Args:
            space: what the numbers mean; None: those of the lite bundle.
        """
        track = self.resampled(float(FPS))
        values = rest_motion(len(track)).values.astype(np.float64)
        values[:, EXPRESSION] = to_offsets(np.clip(track.weights, 0.0, 1.0), space).reshape(len(track), -1)
        if track.head_degrees is not None:
            values[:, DEGREES] = track.head_degrees - np.median(track.head_degrees, 0)
        return values

    @classmethod
    def from_head_values(
        cls, head_values: npt.ArrayLike, space: MotionSpace | None = None, fps: float = float(FPS)
    ) -> BlendshapeTrack:
        """The track of head values (N, 70) at `fps`. Degrees of the eyes are those of their look weights.

        Raises:
            ValueError: another shape, no frame, or a number that is not finite.
        """
        values = np.asarray(head_values, np.float64)
        if values.ndim != 2 or values.shape[1] != MOTION_SIZE or not len(values):
            raise ValueError(f"expected head values (N, {MOTION_SIZE}) with N > 0, got {values.shape}; give one row a frame")
        weights = to_weights(values, space)
        return cls(np.arange(len(values)) / fps, weights, values[:, DEGREES], look_degrees(weights), fps)


def _between(times: Floats, known: Floats, values: Floats) -> Floats:
    flat = values.reshape(len(values), -1)
    columns = [np.interp(times, known, column) for column in flat.T]
    return np.stack(columns, -1).reshape(len(times), *values.shape[1:])


def look_degrees(weights: Floats) -> Floats:
    """(N, 2, 2) right and down in the picture, of the left eye and the right eye, that look weights (N, 52) stand for."""
    look = {name.removeprefix("eyeLook"): weights[:, i] for i, name in enumerate(ARKIT_NAMES) if name.startswith("eyeLook")}
    left = look["OutLeft"] - look["InLeft"], look["DownLeft"] - look["UpLeft"]
    right = look["InRight"] - look["OutRight"], look["DownRight"] - look["UpRight"]
    return LOOK_DEGREES * np.stack([np.stack(left, -1), np.stack(right, -1)], 1)


def _spellings() -> dict[str, int]:
    """Place in ARKIT_NAMES by the ways in which files spell a name, in lower case without separators."""
    found = {}
    for place, name in enumerate(ARKIT_NAMES):
        found[name.lower()] = place
        for side, letter in (("Left", "l"), ("Right", "r")):  # browDownL, browDown_L; not jawL: that may be jawLower
            if name.endswith(side) and name not in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
                found[name.removesuffix(side).lower() + letter] = place
    return found


_SPELLINGS = _spellings()


def shape_of(name: str) -> int | None:
    """Place in `ARKIT_NAMES` of a shape as a file spells it (EyeBlinkLeft, blendShapes.EyeBlinkLeft, eyeBlink_L), or None."""
    plain = name.strip().rpartition(".")[2].lower()
    return _SPELLINGS.get(plain.replace("_", "").replace("-", "").replace(" ", ""))


def columns_of(names: Sequence[str], where: str) -> dict[int, int]:
    """Place in `ARKIT_NAMES` -> place in `names`, for the shapes among them.

    Shapes that a file lacks are zero; a warning in the log names them, but for `tongueOut`, which files of 51 shapes lack.

    Args:
        where: what the names stand in, for messages.

    Raises:
        ExchangeError: no shape at all, or one twice.
    """
    found: dict[int, int] = {}
    for column, name in enumerate(names):
        place = shape_of(name)
        if place in found:
            raise ExchangeError(f"{where}: expected each shape once, got {ARKIT_NAMES[place or 0]} twice; remove a column")
        if place is not None:
            found[place] = column
    if not found:
        raise ExchangeError(f"{where}: expected names of ARKit's shapes, such as jawOpen, got none; give another file")
    missing = [name for place, name in enumerate(ARKIT_NAMES) if place not in found and name != "tongueOut"]
    if missing:
        named = ", ".join(missing[:MOST_NAMED]) + (", ..." if len(missing) > MOST_NAMED else "")
        logger.warning("%s lacks %d shapes, which stay at zero: %s", where, len(missing), named)
    return found


def checked_track(
    where: str,
    times: npt.ArrayLike,
    weights: npt.ArrayLike,
    head_degrees: Floats | None = None,
    eyes_degrees: Floats | None = None,
    fps: float | None = None,
) -> BlendshapeTrack:
    """A track of what a file has; without `fps` that of its median step.

    Raises:
        ExchangeError: what a track refuses, or numbers that no recording has; the message begins with `where`.
    """
    seconds = np.atleast_1d(np.asarray(times, np.float64))
    if fps is None:
        step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0 / FPS
        fps = 1.0 / step if step > 0.0 else float(FPS)
    try:
        track = BlendshapeTrack(seconds, np.asarray(weights, np.float64), head_degrees, eyes_degrees, fps)
    except ValueError as error:
        raise ExchangeError(f"{where}: {error}") from None
    for what, array, most, unit in (
        ("a length", track.times - track.times[0], MOST_SECONDS, "seconds"),
        ("weights", track.weights, MOST_WEIGHT, "(1 is full strength)"),
        ("turns of the head", track.head_degrees, MOST_DEGREES, "degrees"),
        ("turns of the eyes", track.eyes_degrees, MOST_DEGREES, "degrees"),
    ):
        rows = np.zeros(1) if array is None else np.abs(array).reshape(len(track), -1).max(1)
        if rows.max() > most:
            frame = int(rows.argmax())
            raise ExchangeError(
                f"{where}: expected {what} of at most {most:g} {unit}, got {rows[frame]:g} in frame {frame}; export it again"
            )
    return track
