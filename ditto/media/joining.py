"""Sound of several pieces, one after another, with a short cross-fade where two meet."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.media.audio import Decoder
from ditto.media.files import Readable
from ditto.media.rates import FPS, SAMPLE_RATE
from ditto.media.video import FileTrack

FADE_SECONDS = 0.01  # long enough that no click is heard, too short to hear two sounds
FULL_RATE = 48000  # of a joined sound track

Array = npt.NDArray[np.float32]


class Piece(NamedTuple):
    """Frames of a recording: `frames` of them from number `first` on. `given` None: silence."""

    given: Readable | None
    first: int
    frames: int


def crossfaded(pieces: Iterable[Iterable[Array]]) -> Iterator[Array]:
    """Blocks (..., n) of all pieces in order; each piece gives one block beyond its end, which fades into the next piece."""
    tail: Array | None = None
    for piece in pieces:
        block: Array | None = None
        for following in piece:
            if block is not None:
                if tail is not None:
                    block, tail = _mixed(tail, block), None
                yield block
            block = following
        tail = block


def _mixed(tail: Array, block: Array) -> Array:
    """A block that begins as `tail`; the fade takes `FADE_SECONDS` of a block of 40 ms."""
    size = round(block.shape[-1] * FADE_SECONDS * FPS)
    fade = 0.5 - 0.5 * np.cos(np.pi * (np.arange(size) + 0.5) / size)
    out = block.copy()
    out[..., :size] = tail[..., :size] * (1.0 - fade) + block[..., :size] * fade
    return out


def blocks_of(samples: Array, first: int, frames: int) -> Iterator[Array]:
    """`frames` blocks (640,) of samples at 16 kHz from a frame on, and one more; silence after the end."""
    size = SAMPLE_RATE // FPS
    for frame in range(first, first + frames + 1):
        block = samples[frame * size : (frame + 1) * size]
        yield np.pad(block, (0, size - block.size))


def write_joined(pieces: Iterable[Piece], path: Path) -> None:
    """Write the joined sound of pieces as WAV: 48 kHz, stereo, 16 bits.

    Raises:
        AudioError: a recording cannot be read.
        OSError: the file cannot be written.
    """
    with _opened(path) as out:
        for block in crossfaded(map(_full_blocks, pieces)):
            out.writeframes(_pcm(block))


def write_mixed(recordings: Sequence[Readable], frames: int, path: Path) -> None:
    """Write the sum of recordings that begin together as WAV: `frames` of 40 ms, 48 kHz, stereo, 16 bits.

    Raises:
        AudioError: a recording cannot be read.
        OSError: the file cannot be written.
    """
    with _opened(path) as out:
        for blocks in zip(*(_full_blocks(Piece(recording, 0, frames - 1)) for recording in recordings), strict=True):
            out.writeframes(_pcm(np.sum(blocks, axis=0)))


def _opened(path: Path) -> wave.Wave_write:
    out = wave.open(str(path), "wb")
    out.setnchannels(2)
    out.setsampwidth(2)
    out.setframerate(FULL_RATE)
    return out


def _pcm(block: Array) -> bytes:
    """Samples (2, n) in [-1, 1] as s16le."""
    pcm: bytes = np.clip(np.rint(block.T * 32768.0), -32768, 32767).astype("<i2").tobytes()
    return pcm


def _full_blocks(piece: Piece) -> Iterator[Array]:
    """Blocks (2, 1920) of a piece at 48 kHz, and one more."""
    if piece.given is None:
        yield from (np.zeros((2, FULL_RATE // FPS), np.float32) for _ in range(piece.frames + 1))
        return
    track = FileTrack(None, FULL_RATE, "stereo", Decoder(piece.given))
    for frame in range(piece.first + piece.frames + 1):
        parts = [part.to_ndarray() for part in track.until(frame + 1)]
        if frame >= piece.first:
            yield np.concatenate(parts, axis=1)
