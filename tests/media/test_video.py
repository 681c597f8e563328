import errno
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from wav import write_wav

from ditto.errors import AudioError, OutputError
from ditto.media import formats
from ditto.media.audio import read_audio
from ditto.media.video import VideoWriter, check_output

EXAMPLE = Path(__file__).parents[2] / "examples" / "speech.flac"
SUFFIXES = [".mp4", ".webm"]


def picture(index: int, width: int = 96, height: int = 64) -> np.ndarray:
    image = np.full((height, width, 3), (180, 120, 90), np.uint8)
    image[20:40, 2 * index % width : 2 * index % width + 10] = (20, 60, 200)
    return image


def write(path: Path, frames: int, audio: Path | None = None, samples: np.ndarray | None = None) -> None:
    with VideoWriter(path, 96, 64, audio=audio) as writer:
        for i in range(frames):
            writer.write(picture(i), None if samples is None else samples[640 * i : 640 * (i + 1)])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_frame_comes_back_at_its_time(tmp_path, suffix):
    write(tmp_path / f"out{suffix}", 40, audio=EXAMPLE)
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        frames = list(container.decode(video=0))
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    assert [round(frame.time * 25) for frame in frames] == list(range(40))
    for i in (0, 17, 39):
        difference = frames[i].to_ndarray(format="rgb24").astype(float) - picture(i)
        assert np.sqrt((difference**2).mean()) < 8  # lossy, chroma at half size


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2), (192000, 8)])
def test_sound_is_as_long_as_the_pictures(tmp_path, suffix, rate, channels):
    samples = 0.3 * np.sin(np.arange(int(rate * 1.29))[:, None] / rate * 1000 * np.ones(channels)).astype(np.float32)
    write_wav(tmp_path / "in.wav", samples, rate)
    for frames in (10, 33, 60):  # cut, as long (33 * 40 ms = 1.32 s), filled with silence
        write(tmp_path / f"out{suffix}", frames, audio=tmp_path / "in.wav")
        with av.open(str(tmp_path / f"out{suffix}")) as container:
            sound = list(container.decode(audio=0))
        seconds = sound[-1].time + sound[-1].samples / sound[-1].sample_rate
        assert abs(seconds - frames / 25) < 0.04
        assert abs(sound[0].time) < 0.001


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_samples_given_with_frames_become_the_sound(tmp_path, suffix):
    samples = read_audio(EXAMPLE)[: 50 * 640]
    write(tmp_path / f"out{suffix}", 50, samples=samples)
    got = read_audio(tmp_path / f"out{suffix}")[: samples.size]
    assert abs(got.size - samples.size) < 640
    assert np.corrcoef(got, samples[: got.size])[0, 1] > 0.98


def test_mp4_starts_with_its_index(tmp_path):
    write(tmp_path / "out.mp4", 5, audio=EXAMPLE)
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_file_appears_only_when_complete(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 96, 64) as writer:
        writer.write(picture(0))
        assert not (tmp_path / "out.mp4").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_nothing_and_keeps_the_old_file(tmp_path, error):
    (tmp_path / "out.mp4").write_bytes(b"old")
    with pytest.raises(error), VideoWriter(tmp_path / "out.mp4", 96, 64, audio=EXAMPLE) as writer:
        writer.write(picture(0))
        raise error
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"old"


def test_the_cheap_check_refuses_what_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match=r"\.mp4, \.webm, .* or srt://, got 'out.avi'"):
        check_output(tmp_path / "out.avi")
    with pytest.raises(OutputError, match="make it first"):
        check_output(tmp_path / "none" / "out.mp4")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="make it first"):
        check_output(tmp_path / "file" / "out.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path / "folder.mp4")


@pytest.mark.parametrize(
    ("number", "todo"), [(errno.EACCES, "may write"), (errno.EROFS, "read-only"), (errno.ENOSPC, "space")]
)
def test_a_folder_that_refuses_files_is_reported(tmp_path, monkeypatch, number, todo):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(OutputError, match=todo):
        check_output(tmp_path / "out.mp4")


def test_a_missing_encoder_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "FORMATS", (formats.FORMATS[0]._replace(encoder="libnone"),))
    with pytest.raises(OutputError, match=r"libnone for \.mp4 \(h264\)"):
        check_output(tmp_path / "out.mp4")


