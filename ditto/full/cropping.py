"""Crops as the released pipeline makes them: upright for the face, by two anchors and the box of an outline.

N: points. Affine matrices (3, 3) act on column vectors (x, y, 1).

Source: LivePortrait (arXiv:2407.03168), released cropping, and the released Ditto at e9191cf (tests/fixtures/reference,
wiring_crop).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.full.sizes import CROP_SIZE, EXTRACTOR_SIZE

Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


class Framing(NamedTuple):
    """How large a crop is and where the face lies in it.

    Attributes:
        size: pixels of a side.
        scale: side of the crop over the longer side of the outline's box.
        rise: how far the crop's centre moves towards the eyes, as a part of its side.
        upright: rotate the crop with the face.
    """

    size: int
    scale: float
    rise: float
    upright: bool = True


FACE = Framing(CROP_SIZE, 2.3, 0.125)  # the crop that is animated; released crop_scale and crop_vy_ratio
LANDMARK_FIELD = Framing(224, 1.5, 0.1)  # the input of the 203-point network, as released


class FaceOutline(NamedTuple):
    """The points of a face that its crop depends on.

    Attributes:
        eyes: (2,) centre between the eyes, pixels.
        lips: (2,) centre of the mouth.
        points: (N, 2) whose box in the face's own axes gives centre and size.
    """

    eyes: Floats
    lips: Floats
    points: Floats


def outline_of_203(points: npt.ArrayLike) -> FaceOutline:
    """The outline of LivePortrait's 203 landmarks (203, 2)."""
    p = np.asarray(points, np.float64)
    eyes = (p[[0, 6, 12, 18]].mean(0) + p[[24, 30, 36, 42]].mean(0)) / 2
    return FaceOutline(eyes, p[[48, 66]].mean(0), p)


def outline_of_106(points: npt.ArrayLike) -> FaceOutline:
    """The outline of InsightFace's 106 landmarks (106, 2)."""
    p = np.asarray(points, np.float64)
    eyes = (p[[33, 35, 40, 39]].mean(0) + p[[87, 89, 94, 93]].mean(0)) / 2
    return FaceOutline(eyes, p[[52, 61]].mean(0), p)


# The 203 points follow the jaw from temple to temple and the brows, which are the top of their box; MediaPipe's
# corresponding points are the lower half of its face oval and its brows (the forehead of the oval would lift the box).
_MEDIAPIPE_EYES = ((33, 159, 133, 145), (263, 386, 362, 374))  # outer corner, upper lid, inner corner, lower lid
_MEDIAPIPE_LIPS = (61, 291)
_MEDIAPIPE_JAW = (
    127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454, 356,
)  # fmt: skip
_MEDIAPIPE_BROWS = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55, 300, 293, 334, 296, 336, 276, 283, 282, 295, 285)


def outline_of_mediapipe(landmarks: npt.ArrayLike) -> FaceOutline:
    """The outline of MediaPipe's 478 landmarks (478, 2 or 3); no other function maps them to the 203.

    Eye centres are the mean of both corners and both lid middles, the mouth's centre lies between its corners, and the
    box is that of jaw line and brows, all as with the 203.
    """
    p = np.asarray(landmarks, np.float64)[:, :2]
    first, second = (p[list(eye)].mean(0) for eye in _MEDIAPIPE_EYES)
    outline = p[[*_MEDIAPIPE_JAW, *_MEDIAPIPE_BROWS]]
    return FaceOutline((first + second) / 2, p[list(_MEDIAPIPE_LIPS)].mean(0), outline)


def crop_matrix(face: FaceOutline, framing: Framing = FACE) -> Floats:
    """Picture pixels -> crop pixels, (3, 3)."""
    down = face.lips - face.eyes
    length = float(np.hypot(*down))
    down = down / length if length > 1e-3 else np.array([0.0, 1.0])
    across = np.array([down[1], -down[0]])
    x, y = face.points @ across, face.points @ down
    low, high = np.array([x.min(), y.min()]), np.array([x.max(), y.max()])
    side = float((high - low).max()) * framing.scale
    middle = (low + high) / 2 - (0.0, framing.rise * side)
    centre = middle[0] * across + middle[1] * down
    step = framing.size / side
    turn = step * (np.stack([across, down]) if framing.upright else np.eye(2))
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = framing.size / 2 - (turn * centre).sum(1)
    return matrix


