"""The motion sampler: windows that join smoothly, deterministic, postprocessed."""

from pathlib import Path

import numpy as np
import pytest

from ditto.bundle import SHIPPED
from ditto.errors import BundleError
from ditto.lite.latency import LOOKAHEAD, WINDOW, WindowPlan
from ditto.lite.postprocess import PostprocessConfig
from ditto.lite.sampler import MotionNetwork, MotionSampler, schedule
from ditto.lite.speech_encoder import FEATURE_SIZE, HIDDEN_SIZE
from ditto.motion.motion import EYES as EYE_KEYPOINTS
from ditto.motion.motion import KEYPOINTS, MOTION_SIZE, SLOW_KEYPOINTS

CONFIG = PostprocessConfig(usual_gap=0.078, target_gap=0.082, slow_smoothing_frames=1.5)
NEUTRAL = np.eye(8, dtype=np.float32)[4]
FACE = np.zeros((21, 3))
EYES = np.ones(2)


class TinyCondition:
    """A stand-in for the first half: mixes features over neighbouring frames, hides them where the speech is masked."""

    inputs = outputs = ()

    def __init__(self):
        self.calls = 0

    def __call__(self, **arrays):
        self.calls += 1
        f = arrays["features"] * arrays["speech_mask"][:, None]
        mixed = f + 0.5 * np.roll(f, 1, 1) + 0.5 * np.roll(f, -1, 1)
        eyes = np.repeat(arrays["eyes"].mean(-1, keepdims=True), MOTION_SIZE, -1)
        face = arrays["emotion"].sum(-1)[:, None, None] + arrays["canonical"].sum(-1)[:, None, None]
        return {"condition": (mixed[..., :MOTION_SIZE] + eyes + face).astype(np.float32)}


class TinyDenoiser:
    """A stand-in for the second half: leans on the condition, the noise and the known frames."""

    inputs = outputs = ()

    def __call__(self, **arrays):
        known = (arrays["motion"] * arrays["known"]).sum(1, keepdims=True) / WINDOW
        clean = np.tanh(arrays["condition"]) + 0.3 * arrays["motion"] + known + 0.1 * arrays["level"][:, None]
        return {"clean": clean.astype(np.float32)}


def tiny(**options):
    scale = np.linspace(0.01, 0.02, MOTION_SIZE, dtype=np.float32)
    silence = np.zeros(FEATURE_SIZE, np.float32)
    silence[[HIDDEN_SIZE, HIDDEN_SIZE + 40]] = 1.0
    spread = np.full(MOTION_SIZE, 0.7, np.float32)
    network = MotionNetwork(TinyCondition(), TinyCondition(), TinyDenoiser(), scale, spread, silence, CONFIG)
    return MotionSampler(network, **options)


