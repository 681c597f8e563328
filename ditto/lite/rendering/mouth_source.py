"""Measurements of the mouth of a portrait: colours, sharpness, grain, and its own teeth where they show.

Numbers without a note, in the functions too, were chosen by eye.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from ditto.lite.rendering.teeth import blurred
from ditto.media.images import LUMA
from ditto.portrait.face_mesh import (
    EYES,
    FACE_OVAL,
    LOWER_INNER_LIP,
    LOWER_OUTER_LIP,
    UPPER_INNER_LIP,
    UPPER_OUTER_LIP,
    Geometry,
    smoothstep,
)
from ditto.portrait.measure import measured

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

SKIN = [50, 280, 205, 425, 187, 411]  # cheeks
TYPICAL_SKIN: Floats = np.array([1.20, 0.95, 0.74])  # RGB over luma
GRAIN_SIZE = 48
GRAIN_LIMIT = 3.5  # levels
BRIGHT_SKIN, BRIGHT_SKIN_TEETH = (145.0, 185.0), 0.12
TOOTH_TINT: Floats = np.array([1.035, 0.988, 0.970])
# Landmarks right and left of the mouth, whose skin the same light falls on as the teeth.
BESIDE = ((57, 186, 92, 202, 204, 165, 182), (287, 410, 322, 422, 424, 391, 406))
SIDE_LIGHT = 0.33  # of the logarithm of their ratio: teeth lie nearer to each other than these landmarks
MOST_SIDE_LIGHT = 0.2
SQUARE = np.ones((3, 3), np.uint8)  # of morphology


class Colours(NamedTuple):
    """RGB, 0..255. `seam`, `lower_rim`, `upper_rim` (11, 3) run from corner to corner: the line between the lips, and
    the lips just beside it. `dark` and `white` are luma levels;
    `saturation` is 0 on black-and-white pictures, 1 on coloured ones."""

    skin: Floats
    tooth: Floats
    gum: Floats
    tongue: Floats
    cavity: Floats
    seam: Floats
    lower_rim: Floats
    upper_rim: Floats
    dark: float
    white: float
    saturation: float


class OwnTeeth(NamedTuple):
    """Teeth seen in the portrait, cut out.

    Attributes:
        pixels: (h, w, 4) float32 premultiplied RGB and coverage.
        from_plane: (2, 3): head-frame plane (x, y, 1) -> column, row.
        tooth: RGB of a bright tooth.
        edge: y of the incisors' edge, head frame.
        edge_slope, edge_bow: the edge runs on to the sides as edge + edge_slope x + edge_bow x^2, x from the anchor.
    """

    pixels: Array
    from_plane: Floats
    tooth: Floats
    edge: float
    edge_slope: float
    edge_bow: float


def polygon_cover(points: npt.ArrayLike, left: int, top: int, width: int, height: int, samples: int = 4) -> Array:
    """(height, width) share of each pixel inside a polygon (N, 2) in pixels, by supersampling; even-odd rule."""
    polygon = np.asarray(points, np.float64)
    offset = (np.arange(samples) + 0.5) / samples - 0.5
    x = (np.arange(width)[:, None] + offset).ravel() + left
    y = (np.arange(height)[:, None] + offset).ravel() + top
    inside = np.zeros((len(y), len(x)), bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if y0 == y1:
            continue
        crossed = (y >= min(y0, y1)) & (y < max(y0, y1))
        edge = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
        inside ^= crossed[:, None] & (x[None] > edge[:, None])
    share: Floats = inside.reshape(height, samples, width, samples).mean((1, 3))
    return share.astype(np.float32)


def sample_points(image: Array, points: npt.ArrayLike) -> Array:
    """(N, 3) bilinear samples of (H, W, 3) at (N, 2) pixels, clamped to the image."""
    p = np.asarray(points, np.float64)
    height, width = image.shape[:2]
    x, y = np.clip(p[:, 0], 0, width - 1.001), np.clip(p[:, 1], 0, height - 1.001)
    i, j = y.astype(int), x.astype(int)
    fx, fy = (x - j)[:, None], (y - i)[:, None]
    top = image[i, j] * (1 - fx) + image[i, j + 1] * fx
    bottom = image[i + 1, j] * (1 - fx) + image[i + 1, j + 1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy, np.float32)


def _window(points: Floats, margin: float, size: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels about some points, inside the picture and never empty."""
    left, top = np.clip(np.floor(points.min(0) - margin).astype(int), 0, size - 1)
    right, bottom = np.clip(np.ceil(points.max(0) + margin).astype(int) + 1, (left + 1, top + 1), size)
    return int(left), int(top), int(right), int(bottom)


