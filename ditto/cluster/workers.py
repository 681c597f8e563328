"""Workers of a batch on this machine: a process each. One that dies is replaced, and its job is done again."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

from ditto.cluster.manifest import Job
from ditto.machine import interrupts_left_to_parent

ATTEMPTS = 3  # at a job whose worker died; then it is the job that kills workers
END_SECONDS = 5.0  # for a worker to remove its unfinished file
SCRATCH = ".ditto-batch."  # begins the name of the folder of unfinished videos

Report = dict[str, Any]
Work = Callable[[Job, Path], Report]


class Made(NamedTuple):
    """A job that is done: its video, complete, in a file for the batch to take; what the report says of it."""

    job: Job
    file: Path
    report: Report


class Failed(NamedTuple):
    """A job that failed: the class of its error and the message."""

    job: Job
    error: str
    message: str


class Workers(Protocol):
    """Who makes the videos of a batch."""

    @property
    def free(self) -> int:
        """How many more jobs are taken now."""
        ...

    def submit(self, job: Job) -> None:
        """Take a job."""
        ...

    def next(self, seconds: float) -> Made | Failed | None:
        """The next job that is over; None if there is none within `seconds`. The file of the one before may be gone then.

        Raises:
            ClusterError: the cluster is lost.
        """
        ...

    def close(self) -> None:
        """End all work, and remove what is unfinished."""
        ...


class Notes(logging.Handler):
    """Collects the warnings of the library, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.notes: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.notes[record.getMessage()] = None


def attempt(work: Work, job: Job, file: Path) -> Report | tuple[str, str]:
    """The report of a job, with the library's warnings as `notes`; or class and message of its error."""
    logger, notes = logging.getLogger("ditto"), Notes()
    logger.addHandler(notes)
    try:
        return work(job, file) | {"notes": list(notes.notes)}
    except Exception as error:  # of this job, whatever it is
        return type(error).__name__, " ".join(str(error).split()) or "no message"
    finally:
        logger.removeHandler(notes)


class Worker:
    """A process, and the job that it has."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=serve_jobs, args=(theirs, work), daemon=True)
        with interrupts_left_to_parent():
            self.process.start()
        theirs.close()
        self.job: Job | None = None
        self.file: Path | None = None

    def begin(self, job: Job, file: Path) -> None:
        """Give it a job."""
        self.job, self.file = job, file
        with suppress(OSError):  # it has died; `next` finds that
            self.connection.send((job, file))


def _exit(number: int, frame: object) -> NoReturn:
    sys.exit(0)  # removes the unfinished file on its way


def serve_jobs(connection: Connection, work: Work) -> None:
    """The process of a worker: jobs in, reports out, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the batch ends this one
    signal.signal(signal.SIGTERM, _exit)
    with suppress(EOFError, OSError):
        while True:
            job, file = connection.recv()
            connection.send(attempt(work, job, file))


class LocalWorkers:
    """`Workers` on this machine.

    Args:
        count: of processes.
        folder: of the batch; unfinished videos are in a hidden folder of it.
        work: makes a video; a function of a module, since the processes import it.
    """

    def __init__(self, count: int, folder: Path, work: Work) -> None:
        self._work, self._count = work, count
        self._scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=folder))
        self._workers: list[Worker] = []
        self._attempts: dict[int, int] = {}  # by line, of the jobs under way
        self._again: deque[Job] = deque()
        self._taken: Path | None = None

    @property
    def free(self) -> int:
        return self._count - sum(worker.job is not None for worker in self._workers) - len(self._again)

    def submit(self, job: Job) -> None:
        idle = next((worker for worker in self._workers if worker.job is None), None)
        if idle is None:
            idle = Worker(self._work)
            self._workers.append(idle)
        tried = self._attempts[job.line] = self._attempts.get(job.line, 0) + 1
        idle.begin(job, self._scratch / f"{job.line}.{tried}{Path(job.name).suffix.lower()}")

    def next(self, seconds: float) -> Made | Failed | None:
        if self._taken is not None:
            self._taken.unlink(missing_ok=True)
            self._taken = None
        while self._again:
            self.submit(self._again.popleft())
        ready = wait([worker.connection for worker in self._workers], seconds)  # the end of a worker closes its own
        for worker in [worker for worker in self._workers if worker.connection in ready]:
            try:
                answer = worker.connection.recv()
            except (EOFError, OSError):
                if (failed := self._replace(worker)) is not None:
                    return failed
                continue
            job, file = worker.job, worker.file
            worker.job = None
            assert job is not None and file is not None
            del self._attempts[job.line]
            if isinstance(answer, tuple):
                return Failed(job, *answer)
            self._taken = file
            return Made(job, file, answer)
        return None

    def _replace(self, worker: Worker) -> Failed | None:
        """Put the job of a dead worker back; it failed if several workers died of it."""
        self._workers.remove(worker)
        worker.process.join()
        worker.connection.close()
        job = worker.job
        if job is None:
            return None
        if worker.file is not None:
            for left in self._scratch.glob(f".{worker.file.stem}*"):  # its unfinished file
                left.unlink(missing_ok=True)
        if self._attempts[job.line] < ATTEMPTS:
            self._again.append(job)
            return None
        code = worker.process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Failed(
            job,
            "ClusterError",
            f"expected a worker to make it, {self._attempts.pop(job.line)} workers ended at it, the last with {how}; "
            "look at the memory of this machine, or take fewer --workers",
        )

    def close(self) -> None:
        for worker in self._workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(END_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()
        shutil.rmtree(self._scratch, ignore_errors=True)
