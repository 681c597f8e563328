"""Motion spaces: an edit arrives at the same place of the head in every space, whatever the portrait's pose."""

from dataclasses import replace

import numpy as np
import pytest
from drawn import drawn_portrait

from ditto.controls import Controls, apply
from ditto.lite.postprocess import to_camera_frame
from ditto.motion.emotion import emotion_vector
from ditto.motion.motion import (
    DEGREES,
    EXPRESSION,
    IRISES,
    KEYPOINTS,
    Keypoint,
    Motion,
    retarget,
    rotation_matrix,
)
from ditto.motion.space import LITE_SPACE, rotation_of
from ditto.motion.style import STYLES, scale_motion

CALM = emotion_vector(None)
PUSH = 0.004  # fu: within the soft limits
NOSE = Controls(keypoints={"nose_tip": (PUSH, 0.0, 0.0)})


def turned(yaw, pitch=5.0, roll=-4.0):
    return replace(drawn_portrait(), rotation=rotation_matrix(pitch, yaw, roll))


def motions(count=5):
    random = np.random.default_rng(1)
    values = random.uniform(-0.003, 0.003, (count, 70)).astype(np.float32)
    values[:, DEGREES] = random.uniform(-12.0, 12.0, (count, 3))
    return Motion(values)


def full_space(portrait, degrees, scale=1.3, enlarged=1.25):
    """Of a portrait whose released crop shows it with this pose, and so much larger than its own crop."""
    pytest.importorskip("torch", reason="the full bundle needs torch (pip install ditto[full])")
    from ditto.full.motion_math import Pose
    from ditto.full.source import Source
    from ditto.full.space import FullSpace

    to_picture = portrait.crop_to_picture.copy()
    to_picture[:2, :2] /= enlarged
    pose = Pose(scale, np.asarray(degrees, float), np.zeros(3), np.zeros(63))
    source = Source(to_picture, None, pose, None, None, None, np.zeros(63))
    return FullSpace(lambda _: source), source


@pytest.mark.parametrize("yaw", [-25.0, -10.0, 0.0, 25.0])
def test_there_and_back_is_the_motion(yaw):
    portrait = turned(yaw)
    for space in (LITE_SPACE, full_space(portrait, (5.0, yaw, -4.0))[0]):
        values = motions().values
        there = space.to_head(values, portrait)
        np.testing.assert_allclose(space.from_head(there, portrait), values, atol=1e-6)
        assert np.abs(there - values).max() > 2e-4


@pytest.mark.parametrize("yaw", [-25.0, -10.0, 0.0, 25.0])
def test_an_edit_moves_a_keypoint_by_as_much_along_the_axes_of_the_head(yaw):
    """Read off where the renderer has the keypoints: lite's are deltas in the head, full's are posed in the crop."""
    from ditto.full.motion_math import Pose, posed_keypoints

    portrait = turned(yaw)
    before, after = (retarget(portrait, m[0]) for m in (motions(), apply(motions(), NOSE, portrait)))
    moved = after.delta - before.delta
    np.testing.assert_allclose(moved[Keypoint.NOSE_TIP], (PUSH, 0.0, 0.0), atol=1e-6)
    assert np.abs(np.delete(moved, Keypoint.NOSE_TIP, 0)).max() < 1e-6

    space, source = full_space(portrait, (5.0, yaw, -4.0))
    rest, found = source.pose, []
    for motion in (motions(), apply(motions(), NOSE, portrait, space)):
        v = motion.values[0].astype(float)
        pose = Pose(rest.scale, rest.degrees + v[DEGREES], rest.t, v[EXPRESSION])
        found.append(posed_keypoints(np.zeros(63), pose))
    in_head = (found[1] - found[0]) @ rotation_matrix(*(rest.degrees + motions().values[0, DEGREES])).T
    face_unit = portrait.scale * 1.25  # model units of the released crop
    np.testing.assert_allclose(in_head[Keypoint.NOSE_TIP] / face_unit, (PUSH, 0.0, 0.0), atol=1e-6)
    assert np.abs(np.delete(in_head, Keypoint.NOSE_TIP, 0)).max() < 1e-6


@pytest.mark.parametrize("axis", range(3))
def test_the_head_turns_about_its_own_axes_in_every_space(axis):
    portrait, degrees = turned(20.0), np.eye(3)[axis] * 8.0
    values = motions().values
    out = LITE_SPACE.turn_head(LITE_SPACE.to_head(values, portrait), degrees, portrait)
    after = portrait.rotation @ rotation_of(out[:, DEGREES])
    before = portrait.rotation @ rotation_of(values[:, DEGREES].astype(float))
    np.testing.assert_allclose(after, rotation_of(degrees) @ before, atol=1e-9)
    np.testing.assert_array_equal(out[:, EXPRESSION], LITE_SPACE.to_head(values, portrait)[:, EXPRESSION])

    space, source = full_space(portrait, (5.0, 20.0, -4.0))
    out = space.turn_head(space.to_head(values, portrait), degrees, portrait)
    rest = source.pose.degrees
    after = rotation_of(rest + out[:, DEGREES])
    np.testing.assert_allclose(after, rotation_of(degrees) @ rotation_of(rest + values[:, DEGREES].astype(float)), atol=1e-9)


def test_a_space_that_needs_a_portrait_says_so():
    space, _ = full_space(turned(0.0), (0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="which is relative to one, got None"):
        apply(motions(), NOSE, None, space)


def test_a_motion_of_the_lite_space_needs_no_portrait():
    plain = apply(motions(), NOSE)
    np.testing.assert_array_equal(plain.values, apply(motions(), NOSE, turned(20.0)).values)
    assert plain.values.shape == (5, 7 + 3 * KEYPOINTS)


@pytest.mark.parametrize("strength", [0.0, *STYLES.values(), 2.0])
def test_a_style_keeps_everything_but_head_and_brows_in_the_head_frame(strength):
    portrait, values = turned(20.0), motions().values
    for space in (LITE_SPACE, full_space(portrait, (5.0, 20.0, -4.0))[0]):
        styled = space.change_style(values, strength, portrait)
        assert styled.dtype == np.float32
        before, after = space.to_head(values, portrait), space.to_head(styled, portrait)
        expected = scale_motion(before, strength)
        irises = np.s_[..., list(IRISES), :]  # of the lite face, they stay on the camera: see below
        found, asked = (v[:, EXPRESSION].reshape(-1, KEYPOINTS, 3).copy() for v in (after, expected))
        if space is LITE_SPACE:
            found[irises] = asked[irises] = 0.0
        np.testing.assert_allclose(found, asked, atol=1e-6)
        np.testing.assert_allclose(after[:, : EXPRESSION.start], expected[:, : EXPRESSION.start], rtol=1e-5, atol=1e-7)
        if strength == 1.0:
            assert np.array_equal(styled, values)


def test_the_gaze_stays_on_the_camera_in_every_style():
    """A motion that was made with less head motion is the same as one that is given less."""
    rows = motions().values  # head frame, gaze not held yet
    for strength in (0.0, 0.45, 1.35):
        styled = LITE_SPACE.change_style(to_camera_frame(rows), strength, None)
        np.testing.assert_allclose(styled, to_camera_frame(scale_motion(rows, strength)), atol=1e-5)
