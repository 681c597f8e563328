"""torch engines, exported networks and their cache: everything gives what the plain torch module gives."""

import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the full-size networks need torch (pip install ditto[full])")

from engine_networks import FULL, TINY, make  # noqa: E402
from fixtures.reference.recipe import distance  # noqa: E402

from ditto.engines import Engine, Tensor, open_engine  # noqa: E402
from ditto.engines.networks import Example, example_of  # noqa: E402
from ditto.engines.torch_engine import TorchEngine, arguments_of, flatten  # noqa: E402
from ditto.errors import EngineError  # noqa: E402

EQUAL = 1e-5  # float32, sums in another order, an instance norm behind
ONNX = 1e-3
HALF = 2e-2
FEATURE_MAP = 32  # a quarter of the published pictures: the weights are what is large


def plain(network, example):
    """Results of the module itself."""
    with torch.no_grad():
        found = network(*(pick(example.inputs) for pick in arguments_of(network, example.inputs)))
    return {name: value.numpy() for name, value in flatten(example.outputs, found).items()}


def arrays(example):
    return {name: value.numpy() for name, value in example.inputs.items()}


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    errors = {name: distance(found[name], value) if value.any() else 0.0 for name, value in expected.items()}
    assert max(errors.values()) <= tolerance, errors


@pytest.fixture
def small():
    network = make(TINY, "stitching")
    return network, example_of(network)


@pytest.mark.parametrize("name", TINY)
def test_torch_engine_equals_the_module(name):
    network = make(TINY, name)
    example = example_of(network, batch=2, size=16)
    expected = plain(network, example)
    engine = open_engine(network, "torch", example=example)
    assert isinstance(engine, Engine)
    assert [tensor.name for tensor in engine.inputs] == list(example.inputs)
    assert {tensor.name: tensor.shape for tensor in engine.outputs} == {k: v.shape for k, v in expected.items()}
    found = engine(**arrays(example))
    assert_close(found, expected, EQUAL)
    again = engine(**arrays(example))
    assert all(np.array_equal(found[key], again[key]) for key in found)


@pytest.mark.parametrize("name", TINY)
def test_onnx_runtime_equals_torch(name, tmp_path):
    pytest.importorskip("onnxscript", reason="exporting needs onnxscript")
    network = make(TINY, name)
    example = example_of(network, batch=2, size=16)
    expected = plain(network, example)
    engine = open_engine(network, example=example, cache=tmp_path)
    assert [tensor.name for tensor in engine.inputs] == list(example.inputs)
    assert_close(engine(**arrays(example)), expected, ONNX)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_onnx_runtime_equals_torch_at_full_size(name):
    pytest.importorskip("onnxscript", reason="exporting needs onnxscript")
    network = make(FULL, name)
    example = example_of(network, size=FEATURE_MAP)
    expected = plain(network, example)
    with tempfile.TemporaryDirectory() as folder:  # not kept, as pytest's are: up to 1.3 GB
        engine = open_engine(network, threads=2, example=example, cache=folder)
        found = engine(**arrays(example))
        del engine
    assert_close(found, expected, ONNX)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", ["lmdm_fast", "hubert_streaming", "motion_extractor"])
def test_reduced_precision_stays_near(name, precision):
    network = make(TINY, name)
    example = example_of(network)
    expected = plain(network, example)
    found = open_engine(network, "torch", precision=precision)(**arrays(example))
    assert all(value.dtype == expected[key].dtype for key, value in found.items())
    assert_close(found, expected, 3 * HALF)
    assert any(distance(found[key], expected[key]) > EQUAL for key in found if expected[key].any())


@pytest.mark.parametrize("name", ["appearance", "warping"])
def test_half_precision_files_take_and_give_float32(name, tmp_path):
    pytest.importorskip("onnxscript", reason="exporting needs onnxscript")
    network = make(TINY, name)
    example = example_of(network, size=16)
    expected = plain(network, example)
    found = open_engine(network, precision="float16", example=example, cache=tmp_path)(**arrays(example))
    assert all(value.dtype == np.float32 for value in found.values())
    assert_close(found, expected, HALF)


@pytest.mark.parametrize("name", ["renderer", "motion_extractor"])
def test_channels_innermost_gives_the_same(name):
    network = make(TINY, name)
    example = example_of(network, size=16)
    expected = plain(network, example)
    engine = TorchEngine(network, example.inputs, example.outputs, channels_last=True)
    assert_close(engine(**arrays(example)), expected, EQUAL)


