"""Motion: the explicit, identity-agnostic numbers between speech and pixels.

70 numbers a frame: `scale - 1 (1) | pitch, yaw, roll in degrees (3) | translation (3) | expression (21 x 3)`. The
published networks code each angle as 66 bins, 265 numbers in all (Ditto, arXiv:2411.19509): `pack_265` and `unpack_265`
convert.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.media.rates import FPS as FPS

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait

Array = npt.NDArray[np.float32]


class Keypoint(IntEnum):
    """The 21 implicit keypoints by the part of the face that each moves; right and left are the person's.

    The indices are LivePortrait's (arXiv:2407.03168); the lite bundle was trained with these meanings.
    """

    FOREHEAD = 0
    RIGHT_BROW = 1
    LEFT_BROW = 2
    RIGHT_CHEEK = 3
    NOSE_TIP = 4
    NECK = 5
    RIGHT_MOUTH_CORNER = 6
    LEFT_CHEEK = 7
    RIGHT_JAW = 8
    LEFT_JAW = 9
    GLABELLA = 10
    RIGHT_IRIS = 11
    LEFT_MOUTH_CORNER = 12
    RIGHT_UPPER_LID = 13
    UPPER_INNER_LIP = 14
    LEFT_IRIS = 15
    LEFT_UPPER_LID = 16
    LOWER_INNER_LIP = 17
    LOWER_LIDS = 18
    CHIN = 19
    UPPER_OUTER_LIP = 20


KEYPOINTS = len(Keypoint)
MOTION_SIZE = 1 + 3 + 3 + 3 * KEYPOINTS  # 70
MOST = 1000.0  # of any number of a motion: no head turns by more degrees
SCALE, DEGREES, TRANSLATION, EXPRESSION = slice(0, 1), slice(1, 4), slice(4, 7), slice(7, MOTION_SIZE)
UPPER_LIDS = (Keypoint.RIGHT_UPPER_LID, Keypoint.LEFT_UPPER_LID)
IRISES = (Keypoint.RIGHT_IRIS, Keypoint.LEFT_IRIS)
EYES = (*IRISES, *UPPER_LIDS, Keypoint.LOWER_LIDS)
INNER_LIPS = (Keypoint.UPPER_INNER_LIP, Keypoint.LOWER_INNER_LIP)
MOUTH_CORNERS = (Keypoint.RIGHT_MOUTH_CORNER, Keypoint.LEFT_MOUTH_CORNER)
LIPS = (*MOUTH_CORNERS, *INNER_LIPS, Keypoint.CHIN, Keypoint.UPPER_OUTER_LIP)
BROWS = (Keypoint.RIGHT_BROW, Keypoint.LEFT_BROW)
CHEEKS = (Keypoint.RIGHT_CHEEK, Keypoint.LEFT_CHEEK)
JAW = (Keypoint.RIGHT_JAW, Keypoint.LEFT_JAW)
# The slow channels beside head pose: forehead, brows, nose and glabella move slowly. They are smoothed, and change over from
# one window or one source of motion to the next gradually.
SLOW_KEYPOINTS = (Keypoint.FOREHEAD, *BROWS, Keypoint.NOSE_TIP, Keypoint.GLABELLA)
# Face units between the inner lips where they are pressed together, against lips that just touch; chosen by eye.
PRESS_GAP = -0.006
# Face units between an upper lid's keypoint and `LOWER_LIDS` of the template face (`tests/motion/test_eyes.py`).
TEMPLATE_APERTURE = 0.074

BINS = 66  # of an angle in the published coding
BIN_DEGREES: Array = (3.0 * np.arange(BINS) - 97.5).astype(np.float32)
BIN_SPREAD_DEGREES = 3.5  # width of the soft histogram written by `encode_angle`
LAYOUT_265 = MappingProxyType(
    {
        "scale": slice(0, 1),
        "pitch": slice(1, 67),
        "yaw": slice(67, 133),
        "roll": slice(133, 199),
        "t": slice(199, 202),
        "exp": slice(202, 265),
    }
)
PACKED_SIZE = LAYOUT_265["exp"].stop  # 265


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
    total: npt.NDArray[np.float64] = weights.sum(-1)
    moment: npt.NDArray[np.float64] = (weights * BIN_DEGREES).sum(-1)
    return (moment / np.maximum(total, 1e-9)).astype(np.float32)


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
    angles: npt.NDArray[np.float64] = np.degrees(np.stack([pitch, yaw, roll], -1))
    return angles


def pack_265(values: npt.ArrayLike) -> Array:
    """(..., 70) -> (..., 265) as the published networks code a motion: each angle as 66 bins that sum to one.

    Raises:
        ValueError: the last dimension is not 70.
    """
    v = _sized(values, MOTION_SIZE)
    bins = encode_angle(v[..., DEGREES]).reshape(*v.shape[:-1], 3 * BINS)
    return np.concatenate([v[..., SCALE], bins, v[..., TRANSLATION], v[..., EXPRESSION]], -1)


def unpack_265(packed: npt.ArrayLike) -> Array:
    """(..., 265) as of `pack_265` -> (..., 70): the expectation of each angle's bins, within 0.001 degrees.

    Raises:
        ValueError: the last dimension is not 265.
    """
    v = _sized(packed, PACKED_SIZE)
    degrees = [decode_angle(v[..., LAYOUT_265[name]])[..., None] for name in ("pitch", "yaw", "roll")]
    return np.concatenate([v[..., LAYOUT_265["scale"]], *degrees, v[..., LAYOUT_265["t"]], v[..., LAYOUT_265["exp"]]], -1)


def _sized(values: npt.ArrayLike, size: int) -> Array:
    array = np.asarray(values, np.float32)
    if array.ndim == 0 or array.shape[-1] != size:
        other = {MOTION_SIZE: "; unpack 265 numbers with Motion.from_265", PACKED_SIZE: "; give the published 265"}[size]
        raise ValueError(f"expected a motion of {size} numbers a frame, got shape {array.shape}{other}")
    return array


@dataclass(frozen=True, eq=False)
class Motion:
    """Motion of one or many frames, read-only: `values` (..., 70) float32, which `np.asarray(motion)` gives too.

    Raises:
        ValueError: the last dimension is not 70.
    """

    values: Array

    def __post_init__(self) -> None:
        view = _sized(self.values, MOTION_SIZE).view()
        view.flags.writeable = False
        object.__setattr__(self, "values", view)

    @classmethod
    def from_265(cls, packed: npt.ArrayLike) -> Motion:
        """Motion of (..., 265) numbers with 66 bins an angle (weights, as `as_265` gives them).

        Raises:
            ValueError: the last dimension is not 265.
        """
        return cls(unpack_265(packed))

    def as_265(self) -> Array:
        """(..., 265): the same in the published coding, 66 bins an angle."""
        return pack_265(self.values)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[np.generic]:
        """(..., 70), for `numpy.asarray`: the read-only `values`, or a copy where another type or a copy is asked for.

        Raises:
            ValueError: `copy=False` with another type.
        """
        if copy:
            return np.array(self.values, dtype)
        values = np.asarray(self.values, dtype)
        if copy is False and values is not self.values:
            raise ValueError(f"expected copy=True or dtype float32, got copy=False with {np.dtype(dtype)}; leave copy out")
        return values

    @property
    def scale(self) -> Array:
        """(...,) factor on the source's scale."""
        return self.values[..., 0] + np.float32(1.0)

    @property
    def pitch_degrees(self) -> Array:
        return self.values[..., 1]

    @property
    def yaw_degrees(self) -> Array:
        return self.values[..., 2]

    @property
    def roll_degrees(self) -> Array:
        return self.values[..., 3]

    @property
    def translation(self) -> Array:
        """(..., 3) face units."""
        return self.values[..., TRANSLATION]

    @property
    def expression(self) -> Array:
        """(..., 21, 3) face units, camera frame of the motion."""
        return self.values[..., EXPRESSION].reshape(*self.values.shape[:-1], KEYPOINTS, 3)

    def __len__(self) -> int:
        return int(self.values.shape[0]) if self.values.ndim > 1 else 1

    def __getitem__(self, index: int | slice) -> Motion:
        return Motion(self.values[index])


