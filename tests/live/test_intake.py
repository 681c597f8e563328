"""The input of a session: any chunking gives the same samples in the same order, and the queues are bounded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from

from ditto.errors import AudioError
from ditto.live.intake import MAX_LISTEN_SECONDS, MAX_QUEUED_SAMPLES, Conversion, Intake, ListenQueue
from ditto.media.audio import Resampler
from ditto.media.rates import SAMPLE_RATE

HOP = 1280
RATES = (8000, 11025, 16000, 44100, 48000)


def noise(size, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, size).astype(np.float32)


def resampled(samples, rate, to):
    resampler = Resampler(rate, to)
    return np.concatenate([resampler.push(samples), resampler.flush()])


def drained(intake):
    """All pieces in the queue."""
    pieces = []
    while len(intake):
        pieces.append(intake.take())
    return pieces


def converted(pieces):
    """The samples that pieces give to the performer, and to the frames."""
    parts = [piece.convert() for piece in pieces]
    return tuple(np.concatenate([part[i] for part in parts]) for i in (0, 1))


def chunks(samples, sizes):
    """The samples in pieces of these sizes, over and over."""
    at, number = 0, 0
    while at < samples.size:
        yield samples[at : at + sizes[number % len(sizes)]]
        at, number = at + sizes[number % len(sizes)], number + 1


@given(sizes=lists(integers(1, 3000), min_size=1, max_size=6), rate=sampled_from(RATES), audio_rate=sampled_from(RATES))
def test_any_chunking_of_speech_gives_the_same_samples(sizes, rate, audio_rate):
    samples, intake = noise(6000), Intake(audio_rate, HOP)
    for piece in chunks(samples, sizes):
        assert intake.push(piece, rate, 0)
    intake.end_utterance()
    speech, sound = converted(drained(intake))
    np.testing.assert_array_equal(speech, resampled(samples, rate, SAMPLE_RATE))
    np.testing.assert_array_equal(sound, resampled(samples, rate, audio_rate))


@pytest.mark.parametrize("rate", RATES)
def test_a_piece_is_at_most_a_hop_and_small_ones_are_joined(rate):
    hop = HOP * rate // SAMPLE_RATE
    small, large = Intake(16000, HOP), Intake(16000, HOP)
    for sample in noise(3 * hop):
        small.push(sample[None], rate, 0)
    assert len(small) == 3
    large.push(noise(10 * hop), rate, 0)
    assert len(large) == 1
    for intake in (small, large):
        sizes = [piece.samples.size for piece in drained(intake)]
        assert max(sizes) == hop and sizes[:-1] == [hop] * (len(sizes) - 1)
    assert small.seconds == large.seconds == 0.0


def test_pieces_of_one_utterance_are_not_joined_with_those_of_the_next():
    intake = Intake(16000, HOP)
    intake.push(noise(100), 16000, 0)
    intake.end_utterance()
    intake.push(noise(50), 8000, 1)
    intake.push(noise(50), 8000, 1)
    intake.end_utterance()
    found = [(piece.epoch, None if piece.samples is None else piece.samples.size) for piece in drained(intake)]
    assert found == [(0, 100), (0, None), (1, 100), (1, None)]


def test_the_queue_is_counted_in_seconds_at_any_rate():
    intake = Intake(16000, HOP)
    intake.push(noise(4000), 8000, 0)
    intake.push(noise(8000), 8000, 0)
    assert intake.seconds == 1.5
    intake.take()
    assert intake.seconds == pytest.approx(1.5 - HOP / SAMPLE_RATE)
    drained(intake)
    assert intake.seconds == 0.0


def test_a_push_takes_all_its_samples_until_thirty_seconds_are_queued():
    intake = Intake(16000, HOP)
    assert intake.push(np.zeros(MAX_QUEUED_SAMPLES - 1, np.float32), 16000, 0) and not intake.full
    assert intake.push(np.zeros(40 * SAMPLE_RATE, np.float32), 16000, 0) and intake.full  # all of it
    before = intake.seconds
    assert not intake.push(np.zeros(1, np.float32), 16000, 0)
    assert intake.seconds == before
    while intake.full:
        intake.take()
    assert intake.push(np.zeros(1, np.float32), 16000, 0)


def test_a_full_queue_takes_the_end_of_an_utterance_and_an_empty_utterance_has_no_end():
    intake = Intake(16000, HOP)
    assert not intake.end_utterance() and intake.epoch == 0
    intake.push(np.zeros(2 * MAX_QUEUED_SAMPLES, np.float32), 16000, 0)
    assert intake.end_utterance() and intake.epoch == 1
    assert not intake.end_utterance() and intake.epoch == 1
    assert drained(intake)[-1].samples is None


def test_an_empty_push_begins_no_utterance_but_must_keep_the_rate_of_one():
    intake = Intake(16000, HOP)
    assert intake.push(noise(0), 16000, 0)
    assert not intake.end_utterance()
    intake.push(noise(1), 16000, 0)
    assert intake.push(noise(0), 16000, 0)
    assert [piece.samples.size for piece in drained(intake)] == [1]
    with pytest.raises(AudioError, match="expected 16000 Hz to the end of the utterance, got 24000 Hz"):
        intake.push(noise(0), 24000, 0)


def test_another_rate_is_refused_until_the_utterance_ends_and_changes_nothing():
    intake = Intake(16000, HOP)
    intake.push(noise(100), 24000, 0)
    with pytest.raises(AudioError, match="expected 24000 Hz to the end of the utterance, got 16000 Hz; flush"):
        intake.push(noise(100), 16000, 0)
    assert intake.seconds == 100 / 24000
    intake.end_utterance()
    assert intake.push(noise(100), 16000, 1)


def test_an_interrupt_drops_the_queue_and_the_pushes_of_the_same_utterance():
    intake = Intake(16000, HOP)
    intake.push(noise(5000), 24000, 0)
    intake.interrupt()
    assert (intake.epoch, len(intake), intake.seconds) == (1, 0, 0.0)
    assert intake.push(noise(100), 24000, 0)  # of the utterance that is over: taken, and dropped
    assert len(intake) == 0
    assert intake.push(noise(100), 8000, 1)  # another utterance, another rate
    intake.interrupt()
    intake.interrupt()
    assert (intake.epoch, intake.end_utterance()) == (3, False)


def test_each_utterance_has_its_own_resamplers():
    intake, samples = Intake(24000, HOP), noise(4000)
    for epoch in range(2):
        intake.push(samples, 44100, epoch)
        intake.end_utterance()
    pieces = drained(intake)
    first, second = (converted([piece for piece in pieces if piece.epoch == epoch]) for epoch in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_sound_at_the_rate_of_speech_is_resampled_once():
    conversion = Conversion(48000, SAMPLE_RATE)
    speech, sound = conversion.push(noise(4800))
    assert sound is speech
    rest, tail = conversion.flush()
    assert tail is rest


def test_the_listen_queue_gives_each_piece_once_and_in_order():
    queue = ListenQueue()
    assert queue.take() == []
    for size in (100, 200):
        queue.push(noise(size), 8000)
    pieces = queue.take()
    assert [piece.samples.size for piece in pieces] == [100, 200]
    assert [piece.seconds for piece in pieces] == [0.0125, 0.025]
    assert queue.take() == []


@given(sizes=lists(integers(1, 3000), min_size=1, max_size=6), rate=sampled_from(RATES))
def test_any_chunking_of_the_other_party_gives_the_same_samples(sizes, rate):
    samples, queue, found = noise(6000), ListenQueue(), []
    for number, piece in enumerate(chunks(samples, sizes)):
        queue.push(piece, rate)
        if number % 3 == 0:
            found += [piece.resampler.push(piece.samples) for piece in queue.take()]
    found += [piece.resampler.push(piece.samples) for piece in queue.take()]
    np.testing.assert_array_equal(np.concatenate(found), Resampler(rate).push(samples))


def test_the_listen_queue_has_a_new_resampler_for_a_new_rate():
    queue = ListenQueue()
    for rate in (8000, 8000, 48000):
        queue.push(noise(rate // 10), rate)
    first, second, third = queue.take()
    assert first.resampler is second.resampler and third.resampler is not first.resampler
    assert third.resampler.push(third.samples).size + third.resampler.flush().size == SAMPLE_RATE / 10


@pytest.mark.parametrize("rate", [8000, 48000])
def test_the_listen_queue_keeps_the_newest_seconds_only(rate):
    queue, second = ListenQueue(), np.zeros(rate, np.float32)
    for number in range(60):
        queue.push(second + np.float32(number), rate)
    kept = queue.take()
    assert MAX_LISTEN_SECONDS <= sum(piece.seconds for piece in kept) < MAX_LISTEN_SECONDS + 1.0
    assert kept[-1].samples[-1] == 59.0
    queue.push(np.arange(15 * rate, dtype=np.float32), rate)
    (one,) = queue.take()
    assert one.seconds == MAX_LISTEN_SECONDS and one.samples[-1] == 15 * rate - 1
    assert one.samples.base is None  # a copy: the dropped samples are freed
