"""The motion map: what each of the 63 expression numbers of a motion space does to a face, and how far it may go.

Numbers are head values (`ditto.motion.space`): x to the right of the picture, y down, z away from the camera; face units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.motion.motion import (
    BROWS,
    CHEEKS,
    INNER_LIPS,
    IRISES,
    JAW,
    KEYPOINTS,
    MOUTH_CORNERS,
    TEMPLATE_APERTURE,
    Keypoint,
)

Floats = npt.NDArray[np.float64]

AXES = "xyz"
UNIT = "face units"
UNKNOWN = "no visible effect known"
NOTHING, HARDLY = "no visible effect", "hardly visible"
# A soft limit ends at this many times the safe range: the clamp of the lite renderer too is the identity up to 3/4 of its
# limits (`CLAMP_KNEE`; ../shared/renderer/spec.md, 2.3).
REACH = 4.0 / 3.0
TERMS = 4  # of a relation, at most

Words = tuple[str, str]  # what minus and plus do
Range = tuple[float, float]
Form = Mapping[tuple[Keypoint, int], float]  # a linear form: weights by keypoint and axis


class Role(NamedTuple):
    """What a keypoint does.

    Attributes:
        region: of the face.
        moves: in plain words.
        words: what minus and plus of x, y and z do.
        ranges: of x, y and z that real faces use, in any combination with the other keypoints.
    """

    region: str
    moves: str
    words: tuple[Words, Words, Words]
    ranges: tuple[Range, Range, Range]


class Dimension(NamedTuple):
    """One of the 63 expression numbers.

    Attributes:
        name: keypoint and axis: `left_brow.y`.
        region: of the face.
        minus, plus: what a negative and a positive number do.
        safe_low, safe_high: where a real face still is when only this number leaves 0.
        unit: of the number.
    """

    name: str
    keypoint: Keypoint
    axis: int
    region: str
    minus: str
    plus: str
    safe_low: float
    safe_high: float
    unit: str = UNIT

    @property
    def number(self) -> int:
        """Place among the 63."""
        return 3 * self.keypoint + self.axis


class Relation(NamedTuple):
    """How far several numbers may differ: a linear form of the expression, and what gives way beyond its range.

    Attributes:
        name: in words.
        form: weights by number; the measure is their sum of products, of at most `TERMS`.
        move: by number, what a correction of the measure by 1 changes.
        low, high: safe range of the measure.
        least, most: ends of the soft limit.
    """

    name: str
    form: Mapping[int, float]
    move: Mapping[int, float]
    low: float
    high: float
    least: float
    most: float

    def measure(self, face: Floats) -> Floats:
        """(...,) of expressions (..., 63), by elementwise sums, so that one frame and many give the same bits."""
        return np.asarray(sum(weight * face[..., i] for i, weight in self.form.items()))


class Whole(NamedTuple):
    """How far a part of the face may go in everything at once.

    Its measure is the root of the sum of squares of all numbers and relations of the part, each over the safe end on its side.

    Attributes:
        name: of the part.
        keypoints: of the part.
        safe, most: end of the safe range, and of the soft limit.
    """

    name: str
    keypoints: tuple[Keypoint, ...]
    safe: float
    most: float


@dataclass(frozen=True, eq=False)
class MotionMap:
    """The map of a motion space. Iterates over its 63 dimensions.

    Attributes:
        roles: of the 21 keypoints.
        relations: between numbers, in the order in which soft limits apply them: a later one never changes the measure of an
            earlier one.
        wholes: parts of the face; no relation joins two of them.
        lids_in_irises: whether y and z of the irises' keypoints move the lids (`ditto.motion.regions.region_masks`).
    """

    roles: Mapping[Keypoint, Role]
    relations: tuple[Relation, ...]
    wholes: tuple[Whole, ...] = ()
    lids_in_irises: bool = False

    @cached_property
    def low(self) -> Floats:
        """(63,) lower ends of the ranges of `roles`."""
        return np.array([low for k in Keypoint for low, _ in self.roles[k].ranges])

    @cached_property
    def high(self) -> Floats:
        """(63,) upper ends of the ranges of `roles`."""
        return np.array([high for k in Keypoint for _, high in self.roles[k].ranges])

    @cached_property
    def safe(self) -> tuple[Floats, Floats]:
        """(M,) lower and upper ends of the safe ranges of all numbers, then of all relations."""
        low = np.concatenate([self.low, [r.low for r in self.relations]])
        return low, np.concatenate([self.high, [r.high for r in self.relations]])

    def measures(self, face: Floats) -> Floats:
        """Expressions (..., 63) -> (..., M): all numbers, then all relations."""
        numbers, weights = self._terms
        products = face[..., numbers] * weights
        relations = products[..., 0]
        for term in range(1, TERMS):  # not `sum`: see `Relation.measure`
            relations = relations + products[..., term]
        return np.concatenate([face, relations], -1)

    def sizes(self, measures: Floats) -> Floats:
        """(..., M) of `measures` -> (..., P) of `wholes`."""
        low, high = self.safe
        squares = np.maximum(measures / high, measures / low) ** 2
        sums = [np.cumsum(squares[..., columns], -1)[..., -1] for columns in self._columns]  # not `sum`: as above
        return np.asarray(np.sqrt(np.stack(sums, -1)))

    @cached_property
    def _terms(self) -> tuple[npt.NDArray[np.intp], Floats]:
        """(R, TERMS) numbers and weights of the relations."""
        numbers, weights = np.zeros((len(self.relations), TERMS), np.intp), np.zeros((len(self.relations), TERMS))
        for row, relation in enumerate(self.relations):
            numbers[row, : len(relation.form)], weights[row, : len(relation.form)] = zip(*relation.form.items(), strict=True)
        return numbers, weights

    @cached_property
    def _columns(self) -> tuple[npt.NDArray[np.intp], ...]:
        """Of `measures`, those of each whole."""
        forms = [{i} for i in range(3 * KEYPOINTS)] + [set(r.form) for r in self.relations]
        parts = [{3 * k + axis for k in whole.keypoints for axis in range(3)} for whole in self.wholes]
        return tuple(np.array([i for i, form in enumerate(forms) if form & part]) for part in parts)

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The 63 dimensions in the order of the expression."""
        low, high = self.low.copy(), self.high.copy()
        for relation in self.relations:
            for i, weight in relation.form.items():
                ends = sorted((relation.low / weight, relation.high / weight))
                low[i], high[i] = max(low[i], ends[0]), min(high[i], ends[1])
        return tuple(
            Dimension(
                f"{k.name.lower()}.{AXES[axis]}", k, axis,
                "lids" if self.lids_in_irises and k in IRISES and axis else self.roles[k].region, *self.roles[k].words[axis],
                -_rounded(-low[3 * k + axis]), _rounded(high[3 * k + axis]),
            )
            for k in Keypoint for axis in range(3)
        )  # fmt: skip

    def __iter__(self) -> Iterator[Dimension]:
        return iter(self.dimensions)

    @cached_property
    def by_name(self) -> Mapping[str, Dimension]:
        """The dimensions by name."""
        return {dimension.name: dimension for dimension in self.dimensions}


