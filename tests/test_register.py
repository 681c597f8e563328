"""Pictures as people have them: cut out, cut off, covered, a small face in a large photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ditto
from ditto.images import read_picture
from ditto.motion import Drive
from ditto.rendering.mesh import MeshRenderer
from ditto.tracking import register

PICTURES = Path(__file__).parent / "fixtures" / "pictures"
PORTRAIT = Path(__file__).parents[1] / "examples" / "portrait.jpg"


@pytest.fixture(scope="module")
def renderer():
    return MeshRenderer(Path(ditto.__file__).parent / "bundles" / "lite")


@pytest.fixture(scope="module")
def picture():
    return read_picture(PORTRAIT, 640)[0]


def moved(renderer, portrait):
    """A frame with the head aside and the mouth open."""
    delta = np.zeros((21, 3))
    delta[[17, 19], 1] = 0.05
    drive = Drive(portrait.scale, portrait.rotation, portrait.translation + [0.06, 0.0, 0.0], delta)
    return renderer.paste_back(portrait)(renderer.render(renderer.prepare(portrait), drive))


def in_crop(portrait, values):
    """Values (H, W) of the picture under every pixel of the crop, nearest."""
    a, size = portrait.crop_to_picture, len(portrait.crop)
    y, x = np.mgrid[:size, :size]
    u, v = a[0, 0] * x + a[0, 1] * y + a[0, 2], a[1, 0] * x + a[1, 1] * y + a[1, 2]
    height, width = values.shape
    return values[np.clip(np.rint(v).astype(int), 0, height - 1), np.clip(np.rint(u).astype(int), 0, width - 1)]


def test_a_soft_cutout_is_soft_all_the_way_to_the_frames(renderer):
    portrait = register(PICTURES / "cutout_soft.png")
    rgb, alpha = read_picture(PICTURES / "cutout_soft.png")
    assert (portrait.alpha == alpha).all() and (portrait.picture == rgb).all()
    under = in_crop(portrait, alpha)
    assert portrait.mask[under < 2].max() < 0.05  # nothing to move where nothing is seen
    half = portrait.mask[(under > 100) & (under < 156)]
    assert half.max() < 0.75 and ((half > 0.3) & (half < 0.7)).mean() > 0.1  # soft where the person is
    plate = renderer.prepare(portrait).background.plate
    assert plate[under < 20].min() > 200  # white behind, no removed background
    frame = moved(renderer, portrait)
    assert frame[alpha == 0].min() > 150 and np.abs(frame.astype(int) - rgb).max() > 60


@pytest.mark.parametrize("level", [102, 178, 254])
def test_an_evenly_transparent_picture_is_shown_as_such_and_moves(renderer, picture, level):
    portrait = register(np.dstack([picture, np.full(picture.shape[:2], level, np.uint8)]))
    share = level / 255
    assert np.abs(portrait.picture - (picture * share + 255 * (1 - share))).max() <= 1
    assert (portrait.alpha == level).all()
    opaque = register(picture)
    assert np.abs(portrait.mask - opaque.mask).mean() < 0.05  # the person is as much a person as without
    frame = moved(renderer, portrait)
    assert (frame.min(-1) < 255 * (1 - share) - 12).mean() < 0.02  # nothing is darker, but for the inside of the mouth
    assert np.abs(frame.astype(int) - portrait.picture).max() > 60


def test_a_removed_background_does_not_come_back(renderer, picture):
    x = np.arange(picture.shape[1]) + np.zeros((picture.shape[0], 1))
    across = np.abs(x / picture.shape[1] - 0.5)
    alpha = np.rint(255 * np.clip((0.42 - across) / 0.08, 0, 1)).astype(np.uint8)
    removed = picture.copy()
    removed[across > 0.34] = (0, 255, 0)
    for behind in (removed, picture):
        portrait = register(np.dstack([behind, alpha]))
        assert (portrait.picture[alpha == 0] == 255).all()
        assert moved(renderer, portrait)[alpha == 0].min() > 200
