"""Windows of motion and their conditions, drawn from a corpus.

Window number `i` of update `k` is drawn with a generator of its own, seeded by (seed, k, i). So a window does not depend
on how many processes, or backward passes, an update is split into, and a run that goes on from a checkpoint needs no
state of a generator.

B: batch; T: frames of a window; D: numbers of a frame of motion, 70 or 265; F: numbers of a speech feature.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ditto.errors import InputError
from ditto.lite.phones import PHONE_INDEX, PHONES
from ditto.lite.speech_encoder import FEATURE_SIZE, HIDDEN_SIZE
from ditto.motion.eyes import EYE_SIZE
from ditto.motion.motion import (
    EXPRESSION,
    EYES,
    KEYPOINTS,
    LAYOUT_265,
    LIPS,
    MOTION_SIZE,
    PACKED_SIZE,
    TRANSLATION,
    Keypoint,
    pack_265,
)
from ditto.portrait.face_mesh import KEYPOINT_MIRROR, TEMPLATE, keypoints
from ditto.training.dataset import Dataset
from ditto.training.recipe import Recipe

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

WINDOW = 80  # frames, at both sizes
PAST = 20  # known frames of most windows of the lite size
SHORTEST = 40  # frames of a clip that a window shows at least, if the clip has them
LEARNT = 10  # frames of a clip that are not known in a window of the lite size, at least
REST_FADE = 15  # frames over which a clip that starts at rest reaches its own pose
# How often windows of the shipped weights' corpus come from each kind of clip: GRID is one speaker, the cuts are 32 s.
SHARES: Mapping[str, float] = MappingProxyType({"real": 0.44, "natural": 0.14, "made": 0.42})
STILL = [k for k in Keypoint if k not in (*LIPS, *EYES)]


class Corpus(NamedTuple):
    """All clips, one after another; clip i is rows [start[i], start[i] + length[i]).

    Attributes:
        names: of the clips.
        start, length: rows of each clip.
        pool: (clips,) number of each clip's pool; `shares` (pools,) says how often each pool is drawn from.
        features: (rows, F) of speech.
        motion: (rows, D) in the head frame.
        eyes: (rows, 8).
        emotion: (clips, 8).
        canonical: (looks, 63) keypoints; clip i has [look_start[i], look_start[i] + look_count[i]), one or one a frame.
    """

    names: tuple[str, ...]
    start: Ints
    length: Ints
    pool: Ints
    shares: npt.NDArray[np.float64]
    features: npt.NDArray[np.float16]
    motion: Array
    eyes: Array
    emotion: Array
    canonical: Array
    look_start: Ints
    look_count: Ints

    def rows(self, clip: int) -> slice:
        """The rows of a clip."""
        return slice(int(self.start[clip]), int(self.start[clip] + self.length[clip]))

    def only(self, clips: npt.ArrayLike) -> Corpus:
        """Some of the clips: (clips,) of bool, at least one true. The rows stay where they are."""
        chosen = np.flatnonzero(clips)
        pools, pool = np.unique(self.pool[chosen], return_inverse=True)
        return self._replace(
            names=tuple(self.names[i] for i in chosen),
            start=self.start[chosen],
            length=self.length[chosen],
            pool=pool,
            shares=self.shares[pools],
            emotion=self.emotion[chosen],
            look_start=self.look_start[chosen],
            look_count=self.look_count[chosen],
        )

    def without(self, conditions: Iterable[str]) -> Corpus:
        """The corpus with some conditions zero, of `ditto.training.recipe.HIDEABLE`."""
        return self._replace(**{name: np.zeros_like(getattr(self, name)) for name in conditions})

    def fingerprint(self) -> str:
        """SHA-256 over everything that a run draws from, to tell whether a checkpoint belongs to this corpus."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        for array in self[1:]:
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def load_corpus(path: Path, shares: Mapping[str, float] | Iterable[str] = SHARES) -> Corpus:
    """Clips of some kinds (`real`, `made`, `held`, ...) from a corpus file; see `ditto.training.corpus`.

    Args:
        shares: how often windows come from each kind; names alone: equally often.

    Raises:
        InputError: the file is no corpus, or has no clip of these kinds.
    """
    shares = dict(shares) if isinstance(shares, Mapping) else dict.fromkeys(shares, 1.0)
    if path.is_file() and not zipfile.is_zipfile(path):
        raise InputError(
            f"expected a corpus with features (.npz), or a folder of `ditto train prepare`, got the file {path}; give one"
        )
    try:
        with np.load(path, allow_pickle=False) as d:
            columns = {name: d[name] for name in ("names", "kind", "lengths", "features", "motion", "eyes", "emotion")}
            canonical = d["canonical"].astype(np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"expected a corpus with features at {path}, got: {error}; make it again") from error
    present = [kind for kind in shares if (columns["kind"] == kind).any()]
    if not present:
        raise InputError(f"expected clips of {', '.join(shares)} in {path}, got none; name other kinds")
    chosen = np.isin(columns["kind"], present)
    length = columns["lengths"].astype(np.int64)
    start = np.cumsum(length) - length
    template = keypoints(TEMPLATE).reshape(-1).astype(np.float32)
    canonical = np.where(np.abs(canonical).sum(1, keepdims=True) > 0, canonical, template)[chosen]
    clips = int(chosen.sum())
    return Corpus(
        tuple(str(name) for name in columns["names"][chosen]),
        start[chosen],
        length[chosen],
        np.array([present.index(kind) for kind in columns["kind"][chosen]]),
        np.array([shares[kind] for kind in present]),
        columns["features"],
        columns["motion"],
        columns["eyes"],
        columns["emotion"][chosen].astype(np.float32),
        np.ascontiguousarray(canonical, np.float32),
        np.arange(clips),
        np.ones(clips, np.int64),
    )


