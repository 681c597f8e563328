"""A small change of a motion makes a small change of the picture: nothing on the way decides by a step."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ditto
from ditto.media.audio import SAMPLE_RATE, read_audio
from ditto.motion.motion import MOTION_SIZE
from ditto.portrait.face_mesh import LANDMARKS

ROOT = Path(__file__).parents[3]
PICTURES = [
    ROOT / "examples" / "portrait.jpg",
    ROOT / "tests" / "fixtures" / "pictures" / "mona_lisa.jpg",
    ROOT / "tests" / "fixtures" / "pictures" / "pearl_earring.jpg",
]
CHANGE = 5e-5  # of any of the 70 numbers: a face unit is some 200 px, so a landmark that simply follows moves .01 px
MOST_PX = 0.1
MOST_LEVELS = 2
# A pixel lies outside of edges if the levels in the 5 x 5 pixels around it, which is what a bicubic sample reads,
# differ by no more than 20 in any channel: there, 2 levels are a shift of .1 px in the steepest slope that fits.
REACH, EDGE_LEVELS = 5, 20


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite")


@pytest.fixture(scope="module")
def rows(head):
    """(T, 70): three seconds of the example, said plainly and with a broad smile."""
    portrait = head.register(PICTURES[0])
    samples = read_audio(ROOT / "examples" / "speech.flac")[: 3 * SAMPLE_RATE]
    said = []
    for emotion in (None, {"happy": 1.0}):
        stream = head.stream(portrait, emotion=emotion)
        said += [frame.motion.values for frame in stream.push(samples) + stream.flush()]
    return np.stack(said)


@pytest.fixture(scope="module", params=PICTURES, ids=lambda path: path.stem)
def prepared(request, head):
    portrait = head.register(request.param)
    return portrait, head.performer.renderer.prepare(portrait)


@st.composite
def motions(draw, rows):
    """(70,): a row of speech, as it is or 1.8 times as strong, with the head turned by up to 12 degrees more."""
    row = rows[draw(st.integers(0, len(rows) - 1))] * np.float32(draw(st.sampled_from([1.0, 1.8])))
    row[1:4] += [draw(st.floats(-12.0, 12.0)) for _ in range(3)]
    return row


def moved(row, number, sign):
    other = row.copy()
    other[number] += np.float32(sign * CHANGE)
    return other


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(st.data())
def test_no_landmark_jumps(prepared, rows, head, data):
    _, core = prepared
    row, sign = data.draw(motions(rows)), data.draw(st.sampled_from([-1.0, 1.0]))

    def landmarks(values):
        return core.vertices(values)[:LANDMARKS].astype(np.float64) * 512 / core.size

    before = landmarks(row)
    for number in range(MOTION_SIZE):
        shift = np.linalg.norm(landmarks(moved(row, number, sign)) - before, axis=1)
        assert shift.max() <= MOST_PX, f"landmark {shift.argmax()} moves {shift.max():.2f} px with number {number}"


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(st.data())
def test_no_pixel_outside_of_edges_jumps(prepared, rows, head, data):
    _, core = prepared
    row = data.draw(motions(rows))
    number, sign = data.draw(st.integers(0, MOTION_SIZE - 1)), data.draw(st.sampled_from([-1.0, 1.0]))
    before, after = (core.crop(values) for values in (row, moved(row, number, sign)))
    window = np.ones((REACH, REACH), np.uint8)
    flat = (cv2.dilate(before, window).astype(int) - cv2.erode(before, window)).max(-1) <= EDGE_LEVELS
    change = np.abs(after.astype(int) - before).max(-1) * flat
    y, x = np.unravel_index(change.argmax(), change.shape)
    assert flat.mean() > 0.4  # of the picture: the claim is about something
    assert change.max() <= MOST_LEVELS, f"pixel {x}, {y} changes by {change.max()} levels with number {number}"
