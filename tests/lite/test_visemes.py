"""Visemes of a recording."""

from itertools import pairwise

import numpy as np

from ditto.bundle import Bundle
from ditto.lite.speech_encoder import SpeechEncoder
from ditto.lite.visemes import visemes_of
from ditto.media.audio import read_audio


def test_the_example_is_heard_and_covered_to_its_end():
    speech = read_audio("examples/speech.flac")[: 16000 * 4 + 123]
    encoder = SpeechEncoder(Bundle.open("lite").path)
    found = visemes_of(encoder, [speech])
    assert found[0].start == 0.0 and found[-1].end == len(speech) / 16000
    assert all(a.end == b.start for a, b in pairwise(found))
    # "It was the best of times, it was the worst of times": b and s are heard between 0.4 and 1.4 s
    early = {viseme.name for viseme in found if 0.3 < viseme.start < 1.6}
    assert {"PP", "SS", "aa"} <= early
    whole = visemes_of(encoder, np.array_split(speech, 7))  # the blocks do not matter
    assert whole == found


def test_a_recording_of_less_than_a_hop():
    found = visemes_of(SpeechEncoder(Bundle.open("lite").path), [np.zeros(100, np.float32)])
    assert len(found) == 1 and found[0].end == 100 / 16000
