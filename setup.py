"""Native code and package layout; everything else stands in pyproject.toml."""

import os
import shutil
import sys
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import find_packages, setup

sources = sorted(str(p) for folder in ("csrc", "csrc/core", "csrc/cpu") for p in Path(folder).glob("*.cpp"))
headers = sorted(str(p) for p in Path("csrc").rglob("*.h"))
if sys.platform == "win32":
    flags = ["/O2", "/openmp:experimental"]
else:
    # Never -ffast-math: linked in, its start-up code changes denormals for the whole process.
    flags = ["-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-g0"]

# The GPU kernels are a library of their own, ditto/_cuda.so, built when DITTO_CUDA=1. It holds code for these architectures,
# and for later GPUs what their driver compiles. -fmad=false: the same bits as the kernel bodies give on a CPU.
ARCHITECTURES = ("80", "90", "100")
NVCC_FLAGS = ["-O3", "-std=c++17", "-fmad=false"]


class BuildNative(build_ext):
    """Builds the extension, and the GPU kernels where they are asked for."""

    def run(self):
        super().run()
        if os.environ.get("DITTO_CUDA", "0") == "0":
            return
        nvcc = os.environ.get("NVCC") or shutil.which("nvcc")
        if nvcc is None:
            raise SystemExit("expected nvcc with DITTO_CUDA=1, got none; install the CUDA toolkit, or set NVCC to its path")
        target = Path("ditto") if self.inplace else Path(self.build_lib) / "ditto"
        target.mkdir(parents=True, exist_ok=True)
        codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
        codes.append(f"-gencode=arch=compute_{ARCHITECTURES[-1]},code=compute_{ARCHITECTURES[-1]}")
        part = target / "_cuda.so.part"
        output = ["-shared", "-Xcompiler", "-fPIC", "-o", str(part)]
        self.spawn([nvcc, *NVCC_FLAGS, *codes, *output, "csrc/cuda/kernels.cu"])
        os.replace(part, target / "_cuda.so")


# ditto/engines, ditto/controls and ditto/live/server/client are symlinks to folders at the top: type checkers and a plain
# checkout see them, and the build takes each package from its real place.
packages = find_packages(include=["ditto", "ditto.*"], exclude=["ditto.engines*", "ditto.controls*"])
places = {"ditto.engines": "engines", "ditto.controls": "controls", "ditto.live.server.client": "clients/web"}
packages += places
ParallelCompile(default=0).install()
setup(
    packages=sorted(packages),
    package_dir=places,
    ext_modules=[
        Pybind11Extension(
            "ditto._native", sources, include_dirs=["csrc"], depends=headers, cxx_std=17, extra_compile_args=flags
        )
    ],
    cmdclass={"build_ext": BuildNative},
)
