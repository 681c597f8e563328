"""The messages of the server's WebSocket, around a stand-in head."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")

import httpx
from block_performer import BlockPerformer
from serving import HEIGHT, PATIENT, WIDTH, StandInHead, ended, received, running, said, spoken, started, tone, until
from wav import write_wav
from websockets.sync.client import connect

import ditto
from ditto.controls.timeline_file import data_of
from ditto.live.server.app import create_app
from ditto.live.server.protocol import HEADER, JPEG, NO_PICTURE, Start, parse
from ditto.talking_head import TalkingHead

EXAMPLES = Path(__file__).parents[3] / "examples"
SPOKEN = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def test_speech_in_gives_its_frames_its_sound_and_its_end(served):
    _, place = served
    socket, ready = started(place, rate=24000, audio_rate=24000, pace="fast")
    assert (ready["width"], ready["height"], ready["fps"], ready["algorithmic_ms"]) == (WIDTH, HEIGHT, 25, 200)
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
    assert [delay["algorithmic_ms"] for delay in delays if delay["type"] == "latency"] == [200]
    socket.send(json.dumps({"type": "close"}))
    assert ended(socket) == ({"type": "closed", "code": "closed", "text": "the client closed the session"}, 1000)


def test_info_and_ready_give_the_delays_of_the_head(served):
    _, place = served
    told = httpx.get(f"http://{place}/api/info", timeout=PATIENT).json()["latencies"]
    assert told == {"quality": 3320, "balanced": 880, "low": 200}
    for latency, milliseconds in told.items():
        socket, ready = started(place, latency=latency)
        assert (ready["latency"], ready["algorithmic_ms"]) == (latency, milliseconds)
        socket.close()


def test_h264_is_decoded_by_ffmpeg():
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
    ("message", "code", "expected"),
    [
        ("not json", "bad_message", "one JSON object"),
        ("[1]", "bad_message", "one JSON object"),
        ("[" * 100000, "bad_message", "one JSON object"),
        ('{"type": "dance"}', "unknown_type", "start, speak"),
        ('{"type": 7}', "unknown_type", "got 7"),
        ('{"type": "flush", "now": 1}', "unknown_name", "'now'"),
        ('{"type": "start"}', "not_now", "expected one start message"),
        ('{"type": "say"}', "bad_message", "expected a value for text"),
        ('{"type": "say", "text": " "}', "bad_message", "expected text to be"),
        ('{"type": "control", "gaze": [1]}', "bad_message", "list of 2 finite numbers, got [1]"),
        ('{"type": "control", "gaze": [1, NaN]}', "bad_message", "list of 2 finite numbers, got nan"),
        ('{"type": "control", "gaze": [1, %s]}' % ("9" * 400), "bad_message", "list of 2 finite numbers"),
        ('{"type": "control", "emotion": {"joy": 1}}', "bad_message", "expected an emotion of"),
        ('{"type": "control", "style": true}', "bad_message", "calm, natural, lively, or a number from 0 to 2, got True"),
        ('{"type": "control", "emotion": "joy"}', "bad_message", "weights by name, got 'joy'"),
        ('{"type": "control", "names": {"head.yaw": "left"}}', "bad_message", "finite numbers by name, got 'left'"),
        ('{"type": "control", "names": [1]}', "bad_message", "an object of finite numbers by name, got [1]"),
        ('{"type": "control", "timeline": 3}', "bad_message", "an object, as a timeline file has it, got 3"),
        ('{"type": "control", "timeline": {}}', "bad_input", "the timeline: expected the field timeline, got none"),
        ('{"type": "control", "timeline": {"timeline": 1, "events": [{"kind": "nod", "at": 1}]}}', "bad_input", "events[0]: "),
        ('{"type": "control", "gaze": [1, 2, 3]}', "bad_message", "list of 2 finite numbers, got [1, 2, 3]"),
        ('{"type": "control", "gaze": null}', "bad_message", "list of 2 finite numbers, got None"),
        ('{"type": "control", "head": [1, true, 0]}', "bad_message", "list of 3 finite numbers, got True"),
        ('{"type": "control", "ramp_seconds": "1"}', "bad_message", "expected ramp_seconds to be a finite number, got '1'"),
        ('{"type": "control", "emotion": {"happy": "much"}}', "bad_message", "weights by name, got 'much'"),
        ('{"type": "say", "text": "\\ud800"}', "bad_message", "one JSON object"),
        ('{"type": "say", "text": ["a"]}', "bad_message", "expected text to be"),
        ('{}', "unknown_type", "got None"),
        ('{"type": "listen", "rate": 96000}', "bad_message", "8000 to 48000"),
        ('{"type": "microphone", "mode": "repeat"}', "not_now", "WebRTC"),
        ('{"type": "say", "text": "%s"}' % ("a" * 1001), "too_long", "at most 1000"),
        (b"odd", "bad_sound", "even number of bytes"),
        (b"\0\0" * 600000, "too_long", "at most 1048576 bytes"),
        ('{"type": "flush"}' + " " * (1 << 17), "too_long", "at most 131072 characters of JSON"),
        (b"RIFF\x24\x08\0\0WAVEfmt " + bytes(400), "bad_sound", "bytes of a file (WAV)"),
        (b"OggS\0\2" + bytes(400), "bad_sound", "bytes of a file (Ogg)"),
        (b"ID3\4" + bytes(400), "bad_sound", "bytes of a file (ID3)"),
    ],
)
def test_a_bad_message_is_answered_with_an_error_and_the_connection_goes_on(served, message, code, expected):
    _, place = served
    socket, _ = started(place)
    socket.send(message)
    error = said(socket, "error")
    assert error["code"] == code
    assert expected in error["text"]
    socket.send(json.dumps({"type": "interrupt"}))
    assert said(socket, "interrupted")["played_ms"] == 0
    socket.close()


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ({"client": "x"}, "8 to 64"), ({"video": "gif"}, "jpeg, h264, motion, none"), ({"rate": 1}, "8000 to 48000"),
        ({"latency": "none"}, "balanced"), ({"quality": 100}, "1 to 95"), ({"rate": True}, "whole number"),
        ({"audio_rate": 22050}, "16000, 24000, 48000"), ({"pace": "slow"}, "playout, fast"), ({"idle": 1}, "true or false"),
    ],
)  # fmt: skip
def test_after_an_invalid_start_another_is_accepted(served, start, expected):
    head, place = served
    with connect(f"ws://{place}/api/live") as socket:
        socket.send(tone(0.1, 16000))
        assert said(socket, "error")["code"] == "not_now"
        socket.send(json.dumps({"type": "start", **start}))
        assert expected in said(socket, "error")["text"]
        socket.send(json.dumps({"type": "start"}))
        said(socket, "ready")
    assert until(lambda: not head.sessions)


def test_a_bundle_of_few_capabilities_is_served_and_what_it_lacks_is_refused_by_name(portrait):
    class Mute(BlockPerformer):
        supports = frozenset()

    head = TalkingHead(None, Mute())
    with running(create_app(head, portrait)) as place:
        assert set(httpx.get(f"http://{place}/api/info").json()["latencies"]) == set(Mute.latencies)
        with connect(f"ws://{place}/api/live") as socket:
            socket.send(json.dumps({"type": "start", "latency": "balanced"}))
            assert "latency to be one of quality, low" in said(socket, "error")["text"]
            socket.send(json.dumps({"type": "start", "pace": "fast"}))
            assert said(socket, "ready")["algorithmic_ms"] == 640
            socket.send(tone(0.2, 16000))
            socket.send(json.dumps({"type": "flush"}))
            assert [said(socket, "frame")["speech_index"] for _ in range(5)] == list(range(5))
        for style, refusal in (("lively", "does not support style"), ("wild", "expected a style of calm, natural")):
            with connect(f"ws://{place}/api/live") as socket:
                socket.send(json.dumps({"type": "start", "style": style}))
                assert refusal in ended(socket)[0]["text"]
        with connect(f"ws://{place}/api/live") as socket:
            socket.send(json.dumps({"type": "start", "emotion": {"happy": 1.0}}))
            told, code = ended(socket)
        assert (told["code"], code) == ("bad_message", 1008) and "does not support emotion" in told["text"]


def test_a_client_that_never_starts_is_disconnected(served, monkeypatch):
    import ditto.live.server.socket as module

    monkeypatch.setattr(module, "START_SECONDS", 0.2)
    _, place = served
    with connect(f"ws://{place}/api/live") as socket:
        last, code = ended(socket)
    assert (last["code"], code) == ("timeout", 1008)


def test_interrupt_drops_the_queue_and_unsent_speech(served):
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


def test_listen_reaches_the_listener_and_the_microphone_is_repeated(served):
    head, place = served
    socket, _ = started(place)
    socket.send(json.dumps({"type": "listen", "rate": 16000}))
    socket.send(tone(0.5, 16000))
    assert until(lambda: head.sessions and head.sessions[0].heard == 8000)
    socket.send(json.dumps({"type": "repeat", "rate": 48000}))
    for _ in range(50):
        socket.send(bytes(1920))
    socket.send(spoken(1.0, 48000))
    for _ in range(50):
        socket.send(bytes(1920))
    end = said(socket, "segment_end")
    assert 1.0 < end["pts_seconds"] < 2.2  # the voice, a little before it and the silence that ended it
    socket.close()


def test_the_microphone_is_ignored_while_other_speech_plays(served):
    _, place = served
    socket, _ = started(place)
    socket.send(tone(2.0, 16000))
    socket.send(json.dumps({"type": "flush"}))
    socket.send(json.dumps({"type": "repeat", "rate": 16000}))
    for sound in (bytes(16000), spoken(0.4, 16000), bytes(48000)):
        socket.send(sound)
    assert said(socket, "segment_end")["pts_seconds"] == pytest.approx(2.0)
    socket.send(json.dumps({"type": "interrupt"}))
    assert said(socket, "interrupted")["played_ms"] == 0
    for sound in (bytes(16000), spoken(0.4, 16000), bytes(48000)):
        socket.send(sound)
    assert 0.4 < said(socket, "segment_end")["pts_seconds"] < 1.4
    socket.close()


def test_control_reaches_the_session(served):
    head, place = served
    socket, _ = started(place)
    control = {"emotion": {"happy": 0.5}, "gaze": [5, 0], "style": "lively", "ramp_seconds": 0.2}
    control["names"] = {"left_brow.y": -0.02}
    timeline = ditto.Timeline().key("head.yaw", (0, 0), (1, 8, "spring")).blink(at=2)
    socket.send(json.dumps({"type": "control", **control, "timeline": data_of(timeline), "on_top": True}))
    assert until(lambda: head.sessions and head.sessions[0].controls)
    assert head.sessions[0].controls[0] == {**control, "gaze": (5.0, 0.0), "timeline": timeline, "on_top": True}
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


def test_without_espeak_text_is_refused_with_a_message(served, monkeypatch):
    from ditto.live.server import voice

    monkeypatch.setattr(voice, "PROGRAM", "no-such-program-anywhere")
    _, place = served
    socket, _ = started(place)
    socket.send(json.dumps({"type": "say", "text": "hello"}))
    assert said(socket, "error")["code"] == "no_voice"
    socket.close()


@pytest.mark.skipif(os.name == "nt", reason="a script as on Unix")
def test_after_a_failure_espeak_is_called_again(monkeypatch, tmp_path):
    from ditto.live.server import voice

    program = tmp_path / "espeak"
    listing = "Pty Language Age/Gender VoiceName File\n 5 en-gb --/M English_(GB) gmw/en\n"
    program.write_text(f"#!/bin/sh\ntest -e {tmp_path}/ready || exit 1\nprintf '{listing}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(voice, "PROGRAM", str(program))
    assert voice.voices() == ()
    (tmp_path / "ready").touch()
    assert voice.voices() == (voice.Voice("en-gb", "English (GB)"),)


def test_a_recording_is_spoken_and_a_playlist_is_not_opened(served, tmp_path):
    _, place = served
    socket, _ = started(place, client="with-a-recording", pace="fast")
    address = f"http://{place}/api/clients/with-a-recording/speech"
    secret = write_wav(tmp_path / "secret.wav", np.zeros(16000, np.int16))
    for trick in (f"#EXTM3U\n#EXTINF:1,\n{secret}\n", f"ffconcat version 1.0\nfile {secret}\n", "<?xml version='1.0'?><MPD/>"):
        refused = httpx.post(address, content=trick.encode(), timeout=PATIENT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "bad_sound")
    recording = write_wav(tmp_path / "a.wav", np.frombuffer(tone(1.0, 22050), "<i2"), 22050)
    assert httpx.post(address, content=recording.read_bytes(), timeout=PATIENT).status_code == 202
    assert said(socket, "segment_end", 1000)["pts_seconds"] == pytest.approx(1.0)
    assert httpx.post(address, content=b"RIFF" + bytes(60), timeout=PATIENT).status_code == 202
    assert said(socket, "error", 1000)["code"] == "bad_sound"
    socket.close_socket()
    socket, _ = started(place, client="with-a-recording")
    long = write_wav(tmp_path / "b.wav", np.frombuffer(tone(20.0, 16000), "<i2"), 16000).read_bytes()
    answers = [httpx.post(address, content=long, timeout=PATIENT) for _ in range(12)]
    assert [answer.status_code for answer in answers[-2:]] == [429, 429]
    assert "in the queue" in answers[-1].text
    socket.close_socket()


def test_frames_without_a_picture_are_marked(served):
    from ditto.live.server.protocol import pack_frame

    head, _ = served
    session = head.session(head.portrait, latency="low", output="bgr24", audio_rate=16000, idle=True, seed=0,
                           emotion=None, still=False)  # fmt: skip
    message = pack_frame(session.frame("idle", 3, None), b"", NO_PICTURE)
    assert HEADER.unpack_from(message) == (1, 0, NO_PICTURE, 0, 0, 3, -1, 1280, 0.0)
    assert len(message) == HEADER.size + 1280


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
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENT, check=False)
    assert done.returncode == 0, done.stderr
    assert "15 frames" in done.stdout
