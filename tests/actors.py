"""A performer that costs nothing, for what sessions do apart from speech and pictures; and clocks for them."""

import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np

from ditto.live import AsyncSession, Scheduler, Session
from ditto.live.clock import Clock
from ditto.live.settings import Settings
from ditto.media.rates import SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.motion.motion import rest_motion
from ditto.motion.space import LITE_SPACE
from ditto.performer import (
    Advance,
    Advanced,
    Appearance,
    Capability,
    Draw,
    Drawn,
    Face,
    Idle,
    Moved,
    Observer,
    Shot,
    State,
    check_latency,
    expect_own,
)

PICTURE = np.zeros((2, 2, 3), np.uint8)
PORTRAIT = SimpleNamespace(picture=PICTURE, alpha=None)
REST = rest_motion(1)[0]

HOP = 2 * SAMPLES_PER_FRAME
LOOK_AHEAD = {"quality": 8, "balanced": 4, "low": 1}  # hops beyond its own that a shot of the actor waits for
TRANSITION_FRAMES = 5  # in which the actor comes to rest after speech
PATIENT = 60.0  # seconds; only what hangs takes as long


class HandClock(Clock):
    """Stands still until it is moved."""

    def __init__(self):
        self.time, self.waiting = 1000.0, set()

    def now(self):
        return self.time

    def wait(self, news, until):
        self.waiting.add(news)
        if self.time < until:
            news.wait()

    def advance(self, seconds):
        self.time += seconds
        for news in list(self.waiting):
            with news:
                news.notify_all()


class HastyClock(Clock):
    """Jumps to the moment that is waited for."""

    def __init__(self):
        self.time = 1000.0

    def now(self):
        return self.time

    def wait(self, news, until):
        if until < float("inf"):
            self.time = max(self.time, until)
        else:
            news.wait()


def until(condition, seconds=PATIENT):
    """Whether something becomes true, however long it takes."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.002)
    return bool(found)


def at_rest(scheduler):
    """Whether the scheduler comes to have nothing to compute before its clock goes on."""
    return until(lambda: not scheduler.busy)


@contextmanager
def refusals(scheduler):
    """An event that is set once a push into a session opened meanwhile found no room; the caller waits then."""
    event, opening = threading.Event(), scheduler.open

    def opened(*arguments):
        state = opening(*arguments)
        own_push = state.push

        def push(*pushed):
            taken = own_push(*pushed)
            if not taken:
                event.set()
            return taken

        state.push = push
        return state

    scheduler.open = opened
    try:
        yield event
    finally:
        scheduler.open = opening


def worker_threads():
    """Names of the threads that compute for sessions."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ditto-scheduler")]


@dataclass(frozen=True)
class ActorState(State):
    """Samples heard of an utterance, shots given of it, and hops that a shot waits for beyond its own."""

    ahead: int
    samples: int = 0
    shots: int = 0


@dataclass(frozen=True)
class ActorShot(Shot):
    """Whether it is of speech."""

    speech: bool


@dataclass(frozen=True)
class ActorFace(Face):
    """Frames since the last one of speech; None before any."""

    rested: int | None = None


class Actor:
    """A `ditto.performer.Performer` whose pictures are black, with a scheduler of its own.

    Args:
        error: what `advance` raises when it is given a sample of `bad`.
        bad: None: any sample.
        pause_seconds: what `advance` takes, as computing would, so that other things happen in the midst of it.
        max_sessions, clock: of the scheduler.
    """

    supports = frozenset(Capability)
    hop_samples = HOP
    latencies = tuple(LOOK_AHEAD)
    motion_space = LITE_SPACE

    def __init__(self, error=None, bad=None, pause_seconds=0.0001, max_sessions=8, clock=None):
        self.error, self.bad, self.pause_seconds = error, bad, pause_seconds
        self.largest_batch = 0
        self.observers: list[Observer] = []
        self.scheduler = Scheduler(self, max_sessions, clock)

    def session(self, **options) -> AsyncSession:
        return AsyncSession(self.scheduler, PORTRAIT, lambda: self.prepare(PORTRAIT), Settings(**options))

    def blocking_session(self, **options) -> Session:
        return Session(self.scheduler, PORTRAIT, lambda: self.prepare(PORTRAIT), Settings(**options))

    def delay_seconds(self, latency: str) -> float:
        return (1 + LOOK_AHEAD[check_latency(latency, self.latencies)]) * HOP / SAMPLE_RATE

    def prepare(self, portrait) -> Appearance:
        return Appearance()

    def begin(self, appearance: Appearance, seed: int, latency: str, after: State | None = None) -> ActorState:
        return ActorState(LOOK_AHEAD[check_latency(latency, self.latencies)])

    def advance(self, jobs: Sequence[Advance]) -> list[Advanced]:
        time.sleep(self.pause_seconds)
        self.largest_batch = max(self.largest_batch, len(jobs))
        if self.error is not None and any(self.bad is None or np.any(job.samples == self.bad) for job in jobs):
            raise self.error
        for observer in self.observers:
            observer("advance", self.pause_seconds, len(jobs))
        return [self._advance(job) for job in jobs]

    def _advance(self, job: Advance) -> Advanced:
        state = expect_own(job.state, ActorState)
        samples = state.samples + job.samples.size
        known = -(-samples // SAMPLES_PER_FRAME)
        if not job.final:
            known = max(0, samples - state.ahead * HOP) // SAMPLES_PER_FRAME
        shots = [ActorShot(speech=True)] * (known - state.shots)
        return Advanced(shots, replace(state, samples=samples, shots=known))

    def idle(self, jobs: Sequence[Idle]) -> list[Advanced]:
        return [Advanced([ActorShot(speech=False)], job.state) for job in jobs]

    def face(self, appearance: Appearance, seed: int, joined: bool = True) -> ActorFace:
        return ActorFace()

    def draw(self, jobs: Sequence[Draw]) -> list[Drawn]:
        return [self._draw(expect_own(job.face, ActorFace), expect_own(job.shot, ActorShot)) for job in jobs]

    def _draw(self, face: ActorFace, shot: ActorShot) -> Drawn:
        rested = 0 if shot.speech else None if face.rested is None else face.rested + 1
        transition = not shot.speech and rested is not None and rested <= TRANSITION_FRAMES
        return Drawn(PICTURE, ActorFace(rested), REST, transition)

    def move(self, jobs: Sequence[Draw]) -> list[Moved]:
        raise ValueError("an actor has no motion")

    def observe(self, observer: Observer):
        self.observers.append(observer)
        return lambda: self.observers.remove(observer)
