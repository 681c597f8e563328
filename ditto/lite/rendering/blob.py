"""A portrait's appearance as one flat blob, from which the core (csrc/core) draws. docs/blob.md describes the format."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.lite.rendering import deform, mesh, mouth
from ditto.lite.rendering.deform import BASIS_KEYPOINTS, BASIS_SIZE, MeshBasis
from ditto.lite.rendering.eyes import EyeLayer
from ditto.lite.rendering.mouth import MouthLayers
from ditto.lite.rendering.paste_back import PasteBack
from ditto.portrait import face_mesh as g
from ditto.portrait.portrait import Portrait

Arrays = dict[str, npt.NDArray[Any]]

MAGIC = b"DITTOLIT"
VERSION = 1
ALIGNMENT = 16
_HEADER = struct.Struct("<8sIIQQ")
_ENTRY = struct.Struct("<24sIIIIQ")
_TYPES = ("uint8", "int16", "int32", "float32", "float64")


def pack_blob(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Named arrays, of at most three dimensions each, as a blob.

    Raises:
        ValueError: a name is longer than 23 characters, or an array has another type or more dimensions.
    """
    at = _HEADER.size + _ENTRY.size * len(arrays)
    directory: list[bytes] = []
    parts: list[bytes] = []
    for name, array in arrays.items():
        if len(name.encode()) > 23 or array.ndim > 3 or array.dtype.name not in _TYPES:
            raise ValueError(
                f"expected arrays with names of up to 23 characters, up to 3 dimensions and a type of {', '.join(_TYPES)}, "
                f"got {name!r}, {array.shape}, {array.dtype}; rename or convert it"
            )
        padding = -at % ALIGNMENT
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        directory.append(
            _ENTRY.pack(name.encode(), _TYPES.index(array.dtype.name), *(*array.shape, 1, 1, 1)[:3], at + padding)
        )
        parts += [bytes(padding), data]
        at += padding + len(data)
    return b"".join([_HEADER.pack(MAGIC, VERSION, len(arrays), at, 0), *directory, *parts])


def portrait_blob(
    learned: MeshBasis, portrait: Portrait, appearance: mesh.Appearance, paste_back: PasteBack | None = None
) -> bytes:
    """All that a frame needs: the learned basis, the topology, and the portrait as `MeshRenderer.prepare` gives it.

    Args:
        paste_back: of the portrait, for a core that is to give the whole picture, not the crop alone.
    """
    arrays = model_arrays(learned) | portrait_arrays(portrait, appearance)
    if paste_back is not None:
        arrays |= picture_arrays(paste_back)
    return pack_blob(arrays)


def model_arrays(learned: MeshBasis) -> Arrays:
    """What is the same for every portrait of a bundle."""
    return {
        "model.basis": _f32(learned.basis).reshape(BASIS_SIZE, -1),
        "model.components": _f64(learned.components),
        "model.limits": _f64(learned.component_limits),
        "model.low": _f64(learned.low),
        "model.high": _f64(learned.high),
        "model.keypoints": _i32(BASIS_KEYPOINTS),
        "mesh.triangles": _i32(mesh.INNER_TRIANGLES),
        "mesh.face": _i32([len(g.FACE_TRIANGLES)]),
        "mesh.lift": _f64(mesh.LIFT),
        "mesh.front": _f64(mesh.FRONT),
        "mesh.neighbours": _i32(deform.NEIGHBOURS),
        "mesh.neighbour_weights": _f64(deform.NEIGHBOUR_WEIGHTS),
        "mesh.triangles_of": _i32(deform.TRIANGLES_OF),
        "mesh.may_fold": deform.MAY_FOLD.astype(np.uint8),
        "lips.upper_inner": _i32(g.UPPER_INNER_LIP),
        "lips.lower_inner": _i32(g.LOWER_INNER_LIP),
        "lips.upper_outer": _i32(g.UPPER_OUTER_LIP),
        "lips.lower_outer": _i32(g.LOWER_OUTER_LIP),
        "lips.chains": _i32([landmark for chain in mouth.CHAINS for landmark in (*chain, -1)]),
        "arch.arc": _f64(mouth.ARC),
        "arch.x": _f64(mouth.ARCH_X),
        "arch.z": _f64(mouth.ARCH_Z),
    }


