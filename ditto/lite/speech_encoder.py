"""The speech encoder at run time: a bundle's encoder.onnx with the state it starts from. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto.bundle import read_tensors
from ditto.engines import open_engine
from ditto.engines.batched import BatchedEngine, cut, join
from ditto.errors import BundleError
from ditto.lite.phones import PHONES
from ditto.media.audio import HOP_SAMPLES as HOP_SAMPLES
from ditto.media.rates import SAMPLES_PER_FRAME

FRAMES_PER_HOP = HOP_SAMPLES // SAMPLES_PER_FRAME  # 2
HIDDEN_SIZE = 288  # width of the network
FEATURE_SIZE = HIDDEN_SIZE + 2 * len(PHONES)  # 368: hidden | phone probabilities of the first 50 Hz token | of the second

Floats = npt.NDArray[np.float32]
SpeechState = dict[str, Floats]


class SpeechEncoder:
    """Speech in hops of 80 ms -> two feature rows of 40 ms each.

    `features, state = encoder(samples, state)`. The call that takes samples [1280 k, 1280 (k + 1)) gives the features
    of frames 2 (k - 1) and 2 (k - 1) + 1. The first call's lie before the stream; one more hop of zeros gives the last.

    Args:
        folder: Bundle folder with encoder.onnx and encoder.safetensors.

    A row's result depends on its samples and state alone: not on the calls before, and not on the rows beside it.

    Raises:
        BundleError: a file is missing or cannot be read.
        EngineError: ONNX Runtime refuses the network.
    """

    hop_samples = HOP_SAMPLES
    lead_features = FRAMES_PER_HOP  # rows of the first results that lie before the stream: the look-ahead is one hop

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        network, weights = folder / "encoder.onnx", folder / "encoder.safetensors"
        for path in (network, weights):
            if not path.is_file():
                raise BundleError(
                    f"expected encoder.onnx and encoder.safetensors in {folder}, {path.name} is missing; get the bundle again"
                )
        self._engine = BatchedEngine(open_engine(network, threads=1))
        self._initial = {
            "state." + name.removeprefix("initial."): values.astype(np.float32)
            for name, values in read_tensors(weights, "initial.")
        }
        expected = {tensor.name for tensor in self._engine.inputs} - {"samples"}
        if set(self._initial) != expected:
            raise BundleError(
                f"expected an initial state of {sorted(expected)} in {weights}, got {sorted(self._initial)}; "
                "get the bundle again"
            )

    def initial_state(self, batch: int = 1) -> SpeechState:
        """The state a stream starts from: as after a few seconds of other speech, but with no level measured yet."""
        return {name: np.repeat(value, batch, axis=0) for name, value in self._initial.items()}

    def __call__(self, samples: npt.ArrayLike, state: SpeechState) -> tuple[Floats, SpeechState]:
        """Features of the hop before this one.

        Args:
            samples: (B, 1280) float32, full scale 1.
            state: From `initial_state` or the call before.

        Returns:
            (B, 2, 368) and the next state.

        Raises:
            ValueError: samples are not one hop a row.
        """
        hop = np.ascontiguousarray(samples, np.float32)
        if hop.ndim != 2 or hop.shape[1] != HOP_SAMPLES:
            raise ValueError(
                f"expected samples (batch, {HOP_SAMPLES}), got {hop.shape}; "
                "let Stream buffer, or pad with zeros"
            )
        found = self._engine(samples=hop, **state)
        return found.pop("features"), {name.removeprefix("next_"): value for name, value in found.items()}

    def step_batch(self, hops: Sequence[npt.ArrayLike], states: Sequence[SpeechState]) -> list[tuple[Floats, SpeechState]]:
        """One hop of each of several streams, as one batch.

        Args:
            hops: (1280,) each.
            states: each stream's own, of one row.

        Returns:
            For each stream the result of a call of its own, bit for bit: features (2, 368) and the next state, a copy
            that does not keep the arrays of the other streams alive.

        Raises:
            ValueError: other than one hop and one state of one row for each stream.
        """
        shapes = [np.shape(hop) for hop in hops]
        if len(hops) != len(states) or any(shape != (HOP_SAMPLES,) for shape in shapes):
            raise ValueError(f"expected hops ({HOP_SAMPLES},) and as many states, got {shapes} and {len(states)} states")
        if any(len(value) != 1 for state in states for value in state.values()):
            raise ValueError("expected states of one row each, got states of several rows; call the encoder for each of those")
        if not hops:
            return []
        if len(hops) == 1:
            features, state = self(np.asarray(hops[0])[None], states[0])
            return [(features[0], state)]
        features, state = self(np.stack(hops), join(list(states)))
        rows = [{name: value.copy() for name, value in cut(state, i, 1).items()} for i in range(len(hops))]
        return list(zip(features, rows, strict=True))
