"""Rooms import from themselves and from rooms below them (docs/architecture.md), when the program runs."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the top: what a line names may import what its own line and the lines below name.
ROOMS = (
    ("app", "training"),
    ("cluster", "editor"),
    ("live",),
    ("talking_head", "stream", "take", "scene"),
    ("lite", "full", "latent"),
    ("performer", "row_performer", "frame", "clip"),
    ("exchange",),
    ("controls",),
    ("motion", "portrait"),
    ("bundle",),
    ("engines",),
    ("ops",),
    ("media", "provenance"),
    ("commands", "errors", "machine", "once", "privacy", "values", "_native"),
)
LEVEL = {room: len(ROOMS) - level for level, rooms in enumerate(ROOMS) for room in rooms}
# What a room asks of a room above it, inside of a function, so that a program which never calls it never loads the other.
LATE = {
    ("media", "engines"): "the voice detector is a network",
    ("talking_head", "live"): "a head opens sessions",
    ("bundle", "app"): "`python -m ditto.bundle` prints",
    ("bundle", "full"): "`verify` runs the networks of a full bundle once",
    ("engines", "full"): "`open_engine` knows the inputs of the published networks",
}


def modules():
    for top, package in (("ditto", "ditto"), ("engines", "ditto.engines"), ("controls", "ditto.controls")):
        folder = ROOT / top
        for file in sorted(folder.rglob("*.py")):
            inside = file.relative_to(folder)
            if package == "ditto" and inside.parts[0] in ("engines", "controls"):
                continue  # links to the folders at the top
            yield ".".join([package, *inside.with_suffix("").parts]).removesuffix(".__init__"), file


def room_of(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "ditto" and len(parts) > 1 else None


def imports_of(file, module):
    """Modules of ditto that a file imports when it runs: imports for type checkers alone are left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ditto"))
        elif isinstance(node, ast.ImportFrom):
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, *([base] if base else [])])
            if base == "ditto":
                yield from (f"ditto.{alias.name}" for alias in node.names)
            elif base.startswith("ditto."):
                yield base


@pytest.mark.parametrize(("module", "file"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_down(module, file):
    room = room_of(module)
    if room in (None, "__main__", "bundles"):
        return  # ditto itself, and its start: they name everything, late
    assert room in LEVEL, f"{module}: name the room {room} in ROOMS and in docs/architecture.md"
    for other in set(imports_of(file, module)):
        there = room_of(other)
        if there is None or there == room or there not in LEVEL:
            continue
        if (room, there) in LATE:
            continue
        below = LEVEL[there] < LEVEL[room] or (LEVEL[there] == LEVEL[room] and {room, there} != {"lite", "full"})
        assert below, f"{module} ({room}) imports {other} ({there}), which lies above it"


def test_the_page_of_rooms_names_every_room():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for room in LEVEL:
        assert room in page or room == "_native", f"docs/architecture.md does not name {room}"


def test_no_two_test_files_have_one_name():
    """pytest imports them by name alone."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)
