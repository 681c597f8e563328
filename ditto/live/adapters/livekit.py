"""LiveKit Agents: a session as the `VideoGenerator` of an `AvatarRunner`.

Source: livekit-agents 1.8.9, livekit/agents/voice/avatar/_types.py (the interface) and _runner.py (how it is called).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
from ditto.media.rates import FPS

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ditto.live.settings import FaceOptions
    from ditto.portrait.portrait import Portrait
    from ditto.talking_head import TalkingHead

HELD_SECONDS = 0.2  # how long the reader may be busy with one frame after `clear_buffer`: twice its queue


class DittoVideoGenerator(VideoGenerator):
    """A face for a LiveKit agent: pushed the agent's speech, it gives pictures and the sound that goes with each.

        async with DittoVideoGenerator(head, portrait) as generator:
            runner = AvatarRunner(room, audio_recv=audio, video_gen=generator, options=generator.options)
            await runner.start()
            await runner.wait_for_complete()

    Args:
        audio_rate: of the sound given back, in Hz.
        options: of `TalkingHead.session`: latency, seed, emotion, still, controls.

    Attributes:
        options: what an `AvatarRunner` wants to know: size, frame rate, sample rate, one channel.
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
        self._free = asyncio.Event()  # the reader has nothing in hand
        self._free.set()

    async def __aenter__(self) -> DittoVideoGenerator:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Open the session.

        Raises:
            BusyError: the head has as many sessions as it serves.
        """
        await self.session.__aenter__()

    async def aclose(self) -> None:
        """Close the session; the iteration ends. Twice does no harm."""
        await self.session.close()

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Take speech of any rate, one rate a segment; several channels are averaged. Waits while much is not spoken yet.

        Raises:
            AudioError: the rate changed within a segment, or is not usable.
            SessionError: the session is closed or broken.
        """
        if isinstance(frame, AudioSegmentEnd):
            if self._segment == 0:  # its frames were empty, but the runner waits for its end
                await self.session.push(np.zeros(1, np.float32))
            self._segment = None
            await self.session.flush()
            return
        self._segment = (self._segment or 0) + frame.samples_per_channel
        await self.session.push(_samples(frame), sample_rate=frame.sample_rate)

    def listen(self, frame: rtc.AudioFrame) -> None:
        """Let the face hear the other party (`AsyncSession.listen`): the frames of an `rtc.AudioStream` of its track."""
        self.session.listen(_samples(frame), sample_rate=frame.sample_rate)

    async def clear_buffer(self) -> None:
        """Drop all speech that was not given yet.

        Returns when the reader is done with the frame that it holds: an `AvatarRunner` reports the position it has counted
        right afterwards, and would count that frame into the next segment.
        """
        self._clears += 1
        self._segment = None
        await self.session.interrupt()
        with suppress(asyncio.TimeoutError):  # it may be waiting for the room
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


def _samples(frame: rtc.AudioFrame) -> npt.NDArray[np.float32]:
    return mono(frame.data.cast("B")[: 2 * frame.num_channels * frame.samples_per_channel], frame.num_channels)
