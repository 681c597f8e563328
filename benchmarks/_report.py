"""What every benchmark prints: one JSON line with commit, machine and versions, then tables."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("numpy", "onnxruntime", "opencv-python-headless", "av")


@dataclass(frozen=True)
class Figure:
    """One number of a benchmark and what is asked of it.

    Attributes:
        name: what is measured, with its unit.
        value: the number; NaN where it could not be measured.
        low, high: the bar; None where nothing is asked on that side.
        beside: numbers that belong next to it, e.g. the same figure of a baseline.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    beside: dict[str, float] | None = None

    @property
    def bar(self) -> str:
        if self.low is not None and self.high is not None:
            return f"{self.low:.4g} .. {self.high:.4g}"
        if self.low is not None:
            return f">= {self.low:.4g}"
        return "" if self.high is None else f"<= {self.high:.4g}"

    @property
    def met(self) -> bool | None:
        """None where nothing is asked; a figure that could not be measured misses its bar."""
        if self.low is None and self.high is None:
            return None
        above = self.low is None or self.value >= self.low
        below = self.high is None or self.value <= self.high
        return not math.isnan(self.value) and above and below


def commit() -> str:
    """The commit of the working tree, with `+changes` where it differs; "unknown" outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, system, and the load while measuring."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return {"cpu": model, "cores": cores, "system": platform.platform(terse=True), "load": load}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def number(value: float) -> str:
    """A figure as a person reads it: three significant digits, no exponent."""
    if math.isnan(value):
        return "-"
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    digits = next((d for least, d in ((100, 0), (10, 1), (1, 2), (0.1, 3)) if abs(value) >= least), 4)
    return f"{value:.{digits}f}"


def _finite(value: Any) -> Any:
    """NaN and infinities are no JSON: they become null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def json_line(benchmark: str, figures: Sequence[Figure], **more: Any) -> str:
    body = {
        "benchmark": benchmark,
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "figures": {f.name: {"value": f.value, "bar": f.bar, "met": f.met, **(f.beside or {})} for f in figures},
        **more,
    }
    return json.dumps(_finite(body), separators=(",", ":"))


def figures_table(title: str, figures: Sequence[Figure], ours: str = "ours") -> Table:
    """Figure, ours, what stands beside it, bar, met or MISSED."""
    table = Table(title=title, title_justify="left")
    besides = list(dict.fromkeys(name for f in figures for name in f.beside or {}))
    table.add_column("figure")
    for name in (ours, *besides, "bar", ""):
        table.add_column(name, justify="right")
    for f in figures:
        verdict = {None: "", True: "[green]met[/green]", False: "[bold red]MISSED[/bold red]"}[f.met]
        cells = [number((f.beside or {})[name]) if name in (f.beside or {}) else "" for name in besides]
        table.add_row(f.name, number(f.value), *cells, f.bar, verdict)
    return table


def rows_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*(number(cell) if isinstance(cell, float) else str(cell) for cell in row))
    return table


def publish(benchmark: str, figures: Sequence[Figure], tables: Sequence[Table], **more: Any) -> str:
    """The JSON line, which it gives, then the tables, on standard output."""
    line = json_line(benchmark, figures, **more)
    print(line, flush=True)
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)  # a log has no width: do not fold the tables
    for table in tables:
        title, table.title = table.title or "", None  # a title is as wide as the page, not as its table
        console.print(title, style="table.title", highlight=False)
        console.print(table)
    return line
