"""Speech of V and RAP: lite's encoder, a mel encoder trained with the generator, layers of a HuBERT; in clips and streams."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from drawn import drawn_portrait

torch = pytest.importorskip("torch", reason="V and RAP need torch")

from boards import recorded_board  # noqa: E402
from engine_networks import HUBERT as SIZES  # noqa: E402
from latent_bundles import random_network, write_tiny  # noqa: E402
from latent_clips import SIDE, write_clips  # noqa: E402
from latent_runs import FLOW, RAP  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from ditto.app.cli import app  # noqa: E402
from ditto.bundle import KEYS, seal  # noqa: E402
from ditto.errors import BundleError, InputError, NoBundleError  # noqa: E402
from ditto.full.networks.hubert import Hubert  # noqa: E402
from ditto.full.networks.streaming_hubert import StreamingHubert  # noqa: E402
from ditto.latent.audio import MEL_BANDS, MEL_FRAMES, layers_at_frames, mel_windows  # noqa: E402
from ditto.latent.codec import Codec  # noqa: E402
from ditto.latent.config import CODEC_TINY  # noqa: E402
from ditto.latent.flow_network import FlowGenerator  # noqa: E402
from ditto.latent.rap_network import RapDenoiser  # noqa: E402
from ditto.latent.speech import HubertLayers, LiteConfig, MelConfig, MelSource, shipped_encoder, stream_rows  # noqa: E402
from ditto.talking_head import load  # noqa: E402
from ditto.training.latent import flow as flow_training  # noqa: E402
from ditto.training.latent import rap as rap_training  # noqa: E402
from ditto.training.latent.bundle import bundle_of_training  # noqa: E402
from ditto.training.latent.codec import read_codec  # noqa: E402
from ditto.training.latent.data import open_clips  # noqa: E402
from ditto.training.latent.generator import train_generator  # noqa: E402
from ditto.training.latent.hearing import HearingObjective, speech_named  # noqa: E402
from ditto.training.latent.latents import encode_clips  # noqa: E402
from ditto.training.latent.loop import Options, Stage  # noqa: E402
from ditto.training.latent.networks import write_network  # noqa: E402

SYSTEMS = {"flow": flow_training.FLOW, "rap": rap_training.RAP}
RECIPES = {
    name: replace(recipe, stages=(Stage(4, 2e-3, warmup=2),), checkpoint_every=2)
    for name, recipe in {"flow": FLOW, "rap": RAP}.items()
}
PORTRAIT = drawn_portrait(256)


def tiny_mel():
    return MelSource.new(MelConfig(8, (4, 4)), 0)


def quiet(line):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips of which the first has sound, and a codec with random weights."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("speech")
    sound = np.random.default_rng(0).integers(-4000, 4000, 66 * 640).astype(np.int16)
    write_clips(folder, frames=66, count=3, change={"sound": sound})
    write_network(folder / "codec", "codec", random_network(lambda: Codec(CODEC_TINY), 0), {"window": (0, 0, SIDE)})
    return folder


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A bundle with a tiny HuBERT."""
    return write_hubert(tmp_path_factory.mktemp("full") / "full")


def write_hubert(folder, seed=3):
    folder.mkdir()
    network = random_network(lambda: Hubert(SIZES), seed)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "encoder.safetensors")
    part = {"model": "hubert", "config": asdict(SIZES), "files": {"weights": "encoder.safetensors"}, "sha256": {}}
    words = (1, "tiny full", "Apache-2.0", "random numbers", 25, 16000, "full", {"encoder": part})
    (folder / "bundle.json").write_text(json.dumps(dict(zip(KEYS, words, strict=True))))
    seal(folder)
    return folder


def trained(folder, out, name, speech, **options):
    """Train a generator with a source of speech to a folder."""
    recipe, wanted = RECIPES[name].with_speech(speech), Options(folder, out, report=quiet, **options)
    return train_generator(SYSTEMS[name], wanted, folder / "codec", recipe, speech=speech)


def batch_of(folder, name, speech):
    """The first batch of a run, and the recipe."""
    recipe = RECIPES[name].with_speech(speech)
    coded = encode_clips(
        read_codec(folder / "codec"), open_clips(folder), (0, 0, SIDE), SYSTEMS[name].piece(recipe), speech=speech
    )
    return SYSTEMS[name].draw(coded, recipe, 0)(0, 0), recipe, coded


def clip_samples(folder):
    clips = open_clips(folder)
    return clips.load(clips.of("train")[0]).sound.astype(np.float32) / 32768


