from dataclasses import replace

import numpy as np
import pytest
from drawn import drawn_portrait

from ditto.controls import ARKIT_NAMES, CATALOG, KEYPOINT_NAMES, REGIONS, Controls, apply, find
from ditto.controls.blendshapes import to_offsets
from ditto.motion.eyes import CAMERA_HOLD, hold_gaze
from ditto.motion.map import REACH
from ditto.motion.motion import DEGREES, IRISES, KEYPOINTS, UPPER_LIDS, Motion, rotation_matrix
from ditto.motion.space import LITE_SPACE, rotation_of

PORTRAIT = drawn_portrait()


@pytest.fixture
def motion() -> Motion:
    random = np.random.default_rng(3)
    compact = np.zeros((6, 70), np.float32)
    compact[:, 0] = random.uniform(-0.05, 0.05, 6)
    compact[:, 1:4] = random.uniform(-15, 15, (6, 3))
    compact[:, 4:7] = random.uniform(-0.05, 0.05, (6, 3))
    compact[:, 7:] = random.uniform(-0.003, 0.003, (6, 63))  # within the soft limits
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
    assert apply(motion, Controls(gains={"lips": 1.0}, keypoints={"chin": (0, 0, 0)}, blendshapes={"jawOpen": 0})) is motion
    assert apply(motion, Controls(pose=(0, 20, 0), pose_hold=0.0)) is motion


def test_every_keypoint_is_in_a_region_that_has_it_alone_or_whole():
    assert len(set(KEYPOINT_NAMES)) == KEYPOINTS
    parts = ("brows", "eyes", "cheeks", "nose", "lips", "jaw", "neck")
    whole = np.sum([LITE_SPACE.regions[name][7:].reshape(KEYPOINTS, 3) == 1.0 for name in parts], axis=0)
    assert np.all(whole == 1)
    for name in REGIONS:
        assert LITE_SPACE.regions[name].min() >= 0.0 and LITE_SPACE.regions[name].max() == 1.0


FACE_REGIONS = [name for name in REGIONS if name not in ("head", "all")]


@pytest.mark.parametrize("region", FACE_REGIONS)
def test_a_gain_scales_its_region_and_nothing_else(motion, region):
    """The gaze is scaled against the camera: what holds it there as the head turns stays."""
    after = apply(motion, Controls(gains={region: 1.5}))
    share = LITE_SPACE.regions[region][7:].reshape(KEYPOINTS, 3)
    np.testing.assert_array_equal(pose(after), pose(motion))
    expected = (1.0 + 0.5 * share) * against_camera(motion)
    np.testing.assert_allclose(against_camera(after), expected, atol=1e-5)


@pytest.mark.parametrize("region", FACE_REGIONS)
def test_a_frozen_region_rests_and_only_it(motion, region):
    share = LITE_SPACE.regions[region][7:].reshape(KEYPOINTS, 3)
    frozen = apply(motion, Controls(freeze=(region,)))
    np.testing.assert_allclose(against_camera(frozen), (1.0 - share) * against_camera(motion), atol=1e-5)
    np.testing.assert_array_equal(pose(frozen), pose(motion))
    alone = apply(motion, Controls(only=(region,)))
    np.testing.assert_allclose(against_camera(alone), share * against_camera(motion), atol=1e-5)
    assert not pose(alone).any()


def against_camera(motion: Motion) -> np.ndarray:
    """(T, 21, 3) expression in the head frame without what holds the eyes on the camera."""
    points = head_frame(motion)
    points[:, list(IRISES), :2] -= hold_gaze(motion.values[:, DEGREES])[:, None]
    return points


@pytest.mark.parametrize("gain", [0.0, 0.5, 1.5])
def test_a_gain_of_the_head_scales_it_and_leaves_the_gaze_on_the_camera(motion, gain):
    after = apply(motion, Controls(gains={"head": gain}))
    np.testing.assert_allclose(pose(after), gain * pose(motion), atol=1e-5)
    np.testing.assert_allclose(against_camera(after), against_camera(motion), atol=1e-5)


def test_a_still_head_does_not_freeze_the_eyes(motion):
    after = apply(motion, Controls(freeze=("head",)))
    eyes = [*IRISES, *UPPER_LIDS]
    assert not pose(after).any()
    np.testing.assert_allclose(head_frame(after)[:, eyes], against_camera(motion)[:, eyes], atol=1e-5)


