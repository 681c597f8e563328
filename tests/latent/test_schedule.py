"""Timesteps, Euler steps and guidance of the latent systems."""

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from ditto.errors import InputError  # noqa: E402
from ditto.latent.config import FLOW_TINY, RAP_TINY, FlowConfig, RapConfig, from_json, to_json  # noqa: E402
from ditto.latent.schedule import (  # noqa: E402
    Guidance,
    combine,
    euler_step,
    guided_velocity,
    noised,
    seeded_noise,
    timesteps,
)

V_TIMES = (1, 0.9821, 0.9615, 0.9375, 0.9091, 0.875, 0.8333, 0.7813, 0.7143, 0.625, 0.5, 0.3125, 0)


def test_the_schedule_of_v():
    assert timesteps(12, 5.0) == pytest.approx(V_TIMES, abs=6e-5)
    assert sum(t > 0.7 for t in timesteps(12, 5.0)) == 9
    assert timesteps(4, 1.0) == (1, 0.75, 0.5, 0.25, 0)


@pytest.mark.parametrize("arguments", [(0, 5.0), (1001, 5.0), (4, 0.0), (4, float("nan"))])
def test_schedules_that_make_no_sense_are_refused(arguments):
    with pytest.raises(InputError, match="expected 1 to 1000 steps"):
        timesteps(*arguments)


def test_the_true_velocity_leads_from_noise_to_the_latent():
    x0, noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), seeded_noise(1, 0, (2, 3, 4))
    times = timesteps(7, 3.0)
    x = noised(x0, noise, times[0])
    for t, after in pairwise(times):
        x = euler_step(x, noise - x0, t, after)
        assert torch.allclose(x, noised(x0, noise, after), atol=1e-5)
    assert torch.allclose(x, x0, atol=1e-5)


def test_guidance_of_two_conditions_is_v_s_formula():
    full, no_audio, no_reference = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(combine(full, [no_audio, no_reference], [1, 1]), full)
    both = combine(full, [no_audio, no_reference], [2, 2])
    assert torch.allclose(both, 3 * full - no_audio - no_reference, atol=1e-6)
    mixed = combine(full, [no_audio, no_reference], [3, 1.5])
    expected = 3 * (full - no_audio) + 1.5 * (full - no_reference) - full + no_audio + no_reference
    assert torch.allclose(mixed, expected, atol=1e-5)
    assert torch.allclose(combine(full, [no_audio], [5]), no_audio + 5 * (full - no_audio), atol=1e-5)  # RAP


def test_rescaling_keeps_the_spread_of_the_conditional_velocity():
    full, other = torch.randn(2, 3, 400, generator=torch.Generator().manual_seed(0))
    guided, kept = combine(full, [other], [4]), combine(full, [other], [4], rescale=1.0)
    assert (guided.std(1) > 3 * full.std(1)).all()
    assert torch.allclose(kept.std(1), full.std(1), rtol=1e-5)


def test_only_active_branches_are_computed_in_one_batch():
    asked = []

    def forward(branches):
        asked.append(branches)
        return torch.tensor([[float(b)] for b in branches])

    guidances = [Guidance(2.0, 0.3, 0.9), Guidance(1.0), Guidance(3.0)]
    assert guided_velocity(forward, guidances, 0.5).item() == 0 + (2 - 1) * (0 - 1) + (3 - 1) * (0 - 3)
    assert guided_velocity(forward, guidances, 0.95).item() == (3 - 1) * (0 - 3)
    assert asked == [(0, 1, 3), (0, 3)]


@pytest.mark.parametrize("numbers", [{"scale": float("inf")}, {"low": 0.6, "high": 0.5}, {"high": 1.1}])
def test_guidance_outside_of_its_range_is_refused(numbers):
    with pytest.raises(InputError, match="expected a finite scale"):
        Guidance(**numbers)


def test_noise_follows_seed_and_place():
    one = seeded_noise(2**64 - 1, 3, (4, 5))
    assert torch.equal(one, seeded_noise(2**64 - 1, 3, (4, 5)))
    assert not torch.equal(one, seeded_noise(2**64 - 1, 4, (4, 5)))
    assert not torch.equal(one, seeded_noise(0, 3, (4, 5)))


@pytest.mark.parametrize("config", [FLOW_TINY, RAP_TINY], ids=["flow", "rap"])
def test_configs_come_back_from_json(config):
    import json

    assert from_json(type(config), json.loads(json.dumps(to_json(config)))) == config
    with pytest.raises(InputError, match="missing or unknown colour"):
        from_json(type(config), {**to_json(config), "colour": 1})
    with pytest.raises(InputError, match=r"expected width of a .* as int, got 'wide'"):
        from_json(type(config), {**to_json(config), "width": "wide"})
    with pytest.raises(InputError, match="expected the numbers"):
        from_json(type(config), [1, 2])


@pytest.mark.parametrize(
    ("kind", "numbers", "message"),
    [
        (FlowConfig, {"window": 30}, "whole blocks of 4, got 30"),
        (FlowConfig, {"heads": 7}, "expected heads"),
        (FlowConfig, {"patch": 3}, "patches of 3 divide, got 8 x 8"),
        (FlowConfig, {"motion_features": 5}, "expected motion_features of 0, 70 or 265, got 5"),
        (FlowConfig, {"layers": 0}, "expected layers of 1 or more, got 0"),
        (RapConfig, {"lengths": (2, 11)}, "expected rising lengths from 3"),
        (RapConfig, {"lengths": (5, 3)}, "expected rising lengths"),
        (RapConfig, {"lengths": (3, 17)}, "expected rising lengths"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(kind, numbers, message):
    with pytest.raises(InputError, match=message):
        kind(**numbers)
