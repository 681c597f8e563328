"""Creases: the portrait's own and no others, deeper with an expression, gone from nothing, exact at rest."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn import drawn_portrait

import ditto
from ditto import ops
from ditto.lite.rendering.creases import FLAT, PATHS, Creases, Field, draw_creases, prepare_creases, strengths
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.motion.motion import Keypoint, RenderPose
from ditto.portrait import face_mesh as g

SIZE = 256
FOLD, OTHER_FOLD, FEET, OTHER_FEET, FOREHEAD, FROWN = range(len(PATHS))


@pytest.fixture(scope="module")
def renderer():
    return MeshRenderer(Path(ditto.__file__).parent / "bundles" / "lite")


def marked(portrait, landmarks, depth, sigma, thickness=1):
    """The portrait with its skin darkened along landmarks, by a share of its light and with a blur of sigma px."""
    line = np.zeros(portrait.crop.shape[:2], np.float32)
    points = np.round(portrait.landmarks[list(landmarks), :2]).astype(np.int32)
    cv2.polylines(line, [points], False, 1.0, thickness)
    line = cv2.GaussianBlur(line, (0, 0), sigma)
    light = 1.0 - depth * line / max(float(line.max()), 1e-6)
    crop = np.rint(portrait.crop * light[..., None]).astype(np.uint8)
    return replace(portrait, crop=crop, picture=crop)


def creases(portrait):
    return prepare_creases(portrait.crop, g.limit_slope(g.source_geometry(portrait.landmarks, SIZE)))


def deepest(field):
    return int(FLAT - field.relief.min())


def smiling(portrait, amount):
    delta = np.zeros((21, 3))
    delta[Keypoint.RIGHT_MOUTH_CORNER, :2] = (-0.058 * amount, -0.064 * amount)
    delta[Keypoint.LEFT_MOUTH_CORNER, :2] = (0.058 * amount, -0.064 * amount)
    delta[[Keypoint.RIGHT_CHEEK, Keypoint.LEFT_CHEEK], 1] = -0.05 * amount
    return RenderPose(portrait.scale, portrait.rotation, portrait.translation, delta)


def test_smooth_skin_in_flat_colours_has_no_creases():
    for field in creases(drawn_portrait(SIZE)).fields[:2]:
        assert np.abs(field.relief.astype(int) - FLAT).max() <= 1


def test_a_fold_that_the_picture_shows_is_found_on_its_side_alone():
    found = creases(marked(drawn_portrait(SIZE), PATHS[FOLD].landmarks, 0.10, 1.2))
    assert deepest(found.fields[FOLD]) > 5
    assert deepest(found.fields[OTHER_FOLD]) <= 1


def test_lines_of_the_forehead_and_of_a_frown_are_found():
    portrait = drawn_portrait(SIZE)
    assert deepest(creases(marked(portrait, (69, 108, 151, 337, 299), 0.08, 1.2)).fields[FOREHEAD]) > 3
    assert deepest(creases(marked(portrait, (151, 9, 8, 168), 0.08, 1.0)).fields[FROWN]) > 3


@pytest.mark.parametrize("line", ["ink", "across", "grain"])
def test_what_is_no_crease_is_left_out(line):
    portrait = drawn_portrait(SIZE)
    if line == "ink":  # a drawn line: far darker than any shade of skin
        portrait = marked(portrait, PATHS[FOLD].landmarks, 0.95, 0.8, 2)
    elif line == "across":  # strands that cross the path
        for one, other in ((50, 165), (205, 92), (207, 186)):
            portrait = marked(portrait, (one, other), 0.10, 1.0)
    else:
        noise = np.random.default_rng(0).normal(0.0, 4.0, (SIZE, SIZE, 1))
        portrait = replace(portrait, crop=np.clip(np.rint(portrait.crop + noise), 0, 255).astype(np.uint8))
    assert deepest(creases(portrait).fields[FOLD]) <= 3


def test_a_smile_deepens_the_fold_and_a_smile_that_goes_makes_it_shallower(renderer):
    portrait = marked(drawn_portrait(SIZE), PATHS[FOLD].landmarks, 0.10, 1.2)
    appearance = renderer.prepare(portrait)
    flat = appearance.creases._replace(
        fields=tuple(f._replace(relief=np.full_like(f.relief, FLAT)) for f in appearance.creases.fields)
    )
    changes = []
    for amount in (1.0, -1.0, 0.0):
        pose = smiling(portrait, amount)
        drawn, without = (renderer.render(a, pose).astype(int) for a in (appearance, appearance._replace(creases=flat)))
        changes.append((drawn - without).sum(-1))
    smile, gone, rest = changes
    assert smile.min() < -20 and smile.sum() < 0
    assert gone.max() > 5 and gone.sum() > 0
    assert (rest == 0).all()


def test_at_a_fold_a_crease_changes_as_smoothly_as_the_colours(renderer):
    """A patch of skin with a crease that moves slowly over skin without: each pixel takes a sixteenth more or less."""
    portrait = drawn_portrait(SIZE)
    pose = renderer.pose(renderer.prepare(portrait), smiling(portrait, 1.0))
    relief = np.full((60, 60), FLAT, np.uint8)
    relief[10:50, 10:50] = FLAT - 40
    x, y = pose.vertices[1, :2].astype(int)
    landmarks = np.arange(468)
    none = Field(np.full((2, 2), FLAT, np.uint8), np.zeros(2, int), landmarks)
    patch = Creases((Field(relief, np.array([x, y]), landmarks), *[none] * 5), np.ones(3))
    points = np.array([[0, 0], [255, 0], [255, 255], [0, 255], [15, 15], [45, 15], [45, 45], [15, 45]], np.float32)
    points[4:] += (x, y)
    triangles = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32)
    texture = np.full((SIZE, SIZE, 4), 200, np.uint8)
    frames = []
    for shift in np.linspace(50.0, 51.5, 100):
        destination = points.copy()
        destination[4:, 0] -= np.float32(shift)
        image, _, origin, parts = ops.warp(texture, triangles, destination, points)
        draw_creases(image, origin, parts, patch, pose)
        frames.append(image[..., 0].astype(int))
    depth, steps = 200 - np.min(frames), np.abs(np.diff(frames, axis=0))[:, y + 18 : y + 42]  # beside corners
    assert depth > 20 and 0 < steps.max() <= depth / 16 + 1


def test_strengths_are_zero_at_rest_and_follow_smile_frown_and_raised_brows():
    assert (strengths(np.zeros((21, 3))) == 0.0).all()
    delta = smiling(drawn_portrait(SIZE), 1.0).delta
    assert (strengths(delta)[[FOLD, OTHER_FOLD, FEET, OTHER_FEET]] > 1.0).all()
    brows = np.zeros((21, 3))
    brows[[Keypoint.RIGHT_BROW, Keypoint.LEFT_BROW], 1] = -0.056
    assert strengths(brows)[FOREHEAD] > 1.0 and strengths(brows)[FROWN] < 0.0
    brows[:, 1] *= -1.0
    brows[Keypoint.RIGHT_BROW, 0], brows[Keypoint.LEFT_BROW, 0] = 0.021, -0.021
    assert strengths(brows)[FROWN] > 1.0 and strengths(brows)[FOREHEAD] < 0.0
