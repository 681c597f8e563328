"""Recordings of the Live Link Face app, and of what writes like it: CSV with a timecode, 52 shapes and 9 rotations.

Source: recordings of the app, alexdjulin/LiveLinkFace-CSV-Retarget-For-Motionbuilder at 6492a4a, anim/alex_rom_3.csv and
alex_rom_4.csv: header, timecode, rates; signs and units of the eyes. Signs of the head: JimWest/MeFaMo at 15ceb3d, which
drives Unreal's Live Link; for pitch and yaw they are those of the eyes.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto.controls.blendshapes import ARKIT_NAMES, SHAPES
from ditto.errors import ExchangeError
from ditto.exchange.files import Given, lines_of, number, opened
from ditto.exchange.track import MOST_FRAMES, BlendshapeTrack, Floats, checked_track, columns_of, logger, look_degrees
from ditto.media.files import write_file

# The app's order, not ARKit's: JawRight comes before JawLeft, and MouthRight before MouthLeft.
CSV_SHAPES = (
    "EyeBlinkLeft", "EyeLookDownLeft", "EyeLookInLeft", "EyeLookOutLeft", "EyeLookUpLeft", "EyeSquintLeft", "EyeWideLeft",
    "EyeBlinkRight", "EyeLookDownRight", "EyeLookInRight", "EyeLookOutRight", "EyeLookUpRight", "EyeSquintRight",
    "EyeWideRight", "JawForward", "JawRight", "JawLeft", "JawOpen", "MouthClose", "MouthFunnel", "MouthPucker", "MouthRight",
    "MouthLeft", "MouthSmileLeft", "MouthSmileRight", "MouthFrownLeft", "MouthFrownRight", "MouthDimpleLeft",
    "MouthDimpleRight", "MouthStretchLeft", "MouthStretchRight", "MouthRollLower", "MouthRollUpper", "MouthShrugLower",
    "MouthShrugUpper", "MouthPressLeft", "MouthPressRight", "MouthLowerDownLeft", "MouthLowerDownRight", "MouthUpperUpLeft",
    "MouthUpperUpRight", "BrowDownLeft", "BrowDownRight", "BrowInnerUp", "BrowOuterUpLeft", "BrowOuterUpRight", "CheekPuff",
    "CheekSquintLeft", "CheekSquintRight", "NoseSneerLeft", "NoseSneerRight", "TongueOut",
)  # fmt: skip
ROTATIONS = (
    "HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch",
    "RightEyeRoll",
)  # fmt: skip
HEADER = ("Timecode", "BlendShapeCount", *CSV_SHAPES, *ROTATIONS)
SHAPE_COUNT = SHAPES + len(ROTATIONS)  # 61
_PLACES = [next(i for i, name in enumerate(ARKIT_NAMES) if name.lower() == shape.lower()) for shape in CSV_SHAPES]

TIMECODE_FPS = 60  # the app's frames in a timecode, whatever the rate of its rows
# Of timecodes by other tools, told by the largest frame number, in at least so many seconds and rows.
OTHER_RATES, TELLING_SECONDS, TELLING_ROWS = (24, 25, 30), 2, 48
TIMECODE = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})[:;](\d{1,2})(\.\d{1,6})?")
HALF_A_DAY = 12 * 3600


def rotations_of(head_degrees: Floats | None, eyes_degrees: Floats) -> Floats:
    """(N, 9) radians in the order of `ROTATIONS`. Yaw is positive to the person's right, pitch down, in head and eyes."""
    out = np.zeros((len(eyes_degrees), len(ROTATIONS)))
    if head_degrees is not None:
        out[:, :3] = head_degrees[:, [1, 0, 2]]
    for column, eye in ((3, 0), (6, 1)):  # the person's right is the left of the picture
        out[:, column], out[:, column + 1] = -eyes_degrees[:, eye, 0], eyes_degrees[:, eye, 1]
    return np.radians(out)


def degrees_of(rotations: Floats) -> tuple[Floats | None, Floats | None]:
    """Degrees of head (N, 3) and eyes (N, 2, 2), as a track has them, of `ROTATIONS` (N, 9); None where all are zero: off."""
    degrees = np.degrees(rotations)
    head, eyes = degrees[:, [1, 0, 2]], np.stack([degrees[:, [3, 4]], degrees[:, [6, 7]]], 1) * (-1.0, 1.0)
    return (head if head.any() else None), (eyes if eyes.any() else None)


def write(track: BlendshapeTrack, path: str | Path) -> None:
    """Write the app's own form: 63 columns, times from 00:00:00:00.000 on. Frames keep their times.

    Raises:
        OutputError: the file cannot be written.
    """
    eyes = look_degrees(track.weights) if track.eyes_degrees is None else track.eyes_degrees
    values = np.concatenate([track.weights[:, _PLACES], rotations_of(track.head_degrees, eyes)], 1)
    lines = [",".join(HEADER)]
    for seconds, row in zip(track.times - track.times[0], values, strict=True):
        lines.append(f"{timecode(float(seconds))},{SHAPE_COUNT}," + ",".join(f"{x:.10f}" for x in row))
    write_file(path, ("\n".join(lines) + "\n").encode())


