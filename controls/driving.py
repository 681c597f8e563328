"""Driving: regions of the face that follow a recorded performance, while speech moves the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ditto.controls import points_of, with_points
from ditto.controls.catalog import check_range, unknown
from ditto.controls.limits import limit
from ditto.motion.motion import FPS, MOTION_SIZE, Motion
from ditto.motion.regions import REGIONS
from ditto.motion.space import LITE_SPACE, MotionSpace

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

FADE_FRAMES = 10  # at both ends of a performance; 0.4 s, as long as a ramp of a session


@dataclass(frozen=True, eq=False)
class Driving:
    """What drives one frame.

    Attributes:
        values: (70,) head values (`ditto.motion.space`) of the performance.
        regions: share of the performance in each region, 0 to 1, by name.
    """

    values: Floats
    regions: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Performance:
    """A recorded motion that drives regions of a face, as a driving video or a blendshape track gives it.

    Attributes:
        values: (N, 70) head values (`ditto.motion.space`), 25 a second, against the performer's own neutral face. The
            irises are against the head.
        regions: share of the performance in each region, 0 to 1, by name; speech moves the rest.
        start_seconds: when it begins.
        weights: (N,) how far to trust each frame, 0 to 1: 0 where the performer's face was lost. None: 1.

    Raises:
        ValueError: another shape, a number that is not finite, an unknown region, a share out of range.
    """

    values: Array
    regions: Mapping[str, float] = field(default_factory=lambda: {"all": 1.0})
    start_seconds: float = 0.0
    weights: Array | None = None

    def __post_init__(self) -> None:
        values = np.array(self.values, np.float32)
        if values.ndim != 2 or values.shape[1] != MOTION_SIZE or not len(values):
            raise ValueError(
                f"expected a performance as (N, {MOTION_SIZE}) numbers with N > 0, got {values.shape}; "
                "give a row for each frame"
            )
        if not np.isfinite(values).all():
            frame = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
            raise ValueError(f"expected finite numbers in a performance, got others in frame {frame}; leave that frame out")
        weights = np.ones(len(values), np.float32) if self.weights is None else np.array(self.weights, np.float32)
        if weights.shape != (len(values),) or not ((weights >= 0.0) & (weights <= 1.0)).all():
            raise ValueError(
                f"expected weights as ({len(values)},) numbers in [0, 1], got {weights.shape}; "
                "give one for each frame"
            )
        regions = {}
        for name, share in self.regions.items():
            if name not in REGIONS:
                raise unknown("regions of a performance", name, REGIONS)
            regions[name] = check_range(f"regions[{name!r}]", share, 0.0, 1.0)
        for array in (values, weights):
            array.flags.writeable = False
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "regions", MappingProxyType(regions))
        object.__setattr__(self, "start_seconds", check_range("start_seconds", self.start_seconds, 0.0, 86400.0))

    def at(self, frame: int) -> Driving | None:
        """What drives a frame; None before the performance and after it. It fades in and out."""
        k, count = frame - round(self.start_seconds * FPS), len(self.values)
        if not 0 <= k < count:
            return None
        assert self.weights is not None
        t = min(1.0, (k + 1) / FADE_FRAMES, (count - k) / FADE_FRAMES)
        share = float(self.weights[k]) * t * t * (3.0 - 2.0 * t)
        return Driving(self.values[k].astype(np.float64), {name: share * x for name, x in self.regions.items()})


def drive(motion: Motion, driving: Driving, portrait: Portrait | None, space: MotionSpace | None = None) -> Motion:
    """A motion (70,) with regions that follow a performance. The gaze of either is against the camera.

    Soft limits (`ditto.controls.limits`) hold what the performance has beyond them.

    Raises:
        ValueError: the space needs a portrait, and `portrait` is None.
    """
    space = LITE_SPACE if space is None else space
    share = np.max([x * space.regions[name] for name, x in driving.regions.items()], axis=0, initial=0.0)
    if not share.any():
        return motion
    own = _without_hold(space.to_head(motion.values, portrait), space, portrait)
    theirs = _without_hold(limit(driving.values, LITE_SPACE), LITE_SPACE, None)
    mixed = own + share * (theirs - own)
    mixed = with_points(mixed, points_of(mixed) + space.camera_hold(mixed, portrait))
    return Motion(space.from_head(mixed, portrait).astype(np.float32))


def _without_hold(values: Floats, space: MotionSpace, portrait: Portrait | None) -> Floats:
    """Head values without what keeps the eyes on the camera."""
    return with_points(values, points_of(values) - space.camera_hold(values, portrait))
