"""`ditto train motion`: from a prepared dataset to a bundle that speaks, and what it says when it cannot."""

import json
import os
import shutil
import stat
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch (pip install ditto[train])")
pytest.importorskip("onnx", reason="export needs onnx (pip install ditto[train])")

from safetensors.torch import load_file  # noqa: E402
from small_corpus import small_corpus, write_dataset  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

import ditto  # noqa: E402
from ditto.app.cli import app  # noqa: E402
from ditto.bundle import SHIPPED, Bundle, examine  # noqa: E402
from ditto.errors import InputError  # noqa: E402
from ditto.full.networks.lmdm import LMDM, LMDMConfig  # noqa: E402
from ditto.lite.networks.motion_diffusion import MotionDiffusionConfig  # noqa: E402
from ditto.training.motion import Options, make_score, parse_shares, train_motion, units_of_bundle  # noqa: E402
from ditto.training.motion_batches import Units, load_corpus  # noqa: E402
from ditto.training.motion_eval import FullLipScore, head_frame, lip_figures  # noqa: E402
from ditto.training.motion_export import read_weights  # noqa: E402
from ditto.training.motion_objectives import FACE_CONDITIONS  # noqa: E402
from ditto.training.recipe import Recipe, preset  # noqa: E402
from ditto.training.runs import read_checkpoint  # noqa: E402

LITE = Bundle.open("lite")


