"""What a session gives as its pictures: a pixel format, or their motion alone."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

from ditto.media.images import straight_colours

Pixels = npt.NDArray[np.uint8]

MOTION = "motion"  # in place of a format: frames have their motion and no picture
NO_PICTURE: Pixels = np.zeros((0, 0, 3), np.uint8)
NO_PICTURE.flags.writeable = False


def _rgba(image: Pixels, alpha: Pixels | None) -> Pixels:
    """RGBA with straight alpha: undoes the white background that the portrait was composited over."""
    if alpha is None:
        return np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    return np.dstack([straight_colours(image, alpha), alpha])


OUTPUTS: MappingProxyType[str, Callable[[Pixels, Pixels | None], Pixels]] = MappingProxyType(
    {
        "rgb24": lambda image, alpha: image,
        "bgr24": lambda image, alpha: np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8),
        "rgba": _rgba,
        "yuv420p": lambda image, alpha: np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8),
    }
)
"""Format name -> conversion of an (H, W, 3) RGB picture and the portrait's alpha (H, W) or None."""
