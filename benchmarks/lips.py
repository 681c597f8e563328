"""Does the mouth say what the voice says: visemes heard, and lips re-tracked on rendered video beside real ones.

    python -m benchmarks.lips [--bundle lite] [--latency quality] [--portrait FILE] [--motion-only] [--all]

Everything runs on the streaming path, hop by hop, at the latency asked for. Beside our figures stand those of a mouth that
only follows the loudness, drawn by the same renderer, and of our motion before it is rendered. The natural cuts are scored
with their sound moved earlier by the two frames that it is late; nothing of them is shown or written.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks import measures
from benchmarks._motions import rows_of, said, style_option, without_pictures
from benchmarks._report import Figure, figures_table, publish, rows_table
from benchmarks.faces import SHARED, example_portrait, face_window, grid_holdout, spread, track, tracked_clip
from benchmarks.natural import (
    PAUSES,
    Cut,
    Mouth,
    Statistics,
    TalkFigures,
    natural_cuts,
    pause_counts,
    phones_of,
    statistics,
    talk_figures,
)
from benchmarks.speech import Samples, load_alignments, phone_posteriors, read_speech
from ditto.commands import Arguments, existing_folder, run, whole_number
from ditto.errors import InputError
from ditto.lite.latency import FRAMES_PER_HOP
from ditto.lite.speech_encoder import HOP_SAMPLES
from ditto.media.audio import SAMPLE_RATE
from ditto.motion.motion import DEGREES, EXPRESSION, FPS, KEYPOINTS, MOTION_SIZE, Keypoint
from ditto.performer import check_latency
from ditto.portrait.portrait import Portrait
from ditto.row_performer import RowPerformer
from ditto.stream import SAMPLES_PER_FRAME
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
    """One utterance of T frames.

    Attributes:
        mouths: "rendered", re-tracked on the frames (unless nothing was rendered), and "motion", before rendering.
        pose: (T, 3) pitch, yaw and roll in degrees.
        seconds: processor time from samples to frames.
    """

    mouths: dict[str, Mouth]
    pose: Floats
    seconds: float


class Speaker(NamedTuple):
    """Who speaks: a head with a portrait, and the options of its streams; rendered or not."""

    head: TalkingHead
    portrait: Portrait
    options: dict[str, Any]
    rendered: bool

    def say(self, samples: Samples) -> Spoken:
        """Animate, and track the lips of what comes out."""
        window = face_window(self.portrait)
        stream = self.head.stream(self.portrait, seed=0, **self.options)
        pictures, motions = [], []
        begun = time.process_time()
        for frame in said(stream, samples):
            if self.rendered:
                pictures.append(frame.image[window].copy())
            motions.append(frame.motion)
        seconds = time.process_time() - begun
        space = rows_of(self.head.performer).motion_space
        mouths = {"motion": Mouth.before_rendering(space, self.portrait, motions)}
        if self.rendered:
            mouths = {"rendered": Mouth.seen(track(pictures)), **mouths}
        return Spoken(mouths, np.array([motion.values[DEGREES] for motion in motions], np.float64), seconds)


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

    agreements: dict[str, Agreement]
    onsets: dict[str, list[bool]]
    rows: list[list[Any]]


def compare_grid(ours: Speaker, clips: Sequence[Path], loudness: dict[Path, Spoken]) -> GridResult:
    """Mouths by the names of `all_mouths`, and "real"."""
    matches: dict[str, list[measures.Match]] = {}
    onsets: dict[str, list[bool]] = {}
    rows: list[list[Any]] = []
    for path in clips:
        clip = tracked_clip(path)
        real = measures.lip_opening(clip.landmarks)
        mouths = all_mouths(ours.say(clip.samples), loudness[path])
        words = grid_words(path)
        for name, mouth in mouths.items():
            matches.setdefault(name, []).append(measures.correlate(mouth.opening, real))
        for name, curve in [*((name, mouth.opening) for name, mouth in mouths.items()), ("real", real)]:
            onsets.setdefault(name, []).extend(onsets_closed(curve, words))
        own = matches[next(iter(mouths))][-1]
        rows.append(
            [path.stem, own.best, own.zero_lag, own.lag, *(matches[name][-1].best for name in list(mouths)[1:])]
        )
    return GridResult({name: Agreement.of(found) for name, found in matches.items()}, onsets, rows)


def all_mouths(ours: Spoken, loudness: Spoken) -> dict[str, Mouth]:
    """Ours, then the loudness mouth's: each rendered, if it was, then before rendering."""
    return {**ours.mouths, **{f"RMS {name}": mouth for name, mouth in loudness.mouths.items()}}


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


