"""Ramps: smooth from wherever they are, exact at the end, refused before anything changes."""

import numpy as np
import pytest

from ditto.controls import Controls
from ditto.controls.ramps import Ramps
from ditto.motion.emotion import EMOTIONS, emotion_vector
from ditto.motion.style import STYLES

HAPPY = EMOTIONS.index("happy")


def yaws(ramps, frames):
    return np.array([ramps.at(k)[1].yaw_degrees for k in frames])


def test_it_begins_as_it_was_asked_to():
    controls = Controls(zoom=1.2)
    emotion, same, style = Ramps.start({"happy": 0.6}, controls, "calm").at(0)
    assert same == controls and style == STYLES["calm"]
    assert np.array_equal(emotion, emotion_vector({"happy": 0.6}))


def test_a_value_goes_smoothly_from_here_to_there_and_arrives_exactly():
    ramps = Ramps.start().set(10, 0.4, head=(0, 3, 0))
    path = yaws(ramps, range(5, 25))
    assert np.all(path[:5] == 0.0) and 0.0 < path[5] < 0.1
    assert np.all(np.diff(path) >= 0.0) and np.diff(path).max() < 0.6
    assert np.all(path[14:] == 3.0)


def test_at_once_is_at_once():
    ramps = Ramps.start().set(10, 0.0, head=(0, 3, 0))
    assert yaws(ramps, (9, 10)).tolist() == [0.0, 3.0]


def test_set_again_on_its_way_it_keeps_place_and_speed():
    ramps = Ramps.start().set(0, 1.0, head=(0, 10, 0))
    path = np.array([*yaws(ramps, range(12)), *yaws(ramps.set(12, 1.0, head=(0, -10, 0)), range(12, 45))])
    assert np.abs(np.diff(path, 2)).max() < 0.3
    assert path[-1] == -10.0


def test_what_is_not_named_goes_on():
    ramps = Ramps.start().set(0, 1.0, head=(0, 10, 0))
    other = ramps.set(6, 0.2, emotion={"happy": 1.0}, gaze=(5, 0))
    assert np.array_equal(yaws(ramps, range(6, 40)), yaws(other, range(6, 40)))


def test_weights_sum_to_one_all_the_way():
    ramps = Ramps.start({"sad": 1.0}).set(0, 0.3, emotion={"happy": 1.0}).set(3, 0.3, emotion={"angry": 0.5})
    weights = np.array([ramps.at(k)[0] for k in range(15)])
    assert np.allclose(weights.sum(1), 1.0, atol=1e-6) and weights.min() >= 0.0
    assert np.array_equal(weights[-1], emotion_vector({"angry": 0.5}))


def test_gaze_and_head_are_numbers_of_the_controls():
    _, controls, _ = Ramps.start(controls=Controls(zoom=1.1)).set(0, 0.0, gaze=(10, -5), head=(1, 2, 3)).at(0)
    assert controls == Controls(zoom=1.1, gaze=(10, -5), pitch_degrees=1, yaw_degrees=2, roll_degrees=3)


def test_numbers_go_over_by_name_and_leave_the_others():
    ramps = Ramps.start({"happy": 0.5}, Controls(zoom=1.1)).set(3, 0.4, names={"left_brow.y": -0.02, "emotion.sad": 0.25})
    assert ramps.at(2)[1] == Controls(zoom=1.1)
    assert -0.02 < ramps.at(6)[1].keypoints["left_brow"][1] < 0.0
    emotion, controls, _ = ramps.at(20)
    assert controls == Controls(zoom=1.1, keypoints={"left_brow": (0, -0.02, 0)})
    assert np.array_equal(emotion, emotion_vector({"happy": 0.5, "sad": 0.25}))


def test_a_pose_to_hold_is_reached_by_its_share_alone_and_left_again():
    ramps = Ramps.start().set(0, 0.4, names={"pose.yaw": 20.0})
    path = [ramps.at(k)[1] for k in range(12)]
    assert all(c.pose == (0.0, 20.0, 0.0) for c in path)
    assert np.all(np.diff([c.pose_hold for c in path[:10]]) > 0.0) and path[-1].pose_hold == 1.0
    left = ramps.set(20, 0.4, names={"pose.hold": 0.0})
    assert 0.0 < left.at(24)[1].pose_hold < 1.0 and left.at(40)[1].is_neutral


def test_controls_go_over_field_by_field_and_frozen_regions_switch():
    end = Controls(gains={"mouth": 2.0}, keypoints={"left_brow": (0, -0.02, 0)}, zoom=1.2, freeze=("lids",))
    ramps = Ramps.start().set(0, 0.4, controls=end)
    _, half, _ = ramps.at(4)
    assert 1.4 < half.gains["mouth"] < 1.6 and set(half.gains) == {"mouth"}
    assert np.allclose(half.keypoints["left_brow"], (0, -0.01, 0)) and set(half.keypoints) == {"left_brow"}
    assert 1.09 < half.zoom < 1.11 and half.freeze == ("lids",)
    assert ramps.at(9)[1] == end


def test_a_style_is_ramped_and_leaves_the_rest_alone():
    ramps = Ramps.start({"happy": 0.5}, Controls(zoom=1.1)).set(5, 0.4, style="calm")
    path = np.array([ramps.at(k)[2] for k in range(20)])
    assert np.all(path[:5] == 1.0) and np.all(path[14:] == STYLES["calm"])
    assert np.all(np.diff(path[4:15]) < 0.0) and np.diff(path).min() > -0.15
    for k in (0, 8, 19):
        np.testing.assert_array_equal(ramps.at(k)[0], emotion_vector({"happy": 0.5}))
        assert ramps.at(k)[1].zoom == 1.1
    gazing = ramps.set(8, 0.2, gaze=(5, 0))
    assert [gazing.at(k)[2] for k in range(20)] == path.tolist()


def test_a_quick_return_at_the_limit_stays_within_it():
    ramps = Ramps.start().set(0, 0.2, head=(0, 45, 0)).set(3, 2.0, head=(0, 44, 0))
    assert yaws(ramps, range(60)).max() <= 45.0


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ({"emotion": {"joyful": 1.0}}, ValueError, "expected an emotion of"),
        ({"emotion": {"happy": 1.2}}, ValueError, "expected the weight"),
        ({"emotion": "happy"}, TypeError, "weights by name"),
        ({"gaze": (40, 0)}, ValueError, "expected gaze in degrees in"),
        ({"gaze": (1, 2, 3)}, ValueError, "expected gaze as 2 numbers"),
        ({"gaze": 3}, TypeError, "expected gaze as 2 numbers"),
        ({"head": (0, float("nan"), 0)}, ValueError, "expected head in degrees in"),
        ({"head": (0, 0)}, ValueError, "expected head as 3 numbers"),
        ({"names": {"emotion.happy": 0.6}, "emotion": {"sad": 0.6}}, ValueError, "sum to at most 1"),
        ({"names": {"left_brow": 0.1}}, ValueError, "left_brow"),
        ({"names": {"head.yaw": 60.0}}, ValueError, "expected head.yaw in"),
        ({"controls": {"zoom": 1}}, TypeError, "Controls"),
        ({"ramp_seconds": -1.0}, ValueError, "expected ramp_seconds in"),
        ({"style": "wild"}, ValueError, "expected a style of calm, natural, lively"),
        ({"style": 3.0}, ValueError, "or a number in"),
        ({"style": (1,)}, TypeError, "got tuple"),
        ({"volume": 3}, TypeError, "volume"),
    ],
)
def test_what_cannot_be_is_refused(what, error, words):
    with pytest.raises(error, match=words):
        Ramps.start().set(0, **what)
