"""RAP's denoiser: clips of latent video from speech, each beginning with the end of the one before it.

    sampler = RapSampler(network, RapSampling())
    state = sampler.begin(sampler.reference(latents), seed)          # once per portrait; per stream
    clip, = sampler.generate([state], [audio], length=11)             # clip.latents, clip.state

A clip's noisy latents are denoised together, beside the latents of the reference picture repeated in time. Every block looks
at speech twice with the same weights: over the whole clip, and over the frames of each latent alone; deeper blocks more the
second way.

B: batch; F: latents of a clip; n: tokens of a latent; r: frames of a latent; N: layers of the speech encoder; d: width;
S: steps.

Source: RAP (arXiv:2508.05115): hybrid attention, static-dynamic training, latent inheritance; its trunk is that of Wan 2.1
1.3B (arXiv:2503.20314; code read: Wan-Video/Wan2.1 9737cba). What the paper leaves open is marked as ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ditto.errors import InputError
from ditto.latent.attention import Attention, KeysValues, Rotation, rotation_of
from ditto.latent.audio import FeatureUnits
from ditto.latent.config import RapConfig
from ditto.latent.motion_condition import MotionCondition
from ditto.latent.schedule import Branches, Guidance, euler_step, guided_velocity, seeded_noise, timesteps
from ditto.latent.tokens import (
    EPSILON,
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

NO_AUDIO, NO_MOTION = 1, 2  # branches of guidance; 0 hides nothing


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
    """RAP's diffusion transformer (arXiv:2508.05115), 1411 M parameters at the paper's size."""

    rotation_cos: Tensor
    rotation_sin: Tensor

    def __init__(self, config: RapConfig) -> None:
        super().__init__()
        self.config = config
        width, size = config.width, config.token_size
        self.units = LatentUnits(config.channels, config.residual)
        self.input = begin_linear(nn.Linear(2 * size, width))
        self.audio_units = FeatureUnits(config.audio_features)
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
        self.motion = None  # made last: what begins at random before it is the same with and without
        if config.motion_features:
            self.motion = MotionCondition(config.motion_features, config.frames_per_latent, config.motion_width, width)
        positions = grid_positions(list(range(config.lengths[-1])), config.rows, config.columns, config.patch)
        rotation = rotation_of(positions, width // config.heads, config.theta)
        self.register_buffer("rotation_cos", rotation.cos, persistent=False)
        self.register_buffer("rotation_sin", rotation.sin, persistent=False)

    def forward(self, inputs: RapInputs) -> Tensor:
        """The velocities of clips, (B, C, F, h, w).

        Raises:
            InputError: latents or speech of other sizes, or a clip longer than the longest.
        """
        hide_motion = torch.zeros_like(inputs.static) if inputs.hide_motion is None else inputs.hide_motion
        moved = self.moved(inputs.motion, inputs.static, hide_motion)
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
        tokens = self.audio(self.audio_units(audio)).unflatten(1, (-1, frames)) + self.audio_places
        return torch.where(hidden[:, None, None], self.null_audio, tokens.flatten(1, 3))

    def hear(self, speech: Tensor) -> list[KeysValues]:
        """Keys and values of tokens of speech (B, L, d) in each block. They do not depend on the noise level."""
        return [
            block.speech_attention.attention.keys_values(speech)  # type: ignore[union-attr, operator]
            for block in self.blocks
        ]

    def moved(self, motion: Tensor | None, static: Tensor, hidden: Tensor) -> Tensor | None:
        """What motion adds to the tokens, (B, F, 1, d), if there is any.

        Raises:
            InputError: motion, for a network without.
        """
        if motion is None:
            return None
        if self.motion is None:
            raise InputError("expected no motion for a denoiser without a motion condition, got some; leave it out")
        added: Tensor = self.motion(motion, static, hidden)
        return added

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


@dataclass(frozen=True)
class RapSampling:
    """How clips are generated.

    Attributes:
        steps, shift: of the schedule; ours, as the paper gives neither: 10 steps fit its frames per second.
        audio: guidance by speech; the paper's 5.
        motion: guidance by motion; ours.
        rescale: see `schedule.combine`; ours.
    """

    steps: int = 10
    shift: float = 3.0
    audio: Guidance = field(default_factory=lambda: Guidance(5.0))
    motion: Guidance = field(default_factory=Guidance)
    rescale: float = 0.0


@dataclass(frozen=True)
class RapState:
    """What a stream remembers between two clips. A value: `generate` makes another, of the same size.

    Attributes:
        reference: (C, T, h, w) latents of the portrait's reference repeated in time.
        history: (S, C, inherited, h, w) the last noisy latents of the clip before, at the start of every step; zeros before
            the first clip.
        audio: (inherited * r, N, A) speech features of the frames of those latents; zeros before the first clip.
        motion: (inherited * r, D) their motion; None if they had none.
        frames: of the video so far.
        clip: number of the next clip.
        seed: of its noise.
    """

    reference: Tensor
    history: Tensor
    audio: Tensor
    motion: Tensor | None
    frames: int
    clip: int
    seed: int

    @property
    def bytes(self) -> int:
        """Of history and speech."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.history, self.audio))


