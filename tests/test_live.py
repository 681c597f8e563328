"""Sessions: the frames of a stream, in order, none of an interrupted utterance, and errors that reach the caller."""

import asyncio
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, lists, sampled_from, tuples

import ditto
from ditto.audio import Resampler, read_audio
from ditto.errors import AudioError, BundleError, SessionError
from ditto.live import AsyncSession, Frame, SegmentEnd, Session
from ditto.live.session import LARGEST_INBOX, LARGEST_OUTBOX
from ditto.stream import FPS, SAMPLES_PER_FRAME
from ditto.stream import Frame as StreamFrame

EXAMPLES = Path(__file__).parents[1] / "examples"
PICTURE = np.zeros((2, 2, 3), np.uint8)
SECOND = FPS * SAMPLES_PER_FRAME


class Echo:
    """Stands where the stream stands: a frame for every 640 samples, at once."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.sound, self.index = np.zeros(0, np.float32), 0

    def push(self, samples):
        time.sleep(0.0001)  # as computing would, so that interrupts come in the midst of it
        self.sound, frames = np.concatenate([self.sound, samples]), []
        while self.sound.size >= SAMPLES_PER_FRAME:
            own, self.sound = self.sound[:SAMPLES_PER_FRAME], self.sound[SAMPLES_PER_FRAME:]
            frames.append(StreamFrame(PICTURE, self.index, self.index / FPS, own, None))
            self.index += 1
        return frames

    def flush(self):
        return self.push(np.zeros(-self.sound.size % SAMPLES_PER_FRAME, np.float32))


class Broken(Echo):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def push(self, samples):
        raise self.error


def said(number, size):
    """Samples that tell which utterance they are of."""
    return np.full(size, (number + 1) / 1024, np.float32)


# All samples of a schedule together fit into inbox and outbox, so that no push waits for a read.
OPERATIONS = tuples(sampled_from(["push", "flush", "interrupt", "read", "breathe"]), integers(1, 1500))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(operations=lists(OPERATIONS, max_size=24))
def test_nothing_of_an_interrupted_utterance_appears(operations):
    async def play():
        async with AsyncSession(Echo()) as s:
            number, fresh, read, last = 0, 0, 0, -1
            for operation, size in operations:
                if operation == "push":
                    await s.push(said(number, size))
                elif operation == "flush":
                    before = s.epoch
                    await s.flush()
                    number += s.epoch - before
                elif operation == "interrupt":
                    assert await s.interrupt() == read * 1000 // FPS
                    number, read, last = number + 1, 0, -1
                    fresh = number
                    assert s.epoch == number
                elif operation == "breathe":
                    await asyncio.sleep(0.0005 * (size % 3))
                else:
                    try:
                        item = await asyncio.wait_for(anext(s), 0.0005)
                    except asyncio.TimeoutError:
                        continue
                    assert item.epoch >= fresh
                    if isinstance(item, Frame):
                        assert round(float(item.audio[0]) * 1024) == item.epoch + 1
                        assert item.index == (last + 1 if read else 0)
                        last, read = item.index, read + 1
                    else:
                        last, read = -1, 0

    asyncio.run(play())


def test_frames_are_those_of_the_stream_at_any_rate_and_each_utterance_ends():
    head = ditto.load("lite")
    portrait = head.register(EXAMPLES / "portrait.jpg", max_size=256)
    speech = read_audio(EXAMPLES / "speech.flac")[8000:15000]
    other = Resampler(SAMPLE_RATE := 16000, 24000)
    at_24000 = np.concatenate([other.push(speech), other.flush()])
    back = Resampler(24000, SAMPLE_RATE)
    expected = {16000: speech, 24000: np.concatenate([back.push(at_24000), back.flush()])}

    async def play(utterances):
        items = []
        async with head.session(portrait, latency="low", seed=3) as s:
            for rate, samples in utterances:
                for start in range(0, len(samples), 977):
                    await s.push(samples[start : start + 977], sample_rate=rate)
                await s.flush()
            async for item in s:
                items.append(item)
                if isinstance(item, SegmentEnd) and item.epoch == len(utterances) - 1:
                    return items

    items = asyncio.run(play([(16000, speech), (24000, at_24000)]))
    with head.blocking_session(portrait, latency="low", seed=3) as s:
        s.push(speech)
        s.flush()
        blocking = [s.get() for _ in range(12)]
    for found, epoch, samples in (
        (items, 0, expected[16000]),
        (items, 1, expected[24000]),
        (blocking, 0, expected[16000]),
    ):
        stream = head.stream(portrait, latency="low", seed=3)
        frames = stream.push(samples) + stream.flush()
        *mine, end = [item for item in found if item.epoch == epoch]
        assert end == SegmentEnd(epoch, len(frames) / FPS)
        assert len(mine) == len(frames)
        for a, b in zip(mine, frames, strict=True):
            assert (a.kind, a.index, a.pts_seconds) == ("speech", b.index, b.pts_seconds)
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.audio, b.audio)


def test_a_reader_that_stalls_makes_push_wait_and_an_interrupt_frees_it():
    with Session(Echo()) as s:
        flood = threading.Thread(target=s.push, args=(said(0, 20 * SECOND),))
        flood.start()
        flood.join(0.2)
        assert flood.is_alive()  # 20 s do not fit into inbox and outbox
        exchange = s._exchange
        assert exchange._waiting <= LARGEST_INBOX + 1280 and len(exchange._outbox) <= LARGEST_OUTBOX
        assert [s.get().index for _ in range(30)] == list(range(30))
        assert s.interrupt() == 30 * 40
        flood.join()
        assert exchange._waiting == 0  # the rest of the flood is not even handed over
        assert s.get(timeout_seconds=0.05) is None


def test_an_interrupt_while_idle_or_twice_does_no_harm():
    with Session(Echo()) as s:
        assert (s.interrupt(), s.interrupt()) == (0, 0)
        s.push(said(2, 640))
        s.flush()
        assert s.get().audio[0] == said(2, 1)[0]
        assert s.get() == SegmentEnd(2, 0.04)
        assert s.interrupt() == 0  # that utterance was over


def test_nothing_pushed_is_nothing_to_end():
    with Session(Echo()) as s:
        s.push(np.zeros(0))
        s.push(b"")
        s.flush()
        assert (s.epoch, s.get(timeout_seconds=0.05)) == (0, None)


def test_bytes_are_16_bit_samples_and_their_number_is_even():
    with Session(Echo()) as s:
        with pytest.raises(AudioError, match="even number of bytes, got 3"):
            s.push(b"abc")
        s.push(np.full(640, 8192, "<i2").tobytes())
        assert s.get().audio[0] == 0.25


def test_what_is_no_speech_is_refused_and_what_came_before_stays():
    with Session(Echo()) as s:
        s.push(said(0, 640))
        for pcm, words in (
            (np.full(9, np.nan), "finite"),
            (np.zeros((9, 2)), "one-dimensional"),
            ("words", "samples are"),
        ):
            with pytest.raises(AudioError, match=words):
                s.push(pcm)
        with pytest.raises(AudioError, match="keeps its sample rate, 16000 Hz, got 24000 Hz"):
            s.push(np.zeros(9), sample_rate=24000)
        s.push(said(0, 640))
        s.flush()
        with pytest.raises(AudioError, match="sample rates from"):
            s.push(np.zeros(9), sample_rate=5)
        assert [type(s.get()) for _ in range(3)] == [Frame, Frame, SegmentEnd]


@pytest.mark.parametrize(("error", "kind"), [(BundleError("gone"), BundleError), (KeyError("k"), SessionError)])
def test_errors_of_the_computing_thread_reach_the_caller(error, kind):
    with Session(Broken(error)) as s:
        s.push(said(0, 640))
        for call in (s.get, s.flush, s.interrupt, lambda: s.push(said(0, 640)), lambda: list(s)):
            with pytest.raises(kind, match=r"gone|KeyError: 'k'"):
                call()

    async def play():
        async with AsyncSession(Broken(error)) as s:
            await s.push(said(0, 640))
            async for _ in s:
                pass

    with pytest.raises(kind):
        asyncio.run(play())


def test_a_closed_session_says_so_and_ends_its_readers():
    s = Session(Echo())
    reader = threading.Thread(target=lambda: list(s))
    reader.start()
    s.close()
    s.close()
    reader.join()
    for call in (lambda: s.push(said(0, 9)), s.flush, s.interrupt, s.get):
        with pytest.raises(SessionError, match="closed"):
            call()
    with pytest.raises(SessionError, match="not open"):
        asyncio.run(AsyncSession(Echo()).push(b""))


def test_200_sessions_leave_no_thread():
    before = threading.active_count()
    for _ in range(200):
        with Session(Echo()) as s:
            s.push(said(0, 2000))
    assert threading.active_count() == before

    async def play():
        for _ in range(50):
            async with AsyncSession(Echo()) as s:
                await s.push(said(0, 2000))

    asyncio.run(play())
    assert not [thread for thread in threading.enumerate() if thread.name == "ditto-session"]
