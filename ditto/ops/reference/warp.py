"""Piecewise affine warp in NumPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

INSIDE = 1e-3  # a pixel this far (barycentric) outside a triangle still belongs to it: no cracks
DEGENERATE = 1e-6
# From where, and from where on in full, a pixel is put together of samples:
JUMP = (2.0, 3.0)  # texture pixels per pixel
BREAK = (0.2, 0.45)  # change of that from one pixel to the next: the map breaks off, a surface ends here
STEPS = 256  # sampling positions are rounded to 1/256 pixel
CUBIC = -0.75  # bicubic sharpness, as OpenCV's


# Direct3D's standard pattern of 16 samples, 1/16 pixel: no two share a row or a column, so an edge of any direction
# passes them one after the other; moved by half a step, so that their mean is the pixel's centre.
_PATTERN = [
    (1, 1), (-1, -3), (-3, 2), (4, -1), (-5, -2), (2, 5), (5, 3), (3, -5),
    (-2, 6), (0, -7), (-4, -6), (-6, 4), (-8, 0), (7, -4), (6, 7), (-7, -8),
]  # fmt: skip
SAMPLES: F32 = ((np.array(_PATTERN) + 0.5) / 16).astype(np.float32)  # (16, 2) px


class Parts(NamedTuple):
    """What `warp` puts pixels together of, where the map breaks off or shrinks the texture.

    Attributes:
        pixels: (N,) y * width + x, ascending; a pixel has one part or more.
        places: (N, 2) px: where in the texture a part comes from.
        weights: (N,) in (0, 1]: of a pixel's parts, 1 together.
    """

    pixels: npt.NDArray[np.int32]
    places: F32
    weights: F32


class _Affines(NamedTuple):
    """Of each triangle, and last of the picture outside of all: `origin = start + (point - corner) @ matrix`."""

    corner: F32
    start: F32
    matrix: F32  # (N + 1, 2, 2)


def _ramp(limits: tuple[float, float], x: F32) -> F32:
    return np.asarray(np.clip((x - limits[0]) / (limits[1] - limits[0]), 0, 1), np.float32)


def _owners(points: F32, triangles: npt.NDArray[np.int32], destination: F32) -> npt.NDArray[np.int64]:
    """The last triangle that covers each of `points` (..., 2); where there is none, as many as there are triangles."""
    owners = np.full(points.shape[:-1], len(triangles))
    for number, (a, b, c) in enumerate(triangles):
        corner, u_edge, v_edge = destination[a], destination[b] - destination[a], destination[c] - destination[a]
        det = u_edge[0] * v_edge[1] - u_edge[1] * v_edge[0]
        if abs(det) < DEGENERATE:
            continue
        offset = points - corner
        u = (offset[..., 0] * v_edge[1] - offset[..., 1] * v_edge[0]) / det
        v = (offset[..., 1] * u_edge[0] - offset[..., 0] * u_edge[1]) / det
        owners[(u >= -INSIDE) & (v >= -INSIDE) & (u + v <= 1.0 + INSIDE)] = number
    return owners


def _affines(triangles: npt.NDArray[np.int32], destination: F32, source: F32) -> _Affines:
    corner, start = (np.concatenate([x[triangles[:, 0]], np.zeros((1, 2), np.float32)]) for x in (destination, source))
    matrix = np.tile(np.eye(2, dtype=np.float32), (len(triangles) + 1, 1, 1))
    for number, (a, b, c) in enumerate(triangles):
        (ux, uy), (vx, vy) = destination[b] - destination[a], destination[c] - destination[a]
        det = ux * vy - uy * vx
        if abs(det) >= DEGENERATE:
            inverse = np.array([[vy, -uy], [-vx, ux]], np.float32) / det
            matrix[number] = inverse @ np.stack([source[b] - source[a], source[c] - source[a]])
    return _Affines(corner, start, matrix)


def _origins(affines: _Affines, owners: npt.NDArray[np.int64], points: F32) -> F32:
    """Texture positions (..., 2) of `points` (..., 2) in their triangles."""
    offset = points - affines.corner[owners]
    moved: F32 = np.einsum("...i,...ij->...j", offset, affines.matrix[owners])
    return affines.start[owners] + moved


def _amount(origin: F32) -> F32:
    """(H, W) in [0, 1]: how far a pixel is put together of samples."""
    jumps, breaks = np.zeros((2, *origin.shape[:2]), np.float32)
    for axis in (0, 1):
        step = np.diff(origin, axis=axis)
        bend = np.abs(np.diff(step, axis=axis)).max(-1)
        step = np.abs(step).max(-1)
        before, after, inside = (
            (slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None), slice(1, -1))
        )
        jumps[before] = np.maximum(jumps[before], step)
        jumps[after] = np.maximum(jumps[after], step)
        breaks[inside] = np.maximum(breaks[inside], bend)
    return np.maximum(_ramp(JUMP, jumps), _ramp(BREAK, breaks))


def _cubic_weights(t: Floats) -> Floats:
    """(...,) fractions -> (..., 4)."""
    a = CUBIC
    w0 = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a
    w1 = ((a + 2) * t - (a + 3)) * t * t + 1
    w2 = ((a + 2) * (1 - t) - (a + 3)) * (1 - t) ** 2 + 1
    return np.stack([w0, w1, w2, 1 - w0 - w1 - w2], -1)


def _sample_cubic(texture: U8, origin: F32) -> Floats:
    """(..., 4) at texture positions (..., 2)."""
    height, width = texture.shape[:2]
    steps = np.rint(origin * STEPS).astype(np.int64)
    weights = _cubic_weights((steps % STEPS) / STEPS)
    taps = steps // STEPS
    taps = taps[..., None] + np.arange(-1, 3)  # (..., 2, 4)
    xs, ys = np.clip(taps[..., 0, :], 0, width - 1), np.clip(taps[..., 1, :], 0, height - 1)
    picked = texture[ys[..., :, None], xs[..., None, :]].astype(np.float64)
    value = np.einsum("...j,...i,...jic->...c", weights[..., 1, :], weights[..., 0, :], picked)
    return np.asarray(np.clip(value, 0, 255))


def _sample_linear(texture: U8, origin: F32) -> Floats:
    height, width = texture.shape[:2]
    xy = np.clip(origin.astype(np.float64), 0, (width - 1, height - 1))
    corner = np.minimum(xy.astype(np.int64), (width - 2, height - 2))
    fx, fy = ((xy - corner)[..., i, None] for i in (0, 1))
    x, y = corner[..., 0], corner[..., 1]
    t = texture.astype(np.float64)
    above = t[y, x] + fx * (t[y, x + 1] - t[y, x])
    below = t[y + 1, x] + fx * (t[y + 1, x + 1] - t[y + 1, x])
    return np.asarray(above + fy * (below - above))


def _from_samples(
    texture: U8, affines: _Affines, owners: npt.NDArray[np.int64], pixels: F32
) -> tuple[Floats, list[tuple[npt.NDArray[np.int64], F32, F32]]]:
    """(n, 4) of pixels (n, 2), each the mean of what the triangles at its 16 samples, `owners` (n, 16), show; and of
    which parts: row of the pixel (m,), place in the texture (m, 2), share of the samples (m,).

    A triangle is looked up once, in the middle of its samples, or at each of them where it shrinks the texture. So a
    pixel inside one triangle that shrinks nothing is the plain bicubic sample.
    """
    shrinking = _ramp(JUMP, np.abs(affines.matrix).max((1, 2)))
    total = np.zeros((len(pixels), 4))
    parts = []
    left = np.ones(owners.shape, bool)
    while left.any():
        rows = np.flatnonzero(left.any(1))
        owner = owners[rows, left[rows].argmax(1)]
        same = owners[rows] == owner[:, None]
        left[rows] &= ~same
        count = same.sum(1).astype(np.float32)
        middle = np.einsum("nk,ki->ni", same.astype(np.float32), SAMPLES) / count[:, None]
        places = _origins(affines, owner, pixels[rows] + middle)
        colour = _sample_cubic(texture, places)
        share = shrinking[owner]
        for n in np.flatnonzero(share):
            at = pixels[rows[n]] + SAMPLES[same[n]]
            each = _sample_linear(texture, _origins(affines, np.full(len(at), owner[n]), at))
            colour[n] += share[n] * (each.mean(0) - colour[n])
        total[rows] += colour * (count / len(SAMPLES))[:, None]
        parts.append((rows, places, count / np.float32(len(SAMPLES))))
    return total, parts


def warp(texture: U8, triangles: npt.NDArray[np.int32], destination: F32, source: F32) -> tuple[U8, U8, F32, Parts]:
    """As `ditto.ops.warp`."""
    height, width = texture.shape[:2]
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    affines = _affines(triangles, destination, source)
    origin = _origins(affines, _owners(pixels, triangles, destination), pixels)
    result = _sample_cubic(texture, origin)
    amount = _amount(origin)
    marked = amount > 0
    at, share = pixels[marked], amount[marked]
    owners = _owners(at[:, None] + SAMPLES, triangles, destination)
    whole, found = _from_samples(texture, affines, owners, at)
    result[marked] += share[:, None] * (whole - result[marked])
    drawn = np.rint(result).astype(np.uint8)

    rows = np.concatenate([*(rows for rows, _, _ in found), np.arange(len(at))])
    places = np.concatenate([*(places for _, places, _ in found), origin[marked]])
    weights = np.concatenate([*(share[rows] * part for rows, _, part in found), 1 - share])
    order = np.argsort(rows, kind="stable")
    order = order[weights[order] > 0]
    parts = Parts(np.flatnonzero(marked)[rows[order]].astype(np.int32), places[order], weights[order])
    return drawn[..., :3].copy(), drawn[..., 3].copy(), np.ascontiguousarray(origin.transpose(2, 0, 1)), parts


def carry(plane: U8, origin: F32, parts: Parts) -> U8:
    """As `ditto.ops.carry`."""
    value = _sample_cubic(plane[..., None], np.ascontiguousarray(origin.transpose(1, 2, 0))).ravel()
    value[parts.pixels] = 0.0
    np.add.at(value, parts.pixels, parts.weights * _sample_cubic(plane[..., None], parts.places)[:, 0])
    return np.rint(value).astype(np.uint8).reshape(plane.shape)
