"""The stream: the same frames however the samples come, and what it refuses. Encoder and sampler are the shipped ones."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis.strategies import integers, lists, one_of

import ditto
from ditto.errors import AudioError
from ditto.media.audio import read_audio
from ditto.stream import MAX_SEED, SAMPLES_PER_FRAME

EXAMPLES = Path(__file__).parents[1] / "examples"
FRAMES = 12


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite")


@pytest.fixture(scope="module")
def speech():
    return read_audio(EXAMPLES / "speech.flac")[8000:][: FRAMES * SAMPLES_PER_FRAME - 100]


@pytest.fixture(scope="module")
def whole(head, portrait, speech):
    return list(head.animate(portrait, speech, seed=3))


def same(frames, others):
    assert len(frames) == len(others)
    for a, b in zip(frames, others, strict=True):
        assert (a.index, a.pts_seconds) == (b.index, b.pts_seconds)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.audio, b.audio)
        np.testing.assert_array_equal(a.motion.values, b.motion.values)


def pushed(stream, samples, sizes):
    frames, start = [], 0
    for size in sizes:
        frames += stream.push(samples[start : start + size])
        start += size
    return frames + stream.push(samples[start:]) + stream.flush()


@settings(max_examples=8, deadline=None, derandomize=True)
@example(sizes=[1] * 700)
@example(sizes=[0, 0, 640, 0])
@example(sizes=[639] * 9)
@example(sizes=[1281] * 5)
@given(sizes=lists(one_of(integers(0, 40), integers(0, 3000)), max_size=30))
def test_any_chunking_gives_the_same_frames(head, portrait, speech, whole, sizes):
    same(pushed(head.stream(portrait, seed=3), speech, sizes), whole)


def test_there_are_as_many_frames_as_begun_and_their_sound_is_what_came(speech, whole):
    assert len(whole) == FRAMES
    sound = np.concatenate([frame.audio for frame in whole])
    np.testing.assert_array_equal(sound[: speech.size], speech)
    assert not sound[speech.size :].any()


def test_after_reset_the_stream_is_as_new(head, portrait, speech, whole):
    stream = head.stream(portrait, seed=3)
    stream.push(speech[:3000])
    stream.flush()
    assert stream.flush() == []
    with pytest.raises(ValueError, match="reset"):
        stream.push(speech)
    stream.reset()
    same(pushed(stream, speech, []), whole)


def test_a_refused_push_leaves_the_stream_as_it_was(head, portrait, speech, whole):
    stream = head.stream(portrait, seed=3)
    frames = stream.push(speech[:4000])
    damaged = speech[4000:].copy()
    damaged[800] = np.nan
    with pytest.raises(AudioError, match=r"got nan as sample 4800 \(0\.300 s\)"):
        stream.push(damaged)
    same(frames + pushed(stream, speech[4000:], []), whole)


@pytest.mark.parametrize("gain", [1e-30, 1e3, 1e19, 1e38])
def test_absurd_levels_give_finite_motion(head, portrait, speech, gain):
    for frame in head.animate(portrait, speech * np.float32(gain / np.abs(speech).max())):
        assert np.isfinite(frame.motion.values).all()


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((640, 2)), np.zeros(640, np.int32), np.zeros(640, complex), np.array([None, 1.0]), b"raw", "words", None,
        0.5, [[0.0], [0.0, 1.0]], np.full(9, np.inf), np.array([1e300]),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_what_is_not_mono_samples_is_refused(head, portrait, samples):
    with pytest.raises(AudioError, match=r"expected .*samples"):
        head.stream(portrait).push(samples)


@pytest.mark.parametrize("kind", [np.float64, np.float16, ">f4", np.int16])
def test_other_numbers_are_converted(head, portrait, kind):
    samples = (np.sin(np.arange(2000) * 0.1) * (8192 if kind is np.int16 else 0.25)).astype(kind)
    stream = head.stream(portrait)
    stream.push(samples)
    sound = np.concatenate([frame.audio for frame in stream.flush()])[:2000]
    np.testing.assert_allclose(sound, np.sin(np.arange(2000) * 0.1) * 0.25, atol=2e-4)  # float16 has 11 bits


@pytest.mark.parametrize(("audio", "error"), [(None, TypeError), (3, TypeError), (b"raw", AudioError),
                                              (np.float32(1), TypeError), ("no/such.wav", AudioError)])  # fmt: skip
def test_audio_of_another_kind_is_refused_at_once(head, portrait, audio, error):
    with pytest.raises(error, match=r"expected a|check the name"):
        head.animate(portrait, audio)


def test_empty_audio_is_refused(head, portrait):
    with pytest.raises(AudioError, match="at least one sample"):
        list(head.animate(portrait, np.zeros(0, np.float32)))


def test_every_seed_is_another_and_the_largest_works(head, portrait, speech, whole):
    near, largest = (list(head.animate(portrait, speech, seed=MAX_SEED - n)) for n in (1, 0))
    assert any((a.motion.values != b.motion.values).any() for a, b in zip(near, largest, strict=True))
    for seed in (-1, MAX_SEED + 1):
        with pytest.raises(ValueError, match="expected a seed in"):
            head.stream(portrait, seed=seed)
    for seed in (1.5, None, "7"):
        with pytest.raises(TypeError):
            head.stream(portrait, seed=seed)


def test_wrong_arguments_are_named(head, portrait):
    with pytest.raises(TypeError, match="expected a Portrait"):
        head.stream("face.npz")
    with pytest.raises(TypeError, match="weights by name"):
        head.stream(portrait, emotion="happy")
    with pytest.raises(ValueError, match="expected an emotion of"):
        head.stream(portrait, emotion={"hapy": 1.0})
    with pytest.raises(ValueError, match=r"expected a style of calm, natural, lively, or a number in .*got 'wild'"):
        head.stream(portrait, style="wild")
    with pytest.raises(TypeError, match=r"expected a style of .*got NoneType"):
        head.animate(portrait, np.zeros(640, np.float32), style=None)


def test_a_timeline_of_controls_turns_the_frames_it_names(head, portrait, speech, whole):
    def timeline(frame):
        return ditto.Controls(yaw_degrees=10.0 if frame >= FRAMES // 2 else 0.0)

    turned = list(head.animate(portrait, speech, seed=3, controls=timeline))
    change = [b.motion.yaw_degrees - a.motion.yaw_degrees for a, b in zip(whole, turned, strict=True)]
    assert change[: FRAMES // 2] == pytest.approx([0.0] * (FRAMES // 2), abs=1e-3)
    assert change[FRAMES // 2 :] == pytest.approx([10.0] * (FRAMES - FRAMES // 2), abs=0.1)  # about its own axis
