"""Audio: decodes any file with a sound track to mono float32 at 16 kHz, in blocks, in constant memory."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import AudioError
from ditto.media.containers import (
    READ_FIRST,
    STREAMED,
    Span,
    Spans,
    is_padding,
    kind_of,
    mp3_seconds,
    recordings,
    riff_end,
)
from ditto.media.files import Readable, Source
from ditto.media.mixing import Mixer
from ditto.media.rates import SAMPLE_RATE as SAMPLE_RATE

logger = logging.getLogger(__name__)

BLOCK_SAMPLES = SAMPLE_RATE // 2  # least samples of a block of AudioReader: half a second
LOWEST_RATE, HIGHEST_RATE = 4000, 384000
BAD_PACKETS_IN_A_ROW = 50  # then the rest of the recording counts as lost
ESTIMATED_DURATION = {"mp3", "aac", "ac3", "eac3", "amr", "dts", "loas", "mpegts"}  # by FFmpeg, from the bit rate
TOLERANCE_SECONDS = 0.25  # by which a track may be shorter than its container declares
RIFF_TOLERANCE = 8  # bytes: some writers leave out the padding, some count the header of the RIFF chunk
# Seconds. A jump in the time stamps is a pause if it is within these limits and the container has a time stamp for every
# packet. Shorter ones are jitter (as for min_hard_comp of FFmpeg's aresample); in broadcasts, longer ones are splices (as for
# FFmpeg's dts_delta_threshold).
SHORTEST_PAUSE = 0.1
LONGEST_PAUSE = {
    "mov": 3600.0,
    "matroska": 3600.0,
    "ogg": 3600.0,
    "flv": 3600.0,
    "asf": 3600.0,
    "mpegts": 10.0,
    "mpeg": 10.0,
}
HOP_SAMPLES = SAMPLE_RATE * 2 // 25  # 1280, a hop of the speech encoder
SILENCE_DB = -52.0  # of full scale; to the lite bundle's encoder a quieter hop is silence (ACTIVE_DB)
MOST_PLANES = 7  # one less than FFmpeg's AV_NUM_DATA_POINTERS
LARGEST = float(np.finfo(np.float32).max)

Array = npt.NDArray[np.float32]


class Resampler:
    """Resamples a mono stream block by block; any chunking gives the same samples.

    Input and output are aligned: sample n of the input and sample n * to_rate / from_rate of the output are simultaneous.
    Quality: soxr HQ.
    """

    def __init__(self, from_rate: int, to_rate: int = SAMPLE_RATE) -> None:
        if not isinstance(from_rate, (int, float, np.integer)) or not LOWEST_RATE <= from_rate <= HIGHEST_RATE:
            raise AudioError(
                f"expected a sample rate from {LOWEST_RATE} to {HIGHEST_RATE} Hz, got {from_rate!r}; convert the sound first"
            )
        self._stream: Any = None
        if from_rate != to_rate:
            import soxr

            self._stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")

    def push(self, samples: Array) -> Array:
        """Take samples (n,); the samples (m,) that became final."""
        if self._stream is None:
            return samples
        return np.asarray(self._stream.resample_chunk(np.ascontiguousarray(samples)), np.float32)

    def flush(self) -> Array:
        """The remaining samples. The resampler cannot be used afterwards."""
        if self._stream is None:
            return np.zeros(0, np.float32)
        return np.asarray(self._stream.resample_chunk(np.zeros(0, np.float32), last=True), np.float32)


class Part(NamedTuple):
    """One recording of a file: its byte ranges, and what its container declares about its first sound track."""

    spans: list[Span]
    rate: int
    channels: int
    seconds: float | None  # as declared; if `estimated`, as FFmpeg guesses it from the bit rate
    estimated: bool


class Decoder:
    """Decodes the sound track of a file at its own rate, for `AudioReader` and for `VideoWriter`.

    A file may be several recordings, each with its own header, joined end to end: they are decoded one after the other.

    Args:
        given: see `AudioReader`.

    Attributes:
        name: of the file, for messages.
        path: of the file, or None if it was not given by name.
        rate: samples a second of the first recording.
        channels: channels of the first recording.
        most_channels: the most channels of any recording.
        duration_seconds: as the containers declare it, or None.
        damage: what could not be decoded, in words, or None; known when `frames` is exhausted.

    Raises:
        AudioError: the file is missing, empty, unreadable, or has no sound track.
    """

    def __init__(self, given: Readable) -> None:
        self._source = Source(given, "a recording", AudioError)
        self.name, self.path = self._source.name, self._source.path
        self.damage: str | None = None
        self._unusable: list[str] = []
        self._parts: list[Part] = []
        errors: list[AudioError] = []
        with self._source.open() as stream:
            ranges = recordings(stream, self._source.size)
        for spans in ranges:
            try:
                self._parts.append(self._examine(spans))
            except AudioError as error:
                errors.append(error)
                self._unusable.append(f"bytes {spans[0][0]} to {spans[-1][1]} cannot be read")
        if not self._parts:
            raise errors[0]
        self.rate, self.channels = self._parts[0].rate, self._parts[0].channels
        self.most_channels = max(part.channels for part in self._parts)
        seconds = [part.seconds for part in self._parts]
        self.duration_seconds = None if None in seconds else sum(filter(None, seconds))

    def frames(self) -> Iterator[Any]:
        """PyAV audio frames, in order; format, layout and rate may change from one to the next.

        A pause in the time stamps becomes frames of silence. Damaged packets are skipped; after many of them in a row the
        rest of the recording is. `damage` reports both.

        Raises:
            AudioError: nothing could be decoded.
        """
        import av

        damage = list(self._unusable)
        failure: Exception | None = None
        decoded = 0.0
        for part in self._parts:
            decoding = Decoding(part)
            try:
                with self._opened(part.spans) as container:
                    for frame in decoding.frames(container):
                        decoded += frame.samples / frame.sample_rate
                        yield frame
            except (av.FFmpegError, OSError, ValueError) as error:  # the container is cut off
                decoding.failure = error
            failure = failure or decoding.failure
            with self._source.open() as stream:
                damage += decoding.damage(stream, decoded)
        if decoded == 0.0:
            if failure is not None:
                raise unreadable(self.name, failure) from failure
            raise AudioError(f"expected samples in {self.name}, got none; give a recording of at least 40 ms")
        if damage:
            self.damage = "; ".join(dict.fromkeys(damage))
            logger.warning("%s: %s", self.name, self.damage)

    @contextmanager
    def _opened(self, spans: list[Span]) -> Iterator[Any]:
        """PyAV's container of one recording. FFmpeg gets its bytes, never a name, and cannot open anything else."""
        import av

        with self._source.open() as stream:
            whole = spans == [(0, self._source.size)]
            file = stream if whole else io.BufferedReader(Spans(stream, spans))
            with av.open(
                file, container_options={"protocol_whitelist": "none"}, metadata_errors="replace"
            ) as container:
                yield container

    def _examine(self, spans: list[Span]) -> Part:
        """What a recording declares. Raises AudioError if it has no readable sound track."""
        import av

        try:
            with self._opened(spans) as container:
                if not container.streams.audio:
                    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
                    raise AudioError(f"expected a sound track in {self.name}, got {kinds}; give a recording")
                stream = container.streams.audio[0]
                if stream.codec_context is None:
                    raise AudioError(
                        f"expected a sound track of a known codec in {self.name}, got one that FFmpeg does not know; convert "
                        "it to WAV, or export it again if it is damaged"
                    )
                rate, channels = int(stream.codec_context.sample_rate or 0), int(stream.codec_context.channels)
                seconds = None
                if stream.duration and stream.time_base:
                    seconds = float(stream.duration * stream.time_base)
                elif container.duration:
                    seconds = container.duration / 1e6
                if seconds and seconds * (stream.codec_context.bit_rate or 0) / 8 >= STREAMED > self._source.size:
                    seconds = None  # the writer did not know it
                container_name = container.format.name
        except (av.FFmpegError, OSError, ValueError) as error:
            raise unreadable(self.name, error) from error
        if rate <= 0 or channels <= 0:
            raise AudioError(
                f"expected a sound track with a sample rate in {self.name}, got {rate} Hz and {channels} channels; "
                "the file is damaged or truncated, record or export it again"
            )
        if container_name == "mp3":
            with self._source.open() as file:
                declared = mp3_seconds(file, spans[0][0])
            if declared is not None and abs(declared - (seconds or 0.0)) > TOLERANCE_SECONDS:
                seconds = declared  # FFmpeg guesses if the size of the file and its header disagree
            return Part(spans, rate, channels, seconds, estimated=declared is None)
        return Part(spans, rate, channels, seconds, estimated=container_name in ESTIMATED_DURATION)


