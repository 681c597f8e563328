import base64
import sys
import types

import numpy as np
import pytest

from ditto.engines import Engine, Tensor, open_engine
from ditto.engines.batched import LARGEST_BATCH, BatchedEngine
from ditto.engines.onnx_engine import OnnxEngine, installed_builds
from ditto.errors import EngineError

# y = 2 x + 1, next_state.sum = state.sum + y; x (N, 3) float32. Made with onnx.helper; the test needs no onnx.
NETWORK = base64.b64decode(
    "CAgSADrmAQoQCgF4CgN0d28SAW0iA011bAoRCgFtCgRiaWFzEgF5IgNBZGQKIwoJc3RhdGUuc3VtCgF5Eg5uZXh0X3N0YXRlLnN1"
    "bSIDQWRkEgR0aW55Kg0QAUIDdHdvSgQAAABAKhgIAxABQgRiaWFzSgwAAIA/AACAPwAAgD9aFAoBeBIPCg0IARIJCgMSAU4KAggD"
    "WhwKCXN0YXRlLnN1bRIPCg0IARIJCgMSAU4KAggDYhQKAXkSDwoNCAESCQoDEgFOCgIIA2IhCg5uZXh0X3N0YXRlLnN1bRIPCg0I"
    "ARIJCgMSAU4KAggDQgQKABAR"
)


@pytest.fixture
def engine(tmp_path):
    (tmp_path / "tiny.onnx").write_bytes(NETWORK)
    return open_engine(tmp_path / "tiny.onnx")


def test_an_engine_describes_and_runs_its_network(engine):
    assert isinstance(engine, Engine)
    assert engine.inputs == (
        Tensor("x", np.dtype(np.float32), ("N", 3)),
        Tensor("state.sum", np.dtype(np.float32), ("N", 3)),
    )
    assert [tensor.name for tensor in engine.outputs] == ["y", "next_state.sum"]
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    result = engine(x=x, **{"state.sum": np.ones_like(x)})
    np.testing.assert_array_equal(result["y"], 2 * x + 1)
    np.testing.assert_array_equal(result["next_state.sum"], 2 * x + 2)


def test_wrong_names_types_and_shapes_are_refused(engine):
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(EngineError, match=r"missing: state\.sum, unknown: z"):
        engine(x=x, z=x)
    with pytest.raises(EngineError, match="expected x to be float32, got float64"):
        engine(x=x.astype(np.float64), **{"state.sum": x})
    with pytest.raises(EngineError, match=r"expected x .*got x \(2, 4\)"):
        engine(x=np.zeros((2, 4), np.float32), **{"state.sum": x})


