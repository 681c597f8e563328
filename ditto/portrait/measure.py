"""Statistics over the pixels that fulfil a condition, of which there may be few or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Result = TypeVar("Result")
Default = TypeVar("Default")


def measured(
    statistic: Callable[[Any], Result], values: npt.NDArray[Any] | Sequence[float], *, none: Default, least: int = 1
) -> Result | Default:
    """`statistic(values)`, or `none` where there are fewer than `least` values.

    Args:
        values: (N, ...) what was selected, e.g. `image[mask]`.
        none: the result where there are too few values.
    """
    return statistic(values) if len(values) >= least else none


def weighted_quantiles(values: Floats, weights: Floats, shares: tuple[float, ...]) -> list[float]:
    """Quantiles of values (h, w) by weights (h, w) >= 0; of all values alike where no weight is above 0."""
    order = np.argsort(values, None)
    mass = np.cumsum(weights.ravel()[order])
    if not mass[-1] > 0.0:
        mass = np.arange(1.0, values.size + 1)
    return [float(values.ravel()[order[int(np.searchsorted(mass, q * mass[-1]))]]) for q in shares]
