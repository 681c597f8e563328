"""The face of a row performer: where speech leaves it, idle frames go on; where speech stopped, it goes on."""

import numpy as np
import pytest

from benchmarks import life
from ditto.controls import Controls, apply
from ditto.lite.performer import show_emotion
from ditto.motion.emotion import emotion_vector
from ditto.motion.inertialization import SLOW_FRAMES
from ditto.motion.listening import NEUTRAL, Reaction
from ditto.motion.motion import EXPRESSION, MOTION_SIZE, Keypoint, Motion
from ditto.motion.space import LITE_SPACE
from ditto.performer import Draw, Edits, Face, Shot
from ditto.row_performer import TALK_FRAMES, IdleShot, NoPictures, RowPerformer, RowShot

CALM = emotion_vector(None)
HAPPY, SURPRISED, DISGUSTED = (emotion_vector({name: 1.0}) for name in ("happy", "surprise", "disgust"))
YAW = 2


class Shown(NoPictures):
    """Pictures of one pixel, which tells the yaw."""

    def retarget(self, portrait, motion):
        return float(motion.yaw_degrees)

    def render(self, appearance, pose):
        return np.full((1, 1, 3), 100 + round(pose), np.uint8)


PERFORMER = RowPerformer(None, None, Shown(), LITE_SPACE, show_emotion)
ANYONE = PERFORMER.prepare(None)


def swing(frames, degrees=8.0):
    """(frames, 70) a head that turns aside and back, yaw in degrees."""
    rows = np.zeros((frames, MOTION_SIZE), np.float32)
    rows[:, YAW] = degrees * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frames) / 50))
    return rows


def at_rest(seed=0, joined=True):
    return PERFORMER.face(ANYONE, seed, joined)


def draw(face, shot, emotion=CALM, controls=(), reaction=NEUTRAL, style=1.0):
    edits = Edits(emotion, controls, reaction, style)
    return PERFORMER.draw([Draw(face, shot, edits)])[0]


def play(face, shots, **edits):
    """The face after some shots, and what each of them shows."""
    drawn = []
    for shot in shots:
        drawn.append(draw(face, shot, **edits))
        face = drawn[-1].face
    return face, drawn


def rows_shown(drawn):
    return np.array([one.motion.values for one in drawn])


def speak(face, rows, utterance=0, **edits):
    face, drawn = play(face, [RowShot(row, CALM, utterance) for row in rows], **edits)
    return face, rows_shown(drawn)


def wait(face, frames, **edits):
    face, drawn = play(face, [IdleShot()] * frames, **edits)
    return face, rows_shown(drawn)


def test_speech_alone_is_shown_as_it_was_sampled():
    rows = swing(60)
    assert np.array_equal(speak(at_rest(), rows)[1], rows)
    face, _ = wait(at_rest(joined=False), 5)
    assert np.array_equal(speak(face, rows)[1], rows)


def test_after_the_transition_speech_is_as_it_was_sampled():
    face, _ = wait(at_rest(), 100)
    rows = swing(60)
    _, drawn = play(face, [RowShot(row, CALM, 0) for row in rows])
    assert not np.array_equal(rows_shown(drawn)[0], rows[0])
    assert np.array_equal(rows_shown(drawn)[SLOW_FRAMES - 1 :], rows[SLOW_FRAMES - 1 :])
    assert [one.transition for one in drawn] == [True] * (SLOW_FRAMES - 1) + [False] * (61 - SLOW_FRAMES)


def test_an_idle_face_comes_out_of_speech_in_a_transition_whether_or_not_utterances_are_joined():
    for joined in (True, False):
        face, _ = speak(at_rest(joined=joined), swing(26))
        _, drawn = play(face, [IdleShot()] * 40)
        assert [one.transition for one in drawn] == [True] * (SLOW_FRAMES - 1) + [False] * (41 - SLOW_FRAMES)
    _, drawn = play(at_rest(), [IdleShot()] * 5)
    assert not any(one.transition for one in drawn)


