"""MediaPipe's face networks as ONNX, for the `tracker` part of the lite bundle.

Reads the TFLite files inside the wheel of mediapipe 0.10.21 and writes face_short_range.onnx, face_full_range.onnx,
face_mesh.onnx and person.onnx. Weights stay the half-precision numbers they are. Pictures go in as (1, H, W, 3) uint8 RGB;
the scaling that MediaPipe's graphs do before, and the merging of lips, eyes and irises after, are part of the networks.

    pip download --no-deps mediapipe==0.10.21
    python -m ditto.training.face_networks mediapipe-0.10.21-*.whl ditto/bundles/lite

Source: MediaPipe v0.10.21 (Apache-2.0): mediapipe/modules/face_detection, face_landmark, selfie_segmentation and
mediapipe/util/tflite/operations for the operators that TFLite itself does not have.
"""

from __future__ import annotations

import argparse
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.commands import Arguments, run
from ditto.media.files import check_folder

Array = npt.NDArray[Any]

OPSET = 17
SCHEMA = "mediapipe/tasks/metadata/schema_py_generated.py"  # reads TFLite files; in the same wheel
IRISES = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))
EYE_CONTOUR = 16  # the first landmarks of an eye's list: its lids; their mean depth is the iris's


class Network(NamedTuple):
    """One network: its TFLite file in the wheel, the range of pixels it takes, the names of its outputs."""

    source: str
    low: float
    high: float
    outputs: tuple[str, ...]


NETWORKS = {
    "face_short_range": Network("face_detection/face_detection_short_range", -1.0, 1.0, ("boxes", "scores")),
    "face_full_range": Network("face_detection/face_detection_full_range_sparse", -1.0, 1.0, ("boxes", "scores")),
    "face_mesh": Network("face_landmark/face_landmark_with_attention", 0.0, 1.0, ("landmarks", "presence")),
    "person": Network("selfie_segmentation/selfie_segmentation", 0.0, 1.0, ("probability",)),
}


def schema(wheel: zipfile.ZipFile) -> Any:
    """The module that reads TFLite files, from the wheel; MediaPipe itself is not imported."""
    module = types.ModuleType("tflite_schema")
    exec(compile(wheel.read(SCHEMA), SCHEMA, "exec"), module.__dict__)
    return module


