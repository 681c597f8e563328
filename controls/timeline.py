"""Timeline: edits of a recording that change over time. Layers of keyframes, and blinks, winks and looks (docs/timeline.md).

    edit = Timeline().layer({"left_brow.y": -0.03}, start=1, end=2).look((1.5, 0.4), at=3, until=5).wink("left", at=6)

Names of controls, their units and ranges are those of `ditto.controls.catalog`. Times are in seconds from the beginning of
the recording. A timeline never changes; each call gives a new one. It holds no state: a moment depends on its time alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.controls import Controls
from ditto.controls.catalog import CATALOG, Control, check_range, find
from ditto.motion.emotion import EMOTIONS
from ditto.motion.eyes import BLINK, REFRACTORY
from ditto.motion.motion import FPS, euler_degrees
from ditto.motion.style import MAX_STRENGTH

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait

Array = npt.NDArray[np.float32]
Values = float | Sequence["Keyframe | Sequence[float | str]"]

HOLD = "pose.hold"
MODES = ("add", "replace", "multiply")
EVENTS = ("blink", "wink.right", "wink.left", "look")
FADE_SECONDS = 0.2  # of a layer with a time range, unless it says another; chosen by eye
MOST_SECONDS = 86400.0  # of any time: a day
MOST_FACTOR = 4.0  # of a layer that multiplies
MOST_BLINKS = 60.0  # a minute: one a second, where blinks and the time after them leave no more
MOST_POINT = 10.0  # widths or heights of the picture that a look may lie outside of it
END_TOLERANCE = 0.25  # seconds: containers declare durations that are a little short (`ditto.media.audio`)
# Opening of an eye that winks, frame by frame: three frames to close, five shut, four to open. Chosen by eye.
WINK = (0.72, 0.30, 0.04, 0.0, 0.0, 0.0, 0.0, 0.0, 0.18, 0.46, 0.72, 0.92)
CLOSING_SECONDS = max(len(BLINK), len(WINK)) / FPS  # the longer of the two

# A look: the eyes jump, the head follows later and turns by a share of the angle. Times are those of gaze shifts of 10 to 40
# degrees with the head free (Guitton and Volle, J. Neurophysiology 58, 1987: the head starts 25 to 150 ms after the eyes and
# takes 0.3 to 0.8 s). The share and the limits were chosen by eye: more than 15 degrees shows what the picture does not have.
EYES_SECONDS, HEAD_LAG_SECONDS, HEAD_SECONDS = 0.08, 0.12, 0.6
HEAD_SHARE, HEAD_DEGREES, EYE_DEGREES = 0.45, 15.0, 30.0
CAMERA_DISTANCE = 4.0  # fu from the eyes to the plane of the picture, in which the points of looks lie: about 60 cm

# A spring with damping ratio .58: one overshoot of 12 %, at rest at both ends. Step response of a damped oscillator that has
# turned once when the keyframe comes, divided by its value there.
SPRING_DECAY, SPRING_TURN = 4.47, 2.0 * math.pi


def smooth(share: float) -> float:
    """The quintic from 0 to 1 with speed and acceleration 0 at both ends; what lies outside of [0, 1] is at rest."""
    u = min(max(share, 0.0), 1.0)
    return u * u * u * (10.0 - 15.0 * u + 6.0 * u * u)


def spring(share: float) -> float:
    """From 0 to 1 with one overshoot; speed 0 at both ends."""
    u = min(max(share, 0.0), 1.0)
    left = math.cos(SPRING_TURN * u) + SPRING_DECAY / SPRING_TURN * math.sin(SPRING_TURN * u)
    return (1.0 - math.exp(-SPRING_DECAY * u) * left) / (1.0 - math.exp(-SPRING_DECAY))


EASES: Mapping[str, Callable[[float], float]] = {
    "smooth": smooth,
    "linear": lambda share: share,
    "step": lambda share: float(share >= 1.0),
    "spring": spring,
}


class Keyframe(NamedTuple):
    """A value at a time.

    Attributes:
        seconds: when.
        value: in the unit of its control.
        ease: how the value comes here from the keyframe before, one of `EASES`.
    """

    seconds: float
    value: float
    ease: str = "smooth"


class KeyframeError(ValueError):
    """A keyframe that cannot be.

    Attributes:
        control, index: of the keyframe.
    """

    def __init__(self, message: str, control: str, index: int) -> None:
        super().__init__(message)
        self.control, self.index = control, index


@contextmanager
def faults_of(control: str, index: int) -> Iterator[None]:
    """Raise ValueError and TypeError about a keyframe as KeyframeError."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise KeyframeError(str(error), control, index) from None


