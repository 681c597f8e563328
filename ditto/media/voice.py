"""Voice activity detection: which blocks of sound are voice, by their level over a running noise floor."""

from __future__ import annotations

from collections import deque

# Against the phone alignments of 25 utterances of LibriSpeech test-other, each with 4 s of silence and with no noise, pink
# noise at 20 and 10 dB, hum at 10 dB, white noise at 15 dB: hits and correct rejections average 0.92, 0.77, 0.67, 0.65 and
# 0.72 (blocks of 40 ms) and 0.92, 0.77, 0.70, 0.68 and 0.73 (20 ms). A floor that rises 1 dB a second under a threshold of
# 10 dB, at least -46 dB, has 0.89, 0.72, 0.56, 0.56 and 0.67.
FLOOR_SECONDS = 4  # speech has a dip within this time: the lowest level in it is the noise
FIRST_FLOOR, LOWEST_FLOOR = -60.0, -75.0  # dB of full scale: before the first measurement, and of digital silence
ABOVE_FLOOR = 9.0  # dB over the noise from which sound counts as voice
QUIETEST_VOICE = -52.0  # dB of full scale; a quieter block is never voice


class VoiceDetector:
    """Says of one block after the other whether it is voice.

    Args:
        blocks_per_second: 25 to 50 have been measured.
    """

    def __init__(self, blocks_per_second: int) -> None:
        blocks = FLOOR_SECONDS * blocks_per_second
        self._past = deque([FIRST_FLOOR] * blocks, maxlen=blocks)

    def is_voice(self, level: float) -> bool:
        """Whether the next block, of `level` dB of full scale (RMS), is voice."""
        self._past.append(max(level, LOWEST_FLOOR))
        return level > max(min(self._past) + ABOVE_FLOOR, QUIETEST_VOICE)
