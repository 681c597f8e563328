"""The full-size networks: what each forward costs, and what arranging them for sampling and streaming saves.

    python -m benchmarks.networks [--device cpu] [--threads 2] [--part motion|speech|networks] [--repeats 7]

Deterministic weights (tests/fixtures/reference), since time does not depend on the weights' meaning. Variants that are
compared run in turns within one process; figures are wall-clock times, the least of the repeats for ratios.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._report import Figure, figures_table, publish, rows_table
from benchmarks.speech import example_speech, read_speech
from ditto.commands import Arguments, run, whole_number
from ditto.engines.networks import Example, example_of
from ditto.engines.torch_engine import TorchEngine
from ditto.errors import EngineError
from ditto.full.networks.appearance import AppearanceExtractor
from ditto.full.networks.decoder import SpadeDecoder, load_decoder
from ditto.full.networks.hubert import Hubert
from ditto.full.networks.lmdm import GUIDANCE, LMDM, DDIMStep, ddim_sample, ddim_schedule
from ditto.full.networks.lmdm_fast import FastLMDM
from ditto.full.networks.motion_extractor import MotionExtractor
from ditto.full.networks.neural_renderer import NeuralRenderer
from ditto.full.networks.stitching import StitchingNetwork
from ditto.full.networks.streaming_hubert import StreamingHubert
from ditto.full.networks.warping import WarpingNetwork

STEPS = 10
UNIT_MS = 400.0
CONTEXT_SECONDS = 8
PAPER = "paper, A100"  # arXiv:2411.19509, table of times with TensorRT
SLOW_MS = 2000.0  # a forward that takes longer is run twice only


def load(network: nn.Module, name: str) -> nn.Module:
    """A network under the deterministic weights."""
    from tests.fixtures.reference.recipe import weights

    given = {key: torch.from_numpy(value) for key, value in weights(name).items()}
    if isinstance(network, SpadeDecoder):
        return load_decoder(given)
    tables = {key: value for key, value in network.state_dict().items() if key not in given}
    network.load_state_dict(given | tables)
    return network.eval().requires_grad_(False)


def released_sample(
    network: LMDM, cond_frame: Tensor, cond: Tensor, start: Tensor, noise: Sequence[Tensor], schedule: Sequence[DDIMStep]
) -> Tensor:
    """The released algorithm: each step runs two branches one after the other, each from the raw conditions on.

    The branch without a condition encodes it as well and then puts the learned null in its place.
    """
    x = start
    for i, step in enumerate(schedule):
        at = torch.full((len(x),), step.time, device=x.device)
        network.encode(cond)
        without = network.denoise(x, cond_frame, network.null(len(x)), at)
        with_it = network.denoise(x, cond_frame, network.encode(cond), at)
        clean = without + GUIDANCE * (with_it - without)
        if step.next_time < 0:
            break
        residue = step.from_x * x - clean / step.from_clean
        x = clean * step.signal + step.direction * residue + step.sigma * noise[i]
    return clean


def in_turns(works: Mapping[str, Callable[[], Any]], repeats: int, cuda: bool) -> dict[str, list[float]]:
    """Wall-clock times of each work in ms, `repeats` of each, all of them by turns after one round to warm up."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            if turn > 2 and spent[name][0] > SLOW_MS:
                continue
            start = time.perf_counter()
            work()
            if cuda:
                torch.cuda.synchronize()
            if turn:
                spent[name].append(1e3 * (time.perf_counter() - start))
    return spent


def error(found: Any, expected: Any) -> float:
    """Relative L2 distance."""
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def row(name: str, times: Sequence[float], *more: Any) -> list[Any]:
    """Least, median and 95th percentile in ms, then the rest."""
    return [name, min(times), *(float(p) for p in np.percentile(times, [50, 95])), *more]


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX512-BF16 or AMX); else it is slower than float32."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    return "avx512_bf16" in text or "amx_bf16" in text


def half_precisions(cuda: bool) -> list[str]:
    """Reduced precisions that pay on the device."""
    if cuda:
        return ["bfloat16", "float16"]
    return ["bfloat16"] if has_bfloat16() else []


