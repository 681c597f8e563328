"""Retargets generated motion to a source: relative to an origin, at chosen keypoints, edited, faded, with the gaze held.

Where the released code has an obvious error, a field of `RetargetOptions` chooses between the corrected way (the default)
and the released one; docs/full.md lists these fields.

Source: the released Ditto at e9191cf (tests/fixtures/reference, wiring_stitch and wiring_motion_math).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from ditto.full.motion_math import ANGLES, LAYOUT, Floats, Pose, degrees_of
from ditto.motion.motion import BINS, EYES, IRISES, KEYPOINTS, LIPS, Keypoint

# As in the released code.
BLINK_FRAMES = 15
OPEN_FRAMES = (60, 100)  # shortest and longest random wait between two blinks
GAZE_YAW, GAZE_PITCH = 0.26, 0.28  # degrees that the eyes turn back for one degree of the head
OUTWARD, INWARD, DOWNWARD = 0.0007, 0.001, 0.001  # shift of an iris keypoint for one degree, canonical units

SCALED_BY_STRENGTH = ("exp", *ANGLES)  # the parts that `RetargetOptions.strength` multiplies

MotionParts = dict[str, Floats]  # by the names of LAYOUT; an angle is 66 logits, or one number in degrees


def check_choices(options: object) -> None:
    """Raise ValueError for a field of a dataclass whose value is not one that its `Literal` type lists."""
    for name, kind in get_type_hints(type(options)).items():
        value = getattr(options, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ValueError(
                f"expected {name} to be one of {', '.join(get_args(kind))}, got {value!r}; give one of them"
            )


def check_names(field_name: str, names: Collection[str], known: Collection[str]) -> None:
    """Raise ValueError for an unknown name."""
    unknown = [str(name) for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"expected {field_name} to have names of {', '.join(known)}, got {', '.join(unknown)}; correct them"
        )


def check_finite(field_name: str, values: npt.ArrayLike) -> None:
    """Raise ValueError for NaN and infinity."""
    if not np.isfinite(np.asarray(values, np.float64)).all():
        raise ValueError(f"expected {field_name} to be finite numbers, got {values!r}; correct them")


@dataclass(frozen=True)
class RetargetOptions:
    """How generated motion is retargeted to a source.

    Attributes:
        relative: add the motion's change against its origin to the source. False: replace the source's motion by
            `factors` times the generated one, as released.
        factors: factor for each of exp, pitch, yaw, roll and t; a part without a factor keeps the source's value.
        keypoints: keypoints whose expression is retargeted: "lips and eyes" as released, "lips" (released for a video
            source, whose own eyes are shown), or "all".
        strength: factor on exp, pitch, yaw and roll, not on scale and t: the scale of the face that the conditions come
            from over the source's.
        silence: keypoints that return to the source as `FrameEdit.speaking` falls: "lips", or as released "all" (brows and
            eyes freeze too).
        angles: what `FrameEdit.turn_factor` and fading multiply: "degrees", or as released the "logits" of the bins.
        hold_gaze: turn the eyes back a little as the head turns; as released, unless `keypoints` is "lips".

    Raises:
        ValueError: an unknown choice or name, or a number that is not finite.
    """

    relative: bool = True
    factors: Mapping[str, float] = field(
        default_factory=lambda: dict.fromkeys(("exp", "pitch", "yaw", "roll", "t"), 1.0)
    )
    keypoints: Literal["lips and eyes", "lips", "all"] = "lips and eyes"
    strength: float = 1.0
    silence: Literal["lips", "all"] = "lips"
    angles: Literal["degrees", "logits"] = "degrees"
    hold_gaze: bool = True

    def __post_init__(self) -> None:
        check_choices(self)
        check_names("factors", self.factors, LAYOUT)
        check_finite("factors", list(self.factors.values()))
        check_finite("strength", self.strength)


@dataclass(frozen=True)
class FrameEdit:
    """Changes to one frame of motion.

    Attributes:
        speaking: 1: the motion; 0: the source's closed lips (`RetargetOptions.silence`); between them a mixture.
        turn: degrees added to pitch, yaw, roll, by name. The released configuration adds 2 to the pitch; the default is 0.
        turn_factor: factor on an angle, by name.
        expression: (63,) added to exp.
        blink: (63,) added to the source's expression at the eyes, in place of the motion there; None: no blink.
        opacity: 1: the motion; 0: the source, or the `goal` of `retarget_motion`; between them a mixture.
        faded: names of the parts that fade.

    Raises:
        ValueError: an unknown name, a share outside 0 to 1, or a number that is not finite.
    """

    speaking: float = 1.0
    turn: Mapping[str, float] = field(default_factory=dict)
    turn_factor: Mapping[str, float] = field(default_factory=dict)
    expression: npt.ArrayLike = 0.0
    blink: npt.ArrayLike | None = None
    opacity: float = 1.0
    faded: Sequence[str] = ("exp",)

    def __post_init__(self) -> None:
        check_names("turn", self.turn, ANGLES)
        check_names("turn_factor", self.turn_factor, ANGLES)
        check_names("faded", self.faded, LAYOUT)
        for name in ("speaking", "opacity"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"expected {name} to be a number, 0 to 1, got {getattr(self, name)!r}; give another")
        for name, values in (("turn", self.turn), ("turn_factor", self.turn_factor)):
            check_finite(name, list(values.values()))
        check_finite("expression", self.expression)
        if self.blink is not None:
            check_finite("blink", self.blink)


NO_EDIT = FrameEdit()


def split_motion(vector: npt.ArrayLike) -> MotionParts:
    """A released motion vector (265,) by name; the vector holds scale - 1, the result scale."""
    v = np.asarray(vector, np.float64)
    parts = {name: v[columns] for name, columns in LAYOUT.items()}
    return parts | {"scale": parts["scale"] + 1.0}


def retarget_motion(
    source: npt.ArrayLike,
    motion: npt.ArrayLike,
    origin: npt.ArrayLike,
    options: RetargetOptions,
    edit: FrameEdit = NO_EDIT,
    goal: MotionParts | None = None,
) -> Pose:
    """The pose of a source with a frame of generated motion retargeted to it.

    Args:
        source, motion: (265,) released motion vectors.
        origin: (265,) the frame that motion is relative to.
        options: how it is retargeted.
        edit: changes to this frame.
        goal: what is shown where `FrameEdit.opacity` is 0, as `mixed_motion` gives it; None: the source.
    """
    rest, parts = split_motion(source), mixed_motion(source, motion, origin, options, edit)
    goal = goal or rest
    parts["exp"] = _quiet(rest["exp"], parts["exp"], options, edit)
    if options.angles == "degrees":
        parts, rest = in_degrees(parts), in_degrees(rest)

    for name in ANGLES:
        if name in edit.turn:
            parts[name] = _degrees(parts[name]) + edit.turn[name]
        if name in edit.turn_factor:
            parts[name] = parts[name] * edit.turn_factor[name]
    parts["exp"] = parts["exp"] + np.asarray(edit.expression, np.float64)
    if edit.opacity != 1.0:
        for name in edit.faded:
            parts[name] = _between(goal[name], parts[name], edit.opacity)

    degrees = np.concatenate([_degrees(parts[name]) for name in ANGLES])
    expression = parts["exp"]
    if options.hold_gaze and options.keypoints != "lips":
        rest_degrees = np.concatenate([_degrees(rest[name]) for name in ANGLES])
        expression = hold_gaze(expression, *(degrees - rest_degrees)[:2])
    return Pose(float(parts["scale"][0]), degrees, parts["t"], expression)


def mixed_motion(
    source: npt.ArrayLike,
    motion: npt.ArrayLike,
    origin: npt.ArrayLike,
    options: RetargetOptions,
    edit: FrameEdit = NO_EDIT,
) -> MotionParts:
    """The source's motion with the parts and keypoints that are retargeted; of `edit` with its blink alone.

    Arguments as of `retarget_motion`.
    """
    rest, moved, first = split_motion(source), split_motion(motion), split_motion(origin)
    parts = rest.copy()
    for name, factor in options.factors.items():
        amount = factor * options.strength if name in SCALED_BY_STRENGTH else factor
        parts[name] = rest[name] + amount * (moved[name] - first[name]) if options.relative else amount * moved[name]
    parts["exp"] = _mix_expression(rest["exp"], parts["exp"], options, edit)
    return parts


def in_degrees(parts: MotionParts) -> MotionParts:
    """The same with every angle as one number."""
    return parts | {name: _degrees(parts[name]) for name in ANGLES}


def hold_gaze(expression: Floats, pitch: float, yaw: float) -> Floats:
    """Expression (63,) with the irises turned back against a head that is turned by these degrees from the source."""
    return turn_eyes(expression, GAZE_YAW * yaw, -GAZE_PITCH * pitch)


def turn_eyes(expression: Floats, right: float, down: float) -> Floats:
    """Expression (63,) with the irises turned by these degrees, in the picture."""
    e = expression.reshape(KEYPOINTS, 3).copy()
    e[Keypoint.RIGHT_IRIS, 0] += right * (OUTWARD if right > 0 else INWARD)
    e[Keypoint.LEFT_IRIS, 0] += right * (INWARD if right > 0 else OUTWARD)
    e[list(IRISES), 1] += DOWNWARD * down
    return e.reshape(-1)


def _mix_expression(rest: Floats, moved: Floats, options: RetargetOptions, edit: FrameEdit) -> Floats:
    """Expression (63,): the motion's at the retargeted keypoints, the source's at the others."""
    moving: list[int] = [*range(KEYPOINTS)] if options.keypoints == "all" else [*LIPS]
    if options.keypoints == "lips and eyes":
        moving += EYES
    source = rest.reshape(KEYPOINTS, 3)
    mixed = source.copy()
    mixed[moving] = moved.reshape(KEYPOINTS, 3)[moving]
    if edit.blink is not None:
        blink = np.asarray(edit.blink, np.float64).reshape(KEYPOINTS, 3)
        mixed[list(EYES)] = (source + blink)[list(EYES)]
    return mixed.reshape(-1)


def _quiet(rest: Floats, moved: Floats, options: RetargetOptions, edit: FrameEdit) -> Floats:
    """Expression (63,): the source's where and as far as the frame does not speak."""
    if edit.speaking == 1.0:
        return moved
    source, mixed = rest.reshape(KEYPOINTS, 3), moved.reshape(KEYPOINTS, 3).copy()
    closing = list(LIPS) if options.silence == "lips" else list(range(KEYPOINTS))
    mixed[closing] = source[closing] + edit.speaking * (mixed[closing] - source[closing])
    return mixed.reshape(-1)


