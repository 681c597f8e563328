"""Cue: what a session shows beside its ramps: a timeline that began at some frame, or a function of the frame's number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ditto.controls import CATALOG, Controls
from ditto.controls.timeline import MIDDLE, Edit, Moment, Timeline, View, moment_of, smooth
from ditto.motion.motion import FPS

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait


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


def first_cue(edit: Edit | None, portrait: Portrait) -> Cue | None:
    """The cue of a session's option `controls`; None for controls that do not change."""
    if edit is None or isinstance(edit, Controls):
        return None
    return Cue(edit, view=edit.view(portrait)) if isinstance(edit, Timeline) else Cue(edit)


def next_cue(before: Cue | None, timeline: Timeline, frame: int, ramp_seconds: float, portrait: Portrait) -> Cue:
    """The cue of a timeline that begins at a frame, in place of another cue."""
    view = timeline.view(portrait)
    held, begins = {} if before is None else before.values(frame - 1), timeline.values(0.0, view)
    offset = {}
    for name in (*held, *begins):
        neutral = CATALOG[name].neutral
        offset[name] = held.get(name, neutral) - begins.get(name, neutral)
    return Cue(timeline, frame, view, MappingProxyType(offset), round(ramp_seconds * FPS))
