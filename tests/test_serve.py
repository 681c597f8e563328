"""The server around a stand-in head: token, limits, protocol, clients that misbehave. The page is in test_serve_page.py."""

import asyncio
import gc
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")

import httpx
from serving import HEIGHT, WIDTH, StandInHead, running, until
from wav import write_wav
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from ditto.errors import InputError
from ditto.live.server.app import create_app
from ditto.live.server.guard import check_token
from ditto.live.server.protocol import HEADER, JPEG, KINDS, NO_PICTURE, ProtocolError, Start, parse
from ditto.live.server.run import Address, listen

EXAMPLES = Path(__file__).parents[1] / "examples"
TOKEN = "correct-horse-battery"
SPOKEN = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


@pytest.fixture(scope="module")
def one_server():
    head = StandInHead()
    with running(create_app(head, head.portrait)) as place:
        yield head, place


@pytest.fixture
def served(one_server):
    head, _ = one_server
    head.max_sessions = 8
    head.registered.clear()
    yield one_server
    assert until(lambda: not head.sessions)  # whatever a test did, nothing stays open


def started(place, query="", headers=None, **start):
    """An open socket whose session has begun, and the server's "ready"."""
    socket = connect(f"ws://{place}/api/live{query}", additional_headers=headers or {}, open_timeout=10)
    socket.send(json.dumps({"type": "start", **start}))
    return socket, said(socket, "ready")


def received(socket, seconds=10.0):
    """The next message: a dictionary, or a frame as a dictionary."""
    message = socket.recv(timeout=seconds)
    if isinstance(message, str):
        return json.loads(message)
    _, kind, codec, _, index, epoch, spoken, size, pts = HEADER.unpack_from(message)
    sound = np.frombuffer(message[HEADER.size : HEADER.size + size], "<i2")
    return {
        "type": "frame", "kind": KINDS[kind], "codec": codec, "index": index, "epoch": epoch, "speech_index": spoken,
        "pts": pts, "sound": sound, "picture": message[HEADER.size + size :],
    }  # fmt: skip


def said(socket, kind, most=400):
    """The next message of that type; frames and others before it are passed over."""
    for _ in range(most):
        message = received(socket)
        if message["type"] == kind:
            return message
        assert message["type"] not in ("error", "closed"), message
    raise AssertionError(f"no {kind} came")


def ended(socket):
    """The last JSON message before the close, and the code of the close."""
    last = None
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            message = received(socket)
            last = message if message["type"] != "frame" else last
    return last, closed.value.rcvd.code


def tone(seconds, rate):
    return (8000 * np.sin(np.arange(round(seconds * rate)) * 0.1)).astype("<i2").tobytes()


# Who may ask


@pytest.mark.parametrize(
    ("host", "token", "wanted"),
    [
        ("0.0.0.0", "", "--token auto"),
        ("192.168.1.5", "", "a token is wanted"),
        ("::", "", "a token is wanted"),
        ("127.0.0.1", "short", "at least 16"),
        ("0.0.0.0", "with space and more of it", "letters, digits"),
    ],
)
def test_an_address_others_reach_wants_a_good_token(host, token, wanted):
    with pytest.raises(InputError, match=wanted):
        Address(host=host, token=token)


def test_loopback_needs_no_token_and_auto_makes_a_good_one():
    for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
        check_token(host, "")
    made = [Address(host="0.0.0.0", token="auto").token for _ in range(2)]
    assert made[0] != made[1]
    assert len(made[0]) >= 30
    made_here = Address(host="0.0.0.0", token="auto")
    assert made_here.url.endswith(f"?token={made_here.token}")
    assert made[0] not in Address(host="0.0.0.0", token=made[0]).url  # who chose it knows it; logs need not


def test_a_port_that_is_taken_is_told():
    with listen(Address(port=0)) as first:
        with pytest.raises(InputError, match="choose another --port"):
            listen(Address(port=first.getsockname()[1]))


