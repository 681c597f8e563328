"""Emotions read from pictures: by landmarks; by HSEmotion, of which only the wiring is tested (its weights are not here)."""

import sys
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import ditto
from ditto.bundle import SHIPPED
from ditto.errors import InputError
from ditto.lite.performer import show_emotion
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.motion.emotion import EMOTIONS, emotion_vector
from ditto.motion.motion import MOTION_SIZE, Motion
from ditto.portrait import emotion_reader
from ditto.portrait.emotion_reader import read_emotion, within_one


@pytest.fixture(scope="module")
def portrait():
    return ditto.load("lite").register("examples/portrait.jpg")


@pytest.fixture
def fake_hsemotion(monkeypatch, tmp_path):
    """A module in the place of HSEmotion's, as its 0.3 is called: it says happy, whatever it sees."""
    seen = []

    class HSEmotionRecognizer:
        def __init__(self, model_name, device):
            assert (model_name, device) == ("enet_b0_8_best_vgaf", "cpu")

        def predict_emotions(self, face, logits):
            seen.append(face.shape)
            return "Happiness", np.array([0.0, 0.1, 0.0, 0.0, 0.7, 0.2, 0.0, 0.0, 0.9, -0.9])  # and valence, arousal

    module = ModuleType("hsemotion.facial_emotions")
    module.HSEmotionRecognizer = HSEmotionRecognizer
    monkeypatch.setitem(sys.modules, "hsemotion", ModuleType("hsemotion"))
    monkeypatch.setitem(sys.modules, "hsemotion.facial_emotions", module)
    monkeypatch.setenv("HOME", str(tmp_path))
    emotion_reader.hsemotion_network.cache_clear()
    yield seen
    emotion_reader.hsemotion_network.cache_clear()


def test_the_landmarks_of_a_face_that_shows_an_emotion_say_which(portrait):
    renderer = MeshRenderer(SHIPPED / "lite")
    prepared = renderer.prepare(portrait)

    def seen(emotion):
        row = show_emotion(np.zeros(MOTION_SIZE, np.float32), emotion_vector({emotion: 1.0}))
        pose = renderer.pose(prepared, renderer.retarget(portrait, Motion(row)))
        reading = read_emotion([], [pose.vertices[:478]], by="landmarks")
        assert reading.by == "landmarks" and sum(reading.weights.values()) == pytest.approx(1.0)
        return reading.weights

    for emotion in ("happy", "angry", "surprise", "disgust", "neutral"):
        weights = seen(emotion)
        assert max(weights, key=weights.get) == emotion


def test_several_frames_are_read_together(portrait):
    once = read_emotion([], [portrait.landmarks], by="landmarks")
    turned = portrait.landmarks * 0.5 + [90.0, 30.0, 0.0]
    twice = read_emotion([], [portrait.landmarks, turned], by="landmarks")
    assert twice.weights == pytest.approx(once.weights, abs=1e-6)


def test_without_its_weights_hsemotion_is_not_used_unless_asked_for(portrait, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    emotion_reader.hsemotion_network.cache_clear()
    assert read_emotion([portrait.crop], [portrait.landmarks]).by == "landmarks"
    with pytest.raises(InputError, match=r"expected HSEmotion's weights at .*enet_b0_8_best_vgaf.pt, got no such file"):
        read_emotion([portrait.crop], [portrait.landmarks], by="hsemotion")


def test_hsemotion_reads_the_face_and_its_scores_are_put_in_order(portrait, fake_hsemotion, tmp_path):
    (tmp_path / ".hsemotion").mkdir()
    (tmp_path / ".hsemotion" / "enet_b0_8_best_vgaf.pt").write_bytes(b"")
    reading = read_emotion([portrait.crop] * 2, [portrait.landmarks] * 2)
    assert reading.by == "hsemotion" and set(reading.weights) == set(EMOTIONS)
    shown = {name: weight for name, weight in reading.weights.items() if weight}
    assert shown == pytest.approx({"happy": 0.7, "neutral": 0.2, "contempt": 0.1})
    assert len(fake_hsemotion) == 2 and min(fake_hsemotion[0][:2]) > 100


def test_asked_to_hsemotion_may_download(portrait, fake_hsemotion):
    with pytest.raises(InputError, match="got no such file"):
        read_emotion([portrait.crop], [portrait.landmarks], by="hsemotion")
    assert read_emotion([portrait.crop], [portrait.landmarks], download=True).by == "hsemotion"


@pytest.mark.parametrize("landmarks", [np.zeros((478, 3)), np.zeros((0, 478, 3)), np.zeros((1, 68, 2))])
def test_landmarks_of_another_shape_are_refused(landmarks):
    with pytest.raises(ValueError, match="expected landmarks"):
        read_emotion([], landmarks, by="landmarks")


def test_an_unknown_reader_and_missing_pictures_are_refused(portrait, fake_hsemotion):
    with pytest.raises(ValueError, match="got 'face'"):
        read_emotion([portrait.crop], [portrait.landmarks], by="face")
    with pytest.raises(ValueError, match="expected one picture for each of 1 faces, got 0"):
        read_emotion([], [portrait.landmarks], by="hsemotion")


@given(arrays(np.float64, 8, elements=st.floats(-3, 3)))
def test_weights_are_brought_within_one_and_no_further(weights):
    found = within_one(weights)
    assert (found >= 0.0).all() and found.sum() <= 1.0 + 1e-9
    others = np.random.default_rng(0).dirichlet(np.ones(9), 50)[:, :8]
    assert ((others - weights) ** 2).sum(1).min() >= ((found - weights) ** 2).sum() - 1e-9
