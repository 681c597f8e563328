"""Pulling from a hub that a thread of the test plays: HTTP on the loopback, nothing else."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="making a bundle needs torch (pip install ditto[full])")
huggingface_hub = pytest.importorskip(
    "huggingface_hub", reason="pulling needs huggingface_hub (pip install ditto[full])"
)

from checkpoints import convert_tiny, publish  # noqa: E402

from ditto.app.cli import app  # noqa: E402
from ditto.bundle import Bundle  # noqa: E402
from ditto.errors import BundleError, InputError, OutputError  # noqa: E402
from ditto.full import hub  # noqa: E402
from ditto.full.conversion import bundling  # noqa: E402

MOTION = "ditto_pytorch/models/lmdm_v0.4_hubert.pth"


class Hub(ThreadingHTTPServer):
    """Answers as the hub does for files of a revision, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder = folder
        self.asked: list[tuple[str, str, str | None]] = []
        self.break_off: dict[str, int] = {}  # file -> bytes after which its first answer ends
        self.failures: dict[str, tuple[int, str]] = {}  # file -> status, error code
        self.address = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *words):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        repository, revision, file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", self.path).groups()
        span = self.headers.get("Range")
        self.server.asked.append((self.command, file, span))
        path = self.server.folder / repository / file
        status, code = self.server.failures.get(file, (200, "") if path.is_file() else (404, "EntryNotFound"))
        if status != 200:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        small = len(data) < 10_000 and not file.endswith(".pth")  # Git names those it keeps itself by SHA-1
        digest = hashlib.sha1(b"blob %d\0" % len(data) + data) if small else hashlib.sha256(data)
        start = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("ETag", f'"{digest.hexdigest()}"')
        self.send_header("X-Repo-Commit", revision)
        self.send_header("Content-Length", str(len(data) - start))
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            end = self.server.break_off.pop(file, len(data))
            self.wfile.write(data[start:end])
            self.close_connection = end < len(data)


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """The tiny published folder as the hub's two repositories."""
    folder, published = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("published")
    publish(published)
    shutil.move(published / "hubert-large-ls960-ft", folder / hub.HUBERT.name)
    shutil.move(published, folder / hub.DITTO.name)
    return folder


@pytest.fixture
def server(repositories, tmp_path, monkeypatch):
    """The hub, its client set to it with an empty cache, and a converter that knows the tiny sizes."""
    folder = Path(shutil.copytree(repositories, tmp_path / "hub"))
    server = Hub(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    download = partial(huggingface_hub.hf_hub_download, endpoint=server.address, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(bundling, "convert", convert_tiny)
    monkeypatch.setenv("DITTO_BUNDLES", str(tmp_path / "bundles"))
    tiny = {name: size for name, size in hub.DITTO.files.items() if not name.endswith(".onnx")}
    monkeypatch.setattr(hub, "FULL", (hub.Repository(**{**vars(hub.DITTO), "files": tiny}), hub.HUBERT))
    yield server
    server.shutdown()
    server.server_close()


def test_a_pulled_bundle_is_found_by_name(server, tmp_path):
    done = CliRunner().invoke(app, ["bundle", "pull", "full", "--yes"])
    assert done.exit_code == 0, done.stderr
    for text in ("digital-avatar/ditto-talkinghead", "Apache-2.0", "MIT", "InsightFace"):
        assert text in done.stderr
    assert "full: all 10 files passed" in done.stdout.replace("\n", " ")
    assert Bundle.open("full").path == tmp_path / "bundles" / "full"
    revisions = {path.name for path in (tmp_path / "cache").glob("models--*/snapshots/*")}
    assert revisions == {hub.DITTO.revision, hub.HUBERT.revision}


def test_what_is_in_the_cache_is_not_fetched_again(server, tmp_path):
    hub.pull()
    server.asked.clear()
    hub.pull(tmp_path / "again").verify()
    assert server.asked == [], "a pinned revision in the cache asks the hub nothing"


def test_a_broken_connection_is_taken_up_again(server, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)
    server.break_off[MOTION] = 100_000
    hub.pull().verify()
    ranges = [span for method, file, span in server.asked if (method, file) == ("GET", MOTION)]
    assert ranges[0] is None
    assert re.fullmatch(r"bytes=\d{4,}-\d*", ranges[1]), "the second request asks for the rest alone"


def test_a_file_that_changed_in_the_cache_is_found(server, tmp_path):
    hub.pull()
    blob = next((tmp_path / "cache").rglob("lmdm_v0.4_hubert.pth")).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=rf"{MOTION}: expected the digest .* delete that file"):
        hub.pull(tmp_path / "again")
    assert not (tmp_path / "again").exists()
    small = next((tmp_path / "cache").rglob("config.json"))
    assert len(small.resolve().name) == 40
    hub.check(small, hub.HUBERT, "config.json")
    small.resolve().write_text("{}")
    with pytest.raises(BundleError, match=r"config\.json: expected the digest"):
        hub.check(small, hub.HUBERT, "config.json")


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "EntryNotFound", "is not on the hub"),
        (404, "RepoNotFound", "is not on the hub"),
        (404, "RevisionNotFound", "is not on the hub"),
        (403, "GatedRepo", "needs a login"),
        (418, "", "could not be fetched"),
    ],
)
def test_what_the_hub_refuses_is_told(server, tmp_path, status, code, message):
    server.failures[MOTION] = (status, code)
    with pytest.raises(BundleError, match=rf"{MOTION} at revision e4a2f603 .*{message}"):
        hub.pull()
    assert not (tmp_path / "bundles" / "full").exists()


def test_a_hub_out_of_reach_is_told(server, monkeypatch):
    def unreachable(*names, **more):
        raise huggingface_hub.errors.LocalEntryNotFoundError("An error happened while trying to locate the file")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(BundleError, match="the hub cannot be reached; check the connection, or HF_ENDPOINT"):
        hub.pull()


def test_a_full_disk_is_told(server, monkeypatch):
    def full(*names, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(OutputError, match="got a full disk; free space, or set HF_HOME"):
        hub.pull()


def test_offline_nothing_is_asked_of_the_hub(tmp_path):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "DITTO_BUNDLES": str(tmp_path / "b")}
    command = [sys.executable, "-m", "ditto", "bundle", "pull", "full", "--yes", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "HF_HUB_OFFLINE is set" in json.loads(done.stdout)["message"]


def test_a_bundle_that_is_there_is_told_before_anything_is_fetched(server, tmp_path):
    hub.pull()
    server.asked.clear()
    with pytest.raises(InputError, match="which is a bundle; give another path"):
        hub.pull()
    assert server.asked == []
    hub.pull(replace=True).verify()


def test_nobody_agrees_unasked(server):
    for arguments, message in ((["full"], "add --yes"), (["lite", "--yes"], "expected full, the bundle that can be fetched")):
        done = CliRunner().invoke(app, ["bundle", "pull", *arguments])
        assert done.exit_code == 2
        assert message in done.stderr
    assert server.asked == []


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("\n", 2)])
def test_the_licences_are_asked_for(server, monkeypatch, answer, code):
    monkeypatch.setattr("ditto.app.cli_bundle.is_interactive", lambda: True)
    done = CliRunner().invoke(app, ["bundle", "pull"], input=answer)
    assert done.exit_code == code, done.stderr
    assert "Fetch these files under these licences?" in done.stderr
    assert bool(server.asked) == (code == 0)


def test_without_its_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'ditto-talking-head\[full\]'"):
        hub.pull()
