"""From generated motion to the motion that is shown: relative to the source, only where it should act, faded, gaze held.

Where the released code does something that is plainly not meant, `Driving` names the choice and its default does what is
meant; docs/full.md lists them.

Source: the released Ditto at e9191cf (tests/fixtures/reference, wiring_stitch and wiring_motion_math).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from ditto.full.motion_math import ANGLES, LAYOUT, Floats, Pose, degrees_of
from ditto.motion.motion import BINS, EYES, IRISES, KEYPOINTS, LIPS, Keypoint

BLINK_FRAMES = 15
OPEN_FRAMES = (60, 100)  # between two blinks at random
GAZE_YAW, GAZE_PITCH = 0.26, 0.28  # degrees the eyes turn back for one degree of the head
OUTWARD, INWARD, DOWNWARD = 0.0007, 0.001, 0.001  # of an iris keypoint, for one degree

STRENGTHENED = ("exp", *ANGLES)  # what `Driving.strength` acts on; scale and t stay as they are

Part = dict[str, Floats]  # by the names of LAYOUT; an angle has 66 logits, or one number: degrees


def check_choices(options: Any) -> None:
    """Raise ValueError for a field of a dataclass that has none of the values its `Literal` type names."""
    for name, kind in get_type_hints(type(options)).items():
        value = getattr(options, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ValueError(f"{name} is one of {', '.join(get_args(kind))}, got {value!r}")


def check_names(field_name: str, names: Collection[str], known: Collection[str]) -> None:
    """Raise ValueError for a name that is none of those known."""
    unknown = [str(name) for name in names if name not in known]
    if unknown:
        raise ValueError(f"{field_name} are of {', '.join(known)}, got {', '.join(unknown)}")


def check_finite(field_name: str, values: npt.ArrayLike) -> None:
    """Raise ValueError for NaN and infinity."""
    if not np.isfinite(np.asarray(values, np.float64)).all():
        raise ValueError(f"expected {field_name} to be finite numbers, got {values!r}")


@dataclass(frozen=True)
class Driving:
    """How generated motion acts on a source.

    Attributes:
        relative: only its change since its first frame acts. Otherwise the motion itself, which factors then multiply as
            a whole, as released.
        factors: what acts, and how strongly, of exp, pitch, yaw, roll and t; what is not named stays with the source.
        keypoints: whose expression acts: "lips and eyes" as released, "lips" (as released for a video source, whose
            own eyes show), or "all".
        strength: factor on exp, pitch, yaw and roll: the scale of the face that conditions came from over the source's.
            Scale and t are not multiplied.
        silence: what closes when `Edit.speaking` falls: "lips", or as released "all" (brows and eyes freeze as well).
        angles: what `Edit.turn_factor` and fading act on: "degrees", or as released the "logits" of the bins.
        hold_gaze: the eyes turn back a little as the head turns; as released, where eyes are driven.

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
class Edit:
    """What is changed about one frame.

    Attributes:
        speaking: 1 shows the motion, 0 the source's closed lips (`Driving.silence`), in between a mixture.
        turn: degrees added to pitch, yaw, roll, by name; the released configuration adds 2 to the pitch, here it is 0.
        turn_factor: factor on an angle, by name.
        expression: (63,) added to exp.
        blink: (63,) added to the source's expression at the eyes, which the motion then leaves alone; None: no blink.
        shown: 1 shows the motion, 0 what it fades to, in between a mixture.
        faded: what fades, by name.

    Raises:
        ValueError: an unknown name, a share outside 0 to 1, or a number that is not finite.
    """

    speaking: float = 1.0
    turn: Mapping[str, float] = field(default_factory=dict)
    turn_factor: Mapping[str, float] = field(default_factory=dict)
    expression: npt.ArrayLike = 0.0
    blink: npt.ArrayLike | None = None
    shown: float = 1.0
    faded: Sequence[str] = ("exp",)

    def __post_init__(self) -> None:
        check_names("turn", self.turn, ANGLES)
        check_names("turn_factor", self.turn_factor, ANGLES)
        check_names("faded", self.faded, LAYOUT)
        for name in ("speaking", "shown"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"expected {name} to be a number, 0 to 1, got {getattr(self, name)!r}")
        for name, values in (("turn", self.turn), ("turn_factor", self.turn_factor)):
            check_finite(name, list(values.values()))
        check_finite("expression", self.expression)
        if self.blink is not None:
            check_finite("blink", self.blink)


PLAIN_EDIT = Edit()


class Driven(NamedTuple):
    """One frame of motion to be shown.

    Attributes:
        pose: what keypoints are computed from.
        parts: the same before the gaze is held, as `drive_motion` takes it for `fade_to`.
    """

    pose: Pose
    parts: Part


def split(vector: npt.ArrayLike) -> Part:
    """A released motion vector (265,) by name, scale made whole."""
    v = np.asarray(vector, np.float64)
    parts = {name: v[columns] for name, columns in LAYOUT.items()}
    return parts | {"scale": parts["scale"] + 1.0}


