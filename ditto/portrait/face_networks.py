"""MediaPipe's face detectors, face mesh and person segmentation, as ONNX in the lite bundle, run by ONNX Runtime.

The steps between the networks in MediaPipe's graphs (letterbox, anchors, merging of overlapping boxes) are in this file;
`ditto.training.face_networks` made the ONNX files. A call uses one thread and no lock, so threads may call at the same time.

Source: MediaPipe v0.10.21 (Apache-2.0), mediapipe/modules/face_detection, face_landmark and selfie_segmentation.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.media.images import Bytes
from ditto.once import OncePerProcess

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.float32]

PART = "tracker"  # of the lite bundle
MESH_SIZE = 192  # pixels, input of the mesh network
SEGMENTATION_SIZE = 256
MAX_OVERLAP = 0.3  # intersection over union; boxes that share more are one face


class Detector(NamedTuple):
    """A face detector.

    Attributes:
        size: of its square input, pixels.
        grids: of anchors: cells along a side, anchors in a cell.
        min_score: of a detection.
    """

    size: int
    grids: tuple[tuple[int, int], ...]
    min_score: float


DETECTORS = {
    "short_range": Detector(128, ((16, 2), (8, 6)), 0.5),
    "full_range": Detector(192, ((48, 1),), 0.6),
}


class Detection(NamedTuple):
    """A face that a detector found. Coordinates are picture pixels from the top left edge: the first pixel's centre is at 0.5.

    Attributes:
        score: 0 to 1.
        box: left, top, right, bottom.
        eyes: (2, 2) x and y of the person's right and left eye.
    """

    score: float
    box: Floats
    eyes: Floats


def cut(
    picture: Bytes, centre: tuple[float, float], side: float, angle: float, size: int, beyond_is_black: bool
) -> Bytes:
    """A turned square of a picture as MediaPipe samples it: (size, size, 3).

    Output pixel i samples the picture bilinearly at i / size of the side, without a low-pass filter before.

    Args:
        picture: (H, W, 3).
        centre, side: pixels from the picture's top left edge.
        angle: radians, clockwise on the screen.
        size: of the output, pixels.
        beyond_is_black: what lies beyond the picture is black; else its last row and column go on.
    """
    import cv2

    c, s = np.cos(angle) * side / size, np.sin(angle) * side / size
    turn = np.array([[c, -s], [s, c]])
    border = cv2.BORDER_CONSTANT if beyond_is_black else cv2.BORDER_REPLICATE
    square = cv2.warpAffine(
        picture,
        np.column_stack([turn, centre - turn @ np.full(2, size / 2)]),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=border,
    )
    return np.asarray(square, np.uint8)


@functools.cache
def anchors(detector: Detector) -> Floats:
    """(N, 2) x and y of the anchors' centres, as fractions of the input's side."""
    centres = []
    for cells, per_cell in detector.grids:
        row, column = np.divmod(np.arange(cells * cells), cells)
        centres.append(np.repeat((np.stack([column, row], 1) + 0.5) / cells, per_cell, 0))
    return np.concatenate(centres)


def decode(
    boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], detector: Detector, min_score: float
) -> Floats:
    """Faces (F, 9), highest score first: score, left, top, right, bottom, right eye, left eye; fractions of the input's side.

    Boxes that overlap are merged: their mean, weighted by score, with the highest score (MediaPipe's "weighted"
    non-maximum suppression).

    Args:
        boxes: (1, N, 16) centre, size and six points relative to the anchors, input pixels.
        scores: (1, N, 1) logits.
        min_score: boxes with a lower one are dropped.
    """
    score = 1 / (1 + np.exp(-np.clip(scores.reshape(-1).astype(np.float64), -100, 100)))
    raw = boxes.reshape(-1, 16)[:, :8].astype(np.float64) / detector.size
    sure = np.flatnonzero((score >= min_score) & (raw[:, 2:4] >= 0).all(1))
    sure = sure[np.argsort(-score[sure], kind="stable")]
    score, raw, centre = score[sure], raw[sure], anchors(detector)[sure]
    middle, half = raw[:, :2] + centre, raw[:, 2:4] / 2
    rows = np.column_stack([score, middle - half, middle + half, raw[:, 4:6] + centre, raw[:, 6:8] + centre])
    found = []
    while len(rows):
        near = overlap(rows[0, 1:5], rows[:, 1:5]) > MAX_OVERLAP
        near[0] = True
        weight = rows[near, :1]
        found.append(np.append(rows[0, 0], (rows[near, 1:] * weight).sum(0) / weight.sum()))
        rows = rows[~near]
    return np.stack(found) if found else np.zeros((0, 9))


def overlap(box: Floats, others: Floats) -> Floats:
    """Intersection over union of a box (left, top, right, bottom) and others (N, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.maximum(high - low, 0).prod(1)
    area = (others[:, 2:] - others[:, :2]).prod(1)
    return np.asarray(shared / np.maximum((box[2:] - box[:2]).prod() + area - shared, 1e-12))


class FaceNetworks:
    """The four networks of the lite bundle's `tracker` part.

    Raises:
        BundleError: the part or one of its files is missing or changed.
        EngineError: ONNX Runtime is not installed or refuses a file.
    """

    def __init__(self) -> None:
        import cv2  # noqa: F401, here so that a registration imports nothing after this
        from PIL import Image, ImageCms, ImageOps  # noqa: F401

        from ditto.bundle import SHIPPED, Bundle
        from ditto.engines import open_engine

        part = Bundle.open(SHIPPED / "lite").part(PART)
        part.verify()
        Image.init()
        self._detectors = {name: open_engine(part.file(name)) for name in DETECTORS}
        self._mesh = open_engine(part.file("mesh"))
        self._person = open_engine(part.file("person"))

    def mesh(self, field: Bytes) -> tuple[Floats, float]:
        """Landmarks (478, 3) of an upright face (192, 192, 3) RGB, and the probability that it is a face.

        x and y are pixels from the top left edge, z is in the same scale.
        """
        found = self._mesh(picture=field[None])
        return found["landmarks"][0].astype(np.float64), float(found["presence"].item())

    def detect(self, picture: Bytes, network: str, min_score: float | None = None) -> list[Detection]:
        """The faces that one of `DETECTORS` finds in a picture (H, W, 3) RGB, highest score first.

        `min_score` None: the detector's own.
        """
        detector = DETECTORS[network]
        height, width = picture.shape[:2]
        side = float(max(height, width))
        square = cut(picture, (width / 2, height / 2), side, 0.0, detector.size, beyond_is_black=True)
        raw = self._detectors[network](picture=square[None])
        found = decode(raw["boxes"], raw["scores"], detector, detector.min_score if min_score is None else min_score)
        corner = np.array([width - side, height - side]) / 2
        places = found[:, 1:].reshape(-1, 4, 2) * side + corner
        return [
            Detection(float(score), place[:2].reshape(4), place[2:])
            for score, place in zip(found[:, 0], places, strict=True)
        ]

    def segment(self, picture: Bytes) -> Mask:
        """Probability (S, S) that a pixel of a square picture (S, S, 3) RGB shows a person."""
        import cv2

        size = picture.shape[0]
        square = cut(picture, (size / 2, size / 2), size, 0.0, SEGMENTATION_SIZE, beyond_is_black=True)
        probability = self._person(picture=square[None])["probability"][0, 0]
        return np.asarray(cv2.resize(probability, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


networks = OncePerProcess(FaceNetworks)
