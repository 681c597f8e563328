"""Exports of the editor: files that a worker thread makes, one after another, for the page to fetch."""

from __future__ import annotations

import logging
import secrets
import shutil
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ditto.controls.timeline import Timeline
from ditto.controls.timeline_file import write_timeline
from ditto.editor.project import Project
from ditto.errors import BusyError, DittoError, InputError
from ditto.exchange import FORMATS, BlendshapeTrack, write
from ditto.live.server.protocol import ProtocolError
from ditto.media.video import VideoWriter
from ditto.provenance import Provenance

logger = logging.getLogger(__name__)

MOST_KEPT = 8  # exports; the oldest finished one is removed first
# Name of a format -> what the page calls it, and how its files end.
VIDEOS = MappingProxyType({"mp4": ("MP4 video", ".mp4"), "webm": ("WebM video", ".webm")})
TRACKS = MappingProxyType({name: (known.title, known.suffixes[0]) for name, known in FORMATS.items()})
OTHERS = MappingProxyType({"timeline": ("timeline (YAML)", ".yaml"), "take": ("take", ".take")})
KINDS: Mapping[str, tuple[str, str]] = MappingProxyType({**VIDEOS, **TRACKS, **OTHERS})


@dataclass
class Export:
    """One export: running until `state` is "done" or "failed"."""

    format: str
    path: Path
    name: str
    total: int
    done: int = 0
    state: str = "running"
    error: str = ""


class Exports:
    """The exports of a project. `end` stops them and removes their files.

    Args:
        provenance: what the content credentials of the videos say; None: they get none.
    """

    def __init__(self, project: Project, provenance: Provenance | None = Provenance()) -> None:
        self._project, self._provenance = project, provenance
        self._folder = Path(tempfile.mkdtemp(prefix="ditto-edit-"))
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="ditto-export")
        self._all: dict[str, Export] = {}
        self._ended = threading.Event()

    def __len__(self) -> int:
        """How many are running."""
        return sum(export.state == "running" for export in self._all.values())

    @property
    def formats(self) -> list[dict[str, str]]:
        """Names and labels of the formats."""
        return [{"name": name, "label": label} for name, (label, _) in KINDS.items()]

    def start(self, kind: Any, timeline: Timeline) -> dict[str, Any]:
        """Begin an export; its state.

        Raises:
            InputError: an unknown format. BusyError: too many are under way.
        """
        if not isinstance(kind, str) or kind not in KINDS:
            raise InputError(f"expected a format of {', '.join(KINDS)}, got {kind!r}; choose one of them")
        if len(self._all) >= MOST_KEPT:
            finished = [name for name, export in self._all.items() if export.state != "running"]
            if not finished:
                raise BusyError(f"{MOST_KEPT} exports are under way, the most allowed; wait for one")
            self._all.pop(finished[0]).path.unlink(missing_ok=True)
        name = secrets.token_urlsafe(9)
        ending = KINDS[kind][1]
        export = Export(kind, self._folder / f"{name}{ending}", f"{self._project.path.stem}{ending}", len(self._project))
        self._all[name] = export
        self._worker.submit(self._run, export, timeline)
        return self.state(name)

    def state(self, name: str) -> dict[str, Any]:
        """How far an export is. Raises ProtocolError for an unknown one."""
        export = self._named(name)
        return {
            "id": name, "state": export.state, "done": export.done, "total": export.total, "name": export.name,
            "error": export.error,
        }  # fmt: skip

    def file(self, name: str) -> tuple[Path, str]:
        """The file of a finished export, and what it is called. Raises ProtocolError."""
        export = self._named(name)
        if export.state != "done":
            raise ProtocolError("not_now", "expected an export that is done, got one that is not; wait for it", 409)
        return export.path, export.name

    async def end(self) -> None:
        """Stop the exports and remove their files."""
        self._ended.set()
        self._worker.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _named(self, name: str) -> Export:
        if name not in self._all:
            raise ProtocolError("not_found", "expected the id of an export, got an unknown one; export it again", 404)
        return self._all[name]

    def _run(self, export: Export, timeline: Timeline) -> None:
        try:
            self._write(export, timeline)
            export.state = "done"
        except DittoError as error:
            export.error, export.state = str(error), "failed"
        except Exception as error:
            logger.error("an export failed", exc_info=error)
            export.error, export.state = "the export failed; see the terminal", "failed"

    def _write(self, export: Export, timeline: Timeline) -> None:
        project = self._project
        if export.format in VIDEOS:
            height, width = project.portrait.picture.shape[:2]
            sound = project.sound_file
            with VideoWriter(export.path, width, height, audio=sound, provenance=self._provenance) as writer:
                for picture in project.frames(timeline):
                    if self._ended.is_set():
                        raise InputError("expected to finish the export, but the editor was closed; export again")
                    writer.write(picture)
                    export.done += 1
        elif export.format == "timeline":
            write_timeline(timeline, export.path)
        elif export.format == "take":
            project.take.edit(timeline).save(export.path)
        else:
            write(BlendshapeTrack.from_head_values(project.head_values(timeline), project.space), export.path, export.format)
