"""Styles: names and numbers of a strength, and what it scales."""

import numpy as np
import pytest

from ditto.motion.motion import EXPRESSION, KEYPOINTS
from ditto.motion.style import STYLED, STYLES, scale_motion, style_strength


def test_a_style_is_a_name_or_a_number():
    assert style_strength("calm") < style_strength("natural") == 1.0 < style_strength("lively")
    assert [style_strength(style) for style in (0, 0.7, np.float32(0.5), 2)] == [0.0, 0.7, 0.5, 2.0]


@pytest.mark.parametrize(
    ("style", "error", "words"),
    [
        ("Calm", ValueError, "expected a style of calm, natural, lively, or a number in .0, 2., got 'Calm'; choose"),
        ("", ValueError, "got ''"),
        (-0.1, ValueError, "got -0.1"),
        (2.1, ValueError, "got 2.1"),
        (float("nan"), ValueError, "got nan"),
        (True, TypeError, "got bool"),
        (None, TypeError, "got NoneType"),
        ([1.0], TypeError, "got list"),
    ],
)
def test_other_styles_are_refused(style, error, words):
    with pytest.raises(error, match=words):
        style_strength(style)


@pytest.mark.parametrize("strength", STYLES.values())
def test_pose_and_brows_scale_and_nothing_else(strength):
    values = np.random.default_rng(0).normal(0.0, 1.0, (6, 70))
    ratio = scale_motion(values, strength) / values
    points = ratio[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)
    np.testing.assert_allclose(ratio[:, : EXPRESSION.start], strength)
    np.testing.assert_allclose(points[:, list(STYLED), :2], strength)
    points[:, list(STYLED), :2] = 1.0
    assert np.all(points == 1.0)
