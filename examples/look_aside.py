"""Controls as a function of the frame: the head turns to the side while the eyes stay on the camera.

    python examples/look_aside.py     # writes look_aside.mp4
"""

import math
from pathlib import Path

import ditto
from ditto.media.video import VideoWriter


def look_aside(frame: int) -> ditto.Controls:
    turn = math.sin(frame / 40)
    return ditto.Controls(yaw_degrees=12 * turn, eye_contact=1.0, gains={"brows": 1.5})


speech = Path(__file__).with_name("speech.flac")
head = ditto.load("lite")
portrait = head.register(Path(__file__).with_name("portrait.jpg"))
height, width, _ = portrait.picture.shape
with VideoWriter("look_aside.mp4", width, height, audio=speech) as writer:
    for frame in head.animate(portrait, speech, still=True, controls=look_aside):
        writer.write(frame.image)
