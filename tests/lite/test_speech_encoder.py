"""The streaming speech encoder: its network, its level, and the shipped bundle through ONNX Runtime."""

from pathlib import Path

import numpy as np
import pytest

from ditto.bundle import SHIPPED
from ditto.errors import BundleError
from ditto.lite.phones import PHONES
from ditto.lite.speech_encoder import FEATURE_SIZE, HOP_SAMPLES, SpeechEncoder

LITE = SHIPPED / "lite"
HIDDEN = FEATURE_SIZE - 2 * len(PHONES)
STATE = {
    "state.level": (1, 1),
    "state.hops": (1, 1),
    "state.samples": (1, 575),
    "state.tokens": (1, 3, 288),
    "state.keys": (1, 6, 8, 36, 100),
    "state.values": (1, 6, 8, 100, 36),
}


def voice(seconds: float, seed: int = 0, level: float = 0.05) -> np.ndarray:
    """Something voiced: a buzz with moving formants and pauses, in whole hops."""
    random = np.random.default_rng(seed)
    count = int(seconds * 16000) // HOP_SAMPLES * HOP_SAMPLES
    t = np.arange(count) / 16000
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * t + random.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    formant = 600 + 400 * np.sin(2 * np.pi * 2.1 * t + random.uniform(0, 6))
    out = sum(np.exp(-(((k * pitch - formant) / 500) ** 2)) * np.sin(k * phase) for k in range(1, 25))
    out = out * (0.55 + 0.45 * np.sin(2 * np.pi * 3.3 * t)) * (np.sin(2 * np.pi * 0.4 * t) > -0.6)
    out = out + random.normal(0, 0.003, count)
    return (out / np.sqrt((out**2).mean()) * level).astype(np.float32)


def run(encoder: SpeechEncoder, samples: np.ndarray) -> np.ndarray:
    """Features (T, 368) of frames 0..T-1."""
    state, rows = encoder.initial_state(), []
    for hop in np.concatenate([samples, np.zeros(HOP_SAMPLES, np.float32)]).reshape(-1, 1, HOP_SAMPLES):
        features, state = encoder(hop, state)
        rows.append(features[0])
    return np.concatenate(rows[1:])


@pytest.fixture(scope="module")
def shipped() -> SpeechEncoder:
    return SpeechEncoder(LITE)


@pytest.fixture(scope="module")
def tiny():
    torch = pytest.importorskip("torch", reason="needs torch")
    from ditto.lite.networks.speech_encoder import SpeechEncoder as Network
    from ditto.lite.networks.speech_encoder import SpeechEncoderConfig

    torch.manual_seed(0)
    return Network(SpeechEncoderConfig(width=16, heads=2, layers=2, hidden=24, rotary=6, left=8, head=12)).eval()


def test_any_number_of_hops_at_once_gives_the_same(tiny):
    torch = pytest.importorskip("torch", reason="needs torch")
    from ditto.lite.networks.speech_encoder import zero_state

    samples = torch.from_numpy(np.stack([voice(1.6, 1), voice(1.6, 2, 0.2)]))
    with torch.no_grad():
        whole, last = tiny(samples, zero_state(tiny.config, 2))
        state, rows, place = zero_state(tiny.config, 2), [], 0
        for hops in (1, 3, 1, 7, 2, 6):
            features, state = tiny(samples[:, place : place + hops * HOP_SAMPLES], state)
            place += hops * HOP_SAMPLES
            rows.append(features)
    assert place == samples.shape[1]
    # The same sums in another order, in float32.
    torch.testing.assert_close(torch.cat(rows, 1), whole, atol=1e-4, rtol=0)
    for kept, expected in zip(state, last, strict=True):
        torch.testing.assert_close(kept, expected, atol=1e-4, rtol=0)


