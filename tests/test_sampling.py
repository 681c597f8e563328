"""The motion sampler: windows joined without seams, deterministic, guarded."""

from pathlib import Path

import numpy as np
import pytest

from ditto.bundle import SHIPPED
from ditto.errors import BundleError
from ditto.motion import COMPACT_SIZE, TEMPLATE_APERTURE, rotation_matrix
from ditto.phones import PHONE_INDEX
from ditto.sampling import (
    CLOSING_SPEED,
    FEATURE_SIZE,
    HIDDEN_SIZE,
    LOOK_AHEAD,
    LOOK_BACK,
    OPENING_SPEED,
    PRESS_GAP,
    SURPRISE_SPEED,
    TUCK_GAP,
    WINDOW,
    Job,
    MotionNetwork,
    MotionSampler,
    WindowPlan,
    bring_out,
    finish,
    guard_mouth,
    schedule,
    shut_eyes,
    slow_closing,
    widen,
)

NEUTRAL = np.eye(8, dtype=np.float32)[4]
FACE = np.zeros((21, 3))
EYES = np.ones(2)


class TinyCondition:
    """A stand-in for the first half: mixes features over neighbouring frames, hides them where not heard."""

    inputs = outputs = ()

    def __init__(self):
        self.calls = 0

    def __call__(self, **arrays):
        self.calls += 1
        f = arrays["features"] * arrays["heard"][:, None]
        mixed = f + 0.5 * np.roll(f, 1, 1) + 0.5 * np.roll(f, -1, 1)
        eyes = np.repeat(arrays["eyes"].mean(-1, keepdims=True), COMPACT_SIZE, -1)
        face = arrays["emotion"].sum(-1)[:, None, None] + arrays["canonical"].sum(-1)[:, None, None]
        return {"condition": (mixed[..., :COMPACT_SIZE] + eyes + face).astype(np.float32)}


class TinyDenoiser:
    """A stand-in for the second half: leans on the condition, the noise and the known frames."""

    inputs = outputs = ()

    def __call__(self, **arrays):
        known = (arrays["motion"] * arrays["known"]).sum(1, keepdims=True) / WINDOW
        clean = np.tanh(arrays["condition"]) + 0.3 * arrays["motion"] + known + 0.1 * arrays["level"][:, None]
        return {"clean": clean.astype(np.float32)}


def tiny(**options):
    scale = np.linspace(0.01, 0.02, COMPACT_SIZE, dtype=np.float32)
    silence = np.zeros(FEATURE_SIZE, np.float32)
    silence[[HIDDEN_SIZE, HIDDEN_SIZE + 40]] = 1.0
    spread = np.full(COMPACT_SIZE, 0.7, np.float32)
    network = MotionNetwork(TinyCondition(), TinyCondition(), TinyDenoiser(), scale, spread, silence)
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
    assert whole.shape == (frames, COMPACT_SIZE) and np.isfinite(whole).all()
    random = np.random.default_rng(frames)
    for cuts in (range(1, frames), range(2, frames, 2), np.sort(random.integers(0, frames, 6))):
        assert np.array_equal(in_pieces(sampler, x, list(cuts), seed=5), whole)


@pytest.mark.parametrize("options", [{"guidance": 1.3}, {"eta": 1.0}, {"guidance": 1.1, "eta": 0.5}])
def test_guidance_and_fresh_noise_are_deterministic_too(options):
    sampler, x = tiny(steps=4, **options), speech(130)
    whole, _ = sampler(x, NEUTRAL, sampler.initial_state(FACE, EYES), final=True)
    assert np.array_equal(in_pieces(sampler, x, [3, 70, 71]), whole)
    plain, _ = (s := tiny(steps=4))(x, NEUTRAL, s.initial_state(FACE, EYES), final=True)
    assert not np.array_equal(plain, whole)


@pytest.fixture(scope="module")
def shipped():
    return MotionSampler(MotionNetwork.open(SHIPPED / "lite"), WindowPlan(22, 2, 16, 0), 2)


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
        jobs = [Job(p[k], mood, state, k == 2) for p, mood, state in zip(pieces, moods, states, strict=True)]
        found = sampler.together(jobs)
        states = [state for _, state in found]
        for motions, (motion, _) in zip(out, found, strict=True):
            motions.append(motion)
    for motions, (motion, state), after in zip(out, alone, states, strict=True):
        assert np.array_equal(np.concatenate(motions), motion)
        assert np.array_equal(after.known, state.known) and after.window == state.window


def test_nothing_together_is_nothing_and_one_wrong_job_refuses_all():
    sampler = tiny(steps=1)
    state = sampler.initial_state(FACE, EYES)
    assert sampler.together([]) == []
    with pytest.raises(ValueError, match=r"features \(T, 368\)"):
        sampler.together([Job(speech(80), NEUTRAL, state), Job(np.zeros((4, 367)), NEUTRAL, state)])


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