def test_the_head_stays_about_where_speech_left_it():
    face, _ = speak(at_rest(), swing(26))  # left at 8 degrees
    face, shown = wait(face, 30)
    assert face.speaking is None
    assert shown[:, YAW].min() > 1.0 and np.abs(np.diff(shown[:, YAW])).max() < 0.5


def test_a_cut_goes_on_with_the_speed_of_both_sides():
    rows = swing(60)

    def jolt(before):
        face, shown = speak(at_rest(), rows[:12])
        shots = [RowShot(row, CALM, 1, before if n == 0 else None) for n, row in enumerate(rows[40:])]  # the head turns back
        after = rows_shown(play(face, shots)[1])
        path = np.concatenate([shown, after])[:, YAW]
        assert np.array_equal(after[SLOW_FRAMES:], rows[40 + SLOW_FRAMES :])
        return np.abs(np.diff(path, 2)[8:14]).max()

    assert jolt(rows[39]) < 0.5 * jolt(None)


def test_speech_that_stopped_goes_on_at_its_own_speed():
    rows = swing(60)

    def jolt(utterance):
        face, _ = speak(at_rest(), rows[:12])
        face, between = wait(face, 40)
        _, rest = speak(face, rows[12:40], utterance)
        return np.abs(np.diff(np.concatenate([between[-2:], rest])[:5, YAW], 2)).max()

    assert jolt(utterance=0) < 0.5 * jolt(utterance=1)  # an utterance of its own is taken to set out from rest


def test_an_emotion_asked_for_shows_in_rows_sampled_without_it():
    row = np.zeros(MOTION_SIZE, np.float32)
    _, shown = speak(at_rest(), [row] * 2, emotion=HAPPY)
    assert np.array_equal(shown[0], show_emotion(row, HAPPY)) and not np.array_equal(shown[0], row)
    plain = RowPerformer(None, None, Shown(), LITE_SPACE)
    drawn = plain.draw([Draw(plain.face(ANYONE, 0), RowShot(row, CALM, 0), Edits(HAPPY))])[0]
    assert np.array_equal(drawn.motion.values, row)  # without a way to show it, it shows from the next row sampled


def test_lips_that_begin_to_talk_are_freed_over_some_frames():
    face, silent = wait(at_rest(), 3, emotion=DISGUSTED)
    face, talking = speak(face, [np.zeros(MOTION_SIZE, np.float32)] * 20, emotion=DISGUSTED)
    lip = EXPRESSION.start + 3 * Keypoint.UPPER_OUTER_LIP + 1
    heights = np.concatenate([silent, talking])[2:, lip]
    total = heights[-1] - heights[0]
    assert total > 0.04 and np.abs(np.diff(heights)).max() <= 1.3 * total / TALK_FRAMES  # idle motion moves it too
    assert face.talk == 1.0 and wait(face, 4)[0].talk == pytest.approx(1.0 - 4 / TALK_FRAMES)


def test_a_style_acts_on_speech_before_the_emotion_and_controls():
    row, turn = swing(26)[25], Controls(yaw_degrees=10.0)
    calm = draw(at_rest(), RowShot(row, CALM, 0), style=0.5)
    assert np.array_equal(calm.motion.values, LITE_SPACE.change_style(row, 0.5, None))
    assert calm.motion.yaw_degrees == pytest.approx(4.0)
    assert draw(at_rest(), RowShot(row, CALM, 0), controls=(turn,), style=0.5).motion.yaw_degrees == pytest.approx(14.0)
    rest = np.zeros(MOTION_SIZE, np.float32)
    calm = draw(at_rest(), RowShot(rest, CALM, 0), emotion=SURPRISED, style=0.0)
    np.testing.assert_allclose(calm.motion.values, show_emotion(rest, SURPRISED), atol=1e-6)
    natural = draw(at_rest(), RowShot(row, CALM, 0), style=1.0)
    assert np.array_equal(natural.motion.values, row)


