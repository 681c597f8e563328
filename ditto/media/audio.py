"""Audio: anything with a sound track becomes mono float32 at 16 kHz, in blocks, in constant memory."""

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

BLOCK_SAMPLES = SAMPLE_RATE // 2  # about half a second: what AudioReader gives at a time
LOWEST_RATE, HIGHEST_RATE = 4000, 384000
BAD_PACKETS_IN_A_ROW = 50  # after that the rest counts as lost
ESTIMATED_DURATION = {"mp3", "aac", "ac3", "eac3", "amr", "dts", "loas", "mpegts"}  # FFmpeg guesses from the bit rate
TOLERANCE_SECONDS = 0.25  # by which a track may end before its container says
RIFF_TOLERANCE = 8  # bytes: some writers leave out the padding, some count the RIFF chunk's own head
# Pauses are read from the time stamps of containers that have some for every packet. Shorter ones are jitter (what
# FFmpeg's aresample takes for a gap, min_hard_comp); in broadcasts, longer ones are splices (FFmpeg's dts_delta_threshold).
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
SILENCE_DB = -52.0  # of full scale: the lite bundle's encoder takes a hop below for silence (ACTIVE_DB)
MOST_PLANES = 7  # one less than FFmpeg's AV_NUM_DATA_POINTERS
LARGEST = float(np.finfo(np.float32).max)

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


class Part(NamedTuple):
    """One recording of a file: its bytes, and what its container declares of its first sound track."""

    spans: list[Span]
    rate: int
    channels: int
    seconds: float | None  # as declared or, where `estimated`, as FFmpeg guesses it from the bit rate
    estimated: bool


class Decoder:
    """The sound track of a file, decoded block by block at its own rate. What both reader and writer stand on.

    A file may join several recordings, each whole with its header: they follow each other.

    Args:
        given: see `AudioReader`.

    Attributes:
        name: of the file, for messages.
        path: of the file, or None if it was not given by name.
        rate: samples a second, of the first recording.
        channels: number of channels, of the first recording.
        most_channels: of any.
        duration_seconds: as the containers declare it, or None.
        damage: what was lost while decoding, in words, or None; known when `frames` is exhausted.

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
                self._unusable.append(f"bytes {spans[0][0]} to {spans[-1][1]} are no recording that can be read")
        if not self._parts:
            raise errors[0]
        self.rate, self.channels = self._parts[0].rate, self._parts[0].channels
        self.most_channels = max(part.channels for part in self._parts)
        seconds = [part.seconds for part in self._parts]
        self.duration_seconds = None if None in seconds else sum(filter(None, seconds))

    def frames(self) -> Iterator[Any]:
        """PyAV audio frames, in order; format, layout and rate may change from one to the next.

        A pause in the time stamps comes as frames of silence. A damaged packet is skipped, a damaged rest ends its
        recording; `damage` says so.

        Raises:
            AudioError: nothing at all could be decoded.
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
            except (av.FFmpegError, OSError, ValueError) as error:  # the container itself ends in the middle
                decoding.failure = error
            failure = failure or decoding.failure
            with self._source.open() as stream:
                damage += decoding.damage(stream, decoded)
        if decoded == 0.0:
            if failure is not None:
                raise unreadable(self.name, failure) from failure
            raise AudioError(f"{self.name} holds no samples; give a recording of at least 40 ms")
        if damage:
            self.damage = "; ".join(dict.fromkeys(damage))
            logger.warning("%s: %s", self.name, self.damage)

    @contextmanager
    def _opened(self, spans: list[Span]) -> Iterator[Any]:
        """PyAV's container of one recording. FFmpeg is given its bytes, never a name, and may open nothing else."""
        import av

        with self._source.open() as stream:
            whole = spans == [(0, self._source.size)]
            file = stream if whole else io.BufferedReader(Spans(stream, spans))
            with av.open(
                file, container_options={"protocol_whitelist": "none"}, metadata_errors="replace"
            ) as container:
                yield container

    def _examine(self, spans: list[Span]) -> Part:
        """What a recording declares. Raises AudioError for one without a sound track that can be read."""
        import av

        try:
            with self._opened(spans) as container:
                if not container.streams.audio:
                    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
                    raise AudioError(f"expected a sound track in {self.name}, it holds {kinds}; give a recording")
                stream = container.streams.audio[0]
                if stream.codec_context is None:
                    raise AudioError(
                        f"expected a sound track of a known codec in {self.name}, FFmpeg knows none for it; the file is "
                        "damaged, or convert it to WAV"
                    )
                rate, channels = int(stream.codec_context.sample_rate or 0), int(stream.codec_context.channels)
                seconds = None
                if stream.duration and stream.time_base:
                    seconds = float(stream.duration * stream.time_base)
                elif container.duration:
                    seconds = container.duration / 1e6
                if seconds and seconds * (stream.codec_context.bit_rate or 0) / 8 >= STREAMED > self._source.size:
                    seconds = None  # of a writer that did not know it
                container_name = container.format.name
        except (av.FFmpegError, OSError, ValueError) as error:
            raise unreadable(self.name, error) from error
        if rate <= 0 or channels <= 0:
            raise AudioError(
                f"expected a sound track with a sample rate in {self.name}, it declares {rate} Hz and {channels} channels; "
                "the file is damaged or truncated, record or export it again"
            )
        if container_name == "mp3":
            with self._source.open() as file:
                declared = mp3_seconds(file, spans[0][0])
            if declared is not None and abs(declared - (seconds or 0.0)) > TOLERANCE_SECONDS:
                seconds = declared  # FFmpeg guesses where the file's size and its header differ
            return Part(spans, rate, channels, seconds, estimated=declared is None)
        return Part(spans, rate, channels, seconds, estimated=container_name in ESTIMATED_DURATION)


