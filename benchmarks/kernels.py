"""Time the renderer's frames and stages, and its native code against its definitions in NumPy.

    python -m benchmarks.kernels [--picture examples/portrait.jpg] [--frames 50]

draws a portrait that says the example with the definition in NumPy and with the core, in turns, and prints how many times as
fast the core is. `python -m benchmarks.render` compares the kernels.
"""

from __future__ import annotations

import copy
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks._drawing import picture_ms
from benchmarks._report import ROOT, Figure, figures_table, publish, rows_table
from ditto._native import Core
from ditto.bundle import SHIPPED
from ditto.commands import Arguments, run, whole_number
from ditto.lite.rendering.blob import portrait_blob
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.media.audio import SAMPLE_RATE, read_audio
from ditto.motion.motion import Motion, RenderPose
from ditto.portrait.portrait import Portrait

REPEATS = 5


class Speed(NamedTuple):
    """Frames a second of processor time on one thread, and rows (stage, p50, p95, p99) in ms over the frames."""

    fps: float
    rows: list[list[Any]]


class Call(NamedTuple):
    """One call of an op while a frame was rendered, its arrays copied before it ran."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


def processor_ms(work: Callable[[], Any], repeats: int) -> float:
    """Least processor time of `repeats` runs, ms: what the work costs without the machine's other business."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return 1e3 * best


def _percentiles(name: str, values: Sequence[float]) -> list[Any]:
    return [name, *(float(p) for p in np.percentile(values, [50, 95, 99]))]


@contextmanager
def watched_ops(watch: Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]) -> Iterator[None]:
    """Inside it, every call of an op of `ditto.ops` goes through `watch(name, op, arguments, keywords)`."""
    ops = importlib.import_module("ditto.ops")
    names = [name for name in ops.__all__ if callable(getattr(ops, name))]
    ops_by_name = {name: getattr(ops, name) for name in names}
    places: list[tuple[Any, str, Any]] = []
    for module in [m for key, m in list(sys.modules.items()) if key.split(".")[0] == "ditto" and m is not None]:
        for attribute, value in list(vars(module).items()):
            for name, op in ops_by_name.items():
                if value is op:
                    places.append((module, attribute, op))
                    setattr(module, attribute, _through(watch, name, op))
    try:
        yield
    finally:
        for module, attribute, op in places:
            setattr(module, attribute, op)


def _through(watch: Callable[..., Any], name: str, op: Callable[..., Any]) -> Callable[..., Any]:
    def watched(*arguments: Any, **keywords: Any) -> Any:
        return watch(name, op, arguments, keywords)

    return watched


def time_frames(renderer: Any, portrait: Portrait, poses: Sequence[RenderPose]) -> Speed:
    """Processor time of whole frames and of every op in them; the rest is Python between the ops."""
    appearance = renderer.prepare(portrait)
    renderer.render(appearance, poses[0])
    whole = [processor_ms(lambda d=pose: renderer.render(appearance, d), REPEATS) for pose in poses]  # type: ignore[misc]
    spent: dict[str, list[float]] = {}
    current: dict[str, float] = {}

    def watch(name: str, op: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        start = time.process_time()
        result = op(*arguments, **keywords)
        current[name] = current.get(name, 0.0) + 1e3 * (time.process_time() - start)
        return result

    with watched_ops(watch):
        for i, pose in enumerate(poses):
            current.clear()
            renderer.render(appearance, pose)
            for name, ms in current.items():
                spent.setdefault(name, [0.0] * len(poses))[i] = ms
    rows = [_percentiles("whole frame", whole)]
    rows += [_percentiles(name, values) for name, values in spent.items()]
    rest = np.maximum(np.array(whole) - np.sum(list(spent.values()), axis=0), 0.0) if spent else np.array(whole)
    rows.append(_percentiles("geometry and Python between", rest.tolist()))
    return Speed(1e3 / float(np.mean(whole)), rows)


def arrays_in(value: Any) -> list[np.ndarray[Any, Any]]:
    """All arrays of a result, through tuples and lists."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, (tuple, list)):
        return [array for item in value for array in arrays_in(item)]
    return []


def compare_kernels(renderer: Any, portrait: Portrait, pose: RenderPose) -> list[list[Any]]:
    """Rows (kernel, ms, ms of the reference, their ratio, largest difference of the results) for one frame's calls."""
    calls: dict[str, Call] = {}

    def watch(name: str, op: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        calls[name] = Call(copy.deepcopy(arguments), copy.deepcopy(keywords))
        return op(*arguments, **keywords)

    appearance = renderer.prepare(portrait)
    with watched_ops(watch):
        renderer.render(appearance, pose)
    ops, references = importlib.import_module("ditto.ops"), importlib.import_module("ditto.ops.reference")
    rows: list[list[Any]] = []
    for name, call in calls.items():
        results = []
        for place in (ops, references):  # check that they agree, arrays written in place included
            own = copy.deepcopy(call)
            results.append(arrays_in([getattr(place, name)(*own.arguments, **own.keywords), *own.arguments]))
        differences = [
            float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0))
            for a, b in zip(*results, strict=True)
        ]

        def run(place: Any, name: str = name, call: Call = call) -> Any:
            return getattr(place, name)(*call.arguments, **call.keywords)

        kernel, reference = processor_ms(lambda: run(ops), REPEATS), processor_ms(lambda: run(references), 1)
        rows.append([name, kernel, reference, reference / kernel, max(differences)])
    return rows


