"""What every section of `benchmarks.controls` measures with: portraits, their drawn faces, and what is seen in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.table import Table

from benchmarks._motions import rows_of
from benchmarks._report import Figure
from benchmarks.blendshapes import Seen, see
from ditto.errors import DittoError, InputError
from ditto.motion.motion import MOTION_SIZE, Motion
from ditto.motion.space import MotionSpace
from ditto.performer import expect_own
from ditto.portrait.portrait import Portrait
from ditto.row_performer import RowAppearance, RowPerformer
from ditto.talking_head import TalkingHead

Image = npt.NDArray[np.uint8]

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
REST: npt.NDArray[np.float32] = np.zeros(MOTION_SIZE, np.float32)


@dataclass(frozen=True)
class Study:
    """What a section measures with.

    Attributes:
        head: the bundle that is measured.
        portraits: by name; a picture in which no face is found is left out.
        data: folder of speech and clips.
        landmarker, python: of MediaPipe's FaceLandmarker, as `benchmarks.blendshapes.see` takes them; None: not given.
        seed: of all noise.
        sheets: folder for pictures to look at; None: a section makes none.
    """

    head: TalkingHead
    portraits: Mapping[str, Portrait]
    data: Path
    landmarker: Path | None
    python: str
    seed: int = 0
    sheets: Path | None = None
    _appearances: dict[str, RowAppearance[Any, Any]] = field(default_factory=dict)

    @cached_property
    def performer(self) -> RowPerformer[Any, Any, Any, Any, Any]:
        return rows_of(self.head.performer)

    @property
    def space(self) -> MotionSpace:
        return self.performer.motion_space

    def appearance(self, name: str) -> RowAppearance[Any, Any]:
        """A portrait by name, ready to be drawn; prepared once."""
        if name not in self._appearances:
            prepared = self.performer.prepare(self.portraits[name])
            self._appearances[name] = expect_own(prepared, RowAppearance)
        return self._appearances[name]

    def crops(self, name: str, motions: npt.ArrayLike) -> list[Image]:
        """A portrait by name drawn with motions (N, 70): the face crops (S, S, 3), as a renderer gives them."""
        appearance, renderer = self.appearance(name), self.performer.renderer
        drawn = (renderer.render(appearance.prepared, renderer.retarget(appearance.portrait, Motion(row)))
                 for row in np.asarray(motions, np.float32))  # fmt: skip
        return [np.clip(np.rint(crop), 0, 255).astype(np.uint8) for crop in drawn]

    def seen(self, pictures: Sequence[Image], consecutive: bool = False) -> list[Seen | None]:
        """What MediaPipe sees in pictures of one size: each on its own, or, `consecutive`, as frames of a video.

        Raises:
            InputError: no landmarker was given, or it cannot be run.
        """
        if self.landmarker is None:
            raise InputError("expected --face-landmarker, got none; give the path of MediaPipe's face_landmarker.task")
        return see(pictures, self.landmarker, self.python, 25.0 if consecutive else 0.0)


class Report(NamedTuple):
    """What a section found: figures with their bars, tables beside them."""

    figures: Sequence[Figure]
    tables: Sequence[Table] = ()


Section = Callable[[Study], Report]


def register_folder(head: TalkingHead, folder: Path) -> dict[str, Portrait]:
    """The portraits of a folder and its folders, by file name without suffix; pictures without a face are left out.

    Raises:
        InputError: no picture with a face lies there.
    """
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        try:
            found[path.stem] = head.register(path)
        except DittoError as error:
            print(f"left out: {path.name}: {error}")
    if not found:
        raise InputError(f"expected pictures of faces in {folder}, got none; give another folder with --portraits")
    return found
