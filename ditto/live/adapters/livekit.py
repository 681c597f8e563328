"""LiveKit Agents: a session as the `VideoGenerator` of an `AvatarRunner`.

Source: livekit-agents 1.8.9, livekit/agents/voice/avatar/_types.py (the interface) and _runner.py (how it is called).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

try:
    from livekit import rtc
    from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator
except ImportError as error:
    raise ImportError(
        f"{error}: the LiveKit adapter needs livekit-agents; pip install it (docs/adapters.md says which "
        "versions go together)"
    ) from error

from ditto.frame import SegmentEnd
from ditto.live.adapters.pacing import Pacer, mono, pcm16
from ditto.live.session import AsyncSession
from ditto.live.waiting import within
from ditto.machine import cores
from ditto.media.rates import FPS

if TYPE_CHECKING:
    from livekit.agents import AgentServer
    from typing_extensions import Unpack

    from ditto.live.settings import FaceOptions
    from ditto.portrait.portrait import Portrait
    from ditto.talking_head import TalkingHead

HELD_SECONDS = 0.2  # that `clear_buffer` waits at most for the reader to finish a frame: twice its queue


class DittoVideoGenerator(VideoGenerator):
    """A face for a LiveKit agent: takes the agent's speech, gives pictures and the sound of each.

        async with DittoVideoGenerator(head, portrait) as generator:
            runner = AvatarRunner(room, audio_recv=audio, video_gen=generator, options=generator.options)
            await runner.start()
            await runner.wait_for_complete()

    Args:
        audio_rate: of the sound that it gives, in Hz.
        options: of `TalkingHead.session`: latency, seed, emotion, still, controls, style.

    Attributes:
        options: for an `AvatarRunner`: size, frame rate, sample rate, one channel.
        session: the session; `control` and `listen` are for the application.
    """

    def __init__(
        self, head: TalkingHead, portrait: Portrait, *, audio_rate: int = 24000, **options: Unpack[FaceOptions]
    ) -> None:
        height, width, _ = portrait.picture.shape
        self.options = AvatarOptions(
            video_width=width, video_height=height, video_fps=FPS, audio_sample_rate=audio_rate, audio_channels=1
        )
        self.session: AsyncSession = head.session(portrait, output="yuv420p", audio_rate=audio_rate, **options)
        self._segment: int | None = None  # samples of the segment that is being pushed; None between segments
        self._clears = 0
        self._free = asyncio.Event()  # set while the reader holds no frame
        self._free.set()

    async def __aenter__(self) -> DittoVideoGenerator:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Open the session.

        Raises:
            BusyError: the head has as many open sessions as it may have.
        """
        await self.session.__aenter__()

    async def aclose(self) -> None:
        """Close the session; the iteration ends. A second call does nothing."""
        await self.session.close()

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Take speech of any rate, one rate a segment; channels are averaged. Waits while the session's queue is full.

        Raises:
            AudioError: the rate changed within a segment, or cannot be used.
            SessionError: the session is closed or broken.
        """
        if isinstance(frame, AudioSegmentEnd):
            if self._segment == 0:  # an empty segment, whose end the runner waits for
                await self.session.push(np.zeros(1, np.float32))
            self._segment = None
            await self.session.flush()
            return
        self._segment = (self._segment or 0) + frame.samples_per_channel
        await self.session.push(_samples(frame), sample_rate=frame.sample_rate)

    def listen(self, frame: rtc.AudioFrame) -> None:
        """Take speech of the other party (`AsyncSession.listen`): frames of an `rtc.AudioStream` of its track."""
        self.session.listen(_samples(frame), sample_rate=frame.sample_rate)

    async def clear_buffer(self) -> None:
        """Drop all speech that was not given yet.

        Returns when the reader has finished the frame that it holds. An `AvatarRunner` reports its position right
        afterwards, and would count a later frame into the next segment.
        """
        self._clears += 1
        self._segment = None
        await self.session.interrupt()
        with suppress(asyncio.TimeoutError):  # the reader may be waiting for the room
            await within(HELD_SECONDS, self._free.wait())

    async def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        """Pictures at 25 a second, each frame of speech followed by its 40 ms of sound, and the end of each segment.

        A sound frame's `userdata` holds pts_seconds and epoch. LiveKit stamps pictures when they are captured.
        """
        pacer = Pacer()
        async for item in self.session:
            clears = self._clears
            if isinstance(item, SegmentEnd):
                await pacer.wait_for_end()  # the runner reports the segment as played
                if clears == self._clears:
                    yield AudioSegmentEnd()
                continue
            await pacer.wait(item)
            if item.kind == "speech" and clears != self._clears:
                pacer.drop()
                continue
            self._free.clear()
            try:
                yield rtc.VideoFrame(
                    self.options.video_width, self.options.video_height, rtc.VideoBufferType.I420, item.image.tobytes()
                )
                if item.kind == "speech" and clears == self._clears:
                    about = {"pts_seconds": item.pts_seconds, "epoch": item.epoch}
                    rate, size = self.options.audio_sample_rate, len(item.audio)
                    yield rtc.AudioFrame(pcm16(item.audio), rate, 1, size, userdata=about)
            finally:
                self._free.set()


def worker_load(max_sessions: int | Callable[[], int] | None = None) -> Callable[[AgentServer], float]:
    """The `load_fnc` of an agent server (a worker): the share of its faces that are in use.

    LiveKit gives a job to the servers that are below their `load_threshold`. Its own measure, processor load, says too little
    here: an idle face costs almost as much as a speaking one, and one that just begins has cost nothing yet.

    Args:
        max_sessions: faces at once, of all processes of the server; or a function that tells, called once, with the first
            report: `lambda: processes_held(head, portrait)` (`ditto.live.capacity`) measures. By default one a processor core.

    Raises:
        ValueError: less than one.
    """
    limit = cores() if max_sessions is None else max_sessions

    def checked(number: int) -> int:
        if number < 1:
            raise ValueError(f"expected max_sessions of 1 or more, got {number}; leave it out for one a core")
        return number

    if not callable(limit):
        checked(limit)

    def load(server: AgentServer) -> float:
        nonlocal limit
        if callable(limit):
            limit = checked(limit())
        return min(1.0, len(server.active_jobs) / limit)

    return load


def _samples(frame: rtc.AudioFrame) -> npt.NDArray[np.float32]:
    return mono(frame.data.cast("B")[: 2 * frame.num_channels * frame.samples_per_channel], frame.num_channels)
