"""Muon: momentum, made orthogonal, for matrices and kernels of convolutions; Adam for vectors.

`torch.optim.Muon` takes matrices alone, and came with torch 2.9.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the iteration, Jordan
ITERATIONS = 5
ADAM = (0.9, 0.99)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix with singular values of about 1 (.7 to 1.2), of the same shape, by Newton-Schulz in bfloat16.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    found: Tensor = (x.T if tall else x).float()
    return found


class Muon(torch.optim.Optimizer):
    """Updates of about the size of Adam's: factor .2 sqrt(larger side) (Liu et al., arXiv:2502.16982, eq. 4).

    Args:
        parameters: of any shapes; those of two or more axes are matrices of their first axis and the rest.
        lr: learning rate of all.
        weight_decay: of matrices, decoupled.
        momentum: Nesterov's.
    """

    def __init__(
        self, parameters: Iterable[Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(list(parameters), {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if parameter.ndim < 2:
                    _adam(parameter, state, group["lr"])
                    continue
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].mul_(group["momentum"]).add_(parameter.grad)
                update = parameter.grad.add(state["momentum"], alpha=group["momentum"]).flatten(1)
                turned = orthogonal(update).view(parameter.shape) * (0.2 * max(update.shape) ** 0.5)
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(turned, alpha=group["lr"])


def _adam(parameter: Tensor, state: dict[str, Any], rate: float) -> None:
    """Kingma and Ba, arXiv:1412.6980, algorithm 1."""
    if not state:
        state.update(mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter), steps=0)
    assert parameter.grad is not None
    state["steps"] += 1
    state["mean"].lerp_(parameter.grad, 1 - ADAM[0])
    state["square"].lerp_(parameter.grad.square(), 1 - ADAM[1])
    mean = state["mean"] / (1 - ADAM[0] ** state["steps"])
    root = (state["square"] / (1 - ADAM[1] ** state["steps"])).sqrt()
    parameter.sub_(mean / (root + 1e-8), alpha=rate)