@pytest.mark.parametrize("name", SYSTEMS)
def test_gradients_reach_every_weight_of_the_mel_encoder(folder, name):
    speech = tiny_mel()
    batch, recipe, _ = batch_of(folder, name, speech)
    network = random_network(lambda: {"flow": FlowGenerator, "rap": RapDenoiser}[name](recipe.config), 0)
    objective = HearingObjective(SYSTEMS[name].objective(network, recipe), speech.trained)
    objective(batch).losses.mean().backward()
    for key, value in objective.network.speech.named_parameters():
        assert value.grad is not None and value.grad.any(), key
    assert set(objective.network.state_dict()) > {f"generator.{key}" for key in network.state_dict()}


@pytest.mark.parametrize("name", SYSTEMS)
def test_rows_of_clips_are_mel_windows_of_their_frames(folder, name):
    speech = tiny_mel()
    batch, _, coded = batch_of(folder, name, speech)
    whole = mel_windows(torch.from_numpy(clip_samples(folder))[None])[0]
    piece = coded[0]  # from the first frame on
    assert piece.audio.dtype == torch.float16
    torch.testing.assert_close(piece.audio.float(), whole.flatten(1)[: len(piece.audio)], atol=2e-3, rtol=0)
    assert batch.given.audio.dtype == torch.float32 and batch.given.audio.shape[-1] == MEL_BANDS * MEL_FRAMES
    codec, clips = read_codec(folder / "codec"), open_clips(folder)
    later = encode_clips(codec, clips, (0, 0, SIDE), 5, speech=speech)[1]  # 17 frames from frame 5 on
    torch.testing.assert_close(later.audio.float(), whole.flatten(1)[5:22], atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_run_with_a_mel_encoder_that_was_interrupted_has_the_same_bits(folder, tmp_path, name):
    def cut(clips, recipe, seed):
        draw = SYSTEMS[name].draw(clips, recipe, seed)

        def drawn(step, rank):
            if step == 3:
                raise KeyboardInterrupt
            return draw(step, rank)

        return drawn

    generator = trained(folder, tmp_path / "whole", name, tiny_mel())
    first, speech = tiny_mel(), tiny_mel()
    recipe = RECIPES[name].with_speech(first)
    system, options = replace(SYSTEMS[name], draw=cut), Options(folder, tmp_path / "cut", report=quiet)
    with pytest.raises(KeyboardInterrupt):
        train_generator(system, options, folder / "codec", recipe, speech=first)
    resumed = trained(folder, tmp_path / "cut", name, speech, resume=True)
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in generator.state_dict().items())
    for file in ("audio.safetensors", f"{name}.safetensors", f"{name}.json"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    new, found = tiny_mel().trained.state_dict(), load_file(tmp_path / "cut" / "audio.safetensors")
    for key, value in speech.trained.state_dict().items():
        assert torch.equal(found[key], value) and not torch.equal(value, new[key]), key
    with pytest.raises(InputError, match="got others: audio, recipe;"):
        trained(folder, tmp_path / "cut", name, MelSource.new(MelConfig(6, (4, 4)), 0), resume=True)


@pytest.mark.parametrize("name", SYSTEMS)
def test_tensorboard_shows_what_generator_and_mel_encoder_make(folder, tmp_path, name, monkeypatch):
    shown = recorded_board(monkeypatch)
    trained(folder, tmp_path, name, tiny_mel(), tensorboard=True)
    pictures = [value for tag, _, value in shown if tag == "picture"]
    assert len(pictures) == 2 and all(picture.shape == (3, 2 * SIDE, 8 * SIDE) for picture in pictures)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_bundle_of_a_trained_mel_encoder_streams_what_the_whole_speech_gives(folder, tmp_path, name):
    speech = tiny_mel()
    trained(folder, tmp_path / "run", name, speech)
    bundle_of_training(folder / "codec", tmp_path / "run", tmp_path / "bundle", "tiny", "Apache-2.0")
    head, samples = load(tmp_path / "bundle"), clip_samples(folder)[: 640 * 23]
    with torch.no_grad():
        whole = speech.trained(mel_windows(torch.from_numpy(samples)[None]))[0].numpy()
    np.testing.assert_allclose(stream_rows(head.performer.speech.encoder, samples), whole, atol=1e-4)
    assert len(list(head.animate(PORTRAIT, samples))) == 23


@pytest.mark.parametrize("name", SYSTEMS)
def test_speech_is_the_features_of_clips_by_default(folder, tmp_path, name):
    lite, codec, clips, runs = LiteConfig(shipped_encoder()), folder / "codec", open_clips(folder), []
    for place, speech in enumerate((None, lite)):
        out = tmp_path / str(place)
        options = Options(folder, out, report=quiet)
        runs.append(train_generator(SYSTEMS[name], options, codec, RECIPES[name], speech=speech).state_dict())
        assert not (out / "audio.safetensors").exists()
    assert all(torch.equal(value, runs[1][key]) for key, value in runs[0].items())
    coded = encode_clips(read_codec(codec), clips, (0, 0, SIDE), 5, speech=lite)
    kept = torch.from_numpy(clips.load(clips.of("train")[0]).features).float()
    assert torch.equal(coded[0].audio, kept[:17])
    with pytest.raises(InputError, match=r"expected lite's speech beside a condition on motion.*got mel_encoder"):
        train_generator(
            SYSTEMS[name], Options(folder, tmp_path / "moved"), codec,
            RECIPES[name].with_speech(tiny_mel()).with_motion(), speech=tiny_mel(),
        )  # fmt: skip


def test_hidden_layers_are_those_of_the_network(full):
    network = StreamingHubert(random_network(lambda: Hubert(SIZES), 3).eval())
    samples = torch.from_numpy(np.random.default_rng(1).normal(0, 0.1, (1, 3 * network.samples)).astype(np.float32))
    with torch.no_grad():
        rows, _ = network(samples, network.empty_state())
        hidden, _ = network.hidden(samples, network.empty_state())
        assert len(hidden) == 2 and torch.equal(hidden[-1], rows)
        assert not torch.allclose(hidden[0], hidden[1], atol=1e-2)
        one = StreamingHubert(Hubert(replace(SIZES, layers=1)).eval())
        one.hubert.load_state_dict(network.hubert.state_dict(), strict=False)
        torch.testing.assert_close(network.hubert.encoder.layer_norm(hidden[0]), one(samples, one.empty_state())[0])
        expected = layers_at_frames(torch.stack(hidden, 1), 30)[0].flatten(1).numpy()
    encoder = HubertLayers.of(str(full)).open().encoder
    np.testing.assert_allclose(stream_rows(encoder, samples[0].numpy()), expected, atol=1e-4)
    second = HubertLayers.of(str(full), [2]).open()
    assert second.features == SIZES.width
    np.testing.assert_allclose(stream_rows(second.encoder, samples[0].numpy()), expected[:, SIZES.width :], atol=1e-4)


@pytest.mark.parametrize(("name", "layers", "numbers"), [("flow", None, 64), ("rap", None, 128), ("rap", "1", 64)])
def test_hidden_layers_train_a_generator_and_speak_in_its_bundle(folder, full, tmp_path, name, layers, numbers):
    speech = speech_named(str(full), layers, SYSTEMS[name].stacks, 0)
    assert speech.audio_layers * speech.audio_features == numbers
    _, _, coded = batch_of(folder, name, speech)
    generator = trained(folder, tmp_path / "run", name, speech)
    units = generator.audio.units if name == "flow" else generator.audio_units
    assert units.mean.shape == (numbers,) and units.mean.std() > 0.01  # each number of each layer in its own units
    bundle_of_training(folder / "codec", tmp_path / "run", tmp_path / "bundle", "tiny", "Apache-2.0")
    head, samples = load(tmp_path / "bundle"), clip_samples(folder)
    encoder, audio = head.performer.speech.encoder, coded[0].audio.float().numpy()
    np.testing.assert_allclose(stream_rows(encoder, samples)[: len(audio)], audio, atol=2e-2, rtol=1e-3)  # float16
    assert len(list(head.animate(PORTRAIT, samples[: 640 * 21]))) == 21
    state = encoder.initial_state(1)
    sizes = [tuple(value.shape) for value in state]
    for _ in range(2):
        ((rows, state),) = encoder.step_batch([np.zeros(encoder.hop_samples, np.float32)], [state])
    assert [tuple(value.shape) for value in state] == sizes and rows.shape == (10, numbers)


def test_a_hubert_that_is_missing_or_another_one_is_told(folder, tmp_path):
    full = write_hubert(tmp_path / "full")
    trained(folder, tmp_path / "run", "rap", HubertLayers.of(str(full)))
    made = bundle_of_training(folder / "codec", tmp_path / "run", tmp_path / "bundle", "tiny", "Apache-2.0")
    assert str(full) in (made.path / "bundle.json").read_text()
    shutil.move(full, tmp_path / "away")
    with pytest.raises(NoBundleError, match=rf"expected the speech encoder .* in the bundle '{full}', got: no bundle"):
        load(made.path)
    result = CliRunner().invoke(app, ["bundle", "verify", str(made.path)])
    assert result.exit_code == 2, result.output
    assert "expected the speech encoder" in result.stderr and "Traceback" not in result.stderr
    write_hubert(full, seed=4)
    with pytest.raises(NoBundleError, match=r"in the bundle .*; put the bundle of the training there"):
        load(made.path)
    with pytest.raises(NoBundleError, match="expected the speech encoder"):
        trained(folder, tmp_path / "again", "rap", HubertLayers(str(tmp_path / "nowhere"), "0" * 64, (1,), 64))
    shutil.rmtree(full)
    shutil.move(tmp_path / "away", full)
    weights = full / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BundleError, match="expected SHA-256"):
        load(made.path)


