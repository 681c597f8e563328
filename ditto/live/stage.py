"""The stage: a few threads that compute for all sessions of one head, the most urgent frame first.

Hops of speech that are ready at the same time are heard, and their motion sampled, as one batch; at the same time other
threads draw. Which work happens when changes no result.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import numpy as np

from ditto.errors import BusyError, TooSlowError
from ditto.live.clock import Clock
from ditto.live.performance import Array, Performance, Piece, Speech, Task
from ditto.live.settings import Settings
from ditto.motion import MOTION_SIZE
from ditto.sampling import Job

if TYPE_CHECKING:
    from ditto.portrait import Portrait
    from ditto.talking_head import TalkingHead

T = TypeVar("T")
# Less is no conversation: a second of speech takes five to show, and what is said next waits for it. Far enough below
# FPS that a machine which is busy for a moment is not refused.
SLOWEST_FPS = 5.0
DRAWN_AT_MOST = 3  # frames, the best of which counts: the first of a network takes longest
SLOW_SECONDS = 1.0  # a frame that takes longer is not tried a third time
NO_ROWS = np.zeros((0, MOTION_SIZE), np.float32)
Observer = Callable[[str, float, int], None]
Hop = tuple[Performance, Speech, Piece | None]


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Stage:
    """Threads come with the first session and go with the last.

    Args:
        head: whose networks the sessions share.
        max_sessions: how many at once; by default one a core.
        clock: what sessions live by.
    """

    def __init__(self, head: TalkingHead, max_sessions: int | None = None, clock: Clock | None = None) -> None:
        if max_sessions is not None and max_sessions < 1:
            raise ValueError(f"max_sessions is at least 1, got {max_sessions}")
        self.max_sessions = cores() if max_sessions is None else max_sessions
        self._head = head
        self._clock = clock or Clock()
        self._observers: list[Observer] = []
        self._fps = 0.0  # measured with the first session
        self._begin()
        _stages.add(self)

    def _begin(self) -> None:
        """Nobody is on the stage."""
        self.lock = threading.RLock()
        self._work = threading.Condition(self.lock)
        self._performances: list[Performance] = []
        self._reserved = 0  # sessions, open or being opened
        self._threads: list[threading.Thread] = []
        self._hearing = False

    @property
    def sessions(self) -> int:
        """Sessions that are open."""
        with self.lock:
            return len(self._performances)

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer(name, seconds, rows)` after every step; the function that is returned ends that.

        Steps are "encode" and "sample" (rows: sessions together), "render", "paste" and "convert" (one frame).
        """
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def enter(self, portrait: Portrait, settings: Settings) -> Performance:
        """Open a session.

        Raises:
            BusyError: there are `max_sessions` already.
            TooSlowError: fewer than `SLOWEST_FPS` frames a second are drawn, unless the settings allow any speed.
        """
        with self.lock:
            if self._reserved >= self.max_sessions:
                raise BusyError(
                    f"this head serves {self.max_sessions} sessions at once, and has them; close one, try again later, "
                    "or load it with a larger max_sessions"
                )
            self._reserved += 1
        try:
            performance = Performance(self._head, portrait, settings, self.lock, self._work.notify, self._clock)
            if not settings.any_speed:
                self._check_speed(performance)
        except BaseException:
            with self.lock:
                self._reserved -= 1
            raise
        with self.lock:
            self._performances.append(performance)
            if not self._threads:
                self._threads = [
                    threading.Thread(target=self._run, name=f"ditto-stage-{n}", daemon=True)
                    for n in range(min(cores(), 8))
                ]
                for thread in self._threads:
                    thread.start()
            self._work.notify_all()
        return performance

    def _check_speed(self, performance: Performance) -> None:
        """Draw a frame or a few, until one was fast enough for all sessions to come."""
        for attempt in range(1, DRAWN_AT_MOST + 1):
            if self._fps >= SLOWEST_FPS:
                return
            start = self._clock.now()
            performance.draw_at_rest()
            seconds = self._clock.now() - start
            self._fps = max(self._fps, 1.0 / max(seconds, 1e-6))
            if attempt > 1 and seconds > SLOW_SECONDS:
                break
        if self._fps < SLOWEST_FPS:
            raise TooSlowError(
                f"expected at least {SLOWEST_FPS:g} frames a second for a live session, measured {self._fps:.2g}; use "
                "another device, a faster bundle or animate(), or open the session with any_speed=True"
            )

    def leave(self, performance: Performance) -> None:
        """Close a session; returns when nothing of it runs any more. Twice does no harm."""
        with self.lock:
            performance.close()
            performance.changed.wait_for(lambda: not (performance.hearing or performance.drawing))
            if performance in self._performances:
                self._performances.remove(performance)
                self._reserved -= 1
            last = not self._performances
        if last:
            self._end(unless_used=True)

    def _end(self, unless_used: bool = False) -> None:
        """Send the threads home, unless another session has come meanwhile and needs them."""
        with self.lock:
            if unless_used and self._performances:
                return
            ended, self._threads = self._threads, []
            self._work.notify_all()
        for thread in ended:
            thread.join()

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self.lock:
                call = None
                while me in self._threads and (call := self._next()) is None:
                    self._clock.wait(self._work, self._idle_due())
                if call is None:
                    return
                self._work.notify()  # there may be more to do
            call()

    def _idle_due(self) -> float:
        return min((performance.idle_due for performance in self._performances), default=float("inf"))

    def _next(self) -> Callable[[], None] | None:
        """The most urgent work; marks it as begun."""
        ready = [] if self._hearing else [p for p in self._performances if p.can_hear()]
        first: Performance | None = None
        soonest = float("inf")
        for performance in self._performances:
            due = performance.drawable_at
            if due < soonest:
                first, soonest = performance, due
        if ready and min(performance.wanted_at for performance in ready) <= soonest:
            self._hearing = True
            batch = [(performance, *performance.begin_hearing()) for performance in ready]
            return lambda: self._hear(batch)
        if first is None:
            return None
        chosen = first
        chosen.drawing = True
        task = chosen.task()
        return lambda: self._draw(chosen, task)

    def _hear(self, batch: list[Hop]) -> None:
        """A piece, or a hop, of every session of the batch: the rows that come of it, or what broke it."""
        with self.lock:
            moods = [performance.mood for performance, _, _ in batch]
        start = time.perf_counter()
        try:
            answers = self._moved(batch, moods)
        except Exception as error:  # whatever it is, it belongs to the callers
            answers = [error] * len(batch)
        seconds = time.perf_counter() - start
        with self.lock:
            self._hearing = False
            for (performance, speech, _), mood, rows in zip(batch, moods, answers, strict=True):
                performance.hearing = False
                performance.changed.notify_all()
                if isinstance(rows, Exception):
                    performance.fail(rows)
                else:
                    performance.heard(speech, rows, mood, seconds)

    def _moved(self, batch: list[Hop], moods: list[Array]) -> list[Array | Exception]:
        """What comes of each: rows of motion, none where no hop is whole or it lies before the speech, or an error."""
        encoder = self._head.encoder
        found: list[Array | Exception] = [NO_ROWS] * len(batch)
        hops: list[tuple[int, Array]] = []
        for i, (_, speech, piece) in enumerate(batch):
            try:
                hop = speech.hear(piece)
            except Exception as error:  # whatever it is, it belongs to the caller
                found[i] = error
                continue
            if hop is not None:
                hops.append((i, hop))
        if not hops:
            return found
        rows = [(hop, batch[i][1].utterance.encoder_state) for i, hop in hops]
        answers = self._timed(
            "encode", lambda: attempt(lambda rows: encoder.together(*zip(*rows, strict=True)), rows), len(rows)
        )
        jobs: dict[int, list[tuple[int, Job]]] = {}  # by sampler: those of one go together
        for (i, _), answer in zip(hops, answers, strict=True):
            if isinstance(answer, Exception):
                found[i] = answer
                continue
            performance, speech, _ = batch[i]
            features, state = answer
            job = speech.utterance.heard(features, state, moods[i])
            if job is not None:
                jobs.setdefault(id(performance.sampler), []).append((i, job))
        for group in jobs.values():
            sampler = batch[group[0][0]][0].sampler
            moved = self._timed("sample", partial(attempt, sampler.together, [job for _, job in group]), len(group))
            for (i, _), answer in zip(group, moved, strict=True):
                found[i] = answer if isinstance(answer, Exception) else batch[i][1].utterance.moved(*answer)
        return found

    def _draw(self, performance: Performance, task: Task) -> None:
        start = time.perf_counter()
        try:
            frame, face = performance.draw(task, self._timed)
        except Exception as error:  # whatever it is, it belongs to the caller
            frame, failed = None, error
        with self.lock:
            performance.drawing = False
            performance.changed.notify_all()
            if frame is None:
                performance.fail(failed)
            else:
                performance.drawn(task, frame, face, time.perf_counter() - start)

    def _timed(self, name: str, call: Callable[[], T], rows: int = 1) -> T:
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        for observer in self._observers:
            observer(name, seconds, rows)
        return result


_stages: WeakSet[Stage] = WeakSet()


@atexit.register
def _end_all() -> None:
    """Sessions that are open at the end of a program: a thread in native code while Python goes down aborts it."""
    for stage in list(_stages):
        stage._end()


def _begin_all() -> None:
    """In a forked process: the threads, and the sessions they served, belong to the other one."""
    for stage in list(_stages):
        stage._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_all)


def attempt(call: Callable[[list[Any]], Iterable[T]], rows: list[Any]) -> list[T | Exception]:
    """What `call` gives for rows together; if it fails, for each alone, so that an error stays with its own row."""
    try:
        return list(call(rows))
    except Exception as error:  # handed on
        return [error] if len(rows) == 1 else [attempt(call, [row])[0] for row in rows]
