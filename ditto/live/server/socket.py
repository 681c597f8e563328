"""One WebSocket: messages in, frames out, bounded both ways."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from contextlib import suppress

import numpy as np
import numpy.typing as npt
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ditto.errors import AudioError
from ditto.live import AsyncSession, Frame
from ditto.live.playout import Played, Playout
from ditto.live.server.clients import Client, Clients
from ditto.live.server.conversation import pieces
from ditto.live.server.limits import END_SECONDS, LARGEST_COMMAND, LARGEST_MESSAGE, SILENCE_SECONDS, START_SECONDS
from ditto.live.server.pictures import Encoder, encoder_of
from ditto.live.server.protocol import (
    NO_PICTURE,
    Alive,
    Close,
    Command,
    JsonObject,
    Listen,
    Microphone,
    ProtocolError,
    Repeat,
    Speak,
    Start,
    error_of,
    pack_frame,
    parse,
)
from ditto.live.waiting import end_tasks, within
from ditto.media.audio import reject_encoded

logger = logging.getLogger(__name__)

MOST_PICTURES = 10  # that wait for a slow reader at the pace of playout; of more, the oldest lose their picture
MOST_FRAMES = 250  # whose sound waits: ten seconds; then the reader is too slow
FAST_FRAMES = 5  # that wait at the pace "fast", which loses nothing and lets the session wait
GOODBYE_SECONDS = 2.0


class Waiting:
    """A frame on its way out; `picture` is False once it lost its picture to newer ones."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.picture = True


class Outbox:
    """What waits to be sent, in order. JSON is never lost, nor is sound; pictures are, oldest first."""

    def __init__(self, fast: bool) -> None:
        self._fast = fast
        self._items: deque[Waiting | JsonObject] = deque()
        self._changed = asyncio.Event()

    def tell(self, message: JsonObject) -> None:
        """Append a JSON message."""
        self._items.append(message)
        self._changed.set()

    async def put(self, frame: Frame) -> None:
        """Append a frame.

        Raises:
            ProtocolError: the reader has taken nothing for ten seconds of sound.
        """
        while self._fast and self._frames() >= FAST_FRAMES:
            self._changed.clear()
            await self._changed.wait()
        frames = [item for item in self._items if isinstance(item, Waiting)]
        if len(frames) >= MOST_FRAMES:
            raise ProtocolError("too_slow", "the reader does not keep up with the sound; this connection is over", 408)
        with_picture = [item for item in frames if item.picture]
        if len(with_picture) >= MOST_PICTURES and not self._fast:
            with_picture[0].picture = False
        self._items.append(Waiting(frame))
        self._changed.set()

    async def get(self) -> Waiting | JsonObject:
        """The next, when there is one."""
        while not self._items:
            self._changed.clear()
            await self._changed.wait()
        item = self._items.popleft()
        self._changed.set()
        return item

    def drop_speech(self, epoch: int) -> int:
        """Forget speech of earlier epochs that was not sent yet; how many frames that were."""
        kept = [
            item
            for item in self._items
            if not (isinstance(item, Waiting) and item.frame.kind == "speech" and item.frame.epoch < epoch)
        ]
        dropped = len(self._items) - len(kept)
        self._items = deque(kept)
        self._changed.set()
        return dropped

    def _frames(self) -> int:
        return sum(isinstance(item, Waiting) for item in self._items)


async def serve_socket(socket: WebSocket, clients: Clients) -> None:
    """A connection from its beginning to its end; whatever goes wrong is told in words before it closes."""
    try:
        await socket.accept()
        start = await first_message(socket, clients)
        encoder = encoder_of(start)
        outbox = Outbox(start.pace == "fast")
        async with clients.connect(start, encoder.pixels, start.audio_rate, outbox.tell) as client:
            await tell_last(socket, await converse(socket, start, client, outbox, encoder))
        await hang_up(socket, 1000)
    except WebSocketDisconnect:
        pass
    except Exception as error:
        message, status = error_of(error)
        if status == 500:
            logger.exception("a connection failed")
        await tell_last(socket, message)
        await hang_up(socket, 1013 if status == 503 else 1011 if status >= 500 else 1008)


async def first_message(socket: WebSocket, clients: Clients) -> Start:
    """The message that opens. Raises ProtocolError where none comes in time."""
    try:
        return await within(START_SECONDS, opening_message(socket, clients))
    except asyncio.TimeoutError:
        raise ProtocolError("timeout", f'expected a "start" message within {START_SECONDS:g} s', 408) from None


async def opening_message(socket: WebSocket, clients: Clients) -> Start:
    """The message that opens, whenever it comes; others are answered with an error."""
    while True:
        try:
            message = await receive(socket)
            command = parse(message) if isinstance(message, str) else None
            if isinstance(command, Start):
                clients.check(command)
                return command
            raise ProtocolError("not_now", 'the first message is {"type": "start", ...}')
        except ProtocolError as error:
            await socket.send_text(json.dumps(error_of(error)[0]))


