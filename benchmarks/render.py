"""The lite renderer against real faces: self-reenactment, zero motion, speed.

    python -m benchmarks.render [--clips ../shared/data/driving] [--bundle lite]
    python -m benchmarks.render --sizes
    python -m benchmarks.render --against CHECKOUT

A clip's first frame is registered as the portrait; pose and 21 keypoints of every later frame animate it. The
rendered crop is compared with the filmed one. `--against` measures speed alone, beside another checkout in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import _against, measures
from benchmarks._report import Figure, figures_table, publish, rows_table
from benchmarks.faces import SHARED, detect, frames_of, tracked_clip
from benchmarks.kernels import compare_kernels, time_frames
from ditto.bundle import find_folder
from ditto.commands import Arguments, run, whole_number
from ditto.errors import VideoError
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.media.files import check_folder
from ditto.motion.motion import KEYPOINTS, RenderPose
from ditto.portrait.cropping import sample_crop
from ditto.portrait.face_mesh import fit_head, keypoints
from ditto.portrait.portrait import Portrait
from ditto.portrait.registration import refine_landmarks, register_face

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

START_AND_STEP = {"d12": (60, 1)}  # its first frames show no neutral face; it moves slowly, so every frame counts
DEFAULT_START_AND_STEP = (0, 3)
DETECT_EVERY = 4
FLICKER_FRAMES = 24
TRACK_SMOOTHING = 1.5  # frames, sigma
LIP_BAR, LIP_BARS = 0.010, {"d18": 0.015}
STATIC_BELOW_DB = 25.0  # a still picture scores more on a clip that hardly moves: PSNR has no bar there


class PosedClip(NamedTuple):
    """A clip in the crop of its first frame.

    Attributes:
        portrait: of the first frame.
        crops: (S, S, 3) of every frame used, the first included.
        landmarks: (T, 478, 3) crop pixels.
        poses: one per frame.
    """

    portrait: Portrait
    crops: list[Image]
    landmarks: Floats
    poses: list[RenderPose]


class ClipScores(NamedTuple):
    """Means over a clip. Errors in face widths, PSNR in dB inside the face oval; `floor`: the same detector on the real
    frames; `static`: the first frame repeated."""

    errors: measures.LandmarkErrors
    floor: measures.LandmarkErrors
    static: measures.LandmarkErrors
    psnr: float
    static_psnr: float
    sharpness: float
    drift: float
    flicker: float
    real_flicker: float
    zero_motion: int


def render_poses_of(portrait: Portrait, landmarks: Floats) -> list[RenderPose]:
    """Poses that move a portrait as landmarks (T, 478, 3), crop pixels, move against the first of them."""
    half = portrait.crop.shape[0] / 2
    scale_0, rotation_0, translation_0, canonical_0 = fit_head(landmarks[0])
    rest = keypoints(canonical_0)
    poses = []
    for points in landmarks:
        scale, rotation, translation, canonical = fit_head(points)
        poses.append(
            RenderPose(
                portrait.scale * scale / scale_0,
                portrait.rotation @ rotation_0.T @ rotation,
                portrait.translation + (translation - translation_0) / half,
                keypoints(canonical) - rest,
            )
        )
    return poses


def read_posed_clip(path: Path, start: int, step: int, count: int) -> PosedClip:
    """Frames start, start + step, ... of a clip, in the crop of the first."""
    clip = tracked_clip(path)
    found = np.isfinite(clip.landmarks).all(axis=(1, 2))
    expected = [i for i in range(start, len(clip.landmarks), step) if found[i]][:count]
    if len(expected) < 2:
        raise VideoError(f"expected a video with a face in it, got {path} with {len(expected)} such frames; give another")
    frames = frames_of(path, expected)
    portrait = register_face(frames[expected[0]], clip.landmarks[expected[0]])
    size = portrait.crop.shape[0]
    into_crop = np.linalg.inv(portrait.crop_to_picture)
    zoom = float(np.sqrt(np.linalg.det(into_crop[:2, :2])))
    points = clip.landmarks[expected]
    points = np.concatenate([points[..., :2] @ into_crop[:2, :2].T + into_crop[:2, 2], points[..., 2:] * zoom], -1)
    crops = [sample_crop(frames[i], portrait.crop_to_picture, size) for i in expected]
    points = np.stack([refine_landmarks(crop, near) for crop, near in zip(crops, points, strict=True)])
    return PosedClip(portrait, crops, points, render_poses_of(portrait, points))


def zero_motion(renderer: Any, appearance: Any, portrait: Portrait) -> int:
    """Largest difference, levels, between the portrait's crop and itself rendered without any motion."""
    rest = RenderPose(portrait.scale, portrait.rotation, portrait.translation, np.zeros((KEYPOINTS, 3)))
    return measures.largest_difference(renderer.render(appearance, rest), portrait.crop)


