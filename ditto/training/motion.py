"""Train the motion diffusion network on a corpus (see `ditto.training.corpus`).

    python -m ditto.training.motion CORPUS OUT [--seconds 2100] [--seed 0] [--resume CHECKPOINT]

Keeps OUT/checkpoint.pt; `ditto.training.motion_export` makes the bundle's files of it.
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ditto.full.networks.weights import load_state
from ditto.lite.networks.motion_diffusion import (
    EYE_SIZE,
    FEATURE_SIZE,
    HIDDEN_SIZE,
    MOTION_SIZE,
    WINDOW,
    MotionDiffusion,
    MotionDiffusionConfig,
    signal_level,
)
from ditto.lite.phones import PHONE_INDEX, PHONES
from ditto.motion.motion import (
    DEGREES,
    EXPRESSION,
    EYES,
    IRISES,
    KEYPOINTS,
    LIPS,
    TRANSLATION,
    UPPER_LIDS,
    Keypoint,
)
from ditto.portrait.face_mesh import KEYPOINT_MIRROR, TEMPLATE, keypoints

Array = npt.NDArray[np.float32]

BATCH = 24
PAST = 20
LEARNING_RATE = 1.5e-3
DROP_SPEECH = 0.1
FEATURE_NOISE = 0.05
REST_FADE = 15  # frames over which a clip that starts at rest reaches its own pose
POSE_SLICE = slice(0, EXPRESSION.start)


class Corpus(NamedTuple):
    """All clips, one after another; clip i is rows [start[i], start[i] + length[i])."""

    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    real: npt.NDArray[np.bool_]
    features: npt.NDArray[np.float16]
    motion: Array
    eyes: Array
    emotion: Array
    canonical: Array


def load_corpus(path: Path, kinds: tuple[str, ...]) -> Corpus:
    """Clips of the kinds `real`, `made` or `held` from a corpus file."""
    with np.load(path) as d:
        length = d["lengths"].astype(np.int64)
        start = np.concatenate([[0], np.cumsum(length)[:-1]]).astype(np.int64)
        chosen = np.isin(d["kind"], kinds)
        template = keypoints(TEMPLATE).reshape(-1).astype(np.float32)
        canonical = np.where(np.abs(d["canonical"]).sum(1, keepdims=True) > 0, d["canonical"], template)
        return Corpus(
            start[chosen],
            length[chosen],
            d["kind"][chosen] == "real",
            d["features"],
            d["motion"],
            d["eyes"],
            d["emotion"][chosen],
            canonical[chosen].astype(np.float32),
        )


def silence_row(corpus: Corpus) -> Array:
    """(368,) the median feature where both tokens are surely silent."""
    quiet = HIDDEN_SIZE + PHONE_INDEX["SIL"]
    f = corpus.features
    sure = np.minimum(f[:, quiet], f[:, quiet + len(PHONES)]) > 0.97
    row = np.median(f[sure].astype(np.float32), 0)
    for first in (HIDDEN_SIZE, HIDDEN_SIZE + len(PHONES)):
        row[first : first + len(PHONES)] /= row[first : first + len(PHONES)].sum()
    return np.asarray(row, np.float32)


def motion_scale(corpus: Corpus) -> Array:
    """(70,) units of the network: each dimension's own spread, never less than 0.15 of the widest expression."""
    rows = np.concatenate([corpus.motion[s : s + n] for s, n in zip(corpus.start, corpus.length, strict=True)])
    spread = rows.std(0)
    scale: Array = np.maximum(spread, 1e-4)
    scale[TRANSLATION] = np.maximum(spread[TRANSLATION].max(), 1e-3)
    scale[EXPRESSION] = np.maximum(spread[EXPRESSION], 0.15 * spread[EXPRESSION].max())
    return scale.astype(np.float32)


class Units(NamedTuple):
    """What is measured on a corpus before training.

    Attributes:
        scale: (70,) of motion, see `motion_scale`.
        silence: (368,) features of silence.
        feature_mean, feature_spread: (368,) of features.
    """

    scale: Array
    silence: Array
    feature_mean: Array
    feature_spread: Array

    @classmethod
    def of(cls, corpus: Corpus) -> Units:
        return cls(motion_scale(corpus), silence_row(corpus), *feature_normaliser(corpus))


def loss_weights() -> Array:
    """(70,) what an error costs: lips and lids most."""
    w = np.ones(MOTION_SIZE)
    w[DEGREES] = 2.0
    e = w[EXPRESSION].reshape(KEYPOINTS, 3)
    for k in LIPS:
        e[k] = 3.0
    e[Keypoint.LOWER_INNER_LIP, 1] = 8.0
    e[[Keypoint.UPPER_INNER_LIP, Keypoint.CHIN], 1] = 4.0
    for k in UPPER_LIDS:
        e[k, 1] = 5.0
    for k in IRISES:
        e[k, :2] = 2.0
    e[Keypoint.NECK] = 0.2
    return np.asarray(w / w.mean(), np.float32)


