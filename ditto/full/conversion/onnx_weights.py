"""Reads HuBERT's weights from an exported ONNX graph, by their positions in it.

The released HuBERT is an ONNX file only. The file is mapped into memory and parsed as a protocol buffer here, because the
ONNX package would hold all of it twice. Exporters keep the names of biases, norms and convolutions, but transpose and
rename matrices. A matrix is therefore found as the operand of the multiplication before its bias.

Source: onnx/onnx.proto (field numbers); HuBERT's names: Hugging Face, HubertModel.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import BundleError
from ditto.full.conversion.checkpoints import StoredTensor, Tensors, size
from ditto.full.networks.weights import TensorSpec, first_names

GRAPH, NODE, INITIALIZER = 7, 1, 5  # of ModelProto, of GraphProto
NODE_INPUT, NODE_OUTPUT, NODE_TYPE, NODE_ATTRIBUTE = 1, 2, 4, 5
ATTRIBUTE_NAME, ATTRIBUTE_TENSOR = 1, 5
DIMS, DATA_TYPE, FLOAT_DATA, NAME, RAW_DATA, EXTERNAL_DATA = 1, 2, 4, 8, 9, 13
TYPES = {1: "float32", 7: "int64", 10: "float16", 11: "float64"}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

POSITION = "encoder.pos_conv_embed.conv"
GAIN, DIRECTION = (f"{POSITION}.parametrizations.weight.original{i}" for i in (0, 1))
MASK = "masked_spec_embed"


class Field(NamedTuple):
    """A field of a message: its number and value, or its start and end in the file if it has a length."""

    number: int
    value: int
    start: int
    end: int


class Node(NamedTuple):
    """An operation: its type, and the names of its inputs and outputs."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """Operations and stored tensors of an ONNX file."""

    nodes: list[Node] = field(default_factory=list)
    tensors: Tensors = field(default_factory=dict)


def varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A number of variable length, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number longer than ten bytes")


def fields(data: mmap.mmap, at: int, end: int) -> Iterator[Field]:
    """The fields of a message. Raises ValueError or IndexError if the bytes are not a message."""
    while at < end:
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = varint(data, at)
            yield Field(number, value, at, at)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
            yield Field(number, int.from_bytes(data[at : at + length], "little"), at, at + length)
            at += length
        elif kind == BYTES:
            length, at = varint(data, at)
            if at + length > end:
                raise ValueError(f"{at + length - end} bytes missing at the end")
            yield Field(number, 0, at, at + length)
            at += length
        else:
            raise ValueError(f"a field of kind {kind} at byte {at}")


def read_graph(file: Path) -> Graph:
    """The graph of an ONNX file; tensors stay in the file until they are read.

    Raises:
        BundleError: the file is not ONNX, is truncated, or keeps its weights in another file.
    """
    try:
        with file.open("rb") as stream:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        graph = Graph()
        for part in fields(data, 0, len(data)):
            if part.number == GRAPH:
                read_parts(data, part, graph, file)
    except (OSError, ValueError, IndexError, UnicodeDecodeError) as error:
        raise BundleError(
            f"expected a complete ONNX file, got {file} ({size(file)}): {error}; get the file again"
        ) from error
    if not graph.nodes:
        raise BundleError(
            f"expected an ONNX file with a graph, got {file} ({size(file)}) without one; get the file again"
        )
    return graph


def read_parts(data: mmap.mmap, whole: Field, graph: Graph, file: Path) -> None:
    """Operations, initialisers and constants of the graph message `whole`, into `graph`."""
    for part in fields(data, whole.start, whole.end):
        if part.number == INITIALIZER:
            name, tensor = read_tensor(data, part, file)
            graph.tensors[name] = tensor
        elif part.number == NODE:
            node, constant = read_node(data, part, file)
            graph.nodes.append(node)
            if node.kind == "Constant" and constant is not None:
                graph.tensors[node.outputs[0]] = constant
    for node in graph.nodes:  # exporters store equal tensors once
        if node.kind == "Identity" and node.inputs[0] in graph.tensors:
            graph.tensors[node.outputs[0]] = graph.tensors[node.inputs[0]]


def read_node(data: mmap.mmap, whole: Field, file: Path) -> tuple[Node, StoredTensor | None]:
    """An operation, and the tensor it holds if it is a constant."""
    inputs, outputs, kind, tensor = [], [], "", None
    for part in fields(data, whole.start, whole.end):
        if part.number == NODE_INPUT:
            inputs.append(text(data, part))
        elif part.number == NODE_OUTPUT:
            outputs.append(text(data, part))
        elif part.number == NODE_TYPE:
            kind = text(data, part)
        elif part.number == NODE_ATTRIBUTE:
            for inner in fields(data, part.start, part.end):
                if inner.number == ATTRIBUTE_TENSOR:
                    tensor = read_tensor(data, inner, file)[1]
    return Node(kind, tuple(inputs), tuple(outputs)), tensor


def text(data: mmap.mmap, part: Field) -> str:
    """The text of a field."""
    return data[part.start : part.end].decode()


def read_tensor(data: mmap.mmap, whole: Field, file: Path) -> tuple[str, StoredTensor]:
    """A tensor: its name, and a reader of its numbers."""
    name, shape, kind, raw = "", [], 0, None
    for part in fields(data, whole.start, whole.end):
        if part.number == NAME:
            name = text(data, part)
        elif part.number == DIMS:
            shape += packed(data, part)
        elif part.number == DATA_TYPE:
            kind = part.value
        elif part.number in (RAW_DATA, FLOAT_DATA):
            raw = part
        elif part.number == EXTERNAL_DATA:
            raise BundleError(
                f"{file}: expected the weights inside the file, got a reference to another; give an ONNX file with its weights"
            )
    spec = TensorSpec(tuple(shape), TYPES.get(kind, f"ONNX type {kind}"))
    return name, StoredTensor(spec, partial(read_numbers, data, raw, spec, f"{file}: {name}"))


def packed(data: mmap.mmap, part: Field) -> list[int]:
    """A repeated number: one a field, or all packed in one field."""
    if part.start == part.end:
        return [part.value]
    out, at = [], part.start
    while at < part.end:
        value, at = varint(data, at)
        out.append(value)
    return out


def read_numbers(data: mmap.mmap, raw: Field | None, spec: TensorSpec, where: str) -> npt.NDArray[Any]:
    """The numbers of a tensor in the file, as a copy.

    Raises:
        BundleError: an unknown type, or a number of bytes that does not fit the shape.
    """
    known = spec.dtype in TYPES.values()
    if raw is None or not known or raw.end - raw.start != spec.bytes:
        got = 0 if raw is None else raw.end - raw.start
        raise BundleError(f"{where}: expected {spec}, got {got:,} bytes; get the file again")
    return np.frombuffer(data[raw.start : raw.end], spec.dtype).reshape(spec.shape)


def read_hubert_onnx(file: Path, expected: Mapping[str, TensorSpec]) -> Tensors:
    """HuBERT's weights under the names of our network.

    The vector that replaces masked rows in training is not in an exported graph; it becomes zeros.

    Args:
        file: the exported graph.
        expected: names, shapes and types of the network.

    Raises:
        BundleError: the file is unreadable, or a weight is not found; the message names it.
    """
    graph = read_graph(file)
    prefix = prefix_of(graph.tensors, file)
    consumers: dict[str, list[Node]] = {}
    makers: dict[str, Node] = {}
    for node in graph.nodes:
        for name in node.inputs:
            consumers.setdefault(name, []).append(node)
        makers.update(dict.fromkeys(node.outputs, node))
    out: Tensors = {}
    missing: list[str] = []
    for name, spec in expected.items():
        if name == MASK:
            out[name] = StoredTensor(spec, partial(np.zeros, spec.shape, np.float32))
        elif name == DIRECTION:
            out[name] = matrix(graph, consumers, makers, f"{prefix}{POSITION}.bias") or placeholder(name, missing)
        elif name != GAIN:
            found = graph.tensors.get(prefix + name)
            if found is None and name.endswith(".weight"):
                found = matrix(graph, consumers, makers, f"{prefix}{name.removesuffix('weight')}bias")
            out[name] = found or placeholder(name, missing)
    if missing:
        raise BundleError(
            f"{file}: expected the weights of HuBERT large, got none for {first_names(missing)}; give the weights with "
            "--hubert (facebook/hubert-large-ls960-ft)"
        )
    if GAIN in expected:
        out[GAIN] = StoredTensor(expected[GAIN], partial(gain, out[DIRECTION]))
    return {name: out[name] for name in expected}


def placeholder(name: str, missing: list[str]) -> StoredTensor:
    """Adds a weight to those that are missing, and gives an empty tensor in its place until the error is raised."""
    missing.append(name)
    return StoredTensor(TensorSpec((), "float32"), partial(np.zeros, (), np.float32))


def prefix_of(tensors: Tensors, file: Path) -> str:
    """The prefix of HuBERT's names in a graph.

    Raises:
        BundleError: the graph has no such names.
    """
    known = "feature_projection.layer_norm.bias"
    for name in tensors:
        if name.endswith(known):
            return name.removesuffix(known)
    raise BundleError(
        f"{file}: expected HuBERT's {known}, got {len(tensors)} tensors without it; give the released hubert.onnx"
    )


def matrix(
    graph: Graph, consumers: Mapping[str, list[Node]], makers: Mapping[str, Node], bias: str
) -> StoredTensor | None:  # fmt: skip
    """The weight that belongs to a bias: of the same operation, or of the multiplication before it; None if not found."""
    for node in consumers.get(bias, []):
        if node.kind in ("Conv", "Gemm"):
            return graph.tensors.get(node.inputs[1])
        if node.kind == "Add":
            product = next((makers[name] for name in node.inputs if name != bias and name in makers), None)
            if product is not None and product.kind == "MatMul" and product.inputs[1] in graph.tensors:
                return transposed(graph.tensors[product.inputs[1]])
    return None


def transposed(tensor: StoredTensor) -> StoredTensor:
    """The transposed matrix."""
    return StoredTensor(TensorSpec(tensor.spec.shape[::-1], tensor.spec.dtype), lambda: tensor.read().T)


def gain(direction: StoredTensor) -> npt.NDArray[np.float32]:
    """Gains (1, 1, K) of a positional convolution (D, D / groups, K) whose weight norm the exporter multiplied out."""
    kernel = direction.read().astype(np.float64)
    return np.asarray(np.sqrt((kernel**2).sum((0, 1), keepdims=True)), np.float32)
