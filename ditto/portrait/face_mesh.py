"""The face mesh: topology of the 478 landmarks, template, head fit, keypoints.

Head frame: x right (in the picture), y down, z away from the camera, face units (fu); origin between the ears.
Row vectors: `landmarks = scale_px (canonical @ rotation) + translation_px`. "Right" and "left" are the person's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from ditto.motion.motion import BROWS, CHEEKS, JAW, KEYPOINTS, Keypoint

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LANDMARKS = 478

with np.load(Path(__file__).with_name("face_mesh.npz")) as _mesh:
    TEMPLATE: Floats = _mesh["template"].astype(np.float64)  # (478, 3) fu
    FACE_TRIANGLES: Ints = _mesh["triangles"].astype(np.int64)  # (852, 3), mouth and eyes are holes
    MIRROR: Ints = _mesh["mirror"].astype(np.int64)  # (478,) the landmark on the other side of the face

# Contours run from the person's right to left, so from left to right in the picture; upper and lower pair up.
UPPER_INNER_LIP = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
LOWER_INNER_LIP = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
UPPER_OUTER_LIP = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291]
LOWER_OUTER_LIP = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291]
FACE_OVAL = [
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
]  # fmt: skip


class EyeIds(NamedTuple):
    """Landmarks of one eye. `upper`, `lower` (9 each) share their end points, the corners: first the one that lies
    outward; `upper_ring` (9) is the crease over `upper`, `upper_ring_2` (9) the row above, `lower_ring` (7) below."""

    upper: list[int]
    lower: list[int]
    upper_ring: list[int]
    upper_ring_2: list[int]
    lower_ring: list[int]
    iris: int  # centre; iris + 1 ... iris + 4 lie on its rim
    lid_keypoint: Keypoint
    iris_keypoint: Keypoint


RIGHT_EYE = EyeIds(
    [33, 246, 161, 160, 159, 158, 157, 173, 133],
    [33, 7, 163, 144, 145, 153, 154, 155, 133],
    [130, 247, 30, 29, 27, 28, 56, 190, 243],
    [226, 113, 225, 224, 223, 222, 221, 189, 244],
    [25, 110, 24, 23, 22, 26, 112],
    468,
    Keypoint.RIGHT_UPPER_LID,
    Keypoint.RIGHT_IRIS,
)
LEFT_EYE = EyeIds(
    [263, 466, 388, 387, 386, 385, 384, 398, 362],
    [263, 249, 390, 373, 374, 380, 381, 382, 362],
    [359, 467, 260, 259, 257, 258, 286, 414, 463],
    [446, 342, 445, 444, 443, 442, 441, 413, 464],
    [255, 339, 254, 253, 252, 256, 341],
    473,
    Keypoint.LEFT_UPPER_LID,
    Keypoint.LEFT_IRIS,
)
EYES = (RIGHT_EYE, LEFT_EYE)

# Landmarks that hardly move with expression: forehead and temples, nose, eye corners.
RIGID = [
    10, 338, 297, 332, 284, 251, 389, 356, 454, 127, 162, 21, 54, 103, 67, 109, 234,
    168, 6, 197, 195, 5, 4, 33, 133, 362, 263, 151, 2, 98, 327, 8,
]  # fmt: skip

MAX_SLOPE = 1.8  # depth per distance across the picture; chosen by eye on turned heads
# As in the prototype (../shared/renderer/spec.md, 2.4).
PARTED_LIPS = 0.018  # fu between the inner lips: a portrait with a wider gap shows an open mouth

NECK_ANCHOR: Floats = np.array([0.0, 0.95, 0.05])  # fu; rigid with the head, holds pitch when keypoints give the pose
_KEYPOINT_LANDMARKS: dict[Keypoint, list[int]] = {
    Keypoint.FOREHEAD: [10],
    Keypoint.RIGHT_BROW: [105, 66, 107],
    Keypoint.LEFT_BROW: [334, 296, 336],
    Keypoint.RIGHT_CHEEK: [50, 205],
    Keypoint.NOSE_TIP: [1, 4],
    Keypoint.RIGHT_MOUTH_CORNER: [61, 78],
    Keypoint.LEFT_CHEEK: [280, 425],
    Keypoint.RIGHT_JAW: [172, 58],
    Keypoint.LEFT_JAW: [397, 288],
    Keypoint.GLABELLA: [9, 8],
    Keypoint.RIGHT_IRIS: [468],
    Keypoint.LEFT_MOUTH_CORNER: [291, 308],
    Keypoint.RIGHT_UPPER_LID: [160, 159, 158],
    Keypoint.UPPER_INNER_LIP: [82, 13, 312],
    Keypoint.LEFT_IRIS: [473],
    Keypoint.LEFT_UPPER_LID: [387, 386, 385],
    Keypoint.LOWER_INNER_LIP: [87, 14, 317],
    Keypoint.LOWER_LIDS: [145, 374],
    Keypoint.CHIN: [152, 175],
    Keypoint.UPPER_OUTER_LIP: [37, 0, 267],
}


def _mirrored(keypoint: Keypoint) -> Keypoint:
    """The keypoint on the other side of the face."""
    side, _, part = keypoint.name.partition("_")
    other = {"RIGHT": "LEFT", "LEFT": "RIGHT"}.get(side)
    return Keypoint[f"{other}_{part}"] if other else keypoint


KEYPOINT_MIRROR: Ints = np.array([_mirrored(k) for k in Keypoint])

SELECTOR: Floats = np.zeros((KEYPOINTS, LANDMARKS))  # keypoint = mean of its landmarks; the row of the neck is empty
for _k, _ids in _KEYPOINT_LANDMARKS.items():
    SELECTOR[_k, _ids] = 1.0 / len(_ids)


def _strip(upper: Sequence[int], lower: Sequence[int]) -> list[tuple[int, int, int]]:
    """Triangles between two contours of equal length that share their ends."""
    corners = zip(upper, upper[1:], lower, lower[1:], strict=False)
    both = [t for a, b, c, d in corners for t in ((a, b, c), (b, d, c))]
    return [t for t in both if len(set(t)) == 3]


MOUTH_TRIANGLES: Ints = np.array(_strip(UPPER_INNER_LIP, LOWER_INNER_LIP))
EYE_TRIANGLES: Ints = np.array([t for eye in EYES for t in _strip(eye.upper, eye.lower)])


class Geometry(NamedTuple):
    """Where the face is in the source crop.

    Attributes:
        landmarks: (478, 3) crop pixels.
        canonical: (478, 3) fu, head frame: all of the source's shape and expression.
        scale_px: pixels per fu.
        rotation: (3, 3), row vectors.
        translation_px: (3,).
        keypoints: (21, 3) fu, head frame, of `canonical` as tracked.
        size: S, the crop is S x S.
    """

    landmarks: Floats
    canonical: Floats
    scale_px: float
    rotation: Floats
    translation_px: Floats
    keypoints: Floats
    size: int


class Pose(NamedTuple):
    """Where the face is in one rendered frame.

    Attributes:
        scale_px, rotation, translation_px: as in `Geometry`.
        delta: (21, 3) fu, head frame: keypoint change against the source, inside the clamps.
        canonical: (478, 3) fu, head frame, deformed.
        vertices: (478, 3) px.
        closure: (2,) closing fraction of the right and left lid: 0 as in the source, 1 shut, below 0 wider.
    """

    scale_px: float
    rotation: Floats
    translation_px: Floats
    delta: Floats
    canonical: Floats
    vertices: Floats
    closure: Floats


@overload
def smoothstep(low: float, high: float, x: float) -> float: ...


@overload
def smoothstep(low: float, high: float, x: npt.NDArray[np.number]) -> Floats: ...


def smoothstep(low: float, high: float, x: float | npt.NDArray[np.number]) -> float | Floats:
    """0 at `low`, 1 at `high` (which may be the smaller), cubic between."""
    if isinstance(x, float):  # many a frame; arrays of one number take ten times as long
        share = min(max((float(x) - low) / (high - low), 0.0), 1.0)
        return np.float64(share * share * (3.0 - 2.0 * share))
    u = np.clip((np.asarray(x, np.float64) - low) / (high - low), 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def procrustes(
    source: npt.ArrayLike, target: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> tuple[float, Floats, Floats]:
    """Scale s, rotation R, translation t with `s source @ R + t` nearest to `target` (row vectors).

    Args:
        source, target: (N, 3).
        weights: (N,), all one by default.

    Source: Umeyama 1991, weighted.
    """
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    w = np.ones(len(a)) if weights is None else np.asarray(weights, np.float64)
    w = w / w.sum()
    centre_a, centre_b = w @ a, w @ b
    a, b = a - centre_a, b - centre_b
    u, singular, vt = np.linalg.svd((a * w[:, None]).T @ b)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((singular * sign).sum() / (w @ (a**2).sum(1)))
    return scale, rotation, centre_b - scale * centre_a @ rotation


def fit_head(landmarks: npt.ArrayLike) -> tuple[float, Floats, Floats, Floats]:
    """Head pose and posed-out face: scale_px, rotation (3, 3), translation_px (3,), canonical (478, 3) fu.

    The template is fitted to the rigid landmarks; everything it does not explain, shape and expression, stays in
    `canonical`.

    Raises:
        ValueError: if `landmarks` is not (478, 3).
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape != (LANDMARKS, 3):
        raise ValueError(f"expected landmarks ({LANDMARKS}, 3), got {points.shape}; give one face")
    scale, rotation, translation = procrustes(TEMPLATE[RIGID], points[RIGID])
    return scale, rotation, translation, ((points - translation) / scale) @ rotation.T