def test_every_route_and_the_socket_want_the_token():
    head = StandInHead()
    with running(create_app(head, head.portrait, token=TOKEN)) as place:
        asked = [
            ("GET", "/"), ("GET", "/page/page.js"), ("GET", "/api/info"), ("GET", "/api/portraits/default"),
            ("POST", "/api/portraits"), ("POST", "/api/webrtc"), ("POST", "/api/clients/somebody/speech"), ("GET", "/x"),
        ]  # fmt: skip
        with httpx.Client(base_url=f"http://{place}") as http:
            for method, path in asked:
                for headers in ({}, {"authorization": "Bearer wrong-wrong-wrong-1"}, {"cookie": "ditto_token=x"}):
                    refused = http.request(method, path, headers=headers)
                    assert refused.status_code == 401, (method, path)
                    assert "wants its token" in refused.text
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
        assert b"wants its token" in refused_socket.value.response.body
        socket, _ = started(place, headers={"authorization": f"Bearer {TOKEN}"})
        socket.close()


def test_pages_of_other_sites_are_refused_even_under_this_machine_s_address(served):
    _, place = served
    with httpx.Client(base_url=f"http://{place}") as http:
        assert http.get("/", headers={"host": "rebound.example"}).status_code == 403
        for origin in ("http://evil.example", "null", f"https://{place}.evil.example"):
            assert http.post("/api/portraits", headers={"origin": origin}, content=b"x").status_code == 403
        assert http.post("/api/portraits", headers={"origin": f"http://{place}"}, content=b"x").status_code != 403
        assert "access-control-allow-origin" not in http.get("/api/info", headers={"origin": "http://a.example"}).headers
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{place}/api/live", additional_headers={"origin": "http://evil.example"})
    assert refused.value.response.status_code == 403


def test_the_page_takes_nothing_from_elsewhere(served):
    _, place = served
    with httpx.Client(base_url=f"http://{place}") as http:
        page = http.get("/")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        for name in ("page.js", "page.css", "connection.js", "capture.js"):
            part = http.get(f"/page/{name}")
            assert part.status_code == 200
            assert "http://" not in part.text
            assert "https://" not in part.text
        assert "//" not in page.text
        assert http.get("/page/../app.py").status_code == 404
        assert http.get("/page/%2e%2e%2fapp.py").status_code == 404
        assert http.get("/docs").status_code == 404


# Uploads


def test_uploads_are_limited_and_told_apart(served, monkeypatch):
    import ditto.tracking

    head, place = served
    picture = (EXAMPLES / "portrait.jpg").read_bytes()
    with httpx.Client(base_url=f"http://{place}", timeout=30) as http:
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
        monkeypatch.setattr(ditto.tracking, "find_faces", lambda pixels: [None, None])
        several = http.post("/api/portraits", content=picture)
        assert (several.status_code, several.json()["error"]["code"]) == (409, "several_faces")
        taken = http.post("/api/portraits?face=largest", content=picture)
        assert taken.status_code == 201
        assert http.get(f"/api/portraits/{taken.json()['portrait']}").headers["content-type"] == "image/jpeg"
        assert http.get("/api/portraits/guessed").status_code == 404
        assert http.post("/api/clients/nobody-here/speech", content=b"RIFF" * 8).status_code == 404


def test_portraits_make_room_for_newer_ones(served, monkeypatch):
    from ditto.live.server import portraits

    _head, place = served
    monkeypatch.setattr(portraits, "MOST_PORTRAITS", 3)
    with httpx.Client(base_url=f"http://{place}", timeout=30) as http:
        names = [http.post("/api/portraits?face=largest", content=b"any").json()["portrait"] for _ in range(5)]
        assert [http.get(f"/api/portraits/{name}").status_code for name in names] == [404, 404, 200, 200, 200]


# The protocol


def test_speech_in_gives_its_frames_its_sound_and_its_end(served):
    _, place = served
    socket, ready = started(place, rate=24000, audio_rate=24000, pace="fast")
    assert (ready["width"], ready["height"], ready["fps"], ready["algorithmic_ms"]) == (WIDTH, HEIGHT, 25, 160)
    socket.send(tone(0.5, 24000))
    socket.send(json.dumps({"type": "flush"}))
    frames, delays = [], []
    while (message := received(socket))["type"] != "segment_end":
        (frames if message["type"] == "frame" else delays).append(message)
    assert message["pts_seconds"] == pytest.approx(0.52)
    speech = [frame for frame in frames if frame["kind"] == "speech"]
    assert [frame["speech_index"] for frame in speech] == list(range(13))
    assert [frame["index"] for frame in frames] == list(range(len(frames)))
    assert all(frame["pts"] == pytest.approx(frame["index"] / 25) for frame in frames)
    assert all(frame["codec"] == JPEG and frame["picture"][:2] == b"\xff\xd8" for frame in frames)
    assert all(frame["sound"].size == 960 and (np.abs(frame["sound"]) == 8192).all() for frame in speech)
    assert [delay["algorithmic_ms"] for delay in delays if delay["type"] == "latency"] == [160]
    socket.send(json.dumps({"type": "close"}))
    assert ended(socket) == ({"type": "closed", "code": "closed", "text": "goodbye"}, 1000)


