"""Every benchmark refuses arguments that make no sense in one line, exit code 2, before it measures anything."""

import importlib
import signal
import sys
from pathlib import Path

import pytest

from ditto.commands import SIGNALS, run

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
REFUSED = {  # of a benchmark: arguments; FILE and EMPTY, a folder, are there, MISSING is not
    "ablations": ["MISSING out", "FILE FILE/out", "FILE out --steps 0", "FILE out --seeds 1e9"],
    "client": ["--seconds nan", "--interrupts -1"],
    "controls": ["--portraits MISSING", "--data FILE", "--seed -1", "--sheets FILE", "--bundle MISSING"],
    "demo_picture": ["--out EMPTY", "--out FILE/demo.webp"],
    "device": ["--device cpu --seconds nan", "--device cpu --output EMPTY", "--device cpu --output FILE/x", "--device x"],
    "inconsistency": ["--faces MISSING", "--faces EMPTY", "--faces FILE"],
    "kernels": ["--frames 0", "--frames 1e9", "--passes -1"],
    "latent": ["--blocks 0", "--turns 1e9", "--bundle MISSING", "--cost --json EMPTY"],
    "life": ["--minutes nan", "--minutes -1", "--seeds 0", "--data MISSING", "--data EMPTY --real", "--bundle MISSING"],
    "lips": ["--clips 0", "--utterances -1", "--cut-bundles MISSING", "--bundle MISSING"],
    "networks": ["--threads 0", "--repeats 1e9", "--device x"],
    "poses": ["--out FILE", "--out new --bundle MISSING"],
    "quality": ["MISSING", "EMPTY", "EMPTY --seconds nan", "EMPTY --seconds 0", "EMPTY --sound-late inf"],
    "random_bundle": ["EMPTY", "FILE/under", "new --seed -1"],
    "render": ["--clips EMPTY", "--frames 0", "--turns 1e9", "--bundle MISSING", "--pictures FILE"],
    "rtf": ["--minutes 0", "--minutes nan", "--turns -1", "--sessions 0", "--json EMPTY", "--bundle MISSING"],
    "sheet": ["--seconds 0", "--seconds nan", "--out FILE", "--out new --bundle MISSING"],
    "sync": ["MISSING", "FILE", "EMPTY --clips 0", "EMPTY --bundle MISSING"],
    "syncnet": ["MISSING MISSING", "FILE FILE"],
    "voice": ["--data MISSING", "--data EMPTY", "--clips 0", "--clips 51"],
}
NEED_TORCH = ("ablations", "device", "latent", "lips", "networks", "random_bundle", "syncnet")


@pytest.fixture(autouse=True)
def signals():
    """`run` ends a process, so it takes the signals."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_every_benchmark_is_here():
    programs = [path.stem for path in BENCHMARKS.glob("[!_]*.py") if '__name__ == "__main__"' in path.read_text()]
    assert sorted(programs) == sorted(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_that_make_no_sense_are_refused_in_one_line(name, tmp_path, monkeypatch, capsys):
    if name in NEED_TORCH:
        pytest.importorskip("torch", reason="this benchmark needs torch")
    main = importlib.import_module(f"benchmarks.{name}").main
    (tmp_path / "FILE").touch()
    (tmp_path / "EMPTY").mkdir()
    monkeypatch.chdir(tmp_path)
    for words in REFUSED[name]:
        monkeypatch.setattr(sys, "argv", [name, *words.split()])
        with pytest.raises(SystemExit) as ended:
            run(main)
        said = capsys.readouterr().err
        assert (ended.value.code, said.count("\n")) == (2, 1), (words, said)
    assert {path.name for path in tmp_path.iterdir()} <= {"EMPTY", "FILE", "new"}
