"""What the motion network learns from: tracked motion read right, generated motion that says what was said."""

import numpy as np
import pytest

from ditto.lite.phones import PHONE_INDEX
from ditto.motion.emotion import emotion_offset
from ditto.motion.motion import KEYPOINTS, MOTION_SIZE, rotation_matrix
from ditto.portrait.face_mesh import TEMPLATE
from ditto.training.articulation import PRIOR, Articulation, articulate, blend_weights, keypoints_of_channels, refit
from ditto.training.corpus import fit_mouth, generate, strengthen
from ditto.training.head_motion import head_and_brows, stresses
from ditto.training.motion_data import fill_gaps, grid_stems, low_pass, real_clip

LOWER_LIP = [14, 87, 317]
EMOTIONS = np.eye(8)
ANGRY, HAPPY, NEUTRAL, SURPRISE = 0, 3, 4, 6


def tracked(yaw, gap):
    """Landmarks (T, 478, 3) of the template, turned by `yaw` degrees, its lips `gap` apart."""
    face = np.repeat(TEMPLATE[None], len(gap), 0)
    own = face[:, 14, 1] - face[:, 13, 1]
    face[:, LOWER_LIP, 1] += (gap - own)[:, None]
    zero = np.zeros_like(yaw)
    return 120.0 * face @ rotation_matrix(zero, yaw, zero) + [200.0, 150.0, 0.0]


def test_a_tracked_clip_gives_back_its_turn_and_its_lips():
    t = np.arange(160)
    yaw = 6.0 * np.sin(2 * np.pi * t / 80)
    gap = 0.05 * np.maximum(np.sin(2 * np.pi * t / 12), 0.0)
    clip = real_clip(tracked(yaw, gap))
    assert clip.motion.shape == (160, MOTION_SIZE) and clip.eyes.shape == (160, 8)
    assert np.abs(clip.motion[10:-10, 2] - yaw[10:-10]).max() < 0.6  # a low-pass at 3 Hz lies between
    faces = clip.motion[:, 7:].reshape(-1, KEYPOINTS, 3)
    opening = faces[:, 17, 1] - faces[:, 14, 1]
    assert np.corrcoef(opening, gap)[0, 1] > 0.98
    assert opening[gap == 0.0].max() < 0.012
    assert np.allclose(clip.eyes[:, :2], 1.0, atol=1e-6)


def test_a_clip_that_never_closes_its_lips_is_refused():
    with pytest.raises(ValueError, match="closed lips"):
        real_clip(tracked(np.zeros(30), np.full(30, 0.05)))


def test_missing_frames_are_filled_from_their_neighbours():
    landmarks = tracked(np.zeros(30), np.linspace(0.0, 0.03, 30))
    holes = landmarks.copy()
    holes[[0, 11, 12, 29]] = np.nan
    filled = fill_gaps(holes)
    assert np.allclose(filled[11:13], landmarks[11:13], atol=1e-6)
    assert np.isfinite(filled).all()
    holes[:10] = np.nan
    with pytest.raises(ValueError, match="too few tracked frames"):
        fill_gaps(holes)


def test_every_tenth_clip_is_held_out(tmp_path):
    for i in range(23):
        (tmp_path / f"c{i:02d}.npz").touch()
    trained, held = grid_stems(tmp_path)
    assert held == ["c09", "c19"]
    assert len(trained) == 21 and not set(trained) & set(held)


def test_low_pass_keeps_the_slow_and_drops_the_fast():
    t = np.arange(400) / 25.0
    slow, fast = np.sin(2 * np.pi * 0.5 * t), np.sin(2 * np.pi * 8.0 * t)
    assert np.abs(low_pass(slow, 3.0) - slow)[50:-50].max() < 0.05
    assert np.abs(low_pass(fast, 3.0))[50:-50].max() < 0.15


def said(*phones, frames=6):
    """(2T, 40) sure probabilities, `frames` frames of each phone."""
    return np.repeat(np.eye(40)[[PHONE_INDEX[p] for p in phones]], 2 * frames, 0)


def gap_of(faces):
    return faces[:, 17, 1] - faces[:, 14, 1]


def test_vowels_open_and_bilabials_close():
    p = said("SIL", "AA", "M", "AA", "SIL")
    gap = gap_of(articulate(p, np.ones(len(p)), PRIOR))
    assert gap[8] > 0.08 and gap[14] < 0.01 and gap[20] > 0.08 and gap[28] < 0.01


def test_rounded_phones_draw_the_corners_in():
    p = said("W", "IY", frames=10)
    faces = articulate(p, np.ones(len(p)), PRIOR)
    width = faces[:, 12, 0] - faces[:, 6, 0]
    assert width[5] < -0.06 and width[15] > 0.02


def test_shares_of_the_phones_sum_to_one():
    assert np.allclose(blend_weights(said("AA", "B", "S"), PRIOR.dominance).sum(1), 1.0, atol=0.02)


