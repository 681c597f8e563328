"""`ditto pack`, and a packed portrait in place of a picture."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from ditto.app.cli import app
from ditto.portrait.packed import is_lossless
from ditto.portrait.portrait import Portrait

PICTURE = Path(__file__).parents[2] / "examples" / "portrait.jpg"


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    """The example, packed by the command."""
    path = tmp_path_factory.mktemp("packed") / "face.portrait"
    done = run("pack", PICTURE, "-o", path, "--max-size", 200, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "output": str(path), "bytes": path.stat().st_size, "lossless": False, "bundle": "lite"
    }  # fmt: skip
    assert max(Portrait.load(path).picture.shape) == 200
    return path


def test_a_packed_portrait_is_packed_again_as_it_is(face, tmp_path):
    assert run("pack", face, "-o", tmp_path / "again.portrait").exit_code == 0
    assert (tmp_path / "again.portrait").read_bytes() == face.read_bytes()
    done = run("pack", face, "-o", tmp_path / "whole.portrait", "--lossless")
    assert done.exit_code == 0 and "whole.portrait: " in done.output
    assert is_lossless((tmp_path / "whole.portrait").read_bytes())
    assert (Portrait.load(tmp_path / "whole.portrait").crop == Portrait.load(face).crop).all()


def test_a_command_takes_a_packed_portrait_in_place_of_a_picture(face, tmp_path):
    done = run("controls", "map", face, "-o", tmp_path / "map.png")
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "map.png") as sheet:
        assert f"{sheet.width} x {sheet.height}" in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["picture", "-o", "out.png"], "expected an output that ends in .portrait, got 'out.png'"),
        (["picture", "-o", "no/out.portrait"], "no such folder"),
        (["face", "-o", "face"], "an output that is not an input"),
        (["face", "-o", "out.portrait", "--max-size", "320"], "a picture with --max-size 320, got the saved portrait"),
        (["face", "-o", "out.portrait", "--face", "1"], "expected a picture with --face 1, got the saved portrait"),
        (["damaged.portrait", "-o", "out.portrait"], "expected size and checksum as it says, got others, in "),
        (["missing.portrait", "-o", "out.portrait"], "check the name"),
    ],
)
def test_mistakes_take_one_line_and_leave_no_file(face, tmp_path, words, message):
    given = {"picture": PICTURE, "face": face}
    (tmp_path / "damaged.portrait").write_bytes(face.read_bytes()[:-9])
    words = [given.get(w) or (tmp_path / w if "." in w else w) for w in words]
    done = run("pack", *words)
    assert done.exit_code == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.output
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.portrait"]
