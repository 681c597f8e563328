"""`benchmarks.controls`: sections by name, what it exits with, what a section measures with."""

import numpy as np
import pytest

from benchmarks import controls
from benchmarks._controls import REST, Report, Study, register_folder
from benchmarks._report import Figure
from benchmarks.faces import example_portrait
from ditto.errors import InputError
from ditto.talking_head import load


@pytest.fixture(scope="module")
def head():
    return load("lite")


@pytest.mark.parametrize(("value", "code"), [(2.0, 0), (0.0, 1), (float("nan"), 1)])
def test_a_missed_bar_is_the_exit_code(value, code, monkeypatch, capsys, head):
    monkeypatch.setattr(controls, "load", lambda bundle: head)
    monkeypatch.setattr(controls, "register_folder", lambda head, folder: {})
    monkeypatch.setattr(controls, "SECTIONS", {"some": lambda study: Report([Figure("a number", value, low=1.0)])})
    assert controls.main(["some"]) == code
    assert ("MISSED" in capsys.readouterr().out) is (code == 1)


def test_an_unknown_section_is_refused_before_anything_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr(controls, "load", lambda bundle: pytest.fail("loaded"))
    with pytest.raises(SystemExit, match="2"):
        controls.main(["emotions"])
    assert "expected sections out of emotion" in capsys.readouterr().err


def test_a_study_draws_a_portrait_and_says_what_it_lacks(head, tmp_path):
    portrait = head.register(example_portrait())
    study = Study(head, {"someone": portrait}, tmp_path, None, "python")
    (crop,) = study.crops("someone", REST[None])
    assert crop.shape == portrait.crop.shape and np.abs(crop.astype(int) - portrait.crop).mean() < 8.0
    with pytest.raises(InputError, match="--face-landmarker"):
        study.seen([crop])
    with pytest.raises(InputError, match="--portraits"):
        register_folder(head, tmp_path)
