"""WebRTC against a stand-in head, with aiortc as the browser."""

import asyncio
import contextlib
import json
import threading

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")

import av
import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from serving import PATIENT, spoken, until

from ditto.live.server import webrtc


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """These browsers give no sign of life, and connect as fast as the machine lets them."""
    monkeypatch.setattr(webrtc, "SILENCE_SECONDS", PATIENT)
    monkeypatch.setattr(webrtc, "START_SECONDS", PATIENT)


class Voice(AudioStreamTrack):
    """Half a second of speech, a second of silence, again and again, as a microphone gives it."""

    sound = np.pad(np.frombuffer(spoken(0.5, 48000), np.int16), (0, 48000)).reshape(75, 960)

    count = 0

    async def recv(self):
        if self.count:
            await asyncio.sleep(0.02)
        else:
            self.began = asyncio.get_running_loop().time()
        frame = av.AudioFrame.from_ndarray(self.sound[self.count % 75][None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, 960 * self.count
        self.count += 1
        return frame


class Browser:
    """A peer: `said` are the messages that came, `video` and `audio` the server's tracks."""

    def __init__(self, place):
        self.place, self.said, self.came = place, [], asyncio.Event()
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.tracks = {}

    async def open(self, track=None, **start):
        if track is None:
            self.pc.addTransceiver("audio", direction="sendrecv")
        else:
            self.pc.addTrack(track)
        self.pc.addTransceiver("video", direction="recvonly")
        self.channel = self.pc.createDataChannel("control")
        opened = asyncio.Event()
        self.channel.on("open", opened.set)
        self.channel.on("message", self._take)
        self.pc.on("track", lambda track: self.tracks.__setitem__(track.kind, track))
        await self.pc.setLocalDescription(await self.pc.createOffer())
        async with httpx.AsyncClient() as http:
            body = {"sdp": self.pc.localDescription.sdp, **start}
            answer = await http.post(f"http://{self.place}/api/webrtc", json=body, timeout=PATIENT)
        assert answer.status_code == 200, answer.text
        ready = answer.json()
        await self.pc.setRemoteDescription(RTCSessionDescription(ready["sdp"], "answer"))
        await asyncio.wait_for(opened.wait(), PATIENT)
        return ready

    def _take(self, message):
        self.said.append(json.loads(message))
        self.came.set()

    def send(self, **message):
        self.channel.send(json.dumps(message))

    async def until(self, kind):
        for _ in range(200):
            for message in self.said:
                if message["type"] == kind:
                    self.said.remove(message)
                    return message
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), PATIENT)
        raise AssertionError(f"no {kind} came")


def play(scene, place, **options):
    async def run():
        browser = Browser(place)
        try:
            return await scene(browser, **options)
        finally:
            await browser.pc.close()

    return asyncio.run(run())


def test_pictures_and_sound_come_and_commands_are_done(served):
    head, place = served

    async def scene(browser):
        ready = await browser.open(client="a-webrtc-client")
        assert (ready["type"], ready["audio_rate"], ready["client"]) == ("ready", 48000, "a-webrtc-client")
        for _ in range(5):
            picture = await asyncio.wait_for(browser.tracks["video"].recv(), PATIENT)
        assert abs(float(picture.to_ndarray(format="yuv420p")[: picture.height].mean()) - 40) < 8
        session = head.sessions[0]
        await asyncio.to_thread(post_recording, place, "a-webrtc-client")
        loud = 0
        while loud < 5:
            sound = await asyncio.wait_for(browser.tracks["audio"].recv(), PATIENT)
            loud += int(np.abs(sound.to_ndarray()).max() > 4000)
        assert (await browser.until("latency"))["algorithmic_ms"] == 200
        browser.send(type="interrupt")
        assert (await browser.until("interrupted"))["played_ms"] > 0
        browser.send(type="control", gaze=[3, 0])
        for bad, code in (
            ("no json", "bad_message"), ('{"type": "start"}', "not_now"), ('{"type": "speak"}', "not_now"),
            ('{"type": "control", "emotion": {"joy": 1}}', "bad_message"), (b"\0\0", "bad_message"),
        ):  # fmt: skip
            browser.channel.send(bad)
            assert (await browser.until("error"))["code"] == code
        assert session.controls[0]["gaze"] == (3.0, 0.0)
        browser.send(type="close")
        assert (await browser.until("closed"))["code"] == "closed"

    play(scene, place)


