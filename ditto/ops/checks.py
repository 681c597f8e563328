"""What the wrappers check alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def check_type(kernel: str, name: str, array: npt.NDArray[Any], dtype: npt.DTypeLike) -> None:
    """Raises TypeError for an array of another type."""
    if array.dtype != dtype:
        raise TypeError(f"expected {name} of {kernel} as {np.dtype(dtype)}, got {array.dtype}; convert it")


def check_changed(kernel: str, image: npt.NDArray[np.uint8]) -> None:
    """Raises for an image that a kernel cannot change in place: ValueError for its shape or memory, TypeError for its type."""
    check_type(kernel, "image", image, np.uint8)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected the image of {kernel} (H, W, 3), got {image.shape}; give RGB")
    if not image.flags.c_contiguous or not image.flags.writeable:
        raise ValueError(
            f"expected a contiguous, writeable image for {kernel}, which changes it, got one that is not; give a copy"
        )
