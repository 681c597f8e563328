"""HuBERT over a stream: 0.4 s of 16 kHz speech at a time, state in, state out.

    state = network.pseudo_context(samples)                  # once, from a fixed recording
    rows, state = network(samples, state)                    # (B, 6400), state -> (B, 20, D)

The weights are those of `Hubert`, which takes a whole recording at once. Here a row attends to the rows of its own unit
of 20 (0.4 s) and to the `left` rows before the unit. Attention reads their keys and values from a cache. The convolutions
over the samples and the positional convolution keep the end of their input, so no row is computed twice. To the
positional convolution, rows after the unit are zero, as after the end of a recording. A stream starts with the state
after a fixed recording (the paper's pseudo-context), because the network was trained on whole recordings.

`forward` takes one unit or many and gives the same either way: that is how the masked network is run offline. Row r
covers samples [320 r - 80, 320 r + 320); the mean of rows 2 k and 2 k + 1 is the feature of video frame k.

B: batch, U: units, R: rows of a unit, T: rows, D: width, C: channels, L: layers, H: heads.

Source: HuBERT (arXiv:2106.07447); cached pseudo-context and causal mask over the chunks: Ditto (arXiv:2411.19509),
section 3.4. The paper does not say how far attention reaches back, nor how the positional convolution ends: both are
choices made here.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditto.full.networks.hubert import Attention, ConvLayer, Hubert, Layer
from ditto.full.sizes import KERNELS, SAMPLES_PER_ROW, STRIDES


class HubertState(NamedTuple):
    """The state of a stream; float32, shapes never change.

    Attributes:
        samples: (B, 5), the last ones, which the first convolution reads again.
        tails: (B, 4, C), the last output of each of the first four convolutions.
        rows: (B, P, D), the last rows before positions, P half the positional convolution's kernel.
        keys: (B, L, left, D) of past rows.
        values: (B, L, left, D) likewise.
        valid: (B, left), 1 where the cache holds a row, 0 where it is still empty.
    """

    samples: Tensor
    tails: Tensor
    rows: Tensor
    keys: Tensor
    values: Tensor
    valid: Tensor


class StreamingHubert(nn.Module):
    """A `Hubert` run unit by unit.

    Args:
        hubert: weights, shared, not copied.
    """

    unit = 20  # rows, 0.4 s; as many as a window of the released code has
    left = 200  # rows before the unit that attention reaches, 4 s; our choice, not published

    def __init__(self, hubert: Hubert) -> None:
        super().__init__()
        self.hubert = hubert
        self.config = hubert.config
        self.samples = self.unit * SAMPLES_PER_ROW

    def empty_state(self, batch: int = 1) -> HubertState:
        """The state before the first sample."""
        c = self.config
        like = self.hubert.masked_spec_embed
        tails = sum(kernel > stride for kernel, stride in zip(KERNELS[1:], STRIDES[1:], strict=True))

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, dtype=like.dtype, device=like.device)

        return HubertState(
            samples=zeros(KERNELS[0] - STRIDES[0]),
            tails=zeros(tails, c.channels),
            rows=zeros(c.position_kernel // 2, c.width),
            keys=zeros(c.layers, self.left, c.width),
            values=zeros(c.layers, self.left, c.width),
            valid=zeros(self.left),
        )

    def pseudo_context(self, samples: Tensor) -> HubertState:
        """The state after `samples` (B, N), from which a stream starts. Samples before the last whole units are dropped.

        Raises:
            ValueError: less than one unit of samples.
        """
        units = samples.shape[1] // self.samples
        if not units:
            raise ValueError(f"expected a context of {self.samples} samples or more, got {samples.shape[1]}; give more")
        state = self.empty_state(len(samples))
        for unit in samples[:, -units * self.samples :].split(self.samples, 1):
            state = self(unit, state)[1]
        return state

    def forward(self, samples: Tensor, state: HubertState) -> tuple[Tensor, HubertState]:
        """Rows of one unit or many.

        Args:
            samples: (B, 320 R U) at 16 kHz, not normalised.
            state: from `pseudo_context` or the call before.

        Returns:
            (B, R U, D) and the next state.

        Raises:
            ValueError: samples are not whole units.
        """
        hidden, next_state = self.hidden(samples, state)
        return hidden[-1], next_state

    def hidden(self, samples: Tensor, state: HubertState) -> tuple[list[Tensor], HubertState]:
        """As `forward`, with the rows (B, R U, D) that come out of each layer; out of the last one after the encoder's norm.

        They are Hugging Face's `hidden_states` without the first, which is no layer's.
        """
        if samples.shape[1] % self.samples or not samples.shape[1]:
            raise ValueError(
                f"expected whole units of {self.samples} samples, got {samples.shape[1]}; let Stream buffer, or pad the end "
                "with zeros"
            )
        convolved, tails = self.convolve(samples, state)
        x = self.hubert.feature_projection(convolved.transpose(1, 2))
        rows = torch.cat((state.rows, x), 1)
        x = x + self.positions(rows)
        new = torch.ones_like(x[..., 0])
        mask = self.mask(torch.cat((state.valid, new), 1), x.shape[1])
        keys, values, hidden = [], [], list[Tensor]()
        for i, layer in enumerate(self.hubert.encoder.layers):
            x, k, v = attend(cast(Layer, layer), x, state.keys[:, i], state.values[:, i], mask)
            keys.append(k[:, -self.left :])
            values.append(v[:, -self.left :])
            hidden.append(x)
        hidden[-1] = self.hubert.encoder.layer_norm(x)
        next_state = HubertState(
            samples=torch.cat((state.samples, samples), 1)[:, -state.samples.shape[1] :],
            tails=tails,
            rows=rows[:, -state.rows.shape[1] :],
            keys=torch.stack(keys, 1),
            values=torch.stack(values, 1),
            valid=torch.cat((state.valid, new), 1)[:, -self.left :],
        )
        return hidden, next_state

    def convolve(self, samples: Tensor, state: HubertState) -> tuple[Tensor, Tensor]:
        """The convolutions over the samples (B, N) -> (B, C, T) and the next tails."""
        x = torch.cat((state.samples, samples), 1)[:, None]
        tails: list[Tensor] = []
        for i, module in enumerate(self.hubert.feature_extractor.conv_layers):
            layer = cast(ConvLayer, module)
            if i and KERNELS[i] > STRIDES[i]:
                tail = state.tails[:, len(tails), :, None]
                tails.append(x[..., -1])
                x = torch.cat((tail, x), 2)
            x = layer(x)
        return x, torch.stack(tails, 1)

    def positions(self, rows: Tensor) -> Tensor:
        """The positional convolution: rows (B, P + T, D) -> (B, T, D) for all but the first P; each unit ends with zeros."""
        conv = self.hubert.encoder.pos_conv_embed.conv
        past = self.config.position_kernel // 2
        windows = rows.unfold(1, past + self.unit, self.unit)  # (B, U, D, P + R)
        batch, units = windows.shape[:2]
        ended = F.pad(windows.flatten(0, 1), (0, self.config.position_kernel - 1 - past))
        y = F.conv1d(ended, conv.weight, conv.bias, groups=self.config.position_groups)
        out: Tensor = F.gelu(y).unflatten(0, (batch, units)).permute(0, 1, 3, 2).flatten(1, 2)
        return out

    def mask(self, valid: Tensor, rows: int) -> Tensor:
        """valid (B, left + T) -> attention mask (B, 1, T, left + T), true where a row may attend."""
        place = torch.arange(valid.shape[1], device=valid.device) - self.left
        start = torch.arange(rows, device=valid.device)[:, None] // self.unit * self.unit  # of each row's unit
        near = (place >= start - self.left) & (place < start + self.unit)
        return near & (valid[:, None, None] > 0)


def attend(layer: Layer, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A layer over x (B, T, D) that also attends to past keys and values (B, N, D) -> x, all keys, all values."""
    attention: Attention = layer.attention

    def split(y: Tensor) -> Tensor:
        out: Tensor = y.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        return out

    y = layer.layer_norm(x)
    keys = torch.cat((keys, attention.k_proj(y)), 1)
    values = torch.cat((values, attention.v_proj(y)), 1)
    found = F.scaled_dot_product_attention(split(attention.q_proj(y)), split(keys), split(values), mask)
    x = x + attention.out_proj(found.transpose(1, 2).flatten(2))
    return x + layer.feed_forward(layer.final_layer_norm(x)), keys, values
