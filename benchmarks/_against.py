"""A frame drawn by this checkout and by another, in turns: benchmarks.render --against."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks._report import ROOT, Figure, figures_table, publish, rows_table
from ditto.machine import interrupts_left_to_parent

THREADS = (1, 2)
BARS = {1: 1.5, 2: 1.7}  # of issue 12, against 2b5040d


class OtherCheckoutError(Exception):
    """The other checkout does not draw."""


class Times(NamedTuple):
    """ms of a picture, one number a turn."""

    processor: list[float]
    wall: list[float]


class Drawing:
    """A process that draws with a checkout."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process = process
        self._name = name

    def answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise OtherCheckoutError(
                f"expected {self._name} to draw, got exit code {self._process.wait()} (its error is above); build it with "
                "`python setup.py build_ext --inplace`"
            )
        result: dict[str, float] = json.loads(line)
        return result

    def draw(self, threads: int) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{threads}\n")
        self._process.stdin.flush()
        return self.answer()


@contextmanager
def drawing(checkout: Path, portrait: Path, motions: Path, pictures: Path) -> Iterator[Drawing]:
    command = [
        sys.executable,
        str(Path(__file__).with_name("_drawing.py")),
        *map(str, (checkout, portrait, motions, pictures)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    with interrupts_left_to_parent():
        process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    with process:
        one = Drawing(process, str(checkout))
        try:
            one.answer()  # ready
            yield one
        finally:
            process.kill()


def example(frames: int) -> tuple[Any, Any]:
    """The portrait of the example, and its motion (frames, 70) when it says the example."""
    from ditto.media.audio import SAMPLE_RATE, read_audio
    from ditto.media.rates import FPS
    from ditto.talking_head import load

    head = load("lite")
    portrait = head.register(ROOT / "examples" / "portrait.jpg")
    stream = head.stream(portrait)
    samples = read_audio(ROOT / "examples" / "speech.flac")[SAMPLE_RATE : SAMPLE_RATE * (2 + -(-frames // FPS))]
    said = stream.push(samples) + stream.flush()
    return portrait, np.stack([frame.motion.values for frame in said if frame.motion is not None])[:frames]


def compare(checkout: Path, portrait: Any, rows: Any, turns: int) -> tuple[dict[str, dict[int, Times]], float]:
    """Times by checkout, "this" and "other", and number of threads; mean difference of their pictures, levels."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        fields, motions = Path(folder) / "portrait.npz", Path(folder) / "rows.npy"
        np.savez(fields, **{name: value for name, value in vars(portrait).items() if value is not None})
        np.save(motions, rows)
        places = {"this": ROOT, "other": checkout.resolve()}
        files = {name: Path(folder) / f"{name}.npy" for name in places}
        drawings = {
            name: stack.enter_context(drawing(place, fields, motions, files[name])) for name, place in places.items()
        }
        this, other = (np.load(file).astype(np.int16) for file in files.values())
        times = {name: {threads: Times([], []) for threads in THREADS} for name in places}
        for _ in range(turns):
            for threads in THREADS:
                for name, one in drawings.items():
                    answer = one.draw(threads)
                    times[name][threads].processor.append(answer["processor"])
                    times[name][threads].wall.append(answer["wall"])
    return times, float(np.abs(this - other).mean())


def ratio(times: dict[str, dict[int, Times]], threads: int, clock: str) -> float:
    """Median over the turns of other / this: what slows the machine slows both of a turn."""
    pairs = (getattr(times[name][threads], clock) for name in ("other", "this"))
    return float(np.median(np.divide(*pairs)))


def report(checkout: Path, frames: int, turns: int) -> None:
    portrait, motion = example(frames)
    times, difference = compare(checkout, portrait, motion, turns)
    words = {1: "one thread", 2: "two threads"}
    figures = [
        Figure(f"{words[threads]}: other / this, {clock} time", ratio(times, threads, clock),
               low=BARS[threads] if clock == ("processor", "wall")[threads - 1] else None)
        for threads in THREADS
        for clock in Times._fields
    ]  # fmt: skip
    figures.append(Figure("mean difference of their pictures, levels", difference))
    rows: list[list[Any]] = [
        [f"{name}, {words[threads]}, {clock}", float(np.median(ms)), min(ms), max(ms)]
        for name, by_threads in times.items()
        for threads, both in by_threads.items()
        for clock, ms in both._asdict().items()
    ]
    tables = [
        figures_table(f"This checkout against {checkout}, {turns} turns of {frames} pictures each", figures),
        rows_table("ms a picture", ["", "median", "least", "most"], rows),
    ]
    publish(
        "render against another checkout",
        figures,
        tables,
        times={n: {t: b._asdict() for t, b in x.items()} for n, x in times.items()},
    )


def is_checkout(folder: Path) -> bool:
    return (folder / "ditto" / "__init__.py").is_file()
