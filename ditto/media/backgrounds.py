"""What lies behind a frame with alpha: a colour, a picture, a looping video, or a blurred copy of the portrait's picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from os import PathLike

import cv2
import numpy as np
import numpy.typing as npt

from ditto.errors import InputError, VideoError
from ditto.media.footage import is_video, pictures
from ditto.media.images import FULL_SIZE, read_picture
from ditto.media.pixels import lay_over

Bytes = npt.NDArray[np.uint8]

BLUR = 0.03  # of the longer side: sigma of "blur"; like a fast lens behind a portrait, by eye


TRANSPARENT = "transparent"  # of the option: frames keep their alpha


def check_background(given: str) -> None:
    """Check the option `--background` before any work is done. Raises InputError."""
    if given not in (TRANSPARENT, "blur") and not os.path.isfile(given) and _colour(given) is None:
        raise InputError(
            f"expected a colour, blur, a picture or a video as the background, got {given!r}; write a colour as '#20c040'"
        )


def laid(given: str | None, original: Bytes, alpha: Bytes | None) -> Callable[[Bytes], Bytes]:
    """The function that lays frames over the background of the option `--background`, as of `background`.

    Without one (None), frames (H, W, 3) stay as they are, and frames (H, W, 4) before a transparent one.
    """
    return (lambda frame: frame) if given in (None, TRANSPARENT) else background(given, original, alpha)


def background(given: str | PathLike[str] | Bytes, original: Bytes, alpha: Bytes | None) -> Callable[[Bytes], Bytes]:
    """The function that lays frames (H, W, 4) with straight alpha, in their order, over a background: (H, W, 3).

    Args:
        given: a colour as CSS writes it, `#20c040` or `navy`; "blur"; the path of a picture, or of a video, which
            loops at 25 pictures a second; or a picture (H, W, 3). Pictures and videos are cropped so that they fill the frame.
        original: (H, W, 3) the portrait's picture.
        alpha: (H, W) its alpha.

    Raises:
        InputError: the portrait has no alpha; neither a colour, "blur" nor a file.
        ImageError, VideoError: the file cannot be read.
    """
    if alpha is None:
        raise InputError(
            "expected a picture with transparent parts for a background, got an opaque one; cut the person out "
            "first, with `TalkingHead.cut_out`"
        )
    size = (original.shape[1], original.shape[0])
    if isinstance(given, np.ndarray):
        return _still(_cover(given, size))
    text = os.fsdecode(given)
    if text == "blur":
        return _still(_blurred(original, alpha))
    if is_video(text):
        return _moving(text, size)
    colour = _colour(text)
    if colour is not None and not os.path.isfile(text):
        return _still(np.full((size[1], size[0], 3), colour, np.uint8))
    check_background(text)
    return _still(_cover(read_picture(text, FULL_SIZE)[0], size))


def _still(behind: Bytes) -> Callable[[Bytes], Bytes]:
    return lambda frame: lay_over(frame, behind)


def _moving(path: str, size: tuple[int, int]) -> Callable[[Bytes], Bytes]:
    def looped() -> Iterator[Bytes]:
        while True:
            shown = 0
            for picture in pictures(path):
                shown += 1
                yield _cover(picture, size)
            if not shown:
                raise VideoError(f"expected pictures in {path}, got none; copy or export it again")

    frames = looped()
    first = [next(frames)]  # a file that cannot be read is reported now
    return lambda frame: lay_over(frame, first.pop() if first else next(frames))


def _colour(text: str) -> tuple[int, ...] | None:
    from PIL import ImageColor

    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError:
        return None


def _cover(picture: Bytes, size: tuple[int, int]) -> Bytes:
    """The middle of a picture, scaled so that it fills (width, height)."""
    width, height = size
    factor = max(width / picture.shape[1], height / picture.shape[0])
    scaled = (max(width, round(picture.shape[1] * factor)), max(height, round(picture.shape[0] * factor)))
    if scaled != (picture.shape[1], picture.shape[0]):
        picture = np.asarray(cv2.resize(picture, scaled, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC))
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def _blurred(original: Bytes, alpha: Bytes) -> Bytes:
    """The picture blurred, the person left out: its pixels count as far as they are transparent."""
    weight = (255.5 - alpha.astype(np.float32))[..., None] / 255.5  # above 0: where all is opaque, a plain blur
    sigma = BLUR * max(original.shape[:2])
    sums = cv2.GaussianBlur(original * weight, (0, 0), sigma)
    weights = cv2.GaussianBlur(weight, (0, 0), sigma)
    return np.asarray(np.clip(np.rint(sums / weights[..., None]), 0, 255), np.uint8)
