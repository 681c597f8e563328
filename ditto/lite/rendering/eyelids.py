"""The lids of one portrait: where they are in the picture, how they move, what a closed one looks like.

Each eye has its own frame: xi from corner to corner, -.5 to .5 from left to right in the picture, eta down across it
in fu. Lids are curves eta(xi).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.motion.motion import Keypoint
from ditto.portrait.face_mesh import EYES, LEFT_EYE, RIGHT_EYE, EyeIds, Geometry, smoothstep
from ditto.portrait.measure import measured

Floats = npt.NDArray[np.float64]

XI_LIMIT = 0.80
COLUMNS = 129
XI: Floats = np.linspace(-XI_LIMIT, XI_LIMIT, COLUMNS)
# The numbers of lids were chosen by eye, the first for the prototype (../shared/renderer/spec.md, 2.5).
# `python -m benchmarks.render` measures the error of the lids on real clips.
UPPER_SHARE = 0.88  # of the aperture is closed by the upper lid, the rest by the lower
OUTER_REACH, INNER_REACH = 0.57, 0.53  # |xi| where the lids really meet; the landmarks' corners stand inside
TUCK = 0.007  # fu by which a shut upper lid overlaps the lower one's wet rim
DROOP = 0.008  # fu by which the upper lid hangs over the outer corner when shut

_APERTURE_FLOOR = 0.6  # of the gap of the middle landmarks: a lower bound, since the keypoints may give too small an aperture
_CLOSURE_RANGE = (-0.45, 1.0)
_SNAP = (0.60, 0.92)  # a lid that nearly closes, closes
_RING_FOLLOWS = 0.35


def closures(geometry: Geometry, delta: Floats) -> Floats:
    """Closing fraction of the right and left lid, (2,): 0 as in the source, 1 shut, below 0 wider.

    Args:
        delta: (21, 3) fu, head frame. A blink sends the upper-lid keypoint down by the aperture.
    """
    out = np.zeros(2)
    for i, eye in enumerate(EYES):
        middle = geometry.canonical[eye.lower[4], 1] - geometry.canonical[eye.upper[4], 1]
        aperture = geometry.keypoints[Keypoint.LOWER_LIDS, 1] - geometry.keypoints[eye.lid_keypoint, 1]
        aperture = max(aperture, _APERTURE_FLOOR * max(middle, 1e-3))
        b = np.clip((delta[eye.lid_keypoint, 1] - delta[Keypoint.LOWER_LIDS, 1]) / aperture, *_CLOSURE_RANGE)
        out[i] = b + (1.0 - b) * smoothstep(*_SNAP, b) if b > 0.0 else b
    return out


def move_lids(geometry: Geometry, delta: Floats, displacement: Floats) -> tuple[Floats, Floats]:
    """The mesh's motion without the lids, and how far the lids close.

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
    """Gaussian blur of (n,) or (h, w[, c]) along one axis, normalised at the borders."""
    return _blurred(values, 0.0 if axis else sigma, sigma if axis else 0.0)


def blur(image: Floats, sigma: float) -> Floats:
    """Gaussian blur of (h, w[, c]) in both directions, normalised at the borders."""
    return _blurred(image, sigma, sigma)


def _blurred(values: Floats, down: float, across: float) -> Floats:
    """Gaussian blur by OpenCV, sigmas down and across; no further than four of them. What lies outside has no weight."""
    import cv2

    def filtered(image: Floats) -> Floats:
        size = tuple(2 * int(np.ceil(4.0 * sigma)) + 1 for sigma in (across, down))
        return np.asarray(cv2.GaussianBlur(image, size, across, sigmaY=down, borderType=cv2.BORDER_CONSTANT))

    shape = values.shape[:2] if values.ndim > 1 else (values.size, 1)
    weight = filtered(np.ones(shape))
    found = filtered(np.asarray(values, np.float64).reshape(*shape, -1)).reshape(values.shape)
    return np.asarray(found / weight.reshape(*values.shape[:2], *[1] * (values.ndim - 2)))


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
    rows = float(measured(np.median, found, none=11.0, least=5))
    return float(np.clip(0.001 * (rows - 1.0), 0.007, 0.020))


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
    down = np.linspace(0.0, 1.0, rows)[:, None, None]
    points = np.asarray(top * (1.0 - down) + bottom * down + aside, np.float64)
    bridge = sample_linear(blur(luma, 0.003 * geometry.scale_px), points)
    length = float(np.hypot(*(bottom - top))) / geometry.scale_px
    line = bridge - blur_rows(bridge, 0.022 * rows / max(length, 0.02))
    even = max(float(-np.quantile(line, 0.8, 1).min()), float(np.quantile(line, 0.2, 1).max()))
    return float(smoothstep(0.055, 0.10, even / max(float(np.median(bridge)), 20.0)))
