"""What engines do on a GPU, with torch.cuda faked: settings, capture, memory. Nothing here ran on a GPU."""

import contextlib
import threading

import pytest

torch = pytest.importorskip("torch", reason="the full-size networks need torch (pip install ditto[full])")

import numpy as np  # noqa: E402
from engine_networks import TINY, make  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from ditto.engines import open_engine, torch_engine  # noqa: E402
from ditto.engines.networks import example_of  # noqa: E402
from ditto.engines.torch_engine import TorchEngine, exact_math, out_of_memory  # noqa: E402
from ditto.errors import EngineError  # noqa: E402


class CastWeights(TorchDispatchMode):
    """Counts the casts of tensors of at least two axes that are parameters of a network."""

    def __init__(self, network):
        super().__init__()
        self.shapes = {tuple(p.shape) for p in network.parameters() if p.ndim > 1 and p.shape[0] > 1}
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function is torch.ops.aten._to_copy.default and tuple(arguments[0].shape) in self.shapes:
            self.count += 1
        return function(*arguments, **(keywords or {}))


def test_reduced_precision_casts_no_weight_in_a_call():
    network = make(TINY, "decoder")
    example = example_of(network, size=8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), CastWeights(network) as plain:
        network(**example.inputs)
    assert plain.count > 10  # what autocast does by itself
    engine = TorchEngine(network, example.inputs, example.outputs, precision="bfloat16")
    with CastWeights(network) as stored:
        engine.run(**example.inputs)
    assert stored.count == 0


