"""A session: push speech of any rate, read frames, interrupt. For asyncio and for threads.

An utterance lasts from its first push to `flush` or `interrupt`. Its number, the epoch, is on every item that belongs to it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sized
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from ditto.errors import AudioError, SessionError
from ditto.frame import Item
from ditto.live.settings import Settings
from ditto.live.state import SessionState
from ditto.media.audio import SAMPLE_RATE, check_samples
from ditto.provenance import DISCLOSURE

if TYPE_CHECKING:
    from ditto.controls import Controls
    from ditto.controls.timeline import Timeline
    from ditto.live.scheduler import Scheduler
    from ditto.performer import Appearance
    from ditto.portrait.portrait import Portrait

T = TypeVar("T")

RAMP_SECONDS = 0.4
LONG = 1 << 16  # bytes or samples: `AsyncSession.push` checks and copies more in a thread; fewer take under a millisecond


def samples_of(pcm: bytes | bytearray | memoryview | npt.ArrayLike) -> npt.NDArray[np.float32]:
    """(N,) float32 samples of s16le bytes or of an array, copied: the caller may use its buffer again.

    Raises:
        AudioError: an odd number of bytes, or what `check_samples` refuses.
    """
    if isinstance(pcm, (bytes, bytearray)) or (isinstance(pcm, memoryview) and pcm.format in ("B", "b", "c")):
        data = bytes(pcm)
        if len(data) % 2:
            raise AudioError(f"expected 16-bit samples, an even number of bytes, got {len(data)}; keep the odd one for later")
        return check_samples(np.frombuffer(data, "<i2").astype(np.int16))
    return np.array(check_samples(np.asarray(pcm) if isinstance(pcm, memoryview) else pcm))


class _Calls:
    """What both kinds of session share: the calls that never wait.

    Attributes:
        disclosure: words that tell a person what they are looking at, to be shown before the first picture
            (docs/provenance.md).
    """

    disclosure = DISCLOSURE
    _scheduler: Scheduler
    _state: SessionState | None

    @property
    def epoch(self) -> int:
        """Number of the utterance that the next push belongs to."""
        return self._opened().epoch

    @property
    def delay_seconds(self) -> float:
        """Algorithmic delay: at most, from the first sample of a frame to the last sample (at 16 kHz) that it waits for."""
        return self._opened().delay_seconds

    @property
    def compute_seconds(self) -> float:
        """Compute delay: running mean of the time for computing from a hop of speech to its first picture; 0 before one."""
        return self._opened().compute_seconds

    @property
    def waiting_seconds(self) -> float:
        """Seconds of speech in the queue; from thirty on, `push` waits."""
        state = self._opened()
        with self._scheduler.lock:
            return state.waiting_seconds

    @property
    def unread(self) -> int:
        """Items that the reader has not taken yet; many if the reader is late."""
        state = self._opened()
        with self._scheduler.lock:
            return state.unread

    def control(
        self,
        *,
        emotion: Mapping[str, float] | None = None,
        gaze: tuple[float, float] | None = None,
        head: tuple[float, float, float] | None = None,
        controls: Controls | None = None,
        style: str | float | None = None,
        names: Mapping[str, float] | None = None,
        timeline: Timeline | None = None,
        on_top: bool = False,
        ramp_seconds: float = RAMP_SECONDS,
    ) -> None:
        """Change what is given, smoothly. What is None stays as it is.

        The change begins with the frame after the next one to be read, which is drawn or being drawn already.

        Args:
            emotion: weights by name, as of `TalkingHead.stream`; {} is neutral.
            gaze: degrees to the right and down, in the picture, added to the eyes' own: `Controls.gaze`.
            head: degrees of pitch, yaw and roll, added to the head's own: those of `Controls`.
            controls: edits of every frame, in place of the earlier ones, gaze and head too.
            style: how much head and brows move, as of `TalkingHead.stream`.
            names: numbers by their names in the catalog (`ditto controls list`), as {"left_brow.y": -0.02}.
            timeline: edits over time, after all the others; its second 0 is the first frame that changes. It takes the
                place of an earlier timeline; an empty one ends that.
            on_top: whether an earlier timeline goes on below this one: for a wink or a look now.
            ramp_seconds: how long the change takes.

        Raises:
            ValueError, TypeError: an unknown name or a value out of range; then nothing changes.
            SessionError: the session is closed or broken.
        """
        state = self._opened()
        with self._scheduler.lock:
            state.control(
                ramp_seconds,
                emotion=emotion,
                gaze=gaze,
                head=head,
                controls=controls,
                style=style,
                names=names,
                timeline=timeline,
                on_top=on_top,
            )

    def listen(self, pcm: bytes | npt.ArrayLike, sample_rate: int = SAMPLE_RATE) -> None:
        """Take speech of the other party, in the forms that `push` takes: the idle face nods and looks at the camera.

        Raises:
            AudioError: unusable samples or sample rate.
            SessionError: the session is closed or broken.
        """
        state, samples = self._opened(), samples_of(pcm)
        with self._scheduler.lock:
            state.listen(samples, sample_rate)

    def _flush(self) -> None:
        state = self._opened()
        with self._scheduler.lock:
            state.end_utterance()

    def _interrupt(self) -> int:
        state = self._opened()
        with self._scheduler.lock:
            return state.interrupt()

    def _opened(self) -> SessionState:
        if self._state is None:
            raise SessionError("expected an open session, got one that was not entered; enter it with `async with`")
        return self._state


class Session(_Calls):
    """A session for threads: push in one and iterate in another, or take turns in one. Close it, or use `with`.

    Made by `TalkingHead.blocking_session`.

    Raises:
        ValueError: the performer lacks the latency or a capability that the settings need.
        BusyError: the head has as many sessions as it may have, or as the machine holds.
        TooSlowError: this machine draws too few frames a second.
    """

    def __init__(
        self, scheduler: Scheduler, portrait: Portrait, prepare: Callable[[], Appearance], settings: Settings
    ) -> None:
        self._scheduler = scheduler
        self._state = scheduler.open(portrait, prepare, settings)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def push(self, pcm: bytes | npt.ArrayLike, sample_rate: int = SAMPLE_RATE) -> None:
        """Take speech: s16le bytes, int16 or float (N,), mono. Waits while thirty seconds of speech are in the queue.

        Takes all of it; or nothing, if `interrupt` or `flush` ended the utterance during the wait.

        Raises:
            AudioError: unusable samples or sample rate, or the rate changed within an utterance.
            SessionError: the session is closed or broken.
        """
        state, samples = self._opened(), samples_of(pcm)
        self._wait(partial(state.push, samples, sample_rate, state.epoch))

    def flush(self) -> None:
        """End the utterance: its last frames and a `SegmentEnd` follow. Does nothing if nothing was pushed."""
        self._flush()

    def interrupt(self) -> int:
        """Drop all speech that was not read; how many milliseconds of the utterance were read."""
        return self._interrupt()

    def get(self, timeout_seconds: float | None = None) -> Item | None:
        """The next item; None if none comes within `timeout_seconds`."""
        return self._wait(self._opened().get, timeout_seconds)

    def __iter__(self) -> Iterator[Item]:
        while not self._opened().closed:
            try:
                item = self.get()
            except SessionError:
                if self._opened().closed:
                    return
                raise
            if item is not None:
                yield item

    def close(self) -> None:
        """Close the session; returns when no worker uses it any more. A second call does nothing."""
        self._scheduler.close(self._opened())

    def _wait(self, attempt: Callable[[], T], timeout_seconds: float | None = None) -> T:
        """Call `attempt` until it returns something true, or until the time is up."""
        changed = self._opened().changed
        with changed:
            return changed.wait_for(attempt, timeout_seconds)


class AsyncSession(_Calls):
    """`Session` for asyncio: `async with`, `await push`, `async for`. It belongs to the event loop that enters it.

    Made by `TalkingHead.session`; entering it raises BusyError and TooSlowError as `Session` does.

    Raises:
        ValueError: the performer lacks the latency or a capability that the settings need.
    """

    def __init__(
        self, scheduler: Scheduler, portrait: Portrait, prepare: Callable[[], Appearance], settings: Settings
    ) -> None:
        settings.check(scheduler.performer)
        self._scheduler = scheduler
        self._state = None
        self._enter: Callable[[], SessionState] = lambda: scheduler.open(portrait, prepare, settings)
        self._loop: asyncio.AbstractEventLoop | None = None  # of the task that entered
        self._given_up = False  # that task was cancelled
        self._waiters: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> AsyncSession:
        if self._loop is not None:
            raise SessionError("expected a new session, got one that was entered before; open another one")
        self._loop = asyncio.get_running_loop()
        entering = self._loop.run_in_executor(None, self._open)  # a portrait's first session prepares it
        try:
            await asyncio.shield(entering)
        except asyncio.CancelledError:
            with self._scheduler.lock:
                self._given_up = True
                opened = self._state
            if opened is not None:
                threading.Thread(target=self._scheduler.close, args=(opened,)).start()  # not in the loop, which may be ending
            raise
        except Exception:
            self._loop = None  # it may be tried again
            raise
        return self

    def _open(self) -> None:
        """Open the session, in a thread; close it at once if the task that entered was cancelled meanwhile."""
        opened, loop = self._enter(), self._loop
        assert loop is not None

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._wake)

        with self._scheduler.lock:
            opened.wakers.append(wake)
            given_up = self._given_up
            if not given_up:
                self._state = opened
        if given_up:
            self._scheduler.close(opened)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def push(self, pcm: bytes | npt.ArrayLike, sample_rate: int = SAMPLE_RATE) -> None:
        """As `Session.push`."""
        state = self._opened()
        epoch = state.epoch
        long = isinstance(pcm, Sized) and len(pcm) > LONG
        samples = await asyncio.to_thread(samples_of, pcm) if long else samples_of(pcm)
        await self._until(lambda: state.push(samples, sample_rate, epoch) or None)

    async def flush(self) -> None:
        """As `Session.flush`."""
        self._flush()

    async def interrupt(self) -> int:
        """As `Session.interrupt`."""
        return self._interrupt()

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        state = self._opened()
        try:
            return await self._until(state.get)
        except SessionError:
            if state.closed:
                raise StopAsyncIteration from None
            raise

    async def close(self) -> None:
        """As `Session.close`."""
        if self._state is not None:
            await asyncio.shield(asyncio.to_thread(self._scheduler.close, self._state))

    async def _until(self, attempt: Callable[[], T | None]) -> T:
        self._opened()
        if self._loop is None or self._loop is not asyncio.get_running_loop():
            raise SessionError("expected the event loop that entered the session, got another; open a session in this loop")
        while True:
            with self._scheduler.lock:
                found = attempt()
            if found is not None:
                return found
            waiter = self._loop.create_future()
            self._waiters.append(waiter)  # wakers run in this loop, so none is missed between attempt and here
            try:
                await waiter
            finally:
                if waiter in self._waiters:  # cancelled
                    self._waiters.remove(waiter)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
