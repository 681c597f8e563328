"""A rendered crop put back into its picture, in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

CELL = 8  # crop pixels; how far the crop has moved is judged in cells of this size
QUIET, BUSY = 0.6, 3.0  # levels of mean difference: below, the picture's own fine detail stays; above, it goes


def difference(
    rendered: npt.NDArray[np.uint8], source: npt.NDArray[np.uint8], ramp: F32
) -> npt.NDArray[np.int16]:
    """(S, S, C): rendered minus source, faded by `ramp` (2, S): across and down."""
    d = rendered.astype(np.float32) - source.astype(np.float32)
    faded: F32 = d * (ramp[1][:, None] * ramp[0])[..., None]
    return np.rint(faded).astype(np.int16)


def activity(d: npt.NDArray[np.int16]) -> F32:
    """(cells, cells) in [0, 1] of a difference (S, S, C): 1 where it is busy; neighbours of a busy cell count."""
    cells, channels = d.shape[0] // CELL, d.shape[2]
    blocks = np.abs(d[: cells * CELL, : cells * CELL].astype(np.float32)).reshape(cells, CELL, cells, CELL * channels)
    level = np.pad(blocks.mean((1, 3)), 1)
    window = np.lib.stride_tricks.sliding_window_view
    level = np.pad(window(level, (3, 3)).max((2, 3)), 1, mode="edge")
    level = window(level, (3, 3)).mean((2, 3))
    u = np.clip((level - QUIET) / (BUSY - QUIET), 0, 1)
    return np.asarray(u * u * (3 - 2 * u), np.float32)


def cubic(part: F32) -> F32:
    """(4, ...) weights of the four samples around a position `part` behind the second (Catmull-Rom)."""
    t = part
    return np.stack([
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    ]).astype(np.float32)  # fmt: skip


def sample(values: F32, u: F32, v: F32) -> F32:
    """(..., C) bicubic samples of (H, W, C) at x = u, y = v; zero beyond the border."""
    height, width = values.shape[:2]
    padded = np.pad(values, ((2, 2), (2, 2), (0, 0)))
    inside = (u > -2) & (u < width + 1) & (v > -2) & (v < height + 1)
    u, v = np.clip(u, -1.999, width + 0.999), np.clip(v, -1.999, height + 0.999)
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    across, down = cubic((u - left).astype(np.float32)), cubic((v - top).astype(np.float32))
    out = np.zeros((*u.shape, values.shape[2]), np.float32)
    for j in range(4):
        rows = np.clip(top + j + 1, 0, height + 3)
        line = sum(across[i][..., None] * padded[rows, np.clip(left + i + 1, 0, width + 3)] for i in range(4))
        out += down[j][..., None] * line
    kept: F32 = out * inside[..., None]
    return kept


def paste_back(
    picture: npt.NDArray[np.uint8],
    source: npt.NDArray[np.uint8],
    rendered: npt.NDArray[np.uint8],
    ramp: F32,
    to_crop: npt.NDArray[np.float64],
    corner: tuple[int, int],
    size: tuple[int, int],
    detail: npt.NDArray[np.int16] | None,
    reduce: int,
) -> npt.NDArray[np.uint8]:
    """As `ditto.ops.paste_back`."""
    frame = picture.copy()
    d = difference(rendered, source, ramp)
    if not d.any():
        return frame
    (x0, y0), (width, height) = corner, size
    x = np.arange(x0, x0 + width, dtype=np.float32)
    y = np.arange(y0, y0 + height, dtype=np.float32)[:, None]
    a = to_crop.astype(np.float32)
    u = a[0, 0] * x + a[0, 1] * y + a[0, 2]
    v = a[1, 0] * x + a[1, 1] * y + a[1, 2]
    n = d.shape[0] // reduce
    small = d[: n * reduce, : n * reduce].astype(np.float32).reshape(n, reduce, n, reduce, -1).mean((1, 3))
    change = sample(small, (u + 0.5) / reduce - 0.5, (v + 0.5) / reduce - 0.5)
    if detail is not None:
        busy = activity(d)
        cells = busy.shape[0]
        at_x, at_y = (np.clip((w + 0.5) / CELL - 0.5, 0, cells - 1) for w in (u, v))
        left, top = (np.clip(w.astype(int), 0, max(cells - 2, 0)) for w in (at_x, at_y))
        right, bottom = np.minimum(left + 1, cells - 1), np.minimum(top + 1, cells - 1)
        across, down = (at_x - left)[..., None], (at_y - top)[..., None]
        upper = busy[top, left, None] * (1 - across) + busy[top, right, None] * across
        lower = busy[bottom, left, None] * (1 - across) + busy[bottom, right, None] * across
        change -= (upper * (1 - down) + lower * down) * detail
    part = frame[y0 : y0 + height, x0 : x0 + width]
    part[:] = np.clip(np.floor(part + change + 0.5), 0, 255).astype(np.uint8)
    return frame
