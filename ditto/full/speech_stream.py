"""Streaming HuBERT: units of 0.4 s and a cache of past rows, as in the paper. The released code has no such encoder.

D: width of a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.media.rates import SAMPLES_PER_FRAME

Array = npt.NDArray[np.float32]
State = Mapping[str, npt.NDArray[np.float32]]  # fields of `HubertState` as "state.keys"


class CachedEncoder:
    """Speech in units -> features of the whole unit, without lookahead.

    `features, state = encoder(samples, state)`.

    Args:
        network: engine of `ditto.full.networks.streaming_hubert.StreamingHubert`: samples (1, N), state.* -> rows (1, R, D),
            next_state.*; two rows a feature.
        initial: state at the start of a stream.
        hop_samples: N.
    """

    lead_features = 0  # features before the start of the stream, at the head of the first outputs
    lookahead = 0  # frames

    def __init__(
        self, network: Callable[..., Mapping[str, npt.NDArray[Any]]], initial: State, hop_samples: int
    ) -> None:
        self._network = network
        self._initial = dict(initial)
        self.hop_samples = hop_samples
        self.hop_features = hop_samples // SAMPLES_PER_FRAME

    def initial_state(self, batch: int = 1) -> State:
        """The state at the start of a stream.

        Raises:
            ValueError: a batch other than 1.
        """
        if batch != 1:
            raise ValueError(f"expected a batch of 1, got {batch}; make one state for each stream")
        return self._initial

    def __call__(self, samples: npt.ArrayLike, state: State) -> tuple[Array, State]:
        """Features (1, n, D) of a unit (1, N) of samples.

        Raises:
            ValueError: samples are not exactly one unit.
        """
        unit = np.ascontiguousarray(samples, np.float32)
        if unit.shape != (1, self.hop_samples):
            raise ValueError(
                f"expected samples (1, {self.hop_samples}), got {unit.shape}; let Stream buffer, or pad with zeros"
            )
        found = dict(self._network(samples=unit, **state))
        rows = np.asarray(found.pop("rows"), np.float32)
        features = (rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.5)
        return features, {name.removeprefix("next_"): value for name, value in found.items()}

    def step_batch(self, hops: Sequence[npt.ArrayLike], states: Sequence[State]) -> list[tuple[Array, State]]:
        """A unit (N,) of each of several streams -> features (n, D) and next state of each, as from a call for it alone."""
        answers = [self(np.asarray(hop)[None], state) for hop, state in zip(hops, states, strict=True)]
        return [(features[0], state) for features, state in answers]
