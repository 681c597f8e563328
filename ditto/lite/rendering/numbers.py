"""The numbers of a packed portrait, coded for few bytes (docs/packed.md). csrc/core/packed.cpp reads them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.lite.rendering.blob import Arrays, model_arrays, picture_arrays, portrait_arrays
from ditto.lite.rendering.creases import PATHS
from ditto.lite.rendering.deform import MeshBasis
from ditto.lite.rendering.mesh import Appearance
from ditto.lite.rendering.paste_back import PasteBack
from ditto.ops.eyes import CHANNELS, GLINT
from ditto.portrait import face_mesh as g
from ditto.portrait.portrait import Portrait

Ints = npt.NDArray[np.int64]
Steps = float | list[float]

MAGIC = b"DITTONUM"
VERSION = 1
_HEADER = struct.Struct("<8sII")
_RECORD = struct.Struct("<24sBBBxIII")
_TYPES = ("uint8", "int16", "int32", "float32", "float64", "float16")

# What one step of a whole number stands for. In the example and in Lady Agnew the frames drawn from such numbers and lossless
# pictures lie 82 and 88 dB from the exact ones. Half floats will not do for places: they are .25 px apart at 512.
PX = 1.0 / 64  # of a place in the crop
SHARE = 2.0**-14  # of a weight; 1 stays 1
FACE_UNIT = 2.0**-14  # of a lid's curve: .004 px where a face unit has 240 px
COLOUR = 1.0 / 64  # levels
GRAIN = 1.0 / 8  # levels
_MASK = 1.0 / 255
_EYE = [1.0 if k % 4 < 3 or k == GLINT else _MASK for k in range(CHANNELS)]
_LID_CURVES = [FACE_UNIT] * 10 + [COLOUR] * 3  # curves, sizes of the lash line, its colour


class Coding(IntEnum):
    """The order of an array (a, b, c) in the file."""

    PLAIN = 0  # as it is
    SPLIT = 1  # first the low bytes of all numbers, then their next bytes; in every further order so for each plane
    RISING = 2  # b c planes of a numbers, each less the one before
    PICTURE = 3  # c planes of (a, b), each number less what its neighbours let expect
    COLOURS = 4  # the same; before that, of every four planes the first and the third less the second


class Coded(NamedTuple):
    """How an array is stored.

    Attributes:
        coding: order and prediction.
        step: what 1 stands for in each plane, where whole numbers are stored for others; else None.
    """

    coding: Coding
    step: Steps | None = None


_EYE_CODED = {
    "curves": Coded(Coding.RISING, _LID_CURVES),
    **dict.fromkeys(("gap", "profile", "travel", "upper", "lower"), Coded(Coding.RISING, FACE_UNIT)),
    "texture": Coded(Coding.COLOURS, _EYE),
    "strip": Coded(Coding.PICTURE, _MASK),
}
_CODED = {
    "face.landmarks": Coded(Coding.RISING, PX),
    "rim.follow": Coded(Coding.SPLIT, SHARE),
    "surround.points": Coded(Coding.RISING, PX),
    "surround.depth": Coded(Coding.RISING, PX),
    **dict.fromkeys(("surround.head_weight", "surround.body_weight"), Coded(Coding.RISING, SHARE)),
    "surround.shares": Coded(Coding.SPLIT, SHARE),
    "surround.neighbours": Coded(Coding.SPLIT),
    "surround.triangles": Coded(Coding.RISING),
    "alpha": Coded(Coding.PICTURE),
    **{f"crease{number}.relief": Coded(Coding.PICTURE) for number in range(len(PATHS))},
    **{f"{side}.{name}": coded for side in ("right", "left") for name, coded in _EYE_CODED.items()},
    **dict.fromkeys(("mouth.upper", "mouth.lower", "mouth.own"), Coded(Coding.COLOURS, [1.0, 1.0, 1.0, _MASK])),
    "mouth.columns": Coded(Coding.RISING, COLOUR),
    "mouth.grain": Coded(Coding.SPLIT, GRAIN),
}
# The core works these out of the others and of the pictures.
_WORKED_OUT = ("face.canonical", "surround.canonical", "source", "texture", "plate", "picture", "crop", "paste.detail")


def model_numbers(learned: MeshBasis) -> bytes:
    """The model pack: what is the same for every portrait of a bundle (`model_arrays`)."""
    arrays = model_arrays(learned)
    return _stream(arrays, {name: Coded(Coding.SPLIT) for name in arrays})


def portrait_numbers(portrait: Portrait, appearance: Appearance, paste_back: PasteBack) -> bytes:
    """What the core needs of a portrait beside its pictures and the model pack.

    Places are rounded first and everything that follows from them is worked out again, so that the face at rest stays where
    it is.
    """
    given, around = appearance.geometry, appearance.surround
    landmarks = np.rint(given.landmarks / PX) * PX
    canonical = ((landmarks - given.translation_px) / given.scale_px) @ given.rotation.T
    geometry = given._replace(landmarks=landmarks, canonical=canonical)
    own_gap = np.maximum(canonical[g.LOWER_INNER_LIP, 1] - canonical[g.UPPER_INNER_LIP, 1], 0.0)
    rounded = appearance._replace(geometry=geometry, mouth=appearance.mouth._replace(own_gap=own_gap))
    arrays = portrait_arrays(portrait, rounded) | picture_arrays(paste_back)
    arrays["alpha"] = appearance.background.alpha
    arrays["surround.depth"] = (given.scale_px * (around.canonical @ given.rotation) + given.translation_px)[:, 2]
    arrays["paste.fine"] = np.array([paste_back.detail is not None], np.int32)
    return _stream({name: array for name, array in arrays.items() if name not in _WORKED_OUT}, _CODED)


def _stream(arrays: Arrays, coded: Mapping[str, Coded]) -> bytes:
    parts = [_HEADER.pack(MAGIC, VERSION, len(arrays))]
    for name, array in arrays.items():
        parts += _record(name, array, coded.get(name, Coded(Coding.PLAIN)))
    return b"".join(parts)


def _record(name: str, array: npt.NDArray[Any], coded: Coded) -> list[bytes]:
    sizes = (*array.shape, 1, 1, 1)[:3]
    values = array.reshape(sizes)
    planes = {Coding.PLAIN: 1, Coding.SPLIT: 1, Coding.RISING: sizes[1] * sizes[2]}.get(coded.coding, sizes[2])
    steps = b""
    if coded.step is not None:
        step = np.broadcast_to(np.asarray(coded.step, "<f8"), planes)
        values = np.rint(values.reshape(-1, planes) / step).reshape(sizes)
        steps = step.tobytes() if values.size else b""
        values = np.clip(values, 0, 255).astype(np.uint8) if coded.coding >= Coding.PICTURE else _narrow_ints(values)
    elif coded.coding != Coding.PLAIN and values.dtype != np.uint8:
        values = _narrow_floats(values) if values.dtype.kind == "f" else _narrow_ints(values)
    kinds = _TYPES.index(array.dtype.name), _TYPES.index(values.dtype.name), coded.coding
    return [_RECORD.pack(name.encode(), *kinds, *sizes), steps, _coded_bytes(values, planes, coded.coding)]



def _narrow_ints(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.astype(np.int16 if np.abs(values).max(initial=0) < 1 << 15 else np.int32)


def _narrow_floats(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As half floats where they hold the values exactly, else as float32."""
    half = values.astype(np.float16)
    return half if bool((half == values).all()) else values.astype(np.float32)


