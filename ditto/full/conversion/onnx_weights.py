"""HuBERT's weights out of an exported ONNX graph, by their places in it.

The released HuBERT exists as ONNX alone. Its file is mapped into memory and walked as a protocol buffer, because the ONNX
package would hold all of it twice. Exporters keep the names of biases, norms and convolutions; matrices they transpose
and rename, so a matrix is found as what is multiplied in front of its bias.

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
from ditto.full.conversion.checkpoints import Stored, Tensors, size
from ditto.full.networks.weights import Entry, some

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
    """A field of a message: its number and value; start and end in the file where it has a length."""

    number: int
    value: int
    start: int
    end: int


class Node(NamedTuple):
    """An operation: its type, the names of what comes in and what goes out."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """Operations and stored tensors of an ONNX file."""

    nodes: list[Node] = field(default_factory=list)
    tensors: Tensors = field(default_factory=dict)


def varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number without end")


def fields(data: mmap.mmap, at: int, end: int) -> Iterator[Field]:
    """The fields of a message. Raises ValueError or IndexError where the bytes are no message."""
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
                raise ValueError(f"{at + length - end} bytes are missing at the end")
            yield Field(number, 0, at, at + length)
            at += length
        else:
            raise ValueError(f"a field of kind {kind} at byte {at}")


def read_graph(file: Path) -> Graph:
    """The graph of an ONNX file; tensors stay in the file until they are read.

    Raises:
        BundleError: not an ONNX file, truncated, or with its weights in another file.
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
            f"{file} ({size(file)}) is no ONNX file, or only a part of one: {error}; get the file again"
        ) from error
    if not graph.nodes:
        raise BundleError(f"{file} ({size(file)}) is no ONNX file: there is no graph in it; get the file again")
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


def read_node(data: mmap.mmap, whole: Field, file: Path) -> tuple[Node, Stored | None]:
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


def read_tensor(data: mmap.mmap, whole: Field, file: Path) -> tuple[str, Stored]:
    """Name of a tensor, and where it is."""
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
            raise BundleError(f"{file} keeps its weights in another file; give the ONNX file that holds them itself")
    entry = Entry(tuple(shape), TYPES.get(kind, f"ONNX type {kind}"))
    return name, Stored(entry, partial(read_numbers, data, raw, entry, f"{file}: {name}"))


def packed(data: mmap.mmap, part: Field) -> list[int]:
    """A repeated number: one to a field, or all in one."""
    if part.start == part.end:
        return [part.value]
    out, at = [], part.start
    while at < part.end:
        value, at = varint(data, at)
        out.append(value)
    return out


def read_numbers(data: mmap.mmap, raw: Field | None, entry: Entry, where: str) -> npt.NDArray[Any]:
    """The numbers of a tensor in the file, as a copy.

    Raises:
        BundleError: they are of a type that no weights have, or not as many as its shape says.
    """
    known = entry.dtype in TYPES.values()
    if raw is None or not known or raw.end - raw.start != entry.bytes:
        got = 0 if raw is None else raw.end - raw.start
        raise BundleError(f"{where} should be {entry}, but has {got:,} bytes; get the file again")
    return np.frombuffer(data[raw.start : raw.end], entry.dtype).reshape(entry.shape)


def read_hubert_onnx(file: Path, wanted: Mapping[str, Entry]) -> Tensors:
    """HuBERT's weights by the names of our network.

    The vector that stands in for hidden rows in training is in no graph; zeros take its place.

    Args:
        file: the exported graph.
        wanted: names, shapes and types of the network.

    Raises:
        BundleError: unreadable, or a weight is not where it should be; the message names it.
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
    lost: list[str] = []
    for name, entry in wanted.items():
        if name == MASK:
            out[name] = Stored(entry, partial(np.zeros, entry.shape, np.float32))
        elif name == DIRECTION:
            out[name] = matrix(graph, consumers, makers, f"{prefix}{POSITION}.bias") or absent(name, lost)
        elif name != GAIN:
            found = graph.tensors.get(prefix + name)
            if found is None and name.endswith(".weight"):
                found = matrix(graph, consumers, makers, f"{prefix}{name.removesuffix('weight')}bias")
            out[name] = found or absent(name, lost)
    if lost:
        raise BundleError(
            f"{file} lacks {some(lost)} of HuBERT large, or has it where no known exporter puts it; give the weights with "
            "--hubert (facebook/hubert-large-ls960-ft)"
        )
    if GAIN in wanted:
        out[GAIN] = Stored(wanted[GAIN], partial(gain, out[DIRECTION]))
    return {name: out[name] for name in wanted}


def absent(name: str, lost: list[str]) -> Stored:
    """Notes that a weight was not found; gives something to stand in its place until that is told."""
    lost.append(name)
    return Stored(Entry((), "float32"), partial(np.zeros, (), np.float32))


def prefix_of(tensors: Tensors, file: Path) -> str:
    """What stands in front of HuBERT's names in a graph.

    Raises:
        BundleError: none of its names are there.
    """
    known = "feature_projection.layer_norm.bias"
    for name in tensors:
        if name.endswith(known):
            return name.removesuffix(known)
    raise BundleError(
        f"{file}: HuBERT's {known} is wanted, got {len(tensors)} tensors without it; give the released hubert.onnx"
    )


def matrix(
    graph: Graph, consumers: Mapping[str, list[Node]], makers: Mapping[str, Node], bias: str
) -> Stored | None:  # fmt: skip
    """The weight that belongs to a bias: of the same convolution, or multiplied in front of it; None: not found."""
    for node in consumers.get(bias, []):
        if node.kind == "Conv":
            return graph.tensors.get(node.inputs[1])
        if node.kind == "Gemm":
            return graph.tensors.get(node.inputs[1])
        if node.kind == "Add":
            product = next((makers[name] for name in node.inputs if name != bias and name in makers), None)
            if product is not None and product.kind == "MatMul" and product.inputs[1] in graph.tensors:
                return transposed(graph.tensors[product.inputs[1]])
    return None


def transposed(tensor: Stored) -> Stored:
    """The same matrix, rows and columns exchanged."""
    return Stored(Entry(tensor.entry.shape[::-1], tensor.entry.dtype), lambda: tensor.read().T)


def gain(direction: Stored) -> npt.NDArray[np.float32]:
    """Gains (1, 1, K) of a positional convolution (D, D / groups, K) whose weight norm the exporter multiplied out."""
    kernel = direction.read().astype(np.float64)
    return np.sqrt((kernel**2).sum((0, 1), keepdims=True)).astype(np.float32)
