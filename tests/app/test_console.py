"""What the commands print, on standard streams of every kind: nothing that is printed costs a result."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from rich.table import Table
from typer.testing import CliRunner
from wav import write_wav

from ditto.app import console
from ditto.commands import printable
from ditto.errors import OutputError

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "examples" / "portrait.jpg"
# `ditto` with a stand-in for the networks.
COMMAND = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
import ditto
from test_cli import StandIn
vars(ditto)["load"] = lambda bundle, **_: StandIn()
sys.argv[0] = "ditto"
from ditto.__main__ import main
main()
"""
unix = pytest.mark.skipif(os.name == "nt", reason="descriptors as on Unix")
ASCII = {"PYTHONIOENCODING": "ascii"}
BARE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NAMES = ["vidéo – 動画 🙂.mp4", os.fsdecode(b"caf\xe9.mp4"), "[red]line\nbreak.mp4"]


@pytest.fixture
def said(tmp_path):
    return write_wav(tmp_path / "said.wav", np.zeros(1600, np.int16))


def shell(redirections, *arguments, cwd, environment=None):
    """`ditto ARGUMENTS REDIRECTIONS` in a shell; what was not redirected is captured. `GONE` is a pipe without a reader."""
    receiver, sender = os.pipe()
    os.close(receiver)
    script = f'exec "$@" {redirections.replace("GONE", str(sender))}'
    command = ["bash", "-c", script, "bash", sys.executable, "-c", COMMAND, *map(os.fspath, arguments)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | (environment or {})
    try:
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, timeout=120, pass_fds=(sender,))
    finally:
        os.close(sender)


def is_complete(video: Path) -> bool:
    with open(video, "rb") as stream, av.open(stream) as container:
        return container.streams.video[0].frames == 3


@pytest.mark.parametrize("environment", [{}, ASCII, BARE])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_the_streams_cannot_encode_costs_nothing(tmp_path, said, name, environment):
    done = shell("", "animate", PICTURE, said, "-o", name, cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert is_complete(tmp_path / name)
    assert b"3 frames" in done.stdout


def test_json_names_the_file_that_no_encoding_has(tmp_path, said):
    name = os.fsdecode(b"caf\xe9.mp4")
    done = shell("", "animate", PICTURE, said, "-o", name, "--json", cwd=tmp_path, environment=ASCII)
    assert json.loads(done.stdout)["output"] == name
    assert is_complete(tmp_path / name)


@pytest.mark.parametrize("environment", [ASCII, BARE])
@pytest.mark.parametrize("name", ["動画.wav", os.fsdecode(b"caf\xe9.wav")])
def test_an_error_about_such_a_name_is_one_line(tmp_path, name, environment):
    done = shell("", "animate", PICTURE, name, "-o", "out.mp4", cwd=tmp_path, environment=environment)
    assert done.returncode == 2
    assert done.stderr.startswith(b"ditto: AudioError: ")
    assert len(done.stderr.splitlines()) == 1


@unix
@pytest.mark.parametrize(
    "redirections",
    [
        ">&-", "2>&-", "<&- >&- 2>&-", "> /dev/full", "2> /dev/full", "&> /dev/full", ">&GONE", "2>&GONE",
        ">&GONE 2>&GONE",
    ],
)  # fmt: skip
def test_a_video_is_complete_wherever_the_report_goes(tmp_path, said, redirections):
    if "/dev/full" in redirections and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which Linux has")
    done = shell(redirections, "animate", PICTURE, said, "-o", "out.mp4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert is_complete(tmp_path / "out.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "said.wav"]
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    lost = redirections == "> /dev/full"
    assert (b"note: the report cannot be written to standard output" in done.stderr.replace(b"\n", b" ")) == lost


@unix
@pytest.mark.parametrize(
    ("arguments", "redirections", "code"),
    [
        (["--help"], ">&-", 0), (["--help"], "> /dev/full", 2), (["--help"], ">&GONE", 141),
        (["--version"], "> /dev/full", 2), (["--version"], ">&GONE", 141),
        (["bundle", "verify"], "> /dev/full", 2), (["bundle", "verify"], ">&GONE", 141),
        (["dance"], "2>&-", 2), (["bundle", "verify", "nothing", "--json"], "&> /dev/full", 2),
    ],
)  # fmt: skip
def test_a_report_that_is_the_result_must_arrive(tmp_path, arguments, redirections, code):
    done = shell(redirections, *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    if code == 2 and redirections == "> /dev/full":
        assert done.stderr.startswith(b"ditto: OutputError: ")
        assert len(done.stderr.splitlines()) == 1


@unix
def test_no_file_gets_the_number_of_a_closed_standard_stream(tmp_path):
    code = "from ditto.app.console import open_streams; open_streams(); f = open('file', 'wb'); import os; os.write(2, b'!')"
    command = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", sys.executable, "-c", code]
    assert subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode == 0
    assert (tmp_path / "file").read_bytes() == b""


def test_a_note_is_one_line_however_long(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ditto"), "handlers", [])  # the one that is added prints to capsys's stream
    console.show_warnings(console.open_console())
    logging.getLogger("ditto").warning("words " * 40)
    assert capsys.readouterr().err.splitlines() == ["note: " + "words " * 40]


def test_what_a_file_says_controls_no_terminal():
    assert printable("a\x1b[2Kb\nvalid: \x9bé 人\ud800") == r"a\x1b[2Kb\nvalid: \x9bé 人\ud800"


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "utf-8"])
def test_tables_and_lines_take_every_character(charset):
    from ditto.app.cli_bundle import app as bundle

    name = "動画\udce9"
    done = CliRunner(charset=charset).invoke(bundle, ["verify", name])
    assert done.exit_code == 2
    assert done.stderr_bytes.startswith(b"ditto: NoBundleError: ")


def test_streams_that_are_not_files_are_taken(monkeypatch):
    class Plain:
        """What some development environments put there: no encoding, no flush."""

        def __init__(self):
            self.text = ""

        def write(self, text):
            self.text += text

    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, Plain())
    console.open_streams()
    console.print_error("one")
    console.print_result("two")
    table = Table("three")
    console.print_table(table)
    console.open_console().print("four")
    assert "two" in sys.stdout.text
    assert "three" in sys.stdout.text
    assert "one" in sys.stderr.text


def test_a_report_is_lost_with_a_note_only_if_the_work_is_complete(monkeypatch, capsys):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        console.print_result("done")
        patch.setattr(sys, "stdout", Full())
        with pytest.raises(OutputError, match="standard output: No space left"):
            console.print_output("found")
    assert "note: the report cannot be written" in capsys.readouterr().err
