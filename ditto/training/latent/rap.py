"""Train RAP's denoiser on clips, as latents of a trained codec.

Static-dynamic training: a piece of video is coded from its first frame on, whose latent is one frame. Half of the clips are
its first latents, half its last, which all have as many frames; so the network learns to begin and to go on.

Source: RAP (arXiv:2508.05115), training and losses. What the paper leaves open is marked as ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ditto.errors import InputError
from ditto.latent.config import RAP_FACE, RAP_PAPER, RAP_SMALL, RapConfig
from ditto.latent.rap_network import RapDenoiser, RapInputs
from ditto.latent.rap_sampler import RapSampler, RapSampling
from ditto.latent.schedule import Guidance, noised
from ditto.training.latent.generator import GeneratorRecipe, GeneratorSystem, check_features
from ditto.training.latent.latents import SMALLEST_MOVE, LatentClip, measure_features, measure_units
from ditto.training.latent.loop import Objective, Stage, Terms

SHOWN = RapSampling(steps=4, shift=3.0, audio=Guidance())  # of pictures for TensorBoard


@dataclass(frozen=True)
class RapRecipe(GeneratorRecipe):
    """The numbers of one run, besides its data and seed. A window is a clip of latents.

    Attributes:
        dynamic: share of clips that are the last latents of a piece.
        longest: share of updates with the longest clips; the others have one of the shorter lengths (ours).
        face: lambda, weight of the error in the face; the paper gives no number.
        temporal: mu, weight of the error of differences of neighbouring latents; the paper gives no number.
    """

    config: RapConfig
    _: KW_ONLY
    dynamic: float = 0.5
    longest: float = 0.5
    face: float = 1.0
    temporal: float = 0.5

    shares = (*GeneratorRecipe.shares, "dynamic", "longest")


# `paper`: batch 4 on 32 processes, Adam at 1e-5 from Wan's weights; from new ones 1e-4 (ours). It does not say how long.
PRESETS: Mapping[str, RapRecipe] = MappingProxyType(
    {
        "small": RapRecipe(
            RAP_SMALL, (Stage(1500, 2e-3, warmup=50),), 16, optimizer="muon", average=0.995, checkpoint_every=50
        ),
        "face": RapRecipe(
            RAP_FACE, (Stage(1500, 2e-3, warmup=50),), 16, variety=0.75, optimizer="muon", average=0.995,
            checkpoint_every=50,
        ),
        "paper": RapRecipe(RAP_PAPER, (Stage(250_000, 1e-4, final_rate=1.0, warmup=1000),), 4),
    }
)


class RapBatch(NamedTuple):
    """Clips, and all randomness of their loss.

    Attributes:
        clips: names of the pieces' clips.
        latents, noise: (B, C, F, h, w), latents of the codec.
        mask: (B, 1, F, h, w) share of the positions that shows the face.
        given: what else the denoiser gets; its noisy latents are the objective's to make.
    """

    clips: tuple[str, ...]
    latents: Tensor
    noise: Tensor
    mask: Tensor
    given: RapInputs


def rap_losses(velocity: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean square errors of velocities (B, C, F, h, w): of all, of the face (`mask` times the error), and of the differences
    of neighbouring latents; (B,) each.

    Source: RAP (arXiv:2508.05115), losses.
    """
    error = velocity - target

    def mean(values: Tensor) -> Tensor:
        return values.square().flatten(1).mean(1)

    return mean(error), mean(mask * error), mean(error.diff(dim=2))


class RapObjective(Objective):
    """RAP's loss: error of the velocity, of that in the face, and of its change in time."""

    network: RapDenoiser

    def __init__(self, network: RapDenoiser, recipe: RapRecipe) -> None:
        super().__init__()
        self.network, self._recipe = network, recipe

    def forward(self, batch: RapBatch) -> Terms:
        network, given = self.network, batch.given
        x0 = network.units.encode(batch.latents, given.reference)
        inputs = given._replace(noisy=noised(x0, batch.noise, given.time[:, None, None, None, None]))
        all_, face, temporal = rap_losses(network(inputs).float(), batch.noise - x0, batch.mask)
        losses = all_ + self._recipe.face * face + self._recipe.temporal * temporal
        return Terms(losses, {"velocity": all_.mean(), "face": face.mean(), "temporal": temporal.mean()})


