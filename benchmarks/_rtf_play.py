"""Plays sessions as an application does: speech pushed by the clock, a reader that takes what comes, interrupts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks._rtf_trace import OPEN_GAP, ROW, SPEECH, Image, Tape, rest_after, row_of
from ditto.live import AsyncSession, Frame, SegmentEnd
from ditto.live.waiting import within
from ditto.media.audio import SAMPLE_RATE
from ditto.stream import FPS, SAMPLES_PER_FRAME

Samples = npt.NDArray[np.float32]

CHUNK = SAMPLE_RATE // 50  # 20 ms, as WebRTC and telephones send it
PAUSES = (0.4, 1.6)  # seconds between utterances
TRACKED_SIZE = 192  # pixels of the kept faces; the landmark network takes as many
STARVED_SECONDS = 30.0  # for something that has to come
MOST_FAULTS_KEPT = 5


async def sleep_until(due: float) -> None:
    """Wait for a moment of the monotonic clock, asleep."""
    await asyncio.sleep(max(0.0, due - time.monotonic()))


class Utterance(NamedTuple):
    """What was said.

    Attributes:
        epoch: its number in the session.
        began: seconds of the monotonic clock when its first sample would exist (paced), or was pushed (flat out).
        samples: pushed, or to be pushed.
    """

    epoch: int
    began: float
    samples: Samples


class Interruption(NamedTuple):
    """Seconds of the monotonic clock when `interrupt` was called and when it returned; frames read before; lips then."""

    called: float
    returned: float
    frames: int
    gap: float


class Player:
    """One session, being talked to and read. Whatever it does other than promised is a fault.

    Attributes:
        trace: every frame that came, of ROW.
        utterances, interruptions: in order.
        pushed_late: seconds by which chunks were pushed after they existed: the benchmark's own unpunctuality.
        faults: what was wrong with the output, in words; the first few.
        watch: called with every speech frame.
    """

    def __init__(self, session: AsyncSession, capacity: int) -> None:
        self.session = session
        self.trace = Tape(ROW, capacity)
        self.utterances: list[Utterance] = []
        self.interruptions: list[Interruption] = []
        self.pushed_late = Tape(np.float64, capacity * SAMPLES_PER_FRAME // CHUNK)
        self.faults: list[str] = []
        self.watch: Callable[[Frame], None] | None = None
        self._came: dict[int, float] = {}  # epoch -> when its first frame did
        self._ended = -1  # epoch
        self._fresh = 0  # speech of an earlier epoch was interrupted
        self._read_of_utterance = 0
        self._news = asyncio.Event()

    async def __aenter__(self) -> Player:
        await self.session.__aenter__()
        self._reading = asyncio.create_task(self._read())
        self._reading.add_done_callback(lambda _: self._news.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.__aexit__(kind, error, trace)
        await self._reading

    async def until(self, seen: Callable[[], bool], seconds: float = STARVED_SECONDS) -> bool:
        """Wait for what shows in what was read; whether it did in that time. Raises what the session raises."""
        deadline = time.monotonic() + seconds
        while not seen():
            if self._reading.done():
                self._reading.result()
                return False
            self._news.clear()
            try:
                await within(deadline - time.monotonic(), self._news.wait())
            except asyncio.TimeoutError:
                return seen()
        return True

    async def say(self, samples: Samples, enough: Callable[[], bool] | None = None) -> Utterance:
        """Push speech at the pace at which it is spoken, each chunk when its last sample exists; stop at `enough`."""
        said = self._begin(samples)
        for start in range(0, len(samples), CHUNK):
            chunk = samples[start : start + CHUNK]
            due = said.began + (start + len(chunk)) / SAMPLE_RATE
            await sleep_until(due)
            self.pushed_late.add(time.monotonic() - due)
            await self.session.push(chunk)
            if enough is not None and enough():
                break
        return said

    async def say_at_once(self, samples: Samples) -> Utterance:
        """Push speech as one piece, as from a synthesiser that is ahead."""
        said = self._begin(samples)
        await self.session.push(samples)
        return said

    async def finish(self) -> None:
        """End the utterance and wait until it was read to its end."""
        said = self.utterances[-1]
        await self.session.flush()
        frames = -1
        while not await self.until(lambda: self._ended >= said.epoch):
            if frames == self._read_of_utterance:
                raise TimeoutError(f"utterance {said.epoch} stopped after {frames} frames, for {STARVED_SECONDS:g} s")
            frames = self._read_of_utterance

    async def interrupt(self) -> Interruption:
        """Interrupt, and hold the session to what it promises then."""
        frames, gap = len(self.trace), self.gap
        called = time.monotonic()
        played_ms = await self.session.interrupt()
        self.interruptions.append(Interruption(called, time.monotonic(), frames, gap))
        if played_ms != self._read_of_utterance * 1000 // FPS:
            self._fault(f"interrupt() says {played_ms} ms were read, it were {self._read_of_utterance} frames")
        self._fresh, self._read_of_utterance = self.session.epoch, 0
        return self.interruptions[-1]

    @property
    def gap(self) -> float:
        """Between the lips of the frame that came last."""
        return float(self.trace.seen(since=max(0, len(self.trace) - 1))["gap"].sum())

    def first_frame(self, said: Utterance) -> float:
        """When the first frame of an utterance came; NaN while none has."""
        return self._came.get(said.epoch, float("nan"))

    def rest(self, interruption: Interruption) -> float:
        """`rest_after` of an interrupt, as far as frames have come."""
        after = self.trace.seen(since=interruption.frames)
        return rest_after(interruption.called, after["arrived"], after["gap"])

    def _begin(self, samples: Samples) -> Utterance:
        self.utterances.append(Utterance(self.session.epoch, time.monotonic(), samples))
        self._read_of_utterance = 0
        return self.utterances[-1]

    async def _read(self) -> None:
        async for item in self.session:
            arrived = time.monotonic()
            if isinstance(item, SegmentEnd):
                self._end(item)
            else:
                if item.kind == "speech":
                    self._came.setdefault(item.epoch, arrived)
                self._check(item)
                self.trace.add(row_of(arrived, item))
                if self.watch is not None and item.kind == "speech":
                    self.watch(item)
            self._news.set()

    def _end(self, end: SegmentEnd) -> None:
        said = self.utterances[-1]
        expected = -(-len(said.samples) // SAMPLES_PER_FRAME)
        if (end.epoch, self._read_of_utterance, end.pts_seconds) != (said.epoch, expected, expected / FPS):
            self._fault(f"{end} came after {self._read_of_utterance} frames; {expected} are due")
        self._ended = end.epoch

    def _check(self, frame: Frame) -> None:
        if frame.index != len(self.trace):
            self._fault(f"frame {frame.index} came where {len(self.trace)} is due")
        if frame.kind != "speech":
            return
        said, k = self.utterances[-1], self._read_of_utterance
        if frame.epoch < self._fresh or frame.epoch != said.epoch:
            self._fault(f"speech of utterance {frame.epoch} came during {said.epoch}")
            return
        own = said.samples[k * SAMPLES_PER_FRAME : (k + 1) * SAMPLES_PER_FRAME]
        right = np.array_equal(frame.audio[: own.size], own) and not frame.audio[own.size :].any()
        if frame.speech_index != k or not right:
            self._fault(f"frame {k} of utterance {said.epoch} is numbered {frame.speech_index}, or carries other sound")
        self._read_of_utterance = k + 1

    def _fault(self, words: str) -> None:
        if len(self.faults) < MOST_FAULTS_KEPT:
            self.faults.append(words)


class Turn(NamedTuple):
    """One utterance up to its interrupt, seconds.

    Attributes:
        first_frame: from its first sample (paced: when it would exist) to its first frame.
        interrupt: how long the call took.
        rest: from the call to a frame with lips at rest, at playout pace.
    """

    first_frame: float
    interrupt: float
    rest: float


async def take_turns(player: Player, speech: Sequence[Samples], repeats: int, paced: bool, seed: int) -> list[Turn]:
    """Speak into a session that idles, interrupt it with its mouth open, `repeats` times after one for warming up.

    Every turn begins at another phase of the session's 80 ms hops and 40 ms frames (from the seed). Flat out, the
    interrupt comes with the first frame, and its rest is not measured.
    """
    random = np.random.default_rng(seed)
    turns = []
    for number in range(repeats + 1):
        await asyncio.sleep(0.5 + 0.08 * random.random())
        samples = speech[number % len(speech)]
        if paced:
            said = await player.say(samples, enough=lambda: _mouth_open(player))
        else:
            said = await player.say_at_once(samples)
        came = await player.until(lambda: player.first_frame(said) > 0)  # noqa: B023 (awaited here)
        if not came:
            raise TimeoutError(f"no frame of utterance {said.epoch} within {STARVED_SECONDS:g} s")
        cut = await player.interrupt()
        rest = float("nan")
        if paced and cut.gap > OPEN_GAP:
            await player.until(lambda: player.rest(cut) > 0, seconds=2.0)  # noqa: B023
            rest = player.rest(cut)
        turns.append(Turn(player.first_frame(said) - said.began, cut.returned - cut.called, rest))
    return turns[1:]


def _mouth_open(player: Player) -> bool:
    """The utterance has been seen for 0.6 s, and its last frame has an open mouth."""
    last = player.trace.seen(since=max(0, len(player.trace) - 1))
    return bool(((last["kind"] == SPEECH) & (last["spoken"] >= 15) & (last["gap"] > OPEN_GAP)).any())


class Flat(NamedTuple):
    """Speech processed flat out: its seconds, wall seconds to its end, and seconds of processor time of the process."""

    speech: float
    wall: float
    processor: float


async def flat_out(player: Player, samples: Samples, repeats: int) -> list[Flat]:
    """Push an utterance as fast as the session takes it and read it as fast as it comes; after one for warming up."""
    found = []
    for _ in range(repeats + 1):
        await asyncio.sleep(0.3)
        wall, processor = time.monotonic(), time.process_time()
        await player.say_at_once(samples)
        await player.finish()
        found.append(Flat(len(samples) / SAMPLE_RATE, time.monotonic() - wall, time.process_time() - processor))
    return found[1:]


class Pictures:
    """Keeps faces, at most `count`, at a size the landmark tracker can use."""

    def __init__(self, window: tuple[slice, slice], count: int) -> None:
        self._window = window
        height, width = (side.stop - side.start for side in window)
        smaller = min(1.0, TRACKED_SIZE / max(height, width))
        self._size = round(width * smaller), round(height * smaller)
        self._kept = np.full((count, *self._size[::-1], 3), 1, np.uint8)  # written to: else it would grow like a leak
        self._count = 0

    def keep(self, frame: Frame) -> None:
        """Take the face of an RGB frame."""
        if self._count < len(self._kept):
            face = np.ascontiguousarray(frame.image[self._window])
            self._kept[self._count] = cv2.resize(face, self._size, interpolation=cv2.INTER_AREA)
            self._count += 1

    def all(self) -> Image:
        """(T, h, w, 3) RGB."""
        return self._kept[: self._count]


async def converse(
    player: Player,
    probe: Sequence[Samples],
    lines: Sequence[Samples],
    seconds: float,
    seed: int,
    pictures: Pictures | None = None,
) -> list[list[Utterance]]:
    """A conversation: the probe, lines with pauses of 0.4 to 1.6 s, every third of them interrupted, the probe again.

    It lasts about `seconds`, and as long as two probes at least.

    Args:
        pictures: keeps the face while the probe is spoken.

    Returns:
        What was said of the probe, first and last.
    """
    random = np.random.default_rng(seed)
    begun = time.monotonic()
    last_probe = begun + seconds - sum(len(samples) / SAMPLE_RATE + 1.0 for samples in probe)
    await asyncio.sleep(0.08 * random.random())  # sessions do not march in step

    async def speak(samples: Samples) -> Utterance:
        said = await player.say(samples)
        await player.finish()
        await asyncio.sleep(random.uniform(*PAUSES))
        return said

    async def speak_probe() -> list[Utterance]:
        player.watch = None if pictures is None else pictures.keep
        said = [await speak(samples) for samples in probe]
        player.watch = None
        return said

    first = await speak_probe()
    number = int(random.integers(len(lines)))
    while time.monotonic() < last_probe:
        number += 1
        samples = lines[number % len(lines)]
        if number % 3:
            await speak(samples)
            continue
        cut = time.monotonic() + random.uniform(1.0, 3.0)
        await player.say(samples, enough=lambda: time.monotonic() >= cut)  # noqa: B023 (awaited here)
        await player.interrupt()
        await asyncio.sleep(random.uniform(*PAUSES))
    return [first, await speak_probe()]
