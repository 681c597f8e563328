"""The mesh renderer as a whole, on a face drawn for the purpose."""

from pathlib import Path

import numpy as np
import pytest

import ditto
from ditto.motion import Drive, Motion, drive, rotation_matrix, transform_keypoints
from ditto.portrait import Portrait
from ditto.rendering import geometry as g
from ditto.rendering.mesh import MeshRenderer, drive_from_keypoints

BUNDLE = Path(ditto.__file__).parent / "bundles" / "lite"


def drawn_portrait(size=512, pose=(2.0, -5.0, 3.0)):
    """The template face in flat colours: skin, hair and shoulders, dark eyes and mouth, over a striped wall."""
    cv2 = pytest.importorskip("cv2")
    rotation = rotation_matrix(*pose)
    scale_px = 0.42 * size
    translation_px = np.array([0.5 * size, 0.5 * size, 0.0])
    landmarks = scale_px * g.TEMPLATE @ rotation + translation_px
    y, x = np.mgrid[:size, :size]
    wall = [120 + 60 * np.sin(x * 24 / size), 140 + 0 * x, 160 + 40 * np.sin(y * 30 / size)]
    crop = np.stack(wall, -1).astype(np.uint8)
    mask = np.zeros((size, size), np.uint8)

    def fill(points, colour, also_mask=False):
        polygon = np.round(points).astype(np.int32)
        cv2.fillPoly(crop, [polygon], colour)
        if also_mask:
            cv2.fillPoly(mask, [polygon], 1)

    turn = np.linspace(0, 2 * np.pi, 60)
    fill(0.5 * size + 0.33 * size * np.stack([np.cos(turn), np.sin(turn) - 0.3], -1), (60, 40, 30), True)
    shoulders = np.array([[0.1, 1.0], [0.25, 0.85], [0.42, 0.8], [0.58, 0.8], [0.75, 0.85], [0.9, 1.0]])
    fill(shoulders * size, (40, 60, 120), True)
    fill(landmarks[g.FACE_OVAL, :2], (220, 170, 140), True)
    fill(landmarks[g.UPPER_OUTER_LIP + g.LOWER_OUTER_LIP[::-1], :2], (180, 80, 80))
    for eye in g.EYES:
        fill(landmarks[eye.upper + eye.lower[::-1], :2], (240, 240, 240))
        cv2.circle(crop, np.round(landmarks[eye.iris, :2]).astype(int).tolist(), size // 50, (50, 40, 30), -1)
    crop = cv2.GaussianBlur(crop, (0, 0), size / 512)
    half = size / 2
    return Portrait(
        picture=crop,
        alpha=None,
        crop=crop,
        crop_to_picture=np.eye(3),
        landmarks=landmarks,
        mask=cv2.GaussianBlur(mask.astype(np.float32), (0, 0), size / 300),
        canonical_keypoints=g.keypoints(g.TEMPLATE),
        scale=scale_px / half,
        rotation=rotation,
        translation=(translation_px - (half, half, 0)) / half,
        expression=np.zeros((21, 3)),
        eye_open=np.ones(2, np.float32),
        eye_ball=np.zeros(6, np.float32),
    )


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
    return Drive(portrait.scale, turned, moved, np.zeros((21, 3)) if delta is None else delta)


def speaking():
    delta = np.zeros((21, 3))
    delta[17, 1], delta[19, 1] = 0.08, 0.04
    return delta


@pytest.mark.parametrize("size", [512, 640])
def test_a_portrait_at_rest_comes_out_as_it_went_in(renderer, size):
    portrait = drawn_portrait(size)
    rest = Drive(portrait.scale, portrait.rotation, portrait.translation, np.zeros((21, 3)))
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


@pytest.mark.parametrize("pose", [(10, 0, 0), (0, 15, 0), (0, 0, 10)])
def test_the_border_of_the_crop_never_moves(renderer, portrait, appearance, pose):
    image = renderer.render(appearance, drive_with(portrait, speaking(), pose, (0.06, -0.04, 0)))
    moved = np.abs(image.astype(int) - portrait.crop).max(-1)
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
    from ditto.rendering.surround import move_surround

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
    wanted = drive(portrait, motion)
    c = portrait.canonical_keypoints
    x_source = transform_keypoints(c, portrait.scale, portrait.rotation, portrait.translation, portrait.expression)
    delta = wanted.delta @ wanted.rotation + portrait.expression
    x_driving = transform_keypoints(c, wanted.scale, wanted.rotation, wanted.translation, delta)
    got = drive_from_keypoints(portrait, x_source, x_driving)
    assert np.abs(got.rotation - wanted.rotation).max() < 1e-6
    assert np.abs(got.delta - wanted.delta).max() < 1e-6
    pair = renderer.render(appearance, got).astype(int)
    assert np.abs(pair - renderer.render(appearance, wanted)).max() <= 2  # rounding of positions to 1/256 pixel


def test_keypoint_pairs_survive_a_moving_face(portrait):
    """Expression on the keypoints that carry the pose costs a fraction of a degree."""
    delta = np.zeros((21, 3))
    delta[[1, 2], 1], delta[19, 1], delta[[3, 7], 1], delta[[8, 9], 1] = -0.03, 0.08, -0.02, 0.02
    turned = portrait.rotation @ rotation_matrix(2, 4, -3)
    c = portrait.canonical_keypoints
    x_source = transform_keypoints(c, portrait.scale, portrait.rotation, portrait.translation, np.zeros((21, 3)))
    x_driving = transform_keypoints(c, portrait.scale, turned, portrait.translation, delta @ turned)
    got = drive_from_keypoints(portrait, x_source, x_driving)
    angle = np.degrees(np.arccos(np.clip((np.trace(got.rotation @ turned.T) - 1) / 2, -1, 1)))
    assert angle < 0.7
    with pytest.raises(ValueError, match="x_driving"):
        drive_from_keypoints(portrait, x_source, x_driving[:20])
