"""The scheduler's batches: when a hop waits for those of other sessions, how many go together, and that two go at once."""

import threading
import time
from contextlib import ExitStack
from typing import ClassVar

import numpy as np
import pytest
from actors import HOP, PATIENT, Actor, HandClock, at_rest, until

from ditto.live import SegmentEnd, scheduler
from ditto.live.scheduler import MAX_BATCH
from ditto.live.state import GATHER_SECONDS
from ditto.media.rates import FPS


def said(hops):
    return np.full(hops * HOP, 0.25, np.float32)


def frames_of(session, count):
    """So many frames of speech."""
    found = []
    while len(found) < count:
        item = session.get(PATIENT)
        assert item is not None
        if not isinstance(item, SegmentEnd):
            found.append(item)
    return found


@pytest.fixture
def crowded(monkeypatch):
    """An actor with two sessions on one core, in the middle of an utterance, its clock, and the sizes of its batches."""
    monkeypatch.setattr(scheduler, "cores", lambda: 1)
    clock, sizes = HandClock(), []
    actor = Actor(clock=clock)
    with actor.blocking_session(idle=False) as first, actor.blocking_session(idle=False) as second:
        for session in (first, second):
            session.push(said(11))
            frames_of(session, 4)
        assert at_rest(actor.scheduler)
        actor.observe(lambda step, seconds, rows: sizes.append(rows))
        yield first, second, clock, sizes


def test_a_hop_waits_for_that_of_another_session(crowded):
    first, second, _, sizes = crowded
    first.push(said(1))
    time.sleep(0.05)  # a worker that does not wait takes it now
    second.push(said(1))
    frames_of(second, 18)
    assert sizes == [2]


def test_a_hop_does_not_wait_long(crowded):
    first, _, clock, sizes = crowded
    first.push(said(1))
    time.sleep(0.05)
    assert sizes == []
    clock.advance(GATHER_SECONDS)
    frames_of(first, 18)
    assert sizes == [1]


def test_no_hop_waits_for_a_session_that_says_nothing(crowded):
    first, second, _, sizes = crowded
    second.interrupt()
    first.push(said(1))
    frames_of(first, 18)
    assert sizes == [1]


def test_less_than_a_hop_is_left_in_the_queue():
    actor, sizes = Actor(), []
    actor.observe(lambda step, seconds, rows: sizes.append(rows))
    with actor.blocking_session(idle=False) as session:
        session.push(said(1)[:-1])
        assert at_rest(actor.scheduler) and session.waiting_seconds > 0.0 and sizes == []
        session.push(said(1)[:1])
        assert until(lambda: sizes == [1]) and session.waiting_seconds == 0.0
        session.flush()
        frames_of(session, 2)


def test_a_batch_has_a_limit():
    actor = Actor(pause_seconds=0.01)
    sessions = [actor.blocking_session(idle=False) for _ in range(2 * MAX_BATCH)]
    with actor.scheduler.lock:  # nobody takes any of it before all of it is there
        for session in sessions:
            session.push(said(3))
    for session in sessions:
        frames_of(session, 4)
        session.close()
    assert actor.largest_batch == MAX_BATCH


def test_two_workers_advance_at_once(monkeypatch):
    monkeypatch.setattr(scheduler, "cores", lambda: 2)
    advanced = threading.Event()

    class Meeting(Actor):
        """The first batch waits for the second one."""

        batches = 0

        def advance(self, jobs):
            self.batches += 1
            if self.batches == 1:
                assert advanced.wait(PATIENT)
            else:
                advanced.set()
            return super().advance(jobs)

    actor = Meeting()
    with actor.blocking_session(idle=False) as first, actor.blocking_session(idle=False, any_speed=True) as second:
        first.push(said(2))
        assert until(lambda: actor.batches == 1)
        second.push(said(2))
        frames_of(first, 2)
        frames_of(second, 2)


def test_idle_frames_go_on_while_another_worker_computes(monkeypatch):
    monkeypatch.setattr(scheduler, "cores", lambda: 2)
    released = threading.Event()

    class Stuck(Actor):
        """Takes no speech before it is released."""

        def advance(self, jobs):
            assert released.wait(PATIENT)
            return super().advance(jobs)

    clock = HandClock()
    actor = Stuck(clock=clock)
    with actor.blocking_session() as idle, actor.blocking_session(idle=False, any_speed=True) as speaking:
        speaking.push(said(2))
        for _ in range(5):
            assert idle.get(PATIENT).kind == "idle"
            clock.advance(1.1 / FPS)
        released.set()
        frames_of(speaking, 2)


def test_a_size_of_batch_is_tried_before_a_conversation_needs_it():
    class Counting(Actor):
        """Says how many streams each call advanced together."""

        sizes: ClassVar[list[int]] = []

        def advance(self, jobs):
            self.sizes.append(len(jobs))
            return super().advance(jobs)

    actor = Counting(max_sessions=6)
    with ExitStack() as opened:
        for _ in range(6):
            opened.enter_context(actor.blocking_session(idle=False))
    assert set(actor.sizes) == {2, 3, 4}  # `MAX_BATCH` at most
