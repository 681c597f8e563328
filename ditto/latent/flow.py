"""V's generator: speech to latents, four at a time, by a rectified flow that looks back at what it made.

    sampler = FlowSampler(network, FlowSampling())
    reference = sampler.reference(latents)                        # once per portrait
    state = sampler.begin(reference, seed)
    block, = sampler.generate([state], [audio])                   # block.latents, block.state

A window has reference tokens, context tokens (the past, clean) and noisy tokens. Training runs a whole window of context and
noisy blocks under a mask (teacher forcing); streaming runs block by block over cached keys and values, with the same result.

B: batch; M: references; T, N: latents, of a window; k: latents of a block; n: tokens of a latent; c: numbers of a token;
d: width; A: numbers of a latent's speech.

Source: V (arXiv:2606.01620): generator, algorithms 1 (training) and 2 (streaming), figure 4 (mask); blocks of DiT
(arXiv:2212.09748) with a modulation each. What the paper leaves open is marked as ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ditto.errors import InputError
from ditto.latent.attention import Attention, Cache, KeysValues, Rotation, rotation_of
from ditto.latent.audio import LatentEmbedder
from ditto.latent.config import FlowConfig
from ditto.latent.motion_condition import MotionCondition
from ditto.latent.schedule import Branches, Guidance, euler_step, guided_velocity, seeded_noise, timesteps
from ditto.latent.tokens import (
    LatentUnits,
    TimeEmbedding,
    begin_linear,
    check_latents,
    feed_forward,
    from_tokens,
    grid_positions,
    norm,
    to_tokens,
    zero_linear,
)

REFERENCE_TIME = -1  # position of all references, so that they are a set (ours)
NO_AUDIO, NO_REFERENCE, NO_MOTION = 1, 2, 3  # branches of guidance; 0 hides nothing


class FlowInputs(NamedTuple):
    """A batch of training windows.

    Attributes:
        noisy: (B, C, N, h, w) latents at `time`.
        context: (B, C, N, h, w) the same latents at `context_time`.
        time, context_time: (B, N / k) noise levels of each block.
        references: (B, C, M, h, w) clean latents of reference pictures.
        reference_count: (B,) how many of them a window sees, 1 to M.
        first: (B,) bool, whether latent 0 is the video's first.
        audio: (B, N * frames, F) speech features of the latents' frames; where `first`, of latent 0 only the last is looked
            at.
        hide_audio, hide_references: (B,) bool, whether the learned null condition stands in its place.
        motion: (B, N * frames, D) the latents' motion, or None.
        hide_motion: (B,) bool, or None with no motion.
    """

    noisy: Tensor
    context: Tensor
    time: Tensor
    context_time: Tensor
    references: Tensor
    reference_count: Tensor
    first: Tensor
    audio: Tensor
    hide_audio: Tensor
    hide_references: Tensor
    motion: Tensor | None = None
    hide_motion: Tensor | None = None


class Modulations(NamedTuple):
    """What the noise levels do to the layers: of each block (..., 6 d), and of the last layer (..., 2 d)."""

    blocks: tuple[Tensor, ...]
    head: Tensor

    def for_tokens(self, counts: Sequence[int]) -> Modulations:
        """Those of groups of tokens, (B, groups, ...), for each token, (B, L, ...)."""
        repeats = torch.tensor(counts, device=self.head.device)
        total = sum(counts)

        def spread(values: Tensor) -> Tensor:
            return values.repeat_interleave(repeats, 1, output_size=total)

        return Modulations(tuple(spread(values) for values in self.blocks), spread(self.head))


class FlowBlock(nn.Module):
    """A transformer block, modulated by the noise level of each token (adaLN-zero, a projection of its own)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.feed_forward = feed_forward(width, 4 * width)
        self.modulation = nn.Sequential(nn.SiLU(), zero_linear(width, 6 * width))

    def forward(
        self, x: Tensor, modulation: Tensor, rotation: Rotation, mask: Tensor | None, slots: KeysValues | None
    ) -> Tensor:
        """(B, L, d) -> (B, L, d).

        Args:
            modulation: broadcasts to (B, L, 6 d).
            mask: as `Attention.attend`.
            slots: (B, heads, S + L, c) keys and values of S past tokens, and room for those of these L, which are written
                there.
        """
        shift, scale, gate, shift_after, scale_after, gate_after = modulation.chunk(6, -1)
        y = norm(x) * (1 + scale) + shift
        seen = self.attention.keys_values(y, rotation)
        if slots is not None:
            slots.keys[:, :, -x.shape[1] :] = seen.keys
            slots.values[:, :, -x.shape[1] :] = seen.values
            seen = slots
        found = self.attention.attend(self.attention.queries(y, rotation), seen, mask)
        x = x + gate * self.attention.output(found)
        changed: Tensor = self.feed_forward(norm(x) * (1 + scale_after) + shift_after)
        return x + gate_after * changed


