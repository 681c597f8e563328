"""What the steps of a preparation hand to each other, and the loop that runs them.

A step turns one item into items of the next step. What came of an item lies in `steps/STEP/ITEM.json`, written when all
other files of that item are: an item that has one is done. So a preparation that was killed goes on where it was, and
any number of workers gives the same files.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from ditto.errors import DatasetError, InputError, OutputError
from ditto.machine import interrupts_left_to_parent
from ditto.media.rates import FPS
from ditto.training.dataset import read_json, write_json
from ditto.values import from_json, typed

POLL_SECONDS = 0.2  # between two looks for Ctrl-C while workers work


@dataclass(frozen=True)
class Options:
    """What a preparation keeps. The same options and videos give the same dataset, bit for bit.

    Attributes:
        bundle: name or folder of the bundle whose encoder hears the sound.
        cuts: look for scene cuts; False for footage that is known to have none.
        several_faces: "drop" takes, or "keep" them, each face as a clip of its own.
        min_seconds, max_seconds: of a clip; a longer scene is divided evenly.
        min_face: median height of the face in pixels.
        min_sharpness: see `ditto.training.prepare.faces.sharpness`.
        max_degrees: of pitch and yaw, off the camera.
        min_voice: part of the time that somebody speaks.
        min_sync_confidence: under it the sound does not belong to the lips.
        emotion: "hsemotion", "landmarks" or "neutral".
    """

    bundle: str = "lite"
    cuts: bool = True
    several_faces: str = "drop"
    min_seconds: float = 1.5
    max_seconds: float = 10.0
    min_face: float = 80.0
    min_sharpness: float = 0.03
    max_degrees: float = 35.0
    min_voice: float = 0.25
    min_sync_confidence: float = 0.4
    emotion: str = "neutral"

    @property
    def min_frames(self) -> int:
        return max(1, round(self.min_seconds * FPS))

    @property
    def max_frames(self) -> int:
        return max(self.min_frames, round(self.max_seconds * FPS))


@dataclass(frozen=True)
class Stretch:
    """A part of a video that is to be used, in seconds from its first picture; None is the beginning or the end."""

    id: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    person: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class Video:
    """A file and its stretches; `video` is its name as it was given."""

    id: str
    path: str
    video: str
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True)
class Media(Video):
    """A video whose sound was decoded.

    Attributes:
        frames: at 25 a second.
        note: what is unusual about the file, or nothing.
    """

    frames: int
    note: str


@dataclass(frozen=True)
class Piece:
    """A piece of one scene, frames [start, end) of the video at 25 a second; from the step `faces` on, with one face.

    Attributes:
        id: of the piece, later of the clip.
        media: id of the `Media` with its sound.
        path, video: as of that.
        piece: id of the piece in the step `faces`, whose file holds all its faces.
        track: number of the face.
        sync_offset: frames by which the sound is late.
    """

    id: str
    media: str
    path: str
    video: str
    start: int
    end: int
    person: str | None
    language: str | None
    piece: str
    track: int = 0
    sync_offset: int = 0
    sync_confidence: float | None = None

    @property
    def frames(self) -> int:
        return self.end - self.start


Item = Video | Media | Piece


class Dropped(NamedTuple):
    """Something that does not go on: its id, in a word why, what was measured, and how many seconds it lasts."""

    id: str
    reason: str
    detail: str
    seconds: float


_DROPPED = get_type_hints(Dropped)


class Outcome(NamedTuple):
    """What came of an item."""

    items: tuple[Item, ...] = ()
    dropped: tuple[Dropped, ...] = ()


class Work(NamedTuple):
    """Where a step works: the folder of all steps, and the options."""

    steps: Path
    options: Options

    def file(self, step: str, name: str) -> Path:
        return self.steps / step / name


class Step(NamedTuple):
    """A step: `run` gives what came of an item, after it has written that item's other files."""

    name: str
    run: Callable[[Work, Any], Outcome]
    gives: type[Media] | type[Piece]


def outcome_file(work: Work, step: Step, item: Item) -> Path:
    return work.file(step.name, f"{item.id}.json")


def read_outcome(work: Work, step: Step, item: Item) -> Outcome | None:
    """What came of an item, or None if it is not done.

    Raises:
        DatasetError: the file is damaged.
    """
    path = outcome_file(work, step, item)
    if not path.exists():
        return None
    found = read_json(path)
    try:
        items = tuple(from_json(step.gives, words) for words in found["items"])
        return Outcome(items, tuple(map(_dropped, found["dropped"])))
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"expected the outcome of a step in {path}, got: {error}; delete this file") from error


def _dropped(words: Any) -> Dropped:
    """What `run_item` wrote of something dropped. Raises ValueError for other words."""
    return Dropped(*(typed(name, kind, word) for (name, kind), word in zip(_DROPPED.items(), words, strict=True)))


def run_item(work: Work, step: Step, item: Item) -> None:
    """Run a step on one item and write what came of it. What cannot be read is dropped; a full disk ends the work."""
    try:
        outcome = step.run(work, item)
    except OutputError:
        raise
    except InputError as error:
        outcome = Outcome((), (Dropped(item.id, "unreadable", " ".join(str(error).split()), seconds_of(item)),))
    values = {
        "items": [dataclasses.asdict(i) for i in outcome.items],
        "dropped": [list(d) for d in outcome.dropped],
    }
    write_json(outcome_file(work, step, item), values)


def seconds_of(item: Item) -> float:
    """Duration of a piece or a video, 0 where it is not known yet."""
    return getattr(item, "frames", 0) / FPS


class Workers:
    """Runs steps on items: in this process, or in several others, which end when this one does."""

    def __init__(self, count: int) -> None:
        self._pool: ProcessPoolExecutor | None = None
        if count > 1:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(count, mp_context=spawn, initializer=end_with_parent)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._pool is not None:
            processes = list((self._pool._processes or {}).values())
            self._pool.shutdown(wait=kind is None, cancel_futures=True)
            for process in processes if kind is not None else ():
                process.terminate()

    def run(self, work: Work, step: Step, items: Sequence[Item]) -> Iterator[int]:
        """Run a step on the items that are not done; yields after each, and while it waits, how many are.

        Raises:
            OutputError: a file cannot be written.
        """
        todo = [item for item in items if read_outcome(work, step, item) is None]
        done = len(items) - len(todo)
        yield done
        if self._pool is None:
            for item in todo:
                run_item(work, step, item)
                yield (done := done + 1)
            return
        with interrupts_left_to_parent():  # the pool starts its processes when it gets work
            waiting: set[Future[None]] = {self._pool.submit(run_item, work, step, item) for item in todo}
        try:
            while waiting:
                ready, waiting = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
                for future in ready:
                    future.result()
                yield (done := done + len(ready))
        except BrokenProcessPool as error:
            raise DatasetError(
                f"expected the workers to finish {step.name}, got: {error} (perhaps for lack of memory); run it again, with "
                "fewer --workers: finished work is kept"
            ) from error


def end_with_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when it does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=exit_after, args=(parent,), daemon=True).start()


def exit_after(process: BaseProcess) -> None:
    """End this process when another has ended."""
    process.join()
    os._exit(1)


