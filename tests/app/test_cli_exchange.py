"""`ditto motion export | convert | from-video | visemes` and `ditto animate --drive`, with the shipped networks."""

import json
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from typer.testing import CliRunner
from wav import write_wav

from ditto import exchange
from ditto.app.cli import app
from ditto.controls.blendshapes import ARKIT_NAMES, SHAPES
from ditto.exchange import BlendshapeTrack, performance
from ditto.media.audio import read_audio

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAMES = 15


def run(*arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    return SimpleNamespace(code=done.exit_code, out=done.stdout, err=done.stderr)


def refused(*arguments, says):
    done = run(*arguments)
    assert done.code == 2 and len(done.err.strip().splitlines()) == 1 and says in done.err, done.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory, portrait):
    """A portrait, a recording, its take, an actor's recording, and a video."""
    folder = tmp_path_factory.mktemp("exchange")
    portrait.save(folder / "face.npz")
    write_wav(folder / "speech.wav", read_audio(EXAMPLES / "speech.flac")[8000:][: FRAMES * 640])
    assert run("motion", "extract", folder / "face.npz", folder / "speech.wav", "-o", folder / "talk.take").code == 0
    weights = np.zeros((60, SHAPES))
    weights[:, ARKIT_NAMES.index("browInnerUp")] = 0.5 - 0.5 * np.cos(np.arange(60) / 10.0)
    turns = np.zeros((60, 3))
    turns[:, 1] = np.where(np.arange(60) < 30, 0.0, 12.0)
    exchange.write(BlendshapeTrack(np.arange(60) / 60.0, weights, turns, None, 60.0), folder / "actor.csv")
    done = run("animate", folder / "face.npz", folder / "speech.wav", "-o", folder / "plain.mp4", "-q")
    assert done.code == 0, done.err
    return folder


@pytest.mark.parametrize(("name", "format"), [("x.csv", None), ("x.glb", None), ("x.json", "talkinghead"), ("x.json", None)])
def test_a_take_is_exported(folder, tmp_path, name, format):
    done = run("motion", "export", folder / "talk.take", "-o", tmp_path / name, *(["--format", format] if format else []))
    assert (done.code, done.err) == (0, "")
    assert f"{name}: {FRAMES} frames, 0.60 s, 25 a second" in done.out
    track = exchange.read(tmp_path / name, format)
    assert len(track) == FRAMES
    assert track.weights[:, ARKIT_NAMES.index("jawOpen")].max() > 0.05  # it speaks


def test_the_edits_of_a_take_are_exported_with_it(folder, tmp_path):
    (tmp_path / "edit.yaml").write_text("timeline: 1\nlayers:\n  - controls: {mouthPucker: 0.7, head.yaw: 8}\n")
    edit, take = tmp_path / "edit.yaml", tmp_path / "x.take"
    assert run("motion", "edit", folder / "talk.take", "-o", take, "--controls", edit).code == 0
    for source, name in ((folder / "talk.take", "plain"), (take, "edited")):
        assert run("motion", "export", source, "-o", tmp_path / f"{name}.csv").code == 0
    plain, edited = (exchange.read(tmp_path / f"{name}.csv") for name in ("plain", "edited"))
    pucker = ARKIT_NAMES.index("mouthPucker")
    assert (edited.weights[:, pucker] - plain.weights[:, pucker]).mean() > 0.3
    assert (edited.head_degrees - plain.head_degrees)[:, 1].mean() == pytest.approx(8.0, abs=0.5)


def test_a_take_is_exported_at_another_rate(folder, tmp_path):
    done = run("motion", "export", folder / "talk.take", "-o", tmp_path / "x.csv", "--fps", 60, "--json")
    assert json.loads(done.out) == {"output": str(tmp_path / "x.csv"), "frames": 34, "fps": 60.0, "format": "live-link"}
    rows = (tmp_path / "x.csv").read_text().splitlines()
    assert rows[1].startswith("00:00:00:00.000,61,") and rows[2].startswith("00:00:00:01.000,61,")


def test_formats_are_converted(folder, tmp_path):
    assert run("motion", "convert", folder / "actor.csv", "-o", tmp_path / "x.gltf").code == 0
    assert run("motion", "convert", tmp_path / "x.gltf", "-o", tmp_path / "x.json", "--format", "a2f-json").code == 0
    track = exchange.read(tmp_path / "x.json")
    np.testing.assert_allclose(track.weights, exchange.read(folder / "actor.csv").weights, atol=1e-5)


