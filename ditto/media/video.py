"""Writes frames and sound as video: files, sequences of pictures, streams. docs/outputs.md has the formats.

A file gets its name only when it is complete.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.errors import AudioError, OutputError
from ditto.media.audio import SAMPLE_RATE, AudioReader, Decoder, channels_of, silence
from ditto.media.files import Readable, check_name, check_writable, ffmpeg_name, partial_file, refused
from ditto.media.formats import SEGMENT_FRAMES, SEQUENCE, Format, Place, format_of
from ditto.media.mixing import Mixer
from ditto.media.palette import Palette
from ditto.media.rates import FPS
from ditto.provenance import Provenance, publish
from ditto.provenance.marking import BESIDE, SIDECAR

logger = logging.getLogger(__name__)

# FFmpeg's numbers: colour spaces, transfer curve and range of the YUV pictures.
BT709, BT601, SRGB_CURVE, LIMITED_RANGE = 1, 5, 13, 1
MANY_FRAMES = 999_999  # 11 hours
CONNECT_SECONDS = 10  # then a server that does not answer counts as gone
TEE_SPECIAL = re.compile(r"[\\'|]")  # in an address; FFmpeg's tee would take them for its own


def check_output(
    path: str | PathLike[str], codec: str | None = None, quality: str = "standard", alpha: bool = False
) -> Format:
    """Check that an output of this name can be written, before any work is done; how to write it.

    Nothing connects to an address before the first frame.

    Args:
        codec, quality, alpha: as of `VideoWriter`.

    Raises:
        OutputError: as of `ditto.media.formats.format_of`; an encoder or a protocol that PyAV lacks; a folder that is missing
            or not writable; a name that is too long; pictures of that name that are there already.
    """
    import av

    format = format_of(path, codec, quality, alpha)
    for encoder in filter(None, (format.encoder, format.audio_codec)):
        try:
            av.codec.Codec(encoder, "w")
        except (av.FFmpegError, ValueError) as error:
            raise OutputError(
                f"expected the encoder {encoder} for {format.name}, got PyAV {av.__version__} without it; install PyAV from "
                "its wheels (pip install --force-reinstall av), or choose another codec or suffix"
            ) from error
    if format.place is Place.ADDRESS:
        if not os.fsdecode(path).partition("://")[2].strip("/"):
            raise OutputError(f"expected an address, got {os.fsdecode(path)!r}; write it as {format.suffix}host/live/key")
        _check_protocol(os.fsdecode(path), format)
        return format
    file = Path(path)
    if format.place is Place.PICTURES:
        folder = _sequence_folder(file)
        check_writable(folder / "pictures")
        if os.path.exists(file.parent) and not os.path.isdir(file.parent):
            raise OutputError(f"expected a folder for {file.name}, got the file {file.parent}; name another folder")
        if there := _pictures_there(file):
            raise _taken(file, there)
        beside = [file.parent, *(folder / _picture(file, number).name for number in (0, MANY_FRAMES))]
    else:
        check_writable(file)
        beside = []
    if format.place is Place.SEGMENTS:
        beside = [_segment(file, MANY_FRAMES), _first_segment(file)]
    elif file.suffix.lower() in BESIDE:  # a file of its own has the credentials
        check_writable(file.with_suffix(SIDECAR))
    for name in beside:
        try:
            check_name(name)
        except (OSError, ValueError) as error:
            raise refused(name, error) from error
    return format


def _check_protocol(address: str, format: Format) -> None:
    """Raise OutputError if PyAV lacks the protocol of an address. Every FFmpeg with a network has the others."""
    import av

    if format.suffix != "srt://":
        return
    try:
        av.open("srt://localhost").close()  # without a port, so that nothing connects
    except av.error.ProtocolNotFoundError as error:
        raise unreachable(address, error) from error
    except (av.FFmpegError, OSError, ValueError):
        return  # it knows SRT, and that a port is missing


def _picture(file: Path, number: int) -> Path:
    """A picture of a sequence."""
    return file.parent / SEQUENCE.sub(lambda found: found[0] % number, file.name)


def _segment_stem(file: Path) -> str:
    """How the names of a playlist's segments begin; a % would be decoded by players, and by FFmpeg."""
    return file.stem.replace("%", "_")


