"""A virtual camera (outputs.md), with a stand-in for pyvirtualcam: no machine that runs the tests has a camera."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ditto.errors import OutputError
from ditto.media.virtual_camera import VirtualCamera


class Camera:
    """What pyvirtualcam.Camera does that is used."""

    def __init__(self, width, height, fps, *, device=None):
        if device == "/dev/none":
            raise RuntimeError("'v4l2loopback' backend: no such device")
        self.asked, self.device, self.sent, self.waits, self.closed = (width, height, fps), "Camera 1", [], 0, 0

    def send(self, frame):
        if len(self.sent) == 2:
            raise RuntimeError("device was removed")
        self.sent.append(frame)

    def sleep_until_next_frame(self):
        self.waits += 1

    def close(self):
        self.closed += 1


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=Camera))


def test_frames_are_sent_in_time_and_the_camera_is_given_back():
    with VirtualCamera(96, 64) as camera:
        inside = camera._camera
        camera.write(np.zeros((64, 96, 3), np.uint8))
        camera.write(np.ones((96, 64, 3), np.uint8).transpose(1, 0, 2))
    assert camera.device == "Camera 1" and inside.asked == (96, 64, 25)
    assert [frame.mean() for frame in inside.sent] == [0, 1] and inside.sent[1].flags.c_contiguous
    assert inside.waits == 2 and inside.closed == 1
    with pytest.raises(ValueError, match="was closed"):
        camera.write(np.zeros((64, 96, 3), np.uint8))


def test_what_cannot_be_sent_is_refused(monkeypatch):
    camera = VirtualCamera(96, 64)
    with pytest.raises(ValueError, match="give all frames one size"):
        camera.write(np.zeros((64, 96, 4), np.uint8))
    camera.write(np.zeros((64, 96, 3), np.uint8))
    camera.write(np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(OutputError, match="device was removed"):
        camera.write(np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(OutputError, match="v4l2loopback"):
        VirtualCamera(96, 64, "/dev/none")
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(OutputError, match=r"\[camera\]"):
        VirtualCamera(96, 64)
