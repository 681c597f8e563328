"""What ditto writes videos as: one table, for the writer, the command line, the pages and the tests."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import Enum
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from ditto.errors import OutputError
from ditto.media.rates import FPS

SEGMENT_SECONDS = 2  # of HLS; RFC 8216 recommends 6, which a viewer of a stream that is being made would wait for
SEGMENT_FRAMES = SEGMENT_SECONDS * FPS
QUALITIES = ("low", "standard", "high")
SEQUENCE = re.compile(r"%0?\d*d")  # of a file name: the number of the picture
MOST_DIGITS = 99
SCHEME = re.compile(r"([a-z]+)://", re.IGNORECASE)


class Place(Enum):
    """Where an output goes, and so when it is there."""

    FILE = "file"  # it gets its name when it is complete
    PICTURES = "pictures"  # a file a frame; they get their names when the last is complete
    SEGMENTS = "segments"  # it grows, and can be played from its first segment on
    ADDRESS = "address"  # a server, in real time


class Format(NamedTuple):
    """A row of the table. Options, codecs and pixel formats are FFmpeg's.

    Attributes:
        suffix: of the file, or the beginning of the address.
        codec: its name for `--codec` and `codec=`.
        pixel_format: of pictures without alpha; alpha_format: of those with alpha, or None.
        qualities: what each of `QUALITIES` adds to `options`; without any, the codec loses nothing.
        audio_codec: None: no sound.
        audio_rates: kept; every other rate is resampled to the last of these.
        tag: of the codec in MP4 and MOV, where players expect another than FFmpeg's.
    """

    suffix: str
    codec: str
    container: str
    encoder: str
    pixel_format: str
    alpha_format: str | None = None
    options: Mapping[str, str] = {}
    qualities: Mapping[str, Mapping[str, str]] = {}
    audio_codec: str | None = None
    audio_bit_rate: int = 160_000
    audio_rates: tuple[int, ...] = (44100, 48000)
    container_options: Mapping[str, str] = {}
    place: Place = Place.FILE
    tag: str | None = None

    @property
    def name(self) -> str:
        """For messages: `.mov (prores)`."""
        return f"{self.suffix} ({self.codec})"


def _crf(*values: int) -> dict[str, dict[str, str]]:
    return {name: {"crf": str(value)} for name, value in zip(QUALITIES, values, strict=True)}


def _each(option: str, *values: str) -> dict[str, dict[str, str]]:
    return {name: {option: value} for name, value in zip(QUALITIES, values, strict=True)}


# A key frame at every segment, and no frame that waits for a later one.
_LIVE = {"g": str(SEGMENT_FRAMES), "keyint_min": str(SEGMENT_FRAMES), "sc_threshold": "0", "bf": "0"}
_H264 = Format(
    ".mp4", "h264", "mp4", "libx264", "yuv420p",
    options={"preset": "veryfast", "profile": "high"}, qualities=_crf(26, 18, 12), audio_codec="aac",
    container_options={"movflags": "+faststart"},
)  # fmt: skip
_HEVC = _H264._replace(
    codec="hevc", encoder="libx265", options={"preset": "veryfast", "x265-params": "log-level=error"},
    qualities=_crf(30, 22, 16), tag="hvc1",
)  # fmt: skip
_PRORES = Format(
    ".mov", "prores", "mov", "prores_ks", "yuv422p10le", options={"vendor": "apl0"},
    qualities=_each("profile", "lt", "standard", "hq"), audio_codec="pcm_s16le", container_options={"movflags": "+faststart"},
)  # fmt: skip
_PRORES_4444 = _PRORES._replace(
    codec="prores4444", pixel_format="yuv444p10le", alpha_format="yuva444p10le",
    qualities=_each("profile", "4444", "4444", "4444xq"),
)  # fmt: skip
# The first row of a suffix is what it means where no codec is given, with alpha the first row that has alpha.
FORMATS: tuple[Format, ...] = (
    _H264,
    _HEVC,
    Format(
        ".webm", "vp9", "webm", "libvpx-vp9", "yuv420p", "yuva420p",
        options={"deadline": "realtime", "cpu-used": "7", "row-mt": "1"}, qualities=_crf(36, 24, 15),
        audio_codec="libopus", audio_bit_rate=128_000, audio_rates=(48000,),
    ),
    _PRORES,
    _PRORES_4444,
    _H264._replace(suffix=".mov", container="mov"),
    _HEVC._replace(suffix=".mov", container="mov"),
    Format(".gif", "gif", "gif", "gif", "pal8", "pal8", qualities=_each("colours", "64", "256", "256")),
    Format(
        ".webp", "webp", "webp", "libwebp_anim", "yuv420p", "yuva420p",
        qualities=_each("quality", "50", "80", "95"), container_options={"loop": "0"},
    ),
    Format(".png", "png", "image2", "png", "rgb24", "rgba", place=Place.PICTURES, container_options={"start_number": "0"}),
    _H264._replace(
        suffix=".m3u8", container="hls", options={**_H264.options, **_LIVE}, place=Place.SEGMENTS,
        container_options={
            "hls_time": str(SEGMENT_SECONDS), "hls_list_size": "0", "hls_playlist_type": "event",
            "hls_segment_type": "fmp4", "hls_flags": "independent_segments+temp_file",
        },
    ),
    *(
        _H264._replace(
            suffix=scheme, container=container, place=Place.ADDRESS, container_options=options,
            options={**_H264.options, **_LIVE, "tune": "zerolatency", "maxrate": "6M", "bufsize": "6M"},
        )
        for scheme, container, options in (
            ("rtmp://", "flv", {"flvflags": "no_duration_filesize"}),
            ("rtmps://", "flv", {"flvflags": "no_duration_filesize"}),
            ("srt://", "mpegts", {}),
        )
    ),
)  # fmt: skip
SUFFIXES = tuple(dict.fromkeys(row.suffix for row in FORMATS))
CODECS = tuple(dict.fromkeys(row.codec for row in FORMATS))


def suffix_of(path: str | PathLike[str]) -> str:
    """The suffix of a file's name in lower case, or the beginning of an address: `rtmp://`."""
    text = os.fsdecode(path)
    scheme = SCHEME.match(text)
    return scheme[0].lower() if scheme else Path(text).suffix.lower()


