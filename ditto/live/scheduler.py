"""The scheduler: a few threads that compute for all sessions of one head, the most urgent frame first.

Speech that is ready at the same time goes through the performer as one batch; at the same time other threads draw. Which
work happens when changes no result.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from ditto.errors import BusyError, TooSlowError
from ditto.live.clock import Clock
from ditto.live.intake import Piece
from ditto.live.settings import Settings
from ditto.live.state import Result, SessionState, Task
from ditto.live.utterance import Utterance
from ditto.machine import cores
from ditto.performer import Advance, Advanced, Appearance, Observer, Performer, State

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait

J = TypeVar("J")
T = TypeVar("T")
# Less is no conversation: a second of speech takes five to show, and what is said next waits for it. Far enough below
# FPS that a machine which is busy for a moment is not refused.
SLOWEST_FPS = 5.0
DRAWN_AT_MOST = 3  # frames, the best of which counts: the first of a network takes longest
SLOW_SECONDS = 1.0  # a frame that takes longer is not tried a third time
Array = npt.NDArray[np.float32]
Heard = tuple[SessionState, Utterance, Piece | None, State | None]


class Scheduler:
    """Threads come with the first session and go with the last.

    Args:
        performer: what makes the pictures of all sessions.
        max_sessions: how many at once; by default one a core.
        clock: what sessions live by.

    Attributes:
        performer, max_sessions: as given.
        lock: of everything that sessions share.
    """

    def __init__(self, performer: Performer, max_sessions: int | None = None, clock: Clock | None = None) -> None:
        if max_sessions is not None and max_sessions < 1:
            raise ValueError(f"max_sessions is at least 1, got {max_sessions}")
        self.max_sessions = cores() if max_sessions is None else max_sessions
        self.performer = performer
        self._clock = clock or Clock()
        self._observers: list[Observer] = []
        self._fps = 0.0  # measured with the first session
        self._begin()
        _schedulers.add(self)

    def _begin(self) -> None:
        """No session is open."""
        self.lock = threading.RLock()
        self._work = threading.Condition(self.lock)
        self._sessions: list[SessionState] = []
        self._reserved = 0  # sessions, open or being opened
        self._threads: list[threading.Thread] = []
        self._hearing = False

    @property
    def sessions(self) -> int:
        """Sessions that are open."""
        with self.lock:
            return len(self._sessions)

    @property
    def busy(self) -> bool:
        """Whether anything is being computed, or can be before the clock goes on."""
        with self.lock:
            return any(session.busy for session in self._sessions)

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer(name, seconds, rows)` after every step; the function that is returned ends that.

        Steps are the performer's, and "convert" (one frame).
        """
        end = self.performer.observe(observer)
        self._observers.append(observer)

        def stop() -> None:
            end()
            self._observers.remove(observer)

        return stop

    def open(self, portrait: Portrait, prepare: Callable[[], Appearance], settings: Settings) -> SessionState:
        """Open a session.

        Args:
            portrait: whose it is.
            prepare: gives the portrait's appearance; not asked where there is no place.
            settings: what it is opened with.

        Raises:
            ValueError: the performer has no such latency, or cannot do what the settings ask of it.
            BusyError: there are `max_sessions` already.
            TooSlowError: fewer than `SLOWEST_FPS` frames a second are drawn, unless the settings allow any speed.
        """
        settings.check(self.performer)
        with self.lock:
            if self._reserved >= self.max_sessions:
                raise BusyError(
                    f"this head serves {self.max_sessions} sessions at once, and has them; close one, try again later, "
                    "or load it with a larger max_sessions"
                )
            self._reserved += 1
        try:
            session = SessionState(
                self.performer, portrait, prepare(), settings, self.lock, self._work.notify, self._clock
            )
            if not settings.any_speed:
                self._check_speed(session)
        except BaseException:
            with self.lock:
                self._reserved -= 1
            raise
        with self.lock:
            self._sessions.append(session)
            if not self._threads:
                self._threads = [
                    threading.Thread(target=self._run, name=f"ditto-scheduler-{n}", daemon=True)
                    for n in range(min(cores(), 8))
                ]
                for thread in self._threads:
                    thread.start()
            self._work.notify_all()
        return session

    def _check_speed(self, session: SessionState) -> None:
        """Draw a frame or a few, until one was fast enough for all sessions to come."""
        for attempt in range(1, DRAWN_AT_MOST + 1):
            if self._fps >= SLOWEST_FPS:
                return
            start = self._clock.now()
            session.draw_at_rest()
            seconds = self._clock.now() - start
            self._fps = max(self._fps, 1.0 / max(seconds, 1e-6))
            if attempt > 1 and seconds > SLOW_SECONDS:
                break
        if self._fps < SLOWEST_FPS:
            raise TooSlowError(
                f"expected at least {SLOWEST_FPS:g} frames a second for a live session, measured {self._fps:.2g}; use "
                "another device, a faster bundle or animate(), or open the session with any_speed=True"
            )

    def close(self, session: SessionState) -> None:
        """Close a session; returns when nothing of it runs any more. Twice does no harm."""
        with self.lock:
            session.close()
            session.changed.wait_for(lambda: not (session.hearing or session.drawing))
            if session in self._sessions:
                self._sessions.remove(session)
                self._reserved -= 1
            last = not self._sessions
        if last:
            self._end(unless_used=True)

    def _end(self, unless_used: bool = False) -> None:
        """Stop the workers, unless another session has come meanwhile and needs them."""
        with self.lock:
            if unless_used and self._sessions:
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
        return min((session.idle_due for session in self._sessions), default=float("inf"))

    def _next(self) -> Callable[[], None] | None:
        """The most urgent work; marks it as begun."""
        ready = [] if self._hearing else [session for session in self._sessions if session.can_hear()]
        for session in ready:
            session.notice_speech()
        first: SessionState | None = None
        soonest = float("inf")
        for session in self._sessions:
            session.pass_ends()
            due = session.frame_due
            if due < soonest:
                first, soonest = session, due
        if ready and min(session.shot_due for session in ready) <= soonest:
            self._hearing = True
            batch = [(session, *session.begin_hearing()) for session in ready]
            return lambda: self._hear(batch)
        if first is None:
            return None
        return partial(self._draw, first, first.task())

    def _hear(self, batch: list[Heard]) -> None:
        """A piece, or a hop, of every session of the batch: the shots that come of it, or what broke it."""
        with self.lock:
            emotions = [session.emotion for session, *_ in batch]
        start = time.perf_counter()
        answers = self._advance(batch, emotions)
        seconds = time.perf_counter() - start
        with self.lock:
            self._hearing = False
            for (session, utterance, *_), answer in zip(batch, answers, strict=True):
                session.hearing = False
                session.changed.notify_all()
                if isinstance(answer, Exception):
                    session.fail(answer)
                else:
                    session.heard(utterance, answer, seconds)

    def _advance(self, batch: list[Heard], emotions: list[Array]) -> list[Advanced | Exception | None]:
        """What comes of each: shots, nothing where no hop is whole, or an error."""
        found: list[Advanced | Exception | None] = [None] * len(batch)
        jobs: list[tuple[int, Advance]] = []
        for i, ((_, utterance, piece, stands), emotion) in enumerate(zip(batch, emotions, strict=True)):
            try:
                job = utterance.job(piece, emotion, stands)
            except Exception as error:  # whatever it is, it belongs to the caller
                found[i] = error
                continue
            if job is not None:
                jobs.append((i, job))
        answers = attempt(self.performer.advance, [job for _, job in jobs]) if jobs else []
        for (i, job), answer in zip(jobs, answers, strict=True):
            found[i] = answer
            if not isinstance(answer, Exception):
                batch[i][1].accept(job, len(answer.shots), answer.state)
        return found

    def _draw(self, session: SessionState, task: Task) -> None:
        start = time.perf_counter()
        result: Result | None = None
        try:
            result = session.draw(task, self._timed)
        except Exception as error:  # whatever it is, it belongs to the caller
            failed = error
        with self.lock:
            session.drawing = False
            session.changed.notify_all()
            if result is None:
                session.fail(failed)
            else:
                session.drawn(task, result, time.perf_counter() - start)

    def _timed(self, name: str, call: Callable[[], T], rows: int = 1) -> T:
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        for observer in list(self._observers):
            observer(name, seconds, rows)
        return result


_schedulers: WeakSet[Scheduler] = WeakSet()


@atexit.register
def _end_all() -> None:
    """Sessions that are open at the end of a program: a thread in native code while Python goes down aborts it."""
    for scheduler in list(_schedulers):
        scheduler._end()


def _begin_all() -> None:
    """In a forked process: the threads, and the sessions they served, belong to the other one."""
    for scheduler in list(_schedulers):
        scheduler._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_all)


def attempt(call: Callable[[list[J]], Iterable[T]], rows: list[J]) -> list[T | Exception]:
    """What `call` gives for rows together; if it fails, for each alone, so that an error stays with its own row."""
    try:
        return list(call(rows))
    except Exception as error:  # handed on
        return [error] if len(rows) == 1 else [attempt(call, [row])[0] for row in rows]
