"""A performer whose pictures are empty: for what asks only for motion, at no cost of rendering."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.errors import InputError
from ditto.lite.speech_encoder import HOP_SAMPLES
from ditto.motion.motion import Motion
from ditto.performer import Performer
from ditto.portrait.portrait import Portrait
from ditto.row_performer import RowPerformer
from ditto.stream import Frame, Stream
from ditto.talking_head import TalkingHead


def rows_of(performer: Performer) -> RowPerformer[Any, Any, Any, Any, Any]:
    """The performer, if its motion is explicit.

    Raises:
        InputError: it is not.
    """
    if not isinstance(performer, RowPerformer):
        raise InputError(
            f"expected a bundle with explicit motion, got a {type(performer).__name__}; use another bundle"
        )
    return performer


def motion_only(performer: Performer) -> RowPerformer[Any, Any, Any, Any, Any]:
    """The same motions with empty pictures.

    Raises:
        InputError: the performer has no explicit motion.
    """
    return rows_of(performer).motion_only()


def without_pictures(head: TalkingHead) -> TalkingHead:
    """The same head with empty pictures.

    Raises:
        InputError: its motion is not explicit.
    """
    return TalkingHead(head.bundle, motion_only(head.performer))


def style_option(text: str | None) -> dict[str, Any]:
    """The option of a stream for a style given by name or as a number; none if none is given.

    Raises:
        InputError: streams of this version have no style.
    """
    if text is None:
        return {}
    if "style" not in inspect.signature(TalkingHead.stream).parameters:
        raise InputError(f"expected a version of ditto whose streams have a style, got style {text!r}; leave it out")
    try:
        return {"style": float(text)}
    except ValueError:
        return {"style": text}


def said(stream: Stream, samples: npt.NDArray[np.float32]) -> Iterator[Frame]:
    """All frames of a recording, pushed hop by hop."""
    for start in range(0, len(samples), HOP_SAMPLES):
        yield from stream.push(samples[start : start + HOP_SAMPLES])
    yield from stream.flush()


def said_motion(head: TalkingHead, portrait: Portrait, samples: npt.NDArray[np.float32], **options: Any) -> Motion:
    """The motion (T, 70) of a recording; options as of `TalkingHead.stream`. Of a head `without_pictures`."""
    frames = said(head.stream(portrait, **options), samples)
    return Motion(np.array([frame.motion.values for frame in frames]))
