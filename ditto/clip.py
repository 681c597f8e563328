"""A clip of a person as the source of frames: its face followed through all pictures, its order of frames, its pictures.

What is drawn into the pictures is each bundle's own: `ditto.lite.video_source`, `ditto.full.video_source`.
"""

from __future__ import annotations

import itertools
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from os import PathLike, fsdecode
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import NoFaceError, VideoError
from ditto.exchange.from_video import smooth, trust
from ditto.media.files import temporary_files
from ditto.media.footage import pictures
from ditto.media.images import LUMA
from ditto.media.rates import FPS
from ditto.motion.motion import euler_degrees
from ditto.portrait import face_mesh as g
from ditto.portrait.face_state import eye_state
from ditto.portrait.follow import follow
from ditto.portrait.portrait import Portrait
from ditto.portrait.registration import MIN_FACE, register_face

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

logger = logging.getLogger(__name__)

SHORTEST = 5  # frames
SMOOTHING = 1.0  # frames: sigma along time of the landmarks; takes the tracker's noise off
CROP_SMOOTHING = 8.0  # frames: of the place and size of the crop, so that it does not tremble with the head
CUT_LEVELS = 22.0  # mean change of a small picture from frame to frame; people who move before a camera make 1 to 16
REFERENCES = 40  # frames that are looked at for the reference
BLEND_FRAMES = 8  # in which the end of a forward loop fades into its beginning
LEAST_LOOP = 0.4  # share of the clip that a forward loop keeps at least
SMOOTH_LOOP = 0.02  # face widths between the landmarks at the end and the beginning of a loop that no viewer notices; by eye
MEMORY = 64 << 20  # bytes of pictures that are read at once, for the way back of a ping-pong loop
LOOPS = ("pingpong", "mirror", "forward", "once")


