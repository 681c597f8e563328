"""The output of a session: shots to draw, and pictures to read. Every call is short and made under the session's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.frame import Frame, Item, SegmentEnd
from ditto.live.utterance import Utterance
from ditto.performer import Face, Shot, State

Array = npt.NDArray[np.float32]

MAX_QUEUED_PICTURES = 25  # drawn and not read
NO_UTTERANCE = -1  # in place of an epoch


class Position(NamedTuple):
    """A position in the stream of pictures.

    Attributes:
        face: the performer's, after the last picture.
        frames: pictures so far.
        speaking: epoch of the last frame if it was speech, else `NO_UTTERANCE`.
    """

    face: Face
    frames: int = 0
    speaking: int = NO_UTTERANCE


@dataclass(frozen=True, eq=False)
class ShotGroup:
    """The shots that one call of the performer gave.

    Attributes:
        state: the performer's, after the last of them.
        held: how many shots the performer holds then for an `Idle` job.
    """

    state: State
    held: int = 0


class QueuedShot(NamedTuple):
    """A shot to draw.

    Attributes:
        shot: the performer's.
        group: the shots that came with it.
        utterance: that it belongs to; None for an idle one.
        number: in its utterance.
        compute_seconds: that the performer took, on the first shot of a group; 0 on the others.
        sound: of the frame; None until the shot is drawn for the first time.
        interrupted: whether it is left over from an interrupted utterance.
    """

    shot: Shot
    group: ShotGroup
    utterance: Utterance | None
    number: int
    compute_seconds: float
    sound: Array | None = None
    interrupted: bool = False


class QueuedPicture(NamedTuple):
    """An item for the reader, its source, and the position after it."""

    item: Item
    source: QueuedShot | SegmentEnd
    position: Position


class PictureQueue:
    """Shots in, pictures out, in order. `redraw` turns unread pictures back into shots, to draw them with other edits.

    Args:
        face: before the first picture.
        redrawable: whether shots can be drawn again or left out (`Capability.REDRAW`). If not, the shots of a group go out
            together.

    Attributes:
        last_drawn: position after the last picture drawn.
        last_read: position after the last picture read.
        generation: grows with `redraw` and `interrupt`; a picture begun in an earlier generation is out of date.
        read_group: group of the last picture read, or None.
    """

    def __init__(self, face: Face, redrawable: bool) -> None:
        self.last_drawn = self.last_read = Position(face)
        self.generation = 0
        self.read_group: ShotGroup | None = None
        self._redrawable = redrawable
        self._shots: deque[QueuedShot | SegmentEnd] = deque()
        self._pictures: deque[QueuedPicture] = deque()

    @property
    def shots(self) -> int:
        """Shots in the queue."""
        return len(self._shots)

    @property
    def next_new(self) -> int:
        """Number of the frame of the next shot that is put in."""
        return self.last_drawn.frames + sum(isinstance(shot, QueuedShot) for shot in self._shots)

    @property
    def pictures(self) -> int:
        """Unread pictures and ends of utterances."""
        return len(self._pictures)

    @property
    def next_is_end(self) -> bool:
        """Whether the next entry is the end of an utterance."""
        return bool(self._shots) and isinstance(self._shots[0], SegmentEnd)

    def put_shots(self, items: Sequence[QueuedShot | SegmentEnd], first: bool = False) -> None:
        """Append shots and ends of utterances; with `first`, put them before the others."""
        if first:
            self._shots.extendleft(reversed(items))
        else:
            self._shots.extend(items)

    def forward_ends(self) -> bool:
        """Give the reader the ends of utterances that come next, as they need no drawing; whether there were any."""
        found = False
        while self._shots and isinstance(end := self._shots[0], SegmentEnd):
            self._shots.popleft()
            self._pictures.append(QueuedPicture(end, end, self.last_drawn))
            found = True
        return found

    def next_shot(self, sound_size: int) -> QueuedShot | None:
        """The next shot, if its sound is there too. It stays in the queue."""
        shot = self._shots[0] if self._shots else None
        if shot is None or isinstance(shot, SegmentEnd):
            return None
        ready = shot.utterance is None or shot.sound is not None or shot.utterance.has_sound(sound_size)
        return shot if ready else None

    def take_shot(self, sound_size: int) -> QueuedShot | None:
        """Remove the next shot and give it its sound; None as of `next_shot`."""
        shot = self.next_shot(sound_size)
        if shot is None:
            return None
        self._shots.popleft()
        if shot.sound is not None:
            return shot
        silence = np.zeros(sound_size, np.float32)
        return shot._replace(sound=silence if shot.utterance is None else shot.utterance.next_sound(sound_size))

    def add_picture(self, frame: Frame, source: QueuedShot, position: Position) -> None:
        """Append a picture for the reader."""
        self.last_drawn = position
        self._pictures.append(QueuedPicture(frame, source, position))

    def pop(self) -> Item | None:
        """Remove the next item for the reader; None if there is none."""
        if not self._pictures:
            return None
        item, source, self.last_read = self._pictures.popleft()
        if isinstance(source, QueuedShot):
            self.read_group = source.group
        return item

    def pictures_to_keep(self) -> int:
        """How many entries up to and including the first unread frame; 0 without an unread frame."""
        return next((n for n, picture in enumerate(self._pictures, 1) if isinstance(picture.item, Frame)), 0)

    def position_after(self, keep: int) -> Position:
        """The position after the first `keep` unread entries."""
        return self._pictures[keep - 1].position if keep else self.last_read

    def redraw(self, keep: int, drawing: QueuedShot | None) -> None:
        """Turn all but the first `keep` unread entries back into shots. Idle ones are dropped: the performer makes new ones.

        Args:
            keep: how many entries stay as they are.
            drawing: the shot that a worker is drawing.
        """
        sources = [*(picture.source for picture in list(self._pictures)[keep:]), *([] if drawing is None else [drawing])]
        sources = [source for source in sources if isinstance(source, SegmentEnd) or source.utterance is not None]
        while len(self._pictures) > keep:
            self._pictures.pop()
        self.put_shots(sources, first=True)
        self.last_drawn = self.position_after(keep)
        self.generation += 1

    def interrupt(self, drawing: QueuedShot | None) -> ShotGroup | None:
        """Drop everything unread. If shots cannot be left out, the rest of the group being read stays, without sound.

        Args:
            drawing: the shot that a worker is drawing.

        Returns:
            The shots of which the rest is left; None if nothing was read yet.
        """
        rest: list[QueuedShot] = []
        if not self._redrawable and self.read_group is not None:
            drawn = [picture.source for picture in self._pictures]
            sources = [*drawn, *([] if drawing is None else [drawing]), *self._shots]
            rest = [shot for shot in sources if isinstance(shot, QueuedShot) and shot.group is self.read_group]
        self._pictures.clear()
        self._shots.clear()
        self.last_drawn = self.last_read
        self.generation += 1
        self.put_shots([shot._replace(utterance=None, sound=None, interrupted=True) for shot in rest])
        return self.read_group

    def clear(self) -> None:
        """Drop everything."""
        self._shots.clear()
        self._pictures.clear()

    def clear_shots(self) -> None:
        """Drop the shots; pictures stay."""
        self._shots.clear()
