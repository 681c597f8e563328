"""From speech features to motion: windows of a diffusion network, joined without seams, one call after another.

Everything random comes from (seed, window) or (seed, frame), everything remembered is in the state, and windows are due
at fixed frames: however the features are cut into calls, the motion is the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from ditto.emotion import emotion_offset
from ditto.engines import Engine, open_engine
from ditto.engines.batched import BatchedEngine
from ditto.errors import BundleError
from ditto.latency import LOOK_AHEAD as LOOK_AHEAD
from ditto.latency import LOOK_BACK as LOOK_BACK
from ditto.latency import OFFLINE_PLAN, latency_of
from ditto.latency import WINDOW as WINDOW
from ditto.latency import WindowPlan as WindowPlan
from ditto.life import EYE_SIZE, LEFT_IRIS, LEFT_LID, RIGHT_IRIS, RIGHT_LID, EyeState, hold_gaze, initial_eyes, live
from ditto.motion import COMPACT_SIZE, KEYPOINTS, LID_KEYPOINTS, TEMPLATE_APERTURE, rotation_matrix
from ditto.phones import BILABIALS, LABIODENTALS, PHONES, SILENCE
from ditto.speech import FEATURE_SIZE

if TYPE_CHECKING:
    from ditto.portrait import Portrait

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

HIDDEN_SIZE = FEATURE_SIZE - 2 * len(PHONES)  # 288
EMOTION_SIZE = 8
BEFORE_ALL = 2**64 - 1  # the number of the window before the first

PRESS_RAMP = (0.15, 0.40)  # of the larger of a frame's two bilabial probabilities
PRESS_BESIDE_RAMP = (0.04, 0.12)  # the same beside a frame that is pressed: closures seldom last one frame
TUCK_RAMP = (0.30, 0.65)
PRESS_GAP = -0.006  # fu against lips that just touch
TUCK_GAP = 0.024  # fu between the lips, filled by the upper teeth that touch the lower one
CLOSING_SPEED, OPENING_SPEED = 0.050, 0.055  # fu a frame; lips are no shutters
SURPRISE_SPEED = 0.065  # fu a frame: how fast they close on a sound that nobody heard coming
TUCK_LIFT = 0.016  # fu the upper lip rises off the teeth
TUCK_DEPTH = 0.018  # fu the lower lip goes back under the teeth
GAP_WANTED = 0.082  # fu, what the widest openings of a speaker (their 95th percentile while speaking) are brought to
GAP_USUAL = 0.078  # what the network gives for most
GAP_RISE, GAP_FALL = 0.08, 0.0008  # per frame: how fast the running percentile follows up, and down (fu)
GAP_GAIN = (0.9, 1.4)
# Head pose, forehead, brows, nose and glabella: what has mass or moves slowly. It is smoothed, since ten steps leave some
# noise in it, and each window takes over from the future frames of the one before gradually.
SLOW = [*range(7), *(7 + 3 * k + axis for k in (0, 1, 2, 4, 10) for axis in range(3))]
SLOW_SMOOTHING = 1.5  # frames
WIDEST_EYES = 0.02  # fu the upper lids rise beyond rest at most
EMOTION_BOOST = 0.8  # of the trained strength, on top of it
PAUSE_FRAMES = 10  # 0.4 s
PAUSE_HEARD = 4  # silent frames that make a pause where nobody knows yet what follows
PAUSE_ENTRY, PAUSE_EXIT = 3, 3  # frames to close, and to open before speech


class MotionNetwork(NamedTuple):
    """The two halves of the diffusion network and the numbers that go with them.

    Attributes:
        condition: engine: features, emotion, eyes, canonical, heard -> condition; once per window.
        short_condition: the same for plans that are `short_sighted`: taught to do without the speech they do not hear.
        denoiser: engine: motion, known, condition, level -> clean; once per step.
        scale: (70,) physical units per unit of the network.
        temperature: (70,) standard deviation of the starting noise; below one where speech says nearly everything.
        silence: (368,) features of silence, for the time before and after the stream.
    """

    condition: Engine
    short_condition: Engine
    denoiser: Engine
    scale: Array
    temperature: Array
    silence: Array

    @classmethod
    def open(cls, bundle: str | PathLike[str], threads: int = 1) -> MotionNetwork:
        """The network of a bundle folder.

        Raises:
            EngineError: a network file is missing or cannot be run.
            BundleError: `motion.safetensors` is missing, damaged, or of another shape.
        """
        folder = Path(bundle)
        weights = folder / "motion.safetensors"
        try:
            with safe_open(str(weights), framework="np") as tensors:
                scale, temperature, silence = (
                    np.asarray(tensors.get_tensor(f"sampler.{name}"), np.float32)
                    for name in ("scale", "temperature", "silence")
                )
        except (OSError, SafetensorError) as error:
            raise BundleError(
                f"readable motion weights are wanted at {weights}: {error}; get the bundle again"
            ) from error
        shapes = scale.shape, temperature.shape, silence.shape
        if shapes != ((COMPACT_SIZE,), (COMPACT_SIZE,), (FEATURE_SIZE,)):
            raise BundleError(
                f"{weights} should hold sampler.scale, .temperature ({COMPACT_SIZE},) and .silence ({FEATURE_SIZE},), "
                f"got {shapes}; get the bundle again"
            )
        condition, short_condition, denoiser = (
            BatchedEngine(open_engine(folder / f"{name}.onnx", threads=threads))
            for name in ("motion_condition", "motion_condition_short", "motion")
        )
        return cls(condition, short_condition, denoiser, scale, temperature, silence)


class SamplerState(NamedTuple):
    """What a stream of motion remembers.

    Attributes:
        canonical: (63,) the portrait's keypoints.
        seed: of all noise.
        window: windows sampled so far.
        features: (past + n, 368) of the known frames and of those waiting.
        eyes: (past + n, 8) likewise.
        known: (past, 70) the last emitted motion in the network's units.
        noise: (future, 70) the noise that frames after the known ones start from, where the plan draws them again;
            else (0, 70).
        tail: (future, 22) what the last window expected of the slow channels after its emitted frames.
        life: state of the eyes.
        silent_run: silent frames in a row up to the last emitted one.
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
    life: EyeState
    silent_run: int
    gap: float
    widest: float


