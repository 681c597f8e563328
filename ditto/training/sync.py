"""A small network that hears whether lips belong to speech: by how many frames the sound is late, and how sure that is.

    python -m ditto.training.sync TRACKS BUNDLE ditto/training/sync.safetensors [--corpus corpus.npz] [--steps 500] [--seed 0]

TRACKS is a folder of tracked GRID clips (`ditto.training.tracks`), BUNDLE the one whose speech encoder is used. A corpus of
`ditto.training.corpus` adds other voices: its `made` clips, lips that were generated for speech without a face.

It serves two ends: to drop footage whose sound does not belong to the picture, and to choose between checkpoints. Never
report its scores as a result: it knows few faces, sees no pixels, and ditto's own encoder is its ear. What a viewer sees is
measured by `benchmarks.lips` and by networks that others trained. To use it takes no torch; `ditto.training.sync_training`
trains it.

Two towers of temporal convolutions give 64 numbers a frame, of unit length: one from the lips of 13 frames, one from the
speech features of the same frames. In training the lips of a frame have to be told from those of all other frames of the
batch by their speech, and the other way round: other moments of the same clip, and other clips. Sources: SyncNet (Chung and
Zisserman, "Out of time: automated lip sync in the wild", 2016: two towers, offset and confidence), contrastive predictive
coding (Oord et al., arXiv:1807.03748, eq. 4: the loss).
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.bundle import read_tensors
from ditto.commands import Arguments, run, whole_number
from ditto.errors import BundleError, DittoError, InputError
from ditto.lite.speech_encoder import FEATURE_SIZE, SpeechEncoder
from ditto.media.files import check_output_file
from ditto.media.rates import FPS, SAMPLES_PER_FRAME
from ditto.motion.motion import EXPRESSION, INNER_LIPS, KEYPOINTS, MOUTH_CORNERS, Keypoint
from ditto.portrait.face_mesh import SELECTOR, fit_head
from ditto.training.motion_data import fill_gaps, grid_stems
from ditto.training.prepare.clips import features_of
from ditto.training.prepare.lip_sync import MOST_OFFSET, Heard
from ditto.training.smoothing import gaussian

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

WEIGHTS = Path(__file__).with_name("sync.safetensors")

# Lips.
NUMBERS = 7  # of `lip_numbers`
SLOW_FRAMES = 12.0  # what changes more slowly than this is posture and expression, not speech
LEAST_SPREAD = 0.002  # fu: the tracker's noise; lips that move less are not blown up

# Network.
EMBEDDING = 64
LAYERS, KERNEL = 3, 5
CONTEXT = LAYERS * (KERNEL - 1)  # frames that the convolutions take: 13 frames give one

STEPS = 500

class Pair(NamedTuple):
    """Lips (T, 7) of `lip_numbers` and speech features (T, 368) of the same frames."""

    lips: Array
    features: Array


class Offset(NamedTuple):
    """By how many frames the sound is late, and how far that similarity stands out: best less median over all offsets."""

    frames: int
    confidence: float


def lip_numbers(faces: npt.ArrayLike) -> Array:
    """Numbers of the lips, each without its slow part and in standard deviations of the clip.

    Args:
        faces: (T, 21, 3) keypoints or their changes, head frame, fu, 25 a second.

    Returns:
        (T, 7): opening, width; height of the upper inner, lower inner and upper outer lip, of the corners and the chin. Not
        how far the lips protrude: the tracker hardly sees that.

    Raises:
        ValueError: faces of another shape, or none.
    """
    f = np.asarray(faces, np.float64)
    if f.ndim != 3 or f.shape[1:] != (KEYPOINTS, 3) or not len(f):
        raise ValueError(f"expected faces (frames, {KEYPOINTS}, 3), got {f.shape}; give one frame or more")
    upper, lower = (f[:, k, 1] for k in INNER_LIPS)
    right, left = (f[:, k] for k in MOUTH_CORNERS)
    corners = (right[:, 1] + left[:, 1]) / 2
    outer, chin = f[:, Keypoint.UPPER_OUTER_LIP, 1], f[:, Keypoint.CHIN, 1]
    numbers = np.stack([lower - upper, left[:, 0] - right[:, 0], upper, lower, outer, corners, chin], 1)
    numbers -= gaussian(numbers, SLOW_FRAMES)
    found: Array = (numbers / np.maximum(numbers.std(0), LEAST_SPREAD)).astype(np.float32)
    return found


def lips_of_landmarks(landmarks: npt.ArrayLike) -> Array:
    """(T, 478, 3) pixels, no NaN, 25 a second -> (T, 7) of `lip_numbers`."""
    return lip_numbers(np.stack([SELECTOR @ fit_head(frame)[3] for frame in np.asarray(landmarks)]))


def gelu(x: Array) -> Array:
    """GELU by its tanh formula. Source: Hendrycks and Gimpel, arXiv:1606.08415."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))), np.float32)


