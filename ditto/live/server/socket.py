"""One WebSocket: messages in, frames out, bounded both ways."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from contextlib import suppress
from functools import partial

import numpy as np
import numpy.typing as npt
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ditto.errors import AudioError
from ditto.live import AsyncSession, Frame
from ditto.live.playout import Played, Playout
from ditto.live.server.clients import Client, Clients
from ditto.live.server.conversation import pieces
from ditto.live.server.limits import (
    END_SECONDS,
    MAX_COMMAND_CHARACTERS,
    MAX_MESSAGE_BYTES,
    SILENCE_SECONDS,
    START_SECONDS,
)
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

MAX_PICTURES = 10  # in the queue of a slow reader at the pace "playout"; of more, the oldest frame loses its picture
MAX_FRAMES = 250  # in the queue, ten seconds; a reader behind by more is disconnected
MAX_FRAMES_FAST = 5  # in the queue at the pace "fast", which drops nothing: the session waits
LAST_MESSAGE_SECONDS = 2.0


class QueuedFrame:
    """A frame to send; `picture` is False once its picture was dropped for newer ones."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.picture = True


class Outbox:
    """The queue of what is sent, in order. JSON and sound are never dropped; pictures are, oldest first.

    Args:
        fast: whether it drops nothing, and the session waits.
        small: whether pictures are small: then none is dropped either.
    """

    def __init__(self, fast: bool, small: bool = False) -> None:
        self._fast, self._small = fast, small
        self._items: deque[QueuedFrame | JsonObject] = deque()
        self._changed = asyncio.Event()

    def put_message(self, message: JsonObject) -> None:
        """Append a JSON message."""
        self._items.append(message)
        self._changed.set()

    async def put_frame(self, frame: Frame) -> None:
        """Append a frame.

        Raises:
            ProtocolError: `MAX_FRAMES` are in the queue.
        """
        while self._fast and self._frame_count() >= MAX_FRAMES_FAST:
            self._changed.clear()
            await self._changed.wait()
        frames = [item for item in self._items if isinstance(item, QueuedFrame)]
        if len(frames) >= MAX_FRAMES:
            raise ProtocolError(
                "too_slow",
                f"expected a reader that keeps up with the sound, got {MAX_FRAMES} unread frames; "
                "connect again and read faster",
                408,
            )
        with_picture = [item for item in frames if item.picture]
        if len(with_picture) >= MAX_PICTURES and not (self._fast or self._small):
            with_picture[0].picture = False
        self._items.append(QueuedFrame(frame))
        self._changed.set()

    async def get(self) -> QueuedFrame | JsonObject:
        """Remove the next item; waits for one."""
        while not self._items:
            self._changed.clear()
            await self._changed.wait()
        item = self._items.popleft()
        self._changed.set()
        return item

    def drop_speech(self, epoch: int) -> int:
        """Drop unsent speech of earlier epochs; returns how many frames that were."""
        kept = [
            item
            for item in self._items
            if not (isinstance(item, QueuedFrame) and item.frame.kind == "speech" and item.frame.epoch < epoch)
        ]
        dropped = len(self._items) - len(kept)
        self._items = deque(kept)
        self._changed.set()
        return dropped

    def _frame_count(self) -> int:
        return sum(isinstance(item, QueuedFrame) for item in self._items)


async def serve_socket(socket: WebSocket, clients: Clients) -> None:
    """Serve one connection to its end. After an error, the client gets an `error` message before the connection closes."""
    try:
        await socket.accept()
        start = await receive_start(socket, clients)
        encoder = encoder_of(start)
        outbox = Outbox(start.pace == "fast", encoder.small)
        async with clients.connect(start, encoder.pixels, start.audio_rate, outbox.put_message) as client:
            await send_last(socket, await serve_session(socket, start, client, outbox, encoder))
        await close_socket(socket, 1000)
    except WebSocketDisconnect:
        pass
    except Exception as error:
        message, status = error_of(error)
        if status == 500:
            logger.exception("a connection failed")
        await send_last(socket, message)
        await close_socket(socket, 1013 if status == 503 else 1011 if status >= 500 else 1008)


async def receive_start(socket: WebSocket, clients: Clients) -> Start:
    """The `start` message. Raises ProtocolError if none comes within `START_SECONDS`."""
    try:
        return await within(START_SECONDS, next_start(socket, clients))
    except asyncio.TimeoutError:
        raise ProtocolError(
            "timeout",
            f'expected a "start" message within {START_SECONDS:g} s, got none; connect again',
            408,
        ) from None


async def next_start(socket: WebSocket, clients: Clients) -> Start:
    """The `start` message; others are answered with an error."""
    while True:
        try:
            message = await receive(socket)
            command = parse(message) if isinstance(message, str) else None
            if isinstance(command, Start):
                clients.check(command)
                return command
            raise ProtocolError(
                "not_now",
                'expected {"type": "start", ...} as the first message, got another one; send it first',
            )
        except ProtocolError as error:
            await socket.send_text(json.dumps(error_of(error)[0]))


