"""The step `media`: sound at 16 kHz on a video's own time axis; and its pictures at 25 a second.

Frame k is what the video shows at k / 25 s after its first picture, upright and with square pixels, so a variable frame
rate, a rotation in the metadata and sound that begins earlier or later than the pictures are all taken into account.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.errors import AudioError, VideoError
from ditto.media.audio import AudioReader
from ditto.media.files import Source, complete_file, partial_file
from ditto.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.training.dataset import unwritable
from ditto.training.prepare.work import Dropped, Media, Outcome, Video, Work

Bytes = npt.NDArray[np.uint8]

LONGEST_STILL = 10.0  # seconds between two pictures; more is a jump in the time stamps
NEAR = 0.5 / FPS  # seconds: a picture may be shown so much before its time, not more
BAD_PACKETS_IN_A_ROW = 50  # then the rest of the video counts as lost
SEEK_SECONDS = 1.0  # decoding begins so much before the first frame that is asked for
MOST_SOUND_OFFSET = 60.0  # seconds between the first picture and the first sound; more is a damaged time stamp


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
            container.streams.video[0].codec_context.thread_count = 1  # the workers share the processor
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
        while (end is None or k < end) and k < frames_in(before + 1 / rate):
            yield picture
            k += 1


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


def take_media(work: Work, video: Video) -> Outcome:
    """The step `media`: `ID.pcm`, int16 at 16 kHz, sample 640 k simultaneous with frame k."""
    frames, note = examine(video.path)
    if frames < work.options.min_frames:
        detail = f"{frames / FPS:.2f} s, less than {work.options.min_seconds} s"
        return Outcome((), (Dropped(video.id, "too short", detail, frames / FPS),))
    try:
        with opened(video.path) as container:
            if not container.streams.audio:
                return Outcome((), (Dropped(video.id, "no sound", "no sound track", frames / FPS),))
        offset = sound_start(video.path) - first_time(video.path)
        if abs(offset) > MOST_SOUND_OFFSET:
            offset, note = 0.0, f"{note}; the sound's time stamps are {offset:.0f} s off and not used".removeprefix("; ")
        damage = write_sound(video.path, work.file("media", f"{video.id}.pcm"), offset, frames)
    except AudioError as error:
        return Outcome((), (Dropped(video.id, "no sound", " ".join(str(error).split()), frames / FPS),))
    note = "; ".join(filter(None, (note, damage)))
    return Outcome((Media(video.id, video.path, video.video, video.stretches, frames, note),))


def examine(path: str) -> tuple[int, str]:
    """Frames at 25 a second as the packets declare them, and what is unusual, in words. Decodes one picture."""
    with opened(path) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or FPS)
        base = float(stream.time_base or 0)
        packets = [packet.pts for packet in container.demux(stream) if packet.size]
    known = [pts for pts in packets if pts is not None]
    times = np.sort(np.array(known, np.float64)) * base
    seconds = times[-1] - times[0] + 1 / rate if len(known) == len(packets) > 0 else len(packets) / rate
    notes = []
    if len(known) == len(packets) > 2:
        gaps = np.diff(times)
        if gaps.max() > 1.5 * np.median(gaps) + 0.002:
            notes.append(f"variable frame rate, pictures {gaps.min():.3f} to {gaps.max():.3f} s apart")
    with opened(path) as container:
        for _, frame in frame_times(container):
            if frame.rotation:
                notes.append(f"rotated by {frame.rotation} degrees")
            break
    return frames_in(seconds), "; ".join(notes)


def sound_start(path: str) -> float:
    """Time stamp of the first sound, seconds; 0 without one."""
    import av

    with opened(path) as container:
        for packet in container.demux(container.streams.audio[0]):
            try:
                for frame in packet.decode():
                    return float(frame.time or 0.0)
            except (av.FFmpegError, ValueError):
                continue
    return 0.0


def write_sound(path: str, out: Path, offset: float, frames: int) -> str | None:
    """Write the sound of `frames` frames, the first sample at the first picture, block by block; what was damaged.

    Args:
        offset: seconds by which the sound begins after the pictures.

    Raises:
        AudioError: the sound cannot be decoded.
        OutputError: the file cannot be written.
    """
    reader = AudioReader(path)
    skip, left = max(0, round(-offset * SAMPLE_RATE)), frames * SAMPLES_PER_FRAME
    blocks = iter(reader)
    block = next(blocks, None)  # an unreadable recording is reported before anything is written
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = partial_file(out)
        try:
            with part.open("wb") as file:
                silence = min(left, max(0, round(offset * SAMPLE_RATE)))
                file.write(bytes(2 * silence))
                left -= silence
                while block is not None and left:
                    samples = block[skip:][:left]
                    skip = max(0, skip - block.size)
                    file.write(np.round(np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes())
                    left -= samples.size
                    block = next(blocks, None)
                file.write(bytes(2 * left))
            complete_file(part, out)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(out, error) from error
    return reader.damage


def sound_of(work: Work, media: str, start: int, end: int) -> npt.NDArray[np.int16]:
    """The sound of frames [start, end), (640 (end - start),) int16; zeros beyond the ends of the video."""
    path = work.file("media", f"{media}.pcm")
    total = path.stat().st_size // (2 * SAMPLES_PER_FRAME)
    first, last = min(max(start, 0), total), min(max(end, 0), total)
    with path.open("rb") as file:
        file.seek(2 * SAMPLES_PER_FRAME * first)
        found = np.frombuffer(file.read(2 * SAMPLES_PER_FRAME * (last - first)), "<i2")
    return np.pad(found, (SAMPLES_PER_FRAME * (first - start), SAMPLES_PER_FRAME * (end - last))).astype(np.int16)
