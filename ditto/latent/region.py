"""The part of a portrait that a latent system draws: a square around the face, or a window of it. No torch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ditto.errors import InputError
from ditto.lite.rendering.paste_back import PasteBack, picture_ends
from ditto.portrait.face_mesh import smoothstep
from ditto.portrait.portrait import Portrait

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

FACE_MARGIN = 0.66  # half the side of the square, in larger sides of the box of the landmarks (small_recipe)
FACE_RISE = 0.02  # of the box's height: the square's centre above that of the box (small_recipe)
SUPERSAMPLING = 3  # before the reduction (small_recipe)
COMPOSED_SIZE = 256  # pixels of the region when it is composed: detail goes in cells of 8 of them (`ditto.ops.paste_back`)
FADE = 0.15  # of the region's side: what it shows fades in over it; by eye

LARGEST_SIDE = 2048  # of the square: `SUPERSAMPLING` times it is what OpenCV still warps and the memory holds


def square_of(portrait: Portrait) -> Floats:
    """The square around a face: (3,) centre x, y and half the side, in pixels of the picture."""
    matrix = portrait.crop_to_picture
    return square_around(portrait.landmarks[:, :2] @ matrix[:2, :2].T + matrix[:2, 2])


def square_around(points: npt.NDArray[np.floating[Any]]) -> Floats:
    """The square around the landmarks (N, 2) of a face, in pixels of its picture: (3,) as `square_of`."""
    low, high = points.min(0), points.max(0)
    centre = (low + high) / 2 - (0, FACE_RISE * (high - low)[1])
    return np.array([*centre, FACE_MARGIN * (high - low).max()])


def cut_square(picture: Pixels, square: Floats, side: int, angle: float = 0.0) -> Pixels:
    """(side, side, 3): the square of a picture (H, W, 3), its border repeated outside.

    Args:
        angle: radians by which the square is turned, clockwise on the screen.
    """
    x, y, half = square
    large = SUPERSAMPLING * side
    scale = large / (2 * half)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    to_square = np.array([[c, s, large / 2 - (c * x + s * y) - 0.5], [-s, c, large / 2 - (c * y - s * x) - 0.5]])
    cut = cv2.warpAffine(picture, to_square, (large, large), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(cut, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True)
class Region:
    """A window of the square around a face. All numbers are pixels of that square, reduced to `side` x `side`.

    Attributes:
        side: of the square.
        left, top: of the window.
        size: of a side of the window, which is what the codec codes.

    Raises:
        InputError: the window is empty, or does not lie in the square; a square larger than `LARGEST_SIDE`.
    """

    side: int
    left: int
    top: int
    size: int

    def __post_init__(self) -> None:
        if self.size < 2 or min(self.left, self.top) < 0 or max(self.left, self.top) + self.size > self.side:
            numbers = ", ".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))
            raise InputError(f"expected a window of 2 pixels or more inside of the square, got {numbers}; give others")
        if self.side > LARGEST_SIDE:
            raise InputError(f"expected a square of at most {LARGEST_SIDE} pixels a side, got {self.side}; give a smaller one")

    def cut(self, picture: Pixels, square: Floats) -> Pixels:
        """(size, size, 3): the window of a picture (H, W, 3) with this square around its face."""
        whole = cut_square(picture, square, self.side)
        return np.ascontiguousarray(whole[self.top : self.top + self.size, self.left : self.left + self.size])

    def to_picture(self, square: Floats) -> Floats:
        """(3, 3) affine, pixels of the window -> pixels of the picture; pixel centres lie at whole numbers."""
        x, y, half = square
        step = 2 * half / self.side
        return np.array(
            [
                [step, 0.0, x - half + step * (self.left + 0.5) - 0.5],
                [0.0, step, y - half + step * (self.top + 0.5) - 0.5],
                [0.0, 0.0, 1.0],
            ]
        )


class Composer:
    """From what a system draws, (size, size, 3) uint8 RGB, to the whole picture (H, W, 3) uint8 RGB.

    The picture gets the difference to `rest`, with a soft border, and loses its fine detail where there is a difference. So
    `rest` itself gives the picture bit for bit, and skin that does not move stays as sharp as it is.

    Args:
        rest: (size, size, 3) uint8, what the codec makes of the portrait itself.
    """

    def __init__(self, portrait: Portrait, region: Region, rest: Pixels) -> None:
        self._zoom = max(1, COMPOSED_SIZE // region.size)
        size = self._zoom * region.size
        shift = (1 / self._zoom - 1) / 2  # of the first pixel's centre
        to_region = np.array([[1 / self._zoom, 0.0, shift], [0.0, 1 / self._zoom, shift], [0.0, 0.0, 1.0]])
        to_picture = region.to_picture(square_of(portrait)) @ to_region
        points = np.concatenate([portrait.landmarks[:, :2], np.ones((len(portrait.landmarks), 1))], 1)
        landmarks = portrait.landmarks.copy()
        landmarks[:, :2] = (points @ (np.linalg.inv(to_picture) @ portrait.crop_to_picture).T)[:, :2]
        part = replace(
            portrait,
            crop=self._zoomed(rest),
            crop_to_picture=to_picture,
            landmarks=landmarks,
            mask=np.ones((size, size), np.float32),
        )
        self._paste = PasteBack(part)
        fade = smoothstep(0.0, 1.0, (np.arange(size) + 0.5) / (FADE * size)).astype(np.float32)
        for ramp, (low_end, high_end) in zip(self._paste.ramp, picture_ends(part), strict=True):
            ramp[:] = np.where(low_end, 1.0, fade) * np.where(high_end, 1.0, fade[::-1])

    def __call__(self, drawn: Pixels) -> Pixels:
        return self._paste(self._zoomed(drawn))

    def _zoomed(self, drawn: Pixels) -> Pixels:
        size = self._zoom * len(drawn)
        return np.asarray(cv2.resize(drawn, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)