class FakeGraph(contextlib.AbstractContextManager):
    """torch.cuda.graph: runs what it captures; `replay` runs nothing, the results stay. Says how many capture at once."""

    capturing = most = 0
    lock = threading.Lock()
    fail = None

    def __init__(self, graph, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"

    def __enter__(self):
        cls = type(self)
        with self.lock:
            cls.capturing += 1
            cls.most = max(cls.most, cls.capturing)
        if cls.fail is not None:
            raise cls.fail

    def __exit__(self, kind, error, trace):
        with self.lock:
            type(self).capturing -= 1
        if error is not None:  # as torch: ending a broken capture fails too
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


class FakeStream:
    """Notes which events calls waited for, and which they recorded, in the order of the calls."""

    current, queued = "default", []

    def __init__(self, device=None):
        self.name = type(self).current

    def wait_stream(self, other):
        pass

    def wait_event(self, event):
        self.queued.append(("wait", self.name, event.recorded))


class FakeEvent:
    recorded = None

    def record(self, stream):
        self.recorded = stream.name
        FakeStream.queued.append(("record", stream.name))


@pytest.fixture
def gpu(monkeypatch):
    """torch.cuda of one GPU whose memory is the CPU's: the device's type says cuda, tensors stay where they are."""

    class Device(str):
        type, index = "cuda", 0

    moved = torch.Tensor.to
    monkeypatch.setattr(torch_engine, "torch_device", lambda name: Device("cuda:0"))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: moved(
        self, *("cpu" if isinstance(x, Device) else x for x in a), **k
    ))  # fmt: skip
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: self)
    for name, value in {
        "Stream": FakeStream, "stream": lambda given: contextlib.nullcontext(), "graph": FakeGraph,
        "current_stream": FakeStream, "Event": FakeEvent,
        "empty_cache": lambda: None, "mem_get_info": lambda device: (2**30, 2**31),
        "CUDAGraph": lambda: type("Graph", (), {"replay": lambda self: None})(),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    FakeGraph.capturing = FakeGraph.most = 0
    FakeGraph.fail = None
    FakeStream.current, FakeStream.queued = "default", []


class Watching(torch.nn.Module):
    """Notes the settings that it runs under; runs out of memory while it is captured, if asked to."""

    def __init__(self, lacks=None):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.seen, self.lacks = [], lacks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        self.seen.append((cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32))
        if self.lacks and FakeGraph.capturing and len(x) > 1:
            raise self.lacks
        return self.linear(x)


def opened(network, batch=1, precision="float32"):
    return TorchEngine(network, {"x": torch.zeros(batch, 4)}, ("y",), "cuda", precision)


@pytest.mark.parametrize("api", ["allow_tf32", "fp32_precision"])
def test_float32_is_float32_whatever_the_program_set(gpu, api):
    network, matmul = Watching(), torch.backends.cuda.matmul
    if not hasattr(matmul, api):
        pytest.skip("this torch has the older setting alone")
    asked = True if api == "allow_tf32" else "tf32"
    with exact_math():  # restores
        setattr(matmul, api, asked)
        opened(network)
        assert set(network.seen) == {(True, True, False, False)}
        assert getattr(matmul, api) == asked  # the program's own again
        matmul.allow_tf32 = False
    assert not torch.backends.cudnn.benchmark


def test_one_capture_at_a_time(gpu):
    threads = [threading.Thread(target=opened, args=(Watching(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert FakeGraph.most == 1 and FakeGraph.capturing == 0


def test_a_call_waits_for_the_one_before_it_on_whichever_stream(gpu):
    """Both copy into the same buffers; the lock alone orders only what threads queue."""
    engine = opened(Watching())
    for FakeStream.current in ("first", "second"):
        engine.run(x=torch.zeros(1, 4))
    assert FakeStream.queued == [
        ("wait", "first", None), ("record", "first"), ("wait", "second", "first"), ("record", "second")
    ]  # fmt: skip


@pytest.mark.parametrize("lacks", [
    torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    RuntimeError("CUDA error: out of memory"),
])  # fmt: skip
def test_memory_that_ends_inside_a_capture_is_told(gpu, lacks):
    with pytest.raises(EngineError, match=r"Watching with a batch of 4 .* 1\.0 of 2\.0 GiB free; a batch of 2 fits"):
        opened(Watching(lacks), 4)
    with pytest.raises(RuntimeError, match="previous error during capture"):
        opened(Watching(RuntimeError("a mistake")), 4)
    assert not out_of_memory(RuntimeError("a mistake")) and not out_of_memory(None)


def test_half_precision_on_a_gpu_has_the_channels_innermost(gpu, monkeypatch):
    put = []
    monkeypatch.setattr(torch_engine, "put_channels_last", put.append)
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype: contextlib.nullcontext())
    half = Watching()
    with pytest.raises(RuntimeError):  # float32 inputs and no autocast on this CPU
        opened(half, precision="float16")
    assert put == [half] and half.linear.weight.dtype == torch.float16
    opened(Watching())
    assert put == [half]


def test_settings_come_back_after_an_error():
    before = torch.backends.cudnn.benchmark
    with pytest.raises(KeyError), exact_math():
        assert torch.backends.cudnn.benchmark
        raise KeyError
    assert torch.backends.cudnn.benchmark == before


@pytest.fixture
def free_length(tmp_path):
    """A file as HuBERT's: its length is free, and it computes with sizes (the mean of samples times their number)."""
    onnx = pytest.importorskip("onnx", reason="exporting needs onnx")
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Shape", ["samples"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "last"], ["length"], axis=0),
        helper.make_node("Cast", ["length"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["samples", "count"], ["rows"]),
    ]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["batch", "length"])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", "length"])],
        [helper.make_tensor("last", TensorProto.INT64, [1], [1])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_a_file_with_a_free_length_is_opened_at_one_length(free_length, tmp_path, monkeypatch):
    """What computes shapes is folded away before a provider sees it, and only that length is taken."""
    import onnx
    import onnxruntime

    plain = onnxruntime.SessionOptions

    def kept():
        options = plain()
        options.optimized_model_filepath = str(tmp_path / "folded.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # before providers
        return options

    monkeypatch.setattr(onnxruntime, "SessionOptions", kept)
    engine = open_engine(free_length, shape=(1, 6))
    assert engine.inputs[0].shape == (1, 6)
    assert [node.op_type for node in onnx.load(tmp_path / "folded.onnx").graph.node] == ["Mul"]
    assert np.array_equal(engine(samples=np.ones((1, 6), np.float32))["rows"], np.full((1, 6), 6, np.float32))
    with pytest.raises(EngineError, match=r"one input that can be \(1, 2, 3\), got samples \('batch', 'length'\)"):
        open_engine(free_length, shape=(1, 2, 3))
