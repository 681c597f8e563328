"""Keypoint change to mesh change: clamps, learned linear basis, fold relaxation.

All arrays in face units, head frame, relative to the source.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.bundle import read_tensors
from ditto.errors import BundleError
from ditto.motion.motion import IRISES, KEYPOINTS, UPPER_LIDS, Keypoint
from ditto.portrait import face_mesh as g

Floats = npt.NDArray[np.float64]

BASIS_KEYPOINTS = [k for k in Keypoint if k not in (Keypoint.NECK, *IRISES)]
BASIS_SIZE = 3 * len(BASIS_KEYPOINTS)  # 54
# The knee of the clamp and the numbers of folds, but for FOLD_SPAN, are the prototype's (../shared/renderer/spec.md, 2.3 and
# 2.4). The numbers of the rim were chosen by eye on turned heads.
CLAMP_KNEE = 0.75  # of a component's limit: linear below, saturating above
RIM_ROWS = 3  # landmarks this many edges from the oval may lie round the corner of the cheek
FACING = (0.05, 0.35)  # cosine towards the camera: turned away below the first, seen as it is above the second
RIM_REACH = 0.05  # fu: a landmark that is turned away moves with the visible ones within about this distance
FOLD_AREA = 0.22  # a triangle that keeps less than this share of its signed area begins to fold
# A triangle counts as folded when it has lost so much area more: a share of its own, and fu^2 (twice the area). With
# them 5e-5 fu on any keypoint move no landmark by more than .04 px of 512 in speech and smiles, by .07 in noise of .03
# fu; with a share alone it is 1 px. On speech the folded area is .4 to .8 of what a hard decision leaves (three
# portraits), on broad smiles .6 to 1.4.
FOLD_SPAN = (0.5, 2e-4)
FOLD_STEPS = 3
FOLD_KEEP = 0.4  # what a folded vertex keeps of its own displacement; the rest is its neighbours' mean


class MeshBasis(NamedTuple):
    """What `ditto.training.mesh_basis` learns.

    Attributes:
        basis: (54, 478, 3): landmark change per keypoint change.
        components: (54, 54) rows: principal directions of keypoint change.
        component_limits: (54,) fu.
        low, high: (21, 3) fu: box of each keypoint.
    """

    basis: npt.NDArray[np.float32]
    components: Floats
    component_limits: Floats
    low: Floats
    high: Floats


def load_basis(path: Path) -> MeshBasis:
    """Read `renderer.safetensors`.

    Raises:
        BundleError: missing, unreadable or with other arrays than `MeshBasis` has.
    """
    arrays = dict(read_tensors(path))
    expected = {
        "basis": (BASIS_SIZE, g.LANDMARKS, 3),
        "components": (BASIS_SIZE, BASIS_SIZE),
        "component_limits": (BASIS_SIZE,),
        "low": (KEYPOINTS, 3),
        "high": (KEYPOINTS, 3),
    }
    found = {name: array.shape for name, array in arrays.items()}
    if found != expected:
        raise BundleError(f"expected arrays {expected} in {path}, got {found}; make it with ditto.training.mesh_basis")
    rest = {name: arrays[name].astype(np.float64) for name in expected if name != "basis"}
    return MeshBasis(arrays["basis"].astype(np.float32), **rest)


def clamp_keypoints(learned: MeshBasis, delta: Floats) -> Floats:
    """Keypoint change (21, 3) clamped to the range of real faces: a box per number, then a soft limit per component.

    Small changes stay as they are; the clamp is continuous at the box and at the knee. The component limits do not apply
    to the lids, so that a blink always closes.
    """
    boxed = np.clip(delta, learned.low, learned.high)
    c = learned.components @ boxed[BASIS_KEYPOINTS].ravel()
    size, limit = np.abs(c), learned.component_limits
    over = size > CLAMP_KNEE * limit
    if not over.any():
        return boxed
    room = (1.0 - CLAMP_KNEE) * limit
    soft = CLAMP_KNEE * limit + room * np.tanh((size - CLAMP_KNEE * limit) / room)
    excess = np.where(over, (size - soft) * np.sign(c), 0.0)
    clamped = boxed.copy()
    clamped[BASIS_KEYPOINTS] -= (excess @ learned.components).reshape(-1, 3)
    clamped[list(UPPER_LIDS)] = boxed[list(UPPER_LIDS)]
    clamped[Keypoint.LOWER_LIDS, 1] = boxed[Keypoint.LOWER_LIDS, 1]
    return clamped


def displace(learned: MeshBasis, delta: Floats) -> Floats:
    """Keypoint change (21, 3) -> landmark change (478, 3). The irises follow their own keypoints."""
    k = delta[BASIS_KEYPOINTS].astype(np.float32).ravel()
    # Not `@`: a product of this size wakes BLAS's threads, which then spin on the other cores beside every frame.
    flat: npt.NDArray[np.float32] = np.einsum("i,ij->j", k, learned.basis.reshape(BASIS_SIZE, -1))
    change = flat.reshape(g.LANDMARKS, 3).astype(np.float64)
    for eye in g.EYES:
        change[eye.iris : eye.iris + 5] = delta[eye.iris_keypoint]
    return change


def _neighbours() -> tuple[g.Ints, Floats]:
    """(478, D) landmarks an edge away from each landmark, padded with the landmark itself, and their weights in a mean,
    zero on the padding."""
    around: list[set[int]] = [set() for _ in range(g.LANDMARKS)]
    for triangle in g.FACE_TRIANGLES.tolist():
        for vertex in triangle:
            around[vertex].update(other for other in triangle if other != vertex)
    table = np.tile(np.arange(g.LANDMARKS)[:, None], max(map(len, around)))
    weights = np.zeros(table.shape)
    for vertex, others in enumerate(around):
        table[vertex, : len(others)] = sorted(others)
        weights[vertex, : len(others)] = 1.0 / max(len(others), 1)
    return table, weights


def _triangles_of() -> g.Ints:
    """(D, 478) face triangles at each landmark, padded with 852."""
    at: list[list[int]] = [[] for _ in range(g.LANDMARKS)]
    for number, triangle in enumerate(g.FACE_TRIANGLES.tolist()):
        for vertex in triangle:
            at[vertex].append(number)
    table = np.full((g.LANDMARKS, max(map(len, at))), len(g.FACE_TRIANGLES))
    for vertex, numbers in enumerate(at):
        table[vertex, : len(numbers)] = numbers
    return np.ascontiguousarray(table.T)


NEIGHBOURS, NEIGHBOUR_WEIGHTS = _neighbours()
TRIANGLES_OF = _triangles_of()
# Lids and inner lips have rules of their own; the mouth's corners may give way.
MAY_FOLD = np.ones(g.LANDMARKS, bool)
MAY_FOLD[g.UPPER_INNER_LIP[1:-1] + g.LOWER_INNER_LIP[1:-1]] = False
MAY_FOLD[[v for eye in g.EYES for v in eye.upper + eye.lower]] = False


def signed_areas(points: Floats) -> Floats:
    """(478, >=2) -> (852,) twice the signed area of the face triangles."""
    return g.signed_areas(points, g.FACE_TRIANGLES)


def relax_folds(canonical: Floats, displacement: Floats) -> Floats:
    """Displacement (478, 3) with folding vertices pulled towards their neighbours.

    How strongly a vertex is pulled rises smoothly with the area that its most folded triangle lacks, so a small change
    of the displacement makes a small change of the result. In a triangle of a few pixels a tiny movement is a large
    share of the area; `FOLD_SPAN` therefore has a part that does not shrink with the triangle.
    """
    rest = signed_areas(canonical)
    sign, area = np.sign(rest), np.abs(rest)
    slope = 1.0 / (FOLD_SPAN[0] * area + FOLD_SPAN[1])
    relaxed = displacement.copy()
    folding = np.zeros(len(area) + 1)  # 0 .. 1 of each triangle; the last is the table's padding
    for _ in range(FOLD_STEPS):
        lost = (FOLD_AREA * area - sign * signed_areas(canonical + relaxed)) * slope
        if lost.max() <= 0.0:
            break
        folding[:-1] = g.smoothstep(0.0, 1.0, lost)
        pull = folding[TRIANGLES_OF].max(0) * MAY_FOLD
        vertices = np.flatnonzero(pull)
        means = np.einsum("nd,ndi->ni", NEIGHBOUR_WEIGHTS[vertices], relaxed[NEIGHBOURS[vertices]])
        relaxed[vertices] += ((1.0 - FOLD_KEEP) * pull[vertices])[:, None] * (means - relaxed[vertices])
    return relaxed


def _rows_from_oval() -> npt.NDArray[np.bool_]:
    """(478,) landmarks at most `RIM_ROWS` edges from the face oval."""
    near = np.zeros(g.LANDMARKS, bool)
    near[g.FACE_OVAL] = True
    for _ in range(RIM_ROWS):
        touched = near[g.FACE_TRIANGLES].any(1)
        near[np.unique(g.FACE_TRIANGLES[touched])] = True
    return near


_NEAR_OVAL = _rows_from_oval()
_FRONT = np.sign(signed_areas(g.TEMPLATE))


class Rim(NamedTuple):
    """Landmarks of the source that its cheek or jaw hides, and the visible landmarks that they move with.

    Attributes:
        ids: (N,) landmarks.
        follow: (N, 478): their displacement as a mean of displacements.
        hidden: (852,) face triangles near the oval that show their back to the camera.
    """

    ids: npt.NDArray[np.int64]
    follow: Floats
    hidden: npt.NDArray[np.bool_]


def find_rim(landmarks: Floats, scale_px: float) -> Rim:
    """The rim of a source face (478, 3) in pixels.

    Where the face curves out of sight the picture shows background under the mesh. Such landmarks move with the visible
    skin beside them; else the silhouette would tear when the cheek moves.
    """
    a, b, c = (landmarks[g.FACE_TRIANGLES[:, i]] for i in range(3))
    whole = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    front = signed_areas(landmarks) * _FRONT
    seen, total = np.zeros(g.LANDMARKS), np.full(g.LANDMARKS, 1e-9)
    for corner in range(3):
        np.add.at(seen, g.FACE_TRIANGLES[:, corner], front)
        np.add.at(total, g.FACE_TRIANGLES[:, corner], whole)
    visible = g.smoothstep(*FACING, seen / total)
    ids = np.flatnonzero(_NEAR_OVAL & (visible < 1.0))
    apart = np.sqrt(((landmarks[ids, None, :2] - landmarks[None, :468, :2]) ** 2).sum(-1)) / scale_px
    nearest = np.where(visible[:468] > 0.5, apart, np.inf).min(1, keepdims=True)
    weight = visible[:468] * np.exp(-0.5 * ((apart - nearest) / RIM_REACH) ** 2) * (apart >= nearest)
    follow = np.zeros((len(ids), g.LANDMARKS))
    follow[:, :468] = weight / weight.sum(1, keepdims=True) * (1.0 - visible[ids, None])
    follow[np.arange(len(ids)), ids] += visible[ids]
    hidden = (front < FACING[0] * whole) & _NEAR_OVAL[g.FACE_TRIANGLES].all(1)
    return Rim(ids, follow, hidden)


def follow_rim(rim: Rim, displacement: Floats) -> Floats:
    """Displacement (478, 3) with the rim moving with the visible skin beside it."""
    followed = displacement.copy()
    followed[rim.ids] = rim.follow @ displacement
    return followed
