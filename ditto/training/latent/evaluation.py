"""How well a latent bundle talks: what it shows beside what lite shows for the same speech.

The instrument is a reader of the mouth: a ridge regression, for each portrait, from the pixels of the mouth to the opening of
the lips in lite's own motion. It never sees a generated picture. Compare lips with lite's, never whole frames: how the head
moves is free.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ditto.latent.region import cut_square, square_of
from ditto.media.rates import SAMPLES_PER_FRAME
from ditto.portrait.portrait import Portrait
from ditto.talking_head import TalkingHead
from ditto.training.latent.data import ClipInfo, Clips
from ditto.training.motion_eval import head_frame, opening

Floats = npt.NDArray[np.float64]
Pictures = npt.NDArray[np.uint8]

READ_SIDE = 32  # pixels of the square around a face that are read
MOUTH = slice(18, 30), slice(9, 23)  # rows and columns of the mouth in it (small_recipe)
RIDGE = 3e-3  # of the reader, a pixel, in squares of [0, 1] (small_recipe)
PART_SECONDS = 10  # of a long stream


@dataclass(frozen=True)
class Figure:
    """One number, and what is asked of it.

    Attributes:
        name: what is measured.
        value: NaN where it could not be measured.
        least, most: the bar; None where nothing is asked on that side.
    """

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool | None:
        """None where nothing is asked; a number that could not be measured misses its bar."""
        if self.least is None and self.most is None:
            return None
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)

    def __str__(self) -> str:
        bars = [f"{sign} {bar:g}" for sign, bar in ((">=", self.least), ("<=", self.most)) if bar is not None]
        return f"{self.name}: {self.value:.3g}" + (f" ({', '.join(bars)}: {'met' if self.met else 'MISSED'})" if bars else "")


class MouthReader:
    """From pictures of a face to the opening of its lips, fu. For one portrait.

    Args:
        pictures: (T, S, S, 3) uint8 of the face's square.
        openings: (T,) of the lips in them.
    """

    def __init__(self, pictures: Pictures, openings: Floats) -> None:
        x = _mouth(pictures)
        self._pixels, self._opening = x.mean(0), float(openings.mean())
        x = x - self._pixels
        penalty = RIDGE * len(x) * np.eye(x.shape[1])
        self._weights: Floats = np.linalg.solve(x.T @ x + penalty, x.T @ (openings - self._opening))

    def __call__(self, pictures: Pictures) -> Floats:
        """(T, S, S, 3) uint8 -> (T,) fu."""
        found: Floats = (_mouth(pictures) - self._pixels) @ self._weights + self._opening
        return found


def _mouth(pictures: Pictures) -> Floats:
    """(T, S, S, 3) -> (T, n): colours of the mouth in [0, 1]."""
    size = (READ_SIDE, READ_SIDE)
    reduced = np.stack([cv2.resize(picture, size, interpolation=cv2.INTER_AREA)[MOUTH] for picture in pictures])
    return np.asarray(reduced.reshape(len(pictures), -1) / 255.0)


def lite_openings(motion: npt.ArrayLike) -> Floats:
    """(T, 70) lite's motion -> (T,) opening of the lips, fu."""
    return opening(head_frame(np.asarray(motion, np.float32)))


def reader_of(clips: Clips, portrait: str) -> MouthReader:
    """The reader of a portrait, from the clips of it that are not held out."""
    loaded = [clips.load(clip) for clip in clips.of("train") if clip.portrait == portrait]
    return MouthReader(
        np.concatenate([clip.frames for clip in loaded]), np.concatenate([lite_openings(clip.motion) for clip in loaded])
    )


class Shown(NamedTuple):
    """What a bundle shows for some speech: the face's square of its pictures (T, S, S, 3), and seconds of processor time."""

    pictures: Pictures
    seconds: float


def show(head: TalkingHead, portrait: Portrait, samples: npt.NDArray[np.float32], side: int, seed: int = 0) -> Shown:
    """The pictures of a bundle for speech (N,) at 16 kHz, as a user gets them, cut as training clips are."""
    square, pictures, spent = square_of(portrait), list[Pictures](), 0.0
    frames: Iterator[npt.NDArray[np.uint8]] = (frame.image for frame in head.animate(portrait, samples, seed=seed))
    while True:
        before = time.process_time()
        image = next(frames, None)
        spent += time.process_time() - before
        if image is None:
            return Shown(np.stack(pictures), spent)
        pictures.append(cut_square(image, square, side))


class Talk(NamedTuple):
    """One clip, as lite shows it and as a bundle does.

    Attributes:
        clip: which one.
        real, made: (T, S, S, 3) pictures of the face's square.
        opening: (T,) opening of the lips in lite's motion.
        real_read, made_read: (T,) read from the pictures.
        loudness: (T,) root mean square of a frame's sound.
        seconds: of processor time for `made`.
    """

    clip: ClipInfo
    real: Pictures
    made: Pictures
    opening: Floats
    real_read: Floats
    made_read: Floats
    loudness: Floats
    seconds: float


def talk(head: TalkingHead, portrait: Portrait, clips: Clips, clip: ClipInfo, reader: MouthReader) -> Talk:
    """A held clip, shown by a bundle too."""
    loaded = clips.load(clip)
    shown = show(head, portrait, loaded.sound.astype(np.float32) / np.float32(32768), clips.side, clip.seed)
    count = min(len(shown.pictures), clip.frames)
    real, made = loaded.frames[:count], shown.pictures[:count]
    sound = loaded.sound[: count * SAMPLES_PER_FRAME].reshape(count, -1).astype(np.float64) / 32768
    return Talk(
        clip, real, made, lite_openings(loaded.motion)[:count], reader(real), reader(made),
        np.sqrt(np.square(sound).mean(1)), shown.seconds,
    )  # fmt: skip


