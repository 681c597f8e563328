"""The modules of clients/web in node: the queue and its clock, frames, and the core as WebAssembly against the native one."""

import hashlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn_portrait
from PIL import Image

import ditto
from ditto._native import Core
from ditto.lite.rendering.blob import portrait_blob
from ditto.lite.rendering.core import CoreRenderer
from ditto.motion.motion import MOTION_SIZE

ROOT = Path(__file__).parents[1]
WASM = ROOT / "ditto" / "live" / "server" / "page" / "core.wasm"
FRAMES = 4
NODE = shutil.which("node")


def sections_of(packed: bytes):
    """(name, bytes) of each section (docs/packed.md)."""
    for number in range(struct.unpack_from("<I", packed, 12)[0]):
        name, _, size, _, _, offset = struct.unpack_from("<24sIIIIQ", packed, 32 + 48 * number)
        yield name.rstrip(b"\0").decode(), packed[offset : offset + size]


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
    portrait, renderer = drawn_portrait(256, (2.0, -5.0, 3.0)), CoreRenderer(Path(ditto.__file__).parent / "bundles" / "lite")
    mesh = renderer.mesh
    blob = portrait_blob(mesh.learned, portrait, mesh.prepare(portrait), mesh.paste_back(portrait))
    packed = renderer.pack(portrait)
    sections = dict(sections_of(packed))
    pictures = {name: Image.open(io.BytesIO(sections[name])).convert("RGBA") for name in ("picture", "crop", "plate")}
    motions = np.random.default_rng(1).normal(0.0, 0.02, (FRAMES, MOTION_SIZE)).astype(np.float32)
    motions[:, 1:4] *= 200.0
    (tmp_path / "portrait.blob").write_bytes(blob)
    (tmp_path / "packed").write_bytes(packed)
    (tmp_path / "model.pack").write_bytes(renderer.model_pack)
    (tmp_path / "motions.f32").write_bytes(motions.tobytes())
    for name, picture in pictures.items():
        (tmp_path / f"{name}.rgba").write_bytes(picture.tobytes())
    (tmp_path / "sizes").write_text(json.dumps({name: picture.size[::-1] for name, picture in pictures.items()}))
    rgb = [np.asarray(picture)[..., :3].copy() for picture in pictures.values()]
    unpacked = Core.unpack(renderer.model_pack, zlib.decompress(sections["numbers"]), *rgb)
    for name, core in (("blob", Core(blob)), ("packed", unpacked)):
        (tmp_path / f"{name}.rgb").write_bytes(b"".join(core.picture(motion).tobytes() for motion in motions))
    said = node_tests("core", DITTO_CORE=str(WASM), DITTO_CORE_CASE=str(tmp_path))
    assert "# skipped 0" in said
    print(*re.findall(r"(?:by 1|packed portrait): .*", said))


@pytest.mark.skipif(not WASM.is_file(), reason="core.wasm is not built: make wasm")
def test_the_core_lies_beside_its_hash():
    digest, name = WASM.with_name("core.wasm.sha256").read_text().split()
    assert (digest, name) == (hashlib.sha256(WASM.read_bytes()).hexdigest(), "core.wasm")
