"""Which frames of a recording are voice: `ditto.media.voice` against forced alignments, clean and in noise.

    python -m benchmarks.voice

Each utterance stands between 2 s without speech and is measured at 25 frames a second. Balanced accuracy is the mean of
the part of the voiced frames that is found and the part of the others that is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks._report import Figure, publish, rows_table
from benchmarks.faces import SHARED
from benchmarks.speech import Samples, load_alignments, read_speech
from ditto.commands import Arguments, existing_folder, run, whole_number
from ditto.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.media.voice import VoiceDetector

Bools = npt.NDArray[np.bool_]
Noise = Callable[[int, np.random.Generator], Samples]


class Row(NamedTuple):
    """Accuracy in one condition."""

    noise: str
    decibel: float
    found: float
    left_out: float
    balanced: float


MARGIN = 2 * SAMPLE_RATE  # samples without speech before and after an utterance
LEVEL = 0.06  # RMS of the utterances
SILENT = {"SIL", "SPN", "", "sil", "sp", "spn"}


def pink(length: int, random: np.random.Generator) -> Samples:
    """Noise with equal power in every octave."""
    spectrum = np.fft.rfft(random.standard_normal(length))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0.0
    return np.fft.irfft(spectrum, length).astype(np.float32)


def white(length: int, random: np.random.Generator) -> Samples:
    return random.standard_normal(length).astype(np.float32)


def music(length: int, random: np.random.Generator) -> Samples:
    """Chords of three tones with eight partials each, struck every 0.4 s; a stand-in for music."""
    out = np.zeros(length)
    step = int(0.4 * SAMPLE_RATE)
    t = np.arange(2 * step) / SAMPLE_RATE
    for start in range(0, length, step):
        root = 110.0 * 2.0 ** (random.integers(0, 24) / 12.0)
        for ratio in (1.0, 1.26, 1.498):
            for partial in range(1, 9):
                tone = np.sin(2 * np.pi * root * ratio * partial * t) / partial * np.exp(-3.0 * t)
                part = out[start : start + len(t)]
                part += tone[: len(part)]
    return out.astype(np.float32)


def babble_of(speech: Sequence[Samples]) -> Noise:
    """Six other speakers at once."""

    def babble(length: int, random: np.random.Generator) -> Samples:
        out = np.zeros(length, np.float32)
        for number in random.choice(len(speech), 6, replace=False):
            out += np.resize(np.roll(speech[number], int(random.integers(SAMPLE_RATE))), length)
        return out

    return babble


def labels_of(segments: Sequence[tuple[float, float, str]], frames: int) -> Bools:
    """Whether a phone is spoken at the centre of each frame; `MARGIN` comes before the utterance."""
    centres = (np.arange(frames) + 0.5) / FPS - MARGIN / SAMPLE_RATE
    out = np.zeros(frames, bool)
    for start, end, phone in segments:
        if phone not in SILENT:
            out |= (centres >= start) & (centres < end)
    return out


def mixed(speech: Samples, noise: Samples | None, decibel: float) -> Samples:
    """An utterance between its margins, over a noise that is quieter by `decibel`."""
    padded = np.pad(speech * (LEVEL / np.sqrt((speech**2).mean())), MARGIN)
    padded = padded[: len(padded) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]
    if noise is not None:
        padded += noise[: len(padded)] * (LEVEL * 10 ** (-decibel / 20) / np.sqrt((noise**2).mean()))
    return padded.astype(np.float32)


def measure(detect: Callable[[Samples], Bools], data: Path, clips: int) -> tuple[list[Row], float]:
    """Rows of condition and accuracies, and the processor's milliseconds a second of sound."""
    alignments = load_alignments(data)
    names = sorted(alignments)[:: max(1, len(alignments) // clips)]
    speech = {name: read_speech(name) for name in names}
    noises: dict[str, Noise | None] = {"none": None, "white": white, "pink": pink, "music": music}
    noises["babble"] = babble_of(list(speech.values()))
    rows: list[Row] = []
    seconds = spent = 0.0
    for kind, make in noises.items():
        for decibel in (20.0, 10.0, 5.0) if make else (np.nan,):
            counts = np.zeros((2, 2))  # of label and answer
            for number, name in enumerate(names):
                random = np.random.default_rng(number)
                noise = None if make is None else make(len(speech[name]) + 2 * MARGIN, random)
                samples = mixed(speech[name], noise, decibel)
                began = time.process_time()
                found = detect(samples)
                spent += time.process_time() - began
                seconds += len(samples) / SAMPLE_RATE
                np.add.at(counts, (labels_of(alignments[name], len(found)).astype(int), found.astype(int)), 1)
            hit, rejected = counts[1, 1] / counts[1].sum(), counts[0, 0] / counts[0].sum()
            rows.append(Row(kind, decibel, hit, rejected, (hit + rejected) / 2))
    return rows, 1000 * spent / seconds


def detect(samples: Samples) -> Bools:
    """Whether each frame is voice, as a listening face decides it."""
    detector = VoiceDetector()
    return np.array([detector.push(frame)[-1] for frame in samples.reshape(-1, SAMPLES_PER_FRAME)])


def main(arguments: Sequence[str] | None = None) -> None:
    command = Arguments(prog="python -m benchmarks.voice", description=__doc__.split("\n")[0])
    command.add_argument("--data", type=existing_folder, default=SHARED, help="the data tree")
    command.add_argument("--clips", type=whole_number(6, 50), default=25, help="utterances, at most 50")
    options = command.parse_args(arguments)
    detect(np.zeros(SAMPLE_RATE * 2, np.float32))  # warm up
    rows, cost = measure(detect, options.data / "speech" / "librispeech_test", options.clips)
    mean = float(np.mean([row.balanced for row in rows]))
    figures = [Figure("balanced accuracy, mean of the conditions", mean), Figure("ms a second of sound", cost)]
    table = rows_table("Voice", ("noise", "dB below", "voice found", "rest left out", "balanced"), rows)
    publish("voice", figures, [table])


if __name__ == "__main__":
    run(main)
