"""What an error of motion costs: terms of the loss, weights of its numbers, and weights that follow the groups' losses.

B: batch; T: frames; D: numbers of a frame of motion, 70 or 265; G: groups of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ditto.motion.motion import (
    BINS,
    BROWS,
    DEGREES,
    EXPRESSION,
    IRISES,
    KEYPOINTS,
    LIPS,
    MOTION_SIZE,
    UPPER_LIDS,
    Keypoint,
)
from ditto.training.recipe import Recipe

Array = npt.NDArray[np.float32]

GROUPS = ("pose", "lips", "lids", "gaze", "brows", "rest")
_KEYPOINTS_OF = {
    "lips": LIPS,
    "lids": (*UPPER_LIDS, Keypoint.LOWER_LIDS),
    "gaze": IRISES,
    "brows": (*BROWS, Keypoint.FOREHEAD, Keypoint.GLABELLA),
}


def motion_groups(size: int = MOTION_SIZE) -> npt.NDArray[np.int64]:
    """(D,) the place in `GROUPS` of each number of a motion."""
    group = np.full(MOTION_SIZE, GROUPS.index("pose"))
    faces = np.full((KEYPOINTS, 3), GROUPS.index("rest"))
    for name, members in _KEYPOINTS_OF.items():
        faces[list(members)] = GROUPS.index(name)
    group[EXPRESSION] = faces.reshape(-1)
    return np.repeat(group, _numbers(size))


def loss_weights(size: int = MOTION_SIZE) -> Array:
    """(D,) what an error costs, one on average: lips and lids most. The 66 bins of an angle share the angle's weight."""
    w = np.ones(MOTION_SIZE)
    w[DEGREES] = 2.0
    e = w[EXPRESSION].reshape(KEYPOINTS, 3)
    for k in LIPS:
        e[k] = 3.0
    e[Keypoint.LOWER_INNER_LIP, 1] = 8.0
    e[[Keypoint.UPPER_INNER_LIP, Keypoint.CHIN], 1] = 4.0
    for k in UPPER_LIDS:
        e[k, 1] = 5.0
    for k in IRISES:
        e[k, :2] = 2.0
    e[Keypoint.NECK] = 0.2
    if size != MOTION_SIZE:
        w[DEGREES] /= BINS
    spread = np.repeat(w, _numbers(size))
    return np.asarray(spread / spread.mean(), np.float32)


def _numbers(size: int) -> npt.NDArray[np.int64]:
    """(70,) how many of `size` numbers each of the 70 has: an angle has its bins among 265."""
    counts = np.ones(MOTION_SIZE, np.int64)
    if size != MOTION_SIZE:
        counts[DEGREES] = BINS
    return counts


class Terms(NamedTuple):
    """The loss of a batch.

    Attributes:
        total: (), what is minimised.
        x0: (), weighted square error of the motion over all numbers and counted frames, without the adaptive weights.
        groups: (G,) the same of each group.
        windows: (B,) the total of each window.
    """

    total: Tensor
    x0: Tensor
    groups: Tensor
    windows: Tensor


