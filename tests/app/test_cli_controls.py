"""`ditto controls list` and `ditto controls map`."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import ditto
from ditto.app.cli import app
from ditto.app.controls_map import CAPTION, CHANGED, COLUMNS, GAP, TILE, TITLE, draw_map, window
from ditto.controls import CATALOG
from ditto.motion.map import FULL_MAP, LITE_MAP, NOTHING, UNKNOWN

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"


def run(*arguments, columns=200):
    done = CliRunner().invoke(app, ["controls", *map(str, arguments)], env={"COLUMNS": str(columns)})
    return done.exit_code, done.stdout, done.stderr


def test_list_prints_every_control():
    code, out, _ = run("list")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines() if line[:1].strip()} == {"name", *CATALOG}
    row = next(line for line in out.splitlines() if line.startswith("left_brow.y"))
    assert re.search(r"brows +face units +-0.042 to 0.042 +-: left brow up, \+: left brow down", row)


def test_list_says_once_what_minus_and_plus_share():
    lines = [line.rstrip() for line in run("list", "--region", "head")[1].splitlines()]
    row = next(line for line in lines if line.startswith("head.pitch"))
    assert row.endswith("-: turns the head up, +: turns the head down, on top of its own motion")
    hold = next(line for line in lines if line.startswith("pose.hold"))
    assert hold.endswith("  +: the head has the pose of pose.* and not its own")


def test_list_breaks_no_word_in_80_columns():
    lines = run("list", columns=80)[1].splitlines()
    assert max(map(len, lines)) <= 80
    words = {word for control in CATALOG.values() for word in f"{control.minus} {control.plus}".split()}
    shown = {word for line in lines[1:] for word in line[lines[0].index("what") :].split()}
    assert {word.strip(",") for word in shown} <= {word.strip(",") for word in words} | {"-:", "+:"}


def test_list_as_json_has_what_a_program_needs():
    code, out, _ = run("list", "--json")
    found = json.loads(out)
    assert code == 0 and found["space"] == "lite"
    for row in found["controls"]:
        control = CATALOG[row["name"]]
        assert row == {key: getattr(control, key) for key in row}
        assert control.low <= row["safe_low"] <= control.neutral <= row["safe_high"] <= control.high
    assert [row["name"] for row in found["controls"]] == list(CATALOG)


def test_list_knows_the_full_space():
    rows = {row["name"]: row for row in json.loads(run("list", "--space", "full", "--json")[1])["controls"]}
    assert rows["chin.y"]["plus"] == FULL_MAP.by_name["chin.y"].plus == "the jaw opens"
    assert rows["forehead.x"]["plus"] == UNKNOWN
    assert rows["head.yaw"]["plus"] == CATALOG["head.yaw"].plus


def test_list_of_a_region_lists_no_other():
    rows = json.loads(run("list", "--region", "gaze", "--json")[1])["controls"]
    assert {row["region"] for row in rows} == {"gaze"}
    assert {"gaze.right", "left_iris.x", "eyeLookUpLeft", "gain.gaze"} <= {row["name"] for row in rows}


def test_the_map_does_not_replace_the_portrait(tmp_path):
    portrait = tmp_path / "face.jpg"
    portrait.write_bytes(PORTRAIT.read_bytes())
    code, _, err = run("map", portrait, "-o", portrait)
    assert code == 2 and "an output that is not an input" in err
    assert portrait.read_bytes() == PORTRAIT.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--region", "brow"], "did you mean brows"),
        (["list", "--space", "fulll"], "did you mean full"),
        (["map", PORTRAIT, "-o", "map.gif"], "ends in .png"),
        (["map", PORTRAIT, "-o", "nowhere/map.png"], "no such folder"),
        (["map", "nobody.jpg", "-o", "map.png"], "nobody.jpg"),
        (["map", PORTRAIT.parent / "speech.flac", "-o", "map.png"], "speech.flac"),
    ],
)
def test_wrong_arguments_give_one_line_and_no_file(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 2 and out == ""
    assert message in err and len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_map_shows_every_number_at_both_ends(portrait, tmp_path):
    """On the sheet each face differs from the one at rest, but for numbers of which the map says that they do nothing."""
    head, calls = ditto.load("lite"), []
    sheet = draw_map(head, portrait, lambda: calls.append(1))
    assert len(calls) == 1 + 2 * len(LITE_MAP.dimensions)
    side = window(portrait)[0].stop - window(portrait)[0].start
    assert side <= min(portrait.picture.shape[:2])

    def tile(keypoint, place):
        x = GAP + (keypoint % COLUMNS) * (7 * TILE + 8 * GAP) + place * (TILE + GAP)
        y = GAP + (keypoint // COLUMNS) * (TITLE + TILE + CAPTION + GAP) + TITLE
        return sheet[y : y + TILE, x : x + TILE].astype(int)

    for dimension in LITE_MAP:
        rest = tile(dimension.keypoint, 0)
        np.testing.assert_array_equal(rest, tile(0, 0))
        for end, words in enumerate((dimension.minus, dimension.plus)):
            change = np.abs(tile(dimension.keypoint, 1 + 2 * dimension.axis + end) - rest).max()
            assert (change == 0) == (words == NOTHING), dimension.name
            assert change > CHANGED or dimension.axis == 2 or words == NOTHING, dimension.name


def test_the_command_writes_the_sheet_of_a_saved_portrait(portrait, tmp_path):
    portrait.save(tmp_path / "face.npz")
    code, out, err = run("map", tmp_path / "face.npz", "-o", tmp_path / "map.webp")
    assert code == 0, err
    with Image.open(tmp_path / "map.webp") as picture:
        assert f"{picture.width} x {picture.height}" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.npz", "map.webp"]
