"""Performer: turns the speech of many streams into pictures. The one interface between generators and their callers.

    samples -> advance -> shots -> draw -> pictures

A performer holds weights. What a stream remembers is an argument and a result, opaque and immutable: `State` from speech to
shots, `Face` from shots to pictures. So a caller may keep an old value and go on from it, and may advance a stream in one
thread while it draws the stream in another. There are two callers: `ditto.stream.Stream` (offline, no clock) and
`ditto.live.scheduler.Scheduler` (many sessions, one clock). The performer of the bundles with explicit motion is
`ditto.row_performer.RowPerformer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ditto.errors import BundleError, UnsupportedError
from ditto.motion.emotion import EMOTIONS, emotion_vector
from ditto.motion.listening import NEUTRAL, Reaction

if TYPE_CHECKING:
    from ditto.controls import Controls
    from ditto.controls.driving import Driving
    from ditto.motion.motion import Motion
    from ditto.motion.space import MotionSpace
    from ditto.portrait.portrait import Portrait

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Observer = Callable[[str, float, int], None]
EditsAt = Callable[[int], "Edits"]
T = TypeVar("T")


class Capability(Enum):
    """What a performer can do. A stream or session that needs a capability it lacks is refused when it is opened."""

    CONTROLS = "controls"  # edits of the motion: `Controls`, gaze
    HEAD = "head pose"  # the head can be turned and moved
    EMOTION = "emotion"
    IDLE = "idle"  # pictures without speech
    LISTENING = "listening"  # idle frames react to the other party
    REDRAW = "redraw"  # each shot can be drawn again with other edits, or left out
    MOTION = "motion"  # every picture comes with its motion
    STYLE = "style"  # head and brows move more or less: `ditto.motion.style`


class Appearance:
    """A portrait, prepared by one performer. All streams of that portrait share it."""

    __slots__ = ("__weakref__",)


class State:
    """What the performer remembers of an utterance from one call of `advance` or `idle` to the next."""

    __slots__ = ()


class Shot:
    """What a performer draws one frame from."""

    __slots__ = ()


class Face:
    """What the performer remembers from one picture of a stream to the next."""

    __slots__ = ()


def expect_own(value: object, kind: type[T]) -> T:
    """The value, if it is of the performer's own class.

    Raises:
        TypeError: it is not; another performer made it.
    """
    if not isinstance(value, kind):
        raise TypeError(
            f"expected a {kind.__name__}, got a {type(value).__name__}; pass only values that the same performer returned"
        )
    return value


@dataclass(frozen=True, slots=True)
class Advance:
    """A job for `Performer.advance`: speech of one stream.

    Attributes:
        state: from `begin`, `advance` or `idle`.
        samples: (hop_samples,) float32, mono, 16 kHz; with `final`, also fewer, or none; with `pause`, none.
        emotion: (8,) weights, as `ditto.motion.emotion.emotion_vector` gives them.
        final: whether the utterance ends with these samples.
        edits: of the shots that the job gives, by their number, from 0 on, for a performer that cannot draw a shot again with
            other edits (`Capability.REDRAW`). None: the emotion alone.
        pause: whether the speech pauses here, in the middle of the utterance: the next samples come too late for the frames
            that are due. A performer that makes blocks gives the frames of the speech that it has, and holds silent ones for
            `idle`. With further samples the utterance goes on. It has as many shots as without a pause.
    """

    state: State
    samples: Array
    emotion: Array
    final: bool = False
    edits: EditsAt | None = None
    pause: bool = False


@dataclass(frozen=True, slots=True)
class Idle:
    """A job for `Performer.idle`: the next frames of one stream without speech.

    Attributes:
        state: from `begin`, `advance` or `idle`.
        emotion: (8,) weights.
        edits: as of `Advance`.
        ahead: whether a performer that makes blocks makes the shots and holds them, for the next job to give at once.
    """

    state: State
    emotion: Array
    edits: EditsAt | None = None
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class Advanced:
    """The result of an `Advance` or `Idle` job.

    Attributes:
        shots: the next frames, in order.
        state: after the last of them.
        held: how many further shots are made that the next `Idle` job gives; those of speech leave them out.
    """

    shots: Sequence[Shot]
    state: State
    held: int = 0


@dataclass(frozen=True, slots=True)
class Edits:
    """Edits of one frame.

    Attributes:
        emotion: (8,) weights to show.
        controls: applied one after another.
        reaction: to the other party, for idle frames.
        style: strength of the motion of head and brows, as `ditto.motion.style.style_strength` gives it.
        driving: of a performance, before the controls; None: only speech moves the face.
    """

    emotion: Array
    controls: tuple[Controls, ...] = ()
    reaction: Reaction = NEUTRAL
    style: float = 1.0
    driving: Driving | None = None

    @classmethod
    def none(cls) -> Edits:
        """A neutral emotion and no changes."""
        return cls(emotion_vector(None))

    @property
    def are_neutral(self) -> bool:
        """Whether they change nothing of what speech alone gives. A reaction is no edit."""
        return (
            self.emotion[EMOTIONS.index("neutral")] == 1.0
            and self.style == 1.0
            and self.driving is None
            and all(one.is_neutral for one in self.controls)
        )


@dataclass(frozen=True, slots=True)
class Draw:
    """A job for `Performer.draw`: one frame.

    Attributes:
        face: from `Performer.face`, or from the frame before.
        shot: what to draw.
        edits: of this frame.
        alpha: whether the alpha of the picture is asked for.
    """

    face: Face
    shot: Shot
    edits: Edits
    alpha: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """The result of a `Draw` job.

    Attributes:
        image: (H, W, 3) uint8 RGB, the size of the portrait's picture.
        face: for the next frame.
        motion: (70,) of the picture, after edits; None without the capability MOTION.
        transition: whether the picture is still blended with the motion before (`ditto.motion.inertialization`).
        alpha: (H, W) uint8 of the picture, which moves with it; None if it was not asked for, the portrait has none, or the
            performer leaves it where it is in the portrait.
    """

    image: Pixels
    face: Face
    motion: Motion | None = None
    transition: bool = False
    alpha: Pixels | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """The result of a `Draw` job without its picture.

    Attributes:
        motion, face, transition: as of `Drawn`.
    """

    motion: Motion
    face: Face
    transition: bool = False


class Performer(Protocol):
    """A generator of talking pictures, 25 a second.

    The results depend on the arguments alone, bit for bit: any chunking of the speech and any grouping of streams into
    calls gives the same frames. Several threads may call at once.

    Attributes:
        supports: its capabilities.
        latencies: names of its latencies, first the one for recordings.
        hop_samples: how many samples (at 16 kHz) an `Advance` job has.
        motion_space: of its motions; None without explicit motion.
    """

    @property
    def supports(self) -> frozenset[Capability]: ...

    @property
    def latencies(self) -> tuple[str, ...]: ...

    @property
    def hop_samples(self) -> int: ...

    @property
    def motion_space(self) -> MotionSpace | None: ...

    def delay_seconds(self, latency: str) -> float:
        """Algorithmic delay: at most, from the first sample of a frame to the last sample that its shot waits for.

        Raises:
            ValueError: an unknown latency.
        """

    def prepare(self, portrait: Portrait) -> Appearance:
        """Compute what stays the same from frame to frame. Takes long."""

    def begin(self, appearance: Appearance, seed: int, latency: str, after: State | None = None) -> State:
        """The state before the first sample of an utterance.

        Args:
            seed: of all randomness of the utterance, in [0, 2 ** 64).
            latency: one of `latencies`.
            after: the stream's state so far, if it has shown something. A performer whose `draw` joins utterances need
                not use it.
        """

    def advance(self, jobs: Sequence[Advance]) -> list[Advanced]:
        """Take speech of several streams, as one batch if possible.

        Returns:
            For each job the shots that became final. An utterance of N samples has ceil(N / 640) shots, all of which
            have come after its `final` job.
        """

    def idle(self, jobs: Sequence[Idle]) -> list[Advanced]:
        """One or more shots without speech for each stream (none with `ahead`); those held first.

        Unless the speech of a stream pauses, the rest of its utterance is dropped.

        Raises:
            ValueError: the performer lacks the capability IDLE.
        """

    def face(self, appearance: Appearance, seed: int, joined: bool = True) -> Face:
        """The face before the first picture of a stream.

        Args:
            seed: of all randomness of idle frames.
            joined: whether an utterance continues smoothly from the frames before it. If not, its frames are those of
                an utterance on its own.
        """

    def draw(self, jobs: Sequence[Draw]) -> list[Drawn]:
        """A picture for each job."""

    def move(self, jobs: Sequence[Draw]) -> list[Moved]:
        """What `draw` gives, but for the picture, which takes most of the time.

        Raises:
            ValueError: the performer lacks the capability MOTION.
        """

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer(step, seconds, rows)` after every step (of a batch of `rows`), until the result is called."""


