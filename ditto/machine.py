"""The part of the machine that this process may use, and where the user's files are."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leave_out_of_collections() -> None:
    """Collect garbage, then leave what is there now out of every later collection of this process: for programs that serve.

    A full collection stops all threads. With what `ditto serve` has loaded, 97 000 objects, it took 53 ms of processor time:
    a frame of several sessions came late at once. Without them it takes less than a millisecond.
    """
    gc.collect()
    gc.freeze()


@contextmanager
def interrupts_left_to_parent() -> Iterator[None]:
    """Processes that are started in here never get SIGINT (Ctrl-C); this one does, and ends them.

    A terminal sends the signal to every process of a command. A process that still imports its modules, and so has no handler
    yet, would end with a traceback. A blocked signal stays blocked in the processes that a thread starts.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker  # what serves and draws never starts processes

    resource_tracker.ensure_running()  # or `multiprocessing` starts it with the first process, and unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def user_data() -> Path:
    """The folder of the user's data of ditto, which need not exist. Raises RuntimeError for a user without a home folder."""
    if sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "ditto"
