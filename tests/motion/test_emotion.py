"""What emotions change of a face's keypoints: named ways, mixes, lids that close all the same."""

import numpy as np
import pytest

from ditto.motion.emotion import EMOTIONS, add_emotion, emotion_vector, shown_offset
from ditto.motion.motion import INNER_LIPS, KEYPOINTS, TEMPLATE_APERTURE, UPPER_LIDS, Keypoint

SHOWN = [name for name in EMOTIONS if name != "neutral"]
RIGHT_BROW, RIGHT_CORNER, LEFT_CORNER = Keypoint.RIGHT_BROW, Keypoint.RIGHT_MOUTH_CORNER, Keypoint.LEFT_MOUTH_CORNER
UPPER, LOWER = INNER_LIPS


def at(name, weight=1.0):
    return shown_offset(emotion_vector({name: weight}))


@pytest.mark.parametrize(
    ("name", "keypoint", "way"),
    [
        ("happy", RIGHT_CORNER, -0.05), ("happy", Keypoint.LEFT_CHEEK, -0.03), ("sad", LEFT_CORNER, 0.05),
        ("sad", Keypoint.GLABELLA, -0.02), ("surprise", RIGHT_BROW, -0.04), ("fear", RIGHT_BROW, -0.03),
        ("surprise", Keypoint.LEFT_UPPER_LID, -0.01), ("angry", RIGHT_BROW, 0.04), ("contempt", RIGHT_CORNER, -0.05),
        ("disgust", Keypoint.UPPER_OUTER_LIP, -0.04),
    ],
)  # fmt: skip
def test_each_emotion_moves_its_own_keypoints_further_the_stronger_it_is(name, keypoint, way):
    heights = [at(name, weight)[keypoint, 1] for weight in (0.25, 0.5, 0.75, 1.0)]
    assert heights[-1] / way >= 1.0
    assert (np.diff([0.0, *heights]) / way > 0.0).all()


def test_neutral_is_nothing_and_mixes_lie_between():
    assert not shown_offset(emotion_vector(None)).any()
    mixed = shown_offset(emotion_vector({"happy": 0.5, "surprise": 0.5}))
    np.testing.assert_allclose(mixed, 0.5 * at("happy") + 0.5 * at("surprise"), atol=1e-9)
    assert shown_offset(np.stack([emotion_vector({name: 1.0}) for name in EMOTIONS])).shape == (8, KEYPOINTS, 3)


def test_only_contempt_is_one_sided():
    pairs = [(1, 2), (3, 7), (6, 12), (8, 9), (13, 16)]
    for name in SHOWN:
        change = at(name)
        apart = max(np.abs(change[right] * (-1, 1, 1) - change[left]).max() for right, left in pairs)
        assert apart > 0.02 if name == "contempt" else apart == 0.0


@pytest.mark.parametrize("name", SHOWN)
def test_the_gap_between_the_lips_stays(name):
    change = at(name)
    assert change[LOWER, 1] == change[UPPER, 1]


@pytest.mark.parametrize("name", SHOWN)
def test_a_blink_closes_as_far_as_without(name):
    faces = np.zeros((3, KEYPOINTS, 3))
    faces[1, list(UPPER_LIDS), 1] = TEMPLATE_APERTURE / 2
    faces[2, list(UPPER_LIDS), 1] = TEMPLATE_APERTURE
    lids = [*UPPER_LIDS, Keypoint.LOWER_LIDS]
    awake, half, shut = (add_emotion(faces, emotion_vector({name: 1.0})) - faces)[:, lids]
    np.testing.assert_allclose(awake, at(name)[lids])
    np.testing.assert_allclose(half, awake / 2)
    assert not shut.any()
