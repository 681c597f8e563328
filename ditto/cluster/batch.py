"""`ditto batch`: the videos of a manifest, made by workers. It can be stopped and run again at any time.

Only this process names outputs, and it writes into the journal before it names one. So an output is whole and of one job, a
job whose output is there is not done again, and no file that the batch did not make is replaced.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, NamedTuple

from ditto.cluster.manifest import BadLine, Job
from ditto.cluster.workers import SCRATCH, Failed, Made, Workers
from ditto.errors import InputError, OutputError, ProvenanceError
from ditto.media.files import partial_file, refused, write_file
from ditto.provenance import Provenance
from ditto.provenance.marking import complete, sign

JOURNAL, REPORT = "journal.jsonl", "report.jsonl"
LOOK_SECONDS = 0.5  # between two looks for an interruption

Status = Literal["done", "done before", "failed", "not done"]


@dataclass
class Result:
    """What became of a line of the manifest. `about`: of a video, its frames, duration, size; of a failure, its error."""

    line: int
    output: str | None
    status: Status = "not done"
    about: dict[str, Any] = field(default_factory=dict)


class Entry(NamedTuple):
    """What the journal says of an output: what it was made from, and its size in bytes."""

    made_from: dict[str, Any]
    bytes: int


class Journal:
    """What was made in a folder: a JSON object a line, the newest of an output counts. One batch at a time has it open.

    Args:
        provenance: what the content credentials of the videos say; None: they get none.

    Raises:
        InputError: another batch works in the folder. OutputError: it cannot be written.
    """

    def __init__(self, folder: Path, provenance: Provenance | None) -> None:
        self._folder = folder
        if os.path.lexists(folder) and not os.path.isdir(folder):
            raise OutputError(f"expected a folder for the videos, got the file {folder}; name another")
        self._provenance = provenance and provenance.ready()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = (folder / JOURNAL).open("a+b", buffering=0)
        except OSError as error:
            raise refused(folder / JOURNAL, error) from error
        try:
            _lock(self._file)
        except OSError:
            self._file.close()
            raise InputError(f"expected no other batch in {folder}, one is at work; wait for its end") from None
        self._file.seek(0)
        text = self._file.read()
        self._torn = bool(text) and not text.endswith(b"\n")  # of a process that was killed while it wrote
        self._entries: dict[str, list[Entry]] = {}
        for line in text.splitlines():
            try:
                said = json.loads(line)
                if len(said["from"]["files"]) >= 2:
                    self._entries.setdefault(said["output"], []).append(Entry(said["from"], said["bytes"]))
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # such a line; its output, if it is there, is a file that is not known
        for left in folder.glob(f"{SCRATCH}*"):  # of a batch that was killed
            shutil.rmtree(left, ignore_errors=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def is_done(self, job: Job) -> bool:
        """Whether the output of a job is there, made from the same files with the same options.

        Raises:
            OutputError: there is a file that this batch did not make, or a file in place of a folder.
        """
        target = self._folder / job.name
        for above in target.relative_to(self._folder).parents:
            if os.path.lexists(place := self._folder / above) and not place.is_dir():
                raise OutputError(f"expected a folder for {job.name}, got the file {place}; name another output")
        if not os.path.lexists(target):
            return False
        size = target.stat().st_size if target.is_file() else -1
        entries = [entry for entry in self._entries.get(job.name, []) if entry.bytes == size]
        if not entries:
            raise OutputError(f"expected a free name or a video of this batch, got another file at {target}; move it away")
        now = made_from(job)
        return any(_same(entry.made_from, now) for entry in entries)

    def take(self, made: Made) -> None:
        """Sign a finished video and give it the name of its output. Raises OutputError and ProvenanceError."""
        target = self._folder / made.job.name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.is_done(made.job)  # raises if a file came there meanwhile
            part = partial_file(target)
            try:
                shutil.move(made.file, part)
                job, provenance = made.job, self._provenance
                sidecar = sign(part, target, provenance and provenance.made_from(portrait=job.portrait, speech=job.audio))
                entry = Entry(made_from(made.job), part.stat().st_size)
                self._write({"output": made.job.name, "from": entry.made_from, "bytes": entry.bytes, **made.report})
                complete(part, target, sidecar)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise refused(target, error) from error
        self._entries.setdefault(made.job.name, []).append(entry)

    def _write(self, record: dict[str, Any]) -> None:
        line = b"\n" * self._torn + json.dumps(record).encode() + b"\n"
        self._torn = True
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._file.fileno())
        self._torn = False


def made_from(job: Job) -> dict[str, Any]:
    """The options of a job, and size and time of each of its files, None for one that is missing."""
    files: list[list[int] | None] = []
    for path in job.files.values():
        try:
            status = path.stat()
            files.append([status.st_size, status.st_mtime_ns])
        except OSError:
            files.append(None)
    return job.options | {"files": files}


def _same(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a video is of these options and files. A file that is gone since is no reason to make it again."""
    if before | {"files": None} != now | {"files": None} or len(before["files"]) != len(now["files"]):
        return False
    return all(new in (None, old) for old, new in zip(before["files"], now["files"], strict=True))


