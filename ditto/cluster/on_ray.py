"""Workers of a batch on a Ray cluster. Files travel with the jobs, so the machines need no common file system."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from ditto.cluster.manifest import Job
from ditto.cluster.workers import ATTEMPTS, SCRATCH, Failed, Made, Report, Work, attempt
from ditto.errors import ClusterError, InputError

USAGE_REPORTS = "RAY_USAGE_STATS_ENABLED"
LOST_SECONDS = 20.0  # without an answer of the head node; after 60 s Ray ends the whole process
LOOK_SECONDS = 2.0  # between two looks at it
JOBS_PER_CORE = 2  # submitted: one at work and one whose files are on their way


def import_ray() -> ModuleType:
    """The ray module, without its usage reports (unless RAY_USAGE_STATS_ENABLED=1 is set).

    Raises:
        InputError: it is not installed.
    """
    os.environ.setdefault(USAGE_REPORTS, "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise InputError(f"expected the package ray, got {error}; pip install 'ditto-talking-head[cluster]'") from None


def make(work: Work, job: Job, *contents: bytes) -> tuple[Report, bytes] | tuple[str, str]:
    """Do a job on another machine: the report and the video, or class and message of the error.

    Args:
        contents: of `job.files`, in their order.
    """
    with tempfile.TemporaryDirectory(prefix="ditto-") as scratch:
        folder = Path(scratch)
        files: dict[str, Any] = {name: folder / f"{name}{path.suffix}" for name, path in job.files.items()}
        for file, data in zip(files.values(), contents, strict=True):
            file.write_bytes(data)
        output = folder / f"output{Path(job.name).suffix.lower()}"
        answer = attempt(work, replace(job, **files), output)
        if isinstance(answer, dict):
            return answer, output.read_bytes()
        message = answer[1]
        for name, path in job.files.items():
            message = message.replace(str(files[name]), str(path))
        return answer[0], message


class RayWorkers:
    """`Workers` on a Ray cluster: one processor core a job. Ray does the jobs of a lost worker or machine again.

    Args:
        address: of the cluster, HOST:PORT; "auto": of this machine's.
        count: most jobs at once; None: as many as the cluster has cores, which may change.
        folder: of the batch.
        work: makes a video; ditto, and the module of this function, must be installed on the machines.

    Raises:
        ClusterError: no cluster answers there. InputError: ray is not installed.
    """

    def __init__(self, address: str, count: int | None, folder: Path, work: Work) -> None:
        self._ray: Any = import_ray()
        self._count = count
        self._head = place_of(address)
        self._answered = self._looked = time.monotonic()
        if self._head is not None and not answers(self._head):
            raise ClusterError(f"expected a Ray cluster at {address}, nothing answers there; start it, or check the address")
        try:
            context = self._ray.init(
                address=address, log_to_driver=False, logging_level="ERROR", namespace="ditto", configure_logging=True
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ClusterError(f"expected a Ray cluster at {address}, got: {reason}; check the address") from error
        self._head = place_of(context.address_info["gcs_address"])
        self._make = self._ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(make)
        self._work = work
        self._scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=folder))
        self._jobs: dict[Any, Job] = {}  # by the reference of their results
        self._unreadable: list[Failed] = []

    @property
    def free(self) -> int:
        most = self._count
        if most is None:
            most = max(1, int(JOBS_PER_CORE * self._ray.cluster_resources().get("CPU", 0)))
        return most - len(self._jobs) - len(self._unreadable)

    def submit(self, job: Job) -> None:
        try:
            contents = [path.read_bytes() for path in job.files.values()]
        except OSError as error:
            message = f"{error.filename} cannot be read: {error.strerror or error}; check the name"
            self._unreadable.append(Failed(job, "InputError", message))
            return
        self._jobs[self._make.remote(self._work, job, *contents)] = job

    def next(self, seconds: float) -> Made | Failed | None:
        if self._unreadable:
            return self._unreadable.pop()
        self._check_head()
        ready, _ = self._ray.wait(list(self._jobs), num_returns=1, timeout=seconds)
        if not ready:
            return None
        job = self._jobs.pop(ready[0])
        try:
            first, second = self._ray.get(ready[0])
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().split("\n")[0]
            return Failed(
                job,
                "ClusterError",
                f"expected a worker to make it, {ATTEMPTS} were lost ({reason}); look at the memory of the machines",
            )
        if isinstance(second, str):
            return Failed(job, first, second)
        file = self._scratch / f"{job.line}{Path(job.name).suffix.lower()}"
        file.write_bytes(second)
        return Made(job, file, first)

    def _check_head(self) -> None:
        """Raises ClusterError if the head node has not answered for `LOST_SECONDS`."""
        now = time.monotonic()
        if self._head is None or now < self._looked + LOOK_SECONDS:
            return
        self._looked = now
        if answers(self._head):
            self._answered = now
        elif now > self._answered + LOST_SECONDS:
            raise ClusterError(
                "the head node of the Ray cluster is lost; the videos that are done are kept: start a cluster, and run the "
                "same command again"
            )

    def close(self) -> None:
        if self._head is None or answers(self._head):
            for reference in self._jobs:
                self._ray.cancel(reference, force=True)
            self._ray.shutdown()
        self._jobs.clear()
        shutil.rmtree(self._scratch, ignore_errors=True)


def place_of(address: str) -> tuple[str, int] | None:
    """Host and port of an address; None for one without a port, as "auto"."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdigit() else None


def answers(place: tuple[str, int]) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection(place, timeout=LOOK_SECONDS).close()
    except OSError:
        return False
    return True
