"""The lids of one portrait: where they are in the picture, how they move, what a closed one looks like.

Each eye has its own frame: xi from corner to corner, -.5 to .5 from left to right in the picture, eta down across it
in fu. Lids are curves eta(xi).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.motion import LOWER_LID
from ditto.rendering.geometry import EYES, LEFT_EYE, RIGHT_EYE, EyeIds, Geometry, smoothstep

Floats = npt.NDArray[np.float64]

XI_LIMIT = 0.80
COLUMNS = 129
XI: Floats = np.linspace(-XI_LIMIT, XI_LIMIT, COLUMNS)
UPPER_SHARE = 0.88  # of the aperture is closed by the upper lid, the rest by the lower
OUTER_REACH, INNER_REACH = 0.57, 0.53  # |xi| where the lids really meet; the landmarks' corners stand inside
LID_LIGHT, LID_TINT = 0.40, 0.75  # how far a closed lid goes from the dull strip above the lashes to the face's skin
TUCK = 0.007  # fu by which a shut upper lid overlaps the lower one's wet rim
LUMA: Floats = np.array([0.299, 0.587, 0.114])

_APERTURE_FLOOR = 0.6  # of the gap of the middle landmarks: guards against a mismeasured keypoint aperture
_CLOSURE_RANGE = (-0.45, 1.0)
_SNAP = (0.60, 0.92)  # a lid that nearly closes, closes
_LOWER_RANGE = (-0.35, 0.25)  # of the gap
_RING_FOLLOWS = 0.35


def closures(geometry: Geometry, delta: Floats) -> Floats:
    """Closing fraction of the right and left lid, (2,): 0 as in the source, 1 shut, below 0 wider.

    Args:
        delta: (21, 3) fu, head frame. A blink sends the upper-lid keypoint down by the aperture.
    """
    out = np.zeros(2)
    for i, eye in enumerate(EYES):
        middle = geometry.canonical[eye.lower[4], 1] - geometry.canonical[eye.upper[4], 1]
        aperture = geometry.keypoints[LOWER_LID, 1] - geometry.keypoints[eye.lid_keypoint, 1]
        aperture = max(aperture, _APERTURE_FLOOR * max(middle, 1e-3))
        b = np.clip((delta[eye.lid_keypoint, 1] - delta[LOWER_LID, 1]) / aperture, *_CLOSURE_RANGE)
        out[i] = b + (1.0 - b) * smoothstep(*_SNAP, b) if b > 0.0 else b
    return out


def move_lids(geometry: Geometry, delta: Floats, displacement: Floats) -> tuple[Floats, Floats]:
    """Takes the lids out of the mesh's motion and says how far they close.

    Lids are not stretched skin: `draw_eyes` paints them over the warped picture. So the mesh keeps the lid contours
    still against the head and lets the ring around them follow the brows a little. Spectacle rims stay straight.

    Args:
        delta: (21, 3) fu, head frame, clamped.
        displacement: (478, 3) fu, head frame, of the mesh.

    Returns:
        (478, 3) displacement, (2,) closing fractions right, left.
    """
    moved = displacement.copy()
    for eye in EYES:
        moved[eye.upper + eye.lower] = 0.0
        moved[eye.upper_ring] *= _RING_FOLLOWS
    return moved, closures(geometry, delta)


class EyeFrame(NamedTuple):
    """Crop pixels <-> (xi, eta) of one eye. `outer` is the sign of xi at the outer corner."""

    centre: Floats  # (2,) px
    along: Floats  # (2,) unit
    down: Floats  # (2,) unit
    width_px: float
    scale_px: float
    outer: float

    def to_eye(self, points: Floats) -> Floats:
        """(..., 2) px -> (..., 2) xi, eta."""
        d = points - self.centre
        return np.stack([d @ self.along / self.width_px, d @ self.down / self.scale_px], -1)

    def to_pixels(self, xi: Floats, eta: Floats) -> Floats:
        """xi, eta (...,) -> (..., 2) px."""
        along, down = self.along * self.width_px, self.down * self.scale_px
        return self.centre + xi[..., None] * along + eta[..., None] * down

    @property
    def matrix(self) -> Floats:
        """(2, 3): px column (x, y, 1) -> xi, eta."""
        rows = np.stack([self.along / self.width_px, self.down / self.scale_px])
        return np.concatenate([rows, -(rows @ self.centre)[:, None]], 1)


def eye_frame(geometry: Geometry, eye: EyeIds) -> EyeFrame:
    """The frame of an eye of the source."""
    a, b = geometry.landmarks[eye.upper[0], :2], geometry.landmarks[eye.upper[-1], :2]
    outer = -1.0 if a[0] <= b[0] else 1.0
    if outer > 0:
        a, b = b, a
    width = max(float(np.hypot(*(b - a))), 1.0)
    along = (b - a) / width
    return EyeFrame((a + b) / 2, along, np.array([-along[1], along[0]]), width, geometry.scale_px, outer)


class LidCurves(NamedTuple):
    """Lids of the source over `XI`, fu of eta.

    Attributes:
        edge: (n,) upper edge of the lash line: skin above, lashes below.
        upper: (n,) margin of the upper lid: lashes above, eyeball below.
        lower: (n,) margin of the lower lid.
        inside: (n,) 1 between the corners, 0 beyond, soft.
        thickness: of the lash line, fu.
    """

    edge: Floats
    upper: Floats
    lower: Floats
    inside: Floats
    thickness: float


def blur_rows(values: Floats, sigma: float, axis: int = 0) -> Floats:
    """Gaussian blur along one axis, normalised at the borders."""
    if sigma <= 0.0:
        return values
    n = values.shape[axis]
    i = np.arange(n)
    kernel = np.exp(-0.5 * ((i[:, None] - i) / sigma) ** 2)
    kernel /= kernel.sum(1, keepdims=True)
    return np.moveaxis(np.tensordot(kernel, values, (1, axis)), 0, axis)


def blur(image: Floats, sigma: float) -> Floats:
    """Gaussian blur of (h, w[, c]) in both directions."""
    return blur_rows(blur_rows(image, sigma, 0), sigma, 1)


def sample_linear(image: Floats, points: Floats) -> Floats:
    """Bilinear sample of (h, w[, c]) at (..., 2) px, edges repeated."""
    h, w = image.shape[:2]
    x, y = np.clip(points[..., 0], 0, w - 1), np.clip(points[..., 1], 0, h - 1)
    ix, iy = np.minimum(x.astype(np.int64), w - 2), np.minimum(y.astype(np.int64), h - 2)
    fx, fy = x - ix, y - iy
    if image.ndim == 3:
        fx, fy = fx[..., None], fy[..., None]
    top = image[iy, ix] * (1 - fx) + image[iy, ix + 1] * fx
    bottom = image[iy + 1, ix] * (1 - fx) + image[iy + 1, ix + 1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy)


def corner_taper(frame: EyeFrame, xi: Floats, soft: float, beyond: float = 0.0) -> Floats:
    """1 between the corners of the eye (shifted outward by `beyond`), 0 past them, over `soft` of xi."""
    out = xi * frame.outer  # > 0 on the outer side
    reach = np.where(out > 0, OUTER_REACH, INNER_REACH) + beyond
    return smoothstep(0.0, soft, reach - np.abs(xi))


def fit_lids(luma: Floats, geometry: Geometry, eye: EyeIds, frame: EyeFrame) -> LidCurves:
    """Finds the lids in the picture, starting from the landmarks.

    The landmarks' contour often runs inside the eye (far inside for large painted ones). The upper lash line is the
    best path of bright-above-dark through the neighbourhood of the landmarks (dynamic programming); the lower
    lid goes down to where a bright eye white ends.

    Args:
        luma: (S, S) crop, 0 to 255.
    """
    up = frame.to_eye(geometry.landmarks[eye.upper, :2])
    low = frame.to_eye(geometry.landmarks[eye.lower, :2])
    order = np.argsort(up[:, 0])

    def spread(points: Floats) -> Floats:
        """A landmark contour over XI; the corners are moved out to where the lids really meet."""
        p = points[order]
        out = p[:, 0] * frame.outer
        reach = np.where(out > 0, OUTER_REACH, INNER_REACH) / 0.5
        x = p[:, 0] * (1.0 + (reach - 1.0) * (2.0 * np.abs(p[:, 0])) ** 3)
        curve = np.interp(XI, x, p[:, 1])
        return blur_rows(curve, 2.5)

    upper0, lower0 = spread(up), spread(low)
    # Box difference: brightness just above minus darkness just below.
    smooth = blur(luma, 0.0035 * frame.scale_px)

    def drop(rows: Floats, reach: float) -> tuple[Floats, Floats]:
        """How much darker it gets across `rows` (m, n) of eta, and how bright it is above them."""
        means = []
        for sign in (-1.0, 1.0):
            steps = [frame.to_pixels(np.broadcast_to(XI, rows.shape), rows + sign * reach * k) for k in (0.5, 1.0, 1.5)]
            means.append(np.mean([sample_linear(smooth, q) for q in steps], 0))
        return means[0] - means[1], means[0]

    offsets = np.arange(-0.052, 0.0165, 0.001)
    contrast, above = drop(upper0 + offsets[:, None], 0.007)
    skin_level = max(float(np.median(above)), 20.0)
    inner = corner_taper(frame, XI, 0.25, 0.0)
    prior = ((offsets + 0.012) / 0.030) ** 2
    score = np.clip(contrast / skin_level, -0.2, 0.6) * (0.15 + 0.85 * inner) - 0.10 * prior[:, None]
    edge = upper0 + _path(score, offsets, 4, -0.010)

    offsets = np.arange(-0.010, 0.0355, 0.001)
    contrast, above = drop(lower0 + offsets[:, None], 0.006)
    white = smoothstep(0.9, 1.15, above / skin_level)
    prior = (offsets / 0.016) ** 2
    seen = white * corner_taper(frame, XI, 0.2, -0.05)
    score = np.clip(contrast / skin_level, -0.1, 0.5) * seen - 0.06 * prior[:, None]
    lower = lower0 + _path(score, offsets, 2, 0.0)

    thickness = _lash_thickness(luma, geometry, eye, frame, edge, lower)
    # The lids meet at the corners.
    inside = corner_taper(frame, XI, 0.06, 0.02)
    upper = edge + thickness * (0.4 + 0.6 * corner_taper(frame, XI, 0.25))
    upper = lower - np.maximum(lower - upper, 0.004) * corner_taper(frame, XI, 0.10, 0.02)
    edge = np.minimum(edge, upper - 0.4 * thickness)
    return LidCurves(edge, upper, lower, inside, thickness)


def _lash_thickness(
    luma: Floats, geometry: Geometry, eye: EyeIds, frame: EyeFrame, edge: Floats, lower: Floats
) -> float:
    """Thickness (fu) of the dark line under `edge`, measured where eye white lies under it."""
    iris = frame.to_eye(geometry.landmarks[eye.iris : eye.iris + 5, :2])
    radius = float(np.abs(iris[1:, 0] - iris[0, 0]).max())
    aside = (np.abs(XI - iris[0, 0]) > 1.1 * radius) & (np.abs(XI) < 0.40)
    depth = np.arange(0.0, 0.036, 0.001)
    run = sample_linear(luma, frame.to_pixels(np.broadcast_to(XI, (len(depth), COLUMNS)), edge + depth[:, None]))
    found = []
    for j in np.flatnonzero(aside):
        column = run[: max(int((lower[j] - edge[j]) * 1000.0), 8), j]
        dark = int(column[:20].argmin())
        white = float(column[dark:].max())
        if white - column[dark] > 15.0:
            found.append(dark + int(np.argmax(column[dark:] > (white + column[dark]) / 2)))
    return float(np.clip(0.001 * (np.median(found) - 1.0), 0.007, 0.020)) if len(found) >= 5 else 0.010


def _path(score: Floats, offsets: Floats, order: int, at_corners: float) -> Floats:
    """Offsets (n,) along the smooth path of greatest sum through score (m, n).

    The best path is found by dynamic programming and replaced by a polynomial through most of it, and through
    `at_corners` at the corners: a lid has no bumps.
    """
    m, n = score.shape
    step = 2
    penalty = 0.02
    best = score[:, 0].copy()
    back = np.zeros((m, n), np.int64)
    for j in range(1, n):
        moves = np.full((2 * step + 1, m), -np.inf)
        for k in range(-step, step + 1):
            lo, hi = max(0, -k), min(m, m - k)
            moves[k + step, lo:hi] = best[lo + k : hi + k] - penalty * abs(k)
        choice = moves.argmax(0)
        back[:, j] = np.arange(m) + choice - step
        best = moves.max(0) + score[:, j]
    path = np.zeros(n, np.int64)
    path[-1] = int(best.argmax())
    for j in range(n - 1, 0, -1):
        path[j - 1] = back[path[j], j]
    found = offsets[path]
    basis = (XI[:, None] / 0.6) ** np.arange(order + 1)
    trust = np.where(np.abs(XI) < 0.46, 1.0, 0.0)
    pinned = (np.abs(XI) > 0.50) & (np.abs(XI) < 0.60)
    found = np.where(pinned, at_corners, found)
    fit = found
    weights = trust + pinned
    for _ in range(12):
        w = np.sqrt(weights)[:, None]
        fit = basis @ np.linalg.lstsq(basis * w, found * w[:, 0], rcond=None)[0]
        weights = np.where(pinned, 1.0, trust / (1.0 + ((found - fit) / 0.003) ** 2))
    return np.asarray(np.clip(fit, offsets[0], offsets[-1]))


def glasses(luma: Floats, geometry: Geometry) -> float:
    """How surely spectacles are worn, 0 to 1: a line across the bridge of the nose, even over its width.

    Args:
        luma: (S, S) crop, 0 to 255.
    """
    top, bottom = geometry.landmarks[9, :2], geometry.landmarks[195, :2]
    across = geometry.landmarks[LEFT_EYE.upper[-1], :2] - geometry.landmarks[RIGHT_EYE.upper[-1], :2]
    across = across / max(float(np.hypot(*across)), 1e-6)
    rows = 96
    aside = np.linspace(-0.03, 0.03, 13)[:, None] * geometry.scale_px * across
    points = top + np.linspace(0.0, 1.0, rows)[:, None, None] * (bottom - top) + aside
    bridge = sample_linear(blur(luma, 0.003 * geometry.scale_px), points)
    length = float(np.hypot(*(bottom - top))) / geometry.scale_px
    line = bridge - blur_rows(bridge, 0.022 * rows / max(length, 0.02))
    even = max(float(-np.quantile(line, 0.8, 1).min()), float(np.quantile(line, 0.2, 1).max()))
    return float(smoothstep(0.055, 0.10, even / max(float(np.median(bridge)), 20.0)))


def softness(luma: Floats) -> float:
    """Blur of a picture's sharpest edges, px sigma: how much they lose when blurred once more by 1 px."""
    steepness = []
    for image in (luma, blur(luma, 1.0)):
        dy, dx = np.gradient(image)
        steepness.append(np.hypot(dx, dy))
    edges = steepness[0] >= np.quantile(steepness[0], 0.95)
    ratio = float(steepness[0][edges].sum() / max(float(steepness[1][edges].sum()), 1e-6))
    return float(np.clip(1.0 / np.sqrt(max(ratio**2 - 1.0, 1e-6)), 0.4, 4.0))


