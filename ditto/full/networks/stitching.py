"""Stitching and retargeting: small perceptrons that move the driving keypoints.

Stitching keeps the shoulders where the source has them, so that the face can be pasted back without a seam; retargeting
opens eyes or lips by a wanted amount.

B: batch, K: keypoints.

Source: LivePortrait (arXiv:2407.03168), section 3.3. Parameter names are those of the published files.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PerceptronConfig:
    """Sizes of a perceptron with ReLU between its layers.

    Attributes:
        inputs: numbers that come in.
        hidden: widths of the layers between.
        outputs: numbers that come out.
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int


KEYPOINTS = 21
STITCHING = PerceptronConfig(2 * 3 * KEYPOINTS, (128, 128, 64), 3 * KEYPOINTS + 2)
EYE_RETARGETING = PerceptronConfig(3 * KEYPOINTS + 3, (256, 256, 128, 128, 64), 3 * KEYPOINTS)
LIP_RETARGETING = PerceptronConfig(3 * KEYPOINTS + 2, (128, 128, 64), 3 * KEYPOINTS)


def perceptron(config: PerceptronConfig) -> nn.Sequential:
    """Linear layers of the given widths with ReLU between them."""
    widths = (config.inputs, *config.hidden, config.outputs)
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class StitchingNetwork(nn.Module):
    """Driving keypoints moved so that the head sits on the source's shoulders."""

    def __init__(self, config: PerceptronConfig = STITCHING) -> None:
        super().__init__()
        self.config = config
        self.mlp = perceptron(config)

    def forward(self, kp_source: Tensor, kp_driving: Tensor) -> Tensor:
        """kp_source (B, K, 3), kp_driving (B, K, 3), both posed and scaled, model units -> (B, K, 3).

        Each keypoint gets an offset of its own, and all of them one shift in x and y.
        """
        moved = self.mlp(torch.cat((kp_source.flatten(1), kp_driving.flatten(1)), 1))
        offset = moved[:, :-2].unflatten(1, (-1, 3))
        shift = nn.functional.pad(moved[:, None, -2:], (0, 1))  # (B, 1, 3), nothing along z
        return kp_driving + offset + shift


class RetargetingNetwork(nn.Module):
    """Keypoint offsets that bring eyes or lips to a wanted opening."""

    def __init__(self, config: PerceptronConfig) -> None:
        super().__init__()
        self.config = config
        self.mlp = perceptron(config)

    def forward(self, x: Tensor) -> Tensor:
        """Source keypoints, its openings and the wanted one (B, inputs) -> offsets of the driving keypoints (B, 63).

        Eyes: 63 coordinates, the two eyes' openings, the wanted one. Lips: 63, the opening, the wanted one.
        """
        out: Tensor = self.mlp(x)
        return out