def sclera_colour(crop: Image, geometry: Geometry) -> Floats | None:
    """Typical RGB of the whites of the eyes, or None where too little of them shows."""
    found = []
    for eye in EYES:
        outline = np.concatenate([geometry.landmarks[eye.upper, :2], geometry.landmarks[eye.lower[-2:0:-1], :2]])
        left, top, right, bottom = _window(outline, 2, geometry.size)
        if right - left < 6 or bottom - top < 4:
            continue
        inside = polygon_cover(outline, left, top, right - left, bottom - top) > 0.99
        inside[1:-1, 1:-1] &= inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        centre = geometry.landmarks[eye.iris, :2]
        radius = np.linalg.norm(geometry.landmarks[eye.iris + 1 : eye.iris + 5, :2] - centre, axis=1).mean()
        y, x = np.mgrid[top:bottom, left:right]
        inside &= np.hypot(x - centre[0], y - centre[1]) > 1.15 * radius
        found.append(crop[top:bottom, left:right][inside])

    def bright(pixels: Floats) -> Floats:
        luma = pixels @ LUMA
        return np.asarray(np.median(pixels[luma >= np.percentile(luma, 60)], axis=0), np.float64)

    return measured(bright, np.concatenate([np.zeros((0, 3)), *found]), none=None, least=24)


def measure_colours(crop: Image, geometry: Geometry, mask: npt.NDArray[np.float32]) -> Colours:
    """Colours of teeth, gum, tongue and cavity that fit a portrait's light, tint and saturation.

    Teeth take their tint from the whites of the eyes and their level from those and the skin: on portraits that show
    their teeth these measure 1.15-1.3 times the skin's and 1.2-1.3 times the sclera's luma. `TOOTH_TINT` and
    `BRIGHT_SKIN_TEETH` are what was left between that and the teeth of nine portraits that show their own: those are warmer
    (median), and in bright skin darker (.79 to .94 of the estimate above 165 levels, 0.97 to 1.10 below).
    """
    points, size = geometry.landmarks[:, :2], geometry.size
    image = crop.astype(np.float32)
    left, top, right, bottom = _window(points[FACE_OVAL], 0, size)
    face = polygon_cover(points[FACE_OVAL], left, top, right - left, bottom - top, 1) > 0.5
    face &= mask[top:bottom, left:right] > 0.5
    luma = (crop[top:bottom, left:right] @ LUMA)[face]
    dark = float(measured(lambda levels: np.percentile(levels, 0.7), luma, none=20.0))
    white = float(measured(lambda levels: np.percentile(levels, 98.5), luma, none=230.0))
    left, top, right, bottom = _window(points[UPPER_OUTER_LIP + LOWER_OUTER_LIP], 0.06 * geometry.scale_px, size)
    smooth = image.copy()
    smooth[top:bottom, left:right] = blurred(image[top:bottom, left:right], 0.004 * geometry.scale_px)
    skin = np.median(sample_points(image, points[SKIN]), axis=0).astype(np.float64)
    level = max(float(skin @ LUMA), 8.0)

    upper_in, lower_in = points[UPPER_INNER_LIP], points[LOWER_INNER_LIP]
    lower_rim = sample_points(smooth, lower_in + 0.12 * (points[LOWER_OUTER_LIP] - lower_in)).astype(np.float64)
    upper_rim = sample_points(smooth, upper_in + 0.12 * (points[UPPER_OUTER_LIP] - upper_in)).astype(np.float64)
    for rim in (lower_rim, upper_rim):
        rim[[0, 10]] = rim[[1, 9]]
        rim[1:-1] = 0.25 * rim[:-2] + 0.5 * rim[1:-1] + 0.25 * rim[2:]
    lip = np.median(np.concatenate([lower_rim, upper_rim]), axis=0)

    # On black-and-white pictures nothing may be coloured.
    spread = max(float(np.std(skin / level)), 0.7 * float(np.std(lip / max(lip.mean(), 1))))
    saturation = float(np.clip(spread / np.std(TYPICAL_SKIN), 0, 1))

    def toned(colour: npt.ArrayLike) -> Floats:
        grey = float(np.asarray(colour) @ LUMA)
        return grey + (np.asarray(colour, np.float64) - grey) * saturation

    sclera = sclera_colour(crop, geometry)
    if sclera is None:
        sclera = 0.5 * skin + 0.5 * level
    sclera_level = max(float(sclera @ LUMA), 8.0)
    # Under a moustache, or in a painter's shadow, little light reaches the teeth.
    shaded = 0.72 + 0.28 * float(smoothstep(0.22, 0.46, np.median(upper_rim @ LUMA) / level))
    tooth_level = (1 - BRIGHT_SKIN_TEETH * float(smoothstep(*BRIGHT_SKIN, level))) * shaded * float(
        np.clip(0.55 * 1.19 * level + 0.45 * 1.26 * sclera_level, 50, min(max(1.04 * white, 50), 246))
    )
    tint = 0.1 + 0.9 * np.clip(sclera / sclera_level, 0.5, 1.4)
    tint = tint * (1 + saturation * (np.array([1.025, 1.0, 0.92]) * TOOTH_TINT - 1))
    # Painted or bloodshot eyes are near skin in tone: enamel keeps at most this much of the skin's own tint.
    limit = np.abs(skin / level - 1) * np.array([0.55, 1.0, 0.70]) + 0.02
    tint = np.asarray(1 + np.clip(tint - 1, -limit, limit), np.float64)
    tooth = tooth_level * tint / float(tint @ LUMA)
    gum = toned(0.62 * lip + 0.38 * level * np.array([0.96, 0.60, 0.58]))
    tongue = toned(0.60 * lip + 0.40 * skin * np.array([0.86, 0.56, 0.61]))
    cavity = toned(dark * np.array([0.90, 0.55, 0.55]) + level * np.array([0.17, 0.055, 0.060]))

    # Darkest tone across the line between the lips.
    down = points[LOWER_OUTER_LIP] - points[UPPER_OUTER_LIP]
    down = down / np.maximum(np.linalg.norm(down, axis=1, keepdims=True), 1e-6) * geometry.scale_px
    down[[0, 10]] = down[5]
    across = np.stack(
        [sample_points(smooth, 0.5 * (upper_in + lower_in) + t * down) for t in np.linspace(-0.012, 0.012, 9)]
    )
    darkest = (across @ LUMA).argmin(0)
    seam = across[darkest, np.arange(11)].astype(np.float64)
    shade = toned(0.42 * lip + 0.30 * cavity)
    gap = geometry.canonical[LOWER_INNER_LIP, 1] - geometry.canonical[UPPER_INNER_LIP, 1]
    closed = smoothstep(0.016, 0.006, gap)[:, None]
    seam = closed * (0.8 * seam + 0.2 * shade) + (1 - closed) * shade
    seam[1:-1] = 0.25 * seam[:-2] + 0.5 * seam[1:-1] + 0.25 * seam[2:]
    return Colours(skin, tooth, gum, tongue, cavity, seam, lower_rim, upper_rim, dark, white, saturation)


