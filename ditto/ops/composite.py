"""Person over background plate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto import _native
from ditto.ops.checks import check_changed, check_type


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
    check_changed("composite", image)
    check_type("composite", "alpha", alpha, np.uint8)
    check_type("composite", "plate", plate, np.uint8)
    check_type("composite", "gate", gate, np.float32)
    if plate.shape != image.shape or alpha.shape != image.shape[:2]:
        raise ValueError(
            f"expected plate {image.shape} and alpha {image.shape[:2]} of composite, got {plate.shape} and {alpha.shape}; "
            "give those of the image"
        )
    if gate.ndim != 2 or 0 in gate.shape:
        raise ValueError(f"expected a gate (h, w) of composite, got {gate.shape}; give one or more numbers")
    solid = np.ascontiguousarray
    _native.composite(image, alpha=solid(alpha), plate=solid(plate), gate=solid(gate))
