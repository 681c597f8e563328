"""The background plate: the picture without the person, shown where the moving person uncovers it."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ditto.portrait.face_mesh import Geometry, smoothstep

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

# Numbers without a note were chosen by eye. Fringe, fill and gate are the prototype's (../shared/renderer/spec.md, 2.7),
# which compared one layer (bends straight lines), two with a hard matte (halos) and this one.
FRINGE = (0.03, 0.15)  # fu outside the person: carried along up to the first, left behind from the second
FILL_SIZE = 128  # the hole is filled at this resolution
WISPS = 0.035  # fu: loose hair reaches this far out of the person mask
# Collars and loose hair that the mask leaves out: as far from the person, and unlike the fill by so many levels on average.
REMNANT_REACH = 0.09  # fu
REMNANT_LEVELS = (10.0, 30.0)
GRAIN_PX = 8.0 / 512  # of the crop's side: texture finer than this is mirrored into the hole
GRAIN_LIMIT = 4.0  # of the median deviation: what deviates more is a structure, which would repeat in the hole
PERSON = 0.35  # mask level that counts as person when the fringe is measured
TOUCHED = 0.06  # mask level that counts as touched by the person when the hole is filled
GATE_PX = (0.3 / 512, 2.5 / 512)  # movement, of the crop's side, between which the plate comes in
GATE_CELLS = 128


class Background(NamedTuple):
    """What is behind the person.

    Attributes:
        plate: (S, S, 3) RGB.
        alpha: (S, S): 255 on the person and a fringe around, 0 where the plate stays visible when the person moves.
    """

    plate: U8
    alpha: U8


def _push_pull(image: F32, known: F32) -> F32:
    """(H, W, 3) with what is not known, (H, W) in [0, 1], filled from ever coarser levels; as it is if nothing is known."""
    if not known.any():
        return image
    levels: list[tuple[F32, F32]] = []
    while min(image.shape[:2]) > 1:
        levels.append((image, known))
        half = (max(1, image.shape[1] // 2), max(1, image.shape[0] // 2))
        colour = cv2.resize(image * known[..., None], half, interpolation=cv2.INTER_AREA)
        weight = cv2.resize(known, half, interpolation=cv2.INTER_AREA)
        image = (colour.reshape(half[1], half[0], 3) / np.maximum(weight, 1e-4)[..., None]).astype(np.float32)
        known = np.clip(2.0 * weight.reshape(half[1], half[0]), 0.0, 1.0).astype(np.float32)
    filled: F32 = image
    for image, known in reversed(levels):
        coarse = cv2.resize(filled, image.shape[1::-1], interpolation=cv2.INTER_LINEAR).reshape(image.shape)
        filled = (image * known[..., None] + coarse * (1.0 - known[..., None])).astype(np.float32)
    return filled


def _mirrored_texture(crop: F32, hole: npt.NDArray[np.bool_]) -> F32:
    """(S, S, 3) fine texture of the surroundings, mirrored at the border of the hole into it; zero elsewhere."""
    size = len(crop)
    known = (~hole).astype(np.float32)
    sigma = GRAIN_PX * size
    weight = np.maximum(cv2.GaussianBlur(known, (0, 0), sigma), 1e-3)
    smooth = cv2.GaussianBlur(crop * known[..., None], (0, 0), sigma) / weight[..., None]
    texture = (crop - smooth) * known[..., None]
    limit = GRAIN_LIMIT * np.median(np.abs(texture[~hole]))  # an edge beside the hole is no grain
    texture = np.clip(texture, -limit, limit)
    _, labels = cv2.distanceTransformWithLabels(
        hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    rows, columns = np.nonzero(~hole)
    nearest = np.zeros((labels.max() + 1, 2), np.float32)
    nearest[labels[rows, columns]] = np.stack([columns, rows], -1)
    inside = np.argwhere(hole)
    mirrored = 2.0 * nearest[labels[hole]] - inside[:, ::-1]
    mirrored = np.abs(mirrored)
    mirrored = np.minimum(mirrored, 2.0 * (size - 1) - mirrored).astype(np.float32)
    filled = np.zeros_like(crop)
    x, y = np.rint(mirrored).astype(np.int64).T
    filled[hole] = texture[y, x]
    return filled


def _hull(geometry: Geometry) -> npt.NDArray[np.int32]:
    return np.asarray(cv2.convexHull(np.rint(geometry.landmarks[:, :2]).astype(np.int32)), np.int32)


def _grown(mask: F32, reach_px: float) -> npt.NDArray[np.float64]:
    """(S, S) the mask, grown, with a soft edge."""
    side = 2 * round(reach_px) + 1
    grown = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return smoothstep(0.02, 0.12, cv2.GaussianBlur(grown, (0, 0), len(mask) / 205))


def make_background(crop: U8, mask: F32, geometry: Geometry) -> Background:
    """Plate and alpha of a source crop (S, S, 3) with person mask (S, S) in [0, 1]."""
    size = geometry.size
    face = cv2.fillPoly(np.zeros((size, size), np.uint8), [_hull(geometry)], (1,))
    mask = np.maximum(mask, np.asarray(face, np.float32))  # whatever the mask says, the face is the person's
    outside = np.asarray(cv2.distanceTransform((mask < PERSON).astype(np.uint8), cv2.DIST_L2, 5)) / geometry.scale_px
    alpha = 1.0 - smoothstep(*FRINGE, outside)

    small = cv2.resize(crop, (FILL_SIZE, FILL_SIZE), interpolation=cv2.INTER_AREA)
    touched = (cv2.resize(mask, (FILL_SIZE, FILL_SIZE), interpolation=cv2.INTER_AREA) > TOUCHED).astype(np.uint8)
    reach = 2 * round(REMNANT_REACH * geometry.scale_px * FILL_SIZE / size) + 5
    touched = cv2.dilate(touched, np.ones((reach, reach), np.uint8)).astype(np.uint8)
    soft = _push_pull(small.astype(np.float32), (1 - touched).astype(np.float32))
    lined = cv2.inpaint(small, touched, 6, cv2.INPAINT_TELEA).astype(np.float32)  # carries straight lines on
    fill = np.asarray(cv2.resize(0.5 * (soft + lined), (size, size), interpolation=cv2.INTER_CUBIC), np.float32)
    hole = np.maximum(
        _grown(mask, WISPS * geometry.scale_px),
        _grown(mask, REMNANT_REACH * geometry.scale_px)
        * smoothstep(*REMNANT_LEVELS, np.abs(cv2.GaussianBlur(crop - fill, (0, 0), size / 256)).max(-1)),
    )
    if 0 < (hole > 0.0).sum() < hole.size:
        fill = fill + _mirrored_texture(crop.astype(np.float32), hole > 0.0)
    plate = np.clip(np.rint(crop * (1.0 - hole[..., None]) + fill * hole[..., None]), 0, 255)
    return Background(plate.astype(np.uint8), np.rint(255.0 * alpha).astype(np.uint8))


def plate_gate(origin: F32) -> F32:
    """Where the picture moves, (h, w) in [0, 1], from the warp's map (2, S, S): the plate is laid in there alone."""
    size = origin.shape[-1]
    step = max(1, size // GATE_CELLS)
    first = (step - 1) // 2
    sampled = origin[:, first::step, first::step]
    axis = np.arange(first, size, step, dtype=np.float32)
    moved = cv2.magnitude(sampled[0] - axis[None], sampled[1] - axis[:, None])
    spread = cv2.GaussianBlur(moved, (0, 0), 6.0 / 512 * size / step)
    gate: npt.NDArray[np.float64] = smoothstep(GATE_PX[0] * size, GATE_PX[1] * size, spread)
    return gate.astype(np.float32)
