import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ditto.bundle import (
    SAME_BITS,
    SHIPPED,
    Bundle,
    digest,
    examine,
    known_bundles,
    read_config,
    reseal,
    seal,
    shipped_bundles,
    user_bundles,
)
from ditto.engines.cache import cache_folder
from ditto.errors import BundleError, EngineError, InputError, NoBundleError
from ditto.talking_head import load


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "motion.onnx").write_bytes(b"a network")
    (tmp_path / "motion.safetensors").write_bytes(b"its weights")
    described = {
        "format": 1,
        "name": "tiny",
        "licence": "Apache-2.0",
        "origin": "made here",
        "fps": 25,
        "sample_rate": 16000,
        "motion_space": "lite",
        "parts": {
            "motion": {
                "model": "motion_diffusion",
                "config": {"width": 8, "sizes": [1, 2]},
                "files": {"onnx": "motion.onnx", "safetensors": "motion.safetensors"},
                "sha256": {},
            }
        },
    }
    (tmp_path / "bundle.json").write_text(json.dumps(described))
    seal(tmp_path)
    return tmp_path


def change(folder, **fields):
    file = folder / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_a_sealed_bundle_opens_and_verifies(folder):
    bundle = Bundle.open(folder)
    assert (bundle.name, bundle.fps, bundle.sample_rate, bundle.motion_space) == ("tiny", 25, 16000, "lite")
    assert bundle.part("motion").file("onnx") == folder / "motion.onnx"
    bundle.verify()


def test_every_shipped_bundle_opens_and_verifies():
    for name in shipped_bundles():
        bundle = Bundle.open(name)
        assert bundle.name == name
        assert bundle.path == SHIPPED / name
        bundle.verify()
        named = {path.name for part in bundle.parts.values() for path in part.files.values()}
        weights = {path.name for path in bundle.path.iterdir() if path.suffix not in (".json", ".md")}
        assert weights == named, "every weight file of a bundle is named and sealed in bundle.json"


def test_a_changed_file_is_found(folder):
    (folder / "motion.onnx").write_bytes(b"another network")
    with pytest.raises(BundleError, match=r"expected SHA-256 \w+\.\.\. of .*motion\.onnx"):
        Bundle.open(folder).verify()


def test_a_missing_file_is_found_when_it_is_asked_for(folder):
    (folder / "motion.onnx").unlink()
    bundle = Bundle.open(folder)
    with pytest.raises(BundleError, match=r"expected .*motion\.onnx for part 'motion', got no such file"):
        bundle.part("motion").file("onnx")
    with pytest.raises(BundleError, match="no such file"):
        bundle.verify()


@pytest.mark.parametrize("name", ["full-of-hope", "", "x" * 300, "no\0name"])
def test_a_bundle_that_is_not_there_is_the_caller_s_mistake(name):
    with pytest.raises(BundleError, match="available: lite") as refused:
        load(name)
    assert isinstance(refused.value, InputError)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "expected part 'encoder' in bundle 'tiny', got motion"),
        ({"motion_space": "other"}, "motion space 'lite' or 'full'"),
        ({"sample_rate": 8000}, "16000 samples a second"),
    ],
)
def test_a_bundle_that_cannot_talk_is_refused(folder, fields, message):
    change(folder, **fields)
    with pytest.raises(BundleError, match=message) as refused:
        load(folder)
    assert not isinstance(refused.value, InputError)


def test_a_flipped_bit_is_found_when_a_bundle_is_loaded(tmp_path):
    shutil.copytree(SHIPPED / "lite", tmp_path / "lite")
    file = tmp_path / "lite" / "renderer.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x40
    file.write_bytes(data)
    with pytest.raises(BundleError, match=r"expected SHA-256 \w+\.\.\. of .*renderer\.safetensors"):
        load(tmp_path / "lite")


def test_a_file_that_may_not_be_read_is_named(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ditto.bundle.digest", refuse)
    with pytest.raises(BundleError, match=r"motion\.onnx cannot be read: Permission denied"):
        Bundle.open(folder).verify()


def test_what_is_not_a_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match="no bundle named"):
        Bundle.open("full-of-hope")
    with pytest.raises(BundleError, match=r"without bundle\.json"):
        Bundle.open(tmp_path)
    (tmp_path / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="readable"):
        Bundle.open(tmp_path)
    (tmp_path / "bundle.json").write_text("[]")
    with pytest.raises(BundleError, match="an object"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": 2}, "expected format 1 in .*, got 2"),
        ({"format": True}, "expected format 1 in .*, got True"),
        ({"colour": "red"}, "unknown: colour"),
        ({"fps": "25"}, "expected a int for fps"),
        ({"fps": True}, "expected a int for fps"),
        ({"parts": {"motion": {"model": "x"}}}, "missing: config, files, sha256"),
        ({"parts": {"m": {"model": "x", "config": {}, "files": {"weights": "m.pkl"}, "sha256": {}}}}, "got 'm.pkl'"),
        ({"parts": {"m": {"model": "x", "config": {}, "files": {"onnx": "../m.onnx"}, "sha256": {}}}}, "plain file name"),
        ({"parts": {"m": {"model": "x", "config": {}, "files": {"onnx": "m.pt"}, "sha256": {}}}}, r"or \.onnx, got"),
        ({"parts": {"m": {"model": "x", "config": {}, "files": {"onnx": "m.onnx"}, "sha256": {}}}}, "SHA-256 for every file"),
        ({"parts": {"m": {"model": "x", "config": {}, "files": {"onnx": "m.onnx"}, "sha256": {"onnx": 5}}}}, "a str for"),
    ],
)
def test_a_damaged_description_is_refused(folder, fields, message):
    change(folder, **fields)
    with pytest.raises(BundleError, match=message):
        Bundle.open(folder)


