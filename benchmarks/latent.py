"""V and RAP: milliseconds a block, first frame, state; what caches and batched guidance save; and the cost at full size.

    python -m benchmarks.latent [--system v|rap] [--size tiny|small] [--bundle FOLDER] [--blocks 8] [--turns 5] [--json FILE]
    python -m benchmarks.latent --cost [--system v|rap] [--json FILE]

Without --bundle the weights are random: time does not depend on their meaning. Times are processor time with one thread, so a
real-time factor is that of one core. What is compared runs in turns, after a check that it gives the same latents. --cost runs
nothing: it counts the papers' configurations on meta tensors and predicts times (`benchmarks/_roofline.py` says how).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from benchmarks._latent_cost import (
    DEVICES,
    PAPER_SECONDS,
    WAYS,
    Cost,
    predicted,
    rap_cost,
    unbatched,
    v_cost,
)
from benchmarks._latent_plain import PAPER, RAP_SIZES, SMALL, TINY, V_SIZES, PlainFlow, PlainRap, random_networks
from benchmarks._report import Figure, figures_table, number, publish, rows_table
from benchmarks._roofline import seconds
from benchmarks.faces import example_portrait
from benchmarks.speech import example_speech, read_speech
from ditto.commands import Arguments, run, whole_number
from ditto.errors import DittoError
from ditto.latent.block_performer import LatentPerformer
from ditto.latent.bundling import LATENCIES, RAP, LatentParts, V, performer_of
from ditto.latent.flow_sampler import FlowSampling
from ditto.latent.generators import FlowBlocks, RapBlocks, RapLatency
from ditto.latent.layers import StreamState
from ditto.latent.rap_sampler import RapSampling
from ditto.latent.region import Region
from ditto.latent.schedule import Guidance
from ditto.latent.speech import LiteConfig, shipped_encoder
from ditto.media.files import check_output_file, complete_file, partial_file
from ditto.media.rates import FPS, SAMPLE_RATE
from ditto.motion.emotion import emotion_vector
from ditto.performer import Advance, Draw, Edits, Shot
from ditto.portrait.portrait import Portrait

NAMES = {V: "V", RAP: "RAP"}
SAME = 1e-4  # largest difference of latents of unit size, float32
REAL_TIME = 0.3  # of issue 14, on one core
QUALITY, LOW = LATENCIES
SETTINGS: dict[str, Mapping[str, Any]] = {  # by system and latency: the paper's, and one for conversation
    V: {QUALITY: FlowSampling(), LOW: FlowSampling(steps=4, shift=3.0, audio=Guidance(), reference=Guidance())},
    RAP: {QUALITY: RapLatency(RapSampling(), 11, 11), LOW: RapLatency(RapSampling(steps=4, audio=Guidance()), 3, 5)},
}


class Subject(NamedTuple):
    """What is measured: its name, its performer, and the largest real-time factor that is asked of it, if any."""

    name: str
    performer: LatentPerformer
    limit: float | None


def random_performer(system: str, size: str) -> LatentPerformer:
    """Of "v" or "rap", tiny or small, with random weights and lite's speech encoder."""
    generator, codec = random_networks(system, size)
    side = generator.config.rows * codec.config.space
    region = Region(2 * side, side // 2, side, side)  # the lower face
    return performer_of(LatentParts(codec, generator, region, SETTINGS[system], LiteConfig(shipped_encoder())))


@contextmanager
def timed(thing: Any, name: str, spent: list[float]) -> Iterator[None]:
    """Inside it, ms of processor time of every call of a method of a thing."""
    method = getattr(thing, name)

    def run(*arguments: Any, **keywords: Any) -> Any:
        start = time.process_time()
        result = method(*arguments, **keywords)
        spent.append(1e3 * (time.process_time() - start))
        return result

    with patch.object(thing, name, run):
        yield


class Spent(NamedTuple):
    """ms of processor time of a stream at one latency.

    Attributes:
        frames: of a later block.
        generate, decode: p50 of a later block.
        listen, draw: of the speech and the pictures of a later block, mean.
        speech: ms of speech before the first frame.
        first: compute of the first frame, p50.
        state_bytes: of generator and decoder.
    """

    frames: int
    generate: float
    decode: float
    listen: float
    draw: float
    speech: float
    first: float
    state_bytes: int

    @property
    def block(self) -> float:
        return self.generate + self.decode + self.listen + self.draw

    @property
    def real_time_factor(self) -> float:
        return self.block * FPS / (1e3 * self.frames)


def time_stream(
    performer: LatentPerformer, portrait: Portrait, speech: Any, latency: str, blocks: int, turns: int
) -> Spent:
    """A stream through the performer, as a session runs it: the first frame `turns` times, then some later blocks."""
    appearance, hop, neutral = performer.prepare(portrait), performer.hop_samples, emotion_vector(None)
    generator = performer.generators[latency]
    face = performer.face(appearance, 0)
    spent: dict[str, list[float]] = {name: [] for name in ("generate", "decode", "listen", "draw", "first")}
    for turn in range(turns):
        state: Any = performer.begin(appearance, turn, latency)
        shots: list[Shot] = []
        heard = 0
        while not shots:
            job = Advance(state, np.resize(speech[heard:], hop), neutral)
            start = time.process_time()
            (done,) = performer.advance([job])
            shots, state, heard = list(done.shots), done.state, heard + hop
        performer.draw([Draw(face, shots[0], Edits.none())])
        spent["first"].append(1e3 * (time.process_time() - start))
    first_speech = heard
    with ExitStack() as stack:
        for thing, method, name in (
            (generator, "generate", "generate"), (performer.codec, "decode_stream", "decode"),
            (performer.speech.encoder, "step_batch", "listen"), (performer, "draw", "draw"),
        ):  # fmt: skip
            stack.enter_context(timed(thing, method, spent[name]))
        while len(spent["generate"]) < blocks:
            job = Advance(state, np.resize(speech[heard % len(speech) :], hop), neutral)
            (done,) = performer.advance([job])
            state, heard = done.state, heard + hop
            for shot in done.shots:
                performer.draw([Draw(face, shot, Edits.none())])
    frames = generator.frames(1)
    median = {name: statistics.median(values) for name, values in spent.items()}
    return Spent(
        frames,
        median["generate"],
        median["decode"],
        sum(spent["listen"]) / (heard - first_speech) * frames * SAMPLE_RATE / FPS,
        frames * median["draw"],
        1e3 * first_speech / SAMPLE_RATE,
        median["first"],
        state.generator.bytes + state.decoder.nbytes,
    )


def time_codec(performer: LatentPerformer, frames: int, turns: int) -> tuple[float, float]:
    """ms of encoding and of decoding a later block of frames, p50."""
    codec, side = performer.codec, performer.region.size
    video = torch.rand(1, 3, frames + 1, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    spent: dict[str, list[float]] = {"encode": [], "decode": []}
    with torch.no_grad():
        references = codec.references(video[:, :, :1])
        start, encoder = codec.encode_stream(video[:, :, :1], StreamState())
        code, _ = codec.encode_stream(video[:, :, 1:], encoder)
        _, decoder = codec.decode_stream(start.mean, StreamState(), references)
        with timed(codec, "encode_stream", spent["encode"]), timed(codec, "decode_stream", spent["decode"]):
            for _ in range(turns):
                codec.encode_stream(video[:, :, 1:], encoder)
                codec.decode_stream(code.mean, decoder, references)
    return statistics.median(spent["encode"]), statistics.median(spent["decode"])


class Ways(NamedTuple):
    """The same latents of some first blocks, made in several ways.

    Attributes:
        blocks: how many.
        makers: by name, first ditto's.
    """

    blocks: int
    makers: Mapping[str, Callable[[], Tensor]]


def ways_of(blocks: FlowBlocks | RapBlocks) -> Ways:
    """V's first window, or RAP's first three clips: as ditto makes them, without what it keeps, branch by branch."""
    sampler: Any = blocks.sampler
    config, draw = sampler.network.config, torch.Generator().manual_seed(0)
    latents = torch.randn(config.channels, 1, config.rows, config.columns, generator=draw)  # of the reference
    if isinstance(blocks, FlowBlocks):
        count, features = config.window // config.block, config.audio_features
    else:
        count, features = 3, config.audio_layers * config.audio_features
        latents = latents.expand(-1, config.reference_latents, -1, -1)
    audio = [torch.randn(blocks.frames(number), features, generator=draw) for number in range(count)]

    def ours() -> Tensor:
        state, made = sampler.begin(sampler.reference(latents), 0), []
        for rows in audio:
            (block,) = blocks.generate([state], [rows])
            state = block.state
            made.append(block.latents)
        return torch.cat(made, 1)

    def branch_by_branch() -> Tensor:
        with unbatched():
            return ours()

    makers: dict[str, Callable[[], Tensor]] = {"ditto": ours}
    guided = [sampler.sampling.audio]
    if isinstance(blocks, FlowBlocks):
        v = PlainFlow(blocks.sampler)
        makers["no keys and values of the past"] = lambda: v.generate(latents, audio, 0)
        guided.append(sampler.sampling.reference)
    else:
        rap, lengths = PlainRap(blocks.sampler), [blocks.latency.first] + [blocks.latency.later] * (count - 1)
        layers = [rows.unflatten(1, (config.audio_layers, -1)) for rows in audio]
        makers["no keys and values of speech"] = lambda: rap.generate(latents, layers, 0, lengths)
    if any(guidance.active(t) for guidance in guided for t in sampler.times[:-1]):
        makers["branches of guidance one by one"] = branch_by_branch
    return Ways(count, makers)


class Compared(NamedTuple):
    """ms a block p50, times of ditto's ms (median over the turns), largest difference from ditto's latents."""

    ms: float
    ratio: float
    difference: float


def compare(ways: Ways, turns: int) -> dict[str, Compared]:
    """All ways in turns, after a check that they make the same."""
    made = {name: make() for name, make in ways.makers.items()}
    spent: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(turns):
        for name, make in ways.makers.items():
            start = time.process_time()
            make()
            spent[name].append(1e3 * (time.process_time() - start) / ways.blocks)
    first, *_ = ways.makers
    return {
        name: Compared(
            statistics.median(spent[name]),
            float(np.median(np.divide(spent[name], spent[first]))),
            float((made[name] - made[first]).abs().max()),
        )
        for name in made
    }


def columns_table(title: str, names: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> Table:
    """A table of many figures of a few things: a line for each figure, a column for each thing. It fits a narrow terminal."""
    return rows_table(title, ("", *columns), list(zip(names, *columns.values(), strict=True)))


class Measured(NamedTuple):
    """Figures, tables, and what the JSON has besides."""

    figures: list[Figure]
    tables: list[Table]
    details: dict[str, Any]


def measure(subject: Subject, portrait: Portrait, speech: Any, blocks: int, turns: int) -> Measured:
    """Of one performer."""
    name, performer, limit = subject
    figures, by_latency, details = [], {}, {}
    for latency in performer.latencies:
        spent = time_stream(performer, portrait, speech, latency, blocks, turns)
        figures.append(Figure(f"{name}, {latency}: real-time factor", spent.real_time_factor, high=limit))
        details[f"{name}, {latency}"] = {**spent._asdict(), "block": spent.block}
        by_latency[latency] = (
            spent.frames, spent.generate, spent.decode, spent.listen, spent.draw, spent.block,
            1e3 * spent.frames / spent.block, spent.real_time_factor, spent.speech, spent.first, spent.state_bytes / 1e3,
        )  # fmt: skip
    names = ("frames", "generate", "decode", "listen", "draw", "all", "frames a second", "real-time factor",
             "first frame: speech", "first frame: compute", "state, kB")  # fmt: skip
    title = f"{name}: a later block of a stream; ms, processor time on one thread"
    tables = [columns_table(title, names, by_latency)]
    generator = performer.generators[performer.latencies[0]]
    frames = generator.frames(1)
    encode, decode = time_codec(performer, frames, turns)
    details[f"{name}, codec"] = {"frames": frames, "encode": encode, "decode": decode}
    title = f"{name}: the codec, {frames} frames"
    tables.append(rows_table(title, ("", "ms"), [["encode", encode], ["decode", decode]]))
    assert isinstance(generator, (FlowBlocks, RapBlocks))
    compared = compare(ways_of(generator), turns)
    for way, found in compared.items():
        if found is not compared["ditto"]:
            figures += [
                Figure(f"{name}, {way}: times ditto's ms", found.ratio),
                Figure(f"{name}, {way}: difference x 1e4", 1e4 * found.difference, high=1e4 * SAME),
            ]
    lines = [[way, found.ms, found.ratio, f"{found.difference:.1e}"] for way, found in compared.items()]
    title = f"{name}, {performer.latencies[0]}: the same latents in other ways, {turns} turns"
    tables.append(rows_table(title, ("", "ms a block", "times ditto's", "largest difference"), lines))
    return Measured(figures, tables, details)


def measured(options: argparse.Namespace) -> Measured:
    """Of a bundle, or of random networks."""
    from ditto.talking_head import load

    torch.set_num_threads(1)
    if options.bundle is not None:
        performer = load(options.bundle).performer
        if not isinstance(performer, LatentPerformer):
            raise DittoError(f"expected a bundle of V or RAP, got {options.bundle}; give the folder of one")
        subjects = [Subject(options.bundle.name, performer, REAL_TIME)]
    else:
        subjects = [
            Subject(f"{NAMES[system]}, {size}", random_performer(system, size), REAL_TIME if size == SMALL else None)
            for system in options.system or NAMES
            for size in options.size or (TINY, SMALL)
        ]
    portrait, speech = load("lite").register(example_portrait()), read_speech(example_speech())
    found = Measured([], [], {})
    for subject in subjects:
        one = measure(subject, portrait, speech, options.blocks, options.turns)
        found = Measured(found.figures + one.figures, found.tables + one.tables, found.details | one.details)
    return found._replace(tables=[figures_table("V and RAP on this machine", found.figures), *found.tables])


def counts_table(cost: Cost, size: str) -> Table:
    """Networks: parameters, their memory, and the work of a later block."""
    generator, *_ = cost.parameters
    works = [(f"{generator}, {way}", generator, work) for way, work in cost.generate.items()]
    works += [("decoder", "decoder", cost.decode), ("encoder", "encoder", cost.encode)]
    columns = {
        name: (
            cost.parameters[network] / 1e6, 2e-9 * cost.parameters[network], 4e-9 * cost.parameters[network],
            work.flops.sum() / 1e12, work.operators, 2e-9 * work.numbers.sum(), 2e-6 * cost.state.get(network, 0),
        )
        for name, network, work in works
    }  # fmt: skip
    names = ("M parameters", "GB, bfloat16", "GB, float32", "TFLOP a block", "operators a block", "GB moved, bfloat16",
             "MB of state, bfloat16")  # fmt: skip
    return columns_table(f"{cost.name}, {size}, a later block of {cost.frames} frames: counted", names, columns)


def predictions_table(cost: Cost, size: str) -> Table:
    """Seconds and real-time factor of a later block on each device, beside the paper's."""
    duration = cost.frames / FPS

    def cell(value: float | None) -> str:
        return "" if value is None else f"{number(value)} ({number(value / duration)})"

    by_device = [predicted(cost, device) for device in DEVICES]
    rows = [[way, *(cell(one.get(way)) for one in by_device)] for way in WAYS]
    rows.append(["the decoder of it", *(cell(seconds(cost.decode, device)) for device in DEVICES)])
    if size == PAPER:
        rows.append(["paper, measured", *(cell(PAPER_SECONDS.get((cost.name, device.name))) for device in DEVICES)])
    title = f"{cost.name}, {size}, a later block of {cost.frames} frames: PREDICTED, not measured; seconds (real-time factor)"
    return rows_table(title, ("", *(device.name for device in DEVICES)), rows)


def costs(options: argparse.Namespace) -> Measured:
    """Counts and predictions."""
    found = Measured([], [], {})
    for system in options.system or NAMES:
        for size in options.size or (PAPER,):
            cost = v_cost(*V_SIZES[size]) if system == V else rap_cost(*RAP_SIZES[size])
            found.tables.extend([counts_table(cost, size), predictions_table(cost, size)])
            works = {**cost.generate, "decode": cost.decode, "encode": cost.encode}
            found.details[f"{cost.name}, {size}, counted"] = {
                "frames": cost.frames, "parameters": cost.parameters, "state_numbers": cost.state,
                "works": {
                    way: {
                        "flops": float(work.flops.sum()), "operators": work.operators,
                        "numbers_moved": float(work.numbers.sum()),
                    }
                    for way, work in works.items()
                },
            }  # fmt: skip
            found.details[f"{cost.name}, {size}, predicted seconds a block"] = {
                device.name: predicted(cost, device) for device in DEVICES
            }
    return found


def parser() -> argparse.ArgumentParser:
    made = Arguments(prog="python -m benchmarks.latent", description=(__doc__ or "").split("\n")[0])
    made.add_argument("--system", choices=list(NAMES), action="append", help="may be given twice; default: both")
    made.add_argument("--size", choices=(TINY, SMALL, PAPER), action="append", help="default: tiny and small; --cost: paper")
    made.add_argument("--bundle", type=Path, help="folder of a trained bundle, instead of random weights")
    made.add_argument("--blocks", type=whole_number(1, 1000), default=8, help="later blocks of a stream")
    made.add_argument("--turns", type=whole_number(1, 1000), default=5, help="repeats of first frames and of what is compared")
    made.add_argument("--cost", action="store_true", help="count and predict instead of measuring")
    made.add_argument("--json", type=Path, help="write the JSON to a file, too")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all bars are met; 1: one is missed; 2: what was asked for cannot be."""
    command = parser()
    options = command.parse_args(arguments)
    if options.bundle is not None and (options.cost or options.system or options.size):
        command.error("a bundle has a system and a size; leave out --cost, --system and --size")
    if not options.cost and PAPER in (options.size or ()):
        command.error("the papers' sizes are counted, not run; add --cost")
    if options.json is not None:
        check_output_file(options.json)
    try:
        found = costs(options) if options.cost else measured(options)
    except DittoError as error:
        command.error(str(error))
    line = publish("latent", found.figures, found.tables, details=found.details, torch=torch.__version__, threads=1)
    if options.json is not None:
        try:
            part = partial_file(options.json)
            part.write_text(json.dumps(json.loads(line), indent=1) + "\n", encoding="utf-8")
            complete_file(part, options.json)
        except OSError as error:
            command.error(f"{options.json} cannot be written: {error}; choose another file")
    return int(any(figure.met is False for figure in found.figures))


if __name__ == "__main__":
    run(main)
