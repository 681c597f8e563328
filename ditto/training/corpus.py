"""The corpus of the motion network: real motion where a face was tracked, generated motion for speech without one.

    python -m ditto.training.corpus DATA TRACKS BUNDLE corpus.npz [--seed 5] [--features FOLDER]

DATA is the data tree, TRACKS the folder with the tracks of `grid_s1` and `natural_talk` (`ditto.training.tracks`), BUNDLE the
bundle folder whose speech encoder makes the features. FOLDER keeps features for another run. Clips are of the kinds `real`
(GRID), `held` (GRID clips kept out of training), `natural` (cuts of natural talk) and `made`.

Lips of generated motion open and widen as in natural talk with the same phones (`ditto.training.natural_talk`); targets of
phones fitted to GRID give what these two numbers leave open. GRID's speaker reads with a still head, so his clips get
generated head motion on top.
"""

from __future__ import annotations

import argparse
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.commands import Arguments, run, whole_number
from ditto.lite.latency import LOOKBACK
from ditto.lite.phones import PHONES, SILENCE
from ditto.lite.postprocess import AT_REST, close_lips
from ditto.lite.speech_encoder import FRAMES_PER_HOP, HIDDEN_SIZE
from ditto.media.audio import HOP_SAMPLES
from ditto.media.files import check_output_file
from ditto.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.motion.emotion import EMOTIONS, emotion_vector
from ditto.motion.eyes import BLINK, eye_keypoints, initial_eyes, step_eyes
from ditto.motion.motion import BROWS, EXPRESSION, KEYPOINTS, MOTION_SIZE, Keypoint
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
from ditto.training.emotion_shapes import BROW, emotion_offset
from ditto.training.head_motion import EMOTION_PRIOR, HeadMotion, head_and_brows
from ditto.training.motion_data import RealClip, fill_gaps, grid_stems, real_clip
from ditto.training.natural_talk import (
    Kernels,
    MouthShape,
    Talk,
    fit_shape,
    follow,
    kernels,
    kernels_without,
    lip_curves,
)
from ditto.training.smoothing import gaussian
from ditto.training.speech_data import augment, read_train

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

GRID_MOUTH_GAIN = 1.1  # by eye: the speaker opens his mouth a little less than a portrait should
# fu of pressed lips at one: thinner and wider, which MediaPipe's mouthPress blendshape answers to (+.08 to +.1 at one).
PRESS = {
    Keypoint.UPPER_OUTER_LIP: (0.0, 0.012, 0.0),
    Keypoint.UPPER_INNER_LIP: (0.0, 0.004, 0.0),
    Keypoint.LOWER_INNER_LIP: (0.0, -0.010, 0.0),
    Keypoint.CHIN: (0.0, -0.008, 0.0),
    Keypoint.RIGHT_MOUTH_CORNER: (-0.012, 0.0, 0.0),
    Keypoint.LEFT_MOUTH_CORNER: (0.012, 0.0, 0.0),
}
NATURAL_LATE_SECONDS = 0.067  # the sound of the natural cuts comes late (../shared/data/MANIFEST.md)
NATURAL_LATER_FRAMES = {"zumb_obama": 3}  # this cut comes from another copy; its lips say so (lag of the best correlation)
NATURAL_ROOMS = 7  # other rooms and microphones each cut is heard through
FRAMES_OF_TRUST = 200.0  # frames of a phone that weigh as much as the hand table; chosen by hand
MADE_COPIES = 3  # motions generated for each utterance, each with other features
NEUTRAL = emotion_vector(None)


class Generated(NamedTuple):
    """Motion generated for an utterance: (T, 70) head frame, eyes (T, 8), emotion (8,)."""

    motion: Array
    eyes: Array
    emotion: Array


class Speech(NamedTuple):
    """What generated motion goes by, T frames: phones (T, 2, 40) probabilities, sound (640 T,)."""

    phones: Floats
    samples: Array

    @classmethod
    def of(cls, features: npt.ArrayLike, samples: npt.ArrayLike) -> Speech:
        """From features (T, 368) of the speech encoder."""
        f = np.asarray(features, np.float64)
        sound = np.zeros(len(f) * SAMPLES_PER_FRAME, np.float32)
        given = np.asarray(samples, np.float32)[: len(sound)]
        sound[: len(given)] = given
        return cls(f[:, HIDDEN_SIZE:].reshape(len(f), 2, len(PHONES)), sound)

    @property
    def silent(self) -> Floats:
        """(T,) probability of silence."""
        return np.asarray(self.phones[:, :, SILENCE].mean(1))

    @property
    def level(self) -> Floats:
        """(T,) dB, smoothed."""
        return np.asarray(loudness(self.samples)[1].reshape(-1, 2).mean(1))


