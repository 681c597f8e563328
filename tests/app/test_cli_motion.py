"""`ditto motion` and `ditto animate --controls`, with the shipped networks."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from typer.testing import CliRunner
from wav import write_wav

from ditto.app.cli import app
from ditto.controls.timeline_file import timeline_schema
from ditto.media.audio import read_audio
from ditto.take import Sound, Take

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAMES = 15
EDIT = """\
timeline: 1
layers:
  - start: 0.2
    end: 0.5
    controls: {left_brow.y: -0.04, emotion.happy: 0.6}
events:
  - {kind: look, at: 0.1, until: 0.4, point: [1.5, 0.5]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, portrait):
    """A portrait, a recording, a timeline, and the take of the first two."""
    folder = tmp_path_factory.mktemp("motion")
    portrait.save(folder / "face.npz")
    write_wav(folder / "speech.wav", read_audio(EXAMPLES / "speech.flac")[8000:][: FRAMES * 640])
    (folder / "edit.yaml").write_text(EDIT)
    done = run("motion", "extract", folder / "face.npz", folder / "speech.wav", "-o", folder / "talk.take", "--seed", 4)
    assert (done.code, done.err) == (0, "")
    assert done.out.strip().endswith(f"talk.take: {FRAMES} frames, 0.60 s, 1 clip")
    return folder


