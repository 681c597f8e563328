"""A video as the source: the person of a clip, with body and background, says something else.

Every frame of the clip keeps its own head pose, eyes and body. Only the face that the speech moves is drawn anew: lips, cheeks
and jaw take the shape that the reference frame would have; the clip's own mouth is shut under it. See
`Clip` and `ClipRenderer`.

    reference frame: Portrait, prepared once -----------------------------.
    frame k: landmarks --> pose and face of the clip --> lower face replaced --> warp of frame k --> mouth --> pasted back
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from os import PathLike, fsdecode
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto import ops
from ditto.errors import NoFaceError, VideoError
from ditto.exchange.from_video import smooth, trust
from ditto.frame import Frame
from ditto.lite.rendering.core import CoreRenderer
from ditto.lite.rendering.mesh import Appearance, MeshRenderer, painters_order
from ditto.lite.rendering.mouth import draw_mouth, mouth_width
from ditto.lite.rendering.surround import move_surround
from ditto.media.footage import pictures
from ditto.media.images import LUMA
from ditto.media.rates import FPS
from ditto.motion.motion import Motion, euler_degrees, rotation_matrix
from ditto.performer import Performer
from ditto.portrait import face_mesh as g
from ditto.portrait.face_mesh import Geometry, Pose, smoothstep
from ditto.portrait.face_state import eye_state
from ditto.portrait.follow import follow
from ditto.portrait.portrait import Portrait
from ditto.portrait.registration import MIN_FACE, register_face
from ditto.row_performer import RowPerformer

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
LOOPS = ("pingpong", "forward", "once")
HEAD_SHARE = 0.6  # of the generated turn of the head that is added to the clip's own, with the whole face

# How far the speech rules each landmark: 1 from the upper lip down, 0 from the base of the nose up.
LOWER_FACE: Floats = smoothstep(float(g.TEMPLATE[2, 1]) - 0.02, float(g.TEMPLATE[0, 1]), g.TEMPLATE[:, 1])
_EYES = [v for eye in g.EYES for v in (*eye.upper, *eye.lower, *range(eye.iris, eye.iris + 5))]
LOWER_FACE[_EYES] = 0.0
UPPER_FACE: Floats = 1.0 - LOWER_FACE
UPPER_FACE[_EYES] = 0.0


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
    """
    name = fsdecode(path)
    tracked = _track(name, report)
    reference = _reference(tracked)
    picture = next(pictures(name, reference, reference + 1))
    portrait = register_face(picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2], _at(tracked, reference))
    return Clip(name, portrait, reference, tracked, _crops(tracked, portrait, reference))


def _track(name: str, report: Callable[[int], None]) -> Tracked:
    """The face in every frame. Raises VideoError, NoFaceError."""
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
            spool.write(last.tobytes())
    count = len(lost)
    if size is None or count < SHORTEST:
        raise VideoError(f"expected a video of {SHORTEST} frames or more, got {count} in {name}; give a longer one")
    if all(lost):
        raise NoFaceError(f"expected a face in {name}, got none in {count} frames; give a video that shows one")
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


def _at(tracked: Tracked, frame: int) -> Floats:
    """(478, 3) the landmarks of a frame."""
    return np.asarray(tracked.landmarks[frame], np.float64)


def _reference(tracked: Tracked) -> int:
    """The frame that looks most straight into the camera, with lips closed and eyes open."""
    candidates = np.flatnonzero(tracked.trust == 1.0)
    best, chosen = np.inf, -1
    for frame in candidates[np.linspace(0, len(candidates) - 1, min(REFERENCES, len(candidates))).astype(int)]:
        points = _at(tracked, int(frame))
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
    heads = [g.fit_head(_at(tracked, frame))[::2] for frame in range(len(tracked.trust))]
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


def order_of(clip: Clip, loop: str) -> Iterator[Shown]:
    """The frames of a clip, without end, in the order in which they are shown.

    Args:
        loop: "pingpong": forwards and backwards; "forward": again from the place that is most like the end, into which the
            end fades; "once": the last frame stays.

    Raises:
        ValueError: another loop.
    """
    return {"pingpong": _there_and_back, "forward": _forwards, "once": _once}[check_loop(loop)](clip)


def _once(clip: Clip) -> Iterator[Shown]:
    yield from map(Shown, range(clip.frames))
    while True:
        yield Shown(clip.frames - 1)


