"""What lies around the face: how far hair, neck and border follow the head, and what is behind them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn_portrait

import ditto
from ditto.lite.rendering.background import make_background
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.lite.rendering.paste_back import picture_ends
from ditto.lite.rendering.surround import _spread, _stiffness, make_surround, move_surround
from ditto.motion.motion import RenderPose, rotation_matrix
from ditto.portrait import face_mesh as g

NOWHERE, ABOVE = np.zeros((2, 2), bool), np.array([[False, False], [True, False]])  # where the picture ends
PICTURES = Path(__file__).parents[2] / "fixtures" / "pictures"
EXAMPLE = Path(__file__).parents[3] / "examples" / "portrait.jpg"


@pytest.fixture(scope="module")
def renderer():
    return MeshRenderer(Path(ditto.__file__).parent / "bundles" / "lite")


def turned(renderer, portrait, surround, degrees, size=512):
    """Where the surrounding points come from and go to, (P, 2) each, and the pose."""
    geometry = g.limit_slope(g.source_geometry(portrait.landmarks, size))
    rotation = portrait.rotation @ rotation_matrix(*degrees)
    pose = RenderPose(portrait.scale, rotation, portrait.translation, np.zeros((21, 3)))
    half = size / 2
    vertices = half * (portrait.scale * geometry.canonical @ rotation + portrait.translation) + (half, half, 0)
    moved = g.Pose(
        portrait.scale * half, rotation, portrait.translation * half + (half, half, 0), pose.delta, geometry.canonical,
        vertices, np.zeros(2),
    )  # fmt: skip
    return np.concatenate([vertices[:, :2], move_surround(surround, geometry, moved)])


def stretch(portrait, surround, moved):
    """99th percentile over the person outside the face of the largest stretch of a triangle, as a share."""
    rest = np.concatenate([portrait.landmarks[:, :2], surround.points])
    x, y = np.clip(np.rint(rest).astype(int), 0, len(portrait.mask) - 1).T
    inside = (portrait.mask[y, x] > 0.5)[surround.triangles].all(1)
    corners = surround.triangles[inside]
    before, after = (np.stack([p[corners[:, k]] - p[corners[:, 0]] for k in (1, 2)], -1) for p in (rest, moved))
    largest = np.linalg.svd(after @ np.linalg.inv(before), compute_uv=False)[:, 0] - 1.0
    order, area = np.argsort(largest), np.abs(np.linalg.det(before))
    return largest[order][np.searchsorted(np.cumsum(area[order]), 0.99 * area.sum())]


def with_tall_hair(portrait):
    """Hair as wide as the head up to the crop's upper side."""
    mask = portrait.mask.copy()
    mask[:200, 150:362] = 1.0
    return mask


def test_heat_falls_evenly_along_a_bar_and_stays_between_its_ends():
    x, y = np.meshgrid(np.arange(6.0), np.arange(2.0))
    points = np.stack([x.ravel(), y.ravel()], -1)
    triangles = np.array([t for i in range(5) for t in ((i, i + 1, i + 6), (i + 1, i + 7, i + 6))])
    fixed = np.full(12, np.nan)
    fixed[[0, 6]], fixed[[5, 11]] = 1.0, 0.0
    assert np.allclose(_spread(_stiffness(points, triangles, np.ones(12)), fixed), 1.0 - points[:, 0] / 5.0, atol=1e-6)
    insulated = _spread(_stiffness(points, triangles, np.where(points[:, 0] < 3, 1.0, 0.01)), fixed)
    assert insulated[points[:, 0] == 2].min() > 0.95 and insulated.max() <= 1.0 and insulated.min() >= 0.0


def test_hair_with_room_around_it_follows_all_the_way():
    portrait = drawn_portrait()
    geometry = g.source_geometry(portrait.landmarks, 512)
    mask = portrait.mask.copy()
    mask[:80] = 0.0
    surround = make_surround(geometry, mask, NOWHERE)
    x, y = np.rint(surround.points).astype(int).T
    hair = (mask[np.clip(y, 0, 511), np.clip(x, 0, 511)] > 0.9) & (y < geometry.landmarks[10, 1])
    assert hair.sum() > 50 and surround.head_weight[hair].min() > 0.9


