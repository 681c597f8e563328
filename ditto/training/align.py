"""Phone alignments of the training speech: forced alignment by PocketSphinx of transcripts, given or by Moonshine.

    python -m ditto.training.align DATA TRACKS MOONSHINE OUT.json

MOONSHINE is the unpacked moonshine-voice 0.1.0 wheel. A clip that cannot be aligned is left out: the teacher's
posteriors serve there. Of GRID every fourth clip is aligned; its 51 words are soon learned.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ditto.commands import Arguments, run
from ditto.lite.phones import PHONE_INDEX
from ditto.media.files import check_output_file, write_file
from ditto.training.speech_data import SAMPLE_RATE, Clip, read_train


def words_of(text: str) -> list[str]:
    return re.sub(r"[^a-z' ]", " ", text.lower().replace("-", " ")).split()


def open_aligner() -> Any:
    """A PocketSphinx decoder set up for forced alignment (the default best path fails on 60 of 100 utterances)."""
    from pocketsphinx import Decoder, get_model_path

    model = get_model_path()
    return Decoder(
        hmm=f"{model}/en-us/en-us", dict=f"{model}/en-us/cmudict-en-us.dict", lm=None, loglevel="FATAL",
        beam=1e-100, wbeam=1e-80, pbeam=1e-100, bestpath=False,
    )  # fmt: skip


LETTERS = {
    "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH", "j": "JH", "k": "K",
    "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P", "q": "K", "r": "R", "s": "S", "t": "T", "u": "AH", "v": "V",
    "w": "W", "x": "K S", "y": "IY", "z": "Z",
}  # fmt: skip


def guess_phones(decoder: Any, word: str) -> str:
    """Phones of a word outside the dictionary: those of the longest dictionary words in it, else letter by letter."""
    found: list[str] = []
    while word:
        for length in range(len(word), 2, -1):
            phones = decoder.lookup_word(word[:length])
            if phones:
                break
        else:
            length, phones = 1, LETTERS.get(word[0], "")
        found.append(phones)
        word = word[length:]
    return " ".join(p for p in found if p) or "AH"


def align(decoder: Any, clip: Clip, text: str) -> list[tuple[float, float, str]] | None:
    """(start, end, ARPAbet phone) in seconds, or None where the words cannot be aligned with the sound."""
    words = [w if decoder.lookup_word(w) else w.strip("'") for w in words_of(text)]
    words = [w for w in words if w]
    if not words:
        return None
    for word in words:
        if decoder.lookup_word(word) is None:
            decoder.add_word(word, guess_phones(decoder, word), True)
    decoder.set_align_text(" ".join(words))
    pcm = clip.samples.tobytes()
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    if decoder.hyp() is None:
        return None
    decoder.set_alignment()
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    found: list[tuple[float, float, str]] = []
    for word in decoder.get_alignment():
        for phone in word:
            name = phone.name if phone.name in PHONE_INDEX else "SIL"
            found.append((phone.start / 100, (phone.start + phone.duration) / 100, name))
    return found


def open_transcriber(wheel: Path) -> Callable[[Clip], str]:
    """A function from a clip to its text, by the Moonshine tiny model of the wheel."""
    sys.path.insert(0, str(wheel))
    from moonshine_voice.moonshine_api import ModelArch
    from moonshine_voice.transcriber import Transcriber

    transcriber = Transcriber(wheel / "moonshine_voice" / "assets" / "tiny-en", ModelArch.TINY)

    def transcribe(clip: Clip) -> str:
        result = transcriber.transcribe_without_streaming(clip.waveform.tolist(), SAMPLE_RATE)
        return " ".join(line.text for line in result.lines)

    return transcribe


def main() -> None:
    parser = Arguments(description=__doc__)
    for name in ("data", "tracks", "moonshine", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    check_output_file(options.out)
    transcribe = open_transcriber(options.moonshine)
    decoder = open_aligner()
    found: dict[str, list[tuple[float, float, str]]] = {}
    skipped: list[str] = []
    clips = [c for c in read_train(options.data, options.tracks) if c.phones is None]
    grid = [c for c in clips if c.source == "grid"]
    for clip in [c for c in clips if c.source != "grid"] + grid[::4]:
        try:
            segments = align(decoder, clip, clip.text or transcribe(clip))
        except RuntimeError as error:
            segments = None
            print(f"{clip.name}: {error}", flush=True)
        if segments is None:
            skipped.append(clip.name)
        else:
            found[clip.name] = segments
        if (len(found) + len(skipped)) % 50 == 0:
            print(f"{len(found)} aligned, {len(skipped)} left out", flush=True)
    write_file(options.out, json.dumps(found).encode())
    seconds = sum(s[-1][1] for s in found.values())
    print(f"{len(found)} aligned ({seconds / 60:.1f} min, {np.mean([len(s) for s in found.values()]):.0f} phones each)")
    print("left out:", " ".join(skipped))


if __name__ == "__main__":
    run(main)