class Graph:
    """A TFLite graph on its way to ONNX. Tensors of four dimensions are (1, H, W, C) there and (1, C, H, W) here."""

    def __init__(self, data: bytes, reader: Any) -> None:
        from flatbuffers import flexbuffers

        model = reader.ModelT.InitFromPackedBuf(data, 0)
        (self.source,) = model.subgraphs
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.constants: dict[int, Array] = {}  # in TFLite's layout
        self.names: dict[int, str] = {}  # of what is computed, in ONNX's layout
        self.merged: list[list[int]] = []  # which landmarks the lips' and eyes' branches give, read off the network
        types_of = {reader.TensorType.FLOAT32: "<f4", reader.TensorType.FLOAT16: "<f2", reader.TensorType.INT32: "<i4"}
        for index, tensor in enumerate(self.source.tensors):
            raw = model.buffers[tensor.buffer].data
            if raw is not None and len(raw):
                values = np.frombuffer(bytes(raw), types_of[tensor.type])
                shape = tuple(tensor.shape)
                self.constants[index] = dense(values, tensor) if tensor.sparsity else values.reshape(shape)
        builtin = {v: k for k, v in vars(reader.BuiltinOperator).items() if isinstance(v, int)}
        self.activations = {v: k for k, v in vars(reader.ActivationFunctionType).items() if isinstance(v, int)}
        self.same = reader.Padding.SAME
        self.operators = []
        for operator in self.source.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            name = builtin[max(code.builtinCode, code.deprecatedBuiltinCode)]
            options = operator.builtinOptions
            if name == "CUSTOM":
                name = code.customCode.decode()
                raw = bytes(operator.customOptions) if operator.customOptions is not None else b""
                options = flexbuffers.Loads(raw) if name == "Landmarks2TransformMatrix" else raw
            self.operators.append((name, list(operator.inputs), operator.outputs[0], options))

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output; gives its name."""
        from onnx import helper

        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, values: Any, dtype: Any = None) -> str:
        """Fixed numbers. Halves stay halves in the file and are widened when it is loaded."""
        from onnx import numpy_helper

        array = np.array(values, dtype, order="C")
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return self.widened(name) if array.dtype == np.float16 else name

    def widened(self, name: str) -> str:
        from onnx import TensorProto

        return self.add("Cast", name, to=TensorProto.FLOAT)

    def value(self, index: int) -> str:
        """A tensor as input of an element-wise operator."""
        if index in self.constants:
            array = self.constants[index]
            return self.constant(array.transpose(0, 3, 1, 2) if array.ndim == 4 else array)
        return self.names[index]

    def shape(self, index: int) -> list[int]:
        return [int(n) for n in self.source.tensors[index].shape]

    def floats(self, *values: float) -> str:
        return self.constant(values, np.float32)

    def integers(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def activated(self, name: str, options: Any) -> str:
        kind = self.activations[options.fusedActivationFunction] if options is not None else "NONE"
        if kind == "NONE":
            return name
        if kind != "RELU":
            raise ValueError(f"expected activation NONE or RELU, got {kind}; use the networks of mediapipe 0.10.21")
        return self.add("Relu", name)

    def padding(self, options: Any) -> str:
        return "SAME_UPPER" if options.padding == self.same else "VALID"


def dense(values: Array, tensor: Any) -> Array:
    """The full array of a sparse TFLite tensor: dimensions in their stored order, each whole or as lists of positions.

    Source: TFLite schema, SparsityParameters.
    """
    sparsity = tensor.sparsity
    order, shape = list(sparsity.traversalOrder), [int(n) for n in tensor.shape]
    if order != list(range(len(shape))) or (sparsity.blockMap is not None and len(sparsity.blockMap)):
        raise ValueError("expected sparse weights in order and without blocks, got others; use mediapipe 0.10.21")
    rows = np.zeros((1, 0), np.int64)  # positions so far, one row per entry
    for size, described in zip(shape, sparsity.dimMetadata, strict=True):
        if described.format == 0:
            steps = np.tile(np.arange(described.denseSize), len(rows))
            rows = np.column_stack([np.repeat(rows, described.denseSize, 0), steps])
        else:
            ends = np.asarray(described.arraySegments.values, np.int64)
            rows = np.column_stack([np.repeat(rows, np.diff(ends), 0), np.asarray(described.arrayIndices.values, np.int64)])
        assert len(rows) == 0 or rows[:, -1].max() < size
    full = np.zeros(shape, values.dtype)
    full[tuple(rows.T)] = values
    return full


def forward(g: Graph, inputs: list[int], out: int, options: Any) -> None:
    """DEQUANTIZE, DENSIFY: of weights alone, which are kept as they are."""
    g.constants[out] = g.constants[inputs[0]]


def convolution(g: Graph, inputs: list[int], out: int, options: Any) -> None:
    weights = g.constants[inputs[1]].transpose(0, 3, 1, 2)
    name = g.add(
        "Conv", g.value(inputs[0]), g.constant(weights), g.value(inputs[2]),
        strides=[options.strideH, options.strideW], auto_pad=g.padding(options),
        dilations=[options.dilationHFactor, options.dilationWFactor],
    )  # fmt: skip
    g.names[out] = g.activated(name, options)


def depthwise(g: Graph, inputs: list[int], out: int, options: Any) -> None:
    weights = g.constants[inputs[1]].transpose(3, 0, 1, 2)
    name = g.add(
        "Conv", g.value(inputs[0]), g.constant(weights), g.value(inputs[2]), group=g.shape(inputs[0])[3],
        strides=[options.strideH, options.strideW], auto_pad=g.padding(options),
        dilations=[options.dilationHFactor, options.dilationWFactor],
    )  # fmt: skip
    g.names[out] = g.activated(name, options)


def transposed(g: Graph, inputs: list[int], out: int, options: Any) -> None:
    """Convolution2DTransposeBias: here 2 x 2 in steps of 2, so that nothing overlaps and padding does not matter."""
    weights = g.constants[inputs[1]].transpose(3, 0, 1, 2)
    if weights.shape[2:] != (2, 2) or g.shape(out)[1] != 2 * g.shape(inputs[0])[1]:
        raise ValueError("expected a transposed convolution of 2 x 2 in steps of 2, got another; use mediapipe 0.10.21")
    g.names[out] = g.add(
        "ConvTranspose", g.value(inputs[0]), g.constant(weights), g.value(inputs[2]), strides=[2, 2]
    )


def binary(kind: str) -> Callable[[Graph, list[int], int, Any], None]:
    def write(g: Graph, inputs: list[int], out: int, options: Any) -> None:
        g.names[out] = g.activated(g.add(kind, g.value(inputs[0]), g.value(inputs[1])), options)

    return write


def unary(kind: str) -> Callable[[Graph, list[int], int, Any], None]:
    def write(g: Graph, inputs: list[int], out: int, options: Any) -> None:
        g.names[out] = g.add(kind, g.value(inputs[0]))

    return write


def pool(kind: str) -> Callable[[Graph, list[int], int, Any], None]:
    def write(g: Graph, inputs: list[int], out: int, options: Any) -> None:
        name = g.add(
            kind, g.value(inputs[0]), kernel_shape=[options.filterHeight, options.filterWidth],
            strides=[options.strideH, options.strideW], auto_pad=g.padding(options),
        )  # fmt: skip
        g.names[out] = g.activated(name, options)

    return write


def prelu(g: Graph, inputs: list[int], out: int, options: Any) -> None:
    """As (1 - slope) relu(x) + slope x: five times as fast as ONNX Runtime's own PRelu, equal to a rounding."""
    slope = g.constants[inputs[1]].transpose(2, 0, 1).astype(np.float32)
    positive = g.add("Mul", g.add("Relu", g.value(inputs[0])), g.constant(1 - slope))
    g.names[out] = g.add("Add", positive, g.add("Mul", g.value(inputs[0]), g.constant(slope)))


