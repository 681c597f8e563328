"""The 478 landmarks from the ONNX files of the released pipeline, which the user provides: `OnnxFaceMesh`.

The files are MediaPipe's BlazeFace and face mesh; ditto by itself runs MediaPipe (`ditto.portrait.registration`).

N: anchors or boxes.

Source: the released Ditto at e9191cf (tests/fixtures/reference, wiring_detect).
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.engines import open_engine
from ditto.errors import EngineError, NoFaceError
from ditto.full.cropping import taps
from ditto.portrait.face_mesh import LANDMARKS

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

BLAZE, MESH = "blaze_face.onnx", "face_mesh.onnx"
BLAZE_SIZE, MESH_SIZE = 128, 256  # pixels
CELLS = ((16, 2), (8, 6))  # a side, anchors per cell
# As released.
MIN_SCORE = 0.5
MAX_OVERLAP = 0.3  # intersection over union
MARGIN = 1.5
FACE_NUMBERS = 16  # of an anchor: box (4) and six points (2 each)


class Region(NamedTuple):
    """A rotated square of a picture: centre and side in pixels, angle in radians."""

    x: float
    y: float
    side: float
    angle: float


def anchors() -> Floats:
    """(896, 2) centres of BlazeFace's anchors, in parts of the picture."""
    out = []
    for cells, per_cell in CELLS:
        row, column = np.divmod(np.arange(cells * cells), cells)
        centre = (np.stack([column, row], 1) + 0.5) / cells
        out.append(np.repeat(centre, per_cell, 0))
    return np.concatenate(out)


def blaze_input(picture: Bytes) -> Array:
    """A square picture (S, S, 3) RGB as BlazeFace takes it: (1, 128, 128, 3), -1..1."""
    import cv2

    return (cv2.resize(picture, (BLAZE_SIZE, BLAZE_SIZE)).astype(np.float32) / 127.5 - 1)[None]


def blaze_boxes(boxes: npt.ArrayLike, scores: npt.ArrayLike) -> Floats:
    """Faces (N, 17), the highest score first: left, top, right, bottom in pixels of the input, six points (x, y) in parts
    of it, score. Overlapping boxes are averaged, weighted by their scores.

    Args:
        boxes: (1, 896, 16) raw output.
        scores: (1, 896, 1) raw output.
    """
    logits = np.clip(np.asarray(scores, np.float64).reshape(-1), -50, 100)
    score = 1 / (1 + np.exp(-logits))
    confident = np.flatnonzero(score >= MIN_SCORE)
    confident = confident[np.argsort(-score[confident], kind="stable")]
    raw, centre = np.asarray(boxes, np.float64).reshape(-1, 16)[confident], anchors()[confident]
    middle, half = raw[:, :2] + centre * BLAZE_SIZE, raw[:, 2:4] / 2
    points = raw[:, 4:].reshape(-1, 6, 2) / BLAZE_SIZE + centre[:, None]
    rows = np.column_stack([middle - half, middle + half, points.reshape(-1, 12), score[confident]])
    found = []
    while len(rows):
        near = overlap(rows[0], rows) > MAX_OVERLAP
        near[0] = True
        weight = rows[near, -1:]
        found.append(np.append((rows[near, :-1] * weight).sum(0) / weight.sum(), weight.mean()))
        rows = rows[~near]
    return np.stack(found) if found else np.zeros((0, 17))


def overlap(box: Floats, others: Floats) -> Floats:
    """Intersection over union of a box (left, top, right, bottom, ...) and others (N, ...)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:4], others[:, 2:4])
    shared = np.maximum(high - low, 0).prod(1)
    area = (others[:, 2:4] - others[:, :2]).prod(1)
    return np.asarray(shared / ((box[2:4] - box[:2]).prod() + area - shared))


def face_region(box: npt.ArrayLike, eyes: npt.ArrayLike) -> Region:
    """The input of the mesh: a box (left, top, right, bottom) enlarged to a square, rotated with the two eyes (2, 2)."""
    left, top, right, bottom = (float(v) for v in np.asarray(box)[:4])
    (x0, y0), (x1, y1) = np.asarray(eyes, np.float64)
    side = MARGIN * max(right - left, bottom - top)
    return Region((left + right) / 2, (top + bottom) / 2, side, float(np.arctan2(y1 - y0, x1 - x0)))


def mesh_input(picture: Bytes, region: Region) -> Array:
    """The region of a picture (H, W, 3) RGB as the mesh takes it: (1, 256, 256, 3), 0..1."""
    y, x = np.divmod(np.arange(MESH_SIZE * MESH_SIZE), MESH_SIZE)
    field = np.rint(taps(region_matrix(region), x, y, (picture.shape[0], picture.shape[1])).sample(picture))
    return np.ascontiguousarray(field.T / 255.0, field.dtype).reshape(1, MESH_SIZE, MESH_SIZE, 3)


def region_matrix(region: Region) -> Floats:
    """Pixels of the mesh's input -> picture pixels, (3, 3)."""
    step = region.side / MESH_SIZE
    c, s = step * np.cos(region.angle), step * np.sin(region.angle)
    half = MESH_SIZE / 2
    return np.array([[c, -s, region.x - half * (c - s)], [s, c, region.y - half * (s + c)], [0.0, 0.0, 1.0]])


def mesh_landmarks(output: npt.ArrayLike, region: Region) -> Floats:
    """Landmarks (478, 3) in picture pixels, depth in the same scale, from the mesh's 1434 numbers."""
    points = np.asarray(output, np.float64).reshape(LANDMARKS, 3)
    matrix = region_matrix(region)
    flat = (points[:, None, :2] * matrix[:2, :2]).sum(-1) + matrix[:2, 2]
    return np.column_stack([flat, points[:, 2] * (region.side / MESH_SIZE)])


class OnnxFaceMesh:
    """The 478 landmarks of the face in a face crop.

    Args:
        folder: holds blaze_face.onnx and face_mesh.onnx.

    Raises:
        EngineError: a file is missing or cannot be run.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self._blaze, self._mesh = (open_engine(Path(folder) / name) for name in (BLAZE, MESH))

    def __call__(self, crop: Bytes) -> Floats:
        """(478, 3) pixels of a square crop (S, S, 3) RGB.

        Raises:
            NoFaceError: BlazeFace finds no face.
        """
        size = crop.shape[0]
        raw = self._blaze(**{self._blaze.inputs[0].name: blaze_input(crop)})
        by_width = {out.shape[-1]: out for out in raw.values()}
        if by_width.keys() != {1, FACE_NUMBERS}:
            raise EngineError(
                f"expected {BLAZE} to give (1, 896, 16) and (1, 896, 1), got last axes {sorted(by_width)}; use the released "
                "file"
            )
        faces = blaze_boxes(by_width[FACE_NUMBERS], by_width[1])
        if not len(faces):
            raise NoFaceError("expected a face in the crop, BlazeFace found none; give a clear frontal portrait")
        region = face_region(faces[0, :4] * (size / BLAZE_SIZE), faces[0, 4:8].reshape(2, 2) * size)
        outputs = self._mesh(**{self._mesh.inputs[0].name: mesh_input(crop, region)})
        points = next((out for out in outputs.values() if out.size == 3 * LANDMARKS), None)
        if points is None:
            raise EngineError(
                f"expected {MESH} to give {3 * LANDMARKS} numbers, got {[o.size for o in outputs.values()]}; use the released "
                "file"
            )
        return mesh_landmarks(points, region)
