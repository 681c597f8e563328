"""Soft limits: a motion that stays on the face.

Inside the safe ranges of a motion space's map (`ditto.motion.map`) nothing changes, bit for bit. Beyond, a number goes on with
the same slope and comes to rest at the end of its limit: no kink, and no input leaves the range of real faces.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto.motion.map import REACH, MotionMap
from ditto.motion.motion import EXPRESSION, MOTION_SIZE
from ditto.motion.space import MotionSpace

Floats = npt.NDArray[np.float64]

# Scale - 1, pitch, yaw, roll, translation: safe up to the first, at rest at the second. Degrees: one picture shows a head
# turned by 25 without tears (`python -m benchmarks.poses`, and its sheets at 20 and 30); the others are those of
# `Controls.zoom`, and .3 fu, where the surroundings begin to smear (../shared/renderer/spec.md, 1).
POSE = slice(0, EXPRESSION.start)
POSE_LOW = np.array([-0.40, -25.0, -25.0, -25.0, -0.30, -0.30, -0.30])
POSE_HIGH = np.array([0.60, 25.0, 25.0, 25.0, 0.30, 0.30, 0.30])
POSE_LEAST = np.array([-0.50, -40.0, -40.0, -40.0, -0.50, -0.50, -0.50])
POSE_MOST = np.array([1.00, 40.0, 40.0, 40.0, 0.50, 0.50, 0.50])


def limit(values: npt.ArrayLike, space: MotionSpace) -> Floats:
    """Head values (..., 70) within the range of real faces: every number, then what the map relates, then the parts as wholes.

    A relation moves only what no earlier relation measures, and a whole shrinks towards rest, so in the end all limits hold.

    Raises:
        ValueError: a number that is not finite.
    """
    out = np.array(values, np.float64)
    if not np.isfinite(out).all():
        raise ValueError("expected head values that are finite, got NaN or infinity; correct the motion")
    rows = out.reshape(-1, MOTION_SIZE)
    rows[:, POSE] = soften(rows[:, POSE], POSE_LOW, POSE_HIGH, POSE_LEAST, POSE_MOST)
    outside = ~_inside(rows[:, EXPRESSION], space.map)
    rows[outside, EXPRESSION] = _limit_face(rows[outside, EXPRESSION], space.map)
    return out


def _inside(face: Floats, face_map: MotionMap) -> npt.NDArray[np.bool_]:
    """(N,) whether expressions (N, 63) are in every safe range."""
    low, high = face_map.safe
    measures = face_map.measures(face)
    inside = ((measures >= low) & (measures <= high)).all(1)
    if face_map.wholes:
        inside &= (face_map.sizes(measures) <= [whole.safe for whole in face_map.wholes]).all(1)
    return np.asarray(inside)


def _limit_face(face: Floats, face_map: MotionMap) -> Floats:
    """Expressions (N, 63) within all limits."""
    face = soften(face, face_map.low, face_map.high, REACH * face_map.low, REACH * face_map.high)
    for relation in face_map.relations:
        measure = relation.measure(face)
        excess = soften(measure, relation.low, relation.high, relation.least, relation.most) - measure
        for i, share in relation.move.items():
            face[:, i] += share * excess
    if not face_map.wholes:
        return face
    sizes = face_map.sizes(face_map.measures(face))
    for whole, size in zip(face_map.wholes, sizes.T, strict=True):
        kept = soften(size, -whole.safe, whole.safe, -whole.most, whole.most)
        share = np.divide(kept, size, out=np.ones_like(size), where=size > whole.safe)
        for keypoint in whole.keypoints:
            face[:, 3 * keypoint : 3 * keypoint + 3] *= share[:, None]
    return face


def soften(
    values: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike, least: npt.ArrayLike, most: npt.ArrayLike
) -> Floats:
    """Values as they are from `low` to `high`; beyond, by a hyperbolic tangent, never past `least` and `most`.

    Continuous with its first derivative.
    """
    x = np.asarray(values, np.float64)
    inside = np.clip(x, low, high)
    room = np.where(x > inside, np.subtract(most, high), np.subtract(low, least))
    return np.where(x == inside, x, inside + room * np.tanh((x - inside) / room))
