"""Speech of many streams to the features of a latent system, 25 rows a second: a `ditto.row_performer.Encoder`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ditto.bundle import Bundle
from ditto.errors import BundleError, InputError
from ditto.latent.audio import FPS, SAMPLE_RATE, MelEncoder, mel_windows
from ditto.lite.speech_encoder import FEATURE_SIZE, SpeechEncoder
from ditto.row_performer import Encoder

Floats = npt.NDArray[np.float32]

MEL_STEP = 5  # frames of a hop: 16 whole mel frames, and the 0.2 s that a window looks ahead
MEL_HOP_SAMPLES = MEL_STEP * SAMPLE_RATE // FPS


class Speech(NamedTuple):
    """A speech encoder, and how many numbers a row of it has."""

    encoder: Encoder[Any]
    features: int


@dataclass(frozen=True)
class LiteConfig:
    """The streaming encoder of the lite bundle that this version ships: 368 numbers a frame, 80 ms behind the speech.

    Attributes:
        network: SHA-256 of its network; the generator was trained on the features of this one.
    """

    network: str

    def open(self) -> Speech:
        """The encoder.

        Raises:
            BundleError: the shipped encoder is another one.
        """
        shipped = shipped_encoder()
        if shipped != self.network:
            raise BundleError(
                f"expected the speech encoder {self.network[:12]}..., which the bundle was trained with, got "
                f"{shipped[:12]}... in this version of ditto; use the version of the bundle, or train it again"
            )
        return Speech(SpeechEncoder(Bundle.open("lite").path), FEATURE_SIZE)


def shipped_encoder() -> str:
    """SHA-256 that the network of the shipped speech encoder is known by (`Part.identity`)."""
    return Bundle.open("lite").part("encoder").identity("network")


@dataclass(frozen=True)
class MelConfig:
    """Sizes of a `MelEncoder`.

    Attributes:
        width: numbers of a row.
        channels: of its convolutions.

    Raises:
        InputError: a number below 1, or no convolution.
    """

    width: int = 512
    channels: tuple[int, ...] = (32, 64, 128, 256)

    def __post_init__(self) -> None:
        if not self.channels or min(self.width, *self.channels) < 1:
            raise InputError(f"expected a width and channels of 1 or more, got {self.width} and {self.channels}; give others")

    @classmethod
    def of(cls, network: MelEncoder) -> MelConfig:
        """Those of an encoder."""
        sizes = [layer.out_channels for layer in network.convolutions if isinstance(layer, nn.Conv2d)]
        return cls(network.output.out_features, tuple(sizes))

    def network(self) -> MelEncoder:
        """The encoder, untrained."""
        return MelEncoder(self.width, self.channels)


class MelSpeech:
    """A `MelEncoder` over a stream, in hops of five frames, one hop behind it. It gives what the whole speech gives."""

    hop_samples = MEL_HOP_SAMPLES
    lead_features = MEL_STEP

    def __init__(self, network: MelEncoder) -> None:
        self.network = network.eval()

    def initial_state(self, batch: int) -> Floats:
        """The two hops before the first: silence."""
        return np.zeros(2 * MEL_HOP_SAMPLES, np.float32)

    @torch.no_grad()
    def step_batch(self, hops: Sequence[Floats], states: Sequence[Floats]) -> list[tuple[Floats, Floats]]:
        """For each stream the rows (5, features) of the hop before this one, and its last two hops."""
        found = []
        for hop, state in zip(hops, states, strict=True):
            heard = np.concatenate([state, hop])
            windows = mel_windows(torch.from_numpy(heard)[None])[:, MEL_STEP : 2 * MEL_STEP]
            found.append((self.network(windows)[0].numpy(), heard[MEL_HOP_SAMPLES:]))
        return found
