"""Controls: edits to a motion before it is rendered. Each moves what it names and nothing else (docs/controls.md).

All of them are in the head frame (x right, y down, z away from the camera; face units; right and left are the person's),
whatever the pose of the head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ditto.motion.motion import (
    BROWS,
    CHEEKS,
    EXPRESSION,
    EYES,
    INNER_LIPS,
    IRISES,
    JAW,
    KEYPOINTS,
    MOUTH_CORNERS,
    UPPER_LIDS,
    Keypoint,
    Motion,
)
from ditto.motion.space import LITE_SPACE, MotionSpace

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait

__all__ = ["KEYPOINT_NAMES", "REGIONS", "Controls", "apply"]

KEYPOINT_NAMES = tuple(keypoint.name.lower() for keypoint in Keypoint)
REGIONS: Mapping[str, tuple[Keypoint, ...]] = MappingProxyType(
    {
        "brows": (Keypoint.FOREHEAD, *BROWS, Keypoint.GLABELLA),
        "eyes": EYES,
        "cheeks": CHEEKS,
        "mouth": (*MOUTH_CORNERS, *INNER_LIPS, Keypoint.UPPER_OUTER_LIP),
        "jaw": (*JAW, Keypoint.CHIN),
    }
)
MOST_DEGREES = 45.0  # of one offset; chosen by eye: one picture does not show enough of a face to turn it further
MOST_DELTA = 0.5  # face units: half the width of a face; chosen by hand


@dataclass(frozen=True)
class Controls:
    """What to change about every frame's motion. The default changes nothing.

    Attributes:
        expression: factor on the whole expression; 0 is a still face, 1 changes nothing.
        regions: factor on the expression of a region, on top of `expression`; names in `REGIONS`.
        head: factor on all head motion: rotation, translation and scale; 0 keeps the pose of the portrait.
        pitch_degrees, yaw_degrees, roll_degrees: turn the head about its own axes, after `head`.
        zoom: factor on the size of the face, after `head`.
        gaze: (right, down) added to both irises, face units; an iris has a radius of about 0.03.
        blink: False keeps the upper lids from coming down.
        keypoints: (x, y, z) added to a keypoint, by name (`KEYPOINT_NAMES`) or index, face units.

    Raises:
        ValueError: an unknown name, a number that is not finite or outside its range.
    """

    expression: float = 1.0
    regions: Mapping[str, float] = field(default_factory=dict)
    head: float = 1.0
    pitch_degrees: float = 0.0
    yaw_degrees: float = 0.0
    roll_degrees: float = 0.0
    zoom: float = 1.0
    gaze: tuple[float, float] = (0.0, 0.0)
    blink: bool = True
    keypoints: Mapping[str | int, tuple[float, float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("expression", "head"):
            check_range(name, getattr(self, name), 0.0, 3.0)
        for name in ("pitch_degrees", "yaw_degrees", "roll_degrees"):
            check_range(name, getattr(self, name), -MOST_DEGREES, MOST_DEGREES)
        check_range("zoom", self.zoom, 0.5, 2.0)
        for region, factor in self.regions.items():
            if region not in REGIONS:
                raise ValueError(f"expected regions out of {', '.join(REGIONS)}, got {region!r}")
            check_range(f"regions[{region!r}]", factor, 0.0, 3.0)
        check_vector("gaze", self.gaze, 2)
        for keypoint, delta in self.keypoints.items():
            check_vector(f"keypoints[{keypoint_index(keypoint)}]", delta, 3)
        # Frozen all the way down: a later change to the caller's dictionaries changes nothing here.
        object.__setattr__(self, "regions", MappingProxyType(dict(self.regions)))
        object.__setattr__(self, "keypoints", MappingProxyType(dict(self.keypoints)))

    @property
    def is_neutral(self) -> bool:
        """True if nothing is changed."""
        return all(getattr(self, f.name) == getattr(NEUTRAL, f.name) for f in fields(self))


def apply(
    motion: Motion, controls: Controls, portrait: Portrait | None = None, space: MotionSpace | None = None
) -> Motion:
    """The motion with the controls applied; (..., 70) in, (..., 70) out. Neutral controls give the motion itself.

    Args:
        portrait: whose head it moves; None: one that looks straight into the camera.
        space: what the numbers mean; None: those of the lite bundle.

    Raises:
        ValueError: the space needs a portrait, and `portrait` is None.
    """
    if controls.is_neutral:
        return motion
    space = LITE_SPACE if space is None else space
    values = space.to_head(motion.values, portrait)
    points = values[..., EXPRESSION].reshape(*values.shape[:-1], KEYPOINTS, 3)
    values[..., EXPRESSION] = edit_expression(points, controls).reshape(*values.shape[:-1], 3 * KEYPOINTS)
    values[..., : EXPRESSION.start] *= controls.head
    values[..., 0] = (1.0 + values[..., 0]) * controls.zoom - 1.0
    turn = (controls.pitch_degrees, controls.yaw_degrees, controls.roll_degrees)
    if any(turn):
        values = space.turn_head(values, turn, portrait)
    changed = space.from_head(values, portrait).astype(np.float32)
    if not moves_head(controls):
        changed[..., : EXPRESSION.start] = motion.values[..., : EXPRESSION.start]
    return Motion(changed)


def edit_expression(delta: npt.NDArray[np.float64], controls: Controls) -> npt.NDArray[np.float64]:
    """Expression (..., 21, 3), head frame, with every control but the head's applied."""
    factor = np.full((KEYPOINTS, 1), controls.expression)
    for region, value in controls.regions.items():
        factor[list(REGIONS[region])] *= value
    delta = delta * factor
    if not controls.blink:
        lids = list(UPPER_LIDS)
        delta[..., lids, 1] = np.minimum(delta[..., lids, 1], 0.0)  # y points down: positive closes
    delta[..., list(IRISES), :2] += controls.gaze
    for name, offset in controls.keypoints.items():
        delta[..., keypoint_index(name), :] += offset
    return delta


def moves_head(controls: Controls) -> bool:
    """Whether any control changes the pose."""
    pose = ("head", "zoom", "pitch_degrees", "yaw_degrees", "roll_degrees")
    return any(getattr(controls, name) != getattr(NEUTRAL, name) for name in pose)


def keypoint_index(name: str | int) -> int:
    """Index of a keypoint by name or index; raises ValueError for neither."""
    if isinstance(name, str) and name in KEYPOINT_NAMES:
        return KEYPOINT_NAMES.index(name)
    if isinstance(name, int) and not isinstance(name, bool) and 0 <= name < KEYPOINTS:
        return name
    raise ValueError(f"expected keypoints out of 0 to {KEYPOINTS - 1} or {', '.join(KEYPOINT_NAMES)}, got {name!r}")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raises ValueError unless a finite number lies in [low, high]."""
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"expected {name} in [{low:g}, {high:g}], got {value!r}")


def check_vector(name: str, value: tuple[float, ...], size: int) -> None:
    """Raises ValueError unless there are `size` finite numbers of at most `MOST_DELTA`."""
    if len(value) != size or not all(math.isfinite(v) and abs(v) <= MOST_DELTA for v in value):
        raise ValueError(f"expected {name} as {size} numbers in [-{MOST_DELTA:g}, {MOST_DELTA:g}] face units, got {value!r}")


NEUTRAL = Controls()
HEAD_STILL = Controls(head=0.0)
