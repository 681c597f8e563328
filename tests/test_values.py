"""JSON as values of Python's types: true is not 1, a lossless whole number may be a float, and nothing else is let through."""

import math
from dataclasses import dataclass

import pytest

from ditto.values import from_json, is_number, is_same, is_whole, typed


@dataclass(frozen=True)
class Inner:
    size: int


@dataclass(frozen=True)
class Outer:
    count: int
    share: float
    name: str | None
    inner: tuple[Inner, ...] = ()
    flag: bool = False

    def __post_init__(self):
        if self.count > 9:
            raise ValueError("expected a count up to 9")


GOOD = {"count": 3, "share": 1, "name": None, "inner": [{"size": 2}]}


def test_an_object_becomes_a_dataclass():
    made = from_json(Outer, GOOD)
    assert made == Outer(3, 1.0, None, (Inner(2),)) and type(made.share) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": True}, "expected count of a Outer as int, got True"),
        ({"count": 3.0}, "as int, got 3.0"),
        ({"count": 10}, "expected a count up to 9"),
        ({"share": False}, "as float, got False"),
        ({"share": math.nan}, "as float, got nan"),
        ({"share": 10**400}, "as float, got 1000"),
        ({"name": 3}, "expected name of a Outer as str or NoneType, got 3"),
        ({"inner": {"size": 2}}, "got {'size': 2}"),
        ({"inner": [{"size": True}]}, "expected size of a Inner as int, got True"),
        ({"flag": 1}, "as bool, got 1"),
        ({"colour": 1}, "missing or unknown colour"),
    ],
)
def test_values_of_other_types_are_refused(change, message):
    with pytest.raises(ValueError, match=message) as refused:
        from_json(Outer, GOOD | change)
    assert len(str(refused.value)) < 200
    for words in ([], "text", {"count": 3}):
        with pytest.raises(ValueError, match="expected"):
            from_json(Outer, words)


def test_true_is_no_number():
    assert is_whole(1) and is_whole(0) and not is_whole(0, 1) and not is_whole(True) and not is_whole(1.0)
    assert is_number(1) and is_number(-1.5) and not is_number(True) and not is_number(math.inf) and not is_number(10**400)
    assert is_same(1, 1) and is_same("a", "a") and not is_same(True, 1) and not is_same(None, 1)
    assert typed("seed", float | None, None) is None
