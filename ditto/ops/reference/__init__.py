"""Plain NumPy twins of the kernels: the definitions."""

from ditto.ops.reference.mouth import paint_mouth

__all__ = ["paint_mouth"]
