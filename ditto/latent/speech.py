"""Where the speech of a latent system comes from: lite's encoder, a mel encoder of its own, hidden layers of a HuBERT.

Each is a `SpeechSource`: rows of a stream (a `ditto.row_performer.Encoder`), rows of a clip in training, and what a bundle
says of it. Rows come 25 a second; a row holds one layer of numbers or several, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ditto.bundle import Bundle, Part, known_bundles
from ditto.errors import BundleError, InputError, NoBundleError
from ditto.full.networks.hubert import Hubert, HubertConfig
from ditto.full.networks.loading import build_part, load_part
from ditto.full.networks.streaming_hubert import HubertState, StreamingHubert
from ditto.full.sizes import ROWS_PER_FRAME
from ditto.latent.audio import FPS, SAMPLE_RATE, MelEncoder, layers_at_frames, mel_windows
from ditto.latent.config import from_json
from ditto.lite.speech_encoder import FEATURE_SIZE, SpeechEncoder
from ditto.media.rates import SAMPLES_PER_FRAME
from ditto.row_performer import Encoder

Floats = npt.NDArray[np.float32]
ClipRows = Callable[[npt.NDArray[np.int16], npt.NDArray[np.float16]], Tensor]

LITE, MEL, HUBERT = "lite_encoder", "mel_encoder", "hubert_layers"  # models of a bundle's part `audio`
ENCODER = "encoder", "hubert"  # part of a full bundle, and its model
MEL_STEP = 5  # frames of a hop: 16 whole mel frames, and the 0.2 s that a window looks ahead
MEL_HOP_SAMPLES = MEL_STEP * SAMPLE_RATE // FPS


class Speech(NamedTuple):
    """A speech encoder, and how many numbers a row of it has."""

    encoder: Encoder[Any]
    features: int


class SpeechSource(Protocol):
    """Where the speech of a generator comes from.

    Attributes:
        model: of the part `audio` of a bundle.
        sizes: a config, which that part has as JSON.
        audio_layers, audio_features: of a row that the generator gets: layers, and numbers of each.
        trained: makes these rows from those of a clip; it is trained with the generator, and a bundle has its weights. None:
            the rows of a clip are those of the generator.
    """

    @property
    def model(self) -> str: ...

    @property
    def sizes(self) -> Any: ...

    @property
    def audio_layers(self) -> int: ...

    @property
    def audio_features(self) -> int: ...

    @property
    def trained(self) -> MelEncoder | None: ...

    def open(self) -> Speech:
        """The encoder of streams.

        Raises:
            BundleError: it is not here, or another one.
        """

    def for_clips(self) -> ClipRows:
        """A function from a clip's sound (640 T,), int16 at 16 kHz, and lite's features (T, 368) of it, to its rows (T, n) in
        float32 or float16: those of a stream that begins with this sound.

        Raises:
            BundleError: as `open`.
        """


@dataclass(frozen=True)
class LiteConfig:
    """The streaming encoder of the lite bundle that this version ships: 368 numbers a frame, 80 ms behind the speech.

    Attributes:
        network: SHA-256 of its network; the generator was trained on the features of this one.
    """

    network: str

    model = LITE
    audio_layers = 1
    audio_features = FEATURE_SIZE
    trained = None

    @property
    def sizes(self) -> LiteConfig:
        return self

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

    def for_clips(self) -> ClipRows:
        """The features that clips keep."""
        return lambda sound, features: torch.from_numpy(features).float()


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


@dataclass(frozen=True, eq=False)
class MelSource:
    """A `MelEncoder`, which is trained with the generator. Rows of a clip are its mel windows, flat, in float16.

    Attributes:
        trained: the encoder.
    """

    trained: MelEncoder

    model = MEL
    audio_layers = 1

    @classmethod
    def new(cls, config: MelConfig, seed: int) -> MelSource:
        """One with new weights; the same seed gives the same ones."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config.network())

    @property
    def sizes(self) -> MelConfig:
        return MelConfig.of(self.trained)

    @property
    def audio_features(self) -> int:
        return self.trained.output.out_features

    def open(self) -> Speech:
        return Speech(MelSpeech(self.trained), self.audio_features)

    def for_clips(self) -> ClipRows:
        return lambda sound, features: mel_windows(_samples(sound)[None])[0].flatten(1).half()


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