class LidSkin(NamedTuple):
    """A closed lid over the patch of an eye.

    Attributes:
        skin: (h, w, 3) the patch with eye and lashes replaced by lid skin, 0 to 255.
        mask: (h, w) how much of it is new.
        clean: (h, w, 3) the smooth skin without relief and grain.
    """

    skin: Floats
    mask: Floats
    clean: Floats


def fill_smooth(values: Floats, weights: Floats, rounds: int = 40) -> Floats:
    """Fills (h, w, c) smoothly from where weights (h, w) are high: push-pull, then relaxation where unknown."""
    w = np.clip(weights, 0.0, 1.0)
    levels = [(values * w[..., None], w)]
    while min(levels[-1][1].shape) > 2:
        levels.append(tuple(_halve(a) for a in levels[-1]))  # type: ignore[arg-type]
    top, total = levels[-1]
    out = np.full_like(top, 0.0) + top.sum((0, 1)) / max(float(total.sum()), 1e-6)
    for acc, total in reversed(levels):
        h, width = total.shape
        big = np.repeat(np.repeat(out, 2, 0), 2, 1)[:h, :width]
        big = _tent(big)
        known = acc / np.maximum(total, 1e-6)[..., None]
        share = np.clip(total * 4.0, 0.0, 1.0)[..., None] if h < weights.shape[0] else total[..., None]
        out = big + (known - big) * share
    free = (1.0 - w)[..., None]
    for _ in range(rounds):
        out = out + free * (_tent(out) - out)
    return out


