"""Tensors that stay on ONNX Runtime's device from network to network; here the device is the CPU, which has the same API."""

import pytest

torch = pytest.importorskip("torch", reason="the full-size networks need torch (pip install ditto[full])")
onnx = pytest.importorskip("onnx", reason="the files are made with onnx")

import numpy as np  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402

from ditto.engines import DeviceEngine, open_engine  # noqa: E402
from ditto.errors import EngineError  # noqa: E402
from ditto.full.pipeline import FullOptions  # noqa: E402


@pytest.fixture
def make(tmp_path):
    """image = 2 volume + 1 and whole = count + count, of some sizes."""

    def engine(*size):
        nodes = [
            helper.make_node("Mul", ["volume", "two"], ["doubled"]), helper.make_node("Add", ["doubled", "one"], ["image"]),
            helper.make_node("Add", ["count", "count"], ["whole"]),
        ]  # fmt: skip
        float_, whole = TensorProto.FLOAT, TensorProto.INT64
        graph = helper.make_graph(
            nodes, "net",
            [helper.make_tensor_value_info("volume", float_, size), helper.make_tensor_value_info("count", whole, [2])],
            [helper.make_tensor_value_info("image", float_, size), helper.make_tensor_value_info("whole", whole, [2])],
            [helper.make_tensor("two", float_, [], [2.0]), helper.make_tensor("one", float_, [], [1.0])],
        )  # fmt: skip
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "net.onnx")
        return open_engine(tmp_path / "net.onnx")

    return engine


def test_a_tensor_goes_from_network_to_network_without_an_array(make, monkeypatch):
    engine, count = make(2, 3), torch.tensor([1, 2])
    assert isinstance(engine, DeviceEngine) and engine.device == torch.device("cpu")
    volume = torch.arange(6.0).reshape(2, 3)
    expected = engine(volume=engine(volume=volume.numpy(), count=count.numpy())["image"], count=count.numpy())
    monkeypatch.setattr(torch.Tensor, "numpy", lambda self, **how: pytest.fail("an array was made"))
    first = engine.run(volume=volume, count=count)
    second = engine.run(volume=first["image"], count=count)
    monkeypatch.undo()
    assert {name: value.dtype for name, value in second.items()} == {"image": torch.float32, "whole": torch.int64}
    assert all(np.array_equal(second[name].numpy(), expected[name]) for name in expected)
    turned = volume.T.contiguous().T  # columns first
    assert torch.equal(engine.run(volume=turned, count=count)["image"], first["image"])
    assert torch.equal(first["image"], 2 * volume + 1)  # nobody wrote into it since


def test_tensors_that_do_not_fit_are_refused(make):
    engine, count = make(2, 3), torch.tensor([1, 2])
    with pytest.raises(EngineError, match="missing: count, unknown: more"):
        engine.run(volume=torch.zeros(2, 3), more=count)
    with pytest.raises(EngineError, match="expected volume to be float32, got float64"):
        engine.run(volume=torch.zeros(2, 3).double(), count=count)
    with pytest.raises(EngineError, match=r"expected volume \(2, 3\), count \(2,\), got volume \(2, 4\), count \(2,\): "):
        engine.run(volume=torch.zeros(2, 4), count=count)
    with pytest.raises(EngineError, match=r"outputs of fixed sizes, got image \('rows', 3\); open it with `shape`"):
        make("rows", 3).run(volume=torch.zeros(2, 3), count=count)


def test_on_a_gpu_the_crop_stays_whichever_backend_runs(monkeypatch):
    """An input that every frame takes is sent to the GPU of the engine once."""
    sent = []
    monkeypatch.setattr("ditto.full.pipeline.torch_device", lambda name: torch.device("meta", 1) if name != "cpu" else name)
    monkeypatch.setattr(torch, "as_tensor", lambda array, device: sent.append(device))
    for backend in ("torch", "onnxruntime", "tensorrt"):
        options = FullOptions(backend=backend, device="cuda:1")
        options.place(np.zeros(3, np.float32))
        assert options.stays and sent.pop() == torch.device("meta", 1)
    array = np.zeros(3, np.float32)
    assert FullOptions(backend="onnxruntime").place(array) is array and not FullOptions().stays
