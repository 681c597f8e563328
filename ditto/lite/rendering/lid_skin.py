"""Textures of the lids of one portrait: the skin of a closed lid, the lashes on its edge.

Numbers without a note, in the functions too, were chosen by eye.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.lite.rendering.eyelids import (
    COLUMNS,
    UPPER_SHARE,
    XI,
    XI_LIMIT,
    EyeFrame,
    LidCurves,
    blur,
    blur_rows,
    corner_taper,
    sample_linear,
)
from ditto.media.images import LUMA
from ditto.portrait.face_mesh import smoothstep
from ditto.portrait.measure import measured

Floats = npt.NDArray[np.float64]

LID_LIGHT, LID_TINT = 0.40, 0.75  # how far a closed lid goes from the dull strip above the lashes to the face's skin
HAIR_LENGTH = 0.045
HAIR_ROWS = 46
LINE_WIDTH = 0.012  # fu: the lash line of a shut eye is no wider


def softness(luma: Floats) -> float:
    """Blur of a picture's sharpest edges, px sigma: how much they lose when blurred once more by 1 px."""
    steepness = []
    for image in (luma, blur(luma, 1.0)):
        dy, dx = np.gradient(image)
        steepness.append(np.hypot(dx, dy))
    edges = steepness[0] >= np.quantile(steepness[0], 0.95)
    ratio = float(steepness[0][edges].sum() / max(float(steepness[1][edges].sum()), 1e-6))
    return float(np.clip(1.0 / np.sqrt(max(ratio**2 - 1.0, 1e-6)), 0.4, 4.0))


RELAXATIONS = 40  # steps over what is unknown, each a 3 x 3 tent


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


def fill_smooth(values: Floats, weights: Floats) -> Floats:
    """Fills (h, w, c) smoothly from where weights (h, w) are high: push-pull, then relaxation where unknown.

    With the mean of all values where no weight is above 0.
    """
    w = np.clip(weights, 0.0, 1.0)
    levels = [(values * w[..., None], w)]
    top, total = levels[-1]
    while min(total.shape) > 2:
        top, total = _halve(top), _halve(total)
        levels.append((top, total))
    known_mean = top.sum((0, 1)) / max(float(total.sum()), 1e-6) if total.sum() > 0.0 else values.mean((0, 1))
    out: Floats = np.full_like(top, 0.0) + known_mean
    for acc, total in reversed(levels):
        h, width = total.shape
        big = np.repeat(np.repeat(out, 2, 0), 2, 1)[:h, :width]
        big = _tent(big)
        known = acc / np.maximum(total, 1e-6)[..., None]
        share = np.clip(total * 4.0, 0.0, 1.0)[..., None] if h < weights.shape[0] else total[..., None]
        out = big + (known - big) * share
    free = (1.0 - w)[..., None]
    for _ in range(RELAXATIONS):
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


def lid_skin(patch: Floats, xi: Floats, eta: Floats, frame: EyeFrame, lids: LidCurves, rims: float) -> LidSkin:
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
    noise = float(measured(lambda levels: 1.4826 * float(np.median(levels)), rough, none=4.0))
    tolerance = max(2.5 * noise, 0.05 * float(np.median(luma)), 6.0)
    strange = np.where(deviation > 0.0, deviation, -2.0 * deviation) / tolerance
    known = np.maximum(1.0 - region, (1.0 - core) * smoothstep(1.3, 0.7, strange) * 0.9)
    known = known * (1.0 - np.clip(core * 4, 0, 1))
    clean = fill_smooth(patch, known)
    # The strip between crease and lashes is dull and shaded; a closed lid is lit and coloured more like the face.
    wide = smoothstep(-0.070, -0.060, eta - edge) * smoothstep(0.034, 0.026, eta - lower) * near
    low, high = measured(lambda levels: np.quantile(levels, [0.15, 0.45]), luma[wide < 0.5], none=(0.0, 1.0))
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
    leak: Floats = np.where(above, np.maximum(dark, bright * 0.7), np.maximum(bright, dark * corner)) * band
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
    detail = patch - blur(patch, 0.006 * frame.scale_px)
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
    core = blur_rows(np.maximum(strongest, 0.7), 6.0) * corner_taper(frame, XI, 0.18, 0.06)
    return LashLine(colour, opacity * fade * taper, thickness, core, width)
