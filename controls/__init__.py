"""Controls: edits to a motion before it is rendered. Each moves what it names and nothing else (docs/controls.md).

All of them are in the head frame (x right, y down, z away from the camera; face units; right and left are the person's),
whatever the pose of the head. `ditto.controls.catalog` lists every number of them by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ditto.controls.blendshapes import ARKIT_NAMES, to_offsets
from ditto.controls.catalog import AXES, CATALOG, GAINS, KEYPOINT_NAMES, find, unknown
from ditto.controls.limits import limit
from ditto.motion.motion import DEGREES, EXPRESSION, KEYPOINTS, TRANSLATION, Motion
from ditto.motion.regions import REGIONS
from ditto.motion.space import LITE_SPACE, MotionSpace

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait

__all__ = ["ARKIT_NAMES", "CATALOG", "GAINS", "KEYPOINT_NAMES", "REGIONS", "Controls", "apply", "find"]

Floats = npt.NDArray[np.float64]
# Fields that hold one number of each name in the catalog, in order.
SCALARS = {
    "pitch_degrees": "head.pitch", "yaw_degrees": "head.yaw", "roll_degrees": "head.roll", "zoom": "head.zoom",
    "pose_hold": "pose.hold", "eye_contact": "gaze.contact",
}  # fmt: skip
VECTORS = {
    "shift": ("head.right", "head.down"),
    "pose": ("pose.pitch", "pose.yaw", "pose.roll"),
    "gaze": ("gaze.right", "gaze.down"),
    "lids": ("lids.right", "lids.left"),
}


@dataclass(frozen=True)
class Controls:
    """What to change about one frame's motion. The default changes nothing.

    The fields below `gains`, `only` and `freeze` add to the motion that those leave.

    Attributes:
        gains: factor on the motion of a region, by name (`GAINS`): regions of the face, "head" (rotation, translation and
            size), "blinks" (closing of the lids), "all". Where regions overlap the factors multiply. The eyes stay on the
            camera whatever the factor on the head.
        only: regions that move; nothing else does. Empty: all.
        freeze: regions that do not move.
        pitch_degrees, yaw_degrees, roll_degrees: turn the head about its own axes. Positive pitch is down, positive yaw to
            the left of the picture, positive roll clockwise.
        shift: (right, down) move the head in the picture, face units.
        zoom: factor on the size of the face.
        pose: (pitch, yaw, roll) of the head against the camera, degrees, in place of its own; `pitch_degrees`... turn it
            further.
        pose_hold: how much of `pose` the head takes, 0 to 1.
        gaze: (right, down) turn both eyes, degrees, in the picture. The lids follow.
        eye_contact: how much the eyes stay on the camera while these controls turn the head, 0 to 1; with 0 they turn with
            the head.
        lids: (right, left) close an eye: 1 shuts it, -0.3 widens it.
        blendshapes: weights of ARKit's shapes, by name (`ARKIT_NAMES`).
        keypoints: (x, y, z) added to a keypoint, by name (`KEYPOINT_NAMES`) or index, face units.

    Raises:
        ValueError: an unknown name, a number that is not finite or outside its range (`CATALOG`), or a region in `only`
            and in `freeze`.
        TypeError: a value of another type.
    """

    gains: Mapping[str, float] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    pitch_degrees: float = 0.0
    yaw_degrees: float = 0.0
    roll_degrees: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    pose: tuple[float, float, float] | None = None
    pose_hold: float = 1.0
    gaze: tuple[float, float] = (0.0, 0.0)
    eye_contact: float = 0.0
    lids: tuple[float, float] = (0.0, 0.0)
    blendshapes: Mapping[str, float] = field(default_factory=dict)
    keypoints: Mapping[str | int, tuple[float, float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze = object.__setattr__  # frozen all the way down: a later change to the caller's values changes nothing here
        for name, control in SCALARS.items():
            freeze(self, name, CATALOG[control].check(getattr(self, name), name))
        for name, controls in VECTORS.items():
            value = getattr(self, name)
            if name == "pose" and value is None:
                continue
            freeze(self, name, check_vector(name, value, controls))
        if self.pose is None or not self.pose_hold:  # one way to say: no pose
            freeze(self, "pose", None)
            freeze(self, "pose_hold", 1.0)
        for name in ("only", "freeze"):
            freeze(self, name, check_regions(name, getattr(self, name)))
        if both := set(self.only) & set(self.freeze):
            raise ValueError(f"expected a region in only or in freeze, got {', '.join(sorted(both))} in both; leave one out")
        freeze(self, "gains", check_weights("gains", self.gains, GAINS, "gain."))
        freeze(self, "blendshapes", check_weights("blendshapes", self.blendshapes, ARKIT_NAMES, ""))
        points = {}
        for keypoint, delta in expect_mapping("keypoints", self.keypoints).items():
            name = KEYPOINT_NAMES[keypoint_index(keypoint)]
            added = check_vector(f"keypoints[{name!r}]", delta, tuple(f"{name}.{axis}" for axis in AXES))
            if any(added):
                points[name] = added
        freeze(self, "keypoints", MappingProxyType(points))

    @classmethod
    def from_names(
        cls, values: Mapping[str, float], *, only: tuple[str, ...] = (), freeze: tuple[str, ...] = ()
    ) -> Controls:
        """Controls of numbers by their names in the catalog, as {"head.yaw": 8.0, "left_brow.y": -0.02}.

        Where `pose.*` are named and `pose.hold` is not, the hold is 1.

        Raises:
            ValueError: an unknown name, a value out of range, or a number that is not one of the controls: an emotion, the
                style.
            TypeError: a value of another type.
        """
        fields: dict[str, Any] = {"only": only, "freeze": freeze, "gains": {}, "blendshapes": {}, "keypoints": {}}
        vectors: dict[str, dict[str, float]] = {}
        keypoints: dict[str, list[float]] = {}
        for name, value in values.items():
            number = find(name).check(value)
            if name in FIELD_OF:
                field_name, index = FIELD_OF[name]
                if index is None:
                    fields[field_name] = number
                else:
                    vectors.setdefault(field_name, {})[name] = number
            elif name.startswith("gain."):
                fields["gains"][name.removeprefix("gain.")] = number
            elif name in SHAPES:
                fields["blendshapes"][name] = number
            elif name in POINT_OF:
                point, axis = POINT_OF[name]
                keypoints.setdefault(point, [0.0, 0.0, 0.0])[axis] = number
            else:
                raise ValueError(f"expected numbers of controls, got {name}; give it as its own argument, emotion= or style=")
        fields["keypoints"] = keypoints
        for field_name, given in vectors.items():
            fields[field_name] = tuple(given.get(name, 0.0) for name in VECTORS[field_name])
        if fields.get("pose_hold"):
            fields.setdefault("pose", (0.0, 0.0, 0.0))
        return cls(**fields)

    def names(self) -> dict[str, float]:
        """The numbers that are not neutral, by their names in the catalog. `only` and `freeze` are not numbers."""
        numbers = {f"gain.{name}": factor for name, factor in self.gains.items()}
        for name, control in SCALARS.items():
            numbers[control] = getattr(self, name)
        if self.pose is None:
            del numbers["pose.hold"]
        for name, controls in VECTORS.items():
            numbers.update(zip(controls, getattr(self, name) or (), strict=False))
        numbers.update(self.blendshapes)
        for point, delta in self.keypoints.items():
            numbers.update(zip((f"{point}.{axis}" for axis in AXES), delta, strict=True))
        return {name: value for name, value in numbers.items() if value != CATALOG[name].neutral}

    @cached_property
    def is_neutral(self) -> bool:
        """True if nothing is changed."""
        return not (self.only or self.freeze or self.names())


FIELD_OF: Mapping[str, tuple[str, int | None]] = MappingProxyType(
    {control: (name, None) for name, control in SCALARS.items()}
    | {control: (name, i) for name, controls in VECTORS.items() for i, control in enumerate(controls)}
)
SHAPES = frozenset(ARKIT_NAMES)
POINT_OF: Mapping[str, tuple[str, int]] = MappingProxyType(
    {f"{name}.{axis}": (name, i) for name in KEYPOINT_NAMES for i, axis in enumerate(AXES)}
)


def apply(
    motion: Motion, controls: Controls, portrait: Portrait | None = None, space: MotionSpace | None = None
) -> Motion:
    """The motion with the controls applied; (..., 70) in, (..., 70) out. Neutral controls give the motion itself.

    The order: `gains`, `only`, `freeze`; `pose`; what is added; soft limits (`ditto.controls.limits`) of what all that does.

    Args:
        portrait: whose head it moves; None: one that looks straight into the camera.
        space: what the numbers mean; None: those of the lite bundle.

    Raises:
        ValueError: the space needs a portrait, and `portrait` is None.
    """
    if controls.is_neutral:
        return motion
    space = LITE_SPACE if space is None else space
    generated = space.to_head(motion.values, portrait)
    scaled = scale_regions(generated, controls, space, portrait)
    values, before = add_pose(scaled, controls, space, portrait)
    points = points_of(values).copy()
    if controls.eye_contact and moves_head(controls):
        points += controls.eye_contact * (space.contact_offset(values, portrait) - space.contact_offset(before, portrait))
    if any(controls.gaze):
        points += space.gaze_offset(*controls.gaze, portrait)
    if any(controls.lids):
        points += space.lids_offset(*controls.lids, portrait)
    if controls.blendshapes:
        points += to_offsets([controls.blendshapes.get(name, 0.0) for name in ARKIT_NAMES], space)
    for name, offset in controls.keypoints.items():
        points[..., keypoint_index(name), :] += offset
    # What the generated motion has beyond the limits stays, as far as it is not scaled down: without it, the smallest edit
    # of a strong expression would change it at once.
    kept = np.where(np.abs(scaled) < np.abs(generated), scaled, generated)
    limited = limit(with_points(values, points), space) + (kept - limit(kept, space))
    changed = space.from_head(limited, portrait).astype(np.float32)
    if not moves_head(controls) and not scales_head(controls):
        changed[..., : EXPRESSION.start] = motion.values[..., : EXPRESSION.start]
    return Motion(changed)


def scale_regions(values: Floats, controls: Controls, space: MotionSpace, portrait: Portrait | None) -> Floats:
    """Head values (..., 70) with `gains`, `only` and `freeze` applied. Gaze is scaled against the camera, not the head."""
    factor = region_factors(controls, space)
    blinks = controls.gains.get("blinks", 1.0)
    if factor is None and blinks == 1.0:
        return values
    points = points_of(values) - space.camera_hold(values, portrait)
    out = with_points(values, points)
    if factor is not None:
        out *= factor
    points = points_of(out) + space.camera_hold(out, portrait)
    if blinks != 1.0:
        points = space.scale_blinks(points, blinks, portrait)
    return with_points(out, points)


def region_factors(controls: Controls, space: MotionSpace) -> Floats | None:
    """(70,) factor on each head value; None where all are one."""
    gains = [(space.regions[name], factor) for name, factor in controls.gains.items() if name != "blinks" and factor != 1.0]
    if not (gains or controls.only or controls.freeze):
        return None
    factors = np.ones_like(space.regions["all"])
    for mask, factor in gains:
        factors *= 1.0 + mask * (factor - 1.0)
    if controls.only:
        factors *= np.max([space.regions[name] for name in controls.only], axis=0)
    for name in controls.freeze:
        factors *= 1.0 - space.regions[name]
    return factors


def add_pose(
    values: Floats, controls: Controls, space: MotionSpace, portrait: Portrait | None
) -> tuple[Floats, Floats]:
    """Head values (..., 70) with the controls of the head applied, and before: with what they leave of the generated pose.

    In both the eyes hold the camera against the generated pose alone.
    """
    generated = values
    hold = controls.pose_hold
    if controls.pose is not None:
        generated = values.copy()
        generated[..., DEGREES] *= 1.0 - hold
        points = points_of(values) + space.camera_hold(generated, portrait) - space.camera_hold(values, portrait)
        generated = with_points(generated, points)
    out = generated.copy()
    if controls.pose is not None:
        out[..., DEGREES] += hold * space.degrees_against_camera(controls.pose, portrait)
    out[..., 0] = (1.0 + out[..., 0]) * controls.zoom - 1.0
    out[..., TRANSLATION.start : TRANSLATION.start + 2] += controls.shift
    turn = (controls.pitch_degrees, controls.yaw_degrees, controls.roll_degrees)
    return (space.turn_head(out, turn, portrait) if any(turn) else out), generated


def moves_head(controls: Controls) -> bool:
    """Whether the controls add anything to the pose."""
    turned = controls.pitch_degrees or controls.yaw_degrees or controls.roll_degrees
    return bool(turned or controls.pose is not None or controls.zoom != 1.0 or any(controls.shift))


def scales_head(controls: Controls) -> bool:
    """Whether the controls scale the generated pose."""
    scaled = any(controls.gains.get(name, 1.0) != 1.0 for name in ("head", "all"))
    return scaled or bool(controls.only) or not {"head", "all"}.isdisjoint(controls.freeze)


def points_of(values: Floats) -> Floats:
    """(..., 21, 3) keypoint changes of head values (..., 70)."""
    return values[..., EXPRESSION].reshape(*values.shape[:-1], KEYPOINTS, 3)


def with_points(values: Floats, points: Floats) -> Floats:
    """Head values (..., 70) with other keypoint changes (..., 21, 3)."""
    out = values.copy()
    out[..., EXPRESSION] = points.reshape(*values.shape[:-1], 3 * KEYPOINTS)
    return out


def keypoint_index(name: str | int) -> int:
    """Index of a keypoint by name or index; raises ValueError for neither."""
    if isinstance(name, str) and name in KEYPOINT_NAMES:
        return KEYPOINT_NAMES.index(name)
    if isinstance(name, int) and not isinstance(name, bool) and 0 <= name < KEYPOINTS:
        return name
    raise unknown(f"keypoints out of 0 to {KEYPOINTS - 1} or their names", name, KEYPOINT_NAMES)


def check_vector(name: str, value: Any, controls: tuple[str, ...]) -> tuple[float, ...]:
    """The numbers of some controls as floats. Raises ValueError or TypeError for another count, kind or range."""
    try:
        numbers = tuple(value)
    except TypeError:
        raise TypeError(f"expected {name} as {len(controls)} numbers, got {value!r}; give a tuple of them") from None
    if isinstance(value, str) or len(numbers) != len(controls):
        raise ValueError(f"expected {name} as {len(controls)} numbers, got {value!r}; give a tuple of them")
    given = enumerate(zip(controls, numbers, strict=True))
    return tuple(CATALOG[control].check(number, f"{name}[{i}]") for i, (control, number) in given)


def check_weights(name: str, values: Mapping[str, float], known: tuple[str, ...], prefix: str) -> Mapping[str, float]:
    """Numbers by name without the neutral ones. Raises ValueError or TypeError for another name, kind or range."""
    out = {}
    for key, value in expect_mapping(name, values).items():
        if key not in known:
            raise unknown(f"names in {name}", key, known)
        control = CATALOG[f"{prefix}{key}"]
        number = control.check(value, f"{name}[{key!r}]")
        if number != control.neutral:
            out[key] = number
    return MappingProxyType(out)


def check_regions(name: str, regions: Any) -> tuple[str, ...]:
    """Names of regions as a tuple. Raises ValueError or TypeError for others."""
    if isinstance(regions, str) or not hasattr(regions, "__iter__"):
        raise TypeError(f"expected {name} as names of regions, as ('lips', 'jaw'), got {regions!r}; write them so")
    for region in regions:
        if region not in REGIONS:
            raise unknown(f"regions in {name}", region, REGIONS)
    return tuple(regions)


def expect_mapping(name: str, values: Any) -> Mapping[Any, Any]:
    """The values, if they are a mapping; raises TypeError otherwise."""
    if not isinstance(values, Mapping):
        raise TypeError(f"expected {name} as values by name, got {values!r}; write {{name: value}}")
    return values


NEUTRAL = Controls()
HEAD_STILL = Controls(gains={"head": 0.0})
