"""Whoever watches conversations: metrics, recordings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto.frame import Item
from ditto.live.playout import Played


class Watcher:
    """Is told what happens in a conversation, in the event loop; each call is short."""

    def delivered(self, item: Played | Item) -> None:
        """A frame, or the end of an utterance, was sent to the client."""

    def heard(self, samples: npt.NDArray[np.float32 | np.int16], rate: int) -> None:
        """The other party was heard."""

    def answered(self, compute_seconds: float, playout_seconds: float) -> None:
        """The first frame of an utterance was sent: how long it was computed, and then buffered."""
