"""What is made sure of in sampled motion: lips that close, lids that shut, an even opening, emotions that show.

Arrays are compact motion (n, 70), expression in the head frame, physical units, unless said otherwise. None of the
functions depends on where a stream is cut: what they must remember goes in and comes out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto.lite.latency import LOOK_AHEAD, LOOK_BACK
from ditto.lite.phones import BILABIALS, LABIODENTALS, SILENCE
from ditto.motion.emotion import EMOTION_BOOST, emotion_offset
from ditto.motion.eyes import hold_gaze
from ditto.motion.motion import (
    BROWS,
    EXPRESSION,
    INNER_LIPS,
    IRISES,
    KEYPOINTS,
    MOTION_SIZE,
    MOUTH_CORNERS,
    PRESS_GAP,
    TEMPLATE_APERTURE,
    UPPER_LIDS,
    Keypoint,
    rotation_matrix,
)

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

PRESS_RAMP = (0.15, 0.40)  # of the larger of a frame's two bilabial probabilities
PRESS_BESIDE_RAMP = (0.04, 0.12)  # the same beside a frame that is pressed: closures seldom last one frame
TUCK_RAMP = (0.30, 0.65)
TUCK_GAP = 0.024  # fu between the lips, filled by the upper teeth that touch the lower one
CLOSING_SPEED, OPENING_SPEED = 0.050, 0.055  # fu a frame; lips are no shutters
SURPRISE_SPEED = 0.065  # fu a frame: how fast they close on a sound that nobody heard coming
TUCK_LIFT = 0.016  # fu the upper lip rises off the teeth
TUCK_DEPTH = 0.018  # fu the lower lip goes back under the teeth
GAP_WANTED = 0.082  # fu, what the widest openings of a speaker (their 95th percentile while speaking) are brought to
GAP_USUAL = 0.078  # what the network gives for most
GAP_RISE, GAP_FALL = 0.08, 0.0008  # per frame: how fast the running percentile follows up, and down (fu)
GAP_GAIN = (0.9, 1.4)
# Head pose, forehead, brows, nose and glabella: what has mass or moves slowly. It is smoothed, since ten steps leave some
# noise in it, and each window takes over from the future frames of the one before gradually.
SLOW_KEYPOINTS = (Keypoint.FOREHEAD, *BROWS, Keypoint.NOSE_TIP, Keypoint.GLABELLA)
SLOW = [*range(EXPRESSION.start), *(EXPRESSION.start + 3 * k + axis for k in SLOW_KEYPOINTS for axis in range(3))]
UPPER, LOWER = INNER_LIPS
SLOW_SMOOTHING = 1.5  # frames
WIDEST_EYES = 0.02  # fu the upper lids rise beyond rest at most
PAUSE_FRAMES = 10  # 0.4 s
PAUSE_HEARD = 4  # silent frames that make a pause where nobody knows yet what follows
PAUSE_ENTRY, PAUSE_EXIT = 3, 3  # frames to close, and to open before speech


def smooth(values: npt.ArrayLike, sigma: float) -> Floats:
    """(T, k) smoothed along time by a Gaussian of `sigma` frames, ends repeated."""
    x = np.asarray(values, np.float64)
    reach = int(np.ceil(3.0 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(x, [(reach, reach), (0, 0)], mode="edge")
    return np.asarray(sum(w * padded[i : i + len(x)] for i, w in enumerate(kernel / kernel.sum())))


def widen(motion: npt.ArrayLike, silent: npt.ArrayLike, widest: float) -> tuple[Array, float]:
    """Bring every speaker's opening of the lips to the same size: quiet ones would mumble.

    Args:
        motion: (n, 70) compact motion, expression in the head frame, physical units.
        silent: (n,) probability of silence.
        widest: running 95th percentile of the opening so far, fu.

    Returns:
        (n, 70) float32 and the running percentile after the last frame.
    """
    out = np.array(motion, np.float32)
    points = out[:, 7:].reshape(len(out), KEYPOINTS, 3)
    gap = np.maximum(points[:, LOWER, 1] - points[:, UPPER, 1], 0.0).astype(np.float64)
    gain = np.ones(len(out))
    for i, opening in enumerate(gap):
        if np.asarray(silent)[i] < 0.5:
            widest += GAP_RISE * (opening - widest) if opening > widest else -GAP_FALL * (1.0 - opening / widest)
        gain[i] = np.clip(GAP_WANTED / max(widest, 1e-3), *GAP_GAIN)
    _part(points, (gain - 1.0) * gap, 0.5)
    return out, float(widest)


def guard_mouth(
    motion: npt.ArrayLike, phones: npt.ArrayLike, silent_run: int, look_ahead: int = LOOK_AHEAD
) -> tuple[Array, int]:
    """Make sure that lips close on p, b, m, touch on f, v and rest in pauses.

    Args:
        motion: (n, 70) compact motion, expression in the head frame, physical units.
        phones: (m, 2, 40) phone probabilities of the `LOOK_BACK` frames before, of these frames and of the `look_ahead`
            after them; what is missing counts as silence.
        silent_run: silent frames in a row before the first.
        look_ahead: frames seen beyond each one, at most `LOOK_AHEAD`; with few, a pause is believed later.

    Returns:
        (n, 70) float32 and the silent frames in a row after the last.
    """
    out = np.array(motion, np.float32)
    n = len(out)
    p = np.asarray(phones, np.float64)
    missing = np.zeros((max(0, LOOK_BACK + n + LOOK_AHEAD - len(p)), *p.shape[1:]))
    missing[:, :, SILENCE] = 1.0
    p = np.concatenate([p, missing])
    quiet = p[LOOK_BACK:, :, SILENCE].mean(1) > 0.5
    bilabial = p[:, :, BILABIALS].sum(2).max(1)
    sure = np.pad(_ramp(bilabial, PRESS_RAMP), 1)
    beside = np.maximum(sure[:-2], sure[2:]) * _ramp(bilabial, PRESS_BESIDE_RAMP)
    press = np.maximum(sure[1:-1], beside)
    tuck = _ramp(p[:, :, LABIODENTALS].sum(2).max(1), TUCK_RAMP)[LOOK_BACK : LOOK_BACK + n]
    rest = np.zeros(n)
    pause = min(PAUSE_FRAMES, PAUSE_HEARD + look_ahead)
    late = max(0, pause - look_ahead - 1)  # silent frames that pass before it is known
    for i in range(n):
        silent_run = silent_run + 1 if quiet[i] else 0
        if silent_run:
            ahead = quiet[i + 1 : i + 1 + look_ahead]
            left = len(ahead) if ahead.all() else int(np.argmin(ahead))
            if silent_run + left >= pause:
                leaving = 1.0 if ahead.all() else (left + 1) / (PAUSE_EXIT + 1)
                rest[i] = min(1.0, (silent_run - late) / PAUSE_ENTRY, leaving)
    points = out[:, 7:].reshape(n, KEYPOINTS, 3)
    _close(points, rest, 0.0, 0.6)
    pressed = press[LOOK_BACK : LOOK_BACK + n]
    _tuck(points, tuck * (1.0 - pressed) * (1.0 - rest))
    for distance in (2, 1):  # on the way to a closure, and back from it
        _close(points, press[LOOK_BACK + distance :][:n], PRESS_GAP + distance * CLOSING_SPEED, 0.3)
        _close(points, press[LOOK_BACK - distance :][:n], PRESS_GAP + distance * OPENING_SPEED, 0.3)
    _close(points, pressed, PRESS_GAP, 0.3)
    return out, silent_run


def slow_closing(motion: npt.ArrayLike, gap: float) -> tuple[Array, float]:
    """(n, 70) compact motion whose lips close no faster than `SURPRISE_SPEED`, and the gap of its last frame.

    Where p, b or m is heard beforehand lips are on their way already; else they would shut from one frame to the next.

    Args:
        motion: expression in the head frame, physical units.
        gap: between the lips in the frame before, fu.
    """
    out = np.array(motion, np.float32)
    points = out[:, 7:].reshape(len(out), KEYPOINTS, 3)
    for face in points:
        least = gap - SURPRISE_SPEED
        now = float(face[LOWER, 1] - face[UPPER, 1])
        _part(face[None], np.array([max(least - now, 0.0)]), 0.3)
        gap = float(face[LOWER, 1] - face[UPPER, 1])
    return out, gap


def _ramp(x: Floats, ends: tuple[float, float]) -> Floats:
    return np.asarray(np.clip((x - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0))


def bring_out(motion: npt.ArrayLike, emotion: npt.ArrayLike) -> Array:
    """(n, 70) compact motion in the head frame that shows an emotion (8,) more strongly than the network learnt to.

    The network gives what its corpus had, tasteful rather than plain. Lips and lids are left to it.
    """
    out = np.array(motion, np.float32)
    offset = EMOTION_BOOST * emotion_offset(emotion)
    offset[[*UPPER_LIDS, *INNER_LIPS, Keypoint.CHIN]] = 0.0
    out[:, 7:] += offset.reshape(-1).astype(np.float32)
    return out


def change_emotion(row: npt.ArrayLike, sampled: npt.ArrayLike, shown: npt.ArrayLike) -> Array:
    """The row (70,) of another emotion: what was sampled with `sampled` (8,) shows `shown` (8,) from now on.

    As far as the sampler brings emotions out: lips and lids keep what the motion network gave them.
    """
    before, after = np.asarray(sampled, np.float32), np.asarray(shown, np.float32)
    out = np.array(row, np.float32)
    if np.array_equal(before, after):
        return out
    neutral = np.zeros((1, MOTION_SIZE), np.float32)
    lift = (bring_out(neutral, after) - bring_out(neutral, before))[0, 7:].reshape(KEYPOINTS, 3)
    whole = (1.0 + EMOTION_BOOST) / EMOTION_BOOST  # what the network learnt, and what is brought out on top of it
    out[7:] += (whole * lift @ rotation_matrix(*out[1:4])).reshape(-1).astype(np.float32)
    return out


def shut_eyes(motion: npt.ArrayLike, eyes: npt.ArrayLike) -> Array:
    """(n, 70) compact motion whose lids are shut at least as far as the eye states (n, 8) plan: blinks close."""
    out = np.array(motion, np.float32)
    points = out[:, 7:].reshape(len(out), KEYPOINTS, 3)
    for lid, side in ((Keypoint.LEFT_UPPER_LID, 0), (Keypoint.RIGHT_UPPER_LID, 1)):
        open_share = np.asarray(eyes, np.float32)[:, side]
        least = TEMPLATE_APERTURE * (1.0 - open_share) - WIDEST_EYES * open_share
        points[:, lid, 1] = np.maximum(points[:, lid, 1], least)
    return out


def _tuck(points: Array, weight: Floats) -> None:
    """The lower lip of (n, 21, 3) under the upper teeth, which show, in place, by `weight`: f and v."""
    now = points[:, LOWER, 1] - points[:, UPPER, 1]
    _part(points, weight * (TUCK_GAP - now), 0.3)
    lift = weight * np.maximum(points[:, UPPER, 1] + TUCK_LIFT, 0.0)
    points[:, INNER_LIPS, 1] -= lift[:, None]
    points[:, Keypoint.UPPER_OUTER_LIP, 1] -= 0.6 * lift
    points[:, LOWER, 2] += weight * np.maximum(TUCK_DEPTH - points[:, LOWER, 2], 0.0)


def _close(points: Array, weight: Floats, gap: float, chin: float) -> None:
    """Bring the inner lips of (n, 21, 3) to at most `gap` in place, by `weight`; the chin follows by a share."""
    now = points[:, LOWER, 1] - points[:, UPPER, 1]
    _part(points, weight * (np.minimum(now, gap) - now), chin)


def _part(points: Array, change: Floats, chin: float) -> None:
    """Open the lips of (n, 21, 3) by `change` (n,) in place: mostly the lower one; the chin follows by a share."""
    points[:, LOWER, 1] += 0.85 * change
    points[:, UPPER, 1] -= 0.15 * change
    points[:, Keypoint.UPPER_OUTER_LIP, 1] -= 0.06 * change
    points[:, Keypoint.CHIN, 1] += chin * change
    for corner in MOUTH_CORNERS:
        points[:, corner, 1] += 0.15 * change


def finish(motion: Array) -> Array:
    """Compact motion for the outside: gaze held on the camera, expression in the camera frame instead of the head's."""
    out = np.array(motion, np.float64)
    points = out[:, 7:].reshape(len(out), KEYPOINTS, 3)
    shift = hold_gaze(out[:, 1:4])
    for iris in IRISES:
        points[:, iris, :2] += shift
    turned = points @ rotation_matrix(out[:, 1], out[:, 2], out[:, 3])
    out[:, 7:] = turned.reshape(len(out), -1)
    return out.astype(np.float32)
