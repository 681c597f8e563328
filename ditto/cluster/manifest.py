"""The manifest of a batch: one JSON object a line, each a video to make."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ditto.clip import LOOPS
from ditto.controls.timeline_file import timeline_of
from ditto.errors import InputError, OutputError
from ditto.media.backgrounds import TRANSPARENT, check_background
from ditto.media.footage import is_video
from ditto.media.formats import FORMATS, Place, format_of, suffix_of
from ditto.media.images import MAX_SIZE
from ditto.motion.emotion import emotion_vector
from ditto.motion.regions import REGIONS
from ditto.motion.style import style_strength
from ditto.portrait.portrait import is_saved
from ditto.stream import check_seed
from ditto.values import is_whole

FILES = ("portrait", "audio", "controls", "drive")  # fields of a job that name files to read
SMALLEST_SIZE = 64  # of max_size, as of `ditto animate`
Object = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A video to make: the files, and the options of `ditto animate`.

    Attributes:
        line: of the manifest, from 1.
        name: of the output, relative to the folder of the batch.
        portrait, audio: the files.
        max_size: longest side in pixels; None for a saved portrait.
        controls: a timeline file.
        timeline: the timeline itself, as its JSON file would have it, in place of `controls`.
        drive: a performance that drives the face.
        drive_regions: what it moves, shares by name; None: everything.
        background: a picture or a video, or in words: a colour, blur, transparent.
        settings, set: of a full bundle, as `settings` and `changes` of `ditto.load`.
        loop, whole_face: of a video as the portrait, as of `TalkingHead.animate_video`.
    """

    line: int
    name: str
    portrait: Path
    audio: Path
    seed: int = 0
    emotion: Mapping[str, float] | None = None
    style: str | float = "natural"
    face: int = 0
    still: bool = False
    max_size: int | None = None
    bundle: str = "lite"
    device: str = "cpu"
    controls: Path | None = None
    timeline: Mapping[str, Any] | None = None
    drive: Path | None = None
    drive_regions: Mapping[str, float] | None = None
    background: Path | str | None = None
    settings: Literal["offline", "online"] | None = None
    set: Mapping[str, Any] | None = None
    loop: str | None = None
    whole_face: bool = False

    @property
    def files(self) -> dict[str, Path]:
        """The files that it is made of, by field."""
        found = {name: getattr(self, name) for name in (*FILES, "background")}
        return {name: path for name, path in found.items() if isinstance(path, Path)}

    @property
    def options(self) -> Object:
        """What the video depends on, as JSON."""
        added = {
            "controls": self.controls and str(self.controls), "timeline": self.timeline,
            "drive": self.drive and str(self.drive), "drive_regions": self.drive_regions,
            "background": self.background and str(self.background), "settings": self.settings, "set": self.set,
            "loop": self.loop, "whole_face": self.whole_face or None,
        }  # fmt: skip
        return {
            "portrait": str(self.portrait), "audio": str(self.audio), "seed": self.seed, "emotion": dict(self.emotion or {}),
            "style": self.style, "face": self.face, "still": self.still, "max_size": self.max_size,
            "bundle": self.bundle, "device": self.device,
        } | {name: value for name, value in added.items() if value is not None}  # fmt: skip


class BadLine(NamedTuple):
    """A line that names no video; why."""

    line: int
    message: str


def read_manifest(manifest: Path, folder: Path) -> list[Job | BadLine]:
    """The jobs of a manifest, in its order. Empty lines are left out.

    Relative names of portraits and recordings count from the manifest's folder, names of outputs from `folder`.

    Raises:
        InputError: the manifest cannot be read, or has no line.
    """
    try:
        lines = manifest.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise InputError(f"expected a manifest at {manifest}, got: {error.strerror or error}; check the name") from None
    found: list[Job | BadLine] = []
    names: dict[Path, int] = {}
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            job = job_of(number, text, manifest.parent, folder)
            target = (folder / job.name).resolve()
            if target in names:
                raise InputError(f"expected each output once, got {job.name!r} in line {names[target]} too; rename one")
            names[target] = number
            found.append(job)
        except InputError as error:
            found.append(BadLine(number, str(error)))
    if not found:
        raise InputError(f"expected a JSON object a line in {manifest}, got an empty file; add lines (docs/cluster.md)")
    return found