def relation(name: str, form: Form, move: Form, low: float, high: float, ends: Range | None = None) -> Relation:
    """A relation that corrects along `move`; its soft limit ends at `REACH` times the safe range, or at `ends`."""
    gain = sum(weight * move.get(at, 0.0) for at, weight in form.items())
    least, most = ends or (REACH * low, REACH * high)
    forms = {3 * k + axis: weight for (k, axis), weight in form.items()}
    return Relation(name, forms, {3 * k + axis: w / gain for (k, axis), w in move.items()}, low, high, least, most)


def _rounded(end: float) -> float:
    """A range's end to four digits, never further out."""
    return math.floor(1e4 * end + 1e-6) / 1e4


def _mirrored(role: Role) -> Role:
    """The role of the same keypoint on the person's left."""

    def other_side(text: str) -> str:
        return text.replace("right ", "left ")

    (x_minus, x_plus), *rest = role.words
    low, high = role.ranges[0]
    words = ((other_side(x_plus), other_side(x_minus)), *((other_side(a), other_side(b)) for a, b in rest))
    return Role(role.region, other_side(role.moves), words, ((-high, -low), *role.ranges[1:]))  # type: ignore[arg-type]


# The lite face. The words say what the mesh basis does to the canonical face (`displace`). A range is the largest of three
# (`python -m ditto.training.motion_ranges`): the 0.2th and 99.8th percentiles of GRID and natural talk, mirrored ones added;
# ICT FaceKit's shapes at weight 1, both sides together; what emotions need, judged on pictures (brows .042, forehead and
# glabella .030, lower lids -.016). None is larger than 3/4 of the renderer's box, which so never cuts a number off.
_X, _Y, _Z = ("to the left of the picture", "to the right of the picture"), ("up", "down"), ("forward", "back")


