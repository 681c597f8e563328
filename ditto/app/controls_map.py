"""The sheet of `ditto controls map`: each of the 63 numbers of a motion drawn on a portrait, as Figure 2 of Ditto's paper.

Source: Ditto (arXiv:2411.19509), figure 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import InputError
from ditto.motion.map import AXES, Dimension
from ditto.motion.motion import EXPRESSION, MOTION_SIZE, Keypoint, Motion
from ditto.performer import expect_own
from ditto.row_performer import RowAppearance, RowPerformer

if TYPE_CHECKING:
    from PIL import ImageDraw

    from ditto.portrait.portrait import Portrait
    from ditto.talking_head import TalkingHead

Image = npt.NDArray[np.uint8]

TILE, GAP, TITLE, CAPTION = 192, 8, 30, 34  # pixels
COLUMNS = 2  # keypoints side by side
AROUND = 0.06  # of the face's box, on each side
CHANGED = 12  # levels: a smaller change is not seen at a glance
BACKGROUND, INK, FAINT, OUTLINE = (250, 250, 250), (20, 20, 20), (120, 120, 120), (0, 230, 80)


class Drawn(NamedTuple):
    """A face at one value of one number: its picture, and where it differs from the face at rest."""

    picture: Image
    changed: npt.NDArray[np.bool_]


def draw_map(head: TalkingHead, portrait: Portrait, step: Callable[[], None] = lambda: None) -> Image:
    """The sheet of a portrait, (H, W, 3): for each keypoint the face at rest, and each axis at both ends of its safe range,
    with the changed pixels outlined.

    Args:
        step: called before each picture.

    Raises:
        InputError: the bundle has no explicit motion.
    """
    from PIL import Image as Pictures
    from PIL import ImageDraw, ImageFont

    performer = head.performer
    if not isinstance(performer, RowPerformer):
        raise InputError(f"expected a bundle with explicit motion, got {head.bundle.name!r}; use another bundle")
    appearance = expect_own(performer.prepare(portrait), RowAppearance)
    part = window(portrait)

    def show(number: int | None, value: float) -> Image:
        step()
        values = np.zeros(MOTION_SIZE)
        if number is not None:
            values[EXPRESSION.start + number] = value
        motion = Motion(performer.motion_space.from_head(values, portrait).astype(np.float32))
        crop = performer.renderer.render(appearance.prepared, performer.renderer.retarget(portrait, motion))
        return np.asarray(appearance.paste_back(crop)[part])

    rest = show(None, 0.0)
    width, height = 7 * TILE + 8 * GAP, TITLE + TILE + CAPTION + GAP
    rows = -(-len(Keypoint) // COLUMNS)
    sheet = Pictures.new("RGB", (COLUMNS * width + GAP, rows * height + GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(16), ImageFont.load_default(12)
    face_map = performer.motion_space.map
    for keypoint in Keypoint:
        column, row = keypoint % COLUMNS, keypoint // COLUMNS
        x, y = GAP + column * width, GAP + row * height
        role = face_map.roles[keypoint]
        name = keypoint.name.lower()
        draw.text((x, y + 4), f"{int(keypoint)}  {name}", INK, large)
        draw.text((x + draw.textlength(f"{int(keypoint)}  {name}", large) + 12, y + 7), role.moves, FAINT, small)
        place(sheet, draw, (x, y + TITLE), Drawn(rest, np.zeros(rest.shape[:2], np.bool_)), ["0"], small)
        for dimension in face_map.dimensions[3 * keypoint : 3 * keypoint + 3]:
            for side, (value, words) in enumerate(ends(dimension)):
                at = x + (1 + 2 * dimension.axis + side) * (TILE + GAP)
                picture = show(dimension.number, value)
                drawn = Drawn(picture, np.abs(picture.astype(int) - rest).max(-1) > CHANGED)
                caption = f"{AXES[dimension.axis]} {value:+.3f}  {words}"
                place(sheet, draw, (at, y + TITLE), drawn, wrapped(caption, draw, small), small)
    return np.asarray(sheet)


def ends(dimension: Dimension) -> Iterator[tuple[float, str]]:
    """Both ends of a number's safe range, and what it does there."""
    yield dimension.safe_low, dimension.minus
    yield dimension.safe_high, dimension.plus


def window(portrait: Portrait) -> tuple[slice, slice]:
    """Rows and columns of a square of the picture around the face."""
    points = np.c_[portrait.landmarks[:, :2], np.ones(len(portrait.landmarks))] @ portrait.crop_to_picture[:2].T
    low, high = points.min(0), points.max(0)
    height, width = portrait.picture.shape[:2]
    side = int(min((1.0 + 2.0 * AROUND) * float((high - low).max()), height, width))
    x, y = np.clip(((low + high - side) / 2).astype(int), 0, (width - side, height - side))
    return slice(y, y + side), slice(x, x + side)


def place(sheet: Any, draw: ImageDraw.ImageDraw, at: tuple[int, int], drawn: Drawn, lines: list[str], font: Any) -> None:
    """Put a tile and its caption on the sheet."""
    import cv2
    from PIL import Image as Pictures

    tile = np.asarray(Pictures.fromarray(drawn.picture).resize((TILE, TILE), Pictures.Resampling.LANCZOS)).copy()
    mask = cv2.resize(drawn.changed.astype(np.float32), (TILE, TILE), interpolation=cv2.INTER_AREA)
    mask = (cv2.GaussianBlur(mask, (0, 0), 2.0) > 0.12).astype(np.uint8)
    contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    cv2.drawContours(tile, contours, -1, OUTLINE, 1, cv2.LINE_AA)
    sheet.paste(Pictures.fromarray(tile), at)
    for i, line in enumerate(lines):
        draw.text((at[0], at[1] + TILE + 2 + 15 * i), line, INK, font)


def wrapped(text: str, draw: ImageDraw.ImageDraw, font: Any) -> list[str]:
    """The text in lines no wider than a tile."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if draw.textlength(longer, font) <= TILE:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
