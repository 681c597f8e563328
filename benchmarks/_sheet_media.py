"""Contact sheets of what is more than one picture of one face: `python -m benchmarks.sheet --media`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures

from benchmarks._tiles import column, row, tile
from benchmarks.faces import SHARED, example_portrait
from ditto.errors import InputError
from ditto.media.audio import SAMPLE_RATE
from ditto.media.backgrounds import background
from ditto.media.footage import pictures
from ditto.media.images import read_picture
from ditto.motion.motion import DEGREES, rest_motion
from ditto.performer import Draw, Edits, expect_own
from ditto.portrait.portrait import Portrait
from ditto.row_performer import RowAppearance, RowShot
from ditto.scene import Speaker
from ditto.talking_head import TalkingHead

Image = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.float32]

TILES = 8
HEIGHT = 260
PUBLIC = SHARED / "portraits" / "public_domain"
CLIPS = SHARED / "driving"
TURNS = ((0, 0, 0), (0, 20, 0), (0, -20, 0), (15, 0, 0), (-15, 0, 0), (0, 0, 15), (0, 0, -15), (8, 12, 8))
FULL_FIGURES = ("painting_dark_dress", "lady_agnew_sargent", "painting_child_reading")


def media_sheets(head: TalkingHead, speech: Samples) -> Iterator[tuple[str, Pictures.Image]]:
    """Names and pages: two speakers, a clip as the source, alpha over backgrounds, full figures that turn their heads."""
    yield "two_speakers", two_speakers(head, speech)
    yield from clips(head, speech)
    yield "backgrounds", backgrounds(head, speech)
    yield "turns", turns(head)


def stand_in() -> Path:
    """The example, where the shared portraits are not there."""
    return example_portrait()


def figures() -> list[Path]:
    """Pictures of whole people, or the example."""
    found = [PUBLIC / f"{name}.jpg" for name in FULL_FIGURES]
    return [path for path in found if path.is_file()] or [stand_in()]


def side_by_side(paths: list[Path], height: int = 640) -> Image:
    """Pictures beside each other, of one height."""
    parts = []
    for path in paths:
        picture = Pictures.fromarray(read_picture(path)[0])
        parts.append(np.asarray(picture.resize((round(picture.width * height / picture.height / 2) * 2, height))))
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def two_speakers(head: TalkingHead, speech: Samples) -> Pictures.Image:
    """First the one speaks, then the other; eight frames over both turns, and eight consecutive ones."""
    paths = figures()
    portraits = head.register_faces(side_by_side([paths[0], paths[-1]]))
    quiet = np.zeros_like(speech)
    sounds = (np.concatenate([speech, quiet]), np.concatenate([quiet, speech]))
    speakers = [Speaker(portrait, sound) for portrait, sound in zip(portraits[:2], sounds, strict=False)]
    frames = [frame.image for frame in head.animate_scene(speakers)]
    spread = np.linspace(10, len(frames) - 1, TILES).astype(int)
    middle = len(frames) // 4
    lines = [spread[:4], spread[4:], range(middle, middle + 4), range(middle + 4, middle + 8)]
    return column([row([tile(frames[k], f"frame {k}", HEIGHT) for k in line]) for line in lines])


def clips(head: TalkingHead, speech: Samples) -> Iterator[tuple[str, Pictures.Image]]:
    """For each clip: its own frames over those that say the speech."""
    for path in sorted(CLIPS.glob("*.mp4"))[:3] if CLIPS.is_dir() else ():
        clip = head.read_video(path)
        frames = [frame.image for frame in head.animate_video(clip, speech)]
        count = min(len(frames), clip.frames)
        own = list(islice(pictures(str(path)), count))
        lines = []
        for numbers in (np.linspace(5, count - 1, TILES).astype(int), range(count // 2, count // 2 + TILES)):
            for name, shown in (("clip", own), ("says", frames)):
                lines.append(row([tile(shown[k], f"{name} {k}", HEIGHT) for k in numbers if k < count]))
        yield f"clip_{path.stem}", column(lines)


def backgrounds(head: TalkingHead, speech: Samples) -> Pictures.Image:
    """People cut out of their pictures, talking over green, over another picture and over white."""
    from ditto.portrait.matting import cut_out

    lines = []
    other = figures()[-1]
    for path in figures()[:2]:
        portrait = cut_out(head.register(path, max_size=720))
        assert portrait.alpha is not None
        frames = [frame.image for frame in head.animate(portrait, speech[: 2 * SAMPLE_RATE], output="rgba")]
        tiles = []
        for name in ("#20c040", str(other), "white"):
            lay = background(name, portrait.picture, portrait.alpha)
            for k in (10, len(frames) - 5):
                tiles.append(tile(lay(frames[k]), f"{Path(name).stem} {k}", HEIGHT))
        lines.append(row(tiles))
    return column(lines)


def turns(head: TalkingHead) -> Pictures.Image:
    """Full figures with the head turned by up to 20 degrees."""
    lines = []
    for path in figures():
        portrait = head.register(path)
        lines.append(row([tile(turned(head, portrait, degrees), f"{path.stem[:14]} {degrees}", HEIGHT) for degrees in TURNS]))
    return column(lines)


def turned(head: TalkingHead, portrait: Portrait, degrees: tuple[float, float, float]) -> Image:
    """The picture with the head turned by pitch, yaw and roll."""
    values = rest_motion(1)[0].values.copy()
    values[DEGREES] = degrees
    appearance = expect_own(head.appearance(portrait), RowAppearance)
    face = head.performer.face(appearance, 0, joined=False)
    shot = RowShot(values, Edits.none().emotion, 0)
    return head.performer.draw([Draw(face, shot, Edits.none())])[0].image


def check(head: TalkingHead) -> None:
    """Raises InputError for a bundle that cannot do all of it."""
    if head.bundle.motion_space != "lite":
        raise InputError(f"expected a lite bundle with --media, got {head.bundle.name}; leave one of them out")
