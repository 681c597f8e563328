"""Performer: what turns the speech of many streams into pictures; the one interface between generators and their callers.

    samples -> advance -> shots -> draw -> pictures

A performer holds weights. What a stream remembers goes in and comes out, as opaque and immutable values: `State` on the
way from speech to shots, `Face` on the way from shots to pictures. So a caller may keep an old value and go on from it,
and advance one stream in one thread while it draws it in another. `ditto.stream.Stream` (offline, no clock) and
`ditto.live.scheduler.Scheduler` (many sessions, one clock) are the two callers; `ditto.row_performer.RowPerformer` is
what the bundles of explicit motion are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ditto.motion.emotion import emotion_vector
from ditto.motion.listening import NEUTRAL, Reaction

if TYPE_CHECKING:
    from ditto.controls import Controls
    from ditto.motion.motion import Motion
    from ditto.motion.space import MotionSpace
    from ditto.portrait.portrait import Portrait

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Observer = Callable[[str, float, int], None]
T = TypeVar("T")


class Capability(Enum):
    """What a performer may be able to do. One that lacks a capability refuses it by name when a stream is opened."""

    CONTROLS = "controls"  # edits of the motion: `Controls`, gaze, head
    EMOTION = "emotion"
    IDLE = "idle"  # pictures without speech
    LISTENING = "listening"  # reactions to the other party, while idle
    REDRAW = "redraw"  # shots stand for themselves: each can be drawn again with other edits, or left out
    MOTION = "motion"  # pictures come with the motion that they show


class Appearance:
    """A portrait as one performer has prepared it. Shared by all streams of that portrait."""

    __slots__ = ("__weakref__",)


class State:
    """What one utterance remembers from one call of `Performer.advance` to the next."""

    __slots__ = ()


class Shot:
    """What one frame is drawn from."""

    __slots__ = ()


class Face:
    """What one picture of a stream leaves to the next."""

    __slots__ = ()


def own(value: object, kind: type[T]) -> T:
    """The value, if it is one of this performer's own.

    Raises:
        TypeError: it is another performer's.
    """
    if not isinstance(value, kind):
        raise TypeError(
            f"expected a {kind.__name__}, got a {type(value).__name__}; give a performer what it gave, not what another gave"
        )
    return value


@dataclass(frozen=True, slots=True)
class Advance:
    """Speech for one stream.

    Attributes:
        state: from `begin`, `advance` or `idle`.
        samples: (hop_samples,) float32, mono, 16 kHz; with `final`, also fewer, or none.
        emotion: (8,) weights as of `ditto.motion.emotion.emotion_vector`.
        final: the utterance ends with these samples.
    """

    state: State
    samples: Array
    emotion: Array
    final: bool = False


@dataclass(frozen=True, slots=True)
class Idle:
    """Silence for one stream: as many frames as the performer gives at once.

    Attributes:
        state: from `begin`, `advance` or `idle`.
        emotion: (8,) weights.
    """

    state: State
    emotion: Array


@dataclass(frozen=True, slots=True)
class Advanced:
    """What became known.

    Attributes:
        shots: of the next frames, in order.
        state: after the last of them.
    """

    shots: Sequence[Shot]
    state: State


@dataclass(frozen=True, slots=True)
class Edits:
    """What is asked of one frame beside its speech.

    Attributes:
        emotion: (8,) weights that it should show.
        controls: applied one after another.
        reaction: to the other party, while idle.
    """

    emotion: Array
    controls: tuple[Controls, ...] = ()
    reaction: Reaction = NEUTRAL

    @classmethod
    def none(cls) -> Edits:
        """A neutral face, nothing changed."""
        return cls(emotion_vector(None))


@dataclass(frozen=True, slots=True)
class Draw:
    """A frame to be drawn.

    Attributes:
        face: from `face`, or from the frame before.
        shot: what it is drawn from.
        edits: what is asked of it.
    """

    face: Face
    shot: Shot
    edits: Edits


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture.

    Attributes:
        image: (H, W, 3) uint8 RGB, the size of the portrait's picture.
        face: for the next frame.
        motion: (70,) that the picture shows, after edits; None without the capability MOTION.
        transition: whether the face is still on its way from what was shown before.
    """

    image: Pixels
    face: Face
    motion: Motion | None = None
    transition: bool = False


class Performer(Protocol):
    """A generator of talking pictures, 25 a second.

    Every call is a function of its arguments, bit for bit: however speech is cut into calls, whichever streams go
    together in one call, the same arguments give the same values. Calls may come from several threads at once.

    Attributes:
        supports: what it can do.
        latencies: names of latencies, the one for recordings first.
        hop_samples: samples (at 16 kHz) that `advance` takes at a time.
        motion_space: of its motions; None where there is no explicit motion.
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
        """The longest way from the first sample of a frame to the last sample that its shot waits for.

        Raises:
            ValueError: no latency of this name.
        """

    def prepare(self, portrait: Portrait) -> Appearance:
        """Everything about a portrait that stays the same from frame to frame. Takes long."""

    def begin(self, appearance: Appearance, seed: int, latency: str, after: State | None = None) -> State:
        """Before the first sample of an utterance.

        Args:
            seed: of all randomness of the utterance, in [0, 2 ** 64).
            latency: one of `latencies`.
            after: where the stream stands, if it has shown something before. A performer whose faces join utterances
                (`face`, `draw`) need not use it.
        """

    def advance(self, jobs: Sequence[Advance]) -> list[Advanced]:
        """Speech of several streams, as one batch where it can be.

        Returns:
            For each job the shots that became known. After the `final` job of an utterance of N samples, ceil(N / 640)
            shots have come in all.
        """

    def idle(self, jobs: Sequence[Idle]) -> list[Advanced]:
        """One or more shots without speech for each stream.

        Raises:
            ValueError: the performer has no capability IDLE.
        """

    def face(self, appearance: Appearance, seed: int, joined: bool = True) -> Face:
        """Before the first picture of a stream.

        Args:
            seed: of all randomness of what happens between utterances.
            joined: whether utterances and idle frames grow out of what was shown before, or stand as they are.
        """

    def draw(self, jobs: Sequence[Draw]) -> list[Drawn]:
        """A picture for each job."""

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer(step, seconds, rows)` after every step of a batch of `rows`; the returned function ends that."""


def check_latency(name: str, latencies: Sequence[str]) -> str:
    """The name, if it is one of a performer's latencies.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(name, str) or name not in latencies:
        raise ValueError(f"expected a latency of {', '.join(latencies)}, got {name!r}; choose one of them")
    return name


def check_capabilities(performer: Performer, asked: Sequence[Capability]) -> None:
    """Raise ValueError where a performer lacks one of the capabilities that are asked for."""
    for capability in asked:
        if capability not in performer.supports:
            raise ValueError(
                f"this bundle does not support {capability.value}; leave it out, or use another bundle"
            )
