"""Text to speech by espeak-ng, if the server has it."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import DittoError
from ditto.live.server.limits import SPEAK_SECONDS
from ditto.live.server.protocol import ProtocolError

PROGRAM = "espeak-ng"
# espeak-ng opens PulseAudio even to list its languages, and that makes files in the user's folders. No server is here.
NO_SOUND_SERVER = {"PULSE_SERVER": "unix:/dev/null"}
WORDS_A_MINUTE = 155
NO_ESPEAK = "expected espeak-ng on the server to speak text, got none; install it there, or send sound"


class Voice(NamedTuple):
    """A language of espeak-ng."""

    code: str
    name: str


def voices() -> tuple[Voice, ...]:
    """The languages of espeak-ng, sorted by name; empty if it is not installed or fails."""
    program = shutil.which(PROGRAM)
    try:
        return () if program is None else _voices_of(program)
    except (OSError, subprocess.SubprocessError):
        return ()


@cache
def _voices_of(program: str) -> tuple[Voice, ...]:
    """Raises OSError or SubprocessError, which are not cached: the next call tries again."""
    listed = subprocess.run(
        [program, "--voices"], env=os.environ | NO_SOUND_SERVER, capture_output=True, text=True, timeout=10, check=True
    ).stdout
    rows = (line.split() for line in listed.splitlines()[1:])
    found = {row[1]: Voice(row[1], row[3].replace("_", " ")) for row in rows if len(row) > 3}
    return tuple(sorted(found.values(), key=lambda voice: voice.name))


def speech_of(text: str, voice: str = "en") -> tuple[npt.NDArray[np.int16], int]:
    """Speak a text: (N,) samples and their rate. Takes some tens of milliseconds; call it in a thread.

    The text reaches espeak-ng through a pipe, never through a shell or an argument.

    Raises:
        ProtocolError: no espeak-ng, a language that it lacks, or a text without anything to say.
        DittoError: espeak-ng failed or took too long.
    """
    program = shutil.which(PROGRAM)
    if program is None or not voices():
        raise ProtocolError("no_voice", NO_ESPEAK, 501)
    if not any(f"{known.code}-".startswith(f"{voice}-") for known in voices()):  # "en" is not listed, "en-gb" is
        raise ProtocolError("unknown_voice", f"expected a voice of those in GET /api/info, got {voice[:20]!r}; choose one")
    command = [program, "--stdin", "--stdout", "-b", "1", "-s", str(WORDS_A_MINUTE), "-v", voice]
    typed = re.sub(r"[\x00-\x1f\x7f]+", " ", text).encode("utf-8", "replace")
    try:
        environment = os.environ | NO_SOUND_SERVER
        done = subprocess.run(
            command, input=typed, env=environment, capture_output=True, timeout=SPEAK_SECONDS, check=True
        )
    except subprocess.TimeoutExpired:
        raise DittoError(f"expected espeak-ng to finish within {SPEAK_SECONDS:g} s, it did not; send less text") from None
    except (OSError, subprocess.CalledProcessError) as error:
        raise DittoError(f"espeak-ng failed ({error}); check its installation") from error
    samples, rate = samples_of_wav(done.stdout)
    if samples.size == 0:
        raise ProtocolError("bad_message", "expected a text with words, got nothing that espeak-ng can speak; send words")
    return samples, rate


def samples_of_wav(data: bytes) -> tuple[npt.NDArray[np.int16], int]:
    """16-bit samples and rate of a WAV from a pipe. Its header does not hold the length."""
    if len(data) < 44 or data[:4] != b"RIFF" or data[36:40] != b"data":
        return np.zeros(0, np.int16), 0
    (rate,) = struct.unpack_from("<I", data, 24)
    return np.frombuffer(data[44 : 44 + (len(data) - 44) // 2 * 2], "<i2").astype(np.int16), rate
