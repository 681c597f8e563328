"""Plain NumPy reference implementations of the kernels: the definitions. Slow, short, the ones to change first."""

from ditto.ops.reference.composite import composite
from ditto.ops.reference.eyes import draw_eye
from ditto.ops.reference.mouth import paint_mouth, smooth_corner
from ditto.ops.reference.paste_back import paste_back
from ditto.ops.reference.warp import carry, warp

__all__ = ["carry", "composite", "draw_eye", "paint_mouth", "paste_back", "smooth_corner", "warp"]
