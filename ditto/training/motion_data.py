"""Real motion: tracked face landmarks to motions (T, 70) and the eye state that goes with them.

The template is fitted to every frame, which leaves the face posed out; keypoints are means of its landmarks and
expressions their change against the clip's neutral: lips closed, eyes at their usual opening. Inside this package the
expression part stays in the head frame; `ditto.lite.sampler` turns it into the camera frame when it emits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.motion.eyes import eye_keypoints
from ditto.motion.motion import (
    CHEEKS,
    EXPRESSION,
    INNER_LIPS,
    JAW,
    KEYPOINTS,
    MOTION_SIZE,
    MOUTH_CORNERS,
    SLOW_KEYPOINTS,
    Keypoint,
    euler_degrees,
)
from ditto.portrait.face_mesh import SELECTOR, TEMPLATE, fit_head
from ditto.training import held_out
from ditto.training.articulation import CHANNELS, keypoints_of_channels
from ditto.training.smoothing import gaussian, low_pass

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.float32]

CLOSED_GAP = 0.004  # fu between landmarks 13 and 14: lips that touch, as the tracker sees them
CLOSED_FRAMES = 5  # with closed lips, from which a neutral is taken
SHUT_APERTURE = 0.2  # of the open aperture: what the tracker still measures on a shut eye
ROUNDING_GAIN = 1.0  # extra narrowing: measured rounding reads too weak on a portrait
ROUNDING_DEPTH = 0.5  # protrusion per narrowing
JAW_PITCH_HZ = 0.6  # above it, pitch that follows the jaw is the tracker's, not the neck's
# Landmarks, right and left.
UPPER_LID_MIDDLES, LOWER_LID_MIDDLES, IRIS_CENTRES = (159, 386), (145, 374), (468, 473)
EYE_CORNERS = ((33, 133), (362, 263))
LIP_MIDDLES = (*INNER_LIPS, Keypoint.UPPER_OUTER_LIP)
UPPER_FACE = tuple(sorted({*SLOW_KEYPOINTS, *CHEEKS, *JAW}))


class RealClip(NamedTuple):
    """One tracked clip.

    Attributes:
        motion: (T, 70) float32, expression in the head frame.
        eyes: (T, 8) float32: opening left and right, gaze xL xR yL yR zL zR.
        canonical: (63,) the neutral keypoints of the speaker, fu.
    """

    motion: Array
    eyes: Array
    canonical: Array


def real_clip(landmarks: npt.ArrayLike, others: Sequence[npt.ArrayLike] = ()) -> RealClip:
    """A tracked clip as motion.

    The neutral is the median of the frames with closed lips. A clip with fewer than 5 of them has the neutral that
    `lips_closed` makes of its least open frames: on 40 clips that do close their lips, whose closed frames were hidden,
    that lies .010 (GRID) and .015 fu (natural talk) off the true one; the least open frames themselves, .019 and .017.

    Args:
        landmarks: (T, 478, 3) pixels, no NaN.
        others: landmarks of other clips of the same speaker. The neutral is then that of all of them: in a few seconds of
            fluent talk lips may not close at all.
    """
    scale, rotation, translation, face = fit_heads(landmarks)
    gap = _gap(face)
    known = [face, *(fit_heads(other)[3] for other in others)]
    shut = np.concatenate([SELECTOR @ f[_gap(f) < CLOSED_GAP] for f in known])
    points, posed = np.asarray(landmarks), SELECTOR @ face
    neutral = np.median(shut, 0) if len(shut) >= CLOSED_FRAMES else lips_closed(posed, gap)
    delta = posed - neutral
    delta[:, Keypoint.NECK] = 0.0
    lips = [*LIP_MIDDLES, *MOUTH_CORNERS, Keypoint.CHIN]
    rest = list(UPPER_FACE)
    delta[:, rest] -= np.median(delta[:, rest], 0)
    delta[:, lips] = _denoise(delta[:, lips])
    delta[:, rest] = gaussian(delta[:, rest], 1.2)
    _round(delta)
    eyes = _eye_state(face)
    for keypoint, change in eye_keypoints(eyes).items():
        delta[:, keypoint] = change

    motion = np.zeros((len(points), MOTION_SIZE), np.float32)
    motion[:, 1:7], motion[:, 0] = _pose(scale, rotation, translation, gap)
    motion[:, EXPRESSION] = delta.reshape(len(points), 3 * KEYPOINTS)
    canonical = neutral.copy()
    canonical[Keypoint.NECK] = (SELECTOR @ TEMPLATE)[Keypoint.NECK]
    return RealClip(motion, eyes.astype(np.float32), canonical.reshape(-1).astype(np.float32))


def lips_closed(posed: Floats, gap: Floats) -> Floats:
    """(21, 3) the neutral of a clip that hardly closes its lips.

    The least open twentieth of its frames, at least 5, with the lips brought together as a gap moves them
    (`ditto.training.articulation.keypoints_of_channels`).

    Args:
        posed: (T, 21, 3) keypoints, head frame, fu.
        gap: (T,) between the inner lips, fu.
    """
    opening = keypoints_of_channels(np.eye(len(CHANNELS))[CHANNELS.index("gap")])
    opening /= opening[Keypoint.LOWER_INNER_LIP, 1] - opening[Keypoint.UPPER_INNER_LIP, 1]
    least = np.argsort(gap, kind="stable")[: max(CLOSED_FRAMES, len(gap) // 20)]
    left = max(float(np.median(gap[least])) - CLOSED_GAP / 2, 0.0)
    return np.asarray(np.median(posed[least], 0) - left * opening)


def fit_heads(landmarks: npt.ArrayLike) -> tuple[Floats, Floats, Floats, Floats]:
    """`ditto.portrait.face_mesh.fit_head` of every frame (T, 478, 3): scale, rotation, translation, face."""
    heads = [fit_head(frame) for frame in np.asarray(landmarks, np.float64)]
    scale, rotation, translation, face = (np.stack([np.asarray(h[i]) for h in heads]) for i in range(4))
    return scale, rotation, translation, face


def _gap(face: Floats) -> Floats:
    return np.asarray(face[:, 14, 1] - face[:, 13, 1])


def _denoise(x: Floats) -> Floats:
    """Savitzky-Golay, 5 frames, cubic: takes the tracker's jitter, leaves a closure of two frames closed."""
    p = np.pad(x, [(2, 2)] + [(0, 0)] * (x.ndim - 1), mode="edge")
    n = len(x)
    return np.asarray((-3 * p[:n] + 12 * p[1 : n + 1] + 17 * p[2 : n + 2] + 12 * p[3 : n + 3] - 3 * p[4:]) / 35.0)


