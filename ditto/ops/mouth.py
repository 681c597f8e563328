"""The inside of the mouth, and the skin at its corners."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto import _native
from ditto.ops.reference.mouth import COLUMN_CHANNELS, CORNER_HALF, CORNER_REACH, Scene, corner_box

Array = npt.NDArray[np.float32]


def paint_mouth(
    image: npt.NDArray[np.uint8],
    box: tuple[int, int, int, int],
    columns: Array,
    scene: Scene,
    upper: Array,
    lower: Array,
    own: Array,
    grain: Array,
) -> None:
    """Paint tongue, teeth and lip shadows between the inner lips, in place.

    Everything that varies across the mouth only is given per column of the head frame, see
    `ditto.lite.rendering.mouth.draw_mouth`, the one caller; the pixel loop interpolates columns and
    evaluates the rest.

    Args:
        image: (H, W, 3) RGB, changed in place.
        box: left, top, right, bottom of the pixels to visit, inside the image.
        columns: (N, 23), N >= 2, evenly spaced in x: see `reference.mouth.Channel`.
        scene: see `reference.mouth.Scene`.
        upper, lower, own: (h, w, 4) premultiplied RGB (0..255) and coverage (0..1).
        grain: (g, g) levels.

    Raises:
        ValueError: for another shape, type or memory order, a box outside the image, or a scene that is not finite.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.flags.c_contiguous:
        raise ValueError(f"paint_mouth takes a contiguous (H, W, 3) uint8 image, got {image.shape} {image.dtype}")
    left, top, right, bottom = box
    if not (0 <= left and 0 <= top and right <= image.shape[1] and bottom <= image.shape[0]):
        raise ValueError(f"paint_mouth takes a box inside {image.shape[1]} x {image.shape[0]} pixels, got {box}")
    if columns.ndim != 2 or columns.shape[1] != COLUMN_CHANNELS or len(columns) < 2:
        raise ValueError(f"paint_mouth takes (N, {COLUMN_CHANNELS}) columns, got {columns.shape}")
    for name, texture in (("upper", upper), ("lower", lower), ("own", own)):
        if texture.ndim != 3 or texture.shape[2] != 4:
            raise ValueError(f"paint_mouth takes a (h, w, 4) texture {name}, got {texture.shape}")
    if grain.ndim != 2 or grain.shape[0] != grain.shape[1]:
        raise ValueError(f"paint_mouth takes a square grain, got {grain.shape}")
    arrays = (columns, upper, lower, own, grain)
    if any(a.dtype != np.float32 or not a.flags.c_contiguous for a in arrays):
        raise ValueError("paint_mouth takes contiguous float32 arrays; convert with np.ascontiguousarray")
    _native.paint_mouth(
        image,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        columns=columns,
        scene=_native.MouthScene(**scene._asdict()),
        upper=upper,
        lower=lower,
        own=own,
        grain=grain,
    )


def smooth_corner(
    image: npt.NDArray[np.uint8],
    corner: npt.NDArray[np.float64],
    direction: npt.NDArray[np.float64],
    scale: float,
    amount: float,
) -> None:
    """Lift the dark line that runs outwards from a mouth corner to the tone of the skin above and below, in place.

    Args:
        image: (H, W, 3) RGB, changed in place.
        corner: (2,) pixels.
        direction: (2,) unit vector from the mouth outwards.
        scale: Pixels per face unit.
        amount: 0 leaves the line, 1 takes most of it.

    Raises:
        ValueError: for another shape, type or memory order.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.flags.c_contiguous:
        raise ValueError(f"smooth_corner takes a contiguous (H, W, 3) uint8 image, got {image.shape} {image.dtype}")
    if corner.shape != (2,) or direction.shape != (2,):
        raise ValueError(f"smooth_corner takes two points (2,), got {corner.shape} and {direction.shape}")
    if scale <= 0:
        raise ValueError(f"smooth_corner takes a scale above 0 pixels per face unit, got {scale}")
    left, top, right, bottom = corner_box(image, corner, direction, scale)
    _native.smooth_corner(
        image,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        x=corner[0],
        y=corner[1],
        outwards_x=direction[0],
        outwards_y=direction[1],
        scale=scale,
        amount=amount,
        reach=CORNER_REACH,
        half=CORNER_HALF,
    )
