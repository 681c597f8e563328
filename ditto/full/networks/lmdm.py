"""The published motion diffusion transformer (LMDM): speech and conditions to 80 frames of 265 motion numbers.

    condition = network.encode(cond)                            # once per window
    clean = network.denoise(x, cond_frame, condition, time)     # per step; x0 prediction
    motion = ddim_sample(network, cond_frame, cond, start, noise)

The 265 motion numbers of a frame are laid out as `ditto.motion.motion.LAYOUT_265`, its 1103 condition numbers as in
`ditto.full.conditioning`.

B: batch, T: 80 frames, D: width, S: steps.

Source: Ditto (arXiv:2411.19509), section 3.2; FiLM and time tokens: EDGE (arXiv:2211.10658); rotary positions:
arXiv:2104.09864, here over the whole width and before the projections. Parameter names are those of the published file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditto.full.sizes import CONDITION_SIZE, LEVELS, WINDOW
from ditto.motion.motion import PACKED_SIZE

GUIDANCE = 2.0  # strength of classifier-free guidance, as released
TIME_TOKENS = 2  # that a noise level adds to the condition's tokens, as published


@dataclass(frozen=True)
class LMDMConfig:
    """Sizes of the network.

    Attributes:
        motion: numbers of a frame of motion.
        condition: numbers of a frame's condition.
        frames: T.
        width: D.
        inner: width of the feed-forward parts.
        heads: attention heads.
        condition_layers: layers over the condition.
        layers: layers over the motion.
    """

    motion: int = PACKED_SIZE
    condition: int = CONDITION_SIZE
    frames: int = WINDOW
    width: int = 512
    inner: int = 1024
    heads: int = 8
    condition_layers: int = 2
    layers: int = 8


class Condition(NamedTuple):
    """The encoded conditions of a window, as the layers over the motion take them.

    Attributes:
        tokens: (B, T, D), one per frame.
        summary: (B, D), of the whole window.
    """

    tokens: Tensor
    summary: Tensor


class Rotary(nn.Module):
    """Rotary positions over pairs of neighbouring numbers."""

    freqs: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        exponent = torch.arange(0, width, 2, dtype=torch.float64) / width
        self.register_buffer("freqs", (10000.0**-exponent).float())

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> the same shape, row k turned by k times the frequencies."""
        angle = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)[:, None] * self.freqs
        cos, sin = angle.cos(), angle.sin()
        even, odd = x[..., ::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)


class Attention(nn.Module):
    """Multi-head attention with the three input projections in one matrix."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query (B, T, D), key and value (B, N, D) -> (B, T, D)."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, w, b).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        found = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out_proj(found.transpose(1, 2).flatten(2))
        return out


class Film(nn.Module):
    """FiLM: scales and shifts a branch by the noise level and the window's summary (arXiv:1709.07871)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Mish(), nn.Linear(width, 2 * width))

    def forward(self, y: Tensor, time: Tensor) -> Tensor:
        """y (B, T, D), time (B, D) -> (B, T, D)."""
        scale, shift = self.block(time)[:, None].chunk(2, -1)
        out: Tensor = (scale + 1) * y + shift
        return out


