"""What comes into a session: in the same order and the same samples however it is cut, and not more than is kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from

from ditto.errors import AudioError
from ditto.live.intake import LARGEST_INBOX, LONGEST_LISTENING, Conversion, Ear, Intake
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
    """All pieces that wait."""
    pieces = []
    while len(intake):
        pieces.append(intake.take())
    return pieces


def heard(pieces):
    """What pieces add to the samples to be heard, and to those to be played."""
    parts = [piece.convert() for piece in pieces]
    return tuple(np.concatenate([part[i] for part in parts]) for i in (0, 1))


def cut(samples, sizes):
    """The samples in pieces of these sizes, over and over."""
    at, number = 0, 0
    while at < samples.size:
        yield samples[at : at + sizes[number % len(sizes)]]
        at, number = at + sizes[number % len(sizes)], number + 1


@given(sizes=lists(integers(1, 3000), min_size=1, max_size=6), rate=sampled_from(RATES), audio_rate=sampled_from(RATES))
def test_however_speech_is_cut_the_same_samples_are_heard_and_played(sizes, rate, audio_rate):
    samples, intake = noise(6000), Intake(audio_rate, HOP)
    for piece in cut(samples, sizes):
        assert intake.push(piece, rate, 0)
    intake.end()
    speech, sound = heard(drained(intake))
    np.testing.assert_array_equal(speech, resampled(samples, rate, SAMPLE_RATE))
    np.testing.assert_array_equal(sound, resampled(samples, rate, audio_rate))


@pytest.mark.parametrize("rate", RATES)
def test_a_piece_is_of_at_most_a_hop_and_small_ones_are_joined(rate):
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
    intake.end()
    intake.push(noise(50), 8000, 1)
    intake.push(noise(50), 8000, 1)
    intake.end()
    found = [(piece.epoch, None if piece.samples is None else piece.samples.size) for piece in drained(intake)]
    assert found == [(0, 100), (0, None), (1, 100), (1, None)]


def test_what_waits_is_counted_in_seconds_whatever_its_rate():
    intake = Intake(16000, HOP)
    intake.push(noise(4000), 8000, 0)
    intake.push(noise(8000), 8000, 0)
    assert intake.seconds == 1.5
    intake.take()
    assert intake.seconds == pytest.approx(1.5 - HOP / SAMPLE_RATE)
    drained(intake)
    assert intake.seconds == 0.0


def test_a_push_finds_room_until_thirty_seconds_wait_and_then_takes_all_or_nothing():
    intake = Intake(16000, HOP)
    assert intake.push(np.zeros(LARGEST_INBOX - 1, np.float32), 16000, 0) and not intake.full
    assert intake.push(np.zeros(40 * SAMPLE_RATE, np.float32), 16000, 0) and intake.full  # all of it
    before = intake.seconds
    assert not intake.push(np.zeros(1, np.float32), 16000, 0)
    assert intake.seconds == before
    while intake.full:
        intake.take()
    assert intake.push(np.zeros(1, np.float32), 16000, 0)


def test_an_end_finds_room_always_and_nothing_pushed_is_nothing_to_end():
    intake = Intake(16000, HOP)
    assert not intake.end() and intake.epoch == 0
    intake.push(np.zeros(2 * LARGEST_INBOX, np.float32), 16000, 0)
    assert intake.end() and intake.epoch == 1
    assert not intake.end() and intake.epoch == 1
    assert drained(intake)[-1].samples is None


def test_nothing_at_all_begins_no_utterance_but_belongs_to_one_that_is():
    intake = Intake(16000, HOP)
    assert intake.push(noise(0), 16000, 0)
    assert not intake.end()
    intake.push(noise(1), 16000, 0)
    assert intake.push(noise(0), 16000, 0)
    assert [piece.samples.size for piece in drained(intake)] == [1]
    with pytest.raises(AudioError, match="expected 16000 Hz to the end of the utterance, got 24000 Hz"):
        intake.push(noise(0), 24000, 0)


def test_another_rate_is_refused_until_the_utterance_is_over_and_nothing_changes():
    intake = Intake(16000, HOP)
    intake.push(noise(100), 24000, 0)
    with pytest.raises(AudioError, match="expected 24000 Hz to the end of the utterance, got 16000 Hz; flush"):
        intake.push(noise(100), 16000, 0)
    assert intake.seconds == 100 / 24000
    intake.end()
    assert intake.push(noise(100), 16000, 1)


def test_an_interrupt_forgets_what_waits_and_what_was_on_its_way():
    intake = Intake(16000, HOP)
    intake.push(noise(5000), 24000, 0)
    intake.interrupt()
    assert (intake.epoch, len(intake), intake.seconds) == (1, 0, 0.0)
    assert intake.push(noise(100), 24000, 0)  # of the utterance that is over: taken, and dropped
    assert len(intake) == 0
    assert intake.push(noise(100), 8000, 1)  # another utterance, another rate
    intake.interrupt()
    intake.interrupt()
    assert (intake.epoch, intake.end()) == (3, False)


def test_one_utterance_leaves_nothing_in_the_resampler_of_the_next():
    intake, samples = Intake(24000, HOP), noise(4000)
    for epoch in range(2):
        intake.push(samples, 44100, epoch)
        intake.end()
    pieces = drained(intake)
    first, second = (heard([piece for piece in pieces if piece.epoch == epoch]) for epoch in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_sound_at_the_rate_of_speech_is_resampled_once():
    conversion = Conversion(48000, SAMPLE_RATE)
    heard, sound = conversion.push(noise(4800))
    assert sound is heard
    rest, tail = conversion.flush()
    assert tail is rest


def test_an_ear_gives_what_it_took_once_and_in_order():
    ear = Ear()
    assert ear.take() == []
    for size in (100, 200):
        ear.push(noise(size), 8000)
    pieces = ear.take()
    assert [piece.samples.size for piece in pieces] == [100, 200]
    assert [piece.seconds for piece in pieces] == [0.0125, 0.025]
    assert ear.take() == []


@given(sizes=lists(integers(1, 3000), min_size=1, max_size=6), rate=sampled_from(RATES))
def test_however_the_other_party_is_cut_the_same_samples_are_heard(sizes, rate):
    samples, ear, found = noise(6000), Ear(), []
    for number, piece in enumerate(cut(samples, sizes)):
        ear.push(piece, rate)
        if number % 3 == 0:
            found += [one.resampler.push(one.samples) for one in ear.take()]
    found += [one.resampler.push(one.samples) for one in ear.take()]
    np.testing.assert_array_equal(np.concatenate(found), Resampler(rate).push(samples))


def test_an_ear_changes_its_rate_with_the_sound():
    ear = Ear()
    for rate in (8000, 8000, 48000):
        ear.push(noise(rate // 10), rate)
    first, second, third = ear.take()
    assert first.resampler is second.resampler and third.resampler is not first.resampler
    assert third.resampler.push(third.samples).size + third.resampler.flush().size == SAMPLE_RATE / 10


@pytest.mark.parametrize("rate", [8000, 48000])
def test_an_ear_that_nobody_asks_keeps_the_last_ten_seconds(rate):
    ear, second = Ear(), np.zeros(rate, np.float32)
    for number in range(60):
        ear.push(second + np.float32(number), rate)
    kept = ear.take()
    assert LONGEST_LISTENING <= sum(piece.seconds for piece in kept) < LONGEST_LISTENING + 1.0
    assert kept[-1].samples[-1] == 59.0
    ear.push(np.arange(15 * rate, dtype=np.float32), rate)
    (one,) = ear.take()
    assert one.seconds == LONGEST_LISTENING and one.samples[-1] == 15 * rate - 1
    assert one.samples.base is None  # what is forgotten is no longer in memory
