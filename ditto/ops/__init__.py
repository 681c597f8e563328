"""Doors of the native kernels: checked arguments, one function per kernel."""

from ditto.ops.eyes import draw_eye
from ditto.ops.mouth import paint_mouth

__all__ = ["draw_eye", "paint_mouth"]
