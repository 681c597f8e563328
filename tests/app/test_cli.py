"""The command line around a stand-in for the networks; what it does with the real ones is in test_pipeline.py."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from typer.testing import CliRunner
from wav import write_wav

import ditto
from ditto.app.cli import app, main
from ditto.errors import BundleError, ImageError, NoFaceError
from ditto.portrait.emotion_reader import EmotionReading

EXAMPLES = Path(__file__).parents[2] / "examples"
PORTRAIT, SPEECH = EXAMPLES / "portrait.jpg", EXAMPLES / "speech.flac"


class StandIn:
    """Answers like a TalkingHead; every frame is grey."""

    bundle = SimpleNamespace(name="stand-in")

    def __init__(
        self, error: Exception | None = None, fail_at: int | None = None, no_person: bool = False
    ) -> None:
        self.error, self.fail_at, self.no_person, self.asked = error, fail_at, no_person, {}

    def register(self, picture, face=0, max_size=1920):
        if isinstance(self.error, NoFaceError):
            raise self.error
        self.asked |= {"face": face, "max_size": max_size}
        image = np.zeros((64, 96, 3), np.uint8)
        return SimpleNamespace(picture=image, crop=image, landmarks=np.zeros((478, 3)), alpha=None)

    def cut_out(self, portrait):
        if self.no_person:
            raise ImageError("expected a person that stands out, got none")
        return SimpleNamespace(**(vars(portrait) | {"alpha": np.full((64, 96), 200, np.uint8)}))

    def appearance(self, portrait):
        return None

    def animate(self, portrait, audio, **options):
        self.asked |= options
        samples = sum(block.size for block in audio)
        for index in range(-(-samples // 640)):
            if index == self.fail_at:
                raise self.error
            yield SimpleNamespace(image=np.full((64, 96, 3), 120, np.uint8))


@pytest.fixture
def run(monkeypatch, tmp_path):
    def run(*arguments, head=None):
        def load(bundle, **_):
            if isinstance(head, Exception):
                raise head
            return head or StandIn()

        monkeypatch.setitem(vars(ditto), "load", load)
        done = CliRunner().invoke(app, [str(a) for a in arguments])
        left = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".") or path.suffix == ".mp4")
        return SimpleNamespace(code=done.exit_code, out=done.stdout, err=done.stderr, left=left)

    return run


def test_animate_writes_the_video_and_says_where(run, tmp_path):
    head = StandIn()
    done = run(
        "animate", PORTRAIT, SPEECH, "-o", tmp_path / "out.mp4", "--seed", 7, "--emotion", "happy:0.6, sad:0.1",
        "--face", 1, "--still", "--max-size", 640, "--style", "calm", head=head,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert head.asked == {
        "face": 1, "max_size": 640, "seed": 7, "emotion": {"happy": 0.6, "sad": 0.1}, "still": True, "style": 0.45,
        "controls": None, "performance": None, "output": "rgb24",
    }  # fmt: skip
    assert "out.mp4: 245 frames, 9.80 s, 96 x 64" in done.out.replace("\n", "")
    assert "real-time factor" in done.out
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].frames == 245
        assert container.streams.audio[0].duration * container.streams.audio[0].time_base == pytest.approx(
            9.8, abs=0.04
        )


def test_what_animate_writes_verifies_until_a_byte_changes(run, tmp_path):
    pytest.importorskip("c2pa", reason="needs c2pa-python")
    audio = write_wav(tmp_path / "a.wav", np.zeros(3200, np.int16))
    done = run("animate", PORTRAIT, audio, "-o", tmp_path / "out.mp4", "--json", "--label", "AI")
    assert json.loads(done.out)["signed"] is True
    verified = run("verify", tmp_path / "out.mp4")
    assert verified.code == 0 and verified.out.count("\n") == 1
    assert "out.mp4: valid, but the key is not trusted: made by ditto" in verified.out
    assert "from portrait f5724aea6d92, speech" in verified.out
    said = json.loads(run("verify", tmp_path / "out.mp4", "--json").out)
    assert (said["state"], said["is_generated"], said["ingredients"][1]["title"]) == ("untrusted", True, "speech")
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert frame[:32].std() < 2 < frame[32:, 48:].std()  # the label, on grey

    key = os.environ["XDG_DATA_HOME"] + "/ditto/signing.pem"
    trusted = run("verify", tmp_path / "out.mp4", "--trust", key)
    assert trusted.code == 0 and "out.mp4: valid: made by" in trusted.out
    data = bytearray((tmp_path / "out.mp4").read_bytes())
    data[data.index(b"mdat") + 9] ^= 1
    (tmp_path / "out.mp4").write_bytes(data)
    altered = run("verify", tmp_path / "out.mp4")
    assert altered.code == 3 and "out.mp4: altered: " in altered.out
    assert run("verify", PORTRAIT).code == 4 and "absent" in run("verify", PORTRAIT).out
    assert run("verify", tmp_path / "none.mp4").code == 2


def test_a_file_signed_by_somebody_else_is_told_apart_where_the_user_says_whom_to_trust(run, tmp_path):
    pytest.importorskip("c2pa", reason="needs c2pa-python")
    from ditto.provenance.credentials import make_identity

    audio = write_wav(tmp_path / "a.wav", np.zeros(640, np.int16))
    for name in ("a.pem", "b.pem"):
        (tmp_path / name).write_bytes(make_identity())
    own = ("--signing-certificate", tmp_path / "a.pem", "--signing-key", tmp_path / "a.pem")
    done = run("animate", PORTRAIT, audio, "-o", tmp_path / "out.mp4", *own)
    assert done.code == 0, done.err
    assert run("verify", tmp_path / "out.mp4", "--trust", tmp_path / "a.pem").code == 0
    assert run("verify", tmp_path / "out.mp4", "--trust", tmp_path / "b.pem").code == 5
    done = run("animate", PORTRAIT, audio, "-o", tmp_path / "new.mp4", *own[:2], "--signing-key", tmp_path / "b.pem")
    assert (done.code, done.left) == (2, ["out.mp4"]) and "ProvenanceError: expected the key of the certificate" in done.err


def test_without_provenance_the_file_says_nothing(run, tmp_path):
    audio = write_wav(tmp_path / "a.wav", np.zeros(640, np.int16))
    done = run("animate", PORTRAIT, audio, "-o", tmp_path / "out.mp4", "--no-provenance", "--json")
    assert json.loads(done.out)["signed"] is False and b"c2pa" not in (tmp_path / "out.mp4").read_bytes()
    assert done.err == ""


def test_without_c2pa_one_line_says_that_the_file_is_unsigned(run, tmp_path, monkeypatch):
    from ditto.provenance import marking

    monkeypatch.setitem(sys.modules, "c2pa", None)
    marking.can_sign.cache_clear()
    audio = write_wav(tmp_path / "a.wav", np.full(640, 9000, np.int16))
    done = run("animate", PORTRAIT, audio, "-o", tmp_path / "out.mp4")
    marking.can_sign.cache_clear()
    assert done.code == 0 and done.left == ["out.mp4"]
    assert [("without content credentials" in line) for line in done.err.splitlines() if line.startswith("note: ")] == [True]
    assert run("verify", tmp_path / "out.mp4").code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--label", "x" * 61), "--label: expected a label of 1 to 60 characters"),
        (("--label", "AI", "--label-corner", "middle"), "--label: expected a corner"),
        (("--label-corner", "top-left"), "expected --label with --label-corner"),
        (("--label", "AI-generated by somebody"), "expected a label that fits into 96 x 64"),
    ],
)
def test_labels_that_cannot_be_drawn_are_the_caller_s_mistake(run, tmp_path, options, message):
    done = run("animate", PORTRAIT, SPEECH, "-o", tmp_path / "out.mp4", *options)
    assert (done.code, done.left) == (2, []) and message in done.err


def test_the_emotion_of_the_picture_is_read_shown_and_said(run, tmp_path, monkeypatch):
    def read_emotion(pictures, landmarks, download):
        assert (len(pictures), len(landmarks), download) == (1, 1, False)
        return EmotionReading({"happy": 0.75, "neutral": 0.25, "sad": 0.0}, "landmarks")

    monkeypatch.setattr("ditto.portrait.emotion_reader.read_emotion", read_emotion)
    head = StandIn()
    done = run("animate", PORTRAIT, SPEECH, "-o", tmp_path / "out.mp4", "--emotion", "portrait", head=head)
    assert done.code == 0 and head.asked["emotion"] == {"happy": 0.75, "neutral": 0.25, "sad": 0.0}
    assert "the picture shows happy 0.75, neutral 0.25, by the landmarks of the face" in done.err.replace("\n", " ")
    said = json.loads(run("animate", PORTRAIT, SPEECH, "-o", tmp_path / "out.mp4", "--emotion", "portrait", "--json").out)
    assert said["emotion_read_by"] == "landmarks" and said["emotion"]["happy"] == 0.75


def test_weights_are_only_downloaded_to_read_the_picture(run, tmp_path):
    done = run("animate", PORTRAIT, SPEECH, "-o", tmp_path / "out.mp4", "--emotion", "happy", "--download-hsemotion")
    said = done.err.replace("\n", " ")
    assert (done.code, done.left) == (2, []) and "expected --emotion portrait with --download-hsemotion, got 'happy'" in said


def test_json_is_one_object_and_nothing_else(run, tmp_path):
    done = run("animate", PORTRAIT, SPEECH, "-o", tmp_path / "out.mp4", "--json")
    said = json.loads(done.out)
    assert said["frames"] == 245
    assert said["duration_seconds"] == pytest.approx(9.8)
    assert said["real_time_factor"] == pytest.approx(said["animate_seconds"] / 9.8, abs=1e-3)
    assert done.err == ""


def test_quiet_says_nothing(run, tmp_path):
    done = run("animate", PORTRAIT, SPEECH, "-o", tmp_path / "out.mp4", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("AudioError", lambda d: d / "missing.wav"),
        ("AudioError", lambda d: d),
        ("AudioError", lambda d: (d / "zero.wav").touch() or d / "zero.wav"),
        ("AudioError", lambda d: write_wav(d / "empty.wav", np.zeros(0, np.int16))),
        ("AudioError", lambda d: write_wav(d / "nan.wav", np.full(1000, np.nan, np.float32))),
        ("AudioError", lambda d: PORTRAIT),
    ],
)
def test_audio_that_cannot_be_used_is_the_caller_s_mistake(run, tmp_path, name, make):
    done = run("animate", PORTRAIT, make(tmp_path), "-o", tmp_path / "out.mp4", head=BundleError("loaded too early"))
    assert done.code == 2
    assert done.err.startswith(f"ditto: {name}: ")
    assert len(done.err.strip().splitlines()) == 1
    assert done.left == []


def test_nan_in_the_middle_leaves_nothing_half_written(run, tmp_path):
    samples = np.zeros(5 * 16000, np.float32)
    samples[60000] = np.nan
    done = run("animate", PORTRAIT, write_wav(tmp_path / "nan.wav", samples), "-o", tmp_path / "out.mp4")
    assert done.code == 2
    assert "3.750 s" in done.err
    assert done.left == []


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (192000, 8), (44100, 2)])
def test_any_rate_and_number_of_channels_work(run, tmp_path, rate, channels):
    audio = write_wav(tmp_path / "in.wav", np.zeros((rate, channels), np.float32), rate)
    done = run("animate", PORTRAIT, audio, "-o", tmp_path / "out.mp4", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["frames"] == 25


def test_a_damaged_end_is_animated_up_to_there_and_said(run, tmp_path):
    whole = write_wav(tmp_path / "whole.wav", np.zeros(4 * 16000, np.float32)).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    done = run("animate", PORTRAIT, tmp_path / "cut.wav", "-o", tmp_path / "out.mp4")
    assert done.code == 0
    assert " ".join(done.err.split()).count("shorter than its header says") == 1
    assert run("animate", PORTRAIT, tmp_path / "cut.wav", "-o", tmp_path / "out.mp4", "-q").err == ""


@pytest.mark.parametrize(
    ("output", "background", "message"),
    [("out.mp4", "transparent", "keeps alpha"), ("out.mp4", "purpel", "expected a colour, blur"),
     ("out.webm", "transparent", "expected a person that stands out")],
)  # fmt: skip
def test_a_background_that_cannot_be_is_refused(run, tmp_path, output, background, message):
    head = StandIn(no_person=background == "transparent")
    done = run("animate", PORTRAIT, SPEECH, "-o", tmp_path / output, "--background", background, head=head)
    assert done.code == 2 and message in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "message"),
    [("out.avi", "ends in .mp4, .webm"), ("none/out.mp4", "make it first"), ("file/out.mp4", "make it first")],
)
def test_outputs_that_cannot_be_written_are_refused_before_any_work(run, tmp_path, output, message):
    (tmp_path / "file").touch()
    done = run("animate", PORTRAIT, SPEECH, "-o", tmp_path / output, head=BundleError("loaded too early"))
    assert done.code == 2
    assert "OutputError" in done.err
    assert message in done.err


def test_names_the_system_refuses_are_the_caller_s_mistake(run, tmp_path):
    long = tmp_path / ("x" * 300)
    for arguments in (
        (PORTRAIT, SPEECH, "-o", long.with_suffix(".mp4")),
        (PORTRAIT, long.with_suffix(".wav"), "-o", tmp_path / "out.mp4"),
        (long.with_suffix(".png"), SPEECH, "-o", tmp_path / "out.mp4"),
    ):
        done = run("animate", *arguments)
        assert done.code == 2, done.err
        assert "name too long" in done.err
    done = run("animate", tmp_path, SPEECH, "-o", tmp_path / "out.mp4")
    assert "got the folder" in done.err


def test_the_longest_name_the_system_takes_works(run, tmp_path):
    done = run("animate", PORTRAIT, SPEECH, "-o", tmp_path / ("x" * 251 + ".mp4"), "-q")
    assert done.code == 0, done.err


def test_a_face_cannot_be_chosen_in_a_saved_portrait(run, tmp_path):
    (tmp_path / "face.npz").touch()
    done = run("animate", tmp_path / "face.npz", SPEECH, "-o", tmp_path / "out.mp4", "--face", 1)
    assert (done.code, "got the saved portrait" in done.err) == (2, True)


def test_a_saved_portrait_has_its_size(run, tmp_path):
    (tmp_path / "saved.npz").write_bytes(b"-")
    done = run("animate", tmp_path / "saved.npz", SPEECH, "-o", tmp_path / "out.mp4", "--max-size", 320)
    assert done.code == 2
    assert "expected a picture with --max-size 320" in done.err
    assert done.left == []


@pytest.mark.parametrize("name", ["12:30.wav", "file:x.wav", "http:x.wav", "-x.wav", "a%03d.wav", "#x?.wav"])
def test_names_are_taken_literally(run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(write_wav(tmp_path / "a.wav", np.zeros(16000, np.int16)).read_bytes())
    output = Path(name).with_suffix(".mp4").name
    done = run("animate", PORTRAIT, "-o", output, "--", name)
    assert done.code == 0, done.err
    assert done.left == [output]


def test_a_recording_comes_from_standard_input(run, tmp_path, monkeypatch):
    monkeypatch.setattr("ditto.app.cli.standard_input", lambda noun: io.BytesIO(SPEECH.read_bytes()))
    done = run("animate", PORTRAIT, "-", "-o", tmp_path / "out.mp4")
    assert done.code == 0, done.err
    assert "245 frames" in done.out.replace("\n", " ")


def test_an_input_is_never_overwritten(run, tmp_path):
    (tmp_path / "film.mp4").write_bytes(SPEECH.read_bytes())
    done = run("animate", PORTRAIT, tmp_path / "film.mp4", "-o", tmp_path / "film.mp4")
    assert done.code == 2
    assert "not an input, got the input" in done.err


@pytest.mark.parametrize(
    "emotion", ["joy:0.5", "happy:much", "happy:2", "happy:0.8,sad:0.8", "happy:nan", "happy:0.1,happy:0.2"]
)
def test_wrong_emotions_are_refused(run, tmp_path, emotion):
    done = run("animate", PORTRAIT, SPEECH, "-o", tmp_path / "out.mp4", "--emotion", emotion)
    assert done.code == 2
    assert "in --emotion" in done.err


@pytest.mark.parametrize("style", ["wild", "3", "-1", "nan", ""])
def test_wrong_styles_are_refused(run, tmp_path, style):
    done = run("animate", PORTRAIT, SPEECH, "-o", tmp_path / "out.mp4", f"--style={style}")
    assert done.code == 2 and not done.left
    assert "--style: expected a style of calm, natural, lively" in done.err.replace("\n", " ")


def test_unknown_options_and_missing_arguments_are_usage_errors(run):
    assert run("animate", PORTRAIT).code == 2
    assert run("animate", PORTRAIT, SPEECH, "-o", "x.mp4", "--face", "-1").code == 2
    assert run("dance").code == 2


def test_exit_codes_tell_the_caller_s_mistakes_from_ours(run, tmp_path):
    arguments = ("animate", PORTRAIT, SPEECH, "-o", tmp_path / "out.mp4")
    assert run(*arguments, head=StandIn(NoFaceError("no face"))).code == 2
    assert run(*arguments, head=BundleError("damaged")).code == 1
    ours = run(*arguments, head=StandIn(IndexError("oops"), fail_at=100))
    assert (ours.code, ours.left) == (1, [])
    assert "bug in ditto" in ours.err
    assert "Traceback" not in ours.err
    assert "Traceback" in run(*arguments, "--debug", head=StandIn(IndexError("oops"), fail_at=100)).err


def test_errors_are_json_too(run, tmp_path):
    done = run("animate", PORTRAIT, SPEECH, "-o", tmp_path / "out.mp4", "--json", head=BundleError("damaged"))
    assert json.loads(done.out) == {"error": "BundleError", "message": "damaged"}


@pytest.mark.skipif(os.name == "nt", reason="signals as on Unix")
@pytest.mark.parametrize(("signal", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_an_interruption_leaves_nothing_behind(tmp_path, signal, code):
    script = f"""
