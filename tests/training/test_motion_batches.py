"""Windows of the corpus: what they hold, that they depend on their number alone, mirrored faces."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch (pip install ditto[train])")

from small_corpus import small_corpus, write_dataset  # noqa: E402

from ditto.errors import InputError  # noqa: E402
from ditto.motion.motion import LAYOUT_265, PACKED_SIZE, Keypoint, pack_265, unpack_265  # noqa: E402
from ditto.training.dataset import read_dataset  # noqa: E402
from ditto.training.motion_batches import (  # noqa: E402
    WINDOW,
    Units,
    corpus_of_dataset,
    draw,
    load_corpus,
    mirror_eyes,
    mirror_keypoints,
    mirror_motion,
    with_motion_size,
)
from ditto.training.recipe import PRESETS, Recipe, preset  # noqa: E402

CORPUS = small_corpus()
UNITS = Units.of(CORPUS)
RECIPE = Recipe(batch=4)
STILL = replace(RECIPE, flip=0.0, shape_scale=0.0, shape_shift=0.0, feature_noise=0.0)
FULL = replace(STILL, size="full")


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip([*a.batch, *a.noise], [*b.batch, *b.noise], strict=True))


def test_a_window_depends_on_its_seed_step_and_number_alone():
    whole = draw(CORPUS, UNITS, RECIPE, 5, 7, range(4))
    halves = [draw(CORPUS, UNITS, RECIPE, 5, 7, numbers) for numbers in (range(2), range(2, 4))]
    for i, tensors in enumerate(
        zip([*whole.batch, *whole.noise], *[[*h.batch, *h.noise] for h in halves], strict=True)
    ):
        assert torch.equal(tensors[0], torch.cat(tensors[1:])), i
    assert whole.clips == halves[0].clips + halves[1].clips
    assert not same(whole, draw(CORPUS, UNITS, RECIPE, 6, 7, range(4)))
    assert not same(whole, draw(CORPUS, UNITS, RECIPE, 5, 8, range(4)))


def test_windows_hold_the_motion_of_their_clip():
    drawn = draw(CORPUS, UNITS, STILL, 0, 0, range(40))
    for b, name in enumerate(drawn.clips):
        clip = CORPUS.names.index(name)
        rows = CORPUS.motion[CORPUS.start[clip] : CORPUS.start[clip] + CORPUS.length[clip]]
        counted = drawn.batch.counts[b, :, 0].numpy() > 0
        lip = 7 + 3 * Keypoint.LOWER_INNER_LIP + 1  # lips do not fade in from rest
        found = drawn.batch.motion[b, counted, lip].numpy() * UNITS.scale[lip]
        assert len(found) >= 10
        starts = np.lib.stride_tricks.sliding_window_view(rows[:, lip], len(found))
        assert np.abs(starts - found).max(1).min() < 1e-6
        assert not (drawn.batch.known[b, :, 0].numpy()[counted]).any()


def test_a_window_of_the_full_size_knows_the_frame_before_it():
    drawn = draw(CORPUS, UNITS, FULL, 0, 0, range(6))
    assert drawn.batch.motion.shape == (6, WINDOW + 1, 70)
    assert (drawn.batch.known[:, 0] == 1).all() and (drawn.batch.known[:, 1:] == 0).all()
    assert (drawn.batch.counts[:, 0] == 0).all() and (drawn.batch.counts[:, 1] == 1).all()


def test_canonical_keypoints_come_from_a_random_frame():
    looks = np.random.default_rng(0).normal(size=(4 * 75, 63)).astype(np.float32)
    corpus = CORPUS._replace(canonical=looks, look_start=np.arange(4) * 75, look_count=np.full(4, 75))
    drawn = draw(corpus, UNITS, FULL, 0, 0, range(12))
    frames = set()
    for name, found in zip(drawn.clips, drawn.batch.canonical.numpy(), strict=True):
        clip = CORPUS.names.index(name)
        (frame,) = np.flatnonzero(np.isclose(looks[clip * 75 : clip * 75 + 75], found, atol=1e-6).all(1))
        frames.add((clip, int(frame)))
    assert len(frames) > 8


def test_speech_is_hidden_as_often_as_the_recipe_says():
    drawn = draw(CORPUS, UNITS, replace(STILL, drop_condition=0.25), 0, 0, range(400))
    assert 1 - drawn.noise.speech_mask.mean().item() == pytest.approx(0.25, abs=0.07)


def test_shares_say_how_often_each_kind_is_drawn():
    corpus = CORPUS._replace(pool=np.array([0, 1, 1, 1]), shares=np.array([3.0, 1.0]))
    drawn = draw(corpus, UNITS, STILL, 0, 0, range(300))
    assert drawn.clips.count("clip0") / 300 == pytest.approx(0.75, abs=0.08)


@pytest.mark.parametrize("pack", [lambda x: x, pack_265], ids=["70", "265"])
def test_mirrored_twice_is_the_same(pack):
    motion = pack(CORPUS.motion[:20])
    assert np.array_equal(mirror_motion(mirror_motion(motion)), motion)
    eyes = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    assert np.array_equal(mirror_eyes(mirror_eyes(eyes)), eyes)
    assert np.array_equal(mirror_keypoints(mirror_keypoints(CORPUS.canonical)), CORPUS.canonical)


def test_both_codings_are_mirrored_alike():
    motion = CORPUS.motion[:20]
    packed = unpack_265(mirror_motion(pack_265(motion)))
    assert np.allclose(packed, mirror_motion(motion), atol=2e-3)  # what the bins keep of an angle
    assert mirror_motion(motion)[3, 2] == -motion[3, 2] and mirror_motion(motion)[3, 1] == motion[3, 1]
    right, left = 7 + 3 * Keypoint.RIGHT_MOUTH_CORNER, 7 + 3 * Keypoint.LEFT_MOUTH_CORNER
    assert np.array_equal(mirror_motion(motion)[:, right], -motion[:, left])


def test_a_flipped_window_is_the_mirrored_window():
    plain = draw(CORPUS, UNITS._replace(scale=np.ones(70, np.float32)), STILL, 0, 0, range(4))
    flipped = draw(CORPUS, UNITS._replace(scale=np.ones(70, np.float32)), replace(STILL, flip=1.0), 0, 0, range(4))
    assert np.array_equal(flipped.batch.motion.numpy(), mirror_motion(plain.batch.motion.numpy()))
    assert np.array_equal(flipped.batch.eyes.numpy(), mirror_eyes(plain.batch.eyes.numpy()))
    assert torch.equal(flipped.batch.features, plain.batch.features)


def test_bins_share_a_scale_and_angles_come_back():
    corpus = with_motion_size(CORPUS, PACKED_SIZE)
    scale = Units.of(corpus).scale
    assert scale.shape == (PACKED_SIZE,) and len(set(scale[LAYOUT_265["yaw"]])) == 1
    assert np.allclose(unpack_265(corpus.motion), CORPUS.motion, atol=2e-3)
    with pytest.raises(InputError, match="expected motion of 70 numbers a frame, got 265"):
        with_motion_size(corpus, 70)


def test_a_dataset_gives_the_corpus(tmp_path):
    dataset = read_dataset(write_dataset(tmp_path))
    found = corpus_of_dataset(dataset, "train")
    assert found.names == CORPUS.names[:3] and np.array_equal(found.motion, CORPUS.motion[: 3 * 75])
    assert corpus_of_dataset(dataset, "held").names == CORPUS.names[3:]
    assert found.fingerprint() == corpus_of_dataset(dataset, "train").fingerprint()
    assert found.fingerprint() != found._replace(motion=found.motion + np.float32(1e-3)).fingerprint()


def test_a_file_that_is_no_corpus_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no")
    with pytest.raises(InputError, match="expected a corpus with features"):
        load_corpus(tmp_path / "a.npz")


def test_a_corpus_without_silence_is_refused():
    with pytest.raises(InputError, match="silence between the words"):
        Units.of(CORPUS._replace(features=np.zeros_like(CORPUS.features)))


def test_presets_are_named_and_checked():
    assert set(PRESETS) == {"lite", "short", "paper"}
    assert preset("paper").optimizer == "adan" and preset("paper").motion_size == PACKED_SIZE
    assert (preset("paper").learning_rate, preset("paper").weight_decay) == (1e-4, 0.02)
    with pytest.raises(InputError, match="expected a preset of lite, short, paper, got 'big'"):
        preset("big")
    with pytest.raises(InputError, match="expected steps of 1 or more, got 0"):
        Recipe(steps=0)
    with pytest.raises(InputError, match="expected motion_size of 70"):
        Recipe(motion_size=PACKED_SIZE)
