"""ARKit's 52 blendshapes, the names by which face animation is exchanged: to a motion and back.

What a shape changes of the keypoints is linear in its weight. The table is data of the motion space:
`ditto/motion/blendshapes.json`, made by `ditto.training.blendshape_table`. Weights are 0 at rest and 1 at full strength.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto import motion
from ditto.motion.motion import EXPRESSION, KEYPOINTS, MOTION_SIZE, Keypoint
from ditto.motion.space import LITE_SPACE, MotionSpace

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# In the order of ARKit's enumeration; right and left are the person's.
ARKIT_NAMES = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft", "eyeWideLeft",
    "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight", "eyeSquintRight",
    "eyeWideRight", "jawForward", "jawLeft", "jawRight", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft",
    "mouthRight", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft",
    "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper", "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
SHAPES = len(ARKIT_NAMES)  # 52

# Of the fit, in fu^2. `COST`, a trace for every weight, prefers one shape to two that cancel each other. `RIDGE` is the
# square of what no shape explains over the square of a usual weight. Lids and irises tell their shapes exactly. The others
# overlap, and real faces do more than they can: with a ridge of 1e-10 one weight in twenty of those that little tells is at 1
# (600 frames of three actors and a speaker), and r of jawOpen with MediaPipe's score is .74. So it is one in 250, and .84.
COST, EXACT_RIDGE, SURE_RIDGE, LOOSE_RIDGE = 1e-8, 1e-10, 3e-6, 2e-3
EXACT, SURE = ("eyeBlink", "eyeLook", "eyeWide"), ("jawOpen", "mouthSmile", "mouthPucker", "mouthFunnel", "brow")
# How much each keypoint, and its depth, counts. A tracker hardly sees depth, and forehead, nose and jaw move with the head's
# pose. With all at 1, drawn and tracked faces that were asked for a pucker of .25 to 1 show .22 at 1, with these .87.
DEPTH_COUNTS = 0.1
COUNTS = {
    Keypoint.FOREHEAD: 0.1, Keypoint.NOSE_TIP: 0.1, Keypoint.RIGHT_JAW: 0.1, Keypoint.LEFT_JAW: 0.1,
    Keypoint.GLABELLA: 0.5, Keypoint.RIGHT_CHEEK: 0.5, Keypoint.LEFT_CHEEK: 0.5,
}  # fmt: skip
COUNTED = np.array([[COUNTS.get(k, 1.0)] * 2 + [COUNTS.get(k, 1.0) * DEPTH_COUNTS] for k in Keypoint]).reshape(-1)
RIDGE = np.array(
    [EXACT_RIDGE if n.startswith(EXACT) else SURE_RIDGE if n.startswith(SURE) else LOOSE_RIDGE for n in ARKIT_NAMES]
)
# Against the frame before: a tracker's noise of .001 fu counts as a change of .1. None for lids and irises: eyes that look in
# and then out would keep some of both.
CHANGE = np.where(RIDGE == EXACT_RIDGE, 0.0, 1e-4)
MOST_STEPS = 500  # of the active-set method on one frame; a usual frame takes under ten
OPTIMAL = 1e-12  # fu^2: how far a gradient may point beyond a bound


def to_offsets(weights: npt.ArrayLike, space: MotionSpace | None = None) -> Floats:
    """(..., 21, 3) what weights (..., 52), in the order of `ARKIT_NAMES`, add to the keypoints: head frame, face units.

    Args:
        space: whose keypoints; None: the lite bundle's.

    Raises:
        ValueError: another number of weights, or one that is not finite.
    """
    given = checked("weights", weights, SHAPES)
    flat: Floats = given @ table((space or LITE_SPACE).name)
    return flat.reshape(*given.shape[:-1], KEYPOINTS, 3)


def to_weights(head_values: npt.ArrayLike, space: MotionSpace | None = None) -> Floats:
    """(N, 52) weights in [0, 1] whose keypoints come nearest to those of consecutive head values (N, 70).

    Bounded least squares, frame after frame, with a small cost on weights and on a change against the frame before. Shapes
    that have no effect in the space get 0. Blinks, looks, smiles, brows, jawOpen, mouthPucker and mouthFunnel are told well;
    the others overlap.

    Args:
        head_values: as of `MotionSpace.to_head`.
        space: whose keypoints; None: the lite bundle's.

    Raises:
        ValueError: another shape, or a number that is not finite.
    """
    given = checked("head_values", head_values, MOTION_SIZE)
    if given.ndim != 2:
        raise ValueError(f"expected head values (N, {MOTION_SIZE}), got shape {given.shape}; give one row a frame")
    fit = WeightFit(space)
    return np.stack([fit.next(row) for row in given]) if len(given) else np.zeros((0, SHAPES))


class WeightFit:
    """`to_weights`, frame after frame, as a live session has them. One thread at a time may use it.

    Args:
        space: whose keypoints; None: the lite bundle's.
    """

    def __init__(self, space: MotionSpace | None = None) -> None:
        self._shapes = table((space or LITE_SPACE).name) * COUNTED
        self._gram = self._shapes @ self._shapes.T + np.diag(RIDGE)
        self._before: Bounded | None = None

    def next(self, head_values: npt.ArrayLike) -> Floats:
        """(52,) the weights of the next head values (70,).

        Raises:
            ValueError: another shape, or a number that is not finite.
        """
        row = checked("head_values", head_values, MOTION_SIZE)
        if row.ndim != 1:
            raise ValueError(f"expected head values ({MOTION_SIZE},) of one frame, got shape {row.shape}; give frame by frame")
        aim, before = self._shapes @ (COUNTED * row[EXPRESSION]) - COST, self._before
        if before is None:
            self._before = solve_bounded(self._gram, aim, Bounded(np.zeros(SHAPES), np.zeros(SHAPES, bool)))
        else:
            self._before = solve_bounded(self._gram + np.diag(CHANGE), aim + CHANGE * before.x, before)
        return self._before.x


def without_effect(space: MotionSpace | None = None) -> tuple[str, ...]:
    """The names of the shapes that move nothing in a space (None: the lite bundle's)."""
    still = np.flatnonzero(~table((space or LITE_SPACE).name).any(1))
    return tuple(ARKIT_NAMES[shape] for shape in still)


@cache
def table(space: str) -> Floats:
    """(52, 63): change of the keypoints per weight, fu, of a space by name; read-only.

    Raises:
        ValueError: a space without a table.
    """
    tables = json.loads(Path(motion.__file__).with_name("blendshapes.json").read_text(encoding="utf-8"))
    if space not in tables:
        raise ValueError(f"expected a motion space of {', '.join(tables)}, got {space!r}; blendshapes are known for those")
    out = np.zeros((SHAPES, KEYPOINTS, 3))
    changes: Mapping[str, Mapping[str, list[float]]] = tables[space]
    for name, of_keypoints in changes.items():
        for keypoint, change in of_keypoints.items():
            out[ARKIT_NAMES.index(name), Keypoint[keypoint.upper()]] = change
    flat = out.reshape(SHAPES, 3 * KEYPOINTS)
    flat.flags.writeable = False
    return flat


class Bounded(NamedTuple):
    """A solution `x` (n,) of `solve_bounded`, and which of its numbers are free: not at a bound."""

    x: Floats
    free: Bools


def solve_bounded(gram: Floats, aim: Floats, start: Bounded) -> Bounded:
    """The x (n,) in [0, 1] that makes x' gram x / 2 - aim' x smallest.

    An active-set method: exact but for rounding. Starting near the solution, it takes few steps.

    Args:
        gram: (n, n), symmetric and positive definite.
        aim: (n,).
        start: any x in [0, 1], and which of its numbers are free.

    Source: J. Nocedal, S. Wright, "Numerical Optimization", 2006, section 16.5, for bounds.
    """
    x, free = start.x.copy(), start.free.copy()
    for _ in range(MOST_STEPS):
        ids = np.flatnonzero(free)
        if ids.size:
            fixed = np.where(free, 0.0, x)
            goal = np.linalg.solve(gram[np.ix_(ids, ids)], (aim - gram @ fixed)[ids])
            step = goal - x[ids]
            with np.errstate(divide="ignore", invalid="ignore"):
                room = np.where(step > 0.0, (1.0 - x[ids]) / step, np.where(step < 0.0, -x[ids] / step, np.inf))
            first = int(np.argmin(room))
            if room[first] < 1.0:
                x[ids] += max(room[first], 0.0) * step
                x[ids[first]] = 1.0 if step[first] > 0.0 else 0.0
                free[ids[first]] = False
                continue
            x[ids] = goal
        gradient = gram @ x - aim
        pull = np.where(free, 0.0, np.where(x <= 0.0, -gradient, gradient))
        worst = int(np.argmax(pull))
        if pull[worst] <= OPTIMAL:
            break
        free[worst] = True
    return Bounded(np.clip(x, 0.0, 1.0), free)


def checked(name: str, values: npt.ArrayLike, size: int) -> Floats:
    """Finite numbers (..., size) as float64. Raises ValueError."""
    array = np.asarray(values, np.float64)
    if array.ndim == 0 or array.shape[-1] != size:
        raise ValueError(f"expected {name} (..., {size}), got shape {array.shape}; give {size} numbers a frame")
    if not np.isfinite(array).all():
        raise ValueError(f"expected {name} to be finite numbers, got NaN or infinity; replace them")
    return array
