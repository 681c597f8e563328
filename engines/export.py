"""torch networks to ONNX files, each checked against torch before it appears.

torch's exporter over `torch.export` is used: the older one, which traces, gave a motion transformer 0.3 off.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ditto import __version__
from ditto.errors import EngineError
from ditto.media.files import complete_file, partial_file

from .cache import build_once, cache_folder, digest_weights, file_name
from .networks import Example
from .onnx_engine import OnnxEngine
from .torch_engine import arguments_of, flatten, fold_parametrizations

OPSET = 20  # the first whose GridSample takes five axes
TOLERANCE = {"float32": 1e-3, "float16": 2e-2}  # relative L2 distance from torch in float32
KEPT_FLOAT32 = ("GridSample",)  # coordinates in half precision are a pixel off


class Flat(nn.Module):
    """A network whose states are plain arguments and results."""

    def __init__(self, network: nn.Module, example: Example) -> None:
        super().__init__()
        self.network = network
        self.pickers = arguments_of(network, example.inputs)
        self.names = list(example.inputs)
        self.results = example.outputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Tensors in the order of the example's inputs -> all results."""
        named = dict(zip(self.names, tensors, strict=True))
        found = self.network(*(pick(named) for pick in self.pickers))
        return tuple(flatten(self.results, found).values())


def export_onnx(network: nn.Module, example: Example, file: Path, precision: str = "float32") -> None:
    """Write a network with the example's shapes as an ONNX file.

    Args:
        network: on the CPU, float32; weights computed from others (weight norm) become plain ones.
        example: inputs to export and check with.
        file: to be written; there only if the check was passed.
        precision: "float32" or "float16"; inputs and outputs stay float32.

    Raises:
        EngineError: the network cannot be exported, a package is missing, or ONNX Runtime and torch differ.
        ValueError: another precision.
    """
    if precision not in TOLERANCE:
        raise ValueError(f"ONNX files have precision {' or '.join(TOLERANCE)}, got {precision!r}")
    network.eval()
    fold_parametrizations(network)
    flat = Flat(network, example).eval()
    with torch.no_grad():
        outputs = list(flatten(example.outputs, network(*(pick(example.inputs) for pick in flat.pickers))))
    part = partial_file(file)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                flat, tuple(example.inputs.values()), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=list(example.inputs), output_names=outputs,
            )  # fmt: skip
            assert program is not None  # with dynamo=True it always is one
            program.save(str(part))
        if precision == "float16":
            to_float16(part)
        check(network, example, part, TOLERANCE[precision])
        complete_file(part, file)
    except ImportError as error:
        raise EngineError(f"exporting wants onnx and onnxscript: {error}; pip install onnx onnxscript") from error
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise EngineError(f"{type(network).__name__} cannot be exported to ONNX: {reason}") from error
    finally:
        part.unlink(missing_ok=True)


def check(network: nn.Module, example: Example, file: Path, tolerance: float) -> float:
    """The largest relative distance of a file's outputs, run by ONNX Runtime, from torch's.

    Two sets of inputs are tried: the example, and other values, which a constant left over from tracing would not follow.

    Raises:
        EngineError: it is above the tolerance; the message names the output.
    """
    engine = OnnxEngine(file)
    pickers = arguments_of(network, example.inputs)
    worst = 0.0
    for given in (example.inputs, other_values(example.inputs)):
        with torch.no_grad():
            wanted = flatten(example.outputs, network(*(pick(given) for pick in pickers)))
        found = engine(**{name: value.numpy() for name, value in given.items()})
        for name, value in wanted.items():
            size = max(float(value.double().norm()), 1e-12)
            distance = float(np.linalg.norm(found[name].astype(np.float64) - value.double().numpy())) / size
            if not distance <= tolerance:  # not a number is no pass
                raise EngineError(
                    f"{type(network).__name__} in ONNX should give what it gives in torch, relative distance "
                    f"{tolerance:g} at most; {name} differs by {distance:.2g}: the file is not kept; try other versions "
                    "of torch and onnxscript"
                )
            worst = max(worst, distance)
    return worst


def other_values(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same shapes with the numbers of each last axis turned round, whole numbers one less."""
    return {name: value.flip(-1) if value.is_floating_point() else value - 1 for name, value in inputs.items()}


def to_float16(file: Path) -> None:
    """Half-precision weights and arithmetic in an ONNX file, in place; inputs and outputs stay float32."""
    try:
        import onnx
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel
    except ImportError as error:
        raise EngineError(f"half precision wants onnx and onnxruntime: {error}; pip install onnx onnxruntime") from error
    blocked = [*DEFAULT_OP_BLOCK_LIST, *KEPT_FLOAT32]
    with quiet():
        half = convert_float_to_float16(onnx.load(str(file)), keep_io_types=True, op_block_list=blocked)
        nodes = {node.name: node for node in half.graph.node}  # a cast for two users is made twice
        del half.graph.node[:]
        half.graph.node.extend(nodes.values())
        OnnxModel(half).topological_sort()
        onnx.save(half, str(file))


def exported(network: nn.Module, example: Example, precision: str = "float32", folder: Path | None = None) -> Path:
    """A network as an ONNX file in the cache; exported first if it is not there.

    Raises:
        EngineError: as `export_onnx`; the disk is full.
    """
    shapes = ", ".join(f"{name} {tuple(value.shape)} {value.dtype}" for name, value in example.inputs.items())
    depends = {
        "weights": digest_weights(network), "shapes": shapes, "precision": precision, "opset": str(OPSET),
        "torch": str(torch.__version__), "ditto": __version__,
    }  # fmt: skip
    file = (folder or cache_folder()) / file_name(type(network).__name__.lower(), depends, ".onnx")
    return build_once(file, lambda part: export_onnx(network, example, part, precision))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's remarks on what it does inside."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "onnxruntime")
    before: dict[str, Any] = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
