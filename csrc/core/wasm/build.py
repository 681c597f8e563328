"""Builds the core for browsers: core.wasm and, in the form of sha256sum, core.wasm.sha256, beside the page of `ditto serve`.

`make wasm` calls it. The compiler is Zig's clang with its C and C++ libraries for WASI, from PyPI: `pip install ziglang`.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CSRC = ROOT / "csrc"
TARGET = ROOT / "ditto" / "live" / "server" / "page" / "core.wasm"
FLAGS = (
    "-target", "wasm32-wasi", "-mexec-model=reactor", "-std=c++17", "-O3", "-msimd128", "-mbulk-memory",
    "-mnontrapping-fptoint", "-fno-exceptions", "-fno-rtti", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd",
    "-fno-threadsafe-statics", "-g0", "-Wl,--strip-all", "-Wl,-z,stack-size=1048576",
)  # fmt: skip


def build(target: Path = TARGET) -> None:
    """Compile all of the core into one module; the files appear whole."""
    folders = (CSRC / "core", CSRC / "core" / "wasm", CSRC / "cpu")
    sources = sorted(str(file.relative_to(ROOT)) for folder in folders for file in folder.glob("*.cpp"))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".core-") as folder:
        made, digest = Path(folder) / "core.wasm", Path(folder) / "sha256"
        command = [sys.executable, "-m", "ziglang", "c++", *FLAGS, "-Icsrc", *sources, "-o", str(made)]
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode:
            sys.exit("expected Zig to build core.wasm, got the error above; is it installed (pip install ziglang)?")
        digest.write_text(f"{hashlib.sha256(made.read_bytes()).hexdigest()}  {target.name}\n")
        made.chmod(0o644)
        os.replace(made, target)
        os.replace(digest, target.with_name(target.name + ".sha256"))
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    build()