@dataclass(frozen=True)
class Track:
    """Keyframes of one control. Before the first it has the first value, after the last the last.

    Raises:
        ValueError: an unknown control or ease, a number that is not finite or out of range, no keyframes, or keyframes that do
            not ascend in time.
    """

    name: str
    keyframes: tuple[Keyframe, ...]

    def __post_init__(self) -> None:
        find(self.name)
        if not self.keyframes:
            raise ValueError(f"expected at least one keyframe of {self.name}, got none; give a number or keyframes")
        for n, key in enumerate(self.keyframes):
            where = f"{self.name}[{n}]"
            with faults_of(self.name, n):
                within(f"the time of {where}", key.seconds, -MOST_SECONDS, MOST_SECONDS)
                if not math.isfinite(key.value):
                    raise ValueError(
                        f"expected the value of {where} to be a finite number, got {key.value}; give another"
                    )
                if not isinstance(key.ease, str) or key.ease not in EASES:
                    raise ValueError(
                        f"expected the ease of {where} out of {', '.join(EASES)}, got {key.ease!r}; "
                        "use one of these"
                    )
                if n and key.seconds <= self.keyframes[n - 1].seconds:
                    raise ValueError(
                        f"expected keyframes that ascend in time, got {where} at {key.seconds:g} s after one at "
                        f"{self.keyframes[n - 1].seconds:g} s; put them in order, one at a time"
                    )

    @classmethod
    def of(cls, name: str, values: Values) -> Track:
        """A track of a number that holds, or of keyframes, each (seconds, value) or (seconds, value, ease).

        Raises:
            ValueError: as of `Track`.
            TypeError: values of another kind.
        """
        if isinstance(values, Real):
            return cls(name, (Keyframe(0.0, as_float(f"the value of {name}", values)),))
        if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
            shown = "nothing" if values is None else repr(values)[:40]
            raise TypeError(f"expected a number or a list of keyframes for {name}, got {shown}; give one of these")
        keyframes = []
        for n, key in enumerate(values):
            with faults_of(name, n):
                if isinstance(key, (str, bytes)) or not isinstance(key, Sequence) or not 2 <= len(key) <= 3:
                    raise ValueError(
                        f"expected a keyframe (seconds, value) or (seconds, value, ease) as {name}[{n}], got {key!r}; "
                        "write it so"
                    )
                seconds, value = (
                    as_float(f"{what} of {name}[{n}]", key[i]) for i, what in enumerate(("the time", "the value"))
                )
                keyframes.append(Keyframe(seconds, value, *key[2:]))  # type: ignore[arg-type]
        return cls(name, tuple(keyframes))

    @cached_property
    def _times(self) -> list[float]:
        return [key.seconds for key in self.keyframes]

    @cached_property
    def control(self) -> Control:
        """Its control in the catalog."""
        return find(self.name)

    def at(self, seconds: float) -> float:
        """The value at a time."""
        n = bisect_right(self._times, seconds)
        if n == 0 or n == len(self.keyframes):
            return self.keyframes[max(n - 1, 0)].value
        before, after = self.keyframes[n - 1], self.keyframes[n]
        share = (seconds - before.seconds) / (after.seconds - before.seconds)
        return before.value + EASES[after.ease](share) * (after.value - before.value)


