"""One session: speech that comes in, shots that are known, pictures that go out, and the pace.

Everything here is called under the scheduler's lock and is short, but for `SessionState.draw` and `Utterance.job`, which
workers call without it: resampling, networks and pixels hold up nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.controls import HEAD_STILL, Controls
from ditto.controls.ramps import Ramps
from ditto.errors import DittoError, SessionError
from ditto.frame import Frame, Item, SegmentEnd
from ditto.live.clock import Clock, Pace
from ditto.live.intake import Ear, Intake, Overheard, Piece
from ditto.live.outputs import OUTPUTS
from ditto.live.pictures import IDLE, PICTURES_AHEAD, Group, PictureQueue, Place, Waiting
from ditto.live.settings import Settings, utterance_seed
from ditto.live.utterance import Utterance
from ditto.motion.listening import NEUTRAL, Listener
from ditto.motion.motion import FPS
from ditto.performer import Capability, Draw, Edits, Idle, Performer, State, check_capabilities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ditto.performer import Advanced, Appearance
    from ditto.portrait.portrait import Portrait

Array = npt.NDArray[np.float32]

SHOTS_AHEAD = 25  # that wait to be drawn before speech waits
PATIENCE_SECONDS = 0.25  # without speech in the midst of an utterance, before the face goes on living
COMPUTE_AVERAGE = 0.1  # share of the newest measurement


class Task(NamedTuple):
    """A frame to be drawn.

    Attributes:
        generation: of the picture queue.
        place: after which it comes.
        shot: what it is drawn from; None: the next idle one, which the performer has to make first.
        stands: the performer's state, for an idle shot; None: before the first.
        overheard: what is new of the other party.
        ramps, timeline: what is asked of it.
        epoch: of the next utterance.
    """

    generation: int
    place: Place
    shot: Waiting | None
    stands: State | None
    overheard: list[Overheard]
    ramps: Ramps
    timeline: Callable[[int], Controls] | None
    epoch: int


class Result(NamedTuple):
    """A frame that was drawn from a shot, the place after it, and further shots that the performer gave with it."""

    frame: Frame
    shot: Waiting
    place: Place
    more: list[Waiting]


class SessionState:
    """What a scheduler knows of a session, and what the session's callers ask of it.

    Args:
        performer: what makes its pictures.
        portrait, appearance: of whom.
        settings: checked against the performer.
        lock: the scheduler's.
        work: called, under the lock, whenever there may be something to compute.
        clock: what it lives by.

    Attributes:
        changed: condition on the lock: something is new for the callers.
        wakers: called, under the lock, whenever `changed` is notified.
        closed: set by `close`.
        error: what broke the session, or None.
        hearing, drawing: whether a worker is at it.
        compute_seconds: running mean of the time from a hop of speech to its first picture, computing alone.
    """

    def __init__(
        self,
        performer: Performer,
        portrait: Portrait,
        appearance: Appearance,
        settings: Settings,
        lock: threading.RLock,
        work: Callable[[], None],
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.delay_seconds = performer.delay_seconds(settings.latency)
        self.changed = threading.Condition(lock)
        self.wakers: list[Callable[[], object]] = []
        self.closed = False
        self.error: DittoError | None = None
        self.hearing = self.drawing = False
        self.compute_seconds = 0.0
        self._broke_at: TracebackType | None = None
        self._performer, self._portrait, self._appearance, self._work = performer, portrait, appearance, work
        self._idles = settings.idle is not False and Capability.IDLE in performer.supports
        self._separable = Capability.REDRAW in performer.supports
        self._intake = Intake(settings.audio_rate, performer.hop_samples)
        self._ear = Ear()
        self._listener = Listener(settings.seed) if Capability.LISTENING in performer.supports else None
        self._utterance: Utterance | None = None  # that is being heard
        self._stands: State | None = None  # the performer's, after the last shot
        self._pictures = PictureQueue(performer.face(appearance, settings.seed, self._idles), self._separable)
        self._pace = Pace(clock)
        self._task: Task | None = None  # being drawn
        self._spoken = (0, 0)  # epoch being read, frames of it given out
        self._timeline = settings.controls if callable(settings.controls) else None
        self._ramps = Ramps.start(settings.emotion, None if callable(settings.controls) else settings.controls)
        self._asked: float | None = None  # since when speech has been ready to be heard
        self._sound_size = settings.audio_rate // FPS

    # What callers ask for.

    @property
    def waiting_seconds(self) -> float:
        """Speech that was pushed and waits to be heard."""
        return self._intake.seconds

    @property
    def unread(self) -> int:
        """Items that wait for the reader."""
        return self._pictures.pictures

    @property
    def epoch(self) -> int:
        """Number of the utterance that the next push belongs to."""
        return self._intake.epoch

    def push(self, samples: Array, sample_rate: int, epoch: int) -> bool:
        """Take speech (N,), checked and nobody else's, as `Intake.push`; False while there is no room for it."""
        self.check()
        taken = self._intake.push(samples, sample_rate, epoch)
        if taken:
            self._work()
        return taken

    def end(self) -> None:
        """The utterance is over; the next push begins another. It waits for no room: little is left of it."""
        self.check()
        if self._intake.end():
            self._work()

    def get(self) -> Item | None:
        """The next item, or None while there is none."""
        item = self._pictures.pop()
        if item is None:
            self.check()
            return None
        if isinstance(item, SegmentEnd):
            self._spoken = (item.epoch, 0)
        else:
            if item.kind == "speech":
                count = self._spoken[1] if self._spoken[0] == item.epoch else 0
                self._spoken = (item.epoch, count + 1)
            self._pace.read(item.index)
        self._work()
        return item

    def interrupt(self) -> int:
        """Drop everything that is queued; milliseconds of the utterance being read that were given out."""
        self.check()
        frames = self._spoken[1]
        self._intake.interrupt()
        self._utterance = self._asked = None
        self._stands = self._pictures.interrupt(self._current_shot())
        self._spoken = (self.epoch, 0)
        self._pace.catch_up(self._pictures.read.frames)  # at rest at once, however far the reader is ahead
        self.notify()
        self._work()
        return frames * 1000 // FPS

    def control(
        self,
        ramp_seconds: float,
        emotion: Mapping[str, float] | None = None,
        gaze: tuple[float, float] | None = None,
        head: tuple[float, float, float] | None = None,
        controls: Controls | None = None,
    ) -> None:
        """Change what is named from the frame after the next unread one on.

        That one stays as it is drawn, or being drawn: however often this is called, frames come. A performer whose shots
        cannot be drawn again shows the change from the shots that it makes next.
        """
        self.check()
        asked = [Capability.EMOTION] if emotion else []
        if not (gaze is None and head is None and controls is None):
            asked.append(Capability.CONTROLS)
        check_capabilities(self._performer, asked)
        drawing = self._current_shot()
        keep = self._pictures.frames_kept()
        if keep:
            stays = self._pictures.place_after(keep).frames
        else:
            stays = self._pictures.read.frames + (self._current() is not None)
        self._ramps = self._ramps.set(stays, ramp_seconds, emotion=emotion, gaze=gaze, head=head, controls=controls)
        if controls is not None:
            self._timeline = None
        if keep and self._separable:
            self._pictures.redraw(keep, drawing)
        self._work()

    def listen(self, samples: Array, sample_rate: int) -> None:
        """Hear the other party."""
        self.check()
        if self._listener is not None:
            self._ear.push(samples, sample_rate)

    def close(self) -> None:
        """Nothing more is computed or given out."""
        self.closed = True
        self._intake.clear()
        self._pictures.clear()
        self._utterance = None
        self.notify()
        self._work()

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
        self._intake.clear()
        self._pictures.forget_shots()
        self._utterance = None
        self.notify()

    def notify(self) -> None:
        """Tell the callers that something is new."""
        self.changed.notify_all()
        for wake in self.wakers:
            wake()

    # What the scheduler asks for.

    @property
    def busy(self) -> bool:
        """Whether something is being computed, or can be before the clock goes on."""
        return self.hearing or self.drawing or self.can_hear() or self._can_pass_ends or self.frame_due < float("inf")

    def can_hear(self) -> bool:
        """Whether there is speech to be heard, and room for what comes of it."""
        if self.hearing or self._stopped or self._pictures.shots >= SHOTS_AHEAD:
            return False
        if not self._separable and self._task is not None and self._task.shot is None:
            return False  # the performer is making idle shots, and goes on from them
        return len(self._intake) > 0 or (self._utterance is not None and self._utterance.has_hop)

    def notice_speech(self) -> None:
        """Remember since when `can_hear` is true."""
        if self._asked is None:
            self._asked = self._pace.now()

    def begin_hearing(self) -> tuple[Utterance, Piece | None, State | None]:
        """What a worker hears now: a piece of the speech, or nothing new where a hop is whole without one; and where the
        performer stands."""
        self.hearing = True
        self._asked = None
        if self._utterance is not None and self._utterance.has_hop:
            return self._utterance, None, self._stands
        full = self._intake.full
        piece = self._intake.take()
        if full and not self._intake.full:
            self.notify()  # there is room again
        if self._utterance is None:
            self._utterance = Utterance(piece.epoch, partial(self._begin, piece.epoch), self._performer.hop_samples)
        return self._utterance, piece, self._stands

    def _begin(self, epoch: int, stands: State | None) -> State:
        seed = utterance_seed(self.settings.seed, epoch)
        return self._performer.begin(self._appearance, seed, self.settings.latency, stands)

    @property
    def emotion(self) -> Array:
        """(8,) the emotion to make shots with: where it is going."""
        return self._ramps.emotion

    def heard(self, utterance: Utterance, advanced: Advanced | None, seconds: float) -> None:
        """Take the shots that came of what was heard, unless the utterance was interrupted."""
        if utterance is not self._utterance:
            return
        utterance.publish()
        if advanced is None:
            return
        group, first = Group(advanced.state), utterance.shots - len(advanced.shots)
        self._pictures.put(
            [
                Waiting(shot, group, utterance, first + i, seconds if i == 0 else 0.0)
                for i, shot in enumerate(advanced.shots)
            ]
        )
        self._stands = advanced.state
        if utterance.done:
            self._pictures.put([SegmentEnd(utterance.epoch, utterance.shots / FPS)])
            self._utterance = None

    @property
    def shot_due(self) -> float:
        """When the first shot that is not known yet should be drawn."""
        last = self._pictures.last
        if last.speaking == IDLE and self._asked is not None:
            return self._asked  # somebody waits for the first word
        return self._pace.due(last.frames + self._pictures.shots)

    def pass_ends(self) -> None:
        """Ends of utterances that nothing is to be drawn before go on to the reader."""
        if self._can_pass_ends and self._pictures.pass_ends():
            self.notify()

    @property
    def frame_due(self) -> float:
        """When the frame that can be drawn now should be there; infinity if none can."""
        if self.drawing or self._stopped or self._pictures.pictures >= PICTURES_AHEAD:
            return float("inf")
        shot = self._pictures.next_shot(self._sound_size)
        if shot is not None and shot.utterance is not None:
            due = self._pace.due(self._pictures.last.frames)
            return max(due, self._pace.now()) if self._pictures.pictures else due  # who lets pictures wait is in no hurry
        due = self.idle_due
        return due if due <= self._pace.now() else float("inf")

    @property
    def idle_due(self) -> float:
        """When a frame should be given for want of speech; never while one waits to be read, or speech is being heard.

        The first word would wait until the idle frame is drawn.
        """
        shot = self._pictures.next_shot(self._sound_size)
        busy = self._stopped or self.drawing or self._pictures.pictures > 0
        if busy or (shot is not None and shot.utterance is not None):
            return float("inf")
        due = self._pace.due(self._pictures.last.frames)
        if shot is not None:  # one that came with others
            return due
        begun = self._utterance is not None and self._utterance.begun
        if not self._idles or self.hearing or (begun and not self._separable):
            return float("inf")
        return due + (PATIENCE_SECONDS if self._in_midst else 0.0)

    def task(self) -> Task:
        """The frame that can be drawn now."""
        shot = self._pictures.take_shot(self._sound_size)
        overheard = self._ear.take()  # it goes on hearing while the face speaks
        self._task = Task(
            self._pictures.generation, self._pictures.last, shot, self._stands, overheard, self._ramps, self._timeline,
            self.epoch,
        )  # fmt: skip
        self.drawing = True
        return self._task

    def drawn(self, task: Task, result: Result, seconds: float) -> None:
        """Take a frame, unless it was overtaken."""
        self._task = None
        if task.generation != self._pictures.generation or self.closed:
            return
        self._pace.begin(result.frame.index)
        if task.shot is None:
            self._stands = result.shot.group.state
        if result.shot.seconds > 0.0:
            took = result.shot.seconds + seconds
            share = COMPUTE_AVERAGE if self.compute_seconds else 1.0
            self.compute_seconds += share * (took - self.compute_seconds)
        self._pictures.put(result.more, first=True)
        self._pictures.drawn(result.frame, result.shot, result.place)
        self.notify()

    def draw(self, task: Task, timed: Callable[[str, Callable[[], npt.NDArray[np.uint8]]], npt.NDArray[np.uint8]]) -> Result:
        """Compute a frame; holds no lock. `timed(name, call)` makes the call."""
        shot, more, index = task.shot, [], task.place.frames
        edits = self._edits(task)
        if shot is None:
            stands = task.stands if task.stands is not None else self._begin(task.epoch, None)
            advanced = self._performer.idle([Idle(stands, edits.emotion)])[0]
            group, silence = Group(advanced.state), np.zeros(self._sound_size, np.float32)
            shot, *more = [Waiting(one, group, None, 0, 0.0, silence) for one in advanced.shots]
        drawn = self._performer.draw([Draw(task.place.face, shot.shot, edits)])[0]
        image = timed("convert", lambda: OUTPUTS[self.settings.output](drawn.image, self._portrait.alpha))
        assert shot.sound is not None
        if shot.utterance is None:
            kind = "transition" if drawn.transition or shot.cut else "idle"
            frame = Frame(image, index, index / FPS, shot.sound, drawn.motion, kind, task.epoch, None)
            return Result(frame, shot, Place(drawn.face, index + 1, IDLE), more)
        epoch = shot.utterance.epoch
        frame = Frame(image, index, index / FPS, shot.sound, drawn.motion, "speech", epoch, shot.number)
        return Result(frame, shot, Place(drawn.face, index + 1, epoch), more)

    def draw_at_rest(self) -> None:
        """Compute a first frame, and forget it: an idle one, where the performer can idle."""
        if Capability.IDLE in self._performer.supports:
            face = self._performer.face(self._appearance, self.settings.seed)
            task = Task(0, Place(face), None, None, [], self._ramps, None, 0)
            self.draw(task, lambda name, call: call())

    def _edits(self, task: Task) -> Edits:
        """What is asked of a frame."""
        reaction = NEUTRAL
        if self._listener is not None:
            for piece in task.overheard:
                self._listener.push(piece.resampler.push(piece.samples))
            reaction = self._listener.react()
        emotion, ramped = task.ramps.at(task.place.frames)
        controls = [HEAD_STILL] if self.settings.still else []
        if task.timeline is not None:
            controls.append(task.timeline(task.place.frames))
        if not ramped.is_neutral:
            controls.append(ramped)
        return Edits(emotion, tuple(controls), reaction)

    def _current(self) -> Task | None:
        """The frame that is being drawn and will be shown."""
        return self._task if self._task is not None and self._task.generation == self._pictures.generation else None

    def _current_shot(self) -> Waiting | None:
        task = self._current()
        return None if task is None else task.shot

    @property
    def _can_pass_ends(self) -> bool:
        can_draw = not self.drawing and not self._stopped and self._pictures.pictures < PICTURES_AHEAD
        return can_draw and self._pictures.end_next

    @property
    def _stopped(self) -> bool:
        return self.closed or self.error is not None

    @property
    def _in_midst(self) -> bool:
        """Whether the last frame is of an utterance of which more will come."""
        return self._utterance is not None and self._utterance.epoch == self._pictures.last.speaking
