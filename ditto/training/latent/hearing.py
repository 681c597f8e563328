"""The speech that a generator is trained with: by what a user names it, trained beside the generator, kept beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from ditto.errors import BundleError, InputError
from ditto.latent.audio import MEL_BANDS, MEL_FRAMES, MelEncoder
from ditto.latent.config import to_json
from ditto.latent.loading import load_network
from ditto.latent.speech import (
    HubertLayers,
    LiteConfig,
    MelConfig,
    MelSource,
    SpeechSource,
    shipped_encoder,
    source_of,
)
from ditto.training.dataset import write_bytes
from ditto.training.latent.loop import Objective, Terms

AUDIO = "audio.safetensors"  # weights of an encoder that was trained with the generator beside which it lies


def speech_named(name: str, layers: str | None, stacks: bool, seed: int) -> SpeechSource:
    """The speech that a user names.

    Args:
        name: "lite", "mel", or a bundle with a HuBERT, by name or folder.
        layers: of the HuBERT, as "4,8,12"; None: all if the generator `stacks` layers, else the last one.
        seed: of the weights of a new encoder.

    Raises:
        InputError: layers that cannot be, or for an encoder without.
        NoBundleError: no bundle of this name.
        BundleError: a damaged one.
    """
    if name in ("lite", "mel"):
        if layers is not None:
            raise InputError(f"expected layers with a bundle of a HuBERT alone, got {layers!r} with {name}; leave them out")
        return LiteConfig(shipped_encoder()) if name == "lite" else MelSource.new(MelConfig(), seed)
    try:
        chosen = None if layers is None else [int(layer) for layer in layers.split(",")]
    except ValueError:
        raise InputError(f"expected numbers of layers as 4,8,12, got {layers!r}; correct them") from None
    source = HubertLayers.of(name, chosen)
    return source if stacks or layers is not None else replace(source, layers=source.layers[-1:])


class Hearing(nn.Module):
    """A generator, and the encoder of its speech, which is trained with it."""

    def __init__(self, generator: nn.Module, speech: MelEncoder) -> None:
        super().__init__()
        self.generator, self.speech = generator, speech

    def hear(self, rows: Tensor) -> Tensor:
        """Rows of clips (..., 1280), mel windows, to rows of speech (..., width)."""
        found: Tensor = self.speech(rows.float().unflatten(-1, (MEL_BANDS, MEL_FRAMES)))
        return found


class HearingObjective(Objective):
    """The loss of a generator on what an encoder makes of the clips' rows; gradients reach both.

    Args:
        objective: of the generator; its batches have `given.audio`.
        speech: the encoder.
    """

    network: Hearing

    def __init__(self, objective: Objective, speech: MelEncoder) -> None:
        super().__init__()
        self.objective, self.network = objective, Hearing(objective.network, speech)

    def begin(self, stage: int) -> None:
        self.objective.begin(stage)

    def forward(self, batch: Any) -> Terms:
        heard = self.network.hear(batch.given.audio)
        terms: Terms = self.objective(batch._replace(given=batch.given._replace(audio=heard)))
        return terms


def audio_words(speech: SpeechSource) -> dict[str, Any]:
    """What a run says of its speech."""
    return {"model": speech.model, "sizes": to_json(speech.sizes)}


def write_audio(folder: Path, speech: SpeechSource) -> None:
    """Write the weights that were trained with the generator, if any. Raises OutputError."""
    if speech.trained is not None:
        weights = {key: value.detach().cpu().contiguous() for key, value in speech.trained.state_dict().items()}
        write_bytes(folder / AUDIO, save(weights))


def read_audio(folder: Path, words: Any) -> SpeechSource:
    """The speech of a trained generator.

    Args:
        words: of `audio_words`, as its description has them.

    Raises:
        BundleError: they cannot be, or weights are missing or damaged.
    """

    def load(sizes: MelConfig) -> MelEncoder:
        return load_network(MelConfig.network, sizes, folder / AUDIO).requires_grad_(False)

    try:
        return source_of(words["model"], words["sizes"], load)
    except Exception as error:  # safetensors and torch raise errors of their own
        reason = " ".join(str(error).split())[:200]
        raise BundleError(f"expected the speech of the generator in {folder}, got: {reason}; train it again") from error
