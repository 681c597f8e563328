"""PyTorch: eager with packed weights on the CPU, CUDA graphs over fixed buffers on a GPU, or `torch.compile`."""

from __future__ import annotations

import contextlib
import inspect
import threading
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ditto.errors import EngineError

from . import Tensor

PRECISIONS = {
    "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.float32
}  # fmt: skip
WARM_UPS = 3  # calls before a CUDA graph is captured, as in torch's notes on CUDA graphs
# Opening an engine on a GPU changes settings of the whole process, and a capture is undone by what others do meanwhile.
OPENING = threading.RLock()
# How CUDA and its libraries say that memory is too small where torch does not raise `torch.OutOfMemoryError`.
NO_MEMORY = ("out of memory", "cudaErrorMemoryAllocation", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


class PackedLinear(nn.Module):
    """A linear layer with its weight packed once, as oneDNN multiplies it. float32 in and out, `dtype` inside.

    `nn.Linear` calls MKL, which packs the weight in every call and uses only AVX2 on AMD.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(dtype).contiguous())
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., inputs) -> (..., outputs)."""
        y = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, "none", [], "")
        return typing.cast(torch.Tensor, y.to(x.dtype))


class Int8Linear(nn.Module):
    """A linear layer in 8 bits: one scale per output for weights, one per call for inputs. float32 in and out."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach().float()
        self.scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        whole = torch.round(weight / self.scale[:, None]).to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(whole, None)
        self.zero = torch.zeros(len(weight), dtype=torch.long)
        self.bias = None if layer.bias is None else layer.bias.detach().float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., inputs) -> (..., outputs)."""
        scale = max(float(x.abs().amax()), 1e-12) / 127
        whole = torch.round(x / scale).add_(128).to(torch.uint8)
        y = torch.ops.onednn.qlinear_pointwise(
            whole, scale, 128, self.weight, self.scale, self.zero, self.bias, 1.0, 0, torch.float32, "none", [], ""
        )
        return typing.cast(torch.Tensor, y)


