"""What commands share: Ctrl-C while modules are imported, errors in one line, arguments."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ditto.commands import Arguments, existing_folder, real_number, whole_number

ROOT = Path(__file__).parents[1]
unix = pytest.mark.skipif(os.name == "nt", reason="signals as on Unix")

# A stand-in for a module of native code: Ctrl-C comes while it is imported, and KeyboardInterrupt becomes something else.
SLOW_IMPORT = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass  # the handler runs here
except KeyboardInterrupt:
    raise ImportError("initialization failed") from None
"""


def ended(words, cwd, **environment):
    """Exit code and standard error of `python WORDS`."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(cwd), str(ROOT)]), "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


@pytest.fixture
def stand_in(tmp_path):
    """Makes a folder whose module of a name is the stand-in."""

    def make(name):
        (tmp_path / f"{name}.py").write_text(SLOW_IMPORT)
        return tmp_path

    return make


@unix
@pytest.mark.parametrize(
    ("slow", "words"),
    [
        ("typer", ["-m", "ditto", "animate"]),
        ("torch", ["-m", "ditto", "train", "codec", "clips", "-o", "run"]),
        ("torch", ["-m", "ditto.training.latent_demo", "--system", "v"]),
        ("torch", ["-m", "ditto.training.motion", "data", "out"]),
        ("cv2", ["-m", "ditto.training.latent.data", "a", "b", "c"]),
        ("torch", ["-m", "benchmarks.device", "--device", "cpu", "--tiny"]),
        ("numpy", ["-m", "benchmarks.life"]),
    ],
)
def test_ctrl_c_while_a_command_is_imported_ends_it_in_one_line(stand_in, slow, words):
    code, told = ended(words, stand_in(slow))
    assert (code, told.count("\n")) == (130, 1) and told.startswith("ditto: interrupted; ")


@unix
def test_ctrl_c_while_a_command_imports_for_its_work_waits_for_the_import(stand_in):
    folder = stand_in("native")
    (folder / "work.py").write_text(
        "import time\nfrom ditto.commands import interruption, run\n\n\n"
        "def main():\n    import native\n    print('imported', flush=True)\n    time.sleep(600)\n\n\n"
        "run(main)\n"
    )
    code, told = ended(["work.py"], folder)
    assert (code, told) == (130, "ditto: interrupted; what is finished is kept\n")


@unix
def test_a_program_of_a_user_that_imports_ditto_keeps_its_own_ctrl_c(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("import ditto.training\n")
    (tmp_path / "theirs" / "program.py").write_text(
        "import signal\nassert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    assert ended(["-m", "theirs.program"], tmp_path) == (0, "")


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        ("InputError('no such file')", 2, "ditto: InputError: no such file\n"),
        ("BundleError('damaged\\nfile')", 1, "ditto: BundleError: damaged file\n"),
        ("KeyboardInterrupt", 130, "ditto: interrupted; what is finished is kept\n"),
    ],
)
def test_errors_of_a_module_that_is_run_are_one_line(tmp_path, raised, code, told):
    program = (
        "from ditto.commands import run\nfrom ditto.errors import BundleError, InputError\n\n\n"
        f"def main():\n    raise {raised}\n\n\nrun(main)\n"
    )
    assert ended(["-c", program], tmp_path) == (code, told)


@pytest.mark.parametrize(
    "given",
    [["--count", "0"], ["--count", "1e9"], ["--share", "nan"], ["--share", "-1"], ["--from", "none"], ["--from", __file__]],
)
def test_arguments_that_make_no_sense_are_refused_in_one_line(given, capsys):
    parser = Arguments(prog="python -m benchmarks.some")
    parser.add_argument("--count", type=whole_number(1, 100))
    parser.add_argument("--share", type=real_number(0, 1))
    parser.add_argument("--from", type=existing_folder)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(given)
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.count("\n") == 1
    assert told.startswith(f"python -m benchmarks.some: error: argument {given[0]}: expected ")
    good = parser.parse_args(["--count", "100", "--share", "0.5", "--from", str(ROOT)])
    assert (good.count, good.share, vars(good)["from"]) == (100, 0.5, ROOT)
