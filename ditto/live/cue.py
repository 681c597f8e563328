"""Cues: what a session shows beside its ramps: timelines that began at some frame, or a function of the frame's number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ditto.controls import CATALOG, Controls
from ditto.controls.timeline import MIDDLE, Edit, Moment, Timeline, View, moment_of, smooth
from ditto.motion.motion import FPS

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait


MOST_TOPS = 16  # each costs about 0.05 ms a frame


class Cue(NamedTuple):
    """Edits from a frame on. A timeline starts from what was shown before it: the difference fades out.

    Attributes:
        edit: a timeline, whose second 0 is the frame `first`; or a function of the frame's number in the session.
        first: the frame.
        view: of the portrait.
        offset: by name, what was shown in the frame before minus what the timeline begins with.
        frames: how long it takes until nothing is left of it.
    """

    edit: Timeline | Callable[[int], Controls]
    first: int = 0
    view: View = MIDDLE
    offset: Mapping[str, float] = MappingProxyType({})
    frames: int = 0

    def at(self, frame: int) -> Moment:
        """The edits of a frame."""
        return moment_of(self.edit, frame) if callable(self.edit) else Moment.of(self.values(frame))

    def is_over(self, frame: int) -> bool:
        """Whether it changes nothing from a frame on."""
        return isinstance(self.edit, Timeline) and self.edit.is_over((frame - self.first) / FPS)

    def values(self, frame: int) -> dict[str, float]:
        """What it changes in a frame, by name."""
        if callable(self.edit):
            return self.edit(frame).names()
        own = self.edit.values((frame - self.first) / FPS, self.view)
        if frame - self.first >= self.frames:
            return own
        left = 1.0 - smooth((frame - self.first + 1) / (self.frames + 1))
        for name, offset in self.offset.items():
            control = CATALOG[name]
            value = own.get(name, control.neutral) + left * offset
            own[name] = min(max(value, control.low), control.high)
        return own


class Cues(NamedTuple):
    """All cues of a session.

    Attributes:
        main: of the option `controls`, or of the last timeline that took its place.
        tops: timelines on top of it, in the order in which they began, until they are over.
    """

    main: Cue | None = None
    tops: tuple[Cue, ...] = ()

    @classmethod
    def start(cls, edit: Edit | None, portrait: Portrait) -> Cues:
        """Those of a session's option `controls`; controls that do not change are none."""
        if edit is None or isinstance(edit, Controls):
            return cls()
        return cls(Cue(edit, view=edit.view(portrait)) if isinstance(edit, Timeline) else Cue(edit))

    def at(self, frame: int) -> list[Moment]:
        """The edits of a frame, those of `main` first."""
        return [cue.at(frame) for cue in (self.main, *self.tops) if cue is not None]

    def not_after(self, frame: int) -> Cues:
        """The same, timelines that have not begun before a frame from that frame on: frames were dropped."""
        main = None if self.main is None else self.main._replace(first=min(self.main.first, frame))
        return Cues(main, tuple(top._replace(first=min(top.first, frame)) for top in self.tops))

    def without_function(self) -> Cues:
        """Without a function of the frame's number."""
        return self if self.main is None or isinstance(self.main.edit, Timeline) else self._replace(main=None)

    def begin(self, timeline: Timeline, frame: int, ramp_seconds: float, portrait: Portrait, on_top: bool) -> Cues:
        """With a timeline that begins at a frame, in place of `main` or on top.

        Raises:
            ValueError: `MOST_TOPS` are on top already.
        """
        cue = next_cue(None if on_top else self.main, timeline, frame, ramp_seconds, portrait)
        tops = tuple(top for top in self.tops if not top.is_over(frame))
        if not on_top:
            return Cues(cue, tops)
        if len(tops) == MOST_TOPS:
            raise ValueError(
                f"expected at most {MOST_TOPS} timelines on top at a time, got one more; give layers an end, or wait"
            )
        return Cues(self.main, (*tops, cue))


def next_cue(before: Cue | None, timeline: Timeline, frame: int, ramp_seconds: float, portrait: Portrait) -> Cue:
    """The cue of a timeline that begins at a frame, in place of another cue."""
    view = timeline.view(portrait)
    held = {} if before is None else before.values(frame - 1)
    begins = Timeline(timeline.layers).values(0.0)  # an event begins softly of itself
    offset = {}
    for name in (*held, *begins):
        neutral = CATALOG[name].neutral
        offset[name] = held.get(name, neutral) - begins.get(name, neutral)
    return Cue(timeline, frame, view, MappingProxyType(offset), round(ramp_seconds * FPS))
