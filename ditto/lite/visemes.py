"""Visemes of a recording, as ditto's speech encoder hears it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from ditto.exchange.visemes import Viseme, visemes_of_phones
from ditto.lite.phones import PHONES
from ditto.lite.speech_encoder import HOP_SAMPLES, SpeechEncoder
from ditto.media.rates import SAMPLE_RATE

Array = npt.NDArray[np.float32]

TOKENS_PER_FEATURE = 2


def phones_heard(
    encoder: SpeechEncoder, blocks: Iterable[Array], check: Callable[[], None] = lambda: None
) -> tuple[Array, float]:
    """Probabilities (N, 40) of the phones of a recording, a token each 20 ms, and its length in seconds.

    Args:
        blocks: samples (n,) at 16 kHz, one after another.
        check: called now and then; may raise.
    """
    state = encoder.initial_state()
    waiting = np.zeros(0, np.float32)
    samples, phones = 0, []

    def take(hop: Array) -> None:
        nonlocal state
        check()
        features, state = encoder(hop[None], state)
        phones.append(features[0, :, -TOKENS_PER_FEATURE * len(PHONES) :])

    for block in blocks:
        samples += block.size
        waiting = np.concatenate([waiting, block])
        while waiting.size >= HOP_SAMPLES:
            take(waiting[:HOP_SAMPLES])
            waiting = waiting[HOP_SAMPLES:]
    take(np.pad(waiting, (0, HOP_SAMPLES - waiting.size)))
    take(np.zeros(HOP_SAMPLES, np.float32))  # the encoder hears a hop ahead
    tokens = np.concatenate(phones[1:]).reshape(-1, len(PHONES))  # the first hop's lie before the recording
    seconds = samples / SAMPLE_RATE
    return tokens[: int(np.ceil(seconds * 50))], seconds


def visemes_of(
    encoder: SpeechEncoder, blocks: Iterable[Array], check: Callable[[], None] = lambda: None
) -> list[Viseme]:
    """The visemes of a recording, from its beginning to its end without gaps. Arguments as of `phones_heard`."""
    tokens, seconds = phones_heard(encoder, blocks, check)
    found = visemes_of_phones(tokens, PHONES)
    return [*found[:-1], found[-1]._replace(end=seconds)] if found else []
