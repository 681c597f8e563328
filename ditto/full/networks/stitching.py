"""Stitching and retargeting: small perceptrons that move the driving keypoints.

Stitching keeps the shoulders where the source has them, so that no edge shows where the face is pasted back. Retargeting
opens eyes or lips to a target amount.

B: batch, K: keypoints.

Source: LivePortrait (arXiv:2407.03168), section 3.3. Parameter names are those of the published files.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from ditto.full.sizes import EXPRESSION_SIZE


@dataclass(frozen=True)
class PerceptronConfig:
    """Sizes of a perceptron with ReLU between its layers.

    Attributes:
        inputs: width of the input.
        hidden: widths of the hidden layers.
        outputs: width of the output.
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int


# As published. `EXPRESSION_SIZE`: the coordinates of all keypoints.
STITCHING = PerceptronConfig(2 * EXPRESSION_SIZE, (128, 128, 64), EXPRESSION_SIZE + 2)
EYE_RETARGETING = PerceptronConfig(EXPRESSION_SIZE + 3, (256, 256, 128, 128, 64), EXPRESSION_SIZE)
LIP_RETARGETING = PerceptronConfig(EXPRESSION_SIZE + 2, (128, 128, 64), EXPRESSION_SIZE)


def perceptron(config: PerceptronConfig) -> nn.Sequential:
    """Linear layers of the given widths with ReLU between them."""
    widths = (config.inputs, *config.hidden, config.outputs)
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class StitchingNetwork(nn.Module):
    """Moves the driving keypoints so that the head sits on the source's shoulders."""

    def __init__(self, config: PerceptronConfig = STITCHING) -> None:
        super().__init__()
        self.config = config
        self.mlp = perceptron(config)

    def forward(self, kp_source: Tensor, kp_driving: Tensor) -> Tensor:
        """kp_source (B, K, 3), kp_driving (B, K, 3), both posed and scaled, model units -> (B, K, 3).

        Each keypoint gets an offset of its own; all of them get one shift in x and y.
        """
        moved = self.mlp(torch.cat((kp_source.flatten(1), kp_driving.flatten(1)), 1))
        offset = moved[:, :-2].unflatten(1, (-1, 3))
        shift = nn.functional.pad(moved[:, None, -2:], (0, 1))  # (B, 1, 3), z stays
        out: Tensor = kp_driving + offset + shift
        return out


class RetargetingNetwork(nn.Module):
    """Keypoint offsets that bring eyes or lips to a target opening."""

    def __init__(self, config: PerceptronConfig) -> None:
        super().__init__()
        self.config = config
        self.mlp = perceptron(config)

    def forward(self, x: Tensor) -> Tensor:
        """Source keypoints, openings and target opening (B, inputs) -> offsets of the driving keypoints (B, 63).

        Eyes: 63 coordinates, openings of the two eyes, target opening. Lips: 63 coordinates, opening, target opening.
        """
        out: Tensor = self.mlp(x)
        return out
