"""The server around a stand-in head: token, limits, uploads, clients that come, go and misbehave."""

import asyncio
import gc
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")

import httpx
from serving import PATIENT, StandInHead, ended, received, running, said, started, tone, until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from ditto.errors import InputError, SessionError, TooSlowError
from ditto.live.server.access import check_token
from ditto.live.server.app import create_app
from ditto.live.server.protocol import ProtocolError, Start, error_of
from ditto.live.server.run import Address, listen

EXAMPLES = Path(__file__).parents[3] / "examples"
TOKEN = "correct-horse-battery"


# Who may ask


@pytest.mark.parametrize(
    ("host", "token", "expected"),
    [
        ("0.0.0.0", "", "--token auto"),
        ("192.168.1.5", "", "expected a token"),
        ("::", "", "expected a token"),
        ("127.0.0.1", "short", "at least 16"),
        ("0.0.0.0", "with space and more of it", "letters, digits"),
    ],
)
def test_an_address_that_others_reach_needs_a_good_token(host, token, expected):
    with pytest.raises(InputError, match=expected):
        Address(host=host, token=token)


def test_loopback_needs_no_token_and_auto_makes_a_good_one():
    for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
        check_token(host, "")
    made = [Address(host="0.0.0.0", token="auto").token for _ in range(2)]
    assert made[0] != made[1]
    assert len(made[0]) >= 30
    made_here = Address(host="0.0.0.0", token="auto")
    with listen(Address(port=0)) as listening:
        port = listening.getsockname()[1]
        assert made_here.url_of(listening).endswith(f":{port}/?token={made_here.token}")
        chosen = Address(host="0.0.0.0", token=made[0])
        assert made[0] not in chosen.url_of(listening)  # who chose it knows it; logs need not


def test_a_port_in_use_is_an_error():
    with listen(Address(port=0)) as first:
        with pytest.raises(InputError, match="choose another --port"):
            listen(Address(port=first.getsockname()[1]))


def test_every_route_and_the_socket_require_the_token():
    head = StandInHead()
    with running(create_app(head, head.portrait, token=TOKEN)) as place:
        asked = [
            ("GET", "/"), ("GET", "/page/page.js"), ("GET", "/api/info"), ("GET", "/api/portraits/default"),
            ("POST", "/api/portraits"), ("POST", "/api/webrtc"), ("POST", "/api/clients/somebody/speech"), ("GET", "/x"),
        ]  # fmt: skip
        with httpx.Client(base_url=f"http://{place}", timeout=PATIENT) as http:
            for method, path in asked:
                for headers in ({}, {"authorization": "Bearer wrong-wrong-wrong-1"}, {"cookie": "ditto_token=x"}):
                    refused = http.request(method, path, headers=headers)
                    assert refused.status_code == 401, (method, path)
                    assert "expected the token of this server" in refused.text
            for accepted in (
                http.get("/api/info", headers={"authorization": f"Bearer {TOKEN}"}),
                http.get("/api/info", headers={"cookie": f"ditto_token={TOKEN}"}),
            ):
                assert accepted.status_code == 200
            entered = http.get("/", params={"token": TOKEN})
            assert "HttpOnly; SameSite=Strict" in entered.headers["set-cookie"]
            assert http.get("/api/info").status_code == 200  # by the cookie
        with pytest.raises(InvalidStatus) as refused_socket:
            connect(f"ws://{place}/api/live?token=wrong")
        assert refused_socket.value.response.status_code == 401
        assert b"expected the token of this server" in refused_socket.value.response.body
        socket, _ = started(place, headers={"authorization": f"Bearer {TOKEN}"})
        socket.close()


def test_pages_of_other_sites_are_refused_even_under_this_machine_s_address(served):
    _, place = served
    with httpx.Client(base_url=f"http://{place}", timeout=PATIENT) as http:
        assert http.get("/", headers={"host": "rebound.example"}).status_code == 403
        for origin in ("http://evil.example", "null", f"https://{place}.evil.example"):
            assert http.post("/api/portraits", headers={"origin": origin}, content=b"x").status_code == 403
        assert http.post("/api/portraits", headers={"origin": f"http://{place}"}, content=b"x").status_code != 403
        assert "access-control-allow-origin" not in http.get("/api/info", headers={"origin": "http://a.example"}).headers
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{place}/api/live", additional_headers={"origin": "http://evil.example"})
    assert refused.value.response.status_code == 403


def test_the_page_loads_nothing_from_other_hosts(served):
    _, place = served
    with httpx.Client(base_url=f"http://{place}", timeout=PATIENT) as http:
        page = http.get("/")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        for name in ("page/page.js", "page/page.css", "page/connection.js", "client/capture.js", "client/queue.js"):
            part = http.get(f"/{name}")
            assert part.status_code == 200
            assert "http://" not in part.text
            assert "https://" not in part.text
        assert "//" not in page.text
        assert http.get("/favicon.ico").headers["content-type"] == "image/svg+xml"
        assert http.get("/page/../app.py").status_code == 404
        assert http.get("/page/%2e%2e%2fapp.py").status_code == 404
        assert http.get("/client/package.json").status_code == 404
        assert http.get("/docs").status_code == 404


