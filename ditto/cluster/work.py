"""What a worker of a batch does: make one video, with heads and portraits kept from job to job."""

from __future__ import annotations

import math
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ditto.cluster.manifest import Job
    from ditto.portrait.portrait import Portrait
    from ditto.provenance import Label
    from ditto.talking_head import TalkingHead


@lru_cache(maxsize=1)
def _head(bundle: str, device: str) -> TalkingHead:
    import ditto

    return ditto.load(bundle, device=device)


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
    from ditto.errors import ImageError
    from ditto.exchange import performance
    from ditto.media.audio import AudioReader
    from ditto.media.files import Source
    from ditto.media.images import MAX_SIZE
    from ditto.media.video import VideoWriter
    from ditto.motion.motion import FPS
    from ditto.portrait.portrait import is_saved

    start = time.perf_counter()
    picture = Source(job.portrait, "a picture", ImageError).read()
    reader = AudioReader(job.audio)
    timeline, driving = None, None
    seconds = math.inf if reader.duration_seconds is None else reader.duration_seconds
    if job.controls is not None:
        timeline = read_timeline(job.controls, seconds)
    elif job.timeline is not None:
        timeline = timeline_of(job.timeline, seconds=seconds)
    if job.drive is not None:
        driving = performance.read(job.drive, job.drive_regions)
    head = _head(job.bundle, job.device)
    saved = is_saved(job.portrait)
    portrait = _portrait(picture, saved, job.face, MAX_SIZE if job.max_size is None else job.max_size)
    height, width = portrait.picture.shape[:2]
    if label is not None:
        label.check(height, width)
    frames = head.animate(
        portrait, reader, seed=job.seed, emotion=job.emotion, still=job.still, controls=timeline, style=job.style,
        performance=driving,
    )  # fmt: skip
    with VideoWriter(output, width, height, audio=reader, provenance=None) as writer:
        for frame in frames:
            writer.write(frame.image if label is None else label.draw(frame.image))
    return {
        "frames": writer.frames,
        "duration_seconds": writer.frames / FPS,
        "width": width,
        "height": height,
        "seconds": round(time.perf_counter() - start, 3),
    }
