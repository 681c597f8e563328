"""A conversation: one session, what waits to be spoken in it, and what its client is told. Whatever carries it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.live import AsyncSession, Frame, SegmentEnd
from ditto.live.playout import Played
from ditto.live.server.limits import END_SECONDS, MOST_WAITING_ITEMS, MOST_WAITING_SECONDS
from ditto.live.server.microphone import VoiceGate
from ditto.live.server.protocol import Control, Flush, Interrupt, JsonObject, ProtocolError, Say, error_of
from ditto.live.server.voice import speech_of
from ditto.live.waiting import end_tasks
from ditto.media.audio import AudioReader
from ditto.media.rates import SAMPLE_RATE
from ditto.motion.motion import FPS

logger = logging.getLogger(__name__)

Array = npt.NDArray[np.float32 | np.int16]
Tell = Callable[[JsonObject], object]


class Sound(NamedTuple):
    """Samples that wait to be spoken, or None for the end of an utterance."""

    samples: Array | None
    rate: int
    microphone: bool = False


class Recording(NamedTuple):
    """A sound file that waits to be spoken, and is removed after."""

    path: Path


@dataclass
class Utterance:
    """What is known of an utterance on its way.

    Attributes:
        microphone: it is repeated from an open microphone.
        alone: none was being spoken when it began, so that its first frame waits for computing only.
        seconds: pushed so far.
        enough: when as much had been pushed as the first frame waits for.
    """

    alone: bool
    microphone: bool
    seconds: float = 0.0
    enough: float | None = None


class Conversation:
    """Speaks what comes, in order, one utterance after the other.

    Args:
        session: open.
        tell: sends a JSON message to the client.

    Attributes:
        interrupted: called with the first epoch that is not interrupted; drops what was read of earlier ones and not
            given to the client yet, and gives how many frames of speech that were.
    """

    def __init__(self, session: AsyncSession, tell: Tell) -> None:
        self.session = session
        self._tell = tell
        self._waiting: deque[Sound | Say | Recording] = deque()
        self._waiting_seconds = 0.0
        self._changed = asyncio.Event()
        self._utterances: dict[int, Utterance] = {}
        self._gate: VoiceGate | None = None
        self._gate_rate = 0
        self._voiced = self._repeating = False  # in an utterance of the microphone; whether it is repeated
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

    def hear(self, samples: Array, rate: int) -> None:
        """What the other party says."""
        self.session.listen(samples, sample_rate=rate)

    async def speak(self, samples: Array, rate: int) -> None:
        """Samples of speech; waits while more than `MOST_WAITING_SECONDS` wait to be spoken."""
        while self._waiting_seconds > MOST_WAITING_SECONDS:
            self._changed.clear()
            await self._changed.wait()
        self._put(Sound(samples, rate))

    def repeat(self, samples: Array, rate: int) -> None:
        """Samples of an open microphone; what is said in them is spoken, unless something else is being spoken.

        A second takes a few milliseconds; more is given in several calls.
        """
        if self._gate is None or self._gate_rate != rate:
            self.end_microphone()
            self._gate, self._gate_rate = VoiceGate(rate), rate
        for piece in self._gate.push(as_float(samples)):
            if not self._voiced:
                self._repeating = not self._is_busy()  # all of what is said in one breath, or none of it
            self._voiced = piece is not None
            if self._repeating:
                self._put(Sound(piece, rate, microphone=True))

    def end_microphone(self) -> None:
        """The microphone is off."""
        if self._gate is not None and self._gate.close() and self._repeating:
            self._put(Sound(None, self._gate_rate, microphone=True))
        self._gate = None
        self._voiced = self._repeating = False

    def _is_busy(self) -> bool:
        """Whether anything but the microphone is being spoken, or waits to be."""
        others = [utterance for utterance in self._utterances.values() if not utterance.microphone]
        return bool(others) or any(not (isinstance(item, Sound) and item.microphone) for item in self._waiting)

    def say(self, item: Say | Recording) -> None:
        """A text or a recording, to be spoken after what waits already.

        Raises:
            ProtocolError: too many wait.
        """
        if sum(not isinstance(other, Sound) for other in self._waiting) >= MOST_WAITING_ITEMS:
            raise ProtocolError("busy", f"{MOST_WAITING_ITEMS} wait to be spoken already; wait or interrupt", 429)
        self._put(item)

    async def command(self, command: Flush | Interrupt | Control | Say) -> None:
        """Do what a client asks for.

        Raises:
            ProtocolError, ValueError, TypeError: it cannot be done.
        """
        match command:
            case Flush():
                self._put(Sound(None, 0))
            case Interrupt():
                await self.interrupt()
            case Say():
                self.say(command)
            case Control():
                changes = command.model_dump(include={"emotion", "gaze", "head"}, exclude_unset=True)
                self.session.control(**changes, ramp_seconds=command.ramp_seconds)

    async def interrupt(self) -> None:
        """Forget all that waits, and tell the client how much of the utterance it got."""
        async with self._stopping:
            if self._closed:
                return
            await self._stop_speaking()
            played_ms = await self.session.interrupt()
            self._utterances.clear()
            self._gate = None
            self._voiced = self._repeating = False
            unseen = self.interrupted(self.session.epoch)
            self._speaker = asyncio.create_task(self._speak())
        played_ms = max(0, played_ms - unseen * 1000 // FPS)
        self._tell({"type": "interrupted", "played_ms": played_ms, "epoch": self.session.epoch})

    def seen(self, item: Played | Frame | SegmentEnd) -> None:
        """Note what has been given to the client, and tell it the ends and the delays."""
        now = asyncio.get_running_loop().time()
        if isinstance(item, SegmentEnd):
            self._utterances.pop(item.epoch, None)
            self._tell({"type": "segment_end", "epoch": item.epoch, "pts_seconds": item.pts_seconds})
            return
        frame, waited = (item.frame, item.waited_seconds) if isinstance(item, Played) else (item, 0.0)
        if frame.speech_index != 0:
            return
        known = self._utterances.get(frame.epoch)
        if known is not None and known.alone and known.enough is not None:
            compute = max(0.0, now - waited - known.enough)
            self._tell(
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
                    logger.warning("a client's speech failed", exc_info=error)
                self._tell(message)
                with suppress(Exception):  # a session that is closed has no utterance to end
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
        if not len(samples):  # begins no utterance, so none would end
            return
        known = self._utterances.setdefault(
            self.session.epoch, Utterance(microphone=microphone, alone=not self._utterances)
        )
        for piece in pieces(samples, rate):
            await self.session.push(piece, sample_rate=rate)
            known.seconds += len(piece) / rate
            if known.enough is None and known.seconds >= self.session.delay_seconds:
                known.enough = asyncio.get_running_loop().time()
            await asyncio.sleep(0)  # others have their turn: a push that need not wait gives none

    async def _flush(self) -> None:
        known = self._utterances.get(self.session.epoch)
        await self.session.flush()
        if known is not None and known.enough is None:
            known.enough = asyncio.get_running_loop().time()


def pieces(samples: Array, rate: int, seconds: float = 1 / FPS) -> Iterator[Array]:
    """Samples in pieces. Of 40 ms, what is told of the delay is as exact as that."""
    step = int(rate * seconds)
    return (samples[start : start + step] for start in range(0, len(samples), step))


def seconds_of(item: Sound | Say | Recording) -> float:
    """How long it lasts, where that is known before it is spoken."""
    return len(item.samples) / item.rate if isinstance(item, Sound) and item.samples is not None else 0.0


def as_float(samples: Array) -> npt.NDArray[np.float32]:
    """int16 or float samples in [-1, 1]."""
    return samples.astype(np.float32) / (32768.0 if samples.dtype == np.int16 else 1.0)
