"""Track the 478 face-mesh landmarks of a folder of talking clips.

One `.npz` per clip: `landmarks` (T, 478, 3) float32 in pixels (z scaled like x; NaN where no face was
found), `samples` (N,) float32 at 16 kHz, `fps`, `size` (width, height).

    python -m ditto.training.tracks CLIPS OUT [--workers 2]
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from ditto.commands import Arguments, existing_folder, run, whole_number
from ditto.errors import VideoError
from ditto.machine import interrupts_left_to_parent
from ditto.media.files import check_folder, ffmpeg_name
from ditto.media.rates import SAMPLE_RATE
from ditto.portrait.face_mesh import LANDMARKS
from ditto.portrait.follow import follow

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]



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
    parser = Arguments(description=__doc__)
    parser.add_argument("clips", type=existing_folder)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=whole_number(1, 64), default=2)
    options = parser.parse_args()
    check_folder(options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    clips = sorted(p for p in options.clips.iterdir() if p.suffix in {".mkv", ".mpg", ".mp4"})
    todo = [(p, options.out / f"{p.stem}.npz") for p in clips]
    todo = [(p, o) for p, o in todo if not o.exists()]
    with ProcessPoolExecutor(options.workers) as pool:
        with interrupts_left_to_parent():  # the pool starts its processes when it gets work
            tracked = pool.map(track, [p for p, _ in todo], [o for _, o in todo])
        try:
            for i, name in enumerate(tracked):
                if i % 50 == 0:
                    print(f"{i}/{len(todo)} {name}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise


if __name__ == "__main__":
    run(main)
