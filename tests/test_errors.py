"""Messages of errors: every one that ditto words itself says what to do."""

import ast
import re
from pathlib import Path

import pytest

from ditto import errors
from ditto.live.server.protocol import ProtocolError

ROOT = Path(__file__).parents[1]
FILES = (path for name in ("ditto", "engines", "controls") for path in (ROOT / name).glob("**/*.py"))
ROOMS = sorted({path.relative_to(ROOT).parent for path in FILES})
TYPED = {name for name, value in vars(errors).items() if isinstance(value, type)} | {ProtocolError.__name__}


def words_of(message: ast.expr) -> str:
    """A message, {name} in place of each value; "" for one that the code does not spell out."""
    if isinstance(message, ast.Constant):
        return str(message.value)
    if isinstance(message, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}" for part in message.values
        )
    if isinstance(message, ast.BinOp):
        return words_of(message.left) + words_of(message.right)
    return words_of(message.body) + words_of(message.orelse) if isinstance(message, ast.IfExp) else ""


def without_advice(source: str) -> list[str]:
    """The messages of ditto's own errors without a part after a semicolon. One that ends with another error has its advice."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
            continue
        if ast.unparse(node.exc.func).rpartition(".")[2] not in TYPED:
            continue
        words = max(map(words_of, node.exc.args), key=len)  # beside the code and status of a ProtocolError
        own = re.sub(r"{.*?}", "", words).strip(" :")
        if " " in own and ";" not in own and not words.endswith("{error}"):
            found.append(words)
    return found


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_every_error_of_ditto_says_what_to_do(room):
    assert {file.name: found for file in (ROOT / room).glob("*.py") if (found := without_advice(file.read_text()))} == {}


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ('raise InputError(f"expected a, got {b}")', 1), ('raise InputError(f"expected a, got {b}" + "c")', 1),
        ('raise ProtocolError("busy", "no place")', 1), ('raise InputError(f"expected a, got {b}; do c")', 0),
        ('raise InputError(f"{file}: {error}")', 0), ("raise InputError(told)", 0), ('raise KeyError("a")', 0),
    ],
)  # fmt: skip
def test_a_message_without_advice_is_found(line, count):
    assert len(without_advice(line)) == count
