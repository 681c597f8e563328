"""The mouth: lips that meet without folding, and behind them tongue, teeth and shade.

Prepared once per portrait (`prepare_mouth`), then per frame: `limit_lips` on the keypoint change, `part_lips` on the
mesh displacement, `draw_mouth` as the last layer of the picture. Lengths in face units unless named `_px`.

Numbers without a note, in the functions too, were chosen by eye, the first for the
prototype on stills of five talking clips (../shared/renderer/spec.md, 2.4 and 2.6).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto import ops
from ditto.lite.rendering.mouth_source import (
    Colours,
    OwnTeeth,
    find_own_teeth,
    measure_blur,
    measure_colours,
    measure_grain,
    measure_overlap,
    measure_side_light,
)
from ditto.lite.rendering.teeth import LOWER, UPPER, Sprite, arch_curve, draw_arch
from ditto.motion.motion import INNER_LIPS, MOUTH_CORNERS, Keypoint
from ditto.ops.reference.mouth import COLUMN_CHANNELS, Channel, Scene
from ditto.portrait.face_mesh import (
    LOWER_INNER_LIP,
    LOWER_OUTER_LIP,
    PARTED_LIPS,
    UPPER_INNER_LIP,
    UPPER_OUTER_LIP,
    Geometry,
    Pose,
    inner_gap,
    inverse_2x2,
    smoothstep,
)

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.float32]

PRESS = 0.004  # lips that touch may still be pressed by this much
USUAL_WIDTH = 0.34  # fu between the inner corners of a mouth that does not smile
OWN_TEETH_GAP = 0.035  # narrower slits show too little of a tooth to go on from
NARROWEST = 0.36  # of the distance between the mouth's corners
# Edge of the upper incisors below the line where the lips meet: .022 to .025 (../shared/renderer/end_to_end.md, fault 4).
UPPER_EDGE = 0.0235
LOWER_EDGE = 0.019
COLUMNS = 128
FRONTAL = (0.02, 0.05)  # fu across the picture between the corners: in profile the inside of the mouth is hidden
LIP_BORDER = 0.004  # beside a portrait's own teeth lie pixels that are half tooth, half lip
SEAM_PX = 1.5  # in a crop of 512
SHADE_UPPER, SHADE_LOWER = 1.0, 0.74
LIP_LIGHT: Floats = np.array([0.27, -0.08, -0.12])  # light between lips reddens as it fades
ARC, ARCH_X, ARCH_Z = arch_curve()
NO_TEETH: Array = np.zeros((2, 2, 4), np.float32)

# Vertical chains of landmarks from the lips outwards; neighbours keep at least KEEP of their
# distance, so that lips do not fold.
KEEP = 0.45
KEEP_ALONG = 0.25  # and neighbours along a lip this much
# A lower lip grows no thicker than this share of its own; beyond it the whole lip rises and the skin below stretches. In
# speech lips that are shut in the picture grow to 1.5; without a limit disgust thickens small painted ones to 2. With 1.65
# MediaPipe no longer sees disgust (`benchmarks.controls emotion`: mouthUpperUp .245; .258 with 1.75, .271 without a limit).
THICKEN = 1.75
LIP_RISES = (0.0, 1 / 3, 2 / 3, 1.0, 0.5)  # share of that, from the inner edge to the skin below
CHAINS = (
    (14, 15, 16, 17, 18, 200, 199), (87, 86, 85, 84, 83, 201), (317, 316, 315, 314, 313, 421),
    (178, 179, 180, 181, 182), (402, 403, 404, 405, 406), (88, 89, 90, 91), (318, 319, 320, 321),
    (13, 12, 11, 0, 164), (82, 38, 72, 37, 167), (312, 268, 302, 267, 393), (81, 41, 73, 39, 165),
    (311, 271, 303, 269, 391), (80, 42, 74, 40, 92), (310, 272, 304, 270, 322),
)  # fmt: skip


class MouthLayers(NamedTuple):
    """The parts of one portrait's mouth.

    Attributes:
        anchor: (3,) head frame: where the lips meet.
        own_gap: (11,) opening of each inner-lip pair in the portrait, at least 0.
        width: distance between the inner corners in the portrait.
        colours: measured in the portrait.
        upper, lower: dental arches.
        upper_edge: edge of the upper incisors, y in the head frame.
        lower_edge: edge of the lower incisors with the jaw as in the portrait.
        arch_z: depth of the incisors, head frame.
        own: the portrait's own teeth, or None.
        overlap: (2, 41) how far the portrait's teeth reach over the upper and the lower inner-lip landmarks.
        blur_px: Gaussian sigma of the portrait's sharpest edges.
        grain: (g, g) float32, the portrait's own fine structure, levels.
        side_light: see `measure_side_light`.
        columns: (COLUMNS, COLUMN_CHANNELS) float32, see `_still_columns`.
    """

    anchor: Floats
    own_gap: Floats
    width: float
    colours: Colours
    upper: Sprite
    lower: Sprite
    upper_edge: float
    lower_edge: float
    arch_z: float
    own: OwnTeeth | None
    overlap: Floats
    blur_px: float
    grain: Array
    side_light: float
    columns: Array


def prepare_mouth(crop: npt.NDArray[np.uint8], geometry: Geometry, mask: npt.NDArray[np.float32]) -> MouthLayers:
    """Measures colours, sharpness and own teeth of a portrait, and draws its dental arches.

    Args:
        crop: (S, S, 3) RGB.
        mask: (S, S), 1 where the person is.

    Raises:
        ValueError: if the crop or the mask is not of the geometry's size.
    """
    size = geometry.size
    if crop.shape != (size, size, 3) or crop.dtype != np.uint8 or mask.shape != (size, size):
        raise ValueError(
            f"expected a crop ({size}, {size}, 3) uint8 and a mask ({size}, {size}), got {crop.shape} {crop.dtype} and "
            f"{mask.shape}; give those of the geometry"
        )
    canonical = geometry.canonical
    gap = inner_gap(canonical)
    is_open = gap > PARTED_LIPS
    anchor = canonical[13].copy() if is_open else canonical[[13, 14]].mean(0)
    colours = measure_colours(crop, geometry, mask)
    own = find_own_teeth(crop, geometry, anchor, colours) if gap > OWN_TEETH_GAP else None
    blur_px = measure_blur(crop, geometry)
    tooth = colours.tooth
    upper_edge = float(anchor[1]) + UPPER_EDGE + (0.004 if is_open else 0.0)
    if own is not None:
        tooth, upper_edge = own.tooth, own.edge
    per_unit = 1.5 * geometry.scale_px
    sigma = 1.5 * float(np.sqrt(blur_px**2 + 0.2))  # enamel is softer than any edge of skin
    upper = draw_arch(UPPER, True, tooth, colours.gum, per_unit, sigma)
    lower = draw_arch(LOWER, False, tooth, colours.gum, per_unit, sigma)
    return MouthLayers(
        anchor=anchor,
        own_gap=np.maximum(canonical[LOWER_INNER_LIP, 1] - canonical[UPPER_INNER_LIP, 1], 0.0),
        width=mouth_width(canonical),
        colours=colours,
        upper=upper,
        lower=lower,
        upper_edge=upper_edge,
        lower_edge=float(anchor[1]) + LOWER_EDGE + (0.5 * gap if is_open else 0.0),
        arch_z=float(canonical[[13, 82, 312], 2].mean()) + 0.035,
        own=own,
        overlap=measure_overlap(crop, geometry),
        blur_px=blur_px,
        grain=measure_grain(crop, geometry),
        side_light=measure_side_light(crop, geometry),
        columns=_still_columns(colours),
    )


def limit_lips(geometry: Geometry, delta: npt.ArrayLike) -> Floats:
    """(21, 3) keypoint change that closes the mouth no further than shut, and narrows it no more than lips can.

    The chin gives way half as much as the lower lip. Narrowing saturates at NARROWEST of the portrait's own width.
    """
    change = np.array(delta, np.float64)
    gap = inner_gap(geometry.canonical)
    room = max(gap, 0.0) - (0.010 if gap < PARTED_LIPS else 0.004)
    least = -max(room + 0.008, PRESS)
    upper, lower = INNER_LIPS
    over = min(change[lower, 1] - change[upper, 1] - least, 0.0)
    change[lower, 1] -= over
    change[Keypoint.CHIN, 1] -= 0.5 * over

    right, left = MOUTH_CORNERS
    limit = NARROWEST * (geometry.keypoints[left, 0] - geometry.keypoints[right, 0])
    narrowing = change[right, 0] - change[left, 0]
    knee = 0.6 * limit
    if narrowing > knee:
        kept = (knee + (limit - knee) * np.tanh((narrowing - knee) / (limit - knee))) / narrowing
        middle = 0.5 * (change[right, 0] + change[left, 0])
        for corner in MOUTH_CORNERS:
            change[corner, 0] = middle + kept * (change[corner, 0] - middle)
    return change


def part_lips(geometry: Geometry, displacement: npt.ArrayLike) -> Floats:
    """(478, 3) displacement under which inner lips touch without crossing and lip skin does not fold.

    Each rule adds what is lacking, which is 0 where it begins to hold: the result is continuous.
    """
    source = geometry.canonical
    moved = source + np.asarray(displacement, np.float64)
    upper, lower = UPPER_INNER_LIP[1:-1], LOWER_INNER_LIP[1:-1]
    own = source[lower, 1] - source[upper, 1]
    if inner_gap(source) < PARTED_LIPS:
        least = np.minimum(own, 0.012)
    else:
        least = 0.005 * np.sin(np.linspace(0, np.pi, 11))[1:-1]
    crossing = np.minimum(moved[lower, 1] - moved[upper, 1] - least, 0.0)
    moved[upper, 1] += 0.5 * crossing
    moved[lower, 1] -= 0.5 * crossing
    # Along the lips, as seen in the portrait's own pose: in a turned face the far side would fold first.
    across = geometry.rotation[:, 0]
    seen, seen0 = moved @ across, source @ across
    for contour in (UPPER_INNER_LIP, LOWER_INNER_LIP, UPPER_OUTER_LIP, LOWER_OUTER_LIP):
        for half in (contour[5::-1], contour[5:]):
            for near, far in pairwise(half):
                least_apart = KEEP_ALONG * (seen0[far] - seen0[near])
                short = least_apart - (seen[far] - seen[near])
                if short * least_apart > 0:
                    seen[far] += short
                    moved[far, 0] += short / max(float(across[0]), 0.3)
    y, y0 = moved[:, 1], source[:, 1]
    for lip in (chain for chain in CHAINS if chain[0] in LOWER_INNER_LIP):
        inner, outer = lip[0], lip[3]
        grown = max(y[outer] - y[inner] - THICKEN * (y0[outer] - y0[inner]), 0.0)
        for landmark, share in zip(lip, LIP_RISES, strict=False):
            y[landmark] -= share * grown
    for chain in CHAINS:
        for inner, outer in pairwise(chain):
            least_apart = KEEP * (y0[outer] - y0[inner])
            short = least_apart - (y[outer] - y[inner])
            if short * least_apart > 0:
                y[outer] += short
    return np.asarray(moved - source)


def gradient(y: Floats, x: Floats) -> Floats:
    """`np.gradient(y, x)` of two (n,), bit for bit, in half the time."""
    step = np.diff(x)
    if (step == step[0]).all():
        return np.gradient(y, x)
    before, after = step[:-1], step[1:]
    slope = np.empty_like(y)
    slope[1:-1] = (
        -after / (before * (before + after)) * y[:-2]
        + (after - before) / (before * after) * y[1:-1]
        + before / (after * (before + after)) * y[2:]
    )
    slope[0], slope[-1] = (y[1] - y[0]) / step[0], (y[-1] - y[-2]) / step[-1]
    return slope


def _curve(x: Floats, y: Floats, at: Floats) -> Floats:
    """Cubic through (x, y), x rising; flat continuation outside."""
    slope = gradient(y, x)
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    width = x[i + 1] - x[i]
    t = np.clip((at - x[i]) / width, 0, 1)
    a, b = y[i], y[i + 1]
    return np.asarray(a + t * t * (3 - 2 * t) * (b - a) + width * t * (1 - t) * ((1 - t) * slope[i] - t * slope[i + 1]))


class _Opening(NamedTuple):
    """The gap between the lips as seen in one frame, along COLUMNS evenly spaced x of the head frame's plane.

    The plane goes through the anchor; `in_plane` maps its x, y to pixels (with `origin`), `to_plane` back.
    """

    x: Floats
    upper: Floats  # y of the lips' edges
    lower: Floats
    shown: Floats  # 0..1: how much the layer covers the picture
    light: Floats  # 0..1: what enters between the lips
    pressed: Floats  # height of the lip to be painted over teeth that show where lips are pressed together
    in_plane: Floats
    to_plane: Floats
    origin: Floats

    @property
    def gap(self) -> Floats:
        return self.lower - self.upper


def _opening(layers: MouthLayers, geometry: Geometry, pose: Pose) -> _Opening | None:
    """None where the lips are as in the portrait."""
    rest, now = geometry.canonical, pose.canonical
    lips = UPPER_INNER_LIP + LOWER_INNER_LIP
    motion = float(np.abs(now[lips] - rest[lips]).max())
    gain = float(smoothstep(0.0015, 0.006, motion))
    upper_lip, lower_lip = pose.delta[list(INNER_LIPS), 1]
    press = float(smoothstep(0.0008, 0.0035, upper_lip - lower_lip))
    if max(gain, press) <= 0:
        return None
    in_plane = pose.scale_px * pose.rotation[:2, :2]
    to_plane = inverse_2x2(in_plane)
    origin = (
        (layers.anchor @ pose.rotation)[:2] * pose.scale_px + pose.translation_px[:2] - layers.anchor[:2] @ in_plane
    )
    outline = (pose.vertices[lips][:, :2] - origin) @ to_plane
    left, right = outline[0, 0], outline[10, 0]
    frontal = float(smoothstep(*FRONTAL, right - left))
    if frontal <= 0:
        return None
    # x must rise along a lip; a strongly turned or puckered one is straightened at its ends.
    x_upper, x_lower = (np.maximum.accumulate(lip[:, 0]) + 1e-4 * np.arange(11) for lip in (outline[:11], outline[11:]))
    x = np.linspace(left, right, COLUMNS)
    upper, lower = _curve(x_upper, outline[:11, 1], x), _curve(x_lower, outline[11:, 1], x)
    crossing = np.minimum(lower - upper, 0.0)
    upper, lower = upper + 0.5 * crossing, lower - 0.5 * crossing
    gap = lower - upper
    x_pair = 0.5 * (x_upper + x_lower)

    # What of the portrait's teeth rides on a lip is painted over as soon as there is an opening to speak of.
    parted = smoothstep(0.003, 0.012, gap)
    samples = np.arange(layers.overlap.shape[1])
    along = np.interp(x, x_pair, np.linspace(0, samples[-1], 11))
    overlap = np.interp(along, samples, layers.overlap[1])
    upper = upper - parted * np.interp(along, samples, layers.overlap[0])
    light, pressed = smoothstep(0.006, 0.032, gap + 0.6 * parted * overlap), np.zeros(COLUMNS)

    pair_gap = np.maximum(now[LOWER_INNER_LIP, 1] - now[UPPER_INNER_LIP, 1], 0.0)
    if inner_gap(rest) > PARTED_LIPS:
        # Lips that were apart have no line between them when they meet: one is painted, over what is squeezed there.
        seam = SEAM_PX * (geometry.size / 512) / float(np.linalg.norm(in_plane[1]))
        thin = 0.5 * np.maximum(seam - gap, 0.0) * np.minimum(gap / 0.001, 1)
        upper, lower = upper - thin, lower + thin + parted * (overlap + LIP_BORDER)
        change = np.abs(pair_gap - layers.own_gap) / (layers.own_gap + 0.012)
        shown = np.maximum(smoothstep(0.08, 0.45, change), smoothstep(0.006, 0.018, motion))
    else:
        shown = smoothstep(0.002, 0.009, pair_gap - layers.own_gap)
        # Lips that the landmarks call closed may show a line of teeth; pressing them together hides it.
        pressed = press * overlap
        lower = lower + np.maximum(parted, press) * overlap
    cover = np.maximum(gain * np.interp(x, x_pair, shown), smoothstep(0.001, 0.004, pressed)) * frontal * _ENDS
    return _Opening(x, upper, lower, cover, light, pressed, in_plane, to_plane, origin)


_SIDEWAYS = np.linspace(-1, 1, COLUMNS)
_ENDS = np.minimum(0.5 * COLUMNS * (1 - np.abs(_SIDEWAYS)) / 2, 1)  # lips that stay apart at a corner end in no cut
_INNER = smoothstep(0.98, 0.70, np.abs(_SIDEWAYS))  # corners are dark, whatever the lips beside them look like
_CORNER_LIGHT = 1 - 0.62 * smoothstep(0.35, 1.0, np.abs(_SIDEWAYS))


def _still_columns(colours: Colours) -> Array:
    """(COLUMNS, COLUMN_CHANNELS) what `ops.paint_mouth` takes of each column, those filled in that stay."""
    columns = np.zeros((COLUMNS, COLUMN_CHANNELS), np.float32)
    along = np.linspace(-1, 1, 11)
    for channel, strip in (
        (Channel.SEAM, colours.seam),
        (Channel.LOWER_RIM, colours.lower_rim),
        (Channel.UPPER_RIM, colours.upper_rim),
    ):
        for i in range(3):
            columns[:, channel + i] = np.interp(_SIDEWAYS, along, strip[:, i])
    return columns


def mouth_width(canonical: Floats) -> float:
    return float(np.linalg.norm(canonical[308] - canonical[78]))


def draw_mouth(image: npt.NDArray[np.uint8], layers: MouthLayers, geometry: Geometry, pose: Pose) -> None:
    """Paints the inside of the mouth into a rendered frame (S, S, 3), in place; nothing changes with lips at rest."""
    _smooth_corners(image, geometry, pose)
    opening = _opening(layers, geometry, pose)
    if opening is None:
        return
    rest, now = geometry.canonical, pose.canonical
    x, gap, colours = opening.x, opening.gap, layers.colours
    wider = mouth_width(now) / layers.width
    usual = min(layers.width, USUAL_WIDTH)  # a smile that goes is no rounding
    rounding = float(smoothstep(0.06, 0.30, 1 - mouth_width(now) / usual))  # protruding lips keep the light from the teeth
    widest = max(float(now[14, 1] - now[13, 1]), float(gap.max()), 0.01)
    openness = float(smoothstep(0.02, 0.12, widest))
    chin = now[152] - rest[152]
    visible = 0.006 + 0.026 * float(np.clip((wider - 0.90) / 0.30, 0, 1))
    lower_edge = max(layers.lower_edge + float(chin[1]), float(now[14, 1]) - visible)
    middle = 0.5 * (rest[61, 0] + rest[291, 0])

    columns = layers.columns.copy()
    columns[:, Channel.UPPER_LIP], columns[:, Channel.LOWER_LIP] = opening.upper, opening.lower
    px_y = float(np.linalg.norm(opening.in_plane[1]))
    columns[:, Channel.UPPER_STEEPNESS] = px_y / np.hypot(1, gradient(opening.upper, x))
    columns[:, Channel.LOWER_STEEPNESS] = px_y / np.hypot(1, gradient(opening.lower, x))
    columns[:, Channel.SHOWN] = opening.shown
    columns[:, Channel.LIGHT] = opening.light
    columns[:, Channel.LOWER_ROLL] = _INNER * np.maximum(np.minimum(0.016, 0.32 * gap), 1.4 * opening.pressed)
    columns[:, Channel.UPPER_ROLL] = _INNER * np.minimum(0.008, 0.18 * gap)

    # Depth moves the arches sideways in a turned head; past some 20 degrees fitted depths are not to be trusted.
    parallax = np.clip(pose.rotation[2, :2] @ inverse_2x2(pose.rotation[:2, :2]), -0.32, 0.32)
    corner = (1 - 0.5 * rounding) * _CORNER_LIGHT * (1 + layers.side_light * _SIDEWAYS)
    stretch = float(np.clip(layers.width / 0.30, 0.88, 1.12))
    bow = np.zeros(COLUMNS)
    if layers.own is not None:
        from_anchor = np.clip(x - layers.anchor[0], -0.16, 0.16)
        bow = layers.own.edge_slope * from_anchor + layers.own.edge_bow * from_anchor**2
    for channel, sprite, edge, z, narrow, shift, shade in (
        (Channel.UPPER_TEETH, layers.upper, layers.upper_edge + bow, layers.arch_z, 1.0, 0.0, SHADE_UPPER),
        (Channel.LOWER_TEETH, layers.lower, lower_edge, layers.arch_z + 0.018, 0.93, 0.4 * float(chin[0]), SHADE_LOWER),
    ):
        depth = ARCH_Z + (z - layers.anchor[2])
        seen_x = ARCH_X * stretch * narrow + middle + shift + depth * parallax[0]
        arc = np.interp(x, np.maximum.accumulate(seen_x) + 1e-6 * np.arange(len(seen_x)), ARC)
        row = edge + np.interp(arc, ARC, depth) * parallax[1]
        columns[:, channel] = arc * sprite.per_unit + 0.5 * (sprite.pixels.shape[1] - 1)
        columns[:, channel + 1] = sprite.edge_row - row * sprite.per_unit
        far = smoothstep(0.010, 0.12, np.interp(arc, ARC, ARCH_Z))
        grazing = smoothstep(-0.05, 0.45, np.interp(arc, ARC, gradient(seen_x, ARC)))
        columns[:, channel + 2] = shade * corner * (1 - 0.35 * far) * (0.25 + 0.75 * grazing)

    # A jaw lower than the lips' opening needs means a tongue at the teeth.
    raised = float(smoothstep(0.006, 0.026, float(chin[1]) - 0.45 * max(widest - float(layers.own_gap[5]), 0.0)))
    tip = lower_edge + 0.010
    back = tip - (0.055 + 0.035 * openness) - raised * max(lower_edge - layers.upper_edge, 0.0)
    constant = -opening.origin @ opening.to_plane
    own, strength = layers.own, 1.0 if layers.own is None else 0.45  # the portrait's own teeth have their shadows
    scene = Scene(
        x_from_px=(opening.to_plane[0, 0], opening.to_plane[1, 0], constant[0]),
        y_from_px=(opening.to_plane[0, 1], opening.to_plane[1, 1], constant[1]),
        left=x[0],
        columns_per_unit=(COLUMNS - 1) / (x[-1] - x[0]),
        edge_px=max(1.0, 2.2 * layers.blur_px),
        teeth_per_unit=layers.upper.per_unit,
        cavity=colours.cavity,
        tongue=colours.tongue,
        tongue_middle=middle,
        tongue_back=back,
        tongue_tip=tip,
        tongue_half_width=0.12 * stretch,
        tongue_light=0.55 + 0.45 * openness,
        widest=widest,
        own_shade=0.0 if own is None else 1 - 0.6 * rounding,
        own_column=(0.0, 0.0, 0.0) if own is None else tuple(own.from_plane[0]),
        own_row=(0.0, 0.0, 0.0) if own is None else tuple(own.from_plane[1]),
        upper_shadow=1 - 0.34 * strength,
        upper_reach=0.030,
        lower_shadow=1 - 0.16 * strength,
        lower_reach=0.018,
        lower_roll_shade=0.45,
        upper_roll_shade=0.55,
        grain=0.8,
        grain_per_unit=geometry.scale_px,
        tint=colours.saturation * LIP_LIGHT,
    )
    outline = pose.vertices[UPPER_INNER_LIP + LOWER_INNER_LIP][:, :2]
    margin = 2 + int(np.ceil(scene.edge_px + float(layers.overlap.max()) * pose.scale_px))
    left, top = np.maximum(np.floor(outline.min(0)).astype(int) - margin, 0)
    right, bottom = np.minimum(np.ceil(outline.max(0)).astype(int) + margin + 1, image.shape[1::-1])
    ops.paint_mouth(
        image,
        (int(left), int(top), int(right), int(bottom)),
        columns,
        scene,
        layers.upper.pixels,
        layers.lower.pixels,
        NO_TEETH if own is None else own.pixels,
        layers.grain,
    )


def _smooth_corners(image: npt.NDArray[np.uint8], geometry: Geometry, pose: Pose) -> None:
    """Lightens the shadow that a mouth corner leaves in the skin when it is drawn inwards, in place."""
    for corner, side in ((61, -1.0), (291, 1.0)):
        inward = side * float(geometry.canonical[corner, 0] - pose.canonical[corner, 0])
        amount = float(smoothstep(0.008, 0.055, inward))
        if amount <= 0:
            continue
        across = pose.vertices[308, :2] - pose.vertices[78, :2]
        direction = side * across / max(float(np.linalg.norm(across)), 1e-6)
        ops.smooth_corner(image, pose.vertices[corner, :2], direction, pose.scale_px, amount)
