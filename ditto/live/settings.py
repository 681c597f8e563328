"""What a session is opened with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from ditto.live.outputs import OUTPUTS
from ditto.media.audio import HIGHEST_RATE, LOWEST_RATE
from ditto.motion.emotion import emotion_vector
from ditto.motion.motion import FPS
from ditto.performer import Capability, Performer, check_capabilities, check_latency
from ditto.stream import LARGEST_SEED, check_seed

if TYPE_CHECKING:
    from ditto.controls import Controls

SEED_STEP = 0x9E3779B97F4A7C15  # odd, so that 2 ** 64 utterances in a row have seeds of their own


class FaceOptions(TypedDict, total=False):
    """Keywords of `TalkingHead.session` and `blocking_session`, and of the adapters.

    Attributes:
        latency: "low" (default), "balanced" or "quality": what is waited for before a frame is shown.
        idle: whether the face lives between utterances; without, only speech gives frames (and the rest of a block that
            was interrupted, where a bundle makes blocks). None (default): wherever the bundle can.
        seed: all randomness of the session; 0 unless given.
        emotion: weights by name, e.g. {"happy": 0.6}; `control` changes it.
        still: keep the head where it is in the portrait.
        controls: edits of every frame; a function of the frame's index makes a timeline. `control` replaces it.
        any_speed: open the session even where this machine draws fewer than `ditto.live.scheduler.SLOWEST_FPS` frames a
            second, for readers that wait for every frame. False unless given.
    """

    latency: str
    idle: bool | None
    seed: int
    emotion: Mapping[str, float] | None
    still: bool
    controls: Controls | Callable[[int], Controls] | None
    any_speed: bool


class SessionOptions(FaceOptions, total=False):
    """Keywords of `TalkingHead.session` and `blocking_session`: `FaceOptions`, and the form of what comes out.

    Attributes:
        output: form of the pictures: "rgb24" (default), "bgr24", "rgba" or "yuv420p".
        audio_rate: samples a second of the sound that frames carry, a multiple of 25; 16000 unless given.
    """

    output: str
    audio_rate: int


@dataclass(frozen=True)
class Settings:
    """`SessionOptions`, checked.

    Raises:
        ValueError: a latency, output, rate, seed or emotion there is not.
        TypeError: a seed or a rate that is not a whole number, or a name that is no option.
    """

    latency: str = "low"
    output: str = "rgb24"
    audio_rate: int = 16000
    idle: bool | None = None
    seed: int = 0
    emotion: Mapping[str, float] | None = None
    still: bool = False
    controls: Controls | Callable[[int], Controls] | None = None
    any_speed: bool = False

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise ValueError(f"output is one of {', '.join(OUTPUTS)}, got {self.output!r}; choose one of them")
        if not isinstance(self.audio_rate, int) or isinstance(self.audio_rate, bool):
            raise TypeError(f"audio_rate is a whole number of samples a second, got {self.audio_rate!r}")
        if self.audio_rate % FPS or not LOWEST_RATE <= self.audio_rate <= HIGHEST_RATE:
            raise ValueError(
                f"audio_rate is a multiple of {FPS} from {LOWEST_RATE} to {HIGHEST_RATE}, got {self.audio_rate}; "
                "16000, 24000 and 48000 are"
            )
        object.__setattr__(self, "seed", check_seed(self.seed))
        emotion_vector(self.emotion)


    def check(self, performer: Performer) -> None:
        """Raise ValueError where a performer has no such latency, or cannot do what is asked of it."""
        check_latency(self.latency, performer.latencies)
        asked = {
            Capability.EMOTION: bool(self.emotion),
            Capability.CONTROLS: self.still or self.controls is not None,
            Capability.IDLE: self.idle is True,
        }
        check_capabilities(performer, [capability for capability, needed in asked.items() if needed])


def utterance_seed(seed: int, epoch: int) -> int:
    """The seed of one utterance of a session: a `Stream` with it, fed with the same samples, gives the same frames."""
    return (seed + epoch * SEED_STEP) & LARGEST_SEED
