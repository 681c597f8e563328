"""Sessions that come and go, stall and vanish leave nothing behind, and others do not notice."""

import asyncio
import ctypes
import gc
import os
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from actors import PATIENT, at_rest, refusals, worker_threads

import ditto
from ditto.errors import BusyError, SessionError
from ditto.live import Frame, SegmentEnd
from ditto.live.pictures import MAX_QUEUED_PICTURES
from ditto.media.audio import read_audio

EXAMPLES = Path(__file__).parents[2] / "examples"
CYCLES = 200
WARM_UP = 40
LARGEST_GROWTH = 16.0  # MiB over 160 sessions; one remembers 1.3 of speech alone, allocators keep some


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite", max_sessions=3)


@pytest.fixture(scope="module")
def speech():
    return read_audio(EXAMPLES / "speech.flac")


def resident_mib():
    """Memory of this process without what is free but kept (every thread leaves an arena behind); 0 without /proc."""
    if not Path("/proc/self/statm").exists():
        return 0.0
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def remembered(scheduler, monkeypatch):
    """Sessions that are opened from now on and still in memory."""
    states, opening = weakref.WeakSet(), scheduler.open

    def opened(*arguments):
        state = opening(*arguments)
        states.add(state)
        return state

    monkeypatch.setattr(scheduler, "open", opened)
    return states


def spoken(s, epoch=0):
    """The speech frames of an utterance up to its end."""
    frames = []
    for item in s:
        if isinstance(item, SegmentEnd) and item.epoch == epoch:
            return frames
        if isinstance(item, Frame) and item.kind == "speech" and item.epoch == epoch:
            frames.append(item)
    raise AssertionError("the session ended before its utterance")


def test_200_sessions_leave_threads_and_memory_as_they_were(head, portrait, speech, monkeypatch):
    states = remembered(head.scheduler, monkeypatch)

    def cycle(number):
        """Each way of leaving in turn: unused, with speech unheard, unread, half read, interrupted, abandoned."""
        with head.blocking_session(portrait, seed=number, idle=number % 2 == 0) as s:
            way = number % 6
            if way >= 1:
                s.push(speech[:1600] if way == 1 else speech[:4800])
            if way >= 3:
                s.get()
            if way == 4:
                s.interrupt()
            if way == 5:
                s.listen(speech[:3200])
                s.control(gaze=(5.0, 0.0))
                s.flush()

    async def cycle_in_a_loop(number):
        async with head.session(portrait, seed=number) as s:
            await s.push(speech[:4800])
            if number % 2:
                await anext(s)

    warm = 0.0
    for number in range(CYCLES):
        if number == WARM_UP:
            warm = resident_mib()
        if number % 10:
            cycle(number)
        else:
            asyncio.run(cycle_in_a_loop(number // 10))
    assert worker_threads() == []
    assert head.scheduler.sessions == 0
    gc.collect()
    assert len(states) == 0
    assert resident_mib() - warm < LARGEST_GROWTH


def test_a_reader_that_never_reads_stops_its_own_work_only(head, portrait, speech):
    steps = []
    with refusals(head.scheduler) as full, head.blocking_session(portrait, idle=False) as stalled:
        end = head.scheduler.observe(lambda name, seconds, rows: steps.append(name))
        failed = []

        def flood():
            try:
                while True:
                    stalled.push(speech)
            except SessionError as error:
                failed.append(error)

        pusher = threading.Thread(target=flood)
        pusher.start()
        assert full.wait(PATIENT) and at_rest(head.scheduler)
        assert pusher.is_alive()  # push waits
        assert steps.count("render") == stalled.unread == MAX_QUEUED_PICTURES  # a second ahead of the reader
        end()
        with head.blocking_session(portrait, idle=False) as other:
            other.push(speech[:8000])
            other.flush()
            assert len(spoken(other)) == 13
    pusher.join()
    assert "closed" in str(failed[0])
    assert worker_threads() == []


def test_a_vanished_client_is_closed_and_another_gets_the_same_frames(head, portrait, speech):
    samples = speech[8000:20000]
    with head.blocking_session(portrait, seed=4, idle=False) as s:
        s.push(samples)
        s.flush()
        alone = [frame.image for frame in spoken(s)]

    async def client(speaks):
        async with head.session(portrait, seed=1) as s:
            await s.push(speech)
            async for item in s:
                if item.kind == "speech":
                    speaks.set()

    async def vanish():
        speaks = asyncio.Event()
        task = asyncio.create_task(client(speaks))
        await asyncio.wait_for(speaks.wait(), PATIENT)  # it is in the midst of it
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with head.blocking_session(portrait, seed=4, idle=False) as stays:
        own = sorted(worker_threads())
        stays.push(samples[:5000])
        for _ in range(3):
            asyncio.run(vanish())
        stays.push(samples[5000:])
        stays.flush()
        np.testing.assert_array_equal([frame.image for frame in spoken(stays)], alone)
        assert sorted(worker_threads()) == own
        assert head.scheduler.sessions == 1
    assert worker_threads() == []


def test_a_head_with_all_sessions_open_refuses_until_one_closes(head, portrait, speech):
    opened = [head.blocking_session(portrait) for _ in range(3)]
    for _ in range(50):
        with pytest.raises(BusyError, match="3 sessions"):
            head.blocking_session(portrait)
    for s in opened:
        s.close()
    for _ in range(20):
        with head.blocking_session(portrait, idle=False) as s:
            s.push(speech[:640])
    assert head.scheduler.sessions == 0
