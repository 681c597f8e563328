"""The motion diffusion transformer arranged for sampling: the same numbers as `lmdm.ddim_sample` for far less work.

    fast = FastLMDM(network, ddim_schedule(10))
    motion = fast(cond_frame, cond, start, noise)

The constructor computes what depends only on the schedule: time embeddings, time tokens with their keys and values, the
unconditional branch's condition. Each window computes once what depends only on the window: condition encoding with its
keys and values, every layer's FiLM for all steps, half of the input projection. Both branches of guidance run as one
batch. They share everything before the first FiLM and are combined before the last projection. Hidden vectors have their
even numbers in front of the odd ones, so that rotary positions rotate two halves, not pairs.

B: batch, G: branches of guidance, T: 80 frames, D: width, S: steps, L: layers, H: heads.

Source: `ditto.full.networks.lmdm`, the reference implementation.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditto.full.networks.lmdm import GUIDANCE, LMDM, TIME_TOKENS, DDIMStep, MotionLayer

FILMS = 3  # a layer: after self-attention, cross-attention, feed-forward part


class Window(NamedTuple):
    """Everything of a window that is the same in every step.

    Attributes:
        known_projection: (B, 1, D), the share of the input projection that comes from the frame before the window.
        keys: (G B, L, H, T, D / H), of the condition.
        values: likewise.
        films: (G B, S, L, FILMS, 2 D), scale and shift.
    """

    known_projection: Tensor
    keys: Tensor
    values: Tensor
    films: Tensor


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer with a copy of these weights (outputs, inputs)."""
    layer: nn.Linear = nn.utils.skip_init(
        nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device, dtype=weight.dtype
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def norm(like: nn.LayerNorm, order: Tensor) -> nn.LayerNorm:
    """A layer norm for numbers in another order."""
    layer = nn.LayerNorm(len(order), eps=like.eps, dtype=like.weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(like.weight[order])
        layer.bias.copy_(like.bias[order])
    return layer


class FastLayer(nn.Module):
    """A `MotionLayer` over vectors in another order; takes the condition's keys and values ready-made."""

    def __init__(self, layer: MotionLayer, order: Tensor) -> None:
        super().__init__()
        d = len(order)
        own, other = layer.self_attn, layer.multihead_attn
        self.heads = own.heads
        self.norm1, self.norm2, self.norm3 = (norm(n, order) for n in (layer.norm1, layer.norm2, layer.norm3))
        self.query_key = linear(own.in_proj_weight[: 2 * d, order], own.in_proj_bias[: 2 * d])
        self.value = linear(own.in_proj_weight[2 * d :, order], own.in_proj_bias[2 * d :])
        self.out1 = linear(own.out_proj.weight[order], own.out_proj.bias[order])
        self.query = linear(other.in_proj_weight[:d, order], other.in_proj_bias[:d])
        self.out2 = linear(other.out_proj.weight[order], other.out_proj.bias[order])
        self.linear1 = linear(layer.linear1.weight[:, order], layer.linear1.bias)
        self.linear2 = linear(layer.linear2.weight[order], layer.linear2.bias[order])

    def split(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, D / H)."""
        out: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return out

    def attend_self(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Self-attention, before its FiLM: x (B, T, D) -> the same shape."""
        y = self.norm1(x)
        query, key = self.query_key(rotate(y, rotary)).chunk(2, -1)
        found = F.scaled_dot_product_attention(self.split(query), self.split(key), self.split(self.value(y)))
        out: Tensor = self.out1(found.transpose(1, 2).flatten(2))
        return out

    def forward(
        self, x: Tensor, attended: Tensor, rotary: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, films: Tensor
    ) -> Tensor:
        """The rest of the layer.

        Args:
            x: (B, T, D).
            attended: (B, T, D), the output of `attend_self`.
            rotary: cosines and sines (T, D).
            keys, values: (B, H, T + 2, D / H) of condition and time.
            films: (B, FILMS, 2 D).
        """
        x = film(x, attended, films[:, 0])
        query = self.split(self.query(rotate(self.norm2(x), rotary)))
        found = F.scaled_dot_product_attention(query, keys, values)
        x = film(x, self.out2(found.transpose(1, 2).flatten(2)), films[:, 1])
        return film(x, self.linear2(F.gelu(self.linear1(self.norm3(x)))), films[:, 2])


def film(x: Tensor, y: Tensor, numbers: Tensor) -> Tensor:
    """x + scale y + shift, numbers (B, 2 D) = scale | shift."""
    scale, shift = numbers[:, None].chunk(2, -1)
    return torch.addcmul(x + shift, scale, y)


def rotate(y: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions of y (B, T, D), even numbers in front of odd ones."""
    cos, sin = rotary
    even, odd = y.chunk(2, -1)
    return torch.addcmul(y * cos, torch.cat((odd, even), -1), sin)


class FastLMDM(nn.Module):
    """All DDIM steps of a window.

    Args:
        network: weights; they are copied.
        schedule: from `lmdm.ddim_schedule`.
        guidance: strength of classifier-free guidance; at 1 only the conditional branch runs.
    """

    cos: Tensor
    sin: Tensor
    memory_cos: Tensor
    memory_sin: Tensor
    time_keys: Tensor
    time_values: Tensor
    levels: Tensor
    null_keys: Tensor
    null_values: Tensor
    null_films: Tensor

    @torch.no_grad()
    def __init__(self, network: LMDM, schedule: Sequence[DDIMStep], guidance: float = GUIDANCE) -> None:
        super().__init__()
        c = self.config = network.config
        self.schedule, self.guidance = tuple(schedule), float(guidance)
        d, layers = c.width, [cast(MotionLayer, layer) for layer in network.seqTransDecoder.stack]
        order = torch.cat((torch.arange(0, d, 2), torch.arange(1, d, 2)))

        angle = torch.arange(c.frames)[:, None] * network.rotary.freqs
        self.register_buffer("cos", angle.cos().repeat(1, 2))
        self.register_buffer("sin", torch.cat((-angle.sin(), angle.sin()), -1))
        memory_angle = torch.arange(c.frames + TIME_TOKENS)[:, None] * network.rotary.freqs
        self.register_buffer("memory_cos", memory_angle.cos().repeat_interleave(2, 1))
        self.register_buffer("memory_sin", memory_angle.sin().repeat_interleave(2, 1))

        projection = network.input_projection
        self.project_motion = linear(projection.weight[order, : c.motion], projection.bias[order])
        self.project_known = linear(projection.weight[order, c.motion :])
        self.layers = nn.ModuleList([FastLayer(layer, order) for layer in layers])
        self.project_out = linear(network.final_layer.weight[:, order], network.final_layer.bias)

        self.cond_projection, self.cond_encoder, self.norm_cond, self.summarize = (
            copy.deepcopy(part)
            for part in (
                network.cond_projection, network.cond_encoder, network.norm_cond, network.non_attn_cond_projection
            )
        )  # fmt: skip
        others = [layer.multihead_attn for layer in layers]
        self.key, self.value = (
            linear(
                torch.cat([a.in_proj_weight[part] for a in others]), torch.cat([a.in_proj_bias[part] for a in others])
            )
            for part in (slice(d, 2 * d), slice(2 * d, None))
        )
        films = [cast(nn.Linear, f.block[1]) for layer in layers for f in (layer.film1, layer.film2, layer.film3)]
        halves = torch.cat((order, d + order))
        one = torch.cat((torch.ones(d), torch.zeros(d)))  # y is scaled by 1 + scale
        self.films = linear(
            torch.cat([f.weight[halves] for f in films]), torch.cat([f.bias[halves] + one for f in films])
        )

        hidden = network.time_mlp(torch.tensor([step.time for step in schedule]))
        self.register_buffer("levels", network.to_time_cond(hidden))  # (S, D)
        tokens = self.norm_cond(network.to_time_tokens(hidden))  # (S, TIME_TOKENS, D)
        time_keys, time_values = self.keys_and_values(tokens, c.frames)
        null = network.null(1)
        null_keys, null_values = self.keys_and_values(self.norm_cond(null.tokens), 0)
        for name, value in {
            "time_keys": time_keys, "time_values": time_values, "null_keys": null_keys, "null_values": null_values,
            "null_films": self.modulate(null.summary),
        }.items():  # fmt: skip
            self.register_buffer(name, value)

    def keys_and_values(self, memory: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Keys and values of all layers, (B, L, H, N, D / H) each, for memory (B, N, D) at positions first, ...."""
        at = slice(first, first + memory.shape[1])
        even, odd = memory[..., ::2], memory[..., 1::2]
        turned = memory * self.memory_cos[at] + torch.stack((-odd, even), -1).flatten(-2) * self.memory_sin[at]

        def split(x: Tensor) -> Tensor:
            out: Tensor = x.unflatten(-1, (len(self.layers), self.config.heads, -1)).permute(0, 2, 3, 1, 4)
            return out

        return split(self.key(turned)), split(self.value(memory))

    def modulate(self, summary: Tensor) -> Tensor:
        """FiLM numbers of every step and layer for summaries (B, D) -> (B, S, L, FILMS, 2 D)."""
        level = self.levels + summary[:, None]
        out: Tensor = self.films(F.mish(level)).unflatten(-1, (len(self.layers), FILMS, -1))
        return out

    def window(self, cond_frame: Tensor, cond: Tensor) -> Window:
        """cond_frame (B, 265), cond (B, T, 1103) -> everything that is the same in every step."""
        tokens = self.cond_encoder(self.cond_projection(cond))
        keys, values = self.keys_and_values(self.norm_cond(tokens), 0)
        films = self.modulate(self.summarize(tokens.mean(1)))
        if self.guidance != 1:
            batch = len(cond)
            keys, values, films = (
                torch.cat((conditional, null.expand(batch, *null.shape[1:])))
                for conditional, null in (
                    (keys, self.null_keys), (values, self.null_values), (films, self.null_films)
                )
            )  # fmt: skip
        return Window(self.project_known(cond_frame)[:, None], keys, values, films)

    def denoise(self, x: Tensor, window: Window, step: int) -> Tensor:
        """x (B, T, 265) at the noise level of step number `step` -> clean motion (B, T, 265), guided."""
        rotary = self.cos, self.sin
        branches = len(window.keys) // len(x)
        h = self.project_motion(x) + window.known_projection
        for i, layer in enumerate(self.layers):
            attended = cast(FastLayer, layer).attend_self(h, rotary)
            if i == 0:  # up to here both branches are equal
                h, attended = h.repeat(branches, 1, 1), attended.repeat(branches, 1, 1)
            keys, values = (
                torch.cat((of_window[:, i], of_time[step, i].expand(len(h), -1, -1, -1)), 2)
                for of_window, of_time in ((window.keys, self.time_keys), (window.values, self.time_values))
            )
            h = layer(h, attended, rotary, keys, values, window.films[:, step, i])
        if branches == 2:
            conditional, unconditional = h.chunk(2)
            h = unconditional + self.guidance * (conditional - unconditional)
        clean: Tensor = self.project_out(h)
        return clean

    def forward(self, cond_frame: Tensor, cond: Tensor, start: Tensor, noise: Tensor) -> Tensor:
        """Motion of a window.

        Args:
            cond_frame: (B, 265), the motion before the window.
            cond: (B, T, 1103).
            start: (B, T, 265) noise to start from.
            noise: (S - 1, B, T, 265), fresh noise of every step but the last.

        Returns:
            (B, T, 265).
        """
        window = self.window(cond_frame, cond)
        x = start
        for i, step in enumerate(self.schedule):
            clean = self.denoise(x, window, i)
            if step.next_time < 0:
                break
            residue = step.from_x * x - clean / step.from_clean
            x = clean * step.signal + step.direction * residue + step.sigma * noise[i]
        return clean