def _moves(what: str) -> tuple[Words, Words, Words]:
    """Words of a part that goes where its numbers say."""
    x, y, z = ((f"{what} {minus}", f"{what} {plus}") for minus, plus in (_X, _Y, _Z))
    return x, y, z


_RIGHT = {
    Keypoint.RIGHT_BROW: Role(
        "brows", "right brow",
        (("right brow outwards", "right brow inwards"), ("right brow up", "right brow down"), _moves("right brow")[2]),
        ((-0.012, 0.031), (-0.042, 0.042), (-0.006, 0.006)),
    ),
    Keypoint.RIGHT_CHEEK: Role(
        "cheeks", "right cheek and wing of the nose",
        (
            ("right cheek outwards", "right cheek inwards"),
            ("right cheek up, the nose wrinkles", "right cheek down"),
            ("right cheek fuller", "right cheek flatter"),
        ),
        ((-0.026, 0.029), (-0.053, 0.024), (-0.020, 0.012)),
    ),
    Keypoint.RIGHT_MOUTH_CORNER: Role(
        "lips", "right corner of the mouth",
        (
            ("right corner outwards: wider", "right corner inwards: rounder"),
            ("right corner up: smile", "right corner down: frown"),
            ("right corner forward", "right corner back"),
        ),
        ((-0.060, 0.120), (-0.075, 0.100), (-0.036, 0.043)),
    ),
    Keypoint.RIGHT_JAW: Role(
        "jaw", "right angle of the jaw",
        (("right side of the jaw wider", "right side of the jaw narrower"), *_moves("right side of the jaw")[1:]),
        ((-0.024, 0.021), (-0.021, 0.020), (-0.014, 0.023)),
    ),
    Keypoint.RIGHT_UPPER_LID: Role(
        "lids", "right upper lid",
        (
            ("crease of the right lid outwards", "crease of the right lid inwards"),
            ("right eye wider", f"right eye closes; shut at {TEMPLATE_APERTURE:g}"),
            (HARDLY, HARDLY),
        ),
        ((-0.012, 0.012), (-0.022, TEMPLATE_APERTURE), (-0.004, 0.004)),
    ),
}  # fmt: skip


def _eye(side: str) -> Role:
    x, y, _ = _moves(f"{side} eye looks")
    return Role("gaze", f"{side} iris", (x, y, (NOTHING, NOTHING)), ((-0.050, 0.050), (-0.033, 0.033), (-0.005, 0.005)))


