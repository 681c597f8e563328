"""What engines make once and keep: exported networks and TensorRT plans, in files named by what they depend on."""

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
from ditto.media.files import complete_file, partial_file

if TYPE_CHECKING:  # the base install has no torch
    from torch import nn

log = logging.getLogger(__name__)
HEADER_LIMIT = 1 << 16  # bytes


def cache_folder() -> Path:
    """Where engines keep what they make: $DITTO_CACHE, or the platform's folder for caches.

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
        raise EngineError("expected a home folder to keep engines in, got a user without one; set DITTO_CACHE") from None


def digest_weights(network: nn.Module) -> str:
    """SHA-256 over the names, shapes and values of a network's weights, its class, its configuration, and the plain values
    in its modules, which an export makes constants of: a schedule, the strength of guidance."""
    import torch

    sha256 = hashlib.sha256(f"{type(network).__qualname__} {getattr(network, 'config', '')}".encode())
    for name, module in network.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, (bool, int, float, str, tuple))}
        plain.pop("training")  # every engine evaluates
        sha256.update(f"{name} {sorted(plain.items())}".encode())
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        sha256.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        sha256.update(value.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()


def file_name(stem: str, depends: Mapping[str, str], suffix: str) -> str:
    """A name that is another one as soon as anything differs that the content depends on."""
    text = json.dumps(dict(depends), sort_keys=True)
    return f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}{suffix}"


def build_once(file: Path, build: Callable[[Path], None], usable: Callable[[Path], bool] = Path.is_file) -> Path:
    """`file`, built first unless it is usable. Of several processes one builds, the others wait for it.

    Args:
        file: what is wanted.
        build: writes it to the path it is given, beside `file`; it appears under its name when it is complete.
        usable: whether what lies there will do.

    Raises:
        EngineError: the disk is full or the folder cannot be written; nothing half-written is left.
    """
    from filelock import FileLock  # torch brings it

    part: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if usable(file):
                return file
            log.info("building %s", file)
            part = partial_file(file)
            build(part)
            complete_file(part, file)
            part = None
    except OSError as error:
        raise EngineError(explain(error, file.parent)) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return file


def explain(error: OSError, folder: Path) -> str:
    """What to do about a folder that cannot be written."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        there = next(f for f in (folder, *folder.parents) if f.exists())
        reason = f"{reason} ({shutil.disk_usage(there).free / 2**20:.0f} MiB free)"
    return f"a folder to keep engines in is wanted, {folder} will not do: {reason}; free space, or set DITTO_CACHE"


def write_bytes(file: Path, content: bytes) -> None:
    """For `build_once`: what is to be kept is there already."""
    file.write_bytes(content)


def write_plan(file: Path, depends: Mapping[str, str], plan: bytes) -> None:
    """A plan behind one line that says what it depends on and what it must be."""
    header = {"depends": dict(depends), "sha256": hashlib.sha256(plan).hexdigest()}
    file.write_bytes(json.dumps(header, sort_keys=True).encode() + b"\n" + plan)


def read_plan(file: Path, depends: Mapping[str, str]) -> bytes:
    """A plan that was made for just this.

    Raises:
        EngineError: it was made for something else (another GPU, version, ...; the message names what), or is damaged.
    """
    try:
        with file.open("rb") as stream:
            header = json.loads(stream.readline(HEADER_LIMIT))
            plan = stream.read()
        made_for, sha256 = dict(header["depends"]), header["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{file} is no plan of ditto's: {error}; delete it, it will be built again") from error
    differing = [key for key in {**depends, **made_for} if depends.get(key) != made_for.get(key)]
    if differing:
        what = "; ".join(f"{key} {depends.get(key)} is wanted, it has {made_for.get(key)}" for key in sorted(differing))
        raise EngineError(f"{file} was made for something else: {what}; build it again from the network")
    if hashlib.sha256(plan).hexdigest() != sha256:
        raise EngineError(f"{file} is damaged: its plan is not the one its first line tells of; delete it")
    return plan
