"""The lite renderer in NumPy: a textured 478-landmark mesh, moved by 21 keypoints through a learned linear basis.

This is the definition. It prepares portraits, and tests hold the core to it; `ditto.lite.rendering.core` draws with the core
(csrc/core), which does the same in C++. Change this first, then the file of the same name there.

Order of a frame: clamp -> deform -> warp -> creases -> eyes -> background -> mouth. Constants are in face units, so any
crop size works. A portrait at rest comes out as it went in.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto import ops
from ditto.lite.rendering.background import Background, make_background, plate_gate
from ditto.lite.rendering.creases import Creases, draw_creases, prepare_creases
from ditto.lite.rendering.deform import Rim, clamp_keypoints, displace, find_rim, follow_rim, load_basis, relax_folds
from ditto.lite.rendering.eyes import EyeLayers, draw_eyes, move_lids, prepare_eyes
from ditto.lite.rendering.mouth import MouthLayers, draw_mouth, limit_lips, part_lips, prepare_mouth
from ditto.lite.rendering.paste_back import PasteBack, picture_ends
from ditto.lite.rendering.surround import Surround, make_surround, move_surround
from ditto.motion.motion import KEYPOINTS, MOTION_SIZE, Motion, RenderPose, retarget
from ditto.portrait import face_mesh as g
from ditto.portrait.cropping import sample_crop
from ditto.portrait.face_mesh import Geometry, Pose
from ditto.portrait.portrait import Portrait

Floats = npt.NDArray[np.float64]

# fu: lips are drawn as if that much nearer, so that a closing lip covers what it folds over. From the prototype (chosen by
# eye; ../shared/renderer/spec.md, 2.4).
LIP_LIFT = 0.12

# Least and most of each of the 70 numbers: far beyond any face, near enough that no arithmetic breaks.
MOTION_LIMITS: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] = (
    np.repeat(np.array([-0.9, -360.0, -10.0], np.float32), (1, 3, MOTION_SIZE - 4)),
    np.repeat(np.array([9.0, 360.0, 10.0], np.float32), (1, 3, MOTION_SIZE - 4)),
)

INNER_TRIANGLES = np.concatenate([g.FACE_TRIANGLES, g.MOUTH_TRIANGLES, g.EYE_TRIANGLES])
_LIP_LANDMARKS = [
    *g.UPPER_INNER_LIP, *g.LOWER_INNER_LIP, *g.UPPER_OUTER_LIP, *g.LOWER_OUTER_LIP,
    12, 38, 268, 72, 302, 11, 41, 271, 74, 304, 42, 272, 183, 407, 184, 408, 62, 292, 76, 306,
    96, 325, 77, 307, 89, 319, 90, 320, 179, 403, 180, 404, 86, 316, 85, 315, 15, 16,
]  # fmt: skip
LIFT = LIP_LIFT * np.isin(INNER_TRIANGLES, _LIP_LANDMARKS).all(1)
_FACE = len(g.FACE_TRIANGLES)
FRONT = np.sign(g.signed_areas(g.TEMPLATE, INNER_TRIANGLES))


class Appearance(NamedTuple):
    """One portrait, ready to be drawn.

    Attributes:
        geometry: of the source.
        texture: (S, S, 4) RGBA: the crop, and what of it moves with the person.
        source: (V, 2) px: landmarks, then surrounding points, in the crop.
    """

    geometry: Geometry
    rim: Rim
    texture: npt.NDArray[np.uint8]
    source: npt.NDArray[np.float32]
    surround: Surround
    background: Background
    eyes: EyeLayers
    mouth: MouthLayers
    creases: Creases


class AlphaPlane(NamedTuple):
    """The alpha of a portrait's picture, as it moves with the colours.

    Attributes:
        values: (S, S) at the crop.
        flat: (S, S) of `ditto.ops.flat_around`.
        plate: (S, S) of the surroundings, which shows where the person leaves.
    """

    values: npt.NDArray[np.uint8]
    flat: npt.NDArray[np.uint8]
    plate: npt.NDArray[np.uint8]


def render_pose_from_keypoints(portrait: Portrait, x_source: npt.ArrayLike, x_driving: npt.ArrayLike) -> RenderPose:
    """The pose that two sets of posed keypoints describe.

    Head pose is read off by fitting the portrait's canonical keypoints, the rigid ones counting most; what the pose
    does not explain is expression. Good to about a quarter of a degree, for keypoints with this renderer's meaning.

    Args:
        x_source, x_driving: (21, 3) model units, as from `ditto.motion.motion.transform_keypoints`.

    Raises:
        ValueError: if either is not (21, 3).
    """
    fits = []
    for name, x in (("x_source", x_source), ("x_driving", x_driving)):
        posed = np.asarray(x, np.float64)
        if posed.shape != (KEYPOINTS, 3):
            raise ValueError(f"expected {name} ({KEYPOINTS}, 3), got {posed.shape}; give one frame")
        scale, rotation, translation = g.procrustes(portrait.canonical_keypoints, posed, g.POSE_WEIGHTS)
        fits.append((scale, rotation, translation, ((posed - translation) / scale) @ rotation.T))
    (scale_0, rotation_0, translation_0, rest), (scale, rotation, translation, local) = fits
    return RenderPose(
        portrait.scale * scale / scale_0,
        portrait.rotation @ rotation_0.T @ rotation,
        portrait.translation + translation - translation_0,
        local - rest,
    )


def painters_order(pose: Pose, appearance: Appearance) -> g.Ints:
    """The face's triangles from back to front.

    A triangle that shows its back lies behind all others. It turns over when its area is 0, so no pixel jumps. By depth
    alone it would change places with the skin it is folded over, whose depth is nearly the same.
    """
    scale_px = appearance.geometry.scale_px
    depth = pose.vertices[INNER_TRIANGLES, 2].mean(1) - LIFT * scale_px
    depth += scale_px * (g.signed_areas(pose.vertices, INNER_TRIANGLES) * FRONT < 0.0)
    depth[:_FACE] += scale_px * appearance.rim.hidden
    return np.asarray(INNER_TRIANGLES[np.argsort(-depth, kind="stable")])


class MeshRenderer:
    """Draws a portrait in a pose. Holds the learned basis only; immutable."""

    def __init__(self, bundle_folder: str | Path) -> None:
        """Read `renderer.safetensors` from a bundle's folder.

        Raises:
            BundleError: the file is missing, damaged or of another format.
        """
        self.learned = load_basis(Path(bundle_folder) / "renderer.safetensors")

    def prepare(self, portrait: Portrait) -> Appearance:
        """Meshes, layers and background plate of a portrait."""
        crop = np.ascontiguousarray(portrait.crop)
        tracked = g.source_geometry(portrait.landmarks, crop.shape[0])
        geometry = g.limit_slope(tracked)
        background = make_background(crop, portrait.mask, geometry)
        surround = make_surround(geometry, portrait.mask, picture_ends(portrait))
        return Appearance(
            geometry,
            find_rim(tracked.landmarks, tracked.scale_px),
            np.concatenate([crop, background.alpha[..., None]], -1),
            np.concatenate([geometry.landmarks[:, :2], surround.points]).astype(np.float32),
            surround,
            background,
            prepare_eyes(crop, geometry),
            prepare_mouth(crop, geometry, portrait.mask),
            prepare_creases(crop, geometry),
        )

    def paste_back(self, portrait: Portrait) -> PasteBack:
        """What pastes rendered crops back into the portrait's picture."""
        return PasteBack(portrait)

    def retarget(self, portrait: Portrait, motion: Motion) -> RenderPose:
        """One frame of motion (70,) as `render` takes it, held to `MOTION_LIMITS`."""
        return retarget(portrait, Motion(np.clip(motion.values, *MOTION_LIMITS)))

    def pose(self, appearance: Appearance, render_pose: RenderPose) -> Pose:
        """Where the face mesh is in a pose."""
        geometry = appearance.geometry
        half = geometry.size / 2.0
        scale_px = render_pose.scale * half
        translation_px = np.asarray(render_pose.translation, np.float64) * half + (half, half, 0.0)
        delta = clamp_keypoints(self.learned, np.asarray(render_pose.delta, np.float64))
        delta = limit_lips(geometry, delta)
        displacement, closure = move_lids(geometry, delta, displace(self.learned, delta))
        displacement = part_lips(geometry, relax_folds(geometry.canonical, displacement))
        displacement = follow_rim(appearance.rim, displacement)
        canonical = geometry.canonical + displacement
        vertices = scale_px * (canonical @ render_pose.rotation) + translation_px
        return Pose(scale_px, render_pose.rotation, translation_px, delta, canonical, vertices, closure)

    def prepare_alpha(self, portrait: Portrait) -> AlphaPlane:
        """What `render_with_alpha` needs of a portrait with alpha."""
        assert portrait.alpha is not None
        grey = np.repeat(portrait.alpha[..., None], 3, -1)
        crop = sample_crop(grey, portrait.crop_to_picture, len(portrait.crop))
        geometry = g.limit_slope(g.source_geometry(portrait.landmarks, len(portrait.crop)))
        plate = make_background(crop, portrait.mask, geometry).plate
        values = np.ascontiguousarray(crop[..., 0])
        return AlphaPlane(values, ops.flat_around(values), np.ascontiguousarray(plate[..., 0]))

    def render(self, appearance: Appearance, render_pose: RenderPose) -> npt.NDArray[np.uint8]:
        """One frame of the face crop, (S, S, 3) uint8 RGB."""
        return self.render_with_alpha(appearance, render_pose, None)[0]

    def render_with_alpha(
        self, appearance: Appearance, render_pose: RenderPose, plane: AlphaPlane | None
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
        """One frame of the face crop, (S, S, 3), and its alpha (S, S), made of what `prepare_alpha` gives."""
        geometry, surround = appearance.geometry, appearance.surround
        pose = self.pose(appearance, render_pose)
        destination = np.concatenate([pose.vertices[:, :2], move_surround(surround, geometry, pose)])
        triangles = np.concatenate([surround.triangles, painters_order(pose, appearance)]).astype(np.int32)
        image, alpha, origin, parts = ops.warp(
            appearance.texture, triangles, destination.astype(np.float32), appearance.source
        )
        draw_creases(image, origin, parts, appearance.creases, pose)
        draw_eyes(image, appearance.eyes, geometry, pose)
        gate = plate_gate(origin)
        ops.composite(image, alpha, appearance.background.plate, gate)
        draw_mouth(image, appearance.mouth, geometry, pose)
        if plane is None:
            return image, None
        carried = np.repeat(ops.carry(plane.values, origin, parts)[..., None], 3, -1)
        ops.composite(carried, alpha, np.repeat(plane.plate[..., None], 3, -1), gate)
        return image, carried[..., 0]
