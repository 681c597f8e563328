"""Emotions on a drawn face: inside what real faces do, lips as shut as without, speech as it was."""

import numpy as np
import pytest

import ditto
from ditto.bundle import SHIPPED
from ditto.controls.ramps import Ramps
from ditto.lite.performer import show_emotion
from ditto.lite.rendering.deform import clamp_keypoints, displace, load_basis, signed_areas
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.media.audio import read_audio
from ditto.motion.emotion import EMOTIONS, emotion_vector, shown_offset
from ditto.motion.motion import EXPRESSION, INNER_LIPS, KEYPOINTS, MOTION_SIZE, MOUTH_CORNERS, Keypoint, Motion
from ditto.motion.space import LITE_SPACE
from ditto.portrait import face_mesh as g
from ditto.training.emotion_table import ASKED, ASKED_TALKING, SMALLEST, table

SHOWN = [name for name in EMOTIONS if name != "neutral"]
REST = np.zeros(MOTION_SIZE, np.float32)
MOUTH = (*MOUTH_CORNERS, *INNER_LIPS, Keypoint.UPPER_OUTER_LIP)


@pytest.fixture(scope="module")
def learned():
    return load_basis(SHIPPED / "lite" / "renderer.safetensors")


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite")


@pytest.fixture(scope="module")
def portrait(head):
    return head.register("examples/portrait.jpg")


def mixes(count):
    """(count, 8) weights of several emotions that sum to one."""
    return np.random.default_rng(0).dirichlet(np.full(len(EMOTIONS), 0.4), count)


@pytest.mark.parametrize(("talk", "asked"), [(0.0, ASKED), (1.0, ASKED_TALKING)])
def test_the_table_is_what_its_script_makes(learned, talk, asked):
    for name, change in table(learned, asked).items():
        # another processor rounds another way: by a digit, or across the size below which a change is left out
        np.testing.assert_allclose(change, shown_offset(emotion_vector({name: 1.0}), talk), atol=SMALLEST + 0.0011)


@pytest.mark.parametrize("talk", [0.0, 0.5, 1.0])
def test_the_clamp_leaves_emotions_and_their_mixes_alone(learned, talk):
    """They are inside what real faces do: each number of its box, each component of its limit, but for rounding."""
    for weights in [*np.eye(len(EMOTIONS)), *mixes(300)]:
        change = shown_offset(weights, talk)
        assert np.abs(clamp_keypoints(learned, change) - change).max() < 0.003


@pytest.mark.parametrize("talk", [0.0, 1.0])
@pytest.mark.parametrize("name", SHOWN)
def test_shut_lips_stay_shut_along_their_whole_length(name, talk, learned):
    """In the middle within .003 fu, a fortieth of an open mouth; near the corners within .008, disgust's raised lip."""
    moved = displace(learned, clamp_keypoints(learned, shown_offset(emotion_vector({name: 1.0}), talk)))
    gap = (moved[g.LOWER_INNER_LIP, 1] - moved[g.UPPER_INNER_LIP, 1])[1:-1]
    assert np.abs(gap[3:6]).max() < 0.003
    assert np.abs(gap).max() < (0.008 if (name, talk) == ("disgust", 0.0) else 0.003)


def test_a_face_that_talks_keeps_its_brows_and_leaves_its_lips_to_speech():
    for name in ("disgust", "fear", "sad"):
        silent, talking = (shown_offset(emotion_vector({name: 1.0}), talk) for talk in (0.0, 1.0))
        assert np.abs(talking[[Keypoint.RIGHT_BROW, Keypoint.LEFT_BROW], 1]).min() > 0.025
        assert np.abs(talking[list(MOUTH)]).max() < np.abs(silent[list(MOUTH)]).max()
        assert not talking[list(INNER_LIPS), 1].any()


def test_no_emotion_folds_the_face(head, portrait):
    """Under 2 in 100 of 852 triangles turn over: wings of the nose and corners of the mouth do in a laugh."""
    renderer = MeshRenderer(SHIPPED / "lite")
    prepared = renderer.prepare(portrait)
    front = np.sign(signed_areas(g.TEMPLATE))

    def folded(emotion):
        pose = renderer.pose(prepared, renderer.retarget(portrait, Motion(show_emotion(REST, emotion))))
        assert np.isfinite(pose.vertices).all()
        return np.sign(signed_areas(pose.canonical)) != front

    calm = folded(emotion_vector(None))
    for weights in [*np.eye(len(EMOTIONS)), *mixes(20)]:
        assert (folded(weights) & ~calm).mean() < 0.02


def test_neutral_gives_the_row_itself_and_an_emotion_moves_no_head():
    row = np.random.default_rng(0).normal(0.0, 0.01, MOTION_SIZE).astype(np.float32)
    row[1:4] = 5.0, -10.0, 3.0
    assert show_emotion(row, emotion_vector(None)).tobytes() == row.tobytes()
    happy = show_emotion(row, emotion_vector({"happy": 1.0}))
    assert np.array_equal(happy[: EXPRESSION.start], row[: EXPRESSION.start])
    turned = LITE_SPACE.to_head(happy, None) - LITE_SPACE.to_head(row, None)
    lifted = turned[EXPRESSION].reshape(KEYPOINTS, 3) - shown_offset(emotion_vector({"happy": 1.0}))
    assert np.abs(lifted).max() < 0.005  # the lids of this row are a little shut, and theirs fades with that


def test_a_change_of_emotion_is_a_ramp():
    """.4 s from happy to sad, the largest change there is: at most 1.9 of the mean speed, no kink at either end."""
    ramps = Ramps.start({"happy": 1.0}).set(5, 0.4, emotion={"sad": 1.0})
    shown = np.array([shown_offset(ramps.at(frame)[0]) for frame in range(20)])
    total = np.abs(shown[-1] - shown[0]).max()
    steps = np.diff(shown, axis=0)
    assert total > 0.12 and np.abs(steps).max() <= 1.9 * total / 10
    assert np.abs(np.diff(steps, axis=0)).max() <= 0.06 * total  # a quintic's largest, 5.8 / 10^2


def test_speech_articulates_the_same_with_every_emotion(head, portrait):
    samples = read_audio("examples/speech.flac")[: 2 * 16000]

    def said(emotion):
        frames = [frame.motion.values for frame in head.animate(portrait, samples, seed=1, emotion=emotion)]
        return LITE_SPACE.to_head(np.array(frames), None)[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)

    upper, lower = INNER_LIPS
    plain = said(None)
    for name in ("happy", "disgust"):
        lips = said({name: 1.0})[:, [upper, lower]] - plain[:, [upper, lower]]
        np.testing.assert_allclose(lips, np.broadcast_to(lips[:1], lips.shape), atol=2e-6)  # float32 turned there and back
        assert np.abs(lips[:, 1, 1] - lips[:, 0, 1]).max() < 2e-6