# Uploads


def test_bad_and_too_large_uploads_are_refused(served, monkeypatch):
    import ditto.portrait.registration

    head, place = served
    picture = (EXAMPLES / "portrait.jpg").read_bytes()
    with httpx.Client(base_url=f"http://{place}", timeout=PATIENT) as http:
        for body, code in ((b"", "bad_picture"), (b"no picture at all", "bad_picture"), (picture[:3000], "bad_picture")):
            refused = http.post("/api/portraits", content=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (422, code)
        large = http.post("/api/portraits", content=b"x" * (17 << 20))
        assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")

        def endless():
            for _ in range(40):
                yield b"x" * (1 << 20)

        try:
            unknown_length = http.post("/api/portraits", content=endless())
            assert unknown_length.status_code == 413
        except (httpx.WriteError, httpx.ReadError):
            pass  # the server hung up before all of it was sent, as it should
        assert head.registered == []
        monkeypatch.setattr(ditto.portrait.registration, "find_faces", lambda pixels: [None, None])
        several = http.post("/api/portraits", content=picture)
        assert (several.status_code, several.json()["error"]["code"]) == (409, "several_faces")
        taken = http.post("/api/portraits?face=largest", content=picture)
        assert taken.status_code == 201
        assert http.get(f"/api/portraits/{taken.json()['portrait']}").headers["content-type"] == "image/jpeg"
        assert http.get("/api/portraits/guessed").status_code == 404
        assert http.post("/api/clients/nobody-here/speech", content=b"RIFF" * 8).status_code == 404


def test_the_least_recently_used_portrait_is_dropped(served, monkeypatch):
    from ditto.live.server import portraits

    _head, place = served
    monkeypatch.setattr(portraits, "MAX_PORTRAITS", 3)
    with httpx.Client(base_url=f"http://{place}", timeout=PATIENT) as http:
        names = [http.post("/api/portraits?face=largest", content=b"any").json()["portrait"] for _ in range(5)]
        assert [http.get(f"/api/portraits/{name}").status_code for name in names] == [404, 404, 200, 200, 200]


# Clients that come, go and misbehave


def test_a_server_with_all_sessions_in_use_refuses_until_one_ends(served):
    head, place = served
    head.max_sessions = 1
    first, _ = started(place)
    second = connect(f"ws://{place}/api/live")
    second.send('{"type": "start"}')
    last, code = ended(second)
    assert (last["code"], code) == ("busy", 1013)
    offered = httpx.post(f"http://{place}/api/webrtc", json={"sdp": "v=0"}, timeout=PATIENT)
    assert (offered.status_code, offered.json()["error"]["code"]) == (503, "busy")
    first.close()
    assert until(lambda: not head.sessions)
    third, _ = started(place)
    third.close()


def test_a_second_connection_of_a_client_ends_the_first(served):
    head, place = served
    head.max_sessions = 1
    first, ready = started(place, client="the-same-client")
    second, again = started(place, client="the-same-client")
    assert ready["client"] == again["client"] == "the-same-client"
    last, code = ended(first)
    assert (last["code"], code) == ("replaced", 1000)
    assert received(second)["type"] in ("frame", "latency")
    assert len(head.sessions) == 1
    second.close()


def test_a_client_that_vanishes_leaves_no_session(served):
    head, place = served
    socket, _ = started(place)
    socket.socket.shutdown(2)  # without a word of WebSocket
    assert until(lambda: not head.sessions)


@pytest.mark.parametrize("video", ["jpeg", "motion"])
def test_a_reader_that_stops_loses_pictures_first_and_then_the_connection(video):
    from ditto.live.server.pictures import encoder_of
    from ditto.live.server.socket import MAX_FRAMES, MAX_PICTURES, Outbox

    async def fill():
        head, encoder = StandInHead(), encoder_of(Start(video=video))
        box, frames = Outbox(fast=False, small=encoder.small), []
        session = head.session(head.portrait, latency="low", output=encoder.pixels, audio_rate=16000, idle=True, seed=0,
                               emotion=None, still=False)  # fmt: skip
        box.put_message({"type": "first"})
        for _ in range(MAX_FRAMES):
            frames.append(session.frame("speech", 0, session.index))
            await box.put_frame(frames[-1])
        with pytest.raises(ProtocolError, match="keeps up with the sound"):
            await box.put_frame(session.frame("speech", 0, session.index))
        assert await box.get() == {"type": "first"}
        given = [await box.get() for _ in range(MAX_FRAMES)]
        assert [item.frame for item in given] == frames  # every sound, in order
        lost = MAX_FRAMES - MAX_PICTURES if video == "jpeg" else 0  # a motion is small, and never left out
        assert [item.picture for item in given] == [False] * lost + [True] * (MAX_FRAMES - lost)

    asyncio.run(fill())


def test_a_reader_that_takes_nothing_is_disconnected(served, monkeypatch):
    import ditto.live.server.socket as module

    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.5)
    head, place = served
    head.noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)  # a quarter of a megabyte a frame
    try:
        socket = connect(f"ws://{place}/api/live", max_queue=1)
        opened = head.opened
        socket.send('{"type": "start", "quality": 95}')
        assert until(lambda: head.opened > opened)
        assert until(lambda: not head.sessions)
        socket.close_socket()
    finally:
        head.noise = None


