"""Eyes: blinks, lids and gaze, drawn over the warped picture.

No part of the source's open eye is stretched over a lid. Once per portrait an eye is taken apart into closed-lid skin, lash
line, eye white, iris and highlight. Per frame these are put together between two moving curves. Numbers without a note, in
the functions too, were chosen by eye.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto import ops
from ditto.lite.rendering.eyelids import (
    DROOP,
    TUCK,
    UPPER_SHARE,
    XI,
    XI_LIMIT,
    EyeFrame,
    LidCurves,
    blur,
    corner_taper,
    eye_frame,
    fit_lids,
    glasses,
    move_lids,
)
from ditto.lite.rendering.lid_skin import HAIR_LENGTH, LashLine, fill_smooth, lash_line, lid_skin, softness
from ditto.media.images import LUMA
from ditto.motion.motion import Keypoint
from ditto.ops.eyes import BALL, CHANNELS, GLINT, IRIS, IRIS_ALPHA, KEEP, LID_MASK, SCLERA, SKIN, EyeView
from ditto.portrait.face_mesh import EYES, EyeIds, Geometry, Pose, inverse_2x2, smoothstep
from ditto.portrait.face_state import eye_state
from ditto.portrait.measure import measured, weighted_quantiles

__all__ = ["EyeLayers", "draw_eyes", "move_lids", "prepare_eyes"]

Floats = npt.NDArray[np.float64]

logger = logging.getLogger(__name__)

GAZE_LIMIT = (0.30, 0.16)  # of an eye width, along x and y: the prototype's (../shared/renderer/spec.md, 2.3)
_MARGIN_UP, _MARGIN_DOWN = 0.085, 0.080  # fu of skin around the eye that may change
_LOWER_RANGE = (-0.35, 0.25)
# An eye that is opened less (`eye_state`) counts as shut. In 30 portraits open eyes have .80 to 1.25; in the same portraits
# drawn with shut eyes, .09 to .39 (one painted eye of 60: .54); drawn at 60 % of a blink, .42 to .75 in four of five.
SHUT = 0.40
_ROOT = 0.85  # hanging lashes begin this deep in the lash line, where it is dense


class LidPath(NamedTuple):
    """Where a lid can go, (n,) over xi: what of `eye_view` is the same in every frame.

    Attributes:
        gap: of the open eye.
        height: its largest.
        profile: gap over height.
        travel: how far the upper lid comes down in a blink.
        curves: (n, 13) of `ditto.ops.eyes.draw_eye`, those filled in that stay.
    """

    gap: Floats
    height: float
    profile: Floats
    travel: Floats
    curves: npt.NDArray[np.float32]


class EyeLayer(NamedTuple):
    """One eye taken apart. See `ditto.ops.eyes.draw_eye` for texture and strip."""

    eye: EyeIds
    frame: EyeFrame
    lids: LidCurves
    path: LidPath
    texture: npt.NDArray[np.float32]  # (h, w, 16)
    strip: npt.NDArray[np.float32]  # (m, n)
    origin: Floats  # (2,) px of the texture's corner in the crop
    lashes: LashLine
    anchors: npt.NDArray[np.int64]  # landmarks that carry the eye from frame to source
    anchor_weights: Floats
    has_iris: float  # 0 for an eye of stone, shut or behind dark glass: it neither turns nor blinks
    soft: float  # px of the source: sigma of its sharpest edges


class EyeLayers(NamedTuple):
    """Both eyes of a portrait, right and left."""

    right: EyeLayer
    left: EyeLayer


def prepare_eyes(crop: npt.NDArray[np.uint8], geometry: Geometry) -> EyeLayers:
    """Takes both eyes of a source crop apart.

    Eyes without an iris to move stay as they are in the picture, with a warning in the log: shut ones, those of
    statues, those behind dark glass. Of a wink, the open eye moves.

    Args:
        crop: (S, S, 3) RGB.

    Raises:
        ValueError: if the crop is not (S, S, 3) uint8 with S = geometry.size.
    """
    if crop.shape != (geometry.size, geometry.size, 3) or crop.dtype != np.uint8:
        raise ValueError(
            f"expected a crop ({geometry.size}, {geometry.size}, 3) uint8, got {crop.shape} {crop.dtype}; give that of the "
            "geometry"
        )
    image = crop.astype(np.float64)
    rims = glasses(image @ LUMA, geometry)
    right, left = (_prepare_eye(image, geometry, eye, rims) for eye in EYES)
    is_open = eye_state(geometry.landmarks, geometry.size)[0] >= SHUT
    contrast = min((eye.has_iris for eye, seen in zip((right, left), is_open, strict=True) if seen), default=0.0)
    has_iris = float(smoothstep(0.08, 0.20, contrast))
    if not is_open.all():
        which = "one eye is shut in the picture: it stays" if is_open.any() else "the eyes are shut in the picture: they stay"
        logger.warning("%s shut; give a picture with open eyes for blinks and glances", which)
    elif has_iris == 0.0:
        logger.warning("no iris is seen in the eyes of the picture; they neither blink nor look around")
    return EyeLayers(*(eye._replace(has_iris=has_iris * seen) for eye, seen in zip((right, left), is_open, strict=True)))


def _prepare_eye(image: Floats, geometry: Geometry, eye: EyeIds, rims: float) -> EyeLayer:
    frame = eye_frame(geometry, eye)
    lids = fit_lids(image @ LUMA, geometry, eye, frame)
    size = geometry.size
    rim = frame.to_pixels(
        np.concatenate([XI, XI]),
        np.concatenate([lids.edge - _MARGIN_UP - 0.02, lids.lower + _MARGIN_DOWN + 0.02]),
    )
    x0, y0 = np.clip(np.floor(rim.min(0)).astype(int), 0, size - 9)
    x1, y1 = np.clip(np.ceil(rim.max(0)).astype(int) + 1, [x0 + 8, y0 + 8], size)
    patch = image[y0:y1, x0:x1]
    origin = np.array([x0, y0], np.float64)
    yy, xx = np.mgrid[y0:y1, x0:x1].astype(np.float64)
    xi, eta = np.moveaxis(frame.to_eye(np.stack([xx, yy], -1)), -1, 0)

    skin = lid_skin(patch, xi, eta, frame, lids, rims)
    lashes = lash_line(patch, skin.clean, frame, lids, origin)
    texture = np.zeros((*patch.shape[:2], CHANNELS), np.float32)
    texture[..., SKIN : SKIN + 3] = np.clip(skin.skin, 0, 255)
    texture[..., LID_MASK] = skin.mask
    soft = softness(patch @ LUMA)
    has_iris = _eyeball(texture, patch, xi, eta, geometry, eye, frame, lids, origin, soft)
    up = eta - np.interp(xi, XI, lids.edge)
    down = eta - np.interp(xi, XI, lids.lower)
    sides = smoothstep(0.0, 0.10, 0.78 - np.abs(xi))
    texture[..., KEEP] = smoothstep(-_MARGIN_UP, -0.055, up) * smoothstep(_MARGIN_DOWN, 0.050, down) * sides

    anchors = np.array(eye.upper + eye.lower[1:-1] + eye.upper_ring + eye.lower_ring)
    weights = np.array([1.0] * 16 + [0.5] * 16)
    return EyeLayer(
        eye,
        frame,
        lids,
        lid_path(frame, lids, lashes),
        texture,
        lashes.strip.astype(np.float32),
        origin,
        lashes,
        anchors,
        weights,
        has_iris,
        soft,
    )


def _eyeball(
    texture: npt.NDArray[np.float32],
    patch: Floats,
    xi: Floats,
    eta: Floats,
    geometry: Geometry,
    eye: EyeIds,
    frame: EyeFrame,
    lids: LidCurves,
    origin: Floats,
    soft: float,
) -> float:
    """Writes eye white, iris, highlight and the whole eyeball into `texture`; gives the contrast of the iris."""
    px = 1.0 / frame.scale_px
    upper, lower = np.interp(xi, XI, lids.upper), np.interp(xi, XI, lids.lower)
    opening = smoothstep(0.2 * px, 1.6 * px, eta - upper) * smoothstep(0.2 * px, 1.6 * px, lower - eta)
    opening = opening * corner_taper(frame, xi, 0.04, -0.02)
    centre = geometry.landmarks[eye.iris, :2] - origin
    rim = geometry.landmarks[eye.iris + 1 : eye.iris + 5, :2] - origin
    radius = max(float(np.hypot(*(rim - centre).T).mean()), 2.0)
    h, w = xi.shape
    yy, xx = np.mgrid[0:h, 0:w]
    rr = np.hypot(xx - centre[0], yy - centre[1])

    luma = patch @ LUMA
    # Painted and drawn irises are larger than the landmarks' human one.
    left, right = (_iris_reach(luma, opening, side * (xx - centre[0]), yy - centre[1], radius) for side in (-1, 1))
    centre = centre + [0.5 * (right - left) * radius, 0.0]
    radius *= 0.5 * (left + right)
    rr = np.hypot(xx - centre[0], yy - centre[1])
    white = opening * smoothstep(1.03 * radius + soft, 1.10 * radius + 2.2 * soft, rr)
    if white.sum() < 6.0:
        white = opening * smoothstep(0.6 * radius, 1.2 * radius, rr) + 1e-3 * opening
    if white.sum() < 0.5:
        white = np.exp(-((rr / radius) ** 2)) + 1e-3
    # What the iris hides is as bright as the brightest of the white that shows (lashes darken the rest), shaded by the
    # lid.
    dim, bright = weighted_quantiles(luma, white, (0.55, 0.9))
    lit = fill_smooth(patch, white * (0.05 + 0.95 * smoothstep(dim - 1.0, bright + 1.0, luma)))
    lit = lit * (1.0 - 0.22 * np.exp(-np.maximum(eta - upper, 0.0) / 0.012))[..., None]
    sclera = fill_smooth(patch, white)
    sclera = sclera + (lit - sclera) * (smoothstep(1.30 * radius, 1.10 * radius, rr) * (1.0 - white))[..., None]
    # The rim under the lids is dark in the source: keep it.
    rim_shown = smoothstep(-1.0 * px, 0.3 * px, eta - upper) * smoothstep(-1.0 * px, 0.3 * px, lower - eta)
    rim_shown = rim_shown * smoothstep(1.03 * radius + soft, 1.10 * radius + 2.2 * soft, rr)
    rimmed = sclera + (patch - sclera) * rim_shown[..., None]

    # Iris: rings of the visible part, the hidden part by rings and up-down mirror.
    seen = opening * (rr < 1.02 * radius)
    rings = np.arange(0.0, radius * 1.15 + 2.0)
    profile = np.zeros((len(rings), 3))
    have = np.zeros(len(rings), bool)
    for i, ring in enumerate(rings):
        near = (np.abs(rr - ring) < 1.0) & (opening > 0.7)
        colour = measured(lambda pixels: np.median(pixels, 0), patch[near], none=None, least=3)
        if colour is not None:
            profile[i], have[i] = colour, True
    if have.any():
        for k in range(3):
            profile[:, k] = np.interp(rings, rings[have], profile[have, k])
    else:
        profile[:] = sclera[int(np.clip(centre[1], 0, h - 1)), int(np.clip(centre[0], 0, w - 1))]
    radial = np.stack([np.interp(rr, rings, profile[:, k]) for k in range(3)], -1)
    flip = np.clip(np.round(2 * centre[1] - yy).astype(int), 0, h - 1)
    mirror, mirror_seen = patch[flip, xx], (seen[flip, xx] * (rr < radius))[..., None]
    hidden = radial + 0.5 * mirror_seen * (mirror - radial)
    iris = hidden + (patch - hidden) * (opening * (rr < 1.25 * radius))[..., None]

    # Highlights on the cornea stay behind when the eye turns.
    level = radial @ LUMA
    thr = max(0.25 * float(measured(np.mean, (sclera @ LUMA)[opening > 0.5], none=120.0)), 18.0)
    spot = smoothstep(0.8 * thr, 1.6 * thr, iris @ LUMA - level) * (rr < 0.80 * radius)
    spot = np.clip(blur(spot, 0.7) * 1.4, 0.0, 1.0)
    dull = iris + (np.minimum(iris, radial + 0.2 * thr) - iris) * spot[..., None]
    glint = np.clip((iris - dull) @ LUMA, 0.0, 255.0)

    inner, outer = opening * (rr < 0.8 * radius), opening * (rr > 1.15 * radius)
    contrast = 0.0
    if inner.sum() > 1.0 and outer.sum() > 1.0:
        dark, light = (weighted_quantiles(luma, *part)[0] for part in ((inner, (0.3,)), (outer, (0.6,))))
        contrast = float((light - dark) / max(light, 20.0))
    alpha = smoothstep(1.02 * radius + 0.9 * soft, 1.02 * radius - 0.9 * soft, rr)
    whole = sclera + (iris - sclera) * alpha[..., None]
    whole = whole + (patch - whole) * opening[..., None]
    texture[..., BALL : BALL + 3] = whole
    texture[..., SCLERA : SCLERA + 3] = rimmed
    texture[..., IRIS : IRIS + 3] = dull
    texture[..., IRIS_ALPHA] = alpha
    texture[..., GLINT] = glint * alpha
    return contrast


def _iris_reach(luma: Floats, opening: Floats, dx: Floats, dy: Floats, radius: float) -> float:
    """Where the iris ends towards +dx, as a factor on the landmarks' radius: the last step up to the eye white.

    1 where no such step is seen.
    """
    rr = np.hypot(dx, dy) / radius
    sideways = opening * (np.abs(dy) < 0.6 * dx)
    rings = np.arange(0.60, 1.65, 0.03)
    near = np.exp(-0.5 * ((rr[..., None] - rings) / 0.05) ** 2) * sideways[..., None]
    mass = near.sum((0, 1))
    profile = (near * luma[..., None]).sum((0, 1)) / np.maximum(mass, 1e-6)
    seen = mass > 0.15 * max(float(mass.max()), 1e-6)
    if not (seen & (rings > 1.1)).any():
        return 1.0
    low = float(measured(lambda levels: np.quantile(levels, 0.25), profile[seen & (rings < 1.2)], none=255.0))
    high = float(measured(np.max, profile[seen & (rings > 1.0)], none=0.0))
    step = seen[1:] & (profile[:-1] < (low + high) / 2) & (profile[1:] >= (low + high) / 2)
    if high - low < 15.0 or not step.any():
        return 1.0
    return float(np.clip(rings[:-1][step][-1] + 0.015, 0.85, 1.4))


def draw_eyes(image: npt.NDArray[np.uint8], layers: EyeLayers, geometry: Geometry, pose: Pose) -> None:
    """Draws both eyes into a warped frame, in place; without lid or eye motion nothing is touched.

    Args:
        image: (S, S, 3) RGB.
    """
    for index, layer in enumerate(layers):
        view, curves = eye_view(layer, geometry, pose, float(pose.closure[index]))
        if view is not None:
            ops.draw_eye(image, layer.texture, curves, layer.strip, view)


def lid_path(frame: EyeFrame, lids: LidCurves, lashes: LashLine) -> LidPath:
    gap = lids.lower - lids.upper
    height = float(gap.max())
    profile = np.clip(gap / max(height, 1e-3), 0.0, 1.0)
    outward = smoothstep(-0.10, 0.55, XI * frame.outer)
    travel = gap * UPPER_SHARE + (TUCK * np.clip(2.0 * profile, 0.0, 1.0) + DROOP * outward) * lids.inside
    moving = np.zeros(len(gap))
    curves = [moving, moving, lids.edge, moving, moving, lids.upper, lids.inside]
    curves += [_ROOT * lashes.thickness, lashes.core, lashes.width, *lashes.colour.T]
    return LidPath(gap, height, profile, travel, np.stack(curves, -1).astype(np.float32))


def eye_view(
    layer: EyeLayer, geometry: Geometry, pose: Pose, closure: float
) -> tuple[EyeView | None, npt.NDArray[np.float32]]:
    """Where the lids, the iris and the patch of one eye are in a frame; None when the eye is at rest."""
    frame, lids = layer.frame, layer.lids
    width = frame.width_px / frame.scale_px
    limit = np.array(GAZE_LIMIT) * width
    turn = np.clip(pose.delta[layer.eye.iris_keypoint, :2], -limit, limit) * layer.has_iris
    gaze = geometry.scale_px * (turn @ geometry.rotation[:2, :2])

    gap, height, profile, travel, still = layer.path
    drop = float(np.clip(pose.delta[Keypoint.LOWER_LIDS, 1] / max(height, 1e-3), *_LOWER_RANGE)) * height * layer.has_iris
    b = closure * layer.has_iris
    travel = travel if b > 0.0 else gap  # times b: they agree at 0
    line = lids.upper + b * travel + drop * profile
    lower = lids.lower - (1.0 - UPPER_SHARE) * max(b, 0.0) * gap + drop * profile
    rise = lids.upper - line  # what lifts the lid takes its skin along; what closes it does not
    moved_px = max(abs(b) * height * pose.scale_px, abs(drop) * pose.scale_px, float(np.hypot(*gaze)))
    gain = float(smoothstep(0.0, 1.2, moved_px))
    curves = still.copy()
    curves[:, 0], curves[:, 1] = line, lower
    curves[:, 3] = np.maximum(rise, 0.0) + np.minimum(rise + max(b, 0.0) * travel, 0.0)
    curves[:, 4] = lids.lower - lower
    if gain <= 0.0:
        return None, curves

    # Frame px -> source px, quadratic, from the landmarks around the eye.
    target = pose.vertices[layer.anchors, :2]
    source = geometry.landmarks[layer.anchors, :2]
    centre = target.mean(0)
    reach = 0.15 * pose.scale_px
    p = (target - centre) / reach
    basis = np.stack([np.ones(len(p)), p[:, 0], p[:, 1], p[:, 0] ** 2, p[:, 0] * p[:, 1], p[:, 1] ** 2], -1)
    w = np.sqrt(layer.anchor_weights)[:, None]
    fit = np.linalg.lstsq(basis * w, (source - layer.origin) * w, rcond=None)[0].T  # (2, 6)
    to_eye = frame.matrix.copy()
    to_eye[:, 2] += to_eye[:, :2] @ layer.origin
    jacobian = to_eye[:, :2] @ fit[:, 1:3] / reach  # frame px -> xi, eta at the centre
    if abs(np.linalg.det(jacobian)) < 1e-9:  # an eye seen edge on: nothing to draw
        return None, curves
    down = inverse_2x2(jacobian)[:, 1]
    margin = 0.075 * pose.scale_px
    low, high = target.min(0) - margin, target.max(0) + margin
    size_y, size_x = geometry.size, geometry.size
    box = (
        max(int(np.floor(low[0])), 0),
        max(int(np.floor(low[1])), 0),
        min(int(np.ceil(high[0])) + 1, size_x),
        min(int(np.ceil(high[1])) + 1, size_y),
    )
    view = EyeView(
        box=box,
        to_source=fit,
        centre=(float(centre[0]), float(centre[1])),
        reach=reach,
        to_eye=to_eye,
        down=(float(down[0]), float(down[1])),
        xi_limit=XI_LIMIT,
        sharpness=float(np.hypot(*down)) / max(1.0, 1.6 * layer.soft * pose.scale_px / geometry.scale_px),
        gain=gain,
        lid=float(smoothstep(0.0, 0.14, b)),
        bared=float(smoothstep(0.0, 0.22, b)),
        crease=0.7 * float(smoothstep(0.30, 0.90, b)),
        shut=float(smoothstep(0.40, 0.95, b)),
        turn=float(smoothstep(0.15, 0.75, b)),
        crisp=float(smoothstep(0.06, 0.40, b)),
        gaze=(float(gaze[0]), float(gaze[1])),
        layered=float(smoothstep(0.0, 1.5, np.hypot(*gaze))),
        hair=HAIR_LENGTH,
        shadow=0.35,
        reach_up=0.045,
        reach_down=0.045,
    )
    return view, curves
