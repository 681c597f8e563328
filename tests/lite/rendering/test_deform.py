"""From keypoint change to mesh change."""

from pathlib import Path

import numpy as np
import pytest

import ditto
from ditto.errors import BundleError
from ditto.lite.rendering import deform
from ditto.motion.motion import KEYPOINTS, rotation_matrix
from ditto.portrait import face_mesh as g

WEIGHTS = Path(ditto.__file__).parent / "bundles" / "lite" / "renderer.safetensors"


@pytest.fixture(scope="module")
def learned():
    return deform.load_basis(WEIGHTS)


def delta_of(**changes):
    delta = np.zeros((KEYPOINTS, 3))
    for name, change in changes.items():
        delta[int(name[1:])] = change
    return delta


SPEECH = delta_of(k17=(0, 0.06, 0.005), k19=(0, 0.025, 0.01), k6=(0.01, 0.008, 0), k12=(-0.01, 0.008, 0))


def test_no_change_deforms_nothing(learned):
    assert (deform.displace(learned, np.zeros((KEYPOINTS, 3))) == 0).all()
    assert (deform.clamp_keypoints(learned, np.zeros((KEYPOINTS, 3))) == 0).all()


def test_mesh_moves_as_its_keypoints_are_told(learned):
    moved = g.keypoints(g.TEMPLATE + deform.displace(learned, SPEECH)) - g.keypoints(g.TEMPLATE)
    assert np.abs(moved - SPEECH)[[17, 19, 6, 12], 1].max() < 0.01


def test_symmetric_change_deforms_symmetrically(learned):
    change = deform.displace(learned, SPEECH)
    assert np.abs(change[g.MIRROR] * (-1, 1, 1) - change)[:468].max() < 2e-3  # float16 weights


def test_irises_follow_their_keypoints(learned):
    change = deform.displace(learned, delta_of(k11=(0.03, 0, 0), k15=(0.02, 0.01, 0)))
    assert np.allclose(change[468:473], (0.03, 0, 0)) and np.allclose(change[473:478], (0.02, 0.01, 0))


def test_speech_passes_the_clamps_and_nonsense_does_not(learned):
    assert np.abs(deform.clamp_keypoints(learned, SPEECH) - SPEECH).max() < 2e-3
    wild = deform.clamp_keypoints(learned, np.random.default_rng(0).normal(0, 1, (KEYPOINTS, 3)))
    assert np.abs(wild).max() < 0.5 and np.abs(wild[[3, 7]]).max() < 0.12


def test_a_whole_blink_passes_the_clamps(learned):
    blink = delta_of(k13=(0, 0.12, 0), k16=(0, 0.12, 0))
    assert np.allclose(deform.clamp_keypoints(learned, blink)[[13, 16], 1], 0.12)


def test_clamp_grows_with_its_input(learned):
    openings = [deform.clamp_keypoints(learned, SPEECH * k)[17, 1] for k in np.linspace(0, 8, 40)]
    assert (np.diff(openings) > -1e-6).all()


def test_folds_relax_and_smooth_changes_stay():
    smooth = 0.02 * np.stack([g.TEMPLATE[:, 1], g.TEMPLATE[:, 0], 0 * g.TEMPLATE[:, 0]], -1)
    assert (deform.relax_folds(g.TEMPLATE, smooth) == smooth).all()
    folded = np.zeros((g.LANDMARKS, 3))
    folded[205] = (0.12, 0, 0)  # a cheek landmark pushed over its neighbours

    def flipped(change):
        areas, rest = deform.signed_areas(g.TEMPLATE + change), deform.signed_areas(g.TEMPLATE)
        return int((areas * rest < 0).sum())

    assert flipped(folded) > 0
    assert flipped(deform.relax_folds(g.TEMPLATE, folded)) < flipped(folded)


def test_folds_relax_by_degrees():
    """As a landmark is pushed over its neighbours in small steps, no landmark moves much faster than it is pushed."""
    push, step = np.zeros((g.LANDMARKS, 3)), 5e-5
    for vertex, direction in ((205, (1, 0, 0)), (61, (0.8, 0.6, 0)), (291, (-1, 0, 0)), (184, (0, 1, 0))):
        push[:] = 0.0
        push[vertex] = direction
        relaxed = np.array([deform.relax_folds(g.TEMPLATE, k * step * push) for k in range(1200)])
        assert np.linalg.norm(np.diff(relaxed, axis=0), axis=-1).max() < 10 * step
        assert np.abs(relaxed[-1] - 1199 * step * push).max() > 0.005  # it did relax


def test_slope_limit_moves_nothing_in_the_sources_own_pose():
    landmarks = 210 * g.TEMPLATE @ rotation_matrix(0, 30, 0) + (256, 280, 0)
    face = g.source_geometry(landmarks, 512)
    flat = g.limit_slope(face)
    again = flat.scale_px * flat.canonical @ flat.rotation + flat.translation_px
    assert np.abs(again[:, :2] - landmarks[:, :2]).max() < 1e-9
    apart = np.sqrt(((flat.landmarks[:, None, :2] - flat.landmarks[None, :, :2]) ** 2).sum(-1))
    rise = np.abs(flat.landmarks[:, None, 2] - flat.landmarks[None, :, 2])
    assert (rise <= g.MAX_SLOPE * apart + 1e-6).all()
    assert (flat.landmarks[:, 2] <= landmarks[:, 2]).all()


def test_the_rim_of_a_turned_face_moves_with_the_skin_beside_it():
    landmarks = 210 * g.TEMPLATE @ rotation_matrix(0, 40, 0) + (256, 280, 0)
    rim = deform.find_rim(landmarks, 210.0)
    assert len(rim.ids) and np.allclose(rim.follow.sum(1), 1.0)
    even = np.tile([0.01, -0.02, 0.03], (g.LANDMARKS, 1))
    assert np.allclose(deform.follow_rim(rim, even), even)
    inner = g.UPPER_INNER_LIP + g.RIGHT_EYE.upper
    assert not np.isin(rim.ids, inner).any()


def test_missing_or_foreign_weights_are_named(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(BundleError, match="expected a readable"):
        deform.load_basis(tmp_path / "renderer.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(WEIGHTS.read_bytes()[:1000])
    with pytest.raises(BundleError, match="expected a readable"):
        deform.load_basis(tmp_path / "torn.safetensors")
    save_file({"basis": np.zeros((2, 2), np.float16)}, tmp_path / "other.safetensors")
    with pytest.raises(BundleError, match="mesh_basis"):
        deform.load_basis(tmp_path / "other.safetensors")
