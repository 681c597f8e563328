"""The server of the editor: what it refuses, and that it loses nothing then."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="ditto edit needs an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("httpx", reason="requests of the tests: pip install httpx")

import httpx
from serving import running
from wav import write_wav

import ditto
from ditto.controls.timeline import Timeline
from ditto.controls.timeline_file import read_timeline, write_timeline
from ditto.editor import exports
from ditto.editor.app import MOST_BODY, create_app
from ditto.editor.opening import check_recording, open_project, timeline_file
from ditto.errors import InputError
from ditto.media.audio import read_audio

EXAMPLES = Path(__file__).parents[2] / "examples"
EDIT = Timeline().layer({"left_brow.y": [(0.4, 0.0), (0.8, -0.03)]})
NOTHING = {"timeline": 1}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    speech = write_wav(folder / "speech.wav", read_audio(EXAMPLES / "speech.flac")[16000:32000])
    head = ditto.load("lite")
    path = folder / "edit.yaml"
    write_timeline(EDIT, path)
    return open_project(head, head.register(EXAMPLES / "portrait.jpg", max_size=192), speech, path, folder)


@pytest.fixture(scope="module")
def client(project):
    with running(create_app(project)) as place, httpx.Client(base_url=f"http://{place}", timeout=60.0) as client:
        yield client


def refusal(answer, status=422):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["text"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "expected a JSON object with frame and timeline"),
        (b"[1]", "expected a JSON object"),
        (b"[" * 100_000, "expected a JSON object"),
        (b'{"frame": 0}', "expected a JSON object with frame and timeline"),
        (b'{"frame": 25, "timeline": {"timeline": 1}}', "a whole number in [0, 24], got 25"),
        (b'{"frame": true, "timeline": {"timeline": 1}}', "a whole number in [0, 24], got True"),
        (b'{"frame": 0, "timeline": {"timeline": 1, "layers": [{"controls": {"jawopen": 1}}]}}', "jawOpen"),
        (b'{"frame": 0, "timeline": {"timeline": 1, "layers": [{"controls": {"head.yaw": NaN}}]}}', "head.yaw"),
        (b'{"frame": 0, "timeline": {"timeline": 1, "events": [{"kind": "blink", "at": 9}]}}', "ends at 1.00 s"),
    ],
)
def test_a_frame_that_cannot_be_is_refused(client, body, words):
    assert words in refusal(client.post("/api/frame", content=body))


def test_too_long_a_body_is_refused(client):
    assert "larger" in refusal(client.post("/api/frame", content=b" " * (MOST_BODY + 1)), 413)


def test_the_page_shows_the_frames_that_are_exported(client, project):
    answer = client.post("/api/frame", json={"frame": 20, "timeline": client.get("/api/project").json()["timeline"]})
    assert answer.headers["content-type"] == "image/jpeg"
    points = json.loads(answer.headers["x-points"])
    assert len(points) == 21 and all(0.0 < x < 1.0 and 0.0 < y < 1.0 for x, y in points)
    shown, frames = project.shown(20, EDIT), list(project.frames(EDIT))
    assert len(frames) == 25 and (shown.image == frames[20]).all()
    assert answer.content == project.preview(20, EDIT)[0]


def test_a_timeline_that_cannot_be_leaves_the_file(client, project):
    wrong = {"timeline": 1, "layers": [{"controls": {"jawopn": 1}}]}
    assert "jawOpen" in refusal(client.put("/api/timeline", json={"timeline": wrong}))
    assert read_timeline(project.path) == EDIT


def test_other_sites_and_unknown_pages_are_refused(client):
    assert client.post("/api/frame", content=b"{}", headers={"origin": "http://elsewhere.example"}).status_code == 403
    assert client.get("/favicon.ico").headers["content-type"] == "image/svg+xml"
    assert client.get("/api/nothing").json()["error"]["code"] == "not_found"
    assert client.get("/page/..%2f..%2fapp.py").status_code == 404
    assert client.get("/api/exports/none").json()["error"]["text"].startswith("expected the id of an export")


@pytest.mark.parametrize("kind", ["exe", None, 3])
def test_an_unknown_format_is_refused(client, kind):
    answer = client.post("/api/exports", json={"format": kind, "timeline": NOTHING})
    assert "expected a format of mp4" in refusal(answer)


def test_an_export_that_fails_says_why_and_gives_no_file(client, monkeypatch):
    def fail(*_, **__):
        raise InputError("expected room on the disk, got none; make some")

    monkeypatch.setattr(exports, "write_timeline", fail)
    job = client.post("/api/exports", json={"format": "timeline", "timeline": NOTHING}).json()
    while job["state"] == "running":
        job = client.get(f"/api/exports/{job['id']}").json()
    assert job["state"] == "failed" and "room on the disk" in job["error"]
    assert "expected an export that is done" in refusal(client.get(f"/api/exports/{job['id']}/file"), 409)


@pytest.mark.parametrize(
    ("recording", "path", "words"),
    [
        ("none.wav", "edit.yaml", "none.wav"),
        ("none.take", "edit.yaml", "none.take"),
        ("speech.wav", "edit.txt", "ends in .yaml"),
        ("speech.wav", "bad.yaml", "bad.yaml, line 1"),
        ("speech.wav", "no/edit.yaml", "no such folder; make it first"),
    ],
)
def test_wrong_files_are_told_before_anything_is_loaded(tmp_path, recording, path, words):
    write_wav(tmp_path / "speech.wav", read_audio(EXAMPLES / "speech.flac")[:8000])
    (tmp_path / "bad.yaml").write_text("timeline: 7\n")
    with pytest.raises(InputError) as caught:
        check_recording(tmp_path / recording, tmp_path / path)
    assert words in str(caught.value)


def test_the_timeline_file_lies_beside_the_recording():
    assert timeline_file(Path("a/talk.wav")) == Path("a/talk.yaml")


def test_the_command_serves_its_page_until_a_signal(tmp_path):
    speech = write_wav(tmp_path / "speech.wav", read_audio(EXAMPLES / "speech.flac")[16000:32000])
    command = [sys.executable, "-m", "ditto", "edit", EXAMPLES / "portrait.jpg", speech, "--max-size", "192", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        where = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert where is not None
        with httpx.Client(base_url=where[0], timeout=60.0) as client:
            for frame in range(20):  # longer than the server's tick of 0.1 s
                answer = client.post("/api/frame", json={"frame": frame, "timeline": NOTHING})
                assert answer.headers["content-type"] == "image/jpeg"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in errors
