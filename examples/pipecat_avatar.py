"""A Pipecat bot with a face, without a call: a real pipeline whose output transport records to a file.

    python examples/pipecat_avatar.py out.mp4
    python examples/pipecat_avatar.py out.mp4 --text "Any sentence, spoken by espeak-ng."

The bot speaks, is interrupted half-way, and speaks again. out.mp4 is what the caller would see and hear, out.jsonl lists the
events. In a real bot the transport is that of the call, and a speech synthesiser comes before the avatar (docs/adapters.md).
"""

import argparse
import asyncio
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    ErrorFrame,
    InterruptionFrame,
    StartFrame,
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

import ditto
from ditto.live.adapters.pipecat import DittoAvatar
from ditto.media.audio import read_audio
from ditto.media.video import VideoWriter

HERE = Path(__file__).parent
EVENTS = (BotStartedSpeakingFrame, BotStoppedSpeakingFrame, ErrorFrame)


class Journal(FrameProcessor):
    """Writes one JSON line for each event, with its time in seconds. As a processor it records upstream frames."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file, self.start = path.open("w"), time.monotonic()
        self.silent = asyncio.Event()  # set when the bot stops speaking

    def note(self, event: str, **details: object) -> None:
        line = {"seconds": round(time.monotonic() - self.start, 3), "event": event, **details}
        self.file.write(json.dumps(line) + "\n")

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if direction is FrameDirection.UPSTREAM and isinstance(frame, EVENTS):
            self.note(type(frame).__name__)
            (self.silent.clear if isinstance(frame, BotStartedSpeakingFrame) else self.silent.set)()
        await self.push_frame(frame, direction)


class RecordingTransport(BaseOutputTransport):
    """Records sound in real time, 40 ms at a time, with the current picture."""

    def __init__(self, params: TransportParams, writer: VideoWriter, journal: Journal) -> None:
        super().__init__(params)
        self.writer, self.journal = writer, journal
        self.picture: np.ndarray | None = None
        self.device: asyncio.Queue[bytes] = asyncio.Queue(1)
        self.playing = True

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        self.player = self.create_task(self.play())
        await self.set_transport_ready(frame)

    async def cleanup(self) -> None:
        self.playing = False
        await self.player  # after the frame that is being written
        await super().cleanup()

    async def write_video_frame(self, frame) -> bool:
        self.picture = np.frombuffer(frame.image, np.uint8).reshape(self.writer.height, self.writer.width, 3)
        self.journal.note("picture", pts_seconds=frame.pts / 1e9)
        return True

    async def write_audio_frame(self, frame) -> bool:
        await self.device.put(frame.audio)
        return True

    async def play(self) -> None:
        due = time.monotonic()
        while self.playing:
            sound = (
                np.zeros(640, np.int16) if self.device.empty() else np.frombuffer(self.device.get_nowait(), np.int16)
            )
            samples = sound.astype(np.float32) / 32768
            self.journal.note("sound", level=round(float(np.abs(samples).max()), 3))
            if self.picture is not None:
                await asyncio.to_thread(self.writer.write, self.picture, samples)
            due += 0.04
            await asyncio.sleep(due - time.monotonic())


def speech(file: Path, text: str | None) -> np.ndarray:
    """Speech of a file, or of a text by espeak-ng: (N,) float32 at 16 kHz."""
    if text is None:
        return read_audio(file)
    with tempfile.NamedTemporaryFile(suffix=".wav") as spoken:
        subprocess.run(["espeak-ng", "-w", spoken.name, "--stdin"], input=text.encode(), check=True, timeout=60)
        return read_audio(spoken.name)


def synthesised(samples: np.ndarray) -> list:
    """The frames of a speech synthesiser: 100 ms each, faster than real time."""
    sound = (samples * 32767).astype(np.int16)
    parts = [sound[start : start + 1600].tobytes() for start in range(0, len(sound), 1600)]
    return [TTSStartedFrame(), *(TTSAudioRawFrame(part, 16000, 1) for part in parts), TTSStoppedFrame()]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--portrait", type=Path, default=HERE / "portrait.jpg", help="a picture, or .npz, .portrait")
    parser.add_argument("--audio", type=Path, default=HERE / "speech.flac", help="what it says")
    parser.add_argument("--text", help="what it says, spoken by espeak-ng")
    arguments = parser.parse_args()

    head = ditto.load("lite")
    if arguments.portrait.suffix in (".npz", ".portrait"):
        portrait = ditto.Portrait.load(arguments.portrait)
    else:
        portrait = head.register(arguments.portrait, max_size=512)
    samples = speech(arguments.audio, arguments.text)
    height, width, _ = portrait.picture.shape
    journal = Journal(arguments.output.with_suffix(".jsonl"))
    params = TransportParams(
        audio_out_enabled=True,
        audio_out_end_silence_secs=0,
        video_out_enabled=True,
        video_out_is_live=True,
        video_out_framerate=25,
        video_out_width=width,
        video_out_height=height,
    )

    with VideoWriter(arguments.output, width, height) as writer:
        transport = RecordingTransport(params, writer, journal)
        avatar = DittoAvatar(head, portrait, latency="low", seed=1)
        worker = PipelineWorker(
            Pipeline([journal, avatar, transport]),
            params=PipelineParams(audio_out_sample_rate=16000),
            enable_rtvi=False,
        )

        async def converse() -> None:
            await asyncio.sleep(2)  # some idle frames first
            journal.note("says", seconds_of_speech=len(samples) / 16000)
            await worker.queue_frames(synthesised(samples))
            await asyncio.sleep(min(2.5, len(samples) / 32000))
            journal.note("interrupted")
            await worker.queue_frame(InterruptionFrame())
            await asyncio.sleep(1)

            journal.note("says", seconds_of_speech=len(samples) / 16000)
            journal.silent.clear()
            await worker.queue_frames(synthesised(samples))
            await journal.silent.wait()
            await asyncio.sleep(0.5)
            await worker.queue_frame(EndFrame())

        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await asyncio.gather(runner.run(), converse())
    journal.file.close()
    print(f"{arguments.output} and {arguments.output.with_suffix('.jsonl')}")


if __name__ == "__main__":
    asyncio.run(main())
