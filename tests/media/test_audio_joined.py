"""Files that join several recordings, that change their format midway, that were damaged: read to their end, or refused."""

import io
import itertools
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import FRAMES_ONLY, KINDS, WITH_HEADER, encode, recording, tone

from ditto.errors import DittoError
from ditto.media.audio import SAMPLE_RATE, AudioReader, read_audio
from ditto.media.containers import mpeg_frame, recordings
from ditto.media.video import FileTrack, VideoWriter


def make(name: str, turn: int, hertz: float = 440.0) -> bytes:
    """A recording of this kind; `turn` goes through its rates and numbers of channels."""
    kind = KINDS[name]
    return recording(name, kind.rates[turn % 2], kind.channels[turn // 2 % len(kind.channels)], hertz)


alone = cache(read_audio)


def sound_of_video(reader: AudioReader, seconds: float) -> np.ndarray:
    """(C, N) at 48 kHz: what the writer encodes, without the encoder."""
    layout = "mono" if reader.decoder.most_channels == 1 else "stereo"
    track = FileTrack(None, 48000, layout, reader.decoder)
    return np.concatenate([frame.to_ndarray() for frame in track.until(round(seconds * 25))], axis=1)


def level(samples: np.ndarray) -> float:
    return 10 * np.log10((samples.astype(np.float64) ** 2).mean() + 1e-12)


def loudness(samples: np.ndarray, hertz: float) -> float:
    """Amplitude of a tone in samples at 16 kHz."""
    turning = np.exp(-2j * np.pi * hertz * np.arange(samples.size) / SAMPLE_RATE)
    return 2 * abs((samples * turning).sum()) / samples.size


@pytest.mark.parametrize("first", WITH_HEADER)
def test_recordings_joined_in_one_file_are_read_one_after_the_other(first):
    for turn, second in enumerate(WITH_HEADER):
        files = make(first, turn), make(second, turn // 2 + 3), make(first, turn + 1)
        reader = AudioReader(b"".join(files))
        got = np.concatenate(list(reader))
        want = np.concatenate([alone(file) for file in files])
        # Where two have one rate and number of channels, the resampler rings at their common edge, not at two ends.
        np.testing.assert_allclose(got, want, atol=0.05, err_msg=f"{first}, {second}")
        assert reader.damage is None
        sound = sound_of_video(reader, want.size / SAMPLE_RATE)
        thirds = np.array_split(sound, 3, axis=1)
        assert min(level(third) for third in thirds) > level(want) - 2  # edges and paddings of the codecs


@pytest.mark.parametrize("name", FRAMES_ONLY)
@pytest.mark.parametrize("turns", itertools.permutations(range(4), 2))
def test_a_stream_that_changes_its_format_midway_is_read_to_its_end(name, turns):
    reader = AudioReader(make(name, turns[0], 440.0) + make(name, turns[1], 700.0))
    got = np.concatenate(list(reader))
    assert abs(got.size / SAMPLE_RATE - 0.4) < 0.3  # each is filled up to whole frames, of 2048 samples at most
    assert loudness(got[: got.size // 3], 440.0) > 0.15
    assert loudness(got[-got.size // 3 :], 700.0) > 0.15
    sound = sound_of_video(reader, got.size / SAMPLE_RATE)
    half = sound.shape[1] // 2
    assert level(sound[:, :half]) > -20
    assert level(sound[:, half:]) > -20


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("turns", [(0, 3), (3, 0), (1, 2), (2, 1)])
def test_a_video_carries_sound_that_changes_its_format(tmp_path, suffix, turns):
    (tmp_path / "in.mp3").write_bytes(mp3_frames(turns[0], 440.0) + mp3_frames(turns[1], 700.0))
    reader = AudioReader(tmp_path / "in.mp3")
    want = np.concatenate(list(reader))
    with VideoWriter(tmp_path / f"out{suffix}", 64, 64, audio=reader) as writer:
        for _ in range(want.size // 640):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    got = read_audio(tmp_path / f"out{suffix}")
    assert abs(level(got) - level(want)) < 1
    assert loudness(got[: got.size // 3], 440.0) > 0.15
    assert loudness(got[-got.size // 3 :], 700.0) > 0.15
    beside = {"out.c2pa"} if suffix == ".webm" else set()  # its content credentials, where c2pa is installed
    assert {p.name for p in tmp_path.iterdir()} - beside == {"in.mp3", f"out{suffix}"}


def mp3_frames(turn: int, hertz: float = 440.0, seconds: float = 0.5) -> bytes:
    """An MP3 without any header."""
    rate, channels = (16000, 44100)[turn % 2], (1, 2)[turn // 2 % 2]
    samples = np.tile(tone(rate, seconds, hertz), (channels, 1))
    return encode(KINDS["mp3"], samples, rate, {"write_xing": "0", "id3v2_version": "0"})


ID3 = b"ID3\4\0\0\0\0\0\x23TIT2\0\0\0\5\0\0\3abcd" + bytes(20)
ID3V1 = b"TAG" + b"a" * 125
APE = b"".join(b"APETAGEX\xd0\7\0\0\x28\0\0\0\1\0\0\0\0\0\0" + flag + bytes(8) + body for flag, body in
               ((b"\xa0", bytes(8)), (b"\x80", b"")))  # fmt: skip


@pytest.mark.parametrize("tag", [ID3, ID3V1, APE, ID3V1 + ID3, ID3 + ID3])
def test_tags_between_the_frames_of_an_mp3_lose_nothing(tag):
    whole = mp3_frames(1)
    at = 0
    while at < len(whole) // 2:
        at += mpeg_frame(whole[at : at + 4])
    reader = AudioReader(whole[:at] + tag + whole[at:])
    np.testing.assert_array_equal(np.concatenate(list(reader)), read_audio(whole))
    assert reader.damage is None


@pytest.mark.parametrize("tag", [b"", ID3, ID3V1, ID3V1 + ID3])
def test_tagged_mp3_files_joined_are_all_read(tag):
    file = make("mp3", 1)
    reader = AudioReader(file + tag + make("mp3", 2))
    want = np.concatenate([read_audio(file), read_audio(make("mp3", 2))])
    got = np.concatenate(list(reader))
    assert abs(got.size - want.size) < 0.03 * SAMPLE_RATE  # two tags before a header: an encoder's delay stays
    assert reader.damage is None


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 2_000_000_000, 0xFFFFFFDB])
def test_sizes_of_a_writer_that_did_not_know_them_are_no_damage(size):
    wav = bytearray(make("wav s16", 0))
    at = wav.index(b"data") + 4
    want = read_audio(bytes(wav))
    for riff in (size, min(size + 36, 0xFFFFFFFF), 36, int.from_bytes(wav[4:8], "little")):
        wav[4:8], wav[at : at + 4] = riff.to_bytes(4, "little"), size.to_bytes(4, "little")
        reader = AudioReader(bytes(wav))
        np.testing.assert_array_equal(np.concatenate(list(reader)), want)
        assert reader.damage is None
        twice = AudioReader(bytes(wav) * 2)
        np.testing.assert_array_equal(np.concatenate(list(twice)), np.tile(want, 2))
        assert twice.damage is None


def test_frames_without_a_header_follow_a_wav():
    frames = mp3_frames(1)
    got = read_audio(make("wav s16", 0) + frames)
    np.testing.assert_array_equal(got, np.concatenate([read_audio(make("wav s16", 0)), read_audio(frames)]))


def test_what_follows_a_recording_and_cannot_be_read_is_said():
    noise = np.random.default_rng(0).bytes(5000)
    reader = AudioReader(make("wav s16", 0) + noise)
    list(reader)
    assert "5000 bytes" in (reader.damage or "")


def test_an_mp3_with_uneven_frames_and_no_header_is_whole():
    noise = np.random.default_rng(0).normal(0, 0.2, 44100)
    quiet = np.zeros(44100 * 4)
    options = {"write_xing": "0", "id3v2_version": "0"}
    loud_first = encode(KINDS["mp3"], np.concatenate([quiet, noise])[None], 44100, options)
    reader = AudioReader(loud_first)
    assert sum(block.size for block in reader) > 5 * SAMPLE_RATE
    assert reader.damage is None


def test_a_cut_mp3_whose_header_counts_its_frames_says_so():
    whole = encode(KINDS["mp3"], tone(44100, 2.0)[None], 44100)
    reader = AudioReader(whole[: len(whole) // 2])
    list(reader)
    assert "declares 2.0" in (reader.damage or "")


@pytest.mark.parametrize("name", ["mkv", "webm", "m4a", "ogg opus", "mpegts"])
def test_a_pause_in_the_time_stamps_is_kept_as_silence(name):
    rate = KINDS[name].rates[1]
    data = encode(KINDS[name], tone(rate, 2.0)[None], rate, gap=1.5)
    reader = AudioReader(data)
    got = np.concatenate(list(reader))
    assert abs(got.size / SAMPLE_RATE - 3.5) < 0.1
    assert level(got[int(1.2 * SAMPLE_RATE) : int(2.3 * SAMPLE_RATE)]) < -60
    assert level(got[int(2.7 * SAMPLE_RATE) : int(3.3 * SAMPLE_RATE)]) > -15
    assert reader.damage is None
    sound = sound_of_video(reader, 3.5)
    assert level(sound[:, int(1.2 * 48000) : int(2.3 * 48000)]) < -60
    assert level(sound[:, int(2.7 * 48000) : int(3.3 * 48000)]) > -15


def test_a_jump_of_the_time_stamps_in_a_broadcast_makes_no_hours_of_silence():
    reader = AudioReader(encode(KINDS["mpegts"], tone(44100, 2.0)[None], 44100, gap=5000.0))
    assert sum(block.size for block in reader) < 3 * SAMPLE_RATE
    assert "jump" in (reader.damage or "")


def test_one_recording_is_one_whatever_it_holds():
    for name in KINDS:
        data = make(name, 1)
        assert recordings(io.BytesIO(data), len(data)) == [[(0, len(data))]], name


DAMAGED = [make(name, 1) for name in KINDS] + [make("mp3", 0) + make("mp3", 3), mp3_frames(0) + mp3_frames(3),
                                             make("wav s16", 0) + make("flac s16", 3)]  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_truncated_and_changed_bytes_are_read_or_refused(data):
    content = bytearray(data.draw(st.sampled_from(DAMAGED)))
    end = data.draw(st.one_of(st.just(len(content)), st.integers(1, len(content))))
    del content[end:]
    places = st.one_of(st.integers(0, len(content) - 1), st.integers(0, min(200, len(content) - 1)))
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=12)):
        content[at] = value
    try:
        reader = AudioReader(bytes(content))
        seconds = sum(block.size for block in reader) / SAMPLE_RATE
        sound_of_video(reader, 0.04 + min(seconds, 5.0))
    except DittoError as error:
        assert "the bytes given" in str(error) or "sample rates" in str(error)


def test_nothing_that_a_file_holds_ends_the_process(tmp_path):
    (tmp_path / "in.mp3").write_bytes(mp3_frames(3, seconds=1.0) + mp3_frames(0, seconds=1.0))
    script = f"""
import numpy as np
from ditto.media.video import VideoWriter
with VideoWriter({str(tmp_path / "out.mp4")!r}, 64, 64, audio={str(tmp_path / "in.mp3")!r}) as writer:
    for _ in range(55):
        writer.write(np.zeros((64, 64, 3), np.uint8))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp3", "out.mp4"]
    assert Path(tmp_path / "out.mp4").stat().st_size > 1000
