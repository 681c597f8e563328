"""Writes frames and sound as MP4 or WebM. The file gets its name only when it is complete."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import AudioError, OutputError
from ditto.media.audio import SAMPLE_RATE, AudioReader, Decoder, channels_of, silence
from ditto.media.files import Readable, check_writable, complete_file, ffmpeg_name, partial_file, refused
from ditto.media.mixing import Mixer
from ditto.media.rates import FPS

logger = logging.getLogger(__name__)

BT709, SRGB_CURVE, LIMITED_RANGE = 1, 13, 1  # FFmpeg's numbers: colour space, transfer curve and range of the YUV pictures


class Format(NamedTuple):
    """How to write one kind of file. Options are FFmpeg's."""

    container: str
    container_options: dict[str, str]
    video_codec: str
    video_options: dict[str, str]
    audio_codec: str
    audio_bit_rate: int
    audio_rates: tuple[int, ...]  # kept; every other rate is resampled to the last of these


FORMATS = {
    ".mp4": Format(
        container="mp4",
        container_options={"movflags": "+faststart"},
        video_codec="libx264",
        video_options={"preset": "veryfast", "crf": "18", "profile": "high"},
        audio_codec="aac",
        audio_bit_rate=160_000,
        audio_rates=(44100, 48000),
    ),
    ".webm": Format(
        container="webm",
        container_options={},
        video_codec="libvpx-vp9",
        video_options={"deadline": "realtime", "cpu-used": "7", "crf": "24", "row-mt": "1"},
        audio_codec="libopus",
        audio_bit_rate=128_000,
        audio_rates=(48000,),
    ),
}


def check_output(path: str | PathLike[str]) -> Format:
    """Check that a file of this name can be written, before any work is done; how to write it.

    Raises:
        OutputError: a suffix other than .mp4 and .webm, a codec that PyAV lacks, a folder that is missing or not writable.
    """
    import av

    file = Path(path)
    if file.suffix.lower() not in FORMATS:
        raise OutputError(f"expected an output that ends in {' or '.join(FORMATS)}, got {file.name!r}; choose one of them")
    format = FORMATS[file.suffix.lower()]
    for codec in (format.video_codec, format.audio_codec):
        try:
            av.codec.Codec(codec, "w")
        except (av.FFmpegError, ValueError) as error:
            raise OutputError(
                f"expected the encoder {codec} for {file.suffix}, got PyAV {av.__version__} without it; install PyAV from its "
                "wheels (pip install --force-reinstall av) or choose another suffix"
            ) from error
    check_writable(file)
    return format