def _round(delta: Floats) -> None:
    """Strengthen narrowing of the mouth in place, with the protrusion that the tracker hardly sees."""
    right, left = MOUTH_CORNERS
    narrow = np.maximum(-(delta[:, left, 0] - delta[:, right, 0]), 0.0)
    delta[:, right, 0] += 0.5 * ROUNDING_GAIN * narrow
    delta[:, left, 0] -= 0.5 * ROUNDING_GAIN * narrow
    for keypoint in LIP_MIDDLES:
        delta[:, keypoint, 2] -= ROUNDING_DEPTH * narrow


def _eye_state(face: Floats) -> Floats:
    aperture = face[:, LOWER_LID_MIDDLES, 1] - face[:, UPPER_LID_MIDDLES, 1]  # (T, 2) right, left
    usual = np.percentile(aperture, 70, 0)
    opening = (aperture / usual - SHUT_APERTURE) / (1.0 - SHUT_APERTURE)
    opening = 1.0 - np.clip((1.0 - opening - 0.08) / 0.92, 0.0, 1.0)  # small flutter is tracking noise
    opening = np.repeat(opening.mean(1, keepdims=True), 2, 1)
    gaze = np.stack([face[:, i] - face[:, c].mean(1) for i, c in zip(IRIS_CENTRES, EYE_CORNERS, strict=True)], 1).mean(1)
    seen = np.flatnonzero(opening[:, 0] > 0.7)  # the iris under a lid is a guess
    frames = np.arange(len(face))
    gaze = np.stack([np.interp(frames, seen, gaze[seen, a]) for a in range(3)], -1) if len(seen) else gaze * 0.0
    gaze = gaussian(gaze - np.median(gaze, 0), 1.0)
    eyes = np.zeros((len(face), 8))
    eyes[:, :2] = opening[:, ::-1]
    eyes[:, 2:4], eyes[:, 4:6] = gaze[:, :1], gaze[:, 1:2]
    return eyes


def _pose(scale: Floats, rotation: Floats, translation: Floats, gap: Floats) -> tuple[Floats, Floats]:
    """(T, 6) pitch, yaw, roll in degrees and translation in fu, and (T,) scale - 1, against the clip's median."""
    angles = euler_degrees(rotation)
    angles -= np.median(angles, 0)

    def fast(x: Floats) -> Floats:
        return x - low_pass(x, JAW_PITCH_HZ)

    jaw = fast(gap)
    slope = (fast(angles) * jaw[:, None]).sum(0) / max(float((jaw**2).sum()), 1e-9)
    angles -= slope * jaw[:, None]
    t = (translation - np.median(translation, 0)) / np.median(scale)
    t[:, 2] = 0.0
    pose = low_pass(np.concatenate([angles, t], 1), 3.0)
    return pose, low_pass(scale / np.median(scale) - 1.0, 1.5)


def grid_stems(tracks: Path) -> tuple[list[str], list[str]]:
    """Stems of a folder of tracks: (trained on, held out: every tenth of the sorted list)."""
    stems = sorted(p.stem for p in tracks.glob("*.npz"))
    return [s for i, s in enumerate(stems) if not held_out(i)], [s for i, s in enumerate(stems) if held_out(i)]


def fill_gaps(landmarks: npt.ArrayLike) -> Floats:
    """(T, 478, 3) with frames where no face was found (NaN) filled from their neighbours.

    Raises:
        ValueError: if a fifth of the frames or more are missing.
    """
    points = np.asarray(landmarks, np.float64)
    found = np.isfinite(points[:, 0, 0])
    if found.mean() <= 0.8:
        raise ValueError(
            f"expected a face in over 80 % of the frames, got {int(found.sum())} of {len(points)}; leave the clip out"
        )
    if not found.all():
        flat = points.reshape(len(points), -1)
        where = np.flatnonzero(found)
        frames = np.arange(len(points))
        right = np.clip(np.searchsorted(where, frames), 1, len(where) - 1)
        a, b = where[right - 1], where[right]
        u = np.clip((frames - a) / (b - a), 0.0, 1.0)[:, None]
        points = (flat[a] * (1 - u) + flat[b] * u).reshape(points.shape)
    return points