def time_motion(options: argparse.Namespace) -> tuple[list[Figure], Any]:
    """Ten DDIM steps of the motion transformer against the released algorithm."""
    cuda = options.device.startswith("cuda")
    network = load(LMDM(), "lmdm")
    schedule = ddim_schedule(STEPS)
    example = example_of(FastLMDM(network, schedule))
    inputs = {key: value.to(options.device) for key, value in example.inputs.items()}
    plain = copy.deepcopy(network).to(options.device)
    fast = FastLMDM(copy.deepcopy(network), schedule).to(options.device)

    def engine(precision: str) -> TorchEngine:
        module = FastLMDM(copy.deepcopy(network), schedule)
        return TorchEngine(module, example.inputs, example.outputs, options.device, precision, options.threads)

    engines = {precision: engine(precision) for precision in ("float32", *half_precisions(cuda))}
    given = inputs["cond_frame"], inputs["cond"], inputs["start"], list(inputs["noise"])
    works: dict[str, Callable[[], Tensor]] = {
        "released: all of it at every step": lambda: released_sample(plain, *given, schedule),
        "condition once a window, branches batched": lambda: ddim_sample(plain, *given, schedule),
        "null branch, keys, values, times, FiLMs once": lambda: fast(**inputs),
    }
    for precision, made in engines.items():
        works[f"the same in an engine, {precision}"] = lambda made=made: made.run(**inputs)["motion"]  # type: ignore[misc]
    with torch.no_grad():
        expected = works["released: all of it at every step"]().cpu()
        errors = {name: error(work().cpu(), expected) for name, work in works.items()}
        spent = in_turns(works, options.repeats, cuda)
    base = min(next(iter(spent.values())))
    gains = {name: base / min(times) for name, times in spent.items()}
    table = rows_table(
        f"{STEPS} steps, one window of 80 frames, ms",
        ("", "least", "p50", "p95", "released / this", "relative error"),
        [row(name, times, gains[name], f"{errors[name]:.1e}") for name, times in spent.items()],
    )
    kept = "the same in an engine, float32"
    figures = [
        Figure("motion sample, float32: times faster", gains[kept], low=1.6, beside={"hoists alone": gains[list(works)[2]]}),
        Figure("motion sample, float32: relative error x 1e5", 1e5 * errors[kept], high=1.0),
        Figure("motion sample, float32, ms", min(spent[kept]), beside={PAPER: 62.0}),
    ]
    half = "the same in an engine, bfloat16"
    if half in spent:
        figures += [
            Figure("motion sample, bfloat16: times faster", gains[half], low=3.0),
            Figure("motion sample, bfloat16: relative error", errors[half], high=2e-2),
        ]
    return figures, table


def time_speech(options: argparse.Namespace) -> tuple[list[Figure], Any]:
    """HuBERT-large by units of 0.4 s, and that they are what the masked network gives for a whole recording."""
    cuda = options.device.startswith("cuda")
    network = StreamingHubert(load(Hubert(), "hubert_large"))  # type: ignore[arg-type]
    speech = torch.from_numpy(read_speech(example_speech()))[None]
    unit = network.samples
    with torch.no_grad():
        state = network.pseudo_context(speech[:, : CONTEXT_SECONDS * 16000])
        heard = speech[:, -4 * unit :]
        whole = network(heard, state)[0]
        one_by_one, following = [], state
        for piece in heard.split(unit, 1):
            rows, following = network(piece, following)
            one_by_one.append(rows)
    streaming_error = error(torch.cat(one_by_one, 1), whole)
    inputs = {"samples": heard[:, :unit], **{f"state.{key}": value for key, value in state._asdict().items()}}
    example = Example(inputs, ("rows", "next_state"))

    spent: dict[str, list[float]] = {}
    errors: dict[str, float] = {}
    precisions = ["float32", *half_precisions(cuda), *([] if cuda else ["int8"])]
    for precision in precisions:  # one after the other: the weights of several do not fit every machine
        module = copy.deepcopy(network) if precision != precisions[-1] else network
        engine = TorchEngine(module, example.inputs, example.outputs, options.device, precision, options.threads)
        placed = {key: value.to(engine.device) for key, value in inputs.items()}
        errors[precision] = error(engine.run(**placed)["rows"].cpu(), whole[:, : network.unit])
        spent |= in_turns({precision: lambda engine=engine, placed=placed: engine.run(**placed)}, options.repeats, cuda)  # type: ignore[misc]
        del engine
    table = rows_table(
        "HuBERT large, a unit of 0.4 s, ms",
        ("", "least", "p50", "p95", "real-time factor", "relative error"),
        [
            row(name, times, float(np.median(times)) / UNIT_MS, f"{errors[name]:.1e}") for name, times in spent.items()
        ],
    )
    factor = float(np.median(spent["float32"])) / UNIT_MS
    figures = [
        Figure("HuBERT large, float32: real-time factor", factor, high=0.5, beside={PAPER: 23 / UNIT_MS}),
        Figure("HuBERT large: streaming against masked offline x 1e4", 1e4 * streaming_error, high=1.0),
    ]
    return figures, table


