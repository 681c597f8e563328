"""LatentPerformer: the performer of V and RAP. Speech in hops, rows of features, blocks of latents, a drawn region, a picture.

A block is generated and decoded as soon as the rows of its frames are there. What a stream remembers is a value of constant
size: states of encoder, generator and decoder, some rows, and the frames of the last block that nothing showed yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ditto.errors import InputError
from ditto.latent.attention import KeysValues
from ditto.latent.codec import Codec, References
from ditto.latent.generators import Generator, same_bits
from ditto.latent.layers import StreamState
from ditto.latent.region import Composer, Region, square_of
from ditto.latent.speech import Speech
from ditto.media.rates import SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.performer import (
    Advance,
    Advanced,
    Appearance,
    Capability,
    Draw,
    Drawn,
    Face,
    Idle,
    Moved,
    Observer,
    Shot,
    State,
    check_latency,
    expect_own,
)
from ditto.portrait.portrait import Portrait

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")

LARGEST_BATCH = 8  # streams of one forward pass
DELAY_BLOCKS = 16  # blocks over which hops and blocks meet in every way: hops have 2 or 5 frames


@dataclass(frozen=True, eq=False)
class LatentAppearance(Appearance):
    """A portrait, prepared.

    Attributes:
        portrait: as registered.
        references: of the decoder.
        conditions: what the portrait gives the generator, by latency.
        compose: from the drawn region to the whole picture.
    """

    portrait: Portrait
    references: References
    conditions: Mapping[str, Any]
    compose: Callable[[Pixels], Pixels]


@dataclass(frozen=True, eq=False)
class LatentShot(Shot):
    """One frame of the region, (size, size, 3) uint8 RGB."""

    pixels: Pixels


@dataclass(frozen=True, eq=False)
class LatentFace(Face):
    """The appearance; a picture does not depend on those before it."""

    appearance: LatentAppearance


@dataclass(frozen=True, eq=False)
class LatentState(State):
    """What is remembered of a stream.

    Attributes:
        appearance: of its portrait.
        latency: its name.
        encoder: state of the speech encoder.
        generator: state of the generator.
        decoder: state of the codec's decoder.
        rows: (n, D) features of frames to come.
        lead: how many of the next features lie before the speech.
        samples: of the utterance so far.
        shown: frames of the utterance so far.
        speaking: whether its utterance goes on, so that the rows are of speech.
        rest: frames of the last block that lie after the end of the utterance; idle frames begin with them.
    """

    appearance: LatentAppearance
    latency: str
    encoder: Any
    generator: Any
    decoder: StreamState
    rows: Floats
    lead: int
    samples: int = 0
    shown: int = 0
    speaking: bool = False
    rest: tuple[LatentShot, ...] = ()


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
    """

    supports = frozenset({Capability.IDLE})
    motion_space = None

    def __init__(
        self, codec: Codec, generators: Mapping[str, Generator[Any, Any]], speech: Speech, region: Region
    ) -> None:
        self.codec, self.generators, self.speech, self.region = codec.eval(), dict(generators), speech, region
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
        pixels = self.region.cut(portrait.picture, square_of(portrait))
        picture = torch.from_numpy(pixels).permute(2, 0, 1)[None, :, None] / 127.5 - 1
        references = self.codec.references(picture)
        still = _to_pixels(self.codec.decode(references.latents[:, :, :1], references))[0, 0].numpy()
        conditions = {
            name: generator.reference(self.codec, picture, references) for name, generator in self.generators.items()
        }
        return LatentAppearance(portrait, references, conditions, Composer(portrait, self.region, still))

    def begin(self, appearance: Appearance, seed: int, latency: str, after: State | None = None) -> LatentState:
        """As of `Performer`. The utterance goes on from the last picture of `after`, if that is of the same latency."""
        own = expect_own(appearance, LatentAppearance)
        generator = self.generators[check_latency(latency, self.latencies)]
        encoder, lead = self.speech.encoder.initial_state(1), self.speech.encoder.lead_features
        before = None if after is None else expect_own(after, LatentState)
        if before is not None and before.latency == latency and before.appearance is own:
            state, decoder = generator.go_on(before.generator, seed), before.decoder
        else:
            state, decoder = generator.begin(own.conditions[latency], seed), StreamState()
        return LatentState(own, latency, encoder, state, decoder, np.zeros((0, self.speech.features), np.float32), lead)

    def advance(self, jobs: Sequence[Advance]) -> list[Advanced]:
        runs = [_Run(self, expect_own(job.state, LatentState), job.samples, job.final) for job in jobs]
        return self._run(runs)

    def idle(self, jobs: Sequence[Idle]) -> list[Advanced]:
        """As of `Performer`: what the last block has left after an utterance, or else a block from silent speech."""
        states = [expect_own(job.state, LatentState) for job in jobs]
        results = [Advanced(list(state.rest), replace(state, rest=())) for state in states]
        dry = [place for place, state in enumerate(states) if not state.rest]
        for place, made in zip(dry, self._run([_Run(self, states[place]) for place in dry]), strict=True):
            results[place] = made
        return results

    def face(self, appearance: Appearance, seed: int, joined: bool = True) -> LatentFace:
        return LatentFace(expect_own(appearance, LatentAppearance))

    def draw(self, jobs: Sequence[Draw]) -> list[Drawn]:
        return [self._draw(expect_own(job.face, LatentFace), expect_own(job.shot, LatentShot)) for job in jobs]

    def move(self, jobs: Sequence[Draw]) -> list[Moved]:
        raise ValueError("expected a bundle with explicit motion, got one that generates latent video; use lite or full")

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Steps are "encode" and "block" (a batch; rows: streams in it), and "compose" (one frame)."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def _draw(self, face: LatentFace, shot: LatentShot) -> Drawn:
        return Drawn(self._timed("compose", lambda: face.appearance.compose(shot.pixels)), face)

    def _run(self, runs: Sequence[_Run]) -> list[Advanced]:
        """Take the runs as far as their speech goes: hops of all that need one together, blocks of those at one place."""
        while True:
            hungry = [run for run in runs if run.hungry]
            if hungry:
                hops, states = [run.take_hop() for run in hungry], [run.state.encoder for run in hungry]
                encoded = self._timed("encode", lambda: self.speech.encoder.step_batch(hops, states), len(hops))  # noqa: B023
                for run, (rows, state) in zip(hungry, encoded, strict=True):
                    run.accept_rows(rows, state)
            groups: dict[Hashable, list[_Run]] = {}
            for run in runs:
                if run.ready:
                    groups.setdefault((run.state.latency, run.place), []).append(run)
            for key, group in groups.items():
                for start in range(0, len(group), LARGEST_BATCH):
                    part = group[start : start + LARGEST_BATCH]
                    made = self._timed("block", lambda: self._blocks(key, part), len(part))  # noqa: B023
                    for run, block in zip(part, made, strict=True):
                        run.accept_block(block)
            if not hungry and not groups:
                return [Advanced(run.shots, run.state) for run in runs]

    def _blocks(self, key: Hashable, runs: Sequence[_Run]) -> list[_Made]:
        """The next blocks of streams at one place, as one batch where that gives each stream the bits it gets alone.

        PyTorch promises no such bits, so the first batch of a size and place is compared with its streams alone.
        """
        states, rows = [run.state for run in runs], [torch.from_numpy(run.block_rows) for run in runs]
        key = (key, len(runs))
        if len(runs) == 1 or self._batches.get(key):
            return self._together(states, rows)
        alone = [self._together([state], [row])[0] for state, row in zip(states, rows, strict=True)]
        if key not in self._batches:
            if same_bits(self._together(states, rows), alone):
                self._batches.setdefault(key, True)  # another thread may have found a difference meanwhile
            else:
                self._batches[key] = False
        return alone

    @torch.no_grad()
    def _together(self, states: Sequence[LatentState], rows: Sequence[torch.Tensor]) -> list[_Made]:
        generator = self.generators[states[0].latency]
        blocks = generator.generate([state.generator for state in states], rows)
        latents = self.codec.denormalise(torch.stack([block.latents for block in blocks]))
        video, decoder = self.codec.decode_stream(
            latents,
            _join_states([state.decoder for state in states]),
            _join_references([state.appearance.references for state in states]),
        )
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

    Args:
        samples: (N,) speech; None: silence, until one block has come.
        final: whether the utterance ends with it; then silence follows until its frames have come.
    """

    def __init__(
        self, performer: LatentPerformer, state: LatentState, samples: Floats | None = None, final: bool = False
    ) -> None:
        self.shots: list[LatentShot] = []
        self._hop, self._generator = performer.hop_samples, performer.generators[state.latency]
        self._idle, self._final = samples is None, final
        size = 0 if samples is None else samples.size
        if size > self._hop or (size < self._hop and samples is not None and not final):
            raise InputError(
                f"expected {self._hop} samples a job, fewer only with final=True, got {size}; let Stream cut the speech"
            )
        self._samples = samples if size else None
        if self._idle and state.speaking:  # interrupted: what was to be said is not
            encoder = performer.speech.encoder
            state = replace(
                state, encoder=encoder.initial_state(1), rows=state.rows[:0], lead=encoder.lead_features
            )
        speaking = not (self._idle or final)
        self.state = replace(state, samples=state.samples + size, speaking=speaking, rest=())

    @property
    def _wanting(self) -> bool:
        """Whether frames are to come, whatever they take."""
        if self._idle:
            return not self.shots
        return self._final and self.state.shown * SAMPLES_PER_FRAME < self.state.samples

    @property
    def _frames(self) -> int:
        """How many frames the next block has."""
        return self._generator.frames(self._generator.number(self.state.generator))

    @property
    def _filled(self) -> bool:
        """Whether the rows of the next block are there."""
        return len(self.state.rows) >= self._frames

    @property
    def hungry(self) -> bool:
        """Whether the encoder is to take a hop now."""
        return self._samples is not None or (self._wanting and not self._filled)

    @property
    def ready(self) -> bool:
        """Whether a block is to be made now."""
        return self._filled and not self.hungry and (self._wanting or not (self._idle or self._final))

    @property
    def place(self) -> Hashable:
        """Of the generator, and of the decoder."""
        return self._generator.place(self.state.generator), self.state.decoder.first

    @property
    def block_rows(self) -> Floats:
        """The rows of the next block."""
        return self.state.rows[: self._frames]

    def take_hop(self) -> Floats:
        """The next hop: speech, then silence."""
        hop = np.zeros(self._hop, np.float32)
        if self._samples is not None:
            hop[: self._samples.size] = self._samples
            self._samples = None
        return hop

    def accept_rows(self, rows: Floats, encoder: Any) -> None:
        """Append what the encoder gave."""
        lead = min(self.state.lead, len(rows))
        joined = np.concatenate([self.state.rows, rows[lead:]])
        self.state = replace(self.state, encoder=encoder, rows=joined, lead=self.state.lead - lead)

    def accept_block(self, made: _Made) -> None:
        """Show a block; what lies after the end of the utterance is kept."""
        state, frames = self.state, made.frames.numpy()
        shots = [LatentShot(frame.copy()) for frame in frames]
        count = len(shots)
        if self._final:
            count = min(count, -(-state.samples // SAMPLES_PER_FRAME) - state.shown)
        self.shots += shots[:count]
        self.state = replace(
            state,
            generator=made.generator,
            decoder=made.decoder,
            rows=state.rows[len(shots) :].copy(),
            shown=state.shown + (0 if self._idle else count),
            rest=tuple(shots[count:]),
        )


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
