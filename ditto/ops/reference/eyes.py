"""One eye drawn into a frame, in NumPy: the definition of the kernel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]  # float32; what NumPy says of its own results is less exact

CHANNELS = 16  # of an eye texture
COLUMNS = 13  # of its lid curves
SKIN, LID_MASK, BALL, KEEP, SCLERA, GLINT, IRIS, IRIS_ALPHA = 0, 3, 4, 7, 8, 11, 12, 15
LINE, LOWER, EDGE, LIFT, RISE, REST, LOW_MASK, THICKNESS, CORE, WIDTH, LASH = range(11)  # columns of the lid curves


class EyeView(NamedTuple):
    """How one eye is seen in one frame. Lengths in fu unless said otherwise.

    Attributes:
        box: x0, y0, x1, y1 px of the frame: what may change.
        to_source: (2, 6) frame px -> texture px: weights of 1, x, y, xx, xy, yy of (px - centre) / reach.
        centre: x, y px of the frame. reach: px.
        to_eye: (2, 3) texture px -> (xi, eta): xi runs from corner to corner, -.5 to .5 in the picture, eta down.
        down: frame px per fu of eta, (x, y).
        xi_limit: the curves' columns cover [-xi_limit, xi_limit].
        sharpness: frame px per fu.
        gain: 0 keeps the frame, 1 draws the eye.
        lid: 0 the lid is the frame's own, 1 it is drawn.
        bared, crease: how far the lashes have left the skin they stood before, and the crease over it has gone, 0 to 1.
        shut: how much of what shows below a closed lid turns to skin, 0 to 1.
        turn: 0 lashes stand up, 1 hang down. crisp: strength of the plain lash line, 0 to 1.
        gaze: texture px by which the iris moves, (x, y). layered: 0 the eyeball as in the source, 1 iris over sclera.
        hair: height of the lash strip.
        shadow: depth of the shade the lid throws on the eyeball. reach_up, reach_down: over which skin follows a lid.
    """

    box: tuple[int, int, int, int]
    to_source: npt.NDArray[np.float64]
    centre: tuple[float, float]
    reach: float
    to_eye: npt.NDArray[np.float64]
    down: tuple[float, float]
    xi_limit: float
    sharpness: float
    gain: float
    lid: float
    bared: float
    crease: float
    shut: float
    turn: float
    crisp: float
    gaze: tuple[float, float]
    layered: float
    hair: float
    shadow: float
    reach_up: float
    reach_down: float


GLINT_FOLLOWS = 0.35  # share of the gaze that the highlight on the cornea follows
HAIR_ZONE = 0.034  # fu above the source's lash line that its lashes may cover
HANGING = 0.75  # opacity of lashes that hang below a shut lid, per opacity of the same when they stand
SHADOW_DEPTH = 0.012  # fu below the lid over which its shade falls off


def _cubic(t: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Catmull-Rom weights of four neighbours for t in [0, 1)."""
    a = -0.5 * t * (1.0 - t) ** 2
    d = -0.5 * t * t * (1.0 - t)
    b = 1.0 + t * t * (1.5 * t - 2.5)
    return a, b, 1.0 - a - b - d, d


def _sample(texture: npt.NDArray[np.float32], x: Floats, y: Floats) -> Floats:
    """Bicubic sample of (h, w, c) at pixel positions (n,), edges repeated -> (n, c)."""
    h, w = texture.shape[:2]
    x = np.clip(x, 0.0, w - 1.0).astype(np.float32)
    y = np.clip(y, 0.0, h - 1.0).astype(np.float32)
    ix, iy = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    wx, wy = _cubic(x - ix.astype(np.float32)), _cubic(y - iy.astype(np.float32))
    out = np.zeros((len(x), texture.shape[2]), np.float32)
    for j in range(4):
        row = np.clip(iy + (j - 1), 0, h - 1)
        line = np.zeros_like(out)
        for i in range(4):
            line += wx[i][:, None] * texture[row, np.clip(ix + (i - 1), 0, w - 1)]
        out += wy[j][:, None] * line
    return out


def _linear(table: Floats, position: Floats) -> Floats:
    """Linear look-up of rows of (n, k) at positions (m,), held inside -> (m, k)."""
    p = np.clip(position, 0.0, len(table) - 1.0).astype(np.float32)
    i = np.minimum(p.astype(np.int64), len(table) - 2)
    t = (p - i.astype(np.float32))[:, None]
    value: Floats = table[i] + t * (table[i + 1] - table[i])
    return value


