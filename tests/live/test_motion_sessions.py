"""Sessions of motion alone: what a session with pictures shows, undrawn."""

import asyncio
from functools import partial

import numpy as np
import pytest
from actors import PATIENT, Actor, HandClock, HastyClock, at_rest
from block_performer import BlockPerformer
from voices import speech

import ditto
from ditto.errors import BusyError
from ditto.frame import SegmentEnd
from ditto.live import Scheduler, Session, utterance_seed
from ditto.live.settings import Settings
from ditto.media.rates import FPS, SAMPLES_PER_FRAME
from ditto.motion.motion import MOTION_SIZE
from ditto.performer import Capability, Moved
from ditto.talking_head import TalkingHead


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite")


@pytest.fixture(scope="module")
def talk():
    return speech(1.6, 16000).astype(np.float32) * 0.1


def conversation(head, portrait, talk, output):
    """What a reader gets of a session that idles, listens, speaks, takes controls and is interrupted, step by step."""
    clock, items = HandClock(), []
    scheduler = Scheduler(head.performer, 1, clock)
    settings = Settings(output=output, seed=4, emotion={"happy": 0.5}, any_speed=True)

    def read(s, count):
        for _ in range(count):
            items.append(s.get(PATIENT))
            assert at_rest(scheduler)
            if items[-1].kind != "speech":
                clock.advance(1 / FPS + 1e-9)

    with Session(scheduler, portrait, partial(head.appearance, portrait), settings) as s:
        read(s, 3)
        assert at_rest(scheduler)  # the idle frame that is due has been drawn, before it hears anything
        s.listen(talk[: 8 * SAMPLES_PER_FRAME])
        read(s, 3)
        assert at_rest(scheduler)
        s.get(PATIENT)  # the idle frame that is due; the clock stands still from here
        with scheduler.lock:  # nobody takes any of it before all of it is there
            s.push(talk)
            s.flush()
        while items[-1].kind != "speech":
            items.append(s.get(PATIENT))
        assert at_rest(scheduler)
        s.control(gaze=(4.0, 0.0), head=(0.0, 8.0, 0.0), emotion={"sad": 0.7}, ramp_seconds=0.2)
        read(s, 12)
        assert items[-1].kind == "speech"
        played = s.interrupt()
        read(s, 5)
    return items, played


def place(frame):
    return frame.kind, frame.index, frame.pts_seconds, frame.epoch, frame.speech_index


def test_the_motions_are_those_of_a_session_with_pictures(head, portrait, talk):
    (drawn, drawn_ms), (moved, moved_ms) = (conversation(head, portrait, talk, output) for output in ("rgb24", "motion"))
    assert drawn_ms == moved_ms == 13 * 40
    assert [frame.kind for frame in drawn] == ["idle"] * 6 + ["speech"] * 13 + ["transition"] * 5
    for a, b in zip(drawn, moved, strict=True):
        assert place(a) == place(b)
        np.testing.assert_array_equal(a.motion.values, b.motion.values)
        np.testing.assert_array_equal(a.audio, b.audio)
        assert a.image.shape == portrait.picture.shape and b.image.shape == (0, 0, 3) and b.image.dtype == np.uint8
    turned = np.array([frame.motion.yaw_degrees for frame in moved])
    assert turned[6:9].max() < turned[14:19].min() - 4.0  # the control was drawn


def test_speech_is_the_motion_of_the_stream(head, portrait, talk):
    async def play():
        async with head.session(portrait, output="motion", idle=False, seed=3) as s:
            await s.push(talk)
            await s.flush()
            items = []
            async for item in s:
                if isinstance(item, SegmentEnd):
                    return items
                items.append(item)

    stream = head.stream(portrait, latency="low", seed=utterance_seed(3, 0))
    frames = stream.push(talk) + stream.flush()
    for a, b in zip(asyncio.run(play()), frames, strict=True):
        np.testing.assert_array_equal(a.motion.values, b.motion.values)
        assert a.motion.values.shape == (MOTION_SIZE,)


class Mover(Actor):
    """An actor with motion, which refuses to draw."""

    def draw(self, jobs):
        raise AssertionError("a session of motion draws nothing")

    def move(self, jobs):
        return [Moved(drawn.motion, drawn.face, drawn.transition) for drawn in super().draw(jobs)]


def test_nothing_is_drawn_not_even_to_measure_the_speed():
    actor = Mover(clock=HastyClock())
    with actor.blocking_session(output="motion") as s:
        assert actor.scheduler.motion_sessions == actor.scheduler.sessions == 1
        s.push(np.full(FPS * SAMPLES_PER_FRAME, 0.1, np.float32))
        s.flush()
        while not isinstance(s.get(PATIENT), SegmentEnd):
            pass
    assert actor.scheduler.motion_sessions == 0


def test_one_that_draws_nothing_says_nothing_about_the_speed_of_drawing():
    clock = HandClock()

    class Slow(Mover):
        def draw(self, jobs):
            clock.time += 10.0
            return Actor.draw(self, jobs)

    actor = Slow(clock=clock)
    actor.blocking_session(output="motion").close()
    with pytest.raises(ditto.errors.TooSlowError):
        actor.blocking_session()


def test_both_kinds_count_towards_the_most_sessions():
    actor = Mover(max_sessions=2)
    with actor.blocking_session(output="motion"), actor.blocking_session(any_speed=True, idle=False):
        assert (actor.scheduler.sessions, actor.scheduler.motion_sessions) == (2, 1)
        for output in ("motion", "rgb24"):
            with pytest.raises(BusyError, match="2 sessions at once"):
                actor.blocking_session(output=output)


def test_a_bundle_without_motion_refuses_before_anything_opens(portrait):
    head = TalkingHead(None, BlockPerformer())
    assert Capability.MOTION not in head.performer.supports
    for opened in (head.session, head.blocking_session):
        with pytest.raises(ValueError, match="does not support motion; leave it out, or use another bundle"):
            opened(portrait, output="motion")
    assert head.scheduler.sessions == 0


def test_the_tracks_of_webrtc_ask_for_pictures():
    pytest.importorskip("aiortc", reason="pip install 'ditto-talking-head[serve]'")
    from ditto.live.adapters.aiortc import AUDIO_RATE, SessionTracks

    async def play():
        async with Mover(clock=HastyClock()).session(output="motion", audio_rate=AUDIO_RATE) as s:
            tracks = SessionTracks(s)
            try:
                await tracks.video.recv()
            finally:
                await tracks.stop()

    with pytest.raises(ValueError, match=r"expected pictures, got a session of output .motion.; open it"):
        asyncio.run(play())
