"""The corpus of the motion network: real motion where a face was tracked, generated motion for speech without one.

    python -m ditto.training.corpus --tracks TRACKS --speech SPEECH --features FEATURES OUT

FEATURES is a folder of `<set>.npz` as written by `ditto.training.features`; OUT one `.npz`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.life import BLINK, eye_keypoints, initial_eyes, live
from ditto.motion import COMPACT_SIZE, KEYPOINTS
from ditto.sampling import guard_mouth
from ditto.training.articulation import SILENCE, Articulation, articulate, loudness
from ditto.training.head_motion import BROW, EMOTION_PRIOR, emotion_offset, head_and_brows
from ditto.training.motion_data import gaussian

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

REAL_POSE_GAIN = 2.0  # the tracked speaker holds his head very still
REAL_MOUTH_GAIN = 1.1  # and opens his mouth a little less than a portrait should
MADE_MOUTH_GAIN = 1.12  # blending targets flattens them; brings the 95th percentile of both to 0.09


class Generated(NamedTuple):
    """Motion made up for an utterance: (T, 70) head frame, eyes (T, 8), emotion (8,)."""

    motion: Array
    eyes: Array
    emotion: Array


def generate(
    phones: npt.ArrayLike, samples: npt.ArrayLike, mouth: Articulation, random: np.random.Generator
) -> Generated:
    """Motion for speech without a face.

    Args:
        phones: (2T, 40) phone probabilities at 50 Hz.
        samples: (640 T,) the sound.
        mouth: what each phone does to the mouth.
        random: of head, eyes, emotion and style.
    """
    p = np.asarray(phones, np.float64)
    factor, level = loudness(samples)
    n = len(p) // 2
    silent = p[: 2 * n, SILENCE].reshape(n, 2).mean(1)
    level = level[: 2 * n].reshape(n, 2).mean(1)
    face = articulate(p, factor, mouth) * MADE_MOUTH_GAIN * random.uniform(0.92, 1.08)

    emotion = np.zeros(8)
    chosen = int(random.choice(8, p=EMOTION_PRIOR))
    weight = random.uniform(0.3, 1.0)
    emotion[chosen] = weight
    emotion[4] += 1.0 - weight
    seconds = np.arange(0, n + 50, 25)
    swell = 1.0 + 0.12 * np.interp(np.arange(n), seconds, random.normal(size=len(seconds)))
    face += emotion_offset(emotion) * gaussian(swell, 6.0)[:, None, None]

    pose, brow = head_and_brows(random, level, silent)
    face[:, 1:3, 1] -= BROW * brow[:, None]
    face[:, 10, 1] -= 0.3 * BROW * brow

    seed = int(random.integers(1 << 62))
    eyes, _ = live(initial_eyes(), silent, seed)
    if random.random() < 0.5:  # blinks of other shapes, so that the lids follow the eye state and not a habit
        shut = np.flatnonzero(eyes[:, 0] == min(BLINK))
        eyes[:, :2] = 1.0
        for frame in shut:
            t = np.arange(n) - frame
            rise, fall = random.uniform(0.9, 1.6), random.uniform(1.5, 3.0)
            lid = random.uniform(0.5, 1.0) * np.exp(-0.5 * (t / np.where(t < 0, rise, fall)) ** 2)
            eyes[:, :2] = np.minimum(eyes[:, :2], 1.0 - lid[:, None])
    for keypoint, change in eye_keypoints(eyes).items():
        face[:, keypoint] += change

    motion = np.zeros((n, COMPACT_SIZE), np.float32)
    motion[:, :7] = pose
    motion[:, 7:] = face.reshape(n, 3 * KEYPOINTS)
    guarded, _ = guard_mouth(motion, p[: 2 * n].reshape(n, 2, -1), 10)
    return Generated(guarded, eyes.astype(np.float32), emotion.astype(np.float32))