@dataclass(frozen=True)
class Layer:
    """Tracks that act together on what the layers below give, within a time range.

    Attributes:
        tracks: at most one for each control.
        mode: "add" adds the difference from the neutral value; "replace" takes the place of what is below; "multiply" is a
            factor on what is below, 0 to 4.
        start, end: the first moment at which it acts, and the first at which it does not; None: no limit.
        fade: seconds from `start` until it acts fully, and seconds before `end` from which on it acts less.
        name: for people.

    Raises:
        ValueError: an unknown mode, a number out of range, two tracks of one control, or a range that is empty or shorter than
            its fades.
    """

    tracks: tuple[Track, ...]
    mode: str = "add"
    start: float | None = None
    end: float | None = None
    fade: tuple[float, float] = (0.0, 0.0)
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name.isprintable():
            raise ValueError(f"expected a printable name of a layer, got {self.name!r}; leave out line breaks and the like")
        if self.mode not in MODES:
            raise ValueError(
                f"expected the mode of a layer out of {', '.join(MODES)}, got {self.mode!r}; use one of these"
            )
        for what in ("start", "end"):
            if getattr(self, what) is not None:
                within(f"{what} of a layer", getattr(self, what), -MOST_SECONDS, MOST_SECONDS)
        for what, seconds in zip(("in", "out"), self.fade, strict=True):
            within(f"the fade {what} of a layer", seconds, 0.0, MOST_SECONDS)
        if self.start is not None and self.end is not None:
            if not self.start < self.end:
                raise ValueError(
                    f"expected a layer to start before its end, got {self.start:g} to {self.end:g} s; swap them"
                )
            if sum(self.fade) > self.end - self.start + 1e-9:
                raise ValueError(
                    f"expected fades no longer than the layer, {self.end - self.start:g} s, got {sum(self.fade):g} s in all; "
                    "shorten them"
                )
        seen = set()
        for track in self.tracks:
            if track.name in seen:
                raise ValueError(
                    f"expected each control once in a layer, got {track.name} twice; put one in another layer"
                )
            seen.add(track.name)
            low, high = (0.0, MOST_FACTOR) if self.mode == "multiply" else (track.control.low, track.control.high)
            for n, key in enumerate(track.keyframes):
                with faults_of(track.name, n):
                    within(f"the value of {track.name}[{n}]", key.value, low, high)

    @cached_property
    def acting(self) -> tuple[Track, ...]:
        """Its tracks; with angles of `pose.*` and without `pose.hold`, it holds them as far as it acts."""
        names = {track.name for track in self.tracks}
        if self.mode == "multiply" or HOLD in names or not any(name.startswith("pose.") for name in names):
            return self.tracks
        return (*self.tracks, Track.of(HOLD, 1.0))

    def weight(self, seconds: float) -> float:
        """How much it acts at a time, 0 to 1."""
        weight = 1.0
        if self.start is not None:
            if seconds < self.start:
                return 0.0
            if seconds < self.start + self.fade[0]:
                weight = smooth((seconds - self.start) / self.fade[0])
        if self.end is not None:
            if seconds >= self.end:
                return 0.0
            if seconds > self.end - self.fade[1]:
                weight *= smooth((self.end - seconds) / self.fade[1])
        return weight


@dataclass(frozen=True)
class Event:
    """A blink, a wink or a look.

    Attributes:
        kind: one of `EVENTS`.
        at: when it begins, in seconds.
        until: of a look: when the eyes go back to where they were; None: never.
        point: of a look: (x, y) in the picture, as shares of its width and height from the left top corner; a point outside of
            the picture lies in the same plane.

    Raises:
        ValueError: an unknown kind, a number out of range, a look without a point, or a blink or wink with one.
    """

    kind: str
    at: float
    until: float | None = None
    point: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.kind not in EVENTS:
            raise ValueError(f"expected an event out of {', '.join(EVENTS)}, got {self.kind!r}; use one of these")
        within(f"the time of a {self.kind}", self.at, -MOST_SECONDS, MOST_SECONDS)
        if self.kind != "look":
            if self.until is not None or self.point is not None:
                raise ValueError(
                    f"expected a time only for a {self.kind}, got more; only a look has a point and an end"
                )
            return
        if self.point is None or len(self.point) != 2:
            raise ValueError(
                f"expected a point (x, y) for a look, got {self.point!r}; give shares of the picture's size"
            )
        for axis, value in zip("xy", self.point, strict=True):
            within(f"{axis} of the point of a look", value, -MOST_POINT, MOST_POINT)
        if self.until is not None:
            within("the end of a look", self.until, -MOST_SECONDS, MOST_SECONDS)
            if not self.until > self.at:
                raise ValueError(f"expected a look to end after {self.at:g} s, got {self.until:g} s; give a later time")


