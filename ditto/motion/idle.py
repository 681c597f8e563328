"""Idle motion of a face that says nothing, one frame at a time, never a loop. All noise comes from (seed, frame).

Breath, a head that drifts and now and then takes another posture, glances, blinks, small movements of brows and mouth
corners; lips closed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.motion.emotion import SMILE
from ditto.motion.eyes import (
    LID_FOLLOWS_GAZE,
    EyeState,
    eyes_of,
    hold_gaze,
    initial_eyes,
    next_eyes,
)
from ditto.motion.listening import NEUTRAL, Reaction
from ditto.motion.motion import (
    BROWS,
    DEGREES,
    EXPRESSION,
    FPS,
    IRISES,
    KEYPOINTS,
    MOTION_SIZE,
    MOUTH_CORNERS,
    TEMPLATE_APERTURE,
    UPPER_LIDS,
    Keypoint,
)
from ditto.portrait.face_mesh import NECK_ANCHOR

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

# The numbers of this page were chosen by eye where a comment says nothing else. `python -m benchmarks.life`
# measures the result beside speech (docs/live.md); tests/motion/test_idle.py holds it.
CHANNELS = ("pitch", "yaw", "roll", "x", "y", "scale", "brow", "smile", "lid")
# Standard deviations of the slow drift: degrees, face units, factor, and shares of a smile.
DRIFT = np.array([0.42, 0.65, 0.32, 0.0015, 0.0012, 0.0012, 0.0022, 0.06, 0.0015])
DRIFT_SECONDS = (0.8, 4.0, 20.0)  # equal shares of three speeds are near to a spectrum of 1/f
SETTLE = np.array([0.75, 1.40, 0.70, 0.0022, 0.0015, 0.0018, 0.0014, 0.05, 0.0])  # the same, of a new posture
SETTLE_SECONDS = (2.5, 4.5)  # between two postures: at least, and the mean of the exponential part on top
# Soft limits of the channels.
BOUNDS = np.array([3.2, 5.2, 3.2, 0.009, 0.007, 0.007, 0.010, 0.28, 0.005])
LINGERS, RESUME_FRAMES = 0.7, int(1.4 * FPS)  # share of the pose in which speech left the head, and for how long
SPRING = 3.2 / FPS  # natural frequency of the critically damped spring that moves the head, radians a frame
HEAD_FOLLOWS_GAZE = (45.0, 35.0)  # degrees of yaw and pitch per face unit of a glance
PIVOT = 0.25 * float(NECK_ANCHOR[1])  # fu: the head leans about a point a quarter of the way down to the neck
BREATH_SECONDS = (4.1, 0.16)  # mean (some 15 breaths a minute), and spread of its logarithm
BREATH_RISE, BREATH_PITCH = 0.006, 0.35  # fu the head rises, degrees it tips back
INHALED, EXHALED = 0.38, 0.85  # of a breath
BLINKS_PER_SECOND = (0.08, 0.13)  # hazard, and what each second of open eyes adds; measured: 17 a minute (docs/live.md)
HOME = 0.72  # share of glances that return to the camera
GLANCE = 0.75  # size of a glance, against those in speech
LONGEST_GLANCE = int(1.6 * FPS)  # frames; longer, the face seems to have turned away from the viewer
HELD_GLANCES = 0.85  # share by which full attention reduces the number and the length of glances
# Now and then brows rise, mouth corners lift, or lips press: face units, share of a smile, face units; and the seconds
# one takes, at least and at most.
GESTURES = ((0.007, 1.0, 1.8), (0.22, 1.6, 3.2), (0.004, 0.7, 1.3))
GESTURE_SECONDS = 9.0  # mean time between two
# Travel of each lip keypoint where lips press, as a share of the gesture.
PRESSING = (
    (Keypoint.UPPER_INNER_LIP, 0.4),
    (Keypoint.UPPER_OUTER_LIP, 0.3),
    (Keypoint.LOWER_INNER_LIP, -0.6),
    (Keypoint.CHIN, -0.4),
)

_STEP = np.exp(-1.0 / (FPS * np.array(DRIFT_SECONDS)))[:, None]
KEPT, FRESH = _STEP, np.sqrt((1.0 - _STEP * _STEP) / len(DRIFT_SECONDS))  # so that the sum of the speeds has variance 1


class Gesture(NamedTuple):
    """A small passing movement: index into `GESTURES`, its present frame, its frames (0: no gesture), its size."""

    kind: int = 0
    at: int = 0
    frames: int = 0
    size: float = 0.0

    @property
    def shares(self) -> list[float]:
        """Present travel of brows, corners and lips."""
        now = 0.5 - 0.5 * float(np.cos(2.0 * np.pi * (self.at + 1) / (self.frames + 1))) if self.frames else 0.0
        return [self.size * now if kind == self.kind else 0.0 for kind in range(len(GESTURES))]


class IdleState(NamedTuple):
    """State of an idle face.

    Attributes:
        frame: frames made, which indexes the noise.
        eyes: blinks and glances.
        drift: (3, 9) slow noise, one row per speed; columns as `CHANNELS`.
        rest: (9,) the present posture.
        rest_frames: frames until the next posture.
        place, speed: (9,) of the channels, after the spring.
        breath: elapsed share of the present breath, its share per frame, its depth.
        gesture: the present one.
    """

    frame: int
    eyes: EyeState
    drift: Floats
    rest: Floats
    rest_frames: int
    place: Floats
    speed: Floats
    breath: tuple[float, float, float]
    gesture: Gesture


def initial_idle() -> IdleState:
    """The portrait at rest, breathed out, eyes on the camera."""
    none = np.zeros(len(CHANNELS))
    drift = np.zeros((len(DRIFT_SECONDS), len(CHANNELS)))
    breath = EXHALED, 1.0 / (BREATH_SECONDS[0] * FPS), 0.0
    return IdleState(0, initial_eyes(), drift, none, 2 * FPS, none, none, breath, Gesture())


def resume(state: IdleState, shown: npt.ArrayLike, style: float = 1.0) -> IdleState:
    """The state of an idle face that follows a row (70,) of another source: the head stays near its last pose.

    The head comes back gradually, with the next postures. Breath and drift continue; the eyes are open, on the camera.

    Args:
        state: of the idle face so far.
        shown: (70,) the last row, head and brows at the strength of `style`.
        style: as of `idle_frame`.
    """
    row = np.asarray(shown, np.float64)
    place = np.zeros(len(CHANNELS))
    if style > 0.0:  # at 0 the head shows nothing of its pose
        place[:3] = row[1:4] / style
    place = BOUNDS * np.tanh(place / BOUNDS)
    eyes = state.eyes._replace(phase=-1, since=0, gaze=(0.0, 0.0), aim=(0.0, 0.0), dwell=FPS // 2)
    return state._replace(
        eyes=eyes, rest=LINGERS * place, rest_frames=RESUME_FRAMES, place=place, speed=np.zeros(len(CHANNELS))
    )


def idle_frame(
    state: IdleState, seed: int, reaction: Reaction = NEUTRAL, style: float = 1.0
) -> tuple[Floats, IdleState]:
    """The next frame of an idle face.

    Args:
        state: from `initial_idle` or the last call.
        seed: of all noise.
        reaction: to what the other party says.
        style: strength of the motion of head and brows, reactions included (`ditto.motion.style`). The breath keeps its size.

    Returns:
        (70,) head values (`ditto.motion.space`) of the lite face, the gaze held on the camera, and the next state.
    """
    state = _advance(state, seed, reaction)
    return _row(state, reaction, style), state


def _advance(state: IdleState, seed: int, reaction: Reaction) -> IdleState:
    """The state one frame later."""
    random = np.random.Generator(
        np.random.Philox(key=np.array([seed & 0xFFFFFFFFFFFFFFFF, 0x1D1E], np.uint64), counter=[0, 0, 0, state.frame])
    )
    home = HOME + (1.0 - HOME) * HELD_GLANCES * reaction.attention
    rate = BLINKS_PER_SECOND[0] + BLINKS_PER_SECOND[1] * max(0, state.eyes.since) / FPS
    eyes = next_eyes(state.eyes, rate * reaction.blinks, home, random)
    longest = int(LONGEST_GLANCE * (1.0 - HELD_GLANCES * reaction.attention))
    if eyes.aim != (0.0, 0.0) and eyes.dwell > longest:
        eyes = eyes._replace(dwell=longest)
    drift = KEPT * state.drift + FRESH * random.standard_normal(state.drift.shape)
    rest, rest_frames = state.rest, state.rest_frames - 1
    if rest_frames <= 0:
        rest = SETTLE * random.standard_normal(len(CHANNELS))
        rest_frames = int(FPS * (SETTLE_SECONDS[0] + SETTLE_SECONDS[1] * random.exponential()))
    target = DRIFT * drift.sum(0) + rest
    right, down = eyes.gaze
    target[:2] += HEAD_FOLLOWS_GAZE[1] * GLANCE * down, -HEAD_FOLLOWS_GAZE[0] * GLANCE * right
    target = BOUNDS * np.tanh(target / BOUNDS)
    speed = state.speed + SPRING * SPRING * (target - state.place) - 2.0 * SPRING * state.speed
    breath = _breathe(state.breath, random)
    gesture = _gesture(state.gesture, random)
    return IdleState(state.frame + 1, eyes, drift, rest, rest_frames, state.place + speed, speed, breath, gesture)


def _row(state: IdleState, reaction: Reaction, style: float) -> Floats:
    """(70,) head values of a state."""
    row = np.zeros(MOTION_SIZE, np.float32)
    pitch, yaw, roll, x, y, scale, brow = (style * state.place[:7]).tolist()
    smile, lid = state.place[7:].tolist()
    air = state.breath[2] * _inhaled(state.breath[0])
    raised, lifted, pressed = state.gesture.shares
    roll += style * reaction.tilt
    x += PIVOT * float(np.sin(np.radians(roll)))
    row[:6] = scale, pitch - BREATH_PITCH * air + style * reaction.nod, yaw, roll, x, y - BREATH_RISE * air
    points = row[7:].reshape(KEYPOINTS, 3)
    raised = style * raised + (brow + style * reaction.brow)
    points[BROWS, 1] -= raised
    points[Keypoint.GLABELLA, 1] -= 0.3 * raised
    for corner, side in zip(MOUTH_CORNERS, (-1.0, 1.0), strict=True):
        points[corner, :2] += side * 0.35 * SMILE * (smile + lifted), -0.6 * SMILE * (smile + lifted)
    for lip, way in PRESSING:
        points[lip, 1] += way * pressed
    right, down = (GLANCE * side for side in state.eyes.gaze)
    opening = float(eyes_of(state.eyes)[0])
    for iris, upper in zip(IRISES, UPPER_LIDS, strict=True):
        points[iris, :2] += right, down
        open_lid = points[upper, 1] + LID_FOLLOWS_GAZE[0 if down < 0.0 else 1] * down + lid
        points[upper, 1] = TEMPLATE_APERTURE * (1.0 - opening) + open_lid * opening
    values = row.astype(np.float64)
    values[EXPRESSION].reshape(KEYPOINTS, 3)[list(IRISES), :2] += hold_gaze(values[DEGREES])
    return values


def _gesture(gesture: Gesture, random: np.random.Generator) -> Gesture:
    """The gesture one frame later, or another that begins."""
    if gesture.at + 1 < gesture.frames:
        return gesture._replace(at=gesture.at + 1)
    if random.random() > 1.0 / (FPS * GESTURE_SECONDS):
        return Gesture()
    kind = int(random.integers(len(GESTURES)))
    size, shortest, longest = GESTURES[kind]
    return Gesture(kind, 0, int(FPS * random.uniform(shortest, longest)), size * float(random.uniform(0.4, 1.0)))


def _breathe(breath: tuple[float, float, float], random: np.random.Generator) -> tuple[float, float, float]:
    """The breath one frame later; each has a length and a depth of its own."""
    at, step, depth = breath
    at += step
    if at < 1.0:
        return at, step, depth
    seconds = BREATH_SECONDS[0] * np.exp(BREATH_SECONDS[1] * random.standard_normal())
    return at - 1.0, float(1.0 / (FPS * seconds)), float(random.uniform(0.7, 1.2))


def _inhaled(at: float) -> float:
    """Air in the lungs, 0 to 1, at a share of a breath: in, longer out, a short rest."""
    if at < INHALED:
        return 0.5 - 0.5 * float(np.cos(np.pi * at / INHALED))
    if at < EXHALED:
        return 0.5 + 0.5 * float(np.cos(np.pi * (at - INHALED) / (EXHALED - INHALED)))
    return 0.0
