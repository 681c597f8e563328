"""Writes WAV files of any sample format, so that the tests need no library for it."""

import struct
from pathlib import Path

import numpy as np

INTEGERS, FLOATS = 1, 3


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    """(N,) or (N, channels) uint8, int16, int32, float32 or float64 -> a WAV file; gives its path."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    width = samples.dtype.itemsize
    tag = FLOATS if samples.dtype.kind == "f" else INTEGERS
    layout = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * width, channels * width, 8 * width)
    data = np.ascontiguousarray(samples).tobytes()
    chunks = b"fmt " + struct.pack("<I", len(layout)) + layout + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    return path
