"""PyTorch: eager on the CPU with packed weights, CUDA graphs over fixed buffers on a GPU; `torch.compile` if asked for."""

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
WARM_UPS = 3  # calls before a CUDA graph is captured


class PackedLinear(nn.Module):
    """A linear layer whose weight lies as oneDNN multiplies it fastest. float32 in and out, `dtype` in between.

    MKL, which `nn.Linear` calls, packs the weight again in every call, and on AMD keeps to AVX2.
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
    """A linear layer in 8 bits: weights with a scale per output, inputs with one scale per call. float32 in and out."""

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
    """Whether this build of torch has what `PackedLinear` calls."""
    ops = torch.ops.mkldnn
    return torch.backends.mkldnn.is_available() and all(
        hasattr(ops, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def replace_linears(network: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> None:
    """Put `make(layer)` in the place of every `nn.Linear` inside a network; the plain weights are given up."""
    for name, child in network.named_children():
        if type(child) is nn.Linear:
            setattr(network, name, make(child))
        else:
            replace_linears(child, make)


def fold_parametrizations(network: nn.Module) -> None:
    """Make weights that are computed from others in every call (weight norm) plain ones, in place."""
    for module in network.modules():
        folded = {name: getattr(module, name).detach() for name in getattr(module, "parametrizations", ())}
        if folded:  # not torch's `remove_parametrizations`, which breaks copies of the module
            del module.parametrizations
            module.__class__ = type(module).__bases__[0]  # torch put a class of its own in front
            for name, value in folded.items():
                module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def put_channels_last(network: nn.Module) -> None:
    """Lay the weights of every convolution out with the channels innermost, in place; what it gives follows them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last_3d)


class TorchEngine:
    """A torch network with fixed shapes.

    Args:
        network: in evaluation mode afterwards; the engine takes it over (moves it, packs its weights).
        example: name -> array or tensor of every input; gives types and shapes. Fields of a state: "state.keys".
        outputs: names of what `forward` returns; of a NamedTuple the name stands before its fields, "" gives none.
        device: "cpu", "cuda" or "cuda:1".
        precision: "float32"; "float16" (GPU) or "bfloat16" where torch's autocast finds it safe; "int8" (CPU): linear
            layers alone. Inputs and outputs keep their types.
        threads: on the CPU. torch has one number for the whole process.
        compiled: run through `torch.compile`, which packs weights itself; the first call takes minutes.
        channels_last: weights of convolutions, and so what they give, with the channels innermost.

    Raises:
        EngineError: there is no such device, or its memory does not suffice; the message says what would fit.
        ValueError: the example does not have the arguments of `forward`, or an unknown precision.
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
        channels_last: bool = False,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.device = torch_device(device)
        if {("cpu", "float16"), ("cuda", "int8")} & {(self.device.type, precision)}:
            raise ValueError(f"{precision} does not run on {device}: float16 is for GPUs, int8 for CPUs; take bfloat16")
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
        self._run: Callable[..., Any] = torch.compile(self._network) if compiled else self._network
        with self._memory_told(given):
            self._network.to(self.device)
            if channels_last:
                put_channels_last(self._network)
            self._fixed = {name: value.to(self.device, copy=True) for name, value in given.items()}
            self._results = self._forward(self._fixed)
            if self.device.type == "cuda":
                self._capture()
        self.outputs = tuple(describe(name, value) for name, value in self._results.items())

    def __call__(self, **arrays: Any) -> dict[str, npt.NDArray[Any]]:
        """Run the network once; arrays or tensors in, arrays out. Dots in names: `**{"state.keys": ...}`.

        Raises:
            EngineError: a name is missing or unknown, a type or shape is another one, or memory does not suffice.
        """
        results = self.run(**{name: as_tensor(name, value) for name, value in arrays.items()})
        return {name: value.cpu().numpy() for name, value in results.items()}

    def run(self, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        """As calling the engine, tensors in and out, which stay on the engine's device.

        What does not change from call to call is best sent there once: `tensor.to(engine.device)`.
        """
        self._check(tensors)
        if self._graph is None:
            with self._memory_told(tensors):
                return self._forward({name: value.to(self.device) for name, value in tensors.items()})
        with self._lock, self._memory_told(tensors):  # the buffers are one call's at a time
            for name, value in tensors.items():
                self._fixed[name].copy_(value, non_blocking=True)
            self._graph.replay()
            return {name: value.clone() for name, value in self._results.items()}

    def _check(self, tensors: Mapping[str, torch.Tensor]) -> None:
        wanted = {tensor.name: tensor for tensor in self.inputs}
        if tensors.keys() != wanted.keys():
            missing, unknown = wanted.keys() - tensors.keys(), tensors.keys() - wanted.keys()
            raise EngineError(
                f"{type(self._network).__name__} takes {', '.join(wanted)}; "
                f"missing: {', '.join(sorted(missing)) or 'none'}, unknown: {', '.join(sorted(unknown)) or 'none'}"
            )
        for name, tensor in wanted.items():
            came = describe(name, tensors[name])
            if came != tensor:
                raise EngineError(
                    f"{type(self._network).__name__}: {name} is {tensor.dtype} {tensor.shape}, got {came.dtype} "
                    f"{came.shape}; convert it, or open an engine with an example of that shape"
                )

    @torch.no_grad()
    def _forward(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Named results of the network on tensors that are on its device."""
        if self.device.type == "cpu" and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        dtype = PRECISIONS[self.precision]
        with contextlib.ExitStack() as stack:
            if dtype != torch.float32:
                stack.enter_context(torch.autocast(self.device.type, dtype))
            if self.device.type == "cuda":
                stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
            found = self._run(*(pick(tensors) for pick in self._arguments))
        results = flatten(self._names, found)
        return {name: value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
                for name, value in results.items()}  # fmt: skip

    def _capture(self) -> None:
        """Record the network's kernels over the fixed buffers as one graph: a replay launches them all at once."""
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self._forward(self._fixed)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # By default torch captures on the GPU it first captured on. "thread_local": other engines may be running.
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            self._results = self._forward(self._fixed)
        self._graph = graph

    @contextlib.contextmanager
    def _memory_told(self, tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Turns torch's out-of-memory error into one that says which batch would fit."""
        try:
            yield
        except torch.OutOfMemoryError:
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
            f"{message}; the weights alone take {weights / 2**30:.2f} GiB: free memory, take precision='float16', or "
            "device='cpu'"
        )

    def _fitting_batch(self, tensors: Mapping[str, torch.Tensor], batch: int) -> int:
        """The largest batch, by halving, that the network runs through; 0: none."""
        while batch > 1:
            batch //= 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            try:
                self._forward({name: value[:batch].to(self.device) for name, value in tensors.items()})
            except torch.OutOfMemoryError:
                continue
            return batch
        return 0