class Decoding:
    """One pass over one recording; records what is damaged."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._seconds = 0.0
        self._lost = 0
        self._jumps: list[str] = []
        self.failure: Exception | None = None

    def frames(self, container: Any) -> Iterator[Any]:
        """The frames of the first sound track, pauses filled. Raises FFmpeg's error if the container is cut off."""
        import av

        lost_in_a_row = 0
        due: float | None = None  # seconds: time stamp at which the next frame should begin
        longest = LONGEST_PAUSE.get(container.format.name.partition(",")[0], 0.0)
        for packet in container.demux(container.streams.audio[0]):
            try:
                frames = packet.decode()
            except (av.FFmpegError, OSError, ValueError) as error:
                if not any(bytes(packet)):  # padding
                    continue
                self.failure, self._lost, lost_in_a_row = error, self._lost + 1, lost_in_a_row + 1
                if lost_in_a_row >= BAD_PACKETS_IN_A_ROW:
                    break
                continue
            for frame in frames:
                if frame.samples <= 0 or frame.sample_rate <= 0:
                    continue
                try:
                    sound = safe_planes(frame)
                except (av.FFmpegError, ValueError) as error:  # more channels than FFmpeg converts
                    self.failure, self._lost = error, self._lost + 1
                    continue
                lost_in_a_row = 0
                begins = due if frame.pts is None or not frame.time_base else float(frame.pts * frame.time_base)
                if begins is not None:
                    if due is not None and longest and begins - due > SHORTEST_PAUSE:
                        yield from self._pause(begins - due, longest, frame)
                    due = begins + frame.samples / frame.sample_rate
                yield self._counted(sound)

    def _counted(self, frame: Any) -> Any:
        self._seconds += frame.samples / frame.sample_rate
        return frame

    def _pause(self, seconds: float, longest: float, like: Any) -> Iterator[Any]:
        declared = None if self._part.estimated else self._part.seconds
        if seconds > longest or (declared is not None and self._seconds + seconds > declared + TOLERANCE_SECONDS):
            self._jumps.append(
                f"the time stamps jump by {seconds:.2f} s after {self._seconds:.2f} s, which is not taken as a pause"
            )
            return
        missing = round(seconds * like.sample_rate)
        while missing > 0:
            count = min(missing, like.sample_rate)
            missing -= count
            yield self._counted(silence(like.format.name, like.layout, like.sample_rate, count))

    def damage(self, stream: BinaryIO, decoded: float) -> list[str]:
        """What could not be decoded, in words; `decoded` is how many seconds of the file were, this recording included."""
        found = list(self._jumps)
        start, end = self._part.spans[0][0], self._part.spans[-1][1]
        declared_end = riff_end(stream, start)
        if declared_end is not None and declared_end > end + RIFF_TOLERANCE:
            found.append(f"the file is shorter than its header says, it ends after {decoded:.2f} s")
        elif self._lost:
            found.append(f"{self._lost} damaged packets were skipped")
        elif self.failure is not None:
            found.append(f"the file is damaged after {decoded:.2f} s ({self.failure})")
        elif self._ends_early():
            found.append(f"the file declares {self._part.seconds:.2f} s but ends after {self._seconds:.2f} s")
        elif declared_end is not None and not is_padding(stream, declared_end, end):
            found.append(f"the {end - declared_end} bytes after the end that its header declares are not read")
        return found

    def _ends_early(self) -> bool:
        declared = None if self._part.estimated else self._part.seconds
        return declared is not None and self._seconds < declared - TOLERANCE_SECONDS


