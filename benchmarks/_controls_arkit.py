"""ARKit's blendshapes, asked for one at a time at four weights: what comes back from the motion, what ditto's tracker finds
in the drawn picture, and what MediaPipe scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks._controls import Image, Report, Study
from benchmarks._report import Figure, rows_table
from benchmarks.blendshapes import Seen
from ditto.controls.blendshapes import ARKIT_NAMES, SHAPES, to_offsets, to_weights, without_effect
from ditto.lite.rendering.core import CoreRenderer
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.motion.motion import EXPRESSION, MOTION_SIZE, TEMPLATE_APERTURE, UPPER_LIDS, Keypoint, Motion
from ditto.motion.space import LITE_SPACE, MotionSpace
from ditto.portrait.face_mesh import fit_head, keypoints
from ditto.portrait.portrait import Portrait
from ditto.portrait.registration import refine_landmarks

Floats = npt.NDArray[np.float64]

WEIGHTS = (0.25, 0.5, 0.75, 1.0)
MOST_ERROR = 0.08
GROUPS = ("eyeBlink", "mouthSmile", "jawOpen", "mouthPucker", "mouthFunnel", "brow", "eyeLook")
SCORED = 0.1  # a shape that moves its own score by less than this at weight 1 is not what MediaPipe scores


def asked_of(space: MotionSpace) -> tuple[list[str], Floats]:
    """The shapes that move something, and the weights (1 + S x 4, 52) to draw: rest, then four of each shape."""
    still = without_effect(space)
    names = [name for name in ARKIT_NAMES if name not in still]
    rows = [np.zeros(SHAPES)]
    for name in names:
        for weight in WEIGHTS:
            row = np.zeros(SHAPES)
            row[ARKIT_NAMES.index(name)] = weight
            if name == "mouthClose":  # closes the lips of an open jaw
                row[ARKIT_NAMES.index("jawOpen")] = weight
            rows.append(row)
    return names, np.stack(rows)


def head_rows(weights: Floats, space: MotionSpace) -> Floats:
    """Head values (N, 70) of weights (N, 52)."""
    rows = np.zeros((len(weights), MOTION_SIZE))
    rows[:, EXPRESSION] = to_offsets(weights, space).reshape(len(weights), -1)
    return rows


def tracked_weights(portrait: Portrait, crops: Sequence[Image], space: MotionSpace) -> Floats:
    """(N, 52) the weights of pictures of a portrait, against the first of them, by ditto's tracker."""
    points = np.stack([keypoints(fit_head(refine_landmarks(crop, portrait.landmarks))[3]) for crop in crops])
    delta = points - points[0]
    lids = list(UPPER_LIDS)
    delta[:, lids, 1] *= TEMPLATE_APERTURE / (points[0, Keypoint.LOWER_LIDS, 1] - points[0, lids, 1])
    rows = np.zeros((len(crops), MOTION_SIZE))
    rows[:, EXPRESSION] = delta.reshape(len(crops), -1)
    return np.concatenate([to_weights(row[None], space) for row in rows])


def drawn_weights(renderer: MeshRenderer, portrait: Portrait, motions: npt.ArrayLike) -> Floats:
    """(N, 52) the weights of the mesh that is drawn, after every limit of the renderer, against the first motion's."""
    prepared = renderer.prepare(portrait)
    poses = [renderer.pose(prepared, renderer.retarget(portrait, Motion(row))) for row in np.asarray(motions, np.float32)]
    delta = np.stack([keypoints(pose.canonical) - keypoints(poses[0].canonical) for pose in poses])
    for side, lid in enumerate(UPPER_LIDS):  # lids are painted, not part of the mesh
        delta[:, lid] = 0.0
        delta[:, lid, 1] = TEMPLATE_APERTURE * np.array([pose.closure[side] - poses[0].closure[side] for pose in poses])
    rows = np.zeros((len(poses), MOTION_SIZE))
    rows[:, EXPRESSION] = delta.reshape(len(poses), -1)
    return to_weights_alone(rows, LITE_SPACE)


def scores_of(seen: Sequence[Seen | None]) -> Floats:
    """(N, 52) MediaPipe's scores in the order of ARKIT_NAMES; NaN where it sees no face, and for tongueOut."""
    none: Mapping[str, float] = {}
    return np.array([[(none if face is None else face.shapes).get(n, np.nan) for n in ARKIT_NAMES] for face in seen])


