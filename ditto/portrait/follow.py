"""A face followed through the frames of a video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from ditto.portrait.face_networks import MESH_SIZE, Floats, cut, networks

Bytes = npt.NDArray[np.uint8]

MIN_SCORE = 0.3  # of a detection; a clip is known to show a face
MIN_PRESENCE = 0.5  # below it the face is lost, and the next frame is searched
MARGIN = 1.5  # side of the mesh network's field over the longer side of the face's box
EYE_CORNERS = (33, 263)  # the outer ones; the field is upright by the line between them


def follow(frames: Iterable[Bytes]) -> Iterator[Floats | None]:
    """Landmarks (478, 3) of the surest face in each frame (H, W, 3) RGB, or None; pixels counted from the frame's edge.

    As MediaPipe's FaceMesh in video mode: where the face was in the frame before says where to look for it, and only
    where it was lost the frame is searched. For frames that have nothing to do with each other, call it for each.
    """
    field: tuple[tuple[float, float], float, float] | None = None
    for frame in frames:
        if field is None and (faces := networks().detect(frame, "short_range", MIN_SCORE)):
            field = field_of(faces[0].box, faces[0].eyes)
        landmarks = None
        if field is not None:
            centre, side, angle = field
            found, presence = networks().mesh(cut(frame, centre, side, angle, MESH_SIZE, beyond_is_black=False))
            field = None
            if presence >= MIN_PRESENCE:
                c, s = np.cos(angle), np.sin(angle)
                turn = np.array([[c, s], [-s, c]])
                flat = (found[:, :2] / MESH_SIZE - 0.5) @ turn * side + centre
                landmarks = np.column_stack([flat, found[:, 2] * (side / MESH_SIZE)])
                field = field_of(np.concatenate([flat.min(0), flat.max(0)]), flat[list(EYE_CORNERS)])
        yield landmarks


def field_of(box: Floats, eyes: Floats) -> tuple[tuple[float, float], float, float]:
    """Centre, side and angle of the mesh network's field for a box (left, top, right, bottom) and two eyes (2, 2)."""
    (x0, y0), (x1, y1) = eyes
    centre = (float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2)
    return centre, MARGIN * float((box[2:] - box[:2]).max()), float(np.arctan2(y1 - y0, x1 - x0))
