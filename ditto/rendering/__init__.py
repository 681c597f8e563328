"""Renderers: a portrait and a motion become a picture of the face crop, and that becomes a frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ditto.motion import Motion
    from ditto.portrait import Portrait


class Renderer(Protocol):
    """What a stream asks of a renderer. What `prepare` gives and `render` takes is the renderer's own affair."""

    def prepare(self, portrait: Portrait) -> Any:
        """Everything about the portrait that does not change from frame to frame."""

    def paste_back(self, portrait: Portrait) -> Callable[[Any], npt.NDArray[np.uint8]]:
        """What makes a whole frame (H, W, 3) uint8 RGB of what `render` gives."""

    @property
    def face_units(self) -> bool:
        """Whether its motion is in face units, as what `ditto.live` makes and changes itself is."""

    def translate(self, appearance: Any, row: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A row (70,) in face units as this renderer's motion has it."""

    def drive(self, portrait: Portrait, motion: Motion) -> Any:
        """One frame of motion (70,) as `render` takes it."""

    def render(self, appearance: Any, drive: Any) -> npt.NDArray[Any]:
        """One frame of the face crop, (S, S, 3) RGB, 0 to 255."""
