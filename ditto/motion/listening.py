"""Listening: reactions of a silent face to the speech of the other party: nods at pauses, the gaze held on the speaker.

Which frames are voice comes from `ditto.media.voice`. All random choices come from (seed, frame).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.media.audio import check_samples
from ditto.media.rates import FPS, SAMPLES_PER_FRAME
from ditto.media.voice import VoiceDetector

Array = npt.NDArray[np.float32]

# The numbers of this page were chosen by eye. tests/motion/test_listening.py holds how often and when the face nods.
MOST_WAITING = 10 * FPS  # frames of sound kept for later; older ones are dropped
CATCH_UP = 2 * FPS  # frames; sound that was never needed in all that time is processed at once
HELD = 8  # frames without sound that are bridged: sound comes over a network in bursts
ONSET, HANGOVER = 3, 7  # voiced frames that begin a phrase, unvoiced ones that end it
PHRASE = 15  # voiced frames; shorter ones ("yes") get no nod
NOD_AT_PAUSE = 0.7  # probability
NOD_AT_DIP = 0.25  # probability, at a short pause after LONG frames of speech without a nod
LONG = 4 * FPS
NOD_GAP = int(1.6 * FPS)  # frames from the end of a nod to the next
NOD_DEGREES = (2.0, 3.8)
SECOND_BEAT = 0.35  # probability of a second, smaller beat
BEAT = (10, 14)  # frames of a beat, shortest and longest
LOWEST_LEVEL = -75.0  # dB of full scale; lower ones, as of digital silence, count as this
RISING = 2.5  # dB by which the end of a phrase is louder than its mean
QUESTION = (2.4, 0.012)  # tilt in degrees and raise of the brows in face units, after a rising end
LEAN, LEAN_DEGREES = 0.4, (0.6, 1.7)  # probability of a tilt while a phrase begins, and how far
ATTENTION = 0.85  # while the other speaks
ATTENTIVE_BLINKS = 0.35  # of the usual rate, while a phrase begins
EASE = 0.16  # share per frame of the way of tilt, brow and attention; twice in a row


class Reaction(NamedTuple):
    """What listening adds to an idle face in one frame.

    Attributes:
        nod: pitch in degrees, down is positive.
        tilt: roll in degrees.
        brow: raise of the brows, face units.
        attention: in [0, 1]: how strongly the gaze is held on the camera.
        blinks: factor on the rate of blinks.
    """

    nod: float = 0.0
    tilt: float = 0.0
    brow: float = 0.0
    attention: float = 0.0
    blinks: float = 1.0


NEUTRAL = Reaction()


class Phrase(NamedTuple):
    """Speech since the last pause: voiced frames, the sum of their levels (dB), the level of the last few."""

    frames: int = 0
    total: float = 0.0
    recent: float = 0.0


class Beat(NamedTuple):
    """One nod of the head: its first frame, degrees, and frames."""

    first: int
    degrees: float
    frames: int


class Heard(NamedTuple):
    """A frame of sound: whether it is voice, and its level in dB of full scale."""

    voice: bool
    level: float


NO_SOUND = Heard(False, LOWEST_LEVEL)


class Listener:
    """Turns the speech of the other party into reactions, frame by frame. Used by one thread at a time.

    Each `react` takes one frame of sound; frames that came early wait. The reactions are the same however the samples are
    cut into pushes of up to two seconds.

    Args:
        seed: of all random choices.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed & 0xFFFFFFFFFFFFFFFF
        self._rest = np.zeros(0, np.float32)  # samples of a frame that is not full yet
        self._frames: deque[Heard] = deque(maxlen=MOST_WAITING)
        self._detector = VoiceDetector()
        self._waited = [0, MOST_WAITING]  # reactions since the last check, fewest frames that were waiting in them
        self._heard = 0  # frames of sound so far
        self._missing = 0  # frames in a row without sound
        self._voiced = self._unvoiced = 0  # frames in a row
        self._speaking = False
        self._phrase = Phrase()
        self._beats: list[Beat] = []
        self._frame = 0  # reactions since the first sound
        self._since = 0  # frame in which the other began to speak, or the last nod ended
        self._free_from = 0  # first frame in which another nod may begin
        self._aim = (0.0, 0.0)  # tilt and brow
        self._aim_until = 0
        self._eased = np.zeros((2, 3))  # tilt, brow and attention, half way and as shown

    def push(self, samples: npt.ArrayLike) -> None:
        """Take speech of the other party: (N,) float32 in [-1, 1] or int16, mono, 16 kHz.

        Raises:
            AudioError: samples of another kind, NaN or infinite.
        """
        sound = np.concatenate([self._rest, check_samples(samples)])
        whole = len(sound) // SAMPLES_PER_FRAME
        self._rest = sound[whole * SAMPLES_PER_FRAME :].copy()
        for block in sound[: whole * SAMPLES_PER_FRAME].reshape(whole, SAMPLES_PER_FRAME):
            level = 10.0 * float(np.log10(np.mean(np.square(block, dtype=np.float64)) + 1e-12))
            # A frame of 40 ms completes one or two of the detector's windows of 32 ms.
            self._frames.append(Heard(self._detector.push(block)[-1], max(level, LOWEST_LEVEL)))

    def react(self) -> Reaction:
        """The reaction of the next frame; neutral before the first sound."""
        if self._frames:
            for _ in range(1 + self._behind()):
                self._heard += 1
                self._missing = 0
                self._follow(self._frames.popleft())
        elif self._heard:
            self._waited = [0, MOST_WAITING]
            self._missing += 1
            if self._missing > HELD:
                self._follow(NO_SOUND)
        else:
            return NEUTRAL
        aim = (*(self._aim if self._frame < self._aim_until else (0.0, 0.0)), ATTENTION * self._speaking)
        self._eased[0] += EASE * (aim - self._eased[0])
        self._eased[1] += EASE * (self._eased[0] - self._eased[1])
        tilt, brow, attention = self._eased[1].tolist()
        nod = sum((b.degrees * _bow((self._frame - b.first + 1) / (b.frames + 1)) for b in self._beats), 0.0)
        self._beats = [b for b in self._beats if self._frame < b.first + b.frames]
        self._frame += 1
        begins = self._speaking and self._phrase.frames < FPS
        return Reaction(nod, tilt, brow, attention, ATTENTIVE_BLINKS if begins else 1.0)

    def _behind(self) -> int:
        """Frames of sound to process now beyond the one that is due, most often 0."""
        reactions, fewest = self._waited[0] + 1, min(self._waited[1], len(self._frames) - 1)
        self._waited = [reactions, fewest] if reactions < CATCH_UP else [0, MOST_WAITING]
        return fewest if reactions == CATCH_UP else 0

    def _follow(self, heard: Heard) -> None:
        """Follow the phrases of the other party by one frame, and begin the reactions that are due."""
        voiced, level = heard
        self._voiced = self._voiced + 1 if voiced else 0
        self._unvoiced = 0 if voiced else self._unvoiced + 1
        if voiced:
            frames, total, recent = self._phrase
            recent += (0.25 if frames else 1.0) * (level - recent)
            self._phrase = Phrase(frames + 1, total + level, recent)
        if not self._speaking and self._voiced >= ONSET:
            self._speaking = True
            self._since = self._frame
            random = self._random()
            if random.random() < LEAN:
                self._lean(random, random.uniform(*LEAN_DEGREES), 0.0, random.uniform(2.0, 5.0))
        elif self._speaking and self._unvoiced == 2 and self._frame - self._since > LONG:
            random = self._random()
            if random.random() < NOD_AT_DIP:
                self._nod(random, 0, 0.7)
        elif self._unvoiced >= HANGOVER:
            if self._speaking and self._phrase.frames >= PHRASE:
                self._phrase_ends(self._random())
            self._speaking, self._phrase = False, Phrase()

    def _phrase_ends(self, random: np.random.Generator) -> None:
        tilt, brow = QUESTION
        frames, total, recent = self._phrase
        if recent - total / frames > RISING:
            self._lean(
                random, tilt * random.uniform(0.5, 1.0), brow * random.uniform(0.6, 1.0), random.uniform(1.0, 1.8)
            )
        if random.random() < NOD_AT_PAUSE:
            self._nod(random, int(random.integers(0, 6)), 1.0)

    def _lean(self, random: np.random.Generator, tilt: float, brow: float, seconds: float) -> None:
        """Begin to tilt the head to one side and raise the brows, for some seconds."""
        self._aim = float(random.choice((-tilt, tilt))), brow
        self._aim_until = self._frame + int(FPS * seconds)

    def _nod(self, random: np.random.Generator, wait: int, strength: float) -> None:
        """Begin a nod of one or two beats in `wait` frames, unless one ended less than `NOD_GAP` ago."""
        first = self._frame + wait
        if first < self._free_from:
            return
        degrees = strength * random.uniform(*NOD_DEGREES)
        for share in (1.0, 0.55) if random.random() < SECOND_BEAT else (1.0,):
            beat = Beat(first, share * degrees, int(random.integers(*BEAT, endpoint=True)))
            self._beats.append(beat)
            first += beat.frames
        self._since, self._free_from = first, first + NOD_GAP

    def _random(self) -> np.random.Generator:
        """The random numbers of this frame."""
        key = np.array([self._seed, 0x0EA2], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, self._missing, self._heard]))


def _bow(share: float) -> float:
    """Depth of a nod, 0 to 1, at a share of its time: at rest at both ends, down faster than up."""
    return float(np.sin(np.pi * share**0.8) ** 2) if 0.0 < share < 1.0 else 0.0
