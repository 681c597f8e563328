"""Motion: the explicit, identity-agnostic numbers between speech and pixels.

265 numbers a frame, `scale-1 (1) | pitch 66 | yaw 66 | roll 66 | translation 3 | expression 63`, as in Ditto
(arXiv:2411.19509). The compact form has 70: angles in degrees instead of bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ditto.portrait import Portrait

Array = npt.NDArray[np.float32]

FPS = 25  # motions, and so frames, a second
KEYPOINTS = 21
BINS = 66
MOTION_SIZE = 1 + 3 * BINS + 3 + 3 * KEYPOINTS  # 265
COMPACT_SIZE = 1 + 3 + 3 + 3 * KEYPOINTS  # 70
BIN_DEGREES: Array = (3.0 * np.arange(BINS) - 97.5).astype(np.float32)
BIN_SPREAD_DEGREES = 3.5  # width of the soft histogram written by `encode_angle`
LID_KEYPOINTS = (13, 16)  # upper lids, right and left
LOWER_LID = 18
TEMPLATE_APERTURE = 0.074  # face units between keypoints 13/16 and 18 of the template face

SCALE = slice(0, 1)
PITCH = slice(1, 67)
YAW = slice(67, 133)
ROLL = slice(133, 199)
TRANSLATION = slice(199, 202)
EXPRESSION = slice(202, 265)


def encode_angle(degrees: npt.ArrayLike) -> Array:
    """(...,) degrees -> (..., 66) bins that sum to one and whose expectation is the angle.

    A Gaussian wider than a bin: decoding gives the angle back within 1e-3 degrees for |angle| <= 85, where the bins
    still hold both its sides.
    """
    angle = np.asarray(degrees, np.float64)
    weights = np.exp(-0.5 * ((BIN_DEGREES - angle[..., None]) / BIN_SPREAD_DEGREES) ** 2)
    weights /= weights.sum(-1, keepdims=True)
    return weights.astype(np.float32)


def decode_angle(bins: npt.ArrayLike) -> Array:
    """(..., 66) bins (weights, negative ones ignored) -> (...,) degrees: their expectation."""
    weights = np.maximum(np.asarray(bins, np.float64), 0.0)
    total = weights.sum(-1)
    return ((weights * BIN_DEGREES).sum(-1) / np.maximum(total, 1e-9)).astype(np.float32)


def rotation_matrix(pitch: npt.ArrayLike, yaw: npt.ArrayLike, roll: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(...,) degrees -> (..., 3, 3), for row vectors: `(Rz(roll) Ry(yaw) Rx(pitch)).T`.

    Source: LivePortrait (arXiv:2407.03168), its released rotation convention.
    """
    p, y, r = (np.radians(np.asarray(a, np.float64)) for a in (pitch, yaw, roll))
    cp, sp, cy, sy, cr, sr = np.cos(p), np.sin(p), np.cos(y), np.sin(y), np.cos(r), np.sin(r)
    matrix = np.empty((*np.broadcast_shapes(p.shape, y.shape, r.shape), 3, 3))
    matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 0, 2] = cr * cy, cr * sy * sp - sr * cp, cr * sy * cp + sr * sp
    matrix[..., 1, 0], matrix[..., 1, 1], matrix[..., 1, 2] = sr * cy, sr * sy * sp + cr * cp, sr * sy * cp - cr * sp
    matrix[..., 2, 0], matrix[..., 2, 1], matrix[..., 2, 2] = -sy, cy * sp, cy * cp
    return np.swapaxes(matrix, -1, -2)


