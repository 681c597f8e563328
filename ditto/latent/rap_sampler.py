"""Streams of RAP: clips of latent video from speech, each beginning with the end of the one before it.

    sampler = RapSampler(network, RapSampling())
    state = sampler.begin(sampler.reference(latents), seed)          # once per portrait; per stream
    clip, = sampler.generate([state], [audio], length=11)             # clip.latents, clip.state

F: latents of a clip; r: frames of a latent; N: layers of the speech encoder; A: numbers of a layer; S: steps; R: rows of a
batch.

Source: RAP (arXiv:2508.05115), latent inheritance. What the paper leaves open is marked as ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ditto.errors import InputError
from ditto.latent.attention import KeysValues
from ditto.latent.motion_condition import added_motion
from ditto.latent.rap_network import RapDenoiser
from ditto.latent.sampling import Block, check_streams
from ditto.latent.schedule import Branches, Guidance, euler_step, guided_velocity, seeded_noise, timesteps
from ditto.latent.tokens import check_latents

NO_AUDIO, NO_MOTION = 1, 2  # branches of guidance; 0 hides nothing


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


class _Clips(NamedTuple):
    """The clips of a batch of R streams, with the frames of what they inherit.

    Attributes:
        audio: (R, F * r, N, A) layers of speech features.
        motion: of each (F * r, D), or None.
        references: (R, C, F, h, w), those at the clips' places.
        static: (R,) bool, whether the clip begins with the video: its latent 0 has one frame.
        new: frames that each adds.
    """

    audio: Tensor
    motion: list[Tensor | None]
    references: Tensor
    static: Tensor
    new: list[int]


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
            raise InputError(
                f"expected {config.reference_latents} latents of a reference, got {latents.shape[1]}; encode its picture "
                f"repeated {config.frames(config.reference_latents)} times"
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
        return config.frames(length - inherited, state.clip == 0)

    @torch.no_grad()
    def generate(
        self,
        states: Sequence[RapState],
        audio: Sequence[Tensor],
        length: int,
        motion: Sequence[Tensor | None] | None = None,
    ) -> list[Block[RapState]]:
        """The next clip of each of some streams, which may be at different places, as one batch.

        At every step the first latents of a later clip are what the last latents of the clip before were at that step
        (latent inheritance, RAP). The branches of guidance of all streams run in one forward pass a step.

        Args:
            states: of the streams, one or more.
            audio: for each (frames, N, A) layers of speech features of its `frames(state, length)` new frames.
            length: F, latents of all of these clips, with the inherited ones.
            motion: for each (frames, D), or None.

        Returns:
            Of each the new latents, F or F - inherited. The inherited ones have been given with the clip before. RAP
            decodes them again, as context of its decoder, and drops their frames; our codec is causal and decodes a
            stream, so it needs them once.

        Raises:
            InputError: speech or motion of other sizes, or a length that cannot be.
        """
        check_streams(states, audio, motion)
        clips = self._clips(states, audio, motion or [None] * len(states), length)
        x, history = self._denoise(states, clips)
        latents, inherited = self.network.units.decode(x, clips.references), self.network.config.inherited
        return [
            Block(latents[row, :, inherited if state.clip else 0 :], self._after(state, clips, row, history[row]))
            for row, state in enumerate(states)
        ]

    def _clips(
        self, states: Sequence[RapState], audio: Sequence[Tensor], motion: Sequence[Tensor | None], length: int
    ) -> _Clips:
        config = self.network.config
        frames = length * config.frames_per_latent
        new = [self.frames(state, length) for state in states]
        begins = [state.frames < config.inherited * config.frames_per_latent for state in states]
        heard, moved = (config.audio_layers, config.audio_features), (config.motion_features,)
        return _Clips(
            torch.stack(
                [
                    _joined(state, state.audio, rows, count, frames, heard)
                    for state, rows, count in zip(states, audio, new, strict=True)
                ]
            ),
            [
                None if rows is None else _joined(state, state.motion, rows, count, frames, moved)
                for state, rows, count in zip(states, motion, new, strict=True)
            ],
            torch.stack(
                [
                    state.reference[:, :length] if start else state.reference[:, -length:]
                    for state, start in zip(states, begins, strict=True)
                ]
            ),
            torch.tensor(begins, device=self.network.null_audio.device),
            new,
        )

    def _moved(self, clips: _Clips) -> Tensor | None:
        """What motion adds to the tokens of all clips, (R, F, 1, d), if any has some."""
        if all(rows is None for rows in clips.motion):
            return None
        device = clips.static.device
        still = torch.zeros(clips.audio.shape[1], self.network.config.motion_features, device=device)
        hidden = torch.tensor([rows is None for rows in clips.motion], device=device)
        shown = torch.stack([still if rows is None else rows for rows in clips.motion])
        return added_motion(self.network.motion, shown, clips.static, hidden)

    def _denoise(self, states: Sequence[RapState], clips: _Clips) -> tuple[Tensor, Tensor]:
        """The latents of whole clips (R, C, F, h, w), and what the next ones inherit, (R, S, C, inherited, h, w)."""
        network, sampling, tail = self.network, self.sampling, self.network.config.inherited
        device, shape = clips.static.device, clips.references.shape[1:]
        x = torch.stack([seeded_noise(state.seed, state.clip, shape) for state in states]).to(device)
        later = torch.tensor([state.clip > 0 for state in states], device=device)[:, None, None, None, None]
        before = torch.stack([state.history for state in states], 1)
        speech = [network.speech(clips.audio, torch.full_like(clips.static, hide)) for hide in (False, True)]
        moved = self._moved(clips)
        guidances = [sampling.audio] + ([] if moved is None else [sampling.motion])
        known: dict[Branches, tuple[list[KeysValues], Tensor | None]] = {}
        history: list[Tensor] = []
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
                    clips.references.repeat(count, 1, 1, 1, 1),
                    *known[branches],
                )
                return velocities.reshape(count, *x.shape)

            x = euler_step(x, guided_velocity(forward, guidances, t, sampling.rescale), t, self.times[step + 1])
        return x, torch.stack(history, 1)

    def _after(self, state: RapState, clips: _Clips, row: int, history: Tensor) -> RapState:
        """The state of a stream after its clip, that of a row."""
        kept, motion = self.network.config.inherited * self.network.config.frames_per_latent, clips.motion[row]
        return RapState(
            state.reference,
            history,
            clips.audio[row, -kept:],
            None if motion is None else motion[-kept:],
            state.frames + clips.new[row],
            state.clip + 1,
            state.seed,
        )


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