def timecode(seconds: float) -> str:
    """HH:MM:SS:FF.mmm: frames at 60 a second and thousandths of a frame."""
    frames, thousandths = divmod(round(seconds * TIMECODE_FPS * 1000), 1000)
    whole, frame = divmod(frames, TIMECODE_FPS)
    return f"{whole // 3600 % 24:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}:{frame:02d}.{thousandths:03d}"


def read(given: Given) -> BlendshapeTrack:
    """A recording: columns by name in any order, any case, with or without rotations. Times begin at 0.

    Repairs, each told in the log: shapes that are missing stay at zero, and rows with the time of the row before are left out.

    Raises:
        ExchangeError: the file cannot be read, has no rows, no timecodes or no shapes, more than `MOST_FRAMES` rows, or a
            field that is no finite number; the message names line and field.
    """
    source = opened(given, "a recording of Live Link Face (CSV)")
    lines = _rows(source.name, lines_of(source))
    _, names = next(lines, (0, []))
    header = [name.strip() for name in names]
    lower = [name.lower() for name in header]
    if "timecode" not in lower:
        raise ExchangeError(
            f"{source.name}, line 1: expected a column Timecode, got {', '.join(header[:4])[:80]!r}; "
            "give a CSV of Live Link Face with its header"
        )
    shapes = columns_of(header, f"{source.name}, line 1")
    rotations = {place: lower.index(name.lower()) for place, name in enumerate(ROTATIONS) if name.lower() in lower}
    wanted = [(place, column) for place, column in shapes.items()]
    wanted += [(SHAPES + place, column) for place, column in rotations.items()]
    clock = lower.index("timecode")

    codes: list[tuple[int, int, float]] = []
    numbers: list[int] = []
    rows = array("d")
    for line, fields in lines:
        if not any(text.strip() for text in fields):
            continue
        where = f"{source.name}, line {line}"
        if len(fields) != len(header):
            raise ExchangeError(f"{where}: expected {len(header)} fields, got {len(fields)}; remove the line")
        if len(codes) >= MOST_FRAMES:
            raise ExchangeError(f"{where}: expected at most {MOST_FRAMES} rows, got more; cut the recording")
        found = TIMECODE.fullmatch(fields[clock].strip())
        if found is None:
            raise ExchangeError(
                f"{where}, field {header[clock]}: expected HH:MM:SS:FF.mmm, got {fields[clock][:40]!r}; correct it"
            )
        row = np.zeros(SHAPE_COUNT)
        for place, column in wanted:
            row[place] = number(f"{where}, field {header[column]}", fields[column])
        hours, minutes, seconds = (int(found[i]) for i in (1, 2, 3))
        codes.append((hours * 3600 + minutes * 60 + seconds, int(found[4]), float(found[5] or 0.0)))
        rows.extend(row)
        numbers.append(line)
    if not rows:
        raise ExchangeError(f"{source.name}: expected rows below the header, got none; record it again")
    times, keep = _times(source.name, np.array(codes, np.float64), numbers)
    values = np.frombuffer(rows).reshape(-1, SHAPE_COUNT)[keep]
    head, eyes = degrees_of(values[:, SHAPES:])
    return checked_track(source.name, times, values[:, :SHAPES], head, eyes)


def _rows(name: str, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    for line, text in lines:
        try:
            yield line, next(csv.reader([text], strict=True), [])
        except csv.Error as error:
            raise ExchangeError(f"{name}, line {line}: expected fields between commas, got: {error}; correct it") from None


def _times(name: str, codes: Floats, numbers: list[int]) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Seconds since the first row, of the rows that are kept, and their places; `codes` are seconds, frame and part of it."""
    whole, frame, part = codes.T
    whole = whole + 24 * 3600 * np.cumsum(np.diff(whole, prepend=whole[0]) < -HALF_A_DAY)  # over midnight
    rate = TIMECODE_FPS
    if whole[-1] - whole[0] >= TELLING_SECONDS and len(frame) >= TELLING_ROWS:
        rate = next((r for r in OTHER_RATES if frame.max() < r), TIMECODE_FPS)
    over = np.flatnonzero(frame >= rate)
    if over.size:
        raise ExchangeError(
            f"{name}, line {numbers[over[0]]}, field Timecode: expected frames below {rate}, got {frame[over[0]]:g}; "
            "correct it"
        )
    times = whole - whole[0] + (frame + part - frame[0] - part[0]) / rate
    back = np.flatnonzero(np.diff(times) < 0.0)
    if back.size:
        raise ExchangeError(
            f"{name}, line {numbers[back[0] + 1]}, field Timecode: expected a later time than the row before, got an earlier "
            "one; sort the rows"
        )
    keep = np.flatnonzero(np.concatenate([[True], np.diff(times) > 0.0]))
    if len(keep) < len(times):
        logger.warning("%s: %d rows with the time of the row before are left out", name, len(times) - len(keep))
    return times[keep], keep
