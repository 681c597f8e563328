"""Clips of real footage for the latent systems, cut from the videos of a prepared dataset.

    ditto train clips DATASET -o CLIPS [--side 80]

CLIPS is a folder as `ditto.training.latent.data` writes it. The square around the face follows the head: it moves, grows and
rolls with it, so that the head stands as still as in clips that lite renders. Only its nodding and turning are left to be
seen, and to be read in the motion. Work that was interrupted goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import DatasetError, VideoError
from ditto.latent.region import cut_square, square_around
from ditto.media.files import check_folder
from ditto.media.footage import pictures
from ditto.media.rates import SAMPLES_PER_FRAME
from ditto.motion.motion import DEGREES, EXPRESSION, KEYPOINTS, SCALE, TRANSLATION, rotation_matrix
from ditto.portrait.face_mesh import inner_gap
from ditto.portrait.follow import EYE_CORNERS
from ditto.training.dataset import ClipInfo, Dataset, clip_file, read_dataset, read_json
from ditto.training.latent import data
from ditto.training.motion_data import fill_gaps, fit_heads
from ditto.training.prepare.faces import landmarks_of
from ditto.training.prepare.sources import fingerprint
from ditto.training.prepare.work import Options, Piece, Work
from ditto.training.smoothing import gaussian
from ditto.values import from_json

FORMAT = 1  # of how clips are cut
SMOOTHING_FRAMES = 2.0  # of the square: the tracker's jitter, which would shake the face; by eye

Floats = npt.NDArray[np.float64]


class Squares(NamedTuple):
    """The square of each frame.

    Attributes:
        source: the frame with the most closed lips, which stands for a portrait.
        squares: (T, 3) as `ditto.latent.region.square_of`, pixels of the video.
        angles: (T,) radians, clockwise on the screen, against the source frame.
    """

    source: int
    squares: Floats
    angles: Floats


def clips_of_footage(
    dataset: Path, out: Path, side: int = data.SIDE, report: Callable[[str], None] = print
) -> data.Clips:
    """Cut the clips of a prepared dataset to a folder; those that are there already are kept.

    Raises:
        DatasetError: no prepared dataset, or one without its steps, or whose videos are missing or have changed.
        OutputError: a file cannot be written; finished clips stay.
    """
    check_folder(out)
    found = read_dataset(dataset)
    if not (dataset / "steps" / "export").is_dir():
        raise DatasetError(
            f"expected the steps of the preparation in {dataset / 'steps'}, which know videos and faces, got none; prepare "
            "the videos again to a new folder"
        )
    infos = list[data.ClipInfo]()
    for info in found.clips:
        path = data.clip_file(out, f"footage_{info.id}")
        digest = hashlib.sha256(clip_file(dataset, info.id).read_bytes()).hexdigest()
        asked = {"clip": digest, "side": str(side), "format": f"{data.FORMAT}, {FORMAT}"}
        if data.made_for(path) != asked:
            data.write_clip(path, cut_clip(found, info, side), asked)
            report(f"{path.stem}, {info.frames} frames, {len(infos) + 1} of {len(found.clips)} clips")
        infos.append(data.info_of(path, info.person or info.video, info.video, 0, info.split))
    return data.write_index(out, side, infos)


def cut_clip(dataset: Dataset, info: ClipInfo, side: int) -> data.Clip:
    """One clip, its first 4 n + 1 frames. Raises DatasetError: its video is missing or has changed."""
    work, arrays, piece = Work(dataset.folder / "steps", Options()), dataset.load(info), _piece(dataset, info)
    prints = read_json(work.steps / "videos.json")
    if prints.get(piece.media) != fingerprint(piece.path):
        raise DatasetError(
            f"expected the video {piece.path} as it was prepared, got none or another; put it back, or prepare it again"
        )
    count = info.frames - (info.frames - 1) % 4
    found = squares_of(fill_gaps(landmarks_of(work, piece)))
    frames = []
    try:
        for place, picture in enumerate(pictures(piece.path, piece.start, piece.end)):
            frames.append(cut_square(picture, found.squares[place], side, float(found.angles[place])))
    except VideoError as error:
        raise DatasetError(f"expected the video of {info.id}, got: {error}") from error
    if len(frames) != info.frames:
        raise DatasetError(f"expected {info.frames} frames of {info.id} in {piece.path}, got {len(frames)}; prepare it again")
    return data.Clip(
        np.stack(frames[:count]),
        frames[found.source],
        found.squares[found.source],
        arrays.features[:count],
        seen_motion(arrays.motion[:count]),
        arrays.sound[: count * SAMPLES_PER_FRAME],
    )


def squares_of(landmarks: Floats) -> Squares:
    """The squares that follow a head, of its landmarks (T, 478, 3) in pixels."""
    scale, _, origin, face = fit_heads(landmarks)
    source = int(np.argmin([abs(inner_gap(frame)) for frame in face]))
    right, left = (landmarks[:, corner, :2] for corner in EYE_CORNERS)
    angles = np.unwrap(np.arctan2(*(left - right).T[::-1]))
    head = np.column_stack([origin[:, :2], np.log(scale), angles])
    head = gaussian(head, SMOOTHING_FRAMES) if len(head) > 1 else head
    x, y, half = square_around(landmarks[source, :, :2])
    from_origin = np.array([x, y]) - head[source, :2]
    sizes, turns = np.exp(head[:, 2] - head[source, 2]), head[:, 3] - head[source, 3]
    c, s = sizes * np.cos(turns), sizes * np.sin(turns)
    moved = np.column_stack([c * from_origin[0] - s * from_origin[1], s * from_origin[0] + c * from_origin[1]])
    return Squares(source, np.column_stack([head[:, :2] + moved, half * sizes]), turns)


def seen_motion(motion: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Motion (T, 70) of a dataset, expression in the head frame, as squares that follow the head show it: without scale, roll
    and translation, expression in the camera frame.
    """
    seen = np.array(motion, np.float64)
    seen[:, SCALE] = seen[:, TRANSLATION] = 0.0
    seen[:, DEGREES.stop - 1] = 0.0
    points: Any = seen[:, EXPRESSION].reshape(len(seen), KEYPOINTS, 3)
    seen[:, EXPRESSION] = (points @ rotation_matrix(*seen[:, DEGREES].T)).reshape(len(seen), -1)
    return seen.astype(np.float32)


def _piece(dataset: Dataset, info: ClipInfo) -> Piece:
    """Where a clip lies in its video, and its face in the tracks."""
    path = dataset.folder / "steps" / "export" / f"{info.id}.json"
    found = read_json(path)
    try:
        piece = from_json(Piece, found["items"][0])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DatasetError(f"expected a clip of the preparation in {path}, got: {error}; delete this file") from error
    return piece
