"""V's generator: the transformer that gives the velocity of the noisy latents of a window.

A window has reference tokens, context tokens (the past, clean) and noisy tokens. Training runs a whole window of context and
noisy blocks under a mask (teacher forcing); streaming runs block by block over cached keys and values, with the same result
(`flow_sampler`).

B: batch; M: references; T, N: latents, of a window; k: latents of a block; n: tokens of a latent; c: numbers of a token;
d: width; A: numbers of a latent's speech.

Source: V (arXiv:2606.01620): generator, algorithm 1 (training), figure 4 (mask); blocks of DiT (arXiv:2212.09748) with a
modulation each. What the paper leaves open is marked as ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ditto.errors import InputError
from ditto.latent.attention import Attention, KeysValues, Rotation
from ditto.latent.audio import LatentEmbedder
from ditto.latent.config import FlowConfig
from ditto.latent.motion_condition import MotionCondition, added_motion
from ditto.latent.tokens import (
    LatentUnits,
    TimeEmbedding,
    begin_linear,
    check_latents,
    feed_forward,
    from_tokens,
    grid_rotation,
    norm,
    to_tokens,
    zero_linear,
)

REFERENCE_TIME = -1  # position of all references, so that they are a set (ours)


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
    """V's diffusion transformer (arXiv:2606.01620), 1029 M parameters at the paper's size."""

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
        self.motion = MotionCondition.of(config)  # last: what begins at random before it is the same with and without
        rotation = grid_rotation(config, [REFERENCE_TIME, *range(config.window)])
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
            added_motion(self.motion, inputs.motion, inputs.first, hide_motion),
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