_LITE_ROLES: dict[Keypoint, Role] = {
    Keypoint.FOREHEAD: Role(
        "brows", "forehead up to the hair", _moves("forehead"), ((-0.010, 0.010), (-0.030, 0.020), (-0.010, 0.010))
    ),
    Keypoint.NOSE_TIP: Role(
        "nose", "tip of the nose", _moves("tip of the nose"), ((-0.019, 0.019), (-0.025, 0.010), (-0.011, 0.013))
    ),
    Keypoint.RIGHT_IRIS: _eye("right"),
    Keypoint.LEFT_IRIS: _eye("left"),
    Keypoint.NECK: Role("neck", "nothing: it is fixed to the head", ((NOTHING,) * 2,) * 3, ((-0.015, 0.015),) * 3),
    Keypoint.GLABELLA: Role(
        "brows", "skin between the brows", _moves("skin between the brows"),
        ((-0.008, 0.008), (-0.030, 0.030), (-0.005, 0.005)),
    ),
    Keypoint.UPPER_INNER_LIP: Role(
        "lips", "inner edge of the upper lip",
        (
            ("upper lip to the left of the picture", "upper lip to the right of the picture"),
            ("upper lip up", "upper lip down"),
            ("upper lip forward", "upper lip rolled in"),
        ),
        ((-0.090, 0.090), (-0.054, 0.024), (-0.040, 0.028)),
    ),
    Keypoint.LOWER_INNER_LIP: Role(
        "lips", "inner edge of the lower lip",
        (
            ("lower lip to the left of the picture", "lower lip to the right of the picture"),
            ("lower lip up: pressed to the upper", "lower lip down: opens"),
            ("lower lip forward", "lower lip rolled in"),
        ),
        ((-0.088, 0.088), (-0.045, 0.233), (-0.039, 0.056)),
    ),
    Keypoint.LOWER_LIDS: Role(
        "lids", "both lower lids",
        ((HARDLY, HARDLY), ("lower lids up: squint", "lower lids down"), (HARDLY, HARDLY)),
        ((-0.005, 0.005), (-0.016, 0.010), (-0.004, 0.004)),
    ),
    Keypoint.CHIN: Role(
        "jaw", "chin",
        (
            ("jaw to the left of the picture", "jaw to the right of the picture"),
            ("chin up", "chin down; the lips stay"),
            ("chin forward", "chin back"),
        ),
        ((-0.060, 0.060), (-0.072, 0.225), (-0.029, 0.089)),
    ),
    Keypoint.UPPER_OUTER_LIP: Role(
        "lips", "outer edge of the upper lip",
        (
            ("edge of the upper lip to the left of the picture", "edge of the upper lip to the right of the picture"),
            ("edge of the upper lip up: sneer", "edge of the upper lip down"),
            ("edge of the upper lip forward: pout", "edge of the upper lip back"),
        ),
        ((-0.100, 0.100), (-0.056, 0.035), (-0.040, 0.019)),
    ),
    **_RIGHT,
    **{Keypoint[k.name.replace("RIGHT", "LEFT")]: _mirrored(role) for k, role in _RIGHT.items()},
}  # fmt: skip


