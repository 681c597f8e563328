"""Native code and package layout; everything else stands in pyproject.toml."""

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
    cmdclass={"build_ext": build_ext},
)
