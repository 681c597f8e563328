"""The LiveKit adapter against the real package: what comes in which order, and what a real AvatarRunner makes of it."""

import asyncio
import json
import subprocess
import sys
import threading
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

rtc = pytest.importorskip("livekit.rtc", reason="livekit-agents is not installed")
avatar = pytest.importorskip("livekit.agents.voice.avatar", reason="livekit-agents is not installed")

from actors import PATIENT  # noqa: E402
from wav import write_wav  # noqa: E402

import ditto  # noqa: E402
from ditto.errors import AudioError, SessionError  # noqa: E402
from ditto.live.adapters.livekit import DittoVideoGenerator, worker_load  # noqa: E402
from ditto.media.audio import Resampler, read_audio  # noqa: E402

EXAMPLES = Path(__file__).parents[3] / "examples"
END = avatar.AudioSegmentEnd


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite", max_sessions=1)


@pytest.fixture(scope="module")
def speech():
    """(N,) int16 at 16 kHz: most of a second."""
    return (read_audio(EXAMPLES / "speech.flac")[8000:22000] * 32767).astype(np.int16)


def sound(samples, rate=16000, channels=1):
    return rtc.AudioFrame(samples.tobytes(), rate, channels, samples.size // channels)


async def say(generator, samples, rate=16000, channels=1, size=320):
    """One segment in frames of `size` samples of every channel."""
    for start in range(0, samples.size, size * channels):
        await generator.push_audio(sound(samples[start : start + size * channels], rate, channels))
    await generator.push_audio(END())


async def until_end(items, ends=1):
    """What comes up to the end of a segment."""
    taken = []
    while ends:
        taken.append(await asyncio.wait_for(anext(items), PATIENT))
        ends -= isinstance(taken[-1], END)
    return taken


def letters(items):
    """p(icture), s(ound), E(nd)."""
    return "".join(
        "p" if isinstance(i, rtc.VideoFrame) else "s" if isinstance(i, rtc.AudioFrame) else "E" for i in items
    )


def heard(items):
    """All sound as (N,) int16."""
    return np.concatenate([np.frombuffer(i.data, np.int16) for i in items if isinstance(i, rtc.AudioFrame)])


def test_each_picture_comes_before_its_sound_and_idle_frames_follow(head, portrait, speech):
    async def play():
        async with DittoVideoGenerator(head, portrait, audio_rate=16000, seed=4) as generator:
            items = aiter(generator)
            before = [await anext(items) for _ in range(3)]
            await say(generator, speech)
            spoken = await until_end(items)
            after = [await anext(items) for _ in range(3)]
            return generator.options, before, spoken, after

    options, before, spoken, after = asyncio.run(play())
    count = -(-speech.size // 640)
    assert (
        letters(before) == letters(after) == "ppp"
    )  # no sound: the runner takes the first for the beginning of speech
    assert letters(spoken).lstrip("p") == "s" + "ps" * (count - 1) + "E"
    assert options == avatar.AvatarOptions(256, 256, 25, 16000, 1)
    pictures = [item for item in (*before, *spoken, *after) if isinstance(item, rtc.VideoFrame)]
    assert {(p.width, p.height, p.type, len(p.data)) for p in pictures} == {
        (256, 256, rtc.VideoBufferType.I420, 256 * 384)
    }
    padded = np.pad(speech, (0, count * 640 - speech.size))
    np.testing.assert_array_equal(heard(spoken), padded)
    pts = [item.userdata["pts_seconds"] for item in spoken if isinstance(item, rtc.AudioFrame)]
    np.testing.assert_allclose(np.diff(pts), 0.04, atol=1e-9)


def test_pictures_are_those_of_a_stream_that_gets_the_same_speech(head, portrait, speech):
    async def play():
        async with DittoVideoGenerator(head, portrait, audio_rate=16000, seed=4, idle=False) as generator:
            await say(generator, speech, size=977)
            return await until_end(aiter(generator))

    *spoken, _ = asyncio.run(play())
    stream = head.stream(portrait, seed=4, latency="low")
    frames = stream.push(speech) + stream.flush()
    assert len(spoken) == 2 * len(frames)
    for picture, frame in zip(spoken[::2], frames, strict=True):
        assert bytes(picture.data) == cv2.cvtColor(frame.image, cv2.COLOR_RGB2YUV_I420).tobytes()


def test_any_rate_and_two_channels_become_one_at_the_rate_asked_for(head, portrait, speech):
    up = Resampler(16000, 48000)
    at_48000 = np.concatenate([up.push(speech / np.float32(32768)), up.flush()])
    stereo = np.round(np.stack([at_48000 * 0.5, at_48000 * 1.5], axis=1) * 20000).astype(np.int16)

    async def play():
        async with DittoVideoGenerator(head, portrait, audio_rate=24000) as generator:
            await say(generator, stereo.ravel(), 48000, 2, size=441)
            return await until_end(aiter(generator))

    spoken = asyncio.run(play())
    assert {
        (i.sample_rate, i.num_channels, i.samples_per_channel) for i in spoken if isinstance(i, rtc.AudioFrame)
    } == {(24000, 1, 960)}
    down = Resampler(48000, 24000)
    expected = np.concatenate([down.push(at_48000), down.flush()]) * 20000
    found = heard(spoken)
    assert found.size == -(-expected.size // 960) * 960
    np.testing.assert_allclose(found[: expected.size], expected, atol=3)  # both channels and both conversions round


@pytest.mark.parametrize("taken", [1, 4, 9, 16])
def test_nothing_of_a_cleared_segment_comes_and_the_next_is_whole(head, portrait, speech, taken):
    async def play():
        async with DittoVideoGenerator(head, portrait, audio_rate=16000) as generator:
            items = aiter(generator)
            await say(generator, speech)
            first = [await anext(items) for _ in range(taken)]
            reader = asyncio.create_task(until_end(items))
            await generator.clear_buffer()
            await generator.push_audio(END())  # what the receiver sends when its stream was cut off
            await asyncio.sleep(0.2)
            await say(generator, -speech[:4000])
            return first, await reader

    first, rest = asyncio.run(play())
    assert set(letters(first)) <= {"p", "s"}
    assert letters(rest).count("E") == 1
    expected = -speech[:4000]
    np.testing.assert_array_equal(heard(rest), np.pad(expected, (0, -expected.size % 640)))
    # Every picture of the rest that has a sound has one of the new segment.
    assert letters(rest).lstrip("p") == "s" + "ps" * 6 + "E"


def test_each_segment_ends_once_even_an_empty_one(head, portrait, speech):
    async def play():
        async with DittoVideoGenerator(head, portrait, audio_rate=16000) as generator:
            items = aiter(generator)
            await generator.push_audio(END())  # of nothing: nothing
            await say(generator, speech[:1000])
            await generator.push_audio(sound(speech[:0]))
            await generator.push_audio(END())
            await say(generator, speech[:2000])
            return await until_end(items, ends=3)

    kinds = ["".join(g) for _, g in groupby(letters(asyncio.run(play())).replace("p", ""))]
    assert kinds == ["ss", "E", "s", "E", "ssss", "E"]


def test_unusable_frames_are_refused_and_the_segment_goes_on(head, portrait, speech):
    with pytest.raises(TypeError, match="mood"):
        DittoVideoGenerator(head, portrait, mood="happy")
    with pytest.raises(ValueError, match="expected an audio_rate that is a multiple of 25"):
        DittoVideoGenerator(head, portrait, audio_rate=16001)

    async def play():
        generator = DittoVideoGenerator(head, portrait, audio_rate=16000)
        with pytest.raises(SessionError, match="expected an open session"):
            await generator.push_audio(sound(speech))
        async with generator:
            with pytest.raises(AudioError, match="Hz"):
                await generator.push_audio(sound(speech[:100], rate=5))
            await generator.push_audio(sound(speech[:320]))
            with pytest.raises(AudioError, match="to the end of the utterance, got 24000 Hz"):
                await generator.push_audio(sound(speech[:320], rate=24000))
            await generator.push_audio(sound(speech[320:640]))
            await generator.push_audio(END())
            spoken = await until_end(aiter(generator))
            np.testing.assert_array_equal(heard(spoken), speech[:640])
            generator.listen(sound(np.repeat(speech, 2), 48000, 2))
        with pytest.raises(SessionError, match="closed"):
            await generator.push_audio(sound(speech))

    asyncio.run(play())


def test_closing_ends_the_iteration_and_every_thread(head, portrait, speech):
    async def play():
        async with DittoVideoGenerator(head, portrait) as generator:

            speaks = asyncio.Event()

            async def read():
                async for item in generator:
                    if isinstance(item, rtc.AudioFrame):
                        speaks.set()

            reader = asyncio.create_task(read())
            await say(generator, speech)
            await asyncio.wait_for(speaks.wait(), PATIENT)
        await asyncio.wait_for(reader, PATIENT)

    asyncio.run(play())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ditto")]


class Room(rtc.EventEmitter):
    """Takes tracks and subscribes at once."""

    def __init__(self):
        super().__init__()
        self.local_participant = self

    def isconnected(self):
        return True

    async def publish_track(self, track, options):
        return self

    async def wait_for_subscription(self):
        pass


def test_a_runner_reports_what_was_played(head, portrait, speech):
    """Interrupted while a frame is on its way into the room, then a whole segment: the positions are right to the frame."""
    told, handed = [], []

    async def play():
        async with DittoVideoGenerator(head, portrait, audio_rate=16000) as generator:
            output = avatar.QueueAudioOutput(wait_playback_start=True)
            output.on("playback_started", lambda event: told.append("started"))
            output.on("playback_finished", lambda e: told.append((e.playback_position, e.interrupted, len(handed))))
            runner = avatar.AvatarRunner(Room(), audio_recv=output, video_gen=generator, options=generator.options)
            push = runner.av_sync.push

            in_hand = asyncio.Event()

            async def spy(frame, timestamp=None):
                if isinstance(frame, rtc.AudioFrame):
                    if len(handed) == 7:
                        in_hand.set()
                        await asyncio.sleep(0.05)  # the room's queue is full
                    handed.append(frame)
                await push(frame, timestamp)

            runner.av_sync.push = spy
            await runner.start()
            for samples, cut in ((speech, True), (speech[:5000], False)):
                for start in range(0, samples.size, 320):
                    await output.capture_frame(sound(samples[start : start + 320]))
                output.flush()
                if cut:
                    await in_hand.wait()
                    output.clear_buffer()
                await asyncio.wait_for(output.wait_for_playout(), PATIENT)
            await runner.aclose()

    asyncio.run(play())
    started, (position, interrupted, count), again, (length, whole, total) = told
    assert (started, again, interrupted, whole) == ("started", "started", True, False)
    assert count == 8
    assert position == pytest.approx(count / 25)
    assert length == pytest.approx((total - count) / 25) == pytest.approx(8 / 25)
    np.testing.assert_array_equal(heard(handed[count:])[:5000], speech[:5000])
    epochs = [frame.userdata["epoch"] for frame in handed]
    assert epochs == [epochs[0]] * count + [epochs[-1]] * 8 and epochs[0] < epochs[-1]


def test_the_example_runs_to_its_end(portrait, speech, tmp_path):
    portrait.save(tmp_path / "face.npz")
    write_wav(tmp_path / "speech.wav", np.tile(speech, 2))
    command = [
        sys.executable,
        EXAMPLES / "livekit_avatar.py",
        tmp_path / "out.mp4",
        "--portrait",
        tmp_path / "face.npz",
    ]
    subprocess.run([*command, "--audio", tmp_path / "speech.wav"], check=True, capture_output=True, timeout=120)
    events = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    cut, whole = [event for event in events if event["event"] == "playback finished"]
    assert cut["interrupted"] and 0 < cut["position_seconds"] < 1.76
    assert not whole["interrupted"] and whole["position_seconds"] == 1.76  # 44 frames hold 28000 samples
    assert [event["name"] for event in events if event["event"] == "track published"] == [
        "avatar_audio",
        "avatar_video",
    ]
    seconds = len(read_audio(tmp_path / "out.mp4")) / 16000
    assert seconds == pytest.approx(sum(event["event"] == "sound" for event in events) / 25, abs=0.3)


def test_a_worker_reports_the_share_of_its_faces():
    from livekit.agents import AgentServer

    load = worker_load(4)
    server = AgentServer(load_fnc=load, load_threshold=0.99, drain_timeout=3600)
    jobs = []
    server._proc_pool = SimpleNamespace(processes=jobs)  # made when the server starts
    for count in range(6):
        assert load(server) == min(1.0, count / 4)
        jobs.append(SimpleNamespace(running_job=object()))
    with pytest.raises(ValueError, match="expected max_sessions of 1 or more"):
        worker_load(0)


def test_a_worker_measures_once_how_many_faces_it_holds():
    calls = []

    def measured():
        calls.append(1)
        return 2

    load, server = worker_load(measured), SimpleNamespace(active_jobs=[object()])
    assert calls == []  # nothing is measured where the module is only imported
    assert [load(server), load(server)] == [0.5, 0.5] and calls == [1]
    with pytest.raises(ValueError, match="expected max_sessions of 1 or more, got 0"):
        worker_load(lambda: 0)(server)
