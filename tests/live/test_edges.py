"""Sessions at their edges: nothing is lost, doubled or frozen when callers do what callers do."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from actors import PATIENT, Actor, at_rest, refusals, until, worker_threads
from hypothesis import given, settings
from hypothesis.strategies import integers, lists, sampled_from, tuples

from ditto.errors import AudioError, SessionError
from ditto.live import Frame, SegmentEnd, utterance_seed
from ditto.live.intake import MAX_QUEUED_SAMPLES
from ditto.media.audio import Resampler
from ditto.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

EXAMPLES = Path(__file__).parents[2] / "examples"
SECOND = FPS * SAMPLES_PER_FRAME


def said(number, size):
    """Samples that tell which utterance they are of."""
    return np.full(size, (number + 1) / 1024, np.float32)


def read(s, stop, seconds=PATIENT):
    """Items up to the first for which `stop` is true."""
    items = []
    while not items or not stop(items[-1]):
        item = s.get(seconds)
        assert item is not None, f"nothing came after {items[-1:]}"
        items.append(item)
    return items


def is_end(item):
    return isinstance(item, SegmentEnd)


def speech_of(items):
    return [item for item in items if isinstance(item, Frame) and item.kind == "speech"]


@pytest.mark.parametrize("idle", [True, False])
def test_a_very_short_utterance_ends_and_idle_frames_follow(idle):
    with Actor().blocking_session(idle=idle) as s:
        for epoch in range(2):
            s.push(np.zeros(1), sample_rate=48000)
            s.flush()
            assert read(s, is_end)[-1] == SegmentEnd(epoch, 0.0)
        if idle:
            assert s.get(PATIENT).kind == "idle"


@pytest.mark.parametrize("rate", [16000, 24000])
def test_a_buffer_may_be_used_again_at_once(rate):
    buffer = np.zeros(SECOND, np.float32)
    with Actor().blocking_session(idle=False) as s:
        for number in range(4):
            buffer[:] = said(number, SECOND)
            s.push(buffer, sample_rate=rate)
            s.flush()
            buffer[:] = np.nan
        for number in range(4):
            sound = np.concatenate([frame.audio for frame in speech_of(read(s, is_end))])
            np.testing.assert_allclose(sound[1000:9000], said(number, 8000), atol=1e-4)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.astype(np.float64),
        lambda x: np.repeat(x, 3)[::3],
        lambda x: x[::-1].copy()[::-1],
        lambda x: memoryview(x),
        lambda x: memoryview((x * 32768).astype(np.int16)),
        lambda x: (x * 32768).astype("<i2").tobytes(),
        lambda x: memoryview((x * 32768).astype("<i2").tobytes()),
        lambda x: bytearray((x * 32768).astype("<i2").tobytes()),
        lambda x: x.tolist(),
    ],
)
def test_all_sample_types_give_the_same_sound(view):
    samples = (np.arange(2000) / 4096).astype(np.float32)
    with Actor().blocking_session(idle=False) as s:
        s.push(view(samples))
        s.flush()
        sound = np.concatenate([frame.audio for frame in speech_of(read(s, is_end))])
    np.testing.assert_array_equal(sound[:2000], samples)


def test_pushes_of_single_samples_lose_none():
    samples = (np.arange(4000) / 4096).astype(np.float32)
    actor = Actor()
    with actor.blocking_session(idle=False) as s:
        with actor.scheduler.lock:  # nobody takes any of it meanwhile
            for sample in samples:
                s.push(sample[None])
            assert s.waiting_seconds == 4000 / SAMPLE_RATE
        s.flush()
        frames = speech_of(read(s, is_end))
    np.testing.assert_array_equal(np.concatenate([frame.audio for frame in frames])[:4000], samples)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_however_long_a_push_is_nothing_is_resampled_under_the_lock_or_on_the_loop(rate, monkeypatch):
    sizes, places = [], set()

    class Watched(Resampler):
        def push(self, samples):
            sizes.append(samples.size / rate)
            places.add((actor.scheduler.lock._is_owned(), threading.current_thread().name.split("-")[0]))
            return super().push(samples)

    monkeypatch.setattr("ditto.live.intake.Resampler", Watched)
    actor = Actor(pause_seconds=0.0)
    sound = np.random.default_rng(0).uniform(-1, 1, 34 * rate).astype(np.float32)
    whole = Resampler(rate, 24000)
    expected = np.concatenate([whole.push(sound), whole.flush()])

    async def play():
        async with actor.session(idle=False, audio_rate=24000) as s:
            await s.push(sound, sample_rate=rate)
            await s.flush()
            s.listen(sound, sample_rate=rate)
            frames = []
            async for item in s:
                if is_end(item):
                    return np.concatenate([frame.audio for frame in frames])
                frames.append(item)

    shown = asyncio.run(play())
    np.testing.assert_array_equal(shown[: expected.size], expected)
    assert places == {(False, "ditto")}  # the threads of the scheduler
    assert sorted(sizes)[-2] <= 0.08 and sizes.count(max(sizes)) == 1  # but for what was listened to, of which
    assert max(sizes) == 10.0  # the last ten seconds are heard


def test_a_push_belongs_to_the_utterance_in_which_it_was_called():
    samples = (np.arange(MAX_QUEUED_SAMPLES) % 4096 / 4096).astype(np.float32)

    async def play():
        async with Actor(pause_seconds=0.0).session(idle=False) as s:
            pushing = asyncio.ensure_future(s.push(samples, sample_rate=32000))  # long enough for a thread
            await asyncio.sleep(0)
            assert await s.interrupt() == 0
            await pushing  # of an utterance that is over
            await s.push(samples[:640])
            await s.flush()
            items = [await anext(s), await anext(s)]
            assert [item.epoch for item in items] == [1, 1] and is_end(items[1])
            np.testing.assert_array_equal(items[0].audio, samples[:640])

    asyncio.run(asyncio.wait_for(play(), PATIENT))


@pytest.mark.parametrize("beginning", [b"RIFF\x24\x08\0\0WAVEfmt ", b"OggS\0\2" + bytes(10), b"ID3\4" + bytes(10)])
def test_the_bytes_of_a_sound_file_are_refused_as_samples(beginning):
    file = beginning + bytes(2000)
    with Actor().blocking_session(idle=False) as s:
        for pcm in (file, memoryview(file), np.frombuffer(file[:2000], "<i2"), np.frombuffer(file[:2000], "<i2") / 32768):
            for call in (s.push, s.listen):
                with pytest.raises(AudioError, match="expected samples, got the bytes of a file"):
                    call(pcm)
        assert s.epoch == 0


RATES = (8000, 11025, 16000, 44100, 48000)
OPERATIONS = tuples(
    sampled_from(["push", "push", "flush", "interrupt", "read", "control"]), sampled_from(RATES), integers(0, 3000)
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(operations=lists(OPERATIONS, max_size=16), audio_rate=sampled_from((16000, 48000)))
def test_every_flushed_utterance_is_complete_and_ends_once(operations, audio_rate):
    expected, items = {}, []
    actor = Actor()
    with actor.blocking_session(idle=False, audio_rate=audio_rate) as s:
        pushed, using = [], None
        for operation, rate, size in [*operations, ("flush", 0, 0)]:
            if operation == "push":
                using = using or (rate if size else None)
                pushed.append(size)
                s.push(said(s.epoch, size), sample_rate=using or rate)
            elif operation == "flush":
                if using is not None:
                    resampler, epoch = Resampler(using), s.epoch
                    count = sum(resampler.push(said(0, size)).size for size in pushed) + resampler.flush().size
                    expected[epoch] = -(-count // SAMPLES_PER_FRAME)
                s.flush()
                pushed, using = [], None
            elif operation == "interrupt":
                s.interrupt()
                done = {item.epoch for item in items if is_end(item)}
                expected = {epoch: frames for epoch, frames in expected.items() if epoch in done}
                items = [item for item in items if item.epoch in done]
                pushed, using = [], None
            elif operation == "control":
                s.control(gaze=(size / 1000, 0.0))
            else:
                items += [item for _ in range(size % 20) if (item := s.get(0.0)) is not None]
        while {item.epoch for item in items if is_end(item)} != set(expected):
            item = s.get(PATIENT)
            assert item is not None, (expected, items[-1:])
            items.append(item)
        assert at_rest(actor.scheduler) and s.get(0.0) is None
    assert [item for item in items if is_end(item)] == [SegmentEnd(e, n / FPS) for e, n in sorted(expected.items())]
    for epoch, count in expected.items():
        frames = [frame for frame in speech_of(items) if frame.epoch == epoch]
        assert [frame.speech_index for frame in frames] == list(range(count))
        assert all(frame.audio.shape == (audio_rate // FPS,) for frame in frames)


def test_an_error_at_the_beginning_of_an_utterance_reaches_its_session_only():
    class Weak(Actor):
        def begin(self, appearance, seed, latency, after=None):
            if seed == utterance_seed(7, 0):
                raise MemoryError("too little")
            return super().begin(appearance, seed, latency, after)

    actor = Weak()
    with actor.blocking_session(idle=False) as good, actor.blocking_session(idle=False, seed=7) as bad:
        bad.push(said(0, SECOND))
        with pytest.raises(SessionError, match="MemoryError: too little"):
            bad.get(PATIENT)
        good.push(said(0, SECOND))
        good.flush()
        assert len(speech_of(read(good, is_end))) == FPS


def test_an_observer_that_raises_does_not_leave_the_sessions_hanging():
    actor = Actor()
    with actor.blocking_session(idle=False) as s:

        def broken(name, seconds, rows):
            raise KeyError("observer")

        actor.scheduler.observe(broken)
        s.push(said(0, SECOND))
        with pytest.raises(SessionError, match="observer"):
            read(s, is_end)


def test_an_error_raised_repeatedly_keeps_its_traceback_short():
    def depth(error):
        count, trace = 0, error.__traceback__
        while trace is not None:
            count, trace = count + 1, trace.tb_next
        return count

    with Actor(KeyError("k")).blocking_session(idle=False) as s:
        s.push(said(0, SECOND))
        found = []
        for _ in range(5):
            with pytest.raises(SessionError) as told:
                read(s, is_end)
            found.append(depth(told.value))
    assert len(set(found)) == 1


def test_flush_does_not_wait_and_a_cancelled_push_adds_no_samples():
    async def play():
        async with Actor().session(idle=False) as s:
            await s.push(said(0, MAX_QUEUED_SAMPLES + 4 * SECOND))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(s.push(said(0, SECOND)), 0.05)
            await asyncio.wait_for(s.flush(), PATIENT)
            assert s.epoch == 1
            second = asyncio.ensure_future(s.push(said(1, SECOND)))
            ends, frames = [], {0: 0, 1: 0}
            async for item in s:
                if is_end(item):
                    ends.append(item.epoch)
                    if item.epoch == 0:
                        await second
                        await s.flush()
                    else:
                        break
                else:
                    assert round(float(item.audio[0]) * 1024) == item.epoch + 1
                    frames[item.epoch] += 1
            assert ends == [0, 1] and frames == {0: 34 * FPS, 1: FPS}

    asyncio.run(asyncio.wait_for(play(), PATIENT))


def test_a_push_that_waits_while_the_utterance_ends_is_dropped():
    actor = Actor()
    with refusals(actor.scheduler) as full, actor.blocking_session(idle=False) as s:
        s.push(said(0, MAX_QUEUED_SAMPLES + 4 * SECOND))
        late = threading.Thread(target=s.push, args=(said(0, SECOND),))
        late.start()
        assert full.wait(PATIENT)
        s.flush()
        items = read(s, is_end)
        late.join()
        assert len(speech_of(items)) == 34 * FPS
        s.push(said(1, SECOND))
        s.flush()
        assert [frame.epoch for frame in speech_of(read(s, is_end))] == [1] * FPS


def test_frames_keep_coming_while_controls_change():
    class Slow(Actor):
        def draw(self, jobs):
            time.sleep(0.01)
            return super().draw(jobs)

    with Slow().blocking_session() as s:
        over = threading.Event()

        def drag():
            while not over.wait(0.001):
                s.control(gaze=(5.0, 0.0))

        slider = threading.Thread(target=drag)
        slider.start()
        try:
            for _ in range(10):
                assert s.get(PATIENT) is not None
            s.push(said(0, SECOND))
            s.flush()
            frames = speech_of(read(s, is_end, PATIENT))
        finally:
            over.set()
            slider.join()
    assert [frame.speech_index for frame in frames] == list(range(FPS))


def test_cancelled_reads_leave_no_futures():
    def futures():
        gc.collect()
        return sum(type(thing) is asyncio.Future for thing in gc.get_objects())

    async def play():
        async with Actor().session(idle=False) as s:
            before = futures()
            for _ in range(20):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(anext(s), 0.001)
            assert futures() <= before

    asyncio.run(play())


def test_a_session_used_from_another_loop_is_an_error():
    loop = asyncio.new_event_loop()
    s = Actor().session(idle=False)
    loop.run_until_complete(s.__aenter__())
    try:
        for call in (lambda: anext(s), lambda: s.push(said(0, 9))):

            async def elsewhere(call=call):
                await asyncio.wait_for(call(), PATIENT)

            with pytest.raises(SessionError, match="event loop"):
                asyncio.run(elsewhere())
    finally:
        loop.run_until_complete(s.close())
        loop.close()


def test_a_session_whose_loop_ends_is_closed():
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Actor):
        def prepare(self, portrait):
            begun.set()
            go_on.wait(PATIENT)
            return super().prepare(portrait)

    actor = Slow(max_sessions=1)

    async def play():
        entering = asyncio.ensure_future(actor.session().__aenter__())
        while not begun.is_set():
            await asyncio.sleep(0)
        entering.cancel()
        asyncio.get_running_loop().call_soon(go_on.set)
        await entering

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(play())
    assert until(lambda: not worker_threads())
    assert actor.scheduler.sessions == 0
    actor.blocking_session().close()  # its place is free again


def test_idle_frames_come_while_the_sound_of_speech_is_resampled():
    with Actor().blocking_session(audio_rate=4000) as s:  # this way a resampler keeps 0.3 s to itself
        s.push(said(0, 24000), sample_rate=24000)
        items = read(s, lambda item: item.kind == "transition")
        s.push(said(0, 24000), sample_rate=24000)
        s.flush()
        items += read(s, is_end)
    assert [frame.speech_index for frame in speech_of(items)] == list(range(2 * FPS))


@pytest.mark.parametrize("rate", ["16000", None, float("nan"), 5, True])
def test_an_invalid_sample_rate_is_refused(rate):
    with Actor().blocking_session(idle=False) as s:
        for call in (s.push, s.listen):
            with pytest.raises(AudioError, match="expected a sample rate from"):
                call(said(0, 9), sample_rate=rate)


def run_alone(program):
    """The exit code of a program in a process of its own, with what it wrote."""
    script = "import atexit, os, sys, threading\nsys.path.insert(0, 'tests')\n" + program
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True, timeout=PATIENT
    )
    return done.returncode, done.stdout + done.stderr


def test_a_program_may_end_with_a_session_open():
    program = """