class GeneratedClip(NamedTuple):
    """The new latents of a clip, (C, F or F - inherited, h, w) of the codec, and the state after it.

    The inherited ones have been given with the clip before. RAP decodes them again, as context of its decoder, and drops
    their frames; our codec is causal and decodes a stream, so it needs them once.
    """

    latents: Tensor
    state: RapState


class RapSampler:
    """Generates clips of streams. It holds weights and no stream; several threads may call at once."""

    def __init__(self, network: RapDenoiser, sampling: RapSampling) -> None:
        self.network, self.sampling = network.eval(), sampling
        self.times = timesteps(sampling.steps, sampling.shift)

    def reference(self, latents: Tensor) -> Tensor:
        """A portrait's reference, checked: the latents (C, T, h, w) of its picture repeated in time, as in training.

        Raises:
            InputError: latents of another size or number.
        """
        config = self.network.config
        check_latents(latents[None], config.channels, config.rows, config.columns, "reference latents")
        if latents.shape[1] != config.reference_latents:
            frames = (config.reference_latents - 1) * config.frames_per_latent + 1
            raise InputError(
                f"expected {config.reference_latents} latents of a reference, got {latents.shape[1]}; encode its picture "
                f"repeated {frames} times"
            )
        return latents

    def begin(self, reference: Tensor, seed: int) -> RapState:
        """The state before a video's first frame; `seed` of all noise of the stream, in [0, 2 ** 64)."""
        config = self.network.config
        shape = (self.sampling.steps, config.channels, config.inherited, config.rows, config.columns)
        frames = config.inherited * config.frames_per_latent
        audio = reference.new_zeros(frames, config.audio_layers, config.audio_features)
        return RapState(reference, reference.new_zeros(shape), audio, None, 0, 0, seed)

    def frames(self, state: RapState, length: int) -> int:
        """New video frames of a stream's next clip, if it has `length` latents.

        With 11 latents of 8 frames, 3 inherited: 81, then 64.

        Raises:
            InputError: a length that the network was not made for, or no longer than what is inherited.
        """
        config = self.network.config
        inherited = config.inherited if state.clip else 0
        if length not in config.lengths or length <= inherited:
            lengths = [known for known in config.lengths if known > inherited]
            raise InputError(
                f"expected a clip of {', '.join(map(str, lengths))} latents here, got {length}; give one of these"
            )
        return (length - inherited) * config.frames_per_latent - (0 if state.clip else config.frames_per_latent - 1)

    @torch.no_grad()
    def generate(
        self,
        states: Sequence[RapState],
        audio: Sequence[Tensor],
        length: int,
        motion: Sequence[Tensor | None] | None = None,
    ) -> list[GeneratedClip]:
        """The next clip of each of some streams, which may be at different places, as one batch.

        At every step the first latents of a later clip are what the last latents of the clip before were at that step
        (latent inheritance, RAP). The branches of guidance of all streams run in one forward pass a step.

        Args:
            states: of the streams, one or more.
            audio: for each (frames, N, A) layers of speech features of its `frames(state, length)` new frames.
            length: F, latents of all of these clips, with the inherited ones.
            motion: for each (frames, D), or None.

        Raises:
            InputError: speech or motion of other sizes, or a length that cannot be.
        """
        network, config, sampling = self.network, self.network.config, self.sampling
        if not states or len(states) != len(audio) or (motion is not None and len(states) != len(motion)):
            raise InputError(
                f"expected speech, and motion if any, for each of one or more streams, got {len(states)} streams and "
                f"{len(audio)} of speech; give one each"
            )
        device, tail = network.null_audio.device, config.inherited
        kept_frames = tail * config.frames_per_latent
        new = [self.frames(state, length) for state in states]
        # Where a clip begins with the video, its latent 0 has one frame, and the reference is that of the video's start.
        begins = [state.frames < kept_frames for state in states]
        static = torch.tensor(begins, device=device)
        size = (config.audio_layers, config.audio_features)
        heard = torch.stack(
            [
                _joined(state, state.audio, rows, count, length * config.frames_per_latent, size)
                for state, rows, count in zip(states, audio, new, strict=True)
            ]
        )
        motion_rows = self._motion_rows(states, motion, new, length)
        moved = None
        if any(rows is not None for rows in motion_rows):
            still = torch.zeros(length * config.frames_per_latent, config.motion_features, device=device)
            hidden = torch.tensor([rows is None for rows in motion_rows], device=device)
            shown = torch.stack([still if rows is None else rows for rows in motion_rows])
            moved = network.moved(shown, static, hidden)
        references = torch.stack(
            [
                state.reference[:, :length] if at_start else state.reference[:, -length:]
                for state, at_start in zip(states, begins, strict=True)
            ]
        )
        shape = (config.channels, length, config.rows, config.columns)
        x = torch.stack([seeded_noise(state.seed, state.clip, shape) for state in states]).to(device)
        later = torch.tensor([state.clip > 0 for state in states], device=device)[:, None, None, None, None]
        before = torch.stack([state.history for state in states], 1)
        speech = [network.speech(heard, torch.full_like(static, hide)) for hide in (False, True)]
        history: list[Tensor] = []
        known: dict[Branches, tuple[list[KeysValues], Tensor | None]] = {}
        guidances = [sampling.audio] + ([] if moved is None else [sampling.motion])
        for step, t in enumerate(self.times[:-1]):
            x = torch.cat([torch.where(later, before[step], x[:, :, :tail]), x[:, :, tail:]], 2)
            history.append(x[:, :, -tail:])

            def forward(branches: Branches, t: float = t, x: Tensor = x) -> Tensor:
                count = len(branches)
                if branches not in known:
                    tokens = torch.cat([speech[branch == NO_AUDIO] for branch in branches])
                    added = None
                    if moved is not None:
                        added = torch.cat([torch.zeros_like(moved) if b == NO_MOTION else moved for b in branches])
                    known[branches] = network.hear(tokens), added
                velocities = network.denoise(
                    x.repeat(count, 1, 1, 1, 1),
                    torch.full((1,), t, device=device),
                    references.repeat(count, 1, 1, 1, 1),
                    *known[branches],
                )
                return velocities.reshape(count, *x.shape)

            x = euler_step(x, guided_velocity(forward, guidances, t, sampling.rescale), t, self.times[step + 1])
        made, kept = network.units.decode(x, references), torch.stack(history, 1)
        clips = []
        for row, state in enumerate(states):
            rows = motion_rows[row]
            after = RapState(
                state.reference,
                kept[row],
                heard[row, -kept_frames:],
                None if rows is None else rows[-kept_frames:],
                state.frames + new[row],
                state.clip + 1,
                state.seed,
            )
            clips.append(GeneratedClip(made[row, :, tail if state.clip else 0 :], after))
        return clips

    def _motion_rows(
        self, states: Sequence[RapState], motion: Sequence[Tensor | None] | None, new: Sequence[int], length: int
    ) -> list[Tensor | None]:
        """Motion of the frames of whole clips, (F * r, D) each; None where there is none."""
        config = self.network.config
        count = length * config.frames_per_latent
        return [
            None if rows is None else _joined(state, state.motion, rows, frames, count, (config.motion_features,))
            for state, rows, frames in zip(states, motion or [None] * len(states), new, strict=True)
        ]


def _joined(state: RapState, kept: Tensor | None, rows: Tensor, new: int, count: int, size: tuple[int, ...]) -> Tensor:
    """The rows of `count` frames of a clip: those kept of the inherited latents, then the new ones. Before a video's first
    frame, and where nothing was kept, the first new row is repeated (ours).

    Raises:
        InputError: another number of new rows, or rows of another size.
    """
    if tuple(rows.shape) != (new, *size):
        raise InputError(
            f"expected the {new} new frames of this clip, {(new, *size)}, got {tuple(rows.shape)}; end speech with silence"
        )
    if state.clip == 0 or kept is None:
        kept = rows[:1].expand(count - new, *size)
    return torch.cat([kept, rows])
