"""Writes a safetensors file tensor by tensor: at most one tensor is in memory.

Source: the format (https://huggingface.co/docs/safetensors): the header's length (8 bytes), the header as JSON with type,
shape and offsets of each tensor, then the numbers.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ditto.bundle import find_fault
from ditto.errors import BundleError
from ditto.full.conversion.checkpoints import StoredTensor
from ditto.full.networks.weights import TensorSpec

CODES = {"float32": "F32", "int64": "I64"}
BLOCK = 1 << 24  # bytes written at a time


def write_safetensors(
    file: Path,
    tensors: Mapping[str, StoredTensor],
    specs: Mapping[str, TensorSpec],
    where: str | Path,
    weights: bool = True,
) -> str:
    """Write tensors in given types; half precision becomes single.

    Args:
        file: to be written.
        tensors: at least those in `specs`, in their shapes.
        specs: names, shapes and types to write.
        where: the file they come from, for messages.
        weights: refuse values that no trained weights have.

    Returns:
        SHA-256 of the file, hexadecimal.

    Raises:
        BundleError: a tensor holds such values (`ditto.bundle.find_fault`).
        OSError: the file cannot be written.
    """
    # Wide types first: a file of 4-byte numbers in front could leave 8-byte ones on an odd address.
    names = sorted(specs, key=lambda name: -np.dtype(specs[name].dtype).itemsize)
    header: dict[str, object] = {}
    start = 0
    for name in names:
        shape, dtype = specs[name]
        end = start + specs[name].bytes
        header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    sha256 = hashlib.sha256()
    with file.open("wb") as stream:
        for part in (struct.pack("<Q", len(text)), text):
            stream.write(part)
            sha256.update(part)
        for name in names:
            with np.errstate(over="ignore"):  # `find_fault` reports it
                values = np.ascontiguousarray(tensors[name].read(), specs[name].dtype)
            if weights and (fault := find_fault(name, values)):
                raise BundleError(f"{where}: {fault}; the file is damaged, or its training failed: get another")
            data = values.data.cast("B")
            for offset in range(0, len(data), BLOCK):
                block = data[offset : offset + BLOCK]
                stream.write(block)
                sha256.update(block)
    return sha256.hexdigest()
