"""Joins windows of motion as the released pipeline does: for a whole recording, or for a stream as features arrive.

Every window is sampled from the motion before it (`known`) and 80 conditions. Windows overlap; a linear crossfade leads
from one to the next.

T: frames.

Source: the released Ditto at e9191cf (tests/fixtures/reference, wiring_schedule).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.full.motion_math import smooth_rows
from ditto.full.sizes import WINDOW
from ditto.motion.motion import LAYOUT_265, PACKED_SIZE
from ditto.values import is_whole

Array = npt.NDArray[np.float32]
Sample = Callable[[Array, Array], Array]  # known (265,), conditions (80, D) -> motion (80, 265)


class WindowRules(NamedTuple):
    """How windows are joined.

    Attributes:
        overlap: frames that a window shares with the one before, 0 to 79: 10 for recordings, 70 or 75 for streams.
        smoothing: frames that scale, pose and translation are averaged over, 0 to 80; 0 and 1: no averaging; an even number
            acts as the odd one above it.
        reset_every: number of windows after which the known motion is reset to the source's; 0: never.
        reset_keeps: columns of the motion that are not reset.
    """

    overlap: int = 10
    smoothing: int = 3
    reset_every: int = 0
    reset_keeps: slice | None = None

    @property
    def hop(self) -> int:
        """Frames that a window adds."""
        return WINDOW - self.overlap

    @property
    def stream_blend(self) -> int:
        """Frames of the crossfade between windows of a stream. In a recording it spans the whole overlap."""
        return min(self.overlap, self.hop)

    def check(self) -> None:
        """Raise ValueError for a field out of its range."""
        for name, largest in (("overlap", WINDOW - 1), ("smoothing", WINDOW), ("reset_every", None)):
            value = getattr(self, name)
            if not is_whole(value) or (largest is not None and value > largest):
                allowed = "0 or more" if largest is None else f"0 to {largest}"
                raise ValueError(f"expected {name} to be a whole number, {allowed}, got {value!r}; give another")
        kept = self.reset_keeps
        if kept is not None and not (0 <= kept.start <= kept.stop <= PACKED_SIZE and kept.step is None):
            raise ValueError(f"expected reset_keeps to be a slice of 0 to {PACKED_SIZE}, got {kept}; give another")


class Joined(NamedTuple):
    """The windows joined so far.

    Attributes:
        motion: (T, 265) the last frames.
        known: (265,) the motion before the next window.
        windows: number of windows.
    """

    motion: Array
    known: Array
    windows: int


def start(source: npt.ArrayLike) -> Joined:
    """The state before the first window; the motion of the source (265,) is known."""
    return Joined(np.zeros((0, PACKED_SIZE), np.float32), np.asarray(source, np.float32), 0)


def crossfade(motion: Array, window: Array, overlap: int, blended: int) -> Array:
    """Joined motion and the next window (80, 265), which overlaps it by `overlap` frames.

    The last `blended` frames of the overlap are crossfaded; the frames after the overlap are appended.
    """
    ramp = np.arange(blended, dtype=np.float32)[:, None] / np.float32(max(blended, 1))
    kept = len(motion) - blended
    blend = motion[kept:] * (1 - ramp) + window[overlap - blended : overlap] * ramp
    return np.concatenate([motion[:kept], blend, window[overlap:]])


def smooth_pose(motion: Array, first: int, stop: int, width: int) -> Array:
    """Motion (T, 265) with scale, pose and translation of frames [first, stop) averaged over `width` neighbours."""
    if width <= 1:
        return motion
    half = width // 2
    low = max(0, first - half)
    smooth = motion.copy()
    rows = smooth_rows(motion[low : stop + half, : LAYOUT_265["exp"].start], width)
    smooth[first:stop, : LAYOUT_265["exp"].start] = rows[first - low : stop - low]
    return smooth


def join(joined: Joined, conditions: Array, sample: Sample, source: Array, rules: WindowRules, blended: int) -> Joined:
    """One more window: conditions (80, D). The crossfade has `blended` frames."""
    window = np.asarray(sample(joined.known, conditions), np.float32)
    if joined.windows == 0:
        motion = smooth_pose(window, 0, WINDOW, rules.smoothing)
    else:
        motion = crossfade(joined.motion, window, rules.overlap, blended)
        new = len(motion) - rules.hop
        motion = smooth_pose(motion, new - blended, new + 1, rules.smoothing)
    known = motion[len(motion) - rules.overlap - 1]
    windows = joined.windows + 1
    if rules.reset_every and windows % rules.reset_every == 0:
        reset = source.copy()
        if rules.reset_keeps is not None:
            reset[rules.reset_keeps] = known[rules.reset_keeps]
        known = reset
    return Joined(motion, known, windows)


def padded(conditions: Array) -> Array:
    """Conditions (T, D) padded to a window with the last one."""
    missing = WINDOW - len(conditions)
    return np.concatenate([conditions, np.repeat(conditions[-1:], missing, 0)]) if missing > 0 else conditions


def recording_motion(sample: Sample, conditions: Array, source: npt.ArrayLike, rules: WindowRules) -> Array:
    """Motion (T, 265) of a whole recording: conditions (T, D)."""
    state = start_recording(source, conditions.shape[1], rules)
    return advance_recording(state, conditions, sample, source, rules, final=True)[0]


class RecordingWindows(NamedTuple):
    """The state of a recording that arrives in pieces.

    Attributes:
        joined: the end of the joined motion, before the last smoothing.
        waiting: (T, D) conditions from the start of the next window on.
        received: frames of conditions so far.
        given: frames of motion so far.
    """

    joined: Joined
    waiting: Array
    received: int
    given: int


def start_recording(source: npt.ArrayLike, size: int, rules: WindowRules) -> RecordingWindows:
    """The state before a recording whose conditions have `size` numbers."""
    rules.check()
    return RecordingWindows(start(source), np.zeros((0, size), np.float32), 0, 0)


def advance_recording(
    state: RecordingWindows,
    conditions: Array,
    sample: Sample,
    source: npt.ArrayLike,
    rules: WindowRules,
    final: bool = False,
) -> tuple[Array, RecordingWindows]:
    """Motion (n, 265) that more conditions (T, D) complete, and the next state.

    All pieces together equal `recording_motion` of all conditions.
    """
    known = np.asarray(source, np.float32)
    joined, waiting = state.joined, np.concatenate([state.waiting, conditions])
    received, given = state.received + len(conditions), state.given
    out = [np.zeros((0, PACKED_SIZE), np.float32)]
    while len(waiting) >= WINDOW or (final and len(waiting)):
        joined = join(joined, padded(waiting[:WINDOW]), sample, known, rules, rules.overlap)
        waiting = waiting[rules.hop :]
        end = WINDOW + (joined.windows - 1) * rules.hop  # frames joined so far
        first = end - len(joined.motion)
        last = final and not len(waiting)
        motion = joined.motion[: received - first] if last else joined.motion
        # The frames that the next window and the last smoothing cannot change.
        stop = received if last else max(given, end - rules.overlap - rules.smoothing // 2)
        smooth = smooth_pose(motion, given - first, stop - first, rules.smoothing)
        out.append(smooth[given - first : stop - first])
        given = stop
        joined = joined._replace(motion=joined.motion[-2 * WINDOW :])
    return np.concatenate(out), RecordingWindows(joined, waiting, received, given)


class StreamWindows(NamedTuple):
    """The state of a stream of windows.

    Attributes:
        joined: the end of the joined motion.
        waiting: (T, D) conditions of the next window so far.
        origin: (80, 265) the first window, mostly of the silence before the stream; motion is relative to it.
    """

    joined: Joined
    waiting: Array
    origin: Array


def start_stream(source: npt.ArrayLike, silence: Array, rules: WindowRules) -> StreamWindows:
    """The state before a stream; conditions (overlap, D) of silence precede it.

    Raises:
        ValueError: an overlap below half a window, which would leave gaps, or silence of another length.
    """
    rules.check()
    if rules.overlap < WINDOW // 2 or len(silence) != rules.overlap:
        raise ValueError(
            f"expected an overlap of {WINDOW // 2} frames or more and as many frames of silence, got {rules.overlap} and "
            f"{len(silence)}; give a larger overlap"
        )
    return StreamWindows(start(source), np.asarray(silence, np.float32), np.zeros((0, PACKED_SIZE), np.float32))


def advance_stream(
    state: StreamWindows,
    conditions: Array,
    sample: Sample,
    source: npt.ArrayLike,
    rules: WindowRules,
    final: bool = False,
) -> tuple[Array, StreamWindows]:
    """Motion (n, 265) that more conditions (T, D) complete, and the next state.

    A frame is complete once the window after its own is sampled. `final` pads the last windows with the last condition and
    gives all remaining frames: up to two hops more than conditions. (The released code gives no frames for less than a
    hop.)
    """
    known = np.asarray(source, np.float32)
    joined, origin = state.joined, state.origin
    waiting = np.concatenate([state.waiting, conditions])
    out = [np.zeros((0, PACKED_SIZE), np.float32)]
    has_speech, blended = joined.windows > 0 or len(waiting) > rules.overlap, rules.stream_blend

    def next_window() -> None:
        nonlocal joined, origin, waiting
        joined = join(joined, padded(waiting[:WINDOW]), sample, known, rules, blended)
        waiting = waiting[rules.hop :]
        if joined.windows == 1:
            origin = joined.motion
        else:
            end = len(joined.motion) - blended
            out.append(joined.motion[end - rules.hop : end])
        joined = joined._replace(motion=joined.motion[-2 * WINDOW :])

    while len(waiting) >= WINDOW:
        next_window()
    if final and has_speech:
        if joined.windows == 0:
            waiting = padded(waiting)
            next_window()
        next_window()
        out.append(joined.motion[-blended:])
    return np.concatenate(out), StreamWindows(joined, waiting, origin)
