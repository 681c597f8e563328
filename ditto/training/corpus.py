"""The corpus of the motion network: real motion where a face was tracked, generated motion for speech without one.

    python -m ditto.training.corpus DATA TRACKS MOONSHINE WORK motions.npz --align align.json
    python -m ditto.training.corpus_features DATA TRACKS ENCODER motions.npz corpus.npz

DATA is the data tree, TRACKS the tracked GRID clips, MOONSHINE the unpacked moonshine-voice 0.1.0 wheel, WORK the
folder where the encoder's training keeps its teacher targets, ENCODER the bundle folder whose encoder makes the
features. Clips are of the kinds `real` (trained on), `held` (GRID clips kept out) and `made`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.lite.latency import LOOKBACK
from ditto.lite.phones import SILENCE
from ditto.lite.postprocess import PAUSE_FRAMES, close_lips
from ditto.motion.emotion import BROW, EMOTIONS, emotion_offset, emotion_vector
from ditto.motion.eyes import BLINK, eye_keypoints, initial_eyes, step_eyes
from ditto.motion.motion import BROWS, DEGREES, EXPRESSION, KEYPOINTS, MOTION_SIZE, TRANSLATION, Keypoint
from ditto.training.articulation import (
    DOMINANCE,
    MOUTH_KEYPOINTS,
    PRIOR,
    Articulation,
    articulate,
    blend_weights,
    loudness,
    refit,
)
from ditto.training.head_motion import EMOTION_PRIOR, head_and_brows
from ditto.training.motion_data import RealClip, fill_gaps, gaussian, grid_stems, real_clip

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

# Gains on the tracked speaker, chosen by eye: he holds his head very still (standard deviation of 0.6 degrees,
# ../shared/voice/natural_talk.md), and opens his mouth a little less than a portrait should.
REAL_POSE_GAIN = 2.0
REAL_SHIFT_GAIN = 1.5
REAL_MOUTH_GAIN = 1.1
MADE_MOUTH_GAIN = 1.12  # blending targets flattens them; brings the 95th percentile of both to 0.09
FRAMES_OF_TRUST = 200.0  # frames of a phone that weigh as much as the hand table; chosen by hand
MADE_COPIES = 2  # motions generated for each utterance
NEUTRAL = emotion_vector(None)


class Generated(NamedTuple):
    """Motion generated for an utterance: (T, 70) head frame, eyes (T, 8), emotion (8,)."""

    motion: Array
    eyes: Array
    emotion: Array


def generate(
    phones: npt.ArrayLike, samples: npt.ArrayLike, mouth: Articulation, random: np.random.Generator
) -> Generated:
    """Motion for speech without a face.

    Args:
        phones: (2T, 40) phone probabilities at 50 Hz.
        samples: (640 T,) the sound.
        mouth: targets of each phone.
        random: of head, eyes, emotion and style.
    """
    p = np.asarray(phones, np.float64)
    factor, level = loudness(samples)
    n = len(p) // 2
    silent = p[: 2 * n, SILENCE].reshape(n, 2).mean(1)
    level = level[: 2 * n].reshape(n, 2).mean(1)
    face = articulate(p, factor, mouth) * MADE_MOUTH_GAIN * random.uniform(0.92, 1.08)

    emotion = np.zeros(len(EMOTIONS))
    chosen = int(random.choice(len(EMOTIONS), p=EMOTION_PRIOR))
    weight = random.uniform(0.3, 1.0)
    emotion[chosen] = weight
    emotion[EMOTIONS.index("neutral")] += 1.0 - weight
    seconds = np.arange(0, n + 50, 25)
    swell = 1.0 + 0.12 * np.interp(np.arange(n), seconds, random.normal(size=len(seconds)))
    face += emotion_offset(emotion) * gaussian(swell, 6.0)[:, None, None]

    pose, brow = head_and_brows(random, level, silent)
    face[:, BROWS, 1] -= BROW * brow[:, None]
    face[:, Keypoint.GLABELLA, 1] -= 0.3 * BROW * brow

    seed = int(random.integers(1 << 62))
    eyes, _ = step_eyes(initial_eyes(), silent, seed)
    if random.random() < 0.5:  # blinks of other shapes: the network is to follow the eye state, not one shape of blink
        shut = np.flatnonzero(eyes[:, 0] == min(BLINK))
        eyes[:, :2] = 1.0
        for frame in shut:
            t = np.arange(n) - frame
            rise, fall = random.uniform(0.9, 1.6), random.uniform(1.5, 3.0)
            lid = random.uniform(0.5, 1.0) * np.exp(-0.5 * (t / np.where(t < 0, rise, fall)) ** 2)
            eyes[:, :2] = np.minimum(eyes[:, :2], 1.0 - lid[:, None])
    for keypoint, change in eye_keypoints(eyes).items():
        face[:, keypoint] += change

    motion = np.zeros((n, MOTION_SIZE), np.float32)
    motion[:, : EXPRESSION.start] = pose
    motion[:, EXPRESSION] = face.reshape(n, 3 * KEYPOINTS)
    before = np.zeros((LOOKBACK, 2, p.shape[1]))
    before[..., SILENCE] = 1.0
    closed, _ = close_lips(motion, np.concatenate([before, p[: 2 * n].reshape(n, 2, -1)]), PAUSE_FRAMES)
    return Generated(closed, eyes.astype(np.float32), emotion.astype(np.float32))


def strengthen(clip: RealClip) -> Array:
    """The motion of a real clip at the amplitude a portrait needs, (T, 70)."""
    motion = clip.motion.copy()
    motion[:, DEGREES] *= REAL_POSE_GAIN
    motion[:, TRANSLATION] *= REAL_SHIFT_GAIN
    faces = motion[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)
    faces[:, MOUTH_KEYPOINTS] *= REAL_MOUTH_GAIN
    motion[:, EXPRESSION] = faces.reshape(len(motion), -1)
    return motion


def fit_mouth(
    real: Sequence[RealClip], phones: Sequence[npt.ArrayLike], samples: Sequence[npt.ArrayLike]
) -> Articulation:
    """Phone targets refitted on real clips: their motion, phone probabilities (2T, 40) and sound."""
    shares, changes = [], []
    for clip, probabilities, sound in zip(real, phones, samples, strict=True):
        share = blend_weights(probabilities, DOMINANCE)
        n = min(len(share), len(clip.motion))
        loud = loudness(sound)[0][: 2 * n].reshape(n, 2).mean(1)
        shares.append(share[:n] * loud[:, None])
        changes.append(clip.motion[:n, EXPRESSION].reshape(n, KEYPOINTS, 3))
    return refit(np.concatenate(shares), np.concatenate(changes), PRIOR, FRAMES_OF_TRUST)


class Rows:
    """Clips gathered one by one into the arrays of the corpus file."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {
            k: [] for k in ("names", "kind", "room", "motion", "eyes", "emotion", "canonical")
        }

    def add(
        self, name: str, kind: str, room: bool, motion: Array, eyes: Array, emotion: Array, canonical: Array
    ) -> None:
        """One clip; `room`: whether its features are those of the sound through another room and microphone."""
        for column, value in zip(
            self._columns.values(), (name, kind, room, motion, eyes, emotion, canonical), strict=True
        ):
            column.append(value)

    def save(self, path: Path) -> None:
        """Write the corpus: rows of all clips one after another, `lengths` of each."""
        c = self._columns
        lengths = np.array([len(m) for m in c["motion"]])
        together = {k: np.concatenate(c[k]) for k in ("motion", "eyes")}
        apart = {k: np.array(c[k]) for k in ("names", "kind", "room", "emotion", "canonical")}
        np.savez(path, allow_pickle=False, lengths=lengths, **together, **apart)


