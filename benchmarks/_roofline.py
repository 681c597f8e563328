"""What code costs, without running it: operators counted on meta tensors, and what a device should make of them.

Meta tensors have shapes and no numbers. Every operator that runs on them is counted: its FLOPs, the numbers that it reads and
writes, the tiles of its result. Nothing here is a measurement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

# A tile of a matrix product that one processor of a GPU makes: one of those that cuBLAS has (cublasLtMatmulTile_t). Large ones
# are more efficient, small ones fill more processors; this is between.
TILE_ROWS, TILE_COLUMNS = 128, 64
QUERIES = 128  # of a head that one processor takes in attention (FlashAttention-2, arXiv:2307.08691)
COMPUTE, MEMORY = 0.7, 0.8  # of a device's figures that large products and copies reach: assumed
HOST_SECONDS = 6e-6  # between two operators that Python calls one by one: assumed (a launch alone takes 4 to 6 us)
GAP_SECONDS = 1e-6  # between two operators on a GPU that does not wait for the host: assumed
FREE = {"new_empty", "empty", "empty_like", "_unsafe_view", "lift_fresh", "detach"}  # make or rename memory: no work


class Work(NamedTuple):
    """Operators in the order in which they run, an entry each.

    Attributes:
        flops: 2 for a multiplication and an addition.
        numbers: read and written.
        tiles: of a matrix product, convolution or attention; 0 of others.
        used: share of the tiles that the result fills.
    """

    flops: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.float64]
    tiles: npt.NDArray[np.float64]
    used: npt.NDArray[np.float64]

    @property
    def operators(self) -> int:
        return len(self.flops)


def _moved(tensor: Tensor) -> int:
    """Different numbers of a tensor: those of a broadcast axis count once."""
    sizes = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return int(np.prod(sizes, dtype=np.int64)) if tensor.numel() else 0


def _tiles(rows: int, columns: int, times: int = 1) -> tuple[int, float]:
    tiles = times * -(-rows // TILE_ROWS) * -(-columns // TILE_COLUMNS)
    return tiles, times * rows * columns / (tiles * TILE_ROWS * TILE_COLUMNS)


class _Count(TorchDispatchMode):
    """Counts operators whose result is a meta tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[float, float, float, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        is_view = any(one.alias_info is not None and not one.alias_info.is_write for one in returns)
        made = [x for x in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(x, Tensor)]
        if is_view or func._overloadpacket.__name__ in FREE or not any(x.is_meta for x in made):
            return out
        given = [x for value in args for x in (value if isinstance(value, (tuple, list)) else [value])]
        tensors = {id(x): x for x in [*given, *made] if isinstance(x, Tensor)}
        flops, (tiles, used) = 0, (0, 1.0)
        if func._overloadpacket in flop_registry:
            flops = flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
            shape = made[0].shape
            if len(shape) == 4:  # a convolution, (N, C, H, W)
                tiles, used = _tiles(shape[0] * shape[2] * shape[3], shape[1])
            else:
                tiles, used = _tiles(shape[-2], shape[-1], shape[0] if len(shape) == 3 else 1)
        self.found.append((flops, sum(map(_moved, tensors.values())), tiles, used))
        return out


class _Attention(TorchFunctionMode):
    """Counts an attention as the one operator that it is on a GPU; meta tensors would take it apart."""

    def __init__(self, count: _Count) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        queries, keys, values = args
        rows = -(-queries.shape[2] // QUERIES)
        numbers = 2 * _moved(queries) + _moved(keys) + _moved(values)
        tiles, used = queries.shape[0] * queries.shape[1] * rows, queries.shape[2] / (rows * QUERIES)
        self.count.found.append((sdpa_flop_count(queries.shape, keys.shape, values.shape), numbers, tiles, used))
        return queries.new_empty(*queries.shape[:3], values.shape[3])


def counted(function: Callable[[], Any]) -> tuple[Any, Work]:
    """What a function gives, and the work on meta tensors inside of it. Gradients are off."""
    count = _Count()
    with torch.no_grad(), _Attention(count), count:
        result = function()
    return result, Work(*(np.array(column, np.float64) for column in zip(*count.found, strict=True)))


@dataclass(frozen=True)
class Device:
    """What a maker says of a device.

    Attributes:
        name: as people say it.
        flops: a second, dense, in the precision of `number_bytes`.
        bandwidth: of its memory, bytes a second.
        processors: multiprocessors of a GPU; 0 of a CPU, which has no tiles to fill.
        number_bytes: 2 for bfloat16, 4 for float32.
    """

    name: str
    flops: float
    bandwidth: float
    processors: int
    number_bytes: int


# NVIDIA's data sheets and white papers (H100 SXM; Ada; A800 80GB, which is an A100 but for its links; H200): tensor cores,
# bfloat16 with sums in float32, without sparsity. The CPU: two AVX2 cores of 3 GHz, two fused multiply-adds of 8 numbers a
# cycle, one channel of DDR4-3200.
H100 = Device("H100", 989e12, 3.35e12, 132, 2)
RTX_4090 = Device("RTX 4090", 165e12, 1.008e12, 128, 2)
A800 = Device("A800", 312e12, 2.039e12, 108, 2)
H200 = Device("H200", 989e12, 4.8e12, 132, 2)
CPU = Device("CPU, 2 cores", 192e9, 25.6e9, 0, 4)


def seconds(work: Work, device: Device, graph: bool = False) -> float:
    """What a device should need for some work: a roofline, operator by operator.

    An operator takes the longer of its arithmetic, at `COMPUTE` of the device's FLOPs times the share of its processors
    that the tiles fill, and of its traffic, at `MEMORY` of the bandwidth, and a gap. Python calls operators no faster than one
    in `HOST_SECONDS`, which a CUDA graph (`graph`) need not wait for.
    """
    filled = np.ones_like(work.used)
    if device.processors:
        rounds = np.maximum(np.ceil(work.tiles / device.processors), 1)
        filled = np.where(work.tiles > 0, work.used * work.tiles / (rounds * device.processors), 1)
    arithmetic = work.flops / (COMPUTE * device.flops * filled)
    traffic = device.number_bytes * work.numbers / (MEMORY * device.bandwidth)
    own = float(np.maximum(arithmetic, traffic).sum()) + GAP_SECONDS * work.operators
    return own if graph else max(own, HOST_SECONDS * work.operators)
