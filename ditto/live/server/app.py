"""The routes of the server: the page, portraits, WebRTC offers, sound files, the WebSocket."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response, WebSocket
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

import ditto
from ditto.errors import AudioError
from ditto.live.server import limits
from ditto.live.server.access import AccessControl
from ditto.live.server.clients import Clients
from ditto.live.server.conversation import Recording
from ditto.live.server.drawing import ALL, CORE, FOR_EVER, NONE, ClientDrawing, check_client_drawing, core_of
from ditto.live.server.ice import IceServer, configuration
from ditto.live.server.portraits import Portraits, preview
from ditto.live.server.protocol import VERSION, ProtocolError, error_of, parse_offer
from ditto.live.server.socket import serve_socket
from ditto.live.server.voice import voices
from ditto.live.server.webrtc import Peer, ReachabilityTest
from ditto.live.waiting import end_tasks, within
from ditto.media.voice import network
from ditto.motion.emotion import EMOTIONS
from ditto.portrait.portrait import Portrait
from ditto.provenance import DISCLOSURE, Label, Provenance
from ditto.talking_head import TalkingHead

if TYPE_CHECKING:
    from ditto.live.server.metrics import Metrics

logger = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page")
CLIENT = Path(__file__).with_name("client")  # a link to clients/web
NO_WEBRTC = (
    'expected a WebSocket for video "motion", got WebRTC, whose sound and messages have no clock in common; '
    "connect to /api/live"
)
NO_METRICS = "expected the package prometheus-client for metrics, got none; pip install prometheus-client"
MEDIA = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".wasm": "application/wasm"}  # fmt: skip
RECORDINGS = (  # (offset, first bytes) of the sound files that are taken; not playlists, as those name other files
    (0, b"RIFF"), (0, b"RF64"), (0, b"fLaC"), (0, b"OggS"), (0, b"ID3"), (4, b"ftyp"), (0, b"\x1a\x45\xdf\xa3"),
    (0, b"FORM"), (0, b"#!AMR"), (0, b"caff"), (0, b"\x30\x26\xb2\x75"), (0, b"\xff\xfb"), (0, b"\xff\xf3"),
    (0, b"\xff\xf2"), (0, b"\xff\xf1"), (0, b"\xff\xf9"), (0, b"\xff\xfa"),
)  # fmt: skip


@dataclass
class Peers:
    """Open WebRTC connections. It holds their tasks, because asyncio keeps only weak references to tasks."""

    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def add(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a peer in a task of its own."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


def create_app(
    head: TalkingHead,
    portrait: Portrait,
    token: str = "",
    max_size: int = 640,
    *,
    ice_servers: tuple[IceServer, ...] = (),
    record: Path | None = None,
    provenance: Provenance | None = Provenance(),
    label: Label | None = None,
    drain_seconds: float = 0.0,
    client_drawing: str = NONE,
) -> FastAPI:
    """The server as an ASGI application.

    Args:
        head: of all sessions.
        portrait: for clients that name none.
        token: that every request must carry; "": the server answers to loopback host names only.
        max_size: longest side of uploaded portraits, in pixels.
        ice_servers: STUN and TURN servers for WebRTC.
        record: folder for recordings of all conversations; None: nothing is recorded.
        provenance: what the content credentials of the recordings say; None: they get none.
        label: drawn into every picture.
        drain_seconds: at its end, the application waits as long for the conversations to end by themselves.
        client_drawing: which portraits clients may draw themselves: "none", "uploaded" or "all".

    Raises:
        InputError: an unknown `client_drawing`; one other than "none" while conversations are recorded, or for a bundle that
            has no packed portraits.
    """
    check_client_drawing(client_drawing, record)
    drawing = ClientDrawing(head, client_drawing, core_of(PAGE))
    portraits = Portraits(head, portrait, max_size, drawing.prepare)
    clients = Clients(head, portraits, drawing, record, provenance, label)
    peers = Peers()
    tests = asyncio.Semaphore(limits.MAX_TESTS)
    metrics = metrics_of(head, clients)
    delays = {name: round(1000 * head.performer.delay_seconds(name)) for name in head.performer.latencies}
    page = {file.name: file.read_bytes() for file in PAGE.iterdir() if file.suffix in MEDIA}
    client = {file.name: file.read_bytes() for file in CLIENT.glob("*.js")}
    if drawing.core is None:
        page.pop(CORE, None)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(voices)  # lists them once, which takes a moment
        await asyncio.to_thread(network)  # of the open microphone; opening takes tens of milliseconds
        if client_drawing == ALL:
            await asyncio.to_thread(drawing.prepare, portrait)  # so that no session waits for it
        yield
        clients.draining = True
        await clients.wait_for_end(drain_seconds)
        await clients.end()
        if metrics is not None:
            metrics.close()
        if peers.tasks:
            await asyncio.wait(peers.tasks, timeout=limits.END_SECONDS)
        await end_tasks(*peers.tasks, seconds=limits.END_SECONDS)

    app = FastAPI(title="ditto", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.clients = clients
    app.add_middleware(AccessControl, token=token, wasm=client_drawing != NONE)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        texts = {404: "no such page; docs/serve.md lists the routes", 405: "this route does not take this HTTP method"}
        text = texts.get(error.status_code, str(error.detail))
        return refusal(ProtocolError("not_found", text, error.status_code))

    @app.get("/")
    async def index() -> Response:
        return Response(page["index.html"], media_type=MEDIA[".html"])

    @app.get("/favicon.ico")  # asked for by browsers at pages that name no icon, such as answers in JSON
    async def icon() -> Response:
        return Response(page["icon.svg"], media_type=MEDIA[".svg"])

    @app.get("/page/{name}")
    async def part_of_page(name: str) -> Response:
        if name not in page:
            return refusal(ProtocolError("not_found", "no such page; docs/serve.md lists the routes", 404))
        return Response(page[name], media_type=MEDIA[Path(name).suffix])

    @app.get("/client/{name}")
    async def part_of_client(name: str) -> Response:
        if name not in client:
            return refusal(ProtocolError("not_found", "no such page; docs/serve.md lists the routes", 404))
        return Response(client[name], media_type=MEDIA[".js"])

    @app.get("/healthz")
    async def healthy() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def ready() -> Response:
        if not clients.open:
            return refusal(ProtocolError("draining", "the server takes no new conversations", 503))
        return JSONResponse({"status": "ok", "clients": len(clients)})

    @app.get("/metrics")
    async def numbers() -> Response:
        if metrics is None:
            return refusal(ProtocolError("not_found", NO_METRICS, 404))
        return Response(metrics.text(), media_type=metrics_type())

    @app.get("/api/info")
    async def info() -> Response:
        return JSONResponse(
            {
                "version": ditto.__version__,
                "protocol": VERSION,
                "emotions": list(EMOTIONS),
                "latencies": delays,
                "voices": [voice._asdict() for voice in voices()],
                "ice_servers": [server.for_page for server in ice_servers],
                "recording": record is not None,
                "client_drawing": drawing.policy,
                "core": drawing.core,
                "disclosure": DISCLOSURE,
                "limits": {
                    "picture_bytes": limits.MAX_PICTURE_BYTES,
                    "recording_bytes": limits.MAX_RECORDING_BYTES,
                    "message_bytes": limits.MAX_MESSAGE_BYTES,
                    "command_characters": limits.MAX_COMMAND_CHARACTERS,
                    "text_characters": limits.MAX_TEXT_CHARACTERS,
                },
            }
        )

    @app.post("/api/portraits")
    async def add_portrait(request: Request) -> Response:
        async def work() -> Response:
            data = await body_of(request, limits.MAX_PICTURE_BYTES)
            name, added = await portraits.add(data, any_face=request.query_params.get("face") == "largest")
            height, width = added.picture.shape[:2]
            return JSONResponse({"portrait": name, "width": width, "height": height}, 201)

        return await answered(work)

    @app.get("/api/portraits/{name}")
    async def picture(name: str) -> Response:
        async def work() -> Response:
            return Response(await asyncio.to_thread(preview, portraits[name]), media_type="image/jpeg")

        return await answered(work)

    @app.get("/api/portraits/{name}/appearance")
    async def appearance(name: str, request: Request) -> Response:
        async def work() -> Response:
            drawing.check(name)
            packed = await drawing.appearance(name, portraits[name])
            named = request.query_params.get("sha256")
            if named not in (None, packed.sha256):
                raise ProtocolError("not_found", "expected the hash of this portrait, got another; start a session again", 404)
            return packed.response(request, "private, no-cache" if named is None else FOR_EVER)

        return await answered(work)

    @app.get("/api/model/{sha256}")
    async def model(sha256: str, request: Request) -> Response:
        async def work() -> Response:
            return drawing.model(sha256).response(request, FOR_EVER)

        return await answered(work)

    @app.post("/api/webrtc")
    async def offer(request: Request) -> Response:
        async def work() -> Response:
            start = parse_offer(await body_of(request, limits.MAX_OFFER_BYTES))
            if start.video == "motion":
                raise ProtocolError("motion_webrtc", NO_WEBRTC)
            peer = Peer(start, start.sdp, clients, configuration(ice_servers))
            peers.add(peer.run())
            return JSONResponse(await within(limits.START_SECONDS, asyncio.shield(peer.answer)))

        return await answered(work)

    @app.post("/api/reachability")
    async def reachability(request: Request) -> Response:
        async def work() -> Response:
            offer = parse_offer(await body_of(request, limits.MAX_OFFER_BYTES))
            if tests.locked():
                raise ProtocolError("busy", f"{limits.MAX_TESTS} tests are under way, the most allowed; try again", 503)
            test = ReachabilityTest(offer.sdp, configuration(ice_servers))

            async def run() -> None:
                async with tests:
                    await test.run()

            peers.add(run())
            return JSONResponse({"sdp": await within(limits.START_SECONDS, asyncio.shield(test.answer))})

        return await answered(work)

    @app.post("/api/clients/{name}/speech")
    async def recording(name: str, request: Request) -> Response:
        async def work() -> Response:
            client = clients[name]
            path = await file_of(request, limits.MAX_RECORDING_BYTES)
            try:
                clients[name].conversation.say(Recording(path))
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            return JSONResponse({"client": client.name, "queued": True}, 202)

        return await answered(work)

    @app.websocket("/api/live")
    async def live(socket: WebSocket) -> None:
        await serve_socket(socket, clients)

    return app


def metrics_of(head: TalkingHead, clients: Clients) -> Metrics | None:
    """The metrics of a server, which watch its clients; None without prometheus-client."""
    if find_spec("prometheus_client") is None:
        return None
    from ditto.live.server.metrics import Metrics

    metrics = Metrics(head, clients)
    clients.watchers.append(metrics)
    clients.refused = metrics.refused
    return metrics


def metrics_type() -> str:
    """The content type of metrics."""
    from ditto.live.server.metrics import CONTENT_TYPE

    return CONTENT_TYPE


async def answered(work: Callable[[], Awaitable[Response]]) -> Response:
    """The response of a request, or its error as a response."""
    try:
        return await work()
    except ClientDisconnect:
        return Response(status_code=499)  # the client is gone
    except asyncio.TimeoutError:
        return refusal(ProtocolError("timeout", "the request took too long; try again", 504))
    except Exception as error:
        return refusal(error)


def refusal(error: Exception) -> Response:
    """An error as a response."""
    message, status = error_of(error)
    if status == 500:
        logger.error("a request failed", exc_info=error)
    return JSONResponse({"error": message}, status, headers={"retry-after": "5"} if status == 503 else None)


async def body_of(request: Request, largest: int) -> bytes:
    """The body of a request. Raises ProtocolError as soon as it is longer than `largest` bytes."""
    data = bytearray()
    async for chunk in chunks_of(request, largest):
        data += chunk
    return bytes(data)


async def file_of(request: Request, largest: int) -> Path:
    """The body in a temporary file, which the caller removes.

    Raises:
        ProtocolError: longer than `largest` bytes. AudioError: it does not begin like a sound file.
    """
    descriptor, name = tempfile.mkstemp(prefix="ditto-", suffix=".sound")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            head = b""
            async for chunk in chunks_of(request, largest):
                if len(head) < 16:
                    head += chunk[:16]
                    if len(head) >= 16:
                        check_recording(head)
                await asyncio.to_thread(file.write, chunk)
            check_recording(head)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def check_recording(head: bytes) -> None:
    """Raises AudioError unless the first bytes of a file are those of a sound file."""
    if not any(head[at : at + len(magic)] == magic for at, magic in RECORDINGS):
        raise AudioError(
            "expected a sound file (wav, flac, mp3, m4a, ogg, webm, aiff, a video), got another kind of file; convert it"
        )


async def chunks_of(request: Request, largest: int) -> AsyncIterator[bytes]:
    """The body, chunk by chunk. Raises ProtocolError as soon as it is longer than `largest` bytes."""
    declared = request.headers.get("content-length", "0")
    size = int(declared) if declared.isdigit() else 0
    stream = request.stream().__aiter__()
    while size <= largest:
        try:
            chunk = await within(limits.SILENCE_SECONDS, stream.__anext__())
        except StopAsyncIteration:
            return
        largest -= len(chunk)
        if largest < 0:
            break
        size = 0
        yield chunk
    raise ProtocolError("too_large", "the upload is larger than this server takes; GET /api/info lists the limits", 413)