def post_recording(place, client):
    import io
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, 16000, 0, "NONE", ""))
        recording.writeframes((8000 * np.sin(np.arange(160000) * 0.1)).astype("<i2").tobytes())
    address = f"http://{place}/api/clients/{client}/speech"
    assert httpx.post(address, content=file.getvalue(), timeout=PATIENT).status_code == 202


def test_the_microphone_is_repeated_or_listened_to(served):
    head, place = served

    async def scene(browser):
        await browser.open(track=Voice())
        browser.send(type="microphone", mode="repeat")
        end = await browser.until("segment_end")
        assert 0.5 < end["pts_seconds"] < 2.5
        browser.send(type="microphone", mode="listen")
        assert await asyncio.to_thread(until, lambda: head.sessions[0].heard > 10000)
        browser.send(type="microphone", mode="loud")
        assert (await browser.until("error"))["code"] == "bad_message"

    play(scene, place)


def test_a_client_without_alive_messages_is_disconnected(served, monkeypatch):
    head, place = served

    async def scene(browser):
        await browser.open()
        monkeypatch.setattr(webrtc, "SILENCE_SECONDS", 0.1)  # from now on: it is connected
        browser.send(type="alive")
        assert (await browser.until("closed"))["code"] == "silent"
        assert await asyncio.to_thread(until, lambda: not head.sessions)

    play(scene, place)


def test_a_broken_connection_closes_its_session(served):
    head, place = served

    async def scene(browser):
        await browser.open()
        assert len(head.sessions) == 1

    play(scene, place)
    assert until(lambda: not head.sessions)


def test_a_second_connection_of_a_client_ends_the_first(served):
    head, place = served

    async def scene(browser):
        await browser.open(client="one-and-the-same")
        second = Browser(place)
        try:
            await second.open(client="one-and-the-same")
            assert (await browser.until("closed"))["code"] == "replaced"
            assert len(head.sessions) == 1
        finally:
            await second.pc.close()

    play(scene, place)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"no json", "bad_message"),
        (b"[]", "bad_message"),
        (b'{"sdp":' + b"[" * 100000, "bad_message"),
        (b'{"type": "offer"}', "bad_message"),
        (b'{"sdp": "nonsense"}', "bad_offer"),
        (b'{"sdp": "v=0\\r\\no=- 0 0 IN IP4 0.0.0.0\\r\\ns=-\\r\\nt=0 0\\r\\n"}', "bad_offer"),
        (b'{"sdp": "v=0' + b"\\r\\na=candidate:1 1 udp 1 127.0.0.1 9 typ host" * 101 + b'"}', "bad_offer"),
        (b'{"sdp": "v=0", "latency": "none"}', "bad_message"),
        (b'{"sdp": "v=0", "portrait": "guessed"}', "no_portrait"),
        (b'{"sdp": "v=0", "colour": 1}', "unknown_name"),
        (b'{"sdp": "' + b"x" * (1 << 18) + b'"}', "too_large"),
    ],
)
def test_an_invalid_offer_is_refused_with_a_message(served, body, code):
    head, place = served
    refused = httpx.post(f"http://{place}/api/webrtc", content=body, timeout=PATIENT)
    assert refused.json()["error"]["code"] == code
    assert 400 <= refused.status_code < 500
    assert until(lambda: not head.sessions)


def test_many_connections_leave_no_threads_or_sessions(served):
    head, place = served

    async def scene(browser):
        await browser.open()
        await asyncio.wait_for(browser.tracks["video"].recv(), PATIENT)

    for _ in range(3):
        play(scene, place)
    assert until(lambda: not head.sessions)
    before = names_of_threads()
    for _ in range(10):
        play(scene, place)
    assert until(lambda: not head.sessions)
    for _ in range(10):  # offers that are never followed by a connection
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(f"http://{place}/api/webrtc", json={"sdp": "v=0"}, timeout=PATIENT)
    assert until(lambda: not head.sessions)
    assert until(lambda: names_of_threads() <= before)


def names_of_threads():
    """Without those of the pools of event loops, which grow to the cores and stay."""
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith(("asyncio", "AnyIO"))}
