"""Does the mouth say what the voice says: visemes heard, and lips re-tracked on rendered video beside real ones.

    python -m benchmarks.lips [--bundle lite] [--latency quality] [--portrait FILE] [--all]

Everything runs on the streaming path, hop by hop, at the latency asked for. Beside our figures stand those of a mouth that
only follows the loudness, drawn by the same renderer, and of our motion before it is rendered.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import measures
from benchmarks._motions import rows_of
from benchmarks._report import Figure, figures_table, publish, rows_table
from benchmarks.faces import SHARED, example_portrait, face_window, grid_holdout, spread, track, tracked_clip
from benchmarks.speech import Samples, load_alignments, phone_posteriors, read_speech
from ditto.errors import InputError
from ditto.lite.latency import FRAMES_PER_HOP
from ditto.lite.speech_encoder import HOP_SAMPLES
from ditto.media.audio import SAMPLE_RATE
from ditto.motion.motion import DEGREES, EXPRESSION, FPS, KEYPOINTS, MOTION_SIZE, Keypoint, retarget
from ditto.performer import check_latency
from ditto.portrait.portrait import Portrait
from ditto.row_performer import RowPerformer
from ditto.stream import SAMPLES_PER_FRAME, Frame, Stream
from ditto.talking_head import TalkingHead, load

Floats = npt.NDArray[np.float64]
Loudness = tuple[Samples, float, float]

ANGLES = ("pitch", "yaw", "roll")
UPPER_LIP, LOWER_LIP, CHIN = Keypoint.UPPER_INNER_LIP, Keypoint.LOWER_INNER_LIP, Keypoint.CHIN
WIDEST_GAP = 0.1  # face units, of the loudness mouth
GRID_BILABIAL_WORDS = ("bin", "blue", "by", "please", "place", "b", "p")  # of the GRID grammar: those that begin closed


class LoudnessEncoder:
    """The encoder of the loudness mouth: one number a frame, the level within the last 30 dB of a running peak.

    Same hop and look-ahead as the speech encoder. State: (previous hop's rows (2,), peak in dB, smoothed level).
    """

    hop_samples = HOP_SAMPLES
    lead_features = FRAMES_PER_HOP

    def initial_state(self, batch: int) -> Loudness:
        return np.zeros(FRAMES_PER_HOP, np.float32), -40.0, 0.0

    def step_batch(self, hops: Sequence[Samples], states: Sequence[Loudness]) -> list[tuple[Samples, Loudness]]:
        return [self._step(hop, state) for hop, state in zip(hops, states, strict=True)]

    def _step(self, samples: Samples, state: Loudness) -> tuple[Samples, Loudness]:
        before, peak, level = state
        rows = np.zeros(FRAMES_PER_HOP, np.float32)
        for i, block in enumerate(samples.reshape(FRAMES_PER_HOP, SAMPLES_PER_FRAME)):
            decibel = 10.0 * np.log10(float(np.mean(block.astype(np.float64) ** 2)) + 1e-10)
            peak = max(decibel, peak - 0.05)
            level += 0.6 * (float(np.clip((decibel - peak + 30.0) / 30.0, 0.0, 1.0)) - level)
            rows[i] = level
        return before.reshape(FRAMES_PER_HOP, 1), (rows, peak, level)


class LoudnessMouth:
    """The sampler of the loudness mouth: opens the mouth by the level, at once; nothing else moves."""

    latencies = ("quality",)
    delay_seconds = 2 * HOP_SAMPLES / SAMPLE_RATE

    def at(self, latency: str) -> LoudnessMouth:
        return self

    def begin(self, portrait: Portrait, seed: int) -> None:
        return None

    def step_batch(
        self,
        features: Sequence[Samples],
        emotions: Sequence[Samples],
        states: Sequence[None],
        final: Sequence[bool],
    ) -> list[tuple[Samples, None]]:
        return [(self._rows(block), None) for block in features]

    def _rows(self, features: Samples) -> Samples:
        motion = np.zeros((len(features), MOTION_SIZE), np.float32)
        lips = motion[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)
        gap = WIDEST_GAP * features[:, 0]
        lips[:, LOWER_LIP, 1] = 0.92 * gap
        lips[:, UPPER_LIP, 1] = -0.08 * gap
        lips[:, CHIN, 1] = 0.5 * gap
        return motion


class Spoken(NamedTuple):
    """One rendered utterance of T frames.

    Attributes:
        rendered: (T,) lip opening in face widths, re-tracked on the frames.
        motion: (T,) the same before rendering.
        pose: (T, 3) pitch, yaw and roll in degrees.
        seconds: processor time from samples to frames.
    """

    rendered: Floats
    motion: Floats
    pose: Floats
    seconds: float


def spoken_frames(stream: Stream, samples: Samples) -> Iterator[Frame]:
    """All frames of a recording, pushed hop by hop."""
    for start in range(0, len(samples), HOP_SAMPLES):
        yield from stream.push(samples[start : start + HOP_SAMPLES])
    yield from stream.flush()


def speak(head: TalkingHead, portrait: Portrait, samples: Samples, latency: str = "quality", seed: int = 0) -> Spoken:
    """Animate, and track the lips of what comes out."""
    window = face_window(portrait)
    stream = head.stream(portrait, seed=seed, latency=latency)
    pictures, motions = [], []
    begun = time.process_time()
    for frame in spoken_frames(stream, samples):
        pictures.append(frame.image[window].copy())
        motions.append(frame.motion)
    seconds = time.process_time() - begun
    delta = np.array([retarget(portrait, motion).delta for motion in motions])
    return Spoken(
        measures.lip_opening(track(pictures)),
        delta[:, LOWER_LIP, 1] - delta[:, UPPER_LIP, 1],
        np.array([motion.values[DEGREES] for motion in motions], np.float64),
        seconds,
    )


def hear(encoder: Any, speech: dict[Path, list[measures.Segment]]) -> measures.VisemeScores:
    """Strict viseme scores at 50 Hz over all utterances."""
    scores = []
    for path, segments in speech.items():
        posteriors = phone_posteriors(encoder, read_speech(path))
        said = measures.labels_at(segments, measures.frame_times(len(posteriors), 50.0))
        scores.append(measures.viseme_scores(posteriors, said))
    total = scores[0]
    for score in scores[1:]:
        total = total + score
    return total


class Agreement(NamedTuple):
    """Over clips: mean correlation with the real speaker at zero and best lag, median absolute lag in frames."""

    zero_lag: float
    best: float
    lag: float

    @classmethod
    def of(cls, matches: Sequence[measures.Match]) -> Agreement:
        lag = float(np.median([abs(m.lag) for m in matches]))
        return cls(float(np.mean([m.zero_lag for m in matches])), float(np.mean([m.best for m in matches])), lag)


def grid_words(path: Path) -> list[tuple[float, float, str]]:
    """Start, end in seconds and word, from the clip's .align (1/25000 s); empty where there is none."""
    align = path.with_suffix(".align")
    if not align.exists():
        return []
    rows = [line.split() for line in align.read_text().splitlines() if line.strip()]
    return [(int(a) / 25000, int(b) / 25000, word) for a, b, word in rows]


def onsets_closed(opening: Floats, words: Sequence[tuple[float, float, str]]) -> list[bool]:
    """For each word that begins with closed lips: do they close within 2 frames of its onset?"""
    inside = measures.in_range(opening)
    at = [int(start * 25) for start, _, word in words if word in GRID_BILABIAL_WORDS]
    return [bool(np.nanmin(inside[max(0, i - 2) : i + 3]) < measures.CLOSED) for i in at if i < len(inside)]


class GridResult(NamedTuple):
    """One set of real clips: agreement of each mouth with the real one, and closures at word onsets."""

    ours: Agreement
    motion: Agreement
    loudness: Agreement
    loudness_motion: Agreement
    rows: list[list[Any]]
    onsets: dict[str, list[bool]]


def compare_grid(
    ours: TalkingHead, loudness: TalkingHead, portrait: Portrait, clips: Sequence[Path], latency: str
) -> GridResult:
    matches: dict[str, list[measures.Match]] = {"ours": [], "motion": [], "loudness": [], "loudness motion": []}
    onsets: dict[str, list[bool]] = {"ours": [], "loudness": [], "real": []}
    rows: list[list[Any]] = []
    for path in clips:
        clip = tracked_clip(path)
        real = measures.lip_opening(clip.landmarks)
        said = {
            "ours": speak(ours, portrait, clip.samples, latency),
            "loudness": speak(loudness, portrait, clip.samples),
        }
        for name, spoken in said.items():
            matches[name].append(measures.correlate(spoken.rendered, real))
            matches["motion" if name == "ours" else "loudness motion"].append(measures.correlate(spoken.motion, real))
        words = grid_words(path)
        for name, curve in (("ours", said["ours"].rendered), ("loudness", said["loudness"].rendered), ("real", real)):
            onsets[name] += onsets_closed(curve, words)
        own, rms = matches["ours"][-1], matches["loudness"][-1]
        rows.append([path.stem, own.best, own.zero_lag, own.lag, matches["motion"][-1].best, rms.best, rms.lag])
    agreements = {name.replace(" ", "_"): Agreement.of(found) for name, found in matches.items()}
    return GridResult(**agreements, rows=rows, onsets=onsets)


class Closures(NamedTuple):
    """Of one mouth over all utterances: shares of frames, events and pauses in which the lips are closed."""

    bilabial_frames: float
    bilabial_events: float
    pause_frames: float
    pauses: float


def closures(curves: Sequence[Floats], segments: Sequence[list[measures.Segment]]) -> Closures:
    """Curves (T,) of lip opening with their phones -> shares below .15 of each clip's own range."""
    frames: list[bool] = []
    events: list[bool] = []
    still: list[bool] = []
    long: list[bool] = []
    for curve, phones in zip(curves, segments, strict=True):
        closed = measures.in_range(curve) < measures.CLOSED  # a frame without a face is not closed
        frames += closed[measures.bilabial_frames(phones, len(closed))].tolist()
        events += [bool(closed[event].any()) for event in measures.bilabial_events(phones, len(closed))]
        still += closed[measures.pause_frames(phones, len(closed))].tolist()
        spans = [slice(int(a * 25), min(int(b * 25), len(closed))) for a, b in measures.pauses(phones)]
        long += [bool(closed[span].any()) for span in spans if span.start < span.stop]
    return Closures(*(measures.share(flags) for flags in (frames, events, still, long)))


def closing_speed(curves: Sequence[Floats]) -> float:
    """Curves (T,) of lip opening -> how much they fall from one frame to the next at most, but for 1 frame in 200."""
    return float(np.percentile(np.concatenate([-np.diff(curve) for curve in curves]), 99.5))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lips", description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", default="lite")
    parser.add_argument("--latency", default="quality")
    parser.add_argument("--portrait", type=Path, help="a photograph; the example by default")
    parser.add_argument("--data", type=Path, default=SHARED, help="folder with grid_other, grid_s1, speech")
    parser.add_argument("--clips", type=int, default=12, help="how many of the GRID s1 hold-out clips to render")
    parser.add_argument("--utterances", type=int, default=8, help="how many test utterances to render")
    parser.add_argument("--all", action="store_true", help="every hold-out clip and every test utterance")
    options = parser.parse_args(arguments)
    started = time.perf_counter()

    ours = load(options.bundle)
    try:
        check_latency(options.latency, ours.performer.latencies)
        performer = rows_of(ours.performer)
    except (ValueError, InputError) as error:
        parser.error(str(error))
    mouth = RowPerformer(LoudnessEncoder(), LoudnessMouth(), performer.renderer, performer.motion_space)
    loudness = TalkingHead(ours.bundle, mouth)
    portrait = ours.register(options.portrait or example_portrait())

    speech = load_alignments(options.data / "speech" / "librispeech_test")
    heard = hear(performer.encoder, speech)

    other = compare_grid(ours, loudness, portrait, sorted((options.data / "grid_other").glob("*.mpg")), options.latency)
    holdout = grid_holdout(options.data / "grid_s1")
    chosen = holdout if options.all else spread(holdout, options.clips)
    kept_out = compare_grid(ours, loudness, portrait, chosen, options.latency)

    utterances = list(speech) if options.all else spread(list(speech), options.utterances)
    segments = [speech[path] for path in utterances]
    own = [speak(ours, portrait, read_speech(path), options.latency) for path in utterances]
    rms = [speak(loudness, portrait, read_speech(path)) for path in utterances]
    lips = closures([s.rendered for s in own], segments)
    lips_motion = closures([s.motion for s in own], segments)
    lips_rms = closures([s.rendered for s in rms], segments)
    turning = np.mean([s.pose.std(0) for s in own], axis=0)

    def agreement(name: str, result: GridResult, bar: float) -> list[Figure]:
        def figure(words: str, field: str, low: float | None = None, high: float | None = None) -> Figure:
            others = {"RMS mouth": result.loudness, "motion": result.motion, "RMS motion": result.loudness_motion}
            beside = {column: float(getattr(other, field)) for column, other in others.items()}
            return Figure(f"{name}: {words}", getattr(result.ours, field), low, high, beside)

        return [
            figure("r of lip opening, best lag", "best", low=bar),
            figure("r, zero lag", "zero_lag"),
            figure("median |lag|, frames", "lag", high=1.0),
        ]

    def closing(name: str, field: str, bar: float | None) -> Figure:
        beside = {"RMS mouth": getattr(lips_rms, field), "motion": getattr(lips_motion, field)}
        return Figure(name, getattr(lips, field), low=bar, beside=beside)

    def onset(who: str) -> float:
        return measures.share(kept_out.onsets[who])

    figures = [
        Figure("visemes, all frames", heard.accuracy, low=0.66),
        Figure("visemes, without silence", heard.accuracy_without_silence, low=0.55),
        Figure("recall of P, B, M", heard.recall("PBM"), low=0.70),
        Figure("recall of F, V", heard.recall("FV"), low=0.70),
        *agreement("grid_other", other, 0.58),
        *agreement("grid_s1 hold-out", kept_out, 0.70),
        closing("bilabial frames under .15 of the range", "bilabial_frames", 0.90),
        closing("bilabials that close at all", "bilabial_events", None),
        closing("pause frames with closed lips", "pause_frames", 0.95),
        closing("pauses in which the lips close", "pauses", None),
        Figure(
            "GRID words on b, p: closed at the onset",
            onset("ours"),
            beside={"RMS mouth": onset("loudness"), "real": onset("real")},
        ),
        Figure("fastest closing of the lips, fu a frame (99.5 %)", closing_speed([s.motion for s in own])),
        *(Figure(f"head: std of {name}, degrees", value) for name, value in zip(ANGLES, turning, strict=True)),
        Figure(
            "processor seconds a second of speech", sum(s.seconds for s in own) * FPS / sum(len(s.motion) for s in own)
        ),
    ]
    columns = ["clip", "r best", "r zero", "lag", "motion r", "RMS r", "RMS lag"]
    tables = [
        figures_table(f"Lips, {options.latency}", figures),
        rows_table("grid_other", columns, other.rows),
        rows_table("GRID s1, kept out of training", columns, kept_out.rows),
    ]
    recalls = {name: heard.recall(name) for name in measures.VISEME_NAMES}
    publish(
        "lips",
        figures,
        tables,
        latency=options.latency,
        recall=recalls,
        seconds=time.perf_counter() - started,
        rendered=len(utterances),
    )


if __name__ == "__main__":
    main()
