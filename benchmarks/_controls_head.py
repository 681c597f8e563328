"""Head, gaze and jaw: what was asked for against what the tracker finds in the drawn picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks._controls import REST, Image, Report, Study
from benchmarks._report import Figure, rows_table
from benchmarks.faces import detect
from ditto.controls import Controls, apply
from ditto.controls.blendshapes import ARKIT_NAMES, to_offsets
from ditto.motion.eyes import CAMERA_HOLD
from ditto.motion.motion import INNER_LIPS, Motion, euler_degrees
from ditto.portrait.face_mesh import EYES, fit_head, keypoints
from ditto.portrait.registration import refine_landmarks

Floats = npt.NDArray[np.float64]
Read = Callable[[Floats, Floats], float]  # landmarks (478, 3) of a face and of the same at rest -> what is measured

TURNS = (-25.0, -18.0, -12.0, -6.0, 6.0, 12.0, 18.0, 25.0)
TALK = 12.0  # degrees: as far as a head turns in talk (`benchmarks.poses`)
LOOKS = {"gaze.right": (-20.0, -10.0, 10.0, 20.0), "gaze.down": (-15.0, -8.0, 8.0, 15.0)}
OPENINGS = (0.1, 0.2, 0.4, 0.6, 0.8)
# Gaze changes by less than this between two pictures of one gaze: the tracker's own noise on moved faces, degrees.
JITTER = 0.5


def found(picture: Image) -> Floats | None:
    """Landmarks (478, 3) of a picture, as those of a portrait are found: a mean over moved and mirrored inputs."""
    seen = detect(picture)
    return None if seen is None else refine_landmarks(picture, seen)


def readings(study: Study, asked: Mapping[str, Sequence[float]], reads: Mapping[str, Read]) -> dict[str, Floats]:
    """By control, (P, N) what is read in P portraits drawn with N values of it; NaN where no face is found."""
    rows: dict[str, list[list[float]]] = {name: [] for name in asked}
    for name in study.portraits:
        portrait = study.portraits[name]
        controls = [Controls(), *(Controls.from_names({c: value}) for c, values in asked.items() for value in values)]
        motions = [np.asarray(apply(Motion(REST), control, portrait, study.space)) for control in controls]
        rest, *faces = map(found, study.crops(name, motions))
        for control, values in asked.items():
            own, faces = faces[: len(values)], faces[len(values) :]
            rows[control].append(
                [np.nan if rest is None or face is None else reads[control](face, rest) for face in own]
            )
    return {control: np.array(row) for control, row in rows.items()}


def monotone(values: Floats, least: float = 0.0) -> float:
    """Share of rows of (P, N) that rise with every step, by more than `-least`; rows with NaN count as not."""
    return float((np.diff(values, axis=1) > -least).all(1).mean())


def table(title: str, asked: Mapping[str, Sequence[float]], seen: Mapping[str, Floats]) -> Report:
    """A table of the mean and of the extremes over portraits, without figures."""
    rows = [
        [name, value, *(float(f(seen[name][:, i])) for f in (np.nanmean, np.nanmin, np.nanmax))]
        for name, values in asked.items()
        for i, value in enumerate(values)
    ]
    return Report((), [rows_table(title, ["control", "asked", "seen, mean", "least", "most"], rows)])


def turned(axis: int) -> Read:
    """Degrees of pitch, yaw or roll about the head's own axes."""
    return lambda face, rest: float(euler_degrees(fit_head(face)[1] @ fit_head(rest)[1].T)[axis])


def pose(study: Study) -> Report:
    """The section `pose`."""
    asked = dict.fromkeys(("head.pitch", "head.yaw", "head.roll"), TURNS)
    seen = readings(study, asked, {name: turned(axis) for axis, name in enumerate(asked)})
    talk = [i for i, value in enumerate(TURNS) if abs(value) <= TALK]
    figures = []
    for name, values in seen.items():
        error = np.abs(values - TURNS)[:, talk]
        figures.append(Figure(f"{name}: error over +-{TALK:g}, mean (degrees)", float(np.nanmean(error)), high=1.5))
        figures.append(Figure(f"{name}: portraits in which it is monotone to +-{max(TURNS):g}", monotone(values), low=1.0))
    return Report(figures, table("Head, degrees", asked, seen).tables)


def looked(axis: int) -> Read:
    """Degrees that both irises turned in the head: 0 to the right of the picture, 1 down."""

    def middle(landmarks: Floats) -> float:
        face = fit_head(landmarks)[3]
        return float(np.mean([face[e.iris, axis] - face[[e.upper[0], e.upper[-1]], axis].mean() for e in EYES]))

    return lambda face, rest: float(np.degrees(np.arcsin(np.clip((middle(face) - middle(rest)) / CAMERA_HOLD, -1.0, 1.0))))


def gaze(study: Study) -> Report:
    """The section `gaze`. Portraits whose irises the renderer does not move (shut, of stone, behind glass) are left out."""
    seen = readings(study, LOOKS, {name: looked(axis) for axis, name in enumerate(LOOKS)})
    asked = LOOKS["gaze.right"]
    moves = np.nanmax(seen["gaze.right"], 1) - np.nanmin(seen["gaze.right"], 1) > 0.2 * (max(asked) - min(asked))
    left_out = [name for name, moved in zip(study.portraits, moves, strict=True) if not moved]
    if left_out:
        print(f"left out, the eyes do not move: {', '.join(left_out)}")
    figures = []
    for name, values in seen.items():
        values = values[moves]
        right = float((np.sign(values) == np.sign(LOOKS[name])).mean())
        gain = np.nanmean(values[:, [0, -1]] / np.array(LOOKS[name])[[0, -1]])
        figures.append(Figure(f"{name}: share of pictures that look the right way", right, low=1.0))
        figures.append(Figure(f"{name}: portraits in which it is monotone", monotone(values, JITTER), low=1.0))
        figures.append(Figure(f"{name}: seen over asked, at the ends", float(gain)))
    return Report(figures, table("Gaze, degrees", LOOKS, {name: values[moves] for name, values in seen.items()}).tables)


def jaw(study: Study) -> Report:
    """The section `jaw`: the gap that `jawOpen` adds between the keypoints of the inner lips, against that of its table."""
    asked = {"jawOpen": OPENINGS}
    upper, lower = INNER_LIPS

    def gap_of(landmarks: Floats) -> float:
        points = keypoints(fit_head(landmarks)[3])
        return float(points[lower, 1] - points[upper, 1])

    seen = readings(study, asked, {"jawOpen": lambda face, rest: gap_of(face) - gap_of(rest)})
    full = to_offsets(np.eye(len(ARKIT_NAMES))[ARKIT_NAMES.index("jawOpen")], study.space)
    gap = float(full[lower, 1] - full[upper, 1])
    share = seen["jawOpen"] / (gap * np.array(OPENINGS))
    figures = [
        Figure("jawOpen: gap seen over gap asked, mean over portraits and weights", float(np.nanmean(share)), 0.85, 1.15),
        Figure("jawOpen: largest error of the mean at a weight", float(np.abs(np.nanmean(share, 0) - 1.0).max()), high=0.15),
        Figure("jawOpen: portraits in which it is monotone", monotone(seen["jawOpen"]), low=1.0),
    ]
    gaps = {"jawOpen": gap * np.array(OPENINGS)}
    return Report(figures, table("Gap between the lips, face units", gaps, seen).tables)