class FlowGenerator(nn.Module):
    """V's diffusion transformer (arXiv:2606.01620), 1028 M parameters at the paper's size."""

    rotation_cos: Tensor
    rotation_sin: Tensor

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        width, size = config.width, config.token_size
        self.units = LatentUnits(config.channels, config.residual)
        self.noisy = begin_linear(nn.Linear(size + config.audio_width, width))
        self.context = begin_linear(nn.Linear(size, width))
        self.reference = begin_linear(nn.Linear(size, width))
        self.audio = LatentEmbedder(config.audio_features, config.frames_per_latent, config.audio_width)
        self.null_audio = nn.Parameter(0.02 * torch.randn(config.audio_width))
        self.null_reference = nn.Parameter(0.02 * torch.randn(width))
        self.first_latent = nn.Parameter(0.02 * torch.randn(width))
        self.time = TimeEmbedding(config.frequencies, width)
        self.blocks = nn.ModuleList(FlowBlock(width, config.heads) for _ in range(config.layers))
        self.head_modulation = nn.Sequential(nn.SiLU(), zero_linear(width, 2 * width))
        self.head = zero_linear(width, size)
        self.motion = None  # made last: what begins at random before it is the same with and without
        if config.motion_features:
            self.motion = MotionCondition(config.motion_features, config.frames_per_latent, config.motion_width, width)
        times = [REFERENCE_TIME, *range(config.window)]
        positions = grid_positions(times, config.rows, config.columns, config.patch)
        rotation = rotation_of(positions, width // config.heads, config.theta)
        self.register_buffer("rotation_cos", rotation.cos, persistent=False)
        self.register_buffer("rotation_sin", rotation.sin, persistent=False)

    def forward(self, inputs: FlowInputs) -> Tensor:
        """The velocities of the noisy latents, (B, C, N, h, w), each block from the clean or augmented blocks before it.

        Raises:
            InputError: latents, references or speech of other sizes.
        """
        config = self.config
        for name in ("noisy", "context", "references"):
            check_latents(getattr(inputs, name), config.channels, config.rows, config.columns, name)
        if inputs.noisy.shape[2] != config.window or inputs.context.shape != inputs.noisy.shape:
            raise InputError(
                f"expected noisy and context of {config.window} latents, got {inputs.noisy.shape[2]} and "
                f"{inputs.context.shape[2]}; give whole windows"
            )
        batch, count = inputs.references.shape[0], inputs.references.shape[2]
        tokens, window = config.tokens, config.window
        hide_motion = torch.zeros_like(inputs.first) if inputs.hide_motion is None else inputs.hide_motion
        noisy = self.noisy_tokens(
            to_tokens(inputs.noisy, config.patch),
            self.speech(inputs.audio, inputs.first, inputs.hide_audio),
            self.moved(inputs.motion, inputs.first, hide_motion),
            inputs.first,
        )
        context = self.context_tokens(to_tokens(inputs.context, config.patch), inputs.first)
        references = self.reference_tokens(to_tokens(inputs.references, config.patch))
        null = self.null_reference.expand(batch, count * tokens, -1)
        references = torch.where(inputs.hide_references[:, None, None], null, references)
        x = torch.cat([references, context, noisy], 1)
        levels = torch.cat([torch.zeros_like(inputs.time[:, :1]), inputs.context_time, inputs.time], 1)
        blocks = window // config.block
        modulations = self.modulations(levels).for_tokens([count * tokens] + [config.block * tokens] * (2 * blocks))
        seen = torch.where(inputs.hide_references, 1, inputs.reference_count)  # the null stands for one reference
        mask = teacher_mask(count, window, config.block, tokens, x.device)
        known = torch.arange(x.shape[1], device=x.device)
        known = (known < seen[:, None] * tokens) | (known >= count * tokens)
        places = torch.cat([torch.zeros(count, dtype=torch.long), 1 + torch.arange(window).repeat(2)])
        x = self.transform(x, modulations, self.rotation(places), mask & known[:, None, None], None)
        x = x[:, -window * tokens :]
        velocity = self.velocity(x, modulations.head[:, -window * tokens :])
        return from_tokens(velocity.unflatten(1, (window, tokens)), config.patch, config.rows, config.columns)

    def rotation(self, places: Tensor) -> Rotation:
        """Of the tokens of latents at places (..., T): 0 is a reference, 1 + j is position j. (..., T * n, c / 2)."""
        tokens = self.config.tokens
        index = (places[..., None] * tokens + torch.arange(tokens)).flatten(-2).to(self.rotation_cos.device)
        return Rotation(self.rotation_cos[index], self.rotation_sin[index])

    def speech(self, audio: Tensor, first: Tensor, hidden: Tensor) -> Tensor:
        """Vectors of the latents' speech, (B, T, A); the null vector where `hidden` (B,)."""
        return torch.where(hidden[:, None, None], self.null_audio, self.audio(audio, first))

    def moved(self, motion: Tensor | None, first: Tensor, hidden: Tensor) -> Tensor | None:
        """What motion adds to the noisy tokens, (B, T, 1, d), if there is any.

        Raises:
            InputError: motion, for a network without.
        """
        if motion is None:
            return None
        if self.motion is None:
            raise InputError("expected no motion for a generator without a motion condition, got some; leave it out")
        added: Tensor = self.motion(motion, first, hidden)
        return added

    def noisy_tokens(self, latents: Tensor, speech: Tensor, motion: Tensor | None, first: Tensor) -> Tensor:
        """Tokens of noisy latents (B, T, n, c) with speech (B, T, A): (B, T * n, d)."""
        speech = speech[:, :, None].expand(-1, -1, latents.shape[2], -1)
        x = self.noisy(torch.cat([latents, speech.to(latents.dtype)], -1))
        if motion is not None:
            x = x + motion
        return self._with_first(x, first)

    def context_tokens(self, latents: Tensor, first: Tensor) -> Tensor:
        """Tokens of past latents (B, T, n, c): (B, T * n, d). They carry no speech, as the paper's text has it."""
        return self._with_first(self.context(latents), first)

    def reference_tokens(self, latents: Tensor) -> Tensor:
        """Tokens of references (B, M, n, c): (B, M * n, d)."""
        tokens: Tensor = self.reference(latents)
        return tokens.flatten(1, 2)

    def _with_first(self, x: Tensor, first: Tensor) -> Tensor:
        """(B, T, n, d) -> (B, T * n, d): the video's first latent, which is one frame, is marked."""
        marked = x[:, :1] + first[:, None, None, None] * self.first_latent
        return torch.cat([marked, x[:, 1:]], 1).flatten(1, 2)

    def modulations(self, levels: Tensor) -> Modulations:
        """Of groups of tokens at noise levels (B, groups)."""
        time = self.time(levels)
        blocks = tuple(block.modulation(time) for block in self.blocks)  # type: ignore[operator, union-attr]
        return Modulations(blocks, self.head_modulation(time))

    def transform(
        self,
        x: Tensor,
        modulations: Modulations,
        rotation: Rotation,
        mask: Tensor | None,
        slots: Sequence[KeysValues] | None,
    ) -> Tensor:
        """All blocks: (B, L, d) -> (B, L, d); `slots` as `FlowBlock`, one each."""
        for i, block in enumerate(self.blocks):
            x = block(x, modulations.blocks[i], rotation, mask, None if slots is None else slots[i])
        return x

    def velocity(self, x: Tensor, modulation: Tensor) -> Tensor:
        """The last layer: (B, L, d) -> (B, L, c)."""
        shift, scale = modulation.chunk(2, -1)
        found: Tensor = self.head(norm(x) * (1 + scale) + shift)
        return found


def teacher_mask(references: int, window: int, block: int, tokens: int, device: torch.device | None = None) -> Tensor:
    """(L, L) bool: what each token of [references, context, noisy] looks at in training, L = (M + 2 N) n.

    References: at references. Context block b: at references and context up to b. Noisy block b: at references, context
    before b, and itself.

    Source: V (arXiv:2606.01620), figure 4.
    """
    blocks = torch.arange(window, device=device) // block
    kind = torch.cat([torch.full((references,), 0), torch.full((window,), 1), torch.full((window,), 2)]).to(device)
    place = torch.cat([torch.full((references,), -1, device=device), blocks, blocks])
    kind, place = kind.repeat_interleave(tokens), place.repeat_interleave(tokens)
    query, key = kind[:, None], kind[None]
    before, same = place[None] < place[:, None], place[None] == place[:, None]
    return (
        (key == 0)
        | ((query == 1) & (key == 1) & (before | same))
        | ((query == 2) & (key == 1) & before)
        | ((query == 2) & (key == 2) & same)
    )


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


class GeneratedBlock(NamedTuple):
    """A block: the codec's latents (C, k, h, w), and the state after it."""

    latents: Tensor
    state: FlowState


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
        return config.block * config.frames_per_latent - (config.frames_per_latent - 1 if state.block == 0 else 0)

    @torch.no_grad()
    def generate(
        self, states: Sequence[FlowState], audio: Sequence[Tensor], motion: Sequence[Tensor | None] | None = None
    ) -> list[GeneratedBlock]:
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
        if not states or len(states) != len(audio) or (motion is not None and len(states) != len(motion)):
            raise InputError(
                f"expected speech, and motion if any, for each of one or more streams, got {len(states)} streams and "
                f"{len(audio)} of speech; give one each"
            )
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
        return [
            GeneratedBlock(made, state)
            for made, state in zip(network.units.decode(latents, origins), after, strict=True)
        ]

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
        return self.network.moved(torch.stack(rows), first, hidden)

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
