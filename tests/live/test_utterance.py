"""An utterance: hops for the performer and sound for the frames, the same for any chunking."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from

from ditto.live.intake import Intake
from ditto.live.utterance import Utterance
from ditto.media.audio import Resampler
from ditto.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.motion.emotion import emotion_vector
from ditto.performer import State

HOP = 1280
CALM, HAPPY = emotion_vector(None), emotion_vector({"happy": 1.0})


class Numbered(State):
    """A state that says how many jobs made it."""

    __slots__ = ("after", "number")

    def __init__(self, number, after=None):
        self.number, self.after = number, after


def utterance(hop=HOP, epoch=0):
    return Utterance(epoch, lambda performer_state: Numbered(0, performer_state), hop)


def pieces_of(samples, sizes, rate=SAMPLE_RATE, audio_rate=SAMPLE_RATE):
    """Pieces of a flushed utterance that was pushed in these sizes, over and over."""
    intake, at, number = Intake(audio_rate, HOP), 0, 0
    while at < samples.size:
        size = sizes[number % len(sizes)]
        intake.push(samples[at : at + size], rate, 0)
        at, number = at + size, number + 1
    intake.end_utterance()
    while len(intake):
        yield intake.take()


def perform(spoken, pieces, shots=2):
    """The jobs of an utterance, done by a performer that gives so many shots a hop."""
    jobs, pieces = [], iter(pieces)
    while not spoken.done:
        job = spoken.next_job(None if spoken.has_hop else next(pieces), CALM, None)
        if job is not None:
            jobs.append(job)
            spoken.accept_shots(job, shots, Numbered(job.state.number + 1))
        spoken.publish()
    return jobs


def noise(size):
    return np.random.default_rng(0).uniform(-1, 1, size).astype(np.float32)


@given(
    size=integers(1, 6000),
    sizes=lists(integers(1, 3000), min_size=1, max_size=6),
    rate=sampled_from((8000, 16000, 44100, 48000)),
)
def test_any_chunking_gives_the_performer_the_same_jobs(size, sizes, rate):
    samples, resampler = noise(size), Resampler(rate)
    expected = np.concatenate([resampler.push(samples), resampler.flush()])
    jobs = perform(utterance(), pieces_of(samples, sizes, rate))
    np.testing.assert_array_equal(np.concatenate([job.samples for job in jobs]), expected)
    assert all(job.samples.size == HOP for job in jobs[:-1])
    assert [job.final for job in jobs] == [False] * (len(jobs) - 1) + [True]
    assert [job.state.number for job in jobs] == list(range(len(jobs)))


def test_a_whole_hop_is_a_job_at_once_and_the_final_job_comes_with_the_end():
    spoken, (one, two, end) = utterance(), pieces_of(noise(2 * HOP), [HOP])
    first = spoken.next_job(one, CALM, None)
    assert first.samples.size == HOP and not first.final
    spoken.accept_shots(first, 2, Numbered(1))
    second = spoken.next_job(two, CALM, None)
    assert not second.final  # nobody knows yet that no more comes
    spoken.accept_shots(second, 2, Numbered(2))
    assert not spoken.has_hop and not spoken.done
    last = spoken.next_job(end, HAPPY, None)
    assert (last.samples.size, last.final, last.emotion is HAPPY) == (0, True, True)
    spoken.accept_shots(last, 1, Numbered(3))
    assert spoken.done and not spoken.has_hop and spoken.shots == 5


def test_less_than_a_hop_is_no_job_until_the_end():
    spoken, (piece, end) = utterance(), pieces_of(noise(HOP - 1), [HOP])
    assert spoken.next_job(piece, CALM, None) is None
    assert not spoken.started and not spoken.has_hop
    job = spoken.next_job(end, CALM, None)
    assert job.final and job.samples.size == HOP - 1 and spoken.started


def test_a_piece_that_makes_more_than_a_hop_leaves_the_rest_for_jobs_without_a_piece():
    spoken, pieces = utterance(hop=SAMPLES_PER_FRAME), pieces_of(noise(1300), [HOP])
    first = spoken.next_job(next(pieces), CALM, None)
    spoken.accept_shots(first, 1, Numbered(1))
    assert spoken.has_hop
    second = spoken.next_job(None, CALM, None)
    spoken.accept_shots(second, 1, Numbered(2))
    assert not spoken.has_hop
    jobs = [first, second, *perform(spoken, pieces, 1)]
    assert [(job.samples.size, job.final) for job in jobs] == [(640, False), (640, False), (20, True)]
    np.testing.assert_array_equal(np.concatenate([job.samples for job in jobs]), noise(1300))


def test_a_job_without_accepted_shots_is_given_again():
    spoken, (piece, _) = utterance(), pieces_of(noise(HOP), [HOP])
    failed = spoken.next_job(piece, CALM, None)
    again = spoken.next_job(None, CALM, None)
    assert again.state is failed.state
    np.testing.assert_array_equal(again.samples, failed.samples)


def test_it_begins_once_with_the_first_hop_and_the_performer_s_state():
    begun = []

    def begin(performer_state):
        begun.append(performer_state)
        return Numbered(0, performer_state)

    spoken, performer_state, intake = Utterance(7, begin, HOP), Numbered(9), Intake(SAMPLE_RATE, HOP)

    def half():
        intake.push(noise(HOP // 2), SAMPLE_RATE, 0)
        return intake.take()

    assert spoken.epoch == 7
    assert spoken.next_job(half(), CALM, Numbered(8)) is None and begun == []
    first = spoken.next_job(half(), CALM, performer_state)
    assert begun == [performer_state] and first.state.after is performer_state
    spoken.accept_shots(first, 2, Numbered(1))
    spoken.next_job(half(), CALM, Numbered(10))
    assert spoken.next_job(half(), CALM, Numbered(11)).state.number == 1
    assert begun == [performer_state]


@pytest.mark.parametrize("audio_rate", [8000, 16000, 48000])
def test_each_frame_gets_its_sound_and_the_last_one_is_filled_with_silence(audio_rate):
    size, samples = audio_rate // FPS, noise(5 * SAMPLES_PER_FRAME + 100)
    resampler = Resampler(SAMPLE_RATE, audio_rate)
    sound = np.concatenate([resampler.push(samples), resampler.flush()])
    spoken = utterance()
    perform(spoken, pieces_of(samples, [HOP], audio_rate=audio_rate))
    assert spoken.has_sound(size)
    cut = [spoken.next_sound(size) for _ in range(6)]
    assert {part.size for part in cut} == {size}
    np.testing.assert_array_equal(np.concatenate(cut)[: sound.size], sound)
    assert not np.concatenate(cut)[sound.size :].any()


def test_sound_is_there_once_published_and_a_part_of_a_frame_once_the_end_is():
    spoken, (piece, end) = utterance(), pieces_of(noise(SAMPLES_PER_FRAME + 10), [HOP])
    spoken.next_job(piece, CALM, None)
    assert not spoken.has_sound(1)  # only the worker has it
    spoken.publish()
    assert spoken.has_sound(SAMPLES_PER_FRAME + 10) and not spoken.has_sound(SAMPLES_PER_FRAME + 11)
    spoken.next_sound(SAMPLES_PER_FRAME)
    spoken.next_job(end, CALM, None)
    assert not spoken.ended and not spoken.has_sound(SAMPLES_PER_FRAME)
    spoken.publish()
    assert spoken.ended and spoken.has_sound(SAMPLES_PER_FRAME)
    rest = spoken.next_sound(SAMPLES_PER_FRAME)
    np.testing.assert_array_equal(rest[:10], noise(SAMPLES_PER_FRAME + 10)[-10:])
    assert not rest[10:].any()


@pytest.mark.parametrize("audio_rate", [8000, 16000, 24000, 48000])
def test_a_hop_waits_for_the_sound_of_its_frames_where_the_performer_needs_it(audio_rate):
    samples, size, given = noise(8 * HOP + 100), audio_rate // FPS, 0
    spoken = Utterance(0, lambda performer_state: Numbered(0, performer_state), HOP, audio_rate)
    for piece in pieces_of(samples, [HOP], audio_rate=audio_rate):
        job = spoken.next_job(piece, CALM, None)
        while job is not None:
            spoken.accept_shots(job, 2, Numbered(0))
            spoken.publish()
            for _ in range(-(-job.samples.size // SAMPLES_PER_FRAME)):
                assert spoken.has_sound(size)
                spoken.next_sound(size)
            given += job.samples.size
            job = spoken.next_job(None, CALM, None) if spoken.has_hop else None
    assert spoken.done and given == samples.size
