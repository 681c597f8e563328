"""Plain NumPy twins of the kernels: the definitions. Slow, short, the ones to change first."""

from ditto.ops.reference.composite import composite
from ditto.ops.reference.mouth import paint_mouth
from ditto.ops.reference.warp import warp

__all__ = ["composite", "paint_mouth", "warp"]
