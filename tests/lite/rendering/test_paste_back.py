"""Paste-back: the rendered crop returns to the picture, and nothing else changes."""

import numpy as np
import pytest

from ditto import ops
from ditto.lite.rendering.paste_back import PasteBack
from ditto.motion.motion import KEYPOINTS
from ditto.ops import reference
from ditto.portrait.portrait import Portrait

SIZE = 64


def texture(height, width, seed=0, fine=0.0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * rng.uniform(0.05, 0.2) + y * rng.uniform(0.05, 0.2) + rng.uniform(0, 6)) for _ in range(3)]
    image = 127 + 70 * np.stack(waves, -1) + fine * rng.choice([-1, 1], (height, width, 1))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def placement(step, corner=(20.0, 14.0), degrees=0.0):
    """Crop pixels to picture pixels."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    matrix[:2, :2] = step * np.array([[c, -s], [s, c]])
    matrix[:2, 2] = corner
    return matrix


def sampled(picture, matrix):
    """The crop of a picture, by plain bilinear sampling."""
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    u, v = (matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] for i in (0, 1))
    u, v = np.clip(u, 0, picture.shape[1] - 1.001), np.clip(v, 0, picture.shape[0] - 1.001)
    i, j = u.astype(int), v.astype(int)
    p, q = (u - i)[..., None], (v - j)[..., None]
    f = picture.astype(float)
    top, low = f[j, i] * (1 - p) + f[j, i + 1] * p, f[j + 1, i] * (1 - p) + f[j + 1, i + 1] * p
    return np.rint(top * (1 - q) + low * q).astype(np.uint8)


def portrait(matrix, picture=None):
    picture = texture(120, 160) if picture is None else picture
    return Portrait(
        picture=picture,
        alpha=None,
        crop=sampled(picture, matrix),
        crop_to_picture=matrix,
        landmarks=np.linspace(0.2, 0.8, 478)[:, None] * (SIZE, SIZE, 0),
        mask=np.ones((SIZE, SIZE), np.float32),
        canonical_keypoints=np.zeros((KEYPOINTS, 3)),
        scale=0.5,
        rotation=np.eye(3),
        translation=np.zeros(3),
        expression=np.zeros((KEYPOINTS, 3)),
        eye_open=np.ones(2, np.float32),
        eye_ball=np.zeros(6, np.float32),
    )


PLACES = {
    "copy": placement(1.0),
    "between pixels": placement(1.0, (20.4, 14.7)),
    "finer crop": placement(0.4),
    "much finer crop": placement(0.17),
    "coarser crop": placement(1.6),
    "turned": placement(1.1, (50.0, 8.0), 33.0),
    "turned and finer": placement(0.45, (50.0, 30.0), -40.0),
    "over the edge": placement(1.3, (-21.0, -9.5)),
    "over every edge": placement(3.1, (-20.0, -30.0)),
}


def changed(crop, amount=40, where=slice(20, 44)):
    after = crop.copy()
    after[where, where] = np.clip(after[where, where].astype(int) + amount, 0, 255)
    return after


def arguments(p, after, *channels):
    """What PasteBack hands to the kernel."""
    calls = []
    back = PasteBack(p, *channels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ditto.lite.rendering.paste_back.paste_back", lambda *a: calls.append(a))
        back(after)
    return calls[0]


@pytest.mark.parametrize("place", PLACES)
def test_no_change_gives_the_picture_bit_for_bit(place):
    p = portrait(PLACES[place], texture(120, 160, fine=25))
    frame = PasteBack(p)(p.crop)
    assert (frame == p.picture).all() and frame is not p.picture and frame.flags.writeable


@pytest.mark.parametrize("place", PLACES)
def test_kernel_equals_twin(place):
    p = portrait(PLACES[place], texture(120, 160, fine=25))
    noise = np.random.default_rng(2).integers(-30, 30, p.crop.shape)
    for after in (changed(p.crop), np.clip(p.crop + noise, 0, 255).astype(np.uint8), changed(p.crop, 3, slice(0, 9))):
        given = arguments(p, after)
        got, want = ops.paste_back(*given), reference.paste_back(*given)
        # Sums in another order: a value on the edge between two levels may fall to either.
        assert np.abs(got.astype(int) - want).max() <= 1
        assert (got != want).mean() < 1e-3


@pytest.mark.parametrize("place", PLACES)
def test_one_channel_is_pasted_as_one_of_three_equal_ones(place):
    p = portrait(PLACES[place], texture(120, 160, fine=25))
    grey, crop = p.picture[..., :1], p.crop[..., :1]
    noise = np.random.default_rng(2).integers(-30, 30, crop.shape)
    three = PasteBack(p, np.repeat(grey, 3, -1), np.repeat(crop, 3, -1))
    for after in (changed(crop), np.clip(crop + noise, 0, 255).astype(np.uint8)):
        given = arguments(p, after, grey, crop)
        got, defined = ops.paste_back(*given), reference.paste_back(*given)
        assert got.shape == grey.shape and np.abs(got.astype(int) - defined).max() <= 1
        again = three(np.repeat(after, 3, -1))[..., :1]
        assert np.abs(got.astype(int) - again).max() <= 1 and (got != again).mean() < 1e-3  # sums in another order


@pytest.mark.parametrize("place", PLACES)
def test_only_what_the_crop_covers_changes_and_it_changes_by_what_was_rendered(place):
    p = portrait(PLACES[place])
    frame = PasteBack(p)(changed(p.crop, 40, slice(16, 48))).astype(int) - p.picture
    to_crop = np.linalg.inv(p.crop_to_picture)
    y, x = np.mgrid[:120, :160]
    u, v = (to_crop[i, 0] * x + to_crop[i, 1] * y + to_crop[i, 2] for i in (0, 1))
    reach = 4 * max(1.0, 1.0 / np.sqrt(np.linalg.det(p.crop_to_picture[:2, :2])))
    inner = (np.abs(u - 31.5) < 16 - reach) & (np.abs(v - 31.5) < 16 - reach)
    outer = (np.abs(u - 31.5) > 16 + 40) | (np.abs(v - 31.5) > 16 + 40)
    assert (frame[outer] == 0).all()
    if inner.any():
        unclipped = inner & (p.picture.max(-1) < 200)
        assert np.abs(frame[unclipped] - 40).mean() < 2.0


def test_a_turned_or_inner_crop_leaves_no_seam():
    p = portrait(placement(1.0))
    frame = PasteBack(p)(np.clip(p.crop.astype(int) + 40, 0, 255).astype(np.uint8)).astype(int)
    step = np.abs(np.diff(frame - p.picture, axis=1)).max()
    assert step <= 40 * 0.8 and (frame - p.picture)[14, 20:84].max() == 0  # fades within the FADE border


def test_a_crop_that_reaches_over_the_picture_changes_it_up_to_the_edge():
    p = portrait(PLACES["over every edge"], np.full((120, 160, 3), 90, np.uint8))
    frame = PasteBack(p)(p.crop + np.uint8(40)).astype(int) - p.picture
    assert np.abs(frame - 40).max() <= 1


def test_fine_detail_does_not_stand_still_over_what_moves():
    picture = texture(120, 160, fine=25)
    p = portrait(placement(1.6), picture)
    smooth = np.full_like(p.crop, 128)
    after = p.crop.copy()
    after[8:56, 8:56] = smooth[8:56, 8:56]
    frame = PasteBack(p)(after).astype(float)
    middle = frame[14 + 35 : 14 + 67, 20 + 35 : 20 + 67]
    assert np.abs(middle - 128).max() <= 1
    quiet = PasteBack(p)(changed(p.crop, 10, slice(4, 6)))
    assert (quiet[60:100, 60:110] == picture[60:100, 60:110]).all()


def test_input_is_left_alone_and_the_same_every_time():
    p = portrait(PLACES["coarser crop"])
    back, after = PasteBack(p), changed(p.crop)
    kept = after.copy()
    assert (back(after) == back(after)).all() and (after == kept).all()


GOOD = {
    "picture": np.zeros((40, 50, 3), np.uint8),
    "source": np.zeros((16, 16, 3), np.uint8),
    "rendered": np.zeros((16, 16, 3), np.uint8),
    "ramp": np.ones((2, 16), np.float32),
    "to_crop": np.eye(3)[:2],
    "corner": (0, 0),
    "size": (16, 16),
    "detail": None,
    "reduce": 1,
}


@pytest.mark.parametrize(
    ("name", "value", "error", "words"),
    [
        ("picture", np.zeros((40, 50), np.uint8), ValueError, r"picture \(H, W, 3\)"),
        ("picture", np.zeros((40, 50, 1), np.uint8), ValueError, r"crops \(S, S, 1\)"),
        ("picture", np.zeros((40, 50, 3), np.float32), TypeError, "picture of paste_back as uint8, got float32"),
        ("rendered", np.zeros((16, 15, 3), np.uint8), ValueError, "crops"),
        ("source", np.zeros((8, 8, 3), np.uint8), ValueError, "crops"),
        ("rendered", np.zeros((16, 16, 3), np.int16), TypeError, "rendered of paste_back as uint8, got int16"),
        ("ramp", np.ones((2, 9), np.float32), ValueError, "ramp"),
        ("to_crop", np.eye(3), ValueError, "to_crop"),
        ("size", (60, 16), ValueError, "a part inside of 50 x 40 pixels"),
        ("corner", (-1, 0), ValueError, "a part inside of 50 x 40 pixels"),
        ("detail", np.zeros((4, 4, 3), np.int16), ValueError, "detail"),
        ("reduce", 0, ValueError, "reduce"),
    ],
)
def test_paste_back_says_what_it_refuses(name, value, error, words):
    ops.paste_back(**GOOD)
    with pytest.raises(error, match=words):
        ops.paste_back(**{**GOOD, name: value})
