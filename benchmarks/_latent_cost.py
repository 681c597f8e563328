"""What V and RAP cost at any size, without running them: the systems' own code on meta tensors, `benchmarks/_roofline.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks._roofline import A800, CPU, H100, RTX_4090, Device, Work, counted, seconds
from ditto.latent import flow_sampler, rap_sampler
from ditto.latent.attention import Cache
from ditto.latent.codec import Codec, References
from ditto.latent.config import CodecConfig, FlowConfig, RapConfig
from ditto.latent.flow_network import FlowGenerator
from ditto.latent.flow_sampler import FlowSampler, FlowSampling, FlowState
from ditto.latent.layers import StreamState
from ditto.latent.rap_network import RapDenoiser
from ditto.latent.rap_sampler import RapSampler, RapSampling, RapState
from ditto.latent.schedule import Branches, Guidance, combine

FPS = 25
DEVICES = (H100, RTX_4090, A800, CPU)
AUDIO_LEVELS, REFERENCE_LEVELS = (0.3, 0.98), (0.7, 0.98)  # of noise, at which a branch is computed with intervals: to try
ONE_BY_ONE, BATCHED, INTERVALS = "branches one by one", "branches batched", "guidance within intervals"


def one_by_one(
    forward: Callable[[Branches], Tensor], guidances: Sequence[Guidance], t: float, rescale: float = 0.0
) -> Tensor:
    """`ditto.latent.schedule.guided_velocity` with a forward pass for each branch."""
    active = [i for i, guidance in enumerate(guidances) if guidance.active(t)]
    velocities = [forward((branch,))[0] for branch in (0, *(i + 1 for i in active))]
    return combine(velocities[0], velocities[1:], [guidances[i].scale for i in active], rescale)


@contextmanager
def unbatched() -> Iterator[None]:
    """Inside it, both samplers run the branches of guidance one after another."""
    name = "guided_velocity"
    with patch.object(flow_sampler, name, one_by_one), patch.object(rap_sampler, name, one_by_one):
        yield


@dataclass(frozen=True)
class Cost:
    """Of one system at one size.

    Attributes:
        name: of the system.
        frames: of a later block.
        parameters: by network.
        generate: by way, a later block of the generator; V's with the most context.
        decode, encode: frames of a later block, through the codec.
        state: numbers that a stream remembers, by network.
    """

    name: str
    frames: int
    parameters: dict[str, int]
    generate: dict[str, Work]
    decode: Work
    encode: Work
    state: dict[str, int]


def _on_meta(make: Callable[[], nn.Module]) -> Any:
    with torch.device("meta"):
        return make().eval()


def _size(*networks: nn.Module) -> int:
    return sum(values.numel() for network in networks for values in network.parameters())


def _codec_cost(codec: Codec, latents: int, rows: int, columns: int) -> tuple[Work, Work, int, References]:
    """Work of decoding and encoding later latents, numbers of the decoder's state, and references of one picture."""
    config = codec.config
    empty = torch.empty(1, 3, 1, rows * config.space, columns * config.space, device="meta")
    with torch.no_grad():
        references = codec.references(empty)
        code = empty.new_empty(1, config.latent_channels, latents, rows, columns)
        _, decoder = codec.decode_stream(code[:, :, :1], StreamState(), references)
        _, encoder = codec.encode_stream(empty, StreamState())
    video = empty.expand(-1, -1, latents * config.time, -1, -1)
    (_, decoder), decode = counted(lambda: codec.decode_stream(code, decoder, references))
    _, encode = counted(lambda: codec.encode_stream(video, encoder))
    return decode, encode, decoder.nbytes // 4, references


