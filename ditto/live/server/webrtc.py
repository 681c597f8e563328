"""WebRTC: pictures and sound as tracks, the client's microphone as a track, commands in a data channel."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidAccessError, InvalidStateError, OperationError
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from ditto.live.adapters.aiortc import AUDIO_RATE, SessionTracks
from ditto.live.server.clients import Client, Clients
from ditto.live.server.limits import (
    END_SECONDS,
    MAX_CANDIDATES,
    MAX_COMMAND_CHARACTERS,
    SILENCE_SECONDS,
    START_SECONDS,
    TEST_SECONDS,
)
from ditto.live.server.protocol import (
    Alive,
    Close,
    Control,
    Flush,
    Interrupt,
    JsonObject,
    Listen,
    Microphone,
    ProtocolError,
    Repeat,
    Say,
    Speak,
    Start,
    error_of,
    parse,
)
from ditto.live.waiting import end_tasks, within
from ditto.media.audio import mono_samples

if TYPE_CHECKING:
    from av import AudioFrame

logger = logging.getLogger(__name__)

CHANNEL = "control"
CLOSED: JsonObject = {"type": "closed", "code": "closed", "text": "the client closed the session"}
REFUSED = (ValueError, KeyError, IndexError, AttributeError, InvalidAccessError, InvalidStateError, OperationError)
MOST_UNSENT = 1 << 16  # bytes in the data channel; while a client leaves as many unread, messages to it are dropped


class Peer:
    """One WebRTC client. `run` lasts as long as its connection."""

    def __init__(self, start: Start, offer: str, clients: Clients, configuration: RTCConfiguration) -> None:
        self._start = start
        self._offer = offer
        self._clients = clients
        self._connection = RTCPeerConnection(configuration)
        self._channel: RTCDataChannel | None = None
        self._microphone = "off"
        self._tasks: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._failed: asyncio.Future[None] = loop.create_future()
        self._last_message = self._clock() + START_SECONDS - SILENCE_SECONDS  # time of it; at first, time to connect
        self.answer: asyncio.Future[JsonObject] = loop.create_future()

    async def run(self) -> None:
        """Answer the offer, then serve until one side ends the connection. `answer` gets an error that comes before it."""
        try:
            async with self._clients.connect(self._start, "yuv420p", AUDIO_RATE, self._send) as client:
                tracks = SessionTracks(client.conversation.session, delivered=client.conversation.delivered)
                client.conversation.interrupted = tracks.playout.interrupted
                try:
                    self._set_handlers(client)
                    sdp = await self._negotiated(tracks)
                    self.answer.set_result(client.ready | {"sdp": sdp})
                    self._send(await self._wait_for_end(client, tracks.start()))
                finally:
                    await tracks.stop()
        except Exception as error:
            if not self.answer.done():
                self.answer.set_exception(error)
            else:
                message, status = error_of(error)
                if status >= 500:
                    logger.warning("a WebRTC connection failed", exc_info=error)
                self._send(message)
        finally:
            await end_tasks(*self._tasks, seconds=END_SECONDS / 2)
            if self._channel is not None and self._channel.readyState == "open":
                await asyncio.sleep(0.2)  # time to send the last message
            with suppress(asyncio.TimeoutError):
                await within(END_SECONDS, self._connection.close())

    async def _wait_for_end(self, client: Client, pump: asyncio.Task[None]) -> JsonObject:
        watch = asyncio.create_task(self._watch_silence())
        self._tasks.append(watch)
        over: list[asyncio.Future[None] | asyncio.Future[JsonObject]] = [client.closing, pump, watch, self._failed]
        await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
        if client.closing.done():
            return client.closing.result()
        if pump.done():
            pump.result()
        if watch.done():
            text = f"expected a message at least every {SILENCE_SECONDS:g} s, got none; connect again"
            return {"type": "closed", "code": "silent", "text": text}
        return CLOSED

    async def _watch_silence(self) -> None:
        while (left := self._last_message + SILENCE_SECONDS - self._clock()) > 0.0:
            await asyncio.sleep(min(left, 0.5))

    def _fail(self) -> None:
        if not self._failed.done():
            self._failed.set_result(None)

    def _set_handlers(self, client: Client) -> None:
        connection = self._connection

        @connection.on("connectionstatechange")
        def changed() -> None:
            if connection.connectionState in ("failed", "closed"):
                self._fail()

        @connection.on("datachannel")
        def opened(channel: RTCDataChannel) -> None:
            if channel.label != CHANNEL or self._channel is not None:
                channel.close()
                return
            self._channel = channel
            channel.on("message", lambda message: self._take_message(client, message))
            channel.on("close", self._fail)

        @connection.on("track")
        def came(track: MediaStreamTrack) -> None:
            if track.kind == "audio":
                self._tasks.append(asyncio.create_task(self._read_microphone(client, track)))
            else:
                track.stop()

    async def _negotiated(self, tracks: SessionTracks) -> str:
        """The SDP of the answer. Raises ProtocolError if the offer cannot be answered, or not in time."""
        try:
            return await within(START_SECONDS, self._negotiate(tracks))
        except asyncio.TimeoutError:
            raise ProtocolError("timeout", f"the offer was not answered within {START_SECONDS:g} s; try again", 504) from None

    async def _negotiate(self, tracks: SessionTracks) -> str:
        check_candidates(self._offer)
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(self._offer, "offer"))
            kinds = [item.kind for item in self._connection.getTransceivers()]
            if sorted(kinds) != ["audio", "video"]:
                raise ProtocolError("bad_offer", f"expected one audio and one video section, got {kinds}; offer these two")
            self._connection.addTrack(tracks.audio)
            self._connection.addTrack(tracks.video)
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except REFUSED as error:
            raise ProtocolError("bad_offer", f"the offer cannot be answered ({error}); send a browser's SDP") from error
        return str(self._connection.localDescription.sdp)

    def _send(self, message: JsonObject) -> None:
        channel = self._channel
        if channel is not None and channel.readyState == "open" and channel.bufferedAmount < MOST_UNSENT:
            channel.send(json.dumps(message))

    def _take_message(self, client: Client, message: str | bytes) -> None:
        self._last_message = self._clock()
        try:
            if isinstance(message, bytes) or len(message) > MAX_COMMAND_CHARACTERS:
                raise ProtocolError("bad_message", "expected JSON in the data channel; send sound as a track")
            command = parse(message)
            if isinstance(command, (Start, Speak, Listen, Repeat)):
                raise ProtocolError("not_now", "expected a command of WebRTC, got one of the WebSocket; send sound as a track")
            if isinstance(command, Close):
                if not client.closing.done():
                    client.closing.set_result(CLOSED)
            elif isinstance(command, Microphone):
                self._microphone = command.mode
                if command.mode != "repeat":
                    client.conversation.end_microphone()
            elif not isinstance(command, Alive):
                self._tasks = [task for task in self._tasks if not task.done()]
                self._tasks.append(asyncio.create_task(self._execute(client, command)))
        except ProtocolError as error:
            self._send(error_of(error)[0])

    async def _execute(self, client: Client, command: Flush | Interrupt | Control | Say) -> None:
        try:
            await client.conversation.command(command)
        except Exception as error:
            message, status = error_of(error)
            if status >= 500:
                logger.warning("a command failed", exc_info=error)
            self._send(message)

    async def _read_microphone(self, client: Client, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = cast("AudioFrame", await track.recv())  # of an audio track; aiortc's type says less
            except MediaStreamError:
                return
            if self._microphone == "off":
                continue
            try:
                if self._microphone == "repeat":
                    client.conversation.repeat(mono_samples(frame), frame.sample_rate)
                else:
                    client.conversation.listen(mono_samples(frame), frame.sample_rate)
            except Exception as error:
                self._send(error_of(error)[0])
                return


class ReachabilityTest:
    """Answers an offer of a data channel without media or session: a page tests with it whether WebRTC reaches the server."""

    def __init__(self, offer: str, configuration: RTCConfiguration) -> None:
        self._offer = offer
        self._connection = RTCPeerConnection(configuration)
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Answer the offer; wait until the page closes the connection, or `TEST_SECONDS`. `answer` gets an error."""
        over = asyncio.Event()

        @self._connection.on("connectionstatechange")
        def changed() -> None:
            if self._connection.connectionState in ("failed", "closed"):
                over.set()

        try:
            self.answer.set_result(await within(START_SECONDS, self._negotiated()))
            await within(TEST_SECONDS, over.wait())
        except asyncio.TimeoutError:
            if not self.answer.done():
                self.answer.set_exception(ProtocolError("timeout", "the offer was not answered in time; try again", 504))
        except ProtocolError as error:
            self.answer.set_exception(error)
        finally:
            with suppress(asyncio.TimeoutError):
                await within(END_SECONDS, self._connection.close())

    async def _negotiated(self) -> str:
        check_candidates(self._offer)
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(self._offer, "offer"))
            if self._connection.getTransceivers() or self._connection.sctp is None:
                raise ProtocolError("bad_offer", "expected an offer of a data channel alone, got another; send one")
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except REFUSED as error:
            raise ProtocolError("bad_offer", f"the offer cannot be answered ({error}); send a browser's SDP") from error
        return str(self._connection.localDescription.sdp)


def check_candidates(offer: str) -> None:
    """Raises ProtocolError if an offer names too many addresses."""
    candidates = offer.count("a=candidate:")
    if candidates > MAX_CANDIDATES:
        raise ProtocolError("bad_offer", f"expected at most {MAX_CANDIDATES} candidates, got {candidates}; leave some out")
