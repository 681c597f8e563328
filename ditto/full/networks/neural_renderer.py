"""Warping and decoding as one network: the feature map between the two stays on the device.

B: batch.

Source: LivePortrait (arXiv:2407.03168), section 3.1.
"""

from __future__ import annotations

from torch import Tensor, nn

from ditto.full.networks.decoder import SpadeDecoder, fold_enlargement
from ditto.full.networks.warping import WarpingNetwork


class NeuralRenderer(nn.Module):
    """Warps a feature volume to the driving keypoints and decodes it to an image.

    Args:
        warping: used as it is.
        decoder: modified: `fold_enlargement` makes it an eighth faster on a CPU (docs/engines.md).
    """

    def __init__(self, warping: WarpingNetwork, decoder: SpadeDecoder) -> None:
        super().__init__()
        fold_enlargement(decoder)
        self.warping = warping
        self.decoder = decoder

    def forward(self, feature_3d: Tensor, kp_source: Tensor, kp_driving: Tensor) -> Tensor:
        """feature_3d (B, 32, 16, 64, 64), keypoints (B, 21, 3), model units -> RGB image (B, 3, 512, 512) in 0..1."""
        image: Tensor = self.decoder(self.warping(feature_3d, kp_source, kp_driving).feature)
        return image
