"""What whoever runs a server needs: health, metrics, an end without cutting conversations, recordings, STUN and TURN."""

import asyncio
import contextlib
import re
import signal
import sys
import threading
import time
from types import SimpleNamespace

import av
import httpx
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from serving import PATIENT, StandInHead, StandInSession, ended, running, said, started, tone, until
from websockets.sync.client import connect

from ditto.errors import InputError
from ditto.live.server import app as server_app
from ditto.live.server.app import create_app
from ditto.live.server.ice import IceServer, configuration, parse_ice_server
from ditto.live.server.run import Address, listen, server_of

TOKEN = "correct-horse-battery"


def get(place, path, **options):
    return httpx.get(f"http://{place}{path}", timeout=PATIENT, **options)


# Health and metrics


def numbers_of(place):
    """The values of a server's metrics by name, with their labels."""
    found = re.findall(r"^(ditto_\w+(?:\{.*?\})?) (\S+)$", get(place, "/metrics").text, re.M)
    return {name: float(value) for name, value in found}


def test_health_and_metrics_need_the_token_as_every_route():
    head = StandInHead()
    with running(create_app(head, head.portrait, token=TOKEN)) as place:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert get(place, path).status_code == 401
            assert get(place, path, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_metrics_count_sessions_frames_delays_and_refusals():
    pytest.importorskip("prometheus_client")
    head = StandInHead(max_sessions=1)
    with running(create_app(head, head.portrait)) as place:
        before = numbers_of(place)
        assert (before["ditto_sessions"], before["ditto_sessions_limit"], before["ditto_load"]) == (0, 1, 0)
        socket, _ = started(place, rate=16000)
        for observer in head.scheduler.observers:
            observer("draw", 0.003, 1)
        socket.send(tone(1.0, 16000))
        socket.send('{"type": "flush"}')
        said(socket, "segment_end")
        other = connect(f"ws://{place}/api/live")
        other.send('{"type": "start"}')
        assert ended(other)[0]["code"] == "busy"
        now = numbers_of(place)
        assert (now["ditto_sessions"], now["ditto_clients"], now["ditto_load"]) == (1, 1, 1)
        assert now["ditto_sessions_refused_total"] == 1
        assert now['ditto_frames_total{kind="speech"}'] == 25
        assert now["ditto_utterances_total"] == 1
        assert now["ditto_first_frame_seconds_count"] == 1
        assert now['ditto_step_seconds_bucket{le="0.004",step="draw"}'] == 1
        assert (now["ditto_speech_waiting_seconds"], now["ditto_frames_unread"]) == (0.25, 3)
        if sys.platform == "linux":
            assert "process_resident_memory_bytes" in get(place, "/metrics").text
        socket.close()
    assert head.scheduler.observers == []


def test_a_frame_that_misses_its_tick_is_counted(monkeypatch):
    pytest.importorskip("prometheus_client")
    give = StandInSession.frame

    def late(self, kind, epoch, spoken):
        if self.index == 20:
            time.sleep(0.5)  # much longer than the buffer of the playout
        return give(self, kind, epoch, spoken)

    monkeypatch.setattr(StandInSession, "frame", late)
    head = StandInHead()
    with running(create_app(head, head.portrait)) as place:
        socket, _ = started(place)
        for _ in range(22):
            said(socket, "frame")
        assert numbers_of(place)["ditto_deadlines_missed_total"] >= 1
        socket.close()


def test_without_its_package_the_metrics_say_so_and_the_rest_works(monkeypatch):
    monkeypatch.setattr(server_app, "find_spec", lambda name: None)
    head = StandInHead()
    with running(create_app(head, head.portrait)) as place:
        missing = get(place, "/metrics")
        assert (missing.status_code, get(place, "/healthz").status_code) == (404, 200)
        assert "pip install prometheus-client" in missing.json()["error"]["text"]


# The end


@contextlib.contextmanager
def signalled(seconds, monkeypatch):
    """A server that drains for so long at SIGTERM: head, server, its thread and place."""
    monkeypatch.setattr("ditto.live.server.run.end_process", lambda: None)  # would end the tests, 20 s later
    head = StandInHead()
    with listen(Address(port=0)) as listening:
        server = server_of(create_app(head, head.portrait), Address(port=0, drain_seconds=seconds))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        assert until(lambda: server.started)
        yield head, server, thread, f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join(PATIENT)
        assert not thread.is_alive()
    assert not head.sessions


def test_a_draining_server_lets_conversations_end_and_takes_no_new_ones(monkeypatch):
    with signalled(PATIENT, monkeypatch) as (_, server, thread, place):
        socket, _ = started(place, rate=16000)
        assert get(place, "/readyz").status_code == 200
        server.handle_exit(signal.SIGTERM, None)
        assert until(lambda: get(place, "/readyz").status_code == 503)
        assert get(place, "/healthz").status_code == 200
        refused = connect(f"ws://{place}/api/live")
        refused.send('{"type": "start"}')
        assert ended(refused)[0]["code"] == "draining"
        socket.send(tone(0.4, 16000))  # the conversation goes on
        socket.send('{"type": "flush"}')
        said(socket, "segment_end")
        assert thread.is_alive()
        socket.send('{"type": "close"}')


def test_a_conversation_that_outlasts_the_draining_is_ended(monkeypatch):
    with signalled(0.5, monkeypatch) as (_, server, _, place):
        socket, _ = started(place)
        server.handle_exit(signal.SIGTERM, None)
        last, code = ended(socket)
        assert (last["code"], code) == ("stopped", 1000)


def test_an_application_that_ends_waits_for_its_conversations():
    """As on Ray Serve, where nothing but the end of the application's lifespan tells it."""

    async def main():
        head = StandInHead()
        app = create_app(head, head.portrait, drain_seconds=PATIENT)
        async with app.router.lifespan_context(app):
            clients = app.state.clients
            clients._clients["somebody"] = SimpleNamespace()
            asyncio.get_running_loop().call_later(0.3, clients._clients.clear)
        assert not clients.open
        return len(clients)

    assert asyncio.run(main()) == 0


# Recordings


def test_a_conversation_is_recorded_with_both_voices(tmp_path):
    head = StandInHead()
    with running(create_app(head, head.portrait, record=tmp_path)) as place:
        assert get(place, "/api/info").json()["recording"] is True
        socket, ready = started(place, rate=16000, audio_rate=48000)
        assert ready["recording"] is True
        socket.send(tone(2.0, 16000))
        socket.send('{"type": "flush"}')
        said(socket, "segment_end")
        socket.send('{"type": "listen", "rate": 16000}')
        socket.send(tone(1.0, 16000))
        for _ in range(60):
            said(socket, "frame")
        assert not list(tmp_path.glob("*.mp4"))  # it appears when it is whole
        socket.close()
        assert until(lambda: list(tmp_path.glob("*.mp4")))
    (file,) = tmp_path.iterdir()
    with av.open(str(file)) as video:
        pictures = [frame.to_ndarray(format="gray").mean() for frame in video.decode(video=0)]
    with av.open(str(file)) as video:
        sound = np.concatenate([frame.to_ndarray() for frame in video.decode(audio=0)], axis=1)
    assert len(pictures) >= 100
    assert sum(grey > 150 for grey in pictures) == 50  # speech is light, the rest dark
    left, right = np.abs(sound).max(axis=1)
    assert left > 0.2 and right > 0.2
    first_left, first_right = (int(np.argmax(np.abs(channel) > 0.1)) for channel in sound)
    assert first_right - first_left > 1.5 * 48000  # the answer comes after the speech


def test_a_recording_that_fails_does_not_end_the_conversation(tmp_path):
    head = StandInHead()
    folder = tmp_path / "records"
    folder.mkdir()
    with running(create_app(head, head.portrait, record=folder)) as place:
        socket, _ = started(place, rate=16000)
        said(socket, "frame")
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        socket.send(tone(0.4, 16000))
        socket.send('{"type": "flush"}')
        said(socket, "segment_end")
        socket.close()
        assert until(lambda: not head.sessions)
    assert not folder.exists()


# STUN and TURN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stun:stun.example.org", IceServer("stun:stun.example.org")),
        ("stun:[2001:db8::1]:3478", IceServer("stun:[2001:db8::1]:3478")),
        ("turn:ann:pass%40word@10.0.0.1:3478", IceServer("turn:10.0.0.1:3478", "ann", "pass@word")),
        ("turns:a:b:c@t.example:5349?transport=tcp", IceServer("turns:t.example:5349?transport=tcp", "a", "b:c")),
    ],
)
def test_a_stun_or_turn_server_is_read(text, expected):
    assert parse_ice_server(text) == expected
    (taken,) = configuration((expected,)).iceServers
    assert (taken.urls, taken.username or "", taken.credential or "") == (
        expected.urls, expected.username, expected.credential
    )  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "stun:", "http://x", "turn:host", "turn:user@host", "stun:host/../x", "turn:ann:secretword@ho st"]
)
def test_anything_else_is_refused_and_no_password_shown(text):
    with pytest.raises(InputError, match="expected --ice-server as stun:HOST") as refused:
        parse_ice_server(text)
    assert "secretword" not in str(refused.value)


