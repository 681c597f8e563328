"""The motion network in torch and in ONNX Runtime: one definition, two runtimes."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the network's definition needs torch (pip install ditto[train])")
pytest.importorskip("onnx", reason="export needs onnx (pip install ditto[train])")

from ditto.bundle import SHIPPED  # noqa: E402
from ditto.engines import open_engine  # noqa: E402
from ditto.lite.networks.motion_diffusion import (  # noqa: E402
    FEATURE_SIZE,
    MOTION_SIZE,
    WINDOW,
    MotionDiffusion,
    MotionDiffusionConfig,
    signal_level,
)
from ditto.lite.postprocess import PostprocessConfig  # noqa: E402
from ditto.lite.sampler import MotionNetwork, MotionSampler, fill, schedule  # noqa: E402
from ditto.training.motion_batches import Batch  # noqa: E402
from ditto.training.motion_export import example_arguments, read_weights, temperature, write  # noqa: E402
from ditto.training.motion_losses import loss_weights  # noqa: E402
from ditto.training.motion_short import BEYOND, LENGTH, PAST, cuts, distillation_terms, unheard  # noqa: E402

TINY = MotionDiffusionConfig(width=32, heads=2, condition_layers=1, layers=2, time_size=16)


def tiny(seed=0):
    torch.manual_seed(seed)
    model = MotionDiffusion(TINY)
    with torch.no_grad():  # the parts that start at zero would hide mistakes
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model.eval()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    write(tiny(), np.ones(MOTION_SIZE, np.float32), np.zeros(FEATURE_SIZE, np.float32), temperature(0.5), folder)
    return folder


def arrays_of(arguments):
    """Arguments of a half as its ONNX file names them."""
    return {name: tensor.numpy() for name, tensor in arguments.items()}


def compare(folder, model):
    """Largest difference of both halves between torch and ONNX Runtime."""
    worst = 0.0
    for arguments, module, name, output in zip(
        example_arguments(model.config),
        (model.condition, model.denoiser),
        ("motion_condition", "motion"),
        ("condition", "clean"),
        strict=True,
    ):
        with torch.no_grad():
            expected = module(**arguments).numpy()
        came = open_engine(folder / f"{name}.onnx")(**arrays_of(arguments))[output]
        worst = max(worst, float(np.abs(came - expected).max()))
        one = {k: v[:1, :30] if v.ndim == 3 else v[:1] for k, v in arguments.items()}  # a short window of one stream
        with torch.no_grad():
            expected = module(**one).numpy()
        came = open_engine(folder / f"{name}.onnx")(**arrays_of(one))[output]
        assert came.shape == expected.shape
        worst = max(worst, float(np.abs(came - expected).max()))
    return worst


def test_onnx_equals_torch(bundle):
    assert compare(bundle, read_weights(bundle / "motion.safetensors", TINY)) < 1e-4  # float32 on both sides


def test_the_shipped_network_equals_its_definition():
    folder = SHIPPED / "lite"
    assert compare(folder, read_weights(folder / "motion.safetensors", MotionDiffusionConfig())) < 1e-4


def test_the_shipped_short_condition_is_one_of_its_own():
    folder = SHIPPED / "lite"
    arguments, _ = example_arguments(MotionDiffusionConfig())
    cut = arrays_of({name: tensor[:, :40] if tensor.ndim == 3 else tensor for name, tensor in arguments.items()})
    full, short = (open_engine(folder / f"{n}.onnx")(**cut) for n in ("motion_condition", "motion_condition_short"))
    assert full["condition"].shape == short["condition"].shape == (2, 40, MotionDiffusionConfig().width)
    assert not np.allclose(full["condition"], short["condition"], atol=0.1)


def windows(frames, size=6):
    """Random windows of an easy world: motion follows speech."""
    torch.manual_seed(1)
    features = torch.randn(size, frames, FEATURE_SIZE)
    motion = features[..., :MOTION_SIZE] + torch.randn(size, frames, MOTION_SIZE)
    mask = torch.zeros(size, frames, 1)
    return Batch(motion, mask, mask, features, torch.zeros(size, frames, 8), torch.zeros(size, 8), torch.zeros(size, 63))


def test_what_is_not_heard_is_filled_as_the_sampler_fills_it():
    rows = torch.randn(3, 40, 5)
    filled = unheard(rows, torch.tensor([24, 40, 27]))
    for got, row, heard in zip(filled, rows, (24, 40, 27), strict=True):
        np.testing.assert_array_equal(got.numpy(), fill(row.numpy(), heard, 40))


def test_both_ends_of_a_window_are_cut():
    batch = windows(WINDOW)
    cut = cuts(batch)
    assert cut.motion.shape == (12, LENGTH, MOTION_SIZE) and cut.features.shape == (12, LENGTH + BEYOND, FEATURE_SIZE)
    assert torch.equal(cut.features[:6], batch.features[:, : LENGTH + BEYOND])
    assert torch.equal(cut.features[6:], batch.features[:, -LENGTH - BEYOND :])


def test_a_pupil_learns_to_do_without_the_future():
    model = tiny()
    pupil, cut = copy.deepcopy(model.condition), cuts(windows(WINDOW))
    heard, level = torch.full((12,), PAST + 2), torch.full((12, 1), 0.7)
    noise = torch.randn_like(cut.motion)
    optimizer = torch.optim.Adam(pupil.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        losses.append(distillation_terms(model, pupil, cut, heard, level, noise, torch.from_numpy(loss_weights())).total)
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1].item() < 0.8 * losses[0].item()


def test_the_exported_network_samples(bundle):
    sampler = MotionSampler(MotionNetwork.open(bundle, PostprocessConfig(0.078, 0.082, 1.5)), steps=2)
    x = np.random.default_rng(0).normal(size=(90, FEATURE_SIZE)).astype(np.float32)
    emotion = np.eye(8, dtype=np.float32)[4]
    state = sampler.initial_state(np.zeros((21, 3)), np.ones(2), 3)
    whole, _ = sampler(x, emotion, state, final=True)
    a, state = sampler(x[:61], emotion, state)
    b, _ = sampler(x[61:], emotion, state, final=True)
    assert whole.shape == (90, MOTION_SIZE)
    assert np.array_equal(np.concatenate([a, b]), whole)


def test_the_training_schedule_is_the_samplers():
    table = schedule(10)
    assert np.allclose(signal_level(torch.tensor(table[:, 0])).numpy(), table[:, 1], atol=1e-12)


def test_hidden_speech_does_not_matter():
    model = tiny()
    arguments, _ = example_arguments(TINY)
    arguments["speech_mask"] = torch.zeros(2, 1)
    with torch.no_grad():
        a = model.condition(**arguments)
        b = model.condition(**{**arguments, "features": arguments["features"] + 3.0})
    assert torch.equal(a, b)