def test_h264_is_decoded_by_anyone():
    import av

    head = StandInHead()
    with running(create_app(head, head.portrait)) as place:
        socket, _ = started(place, video="h264", pace="fast")
        frames = [message for message in (received(socket) for _ in range(12)) if message["type"] == "frame"]
        socket.close()
    decoder = av.CodecContext.create("h264", "r")
    assert frames[0]["codec"] == 3
    shown = [picture for frame in frames for picture in decoder.decode(av.Packet(frame["picture"]))]
    assert len(shown) >= len(frames) - 2
    assert (shown[0].width, shown[0].height) == (WIDTH, HEIGHT)
    assert abs(float(shown[0].to_ndarray(format="gray").mean()) - 28) < 8  # luma 40 of limited range


@pytest.mark.parametrize(
    ("message", "code", "wanted"),
    [
        ("not json", "bad_message", "one JSON object"),
        ("[1]", "bad_message", "one JSON object"),
        ("[" * 100000, "bad_message", "one JSON object"),
        ('{"type": "dance"}', "unknown_type", "start, speak"),
        ('{"type": 7}', "unknown_type", "got 7"),
        ('{"type": "flush", "now": 1}', "unknown_name", "'now'"),
        ('{"type": "start"}', "not_now", "has started"),
        ('{"type": "say"}', "bad_message", "lacks a value"),
        ('{"type": "say", "text": " "}', "bad_message", "text to be spoken"),
        ('{"type": "control", "gaze": [1]}', "bad_message", "list of 2 numbers"),
        ('{"type": "control", "gaze": [1, NaN]}', "bad_message", "is a number"),
        ('{"type": "control", "emotion": {"joy": 1}}', "bad_message", "unknown emotion"),
        ('{"type": "control", "emotion": "joy"}', "bad_message", "weights by name"),
        ('{"type": "listen", "rate": 96000}', "bad_message", "8000 to 48000"),
        ('{"type": "microphone", "mode": "repeat"}', "not_now", "WebRTC"),
        ('{"type": "say", "text": "%s"}' % ("a" * 1001), "too_long", "at most 1000"),
        (b"odd", "bad_sound", "even number of bytes"),
        (b"\0\0" * 600000, "too_long", "at most 1048576 bytes"),
    ],
)
def test_a_bad_message_is_answered_in_words_and_the_connection_goes_on(served, message, code, wanted):
    _, place = served
    socket, _ = started(place)
    socket.send(message)
    error = said(socket, "error")
    assert error["code"] == code
    assert wanted in error["text"]
    socket.send(json.dumps({"type": "interrupt"}))
    assert said(socket, "interrupted")["played_ms"] == 0
    socket.close()


@pytest.mark.parametrize(
    ("start", "wanted"),
    [
        ({"client": "x"}, "8 to 64"), ({"video": "gif"}, "jpeg, h264, none"), ({"rate": 1}, "8000 to 48000"),
        ({"latency": "none"}, "balanced"), ({"quality": 100}, "1 to 95"), ({"rate": True}, "whole number"),
        ({"audio_rate": 22050}, "16000, 24000, 48000"), ({"pace": "slow"}, "playout, fast"), ({"idle": 1}, "true or false"),
    ],
)  # fmt: skip
def test_a_start_that_is_wrong_may_be_sent_again(served, start, wanted):
    head, place = served
    with connect(f"ws://{place}/api/live") as socket:
        socket.send(tone(0.1, 16000))
        assert said(socket, "error")["code"] == "not_now"
        socket.send(json.dumps({"type": "start", **start}))
        assert wanted in said(socket, "error")["text"]
        socket.send(json.dumps({"type": "start"}))
        said(socket, "ready")
    assert until(lambda: not head.sessions)


