"""glTF 2.0: morph target animation, as JSON with embedded data (.gltf) or as one binary file (.glb).

Source: Khronos Group, glTF 2.0 specification: accessors (3.6.2), morph targets (3.7.2.2), animations (3.11), GLB (4).
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ditto.controls.blendshapes import ARKIT_NAMES, SHAPES
from ditto.errors import ExchangeError
from ditto.exchange.files import Given, field, json_of, opened, whole
from ditto.exchange.track import MOST_FRAMES, BlendshapeTrack, Floats, checked_track, columns_of
from ditto.media.files import write_file
from ditto.values import is_whole

GLB_MAGIC, GLB_VERSION, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
FLOAT, ARRAY_BUFFER = 5126, 34962
# Normalised integers stand for [-1, 1] or [0, 1].
COMPONENTS = {5120: ("<i1", 127), 5121: ("<u1", 255), 5122: ("<i2", 32767), 5123: ("<u2", 65535), FLOAT: ("<f4", 1)}


def write(track: BlendshapeTrack, path: str | Path) -> None:
    """Write an animation of 52 morph targets, by their names in `extras.targetNames`; .glb or, any other suffix, .gltf.

    The mesh is one triangle without area whose targets do not move: a program takes the animation over by the names.

    Raises:
        OutputError: the file cannot be written.
    """
    times = (track.times - track.times[0]).astype("<f4")
    parts = [times.tobytes(), track.weights.astype("<f4").tobytes(), bytes(36)]
    starts = np.cumsum([0, *map(len, parts)])
    point = {"bufferView": 2, "componentType": FLOAT, "count": 3, "type": "VEC3", "min": [0.0] * 3, "max": [0.0] * 3}
    time = {
        "bufferView": 0, "componentType": FLOAT, "count": len(track), "type": "SCALAR",
        "min": [float(times[0])], "max": [float(times[-1])],
    }  # fmt: skip
    weights = {"bufferView": 1, "componentType": FLOAT, "count": len(track) * SHAPES, "type": "SCALAR"}
    views: list[dict[str, int]] = [
        {"buffer": 0, "byteOffset": int(start), "byteLength": len(part)}
        for start, part in zip(starts[:-1], parts, strict=True)
    ]
    views[2]["target"] = ARRAY_BUFFER
    found: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "ditto"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "face", "mesh": 0}],
        "meshes": [{
            "name": "face",
            "primitives": [{"attributes": {"POSITION": 2}, "targets": [{"POSITION": 2}] * SHAPES}],
            "weights": [0.0] * SHAPES,
            "extras": {"targetNames": list(ARKIT_NAMES)},
        }],
        "animations": [{
            "name": "face",
            "channels": [{"sampler": 0, "target": {"node": 0, "path": "weights"}}],
            "samplers": [{"input": 0, "output": 1, "interpolation": "LINEAR"}],
        }],
        "accessors": [time, weights, point],
        "bufferViews": views,
        "buffers": [{"byteLength": int(starts[-1])}],
    }  # fmt: skip
    data = b"".join(parts)
    if Path(path).suffix.lower() == ".glb":
        write_file(path, _binary(found, data))
    else:
        found["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
        write_file(path, json.dumps(found).encode())


def _binary(found: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(found).encode()
    text += b" " * (-len(text) % 4)
    data += bytes(-len(data) % 4)
    chunks = struct.pack("<2I", len(text), JSON_CHUNK) + text + struct.pack("<2I", len(data), BINARY_CHUNK) + data
    return struct.pack("<3I", GLB_MAGIC, GLB_VERSION, 12 + len(chunks)) + chunks


class _File(NamedTuple):
    """A glTF file: its name, its JSON, its binary chunk, and the folder that other files lie in."""

    name: str
    found: dict[str, Any]
    chunk: bytes | None
    folder: Path | None

    def item(self, kind: str, index: object) -> dict[str, Any]:
        """An object out of an array of the file. Raises ExchangeError."""
        items = self.found.get(kind)
        if not isinstance(items, list) or not is_whole(index) or index >= len(items) or not isinstance(items[index], dict):
            raise ExchangeError(f"{self.name}: expected {kind}[{index!r}], got none; export the file again")
        return dict(items[index])


def read(given: Given) -> BlendshapeTrack:
    """The first animation of morph targets whose mesh names shapes of ARKit (`extras.targetNames`).

    Raises:
        ExchangeError: the file cannot be read, is no glTF 2.0, or has no such animation.
    """
    source = opened(given, "a glTF file")
    file = _opened(source.name, whole(source), source.path.parent if source.path else None)
    asset = field(file.name, file.found, "asset", dict)
    if not str(asset.get("version", "")).startswith("2."):
        raise ExchangeError(f"{file.name}: expected glTF 2.0, got version {asset.get('version')!r}; export it as 2.0")
    for animation in file.found.get("animations") or []:
        for channel in animation.get("channels") or [] if isinstance(animation, dict) else []:
            target = channel.get("target") if isinstance(channel, dict) else None
            if isinstance(target, dict) and target.get("path") == "weights":
                names = _target_names(file, target.get("node"))
                if names:
                    return _track(file, animation, channel, names)
    raise ExchangeError(
        f"{file.name}: expected an animation of morph targets with extras.targetNames, got none; export shape keys by name"
    )


def _opened(name: str, data: bytes, folder: Path | None) -> _File:
    if data[:4] != b"glTF":
        return _File(name, json_of(name, data), None, folder)
    version, length = struct.unpack_from("<2I", data, 4) if len(data) >= 20 else (0, 0)
    if version != GLB_VERSION or length > len(data):
        raise ExchangeError(f"{name}: expected a whole GLB of version 2, got another or a part of one; copy it again")
    chunks: dict[int, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        length, kind = struct.unpack_from("<2I", data, at)
        chunks.setdefault(kind, data[at + 8 : at + 8 + length])
        at += 8 + length
    return _File(name, json_of(name, chunks.get(JSON_CHUNK, b"")), chunks.get(BINARY_CHUNK), folder)


def _target_names(file: _File, node: object) -> list[str]:
    """Names of the morph targets of a node's mesh; none where the mesh has no names."""
    mesh = file.item("meshes", file.item("nodes", node).get("mesh"))
    extras = mesh.get("extras")
    names = extras.get("targetNames") if isinstance(extras, dict) else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _track(file: _File, animation: dict[str, Any], channel: dict[str, Any], names: list[str]) -> BlendshapeTrack:
    samplers, index = animation.get("samplers"), channel.get("sampler")
    if not isinstance(samplers, list) or not is_whole(index) or index >= len(samplers):
        raise ExchangeError(f"{file.name}: expected the sampler of an animation, got none; export the file again")
    sampler = samplers[index]
    if not isinstance(sampler, dict):
        raise ExchangeError(f"{file.name}: expected a sampler as an object, got {type(sampler).__name__}; export it again")
    times, values = _accessor(file, sampler.get("input")), _accessor(file, sampler.get("output"))
    cubic = sampler.get("interpolation") == "CUBICSPLINE"
    if not 0 < len(times) <= MOST_FRAMES:
        raise ExchangeError(f"{file.name}: expected 1 to {MOST_FRAMES} keyframes, got {len(times)}; bake a shorter animation")
    if len(values) != len(times) * len(names) * (3 if cubic else 1):
        raise ExchangeError(
            f"{file.name}: expected {len(times)} x {len(names)} weights, got {len(values)}; export the file again"
        )
    table = values.reshape(len(times), 3 if cubic else 1, len(names))[:, 1 if cubic else 0]  # in-tangent, value, out-tangent
    weights = np.zeros((len(times), SHAPES))
    for place, column in columns_of(names, f"{file.name}, targetNames").items():
        weights[:, place] = table[:, column]
    return checked_track(file.name, times.astype(np.float64), weights)


