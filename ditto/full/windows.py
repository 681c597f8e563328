"""Windows of motion joined as the released pipeline joins them, of a whole recording or as features come in.

Every window is sampled from the motion before it (`known`) and 80 conditions; neighbours overlap, and the newer takes
over along a linear ramp.

T: frames.

Source: the released Ditto at e9191cf (tests/fixtures/reference, wiring_schedule).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.full.motion_math import smooth_rows
from ditto.motion.motion import LAYOUT_265, PACKED_SIZE

Array = npt.NDArray[np.float32]
Sample = Callable[[Array, Array], Array]  # known (265,), conditions (80, D) -> motion (80, 265)

WINDOW = 80


class WindowRules(NamedTuple):
    """How windows follow each other.

    Attributes:
        overlap: frames that a window shares with the one before, 0 to 79: 10 for recordings, 70 or 75 for streams.
        smoothing: frames that scale, pose and translation are averaged over, 0 to 80; 0 and 1 leave them, an even number
            is as the odd one above it.
        reset_every: every so many windows, what is known before a window is the source again; 0: never.
        reset_keeps: columns of the motion that are not reset.
    """

    overlap: int = 10
    smoothing: int = 3
    reset_every: int = 0
    reset_keeps: slice | None = None

    @property
    def hop(self) -> int:
        """Frames a window adds."""
        return WINDOW - self.overlap

    @property
    def streamed_fuse(self) -> int:
        """Frames over which a window of a stream takes over. In a recording it takes over all that overlaps."""
        return min(self.overlap, self.hop)

    def check(self) -> None:
        """Raise ValueError for rules that cannot be followed."""
        for name, largest in (("overlap", WINDOW - 1), ("smoothing", WINDOW), ("reset_every", None)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0 or (largest is not None and value > largest):
                allowed = "0 or more" if largest is None else f"0 to {largest}"
                raise ValueError(f"expected {name} to be a whole number, {allowed}, got {value!r}; give another")
        kept = self.reset_keeps
        if kept is not None and not (0 <= kept.start <= kept.stop <= PACKED_SIZE and kept.step is None):
            raise ValueError(f"expected reset_keeps to be a slice of 0 to {PACKED_SIZE}, got {kept}; give another")


class Joined(NamedTuple):
    """Motion joined so far.

    Attributes:
        motion: (T, 265) the last frames.
        known: (265,) the motion before the next window.
        windows: sampled so far.
    """

    motion: Array
    known: Array
    windows: int


def start(source: npt.ArrayLike) -> Joined:
    """Before the first window: the motion of the source (265,) is known."""
    return Joined(np.zeros((0, PACKED_SIZE), np.float32), np.asarray(source, np.float32), 0)


def fuse(motion: Array, window: Array, overlap: int, fused: int) -> Array:
    """Joined motion and the next window (80, 265), which overlaps it by `overlap` frames: longer by the rest of them.

    The last `fused` frames of the motion so far turn into the last overlapping ones of the window.
    """
    ramp = np.arange(fused, dtype=np.float32)[:, None] / np.float32(max(fused, 1))
    kept = len(motion) - fused
    blend = motion[kept:] * (1 - ramp) + window[overlap - fused : overlap] * ramp
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


def join(joined: Joined, conditions: Array, sample: Sample, source: Array, rules: WindowRules, fused: int) -> Joined:
    """One more window: conditions (80, D). It takes over along `fused` frames."""
    window = np.asarray(sample(joined.known, conditions), np.float32)
    if joined.windows == 0:
        motion = smooth_pose(window, 0, WINDOW, rules.smoothing)
    else:
        motion = fuse(joined.motion, window, rules.overlap, fused)
        new = len(motion) - rules.hop
        motion = smooth_pose(motion, new - fused, new + 1, rules.smoothing)
    known = motion[len(motion) - rules.overlap - 1]
    windows = joined.windows + 1
    if rules.reset_every and windows % rules.reset_every == 0:
        reset = source.copy()
        if rules.reset_keeps is not None:
            reset[rules.reset_keeps] = known[rules.reset_keeps]
        known = reset
    return Joined(motion, known, windows)


def filled(conditions: Array, frames: int = WINDOW) -> Array:
    """Conditions (T, D) filled up to `frames` with the last one."""
    missing = frames - len(conditions)
    return np.concatenate([conditions, np.repeat(conditions[-1:], missing, 0)]) if missing > 0 else conditions


def recording_motion(sample: Sample, conditions: Array, source: npt.ArrayLike, rules: WindowRules) -> Array:
    """Motion (T, 265) of a whole recording: conditions (T, D)."""
    state = start_recording(source, conditions.shape[1], rules)
    return advance_recording(state, conditions, sample, source, rules, final=True)[0]


class Recording(NamedTuple):
    """What a recording remembers that comes in piece by piece.

    Attributes:
        joined: the end of the joined motion, before the last smoothing.
        waiting: (T, D) conditions from the beginning of the next window on.
        received: frames of conditions that came.
        given: frames of motion given out.
    """

    joined: Joined
    waiting: Array
    received: int
    given: int


def start_recording(source: npt.ArrayLike, size: int, rules: WindowRules) -> Recording:
    """Before a recording whose conditions have `size` numbers."""
    rules.check()
    return Recording(start(source), np.zeros((0, size), np.float32), 0, 0)


def advance_recording(
    state: Recording, conditions: Array, sample: Sample, source: npt.ArrayLike, rules: WindowRules, final: bool = False
) -> tuple[Array, Recording]:
    """Motion (n, 265) that became known with more conditions (T, D), and the next state.

    All of it is what `recording_motion` gives for all conditions at once.
    """
    known = np.asarray(source, np.float32)
    joined, waiting = state.joined, np.concatenate([state.waiting, conditions])
    received, given = state.received + len(conditions), state.given
    out = [np.zeros((0, PACKED_SIZE), np.float32)]
    while len(waiting) >= WINDOW or (final and len(waiting)):
        joined = join(joined, filled(waiting[:WINDOW]), sample, known, rules, rules.overlap)
        waiting = waiting[rules.hop :]
        end = WINDOW + (joined.windows - 1) * rules.hop  # frames joined so far
        first = end - len(joined.motion)
        last = final and not len(waiting)
        motion = joined.motion[: received - first] if last else joined.motion
        # What the next window and the last smoothing leave alone.
        stop = received if last else max(given, end - rules.overlap - rules.smoothing // 2)
        smooth = smooth_pose(motion, given - first, stop - first, rules.smoothing)
        out.append(smooth[given - first : stop - first])
        given = stop
        joined = joined._replace(motion=joined.motion[-2 * WINDOW :])
    return np.concatenate(out), Recording(joined, waiting, received, given)


class Live(NamedTuple):
    """What a stream of windows remembers.

    Attributes:
        joined: the end of the joined motion.
        waiting: (T, D) conditions of the next window as far as known: its overlap, and what has come since.
        origin: (80, 265) the first window, which lies mostly in the silence before; what motion is relative to.
    """

    joined: Joined
    waiting: Array
    origin: Array


def start_live(source: npt.ArrayLike, silence: Array, rules: WindowRules) -> Live:
    """Before a stream: conditions (overlap, D) of silence precede it.

    Raises:
        ValueError: rules that leave gaps in a stream, or silence of another length.
    """
    rules.check()
    if rules.overlap < WINDOW // 2 or len(silence) != rules.overlap:
        raise ValueError(
            f"a stream has an overlap of {WINDOW // 2} frames or more and starts from as many frames of silence, "
            f"got {rules.overlap} and {len(silence)}"
        )
    return Live(start(source), np.asarray(silence, np.float32), np.zeros((0, PACKED_SIZE), np.float32))


def advance_live(
    live: Live, conditions: Array, sample: Sample, source: npt.ArrayLike, rules: WindowRules, final: bool = False
) -> tuple[Array, Live]:
    """Motion (n, 265) that became known with more conditions (T, D), and the next state.

    A frame is known once the window after its own is sampled. `final` fills the last windows up with the last condition
    and gives all there is: up to two hops more than conditions came in. (The released code gives nothing at all where
    fewer than a hop came in.)
    """
    known = np.asarray(source, np.float32)
    joined, origin = live.joined, live.origin
    waiting = np.concatenate([live.waiting, conditions])
    out = [np.zeros((0, PACKED_SIZE), np.float32)]
    heard, fused = joined.windows > 0 or len(waiting) > rules.overlap, rules.streamed_fuse

    def next_window() -> None:
        nonlocal joined, origin, waiting
        joined = join(joined, filled(waiting[:WINDOW]), sample, known, rules, fused)
        waiting = waiting[rules.hop :]
        if joined.windows == 1:
            origin = joined.motion
        else:
            end = len(joined.motion) - fused
            out.append(joined.motion[end - rules.hop : end])
        joined = joined._replace(motion=joined.motion[-2 * WINDOW :])

    while len(waiting) >= WINDOW:
        next_window()
    if final and heard:
        if joined.windows == 0:
            waiting = filled(waiting)
            next_window()
        next_window()
        out.append(joined.motion[-fused:])
    return np.concatenate(out), Live(joined, waiting, origin)
