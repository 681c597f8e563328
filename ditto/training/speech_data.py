"""The speech the encoder learns from: clips with phone labels where an alignment exists, and their augmentation.

Sources (folder names of the data tree): `speech/librispeech_train`, `speech/ljspeech`, `speech/librivox`,
`speech/two_cities_16k.flac`, `speech/tts`, and the sound of `grid_s1` out of its tracks. GRID clips whose place in the
sorted list of stems ends in 9 are kept out of all training; `speech/librispeech_test` is read by `read_test` only.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from ditto.lite.phones import PHONE_INDEX
from ditto.media.files import ffmpeg_name
from ditto.media.rates import SAMPLE_RATE as SAMPLE_RATE
from ditto.training import held_out

TOKEN = 320  # samples of one 50 Hz token

Floats = npt.NDArray[np.float32]
Segments = Sequence[tuple[float, float, str]]


@dataclass(frozen=True)
class Clip:
    """One utterance: samples (N,) int16 at 16 kHz, `phones` (N // 320,) class at 50 Hz or None, text or None."""

    name: str
    source: str
    samples: npt.NDArray[np.int16]
    phones: npt.NDArray[np.int64] | None = None
    text: str | None = None

    @property
    def waveform(self) -> Floats:
        return np.asarray(self.samples.astype(np.float32) / 32768, np.float32)


def read_audio(path: Path) -> Floats:
    """Mono samples at 16 kHz of any sound file."""
    blocks: list[Floats] = []
    with av.open(ffmpeg_name(path)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        for frame in container.decode(audio=0):
            blocks += [b.to_ndarray()[0] for b in resampler.resample(frame)]
        blocks += [b.to_ndarray()[0] for b in resampler.resample(None)]
    return np.concatenate(blocks).astype(np.float32)


def label_tokens(segments: Segments, tokens: int) -> npt.NDArray[np.int64]:
    """Phone class at the centre of each 50 Hz token; SIL where no segment lies.

    Args:
        segments: (start, end, ARPAbet phone) in seconds.
        tokens: Number of tokens.
    """
    labels = np.zeros(tokens, np.int64)
    centres = (np.arange(tokens) + 0.5) * TOKEN / SAMPLE_RATE
    for start, end, phone in segments:
        labels[(centres >= start) & (centres < end)] = PHONE_INDEX[phone]
    return labels


def make_clip(
    name: str, source: str, samples: Floats, segments: Segments | None = None, text: str | None = None
) -> Clip:
    """A clip of samples (N,) in [-1, 1], with phones where there are segments (start, end in seconds, phone)."""
    pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    phones = None if segments is None else label_tokens(segments, len(pcm) // TOKEN)
    return Clip(name, source, pcm, phones, text)


def read_train(data: Path, tracks: Path) -> list[Clip]:
    """Every clip the encoder may be trained on.

    Args:
        data: Folder with `speech` and `grid_s1`.
        tracks: Folder of `grid_s1` tracks (`.npz` with `samples`), see `ditto.training.tracks`.
    """
    speech = data / "speech"
    clips = [
        make_clip(p.stem, "librispeech", read_audio(p)) for p in sorted((speech / "librispeech_train").glob("*.opus"))
    ]
    with (speech / "ljspeech" / "transcript.csv").open(newline="") as handle:
        texts = {row[0]: row[1] for row in csv.reader(handle, delimiter="|", quoting=csv.QUOTE_NONE) if len(row) > 1}
    aligned = json.loads((speech / "ljspeech" / "alignments.json").read_text())
    for path in sorted((speech / "ljspeech").glob("*.opus")):
        segments = aligned[path.stem]["segs"] if path.stem in aligned else None
        clips.append(make_clip(path.stem, "ljspeech", read_audio(path), segments, texts.get(path.stem)))
    for path in sorted((speech / "librivox").glob("*.wav")):
        clips.append(make_clip(path.stem, "librivox", read_audio(path), None, path.with_suffix(".txt").read_text()))
    clips.append(make_clip("two_cities", "librivox", read_audio(speech / "two_cities_16k.flac")))
    clips += [make_clip(p.stem, "tts", read_audio(p)) for p in sorted((speech / "tts").glob("*.wav"))]
    for path in grid_train(sorted(tracks.glob("*.npz"))):
        words = (line.split() for line in (data / "grid_s1" / f"{path.stem}.align").read_text().splitlines())
        text = " ".join(w[2] for w in words if len(w) == 3 and w[2] not in {"sil", "sp"})
        with np.load(path) as track:
            clips.append(make_clip(path.stem, "grid", track["samples"], None, text))
    return clips


def grid_train(stems: Iterable[Path]) -> list[Path]:
    """The GRID clips that may be trained on: all but every tenth of the sorted list."""
    return [path for i, path in enumerate(sorted(stems, key=lambda p: p.stem)) if not held_out(i)]


def read_test(data: Path) -> list[Clip]:
    """The 50 labelled clips of unseen speakers (`speech/librispeech_test`), for measuring only."""
    folder = data / "speech" / "librispeech_test"
    aligned = json.loads((folder / "alignments.json").read_text())
    paths = sorted(folder.glob("*.flac"))
    return [make_clip(p.stem, "test", read_audio(p), aligned[p.stem]["segs"]) for p in paths if p.stem in aligned]


def add_alignments(clips: Sequence[Clip], path: Path) -> list[Clip]:
    """The clips, those without labels given them from the JSON {name: segments} that `ditto.training.align` writes."""
    found: dict[str, Segments] = json.loads(path.read_text())
    return [
        replace(c, phones=label_tokens(found[c.name], len(c.samples) // TOKEN))
        if c.phones is None and c.name in found
        else c
        for c in clips
    ]


def crop(clip: Clip, tokens: int, speed: float, start: float) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """A piece of a clip, resampled: `tokens` x 320 samples, the clip's token at each one's centre, and which exist.

    Args:
        speed: Samples of the clip per sample of the result (pitch and formants move with it).
        start: Where the piece begins, in samples of the clip; may be negative.
    """
    first = int(np.floor(start))
    count = int(np.ceil(tokens * TOKEN * speed)) + 2
    piece = np.zeros(count, np.float32)
    inner = clip.samples[max(first, 0) : max(first + count, 0)]
    piece[max(-first, 0) : max(-first, 0) + len(inner)] = inner / np.float32(32768)
    at = np.arange(tokens * TOKEN) * speed + (start - first)
    whole = at.astype(np.int64)
    part = (at - whole).astype(np.float32)
    samples = piece[whole] * (1 - part) + piece[whole + 1] * part
    places = ((np.arange(tokens) + 0.5) * TOKEN * speed + start) / TOKEN
    inside = (places >= 0) & (places < len(clip.samples) // TOKEN)
    return samples, places.astype(np.float32), inside


def augment(samples: Floats, random: np.random.Generator, babble: Sequence[Clip] = ()) -> Floats:
    """Another room, microphone, background and level for a piece of speech.

    Equaliser (sd 6 dB), reverberation (.05-.5 s), band limits, coloured noise or babble at 5-35 dB, soft clipping,
    and an RMS of -38 to -14 dB of full scale.
    """
    count = len(samples)
    spectrum = np.fft.rfft(samples)
    band = np.linspace(0, 1, len(spectrum))
    if random.random() < 0.7:
        knots = int(random.integers(4, 9))
        decibels = np.interp(np.sqrt(band), np.linspace(0, 1, knots), random.normal(0, 6, knots))
        spectrum = spectrum * 10 ** (decibels / 20)
    if random.random() < 0.3:
        length = int(random.uniform(0.05, 0.5) * SAMPLE_RATE)
        tail = random.normal(0, 1, length) * np.exp(-6.9 * np.arange(length) / length)
        tail *= random.uniform(0.1, 0.6) / np.sqrt((tail**2).sum())
        tail[0] += 1
        spectrum = spectrum * np.fft.rfft(tail, count)
    if random.random() < 0.25:
        low = random.uniform(0, 0.04) * random.integers(0, 2)
        spectrum = spectrum * ((band > low) & (band < random.uniform(0.4, 1.0)))
    out = np.fft.irfft(spectrum, count)
    out = out / (np.sqrt((out**2).mean()) + 1e-6)
    if random.random() < 0.75:
        ratio = random.uniform(5, 35)
        if len(babble) and random.random() < 0.25:
            noise = np.zeros(count)
            for _ in range(random.integers(1, 5)):
                voice = np.resize(babble[int(random.integers(len(babble)))].waveform, count)
                noise += voice / (np.sqrt((voice**2).mean()) + 1e-6)
            ratio = max(ratio, 8.0)
        else:
            colour = np.maximum(band, 1e-3) ** random.uniform(-1.5, 0.3)
            noise = np.fft.irfft(np.fft.rfft(random.normal(0, 1, count)) * colour, count)
        out = out + noise / (np.sqrt((noise**2).mean()) + 1e-9) * 10 ** (-ratio / 20)
    if random.random() < 0.15:
        out = np.tanh(out * random.uniform(0.5, 2))
    level = 10 ** (random.uniform(-38, -14) / 20)
    levelled: npt.NDArray[np.float64] = out / (np.sqrt((out**2).mean()) + 1e-6) * level
    return levelled.astype(np.float32)
