"""Piecewise affine warp in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

INSIDE = 1e-3  # a pixel this far (barycentric) outside a triangle still belongs to it: no cracks
DEGENERATE = 1e-6
JUMP = 2.0  # texture pixels per pixel above which nine samples are taken
STEPS = 256  # sampling positions are rounded to 1/256 pixel
CUBIC = -0.75  # bicubic sharpness, as OpenCV's


def _draw(points: F32, origin: F32, triangles: npt.NDArray[np.int32], destination: F32, source: F32) -> None:
    """Write the texture position of `points` (..., 2) into `origin` (..., 2), triangle by triangle."""
    for a, b, c in triangles:
        corner, u_edge, v_edge = destination[a], destination[b] - destination[a], destination[c] - destination[a]
        det = u_edge[0] * v_edge[1] - u_edge[1] * v_edge[0]
        if abs(det) < DEGENERATE:
            continue
        offset = points - corner
        u = (offset[..., 0] * v_edge[1] - offset[..., 1] * v_edge[0]) / det
        v = (offset[..., 1] * u_edge[0] - offset[..., 0] * u_edge[1]) / det
        inside = (u >= -INSIDE) & (v >= -INSIDE) & (u + v <= 1.0 + INSIDE)
        u, v = u[inside, None], v[inside, None]
        origin[inside] = source[a] + u * (source[b] - source[a]) + v * (source[c] - source[a])


def _jumps(origin: F32) -> npt.NDArray[np.bool_]:
    """(H, W): pixels next to a place where the map jumps."""
    marks = np.zeros(origin.shape[:2], bool)
    right = np.abs(np.diff(origin, axis=1)).max(-1) > JUMP
    below = np.abs(np.diff(origin, axis=0)).max(-1) > JUMP
    marks[:, :-1] |= right
    marks[:, 1:] |= right
    marks[:-1] |= below
    marks[1:] |= below
    return marks


def _cubic_weights(t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(...,) fractions -> (..., 4)."""
    a = CUBIC
    w0 = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a
    w1 = ((a + 2) * t - (a + 3)) * t * t + 1
    w2 = ((a + 2) * (1 - t) - (a + 3)) * (1 - t) ** 2 + 1
    return np.stack([w0, w1, w2, 1 - w0 - w1 - w2], -1)


def _sample_cubic(texture: U8, origin: F32) -> U8:
    height, width = texture.shape[:2]
    steps = np.rint(origin * STEPS).astype(np.int64)
    weights = _cubic_weights((steps % STEPS) / STEPS)
    taps = steps // STEPS
    taps = taps[..., None] + np.arange(-1, 3)  # (H, W, 2, 4)
    xs, ys = np.clip(taps[..., 0, :], 0, width - 1), np.clip(taps[..., 1, :], 0, height - 1)
    picked = texture[ys[..., :, None], xs[..., None, :]].astype(np.float64)  # (H, W, 4, 4, 4)
    value = np.einsum("hwj,hwi,hwjic->hwc", weights[..., 1, :], weights[..., 0, :], picked)
    return np.clip(np.rint(value), 0, 255).astype(np.uint8)


def _sample_linear(texture: U8, origin: F32) -> npt.NDArray[np.float64]:
    height, width = texture.shape[:2]
    xy = np.clip(origin.astype(np.float64), 0, (width - 1, height - 1))
    corner = np.minimum(xy.astype(np.int64), (width - 2, height - 2))
    fx, fy = ((xy - corner)[..., i, None] for i in (0, 1))
    x, y = corner[..., 0], corner[..., 1]
    t = texture.astype(np.float64)
    above = t[y, x] + fx * (t[y, x + 1] - t[y, x])
    below = t[y + 1, x] + fx * (t[y + 1, x + 1] - t[y + 1, x])
    return np.asarray(above + fy * (below - above))


def warp(texture: U8, triangles: npt.NDArray[np.int32], destination: F32, source: F32) -> tuple[U8, U8, F32]:
    """As `ditto.ops.warp`."""
    height, width = texture.shape[:2]
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    origin = pixels.copy()
    _draw(pixels, origin, triangles, destination, source)
    result = _sample_cubic(texture, origin)
    marks = _jumps(origin)
    if marks.any():
        third = np.float32(1.0 / 3.0)
        offsets = np.array([(x, y) for y in (-third, 0, third) for x in (-third, 0, third)], np.float32)
        points = pixels[marks][:, None] + offsets
        origins = np.repeat(origin[marks][:, None], len(offsets), 1)
        _draw(points, origins, triangles, destination, source)
        result[marks] = np.rint(_sample_linear(texture, origins).mean(1)).astype(np.uint8)
    return result[..., :3].copy(), result[..., 3].copy(), np.ascontiguousarray(origin.transpose(2, 0, 1))
