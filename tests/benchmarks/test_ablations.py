"""benchmarks.ablations: variants differ in what they say, scores are of clips kept out, finished runs stay."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch (pip install ditto[train])")
pytest.importorskip("onnx", reason="training needs onnx (pip install ditto[train])")

from small_corpus import small_corpus  # noqa: E402

from benchmarks import ablations  # noqa: E402
from ditto.training.motion_batches import Units, draw  # noqa: E402
from ditto.training.recipe import Recipe, preset  # noqa: E402


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory):
    """Two real clips, 26 utterances with generated motion, two held clips, a cut in two rooms."""
    path, corpus = tmp_path_factory.mktemp("corpus") / "corpus.npz", small_corpus(32, frames=50)
    kinds = ["real"] * 2 + ["made"] * 26 + ["held"] * 2 + ["natural"] * 2
    names = [f"{kind}{i:02d}" for i, kind in enumerate(kinds)]
    names[-1] = names[-2]
    np.savez(
        path, names=np.array(names), kind=np.array(kinds), lengths=corpus.length, features=corpus.features,
        motion=corpus.motion, eyes=corpus.eyes, emotion=corpus.emotion, canonical=corpus.canonical,
    )  # fmt: skip
    return path


def test_scored_utterances_are_not_trained_on(corpus_file):
    material = ablations.material_of(corpus_file)
    assert material.made.names == ("made02", "made27")
    assert len(material.trained.names) == 26 and not set(material.trained.names) & set(material.made.names)
    assert material.held.names == ("held28", "held29")
    assert material.natural.names == ("natural30",)  # the first of its two rooms


def test_variants_leave_out_what_they_say():
    complete = ablations.recipe_of("complete", 50)
    assert complete.steps == 50 and complete.short_steps == 0
    differing = {name: ablations.recipe_of(name, 50).differences(vars(complete)) for name in ablations.VARIANTS}
    assert differing == {
        "complete": [],
        "no canonical keypoints": ["hide"],
        "no emotion": ["hide"],
        "no adaptive weights": ["adaptive"],
    }


def test_hidden_conditions_are_zero_and_the_rest_is_as_before():
    corpus = small_corpus()
    units, recipe = Units.of(corpus), Recipe(batch=4)
    shown = draw(corpus, units, recipe, 0, 0, range(4)).batch
    hidden = draw(corpus, units, ablations.recipe_of("no emotion", 1), 0, 0, range(4)).batch
    assert not hidden.emotion.any() and shown.emotion.any()
    assert all(torch.equal(a, b) for a, b in zip(hidden._replace(emotion=shown.emotion), shown, strict=True))
    hidden = draw(corpus, units, ablations.recipe_of("no canonical keypoints", 1), 0, 0, range(4)).batch
    assert not hidden.canonical.any() and torch.equal(hidden.motion, shown.motion)
    assert not corpus.without(("canonical",)).canonical.any()


def test_the_error_of_the_mean_expression():
    faces = np.random.default_rng(0).normal(size=(9, 63))
    assert ablations.mean_face(faces, faces[::-1]) == pytest.approx(0.0, abs=1e-9)
    assert ablations.mean_face(faces + 0.003, faces.reshape(9, 21, 3)) == pytest.approx(3.0)


def test_the_table_and_what_stays(corpus_file, tmp_path, monkeypatch, capsys):
    """One update each; a run that is finished is neither trained nor scored again."""
    monkeypatch.setattr(ablations, "MORE_STEPS", 11)
    monkeypatch.setattr(ablations, "VARIANTS", {n: ablations.VARIANTS[n] for n in ("complete", "no emotion")})
    words = [str(corpus_file), str(tmp_path), "--steps", "1", "--seeds", "1"]
    assert ablations.main(words) == 0
    said = json.loads(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("{")))
    assert [row[0] for row in said["rows"]] == ["complete", "complete, 11 diffusion steps", "no emotion"]
    assert all(len(row) == 1 + len(ablations.COLUMNS) for row in said["rows"])
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(ablations, "train", None)
    assert ablations.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == files


def test_what_cannot_be_used_is_said_in_one_line(tmp_path, capsys):
    assert ablations.main([str(tmp_path / "none.npz"), str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_preset_hides_nothing_and_an_old_checkpoint_fits():
    recipe = preset("short")
    old = {name: value for name, value in vars(recipe).items() if name != "hide"}
    assert recipe.hide == () and recipe.differences(old) == []
