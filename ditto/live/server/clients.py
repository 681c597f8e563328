"""The connected clients: opens and closes the conversation of each, over the WebSocket or WebRTC."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ditto.live.server.conversation import Conversation, Send
from ditto.live.server.limits import END_SECONDS
from ditto.live.server.portraits import Portraits
from ditto.live.server.protocol import VERSION, JsonObject, ProtocolError, Start, check_choice
from ditto.live.waiting import within
from ditto.motion.motion import FPS
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


class Clients:
    """The connected clients, by id."""

    def __init__(self, head: TalkingHead, portraits: Portraits) -> None:
        self._head = head
        self._portraits = portraits
        self._clients: dict[str, Client] = {}
        self._ending = False

    def __getitem__(self, name: str) -> Client:
        """A client by id. Raises ProtocolError if it is not connected."""
        if name not in self._clients:
            raise ProtocolError("no_client", "expected the id of a connected client, got another; connect first", 404)
        return self._clients[name]

    def __len__(self) -> int:
        return len(self._clients)

    def check(self, start: Start) -> None:
        """Raise ProtocolError if the performer lacks the latency."""
        check_choice("latency", start.latency, self._head.performer.latencies)

    @asynccontextmanager
    async def connect(self, start: Start, output: str, audio_rate: int, send: Send) -> AsyncIterator[Client]:
        """Connect a client: a context manager around its open session. Ends an earlier connection of the same id first.

        Raises:
            ProtocolError: unknown portrait or latency; the server is stopping; the earlier connection does not end.
            BusyError: as many sessions as the head may have are open.
            ValueError: what `TalkingHead.session` refuses.
        """
        self._check_open()
        self.check(start)
        portrait = self._portraits[start.portrait]
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
        )
        await self._end_older(name)  # it may hold the last free session
        async with session:
            height, width = portrait.picture.shape[:2]
            conversation = Conversation(session, send)
            client = Client(
                name,
                conversation,
                {
                    "type": "ready", "protocol": VERSION, "client": name, "portrait": start.portrait, "width": width,
                    "height": height, "fps": FPS, "audio_rate": audio_rate, "latency": start.latency,
                    "algorithmic_ms": round(1000 * session.delay_seconds),
                },
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

    async def _end_older(self, name: str) -> None:
        while (other := self._clients.get(name)) is not None:
            if not await other.end(REPLACED):
                raise ProtocolError("busy", "the earlier connection of this client has not ended yet; try again later", 503)

    def _check_open(self) -> None:
        if self._ending:
            raise ProtocolError("stopped", "the server is stopping; connect again when it runs", 503)

    async def end(self) -> None:
        """End every connection, within `END_SECONDS`, and refuse new ones."""
        self._ending = True
        await asyncio.gather(*(client.end(STOPPED) for client in list(self._clients.values())))
