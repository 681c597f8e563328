"""Sessions: the frames of a stream, in order, none of an interrupted utterance, and errors that reach the caller."""

import asyncio
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from actors import (
    HOP,
    PATIENT,
    PORTRAIT,
    TRANSITION_FRAMES,
    Actor,
    HandClock,
    HastyClock,
    at_rest,
    refusals,
    until,
    worker_threads,
)
from block_performer import BlockPerformer
from hypothesis import given, settings
from hypothesis.strategies import booleans, integers, lists, sampled_from, tuples

import ditto
from ditto.controls import Controls, apply
from ditto.errors import AudioError, BundleError, BusyError, SessionError, TooSlowError
from ditto.live import AsyncSession, Frame, Scheduler, SegmentEnd, Session, utterance_seed
from ditto.live.intake import MAX_QUEUED_SAMPLES
from ditto.live.pictures import MAX_QUEUED_PICTURES
from ditto.live.scheduler import MAX_BATCH
from ditto.live.settings import Settings
from ditto.live.state import MAX_QUEUED_SHOTS
from ditto.media.audio import Resampler, read_audio
from ditto.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.motion.inertialization import SLOW_FRAMES

EXAMPLES = Path(__file__).parents[2] / "examples"
SECOND = FPS * SAMPLES_PER_FRAME


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite", max_sessions=4)


@pytest.fixture(scope="module")
def speech():
    return read_audio(EXAMPLES / "speech.flac")[8000:26000]


def said(number, size):
    """Samples that tell which utterance they are of."""
    return np.full(size, (number + 1) / 1024, np.float32)


def speech_of(items, epoch):
    return [item for item in items if isinstance(item, Frame) and item.kind == "speech" and item.epoch == epoch]


def read_until_end(s, epoch):
    items = []
    while not items or items[-1] != SegmentEnd(epoch, items[-1].pts_seconds):
        items.append(s.get())
    return items


@pytest.mark.parametrize("audio_rate", [16000, 24000, 48000])
def test_frames_of_a_block_performer_come_in_the_order_in_which_it_made_them(audio_rate, monkeypatch):
    """In a pause too, where the resampler of the sound holds some back."""
    performer, clock, made, drawn, kinds = BlockPerformer(), HandClock(), [], [], []
    advance, idle, draw = performer.advance, performer.idle, performer.draw

    def recorded(call):
        def calling(jobs):
            results = call(jobs)
            made.extend(shot for result in results for shot in result.shots)
            return results

        return calling

    monkeypatch.setattr(performer, "advance", recorded(advance))
    monkeypatch.setattr(performer, "idle", recorded(idle))
    monkeypatch.setattr(performer, "draw", lambda jobs: drawn.extend(job.shot for job in jobs) or draw(jobs))
    scheduler = Scheduler(performer, 1, clock)
    options = Settings(audio_rate=audio_rate, any_speed=True)
    with Session(scheduler, PORTRAIT, partial(performer.prepare, PORTRAIT), options) as s:
        for tick in range(140):
            if tick in (2, 90):
                s.push(np.full(2 * performer.hop_samples, 0.1, np.float32))
            while at_rest(scheduler) and (item := s.get(0.0)) is not None:
                kinds.append(item.kind[0])
            clock.advance(1 / FPS + 1e-6)
    assert kinds.count("s") >= 32 and "si" in "".join(kinds)
    assert all(one is other for one, other in zip(drawn, made))  # noqa: B905 - some were made and not drawn


OPERATIONS = tuples(sampled_from(["push", "flush", "interrupt", "control", "read", "breathe"]), integers(1, 4000))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(operations=lists(OPERATIONS, max_size=24), idle=booleans(), blocks=booleans())
def test_nothing_of_an_interrupted_utterance_appears(operations, idle, blocks):
    performer = BlockPerformer() if blocks else Actor()

    async def play():
        scheduler = Scheduler(performer, 1)
        prepare = partial(performer.prepare, PORTRAIT)
        async with AsyncSession(scheduler, PORTRAIT, prepare, Settings(idle=idle)) as s:
            number, fresh, read, last, shown = 0, 0, 0, -1, 0
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
                elif operation == "control" and blocks:
                    with pytest.raises(ValueError, match="does not support controls"):
                        s.control(gaze=(size / 1000, 0.0))
                elif operation == "control":
                    s.control(gaze=(size / 1000, 0.0))
                elif operation == "breathe":
                    await asyncio.sleep(0.0005 * (size % 3))
                else:
                    try:
                        item = await asyncio.wait_for(anext(s), 0.0005)
                    except asyncio.TimeoutError:
                        continue
                    assert item.epoch >= fresh
                    if isinstance(item, SegmentEnd):
                        assert item.pts_seconds == read / FPS
                        last, read = -1, 0
                        continue
                    assert (item.index, item.pts_seconds) == (shown, shown / FPS)
                    shown += 1
                    if item.kind == "speech":
                        assert round(float(item.audio[0]) * 1024) == item.epoch + 1
                        assert item.speech_index == last + 1
                        last, read = item.speech_index, read + 1
                    else:
                        assert item.speech_index is None and not item.audio.any()
                        rest = blocks and item.kind == "transition"  # of a block that was interrupted
                        assert idle or rest

    asyncio.run(play())