def _accessor(file: _File, index: object) -> Floats:
    """Numbers of a scalar accessor. Raises ExchangeError."""
    accessor = file.item("accessors", index)
    kind: Any = accessor.get("componentType")
    count: Any = accessor.get("count")
    where = f"{file.name}, accessor {index}"
    if accessor.get("type") != "SCALAR" or kind not in COMPONENTS or "sparse" in accessor:
        raise ExchangeError(f"{where}: expected plain scalars of 8, 16 or 32 bits, got another form; export it again")
    if kind != FLOAT and not accessor.get("normalized"):
        raise ExchangeError(f"{where}: expected floats or normalized integers, got other integers; export it again")
    view = file.item("bufferViews", accessor.get("bufferView"))
    dtype = np.dtype(COMPONENTS[kind][0])
    stride = view.get("byteStride", dtype.itemsize)
    start, offset = view.get("byteOffset", 0), accessor.get("byteOffset", 0)
    length: Any = view.get("byteLength")
    plain = all(map(is_whole, (count, stride, start, length, offset)))
    data = _buffer(file, view.get("buffer")) if plain else b""
    if not plain or count == 0 or stride < dtype.itemsize or (
        offset + (count - 1) * stride + dtype.itemsize > length or start + length > len(data)
    ):
        raise ExchangeError(f"{where}: expected {count!r} numbers inside of its buffer, got fewer; is the file whole?")
    raw = np.ndarray((count,), dtype, data, start + offset, (stride,))
    return np.maximum(raw.astype(np.float64) / COMPONENTS[kind][1], -1.0) if kind != FLOAT else raw.astype(np.float64)


def _buffer(file: _File, index: object) -> bytes:
    """Bytes of a buffer: embedded, of the binary chunk, or of a file beside this one. Raises ExchangeError."""
    buffer = file.item("buffers", index)
    uri = buffer.get("uri")
    if uri is None:
        if file.chunk is None:
            raise ExchangeError(f"{file.name}: expected the data of buffer {index}, got none; is the file whole?")
        return file.chunk
    if isinstance(uri, str) and uri.startswith("data:"):
        try:
            return base64.b64decode(uri.partition(",")[2], validate=True)
        except (binascii.Error, ValueError):
            raise ExchangeError(f"{file.name}: expected base64 in buffer {index}, got other text; export it again") from None
    if not isinstance(uri, str) or file.folder is None or Path(uri).name != uri or uri in ("", ".", ".."):
        raise ExchangeError(
            f"{file.name}: expected buffer {index} inside of the file or in a file beside it, got {str(uri)[:40]!r}; "
            "export it as .glb"
        )
    return whole(opened(file.folder / uri, "the data of a glTF file"))
