"""Listening: what a silent face does with what the other party says. Nods at pauses, eyes on the speaker, no clockwork.

The level of every 40 ms is compared with a running noise floor; everything that is chosen is drawn from (seed, frame).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.motion import FPS
from ditto.stream import SAMPLES_PER_FRAME, check_samples

Array = npt.NDArray[np.float32]

MOST_WAITING = 30 * FPS  # frames of sound that wait to be heard; older ones are forgotten
HELD = 8  # frames without sound that are bridged: what comes over a network comes in bursts
ABOVE_FLOOR = 9.0  # dB over the noise floor that make a voice
QUIETEST_VOICE = -52.0  # dB of full scale
FIRST_FLOOR = -60.0  # dB, before anything is known
FLOOR_RISE, FLOOR_FALL = 0.02, 0.3  # dB, and share of the difference, per frame
ONSET, HANGOVER = 3, 7  # voiced frames that begin a phrase, unvoiced ones that end it
PHRASE = 15  # frames; shorter ones ("yes") get no nod
NOD_AT_PAUSE = 0.7  # probability
NODS_PER_SECOND = 0.14  # in long speech, once LONG frames have passed; where the voice dips
LONG = 4 * FPS
NOD_GAP = int(1.6 * FPS)  # frames from the end of a nod to the next
NOD_DEGREES = (2.0, 3.8)
SECOND_BEAT = 0.35  # probability
BEAT = (10, 14)  # frames, shortest and longest
RISING = 2.5  # dB by which the end of a phrase is louder than its mean
QUESTION = (0.012, 2.4)  # brow raise in face units, and tilt in degrees, after a rising end
ATTENTIVE_BLINKS = 0.35  # of the usual rate, while a phrase begins
EASE = 0.16  # share per frame of the way of attention, brow and tilt; twice in a row


class Reaction(NamedTuple):
    """What listening adds to an idle face in one frame.

    Attributes:
        nod: pitch in degrees, down is positive.
        tilt: roll in degrees.
        brow: raise of the brows, face units.
        attention: in [0, 1]: how much the gaze keeps to the camera.
        blinks: factor on the rate of blinks.
    """

    nod: float = 0.0
    tilt: float = 0.0
    brow: float = 0.0
    attention: float = 0.0
    blinks: float = 1.0


NEUTRAL = Reaction()


class Listener:
    """Hears the other party and says, frame by frame, how a face reacts. Used by one thread at a time.

    However the samples are cut into pushes, the reactions are the same; a frame of sound is heard per `react`.

    Args:
        seed: of everything that is drawn.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed & 0xFFFFFFFFFFFFFFFF
        self._rest = np.zeros(0, np.float32)  # samples of a frame that is not full yet
        self._levels: deque[float] = deque(maxlen=MOST_WAITING)
        self._heard = 0  # frames of sound
        self._missing = HELD  # frames in a row without any
        self._floor = FIRST_FLOOR
        self._voiced = self._unvoiced = 0  # frames in a row
        self._phrase: list[float] = [0.0, 0.0, 0.0]  # frames, sum of levels, recent level
        self._speaking = False
        self._due: list[tuple[int, float, int]] = []  # beats to come: first frame, degrees, frames
        self._free_from = 0  # first frame in which another nod may begin
        self._last_nod = 0
        self._aim = np.zeros(3)  # tilt, brow, attention
        self._aim_until = 0
        self._eased = np.zeros((2, 3))
        self._frame = 0

    def push(self, samples: npt.ArrayLike) -> None:
        """Take what the other party says: (N,) float32 in [-1, 1] or int16, mono, 16 kHz.

        Raises:
            AudioError: samples of another kind, NaN or infinite.
        """
        sound = np.concatenate([self._rest, check_samples(samples)])
        whole = len(sound) // SAMPLES_PER_FRAME
        blocks = sound[: whole * SAMPLES_PER_FRAME].reshape(whole, SAMPLES_PER_FRAME).astype(np.float64)
        self._rest = sound[whole * SAMPLES_PER_FRAME :].copy()
        self._levels.extend((10.0 * np.log10((blocks * blocks).mean(1) + 1e-12)).tolist())

    def react(self) -> Reaction:
        """The reaction of the next frame; `NEUTRAL` as long as nothing was heard."""
        if self._levels:
            self._missing = 0
            self._hear(self._levels.popleft())
        elif self._missing < HELD:
            self._missing += 1
        elif self._heard:
            self._hear(-120.0)
        if not self._heard:
            return NEUTRAL
        if self._frame >= self._aim_until:
            self._aim[:2] = 0.0
        self._aim[2] = 1.0 if self._speaking else 0.0
        self._eased[0] += EASE * (self._aim - self._eased[0])
        self._eased[1] += EASE * (self._eased[0] - self._eased[1])
        tilt, brow, attention = self._eased[1].tolist()
        nod = sum(degrees * _beat((self._frame - first + 1) / (frames + 1)) for first, degrees, frames in self._due)
        self._due = [beat for beat in self._due if self._frame < beat[0] + beat[2]]
        self._frame += 1
        starting = self._speaking and self._phrase[0] < FPS
        return Reaction(nod, tilt, brow, attention, ATTENTIVE_BLINKS if starting else 1.0)

    def _hear(self, level: float) -> None:
        """One more frame of sound, `level` in dB of full scale."""
        random = np.random.Generator(
            np.random.Philox(key=np.array([self._seed, 0x0EA2], np.uint64), counter=[0, 0, 0, self._heard])
        )
        self._heard += 1
        self._floor += FLOOR_FALL * (level - self._floor) if level < self._floor else FLOOR_RISE
        voiced = level > max(self._floor + ABOVE_FLOOR, QUIETEST_VOICE)
        self._voiced = self._voiced + 1 if voiced else 0
        self._unvoiced = 0 if voiced else self._unvoiced + 1
        if voiced:
            frames, total, recent = self._phrase
            share = 0.25 if frames else 1.0
            self._phrase = [frames + 1.0, total + level, recent + share * (level - recent)]
        if not self._speaking and self._voiced >= ONSET:
            self._speaking = True
            self._last_nod = self._frame
        elif self._speaking and self._unvoiced >= HANGOVER:
            self._speaking = False
            self._phrase_ends(random)
        elif not self._speaking and self._unvoiced >= HANGOVER:
            self._phrase = [0.0, 0.0, 0.0]
        elif self._speaking and self._unvoiced >= 2 and self._frame - self._last_nod > LONG:
            dips = 0.25  # about this share of the frames of speech lies so deep in a dip
            if random.random() < NODS_PER_SECOND / FPS / dips:
                self._nod(random, 0, 0.7)

    def _phrase_ends(self, random: np.random.Generator) -> None:
        frames, total, recent = self._phrase
        self._phrase = [0.0, 0.0, 0.0]
        if frames < PHRASE:
            return
        if recent - total / frames > RISING:
            brow, tilt = QUESTION
            self._aim[:2] = (
                tilt * random.choice((-1.0, 1.0)) * random.uniform(0.5, 1.0),
                brow * random.uniform(0.6, 1.0),
            )
            self._aim_until = self._frame + int(FPS * random.uniform(1.0, 1.8))
        if random.random() < NOD_AT_PAUSE:
            self._nod(random, int(random.integers(0, 6)), 1.0)

    def _nod(self, random: np.random.Generator, wait: int, strength: float) -> None:
        """One or two beats from `wait` frames on, unless there was one just now."""
        first = self._frame + wait
        if first < self._free_from:
            return
        degrees = strength * random.uniform(*NOD_DEGREES)
        for beat in range(1 + (random.random() < SECOND_BEAT)):
            frames = int(random.integers(*BEAT, endpoint=True))
            self._due.append((first, degrees * (1.0, 0.55)[beat], frames))
            first += frames
        self._free_from, self._last_nod = first + NOD_GAP, first


def _beat(share: float) -> float:
    """A nod's way down and up, at a share of its time: zero and at rest at both ends, down faster than up."""
    if not 0.0 < share < 1.0:
        return 0.0
    return float(np.sin(np.pi * share**0.8) ** 2)
