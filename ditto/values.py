"""Values of JSON as values of Python's types. True and false are no numbers, though Python counts them as 1 and 0."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Mapping
from typing import Any, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def is_whole(value: object, least: int = 0) -> TypeGuard[int]:
    """Whether a value is a whole number of `least` or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number that a float can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_same(value: object, expected: object) -> bool:
    """Whether a value is the expected number or text."""
    return value == expected and isinstance(value, bool) is isinstance(expected, bool)


def from_json(kind: type[T], words: object) -> T:
    """A dataclass from an object of JSON. Lists become tuples; a whole number may stand for a float.

    Raises:
        ValueError: missing or unknown names, a value of another type, a number that is not finite. Also what the class raises.
    """
    if not isinstance(words, Mapping):
        raise ValueError(f"expected an object with the fields of a {kind.__name__}, got {type(words).__name__}")
    hints, fields = get_type_hints(kind), dataclasses.fields(kind)  # type: ignore[arg-type]
    required = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
    if others := sorted(map(str, set(words) - {f.name for f in fields} | required - set(words))):
        raise ValueError(f"expected the fields of a {kind.__name__}, got missing or unknown {', '.join(others)}")
    return kind(**{name: typed(f"{name} of a {kind.__name__}", hints[name], words[name]) for name in words})


def typed(name: str, kind: Any, found: Any) -> Any:
    """A value of JSON as a value of a type: int, float, str, bool, None, a dataclass, a tuple of one of them, or a union.

    Raises:
        ValueError: a value of another type, or a number that is not finite; the message begins with "expected `name`".
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        for part in parts:
            if part is type(found) or (part is float and type(found) is int):
                return typed(name, part, found)
        kind = " or ".join(getattr(part, "__name__", str(part)) for part in parts)
    elif origin is tuple:
        if isinstance(found, (list, tuple)):
            return tuple(typed(name, parts[0], item) for item in found)
    elif dataclasses.is_dataclass(kind):
        return from_json(kind, found)  # type: ignore[arg-type]
    elif kind is float:
        if is_number(found):
            return float(found)
    elif type(found) is kind:
        return found
    shown = repr(found)
    raise ValueError(f"expected {name} as {getattr(kind, '__name__', kind)}, got {shown[:60]}")
