"""One command for a machine with a GPU: builds the GPU kernels, checks kernels and networks, then times them.

    python -m benchmarks.device [--device cuda] [--output out/device.json] [--seconds 540]
    python -m benchmarks.device --device cpu --tiny

It needs the checkout, torch and NumPy; nvcc for the kernels. Weights are seeded noise, since neither time nor agreement
depends on their meaning. Lines are printed, and the JSON file is written anew, after every result, so that a run that is
stopped leaves what it had. Timings end when `--seconds` are over. The exit status is 1 where a check failed.

With `--device cpu` the kernel bodies run in a loop on the CPU, which proves this command, not a GPU.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import importlib.util
import platform
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
if importlib.util.find_spec("ditto._native") is None:  # the CPU kernels are not built here, and nothing below calls them
    package = importlib.import_module("ditto")
    package._native = sys.modules["ditto._native"] = types.ModuleType("ditto._native")

import emulated_cuda  # noqa: E402
from engine_networks import FULL, TINY, decoder, make  # noqa: E402

from benchmarks._device_report import FLOAT32, HALF, Report, distance, milliseconds, spread  # noqa: E402
from benchmarks.device_latent import run_latent  # noqa: E402
from ditto.engines.networks import Example, example_of  # noqa: E402
from ditto.engines.torch_engine import TorchEngine, arguments_of, flatten, torch_device  # noqa: E402
from ditto.errors import EngineError  # noqa: E402
from ditto.full.networks.hubert import Hubert  # noqa: E402
from ditto.full.networks.lmdm import LMDM, ddim_schedule  # noqa: E402
from ditto.full.networks.lmdm_fast import FastLMDM  # noqa: E402
from ditto.full.networks.neural_renderer import NeuralRenderer  # noqa: E402
from ditto.full.networks.warping import VARIANCE, WarpingNetwork  # noqa: E402
from ditto.full.paste_back import PasteBack  # noqa: E402
from ditto.ops import neural  # noqa: E402
from ditto.ops.reference import neural as reference  # noqa: E402

GREY = 1.0  # largest difference of a picture, levels of 255
STEPS, FRAMES_PER_UNIT, OVERLAP, WINDOW, FPS = 10, 5, 70, 80, 25  # "balanced", as of ditto.full.sampler
PAPER_A100 = {"hubert_window": 23.0, "lmdm_fast": 62.0, "renderer": 15.0, "first_frame": 385.0}  # ms, arXiv:2411.19509
PAPER_RTF = (0.635, 0.895)
CONFIGS: dict[str, dict[str, Any]] = {  # how an engine can be opened on a GPU
    "float32": {}, "float32, no graph": {"graph": False}, "float32, channels last": {"channels_last": True},
    "float16": {"precision": "float16"}, "float16, channels first": {"precision": "float16", "channels_last": False},
    "float16, no graph": {"precision": "float16", "graph": False}, "bfloat16": {"precision": "bfloat16"},
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


def kernel_cases(tiny: bool) -> dict[str, tuple[Any, Any, tuple[Any, ...], float]]:
    """By kernel: its function, its reference, arguments on the CPU in the shapes of the pipeline, largest difference."""
    draw = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    side, picture = (64, 128) if tiny else (512, 1024)
    pixels = np.random.default_rng(0).integers(0, 256, (picture, picture, 3), np.uint8)
    paste = PasteBack(pixels, np.array([[0.9, -0.2, 20.0], [0.2, 0.9, 5.0], [0.0, 0.0, 1.0]]), side)
    blend = (noise(3, side, side) * 0.4 + 0.5, *paste.tensors())
    cases = {"blend_crop": (neural.run_blend, reference.blend_crop, blend, 0.0)}
    for channels, edge in ((8, 16),) if tiny else ((512, 64), (256, 256)):
        x = [noise(1, channels, edge, edge) for _ in range(3)]
        last = [tensor.contiguous(memory_format=torch.channels_last) for tensor in x]
        cases[f"spade {channels} x {edge} x {edge}"] = (neural.run_spade, reference.spade, (*x, 0.2), 1e-4)
        cases[f"spade {channels} x {edge} x {edge}, channels last"] = (
            neural.run_spade, reference.spade, (*last, 0.2), 1e-4
        )  # fmt: skip
    depth, edge = (4, 8) if tiny else (16, 64)
    source = noise(1, 21, 3) * 0.3
    axes = (torch.linspace(-1, 1, edge), torch.linspace(-1, 1, edge), torch.linspace(-1, 1, depth))
    motion = (noise(1, 4, depth, edge, edge), source, source + noise(1, 21, 3) * 0.1, *axes, VARIANCE)
    cases["dense_motion"] = (neural.run_motion, reference.dense_motion, motion, 1e-5)
    return cases


def run_kernels(report: Report, kernels: Any, device: torch.device, tiny: bool) -> None:
    """Checks of the kernels against the reference on the CPU, then their times beside the reference's."""
    for name, (kernel, definition, given, limit) in kernel_cases(tiny).items():
        with report.part(f"kernel {name}"):
            placed = [x.to(device) if isinstance(x, Tensor) else x for x in given]
            expected, found = definition(*given), kernel(kernels, *placed)
            report.check(f"kernel {name}", (found.cpu().float() - expected.float()).abs().max(), limit)
            repeats = 20 if device.type == "cuda" else 1  # an emulation is slow
            times = {
                "kernel": spread(milliseconds(lambda: kernel(kernels, *placed), device, repeats)),  # noqa: B023
                "reference": spread(milliseconds(lambda: definition(*placed), device, repeats)),  # noqa: B023
            }
            report.add("times_ms", f"kernel {name}", times)