def test_who_never_starts_is_sent_away(served, monkeypatch):
    import ditto.live.server.socket as module

    monkeypatch.setattr(module, "START_SECONDS", 0.2)
    _, place = served
    with connect(f"ws://{place}/api/live") as socket:
        last, code = ended(socket)
    assert (last["code"], code) == ("timeout", 1008)


def test_interrupt_ends_what_waits_and_nothing_of_it_comes_after(served):
    _, place = served
    socket, _ = started(place)
    socket.send(tone(20, 16000))
    came = 0
    while came < 5:
        came += received(socket).get("kind") == "speech"
    socket.send(json.dumps({"type": "interrupt"}))
    while (interrupted := received(socket))["type"] != "interrupted":
        came += interrupted.get("kind") == "speech"
    assert interrupted["played_ms"] == 40 * came  # what was sent, to the frame
    after = [received(socket) for _ in range(20)]
    assert all(message["kind"] != "speech" for message in after if message["type"] == "frame")
    socket.send(json.dumps({"type": "interrupt"}))
    socket.send(json.dumps({"type": "interrupt"}))
    assert [said(socket, "interrupted")["played_ms"] for _ in range(2)] == [0, 0]
    socket.send(tone(0.2, 16000))
    socket.send(json.dumps({"type": "flush"}))
    assert said(socket, "segment_end")["epoch"] >= interrupted["epoch"]
    socket.close()


def test_listening_and_a_microphone_go_where_they_should(served):
    head, place = served
    socket, _ = started(place)
    socket.send(json.dumps({"type": "listen", "rate": 16000}))
    socket.send(tone(0.5, 16000))
    assert until(lambda: head.sessions and head.sessions[0].heard == 8000)
    socket.send(json.dumps({"type": "repeat", "rate": 48000}))
    for _ in range(50):
        socket.send(bytes(1920))
    socket.send(tone(1.0, 48000))
    for _ in range(50):
        socket.send(bytes(1920))
    end = said(socket, "segment_end")
    assert 1.0 < end["pts_seconds"] < 2.2  # the voice, a little before it and the silence that ended it
    socket.close()


def test_a_microphone_does_not_talk_into_what_is_being_said(served):
    _, place = served
    socket, _ = started(place)
    socket.send(tone(2.0, 16000))
    socket.send(json.dumps({"type": "flush"}))
    socket.send(json.dumps({"type": "repeat", "rate": 16000}))
    for sound in (bytes(16000), tone(0.4, 16000), bytes(48000)):
        socket.send(sound)
    assert said(socket, "segment_end")["pts_seconds"] == pytest.approx(2.0)
    socket.send(json.dumps({"type": "interrupt"}))
    assert said(socket, "interrupted")["played_ms"] == 0
    for sound in (bytes(16000), tone(0.4, 16000), bytes(48000)):
        socket.send(sound)
    assert 0.4 < said(socket, "segment_end")["pts_seconds"] < 1.4
    socket.close()


def test_control_reaches_the_session(served):
    head, place = served
    socket, _ = started(place)
    control = {"emotion": {"happy": 0.5}, "gaze": [5, 0], "ramp_seconds": 0.2}
    socket.send(json.dumps({"type": "control", **control}))
    assert until(lambda: head.sessions and head.sessions[0].controls)
    assert head.sessions[0].controls[0] == {"emotion": {"happy": 0.5}, "gaze": (5.0, 0.0), "ramp_seconds": 0.2}
    socket.close()


@SPOKEN
def test_text_is_spoken_and_never_a_command(served, tmp_path):
    _, place = served
    socket, _ = started(place, pace="fast")
    mark = tmp_path / "mark"
    socket.send(json.dumps({"type": "say", "text": f'hello "; touch {mark}; $(touch {mark}) `touch {mark}` -w {mark}'}))
    assert said(socket, "segment_end", 4000)["pts_seconds"] > 1.0
    assert not mark.exists()
    socket.send(json.dumps({"type": "say", "text": "hello", "voice": "en; ls"}))
    assert said(socket, "error")["code"] == "unknown_voice"
    socket.send(json.dumps({"type": "say", "text": "a word", "voice": "de"}))
    assert said(socket, "segment_end", 4000)["pts_seconds"] > 0.2
    socket.close()