def generate(
    speech: Speech, mouth: Articulation, shape: MouthShape, random: np.random.Generator, known: Kernels | None = None
) -> Generated:
    """Motion for speech without a face.

    Args:
        speech: T frames.
        mouth: targets of each phone.
        shape: how the mouth follows its opening and width.
        random: of head, eyes, emotion and style.
        known: what opening and width follow; the measured kernels by default.
    """
    n, silent = len(speech.phones), speech.silent
    factor, _ = loudness(speech.samples)
    face = articulate(speech.phones.reshape(2 * n, -1), factor, mouth)
    face = follow(face, lip_curves(speech.phones.mean(1), random.uniform(0.92, 1.08), known), shape)

    emotion = np.zeros(len(EMOTIONS))
    chosen = int(random.choice(len(EMOTIONS), p=EMOTION_PRIOR))
    weight = random.uniform(0.3, 1.0)
    emotion[chosen] = weight
    emotion[EMOTIONS.index("neutral")] += 1.0 - weight
    seconds = np.arange(0, n + 50, 25)
    swell = 1.0 + 0.12 * np.interp(np.arange(n), seconds, random.normal(size=len(seconds)))
    face += emotion_offset(emotion) * gaussian(swell, 6.0)[:, None, None]

    head = head_and_brows(random, speech.level, silent)
    face += expression_of(head)
    eyes = made_eyes(silent, random)
    for keypoint, change in eye_keypoints(eyes).items():
        face[:, keypoint] += change

    motion = np.zeros((n, MOTION_SIZE), np.float32)
    motion[:, : EXPRESSION.start] = head.pose
    motion[:, EXPRESSION] = face.reshape(n, 3 * KEYPOINTS)
    return Generated(close(motion, speech), eyes, emotion.astype(np.float32))


def expression_of(head: HeadMotion) -> Floats:
    """(T, 21, 3) what brows, smiles and pressed lips do to the keypoints."""
    face = emotion_offset(np.outer(head.smile, emotion_vector({"happy": 1.0})))
    face[:, BROWS, 1] = -BROW * head.brow[:, None]
    face[:, Keypoint.GLABELLA, 1] = -0.3 * BROW * head.brow
    face[:, list(PRESS)] += head.press[:, None, None] * np.array(list(PRESS.values()))
    return face


def made_eyes(silent: Floats, random: np.random.Generator) -> Array:
    """(T, 8) eye states, half of them with blinks of other shapes: the network is to follow the eye state, not one shape."""
    n = len(silent)
    eyes, _ = step_eyes(initial_eyes(), silent, int(random.integers(1 << 62)))
    if random.random() < 0.5:
        shut = np.flatnonzero(eyes[:, 0] == min(BLINK))
        eyes[:, :2] = 1.0
        for frame in shut:
            t = np.arange(n) - frame
            rise, fall = random.uniform(0.9, 1.6), random.uniform(1.5, 3.0)
            lid = random.uniform(0.5, 1.0) * np.exp(-0.5 * (t / np.where(t < 0, rise, fall)) ** 2)
            eyes[:, :2] = np.minimum(eyes[:, :2], 1.0 - lid[:, None])
    return eyes.astype(np.float32)


def close(motion: Array, speech: Speech) -> Array:
    """(T, 70) motion whose lips close on p, b, m and when the speaker is done, as the sampler closes them."""
    before = np.zeros((LOOKBACK, 2, len(PHONES)))
    before[..., SILENCE] = 1.0
    return close_lips(motion, np.concatenate([before, speech.phones]), AT_REST, complete=True)[0]


