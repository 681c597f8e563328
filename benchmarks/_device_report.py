"""What `benchmarks.device` finds: checks and times, printed and written as they come. Needs torch and NumPy alone."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOAT32, HALF = 1e-4, 2e-2  # largest relative L2 from the CPU's float32
PARTS = ("checks", "times_ms", "pipeline", "predicted", "not_run")


class Report:
    """What was found: printed and written at once. Several processes, one after another, write one file.

    Args:
        file: JSON; what another process has written there is read, unless there is something `about` a new run.
        seconds: after these no further timing begins.
    """

    def __init__(self, file: Path, seconds: float, **about: Any) -> None:
        self.file, self.start, self.seconds = file, time.monotonic(), seconds
        self.found: dict[str, Any] = {**about, "began": time.time(), **{part: {} for part in PARTS}}
        if about:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._write()
        else:
            self.read()

    def read(self) -> None:
        """Take what another process has written."""
        self.found = json.loads(self.file.read_text(encoding="utf-8"))

    def add(self, part: str, name: str, value: Any) -> None:
        self.found[part][name] = value
        self.found["seconds"] = round(time.time() - self.found["began"], 1)
        print(f"{self.found['seconds']:7.1f} s  {part:9} {name}: {value}", flush=True)
        self._write()

    def _write(self) -> None:
        beside = self.file.with_suffix(".part")
        beside.write_text(json.dumps(self.found, indent=1), encoding="utf-8")
        beside.replace(self.file)

    def check(self, name: str, value: float, limit: float) -> None:
        self.add("checks", name, {"value": float(value), "limit": limit, "met": bool(value <= limit)})

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part whose failure is told and does not end the run; a check among them counts as failed."""
        try:
            yield
        except Exception as error:  # whatever a driver, a compiler or a library says
            self.add("not_run", name, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")

    @property
    def over(self) -> bool:
        return time.monotonic() - self.start > self.seconds

    @property
    def passed(self) -> bool:
        return not self.found["not_run"] and all(check["met"] for check in self.found["checks"].values())


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative L2 distance."""
    found, expected = found.double().cpu(), expected.double().cpu()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))


def milliseconds(work: Callable[[], Any], device: torch.device, repeats: int) -> list[float]:
    """Sorted wall-clock times of a work that ends on the device."""
    spent = []
    for turn in range(repeats + 2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn > 1:
            spent.append(1e3 * (time.perf_counter() - start))
    return sorted(spent)


def spread(times: Sequence[float]) -> dict[str, float]:
    return {name: round(float(np.percentile(times, p)), 4) for name, p in (("p50", 50), ("p95", 95), ("p99", 99))}
