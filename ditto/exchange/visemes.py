"""Oculus's fifteen visemes with times, as JSON and as WebVTT.

Source of the visemes: Meta's viseme reference of the Oculus Lipsync SDK, which lists the sounds of each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import ExchangeError
from ditto.exchange.files import Given, field, json_of, lines_of, number, opened, whole
from ditto.media.files import write_file

OCULUS_VISEMES = ("sil", "PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa", "E", "I", "O", "U")
MOST_VISEMES = 1_000_000
SHORTEST_SECONDS = 0.039  # two tokens of 20 ms: a viseme that is shorter belongs to the one before it
_SOUNDS = {
    "sil": "SIL", "PP": "P B M", "FF": "F V", "TH": "TH DH", "DD": "T D", "kk": "K G NG HH", "CH": "CH JH SH ZH", "SS": "S Z",
    "nn": "N L", "RR": "R ER", "aa": "AA AH AE AY AW", "E": "EH EY", "I": "IH IY Y", "O": "AO OW OY", "U": "UH UW W",
}  # fmt: skip
VISEME_OF_PHONE = {phone: viseme for viseme, phones in _SOUNDS.items() for phone in phones.split()}
STAMP = re.compile(r"(?:(\d{2,}):)?([0-5]\d):([0-5]\d)\.(\d{3})")


class Viseme(NamedTuple):
    """A viseme of `OCULUS_VISEMES`, and its begin and end in seconds."""

    name: str
    start: float
    end: float


def visemes_of_phones(probabilities: npt.ArrayLike, phones: Sequence[str], tokens_per_second: float = 50.0) -> list[Viseme]:
    """The visemes of a recording, one after another without gaps.

    Args:
        probabilities: (N, P) of each phone in each token, as ditto's speech encoder gives them.
        phones: names of the P phones, ARPAbet with SIL.

    Raises:
        ValueError: another shape, or an unknown phone.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or p.shape[1] != len(phones):
        raise ValueError(f"expected probabilities (N, {len(phones)}), got shape {p.shape}; give one for each phone")
    unknown = [phone for phone in phones if phone not in VISEME_OF_PHONE]
    if unknown:
        raise ValueError(f"expected phones of ARPAbet, got {', '.join(unknown)}; give those of ditto.lite.phones")
    sums = np.zeros((len(p), len(OCULUS_VISEMES)))
    for column, phone in enumerate(phones):
        sums[:, OCULUS_VISEMES.index(VISEME_OF_PHONE[phone])] += p[:, column]
    best = sums.argmax(1)
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    found: list[Viseme] = []
    for start, end in zip(starts, [*starts[1:], len(best)], strict=True):
        viseme = Viseme(OCULUS_VISEMES[best[start]], start / tokens_per_second, end / tokens_per_second)
        if found and (viseme.end - viseme.start < SHORTEST_SECONDS or viseme.name == found[-1].name):
            found[-1] = found[-1]._replace(end=viseme.end)
        else:
            found.append(viseme)
    return found


def write_json(visemes: Sequence[Viseme], path: str | Path) -> None:
    """Write `{"visemes": [{"viseme": "PP", "start": 0.12, "end": 0.2}, ...]}`. Raises OutputError."""
    rows = [{"viseme": v.name, "start": round(v.start, 4), "end": round(v.end, 4)} for v in visemes]
    write_file(path, json.dumps({"visemes": rows}).encode())


def read_json(given: Given) -> list[Viseme]:
    """What `write_json` wrote.

    Raises:
        ExchangeError: the file cannot be read, or a viseme is unknown, has no times, or begins before the one before it.
    """
    source = opened(given, "visemes (JSON)")
    name, rows = source.name, field(source.name, json_of(source.name, whole(source)), "visemes", list)
    found: list[Viseme] = []
    for n, row in enumerate(rows[: MOST_VISEMES + 1]):
        where = f"{name}, visemes[{n}]"
        if not isinstance(row, dict):
            raise ExchangeError(f"{where}: expected an object, got {type(row).__name__}; export it again")
        start, end = (number(f"{where}.{key}", row.get(key)) for key in ("start", "end"))
        found.append(_checked(where, Viseme(str(row.get("viseme")), start, end), found))
    return _some(name, found)


def write_webvtt(visemes: Sequence[Viseme], path: str | Path) -> None:
    """Write a WebVTT file, a cue for each viseme. Raises OutputError."""
    cues = "".join(f"\n{stamp(v.start)} --> {stamp(v.end)}\n{v.name}\n" for v in visemes)
    write_file(path, f"WEBVTT\n{cues}".encode())


def read_webvtt(given: Given) -> list[Viseme]:
    """The cues of a WebVTT file whose texts are visemes; notes, styles and settings are left out.

    Raises:
        ExchangeError: the file cannot be read, is no WebVTT, or a cue has no times or another text.
    """
    source = opened(given, "visemes (WebVTT)")
    lines = lines_of(source)
    if not next(lines, (0, ""))[1].startswith("WEBVTT"):
        raise ExchangeError(f"{source.name}, line 1: expected WEBVTT, got another beginning; give a WebVTT file")
    found: list[Viseme] = []
    times: tuple[float, float] | None = None
    for line, text in lines:
        where = f"{source.name}, line {line}"
        if "-->" in text:
            ends = [STAMP.match(part.strip()) for part in text.split("-->", 1)]
            if None in ends:
                raise ExchangeError(f"{where}: expected 00:00.000 --> 00:00.000, got {text[:40]!r}; correct it")
            start, end = (_seconds(stamp) for stamp in ends if stamp is not None)
            times = (start, end)
        elif times is not None:
            found.append(_checked(where, Viseme(text.strip(), *times), found))
            times = None
            if len(found) > MOST_VISEMES:
                break
    return _some(source.name, found)


def _checked(where: str, viseme: Viseme, before: list[Viseme]) -> Viseme:
    if viseme.name not in OCULUS_VISEMES:
        raise ExchangeError(f"{where}: expected a viseme of {', '.join(OCULUS_VISEMES)}, got {viseme.name[:20]!r}; correct it")
    if not 0.0 <= viseme.start <= viseme.end or (before and viseme.start < before[-1].start):
        raise ExchangeError(f"{where}: expected times that rise, got {viseme.start:g} to {viseme.end:g}; sort the visemes")
    return viseme


def _some(name: str, found: list[Viseme]) -> list[Viseme]:
    if not 0 < len(found) <= MOST_VISEMES:
        raise ExchangeError(f"{name}: expected 1 to {MOST_VISEMES} visemes, got {len(found)}; export it again")
    return found


def stamp(seconds: float) -> str:
    """`00:01:02.345`, as WebVTT writes a time."""
    thousandths = round(seconds * 1000)
    whole_seconds, rest = divmod(thousandths, 1000)
    return f"{whole_seconds // 3600:02d}:{whole_seconds // 60 % 60:02d}:{whole_seconds % 60:02d}.{rest:03d}"


def _seconds(stamp: re.Match[str]) -> float:
    return int(stamp[1] or 0) * 3600 + int(stamp[2]) * 60 + int(stamp[3]) + int(stamp[4]) / 1000
