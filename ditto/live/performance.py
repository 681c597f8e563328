"""One session's queues and clock: samples to be spoken, motion to be drawn, pictures to be read.

Everything here is called under the stage's lock and is short, but for `draw` and `Speech.hear`, which workers call without
it: resampling, networks and pixels hold up nobody.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.audio import Resampler
from ditto.errors import AudioError, DittoError, SessionError
from ditto.live.clock import Clock
from ditto.live.face import IDLE, Face, at_rest, live, speak
from ditto.live.items import OUTPUTS, Frame, Item, SegmentEnd
from ditto.live.listening import MOST_WAITING, Listener
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

LARGEST_INBOX = 30 * SAMPLE_RATE  # samples (at 16 kHz) that wait to be spoken before `push` waits
LONGEST_LISTENING = MOST_WAITING / FPS  # seconds of the other party that wait to be heard; older ones are forgotten
ROWS_AHEAD = 25  # frames of motion that wait to be drawn before speech waits
PICTURES_AHEAD = 25  # frames drawn that wait for the reader
PATIENCE_SECONDS = 0.25  # without speech in the midst of an utterance, before the face goes on living
LATE_SECONDS = 1.0 / FPS  # behind the clock, before the clock waits for the reader
COMPUTE_AVERAGE = 0.1  # share of the newest measurement


class Conversion:
    """One utterance's samples, at 16 kHz to be heard and at the frames' rate to be played."""

    def __init__(self, rate: int, audio_rate: int) -> None:
        self.rate = rate
        self._speech = Resampler(rate)
        self._sound = None if audio_rate == SAMPLE_RATE else Resampler(rate, audio_rate)

    def push(self, samples: Array) -> tuple[Array, Array]:
        """What became final of both."""
        heard = self._speech.push(samples)
        return heard, heard if self._sound is None else self._sound.push(samples)

    def flush(self) -> tuple[Array, Array]:
        """The rest of both."""
        heard = self._speech.flush()
        return heard, heard if self._sound is None else self._sound.flush()


class Piece(NamedTuple):
    """Samples of an utterance as they were pushed; None for its end."""

    epoch: int
    samples: Array | None
    conversion: Conversion

    @property
    def most(self) -> int:
        """Samples that are taken at a time: a hop of the speech encoder's."""
        return int(self.conversion.rate * HOP_SAMPLES / SAMPLE_RATE)

    @property
    def waits(self) -> float:
        """What it adds to the samples that wait to be spoken, at 16 kHz."""
        return 0.0 if self.samples is None else self.samples.size * SAMPLE_RATE / self.conversion.rate


class Speech:
    """The utterance that is being heard, and its sound as far as it was not shown.

    `hear` is for one worker at a time, without the stage's lock; what it brought is seen by others after `publish`.
    """

    def __init__(self, epoch: int, begin: Callable[[], Utterance]) -> None:
        self.epoch = epoch
        self.ended = False
        self._begin = begin
        self._utterance: Utterance | None = None
        self._sound = np.zeros(0, np.float32)
        self._fresh: list[Array] = []

    @property
    def utterance(self) -> Utterance:
        """Begun when it is first asked for, which takes time."""
        if self._utterance is None:
            self._utterance = self._begin()
        return self._utterance

    def hear(self, piece: Piece | None) -> Array | None:
        """Take a piece, of at most `Piece.most` samples; the next hop for the encoder, if it is whole."""
        if piece is not None:
            heard, sound = piece.conversion.flush() if piece.samples is None else piece.conversion.push(piece.samples)
            self._fresh.append(sound)
            self.utterance.push(heard)
            if piece.samples is None:
                self.utterance.end()
        return self.utterance.hop()

    def publish(self) -> None:
        """What was heard is heard."""
        self._sound = np.concatenate([self._sound, *self._fresh])
        self._fresh.clear()
        self.ended = self.utterance.ended

    @property
    def has_hop(self) -> bool:
        """Whether a hop is whole without a further piece."""
        return self._utterance is not None and self._utterance.hop() is not None

    @property
    def done(self) -> bool:
        """Whether all its rows are out."""
        return self.ended and self.utterance.done

    def can_cut(self, size: int) -> bool:
        """Whether the next `size` samples of sound are there."""
        return self._sound.size >= size or self.ended

    def cut(self, size: int) -> Array:
        """The next `size` samples of sound, filled up with silence after the end."""
        cut, self._sound = self._sound[:size], self._sound[size:]
        return np.pad(cut, (0, size - cut.size))


