"""The inside of the mouth, and the skin at its corners."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto import _native
from ditto.ops.checks import check_changed, check_type
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
        ValueError: for another shape or memory order, a box outside the image, or a scene that is not finite.
        TypeError: wrong dtype.
    """
    check_changed("paint_mouth", image)
    left, top, right, bottom = box
    if not (0 <= left and 0 <= top and right <= image.shape[1] and bottom <= image.shape[0]):
        raise ValueError(
            f"expected a box inside {image.shape[1]} x {image.shape[0]} pixels for paint_mouth, got {box}; clip it"
        )
    if columns.ndim != 2 or columns.shape[1] != COLUMN_CHANNELS or len(columns) < 2:
        raise ValueError(
            f"expected columns (N, {COLUMN_CHANNELS}) of paint_mouth, N of 2 or more, got {columns.shape}; give all channels"
        )
    for name, texture in (("upper", upper), ("lower", lower), ("own", own)):
        if texture.ndim != 3 or texture.shape[2] != 4:
            raise ValueError(
                f"expected {name} (h, w, 4) of paint_mouth, got {texture.shape}; give premultiplied RGB and coverage"
            )
    if grain.ndim != 2 or grain.shape[0] != grain.shape[1]:
        raise ValueError(f"expected a square grain of paint_mouth, got {grain.shape}; cut it")
    for name, array in (("columns", columns), ("upper", upper), ("lower", lower), ("own", own), ("grain", grain)):
        check_type("paint_mouth", name, array, np.float32)
        if not array.flags.c_contiguous:
            raise ValueError(f"expected contiguous {name} of paint_mouth, got a view; convert with np.ascontiguousarray")
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
        ValueError: for another shape or memory order.
        TypeError: wrong dtype.
    """
    check_changed("smooth_corner", image)
    if corner.shape != (2,) or direction.shape != (2,):
        raise ValueError(
            f"expected a corner and a direction (2,) of smooth_corner, got {corner.shape} and {direction.shape}; give x and y"
        )
    if scale <= 0:
        raise ValueError(f"expected a scale above 0 pixels per face unit for smooth_corner, got {scale}; give the face's")
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
