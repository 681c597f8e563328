"""Pieces of the server by themselves: the playout clock, the tracks, the gate of the microphone."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import HEIGHT, REST, WIDTH, StandInHead
from voices import speech

from ditto.errors import SessionError
from ditto.live import Frame, SegmentEnd
from ditto.live.playout import Played, Playout
from ditto.live.server.microphone import VoiceGate

FRAME = 0.04


def frame(index, kind="idle", epoch=0, rate=16000):
    image = np.zeros((2, 2, 3), np.uint8)
    return Frame(image, index, index / 25, np.zeros(rate // 25, np.float32), REST, kind, epoch)


class VirtualTime(asyncio.SelectorEventLoop):
    """A loop in which waiting takes no time and sleeping is exact."""

    now = 0.0

    def time(self):
        return self.now

    def _run_once(self):
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()


class Scripted:
    """Gives items at set times; `taken` are the times at which they were asked for."""

    def __init__(self, script):
        self.script, self.taken = list(script), []

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.script:
            raise StopAsyncIteration
        when, item = self.script.pop(0)
        now = asyncio.get_running_loop().time
        self.taken.append(now())
        await asyncio.sleep(max(0.0, when - now()))
        if isinstance(item, Exception):
            raise item
        return item


def played(script, interrupt=None):
    """(time, what) of everything a playout of the script gives; `interrupt` is a time and an epoch."""
    dropped = []

    async def run():
        loop, playout = asyncio.get_running_loop(), Playout(Scripted(script), buffer_frames=2)
        if interrupt is not None:
            loop.call_at(interrupt[0], lambda: dropped.append(playout.interrupted(interrupt[1])))
        given = [(round(loop.time(), 6), item) async for item in playout]
        await playout.close()
        return given

    loop = VirtualTime()
    try:
        return loop.run_until_complete(run()), dropped
    finally:
        loop.close()


def test_frames_that_come_in_pairs_are_played_one_a_tick():
    given, _ = played([(0.08 * (index // 2), frame(index, "speech")) for index in range(12)])
    assert [at for at, _ in given] == pytest.approx([0.08 + FRAME * index for index in range(12)])
    assert [item.tick for _, item in given] == list(range(12))
    assert [item.waited_seconds for _, item in given] == pytest.approx([0.08, 0.12] * 6)


def test_a_late_frame_moves_all_that_follow_and_idle_frames_win_the_time_back():
    speech = [(FRAME * index + (0.15 if index >= 5 else 0.0), frame(index, "speech")) for index in range(10)]
    idle = [(FRAME * index + 0.001, frame(index)) for index in range(10, 30)]
    given, _ = played(speech + idle)
    assert [item.frame.index for _, item in given[:10]] == list(range(10))  # no speech is left out
    ticks = [item.tick for _, item in given]
    assert ticks[:10] == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]  # 0.08 of the 0.15 s were kept back; two ticks are the rest
    assert ticks[10:] == list(range(12, 12 + len(ticks) - 10))
    last_at, last = given[-1]
    assert last_at == pytest.approx(FRAME * last.frame.index + 0.08)  # as much kept back as at the beginning
    assert len(given) == 28  # for two idle frames less


def test_playout_reads_no_more_than_its_buffer():
    async def run():
        source = Scripted([(0.0, frame(index, "speech")) for index in range(50)])
        playout = Playout(source, buffer_frames=2)
        await playout.__anext__()
        await asyncio.sleep(0)
        await playout.close()
        return len(source.taken)

    loop = VirtualTime()
    assert loop.run_until_complete(run()) <= 4
    loop.close()


def test_an_error_of_the_session_comes_after_its_frames():
    with pytest.raises(SessionError, match="broken"):
        played([(0.0, frame(0)), (0.01, SessionError("broken"))])


def test_an_interrupt_drops_the_buffered_speech_and_gives_what_follows_at_once():
    script = [(0.0, frame(index, "speech", epoch=0)) for index in range(4)]
    script += [(0.13, frame(4, "transition", epoch=1)), (0.14, frame(5, epoch=1)), (0.16, frame(6, epoch=1))]
    given, dropped = played(script, interrupt=(0.125, 1))
    assert [(at, item.tick, item.frame.index, item.frame.kind) for at, item in given] == [
        (0.08, 0, 0, "speech"), (0.12, 1, 1, "speech"), (0.13, 2, 4, "transition"), (0.2, 3, 5, "idle"),
        (0.24, 4, 6, "idle"),
    ]  # fmt: skip
    assert dropped == [2]  # so many of the frames that were read were never shown
    assert given[2][1].waited_seconds == 0.0 and not given[2][1].late


def test_speech_after_an_interrupt_waits_for_its_tick():
    script = [(0.0, frame(index, "speech", epoch=0)) for index in range(4)]
    script += [(0.13, frame(4, "speech", epoch=1)), (0.135, frame(5, epoch=1))]
    given, _ = played(script, interrupt=(0.125, 1))
    assert [(at, item.frame.index) for at, item in given[2:]] == [(0.16, 4), (0.2, 5)]


def test_an_interrupt_without_buffered_speech_moves_nothing():
    given, dropped = played([(0.0, frame(index)) for index in range(5)], interrupt=(0.09, 1))
    assert dropped == [0] and [at for at, _ in given] == pytest.approx([0.08 + FRAME * index for index in range(len(given))])


def test_the_end_of_a_segment_keeps_its_place():
    script = [(0.0, frame(0, "speech")), (0.0, SegmentEnd(0, 0.04)), (0.04, frame(1))]
    assert [type(item).__name__ for _, item in played(script)[0]] == ["Played", "SegmentEnd", "Played"]


def test_tracks_share_one_clock_and_carry_the_session_s_sound():
    pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
    from aiortc.mediastreams import MediaStreamError

    from ditto.live.adapters.aiortc import SessionTracks

    async def run():
        head = StandInHead()
        session = head.session(head.portrait, latency="low", output="yuv420p", audio_rate=48000, idle=True, seed=0,
                               emotion=None, still=False)  # fmt: skip
        seen = []
        async with session:
            tracks = SessionTracks(session, delivered=seen.append)
            await session.push(np.zeros(8000, np.int16), 16000)
            await session.flush()

            async def take(track, count):
                return [await track.recv() for _ in range(count)]

            pictures, packets = await asyncio.gather(take(tracks.video, 16), take(tracks.audio, 32))
            await tracks.stop()
            await tracks.stop()
            for track in (tracks.video, tracks.audio):
                with pytest.raises(MediaStreamError):
                    while True:
                        await track.recv()
                assert track.readyState == "ended"
        return pictures, packets, seen

    pictures, packets, seen = asyncio.run(run())
    assert all((picture.width, picture.height, picture.format.name) == (WIDTH, HEIGHT, "yuv420p") for picture in pictures)
    assert all(packet.samples == 960 and packet.sample_rate == 48000 for packet in packets)
    spoken = [item for item in seen if isinstance(item, Played) and item.frame.kind == "speech"]
    assert len(spoken) == 13
    assert [item for item in seen if isinstance(item, SegmentEnd)] == [SegmentEnd(0, 0.52)]
    bright = {picture.pts / 90000 for picture in pictures if picture.to_ndarray()[0, 0] == 200}
    loud = {packet.pts / 48000 for packet in packets if packet.to_ndarray().max() > 0}
    assert {round(at, 3) for at in bright} == {round(at, 3) for at in loud if round(at * 50) % 2 == 0}
    assert {round(at + 0.02, 3) for at in bright} == {round(at, 3) for at in loud if round(at * 50) % 2 == 1}


@pytest.mark.parametrize("latency", StandInHead.delays)
def test_a_client_gets_the_delays_of_the_head_that_serves_it(latency):
    from ditto.live.server.conversation import Conversation

    async def run():
        loop, told = asyncio.get_running_loop(), []
        head = StandInHead()
        session = head.session(head.portrait, latency=latency, output="bgr24", audio_rate=16000, idle=False, seed=0,
                               emotion=None, still=False)  # fmt: skip
        conversation = Conversation(session, told.append)

        async def read():
            async for _ in session:
                pass

        reading = asyncio.ensure_future(read())
        for number in range(100):  # four seconds at the pace of speech; of which the last frame of the delay is enough
            await conversation.speak(np.ones(640, np.int16), 16000)
            await asyncio.sleep(FRAME)
            if round((number + 1) * FRAME, 2) == head.delays[latency]:
                begun = loop.time()
        await asyncio.sleep(1.0)
        conversation.delivered(session.frame("speech", 0, 0))
        computed = loop.time() - begun
        await conversation.close()
        await reading
        return told, computed

    loop = VirtualTime()
    try:
        (told, *_), computed = loop.run_until_complete(run())
    finally:
        loop.close()
    assert told["algorithmic_ms"] == round(1000 * StandInHead.delays[latency])
    assert told["compute_ms"] == pytest.approx(1000 * computed, abs=45)  # to the piece of 40 ms


def test_tracks_refuse_another_rate():
    pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
    from ditto.live.adapters.aiortc import SessionTracks

    async def run():
        head = StandInHead()
        async with head.session(head.portrait, latency="low", output="rgb24", audio_rate=16000, idle=True, seed=0,
                                emotion=None, still=False) as session:  # fmt: skip
            tracks = SessionTracks(session, pixels="rgb24")
            with pytest.raises(ValueError, match="audio_rate=48000"):
                await tracks.audio.recv()
            await tracks.stop()

    asyncio.run(run())


def voice_and_pauses(rate=16000, seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.001, 5 * rate).astype(np.float32)
    noise[rate : 2 * rate] += 0.1 * speech(1, rate)
    noise[int(3.5 * rate) : 4 * rate] += 0.05 * speech(0.5, rate)
    return noise


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_the_gate_finds_utterances_with_a_little_before_them(rate):
    gate = VoiceGate(rate)
    pieces = gate.push(voice_and_pauses(rate)) + gate.close()
    lengths, current = [], 0
    for piece in pieces:
        if piece is None:
            lengths.append(current / rate)
            current = 0
        else:
            current += len(piece)
    assert lengths == pytest.approx([1.0 + 0.1 + 0.7, 0.5 + 0.1 + 0.7], abs=0.15)
    assert current == 0


@given(cuts=st.lists(st.integers(1, 5000), min_size=1, max_size=40))
@settings(max_examples=20, deadline=None)
def test_any_chunking_gives_the_gate_the_same_utterances(cuts):
    sound = voice_and_pauses()
    whole, cut = VoiceGate(16000), VoiceGate(16000)
    pieces, start, turn = [], 0, 0
    while start < sound.size:
        pieces += cut.push(sound[start : start + cuts[turn % len(cuts)]])
        start, turn = start + cuts[turn % len(cuts)], turn + 1
    expected = whole.push(sound)
    assert [None if piece is None else piece.tobytes() for piece in pieces] == [
        None if piece is None else piece.tobytes() for piece in expected
    ]


def test_silence_and_steady_noise_open_nothing():
    for level in (0.0, 0.002, 0.05, 0.3):
        noise = np.random.default_rng(1).normal(0, level + 1e-9, 16000 * 10).astype(np.float32)
        assert VoiceGate(16000).push(noise) == [], level
