"""One eye over a warped frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto import _native
from ditto.ops.checks import check_changed, check_type
from ditto.ops.reference.eyes import (
    BALL,
    CHANNELS,
    COLUMNS,
    GLINT,
    IRIS,
    IRIS_ALPHA,
    KEEP,
    LID_MASK,
    SCLERA,
    SKIN,
    EyeView,
)

__all__ = [
    "BALL",
    "CHANNELS",
    "COLUMNS",
    "GLINT",
    "IRIS",
    "IRIS_ALPHA",
    "KEEP",
    "LID_MASK",
    "SCLERA",
    "SKIN",
    "EyeView",
    "draw_eye",
]

F32 = npt.NDArray[np.float32]


def draw_eye(image: npt.NDArray[np.uint8], texture: F32, curves: F32, strip: F32, view: EyeView) -> None:
    """Draws one eye into a frame, in place.

    Above the lid line lies the frame's own skin, replaced by lid skin where the eye or its lashes were; between the
    lid line and the lower lid the eyeball; below, the frame's own skin drawn up with the lower lid; on the line the
    lashes. `ditto.lite.rendering.eyes` is the one caller.

    Args:
        image: (H, W, 3), changed in place.
        texture: (h, w, 16) in source pixels: lid skin 3, where it replaces skin 1, eyeball as in the source 3, where
            the frame may change 1, eye white 3, highlight 1, iris 3, iris alpha 1.
        curves: (n, 13) over xi, see the reference.
        strip: (m, n) opacity of the lashes at 0 ... `view.hair` from the lash line.

    Raises:
        ValueError: wrong shape or memory order, a box outside the image, or a view that is not finite.
        TypeError: wrong dtype.
    """
    check_changed("draw_eye", image)
    check_type("draw_eye", "texture", texture, np.float32)
    check_type("draw_eye", "curves", curves, np.float32)
    check_type("draw_eye", "strip", strip, np.float32)
    if texture.ndim != 3 or texture.shape[2] != CHANNELS or min(texture.shape) < 2:
        raise ValueError(
            f"expected a texture (h, w, {CHANNELS}) of draw_eye, 2 x 2 or more, got {texture.shape}; cut a larger one"
        )
    if curves.ndim != 2 or curves.shape[1] != COLUMNS or len(curves) < 2:
        raise ValueError(f"expected curves (n, {COLUMNS}) of draw_eye, n of 2 or more, got {curves.shape}; give all of them")
    if strip.ndim != 2 or strip.shape[1] != len(curves) or len(strip) < 2:
        raise ValueError(
            f"expected a strip (m, {len(curves)}) of draw_eye, m of 2 or more, got {strip.shape}; give a column for "
            "each of curves"
        )
    x0, y0, x1, y1 = view.box
    if not (0 <= x0 and 0 <= y0 and x1 <= image.shape[1] and y1 <= image.shape[0]):
        raise ValueError(
            f"expected a box inside {image.shape[1]} x {image.shape[0]} pixels for draw_eye, got {view.box}; clip it"
        )
    kernel_view = _native.EyeView(**{name: value for name, value in view._asdict().items() if name != "box"})
    if x1 <= x0 or y1 <= y0 or view.gain <= 0.0:
        return
    solid = np.ascontiguousarray
    _native.draw_eye(
        image,
        left=x0,
        top=y0,
        right=x1,
        bottom=y1,
        texture=solid(texture),
        curves=solid(curves),
        strip=solid(strip),
        view=kernel_view,
    )