def test_a_frame_that_is_drawn_again_keeps_its_noise():
    sampler, x = tiny(plan=WindowPlan(20, 2, 6, 0), steps=1), speech(4)
    first = sampler.initial_state(FACE, EYES, 3)
    _, second = sampler(x[:2], NEUTRAL, first)
    _, third = sampler(x[2:], NEUTRAL, second)
    assert first.noise.shape == second.noise.shape == (6, COMPACT_SIZE)
    assert np.array_equal(second.noise[:4], first.noise[2:]) and np.array_equal(third.noise[:4], second.noise[2:])
    assert not np.array_equal(second.noise[4:], third.noise[4:])
    rare = tiny(plan=WindowPlan(20, 6, 6, 0), steps=1)
    assert rare.initial_state(FACE, EYES, 3).noise.shape == (0, COMPACT_SIZE)


@pytest.mark.parametrize(("ahead", "calls"), [(LOOK_AHEAD, (1, 0)), (LOOK_AHEAD - 1, (0, 1))])
def test_a_stream_that_hears_less_asks_the_half_that_was_taught_to(ahead, calls):
    sampler = tiny(plan=WindowPlan(20, 50, 10, ahead), steps=1)
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
    assert motion.shape == (0, COMPACT_SIZE)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 50])
def test_schedule_is_finite_and_ends_clean(steps):
    table = schedule(steps)
    assert table.dtype == np.float64 and table.shape == (steps, 3)
    assert np.isfinite(table).all() and (table[:, 1] < table[:, 2]).all() and (table[:, 1] > 0).all()
    assert table[-1, 2] == 1.0
    sampler = tiny(steps=steps, eta=1.0)
    motion, _ = sampler(speech(20), NEUTRAL, sampler.initial_state(FACE, EYES), final=True)
    assert np.isfinite(motion).all()


def phones_of(*names):
    """(n, 2, 40) sure phones; the first name stands for all frames before those guarded."""
    names = (names[0],) * (LOOK_BACK - 1) + names
    return np.repeat(np.eye(40)[[PHONE_INDEX[n] for n in names]][:, None], 2, 1)


def open_mouth(frames, gap=0.08):
    motion = np.zeros((frames, COMPACT_SIZE), np.float32)
    motion[:, 7 + 3 * 17 + 1] = gap
    return motion


def gap_of(motion):
    points = motion[:, 7:].reshape(-1, 21, 3)
    return points[:, 17, 1] - points[:, 14, 1]


def test_lips_close_on_bilabials_and_stay_open_on_vowels():
    phones = phones_of("AA", "AA", "AA", "M", "AA", "AA", *["AA"] * LOOK_AHEAD)
    gap = gap_of(guard_mouth(open_mouth(5), phones, 0)[0])
    assert gap[2] <= 0.0
    assert gap[0] == pytest.approx(0.08) and gap[4] == pytest.approx(0.08)


def test_wide_open_lips_close_over_frames_not_at_once():
    phones = phones_of(*["AA"] * 5, "M", *["AA"] * (4 + LOOK_AHEAD))
    gap = gap_of(guard_mouth(open_mouth(9, 0.14), phones, 0)[0])
    assert gap[4] == pytest.approx(PRESS_GAP, abs=1e-6)
    assert np.diff(gap[2:5]) == pytest.approx([-CLOSING_SPEED] * 2, abs=1e-6)
    assert np.diff(gap[4:7]) == pytest.approx([OPENING_SPEED] * 2, abs=1e-6)


def test_lips_take_two_frames_to_close_where_nobody_heard_it_coming():
    phones = phones_of("AA", "M", "M")
    shut, _ = guard_mouth(open_mouth(2, 0.1), phones, 0, 0)
    assert gap_of(shut) == pytest.approx([PRESS_GAP] * 2, abs=1e-6)
    slow, last = slow_closing(shut, 0.1)
    assert gap_of(slow) == pytest.approx([0.1 - SURPRISE_SPEED, PRESS_GAP], abs=1e-6) and last == gap_of(slow)[-1]
    first, gap = slow_closing(shut[:1], 0.1)
    assert np.array_equal(np.concatenate([first, slow_closing(shut[1:], gap)[0]]), slow)
    opening = open_mouth(2, 0.1)
    assert np.array_equal(slow_closing(opening, 0.0)[0], opening)


def test_a_bilabial_in_one_token_of_a_frame_is_enough():
    phones = phones_of(*["AA"] * (4 + LOOK_AHEAD))
    phones[LOOK_BACK + 1, 1] = 0.45 * np.eye(40)[0] + 0.55 * np.eye(40)[PHONE_INDEX["B"]]
    assert gap_of(guard_mouth(open_mouth(3), phones, 0)[0])[1] <= 0.0


def test_a_weak_bilabial_beside_a_sure_one_closes_too():
    phones = phones_of(*["AA"] * (4 + LOOK_AHEAD))
    weak = 0.84 * np.eye(40)[1] + 0.16 * np.eye(40)[PHONE_INDEX["P"]]
    phones[LOOK_BACK : LOOK_BACK + 2] = weak
    assert (gap_of(guard_mouth(open_mouth(3), phones, 0)[0]) > 0.05).all()
    phones[LOOK_BACK] = np.eye(40)[PHONE_INDEX["P"]]
    assert (gap_of(guard_mouth(open_mouth(3), phones, 0)[0])[:2] <= 0.0).all()


