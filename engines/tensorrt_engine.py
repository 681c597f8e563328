"""TensorRT: builds an ONNX file into a plan for one GPU, keeps the plan, and builds it again when a dependency changes.

Written against the documented API (docs.nvidia.com/deeplearning/tensorrt, Python API) and not yet run on TensorRT itself.
Networks are strongly typed, which is the only kind that TensorRT 11 has: the precision is that of the ONNX file.
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
WORKSPACE = 0.8  # of the free memory, for the algorithms that a build tries; the other engines need some too
OLDEST = (11, 2)  # the first whose GridSample takes five axes (release notes)


class TensorRTEngine:
    """A network with fixed shapes in TensorRT.

    Args:
        path: an ONNX file; the plan has its weights, precision and shapes.
        device: "cuda" or "cuda:1".
        folder: where plans and timings are kept.

    Raises:
        EngineError: TensorRT is not installed or too old, the GPU does not exist or has too little memory, or the network
            cannot be built.
    """

    def __init__(self, path: Path, device: str = "cuda", folder: Path | None = None) -> None:
        self.device = torch_device(device)
        trt = import_tensorrt()
        self.path = path
        self._lock = threading.Lock()
        with torch.cuda.device(self.device):  # TensorRT builds for, loads on and runs on the current GPU
            self._open(trt, folder or cache_folder())

    def _open(self, trt: Any, folder: Path) -> None:
        """Build or read the plan, load it, and allocate its buffers. The current GPU must be this engine's."""
        logger = trt.Logger(trt.Logger.ERROR)
        plan = plan_of(trt, logger, self.path, self.device, folder)
        self._runtime = trt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                f"expected TensorRT {trt.__version__} to load the plan of {self.path.name} on {self.device}, got an error; "
                "the GPU has too little memory, or another driver: free memory, or delete the plan"
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            free, _ = torch.cuda.mem_get_info(self.device)
            raise EngineError(
                f"{self.path.name}: expected {self._engine.device_memory_size_v2 / 2**30:.2f} GiB free on {self.device}, got "
                f"{free / 2**30:.2f} GiB; open it with an example of a smaller batch"
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
        """Run the network once; arrays or tensors in, arrays out.

        Raises:
            EngineError: a name, type or shape differs from `inputs`.
        """
        results = self.run(**{name: as_tensor(name, value) for name, value in arrays.items()})
        return {name: value.cpu().numpy() for name, value in results.items()}

    def run(self, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        """The same with tensors in and out, which stay on the GPU."""
        came = {describe(name, value) for name, value in tensors.items()}
        if came != set(self.inputs):
            raise EngineError(f"{self.path.name}: expected {self.inputs}, got {sorted(came)}; convert them")
        made_on = torch.cuda.current_stream(self.device)  # the caller's: there its inputs are made
        with self._lock, torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            self._stream.wait_stream(made_on)
            for name, value in tensors.items():
                self._buffers[name].copy_(value, non_blocking=True)
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise EngineError(f"expected TensorRT to run {self.path.name}, got an error; its log says why")
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
        raise EngineError(f"expected TensorRT, got: {error}; pip install tensorrt, or set backend='torch'") from error
    version = tuple(int(part) for part in tensorrt.__version__.split(".")[:2])
    if version < OLDEST:
        raise EngineError(
            f"expected TensorRT {'.'.join(map(str, OLDEST))} or later (five-axis GridSample), got {tensorrt.__version__}; "
            "pip install -U tensorrt, or set backend='torch'"
        )
    return tensorrt


def plan_of(trt: Any, logger: Any, path: Path, device: torch.device, folder: Path) -> bytes:
    """The plan of an ONNX file for the current GPU: the cached one if its dependencies match, else a new one.

    Raises:
        EngineError: it cannot be built. A plan that cannot be cached is used all the same; the log says so.
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
    """Build a plan of an ONNX file; TensorRT's timing cache is kept for the next network.

    Raises:
        EngineError: TensorRT refuses the file or builds no plan; the message has its first reason.
    """
    builder = trt.Builder(logger)
    strongly = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly is None else 1 << int(strongly))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        reason = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise EngineError(
            f"expected a network that TensorRT {trt.__version__} can parse, got {path.name}: {reason}; set backend='torch'"
        )
    config = builder.create_builder_config()
    free, _ = torch.cuda.mem_get_info()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(WORKSPACE * free))
    config.progress_monitor = progress_of(trt, path.name)
    known = timing.read_bytes() if timing.is_file() else b""
    config.set_timing_cache(config.create_timing_cache(known) or config.create_timing_cache(b""), False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"expected a plan of {path.name} from TensorRT {trt.__version__}, got none; its log says why. The usual reason is "
            "too little memory on the GPU: free memory, or open it with an example of a smaller batch"
        )
    timed = bytes(config.get_timing_cache().serialize())
    try:
        build_once(timing, lambda part: write_bytes(part, timed), usable=lambda _: False)
    except EngineError as unwritable:
        log.warning("TensorRT's timings are not kept: %s", unwritable)
    return bytes(plan)


def progress_of(trt: Any, name: str) -> Any:
    """A monitor of a build, which takes minutes: the log says which of its phases begins."""

    class Progress(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            log.info("%s: TensorRT begins %r, %d steps", name, phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            log.debug("%s: TensorRT did step %d of %r", name, step + 1, phase_name)
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            log.debug("%s: TensorRT finished %r", name, phase_name)

    return Progress()


def names_of(engine: Any) -> list[str]:
    """Names of a plan's inputs and outputs, in order."""
    return [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
