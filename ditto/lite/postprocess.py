"""Postprocessing of sampled motion: lip closure, blink shaping, opening normalisation.

Arrays are motion (n, 70), expression in the head frame, physical units, unless said otherwise. No function depends on
where a stream is cut: what it must remember is an argument and a result.

The rules of lips and lids were tuned by eye on rendered portraits, then held to `benchmarks.lips` (docs/streaming.md: 92 to
95 % of p, b, m frames closed, every pause over 0.4 s). A comment says where a number has another origin. Numbers that were
measured on one motion network are in its bundle: `PostprocessConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.lite.latency import LOOKAHEAD, LOOKBACK
from ditto.lite.phones import BILABIALS, LABIODENTALS, SILENCE
from ditto.motion.eyes import hold_gaze
from ditto.motion.motion import (
    DEGREES,
    EXPRESSION,
    INNER_LIPS,
    IRISES,
    KEYPOINTS,
    MOUTH_CORNERS,
    PRESS_GAP,
    SLOW_KEYPOINTS,
    TEMPLATE_APERTURE,
    Keypoint,
    rotation_matrix,
)
from ditto.values import is_number

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

# Ramps on phone probabilities, of a frame's two the larger. One threshold at .6 is on the edge: the weakest /m/ that a
# prototype recognised had .61 at its peak (../shared/renderer/end_to_end.md). The ends were chosen by eye.
PRESS_RAMP = (0.15, 0.40)
# The same beside a frame that is pressed: closures seldom last one frame. Wider ramps close .01 more of the p, b, m frames and
# cost .02 of the correlation with real lips in natural talk (the nine cuts, before rendering).
PRESS_BESIDE_RAMP = (0.07, 0.17)
TUCK_RAMP = (0.30, 0.65)  # of f and v
TUCK_GAP = 0.024  # fu between the lips, filled by the upper teeth that touch the lower one; by eye
# fu a frame on the way to a closure and back. The fastest 0.5 % of the nine natural cuts close at .046 and open at .052;
# faster lips jerk (`benchmarks.life`: largest acceleration).
CLOSING_SPEED, OPENING_SPEED = 0.048, 0.052
# fu a frame: how fast lips close on a sound without look-ahead. By eye: two frames from an open vowel. It makes the
# fastest closing at `low` .06 fu a frame, against .05 at `quality` (docs/streaming.md).
UNFORESEEN_CLOSING_SPEED = 0.065
TUCK_LIFT = 0.016  # fu the upper lip rises off the teeth; by eye
TUCK_DEPTH = 0.018  # fu the lower lip goes back under the teeth; by eye
# A frame: how fast the running 95th percentile follows up, and down (fu). A quiet speaker's lips reach their size within 20 s.
# Five times as fast, single words change the gain, which costs .012 of the correlation with real lips on the nine cuts.
GAP_RISE, GAP_FALL = 0.004, 0.00008
GAP_GAIN = (0.9, 1.4)  # least and largest gain of the opening; by eye
SLOW_CHANNELS = [*range(EXPRESSION.start), *(EXPRESSION.start + 3 * k + axis for k in SLOW_KEYPOINTS for axis in range(3))]
UPPER, LOWER = INNER_LIPS
PARTED = np.array([LOWER, UPPER, Keypoint.UPPER_OUTER_LIP, Keypoint.CHIN, *MOUTH_CORNERS])  # that move as lips part
WIDEST_EYES = 0.02  # fu the upper lids rise beyond rest at most; by eye
# Silent frames. In real talk lips stay parted in pauses, and anticipate the next sound; in pauses over a second they sink
# slowly, and they close when the speaker is done (../shared/voice/natural_talk.md, finding 1). A live session takes a second
# of silence for the end of an utterance. So lips begin to close after REST_AFTER frames, and are closed in frame REST_FRAMES.
REST_AFTER, REST_FRAMES = 14, 24
END_AFTER, END_FRAMES = 0, 4  # the same where the recording is known to have no more speech; GRID speakers take three to six
REST_RISE, REST_FALL = 1 / 3, 1 / 3  # a frame: how fast lips come to rest, and leave it, at most; by eye
# A frame: how fast they leave it where the next sound is known. Lips part .4 s before a phrase; with 1/3 the
# correlation with real lips is .007 lower on five GRID speakers and .012 on speaker 1.
ANTICIPATION = 1 / 10
# How much of a change of the opening the chin follows: about half in real talk (.43, ../shared/renderer/spec.md, section
# 5); by eye less where lips are pressed, more where the mouth comes to rest.
PRESS_CHIN, OPEN_CHIN, REST_CHIN = 0.3, 0.5, 0.6
# How the opening is shared out: the lower lip takes most, as in real talk (.88, upper lip .09, the same measurement).
LOWER_SHARE, UPPER_SHARE, UPPER_OUTER_SHARE, CORNER_SHARE = 0.85, 0.15, 0.06, 0.15


# Of `PostprocessConfig`: lips part less than a face is wide, a window has 80 frames. A damaged number must not fill memory.
MOST = {"usual_gap": 1.0, "target_gap": 1.0, "slow_smoothing_frames": 80.0}


@dataclass(frozen=True)
class PostprocessConfig:
    """Numbers that were measured on one motion network; in its bundle, part `postprocess`.

    Attributes:
        usual_gap: fu, the 95th percentile of the opening of the lips that the network gives for most speakers.
        target_gap: fu, what that percentile is brought to for every speaker.
        slow_smoothing_frames: sigma of the smoothing of the slow channels, which takes off the noise that is left in them
            after the network's diffusion steps.
    """

    usual_gap: float
    target_gap: float
    slow_smoothing_frames: float

    def __post_init__(self) -> None:
        for name in MOST:
            value = getattr(self, name)
            if not is_number(value) or not 0.0 < value <= MOST[name]:
                raise ValueError(f"expected {name} to be a number above 0, up to {MOST[name]:g}, got {value!r}")


def smooth(values: npt.ArrayLike, sigma: float) -> Floats:
    """(T, k) smoothed along time by a Gaussian of `sigma` frames, ends repeated."""
    x = np.asarray(values, np.float64)
    kernel = _gaussian(sigma)
    reach = len(kernel) // 2
    padded = np.concatenate([np.repeat(x[:1], reach, 0), x, np.repeat(x[-1:], reach, 0)])
    return np.asarray(sum(w * padded[i : i + len(x)] for i, w in enumerate(kernel)))


@lru_cache(maxsize=8)
def _gaussian(sigma: float) -> Floats:
    """(2 n + 1,) weights that sum to one."""
    reach = int(np.ceil(3.0 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(kernel / kernel.sum())


def openings_of(motion: npt.ArrayLike) -> Floats:
    """(n,) opening of the lips in rows of motion (n, 70), fu; not below zero."""
    points = np.asarray(motion)[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)
    openings: Floats = np.maximum(points[:, LOWER, 1] - points[:, UPPER, 1], 0.0).astype(np.float64)
    return openings


def normalise_opening(
    motion: npt.ArrayLike, silent: npt.ArrayLike, widest: float, target_gap: float
) -> tuple[Array, float]:
    """Bring every speaker's opening of the lips to the same size. Without it quiet speakers mumble.

    Args:
        motion: (n, 70).
        silent: (n,) probability of silence.
        widest: running 95th percentile of the opening so far, fu.
        target_gap: fu, what that percentile is brought to.

    Returns:
        (n, 70) float32 and the running percentile after the last frame.
    """
    out = np.array(motion, np.float32)
    points = out[:, EXPRESSION].reshape(len(out), KEYPOINTS, 3)
    gap = openings_of(out)
    gain = np.ones(len(out))
    least, largest = GAP_GAIN
    for i, (opening, silence) in enumerate(zip(gap.tolist(), np.asarray(silent).tolist(), strict=True)):
        if silence < 0.5:
            widest += GAP_RISE * (opening - widest) if opening > widest else -GAP_FALL * (1.0 - opening / widest)
        gain[i] = min(max(target_gap / max(widest, 1e-3), least), largest)
    _part(points, (gain - 1.0) * gap, OPEN_CHIN)
    return out, float(widest)


class Rest(NamedTuple):
    """Of the last frame: `silent` frames in a row up to it, and how far the lips had come to rest, `share` in [0, 1]."""

    silent: int
    share: float


AT_REST = Rest(REST_FRAMES, 1.0)  # before the first frame


class Closing(NamedTuple):
    """How lips close in n frames.

    Attributes:
        press, tuck: (m,) of p, b, m, and of f, v, from `LOOKBACK` frames before the first on.
        rest: (n,) how far the lips have come to rest.
    """

    press: Floats
    tuck: Floats
    rest: Floats

    def apply(self, motion: npt.ArrayLike) -> Array:
        """(n, 70) motion with the lips closed so, float32."""
        out = np.array(motion, np.float32)
        n = len(out)
        points = out[:, EXPRESSION].reshape(n, KEYPOINTS, 3)
        _close(points, self.rest, 0.0, REST_CHIN)
        pressed = self.press[LOOKBACK : LOOKBACK + n]
        for distance in (2, 1):  # on the way to a closure, and back from it
            for closed, gap in ((self.tuck, TUCK_GAP), (self.press, PRESS_GAP)):
                _close(points, closed[LOOKBACK + distance :][:n], gap + distance * CLOSING_SPEED, PRESS_CHIN)
                _close(points, closed[LOOKBACK - distance :][:n], gap + distance * OPENING_SPEED, PRESS_CHIN)
        _tuck(points, self.tuck[LOOKBACK : LOOKBACK + n] * (1.0 - pressed) * (1.0 - self.rest))
        _close(points, pressed, PRESS_GAP, PRESS_CHIN)
        return out


def close_lips(
    motion: npt.ArrayLike, phones: npt.ArrayLike, rest: Rest, lookahead: int = LOOKAHEAD, complete: bool = False
) -> tuple[Array, Rest]:
    """Close the lips on p, b, m, touch the teeth on f, v, and rest when the speaker is done.

    Args:
        motion: (n, 70).
        phones, rest, lookahead, complete: as of `closing_of`.

    Returns:
        (n, 70) float32 and the rest of the last frame.
    """
    closing, rest = closing_of(len(np.asarray(motion)), phones, rest, lookahead, complete)
    return closing.apply(motion), rest


def closing_of(
    n: int, phones: npt.ArrayLike, rest: Rest, lookahead: int = LOOKAHEAD, complete: bool = False
) -> tuple[Closing, Rest]:
    """How lips close in n frames, and the rest of the last one.

    Args:
        phones: (m, 2, 40) phone probabilities of the `LOOKBACK` frames before, of these frames and of the `lookahead`
            after them; missing rows count as silence.
        rest: of the frame before the first.
        lookahead: frames known beyond each one, at most `LOOKAHEAD`.
        complete: `phones` end where the recording ends.
    """
    p = np.asarray(phones, np.float64)
    missing = np.zeros((max(0, LOOKBACK + n + LOOKAHEAD - len(p)), *p.shape[1:]))
    missing[:, :, SILENCE] = 1.0
    p = np.concatenate([p, missing])
    quiet = p[LOOKBACK:, :, SILENCE].mean(1) > 0.5
    bilabial = p[:, :, BILABIALS].sum(2).max(1)
    sure = np.zeros(len(p) + 2)
    sure[1:-1] = _ramp(bilabial, PRESS_RAMP)
    beside = np.maximum(sure[:-2], sure[2:]) * _ramp(bilabial, PRESS_BESIDE_RAMP)
    press = np.maximum(sure[1:-1], beside)
    tuck = _ramp(p[:, :, LABIODENTALS].sum(2).max(1), TUCK_RAMP)
    shares = np.zeros(n)
    for i in range(n):
        rest = _next_rest(rest, quiet[i:], lookahead, complete)
        shares[i] = rest.share
    return Closing(press, tuck, shares), rest


def _next_rest(rest: Rest, quiet: npt.NDArray[np.bool_], lookahead: int, complete: bool) -> Rest:
    """The rest of the next frame; `quiet` (1 + m,) says which frames from it on are silent, as far as they are known."""
    silent = rest.silent + 1 if quiet[0] else 0
    ahead = quiet[1 : 1 + lookahead]
    left = len(ahead) if ahead.all() else int(np.argmin(ahead))
    share = 0.0
    if silent and complete and quiet.all():
        share = _ease((silent - END_AFTER) / (END_FRAMES - END_AFTER))
    elif silent + left >= min(REST_FRAMES, REST_AFTER + lookahead):
        share = _ease((silent - REST_AFTER) / (REST_FRAMES - REST_AFTER))
        if left < len(ahead):
            share = min(share, ANTICIPATION * (left + 1))
    return Rest(silent, min(max(share, rest.share - REST_FALL), rest.share + REST_RISE))


def _ease(share: float) -> float:
    x = min(max(share, 0.0), 1.0)
    return x * x * (3.0 - 2.0 * x)


def limit_closing_speed(motion: npt.ArrayLike, gap: float) -> tuple[Array, float]:
    """(n, 70) motion whose lips close no faster than `UNFORESEEN_CLOSING_SPEED`, and the gap of its last frame.

    With look-ahead, lips are already closing when p, b or m comes. Without it they would shut from one frame to the next.

    Args:
        motion: (n, 70).
        gap: between the lips in the frame before, fu.
    """
    out = np.array(motion, np.float32)
    points = out[:, EXPRESSION].reshape(len(out), KEYPOINTS, 3)
    for face in points:
        least = gap - UNFORESEEN_CLOSING_SPEED
        now = float(face[LOWER, 1] - face[UPPER, 1])
        _part(face[None], np.array([max(least - now, 0.0)]), PRESS_CHIN)
        gap = float(face[LOWER, 1] - face[UPPER, 1])
    return out, gap


def _ramp(x: Floats, ends: tuple[float, float]) -> Floats:
    return np.asarray(np.clip((x - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0))


def shape_blinks(motion: npt.ArrayLike, eyes: npt.ArrayLike) -> Array:
    """(n, 70) motion whose lids are shut at least as far as the eye states (n, 8) plan, so that every blink closes."""
    out = np.array(motion, np.float32)
    points = out[:, EXPRESSION].reshape(len(out), KEYPOINTS, 3)
    for lid, side in ((Keypoint.LEFT_UPPER_LID, 0), (Keypoint.RIGHT_UPPER_LID, 1)):
        open_share = np.asarray(eyes, np.float32)[:, side]
        least = TEMPLATE_APERTURE * (1.0 - open_share) - WIDEST_EYES * open_share
        points[:, lid, 1] = np.maximum(points[:, lid, 1], least)
    return out


def _tuck(points: Array, weight: Floats) -> None:
    """Bring the lower lip of (n, 21, 3) under the upper teeth, which show, by `weight` (n,), in place: f and v."""
    if not weight.any():
        return
    now = points[:, LOWER, 1] - points[:, UPPER, 1]
    _part(points, weight * (TUCK_GAP - now), PRESS_CHIN)
    lift = weight * np.maximum(points[:, UPPER, 1] + TUCK_LIFT, 0.0)
    points[:, INNER_LIPS, 1] -= lift[:, None]
    points[:, Keypoint.UPPER_OUTER_LIP, 1] -= 0.6 * lift
    points[:, LOWER, 2] += weight * np.maximum(TUCK_DEPTH - points[:, LOWER, 2], 0.0)


def _close(points: Array, weight: Floats, gap: float, chin: float) -> None:
    """Bring the inner lips of (n, 21, 3) to at most `gap` in place, by `weight`; the chin follows by a share."""
    if not weight.any():  # as in most frames
        return
    now = points[:, LOWER, 1] - points[:, UPPER, 1]
    _part(points, weight * (np.minimum(now, gap) - now), chin)


def _part(points: Array, change: Floats, chin: float) -> None:
    """Open the lips of (n, 21, 3) by `change` (n,) in place: mostly the lower one; the chin follows by a share."""
    shares = np.array([LOWER_SHARE, -UPPER_SHARE, -UPPER_OUTER_SHARE, chin, CORNER_SHARE, CORNER_SHARE])
    points[:, PARTED, 1] += change[:, None] * shares


def to_camera_frame(motion: Array) -> Array:
    """(n, 70) motion with the gaze held on the camera and the expression in the camera frame instead of the head's."""
    out = np.array(motion, np.float64)
    points = out[:, EXPRESSION].reshape(len(out), KEYPOINTS, 3)
    shift = hold_gaze(out[:, DEGREES])
    for iris in IRISES:
        points[:, iris, :2] += shift
    turned = points @ rotation_matrix(*out[:, DEGREES].T)
    out[:, EXPRESSION] = turned.reshape(len(out), -1)
    return out.astype(np.float32)
