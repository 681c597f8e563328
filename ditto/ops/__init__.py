"""Doors of the native kernels: checked arguments, one function per kernel."""

from ditto.ops.mouth import paint_mouth

__all__ = ["paint_mouth"]
