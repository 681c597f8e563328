"""The training loop: the same bits again, after an interruption too; batches in parts; what goes wrong loses nothing."""

import json
import resource
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch (pip install ditto[train])")

from small_corpus import small_corpus  # noqa: E402

from ditto.errors import InputError, OutputError, TrainingError  # noqa: E402
from ditto.full.networks.lmdm import LMDM, LMDMConfig  # noqa: E402
from ditto.lite.networks.motion_diffusion import MotionDiffusion, MotionDiffusionConfig  # noqa: E402
from ditto.motion.motion import PACKED_SIZE  # noqa: E402
from ditto.training.motion_batches import Units, draw, with_motion_size  # noqa: E402
from ditto.training.motion_loop import Run, train  # noqa: E402
from ditto.training.motion_objectives import FACE_CONDITIONS, FullDenoising, LiteDenoising, lite_network  # noqa: E402
from ditto.training.motion_short import ShortDistillation, short_recipe, train_short  # noqa: E402
from ditto.training.recipe import Recipe  # noqa: E402
from ditto.training.runs import check_run, cosine_rate, read_checkpoint, write_checkpoint  # noqa: E402

TINY = MotionDiffusionConfig(width=32, heads=2, condition_layers=1, layers=2, time_size=16)
CORPUS = small_corpus()
UNITS = Units.of(CORPUS)
RECIPE = Recipe(steps=12, batch=4, learning_rate=3e-3, warmup=2, checkpoint_every=4, score_every=5)


def objective_of(recipe, size=70):
    torch.manual_seed(0)
    if recipe.size == "full":
        config = LMDMConfig(
            motion=size, condition=368 + FACE_CONDITIONS, width=32, inner=32, heads=2, condition_layers=1, layers=1
        )
        return FullDenoising(LMDM(config), recipe)
    return LiteDenoising(lite_network(UNITS, TINY), recipe, 70)


def start(folder, recipe=RECIPE, corpus=CORPUS, units=UNITS, objective=None, broken=(), **options):
    """Train in a folder; raises KeyboardInterrupt at the steps of `broken`."""
    run = Run(recipe, 0, corpus.fingerprint(), folder, units, lambda line: None)

    def windows(step, numbers):
        if step in broken:
            raise KeyboardInterrupt
        return draw(corpus, units, recipe, 0, step, numbers)

    return train(objective or objective_of(recipe, corpus.motion.shape[1]), windows, run, **options)