def portrait_arrays(portrait: Portrait, appearance: mesh.Appearance) -> Arrays:
    """What the portrait brings."""
    geometry, surround = appearance.geometry, appearance.surround
    arrays: Arrays = {
        "face.landmarks": _f64(geometry.landmarks),
        "face.canonical": _f64(geometry.canonical),
        "face.keypoints": _f64(geometry.keypoints),
        "face.scale_px": _f64([geometry.scale_px]),
        "face.rotation": _f64(geometry.rotation),
        "face.translation_px": _f64(geometry.translation_px),
        "pose.scale": _f64([portrait.scale]),
        "pose.rotation": _f64(portrait.rotation),
        "pose.translation": _f64(portrait.translation),
        "pose.expression": _f64(portrait.expression),
        "pose.keypoints": _f64(portrait.canonical_keypoints),
        "rim.ids": _i32(appearance.rim.ids),
        "rim.follow": _f64(appearance.rim.follow),
        "rim.hidden": appearance.rim.hidden.astype(np.uint8),
        "texture": appearance.texture,
        "plate": appearance.background.plate,
        "source": _f32(appearance.source),
        "surround.points": _f64(surround.points),
        "surround.canonical": _f64(surround.canonical),
        "surround.head_weight": _f64(surround.head_weight),
        "surround.body_weight": _f64(surround.body_weight),
        "surround.shares": _f64(surround.shares),
        "surround.neighbours": _i32(surround.neighbours),
        "surround.outline": _i32(surround.outline),
        "surround.triangles": _i32(surround.triangles),
    }
    for side, layer in (("right", appearance.eyes.right), ("left", appearance.eyes.left)):
        arrays |= {f"{side}.{name}": array for name, array in _eye_arrays(layer).items()}
    for number, field in enumerate(appearance.creases.fields):
        arrays |= {
            f"crease{number}.relief": field.relief,
            f"crease{number}.corner": _i32(field.corner),
            f"crease{number}.landmarks": _i32(field.landmarks),
        }
    arrays["creases.tint"] = _f64(appearance.creases.tint)
    return arrays | {f"mouth.{name}": array for name, array in _mouth_arrays(appearance.mouth).items()}


def picture_arrays(paste_back: PasteBack) -> Arrays:
    """What puts the crop back into the picture."""
    arrays: Arrays = {
        "picture": paste_back.picture,
        "crop": paste_back.source,
        "paste.ramp": _f32(paste_back.ramp),
        "paste.to_crop": _f64(paste_back.to_crop),
        "paste.x": _i32(paste_back.corner[:1]),
        "paste.y": _i32(paste_back.corner[1:]),
        "paste.columns": _i32(paste_back.size[:1]),
        "paste.rows": _i32(paste_back.size[1:]),
        "paste.reduce": _i32([paste_back.reduce]),
    }
    if paste_back.detail is not None:
        arrays["paste.detail"] = paste_back.detail
    return arrays


def _eye_arrays(layer: EyeLayer) -> Arrays:
    eye, frame, path = layer.eye, layer.frame, layer.path
    return {
        "upper_ids": _i32(eye.upper),
        "lower_ids": _i32(eye.lower),
        "ring_ids": _i32(eye.upper_ring),
        "iris": _i32([eye.iris]),
        "lid_keypoint": _i32([eye.lid_keypoint]),
        "iris_keypoint": _i32([eye.iris_keypoint]),
        "anchors": _i32(layer.anchors),
        "anchor_weights": _f64(layer.anchor_weights),
        "frame_width": _f64([frame.width_px / frame.scale_px]),
        "has_iris": _f64([layer.has_iris]),
        "soft": _f64([layer.soft]),
        "height": _f64([path.height]),
        "matrix": _f64(frame.matrix),
        "origin": _f64(layer.origin),
        "curves": _f32(path.curves),
        "gap": _f64(path.gap),
        "profile": _f64(path.profile),
        "travel": _f64(path.travel),
        "upper": _f64(layer.lids.upper),
        "lower": _f64(layer.lids.lower),
        "texture": _f32(layer.texture),
        "strip": _f32(layer.strip),
    }


def _mouth_arrays(layers: MouthLayers) -> Arrays:
    own = layers.own
    return {
        "anchor": _f64(layers.anchor),
        "own_gap": _f64(layers.own_gap),
        "overlap": _f64(layers.overlap),
        "width": _f64([layers.width]),
        "upper_edge": _f64([layers.upper_edge]),
        "lower_edge": _f64([layers.lower_edge]),
        "arch_z": _f64([layers.arch_z]),
        "blur_px": _f64([layers.blur_px]),
        "has_own": _i32([own is not None]),
        "own_slope": _f64([0.0 if own is None else own.edge_slope]),
        "own_bow": _f64([0.0 if own is None else own.edge_bow]),
        "own_from_plane": _f64(np.zeros((2, 3)) if own is None else own.from_plane),
        "upper_per_unit": _f64([layers.upper.per_unit]),
        "upper_row": _f64([layers.upper.edge_row]),
        "lower_per_unit": _f64([layers.lower.per_unit]),
        "lower_row": _f64([layers.lower.edge_row]),
        "side_light": _f64([layers.side_light]),
        "cavity": _f64(layers.colours.cavity),
        "tongue": _f64(layers.colours.tongue),
        "tint": _f64(layers.colours.saturation * mouth.LIP_LIGHT),
        "upper": _f32(layers.upper.pixels),
        "lower": _f32(layers.lower.pixels),
        "own": _f32(mouth.NO_TEETH if own is None else own.pixels),
        "grain": _f32(layers.grain),
        "columns": _f32(layers.columns),
    }


def _f64(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.asarray(values, np.float64)


def _f32(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    return np.asarray(values, np.float32)


def _i32(values: npt.ArrayLike) -> npt.NDArray[np.int32]:
    return np.asarray(values, np.int32)