class Overheard(NamedTuple):
    """Samples of the other party, how long they last, and what makes 16 kHz of them."""

    samples: Array
    seconds: float
    resampler: Resampler


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
    """A frame to be drawn after a face: of speech, or idle. `heard` is new of the other party."""

    generation: int
    face: Face
    row: Row | None
    heard: list[Overheard]
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
        clock: Clock,
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
        self._conversion: Conversion | None = None  # of the utterance that is being pushed
        self._inbox: deque[Piece] = deque()
        self._waiting = 0.0  # samples in the inbox, at 16 kHz
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
        self._overheard: deque[Overheard] = deque()
        self._clock = clock
        self._opened = clock.now()
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
        conversion = self._conversion
        if epoch != self.epoch or (conversion is None and samples.size == 0):
            return True
        if conversion is not None and conversion.rate != sample_rate:
            raise AudioError(
                f"an utterance keeps its sample rate, {conversion.rate} Hz, got {sample_rate} Hz; flush() before another "
                "rate"
            )
        if self._waiting >= LARGEST_INBOX:
            return False
        if conversion is None:
            conversion = self._conversion = Conversion(sample_rate, self.settings.audio_rate)
        if samples.size:
            self._put(Piece(epoch, samples, conversion))
        return True

    def end(self) -> None:
        """The utterance is over; the next push begins another. It waits for no room: little is left of it."""
        self.check()
        if self._conversion is None:
            return
        self._put(Piece(self.epoch, None, self._conversion))
        self._conversion = None
        self.epoch += 1

    def _put(self, piece: Piece) -> None:
        """Into the inbox; small pieces are joined."""
        self._waiting += piece.waits
        last = self._inbox[-1] if self._inbox else None
        if (
            last is not None
            and last.epoch == piece.epoch
            and last.samples is not None
            and piece.samples is not None
            and last.samples.size + piece.samples.size <= piece.most
        ):
            self._inbox[-1] = piece._replace(samples=np.concatenate([last.samples, piece.samples]))
        else:
            self._inbox.append(piece)
        self.work()

    def _take(self) -> Piece:
        """The next of the inbox, at most `Piece.most` samples."""
        piece = self._inbox.popleft()
        if piece.samples is not None and piece.samples.size > piece.most:
            self._inbox.appendleft(piece._replace(samples=piece.samples[piece.most :]))
            piece = piece._replace(samples=piece.samples[: piece.most])
        was, self._waiting = self._waiting, self._waiting - piece.waits if self._inbox else 0.0
        if self._waiting < LARGEST_INBOX <= was:
            self.notify()  # there is room again
        return piece

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
                late = self._clock.now() - self._due(item.index)
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
        self._waiting = 0.0
        self._speech = self._asked = None
        self._rows.clear()
        self._redraw(0, [])
        self._conversion = None
        self._spoken = (self.epoch, 0)
        if self._start is not None:  # rest at once, however far the reader is ahead
            self._start = min(self._start, self._clock.now() - self._read.frames / FPS)
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
        most = round(LONGEST_LISTENING * sample_rate)
        samples = samples if samples.size <= most else samples[-most:].copy()
        self._overheard.append(Overheard(samples, samples.size / sample_rate, self._hears[1]))
        while sum(piece.seconds for piece in self._overheard) - self._overheard[0].seconds >= LONGEST_LISTENING:
            self._overheard.popleft()

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

    def can_hear(self) -> bool:
        """Whether there is speech to be heard, and room for what comes of it."""
        if self.hearing or self.closed or self.error is not None or len(self._rows) >= ROWS_AHEAD:
            return False
        if not self._inbox and (self._speech is None or not self._speech.has_hop):
            return False
        self._asked = self._clock.now() if self._asked is None else self._asked
        return True

    def begin_hearing(self) -> tuple[Speech, Piece | None]:
        """What a worker hears now: a piece of the speech, or nothing new where a hop is whole without one."""
        self.hearing = True
        self._asked = None
        if self._speech is not None and self._speech.has_hop:
            return self._speech, None
        piece = self._take()
        if self._speech is None:
            self._speech = Speech(piece.epoch, partial(self._utterance, piece.epoch))
        return self._speech, piece

    def _utterance(self, epoch: int) -> Utterance:
        return Utterance(self.head.encoder, self.sampler, self.portrait, utterance_seed(self.settings.seed, epoch))

    @property
    def mood(self) -> Array:
        """(8,) the emotion to sample with: where it is going."""
        return self._ramps.emotion

    def heard(self, speech: Speech, rows: Array, emotion: Array, seconds: float) -> None:
        """Take the rows (n, 70) that came of what was heard, unless the utterance was interrupted."""
        if speech is not self._speech:
            return
        speech.publish()
        first = speech.utterance.rows - len(rows)
        self._rows.extend(
            Row(speech, first + i, row, emotion, seconds if i == 0 else 0.0) for i, row in enumerate(rows)
        )
        if speech.done:
            self._rows.append(SegmentEnd(speech.epoch, speech.utterance.rows / FPS))
            self._speech = None

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
            return max(due, self._clock.now()) if self._pictures else due  # who lets pictures wait is in no hurry
        due = self.idle_due
        return due if due <= self._clock.now() else float("inf")

    def task(self) -> Task:
        """The frame that can be drawn now."""
        row = self._rows.popleft() if self._can_speak() else None
        assert not isinstance(row, SegmentEnd)
        if row is not None and row.sound is None:
            row = row._replace(sound=row.speech.cut(self._sound_size))
        heard = list(self._overheard)  # it goes on hearing while the face speaks
        self._overheard.clear()
        self._task = Task(self._generation, self._face, row, heard, self._ramps, self._timeline, self.epoch)
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
            self._start = self._clock.now() - frame.index / FPS
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
        for piece in task.heard:
            self._listener.push(piece.resampler.push(piece.samples))
        reaction = self._listener.react()
        emotion, controls = task.ramps.at(task.face.frames)
        if row is None:
            translate = partial(self.head.renderer.translate, self.prepared.mesh)
            face = live(task.face, settings.seed, emotion, reaction, translate)
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

    def draw_at_rest(self) -> None:
        """Compute a first idle frame, and forget it."""
        self.draw(Task(0, at_rest(), None, [], self._ramps, None, 0), lambda name, call: call())

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