class View(NamedTuple):
    """Where the eyes of a portrait are in its picture.

    Attributes:
        size: (width, height) of the picture in face units.
        eyes: (x, y) of the point between the eyes, as shares of that size.
        nose: (right, down) degrees by which the portrait's head is turned against the camera.
    """

    size: tuple[float, float]
    eyes: tuple[float, float]
    nose: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, portrait: Portrait) -> View:
        """The view of a portrait."""
        from ditto.portrait.face_mesh import EYES

        height, width = portrait.picture.shape[:2]
        matrix = portrait.crop_to_picture
        unit = portrait.scale * len(portrait.crop) / 2 * math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))
        between = np.mean([portrait.landmarks[eye.iris, :2] for eye in EYES], 0)
        x, y = (matrix[:2, :2] @ between + matrix[:2, 2]).tolist()
        pitch, yaw, _ = euler_degrees(portrait.rotation).tolist()
        return cls((width / unit, height / unit), (x / width, y / height), (-yaw, pitch))

    def degrees(self, point: tuple[float, float]) -> tuple[float, float]:
        """(right, down): the direction from the eyes to a point of the picture, against the camera."""
        right, down = ((p - e) * size for p, e, size in zip(point, self.eyes, self.size, strict=True))
        return math.degrees(math.atan2(right, CAMERA_DISTANCE)), math.degrees(math.atan2(down, CAMERA_DISTANCE))


MIDDLE = View((3.0, 3.0), (0.5, 0.5))  # of a portrait that is not known


class Moment(NamedTuple):
    """The edits of one frame.

    Attributes:
        controls: edits of the motion.
        emotion: (8,) weights, at most 1 in all, to show in place of the same share of the emotion so far; None: no change.
        style: factor on the strength of the style so far; None: no change.
    """

    controls: Controls
    emotion: Array | None = None
    style: float | None = None

    @classmethod
    def of(cls, values: Mapping[str, float]) -> Moment:
        """The edits that values by name stand for."""
        names = dict(values)
        style = names.pop("style", None)
        emotion = None
        weights = {name: names.pop(name) for name in values if name.startswith("emotion.")}
        if weights:
            emotion = np.zeros(len(EMOTIONS), np.float32)
            for name, weight in weights.items():
                emotion[EMOTIONS.index(name.partition(".")[2])] = weight
            emotion /= max(1.0, float(emotion.sum()))
        if any(name.startswith("pose.") for name in names):
            names.setdefault(HOLD, 0.0)
        return cls(Controls.from_names(names), emotion, style)

    def mixed(self, emotion: Array, style: float) -> tuple[Array, float]:
        """The emotion (8,) and the style to show, where `emotion` and `style` are those without this timeline."""
        if self.emotion is not None:
            emotion = ((1.0 - self.emotion.sum()) * emotion + self.emotion).astype(np.float32)
        return emotion, style if self.style is None else min(style * self.style, MAX_STRENGTH)


UNCHANGED = Moment(Controls())


