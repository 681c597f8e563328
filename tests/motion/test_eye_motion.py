"""Eyes: blinks and saccades of a seeded, causal process."""

import numpy as np

from ditto.motion.eyes import BLINK, REFRACTORY, eye_keypoints, hold_gaze, initial_eyes, step_eyes
from ditto.motion.motion import TEMPLATE_APERTURE

MINUTE = 25 * 60


def blink_starts(eyes):
    shut = eyes[:, 0] < 1.0
    return np.flatnonzero(shut & ~np.concatenate([[False], shut[:-1]]))


def test_any_chunking_gives_the_same_eyes():
    pausing = np.random.default_rng(0).random(300)
    whole, end = step_eyes(initial_eyes(), pausing, seed=7)
    state, parts = initial_eyes(), []
    for start in range(0, 300, 7):
        part, state = step_eyes(state, pausing[start : start + 7], seed=7)
        parts.append(part)
    assert np.array_equal(np.concatenate(parts), whole)
    assert state == end


def test_eyes_are_causal():
    a, b = np.zeros(200), np.zeros(200)
    b[100:] = 1.0
    assert np.array_equal(step_eyes(initial_eyes(), a, 3)[0][:100], step_eyes(initial_eyes(), b, 3)[0][:100])


def test_seeds_differ():
    pausing = np.full(500, 0.3)
    assert not np.array_equal(step_eyes(initial_eyes(), pausing, 1)[0], step_eyes(initial_eyes(), pausing, 2)[0])


def test_talkers_blink_20_to_32_times_a_minute():
    for seed in range(4):
        eyes, _ = step_eyes(initial_eyes(), np.full(8 * MINUTE, 0.2), seed)
        assert 20 <= len(blink_starts(eyes)) / 8 <= 32


def test_blinks_are_likelier_in_pauses():
    speaking = len(blink_starts(step_eyes(initial_eyes(), np.zeros(10 * MINUTE), 5)[0]))
    pausing = len(blink_starts(step_eyes(initial_eyes(), np.ones(10 * MINUTE), 5)[0]))
    assert pausing > 1.5 * speaking


def test_a_blink_shuts_the_eyes_and_is_followed_by_rest():
    eyes, _ = step_eyes(initial_eyes(), np.ones(4 * MINUTE), 2)
    shut = int(np.argmin(BLINK))
    assert BLINK[shut] == 0.0 and 0.1 < BLINK[0] < 1.0
    assert (np.diff(BLINK[: shut + 1]) < 0.0).all() and (np.diff(BLINK[shut:]) > 0.0).all()
    assert np.diff(blink_starts(eyes)).min() >= len(BLINK) + REFRACTORY


def test_blinks_last_as_long_as_real_ones():
    eyes, _ = step_eyes(initial_eyes(), np.full(4 * MINUTE, 0.3), 2)
    half = np.flatnonzero(np.diff(np.r_[0, eyes[:, 0] < 0.5 * np.percentile(eyes[:, 0], 70), 0]))
    assert 80.0 <= 40.0 * np.mean(half[1::2] - half[::2]) <= 120.0  # real: 87 to 96 ms


def test_gaze_comes_back_to_the_camera():
    eyes, _ = step_eyes(initial_eyes(), np.zeros(10 * MINUTE), 4)
    size = np.hypot(eyes[:, 2], eyes[:, 4])
    assert 0.4 < (size < 1e-3).mean() < 0.8
    assert size.max() < 0.09


def test_shut_eyes_lower_the_lids_by_the_templates_aperture():
    eyes = np.zeros((1, 8), np.float32)
    assert np.allclose(eye_keypoints(eyes)[13][0], [0.0, TEMPLATE_APERTURE, 0.0])
    eyes[:, :2] = 1.0
    assert all(np.allclose(change, 0.0) for change in eye_keypoints(eyes).values())


def test_the_iris_turns_against_the_head():
    turned, nodded = hold_gaze([[0.0, 20.0, 0.0], [20.0, 0.0, 0.0]])
    assert turned[0] > 0.0 and turned[1] == 0.0  # positive yaw carries the nose towards smaller x
    assert nodded[1] < 0.0 and nodded[0] == 0.0  # positive pitch carries it down
