"""Stream: push speech, get frames, without clock or threads. `animate()` is a stream that gets all samples."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ditto.controls import HEAD_STILL, Controls, moves_head
from ditto.controls.driving import Performance
from ditto.controls.timeline import MIDDLE, Edit, Timeline, View, moment_of
from ditto.frame import Frame as Frame
from ditto.media.audio import check_samples
from ditto.media.pixels import OF_ALPHA, OUTPUTS, check_pixels
from ditto.media.rates import FPS, SAMPLES_PER_FRAME
from ditto.motion.emotion import EMOTIONS, emotion_vector
from ditto.motion.style import style_strength
from ditto.performer import (
    Advance,
    Appearance,
    Capability,
    Draw,
    Edits,
    Performer,
    Shot,
    check_capabilities,
    check_latency,
)

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait
    from ditto.talking_head import TalkingHead

MAX_SEED = 2**64 - 1

Array = npt.NDArray[np.float32]


def check_seed(seed: int) -> int:
    """The seed as a Python int.

    Raises:
        TypeError: not a whole number.
        ValueError: outside of [0, 2 ** 64).
    """
    number = operator.index(seed)
    if not 0 <= number <= MAX_SEED:
        raise ValueError(f"expected a seed in [0, 2 ** 64), got {number}; choose another")
    return number


def check_performance(performance: Performance | None) -> Performance | None:
    """The performance; raises TypeError if it is something else."""
    if performance is not None and not isinstance(performance, Performance):
        raise TypeError(
            f"expected performance as Performance(...), got {type(performance).__name__}; "
            "make one with ditto.exchange.performance.read"
        )
    return performance


def check_edit(controls: Edit | None) -> Edit | None:
    """The controls, the timeline or the function; raises TypeError if it is something else."""
    if controls is None or isinstance(controls, (Controls, Timeline)) or callable(controls):
        return controls
    raise TypeError(
        f"expected controls as Controls(...), a Timeline or a function of the frame's number, got {type(controls).__name__}; "
        "give one"
    )


@dataclass(frozen=True)
class FrameEdits:
    """What a program asked for about every frame of an utterance, as the edits of one.

    Attributes:
        emotion: (8,) weights.
        style: strength of the motion of head and brows.
        still: whether the head stays where it is in the portrait.
        controls: edits of every frame.
        performance: that drives regions of the face.
        view: of the portrait.
    """

    emotion: Array
    style: float = 1.0
    still: bool = False
    controls: Edit | None = None
    performance: Performance | None = None
    view: View = MIDDLE

    def at(self, frame: int) -> Edits:
        """The edits of a frame, by its number."""
        moment = moment_of(self.controls, frame, self.view)
        emotion, style = moment.mixed(self.emotion, self.style)
        controls = [HEAD_STILL] if self.still else []
        if self.controls is not None:
            controls.append(moment.controls)
        driving = None if self.performance is None else self.performance.at(frame)
        return Edits(emotion, tuple(controls), style=style, driving=driving)

    def emotion_at(self, frame: int) -> Array:
        """(8,) the emotion of a frame."""
        if isinstance(self.controls, Timeline):
            return self.controls.at(frame / FPS).mixed(self.emotion, self.style)[0]
        return self.emotion

    @property
    def needs(self) -> list[Capability]:
        """The capabilities that a performer needs for them."""
        needs = edit_needs(self.controls)
        if self.emotion[EMOTIONS.index("neutral")] != 1.0:
            needs.add(Capability.EMOTION)
        if self.still or self.performance is not None:
            needs.add(Capability.CONTROLS)
        if self.style != 1.0:
            needs.add(Capability.STYLE)
        return sorted(needs, key=lambda capability: capability.value)


def edit_needs(controls: Edit | None) -> set[Capability]:
    """The capabilities that a performer needs for edits of every frame."""
    names = controls.names if isinstance(controls, Timeline) else ()
    needs = set() if controls is None else {Capability.CONTROLS}
    if (isinstance(controls, Controls) and moves_head(controls)) or any(map(is_of_head, names)):
        needs.add(Capability.HEAD)
    if any(name.startswith("emotion.") for name in names):
        needs.add(Capability.EMOTION)
    return needs | {Capability.STYLE} if "style" in names else needs


def is_of_head(name: str) -> bool:
    """Whether a number of the catalog, by its name, turns or moves the head."""
    return name.startswith(("head.", "pose."))


class Speech:
    """One utterance, from samples to shots: gives the performer whole hops.

    Args:
        edits: gives those of all frames, as they are now.
        first: number of its first frame in the edits.

    Attributes:
        shots: how many have come.
    """

    def __init__(
        self,
        performer: Performer,
        appearance: Appearance,
        seed: int,
        latency: str,
        edits: Callable[[], FrameEdits],
        first: int = 0,
    ) -> None:
        self.shots = 0
        self._performer = performer
        self._state = performer.begin(appearance, seed, latency)
        self._edits, self._first = edits, first
        self._waiting = np.zeros(0, np.float32)  # samples that do not fill a hop yet

    def push(self, samples: Array) -> list[Shot]:
        """Take samples (N,); the shots that became final."""
        waiting, hop = np.concatenate([self._waiting, samples]), self._performer.hop_samples
        shots: list[Shot] = []
        while waiting.size >= hop:
            shots += self._advance(waiting[:hop], False)
            waiting = waiting[hop:]
        self._waiting = waiting
        return shots

    def flush(self) -> list[Shot]:
        """End the utterance: the remaining shots."""
        return list(self._advance(self._waiting, True))

    def _advance(self, samples: Array, final: bool) -> Sequence[Shot]:
        edits, number = self._edits(), self._first + self.shots
        job = Advance(self._state, samples, edits.emotion_at(number), final, lambda shot: edits.at(number + shot))
        advanced = self._performer.advance([job])[0]
        self._state = advanced.state
        self.shots += len(advanced.shots)
        return advanced.shots


class Stream:
    """Turns speech into frames. Made by `TalkingHead.stream`; one thread at a time may use it.

    `push` takes any number of samples and returns the frames that became final; `flush` ends the utterance and returns
    the rest, ceil(samples / 640) frames in all. Any chunking of the samples gives the same frames bit for bit.
    """

    def __init__(
        self,
        head: TalkingHead,
        portrait: Portrait,
        *,
        seed: int = 0,
        emotion: Mapping[str, float] | None = None,
        still: bool = False,
        controls: Edit | None = None,
        latency: str = "quality",
        style: str | float = "natural",
        performance: Performance | None = None,
        output: str = "rgb24",
    ) -> None:
        self._output = check_pixels(output)
        self._performer = head.performer
        check_latency(latency, self._performer.latencies)
        self._edits = FrameEdits(
            emotion_vector(emotion), style_strength(style), still, check_edit(controls), check_performance(performance)
        )
        check_capabilities(self._performer, self._edits.needs)
        self._appearance = head.appearance(portrait)
        self._portrait = portrait
        self.controls = controls
        self._latency = latency
        self._seed = check_seed(seed)
        self.reset()

    def reset(self) -> None:
        """Begin again: the next push starts a new utterance at frame 0 with the same seed."""
        self._speech = Speech(self._performer, self._appearance, self._seed, self._latency, lambda: self._edits)
        self._face = self._performer.face(self._appearance, self._seed, joined=False)
        self._sound = np.zeros(0, np.float32)  # samples whose frames have not come yet
        self._samples = 0
        self._ended = False
        self._frames = 0

    @property
    def controls(self) -> Edit | None:
        """Edits of every frame; new ones show from the next frame on, of latent video from its next block on."""
        return self._edits.controls

    @controls.setter
    def controls(self, controls: Edit | None) -> None:
        view = controls.view(self._portrait) if isinstance(controls, Timeline) else MIDDLE
        self._edits = replace(self._edits, controls=check_edit(controls), view=view)

    @property
    def delay_seconds(self) -> float:
        """Algorithmic delay: at most, from the first sample of a frame to the last sample that it waits for.

        The first frame takes as long. So playback that starts with it never has to wait, apart from compute time.
        """
        return self._performer.delay_seconds(self._latency)

    @property
    def frames(self) -> int:
        """How many frames have come so far."""
        return self._frames

    def push(self, samples: npt.ArrayLike) -> list[Frame]:
        """Take speech, (N,) float32 in [-1, 1] or int16, mono, 16 kHz, any N; the frames that became final.

        Raises:
            AudioError: samples of another kind, NaN or infinity.
            ValueError: after `flush`; call `reset` or make another stream.
        """
        if self._ended:
            raise ValueError(
                "expected a stream that was not flushed, got one that was; call reset() or make another stream"
            )
        block = check_samples(samples, self._samples)
        self._samples += block.size
        self._sound = np.concatenate([self._sound, block])
        return [self._draw(shot) for shot in self._speech.push(block)]

    def flush(self) -> list[Frame]:
        """End the utterance: the remaining frames. Silence fills up the last one."""
        if self._ended:
            return []
        self._ended = True
        return [self._draw(shot) for shot in self._speech.flush()]

    def _draw(self, shot: Shot) -> Frame:
        job = Draw(self._face, shot, self._edits.at(self._frames), alpha=self._output in OF_ALPHA)
        drawn = self._performer.draw([job])[0]
        alpha = self._portrait.alpha if drawn.alpha is None else drawn.alpha
        image = OUTPUTS[self._output](drawn.image, alpha)
        self._face = drawn.face
        sound = np.zeros(SAMPLES_PER_FRAME, np.float32)
        own = self._sound[:SAMPLES_PER_FRAME]
        sound[: own.size] = own
        self._sound = self._sound[SAMPLES_PER_FRAME:]
        index = self._frames
        self._frames += 1
        return Frame(image, index, index / FPS, sound, drawn.motion, speech_index=index)
