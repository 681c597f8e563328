"""The command for a machine with a GPU runs through on a CPU, says what fails, and needs little."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the full-size networks need torch (pip install ditto[full])")

from benchmarks import device  # noqa: E402

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(device.emulated_cuda.compiler() is None, reason="needs Linux and a C++ compiler")
def test_the_sections_check_and_time_everything(tmp_path, capsys):
    file = tmp_path / "found.json"
    device.Report(file, 60, device="cpu")
    for name in ("kernels", "networks", "latent", "times", "predicted"):
        assert device.main(["--device", "cpu", "--tiny", "--output", str(file), "--child", "--only", name]) == 0
    found = json.loads(file.read_text())
    assert found["not_run"] == {} and all(check["met"] for check in found["checks"].values())
    spade = "kernel spade 8 x 16 x 16"
    kernels = {"kernel blend_crop", spade, f"{spade}, channels last", f"{spade}, channels last, half", "kernel dense_motion"}
    assert kernels | {"renderer, float32", "lmdm_fast, bfloat16, unequal bits in a race"} <= found["checks"].keys()
    assert found["times_ms"]["renderer, float32"]["p50"] > 0 and found["times_ms"]["kernel dense_motion"]["kernel"]["p50"] > 0
    assert {"V, tiny, latents, float32", "RAP, tiny, video, bfloat16"} <= found["checks"].keys()
    assert found["times_ms"]["V, tiny, a later block of 16 frames"]["real_time_factor"] > 0
    assert found["predicted"]["renderer"]["predicted_ms"]["H200, float16"] > 0
    assert " s  checks    renderer, float32: {'value'" in capsys.readouterr().out


def test_streams_are_timed_with_torch_and_numpy_alone(tmp_path):
    """Every other package is forbidden, and so are the CPU kernels; the section runs in a process of its own."""
    script = """
        import importlib.abc, sys

        FORBIDDEN = {"mediapipe", "tensorrt", "hsemotion", "onnx", "onnxscript", "onnxruntime", "cv2", "scipy", "PIL", "av",
                     "soundfile", "safetensors", "rich", "typer", "cryptography", "pydantic"}

        class Forbid(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name.split(".")[0] in FORBIDDEN or name == "ditto._native":
                    raise ModuleNotFoundError(f"{name} is forbidden", name=name)

        sys.meta_path.insert(0, Forbid())
        from benchmarks import device
        file = device.Path(sys.argv[1])
        device.Report(file, 60, device="cpu")
        sys.exit(device.main(["--device", "cpu", "--tiny", "--output", sys.argv[1], "--child", "--only", "pipeline"]))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "f.json")], cwd=ROOT, check=True)
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["not_run"] == {} and set(found["pipeline"]) == {"1 sessions", "2 sessions"}
    assert all(check["met"] for check in found["checks"].values()) and len(found["checks"]) == 2
    two = found["pipeline"]["2 sessions"]
    assert two["frames"] == device.TINY_FRAMES and two["first_frame_ms"] > 0 and two["portrait_ms"] > 0
    assert all(ms > 0 for ms in two["ms_a_frame_by_step"].values())


def test_a_failure_is_told_and_the_run_goes_on(tmp_path):
    report = device.Report(tmp_path / "found.json", 60, device="cpu")
    report.check("a", 2.0, 1.0)
    with report.part("b"):
        raise RuntimeError("CUDA error: no kernel image")
    report.check("c", float("nan"), 1.0)
    found = json.loads((tmp_path / "found.json").read_text())
    assert not report.passed and not found["checks"]["a"]["met"] and not found["checks"]["c"]["met"]
    assert found["not_run"] == {"b": "RuntimeError: CUDA error: no kernel image"}


def test_a_section_that_dies_or_hangs_leaves_what_it_had(tmp_path, capsys):
    file = tmp_path / "found.json"
    report = device.Report(file, 60, device="cpu")
    write = "import json, sys; f = json.load(open(sys.argv[1])); f['pipeline']['x'] = 1; json.dump(f, open(sys.argv[1], 'w'))"
    device.run_in_process(report, "dies", [sys.executable, "-c", f"{write}; import os; os.abort()", str(file)], 60)
    device.run_in_process(report, "hangs", [sys.executable, "-c", "import time; time.sleep(600)"], 0.2)
    device.run_in_process(report, "late", [], 0.0)
    found = json.loads(file.read_text())
    assert found["pipeline"] == {"x": 1} and not report.passed
    assert found["not_run"] == {
        "section dies": "its process ended with signal 6", "section hangs": "ended after 0 s",
        "section late": "the time was over",
    }  # fmt: skip


def test_the_command_runs_its_sections_and_says_what_failed(tmp_path, capsys, monkeypatch):
    def run(report, name, command, seconds):
        assert command[1:3] == ["-m", "benchmarks.device"] and {"--child", "--tiny", name} < set(command)
        begun.append((name, seconds))
        report.check(name, len(begun), 5)

    begun = []
    monkeypatch.setattr(device, "run_in_process", run)
    output = ["--output", str(tmp_path / "found.json")]
    assert device.main(["--device", "cpu", "--tiny", *output]) == 1
    assert [name for name, _ in begun] == list(device.SECTIONS) and all(0 < seconds <= 540 for _, seconds in begun)
    assert sum(seconds for _, seconds in device.SECTIONS.values()) <= 540
    assert "failed: predicted: 6, at most 5" in capsys.readouterr().out
    begun.clear()
    assert device.main(["--device", "cpu", "--tiny", *output, "--only", "times", "--seconds", "3"]) == 0
    assert begun[0][0] == "times" and begun[0][1] <= 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_without_a_gpu_it_says_so(capsys):
    assert device.main([]) == 2
    assert "expected cuda, got torch" in capsys.readouterr().err


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the files that git has")
def test_the_checkout_travels():
    """Machines with a GPU take 64 MiB."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    files = [ROOT / name for name in names.split("\0") if name]
    assert sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink()) < 60 << 20
