"""The lite speech encoder: 16 kHz speech in hops of 80 ms -> 25 feature rows a second, state in, state out.

    features, state = encoder(samples, state)      # (B, 1280), state -> (B, 2, 368), state

The network is the Moonshine tiny-en encoder made streaming: its filters are placed every 320 samples (50 Hz) instead of
every 384, rotary positions are scaled by 5/6 so that attention sees the same time differences, the norm over the whole
clip became a running level in front and a fixed scale behind the first convolution, and attention sees 2 s of cached
keys and values, the hop's own four tokens, and three tokens ahead, computed again in the next hop (as in Emformer).

The call that takes samples [1280 k, 1280 (k + 1)) returns the features of frames 2 (k - 1) and 2 (k - 1) + 1.

In ONNX (`ditto.training.export_encoder.OneHop`) the inputs are `samples`, `state.level`, `.hops`, `.samples`, `.tokens`, and
`state.keys.<layer>` and `state.values.<layer>`; the outputs are `features`, `next_state.<field>`, and `new.keys` and
`new.values` of the hop, which the caller appends.

Source: Moonshine, arXiv:2410.15608 (weights: moonshine-voice 0.1.0, MIT), fine-tuned by `ditto.training.encoder`;
right context: Emformer, arXiv:2010.10759. The level, the token rate and the phone head are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditto.lite.phones import PHONES
from ditto.lite.speech_encoder import HIDDEN_SIZE
from ditto.media.audio import HOP_SAMPLES
from ditto.media.audio import SILENCE_DB as ACTIVE_DB
from ditto.media.rates import SAMPLES_PER_FRAME

TOKEN = SAMPLES_PER_FRAME // 2  # samples of a 50 Hz token
BLOCK = HOP_SAMPLES // TOKEN  # 4 tokens a hop
AHEAD = 3  # tokens of right context: what is left of one hop of look-ahead after the reach of the convolutions
REACH = 127 + 6 * 64 + 2 * 192  # 895 samples under one token
CONTEXT = REACH - TOKEN  # 575 samples of the past that the next token needs

# The running level (`follow_level`): its numbers were chosen by hand before training; the weights were trained with them.
# `ACTIVE_DB`: a hop below it is silence and leaves the level as it is.
TARGET_DB = -20.0  # level that speech is brought to, of full scale
FLOOR_DB = -46.0  # no more gain than for speech this quiet: silence stays silence
RAMP = TOKEN  # samples over which a new gain sets in


@dataclass(frozen=True)
class SpeechEncoderConfig:
    """Sizes of the network; `left` is the number of cached 50 Hz tokens."""

    width: int = HIDDEN_SIZE
    heads: int = 8
    layers: int = 6
    hidden: int = 1152
    rotary: int = 32
    left: int = 100
    head: int = 256

    @property
    def features(self) -> int:
        """Numbers of a feature row: the hidden ones and two sets of phone probabilities."""
        return self.width + 2 * len(PHONES)


class SpeechEncoderState(NamedTuple):
    """What a stream remembers; float32, shapes never change.

    level: (B, 1) running speech level, dB of full scale. hops: (B, 1) active hops so far, at most 100.
    samples: (B, 575) levelled samples before the hop. tokens: (B, 3, width) tokens that wait for their right context.
    keys, values: (B, layers, left, width) of past tokens, before rotation.
    """

    level: Tensor
    hops: Tensor
    samples: Tensor
    tokens: Tensor
    keys: Tensor
    values: Tensor


def zero_state(config: SpeechEncoderConfig, batch: int = 1) -> SpeechEncoderState:
    """The state before any sample. The pseudo-context runs from it; streams start from the state after that."""
    cache = torch.zeros(batch, config.layers, config.left, config.width)
    return SpeechEncoderState(
        level=torch.full((batch, 1), TARGET_DB),
        hops=torch.zeros(batch, 1),
        samples=torch.zeros(batch, CONTEXT),
        tokens=torch.zeros(batch, AHEAD, config.width),
        keys=cache,
        values=cache.clone(),
    )


def follow_level(samples: Tensor, level: Tensor, hops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One hop brought to the running speech level.

    The level rises within two hops and falls within three seconds, faster at the start of a stream. Hops 15 dB under it
    are pauses and lower it by 1.25 dB a second only; silence does not move it.

    Args:
        samples: (B, 1280), full scale 1.
        level: (B, 1) dB.
        hops: (B, 1) active hops so far.

    Returns:
        Levelled samples (B, 1280), the new level and count.
    """
    power = 10 * torch.log10(samples.square().mean(1, keepdim=True) + 1e-10)
    active = (power > ACTIVE_DB).to(samples.dtype)
    above = power - level
    settle = 1 / (hops + 2)
    fall = torch.where(
        (above > -15) | (hops < 6), torch.clamp(settle, min=0.03) * above, torch.full_like(above, -0.1)
    )
    moved = level + active * torch.where(above > 0, torch.clamp(settle, min=0.35) * above, fall)
    moved = torch.clamp(moved, min=FLOOR_DB)
    before, after = (10 ** ((TARGET_DB - x) / 20) for x in (level, moved))
    ramp = torch.clamp(torch.arange(1, HOP_SAMPLES + 1, dtype=samples.dtype, device=samples.device) / RAMP, max=1.0)
    return samples * (before + (after - before) * ramp), moved, torch.clamp(hops + active, max=100.0)


