"""Print what real faces do with each number and each relation of the lite motion map: the data behind its ranges.

Percentiles of tracked clips, mirrored ones added, and the extremes of ICT FaceKit's expression shapes at weight 1, one by one
and both sides together. The ranges in `ditto/motion/map.py` were set by hand from these.

    python -m ditto.training.motion_ranges tracks/grid_s1 tracks/natural_talk --shapes arkit478.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto.commands import Arguments, run, whole_number
from ditto.motion.map import LITE_MAP
from ditto.motion.motion import EXPRESSION, KEYPOINTS
from ditto.portrait.face_mesh import KEYPOINT_MIRROR
from ditto.training.mesh_basis import keypoint_changes, read_shapes
from ditto.training.motion_data import fill_gaps, real_clip

Floats = npt.NDArray[np.float64]

PERCENTILES = (0.2, 99.8)


def mirrored(faces: Floats) -> Floats:
    """(N, 63) -> (2 N, 63): the expressions and their mirror images."""
    points = faces.reshape(-1, KEYPOINTS, 3)
    return np.concatenate([points, points[:, KEYPOINT_MIRROR] * (-1.0, 1.0, 1.0)]).reshape(-1, 3 * KEYPOINTS)


def faces_of_clips(folder: Path, every: int) -> Floats:
    """(N, 63) expressions of every `every`-th frame of the tracks in a folder; clips without a face are left out."""
    faces = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as clip:
            try:
                landmarks = fill_gaps(clip["landmarks"])
            except ValueError as error:
                print(f"left out: {path.name}: {error}")
                continue
        faces.append(real_clip(landmarks).motion[::every, EXPRESSION].astype(np.float64))
    return mirrored(np.concatenate(faces))


def faces_of_shapes(path: Path) -> Floats:
    """(N, 63) expressions of the shapes at weight 1, and of both sides of a shape together."""
    with np.load(path) as archive:
        names = [str(name) for name in archive["names"]]
    shapes = keypoint_changes(read_shapes(path)).reshape(-1, 3 * KEYPOINTS)
    right = {name.removesuffix("Right"): i for i, name in enumerate(names) if name.endswith("Right")}
    both = [shapes[i] + shapes[right[n.removesuffix("Left")]] for i, n in enumerate(names) if n.removesuffix("Left") in right]
    return mirrored(np.concatenate([shapes, both]))


def main() -> None:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracks", type=Path, nargs="+", help="folders written by ditto.training.tracks")
    parser.add_argument("--shapes", type=Path, required=True, help="written by ditto.training.arkit")
    parser.add_argument("--every", type=whole_number(1, 10**6), default=4, help="use every n-th frame")
    options = parser.parse_args()
    sets = {folder.name: (faces_of_clips(folder, options.every), PERCENTILES) for folder in options.tracks}
    sets["shapes"] = (faces_of_shapes(options.shapes), (0.0, 100.0))
    names = [d.name for d in LITE_MAP] + [r.name for r in LITE_MAP.relations] + [w.name for w in LITE_MAP.wholes]
    low, high = LITE_MAP.safe
    ends = [*zip(low, high, strict=True), *((0.0, whole.safe) for whole in LITE_MAP.wholes)]
    found = []
    for faces, percentiles in sets.values():
        measures = LITE_MAP.measures(faces)
        found.append(np.percentile(np.concatenate([measures, LITE_MAP.sizes(measures)], 1), percentiles, axis=0))
    print(f"{'':42s}{'map':>17s}" + "".join(f"{name:>17s}" for name in sets))
    for i, (name, (a, b)) in enumerate(zip(names, ends, strict=True)):
        cells = "".join(f"   {low:+6.3f} {high:+6.3f}" for low, high in ((a, b), *(f[:, i] for f in found)))
        print(f"{name:42s}{cells}")


if __name__ == "__main__":
    run(main)