def invert(matrix: npt.ArrayLike) -> Floats:
    """The inverse of an affine (3, 3)."""
    (a, b, x), (c, d, y) = np.asarray(matrix, np.float64)[:2]
    scale = 1.0 / (a * d - b * c)
    return np.array(
        [
            [scale * d, -scale * b, scale * (b * y - d * x)],
            [-scale * c, scale * a, scale * (c * x - a * y)],
            [0.0, 0.0, 1.0],
        ]
    )


class Taps(NamedTuple):
    """Indices and weights of bilinear sampling, computed once for many pictures; zero outside the source.

    OpenCV before version 5 rounds positions to 1/32 of a pixel; the released pipeline's results have exact positions.

    Attributes:
        indices: (4, N) into the source's pixels, row by row, for N output pixels.
        weights: (4, N).
    """

    indices: npt.NDArray[np.intp]
    weights: Array

    def sample(self, source: npt.NDArray[np.generic]) -> Array:
        """(C, N) of a source (H, W, C)."""
        planes = np.ascontiguousarray(np.moveaxis(source, -1, 0), np.float32).reshape(source.shape[-1], -1)
        out = np.zeros((len(planes), self.weights.shape[1]), np.float32)
        for plane, values in zip(planes, out, strict=True):
            for index, weight in zip(self.indices, self.weights, strict=True):
                values += plane.take(index, mode="clip") * weight  # faster than "raise"; all indices are inside
        return out


def taps(to_source: npt.ArrayLike, x: npt.ArrayLike, y: npt.ArrayLike, size: tuple[int, int]) -> Taps:
    """Taps of the pixels (x, y), each (N,).

    Args:
        to_source: (3, 3), output pixels -> pixels of the source.
        size: height and width of the source.
    """
    m = np.asarray(to_source, np.float64)
    height, width = size
    u = m[0, 0] * np.asarray(x) + m[0, 1] * np.asarray(y) + m[0, 2]
    v = m[1, 0] * np.asarray(x) + m[1, 1] * np.asarray(y) + m[1, 2]
    left, top = np.floor(u), np.floor(v)
    indices, weights = [], []
    for column, across in ((left, left + 1 - u), (left + 1, u - left)):
        for row, down in ((top, top + 1 - v), (top + 1, v - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            weights.append(np.where(inside, across * down, 0.0))
            indices.append(np.where(inside, row * width + column, 0.0).astype(np.intp))
    return Taps(np.stack(indices), np.stack(weights).astype(np.float32))


def cut(picture: Bytes, matrix: npt.ArrayLike, size: int) -> Bytes:
    """The crop (size, size, 3) of a picture, bilinear, black outside it; `matrix` maps picture pixels to crop pixels."""
    y, x = np.divmod(np.arange(size * size), size)
    crop = taps(invert(matrix), x, y, (picture.shape[0], picture.shape[1])).sample(picture)
    return np.ascontiguousarray(np.rint(crop).astype(np.uint8).T).reshape(size, size, 3)


def network_input(crop: Bytes) -> npt.NDArray[np.float32]:
    """A face crop (512, 512, 3) as the extractors take it: (1, 3, 256, 256), RGB in 0..1.

    As released by OpenCV's INTER_AREA: four pixels become their mean, halves rounded up.
    """
    four = crop.reshape(EXTRACTOR_SIZE, 2, EXTRACTOR_SIZE, 2, 3).sum((1, 3), dtype=np.int32)
    small = (four + 2) >> 2
    return np.ascontiguousarray((small.astype(np.float32) / 255.0).transpose(2, 0, 1)[None])
