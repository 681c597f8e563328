"""What the motion network learns from: tracked motion read right, generated motion that says what was said."""

import numpy as np
import pytest

from ditto.lite.phones import PHONE_INDEX
from ditto.motion.motion import KEYPOINTS, MOTION_SIZE, rotation_matrix
from ditto.portrait.face_mesh import TEMPLATE
from ditto.training import natural_talk
from ditto.training.articulation import PRIOR, Articulation, articulate, blend_weights, keypoints_of_channels, refit
from ditto.training.corpus import Speech, enliven, fit_mouth, generate
from ditto.training.emotion_shapes import emotion_offset
from ditto.training.head_motion import BANDS, NATURAL_RMS, band_noise, band_rms, head_and_brows, phrases, stresses
from ditto.training.motion_data import fill_gaps, grid_stems, real_clip
from ditto.training.natural_talk import (
    GAP,
    WIDTH,
    Curves,
    Talk,
    fit_shape,
    follow,
    kernels,
    kernels_without,
    lip_curves,
    lip_scores,
    measure_lips,
)
from ditto.training.smoothing import low_pass

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


def test_a_clip_that_never_closes_its_lips_has_them_closed_in_its_neutral():
    gap = 0.04 + 0.02 * np.sin(np.arange(30) / 2)
    opened = gap_of(real_clip(tracked(np.zeros(30), gap)).motion[:, 7:].reshape(-1, KEYPOINTS, 3))
    assert opened == pytest.approx(gap, abs=0.012)


def test_missing_frames_are_filled_from_their_neighbours():
    landmarks = tracked(np.zeros(30), np.linspace(0.0, 0.03, 30))
    holes = landmarks.copy()
    holes[[0, 11, 12, 29]] = np.nan
    filled = fill_gaps(holes)
    assert np.allclose(filled[11:13], landmarks[11:13], atol=1e-6)
    assert np.isfinite(filled).all()
    holes[:10] = np.nan
    with pytest.raises(ValueError, match="expected a face in over 80 % of the frames, got"):
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


