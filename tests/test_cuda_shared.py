"""Streams that share a forward: the same bits alone and together, and nobody waits for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="the full-size networks need torch (pip install ditto[full])")

from engine_networks import TINY, make  # noqa: E402

from ditto.engines.networks import example_of  # noqa: E402
from ditto.engines.shared import SharedEngine  # noqa: E402
from ditto.engines.torch_engine import TorchEngine  # noqa: E402
from ditto.errors import EngineError  # noqa: E402
from ditto.full.pipeline import FullOptions  # noqa: E402


@pytest.fixture
def shared():
    """The motion network, whose noise has the batch on its second axis, for three rows; sizes of its batches as they run."""
    network = make(TINY, "lmdm_fast")
    return SharedEngine(TorchEngine(network, *example_of(network, 3)), example_of(network)), example_of(network)


def scaled(example, scale):
    return {name: value * scale for name, value in example.inputs.items()}


def test_a_row_has_the_same_bits_alone_and_among_others(shared, monkeypatch):
    engine, example = shared
    assert engine.rows == 3 and engine.outputs[0].shape == (1, 12, 9)
    alone = [engine.run(**scaled(example, 1 / (i + 1)))["motion"] for i in range(7)]
    plain = make(TINY, "lmdm_fast")(**scaled(example, 1.0))
    assert torch.allclose(alone[0], plain, atol=1e-4) and not torch.equal(alone[0], alone[1])

    sizes, run, begun, go = [], engine._run, threading.Event(), threading.Event()

    def watched(jobs):
        sizes.append(len(jobs))
        begun.set()
        assert go.wait(60)
        run(jobs)

    monkeypatch.setattr(engine, "_run", watched)
    with ThreadPoolExecutor(7) as pool:
        found = [pool.submit(engine.run, **scaled(example, 1.0))]
        assert begun.wait(60)
        found += [pool.submit(engine.run, **scaled(example, 1 / (i + 1))) for i in range(1, 7)]
        while len(engine._waiting) < 6:
            threading.Event().wait(0.001)
        go.set()
        for i, future in enumerate(found):
            assert torch.equal(future.result(60)["motion"], alone[i])
    assert sizes == [1, 3, 3]


def test_a_failure_reaches_everybody_in_the_batch_and_no_other(shared, monkeypatch):
    engine, example = shared
    with pytest.raises(EngineError, match="give one row of each by name"):
        engine.run(**{**scaled(example, 1.0), "cond": torch.zeros(2, 12, 15)})
    run = engine.engine.run
    monkeypatch.setattr(engine.engine, "run", lambda **given: (_ for _ in ()).throw(EngineError("no memory")))
    with pytest.raises(EngineError, match="no memory"):
        engine.run(**scaled(example, 1.0))
    monkeypatch.setattr(engine.engine, "run", lambda **given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        engine.run(**scaled(example, 1.0))
    monkeypatch.setattr(engine.engine, "run", run)
    assert engine.run(**scaled(example, 1.0))["motion"].shape == (1, 12, 9)


def test_a_thread_waits_for_its_stream_before_another_goes_on(shared, monkeypatch):
    """Rows are made in one thread and run in another; on a GPU each may have a stream of its own."""
    engine, example = shared
    done, run, moved = [], engine.engine.run, torch.Tensor.to
    gpu = SimpleNamespace(type="cuda")
    stream = SimpleNamespace(synchronize=lambda: done.append("settled"))
    monkeypatch.setattr(engine, "device", gpu)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *how: self if how == (gpu,) else moved(self, *how))
    monkeypatch.setattr(engine.engine, "run", lambda **given: done.append("run") or run(**given))
    engine.run(**scaled(example, 1.0))
    assert done == ["settled", "run", "settled"]


def test_the_option_opens_shared_engines_with_torch_alone():
    network = make(TINY, "stitching")
    assert isinstance(FullOptions(batch=2).open(network, shared=True), SharedEngine)
    assert isinstance(FullOptions(batch=2).open(make(TINY, "stitching")), TorchEngine)
    for wrong in ({"batch": 0}, {"batch": 2, "backend": "onnxruntime"}):
        with pytest.raises(ValueError, match="expected batch to be 1 or more"):
            FullOptions(**wrong)
