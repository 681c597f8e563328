"""Eyes: blinks close, gaze turns, rest leaves the picture alone."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from ditto import ops
from ditto.lite.rendering.eyelids import closures, eye_frame, move_lids
from ditto.lite.rendering.eyes import EyeLayers, draw_eyes, eye_view, prepare_eyes
from ditto.motion.motion import UPPER_LIDS, Keypoint, rotation_matrix
from ditto.ops import reference
from ditto.portrait.face_mesh import EYES, RIGHT_EYE, TEMPLATE, Geometry, Pose, limit_slope, source_geometry

SIZE = 256
SKIN, WHITE, IRIS, LASH = (205, 160, 135), (236, 232, 228), (60, 105, 185), (45, 30, 25)


def _face() -> tuple[npt.NDArray[np.uint8], Geometry]:
    """The template face with plain painted eyes."""
    landmarks = 108.0 * TEMPLATE @ rotation_matrix(2.0, -4.0, 3.0) + [128.0, 118.0, 0.0]
    geometry = source_geometry(landmarks, SIZE)
    rng = np.random.default_rng(3)
    yy, xx = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    image = np.array(SKIN) + rng.normal(0.0, 2.0, (SIZE, SIZE, 1)) + (128.0 - yy)[..., None] * 0.08
    for eye in EYES:
        frame = eye_frame(geometry, eye)
        xi, eta = np.moveaxis(frame.to_eye(np.stack([xx, yy], -1)), -1, 0)
        up = frame.to_eye(landmarks[eye.upper, :2])
        low = frame.to_eye(landmarks[eye.lower, :2])
        if frame.outer > 0:
            up, low = up[::-1], low[::-1]
        top, bottom = np.interp(xi, up[:, 0], up[:, 1]), np.interp(xi, low[:, 0], low[:, 1])
        across = np.abs(xi) < 0.5
        image[(eta > top - 0.012) & (eta < bottom) & across] = LASH
        image[(eta > top) & (eta < bottom) & across] = WHITE
        iris = landmarks[eye.iris, :2]
        radius = np.hypot(*(landmarks[eye.iris + 1, :2] - iris))
        image[(eta > top) & (eta < bottom) & (np.hypot(xx - iris[0], yy - iris[1]) < radius)] = IRIS
    return np.clip(image + 0.5, 0, 255).astype(np.uint8), geometry


def _pose(geometry: Geometry, delta: npt.NDArray[np.float64], turn: npt.NDArray[np.float64] | None = None) -> Pose:
    displacement, closure = move_lids(geometry, delta, np.zeros((478, 3)))
    canonical = geometry.canonical + displacement
    rotation = geometry.rotation if turn is None else geometry.rotation @ turn
    vertices = geometry.scale_px * canonical @ rotation + geometry.translation_px
    return Pose(geometry.scale_px, rotation, geometry.translation_px, delta, canonical, vertices, closure)


def _blink(geometry: Geometry, right: float, left: float) -> npt.NDArray[np.float64]:
    delta = np.zeros((21, 3))
    for eye, b in zip(EYES, (right, left), strict=True):
        delta[eye.lid_keypoint, 1] = b * (geometry.keypoints[Keypoint.LOWER_LIDS, 1] - geometry.keypoints[eye.lid_keypoint, 1])
    return delta


FACE, GEOMETRY = _face()
LAYERS = prepare_eyes(FACE, GEOMETRY)


def _draw(delta: npt.NDArray[np.float64], layers: EyeLayers = LAYERS) -> npt.NDArray[np.uint8]:
    image = FACE.copy()
    draw_eyes(image, layers, GEOMETRY, _pose(GEOMETRY, delta))
    return image


def _iris_pixels(image: npt.NDArray[np.uint8], index: int) -> int:
    """Pixels near the iris colour around one eye."""
    x, y = GEOMETRY.landmarks[EYES[index].iris, :2].astype(int)
    box = image[y - 12 : y + 13, x - 22 : x + 23].astype(int)
    return int((np.abs(box - np.array(IRIS)).max(-1) < 22).sum())


def test_rest_changes_no_pixel() -> None:
    assert np.array_equal(_draw(np.zeros((21, 3))), FACE)


def test_a_blink_hides_the_iris_and_the_white() -> None:
    shut = _draw(_blink(GEOMETRY, 1.0, 1.0)).astype(int)
    for i, eye in enumerate(EYES):
        assert _iris_pixels(FACE, i) > 25
        assert _iris_pixels(shut.astype(np.uint8), i) == 0
        x, y = GEOMETRY.landmarks[eye.iris, :2].astype(int)
        box = shut[y - 12 : y + 13, x - 22 : x + 23]
        assert (box.min(-1) > 205).sum() == 0  # no eye white: skin's blue stays below that


def test_a_wink_leaves_the_other_eye_alone() -> None:
    image = _draw(_blink(GEOMETRY, 1.0, 0.0))
    assert _iris_pixels(image, 0) == 0
    middle = int(GEOMETRY.landmarks[168, 0])
    assert np.array_equal(image[:, middle:], FACE[:, middle:])


def test_a_closed_lid_is_skin_with_one_dark_line() -> None:
    shut = _draw(_blink(GEOMETRY, 1.0, 1.0)).astype(float)
    for eye in EYES:
        x, y = GEOMETRY.landmarks[eye.iris, :2].astype(int)
        column = shut[y - 14 : y + 15, x - 1 : x + 2].mean((1, 2))
        dark = column < 0.8 * np.median(column)
        assert dark.any()
        assert np.count_nonzero(np.diff(dark.astype(int)) == 1) == 1


def test_the_lid_comes_down_smoothly() -> None:
    frames = [_draw(_blink(GEOMETRY, b, b)).astype(float) for b in np.linspace(0.0, 1.0, 41)]
    steps = [np.abs(a - b).mean() for a, b in itertools.pairwise(frames)]
    assert max(steps) < 4.0 * float(np.mean(steps))
    # A hundredth of a face unit of lid travel over one pixel is at most the lid's own contrast; no step at the start.
    assert np.abs(frames[1] - frames[0]).max() < 90.0


@pytest.mark.parametrize("lower", [-0.01, 0.0, 0.015])
def test_a_lid_that_lifts_takes_its_lashes_along(lower: float) -> None:
    delta = _blink(GEOMETRY, -0.2, -0.2)
    delta[[Keypoint.LOWER_LIDS, *(eye.lid_keypoint for eye in EYES)], 1] += lower
    wide = _draw(delta)
    for eye in EYES:
        x, y = GEOMETRY.landmarks[eye.iris, :2].astype(int)
        ink = [np.clip(95.0 - image[y - 22 : y, x - 5 : x + 6, 1], 0.0, None).sum() for image in (FACE, wide)]
        assert ink[1] > 0.4 * ink[0] > 0.0  # lashes are darker in green than the iris


def test_gaze_moves_the_iris_and_keeps_the_lids() -> None:
    delta = np.zeros((21, 3))
    delta[[11, 15], 0] = 0.03
    image = _draw(delta)
    for eye in EYES:
        x, y = GEOMETRY.landmarks[eye.iris, :2].astype(int)
        columns = np.arange(x - 22, x + 23)

        def centre(a: npt.NDArray[np.uint8]) -> float:
            near = np.abs(a[y - 3 : y + 4, x - 22 : x + 23].astype(int) - np.array(IRIS)).max(-1) < 25  # noqa: B023
            return float((near * columns).sum() / near.sum())  # noqa: B023

        assert 1.5 < centre(image) - centre(FACE) < 0.03 * GEOMETRY.scale_px + 0.5
    top = int(GEOMETRY.landmarks[159, 1]) - 8
    assert np.array_equal(image[:top], FACE[:top])


def test_lids_are_taken_out_of_the_mesh() -> None:
    moved, closure = move_lids(GEOMETRY, _blink(GEOMETRY, 0.5, 1.0), np.full((478, 3), 0.1))
    for eye in EYES:
        assert not moved[eye.upper + eye.lower].any()
    assert moved[10, 0] == 0.1
    assert 0.4 < closure[0] < 0.6 and closure[1] == 1.0


@pytest.mark.parametrize("yaw", [0.0, 30.0, -35.0])
def test_a_blink_closes_both_eyes_alike_in_a_turned_face(yaw: float) -> None:
    deep = 105.0 * (TEMPLATE * [1.0, 1.0, 1.8]) @ rotation_matrix(12.0, yaw, 10.0) + [128.0, 128.0, 0.0]
    tracked = source_geometry(deep, 256)
    delta = np.zeros((21, 3))
    for lid in UPPER_LIDS:
        delta[lid, 1] = 0.5 * (tracked.keypoints[Keypoint.LOWER_LIDS, 1] - tracked.keypoints[lid, 1])
    assert np.allclose(closures(limit_slope(tracked), delta), 0.5, atol=0.02)


def test_closure_is_monotonic_and_bounded() -> None:
    values = np.array([closures(GEOMETRY, _blink(GEOMETRY, b, b)) for b in np.linspace(-2.0, 2.0, 81)])
    assert (np.diff(values, axis=0) >= 0).all()
    assert values.min() == pytest.approx(-0.45) and values.max() == 1.0


def test_eyes_follow_the_head() -> None:
    turn = rotation_matrix(4.0, 8.0, -5.0)
    pose = _pose(GEOMETRY, _blink(GEOMETRY, 1.0, 1.0), turn)
    image = FACE.copy()
    draw_eyes(image, LAYERS, GEOMETRY, pose)
    changed = np.argwhere((image != FACE).any(-1))[:, ::-1]
    lids = pose.vertices[EYES[0].upper + EYES[1].upper, :2]
    assert (changed.min(0) > lids.min(0) - 20).all() and (changed.max(0) < lids.max(0) + 20).all()


def test_an_eye_without_an_iris_neither_blinks_nor_looks() -> None:
    stone = np.full_like(FACE, 150)
    delta = _blink(GEOMETRY, 1.0, 1.0)
    delta[[11, 15], 0] = 0.03
    image = stone.copy()
    draw_eyes(image, prepare_eyes(stone, GEOMETRY), GEOMETRY, _pose(GEOMETRY, delta))
    assert np.array_equal(image, stone)


@pytest.mark.parametrize("case", ["turned away", "off the crop", "tiny", "black", "white"])
def test_poor_sources_are_drawn_without_failing(case: str) -> None:
    landmarks, image = GEOMETRY.landmarks.copy(), FACE.copy()
    if case == "turned away":
        landmarks[RIGHT_EYE.upper + RIGHT_EYE.lower] = landmarks[33]
    elif case == "off the crop":
        landmarks[:, 0] -= 95.0
    elif case == "tiny":
        landmarks = (landmarks - 128.0) * 0.05 + 128.0
    else:
        image[:] = 0 if case == "black" else 255
    geometry = source_geometry(landmarks, SIZE)
    layers = prepare_eyes(image, geometry)
    delta = _blink(geometry, 0.6, 1.0)
    delta[[11, 15], 0] = 0.03
    frame = image.copy()
    draw_eyes(frame, layers, geometry, _pose(geometry, delta, rotation_matrix(5.0, 20.0, 5.0)))
    assert all(np.isfinite(layer.texture).all() for layer in layers)


def test_a_crop_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a crop \(256, 256, 3\) uint8, got \(128, 128, 3\)"):
        prepare_eyes(FACE[:128, :128], GEOMETRY)


@pytest.mark.parametrize("right", [-0.4, 0.05, 0.35, 0.8, 1.0])
def test_the_kernel_equals_its_twin(right: float) -> None:
    delta = _blink(GEOMETRY, right, 0.5 * right)
    delta[11, :2], delta[15, :2], delta[Keypoint.LOWER_LIDS, 1] = (0.02, -0.01), (-0.03, 0.005), -0.004
    pose = _pose(GEOMETRY, delta, rotation_matrix(3.0, -6.0, 4.0))
    for layer, closure in zip(LAYERS, pose.closure, strict=True):
        view, curves = eye_view(layer, GEOMETRY, pose, float(closure))
        assert view is not None
        native, definition = FACE.copy(), FACE.copy()
        ops.draw_eye(native, layer.texture, curves, layer.strip, view)
        reference.draw_eye(definition, layer.texture, curves, layer.strip, view)
        assert (native != FACE).any()
        difference = np.abs(native.astype(int) - definition.astype(int))
        assert difference.max() <= 1  # fused multiply-add may tip a rounding
        assert (difference > 0).mean() < 1e-3


def test_the_kernel_refuses_what_does_not_fit() -> None:
    layer = LAYERS.right
    view, curves = eye_view(layer, GEOMETRY, _pose(GEOMETRY, _blink(GEOMETRY, 1.0, 1.0)), 1.0)
    assert view is not None
    with pytest.raises(TypeError, match="image of draw_eye as uint8, got float32"):
        ops.draw_eye(FACE.astype(np.float32), layer.texture, curves, layer.strip, view)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a texture \(h, w, 16\) of draw_eye"):
        ops.draw_eye(FACE.copy(), layer.texture[..., :8], curves, layer.strip, view)
    with pytest.raises(ValueError, match=r"curves \(n, 13\)"):
        ops.draw_eye(FACE.copy(), layer.texture, curves[:, :4], layer.strip, view)
    with pytest.raises(ValueError, match=r"strip \(m, 129\)"):
        ops.draw_eye(FACE.copy(), layer.texture, curves, layer.strip[:, :5], view)
    with pytest.raises(ValueError, match="box inside 256 x 256"):
        ops.draw_eye(FACE.copy(), layer.texture, curves, layer.strip, view._replace(box=(0, 0, 400, 20)))
    with pytest.raises(ValueError, match=r"finite numbers for EyeView\.gain"):
        ops.draw_eye(FACE.copy(), layer.texture, curves, layer.strip, view._replace(gain=float("nan")))
