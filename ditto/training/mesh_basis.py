"""Fit the lite renderer's learned part: the basis from 21 keypoints to the 478-landmark mesh, and the clamps.

Ridge regression of landmark change on keypoint change, on tracked clips (each clip's median face as neutral, mirrored
data added) plus ICT FaceKit's expression shapes at a share of the clips' energy, so that what a speaker never does
(brows, sneers, one-sided smiles) has a direction too. Closed form: no seed, no steps. Clips for `--test` are only
measured.

    python -m ditto.training.mesh_basis tracks/grid_s1=0.8 tracks/grid_other=0.2 --shapes arkit478.npz \\
        --test tracks/driving --out ditto/bundles/lite/renderer.safetensors
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.commands import Arguments, run, whole_number
from ditto.lite.rendering.deform import BASIS_KEYPOINTS
from ditto.media.files import check_output_file, write_file
from ditto.motion.motion import UPPER_LIDS
from ditto.portrait import face_mesh as g

Floats = npt.NDArray[np.float64]

RIDGE = 1e-3  # of the mean diagonal of the Gram matrix
SHAPE_ENERGY = 0.1  # of the clips' energy
SHAPE_DEPTH = 0.4  # ICT's depth against what the landmark tracker reports
CLAMP_PERCENTILE = 99.9
CLAMP_GAIN = 2.5  # over what calm speakers do
SHAPE_GAIN = 1.5  # over an expression shape at full weight
SOURCE_REACH = 0.75  # of a keypoint's whole range: the source may itself be near either end
SMALLEST_BOX = 0.02  # fu
LID_BOX = (-0.08, 0.2)  # fu; wide eyes close by more than the clips and the shapes show

GROUPS: dict[str, list[int]] = {
    "inner lip": g.UPPER_INNER_LIP + g.LOWER_INNER_LIP,
    "outer lip": g.UPPER_OUTER_LIP + g.LOWER_OUTER_LIP,
    "upper lid": g.RIGHT_EYE.upper[1:-1] + g.LEFT_EYE.upper[1:-1],
    "lower lid": g.RIGHT_EYE.lower[1:-1] + g.LEFT_EYE.lower[1:-1],
    "brow": [70, 63, 105, 66, 107, 300, 293, 334, 296, 336],
    "jaw": [152, 148, 377, 176, 400, 149, 378, 150, 379],
    "cheek": [50, 205, 280, 425, 187, 411, 123, 352, 36, 266],
    "all": list(range(468)),
}


class Moments(NamedTuple):
    """Second moments of keypoint change (54) and landmark change (1434), per sample."""

    gram: Floats  # (54, 54)
    cross: Floats  # (54, 1434)
    keypoint_changes: Floats  # (N, 21, 3), mirrored ones included


def canonical_changes(path: Path, every: int) -> Floats:
    """(N, 478, 3) fu: change of the posed-out face of every `every`-th frame against the clip's median face."""
    with np.load(path) as clip:
        landmarks = clip["landmarks"].astype(np.float64)
    landmarks = landmarks[~np.isnan(landmarks[:, 0, 0])]
    if not len(landmarks):
        return np.zeros((0, g.LANDMARKS, 3))
    canonical = np.stack([g.fit_head(frame)[3] for frame in landmarks[::every]])
    return canonical - np.median(canonical, 0)


def read_shapes(path: Path) -> Floats:
    """(51, 478, 3) fu: expression shapes at full weight; `mouthClose` changes the open jaw, so it comes on one."""
    with np.load(path) as archive:
        deltas: Floats = archive["deltas"].astype(np.float64) * (1.0, 1.0, SHAPE_DEPTH)
        names = [str(name) for name in archive["names"]]
    deltas[names.index("mouthClose")] += deltas[names.index("jawOpen")]
    return deltas


def keypoint_changes(changes: Floats) -> Floats:
    """(N, 478, 3) landmark changes -> (N, 21, 3); the neck anchor does not change."""
    means: Floats = np.einsum("kv,nvd->nkd", g.SELECTOR, changes)
    return means


def mirrored(changes: Floats) -> Floats:
    return changes[:, g.MIRROR] * (-1.0, 1.0, 1.0)


def moments(batches: Iterable[Floats]) -> Moments:
    """Moments of batches (N, 478, 3) and of their mirror images."""
    inputs, outputs = 3 * len(BASIS_KEYPOINTS), 3 * g.LANDMARKS
    gram, cross, all_changes = np.zeros((inputs, inputs)), np.zeros((inputs, outputs)), []
    for batch in batches:
        for changes in (batch, mirrored(batch)):
            keypoints = keypoint_changes(changes)
            x = keypoints[:, BASIS_KEYPOINTS].reshape(len(changes), inputs)
            gram += x.T @ x
            cross += x.T @ changes.reshape(len(changes), outputs)
            all_changes.append(keypoints)
    stacked = np.concatenate(all_changes)
    return Moments(gram / len(stacked), cross / len(stacked), stacked)


