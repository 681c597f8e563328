"""The command for a machine with a GPU runs through on a CPU, and says what fails."""

import json

import pytest

torch = pytest.importorskip("torch", reason="the full-size networks need torch (pip install ditto[full])")

from benchmarks import device  # noqa: E402


@pytest.mark.skipif(device.emulated_cuda.compiler() is None, reason="needs Linux and a C++ compiler")
def test_the_command_checks_and_times_everything(tmp_path, capsys):
    assert device.main(["--device", "cpu", "--tiny", "--output", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["not_run"] == {} and all(check["met"] for check in found["checks"].values())
    spade = "kernel spade 8 x 16 x 16"
    kernels = {"kernel blend_crop", spade, f"{spade}, channels last", "kernel dense_motion"}
    assert kernels | {"renderer, float32", "lmdm_fast, bfloat16, unequal bits in a race"} <= found["checks"].keys()
    assert {"V, tiny, latents, float32", "RAP, tiny, video, bfloat16"} <= found["checks"].keys()
    assert found["times_ms"]["V, tiny, a later block of 16 frames"]["real_time_factor"] > 0
    assert set(found["pipeline"]) == {"batch 1", "batch 4", "batch 8"}
    assert found["times_ms"]["renderer, float32"]["p50"] > 0
    assert "passed; " in capsys.readouterr().out


def test_a_failure_is_told_and_the_run_goes_on(tmp_path):
    report = device.Report(tmp_path / "found.json", 60)
    report.check("a", 2.0, 1.0)
    with report.part("b"):
        raise RuntimeError("CUDA error: no kernel image")
    report.check("c", float("nan"), 1.0)
    found = json.loads((tmp_path / "found.json").read_text())
    assert not report.passed and not found["checks"]["a"]["met"] and not found["checks"]["c"]["met"]
    assert found["not_run"] == {"b": "RuntimeError: CUDA error: no kernel image"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_without_a_gpu_it_says_so(capsys):
    assert device.main([]) == 2
    assert "expected cuda, got torch" in capsys.readouterr().err
