"""Training of V's generator and of RAP: what a batch holds, losses by hand, resuming, and that they learn."""

import json
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from boards import recorded_board  # noqa: E402
from latent_clips import write_clips  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from ditto.app.cli import app  # noqa: E402
from ditto.errors import InputError, TrainingError  # noqa: E402
from ditto.latent.codec import Codec  # noqa: E402
from ditto.latent.config import CODEC_TINY, FLOW_TINY, RAP_TINY, FlowConfig, from_json  # noqa: E402
from ditto.latent.flow_network import FlowGenerator  # noqa: E402
from ditto.latent.flow_sampler import FlowSampler, FlowSampling  # noqa: E402
from ditto.latent.rap_sampler import RapSampler, RapSampling  # noqa: E402
from ditto.latent.schedule import Guidance  # noqa: E402
from ditto.training.latent import flow as flow_training  # noqa: E402
from ditto.training.latent import rap as rap_training  # noqa: E402
from ditto.training.latent.codec import as_video, read_codec  # noqa: E402
from ditto.training.latent.data import open_clips  # noqa: E402
from ditto.training.latent.flow import FlowDraw, FlowObjective, FlowRecipe, new_flow  # noqa: E402
from ditto.training.latent.generator import train_generator  # noqa: E402
from ditto.training.latent.latents import (  # noqa: E402
    LatentClip,
    encode_clips,
    face_box,
    face_masks,
)
from ditto.training.latent.loop import Options, Run, Stage, train  # noqa: E402
from ditto.training.latent.networks import write_network  # noqa: E402
from ditto.training.latent.rap import RapDraw, RapObjective, RapRecipe, new_rap, rap_losses  # noqa: E402