def can_pack() -> bool:
    """Whether this build of torch has the operators that `PackedLinear` calls."""
    ops = torch.ops.mkldnn
    return torch.backends.mkldnn.is_available() and all(
        hasattr(ops, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def replace_linears(network: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> None:
    """Replace every `nn.Linear` inside a network by `make(layer)`; the plain weights are released."""
    for name, child in network.named_children():
        if type(child) is nn.Linear:
            setattr(network, name, make(child))
        else:
            replace_linears(child, make)


def fold_parametrizations(network: nn.Module) -> None:
    """Replace weights that are computed in every call (weight norm) by plain ones, in place."""
    for module in network.modules():
        folded = {name: getattr(module, name).detach() for name in getattr(module, "parametrizations", ())}
        if folded:  # torch's `remove_parametrizations` breaks copies of the module
            del module.parametrizations
            module.__class__ = type(module).__bases__[0]  # torch subclassed it
            for name, value in folded.items():
                module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def put_channels_last(network: nn.Module) -> None:
    """Store the weights of every convolution with the channels innermost, in place; its output has the same layout."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for module in network.modules():
        weight = module._parameters.get("weight")
        if weight is not None and weight.ndim in layouts:
            weight.data = weight.data.to(memory_format=layouts[weight.ndim])


def store_reduced(network: nn.Module, dtype: torch.dtype) -> None:
    """Store the weights of linear layers and convolutions in a reduced precision, in place; autocast then casts none.

    Autocast keeps a cast weight only where it requires a gradient; else it would cast every weight in every call.
    """
    for module in network.modules():
        own = module._parameters
        weight = own.get("weight")
        if weight is None or weight.ndim < 2 or isinstance(module, nn.Embedding):
            continue
        for name in {"weight", "bias"} & own.keys():
            stored = own[name]
            if stored is not None:
                stored.data = stored.data.to(dtype)


@contextlib.contextmanager
def exact_math() -> Iterator[None]:
    """Float32 means float32, and cuDNN tries its deterministic algorithms and keeps the fastest, whatever the program set.

    The settings belong to the process: one engine at a time. A captured graph keeps what they were.
    """
    with OPENING, torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=True, allow_tf32=False):
        matmul = torch.backends.cuda.matmul
        new = getattr(matmul, "fp32_precision", None)  # since torch 2.9 beside the older one; each has a state of its own
        try:
            old = torch.get_float32_matmul_precision()
        except RuntimeError:  # the program set the new one alone: the older one is at its default
            old = "highest"
        matmul.allow_tf32 = False  # sets both
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(old)
            if new is not None:
                matmul.fp32_precision = new


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is a lack of memory: the end of a capture hides the first error."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        if isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


class TorchEngine:
    """A torch network with fixed shapes.

    Args:
        network: the engine modifies it: sets evaluation mode, moves it, packs its weights.
        example: name -> array or tensor of every input; gives types and shapes. Fields of a state: "state.keys".
        outputs: names of what `forward` returns; the name of a NamedTuple is the prefix of its fields, "" is no prefix.
        device: "cpu", "cuda" or "cuda:1".
        precision: "float32"; "float16" (GPU) or "bfloat16" for the operators that torch's autocast lists; "int8" (CPU)
            for linear layers. Inputs and outputs keep their types.
        threads: on the CPU; torch has one number for the whole process.
        compiled: run through `torch.compile`, which packs weights itself; the first call takes minutes.
        channels_last: store the weights of convolutions with the channels innermost, which their outputs then have too;
            None: in half precision on a GPU, whose tensor cores take them so.
        graph: on a GPU, capture the network and replay it; False: run it operator by operator, with the same results.

    Raises:
        EngineError: the device does not exist, or has too little memory; the message says what fits.
        ValueError: the example lacks an argument of `forward` or has others, or the precision is unknown.
    """

    def __init__(
        self,
        network: nn.Module,
        example: Mapping[str, Any],
        outputs: Sequence[str],
        device: str = "cpu",
        precision: str = "float32",
        threads: int = 1,
        compiled: bool = False,
        channels_last: bool | None = None,
        graph: bool = True,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(
                f"expected precision to be one of {', '.join(PRECISIONS)}, got {precision!r}; name one of them"
            )
        self.device = torch_device(device)
        if {("cpu", "float16"), ("cuda", "int8")} & {(self.device.type, precision)}:
            raise ValueError(
                f"expected a precision for {device}, got {precision}: float16 is for GPUs, int8 for CPUs; set bfloat16"
            )
        self.precision, self.threads = precision, threads
        self._names = tuple(outputs)
        self._lock = threading.Lock()
        self._network = network.eval().requires_grad_(False)
        self._arguments = arguments_of(network, example)
        self._graph: torch.cuda.CUDAGraph | None = None
        given = {name: torch.as_tensor(value) for name, value in example.items()}
        self.inputs = tuple(describe(name, value) for name, value in given.items())
        fold_parametrizations(self._network)
        if precision == "int8":
            replace_linears(self._network, Int8Linear)
        elif self.device.type == "cpu" and can_pack() and not compiled:
            dtype = PRECISIONS[precision]
            replace_linears(self._network, lambda layer: PackedLinear(layer, dtype))
        if PRECISIONS[precision] != torch.float32:
            store_reduced(self._network, PRECISIONS[precision])
        if channels_last is None:
            channels_last = self.device.type == "cuda" and PRECISIONS[precision] != torch.float32
        self._run: Callable[..., Any] = torch.compile(self._network) if compiled else self._network
        with self._explain_oom(given):
            self._network.to(self.device)
            if channels_last:
                put_channels_last(self._network)
            self._fixed = {name: value.to(self.device, copy=True) for name, value in given.items()}
            self._results = self._forward(self._fixed)
            if self.device.type == "cuda" and graph:
                self._capture()
        self.outputs = tuple(describe(name, value) for name, value in self._results.items())

    def __call__(self, **arrays: Any) -> dict[str, npt.NDArray[Any]]:
        """Run the network once; arrays or tensors in, arrays out. Dots in names: `**{"state.keys": ...}`.

        Raises:
            EngineError: a name is missing or unknown, a type or shape differs from `inputs`, or memory is too small.
        """
        results = self.run(**{name: as_tensor(name, value) for name, value in arrays.items()})
        return {name: value.cpu().numpy() for name, value in results.items()}

    def run(self, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        """The same with tensors in and out, which stay on the engine's device.

        Send inputs that do not change from call to call there once: `tensor.to(engine.device)`.
        """
        self._check(tensors)
        if self._graph is None:
            with self._explain_oom(tensors):
                found: dict[str, torch.Tensor] = self._forward({n: value.to(self.device) for n, value in tensors.items()})
                return found
        with self._lock, self._explain_oom(tensors):  # one call at a time may use the buffers
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(self._done)  # the call before may have been queued on another stream
            for name, value in tensors.items():
                self._fixed[name].copy_(value, non_blocking=True)
            self._graph.replay()
            results = {name: value.clone() for name, value in self._results.items()}
            self._done.record(stream)
            return results

    def _check(self, tensors: Mapping[str, torch.Tensor]) -> None:
        expected = {tensor.name: tensor for tensor in self.inputs}
        if tensors.keys() != expected.keys():
            missing, unknown = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
            raise EngineError(
                f"{type(self._network).__name__}: expected the inputs {', '.join(expected)}, got missing: "
                f"{', '.join(sorted(missing)) or 'none'}, unknown: {', '.join(sorted(unknown)) or 'none'}; pass each by name"
            )
        for name, tensor in expected.items():
            came = describe(name, tensors[name])
            if came != tensor:
                raise EngineError(
                    f"{type(self._network).__name__}: expected {name} to be {tensor.dtype} {tensor.shape}, got {came.dtype} "
                    f"{came.shape}; convert it, or open an engine with an example of that shape"
                )

    @torch.no_grad()
    def _forward(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run the network on tensors that are on its device; results by name."""
        if self.device.type == "cpu" and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        dtype = PRECISIONS[self.precision]
        with contextlib.ExitStack() as stack:
            if dtype != torch.float32:
                stack.enter_context(torch.autocast(self.device.type, dtype))
            if self.device.type == "cuda":
                stack.enter_context(exact_math())
            found = self._run(*(pick(tensors) for pick in self._arguments))
        results = flatten(self._names, found)
        return {name: value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
                for name, value in results.items()}  # fmt: skip

    def _capture(self) -> None:
        """Capture the network's kernels over the fixed buffers as one CUDA graph; a replay launches all of them."""
        with OPENING:  # one capture at a time
            self._done, self._graph = torch.cuda.Event(), self._captured()

    def _captured(self) -> torch.cuda.CUDAGraph:
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self._forward(self._fixed)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Without `stream` torch captures on the GPU it first captured on. "thread_local": other engines may be running.
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            self._results = self._forward(self._fixed)
        return graph

    @contextlib.contextmanager
    def _explain_oom(self, tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Turn torch's out-of-memory error into one that says which batch fits."""
        try:
            yield
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not out_of_memory(error):
                raise
            batch = min((len(value) for value in tensors.values() if value.ndim), default=1)
            message = (
                f"{type(self._network).__name__} with a batch of {batch} in {self.precision} does not fit into the memory of "
                f"{self.device}{memory_left(self.device)}"
            )
            fits = self._fitting_batch(tensors, batch)
        else:
            return
        if fits:
            raise EngineError(f"{message}; a batch of {fits} fits: open the engine with an example of that size")
        weights = sum(p.numel() * p.element_size() for p in self._network.parameters())
        raise EngineError(
            f"{message}; the weights alone take {weights / 2**30:.2f} GiB: free memory, set precision='float16', or "
            "device='cpu'"
        )

    def _fitting_batch(self, tensors: Mapping[str, torch.Tensor], batch: int) -> int:
        """The largest batch that fits, found by halving; 0 if not even one does."""
        while batch > 1:
            batch //= 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            try:
                self._forward({name: value[:batch].to(self.device) for name, value in tensors.items()})
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                continue
            return batch
        return 0


def torch_device(name: str) -> torch.device:
    """A device by name. "cuda" is the first GPU, whichever one is current.

    Raises:
        ValueError: the name is none of cpu, cuda and cuda:N.
        EngineError: the GPU does not exist, or torch is built without CUDA.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"expected device to be cpu, cuda or cuda:N, got {name!r}; name one of them") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"expected device to be cpu, cuda or cuda:N, got {name!r}; name one of them")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (device.index or 0):
            built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
            raise EngineError(
                f"expected {name}, got torch {torch.__version__} ({built}) with {count} CUDA devices; set device='cpu', or "
                "install a CUDA build of torch and NVIDIA's driver (https://pytorch.org/get-started)"
            )
        return torch.device("cuda", device.index or 0)
    return device


def memory_left(device: torch.device) -> str:
    """ ", 3.2 of 24.0 GiB free" on a GPU, nothing on a CPU."""
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    return f", {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"


def as_tensor(name: str, value: Any) -> torch.Tensor:
    """A tensor that shares the array's memory where that is writable and contiguous, else a copy.

    Raises:
        EngineError: the array does not hold numbers.
    """
    if isinstance(value, torch.Tensor):
        return value
    try:
        return torch.from_numpy(np.require(value, requirements=["C", "W"]))
    except TypeError as error:
        raise EngineError(f"expected {name} to be an array of numbers, got: {error}; convert it") from error


def describe(name: str, value: torch.Tensor) -> Tensor:
    """Name, NumPy type and shape of a tensor.

    Raises:
        EngineError: NumPy does not have the tensor's type.
    """
    try:
        dtype = np.dtype(str(value.dtype).removeprefix("torch."))
    except TypeError as error:
        raise EngineError(
            f"expected {name} in a type that NumPy has, got {value.dtype}; convert it to float32"
        ) from error
    return Tensor(name, dtype, tuple(value.shape))


Picker = Callable[[Mapping[str, torch.Tensor]], Any]


def arguments_of(network: nn.Module, example: Mapping[str, Any]) -> list[Picker]:
    """One function per argument of `forward` that picks it from tensors by name, and builds states of their fields.

    Raises:
        ValueError: the names in `example` are not those of the arguments.
    """
    hints = typing.get_type_hints(network.forward)
    pickers: list[Picker] = []
    known: set[str] = set()
    for name in inspect.signature(network.forward).parameters:
        kind = hints.get(name)
        fields = getattr(kind, "_fields", None)
        if fields is None:
            known.add(name)
            pickers.append(lambda tensors, name=name: tensors[name])  # type: ignore[misc]
        else:
            full = [f"{name}.{field}" for field in fields]
            known.update(full)
            pickers.append(lambda tensors, kind=kind, full=full: kind(*(tensors[f] for f in full)))  # type: ignore[misc]
    if known != example.keys():
        raise ValueError(
            f"expected an example with the arguments of {type(network).__name__}.forward, {', '.join(sorted(known))}, got "
            f"{', '.join(sorted(example))}; name each argument"
        )
    return pickers


def flatten(names: Sequence[str], found: Any) -> dict[str, torch.Tensor]:
    """Results by name; the fields of a NamedTuple get its name and a dot as prefix.

    Raises:
        ValueError: the numbers of results and names differ.
    """
    values = found if isinstance(found, tuple) and not hasattr(found, "_fields") else (found,)
    if len(values) != len(names):
        raise ValueError(f"expected {len(values)} names, one for each result, got {', '.join(names)}; name each result")
    out: dict[str, torch.Tensor] = {}
    for name, value in zip(names, values, strict=True):
        if isinstance(value, torch.Tensor):
            out[name] = value
        else:
            stem = f"{name}." if name else ""
            out |= flatten([stem + field for field in value._fields], tuple(value))
    return out