def _lite_relations() -> Iterator[Relation]:
    """From the upper lip outwards, so that each moves what no earlier one measures."""
    upper, lower = INNER_LIPS
    chin, outer = Keypoint.CHIN, Keypoint.UPPER_OUTER_LIP
    right, left = MOUTH_CORNERS
    sides = ((right, CHEEKS[0], -1.0), (left, CHEEKS[1], 1.0))

    def differ(name: str, a: Keypoint, b: Keypoint, axis: int, low: float, high: float, ends: Range | None = None) -> Relation:
        return relation(name, {(a, axis): 1.0, (b, axis): -1.0}, {(a, axis): 1.0}, low, high, ends)

    def apart(name: str, a: Keypoint, b: Keypoint, axis: int, low: float, high: float) -> Relation:
        form = {(a, axis): 1.0, (b, axis): -1.0}
        return relation(name, form, form, low, high)

    yield differ("lips apart", lower, upper, 1, -0.010, 0.220)
    yield differ("chin below the lower lip", chin, lower, 1, -0.080, 0.140)
    yield differ("height of the upper lip", outer, upper, 1, -0.027, 0.030)
    yield differ("lips against each other", lower, upper, 0, -0.030, 0.030)
    yield differ("chin against the lower lip", chin, lower, 0, -0.050, 0.050)
    yield differ("edge against the inside of the upper lip", outer, upper, 0, -0.010, 0.010)
    yield differ("lower lip behind the upper", lower, upper, 2, -0.028, 0.050)
    yield differ("chin behind the lower lip", chin, lower, 2, -0.030, 0.070)
    yield differ("edge behind the inside of the upper lip", outer, upper, 2, -0.010, 0.010)
    yield apart("corners of the mouth apart", left, right, 0, -0.165, 0.090)
    corners = {(right, 0): 0.5, (left, 0): 0.5}
    yield relation(
        "corners beside the lips", {**corners, (upper, 0): -0.5, (lower, 0): -0.5}, corners, -0.030, 0.030
    )
    for corner, cheek, side in sides:
        where = "left" if side > 0 else "right"
        middle = {(upper, 1): -0.5, (lower, 1): -0.5}
        yield relation(f"{where} corner below the lips", {(corner, 1): 1.0, **middle}, {(corner, 1): 1.0}, -0.060, 0.042)
        middle = {(upper, 2): -0.5, (lower, 2): -0.5}
        yield relation(f"{where} corner behind the lips", {(corner, 2): 1.0, **middle}, {(corner, 2): 1.0}, -0.030, 0.050)
        yield differ(f"{where} cheek below the corner", cheek, corner, 1, -0.080, 0.055)
        low, high = (-0.045, 0.130) if side > 0 else (-0.130, 0.045)
        yield differ(f"{where} cheek beside the corner", cheek, corner, 0, low, high)
    nose, cheeks = {(Keypoint.NOSE_TIP, 0): 1.0}, {(cheek, 0): -0.5 for cheek in CHEEKS}
    yield relation("tip of the nose between the cheeks", {**nose, **cheeks}, nose, -0.019, 0.019)
    yield differ("tip of the nose below the upper lip", Keypoint.NOSE_TIP, outer, 1, -0.035, 0.056)
    yield apart("irises apart", Keypoint.LEFT_IRIS, Keypoint.RIGHT_IRIS, 0, -0.035, 0.035)
    yield apart("one iris below the other", Keypoint.LEFT_IRIS, Keypoint.RIGHT_IRIS, 1, -0.020, 0.020)
    for brow, lid in ((Keypoint.RIGHT_BROW, Keypoint.RIGHT_UPPER_LID), (Keypoint.LEFT_BROW, Keypoint.LEFT_UPPER_LID)):
        where = brow.name.split("_")[0].lower()
        shut = (-0.022, TEMPLATE_APERTURE)
        yield differ(f"{where} lids closed", lid, Keypoint.LOWER_LIDS, 1, *shut, (-0.0255, TEMPLATE_APERTURE + 0.004))
        yield differ(f"{where} brow on the lid", brow, lid, 1, -0.125, 0.045)
    yield apart("brows apart", BROWS[1], BROWS[0], 0, -0.062, 0.024)
    middle = {(Keypoint.GLABELLA, 1): 1.0, **{(brow, 1): -0.5 for brow in BROWS}}
    yield relation("skin between the brows below them", middle, {(Keypoint.GLABELLA, 1): 1.0}, -0.050, 0.050)
    yield differ("forehead below the skin between the brows", Keypoint.FOREHEAD, Keypoint.GLABELLA, 1, -0.035, 0.042)
    for axis, low, high in ((0, -0.042, 0.048), (1, -0.021, 0.021), (2, -0.016, 0.016)):
        yield apart(f"angles of the jaw apart along {AXES[axis]}", JAW[1], JAW[0], axis, low, high)


# Natural talk reaches 4.5 and 2.4 (99.8th percentile), ICT FaceKit's shapes at weight 1 reach 4.8 and 3.7.
_UPPER = tuple(k for k in Keypoint if _LITE_ROLES[k].region in ("brows", "lids", "gaze"))
_LOWER = tuple(k for k in Keypoint if k not in _UPPER and k != Keypoint.NECK)
_WHOLES = (Whole("lower face", _LOWER, 4.0, 4.6), Whole("upper face", _UPPER, 3.5, 4.0))

