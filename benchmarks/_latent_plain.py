"""V and RAP for the benchmarks: networks of every size with random weights, and their algorithms without what ditto keeps.

`PlainFlow` and `PlainRap` give what the samplers give, from the networks' own layers, but keep no keys and values: V runs all
tokens of the window at every step, under the mask of training; RAP listens to the speech anew at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ditto.latent.codec import Codec
from ditto.latent.config import (
    CODEC_PAPER,
    CODEC_RAP_PAPER,
    CODEC_RAP_SMALL,
    CODEC_SMALL,
    CODEC_TINY,
    FLOW_PAPER,
    FLOW_SMALL,
    FLOW_TINY,
    RAP_PAPER,
    RAP_SMALL,
    RAP_TINY,
    CodecConfig,
    FlowConfig,
    Level,
    RapConfig,
)
from ditto.latent.flow_network import FlowGenerator, teacher_mask
from ditto.latent.flow_sampler import NO_AUDIO, NO_REFERENCE, FlowSampler
from ditto.latent.rap_network import RapDenoiser, RapInputs
from ditto.latent.rap_sampler import RapSampler
from ditto.latent.schedule import Branches, euler_step, guided_velocity, seeded_noise
from ditto.latent.tokens import from_tokens, to_tokens

N = TypeVar("N", bound=nn.Module)

FEATURES = 368  # of a frame of lite's speech encoder
TINY, SMALL, PAPER = "tiny", "small", "paper"
_TINY_RAP_CODEC = replace(
    CODEC_TINY,
    features=(Level(16, time=2), Level(16, time=2), Level(16, time=2, space=1)),
    draw=(Level(16, time=2, space=1), Level(8, time=2), Level(8, time=2)),
)
V_SIZES: dict[str, tuple[FlowConfig, CodecConfig]] = {
    TINY: (replace(FLOW_TINY, channels=4, audio_features=FEATURES, motion_features=0), CODEC_TINY),
    SMALL: (FLOW_SMALL, CODEC_SMALL),
    PAPER: (FLOW_PAPER, CODEC_PAPER),
}
RAP_SIZES: dict[str, tuple[RapConfig, CodecConfig]] = {
    TINY: (replace(RAP_TINY, channels=4, audio_features=FEATURES, audio_layers=1, motion_features=0), _TINY_RAP_CODEC),
    SMALL: (RAP_SMALL, CODEC_RAP_SMALL),
    PAPER: (RAP_PAPER, CODEC_RAP_PAPER),
}


class Networks(NamedTuple):
    """A generator and its codec."""

    generator: FlowGenerator | RapDenoiser
    codec: Codec


def random_network(make: Callable[[], N], seed: int) -> N:
    """The network that `make` makes, always the same; what begins with zeros gets random numbers, so that all layers act."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = make().eval()
        for values in network.parameters():
            if not values.any():
                values += 0.05 * torch.randn(values.shape)
    return network


def random_networks(system: str, size: str) -> Networks:
    """Of "v" or "rap", tiny or small."""
    if system == "v":
        flow, codec = V_SIZES[size]
        return Networks(random_network(lambda: FlowGenerator(flow), 1), random_network(lambda: Codec(codec), 0))
    rap, codec = RAP_SIZES[size]
    return Networks(random_network(lambda: RapDenoiser(rap), 1), random_network(lambda: Codec(codec), 0))