def corpus_of_dataset(dataset: Dataset, split: str) -> Corpus:
    """The clips of one split of a prepared dataset, as one pool.

    Raises:
        InputError: the split is empty. DatasetError: a clip is missing or damaged.
    """
    chosen = dataset.of(split)
    if not chosen:
        raise InputError(f"expected clips of the split {split!r} in {dataset.folder}, got none; prepare more footage")
    clips = [dataset.load(clip) for clip in chosen]
    length = np.array([len(clip.motion) for clip in clips], np.int64)
    looks = [clip.canonical.reshape(-1, 3 * KEYPOINTS) for clip in clips]
    look_count = np.array([len(look) for look in looks], np.int64)
    return Corpus(
        tuple(clip.id for clip in chosen),
        np.cumsum(length) - length,
        length,
        np.zeros(len(clips), np.int64),
        np.ones(1),
        np.concatenate([clip.features for clip in clips]),
        np.concatenate([clip.motion for clip in clips]),
        np.concatenate([clip.eyes for clip in clips]),
        np.stack([clip.emotion for clip in clips]).astype(np.float32),
        np.concatenate(looks).astype(np.float32),
        np.cumsum(look_count) - look_count,
        look_count,
    )


def with_motion_size(corpus: Corpus, size: int) -> Corpus:
    """The same corpus with motion of `size` numbers: 70 are packed to 265 with the angles as bins.

    Raises:
        InputError: 265 numbers where 70 are expected.
    """
    found = corpus.motion.shape[1]
    if found == size:
        return corpus
    if (found, size) != (MOTION_SIZE, PACKED_SIZE):
        raise InputError(f"expected motion of {size} numbers a frame, got {found}; choose the recipe for {found}")
    return corpus._replace(motion=pack_265(corpus.motion))


def silence_row(corpus: Corpus) -> Array:
    """(368,) the median feature where both tokens are surely silent.

    Raises:
        InputError: nobody is silent in this corpus.
    """
    quiet = HIDDEN_SIZE + PHONE_INDEX["SIL"]
    f = corpus.features
    sure = np.minimum(f[:, quiet], f[:, quiet + len(PHONES)]) > 0.97
    if not sure.any():
        raise InputError(
            "expected a corpus with silence between the words, got none; add clips that begin or end in silence"
        )
    row = np.median(f[sure].astype(np.float32), 0)
    for first in (HIDDEN_SIZE, HIDDEN_SIZE + len(PHONES)):
        row[first : first + len(PHONES)] /= row[first : first + len(PHONES)].sum()
    return np.asarray(row, np.float32)


def motion_scale(corpus: Corpus) -> Array:
    """(D,) units of the network: each dimension's own spread, never less than 0.15 of the widest expression.

    The bins of an angle (D = 265) share the spread of the widest.
    """
    rows = np.concatenate([corpus.motion[s : s + n] for s, n in zip(corpus.start, corpus.length, strict=True)])
    spread = rows.std(0)
    scale: Array = np.maximum(spread, 1e-4)
    shift, face = TRANSLATION, EXPRESSION
    if len(spread) == PACKED_SIZE:
        shift, face = LAYOUT_265["t"], LAYOUT_265["exp"]
        for angle in ("pitch", "yaw", "roll"):
            scale[LAYOUT_265[angle]] = max(spread[LAYOUT_265[angle]].max(), 1e-3)
    scale[shift] = np.maximum(spread[shift].max(), 1e-3)
    scale[face] = np.maximum(spread[face], max(0.15 * spread[face].max(), 1e-4))
    return scale.astype(np.float32)


