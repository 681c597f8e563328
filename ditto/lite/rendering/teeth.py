"""Procedural dental arches, drawn once per portrait at the portrait's own resolution and sharpness.

A sprite is the arch unrolled: columns run along the dental curve, rows downwards, both in face units. Crown widths and
heights are the usual mean values in millimetres (Wheeler's Dental Anatomy); 1 face unit is about 140 mm. The numbers of
edges, corners, shading and colour were chosen by eye.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ditto.portrait.face_mesh import smoothstep

Array = npt.NDArray[np.float32]

MILLIMETRE = 1 / 140  # in face units
ARC_HALF = 46.5 * MILLIMETRE  # midline to the far side of the first molar
ARCH_HALF_WIDTH = 27.5 * MILLIMETRE
ARCH_DEPTH = 33.0 * MILLIMETRE
OVERSAMPLING = 4


class Arch(NamedTuple):
    """Crowns from the midline outwards: mesio-distal widths and heights in mm, how far each edge stands back from
    the biting plane, how rounded the far and near edge corners are, and how pointed the crown is."""

    width: tuple[float, ...]
    height: tuple[float, ...]
    edge: tuple[float, ...]
    far_corner: tuple[float, ...]
    near_corner: tuple[float, ...]
    point: tuple[float, ...]


UPPER = Arch(
    (8.5, 6.7, 7.7, 7.1, 6.8, 9.7),
    (10.4, 8.8, 10.0, 8.4, 7.6, 7.2),
    (0.0, 0.55, 0.15, 0.7, 1.1, 1.4),
    (0.95, 1.25, 1.3, 1.1, 1.0, 0.8),
    (0.40, 0.7, 1.0, 0.9, 0.8, 0.6),
    (0.0, 0.05, 0.55, 0.45, 0.3, 0.2),
)
LOWER = Arch(
    (5.4, 6.0, 6.9, 7.1, 7.2, 13.9),
    (8.8, 9.0, 10.2, 8.6, 7.8, 7.2),
    (0.0, 0.15, 0.0, 0.5, 0.9, 1.2),
    (0.6, 0.7, 1.2, 1.3, 1.1, 0.9),
    (0.35, 0.5, 1.1, 1.1, 0.9, 0.8),
    (0.0, 0.0, 0.8, 0.6, 0.4, 0.2),
)


class Sprite(NamedTuple):
    """An unrolled arch.

    Attributes:
        pixels: (h, w, 4) float32: premultiplied RGB in 0..255 and coverage in 0..1.
        per_unit: sprite pixels per face unit, along and across.
        edge_row: row of the biting plane.
    """

    pixels: Array
    per_unit: float
    edge_row: float


def blurred(values: Array, sigma: float) -> Array:
    """(h, w, n) smoothed by a Gaussian of `sigma` pixels, edges repeated."""
    if sigma < 0.05:
        return values
    side = 2 * max(1, int(np.ceil(3 * sigma))) + 1
    smooth = cv2.GaussianBlur(values, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(smooth, np.float32).reshape(values.shape)


def arch_curve() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Arc length, sideways position and depth of the dental curve, each (65,), face units, from -ARC_HALF on.

    A half ellipse; depth is 0 at the midline and grows away from the camera.
    """
    angle = np.linspace(-1.45, 1.45, 801)
    x, z = ARCH_HALF_WIDTH * np.sin(angle), ARCH_DEPTH * (1 - np.cos(angle))
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(z)))])
    length -= length[-1] / 2
    arc = np.linspace(-ARC_HALF, ARC_HALF, 65)
    return arc, np.interp(arc, length, x), np.interp(arc, length, z)