def weights_of(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def curve(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["lite", "full", "adan", "short"])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path, kind):
    recipe = replace(RECIPE, size="full") if kind == "full" else RECIPE
    if kind == "adan":
        pytest.importorskip("pytorch_optimizer", reason="needs pytorch-optimizer (pip install ditto[train])")
        recipe = replace(RECIPE, optimizer="adan")
    if kind == "short":
        recipe = replace(short_recipe(RECIPE), steps=12, batch=2)

    def objective():
        torch.manual_seed(0)
        return ShortDistillation(MotionDiffusion(TINY), recipe) if kind == "short" else objective_of(recipe)

    whole = start(tmp_path / "whole", recipe, objective=objective())
    again = start(tmp_path / "again", recipe, objective=objective())
    assert torch.equal(weights_of(whole.network), weights_of(again.network))
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "parts", recipe, objective=objective(), broken=[6])
    assert read_checkpoint(tmp_path / "parts" / "checkpoint.pt")["step"] == 4
    resumed = start(tmp_path / "parts", recipe, objective=objective(), resume=True)
    assert torch.equal(weights_of(whole.network), weights_of(resumed.network))
    files = [read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts")]
    assert all(torch.equal(files[0]["trained"][name], files[1]["trained"][name]) for name in files[0]["trained"])
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


def test_a_lengthened_run_goes_on_with_the_learning_rate_of_the_longer_one(tmp_path):
    start(tmp_path, replace(RECIPE, steps=100, batch=1))
    longer = replace(RECIPE, steps=150, batch=1)
    start(tmp_path, longer, resume=True)
    rates = {line["step"]: line["rate"] for line in curve(tmp_path)}
    assert sorted(rates) == [1, 50, 100, 150]
    assert rates[150] == cosine_rate(longer.learning_rate, 149, 150, longer.warmup, longer.final_rate)
    with pytest.raises(InputError, match="steps 149, fewer than 150"):
        start(tmp_path, replace(longer, steps=149), resume=True)


def test_a_pupil_of_another_teacher_starts_again(tmp_path):
    recipe = replace(short_recipe(RECIPE), steps=2, batch=1)
    run = Run(recipe, 0, CORPUS.fingerprint(), tmp_path, UNITS, lambda line: None)
    torch.manual_seed(0)
    teachers = [MotionDiffusion(TINY) for _ in range(2)]
    first = train_short(CORPUS, teachers[0], run)
    assert torch.equal(weights_of(train_short(CORPUS, teachers[0], run, resume=True).network), weights_of(first.network))
    again = train_short(CORPUS, teachers[1], run, resume=True)
    fresh = train_short(CORPUS, teachers[1], replace(run, out=tmp_path / "fresh"))
    assert torch.equal(weights_of(again.network), weights_of(fresh.network))
    assert not torch.equal(weights_of(again.network), weights_of(first.network))


def test_the_loss_falls(tmp_path):
    start(tmp_path, replace(RECIPE, steps=60, bfloat16=False))
    first, last = (entry["x0"] for entry in (curve(tmp_path)[0], curve(tmp_path)[-1]))
    assert last < 0.7 * first


def test_the_full_size_learns_265_numbers(tmp_path):
    corpus = with_motion_size(CORPUS, PACKED_SIZE)
    recipe = replace(RECIPE, size="full", motion_size=PACKED_SIZE, steps=40, initial=1.0)
    start(tmp_path, recipe, corpus, Units.of(corpus))
    assert curve(tmp_path)[-1]["loss"] < 0.9 * curve(tmp_path)[0]["loss"]


def test_a_hidden_condition_is_the_learnt_empty_one():
    objective = objective_of(replace(RECIPE, size="full")).eval()
    drawn = draw(CORPUS, UNITS, replace(RECIPE, size="full"), 0, 0, range(3))
    noise = drawn.noise._replace(speech_mask=torch.zeros(3, 1))
    others = drawn.batch._replace(features=drawn.batch.features + 3.0, emotion=drawn.batch.emotion + 1.0)
    ones, factors = torch.ones(70), torch.ones(6)
    with torch.no_grad():
        a, b = (objective(batch, noise, ones, factors).windows for batch in (drawn.batch, others))
        c = objective(others, noise._replace(speech_mask=torch.ones(3, 1)), ones, factors).windows
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("size", ["lite", "full"])
def test_a_batch_in_parts_is_the_whole_batch(tmp_path, size):
    recipe = replace(RECIPE, size=size, steps=4, batch=6, bfloat16=False)  # lines of the first and last step
    whole = start(tmp_path / "whole", recipe)
    parts = start(tmp_path / "parts", replace(recipe, batch=2, accumulate=3))
    curves = [[line["loss"] for line in curve(tmp_path / name)] for name in ("whole", "parts")]
    assert curves[0][0] == pytest.approx(curves[1][0], rel=1e-6)
    assert curves[0][1] == pytest.approx(curves[1][1], rel=2e-3)
    a, b, first = (weights_of(n) for n in (whole.network, parts.network, objective_of(recipe).network))
    assert (a - b).norm() < 0.05 * (a - first).norm()  # AdamW takes whole steps along gradients that are mere rounding


def test_the_best_score_is_kept(tmp_path):
    scores = iter([0.2, 0.9, 0.4])
    found = start(tmp_path, score=lambda network: next(scores))
    assert (found.step, found.score) == (10, 0.9)  # scored at 5, 10 and 12
    assert read_checkpoint(tmp_path / "best.pt")["step"] == 10
    assert read_checkpoint(tmp_path / "checkpoint.pt")["step"] == 12
    assert [entry["score"] for entry in curve(tmp_path) if "score" in entry] == [0.2, 0.9, 0.4]
    kept = read_checkpoint(tmp_path / "best.pt")["model"]
    assert all(torch.equal(kept[name], tensor) for name, tensor in found.network.state_dict().items())


def test_nan_names_its_clips_and_leaves_the_last_checkpoint(tmp_path):
    motion = CORPUS.motion.copy()
    motion[2 * 75 + 40 : 2 * 75 + 60] = np.nan

    def poisoned(step, numbers):
        corpus = CORPUS if step < 6 else CORPUS._replace(motion=motion)
        return draw(corpus, UNITS, RECIPE, 0, step, numbers)

    run = Run(RECIPE, 0, CORPUS.fingerprint(), tmp_path, UNITS, lambda line: None)
    with pytest.raises(TrainingError, match=r"finite loss at step \d+, got NaN or infinity with the clips clip2;"):
        train(objective_of(RECIPE), poisoned, run)
    kept = read_checkpoint(tmp_path / "checkpoint.pt")
    assert kept["step"] >= 4 and all(torch.isfinite(tensor).all() for tensor in kept["trained"].values())


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    start(tmp_path)
    path = tmp_path / "checkpoint.pt"
    before, kept = path.read_bytes(), read_checkpoint(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OutputError, match="make room"):
            write_checkpoint(path, kept | {"step": 99})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.pt", "log.jsonl"]


def test_another_run_cannot_be_resumed(tmp_path):
    with pytest.raises(InputError, match="expected a checkpoint to resume"):
        start(tmp_path, resume=True)
    start(tmp_path)
    with pytest.raises(InputError, match="expected a folder without a checkpoint"):
        start(tmp_path)
    with pytest.raises(InputError, match="got others: learning_rate"):
        start(tmp_path, replace(RECIPE, learning_rate=1.0), resume=True)
    with pytest.raises(InputError, match="got others: data"):
        start(tmp_path, corpus=small_corpus(seed=1), resume=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="expected a checkpoint at"):
        start(tmp_path, resume=True)


def test_a_log_that_ends_in_a_torn_line_is_resumed_and_any_other_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, broken=[6])
    log = tmp_path / "log.jsonl"
    whole = log.read_bytes()
    for torn in (b'{"step": 6, "lo', b"\0\0\0\0", b'{"step": true}\n'):  # of a power cut
        log.write_bytes(whole + torn)
        check_run(tmp_path, True)
    start(tmp_path, resume=True)
    assert [entry["step"] for entry in curve(tmp_path)] == [1, 12]
    log.write_bytes(torn + whole)
    for refuse in (lambda: check_run(tmp_path, True), lambda: start(tmp_path, resume=True)):
        with pytest.raises(InputError, match=r"expected a line of the log in .*, line 1, got .*; delete it"):
            refuse()


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for place in ("file", "file/under", "file/far/under", "x" * 300, "no\0name"):
        with pytest.raises(OutputError, match=r"expected a folder as output, got the file .*file;|cannot be written"):
            check_run(tmp_path / place, False)
    check_run(tmp_path / "new" / "folder", False)
    monkeypatch.setattr("os.access", lambda place, mode: place != tmp_path)
    with pytest.raises(OutputError, match="expected a folder that can be written"):
        check_run(tmp_path / "new" / "folder", False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_optimizer_is_said(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(InputError, match="adan needs pytorch-optimizer"):
        start(tmp_path, replace(RECIPE, optimizer="adan"))


def test_the_learning_rate_rises_and_falls():
    rates = [cosine_rate(1.0, step, 100, 10, 0.02) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] > 0.95
    assert rates[50] == pytest.approx(0.51) and rates[99] == pytest.approx(0.02, abs=1e-3)
