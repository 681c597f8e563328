"""Renderers: a portrait and a drive become a picture of the face crop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ditto.motion import Drive
    from ditto.portrait import Portrait


class Renderer(Protocol):
    """What a stream asks of a renderer. `Appearance` is the renderer's own affair."""

    def prepare(self, portrait: Portrait) -> Any:
        """Everything about the portrait that does not change from frame to frame."""

    def render(self, appearance: Any, drive: Drive) -> npt.NDArray[np.uint8]:
        """One frame of the face crop, (S, S, 3) uint8 RGB."""
