"""The modules of clients/web in node: the queue and its clock, frames, and the core as WebAssembly against the native one."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn_portrait

import ditto
from ditto._native import Core
from ditto.lite.rendering.blob import portrait_blob
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.motion.motion import MOTION_SIZE

ROOT = Path(__file__).parents[1]
WASM = ROOT / "ditto" / "live" / "server" / "page" / "core.wasm"
FRAMES = 4
NODE = shutil.which("node")


def node_tests(*names: str, **environment: str) -> str:
    if NODE is None:
        pytest.skip("node is not installed")
    files = [str(ROOT / "clients" / "web" / "test" / f"{name}.test.js") for name in names]
    done = subprocess.run(
        [NODE, "--test", *files], env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


def test_the_queue_its_clock_and_frames():
    files = (ROOT / "clients" / "web" / "test").glob("*.test.js")
    names = sorted(file.name.removesuffix(".test.js") for file in files)
    assert "queue" in names
    said = node_tests(*(name for name in names if name != "core"))
    assert int(re.search(r"# pass (\d+)", said)[1]) > 10


@pytest.mark.skipif(not WASM.is_file(), reason="core.wasm is not built: make wasm")
def test_the_core_in_webassembly_draws_what_the_native_one_draws(tmp_path):
    portrait, renderer = drawn_portrait(256, (2.0, -5.0, 3.0)), MeshRenderer(Path(ditto.__file__).parent / "bundles" / "lite")
    blob = portrait_blob(renderer.learned, portrait, renderer.prepare(portrait), renderer.paste_back(portrait))
    motions = np.random.default_rng(1).normal(0.0, 0.02, (FRAMES, MOTION_SIZE)).astype(np.float32)
    motions[:, 1:4] *= 200.0
    core = Core(blob)
    (tmp_path / "portrait.blob").write_bytes(blob)
    (tmp_path / "motions.f32").write_bytes(motions.tobytes())
    (tmp_path / "pictures.rgb").write_bytes(b"".join(core.frame(motion)[1].tobytes() for motion in motions))
    said = node_tests("core", DITTO_CORE=str(WASM), DITTO_CORE_CASE=str(tmp_path))
    assert "# skipped 0" in said
    print(re.search(r"bytes that differ by 1: .*", said)[0])


@pytest.mark.skipif(not WASM.is_file(), reason="core.wasm is not built: make wasm")
def test_the_core_lies_beside_its_hash():
    digest, name = WASM.with_name("core.wasm.sha256").read_text().split()
    assert (digest, name) == (hashlib.sha256(WASM.read_bytes()).hexdigest(), "core.wasm")
