import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "onnxruntime", "cv2", "av", "scipy", "PIL", "matplotlib", "rich", "typer")

EMPTY_MODULE = """
#include <Python.h>
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", nullptr, -1};
PyMODINIT_FUNC PyInit__native() { return PyModule_Create(&module); }
"""


def python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=120).stdout


def test_import_ditto_loads_nothing_heavy():
    loaded = json.loads(python(f"import ditto, sys, json; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"))
    assert loaded == []


def test_the_command_line_starts_without_the_heavy_parts():
    code = (
        "import ditto.app.cli, sys, json; print(json.dumps([m for m in ('torch', 'onnxruntime', 'cv2') if m in sys.modules]))"
    )
    assert json.loads(python(code)) == []


def test_every_public_name_loads():
    import ditto

    for name in ditto.__all__:
        assert getattr(ditto, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ditto.nothing


def test_the_folders_at_the_top_are_the_subpackages():
    import ditto.controls
    import ditto.engines

    for package in (ditto.controls, ditto.engines):
        assert package.__file__ is not None
        assert Path(package.__file__).resolve().is_file()
    if (ROOT / "ditto").is_symlink() or (ROOT / "ditto" / "__init__.py").is_file():
        assert (ROOT / "ditto" / "engines").resolve() == ROOT / "engines"
        assert (ROOT / "ditto" / "controls").resolve() == ROOT / "controls"


def test_the_versions_agree():
    import ditto

    declared = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert declared is not None
    assert declared[1] == ditto.__version__
    assert json.loads((ROOT / "clients" / "web" / "package.json").read_text())["version"] == ditto.__version__


def test_the_base_install_has_no_torch_and_nothing_that_wants_libgl():
    required = (ROOT / "requirements" / "base.txt").read_text().split()
    names = {re.split(r"[<>=!~]", line)[0] for line in required}
    assert not names & {"torch", "opencv-python", "opencv-contrib-python", "mediapipe"}  # mediapipe brings the third
    assert {"opencv-python-headless", "onnxruntime"} <= names


def test_no_extra_installs_a_second_onnx_runtime_and_all_exclude_the_slow_torch():
    extras = {}
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        if found := re.match(r"(\w+) = (\[.*torch.*\])$", line):
            extras[found[1]] = json.loads(found[2])
    assert {"full", "gpu", "tensorrt"} <= extras.keys()
    assert not [name for name, packages in extras.items() for package in packages if package.startswith("onnxruntime")]
    for name in ("full", "gpu", "tensorrt"):
        assert "torch>=2.6,!=2.9.0,!=2.9.1" in extras[name]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the sdist of a copy of the tracked files (a build in place would leave things behind)."""
    pytest.importorskip("pybind11")
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("build")
    copy = folder / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-zco", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout: nothing says which files belong to the project")
    for name in filter(None, tracked.stdout.split("\0")):
        source, target = ROOT / name, copy / name
        if not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        else:
            target.write_bytes(source.read_bytes())
    # An empty module instead of the kernels: what is asked here is the layout, not the compiler.
    for file in (copy / "csrc").rglob("*.cpp"):
        file.unlink()
    (copy / "csrc" / "bindings.cpp").write_text(EMPTY_MODULE)
    for hook in ("build_sdist", "build_wheel"):  # a process each, as pip does it
        command = [sys.executable, "-c", f"from setuptools import build_meta; build_meta.{hook}({str(folder)!r})"]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


def modules(folder: str) -> set[str]:
    """Paths of the Python files under a folder of the checkout."""
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py")}


def test_the_wheel_holds_every_module_and_weight(built):
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert modules("ditto") | {f"ditto/{name}" for name in modules("engines") | modules("controls")} <= names
    assert "ditto/py.typed" in names
    weights = {f"ditto/bundles/lite/{p.name}" for p in (ROOT / "ditto" / "bundles" / "lite").iterdir()}
    assert weights <= names
    for page in ("ditto/live/server/page", "ditto/editor/page"):
        built_here = ("core.wasm", "core.wasm.sha256")  # by `make wasm`; a copy of the tracked files has none
        assert {f"{page}/{file.name}" for file in (ROOT / page).iterdir() if file.name not in built_here} <= names
    assert {f"ditto/live/server/client/{file.name}" for file in (ROOT / "clients" / "web").glob("*.js")} <= names
    assert any(re.match(r"ditto/_native.*\.(so|pyd)$", name) for name in names)
    elsewhere = ("tests/", "engines/", "controls/", "clients/", "csrc/", "examples/")
    assert not [name for name in names if name.startswith(elsewhere)]
    assert {Path(name).name for name in names if "licenses/" in name} >= {"LICENSE", "NOTICE"}


def test_the_wheel_imports_away_from_the_checkout(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "import ditto, ditto.engines, ditto.controls, ditto.bundle; print(ditto.engines.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
        if sys.version_info >= (3, 11)
        else [sys.executable, "-c", f"import sys; sys.path[0] = {str(tmp_path)!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert Path(done.stdout.strip()) == tmp_path / "ditto" / "engines" / "__init__.py"


def test_the_sdist_holds_what_a_build_needs(built):
    import tarfile

    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {"setup.py", "pyproject.toml", "csrc/bindings.cpp", "csrc/dispatch.h", "requirements/base.txt", "NOTICE"}
    assert expected | modules("engines") | modules("controls") | modules("benchmarks") | modules("tests") <= names
    assert "ditto/bundles/lite/renderer.safetensors" in names
