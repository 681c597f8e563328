"""Draws one eye into a frame: checks, then the kernel."""

from __future__ import annotations

from ditto.ops.reference.eyes import (
    BALL,
    CHANNELS,
    GLINT,
    IRIS,
    IRIS_ALPHA,
    KEEP,
    LID_MASK,
    SCLERA,
    SKIN,
    EyeView,
    draw_eye,
)

__all__ = ["BALL", "CHANNELS", "GLINT", "IRIS", "IRIS_ALPHA", "KEEP", "LID_MASK", "SCLERA", "SKIN", "EyeView", "draw_eye"]
