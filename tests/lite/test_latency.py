"""Latency presets: what they wait for, that chunks do not matter, and how lips and the joins of windows look."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis.strategies import integers, lists

import ditto
from ditto.lite.latency import LATENCIES, LOOKAHEAD, LOOKBACK, OFFLINE_PLAN, WindowPlan
from ditto.lite.phones import PHONE_INDEX
from ditto.lite.postprocess import AT_REST, END_FRAMES, REST_AFTER, REST_FALL, REST_FRAMES, REST_RISE, Rest, close_lips
from ditto.lite.sampler import silence_of
from ditto.lite.speech_encoder import HOP_SAMPLES
from ditto.media.audio import SAMPLE_RATE, read_audio
from ditto.motion.motion import MOTION_SIZE
from ditto.stream import SAMPLES_PER_FRAME

EXAMPLES = Path(__file__).parents[2] / "examples"
NEUTRAL = np.eye(8, dtype=np.float32)[4]
FRAMES = 15


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite")


@pytest.fixture(scope="module")
def speech():
    return read_audio(EXAMPLES / "speech.flac")


@pytest.fixture(scope="module")
def features(head, speech):
    """(T, 368) of the example speech."""
    state, rows = head.performer.encoder.initial_state(1), []
    for hop in np.pad(speech, (0, HOP_SAMPLES - speech.size % HOP_SAMPLES)).reshape(-1, 1, HOP_SAMPLES):
        feature, state = head.performer.encoder(hop, state)
        rows.append(feature[0])
    return np.concatenate(rows[1:])


@pytest.fixture(scope="module")
def motions(head, portrait, features):
    """Compact motion (T, 70) of the example speech by latency."""
    found = {}
    for name in LATENCIES:
        sampler = head.performer.sampler.at(name)
        state = sampler.initial_state(portrait.canonical_keypoints, portrait.eye_open, 0)
        found[name], _ = sampler(features, NEUTRAL, state, final=True)
    return found


def keypoints_of(motion):
    return motion[:, 7:].reshape(-1, 21, 3)


def gap_of(motion):
    return keypoints_of(motion)[:, 17, 1] - keypoints_of(motion)[:, 14, 1]


def phones_of(names):
    """(n, 2, 40) sure phones; the first name stands for all frames before those that change."""
    return np.repeat(np.eye(40)[[PHONE_INDEX[n] for n in [names[0]] * LOOKBACK + names]][:, None], 2, 1)


def open_mouth(frames, gap=0.08):
    motion = np.zeros((frames, MOTION_SIZE), np.float32)
    motion[:, 7 + 3 * 17 + 1] = gap
    return motion


@pytest.mark.parametrize(("latency", "milliseconds"), [("quality", 2480), ("balanced", 480), ("low", 160), ("lowest", 80)])
def test_the_first_frame_takes_the_delay_and_no_frame_takes_longer(head, portrait, speech, latency, milliseconds):
    stream = head.stream(portrait, latency=latency)
    assert stream.delay_seconds == milliseconds / 1000
    block, pushed, first, longest = 160, 0, 0, 0
    while stream.frames < FRAMES:
        for frame in stream.push(speech[pushed : pushed + block]):
            first = first or pushed + block
            longest = max(longest, pushed + block - SAMPLES_PER_FRAME * frame.index)
        pushed += block
    assert first == longest == stream.delay_seconds * SAMPLE_RATE


@pytest.mark.parametrize("plan", [WindowPlan(70, 1, 9, 0), WindowPlan(70, 3, 7, 2), WindowPlan(20, 47, 13)])
def test_the_delay_of_odd_hops_is_that_of_their_slowest_window(plan):
    arrivals = {}
    for hops in range(1, 400):  # the encoder has given 2 (hops - 1) rows
        for frame in range(max(0, (2 * (hops - 1) - plan.lookahead) // plan.hop) * plan.hop):
            arrivals.setdefault(frame, hops * HOP_SAMPLES - frame * SAMPLES_PER_FRAME)
    assert plan.delay_seconds * SAMPLE_RATE == pytest.approx(max(arrivals.values()))


def motion_of(frames):
    return np.stack([frame.motion.values for frame in frames])


@pytest.mark.parametrize("latency", ["balanced", "low"])
def test_any_chunking_gives_the_same_frames_at_every_latency(head, portrait, speech, latency):
    samples = speech[8000:][: FRAMES * SAMPLES_PER_FRAME - 100]
    stream = head.stream(portrait, seed=3, latency=latency)
    whole = stream.push(samples) + stream.flush()
    assert [frame.index for frame in whole] == list(range(FRAMES))

    @settings(max_examples=4, deadline=None, derandomize=True)
    @example(sizes=[1] * 300)
    @example(sizes=[1281] * 4)
    @given(sizes=lists(integers(0, 2000), max_size=12))
    def check(sizes):
        stream.reset()
        frames, start = [], 0
        for size in sizes:
            frames += stream.push(samples[start : start + size])
            start += size
        frames += stream.push(samples[start:]) + stream.flush()
        assert len(frames) == FRAMES
        for a, b in zip(frames, whole, strict=True):
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.audio, b.audio)
            np.testing.assert_array_equal(a.motion.values, b.motion.values)

    check()


def test_quality_is_what_a_stream_is_without_a_choice(head, portrait, speech):
    samples = speech[8000:][: 4 * SAMPLES_PER_FRAME]
    plain, named = head.stream(portrait, seed=3), head.stream(portrait, seed=3, latency="quality")
    assert LATENCIES["quality"].plan == OFFLINE_PLAN == (20, 50, 10, 10)
    a, b = (motion_of(stream.push(samples) + stream.flush()) for stream in (plain, named))
    np.testing.assert_array_equal(a, b)
    other = head.stream(portrait, seed=3, latency="low")
    assert not np.array_equal(motion_of(other.push(samples) + other.flush()), a)


def test_lips_say_the_same_at_every_latency(motions, features):
    quality, speaking = motions["quality"], silence_of(features) < 0.5
    for name, least in (("balanced", 0.90), ("low", 0.86), ("lowest", 0.60)):
        motion = motions[name]
        assert motion.shape == quality.shape
        assert np.corrcoef(gap_of(motion), gap_of(quality))[0, 1] > least
        assert gap_of(motion)[speaking].mean() == pytest.approx(gap_of(quality)[speaking].mean(), rel=0.15)


def test_the_head_moves_about_as_far_at_every_latency(head, portrait, features):
    turns = {}
    for name in LATENCIES:
        sampler = head.performer.sampler.at(name)
        states = [sampler.initial_state(portrait.canonical_keypoints, portrait.eye_open, seed) for seed in range(4)]
        found = sampler.step_batch([features] * 4, [NEUTRAL] * 4, states, [True] * 4)
        turns[name] = np.mean([motion[:, 1:4].std(0).sum() for motion, _ in found])
    assert turns["balanced"] > 0.75 * turns["quality"]
    assert turns["low"] > 0.75 * turns["quality"]  # 0.6 where every window draws noise of its own


def test_seams_are_as_smooth_as_the_motion_between_them(motions):
    def bend(name):
        """Largest acceleration of any keypoint at each frame but the first and last, fu a frame a frame."""
        return np.abs(np.diff(keypoints_of(motions[name]), 2, axis=0)).max((1, 2))

    for name in ("quality", "balanced"):
        frame = np.arange(1, len(bend(name)) + 1)
        seam = np.isin(frame % LATENCIES[name].plan.hop, (0, LATENCIES[name].plan.hop - 1))
        assert bend(name)[seam].max() < 1.5 * bend(name)[~seam].max()
    usual = np.percentile(bend("quality"), 99)
    assert np.percentile(bend("low"), 99) < 1.5 * usual  # every frame of it is at a seam
    shake = {name: np.abs(np.diff(motions[name][:, 1:4], 2, axis=0)).max() for name in motions}  # degrees a frame a frame
    assert max(shake["low"], shake["lowest"]) < 1.2 * shake["quality"] < 1.5


@pytest.mark.parametrize("name", ["fast", "", None, 3, ["low"]])
def test_unknown_latencies_are_refused(head, portrait, name):
    with pytest.raises(ValueError, match="expected a latency of quality, balanced, low, lowest, got"):
        head.stream(portrait, latency=name)


def test_a_plan_cannot_predict_more_than_it_emits(head):
    with pytest.raises(ValueError, match="lookahead of at least -hop"):
        head.performer.sampler.planned(WindowPlan(60, 2, 8, lookahead=-3), 5)


SPEAKING = Rest(0, 0.0)


def gaps(names, rest=SPEAKING, lookahead=LOOKAHEAD, complete=False):
    """(n,) gap between lips that the network holds .08 open, for phones of the frames and of the `lookahead` after them."""
    n = len(names) if complete else len(names) - lookahead
    return gap_of(close_lips(open_mouth(n), phones_of(names), rest, lookahead, complete)[0])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(before=integers(1, 12), silent=integers(1, REST_FRAMES - 1))
def test_lips_stay_parted_in_pauses_under_a_second(before, silent):
    names = ["AA"] * before + ["SIL"] * silent + ["AA"] * (LOOKAHEAD + 5)
    assert gaps(names) == pytest.approx(0.08, abs=1e-6)


@pytest.mark.parametrize("lookahead", [0, 1, 4, LOOKAHEAD])
def test_lips_close_slowly_in_the_first_second_of_silence_and_stay_closed(lookahead):
    gap = gaps(["AA"] * 3 + ["SIL"] * (REST_FRAMES + 20), lookahead=lookahead)
    assert gap[: 3 + REST_AFTER] == pytest.approx(0.08, abs=1e-6)
    assert gap[3 + REST_FRAMES :] == pytest.approx(0.0, abs=1e-6)
    assert -np.diff(gap).min() < 0.08 * REST_RISE + 1e-6 and np.diff(gap).max() < 1e-6


@pytest.mark.parametrize("lookahead", [0, 1, 4, LOOKAHEAD])
def test_lips_part_before_speech_that_is_foreseen_and_gradually_after_speech_that_is_not(lookahead):
    gap = gaps(["SIL"] * 30 + ["AA"] * (LOOKAHEAD + 10), AT_REST, lookahead)
    assert np.diff(gap).max() < 0.08 * REST_FALL + 1e-6
    assert gap[33] == pytest.approx(0.08, abs=1e-6)
    assert (gap[29] > 0.05) == (lookahead >= 2)


def test_lips_close_at_once_where_the_recording_ends():
    gap = gaps(["AA"] * 5 + ["SIL"] * 14, complete=True)
    assert gap[5 + END_FRAMES :] == pytest.approx(0.0, abs=1e-6)
    assert -np.diff(gap).min() < 0.08 * REST_RISE + 1e-6
    assert gaps(["AA"] * 5 + ["SIL"] * 4 + ["AA"] * 3, complete=True) == pytest.approx(0.08, abs=1e-6)


@pytest.mark.parametrize("lookahead", [0, 2, 4, 7])
def test_lip_closure_does_not_depend_on_where_it_is_cut(lookahead):
    random = np.random.default_rng(0)
    phones = random.dirichlet(np.full(40, 0.05), (60 + LOOKBACK + lookahead, 2))
    phones[10:40] = np.eye(40)[PHONE_INDEX["SIL"]]
    motion = open_mouth(60)
    whole, rest = close_lips(motion, phones, Rest(4, 0.3), lookahead)
    first, middle = close_lips(motion[:27], phones[: 27 + LOOKBACK + lookahead], Rest(4, 0.3), lookahead)
    second, end = close_lips(motion[27:], phones[27:], middle, lookahead)
    assert np.array_equal(np.concatenate([first, second]), whole) and end == rest


def test_a_sampler_that_predicts_emits_frames_before_their_features_come(head, portrait, features):
    sampler = head.performer.sampler.at("lowest")
    state = sampler.initial_state(portrait.canonical_keypoints, portrait.eye_open, 0)
    counts, made = [], []
    for start in range(-2, len(features), 2):
        rows, state = sampler(features[max(start, 0) : max(start + 2, 0)], NEUTRAL, state)
        counts.append(len(rows))
        made.append(rows)
    assert set(counts) == {2}
    state = sampler.initial_state(portrait.canonical_keypoints, portrait.eye_open, 0)
    whole, _ = sampler(features, NEUTRAL, state)
    assert np.array_equal(np.concatenate(made), whole)


def test_a_predicting_stream_gives_as_many_frames_as_there_are(head, portrait, speech):
    for samples in (1, 640, 1280, 1281, 1920, 5000):
        stream = head.stream(portrait, latency="lowest")
        frames = stream.push(speech[:samples]) + stream.flush()
        assert len(frames) == -(-samples // SAMPLES_PER_FRAME)