class AudioReader:
    """Iterates over a recording in blocks of mono float32 samples at 16 kHz; `Mixer` mixes the channels.

    Reads every container and codec that PyAV reads, video files too, at rates from 4 to 384 kHz; a file of several joined
    recordings to its end. Memory does not grow with the length. It can be iterated again.

    Args:
        given: a path, the bytes of a file, or a file opened for reading bytes. A named pipe and an open file are copied
            to a temporary file first.

    Attributes:
        name: of the file, for messages.
        path: of the file, or None if it was not given by name.
        rate, channels: of the file, at its beginning.
        duration_seconds: as the file declares it, or None.
        damage: after iteration, what could not be decoded, in words, or None.

    Raises:
        AudioError: the file is missing, empty, unreadable or without sound track (raised when made); it holds no samples,
            NaN or infinity (raised by the iteration).
        TypeError: `given` is of another type.
    """

    def __init__(self, given: Readable) -> None:
        self.decoder = Decoder(given)
        Resampler(self.decoder.rate)  # raises for a rate out of range now, not after the first block
        self.name = self.decoder.name
        self.path = self.decoder.path
        self.rate = self.decoder.rate
        self.channels = self.decoder.channels
        self.duration_seconds = self.decoder.duration_seconds

    @property
    def damage(self) -> str | None:
        return self.decoder.damage

    def __iter__(self) -> Iterator[Array]:
        waiting: list[Array] = []
        size = given = 0
        loudest = 0.0
        for samples in self._resampled():
            waiting.append(samples)
            size += samples.size
            if size >= BLOCK_SAMPLES:
                block = np.concatenate(waiting)
                loudest = max(loudest, loudest_hop(block))
                yield block
                waiting, size, given = [], 0, given + size
        if size:
            block = np.concatenate(waiting)
            loudest = max(loudest, loudest_hop(block))
            yield block
        elif not given:
            raise AudioError(f"expected samples in {self.name}, got less than one at 16 kHz; give at least 40 ms")
        level = 10.0 * math.log10(loudest) if loudest > 0.0 else -math.inf
        if level < SILENCE_DB:
            logger.warning(
                "%s: its loudest part is at %.0f dB of full scale; speech under %.0f dB moves no lips, so make it louder",
                self.name, level, SILENCE_DB,
            )  # fmt: skip

    def _resampled(self) -> Iterator[Array]:
        """Mono samples at 16 kHz, in pieces; a new mixer and resampler for every format."""
        kind: tuple[int, int] | None = None
        mixer, resampler = Mixer(self.rate, 1), Resampler(self.rate)
        seconds = 0.0
        for frame in self.decoder.frames():
            samples = channels_of(frame)
            if (bad := ~(np.abs(samples) <= LARGEST)).any():
                at = seconds + int(np.flatnonzero(bad.any(axis=0))[0]) / frame.sample_rate
                raise AudioError(f"expected finite samples in {self.name}, got NaN or infinity at {at:.3f} s; clean it")
            seconds += frame.samples / frame.sample_rate
            if kind != (kind := (frame.sample_rate, len(samples))):
                yield resampler.push(mixer.flush())
                yield resampler.flush()
                mixer, resampler = Mixer(*kind), Resampler(frame.sample_rate)
            yield resampler.push(mixer.push(samples))
        yield resampler.push(mixer.flush())
        yield resampler.flush()


