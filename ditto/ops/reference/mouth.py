"""The mouth's interior painted into a frame, in NumPy: the definition of the kernel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def _step(low: float, high: float, x: Array) -> Array:
    u = np.clip((x - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return u * u * (3 - 2 * u)


def _tinted(shade: Array, tint: Array) -> Array:
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


def paint_mouth(
    image: npt.NDArray[np.uint8],
    box: tuple[int, int, int, int],
    columns: Array,
    scene: Array,
    upper: Array,
    lower: Array,
    own: Array,
    grain: Array,
) -> None:
    """See `ditto.ops.paint_mouth`."""
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        return
    s = scene
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    x, y = x.ravel(), y.ravel()
    qx, qy = s[0] * x + s[1] * y + s[2], s[3] * x + s[4] * y + s[5]
    position = (qx - s[6]) * s[7]
    valid = (position >= 0) & (position < len(columns) - 1)
    keep = np.flatnonzero(valid)
    qx, qy, position = qx[keep], qy[keep], position[keep]
    cell = position.astype(np.int64)
    f = (position - cell)[:, None].astype(np.float32)
    c = (columns[cell] * (1 - f) + columns[cell + 1] * f).T
    y_upper, y_lower = c[0], c[1]
    softness = s[8]
    cover = np.clip((qy - y_upper) * c[2] / softness + 0.5, 0, 1) + np.clip(
        (y_lower - qy) * c[3] / softness + 0.5, 0, 1
    )
    alpha = np.clip(cover - 1, 0, 1) * c[4]
    seen = np.flatnonzero(alpha > 1e-3)
    if not len(seen):
        return
    keep, qx, qy, alpha, c = keep[seen], qx[seen], qy[seen], alpha[seen], c[:, seen]
    y_upper, y_lower = c[0], c[1]

    # Tongue: a soft dome, its tip in front and lit, its back dark.
    cavity, tongue, middle, tongue_top, tongue_tip, tongue_half = s[10:13], s[13:16], s[16], s[17], s[18], s[19]
    sideways = (qx - middle) / tongue_half
    dome = tongue_top + np.float32(0.55) * (tongue_tip - tongue_top) * sideways * sideways
    height = (qy - dome) / (tongue_tip - tongue_top)
    body = _step(-0.15, 0.45, height) * _step(1.25, 0.70, np.abs(sideways))
    lit = (0.42 + 0.58 * _step(0.0, 1.1, height)) * (1 - 0.28 * sideways * sideways)
    groove = 1 - 0.10 * np.exp(-((sideways / 0.13) ** 2)) * _step(1.3, 0.3, height)
    weight = (body * lit * groove * s[20])[:, None]
    depth = (0.55 + 0.75 * np.clip((qy - y_upper) / s[21], 0, 1))[:, None]
    out = cavity * depth * (1 - weight) + tongue * weight

    for texture, at, shade in ((lower, 9, c[11]), (upper, 6, c[8])):
        sample = _sample(texture, c[at], qy * s[9] + c[at + 1])
        out = out * (1 - sample[:, 3:]) + sample[:, :3] * _tinted(shade, s[37:40])
    if s[22] > 0:
        sample = _sample(own, s[23] * qx + s[24] * qy + s[25], s[26] * qx + s[27] * qy + s[28])
        out = out * (1 - sample[:, 3:]) + sample[:, :3] * _tinted(s[22:23], s[37:40])

    # Lips shade what lies behind them; the upper one more, light comes from above.
    from_upper, from_lower = qy - y_upper, y_lower - qy
    shadow = (s[29] + (1 - s[29]) * _step(0, 1, from_upper / s[30])) * (
        s[31] + (1 - s[31]) * _step(0, 1, from_lower / s[32])
    )
    out = out * _tinted(shadow, s[37:40]) + cavity * (0.4 * (1 - shadow))[:, None]
    light = c[5]
    out = out * _tinted(light, s[37:40]) + c[12:15].T * ((1 - light) * (1 - light))[:, None]

    # The lips' wet inner side rolls inwards instead of ending in a cut.
    for distance, thick, colour, shade in (
        (from_lower, c[21], c[15:18], s[33]),
        (from_upper, c[22], c[18:21], s[34]),
    ):
        inward = np.clip(distance / np.maximum(thick, 1e-4), 0, 1)
        roll = (1 - _step(0, 1, inward)) * np.clip(thick / 0.004, 0, 1)
        tint = 1 - shade * inward
        out = out * (1 - roll)[:, None] + colour.T * (tint * roll)[:, None]

    if s[35] > 0:
        size = len(grain)
        gx, gy = np.abs(qx * s[36]).astype(np.int64) % (2 * size), np.abs(qy * s[36] + 3 * size).astype(np.int64)
        gy %= 2 * size
        gx, gy = np.minimum(gx, 2 * size - 1 - gx), np.minimum(gy, 2 * size - 1 - gy)
        out = out + (grain[gy, gx] * s[35])[:, None]

    pixels = image[top:bottom, left:right].reshape(-1, 3)[keep].astype(np.float32)
    pixels = pixels + (out - pixels) * alpha[:, None]
    box_pixels = image[top:bottom, left:right].reshape(-1, 3).copy()
    box_pixels[keep] = np.clip(pixels + 0.5, 0, 255).astype(np.uint8)
    image[top:bottom, left:right] = box_pixels.reshape(bottom - top, right - left, 3)


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