async def converse(
    socket: WebSocket, start: Start, client: Client, outbox: Outbox, encoder: Encoder
) -> JsonObject:
    """Carry the conversation until one side ends it; gives the last message.

    Raises:
        WebSocketDisconnect: the client went. Whatever broke the session.
    """
    conversation = client.conversation
    playout = Playout(conversation.session) if start.pace == "playout" else None

    def interrupted(epoch: int) -> int:
        return outbox.drop_speech(epoch) + (0 if playout is None else playout.interrupted(epoch))

    conversation.interrupted = interrupted
    outbox.tell(client.ready | {"video": start.video, "pace": start.pace})
    tasks = [
        asyncio.create_task(work)
        for work in (
            take_frames(conversation.session if playout is None else playout, client, outbox),
            send_all(socket, outbox, encoder),
            take_messages(socket, start, client, outbox),
        )
    ]
    try:
        over: list[asyncio.Future[None] | asyncio.Future[JsonObject]] = [*tasks, client.closing]
        await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
        if client.closing.done():
            return client.closing.result()
        return {"type": "closed", "code": "closed", "text": "goodbye"}
    finally:
        await end_tasks(*tasks, seconds=END_SECONDS / 2)
        if playout is not None:
            await playout.close()


async def take_frames(items: AsyncSession | Playout, client: Client, outbox: Outbox) -> None:
    """From the session to the outbox."""
    async for item in items:
        frame = item.frame if isinstance(item, Played) else item
        if isinstance(frame, Frame):
            await outbox.put(frame)
        client.conversation.delivered(item)


async def send_all(socket: WebSocket, outbox: Outbox, encoder: Encoder) -> None:
    """From the outbox to the client."""
    while True:
        item = await outbox.get()
        if isinstance(item, dict):
            data: str | bytes = json.dumps(item)
        else:
            picture = await asyncio.to_thread(encoder.encode, item.frame) if item.picture else (b"", NO_PICTURE)
            data = pack_frame(item.frame, *picture)
        sending = socket.send_text(data) if isinstance(data, str) else socket.send_bytes(data)
        try:
            await within(SILENCE_SECONDS, sending)
        except asyncio.TimeoutError:
            raise ProtocolError("too_slow", f"nothing was taken for {SILENCE_SECONDS:g} s", 408) from None


async def take_messages(socket: WebSocket, start: Start, client: Client, outbox: Outbox) -> None:
    """From the client to the conversation, until it says close. What is wrong is told, and the rest goes on."""
    conversation = client.conversation
    sound: Speak | Listen | Repeat = Speak(rate=start.rate)
    while True:
        try:
            message = await receive(socket)
            if isinstance(message, bytes):
                samples = samples_of(message)
                match sound:
                    case Speak(rate=rate):
                        await conversation.speak(samples, rate)
                    case Listen(rate=rate):
                        conversation.listen(samples, rate)
                    case Repeat(rate=rate):
                        for second in pieces(samples, rate, 1.0):
                            conversation.repeat(second, rate)
                            await asyncio.sleep(0)
                continue
            command: Command = parse(message)
            if isinstance(command, (Speak, Listen, Repeat)):
                conversation.end_microphone()
                sound = command
            elif isinstance(command, Close):
                return
            elif isinstance(command, Start):
                raise ProtocolError("not_now", "this connection has started; open another one for another session")
            elif isinstance(command, Microphone):
                raise ProtocolError("not_now", 'microphone tracks are of WebRTC; send "repeat" or "listen" and samples')
            elif not isinstance(command, Alive):
                await conversation.command(command)
        except (WebSocketDisconnect, asyncio.CancelledError):
            raise
        except Exception as error:
            answer, status = error_of(error)
            if status >= 500:
                raise
            outbox.tell(answer)


def samples_of(message: bytes) -> npt.NDArray[np.int16]:
    """(N,) int16 samples of a binary message. Raises AudioError for an odd number of bytes, or those of a sound file."""
    reject_encoded(message)
    if len(message) % 2:
        raise AudioError(f"sound is s16le, an even number of bytes, got {len(message)}; the message was left out")
    return np.frombuffer(message, "<i2").astype(np.int16)


async def receive(socket: WebSocket) -> str | bytes:
    """The next message.

    Raises:
        WebSocketDisconnect: there will be none. ProtocolError: it is too large.
    """
    event = await socket.receive()
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code", 1006))
    message: str | bytes = event["text"] if event.get("text") is not None else event["bytes"]
    largest = LARGEST_MESSAGE if isinstance(message, bytes) else LARGEST_COMMAND
    if len(message) > largest:
        kind = "bytes of sound" if isinstance(message, bytes) else "characters of JSON"
        raise ProtocolError("too_long", f"a message has at most {largest} {kind}, got {len(message)}; send several", 413)
    return message


async def tell_last(socket: WebSocket, message: JsonObject) -> None:
    """The last message, unless the client does not take it."""
    if is_open(socket):
        with suppress(WebSocketDisconnect, RuntimeError, OSError, asyncio.TimeoutError):
            await within(GOODBYE_SECONDS, socket.send_text(json.dumps(message)))


async def hang_up(socket: WebSocket, code: int) -> None:
    """The close."""
    if is_open(socket):
        with suppress(WebSocketDisconnect, RuntimeError, OSError, asyncio.TimeoutError):
            await within(GOODBYE_SECONDS, socket.close(code))


def is_open(socket: WebSocket) -> bool:
    """Whether neither side has closed."""
    return socket.client_state is socket.application_state is WebSocketState.CONNECTED