def closed_after(opening: Floats, last_word: float, speech_frames: int) -> bool:
    """Whether the lips are closed in every frame from 1 s after the last word (s) to the end of the curve.

    Closed: under .15 of the range that they have in the first `speech_frames` frames.
    """
    low, high = np.nanpercentile(opening[:speech_frames], [2.0, 98.0])
    after = opening[int(np.ceil((last_word + 1.0) * FPS)) :]
    return bool(len(after) and (after < low + measures.CLOSED * (high - low)).all())


def closing_speed(curves: Sequence[Floats]) -> float:
    """Curves (T,) of lip opening -> how much they fall from one frame to the next at most, but for 1 frame in 200."""
    return float(np.percentile(np.concatenate([-np.diff(curve) for curve in curves]), 99.5))


SILENCE_AFTER = np.zeros(2 * SAMPLE_RATE, np.float32)  # said after every test utterance


class Material(NamedTuple):
    """What is said, the real clips, and what the loudness mouth makes of them: the same for every latency.

    Attributes:
        heard: viseme scores of the encoder.
        grid_other, holdout: paths of real clips.
        utterances: samples of each test utterance, without the silence after it; segments: its phones.
        cuts: of natural talk.
        phones: probabilities (T, 40) heard in each cut and utterance, by name.
        expected: statistics of natural talk.
        loudness: of the loudness mouth, by path of a clip or utterance and name of a cut.
    """

    heard: measures.VisemeScores
    grid_other: list[Path]
    holdout: list[Path]
    utterances: dict[Path, Samples]
    segments: dict[Path, list[measures.Segment]]
    cuts: list[Cut]
    phones: dict[Any, Floats]
    expected: Statistics
    loudness: dict[Any, Spoken]


def gather(options: argparse.Namespace, encoder: Any, loudness: Speaker) -> Material:
    speech = load_alignments(options.data / "speech" / "librispeech_test")
    other = sorted((options.data / "grid_other").glob("*.mpg"))
    holdout = grid_holdout(options.data / "grid_s1")
    holdout = holdout if options.all else spread(holdout, options.clips)
    paths = list(speech) if options.all else spread(list(speech), options.utterances)
    utterances = {path: read_speech(path) for path in paths}
    cuts = natural_cuts(options.data / "natural_talk")
    phones = {cut.name: phones_of(encoder, cut.samples) for cut in cuts}
    phones |= {path: phones_of(encoder, samples) for path, samples in utterances.items()}
    spoken = {path: loudness.say(tracked_clip(path).samples) for path in [*other, *holdout]}
    spoken |= {path: loudness.say(np.r_[samples, SILENCE_AFTER]) for path, samples in utterances.items()}
    spoken |= {cut.name: loudness.say(cut.samples) for cut in cuts}
    segments = {path: speech[path] for path in paths}
    return Material(hear(encoder, speech), other, holdout, utterances, segments, cuts, phones, statistics(), spoken)


def natural_figures(ours: dict[str, Speaker], material: Material) -> list[Figure]:
    """Rows of the nine cuts; a speaker for each cut, by name."""
    real = [Mouth.seen(cut.landmarks) for cut in material.cuts]
    heard = [material.phones[cut.name] for cut in material.cuts]
    mouths = [all_mouths(ours[cut.name].say(cut.samples), material.loudness[cut.name]) for cut in material.cuts]
    found = {name: talk_figures([m[name] for m in mouths], heard, material.expected, real) for name in mouths[0]}
    found["real"] = talk_figures(real, heard, material.expected, real)
    first = next(iter(mouths[0]))

    def figure(
        words: str, field: Callable[[TalkFigures], float], low: float | None = None, high: float | None = None
    ) -> Figure:
        beside = {name: field(figures) for name, figures in found.items() if name != first}
        return Figure(f"natural cuts: {words}", field(found[first]), low, high, beside)

    rows = [
        figure("r of lip opening, best lag", lambda f: f.opening, 0.72),
        figure("r, zero lag", lambda f: f.zero_lag),
        figure("median |lag|, frames", lambda f: f.lag, None, 1.0),
        figure("r of mouth width, best lag", lambda f: f.width),
        figure("phone means of opening against natural talk, r", lambda f: f.phones),
    ]
    for i, ((low, high), count) in enumerate(zip(PAUSES, pause_counts(heard), strict=True)):
        rows.append(figure(f"opening in {count} pauses of {low}-{high} frames, z", lambda f, i=i: f.pauses[i]))
    return [
        *rows,
        figure("frames with a gap under .01 fw", lambda f: f.closed),
        figure("frames under .15 of the range", lambda f: f.closed_of_range),
        figure("frames heard as p, b, m under .15 of the range", lambda f: f.bilabials),
    ]


