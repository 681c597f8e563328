"""Every block of the documentation: Python runs, shell lines parse, JSON loads. CONTRIBUTING.md says how blocks are marked."""

import ast
import asyncio
import importlib
import importlib.util
import inspect
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from wav import write_wav

import ditto
from ditto.app.cli import app
from ditto.controls.timeline_file import parse_timeline
from ditto.media.audio import read_audio

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"python", "sh", "json", "yaml", "text"}
REASONS = {"needs a GPU", "needs the published checkpoints", "needs livekit-agents", "needs pipecat-ai"}


class Block(NamedTuple):
    """A fenced block: where it begins, its language, the comment before it (or nothing), and its text."""

    page: Path
    line: int
    language: str
    mark: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    lines, found, start = page.read_text().splitlines(), [], None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
        else:
            before = lines[start - 1] if start else ""
            mark = before.strip() if before.startswith("<!--") else ""
            found.append(Block(page, start + 1, lines[start][3:], mark, "\n".join(lines[start + 1 : number])))
            start = None
    assert start is None, f"{page}: a block is not closed"
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def meaning(mark: str) -> tuple[str, str]:
    """What is done with a block, "run", "needs", "run by" or "not run", and the module, test or reason.

    Raises:
        ValueError: an unknown mark.
    """
    if not mark:
        return "run", ""
    said = re.fullmatch(r"<!-- (needs|run by|not run): (.+) -->", mark)
    if said is None or (said[1] == "not run" and said[2] not in REASONS):
        raise ValueError(f"unknown mark {mark}")
    return said[1], said[2]


def test_every_block_says_its_language_and_has_a_known_mark():
    for block in BLOCKS:
        assert block.language in LANGUAGES, f"{block.page.name}:{block.line}"
        meaning(block.mark)
    python = [meaning(block.mark)[0] for block in BLOCKS if block.language == "python"]
    assert {kind: python.count(kind) for kind in ("run", "needs", "run by", "not run")} == {
        "run": 24, "needs": 3, "run by": 17, "not run": 6
    }  # fmt: skip


LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")
PATH = re.compile(r"(?<![\w./-])(?:benchmarks|controls|csrc|ditto|docs|engines|examples|requirements|tests)/[\w./*-]*[\w*/]")
OTHER = ("NOTICE", "benchmarks/README.md", "clients/web/README.md", "ditto/bundles/lite/README.md")
OTHER_PAGES = [ROOT / name for name in OTHER]


def missing(page: Path, text: str) -> list[str]:
    """The relative links of a page, and the paths from the root that it names, that lead to no file or folder."""
    links = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    return links + [path for path in PATH.findall(text) if not any(ROOT.glob(path.rstrip("/")))]


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: page.name)
def test_every_link_and_path_leads_to_a_file(page):
    assert missing(page, page.read_text()) == []


@pytest.mark.parametrize("text", ["[a](docs/no.md)", "see `ditto/no.py`", "![a](docs/demo.jpg)", "`tests/lite/no_*.py`"])
def test_a_link_or_path_to_nothing_is_found(text):
    assert missing(ROOT / "README.md", text)


def resolve(name: str) -> object:
    """What a dotted name stands for; None where a package that it needs is not installed.

    Raises:
        AttributeError, ModuleNotFoundError: nothing.
    """
    module, *rest = name.split(".")
    value: object = importlib.import_module(module)
    for part in rest:
        module += f".{part}"
        if not hasattr(value, part):
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                if error.name is None or not error.name.startswith("ditto"):
                    return None
                raise
        value = getattr(value, part)
    return value


NAMES = sorted({name for page in PAGES for name in re.findall(r"`(ditto(?:\.\w+)+)", page.read_text())})


@pytest.mark.parametrize("name", NAMES)
def test_every_dotted_name_stands_for_something(name):
    resolve(name)


@pytest.mark.parametrize("name", ["ditto.motion.motion.motion", "ditto.nothing", "ditto.motion.emotion.MOODS"])
def test_a_dotted_name_of_nothing_is_found(name):
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        resolve(name)


@pytest.mark.parametrize("mark", ["<!-- not run: slow -->", "<!-- skip -->", "<!-- not run -->", "<!--needs: torch-->"])
def test_an_unknown_mark_is_refused(mark):
    with pytest.raises(ValueError, match="unknown mark"):
        meaning(mark)


def compiled(block: Block):
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    text = "\n" * block.line + block.text
    return compile(text, str(block.page), "exec", flags=flags, dont_inherit=True)


def execute(code, names: dict[str, object]) -> None:
    """Run a block; one that awaits runs in an event loop."""
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, names))
    else:
        exec(code, names)


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite", max_sessions=4)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A place to run in: the examples, small and short."""
    (tmp_path / "examples").mkdir()
    Image.open(ROOT / "examples" / "portrait.jpg").resize((256, 256)).save(tmp_path / "examples" / "portrait.jpg")
    one = np.asarray(Image.open(tmp_path / "examples" / "portrait.jpg"))
    Image.fromarray(np.concatenate([one, one[:, ::-1]], axis=1)).save(tmp_path / "two.jpg")
    speech = np.int16(32767 * read_audio(ROOT / "examples" / "speech.flac")[: 16 * 640])
    write_wav(tmp_path / "examples" / "speech.flac", speech)  # told by what it holds, not by its name
    monkeypatch.chdir(tmp_path)
    return tmp_path


