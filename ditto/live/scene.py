"""A live scene: several faces of one picture in conversation; who does not speak listens.

    async with head.scene([woman, man]) as scene:
        await scene.push(0, pcm)
        async for frame in scene:
            show(frame.image)

A scene is one session for each face. It joins their frames, and lets each face hear what the others say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ditto.errors import SessionError
from ditto.frame import Frame, SegmentEnd
from ditto.live.session import AsyncSession
from ditto.media.audio import SAMPLE_RATE
from ditto.media.pixels import OUTPUTS, picture_of
from ditto.media.rates import FPS
from ditto.portrait.portrait import Portrait
from ditto.provenance import DISCLOSURE, Label
from ditto.scene import compose


@dataclass(frozen=True, eq=False)
class SceneFrame:
    """One picture of all faces, and its sound.

    Attributes:
        image: as `Frame.image` of a session, with all faces.
        audio: (audio_rate / 25,) float32: the sum of the speakers.
        index, pts_seconds: as of `Frame`.
        frames: of each face alone, in the order of the portraits: its kind, epoch, motion and sound. Their images are RGB.
        ended: which utterances ended before this frame: the speaker's number and its `SegmentEnd`.
    """

    image: npt.NDArray[np.uint8]
    audio: npt.NDArray[np.float32]
    index: int
    pts_seconds: float
    frames: tuple[Frame, ...]
    ended: tuple[tuple[int, SegmentEnd], ...] = ()


class AsyncScene:
    """Sessions of several faces of one picture, read together. Made by `TalkingHead.scene`; use it with `async with`.

    Args:
        portraits: different faces of one picture.
        sessions: one for each of them, with RGB pictures and idle frames.
        output: pixel format of the pictures.
        label: drawn into every picture.

    Attributes:
        sessions: as given.
        disclosure: as of a session.

    Raises:
        ValueError: another output.
    """

    disclosure = DISCLOSURE

    def __init__(
        self, portraits: Sequence[Portrait], sessions: Sequence[AsyncSession], output: str, label: Label | None = None
    ) -> None:
        self.sessions = tuple(sessions)
        self._picture, self._alpha = portraits[0].picture, portraits[0].alpha
        if output not in OUTPUTS:
            raise ValueError(f"expected an output of {', '.join(OUTPUTS)} for a scene, got {output!r}; choose one of them")
        self._output, self._label = output, label
        self._index = 0
        self._read: list[Frame | None] = [None for _ in sessions]  # frames of faces whose picture is not complete
        self._ended: list[tuple[int, SegmentEnd]] = []

    async def __aenter__(self) -> AsyncScene:
        opened: list[AsyncSession] = []
        try:
            for session in self.sessions:
                await session.__aenter__()
                opened.append(session)
        except BaseException:
            for session in opened:
                await session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def session(self, speaker: int) -> AsyncSession:
        """The session of a face, to control it: emotion, gaze, style, ...

        Raises:
            SessionError: there is no such speaker.
        """
        if not 0 <= speaker < len(self.sessions):
            raise SessionError(f"expected a speaker from 0 to {len(self.sessions) - 1}, got {speaker}; give another number")
        return self.sessions[speaker]

    async def push(self, speaker: int, pcm: bytes | npt.ArrayLike, sample_rate: int = SAMPLE_RATE) -> None:
        """Take speech of one face, as `AsyncSession.push` does."""
        await self.session(speaker).push(pcm, sample_rate)

    async def flush(self, speaker: int) -> None:
        """End the utterance of one face."""
        await self.session(speaker).flush()

    async def interrupt(self, speaker: int) -> int:
        """Drop all speech of one face that was not read; how many milliseconds of the utterance were read."""
        return await self.session(speaker).interrupt()

    def __aiter__(self) -> AsyncIterator[SceneFrame]:
        return self

    async def __anext__(self) -> SceneFrame:
        # A frame that was read stays in `_read` if this call is cancelled, so that the faces stay in step.
        frames = await asyncio.gather(*(self._next(number) for number in range(len(self.sessions))))
        self._read = [None for _ in self.sessions]
        ended, self._ended = tuple(self._ended), []
        rate = frames[0].audio.size * FPS
        sounds = np.stack([frame.audio for frame in frames])
        whole = sounds.sum(0)
        for session, own, frame in zip(self.sessions, sounds, frames, strict=True):
            if any(other.kind == "speech" for other in frames if other is not frame):
                session.listen(np.clip(whole - own, -1.0, 1.0), rate)
        image = compose(self._picture, [frame.image for frame in frames])
        index = self._index
        self._index += 1
        shown = picture_of(image, self._alpha, self._output, self._label)
        return SceneFrame(shown, np.clip(whole, -1.0, 1.0), index, frames[0].pts_seconds, tuple(frames), ended)

    async def _next(self, number: int) -> Frame:
        """The next frame of a face."""
        while (frame := self._read[number]) is None:
            item = await self.sessions[number].__anext__()
            if isinstance(item, Frame):
                self._read[number] = item
            else:
                self._ended.append((number, item))
        return frame

    async def close(self) -> None:
        """Close all sessions."""
        await asyncio.gather(*(session.close() for session in self.sessions))