@pytest.mark.parametrize("degrees", [(0, 0, 10), (0, 0, -10), (12, 0, 0), (8, 10, 6)])
def test_hair_held_by_the_border_bends_over_all_its_length(renderer, degrees):
    portrait = drawn_portrait()
    mask = with_tall_hair(portrait)
    for ends in (NOWHERE, ABOVE):
        surround = make_surround(g.limit_slope(g.source_geometry(portrait.landmarks, 512)), mask, ends)
        moved = turned(renderer, portrait, surround, degrees)
        assert stretch(portrait, surround, moved) < 0.45


def test_hair_slides_along_the_end_of_the_picture_and_is_held_inside_it(renderer):
    portrait = drawn_portrait()
    geometry, mask = g.limit_slope(g.source_geometry(portrait.landmarks, 512)), with_tall_hair(portrait)
    shifts = []
    for ends in (NOWHERE, ABOVE):
        surround = make_surround(geometry, mask, ends)
        moved = turned(renderer, portrait, surround, (0, 0, 10))[g.LANDMARKS :] - surround.points
        x, y = surround.points.T
        assert moved[y == 0.0, 1].max() == 0.0  # nowhere inwards
        shifts.append(np.abs(moved[(y == 0.0) & (np.abs(x - 256) < 80), 0]))
    assert shifts[0].max() == 0.0 and shifts[1].min() > 10.0


@pytest.mark.parametrize(
    "picture", [EXAMPLE, PICTURES / "mona_lisa.jpg", PICTURES / "pearl_earring.jpg"], ids=lambda p: p.stem
)
def test_nothing_around_the_face_is_pulled_apart_at_the_extreme_poses_of_talk(renderer, picture):
    portrait = ditto.load("lite").register(picture)
    size = len(portrait.crop)
    geometry = g.limit_slope(g.source_geometry(portrait.landmarks, size))
    surround = make_surround(geometry, portrait.mask, picture_ends(portrait))
    for degrees in ((12, 0, 0), (-12, 0, 0), (0, 12, 0), (0, -12, 0), (0, 0, 10), (0, 0, -10)):
        moved = turned(renderer, portrait, surround, degrees, size)
        assert stretch(portrait, surround, moved) < 0.55, degrees


def test_a_collar_that_the_mask_leaves_out_is_not_in_the_plate():
    portrait = drawn_portrait()
    geometry = g.source_geometry(portrait.landmarks, 512)
    crop, mask = np.full((512, 512, 3), 150, np.uint8), np.zeros((512, 512), np.float32)
    mask[120:, 140:372] = 1.0
    crop[mask > 0] = (60, 40, 30)
    crop[:, 126:132] = (20, 20, 160)  # 8 to 14 px outside the mask: .04 to .07 fu
    plate = make_background(crop, mask, geometry).plate.astype(int)
    assert np.abs(plate[150:] - 150)[:, 100:400].mean() < 8
    assert np.abs(plate[200:400, 120:136] - 150).max() < 45


def test_a_mark_on_the_wall_is_not_mirrored_behind_the_person():
    portrait = drawn_portrait()
    geometry = g.source_geometry(portrait.landmarks, 512)
    wall = 150.0 + np.random.default_rng(0).normal(0.0, 2.0, (512, 512, 3))
    mask = np.zeros((512, 512), np.float32)
    mask[80:, 140:372] = 1.0
    wall[200:204, 96:116] = 30.0
    plate = make_background(np.clip(wall, 0, 255).astype(np.uint8), mask, geometry).plate.astype(int)
    behind = plate[190:214, 140:190]
    assert np.abs(behind - 150).max() < 25 and behind.std() > 0.5  # no second mark, but the wall's grain


def test_where_the_picture_ends_is_read_off_its_crop():
    portrait = drawn_portrait()
    assert picture_ends(portrait).all()
    larger = np.pad(portrait.picture, ((40, 0), (40, 40), (0, 0)), mode="edge")
    into = np.array([[1.0, 0, 40], [0, 1, 40], [0, 0, 1]])
    inside = replace(portrait, picture=larger, crop_to_picture=into)
    assert picture_ends(inside).tolist() == [[False, False], [False, True]]
    leaning = replace(portrait, crop_to_picture=np.array([[0.9, 0.1, 0], [-0.1, 0.9, 40], [0, 0, 1]]))
    assert not picture_ends(leaning).any()