def euler_degrees(rotation: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(..., 3, 3) as from `rotation_matrix` -> (..., 3) pitch, yaw, roll in degrees."""
    m = np.swapaxes(np.asarray(rotation, np.float64), -1, -2)
    yaw = np.arcsin(np.clip(-m[..., 2, 0], -1.0, 1.0))
    pitch = np.arctan2(m[..., 2, 1], m[..., 2, 2])
    roll = np.arctan2(m[..., 1, 0], m[..., 0, 0])
    return np.degrees(np.stack([pitch, yaw, roll], -1))


@dataclass(frozen=True)
class Motion:
    """A frozen view of motion, (..., 265) float32.

    Raises:
        ValueError: if the last dimension is not 265.
    """

    values: Array

    def __post_init__(self) -> None:
        values = np.asarray(self.values, np.float32)
        if values.ndim == 0 or values.shape[-1] != MOTION_SIZE:
            raise ValueError(f"a motion has {MOTION_SIZE} numbers a frame, got shape {values.shape}")
        view = values.view()
        view.flags.writeable = False
        object.__setattr__(self, "values", view)

    @classmethod
    def from_compact(cls, compact: npt.ArrayLike) -> Motion:
        """(..., 70) `scale-1 | pitch yaw roll in degrees | t | exp` -> Motion."""
        c = np.asarray(compact, np.float32)
        if c.ndim == 0 or c.shape[-1] != COMPACT_SIZE:
            raise ValueError(f"a compact motion has {COMPACT_SIZE} numbers a frame, got shape {c.shape}")
        angles = encode_angle(c[..., 1:4])
        return cls(np.concatenate([c[..., :1], angles.reshape(*c.shape[:-1], 3 * BINS), c[..., 4:]], -1))

    @property
    def compact(self) -> Array:
        """(..., 70): angles decoded to degrees."""
        v = self.values
        angles = np.stack([self.pitch_degrees, self.yaw_degrees, self.roll_degrees], -1)
        return np.concatenate([v[..., SCALE], angles, v[..., 199:]], -1)

    @property
    def scale(self) -> Array:
        """(...,) factor on the source's scale."""
        return self.values[..., 0] + np.float32(1.0)

    @property
    def pitch_degrees(self) -> Array:
        return decode_angle(self.values[..., PITCH])

    @property
    def yaw_degrees(self) -> Array:
        return decode_angle(self.values[..., YAW])

    @property
    def roll_degrees(self) -> Array:
        return decode_angle(self.values[..., ROLL])

    @property
    def translation(self) -> Array:
        """(..., 3) face units."""
        return self.values[..., TRANSLATION]

    @property
    def expression(self) -> Array:
        """(..., 21, 3) face units, camera frame of the motion."""
        return self.values[..., EXPRESSION].reshape(*self.values.shape[:-1], KEYPOINTS, 3)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """(..., 265), for `numpy.asarray`: the read-only `values`, or a copy where another type or a copy is asked for.

        Raises:
            ValueError: `copy=False` with another type.
        """
        if copy:
            return np.array(self.values, dtype)
        values = np.asarray(self.values, dtype)
        if copy is False and values is not self.values:
            raise ValueError(f"a Motion is float32 without a copy, got copy=False with dtype {np.dtype(dtype)}")
        return values

    def __len__(self) -> int:
        return int(self.values.shape[0]) if self.values.ndim > 1 else 1

    def __getitem__(self, index: int | slice) -> Motion:
        return Motion(self.values[index])


def rest_motion(frames: int) -> Motion:
    """`frames` frames of the face at rest: no rotation, no translation, neutral expression."""
    return Motion.from_compact(np.zeros((frames, COMPACT_SIZE), np.float32))


class Drive(NamedTuple):
    """One frame as a renderer takes it.

    Attributes:
        scale: model units per face unit.
        rotation: (3, 3), row vectors.
        translation: (3,), model units.
        delta: (21, 3) keypoint change against the source portrait, head frame, face units.
    """

    scale: float
    rotation: npt.NDArray[np.float64]
    translation: npt.NDArray[np.float64]
    delta: npt.NDArray[np.float64]


def drive(portrait: Portrait, motion: Motion) -> Drive:
    """The drive of one frame: a motion (265,) carried over to a portrait.

    Rotation composes in camera axes after the portrait's own; lid travel is scaled from the template's aperture to
    the portrait's; the portrait's own expression is taken off, so that rest means closed lips.
    """
    compact = motion.compact.astype(np.float64)
    if compact.ndim != 1:
        raise ValueError(f"drive() takes one frame (265,), got {motion.values.shape}; index the motion first")
    turn = rotation_matrix(*compact[1:4])
    rotation = portrait.rotation @ turn
    scale = float(portrait.scale * (1.0 + compact[0]))
    translation = portrait.translation + scale * compact[4:7]
    delta = compact[7:].reshape(KEYPOINTS, 3) @ turn.T
    lower = portrait.canonical_keypoints[LOWER_LID, 1]
    for lid in LID_KEYPOINTS:
        delta[lid, 1] *= (lower - portrait.canonical_keypoints[lid, 1]) / TEMPLATE_APERTURE
    return Drive(scale, rotation, translation, delta - portrait.expression @ portrait.rotation.T)


def transform_keypoints(
    canonical: npt.ArrayLike, scale: float, rotation: npt.ArrayLike, translation: npt.ArrayLike, delta: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Posed keypoints (21, 3) in model units, `s (c R + delta) + t`, delta in the camera frame.

    Source: LivePortrait (arXiv:2407.03168), eq. 2.
    """
    c, r, t, d = (np.asarray(a, np.float64) for a in (canonical, rotation, translation, delta))
    return scale * (c @ r + d) + t
