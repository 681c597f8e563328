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

BUFFER_FRAMES = 2  # what a frame may come late and still be shown in time; speech of `low` comes two frames at a time
END_SECONDS = 2.0  # for what reads the session to end
SLACK = 0.75  # frames of unevenness that are no reason to catch up


class Played(NamedTuple):
    """A frame whose moment has come.

    Attributes:
        tick: which 40 ms since the playout began; grows, and leaves out those in which nothing could be shown.
        frame: what is shown and sounds in them.
        waited_seconds: how long the frame was kept back until its moment.
    """

    tick: int
    frame: Frame
    waited_seconds: float


class Playout:
    """Iterates over a session at the pace of a player: one frame every 40 ms, `SegmentEnd` in its place.

    Frames are read as they come and kept back by `buffer_frames`, so that they may come unevenly. One that comes too
    late for its tick is shown at the next, and all that follow with it; the delay that builds up so is taken back by
    leaving out idle frames. Sound belongs to its frame: the two cannot drift apart.

    Args:
        session: an open session, or any iterator over its items; nobody else may read it.
        buffer_frames: frames of delay.
    """

    def __init__(self, session: AsyncIterator[Item], buffer_frames: int = BUFFER_FRAMES) -> None:
        self._session = session
        self._buffer = buffer_frames
        self._kept: deque[tuple[float, Item]] = deque()  # when it came, and what
        self._changed = asyncio.Event()
        self._cut = asyncio.Event()  # something was taken away
        self._reader: asyncio.Task[None] | None = None
        self._start: float | None = None  # of tick 0
        self._shift = 0  # tick of a frame, less its index

    def interrupted(self, epoch: int) -> int:
        """Forget speech of earlier epochs that is being kept back; how many frames that are. What comes next takes
        their places."""
        stale = [i for _, i in self._kept if isinstance(i, Frame) and i.kind == "speech" and i.epoch < epoch]
        self._kept = deque(kept for kept in self._kept if kept[1] not in stale)
        self._shift -= len(stale)
        self._changed.set()
        self._cut.set()
        return len(stale)

    async def close(self) -> None:
        """Stop reading. The session stays open; twice does no harm."""
        if self._reader is not None:
            await end_tasks(self._reader, seconds=END_SECONDS)

    def __aiter__(self) -> AsyncIterator[Played | SegmentEnd]:
        return self

    async def __anext__(self) -> Played | SegmentEnd:
        clock = asyncio.get_running_loop().time
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        while True:
            while not self._kept:
                if self._reader.done():
                    self._reader.result()  # raises what broke the session
                    raise StopAsyncIteration
                self._changed.clear()
                await self._changed.wait()
            came, item = self._kept[0]
            if isinstance(item, SegmentEnd):
                self._take()
                return item
            if self._start is None:
                self._start = came + (self._buffer - item.index) / FPS
            due = self._start + (item.index + self._shift) / FPS
            if item.kind == "idle" and (due - came) * FPS > self._buffer + SLACK:
                self._shift -= 1
                self._take()
                continue
            if due < clock():
                late = math.ceil((clock() - due) * FPS)
                self._shift += late
                due += late / FPS
            tick = item.index + self._shift
            self._cut.clear()
            try:
                await within(due - clock(), self._cut.wait())
            except asyncio.TimeoutError:
                self._take()
                return Played(tick, item, due - came)

    def _take(self) -> None:
        self._kept.popleft()
        self._changed.set()

    async def _read(self) -> None:
        try:
            async for item in self._session:
                self._kept.append((asyncio.get_running_loop().time(), item))
                self._changed.set()
                while len(self._kept) > self._buffer:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            self._changed.set()
