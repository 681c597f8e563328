"""What a registered face shows: how it deviates from neutral, how far its eyes are open and where they look."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto.motion.motion import CHEEKS, INNER_LIPS, KEYPOINTS, MOUTH_CORNERS, Keypoint
from ditto.portrait.face_mesh import (
    LOWER_INNER_LIP,
    LOWER_OUTER_LIP,
    PARTED_LIPS,
    UPPER_INNER_LIP,
    UPPER_OUTER_LIP,
    inner_gap,
    keypoints,
)

Floats = npt.NDArray[np.float64]

TOUCHING_GAP = 0.010  # fu between the inner-lip landmarks of lips that just touch
# Parted lips: how far keypoints are from closed, per unit of the gap beyond that (keypoint, change of y). Measured on
# the renderer: with these the lips meet.
OPENING = (
    (Keypoint.LOWER_INNER_LIP, 0.75),
    (Keypoint.UPPER_INNER_LIP, -0.25),
    (Keypoint.UPPER_OUTER_LIP, -0.15),
    (Keypoint.CHIN, 0.30),
)
# A broad smile would make every vowel a laugh: this share of what lifts and widens the mouth beyond the usual is taken
# for expression. Usual: 29 portraits have corners within .02 of the lips' height and mouths .26-.39 wide.
SMILE_SHARE = 0.8  # chosen by eye
USUAL_LIFT, USUAL_WIDTH = 0.012, 0.370  # fu

# Face widths of `lip_inconsistency` from which the lips count as hidden. Of 29 portraits at three sizes and 71 frames of
# people who talk, one has more (.0245, a face of 45 pixels), the next .0199 and 19 in 20 at most .0136. In the portraits with
# a hand, a caption or a face mask drawn over the mouth: .0221 at least. Half of those with a round microphone before it have
# less.
INCONSISTENT_LIPS = 0.021
_LIPS = UPPER_OUTER_LIP + LOWER_OUTER_LIP + UPPER_INNER_LIP + LOWER_INNER_LIP


def lip_inconsistency(plain: Floats, mirrored: Floats) -> float:
    """How far the lips' landmarks of one face disagree under test-time augmentation, face widths.

    The root mean square disagreement within the plain inputs or within the mirrored ones, the larger, plus half of that
    between the two.

    Args:
        plain, mirrored: (n, 478, 3) pixels, from inputs that are slightly moved, and from mirrored ones.
    """
    means = plain.mean(0), mirrored.mean(0)
    width = float(np.linalg.norm(means[0][454] - means[0][234]))

    def spread(a: Floats, b: Floats) -> float:
        return float(np.sqrt(((a - b)[..., _LIPS, :2] ** 2).sum(-1).mean())) / max(width, 1e-9)

    return max(spread(plain, means[0]), spread(mirrored, means[1])) + spread(*means) / 2


def eye_state(landmarks: Floats, size: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Opening (2,) and gaze (6,) of the eyes, as they condition the motion network.

    Args:
        landmarks: (478, 3) pixels of a square picture with sides of `size`.

    Returns:
        Opening of the eye on the left of the picture (33-133) and of the other: three lid distances over the eye's
        width; gaze vectors, x x y y z z.

    Source: Ditto (arXiv:2411.19509), released code at e9191cf, its eye conditions.
    """
    points = landmarks / size

    def distance(a: int, b: int) -> float:
        return float(np.linalg.norm(points[a] - points[b]))

    lids = (((145, 159), (144, 160), (153, 158)), ((374, 386), (373, 387), (380, 385)))
    corners = ((33, 133), (263, 362))
    opening = [
        sum(distance(*pair) for pair in pairs) / (distance(*ends) + 1e-8)
        for pairs, ends in zip(lids, corners, strict=True)
    ]
    gaze = []
    for (outer, inner), iris in zip(corners, (468, 473), strict=True):
        look = points[iris] - (points[outer] + points[inner]) / 2
        length = float(np.linalg.norm(look))
        axis = points[outer] - points[inner]
        gaze.append(length * (look / max(length, 1e-9) - axis / max(float(np.linalg.norm(axis)), 1e-9)))
    return np.array(opening, np.float32), np.stack(gaze, -1).reshape(6).astype(np.float32)


def own_expression(canonical: Floats) -> Floats:
    """How a face (478, 3) fu deviates from neutral, closed lips and no broad smile: (21, 3) fu, head frame."""
    expression = np.zeros((KEYPOINTS, 3))
    points = keypoints(canonical)
    right, left = MOUTH_CORNERS
    lips, corners = points[list(INNER_LIPS), 1].mean(), points[list(MOUTH_CORNERS), 1].mean()
    smile = SMILE_SHARE * max(0.0, float(lips - corners) - USUAL_LIFT)
    wide = SMILE_SHARE * max(0.0, float(points[left, 0] - points[right, 0]) - USUAL_WIDTH) if smile > 0.0 else 0.0
    for corner, cheek, side in zip(MOUTH_CORNERS, CHEEKS, (-0.5, 0.5), strict=True):
        expression[corner] = side * wide, -smile, 0.0
        expression[cheek, 1] = -0.4 * smile
    gap = inner_gap(canonical)
    if gap > PARTED_LIPS:
        for keypoint, share in OPENING:
            expression[keypoint, 1] = share * (gap - TOUCHING_GAP)
    return expression
