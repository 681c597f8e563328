"""The moving picture at the top of README: portraits in the public domain say a stretch of the example, in a loop.

    python -m benchmarks.demo_picture [--portraits FILE ...] [--out docs/demo.webp]

Also writes a contact sheet, to look at: every twelfth frame, and eight consecutive ones.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures

from benchmarks._motions import motion_only
from benchmarks._report import ROOT, Figure, publish
from benchmarks._tiles import column, row, tile
from benchmarks.faces import SCRATCH, SHARED, example_portrait
from benchmarks.sheet import shoot
from benchmarks.speech import example_speech, read_speech
from ditto.commands import Arguments, run
from ditto.media.files import check_output_file
from ditto.motion.motion import FPS, Motion
from ditto.portrait.portrait import Portrait
from ditto.talking_head import TalkingHead, load

Floats = npt.NDArray[np.float64]

PAINTINGS = SHARED / "portraits" / "public_domain"
START, END = 96, 240  # frames of the example; both lie in a pause (silence from 91 to 101 and from 234 on)
SIDE = 320  # pixels of a portrait; three of them fill the width of a page on GitHub
SHOWN = 2.5  # side of the square that is shown of a picture, face widths
RAISED = 0.15  # how far that square lies above the middle of the face, for the hair; face widths
QUALITY = 70  # of WebP, 0 to 100: 2.1 MB


def looping(rows: Floats, start: int, end: int) -> Floats:
    """Rows [start, end) of a motion (T, 70), such that row `end` would equal row `start`: the drift is spread over all."""
    share = np.arange(end - start)[:, None] / (end - start)
    return rows[start:end] + share * (rows[start] - rows[end])


def shown(portrait: Portrait) -> tuple[int, int, int, int]:
    """The square of a picture around its face: left, top, right, bottom."""
    points = np.c_[portrait.landmarks[:, :2], np.ones(len(portrait.landmarks))] @ portrait.crop_to_picture[:2].T
    height, width = portrait.picture.shape[:2]
    face = np.ptp(points[:, 0])
    side = round(min(SHOWN * face, width, height))
    corner = (points.min(0) + points.max(0) - side) / 2 - [0, RAISED * face]
    left, top = np.clip(corner, 0, [width - side, height - side]).round().astype(int)
    return left, top, left + side, top + side


def speaking(
    head: TalkingHead, portrait: Portrait, samples: npt.NDArray[np.float32], seed: int
) -> list[Pictures.Image]:
    """The frames of one portrait, (SIDE, SIDE) each."""
    frames = TalkingHead(head.bundle, motion_only(head.performer)).animate(portrait, samples, seed=seed)
    rows = np.stack([np.asarray(frame.motion.values, np.float64) for frame in frames if frame.motion is not None])
    motion, square = Motion(looping(rows, START, END)), shown(portrait)
    pictures = (Pictures.fromarray(shoot(head, portrait, motion[i]).picture) for i in range(len(motion)))
    return [picture.resize((SIDE, SIDE), Pictures.Resampling.LANCZOS, box=square) for picture in pictures]


def side_by_side(pictures: Sequence[Pictures.Image]) -> Pictures.Image:
    canvas = Pictures.new("RGB", (SIDE * len(pictures), SIDE))
    for i, picture in enumerate(pictures):
        canvas.paste(picture, (SIDE * i, 0))
    return canvas


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Arguments(prog="python -m benchmarks.demo_picture", description=__doc__.split("\n")[0])
    portraits = [PAINTINGS / "mona_lisa.jpg", example_portrait(), PAINTINGS / "la_velata_raphael.jpg"]
    parser.add_argument("--portraits", type=Path, nargs="+", default=portraits)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "demo.webp")
    options = parser.parse_args(arguments)
    check_output_file(options.out)
    started = time.perf_counter()

    head, samples = load("lite"), read_speech(example_speech())
    heads = [speaking(head, head.register(path), samples, seed) for seed, path in enumerate(options.portraits)]
    frames = [side_by_side(pictures) for pictures in zip(*heads, strict=True)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    # One key frame: every further one would show as a pulse in the texture of the paintings.
    key = {"kmin": len(frames) - 1, "kmax": len(frames)}
    timing = {"duration": 1000 // FPS, "loop": 0}
    frames[0].save(options.out, save_all=True, append_images=frames[1:], quality=QUALITY, method=4, **timing, **key)

    SCRATCH.mkdir(parents=True, exist_ok=True)
    chosen = [*range(0, len(frames), 12), *range(56, 64)]
    tiles = [tile(np.asarray(frames[i]), f"frame {i}", SIDE // 2) for i in chosen]
    sheet = SCRATCH / "demo_picture.png"
    column([row(tiles[i : i + 4]) for i in range(0, len(tiles), 4)]).save(sheet)
    figures = [
        Figure("frames", float(len(frames))),
        Figure("duration, s", len(frames) / FPS),
        Figure("size, MB", options.out.stat().st_size / 1e6),
    ]
    publish("demo_picture", figures, [], out=str(options.out), sheet=str(sheet), seconds=time.perf_counter() - started)


if __name__ == "__main__":
    run(main)
