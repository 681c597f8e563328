"""The colours of a GIF: at most 255 for a whole video, so that what does not move does not flicker."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.media.rates import FPS

LEARNED_FRAMES = FPS  # the palette is made from the first second: it has to wait for these, in memory
LEARNED_PIXELS = 1 << 16  # of each
OPAQUE = 128  # alpha from which a pixel is shown
# An ordered dither stands still where the picture does; error diffusion would crawl. Scale by eye, on examples/portrait.jpg.
DITHER = f"dither=bayer:bayer_scale=4:diff_mode=rectangle:alpha_threshold={OPAQUE}"


class Palette:
    """PyAV frames, RGB or RGBA, to frames of one palette (pal8). The first second comes out late.

    Args:
        colours: at most, with the transparent one.
    """

    def __init__(self, width: int, height: int, colours: int) -> None:
        self._size, self._colours = (width, height), colours
        self._waiting: list[Any] = []
        self._graph: tuple[Any, Any, Any] | None = None  # and its source and sink; they do not keep it alive

    def push(self, frame: Any) -> Iterator[Any]:
        """The frames that became final."""
        if self._graph is not None:
            yield from self._convert(frame)
            return
        self._waiting.append(frame)
        if len(self._waiting) == LEARNED_FRAMES:
            yield from self.flush()

    def flush(self) -> Iterator[Any]:
        """The frames that wait."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._graph = self._make_graph(_palette_of(waiting, self._colours))
        for frame in waiting:
            yield from self._convert(frame)

    def _convert(self, frame: Any) -> Iterator[Any]:
        assert self._graph is not None
        _, source, sink = self._graph
        bgra = frame.reformat(format="bgra")
        bgra.pts, bgra.time_base = frame.pts, frame.time_base
        source.push(bgra)
        yield sink.pull()

    def _make_graph(self, palette: npt.NDArray[np.uint8]) -> tuple[Any, Any, Any]:
        import av

        graph = av.filter.Graph()
        time_base = Fraction(1, FPS)
        bgra = av.VideoFormat("bgra")
        source = graph.add_buffer(width=self._size[0], height=self._size[1], format=bgra, time_base=time_base)
        colours = graph.add_buffer(width=16, height=16, format=bgra, time_base=time_base)
        use, sink = graph.add("paletteuse", DITHER), graph.add("buffersink")
        source.link_to(use, 0, 0)
        colours.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        frame = av.VideoFrame.from_ndarray(palette, format="bgra")
        frame.pts, frame.time_base = 0, time_base
        colours.push(frame)
        colours.push(None)
        return graph, source, sink


def _palette_of(frames: list[Any], colours: int) -> npt.NDArray[np.uint8]:
    """(16, 16, 4) BGRA: colours of the frames by median cut; the last one is transparent."""
    from PIL import Image

    seen = []
    for frame in frames:
        pixels = frame.to_ndarray(format="rgba").reshape(-1, 4)
        pixels = pixels[:: max(1, len(pixels) // LEARNED_PIXELS)]
        seen.append(pixels[pixels[:, 3] >= OPAQUE, :3])
    shown = np.concatenate(seen)
    found = np.zeros((1, 3), np.uint8)
    if len(shown):
        image = Image.fromarray(shown[None]).quantize(colours - 1, Image.Quantize.MEDIANCUT)
        assert image.palette is not None
        found = np.frombuffer(image.palette.tobytes(), np.uint8).reshape(-1, 3)[: colours - 1]
    palette = np.full((256, 4), 255, np.uint8)
    palette[:, :3] = found[-1]
    palette[: len(found), :3] = found
    palette[:, :3] = palette[:, 2::-1]
    palette[255] = 0
    return palette.reshape(16, 16, 4)
