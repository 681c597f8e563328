"""What engines make once and keep: exported networks and TensorRT plans."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import ClassVar

import pytest

torch = pytest.importorskip("torch", reason="the full-size networks need torch (pip install ditto[full])")

from engine_networks import DIFFUSION, TINY, make  # noqa: E402
from fixtures.reference.recipe import distance  # noqa: E402

from ditto.engines import cache, export, open_engine  # noqa: E402
from ditto.engines.networks import Example, example_of  # noqa: E402
from ditto.engines.onnx_engine import provider_options  # noqa: E402
from ditto.errors import EngineError  # noqa: E402
from ditto.full.networks.lmdm import LMDM, ddim_schedule  # noqa: E402
from ditto.full.networks.lmdm_fast import FastLMDM  # noqa: E402


@pytest.fixture
def small():
    network = make(TINY, "stitching")
    return network, example_of(network)


class Wrong(torch.nn.Module):
    """Gives something else in an ONNX file than in torch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (1.0 if torch.compiler.is_exporting() else 1.01)


def test_an_export_that_differs_fails_and_leaves_nothing(tmp_path):
    pytest.importorskip("onnxscript", reason="exporting needs onnxscript")
    example = Example({"x": torch.ones(2, 3)}, ("y",))
    with pytest.raises(EngineError, match=r"Wrong: expected ONNX Runtime .* got 0\.0099 in y"):
        open_engine(Wrong(), example=example, cache=tmp_path)
    assert [p.suffix for p in tmp_path.iterdir()] == [".lock"]


def test_an_export_has_its_name_only_when_it_was_checked(small, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="exporting needs onnxscript")
    seen = []
    monkeypatch.setattr(export, "check", lambda *a: seen.append((tmp_path / "network.onnx").exists()))
    export.export_onnx(*small, tmp_path / "network.onnx")
    assert seen == [False]
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]


def test_an_export_is_kept_and_made_anew_when_weights_change(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="exporting needs onnxscript")
    made = []
    original = export.export_onnx
    monkeypatch.setattr(export, "export_onnx", lambda *a: (made.append(a[2]), original(*a))[1])
    network = make(TINY, "retarget_lip")
    example = example_of(network)
    for _ in range(2):
        open_engine(network, cache=tmp_path)
    assert len(made) == 1
    network.mlp[0].bias += 1
    with torch.no_grad():
        expected = network(*example.inputs.values())
    (found,) = open_engine(network, cache=tmp_path)(**{k: v.numpy() for k, v in example.inputs.items()}).values()
    assert distance(found, expected) <= 1e-3
    open_engine(network, example=example_of(network, batch=2), cache=tmp_path)
    assert len(made) == 3
    assert len(list(tmp_path.glob("*.onnx"))) == 3


def test_an_export_depends_on_what_is_no_weight(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="exporting needs onnxscript")
    monkeypatch.setattr(export, "export_onnx", lambda network, example, file, precision: file.write_bytes(b"x"))
    lmdm = LMDM(DIFFUSION)
    exact, released = ddim_schedule(2), ddim_schedule(2, torch.float32)
    networks = [FastLMDM(lmdm, *how) for how in ((exact, 2.0), (exact, 2.0), (exact, 3.0), (released, 2.0))]
    files = [export.exported(network, example_of(network), folder=tmp_path) for network in networks]
    assert files[0] == files[1]
    assert len(set(files)) == 3


def test_the_tensorrt_provider_keeps_what_it_builds(tmp_path, monkeypatch):
    monkeypatch.setenv("DITTO_CACHE", str(tmp_path / "kept"))
    assert provider_options("tensorrt", 0, None)["trt_engine_cache_path"] == str(tmp_path / "kept")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EngineError, match=r"cache folder, got .*file/sub: .*set DITTO_CACHE"):
        provider_options("tensorrt", 0, tmp_path / "file" / "sub")