def utterance_figures(spoken: dict[Path, dict[str, Mouth]], material: Material) -> list[Figure]:
    """Rows of the test utterances: closures, pauses, the end; phone means over them and the pauses inside them."""
    paths = list(spoken)
    segments = [material.segments[path] for path in paths]
    heard = [material.phones[path] for path in paths]
    lengths = [-(-len(material.utterances[path]) // SAMPLES_PER_FRAME) for path in paths]
    names = list(spoken[paths[0]])
    speech = {name: [spoken[path][name][:n] for path, n in zip(paths, lengths, strict=True)] for name in names}
    closed = {name: closures([mouth.opening for mouth in speech[name]], segments) for name in names}
    talk = {name: talk_figures(speech[name], heard, material.expected) for name in names}
    last_words = [max(end for _, end, phone in phones if phone != "SIL") for phones in segments]
    after = {
        name: measures.share(
            [
                closed_after(spoken[path][name].opening, end, n)
                for path, end, n in zip(paths, last_words, lengths, strict=True)
            ]
        )
        for name in names
    }

    def figure(words: str, values: dict[str, float], low: float | None = None, high: float | None = None) -> Figure:
        return Figure(words, values[names[0]], low, high, {name: values[name] for name in names[1:]})

    def of_closures(field: str) -> dict[str, float]:
        return {name: float(getattr(found, field)) for name, found in closed.items()}

    rows = [
        figure("bilabial frames under .15 of the range", of_closures("bilabial_frames"), 0.93),
        figure("bilabials that close at all", of_closures("bilabial_events")),
        figure("pause frames (over .4 s) with closed lips", of_closures("pause_frames")),
        figure("pauses (over .4 s) in which the lips close", of_closures("pauses")),
        figure("lips closed from 1 s after the last word", after, 1.0),
        figure("phone means of opening against natural talk, r", {n: f.phones for n, f in talk.items()}, 0.93),
        figure("the same, phones weighed by their frames", {n: f.phones_weighted for n, f in talk.items()}),
    ]
    for i, ((low, high), count) in enumerate(zip(PAUSES, pause_counts(heard), strict=True)):
        words = f"utterances: opening in {count} pauses of {low}-{high} frames, z"
        bar = (-0.6, 0.5) if (low, high) == PAUSES[-1] else (None, None)
        rows.append(figure(words, {n: f.pauses[i] for n, f in talk.items()}, *bar))
    return [
        *rows,
        figure("utterances: frames with a gap under .01 fw", {n: f.closed for n, f in talk.items()}),
        figure("utterances: frames under .15 of the range", {n: f.closed_of_range for n, f in talk.items()}),
    ]


def grid_figures(title: str, result: GridResult, bar: float) -> list[Figure]:
    first = next(iter(result.agreements))

    def figure(words: str, field: str, low: float | None = None, high: float | None = None) -> Figure:
        beside = {name: float(getattr(other, field)) for name, other in result.agreements.items() if name != first}
        return Figure(f"{title}: {words}", getattr(result.agreements[first], field), low, high, beside)

    return [
        figure("r of lip opening, best lag", "best", low=bar),
        figure("r, zero lag", "zero_lag"),
        figure("median |lag|, frames", "lag", high=1.0),
    ]


def measured(material: Material, ours: Speaker, of_cuts: dict[str, Speaker]) -> tuple[list[Figure], list[Table]]:
    """All figures of one latency."""
    other = compare_grid(ours, material.grid_other, material.loudness)
    kept_out = compare_grid(ours, material.holdout, material.loudness)
    own = {path: ours.say(np.r_[samples, SILENCE_AFTER]) for path, samples in material.utterances.items()}
    mouths = {path: all_mouths(spoken, material.loudness[path]) for path, spoken in own.items()}
    turning = np.mean([s.pose.std(0) for s in own.values()], axis=0)
    onsets = {name: measures.share(flags) for name, flags in kept_out.onsets.items()}
    first = next(iter(onsets))
    heard = material.heard
    figures = [
        Figure("visemes, all frames", heard.accuracy, low=0.66),
        Figure("visemes, without silence", heard.accuracy_without_silence, low=0.55),
        Figure("recall of P, B, M", heard.recall("PBM"), low=0.70),
        Figure("recall of F, V", heard.recall("FV"), low=0.70),
        *natural_figures(of_cuts, material),
        *grid_figures("grid_other", other, 0.72),
        *grid_figures("grid_s1 hold-out", kept_out, 0.80),
        *utterance_figures(mouths, material),
        Figure(
            "GRID words on b, p: closed at the onset",
            onsets[first],
            beside={name: share for name, share in onsets.items() if name != first},
        ),
        Figure(
            "fastest closing of the lips, fu a frame (99.5 %)",
            closing_speed([s.mouths["motion"].opening for s in own.values()]),
        ),
        *(Figure(f"head: std of {name}, degrees", value) for name, value in zip(ANGLES, turning, strict=True)),
        Figure(
            "processor seconds a second of speech",
            sum(s.seconds for s in own.values()) * FPS / sum(len(s.pose) for s in own.values()),
        ),
    ]
    columns = ["clip", "r best", "r zero", "lag", *(f"{name} r" for name in list(other.agreements)[1:])]
    tables = [
        figures_table("Lips", figures, first),
        rows_table("grid_other", columns, other.rows),
        rows_table("GRID s1, kept out of training", columns, kept_out.rows),
    ]
    return figures, tables


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Arguments(prog="python -m benchmarks.lips", description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", default="lite")
    parser.add_argument("--latency", default="quality", help="a latency of the bundle, or all")
    parser.add_argument("--style", help="of the streams: a name or a number")
    parser.add_argument("--motion-only", action="store_true", help="the lips before rendering: seconds for minutes")
    parser.add_argument("--portrait", type=Path, help="a photograph; the example by default")
    parser.add_argument(
        "--data", type=Path, default=SHARED, help="folder with grid_other, grid_s1, natural_talk, speech"
    )
    parser.add_argument(
        "--clips", type=whole_number(1, 10**6), default=12, help="how many of the GRID s1 hold-out clips to say"
    )
    parser.add_argument("--utterances", type=whole_number(1, 10**6), default=8, help="how many test utterances to say")
    parser.add_argument("--all", action="store_true", help="every hold-out clip and every test utterance")
    cut_bundles = "folder of bundles by name of a natural cut, each trained without that cut, to say it with"
    parser.add_argument("--cut-bundles", type=existing_folder, help=cut_bundles)
    options = parser.parse_args(arguments)

    head = load(options.bundle)
    try:
        latencies = head.performer.latencies if options.latency == "all" else (options.latency,)
        for latency in latencies:
            check_latency(latency, head.performer.latencies)
        performer = rows_of(head.performer)
        style = style_option(options.style)
    except (ValueError, InputError) as error:
        parser.error(str(error))
    for name in ("grid_other", "grid_s1", "natural_talk", "speech"):
        if not (options.data / name).is_dir():
            parser.error(f"expected the folder {name} in {options.data}, got none; give another with --data")
    portrait = head.register(options.portrait or example_portrait())
    pictures = not options.motion_only

    def speaker(head: TalkingHead, **stream: Any) -> Speaker:
        return Speaker(head if pictures else without_pictures(head), portrait, stream, pictures)

    mouth = RowPerformer(LoudnessEncoder(), LoudnessMouth(), performer.renderer, performer.motion_space)
    material = gather(options, performer.encoder, speaker(TalkingHead(head.bundle, mouth)))
    cut_heads = {}
    for cut in material.cuts:
        own = options.cut_bundles / cut.name if options.cut_bundles else None
        cut_heads[cut.name] = load(own) if own else head

    compared: dict[str, list[Figure]] = {}
    for latency in latencies:
        started = time.perf_counter()
        of_cuts = {name: speaker(own, latency=latency, **style) for name, own in cut_heads.items()}
        figures, tables = measured(material, speaker(head, latency=latency, **style), of_cuts)
        compared[latency] = figures
        more: dict[str, Any] = {"recall": {name: material.heard.recall(name) for name in measures.VISEME_NAMES}}
        more |= {"seconds": time.perf_counter() - started, "utterances": len(material.utterances), "rendered": pictures}
        publish("lips", figures, tables, latency=latency, style=options.style, **more)
    if len(compared) > 1:
        rows = [[row[0].name, *(f.value for f in row)] for row in zip(*compared.values(), strict=True)]
        Console(width=150).print(rows_table("By latency", ["figure", *compared], rows))


if __name__ == "__main__":
    run(main)
