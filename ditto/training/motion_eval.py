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
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto.bundle import Bundle
from ditto.lite.performer import postprocess_config
from ditto.lite.sampler import MotionNetwork, MotionSampler, silence_of
from ditto.motion.emotion import emotion_vector
from ditto.motion.eyes import eye_keypoints, initial_eyes, step_eyes
from ditto.motion.motion import KEYPOINTS, Keypoint, rotation_matrix
from ditto.portrait.face_mesh import TEMPLATE, keypoints

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--steps", type=int, default=10)
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
    main()
