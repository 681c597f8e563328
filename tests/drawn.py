"""A face that is drawn, for tests that need one and no picture."""

import cv2
import numpy as np

from ditto.motion.motion import rotation_matrix
from ditto.portrait import face_mesh as g
from ditto.portrait.portrait import Portrait


def drawn_portrait(size=512, pose=(2.0, -5.0, 3.0)):
    """The template face in flat colours: skin, hair and shoulders, dark eyes and mouth, over a striped wall."""
    rotation = rotation_matrix(*pose)
    scale_px = 0.42 * size
    translation_px = np.array([0.5 * size, 0.5 * size, 0.0])
    landmarks = scale_px * g.TEMPLATE @ rotation + translation_px
    y, x = np.mgrid[:size, :size]
    wall = [120 + 60 * np.sin(x * 24 / size), 140 + 0 * x, 160 + 40 * np.sin(y * 30 / size)]
    crop = np.stack(wall, -1).astype(np.uint8)
    mask = np.zeros((size, size), np.uint8)

    def fill(points, colour, also_mask=False):
        polygon = np.round(points).astype(np.int32)
        cv2.fillPoly(crop, [polygon], colour)
        if also_mask:
            cv2.fillPoly(mask, [polygon], 1)

    turn = np.linspace(0, 2 * np.pi, 60)
    fill(0.5 * size + 0.33 * size * np.stack([np.cos(turn), np.sin(turn) - 0.3], -1), (60, 40, 30), True)
    shoulders = np.array([[0.1, 1.0], [0.25, 0.85], [0.42, 0.8], [0.58, 0.8], [0.75, 0.85], [0.9, 1.0]])
    fill(shoulders * size, (40, 60, 120), True)
    fill(landmarks[g.FACE_OVAL, :2], (220, 170, 140), True)
    fill(landmarks[g.UPPER_OUTER_LIP + g.LOWER_OUTER_LIP[::-1], :2], (180, 80, 80))
    for eye in g.EYES:
        fill(landmarks[eye.upper + eye.lower[::-1], :2], (240, 240, 240))
        cv2.circle(crop, np.round(landmarks[eye.iris, :2]).astype(int).tolist(), size // 50, (50, 40, 30), -1)
    crop = cv2.GaussianBlur(crop, (0, 0), size / 512)
    half = size / 2
    return Portrait(
        picture=crop,
        alpha=None,
        crop=crop,
        crop_to_picture=np.eye(3),
        landmarks=landmarks,
        mask=cv2.GaussianBlur(mask.astype(np.float32), (0, 0), size / 300),
        canonical_keypoints=g.keypoints(g.TEMPLATE),
        scale=scale_px / half,
        rotation=rotation,
        translation=(translation_px - (half, half, 0)) / half,
        expression=np.zeros((21, 3)),
        eye_open=np.ones(2, np.float32),
        eye_ball=np.zeros(6, np.float32),
    )
