"""The same sentence, with the controls in hand: the head turns to the side while the eyes stay with the camera.

    python examples/look_aside.py     # writes look_aside.mp4
"""

import math
from pathlib import Path

import ditto
from ditto.audio import AudioReader
from ditto.video import VideoWriter

here = Path(__file__).parent
head = ditto.load("lite")
portrait = head.register(here / "portrait.jpg")
stream = head.stream(portrait, still=True)
height, width, _ = portrait.picture.shape
with VideoWriter("look_aside.mp4", width, height) as writer:
    for block in AudioReader(here / "speech.flac"):
        turn = math.sin(stream.frames / 40)
        stream.controls = ditto.Controls(yaw_degrees=12 * turn, gaze=(-0.01 * turn, 0.0), regions={"brows": 1.5})
        for frame in stream.push(block):
            writer.write(frame.image, frame.audio)
    for frame in stream.flush():
        writer.write(frame.image, frame.audio)
