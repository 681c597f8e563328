"""The lite renderer that draws: `MeshRenderer` prepares a portrait, the core (csrc/core) draws it.

The core does in C++ what `MeshRenderer.retarget` and `MeshRenderer.render` say in NumPy, in a tenth of the time for all but
the pixels, and holds no lock of Python's while it draws. tests/lite/rendering/test_core.py compares the two.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto._native import Core
from ditto.lite.rendering.blob import portrait_blob
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.lite.rendering.paste_back import PasteBack
from ditto.motion.motion import Motion
from ditto.portrait.portrait import Portrait


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

    def prepare(self, portrait: Portrait) -> Core:
        """Meshes, layers and background plate of a portrait, in a core of its own."""
        return Core(portrait_blob(self.mesh.learned, portrait, self.mesh.prepare(portrait)))

    def paste_back(self, portrait: Portrait) -> PasteBack:
        """What pastes rendered crops back into the portrait's picture."""
        return self.mesh.paste_back(portrait)

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
