"""Motion spaces: what the numbers of a motion mean on a portrait, seen from the portrait's head.

Controls, transitions and idle motion are defined in the head frame: x right, y down, z away from the camera, turning with
the head, in face units. A motion space carries a motion there and back, so that an edit arrives at the same place of the
face in every space, whatever the pose of the portrait.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from ditto.motion.eyes import CAMERA_HOLD, LID_FOLLOWS_GAZE, hold_gaze
from ditto.motion.map import LITE_MAP, MotionMap
from ditto.motion.motion import (
    DEGREES,
    EXPRESSION,
    IRISES,
    KEYPOINTS,
    TEMPLATE_APERTURE,
    UPPER_LIDS,
    Keypoint,
    euler_degrees,
    rotation_matrix,
)
from ditto.motion.regions import Masks, region_masks
from ditto.motion.style import scale_motion
from ditto.portrait.portrait import Portrait

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


class MotionSpace(Protocol):
    """What 70 numbers mean on a portrait.

    *Head values* are the same 70 numbers with translation in face units and the expression in the head frame, face
    units. Pose stays as the space has it: relative to the portrait.

    A portrait of None is one that looks straight into the camera.

    Attributes:
        name: of the space.
        keypoints: what each keypoint moves.
        regions: (70,) share of each head value in each region, by name.
        map: what each number does and how far it may go.

    Raises:
        ValueError: every method of a space whose numbers depend on the portrait, for a portrait of None.
    """

    name: str
    keypoints: type[Keypoint]
    regions: Masks
    map: MotionMap

    def to_head(self, values: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        """Head values (..., 70) of a motion (..., 70)."""

    def from_head(self, values: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        """The motion (..., 70) of head values (..., 70)."""

    def turn_head(self, values: npt.ArrayLike, degrees: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        """Head values (..., 70) with the head turned by (..., 3) degrees of pitch, yaw and roll about its own axes."""

    def degrees_against_camera(self, degrees: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        """The motion's (..., 3) degrees of a head that has (..., 3) degrees of pitch, yaw and roll against the camera."""

    def camera_hold(self, values: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        """(..., 21, 3) the part of a generated motion (..., 70), head values, that keeps the eyes on the camera as the head
        turns."""

    def contact_offset(self, values: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        """(..., 21, 3) what keeps the eyes on the camera while an edit turns the head to the pose of `values` (..., 70)."""

    def gaze_offset(self, right_degrees: npt.ArrayLike, down_degrees: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        """(..., 21, 3) change of keypoints, head values, that turns both eyes; lids follow as far as the space knows it."""

    def lids_offset(self, right: npt.ArrayLike, left: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        """(..., 21, 3) change of keypoints, head values, that closes each eye by a share; 1 closes an open eye."""

    def scale_blinks(self, points: Floats, factor: float, portrait: Portrait | None) -> Floats:
        """Head values (..., 21, 3) with `factor` times as much closing of the lids; opening stays."""

    def idle_motion(self, values: npt.ArrayLike, portrait: Portrait | None) -> Array:
        """The motion (70,) of an idle frame: head values as `ditto.motion.idle` makes them for the lite face."""

    def change_style(self, values: npt.ArrayLike, strength: float, portrait: Portrait | None) -> Array:
        """The motion (..., 70) with `strength` times as much motion of head and brows; with 1 the same numbers.

        In the head frame nothing else changes, but irises that stay on the camera.

        Args:
            values: (..., 70).
            strength: as of `ditto.motion.style.style_strength`.
        """


def turn_expression(values: npt.ArrayLike, rotation: Floats, scale: float = 1.0) -> Floats:
    """Values (..., 70) with each keypoint change (row vector) times a rotation (..., 3, 3) and a scale."""
    out = np.array(values, np.float64)
    points = out[..., EXPRESSION].reshape(*out.shape[:-1], KEYPOINTS, 3)
    turned = points @ rotation
    out[..., EXPRESSION] = (turned if scale == 1.0 else scale * turned).reshape(*out.shape[:-1], 3 * KEYPOINTS)
    return out


def rotation_of(degrees: Floats) -> Floats:
    """Rotations (..., 3, 3) of (..., 3) degrees of pitch, yaw and roll."""
    return rotation_matrix(*np.moveaxis(degrees, -1, 0))


class LiteSpace:
    """The lite bundle's: rotation composed after the portrait's in camera axes, expression in the motion's own camera
    frame, everything in face units (docs/motion.md)."""

    name = "lite"
    keypoints = Keypoint
    regions = region_masks()
    map = LITE_MAP

    def to_head(self, values: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        rotation = rotation_of(np.asarray(values, np.float64)[..., DEGREES])
        return turn_expression(values, np.swapaxes(rotation, -1, -2))

    def from_head(self, values: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        return turn_expression(values, rotation_of(np.asarray(values, np.float64)[..., DEGREES]))

    def turn_head(self, values: npt.ArrayLike, degrees: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        out = np.array(values, np.float64)
        own = np.eye(3) if portrait is None else portrait.rotation
        turned = own.T @ rotation_of(np.asarray(degrees, np.float64)) @ own @ rotation_of(out[..., DEGREES])
        out[..., DEGREES] = euler_degrees(turned)
        return out

    def degrees_against_camera(self, degrees: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        own = np.eye(3) if portrait is None else portrait.rotation
        return euler_degrees(own.T @ rotation_of(np.asarray(degrees, np.float64)))

    def camera_hold(self, values: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        degrees = np.asarray(values, np.float64)[..., DEGREES]
        out = np.zeros((*degrees.shape[:-1], KEYPOINTS, 3))
        out[..., list(IRISES), :2] = hold_gaze(degrees)[..., None, :]
        return out

    contact_offset = camera_hold

    def gaze_offset(self, right_degrees: npt.ArrayLike, down_degrees: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        right, down = (CAMERA_HOLD * np.sin(np.radians(np.asarray(a, np.float64))) for a in (right_degrees, down_degrees))
        out = np.zeros((*right.shape, KEYPOINTS, 3))
        out[..., list(IRISES), 0], out[..., list(IRISES), 1] = right[..., None], down[..., None]
        out[..., list(UPPER_LIDS), 1] = (np.where(down < 0.0, *LID_FOLLOWS_GAZE) * down)[..., None]
        return out

    def lids_offset(self, right: npt.ArrayLike, left: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        closing = TEMPLATE_APERTURE * np.stack([np.asarray(right, np.float64), np.asarray(left, np.float64)], -1)
        out = np.zeros((*closing.shape[:-1], KEYPOINTS, 3))
        out[..., list(UPPER_LIDS), 1] = closing
        return out

    def scale_blinks(self, points: Floats, factor: float, portrait: Portrait | None) -> Floats:
        out = points.copy()
        lids = out[..., list(UPPER_LIDS), 1]
        out[..., list(UPPER_LIDS), 1] = np.minimum(lids, 0.0) + factor * np.maximum(lids, 0.0)  # y down: positive closes
        return out

    def idle_motion(self, values: npt.ArrayLike, portrait: Portrait | None) -> Array:
        return self.from_head(values, portrait).astype(np.float32)

    def change_style(self, values: npt.ArrayLike, strength: float, portrait: Portrait | None) -> Array:
        """The gaze stays on the camera (`hold_gaze`)."""
        before = np.asarray(values, np.float32)
        if strength == 1.0:
            return before
        out = scale_motion(self.to_head(before, portrait), strength)
        points = out[..., EXPRESSION].reshape(*out.shape[:-1], KEYPOINTS, 3)
        hold = hold_gaze(out[..., DEGREES]) - hold_gaze(before[..., DEGREES])
        points[..., list(IRISES), :2] += hold[..., None, :]
        return self.from_head(out, portrait).astype(np.float32)


LITE_SPACE = LiteSpace()