def test_without_espeak_text_is_refused_in_words(served, monkeypatch):
    from ditto.live.server import voice

    monkeypatch.setattr(voice, "PROGRAM", "no-such-program-anywhere")
    _, place = served
    socket, _ = started(place)
    socket.send(json.dumps({"type": "say", "text": "hello"}))
    assert said(socket, "error")["code"] == "no_voice"
    socket.close()


def test_a_recording_is_spoken_and_a_playlist_is_not_opened(served, tmp_path):
    _, place = served
    socket, _ = started(place, client="with-a-recording", pace="fast")
    address = f"http://{place}/api/clients/with-a-recording/speech"
    secret = write_wav(tmp_path / "secret.wav", np.zeros(16000, np.int16))
    for trick in (f"#EXTM3U\n#EXTINF:1,\n{secret}\n", f"ffconcat version 1.0\nfile {secret}\n", "<?xml version='1.0'?><MPD/>"):
        refused = httpx.post(address, content=trick.encode())
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "bad_sound")
    recording = write_wav(tmp_path / "a.wav", np.frombuffer(tone(1.0, 22050), "<i2"), 22050)
    assert httpx.post(address, content=recording.read_bytes()).status_code == 202
    assert said(socket, "segment_end", 1000)["pts_seconds"] == pytest.approx(1.0)
    assert httpx.post(address, content=b"RIFF" + bytes(60)).status_code == 202
    assert said(socket, "error", 1000)["code"] == "bad_sound"
    socket.close_socket()
    socket, _ = started(place, client="with-a-recording")
    long = write_wav(tmp_path / "b.wav", np.frombuffer(tone(20.0, 16000), "<i2"), 16000).read_bytes()
    answers = [httpx.post(address, content=long) for _ in range(12)]
    assert [answer.status_code for answer in answers[-2:]] == [429, 429]
    assert "wait to be spoken" in answers[-1].text
    socket.close_socket()


# Clients that come, go and misbehave


def test_a_full_house_says_so_and_has_room_again(served):
    head, place = served
    head.max_sessions = 1
    first, _ = started(place)
    second = connect(f"ws://{place}/api/live")
    second.send('{"type": "start"}')
    last, code = ended(second)
    assert (last["code"], code) == ("busy", 1013)
    offered = httpx.post(f"http://{place}/api/webrtc", json={"sdp": "v=0"})
    assert (offered.status_code, offered.json()["error"]["code"]) == (503, "busy")
    first.close()
    assert until(lambda: not head.sessions)
    third, _ = started(place)
    third.close()


def test_the_same_client_again_takes_the_place_of_the_first(served):
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


def test_a_reader_that_reads_nothing_loses_pictures_first_and_then_its_place():
    from ditto.live.server.socket import MOST_FRAMES, MOST_PICTURES, Outbox

    async def fill():
        head = StandInHead()
        box, frames = Outbox(fast=False), []
        session = head.session(head.portrait, latency="low", output="bgr24", audio_rate=16000, idle=True, seed=0,
                               emotion=None, still=False)  # fmt: skip
        box.tell({"type": "first"})
        for _ in range(MOST_FRAMES):
            frames.append(session.frame("speech", 0, session.index))
            await box.put(frames[-1])
        with pytest.raises(ProtocolError, match="does not keep up"):
            await box.put(session.frame("speech", 0, session.index))
        assert await box.get() == {"type": "first"}
        given = [await box.get() for _ in range(MOST_FRAMES)]
        assert [item.frame for item in given] == frames  # every sound, in order
        assert [item.picture for item in given] == [False] * (MOST_FRAMES - MOST_PICTURES) + [True] * MOST_PICTURES

    asyncio.run(fill())


def test_pictures_left_out_are_marked(served):
    from ditto.live.server.protocol import pack_frame

    head, _ = served
    session = head.session(head.portrait, latency="low", output="bgr24", audio_rate=16000, idle=True, seed=0,
                           emotion=None, still=False)  # fmt: skip
    message = pack_frame(session.frame("idle", 3, None), b"", NO_PICTURE)
    assert HEADER.unpack_from(message) == (1, 0, NO_PICTURE, 0, 0, 3, -1, 1280, 0.0)
    assert len(message) == HEADER.size + 1280


