"""Track the 478 face-mesh landmarks of a folder of talking clips.

One `.npz` per clip: `landmarks` (T, 478, 3) float32 in pixels (z scaled like x; NaN where no face was
found), `samples` (N,) float32 at 16 kHz, `fps`, `size` (width, height).

    python -m ditto.training.tracks CLIPS OUT [--workers 2]
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from ditto.files import ffmpeg_name
from ditto.privacy import without_matplotlib

Array = npt.NDArray[np.float32]


def read_clip(path: Path) -> tuple[list[npt.NDArray[np.uint8]], Array, float]:
    """Frames (H, W, 3) RGB, mono samples at 16 kHz, and frames per second of one clip."""
    frames: list[npt.NDArray[np.uint8]] = []
    blocks: list[Array] = []
    with av.open(ffmpeg_name(path)) as container:
        video = container.streams.video[0]
        fps = float(video.average_rate or 25)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=16000)
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


def track(path: Path, out: Path) -> str:
    """Track one clip and write its `.npz`, which appears when complete; gives the name of the clip."""
    with without_matplotlib():
        from mediapipe.python.solutions import face_mesh  # type: ignore[import-untyped]

    frames, samples, fps = read_clip(path)
    landmarks = np.full((len(frames), 478, 3), np.nan, np.float32)
    with face_mesh.FaceMesh(max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.3) as mesh:
        for i, frame in enumerate(frames):
            height, width = frame.shape[:2]
            found = mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks
            if found:
                points = [(p.x * width, p.y * height, p.z * width) for p in found[0].landmark]
                landmarks[i] = np.asarray(points, np.float32)
    size = np.asarray(frames[0].shape[1::-1] if frames else (0, 0))
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
