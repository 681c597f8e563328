"""Driving: a performance moves its regions, speech the rest, in every space and on every portrait."""

from dataclasses import replace

import numpy as np
import pytest
from drawn import drawn_portrait

from ditto.controls.driving import FADE_FRAMES, Driving, Performance, drive
from ditto.motion.eyes import hold_gaze
from ditto.motion.motion import DEGREES, EXPRESSION, IRISES, KEYPOINTS, Keypoint, Motion, rotation_matrix
from ditto.motion.space import LITE_SPACE

PORTRAIT = replace(drawn_portrait(), rotation=rotation_matrix(4.0, 20.0, -3.0))


def rows(count, seed=0):
    random = np.random.default_rng(seed)
    values = random.uniform(-0.003, 0.003, (count, 70)).astype(np.float32)  # within the soft limits
    values[:, DEGREES] = random.uniform(-12.0, 12.0, (count, 3))
    return values


def head_values(row):
    return LITE_SPACE.to_head(row, PORTRAIT)


def irises(values):
    return values[EXPRESSION].reshape(KEYPOINTS, 3)[list(IRISES)]


def test_head_and_brows_are_the_performance_s_and_the_lips_the_speech_s():
    spoken, performed = rows(2)
    out = head_values(drive(Motion(spoken), Driving(performed.astype(float), {"head": 1.0, "brows": 1.0}), PORTRAIT).values)
    before = head_values(spoken)
    share = np.maximum(LITE_SPACE.regions["head"], LITE_SPACE.regions["brows"])
    eyes = LITE_SPACE.regions["gaze"] > 0.0
    expected = np.where(share > 0.0, performed, before)
    np.testing.assert_allclose(out[~eyes], expected[~eyes], atol=1e-6)


def test_speech_s_gaze_stays_on_the_camera_while_another_head_turns():
    spoken, performed = rows(2)
    out = head_values(drive(Motion(spoken), Driving(performed.astype(float), {"head": 1.0}), PORTRAIT).values)
    turned = hold_gaze(performed[DEGREES]) - hold_gaze(spoken[DEGREES])
    np.testing.assert_allclose(irises(out)[:, :2], irises(head_values(spoken))[:, :2] + turned, atol=1e-6)


def test_half_a_share_is_the_middle():
    spoken, performed = rows(2)
    out = head_values(drive(Motion(spoken), Driving(performed.astype(float), {"jaw": 0.5}), PORTRAIT).values)
    k = EXPRESSION.start + 3 * Keypoint.CHIN
    np.testing.assert_allclose(out[k : k + 3], (head_values(spoken)[k : k + 3] + performed[k : k + 3]) / 2, atol=1e-6)


def test_a_performance_fades_in_and_out_and_is_over():
    performance = Performance(rows(40), {"head": 1.0, "brows": 0.5}, start_seconds=1.0)
    assert performance.at(24) is None and performance.at(65) is None
    shares = [performance.at(k).regions["head"] for k in range(25, 65)]
    assert 0.0 < shares[0] < 0.1 and shares[FADE_FRAMES] == 1.0 and 0.0 < shares[-1] < 0.1
    assert np.abs(np.diff(shares)).max() < 0.2
    assert performance.at(45).regions["brows"] == 0.5


def test_lost_frames_drive_nothing():
    weights = np.ones(40, np.float32)
    weights[20] = 0.0
    driving = Performance(rows(40), weights=weights).at(20)
    spoken = Motion(rows(1)[0])
    assert drive(spoken, driving, PORTRAIT) is spoken


def test_a_wild_performance_stays_a_face():
    spoken, wild = rows(1)[0], np.random.default_rng(3).normal(0.0, 50.0, 70)
    out = head_values(drive(Motion(spoken), Driving(wild, {"all": 1.0}), PORTRAIT).values)
    assert np.abs(out[DEGREES]).max() <= 40.0 and np.abs(out[EXPRESSION]).max() < 0.25


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"values": np.zeros((0, 70))}, "N > 0"),
        ({"values": np.zeros((4, 52))}, "(N, 70)"),
        ({"values": np.full((4, 70), np.nan)}, "frame 0"),
        ({"regions": {"lip": 1.0}}, "lips"),
        ({"regions": {"lips": 2.0}}, "regions['lips'] in [0, 1]"),
        ({"start_seconds": -1.0}, "start_seconds in"),
        ({"weights": np.zeros(3)}, "weights as (4,)"),
    ],
)
def test_what_is_no_performance_is_refused(wrong, message):
    with pytest.raises(ValueError) as caught:
        Performance(**({"values": np.zeros((4, 70))} | wrong))
    assert message in str(caught.value)
