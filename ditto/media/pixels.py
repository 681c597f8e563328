"""Pixel formats of pictures, for frames of streams and sessions."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

from ditto.media.images import soft_pixels, straight_colours
from ditto.provenance import Label

Pixels = npt.NDArray[np.uint8]

GREEN = (0, 255, 0)  # of "rgb24_green", for a chroma key


def _rgba(image: Pixels, alpha: Pixels | None) -> Pixels:
    """RGBA with straight alpha: undoes the white background that the portrait was composited over."""
    if alpha is None:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), np.uint8)
    rgba = np.empty((*alpha.shape, 4), np.uint8)
    cv2.mixChannels([straight_colours(image, alpha), alpha], [rgba], [0, 0, 1, 1, 2, 2, 3, 3])
    return rgba


def _stacked(image: Pixels, alpha: Pixels | None) -> Pixels:
    rgba = _rgba(image, alpha)
    return np.concatenate([rgba[..., :3], np.repeat(rgba[..., 3:], 3, -1)])


def lay_over(rgba: Pixels, behind: Pixels) -> Pixels:
    """A picture (H, W, 4) with straight alpha over another (H, W, 3): (H, W, 3)."""
    alpha = np.asarray(cv2.extractChannel(rgba, 3), np.uint8)
    laid = np.asarray(cv2.copyTo(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), alpha, behind.copy("C")), np.uint8)
    soft, flat = soft_pixels(alpha), laid.reshape(-1, 3)
    share = alpha.reshape(-1)[soft, None].astype(np.uint16)
    flat[soft] = (flat[soft] * share + behind.reshape(-1, 3)[soft] * (255 - share) + 127) // 255
    return laid


def _green(image: Pixels, alpha: Pixels | None) -> Pixels:
    return lay_over(_rgba(image, alpha), np.full(image.shape, GREEN, np.uint8))


OUTPUTS: MappingProxyType[str, Callable[[Pixels, Pixels | None], Pixels]] = MappingProxyType(
    {
        "rgb24": lambda image, alpha: image,
        "bgr24": lambda image, alpha: np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8),
        "rgba": _rgba,
        "rgba_stacked": _stacked,
        "rgb24_green": _green,
        "yuv420p": lambda image, alpha: np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8),
    }
)
"""Format name -> conversion of an (H, W, 3) RGB picture and its alpha (H, W) or None."""

OF_ALPHA = frozenset({"rgba", "rgba_stacked", "rgb24_green"})
"""Names of the formats that show the alpha."""


def picture_of(image: Pixels, alpha: Pixels | None, output: str, label: Label | None) -> Pixels:
    """An (H, W, 3) RGB picture with its label, in the pixel format `output`. The label is opaque where the picture is not."""
    if label is None:
        return OUTPUTS[output](image, alpha)
    return OUTPUTS[output](label.draw(image), None if alpha is None else label.draw(alpha[..., None])[..., 0])


def check_pixels(name: str) -> str:
    """The name, if it is one of `OUTPUTS`. Raises ValueError."""
    if name not in OUTPUTS:
        raise ValueError(f"expected an output of {', '.join(OUTPUTS)}, got {name!r}; choose one of them")
    return name
