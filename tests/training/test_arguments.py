"""Numbers that make no sense are refused in one line before a training begins."""

import importlib
import sys

import pytest

pytest.importorskip("torch", reason="training needs torch (pip install ditto[train])")

from typer.testing import CliRunner

from ditto.app.cli import app

SEEDS = "-1", str(2**64), "9" * 30
PROGRAMS = [
    *[(name, "--seed", seed) for name in ("corpus", "motion", "motion_short", "sync") for seed in SEEDS],
    *[("sync", "--steps", steps) for steps in ("0", "-1", "some")],
    *[(name, "--every", every) for name in ("mesh_basis", "motion_ranges") for every in ("0", "-2")],
    *[("motion_eval", option, "0") for option in ("--clips", "--steps")],
]


@pytest.mark.parametrize(("program", "option", "value"), PROGRAMS)
def test_programs_refuse_numbers_that_cannot_be(program, option, value, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [program, option, value])
    with pytest.raises(SystemExit) as error:
        importlib.import_module(f"ditto.training.{program}").main()
    assert error.value.code == 2
    assert f"argument {option}: expected a whole number from" in capsys.readouterr().err


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("command", ["motion D", "avatar V", "encoder D T M", "codec C", "flow C W", "rap C W"])
def test_commands_refuse_seeds_that_cannot_be(command, seed, tmp_path):
    result = CliRunner().invoke(app, ["train", *command.split(), "-o", str(tmp_path / "out"), f"--seed={seed}"])
    assert result.exit_code == 2 and "Invalid value for '--seed'" in result.stderr and not list(tmp_path.iterdir())
