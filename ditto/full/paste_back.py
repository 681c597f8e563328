"""Puts the rendered crop back as the released pipeline does: warps a soft-edged mask and the crop, blends, truncates.

Source: the released Ditto at e9191cf (tests/fixtures/reference, wiring_putback).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ditto.full.cropping import invert, taps
from ditto.full.sizes import CROP_SIZE

if TYPE_CHECKING:
    import torch

Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]

CORE = 0.9  # part of each side where the mask is one; as released


def soft_mask(size: int) -> Array:
    """(size, size) in 0..1: one in the middle, linear ramps to the sides, round corners."""
    inside = int(size * CORE)
    before = (size - inside) // 2
    after = size - before - inside
    away: npt.NDArray[np.float64] = 1 - np.concatenate([np.linspace(0, 1, before), np.ones(inside), np.linspace(1, 0, after)])
    return np.asarray(1 - np.minimum(1, np.hypot(away, away[:, None])), np.float32)


class PasteBack:
    """Frames of one picture: renders warped into it under a soft mask.

    Args:
        picture: (H, W, 3) uint8 RGB.
        crop_to_picture: (3, 3) affine, crop pixels -> picture pixels.
        size: pixels of a crop's side.
    """

    def __init__(self, picture: Bytes, crop_to_picture: npt.ArrayLike, size: int = CROP_SIZE) -> None:
        height, width = picture.shape[:2]
        to_picture = np.asarray(crop_to_picture, np.float64)
        to_crop = invert(to_picture)
        corners = to_picture[:2] @ np.array([[-1, size, -1, size], [-1, -1, size, size], [1, 1, 1, 1]])
        x0, y0 = (int(max(0, np.floor(low))) for low in corners.min(1))
        x1, y1 = (int(min(end, np.ceil(high) + 1)) for end, high in zip((width, height), corners.max(1), strict=True))
        x1, y1 = max(x0, x1), max(y0, y1)
        y, x = (axis.ravel() for axis in np.mgrid[y0:y1, x0:x1])
        self._picture = picture
        self._part = (slice(y0, y1), slice(x0, x1))  # of the picture that the crop covers
        part = taps(to_crop, x, y, (size, size))
        weight = part.sample(soft_mask(size)[..., None])[0]
        self._taps = part._replace(weights=part.weights * weight)
        self._rest: Array = (1 - weight) * picture[self._part].reshape(-1, 3).T

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Indices, weights and rest of `ditto.ops.neural.blend_crop`, on the CPU."""
        import torch

        indices = torch.from_numpy(self._taps.indices.astype(np.int32))
        return indices, torch.from_numpy(self._taps.weights), torch.from_numpy(self._rest)

    def on_device(self, device: torch.device) -> Callable[[torch.Tensor], Bytes]:
        """The same with the crop on a GPU: image (3, S, S) in 0..1 -> frame. Only the part that the crop covers comes down."""
        from ditto.ops import neural

        tensors = [tensor.to(device) for tensor in self.tensors()]

        def frame_of(image: torch.Tensor) -> Bytes:
            frame = self._picture.copy()
            part = frame[self._part]
            part[...] = neural.blend_crop(image.float(), *tensors).cpu().numpy().reshape(part.shape)
            return frame

        return frame_of

    def __call__(self, render: npt.NDArray[np.uint8] | Array) -> Bytes:
        """The frame (H, W, 3) uint8 for a render (S, S, 3), 0..255."""
        frame = self._picture.copy()
        blend = self._taps.sample(render)
        blend += self._rest
        part = frame[self._part]
        for channel, plane in enumerate(np.clip(blend, 0, 255, out=blend)):
            part[..., channel] = plane.reshape(part.shape[:2])
        return frame
