"""Timelines: what layers, eases and events give at a time, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ditto.controls import Controls
from ditto.controls.catalog import CATALOG
from ditto.controls.timeline import (
    EASES,
    FADE_SECONDS,
    HEAD_DEGREES,
    HEAD_SHARE,
    WINK,
    KeyframeError,
    Timeline,
    View,
)
from ditto.motion.emotion import EMOTIONS, emotion_vector
from ditto.motion.eyes import BLINK
from ditto.motion.motion import FPS, euler_degrees


def path(timeline, name, seconds):
    neutral = CATALOG[name].neutral
    return np.array([timeline.values(time).get(name, neutral) for time in seconds])


def test_an_empty_timeline_changes_nothing():
    moment = Timeline().at(1.0)
    assert moment.controls == Controls() and moment.emotion is None and moment.style is None


@pytest.mark.parametrize("ease", EASES)
def test_keyframes_are_met_and_values_hold_outside(ease):
    timeline = Timeline().key("head.yaw", (1, 2), (1.5, 8, ease), (3, -4, ease))
    assert path(timeline, "head.yaw", [-1, 0, 1, 1.5, 3, 9]).tolist() == pytest.approx([2, 2, 2, 8, -4, -4])


@pytest.mark.parametrize(("ease", "smoothness"), [("smooth", 1), ("spring", 1), ("linear", 0)])
def test_eases_have_no_jump_and_smooth_ones_no_kink(ease, smoothness):
    step = 1e-3
    values = path(Timeline().key("head.yaw", (1, 0), (2, 10, ease)), "head.yaw", np.arange(0.5, 2.5, step))
    assert np.abs(np.diff(values)).max() < 0.06
    kink = np.abs(np.diff(values, 2)).max() / step
    assert (kink < 1.0) == (smoothness == 1)


def test_step_waits_for_its_keyframe_and_spring_overshoots_once():
    assert path(Timeline().key("head.yaw", (1, 0), (2, 10, "step")), "head.yaw", [1.0, 1.99, 2.0]).tolist() == [
        0,
        0,
        10,
    ]
    values = path(Timeline().key("head.yaw", (1, 0), (2, 10, "spring")), "head.yaw", np.linspace(1, 2, 501))
    assert 11.0 < values.max() < 11.4
    assert np.count_nonzero(np.diff(np.sign(np.diff(values)))) == 1


def test_a_range_acts_inside_alone_and_fades():
    timeline = Timeline().layer({"left_brow.y": -0.03}, start=1, end=2)
    values = path(timeline, "left_brow.y", np.arange(75) / FPS)
    assert not values[:26].any() and not values[50:].any()
    assert np.all(values[30:45] == -0.03)
    assert np.abs(np.diff(values)).max() < 0.5 * 0.03
    short = Timeline().layer({"left_brow.y": -0.03}, start=3.2, end=3.4)
    assert short.layers[0].fade == pytest.approx((0.1, 0.1)) and FADE_SECONDS > 0.1


def test_layers_add_replace_and_multiply_in_order():
    base = Timeline().layer({"head.yaw": 10, "gain.mouth": 1.5})
    assert base.layer({"head.yaw": 5, "gain.mouth": 1.2}).values(0) == {
        "head.yaw": 15,
        "gain.mouth": pytest.approx(1.7),
    }
    assert base.layer({"head.yaw": 5}, mode="replace").values(0)["head.yaw"] == 5
    assert base.layer({"head.yaw": 0.5, "gain.mouth": 0}, mode="multiply").values(0) == {"head.yaw": 5, "gain.mouth": 0}
    assert base.layer({"head.yaw": 0}, mode="replace", start=1, end=3, fade=1).values(1.5)["head.yaw"] == pytest.approx(
        5
    )


def test_sums_stay_within_the_range_of_their_control():
    timeline = Timeline().layer({"head.yaw": 40}).layer({"head.yaw": 40}).blink(0).wink("left", 0)
    for frame in range(12):
        values = timeline.values(frame / FPS)
        assert values["head.yaw"] == CATALOG["head.yaw"].high
        assert 0 < values["lids.left"] <= 1


def test_a_pose_without_a_hold_is_held_as_far_as_the_layer_acts():
    timeline = Timeline().layer({"pose.yaw": 8}, start=1, end=2)
    assert timeline.at(0).controls.is_neutral
    assert 0 < timeline.at(1.1).controls.pose_hold < 1
    assert timeline.at(1.5).controls == Controls(pose=(0, 8, 0), pose_hold=1)
    turned = Timeline().layer({"pose.yaw": 8, "pose.hold": [(0, 0), (1, 1)]})
    assert turned.at(0).controls.is_neutral and turned.at(0.5).controls.pose_hold == 0.5


def test_blinks_and_winks_close_the_lids_of_their_eyes():
    frames = np.arange(60) / FPS
    timeline = Timeline().blink(1.0).wink("left", 1.6)
    right, left = path(timeline, "lids.right", frames), path(timeline, "lids.left", frames)
    np.testing.assert_allclose(right[25 : 25 + len(BLINK)], 1 - np.array(BLINK), atol=1e-9)
    np.testing.assert_allclose(left[40 : 40 + len(WINK)], 1 - np.array(WINK), atol=1e-9)
    assert not right[35:].any() and not left[:25].any()


def test_a_look_leads_with_the_eyes_and_the_head_follows():
    view = View((4.0, 4.0), (0.5, 0.5))
    right, down = view.degrees((1.5, 0.75))
    assert right == pytest.approx(45.0) and 0 < down < 20
    timeline = Timeline().look((1.5, 0.75), at=1, until=3)
    early, late, after = (timeline.values(time, view) for time in (1.1, 2.5, 5.0))
    assert early["gaze.right"] > 25 and abs(early.get("head.yaw", 0)) < 1
    assert late["head.yaw"] == -HEAD_DEGREES and late["head.pitch"] == pytest.approx(HEAD_SHARE * down)
    assert late["gaze.right"] == pytest.approx(30.0)
    assert late["gaze.down"] + late["head.pitch"] == pytest.approx(down)
    assert after == {} or max(map(abs, after.values())) < 1e-9
    assert timeline.values(0.9, view) == {}


def test_a_head_that_is_turned_already_turns_less_and_the_eyes_do_the_rest():
    turned = View((4.0, 4.0), (0.5, 0.5), (10.0, 0.0))
    towards, away = (Timeline().look((x, 0.5), at=0).values(3, turned) for x in (1.5, -0.5))
    assert towards["head.yaw"] == -5.0 and away["head.yaw"] == HEAD_DEGREES
    far = Timeline().look((1.5, 0.5), at=0).values(3, turned._replace(nose=(20.0, 0.0)))
    assert far.get("head.yaw", 0) == 0 and far["gaze.right"] == 30.0


def test_a_look_moves_without_a_jump_even_from_one_point_to_another():
    timeline = Timeline().look((1.2, 0.2), at=1, until=1.3).look((-0.4, 0.8), at=1.3, until=2)
    for name, most in (("head.yaw", 4), ("head.pitch", 4), ("gaze.right", 40), ("gaze.down", 40)):
        values = path(timeline, name, np.arange(0, 4, 0.01))
        assert np.abs(values).max() > 1
        assert np.abs(np.diff(values)).max() < 0.4 * most
        assert abs(values[-1]) < 1e-9


def test_a_look_and_eye_contact_agree_on_where_the_eyes_aim():
    held = Timeline().layer({"gaze.contact": 1, "head.yaw": 10}).look((0.9, 0.5), at=0)
    free = Timeline().look((0.9, 0.5), at=0)
    values, alone = held.values(3), free.values(3)
    assert values["gaze.right"] == pytest.approx(
        alone["gaze.right"] - alone["head.yaw"]
    )  # all of it against the camera
    assert values["head.yaw"] == pytest.approx(10 + alone["head.yaw"])


def test_the_view_of_a_portrait_is_where_its_eyes_are(portrait):
    view = View.of(portrait)
    assert 0.3 < view.eyes[0] < 0.7 and 0.1 < view.eyes[1] < 0.7
    assert view.degrees(view.eyes) == pytest.approx((0, 0))
    assert 1 < view.size[0] < 6
    pitch, yaw, _ = euler_degrees(portrait.rotation)
    assert view.nose == pytest.approx((-yaw, pitch))


def test_emotions_take_the_place_of_a_share_of_the_emotion_so_far():
    timeline = Timeline().key("emotion.sad", (0, 0), (1, 0.5)).key("style", (0, 1), (1, 0.5))
    happy = emotion_vector({"happy": 0.8})
    emotion, style = timeline.at(0).mixed(happy, 1.2)
    np.testing.assert_array_equal(emotion, happy)
    emotion, style = timeline.at(1).mixed(happy, 1.2)
    assert emotion[EMOTIONS.index("sad")] == pytest.approx(0.5) and emotion[EMOTIONS.index("happy")] == pytest.approx(
        0.4
    )
    assert emotion.sum() == pytest.approx(1.0) and style == pytest.approx(0.6)


def test_emotions_of_more_than_one_in_all_are_scaled_down():
    moment = Timeline().layer({"emotion.sad": 0.9, "emotion.angry": 0.9}).at(0)
    assert moment.emotion.sum() == pytest.approx(1.0)


def test_equal_timelines_are_equal_and_have_one_hash():
    def made():
        return Timeline().key("head.yaw", (0, 1), (1, 2)).blink(3).look((0.1, 0.2), at=4)

    assert made() == made() and hash(made()) == hash(made())
    assert made() != made().blink(5)


def test_a_timeline_is_over_when_it_changes_nothing_any_more():
    timeline = Timeline().layer({"jawOpen": 0.4}, end=1).blink(0.9).look((1, 1), at=1, until=2)
    seconds = np.arange(0, 5, 0.04)
    over = np.array([timeline.is_over(time) for time in seconds])
    changing = np.array([any(abs(v) > 1e-9 for v in timeline.values(time).values()) for time in seconds])
    assert not (over & changing).any() and 2 < seconds[over][0] < 3 and over[-1]
    assert Timeline().is_over(0) and not Timeline().layer({"jawOpen": 0.4}).is_over(1e6)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(shift=st.integers(-50, 50), time=st.integers(0, 100))
def test_a_shifted_timeline_gives_the_same_later(shift, time):
    timeline = (
        Timeline().key("head.yaw", (0, 1), (1, 2, "spring")).layer({"jawOpen": 0.4}, start=1, end=2).look((1, 1), at=1)
    )
    moved = timeline.shifted(shift / 4)
    for name, value in timeline.values(time / 4).items():
        assert moved.values((time + shift) / 4)[name] == pytest.approx(value)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Timeline().key("head.jaw", (0, 1)), ValueError, "did you mean head.yaw"),
        (lambda: Timeline().key("head.yaw", (0, 99)), KeyframeError, r"head.yaw\[0\] in \[-45, 45\], got 99"),
        (lambda: Timeline().key("head.yaw", (0, float("nan"))), KeyframeError, "finite"),
        (lambda: Timeline().key("head.yaw", (1, 1), (1, 2)), KeyframeError, "ascend in time"),
        (lambda: Timeline().key("head.yaw", (1, 1), (0, 2)), KeyframeError, "ascend in time"),
        (lambda: Timeline().key("head.yaw", (1, 1, "bounce")), KeyframeError, "smooth, linear, step, spring"),
        (lambda: Timeline().key("head.yaw", (1,)), KeyframeError, "expected a keyframe"),
        (lambda: Timeline().key("head.yaw", (1, True)), KeyframeError, "a number, got True"),
        (lambda: Timeline().key("head.yaw"), ValueError, "at least one keyframe"),
        (lambda: Timeline().layer({"head.yaw": "8"}), TypeError, "a number or a list of keyframes"),
        (lambda: Timeline().layer({"head.yaw": True}), TypeError, "to be a number, got True"),
        (lambda: Timeline().layer({"head.yaw": 10**400}), ValueError, "finite"),
        (lambda: Timeline().layer({"head.yaw": 5}, fade=-1), ValueError, "a fade in"),
        (lambda: Timeline().layer({"head.yaw": 5}, mode="multiply"), KeyframeError, r"in \[0, 4\]"),
        (lambda: Timeline().layer({"head.yaw": 5}, mode="mix"), ValueError, "add, replace, multiply"),
        (lambda: Timeline().layer({"head.yaw": 5}, start=2, end=1), ValueError, "start before its end"),
        (lambda: Timeline().layer({"head.yaw": 5}, start=1, end=2, fade=0.6), ValueError, "fades no longer"),
        (lambda: Timeline().layer({"head.yaw": 5}, start=1, fade="long"), TypeError, "a fade in seconds"),
        (lambda: Timeline().layer({"head.yaw": 5}, start=float("inf")), ValueError, "start of a layer"),
        (lambda: Timeline().wink("up", 1), ValueError, "wink.right, wink.left"),
        (lambda: Timeline().blinks(90, until=3), ValueError, "blinks a minute"),
        (lambda: Timeline().blink(10**400), ValueError, "the time of a blink"),
        (lambda: Timeline().look((0.1, 20), at=1), ValueError, "y of the point"),
        (lambda: Timeline().look((0.1,), at=1), ValueError, r"a point \(x, y\)"),
        (lambda: Timeline().look((0.1, 0.1), at=1, until=1), ValueError, "end after 1 s"),
        (lambda: Timeline().look((0, 0), at=1).look((1, 1), at=2), ValueError, "one look at a time"),
        (lambda: Timeline() + 3, TypeError, "unsupported operand"),
    ],
)
def test_what_cannot_be_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("rate", [6.0, 20.0, 45.0])
def test_blinks_come_at_the_rate_that_is_asked_for_and_in_place_of_the_others(rate):
    edit = Timeline().blinks(rate, until=600.0, start=2.0, seed=4)
    times = np.array([event.at for event in edit.events])
    expected = rate * 598.0 / 60.0
    assert abs(len(times) - expected) < 3.0 * np.sqrt(expected)  # three standard deviations of a Poisson process
    assert times.min() > 2.0 and np.diff(times).min() > 0.8
    assert edit == Timeline().blinks(rate, until=600.0, start=2.0, seed=4)
    assert edit.at(1.9).controls.is_neutral and edit.at(5.0).controls.gains == {"blinks": 0.0}
    shut = edit.at(times[0] + BLINK.index(0.0) / 25).controls
    assert shut.lids == pytest.approx((1.0, 1.0)) and shut.gains == {"blinks": 0.0}


def test_no_blinks_at_all():
    assert Timeline().blinks(0, until=10.0).events == ()


def test_what_a_recording_never_shows_is_refused():
    seen = Timeline().key("head.yaw", (-1, 1), (3.9, 2)).blink(1).wink("left", -0.2).look((0, 0), -1, 0.5)
    seen.layer({"head.yaw": 1}, start=-2, end=1).check_within(4.0)
    for fault, place, limit in (
        (Timeline().key("head.yaw", (0, 1), (4.5, 2)), r"layers\[0\].controls.head.yaw\[1\]", "ends at 4.00 s, got 4.5"),
        (Timeline().blink(5), r"events\[0\].at", "ends at 4.00 s, got 5"),
        (Timeline().layer({"head.yaw": 1}, start=6), r"layers\[0\].start", "ends at 4.00 s, got 6"),
        (Timeline().blink(-3), r"events\[0\].at", "begins at 0 s, got -3"),
        (Timeline().look((0, 0), -3, 0), r"events\[0\].until", "begins at 0 s, got 0"),
        (Timeline().layer({"head.yaw": 1}, end=-1), r"layers\[0\].end", "begins at 0 s, got -1"),
    ):
        with pytest.raises(ValueError, match=f"{place}: expected a time within the recording, which {limit}"):
            fault.check_within(4.0)
