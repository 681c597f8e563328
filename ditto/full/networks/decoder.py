"""The decoder: a warped feature map to the face image, 512 x 512.

Published files hold the convolutions' weights before spectral normalisation. `load_decoder` divides each once by its
largest singular value; the convolutions are plain ones from then on.

B: batch, C: channels.

Source: LivePortrait (arXiv:2407.03168), section 3.1; SPADE (arXiv:1903.07291), section 3; spectral normalisation
(arXiv:1802.05957). Parameter names are those of the published file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditto.full.networks.upsampling import RepeatedConv2d
from ditto.full.networks.weights import load_state
from ditto.ops import neural
from ditto.ops.reference import neural as reference

SLOPE = 0.2  # of the leaky ReLUs, as published
HIDDEN = 128  # channels between the feature map and a norm's scale and shift, as published


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the network.

    Attributes:
        inputs: channels of the feature map; the first doubling leaves as many.
        width: channels of the blocks before the first doubling.
        outputs: channels behind the second doubling.
        upscale: the last enlargement, by moving channels into pixels.
    """

    inputs: int = 256
    width: int = 512
    outputs: int = 64
    upscale: int = 2


class SpectralConv2d(nn.Module):
    """A convolution whose weight is divided by its largest singular value, as published files hold it."""

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, bias: bool = True) -> None:
        super().__init__()
        self.padding = kernel // 2
        plain = nn.Conv2d(inputs, outputs, kernel, bias=bias)
        self.bias = plain.bias
        self.weight_orig = plain.weight
        self.register_buffer("weight_u", F.normalize(torch.randn(outputs), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(inputs * kernel * kernel), dim=0))

    def sigma(self) -> Tensor:
        """The largest singular value of the weight as a matrix (outputs, the rest), from the stored singular vectors."""
        return self.weight_u @ (self.weight_orig.flatten(1) @ self.weight_v)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, H, W) -> (B, outputs, H, W)."""
        return F.conv2d(x, self.weight_orig / self.sigma(), self.bias, padding=self.padding)

    def folded(self) -> nn.Conv2d:
        """The same as a plain convolution."""
        outputs, inputs, kernel, _ = self.weight_orig.shape
        plain: nn.Conv2d = nn.utils.skip_init(
            nn.Conv2d, inputs, outputs, kernel, padding=self.padding, bias=self.bias is not None,
            device=self.weight_orig.device, dtype=self.weight_orig.dtype,
        )  # fmt: skip
        with torch.no_grad():
            plain.weight.copy_(self.weight_orig / self.sigma())
            if plain.bias is not None and self.bias is not None:
                plain.bias.copy_(self.bias)
        return plain


def fold_spectral_norm(module: nn.Module) -> None:
    """Replace every `SpectralConv2d` inside `module` by a plain convolution, in place."""
    for name, child in module.named_children():
        if isinstance(child, SpectralConv2d):
            setattr(module, name, child.folded())
        else:
            fold_spectral_norm(child)


def fold_enlargement(decoder: SpadeDecoder) -> None:
    """Replace the convolutions over the enlarged feature map by ones over the map itself, in place; the same numbers."""
    for block, scale in ((decoder.up_0, 2), (decoder.up_1, 4)):
        for module in block.modules():
            if isinstance(module, Spade) and isinstance(module.mlp_shared[0], nn.Conv2d):
                module.mlp_shared[0] = RepeatedConv2d(module.mlp_shared[0], scale)


class Spade(nn.Module):
    """Instance norm with a scale and a shift for every pixel, computed from the feature map."""

    def __init__(self, channels: int, map_channels: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(map_channels, HIDDEN, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(HIDDEN, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(HIDDEN, channels, 3, padding=1)

    def forward(self, x: Tensor, feature: Tensor, slope: float = 1.0) -> Tensor:
        """x (B, C, H, W), feature (B, map_channels, h, w) -> (B, C, H, W), after a leaky ReLU of that slope."""
        if not isinstance(self.mlp_shared[0], RepeatedConv2d):
            feature = F.interpolate(feature, size=x.shape[2:])
        hidden = self.mlp_shared(feature)
        gamma, beta = self.mlp_gamma(hidden), self.mlp_beta(hidden)
        if neural.ready(x) and x.dtype == gamma.dtype == beta.dtype:
            return cast(Tensor, neural.spade(x, gamma, beta, slope))
        return reference.spade(x, gamma, beta, slope)


class SpadeBlock(nn.Module):
    """Two convolutions, SPADE and leaky ReLU before each, added to the input."""

    def __init__(self, inputs: int, outputs: int, map_channels: int) -> None:
        super().__init__()
        middle = min(inputs, outputs)
        self.conv_0 = SpectralConv2d(inputs, middle, 3)
        self.conv_1 = SpectralConv2d(middle, outputs, 3)
        self.norm_0 = Spade(inputs, map_channels)
        self.norm_1 = Spade(middle, map_channels)
        self.widens = inputs != outputs
        if self.widens:
            self.conv_s = SpectralConv2d(inputs, outputs, 1, bias=False)
            self.norm_s = Spade(inputs, map_channels)

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        """x (B, inputs, H, W), feature (B, map_channels, h, w) -> (B, outputs, H, W)."""
        y = self.conv_0(self.norm_0(x, feature, SLOPE))
        y = self.conv_1(self.norm_1(y, feature, SLOPE))
        if self.widens:
            x = self.conv_s(self.norm_s(x, feature))
        out: Tensor = x + y
        return out


class SpadeDecoder(nn.Module):
    """A feature map to an image."""

    def __init__(self, config: DecoderConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or DecoderConfig()
        self.fc = nn.Conv2d(c.inputs, c.width, 3, padding=1)
        self.G_middle_0 = SpadeBlock(c.width, c.width, c.inputs)
        self.G_middle_1 = SpadeBlock(c.width, c.width, c.inputs)
        self.G_middle_2 = SpadeBlock(c.width, c.width, c.inputs)
        self.G_middle_3 = SpadeBlock(c.width, c.width, c.inputs)
        self.G_middle_4 = SpadeBlock(c.width, c.width, c.inputs)
        self.G_middle_5 = SpadeBlock(c.width, c.width, c.inputs)
        self.up_0 = SpadeBlock(c.width, c.inputs, c.inputs)
        self.up_1 = SpadeBlock(c.inputs, c.outputs, c.inputs)
        self.conv_img = nn.Sequential(
            nn.Conv2d(c.outputs, 3 * c.upscale**2, 3, padding=1), nn.PixelShuffle(c.upscale)
        )  # fmt: skip

    def forward(self, feature: Tensor) -> Tensor:
        """feature (B, 256, 64, 64) -> RGB image (B, 3, 512, 512) in 0..1."""
        x = self.fc(feature)
        x = self.G_middle_0(x, feature)
        x = self.G_middle_1(x, feature)
        x = self.G_middle_2(x, feature)
        x = self.G_middle_3(x, feature)
        x = self.G_middle_4(x, feature)
        x = self.G_middle_5(x, feature)
        x = self.up_0(F.interpolate(x, scale_factor=2), feature)
        x = self.up_1(F.interpolate(x, scale_factor=2), feature)
        return torch.sigmoid(self.conv_img(F.leaky_relu(x, SLOPE)))


def load_decoder(weights: Mapping[str, Tensor]) -> SpadeDecoder:
    """A decoder from the entries of a published file, spectral normalisation folded, in evaluation mode.

    Raises:
        BundleError: an entry is missing, left over, or of another shape; the message names it.
    """
    decoder = SpadeDecoder()
    load_state(decoder, weights, "the decoder's file")
    fold_spectral_norm(decoder)
    decoder.eval()
    return decoder
