"""The second half of a session's way: shots that wait to be drawn, pictures that wait to be read.

Under the session's lock, and short.
"""

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

PICTURES_AHEAD = 25  # frames drawn that wait for the reader
IDLE = -1  # where there is no utterance


class Place(NamedTuple):
    """Where a stream of pictures stands.

    Attributes:
        face: after the last picture.
        frames: given so far.
        speaking: epoch of the utterance that the last frame was of, or `IDLE`.
    """

    face: Face
    frames: int = 0
    speaking: int = IDLE


@dataclass(frozen=True, eq=False)
class Group:
    """Shots that one call of the performer gave.

    Attributes:
        state: of the performer after the last of them.
    """

    state: State


class Waiting(NamedTuple):
    """A shot to be drawn.

    Attributes:
        shot: what is drawn.
        group: the shots it came with.
        utterance: what it is of; None: it is idle.
        number: in its utterance.
        seconds: what computing it took, if it is the first of its group.
        sound: its own; None until it is drawn for the first time.
        cut: whether it is left over from an utterance that was interrupted.
    """

    shot: Shot
    group: Group
    utterance: Utterance | None
    number: int
    seconds: float
    sound: Array | None = None
    cut: bool = False


class Picture(NamedTuple):
    """An item for the reader, what it was drawn from, and the place after it."""

    item: Item
    source: Waiting | SegmentEnd
    place: Place


class PictureQueue:
    """Shots in, pictures out, in order; and back again, where what is drawn is to be drawn otherwise.

    Args:
        face: before the first picture.
        separable: whether shots stand for themselves (`Capability.REDRAW`). Otherwise those of a group go out together.

    Attributes:
        last: place after the last picture drawn.
        read: place after the last picture read.
        generation: of what is drawn; a picture of an earlier one is thrown away.
        reading: group of the last picture read.
    """

    def __init__(self, face: Face, separable: bool) -> None:
        self.last = self.read = Place(face)
        self.generation = 0
        self.reading: Group | None = None
        self._separable = separable
        self._shots: deque[Waiting | SegmentEnd] = deque()
        self._pictures: deque[Picture] = deque()

    @property
    def shots(self) -> int:
        """Shots that wait to be drawn."""
        return len(self._shots)

    @property
    def pictures(self) -> int:
        """Pictures, and ends of utterances, that wait to be read."""
        return len(self._pictures)

    @property
    def end_next(self) -> bool:
        """Whether an end of an utterance comes before the next shot."""
        return bool(self._shots) and isinstance(self._shots[0], SegmentEnd)

    def put(self, items: Sequence[Waiting | SegmentEnd], first: bool = False) -> None:
        """Shots behind those that wait, or before them."""
        if first:
            self._shots.extendleft(reversed(items))
        else:
            self._shots.extend(items)

    def pass_ends(self) -> bool:
        """Ends of utterances, which need no drawing, go on to the reader; whether there were any."""
        passed = False
        while self._shots and isinstance(end := self._shots[0], SegmentEnd):
            self._shots.popleft()
            self._pictures.append(Picture(end, end, self.last))
            passed = True
        return passed

    def next_shot(self, sound_size: int) -> Waiting | None:
        """The next shot to be drawn, if there is one and its sound is there too. It stays where it is."""
        shot = self._shots[0] if self._shots else None
        if shot is None or isinstance(shot, SegmentEnd):
            return None
        ready = shot.utterance is None or shot.sound is not None or shot.utterance.can_cut(sound_size)
        return shot if ready else None

    def take_shot(self, sound_size: int) -> Waiting | None:
        """The next shot, its sound with it."""
        shot = self.next_shot(sound_size)
        if shot is None:
            return None
        self._shots.popleft()
        if shot.sound is not None:
            return shot
        silence = np.zeros(sound_size, np.float32)
        return shot._replace(sound=silence if shot.utterance is None else shot.utterance.cut(sound_size))

    def drawn(self, frame: Frame, source: Waiting, place: Place) -> None:
        """One more picture."""
        self.last = place
        self._pictures.append(Picture(frame, source, place))

    def pop(self) -> Item | None:
        """The next item for the reader."""
        if not self._pictures:
            return None
        item, source, self.read = self._pictures.popleft()
        if isinstance(source, Waiting):
            self.reading = source.group
        return item

    def frames_kept(self) -> int:
        """Pictures up to and with the first unread frame."""
        return next((n for n, picture in enumerate(self._pictures, 1) if isinstance(picture.item, Frame)), 0)

    def place_after(self, keep: int) -> Place:
        """The place after the first `keep` pictures that wait."""
        return self._pictures[keep - 1].place if keep else self.read

    def redraw(self, keep: int, drawing: Waiting | None) -> None:
        """Draw again all but the first `keep` pictures that wait; `drawing` is the shot that is being drawn.

        Idle shots are made anew when they are due.
        """
        again = [*(picture.source for picture in list(self._pictures)[keep:]), *([] if drawing is None else [drawing])]
        again = [one for one in again if isinstance(one, SegmentEnd) or one.utterance is not None]
        while len(self._pictures) > keep:
            self._pictures.pop()
        self.put(again, first=True)
        self.last = self.place_after(keep)
        self.generation += 1

    def interrupt(self, drawing: Waiting | None) -> State | None:
        """Drop what was not read, but for the rest of a group that cannot be cut, which goes out without sound.

        Args:
            drawing: the shot that is being drawn.

        Returns:
            The performer's state after what is left, if there is any.
        """
        rest: list[Waiting] = []
        if not self._separable and self.reading is not None:
            drawn = [picture.source for picture in self._pictures]
            sources = [*drawn, *([] if drawing is None else [drawing]), *self._shots]
            rest = [one for one in sources if isinstance(one, Waiting) and one.group is self.reading]
        self._pictures.clear()
        self._shots.clear()
        self.last = self.read
        self.generation += 1
        self.put([one._replace(utterance=None, sound=None, cut=True) for one in rest])
        return None if self.reading is None else self.reading.state

    def clear(self) -> None:
        """Forget everything."""
        self._shots.clear()
        self._pictures.clear()

    def forget_shots(self) -> None:
        """Forget what is not drawn."""
        self._shots.clear()