FLOW = replace(FLOW_TINY, motion_features=0)
RAP = replace(RAP_TINY, motion_features=0, audio_layers=1)
FACE, MOUTH = torch.randn(2, 8, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def clip(name, latents, per_latent, seed):
    """Latents that speech decides: a fixed face, and an opening that each frame's first feature gives."""
    random = torch.Generator().manual_seed(seed)
    frames = per_latent * (latents - 1) + 1
    audio = torch.sin(torch.arange(frames)[:, None] * (0.05 + 0.2 * torch.rand(6, generator=random)) + seed)
    opened = torch.cat([audio[:1, 0], audio[1:, 0].unflatten(0, (-1, per_latent)).mean(1)])
    z = FACE + MOUTH * opened[None, :, None, None]
    still = FACE.expand(-1, latents, -1, -1)
    return LatentClip(
        name, z, FACE.expand(-1, 3, -1, -1), still, audio, torch.zeros(frames, 70), torch.ones(latents, 2, 2)
    )


@pytest.fixture(scope="module")
def flow_clips():
    return [clip("a", 20, 4, 0), clip("b", 24, 4, 1)]


@pytest.fixture(scope="module")
def rap_clips():
    return [clip("a", 16, 8, 0), clip("b", 16, 8, 1)]


FLOW_RECIPE = FlowRecipe(FLOW, (Stage(4, 2e-3),), 3, references=2, optimizer="muon", bfloat16=False, average=0.9)
RAP_RECIPE = RapRecipe(RAP, (Stage(4, 2e-3),), 4, optimizer="muon", bfloat16=False, average=0.9)
SYSTEMS = {"flow": flow_training.FLOW, "rap": rap_training.RAP}
RECIPES = {  # for latents of the tiny codec
    "flow": replace(FLOW_RECIPE, config=replace(FLOW_TINY, channels=4), stages=(Stage(2, 1e-3),)),
    "rap": replace(
        RAP_RECIPE,
        config=replace(RAP_TINY, channels=4, audio_layers=1, frames_per_latent=4),
        stages=(Stage(2, 1e-3),),
    ),
}


def test_windows_of_v_have_their_own_speech(flow_clips):
    audio = torch.arange(93.0)[:, None].expand(-1, 6)
    numbered = flow_clips[1]._replace(audio=audio, latents=torch.arange(24.0)[None, :, None, None].expand(8, 24, 2, 2))
    draw = FlowDraw([numbered], replace(FLOW_RECIPE, batch=40), 0)
    batch = draw(0, 0)
    starts = batch.latents[:, 0, 0, 0, 0]
    assert set(starts.tolist()) > {0.0} and torch.equal(batch.given.first, starts == 0)
    for start, rows in zip(starts.tolist(), batch.given.audio[..., 0].tolist(), strict=True):
        expected = [max(frame, 0) for frame in range(int(4 * start) - 3, int(4 * start) + 61)]
        assert rows == expected  # latent j has frames 4 j - 3 to 4 j
    same, other, rank = draw(0, 0), draw(1, 0), draw(0, 1)
    assert torch.equal(same.noise, batch.noise) and torch.equal(same.given.time, batch.given.time)
    assert not torch.equal(other.noise, batch.noise) and not torch.equal(rank.noise, batch.noise)


def test_what_v_hides_and_how_noisy_its_windows_are(flow_clips):
    given = FlowDraw(flow_clips, replace(FLOW_RECIPE, batch=2000), 0)(0, 0).given
    assert given.hide_audio.float().mean() == pytest.approx(0.1, abs=0.025)
    assert given.hide_references.float().mean() == pytest.approx(0.1, abs=0.025)
    assert (given.hide_audio & given.hide_references).float().mean() == pytest.approx(0.01, abs=0.01)
    logits = given.time.logit()
    assert logits.mean() == pytest.approx(0, abs=0.05) and logits.std() == pytest.approx(1, abs=0.05)
    assert 0 <= given.context_time.min() and given.context_time.max() <= 0.7
    assert given.context_time.mean() == pytest.approx(0.35, abs=0.01)
    assert set(given.reference_count.tolist()) == {1, 2}


@pytest.mark.parametrize("draws, clips, recipe", [(FlowDraw, "flow_clips", FLOW_RECIPE), (RapDraw, "rap_clips", RAP_RECIPE)])
def test_edited_clips_are_never_without_their_motion(request, draws, clips, recipe):
    plain, edited = request.getfixturevalue(clips)
    both, recipe = [plain, edited._replace(edited=True)], replace(recipe, batch=60).with_motion()
    batch = draws(both, recipe, 0)(0, 0)
    of_edited = torch.tensor([name == edited.name for name in batch.clips])
    assert of_edited.any() and not batch.given.hide_motion[of_edited].any()
    assert 0 < batch.given.hide_motion[~of_edited].float().mean() < 1
    for without in (replace(recipe, hide_motion=1.0), replace(recipe, config=replace(recipe.config, motion_features=0))):
        batch = draws(both, without, 0)(0, 0)
        assert batch.given.motion is None and set(batch.clips) == {plain.name}


def test_the_loss_of_v_by_hand(flow_clips):
    network = new_flow(FLOW, flow_clips)  # its last layer is zero: it predicts a velocity of 0
    batch = FlowDraw(flow_clips, FLOW_RECIPE, 0)(0, 0)
    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    losses = FlowObjective(network)(batch).losses
    expected = [float((batch.noise[i] - batch.latents[i]).square().mean()) for i in range(3)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    t, s = float(batch.given.time[1, 2]), float(batch.given.context_time[1, 2])  # block 2: latents 8 to 11
    x0, noise, other = batch.latents[1, 5, 9, 1, 0], batch.noise[1, 5, 9, 1, 0], batch.context_noise[1, 5, 9, 1, 0]
    assert float(seen[0].noisy[1, 5, 9, 1, 0]) == pytest.approx(float(t * noise + (1 - t) * x0), rel=1e-5)
    assert float(seen[0].context[1, 5, 9, 1, 0]) == pytest.approx(float(s * other + (1 - s) * x0), rel=1e-5)


def test_the_losses_of_rap_by_hand():
    target = torch.zeros(1, 1, 3, 1, 2)
    velocity = torch.tensor([[1.0, 3.0], [2.0, 0.0], [2.0, 1.0]])[None, None, :, None]
    mask = torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 0.0]])[None, None, :, None]
    all_, face, temporal = rap_losses(velocity, target, mask)
    assert float(all_) == pytest.approx((1 + 9 + 4 + 0 + 4 + 1) / 6)
    assert float(face) == pytest.approx((1 + 1) / 6)
    assert float(temporal) == pytest.approx((1 + 9 + 0 + 1) / 4)
    _, face, temporal = rap_losses(target + 2.5, target, 0 * mask)
    assert float(face) == 0 and float(temporal) == 0  # nothing in the face; a constant error


