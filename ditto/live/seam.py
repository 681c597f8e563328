"""Seams: from one source of motion to another without a jump.

At the switch the difference of place and speed between what was shown and the new source is kept, and faded out; after
that the rows are the new source's, bit for bit. Source: D. Bollo, Inertialization, GDC 2018 (a quintic; here without
acceleration at the switch).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.guards import PRESS_GAP
from ditto.life import hold_gaze
from ditto.motion import (
    EYES,
    INNER_LIPS,
    IRISES,
    KEYPOINTS,
    LIPS,
    MOTION_SIZE,
    TEMPLATE_APERTURE,
    UPPER_LIDS,
    Keypoint,
    rotation_matrix,
)

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

SLOW_FRAMES = 20  # pose, translation, scale, brows, nose: what has mass
EYE_FRAMES = 5
MOUTH_FRAMES = 3  # in the third frame the mouth is the new source's
JAW = (Keypoint.RIGHT_JAW, Keypoint.LEFT_JAW)
MOUTH_POINTS = (*LIPS, Keypoint.RIGHT_CHEEK, Keypoint.LEFT_CHEEK, *JAW)
UPPER_LIP, LOWER_LIP = INNER_LIPS


class Seam(NamedTuple):
    """One switch. Made by `between`.

    Attributes:
        first: frame of the first row of the new source.
        offset: (70,) shown minus new, expression in the head frame and gaze before it is held on the camera.
        speed: (70,) how fast it was growing, per frame.
        gap: opening of the lips in the last row shown, face units.
    """

    first: int
    offset: Floats
    speed: Floats
    gap: float

    @classmethod
    def between(
        cls,
        shown: npt.ArrayLike,
        before: npt.ArrayLike,
        target: npt.ArrayLike,
        k: int = 0,
        previous: npt.ArrayLike | None = None,
    ) -> Seam:
        """The seam from the rows shown to a new source.

        Args:
            shown: (70,) the last row shown, as given out by `at` or a source.
            before: (70,) the row shown before it.
            target: (70,) the first row of the new source.
            k: its frame.
            previous: (70,) the new source's row before that, if it goes on from an earlier place; without it the new
                source is taken to set out from rest.
        """
        last, earlier, fresh = _inside(shown), _inside(before), _inside(target)
        ago = fresh if previous is None else _inside(previous)
        return cls(k, last - ago, (last - earlier) - (fresh - ago), _gap(last))

    def at(self, k: int, target: npt.ArrayLike) -> Array:
        """The row (70,) to show in frame `k`, where the new source has `target` (70,)."""
        row = np.asarray(target, np.float32)
        if self.done(k):
            return row
        step = k - self.first
        fresh = _inside(row)
        joined = fresh + PLACE[step] * self.offset + SPEED[step] * self.speed
        points, wanted, was = _points(joined), _points(fresh), _points(fresh + self.offset)
        for lid in UPPER_LIDS:  # an eye that is shutting goes on, but not beyond shut
            ends = points[lid, 1], wanted[lid, 1], was[lid, 1]
            points[lid, 1] = np.clip(ends[0], min(ends[1:]), max(TEMPLATE_APERTURE, *ends[1:]))
        short = min(self.gap, _gap(fresh), PRESS_GAP) - _gap(joined)
        if short > 0.0:  # lips meet, they never cross
            points[LOWER_LIP, 1] += short
        return _outside(joined)

    def done(self, k: int) -> bool:
        """Whether frame `k` and all after it are the new source's."""
        return k - self.first >= SLOW_FRAMES - 1


def _fades(frames: int, slow: bool) -> Floats:
    """(SLOW_FRAMES - 1, 2): what is left of a difference of place, and of speed, from the first frame on.

    The polynomial that begins with the one or the other and ends in rest at zero: a cubic where it has to be quick (least
    acceleration), a quintic where it has time (least jerk).
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
            fades[:, 7 + 3 * point : 10 + 3 * point] = _fades(frames, slow=False)[:, None]
    return np.moveaxis(fades, -1, 0)


PLACE, SPEED = _tables()


def _points(row: Floats) -> Floats:
    """The expression of a row, (21, 3), a view."""
    return row[7:].reshape(KEYPOINTS, 3)


def _gap(row: Floats) -> float:
    points = _points(row)
    return float(points[LOWER_LIP, 1] - points[UPPER_LIP, 1])


def _inside(row: npt.ArrayLike) -> Floats:
    """A row (70,) with its expression in the head frame and the gaze as it is before it is held on the camera."""
    out = np.array(row, np.float64)
    points = _points(out)
    points[:] = points @ rotation_matrix(*out[1:4]).T
    points[list(IRISES), :2] -= hold_gaze(out[1:4])
    return out


def _outside(row: Floats) -> Array:
    """The way back."""
    points = _points(row)
    points[list(IRISES), :2] += hold_gaze(row[1:4])
    points[:] = points @ rotation_matrix(*row[1:4])
    return row.astype(np.float32)
