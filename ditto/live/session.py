"""A session: push speech of any rate, pull frames, interrupt. One thread computes; callers wait, block or are awaited.

An utterance lasts from its first push to `flush` or `interrupt`; its number, the epoch, is on all that comes of it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ditto import stream
from ditto.audio import Resampler
from ditto.errors import AudioError, DittoError, SessionError
from ditto.stream import FPS, HOP_SAMPLES, SAMPLE_RATE, check_samples

Array = npt.NDArray[np.float32]
T = TypeVar("T")

LARGEST_INBOX = 2 * SAMPLE_RATE  # samples that wait for the computing thread before `push` waits
LARGEST_OUTBOX = 25  # frames that wait for the reader before the computing thread waits


class Utterances(Protocol):
    """What a session needs of a `Stream`."""

    def push(self, samples: npt.ArrayLike) -> list[stream.Frame]: ...
    def flush(self) -> list[stream.Frame]: ...
    def reset(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Frame(stream.Frame):
    """A `ditto.Frame` of a session; index and pts_seconds count from the beginning of its utterance.

    Attributes:
        kind: "speech".
        epoch: number of the utterance.
    """

    kind: str = "speech"
    epoch: int = 0


@dataclass(frozen=True)
class SegmentEnd:
    """All frames of a flushed utterance have come.

    Attributes:
        epoch: number of the utterance.
        pts_seconds: its length.
    """

    epoch: int
    pts_seconds: float


Item = Frame | SegmentEnd


def samples_of(pcm: bytes | bytearray | memoryview | npt.ArrayLike, position: int = 0) -> Array:
    """(N,) float32 samples of s16le bytes or of an array.

    Raises:
        AudioError: an odd number of bytes, or what `check_samples` refuses.
    """
    if isinstance(pcm, (bytes, bytearray, memoryview)):
        data = bytes(pcm)
        if len(data) % 2:
            raise AudioError(f"16-bit samples are an even number of bytes, got {len(data)}; keep the odd one for later")
        return check_samples(np.frombuffer(data, "<i2").astype(np.int16), position)
    return check_samples(pcm, position)


class Exchange:
    """What the computing thread and the callers share. Every attempt is short, takes the lock and never waits."""

    def __init__(self, utterances: Utterances) -> None:
        self._utterances = utterances
        self.changed = threading.Condition()
        self.wakers: list[Callable[[], object]] = []  # called, under the lock, whenever something changes
        self._inbox: deque[tuple[int, Array | None]] = deque()  # epoch and samples, or None for its end
        self._waiting = 0  # samples in the inbox
        self._outbox: deque[Item] = deque()
        self._epoch = 0
        self._valid_from = 0  # what is of an earlier epoch was interrupted
        self._shown = (0, 0)  # epoch being read, frames of it given out
        self._closed = False
        self._error: DittoError | None = None
        self._resampler: tuple[int, Resampler] | None = None
        self._thread = threading.Thread(target=self._run, name="ditto-session", daemon=True)
        self._thread.start()

    @property
    def epoch(self) -> int:
        """Number of the utterance that the next push belongs to."""
        with self.changed:
            return self._epoch

    def begin(self, pcm: bytes | npt.ArrayLike, sample_rate: int) -> tuple[int, deque[Array]]:
        """Check and resample: the epoch and the pieces, one hop at most each, to `put` one after another."""
        samples = samples_of(pcm)
        with self.changed:
            self._check()
            if self._resampler is None:
                if samples.size == 0:
                    return self._epoch, deque()
                self._resampler = sample_rate, Resampler(sample_rate)
            rate, resampler = self._resampler
            if rate != sample_rate:
                raise AudioError(
                    f"an utterance keeps its sample rate, {rate} Hz, got {sample_rate} Hz; flush() before another rate"
                )
            return self._epoch, _pieces(resampler.push(samples))

    def end(self) -> tuple[int, deque[Array | None]]:
        """The epoch and what is left to `put` of the utterance; the next push begins another."""
        with self.changed:
            self._check()
            if self._resampler is None:
                return self._epoch, deque()
            pieces: deque[Array | None] = deque(_pieces(self._resampler[1].flush()))
            pieces.append(None)
            self._resampler = None
            epoch, self._epoch = self._epoch, self._epoch + 1
            return epoch, pieces

    def put(self, epoch: int, pieces: deque[Array] | deque[Array | None]) -> bool:
        """Hand over as many pieces as there is room for; whether none is left, or nobody wants them any more."""
        with self.changed:
            self._check()
            while pieces and epoch >= self._valid_from:
                if self._waiting >= LARGEST_INBOX:
                    return False
                piece = pieces.popleft()
                self._inbox.append((epoch, piece))
                self._waiting += 0 if piece is None else piece.size
                self._notify()
            return True

    def get(self) -> Item | None:
        """The next item, or None while there is none."""
        with self.changed:
            if self._outbox:
                item = self._outbox.popleft()
                shown = self._shown[1] if self._shown[0] == item.epoch else 0
                self._shown = (item.epoch, shown + 1) if isinstance(item, Frame) else (item.epoch, 0)
                self._notify()
                return item
            self._check()
            return None

    def interrupt(self) -> int:
        """Drop everything that is queued; milliseconds of the utterance being read that were given out."""
        with self.changed:
            self._check()
            frames = self._shown[1]
            self._epoch += 1
            self._valid_from = self._epoch
            self._inbox.clear()
            self._waiting = 0
            self._outbox.clear()
            self._resampler = None
            self._shown = (self._epoch, 0)
            self._notify()
            return frames * 1000 // FPS

    def close(self) -> None:
        """Let the thread end and everyone who waits go."""
        with self.changed:
            self._closed = True
            self._inbox.clear()
            self._outbox.clear()
            self._notify()

    def join(self) -> None:
        """Wait for the thread."""
        self._thread.join()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise SessionError("this session is closed; open another one")

    def _notify(self) -> None:
        self.changed.notify_all()
        for wake in self.wakers:
            wake()

    def _run(self) -> None:
        try:
            begun = -1
            while (command := self._take()) is not None:
                epoch, samples = command
                if epoch != begun:
                    self._utterances.reset()
                    begun, count = epoch, 0
                frames = self._utterances.flush() if samples is None else self._utterances.push(samples)
                count += len(frames)
                for frame in frames:
                    self._give(Frame(**vars(frame), epoch=epoch))
                if samples is None:
                    self._give(SegmentEnd(epoch, count / FPS))
        except Exception as error:  # whatever it is, it belongs to the caller
            with self.changed:
                if isinstance(error, DittoError):
                    self._error = error
                else:
                    self._error = SessionError(f"the session broke: {type(error).__name__}: {error}")
                    self._error.__cause__ = error
                self._inbox.clear()
                self._notify()

    def _take(self) -> tuple[int, Array | None] | None:
        with self.changed:
            while not self._inbox and not self._closed:
                self.changed.wait()
            if self._closed:
                return None
            epoch, samples = self._inbox.popleft()
            self._waiting -= 0 if samples is None else samples.size
            self._notify()
            return epoch, samples

    def _give(self, item: Item) -> None:
        with self.changed:
            while len(self._outbox) >= LARGEST_OUTBOX and item.epoch >= self._valid_from and not self._closed:
                self.changed.wait()
            if item.epoch >= self._valid_from and not self._closed:
                self._outbox.append(item)
                self._notify()


def _pieces(samples: Array) -> deque[Array]:
    return deque(samples[start : start + HOP_SAMPLES] for start in range(0, samples.size, HOP_SAMPLES))


class Session:
    """Push, flush and interrupt from one thread, iterate in another, or take turns in one. Close it, or use `with`."""

    def __init__(self, utterances: Utterances) -> None:
        self._exchange = Exchange(utterances)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def epoch(self) -> int:
        """Number of the utterance that the next push belongs to."""
        return self._exchange.epoch

    def push(self, pcm: bytes | npt.ArrayLike, sample_rate: int = SAMPLE_RATE) -> None:
        """Take speech: s16le bytes, int16 or float (N,), mono. Waits while more than two seconds wait to be spoken.

        An interrupt meanwhile drops what is left.

        Raises:
            AudioError: samples or sample rate are not usable, or the rate changed within an utterance.
            SessionError: the session is closed or broken.
        """
        epoch, pieces = self._exchange.begin(pcm, sample_rate)
        self._wait(lambda: self._exchange.put(epoch, pieces) or None)

    def flush(self) -> None:
        """End the utterance: its last frames and a `SegmentEnd` follow. Nothing pushed: nothing happens."""
        epoch, pieces = self._exchange.end()
        self._wait(lambda: self._exchange.put(epoch, pieces) or None)

    def interrupt(self) -> int:
        """Drop all that was pushed and not read yet; give the milliseconds of the utterance that were read."""
        return self._exchange.interrupt()

    def get(self, timeout_seconds: float | None = None) -> Item | None:
        """The next item; None if none came in time."""
        return self._wait(self._exchange.get, timeout_seconds)

    def __iter__(self) -> Iterator[Item]:
        while not self._exchange.closed:
            try:
                item = self.get()
            except SessionError:
                if self._exchange.closed:
                    return
                raise
            if item is not None:
                yield item

    def close(self) -> None:
        """End the session and its thread. Twice does no harm."""
        self._exchange.close()
        self._exchange.join()

    def _wait(self, attempt: Callable[[], T], timeout_seconds: float | None = None) -> T:
        """Attempt until it gives something, or once more at the end of the time."""
        with self._exchange.changed:
            found = [attempt()]

            def done() -> bool:
                if found[0] is None:
                    found[0] = attempt()
                return found[0] is not None

            self._exchange.changed.wait_for(done, timeout_seconds)
            return found[0]


class AsyncSession:
    """`Session` for asyncio: `async with`, `await push`, `async for`. Belongs to the loop that enters it."""

    def __init__(self, utterances: Utterances) -> None:
        self._utterances = utterances
        self._exchange: Exchange | None = None
        self._waiters: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> AsyncSession:
        loop = asyncio.get_running_loop()
        self._exchange = Exchange(self._utterances)

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed before the session: nobody waits any more
                loop.call_soon_threadsafe(self._wake)

        self._exchange.wakers.append(wake)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def epoch(self) -> int:
        """Number of the utterance that the next push belongs to."""
        return self._opened().epoch

    async def push(self, pcm: bytes | npt.ArrayLike, sample_rate: int = SAMPLE_RATE) -> None:
        """As `Session.push`."""
        exchange = self._opened()
        epoch, pieces = exchange.begin(pcm, sample_rate)
        await self._until(lambda: exchange.put(epoch, pieces) or None)

    async def flush(self) -> None:
        """As `Session.flush`."""
        exchange = self._opened()
        epoch, pieces = exchange.end()
        await self._until(lambda: exchange.put(epoch, pieces) or None)

    async def interrupt(self) -> int:
        """As `Session.interrupt`."""
        return self._opened().interrupt()

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        exchange = self._opened()
        try:
            return await self._until(exchange.get)
        except SessionError:
            if exchange.closed:
                raise StopAsyncIteration from None
            raise

    async def close(self) -> None:
        """As `Session.close`."""
        if self._exchange is not None:
            self._exchange.close()
            await asyncio.to_thread(self._exchange.join)

    def _opened(self) -> Exchange:
        if self._exchange is None:
            raise SessionError("this session is not open; enter it with `async with`")
        return self._exchange

    async def _until(self, attempt: Callable[[], T | None]) -> T:
        while (found := attempt()) is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)  # wakers run in this loop, so none is missed between attempt and here
            await waiter
        return found

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