class Ways(NamedTuple):
    """The same frames, drawn in several ways: row of motion -> picture."""

    numpy: Callable[[Any], Any]
    core: Callable[[Any], Any]
    crop_then_paste: Callable[[Any], Any]


def ways_of(portrait: Portrait) -> Ways:
    """The definition; the core in one call; the core for the crop and the kernel for the picture, as a performer draws."""
    renderer = MeshRenderer(SHIPPED / "lite")
    appearance, paste_back = renderer.prepare(portrait), renderer.paste_back(portrait)
    core = Core(portrait_blob(renderer.learned, portrait, appearance, paste_back))
    return Ways(
        lambda row: paste_back(renderer.render(appearance, renderer.retarget(portrait, Motion(row)))),
        core.picture,
        lambda row: paste_back(core.crop(row)),
    )


def compare_ways(ways: Ways, rows: Sequence[Any], passes: int) -> dict[str, list[tuple[float, float]]]:
    """By way: (processor, wall) ms of a picture with one thread and with two, the least of passes that take turns."""
    for row in rows:  # check that they agree
        first, *others = (way(row).astype(int) for way in ways)
        if any(np.abs(first - other).max() > 1 for other in others):
            raise AssertionError("the core draws another picture than its definition; run tests/test_core.py")
    best = {name: [(np.inf, np.inf)] * 2 for name in Ways._fields}
    for _ in range(passes):
        for name, way in zip(Ways._fields, ways, strict=True):
            for threads in (1, 2):
                measured = picture_ms(way, rows, threads)
                before = best[name][threads - 1]
                best[name][threads - 1] = (min(before[0], measured[0]), min(before[1], measured[1]))
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    from ditto.talking_head import load

    parser = Arguments(prog="python -m benchmarks.kernels", description=__doc__.split("\n")[0])
    parser.add_argument("--picture", type=Path, default=ROOT / "examples" / "portrait.jpg")
    parser.add_argument("--frames", type=whole_number(1, 200), default=50)
    parser.add_argument("--passes", type=whole_number(1, 1000), default=7)
    options = parser.parse_args(arguments)
    head = load("lite")
    portrait = head.register(options.picture)
    stream = head.stream(portrait)
    samples = read_audio(ROOT / "examples" / "speech.flac")[SAMPLE_RATE : SAMPLE_RATE * (2 + options.frames // 25)]
    said = stream.push(samples) + stream.flush()
    rows = [frame.motion.values for frame in said if frame.motion is not None][: options.frames]
    best = compare_ways(ways_of(portrait), rows, options.passes)
    (one, _), (_, two) = best["numpy"]
    figures = [
        Figure("whole picture, one thread: NumPy / core, processor time", one / best["core"][0][0], low=1.5),
        Figure("whole picture, two threads: NumPy / core, wall time", two / best["core"][1][1], low=1.7),
        Figure("as a performer draws, one thread: NumPy / core", one / best["crop_then_paste"][0][0]),
        Figure("as a performer draws, two threads: NumPy / core", two / best["crop_then_paste"][1][1]),
    ]
    columns = ["ms a picture, least of passes", "one thread, processor", "one, wall", "two, processor", "two, wall"]
    table = [[name, *(value for pair in pairs for value in pair)] for name, pairs in best.items()]
    tables = [figures_table("Core against its definition", figures), rows_table("Time", columns, table)]
    publish("kernels", figures, tables, times=best)


if __name__ == "__main__":
    run(main)
