"""What the server counts, for Prometheus: `GET /metrics`. Needs prometheus-client."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ditto.frame import Item, SegmentEnd
from ditto.live.playout import Played
from ditto.live.server.watching import Watcher

if TYPE_CHECKING:
    from ditto.live.server.clients import Clients
    from ditto.talking_head import TalkingHead

CONTENT_TYPE = str(CONTENT_TYPE_LATEST)
DELAYS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 5.0)  # seconds
STEPS = (0.001, 0.002, 0.004, 0.008, 0.012, 0.02, 0.04, 0.08, 0.16, 0.32, 1.0)  # seconds; a frame has 0.04


class Metrics(Watcher):
    """Counts what happens in all conversations of a server. Call `close` when the server ends.

    `ditto_deadlines_missed_total` counts frames that came too late for their 40 ms, at the pace "playout" and over WebRTC. It
    is a share of `ditto_frames_total`.
    """

    def __init__(self, head: TalkingHead, clients: Clients) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, processor time, open files; on Linux
        scheduler = head.scheduler

        def gauge(name: str, text: str, value: Callable[[], float]) -> None:
            Gauge(name, text, registry=registry).set_function(value)

        gauge("ditto_sessions", "Open sessions", lambda: scheduler.sessions)
        gauge("ditto_motion_sessions", "Open sessions whose clients draw", lambda: scheduler.motion_sessions)
        gauge("ditto_sessions_limit", "Most sessions at once", lambda: scheduler.max_sessions)
        gauge("ditto_load", "Share of the sessions, or of the machine, that is in use", lambda: scheduler.load)
        gauge("ditto_clients", "Connected clients", lambda: len(clients))
        gauge("ditto_draining", "1 while no new sessions are taken", lambda: float(clients.draining))
        gauge("ditto_speech_waiting_seconds", "Speech in the queues of all sessions", lambda: scheduler.waiting_seconds)
        gauge("ditto_frames_unread", "Frames that no reader has taken yet", lambda: scheduler.unread)
        self._refused = Counter("ditto_sessions_refused", "Sessions refused as all were in use", registry=registry)
        self._frames = Counter("ditto_frames", "Frames sent, by kind", ["kind"], registry=registry)
        self._missed = Counter("ditto_deadlines_missed", "Frames that came too late for their tick", registry=registry)
        self._utterances = Counter("ditto_utterances", "Utterances sent to their end", registry=registry)
        self._first_frame = Histogram(
            "ditto_first_frame_seconds", "From enough speech to the first frame", registry=registry, buckets=DELAYS
        )
        self._buffered = Histogram(
            "ditto_playout_seconds", "How long a first frame was buffered", registry=registry, buckets=DELAYS
        )
        self._steps = Histogram(
            "ditto_step_seconds", "Computing, by step", ["step"], registry=registry, buckets=STEPS
        )
        self.close = scheduler.observe(lambda step, seconds, rows: self._steps.labels(step).observe(seconds))

    def delivered(self, item: Played | Item) -> None:
        if isinstance(item, SegmentEnd):
            self._utterances.inc()
            return
        frame = item.frame if isinstance(item, Played) else item
        self._frames.labels(frame.kind).inc()
        if isinstance(item, Played) and item.late:
            self._missed.inc()

    def answered(self, compute_seconds: float, playout_seconds: float) -> None:
        self._first_frame.observe(compute_seconds)
        self._buffered.observe(playout_seconds)

    def refused(self) -> None:
        """A session was refused, as all are in use."""
        self._refused.inc()

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return bytes(generate_latest(self._registry))