def _strip(strip: Floats, height: float, column: Floats, up: Floats) -> Floats:
    """Bilinear look-up of the lash strip (m, n) at column numbers and heights (fu)."""
    row = np.clip(up * np.float32((len(strip) - 1) / height), 0.0, len(strip) - 1.0)
    column = np.clip(column, 0.0, strip.shape[1] - 1.0)
    r0, c0 = np.minimum(row.astype(np.int64), len(strip) - 2), np.minimum(column.astype(np.int64), strip.shape[1] - 2)
    fr: Floats = (row - r0).astype(np.float32)
    fc: Floats = (column - c0).astype(np.float32)
    top = strip[r0, c0] + fc * (strip[r0, c0 + 1] - strip[r0, c0])
    bottom = strip[r0 + 1, c0] + fc * (strip[r0 + 1, c0 + 1] - strip[r0 + 1, c0])
    return np.asarray(top + fr * (bottom - top))


def _smooth(x: Floats) -> Floats:
    u = np.clip(x, 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def draw_eye(
    image: npt.NDArray[np.uint8],
    texture: npt.NDArray[np.float32],
    curves: npt.NDArray[np.float32],
    strip: npt.NDArray[np.float32],
    view: EyeView,
) -> None:
    """Draws one eye into a frame, in place.

    Above the lid line lies the frame's own skin, replaced by lid skin where the eye or its lashes were; between the
    lid line and the lower lid the eyeball; below, the frame's own skin drawn up with the lower lid; on the line the
    lashes.

    Args:
        image: (H, W, 3) the frame, already warped.
        texture: (h, w, 16) in source pixels: lid skin 3, where it replaces skin 1, eyeball as in the source 3, where
            the frame may change 1, sclera 3, highlight 1, iris 3, iris alpha 1.
        curves: (n, 13) over xi: lid line, lower lid, upper edge of the source's lashes, lift of the skin over the lid,
            rise of the skin below, lid line at rest, where leaks below turn to skin, thickness of the lash line,
            opacity and width of the line of a shut eye, colour of the lashes 3.
        strip: (m, n) opacity of the lashes at 0 ... `view.hair` above the lid line, over xi.
    """
    x0, y0, x1, y1 = view.box
    if x1 <= x0 or y1 <= y0 or view.gain <= 0.0:
        return
    ys, xs = np.mgrid[y0:y1, x0:x1].reshape(2, -1).astype(np.float32)
    px, py = (xs - np.float32(view.centre[0])) / view.reach, (ys - np.float32(view.centre[1])) / view.reach
    basis = np.stack([np.ones_like(px), px, py, px * px, px * py, py * py])
    sx, sy = (view.to_source.astype(np.float32) @ basis).astype(np.float32)
    m = view.to_eye.astype(np.float32)
    xi = m[0, 0] * sx + m[0, 1] * sy + m[0, 2]
    eta = m[1, 0] * sx + m[1, 1] * sy + m[1, 2]
    h, w = texture.shape[:2]
    inside = (sx >= 0) & (sy >= 0) & (sx <= w - 1) & (sy <= h - 1) & (np.abs(xi) < view.xi_limit)
    take = np.flatnonzero(inside)
    if not len(take):
        return
    xs, ys, sx, sy, xi, eta = (a[take] for a in (xs, ys, sx, sy, xi, eta))
    column = (xi + np.float32(view.xi_limit)) * np.float32((len(curves) - 1) / (2.0 * view.xi_limit))
    c = _linear(curves, column)
    tex = _sample(texture, sx, sy)
    keep = np.clip(tex[:, KEEP], 0.0, 1.0) * np.float32(view.gain)

    sharp = np.float32(view.sharpness)
    below_line = np.clip(0.5 + (eta - c[:, LINE]) * sharp, 0.0, 1.0)
    below_lower = np.clip(0.5 + (eta - c[:, LOWER]) * sharp, 0.0, 1.0)

    # The frame's own skin, moved with the lids: with the lower one below the middle of the opening, where the skin is
    # hidden, or, with the lids shut, on the line where they meet.
    d_up, d_down = c[:, LINE] - eta, eta - c[:, LOWER]
    rise = c[:, RISE] * (1.0 - _smooth(d_down / np.float32(view.reach_down)))
    lift = c[:, LIFT] * (1.0 - _smooth(d_up / np.float32(view.reach_up)))
    below = np.clip(0.5 + 0.5 * (d_down - d_up) * sharp, 0.0, 1.0)
    shift = (lift + (rise - lift) * below).astype(np.float32)
    frame = image.astype(np.float32)
    own = frame[ys.astype(np.int64), xs.astype(np.int64)]
    moved = np.abs(shift) > np.float32(1e-6)
    skin_own = own.copy()
    skin_own[moved] = _sample(
        frame, xs[moved] + shift[moved] * np.float32(view.down[0]), ys[moved] + shift[moved] * np.float32(view.down[1])
    )
    mask = np.clip(tex[:, LID_MASK], 0.0, 1.0)
    above_edge = eta - c[:, EDGE]
    hairy = _smooth((above_edge + np.float32(HAIR_ZONE)) / np.float32(0.3 * HAIR_ZONE))
    gone = np.float32(view.crease) + hairy * np.float32(view.bared - view.crease)
    gone = gone + (1.0 - gone) * _smooth(above_edge / np.float32(0.004) + np.float32(0.5))
    lid_weight = mask * gone * np.float32(view.lid)
    low_weight = np.clip(mask * c[:, LOW_MASK], 0.0, 1.0) * np.float32(view.shut)
    lid_skin = tex[:, SKIN : SKIN + 3]
    upper = skin_own + (lid_skin - skin_own) * lid_weight[:, None]
    lower = skin_own + (lid_skin - skin_own) * low_weight[:, None]

    # The eyeball.
    ball = tex[:, BALL : BALL + 3]
    if view.layered > 0.0:
        gx, gy = np.float32(view.gaze[0]), np.float32(view.gaze[1])
        turned = _sample(texture, sx - gx, sy - gy)
        alpha = np.clip(turned[:, IRIS_ALPHA], 0.0, 1.0)[:, None]
        eye = tex[:, SCLERA : SCLERA + 3] * (1.0 - alpha) + turned[:, IRIS : IRIS + 3] * alpha
        follow = np.float32(GLINT_FOLLOWS)
        eye = eye + _sample(texture, sx - gx * follow, sy - gy * follow)[:, GLINT : GLINT + 1] * alpha
        ball = ball + (eye - ball) * np.float32(view.layered)
    now = np.exp(-np.maximum(eta - c[:, LINE], 0.0) / np.float32(SHADOW_DEPTH))
    rest = np.exp(-np.maximum(eta - c[:, REST], 0.0) / np.float32(SHADOW_DEPTH))
    ball = ball * (1.0 - np.float32(view.shadow) * np.maximum(now - rest, 0.0))[:, None]

    # What the line covers of a pixel and what lies below the lower lid: the eyeball has the rest.
    covered = np.minimum(below_line, below_lower)[:, None]
    open_part = np.maximum(below_line - below_lower, 0.0)[:, None]
    out = upper + (ball - upper) * open_part + (lower - upper) * covered

    # Lashes: line and hairs above the lid's margin; as the lid shuts the hairs swing below it.
    d = eta - c[:, LINE]
    thick = c[:, THICKNESS]
    turn = np.float32(view.turn)
    standing = _strip(strip, view.hair, column, np.maximum(-d, 0.0))
    width = c[:, WIDTH]
    shut_line = c[:, CORE] * _smooth((d + 1.25 * width) / np.maximum(0.7 * width, 1.0 / sharp))
    standing = np.maximum(standing * (1.0 - turn), shut_line * np.float32(view.crisp))
    standing = standing * np.clip(0.8 - d * sharp * 0.7, 0.0, 1.0)
    hanging = _strip(strip, view.hair, column, thick + np.maximum(d, 0.0)) * np.float32(HANGING) * turn
    hanging = hanging * np.clip(0.5 + d * sharp, 0.0, 1.0)
    opacity = np.clip(np.maximum(standing, hanging), 0.0, 1.0)[:, None] * np.float32(view.lid)
    out = out + (c[:, LASH : LASH + 3] - out) * opacity

    out = own + (out - own) * keep[:, None]
    image[ys.astype(np.int64), xs.astype(np.int64)] = np.floor(np.clip(out, 0.0, 255.0) + 0.5).astype(np.uint8)
