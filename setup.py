"""Native code and package layout; everything else stands in pyproject.toml."""

import sys
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import find_packages, setup

sources = sorted(str(p) for folder in ("csrc", "csrc/cpu") for p in Path(folder).glob("*.cpp"))
if sys.platform == "win32":
    flags = ["/O2", "/openmp:experimental"]
else:
    # Never -ffast-math: linked in, its start-up code changes denormals for the whole process.
    flags = ["-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-g0"]

packages = find_packages(include=["ditto", "ditto.*"])
packages += [f"ditto.{top}" for top in ("engines", "controls")]
setup(
    packages=sorted(set(packages)),
    package_dir={"ditto.engines": "engines", "ditto.controls": "controls"},
    ext_modules=[
        Pybind11Extension("ditto._native", sources, include_dirs=["csrc"], cxx_std=17, extra_compile_args=flags)
    ],
    cmdclass={"build_ext": build_ext},
)
