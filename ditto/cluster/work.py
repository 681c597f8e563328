"""What a worker of a batch does: make one video, with heads and portraits kept from job to job."""

from __future__ import annotations

import json
import math
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ditto.cluster.manifest import Job
    from ditto.controls.driving import Performance
    from ditto.controls.timeline import Timeline
    from ditto.media.audio import AudioReader
    from ditto.media.pixels import Pixels
    from ditto.portrait.portrait import Portrait
    from ditto.provenance import Label
    from ditto.talking_head import TalkingHead


@lru_cache(maxsize=1)
def _head(bundle: str, device: str, settings: Literal["offline", "online"] | None, changes: str) -> TalkingHead:
    """`changes`: released settings, in JSON."""
    import ditto

    return ditto.load(bundle, device=device, settings=settings, changes=json.loads(changes))


@lru_cache(maxsize=4)
def _portrait(data: bytes, saved: bool, face: int, max_size: int) -> Portrait:
    """A portrait by the bytes of its file: batches often say many recordings with few faces."""
    from ditto.portrait.portrait import Portrait
    from ditto.portrait.registration import register

    if not saved:
        return register(data, face=face, max_size=max_size)
    with tempfile.NamedTemporaryFile(prefix="ditto.", suffix=".npz") as file:
        file.write(data)
        file.flush()
        return Portrait.load(file.name)


def animate(job: Job, output: Path, label: Label | None = None) -> dict[str, Any]:
    """Make the video of a job as the file `output`, unsigned: the batch signs it; what the report says of it.

    Raises:
        DittoError: as `ditto animate`.
    """
    from ditto.controls.timeline_file import read_timeline, timeline_of
    from ditto.exchange import performance
    from ditto.media.audio import AudioReader
    from ditto.media.backgrounds import TRANSPARENT
    from ditto.media.footage import is_video
    from ditto.media.video import VideoWriter
    from ditto.motion.motion import FPS

    start = time.perf_counter()
    if not is_video(job.portrait):
        _picture(job)  # a missing file is reported before the bundle is loaded
    reader = AudioReader(job.audio)
    timeline, driving = None, None
    seconds = math.inf if reader.duration_seconds is None else reader.duration_seconds
    if job.controls is not None:
        timeline = read_timeline(job.controls, seconds)
    elif job.timeline is not None:
        timeline = timeline_of(job.timeline, seconds=seconds)
    if job.drive is not None:
        driving = performance.read(job.drive, job.drive_regions)
    head = _head(job.bundle, job.device, job.settings, json.dumps(job.set))
    if is_video(job.portrait):
        (height, width), images = _of_video(head, job, reader, timeline)
    else:
        (height, width), images = _of_picture(head, job, reader, timeline, driving)
    if label is not None:
        label.check(height, width)
    with VideoWriter(
        output, width, height, audio=reader, alpha=job.background == TRANSPARENT, provenance=None
    ) as writer:
        for image in images:
            writer.write(image if label is None else label.draw(image))
    return {
        "frames": writer.frames,
        "duration_seconds": writer.frames / FPS,
        "width": width,
        "height": height,
        "seconds": round(time.perf_counter() - start, 3),
    }


def _picture(job: Job) -> bytes:
    """The bytes of the picture or the saved portrait. Raises ImageError."""
    from ditto.errors import ImageError
    from ditto.media.files import Source

    return Source(job.portrait, "a picture", ImageError).read()


def _of_picture(
    head: TalkingHead, job: Job, reader: AudioReader, timeline: Timeline | None, driving: Performance | None
) -> tuple[tuple[int, int], Iterator[Pixels]]:
    """Height and width of the video, and its pictures."""
    from ditto.media.backgrounds import laid
    from ditto.media.images import MAX_SIZE
    from ditto.portrait.portrait import is_saved

    max_size = MAX_SIZE if job.max_size is None else job.max_size
    given = _portrait(_picture(job), is_saved(job.portrait), job.face, max_size)
    portrait = given if job.background is None else head.cut_out(given)
    lay = laid(None if job.background is None else str(job.background), given.picture, portrait.alpha)
    frames = head.animate(
        portrait, reader, seed=job.seed, emotion=job.emotion, still=job.still, controls=timeline, style=job.style,
        performance=driving, output="rgb24" if job.background is None else "rgba",
    )  # fmt: skip
    height, width = portrait.picture.shape[:2]
    return (height, width), (lay(frame.image) for frame in frames)


def _of_video(
    head: TalkingHead, job: Job, reader: AudioReader, timeline: Timeline | None
) -> tuple[tuple[int, int], Iterator[Pixels]]:
    """The same of a video as the portrait."""
    clip = head.read_video(job.portrait)
    frames = head.animate_video(
        clip, reader, loop=job.loop or "pingpong", whole_face=job.whole_face, seed=job.seed, emotion=job.emotion,
        controls=timeline, style=job.style,
    )  # fmt: skip
    return clip.tracked.size, (frame.image for frame in frames)