def format_of(path: str | PathLike[str], codec: str | None = None, quality: str = "standard", alpha: bool = False) -> Format:
    """How to write an output of this name, its quality among the options.

    Args:
        codec: one of `CODECS`; None: the usual one of the suffix.
        quality: one of `QUALITIES`.
        alpha: whether the pictures have alpha.

    Raises:
        OutputError: a suffix, codec or quality that there is not, a codec that the suffix does not have, alpha in a format
            without it, or a .png that does not number its pictures, or in too many digits.
    """
    suffix, name = suffix_of(path), os.fsdecode(path)
    rows = [row for row in FORMATS if row.suffix == suffix]
    if not rows:
        raise OutputError(f"expected an output that ends in {_among(SUFFIXES)}, got {Path(name).name!r}; choose one of them")
    if codec is not None:
        if not any(row.codec == codec for row in rows):
            codecs = _among([row.codec for row in rows])
            raise OutputError(f"expected the codec {codecs} for {suffix}, got {codec!r}; choose it, or another suffix")
        rows = [row for row in rows if row.codec == codec]
    if alpha and not any(row.alpha_format for row in rows):
        able = _among([row.name for row in FORMATS if row.alpha_format])
        raise OutputError(f"expected an output that keeps alpha, got {rows[0].name}; choose {able}")
    row = next(row for row in rows if row.alpha_format or not alpha)
    if quality not in QUALITIES:
        raise OutputError(f"expected a quality of {_among(QUALITIES)}, got {quality!r}; choose one of them")
    if not row.qualities and quality != "standard":
        raise OutputError(f"expected no quality for {row.name}, which loses nothing, got {quality!r}; leave it out")
    if row.place is Place.PICTURES and len(SEQUENCE.findall(Path(name).name)) != 1:
        raise OutputError(
            f"expected a name that numbers its pictures for {suffix}, got {Path(name).name!r}; name it frames/%05d.png"
        )
    if row.place is Place.PICTURES and not _short_number(SEQUENCE.findall(Path(name).name)[0].strip("%d")):
        raise OutputError(f"expected numbers of {MOST_DIGITS} digits or fewer, got {Path(name).name!r}; name it %05d.png")
    return row._replace(options={**row.options, **row.qualities.get(quality, {})})


def _short_number(digits: str) -> bool:
    return len(digits) < 4 and int(digits or "0") <= MOST_DIGITS


def _among(names: tuple[str, ...] | list[str]) -> str:
    """`a, b or c`, each once."""
    *first, last = dict.fromkeys(names)
    return f"{', '.join(first)} or {last}" if first else last
