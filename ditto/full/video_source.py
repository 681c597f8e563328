"""A video as the source: a clip of a person says something else, each frame with its own crop, motion and appearance.

As the released Ditto and LivePortrait do it: generated motion is added to the motion of the clip, which is averaged over time.

    clip: landmarks of every frame --> ClipSource: crop, motion, lids, gaze --> FullSampler: change from the clip (70)
    frame k: picture --> crop --> volume --> moved keypoints --> stitching --> warping --> decoder --> pasted back

Source: the released Ditto at e9191cf (tests/fixtures/reference, wiring_motion_math, wiring_condition and wiring_stitch).
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ditto.clip import Clip, Shown, first_frames, frames_of, landmarks_at, order_of
from ditto.errors import InputError, VideoError
from ditto.frame import Frame
from ditto.full.conditioning import Conditions, SourceCondition
from ditto.full.motion_math import pose_of, posed_keypoints
from ditto.full.released import Released
from ditto.full.renderer import NeuralFaceRenderer
from ditto.full.retargeting import RetargetOptions
from ditto.full.sampler import FullSampler
from ditto.full.sizes import EXPRESSION_SIZE, GAZE, LIDS
from ditto.full.source import Source, SourceFrame, SourceReader
from ditto.media.footage import pictures
from ditto.motion.motion import PACKED_SIZE, Motion
from ditto.performer import Performer
from ditto.row_performer import NoPictures, RowPerformer

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

# Columns of a frame's numbers in the temporary file: motion and canonical keypoints, which are averaged over time; then
# lids, gaze, and the first two rows of the crop's matrix.
MOVING = slice(0, PACKED_SIZE + EXPRESSION_SIZE)
EYES = slice(MOVING.stop, MOVING.stop + LIDS + GAZE)
CROP = slice(EYES.stop, EYES.stop + 6)


class ClipSource:
    """What the networks find in the frames of a clip, found when it is first asked for.

    The frames are read once, from the first on, up to the last that was asked for. Their numbers lie in a temporary file,
    4 MB a minute: memory does not grow with the clip. Threads may share it.

    Args:
        clip: the clip.
        frame: (picture (H, W, 3), landmarks (478, 3), whether it shows the face) -> what the networks find in it.
        smoothing: frames that motion and canonical keypoints are averaged over; fewer at the ends and at cuts.
    """

    def __init__(self, clip: Clip, frame: Callable[[Bytes, Floats, bool], SourceFrame], smoothing: int) -> None:
        self.clip = clip
        self._frame, self._half = frame, smoothing // 2
        self._rows = np.memmap(
            tempfile.TemporaryFile(prefix="ditto-clip-"), np.float64, "w+", shape=(clip.frames, CROP.stop)
        )
        self._known = 0
        self._pictures: Iterator[Bytes] | None = None
        self._lock = threading.Lock()

    def motion(self, frame: int) -> tuple[Array, Array]:
        """Motion (265,) and canonical keypoints (63,) of a frame, averaged.

        Raises:
            VideoError: the file has changed since it was read, or cannot be decoded any more.
        """
        cuts = self.clip.tracked.cuts
        first = max([frame - self._half, 0, *(cut for cut in cuts if cut <= frame)])
        end = min([frame + self._half + 1, self.clip.frames, *(cut for cut in cuts if cut > frame)])
        self._read_until(end - 1)
        both = self._rows[first:end, MOVING].mean(0).astype(np.float32)
        return both[:PACKED_SIZE], both[PACKED_SIZE:]

    def eyes(self, frame: int) -> tuple[Array, Array]:
        """Opening of each eye (2,) and gaze (6,) of a frame. Raises VideoError."""
        self._read_until(frame)
        both = self._rows[frame, EYES].astype(np.float32)
        return both[:LIDS], both[LIDS:]

    def crop_to_picture(self, frame: int) -> Floats:
        """The crop (3, 3) of a frame, as of `SourceFrame`. Raises VideoError."""
        self._read_until(frame)
        return np.vstack([self._rows[frame, CROP].reshape(2, 3), [0.0, 0.0, 1.0]])

    def _read_until(self, frame: int) -> None:
        with self._lock:
            clip = self.clip
            height, width = clip.tracked.size
            while self._known <= frame:
                number = self._known
                reading = self._pictures or pictures(clip.path, number)
                self._pictures = None  # where it fails, the next call begins again
                picture = next(reading, None)
                if picture is None or picture.shape[0] < height or picture.shape[1] < width:
                    raise VideoError(f"{clip.path} has changed: frame {number} is not there any more; open it again")
                seen = bool(clip.tracked.trust[number] == 1.0)
                even = np.ascontiguousarray(picture[:height, :width])
                found = self._frame(even, landmarks_at(clip.tracked, number), seen)
                self._rows[number] = np.concatenate(
                    [found.motion, found.canonical, found.eye_open, found.eye_ball, found.crop_to_picture[:2].reshape(-1)]
                )
                self._known = number + 1
                self._pictures = reading if self._known < clip.frames else None


@dataclass(frozen=True, eq=False)
class ShownClip:
    """A clip in the order in which it is shown: the `ditto.full.source.Subject` of a stream, and its conditions.

    Attributes:
        source: of the clip.
        order: as of `ditto.clip.order_of`.
        first_eyes: whether lids and gaze of the first frame alone are conditions (released `eye_f0_mode`).
    """

    source: ClipSource
    order: Callable[[int], Shown]
    first_eyes: bool

    @property
    def motion(self) -> Array:
        return self.source.motion(0)[0]

    @property
    def canonical(self) -> Array:
        return self.source.motion(0)[1]

    @property
    def condition(self) -> Conditions:
        return self

    def eyes(self, frames: Sequence[int]) -> tuple[Array, Array]:
        shown = [self.source.eyes(0 if self.first_eyes else self.order(frame).frame) for frame in frames]
        return (
            np.array([lids for lids, _ in shown], np.float32).reshape(-1, LIDS),
            np.array([gaze for _, gaze in shown], np.float32).reshape(-1, GAZE),
        )

    def motion_at(self, frame: int) -> Array:
        return self.moving(self.order(frame))[0]

    def moving(self, shown: Shown) -> tuple[Array, Array]:
        """Motion (265,) and canonical keypoints (63,) of what is shown; of two frames, the mixture."""
        motion, canonical = self.source.motion(shown.frame)
        if shown.other < 0:
            return motion, canonical
        there, canonical_there = self.source.motion(shown.other)
        share = np.float32(shown.share)
        return motion + share * (there - motion), canonical + share * (canonical_there - canonical)

    def crop_to_picture(self, shown: Shown) -> Floats:
        """The crop (3, 3) of what is shown; of two frames, between theirs."""
        crop = self.source.crop_to_picture(shown.frame)
        if shown.other < 0:
            return crop
        return crop + shown.share * (self.source.crop_to_picture(shown.other) - crop)


class ClipRenderer:
    """Draws the frames of a clip with the motion of a stream.

    Args:
        renderer: of the bundle.
        reader: of the bundle.
        shown: the clip.
    """

    def __init__(self, renderer: NeuralFaceRenderer, reader: SourceReader, shown: ShownClip) -> None:
        self._renderer, self._reader, self._shown = renderer, reader, shown

    def frames(self, moved: Iterable[Frame]) -> Iterator[Frame]:
        """The frames of a stream, which bring motion and sound, with the pictures of the clip."""
        pictures_of = frames_of(self._shown.source.clip, self._shown.order)
        for frame in moved:
            assert frame.motion is not None
            yield replace(frame, image=self.draw(*next(pictures_of), frame.motion))

    def draw(self, shown: Shown, picture: Bytes, other: Bytes | None, motion: Motion) -> Bytes:
        """A frame (H, W, 3) of the clip, moved by a change (70,) from its own motion; as it is where the face is lost."""
        trust = float(self._shown.source.clip.tracked.trust[shown.frame])
        if other is not None:
            picture = np.rint((1.0 - shown.share) * picture + shown.share * other).astype(np.uint8)
        if trust <= 0.0:
            return picture
        source = self._source(shown, picture)
        paste = self._renderer.paste_into(picture, source.crop_to_picture)
        drawn = paste(self._renderer.render(source, motion))
        return drawn if trust == 1.0 else np.rint(trust * drawn + (1.0 - trust) * picture).astype(np.uint8)

    def _source(self, shown: Shown, picture: Bytes) -> Source:
        """A frame as the renderer takes it."""
        motion, canonical = self._shown.moving(shown)
        crop_to_picture, pose = self._shown.crop_to_picture(shown), pose_of(motion)
        lids, gaze = self._shown.source.eyes(shown.frame)
        return Source(
            crop_to_picture,
            motion,
            pose,
            SourceCondition(lids[None], gaze[None], canonical),
            posed_keypoints(canonical, pose),
            self._reader.volume(picture, crop_to_picture),
            np.zeros(EXPRESSION_SIZE),
        )


def clip_retarget(pictures: RetargetOptions, whole_face: bool) -> RetargetOptions:
    """How motion is retargeted to a clip.

    The lips alone, as released for videos (`use_d_keys` exp, `drive_eye` off); with the whole face all keypoints and the head.

    Args:
        pictures: how it is retargeted to a picture; its strength, origin and factors stay.
    """
    if whole_face:
        return replace(pictures, keypoints="all")
    return replace(pictures, keypoints="lips", factors={"exp": pictures.factors.get("exp", 1.0)})


def open_clip(
    performer: Performer, clip: Clip, loop: str, whole_face: bool
) -> tuple[Performer, Callable[[Iterable[Frame]], Iterator[Frame]]]:
    """What animates a clip: a performer that gives motion without pictures, and the function that draws its frames.

    Args:
        performer: of the bundle.
        clip: the clip.
        loop: how the clip goes on, see `ditto.clip.order_of`.
        whole_face: whether the speech moves the whole face and the head, on top of the clip's own motion; else the lips.

    Raises:
        InputError: another performer than that of a full bundle.
        ValueError: another loop.
    """
    if not isinstance(performer, RowPerformer) or not isinstance(performer.renderer, NeuralFaceRenderer):
        raise InputError("expected the performer of a full bundle for a video as the source, got another one; load a bundle")
    sampler, renderer = performer.sampler, performer.renderer
    reader = renderer.source_of
    assert isinstance(sampler, FullSampler) and isinstance(reader, SourceReader)
    released = sampler.sampling.released or Released()
    used = clip if released.source_frames == 0 else first_frames(clip, released.source_frames)
    shown = ShownClip(
        ClipSource(used, reader.frame, released.source_smoothing), order_of(used, loop), released.first_eyes
    )
    speaks = sampler.for_source(shown, clip_retarget(sampler.sampling.retarget, whole_face))
    mover = RowPerformer(performer.encoder, speaks, NoPictures(), performer.motion_space)
    return mover, ClipRenderer(renderer, reader, shown).frames