def test_a_video_becomes_a_performance_and_blendshapes(folder, tmp_path):
    done = run("motion", "from-video", folder / "plain.mp4", "-o", tmp_path / "x.safetensors", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {
        "output": str(tmp_path / "x.safetensors"), "frames": FRAMES, "fps": 25.0, "clip": "plain.mp4", "lost_seconds": []
    }  # fmt: skip
    assert performance.read(tmp_path / "x.safetensors").values.shape == (FRAMES, 70)
    assert run("motion", "from-video", folder / "plain.mp4", "-o", tmp_path / "x.csv").code == 0
    assert len(exchange.read(tmp_path / "x.csv")) == FRAMES
    assert run("motion", "convert", tmp_path / "x.safetensors", "-o", tmp_path / "y.csv").code == 0
    np.testing.assert_allclose(exchange.read(tmp_path / "y.csv").weights, exchange.read(tmp_path / "x.csv").weights, atol=1e-5)


def test_visemes_of_a_recording(folder, tmp_path):
    done = run("motion", "visemes", folder / "speech.wav", "-o", tmp_path / "x.vtt")
    assert done.code == 0 and "visemes, 0.60 s" in done.out
    assert (tmp_path / "x.vtt").read_text().startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert run("motion", "visemes", folder / "speech.wav", "-o", tmp_path / "x.json").code == 0
    assert json.loads((tmp_path / "x.json").read_text())["visemes"][-1]["end"] == 0.6


def pictures(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(video=0)]


def test_an_actor_drives_head_and_brows_and_speech_the_lips(folder, tmp_path):
    arguments = ("animate", folder / "face.npz", folder / "speech.wav", "-q", "--drive", folder / "actor.csv")
    done = run(*arguments, "-o", tmp_path / "driven.mp4", "--drive-regions", "head,brows")
    assert (done.code, done.err) == (0, "")
    plain, driven = pictures(folder / "plain.mp4"), pictures(tmp_path / "driven.mp4")
    assert len(plain) == len(driven) == FRAMES
    assert np.abs(plain[-3] - driven[-3]).mean() > 1.0


def test_bad_input_is_one_line_and_leaves_no_file(folder, tmp_path):
    lines = (folder / "actor.csv").read_text().splitlines()
    (tmp_path / "bad.csv").write_text("\n".join([lines[0], lines[1].replace("0.0000000000", "nan")]))
    out = tmp_path / "out"
    out.mkdir()
    refused("motion", "convert", tmp_path / "bad.csv", "-o", out / "x.json", says="line 2, field EyeBlinkLeft")
    refused("motion", "convert", tmp_path / "none.csv", "-o", out / "x.json", says="none.csv")
    refused("motion", "convert", folder / "actor.csv", "-o", out / "x.fbx", says="expected a file name that ends in")
    refused("motion", "convert", folder / "actor.csv", "-o", out / "x.csv", "--format", "fbx", says="expected --format out of")
    refused("motion", "convert", folder / "actor.csv", "-o", out / "x.csv", "--from", "fbx", says="expected --from out of")
    refused("motion", "convert", folder / "actor.csv", "-o", folder / "actor.csv", says="is not an input")
    refused("motion", "export", folder / "actor.csv", "-o", out / "x.csv", says="take")
    refused("motion", "from-video", tmp_path / "bad.csv", "-o", out / "x.csv", says="VideoError")
    refused("motion", "visemes", folder / "speech.wav", "-o", out / "x.txt", says="ends in .json or .vtt")
    common = ("animate", folder / "face.npz", folder / "speech.wav", "-o", out / "x.mp4")
    refused(*common, "--drive-regions", "head", says="expected --drive")
    refused(*common, "--drive", tmp_path / "bad.csv", says="line 2, field EyeBlinkLeft")
    refused(*common, "--drive", folder / "actor.csv", "--drive-regions", "hat", says="hat")
    refused(*common, "--drive", folder / "actor.csv", "--drive-regions", "head:x", says="head:0.5")
    refused(*common, "--drive", folder / "actor.csv", "--drive-regions", "head,head", says="twice")
    refused(*common, "--drive", folder / "actor.csv", "--drive-regions", ",", says="expected regions in --drive-regions")
    refused(*common, "--drive", "actor.mp4", says="ditto motion from-video actor.mp4 -o actor.safetensors")
    refused("motion", "from-video", "actor.mp4", "-o", out / "x.fbx", says="ends in .safetensors, .csv")
    refused("motion", "convert", folder / "actor.csv", "-o", out / ("x" * 300 + ".csv"), says="File name too long")
    assert list(out.iterdir()) == []


def test_subtitles_of_what_cannot_be_are_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    write_wav(tmp_path / "a.wav", np.zeros(1600, np.float32))
    sound, text = tmp_path / "a.wav", tmp_path / "a.txt"
    refused("motion", "subtitles", sound, "--text", text, "-o", tmp_path / "a.ass", says="ends in .vtt, .srt or .json")
    refused("motion", "subtitles", sound, "--text", text, "-o", tmp_path / "a.vtt", says="expected text in UTF-8")
    refused("motion", "subtitles", sound, "--text", tmp_path / "b.txt", "-o", tmp_path / "a.vtt", says="b.txt")
    assert not (tmp_path / "a.vtt").exists()