def keypoints(canonical: npt.ArrayLike) -> Floats:
    """(..., 478, 3) fu, head frame -> (..., 21, 3) keypoints, the neck anchor included."""
    points = np.asarray(SELECTOR @ np.asarray(canonical, np.float64))
    points[..., Keypoint.NECK, :] = NECK_ANCHOR
    return points


def inner_gap(canonical: Floats) -> float:
    """Opening between the inner lips at the middle of a face (478, 3) fu; below 0 where the landmarks cross."""
    return float(canonical[14, 1] - canonical[13, 1])


def source_geometry(landmarks: npt.ArrayLike, size: int) -> Geometry:
    """Geometry of a source crop of `size` pixels from its landmarks (478, 3) in crop pixels."""
    points = np.asarray(landmarks, np.float64)
    scale, rotation, translation, canonical = fit_head(points)
    return Geometry(points, canonical, scale, rotation, translation, keypoints(canonical), size)


def limit_slope(geometry: Geometry) -> Geometry:
    """The same face with nothing steeper than `MAX_SLOPE` towards the camera.

    The side of a turned cheek is a sliver of a few pixels, background among them; turned to the camera it would be
    stretched into a wide streak. With its depth limited it turns as part of the cheek in front of it. In the source's
    own pose nothing changes place. The keypoints stay the face's own: by them a motion is scaled to the portrait, the
    right eye as the left.
    """
    points = geometry.landmarks
    apart = np.sqrt(((points[:, None, :2] - points[None, :, :2]) ** 2).sum(-1))
    landmarks = points.copy()
    landmarks[:, 2] = (points[None, :, 2] + MAX_SLOPE * apart).min(1)
    canonical = ((landmarks - geometry.translation_px) / geometry.scale_px) @ geometry.rotation.T
    return geometry._replace(landmarks=landmarks, canonical=canonical)


