"""Ramps: every control of a face (`ditto.controls.catalog`), changed smoothly while a session runs.

Every number has a ramp of its own; numbers that a call does not name keep theirs. A ramp that is set again before its end
starts with its present speed, so that a user may drag a slider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.controls import CATALOG, Controls, find
from ditto.controls.catalog import check_range
from ditto.motion.emotion import EMOTIONS, emotion_vector
from ditto.motion.motion import FPS
from ditto.motion.style import style_strength

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

LONGEST_RAMP = 60.0  # seconds; chosen by hand

# One vector of all numbers, in the order of the catalog.
INDEX: Mapping[str, int] = {name: i for i, name in enumerate(CATALOG)}
NAMES = tuple(CATALOG)
NEUTRAL = np.array([control.neutral for control in CATALOG.values()])
LOWEST = np.array([control.low for control in CATALOG.values()])
HIGHEST = np.array([control.high for control in CATALOG.values()])
EMOTION = slice(INDEX["emotion." + EMOTIONS[0]], INDEX["emotion.contempt"] + 1)  # all but neutral
LABELS = tuple(name.removeprefix("emotion.") for name in NAMES[EMOTION])
STYLE = INDEX["style"]
HOLD, POSE = INDEX["pose.hold"], slice(INDEX["pose.pitch"], INDEX["pose.roll"] + 1)
GAZE = slice(INDEX["gaze.right"], INDEX["gaze.down"] + 1)
HEAD = slice(INDEX["head.pitch"], INDEX["head.roll"] + 1)
OF_CONTROLS = np.array([not name.startswith("emotion.") and name != "style" for name in NAMES])


class Ramps(NamedTuple):
    """The targets of a face and its ramps towards them. Made by `start`, changed by `set`; immutable.

    Attributes:
        target: every number, in the order of the catalog.
        offset, speed: difference from the target, and change per frame, when the ramp began.
        first, frames: the frame before the first change, and the length of the ramp.
        emotion: (8,) weights when all ramps are over.
        controls: when all ramps are over.
    """

    target: Floats
    offset: Floats
    speed: Floats
    first: Floats
    frames: Floats
    emotion: Array
    controls: Controls

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
        edits = _checked(controls)
        target = _numbers(edits)
        target[EMOTION] = _emotion_numbers(emotion)
        target[STYLE] = style_strength(style)
        none = np.zeros(len(target))
        return cls(target, none, none, none - np.inf, none + 1.0, emotion_vector(emotion), edits)

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
        names: Mapping[str, float] | None = None,
    ) -> Ramps:
        """Set new targets; arguments that are None change nothing.

        Args:
            frame: the first frame that changes.
            ramp_seconds: length of the ramp; 0: the change comes at once.
            emotion: weights by name.
            gaze: `gaze.right` and `gaze.down`.
            head: `head.pitch`, `head.yaw` and `head.roll`.
            controls: every number of controls; those that it does not have become neutral. `only` and `freeze` change at
                once.
            style: a name in `ditto.motion.style.STYLES`, or a strength.
            names: numbers by their names in the catalog; they win over the other arguments. Where `pose.*` are named and
                `pose.hold` is not, the hold is 1.

        Raises:
            ValueError: an unknown name, or a number that is not finite or outside its range. Nothing has changed then.
            TypeError: a value of another type.
        """
        check_range("ramp_seconds", ramp_seconds, 0.0, LONGEST_RAMP)
        target, named = self.target.copy(), np.zeros(len(self.target), bool)
        if controls is not None:
            target[OF_CONTROLS], named[OF_CONTROLS] = _numbers(_checked(controls))[OF_CONTROLS], True
        for part, what, value in ((GAZE, "gaze", gaze), (HEAD, "head", head)):
            if value is not None:
                target[part], named[part] = _degrees(what, value, NAMES[part]), True
        if emotion is not None:
            target[EMOTION], named[EMOTION] = _emotion_numbers(emotion), True
        if style is not None:
            target[STYLE], named[STYLE] = style_strength(style), True
        for name, number in (names or {}).items():
            control = find(name)
            target[INDEX[name]], named[INDEX[name]] = control.check(number), True
        if named[POSE].any() and not named[HOLD]:
            target[HOLD], named[HOLD] = 1.0, True
        weights = emotion_vector(dict(zip(LABELS, target[EMOTION].tolist(), strict=True)))
        own = self.controls if controls is None else controls
        settled = self.controls if not named[OF_CONTROLS].any() else _controls(target, own)
        now, before = self._values(frame - 1), self._values(frame - 2)
        if target[HOLD] and not now[HOLD]:  # the pose to hold is new; the head goes to it by `pose.hold` alone
            now[POSE] = before[POSE] = target[POSE]
        return Ramps(
            target=target,
            offset=np.where(named, now - target, self.offset),
            speed=np.where(named, now - before, self.speed),
            first=np.where(named, frame - 1.0, self.first),
            frames=np.where(named, max(1.0, round(ramp_seconds * FPS)), self.frames),
            emotion=weights,
            controls=settled,
        )

    def not_after(self, frame: int) -> Ramps:
        """The same, those that have not begun before a frame from that frame on: frames were dropped."""
        return self._replace(first=np.minimum(self.first, frame - 1.0))

    def at(self, frame: int) -> tuple[Array, Controls, float]:
        """Emotion weights (8,), the controls and the strength of the style of a frame."""
        if np.all(frame >= self.first + self.frames):
            return self.emotion, self.controls, float(self.target[STYLE])
        values = self._values(frame)
        shown = values[EMOTION] / max(1.0, values[EMOTION].sum())
        weights = emotion_vector(dict(zip(LABELS, shown.tolist(), strict=True)))
        return weights, _controls(values, self.controls), float(values[STYLE])

    def _values(self, frame: int) -> Floats:
        """Every number in a frame: a quintic that starts with the present place and speed and ends at rest."""
        t = np.clip((frame - self.first) / self.frames, 0.0, 1.0)
        place = 1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t * t)
        speed = self.frames * (t - t**3 * (6.0 - 8.0 * t + 3.0 * t * t))
        return np.clip(self.target + place * self.offset + speed * self.speed, LOWEST, HIGHEST)


def _checked(controls: Controls | None) -> Controls:
    if controls is not None and not isinstance(controls, Controls):
        raise TypeError(f"expected controls as Controls(...), got {type(controls).__name__}; give one, or None")
    return controls or Controls()


def _degrees(what: str, value: tuple[float, ...], controls: tuple[str, ...]) -> list[float]:
    """Degrees, one for each control."""
    try:
        numbers = tuple(value)
    except TypeError:
        raise TypeError(
            f"expected {what} as {len(controls)} numbers in degrees, got {value!r}; "
            "give a tuple of them"
        ) from None
    if len(numbers) != len(controls):
        raise ValueError(f"expected {what} as {len(controls)} numbers in degrees, got {value!r}; give a tuple of them")
    return [CATALOG[name].check(n, f"{what} in degrees") for name, n in zip(controls, numbers, strict=True)]


def _emotion_numbers(emotion: Mapping[str, float] | None) -> list[float]:
    """Weights of all labels but neutral, in the order of the catalog."""
    weights = dict(zip(EMOTIONS, emotion_vector(emotion).tolist(), strict=True))
    return [weights[label] for label in LABELS]


def _numbers(controls: Controls) -> Floats:
    """Every number of controls, in the order of the catalog."""
    out = NEUTRAL.copy()
    for name, value in controls.names().items():
        out[INDEX[name]] = value
    return out


def _controls(values: Floats, like: Controls) -> Controls:
    """Controls of numbers in the order of the catalog; `only` and `freeze` are those of `like`."""
    changed = np.flatnonzero(OF_CONTROLS & (values != NEUTRAL))
    numbers = {NAMES[i]: float(values[i]) for i in changed.tolist()}
    numbers["pose.hold"] = float(values[HOLD])
    return Controls.from_names(numbers, only=like.only, freeze=like.freeze)