def test_a_row_of_a_batch_is_as_if_alone(tiny):
    torch = pytest.importorskip("torch", reason="needs torch")
    from ditto.lite.networks.speech_encoder import zero_state

    loud, quiet = (torch.from_numpy(voice(0.8, seed, level))[None] for seed, level in ((1, 0.3), (2, 0.01)))
    with torch.no_grad():
        together, _ = tiny(torch.cat((loud, quiet)), zero_state(tiny.config, 2))
        alone, _ = tiny(quiet, zero_state(tiny.config))
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("streams", [1, 2, 3, 5])
def test_streams_that_go_together_get_what_they_get_alone(shipped, streams):
    voices = [voice(0.4, seed, level).reshape(-1, HOP_SAMPLES) for seed, level in enumerate((0.05, 0.3, 0.01, 0.1, 0.2))]
    alone = [run(shipped, hops.reshape(-1)) for hops in voices[:streams]]
    states, rows = [shipped.initial_state() for _ in range(streams)], []
    for k in range(len(voices[0]) + 1):
        hops = [(hops[k] if k < len(hops) else np.zeros(HOP_SAMPLES, np.float32)) for hops in voices[:streams]]
        found = shipped.step_batch(hops, states)
        rows.append([features for features, _ in found])
        states = [state for _, state in found]
    for stream in range(streams):
        assert np.array_equal(np.concatenate([row[stream] for row in rows[1:]]), alone[stream])
    assert all(value.shape == STATE[name] and value.base is None for name, value in states[-1].items() if streams > 1)


def test_streams_of_wrong_shapes_are_refused(shipped):
    hop, state = np.zeros(HOP_SAMPLES, np.float32), shipped.initial_state()
    assert shipped.step_batch([], []) == []
    with pytest.raises(ValueError, match="as many states"):
        shipped.step_batch([hop, hop], [state])
    with pytest.raises(ValueError, match=r"hops \(1280,\)"):
        shipped.step_batch([hop[:-1]], [state])
    with pytest.raises(ValueError, match="one row each"):
        shipped.step_batch([hop], [shipped.initial_state(2)])


def test_the_look_ahead_is_one_hop(tiny):
    torch = pytest.importorskip("torch", reason="needs torch")
    from ditto.lite.networks.speech_encoder import zero_state

    samples = torch.from_numpy(voice(0.8))[None]
    other = samples.clone()
    other[:, 5 * HOP_SAMPLES :] = 0.1 * torch.randn(1, samples.shape[1] - 5 * HOP_SAMPLES)
    with torch.no_grad():
        one, _ = tiny(samples, zero_state(tiny.config))
        two, _ = tiny(other, zero_state(tiny.config))
    same = (one == two).all(-1)[0]
    # Hops 0..4 are equal: calls 0..4 give the frames of the hop before, so nothing of hop 5 has reached them.
    assert same[: 2 * 5].all()
    assert not same[2 * 5 :].any()


def test_the_student_starts_as_its_teacher():
    torch = pytest.importorskip("torch", reason="needs torch")
    from ditto.lite.networks.speech_encoder import SpeechEncoder as Network
    from ditto.training.encoder import from_moonshine
    from ditto.training.speech_data import make_clip
    from ditto.training.teacher import HIDDEN as INNER
    from ditto.training.teacher import LAYERS, WIDTH, Teacher

    torch.manual_seed(0)
    shapes = {
        "conv1.weight": (WIDTH, 1, 127), "norm.weight": (WIDTH,), "norm.bias": (WIDTH,), "final.weight": (WIDTH,),
        "conv2.weight": (2 * WIDTH, WIDTH, 7), "conv2.bias": (2 * WIDTH,),
        "conv3.weight": (WIDTH, 2 * WIDTH, 3), "conv3.bias": (WIDTH,),
    }  # fmt: skip
    for i in range(LAYERS):
        p = f"layers.{i}."
        shapes |= {p + f"{n}.weight": (WIDTH, WIDTH) for n in "qkvo"}
        shapes |= {p + "norm1.weight": (WIDTH,), p + "norm2.weight": (WIDTH,)}
        shapes |= {p + "fc1.weight": (INNER, WIDTH), p + "fc1.bias": (INNER,)}
        shapes |= {p + "fc2.weight": (WIDTH, INNER), p + "fc2.bias": (WIDTH,)}
    weights = {name: torch.randn(shape) / (shape[-1] ** 0.5 if len(shape) > 1 else 1) for name, shape in shapes.items()}
    teacher, encoder = Teacher(weights, fifty=True), Network()
    samples = torch.from_numpy(voice(0.3))[None, : 575 + 7 * 320]
    with torch.no_grad():
        from_moonshine(encoder, weights, [make_clip("any", "test", voice(1.0))])
        # Seven tokens: the first block and its right context. The norm over the clip as a fixed scale:
        first = torch.tanh(encoder.stem.conv1(samples[:, None]))
        encoder.stem.scale.copy_(weights["norm.weight"] / (first.var(correction=0) + 1e-5).sqrt())
        encoder.stem.shift.copy_(weights["norm.bias"] - encoder.stem.scale * first.mean())
        tokens = encoder.stem(samples)
        # Random filters leave large sums of small numbers: float32 keeps three digits behind the norm.
        torch.testing.assert_close(tokens, teacher.stem(samples), atol=2e-3, rtol=1e-3)
        none = tokens.new_zeros(1, LAYERS, 0, WIDTH)
        hidden, _, _ = encoder.attend(tokens, none, none)
        torch.testing.assert_close(hidden, teacher(samples)[:, :4], atol=1e-2, rtol=1e-2)