def read_audio(given: Readable) -> Array:
    """A whole recording as (N,) mono float32 at 16 kHz. Arguments and errors as of `AudioReader`."""
    return np.concatenate(list(AudioReader(given)))


def channels_of(frame: Any) -> npt.NDArray[Any]:
    """(C, n) samples of a PyAV frame, float32 or float64; integer formats scaled to [-1, 1)."""
    samples = frame.to_ndarray()
    if frame.format.is_planar:
        samples = samples.reshape(-1, frame.samples)
    else:
        samples = np.ascontiguousarray(samples.reshape(frame.samples, -1).T)
    if samples.dtype == np.uint8:
        return np.asarray((samples.astype(np.float32) - 128.0) / 128.0)
    if samples.dtype.kind == "i":
        return np.asarray(samples.astype(np.float64) / -float(np.iinfo(samples.dtype).min))
    return np.asarray(samples)


def mono_samples(frame: Any) -> Array:
    """(n,) float32 mean of the channels of a PyAV frame."""
    return np.asarray(channels_of(frame).mean(axis=0), np.float32)


def safe_planes(frame: Any) -> Any:
    """The frame, interleaved if PyAV cannot read its planes.

    PyAV finds the end of the planes by a null pointer. FFmpeg has eight pointers, so with eight or more planes there is no
    null pointer, and PyAV reads memory outside of the frame (7.1 in AAC). Interleaved samples are one plane.
    """
    if not frame.format.is_planar or frame.layout.nb_channels <= MOST_PLANES:
        return frame
    import av

    packed = av.AudioResampler(format=frame.format.packed.name, layout=frame.layout.name, rate=frame.sample_rate)
    (interleaved,) = packed.resample(frame)
    return interleaved


