"""Ditto's motion as one more condition of a latent generator: gaze, pose and emotion control over latent video.

No paper has it; V (arXiv:2606.01620, limitations) suggests motion signals during latent denoising.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ditto.errors import InputError
from ditto.latent.audio import LatentEmbedder
from ditto.latent.config import GeneratorConfig


class MotionCondition(nn.Module):
    """What the motion of a latent's frames adds to the latent's tokens after the network's input layer.

    The last layer begins at zero and has no bias, and a hidden motion adds nothing: the base model's bits, before and after
    training.

    Args:
        features: numbers of a frame of motion, 70 or 265.
        frames: video frames of a latent.
        inner: numbers of a latent's motion.
        width: of the tokens.
    """

    def __init__(self, features: int, frames: int, inner: int, width: int) -> None:
        super().__init__()
        self.embedder = LatentEmbedder(features, frames, inner)
        self.output = nn.Linear(inner, width, bias=False)
        nn.init.zeros_(self.output.weight)

    @classmethod
    def of(cls, config: GeneratorConfig) -> MotionCondition | None:
        """The condition of a generator of these sizes; None for one without."""
        if not config.motion_features:
            return None
        return cls(config.motion_features, config.frames_per_latent, config.motion_width, config.width)

    def forward(self, motion: Tensor, first: Tensor, hidden: Tensor) -> Tensor:
        """What is added to the tokens of each latent, (B, T, 1, width).

        Args:
            motion: (B, T * frames, features), as the rows of `LatentEmbedder`.
            first: (B,) bool, whether latent 0 is the video's first.
            hidden: (B,) bool, where nothing is added.
        """
        added: Tensor = self.output(self.embedder(motion, first))
        return torch.where(hidden[:, None, None], torch.zeros_like(added), added)[:, :, None]


def added_motion(
    condition: MotionCondition | None, motion: Tensor | None, first: Tensor, hidden: Tensor
) -> Tensor | None:
    """What motion adds to the tokens of a generator with this condition, as `MotionCondition`; None without motion.

    Raises:
        InputError: motion, for a generator without a condition on it.
    """
    if motion is None:
        return None
    if condition is None:
        raise InputError("expected no motion for a generator without a motion condition, got some; leave it out")
    added: Tensor = condition(motion, first, hidden)
    return added
