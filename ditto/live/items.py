"""What a session gives out, and the forms its pictures take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

from ditto.images import straight_colours
from ditto.motion import Motion

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a session and the 40 ms of sound to play with it.

    Attributes:
        image: uint8, as the session's `output` says: (H, W, 3) for "rgb24" and "bgr24", (H, W, 4) for "rgba", and
            (3 H / 2, W) planes Y, U, V for "yuv420p" (BT.601, limited range). H and W are even.
        index: frames the session gave out before this one.
        pts_seconds: index / 25: the session's clock, on which pictures and sound run together.
        kind: "speech" with the sound of an utterance; "transition" while the face comes to rest after one; "idle".
        epoch: number of the utterance; of the next one where none is spoken.
        speech_index: number of the frame in its utterance; None unless kind is "speech".
        audio: (audio_rate / 25,) float32; silence unless kind is "speech".
        motion: the (70,) motion shown, after controls.
    """

    image: Pixels
    index: int
    pts_seconds: float
    kind: str
    epoch: int
    speech_index: int | None
    audio: npt.NDArray[np.float32]
    motion: Motion


@dataclass(frozen=True)
class SegmentEnd:
    """All frames of a flushed utterance have come.

    Attributes:
        epoch: number of the utterance.
        pts_seconds: its length.
    """

    epoch: int
    pts_seconds: float


Item = Frame | SegmentEnd


def _rgba(image: Pixels, alpha: Pixels | None) -> Pixels:
    """Straight alpha: the white that a portrait is laid over is taken off its colours again."""
    if alpha is None:
        return np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    return np.dstack([straight_colours(image, alpha), alpha])


OUTPUTS: MappingProxyType[str, Callable[[Pixels, Pixels | None], Pixels]] = MappingProxyType(
    {
        "rgb24": lambda image, alpha: image,
        "bgr24": lambda image, alpha: np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8),
        "rgba": _rgba,
        "yuv420p": lambda image, alpha: np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8),
    }
)
"""From an (H, W, 3) RGB picture and the portrait's (H, W) alpha to the form of a name."""
