"""Export the trained motion diffusion network: weights as safetensors, both halves as ONNX.

    python -m ditto.training.motion_export CHECKPOINT ditto/bundles/lite [--lip-temperature 0.5]

Weights are rounded to 16 bits first, so that the safetensors, the ONNX files (16-bit weights, 32-bit arithmetic) and a
torch module loaded from either agree.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save
from torch import Tensor, nn

from ditto.bundle import Bundle, Part, check_sizes, read_config, read_tensors, reseal, seal, weight_shapes
from ditto.commands import Arguments, run
from ditto.errors import BundleError
from ditto.full.networks.weights import load_state
from ditto.lite.networks.motion_diffusion import (
    CANONICAL_SIZE,
    EMOTION_SIZE,
    EYE_SIZE,
    FEATURE_SIZE,
    MOTION_SIZE,
    WINDOW,
    MotionCondition,
    MotionDiffusion,
    MotionDiffusionConfig,
)
from ditto.lite.postprocess import PostprocessConfig
from ditto.media.files import check_folder
from ditto.motion.motion import BROWS, DEGREES, EXPRESSION, EYES, KEYPOINTS
from ditto.training.articulation import MOUTH_KEYPOINTS
from ditto.training.dataset import unwritable
from ditto.training.runs import read_checkpoint

OPSET = 17
SAMPLER_PREFIX = "sampler."
PER_FRAME = ("features", "eyes", "motion", "known", "condition", "clean")  # arguments and answers that are (B, T, ...)
# Pitch, yaw, roll, and brows: set so that heads and brows of rendered talk move as MediaPipe sees them move in natural talk
# (`python -m benchmarks.life --face-landmarker FILE`). The renderer shows less yaw than it is asked for.
HEAD_TEMPERATURE, BROW_TEMPERATURE = (1.2, 1.5, 1.25), 1.1


def temperature(lips: float) -> npt.NDArray[np.float32]:
    """(70,) spread of the starting noise: `lips` for mouth and eyes, which follow the conditions, about one for the rest."""
    t = np.ones(MOTION_SIZE, np.float32)
    t[DEGREES] = HEAD_TEMPERATURE
    t[EXPRESSION].reshape(KEYPOINTS, 3)[list(BROWS)] = BROW_TEMPERATURE
    t[EXPRESSION].reshape(KEYPOINTS, 3)[[*MOUTH_KEYPOINTS, *EYES]] = lips
    return t


def half(model: nn.Module) -> None:
    """Round everything that is saved to the nearest 16-bit float, in place."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(tensor.half().float())