def test_clips_of_rap_begin_or_go_on(rap_clips):
    audio = torch.arange(121.0)[:, None].expand(-1, 6)
    latents = torch.arange(16.0)[None, :, None, None].expand(8, 16, 2, 2)
    piece = rap_clips[0]._replace(audio=audio, latents=latents, repeated=100 + latents, mask=latents[0])
    draw = RapDraw([piece], replace(RAP_RECIPE, batch=400, longest=1.0), 0)
    batch = draw(0, 0)
    static = batch.given.static
    assert static.float().mean() == pytest.approx(0.5, abs=0.08)
    for row in (int(static.int().argmax()), int(static.int().argmin())):
        first = 0 if static[row] else 5
        assert batch.latents[row, 0, :, 0, 0].tolist() == list(range(first, first + 11))
        assert batch.given.reference[row, 0, :, 0, 0].tolist() == list(range(100 + first, 111 + first))
        assert batch.mask[row, 0, :, 0, 0].tolist() == list(range(first, first + 11))
        frames = [0] * 7 + list(range(81)) if static[row] else list(range(33, 121))
        assert batch.given.audio[row, :, 0, 0].tolist() == frames
    assert batch.given.hide_audio.float().mean() == pytest.approx(0.1, abs=0.05)
    assert batch.given.time.mean() == pytest.approx(0.5, abs=0.05)
    mixed = RapDraw([piece], RAP_RECIPE, 0)
    lengths = [mixed(step, 0).latents.shape[2] for step in range(60)]
    assert set(lengths) == {3, 5, 8, 11} and 15 < lengths.count(11) < 45
    assert [mixed(step, 3).latents.shape[2] for step in range(60)] == lengths  # all processes alike


def test_the_loss_of_rap_is_the_sum_of_its_terms(rap_clips):
    network = new_rap(RAP, rap_clips)
    batch = RapDraw(rap_clips, RAP_RECIPE, 0)(0, 0)
    terms = RapObjective(network, replace(RAP_RECIPE, face=2.0, temporal=3.0))(batch)
    error = batch.latents - batch.noise
    expected = 3 * error.square().mean() + 3 * error.diff(dim=2).square().mean()  # the mask is 1
    assert terms.losses.mean().item() == pytest.approx(float(expected), rel=1e-5)
    assert terms.figures["velocity"].item() == pytest.approx(float(error.square().mean()), rel=1e-5)


def test_latents_relative_to_the_reference_have_a_spread_of_one(rap_clips, flow_clips):
    network = new_flow(replace(FLOW, residual=True), flow_clips)
    residual = [network.units.encode(c.latents[None], c.references[None, :, :1]) for c in flow_clips]
    spread = torch.cat([r.flatten(2) for r in residual], 2).square().mean((0, 2)).sqrt()
    assert torch.allclose(spread, torch.ones(8), atol=1e-4)
    assert float(new_rap(RAP, rap_clips).units.spread.mean()) == 1


def test_masks_of_faces():
    boxes = np.array([[0.25, 0.25, 0.75, 0.5]] * 3 + [[0.5, 0.25, 1.0, 0.5]] * 2)
    masks = face_masks(boxes, 4, 4)
    assert masks.shape == (2, 4, 4)
    # 10 % larger: columns from 0.225 to 0.775, rows from 0.2375 to 0.5125
    columns, rows = [0.1, 1, 1, 0.1], [0.05, 1, 0.05, 0]
    assert np.allclose(masks[0], np.outer(rows, columns), atol=1e-6)
    assert np.allclose(masks[1], np.outer(rows, [0.1, 1, 1, 1]), atol=1e-6)  # the union of the frames 1 to 4
    assert np.allclose(face_box(66, (0, 0, 66)), [8 / 66, 8 / 66, 58 / 66, 58 / 66])
    assert np.allclose(face_box(66, (33, 33, 33))[:2], [-25 / 33, -25 / 33])


def pieces(kind, flow_clips, rap_clips):
    torch.manual_seed(0)
    if kind == "flow":
        return FlowObjective(new_flow(FLOW, flow_clips)), FlowDraw(flow_clips, FLOW_RECIPE, 0)
    return RapObjective(new_rap(RAP, rap_clips), RAP_RECIPE), RapDraw(rap_clips, RAP_RECIPE, 0)


def quiet(line):
    pass


