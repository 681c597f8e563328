"""When each word of a given text is said."""

import shutil
from itertools import pairwise

import numpy as np
import pytest

from ditto.bundle import Bundle
from ditto.errors import InputError
from ditto.lite.alignment import align, phones_of_ipa, pronounce, words_of
from ditto.lite.phones import PHONE_INDEX
from ditto.lite.speech_encoder import SpeechEncoder
from ditto.lite.visemes import phones_heard
from ditto.media.audio import read_audio

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")
TEXT = "It was the best of times, it was the worst of times,\nit was the age of wisdom - it was the age of foolishness"


def heard(*phones):
    """Probabilities of tokens that are sure of their phone."""
    p = np.full((len(phones), 40), 0.001, np.float32)
    p[np.arange(len(phones)), [PHONE_INDEX[phone] for phone in phones]] = 0.9
    return p


def test_words_lie_where_their_phones_are_heard_with_or_without_a_pause():
    p = heard(*["SIL"] * 3, *["B"] * 2, *["IY"] * 4, *["T"] * 2, *["UW"] * 3, *["SIL"] * 4, *["M"] * 2, *["AY"] * 5)
    spans, likely = align(p, [["B", "IY"], ["T", "UW"], ["M", "AY"]])
    assert spans == [(3, 9), (9, 14), (18, 25)]
    assert likely == pytest.approx(0.9)


def test_a_phone_that_was_missed_leaves_the_others_in_place():
    p = heard(*["SIL"] * 3, *["IY"] * 4, *["SIL"] * 4, *["M"] * 2, *["AY"] * 5)
    spans, _ = align(p, [["B", "IY"], ["M", "AY"]])
    assert spans[1] == (11, 18) and spans[0][1] == 7


@pytest.mark.parametrize(
    ("words", "tokens", "message"),
    [
        ([], 9, "expected a text with words"), ([["M"] * 9], 8, "as long as the recording"),
        ([["M"]] * 20001, 20001, "20 minutes"),
    ],
)  # fmt: skip
def test_a_text_that_cannot_be_aligned_is_refused(words, tokens, message):
    with pytest.raises(InputError, match=message):
        align(heard(*["M"] * tokens), words)


def test_ipa_becomes_arpabet():
    assert phones_of_ipa("tʃ_ˈɜː_tʃ f_ˈaɪɚ θ_ˈɜː_ɾ_i b_ˈɔɪ ¿") == "CH ER CH F AY ER TH ER D IY B OY".split()


def test_without_espeak_the_error_says_so(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError, match="install it"):
        pronounce(["a"])


@needs_espeak
def test_every_word_has_a_line_of_its_own():
    found = pronounce(["Mr.", "1984", "...", "-", "U.S.", "end.of", "3.5", "I'm;", "wait…what"])
    assert [bool(phones) for phones in found] == [True, True, False, False, True, True, True, True, True]
    assert found[0] == ["M", "IH", "S", "T", "ER"]
    with pytest.raises(InputError, match="espeak-ng --voices"):
        pronounce(["a"], "klingonese")


@needs_espeak
def test_the_example_is_aligned_and_another_text_is_refused():
    speech = read_audio("examples/speech.flac")[: 16000 * 7 + 8000]
    probabilities, _ = phones_heard(SpeechEncoder(Bundle.open("lite").path), [speech])
    words = words_of(probabilities, TEXT)
    assert " ".join(word.text for word in words) == TEXT.replace("\n", " ")
    assert all(a.end <= b.start for a, b in pairwise(words))
    # Words beside a pause begin and end where the sound does: 25 dB below its loud parts, found without the encoder.
    loud = 20 * np.log10(np.sqrt((speech.reshape(-1, 320) ** 2).mean(1)) + 1e-6)
    quiet = np.convolve(loud, np.ones(3) / 3, "same") < np.percentile(loud, 95) - 25
    pauses = [(a, b) for a, b in pairwise(words) if b.start - a.end > 0.06]
    assert [a.text for a, _ in pauses] == ["times,", "times,", "wisdom -"]
    for before, after in pauses:
        inside = quiet[round(50 * before.end) + 2 : round(50 * after.start) - 2]
        assert inside.all()
        assert not quiet[round(50 * before.end) - 4] and not quiet[round(50 * after.start) + 4]
    with pytest.raises(InputError, match="expected the text of this recording"):
        words_of(probabilities, "Call me Ishmael. Some years ago, never mind how long precisely")
