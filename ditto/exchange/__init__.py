"""Face animation of other programs, in and out: files by format, and live over the network (docs/exchange.md).

Whatever the format, a face over time is a `BlendshapeTrack`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ditto.errors import ExchangeError
from ditto.exchange import audio2face, gltf, live_link_csv, talkinghead
from ditto.exchange.files import Given, json_of, opened, whole
from ditto.exchange.track import BlendshapeTrack as BlendshapeTrack

__all__ = ["FORMATS", "BlendshapeTrack", "Format", "format_of", "read", "write"]


class Format(NamedTuple):
    """A file format.

    Attributes:
        title: for people.
        suffixes: of its files; the first format with a suffix is the one that is written to it.
        read: a file to a track.
        write: a track to a path.
    """

    title: str
    suffixes: tuple[str, ...]
    read: Callable[[Given], BlendshapeTrack]
    write: Callable[[BlendshapeTrack, str | Path], None]


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "live-link": Format("Live Link Face (CSV)", (".csv",), live_link_csv.read, live_link_csv.write),
        "a2f-json": Format("Audio2Face (JSON)", (".json",), audio2face.read_json, audio2face.write_json),
        "a2f-csv": Format("Audio2Face-3D (CSV)", (".csv",), audio2face.read_csv, audio2face.write_csv),
        "gltf": Format("glTF 2.0 morph animation", (".gltf", ".glb"), gltf.read, gltf.write),
        "talkinghead": Format("TalkingHead.js (JSON)", (".json",), talkinghead.read, talkinghead.write),
    }
)


def format_of(path: str | Path) -> str:
    """Name of the format that a file is written in by its suffix.

    Raises:
        ExchangeError: a suffix of none.
    """
    suffix = Path(path).suffix.lower()
    for name, known in FORMATS.items():
        if suffix in known.suffixes:
            return name
    suffixes = sorted({s for known in FORMATS.values() for s in known.suffixes})
    raise ExchangeError(f"expected a file name that ends in {', '.join(suffixes)}, got {os.fspath(path)!r}; give one")


def read(given: Given, format: str | None = None) -> BlendshapeTrack:
    """A file as a track.

    Args:
        given: a path, the bytes of a file or an open file.
        format: a name in `FORMATS`; None: told by what the file holds.

    Raises:
        ExchangeError: the file cannot be read or used; the message names line and field.
        ValueError: an unknown format.
    """
    source = opened(given, "a file of face animation")
    return _format(format or detect(source)).read(source)


def write(track: BlendshapeTrack, path: str | Path, format: str | None = None) -> None:
    """Write a track; the file appears when it is complete.

    Args:
        format: a name in `FORMATS`; None: by the suffix.

    Raises:
        ExchangeError: a suffix of no format.
        OutputError: the file cannot be written.
        ValueError: an unknown format.
    """
    _format(format or format_of(path)).write(track, path)


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ValueError(f"expected a format of {', '.join(FORMATS)}, got {name!r}; give one of them")
    return FORMATS[name]


def detect(given: Given) -> str:
    """Name of the format that a file is in, by its beginning or its keys.

    Raises:
        ExchangeError: none that is known.
    """
    source = opened(given, "a file of face animation")
    with source.open() as stream:
        head = stream.read(4096)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if head[:4] == b"glTF":
        return "gltf"
    if start[:1] == b"{":
        keys = json_of(source.name, whole(source)).keys()
        for key, name in (("weightMat", "a2f-json"), ("asset", "gltf"), ("vs", "talkinghead")):
            if key in keys:
                return name
    else:
        names = [name.strip().lower() for name in start.split(b"\n", 1)[0].decode("utf-8", "replace").split(",")]
        if any(name.startswith("blendshapes.") for name in names):
            return "a2f-csv"
        if "timecode" in names:
            return "live-link"
    raise ExchangeError(
        f"{source.name}: expected {', '.join(known.title for known in FORMATS.values())}, got another file; "
        "give its format, or export it as one of these"
    )
