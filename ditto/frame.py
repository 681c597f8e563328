"""What a talking head gives out: frames, and the ends of utterances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ditto.motion.motion import Motion


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture and the 40 ms of sound that belong to it.

    Attributes:
        image: (H, W, 3) uint8 RGB; of a session as its `output` says: (H, W, 3) for "rgb24" and "bgr24", (H, W, 4) for
            "rgba", and (3 H / 2, W) planes Y, U, V for "yuv420p" (BT.601, limited range). H and W are even.
        index: frames that the stream or session gave out before this one.
        pts_seconds: index / 25, the clock on which pictures and sound run together.
        audio: float32; of a stream (640,) samples [640 index, 640 index + 640) at 16 kHz, zeros after the end; of a
            session (audio_rate / 25,), silence unless `kind` is "speech".
        motion: the motion (70,) shown, after controls; None where the bundle has no explicit motion.
        kind: "speech" with the sound of an utterance; "transition" while the face comes to rest after one; "idle".
        epoch: number of the utterance; of the next one where none is spoken. 0 in a stream.
        speech_index: number of the frame in its utterance; None unless `kind` is "speech".
    """

    image: npt.NDArray[np.uint8]
    index: int
    pts_seconds: float
    audio: npt.NDArray[np.float32]
    motion: Motion | None
    kind: str = "speech"
    epoch: int = 0
    speech_index: int | None = None


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
