"""Does the sync scorer find by how many frames sound is late? Beside the correlation with measured kernels.

    python -m benchmarks.sync TRACKS [--bundle ditto/bundles/lite] [--clips 10]

TRACKS holds tracked clips (`ditto.training.tracks`) in the folders `grid_s1` (its held clips are used), `grid_other` and
`natural_talk`, none of which the network was trained on. The sound of each clip is moved by known amounts; where it ends,
its last frame is repeated. Whole clips, and the second in their middle. A clip is right when the offset found is within one
frame of the true one. For the area under the curve each clip also gets the sound of the next. The kernels were fitted on the
natural cuts and other talk, so they know those; the network knows them only through the generated lips that it was trained
on, which follow the kernels.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks._report import Figure, publish, rows_table
from benchmarks.natural import SOUND_LATE_FRAMES
from ditto.bundle import find_folder
from ditto.commands import Arguments, existing_folder, run, whole_number
from ditto.errors import InputError
from ditto.lite.speech_encoder import SpeechEncoder
from ditto.media.rates import FPS
from ditto.training.motion_data import grid_stems
from ditto.training.prepare.lip_sync import MOST_OFFSET, Heard, KernelScorer
from ditto.training.sync import NetworkScorer, lips_of_landmarks, read_track, speech_features

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.float32]

LATER = {"zumb_obama": 5}  # frames by which the sound of a cut is late, if others than SOUND_LATE_FRAMES
MOVED = (-8, -4, 0, 4, 8)
LENGTHS = {"whole": None, "1 s": FPS}  # frames
CONFIDENCES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 2.0)
SETS = ("grid_s1", "grid_other", "natural_talk")


class Clip(NamedTuple):
    """Landmarks (T, 478, 3), features (T, 368), and by how many frames the sound of the file is late."""

    landmarks: Floats
    features: Array
    late: int


class Trial(NamedTuple):
    """What a scorer said: whether the sound belongs to the lips, the error in frames, the confidence."""

    belongs: bool
    error: int
    confidence: float


Scorer = Callable[[Floats, Array], Floats]  # landmarks (T, 478, 3), features (T + 2 M, 368) -> (2 M + 1,)


def moved(features: Array, start: int, frames: int, by: int) -> Array:
    """(T, 368) -> (frames + 2 M, 368) around the frames from `start`, late by `by` frames, ends repeated."""
    at = np.arange(start - MOST_OFFSET, start + frames + MOST_OFFSET) - by
    return features[np.clip(at, 0, len(features) - 1)]


def trials(scorer: Scorer, clips: Sequence[Clip], frames: int | None = None) -> Iterator[Trial]:
    """Each clip, or its `frames` in the middle, with its own sound, moved by `MOVED`, and with the sound of the next clip."""
    for clip, other in zip(clips, [*clips[1:], clips[0]], strict=True):
        length = min(frames or len(clip.landmarks), len(clip.landmarks))
        start = (len(clip.landmarks) - length) // 2
        for sound, by in [(clip, by) for by in MOVED] + [(other, 0)]:
            found = scorer(clip.landmarks[start : start + length], moved(sound.features, start, length, by))
            best = int(found.argmax())
            yield Trial(sound is clip, best - MOST_OFFSET - by - clip.late, float(found[best] - np.median(found)))


def area_under_curve(right: Floats, wrong: Floats) -> float:
    """How often a clip with its own sound has more confidence than one with another's."""
    return float((right[:, None] > wrong).mean() + 0.5 * (right[:, None] == wrong).mean())


def row(found: Sequence[Trial]) -> tuple[float, float, float]:
    """Shares within one frame and exact, and the area under the curve of the confidence."""
    errors = np.array([abs(t.error) for t in found if t.belongs])
    right, wrong = (np.array([t.confidence for t in found if t.belongs == kind]) for kind in (True, False))
    return float((errors <= 1).mean()), float((errors == 0).mean()), area_under_curve(right, wrong)


def calibration(found: Sequence[Trial]) -> list[tuple[str, int, float]]:
    """For each range of confidence: how many trials, and what share has the sound of its lips and the right offset."""
    rows = []
    for low, high in itertools.pairwise(CONFIDENCES):
        inside = [t.belongs and abs(t.error) <= 1 for t in found if low <= t.confidence < high]
        rows.append((f"{low:.2f} - {high:.2f}", len(inside), float(np.mean(inside)) if inside else math.nan))
    return rows


def read(folder: Path, encoder: SpeechEncoder, most: int | None = None) -> list[Clip]:
    """The clips of a folder of tracks, at most so many; of GRID's first speaker those kept out of training."""
    stems = grid_stems(folder)[1] if folder.name == "grid_s1" else sorted(p.stem for p in folder.glob("*.npz"))
    clips = []
    for stem in stems[:most]:
        try:
            landmarks, samples = read_track(folder / f"{stem}.npz")
        except InputError as error:
            print(f"left out {stem}: {error}", file=sys.stderr)
            continue
        late = LATER.get(stem, SOUND_LATE_FRAMES) if folder.name == "natural_talk" else 0
        clips.append(Clip(landmarks, speech_features(encoder, samples), late))
    return clips


def main() -> None:
    parser = Arguments(
        prog="python -m benchmarks.sync", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tracks", type=existing_folder)
    parser.add_argument("--bundle", default="lite", help="name or folder")
    parser.add_argument("--clips", type=whole_number(1, 10**6), help="at most so many of each set")
    options = parser.parse_args()
    encoder, network, kernels = SpeechEncoder(find_folder(options.bundle)), NetworkScorer(), KernelScorer()
    silence = np.zeros(0, np.int16)
    scorers: dict[str, Scorer] = {
        "network": lambda landmarks, features: network.similarities(lips_of_landmarks(landmarks), features),
        "kernels": lambda landmarks, features: kernels.scores(Heard(landmarks, features, silence, MOST_OFFSET)),
    }
    rows, figures = [], []
    everything: dict[str, list[Trial]] = {length: [] for length in LENGTHS}
    for name in SETS:
        clips = read(options.tracks / name, encoder, options.clips)
        if not clips:
            parser.error(f"expected tracks in {options.tracks / name}, got none; make them with ditto.training.tracks")
        for length, frames in LENGTHS.items():
            found = {who: list(trials(scorer, clips, frames)) for who, scorer in scorers.items()}
            shares = {who: row(values) for who, values in found.items()}
            rows += [(f"{name}, {length}", who, len(found[who]), *shares[who]) for who in scorers]
            beside = {"kernels": shares["kernels"][0]}
            figures.append(Figure(f"{name}, {length}: within one frame", shares["network"][0], beside=beside))
            everything[length] += found["network"]
    columns = ("clips", "scorer", "trials", "within 1 frame", "exact", "area under curve")
    calibrations = [
        rows_table(f"The network's confidence, {length}", ("confidence", "trials", "right"), calibration(values))
        for length, values in everything.items()
    ]
    publish("sync", figures, [rows_table("Offsets", columns, rows), *calibrations])


if __name__ == "__main__":
    run(main)
