"""Contact sheets of every portrait saying the example: frames, mouths at chosen phones and through a pause, a blink.

    python -m benchmarks.sheet [--portraits DIR ...] [--audio FILE] [--out DIR]
    python -m benchmarks.sheet --media

One PNG per portrait and an overview. To be looked at: no number here replaces eyes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures

from benchmarks import _sheet_media
from benchmarks._motions import motion_only, rows_of
from benchmarks._report import Figure, publish, rows_table
from benchmarks._tiles import GREY, TILE, column, row, tile
from benchmarks.faces import SCRATCH, SHARED
from benchmarks.measures import pauses_inside
from benchmarks.speech import example_speech, phone_posteriors, read_speech
from ditto.commands import Arguments, real_number, run
from ditto.errors import InputError
from ditto.lite.phones import PHONE_INDEX
from ditto.media.audio import SAMPLE_RATE
from ditto.media.files import check_folder
from ditto.motion.motion import FPS, UPPER_LIDS, Keypoint, Motion, retarget
from ditto.performer import expect_own
from ditto.portrait.face_mesh import EYES, LOWER_OUTER_LIP, UPPER_OUTER_LIP, fit_head
from ditto.portrait.portrait import Portrait
from ditto.row_performer import RowAppearance
from ditto.talking_head import TalkingHead, load

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
WANTED: dict[str, tuple[str, ...]] = {
    "p b m": ("P", "B", "M"),
    "f v": ("F", "V"),
    "open": ("AA", "AE", "AY", "AW", "EH"),
    "round": ("W", "UW", "OW", "AO"),
    "ee": ("IY", "EY"),
    "s z": ("S", "Z"),
    "sh ch": ("SH", "CH", "JH", "ZH"),
}
LIPS = UPPER_OUTER_LIP + LOWER_OUTER_LIP
PAUSE_FRAMES = 8  # consecutive, from the one before a pause on


class Shot(NamedTuple):
    """One rendered frame: the whole picture, the crop, and where lips and eyes are in the crop (pixels)."""

    picture: Image
    crop: Image
    lips: Floats
    eyes: Floats
    face_px: float


class Speech(NamedTuple):
    """What is said: samples, and the frames chosen to look at: of each kind of sound, and the first of a pause."""

    samples: npt.NDArray[np.float32]
    moments: dict[str, int]
    pause: int


def choose(posteriors: Floats) -> dict[str, int]:
    """For each kind of sound the frame (25 fps) in which it is heard most clearly; 50 Hz posteriors (2 T, 40) in."""
    frames = posteriors[: len(posteriors) // 2 * 2].reshape(-1, 2, posteriors.shape[-1]).mean(1)
    return {name: int(frames[:, [PHONE_INDEX[p] for p in phones]].sum(1).argmax()) for name, phones in WANTED.items()}


def choose_pause(posteriors: Floats) -> int:
    """The frame before the longest pause inside the speech, or 0 without one; 50 Hz posteriors (2 T, 40) in."""
    frames = posteriors[: len(posteriors) // 2 * 2].reshape(-1, 2, posteriors.shape[-1]).mean(1)
    longest = max(pauses_inside(frames), key=lambda pause: pause.stop - pause.start, default=slice(1, 1))
    return int(longest.start) - 1


def lid_closure(portrait: Portrait, motion: Motion) -> Floats:
    """(T,) how far the upper lids come down, as a share of the portrait's own aperture; mean of both eyes."""
    lower = portrait.canonical_keypoints[Keypoint.LOWER_LIDS, 1]
    aperture = np.array([lower - portrait.canonical_keypoints[lid, 1] for lid in UPPER_LIDS])
    down = np.array([retarget(portrait, motion[i]).delta[list(UPPER_LIDS), 1] for i in range(len(motion))])
    return np.asarray((down / np.maximum(aperture, 1e-3)).mean(1))


def shoot(head: TalkingHead, portrait: Portrait, motion: Motion) -> Shot:
    """Render one frame, and say where to look in it."""
    renderer, prepared = rows_of(head.performer).renderer, expect_own(head.appearance(portrait), RowAppearance)
    crop = renderer.render(prepared.prepared, renderer.retarget(portrait, motion))
    pose = retarget(portrait, motion)
    canonical = fit_head(portrait.landmarks)[3]
    half = portrait.crop.shape[0] / 2
    points = half + half * (pose.scale * canonical @ pose.rotation + pose.translation)
    eyes = [p for eye in EYES for p in eye.upper + eye.lower]
    lips = points[LIPS, :2].mean(0)
    return Shot(prepared.paste_back(crop), crop, lips, points[eyes, :2].mean(0), half * pose.scale)


def window(image: Image, centre: Floats, width: float, height: float) -> Image:
    """The part of an image around a point, repeated at the border."""
    x0, y0 = np.round(centre - [width / 2, height / 2]).astype(int)
    x, y = np.arange(x0, x0 + round(width)), np.arange(y0, y0 + round(height))
    return image[np.clip(y, 0, image.shape[0] - 1)][:, np.clip(x, 0, image.shape[1] - 1)]


