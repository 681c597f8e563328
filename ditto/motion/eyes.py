"""Blinks and small saccades: a seeded, causal process, one frame at a time.

Eye state, 8 numbers a frame: opening of the left and right eye (1 as at rest, 0 shut), then gaze shift against rest in
face units, `xL xR yL yR zL zR` (the order of Ditto's eye conditions; z stays 0).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.motion.motion import EYES, FPS, TEMPLATE_APERTURE, Keypoint

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

EYE_SIZE = 8

# Timing of blinks and saccades: ../shared/voice/spec.md, section 5 (0.5 s refractory, likelier in pauses; dwell exponential
# with 1.3 s, 55 % of glances return to the camera). Numbers without a note below are from there.
# `tests/motion/test_eye_motion.py` holds the rates.
# A blink: opening in each frame. The mean of tracked blinks, drawn out to shut eyes (the tracker sees no lid come down
# further than to .2): 252 of GRID's speaker 1, 6 of five others, 10 of the natural cuts. Their lids are under half of the
# usual opening for 96, 87 and 96 ms.
BLINK: tuple[float, ...] = (0.92, 0.35, 0.0, 0.20, 0.60, 0.78, 0.86, 0.92, 0.97)
REFRACTORY = 12  # frames from the end of a blink to the earliest next one
# Hazard rates after the refractory time: about 25 blinks a minute. Talkers have 30 to 40 by a detector that counts some
# squints (../shared/voice/natural_talk.md, finding 5).
BLINKS_PER_SECOND_SPEAKING, BLINKS_PER_SECOND_PAUSING = 0.50, 1.3
LONGEST_OPEN = 7 * FPS  # a blink begins after it at the latest; chosen by eye
DWELL_SECONDS = 1.3
SHORTEST_DWELL = 5  # frames; as in the prototype, chosen by eye
RETURN_TO_CAMERA = 0.55
# Standard deviation of a glance, fu: 0.45 and 0.3 of .040 and .022 fu, tuned by eye on three faces (end_to_end.md).
GAZE_SPREAD = (0.018, 0.0066)  # horizontal, vertical
BLINK_WITH_GLANCE = 0.12  # probability that a wide glance begins with a blink; chosen by eye
GAZE_STEP = 0.7  # share of the way that a saccade moves in one frame; chosen by eye
# Travel of the upper lid per vertical gaze, up and down. 16 real clips have .89 (R2 .62, ../shared/renderer/spec.md, section
# 5); the lower shares were tuned by eye (end_to_end.md).
LID_FOLLOWS_GAZE = (0.48, 0.80)
# fu the iris turns back per sine of the head's rotation: 0.8 of the radius of the eye, .085 fu (end_to_end.md).
CAMERA_HOLD = 0.8 * 0.085


class EyeState(NamedTuple):
    """State of the process: blink phase (-1 open), frames since the last blink, gaze and its aim, frames of dwell left, and
    the number of frames made, which indexes the noise."""

    phase: int
    since: int
    gaze: tuple[float, float]
    aim: tuple[float, float]
    dwell: int
    frame: int


def initial_eyes() -> EyeState:
    """Open eyes on the camera; the first blink may come after a second."""
    return EyeState(-1, REFRACTORY - FPS, (0.0, 0.0), (0.0, 0.0), FPS, 0)


def step_eyes(state: EyeState, pausing: npt.ArrayLike, seed: int) -> tuple[Array, EyeState]:
    """Eye states of the next frames.

    Args:
        state: from `initial_eyes` or the last call.
        pausing: (T,) how likely the speaker is silent, in [0, 1].
        seed: of the whole stream; the noise of frame n comes from (seed, n), so any chunking gives the same eyes.

    Returns:
        (T, 8) float32 and the next state.
    """
    quiet = np.clip(np.asarray(pausing, np.float64), 0.0, 1.0)
    eyes = np.zeros((len(quiet), EYE_SIZE), np.float32)
    for i, pause in enumerate(quiet):
        random = np.random.Generator(
            np.random.Philox(key=np.array([seed & 0xFFFFFFFFFFFFFFFF, 0x1DEA], np.uint64), counter=[0, 0, 0, state.frame])
        )
        rate = BLINKS_PER_SECOND_SPEAKING * (1.0 - pause) + BLINKS_PER_SECOND_PAUSING * pause
        state = next_eyes(state, rate, RETURN_TO_CAMERA, random)
        eyes[i] = eyes_of(state)
    return eyes, state


def next_eyes(state: EyeState, blinks_per_second: float, home: float, random: np.random.Generator) -> EyeState:
    """The state one frame later; `home` is the share of glances that return to the camera. Takes six random numbers."""
    phase, since, gaze, aim, dwell, frame = state
    blink, turn, back, x, y, wait = (*random.random(3), *random.standard_normal(2), random.exponential())
    if phase >= 0:
        phase = phase + 1 if phase + 1 < len(BLINK) else -1
        since = 0
    else:
        since += 1
        if since > REFRACTORY and (blink < blinks_per_second / FPS or since > LONGEST_OPEN):
            phase, since = 0, 0
    dwell -= 1
    if dwell <= 0:
        aim = (0.0, 0.0) if back < home else (GAZE_SPREAD[0] * x, GAZE_SPREAD[1] * y)
        dwell = max(SHORTEST_DWELL, int(DWELL_SECONDS * FPS * wait))
        if phase < 0 and since > REFRACTORY and turn < BLINK_WITH_GLANCE and abs(aim[0] - gaze[0]) > GAZE_SPREAD[0]:
            phase, since = 0, 0
    gaze = (gaze[0] + GAZE_STEP * (aim[0] - gaze[0]), gaze[1] + GAZE_STEP * (aim[1] - gaze[1]))
    return EyeState(phase, since, gaze, aim, dwell, frame + 1)


def eyes_of(state: EyeState) -> Array:
    """(8,) the eye state of the frame that led to `state`."""
    opening = BLINK[state.phase] if state.phase >= 0 else 1.0
    (right, down) = state.gaze
    return np.array([opening, opening, right, right, down, down, 0.0, 0.0], np.float32)


def eye_keypoints(eyes: npt.ArrayLike) -> dict[Keypoint, Floats]:
    """Keypoint changes (T, 3), head frame, that an eye state (T, 8) stands for; lids travel the template's aperture."""
    e = np.asarray(eyes, np.float64)
    changes = {k: np.zeros((len(e), 3)) for k in EYES}
    left = 0, Keypoint.LEFT_IRIS, Keypoint.LEFT_UPPER_LID
    right = 1, Keypoint.RIGHT_IRIS, Keypoint.RIGHT_UPPER_LID
    for side, iris, lid in (left, right):
        gaze = e[:, (2 + side, 4 + side, 6 + side)]
        changes[iris] = gaze
        down = gaze[:, 1]
        follow = np.where(down < 0.0, LID_FOLLOWS_GAZE[0], LID_FOLLOWS_GAZE[1]) * down
        changes[lid][:, 1] = TEMPLATE_APERTURE * (1.0 - e[:, side]) + follow * e[:, side]
    return changes


def hold_gaze(pose_degrees: npt.ArrayLike) -> Floats:
    """(T, 3) pitch, yaw, roll -> (T, 2): how far the irises move in the head, fu, to stay on the camera."""
    pitch, yaw, _ = np.moveaxis(np.radians(np.asarray(pose_degrees, np.float64)), -1, 0)
    return np.stack([CAMERA_HOLD * np.sin(yaw), -CAMERA_HOLD * np.sin(pitch)], -1)