def test_partial_hops_are_refused(tiny, shipped):
    torch = pytest.importorskip("torch", reason="needs torch")
    from ditto.lite.networks.speech_encoder import zero_state

    with pytest.raises(ValueError, match="whole hops of 1280 samples, got 1000"):
        tiny(torch.zeros(1, 1000), zero_state(tiny.config))
    with pytest.raises(ValueError, match=r"got \(1, 1000\)"):
        shipped(np.zeros((1, 1000), np.float32), shipped.initial_state())
    with pytest.raises(ValueError, match=r"got \(1280,\)"):
        shipped(np.zeros(1280, np.float32), shipped.initial_state())


def test_level_follows_speech_and_leaves_silence_alone():
    torch = pytest.importorskip("torch", reason="needs torch")
    from ditto.lite.networks.speech_encoder import FLOOR_DB, TARGET_DB, follow_level

    def after(samples: np.ndarray, level: float, hops: float) -> tuple[np.ndarray, float]:
        state, count = torch.full((1, 1), level), torch.full((1, 1), hops)
        out = []
        for hop in torch.from_numpy(samples)[None].split(HOP_SAMPLES, 1):
            levelled, state, count = follow_level(hop, state, count)
            out.append(levelled[0].numpy())
        return np.concatenate(out), float(state)

    for loudness in (0.4, 0.1, 0.02, 0.008):
        levelled, _ = after(voice(6, level=loudness), -26.0, 2.0)
        rms = 20 * np.log10(np.sqrt((levelled[32000:] ** 2).mean()))
        assert abs(rms - (TARGET_DB - 3)) < 5, loudness
    hiss = np.random.default_rng(0).normal(0, 5e-4, 60 * 16000).astype(np.float32)  # -66 dB
    levelled, level = after(hiss, -26.0, 50.0)
    assert level == -26.0
    assert np.sqrt((levelled**2).mean()) < 0.002
    _, level = after(np.random.default_rng(0).normal(0, 4e-3, 120 * 16000).astype(np.float32), -26.0, 50.0)
    assert level >= FLOOR_DB


def test_state_has_fixed_shapes(shipped):
    state = shipped.initial_state()
    assert {name: value.shape for name, value in state.items()} == STATE
    for _ in range(3):
        features, state = shipped(voice(0.08)[None], state)
        assert features.shape == (1, 2, FEATURE_SIZE)
        assert {name: value.shape for name, value in state.items()} == STATE
        assert all(value.dtype == np.float32 for value in state.values())


def test_streams_in_a_batch_do_not_mix(shipped):
    samples = np.stack([voice(0.08, 1), voice(0.08, 2)])
    together, _ = shipped(samples, shipped.initial_state(2))
    alone, _ = shipped(samples[1:], shipped.initial_state())
    np.testing.assert_allclose(together[1:], alone, atol=1e-4, rtol=0)


