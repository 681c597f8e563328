"""Pictures of the command line: portraits that come in, sheets that go out."""

from __future__ import annotations

import io
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from ditto.errors import InputError, OutputError

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait
    from ditto.provenance import Provenance
    from ditto.talking_head import TalkingHead

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def standard_input(noun: str) -> BinaryIO:
    """Standard input, for bytes. Raises InputError for a process without one."""
    if sys.stdin is None:
        raise InputError(f"expected {noun} on standard input, got a process without standard input; give the name of a file")
    return sys.stdin.buffer


def parse_face(text: str, option: str = "--face") -> int | tuple[float, float, float, float] | Path:
    """`--face`, or another option that names a face: a number, `left,top,width,height`, or the name of a picture.

    Raises:
        InputError: none of these.
    """
    if text.strip().isdecimal():
        return int(text)
    try:
        left, top, width, height = (float(part) for part in text.split(","))
        if width > 0.0 and height > 0.0 and math.isfinite(left + top + width + height):
            return left, top, width, height
    except ValueError:
        pass
    if os.path.isfile(text):
        return Path(text)
    raise InputError(
        f"expected {option} as a number (0: the largest face), a box left,top,width,height or the name of a picture, got "
        f"{text!r}; `ditto faces PICTURE` lists the faces"
    )


def check_picture(path: Path, face: str, max_size: int | None) -> None:
    """Raises InputError for a path without a file, or an option that a saved portrait does not take."""
    from ditto.portrait.portrait import is_saved

    choice = parse_face(face)
    if str(path) == "-":
        return
    try:
        folder = path.stat() and path.is_dir()
    except OSError as error:
        raise InputError(f"expected a picture at {path}, got: {error.strerror or error}; check the name") from None
    if folder:
        raise InputError(f"expected a picture, got the folder {path}; give a file in it")
    if choice != 0 and is_saved(path):
        raise InputError(f"expected a picture with --face {face}, got the saved portrait {path}; leave the option out")
    if max_size is not None and is_saved(path):
        raise InputError(
            f"expected a picture with --max-size {max_size}, got the saved portrait {path}; leave the option out, or give "
            "the picture"
        )


def load_portrait(head: TalkingHead, path: Path, face: str, max_size: int) -> Portrait:
    """Load a saved portrait, or register a face of a picture (- for standard input)."""
    from ditto.portrait.portrait import Portrait, is_saved

    if is_saved(path):
        return Portrait.load(path)
    picture = path if str(path) != "-" else standard_input("a picture")
    return head.register(picture, face=parse_face(face), max_size=max_size)


def check_sheet(path: Path) -> None:
    """Check that a picture of this name can be written, before any work is done.

    Raises:
        OutputError: another suffix than those in `SUFFIXES`, or a file that cannot be written.
    """
    from ditto.media.files import check_writable

    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"expected an output that ends in {' or '.join(SUFFIXES)}, got {path.name!r}; choose one of them")
    check_writable(path)


def write_sheet(path: Path, image: npt.NDArray[np.uint8], provenance: Provenance | None) -> None:
    """Write a picture (H, W, 3), signed; it gets its name when it is complete. Raises OutputError and ProvenanceError."""
    from PIL import Image

    from ditto.media.files import partial_file, refused
    from ditto.provenance import publish

    packed = io.BytesIO()
    Image.registered_extensions()  # knows the formats by suffix from then on
    Image.fromarray(image).save(packed, Image.EXTENSION[path.suffix.lower()], quality=92)
    try:
        part = partial_file(path)
        try:
            part.write_bytes(packed.getvalue())
            publish(part, path, provenance)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise refused(path, error) from error
