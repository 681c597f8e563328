"""Playout: the frames of a session, each at the moment it is due, on a grid of 40 ms."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from typing import NamedTuple

from ditto.live import Frame, Item, SegmentEnd
from ditto.live.waiting import end_tasks, within
from ditto.motion.motion import FPS

BUFFER_FRAMES = 2  # a frame that is late by as much is still shown in time; with `low`, speech comes two frames at a time
END_SECONDS = 2.0  # given to the reading task to end
SLACK = 0.75  # frames: jitter up to this does not reduce the delay


class Played(NamedTuple):
    """A frame that is due.

    Attributes:
        tick: number of the 40 ms since the playout began; a tick without a frame is left out.
        frame: picture and sound of this tick.
        waited_seconds: how long the frame was buffered.
        late: whether it came too late for its tick, and took a later one.
    """

    tick: int
    frame: Frame
    waited_seconds: float
    late: bool = False


class Playout:
    """Iterates over a session at the pace of a player: one frame every 40 ms, and each `SegmentEnd` in its place.

    A jitter buffer of `buffer_frames`: frames may come unevenly. A frame that is too late for its tick is shown at the
    next one, and later frames follow it; leaving out idle frames reduces that delay again. Sound stays with its frame,
    so the two cannot drift apart. After an interrupt that dropped speech, the first frame without speech is given as soon as
    it comes, before its tick: the face stops at once.

    Args:
        session: an open session, or any iterator over its items; nobody else may read it.
        buffer_frames: frames of delay.
    """

    def __init__(self, session: AsyncIterator[Item], buffer_frames: int = BUFFER_FRAMES) -> None:
        self._session = session
        self._buffer_frames = buffer_frames
        self._buffered: deque[tuple[float, Item]] = deque()  # arrival time and item
        self._changed = asyncio.Event()
        self._dropped = asyncio.Event()  # `interrupted` dropped frames
        self._reader: asyncio.Task[None] | None = None
        self._start: float | None = None  # of tick 0
        self._shift = 0  # tick of a frame minus its index
        self._late = False  # whether the next frame has missed a tick
        self._stopping = False  # whether the next frame without speech is given at once

    def interrupted(self, epoch: int) -> int:
        """Drop buffered speech of earlier epochs; how many frames that is. Later frames take their ticks."""
        stale = [i for _, i in self._buffered if isinstance(i, Frame) and i.kind == "speech" and i.epoch < epoch]
        self._buffered = deque(entry for entry in self._buffered if entry[1] not in stale)
        self._shift -= len(stale)
        self._stopping = len(stale) > 0
        self._changed.set()
        self._dropped.set()
        return len(stale)

    async def close(self) -> None:
        """Stop reading; the session stays open. A second call does nothing."""
        if self._reader is not None:
            await end_tasks(self._reader, seconds=END_SECONDS)

    def __aiter__(self) -> AsyncIterator[Played | SegmentEnd]:
        return self

    async def __anext__(self) -> Played | SegmentEnd:
        clock = asyncio.get_running_loop().time
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        while True:
            while not self._buffered:
                if self._reader.done():
                    self._reader.result()  # raises what broke the session
                    raise StopAsyncIteration
                self._changed.clear()
                await self._changed.wait()
            arrived, item = self._buffered[0]
            if isinstance(item, SegmentEnd):
                self._take()
                return item
            if self._start is None:
                self._start = arrived + (self._buffer_frames - item.index) / FPS
            due = self._start + (item.index + self._shift) / FPS
            if item.kind == "idle" and (due - arrived) * FPS > self._buffer_frames + SLACK:
                self._shift -= 1
                self._take()
                continue
            if due < clock():
                missed = math.ceil((clock() - due) * FPS)
                self._shift += missed
                due += missed / FPS
                self._late = True
            tick = item.index + self._shift
            if self._stopping and item.kind != "speech":
                due = min(due, clock())
            self._dropped.clear()
            try:
                await within(due - clock(), self._dropped.wait())
            except asyncio.TimeoutError:
                self._take()
                late, self._late, self._stopping = self._late, False, False
                return Played(tick, item, due - arrived, late)

    def _take(self) -> None:
        self._buffered.popleft()
        self._changed.set()

    async def _read(self) -> None:
        try:
            async for item in self._session:
                self._buffered.append((asyncio.get_running_loop().time(), item))
                self._changed.set()
                while len(self._buffered) > self._buffer_frames:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            self._changed.set()