def _degrees(angle: Floats) -> Floats:
    """(1,) degrees of an angle in either form."""
    return np.atleast_1d(degrees_of(angle)) if angle.size == BINS else angle


def _between(goal: Floats, shown: Floats, share: float) -> Floats:
    """`share` of `shown`, the rest `goal`; an angle in logits and one in degrees are mixed in degrees."""
    if goal.size != shown.size:
        goal, shown = _degrees(goal), _degrees(shown)
    return share * shown + (1 - share) * goal


def blink_frames(frames: int, waits: Sequence[int] = (), seed: int = 0) -> npt.NDArray[np.intp]:
    """Index of the blink frame (0..14) for each of `frames` frames; 0 where eyes are open.

    Args:
        waits: open frames before the first blink, before the second, and so on, repeated; empty: random ones of 60 to 100
            from `seed`; a single negative one: no blinks.

    Raises:
        ValueError: a negative wait among several.

    Source: the released code; as there, no blink begins near the end.
    """
    out = np.zeros(frames, np.intp)
    if len(waits) == 1 and waits[0] < 0:
        return out
    if any(wait < 0 for wait in waits):
        raise ValueError(f"expected waits between blinks to be 0 or more, got {tuple(waits)}; correct them")
    rng = random.Random(seed)
    first, last = (waits[0], waits[-1]) if waits else (rng.randint(*OPEN_FRAMES), rng.randint(*OPEN_FRAMES))
    at, number = first, 1
    while at < frames - max(last, BLINK_FRAMES):
        out[at : at + BLINK_FRAMES] = np.arange(BLINK_FRAMES)
        at += BLINK_FRAMES + (waits[number % len(waits)] if waits else rng.randint(*OPEN_FRAMES))
        number += 1
    return out
