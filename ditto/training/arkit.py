"""Transfer ICT FaceKit's expression shapes (MIT; ARKit's names) to the 478-landmark mesh.

A thin-plate spline registers the neutral faces: first on lips, lids, brows and nose by arc length, then, twice, on the skin
vertex nearest to each landmark. A landmark gets the mean displacement of the four skin vertices nearest to it (on a lip or a
lid, of those that move with that lip or lid), multiplied by the spline's Jacobian. Irises rotate by fixed angles
(`GAZE_DEGREES`). Closed form, no seed. ICT FaceKit has no tongue shape, so `tongueOut` is missing.

    python -m ditto.training.arkit ict_facekit.npz ict_vertex_indices.json arkit478.npz
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto.commands import Arguments, run
from ditto.media.files import check_output_file
from ditto.portrait import face_mesh as g

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SKIN_VERTICES = 9409  # the face; head, sockets, teeth and eyes follow in ICT FaceKit's mesh
NEAREST = 4
ROUNDS = 2
SMOOTHING = 1e-3
IRIS_RADIUS = 0.096  # fu from the eye's centre
# Towards the nose, and down, at weight 1.
GAZE_DEGREES = {"In": (30.0, 0.0), "Out": (-30.0, 0.0), "Up": (0.0, -20.0), "Down": (0.0, 20.0)}

# iBUG's 68 landmarks, which ICT FaceKit names, and the contours here that run the same way: (theirs, ours).
CONTOURS: list[tuple[list[int], list[int]]] = [
    ([48, 49, 50, 51, 52, 53, 54], g.UPPER_OUTER_LIP),
    ([48, 59, 58, 57, 56, 55, 54], g.LOWER_OUTER_LIP),
    ([60, 61, 62, 63, 64], g.UPPER_INNER_LIP),
    ([60, 67, 66, 65, 64], g.LOWER_INNER_LIP),
    ([36, 37, 38, 39], g.RIGHT_EYE.upper),
    ([36, 41, 40, 39], g.RIGHT_EYE.lower),
    ([45, 44, 43, 42], g.LEFT_EYE.upper),
    ([45, 46, 47, 42], g.LEFT_EYE.lower),
    ([17, 18, 19, 20, 21], [70, 63, 105, 66, 107]),
    ([26, 25, 24, 23, 22], [300, 293, 334, 296, 336]),
    ([27, 28, 29, 30], [168, 197, 5, 4]),
    ([31, 32, 33, 34, 35], [98, 97, 2, 326, 327]),
]
CHIN = (8, 152)
EARS = ((0, 234), (16, 454))

NAMES = [
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
]  # fmt: skip


def along(points: Floats, count: int) -> Floats:
    """(count, 3) evenly spaced by arc length along the Catmull-Rom curve through points (N, 3)."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0.0, len(points) - 1.0, 40 * len(points))
    i = np.minimum(t.astype(np.int64), len(points) - 2)
    u = (t - i)[:, None]
    a, b, c, d = (padded[i + k] for k in range(4))
    curve = 0.5 * (2 * b + (c - a) * u + (2 * a - 5 * b + 4 * c - d) * u**2 + (3 * b - a - 3 * c + d) * u**3)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    expected = np.linspace(0.0, length[-1], count)
    return np.stack([np.interp(expected, length, curve[:, k]) for k in range(3)], -1)


def thin_plate(source: Floats, target: Floats) -> Callable[[Floats], Floats]:
    """Smooth map R3 -> R3 that takes `source` (N, 3) approximately to `target` (N, 3); kernel |r|, affine part free."""
    count = len(source)
    system = np.zeros((count + 4, count + 4))
    distance = np.linalg.norm(source[:, None] - source[None], axis=-1)
    system[:count, :count] = distance - SMOOTHING * count * np.eye(count) * distance.mean()
    system[:count, count:] = np.c_[np.ones(count), source]
    system[count:, :count] = system[:count, count:].T
    weights = np.linalg.lstsq(system, np.concatenate([target, np.zeros((4, 3))]), rcond=None)[0]

    def warp(points: Floats) -> Floats:
        away = np.linalg.norm(points[:, None] - source[None], axis=-1)
        return np.asarray(away @ weights[:count] + np.c_[np.ones(len(points)), points] @ weights[count:])

    return warp


def nearest(points: Floats, others: Floats, count: int) -> npt.NDArray[np.int64]:
    """(N, count) indices of the nearest of `others` (M, 3) to each of `points` (N, 3), nearest first."""
    squares = (points**2).sum(1)[:, None] - 2.0 * points @ others.T + (others**2).sum(1)[None]
    return np.argsort(squares, 1, kind="stable")[:, :count]


def register(neutral: Floats, landmarks: npt.NDArray[np.int64]) -> Callable[[Floats], Floats]:
    """The warp from ICT FaceKit's space onto the template; `landmarks` (68,) vertices of `neutral` (V, 3)."""
    source = [along(neutral[landmarks[theirs]], len(ours)) for theirs, ours in CONTOURS]
    target = [along(g.TEMPLATE[ours], len(ours)) for _, ours in CONTOURS]
    for theirs, ours in (CHIN, *EARS):
        source.append(neutral[landmarks[[theirs]]])
        target.append(g.TEMPLATE[[ours]])
    warp = thin_plate(np.concatenate(source), np.concatenate(target))
    matched = [v for _, ours in CONTOURS for v in ours]
    free = np.setdiff1d(np.arange(468), matched)
    for _ in range(ROUNDS):
        skin = nearest(g.TEMPLATE[free], warp(neutral), 1)[:, 0]
        warp = thin_plate(np.concatenate([*source, neutral[skin]]), np.concatenate([*target, g.TEMPLATE[free]]))
    return warp


