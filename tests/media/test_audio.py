import io
import os
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from wav import write_wav

from ditto.errors import AudioError
from ditto.media.audio import (
    SAMPLE_RATE,
    AudioReader,
    Resampler,
    channels_of,
    read_audio,
    reject_encoded,
    safe_planes,
    silence,
)
from ditto.stream import check_samples

EXAMPLE = Path(__file__).parents[2] / "examples" / "speech.flac"


def tone(rate: int, seconds: float = 1.0, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])
def test_any_rate_becomes_16_khz_in_time(tmp_path, rate):
    write_wav(tmp_path / "tone.wav", tone(rate), rate)
    got = read_audio(tmp_path / "tone.wav")
    want = tone(SAMPLE_RATE)
    assert got.dtype == np.float32
    assert abs(got.size - want.size) <= 2
    middle = slice(1600, 14400)  # the resampler rings at both ends of a cut tone
    assert np.abs(got[middle] - want[middle]).max() < 2e-3  # soxr HQ


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_channels_are_averaged(tmp_path, channels):
    samples = np.stack([tone(16000) * (c + 1) / channels for c in range(channels)], 1)
    write_wav(tmp_path / "many.wav", samples)
    np.testing.assert_allclose(read_audio(tmp_path / "many.wav"), samples.mean(1), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_sample_formats_share_one_scale(tmp_path, dtype):
    want = tone(16000)
    if dtype == np.uint8:
        stored = np.round(want * 128 + 128).astype(np.uint8)
    elif np.issubdtype(dtype, np.integer):
        stored = np.round(want * -float(np.iinfo(dtype).min)).astype(dtype)
    else:
        stored = want.astype(dtype)
    write_wav(tmp_path / "format.wav", stored)
    np.testing.assert_allclose(read_audio(tmp_path / "format.wav"), want, atol=1 / 128)  # 8 bits: one level


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_resampling_is_the_same_for_any_chunking(rate):
    samples = tone(rate, 0.7)
    whole = Resampler(rate)
    want = np.concatenate([whole.push(samples), whole.flush()])
    cut = Resampler(rate)
    sizes = np.random.default_rng(0).integers(1, 700, 400)
    edges = np.minimum(np.cumsum(sizes), samples.size)
    pieces = [cut.push(piece) for piece in np.split(samples, edges)] + [cut.flush()]
    np.testing.assert_array_equal(np.concatenate(pieces), want)


def test_blocks_stay_small_and_reading_twice_gives_the_same():
    reader = AudioReader(EXAMPLE)
    blocks = list(reader)
    assert max(block.size for block in blocks) < 2 * SAMPLE_RATE
    assert reader.damage is None
    assert abs(sum(block.size for block in blocks) / SAMPLE_RATE - reader.duration_seconds) < 1e-3
    np.testing.assert_array_equal(np.concatenate(blocks), np.concatenate(list(reader)))


def test_memory_does_not_grow_with_the_recording(tmp_path):
    import tracemalloc

    with wave.open(str(tmp_path / "long.wav"), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(1)
        stream.setframerate(8000)
        for _ in range(15):
            stream.writeframes(b"\x80" * 8000 * 60)
    tracemalloc.start()
    total = sum(block.size for block in AudioReader(tmp_path / "long.wav"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 15 * 60 * SAMPLE_RATE
    assert peak < 4 << 20  # the whole would be 58 MB


def test_silence_is_audio(tmp_path):
    write_wav(tmp_path / "silence.wav", np.zeros(16000, np.int16))
    assert not read_audio(tmp_path / "silence.wav").any()


def test_sound_of_a_video_file(tmp_path):
    from ditto.media.video import VideoWriter

    with VideoWriter(tmp_path / "film.mp4", 64, 64, audio=EXAMPLE) as writer:
        for _ in range(50):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    got, want = read_audio(tmp_path / "film.mp4")[:32000], read_audio(EXAMPLE)[:32000]
    assert np.corrcoef(got, want)[0, 1] > 0.98  # AAC is lossy, but in place


@pytest.mark.parametrize("content", [b"", b"not audio at all " * 50, b"RIFF\x00\x00"])
def test_unreadable_files_are_refused_by_name(tmp_path, content):
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(AudioError, match=r"bad\.wav"):
        AudioReader(tmp_path / "bad.wav")


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(AudioError, match="No such file"):
        AudioReader(tmp_path / "none.wav")
    with pytest.raises(AudioError, match="folder"):
        AudioReader(tmp_path)


def test_a_picture_has_no_sound_track(tmp_path):
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "picture.png")
    with pytest.raises(AudioError, match="sound track"):
        AudioReader(tmp_path / "picture.png")


def test_a_file_without_samples_is_refused(tmp_path):
    write_wav(tmp_path / "empty.wav", np.zeros(0, np.int16))
    with pytest.raises(AudioError, match=r"empty\.wav"):
        list(AudioReader(tmp_path / "empty.wav"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_with_their_place(tmp_path, value):
    samples = tone(16000)
    samples[8000] = value
    write_wav(tmp_path / "nan.wav", samples)
    with pytest.raises(AudioError, match=r"0\.500 s"):
        list(AudioReader(tmp_path / "nan.wav"))


def test_a_truncated_file_is_read_to_its_end_and_says_so(tmp_path):
    write_wav(tmp_path / "whole.wav", np.tile(tone(16000), 4))
    data = (tmp_path / "whole.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[: len(data) // 4])
    reader = AudioReader(tmp_path / "cut.wav")
    assert abs(sum(block.size for block in reader) - 16000) < 1024  # FFmpeg 8.0 drops the last, broken packet
    assert "shorter than its header says" in (reader.damage or "")


def test_a_truncated_flac_is_read_to_its_end_and_says_so(tmp_path):
    data = EXAMPLE.read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    reader = AudioReader(tmp_path / "cut.flac")
    assert sum(block.size for block in reader) > SAMPLE_RATE
    assert reader.damage


def test_a_damaged_middle_is_skipped_and_said(tmp_path):
    data = bytearray(EXAMPLE.read_bytes())
    data[80_000:90_000] = b"\xff" * 10_000
    (tmp_path / "hole.flac").write_bytes(data)
    reader = AudioReader(tmp_path / "hole.flac")
    assert sum(block.size for block in reader) > 5 * SAMPLE_RATE
    assert reader.damage


def test_odd_rates_are_refused():
    with pytest.raises(AudioError, match="1000"):
        Resampler(1000)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    path = write_wav(tmp_path / "a.wav", np.zeros(640, np.int16))
    monkeypatch.setattr("ditto.media.files.os.access", lambda *_: False)  # modes do not bind a superuser
    with pytest.raises(AudioError, match="check its permissions"):
        AudioReader(path)


ENCODED = {
    "WAV": lambda: b"RIFF\x24\x7d\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\0\x7d\0\0" + bytes(100),
    "FLAC": lambda: EXAMPLE.read_bytes()[:400],
    "MP3": lambda: (b"\xff\xfb\x90\xc4" + bytes(413)) * 3 + bytes(1),
    "ID3": lambda: b"ID3\4\0\0\0\0\0\x23TSSE" + bytes(50),
    "Ogg": lambda: b"OggS\0\2" + bytes(8) + b"OpusHead" * 4,
    "MP4": lambda: b"\0\0\0\x1cftypisom\0\0\2\0isomiso2mp41" + bytes(4),
    "WebM": lambda: b"\x1aE\xdf\xa3\x9fB\x86\x81\1B\xf7\x81\1B\xf2\x81\4B\xf3\x81\x08B\x82\x84webm" + bytes(9),
}


@pytest.mark.parametrize("kind", ENCODED)
@pytest.mark.parametrize(
    "reading",
    [
        bytes,
        memoryview,
        lambda data: np.frombuffer(data, np.uint8),
        lambda data: np.frombuffer(data, np.int16),
        lambda data: np.frombuffer(data, np.float32),
        lambda data: np.frombuffer(data, np.int16) / np.float32(32768),
    ],
)
def test_the_bytes_of_a_file_are_refused_as_samples(kind, reading):
    data = ENCODED[kind]()
    with pytest.raises(AudioError, match=rf"file \(.*{kind}.*\).*AudioReader"):
        check_samples(reading(data[: len(data) // 4 * 4]))


def test_sound_is_not_taken_for_a_file():
    random = np.random.default_rng(0)
    speech = read_audio(EXAMPLE)
    for start in range(0, speech.size - 320, 320):
        reject_encoded(speech[start : start + 320])
    for level in (0.5, 1, 3, 20, 600, 8000):  # of 32768
        for _ in range(200):
            noise = np.rint(random.normal(0, level, 640)).astype(np.int16)
            reject_encoded(noise)
            reject_encoded(noise.tobytes())
    for value in range(-32768, 32768, 7):  # a constant repeats itself at every distance
        reject_encoded(np.full(320, value, np.int16))


def test_sound_too_quiet_to_move_anything_is_noted(tmp_path, caplog):
    write_wav(tmp_path / "quiet.wav", tone(16000) / 500)  # -63 dB of full scale
    write_wav(tmp_path / "loud.wav", tone(16000) / 100)
    read_audio(tmp_path / "loud.wav")
    assert caplog.text == ""
    read_audio(tmp_path / "quiet.wav")
    assert "quiet.wav: its loudest part is at -63 dB of full scale" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{0}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {0}\n",
        "ffconcat version 1.0\nfile '{1}'\n",
    ],
)
def test_a_file_makes_ffmpeg_open_no_other(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "secret.wav", tone(16000))
    (tmp_path / "list.wav").write_text(content.format("secret.wav", tmp_path / "secret.wav"))
    for given in (tmp_path / "list.wav", (tmp_path / "list.wav").read_bytes()):
        with pytest.raises(AudioError):
            read_audio(given)


def test_every_way_to_give_a_recording_gives_the_same_sound(tmp_path):
    want = read_audio(EXAMPLE)
    link = tmp_path / "12:30.flac"
    link.symlink_to(EXAMPLE)
    entry = next(entry for entry in os.scandir(tmp_path))
    for given in (str(link), link, entry, EXAMPLE.read_bytes(), io.BytesIO(EXAMPLE.read_bytes()), EXAMPLE.open("rb")):
        np.testing.assert_array_equal(read_audio(given), want)


def test_a_tag_in_another_encoding_is_no_obstacle(tmp_path):
    data = write_wav(tmp_path / "a.wav", tone(16000)).read_bytes()
    tag = b"LIST" + (16).to_bytes(4, "little") + b"INFOIART" + (4).to_bytes(4, "little") + b"\xe9\xff\xfa\0"
    assert read_audio(data[:12] + tag + data[12:]).size == 16000


@pytest.mark.parametrize("channels", [2, 8, 9, 41, 64])
def test_planes_of_many_channels_are_read_safely(channels):
    want = np.random.default_rng(0).integers(-9999, 9999, (channels, 500)).astype(np.int16)
    packed = silence("s16", f"{channels} channels", 16000, 500)
    packed.planes[0].update(want.T.tobytes().ljust(packed.planes[0].buffer_size, b"\0"))
    (planar,) = av.AudioResampler(format="s16p", layout=f"{channels} channels", rate=16000).resample(packed)
    assert planar.format.is_planar
    for _ in range(20):
        np.testing.assert_array_equal(channels_of(safe_planes(planar)) * 32768, want)
