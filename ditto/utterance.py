"""Utterance: speech on its way to motion, one step at a time, so that several can take each step together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.audio import SAMPLE_RATE
from ditto.motion import FPS
from ditto.portrait import Portrait
from ditto.sampling import Job, MotionSampler
from ditto.speech import HOP_SAMPLES, SpeechEncoder

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

    def __init__(self, encoder: SpeechEncoder, sampler: MotionSampler, portrait: Portrait, seed: int) -> None:
        self.sampler = sampler
        self.encoder_state: Any = encoder.initial_state(1)
        self.samples = 0
        self.rows = 0
        self._sampler_state: Any = sampler.initial_state(portrait.canonical_keypoints, portrait.eye_open, seed)
        self._waiting = np.zeros(0, np.float32)  # samples the encoder has not taken yet
        self._hops = 0
        self._features = 0
        self._wanted: int | None = None  # rows in all, once that is known

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
        """(1280,) the next samples for the encoder, silence after the end; None while there are too few."""
        if self._waiting.size >= HOP_SAMPLES:
            return self._waiting[:HOP_SAMPLES]
        if self._wanted is None or self._features >= self._wanted:
            return None
        return np.pad(self._waiting, (0, HOP_SAMPLES - self._waiting.size))

    def heard(self, features: Array, encoder_state: Any, emotion: Array) -> Job | None:
        """The sampler's job for the features (2, 368) of the last hop; None for those that lie before the speech."""
        self.encoder_state = encoder_state
        self._waiting = self._waiting[HOP_SAMPLES:]
        self._hops += 1
        if self._hops == 1:  # the encoder looks one hop ahead
            return None
        if self._wanted is not None:
            features = features[: self._wanted - self._features]
        self._features += len(features)
        return Job(features, emotion, self._sampler_state, final=self._features == self._wanted)

    def moved(self, rows: Array, sampler_state: Any) -> Array:
        """The rows (n, 70), counted."""
        self._sampler_state = sampler_state
        self.rows += len(rows)
        return rows