class Batch(NamedTuple):
    """Windows, T = 80 frames: motion in the network's units, `known` and `counts` (T, 1) masks."""

    motion: Tensor
    known: Tensor
    counts: Tensor
    features: Tensor
    eyes: Tensor
    emotion: Tensor
    canonical: Tensor


def draw_batch(corpus: Corpus, units: Units, random: np.random.Generator, size: int, augment: bool = True) -> Batch:
    """Random windows: half of real clips, half of generated ones; beginnings and ends as the sampler meets them."""
    m, f, e = (np.zeros((size, WINDOW, k), np.float32) for k in (MOTION_SIZE, FEATURE_SIZE, EYE_SIZE))
    known, counts = np.zeros((size, WINDOW, 1), np.float32), np.zeros((size, WINDOW, 1), np.float32)
    chosen = np.zeros(size, np.int64)
    pools = [np.flatnonzero(corpus.real), np.flatnonzero(~corpus.real)]
    pools = [p for p in pools if len(p)]
    for b in range(size):
        pool = pools[b % len(pools)]
        if b % len(pools) == 0 and len(pools) == 2:
            i = int(random.choice(pool))
        else:
            weight = corpus.length[pool].astype(np.float64)
            i = int(random.choice(pool, p=weight / weight.sum()))
        chosen[b] = i
        n = int(corpus.length[i])
        s = -PAST if random.random() < 0.25 else int(random.integers(-PAST, max(n - 40, -PAST + 1)))
        first, last = max(s, 0), min(s + WINDOW, n)
        rows = slice(int(corpus.start[i]) + first, int(corpus.start[i]) + last)
        at = slice(first - s, last - s)
        m[b, at], e[b, at] = corpus.motion[rows], corpus.eyes[rows]
        f[b] = units.silence
        f[b, at] = corpus.features[rows]
        e[b, : at.start, :2] = 1.0
        e[b, at.stop :] = e[b, at.stop - 1]
        if s < 0:
            rise = np.clip((np.arange(at.stop - at.start) + 1.0) / REST_FADE, 0.0, 1.0)
            rise = rise * rise * (3.0 - 2.0 * rise)
            m[b, at, POSE_SLICE] *= rise[:, None]
            faces = m[b, at, EXPRESSION].reshape(-1, KEYPOINTS, 3)
            still = [k for k in Keypoint if k not in (*LIPS, *EYES)]
            faces[:, still] *= rise[:, None, None]
        counts[b, at] = 1.0
        kind = random.random()
        past = PAST if kind < 0.6 else 0 if kind < 0.65 and s >= 0 else int(random.integers(1, 71))
        past = max(past, at.start)
        known[b, :past] = 1.0
        counts[b, :past] = 0.0
    c = corpus.canonical[chosen].copy()
    if augment:
        flip = random.random(size) < 0.5
        _mirror(m, e, c, flip)
        shape = c.reshape(size, KEYPOINTS, 3)
        shape *= random.normal(1.0, 0.06, (size, 1, 3))
        shape += random.normal(0.0, 0.012, shape.shape)
        hidden = f[..., :HIDDEN_SIZE]
        hidden += (
            FEATURE_NOISE * units.feature_spread[:HIDDEN_SIZE] * random.standard_normal(hidden.shape).astype(np.float32)
        )
    tensors = (m / units.scale, known, counts, f, e, corpus.emotion[chosen], c)
    return Batch(*(torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in tensors))


def _mirror(m: Array, e: Array, c: Array, flip: npt.NDArray[np.bool_]) -> None:
    """Mirror the chosen windows in place: motion, eyes and identity."""
    m[flip, :, 2:5] *= -1.0  # yaw, roll, t.x
    faces = m[flip, :, EXPRESSION].reshape(-1, WINDOW, KEYPOINTS, 3)[:, :, KEYPOINT_MIRROR]
    faces[..., 0] *= -1.0
    m[flip, :, EXPRESSION] = faces.reshape(-1, WINDOW, 3 * KEYPOINTS)
    eyes = e[flip][..., [1, 0, 3, 2, 5, 4, 7, 6]]
    eyes[..., 2:4] *= -1.0
    e[flip] = eyes
    shape = c[flip].reshape(-1, KEYPOINTS, 3)[:, KEYPOINT_MIRROR]
    shape[..., 0] *= -1.0
    c[flip] = shape.reshape(-1, 3 * KEYPOINTS)


