"""V and RAP behind one interface: rows of speech features to new latents, block by block, for several streams at once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ditto.errors import InputError
from ditto.latent.codec import Codec
from ditto.latent.config import CodecConfig, FlowConfig, GeneratorConfig
from ditto.latent.flow_network import FlowGenerator
from ditto.latent.flow_sampler import FlowReference, FlowSampler, FlowSampling, FlowState
from ditto.latent.rap_network import RapDenoiser
from ditto.latent.rap_sampler import RapSampler, RapSampling, RapState
from ditto.latent.sampling import Block
from ditto.motion.motion import MOTION_SIZE

R = TypeVar("R")  # what a portrait gives a generator
S = TypeVar("S")  # what a stream remembers


class Generator(Protocol[R, S]):
    """A generator at one latency."""

    def reference(self, codec: Codec, picture: Tensor, latents: Tensor) -> R:
        """What a portrait gives: its picture (1, 3, 1, H, W), and the latents (1, C, M, h, w) of M references, it first."""

    def begin(self, reference: R, seed: int) -> S:
        """The state before a stream's first frame."""

    def go_on(self, state: S, seed: int) -> S:
        """The state with another seed of the noise that comes."""

    def number(self, state: S) -> int:
        """The number of the next block in its stream."""

    def frames(self, number: int) -> int:
        """How many frames a block has, by its number."""

    def place(self, state: S) -> Hashable:
        """Streams at equal places do the same work next, and can be one batch."""

    def generate(
        self, states: Sequence[S], rows: Sequence[Tensor], motion: Sequence[Tensor] | None = None
    ) -> list[Block[S]]:
        """The next block of each of some streams at one place.

        Args:
            rows: for each (frames, features) of the block's frames.
            motion: for each (frames, 70); None: the condition is hidden.
        """


class FlowBlocks:
    """V at one latency. At the paper's sizes a stream's first block has 13 frames, every later one 16."""

    def __init__(self, network: FlowGenerator, sampling: FlowSampling) -> None:
        self.sampler = FlowSampler(network, sampling)

    def reference(self, codec: Codec, picture: Tensor, latents: Tensor) -> FlowReference:
        return self.sampler.reference(codec.normalise(latents)[0])

    def begin(self, reference: FlowReference, seed: int) -> FlowState:
        return self.sampler.begin(reference, seed)

    def go_on(self, state: FlowState, seed: int) -> FlowState:
        return replace(state, seed=seed)

    def number(self, state: FlowState) -> int:
        return state.block

    def frames(self, number: int) -> int:
        config = self.sampler.network.config
        return config.frames(config.block, number == 0)

    def place(self, state: FlowState) -> Hashable:
        return state.block == 0, state.position

    def generate(
        self, states: Sequence[FlowState], rows: Sequence[Tensor], motion: Sequence[Tensor] | None = None
    ) -> list[Block[FlowState]]:
        return self.sampler.generate(states, rows, motion)


@dataclass(frozen=True)
class RapLatency:
    """How RAP generates at one latency.

    Attributes:
        sampling: of every clip.
        first, later: latents of a stream's first clip, and of every later one, which inherits some of them. With 3 of 8
            frames inherited: 3 are 17 frames at first; 5, 8 and 11 are 16, 40 and 64 later.
    """

    sampling: RapSampling
    first: int
    later: int


class RapBlocks:
    """RAP at one latency: a block is what a clip adds.

    Raises:
        InputError: lengths of clips that the network was not made for.
    """

    def __init__(self, network: RapDenoiser, latency: RapLatency) -> None:
        self.sampler, self.latency, config = RapSampler(network, latency.sampling), latency, network.config
        if latency.first not in config.lengths or latency.later not in config.lengths or latency.later <= config.inherited:
            raise InputError(
                f"expected clips of {', '.join(map(str, config.lengths))} latents, later ones of more than "
                f"{config.inherited}, got {latency.first} and {latency.later}; give others"
            )
        self._layers = config.audio_layers
        self._repeats = config.frames(config.reference_latents)

    def reference(self, codec: Codec, picture: Tensor, latents: Tensor) -> Tensor:
        video = picture.expand(-1, -1, self._repeats, -1, -1)
        return self.sampler.reference(codec.normalise(codec.encode(video).mean)[0])

    def begin(self, reference: Tensor, seed: int) -> RapState:
        return self.sampler.begin(reference, seed)

    def go_on(self, state: RapState, seed: int) -> RapState:
        return replace(state, seed=seed)

    def number(self, state: RapState) -> int:
        return state.clip

    def frames(self, number: int) -> int:
        config = self.sampler.network.config
        return config.frames(self.latency.later - config.inherited if number else self.latency.first, number == 0)

    def place(self, state: RapState) -> Hashable:
        config = self.sampler.network.config
        return state.clip == 0, state.frames < config.inherited * config.frames_per_latent

    def generate(
        self, states: Sequence[RapState], rows: Sequence[Tensor], motion: Sequence[Tensor] | None = None
    ) -> list[Block[RapState]]:
        audio = [row.unflatten(1, (self._layers, -1)) for row in rows]
        length = self.latency.later if states[0].clip else self.latency.first
        return self.sampler.generate(states, audio, length, motion)


def check_fit(codec: CodecConfig, generator: GeneratorConfig, size: int, features: int) -> None:
    """Raises InputError unless codec, generator, pictures of `size` pixels and rows of `features` numbers fit together."""
    for what, expected, got in (
        ("latent channels", generator.channels, codec.latent_channels),
        ("frames of a latent", generator.frames_per_latent, codec.time),
        ("pixels of a picture's height", generator.rows * codec.space, size),
        ("pixels of a picture's width", generator.columns * codec.space, size),
        ("numbers of a row of speech", generator.speech_size, features),
    ):
        if expected != got:
            raise InputError(f"expected {expected} {what} for this generator, got {got}; use the parts of one training")


def check_motion(generator: FlowGenerator | RapDenoiser, hears_lite: bool) -> None:
    """Raises InputError unless lite's motion can be the condition of a generator, from the features that the generator hears.

    Lite samples motion for two frames at a time, so blocks have an even number of them, but for the first.
    """
    config, condition = generator.config, generator.motion
    if condition is None or config.motion_features != MOTION_SIZE:
        raise InputError(
            f"expected a generator with a condition of {MOTION_SIZE} numbers of motion, got {config.motion_features}; "
            "train it with --motion, or leave motion out"
        )
    if not condition.output.weight.any():
        raise InputError("expected a trained condition on motion, got zeros; train it with --motion, or leave motion out")
    if not hears_lite:
        raise InputError("expected lite's speech encoder beside lite's motion, got another one; leave motion out")
    frames = config.frames_per_latent * (config.block if isinstance(config, FlowConfig) else 1)
    if frames % 2:
        raise InputError(f"expected blocks of an even number of frames for lite's motion, got {frames}; leave motion out")


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in a value made of tuples, lists and dataclasses, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in tensors_of(item)]
    if hasattr(value, "__dataclass_fields__"):
        return [tensor for name in value.__dataclass_fields__ for tensor in tensors_of(getattr(value, name))]
    return []


def same_bits(some: Any, others: Any) -> bool:
    """Whether all tensors of two values are equal."""
    pairs = zip(tensors_of(some), tensors_of(others), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)