def _halve(a: Floats) -> Floats:
    h, w = a.shape[:2]
    pad = [(0, h % 2), (0, w % 2)] + [(0, 0)] * (a.ndim - 2)
    a = np.pad(a, pad)
    return (a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]) / 4


def _tent(a: Floats) -> Floats:
    """3 x 3 binomial blur, edges repeated."""
    p = np.pad(a, [(1, 1)] + [(0, 0)] * (a.ndim - 1), mode="edge")
    a = (p[:-2] + 2 * p[1:-1] + p[2:]) / 4
    p = np.pad(a, [(0, 0), (1, 1)] + [(0, 0)] * (a.ndim - 2), mode="edge")
    return (p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]) / 4


def lid_skin(
    patch: Floats, xi: Floats, eta: Floats, frame: EyeFrame, lids: LidCurves, rims: float
) -> LidSkin:
    """Synthesises the closed lid of one eye.

    Smooth skin is carried over the eye from the skin around it (twice: the second time without lashes and leaks that
    differ from the first fill), shaded as a lid bulges over the eyeball, and given the source's own grain.

    Args:
        patch: (h, w, 3) source pixels around the eye, 0 to 255.
        xi, eta: (h, w) of each pixel.
        rims: 1 if spectacles are worn: then lines over the lid that stand apart from the lashes are left alone.
    """
    edge, lower = np.interp(xi, XI, lids.edge), np.interp(xi, XI, lids.lower)
    near = corner_taper(frame, xi, 0.10, 0.12)
    core = smoothstep(-0.026 + 0.012 * rims, -0.012 + 0.006 * rims, eta - edge) * smoothstep(0.012, 0.006, eta - lower)
    core = core * corner_taper(frame, xi, 0.16, 0.10)
    region = smoothstep(-0.046, -0.038, eta - edge) * smoothstep(0.026, 0.020, eta - lower) * near
    luma = patch @ LUMA
    first = fill_smooth(patch, 1.0 - np.minimum(region * 1.02, 1.0))
    deviation = luma - first @ LUMA
    outside = (region < 0.02) & (np.abs(eta - edge) < 0.10)
    rough = np.abs(luma - blur(luma, 0.02 * frame.scale_px))[outside]
    noise = 1.4826 * float(np.median(rough)) if rough.size else 4.0
    tolerance = max(2.5 * noise, 0.05 * float(np.median(luma)), 6.0)
    strange = np.where(deviation > 0.0, deviation, -2.0 * deviation) / tolerance
    known = np.maximum(1.0 - region, (1.0 - core) * smoothstep(1.3, 0.7, strange) * 0.9)
    known = known * (1.0 - np.clip(core * 4, 0, 1))
    clean = fill_smooth(patch, known)
    # The strip between crease and lashes is dull and shaded; a closed lid is lit and coloured more like the face.
    wide = smoothstep(-0.070, -0.060, eta - edge) * smoothstep(0.034, 0.026, eta - lower) * near
    low, high = np.quantile(luma[wide < 0.5], [0.15, 0.45]) if (wide < 0.5).any() else (0.0, 1.0)
    face = fill_smooth(patch, (1.0 - wide) * (0.04 + 0.96 * smoothstep(low, high + 1.0, luma)))
    level, face_level = clean @ LUMA, np.maximum(face @ LUMA, 1.0)
    lit = level + LID_LIGHT * (face_level - level)
    tint = clean / np.maximum(level, 1.0)[..., None]
    tint = tint + LID_TINT * (face / face_level[..., None] - tint)
    height = np.maximum(lower - edge, 0.02)
    share = smoothstep(-0.15, 0.50, (eta - edge) / height) * smoothstep(1.25, 0.75, (eta - edge) / height)
    share = share * corner_taper(frame, xi, 0.28, 0.04)
    clean = clean + share[..., None] * (lit[..., None] * tint - clean)
    dark = smoothstep(0.3, 1.0, (np.maximum(clean, first) @ LUMA - luma) / tolerance)
    bright = smoothstep(0.6, 1.5, (luma - clean @ LUMA) / tolerance)
    above = eta < (edge + lower) / 2
    band = smoothstep(-0.055, -0.025, eta - edge) * smoothstep(0.040, 0.020, eta - lower) * near
    corner = 1.0 - corner_taper(frame, xi, 0.06, -0.05)
    leak = np.where(above, np.maximum(dark, bright * 0.7), np.maximum(bright, dark * corner)) * band
    if rims > 0.0:
        origin = frame.to_pixels(xi, eta)[0, 0]
        up = np.linspace(0.0, 0.056, 57)[:, None]
        grid = frame.to_pixels(np.broadcast_to(XI, (len(up), COLUMNS)), lids.edge - up) - origin
        joined = np.minimum.accumulate(sample_linear(leak, grid), 0)
        column = (xi + XI_LIMIT) * ((COLUMNS - 1) / (2 * XI_LIMIT))
        joined = sample_linear(joined, np.stack([column, (edge - eta) * 1000.0], -1))
        leak = leak + rims * np.where(eta < edge, joined - leak, 0.0)
    mask = np.clip(np.maximum(core, blur(leak, 0.8) * 1.1), 0.0, 1.0)

    closed = lower - (1.0 - UPPER_SHARE) * (lower - edge)
    v = np.clip((eta - edge) / np.maximum(closed - edge, 1e-3), -1.0, 1.2)
    over = np.clip(1.0 - (xi / 0.5) ** 2, 0.0, 1.0)
    bulge = 0.055 * np.exp(-(((v - 0.40) / 0.38) ** 2)) - 0.07 * np.exp(-(((v - 1.0) / 0.25) ** 2))
    bulge = bulge - 0.05 * np.exp(-(((v + 0.15) / 0.22) ** 2))
    relief = 1.0 + bulge * over * core
    return LidSkin(clean * relief[..., None] + _grain(patch, xi, eta, frame, lids) * mask[..., None], mask, clean)