def late_block(sampler: FlowSampler, latents: Tensor) -> tuple[FlowState, Tensor]:
    """A stream before the last block of a window, which sees the longest context (zeros here), and zeros for its speech.

    Args:
        latents: (C, M, h, w) of the references.
    """
    config = sampler.network.config
    state, position = sampler.begin(sampler.reference(latents), 0), config.window - config.block
    full, null = (
        cache and Cache(cache.buffers, cache.length + position * config.tokens) for cache in (state.full, state.null)
    )
    assert full is not None
    state = replace(state, full=full, null=null, position=position, block=position // config.block)
    return state, latents.new_zeros(config.block * config.frames_per_latent, config.audio_features)


def late_clip(sampler: RapSampler, latents: Tensor) -> tuple[RapState, Tensor]:
    """A stream after a clip of the longest length, and zeros for the speech of another.

    Args:
        latents: (C, 1, h, w) of the reference; here all of its latents are the same.
    """
    config = sampler.network.config
    state = sampler.begin(latents.expand(-1, config.reference_latents, -1, -1), 0)
    frames = (config.lengths[-1] - config.inherited) * config.frames_per_latent
    audio = latents.new_zeros(frames, config.audio_layers, config.audio_features)
    return replace(state, clip=1, frames=(config.lengths[-1] - 1) * config.frames_per_latent + 1), audio


def v_cost(config: FlowConfig, codec_config: CodecConfig) -> Cost:
    """V as the paper samples it: the last block of a window, which also begins the next window."""
    network, codec = _on_meta(lambda: FlowGenerator(config)), _on_meta(lambda: Codec(codec_config))
    decode, encode, kept, references = _codec_cost(codec, config.block, config.rows, config.columns)

    def generate(sampling: FlowSampling) -> tuple[FlowState, Work]:
        sampler = FlowSampler(network, sampling)
        state, audio = late_block(sampler, references.latents[0])
        return state, counted(lambda: sampler.generate([state], [audio]))[1]

    paper = FlowSampling()
    (low, high), (low_reference, high_reference) = AUDIO_LEVELS, REFERENCE_LEVELS
    late = replace(
        paper,
        audio=replace(paper.audio, low=low, high=high),
        reference=replace(paper.reference, low=low_reference, high=high_reference),
    )
    state, batched = generate(paper)
    with unbatched():
        ways = {ONE_BY_ONE: generate(paper)[1], BATCHED: batched}
    ways[INTERVALS] = generate(late)[1]
    sizes = {"generator": _size(network), "encoder": _size(codec.encoder), "decoder": _size(codec.decoder)}
    frames = config.block * config.frames_per_latent
    return Cost("V", frames, sizes, ways, decode, encode, {"generator": state.bytes // 4, "decoder": kept})


def rap_cost(config: RapConfig, codec_config: CodecConfig) -> Cost:
    """RAP: a later clip of the longest length. Steps and codec are ours; the inherited latents are decoded once."""
    network, codec = _on_meta(lambda: RapDenoiser(config)), _on_meta(lambda: Codec(codec_config))
    new = config.lengths[-1] - config.inherited
    decode, encode, kept, references = _codec_cost(codec, new, config.rows, config.columns)

    def generate(sampling: RapSampling) -> tuple[RapState, Work]:
        sampler = RapSampler(network, sampling)
        state, audio = late_clip(sampler, references.latents[0])
        return state, counted(lambda: sampler.generate([state], [audio], config.lengths[-1]))[1]

    paper, (low, high) = RapSampling(), AUDIO_LEVELS
    state, batched = generate(paper)
    with unbatched():
        ways = {ONE_BY_ONE: generate(paper)[1], BATCHED: batched}
    ways[INTERVALS] = generate(replace(paper, audio=replace(paper.audio, low=low, high=high)))[1]
    sizes = {"denoiser": _size(network), "encoder": _size(codec.encoder), "decoder": _size(codec.decoder)}
    frames = new * config.frames_per_latent
    return Cost("RAP", frames, sizes, ways, decode, encode, {"denoiser": state.bytes // 4, "decoder": kept})


PAPER_SECONDS = {("V", H100.name): 0.378, ("V", RTX_4090.name): 16 / 23.3, ("RAP", A800.name): 64 / 42.4}  # seconds a block
WAYS = {  # what is predicted: the way of the generator, and whether CUDA graphs run
    "branches one by one": (ONE_BY_ONE, False),
    "branches batched": (BATCHED, False),
    "and CUDA graphs": (BATCHED, True),
    "and guidance within intervals": (INTERVALS, True),
}


def predicted(cost: Cost, device: Device) -> dict[str, float]:
    """Seconds of a later block, generator and decoder, by way; a CPU has no CUDA graphs."""
    return {
        name: seconds(cost.generate[way], device, graph) + seconds(cost.decode, device, graph)
        for name, (way, graph) in WAYS.items()
        if device.processors or name != "and CUDA graphs"
    }
