"""Ramps: emotion, gaze, head, controls and style of a face, changed smoothly while a session runs.

Every number has a ramp of its own; numbers that a call does not name keep theirs. A ramp that is set again before its end
starts with its present speed, so that a user may drag a slider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.controls import MOST_DEGREES, MOST_DELTA, REGIONS, Controls, check_range, keypoint_index
from ditto.motion.emotion import EMOTIONS, emotion_vector
from ditto.motion.eyes import CAMERA_HOLD
from ditto.motion.motion import FPS, KEYPOINTS
from ditto.motion.style import MAX_STRENGTH, style_strength

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

MOST_GAZE_DEGREES = 35.0  # chosen by eye: about as far as eyes turn in a head
LONGEST_RAMP = 60.0  # seconds; chosen by hand

# One vector of all numbers: emotion | gaze degrees | head degrees | those of Controls, in the order of `_numbers` | style.
EMOTION, GAZE, HEAD, EDITS, STYLE = slice(0, 8), slice(8, 10), slice(10, 13), slice(13, 89), slice(89, 90)
EXPRESSION, REGION, HEAD_FACTOR, POSE, ZOOM, IRISES, POINTS = (
    13,
    slice(14, 19),
    19,
    slice(20, 23),
    23,
    slice(24, 26),
    slice(26, 89),
)
LOWEST = np.concatenate(
    [np.zeros(8), [-MOST_GAZE_DEGREES] * 2, [-MOST_DEGREES] * 3, np.zeros(7), [-MOST_DEGREES] * 3, [0.5],
     np.full(2 + 3 * KEYPOINTS, -MOST_DELTA), [0.0]]
)  # fmt: skip
HIGHEST = np.concatenate(
    [np.ones(8), [MOST_GAZE_DEGREES] * 2, [MOST_DEGREES] * 3, np.full(7, 3.0), [MOST_DEGREES] * 3, [2.0],
     np.full(2 + 3 * KEYPOINTS, MOST_DELTA), [MAX_STRENGTH]]
)  # fmt: skip


class Ramps(NamedTuple):
    """The targets of a face and its ramps towards them. Made by `start`, changed by `set`; immutable.

    Attributes:
        target: (90,) of every number.
        offset, speed: (90,) difference from the target, and change per frame, when the ramp began.
        first, frames: (90,) the frame before the first change, and the length of the ramp.
        emotion, gaze, head, controls: as last set.
        style: as last set, as a strength.
    """

    target: Floats
    offset: Floats
    speed: Floats
    first: Floats
    frames: Floats
    emotion: Array
    gaze: tuple[float, ...]
    head: tuple[float, ...]
    controls: Controls
    style: float

    @classmethod
    def start(
        cls,
        emotion: Mapping[str, float] | None = None,
        controls: Controls | None = None,
        style: str | float = "natural",
    ) -> Ramps:
        """Ramps at their end: an emotion, controls and a style, without change.

        Raises:
            ValueError, TypeError: as of `set`.
        """
        weights, edits, strength = emotion_vector(emotion), _checked(controls), style_strength(style)
        gaze, head = (0.0, 0.0), (0.0, 0.0, 0.0)
        target = np.concatenate([weights.astype(np.float64), gaze, head, _numbers(edits), [strength]])
        none = np.zeros(len(target))
        return cls(target, none, none, none - np.inf, none + 1.0, weights, gaze, head, edits, strength)

    def set(
        self,
        frame: int,
        ramp_seconds: float = 0.4,
        *,
        emotion: Mapping[str, float] | None = None,
        gaze: tuple[float, float] | None = None,
        head: tuple[float, float, float] | None = None,
        controls: Controls | None = None,
        style: str | float | None = None,
    ) -> Ramps:
        """Set new targets; arguments that are None change nothing.

        Args:
            frame: the first frame that changes.
            ramp_seconds: length of the ramp; 0: the change comes at once.
            emotion: weights by name.
            gaze: (right, down) in degrees against the camera, as the picture shows it.
            head: (pitch, yaw, roll) in degrees, on top of the controls' own.
            controls: replace the earlier ones; `blink` changes at once.
            style: a name in `ditto.motion.style.STYLES`, or a strength.

        Raises:
            ValueError: an unknown name, or a number that is not finite or outside its range. Nothing has changed then.
            TypeError: a value of another type.
        """
        check_range("ramp_seconds", ramp_seconds, 0.0, LONGEST_RAMP)
        asked = self._replace(
            emotion=self.emotion if emotion is None else emotion_vector(emotion),
            gaze=self.gaze if gaze is None else _degrees("gaze", gaze, 2, MOST_GAZE_DEGREES),
            head=self.head if head is None else _degrees("head", head, 3, MOST_DEGREES),
            controls=self.controls if controls is None else _checked(controls),
            style=self.style if style is None else style_strength(style),
        )
        asked._settled()  # raises where head and gaze plus the controls' own are out of range
        target = np.concatenate(
            [asked.emotion.astype(np.float64), asked.gaze, asked.head, _numbers(asked.controls), [asked.style]]
        )
        named = np.repeat(
            [x is not None for x in (emotion, gaze, head, controls, style)],
            [part.stop - part.start for part in (EMOTION, GAZE, HEAD, EDITS, STYLE)],
        )
        now, before = self._values(frame - 1), self._values(frame - 2)
        return asked._replace(
            target=target,
            offset=np.where(named, now - target, self.offset),
            speed=np.where(named, now - before, self.speed),
            first=np.where(named, frame - 1.0, self.first),
            frames=np.where(named, max(1.0, round(ramp_seconds * FPS)), self.frames),
        )

    def at(self, frame: int) -> tuple[Array, Controls, float]:
        """Emotion weights (8,), the controls and the strength of the style of a frame: gaze and head are in the controls."""
        if np.all(frame >= self.first + self.frames):
            return self.emotion, self._settled(), self.style
        values = self._values(frame)
        weights = values[EMOTION] / values[EMOTION].sum()
        lift = CAMERA_HOLD * np.sin(np.radians(values[GAZE]))
        pose = np.clip(values[POSE] + values[HEAD], -MOST_DEGREES, MOST_DEGREES).tolist()
        irises = np.clip(values[IRISES] + lift, -MOST_DELTA, MOST_DELTA).tolist()
        points = values[POINTS].reshape(KEYPOINTS, 3)
        controls = Controls(
            expression=float(values[EXPRESSION]),
            regions={name: float(x) for name, x in zip(REGIONS, values[REGION], strict=True) if x != 1.0},
            head=float(values[HEAD_FACTOR]),
            pitch_degrees=pose[0],
            yaw_degrees=pose[1],
            roll_degrees=pose[2],
            zoom=float(values[ZOOM]),
            gaze=(irises[0], irises[1]),
            blink=self.controls.blink,
            keypoints={int(k): (*points[k].tolist(),) for k in np.flatnonzero(points.any(1))},
        )
        return weights.astype(np.float32), controls, float(values[STYLE.start])

    def _values(self, frame: int) -> Floats:
        """(90,) every number in a frame: a quintic that starts with the present place and speed and ends at rest."""
        t = np.clip((frame - self.first) / self.frames, 0.0, 1.0)
        place = 1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t * t)
        speed = self.frames * (t - t**3 * (6.0 - 8.0 * t + 3.0 * t * t))
        return np.clip(self.target + place * self.offset + speed * self.speed, LOWEST, HIGHEST)

    def _settled(self) -> Controls:
        """The controls at the end of all ramps."""
        if not any(self.gaze) and not any(self.head):
            return self.controls
        own = self.controls
        right, down = (CAMERA_HOLD * float(np.sin(np.radians(degrees))) for degrees in self.gaze)
        pitch, yaw, roll = self.head
        return replace(
            own,
            pitch_degrees=own.pitch_degrees + pitch,
            yaw_degrees=own.yaw_degrees + yaw,
            roll_degrees=own.roll_degrees + roll,
            gaze=(own.gaze[0] + right, own.gaze[1] + down),
        )


def _checked(controls: Controls | None) -> Controls:
    if controls is not None and not isinstance(controls, Controls):
        raise TypeError(f"expected controls as Controls(...), got {type(controls).__name__}")
    return controls or Controls()


def _degrees(name: str, value: tuple[float, ...], size: int, most: float) -> tuple[float, ...]:
    """`size` numbers in [-most, most]."""
    try:
        numbers = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        raise TypeError(f"expected {name} as {size} numbers in degrees, got {value!r}") from None
    if len(numbers) != size:
        raise ValueError(f"expected {name} as {size} numbers in degrees, got {value!r}")
    for number in numbers:
        check_range(f"{name} in degrees", number, -most, most)
    return numbers


def _numbers(controls: Controls) -> Floats:
    """(76,) all numbers of controls."""
    points = np.zeros((KEYPOINTS, 3))
    for name, offset in controls.keypoints.items():
        points[keypoint_index(name)] += offset
    return np.array(
        [
            controls.expression,
            *(controls.regions.get(region, 1.0) for region in REGIONS),
            controls.head,
            controls.pitch_degrees,
            controls.yaw_degrees,
            controls.roll_degrees,
            controls.zoom,
            *controls.gaze,
            *points.reshape(-1),
        ]
    )


assert EDITS.stop == POINTS.stop and STYLE.stop == len(LOWEST) == len(HIGHEST) and len(EMOTIONS) == EMOTION.stop
