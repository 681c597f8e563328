"""Audio: anything with a sound track becomes mono float32 at 16 kHz, in blocks, in constant memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.containers import READ_FIRST, kind_of
from ditto.errors import AudioError

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000
BLOCK_SAMPLES = SAMPLE_RATE // 2  # about half a second: what AudioReader gives at a time
LOWEST_RATE, HIGHEST_RATE = 4000, 384000
BAD_PACKETS_IN_A_ROW = 50  # after that the rest counts as lost
STREAMED_RIFF = 1 << 31  # sizes from here on are what writers put that do not know the length
ESTIMATED_DURATION = {"mp3", "aac", "ac3"}  # containers whose duration FFmpeg guesses from the bit rate

Array = npt.NDArray[np.float32]


class Resampler:
    """Mono samples at one rate to mono samples at another, in any chunking; remembers what lies between blocks.

    The output is aligned with the input: sample n of one and sample n * to / from of the other sound together.
    Quality: soxr HQ.
    """

    def __init__(self, from_rate: int, to_rate: int = SAMPLE_RATE) -> None:
        if not isinstance(from_rate, (int, float, np.integer)) or not LOWEST_RATE <= from_rate <= HIGHEST_RATE:
            raise AudioError(
                f"sample rates from {LOWEST_RATE} to {HIGHEST_RATE} Hz are supported, got {from_rate!r}; convert it first"
            )
        self._stream: Any = None
        if from_rate != to_rate:
            import soxr

            self._stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")

    def push(self, samples: Array) -> Array:
        """(n,) samples in, the (m,) samples that became final out."""
        if self._stream is None:
            return samples
        return np.asarray(self._stream.resample_chunk(np.ascontiguousarray(samples)), np.float32)

    def flush(self) -> Array:
        """The samples still inside; the resampler is used up."""
        if self._stream is None:
            return np.zeros(0, np.float32)
        return np.asarray(self._stream.resample_chunk(np.zeros(0, np.float32), last=True), np.float32)


class Decoder:
    """The sound track of a file, decoded block by block at its own rate. What both reader and writer stand on.

    Attributes:
        rate: samples a second.
        channels: number of channels.
        duration_seconds: as the container declares it, or None.
        damage: what was lost while decoding, in words, or None.

    Raises:
        AudioError: the file is missing, empty, unreadable, or has no sound track.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        import av

        self.path = Path(path)
        check_file(self.path)
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.audio:
                    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
                    raise AudioError(f"a sound track is wanted in {self.path}, it holds {kinds}; give a recording")
                stream = container.streams.audio[0]
                self.rate = int(stream.rate or 0)
                self.channels = int(stream.codec_context.channels)
                self._trust = 0.9 if container.format.name in ESTIMATED_DURATION else 1.0
                self.duration_seconds: float | None = None
                if stream.duration and stream.time_base:
                    self.duration_seconds = float(stream.duration * stream.time_base)
                elif container.duration:
                    self.duration_seconds = container.duration / 1e6
        except (av.FFmpegError, OSError, ValueError) as error:
            raise unreadable(self.path, error) from error
        if self.rate <= 0 or self.channels <= 0:
            raise AudioError(
                f"a sound track with a sample rate is wanted in {self.path}, it declares {self.rate} Hz and "
                f"{self.channels} channels; the file is damaged or truncated, record or export it again"
            )
        self.damage: str | None = None

    def frames(self) -> Iterator[Any]:
        """PyAV audio frames, in order. A damaged packet is skipped, a damaged rest ends the track; `damage` says so.

        Raises:
            AudioError: nothing at all could be decoded.
        """
        import av

        decoded = lost = lost_in_a_row = 0
        failure: Exception | None = None
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.audio[0]
                for packet in container.demux(stream):
                    try:
                        frames = packet.decode()
                    except (av.FFmpegError, ValueError) as error:
                        failure, lost, lost_in_a_row = error, lost + 1, lost_in_a_row + 1
                        if lost_in_a_row >= BAD_PACKETS_IN_A_ROW:
                            break
                        continue
                    for frame in frames:
                        lost_in_a_row = 0
                        decoded += frame.samples
                        yield frame
        except (av.FFmpegError, OSError, ValueError) as error:  # the container itself ends in the middle
            failure = error
        seconds = decoded / self.rate
        if decoded == 0:
            if failure is not None:
                raise unreadable(self.path, failure) from failure
            raise AudioError(f"{self.path} holds no samples; give a recording of at least 40 ms")
        if riff_is_cut(self.path):
            self.damage = f"the file is shorter than its header says, it ends after {seconds:.2f} s"
        elif lost:
            self.damage = f"{lost} damaged packets were skipped"
        elif failure is not None:
            self.damage = f"the file is damaged after {seconds:.2f} s ({failure})"
        elif self.duration_seconds is not None and seconds < self._trust * self.duration_seconds - 0.25:
            self.damage = f"the file declares {self.duration_seconds:.2f} s but ends after {seconds:.2f} s"
        if self.damage:
            logger.warning("%s: %s", self.path, self.damage)


