"""Timelines in sessions: they begin when they are given, take the place of each other without a jump, and refuse nonsense."""

import numpy as np
import pytest

import ditto
from ditto.controls import Controls
from ditto.controls.timeline import Timeline
from ditto.live.cue import MOST_TOPS, Cue, Cues, next_cue
from ditto.motion.motion import EXPRESSION, KEYPOINTS, Keypoint
from ditto.performer import Capability

BROW = Timeline().key("left_brow.y", (0, 0), (0.2, -0.03, "linear"))


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite")


def test_a_timeline_counts_from_its_first_frame():
    cue = next_cue(None, BROW, 100, 0.4, None)
    assert cue.values(100) == {}
    assert cue.values(105)["left_brow.y"] == -0.03
    assert cue.at(105).controls == Controls(keypoints={"left_brow": (0, -0.03, 0)})


def test_a_timeline_that_begins_elsewhere_is_gone_over_to():
    cue = next_cue(None, Timeline().layer({"head.yaw": 40, "style": 2}), 10, 0.2, None)
    assert 0 < cue.values(10)["head.yaw"] < 5 and cue.values(15) == {"head.yaw": 40, "style": 2}


def test_one_takes_the_place_of_another_without_a_jump():
    before = Cue(Timeline().layer({"head.yaw": 10, "gain.mouth": 0.5}))
    after = next_cue(before, Timeline().layer({"head.yaw": -10}), 50, 0.4, None)
    path = [after.values(frame).get("head.yaw", 0) for frame in range(50, 75)]
    assert 5 < path[0] < 10 and path[10:] == [-10] * 15
    assert np.abs(np.diff([10, *path])).max() < 5
    gains = [after.values(frame).get("gain.mouth", 1) for frame in range(50, 62)]
    assert 0.5 < gains[0] < 0.6 and gains[-1] == 1


def test_an_empty_timeline_fades_an_earlier_one_out():
    after = next_cue(next_cue(None, BROW, 0, 0, None), Timeline(), 50, 0.4, None)
    path = np.array([after.values(frame).get("left_brow.y", 0) for frame in range(50, 70)])
    assert path[0] < -0.025 and np.all(np.diff(path) >= 0) and not path[10:].any()


def test_a_function_is_taken_over_too():
    cues = Cues.start(lambda frame: Controls(yaw_degrees=8), None)
    assert cues.at(3)[0].controls == Controls(yaw_degrees=8)
    assert 4 < cues.begin(Timeline(), 10, 0.4, None, on_top=False).main.values(10)["head.yaw"] < 8
    assert cues.without_function() == Cues.start(None, None) == Cues.start(Controls(zoom=1.1), None) == Cues()


def test_a_wink_on_top_leaves_the_timeline_below_and_goes_when_it_is_over():
    cues = Cues.start(Timeline().layer({"head.yaw": 10}), None)
    both = cues.begin(Timeline().wink("left", at=0), 100, 0.4, None, on_top=True)
    turned, winking = (moment.controls for moment in both.at(104))
    assert turned == Controls(yaw_degrees=10) and winking.lids[1] > 0.9 and winking.lids[0] == 0
    again = both.begin(Timeline().blink(at=0), 120, 0.4, None, on_top=True)
    assert len(again.tops) == 1 and again.main is cues.main
    endless = Timeline().layer({"jawOpen": 0.1})
    for _ in range(MOST_TOPS - 1):
        again = again.begin(endless, 120, 0, None, on_top=True)
    with pytest.raises(ValueError, match="at most 16 timelines on top"):
        again.begin(endless, 120, 0, None, on_top=True)
    assert len(again.begin(endless, 200, 0, None, on_top=True).tops) == MOST_TOPS


def brow(frame):
    return float(frame.motion.values[EXPRESSION].reshape(KEYPOINTS, 3)[Keypoint.LEFT_BROW, 1])


def test_a_session_shows_its_timeline_and_one_that_is_given_now(head, portrait):
    with head.blocking_session(portrait, any_speed=True) as plain:
        rest = [brow(plain.get()) for _ in range(20)]
    with head.blocking_session(portrait, any_speed=True, controls=Timeline().layer({"left_brow.y": -0.03})) as session:
        shown = [brow(session.get()) for _ in range(2)]
        assert all(there - here > 0.02 for there, here in zip(rest, shown, strict=False))
        session.control(timeline=Timeline().layer({"left_brow.y": 0.02}), ramp_seconds=0.2)
        shown = [brow(session.get()) for _ in range(18)]
        assert shown[-1] - rest[-1] > 0.012
        assert np.abs(np.diff(shown)).max() < 0.02
        with pytest.raises(TypeError, match="expected timeline as a Timeline, got dict"):
            session.control(timeline={"timeline": 1})


def test_what_a_performer_cannot_do_is_refused(head, portrait):
    from ditto.live.settings import Settings

    class Mute:
        latencies, supports = ("low",), frozenset({Capability.CONTROLS, Capability.IDLE})

    Settings(controls=BROW).check(Mute)
    for name, what in (("emotion.happy", "emotion"), ("style", "style")):
        with pytest.raises(ValueError, match=f"does not support {what}"):
            Settings(controls=Timeline().layer({name: 0.5})).check(Mute)
    with pytest.raises(TypeError, match=r"Controls\(\.\.\.\), a Timeline or a function"):
        Settings(controls={"head.yaw": 3})
