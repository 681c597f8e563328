"""From HuBERT features to compact motion relative to the portrait, by the published motion network.

Everything random comes from (seed, window); everything remembered is in the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ditto.full.conditioning import SourceCondition, condition_rows, emotion_of_weights
from ditto.full.driving import PLAIN_EDIT, Driving, Edit, blink_frames, check_choices, drive_motion
from ditto.full.released import BLINK_STRETCH, LARGEST_STEPS, Released
from ditto.full.source import Call, Source
from ditto.full.windows import (
    WINDOW,
    Live,
    Recording,
    Sample,
    WindowRules,
    advance_live,
    advance_recording,
    start_live,
    start_recording,
)
from ditto.motion.emotion import emotion_vector
from ditto.motion.motion import FPS, MOTION_SIZE, PACKED_SIZE
from ditto.motion.noise import window_noise
from ditto.portrait.portrait import Portrait

Array = npt.NDArray[np.float32]

SILENT_WINDOW = 2**40  # the number of the window in silence, far from those of speech


# The released settings for recordings (overlap 10), and the two that its authors name for streams (70 and 75).
PACES = {"quality": WindowRules(10), "balanced": WindowRules(70), "low": WindowRules(75)}
RECORDING, STREAM = "quality", "balanced"  # whose overlap the settings of recordings, those of streams, say


@dataclass(frozen=True)
class Sampling:
    """What windows are sampled with, and what their motion does to the face.

    Attributes:
        steps: of DDIM; the released code's default is 50, its configuration for streams has 10.
        guidance: strength of the conditions.
        released: the settings published with the checkpoints; where they are given, their steps and edit count.
        schedule: "float64", or as released "float32", where numbers cancel that should not.
        noise: "fresh" in every step of every window, or as released "shared": that of the steps is the same for every
            window, only what a window starts from is not.
        origin: what motion is relative to: the mean of a window sampled for "silence", or as released the "first" frame,
            whose chance tilt then bows the head for good.
        driving: how motion acts on the portrait.
        edit: what is changed about every frame. `Edit(turn={"pitch": 2.0})` adds two degrees as the released code does.

    Raises:
        ValueError: a field out of its range.
    """

    steps: int = 10
    guidance: float = 2.0
    released: Released | None = None
    schedule: Literal["float64", "float32"] = "float64"
    noise: Literal["fresh", "shared"] = "fresh"
    origin: Literal["silence", "first"] = "silence"
    driving: Driving = field(default_factory=Driving)
    edit: Edit = PLAIN_EDIT

    def __post_init__(self) -> None:
        check_choices(self)
        if not (isinstance(self.steps, int) and 1 <= self.steps <= LARGEST_STEPS):
            raise ValueError(f"expected steps to be a whole number, 1 to {LARGEST_STEPS}, got {self.steps!r}")
        if not math.isfinite(self.guidance):
            raise ValueError(f"expected guidance to be a finite number, got {self.guidance!r}")

    @property
    def all_steps(self) -> int:
        """DDIM steps of a window."""
        return self.steps if self.released is None else self.released.steps


class Hearing(Protocol):
    """What a sampler knows of the encoder: features that come together, and frames of speech after them it waits for."""

    @property
    def hop_features(self) -> int: ...

    @property
    def look_ahead(self) -> int: ...


class FullState(NamedTuple):
    """What a stream of motion remembers.

    Attributes:
        source: of the portrait.
        seed: of all noise.
        windows: what joins them; None before the first features.
        origin: (265,) what motion is relative to; None before it is known.
        received: frames of features that came.
        given: frames of motion given out.
    """

    source: Source
    seed: int
    windows: Live | Recording | None
    origin: Array | None
    received: int
    given: int


class FullSampler:
    """Samples compact motion, relative to the portrait: scale ratio - 1, degrees, t and exp in LivePortrait's units.

    Args:
        engine: cond_frame (1, 265), cond (1, 80, 1103), start (1, 80, 265), noise (steps - 1, 1, 80, 265) -> motion
            (1, 80, 265).
        source_of: portrait -> its source.
        silence: (n, D) features of silence.
        encoder: where features come from.
        sampling: the choices there are.
        latency: one of `PACES`.

    Raises:
        ValueError: another latency.
    """

    def __init__(
        self,
        engine: Call,
        source_of: Callable[[Portrait], Source],
        silence: Array,
        encoder: Hearing,
        sampling: Sampling | None = None,
        latency: str = "quality",
    ) -> None:
        if latency not in PACES:
            raise ValueError(f"latency is one of {', '.join(PACES)}, got {latency!r}; choose one of them")
        self.sampling = sampling or Sampling()
        self.rules, self.recording = PACES[latency], latency == RECORDING
        released = self.sampling.released
        if released is not None:
            own = latency == (STREAM if released.online else RECORDING)
            overlap = released.overlap if own else self.rules.overlap
            self.rules = WindowRules(overlap, released.smoothing, released.reset_every, released.reset_keeps)
        self._engine, self._source_of, self._silence, self._encoder = engine, source_of, silence, encoder

    def at(self, latency: str) -> FullSampler:
        """The same network at another latency.

        Raises:
            ValueError: there is none of this name.
        """
        return FullSampler(self._engine, self._source_of, self._silence, self._encoder, self.sampling, latency)

    @property
    def latencies(self) -> tuple[str, ...]:
        """Names that `at` takes."""
        return tuple(PACES)

    @property
    def delay_seconds(self) -> float:
        """The longest way from the first sample of a frame to the last sample that frame waits for."""
        hop, together, half = self.rules.hop, self._encoder.hop_features, self.rules.smoothing // 2
        waits = 0
        begin = half // hop if self.recording else 0  # the first window after which frames are known
        for window in range(begin, begin + together):  # after which hops of the encoder and of windows meet again
            if self.recording:
                first, due = max(0, window * hop - half), WINDOW + window * hop
            else:
                first, due = window * hop, (window + 2) * hop
            waits = max(waits, -(-due // together) * together + self._encoder.look_ahead - first)
        return waits / FPS

    def begin(self, portrait: Portrait, seed: int = 0) -> FullState:
        """The portrait as it is, in silence."""
        return FullState(self._source_of(portrait), seed, None, None, 0, 0)

    def __call__(
        self, features: npt.ArrayLike, emotion: npt.ArrayLike, state: FullState, final: bool = False
    ) -> tuple[Array, FullState]:
        """Motion (n, 70) that became known with more features.

        Args:
            features: (T, D).
            emotion: (8,) weights as of `ditto.motion.emotion.emotion_vector`.
            state: from `begin` or the call before.
            final: no more features come: as many rows as features have come out then.

        Raises:
            ValueError: features or emotion of another shape.
        """
        speech, weights = np.asarray(features, np.float32), np.asarray(emotion, np.float32)
        width = self._silence.shape[1]
        if speech.ndim == 2 and not len(speech):
            speech = speech.reshape(0, width)
        if speech.ndim != 2 or speech.shape[1] != width or weights.shape != (8,):
            raise ValueError(f"wanted features (T, {width}) and emotion (8,), got {speech.shape} and {weights.shape}")
        moods, rules, (known, condition) = self._moods(weights), self.rules, self._told(state.source)
        rows = condition_rows(speech, state.received, moods, condition)
        windows, origin = state.windows, state.origin
        if windows is None:
            windows, origin = self._begin(state, moods)
        sample = self._sample(state.seed, windows.joined.windows)
        motion = np.zeros((0, PACKED_SIZE), np.float32)
        if isinstance(windows, Recording):
            motion, windows = advance_recording(windows, rows, sample, known, rules, final)
        else:
            motion, windows = advance_live(windows, rows, sample, known, rules, final)
            if origin is None and len(windows.origin):
                origin = windows.origin[: rules.overlap] if self.sampling.origin == "silence" else windows.origin[:1]
                origin = self._limited(origin).mean(0)
        received = state.received + len(rows)
        motion = self._limited(motion[: received - state.given])  # released windows give more than came in
        if origin is None and len(motion):
            origin = motion[0]
        shown = self._relative(state, motion, origin)
        return shown, FullState(state.source, state.seed, windows, origin, received, state.given + len(shown))

    def step_batch(
        self,
        features: Sequence[npt.ArrayLike],
        emotions: Sequence[npt.ArrayLike],
        states: Sequence[FullState],
        final: Sequence[bool],
    ) -> list[tuple[Array, FullState]]:
        """Several streams, one after another: the arguments of a call for each."""
        return [self(*job) for job in zip(features, emotions, states, final, strict=True)]

    def _begin(self, state: FullState, moods: Array) -> tuple[Live | Recording, Array | None]:
        """Before the first window: what precedes speech."""
        rules, (known, condition) = self.rules, self._told(state.source)
        silent = np.tile(self._silence, (-(-WINDOW // len(self._silence)), 1))
        if not self.recording:
            rows = condition_rows(silent[: rules.overlap], -rules.overlap, moods, condition)
            return start_live(known, rows, rules), None
        origin = None
        rows = condition_rows(silent[:WINDOW], 0, moods, condition)
        if self.sampling.origin == "silence":
            origin = self._sample(state.seed, SILENT_WINDOW)(known, rows)
            origin = self._limited(origin).mean(0)
        return start_recording(known, rows.shape[1], rules), origin

    def _sample(self, seed: int, window: int) -> Sample:
        """Samples the windows from number `window` on, each with its own noise."""
        numbers = iter(range(window, window + 2**32))

        def sample(known: Array, conditions: Array) -> Array:
            number, steps = next(numbers), self.sampling.all_steps
            dice = window_noise(seed, number)
            first = dice.standard_normal((1, WINDOW, PACKED_SIZE), np.float32)
            if self.sampling.noise == "shared":
                dice = window_noise(seed, SILENT_WINDOW + 1)
            fresh = dice.standard_normal((steps - 1, 1, WINDOW, PACKED_SIZE), np.float32)
            found = self._engine(cond_frame=known[None], cond=conditions[None], start=first, noise=fresh)
            return np.asarray(found["motion"][0], np.float32)

        return sample

    def _moods(self, weights: Array) -> Array:
        """Emotions (M, 8) as the network knows them: those asked for, or for neutral those of the released settings."""
        released = self.sampling.released
        if released is None or released.emotions is None or not np.array_equal(weights, emotion_vector(None)):
            return emotion_of_weights(weights)[None]
        return released.emotions

    def _told(self, source: Source) -> tuple[Array, SourceCondition]:
        """What the motion network is told of a face: its motion, and the conditions that stay."""
        released = self.sampling.released
        if released is None or released.reference is None:
            return source.motion, source.condition
        return released.reference

    def _limited(self, motion: Array) -> Array:
        """Motion (n, 265) within the released limits."""
        limits = None if self.sampling.released is None else self.sampling.released.limits
        return motion if limits is None else np.clip(motion, *limits).astype(np.float32)

    def _relative(self, state: FullState, motion: Array, origin: Array | None) -> Array:
        """Motion (n, 265) acting on the source, as the change against it (n, 70)."""
        source, driving, released = state.source, self.sampling.driving, self.sampling.released
        rest, always = source.pose, self.sampling.edit
        if released is not None:
            driving, always = replace(driving, **released.driving), released.edit
            if released.reference is not None:
                strength = driving.strength * float(released.reference.motion[0] + 1.0) / rest.scale
                driving = replace(driving, strength=strength)
        rows = np.zeros((len(motion), MOTION_SIZE), np.float32)
        for number, (row, frame) in enumerate(zip(rows, motion, strict=True), state.given):
            edit = always
            if released is not None and released.blinks is not None:
                place = blink_place(state.seed, number, released.stretch, released.waits)
                edit = replace(always, blink=released.blinks[place])
            pose = drive_motion(source.motion, frame, frame if origin is None else origin, driving, edit).pose
            row[0] = pose.scale / rest.scale - 1.0
            row[1:4], row[4:7], row[7:] = pose.degrees - rest.degrees, pose.t - rest.t, pose.exp - rest.exp
        return rows


@lru_cache(maxsize=64)
def _blinks(seed: int, frames: int, waits: tuple[int, ...]) -> npt.NDArray[np.intp]:
    return blink_frames(frames, waits, seed)


def blink_place(seed: int, frame: int, stretch: int = BLINK_STRETCH, waits: tuple[int, ...] = ()) -> int:
    """Where in a blink a frame of a stream is, 0 where the eyes are open.

    Args:
        seed: of random waits.
        frame: index in the stream.
        stretch: frames that blinks are planned for at once; then they are planned anew.
        waits: as of `blink_frames`.
    """
    number, place = divmod(frame, stretch)
    return int(_blinks(seed + number, stretch, waits)[place])