def main() -> None:
    from ditto.training.encoder import make_targets
    from ditto.training.speech_data import add_alignments, read_test, read_train

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "tracks", "moonshine", "work", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--align", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    clips = add_alignments(read_train(options.data, options.tracks), options.align)
    targets = make_targets(clips, options.moonshine, options.work, read_test(options.data))
    phones = {name: t.phones for name, t in targets.items()}
    rows = Rows()
    trained, held = grid_stems(options.tracks)
    real: dict[str, RealClip] = {}
    for stem in sorted(trained + held):
        with np.load(options.tracks / f"{stem}.npz") as track:
            landmarks = track["landmarks"]
        try:
            clip = real_clip(fill_gaps(landmarks))
        except ValueError as error:
            print(f"left out {stem}: {error}")
            continue
        row = (strengthen(clip), clip.eyes, NEUTRAL, clip.canonical)
        rows.add(stem, "held" if stem in held else "real", False, *row)
        if stem not in held:
            rows.add(stem, "real", True, *row)
            real[stem] = clip
    sound = {clip.name: clip.waveform for clip in clips if clip.name in real}
    mouth = fit_mouth(list(real.values()), [phones[s] for s in real], [sound[s] for s in real])

    random = np.random.default_rng(options.seed)
    nobody = np.zeros(3 * KEYPOINTS, np.float32)
    for speech in clips:
        if speech.source != "grid":
            for copy in range(MADE_COPIES):
                made = generate(phones[speech.name], speech.waveform, mouth, random)
                rows.add(speech.name, "made", bool(copy % 2), made.motion, made.eyes, made.emotion, nobody)
    rows.save(options.out)


if __name__ == "__main__":
    main()
