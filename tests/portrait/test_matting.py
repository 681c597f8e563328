"""The person cut out of an opaque picture."""

import cv2
import numpy as np
import pytest

from ditto.errors import ImageError
from ditto.media.images import straight_colours
from ditto.portrait import matting
from ditto.portrait.matting import cut_out, foreground_colours, person_matte


@pytest.fixture(scope="module")
def cut(portrait):
    return cut_out(portrait)


def test_the_person_is_solid_and_the_surroundings_are_clear(portrait, cut):
    assert cut.alpha.shape == portrait.picture.shape[:2]
    assert cut.alpha.min() == 0 and cut.alpha.max() == 255
    x, y = np.rint(portrait.landmarks[:, :2] @ portrait.crop_to_picture[:2, :2].T + portrait.crop_to_picture[:2, 2]).T
    assert (cut.alpha[y.astype(int), x.astype(int)] == 255).mean() > 0.98  # the face
    assert (cut.alpha[:40, -60:] == 0).all()  # the space shuttle behind her
    assert (cut.picture[cut.alpha == 0] == 255).all()  # over white
    assert np.abs(straight_colours(cut.picture, cut.alpha).astype(int) - portrait.picture)[cut.alpha == 255].max() < 20
    assert 0.005 < ((cut.alpha > 8) & (cut.alpha < 247)).mean() < 0.1  # hair is neither


def test_the_face_stays_as_it_was_measured(portrait, cut):
    for name in ("landmarks", "canonical_keypoints", "rotation", "expression", "crop_to_picture"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(portrait, name))
    assert (cut.mask <= portrait.mask).all()
    assert cut_out(cut) is cut  # alpha of its own stays


def test_the_same_matte_every_time(portrait, cut):
    np.testing.assert_array_equal(cut_out(portrait).alpha, cut.alpha)


def test_alpha_is_found_again_over_another_background(portrait, cut):
    """Laid over plain blue and cut out again: the same alpha, hair included."""
    behind = np.full(portrait.picture.shape, (90, 140, 190), np.uint8)
    share = cut.alpha[..., None] / 255.0
    laid = np.rint(straight_colours(cut.picture, cut.alpha) * share + behind * (1 - share)).astype(np.uint8)
    crop = matting.sample_crop(laid, portrait.crop_to_picture, len(portrait.crop))
    again = person_matte(matting.replace(portrait, picture=laid, crop=crop))
    assert np.abs(again - cut.alpha / 255.0).mean() < 0.02


def test_colours_lose_the_background():
    """Strands of brown hair before pure green: the green, which is half of the picture there, is taken out."""
    height, width = 96, 128
    alpha = np.zeros((height, width), np.float32)
    alpha[:, :48] = 1.0
    alpha[::4, 48:80] = 0.5
    alpha = cv2.GaussianBlur(alpha, (0, 0), 1.0)
    hair, green = np.array([90.0, 60.0, 40.0]), np.array([0.0, 255.0, 0.0])
    seen = np.rint(alpha[..., None] * hair + (1 - alpha[..., None]) * green).astype(np.uint8)
    colours = foreground_colours(seen, alpha)
    strands = (alpha > 0.1) & (alpha < 0.9)
    assert np.abs(seen[strands] - hair).max() > 100
    assert np.abs(colours[strands] - hair).max() < 2


def test_a_picture_in_which_no_person_is_recognised_is_refused(portrait, monkeypatch):
    empty = type("Empty", (), {"segment": lambda self, view: np.zeros(view.shape[:2], np.float32)})
    monkeypatch.setattr(matting, "networks", empty)
    with pytest.raises(ImageError, match=r"expected a person that stands out .* cut the person out yourself"):
        cut_out(portrait)


def test_a_fine_picture_takes_the_alpha_of_a_coarser_one(portrait, cut, monkeypatch):
    monkeypatch.setattr(matting, "SOLVED_SIZE", 160)  # the picture is 256 long
    assert np.abs(person_matte(portrait) - cut.alpha / 255.0).mean() < 0.02
