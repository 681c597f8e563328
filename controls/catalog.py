"""Catalog: every number of a face that a program can change, by name.

The names are the same in Python (`Controls.from_names`, `Timeline`), in timeline files, in messages to the server, in the
editor and in `ditto controls list`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType

from ditto.controls.blendshapes import ARKIT_NAMES
from ditto.controls.limits import POSE_HIGH, POSE_LOW
from ditto.motion.emotion import EMOTIONS
from ditto.motion.map import LITE_MAP
from ditto.motion.motion import Keypoint
from ditto.motion.regions import REGIONS
from ditto.motion.style import MAX_STRENGTH

MOST_DEGREES = 45.0  # of the head; chosen by eye: one picture does not show enough of a face to turn it further
MOST_GAZE_DEGREES = 35.0  # chosen by eye: about as far as eyes turn in a head
MOST_DELTA = 0.5  # face units: half the width of a face; chosen by hand
MOST_GAIN = 3.0  # chosen by hand
GAINS = (*REGIONS, "blinks")
LABELS = tuple(label for label in EMOTIONS if label != "neutral")
KEYPOINT_NAMES = tuple(keypoint.name.lower() for keypoint in Keypoint)
AXES = ("x", "y", "z")
SUGGESTIONS = 3  # how many near names a message gives


@dataclass(frozen=True, slots=True)
class Control:
    """One number that a program can change.

    Attributes:
        name: by which everything calls it.
        region: what it moves, one of `ditto.motion.regions.REGIONS`.
        unit: "degrees", "face units", "factor", "weight", "share" (0 to 1) or "openings" (of an open eye).
        neutral: the value that changes nothing.
        low, high: values beyond are refused.
        minus, plus: what a value below and above neutral does.
        safe: soft limits change nothing there, if nothing else moves (`ditto.controls.limits`); None: everywhere.
    """

    name: str
    region: str
    unit: str
    neutral: float
    low: float
    high: float
    minus: str
    plus: str
    safe: tuple[float, float] | None = None

    @property
    def safe_low(self) -> float:
        return self.low if self.safe is None else self.safe[0]

    @property
    def safe_high(self) -> float:
        return self.high if self.safe is None else self.safe[1]

    def check(self, value: float, of: str | None = None) -> float:
        """The value as a float.

        Args:
            of: what messages call it; the name by default.

        Raises:
            ValueError: not finite, or beyond `low` or `high`.
            TypeError: not a number.
        """
        return check_range(of or self.name, value, self.low, self.high)


def check_range(name: str, value: float, low: float, high: float) -> float:
    """The value as a float, if it is a finite number in [low, high].

    Raises:
        ValueError: it is not finite, or outside.
        TypeError: not a number.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"expected {name} as a number in [{low:g}, {high:g}], got {value!r}; give one")
    number = float(value)
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(f"expected {name} in [{low:g}, {high:g}], got {value!r}; give a number in it")
    return number