def test_the_page_gets_the_servers():
    head = StandInHead()
    servers = (IceServer("stun:s.example"), IceServer("turn:t.example", "ann", "word"))
    with running(create_app(head, head.portrait, ice_servers=servers)) as place:
        assert get(place, "/api/info").json()["ice_servers"] == [
            {"urls": "stun:s.example"}, {"urls": "turn:t.example", "username": "ann", "credential": "word"}
        ]  # fmt: skip


def test_a_reachability_test_opens_a_channel_and_takes_no_session():
    async def ask(place):
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        opened = asyncio.Event()
        channel = pc.createDataChannel("test")
        channel.on("open", opened.set)
        await pc.setLocalDescription(await pc.createOffer())
        async with httpx.AsyncClient(timeout=PATIENT) as http:
            said = await http.post(f"http://{place}/api/reachability", json={"sdp": pc.localDescription.sdp})
            await pc.setRemoteDescription(RTCSessionDescription(said.json()["sdp"], "answer"))
            await asyncio.wait_for(opened.wait(), PATIENT)
            await pc.close()
            media = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            media.addTransceiver("audio")
            await media.setLocalDescription(await media.createOffer())
            bad = [
                await http.post(f"http://{place}/api/reachability", json={"sdp": sdp})
                for sdp in ("v=0", media.localDescription.sdp)
            ]
            await media.close()
            return bad

    head = StandInHead()
    with running(create_app(head, head.portrait)) as place:
        for bad in asyncio.run(ask(place)):
            assert (bad.status_code, bad.json()["error"]["code"]) == (400, "bad_offer")
    assert head.opened == 0
