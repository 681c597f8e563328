"""HuBERT features to rows of motion relative to the portrait, by the published motion network.

All randomness comes from (seed, window). The state holds everything that a stream remembers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ditto.full.conditioning import Conditions, condition_rows, emotion_of_weights
from ditto.full.motion_math import pose_of
from ditto.full.released import BLINK_PLAN_FRAMES, Released
from ditto.full.retargeting import (
    NO_EDIT,
    FrameEdit,
    MotionParts,
    RetargetOptions,
    blink_frames,
    check_choices,
    mixed_motion,
    retarget_motion,
)
from ditto.full.sizes import LEVELS, WINDOW
from ditto.full.source import Call, Subject
from ditto.full.windows import (
    RecordingWindows,
    Sample,
    StreamWindows,
    WindowRules,
    advance_recording,
    advance_stream,
    start_recording,
    start_stream,
)
from ditto.motion.emotion import EMOTIONS, emotion_vector
from ditto.motion.motion import DEGREES, EXPRESSION, FPS, MOTION_SIZE, PACKED_SIZE, SCALE, TRANSLATION
from ditto.motion.noise import window_noise
from ditto.portrait.portrait import Portrait
from ditto.values import is_whole

Array = npt.NDArray[np.float32]

SILENT_WINDOW = 2**40  # number of the window of silence, which no window of speech reaches

# The released overlaps: 10 for recordings, 70 and 75 for streams.
LATENCIES = {"quality": WindowRules(10), "balanced": WindowRules(70), "low": WindowRules(75)}
RECORDING, STREAM = "quality", "balanced"  # whose overlap the published settings set: offline, online


@dataclass(frozen=True)
class Sampling:
    """How windows are sampled, and how their motion is retargeted to the portrait.

    Attributes:
        steps: of DDIM. The released default is 50, its configuration for streams has 10.
        guidance: strength of classifier-free guidance.
        released: the settings published with the checkpoints; they replace `steps` and `edit`.
        schedule: type in which the DDIM schedule is computed: "float64", or as released "float32", which cancels.
        noise: "fresh" for every step of every window, or as released "shared": all windows have the same noise in their
            steps, and differ only in the noise that they start from.
        origin: what motion is relative to: the mean of a window sampled for "silence", or as released the "first" frame,
            whose random tilt then stays in all frames.
        retarget: how motion is retargeted to the portrait.
        edit: changes to every frame. `FrameEdit(turn={"pitch": 2.0})` adds the two degrees of the released code.

    Raises:
        ValueError: a field out of its range.
    """

    steps: int = 10
    guidance: float = 2.0
    released: Released | None = None
    schedule: Literal["float64", "float32"] = "float64"
    noise: Literal["fresh", "shared"] = "fresh"
    origin: Literal["silence", "first"] = "silence"
    retarget: RetargetOptions = field(default_factory=RetargetOptions)
    edit: FrameEdit = NO_EDIT

    def __post_init__(self) -> None:
        check_choices(self)
        if not (is_whole(self.steps, 1) and self.steps <= LEVELS):
            raise ValueError(f"expected steps to be a whole number, 1 to {LEVELS}, got {self.steps!r}; give another")
        if not math.isfinite(self.guidance):
            raise ValueError(f"expected guidance to be a finite number, got {self.guidance!r}; give another")

    @property
    def ddim_steps(self) -> int:
        """DDIM steps of a window."""
        return self.steps if self.released is None else self.released.steps


class FeatureTiming(Protocol):
    """When an encoder gives features.

    Attributes:
        hop_features: features that it gives at a time.
        lookahead: frames of speech after a feature that the encoder waits for.
    """

    @property
    def hop_features(self) -> int: ...

    @property
    def lookahead(self) -> int: ...


class FullState(NamedTuple):
    """The state of a stream of motion.

    Attributes:
        source: what the stream is for.
        seed: of all noise.
        windows: state of their joining; None before the first features.
        origin: (265,) what motion is relative to; None before it is known.
        received: frames of features so far.
        given: frames of motion so far.
        held: (n, 265) motion that waits for the end of the speech, because it fades out.
        first: the first frame before edits, which fades may go to; None before it is known.
    """

    source: Subject
    seed: int
    windows: StreamWindows | RecordingWindows | None
    origin: Array | None
    received: int
    given: int
    held: Array
    first: MotionParts | None = None


class FullSampler:
    """Samples rows of motion (70) relative to the portrait: scale ratio - 1, degrees, t and exp in LivePortrait's units.

    Args:
        engine: cond_frame (1, 265), cond (1, 80, 1103), start (1, 80, 265), noise (steps - 1, 1, 80, 265) -> motion
            (1, 80, 265).
        source_of: portrait -> its source, or the clip's that it stands for.
        silence: (n, D) features of silence.
        encoder: the encoder that gives the features.
        sampling: how motion is sampled.
        latency: one of `LATENCIES`.

    Raises:
        ValueError: an unknown latency.
    """

    def __init__(
        self,
        engine: Call,
        source_of: Callable[[Portrait], Subject],
        silence: Array,
        encoder: FeatureTiming,
        sampling: Sampling | None = None,
        latency: str = "quality",
    ) -> None:
        if latency not in LATENCIES:
            raise ValueError(
                f"expected latency to be one of {', '.join(LATENCIES)}, got {latency!r}; choose one of them"
            )
        self.sampling = sampling or Sampling()
        self.latency, self.rules, self.recording = latency, LATENCIES[latency], latency == RECORDING
        released = self.sampling.released
        if released is not None:
            own = latency == (STREAM if released.online else RECORDING)
            overlap = released.overlap if own else self.rules.overlap
            self.rules = WindowRules(overlap, released.smoothing, released.reset_every, released.reset_keeps)
        self._engine, self._source_of, self._silence, self._encoder = engine, source_of, silence, encoder

    def at(self, latency: str) -> FullSampler:
        """The same network at another latency.

        Raises:
            ValueError: an unknown latency.
        """
        return FullSampler(self._engine, self._source_of, self._silence, self._encoder, self.sampling, latency)

    @property
    def latencies(self) -> tuple[str, ...]:
        """Names that `at` takes."""
        return tuple(LATENCIES)

    def for_source(self, source: Subject, retarget: RetargetOptions) -> FullSampler:
        """The same network for a clip, at the same latency, with its motion retargeted in another way."""
        sampling = replace(self.sampling, retarget=retarget)
        return FullSampler(self._engine, lambda portrait: source, self._silence, self._encoder, sampling, self.latency)

    @property
    def _held(self) -> int:
        """Frames that wait for the end of the speech."""
        released = self.sampling.released
        return 0 if released is None or released.fade is None else released.fade.held

    @property
    def delay_seconds(self) -> float:
        """The longest time from the first sample of a frame to the last sample that the frame waits for."""
        hop, features, half = self.rules.hop, self._encoder.hop_features, self.rules.smoothing // 2
        waits = 0
        begin = half // hop if self.recording else 0  # the first window after which frames are known
        for window in range(begin, begin + features):  # a common period of the hops of encoder and windows
            if self.recording:
                first, due = max(0, window * hop - half), WINDOW + window * hop
            else:
                first, due = window * hop, (window + 2) * hop
            waits = max(waits, -(-due // features) * features + self._encoder.lookahead - first)
        return (waits + self._held) / FPS

    def begin(self, portrait: Portrait, seed: int = 0) -> FullState:
        """The state before the first features."""
        return FullState(self._source_of(portrait), seed, None, None, 0, 0, np.zeros((0, PACKED_SIZE), np.float32))

    def __call__(
        self, features: npt.ArrayLike, emotion: npt.ArrayLike, state: FullState, final: bool = False
    ) -> tuple[Array, FullState]:
        """Motion (n, 70) that more features complete.

        Args:
            features: (T, D).
            emotion: (8,) weights as of `ditto.motion.emotion.emotion_vector`.
            state: from `begin` or the call before.
            final: the last features. After it, as many rows as features have come out.

        Raises:
            ValueError: features or emotion have a wrong shape.
        """
        speech, weights = np.asarray(features, np.float32), np.asarray(emotion, np.float32)
        width = self._silence.shape[1]
        if speech.ndim == 2 and not len(speech):
            speech = speech.reshape(0, width)
        if speech.ndim != 2 or speech.shape[1] != width or weights.shape != (len(EMOTIONS),):
            raise ValueError(
                f"expected features (T, {width}) and emotion ({len(EMOTIONS)},), got {speech.shape} and {weights.shape}; "
                "give the encoder's features and weights of `emotion_vector`"
            )
        emotions, rules, (known, condition) = self._emotions(weights), self.rules, self._conditioning(state.source)
        rows = condition_rows(speech, state.received, emotions, condition)
        windows, origin = state.windows, state.origin
        if windows is None:
            windows, origin = self._begin(state, emotions)
        sample = self._sample(state.seed, windows.joined.windows)
        motion = np.zeros((0, PACKED_SIZE), np.float32)
        if isinstance(windows, RecordingWindows):
            motion, windows = advance_recording(windows, rows, sample, known, rules, final)
        else:
            motion, windows = advance_stream(windows, rows, sample, known, rules, final)
            if origin is None and len(windows.origin):
                origin = windows.origin[: rules.overlap] if self.sampling.origin == "silence" else windows.origin[:1]
                origin = self._limited(origin).mean(0)
        received = state.received + len(rows)
        motion = np.concatenate([state.held, self._limited(motion)])
        motion = motion[: received - state.given]  # the last windows reach beyond the features
        if origin is None and len(motion):
            origin = motion[0]
        ready = len(motion) if final else max(0, len(motion) - self._held)
        shown, first = self._relative(state, motion[:ready], origin, received if final else None)
        given = state.given + ready
        return shown, FullState(state.source, state.seed, windows, origin, received, given, motion[ready:], first)

    def step_batch(
        self,
        features: Sequence[npt.ArrayLike],
        emotions: Sequence[npt.ArrayLike],
        states: Sequence[FullState],
        final: Sequence[bool],
    ) -> list[tuple[Array, FullState]]:
        """One step of several streams: the arguments of a call for each; as batches where the engine is shared."""
        jobs = list(zip(features, emotions, states, final, strict=True))
        if len(jobs) < 2 or getattr(self._engine, "rows", 1) < 2:
            return [self(*job) for job in jobs]
        with ThreadPoolExecutor(len(jobs), "sample") as pool:
            return list(pool.map(lambda job: self(*job), jobs))

    def _begin(self, state: FullState, emotions: Array) -> tuple[StreamWindows | RecordingWindows, Array | None]:
        """The state before the first window, and the origin if it is known then."""
        rules, (known, condition) = self.rules, self._conditioning(state.source)
        silent = np.tile(self._silence, (-(-WINDOW // len(self._silence)), 1))
        if not self.recording:
            rows = condition_rows(silent[: rules.overlap], -rules.overlap, emotions, condition)
            return start_stream(known, rows, rules), None
        origin = None
        rows = condition_rows(silent[:WINDOW], 0, emotions, condition)
        if self.sampling.origin == "silence":
            origin = self._sample(state.seed, SILENT_WINDOW)(known, rows)
            origin = self._limited(origin).mean(0)
        return start_recording(known, rows.shape[1], rules), origin

    def _sample(self, seed: int, window: int) -> Sample:
        """A function that samples window number `window`, then the next, and so on, each with its own noise."""
        numbers = iter(range(window, window + 2**32))

        def sample(known: Array, conditions: Array) -> Array:
            number, steps = next(numbers), self.sampling.ddim_steps
            rng = window_noise(seed, number)
            start = rng.standard_normal((1, WINDOW, PACKED_SIZE), np.float32)
            if self.sampling.noise == "shared":
                rng = window_noise(seed, SILENT_WINDOW + 1)
            noise = rng.standard_normal((steps - 1, 1, WINDOW, PACKED_SIZE), np.float32)
            found = self._engine(cond_frame=known[None], cond=conditions[None], start=start, noise=noise)
            return np.asarray(found["motion"][0], np.float32)

        return sample

    def _emotions(self, weights: Array) -> Array:
        """Emotions (M, 8) in the network's coding: the caller's, or for neutral those of the released settings."""
        released = self.sampling.released
        if released is None or released.emotions is None or not np.array_equal(weights, emotion_vector(None)):
            return emotion_of_weights(weights)[None]
        return released.emotions

    def _conditioning(self, source: Subject) -> tuple[Array, Conditions]:
        """The known motion (265,) and the conditions of the face that the network is conditioned on."""
        released = self.sampling.released
        if released is None or released.reference is None:
            return source.motion, source.condition
        return released.reference

    def _limited(self, motion: Array) -> Array:
        """Motion (n, 265) clipped to the released limits."""
        limits = None if self.sampling.released is None else self.sampling.released.limits
        return motion if limits is None else np.clip(motion, *limits).astype(np.float32)

    def _relative(
        self, state: FullState, motion: Array, origin: Array | None, frames: int | None
    ) -> tuple[Array, MotionParts | None]:
        """Motion (n, 265) retargeted to the source, as the change from it (n, 70), and the first frame of the stream.

        Args:
            frames: of the whole stream; None: it does not end soon.
        """
        source, retarget, released = state.source, self.sampling.retarget, self.sampling.released or Released()
        if self.sampling.released is not None:
            retarget = replace(retarget, **released.retarget)
            if released.reference is not None:
                strength = retarget.strength * float(released.reference.motion[0] + 1.0) / (float(source.motion[0]) + 1.0)
                retarget = replace(retarget, strength=strength)
        fade, first = released.fade, state.first
        rows = np.zeros((len(motion), MOTION_SIZE), np.float32)
        for number, (row, frame) in enumerate(zip(rows, motion, strict=True), state.given):
            edit, still = self._edit(state.seed, number, retarget), source.motion_at(number)
            start = frame if origin is None else origin
            if fade is not None:
                first = first or mixed_motion(still, frame, start, retarget, edit)
                opacity = fade.opacity(number, frames)
                edit = edit if opacity is None else replace(edit, opacity=opacity)
            goal = first if fade is not None and fade.first else None
            pose, rest = retarget_motion(still, frame, start, retarget, edit, goal), pose_of(still)
            row[SCALE], row[DEGREES] = pose.scale / rest.scale - 1.0, pose.degrees - rest.degrees
            row[TRANSLATION], row[EXPRESSION] = pose.t - rest.t, pose.exp - rest.exp
        return rows, first

    def _edit(self, seed: int, number: int, retarget: RetargetOptions) -> FrameEdit:
        """The changes to a frame, without its fade."""
        released = self.sampling.released
        if released is None:
            return self.sampling.edit
        edit = released.edits.get(number, released.edit)
        if released.blinks is None or retarget.keypoints == "lips":  # as released: eyes that are not retargeted do not blink
            return edit
        index = blink_index(seed, number, released.blink_plan_frames, released.waits)
        return replace(edit, blink=released.blinks[index])


@lru_cache(maxsize=64)
def _blinks(seed: int, frames: int, waits: tuple[int, ...]) -> npt.NDArray[np.intp]:
    return blink_frames(frames, waits, seed)


def blink_index(seed: int, frame: int, plan_frames: int = BLINK_PLAN_FRAMES, waits: tuple[int, ...] = ()) -> int:
    """Index of the blink frame for a frame of a stream; 0 where the eyes are open.

    Args:
        seed: of random waits.
        frame: index in the stream.
        plan_frames: frames of a plan of blinks; the next plan has a seed of its own.
        waits: as of `blink_frames`.
    """
    number, place = divmod(frame, plan_frames)
    return int(_blinks(seed + number, plan_frames, waits)[place])
