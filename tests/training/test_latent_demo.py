"""The demo of the latent systems, whole, with networks of a few thousand numbers and a few seconds of speech."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wav import write_wav

torch = pytest.importorskip("torch", reason="the latent systems need torch")

import ditto  # noqa: E402
from ditto.errors import InputError  # noqa: E402
from ditto.latent.config import CODEC_TINY, FLOW_TINY  # noqa: E402
from ditto.training import latent_demo as demo  # noqa: E402
from ditto.training.latent import codec, data, flow  # noqa: E402
from ditto.training.latent.codec import CodecRecipe, CodecStage, Length  # noqa: E402
from ditto.training.latent.loop import Stage  # noqa: E402

FACE = Path(__file__).parents[2] / "examples" / "portrait.jpg"
CODEC = CodecRecipe(
    CODEC_TINY, (CodecStage(2, 1e-3, lengths=(Length(5, 2),)),), window=(14, 8, 64), pictures=80, bfloat16=False
)  # fmt: skip
SIZES = replace(FLOW_TINY, channels=4, rows=8, columns=8, patch=4, width=32, window=8, audio_features=368, motion_features=0)
GENERATOR = flow.FlowRecipe(SIZES, (Stage(2, 1e-3),), 2, references=1, bfloat16=False)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two portraits and a few recordings; everything is small."""
    small = {"CLIPS": 2, "EDITED": 1, "CALIBRATION": 1, "LONG_SECONDS": 1.2, "PICTURE_SIZE": 160, "STREAM_FRAMES": 29}
    for name, value in {**small, "EDITED_SECONDS": 0.4, "EDITS": {"jaw": demo.EDITS["jaw"]}}.items():
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setattr("ditto.training.latent.evaluation.PART_SECONDS", 1)
    monkeypatch.setattr("ditto.training.latent.data.PICTURE_SIZE", 160)
    monkeypatch.setattr(codec, "PRESETS", {"face": CODEC})
    monkeypatch.setattr(demo, "FLOW", replace(flow.FLOW, presets={"face": GENERATOR}))
    (tmp_path / "portraits").mkdir()
    (tmp_path / "speech").mkdir()
    for name in ("a.jpg", "lady_agnew.jpg"):
        shutil.copy(FACE, tmp_path / "portraits" / name)
    random = np.random.default_rng(0)
    for i in range(3):
        loud = np.repeat(random.uniform(0, 0.3, 15), 1600)  # 1.5 s
        write_wav(tmp_path / "speech" / f"{i}.wav", loud * random.standard_normal(len(loud)))
    return tmp_path


def test_the_demo_makes_a_bundle_with_figures_and_sheets_and_goes_on_where_it_was(folders):
    said = []
    given = ("v", folders / "portraits", folders / "speech", folders / "out")
    figures = demo.Demo(*given, report=said.append)()
    names = {figure.name for figure in figures}
    assert len(names) == len(figures) == 32 and any(figure.met is False for figure in figures)
    run = folders / "out" / "v"
    words = json.loads((run / "figures.json").read_text())
    assert words["system"] == "v" and len(words["figures"]) == 32 and words["minutes"].keys() >= {"codec", "generator"}
    assert all((run / f"{name}.png").is_file() for name in ("codec", "lips", "long"))
    head = ditto.load(run / "bundle")
    assert next(iter(head.animate(head.register(FACE, max_size=160), np.zeros(16000, np.float32)))).image.shape[2] == 3

    kept = {path: path.stat().st_mtime_ns for path in folders.glob("out/**/*.safetensors")}
    assert demo.Demo(*given).bundle == run / "bundle"
    assert {path: path.stat().st_mtime_ns for path in folders.glob("out/**/*.safetensors")} == kept


    with pytest.raises(InputError, match=r"expected .*codec.json of seed 1 .* got one of seed 0 .* give another folder"):
        _ = demo.Demo(*given, seed=1, report=said.append).bundle


def test_a_folder_without_portraits_is_told_in_one_line(tmp_path, capsys):
    given = ["--system", "v", "--portraits", str(tmp_path), "--speech", str(tmp_path), "-o", str(tmp_path / "out")]
    assert demo.main(given) == 2
    told = capsys.readouterr().err
    assert told.startswith("ditto: expected a folder with portraits at") and told.count("\n") == 1


def test_an_interrupted_demo_says_so_in_one_line_and_keeps_no_half_recording(folders, monkeypatch, capsys):
    made = demo.Demo("v", folders / "portraits", folders / "speech", folders / "out")
    with monkeypatch.context() as patch:
        patch.setattr(np, "rint", interrupt)  # while the long recording is made
        with pytest.raises(KeyboardInterrupt):
            made._long_speech(0)
    assert not list((folders / "out").rglob("*.wav*"))
    assert made._long_speech(0).stat().st_size == 44 + 2 * int(demo.LONG_SECONDS * 16000)

    for main in (demo.main, data.main):
        folders_of = ["--system", "v", "--portraits", str(folders / "portraits"), "--speech", str(folders / "speech")]
        given = folders_of if main is demo.main else [str(folders / "portraits"), str(folders / "speech"), "out"]
        for module in (demo, data):
            monkeypatch.setattr(module, "render_clips", interrupt)
        assert main(given) == 130
        told = capsys.readouterr().err
        assert told.startswith("ditto: interrupted; finished") and told.count("\n") == 1


def interrupt(*args, **options):
    raise KeyboardInterrupt
