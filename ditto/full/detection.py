"""Faces and landmarks from the networks of the released pipeline, which the user provides: `OriginalLandmarks`.

ditto by itself finds faces with MediaPipe's networks (`ditto.portrait.registration`) and frames them with
`cropping.outline_of_mediapipe`. The detector and the 106-point network here come from InsightFace, whose weights are for
non-commercial research only.

N: anchors or boxes.

Source: the released Ditto at e9191cf (tests/fixtures/reference, wiring_detect); SCRFD (arXiv:2105.04714).
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto.engines import Engine, open_engine
from ditto.errors import EngineError, NoFaceError
from ditto.full.cropping import LANDMARK_FIELD, FaceOutline, crop_matrix, cut, invert, outline_of_106, outline_of_203

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

# Names in the folders of the released PyTorch and ONNX checkpoints.
DETECTOR = ("det_10g.onnx", "insightface_det.onnx")
POINTS_106 = ("2d106det.onnx", "landmark106.onnx")
POINTS_203 = ("landmark203.onnx",)
# As released.
DETECTOR_SIZE = 512  # pixels
STRIDES = (8, 16, 32)
ANCHORS = 2  # per cell
MIN_SCORE = 0.5
MAX_OVERLAP = 0.4  # intersection over union
SIZE_106, MARGIN_106 = 192, 1.5


def detector_input(picture: Bytes) -> tuple[Array, float]:
    """A picture (H, W, 3) RGB as the detector takes it, (1, 3, 512, 512), and the factor of its enlargement.

    The picture is at the upper left, the rest is black. Channels are BGR, as the released code passes them.
    """
    import cv2

    height, width = picture.shape[:2]
    if height > width:
        size = (int(DETECTOR_SIZE * width / height), DETECTOR_SIZE)
    else:
        size = (DETECTOR_SIZE, int(DETECTOR_SIZE * height / width))
    field = np.zeros((DETECTOR_SIZE, DETECTOR_SIZE, 3), np.uint8)
    field[: size[1], : size[0]] = cv2.resize(picture, size)
    planes = (field[..., ::-1].astype(np.float32) - 127.5) / 128.0
    return np.ascontiguousarray(planes.transpose(2, 0, 1)[None]), size[1] / height


def detected_boxes(outputs: Sequence[npt.NDArray[np.floating]], enlargement: float) -> tuple[Floats, Floats]:
    """Faces from the detector's nine outputs: boxes (N, 5) left, top, right, bottom, score; five points (N, 5, 2) each.

    The highest score first, picture pixels.

    Args:
        outputs: scores (n, 1), box distances (n, 4) and points (n, 10), each for strides 8, 16 and 32.
        enlargement: from `detector_input`.
    """
    scores, boxes, points = [], [], []
    for level, stride in enumerate(STRIDES):
        cells = DETECTOR_SIZE // stride
        rows, columns = np.divmod(np.arange(cells * cells), cells)
        corner = np.repeat(np.stack([columns, rows], 1) * stride, ANCHORS, 0).astype(np.float64)  # no half-cell offset
        score = outputs[level].reshape(-1).astype(np.float64)
        confident = score >= MIN_SCORE
        away = outputs[level + 3].reshape(-1, 4)[confident].astype(np.float64) * stride
        scores.append(score[confident])
        boxes.append(np.concatenate([corner[confident] - away[:, :2], corner[confident] + away[:, 2:]], 1))
        offset = outputs[level + 6].reshape(-1, 5, 2)[confident].astype(np.float64) * stride
        points.append(corner[confident][:, None] + offset)
    score, box, five = (np.concatenate(part) for part in (scores, boxes, points))
    order = np.argsort(-score, kind="stable")
    found = np.column_stack([box / enlargement, score])[order]
    kept = non_maximum_suppression(found)
    return found[kept], (five / enlargement)[order][kept]


def non_maximum_suppression(boxes: Floats) -> list[int]:
    """Indices of the boxes (N, 5), the highest score first, that overlap none before them by more than `MAX_OVERLAP`.

    A box covers the pixels of its edges too."""
    left, top, right, bottom = boxes[:, :4].T
    area = (right - left + 1) * (bottom - top + 1)
    waiting = np.arange(len(boxes))
    kept = []
    while waiting.size:
        best, waiting = int(waiting[0]), waiting[1:]
        kept.append(best)
        width = np.minimum(right[best], right[waiting]) - np.maximum(left[best], left[waiting]) + 1
        height = np.minimum(bottom[best], bottom[waiting]) - np.maximum(top[best], top[waiting]) + 1
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        waiting = waiting[shared / (area[best] + area[waiting] - shared) <= MAX_OVERLAP]
    return kept


def largest_first(boxes: Floats) -> npt.NDArray[np.intp]:
    """The order of boxes (N, 5) by area, the largest first."""
    return np.argsort(-(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), kind="stable")


def matrix_106(box: npt.ArrayLike) -> Floats:
    """Picture pixels -> the 106-point network's field around a box (left, top, right, bottom), (3, 3)."""
    left, top, right, bottom = np.asarray(box, np.float64)[:4]
    scale = SIZE_106 / (MARGIN_106 * max(right - left, bottom - top))
    x, y = SIZE_106 / 2 - scale * (left + right) / 2, SIZE_106 / 2 - scale * (top + bottom) / 2
    return np.array([[scale, 0.0, x], [0.0, scale, y], [0.0, 0.0, 1.0]])