def spoken(p, sound):
    """Phones (2T, 40) and their sound as `Speech`."""
    return Speech(p.reshape(len(p) // 2, 2, 40), np.asarray(sound, np.float32)[: len(p) // 2 * 640])


def shape_of_prior():
    """How the mouth of the hand table follows its opening and width."""
    random = np.random.default_rng(0)
    return fit_shape(np.einsum("tp,pkd->tkd", random.dirichlet(np.full(40, 0.2), 2000), PRIOR.targets))


def made_of(seconds, seed):
    p, sound = speech_like(seconds)
    return p, generate(spoken(p, sound), PRIOR, shape_of_prior(), np.random.default_rng(seed))


def test_generated_motion_closes_its_lips_where_it_should():
    p, made = made_of(6.0, 1)
    assert made.motion.shape == (len(p) // 2, MOTION_SIZE) and made.eyes.shape == (len(p) // 2, 8)
    assert made.emotion.sum() == pytest.approx(1.0)
    gap = gap_of(made.motion[:, 7:].reshape(-1, KEYPOINTS, 3))
    bilabial = p[::2, [PHONE_INDEX["M"], PHONE_INDEX["B"]]].sum(1) > 0.5
    assert (gap[bilabial] < 0.015).all()
    assert gap[p[::2, PHONE_INDEX["AA"]] > 0.5].max() > 0.05


def test_generated_motion_is_the_same_for_the_same_seed():
    a, b, c = (made_of(3.0, seed)[1] for seed in (4, 4, 5))
    assert np.array_equal(a.motion, b.motion) and np.array_equal(a.eyes, b.eyes)
    assert not np.array_equal(a.motion, c.motion)


def test_lips_follow_the_measured_kernels():
    k = kernels()
    assert k.opening.shape == k.width.shape == (5, 40) and k.lags == (-2, -1, 0, 1, 2)
    usual = lip_curves(np.tile(k.mean, (9, 1)))  # phones as often as usual: the mean of a talker
    assert usual.gap == pytest.approx(GAP.mean) and usual.width == pytest.approx(WIDTH.mean)
    p = np.tile(k.mean, (9, 1))
    p[4, PHONE_INDEX["AA"]] += 0.5
    opened = (lip_curves(p).gap - GAP.mean)[2:7]  # one frame of more AA, written out in time: the kernel backwards
    expected = 0.5 * 1.6 * GAP.deviation * k.opening[::-1, PHONE_INDEX["AA"]]
    assert opened == pytest.approx(np.maximum(expected, -GAP.mean))


def test_lips_stay_parted_in_a_silence_and_open_before_a_vowel():
    p = said("AA", "M", "SIL", "AA", frames=8)
    gap = lip_curves(p.reshape(-1, 2, 40).mean(1)).gap
    assert gap[18:22].min() > 0.02
    assert gap[23] > gap[20]


def test_a_mouth_is_brought_to_an_opening_and_a_width():
    random = np.random.default_rng(1)
    faces = random.normal(0.0, 0.02, (30, KEYPOINTS, 3))
    shape = shape_of_prior()
    curves = Curves(random.uniform(0.0, 0.1, 30), random.normal(0.0, 0.03, 30))
    found = measure_lips(follow(faces, curves, shape))
    assert found.gap == pytest.approx(curves.gap, abs=1e-9)
    assert found.width == pytest.approx(curves.width, abs=1e-9)
    eyes = [11, 13, 15, 16]
    assert np.array_equal(follow(faces, curves, shape)[:, eyes], faces[:, eyes])


def test_band_noise_has_its_band_and_its_size():
    random = np.random.default_rng(0)
    noise = np.stack([band_noise(random, 5000, 1.0, 2.0) for _ in range(3)], 1)
    assert noise.std(0) == pytest.approx(1.0, abs=0.1)
    rms = band_rms(noise)
    assert rms[2] == pytest.approx(1.0, abs=0.1) and rms[[0, 1, 3, 4]].max() < 0.15
    t = np.arange(5000) / 25.0
    wave = np.stack([np.sqrt(2.0) * np.sin(2 * np.pi * f * t) for f in (0.3, 3.0, 6.0)], 1)
    assert [band_rms(wave)[i, k] for k, i in enumerate((0, 3, 4))] == pytest.approx([1.0, 1.0, 1.0], abs=0.02)


def test_generated_heads_move_as_natural_heads_do():
    random = np.random.default_rng(0)
    level = np.full(750, -40.0)
    level[10:750:20] = -24.0
    silent = np.zeros(750)
    silent[::90] = silent[1::90] = silent[2::90] = silent[3::90] = silent[4::90] = 1.0
    found = [head_and_brows(random, level, silent) for _ in range(12)]
    rms = np.sqrt(np.mean([band_rms(head.pose[:, 1:4]) ** 2 for head in found], 0))
    assert len(BANDS) == len(rms) and (0.5 < rms / NATURAL_RMS).all() and (rms / NATURAL_RMS < 2.0).all()
    assert 0.2 < np.mean([head.brow.std() for head in found]) < 0.8


def test_phrases_are_divided_by_pauses():
    silent = np.array([1, 0, 0, 1, 0, 0, 1, 1, 1, 1, 0, 0, 1])
    assert phrases(silent) == [(1, 6), (10, 12)]
    assert phrases(np.ones(5)) == []


def test_heads_nod_on_stresses_and_settle_in_silence():
    level = np.full(500, -40.0)
    level[100:400:25] = -20.0
    assert set(stresses(level)) <= set(range(100, 400, 25)) and len(stresses(level)) >= 10
    random = np.random.default_rng(0)
    speaking = np.stack([head_and_brows(random, level, np.zeros(500)).pose for _ in range(12)])
    silent = np.stack([head_and_brows(random, np.full(500, -60.0), np.ones(500)).pose for _ in range(12)])
    speed = np.abs(np.diff(speaking[..., 1:4], axis=1)).mean() / np.abs(np.diff(silent[..., 1:4], axis=1)).mean()
    assert 1.2 < speed < 1.8  # 1.45 in natural talk


def test_real_clips_are_fitted_and_strengthened():
    p = said("SIL", "AA", "M", "AA", "SIL", frames=12)
    sound = np.random.default_rng(0).normal(size=60 * 640)
    gap = np.clip(gap_of(articulate(p, np.ones(len(p)), PRIOR)), 0.0, None) * 0.5
    clip = real_clip(tracked(2.0 * np.sin(np.arange(60) / 12), gap))
    mouth = fit_mouth([clip] * 10, [spoken(p, sound)] * 10)
    assert isinstance(mouth, Articulation)
    aa = mouth.targets[PHONE_INDEX["AA"]]
    assert aa[17, 1] - aa[14, 1] < PRIOR.targets[PHONE_INDEX["AA"], 17, 1]
    lively = enliven(clip, spoken(p, sound), np.random.default_rng(0))
    assert lively[:, 1].std() > 1.0 > clip.motion[:, 1].std()
    before, after = (gap_of(m[:, 7:].reshape(-1, KEYPOINTS, 3)) for m in (clip.motion, lively))
    assert np.corrcoef(before, after)[0, 1] > 0.99 and after.std() > before.std()
    shared = real_clip(tracked(np.zeros(30), np.full(30, 0.05)), [tracked(np.zeros(9), np.zeros(9))])
    assert gap_of(shared.motion[:, 7:].reshape(-1, KEYPOINTS, 3)) == pytest.approx(0.05, abs=0.006)


def test_kernels_without_a_clip_are_those_of_a_fit_that_never_saw_it(monkeypatch):
    random = np.random.default_rng(0)
    blank = kernels()._replace(mean=np.full(40, 0.02))
    clips = [
        Talk(random.random((200, 40)), random.normal(size=200), random.normal(size=200) + random.normal()) for _ in range(3)
    ]

    def fitted(clips):
        x = np.concatenate([natural_talk._design(blank, clip.phones) for clip in clips])
        weights = [
            np.linalg.solve(x.T @ x + 10.0 * np.eye(200), x.T @ np.concatenate(lips)).reshape(5, 40)
            for lips in zip(*((clip.opening, clip.width) for clip in clips), strict=True)
        ]
        return blank._replace(opening=weights[0], width=weights[1])

    monkeypatch.setattr(natural_talk, "FITTED_FRAMES", 600)
    left = kernels_without(clips[:1], clips[1:], fitted(clips))
    fair = fitted(clips[1:])
    assert np.allclose(left.opening, fair.opening, atol=1e-10) and np.allclose(left.width, fair.width, atol=1e-10)
    assert not np.allclose(fitted(clips).opening, fair.opening, atol=1e-3)
    assert np.allclose(lip_scores(clips[0].phones, left)[0], lip_scores(clips[0].phones, fair)[0])