LITE_MAP = MotionMap(_LITE_ROLES, tuple(_lite_relations()), _WHOLES)

# The full face: LivePortrait's (arXiv:2407.03168). A range is the larger of two: what its 12 published motion templates do
# (minimum and maximum against the mean, `liveportrait_motion_stats.npz`), and the whole way of the sliders of its demo
# (`update_delta_new_*` in src/gradio_pipeline.py), from which the words come too. Numbers that neither moves have the range
# of the number that moves least. The ranges are in canonical units. One is 1.55 face units: the templates' mean scale, 1.33,
# over the .861 model units that a face unit of the canonical face has in the released crop.
FACE_UNITS_PER_CANONICAL = 1.55
SMALLEST_CANONICAL = 0.004


def _slider(name: str, below: bool = True, above: bool = True) -> Words:
    """Words of a number that a slider of LivePortrait's demo moves: minus where the slider is below 0, or the other way."""
    return f"part of {name!r} in LivePortrait's demo, one way" if below else UNKNOWN, (
        f"part of {name!r} in LivePortrait's demo, the other way" if above else UNKNOWN
    )


_UNKNOWN: Words = (UNKNOWN, UNKNOWN)
_FULL: dict[Keypoint, tuple[str, tuple[Words, Words, Words], tuple[Range, Range, Range]]] = {
    Keypoint.FOREHEAD: (UNKNOWN, (_UNKNOWN,) * 3, ((-15.4, 18.9), (-40.6, 28.2), (0, 0))),
    Keypoint.RIGHT_BROW: (
        "brows",
        (
            (UNKNOWN, "brows down, with left_brow.x minus"),
            ("brows down a little", "brows up, with left_brow.y minus"),
            _UNKNOWN,
        ),
        ((-9.3, 30.0), (-10.6, 30.0), (0, 0)),
    ),
    Keypoint.LEFT_BROW: (
        "brows",
        (
            ("brows down, with right_brow.x plus", UNKNOWN),
            ("brows up, with right_brow.y plus", "brows down a little"),
            _UNKNOWN,
        ),
        ((-30.0, 12.2), (-30.0, 24.9), (0, 0)),
    ),
    Keypoint.RIGHT_CHEEK: (
        "cheek", (_UNKNOWN, ("cheek up, as in a smile or a wink", "cheek down"), _UNKNOWN),
        ((-12.9, 7.5), (-11.7, 10.8), (0, 0)),
    ),
    Keypoint.NOSE_TIP: (UNKNOWN, (_UNKNOWN,) * 3, ((-12.8, 28.9), (-25.0, 19.5), (0, 0))),
    Keypoint.NECK: (
        "the whole head", (*_moves("head")[:2], _UNKNOWN),
        ((-190.0, 190.0), (-190.0, 190.0), (0, 0)),
    ),
    Keypoint.RIGHT_MOUTH_CORNER: (UNKNOWN, (_UNKNOWN,) * 3, ((0, 0),) * 3),
    Keypoint.LEFT_CHEEK: (
        "cheek", (_UNKNOWN, ("cheek up, as in a smile", "cheek down"), _UNKNOWN), ((-16.5, 12.5), (-20.9, 12.2), (0, 0))
    ),
    Keypoint.RIGHT_JAW: (UNKNOWN, (_UNKNOWN,) * 3, ((0, 0),) * 3),
    Keypoint.LEFT_JAW: (UNKNOWN, (_UNKNOWN,) * 3, ((0, 0),) * 3),
    Keypoint.GLABELLA: (UNKNOWN, (_UNKNOWN,) * 3, ((-13.1, 13.6), (-18.0, 14.7), (-13.9, 12.5))),
    Keypoint.RIGHT_IRIS: (
        "gaze and lids of the right eye",
        (_moves("looks")[0], ("looks up, lids open", "looks down, lids close"), _UNKNOWN),
        ((-30.0, 21.0), (-31.5, 39.0), (0, 0)),
    ),
    Keypoint.LEFT_MOUTH_CORNER: (UNKNOWN, (_UNKNOWN,) * 3, ((0, 0),) * 3),
    Keypoint.RIGHT_UPPER_LID: (
        "right eye", (_UNKNOWN, ("as in a smile or a wink", "as in a look down"), _UNKNOWN),
        ((-5.3, 5.8), (-11.7, 9.5), (0, 0)),
    ),
    Keypoint.UPPER_INNER_LIP: (
        "upper lip", (_UNKNOWN, ("upper lip up, as in a smile or a grin", "lips pursed"), _UNKNOWN),
        ((-3.9, 6.5), (-26.0, 24.7), (0, 0)),
    ),
    Keypoint.LEFT_IRIS: (
        "gaze and lids of the left eye",
        (_moves("looks")[0], ("looks up, lids open", "looks down, lids close"), _UNKNOWN),
        ((-21.0, 30.0), (-31.5, 31.5), (0, 0)),
    ),
    Keypoint.LEFT_UPPER_LID: (
        "left eye", (_UNKNOWN, ("as in a smile", "as in a look down"), _UNKNOWN), ((-6.5, 6.6), (-9.5, 9.5), (0, 0))
    ),
    Keypoint.LOWER_INNER_LIP: (
        "lower lip",
        ((UNKNOWN, "as in a wink"), ("as in open lips", "as in a smile"), ("lips pursed", "as in a smile")),
        ((-5.3, 11.7), (-12.0, 11.7), (-7.5, 10.0)),
    ),
    Keypoint.LOWER_LIDS: (UNKNOWN, (_UNKNOWN,) * 3, ((0, 0),) * 3),
    Keypoint.CHIN: (
        "mouth and jaw",
        (_slider("pouting"), ("lips close", "the jaw opens"), (UNKNOWN, "the jaw opens, a little")),
        ((-90.0, 90.0), (-90.0, 120.0), (-9.0, 19.8)),
    ),
    Keypoint.UPPER_OUTER_LIP: (
        "upper lip", (_UNKNOWN, ("upper lip up, as in a smile or a grin", UNKNOWN), ("as in a grin", UNKNOWN)),
        ((-18.9, 19.2), (-25.1, 32.3), (-15.0, 20.9)),
    ),
}  # fmt: skip