class ConditionLayer(nn.Module):
    """Self-attention and feed-forward part over the condition, norms in front."""

    def __init__(self, config: LMDMConfig, rotary: Rotary) -> None:
        super().__init__()
        d = config.width
        self.self_attn = Attention(d, config.heads)
        self.linear1, self.linear2 = nn.Linear(d, config.inner), nn.Linear(config.inner, d)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.rotary = rotary

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> the same shape."""
        y = self.norm1(x)
        turned = self.rotary(y)
        x = x + self.self_attn(turned, turned, y)
        out: Tensor = x + self.linear2(F.gelu(self.linear1(self.norm2(x))))
        return out


class MotionLayer(nn.Module):
    """Self-attention, attention to the condition and feed-forward part over the motion, each under a FiLM."""

    def __init__(self, config: LMDMConfig, rotary: Rotary) -> None:
        super().__init__()
        d = config.width
        self.self_attn, self.multihead_attn = Attention(d, config.heads), Attention(d, config.heads)
        self.linear1, self.linear2 = nn.Linear(d, config.inner), nn.Linear(config.inner, d)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.film1, self.film2, self.film3 = Film(d), Film(d), Film(d)
        self.rotary = rotary

    def forward(self, x: Tensor, memory: Tensor, time: Tensor) -> Tensor:
        """x (B, T, D), memory (B, T + 2, D), time (B, D) -> (B, T, D)."""
        y = self.norm1(x)
        turned = self.rotary(y)
        x = x + self.film1(self.self_attn(turned, turned, y), time)
        y = self.multihead_attn(self.rotary(self.norm2(x)), self.rotary(memory), memory)
        x = x + self.film2(y, time)
        y = self.linear2(F.gelu(self.linear1(self.norm3(x))))
        out: Tensor = x + self.film3(y, time)
        return out


class MotionLayers(nn.Module):
    """The layers over the motion."""

    def __init__(self, config: LMDMConfig, rotary: Rotary) -> None:
        super().__init__()
        self.stack = nn.ModuleList([MotionLayer(config, rotary) for _ in range(config.layers)])

    def forward(self, x: Tensor, memory: Tensor, time: Tensor) -> Tensor:
        """As `MotionLayer`."""
        for layer in self.stack:
            x = layer(x, memory, time)
        return x


class TimeEmbedding(nn.Module):
    """Sines and cosines of a noise level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pairs = width // 2

    def forward(self, time: Tensor) -> Tensor:
        """time (B,) whole numbers in 0..999 -> (B, D)."""
        step = -math.log(10000.0) / (self.pairs - 1)
        frequency = torch.exp(step * torch.arange(self.pairs, dtype=torch.float32, device=time.device))
        angle = time[:, None] * frequency
        return torch.cat((angle.sin(), angle.cos()), -1)


class LMDM(nn.Module):
    """Predicts clean motion from noisy motion."""

    def __init__(self, config: LMDMConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or LMDMConfig()
        d = c.width
        self.null_cond_embed = nn.Parameter(torch.randn(1, c.frames, d))
        self.null_cond_hidden = nn.Parameter(torch.randn(1, d))
        self.rotary = Rotary(d)
        self.time_mlp = nn.Sequential(TimeEmbedding(d), nn.Linear(d, 4 * d), nn.Mish())
        self.to_time_cond = nn.Sequential(nn.Linear(4 * d, d))
        self.to_time_tokens = nn.Sequential(nn.Linear(4 * d, TIME_TOKENS * d), nn.Unflatten(1, (TIME_TOKENS, d)))
        self.norm_cond = nn.LayerNorm(d)
        self.input_projection = nn.Linear(2 * c.motion, d)
        self.cond_encoder = nn.Sequential(*(ConditionLayer(c, self.rotary) for _ in range(c.condition_layers)))
        self.cond_projection = nn.Linear(c.condition, d)
        self.non_attn_cond_projection = nn.Sequential(
            nn.LayerNorm(d), nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d)
        )  # fmt: skip
        self.seqTransDecoder = MotionLayers(c, self.rotary)
        self.final_layer = nn.Linear(d, c.motion)

    def encode(self, cond: Tensor) -> Condition:
        """cond (B, T, 1103) -> the encoded condition, the same for every step of a window."""
        tokens = self.cond_encoder(self.cond_projection(cond))
        return Condition(tokens, self.non_attn_cond_projection(tokens.mean(1)))

    def null(self, batch: int) -> Condition:
        """The learned empty condition of classifier-free guidance."""
        return Condition(self.null_cond_embed.expand(batch, -1, -1), self.null_cond_hidden.expand(batch, -1))

    def denoise(self, x: Tensor, cond_frame: Tensor, condition: Condition, time: Tensor) -> Tensor:
        """x (B, T, 265), cond_frame (B, 265), time (B,) whole numbers in 0..999 -> clean motion (B, T, 265)."""
        still = cond_frame[:, None].expand(-1, x.shape[1], -1)
        h = self.input_projection(torch.cat((x, still), -1))
        hidden = self.time_mlp(time)
        level = self.to_time_cond(hidden) + condition.summary
        memory = self.norm_cond(torch.cat((condition.tokens, self.to_time_tokens(hidden)), 1))
        clean: Tensor = self.final_layer(self.seqTransDecoder(h, memory, level))
        return clean

    def guide(
        self, x: Tensor, cond_frame: Tensor, condition: Condition, time: Tensor, guidance: float = GUIDANCE
    ) -> Tensor:
        """As `denoise`, with classifier-free guidance (arXiv:2207.12598, eq. 6); both branches run as one batch."""
        null = self.null(len(x))
        both = Condition(torch.cat((condition.tokens, null.tokens)), torch.cat((condition.summary, null.summary)))
        conditional, unconditional = self.denoise(
            torch.cat((x, x)), torch.cat((cond_frame, cond_frame)), both, torch.cat((time, time))
        ).chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    def forward(self, x: Tensor, cond_frame: Tensor, cond: Tensor, time: Tensor) -> Tensor:
        """x (B, T, 265), cond_frame (B, 265), cond (B, T, 1103), time (B,) -> clean motion (B, T, 265)."""
        return self.denoise(x, cond_frame, self.encode(cond), time)


