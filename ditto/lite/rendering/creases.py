"""Creases that come with expression: nasolabial folds, forehead and frown lines, crow's feet.

A crease is the portrait's own: along fixed paths over the face the picture's relief is measured once, as far as it runs along
the path. A smile deepens what is there, and a smile that goes makes it shallower. Smooth skin and flat drawings have no such
relief, so nothing is drawn there; hair, glasses and ink differ from their surroundings by more than a crease does and are left
out. Lengths in face units. Numbers without a note were chosen by eye.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ditto.lite.rendering.eyelids import blur, blur_rows, sample_linear
from ditto.media.images import LUMA
from ditto.motion.motion import Keypoint
from ditto.ops.reference.warp import Parts
from ditto.portrait.face_mesh import MIRROR, Geometry, Pose, smoothstep

Floats = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

ALONG, ACROSS = 49, 41  # samples of a path and across it
RELIEF_STEP = 1.0 / 512  # what 1 of a stored relief stands for, as a share of the skin's luma; 128 is none
FLAT = 128
RELIEF = (0.006, 0.05)  # less is noise; more is a line of hair, ink or a glasses' frame, and none of it counts beyond
LIT = 0.6  # of the relief where it is lighter than the skin around it
SKIN = (0.60, 0.78)  # of the luma about a path: hair, brows, nostrils and what is behind the head are darker
NOISE = 3.0  # standard deviations of what grain leaves in the mean along a path, which are no crease either
STEADY = (0.30, 0.65)  # share of the relief's power that goes on along the path
STRENGTH = (-0.6, 2.0)  # least and most that an expression adds, of the portrait's own relief
DEEPEST = 0.15  # share of the light that a crease takes or gives at most
TINT_PRIOR = 1e-3  # power of relief up to which creases are rather taken for grey
MOST_TINT = 0.3
IRIS_LANDMARKS = 468  # these and those beyond move with the gaze
MARGIN = 0.03  # of landmarks around a field that say where it is in a frame


class Path(NamedTuple):
    """Where a crease runs, and how what is measured there is smoothed.

    Attributes:
        landmarks: along the crease.
        half: how far to both sides of them it may lie.
        along: sigma of smoothing along the path, as a share of its length.
        wide: sigma, across the path, of what counts as the skin's own shade.
        share: of the strength.
    """

    landmarks: tuple[int, ...]
    half: float
    along: float
    wide: float
    share: float = 1.0

    def mirrored(self) -> Path:
        return self._replace(landmarks=tuple(int(MIRROR[i]) for i in self.landmarks))


_FOLD = Path((129, 203, 206, 216, 212), 0.075, 0.10, 0.022)
_FEET = Path((35, 143, 34), 0.070, 0.30, 0.016, 0.6)
PATHS = (
    _FOLD,
    _FOLD.mirrored(),
    _FEET,
    _FEET.mirrored(),
    Path((104, 69, 108, 151, 337, 299, 333), 0.085, 0.07, 0.018),
    Path((151, 9, 8, 168), 0.055, 0.12, 0.014),
)


class Field(NamedTuple):
    """The relief along one path, cut to where there is any.

    Attributes:
        relief: (h, w) uint8, two or more each way: `RELIEF_STEP`s from `FLAT`.
        corner: (2,) px of its corner in the crop.
        landmarks: (n,), one or more: they lie around it.
    """

    relief: npt.NDArray[np.uint8]
    corner: npt.NDArray[np.int64]
    landmarks: npt.NDArray[np.int64]


class Creases(NamedTuple):
    """The creases of one portrait.

    Attributes:
        fields: one for each of `PATHS`.
        tint: (3,) how much of a change of luma red, green and blue take in the portrait's own creases.
    """

    fields: tuple[Field, ...]
    tint: Floats


def prepare_creases(crop: npt.NDArray[np.uint8], geometry: Geometry) -> Creases:
    """Measures the relief along `PATHS` in a source crop (S, S, 3)."""
    image = blur(crop.astype(np.float64), 0.004 * geometry.scale_px)
    fields = []
    power, shares = TINT_PRIOR, np.zeros(3)
    for path in PATHS:
        course = _course(geometry, path)
        seen = sample_linear(image, course.line[:, None] + course.normal[:, None] * course.aside[:, None])
        relief = _relief(seen @ LUMA, path, course.length)
        fields.append(_field(relief, course, geometry, path))
        colours = seen / np.maximum(blur_rows(seen, path.wide / course.step, 1), 8.0) - 1.0
        luma = colours @ LUMA
        weight = np.abs(relief) * luma
        power += float((weight * luma).sum())
        shares += (weight[..., None] * (colours - luma[..., None])).sum((0, 1))
    return Creases(tuple(fields), 1.0 + np.clip(shares / power, -MOST_TINT, MOST_TINT))


class _Course(NamedTuple):
    """A path in the crop: points and unit vectors (ALONG, 2) px, and where samples lie aside, (ACROSS,) px; `step` in fu."""

    line: Floats
    direction: Floats
    normal: Floats
    aside: Floats
    step: float
    length: float


def _course(geometry: Geometry, path: Path) -> _Course:
    points = geometry.landmarks[list(path.landmarks), :2]
    lengths = np.concatenate([[0.0], np.cumsum(np.maximum(np.hypot(*np.diff(points, axis=0).T), 1e-3))])
    at = np.linspace(0.0, lengths[-1], ALONG)
    line = np.stack([np.interp(at, lengths, points[:, i]) for i in (0, 1)], -1)
    line[1:-1] = blur_rows(line, 3.0)[1:-1]
    direction = np.gradient(line, axis=0)
    direction /= np.maximum(np.hypot(*direction.T), 1e-6)[:, None]
    normal = np.stack([-direction[:, 1], direction[:, 0]], -1)
    half = path.half * geometry.scale_px
    step = 2.0 * path.half / (ACROSS - 1)
    return _Course(line, direction, normal, np.linspace(-half, half, ACROSS), step, float(lengths[-1]))


def _relief(luma: Floats, path: Path, length_px: float) -> Floats:
    """(ALONG, ACROSS) of the luma seen there: by which share it differs from the skin around, as far as that is a crease."""
    shade = blur_rows(luma, path.wide * (ACROSS - 1) / (2.0 * path.half), 1)
    relief = luma / np.maximum(shade, 8.0) - 1.0
    level = max(float(np.quantile(luma, 0.8)), 8.0)
    relief *= cv2.erode(smoothstep(*SKIN, np.minimum(luma, shade) / level), np.ones((5, 5), np.uint8))
    relief *= np.exp(-((np.abs(relief) / (2.0 * RELIEF[1])) ** 4))
    # Lines go on along the path. Hair, grain and cracks do not: their mean is small beside their spread.
    spread = np.maximum(blur_rows(relief**2, path.along * ALONG), 1e-9)
    relief = blur_rows(relief, path.along * ALONG)
    spread, steady = blur_rows(spread, 1.5, 1), blur_rows(relief**2, 1.5, 1)
    relief *= smoothstep(*STEADY, steady / spread)
    pixels = 2.0 * np.sqrt(np.pi) * path.along * length_px  # that the blur takes the mean of
    noise = np.sqrt(np.maximum(spread - steady, 0.0) / max(pixels, 1.0))
    relief = np.sign(relief) * np.maximum(np.abs(relief) - np.maximum(RELIEF[0], NOISE * noise), 0.0)
    relief = RELIEF[1] * np.tanh(relief / RELIEF[1]) * np.where(relief > 0.0, LIT, 1.0)
    ends = smoothstep(0.0, 0.15, 0.5 - np.abs(np.linspace(-0.5, 0.5, ALONG)))
    sides = smoothstep(0.0, 0.35, 1.0 - np.abs(np.linspace(-1.0, 1.0, ACROSS)))
    return np.asarray(relief * ends[:, None] * sides * path.share)


def _field(relief: Floats, course: _Course, geometry: Geometry, path: Path) -> Field:
    """The relief, from samples along the path to pixels of the crop."""
    half = path.half * geometry.scale_px
    low = np.clip(np.floor(course.line.min(0) - half).astype(int), 0, geometry.size - 2)
    high = np.maximum(np.clip(np.ceil(course.line.max(0) + half).astype(int) + 1, 0, geometry.size), low + 2)
    pixels = np.stack(np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1])), -1).astype(np.float64)
    away = pixels[:, :, None] - course.line
    nearest = (away**2).sum(-1).argmin(-1)
    off = np.take_along_axis(away, nearest[..., None, None], 2)[..., 0, :]
    along = nearest + (off * course.direction[nearest]).sum(-1) * (ALONG - 1) / course.length
    across = (off * course.normal[nearest]).sum(-1)
    values = sample_linear(relief, np.stack([(across / half + 1.0) * 0.5 * (ACROSS - 1), along], -1))
    values *= (np.abs(across) < half) & (along > 0.0) & (along < ALONG - 1)
    stored = np.clip(np.rint(values / RELIEF_STEP) + FLAT, 0, 255).astype(np.uint8)

    y, x = np.nonzero(stored != FLAT)
    if not len(y):
        return Field(np.full((2, 2), FLAT, np.uint8), low.astype(np.int64), np.array(path.landmarks[:1]))
    top, bottom = max(y.min() - 1, 0), min(y.max() + 2, len(stored))
    left, right = max(x.min() - 1, 0), min(x.max() + 2, stored.shape[1])
    corner = low + (left, top)
    margin = MARGIN * geometry.scale_px
    places = geometry.landmarks[:IRIS_LANDMARKS, :2]
    near = ((places >= corner - margin) & (places <= low + (right, bottom) + margin)).all(1)
    landmarks = np.flatnonzero(near) if near.any() else np.array(path.landmarks)
    return Field(np.ascontiguousarray(stored[top:bottom, left:right]), corner.astype(np.int64), landmarks)


def strengths(delta: Floats) -> Floats:
    """(6,) how much an expression deepens the creases along `PATHS`, from the keypoint change (21, 3); 0 at rest."""
    k = Keypoint
    smile = [
        0.5 * ((side * delta[corner, 0] - delta[corner, 1]) / 0.12 - delta[cheek, 1] / 0.05)
        for side, corner, cheek in ((-1, k.RIGHT_MOUTH_CORNER, k.RIGHT_CHEEK), (1, k.LEFT_MOUTH_CORNER, k.LEFT_CHEEK))
    ]
    down = 0.5 * (delta[k.RIGHT_BROW, 1] + delta[k.LEFT_BROW, 1])
    together = 0.5 * (delta[k.RIGHT_BROW, 0] - delta[k.LEFT_BROW, 0])
    frown = (together + 0.4 * down) / 0.042
    least, most = STRENGTH
    amounts = np.array([*smile, *smile, -down / 0.055, frown])
    return np.asarray(np.where(amounts > 0.0, most, -least) * np.tanh(amounts))


def _light(field: Field, strength: float, places: F32) -> F32:
    """(...) share of the light that a crease takes or gives where places (..., 2) of the crop are seen."""
    u, v = (places[..., i] - np.float32(field.corner[i]) for i in (0, 1))
    height, width = field.relief.shape
    inside = (u > 0.0) & (v > 0.0) & (u < width - 1) & (v < height - 1)
    u, v = np.where(inside, u, np.float32(0)), np.where(inside, v, np.float32(0))
    i, j = np.minimum(u.astype(int), width - 2), np.minimum(v.astype(int), height - 2)
    fx, fy = u - i.astype(np.float32), v - j.astype(np.float32)
    relief = field.relief.astype(np.float32)
    top = relief[j, i] + fx * (relief[j, i + 1] - relief[j, i])
    bottom = relief[j + 1, i] + fx * (relief[j + 1, i + 1] - relief[j + 1, i])
    value = (top + fy * (bottom - top) - np.float32(FLAT)) * np.float32(RELIEF_STEP * strength)
    return np.asarray(np.clip(value, np.float32(-DEEPEST), np.float32(DEEPEST)) * inside)


def draw_creases(image: npt.NDArray[np.uint8], origin: F32, parts: Parts, creases: Creases, pose: Pose) -> None:
    """Deepens the creases in a warped frame (S, S, 3), in place; nothing changes without expression.

    Args:
        origin: (2, S, S) the warp's map: where in the crop each pixel comes from.
        parts: of the warp: a pixel that has some takes the light of each, as it takes its colours.
    """
    size = len(image)
    for field, strength in zip(creases.fields, strengths(pose.delta), strict=True):
        if abs(strength) < 1e-3:
            continue
        around = pose.vertices[field.landmarks, :2]
        x0, y0 = np.clip(np.floor(around.min(0)), 0, size).astype(int)
        x1, y1 = np.clip(np.ceil(around.max(0)) + 1, 0, size).astype(int)
        value = _light(field, strength, origin[:, y0:y1, x0:x1].transpose(1, 2, 0))
        rows, columns = parts.pixels // size - y0, parts.pixels % size - x0
        here = (rows >= 0) & (rows < y1 - y0) & (columns >= 0) & (columns < x1 - x0)
        at = rows[here], columns[here]
        value[at] = 0.0
        np.add.at(value, at, parts.weights[here] * _light(field, strength, parts.places[here]))
        part = image[y0:y1, x0:x1]
        light = part * (1.0 + value[..., None] * creases.tint.astype(np.float32))
        part[...] = np.where(value[..., None] != 0.0, np.floor(np.clip(light, 0.0, 255.0) + 0.5), part).astype(np.uint8)
