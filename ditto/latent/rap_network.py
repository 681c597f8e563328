"""RAP's denoiser: the transformer that gives the velocity of the noisy latents of a clip.

A clip's noisy latents are denoised together, beside the latents of the reference picture repeated in time. Every block looks
at speech twice with the same weights: over the whole clip, and over the frames of each latent alone; deeper blocks more the
second way.

B: batch; F: latents of a clip; n: tokens of a latent; r: frames of a latent; N: layers of the speech encoder; A: numbers of a
layer; d: width.

Source: RAP (arXiv:2508.05115): hybrid attention, static-dynamic training; its trunk is that of Wan 2.1 1.3B
(arXiv:2503.20314; code read: Wan-Video/Wan2.1 9737cba). What the paper leaves open is marked as ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ditto.errors import InputError
from ditto.latent.attention import Attention, KeysValues, Rotation
from ditto.latent.audio import FeatureUnits
from ditto.latent.config import RapConfig
from ditto.latent.motion_condition import MotionCondition, added_motion
from ditto.latent.tokens import (
    EPSILON,
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


class RapInputs(NamedTuple):
    """A batch of clips.

    Attributes:
        noisy: (B, C, F, h, w) latents at `time`.
        time: (B,) noise levels.
        reference: (B, C, F, h, w) latents of the reference repeated in time, those at the clip's places.
        static: (B,) bool, whether latent 0 is the video's first, which has one frame.
        audio: (B, F * r, N, A) layers of speech features. Where `static`, r - 1 rows before the first frame repeat it.
        hide_audio: (B,) bool, whether the learned null condition stands in its place.
        motion: (B, F * r, D), or None.
        hide_motion: (B,) bool, or None with no motion.
    """

    noisy: Tensor
    time: Tensor
    reference: Tensor
    static: Tensor
    audio: Tensor
    hide_audio: Tensor
    motion: Tensor | None = None
    hide_motion: Tensor | None = None


class HybridAttention(nn.Module):
    """Video looks at speech in two ways with one set of weights: `alpha A_window + (1 - alpha) A_full`.

    Blending before the output layer equals blending after it, as that layer is affine and the shares add up to 1. A way
    whose share is 0 is not computed.

    Source: RAP (arXiv:2508.05115), hybrid attention; that the ways share their weights follows from its parameter count.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)

    def forward(self, x: Tensor, heard: KeysValues, latents: int, share: float) -> Tensor:
        """(B, F * n, d) -> (B, F * n, d).

        Args:
            heard: keys and values of F * s tokens of speech, s of each latent in turn.
            latents: F.
            share: alpha, of the window.
        """
        queries = self.attention.queries(x)
        found = torch.zeros((), dtype=x.dtype, device=x.device)
        if share < 1:
            found = (1 - share) * self.attention.attend(queries, heard)
        if share > 0:
            windows = [part.unflatten(2, (latents, -1)).transpose(1, 2).flatten(0, 1) for part in (queries, *heard)]
            near = self.attention.attend(windows[0], KeysValues(*windows[1:]))
            found = found + share * near.reshape(x.shape)
        blended: Tensor = self.attention.output(found)
        return blended


