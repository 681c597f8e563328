"""NVIDIA Audio2Face: the JSON of the Omniverse exporter, and the CSV of the Audio2Face-3D client."""

from __future__ import annotations

import csv
import json
from array import array
from pathlib import Path

import numpy as np

from ditto.controls.blendshapes import ARKIT_NAMES, SHAPES
from ditto.errors import ExchangeError
from ditto.exchange.files import Given, field, json_of, lines_of, number, opened, whole
from ditto.exchange.track import MOST_FRAMES, BlendshapeTrack, checked_track, columns_of
from ditto.media.files import write_file


def write_json(track: BlendshapeTrack, path: str | Path, sound: str = "") -> None:
    """Write the exporter's JSON, with ARKit's names; frames at the track's rate.

    Args:
        sound: the recording that the track goes with (`trackPath`).

    Raises:
        OutputError: the file cannot be written.
    """
    even = track.resampled(track.fps)
    found = {
        "exportFps": even.fps,
        "trackPath": sound,
        "numPoses": SHAPES,
        "numFrames": len(even),
        "facsNames": list(ARKIT_NAMES),
        "weightMat": np.round(even.weights, 7).tolist(),
    }
    write_file(path, json.dumps(found).encode())


def read_json(given: Given) -> BlendshapeTrack:
    """What the exporter wrote; shapes by name (`facsNames`).

    Raises:
        ExchangeError: the file cannot be read, or a key is missing or of another form.
    """
    source = opened(given, "a JSON file of Audio2Face")
    name, found = source.name, json_of(source.name, whole(source))
    fps = number(f"{name}, exportFps", field(name, found, "exportFps", (int, float)))
    names, rows = field(name, found, "facsNames", list), field(name, found, "weightMat", list)
    if not 0.0 < fps <= 1000.0:
        raise ExchangeError(f"{name}: expected exportFps in (0, 1000], got {fps:g}; correct it")
    if not all(isinstance(shape, str) for shape in names):
        raise ExchangeError(f"{name}: expected facsNames as texts, got others; export it again")
    if not rows or len(rows) > MOST_FRAMES:
        raise ExchangeError(f"{name}: expected 1 to {MOST_FRAMES} rows in weightMat, got {len(rows)}; export it again")
    for key, count in (("numPoses", len(names)), ("numFrames", len(rows))):
        if found.get(key, count) != count:
            raise ExchangeError(f"{name}: expected {key} {count}, as there are, got {found[key]!r}; is the file whole?")
    columns = columns_of(names, f"{name}, facsNames")
    weights = np.zeros((len(rows), SHAPES))
    for n, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            got = len(row) if isinstance(row, list) else type(row).__name__
            raise ExchangeError(f"{name}, weightMat row {n}: expected {len(names)} numbers, got {got}; export it again")
        for place, column in columns.items():
            weights[n, place] = number(f"{name}, weightMat row {n}, {names[column]}", row[column])
    return checked_track(name, np.arange(len(rows)) / fps, weights, fps=fps)


def write_csv(track: BlendshapeTrack, path: str | Path) -> None:
    """Write the client's `animation_frames.csv`: an index, seconds, and ARKit's shapes.

    Raises:
        OutputError: the file cannot be written.
    """
    header = ["", "timeCode", *(f"blendShapes.{name[0].upper()}{name[1:]}" for name in ARKIT_NAMES)]
    lines = [",".join(header)]
    for n, (seconds, row) in enumerate(zip(track.times - track.times[0], track.weights, strict=True)):
        lines.append(f"{n},{seconds:.6f}," + ",".join(f"{x:.7g}" for x in row))
    write_file(path, ("\n".join(lines) + "\n").encode())


def read_csv(given: Given) -> BlendshapeTrack:
    """What the client wrote; columns by name, others (tongue shapes of version 2) left out.

    Raises:
        ExchangeError: the file cannot be read, has no rows, no `timeCode` or no shapes, or a field that is no finite number;
            the message names line and field.
    """
    source = opened(given, "an animation of Audio2Face-3D (CSV)")
    lines = lines_of(source)
    header = next(csv.reader([next(lines, (0, ""))[1]]), [])
    lower = [name.strip().lower() for name in header]
    if "timecode" not in lower:
        raise ExchangeError(f"{source.name}, line 1: expected a column timeCode, got none; give animation_frames.csv")
    columns, clock = columns_of(header, f"{source.name}, line 1"), lower.index("timecode")
    times, rows = array("d"), array("d")
    for line, text in lines:
        if not text.strip():
            continue
        fields, where = text.split(","), f"{source.name}, line {line}"
        if len(fields) != len(header):
            raise ExchangeError(f"{where}: expected {len(header)} fields, got {len(fields)}; remove the line")
        if len(times) >= MOST_FRAMES:
            raise ExchangeError(f"{where}: expected at most {MOST_FRAMES} rows, got more; cut the recording")
        row = np.zeros(SHAPES)
        for place, column in columns.items():
            row[place] = number(f"{where}, field {header[column]}", fields[column])
        times.append(number(f"{where}, field timeCode", fields[clock]))
        rows.extend(row)
    if not rows:
        raise ExchangeError(f"{source.name}: expected rows below the header, got none; export it again")
    return checked_track(source.name, times, np.frombuffer(rows).reshape(-1, SHAPES))