def torch_names(folder: Path) -> dict[str, object]:
    """What the page on engines takes for granted: a network, its inputs, and a network file."""
    from engine_networks import TINY, make

    from ditto.engines.networks import example_of

    (folder / "network.onnx").write_bytes((ROOT / "ditto" / "bundles" / "lite" / "motion.onnx").read_bytes())
    network = make(TINY, "warping")
    inputs = example_of(network).inputs
    volume, source, driving = (inputs[name].numpy() for name in ("feature_3d", "kp_source", "kp_driving"))
    return {"network": network, "volume": volume, "source": source, "driving": driving}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, folder, head, portrait):
    shown = []
    names: dict[str, object] = {
        "ditto": ditto, "head": head, "portrait": portrait, "show": lambda *what: shown.append(what),
        "microphone": np.split(read_audio("examples/speech.flac"), 4), "pcm": np.zeros(4800, np.int16),
        "heard": np.zeros(3200, np.int16),
    }  # fmt: skip
    for block in blocks_of(page):
        if block.language != "python":
            continue
        kind, what = meaning(block.mark)
        code = compiled(block)
        if kind == "needs" and importlib.util.find_spec(what) is None:
            pytest.skip(f"{page.name}, line {block.line}: needs {what}")
        if kind == "needs" and what == "torch":
            names |= torch_names(folder)
        if kind == "run by":
            assert page.name in (ROOT / what).read_text()
        if kind in ("run", "needs"):
            execute(code, names)
    if page.name == "README.md":
        assert (folder / "out.mp4").stat().st_size > 1000
    assert bool(shown) == (page.name in ("README.md", "scenes.md", "streaming.md"))


def test_json_blocks_load():
    found = [json.loads(block.text) for block in BLOCKS if block.language == "json"]
    assert found


def test_yaml_blocks_are_timelines_and_the_page_s_python_says_the_same():
    read = {block.page.name: parse_timeline(block.text, block.page.name) for block in BLOCKS if block.language == "yaml"}
    names: dict[str, object] = {"ditto": ditto}
    execute(compiled(next(block for block in blocks_of(ROOT / "docs/timeline.md") if block.language == "python")), names)
    assert read["timeline.md"] == names["edit"]


def commands_of(text: str) -> list[list[str]]:
    """The commands of a shell block, comments and continuations taken off."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def inline_commands(page: Path) -> list[list[str]]:
    """Commands in the running text, where they are given whole."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    found = re.findall(r"`((?:ditto|python -m|make|pip install) [^`]*)`", prose)
    return [shlex.split(text.replace("\n", " ")) for text in found if "..." not in text]


COMMANDS = [command for block in BLOCKS if block.language == "sh" for command in commands_of(block.text)]
COMMANDS += [command for page in PAGES for command in inline_commands(page)]


class Parsed(Exception):
    """A program has read its arguments."""


def check_program(run, arguments: list[str], monkeypatch) -> None:
    """That an argparse program takes the arguments; it goes no further."""
    import argparse

    parse = argparse.ArgumentParser.parse_args

    def only_parse(self, *given, **named):
        parse(self, *given, **named)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    monkeypatch.setattr("ditto.commands._existing", lambda text, *kinds: Path(text))  # pages name folders of their own
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(Parsed):
        run()


def check_command(command: list[str], monkeypatch) -> None:
    """Raises, or fails, where a command is none or takes no such arguments."""
    program, *arguments = command
    program = program.removeprefix(".venv/bin/")
    if program == "ditto":
        called = get_command(app)
        while arguments and hasattr(called, "commands"):
            called = called.commands[arguments.pop(0)]
        if arguments and arguments != ["--help"]:  # a command is also named without any
            called.make_context(program, arguments)
    elif program == "make":
        assert subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True).returncode == 0
    elif program == "pip":
        assert arguments[0] in ("install", "uninstall", "check", "download")
        if "-r" in arguments:
            assert (ROOT / arguments[arguments.index("-r") + 1]).is_file()
        declared = (ROOT / "pyproject.toml").read_text()
        for extra in re.findall(r"\w+", "".join(re.findall(r"\[(.*?)\]", " ".join(arguments)))):
            assert re.search(rf"^{extra} = \[", declared, re.M), extra
    elif program == "python" and arguments[0] == "-m":
        module = arguments[1]
        source = importlib.util.find_spec(module)
        assert source is not None and source.origin is not None
        if "Arguments(" in Path(source.origin).read_text():
            check_program(lambda: runpy.run_module(module, run_name="__main__"), arguments[1:], monkeypatch)
    elif program == "python":
        assert (ROOT / arguments[0]).is_file()
    else:
        assert program == ".ci/run", f"an unknown command: {command}"
        assert (ROOT / program).is_file()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_shell_lines_are_commands_there_are(command, monkeypatch):
    try:
        check_command(command, monkeypatch)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        pytest.skip("needs torch (make torch)")


@pytest.mark.parametrize(
    "line",
    [
        "ditto animate a.png a.wav -o o.mp4 --emotions happy", "ditto animate --help-me", "ditto dance", "make everything",
        "ditto animate -o o.mp4", "pip install '.[nothing]'", "python -m benchmarks.rtf --no-such", "rm x",
        "python -m benchmarks.nothing",
    ],
)  # fmt: skip
def test_a_line_that_is_no_command_is_found(line, monkeypatch):
    with pytest.raises((Exception, SystemExit)):
        check_command(shlex.split(line), monkeypatch)