def rotary_table(positions: Sequence[int], rotary: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, rotary) of T positions in 50 Hz tokens, each frequency twice in a row.

    NumPy makes them constants of the exported network: not every ONNX Runtime has a cosine in double precision.
    """
    frequency = 10000.0 ** (-np.arange(0, rotary, 2) / rotary)
    angle = (np.asarray(positions, np.float64)[:, None] * (5 / 6) * frequency).repeat(2, 1)
    return torch.from_numpy(np.cos(angle).astype(np.float32)), torch.from_numpy(np.sin(angle).astype(np.float32))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (B, heads, T, size): neighbouring pairs of the first numbers turn, the rest stays."""
    turned, kept = x[..., : cos.shape[1]], x[..., cos.shape[1] :]
    swapped = torch.stack((-turned[..., 1::2], turned[..., ::2]), -1).flatten(-2)
    return torch.cat((turned * cos + swapped * sin, kept), -1)


class Stem(nn.Module):
    """Levelled samples (B, 575 + 320 n) -> n tokens (B, n, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, width, 127, stride=64, bias=False)
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.conv2 = nn.Conv1d(width, 2 * width, 7, stride=5)
        self.conv3 = nn.Linear(3 * 2 * width, width)

    def forward(self, samples: Tensor) -> Tensor:
        x = torch.tanh(self.conv1(samples[:, None])) * self.scale[:, None] + self.shift[:, None]
        # Taps 192 samples (3 frames of 64) apart, tokens 320 (5 frames) apart: only the frames needed are computed.
        frames = x.shape[2] - 6
        taps = [F.gelu(self.conv2(x[:, :, lag : lag + frames])) for lag in (0, 3, 6)]
        return F.gelu(self.conv3(torch.cat(taps, 1).transpose(1, 2)))


class Layer(nn.Module):
    """A transformer layer that attends to cached keys and values of the past as well as to its own tokens."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.width, bias=False)
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.norm2 = nn.LayerNorm(config.width, bias=False)
        self.fc1 = nn.Linear(config.width, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.width)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Output (B, T, width), and the tokens' own keys (before rotation) and values, (B, T, width) each.

        Args:
            x: (B, T, width).
            keys, values: (B, left, width) of the tokens before.
            turn: cosines and sines (left + T, rotary).
            mask: (T, left + T), true where a token may look; None for everywhere.
        """
        batch, length, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.reshape(batch, -1, self.heads, width // self.heads).transpose(1, 2)

        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        cos, sin = turn
        q = rotate(split(q), cos[-length:], sin[-length:])
        every_k = rotate(split(torch.cat((keys, k), 1)), cos, sin)
        every_v = split(torch.cat((values, v), 1))
        # Written out: at these sizes the fused kernel's backward pass takes a third longer on a CPU.
        score = (q * (width // self.heads) ** -0.5) @ every_k.transpose(2, 3)
        if mask is not None:
            score = score.masked_fill(~mask, -1e4)
        y = score.softmax(-1) @ every_v
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return x, k, v


class SpeechEncoder(nn.Module):
    """The network; `forward` takes whole hops, one or many, and gives the same either way."""

    hidden_mean: Tensor
    hidden_std: Tensor

    def __init__(self, config: SpeechEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SpeechEncoderConfig()
        if config.left % BLOCK:
            raise ValueError(f"expected left as whole blocks of {BLOCK} tokens, got {config.left}; give a multiple")
        self.stem = Stem(config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final = nn.LayerNorm(config.width, bias=False)
        self.phone_hidden = nn.Linear(config.width, config.head)
        self.phone_out = nn.Linear(config.head, len(PHONES))
        self.register_buffer("hidden_mean", torch.zeros(config.width))
        self.register_buffer("hidden_std", torch.ones(config.width))

    def forward(self, samples: Tensor, state: SpeechEncoderState) -> tuple[Tensor, SpeechEncoderState]:
        """Features of the hop before each hop given.

        Args:
            samples: (B, 1280 n) at 16 kHz, full scale 1.
            state: From `zero_state`, the bundle's initial state, or the call before.

        Returns:
            (B, 2 n, 368): hidden 288 (about unit variance) | phone probabilities of the first 50 Hz token 40 | of the
            second 40; and the next state.

        Raises:
            ValueError: samples are not whole hops.
        """
        if samples.shape[1] % HOP_SAMPLES or not samples.shape[1]:
            raise ValueError(
                f"expected whole hops of {HOP_SAMPLES} samples, got {samples.shape[1]} samples; "
                "let Stream buffer, or pad with zeros"
            )
        level, hops = state.level, state.hops
        levelled = [state.samples]
        for hop in samples.split(HOP_SAMPLES, 1):
            hop, level, hops = follow_level(hop, level, hops)
            levelled.append(hop)
        context = torch.cat(levelled, 1)
        tokens = torch.cat((state.tokens, self.stem(context)), 1)
        hidden, keys, values = self.attend(tokens, state.keys, state.values)
        return self.features(hidden), SpeechEncoderState(level, hops, context[:, -CONTEXT:], tokens[:, -AHEAD:], keys, values)

    def features(self, hidden: Tensor) -> Tensor:
        """Feature rows (B, 2 n, 368) of hidden states (B, 4 n, width)."""
        phones = self.phones(hidden).softmax(-1)
        pairs = (hidden[:, ::2] + hidden[:, 1::2]) / 2
        return torch.cat(((pairs - self.hidden_mean) / self.hidden_std, phones[:, ::2], phones[:, 1::2]), -1)

    def phones(self, hidden: Tensor) -> Tensor:
        """Phone logits (..., 40) of hidden states (..., width)."""
        logits: Tensor = self.phone_out(F.gelu(self.phone_hidden(hidden)))
        return logits

    def attend(self, tokens: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states of all tokens but the last three, in blocks of four that see three ahead.

        Args:
            tokens: (B, 4 m + 3, width).
            keys, values: (B, layers, left, width) of the tokens before; left may be 0, for training.

        Returns:
            (B, 4 m, width) and the next keys and values, the last `left` of each.
        """
        left = keys.shape[2]
        blocks = (tokens.shape[1] - AHEAD) // BLOCK
        place = torch.arange(BLOCK * blocks)
        block = place // BLOCK
        ahead = (torch.arange(blocks)[:, None] * BLOCK + BLOCK + torch.arange(AHEAD)).flatten()
        ahead_block = torch.arange(blocks).repeat_interleave(AHEAD)
        mask: Tensor | None = None
        if blocks > 1:
            key_block = torch.cat((torch.arange(-left, 0).div(BLOCK, rounding_mode="floor"), block, ahead_block))
            query_block = torch.cat((block, ahead_block))
            back = query_block[:, None] - key_block
            mask = (back >= 0) & (back <= self.config.left // BLOCK)
            mask[:, left + len(place) :] = back[:, left + len(place) :] == 0
            mask = mask.to(tokens.device)
        positions = [*range(-int(left), 0), *place.tolist(), *ahead.tolist()]
        turn = rotary_table(positions, self.config.rotary)
        cos, sin = turn[0].to(tokens.device), turn[1].to(tokens.device)
        x = torch.cat((tokens[:, : len(place)], tokens[:, ahead]), 1)
        next_keys, next_values = [], []
        for i, layer in enumerate(self.layers):
            x, k, v = layer(x, keys[:, i], values[:, i], (cos, sin), mask)
            next_keys.append(torch.cat((keys[:, i], k[:, : len(place)]), 1)[:, -self.config.left :])
            next_values.append(torch.cat((values[:, i], v[:, : len(place)]), 1)[:, -self.config.left :])
        hidden: Tensor = self.final(x[:, : len(place)])
        return hidden, torch.stack(next_keys, 1), torch.stack(next_values, 1)