class Decoding:
    """One pass over one recording, and what it finds amiss."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._seconds = 0.0
        self._lost = 0
        self._jumps: list[str] = []
        self.failure: Exception | None = None

    def frames(self, container: Any) -> Iterator[Any]:
        """The frames of the first sound track, with pauses filled. Raises what FFmpeg does where the container ends."""
        import av

        lost_in_a_row = 0
        due: float | None = None  # when the next frame begins by the time stamps
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
                f"the time stamps jump by {seconds:.2f} s after {self._seconds:.2f} s, no pause is made of it"
            )
            return
        missing = round(seconds * like.sample_rate)
        while missing > 0:
            count = min(missing, like.sample_rate)
            missing -= count
            yield self._counted(silence(like.format.name, like.layout, like.sample_rate, count))

    def damage(self, stream: BinaryIO, decoded: float) -> list[str]:
        """What was lost, in words; `decoded` is how many seconds of the whole file there are up to the end of this part."""
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
    """A recording as blocks of mono float32 samples at 16 kHz; see `Mixer` for how channels become one.

    Reads every container and codec PyAV does, the sound of video files too, at any rate from 4 to 384 kHz; one that
    joins several recordings to its end. Memory does not grow with the length. Can be iterated again.

    Args:
        given: a path, the bytes of a file, or a file opened for reading bytes. A named pipe and an open file are copied
            to a temporary file first.

    Attributes:
        name: of the file, for messages.
        path: of the file, or None if it was not given by name.
        rate, channels: of the file, where it begins.
        duration_seconds: as the file declares it, or None.
        damage: after iteration, what could not be decoded, in words, or None.

    Raises:
        AudioError: when made: the file is missing, empty, unreadable or has no sound track; when iterated: it holds no
            samples, NaN or infinite values.
        TypeError: something of another kind was given.
    """

    def __init__(self, given: Readable) -> None:
        self.decoder = Decoder(given)
        Resampler(self.decoder.rate)  # refuses a rate outside the range now, not after the first block
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
            raise AudioError(f"{self.name} holds less than a sample at 16 kHz; give a recording of at least 40 ms")
        level = 10.0 * math.log10(loudest) if loudest > 0.0 else -math.inf
        if level < SILENCE_DB:
            logger.warning(
                "%s: at its loudest it has %.0f dB of full scale; speech under %.0f dB moves nothing, make it louder",
                self.name, level, SILENCE_DB,
            )  # fmt: skip

    def _resampled(self) -> Iterator[Array]:
        """Mono samples at 16 kHz, in pieces as they come; mixer and resampler anew for every format."""
        kind: tuple[int, int] | None = None
        mixer, resampler = Mixer(self.rate, 1), Resampler(self.rate)
        seconds = 0.0
        for frame in self.decoder.frames():
            samples = channels_of(frame)
            if (bad := ~(np.abs(samples) <= LARGEST)).any():
                at = seconds + int(np.flatnonzero(bad.any(axis=0))[0]) / frame.sample_rate
                raise AudioError(f"{self.name} holds NaN or infinity at {at:.3f} s, expected finite samples; clean it")
            seconds += frame.samples / frame.sample_rate
            if kind != (kind := (frame.sample_rate, len(samples))):
                yield resampler.push(mixer.flush())
                yield resampler.flush()
                mixer, resampler = Mixer(*kind), Resampler(frame.sample_rate)
            yield resampler.push(mixer.push(samples))
        yield resampler.push(mixer.flush())
        yield resampler.flush()


def read_audio(given: Readable) -> Array:
    """A whole recording as (N,) mono float32 at 16 kHz. Takes and raises what `AudioReader` does."""
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
    """The same sound in a frame whose planes can be read.

    PyAV finds the end of the planes by a null pointer. FFmpeg has eight pointers, so eight planes or more end in none, and
    PyAV reads memory that is not the frame's (7.1 in AAC). Interleaved samples are one plane.
    """
    if not frame.format.is_planar or frame.layout.nb_channels <= MOST_PLANES:
        return frame
    import av

    packed = av.AudioResampler(format=frame.format.packed.name, layout=frame.layout.name, rate=frame.sample_rate)
    (interleaved,) = packed.resample(frame)
    return interleaved


def silence(format: str, layout: Any, rate: int, samples: int) -> Any:
    """A PyAV frame without sound; interleaved, where it has more channels than PyAV reads planes."""
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
    """The mean square of the loudest 80 ms of (n,) samples."""
    edges = np.arange(0, samples.size, HOP_SAMPLES)
    sizes = np.diff([*edges, samples.size])
    return float((np.add.reduceat(samples.astype(np.float64) ** 2, edges) / sizes).max(initial=0.0))


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


def unreadable(name: str, error: Exception) -> AudioError:
    """The error for a file FFmpeg cannot decode, with its reason."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return AudioError(
        f"expected a recording FFmpeg can read (wav, flac, mp3, m4a, ogg, a video, ...), {name} cannot be decoded: "
        f"{reason}; the file is damaged, truncated or of another kind, or it holds bare samples: those are given as a "
        "NumPy array"
    )


def check_samples(samples: npt.ArrayLike, position: int = 0) -> Array:
    """(N,) float32 samples, checked; `position` is how many came before them.

    Raises:
        AudioError: not one-dimensional, not numbers, integers (their scale is unknown), or NaN or infinite values; or
            the bytes of a sound file.
    """
    if position == 0:
        reject_encoded(samples)
    try:
        array = np.asarray(samples)
    except ValueError as error:  # lists of lists of unequal length
        raise AudioError(f"samples are one-dimensional numbers (mono, 16 kHz): {error}") from None
    if array.ndim != 1:
        came = f"shape {array.shape}" if array.ndim else type(samples).__name__
        raise AudioError(f"samples are one-dimensional (mono, 16 kHz), got {came}; mix channels down first")
    if array.dtype == np.int16:
        return array.astype(np.float32) / np.float32(32768.0)
    if array.dtype.kind != "f":
        raise AudioError(f"samples are float in [-1, 1] or int16, got {array.dtype}; convert them first")
    with np.errstate(over="ignore"):  # told below
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array))[0])
        raise AudioError(
            f"samples are finite numbers, sample {position + bad} ({(position + bad) / SAMPLE_RATE:.3f} s) is "
            f"{array[bad]}; clean the audio first"
        )
    return array
