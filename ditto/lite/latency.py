"""Latencies by name: how many future frames a window of motion knows before its frames are shown."""

from __future__ import annotations

from typing import NamedTuple

from ditto.lite.speech_encoder import FRAMES_PER_HOP
from ditto.motion.motion import FPS

WINDOW = 80  # frames, at most; the motion network was trained with windows of this length
# Frames that lip closure reads before, and at most after, those that it changes. Before: the frame of a closure and the
# two on the way back from it. After: lips begin to close in a pause only where it is known to last a second
# (`postprocess.REST_AFTER`).
LOOKBACK, LOOKAHEAD = 3, 10


class WindowPlan(NamedTuple):
    """How a window is used: `past + hop + future` frames, `WINDOW` at most.

    Attributes:
        past: frames known from before.
        hop: frames to emit.
        future: frames sampled for context only. The next window samples them again and takes over from them gradually.
        lookahead: frames of speech beyond the emitted ones that the window waits for; negative: the last emitted frames
            are sampled before their speech is encoded. Where the window is longer, the last known frame is repeated.
    """

    past: int = 20
    hop: int = 50
    future: int = 10
    lookahead: int = LOOKAHEAD

    def check(self) -> None:
        """Raise ValueError unless the plan makes a window."""
        least = min(self.past - LOOKBACK - self.predicted, self.hop - 1, self.future, self.lookahead + self.hop)
        if self.length > WINDOW or least < 0:
            raise ValueError(
                f"expected past + hop + future of at most {WINDOW}, past of at least {LOOKBACK}, hop of at least 1 and "
                f"lookahead of at least -hop, got {tuple(self)}; give other numbers"
            )

    @property
    def length(self) -> int:
        """Frames of a window; the fewer, the less work."""
        return self.past + self.hop + self.future

    @property
    def resamples_future(self) -> bool:
        """Whether later windows sample most frames of a window again, and should then agree with it."""
        return self.future > self.hop

    @property
    def predicted(self) -> int:
        """Emitted frames whose speech is not encoded yet."""
        return max(0, -self.lookahead)

    @property
    def reduced_lookahead(self) -> bool:
        """Whether windows know less of the future than the network was trained with."""
        return self.lookahead < LOOKAHEAD

    @property
    def delay_seconds(self) -> float:
        """The longest time from the first sample of a frame to the last sample that frame waits for."""
        return max(self._waits_for(window) - window * self.hop for window in (0, 1)) / FPS

    def _waits_for(self, window: int) -> int:
        """Frames of sound that must be in before a window can be sampled: whole encoder hops, and one more."""
        needed = (window + 1) * self.hop + self.lookahead
        return (-(-needed // FRAMES_PER_HOP) + 1) * FRAMES_PER_HOP


class Latency(NamedTuple):
    """A plan, the diffusion steps of each of its windows, and the strength of the speech condition (`MotionSampler`)."""

    plan: WindowPlan
    steps: int = 10
    guidance: float = 1.0


OFFLINE_PLAN = WindowPlan()
# Figures of the four: docs/streaming.md. 10 steps: 25 give the same correlation with the target (.872 against .874,
# ../shared/voice/spec.md, section 6). Guidance of 1.3 brings lips nearer to real ones (r of opening +.005 in talk and on
# GRID's speaker 1) for .4 ms a frame; live, that is too much. For `balanced`, more steps or a longer past improve no figure
# of `benchmarks.lips`.
LATENCIES: dict[str, Latency] = {
    "quality": Latency(OFFLINE_PLAN, guidance=1.3),
    "balanced": Latency(WindowPlan(22, 6, 16, lookahead=4), steps=4),
    "low": Latency(WindowPlan(22, 2, 16, lookahead=0), steps=3),
    "lowest": Latency(WindowPlan(22, 2, 16, lookahead=-2), steps=3),
}


def latency_of(name: str) -> Latency:
    """The latency with this name.

    Raises:
        ValueError: no latency has this name.
    """
    if not isinstance(name, str) or name not in LATENCIES:
        raise ValueError(f"expected a latency out of {', '.join(LATENCIES)}, got {name!r}; choose one of them")
    return LATENCIES[name]
