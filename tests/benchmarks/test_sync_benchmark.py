"""What benchmarks.sync counts: offsets against the known ones, confidence, calibration."""

import numpy as np
import pytest

from benchmarks import sync


def clip(number, late=0, frames=75):
    """Landmarks and features that say which frame of which clip they belong to."""
    at = 1000.0 * number + np.arange(frames)
    return sync.Clip(np.broadcast_to(at[:, None, None], (frames, 478, 3)), np.repeat(at[:, None] - late, 368, 1), late)


def reader(landmarks, features):
    """A scorer that reads them: 1 where all frames belong together, near 0 where none do."""
    asked, frames = landmarks[:, 0, 0], len(landmarks)
    apart = [np.abs(features[place : place + frames, 0] - asked).mean() for place in range(2 * sync.MOST_OFFSET + 1)]
    return np.exp(-np.array(apart))


@pytest.mark.parametrize("frames", [None, 25])
def test_a_scorer_that_reads_the_frames_is_right(frames):
    found = list(sync.trials(reader, [clip(0), clip(1, late=2), clip(2, late=5)], frames))
    assert len(found) == 3 * (len(sync.MOVED) + 1)
    assert sync.row(found) == (1.0, 1.0, 1.0)
    rows = sync.calibration(found)
    assert sum(count for _, count, _ in rows) == len(found)
    assert rows[0][1:] == (3, 0.0) and rows[-1][2] == 1.0


def test_a_scorer_that_is_two_frames_off_is_wrong():
    found = list(sync.trials(lambda landmarks, features: np.roll(reader(landmarks, features), 2), [clip(0), clip(1)]))
    assert {trial.error for trial in found if trial.belongs} == {2}
    assert sync.row(found)[:2] == (0.0, 0.0)


def test_area_under_the_curve_counts_ties_by_half():
    assert sync.area_under_curve(np.array([1.0, 2.0]), np.array([0.0, 2.0])) == 2.5 / 4
