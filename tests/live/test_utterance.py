"""An utterance: samples go to the performer hop by hop, and its sound to the frames, the same however it is cut."""

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
    return Utterance(epoch, lambda stands: Numbered(0, stands), hop)


def pieces_of(samples, sizes, rate=SAMPLE_RATE, audio_rate=SAMPLE_RATE):
    """Pieces of a flushed utterance that was pushed in these sizes, over and over."""
    intake, at, number = Intake(audio_rate, HOP), 0, 0
    while at < samples.size:
        size = sizes[number % len(sizes)]
        intake.push(samples[at : at + size], rate, 0)
        at, number = at + size, number + 1
    intake.end()
    while len(intake):
        yield intake.take()


def perform(heard, pieces, shots=2):
    """What a performer of so many shots a hop is asked for, until nothing is left."""
    jobs, pieces = [], iter(pieces)
    while not heard.done:
        job = heard.job(None if heard.has_hop else next(pieces), CALM, None)
        if job is not None:
            jobs.append(job)
            heard.accept(job, shots, Numbered(job.state.number + 1))
        heard.publish()
    return jobs


def noise(size):
    return np.random.default_rng(0).uniform(-1, 1, size).astype(np.float32)


@given(
    size=integers(1, 6000),
    sizes=lists(integers(1, 3000), min_size=1, max_size=6),
    rate=sampled_from((8000, 16000, 44100, 48000)),
)
def test_however_speech_is_cut_the_performer_is_asked_for_the_same(size, sizes, rate):
    samples, resampler = noise(size), Resampler(rate)
    expected = np.concatenate([resampler.push(samples), resampler.flush()])
    jobs = perform(utterance(), pieces_of(samples, sizes, rate))
    np.testing.assert_array_equal(np.concatenate([job.samples for job in jobs]), expected)
    assert all(job.samples.size == HOP for job in jobs[:-1])
    assert [job.final for job in jobs] == [False] * (len(jobs) - 1) + [True]
    assert [job.state.number for job in jobs] == list(range(len(jobs)))


def test_whole_hops_are_asked_for_as_soon_as_they_are_there_and_the_last_one_once_it_is_known_to_be_the_last():
    heard, (one, two, end) = utterance(), pieces_of(noise(2 * HOP), [HOP])
    first = heard.job(one, CALM, None)
    assert first.samples.size == HOP and not first.final
    heard.accept(first, 2, Numbered(1))
    second = heard.job(two, CALM, None)
    assert not second.final  # nobody knows yet that no more comes
    heard.accept(second, 2, Numbered(2))
    assert not heard.has_hop and not heard.done
    last = heard.job(end, HAPPY, None)
    assert (last.samples.size, last.final, last.emotion is HAPPY) == (0, True, True)
    heard.accept(last, 1, Numbered(3))
    assert heard.done and not heard.has_hop and heard.shots == 5


def test_less_than_a_hop_is_no_job_until_the_end():
    heard, (piece, end) = utterance(), pieces_of(noise(HOP - 1), [HOP])
    assert heard.job(piece, CALM, None) is None
    assert not heard.begun and not heard.has_hop
    job = heard.job(end, CALM, None)
    assert job.final and job.samples.size == HOP - 1 and heard.begun


def test_a_piece_that_makes_more_than_a_hop_leaves_the_rest_for_jobs_without_a_piece():
    heard, pieces = utterance(hop=SAMPLES_PER_FRAME), pieces_of(noise(1300), [HOP])
    first = heard.job(next(pieces), CALM, None)
    heard.accept(first, 1, Numbered(1))
    assert heard.has_hop
    second = heard.job(None, CALM, None)
    heard.accept(second, 1, Numbered(2))
    assert not heard.has_hop
    jobs = [first, second, *perform(heard, pieces, 1)]
    assert [(job.samples.size, job.final) for job in jobs] == [(640, False), (640, False), (20, True)]
    np.testing.assert_array_equal(np.concatenate([job.samples for job in jobs]), noise(1300))


def test_a_job_that_was_not_accepted_is_asked_for_again():
    heard, (piece, _) = utterance(), pieces_of(noise(HOP), [HOP])
    failed = heard.job(piece, CALM, None)
    again = heard.job(None, CALM, None)
    assert again.state is failed.state
    np.testing.assert_array_equal(again.samples, failed.samples)


def test_it_begins_once_where_the_stream_stands_and_not_before_the_first_hop():
    begun = []

    def begin(stands):
        begun.append(stands)
        return Numbered(0, stands)

    heard, stands, intake = Utterance(7, begin, HOP), Numbered(9), Intake(SAMPLE_RATE, HOP)

    def half():
        intake.push(noise(HOP // 2), SAMPLE_RATE, 0)
        return intake.take()

    assert heard.epoch == 7
    assert heard.job(half(), CALM, Numbered(8)) is None and begun == []
    first = heard.job(half(), CALM, stands)
    assert begun == [stands] and first.state.after is stands
    heard.accept(first, 2, Numbered(1))
    heard.job(half(), CALM, Numbered(10))
    assert heard.job(half(), CALM, Numbered(11)).state.number == 1
    assert begun == [stands]


@pytest.mark.parametrize("audio_rate", [8000, 16000, 48000])
def test_sound_is_cut_to_frames_and_the_last_one_is_filled_with_silence(audio_rate):
    size, samples = audio_rate // FPS, noise(5 * SAMPLES_PER_FRAME + 100)
    resampler = Resampler(SAMPLE_RATE, audio_rate)
    sound = np.concatenate([resampler.push(samples), resampler.flush()])
    heard = utterance()
    perform(heard, pieces_of(samples, [HOP], audio_rate=audio_rate))
    assert heard.can_cut(size)
    cut = [heard.cut(size) for _ in range(6)]
    assert {part.size for part in cut} == {size}
    np.testing.assert_array_equal(np.concatenate(cut)[: sound.size], sound)
    assert not np.concatenate(cut)[sound.size :].any()


def test_sound_is_there_once_it_was_published_and_a_part_of_a_frame_once_the_end_was():
    heard, (piece, end) = utterance(), pieces_of(noise(SAMPLES_PER_FRAME + 10), [HOP])
    heard.job(piece, CALM, None)
    assert not heard.can_cut(1)  # a worker has it, and nobody else yet
    heard.publish()
    assert heard.can_cut(SAMPLES_PER_FRAME + 10) and not heard.can_cut(SAMPLES_PER_FRAME + 11)
    heard.cut(SAMPLES_PER_FRAME)
    heard.job(end, CALM, None)
    assert not heard.ended and not heard.can_cut(SAMPLES_PER_FRAME)
    heard.publish()
    assert heard.ended and heard.can_cut(SAMPLES_PER_FRAME)
    rest = heard.cut(SAMPLES_PER_FRAME)
    np.testing.assert_array_equal(rest[:10], noise(SAMPLES_PER_FRAME + 10)[-10:])
    assert not rest[10:].any()
