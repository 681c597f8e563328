"""The videos of a preparation: a folder, or a list with TalkVid's keys."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ditto.errors import InputError
from ditto.training import held_out
from ditto.training.prepare.work import Piece, Stretch, Video

SUFFIXES = {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv"}
# Names of TalkVid's keys (its data lists and README), the first one that an object has.
ID, PATH = ("id",), ("video_path", "video-path", "path", "video", "file", "video_name")
START, END = ("start-time", "start_time", "start"), ("end-time", "end_time", "end")
PERSON, LANGUAGE = ("person_id", "person-id", "person", "speaker"), ("language", "lang")
FEWEST_GROUPS = 10  # with fewer persons, or videos, clips are held out one by one


def read_videos(given: Path) -> list[Video]:
    """The videos of a folder (with its subfolders), or those of a .json or .jsonl list, sorted by id.

    Raises:
        InputError: no such folder or file, no videos in it, or a list that cannot be read.
    """
    if given.is_dir():
        paths = sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        if not paths:
            raise InputError(f"expected videos in {given}, got none; give a folder of {', '.join(sorted(SUFFIXES))}")
        names = [p.relative_to(given).as_posix() for p in paths if p.is_file()]
        ids = ids_of([name.rpartition(".")[0] for name in names], names)
        videos = [
            Video(id, str((given / name).resolve()), name, (Stretch(id),)) for id, name in zip(ids, names, strict=True)
        ]
    else:
        videos = listed(given)
    return sorted(videos, key=lambda video: video.id)


def ids_of(wished: Sequence[str], names: Sequence[str]) -> list[str]:
    """Ids that are file names; those that would be alike get a number made of the name."""
    plain = [re.sub(r"[^A-Za-z0-9._-]", "_", id).lstrip(".")[:100] or "_" for id in wished]
    often: dict[str, int] = defaultdict(int)
    for id in plain:
        often[id.lower()] += 1  # some file systems do not tell the cases apart
    return [
        id if often[id.lower()] == 1 and id == wish else f"{id}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        for id, wish, name in zip(plain, wished, names, strict=True)
    ]


def objects_of(path: Path) -> list[Any]:
    """The objects of a .json list or a .jsonl file. Raises InputError."""
    if path.suffix.lower() in SUFFIXES and path.is_file():
        raise InputError(f"expected a folder of videos or a .jsonl list, got the video {path}; give the folder that it is in")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"expected a folder of videos or a .jsonl list at {path}, got: {reason}; check it") from error
    try:
        if path.suffix.lower() == ".json":
            found = json.loads(text)
            return list(found) if isinstance(found, list) else [found]
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise InputError(f"expected JSON in {path}, got: {error}; give one object a line (.jsonl) or a list (.json)") from None


def first_of(values: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((values[key] for key in keys if values.get(key) is not None), None)


def listed(path: Path) -> list[Video]:
    """The videos of a list; stretches of one file become one video. Paths are relative to the list.

    Raises:
        InputError: it cannot be read, an object lacks its id or path, an id comes twice, times make no sense.
    """
    stretches: dict[str, list[Stretch]] = {}
    objects = objects_of(path)
    if not objects:
        raise InputError(f"expected videos in {path}, got an empty list; list at least one")
    wished, seen = [], set()
    for number, values in enumerate(objects, 1):
        where = f"object {number} of {path}"
        if not isinstance(values, dict):
            raise InputError(f"expected a JSON object as {where}, got {type(values).__name__}; write it as {{...}}")
        video, id = first_of(values, PATH), first_of(values, ID)
        if not isinstance(video, str) or not video or "://" in video:
            raise InputError(
                f"expected the path of a video under {', '.join(PATH)} in {where}, got {video!r}; download the videos first, "
                "then name their files"
            )
        id = str(id) if id is not None else video.rpartition(".")[0]
        if id in seen:
            raise InputError(f"expected each id once in {path}, got {id!r} twice; rename one")
        seen.add(id)
        wished.append(id)
        person, language = first_of(values, PERSON), first_of(values, LANGUAGE)
        if isinstance(person, Mapping):
            person = first_of(person, ("id", "person_id"))
        stretches.setdefault(video, []).append(
            Stretch(
                id,
                seconds_of(first_of(values, START), where),
                seconds_of(first_of(values, END), where),
                None if person is None else str(person),
                None if language is None else str(language),
            )
        )
        last = stretches[video][-1]
        if last.end_seconds is not None and last.end_seconds <= (last.start_seconds or 0.0):
            raise InputError(
                f"expected an end after the start in {where}, got {last.start_seconds} to {last.end_seconds} s; "
                "correct it"
            )
    ids = dict(zip(wished, ids_of(wished, wished), strict=True))
    names = list(stretches)
    media = ids_of([name.rpartition(".")[0] for name in names], names)
    return [
        Video(
            id,
            str((path.parent / name).resolve()),
            name,
            tuple(sorted((replace(s, id=ids[s.id]) for s in stretches[name]), key=lambda s: s.id)),
        )
        for id, name in zip(media, names, strict=True)
    ]


def seconds_of(value: Any, where: str) -> float | None:
    """Seconds as a number or "HH:MM:SS.s". Raises InputError."""
    if value is None:
        return None
    try:
        parts = [float(part) for part in str(value).split(":")]
        seconds = sum(part * 60.0**place for place, part in enumerate(reversed(parts)))
    except ValueError:
        seconds = math.nan
    if isinstance(value, bool) or not 0 <= seconds < math.inf:
        raise InputError(f"expected a time in seconds, 0 or more, in {where}, got {value!r}; correct it")
    return seconds


def held_clips(videos: Sequence[Video], clips: Sequence[Piece]) -> set[str]:
    """Ids of the clips that are held out of training.

    Every tenth person, if at least ten are named; else those of every tenth video of the sorted list, used or not; with
    fewer than ten videos, every tenth clip.
    """
    persons = sorted({s.person for v in videos for s in v.stretches if s.person is not None})
    if len(persons) >= FEWEST_GROUPS:
        out = {person for i, person in enumerate(persons) if held_out(i)}
        return {clip.id for clip in clips if clip.person in out}
    if len(videos) >= FEWEST_GROUPS:
        out = {video.id for i, video in enumerate(videos) if held_out(i)}
        return {clip.id for clip in clips if clip.media in out}
    return {id for i, id in enumerate(sorted(clip.id for clip in clips)) if held_out(i)}


def fingerprint(path: str) -> str:
    """A digest of a file's size, beginning and end: whether it is the file that was prepared. Of no file: "missing"."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            digest = hashlib.sha256(str(size).encode())
            for place in (0, max(0, size - (1 << 16))):
                file.seek(place)
                digest.update(file.read(1 << 16))
    except OSError:
        return "missing"
    return digest.hexdigest()[:16]
