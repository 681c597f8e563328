"""Track the 478 face-mesh landmarks of a folder of talking clips.

One `.npz` per clip: `landmarks` (T, 478, 3) float32 in pixels (z scaled like x; NaN where no face was
found), `samples` (N,) float32 at 16 kHz, `fps`, `size` (width, height).

    python -m ditto.training.tracks CLIPS OUT [--workers 2]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from ditto.errors import VideoError
from ditto.media.files import ffmpeg_name
from ditto.media.rates import SAMPLE_RATE
from ditto.portrait.face_mesh import LANDMARKS
from ditto.portrait.face_networks import MESH_SIZE, Floats, cut, networks

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

MIN_SCORE = 0.3  # of a detection; a clip is known to show a face
MIN_PRESENCE = 0.5  # below it the face is lost, and the next frame is searched
MARGIN = 1.5  # side of the mesh network's field over the longer side of the face's box
EYE_CORNERS = (33, 263)  # the outer ones; the field is upright by the line between them


def read_clip(path: Path) -> tuple[list[Bytes], Array, float]:
    """Frames (H, W, 3) RGB, mono samples at 16 kHz, and frames per second of one clip.

    Raises:
        VideoError: the file cannot be read, or has no pictures.
    """
    try:
        frames, samples, fps = _decoded(path)
    except (OSError, av.FFmpegError) as error:
        raise VideoError(f"expected a video, got {path}, which cannot be read ({error}); give another") from error
    if not frames:
        raise VideoError(f"expected a video, got {path}, which has no pictures; give another")
    return frames, samples, fps


def _decoded(path: Path) -> tuple[list[Bytes], Array, float]:
    frames: list[Bytes] = []
    blocks: list[Array] = []
    with av.open(ffmpeg_name(path)) as container:
        if not container.streams.video:
            return [], np.zeros(0, np.float32), 0.0
        video = container.streams.video[0]
        fps = float(video.average_rate or 25)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        streams = [video, *container.streams.audio[:1]]
        for packet in container.demux(streams):
            for frame in packet.decode():
                if isinstance(frame, av.VideoFrame):
                    frames.append(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))
                elif isinstance(frame, av.AudioFrame):
                    blocks += [b.to_ndarray()[0] for b in resampler.resample(frame)]
        if container.streams.audio:
            blocks += [b.to_ndarray()[0] for b in resampler.resample(None)]
    return frames, np.concatenate(blocks or [np.zeros(0, np.float32)]).astype(np.float32), fps


def follow(frames: Iterable[Bytes]) -> Iterator[Floats | None]:
    """Landmarks (478, 3) of the surest face in each frame (H, W, 3) RGB, or None; pixels counted from the frame's edge.

    As MediaPipe's FaceMesh in video mode: where the face was in the frame before says where to look for it, and only
    where it was lost the frame is searched. For frames that have nothing to do with each other, call it for each.
    """
    field: tuple[tuple[float, float], float, float] | None = None
    for frame in frames:
        if field is None and (faces := networks().detect(frame, "short_range", MIN_SCORE)):
            field = field_of(faces[0].box, faces[0].eyes)
        landmarks = None
        if field is not None:
            centre, side, angle = field
            found, presence = networks().mesh(cut(frame, centre, side, angle, MESH_SIZE, beyond_is_black=False))
            field = None
            if presence >= MIN_PRESENCE:
                c, s = np.cos(angle), np.sin(angle)
                turn = np.array([[c, s], [-s, c]])
                flat = (found[:, :2] / MESH_SIZE - 0.5) @ turn * side + centre
                landmarks = np.column_stack([flat, found[:, 2] * (side / MESH_SIZE)])
                field = field_of(np.concatenate([flat.min(0), flat.max(0)]), flat[list(EYE_CORNERS)])
        yield landmarks


def field_of(box: Floats, eyes: Floats) -> tuple[tuple[float, float], float, float]:
    """Centre, side and angle of the mesh network's field for a box (left, top, right, bottom) and two eyes (2, 2)."""
    (x0, y0), (x1, y1) = eyes
    centre = (float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2)
    return centre, MARGIN * float((box[2:] - box[:2]).max()), float(np.arctan2(y1 - y0, x1 - x0))


def track(path: Path, out: Path) -> str:
    """Track one clip and write its `.npz`, which appears when complete; gives the name of the clip."""
    frames, samples, fps = read_clip(path)
    landmarks = np.full((len(frames), LANDMARKS, 3), np.nan, np.float32)
    for i, found in enumerate(follow(frames)):
        if found is not None:
            landmarks[i] = found
    size = np.asarray(frames[0].shape[1::-1])
    partial = out.with_suffix(".partial.npz")
    np.savez_compressed(partial, landmarks=landmarks, samples=samples, fps=fps, size=size)
    os.replace(partial, out)
    return path.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    clips = sorted(p for p in options.clips.iterdir() if p.suffix in {".mkv", ".mpg", ".mp4"})
    todo = [(p, options.out / f"{p.stem}.npz") for p in clips]
    todo = [(p, o) for p, o in todo if not o.exists()]
    with ProcessPoolExecutor(options.workers) as pool:
        for i, name in enumerate(pool.map(track, [p for p, _ in todo], [o for _, o in todo])):
            if i % 50 == 0:
                print(f"{i}/{len(todo)} {name}", flush=True)


if __name__ == "__main__":
    main()