def unknown(kind: str, name: object, known: Iterable[str], otherwise: str = "") -> ValueError:
    """The error for a name that does not exist, with the nearest names that do, or with all of them.

    Args:
        kind: what was expected, as "a region".
        otherwise: what to say where no name is near; the list of all names by default.
    """
    names = list(known)
    near = difflib.get_close_matches(str(name), names, SUGGESTIONS, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else otherwise or f"choose from {', '.join(names)}"
    return ValueError(f"expected {kind}, got {name!r}; {hint}")


def find(name: str) -> Control:
    """The control of a name.

    Raises:
        ValueError: there is none; the message has the nearest names.
    """
    if not isinstance(name, str) or name not in CATALOG:
        raise unknown("the name of a control", name, CATALOG, "`ditto controls list` prints all names")
    return CATALOG[name]


def _shape_region(name: str) -> str:
    for prefix, region in (
        ("eyeLook", "gaze"), ("eye", "lids"), ("brow", "brows"), ("jaw", "jaw"), ("mouth", "mouth"), ("cheek", "cheeks"),
        ("nose", "nose"), ("tongue", "mouth"),
    ):  # fmt: skip
        if name.startswith(prefix):
            return region
    raise AssertionError(name)


def _all() -> Iterator[Control]:
    turns = {
        "pitch": ("up", "down"),
        "yaw": ("to the right of the picture", "to the left of the picture"),
        "roll": ("anticlockwise", "clockwise"),
    }
    size, *degrees, right, down, _ = [(float(low), float(high)) for low, high in zip(POSE_LOW, POSE_HIGH, strict=True)]
    safe = dict(zip(turns, degrees, strict=True)) | {"right": right, "down": down}
    for axis, (minus, plus) in turns.items():
        yield Control(
            f"head.{axis}", "head", "degrees", 0.0, -MOST_DEGREES, MOST_DEGREES,
            f"turns the head {minus}, on top of its own motion", f"turns the head {plus}, on top of its own motion",
            safe[axis],
        )  # fmt: skip
    for axis, (minus, plus) in {"right": ("left", "right"), "down": ("up", "down")}.items():
        yield Control(
            f"head.{axis}", "head", "face units", 0.0, -MOST_DELTA, MOST_DELTA,
            f"moves the head {minus} in the picture", f"moves the head {plus} in the picture", safe[axis],
        )  # fmt: skip
    yield Control(
        "head.zoom", "head", "factor", 1.0, 0.5, 2.0, "makes the face smaller", "makes the face larger",
        (1.0 + size[0], 1.0 + size[1]),
    )  # fmt: skip
    for axis, (minus, plus) in turns.items():
        yield Control(
            f"pose.{axis}", "head", "degrees", 0.0, -MOST_DEGREES, MOST_DEGREES,
            f"head turned {minus} against the camera, as far as pose.hold says",
            f"head turned {plus} against the camera, as far as pose.hold says", safe[axis],
        )  # fmt: skip
    yield Control("pose.hold", "head", "share", 0.0, 0.0, 1.0, "", "the head has the pose of pose.* and not its own")
    for axis, (minus, plus) in {"right": ("left", "right"), "down": ("up", "down")}.items():
        yield Control(
            f"gaze.{axis}", "gaze", "degrees", 0.0, -MOST_GAZE_DEGREES, MOST_GAZE_DEGREES,
            f"turns the eyes {minus} in the picture", f"turns the eyes {plus} in the picture",
        )  # fmt: skip
    yield Control(
        "gaze.contact", "gaze", "share", 0.0, 0.0, 1.0, "", "the eyes stay on the camera while head.* or pose.* turn the head"
    )
    for side in ("right", "left"):
        widens, closes = f"widens the {side} eye", f"closes the {side} eye"
        yield Control(f"lids.{side}", "lids", "openings", 0.0, -1.0, 1.0, widens, closes)
    for region in GAINS:
        what = {"blinks": "closing of the lids", "all": "motion of face and head"}.get(region, f"motion of the {region}")
        yield Control(
            f"gain.{region}", "lids" if region == "blinks" else region, "factor", 1.0, 0.0, MOST_GAIN,
            f"less {what}", f"more {what}",
        )  # fmt: skip
    for label in LABELS:
        yield Control(f"emotion.{label}", "all", "weight", 0.0, 0.0, 1.0, "", f"shows {label}")
    yield Control("style", "head", "factor", 1.0, 0.0, MAX_STRENGTH, "calmer head and brows", "livelier head and brows")
    for name in ARKIT_NAMES:
        yield Control(name, _shape_region(name), "weight", 0.0, 0.0, 1.0, "", f"ARKit's {name}")
    for number in LITE_MAP:
        yield Control(
            number.name, number.region, number.unit, 0.0, -MOST_DELTA, MOST_DELTA, number.minus, number.plus,
            (number.safe_low, number.safe_high),
        )  # fmt: skip


CATALOG: Mapping[str, Control] = MappingProxyType({control.name: control for control in _all()})