def _full_roles() -> Iterator[tuple[Keypoint, Role]]:
    """A keypoint has the same region in both maps, so that a region means the same numbers."""
    for keypoint, (moves, words, ranges) in _FULL.items():
        sized = [
            (round(1e-3 * FACE_UNITS_PER_CANONICAL * low, 4), round(1e-3 * FACE_UNITS_PER_CANONICAL * high, 4))
            for low, high in ((min(a, -1e3 * SMALLEST_CANONICAL), max(b, 1e3 * SMALLEST_CANONICAL)) for a, b in ranges)
        ]
        yield keypoint, Role(_LITE_ROLES[keypoint].region, moves, words, (sized[0], sized[1], sized[2]))


def _full_relations() -> Iterator[Relation]:
    """Five standard deviations of the difference in the templates, or the demo's sliders, the larger."""
    unit = FACE_UNITS_PER_CANONICAL
    right, left = Keypoint.RIGHT_IRIS, Keypoint.LEFT_IRIS
    for name, axis, most in (("irises apart", 0, 0.010 * unit), ("one eye more closed than the other", 1, 0.040 * unit)):
        form = {(left, axis): 1.0, (right, axis): -1.0}
        yield relation(name, form, form, -most, most)
    outer, inner, most = Keypoint.UPPER_OUTER_LIP, Keypoint.UPPER_INNER_LIP, 0.0265 * unit
    yield relation("height of the upper lip", {(outer, 1): 1.0, (inner, 1): -1.0}, {(outer, 1): 1.0}, -most, most)


FULL_MAP = MotionMap(dict(_full_roles()), tuple(_full_relations()), lids_in_irises=True)

MAPS: Mapping[str, MotionMap] = MappingProxyType({"lite": LITE_MAP, "full": FULL_MAP})  # by the name of the motion space
