"""How many sessions a machine holds: what each kind of session costs, and what all of them may cost together.

A session is counted at what it costs while it speaks, silent or not: all of them may speak at once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ditto.errors import BusyError
from ditto.machine import cores
from ditto.media.rates import FPS, SAMPLE_RATE
from ditto.motion.emotion import emotion_vector
from ditto.performer import Advance, Appearance, Draw, Edits, Idle, Performer

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait
    from ditto.talking_head import TalkingHead

# Share of the cores that sessions may take; the rest is for what is not counted: the event loop, encoders of video, batches
# that are not full.
HEADROOM = 0.7
# A hop counts for more than it takes. A batch makes all of its sessions wait, and workers that run networks at the same time
# share the memory's bandwidth. `benchmarks.rtf` on two cores, with a hop of 6 ms: 11 sessions of motion alone miss .085 % of
# their deadlines, 12 miss .38 %, where 16 fit in by what they take. With this weight 11 fit in, and 5 with pictures, which
# miss 0 to .19 %. (The encoder has become faster since: a hop of 5.5 ms lets 12 in.)
HOP_WEIGHT = 1.5
TRIAL_HOPS, MAX_TRIAL_HOPS = 4, 64  # measured at least; the window of the slowest latency, and one more, take 60
TRIAL_FRAMES = 3
AVERAGE = 0.02  # weight of the newest measurement


class Kind(NamedTuple):
    """Sessions that cost the same: of one latency, with pictures or without."""

    latency: str
    draws: bool


class Capacity:
    """What sessions count for, in cores: seconds of processor time a second of a session, hops times `HOP_WEIGHT`.

    Args:
        cores: of the machine.
        hop_samples: of the performer.
    """

    def __init__(self, cores: int, hop_samples: int) -> None:
        self.cores = HEADROOM * cores
        self._hops = SAMPLE_RATE / hop_samples  # a second
        self._hop_seconds: dict[str, float] = {}  # by latency
        self._frame_seconds: dict[bool, float] = {}  # with pictures, without
        self._held: Counter[Kind] = Counter()  # sessions, open or being opened

    def knows_hop(self, latency: str) -> bool:
        """Whether a hop was measured at a latency."""
        return latency in self._hop_seconds

    def knows_frame(self, draws: bool) -> bool:
        """Whether a frame was measured, with a picture or without."""
        return draws in self._frame_seconds

    def add_hop(self, latency: str, seconds: float) -> None:
        """A hop of one session took so much processor time, in a full batch."""
        self._hop_seconds[latency] = _averaged(self._hop_seconds.get(latency), seconds)

    def add_frame(self, draws: bool, seconds: float) -> None:
        """A frame took so much processor time."""
        self._frame_seconds[draws] = _averaged(self._frame_seconds.get(draws), seconds)

    def cost(self, kind: Kind) -> float:
        """Cores that a session counts for while it speaks; 0 for what was not measured."""
        hop, frame = self._hop_seconds.get(kind.latency, 0.0), self._frame_seconds.get(kind.draws, 0.0)
        return HOP_WEIGHT * self._hops * hop + FPS * frame

    @property
    def used(self) -> float:
        """Cores that all sessions count for while they speak."""
        return sum(count * self.cost(kind) for kind, count in self._held.items())

    @property
    def load(self) -> float:
        """The share of the cores that sessions may take that is in use."""
        return self.used / self.cores

    def check(self, kind: Kind) -> None:
        """Raise BusyError if one more session does not fit in. The first one always does."""
        used, cost = self.used, self.cost(kind)
        if self._held.total() and used + cost > self.cores:
            raise BusyError(
                f"expected one more session to fit in, which takes {cost:.2f} processor cores, but the "
                f"{self._held.total()} open ones use {used:.2f} of the {self.cores:.2f} for sessions and leave "
                f"{max(0.0, self.cores - used):.2f}; close one, try again later, or load the bundle with max_sessions, a "
                "number that holds whatever they take"
            )

    def take(self, kind: Kind) -> None:
        """Count a session."""
        self._held[kind] += 1

    def give_back(self, kind: Kind) -> None:
        """Count a session no longer."""
        self._held[kind] -= 1

    def more(self, draws: bool) -> int | None:
        """How many more sessions can be held, of the dearest latency that was measured; None if none was."""
        costs = [self.cost(Kind(latency, draws)) for latency in self._hop_seconds]
        return max(0, int((self.cores - self.used) / max(*costs, 1e-6))) if costs else None


def _averaged(mean: float | None, newest: float) -> float:
    return newest if mean is None else mean + AVERAGE * (newest - mean)


def processes_held(head: TalkingHead, portrait: Portrait, latency: str = "low") -> int:
    """How many sessions with pictures this machine holds where each has a process of its own, so that no batches form.

    Measures for about half a second. Never less than one.
    """
    performer, appearance = head.performer, head.appearance(portrait)
    capacity = Capacity(cores(), performer.hop_samples)
    face = performer.face(appearance, 0)
    shot = performer.idle([Idle(performer.begin(appearance, 0, latency), emotion_vector(None))])[0].shots[0]
    capacity.add_hop(latency, hop_seconds(performer, appearance, latency, 1))
    capacity.add_frame(True, frame_seconds(lambda: len(performer.draw([Draw(face, shot, Edits.none())]))))
    return max(1, capacity.more(draws=True) or 0)


def hop_seconds(performer: Performer, appearance: Appearance, latency: str, rows: int) -> float:
    """Processor seconds that a hop of speech takes, of each of `rows` streams in one batch."""
    emotion = emotion_vector(None)
    noise = 0.1 * np.random.default_rng(0).standard_normal(performer.hop_samples).astype(np.float32)
    states = [performer.begin(appearance, seed, latency) for seed in range(rows)]
    spent, hops, warm = 0.0, 0, False  # warm: shots have come, so every step has run
    for _ in range(MAX_TRIAL_HOPS):
        start = time.thread_time()
        advanced = performer.advance([Advance(state, noise, emotion) for state in states])
        seconds = time.thread_time() - start
        states = [one.state for one in advanced]
        if warm:
            spent, hops = spent + seconds, hops + 1
        shots = len(advanced[0].shots) > 0
        if shots and hops >= TRIAL_HOPS:
            break
        warm = warm or shots
    return spent / max(hops, 1) / rows


def try_hops(performer: Performer, appearance: Appearance, latency: str, rows: int) -> None:
    """Advance `rows` streams in one batch until every step has run."""
    emotion = emotion_vector(None)
    silence = np.zeros(performer.hop_samples, np.float32)
    states = [performer.begin(appearance, seed, latency) for seed in range(rows)]
    for _ in range(MAX_TRIAL_HOPS):
        advanced = performer.advance([Advance(state, silence, emotion) for state in states])
        if advanced[0].shots:
            return
        states = [one.state for one in advanced]


def frame_seconds(draw: Callable[[], int]) -> float:
    """Processor seconds of a frame, least of a few calls, each of which says how many frames it made."""
    found = []
    for _ in range(TRIAL_FRAMES):
        start = time.thread_time()
        frames = draw()
        found.append((time.thread_time() - start) / frames)
    return min(found)
