"""TensorRT: an ONNX file built into a plan for this very GPU, kept, and built again when anything it depends on changes.

Written against the documented API (docs.nvidia.com/deeplearning/tensorrt, Python API) and not yet run: no machine with
TensorRT was at hand. Networks are strongly typed, as TensorRT 11 has them only: precision is that of the ONNX file.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ditto.errors import EngineError

from .cache import build_once, cache_folder, file_name, read_plan, write_bytes, write_plan
from .torch_engine import as_tensor, describe, torch_device

log = logging.getLogger(__name__)
OLDEST = (11, 2)  # the first whose GridSample takes five axes


class TensorRTEngine:
    """A network with fixed shapes in TensorRT.

    Args:
        path: an ONNX file; its weights, precision and shapes are the plan's.
        device: "cuda" or "cuda:1".
        folder: where plans and timings are kept.

    Raises:
        EngineError: TensorRT is not installed or too old, there is no such GPU, the network cannot be built, or its
            memory does not suffice.
    """

    def __init__(self, path: Path, device: str = "cuda", folder: Path | None = None) -> None:
        self.device = torch_device(device)
        trt = import_tensorrt()
        self.path = path
        self._lock = threading.Lock()
        with torch.cuda.device(self.device):  # TensorRT builds for, loads on and runs on the current GPU
            self._open(trt, folder or cache_folder())

    def _open(self, trt: Any, folder: Path) -> None:
        """Build or read the plan, load it, and give it its buffers. The current GPU is this engine's."""
        logger = trt.Logger(trt.Logger.ERROR)
        plan = plan_of(trt, logger, self.path, self.device, folder)
        self._runtime = trt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                f"TensorRT {trt.__version__} cannot load the plan of {self.path.name} on {self.device}: too little memory on "
                "the GPU, or another driver; free memory, or delete the plan"
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            free, _ = torch.cuda.mem_get_info(self.device)
            raise EngineError(
                f"{self.path.name} wants {self._engine.device_memory_size_v2 / 2**30:.2f} GiB on {self.device} to run in, "
                f"{free / 2**30:.2f} GiB are free; open it with an example of a smaller batch"
            )
        self._buffers = {name: self._buffer(trt, name) for name in names_of(self._engine)}
        given = {n for n in self._buffers if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT}
        self.inputs = tuple(describe(n, b) for n, b in self._buffers.items() if n in given)
        self.outputs = tuple(describe(n, b) for n, b in self._buffers.items() if n not in given)
        self._stream = torch.cuda.Stream(self.device)
        for name, buffer in self._buffers.items():
            self._context.set_tensor_address(name, buffer.data_ptr())

    def _buffer(self, trt: Any, name: str) -> torch.Tensor:
        """Device memory of one input or output."""
        dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
        shape = tuple(self._engine.get_tensor_shape(name))
        return torch.zeros(shape, dtype=getattr(torch, dtype.name), device=self.device)

    def __call__(self, **arrays: Any) -> dict[str, npt.NDArray[Any]]:
        """Run the network once; arrays or tensors in, arrays out. Raises EngineError: another name, type or shape."""
        results = self.run(**{name: as_tensor(name, value) for name, value in arrays.items()})
        return {name: value.cpu().numpy() for name, value in results.items()}

    def run(self, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        """As calling the engine, tensors in and out, which stay on the GPU."""
        came = {describe(name, value) for name, value in tensors.items()}
        if came != set(self.inputs):
            raise EngineError(f"{self.path.name} takes {self.inputs}; got {sorted(came)}")
        with self._lock, torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            self._stream.wait_stream(torch.cuda.default_stream(self.device))
            for name, value in tensors.items():
                self._buffers[name].copy_(value, non_blocking=True)
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise EngineError(f"TensorRT could not run {self.path.name}; its log says why")
            results = {tensor.name: self._buffers[tensor.name].clone() for tensor in self.outputs}
            self._stream.synchronize()
        return results


def import_tensorrt() -> Any:
    """The tensorrt module.

    Raises:
        EngineError: it is missing, or too old.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise EngineError(f"TensorRT is wanted: {error}; pip install tensorrt, or take backend='torch'") from error
    version = tuple(int(part) for part in tensorrt.__version__.split(".")[:2])
    if version < OLDEST:
        raise EngineError(
            f"TensorRT {'.'.join(map(str, OLDEST))} or later is wanted (five-axis GridSample), {tensorrt.__version__} is "
            "installed; pip install -U tensorrt, or take backend='torch'"
        )
    return tensorrt


def plan_of(trt: Any, logger: Any, path: Path, device: torch.device, folder: Path) -> bytes:
    """The plan of an ONNX file for a GPU, the current one: the kept plan if it was made for just this, else a new one.

    Raises:
        EngineError: it cannot be built. That it cannot be kept is only logged.
    """
    gpu = torch.cuda.get_device_properties(device)
    depends = {
        "network": hashlib.sha256(path.read_bytes()).hexdigest(), "tensorrt": str(trt.__version__),
        "gpu": f"{gpu.name}, compute {gpu.major}.{gpu.minor}", "cuda": str(torch.version.cuda),
    }  # fmt: skip
    file = folder / file_name(path.stem, depends, ".plan")
    built: list[bytes] = []

    def usable(found: Path) -> bool:
        if not found.is_file():
            return False
        try:
            read_plan(found, depends)
        except EngineError as mismatch:
            log.warning("%s; building it again", mismatch)
            return False
        return True

    def build(part: Path) -> None:
        built.append(build_plan(trt, logger, path, folder / f"timing-{trt.__version__}.cache"))
        write_plan(part, depends, built[0])

    try:
        build_once(file, build, usable)
    except EngineError as unwritable:
        if not built:
            raise
        log.warning("the plan of %s is used but not kept: %s", path.name, unwritable)
    return built[0] if built else read_plan(file, depends)


def build_plan(trt: Any, logger: Any, path: Path, timing: Path) -> bytes:
    """Let TensorRT choose kernels for an ONNX file; what it times is kept for the next network.

    Raises:
        EngineError: the file is refused or no plan comes out; the message has TensorRT's first reason.
    """
    builder = trt.Builder(logger)
    strongly = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly is None else 1 << int(strongly))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        reason = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise EngineError(f"TensorRT {trt.__version__} refuses {path.name}: {reason}")
    config = builder.create_builder_config()
    known = timing.read_bytes() if timing.is_file() else b""
    config.set_timing_cache(config.create_timing_cache(known) or config.create_timing_cache(b""), False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"TensorRT {trt.__version__} builds no plan of {path.name}; its log says why, too little memory on the GPU is "
            "the usual reason: free memory, or open it with an example of a smaller batch"
        )
    timed = bytes(config.get_timing_cache().serialize())
    try:
        build_once(timing, lambda part: write_bytes(part, timed), usable=lambda _: False)
    except EngineError as unwritable:
        log.warning("TensorRT's timings are not kept: %s", unwritable)
    return bytes(plan)


def names_of(engine: Any) -> list[str]:
    """Names of a plan's inputs and outputs, in order."""
    return [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
