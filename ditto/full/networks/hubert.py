"""HuBERT: 16 kHz speech to 50 feature rows a second, a whole sequence at once.

B: batch, N: samples, T: rows, D: width.

Source: HuBERT (arXiv:2106.07447), the large layout (norms in front: "stable" layer norm, a norm behind every
convolution); positional convolution: wav2vec 2.0 (arXiv:2006.11477), section 2. Parameter names are those of Hugging
Face's HubertModel, without the prefix "hubert.".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ditto.full.sizes import KERNELS, SPEECH_SIZE, STRIDES


@dataclass(frozen=True)
class HubertConfig:
    """Sizes of the network; the defaults are HuBERT large.

    Attributes:
        channels: channels of the convolutions over the samples.
        width: D.
        layers: transformer layers.
        heads: attention heads.
        inner: width of the feed-forward parts.
        position_kernel: rows that the positional convolution spans.
        position_groups: groups of that convolution.
    """

    channels: int = 512
    width: int = SPEECH_SIZE
    layers: int = 24
    heads: int = 16
    inner: int = 4096
    position_kernel: int = 128
    position_groups: int = 16


class ConvLayer(nn.Module):
    """A strided convolution, a norm over its channels, GELU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride)
        self.layer_norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, N) -> (B, outputs, n)."""
        return F.gelu(self.layer_norm(self.conv(x).transpose(1, 2)).transpose(1, 2))


class FeatureExtractor(nn.Module):
    """The convolutions over the samples."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        inputs = [1, *[config.channels] * (len(KERNELS) - 1)]
        self.conv_layers = nn.ModuleList(
            [ConvLayer(a, config.channels, k, s) for a, k, s in zip(inputs, KERNELS, STRIDES, strict=True)]
        )

    def forward(self, samples: Tensor) -> Tensor:
        """samples (B, N) -> (B, channels, T)."""
        x = samples[:, None]
        for layer in self.conv_layers:
            x = layer(x)
        return x


class FeatureProjection(nn.Module):
    """From the convolutions' channels to the transformer's width."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.channels)
        self.projection = nn.Linear(config.channels, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, channels) -> (B, T, D)."""
        out: Tensor = self.projection(self.layer_norm(x))
        return out


class PositionalConvolution(nn.Module):
    """Positions of rows, computed from their neighbours."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        kernel = config.position_kernel
        conv = nn.Conv1d(config.width, config.width, kernel, padding=kernel // 2, groups=config.position_groups)
        self.conv = weight_norm(conv, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> the same shape."""
        rows = x.shape[1]
        return F.gelu(self.conv(x.transpose(1, 2))[..., :rows]).transpose(1, 2)  # an even kernel gives one too many


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.k_proj, self.v_proj = nn.Linear(config.width, config.width), nn.Linear(config.width, config.width)
        self.q_proj, self.out_proj = nn.Linear(config.width, config.width), nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> the same shape."""
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        found = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out_proj(found.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.width, config.inner)
        self.output_dense = nn.Linear(config.inner, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> the same shape."""
        out: Tensor = self.output_dense(F.gelu(self.intermediate_dense(x)))
        return out


class Layer(nn.Module):
    """Attention and feed-forward part; a norm before each, a residual around each."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.layer_norm = nn.LayerNorm(config.width)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> the same shape."""
        x = x + self.attention(self.layer_norm(x))
        out: Tensor = x + self.feed_forward(self.final_layer_norm(x))
        return out


class Encoder(nn.Module):
    """The positional convolution, the layers, and a last norm."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.pos_conv_embed = PositionalConvolution(config)
        self.layer_norm = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.layers)])

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> the same shape."""
        x = x + self.pos_conv_embed(x)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.layer_norm(x)
        return out


class Hubert(nn.Module):
    """Speech to feature rows."""

    def __init__(self, config: HubertConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or HubertConfig()
        self.masked_spec_embed = nn.Parameter(torch.rand(c.width))  # replaces masked rows in training; unused here
        self.feature_extractor = FeatureExtractor(c)
        self.feature_projection = FeatureProjection(c)
        self.encoder = Encoder(c)

    def forward(self, samples: Tensor) -> Tensor:
        """samples (B, N) at 16 kHz -> (B, T, D), T = floor((N - 80) / 320).

        The released Ditto does not normalise the samples.
        """
        x = self.feature_extractor(samples).transpose(1, 2)
        rows: Tensor = self.encoder(self.feature_projection(x))
        return rows
