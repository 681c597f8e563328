"""The full-size networks against recorded outputs of the released ones, under weights that both can make."""

import gc

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the full-size networks need torch (pip install ditto[full])")

from fixtures.reference.recipe import Recorded, distance, manifest, noise, weights  # noqa: E402

from ditto.errors import BundleError  # noqa: E402
from ditto.full.networks.appearance import AppearanceExtractor  # noqa: E402
from ditto.full.networks.decoder import (  # noqa: E402
    DecoderConfig,
    SpadeDecoder,
    SpectralConv2d,
    fold_spectral_norm,
    load_decoder,
)
from ditto.full.networks.hubert import Hubert, HubertConfig  # noqa: E402
from ditto.full.networks.lmdm import LMDM, ddim_sample, ddim_schedule, signal_power  # noqa: E402
from ditto.full.networks.motion_extractor import MotionExtractor  # noqa: E402
from ditto.full.networks.stitching import (  # noqa: E402
    EYE_RETARGETING,
    LIP_RETARGETING,
    STITCHING,
    RetargetingNetwork,
    StitchingNetwork,
)
from ditto.full.networks.warping import WarpingNetwork  # noqa: E402
from ditto.full.networks.weights import load_state  # noqa: E402

FORWARD = 1e-4  # relative: float32 in another order of summation
SAMPLE = 1e-3  # the same through 10 steps
TINY_HUBERT = HubertConfig(
    channels=32, width=64, layers=2, heads=4, inner=128, position_kernel=16, position_groups=4
)  # fmt: skip
NETWORKS = {
    "stitching_network": lambda: StitchingNetwork(STITCHING),
    "retarget_eye": lambda: RetargetingNetwork(EYE_RETARGETING),
    "retarget_lip": lambda: RetargetingNetwork(LIP_RETARGETING),
    "appearance_feature_extractor": AppearanceExtractor,
    "motion_extractor": MotionExtractor,
    "lmdm": LMDM,
    "warping_network": WarpingNetwork,
    "spade_decoder": SpadeDecoder,
    "hubert_tiny": lambda: Hubert(TINY_HUBERT),
    "hubert_large_2layer": lambda: Hubert(HubertConfig(layers=2)),
    "hubert_large": Hubert,
}


def build(name):
    """The network under the recipe's weights, loaded strictly."""
    network = NETWORKS[name]()
    state = network.state_dict()
    given = {key: torch.from_numpy(value) for key, value in weights(name).items()}
    tables = {entry["name"]: state[entry["name"]] for entry in manifest(name) if entry["kind"] == "table"}
    network.load_state_dict(given | tables)
    return network.eval()