@pytest.mark.parametrize("name", KEYPOINT_NAMES)
def test_a_keypoint_moves_alone_by_what_was_asked(motion, name):
    index = KEYPOINT_NAMES.index(name)
    added = np.minimum(LITE_SPACE.map.high.reshape(KEYPOINTS, 3)[index] / 4, 0.003)  # within the soft limits
    after = apply(motion, Controls(keypoints={name: tuple(added.tolist())}))
    assert changed_keypoints(motion, after) == {index}
    moved = head_frame(after)[:, index] - head_frame(motion)[:, index]
    np.testing.assert_allclose(moved, np.tile(added, (6, 1)), atol=1e-5)
    np.testing.assert_array_equal(pose(after), pose(motion))
    np.testing.assert_array_equal(apply(motion, Controls(keypoints={index: tuple(added.tolist())})).values, after.values)


def test_gaze_turns_both_irises_and_the_lids_follow(motion):
    after = apply(motion, Controls(gaze=(20.0, 10.0)))
    assert changed_keypoints(motion, after) == {*IRISES, *UPPER_LIDS}
    moved = head_frame(after) - head_frame(motion)
    turned = [*(CAMERA_HOLD * np.sin(np.radians([20.0, 10.0]))), 0.0]
    np.testing.assert_allclose(moved[:, list(IRISES)], np.broadcast_to(turned, (6, 2, 3)), atol=1e-5)
    assert (moved[:, list(UPPER_LIDS), 1] > 0.005).all()  # they come down as the eyes do
    np.testing.assert_array_equal(pose(after), pose(motion))


def test_a_blendshape_adds_its_keypoints_to_the_motion(motion):
    after = apply(motion, Controls(blendshapes={"jawOpen": 0.5}))
    offsets = to_offsets(np.eye(len(ARKIT_NAMES))[ARKIT_NAMES.index("jawOpen")] / 2)
    moved = head_frame(after) - head_frame(motion)
    np.testing.assert_allclose(moved, np.broadcast_to(offsets, moved.shape), atol=1e-5)
    np.testing.assert_array_equal(pose(after), pose(motion))


def test_however_far_an_edit_goes_the_face_stays_in_its_limits(motion):
    wild = Controls(keypoints=dict.fromkeys(KEYPOINT_NAMES, (0.5, -0.5, 0.5)), gains={"face": 3.0}, gaze=(35, 35))
    after = head_frame(apply(motion, wild)).reshape(len(motion), -1)
    low, high = (REACH * limits for limits in (LITE_SPACE.map.low, LITE_SPACE.map.high))
    assert (after >= low - 1e-6).all() and (after <= high + 1e-6).all()


def test_the_smallest_edit_of_a_strong_expression_is_small():
    """The limits hold edits; what was generated beyond them does not jump when an edit begins."""
    strong = np.zeros((1, 70), np.float32)
    strong[:, 7:] = np.random.default_rng(2).uniform(-0.08, 0.08, 63)
    for controls in (Controls(zoom=1.0001), Controls(gains={"brows": 1.001}), Controls(keypoints={"chin": (0, 1e-5, 0)})):
        assert np.abs(apply(Motion(strong), controls).values - strong).max() < 5e-4
    assert np.abs(apply(Motion(strong), Controls(gains={"face": 0.0})).expression).max() < 1e-6


@pytest.mark.parametrize("side", [0, 1])
def test_an_eye_closes_alone(motion, side):
    after = apply(motion, Controls(lids=tuple(np.eye(2)[side])))
    assert changed_keypoints(motion, after) == {UPPER_LIDS[side]}


def test_without_blinks_no_upper_lid_comes_down(motion):
    lids = list(UPPER_LIDS)
    assert (head_frame(motion)[:, lids, 1] > 1e-3).any()
    after = apply(motion, Controls(gains={"blinks": 0.0}))
    assert head_frame(after)[:, lids, 1].max() < 1e-6
    assert changed_keypoints(motion, after) == set(lids)
    np.testing.assert_allclose(
        head_frame(after)[:, lids][..., [0, 2]], head_frame(motion)[:, lids][..., [0, 2]], atol=1e-5
    )


