"""Files of a performance: head values at 25 a second (safetensors; no pickle)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ditto import exchange
from ditto.controls.driving import Performance
from ditto.errors import ExchangeError
from ditto.exchange.files import Given, opened, whole
from ditto.exchange.track import BlendshapeTrack
from ditto.media.files import write_file
from ditto.media.footage import is_video
from ditto.motion.motion import MOST, MOTION_SIZE

FORMAT, VERSION = "ditto.performance", "1"
SUFFIX = ".safetensors"


def write(performance: Performance, path: str | Path, about: Mapping[str, Any] | None = None) -> None:
    """Write head values and how far to trust them; regions and start are the choice of who drives with it.

    Args:
        about: what else the file should tell, as JSON: where it comes from, where the face was lost.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.numpy import save

    arrays = {"values": np.ascontiguousarray(performance.values), "weights": np.ascontiguousarray(performance.weights)}
    told = {"format": FORMAT, "version": VERSION, "about": json.dumps(dict(about or {}))}
    write_file(path, save(arrays, told))


def read(given: Given, regions: Mapping[str, float] | None = None, start_seconds: float = 0.0) -> Performance:
    """A performance of a file: one of `write`, or a track in any format of `ditto.exchange`.

    Args:
        regions, start_seconds: as of `Performance`.

    Raises:
        ExchangeError: the file cannot be read or used.
        ValueError: an unknown region, a share or a start out of range.
    """
    if isinstance(given, (str, Path)) and is_video(given):
        raise ExchangeError(
            f"expected a performance, got the video {given}; make one: ditto motion from-video {given} -o "
            f"{Path(given).stem}.safetensors"
        )
    source = opened(given, "a performance")
    of_regions = {"all": 1.0} if regions is None else regions
    if not is_performance(source):
        return Performance(exchange.read(source).to_head_values().astype(np.float32), of_regions, start_seconds)
    values, weights = _tensors(source.name, whole(source))
    return Performance(values, of_regions, start_seconds, weights)


def is_performance(given: Given) -> bool:
    """Whether a file is safetensors and not a track of another program. Raises ExchangeError."""
    with opened(given, "a performance").open() as stream:
        head = stream.read(9)
    return head[8:9] == b"{" and head[:1] != b"{"


def _tensors(name: str, data: bytes) -> tuple[Any, Any]:
    """Values (N, 70) and weights (N,) of a safetensors file. Raises ExchangeError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        length = int.from_bytes(data[:8], "little")
        told = json.loads(data[8 : 8 + length])["__metadata__"]
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ExchangeError(f"{name}: expected a performance, got another safetensors file: {error}; make it again") from None
    if told.get("format") != FORMAT or told.get("version") != VERSION:
        got = f"{told['format']} {told.get('version')}" if "format" in told else "another safetensors file"
        raise ExchangeError(f"{name}: expected {FORMAT} {VERSION}, got {got}; make it again with this version of ditto")
    values, weights = arrays.get("values"), arrays.get("weights")
    shape = None if values is None else values.shape
    if values is None or weights is None or values.ndim != 2 or values.shape[1] != MOTION_SIZE or not len(values) or (
        weights.shape != (len(values),)
    ):
        raise ExchangeError(f"{name}: expected values (N, {MOTION_SIZE}) and weights (N,), got {shape}; make it again")
    if not ((np.abs(values) <= MOST).all() and ((weights >= 0.0) & (weights <= 1.0)).all()):
        raise ExchangeError(
            f"{name}: expected finite values up to {MOST:g} and weights in [0, 1], got others; make it again"
        )
    return values, weights


def track_of(performance: Performance) -> BlendshapeTrack:
    """The performance as blendshapes."""
    return BlendshapeTrack.from_head_values(performance.values)
