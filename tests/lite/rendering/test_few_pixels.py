"""What is measured over pixels is right for few of them and for none: drawn faces, random masks, shut eyes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ditto
from ditto.lite.rendering.background import make_background
from ditto.lite.rendering.eyelids import blur, eye_frame
from ditto.lite.rendering.eyes import _iris_reach, draw_eyes, move_lids, prepare_eyes
from ditto.lite.rendering.lid_skin import fill_smooth, softness
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.lite.rendering.mouth import prepare_mouth
from ditto.lite.rendering.mouth_source import sclera_colour
from ditto.motion.motion import Keypoint, RenderPose, rotation_matrix
from ditto.portrait.cropping import person_mask
from ditto.portrait.face_mesh import EYES, LOWER_INNER_LIP, TEMPLATE, Geometry, Pose, source_geometry
from ditto.portrait.measure import measured, weighted_quantiles
from ditto.portrait.registration import register

SIZE = 128
COLOURS = np.array([(205, 160, 135), (236, 232, 228), (60, 105, 185), (45, 30, 25)])  # skin, white, iris, lashes
SHUT_EYES = Path(__file__).parents[2] / "fixtures" / "pictures" / "closed_eyes_agnew.jpg"
Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


def drawn_face(
    closing: tuple[float, float], iris: float, seed: int | None, gap: float = 0.0, size: int = SIZE
) -> tuple[Image, Geometry]:
    """A face of plain colours: each lid lowered by a share of the opening, irises of any radius, lips `gap` apart.

    Pose, colours, noise and something before it by chance; without a seed, a common face from the front.
    """
    rng = np.random.default_rng(seed)
    shape = TEMPLATE.copy()
    for eye, share in zip(EYES, closing, strict=True):
        shape[eye.upper[1:-1]] += share * (shape[eye.lower[1:-1]] - shape[eye.upper[1:-1]])
    shape[LOWER_INNER_LIP[1:-1], 1] += gap
    turn = rotation_matrix(*rng.uniform(-25.0, 25.0, 3)) if seed is not None else np.eye(3)
    landmarks = size * (0.42 * shape @ turn + [0.5, 0.47, 0.0])
    skin, white, ink, lash = rng.integers(0, 256, (4, 3)) if seed is not None else COLOURS
    noise = rng.choice([0.0, 3.0]) if seed is not None else 0.0
    image = np.broadcast_to(skin, (size, size, 3)) + rng.normal(0.0, noise, (size, size, 1))
    geometry = source_geometry(landmarks, size)
    yy, xx = np.mgrid[0:size, 0:size].astype(np.float64)
    for eye in EYES:
        frame = eye_frame(geometry, eye)
        xi, eta = np.moveaxis(frame.to_eye(np.stack([xx, yy], -1)), -1, 0)
        up, low = frame.to_eye(landmarks[eye.upper, :2]), frame.to_eye(landmarks[eye.lower, :2])
        if frame.outer > 0:
            up, low = up[::-1], low[::-1]
        top, bottom = np.interp(xi, up[:, 0], up[:, 1]), np.interp(xi, low[:, 0], low[:, 1])
        within = (np.abs(xi) < 0.5) & (eta < bottom)
        image[within & (eta > top - 0.012)] = lash
        image[within & (eta > top)] = white
        centre = landmarks[eye.iris, :2]
        radius = iris * np.hypot(*(landmarks[eye.iris + 1, :2] - centre))
        image[within & (eta > top) & (np.hypot(xx - centre[0], yy - centre[1]) < radius)] = ink
    if seed is not None and rng.random() < 0.3:  # hair, a hand, the frame of a picture
        x, y, w, h = rng.integers(0, size, 4)
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8), geometry


def blink(geometry: Geometry) -> Pose:
    delta = np.zeros((21, 3))
    for eye in EYES:
        delta[eye.lid_keypoint, 1] = geometry.keypoints[Keypoint.LOWER_LIDS, 1] - geometry.keypoints[eye.lid_keypoint, 1]
        delta[eye.iris_keypoint, 0] = 0.03
    displacement, closure = move_lids(geometry, delta, np.zeros((478, 3)))
    canonical = geometry.canonical + displacement
    vertices = geometry.scale_px * canonical @ geometry.rotation + geometry.translation_px
    return Pose(geometry.scale_px, geometry.rotation, geometry.translation_px, delta, canonical, vertices, closure)


shares = st.one_of(st.sampled_from([0.0, 0.9, 1.0, 1.1]), st.floats(-0.3, 1.2))


@settings(max_examples=60, deadline=None)
@given(closing=st.tuples(shares, shares), iris=st.sampled_from([0.0, 0.5, 1.0, 1.6, 4.0]), seed=st.integers(0, 2**32))
def test_eyes_of_any_opening_are_taken_apart_and_drawn(closing, iris, seed):
    image, geometry = drawn_face(closing, iris, seed)
    layers = prepare_eyes(image, geometry)
    for layer in layers:
        assert np.isfinite(layer.texture).all() and 0.0 <= layer.has_iris <= 1.0
        assert layer.texture[..., :3].min() >= 0.0 and layer.texture[..., :3].max() <= 255.0
        assert np.isfinite(layer.strip).all() and np.isfinite(layer.path.curves).all() and np.isfinite(layer.soft)
    before = image.copy()
    draw_eyes(image, layers, geometry, blink(geometry))
    if not any(layer.has_iris for layer in layers):
        assert (image == before).all()


@settings(max_examples=60, deadline=None)
@given(gap=st.floats(-0.02, 0.15), seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.0005, 0.1, 1.0]))
def test_mouths_and_masks_of_any_kind_are_measured(gap, seed, share):
    image, geometry = drawn_face((0.0, 0.0), 1.0, seed, gap)
    rng = np.random.default_rng(seed)
    if rng.random() < 0.3:
        image = rng.integers(0, 256, image.shape).astype(np.uint8)
    mask = (rng.random((SIZE, SIZE)) < share).astype(np.float32)
    layers = prepare_mouth(image, geometry, mask)
    for name, value in {**layers.colours._asdict(), "overlap": layers.overlap, "grain": layers.grain}.items():
        assert np.isfinite(value).all(), name
    for arch in (layers.upper, layers.lower):
        assert np.isfinite(arch.pixels).all() and arch.pixels.min() >= 0.0
    if layers.own is not None:
        assert np.isfinite(layers.own.pixels).all() and np.isfinite(layers.own.tooth).all()
    background = make_background(image, mask, geometry)
    assert background.plate.shape == image.shape


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    share=st.sampled_from([0.0, 0.002, 0.02, 0.3]),
    radius=st.floats(2.0, 12.0),
    side=st.sampled_from([-1, 1]),
)
def test_the_reach_of_an_iris_is_found_in_any_opening(seed, share, radius, side):
    rng = np.random.default_rng(seed)
    dy, dx = np.mgrid[-12:13, -20:21].astype(np.float64)
    opening = (rng.random(dx.shape) < share) * rng.random(dx.shape)
    luma = rng.uniform(0.0, 255.0, dx.shape)
    assert 0.85 <= _iris_reach(luma, opening, side * dx, dy, radius) <= 1.4
    for only in (dx > 1.3 * radius, np.hypot(dx, dy) < 0.6 * radius):  # nothing but white; nothing but iris
        assert 0.85 <= _iris_reach(luma, opening * only, side * dx, dy, radius) <= 1.4


def test_an_iris_of_which_only_white_beside_it_shows_has_the_landmarks_size():
    dy, dx = np.mgrid[-12:13, -20:21].astype(np.float64)
    opening = ((dx > 12.5) & (np.abs(dy) < 3)).astype(np.float64)
    assert _iris_reach(np.full(dx.shape, 200.0), opening, dx, dy, 10.0) == 1.0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.01, 0.5]), height=st.integers(8, 40))
def test_what_is_filled_lies_within_what_it_is_filled_from(seed, share, height):
    rng = np.random.default_rng(seed)
    values = rng.uniform(50.0, 200.0, (height, 17, 3))
    weights = (rng.random((height, 17)) < share) * rng.random((height, 17))
    filled = fill_smooth(values, weights)
    assert filled.min() >= 49.9 and filled.max() <= 200.1
    quantiles = weighted_quantiles(values[..., 0], weights, (0.0, 0.5, 1.0))
    assert quantiles == sorted(quantiles) and values[..., 0].min() <= quantiles[0]
    assert 0.4 <= softness(np.round(values[..., 0] * (share > 0.0))) <= 4.0


def test_nothing_measured_is_what_the_caller_says():
    assert measured(np.mean, np.zeros(0), none=7.0) == 7.0
    assert measured(np.max, [3.0], none=7.0) == 3.0
    assert measured(np.median, [3.0, 5.0], none=None, least=3) is None
    assert weighted_quantiles(np.arange(5.0)[None], np.zeros((1, 5)), (0.5,)) == [2.0]


def test_a_person_that_fills_the_crop_leaves_the_picture_as_background():
    image, geometry = drawn_face((0.0, 0.0), 1.0, 0)
    image = blur(image.astype(np.float64), 3.0).astype(np.uint8)
    background = make_background(image, np.ones((SIZE, SIZE), np.float32), geometry)
    assert np.abs(background.plate.astype(int).mean((0, 1)) - image.mean((0, 1))).max() < 30.0


def test_a_face_beside_the_crop_has_no_network_to_believe():
    _, geometry = drawn_face((0.0, 0.0), 1.0, 0)
    landmarks = geometry.landmarks + [3.0 * SIZE, 0.0, 0.0]
    mask = person_mask(np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, SIZE), np.float32), landmarks, 54.0)
    assert np.isfinite(mask).all() and mask.max() <= 1.0
    away = geometry._replace(landmarks=landmarks)
    assert sclera_colour(np.zeros((SIZE, SIZE, 3), np.uint8), away) is None


@pytest.fixture(scope="module")
def renderer():
    return MeshRenderer(Path(ditto.__file__).parent / "bundles" / "lite")


def test_a_portrait_with_shut_eyes_is_animated_and_they_stay_shut(renderer, caplog):
    portrait = register(SHUT_EYES)
    with caplog.at_level(logging.WARNING, "ditto"):
        appearance = renderer.prepare(portrait)
    assert "the eyes are shut in the picture: they stay shut" in caplog.text
    delta = np.zeros((21, 3))
    for eye in EYES:
        delta[eye.lid_keypoint, 1], delta[eye.iris_keypoint, 0] = -0.03, 0.02
    frame = renderer.render(appearance, RenderPose(portrait.scale, portrait.rotation, portrait.translation, delta))
    for eye in EYES:  # neither opened nor turned; an open eye changes by 20 levels and more
        (x0, y0), (x1, y1) = (edge(portrait.landmarks[eye.upper + eye.lower, :2], 0).astype(int) for edge in (np.min, np.max))
        assert np.abs(frame[y0:y1, x0:x1].astype(int) - portrait.crop[y0:y1, x0:x1]).mean() < 5.0
    delta[17, 1] = delta[19, 1] = 0.05
    frame = renderer.render(appearance, RenderPose(portrait.scale, portrait.rotation, portrait.translation, delta))
    assert np.abs(frame.astype(int) - portrait.crop).max() > 40  # and the mouth opens


def test_of_a_wink_the_open_eye_moves(caplog):
    both = prepare_eyes(*drawn_face((0.0, 0.0), 1.0, None, size=256))
    assert both.right.has_iris == both.left.has_iris == 1.0 and not caplog.records
    wink = prepare_eyes(*drawn_face((0.9, 0.0), 1.0, None, size=256))
    assert wink.right.has_iris == 0.0 and wink.left.has_iris == 1.0
    assert "one eye is shut in the picture: it stays shut" in caplog.text


def test_eyes_without_an_iris_are_told(caplog):
    assert prepare_eyes(*drawn_face((0.0, 0.0), 0.0, None, size=256)).left.has_iris == 0.0
    assert "no iris is seen" in caplog.text
