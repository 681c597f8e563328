"""The speech encoder at run time: a bundle's encoder.onnx with the state it starts from. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto.bundle import read_tensors
from ditto.engines import open_engine
from ditto.engines.batched import BatchedEngine
from ditto.errors import BundleError
from ditto.lite.phones import PHONES
from ditto.media.audio import HOP_SAMPLES as HOP_SAMPLES
from ditto.media.rates import SAMPLES_PER_FRAME

FRAMES_PER_HOP = HOP_SAMPLES // SAMPLES_PER_FRAME  # 2
HIDDEN_SIZE = 288  # width of the network
FEATURE_SIZE = HIDDEN_SIZE + 2 * len(PHONES)  # 368: hidden | phone probabilities of the first 50 Hz token | of the second

Floats = npt.NDArray[np.float32]
SpeechState = dict[str, Floats]
CACHE = {"state.keys": -1, "state.values": -2}  # arrays (B, layers, heads, ..., ...) -> axis of the tokens


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
        initial = {
            "state." + name.removeprefix("initial."): values.astype(np.float32)
            for name, values in read_tensors(weights, "initial.")
        }
        self._small = sorted(initial.keys() - CACHE.keys())  # arrays of the state that are inputs as they are
        self._layers = range(initial["state.keys"].shape[1] if "state.keys" in initial else 0)
        inputs = {tensor.name: tensor.shape for tensor in self._engine.inputs}
        expected = {"samples", *self._small, *(f"{name}.{layer}" for name in CACHE for layer in self._layers)}
        if not self._layers or inputs.keys() != expected:
            raise BundleError(
                f"expected a network with the inputs {sorted(expected)} beside {weights}, got {sorted(inputs)}; get the "
                "bundle again, or export it again (python -m ditto.training.export_encoder)"
            )
        heads, size = (int(length) for length in inputs["state.keys.0"][1:3])
        for name in CACHE:  # (1, layers, left, heads * size) in the file
            rows = initial[name].reshape(*initial[name].shape[:3], heads, size).transpose(0, 1, 3, 2, 4)
            initial[name] = np.ascontiguousarray(rows.swapaxes(-1, -2) if name == "state.keys" else rows)
        self._initial = initial

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
        features, (following,) = self._step(hop, [state])
        return features, following

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
            raise ValueError(
                f"expected hops ({HOP_SAMPLES},) and as many states, got {shapes} and {len(states)} states; give one hop and "
                "one state for each stream"
            )
        if any(len(value) != 1 for state in states for value in state.values()):
            raise ValueError("expected states of one row each, got states of several rows; call the encoder for each of those")
        if not hops:
            return []
        features, following = self._step(np.stack(hops).astype(np.float32, copy=False), states)
        return list(zip(features, following, strict=True))

    def _step(self, hops: Floats, states: Sequence[SpeechState]) -> tuple[Floats, list[SpeechState]]:
        """Features of all rows (B, 1280), which are those of the states one after another, and the next state of each."""
        inputs = {name: joined([state[name] for state in states]) for name in self._small}
        for name in CACHE:
            for layer in self._layers:
                inputs[f"{name}.{layer}"] = joined([state[name][:, layer] for state in states])
        found = self._engine(samples=hops, **inputs)
        following, start = [], 0
        for state in states:
            end = start + len(state["state.keys"])
            following.append({name: found[f"next_{name}"][start:end].copy() for name in self._small})
            for name, axis in CACHE.items():
                new = found[name.replace("state", "new")][start:end]
                _, kept = np.split(state[name], [new.shape[axis]], axis)
                following[-1][name] = np.concatenate([kept, new], axis)
            start = end
        return found["features"], following


def joined(rows: list[Floats]) -> Floats:
    """Rows of several states as one batch; those of one as they are."""
    return np.ascontiguousarray(rows[0]) if len(rows) == 1 else np.concatenate(rows)
