"""The folder of clips that `ditto train prepare` writes and training reads.

    DATASET/dataset.json    written last: without it the preparation has not finished
    DATASET/clips.jsonl     one `ClipInfo` a line, sorted by id
    DATASET/clips/ID.npz    one `Clip`
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import DatasetError, OutputError
from ditto.lite.speech_encoder import FEATURE_SIZE
from ditto.media.files import whole_file
from ditto.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.motion.emotion import EMOTIONS
from ditto.motion.eyes import EYE_SIZE
from ditto.motion.motion import KEYPOINTS, MOTION_SIZE
from ditto.values import from_json, is_same, typed

FORMAT = 1
SPLITS = ("train", "held")
EMOTION_SOURCES = ("hsemotion", "landmarks", "neutral")

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ClipInfo:
    """What is known of a clip beside its arrays.

    Attributes:
        id: name of the clip, of letters, digits, "-", "_" and ".".
        video: the file, as it was given.
        start_seconds, end_seconds: place in the video.
        track: number of the face among those of its stretch of the video.
        person, language: as given, or None.
        frames: T, 25 a second.
        sync_offset_frames: by how many frames the sound was late; it has been moved by them.
        sync_confidence: of the scorer, or None if none ran.
        emotion_source: of `EMOTION_SOURCES`.
        split: "train" or "held".
    """

    id: str
    video: str
    start_seconds: float
    end_seconds: float
    track: int
    person: str | None
    language: str | None
    frames: int
    sync_offset_frames: int
    sync_confidence: float | None
    emotion_source: str
    split: str


class Clip(NamedTuple):
    """The arrays of one clip of T frames.

    Attributes:
        features: (T, 368) float16, of the bundle's streaming encoder on `sound`.
        motion: (T, 70) float32, head frame, physical units; see `ditto.training.motion_data.RealClip`.
        eyes: (T, 8) float32: opening left and right, gaze xL xR yL yR zL zR.
        emotion: (8,) float32, weights by `ditto.motion.emotion.EMOTIONS`.
        canonical: (63,) float32, the neutral keypoints of the speaker, fu.
        sound: (640 T,) int16 at 16 kHz.
    """

    features: npt.NDArray[np.float16]
    motion: Array
    eyes: Array
    emotion: Array
    canonical: Array
    sound: npt.NDArray[np.int16]


DTYPES = dict(zip(Clip._fields, ("float16", "float32", "float32", "float32", "float32", "int16"), strict=True))


def shapes(frames: int) -> dict[str, tuple[int, ...]]:
    """Shape of each array of a clip of so many frames."""
    return {
        "features": (frames, FEATURE_SIZE),
        "motion": (frames, MOTION_SIZE),
        "eyes": (frames, EYE_SIZE),
        "emotion": (len(EMOTIONS),),
        "canonical": (3 * KEYPOINTS,),
        "sound": (frames * SAMPLES_PER_FRAME,),
    }


@dataclass(frozen=True)
class Dataset:
    """A prepared folder.

    Attributes:
        folder: where it lies.
        bundle: name of the bundle that it was prepared with.
        encoder_sha256: of that bundle's speech encoder network: features of another encoder mean something else.
        options: of the preparation.
        clips: sorted by id.
    """

    folder: Path
    bundle: str
    encoder_sha256: str
    options: Mapping[str, Any]
    clips: tuple[ClipInfo, ...]

    def of(self, split: str) -> tuple[ClipInfo, ...]:
        """The clips of one split, "train" or "held"."""
        if split not in SPLITS:
            raise ValueError(f"expected a split of {', '.join(SPLITS)}, got {split!r}; name one of them")
        return tuple(clip for clip in self.clips if clip.split == split)

    def load(self, clip: ClipInfo) -> Clip:
        """The arrays of a clip.

        Raises:
            DatasetError: the file is missing or damaged, or holds other arrays than `clips.jsonl` says.
        """
        path = clip_file(self.folder, clip.id)
        try:
            with np.load(path, allow_pickle=False) as found:
                arrays = Clip(*(found[name] for name in Clip._fields))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DatasetError(f"expected a clip in {path}, got: {error}; prepare the dataset again") from error
        check_clip(clip, arrays, str(path))
        return arrays


def clip_file(folder: Path, id: str) -> Path:
    """Where the arrays of a clip lie."""
    return folder / "clips" / f"{id}.npz"


def check_clip(clip: ClipInfo, arrays: Clip, where: str) -> None:
    """Raises DatasetError unless the arrays have the kinds and shapes of `clip.frames` frames, and are finite."""
    for name, shape in shapes(clip.frames).items():
        array = getattr(arrays, name)
        if array.shape != shape or array.dtype != DTYPES[name]:
            raise DatasetError(
                f"expected {name} {DTYPES[name]} {shape} in {where}, got {array.dtype} {array.shape}; "
                "prepare the dataset again"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DatasetError(f"expected finite {name} in {where}, got NaN or infinity; prepare the dataset again")


def read_dataset(folder: str | os.PathLike[str]) -> Dataset:
    """Open a prepared folder; the arrays are read by `Dataset.load`.

    Raises:
        DatasetError: no dataset, one that is not finished, of another format, or damaged.
    """
    folder = Path(folder)
    path = folder / "dataset.json"
    if not path.is_file() and (folder / "steps").is_dir():
        raise DatasetError(
            f"expected {path}, got a dataset whose preparation has not finished; run the same ditto train prepare again"
        )
    header = read_json(path)
    if not is_same(header.get("format"), FORMAT):
        raise DatasetError(f"expected a dataset of format {FORMAT}, got {header.get('format')!r} in {path}; prepare it again")
    for key, value in (("fps", FPS), ("sample_rate", SAMPLE_RATE)):
        if not is_same(header.get(key), value):
            raise DatasetError(f"expected {key} {value}, got {header.get(key)!r} in {path}; prepare it again")
    for key, kind in (("bundle", str), ("encoder_sha256", str), ("clips", int), ("options", dict)):
        try:
            typed(key, kind, header.get(key))
        except ValueError as error:
            raise DatasetError(f"{path}: {error}; prepare the dataset again") from None
    table = folder / "clips.jsonl"
    clips = tuple(clip_info(line, f"{table}, line {i}") for i, line in enumerate(read_lines(table), 1))
    if len(clips) != header["clips"]:
        raise DatasetError(f"expected {header['clips']} clips in {table}, got {len(clips)}; prepare the dataset again")
    return Dataset(folder, header["bundle"], header["encoder_sha256"], header["options"], clips)


def clip_info(line: str, where: str) -> ClipInfo:
    """A line of `clips.jsonl`. Raises DatasetError for missing or unknown keys, or values of another type."""
    try:
        clip = from_json(ClipInfo, json.loads(line))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"expected a clip in {where}, got: {error}; prepare the dataset again") from None
    if clip.split not in SPLITS or clip.emotion_source not in EMOTION_SOURCES or clip.frames < 1:
        raise DatasetError(
            f"expected a split of {SPLITS}, an emotion_source of {EMOTION_SOURCES} and frames of 1 or more in {where}, "
            f"got {clip.split!r}, {clip.emotion_source!r}, {clip.frames}; prepare the dataset again"
        )
    return clip


def write_clip(folder: Path, clip: ClipInfo, arrays: Clip) -> None:
    """Write the arrays of a clip; the file appears whole.

    Raises:
        DatasetError: arrays of other kinds or shapes.
        OutputError: the file cannot be written.
    """
    check_clip(clip, arrays, clip.id)
    write_arrays(clip_file(folder, clip.id), arrays._asdict())


def write_index(
    folder: Path, bundle: str, encoder_sha256: str, options: Mapping[str, Any], clips: Iterable[ClipInfo]
) -> Dataset:
    """Write `clips.jsonl`, then `dataset.json`, which makes the dataset complete.

    Raises:
        OutputError: a file cannot be written.
    """
    found = tuple(sorted(clips, key=lambda clip: clip.id))
    lines = [json.dumps(dataclasses.asdict(clip), ensure_ascii=False) + "\n" for clip in found]
    write_bytes(folder / "clips.jsonl", "".join(lines).encode())
    header = {
        "format": FORMAT,
        "bundle": bundle,
        "encoder_sha256": encoder_sha256,
        "fps": FPS,
        "sample_rate": SAMPLE_RATE,
        "clips": len(found),
        "options": dict(options),
    }
    write_json(folder / "dataset.json", header)
    return Dataset(folder, bundle, encoder_sha256, dict(options), found)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file that appears whole. Raises OutputError: the disk is full, or the folder is not writable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            part.write_bytes(data)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> OutputError:
    """The error of a file that the system refuses to write."""
    return OutputError(
        f"expected to write {path}, got: {error.strerror or error}; make room or choose another folder, then run it again: "
        "finished work is kept"
    )


def write_json(path: Path, value: object) -> None:
    """Write a JSON file that appears whole. Raises OutputError."""
    write_bytes(path, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())


def write_arrays(path: Path, arrays: Mapping[str, npt.ArrayLike]) -> None:
    """Write arrays as a compressed .npz that appears whole: the same arrays give the same bytes. Raises OutputError."""
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
    write_bytes(path, data.getvalue())


def read_lines(path: Path) -> list[str]:
    """Lines of a text file that are not empty. Raises DatasetError."""
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"expected {path}, got: {reason}; check the name, or run `ditto train prepare`") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a dataset. Raises DatasetError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"expected {path}, got: {reason}; check the name, or run `ditto train prepare`") from error
    if not isinstance(value, dict):
        raise DatasetError(f"expected a JSON object in {path}, got {type(value).__name__}; prepare the dataset again")
    return value
