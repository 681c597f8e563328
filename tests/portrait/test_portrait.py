"""Portraits: checked, read-only, saved and loaded exactly, and played without the networks."""

import dataclasses
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ditto.errors import InputError, OutputError
from ditto.motion.motion import KEYPOINTS
from ditto.portrait.portrait import VERSION, Portrait

SIZE = 32


def fields(alpha=True):
    rng = np.random.default_rng(0)
    return {
        "picture": rng.integers(0, 256, (40, 60, 3)).astype(np.uint8),
        "alpha": rng.integers(0, 256, (40, 60)).astype(np.uint8) if alpha else None,
        "crop": rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8),
        "crop_to_picture": np.array([[0.7, 0.1, 3.0], [-0.1, 0.7, 5.5], [0.0, 0.0, 1.0]]),
        "landmarks": rng.normal(16, 4, (478, 3)),
        "mask": rng.random((SIZE, SIZE)).astype(np.float32),
        "canonical_keypoints": rng.normal(0, 0.3, (KEYPOINTS, 3)),
        "scale": 0.87,
        "rotation": np.eye(3),
        "translation": rng.normal(0, 0.1, 3),
        "expression": rng.normal(0, 0.01, (KEYPOINTS, 3)),
        "eye_open": np.array([0.9, 1.0], np.float32),
        "eye_ball": rng.normal(0, 0.1, 6).astype(np.float32),
    }


def same(a, b):
    for field in dataclasses.fields(Portrait):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert (x is None) == (y is None), field.name
        assert x is None or (np.asarray(x).dtype == np.asarray(y).dtype and np.array_equal(x, y)), field.name


@pytest.mark.parametrize("alpha", [True, False])
def test_saved_and_loaded_is_the_same(tmp_path, alpha):
    portrait = Portrait(**fields(alpha))
    portrait.save(tmp_path / "someone.portrait")
    same(Portrait.load(tmp_path / "someone.portrait"), portrait)
    assert [p.name for p in tmp_path.iterdir()] == ["someone.portrait"]  # nothing half-written beside it


def test_saving_over_a_file_replaces_it(tmp_path):
    path = tmp_path / "p"
    path.write_bytes(b"old")
    Portrait(**fields()).save(path)
    same(Portrait.load(str(path)), Portrait(**fields()))


def test_arrays_are_read_only():
    portrait = Portrait(**fields())
    for name, value in fields().items():
        if isinstance(value, np.ndarray):
            with pytest.raises(ValueError, match="read-only"):
                getattr(portrait, name)[...] = 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("picture", np.zeros((40, 60), np.uint8)),
        ("picture", np.zeros((40, 60, 3), np.float32)),
        ("alpha", np.zeros((40, 61), np.uint8)),
        ("crop", np.zeros((8, 9, 3), np.uint8)),
        ("landmarks", np.zeros((468, 3))),
        ("mask", np.zeros((SIZE, SIZE + 1), np.float32)),
        ("rotation", np.full((3, 3), np.nan)),
        ("rotation", np.diag([1.0, 1.0, -1.0])),
        ("rotation", np.zeros((3, 3))),
        ("landmarks", np.zeros((478, 3))),
        ("landmarks", np.random.default_rng(0).normal(1e6, 4, (478, 3))),
        ("scale", 1e9),
        ("scale", 0.0),
        ("crop_to_picture", np.zeros((3, 3))),
        ("eye_ball", np.zeros(5, np.float32)),
    ],
)
def test_wrong_fields_are_refused(name, value):
    with pytest.raises(ValueError, match="portrait"):
        Portrait(**{**fields(), name: value})


def rewritten(path, **arrays):
    with np.load(path) as archive:
        kept = {name: archive[name] for name in archive.files}
    buffer = io.BytesIO()
    np.savez(buffer, **{k: v for k, v in {**kept, **arrays}.items() if v is not None})
    return buffer.getvalue()


def test_damaged_and_foreign_files_are_refused(tmp_path):
    good = tmp_path / "good"
    Portrait(**fields()).save(good)
    data = good.read_bytes()

    def meta(text):
        return np.frombuffer(text.encode(), np.uint8)

    cases = {
        "empty": (b"", "damaged"),
        "cut": (data[: len(data) // 2], "damaged"),
        "words": (b"hello", "damaged"),
        "other npz": (rewritten(good, meta=None), "no saved portrait"),
        "other format": (rewritten(good, meta=meta('{"format": "x"}')), "no saved portrait"),
        "newer": (
            rewritten(good, meta=meta(json.dumps({"format": "ditto portrait", "version": VERSION + 1}))),
            f"version {VERSION + 1}, this ditto reads version {VERSION}",
        ),
        "meta": (rewritten(good, meta=meta("{")), "damaged"),
        "list": (rewritten(good, meta=meta("[]")), "damaged"),
        "short": (rewritten(good, landmarks=np.zeros((3, 3))), "damaged"),
        "missing": (rewritten(good, mask=None), "damaged"),
        "extra": (rewritten(good, other=np.zeros(3)), "damaged"),
        "image": (rewritten(good, picture=np.zeros(30, np.uint8)), "damaged"),
        "pickle": (rewritten(good, mask=np.array([{}], object)), "damaged"),
    }
    for name, (content, words) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=words) as error:
            Portrait.load(path)
        assert name in str(error.value) and "allow_pickle" not in str(error.value)
    with pytest.raises(InputError, match="no such file"):
        Portrait.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="damaged or no saved portrait"):
        Portrait.load(tmp_path)


def test_flipped_bytes_never_raise_anything_else(tmp_path):
    path = tmp_path / "p"
    Portrait(**fields()).save(path)
    good = path.read_bytes()
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(60):
        data = bytearray(good)
        for at in rng.integers(0, len(data), 3):
            data[at] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(data))
        try:
            Portrait.load(path)
        except InputError:
            refused += 1
    assert refused > 40  # the archive has checksums


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        Portrait(**fields()).save(tmp_path / "no" / "such" / "folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        Portrait(**fields()).save(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_saved_file_holds_no_pickle(tmp_path):
    Portrait(**fields()).save(tmp_path / "p")
    with zipfile.ZipFile(tmp_path / "p") as archive:
        assert archive.testzip() is None
        assert all(b"'descr': '|O'" not in archive.read(name)[:128] for name in archive.namelist())


PLAYED = """
import sys
blocked = {"onnxruntime", "cv2", "torch"}
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import numpy as np
from ditto.portrait.portrait import Portrait
from ditto.lite.rendering.paste_back import PasteBack
portrait = Portrait.load(sys.argv[1])
frame = PasteBack(portrait)(np.ascontiguousarray(portrait.crop[::-1]))
assert frame.shape == portrait.picture.shape and (frame != portrait.picture).any()
blocked.remove("cv2")
import ditto.portrait.registration
from ditto.errors import EngineError
try:
    ditto.portrait.registration.register(portrait.picture)
except EngineError as error:
    assert "pip install onnxruntime" in str(error)
else:
    raise SystemExit("registered without ONNX Runtime")
"""


def test_a_saved_portrait_plays_without_the_networks(tmp_path):
    Portrait(**fields(False)).save(tmp_path / "p")
    done = subprocess.run(
        [sys.executable, "-c", PLAYED, str(tmp_path / "p")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="limits as on Unix")
def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path):
    code = f"""
import resource, signal, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
from test_portrait import Portrait, fields
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
try:
    Portrait(**fields()).save({str(tmp_path / "p")!r})
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(f"OutputError {tmp_path / 'p'} cannot be written: File too large"), done.stderr
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