def measure_side_light(crop: Image, geometry: Geometry) -> float:
    """By which share teeth at the mouth's left corner are lighter than in the middle, and at the right corner darker."""
    image = blurred(crop.astype(np.float32), 0.02 * geometry.scale_px)
    right, left = (
        np.maximum(sample_points(image, geometry.landmarks[list(ids), :2]).astype(np.float64) @ LUMA, 8.0) for ids in BESIDE
    )
    slope = SIDE_LIGHT * float(np.median(np.log(left / right)))
    return float(np.clip(slope, -MOST_SIDE_LIGHT, MOST_SIDE_LIGHT))


def measure_blur(crop: Image, geometry: Geometry) -> float:
    """Gaussian sigma, px, of the sharpest edges about eyes and mouth, between 0.4 and 3.

    A blurred step of height h and steepest slope m has sigma = h / m / sqrt(2 pi); central differences add 0.54 to its
    square. Strong edges count, so grain does not; the sharpest tenth of them, since much in a face is soft by itself.
    """
    groups = [eye.upper + eye.lower for eye in EYES] + [UPPER_OUTER_LIP + LOWER_OUTER_LIP]
    found = []
    reach = max(4, round(4 * geometry.size / 512))
    for ids in groups:
        left, top, right, bottom = _window(geometry.landmarks[ids, :2], 2 * reach, geometry.size)
        luma = crop[top:bottom, left:right] @ LUMA
        if min(luma.shape) < 2 * reach + 4:
            continue
        slope = np.hypot(*np.gradient(luma))[reach:-reach, reach:-reach]
        strong = slope >= max(float(np.percentile(slope, 97)), 1e-3)
        windows = sliding_window_view(luma, (2 * reach + 1, 2 * reach + 1))[strong]
        if len(windows):
            sigma = (windows.max((1, 2)) - windows.min((1, 2))) / slope[strong] / np.sqrt(2 * np.pi)
            found.append(float(np.percentile(sigma, 10)))
    return measured(lambda s: float(np.clip(np.sqrt(max(min(s) ** 2 - 0.54, 0.0)), 0.4, 3.0)), found, none=1.0)


