"""Stream: push speech, get frames, without clock or threads. `animate()` is a stream that gets all samples."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ditto.controls import HEAD_STILL, Controls
from ditto.controls.driving import Performance
from ditto.frame import Frame as Frame
from ditto.media.audio import check_samples
from ditto.media.rates import FPS, SAMPLES_PER_FRAME
from ditto.motion.emotion import emotion_vector
from ditto.motion.style import style_strength
from ditto.performer import Advance, Capability, Draw, Edits, Shot, check_capabilities, check_latency

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
        raise TypeError(f"expected performance as Performance(...), got {type(performance).__name__}")
    return performance


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
        controls: Controls | Callable[[int], Controls] | None = None,
        latency: str = "quality",
        style: str | float = "natural",
        performance: Performance | None = None,
    ) -> None:
        self._performer = head.performer
        check_latency(latency, self._performer.latencies)
        self._style = style_strength(style)
        needs = {
            Capability.EMOTION: bool(emotion),
            Capability.CONTROLS: still or controls is not None or performance is not None,
            Capability.STYLE: self._style != 1.0,
        }
        check_capabilities(self._performer, [capability for capability, needed in needs.items() if needed])
        self._appearance = head.appearance(portrait)
        self._latency = latency
        self._seed = check_seed(seed)
        self._emotion = emotion_vector(emotion)
        self._still = still
        self.controls = controls
        self._performance = check_performance(performance)
        self.reset()

    def reset(self) -> None:
        """Begin again: the next push starts a new utterance at frame 0 with the same seed."""
        self._state = self._performer.begin(self._appearance, self._seed, self._latency)
        self._face = self._performer.face(self._appearance, self._seed, joined=False)
        self._waiting = np.zeros(0, np.float32)  # samples that do not fill a hop yet
        self._sound = np.zeros(0, np.float32)  # samples whose frames have not come yet
        self._samples = 0
        self._ended = False
        self._frames = 0

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
            raise ValueError("expected a stream that was not flushed, got one that was; call reset() or make another stream")
        block = check_samples(samples, self._samples)
        self._samples += block.size
        self._sound = np.concatenate([self._sound, block])
        waiting, hop, frames = np.concatenate([self._waiting, block]), self._performer.hop_samples, []
        while waiting.size >= hop:
            frames += self._advance(waiting[:hop])
            waiting = waiting[hop:]
        self._waiting = waiting
        return frames

    def flush(self) -> list[Frame]:
        """End the utterance: the remaining frames. Silence fills up the last one."""
        if self._ended:
            return []
        self._ended = True
        return self._advance(self._waiting, final=True)

    def _advance(self, samples: Array, final: bool = False) -> list[Frame]:
        advanced = self._performer.advance([Advance(self._state, samples, self._emotion, final)])[0]
        self._state = advanced.state
        return [self._draw(shot) for shot in advanced.shots]

    def _draw(self, shot: Shot) -> Frame:
        controls = [HEAD_STILL] if self._still else []
        if self.controls is not None:
            controls.append(self.controls(self._frames) if callable(self.controls) else self.controls)
        driving = None if self._performance is None else self._performance.at(self._frames)
        edits = Edits(self._emotion, tuple(controls), style=self._style, driving=driving)
        drawn = self._performer.draw([Draw(self._face, shot, edits)])[0]
        self._face = drawn.face
        sound = np.zeros(SAMPLES_PER_FRAME, np.float32)
        own = self._sound[:SAMPLES_PER_FRAME]
        sound[: own.size] = own
        self._sound = self._sound[SAMPLES_PER_FRAME:]
        index = self._frames
        self._frames += 1
        return Frame(drawn.image, index, index / FPS, sound, drawn.motion, speech_index=index)
