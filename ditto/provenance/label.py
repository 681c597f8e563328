"""A visible label in a picture, and the words that tell a person about a generated face."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import InputError

Pixels = npt.NDArray[np.uint8]

DISCLOSURE = "You are looking at a face that AI generates, not at a recording of a person."
TEXT = "AI-generated"
CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
# Size of the font: a share of the picture's shorter side; in pixels the least that can be read.
SIZE, LEAST_SIZE = 0.045, 9
PADDING, DISTANCE = 0.45, 0.6  # in sizes of the font: around the text, and from the border of the picture
SHADE = 0.6  # opacity of the black behind the white text


@dataclass(frozen=True)
class Label:
    """A line of text in a corner of every picture, white on a dark ground.

    Args:
        text: of at most 60 characters.
        corner: "top-left", "top-right", "bottom-left" or "bottom-right".
        font: path of a TrueType or OpenType file; by default that of Pillow, for Latin letters.

    Raises:
        ValueError: an empty or long text, another corner, a font that cannot be read, a letter that the font lacks.
    """

    text: str = TEXT
    corner: str = "bottom-right"
    font: str | None = None

    def __post_init__(self) -> None:
        if not self.text.strip() or len(self.text) > 60 or not self.text.isprintable():
            raise ValueError(f"expected a label of 1 to 60 characters in one line, got {self.text!r}; write another")
        if self.corner not in CORNERS:
            raise ValueError(f"expected a corner of {', '.join(CORNERS)}, got {self.corner!r}; choose one of them")
        font = _font(self.font, 32)
        unknown = bytes(font.getmask("\U0010ffff"))  # what the font draws for a letter that it lacks
        for letter in sorted(set(self.text) - {" "}):
            if bytes(font.getmask(letter)) == unknown:
                raise ValueError(f"expected a label in letters of the font, got {letter!r}, which it lacks; give another font")

    def check(self, height: int, width: int) -> None:
        """Raise InputError if the text does not fit into pictures of that size."""
        _stamp(self, height, width)

    def draw(self, image: Pixels) -> Pixels:
        """A copy of a picture, (H, W, 3), (H, W, 4) or its alpha alone, (H, W, 1), with the label; its ground is opaque.

        Raises:
            InputError: the text does not fit into the picture.
        """
        stamp = _stamp(self, image.shape[0], image.shape[1])
        drawn = image.copy()
        region = drawn[stamp.top : stamp.top + len(stamp.light), stamp.left : stamp.left + stamp.light.shape[1]]
        if image.shape[2] > 1:
            region[..., :3] = region[..., :3] * stamp.rest + stamp.light
        if image.shape[2] != 3:
            region[..., -1] = 255
        return drawn


class _Stamp(NamedTuple):
    """What is added to a part of a picture, (h, w, 1), and the share of the picture that stays."""

    top: int
    left: int
    light: npt.NDArray[np.float32]
    rest: npt.NDArray[np.float32]


@lru_cache(maxsize=8)
def _stamp(label: Label, height: int, width: int) -> _Stamp:
    from PIL import Image, ImageDraw

    size = max(LEAST_SIZE, round(SIZE * min(height, width)))
    while True:
        font = _font(label.font, size)
        left, top, right, bottom = (round(value) for value in font.getbbox(label.text))
        padding, distance = round(PADDING * size), round(DISTANCE * size)
        across, down = right - left + 2 * padding, bottom - top + 2 * padding
        if across + 2 * distance <= width and down + 2 * distance <= height:
            break
        if size == LEAST_SIZE:
            raise InputError(
                f"expected a label that fits into {width} x {height} pixels, got {label.text!r}; shorten it, or make "
                "the picture larger"
            )
        size -= 1
    ground = Image.new("L", (across, down), 0)
    ImageDraw.Draw(ground).rounded_rectangle((0, 0, across - 1, down - 1), padding, fill=round(255 * SHADE))
    letters = Image.new("L", (across, down), 0)
    ImageDraw.Draw(letters).text((padding - left, padding - top), label.text, fill=255, font=font)
    ink = np.asarray(letters, np.float32)[..., None] / 255.0
    shade = np.asarray(ground, np.float32)[..., None] / 255.0
    return _Stamp(
        distance if label.corner.startswith("top") else height - distance - down,
        distance if label.corner.endswith("left") else width - distance - across,
        ink * 255.0,
        (1.0 - ink) * (1.0 - shade),
    )


@lru_cache(maxsize=64)
def _font(path: str | None, size: int) -> Any:
    from PIL import ImageFont

    if path is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(path, size)
    except OSError as error:
        raise ValueError(f"expected a font file (TrueType, OpenType) at {path}, got: {error}; give another") from None
