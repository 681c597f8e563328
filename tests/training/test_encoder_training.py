"""`ditto train encoder`: the same bits again, after an interruption too; what goes wrong is said in one line."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch (pip install ditto[train])")

from typer.testing import CliRunner  # noqa: E402

from ditto.app.cli import app  # noqa: E402
from ditto.errors import InputError, TrainingError  # noqa: E402
from ditto.lite.networks.speech_encoder import SpeechEncoder, SpeechEncoderConfig  # noqa: E402
from ditto.training import encoder as training  # noqa: E402
from ditto.training.encoder import Run, Segments, Targets, context_speech, fingerprint, make_targets, train  # noqa: E402
from ditto.training.runs import read_checkpoint  # noqa: E402
from ditto.training.speech_data import make_clip  # noqa: E402

TINY = SpeechEncoderConfig(width=16, heads=2, layers=2, hidden=24, rotary=6, left=8, head=12)
SECONDS = 8


def clip(name, source, seed):
    random = np.random.default_rng(seed)
    phones = [(t / 4, (t + 1) / 4, ("AA", "B", "SIL", "S")[t % 4]) for t in range(4 * SECONDS)]
    return make_clip(name, source, random.normal(0, 0.05, SECONDS * 16000).astype(np.float32), phones)


CLIPS = [clip("one", "ljspeech", 0), clip("two", "librispeech", 1), clip("three", "grid", 2)]
TEST = [clip("test", "test", 3)]


def targets_of(clips, width):
    random = np.random.default_rng(4)
    tokens = SECONDS * 50
    phones = np.eye(40, dtype=np.float32)
    return {
        c.name: Targets(
            random.normal(size=(tokens, width)).astype(np.float16), phones[random.integers(0, 40, tokens)]
        )
        for c in clips
    }


class Interrupting(Segments):
    """Segments that raise KeyboardInterrupt after so many batches."""

    batches = None

    def batch(self, size):
        if self.batches == 0:
            raise KeyboardInterrupt
        if self.batches is not None:
            self.batches -= 1
        return super().batch(size)


def start(folder, steps=24, batches=None, targets=None, **options):
    torch.manual_seed(0)
    segments = Interrupting(CLIPS, targets or targets_of(CLIPS, TINY.width), 0)
    segments.batches = batches
    run = Run(folder, steps, 1, 0, fingerprint(CLIPS), report=lambda line: None, **options)
    return train(SpeechEncoder(TINY), segments, TEST, context_speech(CLIPS), run)


def weights_of(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_resumed_is_uninterrupted_bit_for_bit(tmp_path):
    whole = start(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "parts", batches=22)
    assert read_checkpoint(tmp_path / "parts" / "checkpoint.pt")["step"] == 20  # the first measurement
    resumed = start(tmp_path / "parts", resume=True)
    assert torch.equal(weights_of(resumed), weights_of(whole))
    files = [torch.load(tmp_path / name / "encoder.pt", weights_only=True) for name in ("whole", "parts")]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])
    with pytest.raises(InputError, match="got others: steps"):
        start(tmp_path / "parts", steps=25, resume=True)


def test_nan_ends_the_run_and_leaves_the_last_checkpoint(tmp_path):
    start(tmp_path, steps=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    broken = targets_of(CLIPS, TINY.width)
    for target in broken.values():
        target.phones[:] = np.nan
    with pytest.raises(TrainingError, match="expected a finite loss and gradient at step 1"):
        start(tmp_path, targets=broken)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_the_teacher_hears_only_clips_that_it_has_not_heard(tmp_path, monkeypatch):
    heard = []

    def states(teacher, waveform):
        heard.append(len(waveform))
        return np.random.default_rng(len(heard)).normal(size=(SECONDS * 50, 288)).astype(np.float32)

    class Teacher(torch.nn.Module):
        def __init__(self, weights, fifty):
            super().__init__()

    monkeypatch.setattr(training, "read_weights", lambda path: {})
    monkeypatch.setattr(training, "Teacher", Teacher)
    monkeypatch.setattr(training, "teacher_states", states)
    monkeypatch.setattr("ditto.training.teacher.PROBE_STEPS", 5)
    first = make_targets(CLIPS[:2], tmp_path, tmp_path, TEST, lambda line: None)
    again = make_targets(CLIPS, tmp_path, tmp_path, TEST, lambda line: None)
    assert len(heard) == 4 and set(again) == {"one", "two", "three"}
    assert np.array_equal(first["one"].hidden, again["one"].hidden)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.npz"]


def run(*words):
    return CliRunner().invoke(app, ["train", "encoder", *(str(word) for word in words)])


@pytest.fixture
def tree(tmp_path):
    """Folders that look like data, tracks and Moonshine."""
    for folder in ("data/speech/ljspeech", "tracks", "moonshine/moonshine_voice/assets/tiny-en"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "moonshine" / training.MODEL).write_bytes(b"")
    return tmp_path


def test_the_command_writes_weights(tree, monkeypatch):
    monkeypatch.setattr(training, "SpeechEncoder", lambda: SpeechEncoder(TINY))
    monkeypatch.setattr(training, "read_train", lambda data, tracks: CLIPS)
    monkeypatch.setattr(training, "read_test", lambda data: TEST)
    monkeypatch.setattr(training, "read_weights", lambda path: {})
    monkeypatch.setattr(training, "from_moonshine", lambda encoder, weights, speech: None)
    monkeypatch.setattr(training, "make_targets", lambda clips, *rest: targets_of(clips, TINY.width))
    words = tree / "data", tree / "tracks", tree / "moonshine", "-o", tree / "out", "--steps", 2, "--batch", 1
    made = run(*words, "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout.splitlines()[-1]) == {"output": str(tree / "out" / "encoder.pt"), "steps": 2, "seed": 0}
    SpeechEncoder(TINY).load_state_dict(torch.load(tree / "out" / "encoder.pt", weights_only=True))
    again = run(*words)
    assert again.exit_code == 2 and "add --resume, or give another folder" in again.stderr
    assert run(*words, "--resume").exit_code == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "expected speech, alignments and teacher"),  # a folder of speech with nothing in it
        ({"moonshine": "nothing"}, "encoder_model.ort, got no such file or folder"),
        ({"data": "nothing"}, "speech, got no such file or folder"),
        ({"tracks": "nothing"}, "nothing, got no such file or folder"),
        ({"-o": __file__}, "expected a folder as output, got the file"),
        ({"--align": "nothing"}, "nothing, got no such file or folder"),
        ({"--resume": None}, "start without --resume"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(tree, change, said):
    places = {name: str(tree / name) for name in ("data", "tracks", "moonshine")}
    options = {"-o": str(tree / "out")} | {name: value for name, value in change.items() if name.startswith("-")}
    places |= {name: str(tree / value) for name, value in change.items() if not name.startswith("-")}
    words = [word for item in options.items() for word in item if word is not None]
    found = run(*places.values(), *words)
    assert found.exit_code == 2 and said in found.stderr and found.stderr.count("\n") == 1
    assert not (tree / "out").exists()
