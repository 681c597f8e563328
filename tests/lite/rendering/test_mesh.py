"""The mesh renderer as a whole, on a face drawn for the purpose."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn_portrait

import ditto
from ditto.lite.rendering.mesh import MeshRenderer, render_pose_from_keypoints
from ditto.motion.motion import Motion, RenderPose, retarget, rotation_matrix, transform_keypoints
from ditto.portrait import face_mesh as g

BUNDLE = Path(ditto.__file__).parent / "bundles" / "lite"


@pytest.fixture(scope="module")
def renderer():
    return MeshRenderer(BUNDLE)


@pytest.fixture(scope="module")
def portrait():
    return drawn_portrait()


@pytest.fixture(scope="module")
def appearance(renderer, portrait):
    return renderer.prepare(portrait)


def drive_with(portrait, delta=None, pose=(0.0, 0.0, 0.0), shift=(0.0, 0.0, 0.0)):
    turned = portrait.rotation @ rotation_matrix(*pose)
    moved = portrait.translation + portrait.scale * np.asarray(shift)
    return RenderPose(portrait.scale, turned, moved, np.zeros((21, 3)) if delta is None else delta)


def speaking():
    delta = np.zeros((21, 3))
    delta[17, 1], delta[19, 1] = 0.08, 0.04
    return delta


@pytest.mark.parametrize("size", [512, 640])
def test_a_portrait_at_rest_comes_out_as_it_went_in(renderer, size):
    portrait = drawn_portrait(size)
    rest = RenderPose(portrait.scale, portrait.rotation, portrait.translation, np.zeros((21, 3)))
    image = renderer.render(renderer.prepare(portrait), rest)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    assert (image == portrait.crop).all()


def test_rendering_is_repeatable(renderer, portrait, appearance):
    frame = drive_with(portrait, speaking(), (3, 5, 2))
    assert (renderer.render(appearance, frame) == renderer.render(renderer.prepare(portrait), frame)).all()


def test_the_mouth_opens_where_the_mouth_is(renderer, portrait, appearance):
    image = renderer.render(appearance, drive_with(portrait, speaking())).astype(int)
    changed = np.abs(image - portrait.crop).max(-1) > 12
    rows, columns = np.nonzero(changed)
    mouth = portrait.landmarks[g.LOWER_OUTER_LIP, :2].mean(0)
    chin = portrait.landmarks[152, 1]
    assert changed.any() and rows.min() > portrait.landmarks[168, 1] and rows.max() < chin + 0.15 * 512
    assert abs(columns.mean() - mouth[0]) < 15 and abs(rows.mean() - mouth[1]) < 40


@pytest.mark.parametrize("pose", [(12, 0, 0), (-12, 0, 0), (0, 15, 0), (0, 0, 10)])
def test_the_border_of_a_crop_inside_the_picture_never_moves(renderer, portrait, pose):
    larger = np.pad(portrait.picture, ((40, 40), (40, 40), (0, 0)), mode="edge")
    into = np.array([[1.0, 0.0, 40.0], [0.0, 1.0, 40.0], [0.0, 0.0, 1.0]])
    inside = replace(portrait, picture=larger, crop_to_picture=into)
    image = renderer.render(renderer.prepare(inside), drive_with(inside, speaking(), pose, (0.06, -0.04, 0)))
    moved = np.abs(image.astype(int) - inside.crop).max(-1)
    assert moved.max() > 50
    moved[4:-4, 4:-4] = 0
    assert moved.max() == 0


def test_the_wall_stands_still_while_the_head_moves(renderer, portrait, appearance):
    image = renderer.render(appearance, drive_with(portrait, None, (0, 12, 0), (0.05, 0, 0)))
    cv2 = pytest.importorskip("cv2")
    outside = cv2.distanceTransform((portrait.mask < 0.01).astype(np.uint8), cv2.DIST_L2, 5) / (portrait.scale * 256)
    assert (outside > 0.25).mean() > 0.1
    assert np.abs(image.astype(int) - portrait.crop)[outside > 0.25].max() <= 4  # what moves under .3 px is left


def test_the_vertices_follow_the_pose(renderer, portrait, appearance):
    pose = renderer.pose(appearance, drive_with(portrait, None, (0, 0, 10), (0.1, 0, 0)))
    rest = renderer.pose(appearance, drive_with(portrait))
    scale, rotation, translation, _ = g.fit_head(pose.vertices)
    rest_scale, rest_rotation, rest_translation, _ = g.fit_head(rest.vertices)
    assert np.allclose(rest_rotation.T @ rotation, rotation_matrix(0, 0, 10), atol=1e-6)
    assert scale == pytest.approx(rest_scale)
    shift = translation - rest_translation
    assert shift[0] / pose.scale_px == pytest.approx(0.1, abs=0.01)  # turned about the origin, which is no landmark


def test_shoulders_follow_the_head_a_little(renderer, portrait, appearance):
    from ditto.lite.rendering.surround import move_surround

    pose = renderer.pose(appearance, drive_with(portrait, None, (0, 0, 0), (0.1, 0, 0)))
    surround = appearance.surround
    shift = (move_surround(surround, appearance.geometry, pose) - surround.points)[:, 0] / (0.1 * pose.scale_px)
    x, y = surround.points.T
    shoulder = (np.abs(x - 90) < 25) & (np.abs(y - 465) < 12)
    hair = np.hypot(x - 256, y - 110) < 20
    assert 0.02 < shift[shoulder].mean() < 0.2
    assert shift[hair].mean() > 0.9


def test_keypoint_pairs_and_motion_draw_the_same(renderer, portrait, appearance):
    """x = s (c R + delta) + t for source and driving says the same as the motion it was made from."""
    expression = np.zeros((21, 3))
    expression[17, 1], expression[14, 1] = 0.07, -0.01
    compact = np.concatenate([[0.02, 3.0, -6.0, 4.0, 0.02, -0.01, 0.0], expression.ravel()])
    motion = Motion(compact)
    expected = retarget(portrait, motion)
    c = portrait.canonical_keypoints
    x_source = transform_keypoints(c, portrait.scale, portrait.rotation, portrait.translation, portrait.expression)
    delta = expected.delta @ expected.rotation + portrait.expression
    x_driving = transform_keypoints(c, expected.scale, expected.rotation, expected.translation, delta)
    got = render_pose_from_keypoints(portrait, x_source, x_driving)
    assert np.abs(got.rotation - expected.rotation).max() < 1e-6
    assert np.abs(got.delta - expected.delta).max() < 1e-6
    pair = renderer.render(appearance, got).astype(int)
    assert np.abs(pair - renderer.render(appearance, expected)).max() <= 2  # rounding of positions to 1/256 pixel


def test_keypoint_pairs_survive_a_moving_face(portrait):
    """Expression on the keypoints that carry the pose costs a fraction of a degree."""
    delta = np.zeros((21, 3))
    delta[[1, 2], 1], delta[19, 1], delta[[3, 7], 1], delta[[8, 9], 1] = -0.03, 0.08, -0.02, 0.02
    turned = portrait.rotation @ rotation_matrix(2, 4, -3)
    c = portrait.canonical_keypoints
    x_source = transform_keypoints(c, portrait.scale, portrait.rotation, portrait.translation, np.zeros((21, 3)))
    x_driving = transform_keypoints(c, portrait.scale, turned, portrait.translation, delta @ turned)
    got = render_pose_from_keypoints(portrait, x_source, x_driving)
    angle = np.degrees(np.arccos(np.clip((np.trace(got.rotation @ turned.T) - 1) / 2, -1, 1)))
    assert angle < 0.7
    with pytest.raises(ValueError, match="x_driving"):
        render_pose_from_keypoints(portrait, x_source, x_driving[:20])