def test_a_thousand_connections_leave_nothing_behind(served):
    head, place = served

    def come_and_go(count, start):
        for _ in range(count):
            socket = connect(f"ws://{place}/api/live")
            if start:
                socket.send('{"type": "start", "video": "none"}')
                socket.recv(timeout=10)
            socket.close_socket() if start else socket.close()

    come_and_go(20, True)
    assert until(lambda: not head.sessions)
    gc.collect()
    threads, before, tasks = threading.active_count(), resident(), head.opened
    workers = [threading.Thread(target=come_and_go, args=(250, number % 2 == 0)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert until(lambda: not head.sessions)
    assert head.opened - tasks == 500
    gc.collect()
    assert until(lambda: threading.active_count() <= threads + 8)  # asyncio's pool for encoding grows to the cores
    assert resident() - before < 30 << 20
    socket, _ = started(place)
    socket.close()


def resident():
    """Bytes of this process in memory."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


def test_the_server_says_goodbye_when_it_stops():
    head = StandInHead()
    with running(create_app(head, head.portrait)) as place:
        socket, _ = started(place)
    last, _ = ended(socket)
    assert last["code"] == "stopped"
    assert head.sessions == []


def test_messages_become_commands():
    assert parse('{"type": "start", "rate": 24000}') == Start(rate=24000)
    for name in ("flush", "interrupt", "alive", "close"):
        assert type(parse(json.dumps({"type": name}))).__name__.lower() == name


def test_the_example_of_the_documentation_runs(served, tmp_path):
    import subprocess
    import sys

    _, place = served
    page = (EXAMPLES.parent / "docs" / "serve.md").read_text()
    client = page.split("```python\n", 1)[1].split("```", 1)[0]
    assert len(client.splitlines()) <= 30
    (tmp_path / "client.py").write_text(client)
    write_wav(tmp_path / "speech.wav", np.frombuffer(tone(0.6, 24000), "<i2"), 24000)
    command = [sys.executable, "client.py", f"ws://{place}/api/live", "speech.wav"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "15 frames" in done.stdout


def test_the_command_serves_until_it_is_told_to_stop():
    import re
    import signal
    import subprocess
    import sys

    pytest.importorskip("mediapipe", reason="the command registers the shipped portrait: pip install mediapipe")
    with listen(Address(port=0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ditto", "serve", "--port", str(port), "--sessions", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=EXAMPLES.parent)
    try:
        assert process.stdout is not None
        said_where = process.stdout.readline()
        assert re.search(rf"http://127\.0\.0\.1:{port}/", said_where)
        assert until(lambda: answers(f"http://127.0.0.1:{port}/"))
        socket, ready = started(f"127.0.0.1:{port}", pace="fast", video="none", audio_rate=16000)
        assert (ready["width"], ready["height"]) == (512, 512)
        socket.send(tone(0.4, 16000))
        socket.send('{"type": "flush"}')
        assert said(socket, "segment_end")["pts_seconds"] == pytest.approx(0.4)
        process.send_signal(signal.SIGINT)
        assert ended(socket)[0]["code"] == "stopped"
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in errors


def answers(address):
    try:
        return httpx.get(address).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_command_refuses_before_it_loads_anything(monkeypatch):
    from typer.testing import CliRunner

    import ditto
    from ditto.cli import app
    from ditto.live.server import run

    monkeypatch.setitem(vars(ditto), "load", lambda *_, **__: pytest.fail("loaded too early"))
    for arguments, wanted in (
        (["--host", "0.0.0.0"], "a token is wanted"),
        (["--certificate", "missing.pem"], "go together"),
        (["--certificate", "missing.pem", "--key", "missing.pem"], "in PEM are wanted"),
        (["--certificate", str(EXAMPLES / "live.py"), "--key", str(EXAMPLES / "live.py")], "in PEM are wanted"),
        (["--portrait", "missing.jpg"], "missing.jpg"),
    ):
        done = CliRunner().invoke(app, ["serve", "--port", "8498", *arguments])
        assert done.exit_code == 2
        assert wanted in done.stderr
    monkeypatch.setattr(run, "PACKAGES", ("fastapi", "no_such_package"))
    done = CliRunner().invoke(app, ["serve"])
    assert done.exit_code == 2
    assert "no_such_package; pip install 'ditto-talking-head[serve]'" in done.stderr