def denoising_loss(
    model: MotionDiffusion, batch: Batch, level: Tensor, noise: Tensor, heard: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """x0 error with terms on velocity and acceleration (five times stronger for the pose): (total, x0 part)."""
    condition = model.condition(batch.features, batch.emotion, batch.eyes, batch.canonical, heard)
    signal = signal_level(level)[:, None]
    noisy = signal.sqrt() * batch.motion + (1 - signal).sqrt() * noise
    guess = model.denoiser(batch.known * batch.motion + (1 - batch.known) * noisy, batch.known, condition, level)
    error = (guess - batch.motion) * (1 - batch.known)  # known frames have no error: differences across their border count
    inside = batch.counts + batch.known
    smooth = weights.clone()
    smooth[POSE_SLICE] *= 5.0
    x0 = (error**2 * batch.counts * weights).sum() / (batch.counts.sum() * MOTION_SIZE)
    speed = error.diff(dim=1)
    pairs = (inside[:, 1:] * inside[:, :-1]).clamp(max=1.0)
    change = speed.diff(dim=1)
    triples = (pairs[:, 1:] * pairs[:, :-1]).clamp(max=1.0)
    total = x0 + (speed**2 * pairs * smooth).sum() / (pairs.sum() * MOTION_SIZE)
    total = total + (change**2 * triples * smooth).sum() / (triples.sum() * MOTION_SIZE)
    return total, x0


def train(
    corpus: Corpus, out: Path, seconds: float, seed: int, resume: Path | None, config: MotionDiffusionConfig
) -> None:
    """Train for `seconds` of process CPU time (one thread) and write `checkpoint.pt` into `out`.

    `resume` gives the weights to start from; units are measured on this corpus all the same.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    out.mkdir(parents=True, exist_ok=True)
    units = Units.of(corpus)
    model = MotionDiffusion(config)
    if resume is not None:
        load_state(model, torch.load(resume, weights_only=True)["model"], resume)
    model.condition.feature_mean.copy_(torch.from_numpy(units.feature_mean))
    model.condition.feature_scale.copy_(torch.from_numpy(1.0 / units.feature_spread))
    average = copy.deepcopy(model)
    weights = torch.from_numpy(loss_weights())
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    begin, step, shown, smoothed = time.process_time(), 0, 0.0, 0.0
    while (spent := time.process_time() - begin) < seconds:
        rate = LEARNING_RATE * min(1.0, (step + 1) / 150) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * spent / seconds)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = draw_batch(corpus, units, random, BATCH)
        size = len(batch.motion)
        level = 0.999 * (1 - torch.rand(size, 1) ** 1.3)  # a little more often noisy than not
        heard = (torch.rand(size, 1) >= DROP_SPEECH).float()
        with torch.autocast("cpu", torch.bfloat16):
            total, x0 = denoising_loss(model, batch, level, torch.randn_like(batch.motion), heard, weights)
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        keep = min(0.998, step / (step + 10.0))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        smoothed = x0.item() if step == 1 else 0.98 * smoothed + 0.02 * x0.item()
        if spent - shown > 30 or step == 5:
            shown = spent
            print(f"{spent:6.0f} s  step {step:5d}  x0 {smoothed:.4f}", flush=True)
            _save(out, average, units, step, spent)
    _save(out, average, units, step, time.process_time() - begin)
    print(f"done: {step} steps, x0 {smoothed:.4f}")


def feature_normaliser(corpus: Corpus) -> tuple[Array, Array]:
    """Mean and spread (368,) of the features; probabilities keep their zero and are only scaled."""
    rows = corpus.features[:: max(1, len(corpus.features) // 50000)].astype(np.float32)
    mean, spread = rows.mean(0), rows.std(0) + 1e-3
    mean[HIDDEN_SIZE:], spread[HIDDEN_SIZE:] = 0.0, 0.35
    return mean, spread


def _save(out: Path, model: MotionDiffusion, units: Units, step: int, spent: float) -> None:
    checkpoint = {
        "model": model.state_dict(),
        "config": asdict(model.config),
        "scale": torch.from_numpy(units.scale),
        "silence": torch.from_numpy(units.silence),
        "step": step,
        "seconds": spent,
    }
    partial = out / "checkpoint.pt.partial"
    torch.save(checkpoint, partial)
    partial.replace(out / "checkpoint.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=2100.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path)
    options = parser.parse_args()
    corpus = load_corpus(options.corpus, ("real", "made"))
    train(corpus, options.out, options.seconds, options.seed, options.resume, MotionDiffusionConfig())


if __name__ == "__main__":
    main()
