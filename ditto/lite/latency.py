"""How long a stream waits before it shows a frame: what a window of motion may know of the future, by name."""

from __future__ import annotations

from typing import NamedTuple

from ditto.lite.speech_encoder import HOP_SAMPLES
from ditto.media.audio import SAMPLE_RATE
from ditto.motion.motion import FPS

WINDOW = 80
LOOK_BACK, LOOK_AHEAD = 3, 10  # frames the mouth guard sees before, and at most beyond, those it guards
FRAMES_PER_HOP = HOP_SAMPLES * FPS // SAMPLE_RATE  # 2, of the speech encoder, which looks one hop ahead


class WindowPlan(NamedTuple):
    """How a window is used: `past + hop + future` frames, `WINDOW` at most.

    Attributes:
        past: frames known from before.
        hop: frames to emit.
        future: frames drawn for context only; the next window draws them again and takes over from them gradually.
        ahead: frames of speech beyond the emitted ones that are waited for. What the window holds beyond them is
            unheard, and taken to be as the last frame heard.
    """

    past: int = 20
    hop: int = 50
    future: int = 10
    ahead: int = LOOK_AHEAD

    def check(self) -> None:
        """Raise ValueError unless the plan makes a window."""
        least = min(self.past - LOOK_BACK, self.hop - 1, self.future, self.ahead)
        if self.length > WINDOW or least < 0:
            raise ValueError(
                f"past + hop + future is at most {WINDOW}, past at least {LOOK_BACK}, hop at least 1, ahead not negative, "
                f"got {tuple(self)}"
            )

    @property
    def length(self) -> int:
        """Frames of a window; the fewer, the less work."""
        return self.past + self.hop + self.future

    @property
    def drawn_again(self) -> bool:
        """Whether most of what a window draws is drawn again by later ones, which should then agree with it."""
        return self.future > self.hop

    @property
    def short_sighted(self) -> bool:
        """Whether windows hear less beyond their frames than the network was made for."""
        return self.ahead < LOOK_AHEAD

    @property
    def delay_seconds(self) -> float:
        """The longest way from the first sample of a frame to the last sample that frame waits for."""
        return max(self._waits_for(window) - window * self.hop for window in (0, 1)) / FPS

    def _waits_for(self, window: int) -> int:
        """Frames of sound that must be in before a window can be sampled: whole encoder hops, and one more."""
        needed = (window + 1) * self.hop + self.ahead
        return (-(-needed // FRAMES_PER_HOP) + 1) * FRAMES_PER_HOP


class Latency(NamedTuple):
    """A plan and the diffusion steps of each of its windows."""

    plan: WindowPlan
    steps: int = 10


OFFLINE_PLAN = WindowPlan()
LATENCIES: dict[str, Latency] = {
    "quality": Latency(OFFLINE_PLAN),
    "balanced": Latency(WindowPlan(22, 6, 16, ahead=4), steps=4),  # more steps, or a longer past, move nothing better
    "low": Latency(WindowPlan(22, 2, 16, ahead=0), steps=3),
}


def latency_of(name: str) -> Latency:
    """The latency of that name.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(name, str) or name not in LATENCIES:
        raise ValueError(f"latency is one of {', '.join(LATENCIES)}, got {name!r}; choose one of them")
    return LATENCIES[name]
