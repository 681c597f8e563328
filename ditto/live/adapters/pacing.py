"""For the LiveKit and Pipecat adapters: when to hand on an item of a session, and conversions of sound."""

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

LEAD_SECONDS = 2 / FPS  # by which speech is handed on before it is played; the receiver's queues hold that much


class Pacer:
    """The clock of the receiver that plays the frames: one every 40 ms.

    Speech is handed on a little early, so that its sound has no gaps. A frame without sound is handed on when it is due:
    early pictures would stay in the receiver's queue and delay those of the next words, whose sound finds an empty queue.
    (`ditto.live.playout` is for programs that show each frame themselves, when it is due.)

    Args:
        clock, sleep: a monotonic clock in seconds, and a coroutine that waits on it.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._end = 0.0  # when the last frame handed on will have been played

    async def wait(self, frame: Frame) -> None:
        """Wait until it is time to hand on the frame."""
        now = self._clock()
        due = max(self._end, now)
        self._end = due + 1 / FPS
        await self._sleep(due - now - (LEAD_SECONDS if frame.kind == "speech" else 0))

    async def wait_for_end(self) -> None:
        """Wait until everything handed on has been played."""
        await self._sleep(self._end - self._clock())

    def drop(self) -> None:
        """Undo the last `wait`: its frame was not handed on."""
        self._end -= 1 / FPS

    def clear(self) -> None:
        """Forget the frames handed on: the receiver has dropped those that it had not played."""
        self._end = 0.0


def mono(pcm: bytes | bytearray | memoryview, channels: int) -> npt.NDArray[np.float32]:
    """(N,) samples in [-1, 1] from interleaved s16le samples: the mean of the channels.

    Raises:
        AudioError: not a whole number of samples, or the bytes of a sound file.
    """
    data = bytes(pcm)
    reject_encoded(data)
    if channels < 1 or len(data) % (2 * channels):
        raise AudioError(
            f"expected 16-bit samples of {channels} channels, a multiple of {2 * channels} bytes, got {len(data)}; keep the "
            "rest for later"
        )
    mean: npt.NDArray[np.float32] = np.frombuffer(data, "<i2").reshape(-1, channels).mean(axis=1, dtype=np.float32)
    return mean / np.float32(32768)


def pcm16(samples: npt.NDArray[np.float32]) -> bytes:
    """Samples in [-1, 1] as s16le; louder ones are clipped."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()
