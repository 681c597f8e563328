"""The GPU kernels of the published networks as operators of torch: `torch.ops.ditto.spade`, and so on. Needs torch.

On a GPU they run the kernels of csrc/cuda where those are built (`DITTO_CUDA=1`); everywhere else
`ditto.ops.reference.neural`.

B: batch, C: channels, K: keypoints, D x H x W: depth, height, width, N: pixels of the picture that a crop covers.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from pathlib import Path

import torch
from torch import Tensor

from ditto.errors import EngineError
from ditto.ops.reference import neural as reference

__all__ = ["blend_crop", "dense_motion", "library", "ready", "spade"]

log = logging.getLogger(__name__)
LIBRARY = Path(__file__).parents[1] / "_cuda.so"
SCRATCH = 258  # numbers of a plane that SPADE keeps between its kernels: sums of 256 lanes, mean, inverse deviation
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


def open_library(file: Path) -> ctypes.CDLL:
    """A build of csrc/cuda.

    Raises:
        EngineError: it cannot be loaded.
    """
    try:
        return ctypes.CDLL(os.fspath(file))
    except OSError as error:
        raise EngineError(f"expected the CUDA kernels in {file}, got: {error}; build them again, or delete it") from error


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels; None where they are not built, which the log says once.

    Raises:
        EngineError: they cannot be loaded.
    """
    if not LIBRARY.is_file():
        log.info("the CUDA kernels are not built (DITTO_CUDA=1); torch's operators run instead")
        return None
    return open_library(LIBRARY)


def ready(x: Tensor) -> bool:
    """Whether the kernels can take this tensor: it is on a GPU, and they are built. torch.compile fuses by itself."""
    return x.is_cuda and not torch.compiler.is_compiling() and library() is not None


def _call(kernels: ctypes.CDLL, name: str, device: torch.device, *arguments: Tensor | float | None) -> None:
    """Call a kernel: tensors as pointers, then the GPU's number and the stream that torch uses on it now."""
    given: list[object] = []
    for argument in arguments:
        if argument is None:
            given.append(ctypes.c_void_p())
        elif isinstance(argument, Tensor):
            if argument.device != device:
                raise ValueError(f"expected tensors of {name} on {device}, got one on {argument.device}; move it")
            given.append(ctypes.c_void_p(argument.data_ptr()))
        else:
            given.append(ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_int(argument))
    if device.type == "cuda":
        with torch.cuda.device(device):  # the kernel's own CUDA runtime sets it too, so that torch must set it back
            number, stream = torch.cuda.current_device(), torch.cuda.current_stream(device).cuda_stream
            failed = kernels[name](*given, ctypes.c_int(number), ctypes.c_void_p(stream))
    else:
        failed = kernels[name](*given, ctypes.c_int(0), ctypes.c_void_p())
    if failed:
        raise EngineError(f"expected the kernel {name} to start on {device}, got CUDA error {failed}; update the driver")


def _check(name: str, expected: dict[str, tuple[Tensor, tuple[int, ...], torch.dtype]]) -> None:
    for argument, (tensor, shape, dtype) in expected.items():
        if tensor.shape != shape:
            raise ValueError(f"expected {argument} {shape} of {name}, got {tuple(tensor.shape)}; give that shape")
        if tensor.dtype != dtype:
            raise TypeError(f"expected {argument} of {name} as {dtype}, got {tensor.dtype}; convert it")


def check_blend(image: Tensor, indices: Tensor, weights: Tensor, rest: Tensor) -> None:
    """Raises ValueError for a wrong shape, TypeError for a wrong type."""
    side, count = image.shape[-1], indices.shape[-1]
    _check("blend_crop", {
        "image": (image, (3, side, side), torch.float32), "indices": (indices, (4, count), torch.int32),
        "weights": (weights, (4, count), torch.float32), "rest": (rest, (3, count), torch.float32),
    })  # fmt: skip


def check_spade(x: Tensor, gamma: Tensor, beta: Tensor) -> None:
    """Raises ValueError for a wrong shape, TypeError for a wrong type."""
    if x.ndim != 4:
        raise ValueError(f"expected x (B, C, H, W) of spade, got {tuple(x.shape)}; give four axes")
    if x.dtype not in TYPES:
        raise TypeError(f"expected x of spade as float32, float16 or bfloat16, got {x.dtype}; convert it")
    _check("spade", {"gamma": (gamma, tuple(x.shape), x.dtype), "beta": (beta, tuple(x.shape), x.dtype)})


def check_motion(volume: Tensor, source: Tensor, driving: Tensor, x: Tensor, y: Tensor, z: Tensor) -> None:
    """Raises ValueError for a wrong shape, TypeError for a wrong type."""
    if volume.ndim != 5:
        raise ValueError(f"expected a volume (B, C, D, H, W) of dense_motion, got {tuple(volume.shape)}; give five axes")
    batch, channels, depth, height, width = volume.shape
    keypoints, dtype = (batch, source.shape[-2] if source.ndim > 1 else 0, 3), torch.float32
    _check("dense_motion", {
        "volume": (volume, (batch, channels, depth, height, width), dtype), "source": (source, keypoints, dtype),
        "driving": (driving, keypoints, dtype), "x": (x, (width,), dtype), "y": (y, (height,), dtype),
        "z": (z, (depth,), dtype),
    })  # fmt: skip


