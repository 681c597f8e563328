"""Inertialization: from one source of motion to another without a jump.

At the switch the difference in place and speed between the rows shown and the new source is kept, and faded out. After
that the rows are the new source's, bit for bit. Source: D. Bollo, Inertialization, GDC 2018 (a quintic; here without
acceleration at the switch).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.motion.eyes import hold_gaze
from ditto.motion.motion import (
    CHEEKS,
    DEGREES,
    EXPRESSION,
    EYES,
    INNER_LIPS,
    IRISES,
    JAW,
    KEYPOINTS,
    LIPS,
    MOTION_SIZE,
    PRESS_GAP,
    TEMPLATE_APERTURE,
    UPPER_LIDS,
)
from ditto.motion.space import MotionSpace
from ditto.portrait.portrait import Portrait

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

# Frames of a transition, chosen by eye. The largest acceleration in one stays below 1.5 times that inside speech
# (`python -m benchmarks.life`, docs/live.md; held by tests/motion/test_inertialization.py).
SLOW_FRAMES = 20  # slow channels: pose, translation, scale, forehead, brows, nose
EYE_FRAMES = 5
MOUTH_FRAMES = 3  # in the third frame the mouth is the new source's
MOUTH_POINTS = (*LIPS, *CHEEKS, *JAW)
UPPER_LIP, LOWER_LIP = INNER_LIPS


class Inertialization(NamedTuple):
    """One transition. Made by `between`.

    Attributes:
        space, portrait: what the rows mean.
        offset: (70,) shown minus new, head values, and gaze before it is held on the camera.
        speed: (70,) its change per frame at the switch.
        gap: opening of the lips in the last row shown, face units.
    """

    space: MotionSpace
    portrait: Portrait
    offset: Floats
    speed: Floats
    gap: float

    @classmethod
    def between(
        cls,
        space: MotionSpace,
        portrait: Portrait,
        shown: npt.ArrayLike,
        before: npt.ArrayLike,
        target: npt.ArrayLike,
        previous: npt.ArrayLike | None = None,
    ) -> Inertialization:
        """The transition from the rows shown to a new source.

        Args:
            space, portrait: what the rows mean.
            shown: (70,) the last row shown, as given out by `at` or a source.
            before: (70,) the row shown before it.
            target: (70,) the first row of the new source.
            previous: (70,) the new source's row before that, if it has one; without it the new source is taken to start
                at rest.
        """
        last, earlier, fresh = (_inside(row, space, portrait) for row in (shown, before, target))
        ago = fresh if previous is None else _inside(previous, space, portrait)
        return cls(space, portrait, last - ago, (last - earlier) - (fresh - ago), _gap(last))

    def at(self, step: int, target: npt.ArrayLike) -> Array:
        """The row (70,) to show `step` frames after the first of the new source, whose own row there is `target` (70,)."""
        row = np.asarray(target, np.float32)
        if self.done(step):
            return row
        fresh = _inside(row, self.space, self.portrait)
        joined = fresh + PLACE[step] * self.offset + SPEED[step] * self.speed
        points, new, old = _points(joined), _points(fresh), _points(fresh + self.offset)
        for lid in UPPER_LIDS:  # an eye that is closing continues, but not beyond shut
            ends = points[lid, 1], new[lid, 1], old[lid, 1]
            points[lid, 1] = np.clip(ends[0], min(ends[1:]), max(TEMPLATE_APERTURE, *ends[1:]))
        short = min(self.gap, _gap(fresh), PRESS_GAP) - _gap(joined)
        if short > 0.0:  # lips meet, they never cross
            points[LOWER_LIP, 1] += short
        return _outside(joined, self.space, self.portrait)

    def done(self, step: int) -> bool:
        """Whether that frame and all after it are the new source's."""
        return step >= SLOW_FRAMES - 1


def _fades(frames: int, slow: bool) -> Floats:
    """(SLOW_FRAMES - 1, 2): the share left of a difference in place, and of one in speed, from the first frame on.

    Polynomials that begin with the difference and end at rest in zero: a cubic for fast channels (least acceleration), a
    quintic for slow ones (least jerk).
    """
    t = np.minimum(np.arange(1, SLOW_FRAMES) / frames, 1.0)
    if slow:
        place = 1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t * t)
        speed = t - t**3 * (6.0 - 8.0 * t + 3.0 * t * t)
    else:
        place = (1.0 + 2.0 * t) * (1.0 - t) ** 2
        speed = t * (1.0 - t) ** 2
    return np.stack([place, frames * speed], -1)


def _tables() -> Floats:
    """(2, SLOW_FRAMES - 1, 70): the fades of place and of speed for every number of a row."""
    fades = np.repeat(_fades(SLOW_FRAMES, slow=True)[:, None], MOTION_SIZE, 1)
    for points, frames in ((EYES, EYE_FRAMES), (MOUTH_POINTS, MOUTH_FRAMES)):
        for point in points:
            fades[:, EXPRESSION.start + 3 * point : EXPRESSION.start + 3 * point + 3] = _fades(frames, slow=False)[:, None]
    return np.moveaxis(fades, -1, 0)


PLACE, SPEED = _tables()


def _points(row: Floats) -> Floats:
    """The expression of a row, (21, 3), a view."""
    return row[EXPRESSION].reshape(KEYPOINTS, 3)


def _gap(row: Floats) -> float:
    points = _points(row)
    return float(points[LOWER_LIP, 1] - points[UPPER_LIP, 1])


def _inside(row: npt.ArrayLike, space: MotionSpace, portrait: Portrait) -> Floats:
    """Head values of a row (70,) before the gaze is held on the camera."""
    out = space.to_head(row, portrait)
    _points(out)[list(IRISES), :2] -= hold_gaze(out[DEGREES])
    return out


def _outside(values: Floats, space: MotionSpace, portrait: Portrait) -> Array:
    """The row of such head values: the inverse of `_inside`."""
    _points(values)[list(IRISES), :2] += hold_gaze(values[DEGREES])
    return space.from_head(values, portrait).astype(np.float32)
