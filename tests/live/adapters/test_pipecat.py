"""The Pipecat adapter against the real package: real pipelines, and a real output transport that records."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pipecat", reason="pipecat-ai is not installed")

from actors import PATIENT
from loguru import logger
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    ErrorFrame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    OutputImageRawFrame,
    OutputTransportReadyFrame,
    StartFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner
from wav import write_wav

import ditto
from ditto.errors import BundleError
from ditto.live.adapters.pipecat import DittoAvatar
from ditto.media.audio import read_audio

EXAMPLES = Path(__file__).parents[3] / "examples"
LETTERS = {
    OutputImageRawFrame: "p",
    TTSAudioRawFrame: "s",
    TTSStartedFrame: "<",
    TTSStoppedFrame: ">",
    TextFrame: "t",
    LLMFullResponseEndFrame: "r",
    InterruptionFrame: "!",
    EndFrame: "E",
    CancelFrame: "C",
    ErrorFrame: "x",
    InputAudioRawFrame: "u",
    BotStartedSpeakingFrame: "[",
    BotStoppedSpeakingFrame: "]",
}
logger.remove()


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite", max_sessions=1)


@pytest.fixture(scope="module")
def speech():
    """(N,) int16 at 16 kHz: most of a second."""
    return (read_audio(EXAMPLES / "speech.flac")[8000:22000] * 32767).astype(np.int16)


def sound(samples, rate=16000, channels=1):
    return TTSAudioRawFrame(samples.tobytes(), rate, channels)


def said(samples):
    """What a synthesiser sends for an utterance."""
    return [TTSStartedFrame(), *(sound(samples[i : i + 1600]) for i in range(0, samples.size, 1600)), TTSStoppedFrame()]


def letters(frames):
    return "".join(LETTERS.get(type(frame), "") for frame in frames)


def told(frames):
    """The letters without the pictures."""
    return letters(frames).replace("p", "")


def heard(frames):
    """All sound as (N,) int16."""
    return np.concatenate([np.frombuffer(f.audio, np.int16) for f in frames if isinstance(f, TTSAudioRawFrame)])


def padded(samples):
    return np.pad(samples, (0, -samples.size % 640))


class End(FrameProcessor):
    """An end of the pipeline: keeps what comes to it. The last one stands for a transport that is ready at once."""

    def __init__(self, direction):
        super().__init__(enable_direct_mode=True)
        self.direction, self.frames, self.changed = direction, [], asyncio.Event()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if direction is self.direction and not isinstance(frame, StartFrame):
            self.frames.append(frame)
            self.changed.set()
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame) and self.direction is FrameDirection.DOWNSTREAM:
            await self.push_frame(OutputTransportReadyFrame(), FrameDirection.UPSTREAM)

    async def until(self, enough):
        """Wait until the frames that came are enough."""
        while not enough(self.frames):
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), PATIENT)


def worker_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ditto-scheduler")]


def perform(avatar, act, last=None):
    """Run a pipeline around the avatar while `act(worker, after)` plays: what went down, and what came up."""

    async def play():
        before, after = End(FrameDirection.UPSTREAM), last or End(FrameDirection.DOWNSTREAM)
        worker = PipelineWorker(
            Pipeline([before, avatar, after]),
            params=PipelineParams(audio_out_sample_rate=16000),
            enable_rtvi=False,
            cancel_on_idle_timeout=False,
        )
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await asyncio.wait_for(asyncio.gather(runner.run(), act(worker, after)), 2 * PATIENT)
        return after.frames, before.frames

    threads = worker_threads()
    frames = asyncio.run(play())
    deadline = time.monotonic() + PATIENT
    while worker_threads() != threads and time.monotonic() < deadline:
        time.sleep(0.01)  # the last of them may be just ending
    assert worker_threads() == threads
    assert avatar.session is None
    return frames


def test_pictures_and_sound_go_out_together_and_everything_keeps_its_place(head, portrait, speech):
    count = -(-speech.size // 640)

    async def act(worker, after):
        await after.until(lambda frames: letters(frames).count("p") >= 3)
        started, *parts, stopped = said(speech)
        await worker.queue_frames(
            [started, *parts[:4], TextFrame("half"), *parts[4:], stopped, LLMFullResponseEndFrame()]
        )
        await after.until(lambda frames: "r" in letters(frames))
        ended = len(after.frames)
        await after.until(lambda frames: letters(frames[ended:]).count("p") >= 3)
        await worker.queue_frame(EndFrame())

    down, up = perform(DittoAvatar(head, portrait, seed=4), act)
    assert told(down) == "<" + "s" * 10 + "t" + "s" * (count - 10) + ">rE"
    assert told(up) == ""
    np.testing.assert_array_equal(heard(down), padded(speech))
    media = [frame for frame in down if isinstance(frame, (OutputImageRawFrame, TTSAudioRawFrame))]
    for image, audio in pairwise(media):
        if isinstance(audio, TTSAudioRawFrame):
            assert isinstance(image, OutputImageRawFrame) and image.pts == audio.pts
            assert (audio.sample_rate, audio.num_channels, audio.num_frames) == (16000, 1, 640)
    images = [frame for frame in media if isinstance(frame, OutputImageRawFrame)]
    assert {(image.size, image.format, len(image.image)) for image in images} == {((256, 256), "RGB", 256 * 256 * 3)}
    assert [image.pts for image in images] == [40_000_000 * n for n in range(len(images))]


def test_pictures_are_those_of_a_stream_that_gets_the_same_speech(head, portrait, speech):
    async def act(worker, after):
        await worker.queue_frames([*said(speech), EndFrame()])

    down, _ = perform(DittoAvatar(head, portrait, seed=4, idle=False), act)
    stream = head.stream(portrait, seed=4, latency="low")
    expected = stream.push(speech) + stream.flush()
    images = [frame.image for frame in down if isinstance(frame, OutputImageRawFrame)]
    assert images == [frame.image.tobytes() for frame in expected]


def test_the_end_of_the_pipeline_waits_for_the_last_word(head, portrait, speech):
    """Even where the synthesiser does not say that it stopped."""

    async def act(worker, after):
        await worker.queue_frames([*said(speech[:3000]), *said(speech[3000:6000])[:-1], EndFrame()])

    down, _ = perform(DittoAvatar(head, portrait), act)
    assert told(down) == "<sssss><sssssE"
    assert letters(down)[-1] == "E"  # no picture follows
    np.testing.assert_array_equal(heard(down), np.concatenate([padded(speech[:3000]), padded(speech[3000:6000])]))


@pytest.mark.parametrize("taken", [0, 3])
def test_an_interruption_drops_all_that_waits_and_the_next_utterance_is_whole(head, portrait, speech, taken):
    avatar = DittoAvatar(head, portrait)

    async def act(worker, after):
        started, *parts, stopped = said(speech)
        await worker.queue_frames([started, *parts, TextFrame("never said"), stopped])
        await after.until(lambda frames: letters(frames).count("s") >= taken and "p" in letters(frames))
        while avatar.session.epoch == 0:  # until all of it was taken
            await asyncio.sleep(0.01)
        await worker.queue_frames([InterruptionFrame(), InterruptionFrame()])
        await after.until(lambda frames: letters(frames).count("!") == 2)
        await asyncio.sleep(0.2)
        await worker.queue_frames([TTSStoppedFrame(), *said(-speech[:4000]), EndFrame()])

    down, _ = perform(avatar, act)
    before, after = told(down).split("!!")
    assert before in ("", "<" + "s" * (len(before) - 1)) and len(before) - 1 < -(-speech.size // 640)
    assert after == "><" + "s" * 7 + ">E"
    first = 1 + max(n for n, frame in enumerate(down) if isinstance(frame, InterruptionFrame))
    np.testing.assert_array_equal(heard(down[first:]), padded(-speech[:4000]))
    assert letters(down[first:]).count("p") >= 7


def test_an_interruption_does_not_lose_the_end_of_the_pipeline(head, portrait, speech):
    avatar = DittoAvatar(head, portrait)

    async def act(worker, after):
        await worker.queue_frames([*said(speech), EndFrame()])
        await after.until(lambda frames: "s" in letters(frames))
        await avatar.queue_frame(InterruptionFrame())  # the worker takes nothing after the end

    down, _ = perform(avatar, act)
    assert told(down).endswith("!E") and ">" not in told(down)


def test_unusable_sound_is_an_error_frame_and_the_utterance_goes_on(head, portrait, speech):
    with pytest.raises(TypeError, match="mood"):
        DittoAvatar(head, portrait, mood="happy")
    stereo = np.repeat(speech[:640], 2)
    odd = TTSAudioRawFrame(b"\0" * 641, 16000, 1)

    async def act(worker, after):
        await worker.queue_frames([TTSStartedFrame(), sound(stereo, channels=2), sound(speech[:640], 24000), odd])
        await worker.queue_frames([sound(speech[640:1280]), sound(speech[:0]), TTSStoppedFrame(), EndFrame()])

    down, up = perform(DittoAvatar(head, portrait), act)
    assert told(down) == "<ss>E"
    np.testing.assert_array_equal(heard(down), speech[:1280])
    messages = [frame.error for frame in up if isinstance(frame, ErrorFrame)]
    assert len(messages) == 2
    assert "expected 16000 Hz to the end of the utterance, got 24000 Hz" in messages[0] and "bytes, got 641" in messages[1]


def test_without_a_session_speech_passes_through(head, portrait, speech):
    avatar = DittoAvatar(head, portrait)

    async def act(worker, after):
        await worker.queue_frames([*said(speech), EndFrame()])

    with head.blocking_session(portrait):  # the only one this head serves
        down, up = perform(avatar, act)
    assert letters(down) == "<" + "s" * 9 + ">E"
    np.testing.assert_array_equal(heard(down), speech)
    assert [frame.processor for frame in up if isinstance(frame, ErrorFrame)] == [avatar]
    assert not avatar.is_usable


def test_a_broken_session_is_one_error_frame_and_speech_passes_through(head, portrait, speech, monkeypatch):
    def broken(appearance, pose):
        raise BundleError("the renderer is gone")

    async def act(worker, after):
        await after.until(lambda frames: "p" in letters(frames))
        monkeypatch.setattr(head.performer.renderer, "render", broken)
        while avatar.is_usable:
            await asyncio.sleep(0.01)
        await worker.queue_frames([*said(speech), EndFrame()])

    avatar = DittoAvatar(head, portrait)
    down, up = perform(avatar, act)
    assert told(down) == "<" + "s" * 9 + ">E"
    np.testing.assert_array_equal(heard(down), speech)
    assert [frame.error for frame in up if isinstance(frame, ErrorFrame)] == ["the renderer is gone"]


def test_the_users_sound_goes_to_listen(head, portrait, speech, monkeypatch):
    avatar, listened = DittoAvatar(head, portrait), []

    async def act(worker, after):
        await after.until(lambda frames: "p" in letters(frames))
        listen = avatar.session.listen
        monkeypatch.setattr(avatar.session, "listen", lambda pcm, sample_rate: listened.append((pcm, sample_rate)))
        await worker.queue_frames([InputAudioRawFrame(np.repeat(speech, 2).tobytes(), 24000, 2)])
        await after.until(lambda frames: "u" in letters(frames))
        listen(*listened[0])  # the session takes what it was given
        await worker.queue_frame(EndFrame())

    down, up = perform(avatar, act)
    assert told(down) == "uE" and told(up) == ""
    ((pcm, rate),) = listened
    assert rate == 24000
    np.testing.assert_array_equal(pcm * 32768, speech)


def test_cancelling_closes_the_session_at_once(head, portrait, speech):
    async def act(worker, after):
        await worker.queue_frames(said(speech))
        await after.until(lambda frames: "s" in letters(frames))
        await worker.cancel()

    down, _ = perform(DittoAvatar(head, portrait), act)
    assert told(down).endswith("C") and letters(down)[-1] == "C"


class Recorder(BaseOutputTransport):
    """An output transport whose device takes 40 ms of sound at a time and forgets the time."""

    def __init__(self):
        params = TransportParams(
            audio_out_enabled=True,
            audio_out_end_silence_secs=0,
            video_out_enabled=True,
            video_out_is_live=True,
            video_out_framerate=25,
            video_out_width=256,
            video_out_height=256,
        )
        super().__init__(params)
        self.frames = []

    async def start(self, frame):
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_video_frame(self, frame):
        self.frames.append(frame)
        return True

    async def write_audio_frame(self, frame):
        self.frames.append(frame)
        return True


def test_a_transport_plays_it_and_knows_when_the_bot_speaks(head, portrait, speech):
    silent = asyncio.Event()

    async def act(worker, after):
        while not after.frames:
            await asyncio.sleep(0.01)
        await worker.queue_frames(said(speech))
        await asyncio.wait_for(silent.wait(), PATIENT)
        await worker.queue_frame(EndFrame())

    class Watched(DittoAvatar):
        async def process_frame(self, frame, direction):
            await super().process_frame(frame, direction)
            if isinstance(frame, BotStoppedSpeakingFrame):
                silent.set()

    recorder = Recorder()
    played, up = perform(Watched(head, portrait), act, last=recorder)
    assert told(up) == "[]"
    np.testing.assert_array_equal(heard(played), padded(speech))
    shown = letters(played).strip("p")
    assert shown.count("s") == -(-speech.size // 640) and shown.count("p") >= shown.count("s") - 4


def test_the_example_runs_to_its_end(portrait, speech, tmp_path):
    portrait.save(tmp_path / "face.npz")
    write_wav(tmp_path / "speech.wav", np.tile(speech, 2))
    command = [
        sys.executable,
        EXAMPLES / "pipecat_avatar.py",
        tmp_path / "out.mp4",
        "--portrait",
        tmp_path / "face.npz",
    ]
    subprocess.run([*command, "--audio", tmp_path / "speech.wav"], check=True, capture_output=True, timeout=120)
    events = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    story = [event["event"] for event in events if event["event"] not in ("picture", "sound")]
    spoken = ["says", "BotStartedSpeakingFrame", "BotStoppedSpeakingFrame"]
    assert story == [*spoken[:2], "interrupted", *spoken[2:], *spoken]
    pts = [event["pts_seconds"] for event in events if event["event"] == "picture"]
    assert pts == sorted(pts) and len(pts) > 100
    seconds = len(read_audio(tmp_path / "out.mp4")) / 16000
    assert seconds == pytest.approx(sum(event["event"] == "sound" for event in events) / 25, abs=0.3)