class Job(NamedTuple):
    """What a stream asks of a sampler; the arguments of `MotionSampler.__call__`."""

    features: npt.ArrayLike
    emotion: npt.ArrayLike
    state: SamplerState
    final: bool = False


class MotionSampler:
    """Samples compact motion from speech features with a diffusion network.

    Args:
        network: the two engines and their constants.
        plan: how windows overlap.
        steps: DDIM steps per window, 1 or more.
        guidance: strength of the speech condition (classifier-free); other than 1 doubles the work.
        eta: 0 gives deterministic DDIM steps, 1 fresh noise at every step.

    Source: Song et al. 2021 (arXiv:2010.02502), eq. 12; x0 prediction and cosine schedule as Ditto (arXiv:2411.19509).
    """

    def __init__(
        self,
        network: MotionNetwork,
        plan: WindowPlan = OFFLINE_PLAN,
        steps: int = 10,
        guidance: float = 1.0,
        eta: float = 0.0,
    ) -> None:
        plan.check()
        if steps < 1:
            raise ValueError(f"a window takes at least one diffusion step, got {steps}")
        self.plan = plan
        self.steps = steps
        self.guidance = float(guidance)
        self.eta = eta
        self.network = network
        self._signal = schedule(steps)
        self._condition = network.short_condition if plan.short_sighted else network.condition

    def at(self, latency: str) -> MotionSampler:
        """The same network and settings at a latency, one of `ditto.latency.LATENCIES`.

        Raises:
            ValueError: there is none of this name.
        """
        return self.planned(*latency_of(latency))

    @property
    def delay_seconds(self) -> float:
        """The longest way from the first sample of a frame to the last sample that frame waits for."""
        return self.plan.delay_seconds

    def planned(self, plan: WindowPlan, steps: int) -> MotionSampler:
        """The same network and settings with another plan and number of steps."""
        return MotionSampler(self.network, plan, steps, self.guidance, self.eta)

    def begin(self, portrait: Portrait, seed: int) -> SamplerState:
        """A portrait at rest in silence."""
        return self.initial_state(portrait.canonical_keypoints, portrait.eye_open, seed)

    def initial_state(self, canonical_keypoints: npt.ArrayLike, eye_open: npt.ArrayLike, seed: int = 0) -> SamplerState:
        """A face at rest in silence.

        Args:
            canonical_keypoints: (21, 3) of the portrait, face units.
            eye_open: (2,) of the portrait; eyes are driven relative to it, so only its shape is checked.
            seed: of all noise of this stream.

        Raises:
            ValueError: on other shapes.
        """
        canonical = np.asarray(canonical_keypoints, np.float32)
        if canonical.shape != (KEYPOINTS, 3) or np.shape(eye_open) != (2,):
            raise ValueError(
                f"wanted canonical_keypoints ({KEYPOINTS}, 3) and eye_open (2,), "
                f"got {canonical.shape} and {np.shape(eye_open)}"
            )
        past = self.plan.past
        eyes = np.zeros((past, EYE_SIZE), np.float32)
        eyes[:, :2] = 1.0
        features = np.tile(self.network.silence, (past, 1))
        known = np.zeros((past, COMPACT_SIZE), np.float32)
        agreed = self.plan.future if self.plan.drawn_again else 0
        return SamplerState(
            canonical.reshape(-1),
            int(seed),
            window=0,
            features=features,
            eyes=eyes,
            known=known,
            noise=window_noise(int(seed), BEFORE_ALL).standard_normal((agreed, COMPACT_SIZE)),
            tail=np.zeros((self.plan.future, len(SLOW)), np.float32),
            life=initial_eyes(),
            silent_run=PAUSE_FRAMES,
            gap=0.0,
            widest=GAP_USUAL,
        )

    def __call__(
        self, features: npt.ArrayLike, emotion: npt.ArrayLike, state: SamplerState, final: bool = False
    ) -> tuple[Array, SamplerState]:
        """Take features of any number of frames, give the motion that became final.

        Args:
            features: (T, 368) at 25 fps.
            emotion: (8,) weights, read when a window is sampled.
            state: from `initial_state` or the last call.
            final: nothing follows: give everything that is still due.

        Returns:
            (n, 70) compact motion (expression in the camera frame) and the next state. Once `final` was said, as many
            frames have come out as went in.

        Raises:
            ValueError: on other shapes.
        """
        return self.together([Job(features, emotion, state, final)])[0]

    def together(self, jobs: Sequence[Job]) -> list[tuple[Array, SamplerState]]:
        """Several streams at once: windows that are due go through the networks as one batch.

        Args:
            jobs: the arguments of a call of its own, for each stream; any number of frames each.

        Returns:
            For each stream what a call of its own gives it, bit for bit (`ditto.engines.batched` sees to it).

        Raises:
            ValueError: on other shapes, before any window is sampled.
        """
        emotions, states = [], []
        for features, emotion, state, _ in jobs:
            block, mood = np.asarray(features, np.float32), np.asarray(emotion, np.float32)
            if block.ndim != 2 or block.shape[1] != FEATURE_SIZE or mood.shape != (EMOTION_SIZE,):
                raise ValueError(
                    f"wanted features (T, {FEATURE_SIZE}) and emotion ({EMOTION_SIZE},), "
                    f"got {block.shape} and {mood.shape}"
                )
            eyes, life = live(state.life, silence_of(block), state.seed)
            emotions.append(mood)
            states.append(
                state._replace(
                    features=np.concatenate([state.features, block]),
                    eyes=np.concatenate([state.eyes, eyes]),
                    life=life,
                )
            )
        out: list[list[Array]] = [[] for _ in jobs]
        while True:
            takes = [self._due(state, job.final) for state, job in zip(states, jobs, strict=True)]
            due = [i for i, take in enumerate(takes) if take]
            if not due:
                break
            dice = [window_noise(states[i].seed, states[i].window) for i in due]
            for i, random in zip(due, dice, strict=True):
                states[i] = self._start(states[i], random)
            windows = self._sample([emotions[i] for i in due], [self._filled(states[i]) for i in due], dice)
            for i, window in zip(due, windows, strict=True):
                motion, states[i] = self._emit(window, emotions[i], states[i], takes[i])
                out[i].append(motion)
        none = np.zeros((0, COMPACT_SIZE), np.float32)
        return [(np.concatenate([none, *motions]), state) for motions, state in zip(out, states, strict=True)]

    def _due(self, state: SamplerState, final: bool) -> int:
        """Frames the next window emits; 0 while it has to wait for more speech."""
        past, hop, _, ahead = self.plan
        waiting = len(state.features) - past
        return hop if waiting >= hop + ahead else min(hop, waiting) if final else 0

    def _filled(self, state: SamplerState) -> SamplerState:
        """The state with as much speech as a window hears: after the end of the stream, silence."""
        missing = self.plan.past + self.plan.hop + self.plan.ahead - len(state.features)
        if missing <= 0:
            return state
        return state._replace(
            features=np.concatenate([state.features, np.tile(self.network.silence, (missing, 1))]),
            eyes=np.concatenate([state.eyes, np.repeat(state.eyes[-1:], missing, 0)]),
        )

    def _start(self, state: SamplerState, random: np.random.Generator) -> SamplerState:
        """The state with the noise its next window starts from.

        Where windows draw the same frames over and over, a frame keeps its noise: windows that each drew another future
        would stand for their mean, and the head would hardly move.
        """
        if not self.plan.drawn_again:
            return state._replace(noise=random.standard_normal((self.plan.length, COMPACT_SIZE)))
        fresh = random.standard_normal((self.plan.hop, COMPACT_SIZE))
        return state._replace(noise=np.concatenate([state.noise, fresh]))

    def _emit(self, window: Array, emotion: Array, state: SamplerState, take: int) -> tuple[Array, SamplerState]:
        """The first `take` frames of a sampled window after the known ones, made sure of, and the state after them."""
        past = self.plan.past
        heard = self._filled(state)
        slow = smooth(window[:, SLOW], SLOW_SMOOTHING)
        overlap = len(state.tail)
        ramp = np.arange(1, overlap + 1)[:, None] / (overlap + 1)
        ramp = ramp * ramp * (3.0 - 2.0 * ramp)
        slow[past : past + overlap] = ramp * slow[past : past + overlap] + (1.0 - ramp) * state.tail
        window[:, SLOW] = slow
        fresh = shut_eyes(window[past : past + take] * self.network.scale, state.eyes[past : past + take])
        ahead = min(self.plan.ahead, LOOK_AHEAD)
        phones = heard.features[past - LOOK_BACK : past + take + ahead, HIDDEN_SIZE:].reshape(-1, 2, len(PHONES))
        guarded, _ = guard_mouth(fresh, phones, state.silent_run, ahead)
        known = np.concatenate([state.known, guarded / self.network.scale])[-past:]
        shown, widest = widen(fresh, silence_of(state.features[past : past + take]), state.widest)
        shown, silent_run = guard_mouth(shown, phones, state.silent_run, ahead)
        gap = state.gap
        if self.plan.short_sighted:
            shown, gap = slow_closing(shown, gap)
        state = state._replace(
            window=state.window + 1,
            features=state.features[take:],
            eyes=state.eyes[take:],
            known=known,
            noise=state.noise[take:] if self.plan.drawn_again else state.noise[:0],
            tail=window[past + take : past + take + overlap, SLOW],
            silent_run=silent_run,
            gap=gap,
            widest=widest,
        )
        return finish(bring_out(shown, emotion)), state

    def _sample(
        self, emotions: Sequence[Array], states: Sequence[SamplerState], dice: Sequence[np.random.Generator]
    ) -> Array:
        """(B, T, 70) the next window of B streams in the network's units; the first `past` frames are the known ones.

        With guidance, all rows come once more in each batch, unheard.
        """
        past, hop, _, ahead = self.plan
        count, length = len(states), self.plan.length
        heard = np.ones((count, 1), np.float32)
        if self.guidance != 1.0:
            heard = np.concatenate([heard, np.zeros((count, 1), np.float32)])
        twice = lambda x: np.asarray(np.concatenate([x] * (len(heard) // count)), np.float32)  # noqa: E731
        condition = self._condition(
            features=twice([fill(state.features, past + hop + ahead, length) for state in states]),
            emotion=twice(emotions),
            eyes=twice([fill(state.eyes, past + hop + ahead, length) for state in states]),
            canonical=twice([state.canonical for state in states]),
            heard=heard,
        )["condition"]
        mask = np.zeros((count, length, 1))
        mask[:, :past] = 1.0
        motion = np.zeros((count, length, COMPACT_SIZE))
        motion[:, length - len(states[0].noise) :] = [state.noise for state in states]
        motion *= self.network.temperature
        clean = np.zeros((count, length, COMPACT_SIZE))
        clean[:, :past] = [state.known for state in states]
        for level, signal, target in self._signal:
            guess = self.network.denoiser(
                motion=twice(mask * clean + (1 - mask) * motion),
                known=twice(mask),
                condition=condition,
                level=np.full((len(heard), 1), level, np.float32),
            )["clean"].astype(np.float64)
            if self.guidance != 1.0:
                guess = guess[count:] + self.guidance * (guess[:count] - guess[count:])
            noise = (motion - np.sqrt(signal) * guess) / np.sqrt(1.0 - signal)
            spread = self.eta * np.sqrt((1 - signal / target) * (1 - target) / (1 - signal))
            motion = np.sqrt(target) * guess + np.sqrt(max(1.0 - target - spread**2, 0.0)) * noise
            if spread > 0.0:
                fresh = np.stack([random.standard_normal((length, COMPACT_SIZE)) for random in dice])
                motion = motion + spread * (fresh * self.network.temperature)
        return np.asarray(mask * clean + (1 - mask) * motion, np.float32)


def window_noise(seed: int, window: int) -> np.random.Generator:
    """Where all noise of a stream's window comes from."""
    key = np.array([seed & 0xFFFFFFFFFFFFFFFF, 0x0D17], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, window], np.uint64)))


