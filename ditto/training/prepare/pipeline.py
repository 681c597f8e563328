"""The steps in their order, and what is done before and after them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ditto.bundle import Bundle
from ditto.errors import DatasetError, InputError
from ditto.media.files import check_folder
from ditto.portrait.emotion_reader import READERS, hsemotion_network
from ditto.training.dataset import (
    FORMAT,
    SPLITS,
    ClipInfo,
    Dataset,
    clip_file,
    read_dataset,
    read_json,
    unwritable,
    write_index,
    write_json,
)
from ditto.training.prepare.clips import (
    encoder_of,
    export_clip,
    hear_features,
    info_of,
    judge_emotion,
    measure_motion,
)
from ditto.training.prepare.faces import track_faces
from ditto.training.prepare.filters import filter_clip
from ditto.training.prepare.lip_sync import align
from ditto.training.prepare.report import StepReport, reasons, report_of, write_reports
from ditto.training.prepare.scenes import check_installed, find_scenes
from ditto.training.prepare.shards import write_shards
from ditto.training.prepare.sources import fingerprint, held_clips, read_videos
from ditto.training.prepare.video import take_media
from ditto.training.prepare.work import (
    Dropped,
    Item,
    Media,
    Options,
    Piece,
    Step,
    Video,
    Work,
    Workers,
    outcome_file,
    read_outcome,
)
from ditto.values import is_same

STEPS = (
    Step("media", take_media, Media),
    Step("scenes", find_scenes, Piece),
    Step("faces", track_faces, Piece),
    Step("filters", filter_clip, Piece),
    Step("sync", align, Piece),
    Step("motion", measure_motion, Piece),
    Step("emotion", judge_emotion, Piece),
    Step("features", hear_features, Piece),
    Step("export", export_clip, Piece),
)
DEFAULTS = Options()
EMOTION_CHOICES = ("auto", "hsemotion", "landmarks", "neutral")

SHORTEST_SECONDS, LONGEST_SECONDS = 0.5, 60.0  # of a clip: a piece's landmarks lie in memory, 6 kB a frame

Report = Callable[[str, int, int], None]


class Result(NamedTuple):
    """What a preparation gave: the dataset, or None if it was to stop before the last step; and a report of each step."""

    dataset: Dataset | None
    reports: tuple[StepReport, ...]


def prepare(
    videos: Path,
    output: Path,
    options: Options = DEFAULTS,
    *,
    workers: int = 1,
    until: str = STEPS[-1].name,
    shard_megabytes: int | None = None,
    report: Report = lambda step, done, total: None,
) -> Result:
    """Prepare a dataset, or go on with one that was interrupted.

    Args:
        videos: a folder of videos, or a .json or .jsonl list with TalkVid's keys.
        output: the dataset's folder: new, empty, or one that was begun with the same options.
        options: `emotion` may also be "auto": HSEmotion if it can be used, else the landmarks.
        workers: processes; any number gives the same files.
        until: the last step to run.
        shard_megabytes: also write tar files of about this size.
        report: called with a step's name, how many items are done, and how many there are.

    Raises:
        InputError: nothing to read, an output of another preparation, options that make no sense.
        DatasetError: no usable clip, or an output of another format.
        OutputError: the disk is full, or the output cannot be written.
    """
    check(options, workers, until, shard_megabytes)
    found = read_videos(videos)
    options, notes = decide_emotion(options)
    work = Work(output / "steps", options)
    begin(work, found)
    items: Sequence[Item] = found
    reports: list[StepReport] = []
    with Workers(workers) as pool:
        for step in STEPS:
            for done in pool.run(work, step, items):
                report(step.name, done, len(items))
            kept, dropped = gather(work, step, items)
            reports.append(report_of(step.name, items, kept, dropped, notes if step.name == "emotion" else ()))
            items = kept
            if step.name == until or not items:
                break
    write_reports(work.steps, reports)
    if not items:
        raise DatasetError(
            f"expected a usable clip in {videos}, got none ({len(found)} videos; {reasons(reports)}); see "
            f"{work.steps / 'report.md'}"
        )
    if until != STEPS[-1].name:
        return Result(None, tuple(reports))
    dataset = finish(work, found, [item for item in items if isinstance(item, Piece)])
    if shard_megabytes is not None:
        write_shards(dataset, shard_megabytes)
    return Result(dataset, tuple(reports))


def check(options: Options, workers: int, until: str, shard_megabytes: int | None) -> None:
    """Raises InputError for options that make no sense, or a step that there is not."""
    names = [step.name for step in STEPS]
    if until not in names:
        raise InputError(f"expected a step of {', '.join(names)}, got {until!r}; give one of them")
    if options.several_faces not in ("drop", "keep"):
        raise InputError(f"expected drop or keep for several faces, got {options.several_faces!r}; give one of them")
    if options.emotion not in EMOTION_CHOICES:
        raise InputError(f"expected an emotion of {', '.join(EMOTION_CHOICES)}, got {options.emotion!r}; give one of them")
    if not SHORTEST_SECONDS <= options.min_seconds <= options.max_seconds <= LONGEST_SECONDS:
        raise InputError(
            f"expected {SHORTEST_SECONDS} <= min_seconds <= max_seconds <= {LONGEST_SECONDS}, got min_seconds "
            f"{options.min_seconds} and max_seconds {options.max_seconds}; change one of them"
        )
    if workers < 1 or (shard_megabytes is not None and shard_megabytes < 1):
        raise InputError(
            f"expected 1 worker and 1 megabyte a shard or more, got {workers} and {shard_megabytes}; "
            "give larger numbers"
        )
    if options.cuts:
        check_installed()
    encoder_of(options.bundle)


def decide_emotion(options: Options) -> tuple[Options, tuple[str, ...]]:
    """The options with "auto" decided, and a note for the report.

    Raises:
        InputError: HSEmotion was asked for and cannot be used.
    """
    if options.emotion in ("landmarks", "neutral"):
        by = "neutral in every clip" if options.emotion == "neutral" else f"by {READERS['landmarks']}"
        return options, (f"emotion: {by}, as asked",)
    try:
        hsemotion_network()
    except InputError as error:
        if options.emotion == "hsemotion":
            raise
        return dataclasses.replace(options, emotion="landmarks"), (f"emotion: by {READERS['landmarks']}; {error}",)
    return dataclasses.replace(options, emotion="hsemotion"), ("emotion: by HSEmotion",)


def begin(work: Work, videos: Sequence[Video]) -> None:
    """Take a folder for this preparation: a new one, or one of the same options; forget videos that have changed.

    Raises:
        InputError: the folder holds something else, or a preparation with other options.
        DatasetError: it holds a dataset of another format.
        OutputError: it cannot be written.
    """
    output = work.steps.parent
    encoder = Bundle.open(work.options.bundle).part("encoder").identity("network")
    now = {"format": FORMAT, "encoder_sha256": encoder, **dataclasses.asdict(work.options)}
    path = work.steps / "options.json"
    try:
        check_folder(output)
        if (output / "dataset.json").exists() and not is_same(read_json(output / "dataset.json").get("format"), FORMAT):
            raise DatasetError(f"expected a dataset of format {FORMAT} in {output}, got another; choose another folder")
        if path.exists():
            before = read_json(path)
            for key in (*now, *before):
                if not is_same(before.get(key), now.get(key)):
                    raise InputError(
                        f"expected an output of the same options, got {output} with {key} {before.get(key)!r} and now "
                        f"{now.get(key)!r}; choose another folder, or delete this one"
                    )
        elif output.is_dir() and any(output.iterdir()):
            raise InputError(f"expected a new or empty folder as output, got {output} with files; choose another name")
        else:
            write_json(path, now)
        for part in output.rglob(".*.part"):  # of a preparation that was killed
            part.unlink(missing_ok=True)
        prints = {video.id: fingerprint(video.path) for video in videos}
        known = read_json(work.steps / "videos.json") if (work.steps / "videos.json").exists() else {}
        for video in videos:
            if known.get(video.id, prints[video.id]) != prints[video.id]:
                forget(work, video)
        write_json(work.steps / "videos.json", known | prints)
    except OSError as error:
        raise unwritable(output, error) from error


def forget(work: Work, video: Video) -> None:
    """Delete what the steps wrote of a video. (Of another whose name begins alike too: it is done again.)"""
    for id in (video.id, *(stretch.id for stretch in video.stretches)):
        for step in STEPS:
            for file in (*work.steps.glob(f"{step.name}/{id}.*"), *work.steps.glob(f"{step.name}/{id}-[0-9]*")):
                file.unlink()


def gather(work: Work, step: Step, items: Sequence[Item]) -> tuple[list[Item], list[Dropped]]:
    """What came of all items of a step, in their order."""
    kept: list[Item] = []
    dropped: list[Dropped] = []
    for item in items:
        outcome = read_outcome(work, step, item)
        if outcome is None:
            raise DatasetError(f"expected {outcome_file(work, step, item)}, got no such file; run it again")
        kept += outcome.items
        dropped += outcome.dropped
    return kept, dropped


def finish(work: Work, videos: Sequence[Video], clips: Sequence[Piece]) -> Dataset:
    """Complete the dataset: decide the split, remove clips that no longer belong to it, write the index."""
    folder = work.steps.parent
    held = held_clips(videos, clips)
    infos: list[ClipInfo] = []
    for clip in sorted(clips, key=lambda clip: clip.id):
        if not clip_file(folder, clip.id).is_file():  # deleted since
            export_clip(work, clip)
        infos.append(info_of(clip, work.options.emotion, SPLITS[clip.id in held]))
    opened = Bundle.open(work.options.bundle)
    encoder = opened.part("encoder").identity("network")
    options = dataclasses.asdict(work.options)
    new = Dataset(folder, opened.name, encoder, options, tuple(infos))
    try:
        if read_dataset(folder) == new:
            return new
    except DatasetError:
        pass
    try:
        (folder / "dataset.json").unlink(missing_ok=True)
        ids = {clip.id for clip in infos}
        for file in (folder / "clips").glob("*.npz"):
            if file.stem not in ids:
                file.unlink()
    except OSError as error:
        raise unwritable(folder, error) from error
    return write_index(folder, opened.name, encoder, options, infos)
