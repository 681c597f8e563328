"""Faces for the benchmarks: landmarks re-detected on rendered frames, tracks of real clips, portraits to animate."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks._report import ROOT
from ditto.portrait.face_mesh import LANDMARKS
from ditto.portrait.follow import follow
from ditto.training import held_out
from ditto.training.tracks import track as track_file

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]
SHARED = ROOT.parent / "shared" / "data"
SCRATCH = ROOT / "out" / "benchmarks"  # git-ignored


EDGES = np.array([0.5, 0.5, 0.0])  # the tracker counts from the frame's edge; here pixel centres are at whole numbers


def detect(image: Image) -> Floats | None:
    """Landmarks (478, 3) in pixels of one picture on its own, or None."""
    (found,) = follow([image])
    return None if found is None else found - EDGES


def track(frames: Sequence[Image]) -> Floats:
    """Landmarks (T, 478, 3) in pixels of consecutive frames, NaN where no face was found."""
    tracks = np.full((len(frames), LANDMARKS, 3), np.nan)
    for i, found in enumerate(follow(frames)):
        if found is not None:
            tracks[i] = found - EDGES
    return tracks


class Clip(NamedTuple):
    """A real talking clip: landmarks (T, 478, 3) px, samples (N,) at 16 kHz."""

    name: str
    landmarks: Floats
    samples: npt.NDArray[np.float32]
    fps: float


def tracked_clip(path: Path) -> Clip:
    """The clip with its landmarks; tracked once, then kept under out/benchmarks/tracks."""
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]
    kept = SCRATCH / "tracks" / f"{path.stem}-{key}.npz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        track_file(path, kept)
    with np.load(kept) as saved:
        landmarks = saved["landmarks"].astype(np.float64) - EDGES
        return Clip(path.stem, landmarks, saved["samples"], float(saved["fps"]))


def grid_holdout(folder: Path) -> list[Path]:
    """The GRID clips that no training sees: every tenth of the sorted stems, from the tenth on."""
    clips = sorted(folder.glob("*.mkv"), key=lambda p: p.stem)
    return [p for i, p in enumerate(clips) if held_out(i)]


def spread(items: Sequence[Path], count: int) -> list[Path]:
    """`count` of the items, evenly spread; all of them if there are fewer."""
    if count >= len(items):
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def example_portrait() -> Path:
    """The portrait in examples/; in a checkout without one, the photograph among the shared portraits."""
    for path in sorted((ROOT / "examples").glob("portrait.*")):
        return path
    return SHARED / "portraits" / "public_domain" / "astronaut_eileen_collins_nasa.png"


def face_window(portrait: Portrait) -> tuple[slice, slice]:
    """Rows and columns of the picture around the face, with room for it to move."""
    points = np.c_[portrait.landmarks[:, :2], np.ones(len(portrait.landmarks))] @ portrait.crop_to_picture[:2].T
    low, high = points.min(0), points.max(0)
    centre, half = (low + high) / 2, 0.8 * (high - low).max()
    height, width = portrait.picture.shape[:2]
    (x0, y0), (x1, y1) = np.maximum(centre - half, 0).astype(int), (centre + half).astype(int)
    return slice(y0, min(y1, height)), slice(x0, min(x1, width))


def frames_of(path: Path, expected: Collection[int]) -> dict[int, Image]:
    """Frames (H, W, 3) RGB of a clip by number, sides cut to even; reads no further than needed."""
    import av

    from ditto.media.files import ffmpeg_name

    chosen: dict[int, Image] = {}
    with av.open(ffmpeg_name(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in expected:
                image = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                chosen[index] = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
            if len(chosen) == len(expected):
                break
    return chosen
