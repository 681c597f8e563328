"""A track: what it refuses, its rate, and the way to a motion and back."""

import numpy as np
import pytest

from ditto.controls.blendshapes import ARKIT_NAMES, SHAPES, to_offsets
from ditto.errors import ExchangeError
from ditto.exchange.track import BlendshapeTrack
from ditto.motion.motion import EXPRESSION


def weights_of(frames=1, **named):
    weights = np.zeros((frames, SHAPES))
    for name, weight in named.items():
        weights[:, ARKIT_NAMES.index(name)] = weight
    return weights


def test_a_motion_comes_back_from_its_track():
    values = np.zeros((50, 70))
    swing = 0.5 - 0.5 * np.cos(np.arange(50) / 8.0)
    values[:, EXPRESSION] = (swing[:, None] * to_offsets(weights_of(jawOpen=0.8, browInnerUp=0.5)).reshape(-1))
    values[:, 1:4] = np.stack([3.0 * swing, -5.0 * swing, 2.0 * swing], -1)
    track = BlendshapeTrack.from_head_values(values)
    back = track.to_head_values()
    np.testing.assert_allclose(back[:, EXPRESSION], values[:, EXPRESSION], atol=2e-3)
    np.testing.assert_allclose(back[:, 1:4], values[:, 1:4] - np.median(values[:, 1:4], 0), atol=1e-9)
    assert np.abs(track.weights[:, ARKIT_NAMES.index("jawOpen")] - 0.8 * swing).max() < 0.02


def test_weights_beyond_1_count_as_1():
    track = BlendshapeTrack(np.zeros(1), weights_of(jawOpen=1.05, mouthPucker=-0.2))
    np.testing.assert_allclose(track.to_head_values()[0, EXPRESSION], to_offsets(weights_of(jawOpen=1.0))[0].reshape(-1))


def test_a_track_is_resampled_by_time_from_its_first_frame():
    times = np.array([5.0, 5.1, 5.5, 6.0])
    track = BlendshapeTrack(times, weights_of(4) + (times - 5.0)[:, None], np.stack([times] * 3, -1), fps=10.0)
    even = track.resampled(25.0)
    assert len(even) == 26 and even.fps == 25.0
    np.testing.assert_allclose(even.times, np.arange(26) / 25.0)
    np.testing.assert_allclose(even.weights[:, 0], even.times)
    np.testing.assert_allclose(even.head_degrees[:, 1], 5.0 + even.times)


def test_a_track_that_would_grow_without_bounds_is_refused():
    track = BlendshapeTrack(np.array([0.0, 1e9]), weights_of(2))
    with pytest.raises(ExchangeError, match="expected at most 330000 frames"):
        track.to_head_values()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times": [0.0, 0.0]}, "expected times that rise, got 0 s in frame 1"),
        ({"times": []}, "at least one frame"), ({"times": [0.0]}, "expected weights"),
        ({"times": [0.0, np.nan]}, "finite times"), ({"head_degrees": np.zeros((2, 2))}, "expected head_degrees"),
        ({"eyes_degrees": np.full((2, 2, 2), np.inf)}, "finite eyes_degrees, got NaN or infinity in frame 0"),
        ({"fps": 0.0}, "expected fps"), ({"fps": float("nan")}, "expected fps"), ({"weights": np.zeros((2, 51))}, "weights"),
    ],
)  # fmt: skip
def test_a_track_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        BlendshapeTrack(**{"times": [0.0, 0.04], "weights": weights_of(2)} | arguments)


def test_a_track_cannot_be_changed():
    weights = weights_of(1)
    track = BlendshapeTrack(np.zeros(1), weights)
    with pytest.raises(ValueError, match="read-only"):
        track.weights[0, 0] = 1.0
    weights[0, 0] = 1.0
    assert track.weights[0, 0] == 0.0
