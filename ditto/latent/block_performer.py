"""LatentPerformer: the performer of V and RAP. Speech in hops, rows of features, blocks of latents, a drawn region, a picture.

A block is generated and decoded as soon as the rows of its frames are there. What a stream remembers is a value of constant
size: states of encoder, generator and decoder, some rows, and the frames of the last block that nothing showed yet. With a
source of motion, edits of a block's frames make it their condition (`ditto.latent.motion_source`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ditto.latent.attention import KeysValues
from ditto.latent.codec import Codec, References
from ditto.latent.generators import Generator, same_bits
from ditto.latent.layers import StreamState
from ditto.latent.motion_source import MotionJob, MotionSource, MotionState
from ditto.latent.region import Composer, Region, square_of
from ditto.latent.speech import Speech
from ditto.latent.views import Views
from ditto.media.rates import SAMPLE_RATE, SAMPLES_PER_FRAME
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

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")

LARGEST_BATCH = 8  # streams of one forward pass
MOST_LATENT = 1e4  # of a normalised latent, whose deviation is 1
MOST_FEATURE = 1e6  # of features of speech, which lie within hundreds
DELAY_BLOCKS = 16  # blocks over which hops and blocks meet in every way: hops have 2, 5 or 10 frames


@dataclass(frozen=True, eq=False)
class LatentAppearance(Appearance):
    """A portrait, prepared.

    Attributes:
        portrait: as registered.
        references: of the decoder.
        conditions: what the portrait gives the generator, by latency.
        compose: from the drawn region to the whole picture.
        motion: what it gives the source of motion, if there is one.
    """

    portrait: Portrait
    references: References
    conditions: Mapping[str, Any]
    compose: Callable[[Pixels], Pixels]
    motion: Appearance | None = None


@dataclass(frozen=True, eq=False)
class LatentShot(Shot):
    """One frame of the region, (size, size, 3) uint8 RGB."""

    pixels: Pixels


@dataclass(frozen=True, eq=False)
class LatentFace(Face):
    """The appearance; a picture does not depend on those before it."""

    appearance: LatentAppearance


class Hearing(NamedTuple):
    """What is remembered of the speech encoder.

    Attributes:
        encoder: its state.
        rows: (n, D) features of frames to come.
        lead: how many of the next features lie before those frames.
    """

    encoder: Any
    rows: Floats
    lead: int

    def accept(self, rows: Floats, encoder: Any) -> Hearing:
        """With what the encoder gave."""
        lead = min(self.lead, len(rows))
        return Hearing(encoder, np.concatenate([self.rows, rows[lead:]]), self.lead - lead)

    def after(self, frames: int) -> Hearing:
        """Without the next frames."""
        return self._replace(rows=self.rows[frames:].copy())


@dataclass(frozen=True, eq=False)
class LatentState(State):
    """What is remembered of a stream.

    Attributes:
        appearance: of its portrait.
        latency: its name.
        seed: of its utterance.
        speech: what has been heard of it.
        generator: state of the generator.
        decoder: state of the codec's decoder.
        samples: of the utterance so far.
        shown: frames of the utterance so far.
        speaking: whether its utterance goes on, so that the rows are of speech.
        rest: frames of the last block that lie after the end of the speech; idle frames begin with them.
        motion: of its last block; None if that had none.
        silence: what has been heard of the pause in which the speech is, after that speech; None without a pause.
    """

    appearance: LatentAppearance
    latency: str
    seed: int
    speech: Hearing
    generator: Any
    decoder: StreamState
    samples: int = 0
    shown: int = 0
    speaking: bool = False
    rest: tuple[LatentShot, ...] = ()
    motion: MotionState | None = None
    silence: Hearing | None = None


class _Made(NamedTuple):
    """What one block of one stream gives: frames of the region (T, size, size, 3) uint8, and the states after it."""

    frames: torch.Tensor
    generator: Any
    decoder: StreamState


class LatentPerformer:
    """V or RAP as a `ditto.performer.Performer`.

    Args:
        codec: decodes what the generators make.
        generators: by name of their latency, first the one for recordings.
        speech: encoder of the features that the generators were trained with.
        region: the part of the portrait that the codec codes.
        motion: of the generators' condition; None: no edits.
        views: more references of a portrait; None: its picture alone.
    """

    motion_space = None

    def __init__(
        self,
        codec: Codec,
        generators: Mapping[str, Generator[Any, Any]],
        speech: Speech,
        region: Region,
        motion: MotionSource | None = None,
        views: Views | None = None,
    ) -> None:
        self.codec, self.generators, self.speech, self.region = codec.eval(), dict(generators), speech, region
        self.motion, self.views = motion, views
        self.supports = frozenset({Capability.IDLE}) | (frozenset() if motion is None else motion.supports)
        self._batches: dict[Hashable, bool] = {}  # whether a batch gives what its streams give alone
        self._observers: list[Observer] = []

    @property
    def latencies(self) -> tuple[str, ...]:
        return tuple(self.generators)

    @property
    def hop_samples(self) -> int:
        return self.speech.encoder.hop_samples

    def delay_seconds(self, latency: str) -> float:
        generator = self.generators[check_latency(latency, self.latencies)]
        hop, worst, shown = self.hop_samples, 0, 0
        for number in range(DELAY_BLOCKS):
            end = shown + generator.frames(number)
            hops = -(-(end + self.speech.encoder.lead_features) * SAMPLES_PER_FRAME // hop)
            worst, shown = max(worst, hops * hop - shown * SAMPLES_PER_FRAME), end
        return worst / SAMPLE_RATE

    @torch.no_grad()
    def prepare(self, portrait: Portrait) -> LatentAppearance:
        square, shown = square_of(portrait), [portrait.picture] + ([] if self.views is None else self.views(portrait))
        pixels = np.stack([self.region.cut(picture, square) for picture in shown])
        pictures = torch.from_numpy(pixels).permute(3, 0, 1, 2)[None] / 127.5 - 1
        references = self.codec.references(pictures)
        own = references.latents[:, :, :1]
        coded = self.codec.decode(own, references)
        check_numbers("codec", coded.numpy())
        still = _to_pixels(coded)[0, 0].numpy()
        seen = references.latents if self.views is not None and self.views.config.generator else own
        conditions = {
            name: generator.reference(self.codec, pictures[:, :, :1], seen) for name, generator in self.generators.items()
        }
        motion = None if self.motion is None else self.motion.prepare(portrait)
        return LatentAppearance(portrait, references, conditions, Composer(portrait, self.region, still), motion)

    def begin(self, appearance: Appearance, seed: int, latency: str, after: State | None = None) -> LatentState:
        """As of `Performer`. The utterance goes on from the last picture of `after`, if that is of the same latency."""
        own = expect_own(appearance, LatentAppearance)
        generator = self.generators[check_latency(latency, self.latencies)]
        before = None if after is None else expect_own(after, LatentState)
        if before is not None and before.latency == latency and before.appearance is own:
            state, decoder = generator.go_on(before.generator, seed), before.decoder
            motion = None if before.motion is None else MotionState(before.motion.face)
        else:
            state, decoder, motion = generator.begin(own.conditions[latency], seed), StreamState(), None
        return LatentState(own, latency, seed, self.initial_hearing(), state, decoder, motion=motion)

    def initial_hearing(self) -> Hearing:
        """Before the first sample."""
        encoder, rows = self.speech.encoder, np.zeros((0, self.speech.features), np.float32)
        return Hearing(encoder.initial_state(1), rows, encoder.lead_features)

    def advance(self, jobs: Sequence[Advance]) -> list[Advanced]:
        return self._run([_Run(self, job) for job in jobs])

    def idle(self, jobs: Sequence[Idle]) -> list[Advanced]:
        """As of `Performer`: what the last block has left after the speech, or else a block from silent speech."""
        states = [expect_own(job.state, LatentState) for job in jobs]
        results = [
            Advanced([], state, len(state.rest)) if job.ahead else Advanced(list(state.rest), replace(state, rest=()))
            for job, state in zip(jobs, states, strict=True)
        ]
        dry = [place for place, state in enumerate(states) if not state.rest]
        for place, made in zip(dry, self._run([_Run(self, jobs[place]) for place in dry]), strict=True):
            results[place] = made
        return results

    def face(self, appearance: Appearance, seed: int, joined: bool = True) -> LatentFace:
        return LatentFace(expect_own(appearance, LatentAppearance))

    def draw(self, jobs: Sequence[Draw]) -> list[Drawn]:
        return [self._draw(expect_own(job.face, LatentFace), expect_own(job.shot, LatentShot)) for job in jobs]

    def move(self, jobs: Sequence[Draw]) -> list[Moved]:
        raise ValueError("expected a bundle with explicit motion, got one that generates latent video; use lite or full")

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Steps are "encode", "motion" and "block" (a batch; rows: streams in it), and "compose" (one frame)."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def _draw(self, face: LatentFace, shot: LatentShot) -> Drawn:
        return Drawn(self._timed("compose", lambda: face.appearance.compose(shot.pixels)), face)

    def _run(self, runs: Sequence[_Run]) -> list[Advanced]:
        """Take the runs as far as their speech goes: hops of all that need one together, blocks of those at one place."""
        while True:
            hearing = [run for run in runs if run.needs_hop]
            if hearing:
                hops, states = [run.take_hop() for run in hearing], [run.hearing.encoder for run in hearing]
                encoded = self._timed("encode", lambda: self.speech.encoder.step_batch(hops, states), len(hops))  # noqa: B023
                for run, (rows, state) in zip(hearing, encoded, strict=True):
                    check_numbers("speech encoder", rows, MOST_FEATURE)
                    run.hearing = run.hearing.accept(rows, state)
            groups: dict[Hashable, list[_Run]] = {}
            for run in runs:
                if run.ready:
                    run.look_up_edits()
                    groups.setdefault((run.state.latency, run.place), []).append(run)
            for key, group in groups.items():
                for start in range(0, len(group), LARGEST_BATCH):
                    part = group[start : start + LARGEST_BATCH]
                    motion = self._motion(part)
                    made = self._timed("block", lambda: self._blocks(key, part, motion), len(part))  # noqa: B023
                    for run, block in zip(part, made, strict=True):
                        run.accept_block(block)
            if not hearing and not groups:
                return [run.result() for run in runs]

    def _motion(self, runs: Sequence[_Run]) -> list[torch.Tensor] | None:
        """The motion (frames, 70) of the next block of streams that all have edits, or None as none of them has."""
        if self.motion is None or not runs[0].edits:
            for run in runs:
                run.accept_motion(None)
            return None
        source, jobs = self.motion, [run.motion_job() for run in runs]
        blocks = self._timed("motion", lambda: source.follow(jobs), len(jobs))
        for run, block in zip(runs, blocks, strict=True):
            run.accept_motion(block.state)
        return [torch.from_numpy(block.motion) for block in blocks]

    def _blocks(self, key: Hashable, runs: Sequence[_Run], motion: Sequence[torch.Tensor] | None) -> list[_Made]:
        """The next blocks of streams at one place, as one batch where that gives each stream the bits it gets alone.

        PyTorch promises no such bits, so the first batch of a size and place is compared with its streams alone.
        """
        states, rows = [run.state for run in runs], [torch.from_numpy(run.block_rows) for run in runs]
        key = (key, len(runs))
        if len(runs) == 1 or self._batches.get(key):
            return self._together(states, rows, motion)
        alone = [
            self._together([state], [rows[place]], None if motion is None else [motion[place]])[0]
            for place, state in enumerate(states)
        ]
        if key not in self._batches:
            if same_bits(self._together(states, rows, motion), alone):
                self._batches.setdefault(key, True)  # another thread may have found a difference meanwhile
            else:
                self._batches[key] = False
        return alone

    @torch.no_grad()
    def _together(
        self, states: Sequence[LatentState], rows: Sequence[torch.Tensor], motion: Sequence[torch.Tensor] | None
    ) -> list[_Made]:
        generator = self.generators[states[0].latency]
        blocks = generator.generate([state.generator for state in states], rows, motion)
        generated = torch.stack([block.latents for block in blocks])
        check_numbers("generator", generated.numpy(), MOST_LATENT)
        latents = self.codec.denormalise(generated)
        video, decoder = self.codec.decode_stream(
            latents,
            _join_states([state.decoder for state in states]),
            _join_references([state.appearance.references for state in states]),
        )
        check_numbers("codec", video.numpy())
        frames = _to_pixels(video)
        return [
            _Made(
                frames[row],
                block.state,
                StreamState(decoder.first, tuple(cache[row : row + 1].clone() for cache in decoder.caches)),
            )
            for row, block in enumerate(blocks)
        ]

    def _timed(self, step: str, function: Callable[[], T], rows: int = 1) -> T:
        start = time.perf_counter()
        result = function()
        for observer in self._observers:
            observer(step, time.perf_counter() - start, rows)
        return result


class _Run:
    """One job on its way: its speech as hops, its state, its shots.

    A pause and an `Idle` job hear silence until one block has come, the last job of an utterance until its frames have come.

    Attributes:
        hearing: what has been heard; in a pause the rows of the speech that is there, then silence.
        edits: of the next block's frames; empty if they change nothing, or the performer has no motion.
    """

    def __init__(self, performer: LatentPerformer, job: Advance | Idle) -> None:
        self.shots: list[LatentShot] = []
        self.edits: list[Edits] = []
        state, emotion = expect_own(job.state, LatentState), job.emotion
        self._edits_at = (job.edits or (lambda shot: Edits(emotion))) if performer.motion is not None else None
        self._hop, self._generator = performer.hop_samples, performer.generators[state.latency]
        self._idle, self._final, self._pause, self._ahead = isinstance(job, Idle), False, False, False
        self._samples: Floats | None = None
        self._blocks, self._speech = 0, state.speech
        self.hearing = state.speech
        if isinstance(job, Idle):
            if state.speaking:  # interrupted: what was to be said is not
                self.hearing = performer.initial_hearing()
            self.state, self._ahead = replace(state, speaking=False, silence=None), job.ahead
            return
        check_job(job, self._hop)
        size, self._final, self._pause = job.samples.size, job.final, job.pause
        self._samples = job.samples if size else None
        if job.pause:
            rows, lead = state.speech.rows, performer.speech.encoder.lead_features
            silence = state.silence or Hearing(state.speech.encoder, rows[:0], lead)
            self.hearing = silence._replace(rows=np.concatenate([rows, silence.rows]))
        else:
            state = replace(state, silence=None)
        self.state = replace(state, samples=state.samples + size, speaking=not job.final)

    @property
    def _needs_frames(self) -> bool:
        """Whether frames are to come, whatever they take."""
        if self._idle or self._pause:
            return self._blocks == 0
        return self._final and self._frames_left > 0

    @property
    def _frames_left(self) -> int:
        """How many frames of the utterance so far were not shown."""
        return -(-self.state.samples // SAMPLES_PER_FRAME) - self.state.shown

    @property
    def _frames(self) -> int:
        """How many frames the next block has."""
        return self._generator.frames(self._generator.number(self.state.generator))

    @property
    def _filled(self) -> bool:
        """Whether the rows of the next block are there."""
        return len(self.hearing.rows) >= self._frames

    @property
    def needs_hop(self) -> bool:
        """Whether the encoder is to take a hop now."""
        return self._samples is not None or (self._needs_frames and not self._filled)

    @property
    def ready(self) -> bool:
        """Whether a block is to be made now."""
        of_speech = not (self._idle or self._final or self._pause)
        return self._filled and not self.needs_hop and (self._needs_frames or of_speech)

    @property
    def place(self) -> Hashable:
        """Of the generator, and of the decoder; and whether the block has motion."""
        return self._generator.place(self.state.generator), self.state.decoder.first, bool(self.edits)

    @property
    def block_rows(self) -> Floats:
        """The rows of the next block."""
        return self.hearing.rows[: self._frames]

    def look_up_edits(self) -> None:
        """Look up the edits of the next block's frames; those after the end of an utterance have the last one's."""
        if self._edits_at is None:
            return
        first, last = len(self.shots), len(self.shots) + self._frames
        if self._final:
            last = min(last, first + self._frames_left)
        known = [self._edits_at(shot) for shot in range(first, last)]
        self.edits = []
        if not all(edits.are_neutral for edits in known):
            self.edits = known + known[-1:] * (self._frames - len(known))

    def motion_job(self) -> MotionJob:
        """The next block for the source of motion."""
        state = self.state
        assert state.appearance.motion is not None
        silent = self._idle or (self._pause and len(self._speech.rows) == 0)
        features = None if silent else self.hearing.rows
        return MotionJob(
            state.motion, state.appearance.motion, state.appearance.portrait, state.seed, features, self.edits
        )

    def accept_motion(self, state: MotionState | None) -> None:
        """Take the state after the motion of the next block; after a pause the speech has not heard its silence."""
        if self._pause and state is not None:
            state = replace(state, rows=state.rows[:0], heard=0)
        self.state = replace(self.state, motion=state)

    def take_hop(self) -> Floats:
        """The next hop: speech, then silence."""
        hop = np.zeros(self._hop, np.float32)
        if self._samples is not None:
            hop[: self._samples.size] = self._samples
            self._samples = None
        return hop

    def accept_block(self, made: _Made) -> None:
        """Show a block; what lies after the end of the speech is kept."""
        state, frames = self.state, made.frames.numpy()
        shots = [LatentShot(frame.copy()) for frame in frames]
        count = len(shots)
        if self._final:
            count = min(count, self._frames_left)
        elif self._pause:
            count = len(self._speech.rows)
        elif self._ahead:
            count = 0
        self.shots += shots[:count]
        self.hearing = self.hearing.after(len(shots))
        self._blocks += 1
        self.state = replace(
            state,
            generator=made.generator,
            decoder=made.decoder,
            shown=state.shown + (0 if self._idle else count),
            rest=tuple(shots[count:]),
        )

    def result(self) -> Advanced:
        """The shots, and the state after them: after a pause the speech goes on from where it was."""
        if self._pause:
            speech = self._speech._replace(rows=self._speech.rows[:0])
            state = replace(self.state, speech=speech, silence=self.hearing)
        else:
            state = replace(self.state, speech=self.hearing)
        return Advanced(self.shots, state, len(state.rest))


def _to_pixels(video: torch.Tensor) -> torch.Tensor:
    """(B, 3, T, H, W) in [-1, 1] -> (B, T, H, W, 3) uint8."""
    return ((video + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


def _join_states(states: Sequence[StreamState]) -> StreamState:
    """The decoder's states of several streams, all of the same age, as one batch."""
    caches = zip(*(state.caches for state in states), strict=True)
    return StreamState(states[0].first, tuple(torch.cat(rows) for rows in caches))


def _join_references(references: Sequence[References]) -> References:
    """The references of several streams as one batch."""
    first = references[0]
    if len(references) == 1:
        return first
    layers = zip(*(reference.keys_values for reference in references), strict=True)
    keys_values = tuple(KeysValues(*(torch.cat(parts) for parts in zip(*layer, strict=True))) for layer in layers)
    aligned = [reference.aligned for reference in references if reference.aligned is not None]
    latents = torch.cat([reference.latents for reference in references])
    return References(latents, keys_values, torch.cat(aligned) if aligned else None, first.grid)
