"""The clock that sessions live by; tests have one that they move themselves."""

from __future__ import annotations

import threading
import time

from ditto.motion.motion import FPS

LATE_SECONDS = 1.0 / FPS  # behind the clock, before the clock waits for the reader


class Clock:
    """Seconds that only grow, from anywhere."""

    def now(self) -> float:
        """What time it is."""
        return time.monotonic()

    def wait(self, news: threading.Condition, until: float) -> None:
        """Wait for news, or for a time; infinity is never. The caller holds the condition."""
        news.wait(None if until == float("inf") else max(0.0, until - self.now()))


class Pace:
    """When the frames of one session are due: 25 a second from its first one, except that it waits for a late reader."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._opened = clock.now()
        self._start: float | None = None  # when frame 0 was due

    def now(self) -> float:
        """What time it is."""
        return self._clock.now()

    def due(self, index: int) -> float:
        """When a frame is to be shown."""
        return self._opened if self._start is None else self._start + index / FPS

    def begin(self, index: int) -> None:
        """A frame is there; the first one ever is due now."""
        if self._start is None:
            self._start = self.now() - index / FPS

    def read(self, index: int) -> None:
        """A frame is read; where that is late, all that follow are due later."""
        late = self.now() - self.due(index)
        if late > LATE_SECONDS and self._start is not None:
            self._start += late

    def catch_up(self, index: int) -> None:
        """A frame is due now at the latest, however far the reader is ahead."""
        if self._start is not None:
            self._start = min(self._start, self.now() - index / FPS)
