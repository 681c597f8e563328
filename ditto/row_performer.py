"""RowPerformer: the performer of bundles with explicit motion, 70 numbers a frame: speech encoder, motion sampler, renderer.

What makes one picture follow the other is here too, at the row: idle motion, transitions, changes of emotion, controls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ditto.controls import apply
from ditto.media.rates import SAMPLES_PER_FRAME
from ditto.motion.idle import IdleState, idle_frame, initial_idle, resume
from ditto.motion.inertialization import Inertialization
from ditto.motion.motion import Motion
from ditto.motion.space import MotionSpace
from ditto.performer import (
    Advance,
    Advanced,
    Appearance,
    Capability,
    Draw,
    Drawn,
    Edits,
    Face,
    Idle,
    Observer,
    Shot,
    State,
    check_latency,
    own,
)
from ditto.portrait.portrait import Portrait

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
E = TypeVar("E")  # state of the encoder
S = TypeVar("S")  # state of the sampler
A = TypeVar("A")  # what the renderer prepares of a portrait
P = TypeVar("P")  # a motion as the renderer takes it
C = TypeVar("C")  # a crop as it is rendered
T = TypeVar("T")



class Encoder(Protocol[E]):
    """Speech to features, 25 rows a second.

    Attributes:
        hop_samples: that a step takes.
        lead_features: rows of the first answers that lie before the speech.
    """

    @property
    def hop_samples(self) -> int: ...

    @property
    def lead_features(self) -> int: ...

    def initial_state(self, batch: int) -> E:
        """Before the first sample."""

    def step_batch(self, hops: Sequence[Array], states: Sequence[E]) -> list[tuple[Array, E]]:
        """For a hop (hop_samples,) of each of several streams: features (n, D) and the next state."""


class Sampler(Protocol[S]):
    """Features to rows of motion, at one latency.

    Attributes:
        latencies: names of latencies, the one for recordings first.
        delay_seconds: the longest way from the first sample of a frame to the last sample that its row waits for.
    """

    @property
    def latencies(self) -> tuple[str, ...]: ...

    @property
    def delay_seconds(self) -> float: ...

    def at(self, latency: str) -> Sampler[S]:
        """The same at another latency."""

    def begin(self, portrait: Portrait, seed: int) -> S:
        """Before the first features."""

    def step_batch(
        self, features: Sequence[Array], emotions: Sequence[Array], states: Sequence[S], final: Sequence[bool]
    ) -> list[tuple[Array, S]]:
        """For features (n, D) of each of several streams: the rows (m, 70) that became final, and the next state."""


class Renderer(Protocol[A, P, C]):
    """A portrait and a row of motion to a picture."""

    def prepare(self, portrait: Portrait) -> A:
        """Everything about the portrait that does not change from frame to frame."""

    def paste_back(self, portrait: Portrait) -> Callable[[C], Pixels]:
        """What makes a whole picture (H, W, 3) uint8 RGB of what `render` gives."""

    def retarget(self, portrait: Portrait, motion: Motion) -> P:
        """One frame of motion (70,) as `render` takes it."""

    def render(self, appearance: A, pose: P) -> C:
        """One frame of the face crop, (S, S, 3) RGB, 0 to 255."""


@dataclass(frozen=True)
class RowAppearance(Appearance, Generic[A, C]):
    """A portrait, what the renderer has prepared of it, and the way of a crop into the picture."""

    portrait: Portrait
    prepared: A
    paste_back: Callable[[C], Pixels]


@dataclass(frozen=True)
class RowState(State, Generic[E, S]):
    """An utterance on its way to rows.

    Attributes:
        utterance: seed of it, by which rows of one utterance know each other.
        sampler: of its latency.
        encoder_state, sampler_state: what those remember.
        samples, features, rows: that came, and were given out.
        lead: rows of features to come that lie before the speech.
    """

    utterance: int
    sampler: Sampler[S]
    encoder_state: E
    sampler_state: S
    lead: int
    samples: int = 0
    features: int = 0


@dataclass(frozen=True)
class RowShot(Shot):
    """A row (70,) as sampled, the emotion (8,) it was sampled with, and the utterance it is of."""

    row: Array
    emotion: Array
    utterance: int


@dataclass(frozen=True)
class IdleShot(Shot):
    """An idle frame: made when it is drawn, out of what was shown before."""


@dataclass(frozen=True)
class RowFace(Face, Generic[A, C]):
    """What one picture leaves to the next.

    Attributes:
        appearance: whose face it is.
        seed: of what happens between utterances.
        joined: whether what is shown grows out of what was shown before.
        speaking: utterance of the last row, None where it was idle.
        idle: where the idle process stands.
        row, before: (70,) the last two motions, before controls; None at the beginning.
        transition: on the way from what was shown when the source of motion changed, or None.
        age: frames since that began.
        said: the last row of speech as it came, and its utterance: to go on from after a stop.
    """

    appearance: RowAppearance[A, C]
    seed: int
    joined: bool
    speaking: int | None
    idle: IdleState
    row: Array | None = None
    before: Array | None = None
    transition: Inertialization | None = None
    age: int = 0
    said: tuple[int, Array] | None = None


class RowPerformer(Generic[E, S, A, P, C]):
    """Encoder, sampler and renderer of one motion space as a `ditto.performer.Performer`.

    Args:
        change_emotion: row (70,), the emotion (8,) it was sampled with, the one to show -> row. None: an emotion that
            changes shows from the next row that is sampled.

    Attributes:
        encoder, sampler, renderer, motion_space, change_emotion: as given.
    """

    supports = frozenset(Capability)

    def __init__(
        self,
        encoder: Encoder[E],
        sampler: Sampler[S],
        renderer: Renderer[A, P, C],
        motion_space: MotionSpace,
        change_emotion: Callable[[Array, Array, Array], Array] | None = None,
    ) -> None:
        self.encoder = encoder
        self.sampler = sampler
        self.renderer = renderer
        self.motion_space = motion_space
        self.change_emotion = change_emotion
        self._samplers: dict[str, Sampler[S]] = {}
        self._lock = threading.Lock()
        self._observers: list[Observer] = []

    @property
    def latencies(self) -> tuple[str, ...]:
        return self.sampler.latencies

    @property
    def hop_samples(self) -> int:
        return self.encoder.hop_samples

    def sampler_for(self, latency: str) -> Sampler[S]:
        """The sampler of a latency; the same one each time, so that streams of it share its calls.

        Raises:
            ValueError: no latency of this name.
        """
        check_latency(latency, self.latencies)
        with self._lock:
            if latency not in self._samplers:
                self._samplers[latency] = self.sampler.at(latency)
            return self._samplers[latency]

    def delay_seconds(self, latency: str) -> float:
        return self.sampler_for(latency).delay_seconds

    def prepare(self, portrait: Portrait) -> RowAppearance[A, C]:
        return RowAppearance(portrait, self.renderer.prepare(portrait), self.renderer.paste_back(portrait))

    def begin(
        self, appearance: Appearance, seed: int, latency: str, after: State | None = None
    ) -> RowState[E, S]:
        sampler = self.sampler_for(latency)
        start = sampler.begin(own(appearance, RowAppearance).portrait, seed)
        return RowState(seed, sampler, self.encoder.initial_state(1), start, self.encoder.lead_features)

    def advance(self, jobs: Sequence[Advance]) -> list[Advanced]:
        runs: list[_Run[E, S]] = [_Run(job, self.encoder) for job in jobs]
        while True:
            active = [(run, hop) for run in runs if (hop := run.hop()) is not None]
            if not active:
                break
            hops, states = [hop for _, hop in active], [run.state.encoder_state for run, _ in active]
            encoded = self._timed("encode", lambda: self.encoder.step_batch(hops, states), len(active))  # noqa: B023
            waiting: dict[int, list[tuple[_Run[E, S], Array]]] = {}  # by sampler: those of one go together
            for (run, _), (features, state) in zip(active, encoded, strict=True):
                fresh = run.accept_features(features, state)
                if fresh is not None:
                    waiting.setdefault(id(run.state.sampler), []).append((run, fresh))
            for group in waiting.values():
                sampler = group[0][0].state.sampler
                arguments = (
                    [features for _, features in group],
                    [run.emotion for run, _ in group],
                    [run.state.sampler_state for run, _ in group],
                    [run.done for run, _ in group],
                )
                sampled = self._timed("sample", lambda: sampler.step_batch(*arguments), len(group))  # noqa: B023
                for (run, _), (rows, sampler_state) in zip(group, sampled, strict=True):
                    run.accept_rows(rows, sampler_state)
        return [Advanced(run.shots, run.state) for run in runs]

    def idle(self, jobs: Sequence[Idle]) -> list[Advanced]:
        return [Advanced([IdleShot()], job.state) for job in jobs]

    def face(self, appearance: Appearance, seed: int, joined: bool = True) -> RowFace[A, C]:
        return RowFace(own(appearance, RowAppearance), seed, joined, None, initial_idle())

    def draw(self, jobs: Sequence[Draw]) -> list[Drawn]:
        return [self._draw(job.face, job.shot, job.edits) for job in jobs]

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Steps are "encode" and "sample" (rows: streams together), "render" and "paste" (one frame)."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def _draw(self, before: Face, shot: Shot, edits: Edits) -> Drawn:
        face: RowFace[A, C] = own(before, RowFace)
        appearance = face.appearance
        face = self._idle(face, edits) if isinstance(shot, IdleShot) else self._speak(face, own(shot, RowShot), edits)
        assert face.row is not None
        motion = Motion(face.row)
        for controls in edits.controls:
            motion = apply(motion, controls, appearance.portrait, self.motion_space)
        pose = self.renderer.retarget(appearance.portrait, motion)
        crop = self._timed("render", lambda: self.renderer.render(appearance.prepared, pose))
        image = self._timed("paste", lambda: appearance.paste_back(crop))
        return Drawn(image, face, motion, face.transition is not None)

    def _speak(self, face: RowFace[A, C], shot: RowShot, edits: Edits) -> RowFace[A, C]:
        """The face with a row of an utterance; its `row` is what to show."""
        row = shot.row
        if self.change_emotion is not None:
            row = self.change_emotion(row, shot.emotion, edits.emotion)
        previous = face.said[1] if face.said is not None and face.said[0] == shot.utterance else None
        return replace(self._join(face, row, shot.utterance, previous), said=(shot.utterance, row))

    def _idle(self, face: RowFace[A, C], edits: Edits) -> RowFace[A, C]:
        """The face with an idle frame."""
        portrait, space = face.appearance.portrait, self.motion_space
        state = face.idle
        if face.speaking is not None and face.row is not None:
            state = resume(state, face.row)
        values, state = idle_frame(state, face.seed, edits.emotion, edits.reaction)
        return self._join(replace(face, idle=state), space.idle_motion(values, portrait), None)

    def _join(
        self, face: RowFace[A, C], row: Array, speaking: int | None, previous: Array | None = None
    ) -> RowFace[A, C]:
        """The face with one more row, without a jump where the source of motion changes."""
        transition, age, portrait = face.transition, face.age, face.appearance.portrait
        if speaking != face.speaking or face.row is None:
            transition, age = None, 0
            if (face.joined or speaking is None) and face.row is not None and face.before is not None:
                transition = Inertialization.between(
                    self.motion_space, portrait, face.row, face.before, row, previous=previous
                )
        if transition is not None and transition.done(age):
            transition = None
        if transition is not None:
            row = transition.at(age, row)
        before = row if face.row is None else face.row
        return replace(face, speaking=speaking, row=row, before=before, transition=transition, age=age + 1)

    def _timed(self, step: str, call: Callable[[], T], rows: int = 1) -> T:
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        for observer in list(self._observers):
            observer(step, seconds, rows)
        return result


class _Run(Generic[E, S]):
    """One job of `RowPerformer.advance` on its way: hops in, rows out."""

    def __init__(self, job: Advance, encoder: Encoder[E]) -> None:
        self.state: RowState[E, S] = own(job.state, RowState)
        self.emotion = job.emotion
        self.shots: list[RowShot] = []
        self.done = False
        self._hop = encoder.hop_samples
        self._waiting: Array | None = job.samples
        size = job.samples.size
        if job.samples.ndim != 1 or size > self._hop or (size < self._hop and not job.final):
            raise ValueError(
                f"expected ({self._hop},) samples, or fewer with final=True, got {job.samples.shape}; let Stream buffer"
            )
        self.state = replace(self.state, samples=self.state.samples + size)
        self._expected = -(-self.state.samples // SAMPLES_PER_FRAME) if job.final else None  # frames in all

    def hop(self) -> Array | None:
        """The next samples for the encoder, silence after the end; None where there are no more."""
        if self.done or self._expected == 0:
            return None
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return None if self._expected is None else np.zeros(self._hop, np.float32)
        return np.pad(waiting, (0, self._hop - waiting.size))

    def accept_features(self, features: Array, encoder_state: E) -> Array | None:
        """The features (n, D) of the last hop as far as they are of the speech; None where none is."""
        state = self.state
        before = min(state.lead, len(features))
        features = features[before:]
        if self._expected is not None:
            features = features[: self._expected - state.features]
        count = state.features + len(features)
        self.done = count == self._expected
        self.state = replace(state, encoder_state=encoder_state, lead=state.lead - before, features=count)
        return features if len(features) or self.done else None

    def accept_rows(self, rows: Array, sampler_state: S) -> None:
        """The rows (n, 70) that became final."""
        self.shots += [RowShot(row, self.emotion, self.state.utterance) for row in rows]
        self.state = replace(self.state, sampler_state=sampler_state)
