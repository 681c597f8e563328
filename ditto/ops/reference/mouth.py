"""The mouth's interior painted into a frame, in NumPy: the definition of the kernel."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Colour = npt.NDArray[np.floating[Any]]  # (3,) RGB


class Channel(IntEnum):
    """What each column says. Face units of the head frame's plane unless noted; colours are RGB 0..255."""

    UPPER_LIP = 0  # y of the upper inner lip
    LOWER_LIP = 1
    UPPER_STEEPNESS = 2  # pixels across the lip's edge per unit of y
    LOWER_STEEPNESS = 3
    SHOWN = 4  # 0..1: how much the layer covers the picture here
    LIGHT = 5  # 0..1: light that enters between the lips
    UPPER_TEETH = 6  # texture column; texture row at y = 0; shade 0..1
    LOWER_TEETH = 9
    SEAM = 12  # colour that is left without light
    LOWER_RIM = 15  # colours of the lips beside the opening
    UPPER_RIM = 18
    LOWER_ROLL = 21  # how far the lip rolls inwards
    UPPER_ROLL = 22


COLUMN_CHANNELS = 23


class Scene(NamedTuple):
    """What holds for the whole mouth. Face units unless named otherwise."""

    x_from_px: tuple[float, float, float]  # x = a px + b py + c
    y_from_px: tuple[float, float, float]
    left: float  # x of the first column
    columns_per_unit: float
    edge_px: float  # width of the soft edge of the lips
    teeth_per_unit: float  # texture rows per unit
    cavity: Colour
    tongue: Colour
    tongue_middle: float
    tongue_back: float  # y where the tongue comes out of the dark
    tongue_tip: float
    tongue_half_width: float
    tongue_light: float
    widest: float  # opening
    own_shade: float  # light on the portrait's own teeth; 0: it shows none
    own_column: tuple[float, float, float]  # column = a x + b y + c of their texture
    own_row: tuple[float, float, float]
    upper_shadow: float  # light left right under the upper lip, and how far its shadow reaches
    upper_reach: float
    lower_shadow: float
    lower_reach: float
    lower_roll_shade: float  # how much darker a lip is where it has rolled in
    upper_roll_shade: float
    grain: float  # strength
    grain_per_unit: float
    tint: Colour  # added to shaded light, in proportion to light and shade


