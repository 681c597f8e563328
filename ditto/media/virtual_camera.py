"""Frames as a camera of this machine, which video calls can choose: needs pyvirtualcam, `[camera]`."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.errors import OutputError
from ditto.media.rates import FPS


class VirtualCamera:
    """A virtual camera at 25 frames a second; no sound. A context manager.

        with VirtualCamera(width, height) as camera:
            for frame in head.animate(portrait, "speech.wav"):
                camera.write(frame.image)

    Args:
        width, height: of every frame.
        device: name of the camera, where the system has several; `/dev/video2` on Linux.

    Attributes:
        device: name of the camera, to choose in the call.

    Raises:
        OutputError: pyvirtualcam is not installed, or the system has no virtual camera.
    """

    def __init__(self, width: int, height: int, device: str | None = None) -> None:
        try:
            import pyvirtualcam
        except ImportError as error:
            raise OutputError(
                "expected pyvirtualcam for a virtual camera, got none; pip install 'ditto-talking-head[camera]'"
            ) from error
        self._shape = (height, width, 3)
        try:
            self._camera: Any = pyvirtualcam.Camera(width, height, FPS, device=device)  # takes RGB
        except (RuntimeError, OSError, ValueError) as error:
            raise OutputError(
                f"expected a virtual camera {device or ''}".rstrip() + f", got: {error}; install v4l2loopback (Linux) or OBS "
                "(macOS, Windows), and close programs that use the camera"
            ) from error
        self.device = str(self._camera.device)

    def __enter__(self) -> VirtualCamera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, image: npt.NDArray[np.uint8]) -> None:
        """Show a frame, (height, width, 3) uint8 RGB, and wait until it is due.

        Raises:
            ValueError: another shape or type, or the camera is closed.
            OutputError: the camera is gone.
        """
        if self._camera is None:
            raise ValueError("expected an open camera, got one that was closed; make another")
        if image.shape != self._shape or image.dtype != np.uint8:
            raise ValueError(
                f"expected a frame {self._shape} uint8, got {image.shape} {image.dtype}; give all frames one size"
            )
        try:
            self._camera.send(np.ascontiguousarray(image))
            self._camera.sleep_until_next_frame()
        except (RuntimeError, OSError) as error:
            raise OutputError(f"expected the virtual camera {self.device}, got: {error}; open it again") from error

    def close(self) -> None:
        """Give the camera back. A second call does nothing."""
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.close()