@pytest.mark.parametrize("yaw", [-25.0, 0.0, 25.0])
def test_an_absolute_pose_replaces_the_head_s_own_on_any_portrait(motion, yaw):
    portrait = replace(PORTRAIT, rotation=rotation_matrix(4.0, yaw, -3.0))
    target = (5.0, yaw / 2 + 4.0, 2.0)  # no further from the portrait than one picture shows
    after = apply(motion, Controls(pose=target), portrait)
    shown = portrait.rotation @ rotation_of(after.values[:, DEGREES])
    np.testing.assert_allclose(shown, np.broadcast_to(rotation_matrix(*target), shown.shape), atol=1e-6)
    half = apply(motion, Controls(pose=target, pose_hold=0.5), portrait)
    middle = (motion.values[:, DEGREES] + after.values[:, DEGREES]) / 2
    np.testing.assert_allclose(half.values[:, DEGREES], middle, atol=1e-5)
    # The eyes do not go on turning against a motion that the head no longer has.
    np.testing.assert_allclose(head_frame(after)[:, list(IRISES)], against_camera(motion)[:, list(IRISES)], atol=1e-5)


@pytest.mark.parametrize("turn", [{"yaw_degrees": 15.0}, {"pitch_degrees": -8.0}, {"pose": (5.0, 20.0, 0.0)}])
def test_eye_contact_holds_the_camera_while_the_head_is_turned(motion, turn):
    after = apply(motion, Controls(eye_contact=1.0, **turn), PORTRAIT)
    np.testing.assert_allclose(against_camera(after), against_camera(motion), atol=1e-5)
    with_head = apply(motion, Controls(**turn), PORTRAIT)
    assert np.abs(against_camera(with_head) - against_camera(motion)).max() > 5e-3


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


def test_zoom_changes_the_size_alone(motion):
    after = apply(motion, Controls(zoom=1.2))
    np.testing.assert_allclose(after.scale, 1.2 * motion.scale, rtol=1e-5)
    np.testing.assert_allclose(pose(after)[:, 1:], pose(motion)[:, 1:], atol=1e-3)
    assert changed_keypoints(motion, after) == set()


def test_one_frame_and_many_agree(motion):
    controls = Controls(
        yaw_degrees=5.0, gaze=(8.0, 0.0), gains={"mouth": 1.3, "head": 0.5}, keypoints={"chin": (0.0, 0.01, 0.0)}
    )
    together = apply(motion, controls).values
    apart = np.stack([apply(motion[i], controls).values for i in range(len(motion))])
    np.testing.assert_array_equal(together, apart)


@pytest.mark.parametrize(
    "wrong",
    [
        {"gains": {"lips": -1.0}},
        {"gains": {"lips": float("nan")}},
        {"gains": {"elbow": 1.0}},
        {"yaw_degrees": 90.0},
        {"zoom": 0.0},
        {"gaze": (0.0, 50.0)},
        {"gaze": (0.0,)},
        {"pose": (0.0, 0.0)},
        {"lids": (2.0, 0.0)},
        {"blendshapes": {"jawopen": 0.5}},
        {"only": ("elbow",)},
        {"only": ("lips",), "freeze": ("lips",)},
        {"keypoints": {"elbow": (0.0, 0.0, 0.0)}},
        {"keypoints": {21: (0.0, 0.0, 0.0)}},
        {"keypoints": {"chin": (0.0, float("inf"), 0.0)}},
    ],
)
def test_wrong_controls_are_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        Controls(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"yaw_degrees": "8"},
        {"zoom": None},
        {"zoom": True},
        {"gaze": 3.0},
        {"gains": 1.2},
        {"only": "lips"},
        {"keypoints": [1]},
    ],
)
def test_controls_of_another_type_are_refused(wrong):
    with pytest.raises(TypeError, match=r"expected .* got"):
        Controls(**wrong)


def test_every_number_of_the_catalog_goes_into_controls_and_comes_back():
    for name, control in CATALOG.items():
        if name.startswith("emotion.") or name == "style":
            with pytest.raises(ValueError, match="its own argument"):
                Controls.from_names({name: control.high})
            continue
        values = {name: control.high} | ({"pose.hold": 1.0} if name.startswith("pose.") else {})
        assert Controls.from_names(values).names() == values
        assert Controls.from_names(Controls.from_names(values).names()) == Controls.from_names(values)


def test_an_unknown_name_comes_with_the_nearest_ones():
    with pytest.raises(ValueError, match=r"left_brow\.y"):
        find("left_brow_y")
    with pytest.raises(ValueError, match="jawOpen"):
        Controls.from_names({"jawopen": 0.5})
    with pytest.raises(ValueError, match="ditto controls list"):
        find("zzz")


def test_controls_are_frozen_all_the_way_down(motion):
    gains = {"mouth": 0.5}
    controls = Controls(gains=gains)
    before = apply(motion, controls).values
    gains["mouth"] = 2.0
    np.testing.assert_array_equal(apply(motion, controls).values, before)
    with pytest.raises(TypeError):
        controls.gains["mouth"] = 2.0  # type: ignore[index]
