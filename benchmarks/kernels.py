"""Time the renderer's frames and stages, and its native kernels against their NumPy reference implementations."""

from __future__ import annotations

import copy
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ditto.motion.motion import RenderPose
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
