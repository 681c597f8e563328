"""Damaged blobs give an error or a picture, never a bad read: the core under AddressSanitizer and UBSan."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn_portrait

import ditto
from ditto.lite.rendering.blob import portrait_blob
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.lite.rendering.numbers import model_numbers, portrait_numbers

CSRC = Path(__file__).parents[1] / "csrc"
SECONDS = os.environ.get("DITTO_FUZZ_SECONDS", "5")
SEED = os.environ.get("DITTO_FUZZ_SEED", "1")
# float-cast-overflow is no part of "undefined": a float that no int can hold is the way to a wild index.
SANITIZERS = "-fsanitize=address,undefined,float-cast-overflow"


def compiler() -> str:
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        if name and (found := shutil.which(name)):
            return found
    pytest.skip("no C++ compiler")


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory):
    """The driver csrc/core/fuzz/fuzz.cpp, built with sanitizers."""
    folder = tmp_path_factory.mktemp("fuzz")
    cxx = compiler()
    probe = folder / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")
    built = subprocess.run([cxx, SANITIZERS, str(probe), "-o", str(folder / "probe")], capture_output=True, check=False)
    if built.returncode or subprocess.run([str(folder / "probe")], capture_output=True, check=False).returncode:
        pytest.skip(f"{cxx} has no AddressSanitizer here")
    sources = [*CSRC.glob("core/fuzz/*.cpp"), *CSRC.glob("core/*.cpp"), *CSRC.glob("cpu/*.cpp")]
    program = folder / "fuzz"
    command = [cxx, "-std=c++17", "-O1", SANITIZERS, "-fno-sanitize-recover=all", f"-I{CSRC}", *map(str, sources)]
    done = subprocess.run([*command, "-o", str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return program


@pytest.fixture(scope="module")
def prepared():
    """Renderer, portrait and appearance, with eyes that move: the drawn ones show too little iris for it."""
    renderer, portrait = MeshRenderer(Path(ditto.__file__).parent / "bundles" / "lite"), drawn_portrait(128)
    appearance = renderer.prepare(portrait)
    eyes = type(appearance.eyes)(*(layer._replace(has_iris=1.0) for layer in appearance.eyes))
    return renderer, portrait, appearance._replace(eyes=eyes)


def expect_no_bad_read(fuzz, *arguments):
    done = subprocess.run([str(fuzz), *map(str, arguments), SECONDS, SEED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    words = done.stdout.split()
    opened, refused, drawn = int(words[1]), int(words[3]), int(words[5])
    assert opened > 3 and refused > 3 and drawn > 3, done.stdout  # both ways were tried


def test_damaged_blobs_never_lead_to_a_bad_read(fuzz, prepared, tmp_path):
    renderer, portrait, appearance = prepared
    blob = tmp_path / "portrait.blob"
    blob.write_bytes(portrait_blob(renderer.learned, portrait, appearance, renderer.paste_back(portrait)))
    expect_no_bad_read(fuzz, blob)


def test_damaged_packed_portraits_never_lead_to_a_bad_read(fuzz, prepared, tmp_path):
    renderer, portrait, appearance = prepared
    paste_back = renderer.paste_back(portrait)
    paste_back.detail = np.zeros((1, 1, 3), np.int16)  # the core is to work out the picture's detail
    (tmp_path / "model").write_bytes(model_numbers(renderer.learned))
    (tmp_path / "numbers").write_bytes(portrait_numbers(portrait, appearance, paste_back))
    expect_no_bad_read(fuzz, tmp_path / "model", tmp_path / "numbers", len(portrait.crop))