def export_onnx(module: nn.Module, arguments: dict[str, Tensor], output: str, path: Path) -> None:
    """Write one module as ONNX with named inputs, free batch size and length, and 16-bit weights."""
    module.eval()
    names = list(arguments)
    torch.onnx.export(
        module,
        tuple(arguments.values()),
        str(path),
        input_names=names,
        output_names=[output],
        dynamic_axes={
            name: {0: "batch", 1: "frames"} if name in PER_FRAME else {0: "batch"} for name in [*names, output]
        },
        opset_version=OPSET,
        dynamo=False,
    )
    model = onnx.load(str(path))
    _halve_weights(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _halve_weights(model: Any) -> None:
    """Store large 32-bit initialisers that lose nothing as 16 bits, cast back when the graph is loaded."""
    graph = model.graph
    casts = []
    for weight in list(graph.initializer):
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        if values.size < 64 or not np.array_equal(values.astype(np.float16).astype(np.float32), values):
            continue
        name = weight.name
        graph.initializer.remove(weight)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), f"{name}.16"))
        casts.append(helper.make_node("Cast", [f"{name}.16"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def example_arguments(config: MotionDiffusionConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Arguments of the condition half and of the denoising half."""
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(2, *shape, generator=generator)

    first = {
        "features": some(WINDOW, FEATURE_SIZE),
        "emotion": some(EMOTION_SIZE),
        "eyes": some(WINDOW, EYE_SIZE),
        "canonical": some(CANONICAL_SIZE),
        "speech_mask": torch.tensor([[1.0], [0.0]]),
    }
    second = {
        "motion": some(WINDOW, MOTION_SIZE),
        "known": torch.zeros(2, WINDOW, 1),
        "condition": some(WINDOW, config.width),
        "level": torch.tensor([[0.9], [0.1]]),
    }
    return first, second


def write(
    model: MotionDiffusion,
    scale: npt.NDArray[np.float32],
    silence: npt.NDArray[np.float32],
    spread: npt.NDArray[np.float32],
    folder: Path,
    short: MotionCondition | None = None,
) -> None:
    """Write `motion.safetensors`, `motion.onnx`, `motion_condition.onnx` and `motion_condition_short.onnx` into a folder.

    Without `short`, the condition half also stands in as the one for short look-ahead, until
    `ditto.training.motion_short` teaches one.
    """
    half(model)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, npt.NDArray[np.floating]] = {
        name: t.detach().cpu().numpy().astype(np.float16) for name, t in model.state_dict().items()
    }
    for name, values in (("scale", scale), ("silence", silence), ("temperature", spread)):
        tensors[SAMPLER_PREFIX + name] = np.asarray(values, np.float32)
    (folder / "motion.safetensors").write_bytes(save(tensors))  # `save_file` lets only the owner read it
    first, second = example_arguments(model.config)
    export_onnx(model.condition, first, "condition", folder / "motion_condition.onnx")
    export_onnx(model.denoiser, second, "clean", folder / "motion.onnx")
    write_short(model.condition if short is None else short, model.config, folder)


def write_short(short: MotionCondition, config: MotionDiffusionConfig, folder: Path) -> None:
    """Write `motion_condition_short.onnx` into a folder, weights rounded to 16 bits."""
    half(short)
    arguments, _ = example_arguments(config)
    export_onnx(short, arguments, "condition", folder / "motion_condition_short.onnx")
    reseal(folder)


def make_bundle(
    base: Bundle,
    folder: Path,
    model: MotionDiffusion,
    scale: npt.NDArray[np.float32],
    silence: npt.NDArray[np.float32],
    short: MotionCondition | None,
    origin: str,
    postprocess: PostprocessConfig | None = None,
) -> Bundle:
    """A copy of a lite bundle with another motion network; it appears whole. A folder of that name is replaced.

    Args:
        base: the bundle that gives all other parts, and the spread of the starting noise.
        folder: of the new bundle.
        model, scale, silence, short: as in `write`.
        origin: what `bundle.json` says about where the motion network comes from.
        postprocess: numbers that were measured on the new network; those of the base by default.

    Raises:
        OutputError: it cannot be written.
    """
    temperature = dict(read_tensors(base.part("motion").file("weights"), SAMPLER_PREFIX))[
        SAMPLER_PREFIX + "temperature"
    ]
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".bundle.", dir=folder.parent))
        for name, described in base.parts.items():
            for path in described.files.values() if name != "motion" else ():
                shutil.copyfile(path, part / path.name)
        bundle = json.loads((base.path / "bundle.json").read_text(encoding="utf-8"))
        bundle["origin"] = f"{origin}; other parts: {bundle['origin']}"
        bundle["parts"]["motion"]["config"] = asdict(model.config)
        if postprocess is not None:
            bundle["parts"]["postprocess"]["config"] = asdict(postprocess)
        write(model, scale, silence, temperature, part, short)
        (part / "bundle.json").write_text(json.dumps(bundle), encoding="utf-8")
        seal(part)
        part.chmod(0o777 & ~_umask())
        if folder.exists():
            shutil.rmtree(folder)
        part.replace(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        if part is not None and part.exists():
            shutil.rmtree(part, ignore_errors=True)
    return Bundle.open(folder)


def _umask() -> int:
    mask = os.umask(0)  # it can be read only by changing it
    os.umask(mask)
    return mask


def motion_config(part: Part) -> MotionDiffusionConfig:
    """The sizes of a bundle's motion network. Raises BundleError: sizes that its weights do not have."""
    where = f"bundle.json, part {part.name!r}"
    config = read_config(MotionDiffusionConfig, part.config, where)
    check_sizes(config, weight_shapes(part.file("weights")), where)
    return config


def read_weights(path: Path, config: MotionDiffusionConfig) -> MotionDiffusion:
    """The network from `motion.safetensors`, for fine-tuning or comparison."""
    tensors = {k: v for k, v in load_file(str(path)).items() if not k.startswith(SAMPLER_PREFIX)}
    model = MotionDiffusion(config)
    load_state(model, {k: torch.from_numpy(v.astype(np.float32)) for k, v in tensors.items()}, path)
    model.eval()
    return model


def read_condition(path: Path, config: MotionDiffusionConfig) -> MotionCondition:
    """A condition half from its ONNX file: that for short look-ahead has no other.

    Raises:
        BundleError: the file cannot be read, or is not a condition half of this size.
    """
    module = MotionCondition(config)
    try:
        graph = onnx.load(str(path)).graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        made_by = {output: node for node in graph.node for output in node.output}

        def constant(name: str) -> npt.NDArray[Any]:
            while name not in constants:  # behind the cast from 16 bits
                name = made_by[name].input[0]
            return np.array(constants[name], np.float32)

        def matrix(layer: str) -> npt.NDArray[Any]:
            """Matrices have lost their names: the one whose product a layer's bias is added to, transposed back."""
            (add,) = (node for node in graph.node if node.op_type == "Add" and f"{layer}.bias" in node.input)
            (product,) = (name for name in add.input if name != f"{layer}.bias")
            return constant(made_by[product].input[1]).T

        linear = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Linear)}
        state = {
            name: torch.from_numpy(matrix(name.removesuffix(".weight")) if name in linear else constant(name))
            for name in module.state_dict()
        }
        module.load_state_dict(state)
    except Exception as error:  # onnx.load raises errors of protobuf
        raise BundleError(
            f"expected a condition half of the motion network in {path}, got: {' '.join(str(error).split())[:200]}; "
            "get the bundle again"
        ) from error
    return module.eval()


def main() -> None:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lip-temperature", type=float, default=0.5)
    options = parser.parse_args()
    check_folder(options.folder)
    saved = read_checkpoint(options.checkpoint)
    model = MotionDiffusion(MotionDiffusionConfig(**saved["config"]))
    load_state(model, saved["model"], options.checkpoint)
    scale, silence = (saved["units"][name].numpy() for name in ("scale", "silence"))
    write(model, scale, silence, temperature(options.lip_temperature), options.folder)
    for name in ("motion.safetensors", "motion_condition.onnx", "motion.onnx"):
        print(f"{name}: {(options.folder / name).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    run(main)
