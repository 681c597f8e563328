"""Export torch networks to ONNX. Each file is compared with torch before it gets its name.

This uses torch's exporter over `torch.export`. The older exporter traces; its motion transformer was off by 0.3 (relative).
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

OPSET = 20  # the first whose GridSample takes five axes (onnx, Operators.md)
TOLERANCE = {"float32": 1e-3, "float16": 2e-2}  # relative L2 distance from torch in float32
KEPT_FLOAT32 = ("GridSample",)  # coordinates in half precision are off by up to a pixel


class Flat(nn.Module):
    """A network with its states flattened: plain tensors in, plain tensors out."""

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
        file: to be written; it exists only if the comparison passed.
        precision: "float32" or "float16"; inputs and outputs stay float32.

    Raises:
        EngineError: the network cannot be exported, a package is missing, or ONNX Runtime and torch differ.
        ValueError: an unknown precision.
    """
    if precision not in TOLERANCE:
        raise ValueError(f"expected precision to be {' or '.join(TOLERANCE)}, got {precision!r}; name one of them")
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
            assert program is not None  # None only with dynamo=False
            program.save(str(part))
        if precision == "float16":
            to_float16(part)
        check(network, example, part, TOLERANCE[precision])
        complete_file(part, file)
    except ImportError as error:
        raise EngineError(
            f"expected onnx and onnxscript for an export, got: {error}; pip install onnx onnxscript"
        ) from error
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise EngineError(
            f"expected {type(network).__name__} to export to ONNX, got: {reason}; set backend='torch'"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def check(network: nn.Module, example: Example, file: Path, tolerance: float) -> float:
    """The largest relative distance between a file's outputs, run by ONNX Runtime, and torch's.

    The inputs are the example, and then other values, which show an input that became a constant in the export.

    Raises:
        EngineError: the distance is above the tolerance; the message names the output.
    """
    engine = OnnxEngine(file)
    pickers = arguments_of(network, example.inputs)
    worst = 0.0
    for given in (example.inputs, other_values(example.inputs)):
        with torch.no_grad():
            expected = flatten(example.outputs, network(*(pick(given) for pick in pickers)))
        found = engine(**{name: value.numpy() for name, value in given.items()})
        for name, value in expected.items():
            size = max(float(value.double().norm()), 1e-12)
            distance = float(np.linalg.norm(found[name].astype(np.float64) - value.double().numpy())) / size
            if not distance <= tolerance:  # NaN fails too
                raise EngineError(
                    f"{type(network).__name__}: expected ONNX Runtime within a relative distance of {tolerance:g} from torch, "
                    f"got {distance:.2g} in {name}; the file is deleted: try other versions of torch and onnxscript"
                )
            worst = max(worst, distance)
    return worst


def other_values(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same shapes with other values: the last axis reversed, integers one less."""
    return {name: value.flip(-1) if value.is_floating_point() else value - 1 for name, value in inputs.items()}


def to_float16(file: Path) -> None:
    """Convert an ONNX file to half precision, in place; inputs and outputs stay float32."""
    try:
        import onnx
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel
    except ImportError as error:
        raise EngineError(
            f"expected onnx and onnxruntime for half precision, got: {error}; pip install onnx onnxruntime"
        ) from error
    blocked = [*DEFAULT_OP_BLOCK_LIST, *KEPT_FLOAT32]
    with quiet():
        half = convert_float_to_float16(onnx.load(str(file)), keep_io_types=True, op_block_list=blocked)
        nodes = {node.name: node for node in half.graph.node}  # the converter adds a cast once per consumer
        del half.graph.node[:]
        half.graph.node.extend(nodes.values())
        OnnxModel(half).topological_sort()
        onnx.save(half, str(file))


def exported(network: nn.Module, example: Example, precision: str = "float32", folder: Path | None = None) -> Path:
    """A network as an ONNX file in the cache; exports it on first use.

    Raises:
        EngineError: as `export_onnx`, or the disk is full.
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
    """Silence the exporter's progress messages."""
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