def shapes() -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the weights."""
    found: dict[str, tuple[int, ...]] = {"mean": (FEATURE_SIZE,), "spread": (FEATURE_SIZE,)}
    for tower, channels in (("lips", NUMBERS), ("speech", FEATURE_SIZE)):
        found |= {f"{tower}.enter.weight": (EMBEDDING, channels, 1), f"{tower}.enter.bias": (EMBEDDING,)}
        for layer in range(LAYERS):
            found[f"{tower}.layers.{layer}.weight"] = (EMBEDDING, EMBEDDING, KERNEL)
            found[f"{tower}.layers.{layer}.bias"] = (EMBEDDING,)
    return found


class NetworkScorer:
    """Offset, confidence and score by the network; a scorer of `ditto train prepare` (`prepare.lip_sync.SyncScorer`).

    Args:
        weights: what `save` wrote; by default the file of the package.

    Raises:
        BundleError: the file is missing, or not of this network.
    """

    def __init__(self, weights: Path = WEIGHTS) -> None:
        self._weights = {name: values.astype(np.float32) for name, values in read_tensors(weights)}
        expected = shapes()
        got = {name: values.shape for name, values in self._weights.items()}
        if got != expected:
            unlike = sorted(n for n in expected.keys() | got.keys() if expected.get(n) != got.get(n))
            raise BundleError(
                f"expected the {len(expected)} tensors of ditto.training.sync in {weights}, got others: {', '.join(unlike)}; "
                "train it again, or get the package again"
            )

    def similarities(self, lips: npt.ArrayLike, features: npt.ArrayLike) -> Floats:
        """Mean similarity, -1 to 1, of lips and speech with the sound moved earlier by -M to M frames.

        Args:
            lips: (T, 7) of `lip_numbers`.
            features: (T + 2 M, 368), from M frames before the lips to M after them.

        Returns:
            (2 M + 1,).

        Raises:
            ValueError: arrays of other shapes.
        """
        seen, heard = np.asarray(lips, np.float32), np.asarray(features, np.float32)
        if seen.ndim != 2 or seen.shape[1] != NUMBERS or not len(seen):
            raise ValueError(f"expected lips (frames, {NUMBERS}), got {seen.shape}; give those of lip_numbers")
        twice = len(heard) - len(seen)
        if heard.ndim != 2 or heard.shape[1] != FEATURE_SIZE or twice < 0 or twice % 2:
            raise ValueError(
                f"expected features ({len(seen)} + 2 M, {FEATURE_SIZE}), got {heard.shape}; give M frames more on each side"
            )
        a = self._embed("lips", seen)
        b = self._embed("speech", (heard - self._weights["mean"]) / self._weights["spread"])
        return np.array([(a * b[place : place + len(a)]).sum(1).mean() for place in range(twice + 1)], np.float64)

    def _embed(self, tower: str, rows: Array) -> Array:
        """(T, C) -> (T, 64) of unit length; the ends are repeated. What `sync_training.Tower` does."""
        weights = {name.removeprefix(f"{tower}."): w for name, w in self._weights.items() if name.startswith(f"{tower}.")}
        x = np.pad(rows, ((CONTEXT // 2, CONTEXT // 2), (0, 0)), mode="edge")
        x = x @ weights["enter.weight"][..., 0].T + weights["enter.bias"]
        for layer in range(LAYERS):
            windows = np.lib.stride_tricks.sliding_window_view(gelu(x), KERNEL, 0)
            kernel = weights[f"layers.{layer}.weight"].reshape(EMBEDDING, -1)
            x = windows.reshape(len(windows), -1) @ kernel.T + weights[f"layers.{layer}.bias"]
        found: Array = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return found

    def offset(self, lips: npt.ArrayLike, features: npt.ArrayLike) -> Offset:
        """The offset at which lips (T, 7) and features (T + 2 M, 368) are most alike; see `similarities`."""
        found = self.similarities(lips, features)
        best = int(found.argmax())
        return Offset(best - len(found) // 2, float(found[best] - np.median(found)))

    def offset_and_confidence(self, clip: Heard) -> tuple[int, float]:
        """By how many frames the sound of a clip is late, and the confidence; see `offset`."""
        return self.offset(lips_of_landmarks(clip.landmarks), clip.features)

    def score(self, lips: npt.ArrayLike, features: npt.ArrayLike) -> float:
        """How far the similarity of lips (T, 7) and features (T, 368), as they are, stands out from other offsets.

        Higher is better. It compares checkpoints on the same clips; it is no measure of quality.
        """
        heard = np.asarray(features, np.float32)
        found = self.similarities(lips, np.pad(heard, ((MOST_OFFSET, MOST_OFFSET), (0, 0)), mode="edge"))
        return float(found[MOST_OFFSET] - np.median(found))


def speech_features(encoder: SpeechEncoder, samples: npt.ArrayLike) -> Array:
    """(N,) samples at 16 kHz, full scale 1 -> (N // 640, 368), as a stream that begins with this sound gives them."""
    sound = (np.clip(np.asarray(samples), -1.0, 1.0) * 32767).astype(np.int16)
    whole = len(sound) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
    return features_of(encoder, sound[:whole]) if whole else np.zeros((0, FEATURE_SIZE), np.float32)


def read_track(file: Path) -> tuple[Floats, Array]:
    """Landmarks (T, 478, 3) at 25 a second, gaps filled, and samples of a tracked clip; another frame rate is interpolated.

    Raises:
        InputError: not such a file, or the face is lost in a fifth of its frames or more.
    """
    try:
        with np.load(file, allow_pickle=False) as track:
            landmarks, samples, fps = fill_gaps(track["landmarks"]), track["samples"], float(track["fps"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"expected a tracked clip of ditto.training.tracks at {file}, got: {error}; track it again") from None
    at = np.arange(int(len(landmarks) / fps * FPS)) / FPS * fps
    first = np.clip(at.astype(np.int64), 0, max(len(landmarks) - 2, 0))
    share = (at - first)[:, None, None]
    return landmarks[first] * (1 - share) + landmarks[np.minimum(first + 1, len(landmarks) - 1)] * share, samples


def read_pairs(files: Iterable[Path], encoder: SpeechEncoder, features: Path | None = None) -> Iterator[Pair]:
    """Lips and features of tracked clips; one that `read_track` refuses is left out, with a line that says so.

    Args:
        features: folder with `NAME.npz` of clips whose features are known: the first array, (T, 368).
    """
    for file in files:
        try:
            landmarks, samples = read_track(file)
        except InputError as error:
            print(f"left out {file.stem}: {error}")
            continue
        known = features / f"{file.stem}.npz" if features else None
        if known and known.is_file():
            with np.load(known, allow_pickle=False) as arrays:
                heard = arrays[arrays.files[0]]
        else:
            heard = speech_features(encoder, samples).astype(np.float16)
        frames = min(len(landmarks), len(heard))
        yield Pair(lips_of_landmarks(landmarks)[:frames], heard[:frames])


def made_pairs(corpus: Path) -> list[Pair]:
    """The clips of a corpus file whose lips were generated.

    Raises:
        InputError: no such file.
    """
    try:
        with np.load(corpus, allow_pickle=False) as arrays:
            kind, lengths, features, motion = (arrays[k] for k in ("kind", "lengths", "features", "motion"))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"expected a corpus of ditto.training.corpus at {corpus}, got: {error}; make it again") from None
    ends = np.cumsum(lengths)
    faces = motion[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)
    places = [(end - length, end) for end, length, k in zip(ends, lengths, kind, strict=True) if k == "made"]
    return [Pair(lip_numbers(faces[a:b]), features[a:b]) for a, b in places]


def main() -> None:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("tracks", "bundle", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--corpus", type=Path, help="file of ditto.training.corpus, for other voices")
    parser.add_argument("--features", type=Path, help="folder of features that are known, NAME.npz")
    parser.add_argument("--steps", type=whole_number(1, 10**9), default=STEPS)
    parser.add_argument("--seed", type=whole_number(0, 2**63), default=0)
    options = parser.parse_args()
    check_output_file(options.out)
    try:
        import torch

        from ditto.training.sync_training import save, train
    except ImportError as error:
        parser.error(f"training needs torch ({error}); pip install 'ditto-talking-head[train]'")
    trained, _ = grid_stems(options.tracks)
    if not trained:
        parser.error(f"expected tracked clips in {options.tracks}, got none")
    try:
        encoder = SpeechEncoder(options.bundle)
        pools = [list(read_pairs((options.tracks / f"{s}.npz" for s in trained), encoder, options.features))]
        if options.corpus:
            pools.append(made_pairs(options.corpus))
        torch.set_num_threads(1)
        network = train(pools, options.steps, options.seed)
        clips = ", ".join(str(len(pool)) for pool in pools)
        save(network, options.out, {"made by": "ditto.training.sync", "steps": str(options.steps), "clips": clips})
    except (DittoError, ValueError) as error:
        parser.error(str(error))
    print(f"{options.out}: {os.path.getsize(options.out)} bytes")


if __name__ == "__main__":
    run(main)