def test_an_error_of_a_session_reaches_its_client_only(served):
    head, place = served
    socket, _ = started(place)
    other, _ = started(place)
    head.sessions[0].broken = SessionError("the session broke: no reason")
    last, code = ended(socket)
    assert (last["code"], last["text"], code) == ("session", "the session broke: no reason", 1008)
    assert received(other)["type"] == "frame"
    assert len(head.sessions) == 1
    other.close()


def test_a_thousand_connections_leave_no_sessions(served):
    head, place = served
    head.max_sessions = 1000  # those that are gone may not be closed yet
    ready = []

    def come_and_go(count, start):
        for _ in range(count):
            if start:
                socket, _ = started(place, video="none")
                ready.append(socket)
                socket.close_socket()
            else:
                connect(f"ws://{place}/api/live", open_timeout=PATIENT).close()

    come_and_go(20, True)
    assert until(lambda: not head.sessions)
    ready.clear()
    gc.collect()
    before, opened = resident(), head.opened
    workers = [threading.Thread(target=come_and_go, args=(250, number % 2 == 0)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert until(lambda: not head.sessions)
    assert len(ready) == head.opened - opened == 500
    ready.clear()
    gc.collect()
    assert until(lambda: not [thread for thread in threading.enumerate() if thread in workers or "recv" in thread.name])
    assert resident() - before < 30 << 20
    socket, _ = started(place)
    socket.close()


def resident():
    """Bytes of this process in memory."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


def test_clients_get_a_closed_message_when_the_server_stops():
    head = StandInHead()
    with running(create_app(head, head.portrait)) as place:
        socket, _ = started(place)
    last, _ = ended(socket)
    assert last["code"] == "stopped"
    assert head.sessions == []


def test_the_command_serves_until_a_signal():
    import re
    import signal
    import subprocess
    import sys

    command = [sys.executable, "-m", "ditto", "serve", "--port", "0", "--sessions", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=EXAMPLES.parent)
    try:
        assert process.stdout is not None
        where = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
        assert where is not None
        port = where[1]
        assert until(lambda: answers(f"http://127.0.0.1:{port}/"))
        socket, ready = started(f"127.0.0.1:{port}", pace="fast", video="none", audio_rate=16000)
        assert (ready["width"], ready["height"]) == (512, 512)
        socket.send(tone(0.4, 16000))
        socket.send('{"type": "flush"}')
        assert said(socket, "segment_end")["pts_seconds"] == pytest.approx(0.4)
        process.send_signal(signal.SIGINT)
        assert ended(socket)[0]["code"] == "stopped"
        _, errors = process.communicate(timeout=PATIENT)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in errors


def answers(address):
    try:
        return httpx.get(address, timeout=PATIENT).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_command_refuses_a_bundle_that_is_too_slow_for_a_conversation(monkeypatch):
    from typer.testing import CliRunner

    import ditto
    from ditto.app.cli import app

    def too_slow(portrait, label):
        raise TooSlowError("expected at least 5 frames a second for a live session, measured 0.03; use another device")

    head = StandInHead()
    head.blocking_session, head.register = too_slow, lambda *_, **__: head.portrait
    monkeypatch.setitem(vars(ditto), "load", lambda *_, **__: head)
    done = CliRunner().invoke(app, ["serve", "--port", "0"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "measured 0.03" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert error_of(TooSlowError("measured 0.03")) == (
        {"type": "error", "code": "slow_machine", "text": "measured 0.03"}, 503,
    )  # fmt: skip


def test_the_command_refuses_before_it_loads_anything(monkeypatch):
    from typer.testing import CliRunner

    import ditto
    from ditto.app.cli import app
    from ditto.live.server import run

    monkeypatch.setitem(vars(ditto), "load", lambda *_, **__: pytest.fail("loaded too early"))
    for arguments, expected in (
        (["--host", "0.0.0.0"], "expected a token"),
        (["--certificate", "missing.pem"], "--certificate and --key together"),
        (["--certificate", "missing.pem", "--key", "missing.pem"], "and its key in PEM"),
        (["--certificate", str(EXAMPLES / "live.py"), "--key", str(EXAMPLES / "live.py")], "and its key in PEM"),
        (["--portrait", "missing.jpg"], "missing.jpg"),
        (["--client-drawing", "some"], "expected --client-drawing none"),
        (["--client-drawing", "all", "--record", "no-such-folder"], "expected --record or --client-drawing"),
    ):
        done = CliRunner().invoke(app, ["serve", "--port", "8498", *arguments])
        assert done.exit_code == 2
        assert expected in done.stderr
    monkeypatch.setattr(run, "PACKAGES", ("fastapi", "no_such_package"))
    done = CliRunner().invoke(app, ["serve"])
    assert done.exit_code == 2
    assert "no_such_package; pip install 'ditto-talking-head[serve]'" in done.stderr
