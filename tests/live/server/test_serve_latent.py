"""`ditto serve` with a bundle that makes blocks of video: speech that stops and goes on, from the wire to the wire."""

import json

import pytest

pytest.importorskip("torch", reason="V and RAP need torch")
pytest.importorskip("fastapi", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")

import numpy as np
from drawn import drawn_portrait
from latent_bundles import write_tiny
from serving import ended, received, running, started, tone, until

from ditto.live.server.app import create_app
from ditto.talking_head import load


@pytest.mark.parametrize("pace", ["playout", "fast"])
def test_idle_frames_fill_a_pause(tmp_path, pace):
    head = load(write_tiny(tmp_path / "v", "v").path, max_sessions=1)
    with running(create_app(head, drawn_portrait(256))) as place:
        socket, _ = started(place, pace=pace)
        socket.send(tone(0.9, 16000))
        frames = []

        def read(stop):
            while True:
                message = received(socket)
                frames.extend([message] if message["type"] == "frame" else [])
                if stop(message):
                    return

        read(lambda message: [frame["kind"] for frame in frames].count("speech") > 5 and message.get("kind") == "idle")
        said = max(frame["speech_index"] for frame in frames if frame["kind"] == "speech")
        assert 18 <= said < 22  # all but what the encoder waits for
        socket.send(tone(1.1, 16000))
        socket.send(json.dumps({"type": "flush"}))
        read(lambda message: message["type"] == "segment_end")
        speech = [frame for frame in frames if frame["kind"] == "speech"]
        assert [frame["speech_index"] for frame in speech] == list(range(50))
        assert all(np.any(frame["sound"]) == (frame["kind"] == "speech") and len(frame["picture"]) for frame in frames)
        socket.send(json.dumps({"type": "close"}))
        assert ended(socket)[0]["type"] == "closed"
    assert until(lambda: not head.scheduler.sessions)
