"""A portrait as the published networks take it: upright crop, motion, feature volume. Computed once a portrait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ditto.full.conditioning import Conditions, SourceCondition
from ditto.full.cropping import (
    FACE,
    FaceOutline,
    Framing,
    crop_matrix,
    cut,
    invert,
    network_input,
    outline_of_mediapipe,
)
from ditto.full.motion_math import Pose, pose_of, posed_keypoints
from ditto.motion.motion import LAYOUT_265, PACKED_SIZE
from ditto.once import Once
from ditto.portrait.face_state import eye_state
from ditto.portrait.portrait import Portrait

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

Call = Callable[..., Mapping[str, npt.NDArray[Any]]]  # a network as an `Engine` runs it: arrays in and out by name


class Subject(Protocol):
    """What motion is generated for and retargeted to: a picture, or a clip with a pose of its own in every frame.

    Attributes:
        motion: (265,) of its first frame, known before the first window.
        condition: lids and gaze of its frames, canonical keypoints.
    """

    @property
    def motion(self) -> Array: ...

    @property
    def condition(self) -> Conditions: ...

    def motion_at(self, frame: int) -> Array:
        """Its motion (265,) in a frame that is made, counted from 0."""


class SourceFrame(NamedTuple):
    """What the networks find in one picture of a face.

    Attributes:
        crop_to_picture: (3, 3) affine, pixels of the 512 crop -> picture pixels.
        motion: (265,) that the motion extractor gives for the crop.
        canonical: (63,) keypoints, likewise.
        eye_open, eye_ball: (2,) and (6,) lids and gaze.
    """

    crop_to_picture: Floats
    motion: Array
    canonical: Array
    eye_open: Array
    eye_ball: Array


class OutlineFinder(Protocol):
    """Finds the outline of a face by networks of its own."""

    def __call__(self, picture: Bytes, at: Floats) -> FaceOutline:
        """The outline of the face nearest to the pixel `at` of a picture (H, W, 3)."""

    def follow(self, picture: Bytes, rough: FaceOutline) -> FaceOutline:
        """The outline of a face in a picture (H, W, 3) that is about at `rough`."""


class Source(NamedTuple):
    """A portrait as the networks take it.

    Attributes:
        crop_to_picture: (3, 3) affine, pixels of the 512 crop -> picture pixels.
        motion: (265,) that the motion extractor gives for the crop.
        pose: the same, angles in degrees.
        condition: lids, gaze and canonical keypoints.
        keypoints: (21, 3) as posed in the crop, model units.
        volume: (1, 32, 16, 64, 64) the appearance feature volume; for torch a tensor on the renderer's device.
        eye_closure: (63,) change of expression that closes the eyes; zero if the bundle has no eye retargeting network.
    """

    crop_to_picture: Floats
    motion: Array
    pose: Pose
    condition: SourceCondition
    keypoints: Floats
    volume: Array | torch.Tensor
    eye_closure: Floats

    def motion_at(self, frame: int) -> Array:
        """The motion (265,) of the picture."""
        return self.motion


def motion_vector(parts: Mapping[str, npt.ArrayLike]) -> Array:
    """Motion vector (265,) of a motion by name, as the motion extractor gives it.

    Raises:
        ValueError: the sizes do not add up to 265.
    """
    columns = [np.asarray(parts[name], np.float32).reshape(-1) for name in LAYOUT_265]
    columns[0] = columns[0] - 1
    vector = np.concatenate(columns)
    if vector.shape != (PACKED_SIZE,):
        raise ValueError(
            f"expected a motion of {PACKED_SIZE} numbers, got {vector.size}; give the motion extractor's outputs"
        )
    return vector


class SourceReader:
    """Sources of portraits, computed on first use and kept as long as the portrait exists.

    Args:
        appearance: engine: image -> volume.
        motion_extractor: engine: image -> pitch, yaw, roll, t, exp, scale, kp.
        eye_retargeting: engine: x (1, 66) keypoints, the eyes' openings, target opening -> offsets (1, 63); None: not in
            the bundle.
        outline_of: finds outlines; None: from the portrait's own landmarks.
        mesh_of: upright crop -> 478 landmarks in it; None: the portrait's own.
        place: moves a volume to the renderer's device, once.
        framing: of the crop that is animated.
    """

    def __init__(
        self,
        appearance: Call,
        motion_extractor: Call,
        eye_retargeting: Call | None = None,
        outline_of: OutlineFinder | None = None,
        mesh_of: Callable[[Bytes], Floats] | None = None,
        place: Callable[[Array], Array | torch.Tensor] = np.asarray,
        framing: Framing = FACE,
    ) -> None:
        self._framing = framing
        self._place = place
        self._outline_of, self._mesh_of = outline_of, mesh_of
        self._appearance = appearance
        self._eye_retargeting = eye_retargeting
        self._motion_extractor = motion_extractor
        self._known: Once[Portrait, Source] = Once()

    def __call__(self, portrait: Portrait) -> Source:
        """The source of a portrait."""
        return self._known.get(portrait, self._read)

    def frame(self, picture: Bytes, landmarks: Floats, seen: bool = True) -> SourceFrame:
        """A frame of a clip (H, W, 3), in which the face is followed.

        Args:
            landmarks: (478, 3) of the face, picture pixels.
            seen: whether the frame shows the face; if not, nothing is looked for beside the landmarks.
        """
        outline = outline_of_mediapipe(landmarks)
        if seen and self._outline_of is not None:
            outline = self._outline_of.follow(picture, outline)
        return self._extract(picture, landmarks, outline, seen)[0]

    def volume(self, picture: Bytes, crop_to_picture: Floats) -> Array | torch.Tensor:
        """The appearance feature volume of a face, as of `Source`."""
        image = network_input(cut(picture, invert(crop_to_picture), self._framing.size))
        return self._place(self._appearance(image=image)["volume"])

    def _read(self, portrait: Portrait) -> Source:
        landmarks = _transform_landmarks(portrait.landmarks, portrait.crop_to_picture)
        if self._outline_of is None:
            outline = outline_of_mediapipe(landmarks)
        else:
            outline = self._outline_of(portrait.picture, landmarks[:, :2].mean(0))
        found, image = self._extract(portrait.picture, landmarks, outline)
        pose = pose_of(found.motion)
        keypoints = posed_keypoints(found.canonical, pose)
        return Source(
            found.crop_to_picture,
            found.motion,
            pose,
            SourceCondition(found.eye_open[None], found.eye_ball[None], found.canonical),
            keypoints,
            self._place(self._appearance(image=image)["volume"]),
            self._eye_closure(keypoints, found.eye_open, pose.scale),
        )

    def _extract(
        self, picture: Bytes, landmarks: Floats, outline: FaceOutline, seen: bool = True
    ) -> tuple[SourceFrame, Array]:
        """What a picture shows, and the image (1, 3, 256, 256) in which the networks see it."""
        to_crop = crop_matrix(outline, self._framing)
        crop = cut(picture, to_crop, self._framing.size)
        mesh = self._mesh_of(crop) if seen and self._mesh_of is not None else _transform_landmarks(landmarks, to_crop)
        image = network_input(crop)
        found = self._motion_extractor(image=image)
        eye_open, eye_ball = eye_state(mesh, self._framing.size)
        return SourceFrame(invert(to_crop), motion_vector(found), found["kp"].reshape(-1), eye_open, eye_ball), image

    def _eye_closure(self, keypoints: Floats, eye_open: Array, scale: float) -> Floats:
        """Change of expression that closes the eyes, by the retargeting network. That takes an opening as one lid distance
        over the eye's width; `eye_open` is the sum of three."""
        if self._eye_retargeting is None:
            return np.zeros(keypoints.size)
        x = np.concatenate([keypoints.reshape(-1), eye_open / 3, [0.0]]).astype(np.float32)
        return np.asarray(self._eye_retargeting(x=x[None])["offsets"][0] / scale, np.float64)


def _transform_landmarks(landmarks: Floats, matrix: Floats) -> Floats:
    """Landmarks (478, 3) under a similarity (3, 3); depth scales with x and y."""
    (a, b), (c, d) = matrix[:2, :2]
    flat = (landmarks[:, None, :2] * matrix[:2, :2]).sum(-1) + matrix[:2, 2]
    return np.column_stack([flat, landmarks[:, 2] * np.sqrt(abs(a * d - b * c))])
