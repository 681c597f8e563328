"""The face mesh and the head fit."""

import numpy as np
import pytest

from ditto.motion.motion import rotation_matrix
from ditto.portrait import face_mesh as g


def test_template_is_symmetric_and_one_face_unit_wide():
    assert np.linalg.norm(g.TEMPLATE[454] - g.TEMPLATE[234]) == pytest.approx(1.0, abs=1e-6)
    assert np.abs(g.TEMPLATE[g.MIRROR] * (-1, 1, 1) - g.TEMPLATE).max() < 1e-6
    assert (g.MIRROR[g.MIRROR] == np.arange(478)).all()


def test_triangles_cover_the_face_once_without_overlap():
    triangles = np.concatenate([g.FACE_TRIANGLES, g.MOUTH_TRIANGLES, g.EYE_TRIANGLES])
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), 1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    assert count.max() == 2  # no edge has more than two sides
    border = set(unique[count == 1].ravel())
    assert border == set(g.FACE_OVAL)  # with mouth and eyes filled, the oval is the only border


def test_contours_pair_up_and_mirror():
    assert list(g.MIRROR[g.RIGHT_EYE.upper]) == g.LEFT_EYE.upper
    assert list(g.MIRROR[g.RIGHT_EYE.lower_ring]) == g.LEFT_EYE.lower_ring
    assert list(g.MIRROR[g.UPPER_INNER_LIP]) == g.UPPER_INNER_LIP[::-1]
    assert (g.TEMPLATE[g.LOWER_INNER_LIP[1:-1], 1] > g.TEMPLATE[g.UPPER_INNER_LIP[1:-1], 1]).all()


def test_head_fit_recovers_a_posed_template():
    rotation = rotation_matrix(7.0, -12.0, 20.0)
    landmarks = 210.0 * g.TEMPLATE @ rotation + (250.0, 260.0, 3.0)
    scale, fitted, translation, canonical = g.fit_head(landmarks)
    assert scale == pytest.approx(210.0)
    assert np.allclose(fitted, rotation, atol=1e-9)
    assert np.allclose(translation, (250.0, 260.0, 3.0))
    assert np.allclose(canonical, g.TEMPLATE, atol=1e-9)


def test_head_fit_leaves_expression_in_the_canonical_face():
    face = g.TEMPLATE.copy()
    face[g.LOWER_INNER_LIP[1:-1], 1] += 0.1
    canonical = g.fit_head(200.0 * face @ rotation_matrix(3, 4, 5) + 99.0)[3]
    assert np.allclose(canonical, face, atol=1e-9)
    assert (g.keypoints(canonical) - g.keypoints(g.TEMPLATE))[17, 1] == pytest.approx(0.1)


def test_mirrored_face_has_mirrored_keypoints():
    face = g.TEMPLATE + np.random.default_rng(0).normal(0, 0.02, (478, 3))
    mirrored = face[g.MIRROR] * (-1, 1, 1)
    assert np.allclose(g.keypoints(mirrored), g.keypoints(face)[g.KEYPOINT_MIRROR] * (-1, 1, 1))


def test_head_fit_refuses_other_landmark_counts():
    with pytest.raises(ValueError, match="478"):
        g.fit_head(np.zeros((468, 3)))


def test_the_inverse_of_two_by_two_undoes_it():
    matrix = np.array([[0.9, -0.3], [0.2, 1.4]])
    assert np.allclose(g.inverse_2x2(matrix) @ matrix, np.eye(2), atol=1e-12)


def test_a_step_of_a_number_is_that_of_an_array_bit_for_bit():
    x = np.concatenate([np.linspace(-0.3, 1.4, 200), [np.nan, np.inf, -np.inf]])
    for low, high in ((0.0, 1.0), (0.15, 0.4), (0.98, 0.7)):
        alone = [g.smoothstep(low, high, float(value)) for value in x]
        np.testing.assert_array_equal(alone, g.smoothstep(low, high, x))
