"""A conversation with one client: its session, the queue of what to speak, and messages to the client."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.controls.timeline_file import timeline_of
from ditto.live import AsyncSession, Frame, SegmentEnd
from ditto.live.playout import Played
from ditto.live.server.limits import END_SECONDS, MAX_WAITING_ITEMS, MAX_WAITING_SECONDS
from ditto.live.server.microphone import VoiceGate
from ditto.live.server.protocol import Control, Flush, Interrupt, JsonObject, ProtocolError, Say, error_of
from ditto.live.server.voice import speech_of
from ditto.live.server.watching import Watcher
from ditto.live.waiting import end_tasks
from ditto.media.audio import AudioReader
from ditto.media.rates import SAMPLE_RATE
from ditto.motion.motion import FPS

logger = logging.getLogger(__name__)

Array = npt.NDArray[np.float32 | np.int16]
Send = Callable[[JsonObject], object]


class Sound(NamedTuple):
    """Samples to speak, or None for the end of an utterance."""

    samples: Array | None
    rate: int
    microphone: bool = False


class Recording(NamedTuple):
    """A sound file to speak; it is removed afterwards."""

    path: Path


@dataclass
class Utterance:
    """An utterance from its first sample to the delivery of its last frame.

    Attributes:
        microphone: whether it repeats an open microphone.
        first: whether no other utterance was under way when it began: then its first frame waits for computing only.
        seconds: of speech pushed so far.
        ready_at: time at which as much had been pushed as its first frame waits for; None before.
    """

    first: bool
    microphone: bool
    seconds: float = 0.0
    ready_at: float | None = None


class Conversation:
    """Speaks what the client sends, in order, one utterance after the other.

    Args:
        session: an open one.
        send: sends a JSON message to the client.
        watchers: are told what happens.

    Attributes:
        interrupted: called after an interrupt with the new epoch. It drops the frames of earlier epochs that were read
            from the session and not delivered; returns how many frames of speech these are.
    """

    def __init__(self, session: AsyncSession, send: Send, watchers: Sequence[Watcher] = ()) -> None:
        self.session = session
        self._send = send
        self._watchers = watchers
        self._waiting: deque[Sound | Say | Recording] = deque()
        self._waiting_seconds = 0.0
        self._changed = asyncio.Event()
        self._utterances: dict[int, Utterance] = {}
        self._gate: VoiceGate | None = None
        self._gate_rate = 0
        self._voiced = self._repeating = False  # within an utterance of the microphone; whether that is repeated
        self._speaker = asyncio.create_task(self._speak())
        self._stopping = asyncio.Lock()
        self._closed = False
        self.interrupted: Callable[[int], int] = lambda epoch: 0

    async def close(self) -> None:
        """Stop speaking and close the session."""
        async with self._stopping:
            self._closed = True
            await self._stop_speaking()
        await self.session.close()

    def listen(self, samples: Array, rate: int) -> None:
        """Take speech of the other party."""
        self.session.listen(samples, sample_rate=rate)
        self._tell_heard(samples, rate)

    async def speak(self, samples: Array, rate: int) -> None:
        """Queue samples of speech; waits while more than `MAX_WAITING_SECONDS` are in the queue."""
        while self._waiting_seconds > MAX_WAITING_SECONDS:
            self._changed.clear()
            await self._changed.wait()
        self._put(Sound(samples, rate))

    def repeat(self, samples: Array, rate: int) -> None:
        """Take samples of an open microphone: utterances in them are queued, unless something else is being spoken.

        A second of samples takes a few milliseconds; give more in several calls.
        """
        self._tell_heard(samples, rate)
        if self._gate is None or self._gate_rate != rate:
            self.end_microphone()
            self._gate, self._gate_rate = VoiceGate(rate), rate
        for piece in self._gate.push(as_float(samples)):
            if not self._voiced:
                self._repeating = not self._others_speak()  # a whole utterance, or none of it
            self._voiced = piece is not None
            if self._repeating:
                self._put(Sound(piece, rate, microphone=True))

    def end_microphone(self) -> None:
        """End the utterance of the microphone, which is off now."""
        if self._gate is not None and self._gate.close() and self._repeating:
            self._put(Sound(None, self._gate_rate, microphone=True))
        self._gate = None
        self._voiced = self._repeating = False

    def _tell_heard(self, samples: Array, rate: int) -> None:
        for watcher in self._watchers:
            watcher.heard(samples, rate)

    def _others_speak(self) -> bool:
        """Whether anything but the microphone is being spoken or queued."""
        others = [utterance for utterance in self._utterances.values() if not utterance.microphone]
        return bool(others) or any(not (isinstance(item, Sound) and item.microphone) for item in self._waiting)

    def say(self, item: Say | Recording) -> None:
        """Queue a text or a recording.

        Raises:
            ProtocolError: `MAX_WAITING_ITEMS` are queued.
        """
        if sum(not isinstance(other, Sound) for other in self._waiting) >= MAX_WAITING_ITEMS:
            raise ProtocolError(
                "busy", f"expected at most {MAX_WAITING_ITEMS} texts and recordings in the queue; wait or interrupt", 429
            )
        self._put(item)

    async def command(self, command: Flush | Interrupt | Control | Say) -> None:
        """Execute a command of the client.

        Raises:
            ProtocolError, ValueError, TypeError: the command cannot be executed.
        """
        match command:
            case Flush():
                self._put(Sound(None, 0))
            case Interrupt():
                await self.interrupt()
            case Say():
                self.say(command)
            case Control():
                named = {"emotion", "gaze", "head", "style", "names", "timeline", "on_top"}
                changes = command.model_dump(include=named, exclude_unset=True)
                if "timeline" in changes:
                    changes["timeline"] = timeline_of(changes["timeline"])
                self.session.control(**changes, ramp_seconds=command.ramp_seconds)

    async def interrupt(self) -> None:
        """Drop the queue and the speech under way; report to the client how much of the utterance it got."""
        async with self._stopping:
            if self._closed:
                return
            await self._stop_speaking()
            played_ms = await self.session.interrupt()
            self._utterances.clear()
            self._gate = None
            self._voiced = self._repeating = False
            undelivered = self.interrupted(self.session.epoch)
            self._speaker = asyncio.create_task(self._speak())
        played_ms = max(0, played_ms - undelivered * 1000 // FPS)
        self._send({"type": "interrupted", "played_ms": played_ms, "epoch": self.session.epoch})

    def delivered(self, item: Played | Frame | SegmentEnd) -> None:
        """Record that an item was delivered to the client; send it the ends of utterances and the delays."""
        now = asyncio.get_running_loop().time()
        for watcher in self._watchers:
            watcher.delivered(item)
        if isinstance(item, SegmentEnd):
            self._utterances.pop(item.epoch, None)
            self._send({"type": "segment_end", "epoch": item.epoch, "pts_seconds": item.pts_seconds})
            return
        frame, waited = (item.frame, item.waited_seconds) if isinstance(item, Played) else (item, 0.0)
        if frame.speech_index != 0:
            return
        known = self._utterances.get(frame.epoch)
        if known is not None and known.first and known.ready_at is not None:
            compute = max(0.0, now - waited - known.ready_at)
            for watcher in self._watchers:
                watcher.answered(compute, waited)
            self._send(
                {
                    "type": "latency",
                    "epoch": frame.epoch,
                    "algorithmic_ms": round(1000 * self.session.delay_seconds),
                    "compute_ms": round(1000 * compute),
                    "playout_ms": round(1000 * waited),
                }
            )

    def _put(self, item: Sound | Say | Recording) -> None:
        self._waiting.append(item)
        self._waiting_seconds += seconds_of(item)
        self._changed.set()

    async def _stop_speaking(self) -> None:
        await end_tasks(self._speaker, seconds=END_SECONDS / 2)
        for item in self._waiting:
            if isinstance(item, Recording):
                item.path.unlink(missing_ok=True)
        self._waiting.clear()
        self._waiting_seconds = 0.0
        self._changed.set()

    async def _speak(self) -> None:
        while True:
            while not self._waiting:
                self._changed.clear()
                await self._changed.wait()
            item = self._waiting.popleft()
            self._waiting_seconds -= seconds_of(item)
            self._changed.set()
            try:
                match item:
                    case Sound(None, _, _):
                        await self._flush()
                    case Sound(samples, rate, microphone):
                        assert samples is not None
                        await self._push(samples, rate, microphone)
                    case Say(text=text, voice=voice):
                        await self._flush()
                        spoken, rate = await asyncio.to_thread(speech_of, text, voice)
                        await self._push(spoken, rate)
                        await self._flush()
                    case Recording(path):
                        await self._speak_recording(path)
            except Exception as error:
                message, status = error_of(error)
                if status >= 500:
                    logger.warning("speech of a client failed", exc_info=error)
                self._send(message)
                with suppress(Exception):  # a closed session has no utterance to end
                    await self._flush()

    async def _speak_recording(self, path: Path) -> None:
        try:
            await self._flush()
            blocks = await asyncio.to_thread(lambda: iter(AudioReader(path)))
            while (block := await asyncio.to_thread(lambda: next(blocks, None))) is not None:
                await self._push(block, SAMPLE_RATE)
            await self._flush()
        finally:
            path.unlink(missing_ok=True)

    async def _push(self, samples: Array, rate: int, microphone: bool = False) -> None:
        if not len(samples):  # an empty push begins no utterance
            return
        known = self._utterances.setdefault(
            self.session.epoch, Utterance(microphone=microphone, first=not self._utterances)
        )
        for piece in pieces(samples, rate):
            await self.session.push(piece, sample_rate=rate)
            known.seconds += len(piece) / rate
            if known.ready_at is None and known.seconds >= self.session.delay_seconds:
                known.ready_at = asyncio.get_running_loop().time()
            await asyncio.sleep(0)  # a push that need not wait does not yield to other tasks

    async def _flush(self) -> None:
        known = self._utterances.get(self.session.epoch)
        await self.session.flush()
        if known is not None and known.ready_at is None:
            known.ready_at = asyncio.get_running_loop().time()


def pieces(samples: Array, rate: int, seconds: float = 1 / FPS) -> Iterator[Array]:
    """Samples in pieces of `seconds`. The reported delay is as precise as the pieces are short."""
    step = int(rate * seconds)
    return (samples[start : start + step] for start in range(0, len(samples), step))


def seconds_of(item: Sound | Say | Recording) -> float:
    """Its length in seconds; 0 if that is not known before it is spoken."""
    return len(item.samples) / item.rate if isinstance(item, Sound) and item.samples is not None else 0.0


def as_float(samples: Array) -> npt.NDArray[np.float32]:
    """int16 or float samples as float32 in [-1, 1]."""
    return samples.astype(np.float32) / (32768.0 if samples.dtype == np.int16 else 1.0)