@pytest.fixture
def full_disk(monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ditto.media.files.os.fsync", refuse)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, full_disk):
    with pytest.raises(EngineError, match=r"No space left on device \(\d+ MiB free\); free space, or set DITTO_CACHE"):
        cache.build_once(tmp_path / "new" / "thing", lambda part: cache.write_bytes(part, b"x"))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["thing.lock"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EngineError, match=r"cache folder, got .*file(/sub)?: "):
        cache.build_once(tmp_path / "file" / "sub" / "thing", lambda part: cache.write_bytes(part, b"x"))


def test_of_two_processes_one_builds(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom ditto.engines.cache import build_once\n"
        "def build(part):\n"
        "    with open(sys.argv[2], 'a') as log: log.write('built\\n')\n"
        "    time.sleep(0.5)\n"
        "    part.write_bytes(b'plan')\n"
        "assert build_once(Path(sys.argv[1]), build).read_bytes() == b'plan'\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "one.plan"), str(tmp_path / "log")]
    running = [subprocess.Popen(command, cwd=Path(cache.__file__).parents[2]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert (tmp_path / "log").read_text() == "built\n"
    assert not list(tmp_path.glob(".*.part"))


DEPENDS = {"network": "abc", "gpu": "A100, compute 8.0", "tensorrt": "11.2.0"}


def test_a_plan_for_something_else_is_refused_and_named(tmp_path):
    file = tmp_path / "a.plan"
    cache.write_plan(file, DEPENDS, b"\x00plan\n\xff")
    assert cache.read_plan(file, DEPENDS) == b"\x00plan\n\xff"
    with pytest.raises(EngineError, match=r"expected gpu T4, compute 7\.5, got A100, compute 8\.0; build it again"):
        cache.read_plan(file, {**DEPENDS, "gpu": "T4, compute 7.5"})
    with pytest.raises(EngineError, match=r"expected tensorrt 12\.0\.1, got 11\.2\.0"):
        cache.read_plan(file, {**DEPENDS, "tensorrt": "12.0.1"})
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(EngineError, match="expected the SHA-256 of its first line"):
        cache.read_plan(file, DEPENDS)
    for content in (b"", b"not json\nplan", b"[1]\nplan", b'{"depends": {}}\n'):
        file.write_bytes(content)
        with pytest.raises(EngineError, match="expected a plan written by ditto"):
            cache.read_plan(file, DEPENDS)


class FakeTensorRT:
    """The calls `tensorrt_engine` makes while it builds, as TensorRT documents them."""

    __version__ = "11.2.0"
    builds = 0
    limits: ClassVar[list] = []
    refuse_file = refuse_plan = False

    class NetworkDefinitionCreationFlag:
        STRONGLY_TYPED = 1

    class MemoryPoolType:
        WORKSPACE = "workspace"

    class IProgressMonitor:
        pass

    def Builder(self, logger):
        self.at("Builder")
        outer = self

        class Builder:
            def create_network(self, flags):
                assert flags == 1 << 1
                return "network"

            def create_builder_config(self):
                return types.SimpleNamespace(
                    set_memory_pool_limit=lambda pool, size: outer.limits.append((pool, size)),
                    create_timing_cache=lambda known: known or b"empty",
                    set_timing_cache=lambda timing, ignore_mismatch: None,
                    get_timing_cache=lambda: types.SimpleNamespace(serialize=lambda: b"timings"),
                )

            def build_serialized_network(self, network, config):
                outer.at("build")
                outer.builds += 1
                config.progress_monitor.phase_start("Tactic Selection", None, 7)
                assert config.progress_monitor.step_complete("Tactic Selection", 0)
                config.progress_monitor.phase_finish("Tactic Selection")
                return None if outer.refuse_plan else b"plan %d" % outer.builds

        return Builder()

    def at(self, call):
        """For fakes that look at the current GPU; every call that TensorRT makes on it comes by here."""

    def OnnxParser(self, network, logger):
        return types.SimpleNamespace(
            parse_from_file=lambda path: not self.refuse_file, num_errors=1,
            get_error=lambda i: types.SimpleNamespace(desc=lambda: "GridSample has 5 axes"),
        )  # fmt: skip


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """plan_of with a faked TensorRT and GPU: (function of nothing, the fake, the GPU)."""
    from ditto.engines.tensorrt_engine import plan_of

    gpu = types.SimpleNamespace(name="A100", major=8, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1000, 2000))
    (tmp_path / "net.onnx").write_bytes(b"network")
    fake = FakeTensorRT()
    return lambda: plan_of(fake, None, tmp_path / "net.onnx", torch.device("cuda"), tmp_path / "plans"), fake, gpu


def test_a_plan_is_built_once_and_again_for_another_gpu_version_or_network(planned, tmp_path):
    plan, fake, gpu = planned
    assert plan() == plan() == b"plan 1"
    assert (tmp_path / "plans" / "timing-11.2.0.cache").read_bytes() == b"timings"
    gpu.name = "T4"
    assert plan() == b"plan 2"
    fake.__version__ = "12.0.0"
    assert plan() == b"plan 3"
    (tmp_path / "net.onnx").write_bytes(b"other weights")
    assert plan() == plan() == b"plan 4"


def test_a_plan_that_was_put_there_or_damaged_is_built_again(planned, tmp_path, caplog):
    plan, _, gpu = planned
    plan()
    (own,) = (tmp_path / "plans").glob("net-*.plan")
    gpu.name = "T4"
    plan()
    (other,) = set((tmp_path / "plans").glob("net-*.plan")) - {own}
    own.replace(other)  # copied from another machine under this one's name
    assert plan() == b"plan 3"
    assert "expected gpu T4, compute 8.0, got A100, compute 8.0" in caplog.text
    other.write_bytes(other.read_bytes()[:-2])
    assert plan() == b"plan 4"
    assert json.loads(other.read_bytes().split(b"\n", 1)[0])["depends"]["gpu"] == "T4, compute 8.0"


def test_a_build_may_use_most_of_the_free_memory_and_says_how_far_it_is(planned, caplog):
    plan, fake, _ = planned
    fake.limits.clear()
    with caplog.at_level("INFO"):
        plan()
    assert fake.limits == [("workspace", 800)]
    assert "net.onnx: TensorRT begins 'Tactic Selection', 7 steps" in caplog.text


def test_with_a_full_disk_a_plan_is_used_but_not_kept(planned, tmp_path, full_disk, caplog):
    plan, _, _ = planned
    assert plan() == b"plan 1"
    assert "is used but not kept" in caplog.text and "No space left" in caplog.text
    assert not [p for p in (tmp_path / "plans").iterdir() if p.suffix != ".lock"]


def test_a_network_tensorrt_refuses_is_told_with_its_reason(planned):
    plan, fake, _ = planned
    fake.refuse_file = True
    with pytest.raises(EngineError, match=r"TensorRT 11\.2\.0 can parse, got net\.onnx: GridSample has 5 axes"):
        plan()
    fake.refuse_file, fake.refuse_plan = False, True
    with pytest.raises(EngineError, match=r"expected a plan of net\.onnx"):
        plan()


def test_no_tensorrt_and_an_old_one_are_refused(monkeypatch):
    from ditto.engines.tensorrt_engine import import_tensorrt

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match="pip install tensorrt, or set backend='torch'"):
        import_tensorrt()
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="10.3.0"))
    with pytest.raises(EngineError, match=r"expected TensorRT 11\.2 or later .* got 10\.3\.0"):
        import_tensorrt()