def time_networks(options: argparse.Namespace) -> tuple[list[Figure], Any]:
    """One forward of each of the other networks."""
    cuda = options.device.startswith("cuda")
    warping, decoder = load(WarpingNetwork(), "warping_network"), load(SpadeDecoder(), "spade_decoder")
    networks: dict[str, nn.Module] = {
        "appearance extractor": load(AppearanceExtractor(), "appearance_feature_extractor"),
        "motion extractor": load(MotionExtractor(), "motion_extractor"),
        "stitching": load(StitchingNetwork(), "stitching_network"),
        "warping": copy.deepcopy(warping),
        "decoder": copy.deepcopy(decoder),
        "warping and decoder": NeuralRenderer(warping, decoder),  # type: ignore[arg-type]
    }
    rows, figures = [], []
    for name, network in networks.items():
        example = example_of(network)
        with torch.no_grad():
            first = network(*example.inputs.values())
        expected = first.feature if name == "warping" else first[0] if isinstance(first, tuple) else first
        variants = [(precision, False) for precision in ("float32", *half_precisions(cuda))]
        for precision, channels_last in [*variants, *([("float16", True)] if cuda else [])]:
            engine = TorchEngine(
                copy.deepcopy(network), example.inputs, example.outputs, options.device, precision, options.threads,
                channels_last=channels_last,
            )  # fmt: skip
            placed = {key: value.to(engine.device) for key, value in example.inputs.items()}
            difference = error(next(iter(engine.run(**placed).values())).cpu(), expected)
            times = in_turns({name: lambda engine=engine, placed=placed: engine.run(**placed)}, options.repeats, cuda)[name]  # type: ignore[misc]
            how = f"{precision}, channels last" if channels_last else precision
            rows.append(row(f"{name}, {how}", times, f"{difference:.1e}"))
            if name == "warping and decoder":
                figures.append(Figure(f"warping and decoder, {how}, ms a frame", min(times), beside={PAPER: 15.0}))
    table = rows_table("one forward, ms", ("", "least", "p50", "p95", "relative error"), rows)
    return figures, table


PARTS = {"motion": time_motion, "speech": time_speech, "networks": time_networks}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts asked for; 2: the device is not to be had."""
    parser = Arguments(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=whole_number(1, 1024), default=2, help="on the CPU")
    parser.add_argument("--part", choices=[*PARTS], action="append", help="may be given more than once; default: all")
    parser.add_argument("--repeats", type=whole_number(1, 10**6), default=7)
    options = parser.parse_args(arguments)
    from ditto.engines.torch_engine import torch_device

    try:
        torch_device(options.device)
    except (EngineError, ValueError) as wrong:
        print(f"networks: {wrong}", file=sys.stderr)
        return 2
    torch.set_num_threads(options.threads)
    figures, tables = [], []
    for part in options.part or PARTS:
        found, table = PARTS[part](options)
        figures += found
        tables.append(table)
    publish(
        "networks", figures, [figures_table("The full-size networks", figures), *tables], device=options.device,
        torch=torch.__version__, threads=options.threads,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    run(main)
