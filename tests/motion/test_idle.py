"""Idle faces: alive, lips closed, never the same twice."""

import numpy as np
import pytest

from ditto.media.rates import FPS
from ditto.motion.eyes import hold_gaze
from ditto.motion.idle import idle_frame, initial_idle, resume
from ditto.motion.listening import NEUTRAL as CALM
from ditto.motion.listening import Reaction
from ditto.motion.motion import DEGREES, EXPRESSION, IRISES, KEYPOINTS, MOTION_SIZE, Keypoint
from ditto.motion.style import STYLED

MINUTE = 60 * FPS


def rows(frames, seed=0, reaction=CALM, style=1.0):
    """(frames, 70) head values."""
    state, out = initial_idle(), []
    for _ in range(frames):
        row, state = idle_frame(state, seed, reaction, style)
        out.append(row)
    return np.array(out)


def points_of(motion):
    """(frames, 21, 3) in the head frame."""
    return motion[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)


def blinks(points):
    """Frames in which a blink begins."""
    shut = points[:, Keypoint.RIGHT_UPPER_LID, 1] > 0.05
    return np.flatnonzero(shut[1:] & ~shut[:-1])


def test_the_same_seed_gives_the_same_face_and_another_another():
    assert np.array_equal(rows(100, seed=3), rows(100, seed=3))
    assert not np.array_equal(rows(100, seed=3), rows(100, seed=4))


def test_it_begins_as_the_portrait_is():
    first = rows(1)[0]
    assert np.abs(first[:7]).max() < 0.05
    assert np.abs(first[7:]).max() < 0.002


def test_lips_are_closed():
    points = points_of(rows(500))
    assert (points[:, Keypoint.LOWER_INNER_LIP, 1] - points[:, Keypoint.UPPER_INNER_LIP, 1]).max() <= 0.004


def test_it_blinks_10_to_25_times_a_minute_and_shuts_its_eyes():
    for seed in range(3):
        starts = blinks(points_of(rows(4 * MINUTE, seed)))
        assert 10 <= len(starts) / 4 <= 25
        times = np.bincount(np.diff(starts))
        assert times.max() <= 0.1 * times.sum()  # no time between two is usual


def test_the_head_moves_less_than_in_speech_and_is_not_bowed():
    motion = rows(6 * MINUTE)
    pitch, yaw, roll = motion[:, 1:4].T
    assert 0.5 < pitch.std() < 1.5 and 0.8 < yaw.std() < 2.4 and 0.4 < roll.std() < 1.4
    assert abs(pitch.mean()) < 0.5 and np.abs(motion[:, 1:4]).max() < 7.0


def test_it_never_repeats_itself():
    yaw = rows(6 * MINUTE)[:, 2].astype(np.float64)
    yaw -= yaw.mean()
    power = np.abs(np.fft.rfft(yaw, 2 * len(yaw))) ** 2
    alike = np.fft.irfft(power)[: 2 * MINUTE]
    assert (alike[20 * FPS :] / alike[0]).max() < 0.5


def test_the_gaze_stays_on_the_camera_while_the_head_turns():
    motion = rows(2 * MINUTE)
    iris = points_of(motion)[:, Keypoint.RIGHT_IRIS, :2] - hold_gaze(motion[:, DEGREES])
    assert 0.5 < (np.hypot(*iris.T) < 2e-3).mean() < 0.95


def test_a_reaction_moves_the_head_and_holds_the_gaze():
    plain, moved = rows(MINUTE), rows(MINUTE, reaction=Reaction(nod=3.0, tilt=2.0, brow=0.01, attention=1.0))
    assert np.isclose((moved - plain)[0, 1], 3.0, atol=0.01) and np.isclose((moved - plain)[0, 3], 2.0, atol=0.01)
    assert np.isclose((points_of(moved) - points_of(plain))[0, Keypoint.RIGHT_BROW, 1], -0.01, atol=1e-4)
    irises = (points_of(m)[:, Keypoint.RIGHT_IRIS, 0] - hold_gaze(m[:, DEGREES])[:, 0] for m in (plain, moved))
    away, kept = (np.abs(iris) > 3e-3 for iris in irises)
    assert kept.mean() < 0.5 * away.mean()


def test_after_speech_the_head_lingers_and_then_comes_back():
    _, state = idle_frame(initial_idle(), 0)
    shown = np.zeros(MOTION_SIZE, np.float32)
    shown[DEGREES] = 3.0, -6.0, 1.5
    state, out = resume(state, shown), []
    for _ in range(500):
        row, state = idle_frame(state, 0)
        out.append(row)
    yaw = np.array(out)[:, 2]
    assert yaw[0] < -3.0 and yaw[20] < -1.5 and np.abs(yaw[-250:]).mean() < 1.5
    assert np.abs(np.diff(yaw)).max() < 0.25


def test_a_style_scales_head_and_brows_and_the_breath_goes_on():
    natural, calm, none = (rows(3 * MINUTE // 2, style=s) for s in (1.0, 0.5, 0.0))
    np.testing.assert_allclose(calm[:, DEGREES], (natural[:, DEGREES] + none[:, DEGREES]) / 2, atol=1e-6)
    assert not none[:, 2:4].any() and np.abs(none[:, 1]).max() > 0.2  # no yaw, no roll; the breath pitches the head
    brows, stiller, still = (points_of(v)[:, list(STYLED)] for v in (natural, calm, none))
    assert np.ptp(brows[..., 1]) > 0.005 and not still[..., :2].any()
    np.testing.assert_allclose(stiller, (brows + still) / 2, atol=1e-7)
    rest = [k for k in Keypoint if k not in (*STYLED, *IRISES)]
    assert np.array_equal(points_of(natural)[:, rest], points_of(calm)[:, rest])
    held = [points_of(v)[:, list(IRISES), :2] - hold_gaze(v[:, DEGREES])[:, None] for v in (natural, calm)]
    np.testing.assert_allclose(held[0], held[1], atol=1e-6)


def test_reactions_are_of_the_style_too():
    nod = Reaction(nod=2.0, tilt=1.0)
    change = rows(3, reaction=nod, style=0.5) - rows(3, style=0.5)
    np.testing.assert_allclose(change[:, DEGREES], [[1.0, 0.0, 0.5]] * 3, atol=1e-6)


def test_after_speech_the_head_lingers_in_every_style():
    _, state = idle_frame(initial_idle(), 0)
    shown = np.zeros(MOTION_SIZE, np.float32)
    shown[DEGREES] = 0.4, -0.8, 0.2
    for style in (0.45, 1.35):
        first, _ = idle_frame(resume(state, shown, style), 0, CALM, style)
        assert first[2] == pytest.approx(-0.8, abs=0.2)
    still, _ = idle_frame(resume(state, shown, 0.0), 0, CALM, 0.0)
    assert still[2] == 0.0