def denoising_terms(
    guess: Tensor,
    motion: Tensor,
    known: Tensor,
    counts: Tensor,
    weights: Tensor,
    factors: Tensor,
    recipe: Recipe,
) -> Terms:
    """Error of the motion, of its velocity, acceleration and first frame.

    `L = sum_d w_d f_g(d) (x0_d + v c_d velocity_d + a c_d acceleration_d + i initial_d) / D`, each a mean of squares over
    the window's T frames, then over the windows; c is `pose_smoothness` for the pose and one elsewhere. Frames that do not
    count add nothing; every window is divided by the same T, so that two halves of a batch give the mean of their losses.

    Known frames have no error, and differences across their border count: with known frames, the velocity term holds the
    first sampled frame to the last known one. The initial term of the paper is the square distance between these two.

    Args:
        guess, motion: (B, T, D), the network's units.
        known, counts: (B, T, 1).
        weights: (D,) of the numbers.
        factors: (G,) of the groups.
        recipe: weights of the terms.

    Source: Ditto (arXiv:2411.19509), section 3.2.
    """
    size, frames = motion.shape[2], motion.shape[1]
    group = torch.as_tensor(motion_groups(size), device=motion.device)
    error = (guess - motion) * (1 - known)
    square = (error**2 * counts).sum(1) / frames  # (B, D)
    inside = (counts + known).clamp(max=1.0)
    pairs = inside[:, 1:] * inside[:, :-1]
    triples = pairs[:, 1:] * pairs[:, :-1]
    speed = error.diff(dim=1)
    velocity = (speed**2 * pairs).sum(1) / frames
    acceleration = (speed.diff(dim=1) ** 2 * triples).sum(1) / frames
    smooth = torch.where(group == GROUPS.index("pose"), recipe.pose_smoothness, 1.0)
    cost = square + smooth * (recipe.velocity * velocity + recipe.acceleration * acceleration)
    if recipe.initial:
        border = known[:, :-1] * counts[:, 1:]
        step = guess[:, 1:] - motion[:, :-1]
        cost = cost + recipe.initial * (step**2 * border).sum(1) / frames
    windows = (cost * weights * factors[group]).mean(1)
    with torch.no_grad():
        counted = counts.mean().clamp(min=1e-6)
        each = square.mean(0) / counted  # (D,)
        totals = torch.zeros(len(GROUPS), device=motion.device).index_add(0, group, each * weights)
        shares = torch.zeros(len(GROUPS), device=motion.device).index_add(0, group, weights)
    return Terms(windows.mean(), totals.sum() / size, totals / shares, windows.detach())


@dataclass
class AdaptiveWeights:
    """Factors on the loss weights of the motion groups that follow the groups' losses.

    Each group's factor is the running mean of its loss to the power of minus `power`. So a group whose motion is small is
    not drowned by one whose errors are large and stay large, as those of the head pose, most of which no speech can tell.
    At power 1 every group's part in the loss is its part in the weights, whatever its errors: minimising then minimises
    `sum_g w_g log(loss_g)`; at 1/2, `sum_g w_g sqrt(loss_g)`.

    Source: adaptive weights of the groups, Ditto (arXiv:2411.19509), section 3.2. The rule at power 1 is that of Kendall et
    al. 2018 (arXiv:1705.07115), section 3.2, with each sigma^2 at its optimum, the loss, where they learn it; power 1/2
    keeps groups that are nearly learnt, as the lids, from taking most of the weight.

    Attributes:
        shares: (G,) part of each group in the loss weights; sums to one.
        means: (G,) running mean of the groups' losses; zero before the first update.
        keep: what the running mean keeps of itself at an update.
        power: how far the factors follow the losses; 0: not at all.
        limit: largest factor before normalising, against the mean group, and the inverse of the smallest.
    """

    shares: Tensor
    means: Tensor
    keep: float = 0.98
    power: float = 0.5
    limit: float = 10.0

    @classmethod
    def of(cls, weights: Tensor) -> AdaptiveWeights:
        """For loss weights (D,)."""
        group = torch.as_tensor(motion_groups(len(weights)))
        shares = torch.zeros(len(GROUPS)).index_add(0, group, weights.detach().cpu()) / weights.sum().cpu()
        return cls(shares, torch.zeros(len(GROUPS)))

    def update(self, losses: Tensor) -> None:
        """Take the groups' losses (G,) of an update."""
        first = not bool(self.means.any())
        self.means = losses.clone() if first else self.keep * self.means + (1 - self.keep) * losses

    @property
    def factors(self) -> Tensor:
        """(G,), whose mean over the loss weights is one."""
        if not bool(self.means.any()):
            return torch.ones_like(self.means)
        typical = (self.shares * self.means).sum()
        factors = ((typical / self.means.clamp(min=1e-12)) ** self.power).clamp(1 / self.limit, self.limit)
        return factors / (self.shares * factors).sum()
