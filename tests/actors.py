"""A head whose networks cost nothing, for what sessions do apart from speech and pictures; and clocks for them."""

import threading
import time
from types import SimpleNamespace

import numpy as np

from ditto.latency import latency_of
from ditto.live import AsyncSession, Session, Stage
from ditto.live.clock import Clock
from ditto.live.settings import Settings
from ditto.motion import KEYPOINTS, MOTION_SIZE, drive

PICTURE = np.zeros((2, 2, 3), np.uint8)
PORTRAIT = SimpleNamespace(
    rotation=np.eye(3),
    scale=1.0,
    translation=np.zeros(3),
    expression=np.zeros((KEYPOINTS, 3)),
    canonical_keypoints=np.zeros((KEYPOINTS, 3)),
    eye_open=np.ones(2),
    alpha=None,
)


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
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return bool(condition())


def at_rest(s):
    """Whether there is nothing to compute for a session before its clock goes on."""
    performance = s._performance

    def done():
        with s._stage.lock:
            now = performance._clock.now()
            busy = performance.hearing or performance.drawing or performance.can_hear()
            return not busy and performance.drawable_at == float("inf") and performance.idle_due > now

    return until(done)


def refused(s):
    """An event that is set once a push found no room; the caller waits then."""
    performance, event = s._performance, threading.Event()
    own = performance.push

    def push(*arguments):
        taken = own(*arguments)
        if not taken:
            event.set()
        return taken

    performance.push = push
    return event


def stage_threads():
    """Names of the threads that compute for sessions."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ditto-stage")]


class Actor:
    """Stands where a `TalkingHead` stands. `error` is what its encoder raises when it hears a sample of `bad`."""

    hop_samples, lead_features = 1280, 2

    def __init__(self, error=None, bad=None, pause_seconds=0.0001, max_sessions=8, clock=None):
        self.encoder = self.sampler = self.renderer = self
        self.error, self.bad, self.pause_seconds = error, bad, pause_seconds
        self.largest_batch = 0
        self.stage = Stage(self, max_sessions, clock)

    def session(self, **options):
        return AsyncSession(self.stage, PORTRAIT, Settings(**options))

    def blocking_session(self, **options):
        return Session(self.stage, PORTRAIT, Settings(**options))

    def appearance(self, portrait):
        return SimpleNamespace(mesh=None, paste_back=lambda crop: crop)

    def sampler_for(self, latency):
        self.delay_seconds = latency_of(latency).plan.delay_seconds
        return self

    def initial_state(self, *_):
        return 0

    begin = initial_state

    def together(self, first, states=None):
        """As the encoder: hops and states; as the sampler: jobs."""
        time.sleep(self.pause_seconds)  # as computing would, so that other things happen in the midst of it
        self.largest_batch = max(self.largest_batch, len(first))
        if states is None:
            return [(np.zeros((len(job.features), MOTION_SIZE), np.float32), job.state + 1) for job in first]
        if self.error is not None and any(self.bad is None or np.any(hop == self.bad) for hop in first):
            raise self.error
        return [(np.zeros((2, 368), np.float32), state + 1) for state in states]

    face_units = True

    def translate(self, mesh, row):
        return row

    def drive(self, portrait, motion):
        return drive(portrait, motion)

    def render(self, mesh, drive):
        return PICTURE
