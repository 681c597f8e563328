"""The motion space of the full bundle: LivePortrait's, relative to the portrait as its own motion extractor sees it.

Source: LivePortrait (arXiv:2407.03168), eq. 2: `x = s (c R + delta) + t`, delta in the camera frame.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ditto.full.cropping import FACE
from ditto.full.retargeting import GAZE_PITCH, GAZE_YAW, turn_eyes
from ditto.full.source import Source
from ditto.motion.eyes import CAMERA_HOLD
from ditto.motion.map import FULL_MAP
from ditto.motion.motion import (
    DEGREES,
    EXPRESSION,
    IRISES,
    KEYPOINTS,
    TEMPLATE_APERTURE,
    TRANSLATION,
    UPPER_LIDS,
    Keypoint,
    euler_degrees,
)
from ditto.motion.regions import region_masks
from ditto.motion.space import rotation_of, turn_expression
from ditto.motion.style import scale_motion
from ditto.portrait.portrait import Portrait

RIGHT_EYE = [Keypoint.RIGHT_IRIS, Keypoint.RIGHT_UPPER_LID]
LEFT_EYE = [Keypoint.LEFT_IRIS, Keypoint.LEFT_UPPER_LID]

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


class FullSpace:
    """`ditto.motion.space.MotionSpace` of released motion: degrees added to the source's, expression in the camera frame
    of the head as it is turned, in canonical units, translation in model units of the released crop.

    Args:
        source_of: portrait -> its source.
    """

    name = "full"
    keypoints = Keypoint
    regions = region_masks(lids_in_irises=True)
    map = FULL_MAP

    def __init__(self, source_of: Callable[[Portrait], Source]) -> None:
        self._source_of = source_of

    def to_head(self, values: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        source, unit = self._seen(portrait)
        rotation = rotation_of(source.pose.degrees + np.asarray(values, np.float64)[..., DEGREES])
        out = turn_expression(values, np.swapaxes(rotation, -1, -2), source.pose.scale / unit)
        out[..., TRANSLATION] /= unit
        return out

    def from_head(self, values: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        source, unit = self._seen(portrait)
        rotation = rotation_of(source.pose.degrees + np.asarray(values, np.float64)[..., DEGREES])
        out = turn_expression(values, rotation, unit / source.pose.scale)
        out[..., TRANSLATION] *= unit
        return out

    def turn_head(self, values: npt.ArrayLike, degrees: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        rest = self._seen(portrait)[0].pose.degrees
        out = np.array(values, np.float64)
        turned = rotation_of(np.asarray(degrees, np.float64)) @ rotation_of(rest + out[..., DEGREES])
        out[..., DEGREES] = euler_degrees(turned) - rest
        return out

    def degrees_against_camera(self, degrees: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        return np.asarray(degrees, np.float64) - self._seen(portrait)[0].pose.degrees

    def camera_hold(self, values: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        """Nothing: `ditto.full.retargeting` turns the eyes back by a quarter of the head's turn when a frame is drawn."""
        return np.zeros((*np.shape(values)[:-1], KEYPOINTS, 3))

    def contact_offset(self, values: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        """What `ditto.full.retargeting` leaves."""
        pitch, yaw, _ = np.moveaxis(np.asarray(values, np.float64)[..., DEGREES], -1, 0)
        return self.gaze_offset((1.0 - GAZE_YAW) * yaw, -(1.0 - GAZE_PITCH) * pitch, portrait)

    def gaze_offset(self, right_degrees: npt.ArrayLike, down_degrees: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        """By the released code's shift of an iris keypoint per degree."""
        right, down = np.broadcast_arrays(np.asarray(right_degrees, np.float64), np.asarray(down_degrees, np.float64))
        out = np.zeros((*right.shape, 3 * KEYPOINTS))
        for index in np.ndindex(right.shape):
            out[index] = turn_eyes(out[index], float(right[index]), float(down[index]))
        return out.reshape(*right.shape, KEYPOINTS, 3) * self._face_units(portrait)

    def lids_offset(self, right: npt.ArrayLike, left: npt.ArrayLike, portrait: Portrait | None) -> Floats:
        """By LivePortrait's eye retargeting; nothing where the bundle does not have it. Keypoints of both eyes follow the
        mean."""
        closing = np.stack([np.asarray(right, np.float64), np.asarray(left, np.float64)], -1)
        share: Floats = np.zeros((*closing.shape[:-1], KEYPOINTS, 1)) + closing.mean(-1)[..., None, None]
        share[..., RIGHT_EYE, 0], share[..., LEFT_EYE, 0] = closing[..., :1], closing[..., 1:]
        offset: Floats = share * self._closure(portrait)
        return offset

    def scale_blinks(self, points: Floats, factor: float, portrait: Portrait | None) -> Floats:
        """Of the part along LivePortrait's eye retargeting; nothing where the bundle does not have it."""
        closure = self._closure(portrait)
        length = float((closure**2).sum())
        if length == 0.0:
            return points
        closed: Floats = np.maximum((points * closure).sum((-1, -2), keepdims=True) / length, 0.0)
        return points + (factor - 1.0) * closed * closure

    def idle_motion(self, values: npt.ArrayLike, portrait: Portrait | None) -> Array:
        """Head, gaze and blinks; brows and lips stay. Gaze by the released code's degrees, blinks by LivePortrait's eye
        retargeting where the bundle has it."""
        source, unit = self._seen(portrait)
        out = np.array(values, np.float64)
        points = out[EXPRESSION].reshape(KEYPOINTS, 3)
        irises, lids = points[list(IRISES), :2].mean(0), points[list(UPPER_LIDS), 1].mean()
        right, down = np.degrees(np.arcsin(np.clip(irises / CAMERA_HOLD, -1.0, 1.0)))
        blink = float(np.clip(lids / TEMPLATE_APERTURE, 0.0, 1.0))
        out[TRANSLATION] *= unit
        out[EXPRESSION] = turn_eyes(blink * source.eye_closure, right, down)
        return out.astype(np.float32)

    def change_style(self, values: npt.ArrayLike, strength: float, portrait: Portrait | None) -> Array:
        """The brows' change by an emotion is scaled too: we do not know which part of it comes from the emotion."""
        before = np.asarray(values, np.float32)
        if strength == 1.0:
            return before
        return self.from_head(scale_motion(self.to_head(before, portrait), strength), portrait).astype(np.float32)

    def _face_units(self, portrait: Portrait | None) -> float:
        """Face units per canonical unit."""
        source, unit = self._seen(portrait)
        return float(source.pose.scale / unit)

    def _closure(self, portrait: Portrait | None) -> Floats:
        """(21, 3) change of keypoints that closes both eyes, head values of a head in the source's pose."""
        source, unit = self._seen(portrait)
        turned: Floats = source.eye_closure.reshape(KEYPOINTS, 3) @ rotation_of(source.pose.degrees).T
        return turned * (source.pose.scale / unit)

    def _seen(self, portrait: Portrait | None) -> tuple[Source, float]:
        """The source of a portrait, and model units of the released crop per face unit."""
        if portrait is None:
            raise ValueError(
                "expected a portrait for a motion of the full bundle, which is relative to one, got None; name it"
            )
        source = self._source_of(portrait)
        face_px = portrait.scale * len(portrait.crop) / 2 * _factor(portrait.crop_to_picture)
        model_px = FACE.size / 2 * _factor(source.crop_to_picture)
        return source, face_px / model_px


def _factor(matrix: Floats) -> float:
    """How much an affine (3, 3) enlarges."""
    (a, b), (c, d) = matrix[:2, :2].tolist()
    return float(np.sqrt(abs(a * d - b * c)))
