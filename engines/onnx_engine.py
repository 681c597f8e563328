"""ONNX Runtime with its CPU, CUDA or TensorRT provider. It never falls back to another provider silently."""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ditto.errors import EngineError
from ditto.privacy import import_onnxruntime

from . import Tensor
from .cache import cache_folder, explain

if TYPE_CHECKING:  # `run` alone needs torch
    import torch

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
GPU_BUILD = "onnxruntime-gpu>=1.25"  # the first whose CUDA provider has GridSample with five axes (volumes)
# The builds of ONNX Runtime share one import name and one folder: the one installed last overwrites the other.
REPLACE = f"pip uninstall -y onnxruntime onnxruntime-gpu, then pip install '{GPU_BUILD}'"
INSTALL = {"cpu": "pip install onnxruntime", "cuda": REPLACE, "tensorrt": f"{REPLACE} tensorrt"}
DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(bool)": np.dtype(np.bool_),
}


class OnnxEngine:
    """A network run by ONNX Runtime, one call at a time, deterministically.

    Args:
        path: an ONNX or ORT format file.
        threads: on the CPU.
        provider: one of `PROVIDERS`. A network that it cannot run completely is refused, not split with the CPU.
        index: of the GPU.
        cache: where the TensorRT provider keeps its engines and timings; None: `cache_folder()`.
        sizes: of free axes, by their names. ONNX Runtime then folds what computes shapes before it gives nodes to a provider;
            CUDA leaves such nodes to the CPU, and a network that needs both is refused here.

    Raises:
        EngineError: ONNX Runtime is not installed, refuses the file, or cannot run it on the provider.
    """

    def __init__(
        self,
        path: Path,
        threads: int = 1,
        provider: str = "cpu",
        index: int = 0,
        cache: Path | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        onnxruntime = require_provider(provider, path.name)
        expected = PROVIDERS[provider]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        # Idle workers must not spin on the cores that the renderer needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for axis, size in (sizes or {}).items():
            options.add_free_dimension_override_by_name(axis, size)
        if provider != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            if provider != "cpu":
                preload(onnxruntime)
            session = onnxruntime.InferenceSession(
                str(path), options, providers=[(expected, provider_options(provider, index, cache))]
            )
        except Exception as error:  # ONNX Runtime raises a family of types that share only Exception
            raise EngineError(
                f"expected a network that ONNX Runtime {onnxruntime.__version__} can run on {expected}, got {path}: "
                f"{first_line(error)}; {advice(onnxruntime.__version__, provider)}"
            ) from error
        session.disable_fallback()
        used = session.get_providers()
        if not used or used[0] != expected:
            raise EngineError(
                f"expected ONNX Runtime to run {path.name} on {expected}, got {', '.join(used) or 'no provider'}; "
                f"{INSTALL[provider]}, or set device='cpu'"
            )
        self.path = path
        self._place = ("cpu" if provider == "cpu" else "cuda", index)
        self.inputs = tuple(describe(node) for node in session.get_inputs())
        self.outputs = tuple(describe(node) for node in session.get_outputs())
        self._dtypes = {tensor.name: tensor.dtype for tensor in self.inputs}
        self._output_names = [tensor.name for tensor in self.outputs]
        self._session = session

    def __call__(self, **arrays: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Run the network once. Dots in names (state.keys) are passed as `**{"state.keys": ...}`.

        Raises:
            EngineError: a name is missing or unknown, a type is another one, or a shape does not fit.
        """
        self._check({name: array.dtype for name, array in arrays.items()})
        with self._explain({name: array.shape for name, array in arrays.items()}):
            results = self._session.run(self._output_names, arrays)
        return dict(zip(self._output_names, results, strict=True))

    @property
    def device(self) -> torch.device:
        """Where `run` takes tensors and leaves them."""
        import torch

        return torch.device("cpu") if self._place[0] == "cpu" else torch.device(*self._place)

    def run(self, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        """The same with tensors in and out, which stay on the provider's device: ONNX Runtime reads and writes their memory.

        Raises:
            EngineError: as a call, or the size of an output is free.
        """
        import torch

        from .torch_engine import describe as describe_tensor

        self._check({name: describe_tensor(name, value).dtype for name, value in tensors.items()})
        free = [f"{tensor.name} {tensor.shape}" for tensor in self.outputs if any(isinstance(n, str) for n in tensor.shape)]
        if free:
            raise EngineError(
                f"{self.path.name}: expected outputs of fixed sizes, got {', '.join(free)}; open it with `shape`, or "
                "export it with fixed sizes"
            )
        kind, index = self._place
        binding, device = self._session.io_binding(), self.device
        placed = {name: value.to(device).contiguous() for name, value in tensors.items()}
        results = {
            tensor.name: torch.empty([int(n) for n in tensor.shape], dtype=getattr(torch, tensor.dtype.name), device=device)
            for tensor in self.outputs
        }
        if kind == "cuda":  # ONNX Runtime has a stream of its own, and ends when that has ended
            torch.cuda.current_stream(device).synchronize()
        with self._explain({name: tuple(value.shape) for name, value in placed.items()}):
            for name, value in placed.items():
                binding.bind_input(name, kind, index, self._dtypes[name], tuple(value.shape), value.data_ptr())
            for tensor in self.outputs:
                memory = results[tensor.name].data_ptr()
                binding.bind_output(tensor.name, kind, index, tensor.dtype, tensor.shape, memory)
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        return results

    def _check(self, came: Mapping[str, np.dtype[Any]]) -> None:
        if came.keys() != self._dtypes.keys():
            missing, unknown = self._dtypes.keys() - came.keys(), came.keys() - self._dtypes.keys()
            raise EngineError(
                f"{self.path.name}: expected the inputs {', '.join(self._dtypes)}, got missing: "
                f"{', '.join(sorted(missing)) or 'none'}, unknown: {', '.join(sorted(unknown)) or 'none'}; pass each by name"
            )
        for name, dtype in self._dtypes.items():
            if came[name] != dtype:
                raise EngineError(f"{self.path.name}: expected {name} to be {dtype}, got {came[name]}; convert it")

    @contextlib.contextmanager
    def _explain(self, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[None]:
        """Turn what ONNX Runtime raises in a call into an error that names the shapes."""
        try:
            yield
        except Exception as error:  # as in __init__
            expected = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in self.inputs)
            came = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise EngineError(
                f"{self.path.name}: expected {expected}, got {came}: {first_line(error)}; give arrays of these shapes"
            ) from error


def require_provider(provider: str, what: str) -> Any:
    """The onnxruntime module, with one of `PROVIDERS`; `what` needs it, for messages.

    Raises:
        EngineError: ONNX Runtime is not installed, or its build lacks the provider.
    """
    expected = PROVIDERS[provider]
    try:
        onnxruntime = import_onnxruntime()
        there = onnxruntime.get_available_providers()
    except ImportError as error:
        raise EngineError(f"expected ONNX Runtime for {what}, got: {error}; {INSTALL[provider]}") from error
    except AttributeError as error:  # the folder that is left when one of two builds is uninstalled
        again = f"pip uninstall -y onnxruntime onnxruntime-gpu, then {INSTALL['cpu']}" if provider == "cpu" else REPLACE
        raise EngineError(f"expected ONNX Runtime for {what}, got parts of it ({error}); {again}") from error
    if expected not in there:
        builds = installed_builds()
        got = f"{' and '.join(builds)} in one folder, which " if len(builds) > 1 else ""
        raise EngineError(
            f"expected {expected} for {what}, got {got}ONNX Runtime {onnxruntime.__version__} with {', '.join(there)}; "
            f"{INSTALL[provider]}, or set device='cpu'"
        )
    return onnxruntime


def installed_builds() -> list[str]:
    """Names of the installed distributions that provide `onnxruntime`; two or more overwrite each other's files."""
    return sorted(set(importlib.metadata.packages_distributions().get("onnxruntime", [])))


def preload(onnxruntime: Any) -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels, where the system has none (ONNX Runtime 1.21 and later).

    ONNX Runtime prints what it cannot load. That goes to stderr here, because stdout belongs to the program.
    """
    load = getattr(onnxruntime, "preload_dlls", None)
    if load is not None:
        with contextlib.redirect_stdout(sys.stderr):
            load()


def advice(version: str, provider: str) -> str:
    """What to do about a network that this version of ONNX Runtime refuses."""
    oldest = tuple(int(part) for part in GPU_BUILD.partition(">=")[2].split("."))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if provider == "cuda" and numbers < oldest:
        return f"GridSample with five axes runs on CUDA since 1.25: pip install -U '{GPU_BUILD}'"
    return "run `ditto bundle verify` to see whether the file is damaged"


def provider_options(provider: str, index: int, cache: Path | None) -> dict[str, str]:
    """ONNX Runtime's options for a provider.

    Raises:
        EngineError: the cache folder of the TensorRT provider cannot be made.
    """
    if provider == "cpu":
        return {}
    options = {"device_id": str(index)}
    if provider == "cuda":
        options["use_tf32"] = "0"
    else:
        folder = cache or cache_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EngineError(explain(error, folder)) from error
        options |= {
            "trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "1", "trt_timing_cache_path": str(folder),
        }  # fmt: skip
    return options


def free_axes(path: Path, shape: tuple[int, ...]) -> dict[str, int]:
    """Names of the free axes of a file's only input, with their sizes when it has that shape.

    Raises:
        EngineError: the file has several inputs, or none of that shape.
    """
    inputs = OnnxEngine(path).inputs
    if len(inputs) == 1 and len(inputs[0].shape) == len(shape):
        pairs = list(zip(inputs[0].shape, shape, strict=True))
        if all(axis == size or isinstance(axis, str) for axis, size in pairs):
            return {axis: size for axis, size in pairs if isinstance(axis, str)}
    got = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in inputs)
    raise EngineError(f"expected {path.name} to have one input that can be {shape}, got {got}; export it again")


def describe(node: Any) -> Tensor:
    """Name, type and shape of one of ONNX Runtime's `NodeArg`s."""
    if node.type not in DTYPES:
        raise EngineError(
            f"expected {node.name} to be one of {', '.join(DTYPES)}, got {node.type}; export the network again"
        )
    shape = tuple(size if isinstance(size, int) else str(size or "?") for size in node.shape)
    return Tensor(node.name, DTYPES[node.type], shape)


def first_line(error: Exception) -> str:
    """The first line of an error's message; ONNX Runtime adds pages to it."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
