"""`ditto batch` on this machine: manifests, resuming, workers that die, files that are there."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import batch_work
import numpy as np
import pytest
from actors import PATIENT, until
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner
from wav import write_wav

from ditto.app.cli import app
from ditto.cluster import work
from ditto.cluster.batch import JOURNAL, REPORT, Journal, run_batch
from ditto.cluster.manifest import BadLine, Job, read_manifest
from ditto.cluster.workers import SCRATCH, LocalWorkers
from ditto.controls.timeline import Timeline
from ditto.controls.timeline_file import data_of, write_timeline
from ditto.errors import ExchangeError, InputError, TimelineError
from ditto.exchange import live_link_csv
from ditto.exchange.track import BlendshapeTrack
from ditto.media.audio import read_audio

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def place(tmp_path):
    """A folder with a "portrait" and a "recording" for `batch_work`."""
    (tmp_path / "portrait.txt").write_text(str(tmp_path))
    (tmp_path / "sound.wav").write_bytes(b"sound")
    return tmp_path


def manifest(place, *lines):
    """The jobs of lines: a text, or what differs from a whole line."""
    whole = {"portrait": "portrait.txt", "audio": "sound.wav"}
    text = "\n".join(line if isinstance(line, str) else json.dumps(whole | line) for line in lines)
    file = place / "manifest.jsonl"
    file.write_text(text)
    return read_manifest(file, place / "out")


def png(pixels):
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "PNG")
    return packed.getvalue()


def run(place, lines, work=batch_work.write, count=2, told=lambda result: None):
    out = place / "out"
    return run_batch(lines, out, lambda: LocalWorkers(count, out, work), told, provenance=None)


def log(place):
    file = place / "log"
    return sorted(file.read_text().splitlines()) if file.exists() else []


def statuses(results):
    return [result.status for result in results]


# The manifest


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "expected a JSON object in UTF-8"),
        ("[1]", "expected a JSON object, got"),
        ("[" * 9999, "expected a JSON object in UTF-8"),
        ('{"output": "a.mp4", "output": "b.mp4"}', "twice"),
        ({"output": "a.avi"}, "expected output to be"),
        ({"output": "../a.mp4"}, "inside of the folder"),
        ({"output": "/elsewhere/a.mp4"}, "inside of the folder"),
        ({"output": "a\0.mp4"}, "expected output to be"),
        ({"output": "a.mp4", "portrait": "-"}, "expected portrait to be"),
        ({"output": "a.mp4", "audio": 3}, "expected audio to be"),
        ({"output": "a.mp4", "speed": 2}, "expected portrait, audio, output"),
        ({"output": "a.mp4", "seed": True}, "expected seed to be"),
        ({"output": "a.mp4", "seed": 2**64}, "expected seed to be"),
        ({"output": "a.mp4", "seed": 1.0}, "expected seed to be"),
        ({"output": "a.mp4", "emotion": {"happy": 2}}, "expected emotion to be"),
        ({"output": "a.mp4", "emotion": {"happy": "1"}}, "expected emotion to be"),
        ({"output": "a.mp4", "emotion": {"happy": float("nan")}}, "expected emotion to be"),
        ({"output": "a.mp4", "emotion": {"joy": 1}}, "expected emotion to be"),
        ({"output": "a.mp4", "style": float("nan")}, "expected style to be"),
        ({"output": "a.mp4", "style": "wild"}, "expected style to be"),
        ({"output": "a.mp4", "still": 1}, "expected still to be"),
        ({"output": "a.mp4", "max_size": 8}, "expected max_size to be"),
        ({"output": "a.mp4", "portrait": "p.npz", "face": 1}, "saved portrait"),
        ({}, "expected output, got a line without it"),
        ({"output": "a.mp4", "controls": 1}, "expected controls to be the name of a timeline file"),
        ({"output": "a.mp4", "controls": "a.yaml", "timeline": {"timeline": 1}}, "got both"),
        ({"output": "a.mp4", "timeline": "a.yaml"}, "expected timeline to be a timeline"),
        ({"output": "a.mp4", "timeline": {"timeline": 1, "layers": 3}}, "the timeline, layers: expected a list"),
        ({"output": "a.mp4", "drive_regions": {"head": 1}}, "expected drive with drive_regions"),
        ({"output": "a.mp4", "drive": "a.csv", "drive_regions": {"hand": 1}}, "expected drive_regions to be shares"),
        ({"output": "a.mp4", "drive": "a.csv", "drive_regions": {"head": 1.5}}, "expected drive_regions to be shares"),
        ({"output": "a.mp4", "drive": "a.csv", "drive_regions": {"head": True}}, "expected drive_regions to be shares"),
        ({"output": "a.mp4", "portrait": "p.mp4", "still": True}, "expected a picture with still, got the video"),
        ({"output": "a.mp4", "portrait": "p.mp4", "background": "blur"}, "expected a picture with background"),
        ({"output": "a.mp4", "portrait": "p.mp4", "loop": "round"}, "expected loop to be pingpong"),
        ({"output": "a.mp4", "loop": "once"}, "expected a video with loop or whole_face"),
        ({"output": "a.mp4", "background": "purpel"}, "expected a colour, blur"),
        ({"output": "a.mp4", "background": "transparent"}, "keeps alpha"),
        ({"output": "a.mp4", "settings": "live"}, "expected settings to be offline or online"),
        ({"output": "a.mp4", "set": ["fade_type"]}, "expected set to be released settings"),
    ],
)
def test_a_bad_line_is_told_by_its_number_and_the_others_are_done(place, line, expected):
    lines = manifest(place, {"output": "first.mp4"}, "", line, {"output": "last.mp4"})
    assert [type(item) for item in lines] == [Job, BadLine, Job]
    results = run(place, lines, count=1)
    assert statuses(results) == ["done", "failed", "done"]
    assert results[1].line == 3
    assert expected in results[1].about["message"]
    report = [json.loads(text) for text in (place / "out" / REPORT).read_text().splitlines()]
    assert [(item["line"], item["status"]) for item in report] == [(1, "done"), (3, "failed"), (4, "done")]
    assert report[1]["error"] == "InputError"


def test_two_lines_with_one_output_are_told(place):
    lines = manifest(place, {"output": "a.mp4"}, {"output": "sub/../a.mp4", "seed": 1})
    assert isinstance(lines[0], Job)
    assert lines[1] == BadLine(2, "expected each output once, got 'sub/../a.mp4' in line 1 too; rename one")


def test_names_count_from_the_manifest(place):
    (job,) = manifest(place, {"output": "a.mp4", "emotion": {"happy": 0.5}, "style": "calm", "max_size": 128})
    assert (job.portrait, job.audio) == (place / "portrait.txt", place / "sound.wav")
    assert job.options["emotion"] == {"happy": 0.5}


def test_the_lines_of_the_page_are_jobs(place):
    page = (EXAMPLES.parent / "docs" / "cluster.md").read_text()
    jobs = manifest(place, *re.findall(r'^{"portrait.*$', page, re.M))
    assert [job.name for job in jobs] == ["ann/hello.mp4", "ann/driven.mp4", "ann/wink.mp4"]
    files = {"portrait": "ann.jpg", "audio": "hello.wav", "controls": "wink.yaml", "drive": "ann.csv"}
    assert jobs[1].files == {field: place / name for field, name in files.items()}


def test_controls_and_a_performance_act_as_in_animate(tmp_path, portrait, monkeypatch):
    """The timeline, of a file or of the line, and the performance reach `animate`; faults of theirs are typed."""
    track = BlendshapeTrack(np.arange(5) / 25, np.full((5, 52), 0.1), np.zeros((5, 3)))
    live_link_csv.write(track, tmp_path / "actor.csv")
    edit = Timeline().wink("left", 0.2)
    write_timeline(edit, tmp_path / "edit.yaml")
    portrait.save(tmp_path / "face.npz")
    write_wav(tmp_path / "sound.wav", np.ones(640 * 8, np.int16))
    asked = []

    def animate(face, audio, **options):
        asked.append(options)
        return iter([SimpleNamespace(image=face.picture)])

    monkeypatch.setattr(work, "_head", lambda *which: SimpleNamespace(animate=animate))
    line = {"portrait": "face.npz", "audio": "sound.wav", "output": "a.mp4"}
    own = {"controls": "edit.yaml"}, {"timeline": data_of(edit), "drive": "actor.csv", "drive_regions": {"head": 0.5}}, {}
    for options in own:
        (job,) = manifest(tmp_path, line | options)
        work.animate(job, tmp_path / "a.mp4")
    assert [options["controls"] for options in asked] == [edit, edit, None]
    first, second, third = (options["performance"] for options in asked)
    assert first is None and second.regions == {"head": 0.5} and len(second.values) == 5 and third is None
    late = {"timeline": {"timeline": 1, "events": [{"kind": "blink", "at": 9}]}}
    no_file = ({"controls": "no.yaml"}, TimelineError), ({"drive": "no.csv"}, ExchangeError)
    for options, error in ((late, TimelineError), *no_file):
        (job,) = manifest(tmp_path, line | options)
        with pytest.raises(error):
            work.animate(job, tmp_path / "b.mp4")
    assert not (tmp_path / "b.mp4").exists()


def test_a_clip_as_the_portrait_a_background_and_released_settings_act_as_in_animate(tmp_path, portrait, monkeypatch):
    portrait.save(tmp_path / "face.npz")
    (tmp_path / "clip.mp4").write_bytes(b"a clip")
    (tmp_path / "room.png").write_bytes(png(np.full((8, 8, 3), 70, np.uint8)))
    write_wav(tmp_path / "sound.wav", np.ones(640 * 8, np.int16))
    asked = []

    class Head:
        def read_video(self, path):
            return SimpleNamespace(tracked=SimpleNamespace(size=(64, 96)), path=path)

        def animate_video(self, clip, audio, **options):
            asked.append((clip.path.name, options["loop"], options["whole_face"]))
            return iter([SimpleNamespace(image=np.zeros((64, 96, 3), np.uint8))])

        def cut_out(self, face):
            return SimpleNamespace(picture=face.picture, alpha=np.zeros(face.picture.shape[:2], np.uint8))

        def animate(self, face, audio, **options):
            asked.append(options["output"])
            return iter([SimpleNamespace(image=np.dstack([face.picture, face.alpha]))])

    def load(bundle, **options):
        asked.append(options)
        return Head()

    monkeypatch.setattr("ditto.load", load)
    work._head.cache_clear()
    line = {"portrait": "face.npz", "audio": "sound.wav", "output": "a.mp4"}
    released = {"settings": "online", "set": {"fade_type": "s"}}
    (job,) = manifest(tmp_path, line | {"portrait": "clip.mp4", "loop": "once", "whole_face": True} | released)
    assert work.animate(job, tmp_path / "a.mp4")["width"] == 96
    assert asked == [{"device": "cpu", "settings": "online", "changes": {"fade_type": "s"}}, ("clip.mp4", "once", True)]
    (job,) = manifest(tmp_path, line | {"background": "room.png"})
    assert job.files["background"] == tmp_path / "room.png"
    work.animate(job, tmp_path / "b.mp4")
    work._head.cache_clear()
    assert asked[-1] == "rgba"
    with av.open(str(tmp_path / "b.mp4")) as video:
        assert abs(next(video.decode(video=0)).to_ndarray(format="rgb24").astype(int) - 70).max() < 8


def test_a_manifest_that_is_none_is_refused(place):
    with pytest.raises(InputError, match="check the name"):
        read_manifest(place / "none.jsonl", place)
    (place / "empty.jsonl").write_text("\n\n")
    with pytest.raises(InputError, match="empty file"):
        read_manifest(place / "empty.jsonl", place)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_job_or_a_bad_line(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    file.write_bytes(data + b"\nx")
    assert all(isinstance(line, (Job, BadLine)) for line in read_manifest(file, file.parent))


# Going on


def test_what_is_done_is_not_done_again_unless_its_options_or_files_changed(place):
    first = {"output": "sub/a.mp4"}
    lines = manifest(place, first, {"output": "b.webm", "seed": 2}, {"output": "c.mp4", "seed": 13})
    assert statuses(run(place, lines)) == ["done", "done", "failed"]
    assert (place / "out/sub/a.mp4").read_text() == "sub/a.mp4 0"
    assert log(place) == ["made b.webm", "made c.mp4", "made sub/a.mp4"]
    lines = manifest(place, first, {"output": "b.webm", "seed": 3}, {"output": "c.mp4"})
    assert statuses(run(place, lines)) == ["done before", "done", "done"]
    assert log(place).count("made sub/a.mp4") == 1
    assert (place / "out/b.webm").read_text() == "b.webm 3"
    (place / "sound.wav").write_bytes(b"another sound")
    assert statuses(run(place, manifest(place, first))) == ["done"]
    (place / "sound.wav").unlink()
    assert statuses(run(place, manifest(place, first))) == ["done before"]
    assert not list((place / "out").glob(f"{SCRATCH}*"))


def test_a_video_is_made_again_when_its_controls_change(place):
    (place / "edit.yaml").write_text("timeline: 1\n")
    line = {"output": "a.mp4", "controls": "edit.yaml"}
    assert [statuses(run(place, manifest(place, line))) for _ in range(2)] == [["done"], ["done before"]]
    (place / "edit.yaml").write_text("timeline: 1 # another\n")
    assert statuses(run(place, manifest(place, line))) == ["done"]
    line = {"output": "a.mp4", "timeline": {"timeline": 1}}
    assert [statuses(run(place, manifest(place, line))) for _ in range(2)] == [["done"], ["done before"]]


def test_an_output_that_is_lost_or_cut_is_seen(place):
    lines = manifest(place, {"output": "a.mp4"}, {"output": "b.mp4"})
    run(place, lines)
    (place / "out/a.mp4").unlink()
    (place / "out/b.mp4").write_text("b")
    results = run(place, lines)
    assert statuses(results) == ["done", "failed"]
    assert results[1].about["error"] == "OutputError"
    assert (place / "out/b.mp4").read_text() == "b"


def test_a_file_that_no_batch_made_is_not_replaced(place):
    (place / "out").mkdir()
    (place / "out/a.mp4").write_text("somebody's own")
    (place / "out/folder.mp4").mkdir()
    names = "a.mp4", "folder.mp4", "a.mp4/c.mp4", "b.mp4"
    results = run(place, manifest(place, *({"output": name} for name in names)))
    assert statuses(results) == ["failed", "failed", "failed", "done"]
    assert "expected a free name or a video of this batch" in results[0].about["message"]
    assert "expected a folder for a.mp4/c.mp4, got the file" in results[2].about["message"]
    assert (place / "out/a.mp4").read_text() == "somebody's own"
    assert log(place) == ["made b.mp4"]


def test_an_end_between_journal_and_name_costs_the_video_and_nothing_else(place, monkeypatch):
    def cut(part, target):
        raise KeyboardInterrupt

    lines = manifest(place, {"output": "a.mp4"})
    with monkeypatch.context() as patch:
        for module in ("media.files", "provenance.marking"):
            patch.setattr(f"ditto.{module}.complete_file", cut)
        with pytest.raises(KeyboardInterrupt):
            run(place, lines)
    assert [file.name for file in (place / "out").iterdir()] == [JOURNAL]
    with (place / "out" / JOURNAL).open("ab") as journal:
        journal.write(b'{"output": "a.mp4", "fr')  # the end of a process that was writing
    assert statuses(run(place, lines)) == ["done"]
    assert statuses(run(place, lines)) == ["done before"]


def test_one_batch_at_a_time_works_in_a_folder(place):
    lines = manifest(place, {"output": "a.mp4"})
    with Journal(place / "out", None), pytest.raises(InputError, match="one is at work"):
        run(place, lines)
    assert statuses(run(place, lines)) == ["done"]


@pytest.mark.parametrize("name", ["file", "file/out", "n" * 300, "/proc/out"])
def test_a_folder_that_cannot_be_is_told_in_one_line_before_any_work(place, name):
    manifest(place, {"output": "a.mp4"})
    (place / "file").write_text("somebody's own")
    done = CliRunner().invoke(app, ["batch", str(place / "manifest.jsonl"), "-o", str(place / name)])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert re.fullmatch(r"ditto: OutputError: .+; .+\n", done.stderr)
    assert (place / "file").read_text() == "somebody's own"


# Workers


def test_the_job_of_a_killed_worker_is_done_again(place):
    lines = manifest(place, *({"output": f"{name}.mp4"} for name in "abcd"))
    assert statuses(run(place, lines, batch_work.die_once)) == ["done"] * 4
    assert log(place) == [f"made {name}.mp4" for name in "abcd"]
    assert sorted(file.name for file in (place / "out").iterdir()) == sorted(
        ["a.mp4", "b.mp4", "c.mp4", "d.mp4", JOURNAL, REPORT]
    )


def test_a_job_that_kills_its_workers_is_given_up_and_the_others_are_done(place):
    lines = manifest(place, *({"output": f"{name}.mp4"} for name in "abc"))
    results = run(place, lines, batch_work.die)
    assert statuses(results) == ["failed", "done", "done"]
    assert results[0].about["error"] == "ClusterError"
    assert "3 workers ended at it, the last with signal 9" in results[0].about["message"]


def test_an_interruption_keeps_what_is_done(place):
    def told(result):
        if result is not None:
            raise KeyboardInterrupt

    lines = manifest(place, {"output": "a.mp4"}, {"output": "b.mp4"})
    with pytest.raises(KeyboardInterrupt):
        run(place, lines, count=1, told=told)
    report = [json.loads(text)["status"] for text in (place / "out" / REPORT).read_text().splitlines()]
    assert report == ["done", "not done"]
    assert statuses(run(place, lines)) == ["done before", "done"]
    assert log(place) == ["made a.mp4", "made b.mp4"]


# The command


@pytest.fixture
def real(tmp_path):
    """A manifest of two real videos, a missing picture and a bad line."""
    sound = read_audio(EXAMPLES / "speech.flac")[16000 : 16000 + 8000]
    write_wav(tmp_path / "sound.wav", np.int16(sound * 32767))
    line = {"portrait": str(EXAMPLES / "portrait.jpg"), "audio": "sound.wav", "max_size": 128}
    others = ({"output": "a.mp4"}, {"output": "b.webm", "seed": 1}, {"output": "c.mp4", "portrait": "no.jpg"})
    lines = [line | other for other in others]
    (tmp_path / "list.jsonl").write_text("\n".join([*map(json.dumps, lines), "none"]))
    return tmp_path


def test_the_command_makes_videos_and_reports_each_failure(real):
    arguments = ["batch", str(real / "list.jsonl"), "-o", str(real / "out"), "--workers", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "2 videos made, 0 made before, 2 failed" in done.stdout
    assert "line 3, c.mp4: ImageError" in done.stderr
    assert "line 4: InputError: expected a JSON object" in done.stderr
    for name in ("a.mp4", "b.webm"):
        with av.open(str(real / "out" / name)) as video:
            assert sum(1 for _ in video.decode(video=0)) == 13
    again = CliRunner().invoke(app, [*arguments, "--json"])
    assert again.exit_code == 1
    said = {"folder": str(real / "out"), "done": 0, "done_before": 2, "failed": 2, "not_done": 0}
    assert json.loads(again.stdout) == said


def test_the_command_refuses_what_it_cannot_begin_with(tmp_path):
    done = CliRunner().invoke(app, ["batch", str(tmp_path / "no.jsonl"), "-o", str(tmp_path / "out")])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "expected a manifest at" in done.stderr


def test_a_terminated_command_leaves_no_half_of_a_video_and_goes_on(real):
    arguments = ["batch", str(real / "list.jsonl"), "-o", str(real / "out"), "--workers", "1"]
    running = subprocess.Popen([sys.executable, "-m", "ditto", *arguments], stderr=subprocess.PIPE, text=True)
    assert until(lambda: (real / "out" / "a.mp4").exists())
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=PATIENT)
    assert running.returncode in (128 + signal.SIGTERM, 1)  # 1: all was over just then
    assert not [name for name in os.listdir(real / "out") if name.startswith(".")], said
    rest = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(rest.stdout)["done_before"] >= 1
    assert json.loads(rest.stdout)["failed"] == 2
