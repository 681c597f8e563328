"""More reference pictures from one portrait: lite renders it turned, with an open mouth, with closed eyes.

The decoder, and a generator that was trained with several references, then see teeth and skin that the portrait hides. Ours;
V (arXiv:2606.01620) takes frames of a video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.bundle import Bundle
from ditto.controls import Controls
from ditto.errors import InputError
from ditto.lite.performer import open_performer
from ditto.motion.emotion import emotion_vector
from ditto.motion.motion import MOTION_SIZE
from ditto.performer import Draw, Edits
from ditto.portrait.portrait import Portrait
from ditto.row_performer import RowPerformer, RowShot

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Number:
    """A number of the catalog of controls (`ditto.controls.catalog`), by its name."""

    name: str
    value: float


@dataclass(frozen=True)
class View:
    """How a portrait is shown in one picture.

    Attributes:
        numbers: that change it.

    Raises:
        InputError: no number, or one that controls do not have or that is out of its range.
    """

    numbers: tuple[Number, ...]

    def __post_init__(self) -> None:
        if not self.numbers:
            raise InputError("expected a view with numbers of controls, got none; give one")
        try:
            self.controls  # noqa: B018
        except (ValueError, TypeError) as error:
            raise InputError(f"expected a view of controls, got: {error}") from error

    @classmethod
    def of(cls, numbers: Mapping[str, float]) -> View:
        """The view of numbers by their names. Raises InputError."""
        return cls(tuple(Number(name, float(value)) for name, value in numbers.items()))

    @property
    def controls(self) -> Controls:
        return Controls.from_names({number.name: number.value for number in self.numbers})


# Of bundles whose heads stand still; of those whose heads turn.
STILL_VIEWS = (
    View.of({"jawOpen": 0.7}),
    View.of({"lids.right": 1.0, "lids.left": 1.0, "mouthSmileLeft": 0.5, "mouthSmileRight": 0.5}),
)
TURNED_VIEWS = tuple(View.of({"head.yaw": yaw, "jawOpen": 0.5}) for yaw in (-12.0, 12.0))


@dataclass(frozen=True)
class ViewsConfig:
    """The references of a bundle beside the portrait.

    Attributes:
        views: one picture each.
        generator: whether the generator sees them too; one that was trained with a single reference should not.

    Raises:
        InputError: no view.
    """

    views: tuple[View, ...]
    generator: bool = False

    def __post_init__(self) -> None:
        if not self.views:
            raise InputError("expected one view or more, got none; give one, or leave them out")

    def open(self) -> Views:
        """What renders them, with the lite bundle that this version ships."""
        performer = open_performer(Bundle.open("lite"), "cpu", "float32")
        assert isinstance(performer, RowPerformer)
        return Views(self, performer)


class Views:
    """Renders the views of portraits.

    Args:
        performer: of lite.
    """

    def __init__(self, config: ViewsConfig, performer: RowPerformer[Any, Any, Any, Any, Any]) -> None:
        self.config, self._performer = config, performer

    def __call__(self, portrait: Portrait) -> list[Pixels]:
        """Pictures (H, W, 3), of the size of the portrait's. Takes about a second."""
        calm = emotion_vector(None)
        face = self._performer.face(self._performer.prepare(portrait), 0)
        rest = RowShot(np.zeros(MOTION_SIZE, np.float32), calm, 0)
        jobs = [Draw(face, rest, Edits(calm, (view.controls,))) for view in self.config.views]
        return [drawn.image for drawn in self._performer.draw(jobs)]