import sys, time
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
import ditto
from test_cli import StandIn, PORTRAIT, SPEECH

class Slow(StandIn):
    def animate(self, portrait, audio, **options):
        for number, frame in enumerate(super().animate(portrait, audio, **options)):
            if number == 5:
                print("in the midst of it", flush=True)
                time.sleep(600)
            yield frame

vars(ditto)["load"] = lambda bundle, **_: Slow()
sys.argv = ["ditto", "animate", str(PORTRAIT), str(SPEECH), "-o", {str(tmp_path / "out.mp4")!r}]
from ditto.app.cli import main
main()
"""
    import signal as signals

    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in the midst of it\n"
    process.send_signal(getattr(signals, signal))
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="signals as on Unix")
@pytest.mark.parametrize("made_of_it", [None, ImportError("initialization failed")])
def test_an_interruption_that_native_code_swallows_counts_all_the_same(run, tmp_path, made_of_it):
    import signal as signals

    class Swallower(StandIn):
        def register(self, picture, face=0, max_size=1920):
            try:
                os.kill(os.getpid(), signals.SIGINT)
                time.sleep(600)
            except KeyboardInterrupt:
                if made_of_it:
                    raise made_of_it from None
            return super().register(picture, face, max_size)

    done = run("animate", PORTRAIT, SPEECH, "-o", tmp_path / "out.mp4", "-q", head=Swallower())
    assert (done.code, done.err, done.left) == (130, "ditto: interrupted; nothing was written\n", [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["animate", "a.png", "a.wav", "-o", "o.mp4", "--face", "-1"], "--face"),
        (["animate", "a.png", "a.wav", "-o", "o.mp4", "--seed", "much"], "--seed"),
        (["animate", "-o", "o.mp4"], "PORTRAIT"),
        (["dance"], "dance"),
    ],
)
def test_a_usage_error_is_one_line(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["ditto", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.startswith(("ditto: UsageError: ", "ditto: InputError: expected --face"))
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), ([], 2), (["bundle"], 2), (["doctor", "-x"], 2)])
def test_main_ends_with_the_exit_code_of_the_command(monkeypatch, capsys, arguments, code):
    monkeypatch.setattr(sys, "argv", ["ditto", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert (stopped.value.code or 0) == code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_a_report_that_does_not_arrive_is_told():
    command = [sys.executable, "-m", "ditto", "bundle", "verify", "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "OutputError: the report cannot be written" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="pipes as on Unix")
def test_a_reader_that_has_gone_is_not_a_fault():
    receiver, sender = os.pipe()
    os.close(receiver)
    command = [sys.executable, "-m", "ditto", "bundle", "verify", "--json"]
    done = subprocess.run(command, stdout=sender, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(sender)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_broken_library_is_not_called_a_fault_of_ditto(run, tmp_path):
    missing = ImportError("libGL.so.1: cannot open shared object file")
    done = run("animate", PORTRAIT, SPEECH, "-o", tmp_path / "out.mp4", head=missing)
    assert done.code == 1
    assert "ditto doctor" in done.err
    assert "bug in ditto" not in done.err


def test_doctor_names_every_part_and_fails_when_one_lite_needs_is_missing(run, monkeypatch):
    import ditto.app.doctor

    said = json.loads(run("doctor", "--json").out)
    names = {check["name"] for check in said}
    assert {"python", "machine", "native kernels", "onnxruntime", "opencv-python-headless", "writing .mp4 (h264)"} <= names
    assert all(check["todo"] or check["detail"] for check in said)
    broken = [*ditto.app.doctor.MODULES, ("no_such_module", "no-such-module", "nothing", True)]
    monkeypatch.setattr(ditto.app.doctor, "MODULES", broken)
    done = run("doctor")
    assert done.code == 1
    assert "pip install no-such-module" in " ".join(done.out.split())


def test_bundle_verify_tells_a_sealed_bundle_from_a_changed_one(run, tmp_path):
    from ditto.bundle import seal

    shipped = Path(ditto.__file__).parent / "bundles" / "lite" / "motion.onnx"
    (tmp_path / "motion.onnx").write_bytes(shipped.read_bytes())
    part = {"model": "m", "config": {}, "files": {"onnx": "motion.onnx"}, "sha256": {}}
    described = {
        "format": 1, "name": "tiny", "licence": "Apache-2.0", "origin": "here", "fps": 25, "sample_rate": 16000,
        "motion_space": "lite", "parts": {"motion": part},
    }  # fmt: skip
    (tmp_path / "bundle.json").write_text(json.dumps(described))
    seal(tmp_path)
    assert json.loads(run("bundle", "verify", tmp_path, "--json").out)["files"] == ["motion.onnx"]
    (tmp_path / "motion.onnx").write_bytes(b"changed")
    done = run("bundle", "verify", tmp_path)
    assert done.code == 1
    assert "SHA-256" in done.err


def test_the_version_is_printed(run):
    assert run("--version").out.strip() == f"ditto {ditto.__version__}"
