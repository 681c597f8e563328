"""When each word of a given text is said: the text's phones, aligned to those that the speech encoder hears.

The pronunciation is espeak-ng's; the alignment is the best path through its phones, with silence allowed between words
(forced alignment, Rabiner 1989, section III.B).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ditto.errors import DittoError, InputError
from ditto.exchange.subtitles import Word
from ditto.lite.phones import PHONE_INDEX, SILENCE

Array = npt.NDArray[np.float32]

TOKENS_PER_SECOND = 50
FLOOR = 1e-3  # least probability of a phone: the encoder may miss one altogether
MOST_CELLS = 400_000_000  # tokens times phones, a byte each: about 20 minutes of speech
# Mean probability of the text's phones on the path. Measured on examples/speech.flac: 0.81 for its text, 0.36 for its words
# backwards, 0.31 for another text.
UNLIKELY = 0.4
ESPEAK_SECONDS = 60.0
# IPA of espeak-ng's English voices, without stress and length, to ARPAbet; the longest symbol first.
_IPA = {
    "aɪ": "AY", "aʊ": "AW", "eɪ": "EY", "oʊ": "OW", "əʊ": "OW", "ɔɪ": "OY", "tʃ": "CH", "dʒ": "JH",
    "a": "AA", "ɑ": "AA", "ɒ": "AA", "æ": "AE", "ʌ": "AH", "ə": "AH", "ɐ": "AH", "ɔ": "AO", "o": "AO", "ɛ": "EH", "e": "EH",
    "ɜ": "ER", "ɝ": "ER", "ɚ": "ER", "ɪ": "IH", "ᵻ": "IH", "i": "IY", "ʊ": "UH", "u": "UW", "y": "UW",
    "b": "B", "d": "D", "ɾ": "D", "ð": "DH", "f": "F", "ɡ": "G", "g": "G", "h": "HH", "j": "Y", "k": "K", "x": "K", "l": "L",
    "ɫ": "L", "m": "M", "n": "N", "ŋ": "NG", "p": "P", "ɹ": "R", "r": "R", "s": "S", "ʃ": "SH", "t": "T", "ʔ": "T", "θ": "TH",
    "v": "V", "w": "W", "z": "Z", "ʒ": "ZH",
}  # fmt: skip
_SYMBOL = re.compile("|".join(sorted(_IPA, key=len, reverse=True)))


def phones_of_ipa(ipa: str) -> list[str]:
    """ARPAbet of espeak-ng's IPA; symbols that English lacks are left out."""
    return [_IPA[symbol] for part in re.split(r"[_ ]", re.sub("[ˈˌː]", "", ipa)) for symbol in _SYMBOL.findall(part)]


