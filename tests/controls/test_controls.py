from dataclasses import replace

import numpy as np
import pytest
from drawn import drawn_portrait

from ditto.controls import KEYPOINT_NAMES, REGIONS, Controls, apply
from ditto.motion.motion import DEGREES, IRISES, KEYPOINTS, Motion, rotation_matrix
from ditto.motion.space import rotation_of

PORTRAIT = drawn_portrait()


@pytest.fixture
def motion() -> Motion:
    random = np.random.default_rng(3)
    compact = np.zeros((6, 70), np.float32)
    compact[:, 0] = random.uniform(-0.05, 0.05, 6)
    compact[:, 1:4] = random.uniform(-15, 15, (6, 3))
    compact[:, 4:7] = random.uniform(-0.05, 0.05, (6, 3))
    compact[:, 7:] = random.normal(0, 0.03, (6, 63))
    return Motion(compact)


def head_frame(motion: Motion) -> np.ndarray:
    """(T, 21, 3) expression in the head frame."""
    turn = rotation_matrix(motion.pitch_degrees, motion.yaw_degrees, motion.roll_degrees)
    return motion.expression @ np.swapaxes(turn, -1, -2)


def changed_keypoints(before: Motion, after: Motion) -> set[int]:
    difference = np.abs(head_frame(after) - head_frame(before)).max((0, 2))
    return set(np.flatnonzero(difference > 1e-5).tolist())


def pose(motion: Motion) -> np.ndarray:
    return motion.values[:, :7]


def test_default_controls_give_the_motion_itself(motion):
    assert apply(motion, Controls()) is motion
    assert apply(motion, Controls(regions={}, keypoints={})) is motion


def test_every_keypoint_has_one_name_and_at_most_one_region():
    assert len(set(KEYPOINT_NAMES)) == KEYPOINTS
    members = [index for region in REGIONS.values() for index in region]
    assert len(members) == len(set(members))
    # The nose and the neck are rigid: no region moves them.
    assert {KEYPOINT_NAMES[i] for i in set(range(KEYPOINTS)) - set(members)} == {"nose_tip", "neck"}


@pytest.mark.parametrize("region", list(REGIONS))
def test_a_region_scales_its_keypoints_and_nothing_else(motion, region):
    after = apply(motion, Controls(regions={region: 1.5}))
    assert changed_keypoints(motion, after) == set(REGIONS[region])
    np.testing.assert_array_equal(pose(after), pose(motion))
    members = list(REGIONS[region])
    np.testing.assert_allclose(head_frame(after)[:, members], 1.5 * head_frame(motion)[:, members], atol=1e-5)


def test_expression_scales_the_whole_face_and_no_pose(motion):
    after = apply(motion, Controls(expression=0.0))
    assert not after.expression.any()
    np.testing.assert_array_equal(pose(after), pose(motion))


@pytest.mark.parametrize("name", KEYPOINT_NAMES)
def test_a_keypoint_moves_alone_by_what_was_asked(motion, name):
    after = apply(motion, Controls(keypoints={name: (0.02, -0.03, 0.01)}))
    index = KEYPOINT_NAMES.index(name)
    assert changed_keypoints(motion, after) == {index}
    moved = head_frame(after)[:, index] - head_frame(motion)[:, index]
    np.testing.assert_allclose(moved, np.tile([0.02, -0.03, 0.01], (6, 1)), atol=1e-5)
    np.testing.assert_array_equal(pose(after), pose(motion))
    np.testing.assert_array_equal(apply(motion, Controls(keypoints={index: (0.02, -0.03, 0.01)})).values, after.values)


def test_gaze_moves_both_irises_alone(motion):
    after = apply(motion, Controls(gaze=(0.02, -0.01)))
    assert changed_keypoints(motion, after) == set(IRISES)
    moved = head_frame(after) - head_frame(motion)
    np.testing.assert_allclose(moved[:, list(IRISES)], np.broadcast_to([0.02, -0.01, 0.0], (6, 2, 3)), atol=1e-5)
    np.testing.assert_array_equal(pose(after), pose(motion))


def test_without_blinks_no_upper_lid_comes_down(motion):
    lids = [KEYPOINT_NAMES.index("right_upper_lid"), KEYPOINT_NAMES.index("left_upper_lid")]
    assert (head_frame(motion)[:, lids, 1] > 1e-3).any()
    after = apply(motion, Controls(blink=False))
    assert head_frame(after)[:, lids, 1].max() < 1e-6
    assert changed_keypoints(motion, after) == set(lids)
    np.testing.assert_allclose(
        head_frame(after)[:, lids][..., [0, 2]], head_frame(motion)[:, lids][..., [0, 2]], atol=1e-5
    )


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("yaw", [-25.0, 0.0, 25.0])
def test_an_angle_turns_the_head_about_its_own_axis_and_takes_the_face_along(motion, axis, yaw):
    degrees = np.eye(3)[axis] * 10.0
    portrait = replace(PORTRAIT, rotation=rotation_matrix(4.0, yaw, -3.0))
    names = ("pitch_degrees", "yaw_degrees", "roll_degrees")
    after = apply(motion, Controls(**dict(zip(names, degrees, strict=True))), portrait)
    before, turned = (portrait.rotation @ rotation_of(m.values[:, DEGREES]) for m in (motion, after))
    np.testing.assert_allclose(turned, rotation_matrix(*degrees) @ before, atol=1e-6)
    np.testing.assert_array_equal(pose(after)[:, [0, 4, 5, 6]], pose(motion)[:, [0, 4, 5, 6]])
    assert changed_keypoints(motion, after) == set()


def test_head_at_zero_keeps_the_portrait_s_pose_and_the_face(motion):
    after = apply(motion, Controls(head=0.0))
    np.testing.assert_allclose(pose(after), 0.0, atol=1e-6)
    assert changed_keypoints(motion, after) == set()


def test_zoom_changes_the_size_alone(motion):
    after = apply(motion, Controls(zoom=1.2))
    np.testing.assert_allclose(after.scale, 1.2 * motion.scale, rtol=1e-5)
    np.testing.assert_allclose(pose(after)[:, 1:], pose(motion)[:, 1:], atol=1e-3)
    assert changed_keypoints(motion, after) == set()


def test_one_frame_and_many_agree(motion):
    controls = Controls(yaw_degrees=5.0, gaze=(0.01, 0.0), regions={"mouth": 1.3}, keypoints={"chin": (0.0, 0.01, 0.0)})
    together = apply(motion, controls).values
    apart = np.stack([apply(motion[i], controls).values for i in range(len(motion))])
    np.testing.assert_array_equal(together, apart)


@pytest.mark.parametrize(
    "wrong",
    [
        {"expression": -1.0},
        {"expression": float("nan")},
        {"head": 10.0},
        {"yaw_degrees": 90.0},
        {"zoom": 0.0},
        {"gaze": (0.0, 2.0)},
        {"gaze": (0.0,)},
        {"regions": {"elbow": 1.0}},
        {"keypoints": {"elbow": (0.0, 0.0, 0.0)}},
        {"keypoints": {21: (0.0, 0.0, 0.0)}},
        {"keypoints": {"chin": (0.0, float("inf"), 0.0)}},
    ],
)
def test_wrong_controls_are_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        Controls(**wrong)


def test_controls_are_frozen_all_the_way_down(motion):
    regions = {"mouth": 0.5}
    controls = Controls(regions=regions)
    before = apply(motion, controls).values
    regions["mouth"] = 2.0
    np.testing.assert_array_equal(apply(motion, controls).values, before)
    with pytest.raises(TypeError):
        controls.regions["mouth"] = 2.0  # type: ignore[index]
