"""Person over background plate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto import _native


def composite(
    image: npt.NDArray[np.uint8],
    alpha: npt.NDArray[np.uint8],
    plate: npt.NDArray[np.uint8],
    gate: npt.NDArray[np.float32],
) -> None:
    """Lay `image` over `plate`, in place: `image += (1 - alpha / 255) gate (plate - image)`.

    Args:
        image: (H, W, 3), contiguous, changed.
        alpha: (H, W): 255 where the image stays.
        plate: (H, W, 3).
        gate: (h, w) in [0, 1], spread bilinearly over the image: 0 where the image stays whatever alpha says.

    Raises:
        ValueError: wrong shape, or an image that is not contiguous.
        TypeError: wrong dtype.
    """
    for name, array, dtype in (
        ("image", image, np.uint8),
        ("alpha", alpha, np.uint8),
        ("plate", plate, np.uint8),
        ("gate", gate, np.float32),
    ):
        if array.dtype != dtype:
            raise TypeError(f"composite takes {name} as {np.dtype(dtype)}, got {array.dtype}")
    if image.ndim != 3 or image.shape[2] != 3 or plate.shape != image.shape or alpha.shape != image.shape[:2]:
        raise ValueError(
            f"composite takes image and plate (H, W, 3), alpha (H, W); got {image.shape}, {plate.shape}, {alpha.shape}"
        )
    if gate.ndim != 2 or 0 in gate.shape:
        raise ValueError(f"composite takes a gate (h, w), got {gate.shape}")
    if not image.flags.c_contiguous or not image.flags.writeable:
        raise ValueError("composite changes the image in place: give a contiguous, writeable array")
    solid = np.ascontiguousarray
    _native.composite(image, alpha=solid(alpha), plate=solid(plate), gate=solid(gate))
