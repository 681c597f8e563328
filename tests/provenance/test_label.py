"""The visible label: where it is drawn, what it leaves alone, what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from ditto.errors import InputError
from ditto.live.session import AsyncSession, Session
from ditto.media.pixels import OUTPUTS, picture_of
from ditto.provenance import DISCLOSURE, Label

GREY = np.full((120, 160, 3), 90, np.uint8)


@pytest.mark.parametrize(
    ("corner", "rows", "columns"),
    [
        ("top-left", slice(0, 60), slice(0, 80)),
        ("top-right", slice(0, 60), slice(80, 160)),
        ("bottom-left", slice(60, 120), slice(0, 80)),
        ("bottom-right", slice(60, 120), slice(80, 160)),
    ],
)
def test_a_label_is_drawn_in_its_corner_and_nowhere_else(corner, rows, columns):
    drawn = Label("AI", corner).draw(GREY)
    changed = (drawn != GREY).any(-1)
    assert changed[rows, columns].sum() == changed.sum() > 100
    assert drawn.max() > 200 and drawn.min() < 45  # white letters on a dark ground
    assert (GREY == 90).all()


def test_a_label_grows_with_the_picture_and_fits_into_a_narrow_one():
    def height(rows, columns):
        picture = np.full((rows, columns, 3), 90, np.uint8)
        changed = (Label("AI-generated").draw(picture) != picture).any(-1).any(1)
        return int(changed.sum())

    assert height(1000, 1000) > 2 * height(400, 400)
    assert height(1000, 200) < height(1000, 1000)
    with pytest.raises(InputError, match="expected a label that fits into 64 x 48 pixels"):
        Label("a label that is far too long").draw(np.zeros((48, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": " "}, "of 1 to 60 characters"),
        ({"text": "a\nb"}, "in one line"),
        ({"text": "x" * 61}, "of 1 to 60 characters"),
        ({"corner": "middle"}, "expected a corner of top-left"),
        ({"font": "/missing.ttf"}, "expected a font file"),
        ({"text": "生成"}, "which it lacks; give another font"),
    ],
)
def test_labels_that_cannot_be_drawn_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        Label(**options)


def test_a_font_of_the_user_s_draws_the_label(tmp_path):
    (tmp_path / "font.ttf").write_bytes(ImageFont.load_default(20).font_bytes)
    drawn = Label("AI", font=str(tmp_path / "font.ttf")).draw(GREY)
    size = (drawn != GREY).any(-1).sum()
    assert size > 100 and (drawn != Label("AI").draw(GREY)).any(-1).sum() < size / 2  # up to the layout of the system


@pytest.mark.parametrize("output", sorted(OUTPUTS))
def test_sessions_show_the_label_in_every_pixel_format(output):
    label, alpha = Label("AI", "top-left"), np.zeros(GREY.shape[:2], np.uint8)
    plain, drawn = (picture_of(GREY, alpha, output, given) for given in (None, label))
    assert np.array_equal(plain[60:120, 80:], drawn[60:120, 80:]) and not np.array_equal(plain, drawn)
    if output == "rgba":  # the label can be seen where the portrait cannot
        assert drawn[..., 3].max() == 255 and plain[..., 3].max() == 0


def test_the_served_page_and_sessions_tell_the_person():
    page = Path(__file__).parents[2] / "ditto" / "live" / "server" / "page" / "index.html"
    assert DISCLOSURE in page.read_text() and Session.disclosure == AsyncSession.disclosure == DISCLOSURE
