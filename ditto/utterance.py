"""Utterance: speech on its way to motion, one step at a time, so that several can take each step together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.audio import SAMPLE_RATE
from ditto.motion import FPS
from ditto.portrait import Portrait
from ditto.sampling import Job

SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 640

Array = npt.NDArray[np.float32]


class Utterance:
    """Samples in, rows of compact motion out; as many as ceil(samples / 640) once it has ended.

    The caller does the work: while there is a `hop`, the encoder answers it, `heard` makes a job for the sampler of the
    answer, and `moved` takes what the sampler made of the job. Each step is one call for any number of utterances
    (`SpeechEncoder.together`, `MotionSampler.together`).

    Attributes:
        encoder_state: what the encoder wants with the next hop.
        samples: taken so far.
        rows: of motion given out so far.
    """

    def __init__(self, encoder: Any, sampler: Any, portrait: Portrait, seed: int) -> None:
        self.sampler = sampler
        self.encoder_state: Any = encoder.initial_state(1)
        self.samples = 0
        self.rows = 0
        self._sampler_state: Any = sampler.begin(portrait, seed)
        self._hop = encoder.hop_samples
        self._lead = encoder.lead_features  # rows to come that lie before the speech
        self._waiting = np.zeros(0, np.float32)  # samples the encoder has not taken yet
        self._features = 0
        self._wanted: int | None = None  # rows in all, once that is known
        self._final = False  # whether the sampler knows that no more come

    def push(self, samples: Array) -> None:
        """Take checked samples (N,)."""
        self.samples += samples.size
        self._waiting = np.concatenate([self._waiting, samples])

    def end(self) -> None:
        """No more samples come."""
        self._wanted = -(-self.samples // SAMPLES_PER_FRAME)

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._wanted is not None

    @property
    def done(self) -> bool:
        """Whether it has ended and all its rows are out."""
        return self.rows == self._wanted

    def hop(self) -> Array | None:
        """The next samples for the encoder, a hop of them, silence after the end; None while there are too few."""
        if self._final:
            return None
        if self._waiting.size >= self._hop:
            return self._waiting[: self._hop]
        if not self._wanted:
            return None
        return np.pad(self._waiting, (0, self._hop - self._waiting.size))

    def heard(self, features: Array, encoder_state: Any, emotion: Array) -> Job | None:
        """The sampler's job for the features (n, D) of the last hop; None where it gives none of the speech."""
        self.encoder_state = encoder_state
        self._waiting = self._waiting[self._hop :]
        before = min(self._lead, len(features))
        self._lead -= before
        features = features[before:]
        if self._wanted is not None:
            features = features[: self._wanted - self._features]
        self._features += len(features)
        self._final = self._features == self._wanted
        return Job(features, emotion, self._sampler_state, self._final) if len(features) or self._final else None

    def moved(self, rows: Array, sampler_state: Any) -> Array:
        """The rows (n, 70), counted."""
        self._sampler_state = sampler_state
        self.rows += len(rows)
        return rows
