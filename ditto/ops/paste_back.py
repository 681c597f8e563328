"""A rendered crop put back into its picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto import _native
from ditto.ops.checks import check_type


def paste_back(
    picture: npt.NDArray[np.uint8],
    source: npt.NDArray[np.uint8],
    rendered: npt.NDArray[np.uint8],
    ramp: npt.NDArray[np.float32],
    to_crop: npt.NDArray[np.float64],
    corner: tuple[int, int],
    size: tuple[int, int],
    detail: npt.NDArray[np.int16] | None,
    reduce: int = 1,
) -> npt.NDArray[np.uint8]:
    """The picture with what changed between `source` and `rendered` added to it: a new (H, W, C) frame, C 3 or 1.

    Where nothing changed the picture comes back bit for bit. Where much changed, `detail` (what the picture has and
    the crop cannot hold) is taken off, so that it does not stand still over a moving face.

    Args:
        picture: (H, W, C).
        source, rendered: (S, S, C) crops before and after.
        ramp: (2, S) in [0, 1]: fades the change towards the left and right, and the top and bottom of the crop.
        to_crop: (2, 3) affine, picture pixels (x, y, 1) -> crop pixels.
        corner: first column and row of the picture that the crop touches.
        size: width and height of the part it touches, inside the picture.
        detail: (height, width, C) or None for none: that part of the picture less the source crop drawn into it.
        reduce: crops finer than the picture are first averaged over reduce x reduce pixels.

    Raises:
        ValueError: wrong shape, or a part that is not inside the picture.
        TypeError: wrong dtype.
    """
    for name, array, dtype in (
        ("picture", picture, np.uint8),
        ("source", source, np.uint8),
        ("rendered", rendered, np.uint8),
        ("ramp", ramp, np.float32),
        ("to_crop", to_crop, np.float64),
        ("detail", detail, np.int16),
    ):
        if array is not None:
            check_type("paste_back", name, array, dtype)
    if picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(f"expected a picture (H, W, 3) or (H, W, 1) of paste_back, got {picture.shape}; convert it")
    side, channels = rendered.shape[0], picture.shape[2]
    if rendered.shape != (side, side, channels) or source.shape != rendered.shape or side < 8:
        raise ValueError(
            f"expected crops (S, S, {channels}) of one size for paste_back, S of 8 or more, got {source.shape} and "
            f"{rendered.shape}; give both of one portrait"
        )
    if ramp.shape != (2, side) or to_crop.shape != (2, 3):
        raise ValueError(
            f"expected a ramp (2, {side}) and to_crop (2, 3) of paste_back, got {ramp.shape} and {to_crop.shape}; give "
            "those of the crop"
        )
    (x, y), (width, height) = corner, size
    if min(x, y, width - 1, height - 1) < 0 or x + width > picture.shape[1] or y + height > picture.shape[0]:
        raise ValueError(
            f"expected a part inside of {picture.shape[1]} x {picture.shape[0]} pixels for paste_back, got {width} x "
            f"{height} at {x}, {y}; clip it"
        )
    if detail is not None and detail.shape != (height, width, channels):
        raise ValueError(
            f"expected detail ({height}, {width}, {channels}) of paste_back, got {detail.shape}; give that of the "
            "part, or None"
        )
    if not 1 <= reduce <= side // 4:
        raise ValueError(f"expected reduce of paste_back from 1 to {side // 4}, got {reduce}; give another")
    solid = np.ascontiguousarray
    return _native.paste_back(
        solid(picture),
        source=solid(source),
        rendered=solid(rendered),
        ramp=solid(ramp),
        to_crop=solid(to_crop),
        x=x,
        y=y,
        width=width,
        height=height,
        detail=np.empty((0, 0, channels), np.int16) if detail is None else solid(detail),
        reduce=reduce,
    )
