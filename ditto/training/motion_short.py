"""Teach the condition half of the motion network to do without the speech that a stream does not wait for.

    python -m ditto.training.motion_short CORPUS ditto/bundles/lite [--seconds 700] [--seed 0]

The network stands as it is in the bundle; a copy of its condition half learns. Teacher and pupil denoise the same frames;
the teacher hears all the speech around them, the pupil as much as `ditto.lite.sampler.fill` leaves of it. The pupil's best
answer is the mean of what the teacher says to all continuations. Writes `motion_condition_short.onnx` into the bundle.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor

from ditto.bundle import reseal
from ditto.lite.networks.motion_diffusion import (
    WINDOW,
    MotionCondition,
    MotionDiffusion,
    MotionDiffusionConfig,
    signal_level,
)
from ditto.training.motion import Batch, Corpus, Units, draw_batch, load_corpus, loss_weights
from ditto.training.motion_export import SAMPLER_PREFIX, example_arguments, export_onnx, half, read_weights

BATCH = 16  # windows of 80 frames, each cut into two
LEARNING_RATE = 8e-4
PAST, LENGTH, BEYOND = 22, 40, 16  # frames: known, of a pupil's window, and more that the teacher hears
LONGEST_AHEAD = 6  # frames heard beyond the two that are shown
NO_AHEAD = 0.6  # share of windows that hear none
SHOWN, SHOWN_WEIGHT = 2, 4.0  # frames that are shown count more than those that only give context


class Cut(NamedTuple):
    """Windows of `LENGTH` frames, and what the teacher hears of them (`LENGTH + BEYOND`)."""

    motion: Tensor
    features: Tensor
    eyes: Tensor
    emotion: Tensor
    canonical: Tensor


def cuts(batch: Batch) -> Cut:
    """Both ends of 80-frame windows: twice as many, `LENGTH + BEYOND` frames long."""
    size = LENGTH + BEYOND

    def both(x: Tensor) -> Tensor:
        return torch.cat([x[:, :size], x[:, WINDOW - size :]])

    twice = torch.cat([batch.emotion] * 2), torch.cat([batch.canonical] * 2)
    return Cut(both(batch.motion)[:, :LENGTH], both(batch.features), both(batch.eyes), *twice)


def unheard(rows: Tensor, heard: Tensor) -> Tensor:
    """(B, T, k) with the last of the `heard` (B,) frames repeated to the end, as `ditto.lite.sampler.fill` does."""
    frame = torch.arange(rows.shape[1]).expand(len(rows), -1).minimum(heard[:, None] - 1)
    return rows.gather(1, frame[..., None].expand_as(rows))


def distillation_loss(
    model: MotionDiffusion, pupil: MotionCondition, cut: Cut, heard: Tensor, level: Tensor, noise: Tensor
) -> Tensor:
    """Weighted square difference of what both make of the frames after the known ones."""
    known = torch.zeros(len(cut.motion), LENGTH, 1)
    known[:, :PAST] = 1.0
    signal = signal_level(level)[:, None]
    noisy = known * cut.motion + (1 - known) * (signal.sqrt() * cut.motion + (1 - signal).sqrt() * noise)
    ones = torch.ones(len(level), 1)
    with torch.no_grad():
        full = model.condition(cut.features, cut.emotion, cut.eyes, cut.canonical, ones)[:, :LENGTH]
        expected = model.denoiser(noisy, known, full, level)
    features, eyes = (unheard(x[:, :LENGTH], heard) for x in (cut.features, cut.eyes))
    guess = model.denoiser(noisy, known, pupil(features, cut.emotion, eyes, cut.canonical, ones), level)
    weight = torch.ones(LENGTH, 1)
    weight[:PAST] = 0.0
    weight[PAST : PAST + SHOWN] = SHOWN_WEIGHT
    square: torch.Tensor = (guess - expected) ** 2 * torch.from_numpy(loss_weights())
    return (square * weight).sum() / (weight.sum() * square.shape[0] * square.shape[2])


def train(corpus: Corpus, model: MotionDiffusion, units: Units, seconds: float, seed: int) -> MotionCondition:
    """The pupil after `seconds` of process CPU time (one thread): the running average of its weights."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    pupil = copy.deepcopy(model.condition).train()
    model.requires_grad_(False)
    average: MotionCondition = copy.deepcopy(pupil)
    optimizer = torch.optim.AdamW(pupil.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    begin, step, shown, smoothed = time.process_time(), 0, 0.0, 0.0
    while (spent := time.process_time() - begin) < seconds:
        rate = LEARNING_RATE * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * spent / seconds)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        cut = cuts(draw_batch(corpus, units, random, BATCH))
        size = len(cut.motion)
        ahead = torch.randint(1, LONGEST_AHEAD + 1, (size,)) * (torch.rand(size) >= NO_AHEAD)
        level = 0.999 * (1 - torch.rand(size, 1) ** 1.3)
        with torch.autocast("cpu", torch.bfloat16):
            loss = distillation_loss(model, pupil, cut, PAST + SHOWN + ahead, level, torch.randn_like(cut.motion))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        optimizer.step()
        step += 1
        keep = min(0.998, step / (step + 10.0))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), pupil.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        smoothed = loss.item() if step == 1 else 0.98 * smoothed + 0.02 * loss.item()
        if spent - shown > 30 or step == 5:
            shown = spent
            print(f"{spent:6.0f} s  step {step:5d}  loss {smoothed:.4f}", flush=True)
    print(f"done: {step} steps, loss {smoothed:.4f}")
    return average


def write(pupil: MotionCondition, config: MotionDiffusionConfig, folder: Path) -> None:
    """Write `motion_condition_short.onnx` into a folder, weights rounded to 16 bits."""
    half(pupil)
    arguments, _ = example_arguments(config)
    export_onnx(pupil, arguments, "condition", folder / "motion_condition_short.onnx")
    reseal(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=700.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    corpus = load_corpus(options.corpus, ("real", "made"))
    weights = options.bundle / "motion.safetensors"
    model = read_weights(weights, MotionDiffusionConfig())
    kept = load_file(str(weights))
    units = Units.of(corpus)._replace(**{name: kept[SAMPLER_PREFIX + name] for name in ("scale", "silence")})
    write(train(corpus, model, units, options.seconds, options.seed), model.config, options.bundle)


if __name__ == "__main__":
    main()
