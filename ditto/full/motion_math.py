"""The arithmetic of the released pipeline's motion: angles from logits, keypoints from a motion, averages over time.

A released motion vector (265) is laid out as in `ditto.motion.motion`, with logits in the 66 places of an angle.

K: keypoints, T: frames.

Source: LivePortrait (arXiv:2407.03168), eq. 2, and the released Ditto at e9191cf; formulas as recorded under
tests/fixtures/reference (wiring_motion_math).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.motion.motion import BIN_DEGREES, KEYPOINTS, LAYOUT_265, rotation_matrix

Floats = npt.NDArray[np.float64]

ANGLES = "pitch", "yaw", "roll"
LAYOUT = LAYOUT_265


class Pose(NamedTuple):
    """The motion of a face with angles in degrees, from which its keypoints are computed.

    Attributes:
        scale: model units per canonical unit.
        degrees: (3,) pitch, yaw, roll.
        t: (3,) model units; the third is not used.
        exp: (63,) offsets of the keypoints, camera frame, canonical units.
    """

    scale: float
    degrees: Floats
    t: Floats
    exp: Floats


def degrees_of(logits: npt.ArrayLike) -> Floats:
    """(..., 66) logits -> (...,) degrees: the expectation over the bins."""
    x = np.asarray(logits, np.float64)
    weights = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray((weights * BIN_DEGREES).sum(-1) / weights.sum(-1))


def pose_of(vector: npt.ArrayLike) -> Pose:
    """The pose of a released motion vector (265,)."""
    v = np.asarray(vector, np.float64)
    degrees = degrees_of(np.stack([v[LAYOUT[name]] for name in ANGLES]))
    return Pose(float(v[0] + 1.0), degrees, v[LAYOUT["t"]], v[LAYOUT["exp"]])


def posed_keypoints(canonical: npt.ArrayLike, pose: Pose) -> Floats:
    """Keypoints (K, 3) in model units: canonical ones (63,) or (K, 3) deformed, turned, scaled and shifted in x and y."""
    kp = np.asarray(canonical, np.float64).reshape(KEYPOINTS, 3)
    turned: Floats = np.einsum("ki,ij->kj", kp, rotation_matrix(*pose.degrees))
    x: Floats = pose.scale * (turned + pose.exp.reshape(KEYPOINTS, 3))
    x[:, :2] += pose.t[:2]
    return x


def smooth_rows(rows: npt.ArrayLike, width: int) -> Floats:
    """Moving average of rows (T, ...) over `width` rows; the window shrinks at the ends."""
    x = np.asarray(rows, np.float64)
    half = width // 2
    return np.stack([x[max(0, i - half) : i + half + 1].mean(0) for i in range(len(x))])


def mirror_index(index: int, size: int) -> int:
    """The source frame, of `size`, for frame `index`: forwards, then backwards, and so on; each end counts twice."""
    pass_number, place = divmod(max(index, 0), size)
    return place if pass_number % 2 == 0 else size - 1 - place
