"""Pipecat: a session as a processor between the speech synthesiser and the output transport.

Source: pipecat-ai 1.14.0, pipecat/processors/frame_processor.py (interruptions, errors) and transports/base_output.py (how it
plays pictures and sound).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING

try:
    from pipecat.frames.frames import (
        CancelFrame,
        EndFrame,
        Frame,
        InputAudioRawFrame,
        InterruptionFrame,
        OutputImageRawFrame,
        OutputTransportReadyFrame,
        StartFrame,
        StopFrame,
        SystemFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
    )
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
except ImportError as error:
    raise ImportError(
        f"{error}: the Pipecat adapter needs pipecat-ai; pip install it (docs/adapters.md says which "
        "versions go together)"
    ) from error

from ditto.errors import DittoError
from ditto.frame import Item, SegmentEnd
from ditto.live.adapters.pacing import Pacer, mono, pcm16
from ditto.live.session import AsyncSession
from ditto.live.settings import Settings
from ditto.media.rates import FPS

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ditto.live.settings import FaceOptions
    from ditto.portrait.portrait import Portrait
    from ditto.talking_head import TalkingHead

OUTPUT = "rgb24"
SpeechTime = tuple[int, float]  # (epoch, seconds since the start of that utterance)
BEFORE_SPEECH: SpeechTime = (-1, math.inf)


class DittoAvatar(FrameProcessor):
    """A face for a Pipecat bot: takes the synthesiser's speech, gives pictures and the sound of each.

        Pipeline([transport.input(), ..., tts, DittoAvatar(head, portrait), transport.output(), ...])

    The transport shows live video: `TransportParams(audio_out_enabled=True, video_out_enabled=True,
    video_out_is_live=True, video_out_framerate=25, video_out_width=..., video_out_height=...)`.

    * `TTSAudioRawFrame` becomes an `OutputImageRawFrame` and a `TTSAudioRawFrame` of 40 ms every 40 ms, both with the same
      pts; between utterances pictures of the idle face. They start when the transport is ready.
    * `TTSStoppedFrame` ends an utterance and follows its last sound. Other frames downstream (text, the end of the
      response, `EndFrame`) keep their position in the speech. System frames overtake, as everywhere in Pipecat.
    * `InterruptionFrame` drops all speech at once, and the frames that wait for it.
    * `InputAudioRawFrame`, the user's voice, goes to `listen` and is passed on.
    * An error becomes an `ErrorFrame`. Without a session, speech passes through unchanged.

    Args:
        options: of `TalkingHead.session`: latency, seed, emotion, still, controls, style.

    Attributes:
        session: the session, from the pipeline's setup on; None before, afterwards, and when it broke.
    """

    def __init__(self, head: TalkingHead, portrait: Portrait, **options: Unpack[FaceOptions]) -> None:
        super().__init__()
        self.session: AsyncSession | None = None
        Settings(output=OUTPUT, **options)  # raises for wrong options now, not in `setup`
        self._head, self._portrait, self._options = head, portrait, options
        self._rate = 0
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()  # the transport can take pictures
        self._pacer = Pacer()
        self._interruptions = 0
        self._ended = False
        self._accepted = BEFORE_SPEECH  # end of the speech that was accepted
        self._emitted = BEFORE_SPEECH  # end of the speech that was emitted
        self._waiting: deque[tuple[SpeechTime, Frame]] = deque()  # with the speech that each waits for

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]  # as Pipecat's own
        """Open the session."""
        await super().setup(setup)
        self._rate = setup.audio_out_sample_rate
        session = self._head.session(self._portrait, output=OUTPUT, audio_rate=self._rate, **self._options)
        try:
            self.session = await session.__aenter__()
        except DittoError as error:
            await self._fail(error)

    async def cleanup(self) -> None:
        """Close the session."""
        await self._close()
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Accept speech and the frames that keep their position in it; pass everything else on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame):
            await self._interrupt(frame, direction)
            return
        if isinstance(frame, CancelFrame):
            await self._close()
        elif isinstance(frame, OutputTransportReadyFrame):
            self._ready.set()
        elif isinstance(frame, InputAudioRawFrame):
            await self._listen(frame)
        elif direction is FrameDirection.DOWNSTREAM and not isinstance(frame, SystemFrame):
            await self._accept(frame)
            return
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame) and self.session is not None:
            self._reader = self.create_task(self._read(self.session))

    async def _accept(self, frame: Frame) -> None:
        """Push speech into the session; let other frames wait for the speech that came before them."""
        session = self.session
        if session is None:
            await self._pass(frame)
            return
        epoch = session.epoch
        try:
            if isinstance(frame, TTSAudioRawFrame):
                await session.push(mono(frame.audio, frame.num_channels), sample_rate=frame.sample_rate)
                if frame.num_frames:
                    begun = self._accepted[1] if self._accepted[0] == epoch else 0.0
                    self._accepted = epoch, begun + frame.num_frames / frame.sample_rate
                return
            if isinstance(frame, (TTSStoppedFrame, EndFrame, StopFrame)):
                await session.flush()
                if session.epoch != epoch:
                    self._accepted = epoch, math.inf
        except DittoError as error:  # of this frame, or of the session; the reader reports the latter too
            await self.push_error(str(error), exception=error)
            return
        self._waiting.append((self._accepted, frame))
        await self._release(self._emitted if self._ready.is_set() or not isinstance(frame, EndFrame) else self._accepted)

    async def _listen(self, frame: InputAudioRawFrame) -> None:
        if self.session is None:
            return
        try:
            self.session.listen(mono(frame.audio, frame.num_channels), sample_rate=frame.sample_rate)
        except DittoError as error:
            await self.push_error(str(error), exception=error)

    async def _interrupt(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        """Drop all speech, and the frames that wait for it unless they are uninterruptible."""
        self._interruptions += 1
        waiting, self._waiting = self._waiting, deque()
        if self.session is not None:
            await self.session.interrupt()
        self._pacer.clear()
        self._accepted = self._emitted = BEFORE_SPEECH
        await self.push_frame(frame, direction)
        for _, waited in waiting:
            if not waited.interruptible:
                await self._pass(waited)

    async def _read(self, session: AsyncSession) -> None:
        """Emit the items of the session, each when it is due."""
        await self._ready.wait()
        try:
            async for item in session:
                if self._ended:
                    return
                await self._emit(item)
        except DittoError as error:
            self._reader = None  # this very task
            await self._fail(error)

    async def _emit(self, item: Item) -> None:
        if isinstance(item, SegmentEnd):
            await self._release((item.epoch, math.inf))
            return
        interruptions = self._interruptions
        await self._pacer.wait(item)
        if item.kind == "speech":
            if interruptions != self._interruptions:
                return
            await self._release((item.epoch, (item.speech_index or 0) / FPS))
        height, width, _ = item.image.shape
        image = OutputImageRawFrame(item.image.tobytes(), (width, height), "RGB")
        image.pts = round(item.pts_seconds * 1e9)
        await self.push_frame(image)
        if item.kind == "speech" and interruptions == self._interruptions:
            sound = TTSAudioRawFrame(pcm16(item.audio), self._rate, 1)
            sound.pts = image.pts
            await self.push_frame(sound)

    async def _release(self, given: SpeechTime) -> None:
        """Record how far speech was emitted; pass on the frames that waited for it."""
        self._emitted = given
        while self._waiting and self._waiting[0][0] <= given:
            await self._pass(self._waiting.popleft()[1])

    async def _pass(self, frame: Frame) -> None:
        self._ended = self._ended or isinstance(frame, EndFrame)  # no picture follows it
        await self.push_frame(frame)

    async def _fail(self, error: DittoError) -> None:
        """Go on without the face: report the error and pass speech through."""
        await self.push_error(str(error), exception=error, force_treat_as_permanent=True)
        await self._close()
        await self._release((self._accepted[0], math.inf))

    async def _close(self) -> None:
        reader, self._reader = self._reader, None
        session, self.session = self.session, None
        if reader is not None:
            await self.cancel_task(reader)
        if session is not None:
            await session.close()
