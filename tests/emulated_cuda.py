"""The GPU kernels compiled for the CPU: csrc/cuda/kernels.cu itself, with the threads of a block emulated."""

import shutil
import subprocess
import sys
from pathlib import Path

from ditto.errors import EngineError
from ditto.ops.neural import open_library

CUDA = Path(__file__).parents[1] / "csrc" / "cuda"
FLAGS = ["-x", "c++", "-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Werror"]


def compiler():
    """A C++ compiler for `build`; None where there is none, or not Linux."""
    return (shutil.which("g++") or shutil.which("clang++")) if sys.platform == "linux" else None


def build(folder):
    """The kernels as of `ditto.ops.neural.open_library`.

    Raises:
        EngineError: there is no compiler, or not Linux.
    """
    program, file = compiler(), folder / "emulated.so"
    if program is None:
        raise EngineError("expected Linux and a C++ compiler to emulate the GPU kernels, got none; install g++")
    subprocess.run(
        [program, *FLAGS, "-I", str(CUDA / "emulated"), str(CUDA / "kernels.cu"), "-o", str(file)], check=True
    )
    return open_library(file)
