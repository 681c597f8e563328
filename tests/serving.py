"""For the tests of the server: a head that needs no networks, and a server on a port of its own."""

import asyncio
import contextlib
import json
import threading
import time
from types import MappingProxyType, SimpleNamespace

import numpy as np
from actors import PATIENT as PATIENT
from actors import until as until
from voices import speech

from ditto.errors import BusyError, SessionError
from ditto.live import Frame, SegmentEnd
from ditto.live.server.protocol import HEADER, KINDS
from ditto.live.waiting import within
from ditto.motion.motion import FPS, rest_motion
from ditto.performer import Capability, check_latency

WIDTH, HEIGHT = 96, 64
NEVER = 1e6  # seconds
REST = rest_motion(1)[0]


class StandInSession:
    """Frames of one grey: 40 at idle, 200 in speech. Speech is computed at once, idle frames come by the clock."""

    def __init__(self, head, latency, output, audio_rate, idle):
        self.head, self.output, self.audio_rate, self.idle = head, output, audio_rate, idle is not False
        self.epoch = self.index = self.spoken = 0
        self.samples, self.rate = 0.0, None
        self.items, self.ahead, self.changed = [], [], asyncio.Event()  # `ahead`: heard, but not shown before the delay
        self.heard = 0
        self.controls, self.closed, self.broken = [], False, None
        self.next_idle = time.monotonic()
        self.delay_seconds = head.performer.delay_seconds(latency)

    async def __aenter__(self):
        if len(self.head.sessions) >= self.head.max_sessions:
            raise BusyError("all places are taken; try again later")
        self.head.sessions.append(self)
        self.head.opened += 1
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def close(self):
        self.closed = True
        self.changed.set()
        if self in self.head.sessions:
            self.head.sessions.remove(self)

    def check(self):
        if self.closed:
            raise SessionError("closed")

    async def push(self, pcm, sample_rate=16000):
        self.check()
        while len(self.items) > 25:
            await asyncio.sleep(0.01)
        self.rate = sample_rate
        self.samples += len(pcm) / sample_rate
        while self.samples >= 1 / FPS - 1e-9:
            self.samples -= 1 / FPS
            self.ahead.append(("speech", self.epoch, self.spoken))
            self.spoken += 1
        if self.items or self.spoken / FPS >= self.delay_seconds - 1e-9:
            self.give()

    def give(self):
        self.items += self.ahead
        self.ahead.clear()
        self.changed.set()

    async def flush(self):
        self.check()
        if self.rate is None:
            return
        self.give()
        if self.samples > 1e-6:
            self.items.append(("speech", self.epoch, self.spoken))
            self.spoken += 1
        self.items.append(SegmentEnd(self.epoch, self.spoken / FPS))
        self.epoch, self.spoken, self.samples, self.rate = self.epoch + 1, 0, 0.0, None
        self.changed.set()

    async def interrupt(self):
        self.check()
        unread = sum(isinstance(item, tuple) for item in self.items + self.ahead)
        self.ahead.clear()
        played = max(0, self.spoken - unread)
        self.items.clear()
        self.epoch, self.spoken, self.samples, self.rate = self.epoch + 1, 0, 0.0, None
        return played * 40

    def control(self, **changes):
        if "joy" in (changes.get("emotion") or {}):
            raise ValueError("expected an emotion of happy, got 'joy'; choose it")
        self.controls.append(changes)

    def listen(self, pcm, sample_rate=16000):
        self.heard += len(pcm)

    def __aiter__(self):
        return self

    async def __anext__(self):
        while not self.items:
            if self.broken is not None:
                raise self.broken
            if self.closed:
                raise StopAsyncIteration
            wait = self.next_idle - time.monotonic()
            if self.idle and wait <= 0:
                return self.frame("idle", self.epoch, None)
            self.changed.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await within(wait if self.idle else NEVER, self.changed.wait())
        item = self.items.pop(0)
        return item if isinstance(item, SegmentEnd) else self.frame(*item)

    def frame(self, kind, epoch, spoken):
        grey = 200 if kind == "speech" else 40
        shape = (HEIGHT * 3 // 2, WIDTH) if self.output == "yuv420p" else (HEIGHT, WIDTH, 3)
        image = np.full(shape, grey, np.uint8)
        if self.output == "motion":
            image = image[:0, :0]
        elif self.output == "yuv420p":
            image[HEIGHT:] = 128
        elif self.head.noise is not None:
            image = self.head.noise
        wave = np.where(np.arange(self.audio_rate // FPS) // 24 % 2, 0.25, -0.25)
        sound = (wave if kind == "speech" else 0.0 * wave).astype(np.float32)
        frame = Frame(image, self.index, self.index / FPS, sound, self.head.motion, kind, epoch, spoken)
        self.index += 1
        self.next_idle = max(self.next_idle + 1 / FPS, time.monotonic() - 0.5)
        return frame


class StandInScheduler:
    """What a server asks of a scheduler, of the sessions of a `StandInHead`."""

    waiting_seconds, unread = 0.25, 3

    def __init__(self, head):
        self.head, self.observers = head, []

    @property
    def sessions(self):
        return len(self.head.sessions)

    @property
    def max_sessions(self):
        return self.head.max_sessions

    @property
    def motion_sessions(self):
        return sum(session.output == "motion" for session in self.head.sessions)

    @property
    def load(self):
        return self.sessions / self.max_sessions

    def observe(self, observer):
        self.observers.append(observer)
        return lambda: self.observers.remove(observer)


class StandInPortrait:
    """A grey picture."""

    def __init__(self, height, width):
        self.picture = np.full((height, width, 3), 90, np.uint8)


class StandInHead:
    """Answers like a `TalkingHead`; `opened` counts its sessions, `sessions` are those open now.

    Its delays are those of no bundle.
    """

    delays = MappingProxyType({"quality": 3.32, "balanced": 0.88, "low": 0.2})

    def __init__(self, max_sessions=8):
        self.max_sessions, self.opened, self.sessions = max_sessions, 0, []
        self.portrait = StandInPortrait(HEIGHT, WIDTH)
        self.registered = []
        self.packed = []  # portraits, as often as each was packed
        self.noise = None  # shown instead of grey
        self.motion = REST  # of every frame
        self.scheduler = StandInScheduler(self)
        self.performer = SimpleNamespace(
            latencies=tuple(self.delays), delay_seconds=self.delay_seconds, supports=frozenset(Capability)
        )

    def delay_seconds(self, latency):
        return self.delays[check_latency(latency, self.delays)]

    def register(self, picture, face=0, max_size=640):
        self.registered.append(len(picture))
        return StandInPortrait(max_size, max_size)

    def appearance(self, portrait):
        return None

    def pack(self, portrait):
        self.packed.append(portrait)
        return b"packed " + str(portrait.picture.shape).encode()

    def model_pack(self):
        return b"model " * 1000

    def session(self, portrait, *, latency, output, audio_rate, idle, seed, emotion, still, style="natural", label=None):
        return StandInSession(self, latency, output, audio_rate, idle)


class Line:
    """One connection to an application without a network: what its client says and does is put in, turn by turn.

    Args:
        path: of the WebSocket, or of a request of `method`.
    """

    def __init__(self, app, path="/api/live", method=None):
        self.gone, self.coming, self.sent = False, asyncio.Queue(), []
        self.kind = "websocket" if method is None else "http"
        scope = {
            "type": self.kind, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(b"host", b"localhost")], "scheme": "ws" if method is None else "http", "method": method,
            "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "subprotocols": [], "http_version": "1.1",
            "asgi": {"version": "3.0", "spec_version": "2.4"}, "state": {},
        }  # fmt: skip
        self.served = asyncio.ensure_future(app(scope, self.coming.get, self.send))

    def say(self, kind, **event):
        self.coming.put_nowait({"type": kind, **event})

    def close_socket(self):
        self.gone = True
        self.coming.put_nowait({"type": f"{self.kind}.disconnect", "code": 1006})

    async def send(self, event):
        if self.gone and self.kind == "websocket":  # what is sent to a request that is gone is lost without a word
            raise OSError("gone")
        self.sent.append(event)


@contextlib.contextmanager
def running(app, **options):
    """The application behind a real socket; gives its host and port."""
    import uvicorn

    from ditto.live.server.run import Address, listen, server_of

    with listen(Address(port=0)) as listening:
        server: uvicorn.Server = server_of(app, Address(port=0))
        server.config.timeout_graceful_shutdown = 2
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            assert until(lambda: server.started)
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENT)
            assert not thread.is_alive()


def started(place, query="", headers=None, **start):
    """An open socket whose session has begun, and the server's "ready"."""
    from websockets.sync.client import connect

    socket = connect(f"ws://{place}/api/live{query}", additional_headers=headers or {}, open_timeout=PATIENT)
    socket.send(json.dumps({"type": "start", **start}))
    return socket, said(socket, "ready")


def received(socket, seconds=PATIENT):
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
    from websockets.exceptions import ConnectionClosed

    last = None
    try:
        while True:
            message = received(socket)
            last = message if message["type"] != "frame" else last
    except ConnectionClosed as closed:
        return last, closed.rcvd.code


def tone(seconds, rate):
    return (8000 * np.sin(np.arange(round(seconds * rate)) * 0.1)).astype("<i2").tobytes()


def spoken(seconds, rate):
    """Speech as 16-bit samples, for an open microphone."""
    return (np.clip(0.1 * speech(seconds, rate), -1, 1) * 32767).astype("<i2").tobytes()
