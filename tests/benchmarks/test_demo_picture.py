"""The moving picture of README loops and shows whole faces."""

import numpy as np
from PIL import Image

from benchmarks.demo_picture import ROOT, SHOWN, looping, shown
from ditto.portrait.registration import register


def test_a_stretch_of_motion_leads_back_into_its_first_frame():
    rows = np.cumsum(np.random.default_rng(0).normal(size=(50, 70)), axis=0)
    loop = looping(rows, 10, 40)
    assert loop.shape == (30, 70)
    assert np.array_equal(loop[0], rows[10])
    drift = (rows[10] - rows[40]) / 30
    assert np.allclose(np.diff(loop, axis=0) - drift, np.diff(rows[10:40], axis=0))
    assert np.allclose(loop[-1] + rows[40] - rows[39] + drift, loop[0])


def test_the_square_that_is_shown_holds_the_face():
    portrait = register(ROOT / "examples" / "portrait.jpg")
    left, top, right, bottom = shown(portrait)
    height, width = portrait.picture.shape[:2]
    assert right - left == bottom - top and 0 <= left < right <= width and 0 <= top < bottom <= height
    points = np.c_[portrait.landmarks[:, :2], np.ones(len(portrait.landmarks))] @ portrait.crop_to_picture[:2].T
    assert (points > [left, top]).all() and (points < [right, bottom]).all()
    assert (right - left) / np.ptp(points[:, 0]) < SHOWN + 0.1


def test_the_picture_in_the_tree_loops_for_five_to_eight_seconds_in_under_three_megabytes():
    path = ROOT / "docs" / "demo.webp"
    with Image.open(path) as picture:
        frames, loop = picture.n_frames, picture.info["loop"]
    assert loop == 0 and 5 <= frames / 25 <= 8 and path.stat().st_size < 3e6