def enliven(clip: RealClip, speech: Speech, random: np.random.Generator) -> Array:
    """(T, 70) the motion of a GRID clip at the amplitude a portrait needs, with generated head motion and brows."""
    n = min(len(clip.motion), len(speech.phones))
    motion = clip.motion[:n].copy()
    head = head_and_brows(random, speech.level[:n], speech.silent[:n])
    motion[:, : EXPRESSION.start] += head.pose
    faces = motion[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)
    faces[:, MOUTH_KEYPOINTS] *= GRID_MOUTH_GAIN
    faces += expression_of(head._replace(press=np.zeros(n)))
    motion[:, EXPRESSION] = faces.reshape(n, -1)
    return motion


def fit_mouth(real: Sequence[RealClip], said: Sequence[Speech]) -> Articulation:
    """Phone targets refitted on real clips and what was said in them."""
    shares, changes = [], []
    for clip, speech in zip(real, said, strict=True):
        share = blend_weights(speech.phones.reshape(2 * len(speech.phones), -1), DOMINANCE)
        n = min(len(share), len(clip.motion))
        loud = loudness(speech.samples)[0][: 2 * n].reshape(n, 2).mean(1)
        shares.append(share[:n] * loud[:, None])
        changes.append(clip.motion[:n, EXPRESSION].reshape(n, KEYPOINTS, 3))
    return refit(np.concatenate(shares), np.concatenate(changes), PRIOR, FRAMES_OF_TRUST)