def pronounce(words: Sequence[str], language: str = "en-us") -> list[list[str]]:
    """The phones of each word, ARPAbet; none for what is not spoken.

    Raises:
        InputError: espeak-ng is not installed, or lacks the language.
        DittoError: espeak-ng failed.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise InputError("expected espeak-ng, which pronounces the text, got none; install it (apt install espeak-ng)")
    # A paragraph each, so that each becomes a line; what ends a sentence inside a word would break it in two.
    spoken = [word for word in words if any(map(str.isalnum, word))]
    text = "\n\n".join(re.sub(r"[\x00-\x20]|(?<!\d)[.,:]|[.,:](?!\d)|[!?;…]", " ", word) for word in spoken)
    command = [program, "-q", "--ipa", "--sep=_", "-v", language, "-b", "1", "--stdin"]
    try:
        done = subprocess.run(
            command, input=f"{text}\n".encode(), env=os.environ | {"PULSE_SERVER": "unix:/dev/null"},
            capture_output=True, timeout=ESPEAK_SECONDS, check=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise InputError(
            f"expected a language of espeak-ng, got {language!r}; choose one of `espeak-ng --voices`"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DittoError(f"espeak-ng failed ({error}); check its installation") from error
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    if len(lines) != len(spoken):
        raise DittoError(f"expected {len(spoken)} pronunciations from espeak-ng, got {len(lines)}; take odd characters out")
    found = map(phones_of_ipa, lines)
    return [next(found) if any(map(str.isalnum, word)) else [] for word in words]


def align(probabilities: Array, words: Sequence[Sequence[str]]) -> tuple[list[tuple[int, int]], float]:
    """Tokens [start, end) of each word in a recording that says them, and the mean probability of their phones.

    Args:
        probabilities: (N, 40) of each phone in each token, as the speech encoder gives them.
        words: phones of each word, one or more.

    Raises:
        InputError: no words, more phones than tokens, or too many of both.
    """
    if not words:
        raise InputError("expected a text with words, got none; give what the recording says")
    phones, owner = [SILENCE], [-1]  # of each state
    for number, word in enumerate(words):
        phones += [*(PHONE_INDEX[phone] for phone in word), SILENCE]
        owner += [*([number] * len(word)), -1]
    tokens, states = len(probabilities), len(phones)
    if sum(map(len, words)) > tokens:
        raise InputError(
            f"expected a text as long as the recording, got {sum(map(len, words))} sounds for "
            f"{tokens / TOKENS_PER_SECOND:.1f} s; give the text of this recording"
        )
    if tokens * states > MOST_CELLS:
        raise InputError("expected a recording of at most about 20 minutes, got a longer one; cut it and its text")
    emitted = np.log(np.maximum(probabilities, FLOOR))[:, phones]  # (N, states)
    pause = np.array([state == -1 for state in owner])
    skips = np.zeros(states, bool)
    skips[2:] = pause[1:-1]  # the pause before a word may be left out
    score = np.full(states, -np.inf, np.float32)
    score[:2] = emitted[0, :2]
    back = np.zeros((tokens, states), np.uint8)
    for token in range(1, tokens):
        step, skip = np.full(states, -np.inf, np.float32), np.full(states, -np.inf, np.float32)
        step[1:] = score[:-1]
        skip[2:] = np.where(skips[2:], score[:-2], -np.inf)
        ways = np.stack([score, step, skip])
        back[token] = ways.argmax(0)
        score = ways.max(0) + emitted[token]
    state = states - 1 if score[-1] >= score[-2] else states - 2
    path = np.empty(tokens, np.int64)
    for token in range(tokens - 1, -1, -1):
        path[token] = state
        state -= back[token, state]
    spoken = np.array(owner)[path]
    spans = []
    for number in range(len(words)):
        at = np.flatnonzero(spoken == number)
        spans.append((int(at[0]), int(at[-1]) + 1))
    said = spoken >= 0
    return spans, float(probabilities[np.flatnonzero(said), np.array(phones)[path[said]]].mean())


def words_of(probabilities: Array, text: str, language: str = "en-us") -> list[Word]:
    """The words of a text with the times at which a recording says them.

    Words that are not spoken, such as a dash, belong to the word before them.

    Raises:
        InputError: as of `pronounce` and `align`; or the recording says something else.
    """
    given = [(word, line) for line, content in enumerate(text.splitlines()) for word in content.split()]
    pronounced = pronounce([word for word, _ in given], language) if given else []
    spoken = [number for number, phones in enumerate(pronounced) if phones]
    spans, likely = align(probabilities, [pronounced[number] for number in spoken])
    if likely < UNLIKELY:
        raise InputError(
            f"expected the text of this recording, got one whose sounds it has with a probability of {likely:.2f} on average; "
            "give what is said, word for word"
        )
    found: list[Word] = []
    times = dict(zip(spoken, spans, strict=True))
    for number, (word, line) in enumerate(given):
        if number in times:
            start, end = times[number]
            found.append(Word(word, line, start / TOKENS_PER_SECOND, end / TOKENS_PER_SECOND))
        elif found and found[-1].line == line:
            found[-1] = found[-1]._replace(text=f"{found[-1].text} {word}")
    return found
