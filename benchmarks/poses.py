"""Every portrait at the extreme poses of talk: contact sheets, and how far the picture holds.

    python -m benchmarks.poses [--portraits DIR ...] [--out DIR] [--sweep]

One PNG per portrait: 12 degrees of pitch and yaw, 10 of roll, and all at once with the mouth open and the head moved; then
20 degrees of yaw and 15 of roll, farther than talk goes.
With `--sweep`, also eight consecutive frames of a head that turns from -12 to 12 degrees in 60 frames, and their
differences. To be looked at; the figures say where.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures

from benchmarks._motions import rows_of
from benchmarks._report import Figure, figures_table, publish, rows_table
from benchmarks._tiles import column, row, tile
from benchmarks.faces import SCRATCH, SHARED, detect
from benchmarks.sheet import SUFFIXES
from ditto.commands import Arguments, run
from ditto.errors import InputError
from ditto.lite.rendering.core import CoreRenderer
from ditto.lite.rendering.mesh import Appearance, MeshRenderer
from ditto.lite.rendering.paste_back import picture_ends
from ditto.lite.rendering.surround import move_surround
from ditto.media.files import check_folder
from ditto.motion.motion import DEGREES, KEYPOINTS, TRANSLATION, Keypoint, Motion, RenderPose, euler_degrees, retarget
from ditto.performer import expect_own
from ditto.portrait import face_mesh as g
from ditto.portrait.portrait import Portrait
from ditto.row_performer import RowAppearance
from ditto.talking_head import TalkingHead, load

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

OPEN_MOUTH = {Keypoint.LOWER_INNER_LIP: 0.12, Keypoint.CHIN: 0.07}  # fu downwards: a clear "ah"
AWAY = 0.35  # fu: background this far from the person stands still; the head moves .2 fu at most, its fringe is .15 wide
PERSON = 0.5
SWEEP_FRAMES, SWEEP_DEGREES = 60, 12.0
CONSECUTIVE = 8
TILE = 448


class Held(NamedTuple):
    """One head pose.

    Attributes:
        degrees: pitch, yaw, roll, added to the portrait's own.
        shift: fu along x and y.
        mouth_open: whether the mouth says "ah" or stays as in the portrait.
    """

    degrees: tuple[float, float, float]
    shift: tuple[float, float] = (0.0, 0.0)
    mouth_open: bool = False

    def __str__(self) -> str:
        turned = " ".join(f"{n} {d:+g}" for n, d in zip(("pitch", "yaw", "roll"), self.degrees, strict=True) if d)
        return turned + (f" moved {self.shift[0]:+g} {self.shift[1]:+g}" if any(self.shift) else "")


POSES = [
    Held((12, 0, 0)),
    Held((-12, 0, 0)),
    Held((0, 12, 0)),
    Held((0, -12, 0)),
    Held((0, 0, 10)),
    Held((0, 0, -10)),
    Held((8, 10, 6), (0.03, 0.03), True),
    Held((8, -10, -6), (-0.03, 0.03), True),
    Held((-8, 10, -6), (0.03, -0.03), True),
    Held((-8, -10, 6), (-0.03, -0.03), True),
    Held((12, 0, 0), (0.0, 0.03), True),
]


FAR_POSES = [Held((0, 20, 0)), Held((0, -20, 0)), Held((15, 0, 0)), Held((-15, 0, 0)), Held((0, 0, 15)), Held((0, 0, -15))]


class Measures(NamedTuple):
    """How one portrait holds in one pose.

    Attributes:
        border_px: largest movement of the crop's border where the picture goes on beyond it; inwards where it ends.
        stretch: 99th percentile over the person outside the face of the largest stretch in any direction, as a share;
            hair that bends by a slope of 1 in 2 is stretched by .28.
        squeeze: of the largest share that is lost in any direction. A chin that comes down squeezes the neck below it.
        folded: share of that person's area that turns over.
        left_behind: fu that hair and ears above the chin lie away from where the head would carry them, on average.
        background: 99.9th percentile, in levels, of the change of background away from the person.
        pose_error: degrees, largest axis, of the pose found in the rendered picture; NaN where no face is found.
    """

    border_px: float
    stretch: float
    squeeze: float
    folded: float
    left_behind: float
    background: float
    pose_error: float


def drive(portrait: Portrait, held: Held) -> RenderPose:
    """A portrait in a pose, otherwise as in its picture."""
    values = np.zeros(7 + 3 * KEYPOINTS, np.float32)
    values[DEGREES], values[TRANSLATION] = held.degrees, (*held.shift, 0.0)
    delta = np.zeros((KEYPOINTS, 3))
    if held.mouth_open:
        for keypoint, down in OPEN_MOUTH.items():
            delta[keypoint, 1] = down
    return retarget(portrait, Motion(values))._replace(delta=delta)


def share_99(values: Floats, weights: Floats) -> float:
    """The 99th percentile of weighted values."""
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), 0.99 * weights.sum())])


def measure_mesh(renderer: MeshRenderer, portrait: Portrait, appearance: Appearance, held: Held) -> tuple[float, ...]:
    """border_px, stretch, squeeze, folded and left_behind of `Measures`."""
    geometry, surround = appearance.geometry, appearance.surround
    pose = renderer.pose(appearance, drive(portrait, held))
    moved = np.concatenate([pose.vertices[:, :2], move_surround(surround, geometry, pose)])
    rest, last = appearance.source.astype(np.float64), geometry.size - 1.0
    shift = moved - rest

    border = 0.0
    for axis, ends in enumerate(picture_ends(portrait)):
        for at, end, inwards in zip((0.0, last), ends, (1, -1), strict=True):
            there = shift[rest[:, axis] == at]
            border = max(border, (inwards * there[:, axis]).max() if end else np.abs(there).max())

    x, y = np.clip(np.rint(rest).astype(int), 0, geometry.size - 1).T
    person = portrait.mask[y, x] > PERSON
    triangles = surround.triangles[person[surround.triangles].all(1)]
    before, after = (np.stack([p[triangles[:, k]] - p[triangles[:, 0]] for k in (1, 2)], -1) for p in (rest, moved))
    maps = after @ np.linalg.inv(before)
    area = np.abs(np.linalg.det(before))
    folded = area[np.linalg.det(maps) <= 0.0].sum() / area.sum()
    values = np.linalg.svd(maps, compute_uv=False)
    stretch, squeeze = (share_99(excess, area) for excess in (values[:, 0] - 1.0, 1.0 - values[:, 1]))

    carried = pose.scale_px * surround.canonical @ pose.rotation[:, :2] + pose.translation_px[:2]
    points = slice(g.LANDMARKS, None)
    above = person[points] & (surround.points[:, 1] < geometry.landmarks[152, 1])
    behind = np.linalg.norm(moved[points] - carried, axis=1)[above].mean() / geometry.scale_px
    return border, stretch, squeeze, float(folded), float(behind)


def head_rotation(picture: Image) -> Floats:
    """(3, 3) of the face found in a picture; NaN where there is none."""
    found = detect(picture)
    return np.full((3, 3), np.nan) if found is None else g.fit_head(found)[1]


def seam(portrait: Portrait, picture: Image) -> float:
    """How visible the border of the crop is: the mean change of the gradient along it, levels a pixel; 0 at rest.

    Only where the picture goes on beyond the border.
    """
    size = len(portrait.crop)
    corners = np.array([[-0.5, size - 0.5, size - 0.5, -0.5], [-0.5, -0.5, size - 0.5, size - 0.5], [1.0] * 4])
    outline = (portrait.crop_to_picture[:2] @ corners).T
    band = np.zeros(picture.shape[:2], np.uint8)
    cv2.polylines(band, [np.rint(outline * 16).astype(np.int32)], True, (255,), 5, cv2.LINE_8, 4)
    band[[0, 1, -2, -1]] = band[:, [0, 1, -2, -1]] = 0
    if not band.any():
        return 0.0
    change = picture.astype(np.float32) - portrait.picture
    slopes = np.abs(np.diff(change, axis=0, prepend=change[:1])) + np.abs(np.diff(change, axis=1, prepend=change[:, :1]))
    return float(slopes.max(-1)[band > 0].mean())


def around(portrait: Portrait) -> tuple[slice, slice]:
    """Rows and columns of the crop in the picture, with an eighth of its side around it."""
    size = len(portrait.crop)
    corners = portrait.crop_to_picture[:2] @ np.array([[-0.12, -0.12, 1 / size], [1.12, 1.12, 1 / size]]).T * size
    height, width = portrait.picture.shape[:2]
    (x0, y0), (x1, y1) = np.clip([corners.min(1), corners.max(1)], 0, (width, height)).astype(int)
    return slice(y0, y1), slice(x0, x1)


def mesh_of(head: TalkingHead) -> MeshRenderer:
    """The renderer that draws poses beyond what a motion says, such as a mouth opened in a turned head.

    Raises:
        InputError: the bundle is not lite.
    """
    renderer = rows_of(head.performer).renderer
    if not isinstance(renderer, CoreRenderer):
        raise InputError(f"expected a lite bundle, got one with a {type(renderer).__name__}; use another bundle")
    return renderer.mesh


def hold(head: TalkingHead, portrait: Portrait, title: str) -> tuple[list[Measures], list[float], Pictures.Image]:
    """Measures of one portrait in every pose, the seams in the poses and the far ones, and its sheet."""
    prepared = expect_own(head.appearance(portrait), RowAppearance)
    renderer = mesh_of(head)
    appearance = renderer.prepare(portrait)
    part = around(portrait)
    before = head_rotation(portrait.picture[part])
    away = cv2.distanceTransform((portrait.mask < 0.01).astype(np.uint8), cv2.DIST_L2, 5)
    away = away > AWAY * appearance.geometry.scale_px
    seams: list[float] = []
    rows, tiles = [], [tile(portrait.picture[part], title, TILE)]
    for held in POSES:
        crop = renderer.render(appearance, drive(portrait, held))
        picture = prepared.paste_back(crop)
        change = np.abs(crop.astype(int) - portrait.crop).max(-1)[away]
        turned = euler_degrees(before.T @ head_rotation(picture[part]))
        error = float(np.abs(turned - held.degrees).max())
        still = float(np.percentile(change, 99.9)) if len(change) else 0.0
        rows.append(Measures(*measure_mesh(renderer, portrait, appearance, held), still, error))
        tiles.append(tile(picture[part], str(held), TILE))
        seams.append(seam(portrait, picture))
    for held in FAR_POSES:
        picture = prepared.paste_back(renderer.render(appearance, drive(portrait, held)))
        tiles.append(tile(picture[part], str(held), TILE))
        seams.append(seam(portrait, picture))
    return rows, seams, column([row(tiles[i : i + 4]) for i in range(0, len(tiles), 4)])


def sweep(head: TalkingHead, portrait: Portrait, axis: int) -> tuple[float, Pictures.Image]:
    """A head that turns evenly about one axis: the largest mean change of a frame over the median, and eight frames."""
    renderer = mesh_of(head)
    appearance = renderer.prepare(portrait)
    frames = []
    for angle in np.linspace(-SWEEP_DEGREES, SWEEP_DEGREES, SWEEP_FRAMES):
        degrees = [0.0, 0.0, 0.0]
        degrees[axis] = float(angle)
        frames.append(renderer.render(appearance, drive(portrait, Held((degrees[0], degrees[1], degrees[2])))))
    changes = [np.abs(b.astype(int) - a) for a, b in pairwise(frames)]
    means = np.array([change.mean() for change in changes])
    first = int(means.argmax()) - CONSECUTIVE // 2
    first = int(np.clip(first, 0, SWEEP_FRAMES - CONSECUTIVE - 1))
    shown = [tile(frames[first + i], f"frame {first + i}", 300) for i in range(CONSECUTIVE)]
    lit = [np.clip(4 * changes[first + i], 0, 255).astype(np.uint8) for i in range(CONSECUTIVE)]
    differences = [tile(change, "4 x change", 300) for change in lit]
    half = CONSECUTIVE // 2
    lines = [shown[:half], differences[:half], shown[half:], differences[half:]]
    return float(means.max() / np.median(means)), column([row(line) for line in lines])


def pictures_in(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        yield from sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES) if place.is_dir() else [place]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Arguments(prog="python -m benchmarks.poses", description=__doc__.split("\n")[0])
    folders = [SHARED / "portraits" / "public_domain", SHARED / "portraits" / "private"]
    parser.add_argument("--portraits", type=Path, nargs="+", default=folders, help="pictures, or folders of them")
    parser.add_argument("--out", type=Path, default=SCRATCH / "poses")
    parser.add_argument("--bundle", default="lite")
    parser.add_argument("--sweep", action="store_true", help="also a turning head, frame by frame")
    options = parser.parse_args(arguments)
    check_folder(options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    head = load(options.bundle)
    found: dict[str, list[Measures]] = {}
    seams: dict[str, list[float]] = {}
    swept: list[float] = []
    for path in pictures_in(options.portraits):
        try:
            portrait = head.register(path)
        except InputError as error:
            print(f"{path.name}: {error}")
            continue
        found[path.stem], seams[path.stem], page = hold(head, portrait, path.stem)
        page.save(options.out / f"{path.stem}.png", compress_level=1)
        if options.sweep:
            for axis, name in enumerate(("pitch", "yaw", "roll")):
                jump, page = sweep(head, portrait, axis)
                swept.append(jump)
                page.save(options.out / f"{path.stem}_{name}.png", compress_level=1)

    if not found:
        raise InputError(f"expected a picture with a face in {', '.join(map(str, options.portraits))}, got none; give another")
    every = np.array([measures for rows in found.values() for measures in rows])
    errors = every[:, 6]
    figures = [
        Figure("portraits", float(len(found))),
        Figure("movement of the crop's border, largest (px)", float(every[:, 0].max()), high=0.0),
        Figure("stretch outside the face, worst pose and portrait", float(every[:, 1].max()), high=0.80),
        Figure("stretch outside the face, mean over portraits of the worst pose",
               float(np.mean([max(m.stretch for m in rows) for rows in found.values()])), high=0.55),
        Figure("folded share of the person outside the face, largest", float(every[:, 3].max()), high=0.0),
        Figure("hair left behind, mean (fu)", float(every[:, 4].mean()), high=0.04),
        Figure("background that should stand still, largest change (levels)", float(every[:, 5].max()), high=4.0),
        Figure("seam: change of the gradient along the crop's border, largest (levels a pixel)",
               max(map(max, seams.values())), high=1.0),
        Figure("pose asked against pose found, mean (degrees)", float(np.nanmean(errors)), high=1.5),
        Figure("poses in which no face is found", float(np.isnan(errors).sum()), high=0.0),
    ]  # fmt: skip
    if swept:
        figures.append(Figure("sweep: largest change between frames over the median", max(swept), high=1.6))
    table = rows_table(
        "Worst pose of each portrait",
        ["portrait", "border px", "stretch", "squeeze", "folded", "left behind", "background", "pose error"],
        [[name, *np.nanmax(np.array(rows), 0).tolist()] for name, rows in found.items()],
    )
    by_pose = rows_table(
        "Mean over portraits",
        ["pose", "border px", "stretch", "squeeze", "folded", "left behind", "background", "pose error"],
        [[str(h), *np.nanmean([rows[i] for rows in found.values()], 0).tolist()] for i, h in enumerate(POSES)],
    )
    seconds = time.perf_counter() - started
    publish("poses", figures, [figures_table("Poses", figures), table, by_pose], out=str(options.out), seconds=seconds)


if __name__ == "__main__":
    run(main)