class FakeGpus(FakeTensorRT):
    """All of TensorRT that an engine calls, and the calls of torch that choose a GPU: which one is current at each."""

    class Logger:
        ERROR = 1

        def __init__(self, severity):
            pass

    class TensorIOMode:
        INPUT, OUTPUT = "input", "output"

    def __init__(self, monkeypatch):
        self.current, self.calls = 0, []
        zeros = torch.zeros

        class Current:
            def __init__(inner, device):
                inner.index = torch.device(device).index

            def __enter__(inner):
                self.current, inner.before = inner.index, self.current

            def __exit__(inner, *error):
                self.current = inner.before

        stream = types.SimpleNamespace(
            cuda_stream=7, wait_stream=lambda other: self.at(f"wait for {other}"), synchronize=lambda: None,
            device=torch.device("cuda:1"),
        )
        cuda = {
            "is_available": lambda: True, "device_count": lambda: 2, "device": Current,
            "get_device_properties": lambda device: types.SimpleNamespace(name="T4", major=7, minor=5),
            "Stream": lambda device: stream, "stream": lambda given: contextlib.nullcontext(),
            "current_stream": lambda device: "the caller's stream", "mem_get_info": lambda: (1000, 2000),
        }  # fmt: skip
        for name, value in cuda.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch, "zeros", lambda shape, dtype, device: zeros(shape, dtype=dtype))
        monkeypatch.setitem(sys.modules, "tensorrt", self)

    def at(self, call):
        self.calls.append((call, self.current))

    def nptype(self, dtype):
        return dtype

    def Runtime(self, logger):
        self.at("Runtime")
        return types.SimpleNamespace(deserialize_cuda_engine=self.load)

    def load(self, plan):
        self.at("deserialize")
        return types.SimpleNamespace(
            num_io_tensors=2, get_tensor_name=["x", "y"].__getitem__, get_tensor_dtype=lambda name: "float32",
            get_tensor_shape=lambda name: (1, 2), get_tensor_mode={"x": "input", "y": "output"}.get,
            create_execution_context=self.context,
        )  # fmt: skip

    def context(self):
        self.at("context")
        return types.SimpleNamespace(
            set_tensor_address=lambda name, pointer: None, execute_async_v3=lambda stream: not self.at("execute")
        )


@pytest.mark.parametrize(("device", "index"), [("cuda:1", 1), ("cuda:0", 0), ("cuda", 0)])
def test_tensorrt_builds_loads_and_runs_on_the_gpu_it_was_asked_for(device, index, tmp_path, monkeypatch):
    from ditto.engines.tensorrt_engine import TensorRTEngine

    fake = FakeGpus(monkeypatch)
    fake.current = elsewhere = 1 - index  # the program works on the other one
    (tmp_path / "net.onnx").write_bytes(b"network")
    engine = TensorRTEngine(tmp_path / "net.onnx", device, tmp_path / "plans")
    assert engine.device == torch.device("cuda", index)
    engine.run(x=torch.ones(1, 2))
    called = [call for call, _ in fake.calls]
    assert called == [
        "Builder", "build", "Runtime", "deserialize", "context", "wait for the caller's stream", "execute"
    ]  # fmt: skip
    assert {current for _, current in fake.calls} == {index}
    assert fake.current == elsewhere  # and stays there