class AudioReader:
    """A recording as blocks of mono float32 samples at 16 kHz; channels are averaged. Can be iterated again.

    Reads every container and codec PyAV does, the sound of video files too, at any rate from 4 to 384 kHz. Memory does
    not grow with the length.

    Attributes:
        path, rate, channels, duration_seconds: of the file.
        damage: after iteration, what could not be decoded, in words, or None.

    Raises:
        AudioError: when made: the file is missing, empty, unreadable or has no sound track; when iterated: it holds no
            samples, NaN or infinite values.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._decoder = Decoder(path)
        Resampler(self._decoder.rate)  # refuses a rate outside the range now, not after the first block
        self.path = self._decoder.path
        self.rate = self._decoder.rate
        self.channels = self._decoder.channels
        self.duration_seconds = self._decoder.duration_seconds

    @property
    def damage(self) -> str | None:
        return self._decoder.damage

    def __iter__(self) -> Iterator[Array]:
        resampler = Resampler(self.rate)
        waiting: list[Array] = []
        size = position = given = 0
        for frame in self._decoder.frames():
            if frame.sample_rate != self.rate:
                raise AudioError(
                    f"{self.path} changes its sample rate from {self.rate} to {frame.sample_rate} Hz at "
                    f"{position / self.rate:.2f} s; export it at one rate"
                )
            mono = mono_samples(frame)
            if not np.isfinite(mono).all():
                at = (position + int(np.flatnonzero(~np.isfinite(mono))[0])) / self.rate
                raise AudioError(
                    f"{self.path} holds NaN or infinity at {at:.3f} s, finite samples are wanted; clean it"
                )
            position += mono.size
            block = resampler.push(mono)
            waiting.append(block)
            size += block.size
            if size >= BLOCK_SAMPLES:
                yield np.concatenate(waiting)
                waiting, size, given = [], 0, given + size
        waiting.append(resampler.flush())
        rest = np.concatenate(waiting)
        if rest.size:
            yield rest
        elif not given:
            raise AudioError(
                f"{self.path} holds {position} samples at {self.rate} Hz; give a recording of at least 40 ms"
            )


def read_audio(path: str | PathLike[str]) -> Array:
    """A whole recording as (N,) mono float32 at 16 kHz. Raises AudioError as `AudioReader` does."""
    return np.concatenate(list(AudioReader(path)))


def mono_samples(frame: Any) -> Array:
    """(n,) float32 mean of the channels of a PyAV frame; integer formats scaled to [-1, 1)."""
    samples = frame.to_ndarray()
    if frame.format.is_planar:
        samples = samples.reshape(-1, frame.samples)
    else:
        samples = samples.reshape(frame.samples, -1).T
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128.0) / 128.0
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float64) / -float(np.iinfo(samples.dtype).min)
    return np.asarray(samples.mean(axis=0), np.float32)


def reject_encoded(samples: object) -> None:
    """Refuse the bytes of a sound file where samples belong: loud noise, if it were taken for sound.

    Call it with what an utterance begins with. A file is recognised by its first bytes (WAV, MP3, Ogg, FLAC, MP4, ...),
    in bytes and in what NumPy makes of them: int16, uint8, float32, or int16 scaled to [-1, 1].

    Raises:
        AudioError: it is a file.
    """
    readings: list[bytes] = []
    if isinstance(samples, (bytes, bytearray, memoryview)):
        readings.append(memoryview(samples).tobytes()[:READ_FIRST])
    elif isinstance(samples, np.ndarray) and samples.ndim == 1 and samples.dtype.kind in "iuf":
        first = samples[:READ_FIRST]
        readings.append(first.tobytes()[:READ_FIRST])
        if first.dtype.kind == "f":
            with np.errstate(invalid="ignore", over="ignore"):
                readings.append(np.rint(first * 32768.0).clip(-32768, 32767).astype("<i2").tobytes()[:READ_FIRST])
    for data in readings:
        kind = kind_of(data)
        if kind is not None and kind != "MPEG-TS":  # one byte in 188, which a plain tone can repeat
            raise AudioError(
                f"expected samples, got the bytes of a file ({kind}); give the file itself to animate() or AudioReader, "
                "which decode it"
            )


def riff_is_cut(path: Path) -> bool:
    """Whether a WAV file lacks part of what its header declares (FFmpeg corrects the duration in silence)."""
    with path.open("rb") as stream:
        head = stream.read(12)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return False
    declared = int.from_bytes(head[4:8], "little") + 8
    return declared < STREAMED_RIFF and path.stat().st_size < declared - 1  # one byte: padding some writers leave out


def check_file(path: Path) -> None:
    """Raises AudioError for a path that cannot be a recording: missing, a folder, empty."""
    try:
        size = path.stat().st_size
        folder = path.is_dir()
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"a recording is wanted at {path}: {reason}; check the name") from error
    if folder:
        raise AudioError(f"a recording is wanted, {path} is a folder; give a file in it")
    if size == 0:
        raise AudioError(f"a recording is wanted, {path} is empty (0 bytes); record or copy it again")
    if not os.access(path, os.R_OK):
        raise AudioError(f"a recording is wanted, {path} may not be read; check its permissions")


def unreadable(path: Path, error: Exception) -> AudioError:
    """The error for a file FFmpeg cannot decode, with its reason."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return AudioError(
        f"a recording FFmpeg can read is wanted (wav, flac, mp3, m4a, ogg, a video, ...), {path} cannot be decoded: "
        f"{reason}; the file is damaged, truncated or of another kind"
    )