def agreement(some: Floats, others: Floats) -> float:
    """Correlation of two curves, over the frames that both have; 0 if one stands still."""
    count = min(len(some), len(others))
    a, b = some[:count] - some[:count].mean(), others[:count] - others[:count].mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 1e-12 else 0.0


class Lips(NamedTuple):
    """How the lips of a bundle follow those of lite, as means over clips.

    Attributes:
        clips: how many.
        speech: correlation with lite's opening for the same speech.
        wrong: of the same pictures with lite's opening for other speech, the mean over several (one pair of 8 s agrees by
            chance with |r| of about .2).
        still: of pictures without speech (silence) with the same.
        real: of lite's own pictures, read: the reader's ceiling.
        loudness: of the loudness: what a mouth that follows it alone reaches.
        spread: standard deviation of the opening over that of lite's, both read from pictures.
    """

    clips: int
    speech: float
    wrong: float
    still: float
    real: float
    loudness: float
    spread: float


def lips_of(talks: Sequence[Talk], others: Sequence[Sequence[Floats]], silent: Sequence[Floats]) -> Lips:
    """Means over clips.

    Args:
        others: for each, lite's openings for other speech.
        silent: for each, the opening read from the portrait's pictures without speech.
    """
    rows = [
        (
            agreement(talk.made_read, talk.opening),
            float(np.mean([agreement(talk.made_read, other) for other in heard])),
            float(np.mean([agreement(still, other) for other in (talk.opening, *heard)])),
            agreement(talk.real_read, talk.opening),
            agreement(talk.loudness, talk.opening),
            float(talk.made_read.std() / max(talk.real_read.std(), 1e-9)),
        )
        for talk, heard, still in zip(talks, others, silent, strict=True)
    ]
    return Lips(len(rows), *(float(value) for value in np.mean(rows, 0)))


class Followed(NamedTuple):
    """What an edit changes in the pictures of a bundle, beside what it changes in lite's, averaged over time.

    Attributes:
        cosine: between the two changes.
        size: of the bundle's change along that of lite, of that of lite.
    """

    cosine: float
    size: float


def followed(made: Floats, real: Floats) -> Followed:
    """Changes of mean pictures (S, S, 3): of the bundle and of lite."""
    along = float((made * real).sum())
    sizes = float(np.linalg.norm(made) * np.linalg.norm(real))
    return Followed(along / max(sizes, 1e-9), along / max(float((real * real).sum()), 1e-9))


def change_of(
    head: TalkingHead, portrait: Portrait, samples: npt.NDArray[np.float32], side: int, edits: Sequence[Mapping[str, Any]]
) -> Floats:
    """(S, S, 3) the mean picture with the first of two edits less that with the second, for the same speech and seed.

    Args:
        edits: words of `TalkingHead.animate`.
    """
    square = square_of(portrait)
    means = [
        np.mean([cut_square(frame.image, square, side) for frame in head.animate(portrait, samples, **edit)], 0)
        for edit in edits
    ]
    return np.asarray(means[0] - means[1], np.float64)


class Part(NamedTuple):
    """A part of a long stream.

    Attributes:
        lips: correlation of the opening with lite's.
        opening: mean of it, fu.
        spread: of the opening over lite's.
        sharpness: mean size of the Laplacian over that of lite's pictures.
        colour: mean difference to lite's mean picture of this part, grey levels.
    """

    lips: float
    opening: float
    spread: float
    sharpness: float
    colour: float


def parts_of(long: Talk, fps: int = 25) -> list[Part]:
    """A long clip by parts of 10 s."""
    size, found = PART_SECONDS * fps, []
    for start in range(0, len(long.made) - size + 1, size):
        part = slice(start, start + size)
        made, real = long.made[part].astype(np.float64), long.real[part].astype(np.float64)
        found.append(
            Part(
                agreement(long.made_read[part], long.opening[part]),
                float(long.made_read[part].mean()),
                float(long.made_read[part].std() / max(long.real_read[part].std(), 1e-9)),
                _laplacian(made) / max(_laplacian(real), 1e-9),
                float(np.abs((made - real).mean((0, 1, 2))).mean()),
            )
        )
    return found


def _laplacian(pictures: Floats) -> float:
    middle = 4 * pictures[:, 1:-1, 1:-1]
    around = pictures[:, 2:, 1:-1] + pictures[:, :-2, 1:-1] + pictures[:, 1:-1, 2:] + pictures[:, 1:-1, :-2]
    return float(np.abs(middle - around).mean())


def drift_of(parts: Sequence[Part]) -> list[Figure]:
    """What changed between the first and the last third of the parts of a long stream; there is at least one part."""
    third = max(1, len(parts) // 3)
    first, last = np.mean(parts[:third], 0), np.mean(parts[-third:], 0)
    change = dict(zip(Part._fields, (last - first).tolist(), strict=True))
    ratio = last[3] / first[3]
    return [
        Figure("drift of the lips' correlation", change["lips"], least=-0.1),
        Figure("drift of sharpness, last over first", float(ratio), 0.9, 1.1),
        Figure("drift of colour, grey levels", abs(change["colour"]), most=3.0),
    ]