def pad(g: Graph, inputs: list[int], out: int, options: Any) -> None:
    before, after = g.constants[inputs[1]][[0, 3, 1, 2]].T
    g.names[out] = g.add("Pad", g.value(inputs[0]), g.integers(*before, *after))


def resize(g: Graph, inputs: list[int], out: int, options: Any) -> None:
    if options.alignCorners or not options.halfPixelCenters:
        raise ValueError("expected resizing by pixel centres, got another; use mediapipe 0.10.21")
    _, height, width, channels = g.shape(out)
    sizes = g.integers(1, channels, height, width)
    g.names[out] = g.add("Resize", g.value(inputs[0]), "", "", sizes, mode="linear")


def depth_to_space(g: Graph, inputs: list[int], out: int, options: Any) -> None:
    g.names[out] = g.add("DepthToSpace", g.value(inputs[0]), blocksize=options.blockSize, mode="DCR")


def reshape(g: Graph, inputs: list[int], out: int, options: Any) -> None:
    name = g.value(inputs[0])
    if len(g.shape(inputs[0])) == 4:
        name = g.add("Transpose", name, perm=[0, 2, 3, 1])
    name = g.add("Reshape", name, g.integers(*g.shape(out)))
    g.names[out] = g.add("Transpose", name, perm=[0, 3, 1, 2]) if len(g.shape(out)) == 4 else name


def concatenation(g: Graph, inputs: list[int], out: int, options: Any) -> None:
    if len(g.shape(out)) == 4:
        raise ValueError("expected rows to be joined, got another axis; use mediapipe 0.10.21")
    g.names[out] = g.add("Concat", *(g.value(i) for i in inputs), axis=options.axis)


def whole_slice(g: Graph, inputs: list[int], out: int, options: Any) -> None:
    if g.shape(inputs[0]) != g.shape(out):
        raise ValueError("expected a slice that takes all, got another; use mediapipe 0.10.21")
    g.names[out] = g.value(inputs[0])


