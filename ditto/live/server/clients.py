"""Who is connected: one conversation a client, opened and closed here, whatever carries it."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ditto.live.server.conversation import Conversation, Tell
from ditto.live.server.limits import END_SECONDS
from ditto.live.server.portraits import Portraits
from ditto.live.server.protocol import VERSION, JsonObject, ProtocolError, Start, choose
from ditto.live.waiting import within
from ditto.motion.motion import FPS
from ditto.talking_head import TalkingHead

logger = logging.getLogger(__name__)

REPLACED: JsonObject = {
    "type": "closed", "code": "replaced", "text": "the same client connected again; this connection is over"
}  # fmt: skip
STOPPED: JsonObject = {"type": "closed", "code": "stopped", "text": "the server stops"}


class Client:
    """One connection.

    Attributes:
        name: the client's id.
        conversation: what is spoken.
        ready: the message that tells the client so.
        leaving: done with the last message, once the connection is to end.
    """

    def __init__(self, name: str, conversation: Conversation, ready: JsonObject) -> None:
        self.name = name
        self.conversation = conversation
        self.ready = ready
        self.leaving: asyncio.Future[JsonObject] = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()

    async def end(self, message: JsonObject) -> bool:
        """Ask the connection to end with this message; whether its session was closed within `END_SECONDS`."""
        if not self.leaving.done():
            self.leaving.set_result(message)
        try:
            await within(END_SECONDS, self.gone.wait())
        except asyncio.TimeoutError:
            logger.error("the connection of client %s does not end", self.name)
            return False
        return True


class Clients:
    """Every client, by id."""

    def __init__(self, head: TalkingHead, portraits: Portraits) -> None:
        self._head = head
        self._portraits = portraits
        self._clients: dict[str, Client] = {}
        self._ending = False

    def __getitem__(self, name: str) -> Client:
        """Raises ProtocolError where nobody of that id is connected."""
        if name not in self._clients:
            raise ProtocolError("no_client", "no client of that id is connected; connect first", 404)
        return self._clients[name]

    def __len__(self) -> int:
        return len(self._clients)

    def check(self, start: Start) -> None:
        """Raise ProtocolError where the head has no such latency."""
        choose("latency", start.latency, self._head.performer.latencies)

    @asynccontextmanager
    async def joined(self, start: Start, output: str, audio_rate: int, tell: Tell) -> AsyncIterator[Client]:
        """A client with an open session, as long as the block lasts. One of the same id is ended before.

        Raises:
            ProtocolError: no such portrait or latency, the server ends, or the older client does not. BusyError: no room.
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
        )
        await self._end_older(name)  # its place is free then
        async with session:
            height, width = portrait.picture.shape[:2]
            conversation = Conversation(session, tell)
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
                await self._end_older(name)  # one that came meanwhile
                self._check_open()
                self._clients[name] = client
                yield client
            finally:
                try:
                    await conversation.close()
                finally:
                    if self._clients.get(name) is client:
                        del self._clients[name]
                    client.gone.set()

    async def _end_older(self, name: str) -> None:
        while (other := self._clients.get(name)) is not None:
            if not await other.end(REPLACED):
                raise ProtocolError("busy", "the earlier connection of this client does not end; try again later", 503)

    def _check_open(self) -> None:
        if self._ending:
            raise ProtocolError("stopped", "the server stops; connect again when it runs", 503)

    async def end(self) -> None:
        """End every connection, within `END_SECONDS`, and take no other."""
        self._ending = True
        await asyncio.gather(*(client.end(STOPPED) for client in list(self._clients.values())))
