"""The face of a session: where speech leaves it, life goes on; where speech stopped, it goes on."""

import numpy as np

from benchmarks import life
from ditto.emotion import emotion_vector
from ditto.live.face import IDLE, at_rest, live, speak
from ditto.live.listening import NEUTRAL

CALM = emotion_vector(None)


def swing(frames, degrees=8.0):
    """(frames, 70) a head that turns aside and back, yaw in degrees."""
    rows = np.zeros((frames, 70), np.float32)
    rows[:, 2] = degrees * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frames) / 50))
    return rows


def play(face, rows, epoch=0, made_with=CALM, wanted=CALM, joined=True):
    shown = []
    for row in rows:
        face = speak(face, row, made_with, wanted, epoch, joined)
        shown.append(face.row)
    return face, np.array(shown)


def wait(face, frames):
    shown = []
    for _ in range(frames):
        face = live(face, 0, CALM, NEUTRAL)
        shown.append(face.row)
    return face, np.array(shown)


def test_speech_alone_is_shown_as_it_was_sampled():
    rows = swing(60)
    assert np.array_equal(play(at_rest(), rows)[1], rows)
    face, _ = wait(at_rest(), 5)
    assert np.array_equal(play(face, rows, joined=False)[1], rows)


def test_after_the_seam_speech_is_as_it_was_sampled():
    face, _ = wait(at_rest(), 100)
    rows = swing(60)
    _, shown = play(face, rows)
    assert not np.array_equal(shown[0], rows[0])
    assert np.array_equal(shown[19:], rows[19:])


def test_the_head_stays_about_where_speech_left_it():
    face, _ = play(at_rest(), swing(26))  # left at 8 degrees
    face, shown = wait(face, 30)
    assert face.speaking == IDLE
    assert shown[:, 2].min() > 1.0 and np.abs(np.diff(shown[:, 2])).max() < 0.5


def test_speech_that_stopped_goes_on_at_its_own_speed():
    rows = swing(60)

    def jolt(epoch):
        face, _ = play(at_rest(), rows[:12])
        face, between = wait(face, 40)
        _, rest = play(face, rows[12:40], epoch)
        return np.abs(np.diff(np.concatenate([between[-2:], rest])[:5, 2], 2)).max()

    assert jolt(epoch=0) < 0.5 * jolt(epoch=1)  # an utterance of its own is taken to set out from rest


def test_an_emotion_asked_for_shows_in_rows_sampled_without_it():
    happy = emotion_vector({"happy": 1.0})
    _, shown = play(at_rest(), np.zeros((2, 70), np.float32), wanted=happy)
    assert shown[0, 7 + 3 * 6 + 1] < -0.02  # a mouth corner rises


def test_the_benchmark_sees_a_jump():
    rows = swing(80)
    smooth = life.acceleration(rows)
    rows[40:, 4] += 0.05
    assert life.acceleration(rows) > 10 * smooth


def test_the_benchmark_keeps_every_switch_in_view():
    rows = swing(60)
    found = life.seams(rows, 0)
    assert len(found["interrupt"]) == len(found["speech starves, goes on"]) == 60 - life.AROUND - 3
    assert all(len(shown) == life.AROUND + 2 for cases in found.values() for shown in cases)
    assert np.array_equal(found["interrupt"][10][1], rows[12])  # the last of speech, then idle
