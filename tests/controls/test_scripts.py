"""The scripts of docs/controls.md: each runs as it stands there and does what its sentence says."""

import re
from pathlib import Path

import numpy as np
import pytest
from wav import write_wav

import ditto
from ditto import exchange
from ditto.exchange import BlendshapeTrack
from ditto.media.audio import read_audio
from ditto.motion.motion import FPS, IRISES, Keypoint
from ditto.motion.space import LITE_SPACE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "controls.md").read_text()
MARK = "<!-- run by: tests/controls/test_scripts.py -->"
SCRIPTS = {
    sentence.strip(): code for sentence, code in re.findall(rf"([^\n]+):\n\n{MARK}\n```python\n(.*?)\n```", PAGE, re.S)
}
SECONDS = 4


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite")


@pytest.fixture(scope="module")
def portrait(head):
    return head.register(ROOT / "examples" / "portrait.jpg", max_size=128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    write_wav(folder / "speech.wav", read_audio(ROOT / "examples" / "speech.flac")[: SECONDS * 16000])
    turned = np.zeros((SECONDS * FPS, 3))
    turned[:, 1] = 10.0 * np.sin(2 * np.pi * np.arange(len(turned)) / 50)
    track = BlendshapeTrack(np.arange(len(turned)) / FPS, np.zeros((len(turned), 52)), turned)
    exchange.write(track, folder / "face.csv")
    return folder


@pytest.fixture(scope="module")
def plain(head, portrait, folder):
    """(N, 70) head values without any edit."""
    return LITE_SPACE.to_head(head.motion(portrait, head.take(portrait, folder / "speech.wav")).values, portrait)


@pytest.fixture
def run(head, portrait, folder, monkeypatch):
    """Runs the script whose sentence begins so; its names."""
    monkeypatch.chdir(folder)

    def run(begin):
        (code,) = (code for sentence, code in SCRIPTS.items() if sentence.startswith(begin))
        assert len([line for line in code.splitlines() if line.strip()]) <= 10
        names = {"ditto": ditto, "head": head, "portrait": portrait, "speech": "speech.wav"}
        exec(compile(code, f"docs/controls.md: {begin}", "exec"), names)
        return names

    return run


@pytest.fixture
def values(run, portrait):
    """(N, 70) head values of the frames that a script gives."""

    def values(begin):
        shown = [frame.motion.values for frame in run(begin)["frames"]]
        return LITE_SPACE.to_head(np.stack(shown), portrait)

    return values


def points(values):
    return values[:, 7:].reshape(len(values), 21, 3)


def changed(values, plain, least=1e-4):
    """Frames in which anything differs."""
    return np.flatnonzero(np.abs(values - plain).max(1) > least)


def test_the_page_has_ten_scripts():
    assert len(SCRIPTS) == 10


def test_one_brow_is_raised_between_one_and_two_seconds(values, plain):
    after = values("Raise one brow")
    frames = changed(after, plain)
    assert FPS <= frames.min() and frames.max() < 2 * FPS
    moved = (points(after) - points(plain))[37]
    assert moved[Keypoint.LEFT_BROW, 1] < -0.025 and np.abs(np.delete(moved, Keypoint.LEFT_BROW, 0)).max() < 1e-5


def test_the_eyes_go_to_the_slide_before_the_head_and_come_back(values, plain):
    after = values("Look at the slide")
    assert changed(after, plain).min() >= FPS
    eyes = (points(after) - points(plain))[:, list(IRISES), 0].mean(1)
    turned = (after - plain)[:, 2]
    assert eyes[30] > 0.01 and abs(turned[27]) < 0.3 and turned[50] < -4.0  # to the right of the picture: negative yaw
    assert np.abs((after - plain)[-1]).max() < 0.05


def test_a_calm_head_moves_less_and_the_face_as_before(values, plain):
    after = values("Calm the head")
    np.testing.assert_allclose(after[:, 1:4], 0.3 * plain[:, 1:4], atol=1e-4)
    lips = [Keypoint.LOWER_INNER_LIP, Keypoint.CHIN]
    np.testing.assert_allclose(points(after)[:, lips], points(plain)[:, lips], atol=1e-5)


def test_a_wink_shuts_the_left_eye_alone(values, plain):
    moved = points(values("Wink")) - points(plain)
    assert moved[:, Keypoint.LEFT_UPPER_LID, 1].max() > 0.05
    assert np.abs(moved[:, Keypoint.RIGHT_UPPER_LID]).max() < 1e-5
    frames = np.flatnonzero(np.abs(moved).max((1, 2)) > 1e-4)
    assert frames.min() >= 1.4 * FPS and frames.max() <= 2.2 * FPS


def test_the_smile_comes_at_the_end(values, plain):
    after = values("Smile at the end")
    assert changed(after, plain).min() >= (SECONDS - 1.5) * FPS - 1
    corners = [Keypoint.RIGHT_MOUTH_CORNER, Keypoint.LEFT_MOUTH_CORNER]
    assert (points(after) - points(plain))[-3:, corners, 1].mean() < -0.01  # up


def test_the_mouth_is_shut_in_the_cough(values, plain):
    after = values("Close the mouth")
    frames = changed(after, plain)
    assert frames.min() >= 3.2 * FPS - 1 and frames.max() <= 3.6 * FPS
    assert np.abs(points(after)[85, Keypoint.LOWER_INNER_LIP]).max() < 1e-4


def test_the_phone_moves_the_head_and_speech_the_lips(values, plain):
    after = values("Drive head and brows")
    np.testing.assert_allclose(after[30, 2], 10.0 * np.sin(2 * np.pi * 30 / 50), atol=0.6)
    lips = [Keypoint.LOWER_INNER_LIP, Keypoint.UPPER_INNER_LIP]
    np.testing.assert_allclose(points(after)[:, lips], points(plain)[:, lips], atol=1e-4)


def test_a_talk_is_exported_for_unreal(run, folder):
    run("Export a talk")
    assert (folder / "talk.csv").read_text().startswith("Timecode,BlendShapeCount,EyeBlinkLeft,")
    assert exchange.read(folder / "talk.csv").weights[:, 17].max() > 0.1  # jawOpen


def test_all_below_the_nose_rests(values, plain):
    after = values("Freeze all")
    lower = [Keypoint.LOWER_INNER_LIP, Keypoint.CHIN, Keypoint.LEFT_MOUTH_CORNER, Keypoint.LEFT_JAW]
    assert np.abs(points(after)[:, lower]).max() < 1e-6
    np.testing.assert_allclose(points(after)[:, list(IRISES)], points(plain)[:, list(IRISES)], atol=1e-5)


def test_one_second_is_rendered_again(values, plain):
    after = values("Render one second")
    assert len(after) == FPS
    moved = (points(after) - points(plain)[2 * FPS : 3 * FPS])[12]
    assert abs(moved[Keypoint.CHIN, 1] - 0.01) < 1e-4
