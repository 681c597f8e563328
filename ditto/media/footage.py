"""The pictures of a video at 25 a second.

Frame k is what the video shows at k / 25 s after its first picture, upright and with square pixels, so a variable frame
rate and a rotation in the metadata are taken into account.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.errors import VideoError
from ditto.media.files import Source
from ditto.media.rates import FPS

logger = logging.getLogger(__name__)

Bytes = npt.NDArray[np.uint8]

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts")
LONGEST_STILL = 10.0  # seconds between two pictures; more is a jump in the time stamps
MISSING_SECONDS = 1.0  # fewer at the end of a video are not worth a warning: headers are seldom exact
NEAR = 0.5 / FPS  # seconds: a picture may be shown so much before its time, not more
BAD_PACKETS_IN_A_ROW = 50  # then the rest of the video counts as lost
HDR = (16, 18)  # transfer characteristics of PQ and HLG (ITU-T H.273, table 3)
SEEK_SECONDS = 1.0  # decoding begins so much before the first frame that is asked for


def is_video(path: str | PathLike[str]) -> bool:
    """Whether a file is a video by its name."""
    return os.path.splitext(os.fsdecode(path))[1].lower() in SUFFIXES


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """PyAV's container of a video. FFmpeg gets its bytes, never a name, and cannot open anything else.

    Raises:
        VideoError: FFmpeg cannot read it, or it has no pictures.
    """
    import av

    if not hasattr(av.VideoFrame, "rotation"):
        raise VideoError(f"expected PyAV 14 or later, which reads rotations, got {av.__version__}; pip install -U av")
    source = Source(path, "a video", VideoError)
    try:
        with (
            source.open() as stream,
            av.open(stream, container_options={"protocol_whitelist": "none"}, metadata_errors="replace") as container,
        ):
            if not container.streams.video or container.streams.video[0].codec_context is None:
                raise VideoError(f"expected a video, got {path} without pictures that can be decoded; give a video")
            context = container.streams.video[0].codec_context
            context.thread_count = 1  # the workers share the processor
            if getattr(context, "color_trc", 0) in HDR:
                logger.warning("%s is HDR video; its colours look flat here: export it as SDR", path)
            yield container
    except (av.FFmpegError, OSError, ValueError) as error:
        raise unreadable(path, error) from error


def unreadable(path: str, error: Exception) -> VideoError:
    return VideoError(f"expected a video, got {path}, which cannot be decoded: {error}; copy or export it again")


def decoded(container: Any) -> Iterator[tuple[float | None, Any]]:
    """The frames of a container with their time stamps in seconds. Damaged packets and pictures are left out.

    Raises:
        FFmpeg's error if nothing, or 50 packets in a row, can be decoded.
    """
    import av

    bad, found = 0, False
    for packet in container.demux(container.streams.video[0]):
        try:
            frames = packet.decode()
        except (av.FFmpegError, ValueError) as error:
            bad += 1
            failure = error
            if bad >= BAD_PACKETS_IN_A_ROW:
                raise
            continue
        for frame in frames:
            if not frame.is_corrupt:
                bad, found = 0, True
                yield frame.time, frame
    if bad and not found:
        raise failure


def frame_times(container: Any) -> Iterator[tuple[float, Any]]:
    """The frames with times that never go back; one without a time stamp follows at the average rate."""
    rate = float(container.streams.video[0].average_rate or FPS)
    last: float | None = None
    for time, frame in decoded(container):
        due = 0.0 if last is None else last + 1 / rate
        now = due if time is None else float(time)
        last = now if last is None else max(last, now)
        yield last, frame


def pictures(path: str, start: int = 0, end: int | None = None) -> Iterator[Bytes]:
    """Frames [start, end) of a video at 25 a second, (H, W, 3) RGB; fewer if it ends before.

    Raises:
        VideoError: it cannot be decoded, or its time stamps jump.
    """
    first = first_time(path)
    with opened(path) as container:
        if start > FPS * SEEK_SECONDS:
            try:
                container.seek(round((first + start / FPS - SEEK_SECONDS) * 1e6))
                arrived = next(decoded(container), (None, None))[0]
                if arrived is not None and arrived <= first + start / FPS:
                    container.seek(round((first + start / FPS - SEEK_SECONDS) * 1e6))
                    yield from upright(resampled(container, path, first, start, end), pixel_aspect(container))
                    return
            except container_error():
                pass  # a container that cannot seek
    with opened(path) as container:
        yield from upright(resampled(container, path, first, start, end), pixel_aspect(container))


def container_error() -> type[Exception]:
    import av

    error: type[Exception] = av.FFmpegError
    return error


def first_time(path: str) -> float:
    """Time stamp of the first picture, seconds. Raises VideoError."""
    with opened(path) as container:
        for time, _ in frame_times(container):
            return time
    raise VideoError(f"expected pictures in {path}, got none; copy or export it again")


def resampled(container: Any, path: str, first: float, start: int, end: int | None) -> Iterator[Any]:
    """PyAV frames for each of the frames [start, end): the one whose time is nearest, or the one before it if the next is
    more than half a frame away."""
    k = start
    shown: tuple[float, Any] | None = None
    rate = float(container.streams.video[0].average_rate or FPS)
    for time, frame in frame_times(container):
        time -= first
        if shown is not None:
            before, picture = shown
            if time - before > LONGEST_STILL:
                raise VideoError(
                    f"expected pictures at most {LONGEST_STILL:.0f} s apart in {path}, got a jump from {before:.2f} to "
                    f"{time:.2f} s; export it again"
                )
            while (end is None or k < end) and (k / FPS - before <= time - k / FPS or time - k / FPS > NEAR):
                yield picture
                k += 1
        if end is not None and k >= end:
            return
        shown = time, frame
    if shown is not None:
        before, picture = shown
        told = length(container)
        if end is None and told is not None and told - before > MISSING_SECONDS:
            logger.warning("%s has %.2f s of %.2f s; the rest is missing or damaged", path, before + 1 / rate, told)
        while (end is None or k < end) and k < frames_in(before + 1 / rate):
            yield picture
            k += 1


def length(container: Any) -> float | None:
    """Seconds of the pictures as the file says; None where it does not."""
    stream = container.streams.video[0]
    return None if stream.duration is None else float(stream.duration * stream.time_base)


def frames_in(seconds: float) -> int:
    """How many frames of 40 ms a duration has; half of one counts."""
    return int(seconds * FPS + 0.5)


def pixel_aspect(container: Any) -> float:
    """Width of a pixel over its height; 1 where the file does not say, or says what cannot be."""
    aspect = float(container.streams.video[0].sample_aspect_ratio or 1)
    return aspect if 0.2 < aspect < 5.0 else 1.0


def upright(frames: Iterator[Any], aspect: float) -> Iterator[Bytes]:
    """Pictures (H, W, 3) of PyAV frames: square pixels, turned as the metadata says. A frame shown again is not redrawn."""
    last: Any = None
    picture: Bytes | None = None
    for frame in frames:
        if frame is not last or picture is None:
            last, picture = frame, picture_of(frame, aspect)
        yield picture


def picture_of(frame: Any, aspect: float) -> Bytes:
    """(H, W, 3) RGB, square pixels, turned as the metadata says."""
    width = max(2, round(frame.width * aspect))
    rgb = frame.reformat(width=width, height=frame.height, format="rgb24") if width != frame.width else frame
    image = rgb.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4  # counterclockwise
    return np.ascontiguousarray(np.rot90(image, turns) if turns else image, np.uint8)