names = lambda: [thread.name for thread in threading.enumerate() if thread.name.startswith("ditto-scheduler")]
atexit.register(lambda: print("left:", names()))
from actors import Actor
s = Actor().blocking_session()
s.get()
assert names()
"""
    code, words = run_alone(program)
    assert (code, words) == (0, "left: []\n")  # a thread in native code would abort the process


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_sessions_of_its_own():
    program = """
from actors import Actor
actor = Actor(max_sessions=1)
s = actor.blocking_session()
s.get()
with actor.scheduler.lock:
    child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
with actor.blocking_session() as own:
    found = own.get(60)
os._exit(0 if found is not None else 3)
"""
    code, words = run_alone(program)
    assert code == 0, words


def test_more_sessions_than_can_be_drawn_in_time_share_the_time(monkeypatch):
    class Slow(Actor):
        def draw(self, jobs):
            time.sleep(0.03)
            return super().draw(jobs)

    monkeypatch.setattr("ditto.live.scheduler.cores", lambda: 1)
    actor = Slow()
    others, s = [actor.blocking_session() for _ in range(3)], actor.blocking_session()
    over = threading.Event()

    def watch(other):
        while not over.is_set():
            other.get(0.1)

    watchers = [threading.Thread(target=watch, args=(other,)) for other in others]
    for watcher in watchers:
        watcher.start()
    try:
        assert s.get(PATIENT) is not None
        s.push(said(0, 3200))
        s.flush()
        assert len(speech_of(read(s, is_end, PATIENT))) == 5
    finally:
        over.set()
        for watcher in watchers:
            watcher.join()
        for each in (*others, s):
            each.close()
