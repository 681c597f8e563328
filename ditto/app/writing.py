"""A video written by a command: the frames with their label, the sound, and what the command says of formats without sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ditto.app.console import progress
from ditto.media.rates import FPS

if TYPE_CHECKING:
    from rich.console import Console

    from ditto.media.formats import Format
    from ditto.media.video import VideoWriter
    from ditto.provenance import Label


def write_frames(
    images: Iterator[npt.NDArray[np.uint8]], total: int | None, console: Console, format: Format, label: Label | None,
    output: str, width: int, height: int, **options: Any,
) -> VideoWriter:  # fmt: skip
    """Write images (H, W, 3) or (H, W, 4) to a video; the writer, closed.

    Args:
        total: how many there will be, for the progress bar; None if that is not known.
        format: of the output, as `check_output` gave it.
        label: drawn into every image.
        options: of `VideoWriter`.

    Raises:
        OutputError: the output cannot be written. AudioError: the sound cannot be read.
    """
    from ditto.media.video import VideoWriter

    if label is not None:
        label.check(height, width)
    if format.audio_codec is None:
        console.print(f"{format.name} carries no sound", highlight=False)
    with VideoWriter(output, width, height, **options) as writer:
        for image in progress(images, total, console):
            writer.write(image if label is None else label.draw(image))
    return writer


def written(writer: VideoWriter, output: str) -> dict[str, Any]:
    """What a command reports of a video that it wrote."""
    return {
        "output": output,
        "codec": writer.format.codec,
        "frames": writer.frames,
        "duration_seconds": writer.frames / FPS,
        "width": writer.width,
        "height": writer.height,
    }