def run_blend(kernels: ctypes.CDLL, image: Tensor, indices: Tensor, weights: Tensor, rest: Tensor) -> Tensor:
    """`blend_crop` by a build of csrc/cuda."""
    count = indices.shape[1]
    out = torch.empty((count, 3), dtype=torch.uint8, device=image.device)
    given = (image.contiguous(), image.shape[1], indices.contiguous(), weights.contiguous(), rest.contiguous())
    _call(kernels, "ditto_blend_crop", image.device, *given, count, out)
    return out


def layout_of(x: Tensor) -> torch.memory_format:
    """Channels last where a tensor (B, C, H, W) is stored so and not the other way as well; else channels first."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def run_spade(kernels: ctypes.CDLL, x: Tensor, gamma: Tensor, beta: Tensor, slope: float) -> Tensor:
    """`spade` by a build of csrc/cuda."""
    batch, channels, height, width = x.shape
    layout = layout_of(x)
    x, gamma, beta = (tensor.contiguous(memory_format=layout) for tensor in (x, gamma, beta))
    out, last = torch.empty_like(x), layout == torch.channels_last
    scratch = torch.empty((SCRATCH, batch, channels), dtype=torch.float32, device=x.device) if last else None
    how = (batch, channels, height * width, int(last), float(reference.EPSILON), float(slope), TYPES[x.dtype])
    _call(kernels, "ditto_spade", x.device, x, gamma, beta, *how, out, scratch)
    return out


def run_motion(
    kernels: ctypes.CDLL, volume: Tensor, source: Tensor, driving: Tensor, x: Tensor, y: Tensor, z: Tensor, variance: float
) -> Tensor:
    """`dense_motion` by a build of csrc/cuda."""
    given = [tensor.contiguous() for tensor in (volume, source, driving, x, y, z)]
    batch, channels, depth, height, width = volume.shape
    keypoints = source.shape[1]
    out = volume.new_empty((batch, keypoints + 1, 1 + channels, depth, height, width))
    sizes = (batch, keypoints, channels, depth, height, width)
    _call(kernels, "ditto_dense_motion", volume.device, *given, *sizes, 0.5 / variance, out)
    return out


def _kernels(tensor: Tensor) -> ctypes.CDLL | None:
    return library() if tensor.device.type == "cuda" else None


@torch.library.custom_op("ditto::blend_crop", mutates_args=())
def blend_crop(image: Tensor, indices: Tensor, weights: Tensor, rest: Tensor) -> Tensor:
    """`ditto.ops.reference.neural.blend_crop`.

    Raises:
        ValueError: a wrong shape.
        TypeError: a wrong type.
    """
    check_blend(image, indices, weights, rest)
    kernels = _kernels(image)
    if kernels is None:
        return reference.blend_crop(image, indices, weights, rest)
    return run_blend(kernels, image, indices, weights, rest)


@blend_crop.register_fake
def _(image: Tensor, indices: Tensor, weights: Tensor, rest: Tensor) -> Tensor:
    return image.new_empty((indices.shape[1], 3), dtype=torch.uint8)


@torch.library.custom_op("ditto::spade", mutates_args=())
def spade(x: Tensor, gamma: Tensor, beta: Tensor, slope: float) -> Tensor:
    """`ditto.ops.reference.neural.spade`, the result stored as `x` is: channels first or last.

    Raises:
        ValueError: a wrong shape.
        TypeError: a wrong type.
    """
    check_spade(x, gamma, beta)
    kernels = _kernels(x)
    if kernels is None:
        return reference.spade(x, gamma, beta, slope).contiguous(memory_format=layout_of(x))
    return run_spade(kernels, x, gamma, beta, slope)


@spade.register_fake
def _(x: Tensor, gamma: Tensor, beta: Tensor, slope: float) -> Tensor:
    return x.new_empty(x.shape).contiguous(memory_format=layout_of(x))


@torch.library.custom_op("ditto::dense_motion", mutates_args=())
def dense_motion(
    volume: Tensor, source: Tensor, driving: Tensor, x: Tensor, y: Tensor, z: Tensor, variance: float
) -> Tensor:
    """`ditto.ops.reference.neural.dense_motion`.

    Raises:
        ValueError: a wrong shape.
        TypeError: a wrong type.
    """
    check_motion(volume, source, driving, x, y, z)
    kernels = _kernels(volume)
    if kernels is None:
        return reference.dense_motion(volume, source, driving, x, y, z, variance)
    return run_motion(kernels, volume, source, driving, x, y, z, variance)


@dense_motion.register_fake
def _(volume: Tensor, source: Tensor, driving: Tensor, x: Tensor, y: Tensor, z: Tensor, variance: float) -> Tensor:
    batch, channels, *size = volume.shape
    return volume.new_empty((batch, source.shape[1] + 1, 1 + channels, *size))
