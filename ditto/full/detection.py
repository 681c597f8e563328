"""Faces and landmarks by the networks of the released pipeline, for those who have their files: `OriginalLandmarks`.

ditto itself finds faces with MediaPipe's networks (`ditto.portrait.registration`) and frames them with
`cropping.outline_of_mediapipe`; the detector and the 106-point network here come from InsightFace, whose weights are for
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
FIELD = 512  # pixels, of the detector
STRIDES = (8, 16, 32)
ANCHORS = 2  # per cell
LEAST_SCORE = 0.5
MOST_OVERLAP = 0.4
FIELD_106, MARGIN_106 = 192, 1.5


def detector_input(picture: Bytes) -> tuple[Array, float]:
    """A picture (H, W, 3) RGB as the detector takes it, (1, 3, 512, 512), and by how much it was grown.

    The picture is at the upper left, black around it. Channels come as BGR: the released code swaps what was RGB.
    """
    import cv2

    height, width = picture.shape[:2]
    if height > width:
        size = (int(FIELD * width / height), FIELD)
    else:
        size = (FIELD, int(FIELD * height / width))
    field = np.zeros((FIELD, FIELD, 3), np.uint8)
    field[: size[1], : size[0]] = cv2.resize(picture, size)
    planes = (field[..., ::-1].astype(np.float32) - 127.5) / 128.0
    return np.ascontiguousarray(planes.transpose(2, 0, 1)[None]), size[1] / height


def detected_boxes(outputs: Sequence[npt.NDArray[np.floating]], grown: float) -> tuple[Floats, Floats]:
    """Faces from the detector's nine outputs: boxes (N, 5) left, top, right, bottom, score; five points (N, 5, 2) each.

    The surest first, picture pixels.

    Args:
        outputs: scores (n, 1), box distances (n, 4) and points (n, 10), each for strides 8, 16 and 32.
        grown: as of `detector_input`.
    """
    scores, boxes, points = [], [], []
    for level, stride in enumerate(STRIDES):
        cells = FIELD // stride
        rows, columns = np.divmod(np.arange(cells * cells), cells)
        corner = np.repeat(np.stack([columns, rows], 1) * stride, ANCHORS, 0).astype(np.float64)  # no half-cell offset
        score = outputs[level].reshape(-1).astype(np.float64)
        sure = score >= LEAST_SCORE
        away = outputs[level + 3].reshape(-1, 4)[sure].astype(np.float64) * stride
        scores.append(score[sure])
        boxes.append(np.concatenate([corner[sure] - away[:, :2], corner[sure] + away[:, 2:]], 1))
        offset = outputs[level + 6].reshape(-1, 5, 2)[sure].astype(np.float64) * stride
        points.append(corner[sure][:, None] + offset)
    score, box, five = (np.concatenate(part) for part in (scores, boxes, points))
    order = np.argsort(-score, kind="stable")
    found = np.column_stack([box / grown, score])[order]
    kept = apart(found)
    return found[kept], (five / grown)[order][kept]


def apart(boxes: Floats) -> list[int]:
    """Which boxes (N, 5), the surest first, overlap no surer one by more than `MOST_OVERLAP`; pixels count as a whole."""
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
        waiting = waiting[shared / (area[best] + area[waiting] - shared) <= MOST_OVERLAP]
    return kept


def largest_first(boxes: Floats) -> npt.NDArray[np.intp]:
    """The order of boxes (N, 5) by area, the largest first."""
    return np.argsort(-(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), kind="stable")


def matrix_106(box: npt.ArrayLike) -> Floats:
    """Picture pixels -> the 106-point network's field around a box (left, top, right, bottom), (3, 3)."""
    left, top, right, bottom = np.asarray(box, np.float64)[:4]
    scale = FIELD_106 / (MARGIN_106 * max(right - left, bottom - top))
    x, y = FIELD_106 / 2 - scale * (left + right) / 2, FIELD_106 / 2 - scale * (top + bottom) / 2
    return np.array([[scale, 0.0, x], [0.0, scale, y], [0.0, 0.0, 1.0]])


def input_106(picture: Bytes, matrix: Floats) -> Array:
    """What the 106-point network takes: (1, 3, 192, 192), BGR, 0..255."""
    field = cut(picture, matrix, FIELD_106)[..., ::-1].astype(np.float32)
    return np.ascontiguousarray(field.transpose(2, 0, 1)[None])


def points_106(output: npt.ArrayLike, matrix: Floats) -> Floats:
    """Landmarks (106, 2) in picture pixels from the network's 212 numbers."""
    field = (np.asarray(output, np.float64).reshape(106, 2) + 1) * (FIELD_106 / 2)
    return carry(field, invert(matrix))


def points_203(output: npt.ArrayLike, to_picture: npt.ArrayLike) -> Floats:
    """Landmarks (203, 2) in picture pixels from the network's 406 numbers."""
    field = np.asarray(output, np.float64).reshape(203, 2) * LANDMARK_FIELD.size
    return carry(field, np.asarray(to_picture, np.float64))


def carry(points: Floats, matrix: Floats) -> Floats:
    """Points (N, 2) through an affine (3, 3)."""
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
                f"the face detector in {folder} should have {3 * len(STRIDES)} outputs, it has "
                f"{len(self._detector.outputs)}; use InsightFace's det_10g"
            )

    def __call__(self, picture: Bytes, at: npt.ArrayLike | None = None) -> FaceOutline:
        """The outline of the largest face of a picture (H, W, 3) RGB, or of the one nearest to the pixel `at`.

        Raises:
            NoFaceError: the detector finds none.
        """
        field, grown = detector_input(picture)
        boxes, _ = detected_boxes(_run(self._detector, field), grown)
        if not len(boxes):
            raise NoFaceError("a face is wanted in the picture, the detector finds none; give a clear frontal portrait")
        chosen = largest_first(boxes)[0]
        if at is not None:
            away = (boxes[:, :2] + boxes[:, 2:4]) / 2 - np.asarray(at, np.float64)
            chosen = np.hypot(*away.T).argmin()
        matrix = matrix_106(boxes[chosen])
        rough = points_106(_run(self._first, input_106(picture, matrix))[0], matrix)
        return outline_of_203(self.follow(picture, outline_of_106(rough)))

    def follow(self, picture: Bytes, face: FaceOutline) -> Floats:
        """The 203 landmarks (203, 2) of a face that lies about there: of the frame before, in a video."""
        matrix = crop_matrix(face, LANDMARK_FIELD)
        field = cut(picture, matrix, LANDMARK_FIELD.size).astype(np.float32) / 255.0
        outputs = _run(self._second, np.ascontiguousarray(field.transpose(2, 0, 1)[None]))
        points = next((out for out in outputs if out.size == 406), None)  # the original file has two more
        if points is None:
            raise EngineError(
                f"{POINTS_203[0]} should give 406 numbers, it gives {[out.size for out in outputs]}; use the original"
            )
        return points_203(points, invert(matrix))


def _find(folder: Path, names: Sequence[str]) -> Path:
    """The first of the names that is there, or the first."""
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def _run(engine: Engine, field: Array) -> list[npt.NDArray[np.floating]]:
    """A network of one input; its outputs in their order."""
    found = engine(**{engine.inputs[0].name: field})
    return [found[tensor.name] for tensor in engine.outputs]