def _segment(file: Path, number: int) -> Path:
    """A segment of a playlist while it is written."""
    return file.parent / f"{_segment_stem(file)}_{number:05d}.m4s.tmp"


def _first_segment(file: Path) -> Path:
    """What all segments of a playlist begin with."""
    return file.parent / f"{_segment_stem(file)}_init.mp4"


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}"


def _sequence_folder(file: Path) -> Path:
    """The folder in which pictures wait for their names: their own, or above it where that is to be made."""
    return file.parent if os.path.isdir(file.parent) else file.parent.parent


def _pictures_there(file: Path) -> str | None:
    """Name of a picture of a sequence that is there already."""
    before, after = SEQUENCE.split(file.name)
    pattern = re.compile(re.escape(before) + r"\d+" + re.escape(after))
    names = os.listdir(file.parent) if os.path.isdir(file.parent) else []
    return min(filter(pattern.fullmatch, names), default=None)


def _taken(file: Path, there: str) -> OutputError:
    return OutputError(f"expected no pictures of the name {file}, got {there}; remove them or choose another name")


class VideoWriter:
    """Writes a video at 25 frames a second; frame n is shown at n / 25 s. The suffix chooses the format.

    A context manager: a normal exit completes the file and gives it its name; an exception, Ctrl-C included, removes it.
    Two outputs are there before they are complete: a playlist (.m3u8), which is ended after an exception too, and what an
    address was sent, in real time. The sound is cut to the length of the pictures, or filled with silence.

    Args:
        path: of the output, with a suffix of `ditto.media.formats.FORMATS`; an address that begins with rtmp://, rtmps:// or
            srt://; or a name that numbers pictures, `frames/%05d.png`.
        width, height: of every frame; even, where the format has fewer colours than pixels (all but GIF and PNG).
        audio: a recording whose sound track is written at full quality (at most stereo): an `AudioReader`, or what it
            takes. Without it, the sound is the `samples` given with each frame, or none. A format without sound leaves
            both out.
        sample_rate: of the `samples` given with each frame, a multiple of 25.
        codec: one that the format has, for formats with several: "h264", "hevc", "prores", "prores4444".
        quality: "low", "standard" or "high".
        alpha: whether frames have alpha: WebM, ProRes 4444, WebP, PNG; GIF knows transparent pixels only.
        provenance: what the signed content credentials of the file say (docs/provenance.md); None: it gets none. Playlists
            and streams carry none.

    Attributes:
        format: how it is written.
        frames: written so far.
        signed: whether the complete file has content credentials.

    Raises:
        OutputError: the output cannot be written (see `check_output`). Also raised later: the disk is full, or the server
            is gone.
        ProvenanceError: the key to sign with cannot be made, read or used.
        AudioError: the sound track cannot be read. Also raised later.
        ValueError: odd or empty sizes.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        width: int,
        height: int,
        audio: Readable | AudioReader | None = None,
        sample_rate: int = SAMPLE_RATE,
        *,
        codec: str | None = None,
        quality: str = "standard",
        alpha: bool = False,
        provenance: Provenance | None = Provenance(),
    ) -> None:
        self.format = check_output(path, codec, quality, alpha)
        self._pixel_format = (alpha and self.format.alpha_format) or self.format.pixel_format
        self._yuv = self._pixel_format.startswith("yuv")
        if min(width, height) < 2 or (self._yuv and (width % 2 or height % 2)):
            raise ValueError(f"expected even sizes of 2 or more, got {width} x {height}; crop or pad by one pixel")
        self._address = os.fsdecode(path) if self.format.place is Place.ADDRESS else None
        self.path = Path(path)
        self.width, self.height, self.alpha = width, height, alpha
        self.frames, self.signed = 0, False
        carries = self.format.place in (Place.FILE, Place.PICTURES)
        self._provenance = provenance.ready() if provenance is not None and carries else None
        self._sample_rate = sample_rate
        self._decoder: Decoder | None = None
        self._sound: SoundTrack | None = None
        self._container: Any = None
        self._palette: Palette | None = None
        self._part: Path | None = None  # a file, or a folder of pictures
        self._began = 0.0
        self._muxed = 0  # bytes given to the container
        self._due = (0, 0)  # of them, before the last two segments, which may wait in memory
        self._ended = False
        if audio is not None and self.format.audio_codec is None:
            logger.info("%s carries no sound", self.path)
        elif audio is not None:  # opened now, so that an unreadable file is reported before anything is written
            self._decoder = audio.decoder if isinstance(audio, AudioReader) else Decoder(audio)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, image: npt.NDArray[np.uint8], samples: npt.NDArray[np.float32] | None = None) -> None:
        """Append one frame, (height, width, 3) uint8 RGB, and its samples if there is no `audio`.

        With `alpha` (height, width, 4), straight. Samples are those of 40 ms, (n,) mono or (2, n) stereo with
        n = sample_rate / 25: (640,) by default.

        Raises:
            ValueError: another shape or type; samples beside `audio`, or with some frames only; after the end.
            OutputError: writing failed.
            AudioError: `audio` cannot be decoded any further.
        """
        if self._ended:
            raise ValueError(f"expected an open VideoWriter, got one that was closed or failed ({self.path}); make another")
        expected = (self.height, self.width, 4 if self.alpha else 3)
        if image.shape != expected or image.dtype != np.uint8:
            raise ValueError(
                f"expected a frame {expected} uint8, got {image.shape} {image.dtype}; give all frames of a video one size"
            )
        if self.format.audio_codec is None:
            samples = None
        import av

        try:
            if self._container is None:
                self._open(0 if samples is None else 1 if samples.ndim == 1 else 2)
            if isinstance(self._sound, SampleTrack) != (samples is not None):
                given = "none" if samples is None else "some"
                raise ValueError(
                    f"expected samples with every frame or with none, and none beside `audio`, got {given} with this "
                    "one; choose one"
                )
            if self._address is not None:  # a server takes what comes for live
                time.sleep(max(0.0, self._began + self.frames / FPS - time.monotonic()))
            self._show(image)
            self.frames += 1
            if self.format.place is Place.SEGMENTS and self.frames % SEGMENT_FRAMES == 0:
                self._check_segments(self._due[0])
                self._due = (self._due[1], self._muxed)
            if self._sound is not None:
                due = self.frames
                if isinstance(self._sound, SampleTrack) and samples is not None:
                    self._sound.add_samples(samples)
                    due -= 1
                self._mux_sound(self._sound.until(due))
        except (av.FFmpegError, OSError) as error:
            self.abort()
            raise self._refused(error) from error
        except AudioError:
            self.abort()
            raise

    def close(self) -> None:
        """Complete the file, sign it and give it its name.

        Raises:
            OutputError: no frame was written, or writing failed.
            ProvenanceError: the file cannot be signed.
            AudioError: `audio` cannot be decoded any further.
        """
        import av

        if self._container is None:
            self.abort()
            raise OutputError(f"expected at least one frame for {self.path}, got none; write frames before closing it")
        named: list[Path] = []  # so far, pictures of a sequence
        try:
            self._flush()
            container, self._container = self._container, None
            container.close()
            if self.format.place is Place.SEGMENTS:
                self._check_segments(self._muxed)
            for part, target in self._complete_parts():
                if self.format.place is Place.PICTURES and not named:
                    self._claim(target)
                named.append(target)
                self.signed = publish(part, target, self._provenance)
            named = []
            if self.format.place is Place.FILE:
                self._part = None
        except (av.FFmpegError, OSError) as error:
            raise self._refused(error) from error
        finally:
            for picture in named if self.format.place is Place.PICTURES else ():  # not all of them
                picture.unlink(missing_ok=True)
            self.abort()

    def _claim(self, first: Path) -> None:
        """Take the name of a sequence's first picture, so that two processes do not write one sequence. Raises OutputError."""
        try:
            first.touch(exist_ok=False)
        except FileExistsError:
            raise _taken(self.path, first.name) from None

    def abort(self) -> None:
        """Remove the unfinished file; end a playlist or a stream. Does nothing after `close`."""
        self._ended = True
        container, self._container = self._container, None
        if container is not None:
            try:
                if self._part is None:  # what was sent or can be played already
                    self._container = container
                    self._flush()
            except Exception as error:
                logger.debug("ending an aborted stream: %s", error)
            self._container = None
            try:
                container.close()
            except Exception as error:  # writing the trailer of a file that is removed
                logger.debug("closing an aborted file: %s", error)
        part, self._part = self._part, None
        if part is not None and self.format.place is Place.PICTURES:
            shutil.rmtree(part, ignore_errors=True)
        elif part is not None:
            part.unlink(missing_ok=True)

    def _flush(self) -> None:
        """Encode what waits."""
        if self._palette is not None:
            for frame in self._palette.flush():
                self._mux(self._video.encode(frame))
        if self._sound is not None:
            if isinstance(self._sound, SampleTrack):
                self._sound.add(None)
            self._mux_sound(self._sound.until(self.frames))
            self._mux(self._sound.stream.encode(None))
        self._mux(self._video.encode(None))

    def _check_segments(self, expected: int) -> None:
        """Raise OSError if the segments have fewer bytes than went into them: FFmpeg ignores what a full disk refuses."""
        written = 0
        for number in range(self.frames // SEGMENT_FRAMES + 1):
            segment = _segment(self.path, number)
            for file in (segment, segment.with_suffix("")):
                written += file.stat().st_size if file.is_file() else 0
        if written < expected:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _complete_parts(self) -> Iterator[tuple[Path, Path]]:
        """What was written under another name, and the name it gets."""
        if self._part is None:
            return
        if self.format.place is Place.FILE:
            yield self._part, self.path
            return
        self.path.parent.mkdir(exist_ok=True)
        for number in range(self.frames):
            yield self._part / f"{number}.png", _picture(self.path, number)

    def _place(self) -> str:
        """What FFmpeg opens for writing."""
        if self._address is not None:
            options = {**self.format.container_options, "rw_timeout": str(CONNECT_SECONDS * 10**6), "flush_packets": "1"}
            given = "".join(f":{name}={value}" for name, value in options.items())
            return f"[f={self.format.container}{given}:onfail=abort]{TEE_SPECIAL.sub(_escaped, self._address)}"
        if self.format.place is Place.SEGMENTS:
            return ffmpeg_name(self.path)
        if self.format.place is Place.PICTURES:
            self._part = Path(tempfile.mkdtemp(prefix=".pictures.", suffix=".part", dir=_sequence_folder(self.path)))
            return ffmpeg_name(f"{self._part}".replace("%", "%%") + "/%d.png")
        self._part = partial_file(self.path)
        return ffmpeg_name(self._part)

    def _open(self, channels: int) -> None:
        """Open the file, for samples of 1 or 2 channels, or 0 for none."""
        import av

        format = self.format
        container_options = dict(format.container_options)
        if format.place is Place.SEGMENTS:
            segments = self.path.parent / f"{_segment_stem(self.path)}_%05d.m4s"
            container_options["hls_segment_filename"] = ffmpeg_name(segments)
            container_options["hls_fmp4_init_filename"] = _first_segment(self.path).name
        container = format.container
        if self._address is not None:
            container, container_options = "tee", {}  # opened by it, an address that does not answer is given up
        self._container = av.open(
            self._place(), "w", format=container, container_options=container_options, options={}
        )
        options = dict(format.options)
        colours = int(options.pop("colours", "0"))
        self._video = self._container.add_stream(format.encoder, rate=FPS, options=options)
        self._video.width, self._video.height = self.width, self.height
        self._video.pix_fmt = self._pixel_format
        context = self._video.codec_context
        context.thread_count = 2
        if self._address is not None:
            context.flags |= av.codec.context.Flags.global_header  # which the container inside of the tee asks for
        context.time_base = Fraction(1, FPS)
        if "crf" in options:
            self._video.bit_rate = 0  # constant quality
        if self._yuv:
            context.colorspace, context.color_primaries, context.color_trc = BT709, BT709, SRGB_CURVE
            context.color_range = LIMITED_RANGE
        if format.tag is not None:
            context.codec_tag = format.tag
        if self.alpha and format.container == "webm":
            self._video.metadata["alpha_mode"] = "1"  # of WebM; without it, players take no notice of the alpha
        if colours:
            self._palette = Palette(self.width, self.height, colours)
        if (decoder := self._decoder) is not None:
            rate = decoder.rate if decoder.rate in format.audio_rates else format.audio_rates[-1]
            layout = "mono" if decoder.most_channels == 1 else "stereo"
            self._sound = FileTrack(self._add_sound(rate, layout), rate, layout, decoder)
        elif channels:
            rate, layout = format.audio_rates[-1], "mono" if channels == 1 else "stereo"
            self._sound = SampleTrack(self._add_sound(rate, layout), rate, layout, self._sample_rate)
        self._began = time.monotonic()

    def _show(self, image: npt.NDArray[np.uint8]) -> None:
        """Encode a picture."""
        import av

        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgba" if self.alpha else "rgb24")
        frame.pts, frame.time_base = self.frames, Fraction(1, FPS)
        if self._palette is not None:
            for shown in self._palette.push(frame):
                self._mux(self._video.encode(shown))
            return
        if self._yuv:
            matrix = BT601 if self.format.container == "webp" else BT709  # WebP knows no other
            shown = frame.reformat(format=self._pixel_format, dst_colorspace=matrix, dst_color_range=LIMITED_RANGE)
        else:
            shown = frame.reformat(format=self._pixel_format)
        shown.pts, shown.time_base = frame.pts, frame.time_base
        self._mux(self._video.encode(shown))

    def _add_sound(self, rate: int, layout: str) -> Any:
        import av

        assert self.format.audio_codec is not None
        stream = self._container.add_stream(self.format.audio_codec, rate=rate, layout=layout)
        if self._address is not None:
            stream.codec_context.flags |= av.codec.context.Flags.global_header
        stream.bit_rate = self.format.audio_bit_rate if layout == "stereo" else self.format.audio_bit_rate * 5 // 8
        return stream

    def _refused(self, error: Exception) -> OutputError:
        return refused(self.path, error) if self._address is None else unreachable(self._address, error)

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            self._muxed += packet.size
            self._container.mux(packet)

    def _mux_sound(self, frames: Iterator[Any]) -> None:
        assert self._sound is not None
        for frame in frames:
            self._mux(self._sound.stream.encode(frame))


class SoundTrack:
    """The sound of a video, as much as there are frames; silence after its end.

    Attributes:
        stream: PyAV's output stream.
    """

    def __init__(self, stream: Any, rate: int, layout: str) -> None:
        import av

        self.stream = stream
        self.rate = rate
        self.layout = layout
        self._written = 0
        self._fifo = av.AudioFifo()
        self._resampler: Any = None
        self._format: tuple[str, str, int] | None = None  # that the resampler takes

    def more(self) -> bool:
        """Read more sound into the FIFO; False if there is no more."""
        return False

    def add(self, frame: Any) -> None:
        """Resample a PyAV frame of any format into the FIFO; None flushes the resampler."""
        import av

        format = None if frame is None else (frame.format.name, frame.layout.name, frame.sample_rate)
        if format != self._format:
            if self._resampler is not None:
                self._store(self._resampler.resample(None))
            self._format = format
            self._resampler = format and av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
        if frame is not None:
            frame.pts = None
            self._store(self._resampler.resample(frame))

    def _store(self, frames: list[Any]) -> None:
        for frame in frames:
            if frame is None:  # PyAV returns the None of a flush if it need not resample
                continue
            if (frame.format.name, frame.layout.name, frame.sample_rate) != ("fltp", self.layout, self.rate):
                raise ValueError(
                    f"expected fltp, {self.layout}, {self.rate} Hz from the resampler, got {frame}; use another version of "
                    "PyAV"
                )
            frame.pts, frame.time_base = None, Fraction(1, self.rate)
            self._fifo.write(frame)  # copies as many planes as the first frame had: formats must be equal

    def until(self, frames: int) -> Iterator[Any]:
        """The sound up to the end of the first `frames` frames that was not given yet."""
        end = frames * self.rate // FPS
        while self._fifo.samples < end - self._written and self.more():
            continue
        if (available := min(end - self._written, self._fifo.samples)) > 0:
            yield self._stamp(self._fifo.read(available), available)
        if (missing := end - self._written) > 0:
            yield self._stamp(silence("fltp", self.layout, self.rate, missing), missing)

    def _stamp(self, frame: Any, samples: int) -> Any:
        frame.pts, frame.time_base, frame.sample_rate = self._written, Fraction(1, self.rate), self.rate
        self._written += samples
        return frame


class FileTrack(SoundTrack):
    """The sound of a file. `Mixer` mixes channel layouts that FFmpeg cannot convert (9, 11, ambisonic, ...).

    All errors are errors of that file, raised as AudioError.
    """

    def __init__(self, stream: Any, rate: int, layout: str, decoder: Decoder) -> None:
        super().__init__(stream, rate, layout)
        self._name = decoder.name
        self._frames: Iterator[Any] | None = decoder.frames()
        self._source: tuple[str, str, int] | None = None  # format of the last frame
        self._mixer: Mixer | None = None  # for frames of that format, if FFmpeg cannot mix them

    def more(self) -> bool:
        import av

        if self._frames is None:
            return False
        try:
            frame = next(self._frames, None)
            if frame is None:
                self._frames = None
            self._take(frame)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise AudioError(f"the sound of {self._name} cannot be converted ({error}); export it as WAV") from error
        return True

    def _take(self, frame: Any) -> None:
        source = None if frame is None else (frame.format.name, frame.layout.name, frame.sample_rate)
        if source != self._source:
            if self._mixer is not None and self._source is not None:
                self._add_mono(self._mixer.flush(), self._source[2])
            self._source, self._mixer = source, None
            if frame is not None and not self._convertible(frame):
                self._mixer = Mixer(frame.sample_rate, frame.layout.nb_channels)
        if self._mixer is None:
            self.add(frame)
        else:
            self._add_mono(self._mixer.push(channels_of(frame)), frame.sample_rate)

    def _convertible(self, frame: Any) -> bool:
        """Whether FFmpeg converts the layout of a frame to that of the output at the same loudness."""
        import av

        if frame.layout.nb_channels == 1 or self.layout == "mono":
            return self.layout == "mono" and frame.layout.nb_channels == 1
        try:
            trial = av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
            trial.resample(silence(frame.format.name, frame.layout, frame.sample_rate, 1))
        except (av.FFmpegError, ValueError):
            return False
        return True

    def _add_mono(self, samples: npt.NDArray[np.float32], rate: int) -> None:
        import av

        if samples.size:
            both = np.tile(samples, (2 if self.layout == "stereo" else 1, 1))
            frame = av.AudioFrame.from_ndarray(both, format="fltp", layout=self.layout)
            frame.sample_rate = rate
            self.add(frame)


class SampleTrack(SoundTrack):
    """The sound given frame by frame, mono or stereo samples.

    The resampler delays a few samples, so the sound of a frame is written with the next frame, the last on `close`.
    """

    def __init__(self, stream: Any, rate: int, layout: str, sample_rate: int) -> None:
        super().__init__(stream, rate, layout)
        self._sample_rate = sample_rate

    def add_samples(self, samples: npt.NDArray[np.float32]) -> None:
        """Add the sound of one frame, (n,) or (2, n) with n = sample_rate / 25; raises ValueError for another shape."""
        import av

        block = np.ascontiguousarray(samples, np.float32)
        size = self._sample_rate // FPS
        if block.shape != ((size,) if self.layout == "mono" else (2, size)):
            expected = f"({size},)" if self.layout == "mono" else f"(2, {size})"
            raise ValueError(f"expected samples {expected} float32 of a frame, got {block.shape}; give 40 ms")
        frame = av.AudioFrame.from_ndarray(np.atleast_2d(block), format="fltp", layout=self.layout)
        frame.sample_rate = self._sample_rate
        self.add(frame)


def unreachable(address: str, error: Exception) -> OutputError:
    """The error for an address that takes no stream, or takes no more of it."""
    import av

    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    scheme, place = address.partition("://")[0], address.partition("://")[2].partition("/")[0].rpartition("@")[2]
    if isinstance(error, av.error.ProtocolNotFoundError):
        return OutputError(
            f"expected PyAV with {scheme.upper()}, got PyAV {av.__version__} without it; send to an rtmp:// address, or build "
            f"PyAV on an FFmpeg that has it"
        )
    return OutputError(
        f"expected a server at {place} that takes {scheme.upper()}, got: {reason}; check the address, and that it listens"
    )
