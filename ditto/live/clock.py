"""The clock that sessions live by; tests have one that they move themselves."""

from __future__ import annotations

import threading
import time


class Clock:
    """Seconds that only grow, from anywhere."""

    def now(self) -> float:
        """What time it is."""
        return time.monotonic()

    def wait(self, news: threading.Condition, until: float) -> None:
        """Wait for news, or for a time; infinity is never. The caller holds the condition."""
        news.wait(None if until == float("inf") else max(0.0, until - self.now()))
