"""Which parts of a sound are voice: the same answer for a face that listens and for an open microphone."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voices import EXAMPLE, speech

from ditto.errors import EngineError
from ditto.live.server.microphone import VoiceGate
from ditto.media import voice
from ditto.media.audio import read_audio
from ditto.media.voice import WINDOW_SAMPLES, VoiceDetector
from ditto.motion.listening import Listener

RATE = 16000


def noises():
    """10 s of what is no voice, by name."""
    random = np.random.default_rng(0)
    t = np.arange(10 * RATE) / RATE
    white = random.standard_normal(len(t))
    swelling = white * np.maximum(np.sin(2 * np.pi * 2.2 * t), 0.02)
    hum = sum(np.sin(2 * np.pi * 50 * k * t) / k for k in range(1, 8))
    tone = np.sin(2000 * t)
    return {"silence": 0 * t, "white": 0.1 * white, "swelling": 0.1 * swelling, "hum": 0.1 * hum, "tone": 0.3 * tone}


def test_speech_is_voice_and_the_pauses_are_not():
    sound = np.pad(read_audio(EXAMPLE), 2 * RATE)
    found = np.array(VoiceDetector().push(sound))
    seconds = np.arange(len(found)) * WINDOW_SAMPLES / RATE
    inside = (seconds > 2.3) & (seconds < 11.4)
    assert found[inside].mean() > 0.8
    assert not found[(seconds < 2.0) | (seconds > 12.0)].any()


def test_speech_in_noise_is_voice():
    random = np.random.default_rng(1)
    sound = 0.05 * speech(4) + 0.0158 * random.standard_normal(4 * RATE)  # 10 dB
    assert np.mean(VoiceDetector().push(sound.astype(np.float32))) > 0.7


@pytest.mark.parametrize("name", noises())
def test_noise_is_no_voice(name):
    assert not any(VoiceDetector().push(noises()[name].astype(np.float32)))


@given(cuts=st.lists(st.integers(0, 3000), min_size=1, max_size=20).filter(any))
@settings(max_examples=10, deadline=None)
def test_any_chunking_gives_the_same_answers(cuts):
    sound = np.concatenate([np.zeros(4000, np.float32), (0.05 * speech(1)).astype(np.float32)])
    detector, found, start, turn = VoiceDetector(), [], 0, 0
    while start < len(sound):
        found += detector.push(sound[start : start + cuts[turn % len(cuts)]])
        start, turn = start + cuts[turn % len(cuts)], turn + 1
    assert found == VoiceDetector().push(sound)
    assert len(found) == len(sound) // WINDOW_SAMPLES


def test_two_streams_do_not_mix():
    first, second = (0.05 * speech(1)).astype(np.float32), np.zeros(RATE, np.float32)
    one, other = VoiceDetector(), VoiceDetector()
    found, silent = [], []
    for at in range(0, RATE, 800):
        found += one.push(first[at : at + 800])
        silent += other.push(second[at : at + 800])
    assert found == VoiceDetector().push(first) and not any(silent)


def test_a_microphone_opens_for_the_speech_that_a_listening_face_attends_to():
    random = np.random.default_rng(0)
    sound = 0.02 * random.standard_normal(8 * RATE)
    sound[2 * RATE : 5 * RATE] += 0.2 * speech(3)
    sound = sound.astype(np.float32)
    pieces = VoiceGate(RATE).push(sound)
    opened = sum(len(piece) for piece in pieces if piece is not None) / RATE
    assert pieces[-1] is None and opened == pytest.approx(3.0 + 0.8, abs=0.3)
    listener, attention = Listener(), []
    for second in sound.reshape(8, RATE):
        listener.push(second)
        attention += [listener.react().attention for _ in range(25)]
    assert max(attention[:50]) == 0.0 and attention[120] > 0.7 and attention[-1] < 0.05


def test_the_network_is_the_file_that_notice_names():
    file = Path(voice.__file__).with_name("voice.onnx")
    notice = Path(__file__).resolve().parents[2] / "NOTICE"
    if not notice.exists():
        pytest.skip("an installed package has its NOTICE elsewhere")
    assert hashlib.sha256(file.read_bytes()).hexdigest() in notice.read_text()


def test_a_missing_network_is_a_typed_error(tmp_path, monkeypatch):
    monkeypatch.setattr(voice, "NETWORK", tmp_path / "voice.onnx")
    with pytest.raises(EngineError, match="does not exist"):
        voice.open_network()
