"""The whole way, with the shipped networks: what `ditto animate` does with good and with bad material."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from wav import write_wav

import ditto
from ditto.app.cli import app
from ditto.media.audio import read_audio

EXAMPLES = Path(__file__).parents[1] / "examples"
PORTRAIT, SPEECH = EXAMPLES / "portrait.jpg", EXAMPLES / "speech.flac"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """The example's face, registered once."""
    path = tmp_path_factory.mktemp("portrait") / "face.npz"
    ditto.load("lite").register(PORTRAIT).save(path)
    return path


@pytest.fixture(scope="module")
def sentence(tmp_path_factory) -> Path:
    """The first 1.2 seconds of the example: 30 frames."""
    return write_wav(tmp_path_factory.mktemp("speech") / "short.wav", read_audio(SPEECH)[: 30 * 640 - 100])


def run(*arguments) -> SimpleNamespace:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    return SimpleNamespace(code=done.exit_code, out=done.stdout, err=done.stderr)


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_portrait_says_a_sentence(tmp_path, saved, sentence):
    done = run("animate", saved, sentence, "-o", tmp_path / "out.mp4", "--seed", 3, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["frames"] == 30
    frames = decoded(tmp_path / "out.mp4").astype(np.float32)
    picture = np.asarray(Image.open(PORTRAIT).convert("RGB"))
    assert frames.shape == (30, *picture.shape)
    assert np.abs(np.diff(frames, axis=0)).max() > 30  # something moves
    corner = np.abs(frames[:, :60, -60:] - picture[:60, -60:])
    assert corner.mean() < 4  # and what is far from the face does not


def test_the_same_seed_gives_the_same_video(tmp_path, saved, sentence):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert run("animate", saved, sentence, "-o", tmp_path / f"{name}.mp4", "--seed", seed, "-q").code == 0
    a, b, c = (decoded(tmp_path / f"{name}.mp4") for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_a_saved_portrait_plays_without_torch(tmp_path, saved, sentence):
    code = f"""
import sys
sys.modules["torch"] = None  # importing it fails
sys.argv = ["ditto", "animate", {str(saved)!r}, {str(sentence)!r}, "-o", {str(tmp_path / "out.webm")!r}]
from ditto.app.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "30 frames" in done.stdout


def test_silence_is_a_face_that_idles(tmp_path, saved):
    audio = write_wav(tmp_path / "silence.wav", np.zeros(16000, np.int16))
    assert run("animate", saved, audio, "-o", tmp_path / "out.mp4", "-q").code == 0
    assert len(decoded(tmp_path / "out.mp4")) == 25


def test_still_keeps_the_head_where_it_is(saved, sentence):
    head = ditto.load("lite")
    portrait = ditto.Portrait.load(saved)
    for frame in head.animate(portrait, sentence, still=True):
        np.testing.assert_allclose(frame.motion.values[:7], 0.0, atol=1e-3)


def noise(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)).save(path)
    return path


def zero_bytes(path: Path) -> Path:
    path.touch()
    return path


def truncated(path: Path) -> Path:
    path.write_bytes(PORTRAIT.read_bytes()[:3000])
    return path


def tiny_face(path: Path) -> Path:
    canvas = Image.new("RGB", (400, 400), (120, 130, 140))
    canvas.paste(Image.open(PORTRAIT).resize((128, 128)), (100, 100))  # a face of about 25 px
    canvas.save(path)
    return path


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (noise, "NoFaceError"),
        (tiny_face, "NoFaceError"),
        (zero_bytes, "ImageError"),
        (truncated, "ImageError"),
        (lambda path: SPEECH, "ImageError"),
        (lambda path: path.parent / "missing.png", "InputError"),
    ],
)
def test_pictures_that_cannot_be_used_are_the_caller_s_mistake(tmp_path, sentence, make, error):
    done = run("animate", make(tmp_path / "picture.png"), sentence, "-o", tmp_path / "out.mp4", "-q")
    assert done.code == 2, done.err
    assert done.err.startswith(f"ditto: {error}: ")
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "out.mp4").exists()


def test_a_face_that_is_not_there_is_refused_by_number(tmp_path, sentence):
    done = run("animate", PORTRAIT, sentence, "-o", tmp_path / "out.mp4", "--face", 3, "-q")
    assert done.code == 2
    assert "NoFaceError" in done.err


def test_ctrl_c_leaves_nothing_half_written(tmp_path, tmp_path_factory, saved):
    speech = write_wav(tmp_path_factory.mktemp("long") / "speech.wav", np.tile(np.int16(read_audio(SPEECH) * 32767), 60))
    command = [sys.executable, "-m", "ditto", "animate", str(saved), str(speech), "-o", str(tmp_path / "out.mp4")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not any(p.stat().st_size for p in tmp_path.iterdir()) and process.poll() is None:
        time.sleep(0.05)  # until pictures are being written, which takes minutes
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "interrupted; nothing was written" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
