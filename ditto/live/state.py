"""The state of one session: input queue, current utterance, output queue, pace.

Every call is short and made under the scheduler's lock, except `SessionState.draw` and `Utterance.next_job`: workers call
those without the lock, because resampling, networks and pixels take time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.controls import HEAD_STILL, Controls, moves_head
from ditto.controls.ramps import Ramps
from ditto.controls.timeline import Timeline
from ditto.errors import DittoError, SessionError
from ditto.frame import Frame, Item, SegmentEnd
from ditto.live.clock import Clock, Pace
from ditto.live.cue import Cues
from ditto.live.intake import Intake, ListenPiece, ListenQueue, Piece
from ditto.live.outputs import NO_PICTURE
from ditto.live.pictures import MAX_QUEUED_PICTURES, NO_UTTERANCE, PictureQueue, Position, QueuedShot, ShotGroup
from ditto.live.settings import Settings, utterance_seed
from ditto.live.utterance import Utterance
from ditto.media.pixels import OF_ALPHA, picture_of
from ditto.motion.listening import NEUTRAL, Listener
from ditto.motion.motion import FPS
from ditto.motion.style import style_strength
from ditto.performer import Capability, Draw, Drawn, Edits, EditsAt, Idle, Moved, Performer, State, check_capabilities
from ditto.stream import edit_needs, is_of_head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ditto.performer import Advanced, Appearance
    from ditto.portrait.portrait import Portrait

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Timed = Callable[[str, Callable[[], Pixels]], Pixels]

MAX_QUEUED_SHOTS = 25  # not drawn; while there are as many, no speech is advanced
STARVED_SECONDS = 0.25  # in the middle of an utterance, without samples: from then on idle frames fill the gap
# For which a hop waits for those of other sessions where there are more sessions than cores. Of 0, 10, 15, 20 and 30 ms, 15
# misses the fewest deadlines at 5 to 7 sessions with pictures and 15 to 20 without, in a simulation of two cores with the
# measured times of batches and frames.
GATHER_SECONDS = 0.015
NOW, NEVER = float("-inf"), float("inf")
COMPUTE_AVERAGE = 0.1  # weight of the newest measurement in a running mean


class Task(NamedTuple):
    """A frame for a worker to draw.

    Attributes:
        generation: of the picture queue when the task was made.
        position: before the frame.
        shot: what to draw; None: an idle shot, which the performer has to make first.
        performer_state: from which the performer makes an idle shot; None before the first shot.
        listened: new samples of the other party.
        ramps, cues: edits of the frame.
        epoch: of the next utterance.
    """

    generation: int
    position: Position
    shot: QueuedShot | None
    performer_state: State | None
    listened: list[ListenPiece]
    ramps: Ramps
    cues: Cues
    epoch: int


class Outlook(NamedTuple):
    """What a session has for the workers.

    Attributes:
        ready: whether there is a hop of speech for the performer, the end of an utterance, or silence to make, and room for
            its shots.
        frame: when the frame that can be drawn now is due; infinity if none can be.
        idle: when an idle frame is due; infinity while a frame is unread or speech is being advanced, as an idle frame would
            delay its first word.
        silence: when a performer that makes blocks is to make silent frames ahead; infinity if it is not.
    """

    ready: bool
    frame: float = NEVER
    idle: float = NEVER
    silence: float = NEVER


class Result(NamedTuple):
    """The frame of a task, its shot, the position after it, and further shots that the performer gave with an idle shot."""

    frame: Frame
    shot: QueuedShot
    position: Position
    more_shots: list[QueuedShot]


class SessionState:
    """A session as its scheduler and its callers use it.

    Args:
        performer: makes its pictures.
        portrait, appearance: the face, and the face as the performer has prepared it.
        settings: checked against the performer.
        lock: the scheduler's.
        work: called, under the lock, with the time from which on there is something to compute.
        clock: the scheduler's.

    Attributes:
        settings, appearance: as given.
        changed: condition on the lock, notified when something is new for the callers.
        wakers: called, under the lock, whenever `changed` is notified.
        closed: set by `close`.
        error: what broke the session, or None.
        advancing, drawing: whether a worker is advancing its speech, drawing a frame of it.
        compute_seconds: running mean of the time for computing from a hop of speech to its first picture.
    """

    def __init__(
        self,
        performer: Performer,
        portrait: Portrait,
        appearance: Appearance,
        settings: Settings,
        lock: threading.RLock,
        work: Callable[[float], None],
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.delay_seconds = performer.delay_seconds(settings.latency)
        self.changed = threading.Condition(lock)
        self.wakers: list[Callable[[], object]] = []
        self.closed = False
        self.error: DittoError | None = None
        self.advancing = self.drawing = False
        self.compute_seconds = 0.0
        self._error_traceback: TracebackType | None = None
        self.appearance = appearance
        self._performer, self._portrait, self._work = performer, portrait, work
        self._shows_idle = settings.idle is not False and Capability.IDLE in performer.supports
        self._redrawable = Capability.REDRAW in performer.supports
        self._intake = Intake(settings.audio_rate, performer.hop_samples)
        self._listen_queue = ListenQueue()
        self._listener = Listener(settings.seed) if Capability.LISTENING in performer.supports else None
        self._utterance: Utterance | None = None  # that is being advanced
        self._performer_state: State | None = None  # after the last shot
        self._held = 0  # shots that the performer has made after it, for an idle job
        self._pictures = PictureQueue(performer.face(appearance, settings.seed, self._shows_idle), self._redrawable)
        self._pace = Pace(clock)
        self._task: Task | None = None  # being drawn
        self._frames_read = (0, 0)  # epoch being read, how many of its frames were read
        self._cues = Cues.start(settings.controls, portrait)
        controls = settings.controls if isinstance(settings.controls, Controls) else None
        self._ramps = Ramps.start(settings.emotion, controls, settings.style)
        self._ready_since: float | None = None  # since when there has been speech to advance
        self._pushed_at = float("-inf")  # when samples came last
        self._advance_began = (0.0, 0)  # time and generation of the pictures
        self._block_seconds = 0.0  # running mean of what it takes to make shots
        self._sound_size = settings.audio_rate // FPS

    # For the session's callers.

    @property
    def waiting_seconds(self) -> float:
        """Seconds of speech that were pushed and not taken by the performer yet."""
        return self._intake.seconds

    @property
    def unread(self) -> int:
        """Items that the reader has not taken yet."""
        return self._pictures.pictures

    @property
    def epoch(self) -> int:
        """Number of the utterance that the next push belongs to."""
        return self._intake.epoch

    def push(self, samples: Array, sample_rate: int, epoch: int) -> bool:
        """As `Intake.push`; the samples are checked, and nobody else changes them."""
        self.check()
        taken = self._intake.push(samples, sample_rate, epoch)
        if taken and samples.size:
            self._pushed_at = self._pace.now()
        if taken and self.can_advance():
            self._work(NOW)
        return taken

    def end_utterance(self) -> None:
        """End the utterance; the next push begins another."""
        self.check()
        if self._intake.end_utterance():
            self._work(NOW)

    def get(self) -> Item | None:
        """Remove the next item; None if there is none yet."""
        item = self._pictures.pop()
        if item is None:
            self.check()
            return None
        if isinstance(item, SegmentEnd):
            self._frames_read = (item.epoch, 0)
        else:
            if item.kind == "speech":
                count = self._frames_read[1] if self._frames_read[0] == item.epoch else 0
                self._frames_read = (item.epoch, count + 1)
            self._pace.frame_read(item.index)
        self._work(self._next_due)
        return item

    def interrupt(self) -> int:
        """Drop everything unread; how many milliseconds of the current utterance were read."""
        self.check()
        frames = self._frames_read[1]
        self._intake.interrupt()
        self._utterance = self._ready_since = None
        left = self._pictures.interrupt(self._current_shot())
        self._performer_state, self._held = (None, 0) if left is None else (left.state, left.held)
        self._frames_read = (self.epoch, 0)
        first = self._next_new + (self._held if self._shows_idle and not self._redrawable else 0)
        self._ramps, self._cues = self._ramps.not_after(first), self._cues.not_after(first)
        self._pace.make_due(self._pictures.last_read.frames)  # the face comes to rest now, even if the reader is ahead of time
        self.notify()
        self._work(NOW)
        return frames * 1000 // FPS

    def control(
        self,
        ramp_seconds: float,
        emotion: Mapping[str, float] | None = None,
        gaze: tuple[float, float] | None = None,
        head: tuple[float, float, float] | None = None,
        controls: Controls | None = None,
        style: str | float | None = None,
        names: Mapping[str, float] | None = None,
        timeline: Timeline | None = None,
        on_top: bool = False,
    ) -> None:
        """Change what is given, from the frame after the next unread one on.

        The next unread frame stays as it is, drawn or being drawn, so that frames keep coming however often this is
        called. A performer without the capability REDRAW shows the change, and a ramp begins, with its next shots.
        """
        self.check()
        kinds = {name.partition(".")[0] for name in names or {}}
        needed = [Capability.EMOTION] if emotion or "emotion" in kinds else []
        if not (gaze is None and head is None and controls is None) or kinds - {"emotion", "style"}:
            needed.append(Capability.CONTROLS)
        turned = isinstance(controls, Controls) and moves_head(controls)
        if head is not None or turned or any(map(is_of_head, names or ())):
            needed.append(Capability.HEAD)
        if (style is not None and style_strength(style) != 1.0) or "style" in kinds:
            needed.append(Capability.STYLE)
        if timeline is not None and not isinstance(timeline, Timeline):
            raise TypeError(f"expected timeline as a Timeline, got {type(timeline).__name__}; make one with ditto.Timeline()")
        check_capabilities(self._performer, [*needed, *edit_needs(timeline)])
        drawing = self._current_shot()
        keep = self._pictures.pictures_to_keep()
        if not self._redrawable:
            first = self._next_new + (self._held if self._shows_idle else 0)
        elif keep:
            first = self._pictures.position_after(keep).frames
        else:
            first = self._pictures.last_read.frames + (self._current() is not None)
        ramps = self._ramps.set(
            first, ramp_seconds, emotion=emotion, gaze=gaze, head=head, controls=controls, style=style, names=names
        )
        cues = self._cues if controls is None else self._cues.without_function()
        if timeline is not None:
            cues = cues.begin(timeline, first, ramp_seconds, self._portrait, on_top)
        self._ramps, self._cues = ramps, cues
        if keep and self._redrawable:
            self._pictures.redraw(keep, drawing)
        self._work(NOW)

    def listen(self, samples: Array, sample_rate: int) -> None:
        """Take speech of the other party (N,)."""
        self.check()
        if self._listener is not None:
            self._listen_queue.push(samples, sample_rate)

    def close(self) -> None:
        """Drop everything; nothing more is computed or read."""
        self.closed = True
        self._intake.clear()
        self._pictures.clear()
        self._utterance = None
        self.notify()
        self._work(NOW)

    def check(self) -> None:
        """Raises what broke the session, or SessionError if it is closed."""
        if self.error is not None:
            raise self.error.with_traceback(self._error_traceback)  # the same one each time: it would grow with every raise
        if self.closed:
            raise SessionError("this session is closed; open another one")

    def fail(self, error: Exception) -> None:
        """Break the session: the next calls raise the error."""
        if isinstance(error, DittoError):
            self.error = error
        else:
            self.error = SessionError(f"the session broke: {type(error).__name__}: {error}")
            self.error.__cause__ = error
        self._error_traceback = self.error.__traceback__
        self._intake.clear()
        self._pictures.clear_shots()
        self._utterance = None
        self.notify()

    def notify(self) -> None:
        """Wake the callers that wait."""
        self.changed.notify_all()
        for wake in self.wakers:
            wake()

    # For the scheduler.

    @property
    def busy(self) -> bool:
        """Whether a worker is at work for this session, or can be without waiting for the clock."""
        return self.advancing or self.drawing or self._next_due == NOW

    def can_advance(self) -> bool:
        """Whether there is a hop of speech for the performer or the end of an utterance, and room for its shots."""
        return self._has_speech and self._may_advance

    @property
    def _has_speech(self) -> bool:
        """Whether there is a hop of speech for the performer or the end of an utterance."""
        if self._utterance is None:
            return self._intake.completes_hop(0)
        return self._utterance.has_hop or self._intake.completes_hop(self._utterance.buffered)

    @property
    def _may_advance(self) -> bool:
        """Whether the performer can go on with the utterance, and there is room for its shots."""
        if self.advancing or self._stopped or self._pictures.shots >= MAX_QUEUED_SHOTS:
            return False
        making_idle = self._task is not None and self._task.shot is None  # speech goes on from the state after them
        return self._redrawable or not making_idle

    @property
    def _silence_due(self) -> float:
        """When a performer that makes blocks is to make silent frames; infinity if speech is on its way, or frames are there.

        It is early enough for them to be there when they are due. In an utterance they follow what is there of the speech,
        where samples have stopped coming. Where they come slowly, at the speed of talk a block is whole after `delay_seconds`.
        """
        utterance, state = self._utterance, self._performer_state
        if self._redrawable or not self._shows_idle or state is None or self._held:
            return NEVER
        if self._has_speech or not self._may_advance or self._pictures.pictures > self._block_seconds * FPS + 1:
            return NEVER  # with more than that the reader is not in a hurry
        due = self._pace.due(self._next_new)
        if utterance is None:
            return due - self._block_seconds
        if not utterance.started:
            return NEVER
        return min(due + self.delay_seconds, max(due - self._block_seconds, self._pushed_at + STARVED_SECONDS))

    def mark_ready(self) -> None:
        """Record since when `can_advance` has been true."""
        if self._ready_since is None:
            self._ready_since = self._pace.now()

    @property
    def awaits_speech(self) -> bool:
        """Whether the rest of a hop of its utterance is on its way."""
        speaking = self._utterance is not None or len(self._intake) > 0
        return speaking and not self.advancing and not self._stopped and not self.can_advance()

    @property
    def batch_due(self) -> float:
        """Until when a hop that is ready may wait for those of other sessions: the first word should come at once."""
        if self._ready_since is None or self._pictures.last_drawn.speaking == NO_UTTERANCE:
            return NOW
        return self._ready_since + GATHER_SECONDS

    def begin_advance(self) -> tuple[Utterance | None, Piece | None, State | None]:
        """What a worker advances now: utterance, its next piece, performer's state.

        The utterance is None if idle frames are to be made. The piece is None if a hop is whole without one, or if the speech
        pauses.
        """
        self.advancing = True
        self._advance_began = self._pace.now(), self._pictures.generation
        self._ready_since = None
        if self._utterance is not None and (self._utterance.has_hop or not self._has_speech):
            return self._utterance, None, self._performer_state
        if not self._has_speech:
            return None, None, self._performer_state
        full = self._intake.full
        piece = self._intake.take()
        if full and not self._intake.full:
            self.notify()  # a push that waits has room now
        if self._utterance is None:
            begin, rate = partial(self._begin, piece.epoch), None if self._redrawable else self.settings.audio_rate
            self._utterance = Utterance(piece.epoch, begin, self._performer.hop_samples, rate)
        return self._utterance, piece, self._performer_state

    def _begin(self, epoch: int, performer_state: State | None) -> State:
        seed = utterance_seed(self.settings.seed, epoch)
        return self._performer.begin(self.appearance, seed, self.settings.latency, performer_state)

    @property
    def emotion(self) -> Array:
        """(8,) weights for the next shots: the target of the ramp, with those of the timeline in their first frame."""
        emotion = self._ramps.emotion
        for moment in self._cues.at(self._pictures.last_drawn.frames + self._pictures.shots):
            emotion = moment.mixed(emotion, 1.0)[0]
        return emotion

    @property
    def coming_edits(self) -> EditsAt:
        """The edits of the next shots, by their number, from 0 on."""
        ramps, cues, first = self._ramps, self._cues, self._next_new
        return lambda shot: self._edits_at(ramps, cues, first + shot)

    @property
    def _next_new(self) -> int:
        """Number of the frame of the next shot that the performer makes."""
        return self._pictures.next_new + (self._current() is not None)

    def accept_shots(self, utterance: Utterance, advanced: Advanced | None, seconds: float) -> None:
        """Queue the shots of a hop, unless the utterance was interrupted; `advanced` is None if no hop was whole."""
        if utterance is not self._utterance:
            return
        utterance.publish()
        if advanced is None:
            return
        if advanced.shots:
            self._block_seconds = averaged(self._block_seconds, self._pace.now() - self._advance_began[0])
        group, first = ShotGroup(advanced.state, advanced.held), utterance.shots - len(advanced.shots)
        self._pictures.put_shots(
            [
                QueuedShot(shot, group, utterance, first + i, seconds if i == 0 else 0.0)
                for i, shot in enumerate(advanced.shots)
            ]
        )
        self._performer_state, self._held = advanced.state, advanced.held
        if utterance.done:
            self._pictures.put_shots([SegmentEnd(utterance.epoch, utterance.shots / FPS)])
            self._utterance = None

    def accept_silence(self, advanced: Advanced) -> None:
        """Take idle frames that were made ahead, unless an interrupt came meanwhile."""
        began, generation = self._advance_began
        self._block_seconds = averaged(self._block_seconds, self._pace.now() - began)
        if generation == self._pictures.generation:
            self._performer_state, self._held = advanced.state, advanced.held

    @property
    def shot_due(self) -> float:
        """When the first shot that the performer has not made yet should be drawn."""
        last = self._pictures.last_drawn
        if last.speaking == NO_UTTERANCE and self._ready_since is not None and self._has_speech:
            return self._ready_since  # the first word should come at once
        return self._pace.due(last.frames + self._pictures.shots)

    def forward_ends(self) -> None:
        """Give the reader the ends of utterances that come next."""
        if self._can_forward_ends and self._pictures.forward_ends():
            self.notify()

    def outlook(self) -> Outlook:
        """What there is for the workers now."""
        if self._stopped:
            return Outlook(False)
        silence = self._silence_due
        ready = self.can_advance() or silence <= self._pace.now()
        frame, idle = self._drawing_due()
        return Outlook(ready, frame, idle, silence)

    def _drawing_due(self) -> tuple[float, float]:
        """`Outlook.frame` and `Outlook.idle`."""
        pictures = self._pictures
        unread = pictures.pictures
        if self.drawing or unread >= MAX_QUEUED_PICTURES:
            return NEVER, NEVER
        shot = pictures.next_shot(self._sound_size)
        due = self._pace.due(pictures.last_drawn.frames)
        if shot is not None and shot.utterance is not None:
            return max(due, self._pace.now()) if unread else due, NEVER  # an unread picture: no hurry
        if unread:
            return NEVER, NEVER
        if shot is None:  # else an idle shot, one of a group
            if not self._shows_idle or self.advancing:
                return NEVER, NEVER
            utterance = self._utterance
            if self._redrawable:
                due += STARVED_SECONDS if self._mid_utterance else 0.0
            elif utterance is not None and utterance.started and not self._held:
                return NEVER, NEVER
        return due if due <= self._pace.now() else NEVER, due

    def task(self) -> Task:
        """Make a task of the frame that can be drawn now."""
        shot = self._pictures.take_shot(self._sound_size)
        listened = self._listen_queue.take()  # during speech too, so that the listener stays up to date
        pictures, state = self._pictures, self._performer_state
        self._task = Task(
            pictures.generation, pictures.last_drawn, shot, state, listened, self._ramps, self._cues, self.epoch
        )
        self.drawing = True
        return self._task

    def accept_frame(self, task: Task, result: Result, seconds: float) -> None:
        """Queue the frame of a task for the reader, unless `control` or `interrupt` made it out of date."""
        self._task = None
        if task.generation != self._pictures.generation or self.closed:
            return
        self._pace.start(result.frame.index)
        if task.shot is None:
            group = result.shot.group
            self._performer_state, self._held = group.state, group.held
            if not self._redrawable and self._utterance is not None and self._utterance.started:
                self._utterance.accept_idle(group.state)
        if result.shot.compute_seconds > 0.0:
            self.compute_seconds = averaged(self.compute_seconds, result.shot.compute_seconds + seconds)
        self._pictures.put_shots(result.more_shots, first=True)
        self._pictures.add_picture(result.frame, result.shot, result.position)
        self.notify()

    def draw(self, task: Task, timed: Timed) -> Result:
        """Compute the frame of a task, without the lock. `timed(name, call)` makes the call and reports its duration."""
        shot, more, index = task.shot, [], task.position.frames
        edits = self._edits(task)
        if shot is None:
            state = task.performer_state if task.performer_state is not None else self._begin(task.epoch, None)
            job = Idle(state, edits.emotion, lambda shot: self._edits_at(task.ramps, task.cues, index + shot))
            advanced = self._performer.idle([job])[0]
            group, silence = ShotGroup(advanced.state, advanced.held), np.zeros(self._sound_size, np.float32)
            shot, *more = [QueuedShot(one, group, None, 0, 0.0, silence) for one in advanced.shots]
        image, drawn = self._drawn(Draw(task.position.face, shot.shot, edits), timed)
        assert shot.sound is not None
        if shot.utterance is None:
            kind = "transition" if drawn.transition or shot.interrupted else "idle"
            frame = Frame(image, index, index / FPS, shot.sound, drawn.motion, kind, task.epoch, None)
            return Result(frame, shot, Position(drawn.face, index + 1, NO_UTTERANCE), more)
        epoch = shot.utterance.epoch
        frame = Frame(image, index, index / FPS, shot.sound, drawn.motion, "speech", epoch, shot.number)
        return Result(frame, shot, Position(drawn.face, index + 1, epoch), more)

    def _drawn(self, job: Draw, timed: Timed) -> tuple[Pixels, Drawn | Moved]:
        """The picture of a job in the session's format, empty if it gives motion alone, and what the performer says of it."""
        if not self.settings.draws:
            return NO_PICTURE, self._performer.move([job])[0]
        output, label = self.settings.output, self.settings.label
        drawn = self._performer.draw([replace(job, alpha=output in OF_ALPHA)])[0]
        alpha = self._portrait.alpha if drawn.alpha is None else drawn.alpha
        return timed("convert", lambda: picture_of(drawn.image, alpha, output, label)), drawn

    def draw_at_rest(self) -> int:
        """Compute an idle frame and drop it, to measure the speed; nothing if the performer has no capability IDLE.

        Returns:
            Of how many frames that was the work: of more than one if the performer makes idle shots in blocks.
        """
        if Capability.IDLE not in self._performer.supports:
            return 1
        face = self._performer.face(self.appearance, self.settings.seed)
        task = Task(0, Position(face), None, None, [], self._ramps, Cues(), 0)
        return 1 + len(self.draw(task, lambda name, call: call()).more_shots)

    def _edits(self, task: Task) -> Edits:
        """The edits of a frame."""
        reaction = NEUTRAL
        if self._listener is not None:
            for piece in task.listened:
                self._listener.push(piece.resampler.push(piece.samples))
            reaction = self._listener.react()
        return replace(self._edits_at(task.ramps, task.cues, task.position.frames), reaction=reaction)

    def _edits_at(self, ramps: Ramps, cues: Cues, frame: int) -> Edits:
        """The edits of a frame, by its number, but for the reaction."""
        emotion, ramped, style = ramps.at(frame)
        own = [ramped]
        for moment in cues.at(frame):
            emotion, style = moment.mixed(emotion, style)
            own.append(moment.controls)
        controls = [HEAD_STILL] if self.settings.still else []
        controls += [one for one in own if not one.is_neutral]
        return Edits(emotion, tuple(controls), style=style)

    def _current(self) -> Task | None:
        """The task that a worker is drawing, unless it is out of date."""
        return self._task if self._task is not None and self._task.generation == self._pictures.generation else None

    def _current_shot(self) -> QueuedShot | None:
        task = self._current()
        return None if task is None else task.shot

    @property
    def _next_due(self) -> float:
        """From when on there is something to compute."""
        outlook = self.outlook()
        now = outlook.ready or outlook.frame < NEVER or self._can_forward_ends
        return NOW if now else min(outlook.idle, outlook.silence)

    @property
    def _can_forward_ends(self) -> bool:
        can_draw = self._pictures.next_is_end and not self.drawing and not self._stopped
        return can_draw and self._pictures.pictures < MAX_QUEUED_PICTURES

    @property
    def _stopped(self) -> bool:
        return self.closed or self.error is not None

    @property
    def _mid_utterance(self) -> bool:
        """Whether the last frame belongs to the current utterance."""
        return self._utterance is not None and self._utterance.epoch == self._pictures.last_drawn.speaking


def averaged(mean: float, newest: float) -> float:
    """A running mean with one more measurement; a mean of 0 is of none."""
    return mean + (COMPUTE_AVERAGE if mean else 1.0) * (newest - mean)
