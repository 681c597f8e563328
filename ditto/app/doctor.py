"""The checks of `ditto doctor`: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ditto.bundle import Bundle, Part, known_bundles, shipped_bundles, user_bundles
from ditto.errors import BundleError, DittoError
from ditto.machine import cores

# module, distribution, what it is for, whether lite needs it
MODULES = (
    ("numpy", "numpy", "arrays", True),
    ("cv2", "opencv-python-headless", "images", True),
    ("PIL", "pillow", "reading pictures", True),
    ("onnxruntime", "onnxruntime", "networks", True),
    ("safetensors", "safetensors", "weights", True),
    ("av", "av", "reading audio, writing video", True),
    ("soxr", "soxr", "resampling audio", True),
    ("torch", "torch", "training and the full bundle", False),
    ("fastapi", "fastapi", "ditto serve", False),
    ("uvicorn", "uvicorn", "ditto serve", False),
    ("aiortc", "aiortc", "ditto serve", False),
    ("huggingface_hub", "huggingface_hub", "ditto bundle pull", False),
)
FEATURES = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "amx_tile",
    "neon",
    "asimd",
)


class Check(NamedTuple):
    """The result of one check.

    Attributes:
        ok: whether it passed.
        needed: whether `lite` needs it.
        detail: the version, or the reason of the failure.
        todo: what to do about a failure, or empty.
    """

    name: str
    ok: bool
    needed: bool
    detail: str
    todo: str = ""


def examine() -> list[Check]:
    """Run every check, in the order in which they are printed."""
    checks = [
        Check("ditto", True, True, importlib.import_module("ditto").__version__),
        Check("python", True, True, f"{platform.python_version()} ({sys.executable})"),
        Check("machine", True, True, machine()),
        native_module(),
        *(module(*row) for row in MODULES),
        *onnxruntime_builds(),
        *codecs(),
    ]
    for name in shipped_bundles():
        checks += bundle_parts(name)
    for name in known_bundles()[len(shipped_bundles()) :]:  # may be gigabytes: not read here
        detail = f"{user_bundles() / name} (`ditto bundle verify {name}` reads all of it)"
        checks.append(Check(f"bundle {name}", True, False, detail))
    if "lite" not in shipped_bundles():
        checks.append(Check("bundle lite", False, True, "not in this installation", "reinstall ditto"))
    return checks


def machine() -> str:
    """System, processor, usable cores and the vector instructions that the kernels may use."""
    model, flags = platform.processor() or platform.machine(), set[str]()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
    except OSError:
        pass  # not Linux
    features = " ".join(name for name in FEATURES if name in flags)
    return f"{platform.system()} {platform.machine()}, {model}, {cores()} cores" + (f", {features}" if features else "")


def native_module() -> Check:
    """Whether the compiled kernels load."""
    try:
        native = importlib.import_module("ditto._native")
    except ImportError as error:
        todo = "build it: pip install --no-build-isolation -e . (needs a C++17 compiler)"
        return Check("native kernels", False, True, str(error), todo)
    return Check("native kernels", True, True, Path(native.__file__ or "").name)


def module(name: str, distribution: str, purpose: str, needed: bool) -> Check:
    """Whether a module can be imported: its version, or the reason and what to install."""
    try:
        importlib.import_module(name)
    except Exception as error:  # a broken native library may raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        todo = f"pip install {distribution}"
        if "libGL" in reason:
            todo = (
                "pip uninstall opencv-contrib-python opencv-python, then pip install --force-reinstall " + distribution
            )
        elif not needed:
            reason, todo = "not installed", ""
        return Check(distribution, False, needed, f"{purpose}: {reason}", todo)
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = getattr(sys.modules[name], "__version__", "unknown version")
    return Check(distribution, True, needed, f"{version}: {purpose}")


def onnxruntime_builds() -> Iterator[Check]:
    """A failed check if several builds of ONNX Runtime are installed: they overwrite each other's files."""
    from ditto.engines.onnx_engine import REPLACE, installed_builds

    builds = installed_builds()
    if len(builds) > 1:
        keep = f"for the CPU: pip uninstall -y {' '.join(builds)}, then pip install onnxruntime; for a GPU: {REPLACE}"
        yield Check("ONNX Runtime", False, False, f"{' and '.join(builds)} share one folder; keep one", keep)


def codecs() -> Iterator[Check]:
    """One check for each output format: whether PyAV has its encoders."""
    try:
        import av
    except ImportError:
        return
    from ditto.media.formats import FORMATS, Place

    for format in (row for row in FORMATS if row.place in (Place.FILE, Place.PICTURES)):
        encoders = list(filter(None, (format.encoder, format.audio_codec)))
        missing = []
        for codec in encoders:
            try:
                av.codec.Codec(codec, "w")
            except (av.FFmpegError, ValueError):
                missing.append(codec)
        todo = "pip install --force-reinstall av (its wheels have every encoder)" if missing else ""
        detail = f"lacks {', '.join(missing)}" if missing else ", ".join(encoders)
        yield Check(f"writing {format.name}", not missing, format is FORMATS[0], detail, todo)


def bundle_parts(name: str) -> Iterator[Check]:
    """One check for each part: its files exist, have their SHA-256 and can be opened."""
    needed = name == "lite"
    try:
        bundle = Bundle.open(name)
    except DittoError as error:
        yield Check(f"bundle {name}", False, needed, str(error))
        return
    yield Check(f"bundle {name}", True, needed, f"{bundle.path} ({bundle.licence})")
    for part in bundle.parts.values():
        try:
            part.verify()
            detail = ", ".join(opened(part))
        except DittoError as error:
            yield Check(f"  {part.name}", False, needed, str(error))
        else:
            yield Check(f"  {part.name}", True, needed, f"{part.model}: {detail}")


def opened(part: Part) -> Iterator[str]:
    """Open every file of a part; name and size of each."""
    from safetensors import SafetensorError, safe_open

    from ditto.engines import open_engine

    for path in part.files.values():
        if path.suffix == ".onnx":
            open_engine(path)
        else:
            try:
                with safe_open(path, framework="np"):
                    pass
            except SafetensorError as error:
                raise BundleError(f"expected a safetensors file at {path}, got: {error}; get the bundle again") from error
        yield f"{path.name} {path.stat().st_size / 1e6:.1f} MB"