def sheet(head: TalkingHead, portrait: Portrait, speech: Speech, title: str) -> tuple[Pictures.Image, Pictures.Image]:
    """The sheet of one portrait, and its line in the overview."""
    # Which few frames are worth rendering is chosen by their motions.
    frames = list(TalkingHead(head.bundle, motion_only(head.performer)).animate(portrait, speech.samples))
    motion = Motion(np.stack([f.motion.values for f in frames]))
    closure = lid_closure(portrait, motion)
    blink = int(closure[4:-6].argmax()) + 4 if len(closure) > 12 else int(closure.argmax())
    shots: dict[int, Shot] = {}

    def shot(index: int) -> Shot:
        index = int(np.clip(index, 0, len(frames) - 1))
        if index not in shots:
            shots[index] = shoot(head, portrait, motion[index])
        return shots[index]

    def moment(name: str) -> Shot:
        return shot(speech.moments[name])

    def at(index: int) -> str:
        return f"{index / FPS:.2f} s"

    def mouth(s: Shot) -> Image:
        return window(s.crop, s.lips, 0.72 * s.face_px, 0.52 * s.face_px)

    def eyes(s: Shot) -> Image:
        return window(s.crop, s.eyes, 0.95 * s.face_px, 0.36 * s.face_px)

    def face(s: Shot) -> Image:
        centre = portrait.crop_to_picture[:2] @ [*(0.5 * (s.lips + s.eyes)), 1.0]
        side = 2.1 * s.face_px * float(np.sqrt(np.linalg.det(portrait.crop_to_picture[:2, :2])))
        side = min(side, *s.picture.shape[:2])
        room = np.array(s.picture.shape[1::-1]) - side / 2
        return window(s.picture, np.clip(centre, side / 2, room), side, side)  # moved to lie inside the picture

    still = Shot(portrait.picture, portrait.crop, *_at_rest(portrait))
    clip = [tile(still.picture, f"{title}: source"), tile(face(still), "source")]
    for index in sorted([*np.linspace(0, len(frames) - 1, 6).astype(int), blink]):
        clip.append(tile(face(shot(index)), f"{at(index)}{' blink' if index == blink else ''}"))
    mouths = [tile(mouth(still), "source")]
    for name, index in sorted(speech.moments.items(), key=lambda item: item[1]):
        mouths.append(tile(mouth(shot(index)), f"{name}  {at(index)}"))
    pause = [tile(mouth(shot(i)), f"pause  {at(i)}") for i in range(speech.pause, speech.pause + PAUSE_FRAMES)]
    blinks = [tile(eyes(still), "source", TILE // 3)]
    for step in (-3, -2, -1, 0, 1, 2, 4):
        index = int(np.clip(blink + step, 0, len(closure) - 1))
        blinks.append(tile(eyes(shot(index)), f"{closure[index]:.2f} shut", TILE // 3))
    line = row(
        [
            tile(still.picture, title),
            *(tile(face(moment(name)), f"{name} {at(speech.moments[name])}") for name in ("open", "round")),
            *(tile(mouth(moment(name)), name) for name in ("p b m", "open", "round")),
            tile(eyes(shot(blink)), "blink", TILE // 2),
        ]
    )
    return column([row(clip), row(mouths), row(pause), row(blinks)]), line


def _at_rest(portrait: Portrait) -> tuple[Floats, Floats, float]:
    points = portrait.landmarks
    eyes = [p for eye in EYES for p in eye.upper + eye.lower]
    return points[LIPS, :2].mean(0), points[eyes, :2].mean(0), fit_head(points)[0]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Arguments(prog="python -m benchmarks.sheet", description=__doc__.split("\n")[0])
    folders = [SHARED / "portraits" / "public_domain", SHARED / "portraits" / "private"]
    parser.add_argument("--portraits", type=Path, nargs="+", default=folders, help="pictures, or folders of them")
    parser.add_argument("--audio", type=Path, help="a recording; the example by default")
    parser.add_argument("--seconds", type=real_number(0.1, 600), default=10.0, help="how much of it")
    parser.add_argument("--out", type=Path, default=SCRATCH / "sheets")
    parser.add_argument("--bundle", default="lite")
    parser.add_argument(
        "--media", action="store_true", help="two speakers, clips as sources, backgrounds and full figures instead"
    )
    options = parser.parse_args(arguments)
    check_folder(options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    head = load(options.bundle)
    samples = read_speech(options.audio or example_speech())[: int(options.seconds * SAMPLE_RATE)]
    if options.media:
        _sheet_media.check(head)
        pages = []
        for name, page in _sheet_media.media_sheets(head, samples):
            page.save(options.out / f"{name}.png")
            pages.append([name, options.out / f"{name}.png"])
        figures = [Figure("sheets", float(len(pages)))]
        tables = [rows_table("Contact sheets", ["what", "sheet"], pages)]
        publish("sheet", figures, tables, out=str(options.out), seconds=time.perf_counter() - started)
        return
    posteriors = phone_posteriors(rows_of(head.performer).encoder, samples)
    speech = Speech(samples, choose(posteriors), choose_pause(posteriors))

    pictures = []
    for place in options.portraits:
        pictures += sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES) if place.is_dir() else [place]
    if not pictures:
        raise InputError(f"expected pictures in {', '.join(map(str, options.portraits))}, got none; give other folders")
    lines, rows = [], []
    for path in pictures:
        try:
            portrait = head.register(path)
        except InputError as error:
            rows.append([path.name, f"{type(error).__name__}: {error}"])
            lines.append(tile(np.full((24, 900, 3), GREY, np.uint8), f"{path.name}: {error}", 24))
            continue
        page, line = sheet(head, portrait, speech, path.stem)
        file = options.out / f"{path.stem}.png"
        page.save(file)
        lines.append(line)
        rows.append([path.name, file])
    column(lines).save(options.out / "overview.png")
    made = sum(not str(r[1]).startswith(("Input", "NoFace", "Image")) for r in rows)
    figures = [Figure("portraits", float(len(rows))), Figure("sheets", float(made))]
    table = rows_table("Contact sheets", ["portrait", "sheet, or why not"], rows)
    publish("sheet", figures, [table], out=str(options.out), seconds=time.perf_counter() - started)


if __name__ == "__main__":
    run(main)