def rest_motion(frames: int) -> Motion:
    """`frames` frames of the face at rest: no rotation, no translation, neutral expression."""
    return Motion(np.zeros((frames, MOTION_SIZE), np.float32))


class RenderPose(NamedTuple):
    """One frame as a renderer takes it: pose and expression on a portrait.

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


def retarget(portrait: Portrait, motion: Motion) -> RenderPose:
    """A motion (70,) carried over to a portrait: one frame as a renderer takes it.

    Rotation composes in camera axes after the portrait's own; lid travel is scaled from the template's aperture to
    the portrait's; the portrait's own expression is taken off, so that rest means closed lips.
    """
    values = motion.values.astype(np.float64)
    if values.ndim != 1:
        raise ValueError(f"expected one frame of motion (70,), got {values.shape}; index the motion first")
    turn = rotation_matrix(*values[DEGREES])
    rotation = portrait.rotation @ turn
    scale = float(portrait.scale * (1.0 + values[0]))
    translation = portrait.translation + scale * values[TRANSLATION]
    delta = values[EXPRESSION].reshape(KEYPOINTS, 3) @ turn.T
    lower = portrait.canonical_keypoints[Keypoint.LOWER_LIDS, 1]
    for lid in UPPER_LIDS:
        delta[lid, 1] *= (lower - portrait.canonical_keypoints[lid, 1]) / TEMPLATE_APERTURE
    return RenderPose(scale, rotation, translation, delta - portrait.expression @ portrait.rotation.T)


def transform_keypoints(
    canonical: npt.ArrayLike, scale: float, rotation: npt.ArrayLike, translation: npt.ArrayLike, delta: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Posed keypoints (21, 3) in model units, `s (c R + delta) + t`, delta in the camera frame.

    Source: LivePortrait (arXiv:2407.03168), eq. 2.
    """
    c, r, t, d = (np.asarray(a, np.float64) for a in (canonical, rotation, translation, delta))
    return scale * (c @ r + d) + t
