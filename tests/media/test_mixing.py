from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wav import write_wav

from ditto.media.audio import read_audio
from ditto.media.mixing import Mixer

SPEECH = read_audio(Path(__file__).parents[2] / "examples" / "speech.flac")[16000 : 16000 * 5]
RATE = 16000


def mixed(channels: np.ndarray, rate: int = RATE, edges: list[int] | None = None) -> np.ndarray:
    mixer = Mixer(rate, len(channels))
    pieces = [mixer.push(piece) for piece in np.split(channels, edges or [], axis=1)]
    return np.concatenate([*pieces, mixer.flush()])


def level(samples: np.ndarray) -> float:
    return 10 * np.log10((samples.astype(np.float64) ** 2).mean() + 1e-20)


def later(samples: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([np.zeros(count, samples.dtype), samples[:-count]])


def noise(channels: int, decibels: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 10 ** (decibels / 20), (channels, SPEECH.size)).astype(np.float32)


ORDINARY = {
    "equal": np.stack([SPEECH, SPEECH]),
    "softer": np.stack([SPEECH, 0.3 * SPEECH]),
    "independent": noise(2, -30),
    "centre and noise": np.stack([SPEECH, SPEECH]) + noise(2, -40),
    "in a room": np.stack([SPEECH + 0.5 * later(SPEECH, 400), SPEECH + 0.5 * later(SPEECH, 711)]),
    "six": np.stack([SPEECH * gain for gain in (0.5, 0.5, 1, 0.1, 0.2, 0.2)]) + noise(6, -60),
} | {
    f"{count} samples apart": np.stack([SPEECH, later(SPEECH, count)]) + noise(2, -80)
    for count in (4, 8, 16, 20, 24, 28, 40, 64, 160)
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_recordings_are_their_mean_bit_for_bit(name):
    channels = ORDINARY[name].astype(np.float32)
    np.testing.assert_array_equal(mixed(channels), channels.mean(axis=0))


@pytest.mark.parametrize("other", [-1.0, -0.6, -1.6])
@pytest.mark.parametrize("hiss", [-90, -40])
def test_an_inverted_channel_is_heard(other, hiss):
    got = mixed(np.stack([SPEECH, other * SPEECH]).astype(np.float32) + noise(2, hiss))
    assert abs(level(got) - level(SPEECH * (1 - other) / 2)) < 0.3
    assert np.corrcoef(got, SPEECH)[0, 1] > 0.98


@pytest.mark.parametrize(("channels", "inverted"), [(3, [2]), (4, [1, 3]), (6, [0, 2, 4]), (9, [0, 1, 2, 3])])
def test_inverted_channels_among_several_are_heard(channels, inverted):
    stacked = np.tile(SPEECH, (channels, 1))
    stacked[inverted] *= -1
    got = mixed(stacked)
    assert level(got) > level(SPEECH) - 10


@pytest.mark.parametrize("channels", [2, 6, 64])
@pytest.mark.parametrize("where", [0, -1])
def test_a_recording_in_one_channel_keeps_its_level(channels, where):
    stacked = np.zeros((channels, SPEECH.size), np.float32)
    stacked[where] = SPEECH
    np.testing.assert_array_equal(mixed(stacked), SPEECH)


def test_a_channel_inverted_midway_is_heard_and_what_comes_before_stays():
    half = SPEECH.size // 2
    other = np.concatenate([SPEECH[:half], -SPEECH[half:]])
    got = mixed(np.stack([SPEECH, other]))
    np.testing.assert_array_equal(got[: half - RATE // 2], SPEECH[: half - RATE // 2])
    np.testing.assert_allclose(got[half + RATE // 2 :], SPEECH[half + RATE // 2 :], atol=1e-6)
    back = mixed(np.stack([SPEECH, np.concatenate([-SPEECH[:half], SPEECH[half:]])]))
    np.testing.assert_array_equal(back[half + RATE // 2 :], SPEECH[half + RATE // 2 :])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 3 * RATE), max_size=20).map(sorted),
    st.sampled_from([RATE, 8000, 44100, 4001]),
    st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=1, max_size=5),
)
def test_the_mix_does_not_depend_on_how_the_samples_come(edges, rate, gains):
    channels = np.array(gains, np.float32)[:, None] * SPEECH[: 3 * RATE] + noise(len(gains), -50)[:, : 3 * RATE]
    whole = mixed(channels, rate)
    assert whole.size == 3 * RATE
    np.testing.assert_array_equal(mixed(channels, rate, edges), whole)


@pytest.mark.parametrize("channels", [9, 10, 11, 12, 13, 15, 17, 20, 32, 64])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_any_number_of_channels_is_mixed_down(tmp_path, channels, dtype):
    from ditto.media.video import VideoWriter

    scale = 32767 if dtype == np.int16 else 1
    write_wav(tmp_path / "in.wav", np.tile(SPEECH[:RATE, None] * scale, (1, channels)).astype(dtype))
    got = read_audio(tmp_path / "in.wav")
    np.testing.assert_allclose(got, SPEECH[:RATE], atol=1e-4)
    for suffix in (".mp4", ".webm"):
        with VideoWriter(tmp_path / f"out{suffix}", 64, 64, audio=tmp_path / "in.wav") as writer:
            for _ in range(25):
                writer.write(np.zeros((64, 64, 3), np.uint8))
        assert level(read_audio(tmp_path / f"out{suffix}")) > level(got) - 1
