"""Recognises recordings by their first bytes: the kind of a file, and where in it further recordings begin."""

from __future__ import annotations

import io
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, BinaryIO

SCAN_BYTES = 1 << 20
STREAMED = 1_900_000_000  # bytes: writers that do not know a size write 2e9, 0x7ffff000, 0x80000000, 0xffffffff, ...
LONGEST_BEGINNING = 64  # bytes that a pattern below looks at, those before the beginning included
READ_FIRST = 1 << 14  # enough for an MPEG frame and its successor (at most 2881 bytes each)

# Kind -> (pattern, how many bytes before it the recording begins). A pattern has the fields that the specification fixes and
# the ranges of the others. Each fixes at least 7 bytes, so that it does not match by chance.
BEGINNINGS = {
    "WAV": (rb"(?:RIFF|RIFX|RF64|BW64).{4}WAVE[ -~]{4}", 0),
    "AVI": (rb"RIFF.{4}AVI LIST", 0),
    "AIFF": (rb"FORM.{4}AIF[FC]", 0),
    "Wave64": (rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", 0),
    "CAF": (rb"caff\x00\x01\x00\x00desc", 0),
    "AU": (rb"\.snd\x00\x00..{5}\x00\x00\x00[\x01-\x1d]\x00...\x00\x00\x00.", 0),
    "SPHERE": (rb"NIST_1A\n", 0),
    "VOC": (rb"Creative Voice File\x1a", 0),
    # Not the FLAC header inside Ogg or Matroska.
    "FLAC": (rb"(?<!\x7fFLAC....)(?<!\x63\xa2.)(?<!\x63\xa2..)(?<!\x63\xa2.{8})fLaC[\x00\x80]\x00\x00\x22", 0),
    "WavPack": (rb"wvpk.{4}.\x04.{6}\x00{4}.{4}.[%s]" % re.escape(bytes(b for b in range(256) if b & 8)), 0),
    "TTA": (rb"TTA1[\x01\x02]\x00.\x00.\x00", 0),
    "Monkey's Audio": (rb"MAC \x8c\x0f\x00\x00|MAC \x96\x0f\x00\x00", 0),
    "AMR": (rb"#!AMR(?:-WB)?(?:_MC1\.0)?\n", 0),
    "Ogg": (rb"OggS\x00[\x02\x06]\x00{8}", 0),
    "Matroska or WebM": (rb"\x1a\x45\xdf\xa3[\x01\x80-\xff].{0,40}?\x42\x82[\x80-\x88](?:matroska|webm)", 0),
    "MP4": (rb"(?<=\x00\x00\x00[\x08-\xff])ftyp[ -~]{4}", 4),
    "ASF or WMA": (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", 0),
    "FLV": (rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09\x00{4}", 0),
    "ID3": (rb"ID3[\x02-\x04][\x00-\x0f].[\x00-\x7f]{4}", 0),
    "MP3": (rb"\xff[\xe2-\xff]..(?:\x00{9}|\x00{17}|\x00{32})(?:Xing|Info)\x00\x00\x00[\x00-\x0f]", 0),
    "ID3v1": (rb"TAG", 0),
    "APE tag": (rb"APETAGEX[\xd0\xe8]\x07\x00\x00", 0),
}
TAGS = {"ID3", "ID3v1", "APE tag"}
ANYWHERE = re.compile(
    b"|".join(b"(?P<k%d>%s)" % (i, pattern) for i, (pattern, _) in enumerate(BEGINNINGS.values())), re.DOTALL
)

BIT_RATES = {  # kbit/s by (MPEG 1?, layer), ISO 11172-3 and 13818-3
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}

Span = tuple[int, int]


def kind_of(data: bytes) -> str | None:
    """The kind of recording that begins with these bytes, or None if none is known."""
    found = ANYWHERE.match(data) or (ANYWHERE.match(data, 4) if data[4:8] == b"ftyp" else None)
    if found is not None and (kind := _kind(found)) not in TAGS - {"ID3"}:
        return kind
    if data[:5] == b"OggS\x00":
        return "Ogg"
    for kind, length_of in (("MP3", mpeg_frame), ("AAC", adts_frame)):
        if _frames_follow(data, length_of):
            return kind
    if data[:1] == data[188:189] == data[376:377] == b"\x47":
        return "MPEG-TS"
    return None


def mpeg_frame(head: bytes) -> int | None:
    """Length in bytes of the MPEG audio frame (layer II or III) with this header, or None. Source: ISO 11172-3, 13818-3."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    rate, frequency, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer in (1, 4) or rate in (0, 15) or frequency == 3 or head[3] & 3 == 2:
        return None
    bits = 1000 * BIT_RATES[version == 3, layer][rate - 1]
    hertz = _hertz(head)
    return (72 if layer == 3 and version != 3 else 144) * bits // hertz + padding


def _hertz(head: bytes) -> int:
    return (44100, 48000, 32000)[head[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}[head[1] >> 3 & 3]


def adts_frame(head: bytes) -> int | None:
    """Length in bytes of the AAC frame (ADTS) with this header, or None. Source: ISO 13818-7."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return None
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else None


def _frames_follow(data: bytes, length_of: Callable[[bytes], int | None]) -> bool:
    """Whether data begins with three frames of one kind and rate; two, if it is too short for a third."""
    at = 0
    for count in range(3):
        head = data[at : at + 8]
        length = length_of(head)
        if length is None or head[1] != data[1] or (head[2] ^ data[2]) & 0x0C:
            return count == 2 and len(head) < 8
        at += length
    return True


def recordings(stream: BinaryIO, size: int) -> list[list[Span]]:
    """The recordings that are joined in a file, in order: for each its byte ranges [start, end).

    A file with one recording, of any kind, gives [[(0, size)]]. The ranges leave out tags between the frames of an MP3.
    Takes about 10 s a gigabyte.
    """
    kind, until = _head(stream, 0, kind_of(_read(stream, 0)))
    found: list[list[Span]] = [[(0, size)]]

    def cut(end: int, beginning: int) -> None:
        """Leave [end, beginning) out of the current recording."""
        found[-1][-1:] = [(found[-1][-1][0], end), (beginning, size)]

    for at, new in _beginnings(stream, size):
        if at <= until:
            if at == until and kind == new == "Ogg":  # the first page of a parallel stream
                _, until = _head(stream, at, new)
            continue
        if new == "MP3" and kind != "MP3":  # inside of a container with MP3
            continue
        if new in ("ID3v1", "APE tag"):
            end = _end_of_tag(stream, at, new)
            if kind == "MP3" and end < size and kind_of(_read(stream, end)) is not None:
                cut(at, end)
                until = end - 1
            continue
        what, end = _head(stream, at, new)
        if what is None or end >= size:  # a tag at the end, or bytes that only look like one
            continue
        if new == "ID3" and what == kind in ("MP3", "AAC") and not ANYWHERE.match(_read(stream, end)):
            cut(at, end)  # a tag between two frames
            until = end - 1
            continue
        found[-1][-1] = (found[-1][-1][0], at)
        found.append([(at, size)])
        kind, until = what, end
    for index in reversed(range(len(found))):  # frames without a file header after a WAV
        start, end = found[index][0]
        stop = riff_end(stream, start)
        if stop is not None and start < stop < end and kind_of(_read(stream, stop)) in ("MP3", "AAC", "MPEG-TS"):
            found[index : index + 1] = [[(start, stop)], [(stop, end)]]
    return [[span for span in spans if span[0] < span[1]] for spans in found]


def riff_end(stream: BinaryIO, start: int) -> int | None:
    """End of the WAV file (RIFF or RIFX) that begins at `start`, by the sizes in its headers.

    None if it is of another kind, or if its writer did not know the sizes.
    """
    head = _read(stream, start, 12)
    if head[:4] not in (b"RIFF", b"RIFX") or head[8:] != b"WAVE":
        return None
    order: Any = "little" if head[:4] == b"RIFF" else "big"
    size = int.from_bytes(head[4:8], order)
    end = start + 8 + size if size < STREAMED else None
    at = start + 12
    for _ in range(64):  # chunks before the samples
        chunk = _read(stream, at, 8)
        if len(chunk) < 8:
            break
        size = int.from_bytes(chunk[4:], order)
        at += 8 + size
        if chunk[:4] == b"data":
            return None if size == 0 or size >= STREAMED else max(end or 0, at)
        at += size % 2
    return end


def is_padding(stream: BinaryIO, start: int, end: int) -> bool:
    """Whether the bytes after the end of a recording hold no sound: few, all zero, or text or tags of some program."""
    if end - start < 64:
        return True
    data = _read(stream, start, SCAN_BYTES)[: end - start]
    return not any(data) or data[:3].isalnum()


def mp3_seconds(stream: BinaryIO, start: int) -> float | None:
    """The duration that the first frame of an MP3 declares in its Xing, Info or VBRI header, or None without one."""
    _, at = _head(stream, start, kind_of(_read(stream, start)))
    frame = _read(stream, at, 64)
    if mpeg_frame(frame) is None:
        return None
    version = frame[1] >> 3 & 3
    hertz = _hertz(frame)
    for offset in (13, 21, 36):
        if frame[offset : offset + 4] in (b"Xing", b"Info") and frame[offset + 7] & 1:
            count = int.from_bytes(frame[offset + 8 : offset + 12], "big")
            break
    else:
        if frame[36:40] != b"VBRI":
            return None
        count = int.from_bytes(frame[50:54], "big")
    return count * (1152 if version == 3 else 576) / hertz if count else None


class Spans(io.RawIOBase):
    """Byte ranges of a stream as one file."""

    def __init__(self, stream: BinaryIO, spans: list[Span]) -> None:
        self._stream = stream
        self._starts = [start for start, _ in spans]
        self._edges = [0, *accumulate(end - start for start, end in spans)]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + (0, self._at, self._edges[-1])[whence]
        if at < 0:
            raise ValueError(f"expected a position of 0 or more, got {at}; seek inside of the file")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._edges[-1]:
            return 0
        index = bisect_right(self._edges, self._at) - 1
        self._stream.seek(self._starts[index] + self._at - self._edges[index])
        data = self._stream.read(min(len(buffer), self._edges[index + 1] - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _read(stream: BinaryIO, at: int, count: int = READ_FIRST) -> bytes:
    stream.seek(at)
    return stream.read(count)


def _kind(found: re.Match[bytes]) -> str:
    return list(BEGINNINGS)[int((found.lastgroup or "k0")[1:])]


def _beginnings(stream: BinaryIO, size: int) -> Iterator[tuple[int, str]]:
    """(position, kind) of everything in a file that looks like a recording's beginning or a tag."""
    scanned = 0
    while scanned < size:
        base = max(0, scanned - LONGEST_BEGINNING)
        data = _read(stream, base, SCAN_BYTES)
        last = base + len(data) >= size or len(data) < SCAN_BYTES
        limit = len(data) if last else len(data) - LONGEST_BEGINNING
        for found in ANYWHERE.finditer(data, scanned - base):
            if found.start() >= limit:
                break
            kind = _kind(found)
            yield base + found.start() - BEGINNINGS[kind][1], kind
        if last:
            return
        scanned = base + limit


def _head(stream: BinaryIO, at: int, kind: str | None) -> tuple[str | None, int]:
    """Kind of the recording behind its tags, and the end of its head: of the tags, of the first page of an Ogg stream."""
    while kind == "ID3":
        at = _end_of_tag(stream, at, kind)
        kind = kind_of(_read(stream, at))
    if kind == "Ogg":
        page = _read(stream, at, 27 + 255)
        if len(page) >= 27 and page[5] & 2:
            return kind, at + 27 + page[26] + sum(page[27 : 27 + page[26]])
    return kind, at


def _end_of_tag(stream: BinaryIO, at: int, kind: str) -> int:
    """End of a tag. Sources: id3.org (v1, v2.3, v2.4), the APEv2 specification."""
    head = _read(stream, at, 32)
    if kind == "ID3" and len(head) >= 10:
        length = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return at + length + (20 if head[5] & 0x10 else 10)
    if kind == "APE tag":  # the header holds the size of what follows it; a footer ends the tag
        return at + 32 + (int.from_bytes(head[12:16], "little") if len(head) >= 24 and head[23] & 0x20 else 0)
    return at + 128