async def serve_session(
    socket: WebSocket, start: Start, client: Client, outbox: Outbox, encoder: Encoder
) -> JsonObject:
    """Serve the session until one side ends it; returns the last message to send.

    Raises:
        WebSocketDisconnect: the client disconnected.
        DittoError: the session broke.
    """
    conversation = client.conversation
    playout = Playout(conversation.session) if start.pace == "playout" else None

    def interrupted(epoch: int) -> int:
        return outbox.drop_speech(epoch) + (0 if playout is None else playout.interrupted(epoch))

    conversation.interrupted = interrupted
    outbox.put_message(client.ready | {"video": start.video, "pace": start.pace})
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
        return {"type": "closed", "code": "closed", "text": "the client closed the session"}
    finally:
        await end_tasks(*tasks, seconds=END_SECONDS / 2)
        if playout is not None:
            await playout.close()


async def take_frames(items: AsyncSession | Playout, client: Client, outbox: Outbox) -> None:
    """Read the session, or its playout, into the outbox."""
    async for item in items:
        frame = item.frame if isinstance(item, Played) else item
        if isinstance(frame, Frame):
            await outbox.put_frame(frame)
        client.conversation.delivered(item)


async def send_all(socket: WebSocket, outbox: Outbox, encoder: Encoder) -> None:
    """Send what is in the outbox."""
    while True:
        item = await outbox.get()
        if isinstance(item, dict):
            data: str | bytes = json.dumps(item)
        else:
            picture = b"", NO_PICTURE
            if item.picture:
                encode = partial(encoder.encode, item.frame)
                picture = encode() if encoder.small else await asyncio.to_thread(encode)
            data = pack_frame(item.frame, *picture)
        sending = socket.send_text(data) if isinstance(data, str) else socket.send_bytes(data)
        try:
            await within(SILENCE_SECONDS, sending)
        except asyncio.TimeoutError:
            raise ProtocolError(
                "too_slow",
                f"expected a client that reads, got none for {SILENCE_SECONDS:g} s; connect again",
                408,
            ) from None


async def take_messages(socket: WebSocket, start: Start, client: Client, outbox: Outbox) -> None:
    """Execute the client's messages until it closes the session. A bad one is answered with an error."""
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
                raise ProtocolError(
                    "not_now",
                    "expected one start message a connection, got another one; "
                    "open another connection for another session",
                )
            elif isinstance(command, Microphone):
                raise ProtocolError(
                    "not_now",
                    'expected a WebRTC connection for "microphone", got a WebSocket; '
                    'send "repeat" or "listen" and samples',
                )
            elif not isinstance(command, Alive):
                await conversation.command(command)
        except (WebSocketDisconnect, asyncio.CancelledError):
            raise
        except Exception as error:
            answer, status = error_of(error)
            if status >= 500:
                raise
            outbox.put_message(answer)


def samples_of(message: bytes) -> npt.NDArray[np.int16]:
    """(N,) int16 samples of a binary message. Raises AudioError for an odd number of bytes, or those of a sound file."""
    reject_encoded(message)
    if len(message) % 2:
        raise AudioError(
            f"expected sound as s16le, an even number of bytes, got {len(message)}; "
            "the message was dropped: send whole samples",
        )
    return np.frombuffer(message, "<i2").astype(np.int16)


async def receive(socket: WebSocket) -> str | bytes:
    """The next message.

    Raises:
        WebSocketDisconnect: the client disconnected.
        ProtocolError: the message is too large.
    """
    event = await socket.receive()
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code", 1006))
    message: str | bytes = event["text"] if event.get("text") is not None else event["bytes"]
    largest = MAX_MESSAGE_BYTES if isinstance(message, bytes) else MAX_COMMAND_CHARACTERS
    if len(message) > largest:
        kind = "bytes of sound" if isinstance(message, bytes) else "characters of JSON"
        raise ProtocolError(
            "too_long",
            f"expected at most {largest} {kind} in a message, got {len(message)}; send several",
            413,
        )
    return message


async def send_last(socket: WebSocket, message: JsonObject) -> None:
    """Send the last message; nothing if the client does not read it in time."""
    if is_open(socket):
        with suppress(WebSocketDisconnect, RuntimeError, OSError, asyncio.TimeoutError):
            await within(LAST_MESSAGE_SECONDS, socket.send_text(json.dumps(message)))


async def close_socket(socket: WebSocket, code: int) -> None:
    """Close the connection, if it is open."""
    if is_open(socket):
        with suppress(WebSocketDisconnect, RuntimeError, OSError, asyncio.TimeoutError):
            await within(LAST_MESSAGE_SECONDS, socket.close(code))


def is_open(socket: WebSocket) -> bool:
    """Whether neither side has closed the connection."""
    return socket.client_state is socket.application_state is WebSocketState.CONNECTED
