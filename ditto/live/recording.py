"""Recording a session: what it showed and said, and what the other party said, as a video file."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import numpy.typing as npt

from ditto.errors import DittoError, OutputError
from ditto.frame import Item, SegmentEnd
from ditto.live.playout import Played
from ditto.media.audio import Resampler
from ditto.media.rates import FPS
from ditto.media.video import VideoWriter
from ditto.provenance import Provenance

logger = logging.getLogger(__name__)

MAX_PICTURES = 50  # that wait to be written: two seconds, 60 MB of 640 x 640
MAX_FRAMES = 60 * FPS  # that wait, with or without their picture; a disk that is behind by more ends the recording
MAX_HEARD_SECONDS = 60.0  # of the other party, ahead of the pictures; older samples are dropped

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]
TO_RGB: Mapping[str, Callable[[Pixels], Pixels]] = {
    "rgb24": lambda image: image,
    "bgr24": lambda image: np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8),
    "yuv420p": lambda image: np.asarray(cv2.cvtColor(image, cv2.COLOR_YUV2RGB_I420), np.uint8),
}


class Recorder:
    """Writes the items of a session as .mp4 or .webm: the portrait's voice left, the other party's right.

    A context manager. The file gets its name when it is closed, and only if nothing failed and a frame was added.

        with head.blocking_session(portrait, audio_rate=48000) as s, Recorder("talk.mp4", w, h, audio_rate=48000) as r:
            for item in s:
                r.add(item)

    Args:
        path: of the video.
        width, height: of the pictures.
        output: pixel format of the session: "rgb24", "bgr24" or "yuv420p".
        audio_rate: of the session.
        live: never wait: if encoding is behind, pictures stay longer. Sound is never left out. If False, `add` waits.
        provenance: as of `VideoWriter`.

    Raises:
        ValueError: another `output`.
        OutputError: the file cannot be written.
        ProvenanceError: the key to sign with cannot be made, read or used.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        width: int,
        height: int,
        *,
        output: str = "rgb24",
        audio_rate: int = 16000,
        live: bool = False,
        provenance: Provenance | None = Provenance(),
    ) -> None:
        if output not in TO_RGB:
            raise ValueError(f"expected an output of {', '.join(TO_RGB)} to record, got {output!r}; choose one of them")
        self.path = Path(path)
        self._rate, self._live, self._to_rgb = audio_rate, live, TO_RGB[output]
        self._writer = VideoWriter(path, width, height, sample_rate=audio_rate, provenance=provenance)
        self._changed = threading.Condition()
        self._queue: deque[tuple[Pixels | None, Array] | None] = deque()  # picture (None: the last one) and sound; None: end
        self._pictures = 0  # in the queue
        self._error: Exception | None = None
        self._tick: int | None = None  # of the last frame
        self._heard: deque[Array] = deque()
        self._resampler: tuple[int, Resampler] | None = None
        self._thread = threading.Thread(target=self._run, name="ditto-recorder", daemon=True)
        self._thread.start()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, item: Item | Played) -> None:
        """Record an item: a frame, or a frame that was played (ticks that had none repeat the picture). Not `SegmentEnd`s.

        After a failure it does nothing; `close` raises it.
        """
        if isinstance(item, SegmentEnd):
            return
        frame = item.frame if isinstance(item, Played) else item
        if isinstance(item, Played):
            for _ in range(0 if self._tick is None else item.tick - self._tick - 1):
                self._put(None, np.zeros_like(frame.audio))
            self._tick = item.tick
        self._put(frame.image, frame.audio)

    def hear(self, samples: npt.NDArray[np.float32 | np.int16], sample_rate: int) -> None:
        """Record speech of the other party (N,): it sounds from the next frame on, after what was heard before.

        Raises:
            AudioError: a sample rate out of range.
        """
        with self._changed:
            if self._resampler is None or self._resampler[0] != sample_rate:
                self._resampler = sample_rate, Resampler(sample_rate, self._rate)
            scaled = samples.astype(np.float32) / (32768.0 if samples.dtype == np.int16 else 1.0)
            self._heard.append(self._resampler[1].push(scaled))
            while sum(map(len, self._heard)) > MAX_HEARD_SECONDS * self._rate:
                self._heard.popleft()

    def close(self) -> None:
        """Complete the file, in the time it takes to write what waits. A second call does nothing.

        Raises:
            OutputError: writing failed; there is no file then. Without a frame there is none either, and no error.
        """
        with self._changed:
            self._queue.append(None)
            self._changed.notify_all()
        self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _put(self, image: Pixels | None, sound: Array) -> None:
        with self._changed:
            if image is not None and self._pictures >= MAX_PICTURES:
                if self._live:
                    image = None
                else:
                    self._changed.wait_for(lambda: self._pictures < MAX_PICTURES or self._error is not None)
            if self._error is not None:
                return
            if len(self._queue) >= MAX_FRAMES:
                self._error = OutputError(f"{self.path} is written too slowly for a recording; record to a faster disk")
                return
            self._pictures += image is not None
            self._queue.append((image, np.stack([sound, self._take_heard(len(sound))])))
            self._changed.notify_all()

    def _take_heard(self, count: int) -> Array:
        """The next samples of the other party, with silence for what is missing."""
        found = np.zeros(count, np.float32)
        filled = 0
        while self._heard and filled < count:
            block = self._heard.popleft()
            part = block[: count - filled]
            found[filled : filled + len(part)] = part
            filled += len(part)
            if len(part) < len(block):
                self._heard.appendleft(block[len(part) :])
        return found

    def _run(self) -> None:
        try:
            last: Pixels | None = None
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: bool(self._queue))
                    item = self._queue.popleft()
                    self._pictures -= item is not None and item[0] is not None
                    self._changed.notify_all()
                    if item is None or self._error is not None:
                        break
                if item[0] is not None:
                    last = self._to_rgb(item[0])
                if last is not None:
                    self._writer.write(last, item[1])
            if self._error is None and self._writer.frames:
                self._writer.close()
        except Exception as error:  # whatever it is, the session goes on
            with self._changed:
                self._error = error if isinstance(error, DittoError) else OutputError(f"{self.path}: {error}; see the log")
                self._queue.clear()
                self._pictures = 0
                self._changed.notify_all()
        finally:
            self._writer.abort()