def _grain(patch: Floats, xi: Floats, eta: Floats, frame: EyeFrame, lids: LidCurves) -> Floats:
    """The fine texture of the skin below the eye, mirrored up over it, without its outliers."""
    detail = patch - blur(patch, 0.010 * frame.scale_px)
    axis = np.interp(xi, XI, lids.lower) + 0.016
    fold = np.mod(axis - eta, 0.080)
    mirrored = axis + np.minimum(fold, 0.080 - fold)  # to and fro over the 0.04 fu below the eye
    points = frame.to_pixels(xi, mirrored)
    origin = frame.to_pixels(xi, eta)[0, 0]  # of the patch, px
    grain = sample_linear(detail, points - origin)
    limit = 2.0 * 1.4826 * float(np.median(np.abs(grain))) + 0.5
    return limit * np.tanh(grain / limit)


class LashLine(NamedTuple):
    """The upper lashes of the source.

    Attributes:
        colour: (n, 3) 0 to 255 over XI.
        strip: (m, n) opacity of line and hairs, 0 ... HAIR_LENGTH above the lid margin.
        thickness: (n,) fu: where the line ends and hairs begin.
        core: (n,) opacity of the line once the eye is shut, and its width (n,) fu, finer towards the nose.
    """

    colour: Floats
    strip: Floats
    thickness: Floats
    core: Floats
    width: Floats