@pytest.mark.parametrize("kind", ["flow", "rap"])
def test_a_run_that_was_interrupted_has_the_same_bits(kind, flow_clips, rap_clips, tmp_path):
    torch.set_num_threads(1)
    stages = (Stage(4, 2e-3),)
    whole = train(
        *pieces(kind, flow_clips, rap_clips), stages, Run({}, tmp_path / "whole", checkpoint_every=2, report=quiet)
    )
    run = Run({}, tmp_path / "cut", checkpoint_every=2, report=quiet)
    objective, draw = pieces(kind, flow_clips, rap_clips)

    def cut(step, rank):
        if step == 3:
            raise KeyboardInterrupt
        return draw(step, rank)

    with pytest.raises(KeyboardInterrupt):
        train(objective, cut, stages, run)
    resumed = train(*pieces(kind, flow_clips, rap_clips), stages, run, resume=True)
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def with_motion(kind, flow_clips, rap_clips, hide):
    """Objective and draws of a run with the motion condition, and its recipe."""
    clips = [one._replace(motion=torch.randn(len(one.motion), 70)) for one in (flow_clips if kind == "flow" else rap_clips)]
    recipe = replace(FLOW_RECIPE if kind == "flow" else RAP_RECIPE, hide_motion=hide).with_motion()
    torch.manual_seed(0)
    if kind == "flow":
        return FlowObjective(new_flow(recipe.config, clips)), FlowDraw(clips, recipe, 0)
    return RapObjective(new_rap(recipe.config, clips), recipe), RapDraw(clips, recipe, 0)


@pytest.mark.parametrize("kind", ["flow", "rap"])
def test_a_run_whose_motion_is_always_hidden_has_the_bits_of_one_without(kind, flow_clips, rap_clips, tmp_path):
    torch.set_num_threads(1)
    stages = (Stage(4, 2e-2),)
    base = train(*pieces(kind, flow_clips, rap_clips), stages, Run({}, tmp_path / "base", average=0.5, report=quiet))
    objective, draw = with_motion(kind, flow_clips, rap_clips, hide=1.0)
    hidden = train(objective, draw, stages, Run({}, tmp_path / "hidden", average=0.5, report=quiet))
    found = hidden.state_dict()
    for name, value in base.state_dict().items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("kind", ["flow", "rap"])
def test_a_run_with_motion_learns_what_it_adds(kind, flow_clips, rap_clips, tmp_path):
    objective, draw = with_motion(kind, flow_clips, rap_clips, hide=0.5)
    plain, drawn = pieces(kind, flow_clips, rap_clips)[1](0, 0), draw(0, 0)
    assert torch.equal(plain.latents, drawn.latents) and torch.equal(plain.noise, drawn.noise)
    for name, value in plain.given._asdict().items():
        assert value is None or torch.equal(value, getattr(drawn.given, name)), name
    trained = train(objective, draw, (Stage(4, 2e-3),), Run({}, tmp_path, average=0.5, report=quiet))
    assert trained.motion.output.weight.any()
    spread = trained.motion.embedder.units.spread
    assert torch.allclose(spread, torch.full((70,), 1.0), atol=0.35)  # that of the clips' motion


@pytest.mark.parametrize("kind", ["flow", "rap"])
def test_a_loss_that_is_not_finite_names_the_clip(kind, flow_clips, rap_clips, tmp_path):
    objective, draw = pieces(kind, flow_clips, rap_clips)

    def broken(step, rank):
        batch = draw(step, rank)
        if step == 2:
            latents = batch.latents.clone()
            latents[1] = float("nan")
            batch = batch._replace(latents=latents, clips=("good", "bad", "good", "good")[: len(batch.clips)])
        return batch

    run = Run({}, tmp_path, checkpoint_every=2, report=quiet)
    with pytest.raises(
        TrainingError, match="expected a finite loss at step 3, got NaN or infinity with the clips bad;"
    ):
        train(objective, broken, (Stage(4, 2e-3),), run)
    assert run.checkpoint.is_file()


def test_data_and_numbers_that_do_not_fit_are_refused(flow_clips, rap_clips):
    with pytest.raises(InputError, match="expected clips of 16 latents or more"):
        FlowDraw([clip("short", 12, 4, 0)], FLOW_RECIPE, 0)
    with pytest.raises(InputError, match="expected pieces of 16 latents"):
        RapDraw(flow_clips, RAP_RECIPE, 0)
    with pytest.raises(InputError, match="expected 512 speech and 0 motion features, got 6 and 0"):
        new_flow(replace(FLOW, audio_features=512), flow_clips)
    with pytest.raises(InputError, match="expected 12 speech and 0 motion features, got 6 and 0"):
        new_rap(replace(RAP, audio_layers=2), rap_clips)
    with pytest.raises(InputError, match=r"expected hide from 0 to 1, got 1.5"):
        replace(FLOW_RECIPE, hide=1.5)
    with pytest.raises(InputError, match="expected batch of 1 or more, got 0"):
        replace(RAP_RECIPE, batch=0)