def draw_arch(
    arch: Arch, upper: bool, tooth: npt.ArrayLike, gum: npt.ArrayLike, pixels_per_unit: float, blur: float
) -> Sprite:
    """One arch in two colours.

    Args:
        arch: Crown measures; the drawing is mirrored for the lower arch.
        tooth, gum: RGB, 0..255, of a fully lit central incisor and of the gum.
        pixels_per_unit: Sprite resolution.
        blur: Gaussian sigma in sprite pixels, to match the portrait's own sharpness.
    """
    step = MILLIMETRE
    width = np.array(arch.width) * step
    bounds = np.concatenate([[0.0], np.cumsum(width)])
    columns = max(16, round(2 * ARC_HALF * pixels_per_unit))
    top, bottom = -17.0 * step, 4.0 * step
    rows = max(8, round((bottom - top) * pixels_per_unit))
    k = OVERSAMPLING
    u = ((np.arange(columns * k) + 0.5) / (columns * k) * 2 - 1) * ARC_HALF
    v = top + (np.arange(rows * k) + 0.5) / (rows * k) * (bottom - top)
    index = np.clip(np.searchsorted(bounds, np.abs(u), side="right") - 1, 0, len(width) - 1)
    across = (np.abs(u) - bounds[index]) / width[index] * 2 - 1  # -1 at the near (mesial) contact, 1 at the far one

    def of(values: tuple[float, ...]) -> npt.NDArray[np.float64]:
        return np.array(values)[index]

    # No two halves of a mouth are alike: small fixed differences in tone, edge and width.
    random = np.random.default_rng(7 if upper else 8)
    side = (u > 0).astype(int)
    tone = (1 + random.uniform(-0.025, 0.025, (2, len(width))))[side, index]
    uneven = random.uniform(-0.12, 0.12, (2, len(width)))[side, index]
    edge = -(of(arch.edge) + uneven) * step
    far, near = np.clip(across, 0, 1), np.clip(-across, 0, 1)
    edge = edge - step * (of(arch.far_corner) * far**4.0 + of(arch.near_corner) * near**4.5)
    edge = edge - step * of(arch.point) * np.abs(across) ** 1.2
    neck = -(of(arch.height) - 1.3 * np.abs(across) ** 2.2) * step  # scalloped: the papilla comes down between crowns
    down = v[:, None]
    height = of(arch.height)[None] * step
    along = np.clip((down + height) / height, 0, 1)  # 0 neck, 1 edge

    # Crowns taper towards the neck and touch below the middle; beyond the flank lies papilla above, darkness below.
    taper = 1.0 - 0.20 * (1 - along) ** 1.6 - 0.012
    flank = taper - np.abs(across)[None]  # > 0 inside the crown
    soft = 0.42 * step / width[index][None]
    inside = smoothstep(-1.0, 1.0, flank / soft)
    crown = smoothstep(0.16, -0.16, (down - edge[None]) / step) * inside
    gum_here = smoothstep(0.35, -0.35, (down - neck[None]) / step)
    papilla = (1 - inside) * smoothstep(-3.6, -6.0, down / step)

    shade = 1 - 0.13 * np.abs(across)[None] ** 3.0 - 0.03 * far[None]
    shade = shade * (0.90 + 0.10 * smoothstep(0.0, 0.45, along)) * (1 - 0.07 * smoothstep(0.80, 1.02, along))
    shine = np.exp(-(((across + 0.12) / 0.42) ** 2))[None] * np.exp(-(((along - 0.52) / 0.22) ** 2))
    shade = tone[None] * shade + 0.045 * shine
    shade = shade * (1 - 0.16 * smoothstep(0.10, -0.02, flank))
    warm = (1 - smoothstep(0.05, 0.55, along))[..., None] * np.array([0.0, 0.015, 0.06])
    lit = np.asarray(tooth, np.float64) * (1 - warm) * shade[..., None]
    red = np.asarray(gum, np.float64) * (0.86 + 0.14 * smoothstep(-17, -9, down / step))[..., None]
    soft_tissue = np.clip(gum_here + papilla * 0.9, 0, 1)
    cover = np.maximum(crown, soft_tissue)
    between = smoothstep(1.2, -0.4, (down - edge[None]) / step) * (1 - inside)  # dark line between two crowns
    line = 0.45 * np.asarray(tooth, np.float64) * np.array([1.0, 0.88, 0.84]) + 0.12 * np.asarray(gum, np.float64)
    colour = lit * crown[..., None] + line * ((1 - crown) * between)[..., None]
    cover = np.maximum(cover, between * 0.85 * smoothstep(0.3, -0.5, (down - edge[None]) / step))
    colour = colour * (1 - soft_tissue[..., None]) + red * soft_tissue[..., None]
    colour = np.where(crown[..., None] + between[..., None] + soft_tissue[..., None] > 0, colour, lit)
    fade = smoothstep(1.0, 0.86, np.abs(u) / ARC_HALF)[None]
    cover = cover * fade
    premultiplied = np.concatenate([colour * fade[..., None] * (cover > 0)[..., None], cover[..., None]], -1)
    premultiplied[..., :3] = np.minimum(premultiplied[..., :3], 255 * cover[..., None])
    small = premultiplied.reshape(rows, k, columns, k, 4).mean((1, 3)).astype(np.float32)
    small = blurred(small, blur)
    edge_row = -top / (bottom - top) * rows - 0.5
    if not upper:
        small = small[::-1]
        edge_row = rows - 1 - edge_row
    return Sprite(np.ascontiguousarray(small), rows / (bottom - top), float(edge_row))
