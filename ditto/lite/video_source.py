"""A video as the source: the person of a clip, with body and background, says something else.

Every frame of the clip keeps its own head pose, eyes and body. Only the face that the speech moves is drawn anew: lips, cheeks
and jaw take the shape that the reference frame would have; the clip's own mouth is shut under it. See
`ditto.clip.Clip` and `ClipRenderer`.

    reference frame: Portrait, prepared once -----------------------------.
    frame k: landmarks --> pose and face of the clip --> lower face replaced --> warp of frame k --> mouth --> pasted back
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ditto import ops
from ditto.clip import Clip, Shown, frames_of, landmarks_at, order_of
from ditto.errors import InputError
from ditto.frame import Frame
from ditto.lite.rendering.core import CoreRenderer
from ditto.lite.rendering.mesh import Appearance, MeshRenderer, painters_order
from ditto.lite.rendering.mouth import draw_mouth, mouth_width
from ditto.lite.rendering.surround import move_surround
from ditto.motion.motion import Motion, euler_degrees, rotation_matrix
from ditto.performer import Performer
from ditto.portrait import face_mesh as g
from ditto.portrait.face_mesh import Geometry, Pose, smoothstep
from ditto.row_performer import RowPerformer

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

HEAD_SHARE = 0.6  # of the generated turn of the head that is added to the clip's own, with the whole face

# How far the speech rules each landmark: 1 from the upper lip down, 0 from the base of the nose up.
LOWER_FACE: Floats = smoothstep(float(g.TEMPLATE[2, 1]) - 0.02, float(g.TEMPLATE[0, 1]), g.TEMPLATE[:, 1])
_EYES = [v for eye in g.EYES for v in (*eye.upper, *eye.lower, *range(eye.iris, eye.iris + 5))]
LOWER_FACE[_EYES] = 0.0
UPPER_FACE: Floats = 1.0 - LOWER_FACE
UPPER_FACE[_EYES] = 0.0


def open_clip(
    performer: Performer, clip: Clip, loop: str, whole_face: bool
) -> tuple[Performer, Callable[[Iterable[Frame]], Iterator[Frame]]]:
    """What animates a clip: a performer that gives motion without pictures, and the function that draws its frames.

    Args:
        performer: of the bundle.
        clip: the clip.
        loop: how the clip goes on, see `ditto.clip.order_of`.
        whole_face: whether brows and head move with the speech too, relative to the clip's own; else lips and jaw alone.

    Raises:
        InputError: another performer than that of a lite bundle.
        ValueError: another loop.
    """
    if not isinstance(performer, RowPerformer) or not isinstance(performer.renderer, CoreRenderer):
        raise InputError("expected the performer of a lite bundle for a video as the source, got another one; load a bundle")
    return performer.motion_only(), ClipRenderer(performer.renderer.mesh, clip, whole_face, loop).frames


class ClipRenderer:
    """Draws the frames of a clip with another mouth.

    Args:
        renderer: the definition of the lite renderer.
        clip: the clip.
        whole_face: whether brows and head move with the speech too, relative to the clip's own; else lips and jaw alone.
        loop: how the clip goes on, see `ditto.clip.order_of`.

    Raises:
        ValueError: another loop.
    """

    def __init__(
        self, renderer: MeshRenderer, clip: Clip, whole_face: bool = False, loop: str = "pingpong"
    ) -> None:
        self._order = order_of(clip, loop)
        self._renderer, self._clip, self._whole = renderer, clip, whole_face
        self._appearance: Appearance = renderer.prepare(clip.portrait)
        self._size = clip.portrait.crop.shape[0]
        fade = smoothstep(0.0, 1.0, np.arange(self._size) / (0.04 * self._size)).astype(np.float32)
        self._ramp = np.tile(fade * fade[::-1], (2, 1))

    def frames(self, moved: Iterable[Frame]) -> Iterator[Frame]:
        """The frames of a stream, which bring motion and sound, with the pictures of the clip."""
        pictures_of = frames_of(self._clip, self._order)
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
        return landmarks_at(self._clip.tracked, frame), self._clip.crops[frame]

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
        image, alpha, *_ = ops.warp(
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