def test_speech_is_that_of_the_stream_at_any_rate_and_each_utterance_ends(head, portrait, speech):
    other = Resampler(16000, 24000)
    at_24000 = np.concatenate([other.push(speech), other.flush()])
    back = Resampler(24000, 16000)
    expected = {16000: speech, 24000: np.concatenate([back.push(at_24000), back.flush()])}

    async def play(utterances, **options):
        items = []
        async with head.session(portrait, latency="low", seed=3, **options) as s:
            assert s.delay_seconds == 0.16
            for rate, samples in utterances:
                for start in range(0, len(samples), 977):
                    await s.push(samples[start : start + 977], sample_rate=rate)
                await s.flush()
            async for item in s:
                items.append(item)
                if isinstance(item, SegmentEnd) and item.epoch == len(utterances) - 1:
                    assert s.compute_seconds > 0.0
                    return items

    plain = asyncio.run(play([(16000, speech), (24000, at_24000)], idle=False))
    joined = asyncio.run(play([(16000, speech), (24000, at_24000)]))
    with head.blocking_session(portrait, latency="low", seed=3, idle=False) as s:
        s.push(speech)
        s.flush()
        blocking = read_until_end(s, 0)
    for found, epoch, samples, joined_until in (
        (plain, 0, expected[16000], 0),
        (plain, 1, expected[24000], 0),
        (blocking, 0, expected[16000], 0),
        (joined, 1, expected[24000], SLOW_FRAMES),
    ):
        stream = head.stream(portrait, latency="low", seed=utterance_seed(3, epoch))
        frames = stream.push(samples) + stream.flush()
        mine = speech_of(found, epoch)
        assert SegmentEnd(epoch, len(frames) / FPS) in found
        assert [frame.speech_index for frame in mine] == list(range(len(frames)))
        for a, b in zip(mine, frames, strict=True):
            np.testing.assert_array_equal(a.audio, b.audio)
            if a.speech_index >= joined_until:
                np.testing.assert_array_equal(a.image, b.image)
                np.testing.assert_array_equal(a.motion.values, b.motion.values)
    assert [item.index for item in joined if isinstance(item, Frame)] == list(range(len(joined) - 2))


