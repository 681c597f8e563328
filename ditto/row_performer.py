"""RowPerformer: the performer of bundles with explicit motion, rows of 70 numbers: speech encoder, motion sampler, renderer.

It also does what joins the frames of a stream: idle motion, style, transitions, emotion, driving by a performance,
controls.
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
from ditto.controls.driving import drive
from ditto.media.rates import SAMPLES_PER_FRAME
from ditto.motion.emotion import emotion_vector
from ditto.motion.idle import IdleState, idle_frame, initial_idle, resume
from ditto.motion.inertialization import Inertialization
from ditto.motion.motion import Motion
from ditto.motion.space import MotionSpace
from ditto.once import Once
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
    Moved,
    Observer,
    Shot,
    State,
    check_job,
    check_latency,
    check_numbers,
    expect_own,
)
from ditto.portrait.portrait import Portrait

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
NEUTRAL = emotion_vector(None)
TALK_FRAMES = 10  # .4 s, about as long as a transition: how fast lips take up what an emotion does to them in silence; by eye

E = TypeVar("E")  # state of the encoder
S = TypeVar("S")  # state of the sampler
A = TypeVar("A")  # a portrait as the renderer prepares it
P = TypeVar("P")  # a motion, retargeted for the renderer
C = TypeVar("C")  # a rendered crop
T = TypeVar("T")


class Encoder(Protocol[E]):
    """Speech to features, 25 rows a second.

    Attributes:
        hop_samples: how many samples a step takes.
        lead_features: how many of the first rows lie before the speech, because of the look-ahead.
    """

    @property
    def hop_samples(self) -> int: ...

    @property
    def lead_features(self) -> int: ...

    def initial_state(self, batch: int) -> E:
        """The state before the first sample."""

    def step_batch(self, hops: Sequence[Array], states: Sequence[E]) -> list[tuple[Array, E]]:
        """Take a hop (hop_samples,) of each stream; for each, features (n, D) and the next state."""


class Sampler(Protocol[S]):
    """Features to rows of motion, at one latency.

    Attributes:
        latencies: names of latencies, first the one for recordings.
        delay_seconds: at most, from the first sample of a frame to the last sample that its row waits for.
    """

    @property
    def latencies(self) -> tuple[str, ...]: ...

    @property
    def delay_seconds(self) -> float: ...

    def at(self, latency: str) -> Sampler[S]:
        """This sampler at another latency."""

    def begin(self, portrait: Portrait, seed: int) -> S:
        """The state before the first features."""

    def step_batch(
        self, features: Sequence[Array], emotions: Sequence[Array], states: Sequence[S], final: Sequence[bool]
    ) -> list[tuple[Array, S]]:
        """Take features (n, D) of each stream; for each, the rows (m, 70) that became final and the next state."""


class Renderer(Protocol[A, P, C]):
    """Renders a portrait with a row of motion."""

    def prepare(self, portrait: Portrait) -> A:
        """Compute what stays the same from frame to frame."""

    def paste_back(self, portrait: Portrait) -> Callable[[C], Pixels]:
        """The function from a crop that `render` gives to the whole picture (H, W, 3) uint8 RGB."""

    def retarget(self, portrait: Portrait, motion: Motion) -> P:
        """One frame of motion (70,) in the form that `render` takes."""

    def render(self, appearance: A, pose: P) -> C:
        """One frame of the face crop, (S, S, 3) RGB, 0 to 255."""


@dataclass(frozen=True)
class RowAppearance(Appearance, Generic[A, C]):
    """A portrait, what the renderer has prepared for it, and the function from a crop to the whole picture."""

    portrait: Portrait
    prepared: A
    paste_back: Callable[[C], Pixels]


@dataclass(frozen=True)
class RowState(State, Generic[E, S]):
    """What is remembered of an utterance.

    Attributes:
        utterance: its seed; rows with the same number belong to one utterance.
        sampler: of its latency.
        encoder_state, sampler_state: of those two.
        lead: how many of the next features lie before the speech.
        samples, features, rows: how many there have been.
    """

    utterance: int
    sampler: Sampler[S]
    encoder_state: E
    sampler_state: S
    lead: int
    samples: int = 0
    features: int = 0
    rows: int = 0


@dataclass(frozen=True)
class RowShot(Shot):
    """A row as sampled.

    Attributes:
        row: (70,).
        emotion: (8,) asked for when it was sampled.
        utterance: its number.
        before: (70,) the row before it, where the utterance is shown from this row on; None: none, or it was shown.
    """

    row: Array
    emotion: Array
    utterance: int
    before: Array | None = None


@dataclass(frozen=True)
class IdleShot(Shot):
    """An idle frame. Its row is made when it is drawn, from the frames before it."""


@dataclass(frozen=True)
class RowFace(Face, Generic[A, C]):
    """What is remembered from one picture to the next.

    Attributes:
        appearance: of the portrait.
        seed: of idle motion.
        joined: whether an utterance continues smoothly from the frames before it.
        speaking: utterance of the last row; None if that was idle.
        idle: state of the idle motion.
        row, before: (70,) the last row and the one before it, without emotion and controls; None at the beginning.
        transition: that began when the source of motion changed last; None if it is over.
        age: frames since then.
        last_speech: utterance and row of the last speech frame, before transitions; None before any.
        talk: 1 in speech, 0 in idle frames, and between them for `TALK_FRAMES` after a change.
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
    last_speech: tuple[int, Array] | None = None
    talk: float = 0.0


