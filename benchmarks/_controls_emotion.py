"""What is seen of each emotion in drawn faces, and what it does to speech.

At rest: MediaPipe's blendshapes against the same face neutral, mean over portraits. In speech: the lips re-tracked on the
rendered frames, as `benchmarks.lips` does, with each emotion beside neutral.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures
from PIL import ImageDraw

from benchmarks._controls import Image, Report, Study
from benchmarks._motions import motion_only
from benchmarks._report import Figure, rows_table
from benchmarks.faces import example_portrait, spread, tracked_clip
from benchmarks.lips import Speaker, closures
from benchmarks.measures import correlate, lip_opening
from benchmarks.speech import load_alignments, read_speech
from ditto.motion.emotion import EMOTIONS, emotion_vector
from ditto.performer import Draw, Edits
from ditto.row_performer import IdleShot

Array = npt.NDArray[np.float32]
Scores = Mapping[str, float]

INTENSITIES = (0.25, 0.5, 0.75, 1.0)
SHOWN = tuple(name for name in EMOTIONS if name != "neutral")
UTTERANCES, CLIPS = 14, 5  # the shortest of LibriSpeech for closures; of GRID for the correlation with the real speaker
TILE, TITLE = 144, 18  # pixels of a contact sheet
MOST_CHANGE = 0.03  # of closures and correlation, from neutral


def both(name: str) -> Callable[[Scores], float]:
    """The mean of a blendshape's two sides."""
    return lambda scores: 0.5 * (scores[f"{name}Left"] + scores[f"{name}Right"])


class Measure(NamedTuple):
    """What shows an emotion: a number from blendshapes, how far it must rise at intensity 1, and whether it must rise with
    every step of the intensity."""

    words: str
    read: Callable[[Scores], float]
    low: float
    steady: bool = True


# Bars of eyeWide and cheekSquint ask only for a rise: the landmarker answers to widened eyes with a few hundredths, and to
# raised cheeks with a millionth, which noise covers at low intensity.
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
        Measure("cheekSquint", both("cheekSquint"), 1e-9, steady=False),
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
    """(N, 70): the first idle frame of a portrait by name, showing each of N emotions (8,)."""
    performer = motion_only(study.performer)
    face = performer.face(performer.prepare(study.portraits[name]), study.seed)
    jobs = [Draw(face, IdleShot(), Edits(emotion)) for emotion in emotions]
    motions = [drawn.motion for drawn in performer.draw(jobs)]
    return np.array([np.asarray(motion) for motion in motions], np.float32)


def measure(study: Study) -> Report:
    """The section `emotion`."""
    at_rest, in_speech = of_rest(study), of_speech(study)
    return Report([*at_rest.figures, *in_speech.figures], [*at_rest.tables, *in_speech.tables])


def of_rest(study: Study) -> Report:
    """Rise of the blendshapes of each emotion."""
    shown = [(emotion, intensity) for emotion in SHOWN for intensity in INTENSITIES]
    asked = [emotion_vector(None), *(emotion_vector({emotion: intensity}) for emotion, intensity in shown)]
    pictures = [crop for name in study.portraits for crop in study.crops(name, shown_motions(study, name, asked))]
    count = len(asked)
    if study.sheets is not None:
        whole = [0, *(1 + i for i, (_, intensity) in enumerate(shown) if intensity == 1.0)]
        rows_of_sheet = {name: [pictures[count * n + i] for i in whole] for n, name in enumerate(study.portraits)}
        contact_sheet(study, rows_of_sheet, ["neutral", *SHOWN]).save(study.sheets / "emotions.webp", quality=80, method=6)
    seen = study.seen(pictures)
    by_portrait = {name: seen[count * i : count * (i + 1)] for i, name in enumerate(study.portraits)}
    usable = {name: [s.shapes for s in found if s is not None] for name, found in by_portrait.items()}
    usable = {name: shapes for name, shapes in usable.items() if len(shapes) == count}
    figures, rows = [], []
    for emotion, measures in MEASURES.items():
        at = [1 + i for i, (shown_emotion, _) in enumerate(shown) if shown_emotion == emotion]
        for words, read, low, steady in measures:
            rises = np.array([[read(shapes[i]) - read(shapes[0]) for i in at] for shapes in usable.values()])
            mean = rises.mean(0)
            figures.append(Figure(f"{emotion}: {words}", float(mean[-1]), low))
            if steady:
                least = float(np.diff(np.concatenate([[0.0], mean])).min())
                figures.append(Figure(f"{emotion}: {words}, least rise from one intensity to the next", least, 1e-9))
            rows.append([f"{emotion}: {words}", *map(float, mean), *map(float, np.quantile(rises[:, -1], [0.0, 0.1, 0.5]))])
    columns = ["mean rise at intensity", *(f"{i:g}" for i in INTENSITIES), "least portrait", "10 %", "median"]
    title = f"Blendshapes of {len(usable)} portraits against neutral"
    return Report(figures, [rows_table(title, columns, rows)])