@dataclass(frozen=True)
class HubertLayers:
    """Hidden layers of the HuBERT of a full bundle, run as a stream (`StreamingHubert`), by PyTorch.

    Attributes:
        bundle: name or absolute path of the bundle, where the encoder is looked for.
        encoder: SHA-256 of its weights; the generator was trained on the features of this one.
        layers: which ones, from 1; the last one after the encoder's last norm.
        audio_features: numbers of a layer.

    Raises:
        InputError: layers that do not rise from 1 or more, or none.
    """

    bundle: str
    encoder: str
    layers: tuple[int, ...]
    audio_features: int

    model = HUBERT
    trained = None

    def __post_init__(self) -> None:
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 1:
            found = ", ".join(map(str, self.layers)) or "none"
            raise InputError(f"expected layers that rise from 1 or more, got {found}; give some as 4,8,12")

    @classmethod
    def of(cls, name: str, layers: Sequence[int] | None = None) -> HubertLayers:
        """Those of a bundle by name or folder.

        Args:
            layers: all by default.

        Raises:
            NoBundleError: no such bundle.
            InputError: one without a HuBERT that PyTorch can run, or without these layers.
            BundleError: a damaged one.
        """
        bundle = Bundle.open(name)
        part = hubert_of(bundle)
        config = cast(Hubert, build_part(part)).config
        layers = tuple(layers) if layers is not None else tuple(range(1, config.layers + 1))
        known = name if name in known_bundles() else str(bundle.path.resolve())
        source = cls(known, part.identity("weights"), layers, config.width)
        source._check(config)
        return source

    @property
    def sizes(self) -> HubertLayers:
        return self

    @property
    def audio_layers(self) -> int:
        return len(self.layers)

    def open(self) -> Speech:
        """The encoder.

        Raises:
            NoBundleError: its bundle is not there, or has no HuBERT, or another one.
            BundleError: its bundle is damaged.
            InputError: layers or a width that it does not have.
        """
        try:
            part = hubert_of(Bundle.open(self.bundle))
        except InputError as error:
            raise NoBundleError(
                f"expected the speech encoder {self.encoder[:12]}..., which the generator was trained with, in the bundle "
                f"{self.bundle!r}, got: {error}"
            ) from error
        if (found := part.identity("weights")) != self.encoder:
            raise NoBundleError(
                f"expected the speech encoder {self.encoder[:12]}..., which the generator was trained with, in the bundle "
                f"{self.bundle!r}, got {found[:12]}...; put the bundle of the training there"
            )
        hubert = _load(part)
        self._check(hubert.config)
        return Speech(HubertSpeech(StreamingHubert(hubert), self.layers), self.audio_layers * hubert.config.width)

    def for_clips(self) -> ClipRows:
        encoder = self.open().encoder

        def rows(sound: npt.NDArray[np.int16], features: npt.NDArray[np.float16]) -> Tensor:
            found = torch.from_numpy(stream_rows(encoder, _samples(sound).numpy())).half()
            if not found.isfinite().all():
                raise InputError(
                    f"expected hidden layers in the range of float16, got larger numbers in some of {self.layers}; give "
                    "other layers"
                )
            return found

        return rows

    def _check(self, config: HubertConfig) -> None:
        if self.layers[-1] > config.layers or self.audio_features != config.width:
            raise InputError(
                f"expected layers of 1 to {config.layers} and {config.width} numbers each of the encoder in {self.bundle}, "
                f"got {self.layers[-1]} and {self.audio_features}; give others"
            )


class HubertSpeech:
    """Hidden layers of a HuBERT over a stream, in units of 0.4 s, without lookahead.

    Args:
        layers: which ones, from 1; a row has them one after the other.
    """

    lead_features = 0

    def __init__(self, network: StreamingHubert, layers: Sequence[int]) -> None:
        self.network, self.layers, self.hop_samples = network.eval(), tuple(layers), network.samples

    def initial_state(self, batch: int) -> HubertState:
        """The state before the first sample."""
        return self.network.empty_state()

    @torch.no_grad()
    def step_batch(self, hops: Sequence[Floats], states: Sequence[HubertState]) -> list[tuple[Floats, HubertState]]:
        """For each stream the rows (10, layers x width) of this unit, and the state after it. One by one, so that a stream has
        the bits that it gets alone.
        """
        found = []
        for hop, state in zip(hops, states, strict=True):
            hidden, after = self.network.hidden(torch.from_numpy(hop)[None], state)
            chosen = torch.stack([hidden[layer - 1] for layer in self.layers], 1)
            rows = layers_at_frames(chosen, self.network.unit // ROWS_PER_FRAME)[0].flatten(1)
            found.append((rows.numpy(), after))
        return found


def hubert_of(bundle: Bundle) -> Part:
    """The HuBERT of a full bundle.

    Raises:
        InputError: there is none, or only a file for ONNX Runtime, which gives no hidden layers.
    """
    name, model = ENCODER
    part = bundle.parts.get(name)
    if part is None or part.model != model:
        found = "no encoder" if part is None else f"an encoder {part.model!r}"
        raise InputError(f"expected a bundle with a HuBERT (a full bundle), got {bundle.name!r} with {found}; give another")
    if "weights" not in part.files:
        raise InputError(
            f"expected weights of the HuBERT of {bundle.name!r} for PyTorch, got {', '.join(part.files) or 'no file'}, which "
            "gives no hidden layers; convert the bundle again"
        )
    return part


def _load(part: Part) -> Hubert:
    """Raises BundleError: weights are missing, damaged or do not fit."""
    part.verify("weights")
    return cast(Hubert, load_part(part))


def source_of(model: str, words: object, load: Callable[[MelConfig], MelEncoder]) -> SpeechSource:
    """A source as a bundle or a training describes it.

    Args:
        model, words: of the part `audio`.
        load: gives the mel encoder of these sizes, with its weights.

    Raises:
        InputError: an unknown model, or numbers that are wrong.
    """
    if model == LITE:
        return from_json(LiteConfig, words)
    if model == HUBERT:
        return from_json(HubertLayers, words)
    if model == MEL:
        return MelSource(load(from_json(MelConfig, words)))
    raise InputError(f"expected speech of {LITE}, {MEL} or {HUBERT}, got {model!r}; train it again")


def stream_rows(encoder: Encoder[Any], samples: Floats) -> Floats:
    """The rows (T, n) of the T frames of speech (640 T,), as a stream that begins with it gives them, bit for bit."""
    frames, hop = len(samples) // SAMPLES_PER_FRAME, encoder.hop_samples
    hops = -(-(frames + encoder.lead_features) * SAMPLES_PER_FRAME // hop)
    padded = np.zeros((hops, hop), np.float32)
    padded.reshape(-1)[: len(samples)] = samples
    state, rows = encoder.initial_state(1), list[Floats]()
    for piece in padded:
        ((found, state),) = encoder.step_batch([piece], [state])
        rows.append(found)
    return np.concatenate(rows)[encoder.lead_features :][:frames]


def _samples(sound: npt.NDArray[np.int16]) -> Tensor:
    """int16 -> float32 in [-1, 1)."""
    return torch.from_numpy(sound.astype(np.float32) / np.float32(32768))
