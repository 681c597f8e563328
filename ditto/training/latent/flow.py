"""Train V's generator on clips, as latents of a trained codec.

Teacher forcing: all blocks of a window at once, each from the true past with some noise.

Source: V (arXiv:2606.01620), algorithm 1. What the paper leaves open is marked as ours.
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
from ditto.latent.config import FLOW_FACE, FLOW_PAPER, FLOW_SMALL, FlowConfig
from ditto.latent.flow_network import FlowGenerator, FlowInputs
from ditto.latent.flow_sampler import FlowSampler, FlowSampling
from ditto.latent.schedule import Guidance, noised
from ditto.training.latent.generator import GeneratorRecipe, GeneratorSystem, check_features
from ditto.training.latent.latents import SMALLEST_MOVE, LatentClip, measure_features, measure_units
from ditto.training.latent.loop import Objective, Stage, Terms

SHOWN = FlowSampling(steps=4, shift=3.0, audio=Guidance(), reference=Guidance())  # of pictures for TensorBoard
SHOWN_BLOCKS = 2


@dataclass(frozen=True)
class FlowRecipe(GeneratorRecipe):
    """The numbers of one run, besides its data and seed.

    Attributes:
        first: share of windows that begin with the video.
        references: a window sees 1 to this many.
        portrait: share of windows whose first reference is the portrait, not a frame of the clip; ours.
        time_mean, time_spread: noise levels are sigmoid of a normal with these; one for each block (ours).
        context_time: largest noise level of the past, one for each block (ours).
    """

    config: FlowConfig
    _: KW_ONLY
    first: float = 0.3
    references: int = 3
    portrait: float = 0.4
    time_mean: float = 0.0
    time_spread: float = 1.0
    context_time: float = 0.7
    weight_decay: float = 0.01

    counts = (*GeneratorRecipe.counts, "references")
    shares = (*GeneratorRecipe.shares, "first", "portrait", "context_time")


# `paper`: batch 256 on 128 processes, 250 000 updates; optimizer and rate are ours. `small`: 12.5 CPU minutes gave lips that
# follow lite's with r .86 (small_recipe).
PRESETS: Mapping[str, FlowRecipe] = MappingProxyType(
    {
        "small": FlowRecipe(
            FLOW_SMALL, (Stage(1020, 2e-3, warmup=50),), 16, references=1, time_mean=0.3, optimizer="muon", average=0.995,
            weight_decay=0.0, checkpoint_every=50,
        ),
        "face": FlowRecipe(
            FLOW_FACE, (Stage(1400, 2e-3, warmup=50),), 10, references=1, time_mean=0.3, optimizer="muon", average=0.995,
            weight_decay=0.0, checkpoint_every=50,
        ),
        "paper": FlowRecipe(FLOW_PAPER, (Stage(250_000, 1e-4, final_rate=1.0, warmup=1000),), 2),
    }
)  # fmt: skip


class FlowBatch(NamedTuple):
    """Windows of clips, and all randomness of their loss.

    Attributes:
        clips: their names.
        latents: (B, C, N, h, w) of the codec.
        noise, context_noise: (B, C, N, h, w).
        given: what else the generator gets; its noisy and context latents are the objective's to make.
    """

    clips: tuple[str, ...]
    latents: Tensor
    noise: Tensor
    context_noise: Tensor
    given: FlowInputs


class FlowObjective(Objective):
    """Mean square error of the velocities of noisy blocks: `noise - x_0` (V, algorithm 1)."""

    network: FlowGenerator

    def __init__(self, network: FlowGenerator) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: FlowBatch) -> Terms:
        network, given = self.network, batch.given
        x0 = network.units.encode(batch.latents, given.references[:, :, :1])
        block = network.config.block

        def per_latent(levels: Tensor) -> Tensor:
            return levels.repeat_interleave(block, 1)[:, None, :, None, None]

        inputs = given._replace(
            noisy=noised(x0, batch.noise, per_latent(given.time)),
            context=noised(x0, batch.context_noise, per_latent(given.context_time)),
        )
        errors = (network(inputs).float() - (batch.noise - x0)).square().flatten(1).mean(1)
        return Terms(errors, {})


class FlowDraw:
    """The windows of an update, by its number.

    Raises:
        InputError: no clip as long as a window.
    """

    def __init__(self, clips: Sequence[LatentClip], recipe: FlowRecipe, seed: int) -> None:
        self._clips = [clip for clip in recipe.usable(clips) if clip.latents.shape[1] >= recipe.config.window]
        self._recipe, self._seed = recipe, seed
        if not self._clips:
            raise InputError(f"expected clips of {recipe.config.window} latents or more, got none; render longer ones")

    def __call__(self, step: int, rank: int) -> FlowBatch:
        recipe, config = self._recipe, self._recipe.config
        random = np.random.default_rng((self._seed, step, rank))
        torch_random = torch.Generator().manual_seed(int(random.integers(2**62)))
        batch, blocks = recipe.batch, config.window // config.block
        names, latents, references, audio, motion, first, edited = [], [], [], [], [], [], []
        for _ in range(batch):
            clip = self._clips[random.integers(len(self._clips))]
            last = clip.latents.shape[1] - config.window
            begins = last == 0 or random.random() < recipe.first
            start = 0 if begins else int(random.integers(1, last + 1))
            chosen = random.permutation(np.arange(1, clip.references.shape[1]))[: recipe.references]
            if random.random() < recipe.portrait or len(chosen) < recipe.references:
                chosen = np.concatenate([[0], chosen])[: recipe.references]
            names.append(clip.name)
            latents.append(clip.latents[:, start : start + config.window])
            references.append(clip.references[:, chosen])
            audio.append(_rows(clip.audio, start, config))
            motion.append(_rows(clip.motion, start, config))
            first.append(start == 0)
            edited.append(clip.edited)
        shape = (batch, config.channels, config.window, config.rows, config.columns)
        noise, context_noise = (torch.randn(shape, generator=torch_random) for _ in range(2))
        normal = torch.randn(batch, blocks, generator=torch_random)
        hidden = torch.rand(3, batch, generator=torch_random)
        given = FlowInputs(
            noisy=torch.empty(0),
            context=torch.empty(0),
            time=(recipe.time_mean + recipe.time_spread * normal).sigmoid(),
            context_time=recipe.context_time * torch.rand(batch, blocks, generator=torch_random),
            references=torch.stack(references),
            reference_count=torch.from_numpy(random.integers(1, len(chosen) + 1, batch)),
            first=torch.tensor(first),
            audio=torch.stack(audio).float(),
            hide_audio=hidden[0] < recipe.hide,
            hide_references=hidden[1] < recipe.hide,
            motion=torch.stack(motion) if recipe.shows_motion else None,
            hide_motion=(hidden[2] < recipe.hide_motion) & ~torch.tensor(edited) if recipe.shows_motion else None,
        )
        return FlowBatch(tuple(names), torch.stack(latents), noise, context_noise, given)


def _rows(frames: Tensor, start: int, config: FlowConfig) -> Tensor:
    """Rows of the frames of a window that starts at a latent, (N * r, ...). Latent j >= 1 has frames r j - r + 1 to r j."""
    count = config.frames_per_latent
    first = count * start - count + 1
    rows = frames[max(first, 0) : count * (start + config.window) - count + 1]
    return torch.cat([rows[:1].expand(max(-first, 0), -1), rows])


def new_flow(config: FlowConfig, clips: Sequence[LatentClip], features: int | None = None) -> FlowGenerator:
    """A generator in the units of these clips; `features` as `check_features`.

    Raises:
        InputError: speech or motion features of other sizes than the config's.
    """
    check_features(config, clips, features)
    network = FlowGenerator(config)
    measure_units(network.units, clips, lambda clip: clip.references[:, :1])
    if features is None:
        measure_features(network.audio.units, [clip.audio for clip in clips])
    if network.motion is not None:
        measure_features(network.motion.embedder.units, [clip.motion for clip in clips], SMALLEST_MOVE)
    return network


def sample_flow(network: FlowGenerator, clip: LatentClip) -> Tensor:
    """The first blocks of a clip from its speech and the portrait, (C, T, h, w)."""
    sampler = FlowSampler(network, SHOWN)
    state, made, start = sampler.begin(sampler.reference(clip.references[:, :1]), 0), [], 0
    for _ in range(SHOWN_BLOCKS):
        end = start + sampler.frames(state)
        (block,) = sampler.generate([state], [clip.audio[start:end].float()])
        made.append(block.latents)
        state, start = block.state, end
    return torch.cat(made, 1)


FLOW = GeneratorSystem(
    "flow",
    PRESETS,
    piece=lambda recipe: None,
    new=lambda recipe, clips, features: new_flow(recipe.config, clips, features),
    objective=lambda network, recipe: FlowObjective(network),
    draw=FlowDraw,
    stacks=False,
    shown=lambda recipe: SHOWN_BLOCKS * recipe.config.block,
    sample=sample_flow,
)