class Tracked(NamedTuple):
    """The face of a clip, frame by frame.

    Attributes:
        landmarks: (N, 478, 3) picture pixels, smoothed, kept in a temporary file; between frames with a face where it is lost.
        trust: (N,) how far each frame shows the face: 1, falling to 0 where it is lost for a while.
        cuts: the frames after the cuts of the video.
        size: (H, W) of the pictures.
    """

    landmarks: npt.NDArray[np.float32]
    trust: npt.NDArray[np.float32]
    cuts: tuple[int, ...]
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip of a person, ready to be animated. Made by `read_clip`.

    Attributes:
        path: of the file; the frames are read from it again as they are shown.
        portrait: the reference frame's face.
        reference: number of that frame.
        tracked: the face in every frame.
        crops: (N, 3, 3) crop pixels -> picture pixels of every frame, affine.
    """

    path: str
    portrait: Portrait
    reference: int
    tracked: Tracked
    crops: Floats

    @property
    def frames(self) -> int:
        """Its length in frames, 25 a second."""
        return len(self.crops)


def read_clip(path: str | PathLike[str], report: Callable[[int], None] = lambda frames: None) -> Clip:
    """Follow the face of a clip and choose the frame that all others are compared with.

    Frames are taken at 25 a second, upright and with square pixels. Memory does not grow with the length of the clip; the
    landmarks lie in a temporary file, 9 MB a minute.

    Args:
        report: called with the number of frames tracked so far.

    Raises:
        VideoError: the video cannot be decoded, is shorter than `SHORTEST` frames, or its size changes.
        NoFaceError: no frame shows a face that is large enough.
        OutputError: the temporary file cannot be written.
    """
    name = fsdecode(path)
    tracked = _track(name, report)
    reference = _reference(tracked)
    picture = next(pictures(name, reference, reference + 1))
    portrait = register_face(picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2], landmarks_at(tracked, reference))
    return Clip(name, portrait, reference, tracked, _crops(tracked, portrait, reference))


def first_frames(clip: Clip, count: int) -> Clip:
    """A clip of the first frames of another, with its portrait."""
    tracked = clip.tracked
    cuts = tuple(cut for cut in tracked.cuts if cut < count)
    first = Tracked(tracked.landmarks[:count], tracked.trust[:count], cuts, tracked.size)
    return replace(clip, tracked=first, crops=clip.crops[:count])


def _track(name: str, report: Callable[[int], None]) -> Tracked:
    """The face in every frame. Raises VideoError, NoFaceError, OutputError."""
    size: tuple[int, int] | None = None
    lost: list[bool] = []

    def watched() -> Iterator[Bytes]:
        nonlocal size
        for number, picture in enumerate(pictures(name)):
            if size is not None and picture.shape[:2] != size:
                raise VideoError(
                    f"expected pictures of one size in {name}, got {picture.shape[1]} x {picture.shape[0]} at "
                    f"{number / FPS:.2f} s after {size[1]} x {size[0]}; export it again"
                )
            size = picture.shape[0], picture.shape[1]
            report(number)
            yield picture

    with temporary_files():
        spool = tempfile.TemporaryFile(prefix="ditto-clip-")
    last = np.zeros((g.LANDMARKS, 3), np.float32)
    shots = _Shots(watched())
    cuts: list[int] = []
    while shots.more:
        cuts.append(len(lost))
        for found in follow(shots.shot()):
            lost.append(found is None)
            if found is not None:
                last = np.column_stack([found[:, :2] - 0.5, found[:, 2]]).astype(np.float32)  # pixel centres at whole numbers
            with temporary_files():
                spool.write(last.tobytes())
    count = len(lost)
    if size is None or count < SHORTEST:
        raise VideoError(f"expected a video of {SHORTEST} frames or more, got {count} in {name}; give a longer one")
    if all(lost):
        raise NoFaceError(f"expected a face in {name}, got none in {count} frames; give a video that shows one")
    with temporary_files():
        spool.flush()
    landmarks = np.memmap(spool, np.float32, "r+", shape=(count, g.LANDMARKS, 3))
    known = np.flatnonzero(~np.array(lost))
    every = np.arange(count)
    for start in range(0, g.LANDMARKS, 32):  # some landmarks at a time: memory does not grow with the length
        part = np.asarray(landmarks[:, start : start + 32], np.float64).reshape(count, -1)
        part = np.stack([np.interp(every, known, column[known]) for column in part.T], -1)
        landmarks[:, start : start + 32] = smooth_between(part, cuts[1:], SMOOTHING).reshape(count, -1, 3)
    return Tracked(landmarks, trust(np.array(lost)), tuple(cuts[1:]), (size[0] // 2 * 2, size[1] // 2 * 2))


class _Shots:
    """The frames of a video, shot by shot: a shot ends where the picture changes as a whole."""

    def __init__(self, frames: Iterator[Bytes]) -> None:
        self._frames = frames
        self._pending = next(frames, None)
        self.more = self._pending is not None

    def shot(self) -> Iterator[Bytes]:
        """The frames up to the next cut."""
        before: Floats | None = None
        while self._pending is not None:
            small = _thumbnail(self._pending)
            if before is not None and np.abs(small - before).mean() > CUT_LEVELS:
                return
            picture, before = self._pending, small
            self._pending = next(self._frames, None)
            yield picture
        self.more = False


def _thumbnail(picture: Bytes) -> Floats:
    """(24, 24) luma."""
    import cv2

    return np.asarray(cv2.resize(picture, (24, 24), interpolation=cv2.INTER_AREA) @ LUMA)


def smooth_between(values: Floats, cuts: Sequence[int], sigma: float) -> Floats:
    """(N, k) smoothed along time, each stretch between two cuts on its own."""
    ends = [0, *cuts, len(values)]
    return np.concatenate([smooth(values[first:end], sigma) for first, end in pairwise(ends) if end > first])


def landmarks_at(tracked: Tracked, frame: int) -> Floats:
    """(478, 3) the landmarks of a frame."""
    return np.asarray(tracked.landmarks[frame], np.float64)


def _reference(tracked: Tracked) -> int:
    """The frame that looks most straight into the camera, with lips closed and eyes open."""
    candidates = np.flatnonzero(tracked.trust == 1.0)
    best, chosen = np.inf, -1
    for frame in candidates[np.linspace(0, len(candidates) - 1, min(REFERENCES, len(candidates))).astype(int)]:
        points = landmarks_at(tracked, int(frame))
        if np.ptp(points[:, :2], 0).max() < MIN_FACE:
            continue
        _, rotation, _, canonical = g.fit_head(points)
        pitch, yaw, roll = np.abs(euler_degrees(rotation))
        shut = max(0.0, 0.8 - float(eye_state(points - points.min(0), int(np.ptp(points[:, :2])) + 1)[0].min()))
        cost = (pitch + yaw + 0.5 * roll) / 10.0 + 20.0 * max(g.inner_gap(canonical), 0.0) + 4.0 * shut
        if cost < best:
            best, chosen = cost, int(frame)
    if chosen < 0:
        raise NoFaceError(f"expected a face of {MIN_FACE} pixels or more, got a smaller one in every frame; cut the video")
    return chosen


def _crops(tracked: Tracked, portrait: Portrait, reference: int) -> Floats:
    """(N, 3, 3) where the crop lies in each frame: as around the face of the reference, moved and grown with the head."""
    heads = [g.fit_head(landmarks_at(tracked, frame))[::2] for frame in range(len(tracked.trust))]
    places = smooth_between(np.array([[scale, *place[:2]] for scale, place in heads]), tracked.cuts, CROP_SMOOTHING)
    own = portrait.crop_to_picture
    scale, x, y = heads[reference][0], *heads[reference][1][:2]
    growth = places[:, 0] / scale
    crops = np.tile(np.eye(3), (len(places), 1, 1))
    crops[:, :2, :2] = growth[:, None, None] * own[:2, :2]
    crops[:, :2, 2] = places[:, 1:] + growth[:, None] * (own[:2, 2] - (x, y))
    return crops


class Shown(NamedTuple):
    """Which frame of the clip is shown: a frame, or near the seam of a forward loop two.

    Attributes:
        frame: of the clip.
        other, share: another frame that is faded in by a share.
    """

    frame: int
    other: int = -1
    share: float = 0.0


def check_loop(loop: str) -> str:
    """The loop; raises ValueError unless it is one of `LOOPS`."""
    if loop not in LOOPS:
        raise ValueError(f"expected a loop of {', '.join(LOOPS)}, got {loop!r}; choose one of them")
    return loop


def order_of(clip: Clip, loop: str) -> Callable[[int], Shown]:
    """The order in which the frames of a clip are shown, without end: number of an output frame (0, 1, ...) -> what it shows.

    Args:
        loop: "pingpong": forwards and backwards; "mirror": likewise, with the first and the last frame shown twice, as the
            released Ditto does; "forward": again from the place that is most like the end, into which the end fades; "once":
            the last frame stays.

    Raises:
        ValueError: another loop.
    """
    last = clip.frames - 1
    if check_loop(loop) == "once":
        return lambda number: Shown(min(number, last))
    if loop == "pingpong":
        return lambda number: Shown(last - abs(last - number % max(2 * last, 1)))
    if loop == "mirror":
        return lambda number: Shown(min(number % (2 * last + 2), 2 * last + 1 - number % (2 * last + 2)))
    first, end = best_loop(clip)
    fade = min(BLEND_FRAMES, first)

    def forwards(number: int) -> Shown:
        if number < first:
            return Shown(number)
        step = (number - first) % (end - first)
        faded = step - (end - fade - first)
        if faded < 0:
            return Shown(first + step)
        return Shown(first + step, first - fade + faded, (faded + 1) / (fade + 1))

    return forwards


def best_loop(clip: Clip) -> tuple[int, int]:
    """Frames (first, last): after last - 1 comes first. The two places that are most alike, far enough apart."""
    outline = np.asarray(clip.tracked.landmarks[:, g.RIGID + [61, 291, 152], :2], np.float64)
    width = np.linalg.norm(np.ptp(outline, axis=1), axis=1).mean()
    count = clip.frames
    least = max(SHORTEST, math.ceil(LEAST_LOOP * count))
    best, chosen = np.inf, (0, count)
    if count <= least:
        return chosen
    step = max(1, count // 200)
    for first in range(min(BLEND_FRAMES, count - least), count - least + 1, step):
        lasts = np.arange(first + least, count + 1)
        before = outline[np.minimum(lasts, count - 1)]
        apart = np.sqrt(((before - outline[first]) ** 2).sum(-1)).mean(1) / width
        place = int(np.argmin(apart))
        cost = float(apart[place]) * (1.0 + 0.3 * (1.0 - (lasts[place] - first) / count))
        if cost < best:
            best, chosen = cost, (first, int(lasts[place]))
    if best > SMOOTH_LOOP:
        logger.warning(
            "no two places of the clip are alike (%.3f of the face apart at best): its loop shows a jump; use pingpong", best
        )
    return chosen


def frames_of(clip: Clip, order: Callable[[int], Shown]) -> Iterator[tuple[Shown, Bytes, Bytes | None]]:
    """The pictures of a clip in an order, without end: (what is shown, its picture, the picture that is faded in).

    Runs of frames are decoded forwards; a run backwards in parts that fit into `MEMORY`.
    """
    height, width = clip.tracked.size
    most = max(2, MEMORY // (3 * height * width))
    reader = _Reader(clip, most)
    other = _Reader(clip, most)
    for shown in map(order, itertools.count()):
        yield shown, reader.picture(shown.frame), other.picture(shown.other) if shown.other >= 0 else None


class _Reader:
    """Pictures of a clip by number; fast where the numbers go up or down by one."""

    def __init__(self, clip: Clip, most: int) -> None:
        self._clip, self._most = clip, most
        self._forwards: Iterator[Bytes] = iter(())
        self._next = -1
        self._kept: dict[int, Bytes] = {}
        self._last = -1

    def picture(self, number: int) -> Bytes:
        """One picture (H, W, 3)."""
        if number in self._kept:
            return self._kept[number]
        if number == self._last - 1 and number != self._next:  # backwards
            first = max(0, number - self._most + 1)
            self._kept = dict(enumerate(map(self._even, pictures(self._clip.path, first, number + 1)), first))
            self._next = -1
        else:
            if number != self._next:
                self._forwards = pictures(self._clip.path, number)
            self._kept = dict(enumerate(map(self._even, islice(self._forwards, 1)), number))
            self._next = number + 1
        if number not in self._kept:
            raise VideoError(f"{self._clip.path} has changed: frame {number} is not there any more; open it again")
        self._last = min(self._kept)
        return self._kept[number]

    def _even(self, picture: Bytes) -> Bytes:
        height, width = self._clip.tracked.size
        return np.ascontiguousarray(picture[:height, :width])
