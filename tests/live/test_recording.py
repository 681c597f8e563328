"""A session as a video file: pictures as they were shown, both voices, whole or not at all."""

import dataclasses
import threading

import av
import numpy as np
import pytest

from ditto.errors import OutputError
from ditto.frame import Frame, SegmentEnd
from ditto.live import recording
from ditto.live.playout import Played
from ditto.live.recording import Recorder
from ditto.motion.motion import rest_motion

RATE, SIZE = 24000, 960
REST = rest_motion(1)[0]


def frame(index, grey, level=0.0, pixels="rgb24"):
    image = np.full((48, 64) if pixels == "yuv420p" else (32, 64, 3), grey, np.uint8)
    if pixels == "yuv420p":
        image[32:] = 128
    wave = np.where(np.arange(SIZE) // 24 % 2, level, -level).astype(np.float32)
    return Frame(image, index, index / 25, wave, REST, "idle", 0, None)


def shown(file):
    with av.open(str(file)) as video:
        return [round(float(picture.to_ndarray(format="gray").mean())) for picture in video.decode(video=0)]


def heard(file):
    """Loudness of left and right, of each 40 ms."""
    with av.open(str(file)) as video:
        rate = video.streams.audio[0].rate
        sound = np.concatenate([block.to_ndarray() for block in video.decode(audio=0)], axis=1)
    size = rate // 25
    blocks = sound[:, : sound.shape[1] // size * size].reshape(2, -1, size)
    return np.abs(blocks).mean(axis=2)


@pytest.mark.parametrize("pixels", ["rgb24", "bgr24", "yuv420p"])
def test_pictures_and_both_voices_are_in_the_file(tmp_path, pixels):
    file = tmp_path / "talk.mp4"
    with Recorder(file, 64, 32, output=pixels, audio_rate=RATE) as recorder:
        for index in range(20):
            if index == 10:
                recorder.hear((8000 * np.sin(np.arange(16000 // 5) * 0.2)).astype(np.int16), 16000)  # 0.2 s
            recorder.add(frame(index, 40 if index < 10 else 200, 0.3 if index < 10 else 0.0, pixels))
        recorder.add(SegmentEnd(0, 0.8))
        assert not file.exists()
    greys = shown(file)
    assert len(greys) == 20
    assert greys[0] < 80 < 160 < greys[-1]
    left, right = heard(file)
    assert left[2:8].min() > 0.1 > 10 * left[13:19].max()
    assert right[12:14].min() > 0.05 > 10 * right[2:8].max()
    assert [path.name for path in tmp_path.iterdir()] == ["talk.mp4"]


def test_ticks_without_a_frame_repeat_the_picture(tmp_path):
    with Recorder(tmp_path / "a.mp4", 64, 32, audio_rate=RATE) as recorder:
        for tick in (7, 8, 12, 13):
            recorder.add(Played(tick, frame(tick, 40 if tick < 10 else 200), 0.0))
    assert [grey > 100 for grey in shown(tmp_path / "a.mp4")] == [False] * 5 + [True] * 2


def test_a_slow_disk_costs_pictures_and_no_sound(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "MAX_PICTURES", 2)
    go, write = threading.Event(), recording.VideoWriter.write
    monkeypatch.setattr(
        recording.VideoWriter, "write", lambda self, *given: go.wait(60) and write(self, *given)
    )
    recorder = Recorder(tmp_path / "a.mp4", 64, 32, audio_rate=RATE, live=True)
    for index in range(12):
        recorder.add(frame(index, 40 + 15 * index, 0.3))
    go.set()
    recorder.close()
    greys = shown(tmp_path / "a.mp4")
    assert len(greys) == 12
    assert len({grey // 8 for grey in greys}) <= 4
    assert heard(tmp_path / "a.mp4")[0][1:11].min() > 0.1


def test_without_a_frame_there_is_no_file(tmp_path):
    Recorder(tmp_path / "a.mp4", 64, 32).close()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_raised_at_the_end_and_leaves_no_file(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4", 64, 32, audio_rate=RATE)
    recorder.add(frame(0, 40))
    recorder.add(dataclasses.replace(frame(1, 40), audio=np.zeros(3, np.float32)))
    with pytest.raises(OutputError):
        recorder.close()
    assert list(tmp_path.iterdir()) == []
    recorder.close()  # nothing more


@pytest.mark.parametrize("path", ["none/a.mp4", "a.avi"])
def test_what_cannot_be_written_is_refused_at_once(tmp_path, path):
    with pytest.raises(OutputError):
        Recorder(tmp_path / path, 64, 32)


def test_a_session_with_alpha_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected an output of rgb24"):
        Recorder(tmp_path / "a.mp4", 64, 32, output="rgba")