def mix(parts: list[Moments], shares: list[float]) -> Moments:
    """Weighted mean of moments."""
    weights = np.asarray(shares) / sum(shares)
    gram = sum(w * p.gram for w, p in zip(weights, parts, strict=True))
    cross = sum(w * p.cross for w, p in zip(weights, parts, strict=True))
    return Moments(np.asarray(gram), np.asarray(cross), np.concatenate([p.keypoint_changes for p in parts]))


def fit(data: Moments) -> Floats:
    """(54, 478, 3) basis."""
    damping = RIDGE * np.trace(data.gram) / len(data.gram) * np.eye(len(data.gram))
    return np.linalg.solve(data.gram + damping, data.cross).reshape(-1, g.LANDMARKS, 3)


def clamps(data: Moments, clips: Moments, shapes: Moments) -> dict[str, Floats]:
    """Principal components (54, 54) of keypoint change, their limits (54,), and the keypoints' boxes (21, 3)."""
    components = np.linalg.eigh(data.gram)[1].T[::-1]
    limits, boxes = [], []
    for part, percentile, gain in ((clips, CLAMP_PERCENTILE, CLAMP_GAIN), (shapes, 100.0, SHAPE_GAIN)):
        flat = part.keypoint_changes[:, BASIS_KEYPOINTS].reshape(len(part.keypoint_changes), -1)
        limits.append(gain * np.percentile(np.abs(flat @ components.T), percentile, axis=0))
        low = np.percentile(part.keypoint_changes, 100.0 - percentile, axis=0)
        boxes.append(gain * np.stack([low, np.percentile(part.keypoint_changes, percentile, axis=0)]))
    low, high = np.minimum(boxes[0][0], boxes[1][0]), np.maximum(boxes[0][1], boxes[1][1])
    reach = np.maximum(SOURCE_REACH * (high - low), SMALLEST_BOX)
    low, high = np.minimum(low, -reach), np.maximum(high, reach)
    low[list(UPPER_LIDS), 1], high[list(UPPER_LIDS), 1] = LID_BOX
    return {"components": components, "component_limits": np.maximum(*limits), "low": low, "high": high}


def measure(basis: Floats, paths: Iterable[Path], every: int = 1) -> dict[str, float]:
    """xy RMS in 1e-3 fu per group, mean over clips; `no motion ...` is what a still mesh scores."""
    rows = []
    for path in paths:
        changes = canonical_changes(path, every)
        x = keypoint_changes(changes)[:, BASIS_KEYPOINTS].reshape(len(changes), -1)
        error = changes - (x @ basis.reshape(x.shape[1], -1)).reshape(changes.shape)
        squares = {name: (e[..., :2] ** 2).sum(-1) for name, e in (("", error), ("no motion ", changes))}
        rows.append({n + k: np.sqrt(s[:, ids].mean()) for n, s in squares.items() for k, ids in GROUPS.items()})
    return {key: round(1e3 * float(np.mean([row[key] for row in rows])), 2) for key in rows[0]}


def main() -> None:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracks", nargs="+", help="folders written by ditto.training.tracks, each as FOLDER=SHARE")
    parser.add_argument("--shapes", type=Path, required=True, help="written by ditto.training.arkit")
    parser.add_argument("--test", type=Path, help="folder of tracks to measure on, never trained on")
    parser.add_argument("--every", type=whole_number(1, 10**6), default=4, help="use every n-th frame")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    check_output_file(options.out)

    from safetensors.numpy import save

    from ditto.bundle import reseal

    parts, shares = [], []
    for entry in options.tracks:
        folder, _, share = entry.rpartition("=")
        paths = sorted(Path(folder).glob("*.npz"))
        parts.append(moments(canonical_changes(p, options.every) for p in paths))
        shares.append(float(share))
        print(f"{folder}: {len(paths)} clips, {len(parts[-1].keypoint_changes)} samples, share {share}")
    clips = mix(parts, shares)
    shapes = moments([read_shapes(options.shapes)])
    weight = SHAPE_ENERGY * np.trace(clips.gram) / np.trace(shapes.gram)
    data = Moments(clips.gram + weight * shapes.gram, clips.cross + weight * shapes.cross, clips.keypoint_changes)
    arrays = {"basis": fit(data), **clamps(data, clips, shapes)}
    arrays = {name: np.ascontiguousarray(array.astype(np.float16)) for name, array in arrays.items()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_file(options.out, save(arrays))
    reseal(options.out.parent)
    if options.test:
        paths = sorted(options.test.glob("*.npz"))
        for name, value in measure(arrays["basis"].astype(np.float64), paths).items():
            print(f"{name:22s} {value:6.2f}")


if __name__ == "__main__":
    run(main)
