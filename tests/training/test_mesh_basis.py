"""Fitting the mesh basis and carrying expression shapes onto the mesh."""

import json
from pathlib import Path

import numpy as np
import pytest

from ditto.portrait import face_mesh as g
from ditto.training import arkit, face_mesh, mesh_basis

SHARED = Path(__file__).resolve().parents[3] / "shared"
MODELS = SHARED / "data" / "models"


def made_up_changes(count, seed=0):
    """Landmark changes (count, 478, 3) of eight made-up movements, smooth over the face."""
    rng = np.random.default_rng(seed)
    centres = g.TEMPLATE[[13, 14, 61, 291, 105, 334, 152, 205]]
    reach = np.exp(-((g.TEMPLATE[None] - centres[:, None]) ** 2).sum(-1) / (2 * 0.15**2))
    amounts = rng.normal(0, 0.03, (count, len(centres), 3))
    return np.einsum("nkd,kv->nvd", amounts, reach)


def test_fit_explains_what_it_was_shown(monkeypatch):
    monkeypatch.setattr(mesh_basis, "RIDGE", 1e-6)  # eight clean movements need none of the damping of tracked faces
    data = mesh_basis.moments([made_up_changes(200)])
    basis = mesh_basis.fit(data)
    unseen = made_up_changes(20, seed=1)
    x = mesh_basis.keypoint_changes(unseen)[:, mesh_basis.BASIS_KEYPOINTS].reshape(len(unseen), -1)
    error = unseen - (x @ basis.reshape(x.shape[1], -1)).reshape(unseen.shape)
    assert np.sqrt((error**2).mean()) < 0.05 * np.sqrt((unseen**2).mean())


def test_clamps_hold_the_data_they_were_made_from():
    data = mesh_basis.moments([made_up_changes(100)])
    clamps = mesh_basis.clamps(data, data, data)
    changes = data.keypoint_changes
    assert (changes >= clamps["low"] - 1e-9).all() and (changes <= clamps["high"] + 1e-9).all()
    flat = changes[:, mesh_basis.BASIS_KEYPOINTS].reshape(len(changes), -1)
    assert (np.abs(flat @ clamps["components"].T) <= clamps["component_limits"] + 1e-9).all()
    assert np.allclose(clamps["components"] @ clamps["components"].T, np.eye(54), atol=1e-9)


def test_median_face_of_a_clip_is_its_neutral(tmp_path):
    landmarks = 200 * (g.TEMPLATE + made_up_changes(31)) + 250
    landmarks[5] = np.nan  # a frame without a face
    np.savez(tmp_path / "clip.npz", landmarks=landmarks)
    changes = mesh_basis.canonical_changes(tmp_path / "clip.npz", 1)
    assert changes.shape == (30, 478, 3)
    assert np.abs(np.median(changes, 0)).max() < 1e-12


def test_mouth_close_comes_on_an_open_jaw(tmp_path):
    deltas = np.zeros((2, 478, 3), np.float32)
    deltas[0, 14, 1], deltas[1, 14, 1] = 0.2, -0.19
    np.savez(tmp_path / "shapes.npz", names=np.array(["jawOpen", "mouthClose"]), deltas=deltas)
    assert mesh_basis.read_shapes(tmp_path / "shapes.npz")[:, 14, 1] == pytest.approx([0.2, 0.01])


def test_thin_plate_keeps_affine_maps_and_meets_its_targets():
    rng = np.random.default_rng(0)
    source = rng.normal(0, 1, (30, 3))
    affine = source @ rng.normal(0, 1, (3, 3)) + 1.0
    assert np.allclose(arkit.thin_plate(source, affine)(source), affine, atol=1e-8)
    bent = source + 0.1 * np.sin(source)
    assert np.abs(arkit.thin_plate(source, bent)(source) - bent).max() < 0.05


def test_points_along_a_curve_are_evenly_spaced():
    turn = np.linspace(0, np.pi, 7)
    arc = arkit.along(np.stack([np.cos(turn), np.sin(turn), 0 * turn], -1), 12)
    steps = np.linalg.norm(np.diff(arc, axis=0), axis=1)
    assert steps.std() < 0.01 * steps.mean() and np.abs(np.linalg.norm(arc, axis=1) - 1).max() < 0.02


@pytest.mark.skipif(not MODELS.is_dir(), reason="needs ../shared/data/models")
def test_shipped_template_comes_from_the_canonical_face():
    assert np.abs(face_mesh.read_template(MODELS / "face_model_with_iris.obj") - g.TEMPLATE).max() < 1e-6


@pytest.mark.skipif(not MODELS.is_dir(), reason="needs ../shared/data/models")
def test_carried_shapes_agree_with_an_independent_registration():
    neutral, shapes = arkit.read_shapes(MODELS / "ict_facekit.npz")
    landmarks = np.asarray(json.loads((MODELS / "ict_vertex_indices.json").read_text())["idx_to_landmark_verts"])
    carried = arkit.transfer(neutral, shapes, landmarks)
    with np.load(SHARED / "renderer" / "arkit478_canonical.npz") as archive:
        names, deltas = [str(n) for n in archive["names"]], archive["deltas"].astype(np.float64)
    agreement = {}
    for name, ours in carried.items():
        theirs = deltas[names.index(name)]
        agreement[name] = float((ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs))
    assert min(agreement.values()) > 0.93 and np.mean(list(agreement.values())) > 0.975