class RapDraw:
    """The clips of an update, by its number.

    Raises:
        InputError: no piece of as many latents as the reference has.
    """

    def __init__(self, clips: Sequence[LatentClip], recipe: RapRecipe, seed: int) -> None:
        length = recipe.config.reference_latents
        self._clips = [clip for clip in recipe.usable(clips) if clip.latents.shape[1] == length]
        self._recipe, self._seed = recipe, seed
        if not self._clips:
            raise InputError(f"expected pieces of {length} latents, got none; encode pieces of that length")

    def __call__(self, step: int, rank: int) -> RapBatch:
        recipe, config = self._recipe, self._recipe.config
        alike = np.random.default_rng((self._seed, step))  # all processes have clips of one length
        shorter = config.lengths[:-1]
        is_longest = not shorter or alike.random() < recipe.longest
        length = config.lengths[-1] if is_longest else shorter[alike.integers(len(shorter))]
        random = np.random.default_rng((self._seed, step, rank))
        torch_random = torch.Generator().manual_seed(int(random.integers(2**62)))
        pieces = [self._clips[random.integers(len(self._clips))] for _ in range(recipe.batch)]
        edited = torch.tensor([piece.edited for piece in pieces])
        dynamic = (random.random(recipe.batch) < recipe.dynamic).tolist()
        frames = length * config.frames_per_latent
        shape = (recipe.batch, config.channels, length, config.rows, config.columns)
        noise = torch.randn(shape, generator=torch_random)
        time, hidden, hidden_motion = torch.rand(3, recipe.batch, generator=torch_random)

        def cut(name: str, count: int, axis: int, padding: int = 0) -> Tensor:
            rows = []
            for piece, last in zip(pieces, dynamic, strict=True):
                values: Tensor = getattr(piece, name)
                if padding:  # in place of those that the first latent, of one frame, lacks
                    values = torch.cat([values[:1].expand(padding, -1), values])
                rows.append(values.narrow(axis, values.shape[axis] - count if last else 0, count))
            return torch.stack(rows)

        lacking = config.frames_per_latent - 1
        given = RapInputs(
            noisy=torch.empty(0),
            time=time,
            reference=cut("repeated", length, 1),
            static=~torch.tensor(dynamic),
            audio=cut("audio", frames, 0, lacking).float().unflatten(2, (config.audio_layers, -1)),
            hide_audio=hidden < recipe.hide,
            motion=cut("motion", frames, 0, lacking) if recipe.shows_motion else None,
            hide_motion=(hidden_motion < recipe.hide_motion) & ~edited if recipe.shows_motion else None,
        )
        names = tuple(piece.name for piece in pieces)
        return RapBatch(names, cut("latents", length, 1), noise, cut("mask", length, 0)[:, None], given)


def new_rap(config: RapConfig, clips: Sequence[LatentClip], features: int | None = None) -> RapDenoiser:
    """A denoiser in the units of these clips; `features` as `check_features`.

    Raises:
        InputError: speech or motion features of other sizes than the config's.
    """
    check_features(config, clips, features)
    network = RapDenoiser(config)
    measure_units(network.units, clips, lambda clip: clip.repeated)
    if features is None:
        measure_features(network.audio_units, [clip.audio for clip in clips])
    if network.motion is not None:
        measure_features(network.motion.embedder.units, [clip.motion for clip in clips], SMALLEST_MOVE)
    return network


def sample_rap(network: RapDenoiser, clip: LatentClip) -> Tensor:
    """The first of the longest clips of a piece from its speech and the portrait, (C, F, h, w)."""
    sampler, length = RapSampler(network, SHOWN), network.config.lengths[-1]
    state = sampler.begin(sampler.reference(clip.repeated), 0)
    heard = clip.audio[: sampler.frames(state, length)].float().unflatten(1, (network.config.audio_layers, -1))
    (made,) = sampler.generate([state], [heard], length)
    return made.latents


RAP = GeneratorSystem(
    "rap",
    PRESETS,
    piece=lambda recipe: recipe.config.reference_latents,
    new=lambda recipe, clips, features: new_rap(recipe.config, clips, features),
    objective=RapObjective,
    draw=RapDraw,
    stacks=True,
    shown=lambda recipe: recipe.config.reference_latents,
    sample=sample_rap,
)
