"""Listening: nods where the other party pauses, attention while it speaks, the same however the sound is cut."""

import numpy as np
import pytest
from voices import speech

from ditto.errors import AudioError
from ditto.media.rates import SAMPLE_RATE as RATE
from ditto.media.rates import SAMPLES_PER_FRAME as FRAME
from ditto.motion.listening import MOST_WAITING, NEUTRAL, Listener


def talk(*phrases, noise=1e-3, seed=0):
    """Phrases as (seconds, RMS at the beginning, at the end): speech without pauses, then 1.2 s of room."""
    random = np.random.default_rng(seed)
    parts = [noise * random.standard_normal(RATE)]
    for seconds, first, last in phrases:
        n = int(seconds * RATE)
        parts.append(np.linspace(first, last, n) * speech(seconds))
        parts.append(noise * random.standard_normal(int(1.2 * RATE)))
    return np.concatenate(parts).astype(np.float32)


def listen(sound, chunk=FRAME, seed=0):
    """(T, 5) reactions, sound pushed in chunks as soon as a frame needs them."""
    listener, out, at = Listener(seed), [], 0
    for frame in range(len(sound) // FRAME):
        while at < (frame + 1) * FRAME:
            listener.push(sound[at : at + chunk])
            at += chunk
        out.append(listener.react())
    return np.array(out)


def nods(reactions):
    return np.flatnonzero((reactions[1:, 0] > 0.0) & (reactions[:-1, 0] == 0.0))


def test_without_sound_and_in_silence_the_face_does_not_react():
    listener = Listener()
    assert [listener.react() for _ in range(100)] == [NEUTRAL] * 100
    assert np.abs(listen(1e-3 * talk())[:, :4]).max() == 0.0


def test_any_chunking_gives_the_same_reactions():
    sound = talk((3, 0.1, 0.1), (5, 0.1, 0.1), (1, 0.1, 0.1))
    for chunk in (160, 441, 12800, 31000):
        assert np.array_equal(listen(sound, chunk), listen(sound))


def test_it_nods_after_phrases_a_few_degrees_and_not_after_every_one():
    sound = talk(*[(2.5, 0.1, 0.1)] * 20)
    reactions = listen(sound)
    starts = nods(reactions)
    assert 8 <= len(starts) <= 19
    assert 2.0 <= reactions[:, 0].max() <= 4.0
    pause = ((starts * 0.04 - 1.0) % 3.7) - 2.5  # seconds since the phrase ended
    assert ((pause > 0.1) & (pause < 0.8)).mean() > 0.8


def test_it_nods_now_and_then_in_long_speech():
    pauses = np.concatenate([0.1 * speech(2.5), np.zeros(int(0.24 * RATE))])  # too short to end a phrase
    starts = nods(listen(np.resize(pauses, 60 * RATE).astype(np.float32))) * 0.04
    inside = starts[starts < 60]
    assert 3 <= len(inside) <= 15
    assert np.diff(inside).std() > 0.5  # no clockwork


def test_a_rising_end_raises_the_brows():
    asked, said = listen(talk((2, 0.03, 0.3))), listen(talk((2, 0.3, 0.03)))
    assert asked[:, 2].max() > 0.005 and said[:, 2].max() == 0.0


def test_attention_and_fewer_blinks_while_the_other_begins_to_speak():
    reactions = listen(talk((3, 0.1, 0.1)))
    assert reactions[:20, 3].max() == 0.0 and reactions[60:90, 3].min() > 0.7
    assert reactions[32:40, 4].max() < 1.0 and reactions[80, 4] == 1.0


def test_steady_noise_is_no_voice():
    reactions = listen((0.02 * np.random.default_rng(0).standard_normal(20 * RATE)).astype(np.float32))
    assert reactions[-250:, 3].max() < 0.01


def test_when_the_sound_stops_coming_the_phrase_is_over():
    listener = Listener()
    reactions = []
    for second in (0.1 * speech(4)).astype(np.float32).reshape(4, RATE):
        listener.push(second)
        reactions += [listener.react().attention for _ in range(25)]
    assert reactions[-1] > 0.7
    assert [listener.react().attention for _ in range(75)][-1] < 0.02


def test_other_seeds_nod_otherwise():
    sound = talk(*[(2.5, 0.1, 0.1)] * 5)
    assert not np.array_equal(listen(sound, seed=1), listen(sound, seed=2))


def test_memory_is_bounded_and_what_lies_far_back_is_caught_up_with():
    listener = Listener()
    for _ in range(60):
        listener.push(talk())
    assert len(listener._frames) == MOST_WAITING
    for _ in range(50):
        listener.react()
    assert len(listener._frames) == 0


def test_bad_samples_are_refused():
    with pytest.raises(AudioError, match="finite"):
        Listener().push(np.full(9, np.nan))
