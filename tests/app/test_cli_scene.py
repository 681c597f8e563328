"""`ditto faces` and `ditto animate --speaker`."""

import errno
import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from wav import write_wav

from ditto.app.cli import app
from ditto.media.audio import read_audio
from ditto.media.images import read_picture

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAMES = 15


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("scene")
    single = read_picture(EXAMPLES / "portrait.jpg", 200)[0]
    Image.fromarray(np.concatenate([single, single[:, ::-1]], axis=1)).save(place / "two.png")
    speech = read_audio(EXAMPLES / "speech.flac")[8000:][: FRAMES * 640]
    write_wav(place / "a.wav", speech)
    write_wav(place / "b.wav", speech[: 10 * 640])
    return place


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_faces_are_listed(folder):
    done = run("faces", folder / "two.png", "-o", folder / "faces.png", "--json")
    assert done.exit_code == 0, done.output
    faces = json.loads(done.stdout)["faces"]
    assert [face["face"] for face in faces] == [0, 1] and all(len(face["box"]) == 4 for face in faces)
    drawn, plain = (np.asarray(Image.open(folder / name)) for name in ("faces.png", "two.png"))
    assert drawn.shape == plain.shape and (drawn != plain).any()


def test_two_speakers_make_a_video(folder):
    box = ",".join(map(str, json.loads(run("faces", folder / "two.png", "--json").stdout)["faces"][1]["box"]))
    words = ["animate", folder / "two.png", "--speaker", f"0={folder / 'a.wav'}", "--speaker", f"{box}={folder / 'b.wav'}"]
    done = run(*words, "-o", folder / "out.mp4", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["speakers"] == 2 and report["frames"] == FRAMES
    with av.open(str(folder / "out.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video=0)]
    assert len(frames) == FRAMES and frames[0].shape == (200, 400, 3)
    left, right = (np.abs(frames[-1][:, half] - frames[0][:, half]).max() for half in (slice(0, 200), slice(200, 400)))
    assert min(left, right) > 30


def test_a_recording_may_have_an_equals_sign_in_its_name(folder):
    (folder / "a=1.wav").write_bytes((folder / "b.wav").read_bytes())
    done = run("animate", folder / "two.png", "--speaker", f"0={folder / 'a=1.wav'}", "-o", folder / "one.mp4", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["frames"] == 10, done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--speaker", "0"], "expected --speaker as WHICH=AUDIO"),
        (["--speaker", "first=a.wav"], "expected WHICH of --speaker as a number"),
        (["--speaker", "0=-"], "expected the name of a recording with --speaker, got - (standard input)"),
        (["--speaker", "0=none.wav"], "none.wav"),
        (["--speaker", "7=a.wav"], "face 7 was asked for, but the picture has 2 faces"),
        (["--speaker", "0=a.wav", "--speaker", "0=a.wav"], "expected different faces, got face 0 twice"),
        (["a.wav", "--speaker", "0=a.wav"], "expected AUDIO or --speaker, got both"),
        (["--face", "1", "--speaker", "0=a.wav"], "expected --face or --speaker, got both"),
        (["--background", "blur", "--speaker", "0=a.wav"], "the alpha of several faces does not move with them"),
        (["--max-size", "64", "--speaker", "0=a.wav", "--speaker", "1=b.wav"], "expected a max_size in which every face"),
        ([], "expected a recording, got none"),
    ],
)
def test_what_cannot_be_used(folder, monkeypatch, words, message):
    monkeypatch.chdir(folder)
    done = run("animate", "two.png", *words, "-o", "no.mp4")
    assert done.exit_code == 2 and message in done.output.replace("\n", " ")
    assert not (folder / "no.mp4").exists()


def test_a_full_temporary_folder_is_told(folder, monkeypatch):
    def refuse(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.chdir(folder)
    monkeypatch.setattr("ditto.app.cli_scene.tempfile.TemporaryDirectory", refuse)
    done = run("animate", "two.png", "--speaker", "0=a.wav", "-o", "no.mp4")
    assert done.exit_code == 2 and "a temporary file cannot be written: No space left" in done.output.replace("\n", " ")
    assert not (folder / "no.mp4").exists()
