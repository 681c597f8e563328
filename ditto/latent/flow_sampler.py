"""Streams of V: speech to latents, four at a time, by a rectified flow that looks back at what it made.

    sampler = FlowSampler(network, FlowSampling())
    reference = sampler.reference(latents)                        # once per portrait
    state = sampler.begin(reference, seed)
    block, = sampler.generate([state], [audio])                   # block.latents, block.state

k: latents of a block; n: tokens of a latent; c: numbers of a token, or of a head; R: rows of a batch; S: cached tokens.

Source: V (arXiv:2606.01620), algorithm 2 (streaming). What the paper leaves open is marked as ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ditto.errors import InputError
from ditto.latent.attention import Cache, KeysValues, Rotation
from ditto.latent.flow_network import FlowGenerator
from ditto.latent.motion_condition import added_motion
from ditto.latent.sampling import Block, check_streams
from ditto.latent.schedule import Branches, Guidance, euler_step, guided_velocity, seeded_noise, timesteps
from ditto.latent.tokens import check_latents, from_tokens, to_tokens

NO_AUDIO, NO_REFERENCE, NO_MOTION = 1, 2, 3  # branches of guidance; 0 hides nothing


@dataclass(frozen=True)
class FlowSampling:
    """How blocks are generated. The defaults are the paper's.

    Attributes:
        steps, shift: of the schedule.
        audio, reference, motion: guidance by each condition; of the motion ours.
        rescale: see `schedule.combine`; ours.
        context_time: noise level that the past is said to have (Self-Forcing, arXiv:2506.08009, has such a level).
    """

    steps: int = 12
    shift: float = 5.0
    audio: Guidance = field(default_factory=lambda: Guidance(2.0))
    reference: Guidance = field(default_factory=lambda: Guidance(2.0))
    motion: Guidance = field(default_factory=Guidance)
    rescale: float = 0.0
    context_time: float = 0.0


class FlowReference(NamedTuple):
    """What a portrait's references give the generator, computed once.

    Attributes:
        full: keys and values of the references, by layer: (layers, heads, tokens, c).
        null: those of the null reference; None where the guidance by references is 1.
        origin: (C, 1, h, w) the first reference's latent.
    """

    full: Cache
    null: Cache | None
    origin: Tensor


@dataclass(frozen=True)
class FlowState:
    """What a stream remembers between two blocks. A value: `generate` makes another, of the same size.

    Attributes:
        reference: of its portrait.
        full, null: keys and values of references and context.
        position: of the next block in the window, latents.
        block: number of the next block.
        seed: of its noise.
    """

    reference: FlowReference
    full: Cache
    null: Cache | None
    position: int
    block: int
    seed: int

    @property
    def bytes(self) -> int:
        """Of the keys and values, without the portrait's."""
        caches = [self.full] + ([] if self.null is None else [self.null])
        return sum(tensor.numel() * tensor.element_size() for cache in caches for tensor in cache.buffers)


class _Pass(NamedTuple):
    """The rows of one batched forward pass over noisy tokens."""

    speech: Tensor
    motion: Tensor | None
    first: Tensor
    rotation: Rotation
    slots: list[KeysValues]
    mask: Tensor | None