@pytest.mark.parametrize("name", ["out.mp4", "out.m3u8", "%d.png"])
def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path, name):
    # A limit on the size of files is the nearest thing to a full disk that every machine can make.
    script = f"""
import resource, numpy as np
from ditto.errors import OutputError
from ditto.media.video import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
random = np.random.default_rng(0)
try:
    with VideoWriter({str(tmp_path / name)!r}, 256, 256) as writer:
        for _ in range(40):
            writer.write(random.integers(0, 255, (256, 256, 3), np.uint8))
except OutputError as error:
    print(error)
"""
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert f"{name} cannot be written" in done.stdout
    if name != "out.m3u8":  # which is ended
        assert list(tmp_path.iterdir()) == []


def test_failing_to_move_into_place_is_an_output_error(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match="free some space"):
        write(tmp_path / "out.mp4", 2)
    assert list(tmp_path.iterdir()) == []


def test_wrong_frames_are_refused(tmp_path):
    with pytest.raises(ValueError, match="even"):
        VideoWriter(tmp_path / "out.mp4", 95, 64)
    with pytest.raises(ValueError, match="one size"), VideoWriter(tmp_path / "out.mp4", 96, 64) as writer:
        writer.write(picture(0, 64, 64))
    with pytest.raises(ValueError, match="every frame"), VideoWriter(tmp_path / "out.mp4", 96, 64) as writer:
        writer.write(picture(0), np.zeros(640, np.float32))
        writer.write(picture(1))
    assert list(tmp_path.iterdir()) == []


def test_no_frames_and_no_sound_are_refused(tmp_path):
    with pytest.raises(OutputError, match="at least one frame"), VideoWriter(tmp_path / "out.mp4", 96, 64):
        pass
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(AudioError, match="0 bytes"):
        VideoWriter(tmp_path / "out.mp4", 96, 64, audio=tmp_path / "empty.wav")
    assert [p.name for p in tmp_path.iterdir()] == ["empty.wav"]


def test_an_error_of_the_input_is_not_blamed_on_the_output(tmp_path, monkeypatch):
    def fails(*args):
        raise av.ArgumentError(22, "Invalid argument")

    monkeypatch.setattr("ditto.media.video.SoundTrack.add", fails)
    writer = VideoWriter(tmp_path / "out.mp4", 96, 64, audio=EXAMPLE)
    with pytest.raises(AudioError, match=r"speech\.flac.*Invalid argument"):
        writer.write(picture(0))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="closed or failed"):
        writer.write(picture(1))


@pytest.mark.parametrize("name", ["12:30", "file:x", "-x", "a%03d", "#x?"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_output_names_are_taken_literally(tmp_path, monkeypatch, name, suffix):
    monkeypatch.chdir(tmp_path)
    write(Path(name + suffix), 3, audio=EXAMPLE)
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".c2pa"] == [name + suffix]
    assert read_audio(name + suffix).size > 1000


def test_a_link_to_the_output_is_written_through(tmp_path):
    (tmp_path / "real.mp4").write_bytes(b"old")
    (tmp_path / "real.mp4").chmod(0o640)
    (tmp_path / "link.mp4").symlink_to("real.mp4")
    write(tmp_path / "link.mp4", 3)
    assert (tmp_path / "link.mp4").is_symlink()
    assert (tmp_path / "real.mp4").stat().st_size > 100
    assert (tmp_path / "real.mp4").stat().st_mode & 0o777 == 0o640
