"""Which face of a picture is meant, and several of them at once."""

import re
from pathlib import Path

import numpy as np
import pytest

from ditto.errors import NoFaceError
from ditto.media.images import read_picture
from ditto.portrait.registration import find_faces, register, register_faces
from ditto.portrait.selection import box_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "portrait.jpg"


@pytest.fixture(scope="module")
def single():
    return read_picture(EXAMPLE, 256)[0]


@pytest.fixture(scope="module")
def picture(single):
    """Two faces: on the right the larger one, mirrored and in other colours."""
    import cv2

    large = cv2.resize(np.ascontiguousarray(single[:, ::-1, ::-1]), (320, 320), interpolation=cv2.INTER_CUBIC)
    both = np.full((320, 576, 3), 127, np.uint8)
    both[40 : 40 + 256, :256] = single
    both[:, 256:] = large
    return both


@pytest.fixture(scope="module")
def faces(picture):
    found = find_faces(picture)
    assert len(found) == 2
    return found


def middle(portrait):
    points = portrait.landmarks[:, :2] @ portrait.crop_to_picture[:2, :2].T + portrait.crop_to_picture[:2, 2]
    return (points.min(0) + points.max(0)) / 2


def test_a_face_is_chosen_by_its_box(picture, faces):
    for face in faces:
        left, top, width, height = box_of(face.landmarks)
        portrait = register(picture, face=(left - 5, top + 4, width + 8, height))
        assert np.abs(middle(portrait) - (left + width / 2, top + height / 2)).max() < 4


def test_a_box_counts_pixels_of_the_file(picture, faces):
    import cv2

    large = cv2.resize(picture, None, fx=2.0, fy=2.0, interpolation=cv2.INTER_CUBIC)
    box = tuple(2 * side for side in box_of(faces[1].landmarks))
    portrait = register(large, face=box, max_size=576)
    assert portrait.picture.shape == (320, 576, 3) and middle(portrait)[0] < 256


def test_a_box_without_a_face_is_answered_with_the_faces(picture, faces):
    with pytest.raises(NoFaceError, match=r"middle is in the box 0,0,20,20 .* the faces are 0 at \d+,\d+,"):
        register(picture, face=(0, 0, 20, 20))


def test_a_face_is_chosen_by_a_picture_of_it(single, picture, faces):
    assert middle(register(picture, face=single))[0] < 256
    assert middle(register(picture, face=np.ascontiguousarray(single[:, ::-1, ::-1])))[0] > 256


def test_a_picture_of_another_face_chooses_none(picture):
    other = Path(__file__).parents[1] / "fixtures" / "pictures" / "pearl_earring.jpg"
    with pytest.raises(NoFaceError, match="expected a face that looks like the reference picture, got none"):
        register(picture, face=other)


def test_two_faces_that_look_alike_cannot_be_told_apart(single):
    both = np.concatenate([single, single], axis=1)
    with pytest.raises(NoFaceError, match=r"got faces \d and \d, which look alike; choose by number or box"):
        register(both, face=single)


def test_all_faces_share_one_picture(picture, faces):
    portraits = register_faces(picture)
    assert len(portraits) == 2 and np.shares_memory(portraits[0].picture, portraits[1].picture)
    assert middle(portraits[0])[0] > 256 > middle(portraits[1])[0]
    for portrait, other in (portraits, portraits[::-1]):  # the mask of a face leaves the other out
        x, y = np.linalg.inv(portrait.crop_to_picture)[:2] @ (*middle(other), 1.0)
        size = len(portrait.crop)
        if 0 <= x < size and 0 <= y < size:
            assert portrait.mask[int(y), int(x)] < 0.05


@pytest.mark.parametrize("chosen", [None, [0, 1], [1]])
def test_a_size_in_which_a_face_is_too_small_is_told_with_one_that_works(picture, chosen):
    with pytest.raises(NoFaceError, match=r"every face is 40 pixels high, got 64, .*; give \d+ or more") as caught:
        register_faces(picture, chosen, 64)
    enough = int(re.search(r"give (\d+)", str(caught.value))[1])
    assert max(register_faces(picture, chosen, enough)[0].picture.shape) <= enough


def test_faces_come_in_the_order_asked_for(picture, faces):
    left, right = register_faces(picture, [1, 0])
    assert middle(left)[0] < 256 < middle(right)[0]
    assert (left.landmarks == register(picture, face=1).landmarks).all()


@pytest.mark.parametrize(
    ("choice", "error", "words"),
    [
        ([0, 0], ValueError, "expected different faces, got face 0 twice"),
        ([0, 2], NoFaceError, "face 2 was asked for, but the picture has 2 faces"),
        ([], ValueError, "expected one face or more, got none"),
        ([(1, 2, 3)], TypeError, r"expected a box as \(left, top, width, height\)"),
        ([(1, 2, 3, float("nan"))], TypeError, "give four numbers"),
        ([True], TypeError, "expected a face as a number, a box or a picture"),
    ],
)
def test_faces_that_cannot_be_chosen(picture, choice, error, words):
    with pytest.raises(error, match=words):
        register_faces(picture, choice)