def job_of(line: int, text: bytes, base: Path, folder: Path) -> Job:
    """The job of one line. Raises InputError with what is wrong in it."""
    try:
        given = json.loads(text.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected a JSON object in UTF-8, got other text ({error}); correct the line") from None
    if not isinstance(given, dict):
        raise InputError(f"expected a JSON object, got {_short(given)}; write it as {{...}}")
    for name in given:
        if name not in FIELDS:
            raise InputError(f"expected {', '.join(FIELDS)}; got {_short(name)}; leave it out")
    for name in ("portrait", "audio", "output"):
        if name not in given:
            raise InputError(f"expected {name}, got a line without it; add it")
    for name, value in given.items():
        check, expected = FIELDS[name]
        try:
            right = check(value)
        except (ValueError, TypeError, OverflowError):
            right = False
        if not right:
            raise InputError(f"expected {name} to be {expected}, got {_short(value)}; correct it")
    if is_saved(given["portrait"]) and (given.get("face", 0) or given.get("max_size") is not None):
        raise InputError("expected a picture with face or max_size, got a saved portrait; leave these out")
    _check_source(given)
    if "controls" in given and "timeline" in given:
        raise InputError("expected controls or timeline, got both; leave one of them out")
    if "timeline" in given:
        timeline_of(given["timeline"])
    if "drive_regions" in given and "drive" not in given:
        raise InputError("expected drive with drive_regions, got none; give a performance")
    name = given.pop("output")
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise InputError(f"expected an output inside of the folder of the batch, got {_short(name)}; name one in it")
    files: Object = {field: base / given[field] for field in FILES if field in given}
    if "background" in given:
        files["background"] = _background(given["background"], base)
    if given.get("background") == TRANSPARENT:
        try:
            format_of(name, alpha=True)
        except OutputError as error:
            raise InputError(str(error)) from None
    return Job(line, name, **given | files)


def _check_source(given: Object) -> None:
    """Raise InputError for an option that the kind of source does not take."""
    if is_video(given["portrait"]):
        for name in ("face", "still", "max_size", "drive", "background"):
            if given.get(name):
                raise InputError(f"expected a picture with {name}, got the video {_short(given['portrait'])}; leave it out")
    elif "loop" in given or given.get("whole_face"):
        raise InputError(f"expected a video with loop or whole_face, got {_short(given['portrait'])}; leave them out")


def _background(text: str, base: Path) -> Path | str:
    """The background of a line: a file beside the manifest, or words. Raises InputError."""
    if (base / text).is_file():
        return base / text
    check_background(text)
    return text


def _once(pairs: list[tuple[str, Any]]) -> Object:
    names = [name for name, _ in pairs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{_short(sorted(twice)[0])} twice")
    return dict(pairs)


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _path(value: object) -> bool:
    return isinstance(value, str) and value not in ("", "-") and "\0" not in value and value.isprintable()


VIDEO_SUFFIXES = tuple(dict.fromkeys(row.suffix for row in FORMATS if row.place is Place.FILE))


def _emotion(value: object) -> bool:
    """Whether these are weights by name; `emotion_vector` alone takes numbers in text too."""
    numbers = isinstance(value, dict) and all(type(weight) in (int, float) for weight in value.values())
    return numbers and emotion_vector(value) is not None  # type: ignore[arg-type]


def _regions(value: object) -> bool:
    """Whether these are shares of regions by name."""
    if not isinstance(value, dict) or not value:
        return False
    return all(name in REGIONS and type(share) in (int, float) and 0.0 <= share <= 1.0 for name, share in value.items())


# Name -> whether a value is right, and what it should be.
FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "portrait": (_path, "the name of a picture, a saved portrait or a video"),
    "audio": (_path, "the name of a recording"),
    "output": (
        lambda value: _path(value) and suffix_of(value) in VIDEO_SUFFIXES,
        f"the name of a video, {' or '.join(VIDEO_SUFFIXES)}",
    ),
    "seed": (lambda value: is_whole(value, 0) and check_seed(value) is not None, "a whole number from 0 to 2 ** 64 - 1"),
    "emotion": (_emotion, 'weights by name, at most 1 in all, as {"happy": 0.6}'),
    "style": (lambda value: style_strength(value) is not None, "calm, natural, lively, or a number from 0 to 2"),
    "face": (lambda value: is_whole(value, 0), "a whole number, 0 for the largest face"),
    "still": (lambda value: isinstance(value, bool), "true or false"),
    "max_size": (
        lambda value: is_whole(value, SMALLEST_SIZE),
        f"a whole number of pixels from {SMALLEST_SIZE} on (by default {MAX_SIZE})",
    ),
    "bundle": (_path, "the name or folder of a bundle"),
    "device": (_path, "cpu, cuda, cuda:1"),
    "controls": (_path, "the name of a timeline file"),
    "timeline": (lambda value: isinstance(value, dict), "a timeline, as its JSON file"),
    "drive": (_path, "the name of a performance"),
    "background": (_path, "a colour, blur, transparent, or the name of a picture or a video"),
    "settings": (lambda value: value in ("offline", "online"), "offline or online"),
    "set": (lambda value: isinstance(value, dict), 'released settings by name, as {"fade_type": "s"}'),
    "loop": (lambda value: value in LOOPS, " or ".join(LOOPS)),
    "whole_face": (lambda value: isinstance(value, bool), "true or false"),
    "drive_regions": (_regions, f'shares from 0 to 1 by name, as {{"head": 0.5}}, of {", ".join(REGIONS)}'),
}
