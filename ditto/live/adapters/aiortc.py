"""aiortc: a session as a video track and an audio track on one clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from ditto.live import Item, SegmentEnd
from ditto.live.playout import END_SECONDS, Played, Playout
from ditto.live.waiting import end_tasks
from ditto.motion.motion import FPS

VIDEO_RATE, AUDIO_RATE = 90_000, 48_000  # RTP clock rates: of video, of Opus
PACKETS_PER_FRAME = 2
PACKET_SAMPLES = AUDIO_RATE // FPS // PACKETS_PER_FRAME  # 960: 20 ms
LARGEST_QUEUE = 2  # frames that wait for a slow encoder; the oldest are dropped


class VideoTrack(MediaStreamTrack):
    """The pictures of a session. Made by `SessionTracks`."""

    kind = "video"

    def __init__(self, tracks: SessionTracks) -> None:
        super().__init__()
        self._tracks = tracks
        self._queue: asyncio.Queue[Played | None] = asyncio.Queue(LARGEST_QUEUE)

    async def recv(self) -> av.VideoFrame:
        """The next picture, when it is due; pts in 1/90000 s.

        Raises:
            MediaStreamError: the session is closed.
            ValueError: the session gives motion alone.
        """
        played = await take(self, self._queue)
        if not played.frame.image.size:
            raise ValueError(
                f'expected pictures, got a session of output "motion"; open it with output="{self._tracks.pixels}"'
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(played.frame.image), format=self._tracks.pixels)
        frame.pts, frame.time_base = played.tick * (VIDEO_RATE // FPS), Fraction(1, VIDEO_RATE)
        return frame


class AudioTrack(MediaStreamTrack):
    """The sound of a session: 48 kHz mono in packets of 20 ms. Made by `SessionTracks`."""

    kind = "audio"

    def __init__(self, tracks: SessionTracks) -> None:
        super().__init__()
        self._tracks = tracks
        self._queue: asyncio.Queue[Played | None] = asyncio.Queue(LARGEST_QUEUE)
        self._second: av.AudioFrame | None = None
        self._due = 0.0

    async def recv(self) -> av.AudioFrame:
        """The next 20 ms, when they are due; pts in 1/48000 s.

        Raises:
            MediaStreamError: the session is closed.
            ValueError: the session was not opened with audio_rate=48000.
        """
        loop = asyncio.get_running_loop()
        if self._second is not None:
            packet, self._second = self._second, None
            await asyncio.sleep(self._due - loop.time())
            return packet
        played = await take(self, self._queue)
        self._due = loop.time() + PACKET_SAMPLES / AUDIO_RATE
        sound = played.frame.audio
        if sound.shape != (PACKETS_PER_FRAME * PACKET_SAMPLES,):
            raise ValueError(
                f"expected {AUDIO_RATE} Hz, {PACKETS_PER_FRAME * PACKET_SAMPLES} samples a frame, got {sound.shape}; "
                f"open the session with audio_rate={AUDIO_RATE}"
            )
        first, self._second = (
            packet_of(part, (PACKETS_PER_FRAME * played.tick + i) * PACKET_SAMPLES)
            for i, part in enumerate(np.split(sound, PACKETS_PER_FRAME))
        )
        return first


class SessionTracks:
    """The two tracks of a session: `pc.addTrack(tracks.video)`, `pc.addTrack(tracks.audio)`.

    Picture and sound of a frame leave together when the frame is due (`ditto.live.playout.Playout`), idle frames too.
    Open the session with `audio_rate=48000`; `output="yuv420p"` saves a conversion.

    Args:
        session: an open `AsyncSession`; nothing else may read it.
        pixels: its `output`: "yuv420p" or "rgb24".
        delivered: called with every item that was played.
    """

    def __init__(
        self,
        session: AsyncIterator[Item],
        pixels: str = "yuv420p",
        delivered: Callable[[Played | SegmentEnd], object] | None = None,
    ) -> None:
        self.playout = Playout(session)
        self.pixels = pixels
        self._delivered = delivered
        self.video = VideoTrack(self)
        self.audio = AudioTrack(self)
        self._pump: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to read the session. The task ends with the session, or with the error that breaks it."""
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._run())
        return self._pump

    async def stop(self) -> None:
        """Stop reading and end both tracks; the session stays open. A second call does nothing."""
        await end_tasks(self.start(), seconds=END_SECONDS)
        await self.playout.close()

    async def _run(self) -> None:
        try:
            async for item in self.playout:
                if isinstance(item, Played):
                    put(self.video._queue, item)
                    put(self.audio._queue, item)
                if self._delivered is not None:
                    self._delivered(item)
        finally:
            for track in (self.video, self.audio):
                put(track._queue, None)


def put(queue: asyncio.Queue[Played | None], item: Played | None) -> None:
    """Append to a queue; if it is full, drop its oldest item."""
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(item)


async def take(track: VideoTrack | AudioTrack, queue: asyncio.Queue[Played | None]) -> Played:
    """The next item of the queue. Raises MediaStreamError at the end."""
    if track.readyState != "live":
        raise MediaStreamError
    track._tracks.start()
    played = await queue.get()
    if played is None:
        track.stop()
        raise MediaStreamError
    return played


def packet_of(sound: npt.NDArray[np.float32], pts: int) -> av.AudioFrame:
    """(960,) float samples as a packet of 16-bit samples."""
    samples = np.clip(np.rint(sound * 32768.0), -32768, 32767).astype(np.int16)
    packet = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    packet.sample_rate, packet.pts, packet.time_base = AUDIO_RATE, pts, Fraction(1, AUDIO_RATE)
    return packet