def test_two_sessions_at_once_give_the_frames_of_one(head, portrait, speech):
    def talk(found, seed):
        with head.blocking_session(portrait, latency="low", seed=seed, idle=False) as s:
            for start in range(0, len(speech), 3200):
                s.push(speech[start : start + 3200])
            s.flush()
            found.extend(frame.image for frame in speech_of(read_until_end(s, 0), 0))

    alone, first, second, other = [], [], [], []
    talk(alone, 5)
    threads = [threading.Thread(target=talk, args=job) for job in ((first, 5), (second, 5), (other, 6))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(first, alone)
    np.testing.assert_array_equal(second, alone)
    assert len(other) == len(alone) and any((a != b).any() for a, b in zip(other, alone, strict=True))


def test_hops_of_different_sessions_are_batched():
    actor = Actor(pause_seconds=0.01)
    sessions = [actor.blocking_session(idle=False) for _ in range(4)]
    with actor.scheduler.lock:  # nobody takes any of it before all of it is there
        for s in sessions:
            s.push(said(0, SECOND))
            s.flush()
    for s in sessions:
        assert len(speech_of(read_until_end(s, 0), 0)) == FPS
        s.close()
    assert 1 < actor.largest_batch <= MAX_BATCH


def test_an_error_of_one_session_stays_with_it():
    actor = Actor(error=BundleError("gone"), bad=np.float32(8 / 1024), pause_seconds=0.01)
    with actor.blocking_session(idle=False) as good, actor.blocking_session(idle=False) as bad:
        bad.push(said(7, SECOND))
        good.push(said(0, SECOND))
        good.flush()
        assert len(speech_of(read_until_end(good, 0), 0)) == FPS
        with pytest.raises(BundleError, match="gone"):
            while True:
                bad.get()


def test_frames_carry_the_pushed_sound_at_the_requested_rate():
    tone = np.sin(np.arange(48000) * (2.0 * np.pi * 9000.0 / 48000.0)).astype(np.float32)  # beyond 16 kHz's reach
    with Actor().blocking_session(audio_rate=48000, idle=False) as s:
        for start in range(0, 48000, 1111):
            s.push(tone[start : start + 1111], sample_rate=48000)
        s.flush()
        frames = speech_of(read_until_end(s, 0), 0)
    assert {frame.audio.shape for frame in frames} == {(1920,)}
    np.testing.assert_array_equal(np.concatenate([frame.audio for frame in frames]), tone)
    with Actor().blocking_session(audio_rate=24000, idle=False) as s:
        s.push(tone, sample_rate=48000)
        s.flush()
        sound = np.concatenate([frame.audio for frame in speech_of(read_until_end(s, 0), 0)])
    assert sound.shape == (24000,) and np.abs(sound[100:-100] - tone[::2][100:-100]).max() < 0.01


@pytest.mark.parametrize(
    ("output", "shape"), [("rgb24", (2, 2, 3)), ("bgr24", (2, 2, 3)), ("rgba", (2, 2, 4)), ("yuv420p", (3, 2))]
)
def test_pictures_have_the_requested_format(output, shape):
    with Actor().blocking_session(output=output) as s:
        frame = s.get()
    assert (frame.image.shape, frame.image.dtype, frame.kind) == (shape, np.uint8, "idle")


def test_options_are_checked_before_anything_opens():
    actor = Actor()
    for options, error, words in (
        ({"latency": "none"}, ValueError, "expected a latency of quality, balanced, low, got 'none'"),
        ({"output": "jpeg"}, ValueError, "expected an output of rgb24"),
        ({"audio_rate": 44101}, ValueError, "multiple of 25"),
        ({"audio_rate": 1e4}, TypeError, "whole number"),
        ({"seed": -1}, ValueError, "seed"),
        ({"emotion": {"hapy": 1.0}}, ValueError, "hapy"),
        ({"style": "wild"}, ValueError, "expected a style of calm, natural, lively"),
        ({"style": None}, TypeError, "expected a style of .*got NoneType"),
        ({"colour": 1}, TypeError, "colour"),
    ):
        for opened in (actor.blocking_session, actor.session):
            with pytest.raises(error, match=words):
                opened(**options)
    assert actor.scheduler.sessions == 0


def test_idle_frames_come_at_the_pace_of_the_clock_and_speech_as_soon_as_it_is_there():
    clock = HandClock()
    actor = Actor(clock=clock)
    with actor.blocking_session() as s:
        for _ in range(10):
            assert s.get(PATIENT).kind == "idle"
            assert at_rest(actor.scheduler) and s.get(0.0) is None
            clock.advance(0.95 / FPS)
            assert at_rest(actor.scheduler) and s.get(0.0) is None
            clock.advance(0.05 / FPS + 1e-9)
        assert s.get(PATIENT).kind == "idle"
        s.push(said(0, 10 * SECOND))
        s.flush()
        items = read_until_end(s, 0)  # while the clock stands still
        assert len(speech_of(items, 0)) == 10 * FPS
        assert items[-1] == SegmentEnd(0, 10.0)


def test_after_speech_the_face_comes_to_rest_and_idle_frames_follow():
    with Actor(clock=HastyClock()).blocking_session() as s:
        s.push(said(0, SECOND))
        s.flush()
        read_until_end(s, 0)
        after = [s.get() for _ in range(2 * TRANSITION_FRAMES)]
        kinds = [item.kind for item in after]
        assert kinds[0] == "transition" and kinds[-1] == "idle" and kinds == sorted(kinds, reverse=True)
        assert kinds.count("transition") == TRANSITION_FRAMES
        assert {item.epoch for item in after} == {1}


def test_while_speech_is_late_idle_frames_come_and_the_utterance_continues():
    with Actor(clock=HastyClock()).blocking_session() as s:
        s.push(said(0, SECOND))
        items = [s.get() for _ in range(2 * FPS)]
        kinds = [item.kind for item in items]
        assert kinds.index("transition") > kinds.index("speech")
        s.push(said(0, SECOND))
        s.flush()
        items += read_until_end(s, 0)
        assert [frame.speech_index for frame in speech_of(items, 0)] == list(range(2 * FPS))


def test_an_interrupt_begins_the_transition_to_rest_at_once():
    with Actor(clock=HandClock()).blocking_session() as s:
        s.push(said(0, 9 * SECOND))
        while s.get().kind != "speech":
            pass
        for _ in range(4 * FPS):
            s.get()
        assert s.interrupt() == 4 * 1000 + 40
        item = s.get(PATIENT)  # the clock has not moved: four seconds are ahead of it
        assert (item.kind, item.epoch) == ("transition", 1)


def test_a_control_shows_from_the_next_frame_on(head, portrait, speech):
    with head.blocking_session(portrait, latency="low", idle=False) as s:
        s.push(speech)
        s.flush()
        plain = read_until_end(s, 0)
        s.push(speech)
        s.flush()
        before = [s.get() for _ in range(5)]
        assert at_rest(head.scheduler)  # frames are drawn ahead
        assert s.unread > 5
        s.control(head=(0.0, 10.0, 0.0), ramp_seconds=0.2)
        after = read_until_end(s, 1)
        with pytest.raises(ValueError, match=r"head|yaw"):
            s.control(head=(0.0, 1000.0, 0.0))
    stream = head.stream(portrait, latency="low", seed=utterance_seed(0, 1))
    own = [frame.motion for frame in stream.push(speech) + stream.flush()]
    mine = [frame.motion for frame in speech_of(before + after, 1)]
    turned = [float(a.yaw_degrees - b.yaw_degrees) for a, b in zip(mine, own, strict=True)]
    assert len(plain) == len(own) + 1
    assert np.abs(turned[:6]).max() == 0.0  # the sixth was drawn already
    assert 0.0 < turned[6] < turned[7] < turned[8] < 9.9
    for a, b in zip(mine[11:], own[11:], strict=True):
        np.testing.assert_allclose(a, apply(b, Controls(yaw_degrees=10.0), portrait), atol=1e-4)


def test_a_reader_that_stalls_makes_push_wait_and_an_interrupt_frees_it():
    actor = Actor()
    with refusals(actor.scheduler) as full, actor.blocking_session(idle=False) as s:
        s.push(said(0, 40 * SECOND))
        flood = threading.Thread(target=s.push, args=(said(0, 20 * SECOND),))
        flood.start()
        assert full.wait(PATIENT) and flood.is_alive()  # thirty seconds wait
        assert at_rest(actor.scheduler)
        assert s.unread == MAX_QUEUED_PICTURES
        heard = 40 - s.waiting_seconds
        assert MAX_QUEUED_PICTURES / FPS < heard <= (MAX_QUEUED_PICTURES + MAX_QUEUED_SHOTS) / FPS + 2 * HOP / SAMPLE_RATE
        assert s.waiting_seconds >= MAX_QUEUED_SAMPLES / SAMPLE_RATE
        assert [s.get().speech_index for _ in range(30)] == list(range(30))
        assert s.interrupt() == 30 * 40
        flood.join()
        assert s.waiting_seconds == 0.0  # the rest of the flood is not even taken
        assert at_rest(actor.scheduler) and s.get(0.0) is None


def test_a_reader_that_never_reads_finds_one_idle_frame():
    clock = HandClock()
    actor = Actor(clock=clock)
    with actor.blocking_session() as s:
        assert until(lambda: s.unread)
        clock.advance(10.0)
        assert at_rest(actor.scheduler) and s.unread == 1


def test_an_interrupt_while_idle_or_twice_does_no_harm():
    with Actor().blocking_session(idle=False) as s:
        assert (s.interrupt(), s.interrupt()) == (0, 0)
        s.push(said(2, 640))
        s.flush()
        assert s.get().audio[0] == said(2, 1)[0]
        assert s.get() == SegmentEnd(2, 0.04)
        assert s.interrupt() == 0  # that utterance was over


def test_flush_without_speech_ends_no_utterance():
    actor = Actor()
    with actor.blocking_session(idle=False) as s:
        s.push(np.zeros(0))
        s.push(b"")
        s.flush()
        assert at_rest(actor.scheduler) and (s.epoch, s.get(0.0)) == (0, None)


def test_bytes_are_16_bit_samples_and_their_number_is_even():
    with Actor().blocking_session(idle=False) as s:
        for call in (s.push, s.listen):
            with pytest.raises(AudioError, match="even number of bytes, got 3"):
                call(b"abc")
        s.push(np.full(640, 8192, "<i2").tobytes())
        s.flush()
        assert s.get().audio[0] == 0.25


def test_invalid_samples_are_refused_and_earlier_ones_kept():
    with Actor().blocking_session(idle=False) as s:
        s.push(said(0, 640))
        for pcm, words in (
            (np.full(9, np.nan), "finite"),
            (np.zeros((9, 2)), "one-dimensional"),
            ("words", "expected one-dimensional samples"),
        ):
            for call in (s.push, s.listen):
                with pytest.raises(AudioError, match=words):
                    call(pcm)
        with pytest.raises(AudioError, match="expected 16000 Hz to the end of the utterance, got 24000 Hz"):
            s.push(np.zeros(9), sample_rate=24000)
        s.push(said(0, 640))
        s.flush()
        with pytest.raises(AudioError, match="expected a sample rate from"):
            s.push(np.zeros(9), sample_rate=5)
        assert [type(s.get()) for _ in range(3)] == [Frame, Frame, SegmentEnd]


@pytest.mark.parametrize(("error", "kind"), [(BundleError("gone"), BundleError), (KeyError("k"), SessionError)])
def test_errors_of_the_computing_threads_reach_the_caller(error, kind):
    with Actor(error).blocking_session(idle=False) as s:
        s.push(said(0, 1280))
        with pytest.raises(kind, match=r"gone|KeyError: 'k'"):
            s.get()
        for call in (s.get, s.flush, s.interrupt, s.control, lambda: s.push(said(0, 640)), lambda: list(s)):
            with pytest.raises(kind, match=r"gone|KeyError: 'k'"):
                call()

    async def play():
        async with Actor(error).session() as s:
            await s.push(said(0, 1280))
            async for _ in s:
                pass

    with pytest.raises(kind):
        asyncio.run(play())


def test_a_closed_session_raises_and_ends_its_readers():
    s = Actor().blocking_session()
    reader = threading.Thread(target=lambda: list(s))
    reader.start()
    s.close()
    s.close()
    reader.join()
    for call in (lambda: s.push(said(0, 9)), s.flush, s.interrupt, s.get, s.control, lambda: s.listen(said(0, 9))):
        with pytest.raises(SessionError, match="closed"):
            call()
    with pytest.raises(SessionError, match="that was not entered"):
        asyncio.run(Actor().session().push(b""))


@pytest.mark.parametrize(("frames_a_second", "said"), [(0.03, "0.03"), (4.9, "4.9")])
def test_a_head_that_is_too_slow_for_a_conversation_is_refused_before_it_opens(frames_a_second, said):
    clock = HandClock()

    class Slow(Actor):
        drawn = 0

        def draw(self, jobs):
            self.drawn += len(jobs)
            clock.time += 1.0 / frames_a_second
            return super().draw(jobs)

    actor = Slow(clock=clock)
    for _ in range(2):
        with pytest.raises(TooSlowError, match=f"expected at least 5 frames a second .*measured {said}; use another"):
            actor.blocking_session()
    with pytest.raises(TooSlowError):
        asyncio.run(actor.session().__aenter__())
    assert (actor.scheduler.sessions, worker_threads()) == (0, [])
    assert actor.drawn == 3 * (2 if frames_a_second < 1.0 else 3)
    with actor.blocking_session(any_speed=True) as s:
        assert s.get(PATIENT).kind == "idle"


def test_a_first_frame_that_takes_long_is_no_reason_to_refuse_and_speed_is_measured_once():
    clock, drawn = HandClock(), []

    class Warming(Actor):
        def draw(self, jobs):
            drawn.append(clock.time)
            clock.time += 30.0 if len(drawn) == 1 else 0.02
            return super().draw(jobs)

    actor = Warming(clock=clock)
    actor.blocking_session(idle=False).close()
    assert len(drawn) == 2
    actor.blocking_session(idle=False).close()
    assert len(drawn) == 2


def test_one_session_too_many_is_refused_until_another_closes():
    actor = Actor(max_sessions=2)
    first, second = actor.blocking_session(), actor.blocking_session()
    with pytest.raises(BusyError, match="2 sessions at once"):
        actor.blocking_session()
    first.close()
    actor.blocking_session().close()
    second.close()
    with pytest.raises(ValueError, match="1 or more"):
        Actor(max_sessions=0)


def test_200_sessions_leave_no_thread():
    actor = Actor()
    for _ in range(200):
        with actor.blocking_session() as s:
            s.push(said(0, 2000))
    assert worker_threads() == []

    async def play():
        for _ in range(50):
            async with actor.session() as s:
                await s.push(said(0, 2000))

    asyncio.run(play())
    assert worker_threads() == []


def test_a_session_cancelled_while_it_opens_is_closed():
    actor = Actor()

    async def play():
        opening = asyncio.ensure_future(actor.session().__aenter__())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        while actor.scheduler.sessions:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(play(), PATIENT))