def _there_and_back(clip: Clip) -> Iterator[Shown]:
    while True:
        yield from map(Shown, range(clip.frames - 1))
        yield from map(Shown, range(clip.frames - 1, 0, -1))


def _forwards(clip: Clip) -> Iterator[Shown]:
    first, last = best_loop(clip)
    yield from map(Shown, range(first))
    fade = min(BLEND_FRAMES, first)
    while True:
        yield from map(Shown, range(first, last - fade))
        for step in range(fade):
            yield Shown(last - fade + step, first - fade + step, (step + 1) / (fade + 1))


def best_loop(clip: Clip) -> tuple[int, int]:
    """Frames (first, last): after last - 1 comes first. The two places that are most alike, far enough apart."""
    outline = np.asarray(clip.tracked.landmarks[:, g.RIGID + [61, 291, 152], :2], np.float64)
    width = np.linalg.norm(np.ptp(outline, axis=1), axis=1).mean()
    count = clip.frames
    least = max(SHORTEST, math.ceil(LEAST_LOOP * count))
    best, chosen = np.inf, (0, count)
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


def frames_of(clip: Clip, order: Iterator[Shown]) -> Iterator[tuple[Shown, Bytes, Bytes | None]]:
    """The pictures of a clip in an order: (what is shown, its picture, the picture that is faded in).

    Runs of frames are decoded forwards; a run backwards in parts that fit into `MEMORY`.
    """
    height, width = clip.tracked.size
    most = max(2, MEMORY // (3 * height * width))
    reader = _Reader(clip, most)
    other = _Reader(clip, most)
    for shown in order:
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


def parts_for_clips(performer: Performer) -> tuple[Performer, MeshRenderer]:
    """What animates a clip: a performer that gives motion without pictures, and the renderer.

    Raises:
        ValueError: the performer is not that of a lite bundle.
    """
    if not isinstance(performer, RowPerformer) or not isinstance(performer.renderer, CoreRenderer):
        raise ValueError("expected a lite bundle for a video as the source, got another one; load a lite bundle")
    return performer.motion_only(), performer.renderer.mesh


class ClipRenderer:
    """Draws the frames of a clip with another mouth.

    Args:
        renderer: the definition of the lite renderer.
        clip: the clip.
        whole_face: whether brows and head move with the speech too, relative to the clip's own; else lips and jaw alone.
        loop: how the clip goes on, see `order_of`.

    Raises:
        ValueError: another loop.
    """

    def __init__(
        self, renderer: MeshRenderer, clip: Clip, whole_face: bool = False, loop: str = "pingpong"
    ) -> None:
        self._loop = check_loop(loop)
        self._renderer, self._clip, self._whole = renderer, clip, whole_face
        self._appearance: Appearance = renderer.prepare(clip.portrait)
        self._size = clip.portrait.crop.shape[0]
        fade = smoothstep(0.0, 1.0, np.arange(self._size) / (0.04 * self._size)).astype(np.float32)
        self._ramp = np.tile(fade * fade[::-1], (2, 1))

    def frames(self, moved: Iterable[Frame]) -> Iterator[Frame]:
        """The frames of a stream, which bring motion and sound, with the pictures of the clip."""
        pictures_of = frames_of(self._clip, order_of(self._clip, self._loop))
        for frame in moved:
            assert frame.motion is not None
            yield replace(frame, image=self.draw(*next(pictures_of), frame.motion))

    def draw(self, shown: Shown, picture: Bytes, other: Bytes | None, motion: Motion) -> Bytes:
        """A frame (H, W, 3) of the clip with the mouth of a motion (70,)."""
        points, crop_to_picture = self._place(shown.frame)
        trusted = float(self._clip.tracked.trust[shown.frame])
        if other is not None:
            there, crop_there = self._place(shown.other)
            points += shown.share * (there - points)
            crop_to_picture = crop_to_picture + shown.share * (crop_there - crop_to_picture)
            picture = np.rint((1.0 - shown.share) * picture + shown.share * other).astype(np.uint8)
        if trusted <= 0.0:
            return picture
        crop = _cut(picture, crop_to_picture, self._size)
        rendered = self._render(crop, points, crop_to_picture, motion, trusted)
        return self._paste(picture, crop, rendered, crop_to_picture)

    def _place(self, frame: int) -> tuple[Floats, Floats]:
        return _at(self._clip.tracked, frame), self._clip.crops[frame]

    def _render(self, crop: Bytes, points: Floats, crop_to_picture: Floats, motion: Motion, trusted: float) -> Bytes:
        """The crop (S, S, 3) with the face of the motion."""
        appearance, reference = self._appearance, self._appearance.geometry
        into = np.linalg.inv(crop_to_picture)
        zoom = float(np.sqrt(abs(np.linalg.det(into[:2, :2]))))
        landmarks = np.column_stack([points[:, :2] @ into[:2, :2].T + into[:2, 2], points[:, 2] * zoom])
        own = g.limit_slope(g.source_geometry(landmarks, self._size))
        render_pose = self._renderer.retarget(self._clip.portrait, motion)
        target = self._renderer.pose(appearance, render_pose)
        canonical = own.canonical + (trusted * LOWER_FACE)[:, None] * (target.canonical - own.canonical)
        rotation, translation = own.rotation, own.translation_px
        if self._whole:
            moved = target.canonical - reference.canonical
            canonical += (trusted * UPPER_FACE)[:, None] * moved
            turn = self._clip.portrait.rotation.T @ render_pose.rotation
            rotation = rotation @ rotation_matrix(*(trusted * HEAD_SHARE * euler_degrees(turn)))
        pose = _posed(canonical, own, rotation, translation, target.delta)
        rest = _posed(own.canonical, own, own.rotation, own.translation_px, target.delta)
        source = np.concatenate([rest.vertices[:, :2], move_surround(appearance.surround, reference, rest)])
        destination = np.concatenate([pose.vertices[:, :2], move_surround(appearance.surround, reference, pose)])
        triangles = np.concatenate([appearance.surround.triangles, painters_order(pose, appearance)]).astype(np.int32)
        opaque = np.full((*crop.shape[:2], 1), 255, np.uint8)
        image, alpha, _ = ops.warp(
            np.concatenate([crop, opaque], -1), triangles, destination.astype(np.float32), source.astype(np.float32)
        )
        image = np.where(alpha[..., None] > 127, image, crop) if alpha.min() < 255 else image
        gaps = own.canonical[g.LOWER_INNER_LIP, 1] - own.canonical[g.UPPER_INNER_LIP, 1]
        mouth = appearance.mouth._replace(
            own_gap=np.maximum(gaps, 0.0),
            width=mouth_width(own.canonical),
            lower_edge=appearance.mouth.lower_edge + float(own.canonical[152, 1] - reference.canonical[152, 1]),
        )
        image = np.ascontiguousarray(image, np.uint8)
        draw_mouth(image, mouth, own, pose)
        return image

    def _paste(self, picture: Bytes, crop: Bytes, rendered: Bytes, crop_to_picture: Floats) -> Bytes:
        """The picture with what changed in the crop."""
        edge = np.array([-0.5, self._size - 0.5])
        corners = np.stack(np.broadcast_arrays(edge[:, None], edge[None, :], 1.0)).reshape(3, 4)
        outline = crop_to_picture[:2] @ corners
        height, width = picture.shape[:2]
        low = np.clip(np.ceil(outline.min(1)), 0, (width - 1, height - 1)).astype(int)
        high = np.maximum(np.minimum(np.floor(outline.max(1)), (width - 1, height - 1)).astype(int), low)
        step = float(np.sqrt(abs(np.linalg.det(crop_to_picture[:2, :2]))))
        corner, size = (int(low[0]), int(low[1])), (int(high[0] - low[0] + 1), int(high[1] - low[1] + 1))
        reduce = int(np.clip(round(1.0 / step), 1, self._size // 4))
        to_crop = np.ascontiguousarray(np.linalg.inv(crop_to_picture)[:2])
        return ops.paste_back(picture, crop, rendered, self._ramp, to_crop, corner, size, None, reduce)


def _cut(picture: Bytes, crop_to_picture: Floats, size: int) -> Bytes:
    """The crop's pixels (S, S, 3); what lies beyond the picture is never shown."""
    import cv2

    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(picture, crop_to_picture[:2], (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(crop, np.uint8)


def _posed(canonical: Floats, own: Geometry, rotation: Floats, translation: Floats, delta: Floats) -> Pose:
    """A face (478, 3) fu where the head of a frame is."""
    vertices = own.scale_px * (canonical @ rotation) + translation
    return Pose(own.scale_px, rotation, translation, delta, canonical, vertices, np.zeros(2))
