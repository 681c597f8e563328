"""One command for a machine with a GPU: builds the GPU kernels, checks kernels and networks, then times them and streams.

    python -m benchmarks.device [--device cuda] [--output out/device.json] [--seconds 540]
    python -m benchmarks.device --device cpu --tiny

It needs the checkout, torch and NumPy; nvcc for the kernels. Weights are seeded noise, since neither time nor agreement
depends on their meaning. Every section runs in a process of its own, which is ended when its time is over: an error of CUDA
ends all work of a process. Lines are printed, and the JSON file is written anew, after every result. `not_run` says what
failed. The exit status is 1 where a check failed or something did not run.

With `--device cpu` the kernels run under an emulation, which proves this command, not a GPU.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import importlib
import platform
import shutil
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from ditto.commands import Arguments, real_number, run
from ditto.machine import interrupts_left_to_parent
from ditto.media.files import check_output_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
try:
    importlib.import_module("ditto._native")
except ImportError:  # the CPU kernels are not built here, and nothing below calls them
    package = importlib.import_module("ditto")
    package._native = sys.modules["ditto._native"] = types.ModuleType("ditto._native")

import emulated_cuda  # noqa: E402
from engine_networks import FULL, TINY, TINY_PARTS, decoder, make  # noqa: E402

from benchmarks._device_cost import PAPER_A100, PAPER_STREAM, STEPS, predictions  # noqa: E402
from benchmarks._device_report import FLOAT32, HALF, Report, distance, milliseconds, spread  # noqa: E402
from benchmarks.device_latent import run_latent  # noqa: E402
from ditto.engines.networks import Example, example_of  # noqa: E402
from ditto.engines.torch_engine import TorchEngine, arguments_of, flatten, torch_device  # noqa: E402
from ditto.errors import EngineError  # noqa: E402
from ditto.full.networks.appearance import AppearanceExtractor  # noqa: E402
from ditto.full.networks.hubert import Hubert  # noqa: E402
from ditto.full.networks.lmdm import LMDM, ddim_schedule  # noqa: E402
from ditto.full.networks.lmdm_fast import FastLMDM  # noqa: E402
from ditto.full.networks.motion_extractor import MotionExtractor  # noqa: E402
from ditto.full.networks.neural_renderer import NeuralRenderer  # noqa: E402
from ditto.full.networks.stitching import StitchingNetwork  # noqa: E402
from ditto.full.networks.warping import VARIANCE, WarpingNetwork  # noqa: E402
from ditto.full.paste_back import PasteBack  # noqa: E402
from ditto.full.pipeline import FullOptions, encoder_of, parts_of  # noqa: E402
from ditto.full.sampler import STREAM, Sampling  # noqa: E402
from ditto.motion.emotion import emotion_vector  # noqa: E402
from ditto.motion.motion import FPS  # noqa: E402
from ditto.ops import neural  # noqa: E402
from ditto.ops.reference import neural as reference  # noqa: E402
from ditto.performer import Advance, Appearance, Draw, Edits, Performer  # noqa: E402
from ditto.portrait import face_mesh  # noqa: E402
from ditto.portrait.portrait import Portrait  # noqa: E402

GREY = 1.0  # largest difference of a picture, levels of 255
SPEECH_FRAMES, TINY_FRAMES = 200, 4  # of the streams that are timed: 8 s
SESSIONS, TINY_SESSIONS = (1, 4, 8), (1, 2)
LAYOUTS = ("renderer", "appearance")  # networks of convolutions in two axes, timed in both layouts
CONFIGS: dict[str, dict[str, Any]] = {  # how an engine can be opened on a GPU
    "float32": {}, "float16": {"precision": "float16"}, "float32, no graph": {"graph": False},
    "float16, no graph": {"precision": "float16", "graph": False}, "bfloat16": {"precision": "bfloat16"},
    "float16, channels first": {"precision": "float16", "channels_last": False},
    "float32, channels last": {"channels_last": True},
}  # fmt: skip
CPU_CONFIGS: dict[str, dict[str, Any]] = {"float32": {}, "bfloat16": {"precision": "bfloat16"}}


def build_kernels(device: torch.device, folder: Path) -> Any:
    """csrc/cuda compiled for this GPU, or emulated on the CPU, and opened.

    Raises:
        EngineError: there is no compiler, or the library cannot be opened.
    """
    if device.type == "cpu":
        return emulated_cuda.build(folder)
    compiler = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if compiler is None:
        raise EngineError("expected nvcc for csrc/cuda/kernels.cu, got none; install the CUDA toolkit")
    major, minor = torch.cuda.get_device_capability(device)
    part = neural.LIBRARY.with_suffix(".part")
    flags = ["-O3", "-std=c++17", "-fmad=false", f"-arch=sm_{major}{minor}", "-Xcompiler", "-fPIC", "-shared"]
    subprocess.run([compiler, *flags, "-o", str(part), str(ROOT / "csrc" / "cuda" / "kernels.cu")], check=True)
    part.replace(neural.LIBRARY)
    return neural.open_library(neural.LIBRARY)


class Case(NamedTuple):
    """A kernel, its reference, arguments on the CPU in the shapes of the pipeline, the largest difference from float32."""

    kernel: Callable[..., Tensor]
    definition: Callable[..., Tensor]
    given: tuple[Any, ...]
    limit: float


def kernel_cases(tiny: bool) -> dict[str, Case]:
    """By name."""
    draw = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    side, picture = (64, 128) if tiny else (512, 1024)
    pixels = np.random.default_rng(0).integers(0, 256, (picture, picture, 3), np.uint8)
    paste = PasteBack(pixels, np.array([[0.9, -0.2, 20.0], [0.2, 0.9, 5.0], [0.0, 0.0, 1.0]]), side)
    blend = (noise(3, side, side) * 0.4 + 0.5, *paste.tensors())
    cases = {"blend_crop": Case(neural.run_blend, reference.blend_crop, blend, 0.0)}
    for channels, edge in ((8, 16),) if tiny else ((512, 64), (256, 256)):
        name, x = f"spade {channels} x {edge} x {edge}", [noise(1, channels, edge, edge) for _ in range(3)]
        last = [tensor.contiguous(memory_format=torch.channels_last) for tensor in x]
        half = [tensor.half() for tensor in last]
        cases[name] = Case(neural.run_spade, reference.spade, (*x, 0.2), 1e-4)
        cases[f"{name}, channels last"] = Case(neural.run_spade, reference.spade, (*last, 0.2), 1e-4)
        # Numbers up to 32, whose last bit is 2^-6 in half.
        cases[f"{name}, channels last, half"] = Case(neural.run_spade, reference.spade, (*half, 0.2), 2.0**-6)
    depth, edge = (4, 8) if tiny else (16, 64)
    source = noise(1, 21, 3) * 0.3
    axes = (torch.linspace(-1, 1, edge), torch.linspace(-1, 1, edge), torch.linspace(-1, 1, depth))
    motion = (noise(1, 4, depth, edge, edge), source, source + noise(1, 21, 3) * 0.1, *axes, VARIANCE)
    cases["dense_motion"] = Case(neural.run_motion, reference.dense_motion, motion, 1e-5)
    return cases


def converted(given: Sequence[Any], change: Callable[[Tensor], Tensor]) -> list[Any]:
    """Arguments with `change` applied to the tensors."""
    return [change(x) if isinstance(x, Tensor) else x for x in given]


def run_kernels(report: Report, device: torch.device, tiny: bool) -> None:
    """Checks of the kernels against the reference on the CPU, then their times beside the reference's.

    A library that fails a check is deleted: the networks then run without it.
    """
    kernels = None
    with report.part("build of the kernels"):
        kernels = build_kernels(device, report.file.parent)
    if kernels is None:
        return
    repeats = 20 if device.type == "cuda" else 1  # an emulation is slow
    for name, case in kernel_cases(tiny).items():
        with report.part(f"kernel {name}"):
            placed = converted(case.given, lambda x: x.to(device))
            exact = converted(case.given, lambda x: x.float() if x.is_floating_point() else x)
            found = case.kernel(kernels, *placed)
            difference = (found.cpu().float() - case.definition(*exact).float()).abs().max()
            report.check(f"kernel {name}", float(difference), case.limit)
            moved = sum(x.numel() * x.element_size() for x in (*placed, found) if isinstance(x, Tensor))
            times = spread(milliseconds(partial(case.kernel, kernels, *placed), device, repeats))
            report.add("times_ms", f"kernel {name}", {
                "kernel": times, "gigabytes_a_second": round(1e-6 * moved / times["p50"], 1),
                "reference": spread(milliseconds(partial(case.definition, *placed), device, repeats)),
            })  # fmt: skip
    if device.type == "cuda":
        with report.part("kernels against their emulation"):
            emulated = emulated_cuda.build(report.file.parent)
            for name, case in kernel_cases(tiny=True).items():
                if name != "dense_motion":  # its expf is another library's
                    found = case.kernel(kernels, *converted(case.given, lambda x: x.to(device)))
                    unequal = int((found.cpu() != case.kernel(emulated, *case.given)).sum())
                    report.check(f"kernel {name}, numbers that differ from the emulation", unequal, 0)
        if not report.passed:
            neural.LIBRARY.unlink(missing_ok=True)


def networks_of(tiny: bool) -> Mapping[str, Callable[[], nn.Module]]:
    """Every network that a stream runs, the costly ones first."""
    if tiny:
        names = ("renderer", "lmdm_fast", "hubert", "appearance", "motion_extractor", "stitching")
        return {name: TINY[name] for name in names}
    return {
        "renderer": lambda: NeuralRenderer(WarpingNetwork(), decoder()),
        "lmdm_fast": lambda: FastLMDM(LMDM(), ddim_schedule(STEPS)), "hubert": Hubert,
        "hubert_streaming": FULL["hubert_streaming"], "appearance": FULL["appearance"],
        "motion_extractor": FULL["motion_extractor"], "stitching": TINY["stitching"],
    }  # fmt: skip


def made(name: str, build: Callable[[], nn.Module], tiny: bool) -> tuple[nn.Module, Example]:
    network = make({name: build}, name)
    return network, example_of(network, size=8 if tiny else 64)


def by_module(network: nn.Module, example: Example) -> dict[str, Tensor]:
    """Results of the module itself on the CPU."""
    with torch.no_grad():
        found = network(*(pick(example.inputs) for pick in arguments_of(network, example.inputs)))
    return flatten(example.outputs, found)


def check_engine(report: Report, name: str, engine: TorchEngine, placed: dict[str, Tensor], expected: dict[str, Tensor],
                 limit: float) -> None:  # fmt: skip
    """Against the CPU; the same bits twice; the same bits from two threads at once, each on a stream of its own."""
    found = engine.run(**placed)
    first = next(iter(expected))
    report.check(name, max(distance(found[key], value) for key, value in expected.items() if value.any()), limit)
    if "image" in expected and limit == FLOAT32:
        levels = 255 * (found["image"].cpu().float() - expected["image"]).abs().max()
        report.check(f"{name}, grey levels", float(levels), GREY)
    again = [engine.run(**placed)[first] for _ in range(2)]
    other = {key: value * 0.5 if value.is_floating_point() else value for key, value in placed.items()}
    alone = {0: found[first].cpu(), 1: engine.run(**other)[first].cpu()}
    unequal: list[int] = []

    def race(which: int) -> None:
        stream = torch.cuda.Stream(engine.device) if engine.device.type == "cuda" else None
        with torch.cuda.stream(stream):
            for _ in range(5):
                if not torch.equal(engine.run(**(other if which else placed))[first].cpu(), alone[which]):
                    unequal.append(which)

    threads = [threading.Thread(target=race, args=(which,), name=f"race {which}") for which in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.check(f"{name}, unequal bits twice", sum(not torch.equal(x, found[first]) for x in again), 0)
    report.check(f"{name}, unequal bits in a race", len(unequal), 0)


def run_networks(report: Report, device: torch.device, tiny: bool) -> None:
    """Checks of every network in float32 and half; a replayed graph against the network run operator by operator."""
    half = "float16" if device.type == "cuda" else "bfloat16"
    for name, build in networks_of(tiny).items():
        if report.over:
            report.add("not_run", "checks of networks", f"the time was over before {name}")
            return
        with report.part(f"network {name}"):
            network, example = made(name, build, tiny)
            expected = by_module(network, example)
            placed = {key: value.to(device) for key, value in example.inputs.items()}
            for precision, limit in (("float32", FLOAT32), (half, HALF if device.type == "cuda" else 3 * HALF)):
                engine = TorchEngine(copy.deepcopy(network), *example, str(device), precision)
                check_engine(report, f"{name}, {precision}", engine, placed, expected, limit)
                if device.type == "cuda":
                    results = engine.run(**placed)
                    plain = TorchEngine(copy.deepcopy(network), *example, str(device), precision, graph=False)
                    unequal = sum(not torch.equal(value, results[key]) for key, value in plain.run(**placed).items())
                    report.check(f"{name}, {precision}, results that differ between graph and eager", unequal, 0)


def run_times(report: Report, device: torch.device, tiny: bool) -> None:
    """Every network in every configuration; the renderer also without csrc/cuda."""
    configs = CONFIGS if device.type == "cuda" else CPU_CONFIGS
    for name, build in networks_of(tiny).items():
        with report.part(f"times of {name}"):
            network, example = made(name, build, tiny)
            placed = {key: value.to(device) for key, value in example.inputs.items()}
            jobs = [
                (config, how, True) for config, how in configs.items() if name in LAYOUTS or "channels" not in config
            ]
            if name == "renderer" and device.type == "cuda":
                jobs += [(f"{config}, without kernels", configs[config], False) for config in ("float32", "float16")]
            for config, how, kernels in jobs:
                if report.over:
                    report.add("not_run", "times of networks", f"the time was over before {name}, {config}")
                    return
                with report.part(f"times of {name}, {config}"), patch.object(
                    neural, "library", neural.library if kernels else lambda: None
                ):
                    engine = TorchEngine(copy.deepcopy(network), *example, str(device), **how)
                    times = spread(milliseconds(partial(engine.run, **placed), device, 2 if tiny else 20))
                    report.add("times_ms", f"{name}, {config}", times | {"paper_a100": PAPER_A100.get(name)})


def parts_for_streams(tiny: bool) -> dict[str, nn.Module]:
    """Networks of a full bundle by part, weights seeded."""
    if tiny:
        return {name: make(TINY_PARTS, name) for name in TINY_PARTS}
    builds = {
        "encoder": Hubert, "motion": LMDM, "appearance": AppearanceExtractor, "motion_extractor": MotionExtractor,
        "warping": WarpingNetwork, "decoder": decoder, "stitching": StitchingNetwork,
    }  # fmt: skip
    return {name: make(builds, name) for name in builds}


def plain_portrait(size: int = 512) -> Portrait:
    """The template face over a gradient."""
    y, x = np.mgrid[:size, :size] * 255 // size
    picture = np.stack([x, y, (x + y) // 2], -1).astype(np.uint8)
    return Portrait(
        picture=picture, alpha=None, crop=picture, crop_to_picture=np.eye(3),
        landmarks=0.42 * size * face_mesh.TEMPLATE + (size / 2, size / 2, 0), mask=np.ones((size, size), np.float32),
        canonical_keypoints=face_mesh.keypoints(face_mesh.TEMPLATE), scale=0.84, rotation=np.eye(3),
        translation=np.zeros(3), expression=np.zeros((21, 3)), eye_open=np.ones(2, np.float32),
        eye_ball=np.zeros(6, np.float32),
    )  # fmt: skip


def open_performer(networks: Mapping[str, nn.Module], device: torch.device, sessions: int) -> Performer:
    """The performer of a full bundle whose sessions share a forward."""
    precision = "float16" if device.type == "cuda" else "float32"
    options = FullOptions(
        device=str(device), precision=precision, batch=sessions, sampling=Sampling(steps=STEPS), threads=1
    )  # fmt: skip
    fresh = {name: partial(copy.deepcopy, network) for name, network in networks.items()}
    encoder, silence = encoder_of(fresh["encoder"](), options)  # type: ignore[arg-type]
    return parts_of(fresh, encoder, silence, options).performer()


class Played(NamedTuple):
    """Streams that were played.

    Attributes:
        frames: of each.
        seconds: for all frames of all streams.
        first: seconds from the last sample that the first frame waits for to its pictures, one a stream.
        digest: of the first stream's pictures.
    """

    frames: int
    seconds: float
    first: float
    digest: str


def play(performer: Performer, appearance: Appearance, sessions: int, frames: int) -> Played:
    """Streams of seeded noise in step, as fast as the machine can; a thread draws each, as the threads of a scheduler do."""
    neutral, digest, count, first = emotion_vector(None), hashlib.sha256(), 0, None
    hop = performer.hop_samples
    speech = 0.1 * np.random.default_rng(0).standard_normal((frames, hop)).astype(np.float32)
    states = [performer.begin(appearance, seed, STREAM) for seed in range(sessions)]
    faces = [performer.face(appearance, seed) for seed in range(sessions)]
    start = time.perf_counter()
    with ThreadPoolExecutor(sessions, "draw") as pool:
        for number, samples in enumerate(speech):
            began = time.perf_counter()
            jobs = [Advance(state, samples, neutral, number == frames - 1) for state in states]
            advanced = performer.advance(jobs)
            states = [one.state for one in advanced]
            for shots in zip(*(one.shots for one in advanced), strict=True):
                draws = [Draw(face, shot, Edits.none()) for face, shot in zip(faces, shots, strict=True)]
                drawn = [one for (one,) in pool.map(performer.draw, [[draw] for draw in draws])]
                faces = [one.face for one in drawn]
                first = first or time.perf_counter() - began
                digest.update(drawn[0].image.tobytes())
                count += 1
    return Played(count, time.perf_counter() - start, first or 0.0, digest.hexdigest())


def run_pipeline(report: Report, device: torch.device, tiny: bool) -> None:
    """Streams through a full bundle's performer: speech encoder, conditions, motion, stitching, rendering, blend, transitions.

    The portrait's landmarks are given; a program finds them once for a portrait.
    """
    networks, portrait = parts_for_streams(tiny), plain_portrait()
    for sessions in TINY_SESSIONS if tiny else SESSIONS:
        if report.over:
            report.add("not_run", f"pipeline, {sessions} sessions", "the time was over")
            return
        with report.part(f"pipeline, {sessions} sessions"):
            performer = open_performer(networks, device, sessions)
            start = time.perf_counter()
            appearance = performer.prepare(portrait)
            prepared, spent = time.perf_counter() - start, dict.fromkeys(("encode", "sample", "render", "paste"), 0.0)
            before = play(performer, appearance, sessions, TINY_FRAMES if tiny else SPEECH_FRAMES)

            def add(step: str, seconds: float, rows: int, spent: dict[str, float] = spent) -> None:
                spent[step] += seconds

            stop = performer.observe(add)
            played = play(performer, appearance, sessions, TINY_FRAMES if tiny else SPEECH_FRAMES)
            stop()
            report.check(f"pipeline, {sessions} sessions, other pictures twice", before.digest != played.digest, 0)
            factor = played.seconds / (played.frames / FPS)
            waits = performer.delay_seconds(STREAM)
            report.add("pipeline", f"{sessions} sessions", {
                "real_time_factor_of_all": round(factor, 4), "sessions_in_real_time": int(sessions / factor),
                "first_frame_ms": round(1e3 * played.first, 2),
                "first_frame_with_the_speech_it_waits_for_ms": round(1e3 * (played.first + waits), 2),
                "portrait_ms": round(1e3 * prepared, 2), "frames": played.frames,
                "ms_a_frame_by_step": {
                    step: round(1e3 * seconds / (played.frames * sessions), 3) for step, seconds in spent.items()
                },
                "paper_a100": PAPER_STREAM,
            })  # fmt: skip


def run_predicted(report: Report, device: torch.device, tiny: bool) -> None:
    """What the times should be, from counts."""
    with report.part("predicted"):
        if tiny:
            found = predictions(lambda: {name: make(TINY, name).to("meta") for name in PAPER_A100}, 8)
        else:
            found = predictions()
        for name, about in found.items():
            report.add("predicted", name, about)


SECTIONS: dict[str, tuple[Callable[[Report, torch.device, bool], None], float]] = {  # what runs, and its seconds
    "kernels": (run_kernels, 80), "networks": (run_networks, 140), "pipeline": (run_pipeline, 110),
    "latent": (run_latent, 100), "times": (run_times, 90), "predicted": (run_predicted, 20),
}  # fmt: skip
LATE = 0.8  # of a section's time, after which no further timing begins in it


def run_in_process(report: Report, name: str, command: Sequence[str], seconds: float) -> None:
    """Run a section in a process of its own; how it ended is told, if not of itself.

    Args:
        command: which begins the section.
        seconds: after which it is ended.
    """
    why = "the time was over"
    if seconds > 0:
        with interrupts_left_to_parent():
            process = subprocess.Popen(command, cwd=ROOT)
        try:
            code = process.wait(seconds)
            why = "" if code == 0 else f"its process ended with {f'signal {-code}' if code < 0 else f'status {code}'}"
        except subprocess.TimeoutExpired:
            why = f"ended after {seconds:.0f} s"
        finally:
            process.kill()
            process.wait()
        report.read()
    if why:
        report.add("not_run", f"section {name}", why)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all checks hold; 1: one does not, or something could not run; 2: the device is not to be had."""
    parser = Arguments(prog="python -m benchmarks.device", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cpu, cuda or cuda:N")
    parser.add_argument("--tiny", action="store_true", help="small networks and shapes, to try the command")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "device.json")
    parser.add_argument("--seconds", type=real_number(0, 86_400), default=540.0, help="for all sections")
    parser.add_argument("--only", choices=[*SECTIONS], action="append", help="a section; may be given more than once")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)  # goes on with the file of its parent
    options = parser.parse_args(arguments)
    names = options.only or list(SECTIONS)
    try:
        device = torch_device(options.device)
    except (EngineError, ValueError) as wrong:
        print(f"device: {wrong}", file=sys.stderr)
        return 2
    check_output_file(options.output)
    output = options.output.resolve()
    if options.child:
        report = Report(output, LATE * options.seconds)
        for name in names:
            SECTIONS[name][0](report, device, options.tiny)
        return 0
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    report = Report(
        output, options.seconds, device=platform.processor() or "cpu" if gpu is None else gpu.name,
        compute_capability=None if gpu is None else f"{gpu.major}.{gpu.minor}", torch=str(torch.__version__),
        cuda=torch.version.cuda, python=platform.python_version(), numpy=np.__version__, tiny=options.tiny,
    )  # fmt: skip
    for name in names:
        left = options.seconds - (time.monotonic() - report.start)
        if gpu is not None:  # a trial on a busy CPU may take longer
            left = min(left, SECTIONS[name][1])
        how = ["--only", name, "--child", "--device", options.device, "--output", str(output), "--seconds", str(left)]
        command = [sys.executable, "-m", "benchmarks.device", *how, *(["--tiny"] if options.tiny else [])]
        run_in_process(report, name, command, left)
    for name, why in report.found["not_run"].items():
        print(f"did not run: {name}: {why}")
    for name, check in report.found["checks"].items():
        if not check["met"]:
            print(f"failed: {name}: {check['value']:g}, at most {check['limit']:g}")
    print(f"{'passed' if report.passed else 'FAILED'}; {output}")
    return 0 if report.passed else 1


if __name__ == "__main__":
    run(main)
