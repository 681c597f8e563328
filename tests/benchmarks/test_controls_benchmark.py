"""`benchmarks.controls`: sections by name, what it exits with, what a section measures with."""

import numpy as np
import pytest

from benchmarks import _controls_head, controls
from benchmarks._controls import REST, Report, Study, register_folder
from benchmarks._report import Figure
from benchmarks.faces import example_portrait
from ditto.errors import InputError
from ditto.motion.eyes import CAMERA_HOLD
from ditto.motion.motion import rotation_matrix
from ditto.portrait.face_mesh import EYES, TEMPLATE
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
    assert "expected sections out of pose, gaze, jaw, emotion" in capsys.readouterr().err


def test_a_study_draws_a_portrait_and_says_what_it_lacks(head, tmp_path):
    portrait = head.register(example_portrait())
    study = Study(head, {"someone": portrait}, tmp_path, None, "python")
    (crop,) = study.crops("someone", REST[None])
    assert crop.shape == portrait.crop.shape and np.abs(crop.astype(int) - portrait.crop).mean() < 8.0
    with pytest.raises(InputError, match="--face-landmarker"):
        study.seen([crop])
    with pytest.raises(InputError, match="--portraits"):
        register_folder(head, tmp_path)


def posed(degrees=(0.0, 0.0, 0.0), look=(0.0, 0.0)):
    """Landmarks of the template face in a picture, turned about its own axes, with turned eyes."""
    face = TEMPLATE.copy()
    for eye in EYES:
        face[eye.iris, :2] += CAMERA_HOLD * np.sin(np.radians(look))
    return 200.0 * face @ rotation_matrix(*degrees) @ rotation_matrix(5.0, -15.0, 8.0) + (256.0, 256.0, 0.0)


@pytest.mark.parametrize("axis", range(3))
def test_a_turn_is_read_about_the_axes_of_the_head(axis):
    degrees = [0.0, 0.0, 0.0]
    degrees[axis] = -18.0
    read = [_controls_head.turned(i)(posed(degrees), posed()) for i in range(3)]
    np.testing.assert_allclose(read, degrees, atol=1e-6)


def test_a_look_is_read_in_the_turned_head():
    read = [_controls_head.looked(axis)(posed(look=(12.0, -7.0)), posed()) for axis in range(2)]
    np.testing.assert_allclose(read, (12.0, -7.0), atol=1e-6)


def test_a_row_counts_as_monotone_only_if_every_step_rises():
    rows = np.array([[1.0, 2.0, 3.0], [1.0, 0.8, 3.0], [1.0, np.nan, 3.0]])
    assert _controls_head.monotone(rows) == pytest.approx(1 / 3)
    assert _controls_head.monotone(rows, 0.5) == pytest.approx(2 / 3)


@pytest.mark.parametrize("section", ["pose", "gaze", "jaw"])
def test_a_section_measures_a_portrait(section, head, tmp_path, monkeypatch):
    for name, few in (("TURNS", (-12.0, 12.0)), ("OPENINGS", (0.4,)), ("LOOKS", {"gaze.right": (-20.0, 20.0)})):
        monkeypatch.setattr(_controls_head, name, few)
    study = Study(head, {"someone": head.register(example_portrait())}, tmp_path, None, "python")
    report = controls.SECTIONS[section](study)
    assert report.tables and all(np.isfinite(figure.value) for figure in report.figures)
    monotone = [figure for figure in report.figures if "monotone" in figure.name]
    assert monotone and all(figure.met for figure in monotone)
