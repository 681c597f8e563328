"""Clients that draw the frames themselves: the motion on the wire, what is given out for it, and what is refused."""

import asyncio
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")

import httpx
from block_performer import BlockPerformer
from serving import HEIGHT, PATIENT, REST, WIDTH, StandInHead, ended, received, running, said, started, tone, until
from websockets.sync.client import connect

import ditto
from ditto.errors import InputError
from ditto.live import utterance_seed
from ditto.live.server import drawing as drawing_module
from ditto.live.server.app import PAGE, create_app
from ditto.live.server.drawing import check_client_drawing, core_of
from ditto.live.server.protocol import MOTION
from ditto.media.audio import read_audio
from ditto.media.rates import SAMPLES_PER_FRAME
from ditto.motion.motion import MOTION_SIZE, Motion
from ditto.portrait.packed import model_of
from ditto.portrait.portrait import Portrait
from ditto.talking_head import TalkingHead

EXAMPLES = Path(__file__).parents[3] / "examples"
TOKEN = "correct-horse-battery"
PICTURE = b"a picture"


@pytest.fixture(scope="module")
def everything():
    """A server that gives out every portrait."""
    head = StandInHead()
    head.motion = Motion(np.linspace(-1.0, 1.0, MOTION_SIZE, dtype=np.float32))
    with running(create_app(head, head.portrait, client_drawing="all")) as place:
        yield head, place


@pytest.fixture(scope="module")
def uploads():
    """A server that gives out what clients brought, and has a token."""
    head = StandInHead()
    with running(create_app(head, head.portrait, token=TOKEN, client_drawing="uploaded")) as place:
        yield head, place


def uploaded(place, monkeypatch, headers=None):
    from ditto.live.server.portraits import Portraits

    monkeypatch.setattr(Portraits, "_register", registered)
    answer = httpx.post(f"http://{place}/api/portraits", content=PICTURE, headers=headers, timeout=PATIENT)
    return answer.json()["portrait"]


def registered(portraits, data, any_face):
    """As `Portraits._register`, of a picture that is none."""
    portrait = portraits._head.register(data)
    portraits._prepare(portrait)
    return portrait


@pytest.mark.parametrize("pace", ["playout", "fast"])
def test_frames_carry_the_motion_in_place_of_a_picture(everything, pace):
    head, place = everything
    socket, ready = started(place, video="motion", pace=pace)
    assert (ready["video"], ready["width"], ready["height"], ready["pace"]) == ("motion", WIDTH, HEIGHT, pace)
    socket.send(tone(0.4, 16000))
    socket.send(json.dumps({"type": "flush"}))
    frames = []
    while (message := received(socket))["type"] != "segment_end":
        frames += [message] if message["type"] == "frame" else []
    assert [frame["speech_index"] for frame in frames if frame["kind"] == "speech"] == list(range(10))
    for frame in frames:
        assert (frame["codec"], len(frame["picture"]), frame["sound"].size) == (MOTION, 2 * MOTION_SIZE, 960)
        row = np.frombuffer(frame["picture"], "<f2").astype(np.float32)
        np.testing.assert_allclose(row, head.motion.values, atol=5e-4)
    socket.send(json.dumps({"type": "close"}))
    assert ended(socket)[0]["type"] == "closed"
    assert until(lambda: not head.sessions)


def test_a_motion_that_is_not_finite_ends_the_session_with_an_error(everything):
    head, place = everything
    for value in (np.nan, np.inf, 1e6):  # the last: not finite as float16
        usual, head.motion = head.motion, replace(REST, values=np.full(MOTION_SIZE, value, np.float32))
        try:
            socket, _ = started(place, video="motion")
            message, code = ended(socket)
        finally:
            head.motion = usual
        assert (message["code"], code) == ("session", 1008)
        assert "expected a motion of finite numbers" in message["text"]
    assert until(lambda: not head.sessions)


def test_an_interrupt_reports_what_was_sent_whatever_the_client_drew(everything):
    _, place = everything
    socket, _ = started(place, video="motion")
    socket.send(tone(20, 16000))
    came = 0
    while came < 5:
        came += received(socket).get("kind") == "speech"
    socket.send(json.dumps({"type": "interrupt", "played_ms": 19000}))  # a client may say what it likes
    while (answer := received(socket))["type"] != "error":
        came += answer.get("kind") == "speech"
    assert answer["code"] == "unknown_name"
    socket.send(json.dumps({"type": "interrupt"}))
    while (interrupted := received(socket))["type"] != "interrupted":
        came += interrupted.get("kind") == "speech"
    assert interrupted["played_ms"] == 40 * came
    after = [received(socket) for _ in range(10)]
    assert all(message["kind"] != "speech" and message["codec"] == MOTION for message in after)
    socket.close()