HAIR_LENGTH = 0.045
HAIR_ROWS = 46
LINE_WIDTH = 0.011  # fu: the lash line of a shut eye is no wider


def lash_line(patch: Floats, clean: Floats, frame: EyeFrame, lids: LidCurves, origin: Floats) -> LashLine:
    """Measures the source's upper lash line: colour and strength along the lid, hairs.

    Args:
        patch: (h, w, 3); clean: (h, w, 3) the skin without lashes; origin: (2,) px of the patch's corner.
    """
    up = np.linspace(0.0, HAIR_LENGTH, HAIR_ROWS)[:, None]
    points = frame.to_pixels(np.broadcast_to(XI, (HAIR_ROWS, COLUMNS)), lids.upper - up) - origin
    pixels, skin = sample_linear(patch, points), sample_linear(clean, points) @ LUMA
    luma = pixels @ LUMA
    outward = np.clip(0.5 + XI * frame.outer, 0.0, 1.0)
    thickness = np.maximum((lids.upper - lids.edge) * (0.65 + 0.35 * outward), 0.003)
    width = min(lids.thickness, LINE_WIDTH) * (0.55 + 0.55 * outward)

    # Colour: the darkest of each column's line, evened out along the lid; never lighter than half the skin.
    in_line = (up < thickness + 0.002) & (np.abs(XI) < 0.55)
    rank = np.where(in_line, luma, np.inf).argmin(0)
    darkest = np.take_along_axis(pixels, rank[None, :, None], 0)[0]
    weight = (np.abs(XI) < 0.50) / (1.0 + ((darkest @ LUMA) / 20.0) ** 2)
    colour = blur_rows(darkest * weight[:, None], 12.0) / np.maximum(blur_rows(weight, 12.0), 1e-12)[:, None]
    order = np.argsort(darkest[np.abs(XI) < 0.50] @ LUMA)
    colour = (colour + darkest[np.abs(XI) < 0.50][order[: len(order) // 3]].mean(0)) / 2
    middle = np.abs(XI) < 0.42
    limit = 0.55 * float(np.median(skin[:, middle]))
    colour = colour * np.minimum(1.0, limit / np.maximum(colour @ LUMA, 1.0))[:, None]

    span = np.maximum(skin - colour @ LUMA, 12.0)
    opacity = np.clip((skin - luma) / span - 0.05, 0.0, 1.0)
    # Above the line only strokes are lashes; a shade of the lid stays where it is.
    shade = smoothstep(0.9, 1.3, up / thickness)
    opacity = opacity + shade * (np.clip((opacity - 0.18) / 0.72, 0.0, 1.0) - opacity)
    least = 0.65 * smoothstep(1.2, 0.5, up / thickness)
    opacity = blur_rows(blur_rows(np.maximum(opacity, least), 1.0, 1), 0.8)
    # A hair hangs on the line: what is set off from it by lighter skin is the crease.
    line = smoothstep(1.3, 0.9, up / thickness)
    strongest = (opacity * line).max(0)
    hairs = np.minimum.accumulate(np.where(up < thickness, strongest, np.minimum(opacity * 1.05, 1.0)), 0)
    opacity = hairs + line * (np.maximum(opacity, 0.8 * strongest * smoothstep(1.1, 0.6, up / thickness)) - hairs)
    fade = smoothstep(1.0, 0.35, (up - thickness) / (HAIR_LENGTH - 0.012))
    taper = corner_taper(frame, XI, 0.14, 0.08)
    core = blur_rows(np.maximum(strongest, 0.6), 6.0) * corner_taper(frame, XI, 0.18, 0.06)
    return LashLine(colour, opacity * fade * taper, thickness, core, width)
