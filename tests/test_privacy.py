"""No connection, no telemetry, no file that nobody asked for: what the system calls of whole programs say."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from wav import write_wav

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "examples" / "portrait.jpg"
STRACE = shutil.which("strace")
CALLS = "network,openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat"
# The system's own name cache and list of addresses, both local; where espeak-ng finds no sound server.
NOBODY = re.compile(r'"/var/run/nscd/socket"|AF_NETLINK|"/dev/null"')

strace = pytest.mark.skipif(STRACE is None, reason="needs strace (apt install strace)")

SESSION = """
import sys, numpy as np, ditto
from ditto.live import SegmentEnd
head = ditto.load("lite")
portrait = head.register(sys.argv[1], max_size=256)
with head.blocking_session(portrait, latency="low", idle=False) as session:
    session.push(np.zeros(6400, np.float32), 16000)
    session.flush()
    for item in session:
        if isinstance(item, SegmentEnd):
            break
print("spoken")
"""


def environment(home: Path) -> dict[str, str]:
    """Ours, but for what says where a user's files are and what the user has chosen; nothing is compiled to files."""
    chosen = ("XDG_", "MPL", "ORT_", "HF_", "DITTO_", "DO_NOT_TRACK", "DISABLE_TELEMETRY")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(chosen)}
    return kept | {
        "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"
    }  # fmt: skip


def reached(trace: str) -> list[str]:
    """The calls that talk to somebody else: connections, and datagrams to an address."""
    talk = re.compile(r"\b(connect\(\d+, \{|sendto\(\d+, .*sa_family=|send(m|mm)sg\(\d+, .*sa_family=)")
    return [line for line in trace.splitlines() if talk.search(line) and not NOBODY.search(line)]


def made(trace: str) -> set[Path]:
    """Paths of everything that was created, written, renamed or removed, devices apart."""
    found = set()
    for line in trace.splitlines():
        call = re.search(r"\b([a-z0-9]+)\((.*)\) += (-?\d+)", line)
        if call is None or call[3].startswith("-"):
            continue
        if call[1] in ("open", "openat") and not re.search(r"O_WRONLY|O_RDWR|O_CREAT", call[2]):
            continue
        if call[1] in ("open", "openat") or re.match(r"creat|mkdir|rename|link|symlink|unlink", call[1]):
            found |= {Path(name) for name in re.findall(r'"([^"]*)"', call[2])}
    return {path for path in found if path.parts[:2] not in (("/", "dev"), ("/", "proc"))}