class RowPerformer(Generic[E, S, A, P, C]):
    """Encoder, sampler and renderer of one motion space as a `ditto.performer.Performer`.

    Args:
        show_emotion: (row (70,) without an emotion, emotion (8,), how much the face talks) -> row. Speech is then sampled
            neutral. None: the sampler shows the emotion, a new one from the next sampled row on.
        prepare_alpha: portrait with alpha -> (prepared portrait, motion retargeted -> crop, the picture's alpha (H, W)). None:
            alpha stands still.

    Attributes:
        encoder, sampler, renderer, motion_space, show_emotion: as given.
    """

    supports = frozenset(Capability)

    def __init__(
        self,
        encoder: Encoder[E],
        sampler: Sampler[S],
        renderer: Renderer[A, P, C],
        motion_space: MotionSpace,
        show_emotion: Callable[[Array, Array, float], Array] | None = None,
        prepare_alpha: Callable[[Portrait], Callable[[A, P], tuple[C, Pixels]]] | None = None,
    ) -> None:
        self.encoder = encoder
        self.sampler = sampler
        self.renderer = renderer
        self.motion_space = motion_space
        self.show_emotion = show_emotion
        self.prepare_alpha = prepare_alpha
        self._alphas: Once[RowAppearance[A, C], Callable[[A, P], tuple[C, Pixels]]] = Once()
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
        """The sampler of a latency; always the same one, so that streams of one latency form one batch.

        Raises:
            ValueError: an unknown latency.
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
        start = sampler.begin(expect_own(appearance, RowAppearance).portrait, seed)
        return RowState(seed, sampler, self.encoder.initial_state(1), start, self.encoder.lead_features)

    def advance(self, jobs: Sequence[Advance]) -> list[Advanced]:
        runs: list[_Run[E, S]] = [_Run(job, self.encoder) for job in jobs]
        while True:
            active = [(run, hop) for run in runs if (hop := run.hop()) is not None]
            if not active:
                break
            hops, states = [hop for _, hop in active], [run.state.encoder_state for run, _ in active]
            encoded = self._timed("encode", lambda: self.encoder.step_batch(hops, states), len(active))  # noqa: B023
            waiting: dict[int, list[tuple[_Run[E, S], Array]]] = {}  # by sampler: one batch each
            for (run, _), (features, state) in zip(active, encoded, strict=True):
                check_numbers("speech encoder", features)
                fresh = run.accept_features(features, state)
                waiting.setdefault(id(run.state.sampler), []).append((run, fresh))
            for group in waiting.values():
                sampler = group[0][0].state.sampler
                arguments = (
                    [features for _, features in group],
                    [run.emotion if self.show_emotion is None else NEUTRAL for run, _ in group],
                    [run.state.sampler_state for run, _ in group],
                    [run.done for run, _ in group],
                )
                sampled = self._timed("sample", lambda: sampler.step_batch(*arguments), len(group))  # noqa: B023
                for (run, _), (rows, sampler_state) in zip(group, sampled, strict=True):
                    check_numbers("motion network", rows)
                    run.accept_rows(rows, sampler_state)
        return [Advanced(run.shots, run.state) for run in runs]

    def idle(self, jobs: Sequence[Idle]) -> list[Advanced]:
        return [Advanced([] if job.ahead else [IdleShot()], job.state) for job in jobs]

    def face(self, appearance: Appearance, seed: int, joined: bool = True) -> RowFace[A, C]:
        return RowFace(expect_own(appearance, RowAppearance), seed, joined, None, initial_idle())

    def draw(self, jobs: Sequence[Draw]) -> list[Drawn]:
        return [self._draw(job) for job in jobs]

    def move(self, jobs: Sequence[Draw]) -> list[Moved]:
        return [self._move(job.face, job.shot, job.edits) for job in jobs]

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Steps are "encode" and "sample" (a batch; rows: streams in it), "render" and "paste" (one frame)."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def motion_only(self) -> RowPerformer[E, S, None, None, Pixels]:
        """The same motions with empty pictures."""
        return RowPerformer(self.encoder, self.sampler, NoPictures(), self.motion_space, self.show_emotion)

    def _draw(self, job: Draw) -> Drawn:
        moved = self._move(job.face, job.shot, job.edits)
        appearance = expect_own(moved.face, RowFace).appearance
        pose = self.renderer.retarget(appearance.portrait, moved.motion)
        alpha = None
        if job.alpha and appearance.portrait.alpha is not None and self.prepare_alpha is not None:
            prepare = self.prepare_alpha
            draw = self._alphas.get(appearance, lambda appearance: prepare(appearance.portrait))
            crop, alpha = self._timed("render", lambda: draw(appearance.prepared, pose))
        else:
            crop = self._timed("render", lambda: self.renderer.render(appearance.prepared, pose))
        image = self._timed("paste", lambda: appearance.paste_back(crop))
        return Drawn(image, moved.face, moved.motion, moved.transition, alpha)

    def _move(self, before: Face, shot: Shot, edits: Edits) -> Moved:
        face: RowFace[A, C] = expect_own(before, RowFace)
        portrait = face.appearance.portrait
        face = self._idle(face, edits) if isinstance(shot, IdleShot) else self._speak(face, expect_own(shot, RowShot), edits)
        assert face.row is not None
        motion = Motion(face.row if self.show_emotion is None else self.show_emotion(face.row, edits.emotion, face.talk))
        if edits.driving is not None:
            motion = drive(motion, edits.driving, portrait, self.motion_space)
        for controls in edits.controls:
            motion = apply(motion, controls, portrait, self.motion_space)
        return Moved(motion, face, face.transition is not None)

    def _speak(self, face: RowFace[A, C], shot: RowShot, edits: Edits) -> RowFace[A, C]:
        """The face after a row of speech; its `row` is the one to show."""
        row = self._styled(face, shot.row, edits)
        previous = None
        if face.last_speech is not None and face.last_speech[0] == shot.utterance:
            previous = face.last_speech[1]
        elif shot.before is not None:
            previous = self._styled(face, shot.before, edits)
        return replace(self._join(face, row, shot.utterance, previous), last_speech=(shot.utterance, row))

    def _styled(self, face: RowFace[A, C], row: Array, edits: Edits) -> Array:
        """A row (70,) of speech with the style to show."""
        return self.motion_space.change_style(row, edits.style, face.appearance.portrait)

    def _idle(self, face: RowFace[A, C], edits: Edits) -> RowFace[A, C]:
        """The face after an idle frame; its `row` is the one to show."""
        portrait, space = face.appearance.portrait, self.motion_space
        state = face.idle
        if face.speaking is not None and face.row is not None:
            state = resume(state, face.row, edits.style)
        values, state = idle_frame(state, face.seed, edits.reaction, edits.style)
        return self._join(replace(face, idle=state), space.idle_motion(values, portrait), None)

    def _join(
        self, face: RowFace[A, C], row: Array, speaking: int | None, previous: Array | None = None
    ) -> RowFace[A, C]:
        """The face after one more row, with a transition if the source of motion changes."""
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
        talk = float(speaking is not None)
        if face.row is not None:
            talk = min(max(talk, face.talk - 1.0 / TALK_FRAMES), face.talk + 1.0 / TALK_FRAMES)
        return replace(face, speaking=speaking, row=row, before=before, transition=transition, age=age + 1, talk=talk)

    def _timed(self, step: str, call: Callable[[], T], rows: int = 1) -> T:
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        for observer in list(self._observers):
            observer(step, seconds, rows)
        return result


class NoPictures:
    """A renderer of empty pictures, for whoever needs motions alone."""

    def prepare(self, portrait: Portrait) -> None:
        return None

    def paste_back(self, portrait: Portrait) -> Callable[[Pixels], Pixels]:
        return lambda crop: crop

    def retarget(self, portrait: Portrait, motion: Motion) -> None:
        return None

    def render(self, appearance: None, pose: None) -> Pixels:
        return np.zeros((1, 1, 3), np.uint8)


class _Run(Generic[E, S]):
    """One job of `RowPerformer.advance`: hops in, shots out."""

    def __init__(self, job: Advance, encoder: Encoder[E]) -> None:
        self.state: RowState[E, S] = expect_own(job.state, RowState)
        self.emotion = job.emotion
        self.shots: list[RowShot] = []
        self.done = False
        self._hop = encoder.hop_samples
        self._waiting: Array | None = None if job.pause else job.samples  # every shot of the speech so far was given
        size = job.samples.size
        check_job(job, self._hop)
        self.state = replace(self.state, samples=self.state.samples + size)
        self._expected = -(-self.state.samples // SAMPLES_PER_FRAME) if job.final else None  # frames of the utterance

    def hop(self) -> Array | None:
        """The next samples for the encoder, silence after the end; None if no more are needed."""
        if self.done or self._expected == 0:
            return None
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return None if self._expected is None else np.zeros(self._hop, np.float32)
        return waiting if waiting.size == self._hop else np.pad(waiting, (0, self._hop - waiting.size))

    def accept_features(self, features: Array, encoder_state: E) -> Array:
        """Take the features (n, D) of a hop; those within the speech, for the sampler.

        There may be none, before and after the speech. A sampler that predicts has work all the same.
        """
        state = self.state
        before = min(state.lead, len(features))
        features = features[before:]
        if self._expected is not None:
            features = features[: self._expected - state.features]
        count = state.features + len(features)
        self.done = count == self._expected
        self.state = replace(state, encoder_state=encoder_state, lead=state.lead - before, features=count)
        return features

    def accept_rows(self, rows: Array, sampler_state: S) -> None:
        """Take the rows (n, 70) that became final; those that a sampler predicted beyond the speech are dropped."""
        if self._expected is not None:
            rows = rows[: max(self._expected - self.state.rows, 0)]
        self.shots += [RowShot(row, self.emotion, self.state.utterance) for row in rows]
        self.state = replace(self.state, sampler_state=sampler_state, rows=self.state.rows + len(rows))