def measure_overlap(crop: Image, geometry: Geometry) -> Floats:
    """(2, 41): how far teeth of the portrait reach beyond the upper and the lower inner-lip landmarks, face units.

    Landmarks of barely parted lips run through the teeth, which would then ride on a lip when it moves. From corner to
    corner; teeth are brighter or as bright as the lip beside them and much less red.
    """
    points = geometry.landmarks[:, :2]
    image = crop.astype(np.float32)
    at, steps = np.linspace(0, 10, 41), np.linspace(0, 1, 33)
    out = np.zeros((2, 41))
    for row, (inner, outer) in enumerate(((UPPER_INNER_LIP, UPPER_OUTER_LIP), (LOWER_INNER_LIP, LOWER_OUTER_LIP))):
        start, end = (
            np.stack([np.interp(at, np.arange(11), points[ids, i]) for i in (0, 1)], 1) for ids in (inner, outer)
        )
        pixels = sample_points(image, (start + steps[:, None, None] * (end - start)).reshape(-1, 2)).reshape(33, 41, 3)
        luma = pixels @ LUMA
        redness = (pixels[..., 0] - pixels[..., 1]) / np.maximum(luma, 1)
        lip = slice(13, 29)
        lip_red, lip_luma = np.median(redness[lip], axis=0), np.median(luma[lip], axis=0)
        if float(np.median(lip_red)) < 0.12:
            continue  # teeth and lips do not differ in colour
        tooth = (redness < 0.62 * lip_red) & (luma > 0.70 * lip_luma)
        length = np.linalg.norm(end - start, axis=1) / geometry.scale_px
        depth = steps[:, None] * length
        tooth &= (depth < 0.022) & (steps[:, None] < 0.6)
        # Only what hangs together with the line between the lips, across at most a pixel or two of seam.
        joined = np.abs(at - 5) < 4.2  # corners are too thin to tell
        missed = np.zeros(41)
        for i in range(33):
            missed = np.where(tooth[i], 0.0, missed + length / 32 * geometry.scale_px)
            joined &= missed < 2.5
            out[row] = np.where(joined & tooth[i], depth[i] + 0.5 / geometry.scale_px, out[row])
    steady = np.median(sliding_window_view(np.pad(out, ((0, 0), (2, 2))), 5, axis=1), axis=2)
    whole = sliding_window_view(np.pad(steady, ((0, 0), (2, 2))), 5, axis=1).max(2)
    return np.asarray(sliding_window_view(np.pad(whole, ((0, 0), (2, 2))), 5, axis=1).mean(2))


def measure_grain(crop: Image, geometry: Geometry) -> Array:
    """(48, 48) levels of fine structure of the cheek: noise, canvas, film grain; zero mean."""
    patches = []
    for landmark in (50, 280):
        x, y = np.round(geometry.landmarks[landmark, :2]).astype(int) - GRAIN_SIZE // 2
        if x >= 0 and y >= 0 and max(x, y) + GRAIN_SIZE <= geometry.size:
            luma = (crop[y : y + GRAIN_SIZE, x : x + GRAIN_SIZE] @ LUMA).astype(np.float32)[..., None]
            patches.append((luma - blurred(luma, 1.5))[..., 0])
    if not patches:
        return np.zeros((GRAIN_SIZE, GRAIN_SIZE), np.float32)
    patch = min(patches, key=lambda p: float(np.median(np.abs(p))))
    limit = 2.5 * 1.4826 * float(np.median(np.abs(patch)))
    patch = np.clip(patch - patch.mean(), -limit, limit)
    # Cracked varnish is no texture for the inside of a mouth.
    return np.ascontiguousarray(patch * min(1.0, GRAIN_LIMIT / max(float(patch.std()), 1e-3)), np.float32)