def input_106(picture: Bytes, matrix: Floats) -> Array:
    """What the 106-point network takes: (1, 3, 192, 192), BGR, 0..255."""
    field = cut(picture, matrix, SIZE_106)[..., ::-1].astype(np.float32)
    return np.ascontiguousarray(field.transpose(2, 0, 1)[None])


def points_106(output: npt.ArrayLike, matrix: Floats) -> Floats:
    """Landmarks (106, 2) in picture pixels from the network's 212 numbers."""
    field = (np.asarray(output, np.float64).reshape(106, 2) + 1) * (SIZE_106 / 2)
    return transform_points(field, invert(matrix))


def points_203(output: npt.ArrayLike, to_picture: npt.ArrayLike) -> Floats:
    """Landmarks (203, 2) in picture pixels from the network's 406 numbers."""
    field = np.asarray(output, np.float64).reshape(203, 2) * LANDMARK_FIELD.size
    return transform_points(field, np.asarray(to_picture, np.float64))


def transform_points(points: Floats, matrix: Floats) -> Floats:
    """Points (N, 2) under an affine (3, 3)."""
    return np.asarray((points[:, None] * matrix[:2, :2]).sum(-1) + matrix[:2, 2])


class OriginalLandmarks:
    """The released chain from a picture to the 203 landmarks, by the original ONNX files.

    Args:
        folder: holds det_10g.onnx, 2d106det.onnx and landmark203.onnx, as released.

    Raises:
        EngineError: a file is missing or cannot be run.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self._detector, self._first, self._second = (
            open_engine(_find(Path(folder), names)) for names in (DETECTOR, POINTS_106, POINTS_203)
        )
        if len(self._detector.outputs) != 3 * len(STRIDES):
            raise EngineError(
                f"expected the face detector in {folder} to have {3 * len(STRIDES)} outputs, got "
                f"{len(self._detector.outputs)}; use InsightFace's det_10g"
            )

    def __call__(self, picture: Bytes, at: npt.ArrayLike | None = None) -> FaceOutline:
        """The outline of the largest face of a picture (H, W, 3) RGB, or of the one nearest to the pixel `at`.

        Raises:
            NoFaceError: the detector finds no face.
        """
        field, enlargement = detector_input(picture)
        boxes, _ = detected_boxes(_run(self._detector, field), enlargement)
        if not len(boxes):
            raise NoFaceError("expected a face in the picture, the detector found none; give a clear frontal portrait")
        chosen = largest_first(boxes)[0]
        if at is not None:
            away = (boxes[:, :2] + boxes[:, 2:4]) / 2 - np.asarray(at, np.float64)
            chosen = np.hypot(*away.T).argmin()
        matrix = matrix_106(boxes[chosen])
        rough = points_106(_run(self._first, input_106(picture, matrix))[0], matrix)
        return outline_of_203(self.refine(picture, outline_of_106(rough)))

    def follow(self, picture: Bytes, rough: FaceOutline) -> FaceOutline:
        """The outline of a face in a frame of a video, near to a rough one; the detector is left out, as released."""
        return outline_of_203(self.refine(picture, rough))

    def refine(self, picture: Bytes, face: FaceOutline) -> Floats:
        """The 203 landmarks (203, 2) of a face whose outline is roughly known."""
        matrix = crop_matrix(face, LANDMARK_FIELD)
        field = cut(picture, matrix, LANDMARK_FIELD.size).astype(np.float32) / 255.0
        outputs = _run(self._second, np.ascontiguousarray(field.transpose(2, 0, 1)[None]))
        points = next((out for out in outputs if out.size == 406), None)  # the released file has two more outputs
        if points is None:
            raise EngineError(
                f"expected {POINTS_203[0]} to give 406 numbers, got {[out.size for out in outputs]}; use the released file"
            )
        return points_203(points, invert(matrix))


def _find(folder: Path, names: Sequence[str]) -> Path:
    """The path of the first name that exists in the folder, else of the first name."""
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def _run(engine: Engine, field: Array) -> list[npt.NDArray[np.floating]]:
    """Run a network of one input; its outputs in order."""
    found = engine(**{engine.inputs[0].name: field})
    return [found[tensor.name] for tensor in engine.outputs]