class Rows:
    """Clips gathered one by one into the arrays of the corpus file."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {
            k: [] for k in ("names", "kind", "features", "motion", "eyes", "emotion", "canonical")
        }

    def add(
        self, name: str, kind: str, features: Array, motion: Array, eyes: Array, emotion: Array, canonical: Array
    ) -> None:
        """One clip; the shortest of features, motion and eyes says how long it is."""
        n = min(len(features), len(motion), len(eyes))
        rows = name, kind, features[:n].astype(np.float16), motion[:n], eyes[:n], emotion, canonical
        for column, value in zip(self._columns.values(), rows, strict=True):
            column.append(value)

    def save(self, path: Path) -> None:
        """Write the corpus: rows of all clips one after another, `lengths` of each."""
        c = self._columns
        lengths = np.array([len(m) for m in c["motion"]])
        together = {k: np.concatenate(c[k]) for k in ("features", "motion", "eyes")}
        apart = {k: np.array(c[k]) for k in ("names", "kind", "emotion", "canonical")}
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, allow_pickle=False, lengths=lengths, **together, **apart)
        os.replace(partial, path)
        print(f"{len(lengths)} clips, {lengths.sum() / (60 * FPS):.1f} minutes")


class Features:
    """Features of the streaming encoder, of clean speech and of speech through other rooms and microphones.

    Args:
        bundle: folder with encoder.safetensors.
        kept: folder for the features, read again by another run; None: keep nothing.
    """

    def __init__(self, bundle: Path, kept: Path | None, seed: int) -> None:
        import torch

        from ditto.training.export_encoder import load_encoder

        torch.set_num_threads(1)
        self._encoder, self._start = load_encoder(bundle / "encoder.safetensors")
        self._kept, self._seed = kept, seed
        if kept is not None:
            kept.mkdir(parents=True, exist_ok=True)

    def of(self, name: str, samples: Array, rooms: int) -> list[Array]:
        """Features (T, 368) of samples (N,) at 16 kHz, T = ceil(N / 640): of the clean sound, then of each other room."""
        import torch

        file = self._kept / f"{name}.npz" if self._kept is not None else None
        if file is not None and file.is_file():
            with np.load(file) as read:
                return [read[key].astype(np.float32) for key in read.files]
        seeds = [[self._seed, zlib.crc32(name.encode()), room] for room in range(rooms)]
        sounds = [samples, *(augment(samples, np.random.default_rng(seed)) for seed in seeds)]
        frames = -(-len(samples) // SAMPLES_PER_FRAME)
        hops = -(-frames // FRAMES_PER_HOP) + 1
        padded = np.stack([np.pad(x, (0, hops * HOP_SAMPLES - len(x))) for x in sounds]).astype(np.float32)
        start = type(self._start)(*(part.expand(len(sounds), *part.shape[1:]) for part in self._start))
        with torch.no_grad():
            found = self._encoder(torch.from_numpy(padded), start)[0].numpy()
        rows = list(found[:, FRAMES_PER_HOP : FRAMES_PER_HOP + frames].astype(np.float16))
        if file is not None:
            partial = file.with_suffix(".partial.npz")
            np.savez(partial, *rows)
            os.replace(partial, file)
        return [row.astype(np.float32) for row in rows]


class NaturalCut(NamedTuple):
    """A cut of natural talk: landmarks (T, 478, 3) at 25 fps and the sound that belongs to them."""

    name: str
    landmarks: Floats
    samples: Array


def natural_cuts(tracks: Path) -> list[NaturalCut]:
    """All cuts of a folder of tracks, at 25 fps, sound and lips in step."""
    cuts = []
    for path in sorted(tracks.glob("*.npz")):
        with np.load(path) as track:
            landmarks, samples, fps = fill_gaps(track["landmarks"]), track["samples"], float(track["fps"])
        late = NATURAL_LATE_SECONDS + NATURAL_LATER_FRAMES.get(path.stem, 0) / FPS
        samples = samples[round(late * SAMPLE_RATE) :]
        frames = min(int(len(landmarks) / fps * FPS), len(samples) // SAMPLES_PER_FRAME)
        at = np.arange(frames) / FPS * fps
        first = np.minimum(at.astype(np.int64), len(landmarks) - 2)
        share = (at - first)[:, None, None]
        cuts.append(NaturalCut(path.stem, landmarks[first] * (1 - share) + landmarks[first + 1] * share, samples))
    return cuts


def main() -> None:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "tracks", "bundle", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--seed", type=whole_number(0, 2**63), default=5)
    parser.add_argument("--features", type=Path)
    parser.add_argument(
        "--without", nargs="*", default=[], help="natural cuts to keep out, of the kernels too, to measure on them"
    )
    options = parser.parse_args()
    check_output_file(options.out)
    all_cuts = natural_cuts(options.tracks / "natural_talk")
    names = {cut.name for cut in all_cuts}
    if not set(options.without) < names:
        parser.error(f"expected some of {', '.join(sorted(names))} after --without, got {' '.join(options.without)}")
    random = np.random.default_rng(options.seed)
    features, rows = Features(options.bundle, options.features, options.seed), Rows()
    clips = read_train(options.data, options.tracks / "grid_s1")
    trained, held = grid_stems(options.tracks / "grid_s1")
    real: dict[str, RealClip] = {}
    said: dict[str, Speech] = {}
    for stem in sorted(trained + held):
        with np.load(options.tracks / "grid_s1" / f"{stem}.npz") as track:
            landmarks, samples = track["landmarks"], track["samples"]
        try:
            clip = real_clip(fill_gaps(landmarks))
        except ValueError as error:
            print(f"left out {stem}: {error}")
            continue
        heard = features.of(stem, samples, rooms=int(stem not in held))
        speech = Speech.of(heard[0], samples)
        for found in heard:
            rest = clip.eyes, NEUTRAL, clip.canonical
            rows.add(stem, "held" if stem in held else "real", found, enliven(clip, speech, random), *rest)
        if stem not in held:
            real[stem], said[stem] = clip, speech
    talk: dict[bool, list[Talk]] = {True: [], False: []}  # by whether it is kept out
    faces = []
    for cut in all_cuts:
        out = cut.name in options.without
        others = [o.landmarks for o in all_cuts if o.name != cut.name and (out or o.name not in options.without)]
        clip = real_clip(cut.landmarks, others)
        heard = features.of(f"natural_{cut.name}", cut.samples, NATURAL_ROOMS)
        points = clip.motion[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)
        talk[out].append(Talk.of(Speech.of(heard[0], cut.samples).phones.mean(1), points))
        if not out:
            faces.append(points)
            for found in heard:
                rows.add(cut.name, "natural", found, clip.motion, clip.eyes, NEUTRAL, clip.canonical)
    mouth, shape = fit_mouth(list(real.values()), list(said.values())), fit_shape(np.concatenate(faces))
    known = kernels_without(talk[True], talk[False]) if options.without else kernels()

    nobody = np.zeros(3 * KEYPOINTS, np.float32)
    for spoken in clips:
        if spoken.source != "grid":
            heard = features.of(spoken.name, spoken.waveform, MADE_COPIES - 1)
            speech = Speech.of(heard[0], spoken.waveform)
            for found in heard:
                made = generate(speech, mouth, shape, random, known)
                rows.add(spoken.name, "made", found, made.motion, made.eyes, made.emotion, nobody)
    rows.save(options.out)


if __name__ == "__main__":
    run(main)