def group_of(name: str) -> str | None:
    return next((group for group in GROUPS if name.startswith(group)), None)


def measure(study: Study) -> Report:
    """The section `arkit`."""
    space = study.space
    names, asked = asked_of(space)
    places = [ARKIT_NAMES.index(name) for name in names]
    own = np.abs(to_weights_alone(head_rows(asked, space), space) - asked)[1:].reshape(len(names), len(WEIGHTS), SHAPES)
    drawn, tracked, scores_at, shares, full = [], [], [], [], []
    for name, portrait in study.portraits.items():
        motions = space.from_head(head_rows(asked, space), portrait)
        if isinstance(study.performer.renderer, CoreRenderer):
            mesh = drawn_weights(study.performer.renderer.mesh, portrait, motions)[1:]
            mesh = mesh.reshape(len(names), len(WEIGHTS), SHAPES)
            drawn.append(np.stack([mesh[i, :, place] for i, place in enumerate(places)]))
        crops = study.crops(name, motions)
        found = tracked_weights(portrait, crops, space)[1:].reshape(len(names), len(WEIGHTS), SHAPES)
        tracked.append(np.stack([found[i, :, place] for i, place in enumerate(places)]))
        if study.landmarker is not None:
            scores = scores_of(study.seen(crops))
            change = (scores - scores[0])[1:].reshape(len(names), len(WEIGHTS), SHAPES)
            of_shape = np.stack([change[i, :, place] for i, place in enumerate(places)])
            scores_at.append(of_shape)
            full.append(of_shape[:, -1])
            shares.append(np.where(of_shape[:, -1:] >= SCORED, of_shape / of_shape[:, -1:], np.nan))
    errors = np.abs(np.stack(tracked) - WEIGHTS).mean((0, 2))  # of each shape, over portraits and weights
    of_motion = np.array([own[i, :, place].mean() for i, place in enumerate(places)])
    in_group = [group_of(name) for name in names]
    named = [i for i, group in enumerate(in_group) if group is not None]
    figures: list[Figure] = []
    ways = [("weights to motion to weights", of_motion), ("drawn and tracked again", errors)]
    if drawn:
        ways.insert(1, ("weights to drawn mesh to weights", np.abs(np.stack(drawn) - WEIGHTS).mean((0, 2))))
    if scores_at:
        ways.append(("drawn, MediaPipe's score against rest", np.nanmean(np.abs(np.stack(scores_at) - WEIGHTS), (0, 2))))
    for way, found_errors in ways:
        for group in GROUPS:
            chosen = [i for i, g in enumerate(in_group) if g == group]
            if chosen:
                figures.append(Figure(f"{group}: error, {way}", float(found_errors[chosen].mean()), high=MOST_ERROR))
        figures.append(Figure(f"all of these: error, {way}", float(found_errors[named].mean()), high=MOST_ERROR))
    linear = np.full(len(names), np.nan)
    scored = np.full(len(names), np.nan)
    if shares:
        off = np.abs(np.stack(shares) - WEIGHTS)[:, :, :-1]
        seen_some = np.isfinite(off).any((0, 2))
        linear[seen_some] = np.nanmean(off[:, seen_some], (0, 2))
        scored = np.nanmean(np.stack(full), 0)
        figures.append(
            Figure("all of these: MediaPipe's score as a share of its change at 1, error", float(np.nanmean(linear[named])))
        )
    means = np.stack(tracked).mean(0)
    rows = []
    for i in sorted(range(len(names)), key=lambda i: (in_group[i] is None, names[i])):
        rows.append(
            (
                names[i], f"{of_motion[i]:.3f}", f"{errors[i]:.3f}", " ".join(f"{x:.2f}" for x in means[i]),
                f"{scored[i]:+.2f}", f"{linear[i]:.2f}",
            )
        )  # fmt: skip
    columns = ("shape", "motion", "tracked", f"found at {', '.join(f'{w:g}' for w in WEIGHTS)}", "MediaPipe at 1", "its error")
    table = rows_table("Mean error of each shape, and what is found of it; the shapes with a bar come first", columns, rows)
    return Report(figures, [table])


def to_weights_alone(rows: Floats, space: MotionSpace) -> Floats:
    """`to_weights` of rows that do not follow each other."""
    return np.concatenate([to_weights(row[None], space) for row in rows])
