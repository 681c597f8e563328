"""Which blocks of sound are voice: the same answer for a face that listens and for an open microphone."""

import numpy as np
import pytest

from ditto.live.server.microphone import VoiceGate
from ditto.media.voice import FLOOR_SECONDS, VoiceDetector
from ditto.motion.listening import Listener


def levels(detector, *steps):
    """What it says of each block; steps are (seconds, dB of full scale)."""
    return [[detector.is_voice(level) for _ in range(round(seconds * 25))] for seconds, level in steps]


@pytest.mark.parametrize("noise", [-100.0, -60.0, -40.0, -20.0])
def test_voice_is_what_rises_over_the_noise_of_the_last_seconds(noise):
    learned, room, voice, after = levels(
        VoiceDetector(25), (FLOOR_SECONDS, noise), (2, noise), (1, max(noise + 10.0, -51.0)), (1, noise)
    )
    assert not any(room) and all(voice) and not any(after)
    assert all(learned[:-1]) if noise > -51.0 else not any(learned)


def test_a_microphone_learns_a_new_noise_as_soon_as_a_listening_face_does():
    rate, seconds = 16000, 12
    random = np.random.default_rng(0)
    sound = np.concatenate(
        [level * random.standard_normal(n * rate) for level, n in ((1e-4, 2), (0.02, seconds))]
    ).astype(np.float32)
    gate, listener = VoiceGate(rate), Listener()
    pieces = gate.push(sound)
    opened = sum(len(piece) for piece in pieces if piece is not None) / rate
    assert pieces[-1] is None and opened < FLOOR_SECONDS + 2  # the closing pause and what led up to it included
    listener.push(sound[-10 * rate :])
    attention = [listener.react().attention for _ in range(10 * 25)]
    assert max(attention) > 0.5 and attention[-1] < 0.05