def test_quiet_speakers_open_their_lips_as_wide_as_others():
    quiet, loud = open_mouth(400, 0.06), open_mouth(400, 0.09)
    speaking = np.zeros(400)
    a, widest = widen(quiet, speaking, 0.078)
    b, _ = widen(loud, speaking, 0.078)
    assert gap_of(a)[-1] > 1.2 * 0.06
    assert abs(gap_of(a)[-1] - gap_of(b)[-1]) < 0.02
    first, middle = widen(quiet[:33], speaking[:33], 0.078)
    second, end = widen(quiet[33:], speaking[33:], middle)
    assert np.array_equal(np.concatenate([first, second]), a) and end == widest


def test_silence_does_not_count_for_the_opening():
    assert widen(open_mouth(50, 0.0), np.ones(50), 0.078)[1] == 0.078


def test_the_lower_lip_meets_the_teeth_on_f():
    phones = phones_of("AA", "AA", "F", "AA", *["AA"] * LOOK_AHEAD)
    out, _ = guard_mouth(open_mouth(3), phones, 0)
    points = out[:, 7:].reshape(3, 21, 3)
    assert abs(gap_of(out)[1] - TUCK_GAP) < 0.002
    assert points[1, 14, 1] < points[0, 14, 1] - 0.005  # the upper lip lifts off the teeth
    assert out[1, 7 + 3 * 17 + 2] > 0.0


def test_lips_rest_in_long_pauses_only():
    short = phones_of(*["AA"] * 3, *["SIL"] * 6, *["AA"] * (4 + LOOK_AHEAD))
    gap = gap_of(guard_mouth(open_mouth(12), short, 0)[0])
    assert np.allclose(gap, 0.08)
    long = phones_of(*["AA"] * 3, *["SIL"] * 14, *["AA"] * (4 + LOOK_AHEAD))
    gap = gap_of(guard_mouth(open_mouth(20), long, 0)[0])
    assert np.allclose(gap[5:12], 0.0, atol=1e-6)
    assert gap[1] == pytest.approx(0.08) and gap[16] == pytest.approx(0.08)


def test_the_guard_does_not_depend_on_where_it_is_cut():
    motion, x = open_mouth(60), speech(60 + LOOK_BACK + LOOK_AHEAD)
    phones = x[:, HIDDEN_SIZE:].reshape(-1, 2, 40)
    whole, run = guard_mouth(motion, phones, 4)
    first, middle = guard_mouth(motion[:27], phones[: 27 + LOOK_BACK + LOOK_AHEAD], 4)
    second, end = guard_mouth(motion[27:], phones[27:], middle)
    assert np.array_equal(np.concatenate([first, second]), whole) and end == run


def test_expression_leaves_in_the_camera_frame():
    motion = np.zeros((1, COMPACT_SIZE), np.float32)
    motion[0, 1:4] = (5.0, -20.0, 10.0)
    motion[0, 7 + 3 * 19 + 1] = 0.1
    out = finish(motion)
    assert np.allclose(out[0, 7 + 57 : 7 + 60], [0.0, 0.1, 0.0] @ rotation_matrix(5.0, -20.0, 10.0), atol=1e-6)


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
    with pytest.raises(ValueError, match="diffusion step"):
        tiny(steps=0)


def test_missing_weights_are_reported(tmp_path: Path):
    with pytest.raises(BundleError, match=r"motion\.safetensors"):
        MotionNetwork.open(tmp_path)
    (tmp_path / "motion.safetensors").write_bytes(b"not weights")
    with pytest.raises(BundleError, match=r"motion\.safetensors"):
        MotionNetwork.open(tmp_path)


def test_blinks_close_the_lids_whatever_the_network_says():
    eyes = np.ones((3, 8), np.float32)
    eyes[1, :2] = 0.0
    motion = np.zeros((3, 70), np.float32)
    motion[:, 7 + 3 * 13 + 1] = 0.01
    lids = shut_eyes(motion, eyes)[:, 7:].reshape(3, 21, 3)[:, (13, 16), 1]
    assert lids[1] == pytest.approx([TEMPLATE_APERTURE] * 2)
    assert np.array_equal(lids[(0, 2),], np.array([[0.01, 0.0]] * 2, np.float32))


def test_an_emotion_shows_in_brows_and_corners_and_neutral_changes_nothing():
    happy, angry, neutral = np.eye(8, dtype=np.float32)[[3, 0, 4]]
    rest = np.zeros((2, 70), np.float32)
    assert np.array_equal(bring_out(rest, neutral), rest)
    assert (bring_out(rest, happy)[:, 7 + 3 * 6 + 1] < -0.01).all()  # the corner of the mouth rises
    assert (bring_out(rest, angry)[:, 7 + 3 * 1 + 1] > 0.008).all()  # the brow comes down