def test_files_that_are_no_network_are_refused(tmp_path):
    with pytest.raises(EngineError, match="which does not exist"):
        open_engine(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(EngineError, match=r"got .*bad\.onnx: "):
        open_engine(tmp_path / "bad.onnx")
    (tmp_path / "cut.onnx").write_bytes(NETWORK[: len(NETWORK) // 2])
    with pytest.raises(EngineError, match=r"got .*cut\.onnx: "):
        open_engine(tmp_path / "cut.onnx")


def test_unknown_backends_and_no_threads_are_refused(tmp_path):
    with pytest.raises(ValueError, match="onnxruntime"):
        open_engine(tmp_path / "tiny.onnx", backend="abacus")
    with pytest.raises(ValueError, match="threads to be 1 or more, got"):
        open_engine(tmp_path / "tiny.onnx", threads=0)


class Unequal:
    """An engine that adds up in another order where more than two rows come; counts its calls."""

    inputs = outputs = ()

    def __init__(self):
        self.calls = []

    def __call__(self, x):
        self.calls.append(len(x))
        return {"sum": np.cumsum(x[:, ::-1] if len(x) > 2 else x, 1)[:, -1:]}


def test_rows_come_out_as_if_alone_even_where_batches_are_not_equal():
    plain, batched = Unequal(), BatchedEngine(inner := Unequal())
    x = np.random.default_rng(0).normal(size=(2 * LARGEST_BATCH + 3, 50)).astype(np.float32)
    alone = np.concatenate([plain(x=row[None])["sum"] for row in x])
    assert not np.array_equal(plain(x=x)["sum"], alone)
    for rows in (1, 2, 3, 2, 3, LARGEST_BATCH, len(x)):
        assert np.array_equal(batched(x=x[:rows])["sum"], alone[:rows])
    one_by_one = [1] * LARGEST_BATCH
    learnt = [1, *(1, 1, 2), *(1, 1, 1, 3), 2, *(1, 1, 1), *one_by_one, LARGEST_BATCH]
    assert inner.calls == [*learnt, *one_by_one, *one_by_one, *(1, 1, 1)]


def test_a_batch_of_uneven_arrays_is_refused_like_a_single_one(engine):
    batched = BatchedEngine(engine)
    assert isinstance(batched, Engine) and batched.inputs == engine.inputs and batched.outputs == engine.outputs
    with pytest.raises(EngineError, match="expected x"):
        batched(x=np.zeros((2, 3), np.float32), **{"state.sum": np.zeros((3, 3), np.float32)})
    x = np.zeros((0, 3), np.float32)
    assert batched(x=x, **{"state.sum": x})["y"].shape == (0, 3)


class FakeOnnxRuntime(types.ModuleType):
    """An ONNX Runtime for GPUs as far as an engine looks at it; says what is called in which order."""

    __version__ = "1.25.0"
    ExecutionMode = types.SimpleNamespace(ORT_SEQUENTIAL=0)

    def __init__(self, refuse=None):
        super().__init__("onnxruntime")
        self.calls = []
        self.refuse = refuse

    def get_available_providers(self):
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    def SessionOptions(self):
        return types.SimpleNamespace(add_session_config_entry=lambda key, value: None)

    def preload_dlls(self):
        self.calls.append("preload")
        print("Failed to load libcudnn")

    def InferenceSession(self, path, options, providers):
        self.calls.append(providers[0][0])
        if self.refuse:
            raise RuntimeError(self.refuse)
        return types.SimpleNamespace(
            disable_fallback=lambda: None, get_providers=lambda: [providers[0][0]], get_inputs=list, get_outputs=list
        )


def test_cuda_libraries_are_loaded_before_a_session_on_a_gpu(tmp_path, monkeypatch, capsys):
    fake = FakeOnnxRuntime()
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    OnnxEngine(tmp_path / "a.onnx", provider="cuda")
    OnnxEngine(tmp_path / "a.onnx", provider="tensorrt", cache=tmp_path)
    assert fake.calls == ["preload", "CUDAExecutionProvider", "preload", "TensorrtExecutionProvider"]
    output = capsys.readouterr()
    assert output.out == ""  # a command may be writing JSON there
    assert "libcudnn" in output.err
    fake.calls.clear()
    OnnxEngine(tmp_path / "a.onnx")
    assert fake.calls == ["CPUExecutionProvider"]
    older = FakeOnnxRuntime()
    older.preload_dlls = None  # before 1.21 there is none
    monkeypatch.setitem(sys.modules, "onnxruntime", older)
    OnnxEngine(tmp_path / "a.onnx", provider="cuda")


def test_an_old_onnx_runtime_that_cannot_sample_volumes_says_which_can(tmp_path, monkeypatch):
    fake = FakeOnnxRuntime("Could not find an implementation for GridSample(20)")
    fake.__version__ = "1.24.2"
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    with pytest.raises(EngineError, match=r"GridSample\(20\); .* pip install -U 'onnxruntime-gpu>=1\.25'"):
        OnnxEngine(tmp_path / "a.onnx", provider="cuda")
    fake.__version__ = "1.25.0"
    with pytest.raises(EngineError, match=r"GridSample\(20\); run `ditto bundle verify`"):
        OnnxEngine(tmp_path / "a.onnx", provider="cuda")


def test_two_builds_in_one_folder_are_told_with_the_way_out(tmp_path, monkeypatch):
    from ditto.app import doctor

    monkeypatch.setattr(
        "importlib.metadata.packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu", "onnxruntime"]}
    )
    assert installed_builds() == ["onnxruntime", "onnxruntime-gpu"]
    (check,) = doctor.onnxruntime_builds()
    assert not check.ok
    assert "onnxruntime and onnxruntime-gpu share one folder" in check.detail
    assert "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'onnxruntime-gpu>=1.25'" in check.todo
    fake = FakeOnnxRuntime()
    fake.get_available_providers = lambda: ["CPUExecutionProvider"]
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(EngineError, match=r"got onnxruntime and onnxruntime-gpu in one folder, .*pip uninstall -y"):
        open_engine(tmp_path / "a.onnx", device="cuda")
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu"]})
    assert list(doctor.onnxruntime_builds()) == []


def test_what_an_uninstalled_build_leaves_behind_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    (tmp_path / "a.onnx").write_bytes(b"")
    for device in ("cpu", "cuda"):
        with pytest.raises(
            EngineError, match=r"got parts of it .*; pip uninstall -y onnxruntime onnxruntime-gpu, then"
        ):
            open_engine(tmp_path / "a.onnx", device=device)