def test_refit_finds_the_speakers_own_targets_and_trusts_the_prior_elsewhere():
    random = np.random.default_rng(0)
    own = PRIOR.targets.copy()
    own[PHONE_INDEX["AA"], 17, 1] += 0.03
    heard = [PHONE_INDEX[p] for p in ("AA", "S", "SIL", "M")]
    shares = random.dirichlet(np.ones(4), 3000)
    a = np.zeros((3000, 40))
    a[:, heard] = shares
    fitted = refit(a, np.einsum("tp,pkd->tkd", a, own), PRIOR)
    assert fitted.targets[PHONE_INDEX["AA"], 17, 1] == pytest.approx(own[PHONE_INDEX["AA"], 17, 1], abs=0.004)
    assert fitted.targets[PHONE_INDEX["IY"], 17, 1] == pytest.approx(PRIOR.targets[PHONE_INDEX["IY"], 17, 1], abs=1e-9)


def test_channels_at_rest_move_nothing():
    assert np.array_equal(keypoints_of_channels(np.zeros(8)), np.zeros((KEYPOINTS, 3)))


def test_emotions_move_the_face_the_way_they_look():
    assert not emotion_offset(EMOTIONS[NEUTRAL]).any()
    happy, angry, surprise = (emotion_offset(EMOTIONS[e]) for e in (HAPPY, ANGRY, SURPRISE))
    assert happy[6, 1] < 0 and happy[12, 1] < 0 and happy[6, 0] < 0 < happy[12, 0]
    assert angry[1, 1] > 0 and surprise[1, 1] < 0 and surprise[13, 1] < 0
    assert np.allclose(emotion_offset(0.5 * EMOTIONS[HAPPY] + 0.5 * EMOTIONS[NEUTRAL]), 0.5 * happy)


def speech_like(seconds=6.0):
    random = np.random.default_rng(3)
    n = int(seconds * 25)
    words = [str(p) for p in random.choice(["AA", "M", "IY", "S", "W", "B", "SIL"], n // 5)]
    p = said(*words, frames=5)
    loud = np.repeat([0.01 if w == "SIL" else 0.2 for w in words], 5 * 640)
    return p, loud * random.normal(size=len(loud))


def test_generated_motion_closes_its_lips_where_it_should():
    p, sound = speech_like()
    made = generate(p, sound, PRIOR, np.random.default_rng(1))
    assert made.motion.shape == (len(p) // 2, MOTION_SIZE) and made.eyes.shape == (len(p) // 2, 8)
    assert made.emotion.sum() == pytest.approx(1.0)
    gap = gap_of(made.motion[:, 7:].reshape(-1, KEYPOINTS, 3))
    bilabial = p[::2, [PHONE_INDEX["M"], PHONE_INDEX["B"]]].sum(1) > 0.5
    assert (gap[bilabial] < 0.015).all()
    assert gap[p[::2, PHONE_INDEX["AA"]] > 0.5].max() > 0.05


def test_generated_motion_is_the_same_for_the_same_seed():
    p, sound = speech_like(3.0)
    a, b, c = (generate(p, sound, PRIOR, np.random.default_rng(s)) for s in (4, 4, 5))
    assert np.array_equal(a.motion, b.motion) and np.array_equal(a.eyes, b.eyes)
    assert not np.array_equal(a.motion, c.motion)


def test_heads_nod_on_stresses_and_settle_in_silence():
    level = np.full(500, -40.0)
    level[100:400:25] = -20.0
    assert set(stresses(level)) <= set(range(100, 400, 25)) and len(stresses(level)) >= 10
    random = np.random.default_rng(0)
    speaking = np.stack([head_and_brows(random, level, np.zeros(500))[0] for _ in range(8)])
    silent = np.stack([head_and_brows(random, np.full(500, -60.0), np.ones(500))[0] for _ in range(8)])
    assert silent[..., 2].std() < 0.6 * speaking[..., 2].std()


def test_real_clips_are_fitted_and_strengthened():
    p = said("SIL", "AA", "M", "AA", "SIL", frames=12)
    sound = np.random.default_rng(0).normal(size=60 * 640)
    gap = np.clip(gap_of(articulate(p, np.ones(len(p)), PRIOR)), 0.0, None) * 0.5
    clip = real_clip(tracked(2.0 * np.sin(np.arange(60) / 12), gap))
    mouth = fit_mouth([clip] * 10, [p] * 10, [sound] * 10)
    assert isinstance(mouth, Articulation)
    aa = mouth.targets[PHONE_INDEX["AA"]]
    assert aa[17, 1] - aa[14, 1] < PRIOR.targets[PHONE_INDEX["AA"], 17, 1]
    strong = strengthen(clip)
    assert strong[:, 2].std() > 1.5 * clip.motion[:, 2].std()
