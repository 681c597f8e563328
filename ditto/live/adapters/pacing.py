"""What the adapters share: when an item of a session is due, and sound as frameworks carry it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import numpy.typing as npt

from ditto.errors import AudioError
from ditto.frame import Frame
from ditto.media.audio import reject_encoded
from ditto.media.rates import FPS

LEAD_SECONDS = 2 / FPS  # how far ahead of its playout speech is handed on: what the receiver's queues hold


class Pacer:
    """The clock of whoever plays: one frame each 40 ms.

    Speech is handed on a little ahead of it, so that its sound has no gaps. A frame without sound is handed on when it is
    due: were it early, the pictures queued at the receiver would stay there and hold up those of the next words, whose
    sound finds its own queue empty. (`ditto.live.playout` is for those who show a frame themselves, when it is due.)

    Args:
        clock, sleep: seconds that only grow, and waiting on them.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._end = 0.0  # when the last frame handed on will have been played

    async def wait(self, frame: Frame) -> None:
        """Wait until the frame is to be handed on."""
        now = self._clock()
        due = max(self._end, now)
        self._end = due + 1 / FPS
        await self._sleep(due - now - (LEAD_SECONDS if frame.kind == "speech" else 0))

    async def wait_for_end(self) -> None:
        """Wait until everything handed on has been played."""
        await self._sleep(self._end - self._clock())

    def drop(self) -> None:
        """The frame last waited for was not handed on after all."""
        self._end -= 1 / FPS

    def clear(self) -> None:
        """What was handed on and not played yet is gone."""
        self._end = 0.0


def mono(pcm: bytes | bytearray | memoryview, channels: int) -> npt.NDArray[np.float32]:
    """(N,) samples in [-1, 1] of interleaved s16le samples, the mean of the channels.

    Raises:
        AudioError: the bytes are no whole number of samples, or those of a sound file.
    """
    data = bytes(pcm)
    reject_encoded(data)
    if channels < 1 or len(data) % (2 * channels):
        raise AudioError(
            f"16-bit samples of {channels} channels are a multiple of {2 * channels} bytes, got {len(data)}; keep what is "
            "left over for later"
        )
    mean: npt.NDArray[np.float32] = np.frombuffer(data, "<i2").reshape(-1, channels).mean(axis=1, dtype=np.float32)
    return mean / np.float32(32768)


def pcm16(samples: npt.NDArray[np.float32]) -> bytes:
    """Samples in [-1, 1] as s16le; louder ones are cut off."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()
