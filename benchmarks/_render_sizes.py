"""What the size of face and picture costs: `python -m benchmarks.render --sizes`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import ditto
from benchmarks._report import Figure, figures_table, publish, rows_table
from benchmarks.faces import example_portrait
from benchmarks.kernels import processor_ms
from benchmarks.speech import example_speech
from ditto.media.audio import SAMPLE_RATE, read_audio
from ditto.media.images import FULL_SIZE, read_picture
from ditto.media.rates import FPS
from ditto.media.video import VideoWriter
from ditto.motion.emotion import emotion_vector
from ditto.performer import Advance, Draw, Edits, Shot
from ditto.portrait.portrait import Portrait
from ditto.talking_head import TalkingHead

Bytes = npt.NDArray[np.uint8]

ACROSS = (256, 512, 768, 1024)  # picture pixels across the face crop
SECONDS = 4.0  # of speech
FRAMES = 20  # drawn, each `REPEATS` times
REPEATS = 3


class Case(NamedTuple):
    """A picture to draw: `across` pixels across the face crop; sides of the picture, None: just around the crop."""

    across: int
    sides: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        return f"{self.across} px" if self.sides is None else f"{self.across} px in {self.sides[0]} x {self.sides[1]}"


CASES = (
    *(Case(across) for across in ACROSS),
    Case(512, (768, 1152)),
    Case(512, (1920, 1080)),
    Case(1024, (1920, 1080)),
    Case(512, (3840, 2160)),
    Case(1024, (3840, 2160)),
)


def picture_of(picture: Bytes, portrait: Portrait, case: Case) -> Bytes:
    """The picture enlarged so that the face crop has the size of the case, mirrored at its edges to fill the sides."""
    import cv2

    factor = case.across / (portrait.crop.shape[0] * float(np.linalg.norm(portrait.crop_to_picture[:2, 0])))
    large = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    middle = portrait.crop_to_picture @ (portrait.crop.shape[0] / 2, portrait.crop.shape[0] / 2, 1.0)
    x, y = (round(float(value) * factor) for value in middle[:2])
    width, height = case.sides or (round(1.1 * case.across) // 2 * 2,) * 2
    reach = max(width, height) + case.across
    wide = cv2.copyMakeBorder(large, reach, reach, reach, reach, cv2.BORDER_REFLECT_101)
    top, left = reach + y - height // 2, reach + x - width // 2
    return np.ascontiguousarray(wide[top : top + height, left : left + width], np.uint8)


def shots_of(head: TalkingHead, portrait: Portrait, samples: npt.NDArray[np.float32]) -> list[Shot]:
    """Shots of a recording, without pictures."""
    performer, neutral = head.performer, emotion_vector(None)
    state = performer.begin(head.appearance(portrait), 0, "quality")
    shots: list[Shot] = []
    hop = performer.hop_samples
    for start in range(0, len(samples), hop):
        block = samples[start : start + hop]
        (answer,) = performer.advance([Advance(state, block, neutral, start + hop >= len(samples))])
        shots += answer.shots
        state = answer.state
    return shots


def measure(head: TalkingHead, picture: Bytes, samples: npt.NDArray[np.float32], folder: Path) -> list[Any]:
    """Row of the table for one picture."""
    start = time.perf_counter()
    portrait = head.register(picture, max_size=FULL_SIZE)
    appearance = head.appearance(portrait)
    prepared = time.perf_counter() - start
    performer = head.performer
    shots = shots_of(head, portrait, samples)[10 : 10 + FRAMES]
    face = performer.face(appearance, 0, joined=False)
    jobs = [Draw(face, shot, Edits.none()) for shot in shots]
    performer.draw(jobs[:1])
    whole = processor_ms(lambda: performer.draw(jobs), REPEATS) / len(jobs)
    moved = processor_ms(lambda: performer.move(jobs), REPEATS) / len(jobs)
    height, width = portrait.picture.shape[:2]
    start = time.perf_counter()
    with VideoWriter(folder / "a.mp4", width, height) as writer:
        for frame in head.animate(portrait, samples):
            writer.write(frame.image, frame.audio)
    factor = (time.perf_counter() - start) / (len(samples) / SAMPLE_RATE)
    with_alpha = 100.0 * alpha_costs(head, portrait, shots)
    return [portrait.crop.shape[0], f"{width} x {height}", prepared, whole - moved, with_alpha, 1e3 / FPS / whole, factor]


def alpha_costs(head: TalkingHead, portrait: Portrait, shots: list[Shot]) -> float:
    """By which share frames of the person cut out take longer to draw with their alpha than without, both in turn."""
    performer = head.performer
    face = performer.face(head.appearance(head.cut_out(portrait)), 0, joined=False)
    least = {False: float("inf"), True: float("inf")}
    for _ in range(REPEATS + 1):
        for alpha in least:
            frames = [processor_ms(lambda: performer.draw([job]), 1) for job in  # noqa: B023
                      (Draw(face, shot, Edits.none(), alpha=alpha) for shot in shots)]  # fmt: skip
            least[alpha] = min(least[alpha], sum(frames))
    return least[True] / least[False] - 1.0


def run() -> None:
    """Measure every case and print the report."""
    started = time.perf_counter()
    head = ditto.load("lite")
    picture, _ = read_picture(example_portrait(), FULL_SIZE)
    small = head.register(picture)
    samples = read_audio(example_speech())[: round(SECONDS * SAMPLE_RATE)]
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            [case.name, *measure(head, picture_of(picture, small, case), samples, Path(folder))] for case in CASES
        ]
    drawn = ["draw, ms", "with alpha, + %", "x real time, one thread", "mp4 factor"]
    columns = ["face crop", "S", "picture", "register + prepare, s", *drawn]
    worst = max(row[-1] for case, row in zip(CASES, rows, strict=True) if case.sides is None)
    figures = [Figure("real-time factor of a face of 1024, mp4 written", worst, high=1.0)]
    tables = [
        rows_table("Sizes (draw: processor time on one thread; mp4 factor: wall, all cores)", columns, rows),
        figures_table("Bars", figures),
    ]
    publish("render_sizes", figures, tables, sizes=rows, seconds=time.perf_counter() - started)
