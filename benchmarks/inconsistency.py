"""How far faces are from other things in the three numbers by which `ditto.portrait.registration` decides.

    python -m benchmarks.inconsistency [--faces FOLDER ...] [--animal PICTURE]

Faces: every picture as it is, turned by 30 degrees, and with the face 44, 60 and 100 pixels high on patterned ground; of all
candidates in a picture the most consistent counts. Others: an animal in twenty directions, and patterns; every candidate
counts. `MIN_PRESENCE`, `MAX_JITTER` and `MAX_INCONSISTENCY` separate the two.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks._report import Figure, figures_table, publish
from benchmarks.faces import SHARED, Image, example_portrait
from ditto.commands import Arguments, existing_folder, run
from ditto.media.images import read_picture
from ditto.portrait.registration import (
    MAX_INCONSISTENCY,
    MAX_JITTER,
    MIN_PRESENCE,
    Estimate,
    candidates,
    estimate_face,
    stages,
)


def estimates(picture: Image) -> Iterator[Estimate]:
    """Every candidate in a picture on which the mesh converges."""
    for views in stages(picture):
        for region in candidates(views):
            if (estimate := estimate_face(picture, region)) is not None:
                yield estimate


def turned(picture: Image, degrees: float) -> Image:
    from PIL import Image as Pillow

    image = Pillow.fromarray(picture).rotate(degrees, Pillow.Resampling.BICUBIC, expand=True, fillcolor=(120, 130, 140))
    return np.asarray(image)


def small(picture: Image, face_size: float, pixels: float) -> Image:
    """The picture reduced until its face has a height of `pixels`, on a canvas of 640 x 480."""
    from PIL import Image as Pillow

    factor = pixels / face_size
    size = [max(1, round(n * factor)) for n in picture.shape[1::-1]]
    kernel = Pillow.Resampling.BOX if factor < 1 else Pillow.Resampling.BICUBIC
    reduced = np.asarray(Pillow.fromarray(picture).resize(size, kernel))
    canvas = np.random.default_rng(0).integers(80, 160, (480, 640, 1)).repeat(3, 2).astype(np.uint8)
    part = reduced[:480, :640]
    canvas[: part.shape[0], : part.shape[1]] = part
    return canvas


def patterns() -> Iterator[Image]:
    import cv2

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :480]
    for blur in (0.0, 2.0, 6.0, 16.0, 32.0):
        noise = rng.normal(size=(480, 480, 3))
        noise = cv2.GaussianBlur(noise, (0, 0), blur) if blur else noise
        yield np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)
    for period in (12, 40, 120):
        for wave in (np.sin(x * 2 * np.pi / period), np.sin(x * 2 * np.pi / period) * np.sin(y * 2 * np.pi / period)):
            yield (128 + 100 * wave).astype(np.uint8)[..., None].repeat(3, 2)
        rings = np.sin(np.hypot(x - 240, y - 240) * 2 * np.pi / period)
        yield (128 + 100 * rings).astype(np.uint8)[..., None].repeat(3, 2)


def faces_of(paths: list[Path]) -> Iterator[tuple[str, Estimate | None]]:
    """Name and most consistent estimate of every variation."""
    for path in paths:
        picture = read_picture(path)[0]
        found = min(estimates(picture), key=lambda estimate: estimate.inconsistency, default=None)
        yield path.stem, found
        if found is None:
            continue
        size = float(np.ptp(found.landmarks[:, :2], axis=0).max())
        variations = {"turned": turned(picture, 30.0)} | {f"{n} px": small(picture, size, n) for n in (44, 60, 100)}
        for name, varied in variations.items():
            yield f"{path.stem}, {name}", min(estimates(varied), key=lambda estimate: estimate.inconsistency, default=None)


def main() -> None:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    portraits = SHARED / "portraits"
    folders = [portraits / "public_domain", portraits / "private"]
    parser.add_argument("--faces", type=existing_folder, nargs="+", default=folders)
    parser.add_argument("--animal", type=Path, default=portraits / "private" / "alpaca_no_human_face.jpg")
    options = parser.parse_args()

    paths = [p for folder in options.faces for p in sorted(folder.iterdir()) if p != options.animal]
    if not paths:
        parser.error(f"expected pictures in {', '.join(map(str, options.faces))}, got none; give other folders with --faces")
    animal = read_picture(options.animal)[0]
    faces = dict(faces_of([*paths, example_portrait()]))
    seen = {name: estimate for name, estimate in faces.items() if estimate is not None}
    others = [estimate for degrees in range(0, 360, 18) for estimate in estimates(turned(animal, degrees))]
    others += [estimate for pattern in patterns() for estimate in estimates(pattern)]

    def passes(estimate: Estimate) -> bool:
        consistent = estimate.jitter <= MAX_JITTER and estimate.inconsistency <= MAX_INCONSISTENCY
        return estimate.presence >= MIN_PRESENCE and consistent

    believed = [estimate for estimate in others if estimate.presence >= MIN_PRESENCE]
    figures = [
        Figure("faces examined", len(faces)),
        Figure("faces missed", sum(estimate is None or not passes(estimate) for estimate in faces.values()), high=0),
        Figure("least presence of a face", min(estimate.presence for estimate in seen.values()), low=MIN_PRESENCE),
        Figure("most jitter of a face", max(estimate.jitter for estimate in seen.values()), high=MAX_JITTER),
        Figure("most inconsistency of a face", max(e.inconsistency for e in seen.values()), high=MAX_INCONSISTENCY),
        Figure("candidates that are no face", len(others)),
        Figure("of them believed present", len(believed)),
        Figure("of them taken for a face", sum(map(passes, others)), high=0),
        Figure("least jitter of those believed", min((estimate.jitter for estimate in believed), default=np.nan)),
        Figure("least inconsistency of those believed", min((e.inconsistency for e in believed), default=np.nan)),
    ]
    publish("inconsistency", figures, [figures_table("Faces and other things", figures)])


if __name__ == "__main__":
    run(main)
