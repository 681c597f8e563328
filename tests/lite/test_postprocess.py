"""Postprocessing of motion: lip closure, blink shaping, opening normalisation."""

import numpy as np
import pytest

from ditto.lite.latency import LOOKAHEAD, LOOKBACK
from ditto.lite.phones import PHONE_INDEX
from ditto.lite.postprocess import (
    CLOSING_SPEED,
    OPENING_SPEED,
    PRESS_GAP,
    TUCK_GAP,
    UNFORESEEN_CLOSING_SPEED,
    Rest,
    close_lips,
    limit_closing_speed,
    normalise_opening,
    shape_blinks,
    to_camera_frame,
)
from ditto.motion.motion import (
    EXPRESSION,
    KEYPOINTS,
    MOTION_SIZE,
    TEMPLATE_APERTURE,
    Keypoint,
    rotation_matrix,
)

TARGET = 0.082  # fu
SPEAKING = Rest(0, 0.0)


def phones_of(*names):
    """(n, 2, 40) sure phones; the first name stands for all frames before those that change."""
    names = (names[0],) * (LOOKBACK - 1) + names
    return np.repeat(np.eye(40)[[PHONE_INDEX[n] for n in names]][:, None], 2, 1)


def open_mouth(frames, gap=0.08):
    motion = np.zeros((frames, MOTION_SIZE), np.float32)
    motion[:, EXPRESSION].reshape(frames, KEYPOINTS, 3)[:, Keypoint.LOWER_INNER_LIP, 1] = gap
    return motion


def gap_of(motion):
    points = motion[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)
    return points[:, Keypoint.LOWER_INNER_LIP, 1] - points[:, Keypoint.UPPER_INNER_LIP, 1]


def test_lips_close_on_bilabials_and_stay_open_on_vowels():
    phones = phones_of("AA", "AA", "AA", "M", "AA", "AA", *["AA"] * LOOKAHEAD)
    gap = gap_of(close_lips(open_mouth(5), phones, SPEAKING)[0])
    assert gap[2] <= 0.0
    assert gap[0] == pytest.approx(0.08) and gap[4] == pytest.approx(0.08)


def test_wide_open_lips_close_over_frames_not_at_once():
    phones = phones_of(*["AA"] * 5, "M", *["AA"] * (4 + LOOKAHEAD))
    gap = gap_of(close_lips(open_mouth(9, 0.17), phones, SPEAKING)[0])
    assert gap[4] == pytest.approx(PRESS_GAP, abs=1e-6)
    assert np.diff(gap[2:5]) == pytest.approx([-CLOSING_SPEED] * 2, abs=1e-6)
    assert np.diff(gap[4:7]) == pytest.approx([OPENING_SPEED] * 2, abs=1e-6)


def test_without_lookahead_lips_take_two_frames_to_close():
    phones = phones_of("AA", "M", "M")
    shut, _ = close_lips(open_mouth(2, 0.1), phones, SPEAKING, 0)
    assert gap_of(shut) == pytest.approx([PRESS_GAP] * 2, abs=1e-6)
    slow, last = limit_closing_speed(shut, 0.1)
    assert gap_of(slow) == pytest.approx([0.1 - UNFORESEEN_CLOSING_SPEED, PRESS_GAP], abs=1e-6) and last == gap_of(slow)[-1]
    first, gap = limit_closing_speed(shut[:1], 0.1)
    assert np.array_equal(np.concatenate([first, limit_closing_speed(shut[1:], gap)[0]]), slow)
    opening = open_mouth(2, 0.1)
    assert np.array_equal(limit_closing_speed(opening, 0.0)[0], opening)


def test_a_bilabial_in_one_token_of_a_frame_is_enough():
    phones = phones_of(*["AA"] * (4 + LOOKAHEAD))
    phones[LOOKBACK + 1, 1] = 0.45 * np.eye(40)[0] + 0.55 * np.eye(40)[PHONE_INDEX["B"]]
    assert gap_of(close_lips(open_mouth(3), phones, SPEAKING)[0])[1] <= 0.0


def test_a_weak_bilabial_beside_a_sure_one_closes_too():
    phones = phones_of(*["AA"] * (4 + LOOKAHEAD))
    weak = 0.84 * np.eye(40)[1] + 0.16 * np.eye(40)[PHONE_INDEX["P"]]
    phones[LOOKBACK : LOOKBACK + 2] = weak
    assert (gap_of(close_lips(open_mouth(3), phones, SPEAKING)[0]) > 0.05).all()
    phones[LOOKBACK] = np.eye(40)[PHONE_INDEX["P"]]
    assert (gap_of(close_lips(open_mouth(3), phones, SPEAKING)[0])[:2] < 0.002).all()


def test_quiet_speakers_open_their_lips_as_wide_as_others():
    quiet, loud = open_mouth(1000, 0.06), open_mouth(1000, 0.09)
    speaking = np.zeros(1000)
    a, widest = normalise_opening(quiet, speaking, 0.078, TARGET)
    b, _ = normalise_opening(loud, speaking, 0.078, TARGET)
    assert gap_of(a)[-1] > 1.2 * 0.06
    assert abs(gap_of(a)[-1] - gap_of(b)[-1]) < 0.02
    first, middle = normalise_opening(quiet[:33], speaking[:33], 0.078, TARGET)
    second, end = normalise_opening(quiet[33:], speaking[33:], middle, TARGET)
    assert np.array_equal(np.concatenate([first, second]), a) and end == widest


def test_one_wide_word_leaves_the_size_of_the_others():
    words = np.concatenate([open_mouth(10, 0.05), open_mouth(10, 0.15), open_mouth(10, 0.05)])
    gaps = gap_of(normalise_opening(words, np.zeros(30), 0.09, TARGET)[0])
    assert gaps[-1] == pytest.approx(gaps[0], rel=0.03)


def test_silence_does_not_count_for_the_opening():
    assert normalise_opening(open_mouth(50, 0.0), np.ones(50), 0.078, TARGET)[1] == 0.078


def test_the_lower_lip_meets_the_teeth_on_f():
    phones = phones_of("AA", "AA", "F", "AA", *["AA"] * LOOKAHEAD)
    out, _ = close_lips(open_mouth(3), phones, SPEAKING)
    points = out[:, 7:].reshape(3, 21, 3)
    assert abs(gap_of(out)[1] - TUCK_GAP) < 0.002
    assert points[1, 14, 1] < points[0, 14, 1] - 0.005  # the upper lip lifts off the teeth
    assert out[1, 7 + 3 * 17 + 2] > 0.0


def test_expression_leaves_in_the_camera_frame():
    motion = np.zeros((1, MOTION_SIZE), np.float32)
    motion[0, 1:4] = (5.0, -20.0, 10.0)
    motion[0, 7 + 3 * 19 + 1] = 0.1
    out = to_camera_frame(motion)
    assert np.allclose(out[0, 7 + 57 : 7 + 60], [0.0, 0.1, 0.0] @ rotation_matrix(5.0, -20.0, 10.0), atol=1e-6)


def test_blinks_close_the_lids_whatever_the_network_says():
    eyes = np.ones((3, 8), np.float32)
    eyes[1, :2] = 0.0
    motion = np.zeros((3, 70), np.float32)
    motion[:, 7 + 3 * 13 + 1] = 0.01
    lids = shape_blinks(motion, eyes)[:, 7:].reshape(3, 21, 3)[:, (13, 16), 1]
    assert lids[1] == pytest.approx([TEMPLATE_APERTURE] * 2)
    assert np.array_equal(lids[(0, 2),], np.array([[0.01, 0.0]] * 2, np.float32))