def schedule(steps: int) -> Floats:
    """(steps, 3): noise level, share of signal power there and after the step (cosine schedule, float64).

    The last step ends at exactly 1, so it returns the network's guess. Source: arXiv:2102.09672, eq. 17.
    """
    level = np.linspace(1.0, 0.0, steps + 1, dtype=np.float64)
    level[0] = 0.999  # at 1 no signal is left to divide by
    signal = np.cos((level + 0.008) / 1.008 * (np.pi / 2)) ** 2
    signal[-1] = 1.0
    return np.stack([level[:-1], signal[:-1], signal[1:]], -1)


def fill(rows: Array, heard: int, length: int) -> Array:
    """(length, k): the first `heard` rows of (n, k), the last of them repeated to the end of the window."""
    known = rows[: min(heard, length)]
    return np.concatenate([known, np.repeat(known[-1:], length - len(known), 0)])


def silence_of(features: npt.ArrayLike) -> Floats:
    """(T, 368) features -> (T,) probability of silence."""
    f = np.asarray(features, np.float64)
    return np.asarray(0.5 * (f[:, HIDDEN_SIZE + SILENCE] + f[:, HIDDEN_SIZE + len(PHONES) + SILENCE]))


def smooth(values: npt.ArrayLike, sigma: float) -> Floats:
    """(T, k) smoothed along time by a Gaussian of `sigma` frames, ends repeated."""
    x = np.asarray(values, np.float64)
    reach = int(np.ceil(3.0 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(x, [(reach, reach), (0, 0)], mode="edge")
    return np.asarray(sum(w * padded[i : i + len(x)] for i, w in enumerate(kernel / kernel.sum())))


def widen(motion: npt.ArrayLike, silent: npt.ArrayLike, widest: float) -> tuple[Array, float]:
    """Bring every speaker's opening of the lips to the same size: quiet ones would mumble.

    Args:
        motion: (n, 70) compact motion, expression in the head frame, physical units.
        silent: (n,) probability of silence.
        widest: running 95th percentile of the opening so far, fu.

    Returns:
        (n, 70) float32 and the running percentile after the last frame.
    """
    out = np.array(motion, np.float32)
    points = out[:, 7:].reshape(len(out), KEYPOINTS, 3)
    gap = np.maximum(points[:, 17, 1] - points[:, 14, 1], 0.0).astype(np.float64)
    gain = np.ones(len(out))
    for i, opening in enumerate(gap):
        if np.asarray(silent)[i] < 0.5:
            widest += GAP_RISE * (opening - widest) if opening > widest else -GAP_FALL * (1.0 - opening / widest)
        gain[i] = np.clip(GAP_WANTED / max(widest, 1e-3), *GAP_GAIN)
    _part(points, (gain - 1.0) * gap, 0.5)
    return out, float(widest)


def guard_mouth(
    motion: npt.ArrayLike, phones: npt.ArrayLike, silent_run: int, look_ahead: int = LOOK_AHEAD
) -> tuple[Array, int]:
    """Make sure that lips close on p, b, m, touch on f, v and rest in pauses.

    Args:
        motion: (n, 70) compact motion, expression in the head frame, physical units.
        phones: (m, 2, 40) phone probabilities of the `LOOK_BACK` frames before, of these frames and of the `look_ahead`
            after them; what is missing counts as silence.
        silent_run: silent frames in a row before the first.
        look_ahead: frames seen beyond each one, at most `LOOK_AHEAD`; with few, a pause is believed later.

    Returns:
        (n, 70) float32 and the silent frames in a row after the last.
    """
    out = np.array(motion, np.float32)
    n = len(out)
    p = np.asarray(phones, np.float64)
    missing = np.zeros((max(0, LOOK_BACK + n + LOOK_AHEAD - len(p)), *p.shape[1:]))
    missing[:, :, SILENCE] = 1.0
    p = np.concatenate([p, missing])
    quiet = p[LOOK_BACK:, :, SILENCE].mean(1) > 0.5
    bilabial = p[:, :, BILABIALS].sum(2).max(1)
    sure = np.pad(_ramp(bilabial, PRESS_RAMP), 1)
    beside = np.maximum(sure[:-2], sure[2:]) * _ramp(bilabial, PRESS_BESIDE_RAMP)
    press = np.maximum(sure[1:-1], beside)
    tuck = _ramp(p[:, :, LABIODENTALS].sum(2).max(1), TUCK_RAMP)[LOOK_BACK : LOOK_BACK + n]
    rest = np.zeros(n)
    pause = min(PAUSE_FRAMES, PAUSE_HEARD + look_ahead)
    late = max(0, pause - look_ahead - 1)  # silent frames that pass before it is known
    for i in range(n):
        silent_run = silent_run + 1 if quiet[i] else 0
        if silent_run:
            ahead = quiet[i + 1 : i + 1 + look_ahead]
            left = len(ahead) if ahead.all() else int(np.argmin(ahead))
            if silent_run + left >= pause:
                leaving = 1.0 if ahead.all() else (left + 1) / (PAUSE_EXIT + 1)
                rest[i] = min(1.0, (silent_run - late) / PAUSE_ENTRY, leaving)
    points = out[:, 7:].reshape(n, KEYPOINTS, 3)
    _close(points, rest, 0.0, 0.6)
    pressed = press[LOOK_BACK : LOOK_BACK + n]
    _tuck(points, tuck * (1.0 - pressed) * (1.0 - rest))
    for distance in (2, 1):  # on the way to a closure, and back from it
        _close(points, press[LOOK_BACK + distance :][:n], PRESS_GAP + distance * CLOSING_SPEED, 0.3)
        _close(points, press[LOOK_BACK - distance :][:n], PRESS_GAP + distance * OPENING_SPEED, 0.3)
    _close(points, pressed, PRESS_GAP, 0.3)
    return out, silent_run


def slow_closing(motion: npt.ArrayLike, gap: float) -> tuple[Array, float]:
    """(n, 70) compact motion whose lips close no faster than `SURPRISE_SPEED`, and the gap of its last frame.

    Where p, b or m is heard beforehand lips are on their way already; else they would shut from one frame to the next.

    Args:
        motion: expression in the head frame, physical units.
        gap: between the lips in the frame before, fu.
    """
    out = np.array(motion, np.float32)
    points = out[:, 7:].reshape(len(out), KEYPOINTS, 3)
    for face in points:
        least = gap - SURPRISE_SPEED
        now = float(face[17, 1] - face[14, 1])
        _part(face[None], np.array([max(least - now, 0.0)]), 0.3)
        gap = float(face[17, 1] - face[14, 1])
    return out, gap


def _ramp(x: Floats, ends: tuple[float, float]) -> Floats:
    return np.asarray(np.clip((x - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0))


def bring_out(motion: npt.ArrayLike, emotion: npt.ArrayLike) -> Array:
    """(n, 70) compact motion in the head frame that shows an emotion (8,) more strongly than the network learnt to.

    The network gives what its corpus had, tasteful rather than plain. Lips and lids are left to it.
    """
    out = np.array(motion, np.float32)
    offset = EMOTION_BOOST * emotion_offset(emotion)
    offset[[*LID_KEYPOINTS, 14, 17, 19]] = 0.0
    out[:, 7:] += offset.reshape(-1).astype(np.float32)
    return out


def shut_eyes(motion: npt.ArrayLike, eyes: npt.ArrayLike) -> Array:
    """(n, 70) compact motion whose lids are shut at least as far as the eye states (n, 8) plan: blinks close."""
    out = np.array(motion, np.float32)
    points = out[:, 7:].reshape(len(out), KEYPOINTS, 3)
    for lid, side in ((LEFT_LID, 0), (RIGHT_LID, 1)):
        open_share = np.asarray(eyes, np.float32)[:, side]
        least = TEMPLATE_APERTURE * (1.0 - open_share) - WIDEST_EYES * open_share
        points[:, lid, 1] = np.maximum(points[:, lid, 1], least)
    return out


def _tuck(points: Array, weight: Floats) -> None:
    """The lower lip of (n, 21, 3) under the upper teeth, which show, in place, by `weight`: f and v."""
    now = points[:, 17, 1] - points[:, 14, 1]
    _part(points, weight * (TUCK_GAP - now), 0.3)
    lift = weight * np.maximum(points[:, 14, 1] + TUCK_LIFT, 0.0)
    points[:, (14, 17), 1] -= lift[:, None]
    points[:, 20, 1] -= 0.6 * lift
    points[:, 17, 2] += weight * np.maximum(TUCK_DEPTH - points[:, 17, 2], 0.0)


def _close(points: Array, weight: Floats, gap: float, chin: float) -> None:
    """Bring the inner lips of (n, 21, 3) to at most `gap` in place, by `weight`; the chin follows by a share."""
    now = points[:, 17, 1] - points[:, 14, 1]
    _part(points, weight * (np.minimum(now, gap) - now), chin)


def _part(points: Array, change: Floats, chin: float) -> None:
    """Open the lips of (n, 21, 3) by `change` (n,) in place: mostly the lower one; the chin follows by a share."""
    points[:, 17, 1] += 0.85 * change
    points[:, 14, 1] -= 0.15 * change
    points[:, 20, 1] -= 0.06 * change
    points[:, 19, 1] += chin * change
    for corner in (6, 12):
        points[:, corner, 1] += 0.15 * change


def finish(motion: Array) -> Array:
    """Compact motion for the outside: gaze held on the camera, expression in the camera frame instead of the head's."""
    out = np.array(motion, np.float64)
    points = out[:, 7:].reshape(len(out), KEYPOINTS, 3)
    shift = hold_gaze(out[:, 1:4])
    for iris in (RIGHT_IRIS, LEFT_IRIS):
        points[:, iris, :2] += shift
    turned = points @ rotation_matrix(out[:, 1], out[:, 2], out[:, 3])
    out[:, 7:] = turned.reshape(len(out), -1)
    return out.astype(np.float32)
