"""Style: how much the head and the brows move. Lips, lids, cheeks and chin stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ditto.motion.motion import BROWS, EXPRESSION, KEYPOINTS, Keypoint

Floats = npt.NDArray[np.float64]

# Strength by name: a factor on the motion of head and brows as the bundle's network makes it. All but 1 were chosen by eye.
STYLES: Mapping[str, float] = MappingProxyType({"calm": 0.45, "natural": 1.0, "lively": 1.35})
MAX_STRENGTH = 2.0  # chosen by eye: beyond it, the head turns further than one picture shows
STYLED = (Keypoint.FOREHEAD, *BROWS, Keypoint.GLABELLA)


def style_strength(style: str | float) -> float:
    """The strength of a style, a name in `STYLES` or a number in [0, 2].

    Raises:
        ValueError: another name, or a number that is not finite or out of range.
        TypeError: neither a name nor a number.
    """
    expected = f"expected a style of {', '.join(STYLES)}, or a number in [0, {MAX_STRENGTH:g}]"
    if isinstance(style, str):
        if style not in STYLES:
            raise ValueError(f"{expected}, got {style!r}; choose one of them")
        return STYLES[style]
    if isinstance(style, bool) or not isinstance(style, Real):
        raise TypeError(f"{expected}, got {type(style).__name__}; choose one of them")
    if not 0.0 <= style <= MAX_STRENGTH:  # false for NaN
        raise ValueError(f"{expected}, got {style!r}; choose one of them")
    return float(style)


def scale_motion(values: npt.ArrayLike, strength: float) -> Floats:
    """Head values (..., 70) with `strength` times as much motion of the head and, right and down, of the brows."""
    out = np.array(values, np.float64)
    out[..., : EXPRESSION.start] *= strength
    points = out[..., EXPRESSION].reshape(*out.shape[:-1], KEYPOINTS, 3)
    points[..., list(STYLED), :2] *= strength
    return out
