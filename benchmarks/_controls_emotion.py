"""What MediaPipe sees of each emotion in drawn faces, at rest: against the same face neutral, mean over portraits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks._controls import REST, Report, Study
from benchmarks._motions import motion_only
from benchmarks._report import Figure, rows_table
from ditto.motion.emotion import EMOTIONS, emotion_vector
from ditto.performer import Draw, Edits
from ditto.row_performer import RowShot

Array = npt.NDArray[np.float32]
Scores = Mapping[str, float]

INTENSITIES = (0.25, 0.5, 0.75, 1.0)


def both(name: str) -> Callable[[Scores], float]:
    """The mean of a blendshape's two sides."""
    return lambda scores: 0.5 * (scores[f"{name}Left"] + scores[f"{name}Right"])


class Measure(NamedTuple):
    """What shows an emotion: a number from blendshapes, and how far it must rise at intensity 1."""

    words: str
    read: Callable[[Scores], float]
    low: float


# Bars of eyeWide and cheekSquint ask only for a rise: the landmarker answers to widened eyes with a few hundredths, and to
# raised cheeks with a millionth.
MEASURES: dict[str, tuple[Measure, ...]] = {
    "angry": (Measure("browDown", both("browDown"), 0.35),),
    "disgust": (
        Measure("noseSneer or mouthUpperUp", lambda s: max(both("noseSneer")(s), both("mouthUpperUp")(s)), 0.25),
    ),
    "fear": (
        Measure("browInnerUp", lambda s: s["browInnerUp"], 0.35),
        Measure("eyeWide", both("eyeWide"), 1e-9),
    ),
    "happy": (
        Measure("mouthSmile", both("mouthSmile"), 0.50),
        Measure("cheekSquint", both("cheekSquint"), 1e-9),
    ),
    "sad": (
        Measure("mouthFrown", both("mouthFrown"), 0.25),
        Measure("browInnerUp", lambda s: s["browInnerUp"], 0.25),
    ),
    "surprise": (
        Measure("browInnerUp", lambda s: s["browInnerUp"], 0.50),
        Measure("eyeWide", both("eyeWide"), 1e-9),
    ),
    "contempt": (
        Measure("one corner over the other", lambda s: s["mouthSmileRight"] - s["mouthSmileLeft"], 0.25),
    ),
}


def shown_motions(study: Study, name: str, emotions: list[Array]) -> Array:
    """(N, 70): the face at rest of a portrait by name, showing each of N emotions (8,)."""
    performer, neutral = motion_only(study.performer), emotion_vector(None)
    face = performer.face(performer.prepare(study.portraits[name]), study.seed)
    jobs = [Draw(face, RowShot(REST, neutral, 0), Edits(emotion)) for emotion in emotions]
    motions = [drawn.motion for drawn in performer.draw(jobs)]
    return np.array([np.asarray(motion) for motion in motions], np.float32)


def measure(study: Study) -> Report:
    """The section `emotion`."""
    shown = [(emotion, intensity) for emotion in EMOTIONS if emotion != "neutral" for intensity in INTENSITIES]
    asked = [emotion_vector(None), *(emotion_vector({emotion: intensity}) for emotion, intensity in shown)]
    pictures = [crop for name in study.portraits for crop in study.crops(name, shown_motions(study, name, asked))]
    seen = study.seen(pictures)
    count = len(asked)
    by_portrait = {name: seen[count * i : count * (i + 1)] for i, name in enumerate(study.portraits)}
    usable = {name: [s.shapes for s in found if s is not None] for name, found in by_portrait.items()}
    usable = {name: shapes for name, shapes in usable.items() if len(shapes) == count}
    figures, rows = [], []
    for emotion, measures in MEASURES.items():
        at = [1 + i for i, (shown_emotion, _) in enumerate(shown) if shown_emotion == emotion]
        for words, read, low in measures:
            rises = np.array([[read(shapes[i]) - read(shapes[0]) for i in at] for shapes in usable.values()])
            mean = rises.mean(0)
            least = float(np.diff(np.concatenate([[0.0], mean])).min())
            figures.append(Figure(f"{emotion}: {words}", float(mean[-1]), low))
            figures.append(Figure(f"{emotion}: {words}, least step of intensity", least, 1e-12))
            rows.append([f"{emotion}: {words}", *map(float, mean), *map(float, np.quantile(rises[:, -1], [0.0, 0.1, 0.5]))])
    columns = ["mean rise at intensity", *(f"{i:g}" for i in INTENSITIES), "least portrait", "10 %", "median"]
    title = f"Blendshapes of {len(usable)} portraits against neutral"
    return Report(figures, [rows_table(title, columns, rows)])
