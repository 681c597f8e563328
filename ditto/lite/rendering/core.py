"""The lite renderer that draws: `MeshRenderer` prepares a portrait, the core (csrc/core) draws it.

The core does in C++ what `MeshRenderer.retarget` and `MeshRenderer.render` say in NumPy, in a tenth of the time for all but
the pixels, and holds no lock of Python's while it draws. tests/lite/rendering/test_core.py compares the two.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto._native import Core
from ditto.errors import InputError
from ditto.lite.rendering.blob import portrait_blob
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.lite.rendering.numbers import model_numbers, portrait_numbers
from ditto.lite.rendering.paste_back import PasteBack
from ditto.motion.motion import Motion
from ditto.portrait import packed
from ditto.portrait.packed import PackedAppearance
from ditto.portrait.portrait import Portrait

logger = logging.getLogger(__name__)


class CoreRenderer:
    """Draws a portrait with a motion. Immutable; any number of threads may draw one portrait at once.

    Attributes:
        mesh: the renderer that prepares portraits, and the definition of what is drawn.
    """

    def __init__(self, bundle_folder: str | Path) -> None:
        """Read `renderer.safetensors` from a bundle's folder.

        Raises:
            BundleError: the file is missing, damaged or of another format.
        """
        self.mesh = MeshRenderer(bundle_folder)

    @cached_property
    def model_pack(self) -> bytes:
        """What a core needs beside a packed portrait (docs/packed.md); the same for every portrait."""
        return model_numbers(self.mesh.learned)

    @cached_property
    def model(self) -> str:
        """SHA-256 of the model pack, in hexadecimal digits."""
        return hashlib.sha256(self.model_pack).hexdigest()

    def prepare(self, portrait: Portrait) -> Core:
        """Meshes, layers and background plate of a portrait, in a core of its own.

        A portrait that was packed with this model pack brings them along; others take about a second.

        Raises:
            InputError: the packed portrait is damaged.
        """
        if portrait.packed is not None:
            if packed.model_of(portrait.packed) == self.model:
                return self.unpack(portrait.packed, portrait)
            logger.info("the portrait was packed for another version of the bundle; it is prepared again")
        return Core(portrait_blob(self.mesh.learned, portrait, self.mesh.prepare(portrait)))

    def pack(self, portrait: Portrait, lossless: bool = False) -> bytes:
        """The portrait and its appearance as the bytes of one file. A portrait that comes from such a file gives them again.

        Args:
            lossless: pictures as PNG, bit for bit as they are; JPEG otherwise.
        """
        if portrait.packed is not None and packed.model_of(portrait.packed) == self.model:
            if packed.is_lossless(portrait.packed) or not lossless:
                return portrait.packed
            return packed.pack(portrait, packed.appearance_of(portrait.packed), lossless)
        appearance = self.mesh.prepare(portrait)
        numbers = portrait_numbers(portrait, appearance, self.mesh.paste_back(portrait))
        return packed.pack(portrait, PackedAppearance(self.model, numbers, appearance.background.plate), lossless)

    def unpack(self, data: bytes, portrait: Portrait, whole: bool = False) -> Core:
        """The core of a packed portrait.

        Args:
            portrait: loaded from these bytes.
            whole: the core is to give the whole picture too, not the crop alone.

        Raises:
            InputError: damaged, or packed for another model pack.
        """
        appearance = packed.appearance_of(data)
        if appearance.model != self.model:
            raise InputError(
                f"expected a portrait packed for the model pack {self.model[:12]}, got {appearance.model[:12]}; pack the "
                "portrait again with this version"
            )
        picture = portrait.picture if whole else None
        try:
            return Core.unpack(self.model_pack, appearance.numbers, picture, portrait.crop, appearance.plate)
        except ValueError as error:
            raise InputError(f"the packed portrait cannot be drawn: {error}") from None

    def paste_back(self, portrait: Portrait) -> PasteBack:
        """What pastes rendered crops back into the portrait's picture."""
        return self.mesh.paste_back(portrait)

    def prepare_alpha(
        self, portrait: Portrait
    ) -> Callable[[Core, npt.NDArray[np.float32]], tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
        """The function from a prepared portrait with alpha and a motion, as of `render`, to crop and alpha.

        The crop is that of `render`, the alpha (H, W) that of the whole picture: it moves as the colours do, and is the
        portrait's own where nothing moves.
        """
        assert portrait.alpha is not None
        plane = self.mesh.prepare_alpha(portrait)
        paste_back = PasteBack(portrait, portrait.alpha[..., None], plane.values[..., None])

        def draw(core: Core, pose: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
            crop, alpha = core.with_plane(pose, *plane)
            return crop, paste_back(alpha[..., None])[..., 0]

        return draw

    def retarget(self, portrait: Portrait, motion: Motion) -> npt.NDArray[np.float32]:
        """One frame of motion (70,) as `render` takes it: the core knows its portrait and retargets itself.

        Raises:
            ValueError: more than one frame.
        """
        if motion.values.ndim != 1:
            raise ValueError(f"expected one frame of motion (70,), got {motion.values.shape}; index the motion first")
        return motion.values

    def render(self, appearance: Core, pose: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """One frame of the face crop, (S, S, 3) uint8 RGB.

        Raises:
            ValueError: the motion holds NaN or infinity.
        """
        return appearance.crop(pose)