# What the keypoints say about the pose, when only they are given: the rigid ones count, the mobile ones little.
# From the prototype: pitch, yaw and roll within .25, .20 and .11 degrees on average (../shared/renderer/spec.md, 2.1).
_POSE_WEIGHTS = {
    **dict.fromkeys((Keypoint.FOREHEAD, Keypoint.NOSE_TIP, Keypoint.NECK, Keypoint.GLABELLA), 1.0),
    **dict.fromkeys(JAW, 0.3),
    **dict.fromkeys(BROWS, 0.1),
    **dict.fromkeys(CHEEKS, 0.2),
    Keypoint.LOWER_LIDS: 0.5,
}
POSE_WEIGHTS: Floats = np.zeros(KEYPOINTS)
POSE_WEIGHTS[list(_POSE_WEIGHTS)] = list(_POSE_WEIGHTS.values())


def signed_areas(points: Floats, triangles: Ints) -> Floats:
    """(V, >=2), (N, 3) -> (N,) twice the signed area across the picture."""
    first, second, third = triangles.T
    x, y = points[:, 0], points[:, 1]
    x0, y0 = x[first], y[first]
    return np.asarray((x[second] - x0) * (y[third] - y0) - (y[second] - y0) * (x[third] - x0))


def inverse_2x2(matrix: Floats) -> Floats:
    """The inverse of (2, 2). Not `np.linalg.inv`: it wakes BLAS's threads, which then spin beside every frame."""
    (a, b), (c, d) = matrix
    inverse: Floats = np.array([[d, -b], [-c, a]]) / (a * d - b * c)
    return inverse