def mean_errors(errors: Sequence[measures.LandmarkErrors]) -> measures.LandmarkErrors:
    return measures.LandmarkErrors(*(float(column.mean()) for column in np.array(errors).T))


def save_beside(file: Path, real: Sequence[Image], rendered: Sequence[Image], count: int = 8) -> None:
    """A picture of filmed frames over rendered ones, evenly spread."""
    from PIL import Image as Pictures

    chosen = np.linspace(0, len(real) - 1, min(count, len(real))).astype(int)
    rows = [np.concatenate([frames[i] for i in chosen], axis=1) for frames in (real, rendered)]
    sheet = Pictures.fromarray(np.concatenate(rows))
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width // 2, sheet.height // 2), Pictures.Resampling.LANCZOS).save(file)


def score(renderer: Any, path: Path, count: int, pictures: Path | None = None) -> ClipScores:
    """Self-reenactment of one clip; `pictures`: folder for a sheet of filmed and rendered frames."""
    start, step = START_AND_STEP.get(path.stem, DEFAULT_START_AND_STEP)
    clip = read_posed_clip(path, start, step, count)
    appearance = renderer.prepare(clip.portrait)
    size, first = clip.portrait.crop.shape[0], clip.crops[0]
    width = fit_head(clip.landmarks[0])[0]
    source = detect(first)
    errors, floor, static, drift, psnr, static_psnr, sharpness, made = ([] for _ in range(8))
    for i in range(1, len(clip.crops)):
        expected, real = clip.landmarks[i], clip.crops[i]
        rendered = renderer.render(appearance, clip.poses[i])
        made.append(rendered)
        mask = measures.oval_mask(expected, size)
        psnr.append(measures.psnr(rendered, real, mask))
        static_psnr.append(measures.psnr(first, real, mask))
        sharpness.append(measures.sharpness_ratio(rendered, real, mask))
        if i % DETECT_EVERY:
            continue
        found, real_found = detect(rendered), detect(real)
        if found is not None:
            errors.append(measures.landmark_errors(found, expected, width))
        if found is not None and source is not None:
            drift.append(measures.identity_drift(found, source))
        if real_found is not None:
            floor.append(measures.landmark_errors(real_found, expected, width))
        if source is not None:
            static.append(measures.landmark_errors(source, expected, width))
    if pictures is not None:
        save_beside(pictures / f"{path.stem}.png", clip.crops[1:], made)
    flicker, real_flicker = flickers(renderer, path, start)
    return ClipScores(
        mean_errors(errors),
        mean_errors(floor),
        mean_errors(static),
        float(np.mean(psnr)),
        float(np.mean(static_psnr)),
        float(np.mean(sharpness)),
        float(np.mean(drift)),
        flicker,
        real_flicker,
        zero_motion(renderer, appearance, clip.portrait),
    )


def flickers(renderer: Any, path: Path, start: int) -> tuple[float, float]:
    """Flicker of consecutive frames, rendered and real, levels. Smoothed tracks: their noise does not count."""
    import cv2

    clip = read_posed_clip(path, start, 1, FLICKER_FRAMES)
    appearance = renderer.prepare(clip.portrait)
    over_time = (1, 2 * round(4 * TRACK_SMOOTHING) + 1)
    flat = clip.landmarks.reshape(len(clip.landmarks), -1)
    smooth = cv2.GaussianBlur(flat, over_time, 1.0, sigmaY=TRACK_SMOOTHING, borderType=cv2.BORDER_REFLECT)
    smooth = smooth.reshape(clip.landmarks.shape)
    rendered = [renderer.render(appearance, d) for d in render_poses_of(clip.portrait, smooth)]
    mask = measures.oval_mask(clip.landmarks[0], clip.portrait.crop.shape[0])
    return measures.flicker(rendered, mask), measures.flicker(clip.crops, mask)


