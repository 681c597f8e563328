"""Files of face animation, read within bounds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from ditto.errors import ExchangeError
from ditto.media.files import Readable, Source

MOST_BYTES = 1 << 26  # 67 MB of a file that is read whole: as JSON over an hour at 30 frames a second
LONGEST_LINE = 1 << 16  # bytes

Given = Readable | Source


def opened(given: Given, noun: str) -> Source:
    """The bytes of a file. Raises ExchangeError where it is missing, empty or not readable."""
    return given if isinstance(given, Source) else Source(given, noun, ExchangeError)


def lines_of(source: Source) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text file in UTF-8, without their ends; memory does not grow with the file.

    Raises:
        ExchangeError: a longer line than `LONGEST_LINE`, or bytes that are no UTF-8.
    """
    with source.open() as stream:
        number = 0
        while raw := stream.readline(LONGEST_LINE + 1):
            number += 1
            if len(raw) > LONGEST_LINE:
                raise ExchangeError(
                    f"{source.name}, line {number}: expected at most {LONGEST_LINE} bytes, got more; is it a text file?"
                )
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise ExchangeError(
                    f"{source.name}, line {number}: expected text in UTF-8, got other bytes; save it as UTF-8"
                ) from None


def whole(source: Source) -> bytes:
    """All bytes of a file of at most `MOST_BYTES`. Raises ExchangeError."""
    if source.size > MOST_BYTES:
        raise ExchangeError(f"{source.name}: expected at most {MOST_BYTES} bytes, got {source.size}; cut the recording")
    return source.read()


def json_of(name: str, data: bytes) -> dict[str, Any]:
    """The object in a JSON file. Raises ExchangeError."""
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except ValueError as error:  # no UTF-8, no JSON, or a whole number of thousands of digits
        raise ExchangeError(f"{name}: expected JSON, got: {str(error).partition(';')[0]}; export it again") from None
    except RecursionError:
        raise ExchangeError(f"{name}: expected JSON of a few levels, got thousands; export it again") from None
    if not isinstance(found, dict):
        raise ExchangeError(f"{name}: expected a JSON object, got {type(found).__name__}; export it again")
    return found


def field(name: str, found: dict[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """The value of a key, of a type. Raises ExchangeError."""
    value = found.get(key)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        got = "nothing" if key not in found else type(value).__name__
        expected = " or ".join(k.__name__ for k in kinds)
        raise ExchangeError(f"{name}: expected {key} as {expected}, got {got}; export it again")
    return value


def number(where: str, value: object) -> float:
    """A finite number of JSON or of a text. Raises ExchangeError."""
    try:
        found = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ExchangeError(f"{where}: expected a finite number, got {str(value)[:40]!r}; correct or remove it")
    return found