class PlainFlow:
    """V's first window without caches, for one reference.

    The modulations are computed once, as `FlowSampler` does.
    """

    def __init__(self, sampler: FlowSampler) -> None:
        self.sampler, network = sampler, sampler.network
        levels = [torch.tensor([[0.0, sampler.sampling.context_time, t]]) for t in sampler.times[:-1]]
        with torch.no_grad():
            self._modulations = [network.modulations(level) for level in levels]

    @torch.no_grad()
    def generate(self, latents: Tensor, audio: Sequence[Tensor], seed: int) -> Tensor:
        """The latents (C, k blocks, h, w) of the first blocks of a stream.

        Args:
            latents: (C, 1, h, w) of the reference.
            audio: rows (frames, F) of each block.
        """
        network, config, sampling = self.sampler.network, self.sampler.network.config, self.sampler.sampling
        reference = network.reference_tokens(to_tokens(latents[None], config.patch))
        null = network.null_reference.expand_as(reference)
        past = torch.empty(1, 0, config.tokens, config.token_size)
        for number, rows in enumerate(audio):
            first = torch.tensor([number == 0])
            missing = config.block * config.frames_per_latent - len(rows)
            heard = torch.cat([rows.new_zeros(missing, rows.shape[1]), rows])[None]
            speech = [network.speech(heard, first, torch.tensor([hide])) for hide in (False, True)]
            count = past.shape[1]
            context = network.context_tokens(past, torch.tensor([True])) if count else past.new_empty(1, 0, config.width)
            groups = [config.tokens, count * config.tokens, config.block * config.tokens]
            modulations = [one.for_tokens(groups) for one in self._modulations]
            places = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.arange(count + config.block)])
            mask = teacher_mask(1, count + config.block, config.block, config.tokens)
            kept = torch.cat([torch.arange(sum(groups[:2])), torch.arange(len(mask) - groups[2], len(mask))])
            mask, rotation, new = mask[kept][:, kept], network.rotation(places), groups[2]
            noise = seeded_noise(seed, number, (config.channels, config.block, config.rows, config.columns))
            x = to_tokens(noise[None], config.patch)
            for step, t in enumerate(self.sampler.times[:-1]):

                def forward(branches: Branches, step: int = step, x: Tensor = x) -> Tensor:
                    batch = len(branches)
                    noisy = network.noisy_tokens(
                        x.repeat(batch, 1, 1, 1),
                        torch.cat([speech[branch == NO_AUDIO] for branch in branches]),  # noqa: B023
                        None,
                        first.repeat(batch),  # noqa: B023
                    )
                    seen = torch.cat([null if branch == NO_REFERENCE else reference for branch in branches])
                    tokens = torch.cat([seen, context.repeat(batch, 1, 1), noisy], 1)  # noqa: B023
                    found = network.transform(tokens, modulations[step], rotation, mask, None)[:, -new:]  # noqa: B023
                    return network.velocity(found, modulations[step].head[:, -new:]).reshape(batch, *x.shape)  # noqa: B023

                velocity = guided_velocity(forward, [sampling.audio, sampling.reference], t, sampling.rescale)
                x = euler_step(x, velocity, t, self.sampler.times[step + 1])
            past = torch.cat([past, x], 1)
        made = from_tokens(past, config.patch, config.rows, config.columns)
        return network.units.decode(made, latents[None])[0]


class PlainRap:
    """RAP's clips from whole forward passes."""

    def __init__(self, sampler: RapSampler) -> None:
        self.sampler = sampler

    @torch.no_grad()
    def generate(self, latents: Tensor, audio: Sequence[Tensor], seed: int, lengths: Sequence[int]) -> Tensor:
        """The new latents (C, T, h, w) of the first clips of a stream.

        Args:
            latents: (C, T, h, w) of the reference repeated in time.
            audio: rows (frames, N, A) of each clip's new frames.
            lengths: latents of each clip, with those it inherits.
        """
        network, config, sampling = self.sampler.network, self.sampler.network.config, self.sampler.sampling
        tail, frames = config.inherited, config.frames_per_latent
        made, before, past, shown = [], [torch.empty(0)], torch.empty(0), 0
        for number, (rows, length) in enumerate(zip(audio, lengths, strict=True)):
            begins = shown < tail * frames
            heard = torch.cat([past if number else rows[:1].expand(frames - 1, -1, -1), rows])[None]
            past, shown = heard[0, -tail * frames :], shown + len(rows)
            reference = (latents[:, :length] if begins else latents[:, -length:])[None]
            x = seeded_noise(seed, number, (config.channels, length, config.rows, config.columns))[None]
            history = []
            for step, t in enumerate(self.sampler.times[:-1]):
                if number:
                    x = torch.cat([before[step], x[:, :, tail:]], 2)
                history.append(x[:, :, -tail:])

                def forward(branches: Branches, t: float = t, x: Tensor = x) -> Tensor:
                    batch = len(branches)
                    inputs = RapInputs(
                        x.repeat(batch, 1, 1, 1, 1),
                        torch.full((1,), t),
                        reference.repeat(batch, 1, 1, 1, 1),  # noqa: B023
                        torch.tensor([begins] * batch),  # noqa: B023
                        heard.repeat(batch, 1, 1, 1),  # noqa: B023
                        torch.tensor([branch == NO_AUDIO for branch in branches]),
                    )
                    found: Tensor = network(inputs)
                    return found.reshape(batch, *x.shape)

                velocity = guided_velocity(forward, [sampling.audio], t, sampling.rescale)
                x = euler_step(x, velocity, t, self.sampler.times[step + 1])
            before = history
            made.append(network.units.decode(x, reference)[0, :, tail if number else 0 :])
        return torch.cat(made, 1)
