"""Portrait: everything ditto knows about one picture of a face, saved and loaded without pickle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Portrait:
    """One registered face. Arrays are read-only.

    Attributes:
        picture: (H, W, 3) uint8 RGB, even sizes: the whole picture the face is pasted back into.
        alpha: (H, W) uint8 or None: the picture's own transparency.
        crop: (S, S, 3) uint8 RGB face crop; where it leaves the picture it is filled plausibly, never streaked.
        crop_to_picture: (3, 3) affine, crop pixels -> picture pixels (x, y, 1) column vectors.
        landmarks: (478, 3) crop pixels, z in the same scale.
        mask: (S, S) float32 in [0, 1]: 1 where the person is.
        canonical_keypoints: (21, 3) face units, head frame, neutral expression with closed lips.
        scale, rotation, translation: pose of the source; model units per face unit, (3, 3) row vectors, (3,) model units.
        expression: (21, 3) face units, camera frame: how the source deviates from its neutral.
        eye_open: (2,) left, right opening ratio of the source; eye_ball: (6,) xL xR yL yR zL zR.
    """

    picture: npt.NDArray[np.uint8]
    alpha: npt.NDArray[np.uint8] | None
    crop: npt.NDArray[np.uint8]
    crop_to_picture: Floats
    landmarks: Floats
    mask: npt.NDArray[np.float32]
    canonical_keypoints: Floats
    scale: float
    rotation: Floats
    translation: Floats
    expression: Floats
    eye_open: npt.NDArray[np.float32]
    eye_ball: npt.NDArray[np.float32]