def signal_power(dtype: torch.dtype = torch.float64) -> Tensor:
    """Share of the signal's power left at each of the 1000 noise levels (arXiv:2102.09672, eq. 17)."""
    at = torch.arange(LEVELS + 1, dtype=torch.float64) / LEVELS
    curve = torch.cos((at + 0.008) / 1.008 * (math.pi / 2)) ** 2
    beta = (1 - curve[1:] / curve[:-1]).clamp(0, 0.999).to(dtype)
    return torch.cumprod(1 - beta, 0)


class DDIMStep(NamedTuple):
    """The numbers of one step.

    Attributes:
        time: noise level before the step.
        next_time: noise level after it; -1: clean.
        from_x: factor of x in the noise.
        from_clean: divisor of the clean motion in the noise.
        signal: factor of the clean motion in the result.
        direction: factor of the noise in the result.
        sigma: factor of fresh noise in the result.
    """

    time: int
    next_time: int
    from_x: float
    from_clean: float
    signal: float
    direction: float
    sigma: float


def ddim_schedule(steps: int, dtype: torch.dtype = torch.float64) -> list[DDIMStep]:
    """Steps of stochastic DDIM (eta = 1; arXiv:2010.02502, eq. 12 and 16).

    The released code computes them in float32, where the first `direction` suffers from cancellation: 3.45e-4 instead of
    3.10e-4 for 10 steps, NaN for 5. `dtype` float32 gives the released numbers, float64 exact ones.

    Raises:
        ValueError: steps is not in 1..1000, or the schedule has NaN in this type.
    """
    if not 1 <= steps <= LEVELS:
        raise ValueError(f"expected 1 to {LEVELS} steps, got {steps}; give another number")
    power = signal_power(dtype)
    times = [int(t) for t in torch.linspace(-1, LEVELS - 1, steps + 1, dtype=torch.float64).tolist()][::-1]
    out = []
    for time, next_time in pairwise(times):
        a = power[time]
        from_x, from_clean = (1 / (1 - a)).sqrt(), (1 / a - 1).sqrt()
        signal, direction, sigma = torch.ones(()), torch.zeros(()), torch.zeros(())
        if next_time >= 0:
            after = power[next_time]
            sigma = ((1 - a / after) * (1 - after) / (1 - a)).sqrt()
            direction = (1 - after - sigma**2).sqrt()
            signal = after.sqrt()
        numbers = (float(x) for x in (from_x, from_clean, signal, direction, sigma))
        out.append(DDIMStep(time, next_time, *numbers))
    if not all(math.isfinite(number) for step in out for number in step):
        raise ValueError(f"expected a schedule of finite numbers, got NaN for {steps} steps in {dtype}; use float64")
    return out


def ddim_sample(
    network: LMDM,
    cond_frame: Tensor,
    cond: Tensor,
    start: Tensor,
    noise: Sequence[Tensor],
    schedule: Sequence[DDIMStep],
    guidance: float = GUIDANCE,
) -> Tensor:
    """Motion of a window; the condition is encoded once.

    Args:
        network: predicts the clean motion.
        cond_frame: (B, 265), the motion before the window.
        cond: (B, T, 1103).
        start: (B, T, 265) noise to start from.
        noise: (B, T, 265) for every step but the last.
        schedule: from `ddim_schedule`.
        guidance: strength of classifier-free guidance; at 1 the unconditional branch has no effect.

    Returns:
        (B, T, 265).

    Raises:
        ValueError: fewer noises than the schedule needs.
    """
    if len(noise) < len(schedule) - 1:
        raise ValueError(f"expected {len(schedule) - 1} noises for {len(schedule)} steps, got {len(noise)}; give more")
    condition = network.encode(cond)
    x = start
    for i, step in enumerate(schedule):
        time = torch.full((len(x),), step.time, dtype=torch.long, device=x.device)
        clean = network.guide(x, cond_frame, condition, time, guidance)
        if step.next_time < 0:
            return clean
        residue = step.from_x * x - clean / step.from_clean
        x = clean * step.signal + step.direction * residue + step.sigma * noise[i]
    return x
