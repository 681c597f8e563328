"""Plain tar files of a dataset's clips, for readers that stream (WebDataset's naming: ID.npz and ID.json side by side)."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from ditto.media.files import whole_file
from ditto.training.dataset import ClipInfo, Dataset, clip_file, unwritable


def write_shards(dataset: Dataset, megabytes: int) -> list[Path]:
    """Write `shards/SPLIT-00000.tar`, ..., each of about so many megabytes; the same clips give the same bytes.

    Raises:
        OutputError: a file cannot be written.
    """
    folder = dataset.folder / "shards"
    written: list[Path] = []
    try:
        folder.mkdir(exist_ok=True)
        for split in ("train", "held"):
            for number, clips in enumerate(groups(dataset, dataset.of(split), megabytes * 1_000_000)):
                path = folder / f"{split}-{number:05d}.tar"
                write_shard(dataset, clips, path)
                written.append(path)
        for old in folder.glob("*.tar"):
            if old not in written:
                old.unlink()
    except OSError as error:
        raise unwritable(folder, error) from error
    return written


def groups(dataset: Dataset, clips: Sequence[ClipInfo], most: int) -> list[list[ClipInfo]]:
    """The clips in order, in groups whose files have at most so many bytes, at least one clip each."""
    found: list[list[ClipInfo]] = []
    size = most
    for clip in clips:
        bytes_ = clip_file(dataset.folder, clip.id).stat().st_size
        if size + bytes_ > most:
            found.append([])
            size = 0
        found[-1].append(clip)
        size += bytes_
    return found


def write_shard(dataset: Dataset, clips: Sequence[ClipInfo], path: Path) -> None:
    with whole_file(path) as part, tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
        for clip in clips:
            info = json.dumps(dataclasses.asdict(clip), ensure_ascii=False).encode()
            for suffix, data in (("npz", clip_file(dataset.folder, clip.id).read_bytes()), ("json", info)):
                member = tarfile.TarInfo(f"{clip.id}.{suffix}")  # no owner and no time: they would differ
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
