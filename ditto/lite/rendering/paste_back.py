"""The rendered crop back into the whole picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto.ops import paste_back
from ditto.ops.reference.paste_back import sample
from ditto.portrait.face_mesh import smoothstep
from ditto.portrait.portrait import Portrait

Floats = npt.NDArray[np.float64]

FADE = 0.025  # of the crop's side: the change fades out towards a side inside the picture; chosen by eye


def _outline(portrait: Portrait) -> Floats:
    """(2, 4) the corners of the crop's outer edge in the picture."""
    edge = np.array([-0.5, portrait.crop.shape[0] - 0.5])
    corners = np.stack(np.broadcast_arrays(edge[:, None], edge[None, :], 1.0)).reshape(3, 4)
    outline: Floats = portrait.crop_to_picture[:2] @ corners
    return outline


def picture_ends(portrait: Portrait) -> npt.NDArray[np.bool_]:
    """(2, 2): whether the picture ends at or inside of a side of the crop, left and right, upper and lower.

    Nothing of the picture lies beyond such a side, so nothing there would be cut off from what moves in the crop.
    """
    matrix, outline = portrait.crop_to_picture, _outline(portrait)
    if matrix[0, 1] != 0.0 or matrix[1, 0] != 0.0:
        return np.zeros((2, 2), bool)
    extent = np.array(portrait.picture.shape[1::-1])
    return np.stack([outline.min(1) <= 0.5, outline.max(1) >= extent - 1.5], -1)


class PasteBack:
    """Frames of one portrait: the picture (H, W, C), with what the renderer changed in the crop (S, S, C) added to it.

    An unchanged crop gives the picture back bit for bit. Only pixels the crop covers change. Where the picture is finer
    than the crop, its fine detail gives way to the rendered crop as far as the crop has changed there.
    """

    def __init__(
        self, portrait: Portrait, picture: npt.NDArray[np.uint8] | None = None, crop: npt.NDArray[np.uint8] | None = None
    ) -> None:
        """`picture` and `crop` in place of the portrait's: other channels of them."""
        self.picture = portrait.picture if picture is None else picture
        self.source = portrait.crop if crop is None else crop
        height, width = portrait.picture.shape[:2]
        size = portrait.crop.shape[0]
        matrix = portrait.crop_to_picture
        self.to_crop = np.linalg.inv(np.asarray(matrix, np.float64))[:2]
        step = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
        self.reduce = int(np.clip(round(1.0 / step), 1, size // 4))

        outline = _outline(portrait)
        low = np.maximum(np.ceil(outline.min(1)), 0).astype(int)
        high = np.minimum(np.floor(outline.max(1)), (width - 1, height - 1)).astype(int)
        high = np.maximum(high, low)
        self.corner = (int(low[0]), int(low[1]))
        self.size = (int(high[0] - low[0] + 1), int(high[1] - low[1] + 1))

        parallel = matrix[0, 1] == 0.0 and matrix[1, 0] == 0.0
        fade = smoothstep(0.0, 1.0, np.arange(size) / max(1.0, FADE * size))
        self.ramp = np.ones((2, size), np.float32)
        for ramp, (low_end, high_end) in zip(self.ramp, picture_ends(portrait), strict=True):
            if not low_end:
                ramp *= fade
            if not high_end:
                ramp *= fade[::-1]
        copy = parallel and step == 1.0 and bool((matrix[:2, 2] == np.round(matrix[:2, 2])).all())
        self.detail = None if copy else self._fine_detail()

    def _fine_detail(self) -> npt.NDArray[np.int16]:
        """(height, width, C): the touched part of the picture less the source crop drawn into it."""
        (x0, y0), (width, height), n = self.corner, self.size, self.reduce
        x, y = np.arange(x0, x0 + width), np.arange(y0, y0 + height)[:, None]
        a, size = self.to_crop, self.source.shape[0]
        u = a[0, 0] * x + a[0, 1] * y + a[0, 2]
        v = a[1, 0] * x + a[1, 1] * y + a[1, 2]
        whole = size // n * n
        small = self.source[:whole, :whole].reshape(whole // n, n, whole // n, n, -1).mean((1, 3), dtype=np.float32)
        border = 3  # repeated, so that the edge of the crop is drawn at full strength
        small = np.pad(small, ((border, border), (border, border), (0, 0)), mode="edge")
        drawn = sample(small, (u + 0.5) / n - 0.5 + border, (v + 0.5) / n - 0.5 + border)
        part = self.picture[y0 : y0 + height, x0 : x0 + width]
        covered = (u >= -0.5) & (u <= size - 0.5) & (v >= -0.5) & (v <= size - 0.5)
        return np.where(covered[..., None], np.rint(part - drawn), 0.0).astype(np.int16)

    def __call__(self, crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The frame (H, W, C) uint8 for a rendered crop (S, S, C) uint8."""
        return paste_back(
            self.picture,
            self.source,
            crop,
            self.ramp,
            self.to_crop,
            self.corner,
            self.size,
            self.detail,
            self.reduce,
        )
