"""The latency report counts, times and correlates as it says, and a session that lies is found out."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from wav import write_wav

import ditto
from benchmarks import _rtf_measure, _rtf_play, _rtf_trace, rtf
from benchmarks._rtf_play import Player
from benchmarks._rtf_report import Sheet
from benchmarks._rtf_trace import KINDS, ROW, Spread, Tape, row_of
from benchmarks.faces import example_portrait
from benchmarks.speech import example_speech, read_speech
from ditto.errors import AudioError
from ditto.live import Frame, SegmentEnd
from ditto.motion.motion import MOTION_SIZE, Motion, rest_motion, retarget
from ditto.stream import FPS

STEP = 1 / FPS
REST = rest_motion(1)[0]
PICTURE = np.zeros((2, 2, 3), np.uint8)


def spoken(arrived, epoch=0, kind="speech"):
    """Rows of an utterance whose frames came at these times."""
    rows = np.zeros(len(arrived), ROW)
    rows["arrived"], rows["spoken"] = arrived, np.arange(len(arrived))
    rows["epoch"], rows["kind"] = epoch, KINDS.index(kind)
    return rows


def test_a_frame_is_late_by_what_it_comes_after_its_own_deadline():
    arrived = [5.0, 5.0, 5.08, 5.121, 5.23]
    late = _rtf_trace.lateness(arrived, range(5), buffer_frames=0)
    assert late == pytest.approx([0.0, -0.04, 0.0, 0.001, 0.07])
    assert _rtf_trace.lateness(arrived, range(5)) == pytest.approx(late - STEP)
    assert _rtf_trace.lateness(arrived, range(7, 12)) == pytest.approx(late - STEP)  # the first row starts the clock
    assert _rtf_trace.lateness([], []).size == 0


def test_misses_are_counted_by_utterance_and_of_speech_alone():
    steady = 10.0 + STEP * np.arange(50)
    stalled = 20.0 + STEP * np.arange(50)
    stalled[10:14] += 0.1  # two of the four are more than one frame late once the stall is over
    stalled[12:14] -= 0.07
    idle = spoken(30.0 + 5.0 * np.arange(9), 2, "idle")
    seen = np.concatenate([spoken(steady, 0), spoken(stalled, 1), idle])
    assert _rtf_trace.missed(seen) == (2, 100)
    assert _rtf_trace.missed(seen, buffer_frames=0) == (4, 100)
    assert _rtf_trace.missed(seen, buffer_frames=3) == (0, 100)
    assert _rtf_trace.missed(idle) == (0, 0)


def test_rest_is_when_a_frame_with_closed_lips_is_shown_at_playout_pace():
    gaps = [0.05, 0.02, 0.003, 0.0]
    assert _rtf_trace.rest_after(1.0, [1.01, 1.012, 1.014, 1.016], gaps) == pytest.approx(0.01 + 2 * STEP)
    assert _rtf_trace.rest_after(1.0, [1.01, 1.012, 1.2, 1.21], gaps) == pytest.approx(0.2)
    assert np.isnan(_rtf_trace.rest_after(1.0, [1.01, 1.02], gaps[:2]))
    assert np.isnan(_rtf_trace.rest_after(1.0, [], []))


def test_percentiles_are_of_all_repeats_in_the_unit_asked_for():
    spread = Spread.of(np.arange(1, 102) / 1000.0, 1000.0)
    assert spread[:6] == pytest.approx((101, 51.0, 96.0, 100.0, 1.0, 101.0))
    assert spread.halves == pytest.approx(100.0 * 50.5 / 51.0)  # medians 25.5 and 76
    assert Spread.of([2.0, np.nan, 2.0, 2.0, 2.0]).halves == 0.0
    assert np.isnan(Spread.of([1.0, 2.0, 3.0]).halves)
    assert Spread.of([]).repeats == 0 and np.isnan(Spread.of([]).p95)


def curve(seed, frames=120):
    return np.convolve(np.random.default_rng(seed).standard_normal(frames + 40), np.hanning(9), "same")[20:-20]


@pytest.mark.parametrize("frames", [-3.0, 0.0, 0.4, 2.0])
def test_the_lag_is_positive_where_lips_come_late(frames):
    sound = [curve(1), curve(2, 80)]
    at = [np.arange(len(own), dtype=float) for own in sound]
    lips = [3.0 * np.interp(t - frames, t, own) + 0.1 for t, own in zip(at, sound, strict=True)]
    lips[0][40:44] = np.nan  # no face found
    found = _rtf_trace.lag(lips, sound)
    assert found.frames == pytest.approx(frames, abs=0.11)
    assert found.r > 0.97


def test_there_is_no_lag_where_less_than_a_second_is_in_common():
    assert np.isnan(_rtf_trace.lag([curve(1)[:32]], [curve(1)[:32]])).all()
    assert np.isfinite(_rtf_trace.lag([curve(1)[:33]], [curve(1)[:33]])).all()
    assert np.isnan(_rtf_trace.lag([curve(1)[:5]], [curve(1)[:5]])).all()
    assert np.isnan(_rtf_trace.lag([np.full(99, np.nan)], [curve(1)[:99]])).all()  # no face on any picture


def test_the_slope_is_a_minute_s_and_leaves_out_the_beginning():
    seconds = np.arange(0.0, 600.0)
    memory = 300.0 + 2.0 * seconds / 60.0
    memory[:100] = 90.0  # warming up
    assert _rtf_trace.slope_per_minute(seconds, memory) == pytest.approx(2.0)
    assert abs(_rtf_trace.slope_per_minute(seconds, memory, part=1.0) - 2.0) > 1.0
    assert np.isnan(_rtf_trace.slope_per_minute([], []))


def test_the_clock_drifts_forward_where_frames_come_too_slowly():
    index = np.arange(1500)
    assert _rtf_trace.clock_drift(index * STEP, index) == pytest.approx(0.0, abs=1e-9)
    slow = index * STEP * 1.001
    slow[-1] += 0.03  # one late frame is no drift
    assert _rtf_trace.clock_drift(slow, index) == pytest.approx(0.06, rel=0.02)
    assert _rtf_trace.clock_drift(index * STEP * 0.999, index) < 0


def test_the_gap_is_that_of_the_head_frame_whichever_way_the_head_is_turned():
    portrait = SimpleNamespace(
        rotation=np.eye(3),
        scale=1.0,
        translation=np.zeros(3),
        canonical_keypoints=np.zeros((21, 3)),
        expression=np.zeros((21, 3)),
    )
    random = np.random.default_rng(0)
    for _ in range(5):
        compact = random.normal(0.0, 0.05, MOTION_SIZE).astype(np.float32)
        compact[1:4] = random.uniform(-30.0, 30.0, 3)
        motion = Motion(compact)
        delta = retarget(portrait, motion).delta
        assert _rtf_trace.lip_gap(motion) == pytest.approx(delta[17, 1] - delta[14, 1], abs=1e-6)
    assert _rtf_trace.lip_gap(REST) == 0.0


def test_levels_are_decibels_of_full_scale():
    assert _rtf_trace.decibels(np.full(640, 0.1, np.float32)) == pytest.approx(-20.0, abs=1e-4)
    assert _rtf_trace.decibels(np.zeros(640, np.float32)) == _rtf_trace.QUIETEST
    assert _rtf_trace.loudness([-20.0, -35.0, -50.0, -70.0]) == pytest.approx([1.0, 0.5, 0.0, 0.0])


def frame(index, samples, k, kind="speech", epoch=0):
    speech_index = k if kind == "speech" else None
    sound = np.zeros(640, np.float32)
    own = samples[640 * k : 640 * (k + 1)] if kind == "speech" else samples[:0]
    sound[: own.size] = own
    return Frame(PICTURE, index, index / FPS, sound, REST, kind, epoch, speech_index)


def test_a_tape_keeps_what_came_and_says_when_it_is_full():
    tape = Tape(ROW, 2)
    tape.add(row_of(1.0, frame(0, np.zeros(0), 0, "idle")))
    tape.add(row_of(2.0, frame(1, np.full(640, 0.1), 0)))
    assert tape.seen()["index"].tolist() == [0, 1]
    assert tape.seen()["kind"].tolist() == [KINDS.index("idle"), KINDS.index("speech")]
    assert tape.seen(since=1)["spoken"].tolist() == [0]
    assert _rtf_trace.speech_of(tape.seen())["level"] == pytest.approx([-20.0], abs=1e-4)
    with pytest.raises(ValueError, match="made for 2 rows"):
        tape.add(row_of(3.0, frame(2, np.zeros(0), 0, "idle")))


class Recited:
    """A session that gives out what it was told to, once an utterance was flushed or interrupted."""

    epoch = 0

    def __init__(self, items, played_ms=0):
        self.items, self.played_ms = items, played_ms
        self.flushed = asyncio.Event()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.flushed.set()

    async def __aiter__(self):
        await self.flushed.wait()
        for item in self.items:
            yield item

    async def push(self, samples):
        pass

    async def flush(self):
        self.flushed.set()

    async def interrupt(self):
        self.epoch += 1
        self.flushed.set()
        return self.played_ms


def faults_of(items, samples, interrupted=False, played_ms=0):
    async def play():
        async with Player(Recited(items, played_ms), 100) as player:
            await player.say(samples)
            if interrupted:
                await player.interrupt()
                await player.until(lambda: len(player.trace) == len(items))
            else:
                await player.finish()
        return player.faults

    return asyncio.run(play())


def test_what_a_session_does_other_than_promised_is_a_fault():
    samples = np.random.default_rng(0).uniform(-1, 1, 1500).astype(np.float32)
    good = [frame(0, samples, 0), frame(1, samples, 1), frame(2, samples, 2)]
    end = SegmentEnd(0, 3 * STEP)
    assert faults_of([*good, end], samples) == []
    assert "3 are due" in faults_of([*good[:2], SegmentEnd(0, 2 * STEP)], samples)[0]
    assert "came where 1 is due" in faults_of([good[0], frame(2, samples, 1), frame(2, samples, 2), end], samples)[0]
    other = samples.copy()
    other[700] += 0.001
    assert "other sound" in faults_of([good[0], frame(1, other, 1), good[2], end], samples)[0]
    assert "other sound" in faults_of([good[0], frame(1, samples, 2), frame(2, samples, 1), end], samples)[0]
    idle = frame(0, samples, 0, "idle", epoch=1)
    assert faults_of([idle], samples, interrupted=True) == []
    assert "speech of utterance 0" in faults_of([good[0]], samples, interrupted=True)[0]
    assert "120 ms were read, it were 0 frames" in faults_of([idle], samples, interrupted=True, played_ms=120)[0]


def test_sessions_are_doubled_until_they_fail_then_halved_between():
    def tried(limit, most):
        async def search():
            async def run(sessions):
                return SimpleNamespace(sessions=sessions, held=sessions <= limit)

            runs, held = await _rtf_measure.most_sessions(run, most)
            return [r.sessions for r in runs], held

        return asyncio.run(search())

    assert tried(5, 64) == ([1, 2, 4, 8, 6, 5], 5)
    assert tried(0, 64) == ([1], 0)
    assert tried(9, 6) == ([1, 2, 4, 6], 6)


def test_recordings_are_cut_into_utterances():
    second = 16000
    sizes = [len(u) / second for u in _rtf_measure.utterances([np.zeros(17 * second), np.zeros(3 * second)])]
    assert sizes == [8.0, 8.0, 3.0]
    assert [len(u) for u in _rtf_measure.utterances([np.zeros(second)])] == [second]


def test_turns_are_taken_with_utterances_that_outlast_the_delay():
    speech = [np.zeros(16000 * seconds) for seconds in (2, 5, 3)]
    assert [len(u) for u in _rtf_measure.long_enough(speech, 2.48)] == [80000]
    assert len(_rtf_measure.long_enough(speech, 0.16)) == 3
    with pytest.raises(AudioError, match=r"over 6\.00 s are expected"):
        _rtf_measure.long_enough(speech, 5.0)


def test_a_sheet_is_markdown_and_records():
    sheet = Sheet("Delays", ["what", "ms"], [["first frame", 171.234], ["none", float("nan")]])
    assert sheet.markdown.splitlines()[2:] == [
        "| what | ms |",
        "| --- | ---: |",
        "| first frame | 171 |",
        "| none | - |",
    ]
    assert sheet.records[0] == {"what": "first frame", "ms": 171.234}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cuda"], "precision='float32' for the bundle"),
        (["--random-weights"], "random weights are for --bundle full"),
        (["--sessions", "none"], "sessions are 1 to 64, or auto"),
        (["--minutes", "0"], "argument --minutes: expected a number from 0.001 to 600"),
        (["--latency", "instant"], "expected a latency of quality, balanced, low, lowest, got 'instant'"),
        (["--speech", "/nowhere.wav"], "nowhere.wav"),
        (["--speech", str(Path(__file__).parent)], "holds no recordings"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(arguments, words, capsys):
    with pytest.raises(SystemExit) as refused:
        rtf.main(arguments)
    assert refused.value.code == 2
    assert words in capsys.readouterr().err


def test_a_short_report_is_whole(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_rtf_measure, "REPEATS", 0)
    monkeypatch.setattr(rtf, "THROUGHPUTS", 1)
    monkeypatch.setattr(_rtf_play, "PAUSES", (0.0, 0.2))
    speech, portrait, file = (tmp_path / name for name in ("speech.wav", "portrait.npz", "report.json"))
    write_wav(speech, read_speech(example_speech())[8000:33600])
    ditto.load("lite").register(example_portrait(), max_size=256).save(portrait)
    words = ["--speech", speech, "--portrait", portrait, "--json", file, "--minutes", 0.01, "--turns", 1]
    words += ["--sessions", 2]
    rtf.main([str(word) for word in words])
    line, report = capsys.readouterr().out.split("\n", 1)
    body = json.loads(file.read_text())
    assert body == json.loads(line)
    assert body["faults"] == []
    figures = body["figures"]
    assert figures["of it algorithmic, ms"]["value"] == 160.0
    assert all(figure["value"] is not None for figure in figures.values())
    delays = {row["what"]: row for row in body["tables"]["Delays, ms"]}
    first = delays["first frame, paced, from its first sample"]["p50"]
    assert delays["first frame, paced, compute"]["p50"] == pytest.approx(first - 160.0)
    assert delays["first frame, paced, from the first push"]["p50"] == pytest.approx(first - 20.0)
    made = {row["what"]: row["with"] for row in body["tables"]["Made with"]}
    assert made["runs on"].split(", ")[0] == "CPUExecutionProvider"
    assert len(made["SHA-256 motion.onnx"]) == 64
    (run,) = body["tables"]["Conversations"]
    assert run["speech frames"] == 160 and run["sessions"] == 2  # 1.6 s twice, by both
    assert "### What is meant" in report


def test_the_lips_of_sessions_without_pictures_are_those_of_the_motion(monkeypatch):
    async def play():
        async with setting.player(1.0) as player:
            said = await player.say_at_once(setting.speech[0])
            await player.finish()
            return _rtf_measure.Run([player], [[said], [said]], None, None, None)

    portrait = ditto.load("lite").register(example_portrait(), max_size=256)
    speech = [read_speech(example_speech())[8000:33600]]
    setting = _rtf_measure.Setting(ditto.load("lite"), portrait, speech, "low", 0, "motion")
    run = asyncio.run(play())
    found = _rtf_measure.lips_against_sound(setting, run)
    assert {sync.lips for sync in found} == {"in the motion"}
    assert all(np.isfinite(sync.first.frames) and sync.change == 0.0 for sync in found)
