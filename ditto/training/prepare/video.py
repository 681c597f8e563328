"""The step `media`: sound at 16 kHz on the time axis of the pictures (`ditto.media.footage`), wherever it begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto.errors import AudioError
from ditto.media.audio import AudioReader
from ditto.media.files import whole_file
from ditto.media.footage import first_time, frame_times, frames_in, opened
from ditto.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.training.dataset import unwritable
from ditto.training.prepare.work import Dropped, Media, Outcome, Video, Work

Bytes = npt.NDArray[np.uint8]

MOST_SOUND_OFFSET = 60.0  # seconds between the first picture and the first sound; more is a damaged time stamp


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
        with whole_file(out) as part, part.open("wb") as file:
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
