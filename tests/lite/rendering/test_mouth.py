"""The mouth layer: exact at rest, smooth in time, kernel = definition, lips that do not cross."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from ditto import ops
from ditto.lite.rendering import mouth, teeth
from ditto.lite.rendering.mouth_source import measure_blur, measure_side_light, polygon_cover
from ditto.ops import reference
from ditto.ops.reference import mouth as definition
from ditto.portrait import face_mesh as g

SIZE = 256
SKIN = np.array([205.0, 150.0, 125.0])


def picture(grey: bool = False, own_teeth: bool = False) -> tuple[npt.NDArray[np.uint8], g.Geometry]:
    """A drawn face on the template: skin, eyes with whites, lips, and if asked for, parted lips with teeth."""
    canonical = g.TEMPLATE.copy()
    parted = canonical[g.LOWER_INNER_LIP, 1] - canonical[g.UPPER_INNER_LIP, 1]  # the template's lips are apart
    for ids in (g.LOWER_INNER_LIP, g.LOWER_OUTER_LIP):
        canonical[ids, 1] -= 0.95 * parted
    if own_teeth:
        canonical[g.LOWER_INNER_LIP[1:-1], 1] += 0.07 * np.sin(np.linspace(0, np.pi, 11))[1:-1]
        canonical[g.LOWER_OUTER_LIP[1:-1], 1] += 0.07 * np.sin(np.linspace(0, np.pi, 11))[1:-1]
    landmarks = 105.0 * canonical + [SIZE / 2, SIZE / 2, 0.0]
    geometry = g.source_geometry(landmarks, SIZE)
    image = np.full((SIZE, SIZE, 3), SKIN)
    image += np.linspace(12, -12, SIZE)[:, None, None]

    def fill(ids: list[int], colour: tuple[float, float, float]) -> None:
        cover = polygon_cover(landmarks[ids, :2], 0, 0, SIZE, SIZE)[..., None]
        image[:] = image * (1 - cover) + np.array(colour) * cover

    for eye in g.EYES:
        fill(eye.upper + eye.lower[-2:0:-1], (190, 178, 172))
        fill([eye.iris + 1, eye.iris + 2, eye.iris + 3, eye.iris + 4], (70, 50, 40))
    fill(g.UPPER_OUTER_LIP + g.LOWER_OUTER_LIP[-2:0:-1], (180, 95, 95))
    if own_teeth:
        fill(g.UPPER_INNER_LIP + g.LOWER_INNER_LIP[-2:0:-1], (218, 200, 180))
    image += np.random.default_rng(0).normal(0, 1.5, (SIZE, SIZE, 1))
    if grey:
        image = np.repeat(image @ [[0.299], [0.587], [0.114]], 3, axis=2)
    return np.clip(image, 0, 255).astype(np.uint8), geometry


def prepared(**options: bool) -> tuple[npt.NDArray[np.uint8], g.Geometry, mouth.MouthLayers]:
    image, geometry = picture(**options)
    return image, geometry, mouth.prepare_mouth(image, geometry, np.ones((SIZE, SIZE), np.float32))


def posed(geometry: g.Geometry, gap: float, narrow: float = 0.0, yaw_degrees: float = 0.0) -> g.Pose:
    """The lower lip and chin lowered by `gap`, the corners drawn in by `narrow`, the head turned."""
    canonical = geometry.canonical.copy()
    bow = np.sin(np.linspace(0, np.pi, 11))
    for ids in (g.LOWER_INNER_LIP, g.LOWER_OUTER_LIP):
        canonical[ids[1:-1], 1] += gap * bow[1:-1]
    canonical[152, 1] += 0.4 * gap
    lips = g.UPPER_INNER_LIP + g.LOWER_INNER_LIP[1:-1] + g.UPPER_OUTER_LIP + g.LOWER_OUTER_LIP[1:-1]
    canonical[lips, 0] *= 1 - narrow / 0.15
    a = np.radians(yaw_degrees)
    turn = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    rotation = geometry.rotation @ turn
    vertices = geometry.scale_px * canonical @ rotation + geometry.translation_px
    delta = g.keypoints(canonical) - geometry.keypoints
    return g.Pose(geometry.scale_px, rotation, geometry.translation_px, delta, canonical, vertices, np.zeros(2))


@pytest.mark.parametrize("own_teeth", [False, True])
def test_lips_at_rest_change_nothing(own_teeth: bool) -> None:
    image, geometry, layers = prepared(own_teeth=own_teeth)
    frame = image.copy()
    mouth.draw_mouth(frame, layers, geometry, posed(geometry, 0.0, yaw_degrees=10))
    assert np.array_equal(frame, image)


@pytest.mark.parametrize(("gap", "narrow", "yaw"), [(0.02, 0, 0), (0.10, 0, 15), (0.06, 0.05, -20)])
@pytest.mark.parametrize("own_teeth", [False, True])
def test_kernels_equal_twins(
    monkeypatch: pytest.MonkeyPatch, gap: float, narrow: float, yaw: float, own_teeth: bool
) -> None:
    image, geometry, layers = prepared(own_teeth=own_teeth)
    pose = posed(geometry, gap, narrow, yaw)
    native, plain = image.copy(), image.copy()
    mouth.draw_mouth(native, layers, geometry, pose)
    with monkeypatch.context() as patch:
        patch.setattr(mouth.ops, "paint_mouth", reference.paint_mouth)
        patch.setattr(mouth.ops, "smooth_corner", reference.smooth_corner)
        mouth.draw_mouth(plain, layers, geometry, pose)
    difference = np.abs(native.astype(int) - plain)
    assert (native != image).any()
    assert difference.max() <= 1  # float32 sums in another order round to the neighbouring level


def test_mouth_stays_between_the_lips_and_beside_the_corners() -> None:
    image, geometry, layers = prepared()
    pose = posed(geometry, 0.08)
    frame = image.copy()
    mouth.draw_mouth(frame, layers, geometry, pose)
    y, x = np.nonzero((frame != image).any(-1))
    outline = pose.vertices[g.UPPER_INNER_LIP + g.LOWER_INNER_LIP, :2]
    assert outline[:, 0].min() - 3 <= x.min() and x.max() <= outline[:, 0].max() + 3
    assert outline[:, 1].min() - 3 <= y.min() and y.max() <= outline[:, 1].max() + 3


@pytest.mark.parametrize("own_teeth", [False, True])
def test_opening_is_smooth_in_time(own_teeth: bool) -> None:
    image, geometry, layers = prepared(own_teeth=own_teeth)
    flat = np.full_like(image, 120)  # the layer alone, over a still picture
    frames = []
    for gap in np.linspace(0.0, 0.12, 40):
        frame = flat.copy()
        mouth.draw_mouth(frame, layers, geometry, posed(geometry, float(gap)))
        frames.append(frame.astype(np.float64))
    change = np.array([np.abs(b - a).sum() / 255 for a, b in pairwise(frames)])
    # No frame may jump: each step stays near its neighbours' mean, and none exceeds a fifth of the whole movement.
    middle = np.convolve(change, np.ones(5) / 5, "valid")
    assert (change[2:-2] < 2.0 * middle + 3).all()
    assert change.max() < 0.2 * change.sum()


def test_upper_teeth_stay_with_the_skull_and_lower_lip_tucks_under_them() -> None:
    _, geometry, layers = prepared()
    rows = []
    for gap in (0.06, 0.10):
        frame = np.zeros((SIZE, SIZE, 3), np.uint8)
        mouth.draw_mouth(frame, layers, geometry, posed(geometry, gap))
        column = frame[:, SIZE // 2 + 2].astype(int).sum(1)
        top = int(geometry.landmarks[13, 1])
        fall = np.diff(column[top : top + 8])  # the teeth end well above the lower lip
        rows.append(int(fall.argmin()))
    assert abs(rows[0] - rows[1]) <= 1


def test_black_and_white_portraits_get_no_colour() -> None:
    image, geometry, layers = prepared(grey=True)
    frame = image.copy()
    mouth.draw_mouth(frame, layers, geometry, posed(geometry, 0.09))
    assert (frame != image).any()
    assert np.ptp(frame.astype(int), axis=-1).max() <= 3


def test_own_teeth_are_kept_and_dull_lips_are_not_taken_for_teeth() -> None:
    _, _, layers = prepared(own_teeth=True)
    assert layers.own is not None
    assert np.abs(layers.own.tooth - [218, 200, 180]).max() < 25
    assert layers.own.edge > layers.anchor[1] + 0.03
    _, _, closed = prepared()
    assert closed.own is None


def test_inner_lips_meet_without_crossing() -> None:
    _, geometry = picture()
    shut = np.zeros((478, 3))
    shut[g.LOWER_INNER_LIP, 1] = -0.05
    moved = geometry.canonical + mouth.part_lips(geometry, shut)
    gap = moved[g.LOWER_INNER_LIP[1:-1], 1] - moved[g.UPPER_INNER_LIP[1:-1], 1]
    own = geometry.canonical[g.LOWER_INNER_LIP[1:-1], 1] - geometry.canonical[g.UPPER_INNER_LIP[1:-1], 1]
    assert (gap >= np.minimum(own, 0.012) - 1e-12).all()


def test_lip_chains_keep_their_order() -> None:
    _, geometry = picture()
    pushed = np.zeros((478, 3))
    pushed[14, 1], pushed[15, 1] = 0.08, -0.03
    moved = geometry.canonical + mouth.part_lips(geometry, pushed)
    for chain in mouth.CHAINS:
        before, after = np.diff(geometry.canonical[list(chain), 1]), np.diff(moved[list(chain), 1])
        assert (after * np.sign(before) >= mouth.KEEP * np.abs(before) - 1e-9).all()
    assert np.array_equal(mouth.part_lips(geometry, np.zeros((478, 3))), np.zeros((478, 3)))


def test_teeth_take_the_light_of_the_side_it_comes_from() -> None:
    image, geometry = picture()
    across = np.linspace(-1, 1, SIZE)[None, :, None]
    assert abs(measure_side_light(image, geometry)) < 0.02
    shares = []
    for slope in (-0.4, 0.4):
        lit = np.clip(image * (1 + slope * across), 0, 255).astype(np.uint8)
        layers = mouth.prepare_mouth(lit, geometry, np.ones((SIZE, SIZE), np.float32))
        assert 0.03 < np.sign(slope) * layers.side_light <= 0.2
        even = layers._replace(side_light=0.0)
        drawn, without = (lit.copy() for _ in range(2))
        mouth.draw_mouth(drawn, layers, geometry, posed(geometry, 0.12))
        mouth.draw_mouth(without, even, geometry, posed(geometry, 0.12))
        change = (drawn.astype(int) - without).sum(-1)
        middle = round(float(geometry.landmarks[13, 0]))
        shares.append((change[:, :middle].sum(), change[:, middle:].sum()))
    (left_lit, left_dark), (right_dark, right_lit) = shares
    assert left_lit > 0 > left_dark and right_lit > 0 > right_dark


def test_a_lower_lip_that_is_pushed_up_rises_as_a_whole_and_does_not_thicken() -> None:
    _, geometry = picture()
    rest = geometry.canonical
    for push, most in ((-0.06, mouth.THICKEN), (-0.01, 1.3)):
        pushed = np.zeros((478, 3))
        pushed[[13, 14, 82, 312, 87, 317], 1] = push
        moved = rest + mouth.part_lips(geometry, pushed)
        thickness = (moved[17, 1] - moved[14, 1]) / (rest[17, 1] - rest[14, 1])
        assert 1.0 < thickness <= most + 1e-9
        assert (moved[17, 1] < rest[17, 1] - 1e-3) == (push == -0.06)


def test_limit_lips_stops_at_closed_and_leaves_opening_alone() -> None:
    _, geometry = picture()
    opening = np.zeros((21, 3))
    opening[17, 1] = 0.1
    assert np.array_equal(mouth.limit_lips(geometry, opening), opening)
    assert np.array_equal(mouth.limit_lips(geometry, np.zeros((21, 3))), np.zeros((21, 3)))
    closing = np.zeros((21, 3))
    closing[17, 1] = closing[19, 1] = -0.2
    limited = mouth.limit_lips(geometry, closing)
    assert -0.03 < limited[17, 1] < 0
    assert limited[19, 1] == pytest.approx(-0.2 + 0.5 * (limited[17, 1] + 0.2))


def test_arches_are_symmetric_in_shape_and_sharp_as_asked() -> None:
    arc, x, z = teeth.arch_curve()
    assert np.allclose(x, -x[::-1]) and np.allclose(z, z[::-1]) and (np.diff(arc) > 0).all()
    sharp = teeth.draw_arch(teeth.UPPER, True, (220, 200, 180), (190, 110, 105), 300, 0.0)
    soft = teeth.draw_arch(teeth.UPPER, True, (220, 200, 180), (190, 110, 105), 300, 2.0)
    steep = [np.abs(np.diff(s.pixels[..., 3], axis=0)).max() for s in (sharp, soft)]
    assert steep[1] < 0.5 * steep[0]
    assert sharp.pixels[..., 3].max() <= 1 + 1e-6
    assert (sharp.pixels[..., :3] <= 255 * sharp.pixels[..., 3:] + 1e-3).all()


def test_measured_blur_follows_the_picture() -> None:
    image, geometry = picture()
    soft = teeth.blurred(image.astype(np.float32), 2.0).astype(np.uint8)
    assert measure_blur(image, geometry) < 1.0
    assert measure_blur(image, geometry) + 0.4 < measure_blur(soft, geometry) < 2.6


def test_refusals_name_what_was_wanted() -> None:
    image, geometry, layers = prepared()
    with pytest.raises(ValueError, match="expected a crop"):
        mouth.prepare_mouth(image[:100], geometry, np.ones((SIZE, SIZE), np.float32))
    with pytest.raises(ValueError, match="contiguous"):
        ops.smooth_corner(image[:, ::-1], np.zeros(2), np.array([1.0, 0.0]), 100, 0.5)
    with pytest.raises(ValueError, match="above 0"):
        ops.smooth_corner(image, np.zeros(2), np.array([1.0, 0.0]), 0, 0.5)
    columns = np.zeros((4, definition.COLUMN_CHANNELS), np.float32)
    zeros = (0.0, 0.0, 0.0)
    triples = {"x_from_px", "y_from_px", "cavity", "tongue", "own_column", "own_row", "tint"}
    scene = definition.Scene(*(zeros if field in triples else 1.0 for field in definition.Scene._fields))
    sprites = (layers.upper.pixels, layers.lower.pixels, layers.upper.pixels, layers.grain)
    for change, message in (
        ({"box": (0, 0, SIZE + 1, 4)}, "box inside"),
        ({"columns": columns[:1]}, "columns"),
        ({"columns": columns.astype(np.float64)}, "float32"),
        ({"scene": scene._replace(left=np.nan)}, r"finite numbers for MouthScene\.left"),
        ({"scene": scene._replace(tint=(0.0, 1.0))}, r"3 values for MouthScene\.tint, got 2"),
        ({"image": image.astype(np.float32)}, "uint8"),
    ):
        arguments = {"image": image, "box": (0, 0, 8, 8), "columns": columns, "scene": scene} | change
        with pytest.raises((TypeError, ValueError), match=message):
            ops.paint_mouth(*arguments.values(), *sprites)


def test_the_gradient_is_numpys_bit_for_bit() -> None:
    random = np.random.default_rng(0)
    for x in (np.cumsum(random.uniform(0.01, 1.0, 11)), np.linspace(-0.2, 0.31, 96), np.arange(8.0)):
        y = random.normal(size=len(x))
        assert np.array_equal(mouth.gradient(y, x), np.gradient(y, x))
