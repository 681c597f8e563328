"""The clock of sessions, and the pace at which a session shows its frames. Tests replace the clock."""

from __future__ import annotations

import threading
import time

from ditto.motion.motion import FPS

LATE_SECONDS = 1.0 / FPS  # a reader that is later than this moves the pace


class Clock:
    """A monotonic clock, in seconds; its zero means nothing."""

    def now(self) -> float:
        """The time now."""
        return time.monotonic()

    def wait(self, news: threading.Condition, until: float) -> None:
        """Wait until the condition, which the caller holds, is notified or the clock reaches `until` (infinity: no limit)."""
        news.wait(None if until == float("inf") else max(0.0, until - self.now()))


class Pace:
    """When the frames of one session are due: 25 a second from the first one, later after a reader that was late."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._opened = clock.now()
        self._start: float | None = None  # when frame 0 was due

    def now(self) -> float:
        """The time now."""
        return self._clock.now()

    def due(self, index: int) -> float:
        """The time at which to show a frame; before the first frame, the time at which the session opened."""
        return self._opened if self._start is None else self._start + index / FPS

    def start(self, index: int) -> None:
        """A frame was drawn. The first one sets the pace: it is due now."""
        if self._start is None:
            self._start = self.now() - index / FPS

    def frame_read(self, index: int) -> None:
        """The reader took a frame. If it was late, all later frames are due later by as much."""
        late = self.now() - self.due(index)
        if late > LATE_SECONDS and self._start is not None:
            self._start += late

    def make_due(self, index: int) -> None:
        """Bring a frame forward: it is due now at the latest, and the later frames follow it."""
        if self._start is not None:
            self._start = min(self._start, self.now() - index / FPS)