def test_a_trained_network_is_written_with_its_sizes(flow_clips, tmp_path):
    network = new_flow(FLOW, flow_clips)
    write_network(tmp_path, "flow", network, {"seed": 3})
    words = json.loads((tmp_path / "flow.json").read_text())
    assert words["seed"] == 3 and from_json(FlowConfig, words["config"]) == FLOW
    again = FlowGenerator(FLOW)
    again.load_state_dict(load_file(tmp_path / "flow.safetensors"))
    assert torch.equal(again.null_audio, network.null_audio)
    assert torch.equal(again.audio.units.mean, network.audio.units.mean)


def opening(latents):
    """(C, T, h, w) -> (T,): how open the mouth of `clip` is."""
    return ((latents - FACE) * MOUTH).sum((0, 2, 3)) / MOUTH.square().sum()


def correlation(latents, clip):
    return float(torch.corrcoef(torch.stack([opening(latents), opening(clip.latents)[: latents.shape[1]]]))[0, 1])


def learnt(objective, draw, steps, folder):
    """The losses of a short training, and the trained network."""
    torch.set_num_threads(1)
    losses, forward = [], objective.forward

    def recorded(batch):
        terms = forward(batch)
        losses.append(terms.losses.mean().item())
        return terms

    objective.forward = recorded
    run = Run({}, folder, optimizer="muon", bfloat16=False, checkpoint_every=steps, report=quiet)
    train(objective, draw, (Stage(steps, 5e-3, warmup=10),), run)
    return losses, objective.network.eval()


def test_v_learns_to_follow_speech_over_several_windows(flow_clips, tmp_path):
    torch.manual_seed(0)
    recipe = replace(FLOW_RECIPE, batch=4)
    objective = FlowObjective(new_flow(FLOW, flow_clips))
    losses, network = learnt(objective, FlowDraw(flow_clips, recipe, 0), 150, tmp_path)
    assert np.mean(losses[-30:]) < np.mean(losses[:10]) / 5
    sampler = FlowSampler(network, FlowSampling(6, 1.0, Guidance(), Guidance()))
    long, other = clip("long", 45, 4, 1), clip("other", 45, 4, 6)

    def spoken(audio):
        state, made, start = sampler.begin(sampler.reference(long.references[:, :1]), 3), [], 0
        for _ in range(10):  # three windows
            frames = sampler.frames(state)
            (block,) = sampler.generate([state], [audio[start : start + frames]])
            state, start = block.state, start + frames
            made.append(block.latents)
        return torch.cat(made, 1)

    assert correlation(spoken(long.audio), long) > 0.9
    assert abs(correlation(spoken(other.audio), long)) < 0.4