def traced(command: list[object], folder: Path, home: Path | None = None) -> tuple[str, subprocess.CompletedProcess[str]]:
    """A program under strace in `folder`: what it called, and how it ended."""
    (folder / "work").mkdir()
    (folder / "home").mkdir()
    done = subprocess.run(
        [str(STRACE), "-f", "-e", f"trace={CALLS}", "-o", str(folder / "trace"), *map(str, command)],
        cwd=folder / "work", env=environment(home or folder / "home"), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return (folder / "trace").read_text(errors="replace"), done


@pytest.fixture(scope="module")
def saying(tmp_path_factory):
    return write_wav(tmp_path_factory.mktemp("sound") / "short.wav", np.zeros(6400, np.int16))


def test_a_trace_shows_what_talks_and_what_writes():
    trace = """\
1 connect(7, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.1")}, 16) = 0
1 sendto(7, "x", 1, MSG_NOSIGNAL, {sa_family=AF_INET, sin_port=htons(9)}, 16) = 1
1 sendto(9, "HTTP/1.1 200 OK", 15, 0, NULL, 0) = 15
1 openat(AT_FDCWD, "/home/u/.cache/db", O_RDWR|O_CREAT, 0600) = 3
1 openat(AT_FDCWD, "/etc/hosts", O_RDONLY) = 3
1 mkdir("/home/u/.config", 0777) = 0
1 mkdir("/home", 0777) = -1 EEXIST (File exists)
1 openat(AT_FDCWD, "/dev/null", O_RDWR) = 3"""
    assert len(reached(trace)) == 2
    assert made(trace) == {Path("/home/u/.cache/db"), Path("/home/u/.config")}


@strace
def test_the_tracer_sees_what_it_is_to_see(tmp_path):
    code = "import socket; open('file', 'w'); socket.create_connection(('127.0.0.1', 9))"
    trace, _ = traced([sys.executable, "-c", code], tmp_path)
    assert len(reached(trace)) == 1
    assert made(trace) == {Path("file")}


@strace
@pytest.mark.parametrize("home", ["a home", "an unwritable home"])
def test_animate_connects_to_nobody_and_writes_its_output_and_its_key(tmp_path, saying, home):
    place = None if home == "a home" else Path("/proc/nothing")
    command = [sys.executable, "-m", "ditto", "animate", PICTURE, saying, "-o", "out.mp4", "--max-size", 256, "-q"]
    if place is not None:
        command.append("--no-provenance")  # there is no place for a key
    trace, done = traced(command, tmp_path, place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert reached(trace) == []
    keys = tmp_path / "home" / ".local" / "share" / "ditto"
    outputs = {path for path in made(trace) if path.parent not in (Path(), tmp_path / "work", keys)}
    assert outputs <= {keys, keys.parent, keys.parent.parent}
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["out.mp4"]
    signs = place is None and find_spec("c2pa") is not None
    kept = [path.name for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert kept == ["signing.pem"] * signs


@strace
def test_doctor_connects_to_nobody_and_writes_nothing(tmp_path):
    trace, done = traced([sys.executable, "-m", "ditto", "doctor"], tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert reached(trace) == []
    assert made(trace) == set()


@strace
def test_a_session_in_python_connects_to_nobody_and_writes_nothing(tmp_path):
    trace, done = traced([sys.executable, "-c", SESSION, PICTURE], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "spoken\n", "")
    assert reached(trace) == []
    assert made(trace) == set()


@strace
def test_the_server_listens_and_connects_to_nobody(tmp_path):
    pytest.importorskip("uvicorn", reason="needs the server's packages (pip install ditto-talking-head[serve])")
    from websockets.sync.client import connect

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "home").mkdir()
    command = [
        STRACE, "-f", "-I2", "-e", f"trace={CALLS}", "-o", tmp_path / "trace", sys.executable, "-m", "ditto", "serve",
        "--port", port, "--max-size", 256,
    ]  # fmt: skip
    server = subprocess.Popen(
        [str(part) for part in command], cwd=tmp_path, env=environment(tmp_path / "home"), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        assert f":{port}/" in server.stdout.readline()
        for page in ("", "api/info"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=60) as answer:
                assert answer.status == 200
        with connect(f"ws://127.0.0.1:{port}/api/live", max_size=None) as client:
            client.send(json.dumps({"type": "start", "rate": 16000, "pace": "fast", "idle": False}))
            client.send(bytes(12800))
            client.send(json.dumps({"type": "flush"}))
            ends = (json.loads(said)["type"] for said in client if isinstance(said, str))
            assert "segment_end" in ends
        (traced_one,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        os.kill(int(traced_one), signal.SIGTERM)
        server.communicate(timeout=60)
    finally:
        server.kill()
    trace = (tmp_path / "trace").read_text(errors="replace")
    bound = re.findall(r"\bbind\(\d+, (\{.*?\}), ", trace)
    assert [address for address in bound if "AF_NETLINK" not in address] == [bound[0]]
    assert f"htons({port})" in bound[0]
    assert reached(trace) == []
    assert made(trace) == set()


def test_telemetry_is_off_from_the_import_of_ditto_on_unless_the_user_has_chosen(tmp_path):
    code = "import ditto, os; print(*(os.environ[name] for name in ditto.privacy.SWITCHES))"

    def said(**chosen):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(tmp_path) | chosen, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert said() == ["1", "1"]
    assert said(ORT_DISABLE_TELEMETRY="0", HF_HUB_DISABLE_TELEMETRY="") == ["0", "1"]
