"""Renders a portrait with the published networks: poses and stitches keypoints, warps and decodes the feature volume.

Source: LivePortrait (arXiv:2407.03168), section 3.1 and 3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from ditto.full.cropping import FACE
from ditto.full.motion_math import Pose, posed_keypoints
from ditto.full.paste_back import PasteBack
from ditto.full.source import Call, Source
from ditto.motion.motion import DEGREES, EXPRESSION, SCALE, TRANSLATION, Motion
from ditto.performer import check_numbers
from ditto.portrait.portrait import Portrait

if TYPE_CHECKING:
    from ditto.engines import DeviceEngine

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


class NeuralFaceRenderer:
    """Renders a portrait under a motion relative to it.

    Args:
        source_of: portrait -> its source.
        renderer: engine: feature_3d, kp_source, kp_driving -> image (1, 3, 512, 512) in 0..1.
        stitching: engine: kp_source, kp_driving -> kp_stitched (1, 21, 3); None: no stitching.
        stays: the crop stays on the device of `renderer`, a `DeviceEngine`, and is blended into the picture there; then 8-bit
            pixels come down in place of float32.

    Attributes:
        source_of: as given.
    """

    def __init__(
        self, source_of: Callable[[Portrait], Source], renderer: Call, stitching: Call | None, stays: bool = False
    ) -> None:
        self.source_of = source_of
        self._renderer = renderer
        self._stitching = stitching
        self._engine = cast("DeviceEngine", renderer) if stays else None

    def prepare(self, portrait: Portrait) -> Source:
        """The portrait's source."""
        return self.source_of(portrait)

    def paste_back(self, portrait: Portrait) -> Callable[[Any], Pixels]:
        """Puts rendered crops into the portrait's picture."""
        return self.paste_into(portrait.picture, self.source_of(portrait).crop_to_picture)

    def paste_into(self, picture: Pixels, crop_to_picture: npt.ArrayLike) -> Callable[[Any], Pixels]:
        """Puts rendered crops into a picture (H, W, 3); `crop_to_picture` is (3, 3)."""
        paste = PasteBack(picture, crop_to_picture, int(self._engine.outputs[0].shape[-1]) if self._engine else FACE.size)
        return paste if self._engine is None else paste.on_device(self._engine.device)

    def retarget(self, portrait: Portrait, motion: Motion) -> Motion:
        """One frame as `render` takes it: the motion (70,) itself."""
        if motion.values.ndim != 1:
            raise ValueError(f"expected one frame of motion (70,), got {motion.values.shape}; index the motion")
        return motion

    def keypoints(self, source: Source, motion: Motion) -> Array:
        """Driving keypoints (21, 3), model units, before stitching."""
        change, rest = motion.values.astype(np.float64), source.pose
        pose = Pose(
            rest.scale * float(1.0 + change[SCALE][0]),
            rest.degrees + change[DEGREES],
            rest.t + change[TRANSLATION],
            rest.exp + change[EXPRESSION],
        )
        return posed_keypoints(source.condition.canonical, pose).astype(np.float32)

    def render(self, source: Source, motion: Motion) -> Any:
        """One frame of the face crop for `paste_back`: (512, 512, 3) RGB float32, 0..255, which it truncates; where the crop
        stays on the device, a tensor (3, 512, 512) in 0..1.
        """
        still = source.keypoints.astype(np.float32)[None]
        moved = self.keypoints(source, motion)[None]
        if self._stitching is not None:
            moved = self._stitching(kp_source=still, kp_driving=moved)["kp_stitched"]
        if self._engine is not None:
            from ditto.engines.torch_engine import as_tensor

            volume = as_tensor("feature_3d", source.volume)
            given = {"kp_source": as_tensor("kp_source", still), "kp_driving": as_tensor("kp_driving", moved)}
            return self._engine.run(feature_3d=volume, **given)["image"][0]
        image = self._renderer(feature_3d=source.volume, kp_source=still, kp_driving=moved)["image"][0]
        check_numbers("renderer", image)
        crop = np.clip(image.transpose(1, 2, 0), 0.0, 1.0) * np.float32(255.0)
        return np.ascontiguousarray(crop, np.float32)
