"""ARKit's blendshapes to keypoints and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ditto.controls.blendshapes import (
    ARKIT_NAMES,
    COUNTED,
    EXACT,
    RIDGE,
    SHAPES,
    SURE,
    Bounded,
    solve_bounded,
    table,
    to_offsets,
    to_weights,
    without_effect,
)
from ditto.motion.motion import EXPRESSION, KEYPOINTS, TEMPLATE_APERTURE, Keypoint
from ditto.portrait.face_mesh import KEYPOINT_MIRROR

OPPOSITE = [
    ("eyeLookInLeft", "eyeLookOutLeft"), ("eyeLookInRight", "eyeLookOutRight"), ("eyeLookUpLeft", "eyeLookDownLeft"),
    ("eyeLookUpRight", "eyeLookDownRight"), ("eyeBlinkLeft", "eyeWideLeft"), ("eyeBlinkRight", "eyeWideRight"),
]  # fmt: skip


class FullSpace:
    name = "full"


def weights_of(**named):
    weights = np.zeros(SHAPES)
    for name, weight in named.items():
        weights[ARKIT_NAMES.index(name)] = weight
    return weights


def rows_of(weights, space=None):
    """Head values (N, 70) of weights (N, 52)."""
    rows = np.zeros((len(weights), 70))
    rows[:, EXPRESSION] = to_offsets(weights, space).reshape(len(weights), -1)
    return rows


def faces(frames, seed=0):
    """(frames, 52) faces with a few shapes each, none beside its opposite."""
    random = np.random.default_rng(seed)
    weights = random.uniform(size=(frames, SHAPES)) * (random.uniform(size=(frames, SHAPES)) < 0.2)
    for one, other in OPPOSITE:
        weights[weights[:, ARKIT_NAMES.index(one)] > 0.0, ARKIT_NAMES.index(other)] = 0.0
    weights[:, ARKIT_NAMES.index("tongueOut")] = 0.0
    return weights


def test_there_are_the_names_of_arkit_each_once():
    assert len(ARKIT_NAMES) == len(set(ARKIT_NAMES)) == 52
    assert all(name.replace("Left", "Right") in ARKIT_NAMES for name in ARKIT_NAMES)


def test_each_shape_of_a_side_is_the_mirror_image_of_the_other():
    for name in ARKIT_NAMES:
        other = name.replace("Left", "?").replace("Right", "Left").replace("?", "Right")
        one, two = (to_offsets(weights_of(**{n: 1.0})) for n in (name, other))
        np.testing.assert_allclose(one, two[KEYPOINT_MIRROR] * (-1.0, 1.0, 1.0), atol=2e-5)  # the file has five digits


def test_lids_and_irises_are_as_the_renderer_takes_them():
    blink = to_offsets(weights_of(eyeBlinkLeft=1.0))
    assert blink[Keypoint.LEFT_UPPER_LID].tolist() == [0.0, TEMPLATE_APERTURE, 0.0]
    assert np.count_nonzero(blink) == 1
    # The left eye looks towards the nose: to the left of the picture, in which the person's left eye is on the right.
    assert to_offsets(weights_of(eyeLookInLeft=1.0))[Keypoint.LEFT_IRIS, 0] < -0.04
    assert to_offsets(weights_of(eyeLookInRight=1.0))[Keypoint.RIGHT_IRIS, 0] > 0.04
    down = to_offsets(weights_of(eyeLookDownLeft=1.0))
    assert down[Keypoint.LEFT_IRIS, 1] > 0.03 and down[Keypoint.LEFT_UPPER_LID, 1] > 0.02
    assert to_offsets(weights_of(eyeWideRight=1.0))[Keypoint.RIGHT_UPPER_LID, 1] < -0.02


@pytest.mark.parametrize(
    ("name", "keypoint", "axis", "sign"),
    [
        ("jawOpen", Keypoint.CHIN, 1, 1), ("jawLeft", Keypoint.CHIN, 0, 1), ("mouthLeft", Keypoint.UPPER_OUTER_LIP, 0, 1),
        ("mouthSmileLeft", Keypoint.LEFT_MOUTH_CORNER, 1, -1), ("mouthFrownRight", Keypoint.RIGHT_MOUTH_CORNER, 1, 1),
        ("mouthPucker", Keypoint.RIGHT_MOUTH_CORNER, 0, 1), ("mouthPucker", Keypoint.LEFT_MOUTH_CORNER, 0, -1),
        ("browInnerUp", Keypoint.LEFT_BROW, 1, -1), ("browOuterUpRight", Keypoint.RIGHT_BROW, 1, -1),
        ("browDownLeft", Keypoint.LEFT_BROW, 1, 1), ("mouthUpperUpLeft", Keypoint.UPPER_OUTER_LIP, 1, -1),
        ("cheekSquintLeft", Keypoint.LEFT_CHEEK, 1, -1),
    ],
)  # fmt: skip
def test_a_shape_moves_its_keypoint_the_right_way(name, keypoint, axis, sign):
    assert sign * to_offsets(weights_of(**{name: 1.0}))[keypoint, axis] > 0.01


def columns(*prefixes):
    return [place for place, name in enumerate(ARKIT_NAMES) if name.startswith(prefixes)]


def test_weights_come_back_from_their_motion():
    weights = faces(100)
    error = np.abs(np.concatenate([to_weights(row[None]) for row in rows_of(weights)]) - weights)
    np.testing.assert_allclose(error[:, columns(*EXACT)], 0.0, atol=1e-4)
    assert error[:, columns(*EXACT, *SURE)].mean() < 0.03  # the ridge holds back what is seen little
    assert error[:, columns(*SURE)].mean(0).max() < 0.15 and error.mean() < 0.1  # ten shapes at once are more than is told


def test_a_face_of_one_shape_alone_is_told():
    for place in columns(*EXACT, *SURE):
        found = to_weights(rows_of(weights_of(**{ARKIT_NAMES[place]: 0.8})[None]))[0]
        assert found[place] == pytest.approx(0.8, abs=0.05), ARKIT_NAMES[place]
        assert np.sort(found)[-2] < 0.1, ARKIT_NAMES[place]


def test_weights_come_back_from_a_moving_face():
    keys = faces(12)
    signed = {one: np.random.default_rng(1).uniform(-1.0, 1.0, 12) for one, _ in OPPOSITE}
    at = np.linspace(0.0, 11.0, 200)
    weights = np.stack([np.interp(at, np.arange(12), key) for key in keys.T], -1)
    for one, other in OPPOSITE:
        way = np.interp(at, np.arange(12), signed[one])
        weights[:, ARKIT_NAMES.index(one)], weights[:, ARKIT_NAMES.index(other)] = np.maximum(way, 0), np.maximum(-way, 0)
    error = np.abs(to_weights(rows_of(weights)) - weights)
    assert error.mean() < 0.06 and error[:, columns(*EXACT, *SURE)].mean() < 0.05
    assert error[:, [ARKIT_NAMES.index(name) for pair in OPPOSITE for name in pair]].max() < 1e-3


def test_noise_of_a_tracker_shakes_no_weight():
    """A thousandth of a face width on every number of every frame."""
    weights = np.repeat(faces(1), 100, 0)
    noisy = rows_of(weights)
    noisy[:, EXPRESSION] += np.random.default_rng(0).normal(0.0, 1e-3, (100, 3 * KEYPOINTS))
    assert np.abs(np.diff(to_weights(noisy), axis=0)).mean(0).max() < 0.05


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.001, 3.0))
def test_any_motion_gives_weights_within_bounds_that_no_change_improves(seed, size):
    rows = np.random.default_rng(seed).normal(0.0, size, (2, 70))
    for row in rows:
        weights = to_weights(row[None])[0]
        assert ((weights >= 0.0) & (weights <= 1.0)).all()
        shapes = COUNTED * table("lite")
        slope = shapes @ (weights @ shapes - COUNTED * row[EXPRESSION]) + RIDGE * weights
        slack = 1e-6
        assert (slope[weights <= 0.0] >= -slack).all() and (slope[weights >= 1.0] <= slack).all()
        assert (np.abs(slope[(weights > 0.0) & (weights < 1.0)]) <= slack).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_solver_finds_the_least_from_any_start(seed):
    """Against the best of all 3^4 choices of which numbers are at a bound."""
    random = np.random.default_rng(seed)
    root = random.normal(size=(4, 4))
    gram, aim = root @ root.T + 0.01 * np.eye(4), random.normal(size=4)

    def cost(x):
        return x @ gram @ x / 2 - aim @ x

    best = np.inf
    for choice in np.ndindex(3, 3, 3, 3):
        x = np.array([0.0, 1.0, 0.0])[list(choice)]
        free = np.flatnonzero(np.array(choice) == 2)
        if free.size:
            x[free] = np.linalg.solve(gram[np.ix_(free, free)], (aim - gram @ x)[free])
        if (x >= 0.0).all() and (x <= 1.0).all():
            best = min(best, cost(x))
    start = Bounded(random.integers(0, 2, 4).astype(float), random.uniform(size=4) < 0.5)
    assert cost(solve_bounded(gram, aim, start).x) <= best + 1e-9


def test_the_space_of_full_has_its_own_table():
    names = without_effect(FullSpace())
    assert "tongueOut" in names and "mouthPressLeft" in names and "jawOpen" not in names
    assert without_effect() == ("tongueOut",)
    weights = np.stack([weights_of(**{name: 0.6}) for name in ("jawOpen", "eyeBlinkLeft", "eyeLookInRight", "browInnerUp")])
    rows = rows_of(weights, FullSpace())
    back = np.concatenate([to_weights(row[None], FullSpace()) for row in rows])
    np.testing.assert_allclose(back, weights, atol=0.02)


@pytest.mark.parametrize("weights", [np.zeros(51), np.full(52, np.nan), np.float64(1.0)])
def test_other_weights_are_refused(weights):
    with pytest.raises(ValueError, match="expected weights"):
        to_offsets(weights)


@pytest.mark.parametrize("values", [np.zeros(70), np.zeros((2, 69)), np.full((1, 70), np.inf)])
def test_other_head_values_are_refused(values):
    with pytest.raises(ValueError, match="expected head"):
        to_weights(values)


def test_a_space_without_a_table_is_refused():
    with pytest.raises(ValueError, match="expected a motion space of lite, full, got 'other'"):
        table("other")