class VideoWriter:
    """Writes H.264 + AAC (.mp4) or VP9 + Opus (.webm) at 25 frames a second; frame n is shown at n / 25 s.

    A context manager: a normal exit completes the file and gives it its name; an exception, Ctrl-C included, removes it.
    The sound is cut to the length of the pictures, or filled with silence.

    Args:
        path: of the output, .mp4 or .webm.
        width, height: of every frame, even.
        audio: a recording whose sound track is written at full quality (at most stereo): an `AudioReader`, or what it
            takes. Without it, the sound is the `samples` given with each frame, or none.
        sample_rate: of the `samples` given with each frame, a multiple of 25.

    Raises:
        OutputError: the output cannot be written (see `check_output`). Also raised later: the disk is full.
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
    ) -> None:
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise ValueError(f"expected even sizes of 2 or more, got {width} x {height}; crop or pad by one pixel")
        self.path = Path(path)
        self.width, self.height = width, height
        self.frames = 0
        self._sample_rate = sample_rate
        self._format = check_output(self.path)
        self._decoder: Decoder | None = None
        self._sound: SoundTrack | None = None
        self._container: Any = None
        self._part: Path | None = None
        self._ended = False
        if audio is not None:  # opened now, so that an unreadable file is reported before anything is written
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

        Samples are those of 40 ms, (n,) mono or (2, n) stereo with n = sample_rate / 25: (640,) by default.

        Raises:
            ValueError: another shape or type; samples beside `audio`, or with some frames only; after the end.
            OutputError: writing failed.
            AudioError: `audio` cannot be decoded any further.
        """
        if self._ended:
            raise ValueError(f"expected an open VideoWriter, got one that was closed or failed ({self.path}); make another")
        if image.shape != (self.height, self.width, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"expected a frame ({self.height}, {self.width}, 3) uint8, got {image.shape} {image.dtype}; "
                "give all frames of a video one size"
            )
        import av

        try:
            if self._container is None:
                self._open(0 if samples is None else 1 if samples.ndim == 1 else 2)
            if isinstance(self._sound, SampleTrack) != (samples is not None):
                raise ValueError("expected samples with every frame or with none, and none beside `audio`; choose one")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE
            )
            frame.pts, frame.time_base = self.frames, Fraction(1, FPS)
            self._mux(self._video.encode(frame))
            self.frames += 1
            if self._sound is not None:
                due = self.frames
                if isinstance(self._sound, SampleTrack) and samples is not None:
                    self._sound.add_samples(samples)
                    due -= 1
                self._mux_sound(self._sound.until(due))
        except (av.FFmpegError, OSError) as error:
            self.abort()
            raise refused(self.path, error) from error
        except AudioError:
            self.abort()
            raise

    def close(self) -> None:
        """Complete the file and give it its name.

        Raises:
            OutputError: no frame was written, or writing failed.
            AudioError: `audio` cannot be decoded any further.
        """
        import av

        if self._container is None:
            self.abort()
            raise OutputError(f"expected at least one frame for {self.path}, got none; write frames before closing it")
        try:
            if self._sound is not None:
                if isinstance(self._sound, SampleTrack):
                    self._sound.add(None)
                self._mux_sound(self._sound.until(self.frames))
                self._mux(self._sound.stream.encode(None))
            self._mux(self._video.encode(None))
            container, self._container = self._container, None
            container.close()
            assert self._part is not None
            complete_file(self._part, self.path)
            self._part = None
        except (av.FFmpegError, OSError) as error:
            raise refused(self.path, error) from error
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove the unfinished file. Does nothing after `close`."""
        self._ended = True
        container, self._container = self._container, None
        if container is not None:
            try:
                container.close()
            except Exception as error:  # writing the trailer of a file that is removed
                logger.debug("closing an aborted file: %s", error)
        part, self._part = self._part, None
        if part is not None:
            part.unlink(missing_ok=True)

    def _open(self, channels: int) -> None:
        """Open the file, for samples of 1 or 2 channels, or 0 for none."""
        import av

        format = self._format
        self._part = partial_file(self.path)
        self._container = av.open(
            ffmpeg_name(self._part),
            "w",
            format=format.container,
            container_options=format.container_options,
            options={},
        )
        self._video = self._container.add_stream(format.video_codec, rate=FPS, options=dict(format.video_options))
        self._video.width, self._video.height = self.width, self.height
        self._video.pix_fmt = "yuv420p"
        self._video.bit_rate = 0  # constant quality
        context = self._video.codec_context
        context.thread_count = 2
        context.time_base = Fraction(1, FPS)
        context.colorspace, context.color_primaries, context.color_trc = BT709, BT709, SRGB_CURVE
        context.color_range = LIMITED_RANGE
        if (decoder := self._decoder) is not None:
            rate = decoder.rate if decoder.rate in format.audio_rates else format.audio_rates[-1]
            layout = "mono" if decoder.most_channels == 1 else "stereo"
            self._sound = FileTrack(self._add_sound(rate, layout), rate, layout, decoder)
        elif channels:
            rate, layout = format.audio_rates[-1], "mono" if channels == 1 else "stereo"
            self._sound = SampleTrack(self._add_sound(rate, layout), rate, layout, self._sample_rate)

    def _add_sound(self, rate: int, layout: str) -> Any:
        stream = self._container.add_stream(self._format.audio_codec, rate=rate, layout=layout)
        stream.bit_rate = self._format.audio_bit_rate if layout == "stereo" else self._format.audio_bit_rate * 5 // 8
        return stream

    def _mux(self, packets: Any) -> None:
        for packet in packets:
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
                raise ValueError(f"expected fltp, {self.layout}, {self.rate} Hz from the resampler, got {frame}")
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
