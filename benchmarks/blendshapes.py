"""How a face moves, as MediaPipe's FaceLandmarker sees it: the pose of its head and the spread of its blendshapes.

The landmarker runs in a process of its own, with any Python that has `mediapipe`: the package brings libraries that ditto
does without.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import InputError
from ditto.motion.motion import euler_degrees

Image = npt.NDArray[np.uint8]
READER = Path(__file__).with_name("_blendshapes.py")


class Seen(NamedTuple):
    """One frame: blendshapes by name, and pitch, yaw and roll in degrees."""

    shapes: dict[str, float]
    degrees: tuple[float, float, float]


def see(frames: Sequence[Image], model: Path, python: str, fps: float = 25.0) -> list[Seen | None]:
    """What the landmarker sees in consecutive frames (H, W, 3) RGB, None where that is no face.

    Args:
        fps: of the frames; 0: they do not follow each other, and a face is looked for in each on its own.

    Raises:
        InputError: no such model file, or the Python given cannot run the landmarker.
    """
    if not model.is_file():
        raise InputError(
            f"expected the file of MediaPipe's FaceLandmarker, got {model}, which is no file; give its path"
        )
    height, width = frames[0].shape[:2]
    command = [python, str(READER), str(model), str(height), str(width), str(fps)]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise InputError(
            f"expected a Python with the package mediapipe, got {python}: {error}; give another"
        ) from error
    writer = threading.Thread(target=_feed, args=(process, frames), daemon=True)
    errors: list[bytes] = []
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()), daemon=True)  # type: ignore[union-attr]
    writer.start()
    reader.start()
    lines = [json.loads(line) for line in process.stdout if line.startswith((b"{", b"null"))]
    code = process.wait()
    writer.join()
    reader.join()
    if code != 0 or len(lines) != len(frames) + 1:
        said = b"".join(errors).decode(errors="replace").strip().splitlines()
        raise InputError(
            f"expected blendshapes of {len(frames)} frames from {python}, got {max(0, len(lines) - 1)}"
            f" ({said[-1] if said else f'exit code {code}'}); give a Python with the package mediapipe"
        )
    return [None if line is None else _seen(line) for line in lines[1:]]


def _seen(line: dict[str, dict[str, float] | list[list[float]]]) -> Seen:
    # Columns of the matrix are the axes of the head, so that its transpose takes row vectors, as ours.
    pitch, yaw, roll = euler_degrees(np.array(line["rotation"]).T)
    return Seen(
        {name: float(score) for name, score in dict(line["shapes"]).items()}, (float(pitch), float(yaw), float(roll))
    )


def _feed(process: subprocess.Popen[bytes], frames: Sequence[Image]) -> None:
    assert process.stdin is not None
    try:
        for frame in frames:
            process.stdin.write(np.ascontiguousarray(frame).tobytes())
    except OSError:
        pass  # the reader ended early; its exit code says so
    finally:
        try:
            process.stdin.close()
        except OSError:
            pass


def spreads(clips: Sequence[Sequence[Seen | None]]) -> dict[str, float]:
    """Standard deviation of each blendshape within a clip, median over clips."""
    found: dict[str, list[float]] = {}
    for clip in clips:
        shapes = [frame.shapes for frame in clip if frame is not None]
        for name in shapes[0] if shapes else ():
            found.setdefault(name, []).append(float(np.std([of_frame[name] for of_frame in shapes])))
    return {name: float(np.median(values)) for name, values in found.items()}


def fill_head(clip: Sequence[Seen | None]) -> npt.NDArray[np.float64]:
    """(T, 3) the angles of a clip; where no face was seen, between those of the frames around.

    Raises:
        InputError: no frame shows a face.
    """
    where = [i for i, frame in enumerate(clip) if frame is not None]
    if not where:
        raise InputError("expected a face in the rendered frames, got none that MediaPipe sees; try another portrait")
    angles = np.array([frame.degrees for frame in clip if frame is not None])
    return np.stack([np.interp(np.arange(len(clip)), where, angles[:, axis]) for axis in range(3)], -1)


def published(statistics: Path) -> Iterator[tuple[str, dict[str, float], dict[str, float]]]:
    """Of natural_talk.json: name, spreads of its real sources, and of the ditto that it measured."""
    for name, values in json.loads(statistics.read_text())["blendshape_std_within_clip"]["values"].items():
        yield name, {k: v for k, v in values.items() if k != "ditto"}, {"ditto": values["ditto"]}
