"""Subtitles of words with times: WebVTT, SubRip, and the words themselves as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ditto.exchange.visemes import stamp
from ditto.media.files import write_file

LONGEST_LINE, LINES = 42, 2  # characters of a line, lines of a cue: what broadcasters allow (Netflix, timed text style guide)


class Word(NamedTuple):
    """A word as the text has it, its line in the text, and its begin and end in seconds."""

    text: str
    line: int
    start: float
    end: float


class Cue(NamedTuple):
    """Text that is shown from `start` to `end`, seconds."""

    text: str
    start: float
    end: float


def cues_of(words: Sequence[Word]) -> Iterator[Cue]:
    """The words as cues of at most two lines; a line of the text begins a cue."""
    at = 0
    while at < len(words):
        end = at + 1
        while end < len(words) and words[end].line == words[at].line and len(_wrapped(words[at : end + 1])) <= LINES:
            end += 1
        yield Cue("\n".join(_wrapped(words[at:end])), words[at].start, words[end - 1].end)
        at = end


def _wrapped(words: Sequence[Word]) -> list[str]:
    return textwrap.wrap(" ".join(word.text for word in words), LONGEST_LINE, break_long_words=False, break_on_hyphens=False)


def write_webvtt(words: Sequence[Word], path: str | Path) -> None:
    """Write a WebVTT file. Raises OutputError."""
    cues = "".join(f"\n{stamp(cue.start)} --> {stamp(cue.end)}\n{_escaped(cue.text)}\n" for cue in cues_of(words))
    write_file(path, f"WEBVTT\n{cues}".encode())


def write_subrip(words: Sequence[Word], path: str | Path) -> None:
    """Write a SubRip (.srt) file. Raises OutputError."""
    cues = (
        f"{number}\n{stamp(cue.start).replace('.', ',')} --> {stamp(cue.end).replace('.', ',')}\n{cue.text}\n"
        for number, cue in enumerate(cues_of(words), 1)
    )
    write_file(path, "\n".join(cues).encode())


def write_json(words: Sequence[Word], path: str | Path) -> None:
    """Write `{"words": [{"word": "best", "start": 0.31, "end": 0.6}, ...]}`. Raises OutputError."""
    rows = [{"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)} for word in words]
    write_file(path, json.dumps({"words": rows}, ensure_ascii=False).encode())


def _escaped(text: str) -> str:
    """The text of a WebVTT cue: `-->` and tags would be read as such."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