def find_own_teeth(crop: Image, geometry: Geometry, anchor: Floats, colours: Colours) -> OwnTeeth | None:
    """The bright, colourless part between parted lips, continued upwards behind the upper lip; None if too small."""
    points = geometry.landmarks[:, :2]
    hole = np.concatenate([points[UPPER_INNER_LIP], points[LOWER_INNER_LIP[-2:0:-1]]])
    left, top, right, bottom = _window(hole, 6, geometry.size)
    cover = polygon_cover(hole, left, top, right - left, bottom - top)
    pixels = crop[top:bottom, left:right].astype(np.float32)
    luma = pixels @ LUMA
    saturation = (pixels.max(-1) - pixels.min(-1)) / np.maximum(pixels.max(-1), 1)
    threshold = colours.dark + 0.42 * (colours.white - colours.dark)
    teeth = smoothstep(threshold - 18, threshold + 18, luma) * smoothstep(0.62, 0.42, saturation)
    teeth = np.asarray(cv2.morphologyEx(teeth, cv2.MORPH_CLOSE, SQUARE), np.float64) * cover
    if measured(np.mean, teeth[cover > 0.5], none=0.0) < 0.22:
        return None
    extra = round(0.05 * geometry.scale_px)
    height, width = teeth.shape
    colour = np.zeros((height + extra, width, 3), np.float32)
    alpha = np.zeros((height + extra, width), np.float32)
    colour[extra:], alpha[extra:] = pixels, teeth
    smooth = blurred(pixels, 0.8)
    solid = teeth > 0.6
    starts = np.where(solid.sum(0) >= 3, solid.argmax(0), height)
    near = max(1, round(0.022 * geometry.scale_px))
    gum_line = sliding_window_view(np.pad(starts, near, mode="edge"), 2 * near + 1).min(1)  # above all neighbours
    shaded = max(1, round(0.009 * geometry.scale_px))  # rows in the shadow of the lip are no model for what it hides
    grown = np.zeros((height + extra, width), bool)
    for x in np.flatnonzero(starts < height):
        rows = np.flatnonzero(solid[:, x])
        first = int(rows[0]) + min(shaded, len(rows) // 3) + 1
        usable = max(2, len(rows) // 2)
        k = np.arange(1, extra + first + 1)
        mirror = k % (2 * usable)
        mirror = np.where(mirror < usable, mirror, 2 * usable - 1 - mirror)
        fade = smoothstep(0.018, 0.036, (k - (first - gum_line[x])) / geometry.scale_px)[:, None]
        rows_to = extra + first - k
        colour[rows_to, x] = smooth[np.minimum(first + mirror, height - 1), x] * (1 - fade) + colours.gum * fade
        alpha[rows_to, x] = 1.0
        grown[rows_to, x] = True
    even = blurred(np.concatenate([colour * alpha[..., None], alpha[..., None]], -1), 0.004 * geometry.scale_px)
    even = np.asarray(even[..., :3] / np.maximum(even[..., 3:], 1e-3), np.float32)
    colour = np.where(grown[..., None], 0.45 * colour + 0.55 * even, colour)
    alpha = blurred(np.asarray(cv2.erode(alpha, SQUARE), np.float32)[..., None], 0.8)[..., 0]

    tooth = measured(lambda p: np.median(p, axis=0) * 1.03, pixels[teeth > 0.7], none=colours.tooth, least=11)
    redness = tooth[0] / max(float(tooth @ LUMA), 1) / (colours.tooth[0] / float(colours.tooth @ LUMA))
    if redness > 1.11 or float(tooth @ LUMA) < 0.71 * float(colours.tooth @ LUMA):
        return None  # lip or tongue in bright light, or too dim to go on from

    to_px = geometry.scale_px * geometry.rotation[:2, :2]
    origin = (anchor @ geometry.rotation)[:2] * geometry.scale_px + geometry.translation_px[:2] - anchor[:2] @ to_px
    from_plane = np.concatenate([to_px.T, (origin - [left, top - extra])[:, None]], axis=1)
    # The visible edge, column by column, as a shallow parabola: arches are completed along it.
    columns = [x for x in range(width) if (teeth[:, x] > 0.6).sum() >= 3]
    lowest = np.array([[x + left, np.flatnonzero(teeth[:, x] > 0.6)[-1] + top] for x in columns], np.float64)
    if len(lowest) < 8:
        return None
    edge_x, edge_y = ((lowest - origin) @ np.linalg.inv(to_px) - anchor[:2]).T
    keep = np.ones(len(edge_x), bool)
    fit = np.zeros(3)
    for _ in range(3):
        fit = np.polynomial.polynomial.polyfit(edge_x[keep], edge_y[keep], 2)
        off = np.abs(np.polynomial.polynomial.polyval(edge_x, fit) - edge_y)
        keep = off <= max(2.0 * float(np.median(off)), 0.004)
    premultiplied = np.concatenate([colour * alpha[..., None], alpha[..., None]], axis=-1)
    return OwnTeeth(
        np.ascontiguousarray(premultiplied, np.float32),
        from_plane,
        np.asarray(tooth, np.float64),
        float(anchor[1] + fit[0]) + 0.003,
        float(fit[1]),
        float(np.clip(fit[2], -4.0, 0.0)),
    )