def test_a_style_holds_from_speech_to_idle_without_a_jump():
    rows = swing(60)
    for style in (0.45, 1.35):
        face, spoken = speak(at_rest(), rows[:26], style=style)
        assert spoken[-1, YAW] == pytest.approx(8.0 * style, rel=1e-3)
        _, idle = wait(face, 60, style=style)
        yaw = np.concatenate([spoken[:, YAW], idle[:, YAW]])
        assert np.abs(np.diff(yaw, 2)).max() < 1.5 * style * np.abs(np.diff(rows[:, YAW], 2)).max() + 0.02
    quiet, usual = (wait(at_rest(), 200, style=style)[1] for style in (0.45, 1.0))
    np.testing.assert_allclose(quiet[:, YAW], 0.45 * usual[:, YAW], atol=1e-5)


def test_controls_are_applied_one_after_another_and_leave_nothing_to_the_next_frame():
    first, second = Controls(gains={"head": 0.5}), Controls(yaw_degrees=10.0)
    row = swing(26)[25]
    edited = draw(at_rest(), RowShot(row, CALM, 0), controls=(first, second))
    expected = apply(apply(Motion(row), first, None, LITE_SPACE), second, None, LITE_SPACE)
    assert np.array_equal(edited.motion.values, expected.values) and edited.motion.yaw_degrees == pytest.approx(14.0)
    assert edited.image[0, 0, 0] == 114  # the picture shows what the motion says
    after = draw(edited.face, RowShot(row, CALM, 0))
    assert np.array_equal(after.motion.values, row)


def test_a_shot_may_be_drawn_again_from_the_same_face_with_other_edits():
    face, _ = wait(at_rest(), 30)
    shots = [*(RowShot(row, CALM, 0) for row in swing(10)), *[IdleShot()] * 10]
    _, once = play(face, shots)
    play(face, shots, emotion=HAPPY, controls=(Controls(yaw_degrees=10.0),))
    _, again = play(face, shots)
    assert np.array_equal(rows_shown(once), rows_shown(again))


def test_idle_frames_are_those_of_the_seed_and_react():
    (_, one), (_, same), (_, other) = (wait(at_rest(seed), 100) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    _, nodding = wait(at_rest(1), 100, reaction=Reaction(nod=3.0))
    assert np.allclose(nodding[:, 1] - one[:, 1], 3.0, atol=1e-4)


def test_frames_drawn_in_one_call_are_those_drawn_alone():
    faces = [wait(at_rest(seed), 20)[0] for seed in range(3)]
    shots = [IdleShot(), RowShot(swing(26)[25], CALM, 0), IdleShot()]
    jobs = [Draw(face, shot, Edits.none()) for face, shot in zip(faces, shots, strict=True)]
    for one, job in zip(PERFORMER.draw(jobs), jobs, strict=True):
        alone = PERFORMER.draw([job])[0]
        assert np.array_equal(one.motion.values, alone.motion.values) and np.array_equal(one.image, alone.image)


def test_what_another_performer_gave_is_refused():
    for face, shot in ((Face(), IdleShot()), (at_rest(), Shot())):
        with pytest.raises(TypeError, match="expected a Row"):
            draw(face, shot)


def test_every_step_of_a_picture_is_observed():
    steps = []
    end = PERFORMER.observe(lambda name, seconds, rows: steps.append((name, rows)))
    wait(at_rest(), 2)
    end()
    wait(at_rest(), 1)
    assert steps == [("render", 1), ("paste", 1)] * 2


def test_the_benchmark_sees_a_jump():
    rows = swing(80)
    smooth = life.acceleration(rows)
    rows[40:, 4] += 0.05
    assert life.acceleration(rows) > 10 * smooth


def test_the_benchmark_keeps_every_switch_in_view():
    rows = swing(60)
    found = life.switches(rows, 0)
    assert len(found["interrupt"]) == len(found["speech starves, goes on"]) == 60 - life.AROUND - 3
    assert all(len(shown) == life.AROUND + 2 for cases in found.values() for shown in cases)
    assert np.array_equal(found["interrupt"][10][1], rows[12])  # the last of speech, then idle