def _coded_bytes(values: npt.NDArray[Any], planes: int, coding: Coding) -> bytes:
    little = values.astype(values.dtype.newbyteorder("<"))
    if coding == Coding.PLAIN or not values.size:
        return little.tobytes()
    if coding >= Coding.RISING:
        whole = values.astype(np.int64)
        if coding == Coding.COLOURS:
            for other in (slice(0, -2, 4), slice(2, None, 4)):
                whole[..., other] = (whole[..., other] - whole[..., 1:-1:4] + 128) % 256
        rows = len(values) if coding >= Coding.PICTURE else 1
        whole = whole.reshape(rows, -1, planes)
        little = (whole - predicted(whole)).astype(little.dtype)
    split = np.ascontiguousarray(little.reshape(-1, planes).T).view(np.uint8).reshape(planes, -1, little.itemsize)
    return split.transpose(0, 2, 1).tobytes()


def predicted(values: Ints) -> Ints:
    """(rows, columns, planes): each number as those beside, above and between let expect.

    Source: Weinberger et al. 2000 (LOCO-I, the predictor of JPEG-LS), section III. The first row is predicted by the number
    beside, the first column by the number above.
    """
    beside, above, between = (np.zeros_like(values) for _ in range(3))
    beside[:, 1:], above[1:], between[1:, 1:] = values[:, :-1], values[:-1], values[:-1, :-1]
    low, high = np.minimum(beside, above), np.maximum(beside, above)
    out = np.where(between >= high, low, np.where(between <= low, high, beside + above - between))
    out[0], out[:, 0] = beside[0], above[:, 0]
    return out
