"""A portrait in a mirror: every number of it, not another registration."""

from dataclasses import replace

import numpy as np

from ditto.portrait.face_mesh import MIRROR
from ditto.training.motion_batches import mirror_eyes, mirror_keypoints

FLIP = np.diag([-1.0, 1.0, 1.0])


def flipping(width):
    """(3, 3) pixel (x, y, 1) -> the same pixel of the mirrored picture."""
    return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def keypoints_mirrored(values):
    return mirror_keypoints(np.asarray(values, np.float32).reshape(-1)).reshape(21, 3).astype(np.float64)


def mirrored(portrait):
    size, width = len(portrait.crop), portrait.picture.shape[1]
    landmarks = portrait.landmarks * [-1.0, 1.0, 1.0] + [size - 1.0, 0.0, 0.0]
    eyes = mirror_eyes(np.concatenate([portrait.eye_open, portrait.eye_ball]))
    return replace(
        portrait,
        picture=portrait.picture[:, ::-1],
        alpha=None if portrait.alpha is None else portrait.alpha[:, ::-1],
        crop=portrait.crop[:, ::-1],
        crop_to_picture=flipping(width) @ portrait.crop_to_picture @ flipping(size),
        landmarks=landmarks[MIRROR],
        mask=portrait.mask[:, ::-1],
        canonical_keypoints=keypoints_mirrored(portrait.canonical_keypoints),
        rotation=FLIP @ portrait.rotation @ FLIP,
        translation=portrait.translation * [-1.0, 1.0, 1.0] - [2.0 / size, 0.0, 0.0],
        expression=keypoints_mirrored(portrait.expression),
        eye_open=eyes[:2],
        eye_ball=eyes[2:],
    )
