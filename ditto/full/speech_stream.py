"""HuBERT with a memory: units of 0.4 s as they come, as the paper describes it and the released code does not do it.

D: width of a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
State = Mapping[str, npt.NDArray[Any]]


class CachedEncoder:
    """Speech in units -> features, all of them at once, without look-ahead.

    `features, state = encoder(samples, state)`.

    Args:
        network: engine of `ditto.full.networks.streaming_hubert.StreamingHubert`: samples (1, N), state.* -> rows (1, R, D),
            next_state.*; two rows a feature.
        initial: what a stream starts from, as after hearing some fixed speech.
        hop_samples: N.
    """

    lead_features = 0  # rows of the first answers that lie before the stream
    look_ahead = 0  # frames

    def __init__(
        self, network: Callable[..., Mapping[str, npt.NDArray[Any]]], initial: State, hop_samples: int
    ) -> None:
        self._network = network
        self._initial = dict(initial)
        self.hop_samples = hop_samples
        self.hop_features = hop_samples // 640

    def initial_state(self, batch: int = 1) -> State:
        """What a stream starts from.

        Raises:
            ValueError: more than one stream; each has a state of its own.
        """
        if batch != 1:
            raise ValueError(f"a state is of one stream, got a batch of {batch}; make one for each")
        return self._initial

    def __call__(self, samples: npt.ArrayLike, state: State) -> tuple[Array, State]:
        """Features (1, n, D) of a unit (1, N) of samples.

        Raises:
            ValueError: samples are not one unit.
        """
        unit = np.ascontiguousarray(samples, np.float32)
        if unit.shape != (1, self.hop_samples):
            raise ValueError(
                f"the encoder takes (1, {self.hop_samples}) samples, got {unit.shape}; let Stream buffer, or pad with zeros"
            )
        found = dict(self._network(samples=unit, **state))
        rows = np.asarray(found.pop("rows"), np.float32)
        features = (rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.5)
        return features, {name.removeprefix("next_"): value for name, value in found.items()}

    def step_batch(self, hops: Sequence[npt.ArrayLike], states: Sequence[State]) -> list[tuple[Array, State]]:
        """A unit (N,) of each of several streams; each gets what a call of its own gives: features (n, D), state."""
        answers = [self(np.asarray(hop)[None], state) for hop, state in zip(hops, states, strict=True)]
        return [(features[0], state) for features, state in answers]