def torch_device(name: str) -> torch.device:
    """A device that is there; "cuda" is the first GPU, whichever one is current.

    Raises:
        ValueError: torch knows no such name, or ditto has no use for it.
        EngineError: CUDA is asked for and not to be had.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device is cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device is cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (device.index or 0):
            built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
            raise EngineError(
                f"{name} is wanted, torch {torch.__version__} ({built}) sees {count} CUDA devices; take device='cpu', or "
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
    """A tensor over an array's own memory, where torch can use that: it wants it writable and in order.

    Raises:
        EngineError: it holds no numbers.
    """
    if isinstance(value, torch.Tensor):
        return value
    try:
        return torch.from_numpy(np.require(value, requirements=["C", "W"]))
    except TypeError as error:
        raise EngineError(f"an array of numbers is wanted for {name}: {error}") from error


def describe(name: str, value: torch.Tensor) -> Tensor:
    """Name, NumPy type and shape of a tensor.

    Raises:
        EngineError: NumPy has no such type.
    """
    try:
        dtype = np.dtype(str(value.dtype).removeprefix("torch."))
    except TypeError as error:
        raise EngineError(f"{name} is {value.dtype}, which NumPy does not have; convert it to float32") from error
    return Tensor(name, dtype, tuple(value.shape))


Picker = Callable[[Mapping[str, torch.Tensor]], Any]


def arguments_of(network: nn.Module, example: Mapping[str, Any]) -> list[Picker]:
    """One function per argument of `forward` that picks it from tensors by name; states are put together.

    Raises:
        ValueError: `example` does not have just these arguments.
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
            f"{type(network).__name__}.forward takes {', '.join(sorted(known))}; the example has "
            f"{', '.join(sorted(example))}"
        )
    return pickers


def flatten(names: Sequence[str], found: Any) -> dict[str, torch.Tensor]:
    """Results by name: a tensor under its own, a NamedTuple under its fields' behind its own name and a dot.

    Raises:
        ValueError: there are more or fewer results than names.
    """
    values = found if isinstance(found, tuple) and not hasattr(found, "_fields") else (found,)
    if len(values) != len(names):
        raise ValueError(f"the network gives {len(values)} results, {len(names)} are named: {', '.join(names)}")
    out: dict[str, torch.Tensor] = {}
    for name, value in zip(names, values, strict=True):
        if isinstance(value, torch.Tensor):
            out[name] = value
        else:
            stem = f"{name}." if name else ""
            out |= flatten([stem + field for field in value._fields], tuple(value))
    return out
