"""What an emotion does to a face in the generated motion that the motion network learns from.

`ditto.motion.emotion` has what a user sees: larger shapes, added when a frame is drawn.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto.motion.emotion import EMOTIONS, SMILE
from ditto.motion.motion import BROWS, CHEEKS, KEYPOINTS, MOUTH_CORNERS, TEMPLATE_APERTURE, UPPER_LIDS, Keypoint

Floats = npt.NDArray[np.float64]

# fu of travel at one: tuned by eye on three faces (../shared/renderer/end_to_end.md). The shapes below: by eye too.
BROW, FROWN = 0.028, 0.012
# smile (negative: corners down), brow raise (negative: lower), inner-brow frown, lid opening, gap, upper-lip raise
_SHAPES = {
    "angry": (-0.15, -0.45, 0.90, 0.08, 0.00, 0.10),
    "disgust": (-0.25, -0.25, 0.55, -0.10, 0.00, 0.55),
    "fear": (-0.10, 0.60, 0.35, 0.16, 0.03, 0.00),
    "happy": (0.85, 0.15, 0.00, -0.14, 0.00, 0.10),
    "neutral": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "sad": (-0.50, 0.10, 0.30, -0.14, 0.00, 0.00),
    "surprise": (0.00, 0.95, 0.00, 0.18, 0.05, 0.00),
    "contempt": (0.30, -0.05, 0.10, -0.08, 0.00, 0.10),
}
_INNER_BROWS_UP = {"sad": 0.25, "fear": 0.2}  # glabella lift, the oblique brow of grief


def emotion_offset(weights: npt.ArrayLike) -> Floats:
    """(..., 8) emotion weights -> (..., 21, 3) keypoint changes, head frame, face units; neutral is nothing."""
    w = np.asarray(weights, np.float64)
    smile, brow, frown, lids, gap, upper = np.moveaxis(w @ np.array([_SHAPES[e] for e in EMOTIONS]), -1, 0)
    inner = w @ np.array([_INNER_BROWS_UP.get(e, 0.0) for e in EMOTIONS])
    d = np.zeros((*w.shape[:-1], KEYPOINTS, 3))
    for corner, side in zip(MOUTH_CORNERS, (-1.0, 1.0), strict=True):
        d[..., corner, 0] = side * 0.35 * SMILE * np.maximum(smile, 0.3 * smile)
        d[..., corner, 1] = -0.60 * SMILE * smile
    d[..., Keypoint.RIGHT_MOUTH_CORNER, 1] -= 0.45 * SMILE * w[..., EMOTIONS.index("contempt")]  # one-sided
    for cheek in CHEEKS:
        d[..., cheek, 1] = -0.25 * SMILE * np.maximum(smile, 0.0)
    for brow_point, side in zip(BROWS, (1.0, -1.0), strict=True):
        d[..., brow_point, 0] = side * FROWN * frown
        d[..., brow_point, 1] = -BROW * brow + 0.3 * FROWN * frown
    d[..., Keypoint.GLABELLA, 1] = -0.3 * BROW * brow - BROW * inner
    for lid in UPPER_LIDS:
        d[..., lid, 1] = -TEMPLATE_APERTURE * lids
    d[..., Keypoint.LOWER_INNER_LIP, 1] = 0.1 * gap
    d[..., Keypoint.CHIN, 1] = 0.05 * gap
    for lip in (Keypoint.UPPER_INNER_LIP, Keypoint.UPPER_OUTER_LIP):
        d[..., lip, 1] = -0.012 * upper
    return d
