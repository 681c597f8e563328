"""Sheets to look at: what a latent bundle shows, beside lite, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ditto.training.dataset import write_bytes
from ditto.training.latent.evaluation import Floats, Talk

Pictures = npt.NDArray[np.uint8]

CELL = 128  # pixels of a face in a sheet
WIDEST, SHUT, CONSECUTIVE = 5, 4, 8  # pictures of a row


def write_png(path: Path, rows: Sequence[tuple[str, Pictures]], cell: int = CELL) -> None:
    """Rows of pictures (n, H, W, 3) uint8, each with its name, reduced or enlarged to `cell` pixels of height.

    Raises:
        OutputError: the file cannot be written.
    """
    lines = []
    for name, pictures in rows:
        line = np.concatenate([_sized(picture, cell) for picture in pictures], 1)
        cv2.putText(line, name, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 3)
        cv2.putText(line, name, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)
        lines.append(line)
    width = max(line.shape[1] for line in lines)
    sheet = np.concatenate([np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0))) for line in lines])
    write_bytes(path, cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())


def _sized(picture: Pictures, height: int) -> Pictures:
    width = round(picture.shape[1] * height / picture.shape[0])
    how = cv2.INTER_NEAREST if height >= picture.shape[0] else cv2.INTER_AREA
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)


def lips_rows(talk: Talk) -> list[tuple[str, Pictures]]:
    """Lite above, the bundle below: the frames that lite opens widest and shuts most, then consecutive ones in the middle."""
    order = _apart(np.argsort(talk.opening)[::-1], WIDEST) + _apart(np.argsort(talk.opening), SHUT)
    middle = len(talk.opening) // 2
    places = order + list(range(middle, middle + CONSECUTIVE))
    name = talk.clip.portrait.rsplit(".", 1)[0]
    return [(f"{name}: lite", talk.real[places]), (f"{name}: made", talk.made[places])]


def _apart(order: npt.NDArray[np.int64], count: int, least: int = 8) -> list[int]:
    """The first places of an order that lie `least` frames or more from each other."""
    found: list[int] = []
    for place in order.tolist():
        if all(abs(place - other) >= least for other in found) and len(found) < count:
            found.append(place)
    return found


def long_rows(talk: Talk) -> list[tuple[str, Pictures]]:
    """Frames spread over a long stream."""
    places = np.linspace(0, len(talk.made) - 1, 12).astype(int)
    return [(f"{talk.clip.portrait}: lite", talk.real[places]), ("made", talk.made[places])]


def codec_rows(name: str, real: Pictures, made: Pictures, repeated: Pictures, openings: Floats) -> list[tuple[str, Pictures]]:
    """A coded clip: real, through the codec, and the reference, where the mouth is widest and shut."""
    places = _apart(np.argsort(openings)[::-1], WIDEST) + _apart(np.argsort(openings), SHUT)
    still = np.repeat(repeated[None], len(places), 0)
    return [(f"{name}: real", real[places]), ("codec", made[places]), ("reference", still)]
