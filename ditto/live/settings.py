"""The options of a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from ditto.live.capacity import Kind
from ditto.live.outputs import MOTION
from ditto.media.audio import HIGHEST_RATE, LOWEST_RATE
from ditto.media.pixels import OUTPUTS
from ditto.motion.emotion import emotion_vector
from ditto.motion.motion import FPS
from ditto.motion.style import style_strength
from ditto.performer import Capability, Performer, check_capabilities, check_latency
from ditto.provenance import Label
from ditto.stream import MAX_SEED, check_edit, check_seed, edit_needs

if TYPE_CHECKING:
    from ditto.controls.timeline import Edit

SEED_STEP = 0x9E3779B97F4A7C15  # odd, so that 2 ** 64 utterances in a row have different seeds


class FaceOptions(TypedDict, total=False):
    """Keywords of `TalkingHead.session` and `blocking_session`, and of the adapters.

    Attributes:
        latency: one of `performer.latencies`, "low" by default: how much of the speech after a frame it waits for.
        idle: whether there are frames between utterances. If False, only speech gives frames (and an interrupted block,
            of a bundle that makes blocks). None (default): if the bundle can.
        seed: of all randomness of the session; 0 by default.
        emotion: weights by name, e.g. {"happy": 0.6}; `control` changes them.
        still: keep the head where it is in the portrait.
        controls: edits of every frame, as of `TalkingHead.stream`; times of a timeline count from the session's first frame.
            `control(controls=...)` replaces `Controls` and functions, `control(timeline=...)` functions and timelines.
        style: how much head and brows move: "calm", "natural" (default), "lively", or a factor from 0 to 2 on "natural";
            `control` changes it.
        any_speed: open the session even if this machine draws fewer than `ditto.live.scheduler.MIN_FPS` frames a
            second, for readers that wait for every frame. False by default.
        label: drawn into every picture (docs/provenance.md).
    """

    latency: str
    idle: bool | None
    seed: int
    emotion: Mapping[str, float] | None
    still: bool
    controls: Edit | None
    style: str | float
    any_speed: bool
    label: Label | None


class SessionOptions(FaceOptions, total=False):
    """Keywords of `TalkingHead.session` and `blocking_session`: `FaceOptions`, and the formats of pictures and sound.

    Attributes:
        output: pixel format of the pictures: "rgb24" (default), "bgr24", "rgba", "rgba_stacked", "rgb24_green" or "yuv420p"
            (docs/outputs.md). "motion" for frames that are drawn elsewhere: each has its motion and an empty image
            (0, 0, 3), and costs no drawing.
        audio_rate: samples a second of the sound that frames carry, a multiple of 25; 16000 by default.
    """

    output: str
    audio_rate: int


@dataclass(frozen=True)
class Settings:
    """`SessionOptions`, checked.

    Raises:
        ValueError: an unknown output, emotion or style; a rate, seed, weight or strength out of range.
        TypeError: a seed or a rate that is not a whole number; a style of another type; an unknown option.
    """

    latency: str = "low"
    output: str = "rgb24"
    audio_rate: int = 16000
    idle: bool | None = None
    seed: int = 0
    emotion: Mapping[str, float] | None = None
    still: bool = False
    controls: Edit | None = None
    style: str | float = "natural"
    any_speed: bool = False
    label: Label | None = None

    def __post_init__(self) -> None:
        if self.output not in (known := (*OUTPUTS, MOTION)):
            raise ValueError(f"expected an output of {', '.join(known)}, got {self.output!r}; choose one of them")
        if not isinstance(self.audio_rate, int) or isinstance(self.audio_rate, bool):
            raise TypeError(f"expected a whole number of samples a second as audio_rate, got {self.audio_rate!r}; give 16000")
        if self.audio_rate % FPS or not LOWEST_RATE <= self.audio_rate <= HIGHEST_RATE:
            raise ValueError(
                f"expected an audio_rate that is a multiple of {FPS} from {LOWEST_RATE} to {HIGHEST_RATE}, got "
                f"{self.audio_rate}; choose 16000, 24000 or 48000"
            )
        object.__setattr__(self, "seed", check_seed(self.seed))
        if self.label is not None and not isinstance(self.label, Label):
            raise TypeError(f"expected a Label or None as label, got {type(self.label).__name__}; give ditto.Label()")
        check_edit(self.controls)
        emotion_vector(self.emotion)
        style_strength(self.style)

    @property
    def draws(self) -> bool:
        """Whether frames have pictures; False for the output "motion"."""
        return self.output != MOTION

    @property
    def kind(self) -> Kind:
        """Sessions of one kind cost the same."""
        return Kind(self.latency, self.draws)

    def check(self, performer: Performer) -> None:
        """Raise ValueError if a performer lacks the latency or a capability that these settings need."""
        check_latency(self.latency, performer.latencies)
        needs = {
            Capability.EMOTION: bool(self.emotion),
            Capability.CONTROLS: self.still,
            Capability.IDLE: self.idle is True,
            Capability.STYLE: style_strength(self.style) != 1.0,
            Capability.MOTION: not self.draws,
        }
        needed = {capability for capability, needed in needs.items() if needed} | edit_needs(self.controls)
        check_capabilities(performer, sorted(needed, key=lambda capability: capability.value))


def utterance_seed(seed: int, epoch: int) -> int:
    """The seed of an utterance of a session: a `Stream` with this seed and the same samples gives the same frames."""
    return (seed + epoch * SEED_STEP) & MAX_SEED