def feature_normaliser(corpus: Corpus) -> tuple[Array, Array]:
    """Mean and spread (F,) of the features; the probabilities of the lite encoder keep their zero and are only scaled."""
    rows = corpus.features[:: max(1, len(corpus.features) // 50000)].astype(np.float32)
    mean, spread = rows.mean(0), rows.std(0) + 1e-3
    if corpus.features.shape[1] == FEATURE_SIZE:
        mean[HIDDEN_SIZE:], spread[HIDDEN_SIZE:] = 0.0, 0.35
    return mean, spread


class Units(NamedTuple):
    """What is measured on a corpus before training.

    Attributes:
        scale: (D,) of motion, see `motion_scale`.
        silence: (F,) features of silence; of other encoders than the lite one, the mean feature.
        feature_mean, feature_spread: (F,) of features.
    """

    scale: Array
    silence: Array
    feature_mean: Array
    feature_spread: Array

    @classmethod
    def of(cls, corpus: Corpus) -> Units:
        mean, spread = feature_normaliser(corpus)
        silence = silence_row(corpus) if corpus.features.shape[1] == FEATURE_SIZE else mean
        return cls(motion_scale(corpus), silence, mean, spread)


class Batch(NamedTuple):
    """Windows: motion (B, T, D) in the network's units, `known` and `counts` (B, T, 1) masks, conditions."""

    motion: Tensor
    known: Tensor
    counts: Tensor
    features: Tensor
    eyes: Tensor
    emotion: Tensor
    canonical: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(tensor.to(device) for tensor in self))


class Noise(NamedTuple):
    """What is random in the loss of a batch.

    Attributes:
        level: (B, 2) uniform in [0, 1), the first for the window, both for its two cuts (`motion_short`).
        noise: (B, T, D) normal.
        speech_mask: (B, 1), 0 hides the speech (lite) or the condition (full).
        ahead: (B, 2) uniform in [0, 1); how much speech the two cuts hear.
    """

    level: Tensor
    noise: Tensor
    speech_mask: Tensor
    ahead: Tensor

    def to(self, device: torch.device) -> Noise:
        return Noise(*(tensor.to(device) for tensor in self))


class Drawn(NamedTuple):
    """A batch, its noise, and the names of its clips."""

    batch: Batch
    noise: Noise
    clips: tuple[str, ...]


class _Window(NamedTuple):
    motion: Array
    known: Array
    counts: Array
    features: Array
    eyes: Array
    emotion: Array
    canonical: Array


def draw(
    corpus: Corpus, units: Units, recipe: Recipe, seed: int, step: int, numbers: Iterable[int], augment: bool = True
) -> Drawn:
    """The windows `numbers` of an update.

    Lite: 80 frames; beginnings and ends as the sampler meets them; 20 known frames in most windows. Full: the one frame
    before, then 80 frames.
    """
    windows, names, random_numbers = [], [], []
    for number in numbers:
        random = np.random.default_rng([seed, step, number])
        pool = int(random.choice(len(corpus.shares), p=corpus.shares / corpus.shares.sum()))
        clips = np.flatnonzero(corpus.pool == pool)
        weight = corpus.length[clips].astype(np.float64)
        clip = int(random.choice(clips, p=weight / weight.sum()))
        window = (_lite_window if recipe.size == "lite" else _full_window)(corpus, units, random, clip)
        if augment:
            window = _augment(window, units, recipe, random)
        noise = random.standard_normal(window.motion.shape, np.float32)
        heard = random.random() >= recipe.drop_condition
        random_numbers.append((random.random(2), noise, heard, random.random(2)))
        windows.append(window)
        names.append(corpus.names[clip])

    def stacked(rows: Iterable[object]) -> Tensor:
        return torch.from_numpy(np.stack([np.asarray(row, np.float32) for row in rows]))

    columns = [stacked(column) for column in zip(*windows, strict=True)]
    level, noises, masks, ahead = (stacked(column) for column in zip(*random_numbers, strict=True))
    batch = Batch(columns[0] / torch.from_numpy(units.scale), *columns[1:])
    batch = batch._replace(**{name: torch.zeros_like(getattr(batch, name)) for name in recipe.hide})
    return Drawn(batch, Noise(level, noises, masks[:, None], ahead), tuple(names))


def _cut(
    corpus: Corpus, units: Units, random: np.random.Generator, clip: int, first: int, frames: int
) -> tuple[_Window, slice]:
    """`frames` frames of a clip from frame `first` on, and where the clip lies in them; rest and silence around it."""
    length = int(corpus.length[clip])
    begin, end = max(first, 0), min(first + frames, length)
    rows = slice(int(corpus.start[clip]) + begin, int(corpus.start[clip]) + end)
    at = slice(begin - first, end - first)
    motion = np.zeros((frames, corpus.motion.shape[1]), np.float32)
    eyes = np.zeros((frames, EYE_SIZE), np.float32)
    features = np.tile(units.silence, (frames, 1))
    motion[at], eyes[at], features[at] = corpus.motion[rows], corpus.eyes[rows], corpus.features[rows]
    eyes[: at.start, :2] = 1.0
    eyes[at.stop :] = eyes[at.stop - 1]
    known, counts = np.zeros((frames, 1), np.float32), np.zeros((frames, 1), np.float32)
    counts[at] = 1.0
    look = int(corpus.look_start[clip]) + int(random.integers(corpus.look_count[clip]))
    window = _Window(motion, known, counts, features, eyes, corpus.emotion[clip], corpus.canonical[look].copy())
    return window, at


def _lite_window(corpus: Corpus, units: Units, random: np.random.Generator, clip: int) -> _Window:
    length = int(corpus.length[clip])
    first = -PAST if random.random() < 0.25 else int(random.integers(-PAST, max(length - SHORTEST, -PAST + 1)))
    window, at = _cut(corpus, units, random, clip, first, WINDOW)
    if first < 0:
        rise = np.clip((np.arange(at.stop - at.start) + 1.0) / REST_FADE, 0.0, 1.0)
        rise = rise * rise * (3.0 - 2.0 * rise)
        window.motion[at, : EXPRESSION.start] *= rise[:, None]
        faces = window.motion[at, EXPRESSION].reshape(-1, KEYPOINTS, 3)  # a copy: the slice is not contiguous
        faces[:, STILL] *= rise[:, None, None]
        window.motion[at, EXPRESSION] = faces.reshape(len(faces), -1)
    kind = random.random()
    past = PAST if kind < 0.6 else 0 if kind < 0.65 and first >= 0 else int(random.integers(1, 71))
    past = max(min(past, at.stop - LEARNT), at.start)
    window.known[:past] = 1.0
    window.counts[:past] = 0.0
    return window


def _full_window(corpus: Corpus, units: Units, random: np.random.Generator, clip: int) -> _Window:
    latest = max(int(corpus.length[clip]) - SHORTEST, 1)
    window, _ = _cut(corpus, units, random, clip, int(random.integers(latest)), WINDOW + 1)
    window.known[0], window.counts[0] = 1.0, 0.0
    return window


def _augment(window: _Window, units: Units, recipe: Recipe, random: np.random.Generator) -> _Window:
    if random.random() < recipe.flip:
        window = window._replace(
            motion=mirror_motion(window.motion),
            eyes=mirror_eyes(window.eyes),
            canonical=mirror_keypoints(window.canonical),
        )
    shape = window.canonical.reshape(KEYPOINTS, 3) * random.normal(1.0, recipe.shape_scale, 3)
    shape = shape + random.normal(0.0, recipe.shape_shift, shape.shape)
    features = window.features
    if recipe.feature_noise:
        speech = HIDDEN_SIZE if features.shape[1] == FEATURE_SIZE else features.shape[1]
        strength = recipe.feature_noise * units.feature_spread[:speech]
        features = features.copy()
        features[:, :speech] += strength * random.standard_normal((len(features), speech), np.float32)
    return window._replace(canonical=shape.reshape(-1).astype(np.float32), features=features)


def mirror_keypoints(values: Array) -> Array:
    """(..., 63) keypoints, or changes of them, of the face in a mirror."""
    faces = values.reshape(*values.shape[:-1], KEYPOINTS, 3)[..., KEYPOINT_MIRROR, :] * np.array([-1, 1, 1], np.float32)
    return np.asarray(faces.reshape(values.shape), np.float32)


def mirror_motion(motion: Array) -> Array:
    """(..., 70 or 265) motion of the face in a mirror: yaw, roll and x turn round, left and right change places."""
    out = np.array(motion, np.float32)
    if motion.shape[-1] == MOTION_SIZE:
        out[..., 2:5] *= -1.0  # yaw, roll, t.x
        face = EXPRESSION
    else:
        for angle in ("yaw", "roll"):  # bins lie symmetrically around zero
            out[..., LAYOUT_265[angle]] = motion[..., LAYOUT_265[angle]][..., ::-1]
        out[..., LAYOUT_265["t"].start] *= -1.0
        face = LAYOUT_265["exp"]
    out[..., face] = mirror_keypoints(motion[..., face])
    return out


def mirror_eyes(eyes: Array) -> Array:
    """(..., 8) eye state of the face in a mirror."""
    out = np.array(eyes[..., [1, 0, 3, 2, 5, 4, 7, 6]], np.float32)
    out[..., 2:4] *= -1.0
    return out