def test_rap_learns_to_follow_speech_over_several_clips(rap_clips, tmp_path):
    torch.manual_seed(0)
    objective = RapObjective(new_rap(RAP, rap_clips), RAP_RECIPE)
    losses, network = learnt(objective, RapDraw(rap_clips, RAP_RECIPE, 0), 200, tmp_path)
    assert np.mean(losses[-30:]) < np.mean(losses[:10]) / 5
    sampler = RapSampler(network, RapSampling(6, 1.0, Guidance()))
    long, other = clip("long", 43, 8, 1), clip("other", 43, 8, 6)

    def spoken(audio):
        state, made = sampler.begin(long.repeated[:, :16], 3), []
        for length in (3, 5, 11, 11):
            frames = sampler.frames(state, length)
            (made_now,) = sampler.generate([state], [audio[state.frames : state.frames + frames, None]], length)
            state = made_now.state
            made.append(made_now.latents)
        return torch.cat(made, 1)

    assert correlation(spoken(long.audio), long) > 0.9
    assert abs(correlation(spoken(other.audio), long)) < 0.4


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A folder of three clips of drawn faces, one of them held, and that of a codec with new weights."""
    folder = tmp_path_factory.mktemp("rendered")
    write_clips(folder, frames=66, count=3)
    torch.manual_seed(0)
    write_network(folder / "codec", "codec", Codec(CODEC_TINY), {"window": (0, 0, 16)})
    return folder


@pytest.mark.parametrize("command", ["flow", "rap"])
def test_the_command_refuses_clips_and_codecs_of_other_sizes(rendered, tmp_path, command):
    """The presets are for other codecs than this tiny one."""
    arguments = ["train", command, str(rendered), str(rendered / "codec"), "-o", str(tmp_path / "out"), "-q"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "of latents of 4 channels, 2 rows" in result.stderr
    missing = CliRunner().invoke(app, ["train", command, str(rendered), str(tmp_path), "-o", str(tmp_path / "out")])
    assert missing.exit_code != 0 and "codec.json" in missing.stderr and "Traceback" not in missing.stderr
    other = CliRunner().invoke(app, [*arguments, "--preset", "huge"])
    assert other.exit_code == 2 and "got 'huge'; give one of them" in other.stderr


def test_generators_are_trained_from_clips_and_a_codec(rendered, tmp_path):
    codec, clips = read_codec(rendered / "codec"), open_clips(rendered)
    (whole, _), parts = encode_clips(codec, clips, (0, 0, 16), None), encode_clips(codec, clips, (0, 0, 16), 13)
    assert whole.latents.shape == (4, 17, 2, 2) and len(whole.audio) == 65 and len(parts) == 4
    video = as_video(clips.frames(clips.of("train")[0], 16, 49), (0, 0, 16))
    assert torch.allclose(parts[1].latents, codec.normalise(codec.encode(video).mean)[0], atol=1e-5)
    source = as_video(clips.source(clips.of("train")[0])[None], (0, 0, 16))
    assert torch.allclose(whole.references[:, :1], codec.normalise(codec.encode(source).mean)[0], atol=1e-5)
    (varied, _), (again, _) = (encode_clips(codec, clips, (0, 0, 16), None, variety=1.0) for _ in range(2))
    assert torch.equal(varied.latents, again.latents) and not torch.allclose(varied.latents, whole.latents, atol=1e-2)
    assert not torch.allclose(varied.references[:, 0], whole.references[:, 0], atol=1e-2)  # the portrait varies with its clip
    assert torch.equal(varied.audio, whole.audio)
    other = tmp_path / "codec"
    write_network(other, "codec", Codec(CODEC_TINY), {"window": (0, 0, 16)})
    for name, recipe in RECIPES.items():
        options = Options(rendered, tmp_path / name, report=quiet)
        network = train_generator(SYSTEMS[name], options, rendered / "codec", recipe)
        written = load_file(tmp_path / name / f"{name}.safetensors")
        assert all(torch.equal(value, written[key]) for key, value in network.state_dict().items())
        with pytest.raises(InputError, match="got others: codec;"):
            train_generator(SYSTEMS[name], replace(options, resume=True), other, recipe)
        with pytest.raises(InputError, match=r"expected a .* of latents of 4 channels, 2 rows"):
            wider = replace(recipe, config=replace(recipe.config, channels=8))
            train_generator(SYSTEMS[name], replace(options, out=tmp_path / "other"), rendered / "codec", wider)


@pytest.mark.parametrize("name", ["flow", "rap"])
def test_tensorboard_gets_pictures_of_a_held_clip_and_training_the_same_bits(rendered, tmp_path, name, monkeypatch):
    """Above the clip, below what the averaged network says with its speech."""
    shown = recorded_board(monkeypatch)
    plain = Options(rendered, tmp_path / "plain", report=quiet)
    options = replace(plain, out=tmp_path / "shown", tensorboard=True)
    networks = [train_generator(SYSTEMS[name], o, rendered / "codec", RECIPES[name]) for o in (plain, options)]
    states = [network.state_dict() for network in networks]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert shown[0] == ("opened", 1, str(options.out / "tensorboard")) and shown[-1][0] == "closed"
    assert [step for tag, step, _ in shown if tag == "loss"] == [1, 2]
    ((step, picture),) = [(step, value) for tag, step, value in shown if tag == "picture"]
    assert step == 2 and picture.shape == (3, 32, 8 * 16)
    clips = open_clips(rendered)
    first = torch.from_numpy(clips.frames(clips.of("held")[0], 0, 1)[0]).permute(2, 0, 1) / 255
    assert torch.allclose(picture[:, :16, :16], first, atol=1e-5)
    below = picture[:, 16:]
    assert (below - picture[:, :16]).abs().mean() > 0.02  # nothing is learnt yet
    assert (below[:, :, :16] - below[:, :, -16:]).abs().max() > 0  # and it is a video
