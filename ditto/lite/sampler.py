"""From speech features to motion: windows of a diffusion network, one after another, that join smoothly.

Everything random comes from (seed, window) or (seed, frame), everything remembered is in the state, and windows are due
at fixed frames. So the motion is the same bit for bit however the features are cut into calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.bundle import read_tensors
from ditto.engines import Engine, open_engine
from ditto.engines.batched import BatchedEngine
from ditto.errors import BundleError
from ditto.lite.latency import LATENCIES, LOOKAHEAD, LOOKBACK, OFFLINE_PLAN, WindowPlan, latency_of
from ditto.lite.phones import PHONES, SILENCE
from ditto.lite.postprocess import (
    AT_REST,
    SLOW_CHANNELS,
    PostprocessConfig,
    Rest,
    closing_of,
    limit_closing_speed,
    normalise_opening,
    shape_blinks,
    smooth,
    to_camera_frame,
)
from ditto.lite.speech_encoder import FEATURE_SIZE, HIDDEN_SIZE
from ditto.motion.emotion import EMOTIONS
from ditto.motion.eyes import EYE_SIZE, EyeState, initial_eyes, step_eyes
from ditto.motion.motion import EXPRESSION, EYES, KEYPOINTS, MOTION_SIZE
from ditto.motion.noise import window_noise

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

# Head, brows and eyes follow speech loosely: guidance would only make them move more.
_EYES = [EXPRESSION.start + 3 * k + axis for k in EYES for axis in range(3)]
GUIDED = [channel for channel in range(MOTION_SIZE) if channel not in (*SLOW_CHANNELS, *_EYES)]
BEFORE_FIRST = 2**64 - 1  # the number of the window before the first


class MotionNetwork(NamedTuple):
    """The two halves of the diffusion network and the numbers that go with them.

    Attributes:
        condition: engine: features, emotion, eyes, canonical, speech_mask -> condition; once per window. The mask is 1
            to give the speech, 0 to hide it.
        short_condition: the same for plans with `reduced_lookahead`: trained to do without the speech after them.
        denoiser: engine: motion, known, condition, level -> clean; once per step.
        scale: (70,) physical units per unit of the network.
        temperature: (70,) standard deviation of the starting noise; below one where speech determines the motion.
        silence: (368,) features of silence, for the time before and after the stream.
        postprocess: numbers of the postprocessing that were measured on this network.
    """

    condition: Engine
    short_condition: Engine
    denoiser: Engine
    scale: Array
    temperature: Array
    silence: Array
    postprocess: PostprocessConfig

    @classmethod
    def open(cls, bundle: str | PathLike[str], postprocess: PostprocessConfig, threads: int = 1) -> MotionNetwork:
        """The network of a bundle folder.

        Raises:
            EngineError: a network file is missing or cannot be run.
            BundleError: `motion.safetensors` is missing, damaged, or of another shape.
        """
        folder = Path(bundle)
        weights = folder / "motion.safetensors"
        tensors = dict(read_tensors(weights, "sampler."))
        names = [f"sampler.{name}" for name in ("scale", "temperature", "silence")]
        if missing := [name for name in names if name not in tensors]:
            raise BundleError(f"expected {', '.join(missing)} in {weights}, got none; get the bundle again")
        scale, temperature, silence = (np.asarray(tensors[name], np.float32) for name in names)
        shapes = scale.shape, temperature.shape, silence.shape
        if shapes != ((MOTION_SIZE,), (MOTION_SIZE,), (FEATURE_SIZE,)):
            raise BundleError(
                f"expected sampler.scale, .temperature ({MOTION_SIZE},) and .silence ({FEATURE_SIZE},) in {weights}, "
                f"got {shapes}; get the bundle again"
            )
        condition, short_condition, denoiser = (
            BatchedEngine(open_engine(folder / f"{name}.onnx", threads=threads))
            for name in ("motion_condition", "motion_condition_short", "motion")
        )
        return cls(condition, short_condition, denoiser, scale, temperature, silence, postprocess)


class SamplerState(NamedTuple):
    """What a stream of motion remembers.

    Attributes:
        canonical: (63,) the portrait's keypoints.
        seed: of all noise.
        window: windows sampled so far.
        features: (past + n, 368) of the known frames and of those waiting.
        eyes: (past + predicted + n, 8) likewise; they do not wait for the speech of the plan's `predicted` frames.
        known: (past, 70) the last emitted motion in the network's units.
        noise: (future, 70) the noise that frames after the known ones start from, where the plan `resamples_future`;
            else (0, 70).
        tail: (future, 22) the slow channels of the last window after its emitted frames.
        eye_process: state of the process of blinks and glances.
        rest: how far the lips of the last emitted frame had come to rest in silence.
        gap: between the lips in the last emitted frame, fu.
        widest: running 95th percentile of the lips' opening, fu, before it is normalised.
    """

    canonical: Array
    seed: int
    window: int
    features: Array
    eyes: Array
    known: Array
    noise: Floats
    tail: Array
    eye_process: EyeState
    rest: Rest
    gap: float
    widest: float


class MotionSampler:
    """Samples motion from speech features with a diffusion network.

    Args:
        network: its engines and the numbers that go with them.
        plan: how windows overlap.
        steps: DDIM steps per window, 1 or more.
        guidance: strength of the speech condition on the mouth (classifier-free); other than 1 doubles the work.

    Source: Song et al. 2021 (arXiv:2010.02502), eq. 12; x0 prediction and cosine schedule as Ditto (arXiv:2411.19509).
    """

    def __init__(
        self,
        network: MotionNetwork,
        plan: WindowPlan = OFFLINE_PLAN,
        steps: int = 10,
        guidance: float = 1.0,
    ) -> None:
        plan.check()
        if steps < 1:
            raise ValueError(f"expected steps of 1 or more, got {steps}; give another number")
        self.plan = plan
        self.steps = steps
        self.guidance = float(guidance)
        self.network = network
        self._signal = schedule(steps)
        self._condition = network.short_condition if plan.reduced_lookahead else network.condition

    def at(self, latency: str) -> MotionSampler:
        """The same network at a latency, one of `ditto.lite.latency.LATENCIES`.

        Raises:
            ValueError: no latency has this name.
        """
        return MotionSampler(self.network, *latency_of(latency))

    @property
    def latencies(self) -> tuple[str, ...]:
        """Names that `at` takes."""
        return tuple(LATENCIES)

    @property
    def delay_seconds(self) -> float:
        """The longest time from the first sample of a frame to the last sample that frame waits for."""
        return self.plan.delay_seconds

    def planned(self, plan: WindowPlan, steps: int) -> MotionSampler:
        """The same network and settings with another plan and number of steps."""
        return MotionSampler(self.network, plan, steps, self.guidance)

    def begin(self, portrait: Portrait, seed: int) -> SamplerState:
        """A portrait at rest in silence."""
        return self.initial_state(portrait.canonical_keypoints, portrait.eye_open, seed)

    def initial_state(self, canonical_keypoints: npt.ArrayLike, eye_open: npt.ArrayLike, seed: int = 0) -> SamplerState:
        """A face at rest in silence.

        Args:
            canonical_keypoints: (21, 3) of the portrait, face units.
            eye_open: (2,) of the portrait; eye motion is relative to it, so only its shape is checked.
            seed: of all noise of this stream.

        Raises:
            ValueError: on other shapes.
        """
        canonical = np.asarray(canonical_keypoints, np.float32)
        if canonical.shape != (KEYPOINTS, 3) or np.shape(eye_open) != (2,):
            raise ValueError(
                f"expected canonical_keypoints ({KEYPOINTS}, 3) and eye_open (2,), "
                f"got {canonical.shape} and {np.shape(eye_open)}; give those of a Portrait"
            )
        past = self.plan.past
        eyes = np.zeros((past, EYE_SIZE), np.float32)
        eyes[:, :2] = 1.0
        first, eye_process = step_eyes(initial_eyes(), np.ones(self.plan.predicted), int(seed))
        features = np.tile(self.network.silence, (past, 1))
        known = np.zeros((past, MOTION_SIZE), np.float32)
        kept = self.plan.future if self.plan.resamples_future else 0
        return SamplerState(
            canonical.reshape(-1),
            int(seed),
            window=0,
            features=features,
            eyes=np.concatenate([eyes, first]),
            known=known,
            noise=window_noise(int(seed), BEFORE_FIRST).standard_normal((kept, MOTION_SIZE)),
            tail=np.zeros((self.plan.future, len(SLOW_CHANNELS)), np.float32),
            eye_process=eye_process,
            rest=AT_REST,
            gap=0.0,
            widest=self.network.postprocess.usual_gap,
        )

    def __call__(
        self, features: npt.ArrayLike, emotion: npt.ArrayLike, state: SamplerState, final: bool = False
    ) -> tuple[Array, SamplerState]:
        """Take features of any number of frames, return the motion that became final.

        Args:
            features: (T, 368) at 25 fps.
            emotion: (8,) weights, read when a window is sampled.
            state: from `initial_state` or the last call.
            final: no features follow: return all frames that are left.

        Returns:
            (n, 70) motion (expression in the camera frame) and the next state. After a call with `final`, as many frames
            have come out as went in.

        Raises:
            ValueError: on other shapes.
        """
        return self.step_batch([features], [emotion], [state], [final])[0]

    def step_batch(
        self,
        features: Sequence[npt.ArrayLike],
        emotions: Sequence[npt.ArrayLike],
        states: Sequence[SamplerState],
        final: Sequence[bool],
    ) -> list[tuple[Array, SamplerState]]:
        """Several streams at once: their due windows go through the networks as one batch.

        Args:
            features, emotions, states, final: the arguments of a call of its own, for each stream; any number of frames
                each.

        Returns:
            For each stream the result of a call of its own, bit for bit (`ditto.engines.batched`).

        Raises:
            ValueError: on other shapes, before any window is sampled.
        """
        weights, states = [np.asarray(emotion, np.float32) for emotion in emotions], list(states)
        for i, (given, emotion, state) in enumerate(zip(features, weights, states, strict=True)):
            block = np.asarray(given, np.float32)
            if block.ndim != 2 or block.shape[1] != FEATURE_SIZE or emotion.shape != (len(EMOTIONS),):
                raise ValueError(
                    f"expected features (T, {FEATURE_SIZE}) and emotion ({len(EMOTIONS)},), "
                    f"got {block.shape} and {emotion.shape}; give the encoder's rows and a weight for each emotion"
                )
            eyes, eye_process = step_eyes(state.eye_process, silence_of(block), state.seed)
            states[i] = state._replace(
                features=np.concatenate([state.features, block]),
                eyes=np.concatenate([state.eyes, eyes]),
                eye_process=eye_process,
            )
        out: list[list[Array]] = [[] for _ in states]
        while True:
            takes = [self._due(state, last) for state, last in zip(states, final, strict=True)]
            due = [i for i, take in enumerate(takes) if take]
            if not due:
                break
            for i in due:
                states[i] = self._start(states[i], window_noise(states[i].seed, states[i].window))
            windows = self._sample([weights[i] for i in due], [self._filled(states[i]) for i in due])
            for i, window in zip(due, windows, strict=True):
                motion, states[i] = self._emit(window, states[i], takes[i], final[i])
                out[i].append(motion)
        none = np.zeros((0, MOTION_SIZE), np.float32)
        return [(np.concatenate([none, *motions]), state) for motions, state in zip(out, states, strict=True)]

    def _due(self, state: SamplerState, final: bool) -> int:
        """Frames the next window emits; 0 while it has to wait for more speech."""
        past, hop, _, lookahead = self.plan
        waiting = len(state.features) - past
        if final:
            return min(hop, max(waiting, 0))
        return hop if waiting >= hop + lookahead else 0

    def _filled(self, state: SamplerState) -> SamplerState:
        """The state with as many features as a window takes: after the end of the stream, silence."""
        missing = self.plan.past + self.plan.hop + self.plan.lookahead - len(state.features)
        if missing <= 0:
            return state
        return state._replace(
            features=np.concatenate([state.features, np.tile(self.network.silence, (missing, 1))]),
            eyes=np.concatenate([state.eyes, np.repeat(state.eyes[-1:], missing, 0)]),
        )

    def _start(self, state: SamplerState, rng: np.random.Generator) -> SamplerState:
        """The state with the noise its next window starts from.

        Where several windows sample the same frame, the frame keeps its noise. With new noise each window would sample
        another future; what is shown would be about their mean, and the head would hardly move.
        """
        if not self.plan.resamples_future:
            return state._replace(noise=rng.standard_normal((self.plan.length, MOTION_SIZE)))
        fresh = rng.standard_normal((self.plan.hop, MOTION_SIZE))
        return state._replace(noise=np.concatenate([state.noise, fresh]))

    def _emit(
        self, window: Array, state: SamplerState, take: int, final: bool
    ) -> tuple[Array, SamplerState]:
        """The first `take` frames of a sampled window after the known ones, postprocessed, and the state after them."""
        past, config = self.plan.past, self.network.postprocess
        slow = smooth(window[:, SLOW_CHANNELS], config.slow_smoothing_frames)
        overlap = len(state.tail)
        ramp = np.arange(1, overlap + 1)[:, None] / (overlap + 1)
        ramp = ramp * ramp * (3.0 - 2.0 * ramp)
        slow[past : past + overlap] = ramp * slow[past : past + overlap] + (1.0 - ramp) * state.tail
        window[:, SLOW_CHANNELS] = slow
        fresh = shape_blinks(window[past : past + take] * self.network.scale, state.eyes[past : past + take])
        lookahead = min(max(self.plan.lookahead, 0), LOOKAHEAD)
        rows = fill(self._filled(state).features, past + self.plan.hop + self.plan.lookahead, past + take + lookahead)
        phones = rows[past - LOOKBACK :, HIDDEN_SIZE:].reshape(-1, 2, len(PHONES))
        waits = past + self.plan.hop + self.plan.lookahead  # a window with fewer frames is sampled only at the end
        complete = final and len(state.features) < waits
        closing, rest = closing_of(take, phones, state.rest, lookahead, complete)
        known = np.concatenate([state.known, closing.apply(fresh) / self.network.scale])[-past:]
        silent = silence_of(rows[past : past + take])
        shown, widest = normalise_opening(fresh, silent, state.widest, config.target_gap)
        shown = closing.apply(shown)
        gap = state.gap
        if self.plan.reduced_lookahead:
            shown, gap = limit_closing_speed(shown, gap)
        state = state._replace(
            window=state.window + 1,
            features=state.features[take:],
            eyes=state.eyes[take:],
            known=known,
            noise=state.noise[take:] if self.plan.resamples_future else state.noise[:0],
            tail=window[past + take : past + take + overlap, SLOW_CHANNELS],
            rest=rest,
            gap=gap,
            widest=widest,
        )
        return to_camera_frame(shown), state

    def _sample(self, emotions: Sequence[Array], states: Sequence[SamplerState]) -> Array:
        """(B, T, 70) the next window of B streams in the network's units; the first `past` frames are the known ones.

        With guidance, each batch holds all rows a second time, with the speech masked.
        """
        past, hop, _, lookahead = self.plan
        count, length = len(states), self.plan.length
        speech_mask = np.ones((count, 1), np.float32)
        if self.guidance != 1.0:
            speech_mask = np.concatenate([speech_mask, np.zeros((count, 1), np.float32)])

        def twice(rows: Sequence[Array] | Floats) -> Array:
            return np.asarray(np.concatenate([rows] * (len(speech_mask) // count)), np.float32)

        condition = self._condition(
            features=twice([fill(state.features, past + hop + lookahead, length) for state in states]),
            emotion=twice(emotions),
            eyes=twice([fill(state.eyes, past + hop + max(lookahead, 0), length) for state in states]),
            canonical=twice([state.canonical for state in states]),
            speech_mask=speech_mask,
        )["condition"]
        mask = np.zeros((count, length, 1))
        mask[:, :past] = 1.0
        motion = np.zeros((count, length, MOTION_SIZE))
        motion[:, length - len(states[0].noise) :] = [state.noise for state in states]
        motion *= self.network.temperature
        clean = np.zeros((count, length, MOTION_SIZE))
        clean[:, :past] = [state.known for state in states]
        for level, signal, target in self._signal:
            guess = self.network.denoiser(
                motion=twice(mask * clean + (1 - mask) * motion),
                known=twice(mask),
                condition=condition,
                level=np.full((len(speech_mask), 1), level, np.float32),
            )["clean"].astype(np.float64)
            if self.guidance != 1.0:
                heard, unheard = guess[:count], guess[count:]
                guess = heard.copy()
                guess[..., GUIDED] += (self.guidance - 1.0) * (heard - unheard)[..., GUIDED]
            noise = (motion - np.sqrt(signal) * guess) / np.sqrt(1.0 - signal)
            motion = np.sqrt(target) * guess + np.sqrt(1.0 - target) * noise
        return np.asarray(mask * clean + (1 - mask) * motion, np.float32)


def schedule(steps: int) -> Floats:
    """(steps, 3): noise level, share of signal power there and after the step (cosine schedule, float64).

    The last step ends at exactly 1, so it returns the network's guess. Source: arXiv:2102.09672, eq. 17.
    """
    level = np.linspace(1.0, 0.0, steps + 1, dtype=np.float64)
    level[0] = 0.999  # at 1 no signal is left to divide by
    signal = np.cos((level + 0.008) / 1.008 * (np.pi / 2)) ** 2
    signal[-1] = 1.0
    return np.stack([level[:-1], signal[:-1], signal[1:]], -1)


def fill(rows: Array, given: int, length: int) -> Array:
    """(length, k): the first `given` rows of (n, k), the last of them repeated to the end of the window."""
    known = rows[: min(given, length)]
    return np.concatenate([known, np.repeat(known[-1:], length - len(known), 0)])


def silence_of(features: npt.ArrayLike) -> Floats:
    """(T, 368) features -> (T,) probability of silence."""
    f = np.asarray(features, np.float64)
    return np.asarray(0.5 * (f[:, HIDDEN_SIZE + SILENCE] + f[:, HIDDEN_SIZE + len(PHONES) + SILENCE]))
