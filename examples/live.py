"""Animates speech from a pipe while it comes in: raw 16-bit mono samples at 16 kHz on stdin.

    ffmpeg -v error -i examples/speech.flac -f s16le -ac 1 -ar 16000 - | python examples/live.py out.mp4
    arecord -q -f S16_LE -r 16000 -d 10 | python examples/live.py out.mp4
"""

import sys
from pathlib import Path

import numpy as np

import ditto
from ditto.media.video import VideoWriter

head = ditto.load("lite")
portrait = head.register(Path(__file__).with_name("portrait.jpg"))
stream = head.stream(portrait, seed=1)
height, width, _ = portrait.picture.shape
with VideoWriter(sys.argv[1], width, height) as writer:
    while block := sys.stdin.buffer.read(640):
        for frame in stream.push(np.frombuffer(block[: len(block) // 2 * 2], np.int16)):
            writer.write(frame.image, frame.audio)
    for frame in stream.flush():
        writer.write(frame.image, frame.audio)