def check_latency(name: str, latencies: Sequence[str]) -> str:
    """The name, if it is one of a performer's latencies.

    Raises:
        ValueError: it is none of them.
    """
    if not isinstance(name, str) or name not in latencies:
        raise ValueError(f"expected a latency of {', '.join(latencies)}, got {name!r}; choose one of them")
    return name


def check_job(job: Advance, hop_samples: int) -> None:
    """Raise ValueError unless a job has a hop of samples; fewer with `final`; none with `pause`."""
    least, most = 0 if job.final or job.pause else hop_samples, 0 if job.pause else hop_samples
    if job.samples.ndim != 1 or not least <= job.samples.size <= most or (job.final and job.pause):
        raise ValueError(
            f"expected ({hop_samples},) samples a job, fewer only with final=True, none with pause=True, got "
            f"{job.samples.shape}, final={job.final}, pause={job.pause}; let `Stream` cut the speech"
        )


LARGEST = float(np.finfo(np.float32).max)


def check_numbers(network: str, values: npt.NDArray[Any], most: float = LARGEST) -> None:
    """Raise BundleError if a network gave a number beyond `most`, or NaN: weights may be finite and yet absurd."""
    if not bool((np.abs(values) <= most).all()):
        raise BundleError(
            f"expected numbers up to {most:g} of the bundle's {network}, got NaN or larger ones; its weights are damaged: get "
            "the bundle again, or train it again"
        )


def check_capabilities(performer: Performer, needed: Sequence[Capability]) -> None:
    """Raise UnsupportedError, a ValueError, if a performer lacks one of the capabilities."""
    for capability in needed:
        if capability not in performer.supports:
            raise UnsupportedError(
                f"this bundle does not support {capability.value}; leave it out, or use another bundle"
            )
