"""Training of the sync scorer: two towers, the loss, the loop. `ditto.training.sync` has the command and the result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ditto.lite.speech_encoder import FEATURE_SIZE
from ditto.training.dataset import write_bytes
from ditto.training.sync import CONTEXT, EMBEDDING, KERNEL, LAYERS, NUMBERS, STEPS, Pair

Array = npt.NDArray[np.float32]

CLIPS, FRAMES = 16, 50  # a batch: windows of so many clips, of so many frames
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
TEMPERATURE = 0.07  # Wu et al., arXiv:1805.01978, and most who followed
DROPOUT = 0.2
# Lips that other trackers and other people give: each number louder or softer, noisier, or (one in ten) missing.
GAIN_SPREAD, NOISE, MISSING = 0.25, 0.2, 0.1


class Tower(nn.Module):
    """(B, C, T + 12) -> (B, 64, T) of unit length, each from 13 frames."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv1d(channels, EMBEDDING, 1)
        self.drop = nn.Dropout(DROPOUT)
        self.layers = nn.ModuleList(nn.Conv1d(EMBEDDING, EMBEDDING, KERNEL) for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.enter(x))
        for layer in self.layers:
            x = layer(F.gelu(x, approximate="tanh"))
        return F.normalize(x, dim=1)


class SyncNetwork(nn.Module):
    """Both towers. Speech features come as they are: their mean and spread are part of the weights."""

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lips = Tower(NUMBERS)
        self.speech = Tower(FEATURE_SIZE)
        self.register_buffer("mean", torch.zeros(FEATURE_SIZE))
        self.register_buffer("spread", torch.ones(FEATURE_SIZE))

    def embed_lips(self, lips: Tensor) -> Tensor:
        """(B, T + 12, 7) -> (B, T, 64)."""
        found: Tensor = self.lips(lips.mT).mT
        return found

    def embed_speech(self, features: Tensor) -> Tensor:
        """(B, T + 12, 368) -> (B, T, 64)."""
        found: Tensor = self.speech(((features - self.mean) / self.spread).mT).mT
        return found


def contrast(lips: Tensor, speech: Tensor) -> Tensor:
    """InfoNCE between lips and speech (N, 64) of unit length, both ways: row n of one belongs to row n of the other.

    Source: Oord et al., arXiv:1807.03748, eq. 4, with the cosine over a temperature as the score.
    """
    logits = lips @ speech.mT / TEMPERATURE
    here = torch.arange(len(logits))
    return (F.cross_entropy(logits, here) + F.cross_entropy(logits.mT, here)) / 2


def train(pools: Sequence[Sequence[Pair]], steps: int = STEPS, seed: int = 0) -> SyncNetwork:
    """Train the network; the same pairs, steps and seed give the same weights, bit for bit, on one machine and one thread.

    Args:
        pools: pairs of a kind each. Every batch is of one pool, in turn: that generated lips go with voices of another corpus
            would be learnt at once, and help nothing.

    Raises:
        ValueError: a pool without a pair as long as a window.
    """
    length = FRAMES + CONTEXT
    usable = [[pair for pair in pool if len(pair.lips) >= length] for pool in pools]
    if not usable or not all(usable):
        raise ValueError(
            f"expected a clip of {length} frames or more in each pool, got {[len(pool) for pool in usable]}; give longer clips"
        )
    random = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SyncNetwork()
        # Each kind counts alike, however long it is.
        moments = [_moments(pool) for pool in usable]
        mean = np.mean([m for m, _ in moments], 0)
        square = np.mean([s for _, s in moments], 0)
        network.mean.copy_(torch.from_numpy(mean))
        network.spread.copy_(torch.from_numpy(np.sqrt(np.maximum(square - mean**2, 1e-6))))
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
        for step in range(steps):
            lips, features = _batch(usable[step % len(usable)], length, random)
            loss = contrast(network.embed_lips(lips).flatten(0, 1), network.embed_speech(features).flatten(0, 1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 100 < len(usable):
                print(f"step {step}, pool {step % len(usable)}: loss {loss.item():.3f}", flush=True)
    return network.eval()


def _rate(done: float) -> float:
    """Share of the learning rate: up over a tenth of the training, then a cosine down to 0."""
    return min((done + 1e-3) / 0.1, 0.5 + 0.5 * math.cos(math.pi * done))


def _moments(pool: Sequence[Pair]) -> tuple[Array, Array]:
    """(368,) mean and mean square of the features of a pool, over its clips."""
    each = [(f.mean(0), (f**2).mean(0)) for f in (pair.features.astype(np.float32) for pair in pool)]
    return np.mean([m for m, _ in each], 0), np.mean([s for _, s in each], 0)


def _batch(pool: Sequence[Pair], length: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Lips (16, length, 7), varied, and features (16, length, 368) of as many clips."""
    lips, features = [], []
    for i in random.choice(len(pool), CLIPS, replace=len(pool) < CLIPS):
        pair = pool[i]
        start = int(random.integers(len(pair.lips) - length + 1))
        lips.append(pair.lips[start : start + length])
        features.append(pair.features[start : start + length].astype(np.float32))
    seen = np.stack(lips)
    each = (CLIPS, 1, NUMBERS)
    gain = np.exp(GAIN_SPREAD * random.standard_normal(each)) * (random.random(each) >= MISSING)
    varied = seen * gain + NOISE * random.random((CLIPS, 1, 1)) * random.standard_normal(seen.shape)
    return torch.from_numpy(varied.astype(np.float32)), torch.from_numpy(np.stack(features))


def save(network: SyncNetwork, file: Path, about: dict[str, str]) -> None:
    """Write weights of 16 bits, and `about` as their metadata; the file appears whole. Raises OutputError."""
    write_bytes(file, to_bytes({name: values.half() for name, values in network.state_dict().items()}, metadata=about))