def test_a_description_nested_beyond_measure_is_refused(folder):
    (folder / "bundle.json").write_text("[" * 100_000)
    with pytest.raises(BundleError, match=r"expected a readable bundle\.json"):
        Bundle.open(folder)


def test_a_missing_part_or_kind_names_what_there_is(folder):
    bundle = Bundle.open(folder)
    with pytest.raises(BundleError, match="got motion"):
        bundle.part("encoder")
    change(folder, parts={"motion": {"model": "x", "config": {}, "files": {}, "sha256": {}}})
    with pytest.raises(BundleError, match="got none"):
        Bundle.open(folder).part("motion").file("onnx")


def test_configs_become_dataclasses_and_unknown_keys_are_errors(folder):
    @dataclass(frozen=True)
    class Config:
        width: int
        sizes: tuple[int, ...]
        depth: int = 2

    values = Bundle.open(folder).part("motion").config
    assert read_config(Config, values, "motion") == Config(8, (1, 2))
    with pytest.raises(BundleError, match="unknown: height"):
        read_config(Config, {**values, "height": 1}, "motion")
    for wrong in ({"width": True}, {"width": 8.5}, {"sizes": 3}, {"sizes": [1, False]}):
        with pytest.raises(BundleError, match=r"motion: expected (width|sizes) of a Config as"):
            read_config(Config, {**values, **wrong}, "motion")
    with pytest.raises(BundleError, match="missing: sizes"):
        read_config(Config, {"width": 8}, "motion")


def test_the_shipped_configs_are_those_of_the_models():
    pytest.importorskip("torch")
    from ditto.lite.networks.motion_diffusion import MotionDiffusionConfig
    from ditto.lite.networks.speech_encoder import SpeechEncoderConfig

    for name, kind in (("encoder", SpeechEncoderConfig), ("motion", MotionDiffusionConfig)):
        assert read_config(kind, Bundle.open("lite").part(name).config, name) == kind()


def test_the_seal_command_prints_what_it_wrote(folder):
    (folder / "motion.onnx").write_bytes(b"trained again")
    command = [sys.executable, "-m", "ditto.bundle", "seal", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "motion.onnx" in done.stdout
    Bundle.open(folder).verify()


def test_sealing_prints_every_name_and_says_in_a_line_what_is_wrong(folder, tmp_path):
    described = json.loads((folder / "bundle.json").read_text())
    described["parts"]["motion"]["files"]["onnx"] = "netzwerk-ü.onnx"
    (folder / "motion.onnx").rename(folder / "netzwerk-ü.onnx")
    (folder / "bundle.json").write_text(json.dumps(described))

    def seal_in_a_process(place):
        command = [sys.executable, "-m", "ditto.bundle", "seal", str(place)]
        return subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True)

    done = seal_in_a_process(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "netzwerk-\\xfc.onnx" in done.stdout
    done = seal_in_a_process(tmp_path / "nowhere")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith("ditto: BundleError: ") and "cannot be sealed" in done.stderr


def test_a_network_written_again_with_the_same_bits_keeps_its_identity(folder, monkeypatch):
    before = Bundle.open(folder)
    (folder / "motion.onnx").write_bytes(b"the same, but faster")
    reseal(folder)
    now = Bundle.open(folder)
    assert now.id != before.id and now.part("motion").identity("onnx") == now.part("motion").sha256["onnx"]
    monkeypatch.setitem(SAME_BITS, now.part("motion").sha256["onnx"], before.part("motion").sha256["onnx"])
    assert now.id == before.id and now.part("motion").identity("onnx") == before.part("motion").sha256["onnx"]
    now.verify()  # of the file that is there
    with pytest.raises(BundleError, match="expected file 'other' in part 'motion'"):
        now.part("motion").identity("other")


def test_every_network_that_replaces_another_is_shipped():
    parts = [part for name in shipped_bundles() for part in Bundle.open(name).parts.values()]
    assert SAME_BITS.keys() <= {sha256 for part in parts for sha256 in part.sha256.values()}


def test_exporters_reseal_a_bundle_and_leave_other_folders_alone(folder, tmp_path_factory):
    (folder / "motion.onnx").write_bytes(b"exported again")
    reseal(folder)
    Bundle.open(folder).verify()
    other = tmp_path_factory.mktemp("other")
    reseal(other)
    assert list(other.iterdir()) == []


def test_sealing_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(BundleError, match="cannot be sealed"):
        seal(tmp_path)


def test_shipped_networks_stay_in_single_precision():
    """ONNX Runtime before 1.24, the newest for Python 3.10, has no Cos and Sin in double precision."""
    onnx = pytest.importorskip("onnx", reason="needs onnx to read the networks")
    for path in sorted(SHIPPED.glob("*/*.onnx")):
        graph = onnx.load(str(path)).graph
        tensors = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.HasField("t"))]
        assert not [t.name for t in tensors if t.data_type == onnx.TensorProto.DOUBLE], path.name
        casts = [a.i for node in graph.node if node.op_type == "Cast" for a in node.attribute if a.name == "to"]
        assert onnx.TensorProto.DOUBLE not in casts, path.name