def transform_matrix(g: Graph, inputs: list[int], out: int, options: Any) -> None:
    """Landmarks2TransformMatrix: (1, 4, 4), from pixels of a small square to the turned box around some landmarks.

    The turn is that of the line between two landmarks.
    """
    size = (options["output_width"], options["output_height"])
    if options.get("target_rotation_radians", 0.0):
        raise ValueError("expected an upright box, got another; use mediapipe 0.10.21")
    g.merged.append(list(options["subset_idxs"]))
    flat = g.add("Slice", g.value(inputs[0]), g.integers(0), g.integers(2), g.integers(2))  # (1, 468, 2)
    ends = [options["left_rotation_idx"], options["right_rotation_idx"]]
    left, right = (g.add("Gather", flat, g.constant(end, np.int64), axis=1) for end in ends)  # (1, 2)
    along = g.add("Sub", right, left)
    along = g.add("Div", along, g.add("ReduceL2", along, axes=[1], keepdims=1))
    across = g.add("Mul", g.add("Gather", along, g.integers(1, 0), axis=1), g.floats(-1.0, 1.0))
    rows = g.add("Concat", along, across, axis=0)  # of the transposed turn
    turn = g.add("Transpose", rows, perm=[1, 0])
    subset = g.add("Gather", flat, g.integers(*options["subset_idxs"]), axis=1)
    upright = g.add("MatMul", subset, turn)
    low = g.add("ReduceMin", upright, axes=[1], keepdims=0)  # (1, 2)
    high = g.add("ReduceMax", upright, axes=[1], keepdims=0)
    middle = g.add("MatMul", g.add("Mul", g.add("Add", low, high), g.floats(0.5)), rows)
    grow = [options["scale_x"] / size[0], options["scale_y"] / size[1]]
    linear = g.add("Mul", turn, g.add("Mul", g.add("Sub", high, low), g.floats(*grow)))  # (2, 2)
    half = g.constant([[size[0] / 2], [size[1] / 2]], np.float32)
    offset = g.add("Sub", g.add("Transpose", middle, perm=[1, 0]), g.add("MatMul", linear, half))
    upper = g.add("Concat", linear, g.constant(np.zeros((2, 1), np.float32)), offset, axis=1)
    matrix = g.add("Concat", upper, g.constant(np.eye(4, dtype=np.float32)[2:]), axis=0)
    g.names[out] = g.add("Unsqueeze", matrix, g.integers(0))


def through(g: Graph, points: str, matrix: str) -> str:
    """Points (1, ..., 2) through a matrix (1, 4, 4); the third dimension is not used."""
    axes = g.integers(1, 2)
    linear = g.add("Slice", matrix, g.integers(0, 0), g.integers(2, 2), axes)
    offset = g.add("Slice", matrix, g.integers(0, 3), g.integers(2, 4), axes)
    linear, offset = (g.add("Transpose", part, perm=[0, 2, 1]) for part in (linear, offset))
    return g.add("Add", g.add("MatMul", points, linear), offset)


def transform_landmarks(g: Graph, inputs: list[int], out: int, options: Any) -> None:
    g.names[out] = through(g, g.value(inputs[0]), g.names[inputs[1]])


def transform_picture(g: Graph, inputs: list[int], out: int, options: Any) -> None:
    """TransformTensorBilinear: a small square cut out of a feature map; zero where its pixels lie outside."""
    from onnx import TensorProto

    _, height, width, _ = g.shape(out)
    _, rows, columns, _ = g.shape(inputs[0])
    extent = g.floats(columns, rows)
    y, x = np.mgrid[:height, :width] + 0.5
    edges = through(g, g.constant(np.stack([x, y], -1)[None], np.float32), g.names[inputs[1]])  # pixel i is [i, i + 1)
    grid = g.add("Sub", g.add("Div", g.add("Mul", edges, g.floats(2.0)), extent), g.floats(1.0))
    cut = g.add("GridSample", g.value(inputs[0]), grid, align_corners=0, padding_mode="zeros", mode="bilinear")
    inside = g.add(
        "And",
        g.add("GreaterOrEqual", edges, g.floats(0.5)),
        g.add("LessOrEqual", edges, g.add("Sub", extent, g.floats(0.5))),
    )
    inside = g.add("ReduceMin", g.add("Cast", inside, to=TensorProto.FLOAT), axes=[3], keepdims=0)
    g.names[out] = g.add("Mul", cut, g.add("Unsqueeze", inside, g.integers(1)))