def _lock(file: BinaryIO) -> None:
    """Lock an open file as long as it is open. Raises OSError if another process has locked it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        getattr(msvcrt, "locking")(file.fileno(), getattr(msvcrt, "LK_NBLCK"), 1)  # noqa: B009 (not in every msvcrt)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def run_batch(
    lines: Iterable[Job | BadLine],
    folder: Path,
    workers: Callable[[], Workers],
    told: Callable[[Result | None], object] = lambda result: None,
    provenance: Provenance | None = Provenance(),
) -> list[Result]:
    """Make the videos of a manifest; what became of each line. The report is in `folder`, whatever ends the batch.

    Args:
        lines: of the manifest (`read_manifest`).
        folder: of the outputs, of journal and report.
        workers: opens the workers; not called if nothing is to be done.
        told: called with each result, and with None from time to time; it may raise to end the batch.
        provenance: what the content credentials of the videos say beside their files; None: they get none.

    Raises:
        InputError: another batch works in the folder.
        OutputError: the folder, its journal or the report cannot be written.
        ProvenanceError: the key to sign with cannot be made, read or used.
        ClusterError: the cluster is lost, or cannot be reached.
    """
    results = {line.line: Result(line.line, line.name if isinstance(line, Job) else None) for line in lines}
    with Journal(folder, provenance) as journal:
        waiting: deque[Job] = deque()

        def end(line: int, status: Status, **about: Any) -> None:
            results[line].status, results[line].about = status, about
            told(results[line])

        try:
            for line in lines:
                if isinstance(line, BadLine):
                    end(line.line, "failed", error="InputError", message=line.message)
                    continue
                try:
                    if journal.is_done(line):
                        end(line.line, "done before")
                    else:
                        waiting.append(line)
                except OutputError as error:
                    end(line.line, "failed", error="OutputError", message=str(error))
            if waiting:
                _work_off(waiting, journal, workers(), end, told)
        finally:
            write_report(folder, results.values())
    return list(results.values())


def _work_off(
    waiting: deque[Job],
    journal: Journal,
    workers: Workers,
    end: Callable[..., None],
    told: Callable[[Result | None], object],
) -> None:
    try:
        working = 0
        while waiting or working:
            while waiting and workers.free > 0:
                workers.submit(waiting.popleft())
                working += 1
            told(None)
            over = workers.next(LOOK_SECONDS)
            if over is None:
                continue
            working -= 1
            if isinstance(over, Failed):
                end(over.job.line, "failed", error=over.error, message=over.message)
                continue
            try:
                journal.take(over)
            except (OutputError, ProvenanceError) as error:
                end(over.job.line, "failed", error=type(error).__name__, message=str(error))
            else:
                end(over.job.line, "done", **over.report)
    finally:
        workers.close()


def write_report(folder: Path, results: Iterable[Result]) -> None:
    """Write the report, a JSON object for each line of the manifest. Raises OutputError."""
    lines = [
        json.dumps({"line": result.line, "output": result.output, "status": result.status, **result.about})
        for result in results
    ]
    write_file(folder / REPORT, "".join(f"{line}\n" for line in lines).encode())
