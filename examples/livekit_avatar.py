"""A LiveKit agent with a face, without a LiveKit server: real AgentSession and AvatarRunner, and a recorder as the room.

    python examples/livekit_avatar.py out.mp4
    python examples/livekit_avatar.py out.mp4 --text "Any sentence, spoken by espeak-ng."

The agent speaks, is interrupted half-way, and speaks again. out.mp4 is what someone in the room would see and hear,
out.jsonl lists the events of the agent and the room. docs/adapters.md shows the code for a real room.
"""

import argparse
import asyncio
import json
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from livekit import rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.voice.avatar import AvatarRunner, QueueAudioOutput

import ditto
from ditto.live.adapters.livekit import DittoVideoGenerator
from ditto.media.audio import read_audio
from ditto.media.video import VideoWriter

HERE = Path(__file__).parent


class Journal:
    """Writes one JSON line for each event, with its time in seconds."""

    def __init__(self, path: Path) -> None:
        self.file, self.start = path.open("w"), time.monotonic()

    def note(self, event: str, **details: object) -> None:
        line = {"seconds": round(time.monotonic() - self.start, 3), "event": event, **details}
        self.file.write(json.dumps(line) + "\n")


class RecordingRoom(rtc.EventEmitter):
    """Takes the place of a connected room: subscribes to the tracks at once and records them."""

    def __init__(self, writer: VideoWriter, journal: Journal) -> None:
        super().__init__()
        self.writer, self.journal, self.local_participant = writer, journal, self
        self.picture: np.ndarray | None = None
        self.tasks: dict[str, asyncio.Task] = {}
        self.listening = True

    def isconnected(self) -> bool:
        return True

    async def publish_track(self, track, options):
        self.journal.note("track published", name=track.name)
        watch = self.watch if isinstance(track, rtc.LocalVideoTrack) else self.hear
        self.tasks[watch.__name__] = asyncio.create_task(watch(track))
        return self

    async def wait_for_subscription(self) -> None:
        pass

    async def watch(self, track: rtc.LocalVideoTrack) -> None:
        async for event in rtc.VideoStream(track, format=rtc.VideoBufferType.RGB24):
            self.picture = np.frombuffer(event.frame.data, np.uint8).reshape(self.writer.height, self.writer.width, 3)
            self.journal.note("picture", captured_us=event.timestamp_us)

    async def hear(self, track: rtc.LocalAudioTrack) -> None:
        """Record each 40 ms of sound with the current picture."""
        stream = rtc.AudioStream(track, sample_rate=16000, num_channels=1, frame_size_ms=40)
        async for event in stream:
            samples = np.frombuffer(event.frame.data, np.int16).astype(np.float32) / 32768
            self.journal.note("sound", level=round(float(np.abs(samples).max()), 3))
            if self.picture is not None:
                await asyncio.to_thread(self.writer.write, self.picture, samples)
            if not self.listening:
                return

    async def stop(self) -> None:
        """Stop recording, after the frame that is being written. Call it before the tracks are closed."""
        self.listening = False
        await self.tasks["hear"]
        self.tasks["watch"].cancel()


def speech(file: Path, text: str | None) -> np.ndarray:
    """Speech of a file, or of a text by espeak-ng: (N,) float32 at 16 kHz."""
    if text is None:
        return read_audio(file)
    with tempfile.NamedTemporaryFile(suffix=".wav") as spoken:
        subprocess.run(["espeak-ng", "-w", spoken.name, "--stdin"], input=text.encode(), check=True, timeout=60)
        return read_audio(spoken.name)


async def sound(samples: np.ndarray) -> AsyncIterator[rtc.AudioFrame]:
    """The frames of a speech synthesiser: 20 ms each, faster than real time."""
    for start in range(0, len(samples), 320):
        block = (samples[start : start + 320] * 32767).astype(np.int16)
        yield rtc.AudioFrame(block.tobytes(), 16000, 1, len(block))


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

    async with DittoVideoGenerator(head, portrait, latency="low", seed=1) as generator:
        with VideoWriter(arguments.output, width, height) as writer:
            room = RecordingRoom(writer, journal)
            audio = QueueAudioOutput(wait_playback_start=True)
            audio.on("playback_started", lambda event: journal.note("playback started"))
            audio.on(
                "playback_finished",
                lambda event: journal.note(
                    "playback finished",
                    position_seconds=round(event.playback_position, 3),
                    interrupted=event.interrupted,
                ),
            )
            runner = AvatarRunner(room, audio_recv=audio, video_gen=generator, options=generator.options)
            await runner.start()
            session = AgentSession()
            session.on("agent_state_changed", lambda event: journal.note(f"agent is {event.new_state}"))
            session.output.audio = audio
            await session.start(Agent(instructions="Repeat the text."))
            await asyncio.sleep(1)  # some idle frames first

            journal.note("says", seconds_of_speech=len(samples) / 16000)
            speaking = session.say("What it says.", audio=sound(samples))
            await asyncio.sleep(min(2.5, len(samples) / 32000))
            journal.note("interrupts")
            await session.interrupt()
            await speaking
            await asyncio.sleep(1)

            journal.note("says", seconds_of_speech=len(samples) / 16000)
            await session.say("What it says.", audio=sound(samples))
            await asyncio.sleep(0.5)
            await session.aclose()
            await room.stop()
            await runner.aclose()
    journal.file.close()
    print(f"{arguments.output} and {arguments.output.with_suffix('.jsonl')}")


if __name__ == "__main__":
    asyncio.run(main())
