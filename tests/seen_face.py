"""Faces drawn by the lite renderer and found again in the picture, for tests of controls."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from ditto.controls import Controls, apply
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.media.images import LUMA
from ditto.motion.motion import MOTION_SIZE, Keypoint, Motion
from ditto.motion.space import LITE_SPACE
from ditto.portrait.face_mesh import fit_head, keypoints
from ditto.portrait.face_networks import MESH_SIZE, cut, networks
from ditto.portrait.follow import EYE_CORNERS, field_of

REST = Motion(np.zeros(MOTION_SIZE, np.float32))
# Of the tracker's field: shift as a part of its side, growth, turn in radians. The tracker sees one face in all of them.
FIELDS = [(0.0, 0.0, 1.0, 0.0), (0.03, 0.02, 1.06, 0.05), (-0.03, -0.02, 0.96, -0.05), (0.02, -0.03, 1.1, -0.08)]
PATCH = 0.04  # face units around a keypoint, in which the movement of skin is measured
QUALITY = 90  # of the JPEG whose noise skin must outdo


class SeenFace:
    """A portrait that is drawn, tracked, and compared with itself at rest."""

    def __init__(self, renderer: MeshRenderer, portrait) -> None:
        self.renderer, self.portrait = renderer, portrait
        self.appearance = renderer.prepare(portrait)
        self.flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def draw(self, controls: Controls, base: Motion = REST) -> np.ndarray:
        """The crop with controls."""
        motion = apply(base, controls, self.portrait, LITE_SPACE)
        return self.renderer.render(self.appearance, self.renderer.retarget(self.portrait, motion))

    def track(self, picture: np.ndarray, fields: int = 1) -> np.ndarray:
        """(fields, 478, 3) landmarks in a picture, pixels, each through another field of the tracker."""
        near = self.portrait.landmarks[:, :2]
        (x, y), side, angle = field_of(np.concatenate([near.min(0), near.max(0)]), near[list(EYE_CORNERS)])
        found = []
        for dx, dy, grow, turn in FIELDS[:fields]:
            centre, wide, tilt = (x + dx * side, y + dy * side), side * grow, angle + turn
            points, _ = networks().mesh(cut(picture, centre, wide, tilt, MESH_SIZE, beyond_is_black=False))
            c, s = np.cos(tilt), np.sin(tilt)
            flat = (points[:, :2] / MESH_SIZE - 0.5) @ np.array([[c, s], [-s, c]]) * wide + centre
            found.append(np.column_stack([flat, points[:, 2] * (wide / MESH_SIZE)]))
        return np.array(found)

    @cached_property
    def at_rest(self) -> np.ndarray:
        """The crop without controls."""
        return self.draw(Controls())

    @cached_property
    def rest(self) -> np.ndarray:
        """(4, 478, 3) landmarks of the face at rest, each as the tracker finds it through another field."""
        return self.track(self.at_rest, len(FIELDS))

    def signal(self, measure, controls: Controls, base: Motion = REST) -> float:
        """Change of a measure of landmarks that controls make, in standard deviations of the tracker's noise."""
        before = self.rest[0] if base is REST else self.track(self.draw(Controls(), base))[0]
        after = self.track(self.draw(controls, base))[0]
        noise = float(np.std([measure(landmarks) for landmarks in self.rest], ddof=1))
        return (measure(after) - measure(before)) / noise

    def skin_signal(self, keypoint: Keypoint, axis: int, controls: Controls) -> float:
        """How far the skin around a keypoint moves in the picture along an axis of the head, in standard deviations of what is
        measured there in a JPEG of the face at rest."""
        data = cv2.imencode(".jpg", self.at_rest, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        still = self._shifts(keypoint, axis, cv2.imdecode(data, cv2.IMREAD_UNCHANGED))
        moved = self._shifts(keypoint, axis, self.draw(controls))
        return float(moved.mean() / max(float(still.std()), 0.02))

    def _shifts(self, keypoint: Keypoint, axis: int, picture: np.ndarray) -> np.ndarray:
        """(N,) pixels by which the surroundings of a keypoint move."""
        geometry = self.appearance.geometry
        middle = geometry.scale_px * geometry.keypoints[keypoint] @ geometry.rotation + geometry.translation_px
        y, x = np.mgrid[: geometry.size, : geometry.size]
        near = np.hypot(x - middle[0], y - middle[1]) < PATCH * geometry.scale_px
        before, after = ((p @ LUMA).astype(np.uint8) for p in (self.at_rest, picture))
        across = geometry.rotation[axis, :2]
        return np.asarray(self.flow.calc(before, after, None)[near] @ (across / np.linalg.norm(across)))

    def mesh_outside(self, controls: Controls, region, reach: float) -> float:
        """Share of the mesh's squared movement that lies further than `reach` face units from the keypoints of a region."""
        motions = [apply(REST, c, self.portrait, LITE_SPACE) for c in (Controls(), controls)]
        poses = [self.renderer.pose(self.appearance, self.renderer.retarget(self.portrait, m)) for m in motions]
        before, after = (pose.canonical[:468, :2] for pose in poses)
        points = self.appearance.geometry.keypoints[list(region), :2]
        apart = np.sqrt(((before[:, None] - points[None]) ** 2).sum(-1)).min(1)
        energy = ((after - before) ** 2).sum(1)
        return float(energy[apart > reach].sum() / energy.sum())

    def picture_outside(self, controls: Controls, region, reach: float) -> float:
        """The same of the squared change of pixels."""
        geometry = self.appearance.geometry
        points = geometry.scale_px * geometry.keypoints[list(region)] @ geometry.rotation + geometry.translation_px
        y, x = np.mgrid[: geometry.size, : geometry.size]
        apart = np.min([np.hypot(x - px, y - py) for px, py, _ in points], 0) / geometry.scale_px
        energy = ((self.draw(controls).astype(float) - self.at_rest) ** 2).sum(-1)
        return float(energy[apart > reach].sum() / energy.sum())


def face_points(landmarks: np.ndarray) -> np.ndarray:
    """(21, 3) keypoints of tracked landmarks, head frame, face units."""
    return keypoints(fit_head(landmarks)[3])


def along(offsets: np.ndarray):
    """The measure of landmarks that grows as the keypoints move by (21, 3) offsets, seen from the front."""
    flat = offsets * (1.0, 1.0, 0.0)
    return lambda landmarks: float((face_points(landmarks) * flat).sum())


def portrait_paths() -> list[Path]:
    """The example's portrait, and three photographs beside the checkout, which may be missing."""
    root = Path(__file__).parents[1]
    shared = root.parent / "shared" / "data" / "portraits" / "private"
    names = ("synthetic_female_black_1.jpg", "synthetic_male_white_1.jpg", "synthetic_female_asian_1.jpg")
    return [root / "examples" / "portrait.jpg", *(shared / name for name in names)]
