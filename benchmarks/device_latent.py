"""V and RAP on a device, for `benchmarks.device`: checked at small size against CPU float32, timed at the papers' size.

Beside the times stand what `benchmarks/_latent_cost.py` predicts and what the papers say. Steps and guidance are the papers';
RAP's codec is ours, as its denoiser runs here without LTX-Video's.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from benchmarks._device_report import FLOAT32, HALF, Report, distance, milliseconds, spread
from benchmarks._latent_cost import (
    DEVICES,
    FPS,
    PAPER_SECONDS,
    late_block,
    late_clip,
    predicted,
    rap_cost,
    unbatched,
    v_cost,
)
from benchmarks._latent_plain import PAPER, RAP_SIZES, SMALL, TINY, V_SIZES, Networks, random_networks
from benchmarks._roofline import H200
from ditto.engines.torch_engine import exact_math, store_reduced
from ditto.latent.codec import Codec, References
from ditto.latent.flow_network import FlowGenerator
from ditto.latent.flow_sampler import NO_AUDIO, NO_REFERENCE, FlowSampler, FlowSampling
from ditto.latent.generators import FlowBlocks, RapBlocks, RapLatency, same_bits
from ditto.latent.layers import StreamState
from ditto.latent.rap_network import RapDenoiser
from ditto.latent.rap_sampler import RapSampler, RapSampling
from ditto.latent.schedule import Guidance

N = TypeVar("N", bound=nn.Module)

V, RAP = "V", "RAP"
FRAMES = {V: 16, RAP: 64}  # of a later block, at every size
BATCHED_EAGER = "branches batched"  # of `_latent_cost.WAYS`
WARM_UPS = 3  # before a CUDA graph is captured, as of `ditto.engines.torch_engine`


@contextlib.contextmanager
def precise(device: torch.device, half: bool) -> Iterator[None]:
    """Float32 as it is written, or autocast to bfloat16 over weights that `store_reduced` has stored so."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(exact_math())
        if half:
            stack.enter_context(torch.autocast(device.type, torch.bfloat16, cache_enabled=False))
        yield


class Stream(NamedTuple):
    """The first two blocks of a stream: the generator's latents, and the codec's video of them."""

    latents: Tensor
    video: Tensor


def first_blocks(networks: Networks, device: torch.device, guided: bool) -> Stream:
    """Of one seed. `guided`: the papers' sampling; else one step without guidance, which shows the network's own error."""
    generator, codec = networks
    blocks: Any
    if isinstance(generator, FlowGenerator):
        one = FlowSampling(steps=1, audio=Guidance(), reference=Guidance())
        blocks, features = FlowBlocks(generator, FlowSampling() if guided else one), generator.config.audio_features
    else:
        sampling = RapSampling() if guided else RapSampling(steps=1, audio=Guidance())
        blocks = RapBlocks(generator, RapLatency(sampling, *generator.config.lengths[:2]))
        features = generator.config.audio_layers * generator.config.audio_features
    draw, side = torch.Generator().manual_seed(0), generator.config.rows * codec.config.space
    picture = (torch.rand(1, 3, 1, side, side, generator=draw) * 2 - 1).to(device)
    references = codec.references(picture)
    state, decoder = blocks.begin(blocks.reference(codec, picture, references.latents), 0), StreamState()
    latents, video = [], []
    for number in range(2):
        rows = torch.randn(blocks.frames(number), features, generator=draw).to(device)
        (block,) = blocks.generate([state], [rows])
        made, state = block.latents, block.state
        frames, decoder = codec.decode_stream(codec.denormalise(made[None].float()), decoder, references)
        latents.append(made)
        video.append(frames)
    return Stream(torch.cat(latents, 1), torch.cat(video, 2))


def check_latent(report: Report, name: str, size: str, device: torch.device) -> None:
    """Streams on the device against the CPU in float32: guided in float32, one step in bfloat16; the same bits twice."""
    networks = random_networks(name.lower(), size)
    cpu = torch.device("cpu")
    for precision, half in (("float32", False), ("bfloat16", True)):
        with precise(cpu, half=False):
            expected = first_blocks(networks, cpu, guided=not half)
        placed = Networks(*(copy.deepcopy(network).to(device) for network in networks))
        if half:
            for network in placed:
                store_reduced(network, torch.bfloat16)
        with precise(device, half):
            found, again = (first_blocks(placed, device, guided=not half) for _ in range(2))
        limit = FLOAT32 if not half else HALF if device.type == "cuda" else 3 * HALF
        for what, value, other in zip(Stream._fields, found, expected, strict=True):
            report.check(f"{name}, {size}, {what}, {precision}", distance(value, other), limit)
        report.check(f"{name}, {size}, unequal bits twice, {precision}", not same_bits(found, again), 0)


