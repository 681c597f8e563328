"""From one source of motion to another: no jump, the mouth at once where it should be, lips that never cross."""

from pathlib import Path

import numpy as np
import pytest

import ditto
from ditto.lite.postprocess import PRESS_GAP
from ditto.lite.speech_encoder import HOP_SAMPLES
from ditto.media.audio import read_audio
from ditto.media.rates import FPS
from ditto.motion.emotion import emotion_vector
from ditto.motion.idle import idle_frame, initial_idle, resume
from ditto.motion.inertialization import MOUTH_POINTS, SLOW_FRAMES, Inertialization
from ditto.motion.motion import (
    DEGREES,
    EXPRESSION,
    KEYPOINTS,
    MOTION_SIZE,
    TEMPLATE_APERTURE,
    TRANSLATION,
    UPPER_LIDS,
    Keypoint,
    rotation_matrix,
)
from ditto.motion.space import LITE_SPACE
from ditto.portrait.face_mesh import TEMPLATE, keypoints

SPEECH = Path(__file__).parents[2] / "examples" / "speech.flac"
CANONICAL = keypoints(TEMPLATE)
NEUTRAL = emotion_vector(None)


@pytest.fixture(scope="module")
def speech():
    """(100, 70) rows of 4 s of the example."""
    performer = ditto.load("lite").performer
    sampler, state = performer.sampler_for("low"), performer.encoder.initial_state(1)
    hops = read_audio(SPEECH)[: 51 * HOP_SAMPLES].reshape(-1, HOP_SAMPLES)
    features = []
    for hop in hops:
        [(found, state)] = performer.encoder.step_batch([hop], [state])
        features.append(found)
    rows, _ = sampler(np.concatenate(features[1:]), NEUTRAL, sampler.initial_state(CANONICAL, (1.0, 1.0)), final=True)
    return rows


@pytest.fixture(scope="module")
def silence():
    """(1500, 70) rows of a minute of idle."""
    return idled(initial_idle(), 0, 60 * FPS)[0]


def idled(state, seed, frames):
    """(frames, 70) rows of idle, and the state after them."""
    rows = []
    for _ in range(frames):
        values, state = idle_frame(state, seed)
        rows.append(LITE_SPACE.idle_motion(values, None))
    return np.array(rows), state


def head_frame(rows):
    return LITE_SPACE.to_head(rows, None)[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)


def posed(rows):
    """(T, 21, 3) keypoints in the camera's frame, face units."""
    rows = np.asarray(rows, np.float64)
    turn = rotation_matrix(*rows[:, DEGREES].T)
    expression = rows[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)
    return (1.0 + rows[:, :1, None]) * (CANONICAL @ turn + expression) + rows[:, None, TRANSLATION]


def acceleration(rows):
    """Largest second difference of any keypoint, face units per frame squared."""
    return np.linalg.norm(np.diff(posed(rows), 2, axis=0), axis=-1).max()


def gaps(rows):
    points = head_frame(rows)
    return points[:, Keypoint.LOWER_INNER_LIP, 1] - points[:, Keypoint.UPPER_INNER_LIP, 1]


def join(before, after, previous=None):
    """Four rows of the one, and 24 of the other as they are shown after it."""
    switch = Inertialization.between(LITE_SPACE, None, before[-1], before[-2], after[0], previous=previous)
    return np.array([*before[-4:], *(switch.at(k, row) for k, row in enumerate(after[:24]))])


def resumed(shown, seed):
    """What follows a row of speech: 24 rows of idle."""
    _, state = idled(initial_idle(), seed, 40 + seed)
    return idled(resume(state, shown), seed, 24)[0]


def test_switches_are_no_rougher_than_speech(speech, silence):
    bar = 1.5 * acceleration(speech)
    moments = np.random.default_rng(0).integers(30, 1400, len(speech))
    begin = [join(silence[:m], speech) for m in moments[:40]]
    interrupt = [join(speech[:k], resumed(speech[k - 1], k)) for k in range(4, len(speech))]
    go_on = [join(silence[: moments[k]], speech[k:], previous=speech[k - 1]) for k in range(4, len(speech) - 24)]
    for joined in (begin, interrupt, go_on):
        assert max(acceleration(rows) for rows in joined) <= bar
    slow = [0, 1, 2, 4, 5, 10]  # forehead, brows, nose, neck and glabella do not even come near to it
    assert max(np.abs(np.diff(posed(rows)[:, slow], 2, axis=0)).max() for rows in begin + interrupt) < 0.010


def test_the_mouth_rests_in_the_third_frame_after_an_interrupt(speech):
    assert gaps(speech).max() > 0.05
    for k in range(4, len(speech)):
        after = resumed(speech[k - 1], k)
        joined = join(speech[:k], after)[4:]
        assert gaps(joined[2:]).max() <= 0.004
        mouth = list(MOUTH_POINTS)
        assert np.allclose(head_frame(joined)[2:, mouth], head_frame(after)[2:24, mouth], atol=1e-6)


def test_lips_never_cross(speech, silence):
    for k in range(4, len(speech) - 24):
        shutting = join(speech[:k], resumed(speech[k - 1], k))[4:]
        assert gaps(shutting).min() >= min(gaps(speech[k - 1 : k])[0], PRESS_GAP) - 1e-6
        opening = join(silence[:k], speech[k:], previous=speech[k - 1])[4:]
        assert (gaps(opening) >= np.minimum(gaps(speech[k : k + 24]), PRESS_GAP) - 1e-6).all()


def test_an_eye_that_is_shutting_goes_on_and_opens_again(speech, silence):
    lids = head_frame(silence)[:, UPPER_LIDS, 1].mean(1)
    start = int(np.flatnonzero((lids[1:] > 0.03) & (lids[:-1] < 0.03) & (np.diff(lids) > 0.0))[0]) + 1
    path = head_frame(join(silence[: start + 1], speech))[3:, UPPER_LIDS, 1].mean(1)
    assert path.max() <= TEMPLATE_APERTURE + 1e-6
    assert path[1] > path[0] - 0.005 and path[6] < 0.02
    assert np.abs(np.diff(path)).max() < 0.6 * TEMPLATE_APERTURE


def test_afterwards_rows_are_the_new_sources_bit_for_bit(speech, silence):
    switch = Inertialization.between(LITE_SPACE, None, silence[50], silence[49], speech[0])
    first = next(k for k in range(60) if switch.done(k))
    assert first <= SLOW_FRAMES
    assert all(np.array_equal(switch.at(k, speech[k]), speech[k]) for k in range(first, 60))
    assert not np.array_equal(switch.at(first - 1, speech[first - 1]), speech[first - 1])


def test_a_source_that_is_on_its_way_is_met_at_its_speed(speech, silence):
    def jolt(known):
        joined = (join(silence[:50], speech[k:], speech[k - 1] if known else None) for k in range(30, 76))
        return np.mean([np.abs(np.diff(rows[3:6, 1:4], 2, axis=0)).max() for rows in joined])

    assert jolt(True) < 0.8 * jolt(False)  # the rest is the speech's own


def test_place_and_speed_are_kept_at_the_switch(speech):
    still = np.zeros((30, MOTION_SIZE), np.float32)
    joined = join(speech[:33], still)[:, 2]  # yaw
    assert abs((joined[4] - joined[3]) - (joined[3] - joined[2])) < 0.1
    assert abs(joined[-1]) < 1e-6