@pytest.fixture
def user_folder(tmp_path_factory, monkeypatch):
    mine = tmp_path_factory.mktemp("mine")
    monkeypatch.setenv("DITTO_BUNDLES", str(mine))
    return mine


def test_a_user_s_bundle_is_found_by_name_and_does_not_hide_a_shipped_one(folder, user_folder):
    for name in ("tiny", "lite"):
        shutil.copytree(folder, user_folder / name)
    assert Bundle.open("tiny").path == user_folder / "tiny"
    assert Bundle.open("lite").path == SHIPPED / "lite"
    assert known_bundles() == ["lite", "tiny"]
    with pytest.raises(BundleError, match="no bundle named 'other'; available: lite, tiny"):
        Bundle.open("other")


def test_the_full_bundle_says_how_to_get_it(user_folder):
    with pytest.raises(BundleError, match="`ditto bundle pull full` gets the published one"):
        Bundle.open("full")


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/ditto/bundles"),
        ("linux", {"HOME": "/home/me"}, "/home/me/.local/share/ditto/bundles"),
        ("darwin", {"HOME": "/home/me"}, "/home/me/Library/Application Support/ditto/bundles"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/ditto/bundles"),
        ("linux", {"DITTO_BUNDLES": "/mine", "XDG_DATA_HOME": "/data"}, "/mine"),
    ],
)
def test_a_user_s_bundles_are_where_the_system_keeps_such_things(monkeypatch, platform, environment, expected):
    for name in ("DITTO_BUNDLES", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", platform)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert user_bundles().as_posix() == expected


def test_a_user_without_a_home_has_the_shipped_bundles(monkeypatch):
    for name in ("DITTO_BUNDLES", "XDG_DATA_HOME", "LOCALAPPDATA", "DITTO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    assert known_bundles() == shipped_bundles()
    assert Bundle.open("lite").name == "lite"
    with pytest.raises(NoBundleError, match="no bundle named"):
        Bundle.open("full")
    with pytest.raises(InputError, match=r"expected a home folder .* set DITTO_BUNDLES"):
        user_bundles()
    with pytest.raises(EngineError, match=r"expected a home folder .* set DITTO_CACHE"):
        cache_folder()


def test_every_file_is_examined_and_the_wrong_ones_are_reported(tmp_path):
    copy = Path(shutil.copytree(SHIPPED / "lite", tmp_path / "lite"))
    assert all(check.ok for check in examine(Bundle.open(copy)))
    (copy / "motion.onnx").write_bytes(b"another network")
    (copy / "renderer.safetensors").unlink()
    (copy / "encoder.safetensors").write_bytes(b"\x08" + b"\0" * 7 + b"{}      more")
    seal_anew = json.loads((copy / "bundle.json").read_text())
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    (copy / "motion.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    for part in ("encoder", "motion"):
        file = copy / seal_anew["parts"][part]["files"]["weights"]
        seal_anew["parts"][part]["sha256"]["weights"] = digest(file)
    (copy / "bundle.json").write_text(json.dumps(seal_anew))
    with suppress(ImportError):  # gives NumPy the type bfloat16, in a program that has it: the answer is the same
        import ml_dtypes  # noqa: F401
    wrong = {check.file: check.detail for check in examine(Bundle.open(copy)) if not check.ok}
    assert wrong.keys() == {"motion.onnx", "renderer.safetensors", "encoder.safetensors", "motion.safetensors"}
    assert "expected a readable safetensors file" in wrong["motion.safetensors"]
    assert "expected SHA-256" in wrong["motion.onnx"]
    assert "no such file" in wrong["renderer.safetensors"]
    assert "expected a readable safetensors file" in wrong["encoder.safetensors"]


def test_doctor_names_a_user_s_bundles_without_reading_them(folder, user_folder):
    from ditto.app.doctor import examine as doctor

    shutil.copytree(folder, user_folder / "tiny")
    (user_folder / "tiny" / "motion.onnx").unlink()
    check = next(check for check in doctor() if check.name == "bundle tiny")
    assert check.ok
    assert "`ditto bundle verify tiny` reads all of it" in check.detail
