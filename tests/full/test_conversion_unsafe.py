"""Published files that are damaged, or malicious: an error in words, and no code in them runs."""

import os
import pickle
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="reading checkpoints needs torch (pip install ditto[full])")

from checkpoints import SETTINGS, publish  # noqa: E402
from test_conversion import DECODER, OFFLINE, change, export, refused  # noqa: E402

from ditto.errors import BundleError  # noqa: E402
from ditto.full.conversion.checkpoints import StoredTensor, read_safetensors, read_torch  # noqa: E402
from ditto.full.conversion.onnx_weights import read_hubert_onnx  # noqa: E402
from ditto.full.conversion.settings import read_settings  # noqa: E402
from ditto.full.networks.weights import specs_of  # noqa: E402


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The tiny published folder, never changed, and the networks in it."""
    folder = tmp_path_factory.mktemp("published")
    return SimpleNamespace(folder=folder, networks=publish(folder))


@pytest.fixture
def folder(published, tmp_path):
    """A copy of it to spoil."""
    return Path(shutil.copytree(published.folder, tmp_path / "checkpoints"))


def test_names_that_become_one_are_refused(folder):
    change(folder / DECODER, lambda state: state.update({"module.fc.bias": state["fc.bias"]}))
    refused(folder, "decoder.pth: expected fc.bias once")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "settings", "graph"])
def test_damage_anywhere_is_told_or_harmless(published, tmp_path, kind):
    """Cut off at random, or with random bytes: the reader gives what is there or a BundleError, nothing else."""
    from safetensors.torch import save_file

    file = tmp_path / ("settings.pkl" if kind == "settings" else kind)
    state, expected = published.networks["stitching"].state_dict(), specs_of(published.networks["encoder"])
    readers = {
        "safetensors": read_safetensors,
        "graph": partial(read_hubert_onnx, expected=expected),
        "settings": read_settings,
    }
    if kind == "settings":
        shutil.copy(published.folder / OFFLINE, file)
    elif kind == "safetensors":
        save_file(state, file)
    elif kind == "graph":
        pytest.importorskip("onnx", reason="exporting a graph needs onnx")
        export(published.networks["encoder"], file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=kind == "zip")
    data, random, errors = file.read_bytes(), np.random.default_rng(0), 0
    for _ in range(60):
        spoilt = bytearray(data[: random.integers(len(data))] if random.random() < 0.3 else data)
        for place in random.integers(min(len(spoilt), 4000), size=random.integers(1, 20)) if spoilt else ():
            spoilt[place] = random.integers(256)
        file.write_bytes(spoilt)
        try:
            for tensor in readers.get(kind, read_torch)(file).values():
                if isinstance(tensor, StoredTensor):
                    tensor.read()
        except BundleError as error:
            assert str(file) in str(error)
            errors += 1
    assert errors > 10


LOOP = {}
LOOP["model"] = LOOP


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "expected a dict of tensors, got Tensor"),
        ({}, "got an empty dict"),
        ({"epoch": 3}, "got epoch (int)"),
        ([1, 2], "got list"),
        (LOOP, "got model (dict)"),
        ({"fc.weight": torch.eye(3).to_sparse()}, "got fc.weight (a sparse Tensor)"),
        ({"fc.weight": torch.zeros(3, device="meta")}, "got fc.weight (a Tensor without numbers)"),
    ],
)
def test_a_torch_file_of_something_else_is_refused(folder, content, message):
    torch.save(content, folder / DECODER)
    refused(folder, "decoder.pth", message)


class Evil:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch evil",)


def test_an_unsafe_checkpoint_is_not_run_and_its_wish_is_named(folder, monkeypatch):
    monkeypatch.chdir(folder)
    torch.save({"fc.weight": torch.zeros(3), "extra": Evil()}, folder / DECODER)
    refused(
        folder,
        "decoder.pth: expected tensors",
        "a pickle that calls posix.system" if os.name == "posix" else "a pickle that calls",
    )
    torch.save(Evil(), folder / DECODER, _use_new_zipfile_serialization=False)
    refused(folder, "decoder.pth: expected tensors", "a pickle that calls")
    (folder / DECODER).write_bytes(pickle.dumps(Evil()))
    refused(folder, "decoder.pth")
    assert not (folder / "evil").exists()


def test_unsafe_settings_are_not_run_and_their_wish_is_named(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / OFFLINE).write_bytes(pickle.dumps({"default_kwargs": {"emo": Evil()}}))
    refused(folder, "v0.4_hubert_cfg_pytorch.pkl", "it calls posix.system" if os.name == "posix" else "it calls")
    (folder / OFFLINE).write_bytes(pickle.dumps({"default_kwargs": {"emo": pytest.raises}}))
    refused(folder, "it calls _pytest.raises.raises")
    (folder / OFFLINE).write_bytes(b"c_codecs\nencode\n(Vx\nVhex\ntR.")
    refused(folder, "expected bytes in latin1, got 'hex'")
    assert not (folder / "evil").exists()


class Made:
    """A pickle that calls something, and gives a state to what comes out."""

    def __init__(self, *how):
        self.how = how

    def __reduce__(self):
        return self.how


BYTES = b"A" * 32  # eight of them are an address to who believes they are an object
ARRAY = np.zeros(0).__reduce__()[:2]  # how a pickle begins one
FIELDS = (3, "|", None, ("x",), {"x": (np.dtype("O"), 0)}, 8, 1, 0)
OBJECTS = (3, "|", None, None, None, 8, 1, 0)
TOWER = {}
TOWER["inside"] = TOWER


@pytest.mark.parametrize(
    "value",
    [
        Made(np.ndarray, ((4,), np.dtype("O"), BYTES)),
        Made(np.ndarray, ((4,), Made(np.dtype, ("V8",), FIELDS), BYTES)),
        Made(*ARRAY, (1, (4,), Made(np.dtype, ("O8",), OBJECTS), False, BYTES)),
        Made(*ARRAY, (1, (2**40,), np.dtype("f4"), False, BYTES)),
        Made(np.dtype, ("f4",), (3, "?", None, None, None, -1, -1, 0)),
        TOWER,
    ],
    ids=["objects", "fields", "state", "shape", "order", "tower"],
)  # fmt: skip
def test_arrays_in_settings_are_numbers_that_are_there(tmp_path, value):
    """Each of the first ended the process, or read memory that was not its own, when NumPy made the array."""
    file = tmp_path / "settings.pkl"
    file.write_bytes(pickle.dumps({"default_kwargs": {"emo": value}}))
    with pytest.raises(BundleError, match="expected plain values and arrays"):
        read_settings(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Ran out of input"),
        (pickle.dumps(SETTINGS)[:200], "expected plain values and arrays"),
        (pickle.dumps({"base_cfg": {}}), "expected a dict with 'default_kwargs', got keys base_cfg"),
        (pickle.dumps([1]), "expected a dict with 'default_kwargs', got list"),
        (
            pickle.dumps({"default_kwargs": {"emo": b"x"}}),
            "expected offline.emo to be a plain value or an array of numbers, got bytes",
        ),
        (pickle.dumps({"default_kwargs": {"emo": np.array(["x"])}}), "expected arrays of numbers, got 'U1'"),
    ],
)
def test_settings_of_another_form_are_refused(folder, content, message):
    (folder / OFFLINE).write_bytes(content)
    refused(folder, "v0.4_hubert_cfg_pytorch.pkl", message)