def speech(frames, seed=0):
    """(frames, 368): random hidden features, phone probabilities with bilabials and pauses among them."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(frames, FEATURE_SIZE)).astype(np.float32)
    phones = random.dirichlet(np.full(40, 0.05), (frames, 2))
    phones[frames // 3 : frames // 3 + 15] = np.eye(40)[0]
    x[:, HIDDEN_SIZE:] = phones.reshape(frames, 80)
    return x


def in_pieces(sampler, x, cuts, seed=0):
    state, out = sampler.initial_state(FACE, EYES, seed), []
    for piece in np.split(x, cuts):
        motion, state = sampler(piece, NEUTRAL, state)
        out.append(motion)
    motion, _ = sampler(x[:0], NEUTRAL, state, final=True)
    return np.concatenate([*out, motion])


@pytest.mark.parametrize(
    "plan",
    [WindowPlan(), WindowPlan(22, 2, 16, 0), WindowPlan(22, 6, 16, 4), WindowPlan(20, 40, 20), WindowPlan(3, 77, 0)],
)
@pytest.mark.parametrize("frames", [1, 37, 50, 61, 163])
def test_any_chunking_gives_the_same_motion_bit_for_bit(plan, frames):
    sampler, x = tiny(plan=plan, steps=3), speech(frames)
    whole, _ = sampler(x, NEUTRAL, sampler.initial_state(FACE, EYES, 5), final=True)
    assert whole.shape == (frames, MOTION_SIZE) and np.isfinite(whole).all()
    random = np.random.default_rng(frames)
    for cuts in (range(1, frames), range(2, frames, 2), np.sort(random.integers(0, frames, 6))):
        assert np.array_equal(in_pieces(sampler, x, list(cuts), seed=5), whole)


def test_guidance_is_deterministic_too():
    sampler, x = tiny(steps=4, guidance=1.3), speech(130)
    whole, _ = sampler(x, NEUTRAL, sampler.initial_state(FACE, EYES), final=True)
    assert np.array_equal(in_pieces(sampler, x, [3, 70, 71]), whole)
    plain, _ = (s := tiny(steps=4))(x, NEUTRAL, s.initial_state(FACE, EYES), final=True)
    assert not np.array_equal(plain, whole)


def test_guidance_moves_the_mouth_alone():
    windows = []
    for guidance in (1.0, 1.3):
        sampler = tiny(steps=1, guidance=guidance)
        state = sampler.initial_state(FACE, EYES)._replace(features=speech(80))
        state = state._replace(eyes=np.repeat(state.eyes[:1], 80, 0), noise=np.zeros((80, MOTION_SIZE)))
        windows.append(sampler._sample([NEUTRAL], [state])[0, 20:])
    changed = np.flatnonzero(np.any(windows[0] != windows[1], axis=0))
    mouth = [k for k in range(KEYPOINTS) if k not in SLOW_KEYPOINTS and k not in EYE_KEYPOINTS]
    assert changed.tolist() == [7 + 3 * k + axis for k in mouth for axis in range(3)]


def test_recordings_are_guided_and_live_speech_is_not(shipped):
    assert [shipped.at(name).guidance for name in shipped.latencies] == [1.3, 1.0, 1.0, 1.0]


@pytest.fixture(scope="module")
def shipped():
    return MotionSampler(MotionNetwork.open(SHIPPED / "lite", CONFIG), WindowPlan(22, 2, 16, 0), 2)


@pytest.mark.parametrize("streams", [1, 2, 3, 5])
@pytest.mark.parametrize("guidance", [1.0, 1.2])
def test_streams_that_go_together_get_what_they_get_alone(shipped, streams, guidance):
    sampler = MotionSampler(shipped.network, shipped.plan, 2, guidance)
    speeches = [speech(n, seed=n) for n in (9, 6, 7, 1, 4)][:streams]
    moods = np.eye(8, dtype=np.float32)[:streams]
    states = [sampler.initial_state(FACE, EYES, seed) for seed in range(streams)]
    alone = [sampler(x, mood, state, final=True) for x, mood, state in zip(speeches, moods, states, strict=True)]
    pieces = [np.split(x, [2 + i, 5]) for i, x in enumerate(speeches)]  # due at different times, some with nothing new
    out = [[] for _ in range(streams)]
    for k in range(3):
        found = sampler.step_batch([p[k] for p in pieces], moods, states, [k == 2] * streams)
        states = [state for _, state in found]
        for motions, (motion, _) in zip(out, found, strict=True):
            motions.append(motion)
    for motions, (motion, state), after in zip(out, alone, states, strict=True):
        assert np.array_equal(np.concatenate(motions), motion)
        assert np.array_equal(after.known, state.known) and after.window == state.window


def test_nothing_together_is_nothing_and_one_wrong_job_refuses_all():
    sampler = tiny(steps=1)
    state = sampler.initial_state(FACE, EYES)
    assert sampler.step_batch([], [], [], []) == []
    with pytest.raises(ValueError, match=r"features \(T, 368\)"):
        sampler.step_batch([speech(80), np.zeros((4, 367))], [NEUTRAL] * 2, [state] * 2, [False] * 2)


def test_seeds_give_different_motion_and_the_same_seed_the_same():
    sampler, x = tiny(steps=2), speech(60)
    a, b, c = (sampler(x, NEUTRAL, sampler.initial_state(FACE, EYES, seed), final=True)[0] for seed in (1, 2, 1))
    assert np.array_equal(a, c)
    assert not np.array_equal(a, b)


def test_motion_comes_out_as_soon_as_a_window_is_full():
    sampler, x = tiny(steps=1), speech(70)
    state = sampler.initial_state(FACE, EYES)
    motion, state = sampler(x[:59], NEUTRAL, state)
    assert len(motion) == 0
    motion, state = sampler(x[59:60], NEUTRAL, state)
    assert len(motion) == 50
    assert len(state.features) == sampler.plan.past + 10


def test_a_frame_that_is_sampled_again_keeps_its_noise():
    sampler, x = tiny(plan=WindowPlan(20, 2, 6, 0), steps=1), speech(4)
    first = sampler.initial_state(FACE, EYES, 3)
    _, second = sampler(x[:2], NEUTRAL, first)
    _, third = sampler(x[2:], NEUTRAL, second)
    assert first.noise.shape == second.noise.shape == (6, MOTION_SIZE)
    assert np.array_equal(second.noise[:4], first.noise[2:]) and np.array_equal(third.noise[:4], second.noise[2:])
    assert not np.array_equal(second.noise[4:], third.noise[4:])
    rare = tiny(plan=WindowPlan(20, 6, 6, 0), steps=1)
    assert rare.initial_state(FACE, EYES, 3).noise.shape == (0, MOTION_SIZE)


@pytest.mark.parametrize(("lookahead", "calls"), [(LOOKAHEAD, (1, 0)), (LOOKAHEAD - 1, (0, 1))])
def test_a_reduced_lookahead_uses_the_condition_network_trained_for_it(lookahead, calls):
    sampler = tiny(plan=WindowPlan(20, 50, 10, lookahead), steps=1)
    motion, _ = sampler(speech(60), NEUTRAL, sampler.initial_state(FACE, EYES))
    assert len(motion) == 50
    assert (sampler.network.condition.calls, sampler.network.short_condition.calls) == calls


def test_known_frames_reach_the_next_window():
    sampler, x = tiny(steps=2), speech(120)
    state = sampler.initial_state(FACE, EYES)
    _, state = sampler(x[:60], NEUTRAL, state)
    changed = state._replace(known=state.known + 1.0)
    assert not np.array_equal(sampler(x[60:], NEUTRAL, state)[0], sampler(x[60:], NEUTRAL, changed)[0])


def test_no_speech_gives_no_motion():
    sampler = tiny()
    motion, _ = sampler(speech(0), NEUTRAL, sampler.initial_state(FACE, EYES), final=True)
    assert motion.shape == (0, MOTION_SIZE)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 50])
def test_schedule_is_finite_and_ends_clean(steps):
    table = schedule(steps)
    assert table.dtype == np.float64 and table.shape == (steps, 3)
    assert np.isfinite(table).all() and (table[:, 1] < table[:, 2]).all() and (table[:, 1] > 0).all()
    assert table[-1, 2] == 1.0
    sampler = tiny(steps=steps)
    motion, _ = sampler(speech(20), NEUTRAL, sampler.initial_state(FACE, EYES), final=True)
    assert np.isfinite(motion).all()


@pytest.mark.parametrize("plan", [(20, 50, 11), (0, 70, 10), (80, 0, 0), (90, -20, 10)])
def test_plans_that_do_not_fill_a_window_are_refused(plan):
    with pytest.raises(ValueError, match="past \\+ hop \\+ future"):
        tiny(plan=WindowPlan(*plan))


def test_wrong_shapes_are_refused():
    sampler = tiny()
    state = sampler.initial_state(FACE, EYES)
    with pytest.raises(ValueError, match="features"):
        sampler(np.zeros((4, 367)), NEUTRAL, state)
    with pytest.raises(ValueError, match="emotion"):
        sampler(np.zeros((4, FEATURE_SIZE)), np.zeros(7), state)
    with pytest.raises(ValueError, match="canonical_keypoints"):
        sampler.initial_state(np.zeros((20, 3)), EYES)
    with pytest.raises(ValueError, match="expected steps of 1 or more, got 0"):
        tiny(steps=0)


def test_missing_weights_are_reported(tmp_path: Path):
    with pytest.raises(BundleError, match=r"motion\.safetensors"):
        MotionNetwork.open(tmp_path, CONFIG)
    (tmp_path / "motion.safetensors").write_bytes(b"not weights")
    with pytest.raises(BundleError, match=r"motion\.safetensors"):
        MotionNetwork.open(tmp_path, CONFIG)