def clip_figures(name: str, s: ClipScores) -> list[Figure]:
    """The bars of one clip."""

    def error(words: str, field: str, bar: float) -> Figure:
        beside = {"static": float(getattr(s.static, field)), "real": float(getattr(s.floor, field))}
        return Figure(f"{name}: {words} error, fw", getattr(s.errors, field), high=bar, beside=beside)

    least = s.static_psnr + 2.0 if s.static_psnr < STATIC_BELOW_DB else None
    return [
        error("lip", "lips", LIP_BARS.get(name, LIP_BAR)),
        error("gap", "gap", 0.022),
        error("lid", "lid", 0.010),
        Figure(f"{name}: sharpness", s.sharpness, 0.88, 1.5),
        Figure(f"{name}: face PSNR, dB", s.psnr, low=least, beside={"static": s.static_psnr}),
        Figure(f"{name}: identity drift, fw", s.drift),
        Figure(f"{name}: flicker, levels", s.flicker, beside={"real": s.real_flicker}),
        Figure(f"{name}: zero motion, levels", float(s.zero_motion), high=1.0),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Arguments(prog="python -m benchmarks.render", description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=Path, default=SHARED / "driving", help="folder of clips, or one clip")
    parser.add_argument("--frames", type=whole_number(1, 10**6), default=48, help="frames per clip")
    parser.add_argument("--bundle", default="lite", help="name or folder; only its renderer is used")
    parser.add_argument("--pictures", type=Path, help="folder for sheets of filmed and rendered frames")
    parser.add_argument("--sizes", action="store_true", help="what the size of face and picture costs, nothing else")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare speed alone, with a built checkout")
    parser.add_argument(
        "--turns", type=whole_number(1, 10**6), default=15, help="with --against: how often each draws all frames"
    )
    options = parser.parse_args(arguments)
    if options.against is not None:
        if not _against.is_checkout(options.against):
            parser.error(f"expected a checkout of ditto, got {options.against}; give its root with --against")
        try:
            return _against.report(options.against, options.frames, options.turns)
        except _against.OtherCheckoutError as error:
            parser.error(str(error))
    started = time.perf_counter()
    if options.sizes:
        from benchmarks import _render_sizes

        _render_sizes.run()
        return

    if options.pictures is not None:
        check_folder(options.pictures)
    renderer = MeshRenderer(find_folder(options.bundle))
    paths = sorted(options.clips.glob("*.mp4")) if options.clips.is_dir() else [options.clips]
    if not paths or not paths[0].is_file():
        parser.error(f"expected a clip or a folder of .mp4 clips, got {options.clips}; give another with --clips")
    try:
        scores = {path.stem: score(renderer, path, options.frames, options.pictures) for path in paths}
    except VideoError as error:
        parser.error(str(error))
    figures = [figure for name, s in scores.items() for figure in clip_figures(name, s)]

    start, step = START_AND_STEP.get(paths[0].stem, DEFAULT_START_AND_STEP)
    clip = read_posed_clip(paths[0], start, step, min(24, options.frames))
    speed = time_frames(renderer, clip.portrait, clip.poses)
    kernels = compare_kernels(renderer, clip.portrait, clip.poses[len(clip.poses) // 2])
    figures.append(Figure("frames a second, 512 x 512, one thread", speed.fps, low=100.0))

    columns = ["clip", "lips", "gap", "lid", "all", "sharp", "PSNR", "static", "drift", "flicker", "real", "zero"]
    rows = [
        [n, s.errors.lips, s.errors.gap, s.errors.lid, s.errors.everything, s.sharpness, s.psnr, s.static_psnr, s.drift]
        + [s.flicker, s.real_flicker, s.zero_motion]
        for n, s in scores.items()
    ]
    tables = [
        rows_table("Self-reenactment (errors in face widths, PSNR in dB, flicker in levels)", columns, rows),
        figures_table("Bars (static: first frame repeated; real: the detector on the real frames)", figures),
        rows_table("Stages, ms of processor time a frame", ["stage", "p50", "p95", "p99"], speed.rows),
        rows_table("Kernel and NumPy reference", ["kernel", "ms", "reference ms", "ratio", "largest difference"], kernels),
    ]
    publish("render", figures, tables, stages=speed.rows, kernels=kernels, seconds=time.perf_counter() - started)


if __name__ == "__main__":
    run(main)