def test_a_compiled_engine_runs_what_torch_compiled(small, monkeypatch):
    """Compiling itself takes minutes of a slow machine; what is compiled has plain weights, which torch packs itself."""
    network, example = small
    expected = plain(network, example)
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: (compiled.append(module), module)[1])
    engine = open_engine(network, "torch", example=example, compiled=True)
    assert compiled == [network]
    assert type(network.mlp[0]) is torch.nn.Linear
    assert_close(engine(**arrays(example)), expected, EQUAL)


def test_an_engine_keeps_tensors_where_they_are(small):
    network, example = small
    engine = TorchEngine(network, example.inputs, example.outputs)
    found = engine.run(**example.inputs)
    assert isinstance(found["kp_stitched"], torch.Tensor)
    assert np.array_equal(found["kp_stitched"], engine(**arrays(example))["kp_stitched"])


def test_an_engine_serves_several_threads():
    network = make(TINY, "hubert_streaming")
    example = example_of(network)
    engine = open_engine(network, "torch")
    inputs = [{name: value * scale for name, value in arrays(example).items()} for scale in (1, 0.5, 0.25, 0.125)]
    expected = [engine(**given)["rows"] for given in inputs]
    with ThreadPoolExecutor(len(inputs)) as pool:
        for _ in range(5):
            found = list(pool.map(lambda given: engine(**given)["rows"], inputs))
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_wrong_names_types_and_shapes_are_refused(small):
    network, example = small
    engine = open_engine(network, "torch", example=example)
    given = arrays(example)
    with pytest.raises(EngineError, match="missing: kp_driving, unknown: kp"):
        engine(kp_source=given["kp_source"], kp=given["kp_driving"])
    with pytest.raises(EngineError, match=r"expected kp_source to be float32 .* got float64"):
        engine(**{**given, "kp_source": given["kp_source"].astype(np.float64)})
    with pytest.raises(EngineError, match=r"expected kp_source to be float32 \(1, 21, 3\), got float32 \(2, 21, 3\)"):
        engine(**{**given, "kp_source": np.repeat(given["kp_source"], 2, 0)})


@pytest.mark.filterwarnings("error")
def test_arrays_may_be_read_only_or_out_of_order(small):
    network, example = small
    engine = open_engine(network, "torch", example=example)
    given = arrays(example)
    expected = engine(**given)["kp_stitched"]
    fixed = given["kp_source"].copy()
    fixed.flags.writeable = False
    backwards = given["kp_driving"][:, ::-1].copy()[:, ::-1]
    assert np.array_equal(engine(kp_source=fixed, kp_driving=backwards)["kp_stitched"], expected)


def test_what_is_no_array_of_numbers_is_refused(small):
    network, example = small
    engine = open_engine(network, "torch", example=example)
    given = arrays(example)
    with pytest.raises(EngineError, match="expected kp_source to be an array of numbers"):
        engine(**{**given, "kp_source": ["a", None]})
    with pytest.raises(EngineError, match=r"expected kp_source to be .*got bfloat16"):
        engine.run(**{**example.inputs, "kp_source": example.inputs["kp_source"].bfloat16()})


def test_examples_that_do_not_fit_the_network_are_refused(small):
    network, example = small
    with pytest.raises(ValueError, match=r"forward, kp_driving, kp_source, got kp_source"):
        open_engine(network, "torch", example=Example({"kp_source": example.inputs["kp_source"]}, ("out",)))
    with pytest.raises(ValueError, match="expected 1 names, one for each result, got a, b"):
        open_engine(network, "torch", example=example._replace(outputs=("a", "b")))
    with pytest.raises(TypeError, match="got Linear; give an Example"):
        open_engine(torch.nn.Linear(2, 2), "torch")


