"""The report of `benchmarks.rtf`: figures with their bars, tables, and what each number means."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks._report import Figure, json_line, number
from benchmarks._rtf_machine import memory_gib, providers, weights
from benchmarks._rtf_measure import Loading, Run, Setting, Sync
from benchmarks._rtf_play import CHUNK, Flat, Turn
from benchmarks._rtf_trace import (
    BUFFER_FRAMES,
    FRAME_SECONDS,
    KINDS,
    OPEN_GAP,
    REST_GAP,
    Floats,
    Spread,
    clock_drift,
    lateness,
    missed,
    slope_per_minute,
)
from ditto.app.doctor import machine as describe_machine
from ditto.media.audio import SAMPLE_RATE

SLOPE_MINUTES = 5.0  # a shorter run is mostly warming up: its slope has no bar
QUIET_CORES = 0.1  # that other processes may use before figures are doubted
SESSIONS_HELD = {"pictures": 5.0, "motion": 15.0}  # at least, by what sessions give
STEP_NAMES = ("encoder, hop", "motion, window", "render, frame", "paste-back, frame", "conversion, frame")  # of STEPS

DEFINITIONS = f"""
**first frame**: until the reader holds the first frame of an utterance. *Paced*: speech is pushed in chunks of
{CHUNK * 1000 // SAMPLE_RATE} ms, each at the moment its last sample exists, into a session that idles; counted from the
moment the first sample exists, which is one chunk before its push. *Flat out*: the utterance is pushed as one piece, and
nothing waits for samples. *Algorithmic* is the part of the paced figure in which the samples that the frame waits for do
not exist yet; *compute* is the rest: processing, waiting for threads, handing over.

**deadline**: frame k of an utterance is due {1000 * FRAME_SECONDS:.0f} k ms after its first frame, and
{1000 * BUFFER_FRAMES * FRAME_SECONDS:.0f} ms more: a player that buffers {BUFFER_FRAMES} frame. Later is a miss. Counted
over all speech frames of all sessions, interrupted utterances included.

**real-time factor**: wall seconds from the push of an utterance as one piece to the end of its frames, over its length;
one session, its reader waiting. Beside it the processor seconds of the whole process for a second of speech.

**interrupt to rest**: from the call of `interrupt()`, made with an open mouth, to the showing of a frame whose lips are
within {REST_GAP} face units of rest. Frames are shown as they come, but {1000 * FRAME_SECONDS:.0f} ms after one another
at least, as a player does.

**A/V offset**: by how many frames the lips that are shown come after the sound that the same frames carry: the lag of
the highest correlation (whole frames, then a parabola). The same speech is said at the beginning and at the end of the run. A
lag against loudness is not zero for a perfect mouth, since lips move ahead of the voice; its change is what counts.
That every speech frame carries exactly its own samples is checked on each one.

**session clock**: how far the wall clock went ahead of index / 25 from the first frame of a run to the last (line of
least squares), most of any session. **memory slope**: least squares of the resident memory, read once a second, over the
last 80 % of the run.

**sessions held**: the most that speak at once with under 0.1 % of deadlines missed: doubled until it fails, then halved
between. Each converses by itself: utterances of up to 8 s, pauses of 0.4 to 1.6 s, every third one interrupted.

**load**: in a fresh process, its files in the system's cache; *load again* and *portrait* in this one.

**cores used**: processor time of the process over wall time. The thread that pushes, reads and measures (looking at each
frame's lips and sound) is in it, and stated by itself.

**repeatable**: *halves apart* is the difference of the medians of the first and second half of the repeats, as a share of
the median of all. The first of all repeats is left out; figures are medians and percentiles of repeats, each begun at another
phase of the session's 40 ms and 80 ms (from the seed); waiting is asleep, never spinning. What other processes computed
meanwhile is stated: with more than {QUIET_CORES} cores of it the figures are not to be trusted.
""".strip()


class Sheet(NamedTuple):
    """A table."""

    title: str
    columns: list[str]
    rows: list[list[Any]]

    @property
    def markdown(self) -> str:
        """As Markdown."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)]]
        lines += [[number(cell) if isinstance(cell, float) else str(cell) for cell in row] for row in self.rows]
        return "\n".join([f"### {self.title}", "", *("| " + " | ".join(line) + " |" for line in lines)])

    @property
    def records(self) -> list[dict[str, Any]]:
        """As JSON has it."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Report(NamedTuple):
    """All that was measured."""

    command: str
    device: str
    setting: Setting
    delay: float  # algorithmic, seconds
    minutes: float
    loading: Loading
    paced: list[Turn]
    flat: list[Turn]
    throughput: list[Flat]
    early_faults: list[str]  # of paced, flat and throughput
    runs: list[Run]  # of every number of sessions that was tried
    held: int | None  # None unless asked for
    run: Run  # the conversation the figures are of
    sync: list[Sync]

    @property
    def faults(self) -> list[str]:
        """What the sessions did other than promised."""
        return self.early_faults + [fault for run in self.runs for p in run.players for fault in p.faults]


def first_spread(report: Report) -> Spread:
    """Milliseconds."""
    return Spread.of([turn.first_frame for turn in report.paced], 1000.0)


def factor_spread(report: Report) -> Spread:
    return Spread.of([flat.wall / flat.speech for flat in report.throughput])


def rest_spread(report: Report) -> Spread:
    return Spread.of([turn.rest for turn in report.paced], 1000.0)


def memory_slope(run: Run) -> float:
    """MiB a minute."""
    return slope_per_minute(run.meter.seconds, run.meter.mib)


def drift_ms(run: Run) -> float:
    """Of the session whose clock went furthest from the wall clock."""
    drifts = [clock_drift(seen["arrived"], seen["index"]) for seen in (player.trace.seen() for player in run.players)]
    return 1000.0 * max(drifts, key=abs)


def figures(report: Report) -> list[Figure]:
    """The figures with a bar. Bars are for the lite bundle's `low` on two cores."""
    asked = report.setting.latency == "low" and report.setting.head.bundle.name == "lite"
    first, factor, rest = first_spread(report), factor_spread(report), rest_spread(report)
    first_bar, rest_bar = (200.0, 120.0) if asked else (None, None)
    run = report.run
    late, every = run.missed
    delay = 1000.0 * report.delay
    processor = float(np.median([flat.processor / flat.speech for flat in report.throughput]))
    change = Spread.of([abs(sync.change) for sync in report.sync]).most
    slope_bar = 1.0 if report.minutes >= SLOPE_MINUTES else None
    found = [
        Figure("first frame at the pace of speech, ms", first.p50, None, first_bar),
        Figure("first frame at the pace of speech, 95 of 100 times, ms", first.p95, None, first_bar),
        Figure("of it algorithmic, ms", delay, None, 160.0 if asked else None),
        Figure("of it compute, ms", first.p50 - delay),
        Figure("deadlines missed, %", 100.0 * late / every, None, 1.0 if asked else None),
        Figure("real-time factor", factor.p50, None, 0.4 if asked else None),
        Figure("processor seconds a second of speech", processor),
        Figure("interrupt to lips at rest, ms", rest.p50, None, rest_bar),
        Figure("interrupt to lips at rest, 95 of 100 times, ms", rest.p95, None, rest_bar),
        Figure("cores used in conversation", run.meter.work.process / run.meter.work.wall),
        Figure("A/V offset, change from start to end, frames", change, None, 1.0),
        Figure("memory slope, MiB a minute", memory_slope(run), None, slope_bar),
    ]
    if report.held is not None:
        bar = SESSIONS_HELD[report.setting.video] if asked else None
        found.append(Figure(f"sessions held, {report.setting.video}", float(report.held), bar))
    return found


COLUMNS = ["what", "n", "p50", "p95", "p99", "least", "most", "halves apart, %"]  # of a `Spread`


def talks(run: Run) -> list[float]:
    """Seconds from the first sample to the first frame of every utterance of a conversation; NaN where none came."""
    return [player.first_frame(said) - said.began for player in run.players for said in player.utterances]


def rests(run: Run) -> list[float]:
    """Seconds from every interrupt of a conversation, made with an open mouth, to lips at rest."""
    return [player.rest(cut) for player in run.players for cut in player.interruptions if cut.gap > OPEN_GAP]


def delays(report: Report) -> Sheet:
    """Percentiles of everything that is a delay."""
    paced = np.array([turn.first_frame for turn in report.paced])
    loading = report.loading
    rows: dict[str, Sequence[float] | Floats] = {
        "first frame, paced, from its first sample": paced,
        "first frame, paced, from the first push": paced - CHUNK / SAMPLE_RATE,
        "first frame, paced, compute": paced - report.delay,
        "first frame, flat out (compute)": [turn.first_frame for turn in report.flat],
        "first frame in conversation": talks(report.run),
        "interrupt, the call": [turn.interrupt for turn in report.paced],
        "interrupt to lips at rest": [turn.rest for turn in report.paced],
        "interrupt to lips at rest in conversation": rests(report.run),
        "load in a fresh process": loading.cold,
        "fresh process with import and load": loading.process,
        "load again": loading.warm,
        "portrait, first": [loading.first_registration],
        "portrait, again": loading.registration,
        "portrait, layers for drawing": [loading.preparation],
    }
    return Sheet("Delays, ms", COLUMNS, [[name, *Spread.of(seconds, 1000.0)] for name, seconds in rows.items()])


def throughput(report: Report) -> Sheet:
    """What a second of speech takes, flat out."""
    rows = {
        "real-time factor": [flat.wall / flat.speech for flat in report.throughput],
        "processor seconds": [flat.processor / flat.speech for flat in report.throughput],
    }
    return Sheet("For a second of speech, flat out", COLUMNS, [[name, *Spread.of(x)] for name, x in rows.items()])


def stages(run: Run) -> Sheet:
    """Percentiles of the stage's steps, and what they take of one core."""
    rows: list[list[Any]] = []
    seen = run.steps.seen()
    for code, name in enumerate(STEP_NAMES):
        own = seen[seen["step"] == code]
        if not own.size:  # sessions without pictures draw nothing
            continue
        spread = Spread.of(own["seconds"], 1000.0)
        together, share = float(own["rows"].mean()), float(own["seconds"].sum()) / run.meter.work.wall
        rows.append([name, spread.repeats, spread.p50, spread.p95, spread.p99, together, share])
    columns = ["step", "calls", "p50", "p95", "p99", "sessions together", "wall seconds a second"]
    return Sheet(f"Stages in conversation, {len(run.players)} at once, ms a call", columns, rows)


def conversations(report: Report) -> Sheet:
    """One row for each number of sessions."""
    rows = []
    for run in report.runs:
        late, every = run.missed
        work, spread = run.meter.work, Spread.of(talks(run), 1000.0)
        cells = [len(run.players), work.wall, every, late, 100.0 * late / every, spread.p50, spread.p95]
        cores = [work.process / work.wall, work.thread / work.wall, work.others / work.wall]
        rows.append([*cells, *cores, memory_slope(run), drift_ms(run)])
    columns = ["sessions", "seconds", "speech frames", "late", "late, %", "first p50", "first p95"]
    columns += ["cores used", "of it benchmark", "other processes", "MiB/min", "clock, ms"]
    return Sheet("Conversations", columns, rows)


def pace(run: Run) -> Sheet:
    """How regular frames come: lateness by kind and by the player's buffer."""
    seens = [player.trace.seen() for player in run.players]
    rows: list[list[Any]] = []
    for buffer in (0, 1, 2, 4):
        counts = [missed(seen, buffer) for seen in seens]
        clock = [lateness(seen["arrived"], seen["index"], buffer) > 1e-9 for seen in seens]
        late, every = sum(a for a, _ in counts), sum(b for _, b in counts)
        after = sum(int(own.sum()) for own in clock) / sum(own.size for own in clock)
        rows.append([f"buffer of {buffer * 1000 * FRAME_SECONDS:.0f} ms", 100.0 * late / every, 100.0 * after])
    columns = ["player", "speech, by its utterance's clock", "any frame, by the session's clock"]
    return Sheet("Late frames by what a player buffers, %", columns, rows)


def kinds(run: Run) -> Sheet:
    """Frames of each kind and the time between two of the kind in a row."""
    rows: list[list[Any]] = []
    seens = [player.trace.seen() for player in run.players]
    for code, kind in enumerate(KINDS):
        own = [seen["kind"] == code for seen in seens]
        count = sum(int(chosen.sum()) for chosen in own)
        steps = [np.diff(seen["arrived"])[mine[1:] & mine[:-1]] for seen, mine in zip(seens, own, strict=True)]
        rows.append([kind, count, *Spread.of(np.concatenate(steps), 1000.0)[1:4]])
    return Sheet("Frames by kind, and ms from one to the next", ["kind", "frames", "p50", "p95", "p99"], rows)


def offsets(sync: Sequence[Sync]) -> Sheet:
    rows = [[s.lips, s.against, s.first.frames, s.first.r, s.last.frames, s.last.r, s.change] for s in sync]
    columns = ["lips", "against", "start", "r at the start", "end", "r at the end", "change"]
    return Sheet("A/V offset, frames by which lips come after the sound", columns, rows)


def about(report: Report) -> Sheet:
    """What the numbers were made with."""
    setting, work = report.setting, report.run.meter.work
    height, width = setting.portrait.picture.shape[:2]
    limits = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.endswith("_NUM_THREADS")]
    speech = sum(map(len, setting.speech)) / SAMPLE_RATE
    pushed = Spread.of(np.concatenate([p.pushed_late.seen() for run in report.runs for p in run.players]), 1000.0)
    rows = [
        ["command", report.command],
        ["machine", f"{describe_machine()}, {memory_gib():.1f} GiB"],
        ["other processes meanwhile", f"{work.others / work.wall:.2f} cores"],
        ["runs on", ", ".join(providers(report.device))],
        ["thread limits", ", ".join(limits) or "none set"],
        ["bundle", f"{setting.head.bundle.name}, latency {setting.latency}, seed {setting.seed}"],
        ["sessions give", setting.video],
        ["picture", f"{width} x {height}"],
        ["speech", f"{len(setting.speech)} utterances, {speech:.1f} s, 16 kHz, chunks of {CHUNK} samples"],
        ["benchmark's own pushes late", f"p50 {pushed.p50:.2f}, p99 {pushed.p99:.2f}, most {pushed.most:.2f} ms"],
        *([f"SHA-256 {name}", digest] for name, digest in weights(setting.head.bundle).items()),
    ]
    return Sheet("Made with", ["what", "with"], rows)


def figures_sheet(found: Sequence[Figure]) -> Sheet:
    """The figures and their bars."""
    verdicts = {None: "", True: "met", False: "MISSED"}
    rows = [[figure.name, figure.value, figure.bar, verdicts[figure.met]] for figure in found]
    return Sheet("Figures", ["what", "value", "bar", "verdict"], rows)


def publish(report: Report) -> str:
    """Print the JSON line and the Markdown report; give the JSON line."""
    found = figures(report)
    run = report.run
    sheets = [about(report), delays(report), throughput(report), stages(run), conversations(report)]
    sheets += [pace(run), kinds(run), offsets(report.sync)]
    tables = {sheet.title: sheet.records for sheet in sheets}
    line = json_line("rtf", found, seed=report.setting.seed, faults=report.faults, tables=tables)
    print(line, flush=True)
    words = [f"- {fault}" for fault in report.faults] or ["- Every frame was in order and carried its own sound."]
    others = run.meter.work.others / run.meter.work.wall
    if others > QUIET_CORES:
        words.append(f"- **The machine was not quiet: other processes used {others:.2f} cores.**")
    texts = [figures_sheet(found).markdown, *(sheet.markdown for sheet in sheets), "### Checked", "\n".join(words)]
    print("\n\n".join(["## rtf", *texts, "### What is meant", DEFINITIONS]))
    return line
