"""Person over background plate in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def _spread(cells: npt.NDArray[np.float32], size: int, axis: int) -> npt.NDArray[np.float32]:
    """Linear interpolation along one axis to `size` samples; sample and cell centres match."""
    count = cells.shape[axis]
    at = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
    low = np.clip(at.astype(np.int64), 0, max(count - 2, 0))
    part = np.expand_dims((at - low).astype(np.float32), tuple(i for i in range(cells.ndim) if i != axis))
    first, second = np.take(cells, low, axis), np.take(cells, np.minimum(low + 1, count - 1), axis)
    return np.asarray(first + part * (second - first))


def composite(
    image: npt.NDArray[np.uint8],
    alpha: npt.NDArray[np.uint8],
    plate: npt.NDArray[np.uint8],
    gate: npt.NDArray[np.float32],
) -> None:
    """As `ditto.ops.composite`."""
    wide = _spread(_spread(gate, image.shape[0], 0), image.shape[1], 1)
    share = ((255 - alpha.astype(np.float32)) / 255 * wide)[..., None]
    own = image.astype(np.float32)
    image[:] = (own + share * (plate - own) + 0.5).astype(np.uint8)
