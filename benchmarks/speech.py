"""Speech for the benchmarks: recordings, phone alignments, and what the encoder hears."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._report import ROOT
from benchmarks.faces import SHARED
from benchmarks.measures import Segment
from ditto.errors import InputError
from ditto.lite.phones import PHONES
from ditto.lite.speech_encoder import HOP_SAMPLES

Floats = npt.NDArray[np.float64]
Samples = npt.NDArray[np.float32]


def example_speech() -> Path:
    """The recording in examples/; in a checkout without one, a public-domain reading among the shared data."""
    for path in sorted((ROOT / "examples").glob("speech.*")):
        return path
    return SHARED / "speech" / "two_cities_16k.flac"


def read_speech(path: Path) -> Samples:
    """All of a recording, (N,) mono at 16 kHz."""
    from ditto.media.audio import AudioReader

    return np.concatenate(list(AudioReader(path))).astype(np.float32)


def phone_posteriors(encoder: Any, samples: Samples) -> Floats:
    """(2 T, 40) phone probabilities at 50 Hz, heard hop by hop as a stream does."""
    hops = -(-len(samples) // HOP_SAMPLES)
    padded = np.zeros((hops + 1) * HOP_SAMPLES, np.float32)  # the encoder looks one hop ahead
    padded[: len(samples)] = samples
    state, rows = encoder.initial_state(1), []
    for hop in padded.reshape(-1, HOP_SAMPLES):
        features, state = encoder(hop[None], state)
        rows.append(np.asarray(features)[0])
    features = np.concatenate(rows[1:])
    return np.asarray(features[:, -2 * len(PHONES) :].reshape(-1, len(PHONES)), np.float64)


def load_alignments(folder: Path) -> dict[Path, list[Segment]]:
    """Recording -> phone segments, from the folder's alignments.json. Raises InputError: there is none."""
    file = folder / "alignments.json"
    try:
        aligned = json.loads(file.read_text())
        return {folder / f"{name}.flac": [tuple(s) for s in entry["segs"]] for name, entry in sorted(aligned.items())}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f"expected phone segments in {file}, got: {error}; give another folder with --data") from None
