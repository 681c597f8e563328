"""Encoders of frames: JPEG, H.264 or their motion, one a client."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from ditto.errors import SessionError
from ditto.live import Frame, outputs
from ditto.live.server.protocol import H264, H264_KEY, JPEG, MOTION, NO_PICTURE, Start
from ditto.motion.motion import FPS

if TYPE_CHECKING:
    from av import VideoCodecContext

KEY_FRAMES = 2 * FPS  # one at least every two seconds
H264_OPTIONS = {"preset": "veryfast", "tune": "zerolatency", "crf": "21", "profile": "baseline"}


class Encoder(Protocol):
    """Encodes pictures.

    Attributes:
        pixels: the `output` of the session that it takes.
        small: whether what it gives is small and takes no time: made in the event loop, and never left out.
    """

    pixels: str
    small: bool

    def encode(self, frame: Frame) -> tuple[bytes, int]:
        """The bytes, and their kind (`protocol.JPEG`, ...)."""
        ...


class JpegEncoder:
    """JPEG: every picture on its own."""

    pixels = "bgr24"
    small = False

    def __init__(self, quality: int) -> None:
        self._options = [cv2.IMWRITE_JPEG_QUALITY, quality]

    def encode(self, frame: Frame) -> tuple[bytes, int]:
        done, data = cv2.imencode(".jpg", frame.image, self._options)
        assert done
        return data.tobytes(), JPEG


class H264Encoder:
    """H.264, Annex B: one access unit a frame, parameter sets with every key frame, no delay."""

    pixels = "yuv420p"
    small = False

    def __init__(self) -> None:
        self._context: VideoCodecContext | None = None
        self._frames = 0

    def encode(self, frame: Frame) -> tuple[bytes, int]:
        import av

        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.image), format="yuv420p")
        if self._context is None:
            self._context = av.CodecContext.create("libx264", "w")
            self._context.width, self._context.height = picture.width, picture.height
            self._context.pix_fmt = "yuv420p"
            self._context.time_base, self._context.framerate = Fraction(1, FPS), Fraction(FPS)
            self._context.thread_count = 1
            self._context.gop_size = KEY_FRAMES
            self._context.options = H264_OPTIONS | {"x264-params": "annexb=1:repeat-headers=1"}
        picture.pts, picture.time_base = self._frames, Fraction(1, FPS)
        self._frames += 1
        packets = self._context.encode(picture)
        key = any(packet.is_keyframe for packet in packets)
        return b"".join(bytes(packet) for packet in packets), H264_KEY if key else H264


class MotionEncoder:
    """The motion in place of a picture: 70 float16, 140 bytes, at most .01 px from what the server would draw."""

    pixels = outputs.MOTION
    small = True

    def encode(self, frame: Frame) -> tuple[bytes, int]:
        assert frame.motion is not None  # the session was not opened without the capability
        with np.errstate(over="ignore"):  # checked in the next line
            row = frame.motion.values.astype("<f2")
        if not np.isfinite(row).all():
            raise SessionError(
                f"expected a motion of finite numbers for frame {frame.index}, got others; open another session"
            )
        return row.tobytes(), MOTION


class NoEncoder:
    """No pictures, only sound."""

    pixels = "yuv420p"
    small = True

    def encode(self, frame: Frame) -> tuple[bytes, int]:
        return b"", NO_PICTURE


def encoder_of(start: Start) -> Encoder:
    """The encoder for the `video` of a start message."""
    match start.video:
        case "jpeg":
            return JpegEncoder(start.quality)
        case "h264":
            return H264Encoder()
        case "motion":
            return MotionEncoder()
        case "none":
            return NoEncoder()
