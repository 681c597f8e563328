"""One session's queues and clock: samples to be spoken, motion to be drawn, pictures to be read.

Everything here is called under the stage's lock and is short, but for `draw`, which takes and gives values only.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.audio import Resampler
from ditto.errors import AudioError, DittoError, SessionError
from ditto.live.face import IDLE, Face, at_rest, live, speak
from ditto.live.items import OUTPUTS, Frame, Item, SegmentEnd
from ditto.live.listening import Listener, Reaction
from ditto.live.ramp import Ramps
from ditto.live.settings import Settings, utterance_seed
from ditto.motion import FPS
from ditto.speech import HOP_SAMPLES
from ditto.stream import edited
from ditto.utterance import SAMPLE_RATE, Utterance

if TYPE_CHECKING:
    from ditto.controls import Controls
    from ditto.portrait import Portrait
    from ditto.talking_head import TalkingHead

Array = npt.NDArray[np.float32]

LARGEST_INBOX = 30 * SAMPLE_RATE  # samples that wait to be spoken before `push` waits
ROWS_AHEAD = 25  # frames of motion that wait to be drawn before speech waits
PICTURES_AHEAD = 25  # frames drawn that wait for the reader
PATIENCE_SECONDS = 0.25  # without speech in the midst of an utterance, before the face goes on living
LATE_SECONDS = 1.0 / FPS  # behind the clock, before the clock waits for the reader
COMPUTE_AVERAGE = 0.1  # share of the newest measurement


class Piece(NamedTuple):
    """At most a hop of speech and the sound that goes with it; None for the end of an utterance."""

    epoch: int
    samples: Array | None
    sound: Array


class Speech:
    """The utterance that is being heard, and its sound as far as it was not shown."""

    def __init__(self, epoch: int, utterance: Utterance) -> None:
        self.epoch = epoch
        self.utterance = utterance
        self._sound = np.zeros(0, np.float32)

    def push(self, piece: Piece) -> None:
        """Take a piece."""
        self._sound = np.concatenate([self._sound, piece.sound])
        if piece.samples is None:
            self.utterance.end()
        else:
            self.utterance.push(piece.samples)

    def can_cut(self, size: int) -> bool:
        """Whether the next `size` samples of sound are there."""
        return self._sound.size >= size or self.utterance.ended

    def cut(self, size: int) -> Array:
        """The next `size` samples of sound, filled up with silence after the end."""
        cut, self._sound = self._sound[:size], self._sound[size:]
        return np.pad(cut, (0, size - cut.size))


class Row(NamedTuple):
    """One frame of motion to be drawn.

    Attributes:
        speech: what it is of.
        number: in its utterance.
        motion: (70,) as sampled.
        emotion: (8,) it was sampled with.
        seconds: what computing it took, if it is the first of its hop.
        sound: its own; None until it is drawn for the first time.
    """

    speech: Speech
    number: int
    motion: Array
    emotion: Array
    seconds: float
    sound: Array | None = None


class Picture(NamedTuple):
    """An item for the reader, the row it was drawn from, and the face after it."""

    item: Item
    row: Row | SegmentEnd | None
    face: Face


class Task(NamedTuple):
    """A frame to be drawn after a face: of speech, or idle."""

    generation: int
    face: Face
    row: Row | None
    reaction: Reaction
    ramps: Ramps
    timeline: Callable[[int], Controls] | None
    epoch: int


class Performance:
    """What a stage knows of a session, and what the session's callers ask of it.

    Attributes:
        changed: condition on the stage's lock: something is new for the callers.
        wakers: called, under the lock, whenever `changed` is notified.
        work: called, under the lock, whenever there may be something to compute.
        closed: set by `close`.
        error: what broke the session, or None.
        hearing, drawing: whether a worker is at it.
        compute_seconds: running mean of the time from a hop of speech to its first picture, computing alone.
    """

    def __init__(
        self,
        head: TalkingHead,
        portrait: Portrait,
        settings: Settings,
        lock: threading.RLock,
        work: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.head = head
        self.portrait = portrait
        self.settings = settings
        self.prepared = head.appearance(portrait)
        self.sampler = head.sampler_for(settings.latency)
        self.changed = threading.Condition(lock)
        self.wakers: list[Callable[[], object]] = []
        self.work = work
        self.closed = False
        self.error: DittoError | None = None
        self._broke_at: TracebackType | None = None
        self.hearing = self.drawing = False
        self.compute_seconds = 0.0
        self.epoch = 0  # of the next push
        self._resamplers: tuple[int, Resampler, Resampler | None] | None = None
        self._inbox: deque[Piece] = deque()
        self._waiting = 0  # samples in the inbox
        self._speech: Speech | None = None
        self._rows: deque[Row | SegmentEnd] = deque()
        self._pictures: deque[Picture] = deque()
        self._task: Task | None = None  # being drawn
        self._generation = 0  # of what is drawn: what a change overtook is thrown away
        self._face = self._read = at_rest()  # after the last picture drawn, and after the last one read
        self._spoken = (0, 0)  # epoch being read, frames of it given out
        self._timeline = settings.controls if callable(settings.controls) else None
        self._ramps = Ramps.start(settings.emotion, None if self._timeline else settings.controls)
        self._listener = Listener(settings.seed)
        self._hears: tuple[int, Resampler] | None = None
        self._clock = clock
        self._opened = clock()
        self._start: float | None = None  # clock at pts 0
        self._asked: float | None = None  # since when a hop has been ready to be heard
        self._sound_size = settings.audio_rate // FPS

    # What callers ask for.

    def push(self, samples: Array, sample_rate: int, epoch: int) -> bool:
        """Take speech of an utterance; False while there is no room for it.

        Args:
            samples: (N,), checked, nobody else's.
            epoch: the one that was current when the caller began to wait: what another call has ended is dropped.
        """
        self.check()
        if epoch != self.epoch or (self._resamplers is None and samples.size == 0):
            return True
        if self._resamplers is not None and self._resamplers[0] != sample_rate:
            raise AudioError(
                f"an utterance keeps its sample rate, {self._resamplers[0]} Hz, got {sample_rate} Hz; flush() before "
                "another rate"
            )
        if self._waiting >= LARGEST_INBOX:
            return False
        if self._resamplers is None:
            speech, out = Resampler(sample_rate), self.settings.audio_rate
            self._resamplers = sample_rate, speech, None if out == SAMPLE_RATE else Resampler(sample_rate, out)
        _, speech, sound = self._resamplers
        heard = speech.push(samples)
        self._put(heard, heard if sound is None else sound.push(samples))
        return True

    def end(self) -> None:
        """The utterance is over; the next push begins another. It waits for no room: little is left of it."""
        self.check()
        if self._resamplers is None:
            return
        _, speech, sound = self._resamplers
        heard = speech.flush()
        self._put(heard, heard if sound is None else sound.flush())
        self._inbox.append(Piece(self.epoch, None, np.zeros(0, np.float32)))
        self._resamplers = None
        self.epoch += 1
        self.work()

    def _put(self, samples: Array, sound: Array) -> None:
        """Into the inbox, in pieces of a hop; what came in smaller ones is joined."""
        last = self._inbox[-1] if self._inbox else None
        room = last is not None and last.epoch == self.epoch
        if room and last is not None and last.samples is not None and last.samples.size < HOP_SAMPLES:
            self._inbox.pop()
            self._waiting -= last.samples.size
            samples, sound = np.concatenate([last.samples, samples]), np.concatenate([last.sound, sound])
        count = max(1, -(-samples.size // HOP_SAMPLES)) if samples.size + sound.size else 0
        for i in range(count):
            part = samples[i * HOP_SAMPLES : (i + 1) * HOP_SAMPLES]
            heard = sound[sound.size * i // count : sound.size * (i + 1) // count]
            self._inbox.append(Piece(self.epoch, part, heard))
        self._waiting += samples.size
        self.work()

    def get(self) -> Item | None:
        """The next item, or None while there is none."""
        if self._pictures:
            item, _, self._read = self._pictures.popleft()
            if isinstance(item, SegmentEnd):
                self._spoken = (item.epoch, 0)
            else:
                if item.kind == "speech":
                    count = self._spoken[1] if self._spoken[0] == item.epoch else 0
                    self._spoken = (item.epoch, count + 1)
                late = self._clock() - self._due(item.index)
                if late > LATE_SECONDS and self._start is not None:
                    self._start += late
            self.work()
            return item
        self.check()
        return None

    def interrupt(self) -> int:
        """Drop everything that is queued; milliseconds of the utterance being read that were given out."""
        self.check()
        frames = self._spoken[1]
        self.epoch += 1
        self._inbox.clear()
        self._waiting = 0
        self._speech = self._asked = None
        self._rows.clear()
        self._redraw(0, [])
        self._resamplers = None
        self._spoken = (self.epoch, 0)
        if self._start is not None:  # rest at once, however far the reader is ahead
            self._start = min(self._start, self._clock() - self._read.frames / FPS)
        self.notify()
        self.work()
        return frames * 1000 // FPS

    def control(self, ramp_seconds: float, **what: Any) -> None:
        """Change what is named from the frame after the next unread one on.

        That one stays as it is drawn, or being drawn: however often this is called, frames come.
        """
        self.check()
        task = self._task if self._task is not None and self._task.generation == self._generation else None
        keep = next((n for n, picture in enumerate(self._pictures, 1) if isinstance(picture.item, Frame)), 0)
        if keep:
            stays = self._pictures[keep - 1].face.frames
        else:
            stays = self._read.frames + (task is not None)
        self._ramps = self._ramps.set(stays, ramp_seconds, **what)
        if what.get("controls") is not None:
            self._timeline = None
        if keep:
            again = [*(picture.row for picture in list(self._pictures)[keep:]), None if task is None else task.row]
            self._redraw(keep, again)
        self.work()

    def listen(self, samples: Array, sample_rate: int) -> None:
        """Hear the other party."""
        self.check()
        if self._hears is None or self._hears[0] != sample_rate:
            self._hears = sample_rate, Resampler(sample_rate)
        self._listener.push(self._hears[1].push(samples))

    def close(self) -> None:
        """Nothing more is computed or given out."""
        self.closed = True
        self._inbox.clear()
        self._rows.clear()
        self._pictures.clear()
        self._speech = None
        self.notify()
        self.work()

    def check(self) -> None:
        """Raises what broke the session, or SessionError if it is closed."""
        if self.error is not None:
            raise self.error.with_traceback(self._broke_at)  # which would grow with every call
        if self.closed:
            raise SessionError("this session is closed; open another one")

    def fail(self, error: Exception) -> None:
        """The session is broken; whatever it is, it belongs to the caller."""
        if isinstance(error, DittoError):
            self.error = error
        else:
            self.error = SessionError(f"the session broke: {type(error).__name__}: {error}")
            self.error.__cause__ = error
        self._broke_at = self.error.__traceback__
        self._inbox.clear()
        self._rows.clear()
        self._speech = None
        self.notify()

    def notify(self) -> None:
        """Tell the callers that something is new."""
        self.changed.notify_all()
        for wake in self.wakers:
            wake()

    # What the stage asks for.

    def hop(self) -> tuple[Speech, Array] | None:
        """The next hop to be heard, if there is one and there is room for what comes of it."""
        if self.hearing or self.closed or self.error is not None or len(self._rows) >= ROWS_AHEAD:
            return None
        while True:
            if self._speech is not None:
                hop = self._speech.utterance.hop()
                if hop is not None:
                    self._asked = self._clock() if self._asked is None else self._asked
                    return self._speech, hop
                if self._speech.utterance.done:
                    self._rows.append(SegmentEnd(self._speech.epoch, self._speech.utterance.rows / FPS))
                    self._speech = None
            if not self._inbox:
                return None
            piece = self._inbox.popleft()
            if piece.samples is not None:
                was, self._waiting = self._waiting, self._waiting - piece.samples.size
                if self._waiting < LARGEST_INBOX <= was:
                    self.notify()  # there is room again
            if self._speech is None:
                seed = utterance_seed(self.settings.seed, piece.epoch)
                try:
                    utterance = Utterance(self.head.encoder, self.sampler, self.portrait, seed)
                except Exception as error:  # whatever it is, it belongs to the caller
                    self.fail(error)
                    return None
                self._speech = Speech(piece.epoch, utterance)
            self._speech.push(piece)

    def begin_hearing(self) -> None:
        """A worker has taken the hop."""
        self.hearing = True
        self._asked = None

    @property
    def mood(self) -> Array:
        """(8,) the emotion to sample with: where it is going."""
        return self._ramps.emotion

    def heard(self, speech: Speech, rows: Array, emotion: Array, seconds: float) -> None:
        """Take the rows (n, 70) of a hop, unless the utterance was interrupted."""
        if speech is not self._speech:
            return
        first = speech.utterance.rows - len(rows)
        self._rows.extend(
            Row(speech, first + i, row, emotion, seconds if i == 0 else 0.0) for i, row in enumerate(rows)
        )
        self.hop()  # puts the end of the utterance behind its last row

    @property
    def wanted_at(self) -> float:
        """When the first row that is not there yet should be drawn."""
        if self._face.speaking == IDLE and self._asked is not None:
            return self._asked  # somebody waits for the first word
        return self._due(self._face.frames + len(self._rows))

    @property
    def drawable_at(self) -> float:
        """When the frame that can be drawn now should be there; infinity if none can."""
        if self.drawing or self.closed or self.error is not None or len(self._pictures) >= PICTURES_AHEAD:
            return float("inf")
        while self._rows and isinstance(end := self._rows[0], SegmentEnd):
            self._rows.popleft()
            self._pictures.append(Picture(end, end, self._face))
            self.notify()
        if self._can_speak():
            due = self._due(self._face.frames)
            return max(due, self._clock()) if self._pictures else due  # who lets pictures wait is in no hurry
        due = self.idle_due
        return due if due <= self._clock() else float("inf")

    def task(self) -> Task:
        """The frame that can be drawn now."""
        row = self._rows.popleft() if self._can_speak() else None
        assert not isinstance(row, SegmentEnd)
        if row is not None and row.sound is None:
            row = row._replace(sound=row.speech.cut(self._sound_size))
        reaction = self._listener.react()  # it goes on hearing while the face speaks
        self._task = Task(self._generation, self._face, row, reaction, self._ramps, self._timeline, self.epoch)
        return self._task

    @property
    def idle_due(self) -> float:
        """When a frame should be given for want of speech; never while one waits to be read, or speech is being heard.

        The first word would wait until the idle frame is drawn.
        """
        if (
            not self.settings.idle
            or self.closed
            or self.error is not None
            or self.drawing
            or self.hearing
            or self._pictures
            or self._can_speak()
        ):
            return float("inf")
        patience = PATIENCE_SECONDS if self._face.speaking != IDLE and self._in_midst() else 0.0
        return self._due(self._face.frames) + patience

    def drawn(self, task: Task, frame: Frame, face: Face, seconds: float) -> None:
        """Take a frame, unless it was overtaken."""
        self._task = None
        if task.generation != self._generation or self.closed:
            return
        if self._start is None:
            self._start = self._clock() - frame.index / FPS
        if task.row is not None and task.row.seconds > 0.0:
            took = task.row.seconds + seconds
            share = COMPUTE_AVERAGE if self.compute_seconds else 1.0
            self.compute_seconds += share * (took - self.compute_seconds)
        self._face = face
        self._pictures.append(Picture(frame, task.row, face))
        self.notify()

    def draw(self, task: Task, timed: Callable[[str, Callable[[], Any]], Any]) -> tuple[Frame, Face]:
        """Compute a frame; holds no lock. `timed(name, call)` makes the call."""
        settings, row = self.settings, task.row
        emotion, controls = task.ramps.at(task.face.frames)
        if row is None:
            translate = partial(self.head.renderer.translate, self.prepared.mesh)
            face = live(task.face, settings.seed, emotion, task.reaction, translate)
        else:
            wanted = emotion if self.head.renderer.face_units else row.emotion
            face = speak(task.face, row.motion, row.emotion, wanted, row.speech.epoch, settings.idle)
        assert face.row is not None
        index = task.face.frames
        motion = edited(face.row, settings.still, task.timeline, index)
        if not controls.is_neutral:
            from ditto.controls import apply

            motion = apply(motion, controls)
        pose = self.head.renderer.drive(self.portrait, motion)
        crop = timed("render", lambda: self.head.renderer.render(self.prepared.mesh, pose))
        image = timed("paste", lambda: self.prepared.paste_back(crop))
        image = timed("convert", lambda: OUTPUTS[settings.output](image, self.portrait.alpha))
        if row is None:
            kind = "idle" if face.seam is None else "transition"
            sound = np.zeros(self._sound_size, np.float32)
            frame = Frame(image, index, index / FPS, kind, task.epoch, None, sound, motion)
        else:
            assert row.sound is not None
            frame = Frame(image, index, index / FPS, "speech", row.speech.epoch, row.number, row.sound, motion)
        return frame, face

    def _can_speak(self) -> bool:
        """Whether there is a next row (or the end of an utterance), and its sound is there too."""
        if not self._rows:
            return False
        row = self._rows[0]
        return isinstance(row, SegmentEnd) or row.sound is not None or row.speech.can_cut(self._sound_size)

    def _in_midst(self) -> bool:
        return self._speech is not None and self._speech.epoch == self._face.speaking

    def _due(self, index: int) -> float:
        """The clock when a frame is to be shown."""
        return self._opened if self._start is None else self._start + index / FPS

    def _redraw(self, keep: int, rows: list[Row | SegmentEnd | None]) -> None:
        """Back to the first `keep` pictures; what was drawn since, from `rows`, is to be drawn again."""
        self._rows.extendleft(row for row in reversed(rows) if row is not None)
        while len(self._pictures) > keep:
            self._pictures.pop()
        self._face = self._pictures[-1].face if keep else self._read
        self._generation += 1