def graphed(work: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], None], Tensor]:
    """A work as a CUDA graph: its replay, and the tensor that it writes."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            work()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph.replay, result


class Works(NamedTuple):
    """What is timed of one system.

    Attributes:
        generate: a later block of the generator.
        step: one step of it, with all branches of guidance.
        decode: the block's latents to video.
    """

    generate: Callable[[], Any]
    step: Callable[[], Tensor]
    decode: Callable[[], Any]


def _decoder(codec: Codec, references: References, latents: int) -> Callable[[], Any]:
    code = references.latents.expand(-1, -1, latents, -1, -1)
    _, state = codec.decode_stream(code[:, :, :1], StreamState(), references)
    return lambda: codec.decode_stream(code, state, references)


def _made(make: Callable[[], N], device: torch.device) -> N:
    """A network with weights of noise, stored in bfloat16."""
    with torch.device(device):
        network = make().eval()
    store_reduced(network, torch.bfloat16)
    return network


def v_works(size: str, device: torch.device) -> Works:
    """Of V, at the longest context; called under `precise`."""
    config, codec_config = V_SIZES[size]
    network, codec = _made(lambda: FlowGenerator(config), device), _made(lambda: Codec(codec_config), device)
    picture = torch.zeros(1, 3, 1, config.rows * codec_config.space, config.columns * codec_config.space, device=device)
    references, sampler = codec.references(picture), FlowSampler(network, FlowSampling())
    state, audio = late_block(sampler, references.latents[0])
    first = torch.zeros(1, dtype=torch.bool, device=device)
    branches = (0, NO_AUDIO, NO_REFERENCE)
    rows = sampler._pass(branches, [state], network.speech(audio[None], first, first), None, first)
    x = torch.zeros(1, config.block, config.tokens, config.token_size, device=device)
    return Works(
        lambda: sampler.generate([state], [audio]),
        lambda: sampler._velocity(rows, x, 0),
        _decoder(codec, references, config.block),
    )


def rap_works(size: str, device: torch.device) -> Works:
    """Of RAP, a clip of the longest length; called under `precise`."""
    config, codec_config = RAP_SIZES[size]
    network, codec = _made(lambda: RapDenoiser(config), device), _made(lambda: Codec(codec_config), device)
    picture = torch.zeros(1, 3, 1, config.rows * codec_config.space, config.columns * codec_config.space, device=device)
    references, sampler, length = codec.references(picture), RapSampler(network, RapSampling()), config.lengths[-1]
    state, audio = late_clip(sampler, references.latents[0])
    heard = audio.new_zeros(2, length * config.frames_per_latent, *audio.shape[1:])
    known = network.hear(network.speech(heard, torch.tensor([False, True], device=device)))
    x, time = references.latents.expand(2, -1, length, -1, -1), torch.ones(1, device=device)
    return Works(
        lambda: sampler.generate([state], [audio], length),
        lambda: network.denoise(x, time, x, known, None),
        _decoder(codec, references, length - config.inherited),
    )


def time_latent(report: Report, name: str, size: str, device: torch.device) -> None:
    """A later block in bfloat16: branches batched and one by one, a step with and without a CUDA graph, the decoder."""
    repeats = 5 if size == PAPER else 2
    with precise(device, half=True):
        works = v_works(size, device) if name == V else rap_works(size, device)

        def timed(what: str, work: Callable[[], Any]) -> float:
            times = spread(milliseconds(work, device, repeats))
            report.add("times_ms", f"{name}, {size}, {what}", times)
            return times["p50"]

        whole = timed("generator, branches batched", works.generate)
        with unbatched():
            timed("generator, branches one by one", works.generate)
        timed("generator, a step", works.step)
        if device.type == "cuda":
            replay, result = graphed(works.step, device)
            replay()
            report.check(f"{name}, {size}, a step, graph against eager", distance(result, works.step()), FLOAT32)
            timed("generator, a step, CUDA graph", replay)
        whole += timed("decoder", works.decode)
    frames = FRAMES[name]
    found: dict[str, Any] = {"p50": round(whole, 3), "real_time_factor": round(whole * FPS / (1e3 * frames), 4)}
    if size == PAPER:
        cost = v_cost(*V_SIZES[size]) if name == V else rap_cost(*RAP_SIZES[size])
        found["predicted"] = {one.name: round(1e3 * predicted(cost, one)[BATCHED_EAGER], 1) for one in (*DEVICES, H200)}
        found["paper"] = {of: round(1e3 * value, 1) for (system, of), value in PAPER_SECONDS.items() if system == name}
    report.add("times_ms", f"{name}, {size}, a later block of {frames} frames", found)


def run_latent(report: Report, device: torch.device, tiny: bool) -> None:
    """Checks at small size, then times; the papers' size needs a GPU."""
    small = TINY if tiny else SMALL
    for name in (V, RAP):
        with report.part(f"latent {name}"):
            check_latent(report, name, small, device)
    for name in (V, RAP):
        if report.over:
            report.add("not_run", f"times of {name}", "the time was over")
            return
        with report.part(f"times of {name}"):
            time_latent(report, name, PAPER if device.type == "cuda" and not tiny else small, device)
