"""`ditto train avatar`: a small adapter for one person, its file, and the bundle that it makes."""

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch (pip install ditto[train])")
pytest.importorskip("onnx", reason="export needs onnx (pip install ditto[train])")

from safetensors.numpy import load_file, save_file  # noqa: E402
from small_corpus import small_corpus, write_dataset  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

import ditto  # noqa: E402
from ditto.app.cli import app  # noqa: E402
from ditto.bundle import Bundle, examine  # noqa: E402
from ditto.errors import BundleError, DatasetError, InputError  # noqa: E402
from ditto.lite.networks.motion_diffusion import MotionCondition, MotionDiffusion, MotionDiffusionConfig  # noqa: E402
from ditto.lite.performer import postprocess_config  # noqa: E402
from ditto.lite.sampler import MotionNetwork  # noqa: E402
from ditto.motion.motion import Keypoint  # noqa: E402
from ditto.training import adapter as adapters  # noqa: E402
from ditto.training.adapter import (  # noqa: E402
    Adapter,
    adapted_bundle,
    adapted_layers,
    base_halves,
    layers_of,
    merged,
    with_adapter,
)
from ditto.training.avatar import GAP_LIMITS, RECIPE, Options, fit, gaps, of_person, train_avatar  # noqa: E402
from ditto.training.dataset import read_dataset  # noqa: E402
from ditto.training.motion_eval import torch_sampler  # noqa: E402
from ditto.training.motion_export import example_arguments, read_condition, write  # noqa: E402

LITE = Bundle.open("lite")
QUICK = replace(RECIPE, steps=2, batch=2)


def quiet(line):
    """Progress of a run in a test is not shown."""