class RapBlock(nn.Module):
    """A block of Wan's: self-attention, attention to speech, feed-forward. The noise level modulates the first and last."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.randn(1, 6, width) / width**0.5)
        self.self_attention = Attention(width, heads)
        self.speech_norm = nn.LayerNorm(width, eps=EPSILON)
        self.speech_attention = HybridAttention(width, heads)
        self.feed_forward = feed_forward(width, inner)

    def forward(
        self, x: Tensor, time: Tensor, rotation: Rotation, heard: KeysValues, latents: int, share: float
    ) -> Tensor:
        """(B, F * n, d) -> (B, F * n, d); `time` (B or 1, 6, d), the others as `HybridAttention`."""
        shift, scale, gate, shift_after, scale_after, gate_after = (self.modulation + time).chunk(6, 1)
        found, _ = self.self_attention(norm(x) * (1 + scale) + shift, rotation)
        x = x + gate * found
        x = x + self.speech_attention(self.speech_norm(x), heard, latents, share)
        changed: Tensor = self.feed_forward(norm(x) * (1 + scale_after) + shift_after)
        return x + gate_after * changed


class RapDenoiser(nn.Module):
    """RAP's diffusion transformer (arXiv:2508.05115), 1414 M parameters at the paper's size."""

    rotation_cos: Tensor
    rotation_sin: Tensor

    def __init__(self, config: RapConfig) -> None:
        super().__init__()
        self.config = config
        width, size = config.width, config.token_size
        self.units = LatentUnits(config.channels, config.residual)
        self.input = begin_linear(nn.Linear(2 * size, width))
        self.audio_units = FeatureUnits(config.speech_size)
        self.audio = nn.Sequential(
            begin_linear(nn.Linear(config.audio_features, width)),
            nn.GELU("tanh"),
            begin_linear(nn.Linear(width, width)),
        )
        self.audio_places = nn.Parameter(0.02 * torch.randn(config.frames_per_latent, config.audio_layers, width))
        self.null_audio = nn.Parameter(0.02 * torch.randn(width))
        self.time = TimeEmbedding(config.frequencies, width)
        self.time_projection = nn.Sequential(nn.SiLU(), begin_linear(nn.Linear(width, 6 * width)))
        self.blocks = nn.ModuleList(RapBlock(width, config.heads, config.inner) for _ in range(config.layers))
        self.head_modulation = nn.Parameter(torch.randn(1, 2, width) / width**0.5)
        self.head = zero_linear(width, size)
        self.motion = MotionCondition.of(config)  # last: what begins at random before it is the same with and without
        rotation = grid_rotation(config, range(config.lengths[-1]))
        self.register_buffer("rotation_cos", rotation.cos, persistent=False)
        self.register_buffer("rotation_sin", rotation.sin, persistent=False)

    def forward(self, inputs: RapInputs) -> Tensor:
        """The velocities of clips, (B, C, F, h, w).

        Raises:
            InputError: latents or speech of other sizes, or a clip longer than the longest.
        """
        hide_motion = torch.zeros_like(inputs.static) if inputs.hide_motion is None else inputs.hide_motion
        moved = added_motion(self.motion, inputs.motion, inputs.static, hide_motion)
        heard = self.hear(self.speech(inputs.audio, inputs.hide_audio))
        return self.denoise(inputs.noisy, inputs.time, inputs.reference, heard, moved)

    def speech(self, audio: Tensor, hidden: Tensor) -> Tensor:
        """Tokens of speech (B, F * r, N, A), those of a latent together: (B, F * r * N, d); null where `hidden` (B,).

        Raises:
            InputError: speech of another size.
        """
        config = self.config
        frames, layers, size = config.frames_per_latent, config.audio_layers, config.audio_features
        if audio.ndim != 4 or audio.shape[1] % frames or audio.shape[2:] != (layers, size):
            raise InputError(
                f"expected speech (B, {frames} n, {layers}, {size}), got {tuple(audio.shape)}; give frames of whole "
                "latents"
            )
        rows = self.audio_units(audio.flatten(2)).unflatten(2, (layers, size))
        tokens = self.audio(rows).unflatten(1, (-1, frames)) + self.audio_places
        return torch.where(hidden[:, None, None], self.null_audio, tokens.flatten(1, 3))

    def hear(self, speech: Tensor) -> list[KeysValues]:
        """Keys and values of tokens of speech (B, L, d) in each block. They do not depend on the noise level."""
        return [
            block.speech_attention.attention.keys_values(speech)  # type: ignore[union-attr, operator]
            for block in self.blocks
        ]

    def denoise(
        self, noisy: Tensor, time: Tensor, reference: Tensor, heard: Sequence[KeysValues], moved: Tensor | None
    ) -> Tensor:
        """The velocities of clips (B, C, F, h, w) at levels `time`, (B,) or (1,)."""
        config = self.config
        check_latents(noisy, config.channels, config.rows, config.columns, "noisy latents")
        batch, _, latents = noisy.shape[:3]
        if reference.shape != noisy.shape or latents > config.lengths[-1]:
            raise InputError(
                f"expected clips of at most {config.lengths[-1]} latents and as many of the reference, got {latents} and "
                f"{tuple(reference.shape)}; cut them"
            )
        x = self.input(torch.cat([to_tokens(noisy, config.patch), to_tokens(reference, config.patch)], -1))
        x = (x if moved is None else x + moved).flatten(1, 2)
        embedded = self.time(time)
        projected = self.time_projection(embedded).unflatten(-1, (6, -1))
        count = latents * config.tokens
        rotation = Rotation(self.rotation_cos[:count], self.rotation_sin[:count])
        for i, block in enumerate(self.blocks):
            x = block(x, projected, rotation, heard[i], latents, config.window_share(i))
        shift, scale = (self.head_modulation + embedded[:, None]).chunk(2, 1)
        velocity = self.head(norm(x) * (1 + scale) + shift).reshape(batch, latents, config.tokens, -1)
        return from_tokens(velocity, config.patch, config.rows, config.columns)