@pytest.mark.parametrize("command", SYSTEMS)
def test_speech_that_cannot_be_is_an_input_error(folder, full, tmp_path, command):
    other, bare = tmp_path / "v", tmp_path / "bare"
    write_tiny(other, "v")
    shutil.copytree(full, bare)
    described = json.loads((bare / "bundle.json").read_text())
    described["parts"]["encoder"]["files"] = described["parts"]["encoder"]["sha256"] = {}
    (bare / "bundle.json").write_text(json.dumps(described))
    for more, message in (
        (["--speech", "nonsense"], "no bundle named 'nonsense'"),
        (["--speech", ""], "expected a bundle"),
        (["--speech", str(other)], "expected a bundle with a HuBERT (a full bundle), got 'tiny v' with no encoder"),
        (["--speech", str(bare)], "expected weights of the HuBERT of 'tiny full' for PyTorch, got no file"),
        (["--speech", str(full), "--layers", "3"], "expected layers of 1 to 2"),
        (["--speech", str(full), "--layers", "2,1"], "expected layers that rise from 1 or more, got 2, 1"),
        (["--speech", str(full), "--layers", "one"], "expected numbers of layers as 4,8,12, got 'one'"),
        (["--layers", "1"], "expected layers with a bundle of a HuBERT alone, got '1' with lite"),
        (["--speech", "mel", "--motion"], "expected lite's speech beside a condition on motion"),
    ):
        out = tmp_path / "out"
        result = CliRunner().invoke(app, ["train", command, str(folder), str(folder / "codec"), "-o", str(out), *more])
        assert result.exit_code == 2 and message in " ".join(result.stderr.split()), (more, result.stderr)
        assert "Traceback" not in result.stderr and not out.exists()