def test_what_does_not_exist_is_refused(small, tmp_path):
    network, _ = small
    with pytest.raises(ValueError, match=r"precision to be one of float32, .* got 'float8'"):
        open_engine(network, "torch", precision="float8")
    with pytest.raises(ValueError, match="a precision for cpu, got float16"):
        open_engine(network, "torch", precision="float16")
    with pytest.raises(ValueError, match="float32 or float16, got 'bfloat16'"):
        open_engine(network, precision="bfloat16", cache=tmp_path)
    with pytest.raises(ValueError, match="expected a torch module"):
        open_engine(tmp_path / "network.onnx", "torch")
    with pytest.raises(ValueError, match=r"expected no precision for the file .* got 'float16'"):
        open_engine(tmp_path / "network.onnx", precision="float16")
    for device in ("tpu", "cuda:x", "cpu:"):
        with pytest.raises(ValueError, match=f"device to be cpu, cuda or cuda:N, got '{device}'"):
            open_engine(network, "torch", device=device)
    with pytest.raises(ValueError, match="expected backend='torch' with compiled=True"):
        open_engine(network, compiled=True)
    with pytest.raises(ValueError, match="expected a CUDA device for backend 'tensorrt'"):
        open_engine(network, "tensorrt")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_not_there_is_refused(small, tmp_path, monkeypatch):
    network, _ = small
    with pytest.raises(EngineError, match=r"expected cuda:1, got torch .* with 0 CUDA devices; set device='cpu'"):
        open_engine(network, "torch", device="cuda:1")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        (tmp_path / "network.onnx").write_bytes(b"not looked at")
        for backend, provider in (("onnxruntime", "CUDA"), ("onnxruntime-tensorrt", "Tensorrt")):
            with pytest.raises(EngineError, match=rf"expected {provider}Exec.* pip install 'onnxruntime-gpu>=1\.25'"):
                open_engine(tmp_path / "network.onnx", backend, device="cuda")
    monkeypatch.setattr("ditto.engines.export.exported", None)  # nothing is exported for a backend that cannot run it
    for backend in ("onnxruntime", "onnxruntime-tensorrt", "tensorrt"):
        with pytest.raises(EngineError, match=r"expected cuda|expected (CUDA|Tensorrt)ExecutionProvider"):
            open_engine(network, backend, device="cuda", cache=tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_of_several_backends_the_first_that_can_runs_and_the_log_says_why(small, tmp_path, monkeypatch, caplog):
    network, example = small
    expected = plain(network, example)
    monkeypatch.setattr("ditto.engines.torch_engine.torch_device", lambda name: torch.device("cpu"))
    pytest.importorskip("onnxscript", reason="exporting needs onnxscript")
    engine = open_engine(network, ["tensorrt", "torch"], device="cuda", example=example, cache=tmp_path)
    assert isinstance(engine, TorchEngine)
    assert_close(engine(**arrays(example)), expected, EQUAL)
    assert "tensorrt cannot run the network: " in caplog.text
    with pytest.raises(EngineError, match="expected CUDAExecutionProvider"):
        open_engine(make(TINY, "stitching"), ["tensorrt", "onnxruntime"], device="cuda", cache=tmp_path)
    with pytest.raises(ValueError, match="at least one backend"):
        open_engine(network, [])


class Hungry(torch.nn.Module):
    """Runs out of memory above a batch."""

    def __init__(self, most):
        super().__init__()
        self.most = most
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return self.linear(x)


def test_out_of_memory_says_which_batch_fits():
    def example(batch):
        return Example({"x": torch.zeros(batch, 4)}, ("y",))

    with pytest.raises(EngineError, match=r"a batch of 12 in float32 does not fit .* a batch of 3 fits"):
        open_engine(Hungry(5), "torch", example=example(12))
    with pytest.raises(EngineError, match=r"a batch of 2 .* the weights alone take 0\.00 GiB"):
        open_engine(Hungry(0), "torch", example=example(2))
    network = Hungry(5)
    engine = open_engine(network, "torch", example=example(4))
    network.most = 2  # another program took the memory meanwhile
    with pytest.raises(EngineError, match="a batch of 2 fits"):
        engine(x=np.zeros((4, 4), np.float32))
    network.most = 5
    assert engine(x=np.zeros((4, 4), np.float32))["y"].shape == (4, 4)


def test_shapes_and_types_are_described(small):
    network, example = small
    engine = open_engine(network, "torch", example=example)
    assert engine.inputs == (
        Tensor("kp_source", np.dtype(np.float32), (1, 21, 3)),
        Tensor("kp_driving", np.dtype(np.float32), (1, 21, 3)),
    )
    assert engine.outputs == (Tensor("kp_stitched", np.dtype(np.float32), (1, 21, 3)),)