WRITERS: dict[str, Callable[[Graph, list[int], int, Any], None]] = {
    "DEQUANTIZE": forward,
    "DENSIFY": forward,
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": depthwise,
    "Convolution2DTransposeBias": transposed,
    "ADD": binary("Add"),
    "MUL": binary("Mul"),
    "RELU": unary("Relu"),
    "HARD_SWISH": unary("HardSwish"),
    "LOGISTIC": unary("Sigmoid"),
    "MAX_POOL_2D": pool("MaxPool"),
    "AVERAGE_POOL_2D": pool("AveragePool"),
    "PRELU": prelu,
    "PAD": pad,
    "RESIZE_BILINEAR": resize,
    "DEPTH_TO_SPACE": depth_to_space,
    "RESHAPE": reshape,
    "CONCATENATION": concatenation,
    "STRIDED_SLICE": whole_slice,
    "Landmarks2TransformMatrix": transform_matrix,
    "TransformLandmarks": transform_landmarks,
    "TransformTensorBilinear": transform_picture,
}


def merge(g: Graph) -> list[str]:
    """One mesh of 478 landmarks (1, 478, 3) from that of 468 and the finer lips, eyes and irises; and the presence.

    Lips and eyes take the place of the coarse ones and keep their depth; an iris has the mean depth of its lids.
    """
    mesh, lips, *eyes_and_irises, flag = (
        g.add("Reshape", g.names[index], g.integers(1, -1, last))
        for index, last in zip(g.source.outputs, (3, 2, 2, 2, 2, 2, 1), strict=True)
    )
    axis = g.integers(2)
    flat = g.add("Slice", mesh, g.integers(0), g.integers(2), axis)
    depth = g.add("Slice", mesh, g.integers(2), g.integers(3), axis)
    lids = [listed[:EYE_CONTOUR] for listed in g.merged[1:]]
    iris_depths = [
        g.add("Expand", g.add("ReduceMean", g.add("Gather", depth, g.integers(*lid), axis=1), axes=[1]),
              g.integers(1, len(iris), 1))
        for lid, iris in zip(lids, IRISES, strict=True)
    ]  # fmt: skip
    replaced = [i for listed in g.merged for i in listed]
    places = np.tile(np.asarray(replaced, np.int64)[None, :, None], (1, 1, 2))
    finer = g.add("Concat", lips, *eyes_and_irises[:2], axis=1)
    flat = g.add("ScatterElements", flat, g.constant(places), finer, axis=1)
    flat = g.add("Concat", flat, *eyes_and_irises[2:], axis=1)
    depth = g.add("Concat", depth, *iris_depths, axis=1)
    return [g.add("Concat", flat, depth, axis=2), g.add("Sigmoid", flag)]


def convert(data: bytes, reader: Any, network: Network) -> Any:
    """The ONNX model of a TFLite file."""
    import onnx
    from onnx import TensorProto, helper

    g = Graph(data, reader)
    (entry,) = g.source.inputs
    size = g.shape(entry)
    scale = g.floats((network.high - network.low) / 255)
    scaled = g.add("Add", g.add("Mul", g.widened("picture"), scale), g.floats(network.low))
    g.names[entry] = g.add("Transpose", scaled, perm=[0, 3, 1, 2])
    for name, inputs, out, options in g.operators:
        if name not in WRITERS:
            raise ValueError(
                f"expected an operator of {', '.join(WRITERS)}, got {name}; use the networks of mediapipe 0.10.21"
            )
        WRITERS[name](g, inputs, out, options)
    given = merge(g) if g.merged else [g.names[index] for index in g.source.outputs]
    for name, made in zip(network.outputs, given, strict=True):
        g.nodes.append(helper.make_node("Identity", [made], [name], name=name))
    graph = helper.make_graph(
        g.nodes,
        network.source.rpartition("/")[2],
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, size)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in network.outputs],
        g.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="ditto")
    model.ir_version = 8
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    import onnx

    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    check_folder(options.out)
    with zipfile.ZipFile(options.wheel) as wheel:
        reader = schema(wheel)
        for name, network in NETWORKS.items():
            model = convert(wheel.read(f"mediapipe/modules/{network.source}.tflite"), reader, network)
            file = options.out / f"{name}.onnx"
            onnx.save(model, file)
            print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    run(main)
