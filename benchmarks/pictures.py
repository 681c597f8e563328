"""Pictures by what networks see in them: distances of feature distributions, identity, perceptual distance.

The networks are ONNX files that a user points to; none comes with ditto.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.theval import LIPS
from ditto.errors import InputError

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

# Where eyes, nose and corners of the mouth lie in the 112 x 112 picture that face recognition networks take (ArcFace,
# arXiv:1801.07698, after its released alignment).
FIVE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
FIVE_LANDMARKS = ([33, 133], [362, 263], [4], [61], [291])


class Network:
    """A network from RGB pictures, scaled to -1..1, to one vector each: (1, 3, H, W) -> (1, D). Of clips: (1, 3, T, H, W).

    Attributes:
        shape: H and W of a picture, or T, H and W of a clip.

    Raises:
        InputError: no such file, not an ONNX network, or one with another kind of input.
    """

    def __init__(self, path: Path, dimensions: int) -> None:
        import onnxruntime

        if not path.is_file():
            raise InputError(f"expected an ONNX file, got {path}, which is no file; give its path")
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own that share no base but this
            raise InputError(
                f"expected a network that ONNX Runtime can run, got {path}: {error}; give another"
            ) from error
        inputs: list[Any] = self._session.get_inputs()
        shape = inputs[0].shape
        sizes = [size if isinstance(size, int) else 0 for size in shape]
        if len(inputs) != 1 or len(shape) != dimensions or sizes[1] != 3 or min(sizes[2:]) < 1:
            form = "(1, 3, H, W)" if dimensions == 4 else "(1, 3, T, H, W)"
            raise InputError(
                f"expected a network with one input {form} of fixed size, got {shape} in {path}; export it so"
            )
        self._input = inputs[0].name
        self.shape: tuple[int, ...] = tuple(sizes[2:])

    def __call__(self, pictures: Sequence[Image]) -> Floats:
        """(N, D) vectors of pictures of any size (or of one clip: (1, D) of exactly T pictures)."""
        height, width = self.shape[-2:]
        sized = [cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in pictures]
        x = np.stack(sized).astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1.0
        inputs = [x.transpose(1, 0, 2, 3)[None]] if len(self.shape) == 3 else [row[None] for row in x]
        return np.array([self._session.run(None, {self._input: part})[0].reshape(-1) for part in inputs], np.float64)


def aligned_face(image: Image, landmarks: npt.ArrayLike) -> Image:
    """The face of a picture, 112 x 112, as face recognition networks take it; landmarks (478, 3) px."""
    points = np.asarray(landmarks, np.float64)[:, :2]
    found = np.stack([points[part].mean(0) for part in FIVE_LANDMARKS])
    return np.asarray(cv2.warpAffine(image, similarity(found, FIVE_POINTS), (112, 112)), np.uint8)


def similarity(source: Floats, target: Floats) -> Floats:
    """(2, 3) rotation, scale and shift that takes points (N, 2) nearest to others, in least squares.

    Source: S. Umeyama, PAMI 13 (1991), eq. 40 to 43.
    """
    a, b = source - source.mean(0), target - target.mean(0)
    u, d, v = np.linalg.svd(b.T @ a)
    sign = np.diag([1.0, np.sign(np.linalg.det(u @ v))])
    rotation = u @ sign @ v
    scale = (d * np.diag(sign)).sum() / (a**2).sum()
    return np.column_stack([scale * rotation, target.mean(0) - scale * rotation @ source.mean(0)])


def cosine(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Cosine of vectors (..., D) and (..., D), (...,)."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.asarray((x * y).sum(-1) / np.maximum(np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1), 1e-12))


def frechet_distance(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Between Gaussians with the means and covariances of two sets of vectors (N, D) and (M, D).

    `|mean difference|^2 + trace(A + B - 2 (A B)^(1/2))` (FID: arXiv:1706.08500, eq. 6). With fewer vectors than numbers in
    each it comes out too large: compare only sets of equal sizes.

    Raises:
        ValueError: fewer than 2 vectors in a set.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if min(len(x), len(y)) < 2:
        raise ValueError(f"expected at least 2 vectors in each set, got {len(x)} and {len(y)}; give more pictures")
    # With A = P P' and B = Q Q', the trace of (A B)^(1/2) is the sum of the singular values of P' Q.
    p, q = _factor(x), _factor(y)
    cross = np.linalg.svd(p.T @ q, compute_uv=False).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + (p**2).sum() + (q**2).sum() - 2.0 * cross)


def _factor(vectors: Floats) -> Floats:
    """(D, R) of which the product with its transpose is the covariance of (N, D); R is the smaller of N and D."""
    centred = (vectors - vectors.mean(0)).T / np.sqrt(len(vectors) - 1)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(u * s)


class Lpips:
    """LPIPS (arXiv:1801.03924) of the package `lpips`, AlexNet.

    Raises:
        InputError: the package or torch is not installed, or its weights cannot be had.
    """

    def __init__(self) -> None:
        try:
            import lpips
            import torch
        except ImportError as error:
            raise InputError(f"expected the package lpips, got none ({error}); pip install lpips") from error
        try:
            self._network = lpips.LPIPS(net="alex", verbose=False).eval()
        except Exception as error:  # torchvision fetches weights on first use: any error of the network
            raise InputError(f"expected the weights of LPIPS, got {error}; run it once with a network") from error
        self._torch = torch

    def __call__(self, a: Image, b: Image) -> float:
        """Distance of two pictures (H, W, 3) of one size."""
        x, y = (self._torch.from_numpy(i.astype(np.float32).transpose(2, 0, 1)[None] / 127.5 - 1.0) for i in (a, b))
        with self._torch.inference_mode():
            return float(self._network(x, y).item())


class ImageQuality:
    """THEval's three measures of pictures, of the package `pyiqa`: TOPIQ aesthetics of the frame, TOPIQ of the face (which it
    finds itself), MUSIQ of the mouth.

    Source: Newbyl/THEval at 3603338a, `global_aesthetic.py`, `face_quality.py`, `mouth_quality.py`. Departure: mouths are seen
    one by one, where there they are padded with black to the largest of their batch.

    Raises:
        InputError: the package or torch is not installed, or its weights cannot be had.
    """

    names = ("aesthetics", "face quality", "mouth quality")

    def __init__(self) -> None:
        try:
            import pyiqa
            import torch
        except ImportError as error:
            raise InputError(f"expected the package pyiqa, got none ({error}); pip install pyiqa") from error
        try:
            self._metrics = [
                pyiqa.create_metric(name, device="cpu") for name in ("topiq_iaa", "topiq_nr-face", "musiq")
            ]
        except Exception as error:  # pyiqa fetches weights on first use: any error of the network
            raise InputError(f"expected the weights of pyiqa, got {error}; run it once with a network") from error
        self._torch = torch

    def __call__(self, frames: Sequence[Image], landmarks: npt.ArrayLike) -> tuple[float, float, float]:
        """Means over whole frames (H, W, 3) with landmarks (T, 478, 3) px."""
        found = [[], [], []]  # type: list[list[float]]
        for frame, points in zip(frames, np.asarray(landmarks, np.float64), strict=True):
            for scores, metric, picture in zip(
                found, self._metrics, (frame, frame, mouth_of(frame, points)), strict=True
            ):
                x = self._torch.from_numpy(picture.astype(np.float32).transpose(2, 0, 1)[None] / 255.0)
                with self._torch.inference_mode():
                    scores.append(float(metric(x).item()))
        aesthetics, face, mouth = (float(np.mean(scores)) for scores in found)
        return aesthetics, face, mouth


def mouth_of(frame: Image, landmarks: Floats) -> Image:
    """The box of the lips with 10 pixels around; landmarks (478, 3) px."""
    lips = landmarks[LIPS, :2].astype(np.int64)
    (x0, y0), (x1, y1) = np.maximum(lips.min(0) - 10, 0), lips.max(0) + 10
    return frame[y0:y1, x0:x1]