def tensor(tag, shape, **how):
    return torch.from_numpy(noise(tag, shape, **how))


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield
    gc.collect()


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_shapes_are_the_published_ones(name):
    with torch.device("meta"):
        state = NETWORKS[name]().state_dict()
    found = {key: (list(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in state.items()}
    assert found == {entry["name"]: (entry["shape"], entry["dtype"]) for entry in manifest(name)}


def test_stitching():
    recorded, network = Recorded("stitching_network"), build("stitching_network")
    for case in ("case0", "case1"):
        source, driving = (torch.from_numpy(recorded[f"{case}/kp_{side}"]) for side in ("source", "driving"))
        assert recorded.error(f"{case}/out", network(source, driving)) <= FORWARD


@pytest.mark.parametrize("name", ["retarget_eye", "retarget_lip"])
def test_retargeting(name):
    recorded = Recorded(name)
    assert recorded.error("out", build(name)(torch.from_numpy(recorded["x"]))) <= FORWARD


def test_appearance_extractor():
    name = "appearance_feature_extractor"
    recorded, network = Recorded(name), build(name)
    for case in ("case0", "case1"):
        image = tensor(f"{name}/image/{case}", (1, 3, 256, 256), uniform=True)
        assert recorded.error(f"{case}/f_s", network(image)) <= FORWARD


def test_motion_extractor():
    recorded, network = Recorded("motion_extractor"), build("motion_extractor")
    for case in ("case0", "case1"):
        motion = network(tensor(f"motion_extractor/image/{case}", (1, 3, 256, 256), uniform=True))
        errors = {key: distance(value, recorded[f"{case}/{key}"]) for key, value in motion._asdict().items()}
        assert len(errors) == 7
        assert max(errors.values()) <= FORWARD, errors


@pytest.fixture(scope="module")
def lmdm():
    return build("lmdm")


@pytest.fixture(scope="module")
def window():
    """Noisy motion, the frame before, conditions."""
    return (
        tensor("lmdm/x", (1, 80, 265)),
        tensor("lmdm/cond_frame", (1, 265), scale=0.5),
        tensor("lmdm/cond", (1, 80, 1103), scale=0.5),
    )


@pytest.mark.parametrize("time", [999, 499, 99, 0])
def test_lmdm_branches_and_guidance(lmdm, window, time):
    recorded = Recorded("lmdm")
    x, cond_frame, cond = window
    at = torch.tensor([time])
    condition = lmdm.encode(cond)
    guided = lmdm.guide(x, cond_frame, condition, at)
    power = signal_power(torch.float32)[time]
    found = {
        "uncond": lmdm.denoise(x, cond_frame, lmdm.null(1), at),
        "cond": lmdm(x, cond_frame, cond, at),
        "guided_x_start": guided,
        "pred_noise": (1 / (1 - power)).sqrt() * x - guided / (1 / power - 1).sqrt(),
    }
    errors = {key: recorded.error(f"t{time}/{key}", value) for key, value in found.items()}
    assert max(errors.values()) <= FORWARD, errors


def test_lmdm_inside(lmdm, window):
    found = {}

    def keep(name):
        return lambda module, given, out: found.__setitem__(name, out)

    hooks = [
        lmdm.input_projection.register_forward_hook(keep("input_projection")),
        lmdm.cond_encoder.register_forward_hook(keep("cond_encoder")),
        lmdm.time_mlp.register_forward_hook(keep("t_hidden")),
        lmdm.norm_cond.register_forward_hook(keep("memory")),
        lmdm.to_time_cond.register_forward_hook(keep("t")),
        lmdm.seqTransDecoder.stack[0].register_forward_hook(keep("layer0")),
    ]
    lmdm(*window, torch.tensor([499]))
    for hook in hooks:
        hook.remove()
    recorded = Recorded("lmdm")
    errors = {key: recorded.error(f"t499/inner/{key}", value) for key, value in found.items()}
    assert len(errors) == 6
    assert max(errors.values()) <= FORWARD, errors


def test_rotary_positions(lmdm):
    recorded = Recorded("lmdm")
    assert distance(lmdm.rotary.freqs, recorded["rotary/freqs"]) <= 1e-6
    turned = lmdm.rotary(tensor("lmdm/rotary_in", (1, 6, 512)))
    assert distance(turned, recorded["rotary/out_seq6"]) <= 1e-6


def test_float32_schedule_is_the_released_one():
    recorded = Recorded("lmdm")
    power = signal_power(torch.float32)
    assert distance(power, recorded["schedule/alphas_cumprod"]) <= 1e-6
    for steps in (1, 2, 3, 4, 5, 6, 7, 20, 25, 50, 100):
        pairs = [[step.time, step.next_time] for step in ddim_schedule(steps)]
        assert pairs == recorded[f"schedule/time_pairs_{steps}"].tolist()
    for steps in (8, 10):
        schedule = ddim_schedule(steps, torch.float32)[:-1]
        for key, expected in (("sigma", "sigma"), ("direction", "c"), ("signal", "alpha_next_sqrt")):
            found = np.array([getattr(step, key) for step in schedule])
            assert distance(found, recorded[f"ddim{steps}/{expected}"]) <= 1e-6


def test_float64_schedule_keeps_the_power():
    for steps in range(1, 60):
        for step in ddim_schedule(steps)[:-1]:
            assert step.signal**2 + step.direction**2 + step.sigma**2 == pytest.approx(1, abs=1e-12)


def test_schedule_refuses_steps_out_of_range():
    with pytest.raises(ValueError, match="1 to 1000 steps, got 0"):
        ddim_schedule(0)
    with pytest.raises(ValueError, match=r"finite numbers, got NaN for 5 steps in torch\.float32; use float64"):
        ddim_schedule(5, torch.float32)


@pytest.mark.parametrize("steps", [8, 10])
def test_ddim_sample(lmdm, window, steps):
    _, cond_frame, cond = window
    start = tensor(f"lmdm/ddim{steps}/x_init", (1, 80, 265))
    fresh = [tensor(f"lmdm/ddim{steps}/noise{i}", (1, 80, 265)) for i in range(steps - 1)]
    schedule = ddim_schedule(steps, torch.float32)
    found = ddim_sample(lmdm, cond_frame, cond, start, fresh, schedule)
    assert Recorded("lmdm").error(f"ddim{steps}/out", found) <= SAMPLE
    with pytest.raises(ValueError, match=f"expected {steps - 1} noises for {steps} steps"):
        ddim_sample(lmdm, cond_frame, cond, start, fresh[1:], schedule)


@pytest.mark.slow
def test_warping_network():
    name = "warping_network"
    recorded, network = Recorded(name), build(name)
    for case in ("case0", "case1"):
        volume = tensor(f"{name}/feature_3d/{case}", (1, 32, 16, 64, 64), scale=0.7)
        source = tensor(f"{name}/kp_source/{case}", (1, 21, 3), scale=0.3)
        driving = source + tensor(f"{name}/kp_delta/{case}", (1, 21, 3), scale=0.08)
        feature, motion = network(volume, source, driving)
        found = {"out": feature, **motion._asdict()}
        errors = {key: recorded.error(f"{case}/{key}", value) for key, value in found.items()}
        assert max(errors.values()) <= FORWARD, errors


@pytest.mark.slow
def test_decoder_folded():
    recorded = Recorded("spade_decoder")
    given = {key: torch.from_numpy(value) for key, value in weights("spade_decoder").items()}
    first = SpectralConv2d(512, 512, 3)
    stem = "G_middle_0.conv_0."
    first.load_state_dict({key.removeprefix(stem): value for key, value in given.items() if key.startswith(stem)})
    assert float(first.sigma()) == pytest.approx(float(recorded["sigma/G_middle_0.conv_0"]), rel=1e-6)

    network = load_decoder(given)
    assert not any(key.endswith(("_orig", "_u", "_v")) for key in network.state_dict())
    for case in ("case0", "case1"):
        image = network(tensor(f"spade_decoder/feature/{case}", (1, 256, 64, 64), scale=0.7))
        assert recorded.error(f"{case}/image", image) <= FORWARD


TINY_DECODER = DecoderConfig(inputs=16, width=32, outputs=8)


def test_a_decoder_file_without_a_key_is_refused():
    given = SpadeDecoder(TINY_DECODER).state_dict()
    del given["up_0.conv_0.weight_u"]
    with pytest.raises(BundleError, match=r"lacks up_0\.conv_0\.weight_u \(float32 \(16,\)\)"):
        load_state(SpadeDecoder(TINY_DECODER), given, "decoder.pth")


def test_folding_changes_nothing():
    torch.manual_seed(0)
    network = SpadeDecoder(TINY_DECODER).eval()
    feature = torch.randn(2, 16, 8, 8)
    before = network(feature)
    fold_spectral_norm(network)
    assert not any(isinstance(module, SpectralConv2d) for module in network.modules())
    assert torch.equal(network(feature), before)


def test_spectral_normalisation_is_that_of_torch():
    torch.manual_seed(0)
    expected = torch.nn.utils.spectral_norm(torch.nn.Conv2d(8, 12, 3, padding=1)).eval()
    found = SpectralConv2d(8, 12, 3)
    found.load_state_dict(expected.state_dict())
    x = torch.randn(1, 8, 10, 10)
    assert distance(found.folded()(x), expected(x)) <= 1e-6


@pytest.mark.parametrize("name", ["hubert_tiny", "hubert_large_2layer"])
def test_hubert(name):
    network = build(name)
    kept = {}
    for i, layer in enumerate([*network.encoder.layers, network.encoder.layer_norm]):
        layer.register_forward_pre_hook(lambda module, given, i=i: kept.__setitem__(f"hidden{i}_sub", given[0]))
    network.feature_extractor.register_forward_hook(
        lambda module, given, out: kept.__setitem__("conv_feats_sub", out)
    )  # fmt: skip
    recorded = Recorded(name)
    for samples in (6480, 3240, 16000):
        rows = network(tensor(f"hubert/wav{samples}", (1, samples), scale=0.1))
        found = {
            key: value.flatten()[:: 7 if key == "conv_feats_sub" else 13].numpy() for key, value in kept.items()
        } | {"last_hidden": rows.numpy()}  # fmt: skip
        errors = {key: distance(value, recorded[f"{samples}/{key}"]) for key, value in found.items()}
        assert len(errors) == 5
        assert max(errors.values()) <= FORWARD, errors
