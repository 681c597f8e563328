"""Faces are found wherever they are, animals are not, and a registered face says where it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ditto.errors import NoFaceError
from ditto.media.images import read_picture
from ditto.motion.motion import rotation_matrix
from ditto.portrait.face_mesh import EYES, FACE_OVAL, LANDMARKS, MIRROR, TEMPLATE, fit_head, keypoints
from ditto.portrait.face_state import eye_state, own_expression
from ditto.portrait.registration import MIN_FACE, find_faces, register, register_face

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"
SHARED = Path(__file__).parents[3] / "shared"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")


@pytest.fixture(scope="module")
def picture():
    return read_picture(PORTRAIT, 640)[0]


@pytest.fixture(scope="module")
def face(picture):
    return find_faces(picture)[0]


@pytest.fixture(scope="module")
def portrait(picture):
    return register(picture)


def resized(picture, factor):
    size = [round(n * factor) for n in picture.shape[1::-1]]
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX if factor < 1 else Image.BICUBIC))


def on_canvas(picture, height, width, corner=(0, 0)):
    """A picture on patterned ground."""
    canvas = np.random.default_rng(0).integers(80, 160, (height, width, 1)).repeat(3, 2).astype(np.uint8)
    x, y = corner
    canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return canvas


def width_of(landmarks):
    return np.linalg.norm(landmarks[454, :2] - landmarks[234, :2])


def apart(a, b):
    """Mean distance of two sets of landmarks in face widths."""
    return np.linalg.norm(a[:, :2] - b[:, :2], axis=1).mean() / width_of(a)


def test_the_example_has_one_face(picture, face):
    assert len(find_faces(picture)) == 1
    assert face.landmarks.shape == (LANDMARKS, 3) and face.presence > 0.9
    assert face.size == pytest.approx(np.ptp(face.landmarks[:, :2], axis=0).max())


def test_same_picture_same_landmarks(picture, face):
    assert (find_faces(picture)[0].landmarks == face.landmarks).all()


def test_a_mirrored_picture_has_mirrored_landmarks(picture, face):
    mirrored = find_faces(np.ascontiguousarray(picture[:, ::-1]))[0].landmarks[MIRROR]
    mirrored[:, 0] = picture.shape[1] - 1 - mirrored[:, 0]
    assert apart(face.landmarks, mirrored) < 0.006


@pytest.mark.parametrize("degrees", [-45, -30, 30, 45, 90, 180])
def test_a_turned_face_is_found(picture, face, degrees):
    turned = Image.fromarray(picture).rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=(120, 130, 140))
    found = find_faces(np.asarray(turned))
    assert len(found) == 1
    angle = np.radians(-degrees)
    c, s = np.cos(angle), np.sin(angle)
    middle = (np.array(picture.shape[1::-1]) - 1) / 2
    want = (face.landmarks[:, :2] - middle) @ [[c, s], [-s, c]] + (np.array(turned.size) - 1) / 2
    assert apart(np.column_stack([want, face.landmarks[:, 2]]), found[0].landmarks) < 0.02


@pytest.mark.parametrize("pixels", [44, 80])
@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (0.5, 1), (1, 1)])
def test_a_small_face_anywhere_is_found(picture, face, pixels, corner):
    small = resized(picture, pixels / face.size)
    x, y = (round(c * (n - m)) for c, n, m in zip(corner, (1200, 900), small.shape[1::-1], strict=True))
    found = find_faces(on_canvas(small, 900, 1200, (x, y)))
    assert len(found) == 1
    want = face.landmarks * (pixels / face.size) + [x, y, 0]
    assert apart(want, found[0].landmarks) < 0.03


def test_the_largest_face_comes_first_and_the_index_chooses(picture, face):
    small = resized(picture, 0.6)
    both = np.full((picture.shape[0], picture.shape[1] + small.shape[1], 3), 200, np.uint8)
    both[: small.shape[0], : small.shape[1]] = small
    both[:, small.shape[1] :] = picture
    found = find_faces(both)
    assert len(found) == 2 and found[0].size > 1.5 * found[1].size
    first, second = register(both), register(both, face=1)
    assert first.crop_to_picture[0, 2] > second.crop_to_picture[0, 2]
    for index in (2, -1):
        with pytest.raises(NoFaceError, match=f"face {index} was asked for, but the picture has 2 faces"):
            register(both, face=index)


def test_no_face_is_told():
    rng = np.random.default_rng(0)
    for empty in (np.full((200, 300, 3), 128, np.uint8), rng.integers(0, 256, (300, 200, 3)).astype(np.uint8)):
        with pytest.raises(NoFaceError, match="no human face"):
            register(empty)


def test_a_picture_of_two_pixels_has_no_face():
    with pytest.raises(NoFaceError):
        register(np.zeros((2, 2, 3), np.uint8))


def test_too_small_a_face_is_told_with_its_size(picture, face):
    small = on_canvas(resized(picture, 33 / face.size), 480, 640, (200, 100))
    with pytest.raises(NoFaceError, match=rf"face is 3\d pixels .* at least {MIN_FACE}"):
        register(small)


@pytest.mark.parametrize("index", [1, 3])
def test_index_beyond_one_face(picture, index):
    with pytest.raises(NoFaceError, match="has one face"):
        register(picture, face=index)


@shared
@pytest.mark.parametrize("name", ["as it is", "upside down"])
def test_an_animal_is_no_face(name):
    picture, _ = read_picture(SHARED / "data/portraits/private/alpaca_no_human_face.jpg")
    with pytest.raises(NoFaceError):
        register(picture if name == "as it is" else np.ascontiguousarray(picture[::-1]))


@pytest.mark.parametrize(
    ("across", "size", "left"),
    [(500, 512, 500), (600, 512, 600), (736, 736, 736), (928, 928, 928), (1200, 1024, 1200), (1600, 1024, 1280)],
)
def test_a_large_face_is_drawn_at_the_resolution_of_its_picture(picture, across, size, left):
    """`across`: picture pixels the crop covers; `left`: of those, after registration."""
    import cv2

    small = register(picture)
    factor = across / (len(small.crop) * np.linalg.norm(small.crop_to_picture[:2, 0]))
    large = np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))
    middle = (small.crop_to_picture @ (len(small.crop) / 2, len(small.crop) / 2, 1))[:2] * factor
    x, y = np.maximum(middle - 0.6 * across, 0).astype(int)
    portrait = register(large[y : y + round(1.2 * across), x : x + round(1.2 * across)], max_size=4096)
    step = 0 if size in (512, 1024) else 64  # the face is found a pixel larger or smaller
    assert abs(len(portrait.crop) - size) <= step
    assert len(portrait.crop) * np.linalg.norm(portrait.crop_to_picture[:2, 0]) == pytest.approx(left, rel=0.07)


@shared
def test_every_shared_portrait_registers():
    paths = [p for p in sorted((SHARED / "data/portraits").glob("*/*")) if "alpaca" not in p.name]
    assert len(paths) > 20
    for path in paths:
        portrait = register(path)
        oval = portrait.landmarks[FACE_OVAL, :2]
        assert (oval > 0).all() and (oval < len(portrait.crop) - 1).all(), path.name
        assert 180 < portrait.scale * 256 < 300, path.name
        inside = portrait.mask[tuple(np.round(oval.mean(0) + 0.9 * (oval - oval.mean(0))).astype(int).T[::-1])]
        assert inside.min() > 0.9, path.name


def test_a_portrait_agrees_with_itself(portrait, picture):
    size = 512
    assert (portrait.picture == picture).all() and portrait.crop.shape == (size, size, 3)
    scale, rotation, translation, canonical = fit_head(portrait.landmarks)
    assert portrait.scale == pytest.approx(scale / 256)
    assert np.allclose(portrait.rotation, rotation)
    assert np.allclose(portrait.translation * 256 + [256, 256, 0], translation)
    own = own_expression(canonical)
    assert np.allclose(portrait.canonical_keypoints + own, keypoints(canonical))
    assert np.allclose(portrait.expression @ portrait.rotation.T, own)
    # The formula of the keypoints gives back where they are in the crop.
    posed = portrait.scale * (portrait.canonical_keypoints @ rotation + portrait.expression) + portrait.translation
    assert np.allclose(posed[4, :2] * 256 + 256, portrait.landmarks[[1, 4], :2].mean(0), atol=1e-6)
    assert portrait.mask.min() >= 0 and portrait.mask.max() <= 1
    lips = portrait.mask[tuple(np.round(portrait.landmarks[[61, 291, 0, 17], :2]).astype(int).T[::-1])]
    assert lips.min() > 0.95


def test_the_crop_lies_where_it_says(portrait):
    """Smooth parts of the crop equal the picture under them."""
    a = portrait.crop_to_picture
    y, x = np.mgrid[60:452:16, 60:452:16]
    u, v = a[0, 0] * x + a[0, 1] * y + a[0, 2], a[1, 0] * x + a[1, 1] * y + a[1, 2]
    height, width = portrait.picture.shape[:2]
    within = (u > 0) & (u < width - 1) & (v > 0) & (v < height - 1)
    i, j = np.round(u[within]).astype(int), np.round(v[within]).astype(int)
    difference = np.abs(portrait.picture[j, i].astype(int) - portrait.crop[y[within], x[within]])
    assert np.median(difference) <= 4


def test_a_strongly_turned_head_gets_an_upright_crop(picture):
    turned = Image.fromarray(picture).rotate(35, Image.Resampling.BICUBIC, expand=True, fillcolor=(120, 130, 140))
    portrait = register(np.asarray(turned))
    eyes = portrait.landmarks[EYES[1].upper[0], :2] - portrait.landmarks[EYES[0].upper[0], :2]
    assert abs(np.degrees(np.arctan2(eyes[1], eyes[0]))) < 3
    assert abs(np.degrees(np.arctan2(portrait.crop_to_picture[1, 0], portrait.crop_to_picture[0, 0])) + 35) < 8


def test_a_tight_picture_is_filled_without_streaks(picture, face):
    low, high = face.landmarks[:, :2].min(0).astype(int), face.landmarks[:, :2].max(0).astype(int)
    tight = np.ascontiguousarray(picture[low[1] - 6 : high[1] + 6, low[0] - 6 : high[0] + 6])
    portrait = register(tight)
    rows = portrait.crop[:, :24].astype(float)  # left of the picture
    assert portrait.crop_to_picture[0, 2] < -20
    assert np.abs(np.diff(rows, axis=0)).max() < 12  # no hard stripes
    assert np.abs(np.diff(rows, axis=1)).mean() > 0.02  # nor the same value drawn out sideways


def test_a_face_as_large_as_its_crop_is_copied():
    picture = read_picture(PORTRAIT, 640)[0]
    face = find_faces(picture)[0]
    fitting = resized(picture, 250 / face.size)
    portrait = register(fitting)
    a = portrait.crop_to_picture
    if (a[:2, :2] == np.eye(2)).all():
        x, y = a[:2, 2].astype(int)
        height, width = portrait.picture.shape[:2]
        inner = portrait.crop[max(0, -y) : height - y, max(0, -x) : width - x]
        there = portrait.picture[max(0, y) : y + 512, max(0, x) : x + 512]
        assert (inner[: there.shape[0], : there.shape[1]] == there).all()
    else:
        assert abs(a[0, 0] - 1) > 0.08  # SNAP


def test_alpha_stays_with_the_portrait(picture):
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:20] = 0
    portrait = register(np.dstack([picture, alpha]))
    assert portrait.alpha is not None and (portrait.alpha == alpha).all()


def test_other_faces_are_left_out_of_the_mask(picture, face, portrait):
    beside = face.landmarks + [face.size * 0.9, 0, 0]
    masked = register_face(picture, face.landmarks, None, [beside])
    assert (masked.mask <= portrait.mask + 1e-6).all()
    right = slice(int(portrait.landmarks[:, 0].max()) + 90, None)
    assert masked.mask[:, right].max(initial=0.0) < 0.05
    assert np.allclose(masked.mask[200:300, 200:300], portrait.mask[200:300, 200:300])


def template_landmarks(gap=0.0):
    face = TEMPLATE.copy()
    face[14, 1] = face[13, 1] + gap
    return face


def test_closed_lips_have_no_expression_and_parted_lips_do():
    assert not own_expression(template_landmarks(0.012)).any()
    parted = own_expression(template_landmarks(0.050))
    assert parted[17, 1] == pytest.approx(0.030) and parted[14, 1] == pytest.approx(-0.010)
    assert parted[20, 1] == pytest.approx(-0.006) and parted[19, 1] == pytest.approx(0.012)
    assert np.count_nonzero(parted) == 4


def test_eye_state_follows_lids_and_gaze():
    landmarks = 230 * TEMPLATE @ rotation_matrix(0, 0, 0) + [256, 240, 0]
    opening, gaze = eye_state(landmarks, 512)
    assert opening[0] == pytest.approx(opening[1], rel=1e-3) and gaze.shape == (6,)
    shut = landmarks.copy()
    shut[[159, 160, 158]] = shut[[145, 144, 153]]
    assert eye_state(shut, 512)[0][0] == 0 and eye_state(shut, 512)[0][1] == opening[1]
    aside = landmarks.copy()
    aside[[468, 473], 0] += 10
    assert (eye_state(aside, 512)[1][:2] > gaze[:2]).all()


@shared
def test_eye_state_equals_the_released_code():
    with np.load(SHARED / "reference/fixtures/wiring_eye.npz") as fixture:
        for used, opening, ball in zip(fixture["lmk_used"], fixture["eye_open"], fixture["eye_ball"], strict=True):
            landmarks = np.zeros((LANDMARKS, 3))
            landmarks[fixture["idx"]] = used
            got = eye_state(landmarks, 1)
            assert np.allclose(got[0], opening, atol=1e-5) and np.allclose(got[1], ball, atol=1e-5)


def test_nothing_is_said_on_the_terminal():
    program = f"from ditto.portrait.registration import register; register({str(PORTRAIT)!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "" and done.stderr == ""
