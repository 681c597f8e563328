"""Time of a rectified flow: timesteps, Euler steps, guidance, noise from a seed. V and RAP share it.

A noisy latent is `x_t = t * noise + (1 - t) * x_0` with t in [0, 1], so t = 1 is noise; the networks predict the velocity
`noise - x_0`.

Source: Liu et al., arXiv:2209.03003 (rectified flow); V (arXiv:2606.01620), sections on training and inference; RAP
(arXiv:2508.05115).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ditto.errors import InputError

MOST_STEPS = 1000  # more gain nothing, and each holds modulations: a damaged number must not fill the memory


def shifted(sigma: float, shift: float) -> float:
    """A noise level moved towards noise: `s sigma / (1 + (s - 1) sigma)`.

    Source: Esser et al., arXiv:2403.03206, eq. 23; as Wan 2.1 and Self-Forcing apply it.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def timesteps(steps: int, shift: float) -> tuple[float, ...]:
    """The `steps + 1` levels of a schedule, from 1 down to 0, evenly spaced before the shift.

    Raises:
        InputError: no step, more than `MOST_STEPS`, or a shift that is not above 0.
    """
    if not 1 <= steps <= MOST_STEPS or not (math.isfinite(shift) and shift > 0):
        raise InputError(f"expected 1 to {MOST_STEPS} steps and a shift above 0, got {steps} and {shift}; give other numbers")
    return tuple(shifted(1 - i / steps, shift) for i in range(steps + 1))


def noised(x0: Tensor, noise: Tensor, t: Tensor | float) -> Tensor:
    """The latent at level t, `t * noise + (1 - t) * x0`; t broadcasts."""
    return t * noise + (1 - t) * x0


def euler_step(x: Tensor, velocity: Tensor, t: float, t_next: float) -> Tensor:
    """The latent at level `t_next < t`, by a step along the velocity."""
    return x + (t_next - t) * velocity


@dataclass(frozen=True)
class Guidance:
    """How far one condition is followed, and at which noise levels.

    Attributes:
        scale: 1 follows the network; above 1 exaggerates what the condition changes (classifier-free guidance,
            arXiv:2207.12598). At 1 the branch without the condition is not computed.
        low, high: levels t between which, both included, the scale acts (limited interval, arXiv:2404.07724).

    Raises:
        InputError: a number that is not finite, or an interval outside of [0, 1].
    """

    scale: float = 1.0
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale) or not 0 <= self.low <= self.high <= 1:
            raise InputError(
                f"expected a finite scale and 0 <= low <= high <= 1, got {self.scale}, {self.low} and {self.high}; give others"
            )

    def active(self, t: float) -> bool:
        """Whether the branch without the condition is computed at this level."""
        return self.scale != 1.0 and self.low <= t <= self.high


def combine(conditional: Tensor, hidden: Sequence[Tensor], scales: Sequence[float], rescale: float = 0.0) -> Tensor:
    """The guided velocity: `f + sum_i (s_i - 1) (f - h_i)`.

    With one branch it is `h + s (f - h)` (RAP); with two it is V's
    `s_a (f - h_a) + s_r (f - h_r) - f + h_a + h_r`.

    Args:
        conditional: f, of all conditions, (B, ...).
        hidden: h_i, where condition i is hidden, each (B, ...).
        scales: s_i.
        rescale: 0 leaves the result as it is, 1 gives each sample the standard deviation of f (arXiv:2305.08891, eq. 15).
    """
    guided = conditional
    for branch, scale in zip(hidden, scales, strict=True):
        guided = guided + (scale - 1) * (conditional - branch)
    if rescale and hidden:
        axes = tuple(range(1, conditional.ndim))
        ratio = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True).clamp_min(1e-12)
        guided = guided * (1 + rescale * (ratio - 1))
    return guided


Branches = tuple[int, ...]


def guided_velocity(
    forward: Callable[[Branches], Tensor], guidances: Sequence[Guidance], t: float, rescale: float = 0.0
) -> Tensor:
    """The velocity under several guidances, from one batched forward pass of the branches that are active at level t.

    Args:
        forward: gives the velocities (branches, B, ...) of the branches it is asked for: branch 0 has all conditions, in
            branch i condition i - 1 is hidden.
        guidances: one for each condition.
    """
    active = [i for i, guidance in enumerate(guidances) if guidance.active(t)]
    velocities = forward((0, *(i + 1 for i in active)))
    return combine(velocities[0], list(velocities[1:]), [guidances[i].scale for i in active], rescale)


def seeded_noise(seed: int, place: int, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers (shape), float32 on the CPU: the same for the same seed and place (block or clip) anywhere.

    Args:
        seed: in [0, 2 ** 64).
        place: 0 or more.
    """
    mixed = int(np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)[0])
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(mixed))