def _step(low: float, high: float, x: Array) -> Array:
    u: Array = np.clip((x - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return u * u * (3 - 2 * u)


def _tinted(shade: Array, tint: Colour) -> Array:
    """(n, 3): light that came through and off lips is redder the weaker it is."""
    return np.asarray(shade[:, None] * (1 + tint * (1 - shade)[:, None]), np.float32)


def _sample(texture: Array, column: Array, row: Array) -> Array:
    """(n, 4) bilinear samples; transparent outside."""
    height, width = texture.shape[:2]
    x0, y0 = np.floor(column), np.floor(row)
    fx, fy = (column - x0)[:, None], (row - y0)[:, None]
    x, y = x0.astype(np.int64), y0.astype(np.int64)
    inside = (x >= 0) & (y >= 0) & (x < width - 1) & (y < height - 1)
    x, y = np.where(inside, x, 0), np.where(inside, y, 0)
    top = texture[y, x] * (1 - fx) + texture[y, x + 1] * fx
    bottom = texture[y + 1, x] * (1 - fx) + texture[y + 1, x + 1] * fx
    return np.asarray((top * (1 - fy) + bottom * fy) * inside[:, None], np.float32)


def _grain_at(grain: Array, column: Array, row: Array) -> Array:
    """(n,) noise, mirrored beyond its border; linear between neighbours, at the strength that noise has on them: it
    neither jumps nor fades as it moves."""
    size = len(grain)
    j, i = column.astype(np.int64), row.astype(np.int64)
    fx, fy = (column - j).astype(np.float32), (row - i).astype(np.float32)

    def mirrored(number: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        number = number % (2 * size)
        return np.minimum(number, 2 * size - 1 - number)

    top, bottom = (
        grain[line, mirrored(j)] * (1 - fx) + grain[line, mirrored(j + 1)] * fx
        for line in (mirrored(i), mirrored(i + 1))
    )
    mean = top * (1 - fy) + bottom * fy
    return np.asarray(mean / np.sqrt(((1 - fx) ** 2 + fx**2) * ((1 - fy) ** 2 + fy**2)), np.float32)


def paint_mouth(
    image: npt.NDArray[np.uint8],
    box: tuple[int, int, int, int],
    columns: Array,
    scene: Scene,
    upper: Array,
    lower: Array,
    own: Array,
    grain: Array,
) -> None:
    """See `ditto.ops.paint_mouth`."""
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        return
    numbers: list[Any] = [np.asarray(value, np.float32) for value in scene]
    s = Scene(*numbers)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    x, y = x.ravel(), y.ravel()
    (ax, bx, cx), (ay, by, cy) = s.x_from_px, s.y_from_px
    x, y = ax * x + bx * y + cx, ay * x + by * y + cy
    position = (x - s.left) * s.columns_per_unit
    keep = np.flatnonzero((position >= 0) & (position < len(columns) - 1))
    x, y, position = x[keep], y[keep], position[keep]
    cell = position.astype(np.int64)
    part = (position - cell)[:, None].astype(np.float32)
    c = (columns[cell] * (1 - part) + columns[cell + 1] * part).T
    edges = [np.clip(d / s.edge_px + 0.5, 0, 1) for d in ((y - c[0]) * c[2], (c[1] - y) * c[3])]
    alpha = np.clip(edges[0] + edges[1] - 1, 0, 1) * c[Channel.SHOWN]
    seen = np.flatnonzero(alpha > 1e-3)
    keep, x, y, alpha, c = keep[seen], x[seen], y[seen], alpha[seen], c[:, seen]
    from_upper, from_lower = y - c[Channel.UPPER_LIP], c[Channel.LOWER_LIP] - y

    # Tongue: a soft dome, its tip in front and lit, its back dark.
    sideways = (x - s.tongue_middle) / s.tongue_half_width
    length = s.tongue_tip - s.tongue_back
    height = (y - (s.tongue_back + np.float32(0.55) * length * sideways * sideways)) / length
    body = _step(-0.15, 0.45, height) * _step(1.25, 0.70, np.abs(sideways))
    lit = (0.42 + 0.58 * _step(0.0, 1.1, height)) * (1 - 0.28 * sideways * sideways)
    groove = 1 - 0.10 * np.exp(-((sideways / 0.13) ** 2)) * _step(1.3, 0.3, height)
    weight = (body * lit * groove * s.tongue_light)[:, None]
    depth = (0.55 + 0.75 * np.clip(from_upper / s.widest, 0, 1))[:, None]
    out = s.cavity * depth * (1 - weight) + s.tongue * weight

    for texture, at in ((lower, Channel.LOWER_TEETH), (upper, Channel.UPPER_TEETH)):
        sample = _sample(texture, c[at], y * s.teeth_per_unit + c[at + 1])
        out = out * (1 - sample[:, 3:]) + sample[:, :3] * _tinted(c[at + 2], s.tint)
    if s.own_shade > 0:
        (au, bu, cu), (av, bv, cv) = s.own_column, s.own_row
        sample = _sample(own, au * x + bu * y + cu, av * x + bv * y + cv)
        out = out * (1 - sample[:, 3:]) + sample[:, :3] * _tinted(np.full(1, s.own_shade, np.float32), s.tint)

    # Lips shade what lies behind them; the upper one more, light comes from above. Little light enters a slit.
    shadow = (s.upper_shadow + (1 - s.upper_shadow) * _step(0, 1, from_upper / s.upper_reach)) * (
        s.lower_shadow + (1 - s.lower_shadow) * _step(0, 1, from_lower / s.lower_reach)
    )
    out = out * _tinted(shadow, s.tint) + s.cavity * (0.4 * (1 - shadow))[:, None]
    light = c[Channel.LIGHT]
    out = (
        out * _tinted(light, s.tint) + c[Channel.SEAM : Channel.SEAM + 3].T * ((1 - light) * (1 - 0.4 * light))[:, None]
    )

    # The lips' wet inner side rolls inwards instead of ending in a cut.
    for distance, roll, rim, darker in (
        (from_lower, c[Channel.LOWER_ROLL], Channel.LOWER_RIM, s.lower_roll_shade),
        (from_upper, c[Channel.UPPER_ROLL], Channel.UPPER_RIM, s.upper_roll_shade),
    ):
        inward = np.clip(distance / np.maximum(roll, 1e-4), 0, 1)
        lip = (1 - _step(0, 1, inward)) * np.clip(roll / 0.004, 0, 1)
        out = out * (1 - lip)[:, None] + c[rim : rim + 3].T * ((1 - darker * inward) * lip)[:, None]

    if s.grain > 0:
        across, down = np.abs(x * s.grain_per_unit), np.abs(y * s.grain_per_unit + 3 * len(grain))
        out = out + (_grain_at(grain, across, down) * s.grain)[:, None]

    pixels = image[top:bottom, left:right].reshape(-1, 3)
    before = pixels[keep].astype(np.float32)
    pixels = pixels.copy()
    pixels[keep] = np.clip(before + (out - before) * alpha[:, None] + 0.5, 0, 255).astype(np.uint8)
    image[top:bottom, left:right] = pixels.reshape(bottom - top, right - left, 3)


CORNER_REACH, CORNER_HALF = 0.13, 0.036  # face units: how far out, and how far above and below


def corner_box(
    image: npt.NDArray[np.uint8], corner: npt.NDArray[np.float64], direction: npt.NDArray[np.float64], scale: float
) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels `smooth_corner` may change."""
    axes = np.array([direction, [-direction[1], direction[0]]])
    ends = (
        corner + np.array([[a, b] for a in (-0.03, CORNER_REACH) for b in (-CORNER_HALF, CORNER_HALF)]) @ axes * scale
    )
    left, top = np.maximum(np.floor(ends.min(0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(ends.max(0)).astype(int) + 2, image.shape[1::-1])
    return int(left), int(top), int(right), int(bottom)


def smooth_corner(
    image: npt.NDArray[np.uint8],
    corner: npt.NDArray[np.float64],
    direction: npt.NDArray[np.float64],
    scale: float,
    amount: float,
) -> None:
    """See `ditto.ops.smooth_corner`."""
    left, top, right, bottom = corner_box(image, corner, direction, scale)
    if right <= left or bottom <= top:
        return
    height, width = image.shape[:2]
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    s, half = np.float32(scale), np.float32(CORNER_HALF)
    dx, dy = (x - np.float32(corner[0])) / s, (y - np.float32(corner[1])) / s
    ux, uy = np.float32(direction[0]), np.float32(direction[1])
    along, across = dx * ux + dy * uy, dy * ux - dx * uy
    weight = np.float32(amount) * _step(-0.020, 0.012, along) * _step(CORNER_REACH, 0.07, along)
    weight = weight * _step(CORNER_HALF, 0.014, np.abs(across))
    fills = []
    for end in (-half, half):
        shift = (end - across) * s
        px = np.clip(x - uy * shift, 0, np.float32(width - 1.001))
        py = np.clip(y + ux * shift, 0, np.float32(height - 1.001))
        j, i = px.astype(np.int64), py.astype(np.int64)
        fx, fy = (px - j)[..., None], (py - i)[..., None]
        fills.append(
            (image[i, j] * (1 - fx) + image[i, j + 1] * fx) * (1 - fy)
            + (image[i + 1, j] * (1 - fx) + image[i + 1, j + 1] * fx) * fy
        )
    share = np.clip(across / (2 * half) + np.float32(0.5), 0, 1)[..., None]
    fill = fills[0] * (1 - share) + fills[1] * share
    now = image[top:bottom, left:right].astype(np.float32)
    lifted = now + np.float32(0.85) * np.maximum(fill - now, 0) * weight[..., None]
    image[top:bottom, left:right] = np.clip(lifted + np.float32(0.5), 0, 255).astype(np.uint8)
