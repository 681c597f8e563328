"""Playout: the frames of a session, each at the wall-clock moment it is due, on a grid of 40 ms."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from ditto.live import Frame, Item, SegmentEnd
from ditto.motion import FPS

BUFFER_FRAMES = 1  # what a frame may come late and still be shown in time; the session keeps a frame ready besides


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

    Each frame is kept back by `buffer_frames`, so that they may come unevenly. One that comes too late for its tick is
    shown at the next, and all that follow with it (a session's own clock goes by its reader, so no delay builds up). Sound
    belongs to its frame: the two cannot drift apart.

    Args:
        session: an open session, or any iterator over its items; nobody else may read it.
        buffer_frames: frames of delay.
        clock, sleep: seconds that only grow, and waiting on them.
    """

    def __init__(
        self,
        session: AsyncIterator[Item],
        buffer_frames: int = BUFFER_FRAMES,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._buffer = buffer_frames
        self._clock = clock
        self._sleep = sleep
        self._start: float | None = None  # of tick 0
        self._shift = 0  # tick of a frame, less its index
        self._first_epoch = 0
        self._kept: Frame | None = None  # being kept back

    def interrupted(self, epoch: int) -> int:
        """A speech frame of an earlier epoch that is being kept back is not to be shown; how many that are, 0 or 1."""
        self._first_epoch = epoch
        return int(self._kept is not None and self._is_stale(self._kept))

    def _is_stale(self, frame: Frame) -> bool:
        return frame.kind == "speech" and frame.epoch < self._first_epoch

    def __aiter__(self) -> AsyncIterator[Played | SegmentEnd]:
        return self

    async def __anext__(self) -> Played | SegmentEnd:
        while True:
            item = await self._session.__anext__()
            if isinstance(item, SegmentEnd):
                return item
            now = self._clock()
            if self._start is None:
                self._start = now + (self._buffer - item.index) / FPS
            wait = self._start + (item.index + self._shift) / FPS - now
            if wait < 0:
                late = math.ceil(-wait * FPS)
                self._shift += late
                wait += late / FPS
            tick = item.index + self._shift
            self._kept = item
            try:
                await self._sleep(wait)
            finally:
                self._kept = None
            if not self._is_stale(item):
                return Played(tick, item, wait)
