"""A signal in the midst of writing: whatever a command writes, the file that was there stays, and no half of the new one."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import ditto
from ditto import exchange
from ditto.app.pictures import write_sheet
from ditto.commands import interruption
from ditto.controls.driving import Performance
from ditto.controls.timeline import Timeline
from ditto.controls.timeline_file import write_timeline
from ditto.exchange import performance, subtitles, visemes
from ditto.exchange.subtitles import Word
from ditto.exchange.track import BlendshapeTrack
from ditto.exchange.visemes import Viseme
from ditto.media.video import VideoWriter
from ditto.media.virtual_camera import VirtualCamera
from ditto.provenance import Provenance
from ditto.take import Clip, Take

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals as on Unix")

PICTURE = np.zeros((64, 64, 3), np.uint8)
TRACK = BlendshapeTrack(np.arange(5) / 25, np.full((5, 52), 0.1), np.zeros((5, 3)))
WORDS = [Word("best", 0, 0.0, 0.5)]
EMOTION = np.eye(8, dtype=np.float32)[4]


def video(path):
    with VideoWriter(path, 64, 64) as writer:
        for _ in range(9):
            writer.write(PICTURE, np.zeros(640, np.float32))
        Path(path).write_bytes(b"")  # of the patch: the signal comes here


def take(path):
    rows = np.zeros((3, 70), np.float32)
    clip = Clip(rows, np.tile(EMOTION, (3, 1)), None, 0, 0, EMOTION, 1.0, False, Timeline(), None)
    Take("lite 0", (clip,)).save(path)


WRITERS = {
    **dict.fromkeys(("video.mp4", "video.mov", "video.webm", "video.gif", "video.webp", "picture_%03d.png"), video),
    "sheet.png": lambda path: write_sheet(path, PICTURE, Provenance()),
    "talk.take": take,
    "edit.yaml": lambda path: write_timeline(Timeline().blink(1), path),
    "edit.json": lambda path: write_timeline(Timeline().blink(1), path),
    "drive.safetensors": lambda path: performance.write(Performance(np.zeros((3, 70), np.float32)), path),
    "mouth.json": lambda path: visemes.write_json([Viseme("sil", 0.0, 1.0)], path),
    "mouth.vtt": lambda path: visemes.write_webvtt([Viseme("sil", 0.0, 1.0)], path),
    "words.vtt": lambda path: subtitles.write_webvtt(WORDS, path),
    "words.srt": lambda path: subtitles.write_subrip(WORDS, path),
    "words.json": lambda path: subtitles.write_json(WORDS, path),
    **{f"track.{name}": lambda path, name=name: exchange.write(TRACK, path, name) for name in exchange.FORMATS},
}


@pytest.fixture(scope="module")
def writers(portrait):
    """`WRITERS`, and those of a portrait."""
    return WRITERS | {"face.npz": portrait.save, "face.ditto": lambda path: ditto.load("lite").pack(portrait, path)}


@pytest.fixture
def watched():
    """The signals of the command line, as `errors_reported` has them."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = {number: signal.getsignal(number) for number in numbers}
    interruption.watch()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    interruption.number = None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("name", [*WRITERS, "face.npz", "face.ditto"])
def test_a_signal_in_the_midst_of_writing_leaves_what_was_there(name, number, tmp_path, monkeypatch, watched, writers):
    file = tmp_path / name
    file.write_bytes(b"the file before")
    seen = []

    def half(path, data):
        """What `Path.write_bytes` does when a signal comes in the midst of it."""
        with open(path, "ab") as stream:
            stream.write(bytes(data)[: len(data) // 2])
        seen.extend(tmp_path.iterdir())
        os.kill(os.getpid(), number)

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        writers[name](file)
    monkeypatch.undo()
    assert len(seen) == 2  # the file before, and the one being written
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"the file before")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_in_the_midst_of_showing_gives_the_camera_back(number, monkeypatch, watched):
    class Camera:
        device, closed = "Camera 1", 0

        def __init__(self, *size, device):
            cameras.append(self)

        def send(self, frame):
            os.kill(os.getpid(), number)

        def close(self):
            self.closed += 1

    cameras = []
    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=Camera))
    with pytest.raises(KeyboardInterrupt), VirtualCamera(64, 64) as camera:
        camera.write(PICTURE)
    assert [camera.closed for camera in cameras] == [1]