@dataclass(frozen=True)
class Timeline:
    """Layers, from the lowest up, and events. Equal timelines are equal and have one hash.

    Attributes:
        layers, events: what it holds.

    Raises:
        ValueError: two looks that overlap.
    """

    layers: tuple[Layer, ...] = ()
    events: tuple[Event, ...] = field(default=())

    def __post_init__(self) -> None:
        looks = self._looks
        for n, later in enumerate(looks[1:]):
            until = looks[n].until
            if until is None or later.at < until:
                raise ValueError(
                    f"expected one look at a time, got one at {later.at:g} s while that of {looks[n].at:g} s goes on; end it"
                )

    def layer(
        self,
        values: Mapping[str, Values],
        *,
        start: float | None = None,
        end: float | None = None,
        mode: str = "add",
        fade: float | tuple[float, float] | None = None,
        name: str = "",
    ) -> Timeline:
        """This timeline with one more layer on top.

        Args:
            values: for each control a number that holds, or keyframes (seconds, value) or (seconds, value, ease).
            start, end, mode, name: as of `Layer`.
            fade: seconds, or (in, out); None: 0.2 s at each limit of the range, but at most half of the range.

        Raises:
            ValueError, TypeError: as of `Layer` and `Track.of`.
        """
        tracks = tuple(Track.of(control, given) for control, given in values.items())
        return self + Timeline((Layer(tracks, mode, start, end, fades(fade, start, end), name),))

    def key(self, control: str, *keyframes: Keyframe | Sequence[float | str]) -> Timeline:
        """This timeline with keyframes (seconds, value) or (seconds, value, ease) of one control, as a layer that adds."""
        return self.layer({control: keyframes})

    def blink(self, at: float) -> Timeline:
        """This timeline with a blink that begins at a time."""
        return self + Timeline(events=(Event("blink", at),))

    def blinks(self, per_minute: float, until: float, start: float = 0.0, seed: int = 0) -> Timeline:
        """This timeline with blinks at another rate, in place of those that were generated; 0: none.

        The times between blinks are those of a Poisson process with the refractory time of `ditto.motion.eyes`.

        Args:
            per_minute: mean rate, 0 to 60.
            start, until: from when to when, in seconds.
            seed: of the times.

        Raises:
            ValueError: a number out of range, or a range that is empty.
        """
        within("the rate of blinks a minute", per_minute, 0.0, MOST_BLINKS)
        edited = self.layer({"gain.blinks": 0.0}, start=start, end=until, mode="replace", fade=0.0)
        if per_minute == 0.0:
            return edited
        shortest = (len(BLINK) + REFRACTORY) / FPS
        random, events = np.random.default_rng(seed), []
        at = start + random.exponential(60.0 / per_minute - shortest)
        while at < until - len(BLINK) / FPS:
            events.append(Event("blink", round(at, 3)))
            at += shortest + random.exponential(60.0 / per_minute - shortest)
        return edited + Timeline(events=tuple(events))

    def wink(self, side: str, at: float) -> Timeline:
        """This timeline with a wink of the person's "right" or "left" eye."""
        return self + Timeline(events=(Event(f"wink.{side}", at),))

    def look(self, point: tuple[float, float], at: float, until: float | None = None) -> Timeline:
        """This timeline with a look at a point of the picture: the eyes lead, the head follows. Arguments as of `Event`."""
        return self + Timeline(events=(Event("look", at, until, (*point,)),))

    def __add__(self, other: Timeline) -> Timeline:
        """Both: the layers of the other timeline lie above."""
        if not isinstance(other, Timeline):
            return NotImplemented
        events = (*self.events, *other.events)
        return Timeline((*self.layers, *other.layers), tuple(sorted(events, key=lambda event: event.at)))

    @cached_property
    def names(self) -> frozenset[str]:
        """The controls that its layers change."""
        return frozenset(track.name for layer in self.layers for track in layer.tracks)

    def view(self, portrait: Portrait) -> View:
        """Where the eyes of a portrait are, if this has looks; else `MIDDLE`."""
        return View.of(portrait) if self._looks else MIDDLE

    def is_over(self, seconds: float) -> bool:
        """Whether it changes nothing from a time on, because every layer and event has ended."""
        settled = EYES_SECONDS + HEAD_LAG_SECONDS + HEAD_SECONDS  # after the end of a look
        ends = [math.inf if layer.end is None else layer.end for layer in self.layers]
        ends += [event.at + CLOSING_SECONDS for event in self._closings]
        ends += [math.inf if look.until is None else look.until + settled for look in self._looks]
        return seconds >= max(ends, default=-math.inf)

    def shifted(self, seconds: float) -> Timeline:
        """The same, that much later."""

        def moved(track: Track) -> Track:
            if len(track.keyframes) == 1:  # a number that holds
                return track
            return Track(track.name, tuple(key._replace(seconds=key.seconds + seconds) for key in track.keyframes))

        def later(time: float | None) -> float | None:
            return None if time is None else time + seconds

        layers = (
            replace(layer, tracks=tuple(map(moved, layer.tracks)), start=later(layer.start), end=later(layer.end))
            for layer in self.layers
        )
        events = (replace(event, at=event.at + seconds, until=later(event.until)) for event in self.events)
        return Timeline(tuple(layers), tuple(events))

    def outside(self, seconds: float) -> Iterator[tuple[str, str]]:
        """What a recording of that many seconds never shows: each place, and what is wrong there.

        That is what begins after the end, and layers and events that are over before the recording begins.
        """
        for place, time in self._beginnings():
            if time > seconds + END_TOLERANCE:
                yield place, _outside(f"ends at {seconds:.2f} s", time)
        for place, time, over in self._ends():
            if over <= 0.0:
                yield place, _outside("begins at 0 s", time)

    def check_within(self, seconds: float) -> None:
        """Raise ValueError if a recording of that many seconds never shows something of this (`outside`)."""
        for place, fault in self.outside(seconds):
            raise ValueError(f"{place}: {fault}")

    def _beginnings(self) -> Iterator[tuple[str, float]]:
        """The times of keyframes and events and the starts of layers, each with its place."""
        for n, layer in enumerate(self.layers):
            if layer.start is not None:
                yield f"layers[{n}].start", layer.start
            for track in layer.tracks:
                if len(track.keyframes) > 1:
                    for k, key in enumerate(track.keyframes):
                        yield f"layers[{n}].controls.{track.name}[{k}]", key.seconds
        for n, event in enumerate(self.events):
            yield f"events[{n}].at", event.at

    def _ends(self) -> Iterator[tuple[str, float, float]]:
        """The ends of layers and looks and the times of blinks and winks, each with its place and when it is over."""
        for n, layer in enumerate(self.layers):
            if layer.end is not None:
                yield f"layers[{n}].end", layer.end, layer.end
        for n, event in enumerate(self.events):
            if event.kind != "look":
                yield f"events[{n}].at", event.at, event.at + CLOSING_SECONDS
            elif event.until is not None:
                yield f"events[{n}].until", event.until, event.until

    def at(self, seconds: float, view: View = MIDDLE) -> Moment:
        """The edits at a time.

        Args:
            view: of the portrait, for looks.
        """
        return Moment.of(self.values(seconds, view))

    def values(self, seconds: float, view: View = MIDDLE) -> dict[str, float]:
        """Every control that is not neutral at a time, by name, within its range."""
        found: dict[str, float] = {}
        for layer in self.layers:
            weight = layer.weight(seconds)
            if weight == 0.0:
                continue
            for track in layer.acting:
                neutral = track.control.neutral
                below, value = found.get(track.name, neutral), track.at(seconds)
                if layer.mode == "add":
                    below += weight * (value - neutral)
                elif layer.mode == "replace":
                    below += weight * (value - below)
                else:
                    below *= 1.0 + weight * (value - 1.0)
                found[track.name] = below
        self._add_events(found, seconds, view)
        inside = {}
        for name, value in found.items():
            control = CATALOG[name]
            if value != control.neutral:
                inside[name] = min(max(value, control.low), control.high)
        return inside

    def _add_events(self, found: dict[str, float], seconds: float, view: View) -> None:
        def add(name: str, value: float) -> None:
            found[name] = found.get(name, 0.0) + value

        for event in self._closings:
            openings, sides = {
                "blink": (BLINK, ("right", "left")), "wink.right": (WINK, ("right",)), "wink.left": (WINK, ("left",))
            }[event.kind]  # fmt: skip
            closing = 1.0 - opening_at(openings, (seconds - event.at) * FPS)
            for side in sides if closing > 0.0 else ():
                add(f"lids.{side}", closing)
        if not self._looks or seconds < self._looks[0].at:
            return
        eyes, head = self._gaze(seconds, view)
        held = found.get("gaze.contact", 0.0)  # share of the head's turn that the eyes make up for
        for name, turned, towards in (("gaze.right", head[0], eyes[0]), ("gaze.down", head[1], eyes[1])):
            limit = CATALOG[name]
            add(
                name,
                min(max(towards - (1.0 - held) * turned, max(-EYE_DEGREES, limit.low)), min(EYE_DEGREES, limit.high)),
            )
        add("head.yaw", -head[0])  # positive yaw turns the nose to the left of the picture
        add("head.pitch", head[1])

    def _gaze(self, seconds: float, view: View) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where the looks turn eyes and head: (right, down) in degrees against the camera.

        Each aim adds its difference from the aim before, with a curve of its own, so that a new look may come during a turn.
        """
        eyes, head, before = [0.0, 0.0], [0.0, 0.0], ((0.0, 0.0), (0.0, 0.0))
        for time, point in self._aims:
            if seconds <= time:
                break
            aim = (0.0, 0.0) if point is None else view.degrees(point)
            turn = (head_share(aim[0], view.nose[0]), head_share(aim[1], view.nose[1]))
            led, followed = (
                smooth((seconds - time) / EYES_SECONDS),
                smooth((seconds - time - HEAD_LAG_SECONDS) / HEAD_SECONDS),
            )
            for axis in (0, 1):
                eyes[axis] += led * (aim[axis] - before[0][axis])
                head[axis] += followed * (turn[axis] - before[1][axis])
            before = aim, turn
        return (eyes[0], eyes[1]), (head[0], head[1])

    @cached_property
    def _closings(self) -> list[Event]:
        return [event for event in self.events if event.kind != "look"]

    @cached_property
    def _looks(self) -> list[Event]:
        return sorted((event for event in self.events if event.kind == "look"), key=lambda event: event.at)

    @cached_property
    def _aims(self) -> list[tuple[float, tuple[float, float] | None]]:
        """From when on the eyes aim where; None: at what they aim at without looks."""
        aims: list[tuple[float, tuple[float, float] | None]] = []
        for n, look in enumerate(self._looks):
            aims.append((look.at, look.point))
            following = self._looks[n + 1].at if n + 1 < len(self._looks) else math.inf
            if look.until is not None and look.until < following:
                aims.append((look.until, None))
        return aims


Edit = Controls | Timeline | Callable[[int], Controls]


def moment_of(edit: Edit | None, frame: int, view: View = MIDDLE) -> Moment:
    """The edits of a frame by number: those of controls, a timeline, or a function of the frame's number."""
    if edit is None:
        return UNCHANGED
    if isinstance(edit, Timeline):
        return edit.at(frame / FPS, view)
    return Moment(edit(frame) if callable(edit) else edit)


