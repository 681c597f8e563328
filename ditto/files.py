"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def partial_file(file: Path) -> Path:
    """A new empty file beside `file`, to be written and then given its name by `complete_file`. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.stem[:32]}.", suffix=".part", dir=file.parent)
    os.close(descriptor)
    return Path(name)


def complete_file(part: Path, file: Path) -> None:
    """Give a written file its name, once it is on the disk, with the permissions a new file has. Raises OSError."""
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    umask = os.umask(0)  # the system tells it only while changing it
    os.umask(umask)
    os.chmod(part, 0o666 & ~umask)  # mkstemp gives 0600
    os.replace(part, file)