def run(*arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    return SimpleNamespace(code=done.exit_code, out=done.stdout, err=done.stderr)


def decoded(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def seconds_of_sound(path):
    with av.open(str(path)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


def test_a_take_edited_and_rendered_is_the_video_of_animate(folder, tmp_path):
    edited = run("motion", "edit", folder / "talk.take", "--controls", folder / "edit.yaml", "-o", tmp_path / "a.take")
    assert edited.code == 0, edited.err
    done = run("motion", "render", folder / "face.npz", tmp_path / "a.take", "-o", tmp_path / "a.mp4", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert (report["frames"], report["duration_seconds"], report["bundle"]) == (FRAMES, FRAMES / 25, "lite")
    animated = run(
        "animate", folder / "face.npz", folder / "speech.wav", "-o", tmp_path / "b.mp4", "--seed", 4,
        "--controls", folder / "edit.yaml",
    )  # fmt: skip
    assert animated.code == 0, animated.err
    plain = run("motion", "render", folder / "face.npz", folder / "talk.take", "-o", tmp_path / "c.mp4", "-q")
    assert (plain.code, plain.out) == (0, "")
    a, b, c = (decoded(tmp_path / f"{name}.mp4") for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_parts_are_joined_with_their_sound(folder, tmp_path):
    for name, *cut in (("a", "--start", 0.2), ("b", "--end", 0.28)):
        done = run("motion", "edit", folder / "talk.take", "-o", tmp_path / f"{name}.take", *cut, "--json")
        assert done.code == 0, done.err
    assert json.loads(done.out) | {"output": ""} == {
        "output": "", "frames": 7, "duration_seconds": 0.28, "clips": 1, "bundle": Take.load(folder / "talk.take").bundle
    }  # fmt: skip
    joined = run("motion", "join", tmp_path / "a.take", tmp_path / "b.take", "-o", tmp_path / "c.take")
    assert "c.take: 17 frames, 0.68 s, 2 clips" in joined.out.replace("\n", "")
    done = run("motion", "render", folder / "face.npz", tmp_path / "c.take", "-o", tmp_path / "c.webm")
    assert done.code == 0, done.err
    assert len(decoded(tmp_path / "c.webm")) == 17
    assert seconds_of_sound(tmp_path / "c.webm") == pytest.approx(0.68, abs=0.03)


def test_an_empty_layer_is_noted(folder, tmp_path):
    (tmp_path / "edit.yaml").write_text(EDIT.replace("layers:\n", "layers:\n  - controls: {}\n"))
    edit = "motion", "edit", folder / "talk.take", "-o", tmp_path / "a.take", "--controls"
    assert run(*edit, folder / "edit.yaml").err == ""
    noted = run(*edit, tmp_path / "edit.yaml")
    assert noted.code == 0
    assert re.fullmatch(r"note: .*edit.yaml, layers\[0\] has no controls and changes nothing; .*\n", noted.err)


def test_a_recording_that_moved_is_given(folder, tmp_path):
    write_wav(tmp_path / "moved.wav", read_audio(folder / "speech.wav"))
    run("motion", "extract", folder / "face.npz", tmp_path / "moved.wav", "-o", tmp_path / "a.take")
    (tmp_path / "moved.wav").rename(tmp_path / "there.wav")
    render = "motion", "render", folder / "face.npz", tmp_path / "a.take", "-o", tmp_path / "a.mp4"
    done = run(*render)
    assert done.code == 2 and "AudioError" in done.err and "--audio FILE" in done.err
    assert not (tmp_path / "a.mp4").exists()
    assert run(*render, "--audio", tmp_path / "there.wav").code == 0


def test_a_take_is_rendered_before_a_background(folder, tmp_path):
    cut = folder / "talk.take", "--background", "navy", "-o", tmp_path / "a.mp4"
    assert run("motion", "render", folder / "face.npz", *cut).code == 0
    frames = decoded(tmp_path / "a.mp4")
    assert len(frames) == FRAMES and np.abs(frames[:, 10, -10].astype(int) - (0, 0, 128)).max() < 12
    assert np.abs(frames[:, frames.shape[1] // 2, frames.shape[2] // 2].astype(int) - (0, 0, 128)).max() > 60  # the person


@pytest.mark.parametrize("command", [("serve",), ("edit", "face.npz", "speech.wav")])
def test_released_settings_reach_the_page_and_the_editor(folder, monkeypatch, command):
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    pytest.importorskip("aiortc")
    monkeypatch.chdir(folder)
    done = run(*command, "--port", 0, "--set", "fade_type")
    assert done.code == 2 and "expected --set NAME=VALUE or a file" in done.err
    done = run(*command, "--port", 0, "--set", "fade_type=s")
    assert done.code == 2 and "expected a full bundle with changes" in done.err


def test_the_schema_is_printed():
    assert json.loads(run("controls", "schema").out) == timeline_schema()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("motion extract face.npz speech.wav -o no/a.take", "OutputError: expected the folder no "),
        ("motion extract face.npz speech.wav -o speech.wav", "an output that is not an input"),
        ("motion extract face.npz speech.wav -o edit.yaml --controls edit.yaml", "an output that is not an input"),
        ("motion edit talk.take -o edit.yaml --controls edit.yaml", "an output that is not an input"),
        ("motion edit talk.take -o talk.take --start 0.2", "an output that is not an input"),
        ("motion join other.take talk.take -o talk.take", "an output that is not an input"),
        (f"motion edit talk.take -o {300 * 'a'} --start 0.2", "OutputError: .*File name too long"),
        ("motion render face.npz lost.take -o a.mp4", "AudioError: .*got no such file"),
        ("motion extract face.npz edit.yaml -o a.take", "AudioError"),
        ("motion extract - - -o a.take", "for both"),
        ("motion extract face.npz speech.wav -o a.take --controls late.yaml", r"late.yaml, line 2, events\[0\].at: .*0.60 s"),
        ("motion edit talk.take -o a.take", "expected --controls, --replace, --start or --end"),
        ("motion edit talk.take -o a.take --controls late.yaml", r"late.yaml, line 2, events\[0\].at"),
        ("motion edit talk.take -o a.take --controls bad.yaml", r"TimelineError: .*line 4, .*did you mean head.yaw"),
        ("motion edit talk.take -o a.take --controls none.yaml", "TimelineError: .*No such file"),
        ("motion edit talk.take -o a.take --start 0.5 --end 0.2", "expected a part of the take, 0 to 0.60 s"),
        ("motion edit speech.wav -o a.take --start 0.5", "TakeError: .*damaged or no take"),
        ("motion edit none.take -o a.take --start 0.5", "TakeError: .*no such file"),
        ("motion join talk.take other.take -o a.take", "TakeError: expected takes of one bundle"),
        ("motion render face.npz other.take -o a.mp4", "TakeError: expected a take of the bundle lite .*got one of full"),
        ("motion render face.npz talk.take -o a.avi", "OutputError"),
        ("motion render face.npz talk.take -o a.mp4 --background transparent", "OutputError: .*keeps alpha"),
        ("motion render face.npz talk.take -o a.mp4 --background purpel", "expected a colour, blur"),
        ("motion render face.npz talk.take -o a.mp4 --set fade_type=s", "expected a full bundle with changes"),
        ("motion extract face.npz speech.wav -o a.take --settings online", "expected a full bundle with settings"),
        ("animate clip.mp4 speech.wav -o a.mp4 --background blur", "whose pictures are not cut out"),
        ("motion render none.npz talk.take -o a.mp4", "InputError"),
        ("motion render face.npz talk.take -o a.mp4 --audio none.wav", "AudioError"),
        ("animate face.npz speech.wav -o a.mp4 --controls bad.yaml", "TimelineError: .*line 4"),
        ("animate face.npz speech.wav -o a.mp4 --controls late.yaml", "TimelineError: .*line 2"),
    ],
)
def test_bad_input_is_told_in_one_line_and_leaves_nothing(folder, monkeypatch, command, words):
    monkeypatch.chdir(folder)
    Path("bad.yaml").write_text("timeline: 1\nlayers:\n  - controls:\n      head.jaw: 1\n")
    Path("late.yaml").write_text("timeline: 1\nevents: [{kind: blink, at: 3}]\n")
    Take("full 0123", Take.load("talk.take").clips).save("other.take")
    clip = Take.load("talk.take").clips[0]
    Take(Take.load("talk.take").bundle, (replace(clip, sound=Sound(5000 * "a", "0" * 64)),)).save("lost.take")
    before = sorted(Path().iterdir())
    done = run(*command.split())
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert re.search(words, done.err), done.err
    assert sorted(Path().iterdir()) == before
