"""Measure the motion sampler of a bundle on a corpus, before anything is rendered.

    python -m ditto.training.motion_eval corpus.npz ditto/bundles/lite [--clips 40] [--steps 10] [--guidance 1.0]

Held-out real clips: correlation of the lips' opening with the speaker's, ratio of its spread and acceleration.
Speech without a face: the same ratios for the head pose against the generated corpus, lids against the eye state they
were given, how much the head differs between seeds. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ditto.bundle import Bundle
from ditto.commands import Arguments, run, whole_number
from ditto.engines import Tensor as EngineTensor
from ditto.full.networks.lmdm import LMDM, ddim_sample, ddim_schedule
from ditto.lite.performer import postprocess_config
from ditto.lite.sampler import MotionNetwork, MotionSampler, SamplerState, silence_of
from ditto.motion.emotion import emotion_vector
from ditto.motion.eyes import eye_keypoints, initial_eyes, step_eyes
from ditto.motion.motion import EXPRESSION, KEYPOINTS, LAYOUT_265, MOTION_SIZE, Keypoint, rotation_matrix
from ditto.portrait.face_mesh import TEMPLATE, keypoints
from ditto.training.motion_batches import WINDOW, Corpus, Units

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

NEUTRAL = emotion_vector(None)
LAGS = range(-5, 6)


def head_frame(motion: Array) -> Floats:
    """(T, 70) motion as emitted -> (T, 21, 3) expression in the head frame."""
    turn = rotation_matrix(motion[:, 1], motion[:, 2], motion[:, 3])
    return np.asarray(motion[:, 7:].reshape(-1, KEYPOINTS, 3) @ np.swapaxes(turn, 1, 2))


def opening(faces: Floats) -> Floats:
    """(T, 21, 3) -> (T,) gap between the inner lips, fu."""
    return faces[:, Keypoint.LOWER_INNER_LIP, 1] - faces[:, Keypoint.UPPER_INNER_LIP, 1]


def width(faces: Floats) -> Floats:
    """(T, 21, 3) -> (T,) between the corners of the mouth, fu."""
    return faces[:, Keypoint.LEFT_MOUTH_CORNER, 0] - faces[:, Keypoint.RIGHT_MOUTH_CORNER, 0]


def agreement(made: Floats, real: Floats) -> tuple[float, float, int]:
    """Correlation at zero lag, at the best lag, and that lag in frames (positive: made comes later)."""
    n = min(len(made), len(real))
    a, b = made[:n], real[:n]
    found = {}
    for lag in LAGS:
        later, earlier = max(lag, 0), max(-lag, 0)
        found[lag] = float(np.corrcoef(a[later : n - earlier], b[earlier : n - later])[0, 1])
    best = max(found, key=lambda lag: found[lag])
    return found[0], found[best], best


def acceleration(x: npt.ArrayLike) -> Floats:
    """Root mean square second difference along time."""
    return np.asarray(np.sqrt((np.diff(np.asarray(x, np.float64), 2, axis=0) ** 2).mean(0)))


class ModuleEngine:
    """A half of the motion network in torch, called as the sampler calls its engines."""

    inputs: tuple[EngineTensor, ...] = ()
    outputs: tuple[EngineTensor, ...] = ()

    def __init__(self, module: nn.Module, output: str) -> None:
        self._module, self._output = module, output

    def __call__(self, **arrays: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        device = next(self._module.parameters()).device
        with torch.no_grad():
            given = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
            return {self._output: self._module(**given).cpu().numpy()}


class LipFigures(NamedTuple):
    """How lips follow a real speaker's.

    Attributes:
        opening, width: correlation of the lips' opening and width at zero lag; 0 where they do not move.
        spread: standard deviation of the opening against the speaker's.
    """

    opening: float
    width: float
    spread: float

    @property
    def score(self) -> float:
        """Mean correlation of opening and width."""
        return 0.5 * (self.opening + self.width)


def sampled_state(
    sampler: MotionSampler, corpus: Corpus, clip: int, seed: int = 0, widest: float | None = None
) -> tuple[Array, SamplerState]:
    """Motion (T, 70) as emitted for the speech of a clip, with its own identity and emotion, and the state after it.

    `widest` is the running opening of the lips that the clip begins with; that of the network by default.
    """
    rows = corpus.rows(clip)
    face = corpus.canonical[corpus.look_start[clip]].reshape(KEYPOINTS, 3)
    state = sampler.initial_state(face, np.ones(2), seed)
    if widest is not None:
        state = state._replace(widest=widest)
    return sampler(corpus.features[rows].astype(np.float32), corpus.emotion[clip], state, final=True)


def sampled(sampler: MotionSampler, corpus: Corpus, clip: int, seed: int = 0) -> Array:
    """(T, 70) motion of `sampled_state`."""
    return sampled_state(sampler, corpus, clip, seed)[0]


def torch_sampler(engines: MotionNetwork, network: nn.Module, steps: int = 10) -> MotionSampler:
    """A sampler around a `MotionDiffusion`, at the offline plan; the other numbers are those of `engines`."""
    condition, denoiser = (
        ModuleEngine(getattr(network, name), output)
        for name, output in (("condition", "condition"), ("denoiser", "clean"))
    )
    engines = engines._replace(condition=condition, short_condition=condition, denoiser=denoiser)
    return MotionSampler(engines, steps=steps)


def measure_lips(sampler: MotionSampler, corpus: Corpus, clips: Sequence[int] | None = None) -> LipFigures:
    """Means over clips (numbers; all by default) of motion from a sampler, beside the real motion of 70 numbers."""
    found = [
        lip_figures(head_frame(sampled(sampler, corpus, clip)), _faces(corpus.motion[corpus.rows(clip)]))
        for clip in (range(len(corpus.length)) if clips is None else clips)
    ]
    return LipFigures(*np.mean(found, 0).tolist())


class LipScore:
    """How well the lips of sampled motion follow the real speaker's on held clips: larger is better.

    The mean over the clips of the correlations of the lips' opening and width at zero lag, of motion from the sampler with
    its postprocessing, at the offline plan, each clip with its own identity and emotion. Lips that never move count 0.

    Args:
        corpus: of held clips, at least one.
        network: the spread of the starting noise and the postprocessing; its engines are not used.
        units: scale and silence of the network that is scored.
        clips: the most clips that are sampled, spread over the corpus.
        steps: of the sampler.
    """

    def __init__(self, corpus: Corpus, network: MotionNetwork, units: Units, clips: int = 24, steps: int = 10) -> None:
        self._corpus, self._steps = corpus, steps
        self._network = network._replace(scale=units.scale, silence=units.silence)
        count = len(corpus.length)
        self._clips = [int(i) for i in np.linspace(0, count - 1, min(clips, count)).astype(np.int64)]

    def __call__(self, network: nn.Module) -> float:
        """The score of a `MotionDiffusion`."""
        return measure_lips(self.sampler(network), self._corpus, self._clips).score

    def sampler(self, network: nn.Module) -> MotionSampler:
        """The sampler that is scored, around a `MotionDiffusion`."""
        return torch_sampler(self._network, network, self._steps)


class FullLipScore:
    """`LipScore` for the LMDM: windows of 80 frames, each from the last frame of the one before, 10 steps, no guidance.

    Args:
        corpus: of held clips, motion of the network's size.
        units: scale and silence of the network.
        clips: the most clips that are sampled.
    """

    def __init__(self, corpus: Corpus, units: Units, clips: int = 24, steps: int = 10) -> None:
        self._corpus, self._units, self._schedule = corpus, units, ddim_schedule(steps)
        count = len(corpus.length)
        self._clips = [int(i) for i in np.linspace(0, count - 1, min(clips, count)).astype(np.int64)]

    def __call__(self, network: nn.Module) -> float:
        """The score of an `LMDM`."""
        assert isinstance(network, LMDM)
        return float(np.mean([lip_figures(*self._pair(network, clip)).score for clip in self._clips]))

    def _pair(self, network: LMDM, clip: int) -> tuple[Array, Array]:
        c, scale = self._corpus, torch.from_numpy(self._units.scale)
        device = next(network.parameters()).device
        first, length = int(c.start[clip]), int(c.length[clip])
        generator = torch.Generator().manual_seed(0)
        still = np.concatenate([c.canonical[c.look_start[clip]]])
        before, made = torch.from_numpy(c.motion[first : first + 1]) / scale, []
        for begin in range(1, length, WINDOW):
            frames = np.minimum(np.arange(begin, begin + WINDOW), length - 1) + first
            rows = (
                c.features[frames].astype(np.float32), np.tile(c.emotion[clip], (WINDOW, 1)), c.eyes[frames],
                np.tile(still, (WINDOW, 1)),
            )  # fmt: skip
            cond = torch.from_numpy(np.concatenate(rows, 1))[None]
            noises = [torch.randn(1, WINDOW, len(scale), generator=generator) for _ in range(len(self._schedule) + 1)]
            with torch.no_grad():
                window = ddim_sample(
                    network, before.to(device), cond.to(device), noises[0].to(device),
                    [noise.to(device) for noise in noises[1:]], self._schedule, guidance=1.0,
                )[0].cpu()  # fmt: skip
            before = window[-1:]
            made.append((window * scale).numpy())
        real = c.motion[first + 1 : first + length]
        return _faces(np.concatenate(made)[: len(real)]), _faces(real)


def _faces(motion: Array) -> Array:
    """(T, 70 or 265) head-frame motion -> (T, 21, 3)."""
    where = EXPRESSION if motion.shape[1] == MOTION_SIZE else LAYOUT_265["exp"]
    return motion[:, where].reshape(-1, KEYPOINTS, 3)


def lip_figures(made: npt.ArrayLike, real: npt.ArrayLike) -> LipFigures:
    """Of two runs of faces (T, 21, 3)."""
    ours, theirs = np.asarray(made, np.float64), np.asarray(real, np.float64)

    def correlation(a: Floats, b: Floats) -> float:
        return float(np.corrcoef(a, b)[0, 1]) if min(a.std(), b.std()) > 1e-9 else 0.0

    spread = opening(ours).std() / max(opening(theirs).std(), 1e-9)
    return LipFigures(
        correlation(opening(ours), opening(theirs)), correlation(width(ours), width(theirs)), float(spread)
    )


def main() -> None:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clips", type=whole_number(1, 10**6), default=40)
    parser.add_argument("--steps", type=whole_number(1, 10**3), default=10)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--lip-temperature", type=float)
    options = parser.parse_args()
    with np.load(options.corpus) as d:
        kind, length = d["kind"], d["lengths"]
        features, motion = d["features"], d["motion"]
    start = np.concatenate([[0], np.cumsum(length)[:-1]])
    bundle = Bundle.open(options.bundle)
    network = MotionNetwork.open(bundle.path, postprocess_config(bundle))
    if options.lip_temperature is not None:
        changed = np.where(network.temperature < 1.0, options.lip_temperature, network.temperature)
        network = network._replace(temperature=changed.astype(np.float32))
    sampler = MotionSampler(network, steps=options.steps, guidance=options.guidance)
    face, eyes_open = keypoints(TEMPLATE), np.ones(2)

    def sample(i: int, seed: int = 0) -> tuple[Array, Array]:
        heard = features[start[i] : start[i] + length[i]].astype(np.float32)
        made, _ = sampler(heard, NEUTRAL, sampler.initial_state(face, eyes_open, seed), final=True)
        return made, heard

    def spread(indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return indices[np.linspace(0, len(indices) - 1, min(options.clips, len(indices))).astype(np.int64)]

    matches, lips = [], []
    for i in spread(np.flatnonzero(kind == "held")):
        ours = opening(head_frame(sample(int(i))[0]))
        real = opening(motion[start[i] : start[i] + length[i], 7:].reshape(-1, KEYPOINTS, 3).astype(np.float64))
        matches.append(agreement(ours, real))
        lips.append((ours.std() / real.std(), float(acceleration(ours) / acceleration(real))))

    poses, changes, expected, wanted_changes, lids, seeds = [], [], [], [], [], []
    frames, seconds = 0, 0.0
    for n, i in enumerate(spread(np.flatnonzero((kind == "made") & (length > 150)))):
        begun = time.process_time()
        made, heard = sample(int(i))
        seconds += time.process_time() - begun
        frames += len(made)
        poses.append(made[:, 1:4].std(0))
        changes.append(acceleration(made[:, 1:4]))
        truth = motion[start[i] : start[i] + length[i], 1:4]
        expected.append(truth.std(0))
        wanted_changes.append(acceleration(truth))
        given = eye_keypoints(step_eyes(initial_eyes(), silence_of(heard), 0)[0])[Keypoint.RIGHT_UPPER_LID][:, 1]
        lids.append(float(np.corrcoef(head_frame(made)[:, Keypoint.RIGHT_UPPER_LID, 1], given)[0, 1]))
        if n < 5:
            seeds.append(np.stack([sample(int(i), s)[0][:150, 2] for s in range(4)]).std(0).mean())
    matched = np.array(matches)
    print(
        json.dumps(
            {
                "held-out lips, r at zero lag": round(float(matched[:, 0].mean()), 3),
                "r at best lag": round(float(matched[:, 1].mean()), 3),
                "median |lag|": float(np.median(np.abs(matched[:, 2]))),
                "lip spread ratio": round(float(np.mean([x[0] for x in lips])), 3),
                "lip acceleration ratio": round(float(np.mean([x[1] for x in lips])), 3),
                "pose spread ratio": (np.mean(poses, 0) / np.mean(expected, 0)).round(2).tolist(),
                "pose acceleration ratio": (np.mean(changes, 0) / np.mean(wanted_changes, 0)).round(2).tolist(),
                "pose spread, degrees": np.mean(poses, 0).round(2).tolist(),
                "lids, r to the eye state": round(float(np.mean(lids)), 4),
                "yaw between seeds, degrees": round(float(np.mean(seeds)), 2),
                "CPU ms per 50 emitted frames": round(1000 * seconds / frames * 50, 1),
            }
        )
    )


if __name__ == "__main__":
    run(main)