def test_ready_says_where_portrait_model_and_core_are_and_they_are_cached(everything):
    head, place = everything
    assert len(head.packed) == 1  # when the server began
    for _ in range(2):
        socket, ready = started(place, video="motion")
        socket.close()
    assert len(head.packed) == 1  # once for all sessions
    assert ready["core"] == httpx.get(f"http://{place}/api/info", timeout=PATIENT).json()["core"]
    for name, expected in (("appearance", head.pack(head.portrait)), ("model", head.model_pack())):
        told = ready[name]
        assert (told["sha256"], told["bytes"]) == (hashlib.sha256(expected).hexdigest(), len(expected))
        with httpx.Client(base_url=f"http://{place}", timeout=PATIENT) as http:
            for coding in ("gzip", "gzip;q=0", "identity"):
                answer = http.get(told["url"], headers={"accept-encoding": coding})
                assert (answer.status_code, answer.content) == (200, expected)
                assert answer.headers["content-type"] == "application/octet-stream"
                assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
                tag = answer.headers["etag"]
                again = http.get(told["url"], headers={"accept-encoding": coding, "if-none-match": f'"other", W/{tag}'})
                assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            compressed = http.get(told["url"]).headers.get("content-encoding")
            assert compressed == ("gzip" if name == "model" else None)
    bare = httpx.get(f"http://{place}/api/portraits/default/appearance", timeout=PATIENT)
    assert bare.headers["cache-control"] == "private, no-cache"
    for url in ("/api/portraits/default/appearance?sha256=" + "0" * 64, "/api/model/" + "0" * 64, "/api/model/x"):
        answer = httpx.get(f"http://{place}{url}", timeout=PATIENT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert "cache-control" not in answer.headers or answer.headers["cache-control"] == "no-store"


def test_sessions_with_pictures_are_told_nothing_of_it(everything):
    _, place = everything
    socket, ready = started(place, video="jpeg")
    assert not {"appearance", "model", "core"} & set(ready)
    socket.close()


def test_by_default_nothing_is_given_out(served):
    head, place = served
    assert httpx.get(f"http://{place}/api/info", timeout=PATIENT).json()["client_drawing"] == "none"
    for url in ("/api/portraits/default/appearance", "/api/portraits/unknown/appearance", "/api/model/" + "0" * 64):
        answer = httpx.get(f"http://{place}{url}", timeout=PATIENT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "motion_refused")
    policy = httpx.get(f"http://{place}/", timeout=PATIENT).headers["content-security-policy"]
    assert "wasm" not in policy
    with connect(f"ws://{place}/api/live", open_timeout=PATIENT) as socket:
        socket.send(json.dumps({"type": "start", "video": "motion"}))
        error = said_error(socket)
        assert (error["code"], "--client-drawing none" in error["text"]) == ("motion_refused", True)
        socket.send(json.dumps({"type": "start", "video": "jpeg"}))  # on the same socket
        assert said(socket, "ready")["video"] == "jpeg"
    assert until(lambda: not head.sessions) and not head.packed


def said_error(socket):
    message = received(socket)
    assert message["type"] == "error", message
    return message


def test_uploaded_portraits_are_given_to_clients_and_the_server_s_own_is_not(uploads, monkeypatch):
    head, place = uploads
    headers = {"authorization": f"Bearer {TOKEN}"}
    name = uploaded(place, monkeypatch, headers)
    assert len(head.packed) == 1  # at once, so that the first session does not wait
    socket, ready = started(place, headers=headers, video="motion", portrait=name)
    socket.close()
    url = f"http://{place}{ready['appearance']['url']}"
    assert httpx.get(url, timeout=PATIENT).status_code == 401
    assert httpx.get(url, headers=headers, timeout=PATIENT).content == head.pack(head.register(PICTURE))
    for other, status, code in (("default", 403, "motion_refused"), ("unknown", 404, "no_portrait")):
        answer = httpx.get(f"http://{place}/api/portraits/{other}/appearance", headers=headers, timeout=PATIENT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        with connect(f"ws://{place}/api/live", additional_headers=headers, open_timeout=PATIENT) as socket:
            socket.send(json.dumps({"type": "start", "video": "motion", "portrait": other}))
            assert said_error(socket)["code"] == code
    assert until(lambda: not head.sessions)
    policy = httpx.get(f"http://{place}/", headers=headers, timeout=PATIENT).headers["content-security-policy"]
    assert "script-src 'self' 'wasm-unsafe-eval';" in policy and "worker-src 'self'" in policy


def test_webrtc_does_not_carry_motion(everything):
    _, place = everything
    answer = httpx.post(f"http://{place}/api/webrtc", json={"sdp": "v=0", "video": "motion"}, timeout=PATIENT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "motion_webrtc")


def test_a_performer_without_motion_refuses_by_name(portrait):
    head = TalkingHead(None, BlockPerformer())
    with running(create_app(head, portrait)) as place, connect(f"ws://{place}/api/live", open_timeout=PATIENT) as socket:
        socket.send(json.dumps({"type": "start", "video": "motion"}))
        assert said_error(socket)["code"] == "motion_unsupported"
        answer = httpx.get(f"http://{place}/api/portraits/default/appearance", timeout=PATIENT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "motion_unsupported")


def test_a_bundle_without_packed_portraits_is_not_served_with_client_drawing():
    class Neural(StandInHead):
        def model_pack(self):
            raise InputError("expected a bundle that draws with the core")

    head = Neural()
    create_app(head, head.portrait)
    with pytest.raises(InputError, match="draws with the core"):
        create_app(head, head.portrait, client_drawing="uploaded")


def test_an_unknown_choice_and_recording_what_clients_draw_are_refused(tmp_path):
    head = StandInHead()
    with pytest.raises(InputError, match="expected --client-drawing none, uploaded, all, got 'some'"):
        create_app(head, head.portrait, client_drawing="some")
    with pytest.raises(InputError, match="expected --record or --client-drawing, got both"):
        create_app(head, head.portrait, record=tmp_path, client_drawing="all")
    check_client_drawing("none", tmp_path)


def test_the_metrics_count_both_kinds(everything):
    pytest.importorskip("prometheus_client", reason="pip install 'ditto-talking-head[serve]'")
    head, place = everything

    def counted():
        lines = httpx.get(f"http://{place}/metrics", timeout=PATIENT).text.splitlines()
        return [line.rpartition(" ")[2] for line in lines if line.startswith(("ditto_sessions ", "ditto_motion_sessions "))]

    assert until(lambda: not head.sessions)
    one, _ = started(place, video="motion")
    other, _ = started(place, video="jpeg")
    assert counted() == ["2.0", "1.0"]
    one.close()
    other.close()
    assert until(lambda: counted() == ["0.0", "0.0"])


def test_a_core_is_named_only_with_its_own_hash(tmp_path, caplog):
    assert core_of(tmp_path) is None
    (tmp_path / "core.wasm").write_bytes(b"\0asm")
    assert core_of(tmp_path) is None
    digest = hashlib.sha256(b"\0asm").hexdigest()
    (tmp_path / "core.wasm.sha256").write_text(f"{digest}  core.wasm\n")
    assert core_of(tmp_path) == {"url": "/page/core.wasm", "sha256": digest, "bytes": 4}
    for wrong in (f"{'0' * 64}  core.wasm\n", "", "\n"):
        caplog.clear()
        (tmp_path / "core.wasm.sha256").write_text(wrong)
        assert core_of(tmp_path) is None and "install ditto again" in caplog.text
    (tmp_path / "core.wasm.sha256").write_bytes(b"\xff\xfe")
    assert core_of(tmp_path) is None


def test_the_core_of_this_installation_is_served_if_it_is_there(everything):
    _, place = everything
    answer = httpx.get(f"http://{place}/page/core.wasm", timeout=PATIENT)
    core = core_of(PAGE)
    if core is None:
        assert answer.status_code == 404
    else:
        assert answer.headers["content-type"] == "application/wasm"
        assert hashlib.sha256(answer.content).hexdigest() == core["sha256"]


def test_what_a_client_draws_is_what_the_server_would_show(portrait):
    head = ditto.load("lite")
    samples = (32767 * read_audio(EXAMPLES / "speech.flac")[8000 : 8000 + 8 * SAMPLES_PER_FRAME]).astype("<i2")
    with running(create_app(head, portrait, client_drawing="all")) as place:
        socket, ready = started(place, video="motion", pace="fast", idle=False, seed=3)
        socket.send(samples.tobytes())
        socket.send(json.dumps({"type": "flush"}))
        rows = []
        while (message := received(socket))["type"] != "segment_end":
            if message["type"] == "frame":
                rows.append(np.frombuffer(message["picture"], "<f2").astype(np.float32))
        socket.close()
        urls = [f"http://{place}{ready[name]['url']}" for name in ("appearance", "model")]
        packed, model = (httpx.get(url, timeout=PATIENT).content for url in urls)
    assert model_of(packed) == hashlib.sha256(model).hexdigest() == ready["model"]["sha256"]
    core = head.performer.renderer.unpack(packed, Portrait.from_packed(packed), whole=True)
    stream = head.stream(portrait, latency="low", seed=utterance_seed(3, 0))
    frames = stream.push(samples / np.float32(32768)) + stream.flush()
    assert len(rows) == len(frames) == 8
    for row, frame in zip(rows, frames, strict=True):
        np.testing.assert_allclose(row, frame.motion.values, rtol=2.0**-11, atol=1e-6)  # half a step of float16
        error = np.abs(core.picture(row).astype(float) - frame.image)
        assert error.mean() < 3.0 and np.percentile(error, 99) < 20.0  # the loss of the portrait's JPEG
        assert np.abs(core.picture(frame.motion.values).astype(float) - core.picture(row)).mean() < 0.05  # that of float16


def test_many_sessions_that_begin_at_once_pack_a_portrait_once():
    head = StandInHead()
    drawing = drawing_module.ClientDrawing(head, "all", None)

    async def run():
        return await asyncio.gather(*(drawing.ready("default", head.portrait) for _ in range(8)))

    answers = asyncio.run(run())
    assert len(head.packed) == 1 and all(answer == answers[0] for answer in answers)