def drive_motion(
    source: npt.ArrayLike,
    motion: npt.ArrayLike,
    origin: npt.ArrayLike,
    driving: Driving,
    edit: Edit = PLAIN_EDIT,
    fade_to: Part | None = None,
) -> Driven:
    """A frame of generated motion acting on a source.

    Args:
        source, motion: (265,) released motion vectors.
        origin: (265,) the frame that motion is relative to.
        driving: how it acts.
        edit: what is changed about this frame.
        fade_to: the parts of another frame, the first one for example; None: the source.
    """
    still, moved, first = split(source), split(motion), split(origin)
    parts = still.copy()
    for name, factor in driving.factors.items():
        amount = factor * driving.strength if name in STRENGTHENED else factor
        parts[name] = still[name] + amount * (moved[name] - first[name]) if driving.relative else amount * moved[name]
    parts["exp"] = _mix_expression(still["exp"], parts["exp"], driving, edit)
    if driving.angles == "degrees":
        parts, still = in_degrees(parts), in_degrees(still)

    for name in ANGLES:
        if name in edit.turn:
            parts[name] = _degrees(parts[name]) + edit.turn[name]
        if name in edit.turn_factor:
            parts[name] = parts[name] * edit.turn_factor[name]
    parts["exp"] = parts["exp"] + np.asarray(edit.expression, np.float64)
    if edit.shown != 1.0:
        goal = still if fade_to is None else fade_to
        for name in edit.faded:
            parts[name] = _between(goal[name], parts[name], edit.shown)

    degrees = np.concatenate([_degrees(parts[name]) for name in ANGLES])
    expression = parts["exp"]
    if driving.hold_gaze and driving.keypoints != "lips":
        at_rest = np.concatenate([_degrees(still[name]) for name in ANGLES])
        expression = hold_gaze(expression, *(degrees - at_rest)[:2])
    return Driven(Pose(float(parts["scale"][0]), degrees, parts["t"], expression), parts)


def in_degrees(parts: Part) -> Part:
    """The same with every angle as one number."""
    return parts | {name: _degrees(parts[name]) for name in ANGLES}


def hold_gaze(expression: Floats, pitch: float, yaw: float) -> Floats:
    """Expression (63,) with the irises turned back, for a head turned by so many degrees against the source."""
    return turn_eyes(expression, GAZE_YAW * yaw, -GAZE_PITCH * pitch)


def turn_eyes(expression: Floats, right: float, down: float) -> Floats:
    """Expression (63,) with the irises turned by so many degrees, in the picture."""
    e = expression.reshape(KEYPOINTS, 3).copy()
    e[Keypoint.RIGHT_IRIS, 0] += right * (OUTWARD if right > 0 else INWARD)
    e[Keypoint.LEFT_IRIS, 0] += right * (INWARD if right > 0 else OUTWARD)
    e[list(IRISES), 1] += DOWNWARD * down
    return e.reshape(-1)


def _mix_expression(still: Floats, moved: Floats, driving: Driving, edit: Edit) -> Floats:
    """Expression (63,) of the source and of the motion, each where it belongs."""
    moving: list[int] = [*range(KEYPOINTS)] if driving.keypoints == "all" else [*LIPS]
    if driving.keypoints == "lips and eyes":
        moving += EYES
    mixed = still.reshape(KEYPOINTS, 3).copy()
    mixed[moving] = moved.reshape(KEYPOINTS, 3)[moving]
    if edit.blink is not None:
        blink = np.asarray(edit.blink, np.float64).reshape(KEYPOINTS, 3)
        mixed[list(EYES)] = (still.reshape(KEYPOINTS, 3) + blink)[list(EYES)]
    if edit.speaking != 1.0:
        closing = list(LIPS) if driving.silence == "lips" else list(range(KEYPOINTS))
        rest = still.reshape(KEYPOINTS, 3)[closing]
        mixed[closing] = rest + edit.speaking * (mixed[closing] - rest)
    return mixed.reshape(-1)


def _degrees(angle: Floats) -> Floats:
    """(1,) degrees of an angle in either form."""
    return np.atleast_1d(degrees_of(angle)) if angle.size == BINS else angle


def _between(goal: Floats, shown: Floats, share: float) -> Floats:
    """`share` of `shown`, the rest `goal`; angles of unlike forms meet in degrees."""
    if goal.size != shown.size:
        goal, shown = _degrees(goal), _degrees(shown)
    return share * shown + (1 - share) * goal


def blink_frames(frames: int, waits: Sequence[int] = (), seed: int = 0) -> npt.NDArray[np.intp]:
    """Place within a blink (0..14) of each of `frames` frames; 0 where eyes are open.

    Args:
        waits: open frames before the first blink, between it and the next, and so on, round and round; empty: random
            ones of 60 to 100 from `seed`. A single negative one: no blink at all.

    Raises:
        ValueError: a negative one among several.

    Source: the released code; like there no blink begins near the end.
    """
    out = np.zeros(frames, np.intp)
    if len(waits) == 1 and waits[0] < 0:
        return out
    if any(wait < 0 for wait in waits):
        raise ValueError(f"expected waits between blinks to be 0 or more, got {tuple(waits)}")
    dice = random.Random(seed)
    first, last = (waits[0], waits[-1]) if waits else (dice.randint(*OPEN_FRAMES), dice.randint(*OPEN_FRAMES))
    at, turn = first, 1
    while at < frames - max(last, BLINK_FRAMES):
        out[at : at + BLINK_FRAMES] = np.arange(BLINK_FRAMES)
        at += BLINK_FRAMES + (waits[turn % len(waits)] if waits else dice.randint(*OPEN_FRAMES))
        turn += 1
    return out


def fades(frames: int, fade_in: int, fade_out: int) -> Floats:
    """`Edit.shown` of each of `frames` frames: from 0 within the first `fade_in`, to 0 within the last `fade_out` + 1."""
    frame = np.arange(frames)
    rising = frame / fade_in if fade_in > 0 else np.ones(frames)
    falling = (frames - 1 - frame) / fade_out if fade_out > 0 else np.ones(frames)
    return np.asarray(np.minimum(1.0, np.minimum(rising, falling)))
