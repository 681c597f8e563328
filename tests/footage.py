"""Makes short videos: a talking face with its sound, and files that are unusual in one way."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SAMPLE_RATE = 16000


def write_video(path: Path, frames, sound=None, times=None, fps=25, sound_from=0.0, lossless=False):
    """Write frames (H, W, 3) at `times` in seconds (or `fps` a second), and samples (N,) that begin at `sound_from`."""
    with av.open(str(path), "w") as container:
        height, width = frames[0].shape[:2]
        video = container.add_stream("ffv1" if lossless else "libx264", rate=fps)
        video.width, video.height, video.pix_fmt = width, height, "bgr0" if lossless else "yuv420p"
        if not lossless:
            video.options = {"crf": "16", "preset": "veryfast", "g": "12"}
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        if sound is not None:
            audio = container.add_stream("pcm_s16le" if path.suffix == ".mkv" else "aac", rate=SAMPLE_RATE, layout="mono")
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.time_base = Fraction(1, 1000)
            frame.pts = round(1000 * (i / fps if times is None else times[i]))
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if sound is not None:
            pcm = np.int16(np.clip(sound, -1, 1) * 32767)
            for start in range(0, len(pcm), 1024):
                frame = av.AudioFrame.from_ndarray(pcm[None, start : start + 1024], format="s16", layout="mono")
                frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
                frame.pts = start + round(sound_from * SAMPLE_RATE)
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def rotate(path: Path, quarter_turns_clockwise: int) -> Path:
    """Write a rotation into the track header of an MP4, as a phone does; the pictures stay as they are."""
    data = bytearray(path.read_bytes())
    a, b, c, d = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[quarter_turns_clockwise]
    place = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version and flags; times and id; reserved; layer, group, volume
    one = 1 << 16
    data[place : place + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