def silence(format: str, layout: Any, rate: int, samples: int) -> Any:
    """A PyAV frame of silence; interleaved, if it has more channels than PyAV can read as planes."""
    import av

    kind, layout = av.AudioFormat(format), av.AudioLayout(layout)
    if layout.nb_channels > MOST_PLANES:
        kind = kind.packed
    frame = av.AudioFrame(format=kind, layout=layout, samples=samples)
    frame.sample_rate = rate
    for plane in frame.planes:
        plane.update((b"\x80" if kind.name in ("u8", "u8p") else b"\0") * plane.buffer_size)
    return frame


def loudest_hop(samples: Array) -> float:
    """The mean square of the loudest 80 ms of samples (n,)."""
    edges = np.arange(0, samples.size, HOP_SAMPLES)
    sizes = np.diff([*edges, samples.size])
    return float((np.add.reduceat(samples.astype(np.float64) ** 2, edges) / sizes).max(initial=0.0))


def reject_encoded(samples: object) -> None:
    """Refuse the bytes of a sound file in place of samples; as samples they would be loud noise.

    Call it with the beginning of an utterance. It recognises a file by its first bytes (WAV, MP3, Ogg, FLAC, MP4, ...), as
    bytes or as an array of int16, uint8, float32, or int16 scaled to [-1, 1].

    Raises:
        AudioError: these are the bytes of a file.
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
        if kind is not None and kind != "MPEG-TS":  # marked by one byte in 188, which a pure tone may repeat
            raise AudioError(
                f"expected samples, got the bytes of a file ({kind}); give the file itself to animate() or AudioReader, "
                "which decode it"
            )


def unreadable(name: str, error: Exception) -> AudioError:
    """The error for a file that FFmpeg cannot decode, with the reason."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return AudioError(
        f"expected a recording that FFmpeg can read (wav, flac, mp3, m4a, ogg, a video, ...), {name} cannot be decoded: "
        f"{reason}; the file is damaged, truncated or of another kind, or it holds samples without a header: give those as "
        "a NumPy array"
    )


def check_samples(samples: npt.ArrayLike, position: int = 0) -> Array:
    """Check samples; (N,) float32. `position` is how many samples of the utterance came before.

    Raises:
        AudioError: not one-dimensional, not float or int16, NaN or infinity, or the bytes of a sound file.
    """
    if position == 0:
        reject_encoded(samples)
    try:
        array = np.asarray(samples)
    except ValueError as error:  # lists of lists of unequal length
        raise AudioError(f"expected one-dimensional numbers (mono, 16 kHz), got: {error}; give (N,) samples") from None
    if array.ndim != 1:
        given = f"shape {array.shape}" if array.ndim else type(samples).__name__
        raise AudioError(f"expected one-dimensional samples (mono, 16 kHz), got {given}; mix channels down first")
    if array.dtype == np.int16:
        return array.astype(np.float32) / np.float32(32768.0)
    if array.dtype.kind != "f":
        raise AudioError(f"expected samples of float in [-1, 1] or int16, got {array.dtype}; convert them first")
    with np.errstate(over="ignore"):  # reported below
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array))[0])
        raise AudioError(
            f"expected finite samples, got {array[bad]} as sample {position + bad} "
            f"({(position + bad) / SAMPLE_RATE:.3f} s); clean the audio first"
        )
    return array