def vertices_of_lips_and_lids(shapes: dict[str, Floats]) -> dict[int, Bools]:
    """Which skin vertices (V,) a lip or lid landmark may take its displacement from."""
    drop = shapes["jawOpen"][:, 1]
    lower_lip = drop > 0.5 * drop.max()
    upper_lip = drop < 0.15 * drop.max()
    rules = dict.fromkeys(g.UPPER_INNER_LIP[1:-1] + g.UPPER_OUTER_LIP[1:-1], upper_lip)
    rules |= dict.fromkeys(g.LOWER_INNER_LIP[1:-1] + g.LOWER_OUTER_LIP[1:-1], lower_lip)
    for side, eye in (("Right", g.RIGHT_EYE), ("Left", g.LEFT_EYE)):
        close = shapes[f"eyeBlink{side}"][:, 1]
        rules |= dict.fromkeys(eye.upper[2:-2], close > 0.25 * close.max())
        rules |= dict.fromkeys(eye.lower[2:-2], close < 0.10 * close.max())
    return rules


def transfer(neutral: Floats, shapes: dict[str, Floats], landmarks: npt.NDArray[np.int64]) -> dict[str, Floats]:
    """Displacements (478, 3) fu by ARKit's names."""
    warp = register(neutral, landmarks)
    warped = warp(neutral)
    rules = vertices_of_lips_and_lids(shapes)
    candidates = nearest(g.TEMPLATE[:468], warped, NEAREST)
    for vertex, allowed in rules.items():
        ids = np.flatnonzero(allowed)
        candidates[vertex] = ids[nearest(g.TEMPLATE[[vertex]], warped[ids], NEAREST)[0]]
    distance = np.linalg.norm(warped[candidates] - g.TEMPLATE[:468, None], axis=-1)
    print(f"registration: median {np.median(distance[:, 0]):.4f}, largest {distance[:, 0].max():.4f} fu")
    weight = 1.0 / (distance + 0.004) ** 2
    weight /= weight.sum(1, keepdims=True)

    at, step = neutral[candidates[:, 0]], 1e-3
    jacobian = np.stack([(warp(at + d) - warp(at - d)) / (2 * step) for d in step * np.eye(3)], 1)  # (468, in, out)
    transferred = {name: np.zeros((g.LANDMARKS, 3)) for name in NAMES}
    for name in NAMES:
        mean = (shapes[name][candidates] * weight[..., None]).sum(1)
        transferred[name][:468] = np.einsum("vi,vio->vo", mean, jacobian)
    for eye, side, inwards in ((g.RIGHT_EYE, "Right", 1.0), (g.LEFT_EYE, "Left", -1.0)):
        for direction, degrees in GAZE_DEGREES.items():
            sideways, down = IRIS_RADIUS * np.sin(np.radians(degrees))
            transferred[f"eyeLook{direction}{side}"][eye.iris : eye.iris + 5] = (inwards * sideways, down, 0.0)

    def mirrored(name: str) -> Floats:
        other = name.replace("Left", "?").replace("Right", "Left").replace("?", "Right")
        return transferred[other][g.MIRROR] * (-1.0, 1.0, 1.0)

    # both faces are symmetric, the fit only nearly
    return {name: 0.5 * (transferred[name] + mirrored(name)) for name in NAMES}


def read_shapes(path: Path) -> tuple[Floats, dict[str, Floats]]:
    """ICT FaceKit's neutral skin (9409, 3) and its shapes by ARKit's names; y down, z away from the camera."""
    flip = np.array([1.0, -1.0, -1.0])
    with np.load(path) as archive:
        neutral = archive["neutral"][:SKIN_VERTICES].astype(np.float64) * flip
        names = [str(name) for name in archive["expr_names"]]
        all_shapes = archive["expr"][:, :SKIN_VERTICES].astype(np.float64) * flip
    theirs = dict(zip(names, all_shapes, strict=True))
    ours = {}
    for name in NAMES:
        if name in ("browInnerUp", "cheekPuff"):
            ours[name] = theirs[f"{name}_L"] + theirs[f"{name}_R"]
        elif name in theirs:
            ours[name] = theirs[name]
        else:
            ours[name] = theirs[name.replace("Left", "_L").replace("Right", "_R")]
    return neutral, ours


def main() -> None:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", type=Path, help="ICT FaceKit: arrays neutral, expr, expr_names")
    parser.add_argument("indices", type=Path, help="ICT FaceKit's vertex_indices.json")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    check_output_file(options.out)
    neutral, shapes = read_shapes(options.shapes)
    landmarks = np.asarray(json.loads(options.indices.read_text())["idx_to_landmark_verts"])
    transferred = transfer(neutral, shapes, landmarks)
    deltas = np.stack([transferred[name] for name in NAMES]).astype(np.float32)
    np.savez_compressed(options.out, names=np.asarray(NAMES), deltas=deltas, template=g.TEMPLATE.astype(np.float32))


if __name__ == "__main__":
    run(main)
