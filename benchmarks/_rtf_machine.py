"""The machine and this process while sessions run: memory, processor time, who else computes; loading; the weights."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks._report import ROOT
from ditto.bundle import Bundle

COLD_LOAD = """
import sys, time
import ditto
imported = time.perf_counter()
ditto.load(sys.argv[1], device=sys.argv[2])
print(time.perf_counter() - imported)
"""


def resident_mib() -> float:
    """Memory of this process in MiB; NaN where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def machine_busy() -> float:
    """Seconds of processor time all processes used since boot, time stolen by the host included; NaN without /proc."""
    try:
        ticks = [int(t) for t in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return float("nan")
    user, nice, system, _, _, irq, softirq, steal = ticks
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def memory_gib() -> float:
    """Memory of the machine; NaN where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (ValueError, OSError, AttributeError):
        return float("nan")


class Work(NamedTuple):
    """What a stretch of time cost.

    Attributes:
        wall: seconds.
        process: seconds of processor time of this process.
        thread: of it, in the thread that pushes, reads and measures.
        others: of other processes on the machine meanwhile.
    """

    wall: float
    process: float
    thread: float
    others: float


class Meter:
    """Processor time and memory from `with` to its end; memory once a second, in the running event loop.

    Attributes:
        seconds, mib: of the memory samples.
        work: what it all cost, after the end.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.mib: list[float] = []
        self.work = Work(*[float("nan")] * 4)

    async def __aenter__(self) -> Meter:
        self._begun = time.monotonic(), time.process_time(), time.thread_time(), machine_busy()
        self._sampling = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sampling.cancel()
        wall, process, thread, busy = self._begun
        own = time.process_time() - process
        others = max(0.0, machine_busy() - busy - own)
        self.work = Work(time.monotonic() - wall, own, time.thread_time() - thread, others)

    async def _sample(self) -> None:
        while True:
            self.seconds.append(time.monotonic())
            self.mib.append(resident_mib())
            await asyncio.sleep(1.0)


def cold_loads(bundle: str, device: str, repeats: int) -> list[tuple[float, float]]:
    """Seconds of whole fresh processes that import ditto and load a bundle, and of `load` in them.

    The files are in the system's cache after the first; it is left out.

    Raises:
        RuntimeError: a process failed.
    """
    found = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        command = [sys.executable, "-c", COLD_LOAD, bundle, device]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        whole = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"a fresh process could not load {bundle!r}: {done.stderr.strip().splitlines()[-1:]}")
        found.append((whole, float(done.stdout)))
    return found[1:]


def providers(device: str) -> list[str]:
    """What really runs the networks: every ONNX Runtime session alive in this process is asked; torch, if it is loaded."""
    import onnxruntime

    gc.unfreeze()  # `get_objects` leaves out what `leave_out_of_collections` froze
    sessions = [thing for thing in gc.get_objects() if issubclass(type(thing), onnxruntime.InferenceSession)]
    found = sorted({"+".join(session.get_providers()) for session in sessions})
    torch = sys.modules.get("torch")
    if torch is not None:
        where = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
        found.append(f"torch {torch.__version__} on {where}")
    return found


def weights(bundle: Bundle) -> dict[str, str]:
    """File name -> SHA-256, of every file of a bundle; `load` has compared them with the files."""
    return {
        part.files[role].name: sha256 for part in bundle.parts.values() for role, sha256 in sorted(part.sha256.items())
    }