def head_share(degrees: float, nose: float) -> float:
    """How far the head turns towards a direction; one that is turned there already turns less."""
    room = max(HEAD_DEGREES - max(math.copysign(nose, nose * degrees), 0.0), 0.0)
    return math.copysign(min(HEAD_SHARE * abs(degrees), room), degrees)


def opening_at(openings: Sequence[float], frame: float) -> float:
    """How open an eye is that many frames after the first of `openings`; 1 before and after them."""
    if not 0.0 <= frame < len(openings):
        return 1.0
    n, share = int(frame), frame - int(frame)
    after = openings[n + 1] if n + 1 < len(openings) else 1.0
    return openings[n] + share * (after - openings[n])


def fades(fade: float | tuple[float, float] | None, start: float | None, end: float | None) -> tuple[float, float]:
    """The fades (in, out) of a layer in seconds; where the range has no limit there is none. None: as `Timeline.layer` says.

    Raises:
        TypeError: other than a number or two.
        ValueError: a number that is not finite, or out of range.
    """
    if fade is None:
        most = FADE_SECONDS if start is None or end is None else min(FADE_SECONDS, max(0.0, end - start) / 2)
        fade = (most, most)
    pair = (fade, fade) if isinstance(fade, Real) else fade
    if isinstance(pair, (str, bytes)) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise TypeError(f"expected a fade in seconds, or two (in, out), got {fade!r}; write it so")
    begin, finish = (within("a fade", value, 0.0, MOST_SECONDS) for value in pair)
    return (begin if start is not None else 0.0, finish if end is not None else 0.0)


def _outside(limit: str, time: float) -> str:
    return f"expected a time within the recording, which {limit}, got {time:g} s; move it or take it out"


def within(name: str, value: object, low: float, high: float) -> float:
    """As `ditto.controls.catalog.check_range`, for whole numbers of any size too."""
    return check_range(name, as_float(name, value), low, high)


def as_float(name: str, value: object) -> float:
    """A number as a float; raises TypeError for another value."""
    if isinstance(value, bool) or not isinstance(value, (Real, np.floating, np.integer)):
        raise TypeError(f"expected {name} to be a number, got {value!r}; give a number")
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf
