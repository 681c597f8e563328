"""Cache of exported networks and TensorRT plans: a file's name is a hash of everything that its content depends on."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ditto.errors import EngineError
from ditto.media.files import whole_file

if TYPE_CHECKING:  # the base install has no torch
    from torch import nn

log = logging.getLogger(__name__)
HEADER_LIMIT = 1 << 16  # bytes


def cache_folder() -> Path:
    """The cache folder: $DITTO_CACHE, or the platform's folder for caches.

    Raises:
        EngineError: the user has no home folder.
    """
    if given := os.environ.get("DITTO_CACHE"):
        return Path(given)
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "ditto"
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "ditto" / "cache"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ditto"
    except RuntimeError:
        raise EngineError("expected a home folder for the cache, got a user without one; set DITTO_CACHE") from None


def digest_weights(network: nn.Module) -> str:
    """SHA-256 of a network: names, shapes and values of its weights, its class, its configuration, and the plain values
    in its modules, which become constants of an export: a schedule, the strength of guidance."""
    import torch

    sha256 = hashlib.sha256(f"{type(network).__qualname__} {getattr(network, 'config', '')}".encode())
    for name, module in network.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, (bool, int, float, str, tuple))}
        plain.pop("training")  # engines always run in evaluation mode
        sha256.update(f"{name} {sorted(plain.items())}".encode())
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        sha256.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        sha256.update(value.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()


def file_name(stem: str, depends: Mapping[str, str], suffix: str) -> str:
    """A file name with a hash of what the content depends on."""
    text = json.dumps(dict(depends), sort_keys=True)
    return f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}{suffix}"


def build_once(file: Path, build: Callable[[Path], None], usable: Callable[[Path], bool] = Path.is_file) -> Path:
    """`file`; builds it first unless it is usable. Of several processes one builds it while the others wait.

    Args:
        file: the path.
        build: writes the content to a temporary path, which becomes `file` when it is complete.
        usable: whether an existing file can be used.

    Raises:
        EngineError: the disk is full or the folder cannot be written. No partial file is left.
    """
    from filelock import FileLock  # torch brings it

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if usable(file):
                return file
            log.info("building %s", file)
            with whole_file(file) as part:
                build(part)
    except OSError as error:
        raise EngineError(explain(error, file.parent)) from error
    return file


def explain(error: OSError, folder: Path) -> str:
    """The message for a cache folder that cannot be written."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        there = next(f for f in (folder, *folder.parents) if f.exists())
        reason = f"{reason} ({shutil.disk_usage(there).free / 2**20:.0f} MiB free)"
    return f"expected a writable cache folder, got {folder}: {reason}; free space, or set DITTO_CACHE to another folder"


def write_bytes(file: Path, content: bytes) -> None:
    """Write content that exists already: a `build` for `build_once`."""
    file.write_bytes(content)


def write_plan(file: Path, depends: Mapping[str, str], plan: bytes) -> None:
    """Write a plan. The first line of the file says what it depends on, and its SHA-256."""
    header = {"depends": dict(depends), "sha256": hashlib.sha256(plan).hexdigest()}
    file.write_bytes(json.dumps(header, sort_keys=True).encode() + b"\n" + plan)


def read_plan(file: Path, depends: Mapping[str, str]) -> bytes:
    """Read a plan that was made for exactly these dependencies.

    Raises:
        EngineError: it was made for another GPU, version, ... (the message names the differences), or is damaged.
    """
    try:
        with file.open("rb") as stream:
            header = json.loads(stream.readline(HEADER_LIMIT))
            plan = stream.read()
        made_for, sha256 = dict(header["depends"]), header["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{file}: expected a plan written by ditto, got: {error}; delete it") from error
    differing = [key for key in {**depends, **made_for} if depends.get(key) != made_for.get(key)]
    if differing:
        what = "; ".join(f"expected {key} {depends.get(key)}, got {made_for.get(key)}" for key in sorted(differing))
        raise EngineError(f"{file} is a plan for another setup: {what}; build it again from the network")
    if hashlib.sha256(plan).hexdigest() != sha256:
        raise EngineError(f"{file}: expected the SHA-256 of its first line, got another; delete it")
    return plan