def test_the_commands_train_a_mel_encoder_and_write_its_bundle(folder, tmp_path, monkeypatch):
    tiny = {"small": RECIPES["flow"]}
    monkeypatch.setattr(flow_training, "FLOW", replace(flow_training.FLOW, presets=tiny))

    def command(*words):
        result = CliRunner().invoke(app, ["train", *map(str, words)])
        return result.exit_code, result.stderr

    assert command("flow", folder, folder / "codec", "-o", tmp_path / "run", "--speech", "mel", "--steps", 1, "-q") == (0, "")
    bundle = ("bundle", folder / "codec", tmp_path / "run", "-o", tmp_path / "bundle")
    code, said = command(*bundle)
    assert (code, said) == (0, "")
    assert load(tmp_path / "bundle").performer.speech.features == 512
    code, said = command(*bundle)
    assert code == 2 and "expected a new folder for the bundle" in said
    write_network(tmp_path / "other", "codec", Codec(CODEC_TINY), {"window": (0, 0, SIDE)})
    code, said = command("bundle", tmp_path / "other", tmp_path / "run", "-o", tmp_path / "new")
    assert code == 2 and "expected the codec that" in said
    code, said = command("bundle", folder / "codec", tmp_path, "-o", tmp_path / "new")
    assert code == 2 and "flow.json" in said
    (tmp_path / "run" / "audio.safetensors").unlink()
    code, said = command("bundle", folder / "codec", tmp_path / "run", "-o", tmp_path / "new")
    assert code == 1 and "expected the speech of the generator" in said and not (tmp_path / "new").exists()


def test_a_generator_that_does_not_fit_what_is_said_of_it_makes_no_bundle(folder, full, tmp_path):
    trained(folder, tmp_path / "run", "rap", HubertLayers.of(str(full)))
    described = (tmp_path / "run" / "rap.json").read_text()

    def made(error, match, change):
        words = json.loads(described)
        change(words)
        (tmp_path / "run" / "rap.json").write_text(json.dumps(words))
        with pytest.raises(error, match=match):
            bundle_of_training(folder / "codec", tmp_path / "run", tmp_path / "bundle", "tiny", "Apache-2.0")
        assert not (tmp_path / "bundle").exists()

    def narrow(words):
        words["words"]["audio"]["sizes"]["audio_features"] = 5

    made(InputError, "and 64 numbers each of the encoder", narrow)
    for seed in (None, "x", True):
        made(BundleError, "a side, seed or data of another type", lambda words, seed=seed: words.update(seed=seed))
    (tmp_path / "run" / "flow.json").write_text("{}")
    made(InputError, r"expected one generator in .*, got flow\.json and rap\.json", lambda words: None)
