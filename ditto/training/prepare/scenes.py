"""The step `scenes`: pieces of a video without a cut in them, each at most `max_seconds` long."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ditto.errors import InputError, VideoError
from ditto.media.footage import pictures
from ditto.media.rates import FPS
from ditto.training.prepare.work import Dropped, Media, Outcome, Piece, Stretch, Work

Bytes = npt.NDArray[np.uint8]

LOOK_WIDTH = 256  # pixels, of the pictures that are compared, as PySceneDetect's own scene manager takes them


def check_installed() -> None:
    """Raises InputError unless PySceneDetect is installed."""
    try:
        import scenedetect  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"expected PySceneDetect, to find scene cuts, got: {error}; pip install 'ditto-talking-head[train]', or "
            "prepare footage that has none with --no-cuts"
        ) from None


def scene_cuts(frames: Iterable[Bytes]) -> tuple[list[int], int]:
    """First frame of every scene after the first, and how many frames there are. PySceneDetect's `ContentDetector`."""
    import cv2
    from scenedetect import ContentDetector, FrameTimecode

    detector = ContentDetector()
    cuts: list[int] = []
    count = 0
    for frame in frames:
        step = max(1, frame.shape[1] // LOOK_WIDTH)
        small = cv2.cvtColor(np.ascontiguousarray(frame[::step, ::step]), cv2.COLOR_RGB2BGR)
        cuts += [found.frame_num for found in detector.process_frame(FrameTimecode(count, float(FPS)), small)]
        count += 1
    if count:
        cuts += [found.frame_num for found in detector.post_process(FrameTimecode(count - 1, float(FPS)))]
    return sorted({cut for cut in cuts if 0 < cut < count}), count


def divide(first: int, last: int, longest: int) -> list[tuple[int, int]]:
    """[first, last) in the fewest parts of at most `longest` frames, as even as can be."""
    parts = -(-(last - first) // longest)
    edges = [first + (last - first) * i // parts for i in range(parts + 1)] if parts else []
    return list(pairwise(edges))


def stretch_frames(stretch: Stretch, frames: int) -> tuple[int, int]:
    """The frames [first, last) of a stretch of a video of so many frames."""
    first = 0 if stretch.start_seconds is None else round(stretch.start_seconds * FPS)
    last = frames if stretch.end_seconds is None else round(stretch.end_seconds * FPS)
    return min(max(first, 0), frames), min(max(last, 0), frames)


def find_scenes(work: Work, media: Media) -> Outcome:
    """The step `scenes`."""
    items: list[Piece] = []
    dropped: list[Dropped] = []
    for stretch in media.stretches:
        first, last = stretch_frames(stretch, media.frames)
        cuts: list[int] = []
        if work.options.cuts and last > first:
            try:
                cuts, count = scene_cuts(pictures(media.path, first, last))
            except VideoError as error:
                dropped.append(Dropped(stretch.id, "unreadable", " ".join(str(error).split()), (last - first) / FPS))
                continue
            if first + count < last:
                missing = (last - first - count) / FPS
                if missing > 1:
                    detail = f"the pictures end {missing:.2f} s before the file says"
                    dropped.append(Dropped(stretch.id, "damaged", detail, missing))
                last = first + count
        edges = [first, *(first + cut for cut in cuts), last]
        place = 0
        for start, end in pairwise(edges):
            if end - start < work.options.min_frames:
                detail = f"a scene of {(end - start) / FPS:.2f} s at {start / FPS:.2f} s"
                dropped.append(Dropped(stretch.id, "too short", detail, (end - start) / FPS))
                continue
            for a, b in divide(start, end, work.options.max_frames):
                id = f"{stretch.id}-{place:04d}"
                place += 1
                items.append(Piece(id, media.id, media.path, media.video, a, b, stretch.person, stretch.language, id))
    return Outcome(tuple(items), tuple(dropped))
