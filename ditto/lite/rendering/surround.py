"""What lies around the face mesh: hair, neck, shoulders and background, carried along by a second mesh.

Rings around the outline of the face and a grid to the border of the crop. Every point has a weight: how far it follows
the head. The face follows all the way, the torso and the border of the crop not at all. Between them the weight
spreads like heat, which the person conducts and the background hardly does: hair with room around it follows all the
way, and hair, neck and shoulders that are held at one end bend over all their length, not at that end.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ditto.motion.motion import euler_degrees
from ditto.portrait import face_mesh as g
from ditto.portrait.face_mesh import Geometry, smoothstep

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Grid, rings and depth are the prototype's (../shared/renderer/spec.md, 2.7), chosen by eye; so were the numbers of the
# weights, on 28 portraits at 12 degrees (`python -m benchmarks.poses`).
GRID_CELLS = 32  # along a side of the crop
RINGS = (1.06, 1.14, 1.24)  # of the outline, about its centre
BODY_FOLLOWS = 0.13  # of the neck's movement: 10 to 15 % (../shared/renderer/end_to_end.md, fault 6)
STILL_BORDER = 1.001 / GRID_CELLS  # of the crop's side, one row of cells: nothing moves there
FREE_BORDER = 0.12  # from here on inwards the border does not hold the body back
TORSO_DROP = 0.5  # fu below the chin: the person from here on down does not turn with the head
SHOULDER_SLOPE = 1.0  # shoulders lie higher than the middle of the torso by this share of what is beyond the neck's width
NECK_HALF = 0.35  # fu
CONDUCTS = 0.02  # the background, against 1 of the person
CONDUCTS_BEYOND = 0.04  # fu around the person that fade from one to the other: what the mask leaves out moves along
NEIGHBOURS = 6  # landmarks that give a surrounding point its depth and pass their expression on to it
LEAK_REACH = 0.16  # fu
OUTLINE_PX = 2.0 / 512  # of the crop's side: a landmark this near to the drawn outline lies on it


class Surround(NamedTuple):
    """The surrounding mesh of one source.

    Attributes:
        outline: (K,) landmarks around the face as it is seen: the oval, or in a turned head the far cheek and brow.
        points: (P, 2) crop pixels: first the middles of the outline's K edges, then rings and grid.
        canonical: (P, 3) fu, head frame.
        head_weight: (P, 2, 2) in [0, 1]: share of the head's movement along x and y, to the lower and the higher side.
        body_weight: (P, 2) in [0, 1]: share of the neck's movement along x and y.
        neighbours: (P, 6) nearest landmarks.
        shares: (P, 6): how much of their expression a point takes part in (the jaw's, on the neck).
        triangles: (N, 3) into landmarks (0..477) and points (478...).
    """

    outline: Ints
    points: Floats
    canonical: Floats
    head_weight: Floats
    body_weight: Floats
    neighbours: Ints
    shares: Floats
    triangles: Ints


def _distance_outside(polygon: Floats, points: Floats) -> Floats:
    """(P,) pixels outside a polygon, negative inside."""
    contour = polygon.astype(np.float32).reshape(-1, 1, 2)
    return -np.array([cv2.pointPolygonTest(contour, (float(x), float(y)), True) for x, y in points])


def _find_outline(landmarks: Floats, size: int) -> Ints:
    """(K,) landmarks on the outline of the face mesh as it is seen, in order."""
    drawn = np.zeros((size, size), np.uint8)
    for triangle in np.round(landmarks[g.FACE_TRIANGLES, :2]).astype(np.int32):
        cv2.fillConvexPoly(drawn, triangle, (1,))
    outlines = cv2.findContours(drawn, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    traced = np.asarray(max(outlines, key=len), np.float64).reshape(-1, 2)
    distance = np.sqrt(((traced[:, None] - landmarks[None, :468, :2]) ** 2).sum(-1))
    on_it = distance.min(0) <= OUTLINE_PX * size
    at = distance[:, on_it].argmin(0)  # where along the traced outline each landmark lies
    ids = np.flatnonzero(on_it)[np.argsort(at, kind="stable")]
    kept = np.unique(np.sort(at), return_index=True)[1]
    return np.asarray(ids[kept], np.int64)


def _lay_points(outline: Floats, size: int) -> Floats:
    """Rings and grid points (P, 2) outside the outline, none too near to another."""
    centre, last, cell = outline.mean(0), size - 1.0, size / GRID_CELLS
    rings = np.concatenate([centre + (outline[::2] - centre) * k for k in RINGS])
    rings = rings[(rings > 1.0).all(1) & (rings < last - 1.0).all(1)]
    axis = np.linspace(0.0, last, GRID_CELLS + 1)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    laid = np.concatenate([rings, grid])
    laid = laid[_distance_outside(outline, laid) > 3.0 / 512 * size]
    on_border = ((laid == 0.0) | (laid == last)).any(1)
    apart = np.sqrt(((laid[:, None] - np.concatenate([outline, laid])[None]) ** 2).sum(-1)) > 0.45 * cell
    chosen = np.zeros(len(laid), bool)
    taken = np.concatenate([np.ones(len(outline), bool), chosen])
    for number, border in enumerate(on_border):
        chosen[number] = taken[len(outline) + number] = border or apart[number, taken].all()
    return np.asarray(laid[chosen])


def _triangulate(points: Floats, size: int) -> Ints:
    """Delaunay triangles (N, 3) of points (P, 2) inside the crop."""
    subdivision = cv2.Subdiv2D((-1, -1, size + 2, size + 2))
    rounded = points.astype(np.float32)
    numbers: dict[tuple[float, float], int] = {}
    for number, (x, y) in enumerate(rounded.tolist()):
        if numbers.setdefault((x, y), number) == number:
            subdivision.insert((x, y))
    corners = np.asarray(subdivision.getTriangleList()).reshape(-1, 3, 2).tolist()
    found = [[numbers.get((x, y), -1) for x, y in triangle] for triangle in corners]
    return np.array([triangle for triangle in found if min(triangle) >= 0], np.int64)


def _stiffness(points: Floats, triangles: Ints, conductance: Floats) -> Floats:
    """(V, V) how much heat flows between two vertices of a mesh, by the conductance (V,) of what lies between.

    Source: Pinkall and Polthier 1993, the cotangent Laplacian; negative cotangents are taken as 0, so that no
    temperature lies outside of those that are given.
    """
    stiffness = np.zeros((len(points), len(points)))
    of_triangle = conductance[triangles].mean(1)
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        to_a, to_b = (points[triangles[:, k]] - points[triangles[:, c]] for k in (a, b))
        cross = np.abs(to_a[:, 0] * to_b[:, 1] - to_a[:, 1] * to_b[:, 0])
        weight = of_triangle * np.maximum((to_a * to_b).sum(1), 0.0) / np.maximum(cross, 1e-9)
        np.add.at(stiffness, (triangles[:, a], triangles[:, b]), weight)
        np.add.at(stiffness, (triangles[:, b], triangles[:, a]), weight)
    return stiffness


def _spread(stiffness: Floats, fixed: Floats) -> Floats:
    """(V,) temperatures: `fixed` where it is a number; where it is NaN, as heat spreads."""
    free = np.isnan(fixed)
    held = stiffness[np.ix_(free, ~free)]
    inner = np.diag(stiffness[free].sum(1) + 1e-9) - stiffness[np.ix_(free, free)]
    values = fixed.copy()
    values[free] = np.linalg.solve(inner, held @ fixed[~free])
    return values


def make_surround(geometry: Geometry, mask: npt.NDArray[np.float32], ends: npt.NDArray[np.bool_]) -> Surround:
    """The surrounding mesh of a source.

    Args:
        mask: (S, S) in [0, 1]: where the person is.
        ends: (2, 2): whether the picture ends at the left and right, and at the upper and lower side of the crop. There
            the border may slide along and outwards; it is held back from moving inwards, where it would leave a gap.
    """
    size, scale = geometry.size, geometry.scale_px
    ids = _find_outline(geometry.landmarks, size)
    corners = geometry.landmarks[ids, :2]
    middles = 0.5 * (corners + np.roll(corners, -1, 0))
    outline = np.stack([corners, middles], 1).reshape(-1, 2)
    laid = _lay_points(outline, size)
    points = np.concatenate([middles, laid])

    everything = np.concatenate([outline, laid])
    triangles = _triangulate(everything, size)
    triangles = triangles[_distance_outside(outline, everything[triangles].mean(1)) > 0.0]
    count = len(ids)
    numbers = g.LANDMARKS - count + np.arange(len(everything))
    numbers[0 : 2 * count : 2] = ids
    numbers[1 : 2 * count : 2] = g.LANDMARKS + np.arange(count)

    outside = np.maximum(_distance_outside(outline, points), 0.0) / scale
    outside[:count] = 0.0
    wide = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.08 * scale)
    column, row = np.clip(np.rint(everything).astype(np.int64), 0, size - 1).T
    near_person = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), CONDUCTS_BEYOND * scale)
    person = np.maximum(near_person, mask)[row, column].astype(np.float64)

    roll = np.radians(euler_degrees(geometry.rotation)[2])
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    below_chin = (everything - geometry.landmarks[152, :2]) / scale @ turn
    drop = below_chin[:, 1] + SHOULDER_SLOPE * np.maximum(np.abs(below_chin[:, 0]) - NECK_HALF, 0.0)
    edge = np.stack([everything, size - 1.0 - everything], -1) / size  # (V, axis, side)
    stiffness = _stiffness(everything, triangles, CONDUCTS + (1.0 - CONDUCTS) * person)
    still = (drop > TORSO_DROP) & (person > 0.5) | ((edge <= STILL_BORDER) & ~ends).any((1, 2))
    head = np.empty((len(everything), 2, 2))
    for axis, direction in np.ndindex(2, 2):
        behind = ends[axis, 1 - direction] & (edge[:, axis, 1 - direction] <= 1e-6)  # would leave a gap
        fixed = np.where(still | behind, 0.0, np.nan)
        fixed[: 2 * count] = 1.0
        # Even at both ends: no bend where the face ends or the torso begins.
        head[:, axis, direction] = smoothstep(0.0, 1.0, _spread(stiffness, fixed))
    points_of = np.r_[1 : 2 * count : 2, 2 * count : len(everything)]  # of everything: what is no landmark
    head, person = head[points_of], wide[row, column].astype(np.float64)[points_of]
    free = smoothstep(STILL_BORDER, FREE_BORDER, edge[points_of].min((1, 2)))

    distance = np.sqrt(((points[:, None] - geometry.landmarks[None, :468, :2]) ** 2).sum(-1))
    neighbours = np.argsort(distance, 1, kind="stable")[:, :NEIGHBOURS]
    shares = 1.0 / (np.take_along_axis(distance, neighbours, 1) + 2.0) ** 2
    shares /= shares.sum(1, keepdims=True)
    near = (shares * geometry.landmarks[neighbours, 2]).sum(1)
    middle = geometry.translation_px[2] + 0.10 * scale
    depth = near + 0.6 * (middle - near) * smoothstep(0.0, 0.5, outside)  # recedes towards the middle of the head
    canonical = ((np.c_[points, depth] - geometry.translation_px) / scale) @ geometry.rotation.T
    shares *= np.exp(-((outside / LEAK_REACH) ** 2))[:, None]
    body = (1.0 - head.mean(2)) * (person * free)[:, None]
    return Surround(ids, points, canonical, head, body, neighbours, shares, numbers[triangles])


def move_surround(surround: Surround, geometry: Geometry, pose: g.Pose) -> Floats:
    """Where the surrounding points are in a frame, (P, 2) px."""
    expression = (pose.canonical - geometry.canonical)[surround.neighbours]
    change = (surround.shares[..., None] * expression).sum(1)
    turned = pose.rotation[:, :2]
    carried = pose.scale_px * (surround.canonical + change) @ turned + pose.translation_px[:2]
    neck = pose.scale_px * g.NECK_ANCHOR @ turned + pose.translation_px[:2]
    neck -= geometry.scale_px * g.NECK_ANCHOR @ geometry.rotation[:, :2] + geometry.translation_px[:2]
    shift = carried - surround.points
    weight = np.where(shift > 0.0, surround.head_weight[..., 1], surround.head_weight[..., 0])
    moved: Floats = surround.points + weight * shift
    moved += BODY_FOLLOWS * surround.body_weight * neck
    corners = pose.vertices[surround.outline, :2]
    moved[: len(corners)] = 0.5 * (corners + np.roll(corners, -1, 0))
    return moved