def networks_of(tiny: bool) -> Mapping[str, Callable[[], nn.Module]]:
    """Every network that a stream runs."""
    if tiny:
        names = ("appearance", "motion_extractor", "stitching", "hubert", "lmdm_fast", "renderer")
        return {name: TINY[name] for name in names}
    return {
        "appearance": FULL["appearance"], "motion_extractor": FULL["motion_extractor"], "stitching": TINY["stitching"],
        "hubert": Hubert, "hubert_streaming": FULL["hubert_streaming"],
        "lmdm_fast": lambda: FastLMDM(LMDM(), ddim_schedule(STEPS)),
        "renderer": lambda: NeuralRenderer(WarpingNetwork(), decoder()),
    }  # fmt: skip


def by_module(network: nn.Module, example: Example) -> dict[str, Tensor]:
    """Results of the module itself on the CPU."""
    with torch.no_grad():
        found = network(*(pick(example.inputs) for pick in arguments_of(network, example.inputs)))
    return flatten(example.outputs, found)


def check_engine(report: Report, name: str, engine: TorchEngine, placed: dict[str, Tensor], expected: dict[str, Tensor],
                 limit: float) -> None:  # fmt: skip
    """Against the CPU; the same bits twice; the same bits from two threads at once."""
    found = engine.run(**placed)
    first = next(iter(expected))
    report.check(name, max(distance(found[key], value) for key, value in expected.items() if value.any()), limit)
    if "image" in expected and limit == FLOAT32:
        levels = 255 * (found["image"].cpu().float() - expected["image"]).abs().max()
        report.check(f"{name}, grey levels", float(levels), GREY)
    again = [engine.run(**placed)[first] for _ in range(2)]
    other = {key: value * 0.5 if value.is_floating_point() else value for key, value in placed.items()}
    alone = {0: found[first], 1: engine.run(**other)[first]}
    unequal: list[int] = []

    def race(which: int) -> None:
        for _ in range(5):
            if not torch.equal(engine.run(**(other if which else placed))[first], alone[which]):
                unequal.append(which)

    threads = [threading.Thread(target=race, args=(which,), name=f"race {which}") for which in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.check(f"{name}, unequal bits twice", sum(not torch.equal(x, found[first]) for x in again), 0)
    report.check(f"{name}, unequal bits in a race", len(unequal), 0)


def run_networks(report: Report, device: torch.device, tiny: bool) -> dict[str, tuple[nn.Module, Example]]:
    """Checks of every network in float32 and half, then its times in every configuration."""
    networks: dict[str, tuple[nn.Module, Example]] = {}
    half, configs = ("float16", CONFIGS) if device.type == "cuda" else ("bfloat16", CPU_CONFIGS)
    for name, build in networks_of(tiny).items():
        with report.part(f"network {name}"):
            network = make({name: build}, name)
            example = example_of(network, size=8 if tiny else 64)
            networks[name] = network, example
            expected = by_module(network, example)
            placed = {key: value.to(device) for key, value in example.inputs.items()}
            results = {}
            for precision, limit in (("float32", FLOAT32), (half, HALF if device.type == "cuda" else 3 * HALF)):
                engine = TorchEngine(copy.deepcopy(network), *example, str(device), precision)
                check_engine(report, f"{name}, {precision}", engine, placed, expected, limit)
                results[precision] = engine.run(**placed)
            if device.type == "cuda":
                plain = TorchEngine(copy.deepcopy(network), *example, str(device), graph=False).run(**placed)
                unequal = sum(not torch.equal(plain[key], results["float32"][key]) for key in plain)
                report.check(f"{name}, results that differ between graph and eager", unequal, 0)
    for name, (network, example) in networks.items():
        for config, how in configs.items():
            if report.over:
                report.add("not_run", "timings", f"the time was over before {name}, {config}")
                return networks
            with report.part(f"time {name}, {config}"):
                engine = TorchEngine(copy.deepcopy(network), *example, str(device), **how)
                placed = {key: value.to(device) for key, value in example.inputs.items()}
                times = spread(milliseconds(lambda: engine.run(**placed), device, 5 if tiny else 20))  # noqa: B023
                report.add("times_ms", f"{name}, {config}", times)
    return networks


def run_pipeline(
    report: Report, networks: Mapping[str, tuple[nn.Module, Example]], device: torch.device, tiny: bool
) -> None:
    """What a stream costs: HuBERT for 0.2 s, motion for a window, then render, blend and copy of every frame.

    The networks' work in the order of a stream, without detection, conditioning and encoding.
    """
    half = "float16" if device.type == "cuda" else "float32"
    for batch in (1, 4, 8):
        if report.over:
            report.add("not_run", f"pipeline, batch {batch}", "the time was over")
            return
        with report.part(f"pipeline, batch {batch}"):
            engines, inputs = {}, {}
            for name, precision in (("hubert", "float32"), ("lmdm_fast", "float32"), ("renderer", half)):
                network = copy.deepcopy(networks[name][0])
                example = example_of(network, batch, 8 if tiny else 64)
                engines[name] = TorchEngine(network, *example, str(device), precision)
                inputs[name] = {key: value.to(device) for key, value in example.inputs.items()}
            side = engines["renderer"].outputs[0].shape[-1]
            picture = np.zeros((2 * int(side), 2 * int(side), 3), np.uint8)
            to_picture = np.array([[1.0, 0.1, 30.0], [-0.1, 1.0, 60.0], [0.0, 0.0, 1.0]])
            paste = PasteBack(picture, to_picture, int(side)).on_device(device)

            def frame(engines: Any = engines, inputs: Any = inputs, paste: Any = paste) -> None:
                for image in engines["renderer"].run(**inputs["renderer"])["image"]:
                    paste(image)

            ms = {
                name: spread(milliseconds(lambda n=name: engines[n].run(**inputs[n]), device, 10))["p50"]  # type: ignore[misc] # noqa: B023
                for name in ("hubert", "lmdm_fast")
            }
            ms["frames"] = spread(milliseconds(frame, device, 1 if tiny else 10))["p50"]
            per_frame = ms["hubert"] / FRAMES_PER_UNIT + ms["lmdm_fast"] / (WINDOW - OVERLAP) + ms["frames"]
            report.add("pipeline", f"batch {batch}", {
                **ms, "real_time_factor_of_all": round(per_frame / (1e3 / FPS), 4),
                "first_frame_ms": round(2 * ms["hubert"] + ms["lmdm_fast"] + ms["frames"], 2),
                "sessions_in_real_time": int(batch * (1e3 / FPS) / per_frame),
            })  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all checks hold; 1: one does not, or a part could not run; 2: the device is not to be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cpu, cuda or cuda:N")
    parser.add_argument("--tiny", action="store_true", help="small networks and shapes, to try the command")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "device.json")
    parser.add_argument("--seconds", type=float, default=540.0, help="after these no further timing begins")
    options = parser.parse_args(arguments)
    try:
        device = torch_device(options.device)
    except (EngineError, ValueError) as wrong:
        print(f"device: {wrong}", file=sys.stderr)
        return 2
    about = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "torch": str(torch.__version__), "cuda": torch.version.cuda, "python": platform.python_version(),
        "numpy": np.__version__, "tiny": options.tiny, "paper_a100_ms": PAPER_A100, "paper_a100_rtf": PAPER_RTF,
    }  # fmt: skip
    report = Report(options.output, options.seconds, **about)
    with report.part("kernels"):
        run_kernels(report, build_kernels(device, options.output.parent), device, options.tiny)
    networks = run_networks(report, device, options.tiny)
    run_latent(report, device, options.tiny)
    run_pipeline(report, networks, device, options.tiny)
    print(f"{'passed' if report.passed else 'FAILED'}; {options.output}")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
