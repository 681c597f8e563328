"""Training of the codec: losses by hand, curriculum, the same bits again and after an interruption, what stops it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from boards import recorded_board  # noqa: E402
from latent_clips import SIDE, write_clips  # noqa: E402

from ditto.errors import BundleError, DatasetError, InputError, NoBundleError, OutputError, TrainingError  # noqa: E402
from ditto.latent.codec import Encoded  # noqa: E402
from ditto.latent.config import CODEC_TINY, FlowConfig, Level  # noqa: E402
from ditto.latent.flow_network import FlowGenerator  # noqa: E402
from ditto.training.latent import codec as training  # noqa: E402
from ditto.training.latent import loop  # noqa: E402
from ditto.training.latent.codec import (  # noqa: E402
    PRESETS,
    CodecBatch,
    CodecObjective,
    CodecRecipe,
    CodecStage,
    Length,
    Sampler,
    divergence,
    measure_latents,
    motion_weights,
    pyramid_l1,
    read_codec,
    train_codec,
)
from ditto.training.latent.data import open_clips  # noqa: E402
from ditto.training.latent.latents import codec_window  # noqa: E402
from ditto.training.latent.loop import Options, Run, Stage, on_device, train  # noqa: E402
from ditto.training.latent.muon import Muon, orthogonal  # noqa: E402
from ditto.training.latent.networks import read_network  # noqa: E402

TINY = CodecRecipe(
    CODEC_TINY,
    (
        CodecStage(4, 2e-3, warmup=2, lengths=(Length(5, 2, 0.5), Length(1, 2, 0.5))),
        CodecStage(3, 1e-3, 0.5, 2, (Length(9, 1),), decoder_only=True, latent_noise=0.5),
    ),
    window=(0, 0, SIDE),
    shift=0,
    checkpoint_every=2,
    bfloat16=False,
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory):
    """The folder of a run that was not interrupted."""
    out = tmp_path_factory.mktemp("whole")
    start(clips, out)
    return out


def start(clips, out, recipe=TINY, **options):
    return train_codec(Options(clips.folder, out, report=lambda line: None, **options), recipe)


def test_the_pyramid_by_hand():
    even = torch.full((2, 3, 2, 4, 4), 0.5)
    even[1] = -1
    torch.testing.assert_close(pyramid_l1(even), torch.tensor([1.5, 3.0]))  # three sizes, no steps
    checks = (torch.arange(4)[:, None] + torch.arange(4)) % 2 * 2.0 - 1
    torch.testing.assert_close(pyramid_l1(checks.expand(1, 3, 1, 4, 4)), torch.tensor([3.0]))  # 1 + (2 + 2) / 2, means of 0


def test_what_moves_weighs_more_by_hand():
    reference, video = torch.zeros(1, 3, 1, 1, 4), torch.zeros(1, 3, 1, 1, 4)
    video[..., 1], video[..., 2], video[..., 3] = 0.125, 0.25, 1.0
    expected = torch.tensor([1.0, 5, 9, 9]) / 6
    torch.testing.assert_close(motion_weights(video, reference, 8.0).flatten(), expected)
    torch.testing.assert_close(motion_weights(video, reference, 0.0).flatten(), torch.ones(4))


def test_the_divergence_by_hand():
    mean = torch.tensor([2.0, 0.0])[:, None, None, None, None]
    log_variance = torch.tensor([0.0, math.log(4)])[:, None, None, None, None]
    expected = torch.tensor([2.0, 0.5 * (4 - 1 - math.log(4))])
    torch.testing.assert_close(divergence(Encoded(mean, log_variance)), expected)


def batch_of(clips, recipe=TINY, step=0, **changes):
    return Sampler(clips, recipe, 0)(step, 0)._replace(**changes)


@pytest.mark.parametrize("with_references", [True, False])
def test_the_loss_is_the_sum_of_its_terms(clips, with_references):
    torch.manual_seed(0)
    objective, batch = CodecObjective(TINY), batch_of(clips, with_references=with_references)
    codec = objective.network
    with torch.no_grad():
        encoded = codec.encode(batch.video)
        references = codec.references(batch.pictures) if with_references else None
        error = codec.decode(encoded.mean + batch.noise * (encoded.log_variance / 2).exp(), references) - batch.video
        weights = motion_weights(batch.video, batch.pictures[:, :, :1], 8.0)
        expected = pyramid_l1(error * weights) + 4 * (error**2 * weights).mean((1, 2, 3, 4))
        expected = expected * (1 if with_references else 0.3) + 1e-5 * divergence(encoded)
        found = objective(batch)
    torch.testing.assert_close(found.losses, expected)
    torch.testing.assert_close(found.figures["l1"], error.abs().mean() / 2)


def test_a_perceptual_loss_is_added(clips):
    torch.manual_seed(0)
    plain, batch = CodecObjective(TINY), batch_of(clips, with_references=True)
    torch.manual_seed(0)
    other = CodecObjective(replace(TINY, perceptual=0.5), lambda made, real: torch.full((len(made),), 3.0))
    torch.testing.assert_close(other(batch).losses, plain(batch).losses + 1.5)


def test_lpips_enters_the_loss_where_its_package_and_weights_are(clips, monkeypatch, tmp_path):
    import sys
    from types import SimpleNamespace

    class Distance(torch.nn.Module):
        """In place of LPIPS, with its arguments and the shape (N, 1, 1, 1) of what it gives."""

        def __init__(self, net, verbose):
            super().__init__()
            assert net == "alex" and not verbose
            self.scale = torch.nn.Parameter(torch.tensor(3.0))

        def forward(self, made, real):
            assert made.shape == real.shape and made.shape[1:] == (3, SIDE, SIDE)
            return self.scale * (made - real).abs().mean((1, 2, 3), keepdim=True)

    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Distance))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    said, found = [], []
    for perceptual in (None, training.installed_lpips(said.append)):
        torch.manual_seed(0)
        objective = CodecObjective(replace(TINY, perceptual=0.5), perceptual)
        found.append(objective(batch_of(clips, with_references=True)))
        found[-1].losses.sum().backward()
    assert said == [] and len(list(objective.parameters())) == len(list(CodecObjective(TINY).parameters()))
    l1 = 2 * found[0].figures["l1"]
    torch.testing.assert_close((found[1].losses - found[0].losses).mean(), 0.5 * 3 * l1)


def test_a_missing_lpips_is_said(monkeypatch, tmp_path):
    import sys

    said = []
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert training.installed_lpips(said.append) is None
    monkeypatch.setitem(sys.modules, "lpips", object())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert training.installed_lpips(said.append) is None
    assert "not installed" in said[0] and "lacks its weights" in said[1]


def test_noise_on_latents_by_hand(clips):
    """Its deviation adds to that of the distribution; the encoder is as it was."""
    torch.manual_seed(0)
    objective, batch = CodecObjective(TINY), batch_of(clips, step=4, with_references=False, latent_noise=0.5)
    seen = []
    objective.network.decode = lambda latents, references: seen.append(latents) or torch.zeros_like(batch.video)
    objective(batch)
    encoded = objective.network.encode(batch.video)
    deviation = (encoded.log_variance / 2).exp() + 0.5 * encoded.mean.std((0, 2, 3, 4), keepdim=True)
    torch.testing.assert_close(seen[0], encoded.mean + batch.noise * deviation)


def test_the_learning_rate_by_hand():
    stage = Stage(100, 1e-2, final_rate=0.2, warmup=10)
    assert stage.rate(0) == pytest.approx(1e-3)
    assert stage.rate(50) == pytest.approx(1e-2 * 0.6)
    assert stage.rate(99) == pytest.approx(1e-2 * (0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * 0.99))))


@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_muon_makes_updates_orthogonal(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert values.min() > 0.6 and values.max() < 1.3


def test_muon_updates_vectors_as_adam():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.arange(4.0)) for _ in range(2))
    first, second = Muon([ours], lr=0.1), torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.99))
    for _ in range(5):
        gradient = torch.randn(4)
        for parameter, optimizer in ((ours, first), (theirs, second)):
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_muon_by_hand():
    """A first update: the gradient and its momentum point the same way, so the matrix moves by lr .2 sqrt(3) orthogonally."""
    kernel = torch.nn.Parameter(torch.ones(2, 3, 1, 1))
    kernel.grad = torch.tensor([[2.0, 0, 0], [0, 3, 0]]).view(2, 3, 1, 1)
    Muon([kernel], lr=0.1, weight_decay=0.5).step()
    moved = (0.95 - kernel.detach().view(2, 3)) / (0.1 * 0.2 * 3**0.5)
    torch.testing.assert_close(moved, orthogonal(torch.tensor([[2.0, 0, 0], [0, 3, 0]])))
    assert moved[0, 0] > 0.6 and moved[1, 1] > 0.6 and moved[0, 1] == 0


def test_lengths_are_mixed_and_follow_the_stages(clips):
    recipe = replace(TINY, stages=(replace(TINY.stages[0], steps=40), TINY.stages[1]))
    sampler = Sampler(clips, recipe, 0)
    frames = [sampler(step, 0).video.shape[2] for step in range(43)]
    assert set(frames[:40]) == {1, 5} and 10 < frames[:40].count(5) < 30
    assert frames[40:] == [9, 9, 9]


def test_a_batch_depends_on_seed_step_and_process_alone(clips):
    sampler = Sampler(clips, TINY, 3)
    first, again, other = sampler(1, 0), Sampler(clips, TINY, 3)(1, 0), sampler(1, 1)
    assert first.clips == again.clips and torch.equal(first.video, again.video) and torch.equal(first.noise, again.noise)
    assert first.video.shape == other.video.shape and first.with_references == other.with_references
    assert not torch.equal(first.noise, other.noise)
    assert first.video.min() >= -1 and first.video.max() <= 1
    assert all(name.startswith("clip_") and name != "clip_3" for step in range(7) for name in sampler(step, 0).clips)


def test_a_short_clip_is_drawn_for_short_lengths_alone(clips):
    first, *others = clips.clips
    mixed = replace(clips, clips=(replace(first, frames=6), *others))
    recipe = replace(TINY, stages=tuple(replace(stage, steps=30) for stage in TINY.stages))
    names = [Sampler(mixed, recipe, 0)(step, 0).clips for step in range(60)]
    assert any(first.name in drawn for drawn in names[:30]) and not any(first.name in drawn for drawn in names[30:])


def test_pictures_and_references_change_alike(clips):
    """A still clip stays still: all frames get the same shift, mirror and colours."""
    still = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 20, 20, 3), np.uint8), 6, 0)
    recipe = replace(TINY, window=(2, 2, SIDE), shift=2)
    found = {}
    for seed in range(8):
        x = training.augmented(still, recipe, np.random.default_rng(seed))
        assert x.shape == (3, 6, SIDE, SIDE) and (x == x[:, :1]).all()
        found[seed] = x[:, 0]
    assert any(not torch.equal(found[0], found[seed]) for seed in range(1, 8))


def test_a_warp_moves_a_point_as_its_matrix_says_and_keeps_the_middle():
    picture = np.zeros((1, 49, 49, 3), np.uint8)
    picture[0, 24, 24] = 255
    picture[0, 34, 24] = 200  # 10 below the middle
    found = training.warped(picture, np.array([[0.0, 0.0], [0.0, 1.0]]))  # twice as far: half as high
    assert found[0, 24, 24, 0] == 255 and found[0, 29, 24, 0] == 200 and found[0, 34, 24, 0] == 0


def test_the_portrait_is_a_reference_as_often_as_asked(clips):
    recipe = replace(TINY, portrait=1.0, colours=0.0)
    batch = Sampler(clips, recipe, 0)(0, 0)
    sources = [training.as_video(clips.source(clip)[None], TINY.window)[0] for clip in clips.of("train")]
    for name, picture in zip(batch.clips, batch.pictures[:, :, :1], strict=True):
        source = sources[[clip.name for clip in clips.of("train")].index(name)]
        assert any(torch.allclose(picture, x, atol=1e-6) for x in (source, source.flip(-1)))


def test_the_same_seed_gives_the_same_bits(clips, whole, tmp_path):
    start(clips, tmp_path)
    assert (tmp_path / "codec.safetensors").read_bytes() == (whole / "codec.safetensors").read_bytes()
    assert (tmp_path / "codec.json").read_bytes() == (whole / "codec.json").read_bytes()


class Stopped(Exception):
    pass


@pytest.mark.parametrize("updates", [3, 5], ids=["first stage", "second stage"])
def test_an_interrupted_run_goes_on_bit_for_bit(clips, whole, tmp_path, monkeypatch, updates):
    draw = Sampler.__call__

    def stopping(self, step, rank):
        if step == updates:
            raise Stopped
        return draw(self, step, rank)

    monkeypatch.setattr(Sampler, "__call__", stopping)
    with pytest.raises(Stopped):
        start(clips, tmp_path)
    monkeypatch.undo()
    with pytest.raises(InputError, match="expected a folder without a checkpoint"):
        start(clips, tmp_path)
    with pytest.raises(InputError, match="got others: seed; resume with the same"):
        start(clips, tmp_path, seed=1, resume=True)
    with pytest.raises(InputError, match="got others: recipe; resume with the same"):
        start(clips, tmp_path, replace(TINY, motion=1.0), resume=True)
    start(clips, tmp_path, resume=True)
    for name in ("codec.safetensors", "log.jsonl"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_processes_average_their_gradients():
    """Each gets the mean, and a parameter that none of them used gets none."""

    class TwoProcesses:
        count = 2

        def mean(self, values):
            return (values + torch.tensor([1.0, 2, 3, 4, 5, 6])) / 2

    used, other, unused = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 2), (2,), (3,)))
    used.grad, other.grad = torch.ones(2, 2), torch.zeros(2)
    loop._average_gradients([used, other, unused], TwoProcesses())
    torch.testing.assert_close(used.grad, torch.tensor([[1.0, 1.5], [2, 2.5]]))
    torch.testing.assert_close(other.grad, torch.tensor([2.5, 3]))
    assert unused.grad is None


def test_there_is_nothing_to_resume(clips, tmp_path):
    with pytest.raises(InputError, match=r"expected a checkpoint to resume at .*checkpoint.pt, got no such file"):
        start(clips, tmp_path, resume=True)
    torch.save({"format": 1, "step": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=r"checkpoint of a latent system at .*checkpoint.pt, got one without seed"):
        start(clips, tmp_path, resume=True)


def test_the_second_stage_leaves_latents_as_they_are(clips, whole, tmp_path):
    first = replace(TINY, stages=TINY.stages[:1])
    start(clips, tmp_path, first)
    before, after = read_codec(tmp_path), read_codec(whole)
    for name, tensor in before.encoder.state_dict().items():
        assert torch.equal(tensor, after.encoder.state_dict()[name]), name
    assert not torch.equal(before.decoder.stem.conv.weight, after.decoder.stem.conv.weight)


def test_nan_stops_the_run_and_keeps_the_last_checkpoint(clips, tmp_path, monkeypatch):
    draw, drawn = Sampler.__call__, {}

    def poisoned(self, step, rank):
        batch = draw(self, step, rank)
        if step == 3:
            batch.video[-1, 0, 0, 0, 0] = float("nan")
            drawn["name"] = batch.clips[-1]
        return batch

    monkeypatch.setattr(Sampler, "__call__", poisoned)
    with pytest.raises(TrainingError, match=r"finite loss at step 4, got NaN .* \(the last checkpoint is good\)") as caught:
        start(clips, tmp_path)
    assert drawn["name"] in str(caught.value)
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 2 and all(torch.isfinite(tensor).all() for tensor in kept["model"].values())


def test_latents_are_measured(clips, whole):
    codec = read_codec(whole)
    assert len(clips.of("train")) == 3
    latents = [codec.encode(training.as_video(clips.frames(clip, 0, 9), TINY.window)).mean for clip in clips.of("train")]
    measured = codec.normalise(torch.cat(latents, 2))
    torch.testing.assert_close(measured.mean((0, 2, 3, 4)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(measured.std((0, 2, 3, 4), correction=0), torch.ones(4), atol=1e-3, rtol=0)
    before = codec.latent_mean.clone()
    measure_latents(codec, clips, TINY.window)
    torch.testing.assert_close(codec.latent_mean, before)


def test_it_learns_to_draw_a_mouth(clips, tmp_path):
    """Overfit: clips of a run are drawn better than by the reference shown still, which an untrained codec is far from."""
    config = replace(
        CODEC_TINY,
        patch=2,
        stem=16,
        features=(Level(16, time=2, space=1, taps=1, block_taps=1), Level(16, time=2, space=1, taps=1, block_taps=1)),
        bottleneck=(Level(32),),
        latent_channels=8,
        decoder_stem=32,
        draw=(Level(16, time=2, space=1, block_taps=2), Level(16, time=2, space=1, taps=2, block_taps=1)),
        aligned_features=True,
    )
    stage = CodecStage(150, 1e-2, warmup=5, lengths=(Length(5, 4),))
    recipe = replace(TINY, config=config, stages=(stage,), colours=0.0, checkpoint_every=150)
    torch.manual_seed(0)
    objective = CodecObjective(recipe)
    run = Run({}, tmp_path, average=0.9, bfloat16=False, report=lambda line: None)

    def errors(codec):
        found = []
        for clip in clips.of("train"):
            real = training.as_video(clips.frames(clip, 0, 5), recipe.window)
            still = training.as_video(clips.source(clip)[None], recipe.window)
            with torch.no_grad():
                made = codec.decode(codec.encode(real).mean, codec.references(still))
            found.append((training.psnr(made, real), training.psnr(still.expand_as(real), real)))
        return np.mean(found, 0)

    before, repeated = errors(objective.network)
    after, _ = errors(train(objective, Sampler(clips, recipe, 0), recipe.stages, run))
    assert after > before + 8 and after > repeated + 3


def test_presets_fit_their_networks():
    small, paper = PRESETS["small"], PRESETS["paper"]
    assert [stage.lengths[0].frames for stage in paper.stages] == [5, 17, 73]
    assert sum(stage.steps for stage in small.shortened(100).stages) == 100
    assert small.stages[1].decoder_only and max(length.frames for length in small.stages[1].lengths) == 97


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": (0, 0, 12)}, "a side of a multiple of 8"),
        ({"stages": ()}, "expected a stage and a reference, got 0 and 1"),
        ({"stages": (CodecStage(2, 1e-3, lengths=(Length(4, 1),)),)}, r"expected 4 n \+ 1 frames"),
        ({"stages": (CodecStage(0, 1e-3, lengths=(Length(5, 1),)),)}, "a stage of steps and lengths"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(TINY, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": (8, 0, SIDE)}, r"pictures that hold a window \(8, 0, 16\), got 16 a side"),
        ({"stages": (CodecStage(2, 1e-3, lengths=(Length(17, 1),)),)}, "clip of 17 frames or more to train on"),
        ({"pictures": 80}, "pictures of 80 pixels a side for this recipe, got 16"),
    ],
)
def test_clips_that_do_not_fit_are_refused(clips, change, message):
    with pytest.raises(InputError, match=message):
        Sampler(clips, replace(TINY, **change), 0)


def test_a_damaged_codec_is_refused(whole, tmp_path):
    with pytest.raises(NoBundleError, match=r"expected a codec network of format 1 in .*; train it again"):
        read_codec(tmp_path)
    with pytest.raises(NoBundleError, match="expected the window of a codec"):
        codec_window(tmp_path)
    with pytest.raises(NoBundleError, match="expected a flow network of format 1"):
        read_network(tmp_path, "flow", FlowConfig, FlowGenerator)
    (tmp_path / "codec.json").write_bytes((whole / "codec.json").read_bytes())
    (tmp_path / "codec.safetensors").write_bytes((whole / "codec.safetensors").read_bytes()[:1000])
    with pytest.raises(BundleError, match="expected a codec network of format 1"):
        read_codec(tmp_path)


def test_damaged_clips_are_refused(tmp_path):
    clips = write_clips(tmp_path / "clips")
    (tmp_path / "clips" / "clips" / "clip_0.safetensors").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"expected frames of a clip in .*clip_0.* make the clips again"):
        clips.frames(clips.clips[0], 0, 1)
    table = tmp_path / "clips" / "clips.jsonl"
    table.write_text(table.read_text().replace('"seed": 0', '"seed": 9'))
    with pytest.raises(DatasetError, match=r"expected the clips that .* tells of, got others"):
        open_clips(tmp_path / "clips")
    table.write_text('{"name": 1}\n')
    with pytest.raises(DatasetError, match="line 1, got"):
        open_clips(tmp_path / "clips")
    with pytest.raises(DatasetError, match=r"clips\.json"):
        open_clips(tmp_path)


def test_clips_with_other_arrays_than_their_list_says_are_refused(tmp_path):
    shorter = write_clips(tmp_path / "shorter", frames=12, change={"frames": np.zeros((8, SIDE, SIDE, 3), np.uint8)})
    with pytest.raises(DatasetError, match=r"expected frames of a clip in .*clip_0.*; make the clips again"):
        shorter.frames(shorter.clips[0], 0, 9)
    smaller = write_clips(tmp_path / "smaller", change={"frames": np.zeros((12, 8, 8, 3), np.uint8)})
    with pytest.raises(DatasetError, match=r"expected pictures \(9, 16, 16, 3\) of uint8 in .*clip_0.*, got \(9, 8, 8, 3\)"):
        smaller.frames(smaller.clips[0], 0, 9)
    infinite = write_clips(tmp_path / "infinite", change={"motion": np.full((12, 70), np.inf, np.float32)})
    with pytest.raises(DatasetError, match=r"expected finite speech and motion in .*clip_0"):
        infinite.load(infinite.clips[0])
    path = tmp_path / "infinite" / "clips" / "clip_1.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"expected the clip of clips.jsonl in .*clip_1.*, got other bytes"):
        infinite.load(infinite.clips[1])


def test_the_command_trains_and_says_what_is_wrong(clips, whole, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from ditto.app.cli import app

    monkeypatch.setattr(training, "PRESETS", {"small": TINY})
    words = ["train", "codec", str(clips.folder), "-o", str(tmp_path / "run"), "--json"]
    made = CliRunner().invoke(app, words)
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout.splitlines()[-1])["output"] == str(tmp_path / "run")
    assert (tmp_path / "run" / "codec.safetensors").read_bytes() == (whole / "codec.safetensors").read_bytes()
    for more, message in (([], "add --resume"), (["--preset", "x"], "expected a preset of small, got 'x'")):
        refused = CliRunner().invoke(app, [*words[:-1], "--quiet", *more])
        assert refused.exit_code == 2 and message in refused.stderr and len(refused.stderr.splitlines()) == 1


def test_a_picture_shows_a_held_clip_above_the_codec(clips, whole):
    codec, clip = read_codec(whole), clips.of("held")[0]
    picture = training.picture_of(clips, TINY)(codec)
    real = training.as_video(clips.frames(clip, 0, 9), TINY.window)
    made = codec.decode(codec.encode(real).mean, codec.references(training.as_video(clips.source(clip)[None], TINY.window)))
    assert picture.shape == (3, 2 * SIDE, 8 * SIDE)
    for row, video in enumerate((real, made)):
        shown = picture[:, row * SIDE : (row + 1) * SIDE]
        torch.testing.assert_close(shown[:, :, :SIDE], video[0, :, 0] / 2 + 0.5)
        torch.testing.assert_close(shown[:, :, -SIDE:], video[0, :, 8] / 2 + 0.5)


def test_a_board_gets_curves_and_pictures_and_goes_on(clips, tmp_path, monkeypatch):
    shown, recipe = recorded_board(monkeypatch), replace(TINY, stages=TINY.stages[:1])
    start(clips, tmp_path, recipe, tensorboard=True)
    assert [step for name, step, _ in shown if name == "l1"] == [1, 2, 3, 4]
    assert [(step, value.shape) for name, step, value in shown if name == "picture"] == [
        (2, (3, 2 * SIDE, 5 * SIDE)), (4, (3, 2 * SIDE, 5 * SIDE))
    ]  # fmt: skip
    start(clips, tmp_path, recipe, tensorboard=True, resume=True)
    assert [step for name, step, _ in shown if name == "opened"] == [1, 5]


def test_a_board_that_cannot_be_written_is_an_output_error(clips, tmp_path, monkeypatch):
    import sys

    recorded_board(monkeypatch)

    def refuse(folder, purge_step):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["torch.utils.tensorboard"], "SummaryWriter", refuse)
    with pytest.raises(OutputError, match=r"expected to write .*tensorboard, got: No space left on device; make room"):
        start(clips, tmp_path, tensorboard=True)


def test_tensorboard_gets_curves_and_pictures(clips, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    start(clips, tmp_path, replace(TINY, stages=TINY.stages[:1]), tensorboard=True)
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in found.Scalars("l1")] == [1, 2, 3, 4]
    assert [event.step for event in found.Images("picture")] == [2, 4]


def test_a_missing_tensorboard_is_said(clips, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="TensorBoard is not installed"):
        start(clips, tmp_path, tensorboard=True)


def test_held_clips_are_measured(clips, whole):
    """PSNR by hand, and a group for portraits that were trained on and one for the others."""
    assert training.psnr(torch.full((4,), 0.5), torch.full((4,), 0.3)) == pytest.approx(20.0)
    figures = training.evaluate(read_codec(whole), clips, TINY.window, 9)
    assert set(figures) == {"unseen"} and figures["unseen"].clips == 1
    clip = clips.of("held")[0]
    real, still = (training.as_video(x, TINY.window) for x in (clips.frames(clip, 0, 9), clips.source(clip)[None]))
    expected = -10 * math.log10(float(((real - still) / 2).square().mean()))
    assert figures["unseen"].repeated == pytest.approx(expected, abs=1e-3)
    assert training.evaluate(read_codec(whole), clips, TINY.window, 13) == {}


def test_more_references_are_measured(clips, whole):
    """Pictures of the clip itself in place of views of its portrait: the decoder gets them, behind the source."""
    asked, codec = [], read_codec(whole)

    def extra(clip):
        asked.append(clip.name)
        return clips.frames(clip, 4, 2)

    one, more = (training.evaluate(codec, clips, TINY.window, 9, given)["unseen"] for given in (None, extra))
    assert asked == [clips.of("held")[0].name]
    assert more.with_reference != one.with_reference
    assert (more.without_reference, more.repeated) == (one.without_reference, one.repeated)


def test_batches_go_to_a_device(clips):
    batch = batch_of(clips)
    moved = on_device(batch, torch.device("meta"))
    assert isinstance(moved, CodecBatch) and moved.video.device.type == moved.noise.device.type == "meta"
    assert moved.clips == batch.clips
