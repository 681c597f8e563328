"""The scheduler: worker threads that compute for all sessions of one head, the most urgent frame first.

A worker advances the speech of several sessions as one batch, or draws a frame of one. The order of the work changes no
result.
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
from ditto.live.capacity import Capacity, Kind, frame_seconds, hop_seconds, try_hops
from ditto.live.clock import Clock
from ditto.live.intake import Piece
from ditto.live.settings import Settings
from ditto.live.state import NEVER, NOW, Result, SessionState, Task
from ditto.live.utterance import Utterance
from ditto.machine import cores
from ditto.performer import Advance, Advanced, Appearance, EditsAt, Idle, Observer, Performer, State

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait

J = TypeVar("J")
T = TypeVar("T")
# At 5 frames a second, a second of speech takes five seconds to show, and what is said next waits for it: no conversation.
# Far enough below FPS that a machine which is busy for a moment is not refused.
MIN_FPS = 5.0
MAX_TRIAL_FRAMES = 3  # drawn to measure the speed; the fastest counts, as the first call of a network is slow
SLOW_FRAME_SECONDS = 1.0  # if the second frame takes longer, no third one is drawn
SLOW_TRIAL_SECONDS = 60.0  # if a frame, or a block of them, takes longer, no other one is drawn
# Sessions that are advanced together at most. Eight together take 8 % less time a session than four, but all of them wait
# for the last one, and another worker can take the other four.
MAX_BATCH = 4
Array = npt.NDArray[np.float32]
BatchItem = tuple[SessionState, Utterance | None, Piece | None, State | None]


class Scheduler:
    """Computes for the sessions of one head. Its worker threads run while a session is open.

    Args:
        performer: makes the pictures of all sessions.
        max_sessions: how many may be open at once; by default as many as the machine holds (`ditto.live.capacity`).
        clock: of the sessions; by default the system's monotonic clock.

    Attributes:
        performer: as given.
        lock: protects the state of the scheduler and of its sessions.
    """

    def __init__(self, performer: Performer, max_sessions: int | None = None, clock: Clock | None = None) -> None:
        if max_sessions is not None and max_sessions < 1:
            raise ValueError(
                f"expected max_sessions of 1 or more, got {max_sessions}; leave it out for as many as the machine holds"
            )
        self._limit = max_sessions
        self.performer = performer
        self._clock = clock or Clock()
        self._observers: list[Observer] = []
        self._fps: dict[str, float] = {}  # by latency, measured when a session is opened
        self._reset()
        _schedulers.add(self)

    def _reset(self) -> None:
        """Begin without sessions and workers."""
        self.lock = threading.RLock()
        self._work = threading.Condition(self.lock)
        self._sessions: list[SessionState] = []
        self._reserved = 0  # sessions, open or being opened
        self._capacity = Capacity(cores(), self.performer.hop_samples)
        self._tried: set[tuple[str, int]] = set()  # latencies and sizes of batches
        self._threads: list[threading.Thread] = []
        self._timers: dict[threading.Thread, float] = {}  # until when each worker waits that has nothing to do

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        with self.lock:
            return len(self._sessions)

    @property
    def motion_sessions(self) -> int:
        """How many of the open sessions give motion alone."""
        with self.lock:
            return sum(not session.settings.draws for session in self._sessions)

    @property
    def max_sessions(self) -> int:
        """How many sessions may be open at once; where that is measured, those now and as many more with pictures as fit in.

        One a core before a session was measured.
        """
        if self._limit is not None:
            return self._limit
        with self.lock:
            more = self._capacity.more(draws=True)
            return max(self._reserved, cores()) if more is None else self._reserved + more

    @property
    def load(self) -> float:
        """The share of `max_sessions`, or of the machine, that is in use: for whoever spreads sessions over machines."""
        with self.lock:
            return self._capacity.load if self._limit is None else self._reserved / self._limit

    @property
    def waiting_seconds(self) -> float:
        """Seconds of speech in the queues of all sessions."""
        with self.lock:
            return sum(session.waiting_seconds for session in self._sessions)

    @property
    def unread(self) -> int:
        """Items that the readers of all sessions have not taken yet."""
        with self.lock:
            return sum(session.unread for session in self._sessions)

    @property
    def busy(self) -> bool:
        """Whether a worker is at work, or can be without waiting for the clock."""
        with self.lock:
            return any(session.busy for session in self._sessions)

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer(step, seconds, rows)` after every step, until the returned function is called.

        Steps are the performer's, and "convert": one frame into the session's pixel format.
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
            portrait: the face.
            prepare: gives the portrait's appearance; not called if no session can be opened.
            settings: of the session.

        Raises:
            ValueError: the performer lacks the latency or a capability that the settings need.
            BusyError: `max_sessions` are open, or the machine holds no more.
            TooSlowError: fewer than `MIN_FPS` frames a second are drawn, unless the settings allow any speed or draw nothing.
        """
        settings.check(self.performer)
        with self.lock:
            self._reserve(settings.kind)
        try:
            session = SessionState(
                self.performer, portrait, prepare(), settings, self.lock, self._wake, self._clock
            )
            if settings.draws and not settings.any_speed:
                self._check_speed(session)
            if not settings.any_speed:
                if self._limit is None:
                    self._measure(session)
                self._try_batch(session)
        except BaseException:
            with self.lock:
                self._release(settings.kind)
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

    def _reserve(self, kind: Kind) -> None:
        """Count a session that is being opened. Raises BusyError if there is no room for it."""
        if self._limit is None:
            self._capacity.check(kind)
        elif self._reserved >= self._limit:
            raise BusyError(
                f"expected at most {self._limit} sessions at once, and as many are open; close one, try again "
                "later, or load the bundle with a larger max_sessions"
            )
        self._capacity.take(kind)
        self._reserved += 1

    def _release(self, kind: Kind) -> None:
        """Count a session no longer."""
        self._capacity.give_back(kind)
        self._reserved -= 1

    def _measure(self, session: SessionState) -> None:
        """Measure what sessions of this kind cost, if none was open yet. Raises BusyError if this one does not fit in."""
        kind, capacity = session.settings.kind, self._capacity
        new_latency, new_frame = not capacity.knows_hop(kind.latency), not capacity.knows_frame(kind.draws)
        if not (new_latency or new_frame):
            return
        hop = hop_seconds(self.performer, session.appearance, kind.latency, MAX_BATCH) if new_latency else 0.0
        frame = frame_seconds(session.draw_at_rest) if new_frame else 0.0
        with self.lock:
            if new_latency:
                capacity.add_hop(kind.latency, hop)
            if new_frame:
                capacity.add_frame(kind.draws, frame)
            capacity.give_back(kind)
            try:
                capacity.check(kind)
            finally:
                capacity.take(kind)

    def _try_batch(self, session: SessionState) -> None:
        """Advance a batch as large as this session makes possible, once for each size: the first of a size takes long.

        A network is compared with itself row by row then (`ditto.engines.batched`), which no conversation should wait for.
        """
        latency = session.settings.latency
        with self.lock:
            rows = min(self._reserved, MAX_BATCH)
            if rows < 2 or (latency, rows) in self._tried:
                return
            self._tried.add((latency, rows))
        try_hops(self.performer, session.appearance, latency, rows)

    def _check_speed(self, session: SessionState) -> None:
        """Measure the drawing speed, unless an earlier session showed that it is enough. Raises TooSlowError."""
        latency, fps = session.settings.latency, 0.0
        for trial in range(1, MAX_TRIAL_FRAMES + 1):
            fps = max(fps, self._fps.get(latency, 0.0))
            if fps >= MIN_FPS:
                return
            start = self._clock.now()
            frames = session.draw_at_rest()
            seconds = self._clock.now() - start
            fps = self._fps[latency] = max(fps, frames / max(seconds, 1e-6))
            if seconds > SLOW_TRIAL_SECONDS or (trial > 1 and seconds > SLOW_FRAME_SECONDS * frames):
                break
        if fps < MIN_FPS:
            raise TooSlowError(
                f"expected at least {MIN_FPS:g} frames a second for a live session, measured {fps:.2g}; use "
                "another device, a faster bundle or animate(), or open the session with any_speed=True"
            )

    def close(self, session: SessionState) -> None:
        """Close a session; returns when no worker uses it any more. A second call does nothing."""
        with self.lock:
            session.close()
            session.changed.wait_for(lambda: not (session.advancing or session.drawing))
            if session in self._sessions:
                self._sessions.remove(session)
                self._release(session.settings.kind)
            last = not self._sessions
        if last:
            self._stop_workers(unless_used=True)  # another session may have been opened since

    def _stop_workers(self, unless_used: bool = False) -> None:
        """Stop the workers; with `unless_used`, only if no session is open."""
        with self.lock:
            if unless_used and self._sessions:
                return
            stopped, self._threads = self._threads, []
            self._work.notify_all()
        for thread in stopped:
            thread.join()

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self.lock:
                while True:
                    if me not in self._threads:
                        return
                    call, due = self._next()
                    if call is not None:
                        break
                    self._timers[me] = due
                    self._clock.wait(self._work, due)
                    del self._timers[me]
                self._wake(due)
            call()

    def _wake(self, due: float) -> None:
        """Let a worker look for work that is due at a time, unless one that waits will look by then of itself."""
        if due < min(self._timers.values(), default=NEVER):
            self._work.notify()

    def _next(self) -> tuple[Callable[[], None] | None, float]:
        """The most urgent work, marked as begun, or None if there is none; and when there is more."""
        ready: list[SessionState] = []
        first: SessionState | None = None
        soonest = later = NEVER
        drawable = 0
        for session in self._sessions:
            session.forward_ends()
            outlook = session.outlook()
            if outlook.ready:
                session.mark_ready()
                ready.append(session)
            else:
                later = min(later, outlook.silence)
            if outlook.frame < NEVER:
                drawable += 1
                if outlook.frame < soonest:
                    first, soonest = session, outlook.frame
            elif outlook.idle < later:
                later = outlook.idle
        batch_due = self._gather(ready)
        gathered = batch_due <= self._clock.now()
        if not gathered:
            later = min(later, batch_due)
        if gathered and min(session.shot_due for session in ready) <= soonest:
            ready.sort(key=lambda session: session.shot_due)
            batch = [(session, *session.begin_advance()) for session in ready[:MAX_BATCH]]
            more = drawable > 0 or len(ready) > MAX_BATCH
            return partial(self._advance_batch, batch), NOW if more else later
        if first is not None:
            return partial(self._draw, first, first.task()), NOW if drawable > 1 or gathered else later
        return None, later

    def _gather(self, ready: list[SessionState]) -> float:
        """When to begin a batch of the sessions that are ready; infinity if there are none.

        More than one session a core: a hop then waits a little for those of others, as together they take less time.
        """
        if not ready:
            return NEVER
        crowded = len(self._sessions) > len(self._threads) and len(ready) < MAX_BATCH
        if not crowded or not any(session.awaits_speech for session in self._sessions):
            return NOW
        return min(session.batch_due for session in ready)

    def _advance_batch(self, batch: list[BatchItem]) -> None:
        """Advance every session of the batch, by speech or by silence; give each its shots, or the error that breaks it."""
        with self.lock:
            edits = [(session.emotion, session.coming_edits) for session, *_ in batch]
        start, spent = time.perf_counter(), time.thread_time()
        answers = self._advance_all(batch, edits)
        seconds, spent = time.perf_counter() - start, time.thread_time() - spent
        with self.lock:
            latencies = {session.settings.latency for session, *_ in batch}
            speech = all(utterance is not None for _, utterance, *_ in batch)
            done = all(isinstance(one, Advanced) for one in answers)
            if len(batch) == MAX_BATCH and len(latencies) == 1 and speech and done:
                self._capacity.add_hop(latencies.pop(), spent / MAX_BATCH)
            for (session, utterance, *_), answer in zip(batch, answers, strict=True):
                session.advancing = False
                session.changed.notify_all()
                if isinstance(answer, Exception):
                    session.fail(answer)
                elif utterance is not None:
                    session.accept_shots(utterance, answer, seconds)
                elif answer is not None:
                    session.accept_silence(answer)

    def _advance_all(
        self, batch: list[BatchItem], edits: list[tuple[Array, EditsAt]]
    ) -> list[Advanced | Exception | None]:
        """For each session: its shots; None if it has no whole hop yet; or an error."""
        found: list[Advanced | Exception | None] = [None] * len(batch)
        jobs: list[tuple[int, Utterance, Advance]] = []
        idle: list[tuple[int, Idle]] = []
        for i, ((_, utterance, piece, performer_state), (emotion, coming)) in enumerate(zip(batch, edits, strict=True)):
            if utterance is None:
                assert performer_state is not None
                idle.append((i, Idle(performer_state, emotion, coming, ahead=True)))
                continue
            try:
                job = utterance.next_job(piece, emotion, performer_state, coming)
            except Exception as error:  # of this session, whatever it is
                found[i] = error
                continue
            if job is not None:
                jobs.append((i, utterance, job))
        answers = call_with_isolated_errors(self.performer.advance, [job for *_, job in jobs]) if jobs else []
        for (i, utterance, job), answer in zip(jobs, answers, strict=True):
            found[i] = answer
            if not isinstance(answer, Exception):
                utterance.accept_shots(job, len(answer.shots), answer.state)
        silence = call_with_isolated_errors(self.performer.idle, [job for _, job in idle]) if idle else []
        for (i, _), answer in zip(idle, silence, strict=True):
            found[i] = answer
        return found

    def _draw(self, session: SessionState, task: Task) -> None:
        start, spent = time.perf_counter(), time.thread_time()
        result: Result | None = None
        try:
            result = session.draw(task, self._timed)
        except Exception as error:  # of this session, whatever it is
            failed = error
        with self.lock:
            session.drawing = False
            session.changed.notify_all()
            self._capacity.add_frame(session.settings.draws, time.thread_time() - spent)
            if result is None:
                session.fail(failed)
            else:
                session.accept_frame(task, result, time.perf_counter() - start)

    def _timed(self, name: str, call: Callable[[], T], rows: int = 1) -> T:
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        for observer in list(self._observers):
            observer(name, seconds, rows)
        return result


_schedulers: WeakSet[Scheduler] = WeakSet()


@atexit.register
def _stop_all() -> None:
    """Stop the workers before Python ends: a thread that is in native code then would abort the process."""
    for scheduler in list(_schedulers):
        scheduler._stop_workers()


def _reset_all() -> None:
    """In a forked process: the sessions and their threads belong to the parent."""
    for scheduler in list(_schedulers):
        scheduler._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)


def call_with_isolated_errors(call: Callable[[list[J]], Iterable[T]], rows: list[J]) -> list[T | Exception]:
    """The results of one call with all rows. If it fails, of one call a row: an error, then, for the rows that fail."""
    try:
        return list(call(rows))
    except Exception as error:  # the result of this row
        return [error] if len(rows) == 1 else [call_with_isolated_errors(call, [row])[0] for row in rows]