def contact_sheet(study: Study, crops: Mapping[str, Sequence[Image]], titles: Sequence[str]) -> Pictures.Image:
    """A row of faces for each portrait by name, cut from its crops, under their titles."""
    sheet = Pictures.new("RGB", (TILE * len(titles), TILE * len(crops) + TITLE))
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((TILE * column + 6, 3), title, (235, 235, 235))
    for row, (name, faces) in enumerate(crops.items()):
        points = study.portraits[name].landmarks[:, :2]
        centre, half = (points.min(0) + points.max(0)) / 2, 0.56 * np.ptp(points, axis=0).max()
        box = (*(centre - half).tolist(), *(centre + half).tolist())
        for column, face in enumerate(faces):
            tile = Pictures.fromarray(face).resize((TILE, TILE), Pictures.Resampling.LANCZOS, box=inside(box, len(face)))
            sheet.paste(tile, (TILE * column, TITLE + TILE * row))
    return sheet


def inside(box: tuple[float, ...], size: int) -> tuple[float, float, float, float]:
    """A square box moved into a picture of `size` pixels, made smaller if it must be."""
    left, top, right, _ = box
    side = min(right - left, size)
    left, top = min(max(left, 0.0), size - side), min(max(top, 0.0), size - side)
    return left, top, left + side, top + side


def of_speech(study: Study) -> Report:
    """Closures and the correlation with the real speaker, with each emotion against neutral."""
    segments = load_alignments(study.data / "speech" / "librispeech_test")
    paths = sorted(segments, key=lambda path: segments[path][-1][1])[:UTTERANCES]
    clips = [tracked_clip(path) for path in spread(sorted((study.data / "grid_other").glob("*.mpg")), CLIPS)]
    portrait = study.head.register(example_portrait())
    found: dict[str, tuple[float, float]] = {}
    for emotion in ("neutral", *SHOWN):
        speaker = Speaker(study.head, portrait, {"emotion": {emotion: 1.0}}, True)
        curves = [speaker.say(read_speech(path)).mouths["rendered"].opening for path in paths]
        shut = closures(curves, [segments[path] for path in paths]).bilabial_frames
        matches = [
            correlate(speaker.say(clip.samples).mouths["rendered"].opening, lip_opening(clip.landmarks)) for clip in clips
        ]
        found[emotion] = shut, float(np.mean([match.best for match in matches]))
    neutral = found["neutral"]
    figures = []
    for emotion in SHOWN:
        for words, value, plain in zip(("bilabial frames closed", "r of lip opening"), found[emotion], neutral, strict=True):
            words = f"{emotion}, in speech: {words}, against neutral"
            figures.append(Figure(words, value - plain, -MOST_CHANGE, MOST_CHANGE, {"with it": value, "neutral": plain}))
    rows = [[emotion, *values] for emotion, values in found.items()]
    columns = ["emotion", "bilabial frames closed", "r of lip opening with the real speaker, best lag"]
    return Report(figures, [rows_table(f"Speech: {len(paths)} utterances, {len(clips)} clips, re-tracked", columns, rows)])
