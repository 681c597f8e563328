"""Contact sheets: images with labels, side by side and one below the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

Image = npt.NDArray[np.uint8]

TILE = 232  # pixels, height of a tile
GREY = (24, 24, 24)


def tile(image: Image, label: str, height: int = TILE) -> Pictures.Image:
    """An image at a height, its label on a strip below."""
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    scaled = Pictures.fromarray(image).resize((width, height), Pictures.Resampling.LANCZOS)
    canvas = Pictures.new("RGB", (width, height + 18), GREY)
    canvas.paste(scaled, (0, 0))
    ImageDraw.Draw(canvas).text((4, height + 2), label, fill=(235, 235, 235), font=ImageFont.load_default(13))
    return canvas


def row(tiles: Sequence[Pictures.Image]) -> Pictures.Image:
    canvas = Pictures.new("RGB", (sum(t.width + 3 for t in tiles), max(t.height for t in tiles)), GREY)
    x = 0
    for t in tiles:
        canvas.paste(t, (x, 0))
        x += t.width + 3
    return canvas


def column(rows: Sequence[Pictures.Image]) -> Pictures.Image:
    canvas = Pictures.new("RGB", (max(r.width for r in rows), sum(r.height + 4 for r in rows)), GREY)
    y = 0
    for r in rows:
        canvas.paste(r, (0, y))
        y += r.height + 4
    return canvas
