"""The loss of motion: terms against values computed by hand, weights of the groups, weights that follow the losses."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch (pip install ditto[train])")

from ditto.motion.motion import LAYOUT_265, LIPS, MOTION_SIZE, PACKED_SIZE, Keypoint  # noqa: E402
from ditto.training.motion_losses import (  # noqa: E402
    GROUPS,
    AdaptiveWeights,
    denoising_terms,
    loss_weights,
    motion_groups,
)
from ditto.training.recipe import Recipe  # noqa: E402

PLAIN = Recipe(velocity=0.0, acceleration=0.0, initial=0.0, pose_smoothness=1.0)
ONES = torch.ones(MOTION_SIZE)
FREE = torch.ones(len(GROUPS))
LIP = 7 + 3 * Keypoint.LOWER_INNER_LIP + 1  # the place of the lower inner lip's height
YAW = 2


def terms(error, recipe=PLAIN, known=None, counts=None, weights=ONES, factors=FREE, motion=None):
    """Terms of one window whose guess is off by `error` (T, D)."""
    error = torch.as_tensor(error, dtype=torch.float32)[None]
    motion = torch.zeros_like(error) if motion is None else motion
    known = torch.zeros(1, error.shape[1], 1) if known is None else known
    counts = 1 - known if counts is None else counts
    return denoising_terms(motion + error, motion, known, counts, weights, factors, recipe)


def only(place, values):
    """(T, 70) errors that are 0 but at one number of the motion."""
    error = np.zeros((len(values), MOTION_SIZE))
    error[:, place] = values
    return error


def test_the_error_is_its_mean_square():
    found = terms(only(LIP, [1.0, 2.0, 0.0, 0.0]))
    assert found.total.item() == pytest.approx((1 + 4) / 4 / 70)
    assert found.x0.item() == pytest.approx((1 + 4) / 4 / 70)


def test_velocity_and_acceleration_are_those_of_the_error():
    values = [0.0, 1.0, 0.0, 3.0]  # differences 1 -1 3, of these -2 4
    found = terms(only(LIP, values), replace(PLAIN, velocity=0.5, acceleration=0.25))
    assert found.total.item() == pytest.approx(((1 + 9) + 0.5 * (1 + 1 + 9) + 0.25 * (4 + 16)) / 4 / 70)


def test_the_pose_is_held_smoother():
    recipe = replace(PLAIN, velocity=1.0, pose_smoothness=5.0)
    values = [0.0, 1.0]
    assert terms(only(YAW, values), recipe).total.item() == pytest.approx((1 + 5 * 1) / 2 / 70)
    assert terms(only(LIP, values), recipe).total.item() == pytest.approx((1 + 1) / 2 / 70)


def test_known_frames_cost_nothing_but_their_border_does():
    known = torch.tensor([[[1.0], [1.0], [0.0], [0.0]]])
    error = only(LIP, [7.0, 7.0, 2.0, 2.0])
    assert terms(error, known=known).total.item() == pytest.approx((4 + 4) / 4 / 70)
    found = terms(error, replace(PLAIN, velocity=1.0), known=known)
    assert found.total.item() == pytest.approx((4 + 4 + 4) / 4 / 70)  # from 0 at the last known frame to 2
    everything = terms(error, replace(PLAIN, velocity=1.0, acceleration=1.0, initial=1.0), known=torch.ones(1, 4, 1))
    assert everything.total.item() == 0.0


def test_the_initial_term_holds_the_first_frame_to_the_last_known_one():
    known = torch.tensor([[[1.0], [0.0], [0.0]]])
    motion = torch.zeros(1, 3, MOTION_SIZE)
    motion[0, :, LIP] = torch.tensor([5.0, 1.0, 0.0])
    error = only(LIP, [0.0, 1.0, 0.0])  # the guess of the first frame is 2: 3 below the known 5
    found = terms(error, replace(PLAIN, initial=0.5), known=known, motion=motion)
    assert found.total.item() == pytest.approx((1 + 0.5 * 9) / 3 / 70)


def test_frames_outside_of_the_clip_cost_nothing():
    counts = torch.tensor([[[1.0], [1.0], [0.0], [0.0]]])
    error = only(LIP, [1.0, 1.0, 9.0, 9.0])
    recipe = replace(PLAIN, velocity=1.0, acceleration=1.0)
    found = terms(error, recipe, known=torch.zeros(1, 4, 1), counts=counts)
    assert found.total.item() == pytest.approx(2 / 4 / 70)
    assert found.x0.item() == pytest.approx(1 / 70)  # over the frames that count


def test_weights_and_factors_multiply():
    weights = ONES.clone()
    weights[LIP] = 3.0
    factors = FREE.clone()
    factors[GROUPS.index("lips")] = 2.0
    found = terms(only(LIP, [1.0]), weights=weights, factors=factors)
    assert found.total.item() == pytest.approx(3 * 2 / 70)
    assert found.x0.item() == pytest.approx(3 / 70)  # the adaptive factors are left out
    lips = motion_groups() == GROUPS.index("lips")
    assert found.groups[GROUPS.index("lips")].item() == pytest.approx(3 / (lips.sum() + 2))
    assert found.groups.sum().item() == pytest.approx(found.groups[GROUPS.index("lips")].item())


def test_the_loss_of_a_batch_is_the_mean_of_its_halves():
    generator = torch.Generator().manual_seed(0)
    guess, motion = (torch.randn(4, 10, MOTION_SIZE, generator=generator) for _ in range(2))
    known = torch.zeros(4, 10, 1)
    known[0, :6] = known[1, :2] = 1.0
    recipe = replace(PLAIN, velocity=1.0, acceleration=1.0, initial=1.0)
    parts = [slice(0, 4), slice(0, 2), slice(2, 4)]
    whole, a, b = (
        denoising_terms(guess[p], motion[p], known[p], 1 - known[p], ONES, FREE, recipe).total.item() for p in parts
    )
    assert whole == pytest.approx((a + b) / 2, rel=1e-6)


def test_every_number_has_a_group_and_bins_have_their_angles():
    group, packed = motion_groups(), motion_groups(PACKED_SIZE)
    assert set(group) == set(range(len(GROUPS)))
    assert set(packed[: LAYOUT_265["t"].stop]) == {GROUPS.index("pose")}
    assert np.array_equal(packed[LAYOUT_265["exp"]], group[7:])
    for k in LIPS:
        assert set(group[7 + 3 * k : 10 + 3 * k]) == {GROUPS.index("lips")}


@pytest.mark.parametrize("size", [MOTION_SIZE, PACKED_SIZE])
def test_loss_weights_are_one_on_average_and_favour_the_lips(size):
    weights, group = loss_weights(size), motion_groups(size)
    assert weights.mean() == pytest.approx(1.0, abs=1e-5)
    share = [weights[group == g].sum() / weights.sum() for g in range(len(GROUPS))]
    assert np.argmax(share) == GROUPS.index("lips")
    assert share[0] == pytest.approx(loss_weights()[:7].sum() / loss_weights().sum(), abs=1e-5)


def test_factors_follow_the_losses_and_keep_the_mean_weight():
    adaptive = AdaptiveWeights.of(torch.from_numpy(loss_weights()))
    assert torch.equal(adaptive.factors, torch.ones(len(GROUPS)))
    adaptive.update(torch.tensor([4.0, 1.0, 1.0, 1.0, 0.25, 1.0]))
    factors = adaptive.factors
    assert (factors[0] / factors[1]).item() == pytest.approx(0.5)  # four times the loss, power 1/2
    assert (factors[4] / factors[1]).item() == pytest.approx(2.0)
    assert (adaptive.shares * factors).sum().item() == pytest.approx(1.0)
    adaptive.update(torch.zeros(len(GROUPS)))
    assert adaptive.means[0].item() == pytest.approx(0.98 * 4.0)
    adaptive.means = torch.tensor([1e9, 1.0, 1.0, 1.0, 1e-9, 1.0])
    assert adaptive.factors.max() / adaptive.factors.min() <= adaptive.limit**2 * (1 + 1e-5)


def fit(adapt):
    """Share of the lids' variance that a network with one hidden number leaves over, beside a pose of large noise.

    The hidden number can carry one of two inputs: a hundredth of the pose's variance follows the first, all of the small
    motion of the lids the second.
    """
    torch.manual_seed(0)
    group = torch.from_numpy(motion_groups())
    pose, lids = (group == GROUPS.index(name) for name in ("pose", "lids"))
    hidden, out = torch.nn.Linear(2, 1, bias=False), torch.nn.Linear(1, MOTION_SIZE, bias=False)
    optimizer = torch.optim.Adam([*hidden.parameters(), *out.parameters()], 0.01)
    adaptive = AdaptiveWeights.of(ONES)
    for _ in range(600):
        x = torch.randn(32, 8, 2)
        motion = torch.zeros(32, 8, MOTION_SIZE)
        motion[..., pose] = x[..., :1] + 10.0 * torch.randn(32, 8, 1)
        motion[..., lids] = 0.3 * x[..., 1:]
        known, factors = torch.zeros(32, 8, 1), adaptive.factors if adapt else FREE
        found = denoising_terms(out(hidden(x)), motion, known, 1 - known, ONES, factors, PLAIN)
        optimizer.zero_grad()
        found.total.backward()
        optimizer.step()
        adaptive.update(found.groups)
    return found.groups[GROUPS.index("lids")].item() / 0.3**2


def test_a_group_that_starves_is_fed():
    assert fit(adapt=False) > 0.7
    assert fit(adapt=True) < 0.3
