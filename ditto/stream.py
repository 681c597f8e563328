"""Stream: push speech, get frames. The one path from samples to pixels; offline is a stream fed all at once."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ditto.audio import SAMPLE_RATE, reject_encoded
from ditto.emotion import emotion_vector
from ditto.errors import AudioError
from ditto.motion import FPS, Motion
from ditto.utterance import SAMPLES_PER_FRAME as SAMPLES_PER_FRAME
from ditto.utterance import Utterance

if TYPE_CHECKING:
    from ditto.controls import Controls
    from ditto.portrait import Portrait
    from ditto.talking_head import TalkingHead

LARGEST_SEED = 2**64 - 1

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of the talking head and the 40 ms of sound that belong to it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        index: 0 for the first frame of the stream.
        pts_seconds: index / 25.
        audio: (640,) float32 at 16 kHz: samples [640 index, 640 index + 640), zeros after the end.
        motion: the (70,) motion shown, after controls.
    """

    image: npt.NDArray[np.uint8]
    index: int
    pts_seconds: float
    audio: Array
    motion: Motion


def check_seed(seed: int) -> int:
    """The seed as a Python int.

    Raises:
        TypeError: not a whole number.
        ValueError: not in [0, 2 ** 64).
    """
    number = operator.index(seed)
    if not 0 <= number <= LARGEST_SEED:
        raise ValueError(f"a seed lies in [0, 2 ** 64), got {number}; choose another")
    return number


def check_samples(samples: npt.ArrayLike, position: int = 0) -> Array:
    """(N,) float32 samples, checked; `position` is how many came before them.

    Raises:
        AudioError: not one-dimensional, not numbers, integers (their scale is unknown), or NaN or infinite values; or
            the bytes of a sound file.
    """
    if position == 0:
        reject_encoded(samples)
    try:
        array = np.asarray(samples)
    except ValueError as error:  # lists of lists of unequal length
        raise AudioError(f"samples are one-dimensional numbers (mono, 16 kHz): {error}") from None
    if array.ndim != 1:
        came = f"shape {array.shape}" if array.ndim else type(samples).__name__
        raise AudioError(f"samples are one-dimensional (mono, 16 kHz), got {came}; mix channels down first")
    if array.dtype == np.int16:
        return array.astype(np.float32) / np.float32(32768.0)
    if array.dtype.kind != "f":
        raise AudioError(f"samples are float in [-1, 1] or int16, got {array.dtype}; convert them first")
    with np.errstate(over="ignore"):  # told below
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array))[0])
        raise AudioError(
            f"samples are finite numbers, sample {position + bad} ({(position + bad) / SAMPLE_RATE:.3f} s) is "
            f"{array[bad]}; clean the audio first"
        )
    return array


def edited(compact: Array, still: bool, controls: Controls | Callable[[int], Controls] | None, frame: int) -> Motion:
    """The motion of a compact row (70,): the head kept where it is if `still`, then the controls of that frame."""
    if still:
        compact = compact.copy()
        compact[:7] = 0.0
    motion = Motion(compact)
    if controls is None:
        return motion
    from ditto.controls import apply

    return apply(motion, controls(frame) if callable(controls) else controls)


class Stream:
    """A conversation's worth of speech turned into frames. Made by `TalkingHead.stream`; not shared between threads.

    `push` takes any number of samples and returns the frames that became final; `flush` ends the utterance and returns
    the rest. However the samples are cut into pushes, the frames are the same bit for bit, and there are
    ceil(samples / 640) of them.
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
    ) -> None:
        self._head = head
        self._portrait = portrait
        self._appearance = head.appearance(portrait)
        self._seed = check_seed(seed)
        self._emotion = emotion_vector(emotion)
        self._still = still
        self.controls = controls
        self._sampler = head.sampler_for(latency)
        self.reset()

    def reset(self) -> None:
        """Forget everything heard and shown; the next push starts a new utterance at frame 0 with the same seed."""
        self._utterance = Utterance(self._head.encoder, self._sampler, self._portrait, self._seed)
        self._sound = np.zeros(0, np.float32)  # samples whose frames are not out yet
        self._frames = 0

    @property
    def delay_seconds(self) -> float:
        """Algorithmic delay: a frame is final at most this long after its first sample came in at the pace of speech.

        It is also what the first frame takes, so playback that starts with it never waits, compute time apart.
        """
        return float(self._sampler.delay_seconds)

    @property
    def frames(self) -> int:
        """Frames given out so far."""
        return self._frames

    def push(self, samples: npt.ArrayLike) -> list[Frame]:
        """Take speech, (N,) float32 in [-1, 1] or int16, mono, 16 kHz, any N; give the frames that became final.

        Raises:
            AudioError: samples of another kind, NaN or infinite.
            ValueError: after `flush`; call `reset` or make another stream.
        """
        if self._utterance.ended:
            raise ValueError("this stream was flushed; call reset() or make another stream before pushing again")
        block = check_samples(samples, self._utterance.samples)
        self._sound = np.concatenate([self._sound, block])
        self._utterance.push(block)
        return self._advance()

    def flush(self) -> list[Frame]:
        """End the utterance: the remaining frames, the last one filled up with silence."""
        self._utterance.end()
        return self._advance()

    def _advance(self) -> list[Frame]:
        utterance, frames = self._utterance, []
        while (hop := utterance.hop()) is not None:
            features, state = self._head.encoder(hop[None], utterance.encoder_state)
            job = utterance.heard(features[0], state, self._emotion)
            if job is not None:
                rows = utterance.moved(*utterance.sampler(*job))
                frames += [self._show(row) for row in rows]
        return frames

    def _show(self, compact: Array) -> Frame:
        motion = edited(compact, self._still, self.controls, self._frames)
        crop = self._head.renderer.render(self._appearance.mesh, self._head.renderer.drive(self._portrait, motion))
        image = self._appearance.paste_back(crop)
        sound = np.zeros(SAMPLES_PER_FRAME, np.float32)
        own = self._sound[:SAMPLES_PER_FRAME]
        sound[: own.size] = own
        self._sound = self._sound[SAMPLES_PER_FRAME:]
        frame = Frame(image, self._frames, self._frames / FPS, sound, motion)
        self._frames += 1
        return frame