def run(*words):
    return CliRunner().invoke(app, ["train", "motion", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset"), LITE.part("encoder").identity("network"))


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    made = run(dataset, "-o", out, "--steps", 2, "--short-steps", 1, "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout.splitlines()[-1])["output"] == str(out / "bundle")
    return out


def test_it_makes_a_bundle_that_speaks(trained, portrait):
    bundle = Bundle.open(trained / "bundle")
    assert all(check.ok for check in examine(bundle))
    assert "ditto train motion" in bundle.origin
    changed = {name for name, part in bundle.parts.items() if part.sha256 != LITE.parts[name].sha256}
    assert changed == {"motion"}
    umask = os.umask(0)
    os.umask(umask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (trained / "bundle").iterdir()} == {0o666 & ~umask}
    head = ditto.load(trained / "bundle")
    frames = list(head.animate(portrait, np.zeros(16000, np.float32)))
    assert len(frames) == 25


def test_the_curve_has_the_score(trained):
    curve = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in curve if "loss" in line] == [1, 2]
    assert [line["step"] for line in curve if "score" in line] == [2]


def test_a_finished_run_can_be_resumed_and_not_overwritten(trained, dataset):
    again = run(dataset, "-o", trained, "--steps", 2, "--short-steps", 1)
    assert again.exit_code == 2 and "add --resume, or give another folder" in again.stderr
    before = (trained / "bundle" / "motion.safetensors").read_bytes()
    assert run(dataset, "-o", trained, "--steps", 2, "--short-steps", 1, "--resume").exit_code == 0
    assert (trained / "bundle" / "motion.safetensors").read_bytes() == before
    fewer = run(dataset, "-o", trained, "--steps", 1, "--short-steps", 1, "--resume")
    assert fewer.exit_code == 2 and "got others: steps (steps 1, fewer than 2)" in fewer.stderr
    assert (trained / "bundle" / "motion.safetensors").read_bytes() == before


def test_a_finished_run_can_be_lengthened(trained, dataset, tmp_path):
    longer = tmp_path / "longer"
    shutil.copytree(trained, longer)
    made = run(dataset, "-o", longer, "--steps", 4, "--short-steps", 1, "--resume")
    assert made.exit_code == 0 and "steps 4 instead of 2" in made.stderr
    curve = [json.loads(line) for line in (longer / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in curve if "score" in line] == [2, 4]
    heads = [read_checkpoint(folder / "short" / "checkpoint.pt")["config"]["teacher"] for folder in (trained, longer)]
    best = read_checkpoint(longer / "best.pt")["step"]  # a new network has a new half for short look-ahead
    assert (heads[0] == heads[1]) == (best == 2)
    assert run(dataset, "-o", longer, "--steps", 4, "--short-steps", 2, "--resume").exit_code == 0
    assert read_checkpoint(longer / "short" / "checkpoint.pt")["step"] == 2
    assert run(dataset, "-o", longer, "--steps", 4, "--short-steps", 2, "--resume", "--seed", 1).exit_code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no-such-folder", "-o", "out"], "expected"),
        (["DATA", "-o", "out", "--preset", "large"], "expected a preset of lite, short, paper, got 'large'"),
        (["DATA", "-o", "out", "--bundle", "nobody"], "nobody"),
        (["DATA", "-o", "out", "--resume"], "expected a checkpoint to resume at out/checkpoint.pt, got no such file"),
        (["DATA", "-o", __file__], f"expected a folder as output, got the file {__file__}; choose another name"),
        (["DATA", "-o", "out", "--device", "tpu"], "expected device to be cpu, cuda or cuda:N, got 'tpu'"),
        ([__file__, "-o", "out"], "expected a corpus with features (.npz), or a folder of `ditto train prepare`"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(words, said, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run(*[str(dataset) if word == "DATA" else word for word in words])
    assert found.exit_code == 2 and said in found.stderr and found.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_features_of_another_encoder_are_refused(tmp_path):
    write_dataset(tmp_path / "data", "0" * 64)
    found = run(tmp_path / "data", "-o", tmp_path / "out")
    assert found.exit_code == 2 and "prepare the dataset again with this bundle" in found.stderr


def test_a_dataset_of_another_version_is_refused(tmp_path):
    header = write_dataset(tmp_path / "data", "0" * 64) / "dataset.json"
    header.write_text(header.read_text().replace('"format": 1', '"format": 7'))
    found = run(tmp_path / "data", "-o", tmp_path / "out")
    assert found.exit_code == 2 and "expected a dataset of format 1, got 7" in found.stderr


def test_a_corpus_file_gives_the_kinds_asked_for(tmp_path):
    corpus, path = small_corpus(), tmp_path / "corpus.npz"
    kinds = np.array(["real", "made", "held", "natural"])
    np.savez(
        path, names=np.array(corpus.names), kind=kinds, lengths=corpus.length, features=corpus.features,
        motion=corpus.motion, eyes=corpus.eyes, emotion=corpus.emotion, canonical=0 * corpus.canonical,
    )  # fmt: skip
    found = load_corpus(path, {"real": 3.0, "natural": 1.0, "absent": 1.0})
    assert found.names == ("clip0", "clip3") and found.shares.tolist() == [3.0, 1.0]
    assert np.array_equal(found.canonical, corpus.canonical[:2])  # nobody's face stands for the template
    with pytest.raises(InputError, match="expected clips of absent"):
        load_corpus(path, ("absent",))


def test_shares_are_read():
    assert parse_shares("real:2, made") == {"real": 2.0, "made": 1.0}
    for text in ("real:x", "real:0", "real:-1"):
        with pytest.raises(InputError, match="real:2,made:1"):
            parse_shares(text)


def test_motion_of_the_network_itself_scores_one():
    corpus, units = small_corpus(2), units_of_bundle(LITE)
    network = read_weights(SHIPPED / "lite" / "motion.safetensors", MotionDiffusionConfig())
    score = make_score(Recipe(), corpus, units, LITE)
    own = corpus.motion.copy()
    for rows in (slice(0, 75), slice(75, 150)):
        sampler = score.sampler(network)
        state = sampler.initial_state(corpus.canonical[0].reshape(21, 3), np.ones(2), 0)
        made, _ = sampler(corpus.features[rows].astype(np.float32), corpus.emotion[0], state, final=True)
        own[rows, 7:] = head_frame(made).reshape(75, -1)
    assert make_score(Recipe(), corpus._replace(motion=own), units, LITE)(network) == pytest.approx(1.0, abs=1e-6)
    assert score(network) < 0.9


def test_lips_that_do_not_move_score_nothing():
    faces = np.random.default_rng(0).normal(size=(20, 21, 3)).astype(np.float32)
    assert lip_figures(faces, faces) == pytest.approx((1.0, 1.0, 1.0))
    assert lip_figures(0.5 * faces, faces) == pytest.approx((1.0, 1.0, 0.5))
    assert lip_figures(np.zeros_like(faces), faces) == (0.0, 0.0, 0.0)


def test_the_full_size_has_a_score_too():
    corpus = small_corpus(2)
    torch.manual_seed(0)
    size = FACE_CONDITIONS + corpus.features.shape[1]
    network = LMDM(LMDMConfig(motion=70, condition=size, width=32, inner=32, heads=2, condition_layers=1, layers=1))
    score = FullLipScore(corpus, Units.of(corpus), steps=2)
    assert -1.0 <= score(network) <= 1.0 and score(network) == score(network)


def test_the_full_size_writes_weights_of_the_published_names(tmp_path, dataset, monkeypatch):
    def tiny(corpus):
        size = FACE_CONDITIONS + corpus.features.shape[1]
        return LMDMConfig(corpus.motion.shape[1], size, width=32, inner=32, heads=2, condition_layers=1, layers=1)

    monkeypatch.setattr("ditto.training.motion.full_config", tiny)
    recipe = replace(preset("paper"), steps=2, batch=2, optimizer="adamw", score_every=2)
    path = train_motion(Options(dataset, tmp_path, recipe, report=lambda line: None))
    network = LMDM(LMDMConfig(265, FACE_CONDITIONS + 368, width=32, inner=32, heads=2, condition_layers=1, layers=1))
    network.load_state_dict(load_file(path))
    kept = read_checkpoint(tmp_path / "best.pt")["model"]
    assert all(torch.equal(kept[name], tensor) for name, tensor in network.state_dict().items())


def test_curves_for_tensorboard(tmp_path, dataset):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    recipe = replace(preset("short"), steps=1, batch=2, short_steps=0)
    train_motion(Options(dataset, tmp_path, recipe, tensorboard=True, report=lambda line: None))
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"x0/lips" in events.read_bytes()