def test_same_samples_same_features_bit_for_bit(shipped):
    samples = voice(1.0)
    first = run(shipped, samples)
    assert (first == run(shipped, samples)).all()
    assert (first == run(SpeechEncoder(LITE), samples)).all()


def test_onnx_runtime_equals_torch(shipped):
    torch = pytest.importorskip("torch", reason="needs torch")
    from ditto.training.export_encoder import load_encoder

    encoder, state = load_encoder(LITE / "encoder.safetensors")
    samples = voice(4.0, 3)
    with torch.no_grad():
        padded = torch.from_numpy(np.concatenate([samples, np.zeros(HOP_SAMPLES, np.float32)]))[None]
        expected, _ = encoder(padded, state)
    np.testing.assert_allclose(run(shipped, samples), expected[0, 2:].numpy(), atol=1e-4, rtol=0)


def cache_of(state, heads):
    """Keys and values of a `SpeechEncoderState` as the exported form takes them: of each layer (B, heads, size, left), ..."""
    keys, values = ([t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in every.unbind(1)] for every in state[4:])
    return [*(t.transpose(2, 3).contiguous() for t in keys), *(t.contiguous() for t in values)]


def test_the_exported_form_gives_the_bits_of_the_network(tiny, tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch")
    pytest.importorskip("onnx", reason="needs onnx")
    from ditto.engines import open_engine
    from ditto.lite.networks.speech_encoder import SpeechEncoderState, zero_state
    from ditto.training.export_encoder import export_onnx

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = tiny

        def forward(self, samples, *state):
            return self.network(samples, SpeechEncoderState(*state))

    names, state = [f"s{i}" for i in range(6)], zero_state(tiny.config, 2)
    export_onnx(tiny, {}, tmp_path / "fast.onnx")
    torch.onnx.export(
        Plain(), (torch.zeros(2, HOP_SAMPLES), *state), str(tmp_path / "plain.onnx"), opset_version=17, dynamo=False,
        input_names=["samples", *names], output_names=["features", *(f"next_{name}" for name in names)],
        dynamic_axes={name: {0: "batch"} for name in ("samples", *names)},
    )  # fmt: skip
    plain, fast = (open_engine(tmp_path / f"{name}.onnx") for name in ("plain", "fast"))
    inputs = [tensor.name for tensor in fast.inputs]
    for samples in np.stack([voice(0.8, 1), voice(0.8, 2, 0.2)], 1).reshape(-1, HOP_SAMPLES, 2).transpose(0, 2, 1):
        hop = np.ascontiguousarray(samples)
        known = plain(samples=hop, **{name: value.numpy() for name, value in zip(names, state, strict=True)})
        given = [hop, *(value.numpy() for value in (*state[:4], *cache_of(state, tiny.config.heads)))]
        found = fast(**dict(zip(inputs, given, strict=True)))
        assert np.array_equal(found["features"], known["features"])
        state = SpeechEncoderState(*(torch.from_numpy(known[f"next_{name}"]) for name in names))
        for name, value in zip(SpeechEncoderState._fields[:4], state, strict=False):
            assert np.array_equal(found[f"next_state.{name}"], value.numpy())
        layers, cache = tiny.config.layers, cache_of(state, tiny.config.heads)
        for layer in range(layers):
            assert np.array_equal(found["new.keys"][:, layer], cache[layer][..., -4:].numpy())
            assert np.array_equal(found["new.values"][:, layer], cache[layers + layer][:, :, -4:].numpy())


def test_a_network_of_an_earlier_form_is_refused(tmp_path: Path):
    for name in ("encoder.safetensors", "motion.onnx"):
        (tmp_path / name.replace("motion", "encoder")).symlink_to(LITE / name)
    with pytest.raises(BundleError, match=r"expected a network with the inputs \['samples', 'state.hops', .*export it again"):
        SpeechEncoder(tmp_path)


def test_silence_is_heard_as_silence(shipped):
    random = np.random.default_rng(0)
    for samples in (np.zeros(5 * 16000), random.normal(0, 1e-4, 5 * 16000), random.normal(0, 1e-3, 5 * 16000)):
        heard = run(shipped, samples[: len(samples) // HOP_SAMPLES * HOP_SAMPLES].astype(np.float32))
        silence = heard[5:, [HIDDEN, HIDDEN + len(PHONES)]]
        assert silence.mean() > 0.8
        assert (silence > 0.5).mean() > 0.95


def test_features_are_probabilities_and_of_unit_size(shipped):
    heard = run(shipped, voice(3.0))
    phones = heard[:, HIDDEN:].reshape(-1, len(PHONES))
    np.testing.assert_allclose(phones.sum(1), 1, atol=1e-5)
    assert phones.min() >= 0
    assert np.isfinite(heard).all()
    assert 0.3 < heard[:, :HIDDEN].std() < 3


def test_quantised_weights_are_exact_in_half_precision():
    torch = pytest.importorskip("torch", reason="needs torch")
    pytest.importorskip("onnx", reason="needs onnx")
    from ditto.training.export_encoder import quantise

    torch.manual_seed(0)
    weight = torch.randn(32, 40) * torch.logspace(-3, 1, 32)[:, None]
    whole, scale = quantise(weight)
    value = whole.float() * scale[:, None]
    assert (value.half().float() == value).all()
    assert ((value - weight).abs().amax(1) <= weight.abs().amax(1) / 127).all()


def test_a_bundle_without_the_encoder_is_refused(tmp_path: Path):
    with pytest.raises(BundleError, match=r"encoder\.onnx is missing"):
        SpeechEncoder(tmp_path)


def test_a_viseme_wins_by_all_its_phones_together():
    pytest.importorskip("torch", reason="needs torch")
    from ditto.lite.phones import PHONE_INDEX
    from ditto.training.encoder import score

    row = np.zeros((3, len(PHONES)), np.float32)
    row[:, [PHONE_INDEX["P"], PHONE_INDEX["M"]]] = 0.3
    row[:, PHONE_INDEX["AA"]] = 0.4
    found = score([row], [np.array([PHONE_INDEX["B"], PHONE_INDEX["AA"], 0])])
    assert found.recall["PBM"] == 1.0
    assert found.recall["A"] == 0.0
    assert (found.everything, found.spoken) == (pytest.approx(1 / 3), 0.5)


def test_labels_lie_at_token_centres():
    pytest.importorskip("av", reason="needs av")
    from ditto.training.speech_data import label_tokens

    labels = label_tokens([(0.0, 0.03, "AA"), (0.03, 0.07, "B")], 5)
    assert [PHONES[i] for i in labels] == ["AA", "B", "B", "SIL", "SIL"]


def test_cropping_follows_the_speed():
    from ditto.training.speech_data import crop, make_clip

    ramp = make_clip("ramp", "test", np.linspace(0, 0.9, 32000, dtype=np.float32))
    samples, places, inside = crop(ramp, 20, 1.2, 3200.0)
    expected = np.interp(3200 + 1.2 * np.arange(20 * 320), np.arange(32000), ramp.waveform)
    np.testing.assert_allclose(samples, expected, atol=1e-4)
    np.testing.assert_allclose(places, 10 + 1.2 * (np.arange(20) + 0.5), atol=1e-4)
    assert inside.all()
    samples, _, inside = crop(ramp, 20, 1.0, -640.0)
    assert not samples[:640].any()
    assert list(inside[:3]) == [False, False, True]


def test_augmentation_repeats_with_its_seed():
    from ditto.training.speech_data import augment

    one, two = (augment(voice(1.0), np.random.default_rng(5)) for _ in range(2))
    assert (one == two).all()
    assert -38.5 < 20 * np.log10(np.sqrt((one**2).mean())) < -13.5


def test_held_out_grid_clips_are_never_trained_on():
    from ditto.training.speech_data import grid_train

    stems = [Path(f"clip{i:03}.npz") for i in range(40)]
    kept = grid_train(reversed(stems))
    assert len(kept) == 36
    assert not {stems[i] for i in (9, 19, 29, 39)} & set(kept)