class FlowSampler:
    """Generates blocks of streams. It holds weights and no stream; several threads may call at once.

    The modulations of a schedule depend on its levels only, so they are computed here, once: a third of the weights is not
    read while streaming.
    """

    def __init__(self, network: FlowGenerator, sampling: FlowSampling) -> None:
        self.network, self.sampling = network.eval(), sampling
        self.times = timesteps(sampling.steps, sampling.shift)
        with torch.no_grad():
            self._steps = [network.modulations(self._level(t)) for t in self.times[:-1]]
            self._context = network.modulations(self._level(sampling.context_time))
            self._clean = network.modulations(self._level(0.0))

    def _level(self, t: float) -> Tensor:
        return torch.full((1, 1), t, device=self.network.null_audio.device)

    @torch.no_grad()
    def reference(self, latents: Tensor) -> FlowReference:
        """What the references of a portrait, (C, M, h, w) of the codec, give.

        Raises:
            InputError: latents of another size, or none.
        """
        network, config = self.network, self.network.config
        check_latents(latents[None], config.channels, config.rows, config.columns, "references")
        count = latents.shape[1]
        tokens = network.reference_tokens(to_tokens(latents[None], config.patch))
        capacity = (count + config.window) * config.tokens

        def cached(x: Tensor, references: int) -> Cache:
            slots, _ = self._slots([None], x.shape[1])
            rotation = network.rotation(torch.zeros(references, dtype=torch.long))
            network.transform(x, self._clean, rotation, None, slots)
            return Cache.of(_rows(slots, 0, x.shape[1]), capacity)

        null = None
        if self.sampling.reference.scale != 1.0:
            null = cached(network.null_reference.expand(1, config.tokens, -1), 1)
        return FlowReference(cached(tokens, count), null, latents[:, :1])

    def begin(self, reference: FlowReference, seed: int) -> FlowState:
        """The state before a video's first frame.

        Args:
            seed: of all noise of the stream, in [0, 2 ** 64).
        """
        return FlowState(reference, reference.full, reference.null, 0, 0, seed)

    def frames(self, state: FlowState) -> int:
        """Video frames of the next block: with 4 latents of 4 frames 13 at first, then 16."""
        config = self.network.config
        return config.frames(config.block, state.block == 0)

    @torch.no_grad()
    def generate(
        self, states: Sequence[FlowState], audio: Sequence[Tensor], motion: Sequence[Tensor | None] | None = None
    ) -> list[Block[FlowState]]:
        """The next block of each of some streams, which may be at different places, as one batch.

        All branches of guidance of all streams run in one forward pass a step.

        Args:
            states: of the streams, one or more.
            audio: for each (frames, F) speech features of `frames(state)` frames.
            motion: for each (frames, D), or None.

        Raises:
            InputError: speech or motion of other sizes.
        """
        network, config, sampling = self.network, self.network.config, self.sampling
        check_streams(states, audio, motion)
        device = network.null_audio.device
        first = torch.tensor([state.block == 0 for state in states], device=device)
        shown = torch.zeros_like(first)
        heard = torch.stack([self._frames(s, a, config.audio_features) for s, a in zip(states, audio, strict=True)])
        speech = network.speech(heard, first, shown)
        moved = self._moved(states, motion, first)
        noise = [
            seeded_noise(state.seed, state.block, (config.channels, config.block, config.rows, config.columns))
            for state in states
        ]
        x = to_tokens(torch.stack(noise).to(device), config.patch)
        passes: dict[Branches, _Pass] = {}
        guidances = [sampling.audio, sampling.reference] + ([] if moved is None else [sampling.motion])
        for step, t in enumerate(self.times[:-1]):

            def forward(branches: Branches, step: int = step, x: Tensor = x) -> Tensor:
                if branches not in passes:
                    passes[branches] = self._pass(branches, states, speech, moved, first)
                return self._velocity(passes[branches], x, step).reshape(len(branches), *x.shape)

            velocity = guided_velocity(forward, guidances, t, sampling.rescale)
            x = euler_step(x, velocity, t, self.times[step + 1])
        after = self._remember(states, x, first)
        latents = from_tokens(x, config.patch, config.rows, config.columns)
        origins = torch.stack([state.reference.origin for state in states])
        made = network.units.decode(latents, origins)
        return [Block(of_stream, state) for of_stream, state in zip(made, after, strict=True)]

    def _frames(self, state: FlowState, rows: Tensor, size: int) -> Tensor:
        """Rows of a block's frames; before a video's first frame there are zeros, which nothing looks at."""
        needed = self.frames(state)
        if rows.shape != (needed, size):
            raise InputError(
                f"expected {needed} frames of {size} numbers for this block, got {tuple(rows.shape)}; end speech with silence"
            )
        missing = self.network.config.block * self.network.config.frames_per_latent - needed
        return torch.cat([rows.new_zeros(missing, size), rows])

    def _moved(
        self, states: Sequence[FlowState], motion: Sequence[Tensor | None] | None, first: Tensor
    ) -> Tensor | None:
        if motion is None or all(rows is None for rows in motion):
            return None
        size = self.network.config.motion_features
        rows = [
            self._frames(state, first.new_zeros(self.frames(state), size).float() if given is None else given, size)
            for state, given in zip(states, motion, strict=True)
        ]
        hidden = torch.tensor([given is None for given in motion], device=first.device)
        return added_motion(self.network.motion, torch.stack(rows), first, hidden)

    def _pass(
        self,
        branches: Branches,
        states: Sequence[FlowState],
        speech: Tensor,
        moved: Tensor | None,
        first: Tensor,
    ) -> _Pass:
        network, config = self.network, self.network.config
        caches = [state.null if branch == NO_REFERENCE else state.full for branch in branches for state in states]
        slots, mask = self._slots(caches, config.block * config.tokens)
        silent = network.null_audio.expand_as(speech)
        motion = None
        if moved is not None:
            motion = torch.cat([torch.zeros_like(moved) if branch == NO_MOTION else moved for branch in branches])
        return _Pass(
            torch.cat([silent if branch == NO_AUDIO else speech for branch in branches]),
            motion,
            first.repeat(len(branches)),
            self._rotation([state.position for state in states] * len(branches)),
            slots,
            mask,
        )

    def _velocity(self, rows: _Pass, x: Tensor, step: int) -> Tensor:
        """Velocities of noisy tokens (R, k, n, c) for the branches of a pass, (branches * R, k, n, c)."""
        network, modulations = self.network, self._steps[step]
        count = len(rows.first) // len(x)
        tokens = network.noisy_tokens(x.repeat(count, 1, 1, 1), rows.speech, rows.motion, rows.first)
        tokens = network.transform(tokens, modulations, rows.rotation, rows.mask, rows.slots)
        return network.velocity(tokens, modulations.head).reshape(-1, *x.shape[1:])

    def _rotation(self, positions: Sequence[int]) -> Rotation:
        """Of blocks at positions of the window: (R, 1, k * n, c / 2)."""
        places = 1 + torch.tensor(positions)[:, None] + torch.arange(self.network.config.block)
        return Rotation(*(angles[:, None] for angles in self.network.rotation(places)))

    def _slots(self, caches: Sequence[Cache | None], new: int) -> tuple[list[KeysValues], Tensor | None]:
        """For each layer, the caches of R rows one beside the other, with room for `new` tokens after the longest.

        Shorter rows have a gap before that room; the mask, (R, 1, 1, S + new) bool, hides it.
        """
        network, config = self.network, self.network.config
        lengths = [0 if cache is None else cache.length for cache in caches]
        longest = max(lengths)
        shape = (config.layers, len(caches), config.heads, longest + new, config.width // config.heads)
        slots = KeysValues(*(network.null_audio.new_zeros(shape) for _ in range(2)))
        for row, cache in enumerate(caches):
            if cache is not None:
                for room, kept in zip(slots, cache.filled(), strict=True):
                    room[:, row, :, : cache.length] = kept
        mask = None
        if min(lengths) < longest:
            place = torch.arange(longest + new, device=slots.keys.device)
            known = torch.tensor(lengths, device=slots.keys.device)[:, None]
            mask = ((place < known) | (place >= longest))[:, None, None]
        return [KeysValues(keys, values) for keys, values in zip(*slots, strict=True)], mask

    def _append(self, caches: Sequence[Cache], latents: Tensor, positions: Sequence[int], first: Tensor) -> list[Cache]:
        """Caches with the context tokens of a block (R, k, n, c) at positions."""
        tokens = self.network.context_tokens(latents, first)
        slots, mask = self._slots(caches, tokens.shape[1])
        self.network.transform(tokens, self._context, self._rotation(positions), mask, slots)
        return [cache.append(_rows(slots, row, tokens.shape[1])) for row, cache in enumerate(caches)]

    def _remember(self, states: Sequence[FlowState], x: Tensor, first: Tensor) -> list[FlowState]:
        """The states after a block of tokens (R, k, n, c). A full window begins anew with the references and this block."""
        config = self.network.config
        ends = [state.position + config.block for state in states]
        caches = self._append_both(
            [(state.full, state.null) for state in states], x, [state.position for state in states], first
        )
        full = [row for row, end in enumerate(ends) if end == config.window]
        if full:
            began = [(states[row].reference.full, states[row].reference.null) for row in full]
            again = self._append_both(began, x[full], [0] * len(full), torch.zeros_like(first[full]))
            for row, pair in zip(full, again, strict=True):
                caches[row], ends[row] = pair, config.block
        return [
            FlowState(state.reference, kept, null, end, state.block + 1, state.seed)
            for state, (kept, null), end in zip(states, caches, ends, strict=True)
        ]

    def _append_both(
        self,
        pairs: Sequence[tuple[Cache, Cache | None]],
        x: Tensor,
        positions: Sequence[int],
        first: Tensor,
    ) -> list[tuple[Cache, Cache | None]]:
        """`_append` for the caches with references and, where there are any, those with the null reference."""
        nulls = [null for _, null in pairs if null is not None]
        times = 2 if nulls else 1
        made = self._append(
            [cache for cache, _ in pairs] + nulls,
            x.repeat(times, 1, 1, 1),
            list(positions) * times,
            first.repeat(times),
        )
        after = made[len(pairs) :] if nulls else [None] * len(pairs)
        return list(zip(made[: len(pairs)], after, strict=True))


def _rows(slots: Sequence[KeysValues], row: int, new: int) -> KeysValues:
    """The last `new` tokens of a row in all layers: (layers, heads, new, c)."""
    return KeysValues(
        torch.stack([layer.keys[row, :, -new:] for layer in slots]),
        torch.stack([layer.values[row, :, -new:] for layer in slots]),
    )
