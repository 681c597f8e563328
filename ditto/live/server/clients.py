"""The connected clients: opens and closes the conversation of each, over the WebSocket or WebRTC."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto.errors import BusyError, OutputError, ProvenanceError
from ditto.frame import Item
from ditto.live import AsyncSession
from ditto.live.playout import Played
from ditto.live.recording import Recorder
from ditto.live.server.conversation import Conversation, Send
from ditto.live.server.drawing import ClientDrawing
from ditto.live.server.limits import END_SECONDS
from ditto.live.server.portraits import Portraits
from ditto.live.server.protocol import VERSION, JsonObject, ProtocolError, Start, check_choice
from ditto.live.server.watching import Watcher
from ditto.live.waiting import within
from ditto.motion.motion import FPS
from ditto.provenance import DISCLOSURE, Label, Provenance
from ditto.talking_head import TalkingHead

logger = logging.getLogger(__name__)

REPLACED: JsonObject = {
    "type": "closed", "code": "replaced", "text": "the same client connected again; this connection is closed"
}  # fmt: skip
STOPPED: JsonObject = {"type": "closed", "code": "stopped", "text": "the server is stopping"}


class Client:
    """A connected client.

    Attributes:
        name: its id.
        conversation: with it.
        ready: the message "ready" for it.
        closing: gets the last message as its result when the connection is to end.
        closed: set when its session is closed.
    """

    def __init__(self, name: str, conversation: Conversation, ready: JsonObject) -> None:
        self.name = name
        self.conversation = conversation
        self.ready = ready
        self.closing: asyncio.Future[JsonObject] = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()

    async def end(self, message: JsonObject) -> bool:
        """End the connection with a last message; whether its session was closed within `END_SECONDS`."""
        if not self.closing.done():
            self.closing.set_result(message)
        try:
            await within(END_SECONDS, self.closed.wait())
        except asyncio.TimeoutError:
            logger.error("the connection of client %s did not end within %g s", self.name, END_SECONDS)
            return False
        return True


class Recording(Watcher):
    """Records a conversation into a new file of a folder. A failure is logged; the conversation goes on."""

    def __init__(
        self, folder: Path, width: int, height: int, output: str, audio_rate: int, provenance: Provenance | None
    ) -> None:
        name = f"{time.strftime('%Y-%m-%dT%H-%M-%SZ', time.gmtime())}-{secrets.token_hex(4)}.mp4"
        self._recorder = Recorder(
            folder / name, width, height, output=output, audio_rate=audio_rate, live=True, provenance=provenance
        )

    def delivered(self, item: Played | Item) -> None:
        self._recorder.add(item)

    def heard(self, samples: npt.NDArray[np.float32 | np.int16], rate: int) -> None:
        self._recorder.hear(samples, rate)

    async def close(self) -> None:
        """Complete the file."""
        try:
            await asyncio.shield(asyncio.to_thread(self._recorder.close))
        except (OutputError, ProvenanceError) as error:
            logger.error("a recording is lost: %s", error)


class Clients:
    """The connected clients, by id.

    Args:
        head: of all sessions.
        portraits: of the server.
        drawing: what clients get that draw themselves.
        record: folder for recordings of all conversations, or None.
        provenance: of the recordings.
        label: drawn into every picture.

    Attributes:
        watchers: are told what happens in every conversation.
        refused: called when a session is refused because all are in use.
        draining: whether new clients are refused while the connected ones go on.
    """

    def __init__(
        self,
        head: TalkingHead,
        portraits: Portraits,
        drawing: ClientDrawing,
        record: Path | None = None,
        provenance: Provenance | None = Provenance(),
        label: Label | None = None,
    ) -> None:
        self._head = head
        self._portraits = portraits
        self._drawing = drawing
        self._record, self._provenance, self._label = record, provenance, label
        self._clients: dict[str, Client] = {}
        self._ending = False
        self.draining = False
        self.watchers: list[Watcher] = []
        self.refused: Callable[[], object] = lambda: None

    def __getitem__(self, name: str) -> Client:
        """A client by id. Raises ProtocolError if it is not connected."""
        if name not in self._clients:
            raise ProtocolError("no_client", "expected the id of a connected client, got another; connect first", 404)
        return self._clients[name]

    def __len__(self) -> int:
        return len(self._clients)

    def check(self, start: Start) -> None:
        """Raise ProtocolError if the performer lacks the latency, or the client may not draw the portrait itself."""
        check_choice("latency", start.latency, self._head.performer.latencies)
        if start.video == "motion":
            self._drawing.check(start.portrait)

    @asynccontextmanager
    async def connect(self, start: Start, output: str, audio_rate: int, send: Send) -> AsyncIterator[Client]:
        """Connect a client: a context manager around its open session. Ends an earlier connection of the same id first.

        Raises:
            ProtocolError: unknown portrait or latency; a portrait that the client may not draw; the server is stopping; the
                earlier connection does not end.
            BusyError: as many sessions as the head may have are open.
            ValueError: what `TalkingHead.session` refuses.
        """
        self._check_open()
        self.check(start)
        portrait = self._portraits[start.portrait]
        to_draw = await self._drawing.ready(start.portrait, portrait) if start.video == "motion" else {}
        name = start.client or secrets.token_urlsafe(12)
        session = self._head.session(
            portrait,
            latency=start.latency,
            output=output,
            audio_rate=audio_rate,
            idle=None if start.idle else False,
            seed=start.seed,
            emotion=start.emotion or None,
            still=start.still,
            style=start.style,
            label=self._label,
        )
        await self._end_older(name)  # it may hold the last free session
        async with self._entered(session):
            height, width = portrait.picture.shape[:2]
            watchers, recording = list(self.watchers), None
            if self._record is not None:
                recording = Recording(self._record, width, height, output, audio_rate, self._provenance)
                watchers.append(recording)
            conversation = Conversation(session, send, watchers)
            client = Client(
                name,
                conversation,
                {
                    "type": "ready", "protocol": VERSION, "client": name, "portrait": start.portrait, "width": width,
                    "height": height, "fps": FPS, "audio_rate": audio_rate, "latency": start.latency,
                    "algorithmic_ms": round(1000 * session.delay_seconds), "recording": recording is not None,
                    "disclosure": DISCLOSURE,
                }
                | to_draw,
            )  # fmt: skip
            try:
                await self._end_older(name)  # one that connected meanwhile
                self._check_open()
                self._clients[name] = client
                yield client
            finally:
                try:
                    await conversation.close()
                finally:
                    if self._clients.get(name) is client:
                        del self._clients[name]
                    client.closed.set()
                    if recording is not None:
                        await recording.close()

    @asynccontextmanager
    async def _entered(self, session: AsyncSession) -> AsyncIterator[None]:
        """The session, open. Counts refusals."""
        try:
            await session.__aenter__()
        except BusyError:
            self.refused()
            raise
        try:
            yield
        finally:
            await session.close()

    async def _end_older(self, name: str) -> None:
        while (other := self._clients.get(name)) is not None:
            if not await other.end(REPLACED):
                raise ProtocolError("busy", "the earlier connection of this client has not ended yet; try again later", 503)

    def _check_open(self) -> None:
        if self._ending:
            raise ProtocolError("stopped", "the server is stopping; connect again when it runs", 503)
        if self.draining:
            raise ProtocolError("draining", "the server takes no new conversations; connect to another one", 503)

    @property
    def open(self) -> bool:
        """Whether new clients are taken, as far as there are sessions."""
        return not (self._ending or self.draining)

    async def wait_for_end(self, seconds: float) -> None:
        """Wait for the clients to end by themselves, for so long at most. Set `draining` before."""
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        while self._clients and clock() < until:
            await asyncio.sleep(0.1)

    async def end(self) -> None:
        """End every connection, within `END_SECONDS`, and refuse new ones."""
        self._ending = True
        await asyncio.gather(*(client.end(STOPPED) for client in list(self._clients.values())))
