"""The output of a stream or session: frames, and the ends of utterances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ditto.motion.motion import Motion


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture and its 40 ms of sound.

    Attributes:
        image: (H, W, 3) uint8 RGB, or as the option `output` says: (H, W, 3) for "rgb24", "bgr24" and "rgb24_green", (H, W, 4)
            for "rgba", (2 H, W, 3) for "rgba_stacked" (colours above their alpha), and (3 H / 2, W) planes Y, U, V for
            "yuv420p" (BT.601, limited range). H and W are even. Empty, (0, 0, 3), for "motion" (in sessions).
        index: how many frames the stream or session gave before this one.
        pts_seconds: index / 25; picture and sound are both shown from this time on.
        audio: float32. In a stream (640,): samples [640 index, 640 index + 640) at 16 kHz, zeros after the end. In a
            session (audio_rate / 25,): silence unless `kind` is "speech".
        motion: the motion (70,) shown, after controls; None if the bundle has no explicit motion.
        kind: "speech": with the sound of an utterance; "transition": the face comes to rest after one; "idle".
        epoch: number of the utterance; between utterances, of the next one. 0 in a stream.
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
    """The end of a flushed utterance: all its frames have come.

    Attributes:
        epoch: number of the utterance.
        pts_seconds: length of the utterance.
    """

    epoch: int
    pts_seconds: float


Item = Frame | SegmentEnd
