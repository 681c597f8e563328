"""Motion: 70 numbers, the published coding of them, and how a frame of it drives a portrait."""

import numpy as np
import pytest

from ditto.motion import motion
from ditto.motion.motion import KEYPOINTS, MOTION_SIZE, PACKED_SIZE, Keypoint, Motion, decode_angle, encode_angle


def test_angles_decode_to_what_was_encoded():
    degrees = np.linspace(-85.0, 85.0, 1701)
    assert np.abs(decode_angle(encode_angle(degrees)) - degrees).max() < 1e-3


def test_encoded_angle_sums_to_one():
    assert np.allclose(encode_angle([-97.5, 0.4, 90.0]).sum(-1), 1.0, atol=1e-6)


def test_motion_survives_the_265_layout():
    random = np.random.default_rng(0)
    values = random.normal(size=(5, MOTION_SIZE)).astype(np.float32)
    values[:, 1:4] *= 20.0
    packed = Motion(values).as_265()
    assert packed.shape == (5, PACKED_SIZE)
    assert np.allclose(packed[:, 1:199].reshape(5, 3, 66).sum(-1), 1.0)
    back = Motion.from_265(packed)
    assert np.allclose(back.values, values, atol=1e-3)
    assert np.array_equal(back.expression.reshape(5, -1), values[:, 7:])
    assert np.allclose(back.scale, 1.0 + values[:, 0])


def test_motion_is_read_only():
    m = motion.rest_motion(2)
    with pytest.raises(ValueError):
        m.values[0, 0] = 1.0


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match=r"70 numbers a frame, got shape .*Motion\.from_265"):
        Motion(np.zeros((3, 265), np.float32))
    with pytest.raises(ValueError, match="265 numbers"):
        Motion.from_265(np.zeros(70))


@pytest.mark.parametrize("angles", [(10.0, -20.0, 5.0), (-30.0, 40.0, -15.0), (0.0, 0.0, 0.0)])
def test_euler_angles_come_back_from_the_matrix(angles):
    assert np.allclose(motion.euler_degrees(motion.rotation_matrix(*angles)), angles, atol=1e-9)


def test_rotation_turns_the_way_liveportrait_does():
    nose = np.array([0.0, 0.0, -1.0])  # towards the camera
    assert (nose @ motion.rotation_matrix(0.0, 30.0, 0.0))[0] < 0.0
    chin = np.array([0.0, 1.0, 0.0])
    assert (chin @ motion.rotation_matrix(0.0, 0.0, 30.0))[0] < 0.0


def test_keypoints_follow_the_papers_formula():
    random = np.random.default_rng(1)
    c, delta = random.normal(size=(2, KEYPOINTS, 3))
    r = motion.rotation_matrix(5.0, 10.0, -3.0)
    x = motion.transform_keypoints(c, 1.3, r, [0.1, 0.2, 0.0], delta)
    assert np.allclose(x, 1.3 * (c @ r + delta) + [0.1, 0.2, 0.0])


class _Face:
    """The parts of a portrait that `retarget` reads."""

    canonical_keypoints = np.zeros((KEYPOINTS, 3))
    scale, translation = 0.9, np.array([0.1, -0.1, 0.0])
    rotation = motion.rotation_matrix(3.0, -4.0, 2.0)
    expression = np.zeros((KEYPOINTS, 3))


def test_rest_keeps_the_portraits_own_pose():
    face = _Face()
    face.canonical_keypoints = np.zeros((KEYPOINTS, 3))
    d = motion.retarget(face, motion.rest_motion(1)[0])  # type: ignore[arg-type]
    assert d.scale == pytest.approx(0.9)
    assert np.allclose(d.rotation, face.rotation, atol=1e-6)
    assert np.allclose(d.delta, 0.0)


def test_a_blink_travels_the_portraits_own_aperture():
    face = _Face()
    face.canonical_keypoints = np.zeros((KEYPOINTS, 3))
    face.canonical_keypoints[Keypoint.LOWER_LIDS, 1] = 0.05
    values = np.zeros(MOTION_SIZE, np.float32)
    values[7 + 3 * Keypoint.RIGHT_UPPER_LID + 1] = motion.TEMPLATE_APERTURE
    d = motion.retarget(face, Motion(values))  # type: ignore[arg-type]
    assert d.delta[Keypoint.RIGHT_UPPER_LID, 1] == pytest.approx(0.05, abs=1e-6)


def test_retarget_takes_one_frame():
    with pytest.raises(ValueError, match="one frame"):
        motion.retarget(_Face(), motion.rest_motion(2))  # type: ignore[arg-type]


def test_numpy_takes_a_motion_as_its_numbers():
    m = motion.rest_motion(2)
    seen = np.asarray(m)
    assert seen.shape == (2, MOTION_SIZE)
    assert np.shares_memory(seen, m.values)
    assert not seen.flags.writeable
    assert np.asarray(m, np.float64).dtype == np.float64
    copied = np.array(m)
    copied[0, 0] = 1.0
    assert m.values[0, 0] == 0.0
    assert np.allclose(np.stack([m, m])[1], m.values)
    with pytest.raises(ValueError, match="dtype float32"):
        m.__array__(np.float64, copy=False)
