"""Packed portraits: a face in about 250 kB, with what a renderer has prepared of it. docs/packed.md describes the file.

This is the file: its sections, its pictures and the fields of a `Portrait`. What the numbers in it mean is the renderer's
(`ditto/lite/rendering/numbers.py`).
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import InputError

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait

Pixels = npt.NDArray[np.uint8]

MAGIC = b"DITTOPAK"
VERSION = 1
ALIGNMENT = 16
_HEADER = struct.Struct("<8sIIQQ")
_ENTRY = struct.Struct("<24sIIIIQ")
_MOST_SECTIONS = 64
MOST_NUMBERS = 32 << 20  # bytes of the numbers, inflated; csrc/core/packed.h
_MOST_FIELDS = 1 << 20  # bytes
_MOST_PIXELS = 1 << 26  # of a picture
_LANDMARK_STEP = 2.0**-16  # px: the pose that is fitted to them stays the same

# JPEG. Of the plate one sees slivers beside a moving head; the mask serves a new preparation only.
_QUALITY = {"picture": 92, "crop": 92, "plate": 70, "mask": 75}
_SMALL = ("canonical_keypoints", "rotation", "translation", "expression", "eye_open", "eye_ball", "crop_to_picture")


class PackedAppearance(NamedTuple):
    """A portrait as a renderer has prepared it.

    Attributes:
        model: SHA-256 of the model pack that it was prepared with, in hexadecimal digits.
        numbers: what the core takes beside pictures and the model pack.
        plate: (S, S, 3) RGB.
    """

    model: str
    numbers: bytes
    plate: Pixels


def pack(portrait: Portrait, appearance: PackedAppearance, lossless: bool = False) -> bytes:
    """The portrait and its appearance as the bytes of one file.

    Args:
        lossless: pictures as PNG, so that they stay bit for bit as they are; JPEG otherwise.
    """
    pictures = {"picture": portrait.picture, "crop": portrait.crop, "plate": appearance.plate}
    pictures["mask"] = np.rint(255.0 * np.clip(portrait.mask, 0.0, 1.0)).astype(np.uint8)
    fields: dict[str, Any] = {name: np.asarray(getattr(portrait, name), np.float64).tolist() for name in _SMALL}
    fields["scale"] = portrait.scale
    fields["landmarks"] = np.rint(portrait.landmarks / _LANDMARK_STEP).astype(np.int64).tolist()
    sections = {
        "model": bytes.fromhex(appearance.model),
        "numbers": zlib.compress(appearance.numbers, 9),
        **{name: _encode(image, None if lossless else _QUALITY[name]) for name, image in pictures.items()},
        "portrait": zlib.compress(json.dumps(fields, separators=(",", ":")).encode(), 9),
    }
    if portrait.alpha is not None:
        sections["alpha"] = _encode(portrait.alpha, None)
    return _join(sections)


def fields_of(data: bytes, name: str) -> dict[str, Any]:
    """What a packed portrait says about each field of a `Portrait`. Nothing is checked that `Portrait` checks.

    Args:
        name: of the file, for messages.

    Raises:
        InputError: damaged, of another version, or no packed portrait.
    """
    sections = _Sections(data, name)
    with sections.reading("portrait"):
        fields = json.loads(_inflate(sections["portrait"], _MOST_FIELDS))
        arrays: dict[str, Any] = {field: np.asarray(fields.pop(field), np.float64) for field in (*_SMALL, "landmarks")}
        arrays["landmarks"] *= _LANDMARK_STEP
        arrays["scale"] = np.float64(fields.pop("scale"))
        if fields:
            raise ValueError(f"unknown fields {', '.join(fields)}")
    pictures = {section: sections.picture(section, 3) for section in ("picture", "crop")}
    mask = sections.picture("mask", 1).astype(np.float32) / np.float32(255.0)
    alpha = sections.picture("alpha", 1) if "alpha" in sections else None
    return {**arrays, **pictures, "mask": mask, "alpha": alpha}


def appearance_of(data: bytes, name: str = "the packed portrait") -> PackedAppearance:
    """The prepared appearance in a packed portrait. The numbers are as they are: the core checks them.

    Raises:
        InputError: as of `fields_of`.
    """
    sections = _Sections(data, name)
    with sections.reading("numbers"):
        numbers = _inflate(sections["numbers"], MOST_NUMBERS)
    return PackedAppearance(sections.model(), numbers, sections.picture("plate", 3))


def model_of(data: bytes, name: str = "the packed portrait") -> str:
    """SHA-256 of the model pack that a packed portrait was made for, in hexadecimal digits.

    Raises:
        InputError: as of `fields_of`.
    """
    return _Sections(data, name).model()


def is_lossless(data: bytes, name: str = "the packed portrait") -> bool:
    """Whether the pictures of a packed portrait are PNG.

    Raises:
        InputError: as of `fields_of`.
    """
    sections = _Sections(data, name)
    return all(sections[picture].startswith(b"\x89PNG") for picture in _QUALITY)


def _join(sections: Mapping[str, bytes]) -> bytes:
    at = _HEADER.size + _ENTRY.size * len(sections)
    directory: list[bytes] = []
    parts: list[bytes] = []
    for name, section in sections.items():
        padding = -at % ALIGNMENT
        directory.append(_ENTRY.pack(name.encode(), 0, len(section), 1, 1, at + padding))
        parts += [bytes(padding), section]
        at += padding + len(section)
    rest = b"".join([*directory, *parts])
    return _HEADER.pack(MAGIC, VERSION, len(sections), at, zlib.crc32(rest)) + rest


class _Sections(dict[str, bytes]):
    """The sections of a file, by name.

    Raises:
        InputError: damaged, of another version, or no packed portrait.
    """

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__()
        self._name = name
        if len(data) < _HEADER.size or not data.startswith(MAGIC):
            raise InputError(f"expected a packed portrait, got other bytes in {name}; make one with `ditto pack`")
        _, version, count, size, checksum = _HEADER.unpack_from(data)
        if version != VERSION:
            raise InputError(
                f"expected a packed portrait of version {VERSION}, got version {version} in {name}; update ditto, or make it "
                "again with `ditto pack`"
            )
        if size != len(data) or zlib.crc32(data[_HEADER.size :]) != checksum:
            raise self._damaged("size and checksum as it says", "others")
        if count > _MOST_SECTIONS or _HEADER.size + count * _ENTRY.size > size:
            raise self._damaged(f"up to {_MOST_SECTIONS} sections inside of it", str(count))
        for i in range(count):
            label, kind, length, one, same, at = _ENTRY.unpack_from(data, _HEADER.size + i * _ENTRY.size)
            section = label.rstrip(b"\0").decode("ascii", "replace")
            if (kind, one, same) != (0, 1, 1) or at > size or length > size - at or section in self:
                raise self._damaged("each section once, as bytes inside of it", f"section {i} otherwise")
            self[section] = data[at : at + length]

    def __missing__(self, section: str) -> bytes:
        raise self._damaged(f"a section {section!r}", "none")

    def model(self) -> str:
        if len(self["model"]) != 32:
            raise self._damaged("a SHA-256 in the section 'model'", f"{len(self['model'])} bytes")
        return self["model"].hex()

    def picture(self, section: str, channels: int) -> Pixels:
        with self.reading(section):
            return _decode(self[section], channels)

    @contextmanager
    def reading(self, section: str) -> Iterator[None]:
        """A block that reads a section; whatever the library raises that reads it becomes InputError."""
        try:
            yield
        except (InputError, MemoryError):
            raise
        except Exception as error:  # zlib, json, NumPy and Pillow raise many kinds
            raise self._damaged(f"a readable section {section!r}", str(error) or type(error).__name__) from None

    def _damaged(self, expected: str, got: str) -> InputError:
        return InputError(f"expected {expected}, got {got}, in {self._name}; it is damaged: copy it again, or make it again")


def _inflate(data: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj()
    inflated = inflater.decompress(data, most + 1)
    if len(inflated) > most or not inflater.eof or inflater.unused_data:
        raise ValueError(f"expected one whole zlib stream of up to {most} bytes, got another")
    return inflated


def _encode(image: Pixels, quality: int | None) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    picture = Image.fromarray(image)
    if quality is None:
        picture.save(buffer, "PNG", compress_level=6)
    else:
        picture.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
    return buffer.getvalue()


def _decode(data: bytes, channels: int) -> Pixels:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as image:
        if image.width * image.height > _MOST_PIXELS or image.mode != ("RGB" if channels == 3 else "L"):
            raise ValueError(f"expected up to {_MOST_PIXELS} pixels with {channels} channels, got {image.size} {image.mode}")
        return np.array(image)
