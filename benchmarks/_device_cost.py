"""What the networks of the full bundle should take on a GPU, from counts on meta tensors. Nothing here is measured.

    python -m benchmarks._device_cost

The roofline of `benchmarks._roofline`, operator by operator, as a CUDA graph replays them; processors that small operators
leave idle are not counted, nor are ditto's own kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from benchmarks._roofline import Device, Work, counted, seconds
from ditto.engines.networks import example_of
from ditto.engines.torch_engine import arguments_of
from ditto.full.networks.decoder import SpadeDecoder, fold_spectral_norm
from ditto.full.networks.hubert import Hubert
from ditto.full.networks.lmdm import LMDM, ddim_schedule
from ditto.full.networks.lmdm_fast import FastLMDM
from ditto.full.networks.neural_renderer import NeuralRenderer
from ditto.full.networks.warping import WarpingNetwork
from ditto.full.sampler import LATENCIES, STREAM
from ditto.full.sizes import FRAMES_KEPT
from ditto.motion.motion import FPS

STEPS = 10  # of DDIM, as published for streams
WINDOW_FRAMES = LATENCIES[STREAM].hop  # new frames of a window of motion
# NVIDIA's data sheets, dense: float32 without TF32, float16 of the tensor cores; bytes a second of memory.
DEVICES = {
    ("A100", "float32"): Device("A100", 19.5e12, 2.039e12, 0, 4),
    ("A100", "float16"): Device("A100", 312e12, 2.039e12, 0, 2),
    ("H200", "float32"): Device("H200", 67e12, 4.8e12, 0, 4),
    ("H200", "float16"): Device("H200", 989e12, 4.8e12, 0, 2),
}
PAPER_A100 = {"hubert": 23.0, "lmdm_fast": 62.0, "renderer": 15.0}  # ms, with TensorRT: arXiv:2411.19509, table of times
PAPER_STREAM = {"real_time_factors": (0.635, 0.895), "first_frame_ms": 385.0}  # likewise
RUN_IN = {"hubert": "float32", "lmdm_fast": "float32", "renderer": "float16"}  # as ditto runs them with precision="float16"


def networks() -> dict[str, nn.Module]:
    """The networks that run for every stream, of the published sizes and without weights."""
    schedule = ddim_schedule(STEPS)
    with torch.device("meta"):
        decoder = SpadeDecoder()
        fold_spectral_norm(decoder)
        warping, motion = WarpingNetwork(), FastLMDM(LMDM(), schedule)
        return {"hubert": Hubert(), "lmdm_fast": motion, "renderer": NeuralRenderer(warping, decoder)}


def work_of(network: nn.Module, size: int = 64) -> Work:
    """A forward of one row through a network on the meta device; `size` as of `example_of`."""
    example = example_of(network, size=size)
    given = {name: value.to("meta") for name, value in example.inputs.items()}
    arguments = [pick(given) for pick in arguments_of(network, example.inputs)]
    return counted(lambda: network.eval()(*arguments))[1]


def stream_of(milliseconds: Mapping[str, float]) -> dict[str, float]:
    """Real-time factor and first frame of a stream: 0.2 s of HuBERT a call, a window of motion, every frame rendered.

    The first frame takes two calls of HuBERT after the last sample that it waits for, a window and a rendering.
    """
    hubert, motion, render = (milliseconds[name] for name in RUN_IN)
    each = hubert / FRAMES_KEPT + motion / WINDOW_FRAMES + render
    return {"real_time_factor": round(each * FPS / 1e3, 4), "first_frame_ms": round(2 * hubert + motion + render, 1)}


def predictions(of: Callable[[], Mapping[str, nn.Module]] = networks, size: int = 64) -> dict[str, dict[str, Any]]:
    """What is counted of each network, its predicted ms by GPU and precision, and the paper's; then streams by GPU."""
    works = {name: work_of(network, size) for name, network in of().items()}
    ms = {
        name: {key: round(1e3 * seconds(work, device, graph=True), 3) for key, device in DEVICES.items()}
        for name, work in works.items()
    }
    found: dict[str, dict[str, Any]] = {
        name: {
            "gflop": round(float(work.flops.sum()) / 1e9, 1), "operators": work.operators,
            "millions_of_numbers_moved": round(float(work.numbers.sum()) / 1e6, 1),
            "predicted_ms": {", ".join(key): value for key, value in ms[name].items()}, "paper_a100_ms": PAPER_A100[name],
        }
        for name, work in works.items()
    }  # fmt: skip
    for gpu in ("A100", "H200"):
        found[f"stream, {gpu}"] = {
            "predicted": stream_of({name: ms[name][gpu, precision] for name, precision in RUN_IN.items()}),
            "paper_a100": PAPER_STREAM,
        }
    return found


if __name__ == "__main__":
    for name, about in predictions().items():
        print(f"{name}: {about}")
