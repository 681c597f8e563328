"""The native kernels: one function for each, which checks its arguments; `ditto.ops.reference` defines the results."""

from ditto.ops.composite import composite
from ditto.ops.eyes import draw_eye
from ditto.ops.mouth import paint_mouth, smooth_corner
from ditto.ops.paste_back import paste_back
from ditto.ops.warp import carry, flat_around, warp

__all__ = ["carry", "composite", "draw_eye", "flat_around", "paint_mouth", "paste_back", "smooth_corner", "warp"]