def run(*words):
    return CliRunner().invoke(app, ["train", "avatar", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset"), LITE.part("encoder").identity("network"))


@pytest.fixture(scope="module")
def made(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    found = run(dataset, "-o", out, "--steps", 2, "--json")
    assert found.exit_code == 0, found.output
    return out, json.loads(found.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def halves():
    return base_halves(LITE)


def test_it_makes_an_adapter_and_a_bundle_that_speaks(made, portrait):
    out, said = made
    assert said["output"] == str(out / "bundle") and said["adapter"] == str(out / "adapter.safetensors")
    assert (out / "adapter.safetensors").stat().st_size < 500_000
    assert set(said["held"]) == {"before", "after"} and set(said["held"]["after"]) == {"opening", "width", "spread"}
    report = json.loads((out / "report.json").read_text())
    assert report["held after"] == said["held"]["after"] and report["minutes"] == pytest.approx(3 * 75 / 1500)
    bundle = Bundle.open(out / "bundle")
    assert all(check.ok for check in examine(bundle))
    assert "ditto train avatar" in bundle.origin and bundle.licence == LITE.licence
    changed = {name for name, part in bundle.parts.items() if part.sha256 != LITE.parts[name].sha256}
    assert changed == {"motion"}
    files, base = bundle.part("motion").sha256, LITE.part("motion").sha256
    assert all(files[role] != base[role] for role in ("weights", "condition", "short_condition", "denoiser"))
    assert len(list(ditto.load(out / "bundle").animate(portrait, np.zeros(16000, np.float32)))) == 25


def test_the_adapter_gives_the_same_bundle_again(made, tmp_path, capsys):
    out, _ = made
    assert adapters.main([str(out / "adapter.safetensors"), str(tmp_path / "again")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "again")
    again, first = Bundle.open(tmp_path / "again"), Bundle.open(out / "bundle")
    assert {n: p.sha256 for n, p in again.parts.items()} == {n: p.sha256 for n, p in first.parts.items()}
    assert postprocess_config(again) == postprocess_config(first) != postprocess_config(LITE)


def test_an_adapter_of_another_base_is_refused(made, tmp_path, capsys):
    out, _ = made
    found = replace(Adapter.read(out / "adapter.safetensors"), base_sha256="0" * 64)
    with pytest.raises(InputError, match="got one of other weights"):
        adapted_bundle(found, LITE, tmp_path / "bundle")
    found.write(tmp_path / "other.safetensors")
    assert adapters.main([str(tmp_path / "other.safetensors"), str(tmp_path / "bundle")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (
        adapters.main([str(out / "adapter.safetensors"), str(tmp_path / "bundle"), "--bundle", str(out / "bundle")])
        == 2
    )
    assert not (tmp_path / "bundle").exists()


def test_a_finished_run_goes_on_only_as_the_same(made, dataset):
    out, _ = made
    before = (out / "adapter.safetensors").read_bytes()
    again = run(dataset, "-o", out, "--steps", 2)
    assert again.exit_code == 2 and "add --resume, or give another folder" in again.stderr
    assert run(dataset, "-o", out, "--steps", 2, "--resume").exit_code == 0
    assert (out / "adapter.safetensors").read_bytes() == before
    other = run(dataset, "-o", out, "--steps", 2, "--resume", "--rank", 4)
    assert other.exit_code == 2 and "size of the network" in other.stderr


def test_the_same_seed_gives_the_same_adapter(dataset, made, tmp_path):
    out, _ = made
    train_avatar(Options(dataset, tmp_path, recipe=RECIPE.changed(2, None, None), report=quiet))
    assert (tmp_path / "adapter.safetensors").read_bytes() == (out / "adapter.safetensors").read_bytes()


def test_an_untrained_adapter_changes_nothing(halves):
    torch.manual_seed(0)
    new = with_adapter(halves.network, 8)
    first, second = example_arguments(halves.network.config)
    with torch.no_grad():
        assert torch.equal(new.condition(**first), halves.network.condition(**first))
        assert torch.equal(new.denoiser(**second), halves.network.denoiser(**second))
    trained = sum(p.numel() for p in new.parameters() if p.requires_grad)
    assert trained == sum(8 * sum(layer.weight.shape) for layer in adapted_layers(halves.network).values()) < 70_000


def test_merging_gives_what_the_adapter_gave(halves):
    torch.manual_seed(0)
    new = with_adapter(halves.network, 4)
    for name, tensor in new.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(tensor.data, 0.0, 0.02)
    layers = layers_of(new)
    short = {f"short.{name}": layers[f"condition.{name}"] for name in adapted_layers(halves.short)}
    both = merged(Adapter(layers | short, LITE.part("motion").sha256["weights"], "", "", 0.1, 0.1), halves)
    first, second = example_arguments(halves.network.config)
    with torch.no_grad():
        assert torch.allclose(both.network.condition(**first), new.condition(**first), atol=5e-3)
        assert torch.allclose(both.network.denoiser(**second), new.denoiser(**second), atol=5e-3)
        assert not torch.allclose(both.network.condition(**first), halves.network.condition(**first), atol=1e-1)
        change = both.short.audio.weight - halves.short.audio.weight
        added = both.network.condition.audio.weight - halves.network.condition.audio.weight
    assert added.abs().max() > 1e-3 and torch.allclose(change, added, atol=1e-6)


def test_only_the_adapter_is_trained(halves, tmp_path):
    corpus = small_corpus(2)
    options = Options(tmp_path, tmp_path, recipe=replace(QUICK, steps=3), report=quiet)
    adapter = fit(LITE, corpus, options, "a test")
    for own, base in zip(merged(adapter, halves), halves, strict=True):
        before = base.state_dict()
        changed = {name for name, tensor in own.state_dict().items() if not torch.equal(tensor, before[name])}
        assert changed == {f"{name}.weight" for name in adapted_layers(base)}


def test_the_adapter_learns_the_person(halves, tmp_path):
    """Lips that answer to the speech as the base's never do: the error on these clips falls."""
    corpus = small_corpus(4)
    recipe = replace(RECIPE, steps=30, batch=8, learning_rate=4e-3, warmup=3, checkpoint_every=30, drop_condition=0.0)
    fit(LITE, corpus, Options(tmp_path, tmp_path, recipe=recipe, report=quiet), "a test")
    curve = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert curve[-1]["groups"]["lips"] < 0.8 * curve[0]["groups"]["lips"]


def test_the_short_half_is_read_back_from_its_file(tmp_path):
    torch.manual_seed(0)
    config = MotionDiffusionConfig(width=32, heads=2, condition_layers=2, layers=1)
    model, short = MotionDiffusion(config), MotionCondition(config)
    for tensor in short.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape))
    write(model, np.ones(70, np.float32), np.zeros(368, np.float32), np.ones(70, np.float32), tmp_path, short)
    found = read_condition(tmp_path / "motion_condition_short.onnx", config).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in short.state_dict().items())
    with pytest.raises(BundleError, match="get the bundle again"):
        read_condition(tmp_path / "motion_condition_short.onnx", MotionDiffusionConfig())
    with pytest.raises(BundleError, match="get the bundle again"):
        read_condition(tmp_path / "motion.safetensors", config)


def test_openings_are_those_of_the_person(halves):
    config = postprocess_config(LITE)
    sampler = torch_sampler(MotionNetwork.open(LITE.path, config), halves.network)
    corpus = small_corpus(8)
    lip = 7 + 3 * Keypoint.LOWER_INNER_LIP + 1
    spoken = corpus._replace(features=np.zeros_like(corpus.features))  # no silence
    for gap, expected in ((1.1, 1.1), (9.0, GAP_LIMITS[1]), (0.0, GAP_LIMITS[0])):
        motion = np.zeros_like(corpus.motion)
        motion[:, lip] = gap * config.target_gap
        found = gaps(sampler, spoken._replace(motion=motion))
        assert found[1] == pytest.approx(expected * config.target_gap, rel=0.02)
    assert 0.0 < found[0] < 0.5


def test_one_person_is_chosen(dataset, tmp_path):
    found = read_dataset(dataset)
    named = replace(found, clips=tuple(replace(c, person="ab"[i % 2]) for i, c in enumerate(found.clips)))
    with pytest.raises(InputError, match="got a, b; name one with --person"):
        of_person(named, None)
    assert {clip.person for clip in of_person(named, "b").clips} == {"b"}
    with pytest.raises(InputError, match="expected a person of a, b"):
        of_person(named, "c")
    with pytest.raises(InputError, match="got clips without names; leave the person out"):
        of_person(replace(found, clips=tuple(replace(c, person=None) for c in found.clips)), "c")
    assert of_person(found, None) == found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no-such-folder", "-o", "out"], "which does not exist; check the name"),
        (["DATA", "-o", "out", "--rank", "100"], "expected a rank from 1 to 70, got 100"),
        (["DATA", "-o", "out", "--bundle", "nobody"], "nobody"),
        (["DATA", "-o", "out", "--resume"], "start without --resume"),
        (["DATA", "-o", "out", "--person", "x"], "got clips without names; leave the person out"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(words, said, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run(*[str(dataset) if word == "DATA" else word for word in words], "-q")
    assert found.exit_code == 2 and said in found.stderr and found.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_features_of_another_encoder_and_other_versions_are_refused(tmp_path):
    write_dataset(tmp_path / "data", "0" * 64)
    found = run(tmp_path / "data", "-o", tmp_path / "out")
    assert found.exit_code == 2 and "prepare the dataset again with this bundle" in found.stderr
    (tmp_path / "data" / "dataset.json").unlink()
    (tmp_path / "data" / "steps").mkdir()
    with pytest.raises(DatasetError, match="has not finished"):
        train_avatar(Options(tmp_path / "data", tmp_path / "out", report=quiet))


def test_videos_are_prepared_first(tmp_path, dataset, monkeypatch):
    from ditto.training import prepare

    given = []

    def prepared(videos, output, options, report):
        given.append((videos, output, options.bundle, options.cuts))
        report("media", 1, 1)
        write_dataset(output, LITE.part("encoder").identity("network"))

    monkeypatch.setattr(prepare, "prepare", prepared)
    (tmp_path / "videos").mkdir()
    train_avatar(Options(tmp_path / "videos", tmp_path / "out", recipe=QUICK, report=quiet))
    assert given == [(tmp_path / "videos", tmp_path / "out" / "dataset", "lite", True)]
    assert run(tmp_path / "videos", "-o", tmp_path / "two", "--steps", 1, "--no-cuts").exit_code == 0
    assert given[1] == (tmp_path / "videos", tmp_path / "two" / "dataset", "lite", False)
    assert (tmp_path / "out" / "bundle" / "bundle.json").is_file()


@pytest.mark.parametrize("fault", ["metadata", "missing", "shape", "nan", "gap", "version", "other"])
def test_damaged_adapters_are_refused(fault, made, tmp_path):
    path = made[0] / "adapter.safetensors"
    good, tensors = Adapter.read(path), load_file(path)
    about = {"format": adapters.FORMAT, **{name: getattr(good, name) for name in (*adapters.TEXTS, *adapters.GAPS)}}
    if fault == "metadata":
        about.pop("base_sha256")
    elif fault == "missing":
        tensors.pop("condition.audio.up")
    elif fault == "shape":
        tensors["condition.audio.up"] = tensors["condition.audio.up"][:, :3].copy()
    elif fault == "nan":
        tensors["condition.audio.up"][0] = np.nan
    elif fault == "gap":
        about["usual_gap"] = -1.0
    elif fault == "version":
        about["format"] = 2
    save_file(tensors, tmp_path / "bad.safetensors", {adapters.KEY: json.dumps(about)})
    if fault == "other":
        (tmp_path / "bad.safetensors").write_bytes(b"not an adapter")
    with pytest.raises(InputError, match="train it again"):
        Adapter.read(tmp_path / "bad.safetensors")


def test_an_adapter_of_another_size_is_refused(made, halves):
    good = Adapter.read(made[0] / "adapter.safetensors")
    layers = dict(good.layers)
    layers.pop("condition.audio")
    with pytest.raises(InputError, match="of another"):
        merged(replace(good, layers=layers), halves)
